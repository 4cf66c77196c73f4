//! What the instructions of this module have in common: when they may run, and their register and memory operands.

use crate::mmu::Access;
use crate::state::Cpu;
use iced_x86::{Instruction, OpKind};
use x86::Exception;
use x86::cr::{cr0, cr4};

/// Bits 79:64 of an x87 register written as an MMX register (SDM Vol. 3A, table 13-1).
const MMX_HIGH_ONES: u128 = 0xFFFF << 64;
/// TOP in the x87 status word.
const FSW_TOP: u16 = 7 << 11;
/// Exception flags in the x87 status word and, at the same positions, their masks in the control word.
const X87_EXCEPTIONS: u16 = 0x3F;
/// Alignment of 128-bit memory operands of legacy SSE instructions (SDM Vol. 1, section 4.6.2).
const ALIGNMENT: u64 = 16;

/// True if instructions may use the XMM registers.
#[inline(always)]
pub fn sse_usable(cpu: &Cpu) -> bool {
    cpu.cr0 & (cr0::EM | cr0::TS) == 0 && cpu.cr4 & cr4::OSFXSR != 0
}

/// May an instruction use the XMM registers? #UD has priority over #NM (SDM Vol. 3A, section 2.5).
#[inline(always)]
pub fn check_sse(cpu: &Cpu) -> Result<(), Exception> {
    if sse_usable(cpu) {
        return Ok(());
    }
    if cpu.cr0 & cr0::EM != 0 || cpu.cr4 & cr4::OSFXSR == 0 {
        Err(Exception::InvalidOpcode)
    } else {
        Err(Exception::DeviceNotAvailable)
    }
}

/// May an instruction use the MMX registers? An unmasked x87 exception that is pending is reported before
/// (SDM Vol. 3B, "Exception Conditions of Legacy SIMD Instructions Operating on MMX Registers").
#[inline(always)]
pub fn check_mmx(cpu: &Cpu) -> Result<(), Exception> {
    if cpu.cr0 & cr0::EM != 0 {
        return Err(Exception::InvalidOpcode);
    }
    if cpu.cr0 & cr0::TS != 0 {
        return Err(Exception::DeviceNotAvailable);
    }
    check_x87_pending(cpu)
}

/// May an instruction use both register files (CVTPI2PS and its like, MOVQ2DQ, MOVDQ2Q)?
#[inline(always)]
pub fn check_sse_and_mmx(cpu: &Cpu) -> Result<(), Exception> {
    check_sse(cpu)?;
    check_x87_pending(cpu)
}

#[inline(always)]
fn check_x87_pending(cpu: &Cpu) -> Result<(), Exception> {
    if cpu.x87.fsw & !cpu.x87.fcw & X87_EXCEPTIONS != 0 { Err(Exception::X87FloatingPoint) } else { Ok(()) }
}

/// The transition from x87 to MMX: all tags valid, TOP = 0 (SDM Vol. 3A, section 13.2 and table 13-1). Reads make it
/// as well as writes.
#[inline(always)]
pub fn enter_mmx(cpu: &mut Cpu) {
    cpu.x87.ftw = 0;
    cpu.x87.fsw &= !FSW_TOP;
}

/// EMMS: all tags empty, TOP = 0.
pub fn leave_mmx(cpu: &mut Cpu) {
    cpu.x87.ftw = 0xFFFF;
    cpu.x87.fsw &= !FSW_TOP;
}

/// The MMX register that is operand `n`.
#[inline(always)]
pub fn mm(cpu: &Cpu, insn: &Instruction, n: u32) -> u64 {
    cpu.x87.regs[insn.op_register(n).number() & 7] as u64
}

/// Makes the transition to MMX and writes the MMX register that is operand `n`.
#[inline(always)]
pub fn set_mm(cpu: &mut Cpu, insn: &Instruction, n: u32, value: u64) {
    enter_mmx(cpu);
    cpu.x87.regs[insn.op_register(n).number() & 7] = MMX_HIGH_ONES | u128::from(value);
}

/// The XMM register that is operand `n`.
#[inline(always)]
pub fn xmm(cpu: &Cpu, insn: &Instruction, n: u32) -> u128 {
    cpu.xmm[insn.op_register(n).number() & 15]
}

/// Writes the XMM register that is operand `n`.
#[inline(always)]
pub fn set_xmm(cpu: &mut Cpu, insn: &Instruction, n: u32, value: u128) {
    cpu.xmm[insn.op_register(n).number() & 15] = value;
}

/// Is operand `n` a register?
#[inline(always)]
pub fn is_register(insn: &Instruction, n: u32) -> bool {
    insn.op_kind(n) == OpKind::Register
}

/// The linear address of a 16-byte memory operand that must be aligned: #GP(0) if it is not, whatever the segment.
pub fn aligned_address(cpu: &Cpu, insn: &Instruction, access: Access) -> Result<u64, Exception> {
    // Alignment before the last byte: an operand that begins below a bound and ends above it is misaligned.
    let linear = cpu.linear_address(insn, 1, access)?;
    if linear % ALIGNMENT != 0 {
        return Err(Exception::GP0);
    }
    cpu.linear_address(insn, 16, access)
}

