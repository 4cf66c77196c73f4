//! What follows from the construction (section 6.3 of the hardware specification), on random keys, lines and addresses.

use crypto::{Algorithm, Backend, CipherLine, PlainLine, XtsKey};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const BOTH: [Algorithm; 2] = [Algorithm::AesXts128, Algorithm::AesXts256];

struct Case {
    rng: ChaCha8Rng,
    key: XtsKey,
    dun: u64,
    plain: PlainLine,
    cipher: CipherLine,
}

fn random_key(rng: &mut ChaCha8Rng, backend: Backend, alg: Algorithm) -> XtsKey {
    let mut keys = [0; 64];
    rng.fill_bytes(&mut keys);
    XtsKey::with_backend(backend, alg, &keys[..32], &keys[32..])
}

/// Runs a property on 100 random lines per backend and algorithm.
fn for_random_lines(property: impl Fn(Case)) {
    for (backend, alg) in Backend::available().flat_map(|backend| BOTH.map(|alg| (backend, alg))) {
        for seed in 0..100 {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let key = random_key(&mut rng, backend, alg);
            // Physical addresses have at most 52 bits, line numbers therefore 46.
            let dun = rng.random_range(0..1 << 46);
            let mut plain = PlainLine::ZERO;
            rng.fill_bytes(&mut plain.0);
            let cipher = key.encrypt_line(dun, &plain);
            property(Case { rng, key, dun, plain, cipher });
        }
    }
}

/// Which of the four blocks differ.
fn differing_blocks(a: &[u8; 64], b: &[u8; 64]) -> Vec<usize> {
    let blocks = a.chunks(16).zip(b.chunks(16)).enumerate();
    blocks.filter_map(|(index, (a, b))| (a != b).then_some(index)).collect()
}

#[test]
fn decryption_inverts_encryption() {
    for_random_lines(|c| assert_eq!(c.key.decrypt_line(c.dun, &c.cipher), c.plain));
}

#[test]
fn encryption_is_deterministic() {
    for_random_lines(|c| assert_eq!(c.key.clone().encrypt_line(c.dun, &c.plain), c.cipher));
}

#[test]
fn a_changed_plaintext_byte_changes_exactly_its_ciphertext_block() {
    for_random_lines(|mut c| {
        let at = c.rng.random_range(0..64);
        c.plain.0[at] ^= c.rng.random_range(1..=255);
        let changed = c.key.encrypt_line(c.dun, &c.plain);
        assert_eq!(differing_blocks(&changed.0, &c.cipher.0), [at / 16]);
    });
}

#[test]
fn a_flipped_ciphertext_bit_randomises_exactly_its_block() {
    for_random_lines(|mut c| {
        let bit = c.rng.random_range(0..512);
        c.cipher.0[bit / 8] ^= 1 << (bit % 8);
        let garbled = c.key.decrypt_line(c.dun, &c.cipher);
        let block = bit / 128;
        assert_eq!(differing_blocks(&garbled.0, &c.plain.0), [block]);
        let pairs = garbled.0.iter().zip(&c.plain.0).skip(block * 16).take(16);
        let flipped: u32 = pairs.map(|(a, b)| (a ^ b).count_ones()).sum();
        // Half of 128 bits, give or take; far from the one bit that a stream cipher would let through.
        assert!((30..=98).contains(&flipped), "{flipped} of 128 bits flipped");
    });
}

#[test]
fn a_line_at_another_address_is_garbage_in_all_blocks() {
    for_random_lines(|c| {
        for elsewhere in [c.dun ^ 1, c.dun + 1, c.dun ^ (1 << 45), c.dun ^ (1 << 32)] {
            let moved = c.key.decrypt_line(elsewhere, &c.cipher);
            assert_eq!(differing_blocks(&moved.0, &c.plain.0), [0, 1, 2, 3]);
        }
    });
}

#[test]
fn swapped_blocks_are_garbage_and_leave_the_others_intact() {
    for_random_lines(|mut c| {
        let (first, rest) = c.cipher.0.split_at_mut(16);
        first.swap_with_slice(&mut rest[..16]);
        let swapped = c.key.decrypt_line(c.dun, &c.cipher);
        assert_eq!(differing_blocks(&swapped.0, &c.plain.0), [0, 1]);
        assert_ne!(swapped.0[..16], c.plain.0[16..32]);
        assert_ne!(swapped.0[16..32], c.plain.0[..16]);
    });
}

