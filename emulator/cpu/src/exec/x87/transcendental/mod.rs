//! The transcendental instructions (SDM Vol. 1, sections 8.3.7 to 8.3.10), computed in software: they are not defined to
//! the last bit, so the host's results must not reach the guest.
//!
//! Results are rounded once from about 118 correct bits, which makes them the correctly rounded ones but for a share of
//! about 2^-54, well within the bounds of SDM Vol. 1, section 8.3.10 (1 ulp; silicon differs from these results by at most
//! that). C1 and PE tell how that rounding went: silicon's C1 may differ where its result does.
//!
//! Outside their domains, where the SDM leaves results undefined, F2XM1 and FYL2XP1 do what silicon was seen to do.

mod kernel;
mod trig;

pub use trig::{cosine, sine, tangent};

use super::f80::{self, Class};
use super::host::Outcome;
use super::spec::sw;
use super::wide::Wide;
use kernel::{atan2_positive, exp2_minus_1, log2, log2_1p};

/// DE if an operand is a denormal.
fn denormal_flag(operands: &[u128]) -> u16 {
    if operands.iter().any(|v| f80::classify(*v) == Class::Denormal) { sw::DE } else { 0 }
}

/// Invalid operation: the indefinite QNaN.
const INVALID: Outcome = Outcome { value: f80::INDEFINITE, status: sw::IE };

/// A value rounded, with DE. If that is unmasked, nothing is computed that could raise more.
fn rounded(value: Wide, fcw: u16, denormal: u16) -> Outcome {
    if denormal & !fcw != 0 {
        return Outcome::new(f80::INDEFINITE, denormal);
    }
    let outcome = value.round(fcw);
    Outcome::new(outcome.value, outcome.status | denormal)
}

fn infinity(negative: bool) -> u128 {
    f80::with_sign(f80::INFINITY, negative)
}

fn zero(negative: bool) -> u128 {
    f80::with_sign(f80::ZERO, negative)
}

/// 2^x - 1 (SDM Vol. 2A, F2XM1).
pub fn f2xm1(fcw: u16, x: u128) -> Outcome {
    if let Some((value, status)) = f80::propagate_nan(&[x]) {
        return Outcome::new(value, status);
    }
    let minus_one = f80::with_sign(f80::ONE, true);
    match f80::classify(x) {
        Class::Zero => Outcome::new(x, 0),
        Class::Infinity if f80::negative(x) => Outcome::new(minus_one, 0),
        Class::Infinity => Outcome::new(x, 0),
        // -1/2 and 1. Silicon takes them for inexact like any other result.
        _ if x == minus_one => Outcome::new(f80::pack(true, f80::BIAS as u16 - 1, f80::INTEGER), sw::PE),
        _ if x == f80::ONE => Outcome::new(x, sw::PE),
        // Undefined.
        _ if i32::from(f80::exponent(x)) >= f80::BIAS => Outcome::new(x, sw::PE),
        _ => rounded(exp2_minus_1(Wide::from_f80(x)), fcw, denormal_flag(&[x])),
    }
}

/// y * log2(x) (SDM Vol. 2A, FYL2X).
pub fn fyl2x(fcw: u16, y: u128, x: u128) -> Outcome {
    if let Some((value, status)) = f80::propagate_nan(&[y, x]) {
        return Outcome::new(value, status);
    }
    let (y_class, x_class) = (f80::classify(y), f80::classify(x));
    let (y_negative, x_negative) = (f80::negative(y), f80::negative(x));
    if x_class == Class::Zero {
        return match y_class {
            Class::Zero => INVALID,
            Class::Infinity => Outcome::new(infinity(!y_negative), 0),
            _ => Outcome::new(infinity(!y_negative), sw::ZE),
        };
    }
    if x_negative {
        return INVALID;
    }
    let denormal = denormal_flag(&[y, x]);
    if x_class == Class::Infinity {
        return if y_class == Class::Zero { INVALID } else { Outcome::new(infinity(y_negative), denormal) };
    }
    multiply_log(fcw, y, log2(Wide::from_f80(x)), denormal)
}

/// y * log2(x + 1) (SDM Vol. 2A, FYL2XP1).
pub fn fyl2xp1(fcw: u16, y: u128, x: u128) -> Outcome {
    if let Some((value, status)) = f80::propagate_nan(&[y, x]) {
        return Outcome::new(value, status);
    }
    let (y_class, x_class) = (f80::classify(y), f80::classify(x));
    let (y_negative, x_negative) = (f80::negative(y), f80::negative(x));
    let denormal = denormal_flag(&[y, x]);
    match x_class {
        Class::Zero if y_class == Class::Infinity => return INVALID,
        Class::Zero => return Outcome::new(zero(x_negative != y_negative), denormal),
        Class::Infinity if x_negative || y_class == Class::Zero => return INVALID,
        Class::Infinity => return Outcome::new(infinity(y_negative), denormal),
        _ => {}
    }
    match log2_1p(Wide::from_f80(x)) {
        Some(log) => multiply_log(fcw, y, log, denormal),
        // x <= -1, undefined: silicon gives x, but for the y that any negative logarithm would do with.
        None if matches!(y_class, Class::Zero | Class::Infinity) => multiply_log(fcw, y, Wide::ONE.negate(), denormal),
        None => Outcome::new(x, denormal | if denormal & !fcw == 0 { sw::PE } else { 0 }),
    }
}

/// y times a finite logarithm.
fn multiply_log(fcw: u16, y: u128, log: Wide, denormal: u16) -> Outcome {
    let negative = f80::negative(y) != log.negative;
    match f80::classify(y) {
        Class::Infinity if log.is_zero() => INVALID,
        Class::Infinity => Outcome::new(infinity(negative), denormal),
        Class::Zero => Outcome::new(zero(negative), denormal),
        _ if log.is_zero() => Outcome::new(zero(negative), denormal),
        _ => {
            // Silicon takes the result for inexact even if x is a power of two and the product exact.
            let mut outcome = rounded(Wide::from_f80(y).mul(log), fcw, denormal);
            if denormal & !fcw == 0 {
                let tiny = f80::exponent(outcome.value) == 0;
                outcome.status |= if tiny { sw::PE | sw::UE } else { sw::PE };
            }
            outcome
        }
    }
}

/// arctan(y / x) in the quadrant of (x, y) (SDM Vol. 2A, FPATAN).
pub fn fpatan(fcw: u16, y: u128, x: u128) -> Outcome {
    if let Some((value, status)) = f80::propagate_nan(&[y, x]) {
        return Outcome::new(value, status);
    }
    let (y_class, x_class) = (f80::classify(y), f80::classify(x));
    let (negative, left) = (f80::negative(y), f80::negative(x));
    let denormal = denormal_flag(&[y, x]);
    let angle = match (y_class, x_class) {
        (Class::Infinity, Class::Infinity) if left => kernel::PI.sub(kernel::PI.shifted(-2)),
        (Class::Infinity, Class::Infinity) => kernel::PI.shifted(-2),
        (Class::Infinity, _) => kernel::PI.shifted(-1),
        (Class::Zero, _) | (_, Class::Infinity) if left => kernel::PI,
        (Class::Zero, _) | (_, Class::Infinity) => return Outcome::new(zero(negative), denormal),
        (_, Class::Zero) => kernel::PI.shifted(-1),
        _ => atan2_positive(Wide::from_f80(y).abs(), Wide::from_f80(x)),
    };
    rounded(Wide { negative, ..angle.inexact() }, fcw, denormal)
}
