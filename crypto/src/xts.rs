//! A key pair and the cipher under it.

use std::fmt;

use aes::{Aes128, Aes128Enc, Aes256, Aes256Enc};

use crate::algorithm::Algorithm;
use crate::backend::Backend;
use crate::direction::{Decrypt, Direction, Encrypt};
use crate::line::{CipherLine, PlainLine};
use crate::portable::Schedules;
use crate::run::{LineRun, RUN_LINES};
use crate::tweak::BLOCK_BYTES;
#[cfg(target_arch = "x86_64")]
use crate::{aesni, vaes256, vaes512};

/// One entry's worth of key material: K1 (data) and K2 (tweak), expanded once, here, and never again.
///
/// Cloning copies the schedules; dropping overwrites them. `Debug` names the algorithm only.
#[derive(Clone)]
pub struct XtsKey(Keyed);

/// Inline rather than boxed: a lookup by KeyID then leads straight to the round keys.
#[derive(Clone)]
enum Keyed {
    Portable128(Schedules<Aes128, Aes128Enc>),
    Portable256(Schedules<Aes256, Aes256Enc>),
    #[cfg(target_arch = "x86_64")]
    AesNi128(aesni::Schedules<{ aesni::ROUND_KEYS_128 }>),
    #[cfg(target_arch = "x86_64")]
    AesNi256(aesni::Schedules<{ aesni::ROUND_KEYS_256 }>),
    #[cfg(target_arch = "x86_64")]
    Ymm128(vaes256::Schedules<{ aesni::ROUND_KEYS_128 }>),
    #[cfg(target_arch = "x86_64")]
    Ymm256(vaes256::Schedules<{ aesni::ROUND_KEYS_256 }>),
    #[cfg(target_arch = "x86_64")]
    Zmm128(vaes512::Schedules<{ aesni::ROUND_KEYS_128 }>),
    #[cfg(target_arch = "x86_64")]
    Zmm256(vaes512::Schedules<{ aesni::ROUND_KEYS_256 }>),
}

impl Keyed {
    /// `None` when the host cannot run the backend. The keys have the length of the algorithm.
    fn new(backend: Backend, alg: Algorithm, k1: &[u8], k2: &[u8]) -> Option<Self> {
        match (backend, alg) {
            (Backend::Portable, Algorithm::AesXts128) => Some(Self::Portable128(Schedules::new(k1, k2))),
            (Backend::Portable, Algorithm::AesXts256) => Some(Self::Portable256(Schedules::new(k1, k2))),
            #[cfg(target_arch = "x86_64")]
            (Backend::AesNi, Algorithm::AesXts128) => aesni::Schedules::new(k1, k2).map(Self::AesNi128),
            #[cfg(target_arch = "x86_64")]
            (Backend::AesNi, Algorithm::AesXts256) => aesni::Schedules::new(k1, k2).map(Self::AesNi256),
            #[cfg(target_arch = "x86_64")]
            (Backend::Vaes256, Algorithm::AesXts128) => vaes256::Schedules::new(k1, k2).map(Self::Ymm128),
            #[cfg(target_arch = "x86_64")]
            (Backend::Vaes256, Algorithm::AesXts256) => vaes256::Schedules::new(k1, k2).map(Self::Ymm256),
            #[cfg(target_arch = "x86_64")]
            (Backend::Vaes512, Algorithm::AesXts128) => vaes512::Schedules::new(k1, k2).map(Self::Zmm128),
            #[cfg(target_arch = "x86_64")]
            (Backend::Vaes512, Algorithm::AesXts256) => vaes512::Schedules::new(k1, k2).map(Self::Zmm256),
            #[cfg(not(target_arch = "x86_64"))]
            (Backend::AesNi | Backend::Vaes256 | Backend::Vaes512, _) => None,
        }
    }
}

/// Runs a method of the schedules, whichever they are.
macro_rules! with_schedules {
    ($key:expr, $schedules:ident => $call:expr) => {
        match &$key.0 {
            Keyed::Portable128($schedules) => $call,
            Keyed::Portable256($schedules) => $call,
            #[cfg(target_arch = "x86_64")]
            Keyed::AesNi128($schedules) => $call,
            #[cfg(target_arch = "x86_64")]
            Keyed::AesNi256($schedules) => $call,
            #[cfg(target_arch = "x86_64")]
            Keyed::Ymm128($schedules) => $call,
            #[cfg(target_arch = "x86_64")]
            Keyed::Ymm256($schedules) => $call,
            #[cfg(target_arch = "x86_64")]
            Keyed::Zmm128($schedules) => $call,
            #[cfg(target_arch = "x86_64")]
            Keyed::Zmm256($schedules) => $call,
        }
    };
}

