//! Floating-point numbers with 128-bit significands in integer arithmetic, for results that the host must not decide.
//!
//! Every operation truncates and then sets the lowest bit if it dropped anything ("jamming"), so that a result that is not
//! exact never looks exact. The relative error of an operation is below 2^-126; the functions in
//! [`super::transcendental`] stay below 2^-118 in total, 54 bits beyond the format they round to.

use super::f80;
use super::host::Outcome;
use super::spec::{BIAS_ADJUST, cw, cw::Rounding, sw};
use std::cmp::Ordering;

const TOP_BIT: u128 = 1 << 127;

/// ±`mantissa` * 2^(`exponent` - 127). Bit 127 of the mantissa is set, but for zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wide {
    pub negative: bool,
    pub exponent: i32,
    pub mantissa: u128,
}

/// `v` >> `n` with the dropped bits jammed.
fn shift_right_jam(v: u128, n: u32) -> u128 {
    match n {
        0 => v,
        1..128 => v >> n | u128::from(v << (128 - n) != 0),
        _ => u128::from(v != 0),
    }
}

/// The 256-bit product as (high, low).
fn multiply(a: u128, b: u128) -> (u128, u128) {
    const LOW: u128 = u64::MAX as u128;
    let (a1, a0, b1, b0) = (a >> 64, a & LOW, b >> 64, b & LOW);
    let (ll, lh, hl, hh) = (a0 * b0, a0 * b1, a1 * b0, a1 * b1);
    let middle = (ll >> 64) + (lh & LOW) + (hl & LOW);
    (hh + (lh >> 64) + (hl >> 64) + (middle >> 64), middle << 64 | ll & LOW)
}

impl Wide {
    pub const ZERO: Wide = Wide { negative: false, exponent: 0, mantissa: 0 };
    pub const ONE: Wide = Wide::new(0, TOP_BIT);

    /// A positive constant.
    pub const fn new(exponent: i32, mantissa: u128) -> Wide {
        Wide { negative: false, exponent, mantissa }
    }

    /// `mantissa` * 2^`exponent`, whose top bit need not be set.
    pub fn scaled(mantissa: u128, exponent: i32) -> Wide {
        if mantissa == 0 {
            return Wide::ZERO;
        }
        let shift = mantissa.leading_zeros();
        Wide::new(exponent + 127 - shift as i32, mantissa << shift)
    }

    pub fn integer(v: i32) -> Wide {
        Wide { negative: v < 0, ..Wide::scaled(u128::from(v.unsigned_abs()), 0) }
    }

    /// A finite F80.
    pub fn from_f80(v: u128) -> Wide {
        let exponent = i32::from(f80::exponent(v).max(1)) - f80::BIAS - 63;
        Wide { negative: f80::negative(v), ..Wide::scaled(u128::from(f80::significand(v)), exponent) }
    }

    pub fn is_zero(self) -> bool {
        self.mantissa == 0
    }

    pub fn negate(self) -> Wide {
        Wide { negative: !self.negative, ..self }
    }

    pub fn abs(self) -> Wide {
        Wide { negative: false, ..self }
    }

    /// Multiplied by 2^n.
    pub fn shifted(self, n: i32) -> Wide {
        Wide { exponent: self.exponent + n, ..self }
    }

    /// Marks a value known to be inexact.
    pub fn inexact(self) -> Wide {
        Wide { mantissa: self.mantissa | 1, ..self }
    }

    pub fn cmp_magnitude(self, other: Wide) -> Ordering {
        match (self.is_zero(), other.is_zero()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
            _ => (self.exponent, self.mantissa).cmp(&(other.exponent, other.mantissa)),
        }
    }

    pub fn mul(self, other: Wide) -> Wide {
        let negative = self.negative != other.negative;
        if self.is_zero() || other.is_zero() {
            return Wide { negative, ..Wide::ZERO };
        }
        let (mut high, mut low) = multiply(self.mantissa, other.mantissa);
        let mut exponent = self.exponent + other.exponent + 1;
        if high & TOP_BIT == 0 {
            high = high << 1 | low >> 127;
            low <<= 1;
            exponent -= 1;
        }
        Wide { negative, exponent, mantissa: high | u128::from(low != 0) }
    }

    pub fn add(self, other: Wide) -> Wide {
        let (a, b) = if self.cmp_magnitude(other) == Ordering::Less { (other, self) } else { (self, other) };
        if b.is_zero() {
            return a;
        }
        let aligned = shift_right_jam(b.mantissa, (a.exponent - b.exponent) as u32);
        if a.negative == b.negative {
            let (sum, carry) = a.mantissa.overflowing_add(aligned);
            return if carry {
                Wide { exponent: a.exponent + 1, mantissa: shift_right_jam(sum, 1) | TOP_BIT, ..a }
            } else {
                Wide { mantissa: sum, ..a }
            };
        }
        let difference = a.mantissa - aligned;
        if difference == 0 {
            return Wide::ZERO;
        }
        let shift = difference.leading_zeros();
        Wide { exponent: a.exponent - shift as i32, mantissa: difference << shift, ..a }
    }

