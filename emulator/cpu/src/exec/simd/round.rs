//! ROUNDPS, ROUNDPD, ROUNDSS, ROUNDSD (SDM Vol. 2B, table 4-18).

use super::float::{Outcome, packed, scalar};
use super::format::{DOUBLE, Format, SINGLE};
use super::mxcsr::{DAZ, IE, PE, RC_SHIFT};
use super::shuffle::insert;
use crate::ExecFn;
use iced_x86::Code;

/// Fields of the immediate.
mod control {
    /// Rounding mode, unless FROM_MXCSR.
    pub const MODE: u8 = 3;
    pub const FROM_MXCSR: u8 = 1 << 2;
    /// Inexact results are not reported.
    pub const SUPPRESS_PRECISION: u8 = 1 << 3;
}

/// Encodings of the rounding modes (SDM Vol. 1, table 4-8).
mod mode {
    pub const NEAREST_EVEN: u8 = 0;
    pub const DOWN: u8 = 1;
    pub const UP: u8 = 2;
}

/// One element rounded to an integral value, and its flags. Denormal operands are not reported.
fn round(format: Format, mxcsr: u32, x: u64, imm: u8) -> (u64, u32) {
    if format.is_nan(x) {
        let signalling = x & format.quiet_bit() == 0;
        return (x | format.quiet_bit(), if signalling { IE } else { 0 });
    }
    let sign = x & format.sign_bit();
    if mxcsr & DAZ != 0 && format.is_denormal(x) {
        return (sign, 0);
    }
    let magnitude = x ^ sign;
    let exponent = format.exponent(x);
    if exponent >= format.bias + u64::from(format.fraction) || magnitude == 0 {
        return (x, 0);
    }
    // Below 1, the integral part is 0 and comparisons with one half decide; else the integral part is a prefix of the
    // encoding, and a carry out of the fraction into the exponent is right.
    let one = format.bias << format.fraction;
    let (integral, unit, above_half, half) = if exponent < format.bias {
        let half = one - (1 << format.fraction);
        (0, one, magnitude > half, magnitude == half)
    } else {
        let unit = 1 << (u64::from(format.fraction) - (exponent - format.bias));
        let rest = magnitude & (unit - 1);
        if rest == 0 {
            return (x, 0);
        }
        (magnitude - rest, unit, rest > unit / 2, rest == unit / 2)
    };
    let rc = if imm & control::FROM_MXCSR != 0 { (mxcsr >> RC_SHIFT) as u8 } else { imm } & control::MODE;
    let up = match rc {
        // 1.0 has a zero in the place of the unit, its implicit bit: it is odd.
        mode::NEAREST_EVEN => above_half || half && (integral == one || integral != 0 && integral & unit != 0),
        mode::DOWN => sign != 0,
        mode::UP => sign == 0,
        _ => false,
    };
    let flags = if imm & control::SUPPRESS_PRECISION != 0 { 0 } else { PE };
    (sign | (integral + if up { unit } else { 0 }), flags)
}

/// Rounds the low `count` elements of `b`; the others are `a`'s.
#[inline(always)]
fn round_elements(format: Format, count: u32, mxcsr: u32, (a, b): (u128, u128), imm: u8) -> Outcome {
    (0..count).fold((a, 0), |(v, all), i| {
        let (x, flags) = round(format, mxcsr, format.element(b, i as usize), imm);
        (insert(v, x, format.bits, i), all | flags)
    })
}

pub fn roundps(mxcsr: u32, a: u128, b: u128, imm: u8) -> Outcome {
    round_elements(SINGLE, 4, mxcsr, (a, b), imm)
}

pub fn roundpd(mxcsr: u32, a: u128, b: u128, imm: u8) -> Outcome {
    round_elements(DOUBLE, 2, mxcsr, (a, b), imm)
}

pub fn roundss(mxcsr: u32, a: u128, b: u128, imm: u8) -> Outcome {
    round_elements(SINGLE, 1, mxcsr, (a, b), imm)
}

pub fn roundsd(mxcsr: u32, a: u128, b: u128, imm: u8) -> Outcome {
    round_elements(DOUBLE, 1, mxcsr, (a, b), imm)
}

pub fn lookup(code: Code) -> Option<ExecFn> {
    use Code::*;
    let f: ExecFn = match code {
        Roundps_xmm_xmmm128_imm8 => |cpu, insn| packed(cpu, insn, |m, a, b| roundps(m, a, b, insn.immediate8())),
        Roundpd_xmm_xmmm128_imm8 => |cpu, insn| packed(cpu, insn, |m, a, b| roundpd(m, a, b, insn.immediate8())),
        Roundss_xmm_xmmm32_imm8 => |cpu, insn| scalar(cpu, insn, |m, a, b| roundss(m, a, b, insn.immediate8())),
        Roundsd_xmm_xmmm64_imm8 => |cpu, insn| scalar(cpu, insn, |m, a, b| roundsd(m, a, b, insn.immediate8())),
        _ => return None,
    };
    Some(f)
}
