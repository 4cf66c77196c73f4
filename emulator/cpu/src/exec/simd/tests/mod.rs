//! Every pure function of this module against the host's own instruction. Functions of instruction sets that the host
//! lacks are skipped.
#![allow(unsafe_code)]

mod execute;
mod float;
mod integer;
mod vectors;

use std::arch::x86_64::__m128i;

/// A xorshift generator: tests must not depend on chance.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn u64(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        (self.u64() >> 32) % n
    }

    pub fn u128(&mut self) -> u128 {
        u128::from(self.u64()) << 64 | u128::from(self.u64())
    }

    /// Vectors with many equal, extreme and zero bytes.
    pub fn vector(&mut self) -> u128 {
        let edges = [0, 0, 1, 0x7F, 0x80, 0x81, 0xFE, 0xFF];
        match self.below(4) {
            0 => self.u128(),
            1 => u128::from_le_bytes(std::array::from_fn(|_| edges[self.below(8) as usize])),
            2 => u128::from_le_bytes(std::array::from_fn(|_| self.below(4) as u8)),
            _ => self.u128() & self.u128() & self.u128(),
        }
    }
}

pub fn vector(v: u128) -> __m128i {
    // SAFETY: both are 16 bytes without invalid values.
    unsafe { std::mem::transmute(v) }
}

pub fn bits(v: __m128i) -> u128 {
    // SAFETY: both are 16 bytes without invalid values.
    unsafe { std::mem::transmute(v) }
}

/// The host's instruction `xmm, xmm` as a function.
macro_rules! silicon_xmm {
    ($name:expr) => {
        |a: u128, b: u128| -> u128 {
            let mut r = crate::exec::simd::tests::vector(a);
            // SAFETY: the instruction changes only its destination (and RFLAGS).
            unsafe {
                std::arch::asm!(
                    concat!($name, " {r}, {b}"),
                    r = inout(xmm_reg) r,
                    b = in(xmm_reg) crate::exec::simd::tests::vector(b),
                    options(nostack),
                )
            };
            crate::exec::simd::tests::bits(r)
        }
    };
}

/// The host's instruction `mm, mm` as a function of the low 64 bits.
macro_rules! silicon_mm {
    ($name:expr) => {
        |a: u128, b: u128| -> u128 {
            let mut r = a as u64;
            // SAFETY: EMMS gives the x87 registers back; all of them are declared as changed.
            unsafe {
                std::arch::asm!(
                    "movq mm0, {r}",
                    "movq mm1, {b}",
                    concat!($name, " mm0, mm1"),
                    "movq {r}, mm0",
                    "emms",
                    r = inout(reg) r,
                    b = in(reg) b as u64,
                    out("mm0") _, out("mm1") _, out("mm2") _, out("mm3") _,
                    out("mm4") _, out("mm5") _, out("mm6") _, out("mm7") _,
                    out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
                    out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
                    options(nostack),
                )
            };
            u128::from(r)
        }
    };
}

/// A function that is generic over an immediate, for all 256 immediates.
macro_rules! all_immediates {
    ($f:ident) => {{
        macro_rules! row {
            ($h:literal) => {
                [
                    $f::<{ $h }>,
                    $f::<{ $h + 1 }>,
                    $f::<{ $h + 2 }>,
                    $f::<{ $h + 3 }>,
                    $f::<{ $h + 4 }>,
                    $f::<{ $h + 5 }>,
                    $f::<{ $h + 6 }>,
                    $f::<{ $h + 7 }>,
                    $f::<{ $h + 8 }>,
                    $f::<{ $h + 9 }>,
                    $f::<{ $h + 10 }>,
                    $f::<{ $h + 11 }>,
                    $f::<{ $h + 12 }>,
                    $f::<{ $h + 13 }>,
                    $f::<{ $h + 14 }>,
                    $f::<{ $h + 15 }>,
                ]
            };
        }
        [
            row!(0x00),
            row!(0x10),
            row!(0x20),
            row!(0x30),
            row!(0x40),
            row!(0x50),
            row!(0x60),
            row!(0x70),
            row!(0x80),
            row!(0x90),
            row!(0xA0),
            row!(0xB0),
            row!(0xC0),
            row!(0xD0),
            row!(0xE0),
            row!(0xF0),
        ]
        .concat()
    }};
}

use {all_immediates, silicon_mm, silicon_xmm};