/// Contiguous lines of one key.
struct Contiguous<'a, D: Direction> {
    first_dun: u64,
    source: &'a [D::Source],
    target: &'a mut [D::Target],
}

impl<D: Direction> LineRun<D> for Contiguous<'_, D> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.source.len()
    }

    #[inline(always)]
    fn dun(&self, index: usize) -> u64 {
        self.first_dun.wrapping_add(index as u64)
    }

    #[inline(always)]
    fn neighbours_from(&self) -> Option<u64> {
        Some(self.first_dun)
    }

    #[inline(always)]
    fn source(&self, index: usize) -> &D::Source {
        &self.source[index]
    }

    #[inline(always)]
    fn target(&mut self, index: usize) -> &mut D::Target {
        &mut self.target[index]
    }

    #[inline(always)]
    fn pair(&mut self, index: usize) -> (&D::Source, &mut D::Target) {
        (&self.source[index], &mut self.target[index])
    }
}

impl XtsKey {
    /// Expands a key pair. Each slice holds at least [`Algorithm::key_bytes`] bytes, byte 0 being byte 0 of the AES key
    /// (MC-21); more are ignored, as the upper bytes of a PCONFIG key field are.
    ///
    /// Every value is a key: K1 = K2 and all zeros included (MK-096).
    ///
    /// # Panics
    ///
    /// When a slice is shorter than the algorithm's key.
    pub fn new(alg: Algorithm, k1: &[u8], k2: &[u8]) -> Self {
        Self::with_backend(Backend::default_of_process(), alg, k1, k2)
    }

    /// [`XtsKey::new`] with a backend of the caller's choice, which stays with the key.
    ///
    /// # Panics
    ///
    /// When a slice is shorter than the algorithm's key, or the host lacks the backend ([`Backend::is_available`]).
    pub fn with_backend(backend: Backend, alg: Algorithm, k1: &[u8], k2: &[u8]) -> Self {
        let length = alg.key_bytes();
        let keyed = Keyed::new(backend, alg, &k1[..length], &k2[..length]);
        Self(keyed.unwrap_or_else(|| panic!("this host cannot run the {backend:?} backend")))
    }

    /// The code that the key's lines go through.
    pub fn backend(&self) -> Backend {
        match self.0 {
            Keyed::Portable128(_) | Keyed::Portable256(_) => Backend::Portable,
            #[cfg(target_arch = "x86_64")]
            Keyed::AesNi128(_) | Keyed::AesNi256(_) => Backend::AesNi,
            #[cfg(target_arch = "x86_64")]
            Keyed::Ymm128(_) | Keyed::Ymm256(_) => Backend::Vaes256,
            #[cfg(target_arch = "x86_64")]
            Keyed::Zmm128(_) | Keyed::Zmm256(_) => Backend::Vaes512,
        }
    }

    /// The algorithm the key is for.
    #[inline]
    pub fn algorithm(&self) -> Algorithm {
        match self.0 {
            Keyed::Portable128(_) => Algorithm::AesXts128,
            Keyed::Portable256(_) => Algorithm::AesXts256,
            #[cfg(target_arch = "x86_64")]
            Keyed::AesNi128(_) => Algorithm::AesXts128,
            #[cfg(target_arch = "x86_64")]
            Keyed::AesNi256(_) => Algorithm::AesXts256,
            #[cfg(target_arch = "x86_64")]
            Keyed::Ymm128(_) | Keyed::Zmm128(_) => Algorithm::AesXts128,
            #[cfg(target_arch = "x86_64")]
            Keyed::Ymm256(_) | Keyed::Zmm256(_) => Algorithm::AesXts256,
        }
    }

    /// Encrypts lines that lie next to each other, the first at data-unit number `first_dun` (= `Mem(pa) >> 6`).
    ///
    /// # Panics
    ///
    /// When `plain` and `cipher` differ in length.
    pub fn encrypt_lines(&self, first_dun: u64, plain: &[PlainLine], cipher: &mut [CipherLine]) {
        self.contiguous::<Encrypt>(first_dun, plain, cipher);
    }

    /// Decrypts lines that lie next to each other, the first at data-unit number `first_dun` (= `Mem(pa) >> 6`).
    ///
    /// # Panics
    ///
    /// When `cipher` and `plain` differ in length.
    pub fn decrypt_lines(&self, first_dun: u64, cipher: &[CipherLine], plain: &mut [PlainLine]) {
        self.contiguous::<Decrypt>(first_dun, cipher, plain);
    }

    /// Encrypts one line at data-unit number `dun`.
    #[inline]
    pub fn encrypt_line(&self, dun: u64, plain: &PlainLine) -> CipherLine {
        let mut cipher = CipherLine::ZERO;
        self.copied_line::<Encrypt>(dun, plain, &mut cipher);
        cipher
    }

