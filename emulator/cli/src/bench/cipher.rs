//! The implementations under test, behind one interface: XTS on 64-byte lines under one of several keys.

use aes::cipher::consts::U16;
use aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, BlockSizeUser, KeyInit};
use crypto::{Algorithm, Backend, CipherLine, PlainLine, Request, XtsKey, decrypt_batch, encrypt_batch};
use xts_mode::{Xts128, get_tweak_default};

/// What `xts-mode` is made over.
pub trait BlockCipher: BlockCipherEncrypt + BlockCipherDecrypt + BlockSizeUser<BlockSize = U16> {}
impl<C: BlockCipherEncrypt + BlockCipherDecrypt + BlockSizeUser<BlockSize = U16>> BlockCipher for C {}

/// Keys of an implementation: what a processor with six KeyID bits has.
pub const KEYS: usize = 64;
/// Lines in a batch with mixed keys: a write-back queue, or a page.
pub const BATCH: usize = 64;

/// An implementation with [`KEYS`] keys. Methods work on lines that they are given, in host memory; `dun` is the
/// data-unit number.
pub trait Cipher {
    fn encrypt_line(&mut self, key: usize, dun: u64, plain: &PlainLine, cipher: &mut CipherLine);
    fn decrypt_line(&mut self, key: usize, dun: u64, cipher: &CipherLine, plain: &mut PlainLine);

    /// Lines that lie next to each other.
    fn encrypt_lines(&mut self, key: usize, first: u64, plain: &[PlainLine], cipher: &mut [CipherLine]) {
        for (dun, (plain, cipher)) in (first..).zip(plain.iter().zip(cipher)) {
            self.encrypt_line(key, dun, plain, cipher);
        }
    }

    /// Lines that lie next to each other.
    fn decrypt_lines(&mut self, key: usize, first: u64, cipher: &[CipherLine], plain: &mut [PlainLine]) {
        for (dun, (cipher, plain)) in (first..).zip(cipher.iter().zip(plain)) {
            self.decrypt_line(key, dun, cipher, plain);
        }
    }

    /// At most [`BATCH`] lines, each with a key of its own.
    fn encrypt_mixed(&mut self, first: u64, plain: &[PlainLine], cipher: &mut [CipherLine]) {
        for (dun, (plain, cipher)) in (first..).zip(plain.iter().zip(cipher)) {
            self.encrypt_line(mixed_key(dun), dun, plain, cipher);
        }
    }

    /// At most [`BATCH`] lines, each with a key of its own.
    fn decrypt_mixed(&mut self, first: u64, cipher: &[CipherLine], plain: &mut [PlainLine]) {
        for (dun, (cipher, plain)) in (first..).zip(cipher.iter().zip(plain)) {
            self.decrypt_line(mixed_key(dun), dun, cipher, plain);
        }
    }
}

/// The key of a line in a batch with mixed keys: never that of its neighbours.
fn mixed_key(dun: u64) -> usize {
    dun as usize * 29 % KEYS
}

/// K1 and K2 of a key, 32 bytes each; AES-128 uses the first half.
fn key_bytes(key: usize) -> [[u8; 32]; 2] {
    [0x11, 0x8D].map(|salt| std::array::from_fn(|byte| (key * 37 + byte * 11) as u8 ^ salt))
}

/// The `crypto` crate on one of its backends.
pub struct OwnCipher(Vec<XtsKey>);

impl OwnCipher {
    pub fn new(backend: Backend, algorithm: Algorithm) -> OwnCipher {
        let key = |key| {
            let [k1, k2] = key_bytes(key);
            XtsKey::with_backend(backend, algorithm, &k1, &k2)
        };
        OwnCipher((0..KEYS).map(key).collect())
    }
}

impl Cipher for OwnCipher {
    #[inline(always)]
    fn encrypt_line(&mut self, key: usize, dun: u64, plain: &PlainLine, cipher: &mut CipherLine) {
        self.0[key].encrypt_line_into(dun, plain, cipher);
    }

