//! Data movement: loads, stores, moves between register files, inserts, extracts and masks; also the state and hint
//! instructions EMMS, LDMXCSR, STMXCSR, PREFETCHh and the fences.

use super::host::sse2::pmovmskb;
use super::mxcsr;
use super::operands::*;
use super::shuffle::{extract, insert, insertps, merge_low, movmskpd, movmskps};
use crate::ExecFn;
use crate::mmu::Access;
use crate::operand::memory_segment;
use crate::state::Cpu;
use iced_x86::{Code, Instruction, OpKind, Register};
use x86::Exception;

type Done = Result<(), Exception>;

/// MOVAPS xmm, xmm/m128 and its like.
fn load_aligned(cpu: &mut Cpu, insn: &Instruction) -> Done {
    check_sse(cpu)?;
    let v = xmm_m128(cpu, insn, 1)?;
    set_xmm(cpu, insn, 0, v);
    Ok(())
}

/// MOVUPS xmm, xmm/m128 and its like.
fn load_unaligned(cpu: &mut Cpu, insn: &Instruction) -> Done {
    check_sse(cpu)?;
    let v = xmm_m128_unaligned(cpu, insn, 1)?;
    set_xmm(cpu, insn, 0, v);
    Ok(())
}

/// MOVAPS xmm/m128, xmm; MOVNTPS m128, xmm. Non-temporal hints have no effect here.
fn store_aligned(cpu: &mut Cpu, insn: &Instruction) -> Done {
    check_sse(cpu)?;
    let v = xmm(cpu, insn, 1);
    if is_register(insn, 0) {
        set_xmm(cpu, insn, 0, v);
        return Ok(());
    }
    let linear = aligned_address(cpu, insn, Access::Write)?;
    cpu.write_u128(linear, v)
}

/// MOVNTPS, MOVNTPD, MOVNTDQ m128, xmm
fn store_nontemporal(cpu: &mut Cpu, insn: &Instruction) -> Done {
    check_sse(cpu)?;
    let v = xmm(cpu, insn, 1);
    let linear = aligned_address(cpu, insn, Access::Write)?;
    cpu.write_nontemporal(linear, &v.to_le_bytes())
}

/// MOVUPS xmm/m128, xmm and its like.
fn store_unaligned(cpu: &mut Cpu, insn: &Instruction) -> Done {
    check_sse(cpu)?;
    let v = xmm(cpu, insn, 1);
    if is_register(insn, 0) {
        set_xmm(cpu, insn, 0, v);
        return Ok(());
    }
    let linear = cpu.linear_address(insn, 16, Access::Write)?;
    cpu.write_u128(linear, v)
}

/// MOVSS, MOVSD xmm, xmm/m: `W` bytes. From a register the upper bytes are kept, from memory they become zero.
fn load_scalar<const W: usize>(cpu: &mut Cpu, insn: &Instruction) -> Done {
    check_sse(cpu)?;
    let v = xmm_scalar(cpu, insn, 1)?;
    let v = if is_register(insn, 1) { merge_low::<W>(xmm(cpu, insn, 0), v) } else { v };
    set_xmm(cpu, insn, 0, v);
    Ok(())
}

/// MOVSS, MOVSD xmm/m, xmm: `W` bytes.
fn store_scalar<const W: usize>(cpu: &mut Cpu, insn: &Instruction) -> Done {
    check_sse(cpu)?;
    let v = xmm(cpu, insn, 1);
    if is_register(insn, 0) {
        let v = merge_low::<W>(xmm(cpu, insn, 0), v);
        set_xmm(cpu, insn, 0, v);
        return Ok(());
    }
    cpu.write_operand(insn, 0, v as u64)
}

/// MOVLPS, MOVLPD xmm, m64
fn load_low(cpu: &mut Cpu, insn: &Instruction) -> Done {
    xmm_merge(cpu, insn, |d, m| d >> 64 << 64 | m)
}

/// MOVHPS, MOVHPD xmm, m64
fn load_high(cpu: &mut Cpu, insn: &Instruction) -> Done {
    xmm_merge(cpu, insn, |d, m| d & u128::from(u64::MAX) | m << 64)
}

