//! Published vectors: those that fix the construction (K1-K12 and D1-D5 of the hardware specification, section 6.4), IEEE
//! Std 1619-2007 Annex B, and NIST's XTSGen response files (CAVS 11.0).
//!
//! Vectors with data units shorter or longer than a line apply as well. XTS without ciphertext stealing treats block j
//! alike whatever follows it, so whole-block data units of any length agree on their common prefix.
//!
//! Every vector runs on every backend of the host.

use crypto::{Algorithm, Backend, CipherLine, LINE_BYTES, PlainLine, XtsKey};

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u32> = hex.chars().filter_map(|c| c.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
}

/// A line that starts with the given bytes; the rest is zero.
fn line(prefix: &[u8]) -> [u8; LINE_BYTES] {
    let mut line = [0; LINE_BYTES];
    line[..prefix.len()].copy_from_slice(prefix);
    line
}

fn ramp() -> [u8; LINE_BYTES] {
    std::array::from_fn(|i| i as u8)
}

/// Runs a test with each backend of the host.
fn for_each_backend(test: impl Fn(Backend)) {
    Backend::available().for_each(test);
}

/// The keys of K3-K8: bytes 00..0f and 10..1f.
fn key_128(backend: Backend) -> XtsKey {
    let keys = ramp();
    XtsKey::with_backend(backend, Algorithm::AesXts128, &keys[..16], &keys[16..32])
}

/// The keys of K9-K12: bytes 00..1f and 40..5f.
fn key_256(backend: Backend) -> XtsKey {
    let k2: [u8; 32] = std::array::from_fn(|i| 0x40 + i as u8);
    XtsKey::with_backend(backend, Algorithm::AesXts256, &ramp()[..32], &k2)
}

/// Both directions, on the whole blocks that the vector gives.
fn check(name: &str, key: &XtsKey, dun: u64, plain: &[u8], cipher: &[u8]) {
    let name = format!("{name}, {:?}", key.backend());
    assert_eq!(plain.len(), cipher.len(), "{name}");
    let encrypted = key.encrypt_line(dun, &PlainLine(line(plain)));
    assert_eq!(encrypted.0[..cipher.len()], *cipher, "{name}: encryption");
    let decrypted = key.decrypt_line(dun, &CipherLine(line(cipher)));
    assert_eq!(decrypted.0[..plain.len()], *plain, "{name}: decryption");
}

fn line_number(pa: u64) -> u64 {
    pa >> 6
}

#[test]
fn k1_and_k2_generic_xts() {
    for_each_backend(|backend| {
        let zero = [0; 16];
        let key = XtsKey::with_backend(backend, Algorithm::AesXts128, &zero, &zero);
        check("K1", &key, 0, &[0; 32], &bytes("917cf69ebd68b2ec9b9fe9a3eadda692 cd43d2f59598ed858c02c2652fbf922e"));
        let key = XtsKey::with_backend(backend, Algorithm::AesXts128, &[0x11; 16], &[0x22; 16]);
        check(
            "K2",
            &key,
            0x33_3333_3333,
            &[0x44; 32],
            &bytes("c454185e6a16936e39334038acef838b fb186fff7480adc4289382ecd6d394f0"),
        );
    });
}

#[test]
fn k3_to_k8_xts_128_on_lines() {
    for_each_backend(|backend| {
        let (zeros, ramp) = ([0; LINE_BYTES], ramp());
        let vectors = [
            (
                "K3",
                0x0,
                zeros,
                "f071a2b402c105ea37024133e24d6ef6 212e8cc0175e1b6b32657d54f159daf6 b36d7a493e23d5a2191bf1ca62ffce54 41bf91ad4bd63b2c867e1f4ef7b06b12",
            ),
            (
                "K4",
                0x1000,
                zeros,
                "b05f5a80a4f2742e24473c0d38e582b1 e8785ea94b4e4d3f69cb1d26fd78fce5 a8f7de0dc809fa527377ebf265bb2e9c 24208fa7d6458badec00bc6f31734098",
            ),
            (
                "K5",
                0x1000,
                ramp,
                "18fb07510003216d637206d59889f0e1 160bf4eb41051537b48ac0167bf3f7db 7a72f3918b312d83a12efaf1b3cd1813 cc105bc23b2f6e8657067afc9d896cfd",
            ),
            (
                "K6",
                0x1040,
                ramp,
                "33e0f45555c7f4b0118205a7d01061c6 1fb59b210fca3d98c1b6792443ef586b 80f750a52d0dbd19bc571c853ea7e936 3a1759d408f7673bab91e4d45e7fc1c8",
            ),
            (
                "K7",
                0x123456780,
                ramp,
                "d018bc5f00d2239282ccf63acf017e3d c5765ad875bc6d8fe58d5a424ba6b77d 763c052b32f7bec7c2b426fb806fb783 8c58a28fc1f955ecb3aafee772ee1254",
            ),
            (
                "K8",
                0x3FFFFFFFC0,
                ramp,
                "f16e4ef917fdb22ad43ad7e1e4b191e1 68641335c25e985afebc8eb461303119 e61ce59ad633d76b3d2617126235ae75 c3a1cfdfac7c492c4905c7ab8fe84c77",
            ),
        ];
        for (name, pa, plain, cipher) in vectors {
            check(name, &key_128(backend), line_number(pa), &plain, &bytes(cipher));
        }
    });
}

