//! Known answers.

use super::super::{approximate::*, crypto::*, float::*, mxcsr};

const DEFAULT: u32 = 0x1F80;

fn without_mask(flag: u32) -> u32 {
    DEFAULT & !(flag << mxcsr::MASK_SHIFT)
}

fn s(x: f32) -> u128 {
    x.to_bits().into()
}

#[test]
fn aes_128_of_fips_197_appendix_b() {
    let block = |hex: u128| hex.swap_bytes();
    let rcon = [1, 2, 4, 8, 16, 32, 64, 128, 0x1B, 0x36];
    let mut keys = vec![block(0x2B7E_1516_28AE_D2A6_ABF7_1588_09CF_4F3C)];
    for rcon in rcon {
        let previous = keys[keys.len() - 1];
        let chained = previous ^ previous << 32;
        let chained = chained ^ chained << 64;
        let word = aeskeygenassist(0, previous, rcon) >> 96;
        keys.push(chained ^ (word | word << 32 | word << 64 | word << 96));
    }
    let plain = block(0x3243_F6A8_885A_308D_3131_98A2_E037_0734);
    let state = keys[1..10].iter().fold(plain ^ keys[0], |s, &k| aesenc(s, k));
    let cipher = aesenclast(state, keys[10]);
    assert_eq!(cipher, block(0x3925_841D_02DC_09FB_DC11_8597_196A_0B32));
    let state = keys[1..10].iter().rev().fold(cipher ^ keys[10], |s, &k| aesdec(s, aesimc(0, k)));
    assert_eq!(aesdeclast(state, keys[0]), plain);
}

#[test]
fn crc_32c_of_the_check_string() {
    let crc = b"123456789".iter().fold(!0, |crc, &b| crc32(crc, b.into(), 1));
    assert_eq!(!crc, 0xE306_9283);
}

#[test]
fn unmasked_underflow_is_signalled_for_exact_tiny_results() {
    let (tiny, half) = (s(f32::MIN_POSITIVE), s(0.5));
    assert_eq!(mulss(DEFAULT, tiny, half).1, 0);
    assert_eq!(mulss(without_mask(mxcsr::UE), tiny, half).1, mxcsr::UE);
}

#[test]
fn unmasked_underflow_reports_inexactness_of_the_unbounded_result() {
    // 2^-126 * (1 + 2^-23) * 0.5 has 24 significant bits: inexact only as a denormal.
    let x = u128::from(f32::MIN_POSITIVE.to_bits() + 1);
    assert_eq!(mulss(DEFAULT, x, s(0.5)).1, mxcsr::UE | mxcsr::PE);
    assert_eq!(mulss(without_mask(mxcsr::UE), x, s(0.5)).1, mxcsr::UE);
}

#[test]
fn unmasked_overflow_reports_inexactness_of_the_unbounded_result() {
    assert_eq!(addss(DEFAULT, s(f32::MAX), s(f32::MAX)).1, mxcsr::OE | mxcsr::PE);
    assert_eq!(addss(without_mask(mxcsr::OE), s(f32::MAX), s(f32::MAX)).1, mxcsr::OE);
    let twice = f64::from(f32::MAX) * 2.0;
    assert_eq!(cvtsd2ss(without_mask(mxcsr::OE), 0, twice.to_bits().into()).1, mxcsr::OE);
}

#[test]
fn an_unmasked_pre_computation_exception_hides_post_computation_ones() {
    let m = without_mask(mxcsr::ZE);
    // 1/0 in one element, the inexact 1/3 in another.
    let (_, flags) = divps(m, s(1.0) | s(1.0) << 32, s(0.0) | s(3.0) << 32);
    assert_eq!(flags & (mxcsr::ZE | mxcsr::PE), mxcsr::ZE | mxcsr::PE);
    assert_eq!(mxcsr::reported(m, flags) & mxcsr::PE, 0);
    assert_eq!(mxcsr::reported(DEFAULT, flags), flags);
}

