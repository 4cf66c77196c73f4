//! RCPPS, RCPSS, RSQRTPS, RSQRTSS.
//!
//! The SDM (Vol. 2B, "RCPPS", "RSQRTPS") bounds the relative error by 1.5 * 2^-12 and leaves the rest to the
//! implementation; processors differ. Here the result is pinned: the exact value rounded to 12 fraction bits (a relative
//! error of at most 2^-13), to nearest and upwards when halfway, computed in integers. Neither MXCSR nor the host takes
//! part, and no exceptions are raised. As the SDM says: denormal operands are zeros of their sign, results that would be
//! denormal are zeros, SNaNs become quiet.

use super::format::SINGLE;
use super::lanes::{low, map};
use super::operands::{check_sse, exec, set_xmm, xmm, xmm_scalar};
use super::shuffle::merge_low;
use crate::ExecFn;
use crate::state::Cpu;
use iced_x86::{Code, Instruction};
use x86::Exception;

/// Fraction bits of a result.
const PRECISION: u32 = 12;
const SIGN: u32 = SINGLE.sign_bit() as u32;
const INFINITY: u32 = SINGLE.infinity() as u32;
const QUIET: u32 = SINGLE.quiet_bit() as u32;
const BIAS: i32 = SINGLE.bias as i32;

/// Unbiased exponent, and significand in [2^23, 2^24), of a positive normal number.
fn decode(x: u32) -> (i32, u64) {
    let significand = u64::from(x) & SINGLE.fraction_mask() | 1 << SINGLE.fraction;
    (SINGLE.exponent(x.into()) as i32 - BIAS, significand)
}

/// The number with the given exponent and `PRECISION` + 1 significant bits, the upper of which may have carried. Tiny
/// numbers are zero.
fn encode(exponent: i32, significand: u32) -> u32 {
    // The leading bit adds 1 to the exponent; a carry adds 2, and leaves a fraction of zero.
    let number = ((exponent + BIAS - 1) << SINGLE.fraction) + (significand << (SINGLE.fraction - PRECISION)) as i32;
    if number < 1 << SINGLE.fraction { 0 } else { number as u32 }
}

/// 1/x
pub fn reciprocal(x: u32) -> u32 {
    let (sign, magnitude) = (x & SIGN, x & !SIGN);
    if magnitude > INFINITY {
        return x | QUIET;
    }
    if magnitude == INFINITY {
        return sign;
    }
    let (exponent, significand) = decode(magnitude);
    if SINGLE.exponent(magnitude.into()) == 0 {
        return sign | INFINITY;
    }
    // 1 / (m * 2^e) = (2/m) * 2^(-e-1) with m in [1, 2) and so 2/m in (1, 2]; one more bit to round with.
    let quotient = (1u64 << (SINGLE.fraction + PRECISION + 2)) / significand;
    sign | encode(-exponent - 1, (quotient.div_ceil(2)) as u32)
}

/// 1/sqrt(x)
pub fn reciprocal_root(x: u32) -> u32 {
    let (sign, magnitude) = (x & SIGN, x & !SIGN);
    if magnitude > INFINITY {
        return x | QUIET;
    }
    if SINGLE.exponent(magnitude.into()) == 0 {
        return sign | INFINITY;
    }
    if sign != 0 {
        return SINGLE.indefinite() as u32;
    }
    if magnitude == INFINITY {
        return 0;
    }
    let (exponent, significand) = decode(magnitude);
    // x = m * 2^e with e even and m in [1, 4): 1/sqrt(x) = (2/sqrt(m)) * 2^(-e/2-1), 2/sqrt(m) in (1, 2].
    let odd = exponent & 1;
    let m = significand << odd;
    let root = ((1u64 << (SINGLE.fraction + 2 * (PRECISION + 2))) / m).isqrt();
    encode(-(exponent - odd) / 2 - 1, root.div_ceil(2) as u32)
}

fn scalar(cpu: &mut Cpu, insn: &Instruction, f: impl FnOnce(u32) -> u32) -> Result<(), Exception> {
    check_sse(cpu)?;
    let src = xmm_scalar(cpu, insn, 1)?;
    let value = merge_low::<4>(xmm(cpu, insn, 0), f(low::<4>(src) as u32).into());
    set_xmm(cpu, insn, 0, value);
    Ok(())
}

pub fn lookup(code: Code) -> Option<ExecFn> {
    use Code::*;
    let f: ExecFn = match code {
        Rcpps_xmm_xmmm128 => exec!(xmm_binary, |_, b| map::<u32>(b, reciprocal)),
        Rsqrtps_xmm_xmmm128 => exec!(xmm_binary, |_, b| map::<u32>(b, reciprocal_root)),
        Rcpss_xmm_xmmm32 => |cpu, insn| scalar(cpu, insn, reciprocal),
        Rsqrtss_xmm_xmmm32 => |cpu, insn| scalar(cpu, insn, reciprocal_root),
        _ => return None,
    };
    Some(f)
}