#[test]
fn k9_to_k12_xts_256_on_lines() {
    for_each_backend(|backend| {
        let (zeros, ramp) = ([0; LINE_BYTES], ramp());
        let vectors = [
            (
                "K9",
                0x0,
                zeros,
                "af4a5953a8e5b1aaf7388c45f8ecee92 c98ec5cbc8501a7526df20cc31b1f2d1 1518cf8bb48dac07772102b2dbd9d3d2 de561c7c6f18f854f56169fb3ce0453f",
            ),
            (
                "K10",
                0x1000,
                ramp,
                "532330b6a82530b5eaf0d274b6505edd ad7b420c3766acfcd4557be76ba230c9 94bca7366f0ac6f2807ab953aba06a6a ecbd55ba809b328c85d584c502202b05",
            ),
            (
                "K11",
                0x1040,
                ramp,
                "9ce66f104c18edf899fc80b651733ef7 1b58d2395b5300086bdbfbbc9479e55d d3067ebec8b7a054b3d5c8c81db681b8 91277c21903370f6c803f6ad4e2fcf4b",
            ),
            (
                "K12",
                0x3FFFFFFFC0,
                ramp,
                "aef904e0a69c9d5e5e9ad26ff1a8bebc a558cae7bc8dc88f4221331e43a67968 2ca05ab8df36b5af8494a59c8d805059 e02fce53efba0e81aa04160bfb5c9361",
            ),
        ];
        for (name, pa, plain, cipher) in vectors {
            check(name, &key_256(backend), line_number(pa), &plain, &bytes(cipher));
        }
    });
}

/// The line that D1-D3 and D5 start from: K5's ciphertext.
fn k5(backend: Backend) -> CipherLine {
    key_128(backend).encrypt_line(line_number(0x1000), &PlainLine(ramp()))
}

#[test]
fn d1_one_flipped_ciphertext_bit_garbles_its_block_only() {
    for_each_backend(|backend| {
        let mut cipher = k5(backend);
        cipher.0[0x13] ^= 1;
        let plain = key_128(backend).decrypt_line(line_number(0x1000), &cipher);
        assert_eq!(plain.0[..0x10], ramp()[..0x10]);
        assert_eq!(plain.0[0x10..0x20], bytes("65c2bb7c140ae56a3950462aafd5be26"));
        assert_eq!(plain.0[0x20..], ramp()[0x20..]);
    });
}

#[test]
fn d2_a_line_moved_to_its_neighbour_decrypts_to_garbage() {
    for_each_backend(|backend| {
        let plain = key_128(backend).decrypt_line(line_number(0x1040), &k5(backend));
        assert_eq!(
            plain.0[..],
            bytes(
                "74faa949e011f6e4b8f06b93075da517 a0518c096059a9abefbce33251f2aeda 152f3b7baf99bc6b08f5220f2514f871 27de3635b23d34263b6914ee40772934"
            )
        );
    });
}

#[test]
fn d3_exchanged_keys_decrypt_to_garbage() {
    for_each_backend(|backend| {
        let keys = ramp();
        let exchanged = XtsKey::with_backend(backend, Algorithm::AesXts128, &keys[16..32], &keys[..16]);
        let plain = exchanged.decrypt_line(line_number(0x1000), &k5(backend));
        assert_eq!(
            plain.0[..],
            bytes(
                "ebc4ccea0f89049c9ae111133670159b b02140a748a062c396bbf00a29c1de6b d5f05de6596227c95693c4b4be1460c1 94149b244a4db83e608c6a28b3304a8a"
            )
        );
    });
}

#[test]
fn d4_zeroed_dram_does_not_read_as_zeros() {
    for_each_backend(|backend| {
        let plain = key_128(backend).decrypt_line(line_number(0x1000), &CipherLine::ZERO);
        assert_eq!(
            plain.0[..],
            bytes(
                "d03882a8565d63eadfa2d372edc59861 f292c7b64105036352eb16266e43a842 59450a9e49e0e6e58faf85527f11419b 01c114b4fab2f25a1c638864902cd63d"
            )
        );
    });
}