/// Operand `n`, an XMM register or an aligned 16-byte memory operand.
#[inline(always)]
pub fn xmm_m128(cpu: &mut Cpu, insn: &Instruction, n: u32) -> Result<u128, Exception> {
    if is_register(insn, n) {
        return Ok(xmm(cpu, insn, n));
    }
    let linear = aligned_address(cpu, insn, Access::Read)?;
    cpu.read_u128(linear)
}

/// Operand `n`, an XMM register or a 16-byte memory operand at any address.
#[inline(always)]
pub fn xmm_m128_unaligned(cpu: &mut Cpu, insn: &Instruction, n: u32) -> Result<u128, Exception> {
    if is_register(insn, n) {
        return Ok(xmm(cpu, insn, n));
    }
    let linear = cpu.linear_address(insn, 16, Access::Read)?;
    cpu.read_u128(linear)
}

/// Operand `n`: an XMM register (all of it), or a memory operand of 2, 4 or 8 bytes, zero-extended.
#[inline(always)]
pub fn xmm_scalar(cpu: &mut Cpu, insn: &Instruction, n: u32) -> Result<u128, Exception> {
    if is_register(insn, n) {
        return Ok(xmm(cpu, insn, n));
    }
    cpu.read_operand(insn, n).map(u128::from)
}

/// Operand `n`: an MMX register, or a memory operand of 4 or 8 bytes, zero-extended.
#[inline(always)]
pub fn mm_m64(cpu: &mut Cpu, insn: &Instruction, n: u32) -> Result<u64, Exception> {
    if is_register(insn, n) {
        return Ok(mm(cpu, insn, n));
    }
    cpu.read_operand(insn, n)
}

/// `xmm1 = f(xmm1, xmm2/m128)`
#[inline(always)]
pub fn xmm_binary(cpu: &mut Cpu, insn: &Instruction, f: impl FnOnce(u128, u128) -> u128) -> Result<(), Exception> {
    check_sse(cpu)?;
    let src = xmm_m128(cpu, insn, 1)?;
    let value = f(xmm(cpu, insn, 0), src);
    set_xmm(cpu, insn, 0, value);
    Ok(())
}

/// `xmm1 = f(xmm1, xmm2/m128, imm8)`
#[inline(always)]
pub fn xmm_binary_imm(
    cpu: &mut Cpu,
    insn: &Instruction,
    f: impl FnOnce(u128, u128, u8) -> u128,
) -> Result<(), Exception> {
    xmm_binary(cpu, insn, |a, b| f(a, b, insn.immediate8()))
}

/// `xmm1 = f(xmm1, xmm2/m128, xmm0)`
#[inline(always)]
pub fn xmm_binary_mask(
    cpu: &mut Cpu,
    insn: &Instruction,
    f: impl FnOnce(u128, u128, u128) -> u128,
) -> Result<(), Exception> {
    let mask = cpu.xmm[0];
    xmm_binary(cpu, insn, |a, b| f(a, b, mask))
}

/// `xmm1 = f(xmm2/m16, m32 or m64)`
#[inline(always)]
pub fn xmm_from_scalar(cpu: &mut Cpu, insn: &Instruction, f: impl FnOnce(u128) -> u128) -> Result<(), Exception> {
    check_sse(cpu)?;
    let src = xmm_scalar(cpu, insn, 1)?;
    set_xmm(cpu, insn, 0, f(src));
    Ok(())
}

/// `mm1 = f(mm1, mm2/m64)` on the low 64 bits of vectors
#[inline(always)]
pub fn mm_binary(cpu: &mut Cpu, insn: &Instruction, f: impl FnOnce(u128, u128) -> u128) -> Result<(), Exception> {
    check_mmx(cpu)?;
    let src = mm_m64(cpu, insn, 1)?;
    let value = f(u128::from(mm(cpu, insn, 0)), u128::from(src));
    set_mm(cpu, insn, 0, value as u64);
    Ok(())
}

/// `mm1 = f(mm1, mm2/m64, imm8)`
#[inline(always)]
pub fn mm_binary_imm(
    cpu: &mut Cpu,
    insn: &Instruction,
    f: impl FnOnce(u128, u128, u8) -> u128,
) -> Result<(), Exception> {
    mm_binary(cpu, insn, |a, b| f(a, b, insn.immediate8()))
}

/// Shift by an immediate: `xmm1 = f(xmm1, imm8)`
#[inline(always)]
pub fn xmm_imm(cpu: &mut Cpu, insn: &Instruction, f: impl FnOnce(u128, u128) -> u128) -> Result<(), Exception> {
    check_sse(cpu)?;
    let value = f(xmm(cpu, insn, 0), u128::from(insn.immediate8()));
    set_xmm(cpu, insn, 0, value);
    Ok(())
}

/// Shift by an immediate: `mm1 = f(mm1, imm8)`
#[inline(always)]
pub fn mm_imm(cpu: &mut Cpu, insn: &Instruction, f: impl FnOnce(u128, u128) -> u128) -> Result<(), Exception> {
    check_mmx(cpu)?;
    let value = f(u128::from(mm(cpu, insn, 0)), u128::from(insn.immediate8()));
    set_mm(cpu, insn, 0, value as u64);
    Ok(())
}

/// An [`crate::ExecFn`] made of an operand form above and a function of the operands.
macro_rules! exec {
    ($form:ident, $f:expr) => {
        |cpu: &mut crate::state::Cpu, insn: &iced_x86::Instruction| crate::exec::simd::operands::$form(cpu, insn, $f)
    };
}
pub(super) use exec;
