//! The VAES kernel for YMM registers, two blocks each (SDM Vol. 2, AESENC and AESDEC, the VEX.256 forms): for processors
//! with VAES but without AVX-512.
//!
//! There are sixteen registers, so a run keeps eight states in them and leaves round keys and tweaks in memory, from where
//! they come as operands: two loads a cycle keep up with two VAESENC a cycle.

#![allow(unsafe_code)]

use std::arch::asm;
use std::arch::x86_64::{
    __m128i, __m256i, _mm256_aesdec_epi128, _mm256_aesdeclast_epi128, _mm256_aesenc_epi128, _mm256_aesenclast_epi128,
    _mm256_blend_epi32, _mm256_broadcastsi128_si256, _mm256_castsi256_si128, _mm256_extracti128_si256,
    _mm256_loadu_si256, _mm256_permutevar8x32_epi32, _mm256_set_epi32, _mm256_set_epi64x, _mm256_setzero_si256,
    _mm256_shuffle_epi32, _mm256_sllv_epi64, _mm256_srlv_epi64, _mm256_storeu_si256, _mm256_xor_si256,
};

use crate::aesni;
use crate::backend::Backend;
use crate::direction::Direction;
use crate::line::LINE_BYTES;
use crate::run::{LineRun, RUN_LINES};
use crate::tweak::{BLOCK_BYTES, REDUCED};

/// Bytes in a YMM register.
const YMM_BYTES: usize = 32;

/// Registers to a line.
const PER_LINE: usize = LINE_BYTES / YMM_BYTES;

/// Blocks in a register.
const BLOCKS: usize = YMM_BYTES / BLOCK_BYTES;

/// Registers that go abreast: the latency of VAESENC, four cycles, at two per cycle.
const ABREAST: usize = 8;

/// Lines whose data go abreast.
pub(crate) const LINES_ABREAST: usize = ABREAST / PER_LINE;

/// Lines whose tweaks go abreast.
const TWEAKS_ABREAST: usize = ABREAST * BLOCKS;

/// Runs below this many lines do not pay for the pass over the tweaks.
const SHORTEST: usize = LINES_ABREAST;

/// One line in registers.
type Blocks = [__m256i; PER_LINE];

/// True when the host has VAES on YMM registers, and AES-NI for the tweaks of single lines.
pub(crate) fn is_available() -> bool {
    Backend::Vaes256.is_available()
}

/// The schedules of one key pair, as the AES-NI kernel has them.
///
/// Invariant: a value exists only on hosts with AVX2 and VAES. [`Schedules::new`] is the one constructor and checks it.
#[derive(Clone)]
pub(crate) struct Schedules<const N: usize>(aesni::Schedules<N>);

impl<const N: usize> Schedules<N> {
    /// See [`aesni::Schedules::new`]. `None` on hosts without AVX2 and VAES.
    pub(crate) fn new(k1: &[u8], k2: &[u8]) -> Option<Self> {
        if is_available() { aesni::Schedules::new(k1, k2).map(Self) } else { None }
    }

    /// The kernel whose accesses are blocks.
    #[inline(always)]
    pub(crate) fn narrow(&self) -> &aesni::Schedules<N> {
        &self.0
    }

    #[inline(always)]
    pub(crate) fn line<D: Direction>(&self, dun: u64, source: &D::Source, target: &mut D::Target) {
        // SAFETY: the host has `aes`, `avx2` and `vaes`, or `self` would not exist.
        unsafe { line::<D, N>(&self.0, dun, D::bytes(source), D::bytes_mut(target)) }
    }

    /// A line under each of four keys, abreast.
    #[inline(always)]
    pub(crate) fn mixed<D: Direction>(keys: [&Self; LINES_ABREAST], lines: &mut impl LineRun<D>) {
        assert_eq!(lines.len(), LINES_ABREAST, "a line for each key");
        // SAFETY: the host has `aes`, `avx2` and `vaes`, or there would be no keys.
        unsafe { mixed::<D, N>(keys.map(|key| &key.0), lines) }
    }

