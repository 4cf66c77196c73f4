//! Encodings of floating-point numbers (SDM Vol. 1, section 4.2.2), in the low bits of a `u64`.

/// binary32 or binary64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Format {
    /// Width of the encoding.
    pub bits: u32,
    /// Width of the fraction.
    pub fraction: u32,
    pub bias: u64,
}

pub const SINGLE: Format = Format { bits: 32, fraction: 23, bias: 127 };
pub const DOUBLE: Format = Format { bits: 64, fraction: 52, bias: 1023 };

impl Format {
    pub const fn sign_bit(self) -> u64 {
        1 << (self.bits - 1)
    }

    pub const fn fraction_mask(self) -> u64 {
        (1 << self.fraction) - 1
    }

    /// The fraction's most significant bit: set in quiet NaNs.
    pub const fn quiet_bit(self) -> u64 {
        1 << (self.fraction - 1)
    }

    /// The biased exponent of infinities and NaNs.
    pub const fn max_exponent(self) -> u64 {
        2 * self.bias + 1
    }

    pub const fn infinity(self) -> u64 {
        self.max_exponent() << self.fraction
    }

    /// The QNaN floating-point indefinite (SDM Vol. 1, section 4.2.2, table 4-3).
    pub const fn indefinite(self) -> u64 {
        self.sign_bit() | self.infinity() | self.quiet_bit()
    }

    /// The biased exponent.
    pub const fn exponent(self, x: u64) -> u64 {
        x >> self.fraction & self.max_exponent()
    }

    pub const fn is_nan(self, x: u64) -> bool {
        x & !self.sign_bit() > self.infinity()
    }

    pub const fn is_denormal(self, x: u64) -> bool {
        self.exponent(x) == 0 && x & self.fraction_mask() != 0
    }

    /// Element `i` of a vector.
    pub const fn element(self, v: u128, i: usize) -> u64 {
        (v >> (self.bits * i as u32) & ((1 << self.bits) - 1)) as u64
    }

    /// Sign and significand of a finite number that is not zero, with the exponent of 1.
    pub const fn normalized(self, x: u64) -> u64 {
        let mut fraction = x & self.fraction_mask();
        if self.exponent(x) == 0 {
            let leading = u64::BITS - 1 - fraction.leading_zeros();
            fraction = fraction << (self.fraction - leading) & self.fraction_mask();
        }
        x & self.sign_bit() | self.bias << self.fraction | fraction
    }

    /// A finite number divided by four, or the number itself if it is too small for that to be exact.
    pub const fn quartered(self, x: u64) -> u64 {
        if self.exponent(x) > 2 { x - (2 << self.fraction) } else { x }
    }
}
