//! The pace of the silicon: AES rounds that touch nothing but registers.
//!
//! No kernel can be faster than the rounds it consists of, so a measurement divides by this one, taken in the same run.

#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{
    __m128i, __m256i, __m512i, _mm_aesenc_si128, _mm_setzero_si128, _mm256_aesenc_epi128, _mm256_setzero_si256,
    _mm512_aesenc_epi128, _mm512_setzero_si512,
};
use std::hint::black_box;

use crate::backend::Backend;

/// Chains that run abreast: at most two AESENC a cycle with a latency of at most four cycles are known, and all chains
/// and the key fit sixteen registers.
const CHAINS: usize = 8;

/// The registers that AES rounds work on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Width {
    /// One block: AESENC.
    Xmm,
    /// Two blocks: VAESENC with 256 bits.
    Ymm,
    /// Four blocks: VAESENC with 512 bits.
    Zmm,
}

impl Width {
    /// Every width.
    pub const ALL: [Self; 3] = [Self::Xmm, Self::Ymm, Self::Zmm];

    /// The name for tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Xmm => "xmm",
            Self::Ymm => "ymm",
            Self::Zmm => "zmm",
        }
    }

    /// AES blocks in a register.
    pub const fn blocks(self) -> usize {
        match self {
            Self::Xmm => 1,
            Self::Ymm => 2,
            Self::Zmm => 4,
        }
    }

    /// What the runs of a backend are made of; `None` for the portable one, which is made of whatever there is.
    pub const fn of(backend: Backend) -> Option<Self> {
        match backend {
            Backend::Portable => None,
            Backend::AesNi => Some(Self::Xmm),
            Backend::Vaes256 => Some(Self::Ymm),
            Backend::Vaes512 => Some(Self::Zmm),
        }
    }

    /// True on hosts that have AES rounds of this width.
    pub fn is_available(self) -> bool {
        match self {
            Self::Xmm => Backend::AesNi.is_available(),
            Self::Ymm => Backend::Vaes256.is_available(),
            Self::Zmm => Backend::Vaes512.is_available(),
        }
    }

    /// At least `rounds` rounds of one register each, independent as far as the processor can use that. Returns how
    /// many there were: the time they take gives the throughput.
    ///
    /// # Panics
    ///
    /// When the host lacks the width.
    pub fn independent_rounds(self, rounds: u64) -> u64 {
        let times = rounds.div_ceil(CHAINS as u64);
        self.execute::<CHAINS>(times);
        times * CHAINS as u64
    }

    /// `rounds` rounds of one register, each on the result of the one before: the time they take gives the latency.
    ///
    /// # Panics
    ///
    /// When the host lacks the width.
    pub fn dependent_rounds(self, rounds: u64) {
        self.execute::<1>(rounds);
    }

    fn execute<const L: usize>(self, times: u64) {
        assert!(self.is_available(), "this host has no AES rounds on {} registers", self.name());
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the host has the features of the callee, as checked above.
        unsafe {
            match self {
                Self::Xmm => xmm::<L>(times),
                Self::Ymm => ymm::<L>(times),
                Self::Zmm => zmm::<L>(times),
            }
        }
    }
}

/// `times` rounds of each of `L` chains.
macro_rules! chains {
    ($name:ident, $features:literal, $register:ty, $zero:ident, $round:ident) => {
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = $features)]
        fn $name<const L: usize>(times: u64) {
            let key: $register = black_box($zero());
            let mut state = [key; L];
            for _ in 0..times {
                for block in &mut state {
                    *block = $round(*block, key);
                }
            }
            black_box(state);
        }
    };
}
chains!(xmm, "aes", __m128i, _mm_setzero_si128, _mm_aesenc_si128);
chains!(ymm, "avx2,vaes", __m256i, _mm256_setzero_si256, _mm256_aesenc_epi128);
chains!(zmm, "avx512f,vaes", __m512i, _mm512_setzero_si512, _mm512_aesenc_epi128);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_width_of_the_host_executes_what_it_says() {
        for width in Width::ALL.into_iter().filter(|width| width.is_available()) {
            assert_eq!([0, 1, 8, 9].map(|rounds| width.independent_rounds(rounds)), [0, 8, 8, 16]);
            width.dependent_rounds(3);
        }
    }
}