#[test]
fn d5_a_partial_write_through_the_wrong_key_garbles_one_block() {
    for_each_backend(|backend| {
        let dun = line_number(0x1000);
        let [k1, k2]: [[u8; 16]; 2] = [0x80, 0x90].map(|base| std::array::from_fn(|i| base + i as u8));
        let wrong = XtsKey::with_backend(backend, Algorithm::AesXts128, &k1, &k2);
        // An uncached one-byte store is a read-modify-write in the controller, both halves under the wrong key.
        let mut merged = wrong.decrypt_line(dun, &k5(backend));
        merged.0[5] = 0xee;
        let stored = wrong.encrypt_line(dun, &merged);

        let plain = key_128(backend).decrypt_line(dun, &stored);
        assert_eq!(plain.0[..0x10], bytes("1d6d1593e18cbb93d7e7298e357381de"));
        assert_eq!(plain.0[0x10..], ramp()[0x10..]);
    });
}

/// IEEE Std 1619-2007, Annex B. Vectors 4, 10, 11 and 12 have 512-byte data units; here are their first 64 bytes.
#[test]
fn ieee_1619_annex_b() {
    for_each_backend(|backend| {
        let ramp = ramp();
        let [e1, e2] = [
            "2718281828459045235360287471352662497757247093699959574966967627",
            "3141592653589793238462643383279502884197169399375105820974944592",
        ]
        .map(bytes);
        let (pi, e) = (bytes("31415926535897932384626433832795"), bytes("27182818284590452353602874713526"));
        let descending: [u8; 16] = std::array::from_fn(|i| 0xff - i as u8);

        let key = XtsKey::with_backend(backend, Algorithm::AesXts128, &descending, &[0x22; 16]);
        let cipher = "af85336b597afc1a900b2eb21ec949d292df4c047e0b21532186a5971a227a89";
        check("vector 3", &key, 0x33_3333_3333, &[0x44; 32], &bytes(cipher));

        let key = XtsKey::with_backend(backend, Algorithm::AesXts128, &e, &pi);
        let cipher = "27a7479befa1d476489f308cd4cfa6e2a96e4bbe3208ff25287dd3819616e89c\
                  c78cf7f5e543445f8333d8fa7f56000005279fa5d8b5e4ad40e736ddb4d35412";
        check("vector 4", &key, 0, &ramp, &bytes(cipher));

        let key = XtsKey::with_backend(backend, Algorithm::AesXts256, &e1, &e2);
        let cipher = "1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b\
                  5d31e276f8fe4a8d66b317f9ac683f44680a86ac35adfc3345befecb4bb188fd";
        check("vector 10", &key, 0xff, &ramp, &bytes(cipher));
        let cipher = "77a31251618a15e6b92d1d66dffe7b50b50bad552305ba0217a610688eff7e11\
                  e1d0225438e093242d6db274fde801d4cae06f2092c728b2478559df58e837c2";
        check("vector 11", &key, 0xffff, &ramp, &bytes(cipher));
        let cipher = "e387aaa58ba483afa7e8eb469778317ecf4cf573aa9d4eac23f2cdf914e4e200\
                  a8b490e42ee646802dc6ee2b471b278195d60918ececb44bf79966f83faba049";
        check("vector 12", &key, 0xff_ffff, &ramp, &bytes(cipher));
    });
}

/// NIST CAVP, XTSGenAES128.rsp, "data unit sequence number" form: section and COUNT name the case.
#[test]
fn nist_xtsgen_aes_128() {
    for_each_backend(|backend| {
        let vectors = [
            (
                "ENCRYPT 1",
                "a3e40d5bd4b6bbedb2d18c700ad2db2210c81190646d673cbca53f133eab373c",
                141,
                "20e0719405993f09a66ae5bb500e562c",
                "74623551210216ac926b9650b6d3fa52",
            ),
            (
                "ENCRYPT 150",
                "4eda8602a1de16dcb64a9e2a7635133aa7d4c3c5813d6a24cd3f87d7f93bc494",
                179,
                "9647697eddb21c81c3dcad3f78227f71129aac9ff65311dcdbbef79bdfafb5b2",
                "703b3d88fda02eea6ee9fa2167ede4d791a1586766167c0902e4a92bec57daf5",
            ),
            (
                "ENCRYPT 500",
                "16444b90c4266d8b0b464ad0963f5c605074c61d33e9becf6f31e277aeb02ee7",
                139,
                "a788b66ebb4b38a43e709be5b58e5baf7c0f814c2a0e78c297f4ac0ff902a880",
                "4d675587337e89bbd356e63da54970820a28f076c4bd1e30277f584a30a82081",
            ),
            (
                "DECRYPT 150",
                "5c3eae67826066e3b1018708132292e1f48d962334aabfead746af714ae06b67",
                129,
                "1bbad29c83f9d85c20d230f1c0a4c872d3d45d803231d2b24687c2dd62740044",
                "2eb5880ddb597aead5d86a913e051ced0768f7764c5868fabe6b8f653efe1d84",
            ),
            (
                "DECRYPT 450",
                "1199bc50b9b19ce351ab9c18750527aa914888b0653e3526b20696ba68818c49",
                160,
                "095d24edb27f0ad81fe3c48050e986ab8237d1ede5974621c2b68d443cfbce47",
                "3d1a65185bc4c58cc8c037c326ac6abfec589347766592ad48d3f8e759e5fb45",
            ),
        ];
        for (name, keys, dun, plain, cipher) in vectors {
            let keys = bytes(keys);
            let (k1, k2) = keys.split_at(keys.len() / 2);
            let key = XtsKey::with_backend(backend, Algorithm::AesXts128, k1, k2);
            check(name, &key, dun, &bytes(plain), &bytes(cipher));
        }
    });
}

