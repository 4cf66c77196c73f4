//! The AES-NI kernel: XTS on 64-byte lines with the AES rounds of SDM Vol. 2 (AESENC, AESDEC, AESIMC, AESKEYGENASSIST).
//!
//! A fill or a write-back is one line, and one line is five blocks: too few to pay for the calls, buffers and broadcasts
//! of a general block cipher. Here the tweak, the whitening and the rounds of a line are one function whose state stays
//! in registers. AESENC has a latency of about four cycles and a throughput of one or two per cycle, so a lone line (four
//! blocks abreast) is bound by latency; runs of lines go two lines (eight blocks) at a time, their tweaks eight at a time.

#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m128i, _mm_add_epi64, _mm_aesdec_si128, _mm_aesdeclast_si128, _mm_aesenc_si128, _mm_aesenclast_si128,
    _mm_aesimc_si128, _mm_aeskeygenassist_si128, _mm_and_si128, _mm_cvtsi64_si128, _mm_cvtsi128_si32, _mm_loadu_si128,
    _mm_set_epi32, _mm_set1_epi32, _mm_setzero_si128, _mm_shuffle_epi32, _mm_srai_epi32, _mm_storeu_si128,
    _mm_xor_si128,
};

use zeroize::Zeroize;

use crate::backend::Backend;
use crate::direction::Direction;
use crate::line::LINE_BYTES;
use crate::run::LineRun;
use crate::tweak::{BLOCK_BYTES, BLOCKS_PER_LINE, REDUCTION};

/// Round keys of AES-128: Nr + 1 (FIPS 197, table 3).
pub(crate) const ROUND_KEYS_128: usize = 11;

/// Round keys of AES-256.
pub(crate) const ROUND_KEYS_256: usize = 15;

/// Words (columns) of a block and of a round key: Nb of FIPS 197.
const NB: usize = 4;

/// Rcon[1..=10] of FIPS 197, table 5: the powers of x. AES-128 uses them all, AES-256 the first seven.
const RCON: [u8; 10] = [0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0x1b, 0x36];

/// Tweaks that are encrypted abreast, enough to cover the latency of AESENC at two per cycle.
const TWEAK_GROUP: usize = 8;

/// Lines whose blocks go abreast in a run; their states and tweaks just fill the sixteen XMM registers.
const PAIR: usize = 2;

/// One line in registers.
type Blocks = [__m128i; BLOCKS_PER_LINE];

/// True when the host has AES-NI.
pub(crate) fn is_available() -> bool {
    Backend::AesNi.is_available()
}

/// The schedules of one key pair, `N` round keys each, in the order in which the rounds use them.
///
/// Invariant: a value exists only on hosts with AES-NI. [`Schedules::new`] is the one constructor and checks it.
#[derive(Clone)]
pub(crate) struct Schedules<const N: usize> {
    /// K1 for encryption.
    encrypt: [__m128i; N],
    /// K1 for the equivalent inverse cipher (FIPS 197, section 5.3.5), which is what AESDEC computes.
    decrypt: [__m128i; N],
    /// K2, which only ever encrypts.
    pub(crate) tweak: [__m128i; N],
}

impl<const N: usize> Schedules<N> {
    /// Expands `k1` and `k2`. `None` on hosts without AES-NI.
    ///
    /// `N` is [`ROUND_KEYS_128`] for 16-byte keys and [`ROUND_KEYS_256`] for 32-byte keys.
    pub(crate) fn new(k1: &[u8], k2: &[u8]) -> Option<Self> {
        if !is_available() {
            return None;
        }
        // SAFETY: the host has the feature of the callees, `aes`, as checked above.
        unsafe {
            let encrypt = expand(k1);
            Some(Self { encrypt, decrypt: invert(&encrypt), tweak: expand(k2) })
        }
    }

    /// The kernel whose accesses are blocks.
    #[inline(always)]
    pub(crate) fn narrow(&self) -> &Self {
        self
    }

