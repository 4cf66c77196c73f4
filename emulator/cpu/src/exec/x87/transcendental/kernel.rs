//! Series and reductions on [`Wide`] numbers.
//!
//! Series run by Horner's rule from the first term below 2^-130 of the sum. Constants are rounded to nearest.

use crate::exec::x87::wide::Wide;
use std::cmp::Ordering;

pub const PI: Wide = Wide::new(1, 0xC90F_DAA2_2168_C234_C4C6_628B_80DC_1CD1);
const LN_2: Wide = Wide::new(-1, 0xB172_17F7_D1CF_79AB_C9E3_B398_03F2_F6AF);
const LOG2_E: Wide = Wide::new(0, 0xB8AA_3B29_5C17_F0BB_BE87_FED0_691D_3E89);

/// arctan(k / 16) for k = 1 to 16.
const ATAN: [Wide; 16] = [
    Wide::new(-5, 0xFFAA_DDB9_67EF_4E36_CB27_92DC_0E2E_0D51),
    Wide::new(-4, 0xFEAD_D4D5_617B_6E32_C897_989F_3E88_8EF8),
    Wide::new(-3, 0xBDCB_DA5E_72D8_1134_7B0B_4F88_1C9C_7488),
    Wide::new(-3, 0xFADB_AFC9_6406_EB15_6DC7_9EF5_F7A2_17E6),
    Wide::new(-2, 0x9B13_B9B8_3F5E_5E69_C5AB_B498_D27A_F328),
    Wide::new(-2, 0xB7B0_CA0F_26F7_8473_8AA3_2122_DCFE_4483),
    Wide::new(-2, 0xD327_761E_611F_E5B6_427C_95E9_001E_7136),
    Wide::new(-2, 0xED63_382B_0DDA_7B45_6FE4_45EC_BC3A_8D03),
    Wide::new(-1, 0x832B_F4A6_D986_7E2A_4B6A_09CB_61A5_15C1),
    Wide::new(-1, 0x8F00_5D5E_F7F5_9F9B_5C83_5E16_65C4_3748),
    Wide::new(-1, 0x9A2F_80E6_71BD_DA20_4226_F8E2_204F_F3BD),
    Wide::new(-1, 0xA4BC_7D19_34F7_0924_19A8_7F2A_457D_AC9F),
    Wide::new(-1, 0xAEAC_4C38_B4D8_C080_1472_5E2F_3E52_070A),
    Wide::new(-1, 0xB805_3E2B_C231_9E73_CB2D_A552_10A4_443D),
    Wide::new(-1, 0xC0CE_85B8_AC52_6640_89DD_62C4_6E92_FA25),
    Wide::new(-1, 0xC90F_DAA2_2168_C234_C4C6_628B_80DC_1CD1),
];

/// 2^x - 1 for 0 < |x| < 1: e^t - 1 with t = x ln 2, whose series is t (1 + t/2 (1 + t/3 (...))).
pub fn exp2_minus_1(x: Wide) -> Wide {
    const TERMS: u32 = 34;
    let t = x.mul(LN_2);
    let sum = (2..=TERMS).rev().fold(Wide::ONE, |sum, n| Wide::ONE.add(t.mul(sum).div_small(n)));
    t.mul(sum).inexact()
}

/// Sum of z^k / (2k + 1): artanh(s) / s for z = s^2, arctan(s) / s for z = -s^2.
fn odd_reciprocals(z: Wide, terms: u32) -> Wide {
    (0..terms).rev().fold(Wide::ZERO, |sum, k| Wide::ONE.div_small(2 * k + 1).add(z.mul(sum)))
}

/// log2((1 + s) / (1 - s)) = 2 artanh(s) / ln 2, for |s| < 0.18.
fn log2_ratio(s: Wide) -> Wide {
    // s^2 < 2^-5.08
    const TERMS: u32 = 27;
    s.mul(odd_reciprocals(s.mul(s), TERMS)).mul(LOG2_E).shifted(1).inexact()
}

/// log2(x) for x > 0. Exact for powers of two; zero for 1.
pub fn log2(x: Wide) -> Wide {
    /// sqrt(2)
    const SQRT_2: u128 = 0xB504_F333_F9DE_6484_597D_89B3_754A_BE9F;
    let (mut e, mut m) = (x.exponent, Wide::new(0, x.mantissa));
    if m.mantissa > SQRT_2 {
        e += 1;
        m = m.shifted(-1);
    }
    let numerator = m.sub(Wide::ONE);
    if numerator.is_zero() {
        return Wide::integer(e);
    }
    Wide::integer(e).add(log2_ratio(numerator.div(m.add(Wide::ONE))))
}

/// log2(1 + x) for x not zero; `None` for x <= -1. Below |x| = 1 - sqrt(2)/2, and in fact a bit beyond, by the ratio
/// x / (2 + x), which keeps the precision of small x.
pub fn log2_1p(x: Wide) -> Option<Wide> {
    let sum = Wide::ONE.add(x);
    if sum.negative || sum.is_zero() {
        return None;
    }
    // |x| < 5/16: |s| < 0.186
    const LIMIT: Wide = Wide::new(-2, 5 << 125);
    if x.cmp_magnitude(LIMIT) == Ordering::Less {
        return Some(log2_ratio(x.div(Wide::ONE.shifted(1).add(x))));
    }
    Some(log2(sum))
}

/// sin(r) for 0 < |r| <= pi/4: r (1 - r^2/(2*3) (1 - r^2/(4*5) (...))).
pub fn sin_series(r: Wide) -> Wide {
    const TERMS: u32 = 17;
    let z = r.mul(r);
    let sum = (1..=TERMS).rev().fold(Wide::ONE, |sum, k| Wide::ONE.sub(z.mul(sum).div_small(2 * k * (2 * k + 1))));
    r.mul(sum)
}

/// cos(r) for |r| <= pi/4.
pub fn cos_series(r: Wide) -> Wide {
    const TERMS: u32 = 17;
    let z = r.mul(r);
    (1..=TERMS).rev().fold(Wide::ONE, |sum, k| Wide::ONE.sub(z.mul(sum).div_small(2 * k * (2 * k - 1))))
}

/// arctan(z) for 0 <= z <= 1: arctan(c) + arctan((z - c) / (1 + z c)) with c = k/16 next to z.
fn arctan(z: Wide) -> Wide {
    // |t| <= 1/32, t^2 <= 2^-10
    const TERMS: u32 = 14;
    let k =
        if z.exponent < -6 { 0 } else { ((z.mantissa >> 100 >> (-z.exponent).clamp(0, 27)) as u32 + (1 << 22)) >> 23 };
    let series = |t: Wide| t.mul(odd_reciprocals(t.mul(t).negate(), TERMS));
    match k {
        0 => series(z),
        _ => {
            let c = Wide::integer(k as i32).shifted(-4);
            let t = z.sub(c).div(Wide::ONE.add(z.mul(c)));
            ATAN[(k as usize - 1).min(15)].add(series(t))
        }
    }
}

/// The angle of the point (x, y) with y > 0 and x not zero: between 0 and pi.
pub fn atan2_positive(y: Wide, x: Wide) -> Wide {
    let (width, left) = (x.abs(), x.negative);
    let steep = y.cmp_magnitude(width) == Ordering::Greater;
    let acute = arctan(if steep { width.div(y) } else { y.div(width) });
    match (steep, left) {
        (false, false) => acute,
        (false, true) => PI.sub(acute),
        (true, false) => PI.shifted(-1).sub(acute),
        (true, true) => PI.shifted(-1).add(acute),
    }
}
