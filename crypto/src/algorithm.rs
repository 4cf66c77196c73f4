//! The algorithms by name, number and key length.

/// The algorithms of IA32_TME_CAPABILITY without integrity (SDM Vol. 4, MSR 981H).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Algorithm {
    /// AES-XTS with two 128-bit keys: bit 0 of IA32_TME_CAPABILITY, TME policy 0.
    AesXts128,
    /// AES-XTS with two 256-bit keys: bit 2 of IA32_TME_CAPABILITY, TME policy 2.
    AesXts256,
}

impl Algorithm {
    /// Bytes of each of the two keys: 16 or 32.
    #[inline]
    pub const fn key_bytes(self) -> usize {
        match self {
            Self::AesXts128 => 16,
            Self::AesXts256 => 32,
        }
    }

    /// The algorithm of TME policy `n`, which is also bit `n` of IA32_TME_CAPABILITY and of ENC_ALG. `None` for the
    /// integrity variants (1 and 3) and for numbers that no manual defines.
    #[inline]
    pub const fn from_number(n: u32) -> Option<Self> {
        match n {
            0 => Some(Self::AesXts128),
            2 => Some(Self::AesXts256),
            _ => None,
        }
    }

    /// The inverse of [`Algorithm::from_number`].
    #[inline]
    pub const fn number(self) -> u32 {
        match self {
            Self::AesXts128 => 0,
            Self::AesXts256 => 2,
        }
    }
}