    /// E_K2 of a data-unit number.
    pub(crate) fn first_tweak(&self, dun: u64) -> [u8; BLOCK_BYTES] {
        let mut bytes = [0; BLOCK_BYTES];
        // SAFETY: the host has `aes`, or `self` would not exist.
        unsafe {
            let [tweak] = first_tweaks(&self.tweak, [dun]);
            store(tweak, &mut bytes);
        }
        bytes
    }

    #[inline(always)]
    pub(crate) fn line<D: Direction>(&self, dun: u64, source: &D::Source, target: &mut D::Target) {
        // SAFETY: the host has `aes`, or `self` would not exist.
        unsafe { line::<D, N>(self, dun, D::bytes(source), D::bytes_mut(target)) }
    }

    /// Up to [`RUN_LINES`](crate::run::RUN_LINES) lines.
    #[inline(always)]
    pub(crate) fn run<D: Direction>(&self, lines: &mut impl LineRun<D>) {
        // SAFETY: the host has `aes`, or `self` would not exist.
        unsafe { run::<D, N>(self, lines) }
    }

    /// K1 as direction `D` uses it.
    #[inline(always)]
    pub(crate) fn data<D: Direction>(&self) -> &[__m128i; N] {
        if D::DECRYPTS { &self.decrypt } else { &self.encrypt }
    }
}

impl<const N: usize> Drop for Schedules<N> {
    fn drop(&mut self) {
        self.encrypt.zeroize();
        self.decrypt.zeroize();
        self.tweak.zeroize();
    }
}

/// Key expansion (FIPS 197, section 5.2) for Nk = 4 and Nk = 8.
#[target_feature(enable = "aes")]
fn expand<const N: usize>(key: &[u8]) -> [__m128i; N] {
    let (key_words, _) = key.as_chunks::<4>();
    let nk = key_words.len();
    debug_assert_eq!(N, nk + 7, "Nr = Nk + 6");
    let mut w = [[0_u32; NB]; N];
    let words = w.as_flattened_mut();
    for (word, bytes) in words.iter_mut().zip(key_words) {
        *word = u32::from_le_bytes(*bytes);
    }
    for i in nk..words.len() {
        let previous = words[i - 1];
        let mixed = if i % nk == 0 {
            // RotWord moves byte 0 to the end; bytes count from the low end here.
            sub_word(previous).rotate_right(8) ^ u32::from(RCON[i / nk - 1])
        } else if nk > 6 && i % nk == 4 {
            sub_word(previous)
        } else {
            previous
        };
        words[i] = words[i - nk] ^ mixed;
    }
    let mut keys = [_mm_setzero_si128(); N];
    for (key, words) in keys.iter_mut().zip(&w) {
        let [w0, w1, w2, w3] = words.map(u32::cast_signed);
        *key = _mm_set_epi32(w3, w2, w1, w0);
    }
    w.zeroize();
    keys
}

/// SubWord of FIPS 197: the S-box on each byte. AESKEYGENASSIST puts it into dword 0 for dword 1 of its source.
#[inline]
#[target_feature(enable = "aes")]
fn sub_word(word: u32) -> u32 {
    _mm_cvtsi128_si32(_mm_aeskeygenassist_si128::<0>(_mm_set1_epi32(word.cast_signed()))).cast_unsigned()
}

/// The schedule of the equivalent inverse cipher: reversed, and InvMixColumns on all but the outer two round keys.
#[target_feature(enable = "aes")]
fn invert<const N: usize>(encrypt: &[__m128i; N]) -> [__m128i; N] {
    let mut decrypt = *encrypt;
    decrypt.reverse();
    for key in &mut decrypt[1..N - 1] {
        *key = _mm_aesimc_si128(*key);
    }
    decrypt
}