/// Combines the destination with a 64-bit memory operand.
fn xmm_merge(cpu: &mut Cpu, insn: &Instruction, f: impl FnOnce(u128, u128) -> u128) -> Done {
    check_sse(cpu)?;
    let m = cpu.read_operand(insn, 1)?;
    let v = f(xmm(cpu, insn, 0), m.into());
    set_xmm(cpu, insn, 0, v);
    Ok(())
}

/// MOVLPS, MOVLPD m64, xmm (`LANE` 0); MOVHPS, MOVHPD m64, xmm (`LANE` 1)
fn store_half<const LANE: u32>(cpu: &mut Cpu, insn: &Instruction) -> Done {
    check_sse(cpu)?;
    let v = extract(xmm(cpu, insn, 1), 64, LANE);
    cpu.write_operand(insn, 0, v)
}

/// MOVQ xmm, xmm/m64: zero-extends from registers, too.
fn movq_load(cpu: &mut Cpu, insn: &Instruction) -> Done {
    xmm_from_scalar(cpu, insn, |v| v & u128::from(u64::MAX))
}

/// MOVQ xmm/m64, xmm
fn movq_store(cpu: &mut Cpu, insn: &Instruction) -> Done {
    check_sse(cpu)?;
    let v = xmm(cpu, insn, 1) as u64;
    if is_register(insn, 0) {
        set_xmm(cpu, insn, 0, v.into());
        return Ok(());
    }
    cpu.write_operand(insn, 0, v)
}

/// MOVD, MOVQ xmm, r/m
fn gpr_to_xmm(cpu: &mut Cpu, insn: &Instruction) -> Done {
    check_sse(cpu)?;
    let v = cpu.read_operand(insn, 1)?;
    set_xmm(cpu, insn, 0, v.into());
    Ok(())
}

/// MOVD, MOVQ r/m, xmm
fn xmm_to_gpr(cpu: &mut Cpu, insn: &Instruction) -> Done {
    check_sse(cpu)?;
    let v = xmm(cpu, insn, 1) as u64;
    cpu.write_operand(insn, 0, v)
}

/// MOVD, MOVQ mm, r/m
fn gpr_to_mm(cpu: &mut Cpu, insn: &Instruction) -> Done {
    check_mmx(cpu)?;
    let v = cpu.read_operand(insn, 1)?;
    set_mm(cpu, insn, 0, v);
    Ok(())
}

/// MOVD, MOVQ r/m, mm
fn mm_to_gpr(cpu: &mut Cpu, insn: &Instruction) -> Done {
    check_mmx(cpu)?;
    let v = mm(cpu, insn, 1);
    cpu.write_operand(insn, 0, v)?;
    enter_mmx(cpu);
    Ok(())
}

/// MOVQ mm, mm/m64
fn load_mm(cpu: &mut Cpu, insn: &Instruction) -> Done {
    check_mmx(cpu)?;
    let v = mm_m64(cpu, insn, 1)?;
    set_mm(cpu, insn, 0, v);
    Ok(())
}

/// MOVQ mm/m64, mm; MOVNTQ m64, mm
fn store_mm(cpu: &mut Cpu, insn: &Instruction) -> Done {
    check_mmx(cpu)?;
    let v = mm(cpu, insn, 1);
    if is_register(insn, 0) {
        set_mm(cpu, insn, 0, v);
        return Ok(());
    }
    cpu.write_operand(insn, 0, v)?;
    enter_mmx(cpu);
    Ok(())
}

/// MOVNTQ m64, mm
fn store_mm_nontemporal(cpu: &mut Cpu, insn: &Instruction) -> Done {
    check_mmx(cpu)?;
    let v = mm(cpu, insn, 1);
    let linear = cpu.linear_address(insn, 8, Access::Write)?;
    cpu.write_nontemporal(linear, &v.to_le_bytes())?;
    enter_mmx(cpu);
    Ok(())
}

fn movq2dq(cpu: &mut Cpu, insn: &Instruction) -> Done {
    check_sse_and_mmx(cpu)?;
    let v = mm(cpu, insn, 1);
    enter_mmx(cpu);
    set_xmm(cpu, insn, 0, v.into());
    Ok(())
}

