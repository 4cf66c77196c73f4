//! Tests of the x87 FPU: against the host's silicon ([`silicon`]), transcendentals against high-precision references
//! ([`accuracy`]), and instructions with memory, faults and images ([`instructions`]).

mod accuracy;
mod instructions;
mod native;
mod processor;
mod silicon;

use super::f80;

/// Position of a finite value among the values of its sign.
fn rank(v: u128) -> u128 {
    u128::from(f80::exponent(v)) << 63 | u128::from(f80::significand(v) & !f80::INTEGER)
}

/// SplitMix64: reproducible operands.
pub(super) struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub fn chance(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }

    /// An 80-bit operand: all classes, exponents of all ranges, significands of many and of few bits.
    pub fn f80(&mut self) -> u128 {
        let exponent = match self.below(10) {
            0 => 0,
            1 => 0x7FFF,
            2 => self.below(70),
            3 => 0x7FFE - self.below(70),
            4 => self.below(0x8000),
            _ => 0x3FFF - 70 + self.below(140),
        };
        let significand = match self.below(6) {
            0 => 1 << 63,
            1 => (1 << 63) | 1 << self.below(64),
            2 => u64::MAX << self.below(64),
            3 => (1 << 63) | self.next() >> self.below(64),
            4 if self.chance(2) => self.next() & !(1 << 63) >> self.below(64),
            5 if self.chance(3) => 0,
            _ => self.next() | 1 << 63,
        };
        u128::from(self.next() & 0x8000 | exponent) << 64 | u128::from(significand)
    }
}
