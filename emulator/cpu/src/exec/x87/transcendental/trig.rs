//! FSIN, FCOS, FSINCOS, FPTAN: reduction by the 66-bit pi of SDM Vol. 1, section 8.3.8, then series.

use super::kernel::{cos_series, sin_series};
use super::{INVALID, denormal_flag, rounded};
use crate::exec::x87::f80::{self, Class};
use crate::exec::x87::host::Outcome;
use crate::exec::x87::spec::sw;
use crate::exec::x87::wide::Wide;

/// pi * 2^64, 66 bits: 0.C90FDAA2 2168C234 C hexadecimal times 4 (SDM Vol. 1, section 8.3.8).
const PI_66: u128 = 0xC_90FD_AA22_168C_234C >> 2;

/// Exponent from which the operand is out of range: C2 = 1.
const OUT_OF_RANGE: i32 = 63;

/// An argument as quadrant * pi/2 + rest, |rest| <= pi/4, where pi is the 66-bit one. Exact.
fn reduce(x: u128) -> (u8, Wide) {
    let value = Wide::from_f80(x);
    // |x| < 1/2 is below pi/4.
    if value.exponent < -1 {
        return (0, value);
    }
    // In units of 2^-65, pi/2 is PI_66, and x (whose last bit is at least 2^-64) an integer below 2^128.
    let units = u128::from(f80::significand(x)) << (value.exponent + 2);
    let (quotient, rest) = (units / PI_66, units % PI_66);
    let (quotient, rest) = if rest > PI_66 / 2 {
        (quotient + 1, Wide::scaled(PI_66 - rest, -65).negate())
    } else {
        (quotient, Wide::scaled(rest, -65))
    };
    let quadrant = quotient as u8 & 3;
    if value.negative { (quadrant.wrapping_neg() & 3, rest.negate()) } else { (quadrant, rest) }
}

/// Cases that all functions share: NaNs, infinities, arguments out of range. `None`: compute.
fn special(x: u128) -> Option<Outcome> {
    if let Some((value, status)) = f80::propagate_nan(&[x]) {
        return Some(Outcome::new(value, status));
    }
    match f80::classify(x) {
        Class::Infinity => Some(INVALID),
        _ if i32::from(f80::exponent(x)) >= f80::BIAS + OUT_OF_RANGE => Some(Outcome::new(x, sw::C2)),
        _ => None,
    }
}

fn sin_of(quadrant: u8, rest: Wide) -> Wide {
    let v = if quadrant & 1 == 0 { sin_series(rest) } else { cos_series(rest) };
    if quadrant & 2 == 0 { v } else { v.negate() }
}

/// sin(x). C2 in the status tells that the argument is out of range.
pub fn sine(fcw: u16, x: u128) -> Outcome {
    special(x).unwrap_or_else(|| {
        if f80::classify(x) == Class::Zero {
            return Outcome::new(x, 0);
        }
        let (quadrant, rest) = reduce(x);
        rounded(sin_of(quadrant, rest).inexact(), fcw, denormal_flag(&[x]))
    })
}

/// cos(x), like [`sine`].
pub fn cosine(fcw: u16, x: u128) -> Outcome {
    special(x).unwrap_or_else(|| {
        if f80::classify(x) == Class::Zero {
            return Outcome::new(f80::ONE, 0);
        }
        let (quadrant, rest) = reduce(x);
        rounded(sin_of(quadrant + 1, rest).inexact(), fcw, denormal_flag(&[x]))
    })
}

/// tan(x), like [`sine`].
pub fn tangent(fcw: u16, x: u128) -> Outcome {
    special(x).unwrap_or_else(|| {
        if f80::classify(x) == Class::Zero {
            return Outcome::new(x, 0);
        }
        let (quadrant, rest) = reduce(x);
        let tan = sin_of(quadrant, rest).div(sin_of(quadrant + 1, rest));
        rounded(tan.inexact(), fcw, denormal_flag(&[x]))
    })
}
