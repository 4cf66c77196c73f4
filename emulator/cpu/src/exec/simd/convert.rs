//! Conversions between floating-point formats and integers.

use super::float::{Outcome, cvtpd2ps, cvtsd2ss, packed, scalar};
use super::host;
use super::lanes::low;
use super::mxcsr::{host_control, raise};
use super::operands::*;
use super::shuffle::merge_low;
use crate::ExecFn;
use crate::state::Cpu;
use iced_x86::{Code, Instruction};
use x86::Exception;

type Done = Result<(), Exception>;

/// CVTSI2SS, CVTSI2SD of a register or memory operand.
#[inline(always)]
fn from_integer(cpu: &mut Cpu, insn: &Instruction, f: impl FnOnce(u32, u128, u64) -> Outcome) -> Done {
    check_sse(cpu)?;
    let integer = cpu.read_operand(insn, 1)?;
    let (value, flags) = f(host_control(cpu.mxcsr), xmm(cpu, insn, 0), integer);
    raise(cpu, flags)?;
    set_xmm(cpu, insn, 0, value);
    Ok(())
}

/// CVTSS2SI and its like.
#[inline(always)]
fn to_integer(cpu: &mut Cpu, insn: &Instruction, f: impl FnOnce(u32, u128) -> (u64, u32)) -> Done {
    check_sse(cpu)?;
    let src = xmm_scalar(cpu, insn, 1)?;
    let (value, flags) = f(host_control(cpu.mxcsr), src);
    raise(cpu, flags)?;
    cpu.set_reg(insn.op0_register(), value);
    Ok(())
}

/// CVTPI2PS: the low two elements of the destination. A transition to MMX with either operand form (SDM Vol. 2A).
fn cvtpi2ps(cpu: &mut Cpu, insn: &Instruction) -> Done {
    check_sse_and_mmx(cpu)?;
    let src = mm_m64(cpu, insn, 1)?;
    // The upper elements convert zeros, which is exact.
    let (value, flags) = host::cvtdq2ps(host_control(cpu.mxcsr), 0, src.into());
    raise(cpu, flags)?;
    enter_mmx(cpu);
    let value = merge_low::<8>(xmm(cpu, insn, 0), value);
    set_xmm(cpu, insn, 0, value);
    Ok(())
}

/// CVTPI2PD: with a memory operand no transition to MMX and no x87 exceptions (SDM Vol. 2A).
fn cvtpi2pd(cpu: &mut Cpu, insn: &Instruction) -> Done {
    let from_mm = is_register(insn, 1);
    if from_mm {
        check_sse_and_mmx(cpu)?;
    } else {
        check_sse(cpu)?;
    }
    let src = mm_m64(cpu, insn, 1)?;
    if from_mm {
        enter_mmx(cpu);
    }
    let (value, _) = host::cvtdq2pd(host_control(cpu.mxcsr), 0, src.into());
    set_xmm(cpu, insn, 0, value);
    Ok(())
}

/// CVTPS2PI, CVTTPS2PI: `f` gets two elements and zeros above them.
#[inline(always)]
fn ps_to_mm(cpu: &mut Cpu, insn: &Instruction, f: impl FnOnce(u32, u128, u128) -> Outcome) -> Done {
    check_sse_and_mmx(cpu)?;
    let src = xmm_scalar(cpu, insn, 1)?;
    let (value, flags) = f(host_control(cpu.mxcsr), 0, low::<8>(src));
    raise(cpu, flags)?;
    set_mm(cpu, insn, 0, value as u64);
    Ok(())
}

/// CVTPD2PI, CVTTPD2PI
#[inline(always)]
fn pd_to_mm(cpu: &mut Cpu, insn: &Instruction, f: impl FnOnce(u32, u128, u128) -> Outcome) -> Done {
    check_sse_and_mmx(cpu)?;
    let src = xmm_m128(cpu, insn, 1)?;
    let (value, flags) = f(host_control(cpu.mxcsr), 0, src);
    raise(cpu, flags)?;
    set_mm(cpu, insn, 0, value as u64);
    Ok(())
}