fn movdq2q(cpu: &mut Cpu, insn: &Instruction) -> Done {
    check_sse_and_mmx(cpu)?;
    let v = xmm(cpu, insn, 1) as u64;
    set_mm(cpu, insn, 0, v);
    Ok(())
}

/// MOVNTI uses general registers only: none of the conditions of SSE apply.
fn movnti(cpu: &mut Cpu, insn: &Instruction) -> Done {
    let v = cpu.reg(insn.op1_register());
    let size = insn.memory_size().size();
    let linear = cpu.linear_address(insn, size, Access::Write)?;
    cpu.write_nontemporal(linear, &v.to_le_bytes()[..size.min(8)])
}

/// PINSRB, PINSRW, PINSRD, PINSRQ with an XMM register; lanes of `BITS` bits.
fn pinsr<const BITS: u32>(cpu: &mut Cpu, insn: &Instruction) -> Done {
    check_sse(cpu)?;
    let v = cpu.read_operand(insn, 1)?;
    let lane = u32::from(insn.immediate8()) % (128 / BITS);
    let v = insert(xmm(cpu, insn, 0), v, BITS, lane);
    set_xmm(cpu, insn, 0, v);
    Ok(())
}

/// PEXTRB, PEXTRW, PEXTRD, PEXTRQ, EXTRACTPS with an XMM register; lanes of `BITS` bits.
fn pextr<const BITS: u32>(cpu: &mut Cpu, insn: &Instruction) -> Done {
    check_sse(cpu)?;
    let lane = u32::from(insn.immediate8()) % (128 / BITS);
    let v = extract(xmm(cpu, insn, 1), BITS, lane);
    cpu.write_operand(insn, 0, v)
}

/// PINSRW mm, r32/m16, imm8
fn pinsrw_mm(cpu: &mut Cpu, insn: &Instruction) -> Done {
    check_mmx(cpu)?;
    let v = cpu.read_operand(insn, 1)?;
    let v = insert(mm(cpu, insn, 0).into(), v, 16, u32::from(insn.immediate8() & 3));
    set_mm(cpu, insn, 0, v as u64);
    Ok(())
}

/// PEXTRW reg, mm, imm8
fn pextrw_mm(cpu: &mut Cpu, insn: &Instruction) -> Done {
    check_mmx(cpu)?;
    let v = extract(mm(cpu, insn, 1).into(), 16, u32::from(insn.immediate8() & 3));
    enter_mmx(cpu);
    cpu.set_reg(insn.op0_register(), v);
    Ok(())
}

/// INSERTPS: imm[7:6] selects the source element of a register; a memory operand is the element.
fn exec_insertps(cpu: &mut Cpu, insn: &Instruction) -> Done {
    check_sse(cpu)?;
    let imm = insn.immediate8();
    let src = xmm_scalar(cpu, insn, 1)?;
    let lane = if is_register(insn, 1) { u32::from(imm >> 6) } else { 0 };
    let v = insertps(xmm(cpu, insn, 0), extract(src, 32, lane) as u32, imm);
    set_xmm(cpu, insn, 0, v);
    Ok(())
}

/// MOVMSKPS, MOVMSKPD, PMOVMSKB reg, xmm
fn mask_to_gpr(cpu: &mut Cpu, insn: &Instruction, f: impl FnOnce(u128) -> u64) -> Done {
    check_sse(cpu)?;
    let v = f(xmm(cpu, insn, 1));
    cpu.set_reg(insn.op0_register(), v);
    Ok(())
}

/// PMOVMSKB reg, mm
fn pmovmskb_mm(cpu: &mut Cpu, insn: &Instruction) -> Done {
    check_mmx(cpu)?;
    let v = pmovmskb(mm(cpu, insn, 1).into());
    enter_mmx(cpu);
    cpu.set_reg(insn.op0_register(), v);
    Ok(())
}

