//! Equality with the `xts-mode` crate, an independent implementation, for every entry point and batch shape, on every
//! backend of the host.

use aes::cipher::KeyInit;
use aes::{Aes128, Aes256};
use crypto::{Algorithm, Backend, CipherLine, LINE_BYTES, PlainLine, Request, XtsKey, decrypt_batch, encrypt_batch};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use xts_mode::{Xts128, get_tweak_default};

const BOTH: [Algorithm; 2] = [Algorithm::AesXts128, Algorithm::AesXts256];

/// One line, both sides of the tweak passes' 8 and 64, and sizes that end within a run or between pairs.
const LENGTHS: [usize; 12] = [0, 1, 2, 3, 4, 7, 9, 16, 63, 64, 65, 200];

struct Keys {
    alg: Algorithm,
    k1: [u8; 32],
    k2: [u8; 32],
}

impl Keys {
    fn random(rng: &mut ChaCha8Rng, alg: Algorithm) -> Self {
        let (mut k1, mut k2) = ([0; 32], [0; 32]);
        rng.fill_bytes(&mut k1);
        rng.fill_bytes(&mut k2);
        Self { alg, k1, k2 }
    }

    fn expand(&self, backend: Backend) -> XtsKey {
        XtsKey::with_backend(backend, self.alg, &self.k1, &self.k2)
    }

    /// The reference encryption of one line.
    fn reference(&self, dun: u64, plain: &PlainLine) -> CipherLine {
        let mut bytes = plain.0;
        let tweak = get_tweak_default(u128::from(dun));
        let used = self.alg.key_bytes();
        let (k1, k2) = (&self.k1[..used], &self.k2[..used]);
        match self.alg {
            Algorithm::AesXts128 => {
                let [data, tweak_cipher] = [k1, k2].map(|k| Aes128::new_from_slice(k).unwrap());
                Xts128::new(data, tweak_cipher).encrypt_sector(&mut bytes, tweak);
            }
            Algorithm::AesXts256 => {
                let [data, tweak_cipher] = [k1, k2].map(|k| Aes256::new_from_slice(k).unwrap());
                Xts128::new(data, tweak_cipher).encrypt_sector(&mut bytes, tweak);
            }
        }
        CipherLine(bytes)
    }
}

/// Every algorithm on every backend of the host.
fn for_each(test: impl Fn(Algorithm, Backend)) {
    for backend in Backend::available() {
        BOTH.into_iter().for_each(|alg| test(alg, backend));
    }
}

fn random_lines(rng: &mut ChaCha8Rng, count: usize) -> Vec<PlainLine> {
    let mut lines = vec![PlainLine::ZERO; count];
    lines.iter_mut().for_each(|line| rng.fill_bytes(&mut line.0));
    lines
}

/// First line numbers: anywhere in 52-bit physical memory, runs over 2^32 (K8's neighbourhood), and the wrap at 2^64.
fn first_dun(rng: &mut ChaCha8Rng, round: u64) -> u64 {
    match round % 4 {
        0 => 0xffff_fff0,
        1 => u64::MAX - 30,
        _ => rng.random_range(0..1 << 46),
    }
}

#[test]
fn contiguous_lines_equal_the_reference() {
    for_each(|alg, backend| {
        for round in 0..12 {
            let mut rng = ChaCha8Rng::seed_from_u64(round);
            let keys = Keys::random(&mut rng, alg);
            let key = keys.expand(backend);
            for length in LENGTHS {
                let first = first_dun(&mut rng, round);
                let plain = random_lines(&mut rng, length);
                let expected: Vec<_> =
                    plain.iter().zip(0..).map(|(line, i)| keys.reference(first.wrapping_add(i), line)).collect();

                let mut cipher = vec![CipherLine::ZERO; length];
                key.encrypt_lines(first, &plain, &mut cipher);
                assert_eq!(cipher, expected, "{alg:?}, {backend:?}, {length} lines at {first:#x}");

                let mut back = vec![PlainLine::ZERO; length];
                key.decrypt_lines(first, &cipher, &mut back);
                assert_eq!(back, plain, "{alg:?}, {backend:?}, {length} lines at {first:#x}");
            }
        }
    });
}

#[test]
fn every_backend_equals_the_portable_one_at_every_length_up_to_two_pages() {
    for_each(|alg, backend| {
        let mut rng = ChaCha8Rng::seed_from_u64(130);
        for length in 1..=130 {
            let keys = Keys::random(&mut rng, alg);
            let (portable, key) = (keys.expand(Backend::Portable), keys.expand(backend));
            let first = first_dun(&mut rng, length as u64);
            let plain = random_lines(&mut rng, length);
            let (mut expected, mut cipher) = (vec![CipherLine::ZERO; length], vec![CipherLine::ZERO; length]);
            portable.encrypt_lines(first, &plain, &mut expected);
            key.encrypt_lines(first, &plain, &mut cipher);
            assert_eq!(cipher, expected, "{alg:?}, {backend:?}, {length} lines at {first:#x}");
            let mut back = vec![PlainLine::ZERO; length];
            key.decrypt_lines(first, &cipher, &mut back);
            assert_eq!(back, plain, "{alg:?}, {backend:?}, {length} lines at {first:#x}");
        }
    });
}

