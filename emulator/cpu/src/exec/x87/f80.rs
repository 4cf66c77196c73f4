//! The double extended-precision format: bit 79 sign, bits 78:64 exponent biased by 16383, bit 63 the explicit integer
//! bit, bits 62:0 the fraction (SDM Vol. 1, section 4.2.2). Values are the low 80 bits of a `u128`.

use super::spec::{sw, tag};
use std::cmp::Ordering;

pub const SIGN: u128 = 1 << 79;
pub const EXPONENT_MAX: u16 = 0x7FFF;
pub const BIAS: i32 = 16383;
/// The integer bit of the significand.
pub const INTEGER: u64 = 1 << 63;
/// The bit that tells a QNaN from an SNaN.
pub const QUIET: u64 = 1 << 62;
pub const MASK: u128 = (1 << 80) - 1;

/// QNaN floating-point indefinite (SDM Vol. 1, table 4-3).
pub const INDEFINITE: u128 = 0xFFFF_C000_0000_0000_0000;
pub const ZERO: u128 = 0;
pub const ONE: u128 = 0x3FFF_8000_0000_0000_0000;
pub const INFINITY: u128 = 0x7FFF_8000_0000_0000_0000;

/// What an encoding stands for (SDM Vol. 1, sections 4.8.3 and 8.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Pseudo-NaN, pseudo-infinity or unnormal.
    Unsupported,
    Zero,
    /// Denormal or pseudo-denormal.
    Denormal,
    Normal,
    Infinity,
    SignalingNan,
    QuietNan,
}

pub fn negative(v: u128) -> bool {
    v & SIGN != 0
}

pub fn exponent(v: u128) -> u16 {
    (v >> 64) as u16 & EXPONENT_MAX
}

pub fn significand(v: u128) -> u64 {
    v as u64
}

pub fn pack(negative: bool, exponent: u16, significand: u64) -> u128 {
    u128::from(u16::from(negative) << 15 | exponent) << 64 | u128::from(significand)
}

/// `magnitude` with the sign given.
pub fn with_sign(magnitude: u128, negative: bool) -> u128 {
    magnitude & !SIGN | if negative { SIGN } else { 0 }
}

pub fn classify(v: u128) -> Class {
    let (e, m) = (exponent(v), significand(v));
    match e {
        0 if m == 0 => Class::Zero,
        0 => Class::Denormal,
        _ if m & INTEGER == 0 => Class::Unsupported,
        EXPONENT_MAX if m == INTEGER => Class::Infinity,
        EXPONENT_MAX if m & QUIET == 0 => Class::SignalingNan,
        EXPONENT_MAX => Class::QuietNan,
        _ => Class::Normal,
    }
}

/// The tag FNSTENV computes for a register that is not empty. Pseudo-denormals are special like denormals.
pub fn tag_of(v: u128) -> u16 {
    match classify(v) {
        Class::Zero => tag::ZERO,
        Class::Normal => tag::VALID,
        _ => tag::SPECIAL,
    }
}

/// An integer, exactly: 64 bits of significand hold every `i64`.
pub fn from_i64(v: i64) -> u128 {
    if v == 0 {
        return ZERO;
    }
    let m = v.unsigned_abs();
    let shift = m.leading_zeros();
    pack(v < 0, (BIAS + 63) as u16 - shift as u16, m << shift)
}

/// Packed BCD of 18 digits and a sign (SDM Vol. 1, section 4.7). The SDM leaves digits above 9 undefined; here each
/// nibble counts with its value, as the decimal conversion of the hardware does (18 digits of 15 fit an `i64`).
pub fn from_bcd(bcd: u128) -> u128 {
    let magnitude = (0..18).rev().fold(0i64, |n, i| n * 10 + (bcd >> (4 * i) & 0xF) as i64);
    with_sign(from_i64(magnitude), negative(bcd))
}

/// The response of an operation to NaNs and unsupported encodings among its operands: the result and the exception
/// flags, or `None` if there are none (SDM Vol. 1, table 4-7 and section 8.5.1.2).
pub fn propagate_nan(operands: &[u128]) -> Option<(u128, u16)> {
    use Class::{QuietNan, SignalingNan, Unsupported};
    let class = |v: &&u128| classify(**v);
    if operands.iter().any(|v| classify(*v) == Unsupported) {
        return Some((INDEFINITE, sw::IE));
    }
    let signaling = operands.iter().any(|v| classify(*v) == SignalingNan);
    // An SNaN gives way to a QNaN; among equals the larger significand wins, then the positive sign.
    let quiet = operands.iter().filter(|v| class(v) == QuietNan).copied().reduce(larger_nan);
    let nan = quiet.or_else(|| operands.iter().filter(|v| class(v) == SignalingNan).copied().reduce(larger_nan))?;
    Some((nan | u128::from(QUIET), if signaling { sw::IE } else { 0 }))
}

fn larger_nan(a: u128, b: u128) -> u128 {
    match significand(a).cmp(&significand(b)) {
        Ordering::Greater => a,
        Ordering::Less => b,
        Ordering::Equal if negative(a) => b,
        Ordering::Equal => a,
    }
}
