//! The VAES kernel: a line is one ZMM register (SDM Vol. 2, AESENC and AESDEC, the EVEX.512 forms).
//!
//! Worth it for runs, where broadcasting the round keys to all four blocks of a register is paid once. The tweaks of a
//! run come first, four lines to a register; then the data, four lines abreast, which covers the latency of VAESENC.

#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m128i, __m512i, _mm512_aesdec_epi128, _mm512_aesdeclast_epi128, _mm512_aesenc_epi128, _mm512_aesenclast_epi128,
    _mm512_broadcast_i32x4, _mm512_loadu_si512, _mm512_mask_permutexvar_epi64, _mm512_set_epi64, _mm512_setzero_si512,
    _mm512_shuffle_epi32, _mm512_sllv_epi64, _mm512_srlv_epi64, _mm512_storeu_si512, _mm512_xor_si512,
};

use crate::aesni::{self, load};
use crate::direction::Direction;
use crate::line::LINE_BYTES;
use crate::run::{LineRun, RUN_LINES};
use crate::tweak::{BLOCK_BYTES, BLOCKS_PER_LINE, REDUCTION};

/// Lines that go abreast. Their states and tweaks and the 15 round keys of AES-256 fit the 32 ZMM registers.
const ABREAST: usize = 4;

/// Runs below this many lines do not pay for the broadcasts.
const SHORTEST: usize = 4;

/// The data-unit numbers of a run as blocks, then the first tweaks of its lines. Aligned for whole registers.
#[repr(align(64))]
struct Tweaks([u8; RUN_LINES * BLOCK_BYTES]);

/// What the three bits of an index come back as when they leave the top: their carry-less product with [`REDUCTION`].
const REDUCED: [i64; 8] = {
    let mut table = [0; 8];
    let mut bits = 0;
    while bits < 8 {
        let mut power = 0;
        while power < 3 {
            if bits >> power & 1 != 0 {
                table[bits] ^= (REDUCTION as i64) << power;
            }
            power += 1;
        }
        bits += 1;
    }
    table
};

/// True when the host has VAES on ZMM registers, and AES-NI for what is too short for them.
pub(crate) fn is_available() -> bool {
    aesni::is_available() && is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("vaes")
}

/// The schedules of one key pair, as the AES-NI kernel has them.
///
/// Invariant: a value exists only on hosts with AVX512F and VAES. [`Schedules::new`] is the one constructor and checks it.
#[derive(Clone)]
pub(crate) struct Schedules<const N: usize>(aesni::Schedules<N>);

impl<const N: usize> Schedules<N> {
    /// See [`aesni::Schedules::new`]. `None` on hosts without AVX512F and VAES.
    pub(crate) fn new(k1: &[u8], k2: &[u8]) -> Option<Self> {
        if is_available() { aesni::Schedules::new(k1, k2).map(Self) } else { None }
    }

    /// By the AES-NI kernel. A lone line is bound by latency, which is the same. Independent lines in place would gain
    /// from ZMM registers (`benches/lines.rs`: 10 ns instead of 17), but where a caller copies the line, which the
    /// compiler does in 16-byte pieces, 64-byte accesses next to the copy lose three times as much.
    #[inline(always)]
    pub(crate) fn line<D: Direction>(&self, dun: u64, source: &D::Source, target: &mut D::Target) {
        self.0.line::<D>(dun, source, target);
    }