#[test]
fn an_old_ciphertext_put_back_reads_as_the_old_plaintext() {
    for_random_lines(|c| {
        let newer = c.key.encrypt_line(c.dun, &PlainLine([0x5a; 64]));
        assert_ne!(newer, c.cipher);
        assert_eq!(c.key.decrypt_line(c.dun, &c.cipher), c.plain);
    });
}

#[test]
fn another_key_gives_unrelated_ciphertext() {
    for_random_lines(|mut c| {
        let other = random_key(&mut c.rng, c.key.backend(), c.key.algorithm());
        assert_eq!(differing_blocks(&other.encrypt_line(c.dun, &c.plain).0, &c.cipher.0), [0, 1, 2, 3]);
    });
}

#[test]
fn both_keys_of_the_pair_matter() {
    for alg in BOTH {
        let (a, b) = ([1; 32], [2; 32]);
        let cipher = XtsKey::new(alg, &a, &b).encrypt_line(7, &PlainLine::ZERO);
        for other in [XtsKey::new(alg, &b, &b), XtsKey::new(alg, &a, &a)] {
            assert_eq!(differing_blocks(&other.encrypt_line(7, &PlainLine::ZERO).0, &cipher.0), [0, 1, 2, 3]);
        }
    }
}

#[test]
fn key_bytes_beyond_the_key_length_are_ignored() {
    for alg in BOTH {
        let used = alg.key_bytes();
        let (mut k1, mut k2) = ([3; 64], [4; 64]);
        let key = XtsKey::new(alg, &k1, &k2);
        k1[used..].fill(0xff);
        k2[used..].fill(0xff);
        let same = XtsKey::new(alg, &k1, &k2);
        assert_eq!(key.encrypt_line(1, &PlainLine::ZERO), same.encrypt_line(1, &PlainLine::ZERO));
    }
}

#[test]
fn algorithms_have_the_numbers_of_the_capability_register() {
    assert_eq!(
        [0, 1, 2, 3, 4, u32::MAX].map(Algorithm::from_number),
        [Some(Algorithm::AesXts128), None, Some(Algorithm::AesXts256), None, None, None]
    );
    for alg in BOTH {
        assert_eq!(Algorithm::from_number(alg.number()), Some(alg));
    }
}

#[test]
fn debug_output_shows_lines_in_hexadecimal_and_keys_not_at_all() {
    let mut line = [0; 64];
    line[16] = 0xab;
    let zeros = "0".repeat(32);
    assert_eq!(format!("{:?}", PlainLine(line)), format!("PlainLine({zeros} ab{} {zeros} {zeros})", &zeros[2..]));
    assert!(format!("{:?}", CipherLine(line)).starts_with("CipherLine(00"));
    let key = XtsKey::new(Algorithm::AesXts128, &[0x77; 16], &[0x77; 16]);
    assert_eq!(format!("{key:?}"), "XtsKey { algorithm: AesXts128, .. }");
}

#[test]
fn the_portable_backend_is_on_every_host_and_the_default_is_the_last_available() {
    assert!(Backend::Portable.is_available());
    let key = XtsKey::new(Algorithm::AesXts128, &[0; 16], &[0; 16]);
    assert_eq!(Some(key.backend()), Backend::available().last());
}

#[test]
fn the_first_tweak_is_the_data_unit_number_under_k2_on_every_backend() {
    use aes::cipher::{BlockCipherEncrypt, KeyInit};
    let (k1, k2): ([u8; 32], [u8; 32]) = (std::array::from_fn(|i| i as u8), std::array::from_fn(|i| 0x80 + i as u8));
    for dun in [0, 1, 0x1234_5678_9ABC, u64::MAX] {
        let mut short: aes::Block = u128::from(dun).to_le_bytes().into();
        let mut long = short;
        aes::Aes128::new_from_slice(&k2[..16]).unwrap().encrypt_block(&mut short);
        aes::Aes256::new_from_slice(&k2).unwrap().encrypt_block(&mut long);
        for backend in Backend::available() {
            let of = |algorithm| XtsKey::with_backend(backend, algorithm, &k1, &k2).first_tweak(dun);
            assert_eq!(of(Algorithm::AesXts128), <[u8; 16]>::from(short), "{backend:?}");
            assert_eq!(of(Algorithm::AesXts256), <[u8; 16]>::from(long), "{backend:?}");
        }
    }
}
