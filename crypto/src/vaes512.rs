//! The VAES kernel for ZMM registers: a line is one register (SDM Vol. 2, AESENC and AESDEC, the EVEX.512 forms).
//!
//! Worth it for runs, where broadcasting the round keys to all four blocks of a register is paid once. The tweaks of a
//! run come first, four lines to a register; then the data, four lines abreast, which covers the latency of VAESENC. On
//! Intel's processors their rounds saturate the one port that has them; what needs it too, the tweaks of lines, goes first.

#![allow(unsafe_code)]

use std::arch::asm;
use std::arch::x86_64::{
    __m128i, __m512i, _mm512_add_epi64, _mm512_aesdec_epi128, _mm512_aesdeclast_epi128, _mm512_aesenc_epi128,
    _mm512_aesenclast_epi128, _mm512_and_si512, _mm512_broadcast_i32x4, _mm512_loadu_si512,
    _mm512_mask_permutexvar_epi64, _mm512_maskz_set1_epi64, _mm512_set_epi64, _mm512_set4_epi64, _mm512_setzero_si512,
    _mm512_shuffle_epi32, _mm512_shuffle_i64x2, _mm512_sllv_epi64, _mm512_srai_epi64, _mm512_srlv_epi64,
    _mm512_storeu_si512, _mm512_xor_si512,
};

use std::mem::MaybeUninit;

use crate::aesni;
use crate::backend::Backend;
use crate::direction::Direction;
use crate::line::LINE_BYTES;
use crate::run::{LineRun, RUN_LINES};
use crate::tweak::{BLOCKS_PER_LINE, REDUCED, REDUCTION};

/// Lines that go abreast. Their states and tweaks and the 15 round keys of AES-256 fit the 32 ZMM registers.
pub(crate) const ABREAST: usize = 4;

/// Runs below this many lines do not pay for the broadcasts.
const SHORTEST: usize = 4;

/// For VPSHUFD.
const SWAP_QUADWORDS: i32 = 0b01_00_11_10;