/// An [`ExecFn`] of an operand form and the host's instruction.
macro_rules! convert {
    (packed $name:ident) => {
        |cpu: &mut Cpu, insn: &Instruction| packed(cpu, insn, |m, a, b| host::$name(host_control(m), a, b))
    };
    // The destination's upper elements are the host instruction's doing.
    (scalar $name:ident) => {
        |cpu: &mut Cpu, insn: &Instruction| scalar(cpu, insn, |m, a, b| host::$name(host_control(m), a, b))
    };
    (from_integer32 $name:ident) => {
        |cpu: &mut Cpu, insn: &Instruction| from_integer(cpu, insn, |c, a, i| host::$name(c, a, i as u32))
    };
    ($form:ident $name:ident) => {
        |cpu: &mut Cpu, insn: &Instruction| $form(cpu, insn, host::$name)
    };
}

pub fn lookup(code: Code) -> Option<ExecFn> {
    use Code::*;
    let f: ExecFn = match code {
        Cvtpi2ps_xmm_mmm64 => cvtpi2ps,
        Cvtpi2pd_xmm_mmm64 => cvtpi2pd,
        Cvtps2pi_mm_xmmm64 => convert!(ps_to_mm cvtps2dq),
        Cvttps2pi_mm_xmmm64 => convert!(ps_to_mm cvttps2dq),
        Cvtpd2pi_mm_xmmm128 => convert!(pd_to_mm cvtpd2dq),
        Cvttpd2pi_mm_xmmm128 => convert!(pd_to_mm cvttpd2dq),

        Cvtsi2ss_xmm_rm32 => convert!(from_integer32 cvtsi2ss_r32),
        Cvtsi2ss_xmm_rm64 => convert!(from_integer cvtsi2ss_r64),
        Cvtsi2sd_xmm_rm32 => convert!(from_integer32 cvtsi2sd_r32),
        Cvtsi2sd_xmm_rm64 => convert!(from_integer cvtsi2sd_r64),
        Cvtss2si_r32_xmmm32 => convert!(to_integer cvtss2si_r32),
        Cvtss2si_r64_xmmm32 => convert!(to_integer cvtss2si_r64),
        Cvttss2si_r32_xmmm32 => convert!(to_integer cvttss2si_r32),
        Cvttss2si_r64_xmmm32 => convert!(to_integer cvttss2si_r64),
        Cvtsd2si_r32_xmmm64 => convert!(to_integer cvtsd2si_r32),
        Cvtsd2si_r64_xmmm64 => convert!(to_integer cvtsd2si_r64),
        Cvttsd2si_r32_xmmm64 => convert!(to_integer cvttsd2si_r32),
        Cvttsd2si_r64_xmmm64 => convert!(to_integer cvttsd2si_r64),

        Cvtps2pd_xmm_xmmm64 => convert!(scalar cvtps2pd),
        Cvtdq2pd_xmm_xmmm64 => convert!(scalar cvtdq2pd),
        Cvtss2sd_xmm_xmmm32 => convert!(scalar cvtss2sd),
        Cvtsd2ss_xmm_xmmm64 => |cpu, insn| scalar(cpu, insn, cvtsd2ss),
        Cvtpd2ps_xmm_xmmm128 => |cpu, insn| packed(cpu, insn, cvtpd2ps),
        Cvtdq2ps_xmm_xmmm128 => convert!(packed cvtdq2ps),
        Cvtps2dq_xmm_xmmm128 => convert!(packed cvtps2dq),
        Cvttps2dq_xmm_xmmm128 => convert!(packed cvttps2dq),
        Cvtpd2dq_xmm_xmmm128 => convert!(packed cvtpd2dq),
        Cvttpd2dq_xmm_xmmm128 => convert!(packed cvttpd2dq),
        _ => return None,
    };
    Some(f)
}