#[test]
fn flush_to_zero_does_not_act_while_underflow_is_unmasked() {
    let m = mxcsr::FZ | without_mask(mxcsr::UE);
    assert_eq!(mxcsr::host_control(m) & mxcsr::FZ, 0);
    assert_ne!(mxcsr::host_control(mxcsr::FZ | DEFAULT) & mxcsr::FZ, 0);
}

#[test]
fn approximations_of_normal_numbers_are_within_the_bound() {
    const BOUND: f64 = 1.5 / 4096.0;
    let mut x = 0x0080_0000u32;
    while x < 0x7F80_0000 {
        let exact = f64::from(f32::from_bits(x));
        let root = f64::from(f32::from_bits(reciprocal_root(x)));
        assert!((root * exact.sqrt() - 1.0).abs() <= BOUND, "rsqrt {x:#x}");
        let inverse = f64::from(f32::from_bits(reciprocal(x)));
        if exact.recip() < f64::from(f32::MIN_POSITIVE) {
            assert!(inverse == 0.0 || inverse == f64::from(f32::MIN_POSITIVE), "rcp {x:#x}");
        } else {
            assert!((inverse * exact - 1.0).abs() <= BOUND, "rcp {x:#x}");
            assert_eq!(reciprocal(x | 0x8000_0000), reciprocal(x) | 0x8000_0000);
        }
        x += 9973;
    }
}

#[test]
fn approximations_of_powers_of_two_are_exact() {
    for e in -126..=126 {
        let x = 2f32.powi(e);
        assert_eq!(reciprocal(x.to_bits()), x.recip().to_bits());
        if e % 2 == 0 {
            assert_eq!(reciprocal_root(x.to_bits()), x.sqrt().recip().to_bits());
        }
    }
}

#[test]
fn approximations_of_special_numbers_are_those_of_the_sdm() {
    const CASES: [(u32, u32, u32); 9] = [
        // Operand, RCPSS, RSQRTSS
        (0x0000_0000, 0x7F80_0000, 0x7F80_0000),
        (0x8000_0000, 0xFF80_0000, 0xFF80_0000),
        (0x8000_0001, 0xFF80_0000, 0xFF80_0000),
        (0x007F_FFFF, 0x7F80_0000, 0x7F80_0000),
        (0x7F80_0000, 0x0000_0000, 0x0000_0000),
        (0xFF80_0000, 0x8000_0000, 0xFFC0_0000),
        (0xBF80_0000, 0xBF80_0000, 0xFFC0_0000),
        (0x7F80_0001, 0x7FC0_0001, 0x7FC0_0001),
        (0xFFC0_0002, 0xFFC0_0002, 0xFFC0_0002),
    ];
    for (x, rcp, rsqrt) in CASES {
        assert_eq!((reciprocal(x), reciprocal_root(x)), (rcp, rsqrt), "{x:#x}");
    }
}

#[test]
fn this_host_is_supported() {
    assert_eq!(super::super::host_supported(), Ok(()));
}

#[test]
fn lookup_has_every_instruction_of_its_sets_and_no_other_encoding() {
    use iced_x86::{Code, CpuidFeature as F, EncodingKind};
    let ours = [F::MMX, F::SSE, F::SSE2, F::SSE3, F::SSSE3, F::SSE4_1, F::SSE4_2, F::AES, F::PCLMULQDQ];
    for code in Code::values() {
        let features = code.cpuid_features();
        // FISTTP belongs to SSE3 and to x87.
        let expected = code.encoding() == EncodingKind::Legacy
            && features.iter().any(|f| ours.contains(f))
            && !features.contains(&F::FPU);
        let found = super::super::lookup(code).is_some();
        let hint = format!("{code:?}").starts_with("Prefetch");
        assert_eq!(found, expected || hint, "{code:?}");
    }
}

#[test]
fn vector_registers_are_numbered_from_zero() {
    use iced_x86::Register;
    assert_eq!((Register::MM0.number(), Register::MM7.number()), (0, 7));
    assert_eq!((Register::XMM0.number(), Register::XMM15.number()), (0, 15));
}