/// True when the host has VAES on ZMM registers, and AES-NI for what is too short for them.
pub(crate) fn is_available() -> bool {
    Backend::Vaes512.is_available()
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

    /// The kernel whose accesses are blocks.
    #[inline(always)]
    pub(crate) fn narrow(&self) -> &aesni::Schedules<N> {
        &self.0
    }

    #[inline(always)]
    pub(crate) fn line<D: Direction>(&self, dun: u64, source: &D::Source, target: &mut D::Target) {
        // SAFETY: the host has `aes`, `avx512f` and `vaes`, or `self` would not exist.
        unsafe { line::<D, N>(&self.0, dun, D::bytes(source), D::bytes_mut(target)) }
    }

    /// A line under each of four keys, abreast.
    #[inline(always)]
    pub(crate) fn mixed<D: Direction>(keys: [&Self; ABREAST], lines: &mut impl LineRun<D>) {
        assert_eq!(lines.len(), ABREAST, "a line for each key");
        // SAFETY: the host has `aes`, `avx512f` and `vaes`, or there would be no keys.
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
    let [r0, r1, r2, r3, r4, r5, r6, r7] = REDUCED.map(i64::from);
    let reduced = _mm512_set_epi64(r7, r6, r5, r4, r3, r2, r1, r0);
    const LOW_QUADWORDS: u8 = 0b0101_0101;

    let tweak = _mm512_broadcast_i32x4(first);
    // What leaves the low quadword enters the high one; what leaves the high one is reduced into the low one.
    let carries = _mm512_shuffle_epi32::<SWAP_QUADWORDS>(_mm512_srlv_epi64(tweak, carry));
    let carries = _mm512_mask_permutexvar_epi64(carries, LOW_QUADWORDS, carries, reduced);
    _mm512_xor_si512(_mm512_sllv_epi64(tweak, shift), carries)
}

/// T_(j+1) = T_j * alpha in GF(2^128), in each block.
#[inline]
#[target_feature(enable = "avx512f")]
fn times_alpha(tweaks: __m512i) -> __m512i {
    // The sign of every quadword spread over it and moved to where it carries: from the high one to the low one, where it
    // is reduced, and from the low one into the lowest bit of the high one.
    let signs = _mm512_shuffle_epi32::<SWAP_QUADWORDS>(_mm512_srai_epi64::<63>(tweaks));
    let carries = _mm512_and_si512(signs, _mm512_set4_epi64(1, REDUCTION as i64, 1, REDUCTION as i64));
    _mm512_xor_si512(_mm512_add_epi64(tweaks, tweaks), carries)
}

/// E_K2 of the data-unit numbers of lines `index` and up: the first tweaks of four lines in each of `G` registers.
#[inline]
#[target_feature(enable = "avx512f,vaes")]
fn first_tweaks<D: Direction, const G: usize, const N: usize>(
    keys: &[__m512i; N],
    run: &impl LineRun<D>,
    index: usize,
) -> [__m512i; G] {
    const LOW_QUADWORDS: u8 = 0b0101_0101;
    let last = run.len() - 1;
    let mut state = [_mm512_setzero_si512(); G];
    for (group, blocks) in state.iter_mut().enumerate() {
        let index = index + group * BLOCKS_PER_LINE;
        // Beyond the end of the run other lines are encrypted, for nothing.
        let units = if let Some(first) = run.neighbours_from() {
            let first = _mm512_maskz_set1_epi64(LOW_QUADWORDS, first.wrapping_add(index as u64).cast_signed());
            _mm512_add_epi64(first, _mm512_set_epi64(0, 3, 0, 2, 0, 1, 0, 0))
        } else {
            // Put together in registers: what is stored in pieces and loaded whole waits for the stores.
            let dun = |slot: usize| run.dun((index + slot).min(last)).cast_signed();
            _mm512_set_epi64(0, dun(3), 0, dun(2), 0, dun(1), 0, dun(0))
        };
        *blocks = _mm512_xor_si512(units, keys[0]);
    }
    for key in &keys[1..N - 1] {
        for blocks in &mut state {
            *blocks = _mm512_aesenc_epi128(*blocks, *key);
        }
    }
    state.map(|blocks| _mm512_aesenclast_epi128(blocks, keys[N - 1]))
}

/// The tweaks of four lines, a register each, from their first ones.
#[inline]
#[target_feature(enable = "avx512f")]
fn four_line_tweaks(first: __m512i) -> [__m512i; BLOCKS_PER_LINE] {
    const LOWER: i32 = 0b01_00_01_00;
    const UPPER: i32 = 0b11_10_11_10;
    const EVEN: i32 = 0b10_00_10_00;
    const ODD: i32 = 0b11_01_11_01;
    // The same block of four lines in each; then transposed: the four blocks of a line.
    let t1 = times_alpha(first);
    let t2 = times_alpha(t1);
    let t3 = times_alpha(t2);
    let ab = [_mm512_shuffle_i64x2::<LOWER>(first, t1), _mm512_shuffle_i64x2::<LOWER>(t2, t3)];
    let cd = [_mm512_shuffle_i64x2::<UPPER>(first, t1), _mm512_shuffle_i64x2::<UPPER>(t2, t3)];
    [
        _mm512_shuffle_i64x2::<EVEN>(ab[0], ab[1]),
        _mm512_shuffle_i64x2::<ODD>(ab[0], ab[1]),
        _mm512_shuffle_i64x2::<EVEN>(cd[0], cd[1]),
        _mm512_shuffle_i64x2::<ODD>(cd[0], cd[1]),
    ]
}

/// No instruction. The compiler does not know what is in the registers afterwards, so it cannot put the rounds of one line
/// after those of another, as it likes to: the processor looks ahead too little to bring them together again. Calls stay in
/// their order, and with them what goes into one and comes out of another.
#[inline]
#[target_feature(enable = "avx512f")]
fn keep_in_place<const L: usize>(state: &mut [__m512i; L]) {
    if let [a, b, c, d] = &mut state[..] {
        // SAFETY: a comment, which leaves every register and all memory as they are.
        unsafe {
            asm!(
                "/* {0} {1} {2} {3} */",
                inout(zmm_reg) * a,
                inout(zmm_reg) * b,
                inout(zmm_reg) * c,
                inout(zmm_reg) * d,
                options(nomem, nostack, preserves_flags)
            );
        }
    }
}

/// `L` lines abreast, from `index` on.
#[inline]
#[target_feature(enable = "avx512f,vaes")]
fn crypt<D: Direction, const L: usize, const N: usize>(
    keys: &[__m512i; N],
    tweaks: &[__m512i; L],
    run: &mut impl LineRun<D>,
    index: usize,
) {
    let mut state = [_mm512_setzero_si512(); L];
    for slot in 0..L {
        let source = load_zmm(D::bytes(run.source(index + slot)));
        state[slot] = _mm512_xor_si512(_mm512_xor_si512(source, keys[0]), tweaks[slot]);
    }
    for key in &keys[1..N - 1] {
        for blocks in &mut state {
            *blocks =
                if D::DECRYPTS { _mm512_aesdec_epi128(*blocks, *key) } else { _mm512_aesenc_epi128(*blocks, *key) };
        }
        keep_in_place(&mut state);
    }
    for slot in 0..L {
        let key = _mm512_xor_si512(keys[N - 1], tweaks[slot]);
        let blocks = state[slot];
        let blocks =
            if D::DECRYPTS { _mm512_aesdeclast_epi128(blocks, key) } else { _mm512_aesenclast_epi128(blocks, key) };
        store_zmm(blocks, D::bytes_mut(run.target(index + slot)));
    }
}

/// One line by itself. Its round keys are broadcast as they are used.
#[target_feature(enable = "aes,avx512f,vaes")]
fn line<D: Direction, const N: usize>(
    keys: &aesni::Schedules<N>,
    dun: u64,
    source: &[u8; LINE_BYTES],
    target: &mut [u8; LINE_BYTES],
) {
    let [first] = aesni::first_tweaks(&keys.tweak, [dun]);
    let keys = keys.data::<D>();
    let key = |n: usize| _mm512_broadcast_i32x4(keys[n]);
    let tweaks = line_tweaks(first);
    let mut blocks = _mm512_xor_si512(_mm512_xor_si512(load_zmm(source), key(0)), tweaks);
    for n in 1..N - 1 {
        blocks = if D::DECRYPTS { _mm512_aesdec_epi128(blocks, key(n)) } else { _mm512_aesenc_epi128(blocks, key(n)) };
    }
    let last = _mm512_xor_si512(key(N - 1), tweaks);
    blocks = if D::DECRYPTS { _mm512_aesdeclast_epi128(blocks, last) } else { _mm512_aesenclast_epi128(blocks, last) };
    store_zmm(blocks, target);
}

/// Four lines, each under its own key: the states go abreast, the round keys are broadcast as they are used.
#[target_feature(enable = "aes,avx512f,vaes")]
fn mixed<D: Direction, const N: usize>(keys: [&aesni::Schedules<N>; ABREAST], run: &mut impl LineRun<D>) {
    let duns = std::array::from_fn(|slot| run.dun(slot));
    let first = aesni::first_tweaks_of(keys.map(|keys| &keys.tweak), duns);
    let keys = keys.map(|keys| keys.data::<D>());
    let key = |slot: usize, n: usize| _mm512_broadcast_i32x4(keys[slot][n]);
    let mut tweaks = [_mm512_setzero_si512(); ABREAST];
    let mut state = tweaks;
    for slot in 0..ABREAST {
        tweaks[slot] = line_tweaks(first[slot]);
        let source = load_zmm(D::bytes(run.source(slot)));
        state[slot] = _mm512_xor_si512(_mm512_xor_si512(source, key(slot, 0)), tweaks[slot]);
    }
    for n in 1..N - 1 {
        for (slot, blocks) in state.iter_mut().enumerate() {
            let key = key(slot, n);
            *blocks = if D::DECRYPTS { _mm512_aesdec_epi128(*blocks, key) } else { _mm512_aesenc_epi128(*blocks, key) };
        }
        keep_in_place(&mut state);
    }
    for slot in 0..ABREAST {
        let key = _mm512_xor_si512(key(slot, N - 1), tweaks[slot]);
        let blocks = state[slot];
        let blocks =
            if D::DECRYPTS { _mm512_aesdeclast_epi128(blocks, key) } else { _mm512_aesenclast_epi128(blocks, key) };
        store_zmm(blocks, D::bytes_mut(run.target(slot)));
    }
}

#[target_feature(enable = "avx512f,vaes")]
fn run<D: Direction, const N: usize>(keys: &aesni::Schedules<N>, run: &mut impl LineRun<D>) {
    let lines = run.len();
    assert!(lines <= RUN_LINES);
    // Cleared, it would cost a short run as much as its encryption.
    let mut first = [const { MaybeUninit::uninit() }; RUN_LINES / BLOCKS_PER_LINE];
    let slots = &mut first[..lines.div_ceil(BLOCKS_PER_LINE)];
    let tweak_keys = broadcast(&keys.tweak);
    let (groups, rest) = slots.as_chunks_mut::<ABREAST>();
    let mut index = 0;
    for group in groups {
        *group = first_tweaks::<D, ABREAST, N>(&tweak_keys, run, index).map(MaybeUninit::new);
        index += ABREAST * BLOCKS_PER_LINE;
    }
    for slot in rest {
        *slot = first_tweaks::<D, 1, N>(&tweak_keys, run, index).map(MaybeUninit::new)[0];
        index += BLOCKS_PER_LINE;
    }
    // SAFETY: the two loops have written every slot.
    let first: &[__m512i] = unsafe { slots.assume_init_ref() };

    let data_keys = broadcast(keys.data::<D>());
    // Not empty: shorter runs are not for this kernel.
    let mut tweaks = four_line_tweaks(first[0]);
    for four in 0..first.len() {
        // Those of the next four lines before the rounds of these: the processor executes what is older first, and rounds
        // always wait for the port that the shifts of the tweaks need too.
        let mut next = four_line_tweaks(first[(four + 1).min(first.len() - 1)]);
        keep_in_place(&mut next);
        let index = four * ABREAST;
        match lines - index {
            ABREAST.. => crypt(&data_keys, &tweaks, run, index),
            rest => {
                for (index, tweaks) in (index..).zip(&tweaks[..rest]) {
                    crypt(&data_keys, std::array::from_ref(tweaks), run, index);
                }
            }
        }
        tweaks = next;
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
            // SAFETY: the host has `avx512f`, as checked above.
            unsafe { store_zmm(line_tweaks(aesni::load(&block)), &mut line) };
            let expected = tweak::line_tweaks(&block.into()).map(u128::to_le_bytes);
            assert_eq!(line, *expected.as_flattened(), "{first:#x}");
        }
    }
}