    pub fn sub(self, other: Wide) -> Wide {
        self.add(other.negate())
    }

    /// `self` / `other`; `other` must not be zero.
    pub fn div(self, other: Wide) -> Wide {
        let negative = self.negative != other.negative;
        if self.is_zero() {
            return Wide { negative, ..Wide::ZERO };
        }
        let d = other.mantissa;
        let mut exponent = self.exponent - other.exponent;
        let mut remainder = self.mantissa;
        let mut quotient = 0u128;
        if remainder < d {
            exponent -= 1;
        } else {
            remainder -= d;
            quotient = 1;
        }
        // Schoolbook division; 127 more bits, or 128 if the first is 0.
        while quotient & TOP_BIT == 0 {
            let carry = remainder >> 127 != 0;
            remainder <<= 1;
            quotient <<= 1;
            if carry || remainder >= d {
                remainder = remainder.wrapping_sub(d);
                quotient |= 1;
            }
        }
        Wide { negative, exponent, mantissa: quotient | u128::from(remainder != 0) }
    }

    /// `self` / n for n > 0.
    pub fn div_small(self, n: u32) -> Wide {
        if self.is_zero() {
            return self;
        }
        let n = u128::from(n);
        let (quotient, remainder) = (self.mantissa / n, self.mantissa % n);
        let shift = quotient.leading_zeros();
        let rest = remainder << shift;
        let mantissa = (quotient << shift) | (rest / n) | u128::from(rest % n != 0);
        Wide { exponent: self.exponent - shift as i32, mantissa, ..self }
    }

    /// Rounds to double extended precision by the control word's RC (PC does not apply to transcendentals, SDM Vol. 1,
    /// section 8.1.5.2), with the masked and unmasked responses to OE, UE and PE (SDM Vol. 1, sections 8.5.4 to 8.5.6).
    pub fn round(self, fcw: u16) -> Outcome {
        if self.is_zero() {
            return Outcome::new(f80::with_sign(f80::ZERO, self.negative), 0);
        }
        let rc = cw::rounding(fcw);
        // Tininess is detected after rounding to 64 bits with an unbounded exponent.
        let (m, e, inexact, up) = self.round_at(rc, 0);
        let biased = e + f80::BIAS;
        let flags = |inexact: bool, up: bool| if inexact { sw::PE } else { 0 } | if up { sw::C1 } else { 0 };
        let finite = |e: i32, m: u64| f80::pack(self.negative, e as u16, m);
        if biased >= i32::from(f80::EXPONENT_MAX) {
            if fcw & sw::OE == 0 {
                let biased = biased - BIAS_ADJUST;
                let value = if biased < i32::from(f80::EXPONENT_MAX) {
                    finite(biased, m)
                } else {
                    f80::with_sign(f80::INFINITY, self.negative)
                };
                return Outcome::new(value, sw::OE | flags(inexact, up));
            }
            let to_infinity = match rc {
                Rounding::Nearest => true,
                Rounding::Down => self.negative,
                Rounding::Up => !self.negative,
                Rounding::Zero => false,
            };
            let value = if to_infinity {
                f80::with_sign(f80::INFINITY, self.negative)
            } else {
                finite(i32::from(f80::EXPONENT_MAX) - 1, u64::MAX)
            };
            return Outcome::new(value, sw::OE | flags(true, to_infinity));
        }
        if biased >= 1 {
            return Outcome::new(finite(biased, m), flags(inexact, up));
        }
        if fcw & sw::UE == 0 {
            let biased = biased + BIAS_ADJUST;
            let value = if biased >= 1 { finite(biased, m) } else { f80::with_sign(f80::ZERO, self.negative) };
            return Outcome::new(value, sw::UE | flags(inexact, up));
        }
        let (m, _, inexact, up) = self.round_at(rc, (1 - f80::BIAS - self.exponent).max(0) as u32);
        let underflow = if inexact { sw::UE } else { 0 };
        // A carry into the integer bit makes it the smallest normal number.
        let exponent = i32::from(m & f80::INTEGER != 0);
        Outcome::new(finite(exponent, m), underflow | flags(inexact, up))
    }

    /// The significand shifted right by `denormal` bits and rounded to 64: significand, exponent, inexact, rounded up (in
    /// magnitude).
    fn round_at(self, rc: Rounding, denormal: u32) -> (u64, i32, bool, bool) {
        const HALF: u64 = 1 << 63;
        let v = shift_right_jam(self.mantissa, denormal);
        let (m, rest) = ((v >> 64) as u64, v as u64);
        let up = match rc {
            Rounding::Nearest => rest > HALF || rest == HALF && m & 1 != 0,
            Rounding::Down => self.negative && rest != 0,
            Rounding::Up => !self.negative && rest != 0,
            Rounding::Zero => false,
        };
        let (sum, carry) = m.overflowing_add(u64::from(up));
        let (m, e) = if carry { (HALF, self.exponent + 1) } else { (sum, self.exponent) };
        (m, e, rest != 0, up)
    }
}
