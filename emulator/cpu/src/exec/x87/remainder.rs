//! FPREM and FPREM1 (SDM Vol. 2A).

use super::f80::{self, Class};
use super::host::{self, Outcome, Unary};
use super::spec::sw;

/// The exponent difference from which a step only reduces.
const PARTIAL: i32 = 64;

/// One step. Below an exponent difference of 64 it is exact and complete. Above, the SDM leaves open by how many bits
/// (32 to 63) a step reduces, so the host must not decide: here it is 32 plus the low five bits of the difference. Such a
/// step is the truncating remainder by ST(1) * 2^(D-N), which the host computes exactly.
pub fn step(op: Unary, cw: u16, a: u128, b: u128) -> Outcome {
    let finite = |v| matches!(f80::classify(v), Class::Normal | Class::Denormal);
    if !finite(a) || !finite(b) {
        return host::unary(op, cw, a, b);
    }
    let difference = true_exponent(a) - true_exponent(b);
    if difference < PARTIAL {
        return host::unary(op, cw, a, b);
    }
    let reduce = 32 + (difference & 31);
    let denormal = [a, b].iter().any(|v| f80::classify(*v) == Class::Denormal);
    let mut outcome = host::unary(Unary::Prem, cw, a, scale(b, difference - reduce));
    // Scaling may have made a normal of a denormal.
    let denormal = if denormal { sw::DE } else { 0 };
    outcome.status = outcome.status & sw::EXCEPTIONS | denormal | sw::C2;
    outcome
}

/// Exponent of the leading bit of a finite value that is not zero.
fn true_exponent(v: u128) -> i32 {
    i32::from(f80::exponent(v).max(1)) - f80::BIAS - f80::significand(v).leading_zeros() as i32
}

/// `v` * 2^n for n >= 0, exactly. The result must be in range.
fn scale(v: u128, n: i32) -> u128 {
    let m = f80::significand(v);
    let shift = m.leading_zeros() as i32;
    let e = i32::from(f80::exponent(v).max(1)) + n;
    if e > shift {
        f80::pack(f80::negative(v), (e - shift) as u16, m << shift)
    } else {
        f80::pack(f80::negative(v), 0, m << (e - 1))
    }
}