    /// Up to [`RUN_LINES`] lines.
    #[inline(always)]
    pub(crate) fn run<D: Direction>(&self, lines: &mut impl LineRun<D>) {
        if lines.len() < SHORTEST {
            return self.0.run(lines);
        }
        // SAFETY: the host has `avx512f` and `vaes`, or `self` would not exist.
        unsafe { run::<D, N>(&self.0, lines) }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_zmm(bytes: &[u8; LINE_BYTES]) -> __m512i {
    // SAFETY: the reference covers the 64 bytes that are read; VMOVDQU64 takes any alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store_zmm(blocks: __m512i, bytes: &mut [u8; LINE_BYTES]) {
    // SAFETY: the reference covers the 64 bytes that are written and is exclusive; VMOVDQU64 takes any alignment.
    unsafe { _mm512_storeu_si512(bytes.as_mut_ptr().cast(), blocks) }
}

/// Round keys in all four blocks of a register.
#[inline]
#[target_feature(enable = "avx512f")]
fn broadcast<const N: usize>(keys: &[__m128i; N]) -> [__m512i; N] {
    let mut wide = [_mm512_setzero_si512(); N];
    for (wide, key) in wide.iter_mut().zip(keys) {
        *wide = _mm512_broadcast_i32x4(*key);
    }
    wide
}

/// T_0..T_3 of a line from T_0: block j of the result is T_0 * alpha^j, all four at once.
#[inline]
#[target_feature(enable = "avx512f")]
fn line_tweaks(first: __m128i) -> __m512i {
    // Quadwords from the highest down. A count of 64 gives zero, which is what block 0 carries.
    let shift = _mm512_set_epi64(3, 3, 2, 2, 1, 1, 0, 0);
    let carry = _mm512_set_epi64(61, 61, 62, 62, 63, 63, 64, 64);
    let [r0, r1, r2, r3, r4, r5, r6, r7] = REDUCED;
    let reduced = _mm512_set_epi64(r7, r6, r5, r4, r3, r2, r1, r0);
    const LOW_QUADWORDS: u8 = 0b0101_0101;
    const SWAP_QUADWORDS: i32 = 0b01_00_11_10;

    let tweak = _mm512_broadcast_i32x4(first);
    // What leaves the low quadword enters the high one; what leaves the high one is reduced into the low one.
    let carries = _mm512_shuffle_epi32::<SWAP_QUADWORDS>(_mm512_srlv_epi64(tweak, carry));
    let carries = _mm512_mask_permutexvar_epi64(carries, LOW_QUADWORDS, carries, reduced);
    _mm512_xor_si512(_mm512_sllv_epi64(tweak, shift), carries)
}

/// E_K2 of four registers of blocks, in place.
#[inline]
#[target_feature(enable = "avx512f,vaes")]
fn encrypt_units<const N: usize>(keys: &[__m512i; N], units: &mut [[u8; LINE_BYTES]; ABREAST]) {
    let mut state = [_mm512_setzero_si512(); ABREAST];
    for (blocks, unit) in state.iter_mut().zip(units.iter()) {
        *blocks = _mm512_xor_si512(load_zmm(unit), keys[0]);
    }
    for key in &keys[1..N - 1] {
        for blocks in &mut state {
            *blocks = _mm512_aesenc_epi128(*blocks, *key);
        }
    }
    for (blocks, unit) in state.iter().zip(units) {
        store_zmm(_mm512_aesenclast_epi128(*blocks, keys[N - 1]), unit);
    }
}

/// `L` lines abreast, from `index` on.
#[inline]
#[target_feature(enable = "avx512f,vaes")]
fn crypt<D: Direction, const L: usize, const N: usize>(
    keys: &[__m512i; N],
    first: &[[u8; BLOCK_BYTES]; L],
    run: &mut impl LineRun<D>,
    index: usize,
) {
    let mut tweaks = [_mm512_setzero_si512(); L];
    let mut state = tweaks;
    for slot in 0..L {
        tweaks[slot] = line_tweaks(load(&first[slot]));
        let source = load_zmm(D::bytes(run.source(index + slot)));
        state[slot] = _mm512_xor_si512(_mm512_xor_si512(source, keys[0]), tweaks[slot]);
    }
    for key in &keys[1..N - 1] {
        for blocks in &mut state {
            *blocks =
                if D::DECRYPTS { _mm512_aesdec_epi128(*blocks, *key) } else { _mm512_aesenc_epi128(*blocks, *key) };
        }
    }
    for slot in 0..L {
        let key = _mm512_xor_si512(keys[N - 1], tweaks[slot]);
        let blocks = state[slot];
        let blocks =
            if D::DECRYPTS { _mm512_aesdeclast_epi128(blocks, key) } else { _mm512_aesenclast_epi128(blocks, key) };
        store_zmm(blocks, D::bytes_mut(run.target(index + slot)));
    }
}

#[target_feature(enable = "avx512f,vaes")]
fn run<D: Direction, const N: usize>(keys: &aesni::Schedules<N>, run: &mut impl LineRun<D>) {
    let lines = run.len();
    let mut buffer = Tweaks([0; RUN_LINES * BLOCK_BYTES]);
    let (first, _) = buffer.0.as_chunks_mut::<BLOCK_BYTES>();
    for (index, block) in first[..lines].iter_mut().enumerate() {
        *block = u128::from(run.dun(index)).to_le_bytes();
    }
    let tweak_keys = broadcast(&keys.tweak);
    let (units, _) = buffer.0.as_chunks_mut::<LINE_BYTES>();
    let (groups, _) = units.as_chunks_mut::<ABREAST>();
    // A group that is not full encrypts zeros in the rest, for nothing.
    for group in &mut groups[..lines.div_ceil(ABREAST * BLOCKS_PER_LINE)] {
        encrypt_units(&tweak_keys, group);
    }

    let data_keys = broadcast(keys.data::<D>());
    let (first, _) = buffer.0.as_chunks::<BLOCK_BYTES>();
    let (fours, rest) = first[..lines].as_chunks::<ABREAST>();
    for (index, first) in fours.iter().enumerate() {
        crypt(&data_keys, first, run, index * ABREAST);
    }
    for (index, first) in rest.iter().enumerate() {
        crypt(&data_keys, std::array::from_ref(first), run, lines - rest.len() + index);
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
        for first in [1, 7 << 61, 7 << 125, 5 << 125, 3 << 126, u128::MAX, 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c834] {
            let block = first.to_le_bytes();
            let mut line = [0; LINE_BYTES];
            // SAFETY: the host has `avx512f`, as checked above.
            unsafe { store_zmm(line_tweaks(load(&block)), &mut line) };
            let expected = tweak::line_tweaks(&block.into()).map(u128::to_le_bytes);
            assert_eq!(line, *expected.as_flattened(), "{first:#x}");
        }
    }
}