#[inline(always)]
pub(crate) fn load(bytes: &[u8; BLOCK_BYTES]) -> __m128i {
    // SAFETY: the reference covers the 16 bytes that are read; MOVDQU takes any alignment.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

#[inline(always)]
fn store(block: __m128i, bytes: &mut [u8; BLOCK_BYTES]) {
    // SAFETY: the reference covers the 16 bytes that are written and is exclusive; MOVDQU takes any alignment.
    unsafe { _mm_storeu_si128(bytes.as_mut_ptr().cast(), block) }
}

#[inline]
#[target_feature(enable = "sse2")]
fn store_line(blocks: &Blocks, line: &mut [u8; LINE_BYTES]) {
    let (chunks, _) = line.as_chunks_mut::<BLOCK_BYTES>();
    for (block, chunk) in blocks.iter().zip(chunks) {
        store(*block, chunk);
    }
}

/// T_(j+1) = T_j * alpha in GF(2^128).
#[inline]
#[target_feature(enable = "sse2")]
fn times_alpha(tweak: __m128i) -> __m128i {
    // The sign of every dword spread over it, then the signs moved to where they carry: bit 127 to dword 0, where it is
    // reduced, and bit 63 to dword 2, whose low bit it becomes.
    let signs = _mm_shuffle_epi32::<0b00_01_00_11>(_mm_srai_epi32::<31>(tweak));
    let carries = _mm_and_si128(signs, _mm_set_epi32(0, 1, 0, REDUCTION as i32));
    _mm_xor_si128(_mm_add_epi64(tweak, tweak), carries)
}

/// E_K2 of data-unit numbers: the first tweaks of their lines.
#[inline]
#[target_feature(enable = "aes")]
pub(crate) fn first_tweaks<const L: usize, const N: usize>(keys: &[__m128i; N], duns: [u64; L]) -> [__m128i; L] {
    let mut state = [_mm_setzero_si128(); L];
    for (block, dun) in state.iter_mut().zip(duns) {
        *block = _mm_xor_si128(_mm_cvtsi64_si128(dun.cast_signed()), keys[0]);
    }
    for key in &keys[1..N - 1] {
        for block in &mut state {
            *block = _mm_aesenc_si128(*block, *key);
        }
    }
    for block in &mut state {
        *block = _mm_aesenclast_si128(*block, keys[N - 1]);
    }
    state
}

/// [`first_tweaks`] with a key for each line.
#[inline]
#[target_feature(enable = "aes")]
pub(crate) fn first_tweaks_of<const L: usize, const N: usize>(
    keys: [&[__m128i; N]; L],
    duns: [u64; L],
) -> [__m128i; L] {
    let mut state = [_mm_setzero_si128(); L];
    for slot in 0..L {
        state[slot] = _mm_xor_si128(_mm_cvtsi64_si128(duns[slot].cast_signed()), keys[slot][0]);
    }
    for n in 1..N - 1 {
        for (block, keys) in state.iter_mut().zip(keys) {
            *block = _mm_aesenc_si128(*block, keys[n]);
        }
    }
    for (block, keys) in state.iter_mut().zip(keys) {
        *block = _mm_aesenclast_si128(*block, keys[N - 1]);
    }
    state
}

/// `L` lines abreast, from their first tweaks.
#[inline]
#[target_feature(enable = "aes")]
fn crypt<D: Direction, const L: usize, const N: usize>(
    keys: &[__m128i; N],
    first: [__m128i; L],
    source: [&[u8; LINE_BYTES]; L],
) -> [Blocks; L] {
    let mut tweaks = [[_mm_setzero_si128(); BLOCKS_PER_LINE]; L];
    for (tweaks, first) in tweaks.iter_mut().zip(first) {
        let mut tweak = first;
        for slot in tweaks {
            *slot = tweak;
            tweak = times_alpha(tweak);
        }
    }
    let mut state = tweaks;
    for (blocks, source) in state.iter_mut().zip(source) {
        let (chunks, _) = source.as_chunks::<BLOCK_BYTES>();
        for (block, chunk) in blocks.iter_mut().zip(chunks) {
            // The round key first: it does not have to wait for the tweak.
            *block = _mm_xor_si128(_mm_xor_si128(load(chunk), keys[0]), *block);
        }
    }
    for key in &keys[1..N - 1] {
        for block in state.as_flattened_mut() {
            *block = if D::DECRYPTS { _mm_aesdec_si128(*block, *key) } else { _mm_aesenc_si128(*block, *key) };
        }
    }
    for (block, tweak) in state.as_flattened_mut().iter_mut().zip(tweaks.as_flattened()) {
        // The last round ends in the XOR with its key, so the tweak can ride on the key.
        let key = _mm_xor_si128(keys[N - 1], *tweak);
        *block = if D::DECRYPTS { _mm_aesdeclast_si128(*block, key) } else { _mm_aesenclast_si128(*block, key) };
    }
    state
}

#[target_feature(enable = "aes")]
fn line<D: Direction, const N: usize>(
    keys: &Schedules<N>,
    dun: u64,
    source: &[u8; LINE_BYTES],
    target: &mut [u8; LINE_BYTES],
) {
    let first = first_tweaks(&keys.tweak, [dun]);
    let [blocks] = crypt::<D, 1, N>(keys.data::<D>(), first, [source]);
    store_line(&blocks, target);
}

#[target_feature(enable = "aes")]
fn run<D: Direction, const N: usize>(keys: &Schedules<N>, run: &mut impl LineRun<D>) {
    let data = keys.data::<D>();
    let lines = run.len();
    for group in (0..lines).step_by(TWEAK_GROUP) {
        let count = TWEAK_GROUP.min(lines - group);
        let mut duns = [0; TWEAK_GROUP];
        for (slot, dun) in duns[..count].iter_mut().enumerate() {
            *dun = run.dun(group + slot);
        }
        let first = first_tweaks(&keys.tweak, duns);
        let (pairs, rest) = first[..count].as_chunks::<PAIR>();
        let mut index = group;
        for pair in pairs {
            let source = [D::bytes(run.source(index)), D::bytes(run.source(index + 1))];
            let [even, odd] = crypt::<D, PAIR, N>(data, *pair, source);
            store_line(&even, D::bytes_mut(run.target(index)));
            store_line(&odd, D::bytes_mut(run.target(index + 1)));
            index += PAIR;
        }
        if let [last] = rest {
            let [blocks] = crypt::<D, 1, N>(data, [*last], [D::bytes(run.source(index))]);
            store_line(&blocks, D::bytes_mut(run.target(index)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key_bytes(key: __m128i) -> [u8; BLOCK_BYTES] {
        let mut bytes = [0; BLOCK_BYTES];
        store(key, &mut bytes);
        bytes
    }

    /// FIPS 197, appendices A.1 and A.3: the last round key of the expansion examples.
    #[test]
    fn key_expansion_ends_as_in_fips_197() {
        let key_128 = 0x2b7e1516_28aed2a6_abf71588_09cf4f3c_u128.to_be_bytes();
        let key_256 = [0x603deb10_15ca71be_2b73aef0_857d7781_u128, 0x1f352c07_3b6108d7_2d9810a3_0914dff4]
            .map(u128::to_be_bytes)
            .concat();
        let Some(short) = Schedules::<ROUND_KEYS_128>::new(&key_128, &key_128) else { return };
        let Some(long) = Schedules::<ROUND_KEYS_256>::new(&key_256, &key_256) else { return };
        assert_eq!(key_bytes(short.encrypt[10]), 0xd014f9a8_c9ee2589_e13f0cc8_b6630ca6_u128.to_be_bytes());
        assert_eq!(key_bytes(long.encrypt[14]), 0xfe4890d1_e6188d0b_046df344_706c631e_u128.to_be_bytes());
        assert_eq!(key_bytes(long.decrypt[0]), key_bytes(long.encrypt[14]));
    }

    #[test]
    fn alpha_carries_into_the_upper_half_and_is_reduced_at_the_top() {
        for tweak in [1_u128, 1 << 63, 1 << 127, u128::MAX, 0x8000_0000_8000_0000_8000_0000_8000_0000] {
            // SAFETY: every x86-64 processor has SSE2.
            let product = unsafe { times_alpha(load(&tweak.to_le_bytes())) };
            assert_eq!(u128::from_le_bytes(key_bytes(product)), crate::tweak::times_alpha(tweak), "{tweak:#x}");
        }
    }
}