    /// Up to [`RUN_LINES`] lines.
    #[inline(always)]
    pub(crate) fn run<D: Direction>(&self, lines: &mut impl LineRun<D>) {
        if lines.len() < SHORTEST {
            for index in 0..lines.len() {
                let dun = lines.dun(index);
                let (source, target) = lines.pair(index);
                self.line::<D>(dun, source, target);
            }
            return;
        }
        // SAFETY: the host has `aes`, `avx2` and `vaes`, or `self` would not exist.
        unsafe { run::<D, N>(&self.0, lines) }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_line(line: &[u8; LINE_BYTES]) -> Blocks {
    let (halves, _) = line.as_chunks::<YMM_BYTES>();
    let mut blocks = [_mm256_setzero_si256(); PER_LINE];
    for (blocks, half) in blocks.iter_mut().zip(halves) {
        // SAFETY: the reference covers the 32 bytes that are read; VMOVDQU takes any alignment.
        *blocks = unsafe { _mm256_loadu_si256(half.as_ptr().cast()) };
    }
    blocks
}

#[inline]
#[target_feature(enable = "avx2")]
fn store_line(blocks: &Blocks, line: &mut [u8; LINE_BYTES]) {
    let (halves, _) = line.as_chunks_mut::<YMM_BYTES>();
    for (blocks, half) in blocks.iter().zip(halves) {
        // SAFETY: the reference covers the 32 bytes that are written and is exclusive; VMOVDQU takes any alignment.
        unsafe { _mm256_storeu_si256(half.as_mut_ptr().cast(), *blocks) }
    }
}

/// T_0..T_3 of a line from T_0: block j of the result is T_0 * alpha^j.
#[inline]
#[target_feature(enable = "avx2")]
fn line_tweaks(first: __m128i) -> Blocks {
    const LOW_QUADWORDS: i32 = 0b0011_0011;
    const SWAP_QUADWORDS: i32 = 0b01_00_11_10;
    let [r0, r1, r2, r3, r4, r5, r6, r7] = REDUCED.map(|r| r as i32);
    let reduced = _mm256_set_epi32(r7, r6, r5, r4, r3, r2, r1, r0);
    let tweak = _mm256_broadcastsi128_si256(first);
    // A count of 64 gives zero, which is what block 0 carries.
    let halves = [
        (_mm256_set_epi64x(1, 1, 0, 0), _mm256_set_epi64x(63, 63, 64, 64)),
        (_mm256_set_epi64x(3, 3, 2, 2), _mm256_set_epi64x(61, 61, 62, 62)),
    ];
    halves.map(|(shift, carry)| {
        // What leaves the low quadword enters the high one; what leaves the high one is reduced into the low one. Its
        // upper doubleword is zero and so selects the reduction of nothing.
        let carries = _mm256_shuffle_epi32::<SWAP_QUADWORDS>(_mm256_srlv_epi64(tweak, carry));
        let into_low = _mm256_permutevar8x32_epi32(reduced, carries);
        let carries = _mm256_blend_epi32::<LOW_QUADWORDS>(carries, into_low);
        _mm256_xor_si256(_mm256_sllv_epi64(tweak, shift), carries)
    })
}

/// No instruction: the compiler cannot put the rounds of one line after those of another; see the kernel for ZMM registers.
#[inline]
#[target_feature(enable = "avx2")]
fn keep_abreast<const L: usize>(state: &mut [Blocks; L]) {
    if let [a, b, c, d, e, f, g, h] = state.as_flattened_mut() {
        // SAFETY: a comment, which leaves every register and all memory as they are.
        unsafe {
            asm!(
                "/* {0} {1} {2} {3} {4} {5} {6} {7} */",
                inout(ymm_reg) * a,
                inout(ymm_reg) * b,
                inout(ymm_reg) * c,
                inout(ymm_reg) * d,
                inout(ymm_reg) * e,
                inout(ymm_reg) * f,
                inout(ymm_reg) * g,
                inout(ymm_reg) * h,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
    }
}

/// `L` lines abreast, from their first tweaks; in place.
#[inline]
#[target_feature(enable = "avx2,vaes")]
fn crypt<D: Direction, const L: usize, const N: usize>(
    keys: &[__m128i; N],
    first: [__m128i; L],
    state: &mut [Blocks; L],
) {
    let tweaks = {
        let mut tweaks = [[_mm256_setzero_si256(); PER_LINE]; L];
        for (tweaks, first) in tweaks.iter_mut().zip(first) {
            *tweaks = line_tweaks(first);
        }
        tweaks
    };
    let key = |n: usize| _mm256_broadcastsi128_si256(keys[n]);
    for (blocks, tweak) in state.as_flattened_mut().iter_mut().zip(tweaks.as_flattened()) {
        // The round key first: it does not have to wait for the tweak.
        *blocks = _mm256_xor_si256(_mm256_xor_si256(*blocks, key(0)), *tweak);
    }
    for n in 1..N - 1 {
        let key = key(n);
        for blocks in state.as_flattened_mut() {
            *blocks = if D::DECRYPTS { _mm256_aesdec_epi128(*blocks, key) } else { _mm256_aesenc_epi128(*blocks, key) };
        }
    }
    for (blocks, tweak) in state.as_flattened_mut().iter_mut().zip(tweaks.as_flattened()) {
        // The last round ends in the XOR with its key, so the tweak can ride on the key.
        let key = _mm256_xor_si256(key(N - 1), *tweak);
        *blocks =
            if D::DECRYPTS { _mm256_aesdeclast_epi128(*blocks, key) } else { _mm256_aesenclast_epi128(*blocks, key) };
    }
}

#[target_feature(enable = "aes,avx2,vaes")]
fn line<D: Direction, const N: usize>(
    keys: &aesni::Schedules<N>,
    dun: u64,
    source: &[u8; LINE_BYTES],
    target: &mut [u8; LINE_BYTES],
) {
    let first = aesni::first_tweaks(&keys.tweak, [dun]);
    let mut state = [load_line(source)];
    crypt::<D, 1, N>(keys.data::<D>(), first, &mut state);
    store_line(&state[0], target);
}

/// E_K2 of the data-unit numbers of lines `index` and up: their first tweaks. Beyond the end of the run they are those of
/// other lines.
#[inline]
#[target_feature(enable = "avx2,vaes")]
fn first_tweaks<D: Direction, const G: usize, const N: usize>(
    keys: &[__m128i; N],
    run: &impl LineRun<D>,
    index: usize,
) -> [[__m128i; BLOCKS]; G] {
    let key = |n: usize| _mm256_broadcastsi128_si256(keys[n]);
    let last = run.len() - 1;
    let mut state = [_mm256_setzero_si256(); G];
    for (group, blocks) in state.iter_mut().enumerate() {
        let index = index + group * BLOCKS;
        let [even, odd] = match run.neighbours_from() {
            Some(first) => [0, 1].map(|slot| first.wrapping_add(index as u64 + slot)),
            None => [0, 1].map(|slot| run.dun((index + slot).min(last))),
        };
        // Put together in registers: what is stored in pieces and loaded whole waits for the stores.
        let units = _mm256_set_epi64x(0, odd.cast_signed(), 0, even.cast_signed());
        *blocks = _mm256_xor_si256(units, key(0));
    }
    for n in 1..N - 1 {
        let key = key(n);
        for blocks in &mut state {
            *blocks = _mm256_aesenc_epi128(*blocks, key);
        }
    }
    state.map(|blocks| {
        let blocks = _mm256_aesenclast_epi128(blocks, key(N - 1));
        [_mm256_castsi256_si128(blocks), _mm256_extracti128_si256::<1>(blocks)]
    })
}

#[target_feature(enable = "avx2,vaes")]
fn run<D: Direction, const N: usize>(keys: &aesni::Schedules<N>, run: &mut impl LineRun<D>) {
    let lines = run.len();
    debug_assert!(lines <= RUN_LINES);
    let mut index = 0;
    while lines - index >= TWEAKS_ABREAST {
        let first = first_tweaks::<D, ABREAST, N>(&keys.tweak, run, index);
        for first in first.as_flattened().as_chunks::<LINES_ABREAST>().0 {
            crypt_run::<D, LINES_ABREAST, N>(keys, *first, run, index);
            index += LINES_ABREAST;
        }
    }
    while index < lines {
        let first = first_tweaks::<D, { LINES_ABREAST / BLOCKS }, N>(&keys.tweak, run, index);
        if let Some(first) = first.as_flattened().first_chunk().filter(|_| lines - index >= LINES_ABREAST) {
            crypt_run::<D, LINES_ABREAST, N>(keys, *first, run, index);
            index += LINES_ABREAST;
        } else {
            for first in &first.as_flattened()[..lines - index] {
                crypt_run::<D, 1, N>(keys, [*first], run, index);
                index += 1;
            }
        }
    }
}

/// Four lines, each under its own key: a round key comes from memory for two registers.
#[target_feature(enable = "aes,avx2,vaes")]
pub(crate) fn mixed<D: Direction, const N: usize>(
    keys: [&aesni::Schedules<N>; LINES_ABREAST],
    run: &mut impl LineRun<D>,
) {
    let duns = std::array::from_fn(|slot| run.dun(slot));
    let first = aesni::first_tweaks_of(keys.map(|keys| &keys.tweak), duns);
    let keys = keys.map(|keys| keys.data::<D>());
    let key = |slot: usize, n: usize| _mm256_broadcastsi128_si256(keys[slot][n]);
    let mut tweaks = [[_mm256_setzero_si256(); PER_LINE]; LINES_ABREAST];
    let mut state = tweaks;
    for slot in 0..LINES_ABREAST {
        tweaks[slot] = line_tweaks(first[slot]);
        state[slot] = load_line(D::bytes(run.source(slot)));
        for (blocks, tweak) in state[slot].iter_mut().zip(tweaks[slot]) {
            *blocks = _mm256_xor_si256(_mm256_xor_si256(*blocks, key(slot, 0)), tweak);
        }
    }
    for n in 1..N - 1 {
        for (slot, line) in state.iter_mut().enumerate() {
            let key = key(slot, n);
            for blocks in line {
                *blocks =
                    if D::DECRYPTS { _mm256_aesdec_epi128(*blocks, key) } else { _mm256_aesenc_epi128(*blocks, key) };
            }
        }
        keep_abreast(&mut state);
    }
    for slot in 0..LINES_ABREAST {
        for (blocks, tweak) in state[slot].iter_mut().zip(tweaks[slot]) {
            let key = _mm256_xor_si256(key(slot, N - 1), tweak);
            *blocks = if D::DECRYPTS {
                _mm256_aesdeclast_epi128(*blocks, key)
            } else {
                _mm256_aesenclast_epi128(*blocks, key)
            };
        }
        store_line(&state[slot], D::bytes_mut(run.target(slot)));
    }
}

/// `L` lines of a run, from `index` on.
#[inline]
#[target_feature(enable = "avx2,vaes")]
fn crypt_run<D: Direction, const L: usize, const N: usize>(
    keys: &aesni::Schedules<N>,
    first: [__m128i; L],
    run: &mut impl LineRun<D>,
    index: usize,
) {
    let mut state = [[_mm256_setzero_si256(); PER_LINE]; L];
    for (slot, blocks) in state.iter_mut().enumerate() {
        *blocks = load_line(D::bytes(run.source(index + slot)));
    }
    crypt::<D, L, N>(keys.data::<D>(), first, &mut state);
    for (slot, blocks) in state.iter().enumerate() {
        store_line(blocks, D::bytes_mut(run.target(index + slot)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tweak;

    #[test]
    fn the_tweaks_of_a_line_carry_out_of_both_quadwords() {
        if !is_available() {
            return;
        }
        for first in tweak::CARRYING {
            let block = first.to_le_bytes();
            let mut line = [0; LINE_BYTES];
            // SAFETY: the host has `avx2`, as checked above.
            unsafe { store_line(&line_tweaks(aesni::load(&block)), &mut line) };
            let expected = tweak::line_tweaks(&block.into()).map(u128::to_le_bytes);
            assert_eq!(line, *expected.as_flattened(), "{first:#x}");
        }
    }
}