#[test]
fn a_batch_that_changes_its_key_at_every_line_equals_single_lines() {
    for_each(|alg, backend| {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let keys: Vec<_> = (0..5).map(|_| Keys::random(&mut rng, alg).expand(backend)).collect();
        for length in 0..=20 {
            let plain = random_lines(&mut rng, length);
            let mut cipher = vec![CipherLine::ZERO; length];
            let mut requests: Vec<_> = plain
                .iter()
                .zip(&mut cipher)
                .zip(0..)
                .map(|((source, target), dun)| Request { key: &keys[dun as usize % 5], dun, source, target })
                .collect();
            encrypt_batch(&mut requests);
            for (dun, (plain, cipher)) in plain.iter().zip(&cipher).enumerate() {
                assert_eq!(keys[dun % 5].encrypt_line(dun as u64, plain), *cipher, "{backend:?}");
            }
            let mut back = vec![PlainLine::ZERO; length];
            let mut requests: Vec<_> = cipher
                .iter()
                .zip(&mut back)
                .zip(0..)
                .map(|((source, target), dun)| Request { key: &keys[dun as usize % 5], dun, source, target })
                .collect();
            decrypt_batch(&mut requests);
            assert_eq!(back, plain, "{backend:?}");
        }
    });
}

#[test]
fn single_lines_equal_the_reference() {
    for_each(|alg, backend| {
        let mut rng = ChaCha8Rng::seed_from_u64(64);
        for round in 0..200 {
            let keys = Keys::random(&mut rng, alg);
            let dun = first_dun(&mut rng, round);
            let plain = random_lines(&mut rng, 1)[0];
            let key = keys.expand(backend);
            assert_eq!(key.backend(), backend);
            let expected = keys.reference(dun, &plain);
            assert_eq!(key.encrypt_line(dun, &plain), expected, "{alg:?}, {backend:?}");
            assert_eq!(key.decrypt_line(dun, &expected), plain, "{alg:?}, {backend:?}");

            let (mut cipher, mut back) = (CipherLine([0xa5; LINE_BYTES]), PlainLine([0xa5; LINE_BYTES]));
            key.encrypt_line_into(dun, &plain, &mut cipher);
            key.decrypt_line_into(dun, &expected, &mut back);
            assert_eq!((cipher, back), (expected, plain), "{alg:?}, {backend:?}");
        }
    });
}

#[test]
fn scattered_lines_with_mixed_keys_equal_the_reference() {
    let backends: Vec<_> = Backend::available().collect();
    for round in 0..20 {
        let mut rng = ChaCha8Rng::seed_from_u64(1000 + round);
        let keys: Vec<_> = (0..6).map(|i| Keys::random(&mut rng, BOTH[i % 2])).collect();
        // Backends mix freely as well.
        let expanded: Vec<_> =
            keys.iter().map(|keys| keys.expand(backends[rng.random_range(0..backends.len())])).collect();
        for length in LENGTHS {
            let plain = random_lines(&mut rng, length);
            // Stretches under one key between lines that change it each time; the long ones exceed a run of 64.
            let long = rng.random_bool(0.5);
            let who: Vec<usize> =
                (0..length).map(|i| if long && i < 150 { 3 } else { rng.random_range(0..keys.len()) }).collect();
            let duns: Vec<u64> = (0..length).map(|_| rng.random_range(0..1 << 46)).collect();

            let mut cipher = vec![CipherLine::ZERO; length];
            let sources = plain.iter().zip(&who).zip(&duns);
            let mut requests: Vec<_> = sources
                .zip(&mut cipher)
                .map(|(((source, &who), &dun), target)| Request { key: &expanded[who], dun, source, target })
                .collect();
            encrypt_batch(&mut requests);
            for i in 0..length {
                assert_eq!(cipher[i], keys[who[i]].reference(duns[i], &plain[i]));
            }

            let mut back = vec![PlainLine::ZERO; length];
            let sources = cipher.iter().zip(&who).zip(&duns);
            let mut requests: Vec<_> = sources
                .zip(&mut back)
                .map(|(((source, &who), &dun), target)| Request { key: &expanded[who], dun, source, target })
                .collect();
            decrypt_batch(&mut requests);
            assert_eq!(back, plain);
        }
    }
}

#[test]
#[should_panic(expected = "as many lines")]
fn batches_of_unequal_length_are_refused() {
    let key = XtsKey::new(Algorithm::AesXts128, &[0; 16], &[0; 16]);
    key.encrypt_lines(0, &[PlainLine::ZERO; 2], &mut [CipherLine::ZERO; 3]);
}

#[test]
fn lines_are_64_bytes_on_64_byte_boundaries() {
    assert_eq!((size_of::<PlainLine>(), align_of::<PlainLine>()), (LINE_BYTES, 64));
    assert_eq!((size_of::<CipherLine>(), align_of::<CipherLine>()), (LINE_BYTES, 64));
}