/// MASKMOVQ, MASKMOVDQU: the bytes of `data` at DS:rDI whose mask bytes have bit 7 set. All of them are checked before
/// the first is written.
fn masked_store(cpu: &mut Cpu, insn: &Instruction, data: u128, mask: u128, size: usize) -> Done {
    let offset = match insn.op0_kind() {
        OpKind::MemorySegDI => cpu.reg(Register::DI),
        OpKind::MemorySegEDI => cpu.reg(Register::EDI),
        _ => cpu.reg(Register::RDI),
    };
    let linear = cpu.segment_address(memory_segment(insn, cpu.mode), offset, size, Access::Write)?;
    let selected = pmovmskb(mask) & ((1 << size) - 1);
    for_each_run(selected, |start, len| cpu.probe_write(linear.wrapping_add(start as u64), len))?;
    let bytes = data.to_le_bytes();
    for_each_run(selected, |start, len| {
        cpu.write_nontemporal(linear.wrapping_add(start as u64), &bytes[start..start + len])
    })
}

/// Calls `f(start, length)` for each run of set bits among the low 16.
fn for_each_run(mut bits: u64, mut f: impl FnMut(usize, usize) -> Done) -> Done {
    while bits != 0 {
        let start = bits.trailing_zeros();
        let len = (bits >> start).trailing_ones();
        f(start as usize, len as usize)?;
        bits &= !(((1 << len) - 1) << start);
    }
    Ok(())
}

fn maskmovq(cpu: &mut Cpu, insn: &Instruction) -> Done {
    check_mmx(cpu)?;
    let (data, mask) = (mm(cpu, insn, 1), mm(cpu, insn, 2));
    masked_store(cpu, insn, data.into(), mask.into(), 8)?;
    enter_mmx(cpu);
    Ok(())
}

fn maskmovdqu(cpu: &mut Cpu, insn: &Instruction) -> Done {
    check_sse(cpu)?;
    let (data, mask) = (xmm(cpu, insn, 1), xmm(cpu, insn, 2));
    masked_store(cpu, insn, data, mask, 16)
}

fn emms(cpu: &mut Cpu, _: &Instruction) -> Done {
    check_mmx(cpu)?;
    leave_mmx(cpu);
    Ok(())
}

fn ldmxcsr(cpu: &mut Cpu, insn: &Instruction) -> Done {
    check_sse(cpu)?;
    let value = cpu.read_operand(insn, 0)? as u32;
    if value & !mxcsr::MASK != 0 {
        return Err(Exception::GP0);
    }
    cpu.mxcsr = value;
    Ok(())
}

fn stmxcsr(cpu: &mut Cpu, insn: &Instruction) -> Done {
    check_sse(cpu)?;
    let value = cpu.mxcsr;
    cpu.write_operand(insn, 0, value.into())
}

/// Hints and fences: memory is strongly ordered here and there are no caches to fill.
fn nop(_: &mut Cpu, _: &Instruction) -> Done {
    Ok(())
}