    /// [`encrypt_line`](Self::encrypt_line) that writes the result where it belongs. Faster, by copies and by wider
    /// registers, unless the caller has just written `plain` or reads `cipher` at once: such accesses are narrower than
    /// a vector register and wait for its store, or it for theirs.
    #[inline]
    pub fn encrypt_line_into(&self, dun: u64, plain: &PlainLine, cipher: &mut CipherLine) {
        self.line::<Encrypt>(dun, plain, cipher);
    }

    /// Decrypts one line at data-unit number `dun`.
    #[inline]
    pub fn decrypt_line(&self, dun: u64, cipher: &CipherLine) -> PlainLine {
        let mut plain = PlainLine::ZERO;
        self.copied_line::<Decrypt>(dun, cipher, &mut plain);
        plain
    }

    /// [`decrypt_line`](Self::decrypt_line) that writes the result where it belongs; see
    /// [`encrypt_line_into`](Self::encrypt_line_into).
    #[inline]
    pub fn decrypt_line_into(&self, dun: u64, cipher: &CipherLine, plain: &mut PlainLine) {
        self.line::<Decrypt>(dun, cipher, plain);
    }

    /// The first tweak of a line, E_K2(`dun`): what a MAC of the line is bound to.
    pub fn first_tweak(&self, dun: u64) -> [u8; BLOCK_BYTES] {
        with_schedules!(self, schedules => schedules.narrow().first_tweak(dun))
    }

    fn contiguous<D: Direction>(&self, first_dun: u64, source: &[D::Source], target: &mut [D::Target]) {
        assert_eq!(source.len(), target.len(), "as many lines to write as to read");
        if let ([source], [target]) = (source, &mut *target) {
            return self.line::<D>(first_dun, source, target);
        }
        let mut first_dun = first_dun;
        for (source, target) in source.chunks(RUN_LINES).zip(target.chunks_mut(RUN_LINES)) {
            self.run::<D>(&mut Contiguous { first_dun, source, target });
            first_dun = first_dun.wrapping_add(RUN_LINES as u64);
        }
    }

    /// One line by itself: five blocks, no buffers.
    #[inline]
    pub(crate) fn line<D: Direction>(&self, dun: u64, source: &D::Source, target: &mut D::Target) {
        with_schedules!(self, schedules => schedules.line::<D>(dun, source, target));
    }

    /// [`line`](Self::line) for a line that is copied before or after. Copies are made in 16-byte pieces, and those hold
    /// up wider accesses of the same bytes for three times as long as wide registers save.
    #[inline]
    fn copied_line<D: Direction>(&self, dun: u64, source: &D::Source, target: &mut D::Target) {
        with_schedules!(self, schedules => schedules.narrow().line::<D>(dun, source, target));
    }

    /// At most [`RUN_LINES`] lines.
    pub(crate) fn run<D: Direction>(&self, run: &mut impl LineRun<D>) {
        with_schedules!(self, schedules => schedules.run(run));
    }
}

/// Lines that can go abreast although each has a key of its own.
pub(crate) const MIXED: usize = 4;
#[cfg(target_arch = "x86_64")]
const _: () = assert!(MIXED == vaes256::LINES_ABREAST && MIXED == vaes512::ABREAST);

/// A line under each of the keys. False, and nothing done, where no kernel has them go abreast.
pub(crate) fn mixed<D: Direction>(keys: [&XtsKey; MIXED], run: &mut impl LineRun<D>) -> bool {
    #[cfg(target_arch = "x86_64")]
    match keys.map(|key| &key.0) {
        [Keyed::Ymm128(a), Keyed::Ymm128(b), Keyed::Ymm128(c), Keyed::Ymm128(d)] => {
            vaes256::Schedules::mixed([a, b, c, d], run);
            return true;
        }
        [Keyed::Ymm256(a), Keyed::Ymm256(b), Keyed::Ymm256(c), Keyed::Ymm256(d)] => {
            vaes256::Schedules::mixed([a, b, c, d], run);
            return true;
        }
        [Keyed::Zmm128(a), Keyed::Zmm128(b), Keyed::Zmm128(c), Keyed::Zmm128(d)] => {
            vaes512::Schedules::mixed([a, b, c, d], run);
            return true;
        }
        [Keyed::Zmm256(a), Keyed::Zmm256(b), Keyed::Zmm256(c), Keyed::Zmm256(d)] => {
            vaes512::Schedules::mixed([a, b, c, d], run);
            return true;
        }
        _ => {}
    }
    false
}

impl fmt::Debug for XtsKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("XtsKey").field("algorithm", &self.algorithm()).finish_non_exhaustive()
    }
}