/// NIST CAVP, XTSGenAES256.rsp, "data unit sequence number" form: section and COUNT name the case.
#[test]
fn nist_xtsgen_aes_256() {
    for_each_backend(|backend| {
        let vectors = [
            (
                "ENCRYPT 50",
                "8df05cd8a55cc24b2f8bb9d052d64d4746fbb7ad0b658f937baedff5e199c96f2a5934bf3ca1d0518920d8d12ea4415f69143339763cd6f430323c76fffbd713",
                123,
                "84daadb9c3be8ebff531c8cfe5d03e6cbf12068a0f97e19a5c16ea8a88859ecf",
                "6bb26ff31b43f611ecc267b9c40eea707c2e26993a4fbcb3633a37168957a76e",
            ),
            (
                "ENCRYPT 150",
                "e21a0a482bcb2843e143c2c7ee692dee4ec61057cece642966c49af8ba73fd1262ad8050e50214c3c97ebd27aab6cf8f873d223e666a77b999290b73972b2c9f",
                221,
                "ec039719514910c9a6fd392b0e83f4fd7c55d036cfb018cc55eb4e984c635a8da040ef6052805459ffb11a761cf5f3d9",
                "4a00a021d54fab13eae9293f4af2c2962daf75e71a7d4b145117d362e53facd93b77d736f8d03d3b852365308234aa90",
            ),
            (
                "ENCRYPT 200",
                "6e752123bd86dc5bed8819cf3981b88c77e1731a0565b6d293eb2d047d5d0b91db8768c4a6b1d593cee8fc01dfdba02f26c99d214365c1238907dc34509073e8",
                218,
                "444b7ce174e200071e4432d51ba4a44ce8d1d3e32d89febfe4756e19389719317b2eba7d40fea5b207d2cc1fd6b5674b",
                "8229e262076a27e5de17f7f61425a3bf24cba014598a82372ca0aded3611cdd86ec8b0eaa76d80e80e216730ba7d9b55",
            ),
            (
                "DECRYPT 150",
                "4e377b366928b51b5926abb2a7d663c9184b691b1f2137483f74fa0b0d2bd55d4f6f6e7640aa68849fd79f589970fba7439e6816a507da30073d04c9e928859e",
                51,
                "b039b819898a4e5953c73e2ae328eace6534f518f3d53d9d4da1ea5e1371908a27db174f1c12b5bcefcc7bb5ce242f36",
                "489d573e2ab7efa00dcd64e4ae55214507a5113a1e145691e7ea26da6e4cf04246cd4d8973f015a5dab34f487796c4a4",
            ),
            (
                "DECRYPT 450",
                "5bf15e1f08a7b5125531d0aa3979c98c9566de5e6b4e410e8d45ee9f9ba10dd1cb9d1ad969d4b520b279d87a439918f822426938eaf6f6cea9510b7e3bd2ab9e",
                253,
                "3b75de4e85cd546f8dda25cb53626682c90c03bd7e10bc7b25721af7ba2d9096145c055a0d00787dcd8988c3d3c1bee8",
                "23b6888c60aaef21b3eb34c25c437cebc9fc7f033f0b3e31d381f591dc9d7aebf62bc7a37c16d73c4b3a5647dc2ef18f",
            ),
        ];
        for (name, keys, dun, plain, cipher) in vectors {
            let keys = bytes(keys);
            let (k1, k2) = keys.split_at(keys.len() / 2);
            let key = XtsKey::with_backend(backend, Algorithm::AesXts256, k1, k2);
            check(name, &key, dun, &bytes(plain), &bytes(cipher));
        }
    });
}
