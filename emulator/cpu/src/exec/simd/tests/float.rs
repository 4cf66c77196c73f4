//! Floating-point operations that are composed or computed here, with all exceptions masked.

use super::super::{float::*, mxcsr, round};
use super::{Random, all_immediates, bits, vector};
use std::arch::asm;
use std::arch::is_x86_feature_detected as has;

/// Encodings at the borders of the formats, and random ones near them.
pub fn single(random: &mut Random) -> u32 {
    const SPECIAL: [u32; 20] = [
        0,
        0x8000_0000,
        1,
        0x8000_0001,
        0x007F_FFFF,
        0x0080_0000,
        0x0080_0001,
        0x3F80_0000,
        0xBF80_0000,
        0x3F00_0000,
        0x3FC0_0000,
        0x4020_0000,
        0x7F7F_FFFF,
        0xFF7F_FFFF,
        0x7F80_0000,
        0xFF80_0000,
        0x7FC0_0001,
        0xFFC0_0002,
        0x7F80_0003,
        0xFFA0_0004,
    ];
    let x = random.u64() as u32;
    match random.below(6) {
        0 => SPECIAL[random.below(20) as usize],
        1 => x,
        2 => x & 0x807F_FFFF | (random.below(26) as u32) << 23,
        3 => x & 0x807F_FFFF | (228 + random.below(27) as u32) << 23,
        4 => x & 0x8070_0000 | (115 + random.below(40) as u32) << 23,
        _ => x & 0x807F_FFFF | (60 + random.below(140) as u32) << 23,
    }
}

/// The same for double precision.
pub fn double(random: &mut Random) -> u64 {
    let x = random.u64();
    let sign_and_fraction = x & 0x800F_FFFF_FFFF_FFFF;
    match random.below(7) {
        0 => f64::from(f32::from_bits(single(random))).to_bits(),
        1 => [
            0,
            1,
            0x7FF0_0000_0000_0000,
            0x7FF0_0000_0000_0001,
            0xFFF8_0000_0000_0005,
            0x7FEF_FFFF_FFFF_FFFF,
            0x8000_0000_0000_0001,
        ][random.below(7) as usize],
        2 => sign_and_fraction | random.below(55) << 52,
        3 => sign_and_fraction | (1992 + random.below(55)) << 52,
        4 => sign_and_fraction | (1023 - 155 + random.below(60)) << 52,
        5 => x & 0x800F_F000_0000_0000 | (1010 + random.below(60)) << 52,
        _ => sign_and_fraction | (400 + random.below(1200)) << 52,
    }
}

fn operand(random: &mut Random, is_single: bool) -> u128 {
    if is_single {
        (0..4).fold(0, |v, _| v << 32 | u128::from(single(random)))
    } else {
        (0..2).fold(0, |v, _| v << 64 | u128::from(double(random)))
    }
}

/// Random DAZ, FZ and RC; all exceptions masked.
fn masked(random: &mut Random) -> u32 {
    random.u64() as u32 & (mxcsr::DAZ | mxcsr::FZ | mxcsr::RC) | mxcsr::FLAGS << mxcsr::MASK_SHIFT
}

/// The host's instruction under `control` as a function.
macro_rules! silicon {
    ($text:expr $(, $i:ident)?) => {
        |control: u32, a: u128, b: u128| -> Outcome {
            let (mut saved, mut csr, mut r) = (0u32, control, vector(a));
            // SAFETY: puts MXCSR back as it was.
            unsafe {
                asm!(
                    "stmxcsr [{s}]", "ldmxcsr [{c}]", $text, "stmxcsr [{c}]", "ldmxcsr [{s}]",
                    s = in(reg) &mut saved, c = in(reg) &mut csr,
                    r = inout(xmm_reg) r, b = in(xmm_reg) vector(b) $(, i = const $i)?
                )
            };
            (bits(r), csr & mxcsr::FLAGS)
        }
    };
}

/// All NaNs made one.
fn any_nan(v: u128, is_single: bool) -> u128 {
    let (bits, infinity) = if is_single { (32, 0x7F80_0000) } else { (64, 0x7FF0_0000_0000_0000) };
    (0..128 / bits).fold(0, |all, n| {
        let element = v >> (n * bits) & ((1 << bits) - 1);
        let is_nan = element & !(1 << (bits - 1)) > infinity;
        all | if is_nan { infinity + 1 } else { element } << (n * bits)
    })
}

fn agree(
    name: &str,
    n: usize,
    ours: impl Fn(u32, u128, u128) -> Outcome,
    silicon: impl Fn(u32, u128, u128) -> Outcome,
) {
    let mut random = Random::new(name.len() as u64 + 99);
    for _ in 0..n {
        let is_single = !name.ends_with('d');
        let (a, b, m) = (operand(&mut random, is_single), operand(&mut random, is_single), masked(&mut random));
        let (mut got, mut want) = (ours(m, a, b), silicon(m, a, b));
        if name.starts_with("dp") && !crate::exec::host_is_amd() {
            // The SDM does not say which product is the first operand of an addition, so not which of several NaNs is the
            // result (Vol. 2A, "DPPS"). The model adds as AMD's processors do.
            (got.0, want.0) = (any_nan(got.0, is_single), any_nan(want.0, is_single));
        }
        assert_eq!(got, want, "{name} {a:032x} {b:032x} {m:#x}: {:032x}, silicon {:032x}", got.0, want.0);
    }
}

#[test]
fn horizontal_instructions_agree_with_the_host() {
    macro_rules! ops {
        ($($f:ident)*) => {$( agree(stringify!($f), 20_000, $f, silicon!(concat!(stringify!($f), " {r}, {b}"))); )*};
    }
    if has!("sse3") {
        ops!(haddps haddpd hsubps hsubpd addsubps addsubpd);
    }
}

#[test]
fn dot_products_and_roundings_agree_with_the_host() {
    if !has!("sse4.1") {
        return;
    }
    macro_rules! ops {
        ($($f:ident: $ours:expr;)*) => {$({
            fn silicon<const I: u8>(m: u32, a: u128, b: u128) -> Outcome {
                silicon!(concat!(stringify!($f), " {r}, {b}, {i}"), I)(m, a, b)
            }
            for (imm, silicon) in all_immediates!(silicon).iter().enumerate() {
                agree(stringify!($f), 300, |m, a, b| $ours(m, a, b, imm as u8), silicon);
            }
        })*};
    }
    ops! {
        dpps: dpps;
        dppd: dppd;
        roundps: round::roundps;
        roundpd: round::roundpd;
        roundss: round::roundss;
        roundsd: round::roundsd;
    }
}

#[test]
fn scalar_operations_with_overflow_unmasked_give_the_same_values() {
    // The flags are found by another path; the values must not depend on it.
    let mut random = Random::new(5);
    for _ in 0..20_000 {
        let (a, b, m) = (operand(&mut random, true), operand(&mut random, true), masked(&mut random) & !mxcsr::FZ);
        let unmasked = m & !((mxcsr::OE | mxcsr::UE) << mxcsr::MASK_SHIFT);
        for f in [addps, subps, mulps, divps] {
            let ((v, flags), (w, unmasked_flags)) = (f(m, a, b), f(unmasked, a, b));
            assert_eq!(v, w);
            let others = !(mxcsr::UE | mxcsr::PE);
            assert_eq!(flags & others, unmasked_flags & others, "{a:032x} {b:032x} {m:#x}");
        }
    }
}