    #[inline(always)]
    fn decrypt_line(&mut self, key: usize, dun: u64, cipher: &CipherLine, plain: &mut PlainLine) {
        self.0[key].decrypt_line_into(dun, cipher, plain);
    }

    fn encrypt_lines(&mut self, key: usize, first: u64, plain: &[PlainLine], cipher: &mut [CipherLine]) {
        self.0[key].encrypt_lines(first, plain, cipher);
    }

    fn decrypt_lines(&mut self, key: usize, first: u64, cipher: &[CipherLine], plain: &mut [PlainLine]) {
        self.0[key].decrypt_lines(first, cipher, plain);
    }

    fn encrypt_mixed(&mut self, first: u64, plain: &[PlainLine], cipher: &mut [CipherLine]) {
        with_requests(&self.0, first, plain, cipher, encrypt_batch);
    }

    fn decrypt_mixed(&mut self, first: u64, cipher: &[CipherLine], plain: &mut [PlainLine]) {
        with_requests(&self.0, first, cipher, plain, decrypt_batch);
    }
}

/// Calls `batch` with a request for each line; those of a whole batch are made on the stack.
fn with_requests<S, T>(
    keys: &[XtsKey],
    first: u64,
    source: &[S],
    target: &mut [T],
    batch: impl FnOnce(&mut [Request<'_, S, T>]),
) {
    let mut lines = (first..).zip(source.iter().zip(target));
    if source.len() == BATCH {
        let mut requests: [Request<'_, S, T>; BATCH] = std::array::from_fn(|_| {
            let (dun, (source, target)) = lines.next().expect("as many lines as were counted");
            Request { key: &keys[mixed_key(dun)], dun, source, target }
        });
        return batch(&mut requests);
    }
    let requests = lines.map(|(dun, (source, target))| Request { key: &keys[mixed_key(dun)], dun, source, target });
    batch(&mut requests.collect::<Vec<_>>());
}

/// The `xts-mode` crate over the `aes` crate.
///
/// It works in place. A user with two buffers has to copy, and the copy more than doubles the time, because what the
/// crate reads then waits for what the copy wrote; so what is timed is the crate at its best, without.
pub struct XtsMode<C>
where
    C: BlockCipher,
{
    keys: Vec<Xts128<C>>,
    copy: bool,
}

impl<C: BlockCipher + KeyInit> XtsMode<C> {
    /// `copy` false: what is encrypted is whatever the target holds.
    pub fn new(algorithm: Algorithm, copy: bool) -> XtsMode<C> {
        let expand = |bytes: [u8; 32]| {
            C::new_from_slice(&bytes[..algorithm.key_bytes()]).expect("the cipher is that of the algorithm")
        };
        let key = |key| {
            let [k1, k2] = key_bytes(key).map(expand);
            Xts128::new(k1, k2)
        };
        XtsMode { keys: (0..KEYS).map(key).collect(), copy }
    }
}

impl<C: BlockCipher> Cipher for XtsMode<C> {
    #[inline(always)]
    fn encrypt_line(&mut self, key: usize, dun: u64, plain: &PlainLine, cipher: &mut CipherLine) {
        if self.copy {
            cipher.0 = plain.0;
        }
        self.keys[key].encrypt_sector(&mut cipher.0, get_tweak_default(u128::from(dun)));
    }

    #[inline(always)]
    fn decrypt_line(&mut self, key: usize, dun: u64, cipher: &CipherLine, plain: &mut PlainLine) {
        if self.copy {
            plain.0 = cipher.0;
        }
        self.keys[key].decrypt_sector(&mut plain.0, get_tweak_default(u128::from(dun)));
    }
}

/// OpenSSL through EVP: a context for each key and direction, the tweak set anew for each line.
#[cfg(feature = "openssl")]
pub struct OpenSsl(Vec<[openssl::cipher_ctx::CipherCtx; 2]>);

#[cfg(feature = "openssl")]
impl OpenSsl {
    /// What the library says when it lacks the cipher.
    pub fn new(algorithm: Algorithm) -> Result<OpenSsl, openssl::error::ErrorStack> {
        use openssl::cipher::Cipher;
        use openssl::cipher_ctx::CipherCtx;
        let cipher = match algorithm {
            Algorithm::AesXts128 => Cipher::aes_128_xts(),
            Algorithm::AesXts256 => Cipher::aes_256_xts(),
        };
        let contexts = |key| {
            let both = key_bytes(key).map(|k| k[..algorithm.key_bytes()].to_vec()).concat();
            let (mut encrypt, mut decrypt) = (CipherCtx::new()?, CipherCtx::new()?);
            encrypt.encrypt_init(Some(cipher), Some(&both), None)?;
            decrypt.decrypt_init(Some(cipher), Some(&both), None)?;
            Ok([encrypt, decrypt])
        };
        (0..KEYS).map(contexts).collect::<Result<_, _>>().map(OpenSsl)
    }
}

#[cfg(feature = "openssl")]
impl Cipher for OpenSsl {
    fn encrypt_line(&mut self, key: usize, dun: u64, plain: &PlainLine, cipher: &mut CipherLine) {
        let [context, _] = &mut self.0[key];
        let tweak = u128::from(dun).to_le_bytes();
        let done = context
            .encrypt_init(None, None, Some(&tweak))
            .and_then(|()| context.cipher_update(&plain.0, Some(&mut cipher.0)));
        done.expect("OpenSSL encrypts a line under a key that it accepted");
    }

    fn decrypt_line(&mut self, key: usize, dun: u64, cipher: &CipherLine, plain: &mut PlainLine) {
        let [_, context] = &mut self.0[key];
        let tweak = u128::from(dun).to_le_bytes();
        let done = context
            .decrypt_init(None, None, Some(&tweak))
            .and_then(|()| context.cipher_update(&cipher.0, Some(&mut plain.0)));
        done.expect("OpenSSL decrypts a line under a key that it accepted");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aes::{Aes128, Aes256};

    fn assert_equal(mut one: impl Cipher, mut other: impl Cipher) {
        let plain: [PlainLine; 5] = std::array::from_fn(|i| PlainLine([i as u8 + 1; 64]));
        let (mut a, mut b) = ([CipherLine::ZERO; 5], [CipherLine::ZERO; 5]);
        one.encrypt_lines(3, 1000, &plain, &mut a);
        other.encrypt_lines(3, 1000, &plain, &mut b);
        assert_eq!(a, b);
        one.encrypt_mixed(77, &plain, &mut a);
        other.encrypt_mixed(77, &plain, &mut b);
        assert_eq!(a, b);
        let mut back = [PlainLine::ZERO; 5];
        one.decrypt_mixed(77, &a, &mut back);
        assert_eq!(back, plain);
        back = [PlainLine::ZERO; 5];
        other.decrypt_mixed(77, &a, &mut back);
        assert_eq!(back, plain);
    }

    #[test]
    fn what_is_compared_computes_the_same() {
        for backend in Backend::available() {
            assert_equal(
                OwnCipher::new(backend, Algorithm::AesXts128),
                XtsMode::<Aes128>::new(Algorithm::AesXts128, true),
            );
            assert_equal(
                OwnCipher::new(backend, Algorithm::AesXts256),
                XtsMode::<Aes256>::new(Algorithm::AesXts256, true),
            );
        }
    }

    #[cfg(feature = "openssl")]
    #[test]
    fn openssl_computes_the_same() {
        for algorithm in [Algorithm::AesXts128, Algorithm::AesXts256] {
            assert_equal(OwnCipher::new(Backend::Portable, algorithm), OpenSsl::new(algorithm).unwrap());
        }
    }
}