pub fn lookup(code: Code) -> Option<ExecFn> {
    use Code::*;
    let f: ExecFn = match code {
        Movaps_xmm_xmmm128 | Movapd_xmm_xmmm128 | Movdqa_xmm_xmmm128 | Movntdqa_xmm_m128 => load_aligned,
        Movaps_xmmm128_xmm | Movapd_xmmm128_xmm | Movdqa_xmmm128_xmm => store_aligned,
        Movntps_m128_xmm | Movntpd_m128_xmm | Movntdq_m128_xmm => store_nontemporal,
        Movups_xmm_xmmm128 | Movupd_xmm_xmmm128 | Movdqu_xmm_xmmm128 | Lddqu_xmm_m128 => load_unaligned,
        Movups_xmmm128_xmm | Movupd_xmmm128_xmm | Movdqu_xmmm128_xmm => store_unaligned,
        Movss_xmm_xmmm32 => load_scalar::<4>,
        Movsd_xmm_xmmm64 => load_scalar::<8>,
        Movss_xmmm32_xmm => store_scalar::<4>,
        Movsd_xmmm64_xmm => store_scalar::<8>,
        Movlps_xmm_m64 | Movlpd_xmm_m64 => load_low,
        Movhps_xmm_m64 | Movhpd_xmm_m64 => load_high,
        Movlps_m64_xmm | Movlpd_m64_xmm => store_half::<0>,
        Movhps_m64_xmm | Movhpd_m64_xmm => store_half::<1>,

        Movq_xmm_xmmm64 => movq_load,
        Movq_xmmm64_xmm => movq_store,
        Movd_xmm_rm32 | Movq_xmm_rm64 => gpr_to_xmm,
        Movd_rm32_xmm | Movq_rm64_xmm => xmm_to_gpr,
        Movd_mm_rm32 | Movq_mm_rm64 => gpr_to_mm,
        Movd_rm32_mm | Movq_rm64_mm => mm_to_gpr,
        Movq_mm_mmm64 => load_mm,
        Movq_mmm64_mm => store_mm,
        Movntq_m64_mm => store_mm_nontemporal,
        Movq2dq_xmm_mm => movq2dq,
        Movdq2q_mm_xmm => movdq2q,
        Movnti_m32_r32 | Movnti_m64_r64 => movnti,
        Maskmovq_rDI_mm_mm => maskmovq,
        Maskmovdqu_rDI_xmm_xmm => maskmovdqu,

        Pinsrb_xmm_r32m8_imm8 | Pinsrb_xmm_r64m8_imm8 => pinsr::<8>,
        Pinsrw_xmm_r32m16_imm8 | Pinsrw_xmm_r64m16_imm8 => pinsr::<16>,
        Pinsrd_xmm_rm32_imm8 => pinsr::<32>,
        Pinsrq_xmm_rm64_imm8 => pinsr::<64>,
        Pinsrw_mm_r32m16_imm8 | Pinsrw_mm_r64m16_imm8 => pinsrw_mm,
        Pextrb_r32m8_xmm_imm8 | Pextrb_r64m8_xmm_imm8 => pextr::<8>,
        Pextrw_r32_xmm_imm8 | Pextrw_r64_xmm_imm8 | Pextrw_r32m16_xmm_imm8 | Pextrw_r64m16_xmm_imm8 => pextr::<16>,
        Pextrd_rm32_xmm_imm8 | Extractps_rm32_xmm_imm8 | Extractps_r64m32_xmm_imm8 => pextr::<32>,
        Pextrq_rm64_xmm_imm8 => pextr::<64>,
        Pextrw_r32_mm_imm8 | Pextrw_r64_mm_imm8 => pextrw_mm,
        Insertps_xmm_xmmm32_imm8 => exec_insertps,

        Movmskps_r32_xmm | Movmskps_r64_xmm => |cpu, insn| mask_to_gpr(cpu, insn, movmskps),
        Movmskpd_r32_xmm | Movmskpd_r64_xmm => |cpu, insn| mask_to_gpr(cpu, insn, movmskpd),
        Pmovmskb_r32_xmm | Pmovmskb_r64_xmm => |cpu, insn| mask_to_gpr(cpu, insn, pmovmskb),
        Pmovmskb_r32_mm | Pmovmskb_r64_mm => pmovmskb_mm,

        Emms => emms,
        Ldmxcsr_m32 => ldmxcsr,
        Stmxcsr_m32 => stmxcsr,
        Lfence | Lfence_E9 | Lfence_EA | Lfence_EB | Lfence_EC | Lfence_ED | Lfence_EE | Lfence_EF => nop,
        Mfence | Mfence_F1 | Mfence_F2 | Mfence_F3 | Mfence_F4 | Mfence_F5 | Mfence_F6 | Mfence_F7 => nop,
        Sfence | Sfence_F9 | Sfence_FA | Sfence_FB | Sfence_FC | Sfence_FD | Sfence_FE | Sfence_FF => nop,
        Prefetchnta_m8 | Prefetcht0_m8 | Prefetcht1_m8 | Prefetcht2_m8 | Prefetchit0_m8 | Prefetchit1_m8 => nop,
        // 0F 0D /r: PREFETCHW, PREFETCHWT1 and NOPs on Intel processors without them.
        Prefetch_m8 | Prefetchw_m8 | Prefetchwt1_m8 | Prefetchreserved3_m8 | Prefetchreserved4_m8
        | Prefetchreserved5_m8 | Prefetchreserved6_m8 | Prefetchreserved7_m8 => nop,
        _ => return None,
    };
    Some(f)
}
