//! 10.6 Cipher.

use crate::harness::layout::{FRAME, FRAME_2, K5_FRAME};
use crate::harness::{Failure, Power, Program, RAMP, Scenario, Verdict, XTS_128, XTS_256, key};
use crate::statement::Env;
use crate::{check, equal, statements};
use crypto::{Algorithm, PlainLine, XtsKey};
use mem::MemType;

statements! {
    "10.6 Cipher";
    mk_107 GuestAndProbe "vectors K1-K12 and D1-D5 are reproduced bit-exactly";
    mk_108 GuestAndProbe "same plaintext, line and key, twice: identical DRAM bytes";
    mk_109 GuestAndProbe "same plaintext under two keys: all four blocks differ";
    mk_110 GuestAndProbe "same DIRECT key in KeyIDs 1 and 2: identical DRAM, readable through either";
    mk_111 GuestAndProbe "one plaintext byte changed: exactly one 16-byte DRAM block changes";
    mk_112 GuestAndProbe "raw copy of a line to another line: garbage in all four blocks";
    mk_113 GuestAndProbe "raw swap of blocks 0 and 1: both garbage, blocks 2 and 3 intact";
    mk_114 GuestAndProbe "raw restore of an earlier snapshot: the earlier plaintext, nothing visible to the guest";
}

/// Vectors of section 6.4 that other tests use, too.
pub const K5: [u8; 64] = unhex(
    "18fb07510003216d637206d59889f0e1160bf4eb41051537b48ac0167bf3f7db\
     7a72f3918b312d83a12efaf1b3cd1813cc105bc23b2f6e8657067afc9d896cfd",
);
pub const K10: [u8; 64] = unhex(
    "532330b6a82530b5eaf0d274b6505eddad7b420c3766acfcd4557be76ba230c9\
     94bca7366f0ac6f2807ab953aba06a6aecbd55ba809b328c85d584c502202b05",
);
pub const D4: [u8; 64] = unhex(
    "d03882a8565d63eadfa2d372edc59861f292c7b64105036352eb16266e43a842\
     59450a9e49e0e6e58faf85527f11419b01c114b4fab2f25a1c638864902cd63d",
);
const D2: [u8; 64] = unhex(
    "74faa949e011f6e4b8f06b93075da517a0518c096059a9abefbce33251f2aeda\
     152f3b7baf99bc6b08f5220f2514f87127de3635b23d34263b6914ee40772934",
);
const D3: [u8; 64] = unhex(
    "ebc4ccea0f89049c9ae111133670159bb02140a748a062c396bbf00a29c1de6b\
     d5f05de6596227c95693c4b4be1460c194149b244a4db83e608c6a28b3304a8a",
);
/// Blocks that D1 and D5 change.
const D1_BLOCK_1: [u8; 16] =
    [0x65, 0xc2, 0xbb, 0x7c, 0x14, 0x0a, 0xe5, 0x6a, 0x39, 0x50, 0x46, 0x2a, 0xaf, 0xd5, 0xbe, 0x26];
const D5_BLOCK_0: [u8; 16] =
    [0x1d, 0x6d, 0x15, 0x93, 0xe1, 0x8c, 0xbb, 0x93, 0xd7, 0xe7, 0x29, 0x8e, 0x35, 0x73, 0x81, 0xde];

/// Vectors on lines: algorithm, address, whether the plaintext is the ramp (else zeros), ciphertext.
const LINES: [(&str, u16, u64, bool, [u8; 64]); 10] = [
    (
        "K3",
        XTS_128,
        0,
        false,
        unhex(
            "f071a2b402c105ea37024133e24d6ef6212e8cc0175e1b6b32657d54f159daf6\
             b36d7a493e23d5a2191bf1ca62ffce5441bf91ad4bd63b2c867e1f4ef7b06b12",
        ),
    ),
    (
        "K4",
        XTS_128,
        0x1000,
        false,
        unhex(
            "b05f5a80a4f2742e24473c0d38e582b1e8785ea94b4e4d3f69cb1d26fd78fce5\
             a8f7de0dc809fa527377ebf265bb2e9c24208fa7d6458badec00bc6f31734098",
        ),
    ),
    ("K5", XTS_128, 0x1000, true, K5),
    (
        "K6",
        XTS_128,
        0x1040,
        true,
        unhex(
            "33e0f45555c7f4b0118205a7d01061c61fb59b210fca3d98c1b6792443ef586b\
             80f750a52d0dbd19bc571c853ea7e9363a1759d408f7673bab91e4d45e7fc1c8",
        ),
    ),
    (
        "K7",
        XTS_128,
        0x1_2345_6780,
        true,
        unhex(
            "d018bc5f00d2239282ccf63acf017e3dc5765ad875bc6d8fe58d5a424ba6b77d\
             763c052b32f7bec7c2b426fb806fb7838c58a28fc1f955ecb3aafee772ee1254",
        ),
    ),
    (
        "K8",
        XTS_128,
        0x3F_FFFF_FFC0,
        true,
        unhex(
            "f16e4ef917fdb22ad43ad7e1e4b191e168641335c25e985afebc8eb461303119\
             e61ce59ad633d76b3d2617126235ae75c3a1cfdfac7c492c4905c7ab8fe84c77",
        ),
    ),
    (
        "K9",
        XTS_256,
        0,
        false,
        unhex(
            "af4a5953a8e5b1aaf7388c45f8ecee92c98ec5cbc8501a7526df20cc31b1f2d1\
             1518cf8bb48dac07772102b2dbd9d3d2de561c7c6f18f854f56169fb3ce0453f",
        ),
    ),
    ("K10", XTS_256, 0x1000, true, K10),
    (
        "K11",
        XTS_256,
        0x1040,
        true,
        unhex(
            "9ce66f104c18edf899fc80b651733ef71b58d2395b5300086bdbfbbc9479e55d\
             d3067ebec8b7a054b3d5c8c81db681b891277c21903370f6c803f6ad4e2fcf4b",
        ),
    ),
    (
        "K12",
        XTS_256,
        0x3F_FFFF_FFC0,
        true,
        unhex(
            "aef904e0a69c9d5e5e9ad26ff1a8bebca558cae7bc8dc88f4221331e43a67968\
             2ca05ab8df36b5af8494a59c8d805059e02fce53efba0e81aa04160bfb5c9361",
        ),
    ),
];

/// A line in hexadecimal.
pub const fn unhex(text: &str) -> [u8; 64] {
    const fn digit(c: u8) -> u8 {
        match c {
            b'0'..=b'9' => c - b'0',
            b'a'..=b'f' => c - b'a' + 10,
            _ => panic!("not a digit"),
        }
    }
    let digits = text.as_bytes();
    assert!(digits.len() == 128);
    let mut line = [0; 64];
    let mut i = 0;
    while i < 64 {
        line[i] = digit(digits[2 * i]) << 4 | digit(digits[2 * i + 1]);
        i += 1;
    }
    line
}

/// The keys of section 6.4.
fn vector_key(keyid: u16, algorithm: u16) -> Program {
    Program::direct(keyid, algorithm, key(0), key(if algorithm == XTS_256 { 0x40 } else { 0x10 }))
}

/// KeyIDs 1 and 2 with keys of their own, KM(1) and KM(2) of the frame.
fn two_keys() -> Result<(Scenario, [Program; 2], [u64; 2]), Failure> {
    let mut s = Power::default().activated()?;
    let programs = [Program::simple(1, 0x31), Program::simple(2, 0x51)];
    for program in &programs {
        s.program(program)?;
    }
    let linear = [s.map(FRAME, 1), s.map(FRAME, 2)];
    Ok((s, programs, linear))
}

fn block(line: &[u8; 64], n: usize) -> &[u8] {
    &line[16 * n..16 * n + 16]
}

fn mk_107(_: &Env) -> Verdict {
    generic_vectors()?;
    let (mut small, mut large) = (Power::default().activated()?, Power::default().ram(8 << 30).activated()?);
    for (name, algorithm, address, is_ramp, want) in &LINES {
        let plain = if *is_ramp { RAMP } else { [0; 64] };
        let program = vector_key(1, *algorithm);
        // The two at 2^38 are beyond any RAM of this machine: the cipher alone.
        equal!(program.encrypt(*address, &plain), *want, "{name}, the cipher");
        equal!(program.decrypt(*address, want), plain, "{name}, the cipher, decryption");
        let s = if *address < crate::harness::layout::RAM_BYTES { &mut small } else { &mut large };
        if !s.mem().is_ram(mem::PhysAddr(*address)) {
            continue;
        }
        s.program(&program)?;
        let page = *address & !0xFFF;
        let linear = s.map(page, 1) + (address - page);
        s.store_flush(linear, &plain)?;
        equal!(s.dram(*address), *want, "{name}, DRAM");
        equal!(s.load(linear)?, plain, "{name}, read back");
    }
    decryption_vectors()
}

/// K1 and K2 have data units shorter than a line; XTS treats their blocks alike.
fn generic_vectors() -> Verdict {
    let k1 = unhex(
        "917cf69ebd68b2ec9b9fe9a3eadda692cd43d2f59598ed858c02c2652fbf922e\
         0000000000000000000000000000000000000000000000000000000000000000",
    );
    let k2 = unhex(
        "c454185e6a16936e39334038acef838bfb186fff7480adc4289382ecd6d394f0\
         0000000000000000000000000000000000000000000000000000000000000000",
    );
    for (name, data, tweak, dun, plain, want) in
        [("K1", [0; 16], [0; 16], 0, [0; 64], k1), ("K2", [0x11; 16], [0x22; 16], 0x33_3333_3333, [0x44; 64], k2)]
    {
        let key = XtsKey::new(Algorithm::AesXts128, &data, &tweak);
        equal!(key.encrypt_line(dun, &PlainLine(plain)).0[..32], want[..32], "{name}");
    }
    Ok(())
}

fn decryption_vectors() -> Verdict {
    let mut s = Power::default().activated()?;
    s.program(&vector_key(1, XTS_128))?;
    let linear = s.map(K5_FRAME, 1);
    let mut flipped = K5;
    flipped[0x13] ^= 1;
    s.set_dram(0x1000, flipped);
    let mut want = RAMP;
    want[16..32].copy_from_slice(&D1_BLOCK_1);
    equal!(s.load(linear)?, want, "D1");

    s.set_dram(0x1040, K5);
    equal!(s.load(linear + 0x40)?, D2, "D2");

    s.clflush(linear)?;
    s.set_dram(0x1000, K5);
    s.program(&Program::direct(2, XTS_128, key(0x10), key(0)))?;
    let exchanged = s.map(K5_FRAME, 2);
    equal!(s.load(exchanged)?, D3, "D3");

    s.set_dram(0x1000, [0; 64]);
    equal!(s.load(linear)?, D4, "D4");
    s.clflush(linear)?;

    s.set_dram(0x1000, K5);
    s.program(&Program::direct(3, XTS_128, key(0x80), key(0x90)))?;
    let uncached = s.map_type(K5_FRAME, 3, MemType::Uc);
    let end = s.run(|a| {
        crate::harness::Asm::store_byte(a, uncached + 5, 0xEE)?;
        a.hlt()
    })?;
    end.halted()?;
    let mut want = RAMP;
    want[..16].copy_from_slice(&D5_BLOCK_0);
    equal!(s.load(linear)?, want, "D5");
    Ok(())
}

fn mk_108(_: &Env) -> Verdict {
    let (mut s, _, [km1, _]) = two_keys()?;
    s.store_flush(km1, &RAMP)?;
    let first = s.dram(FRAME);
    s.store_flush(km1, &[0xA5; 64])?;
    check!(s.dram(FRAME) != first, "another plaintext gave the same ciphertext");
    s.store_flush(km1, &RAMP)?;
    equal!(s.dram(FRAME), first, "DRAM the second time");
    Ok(())
}

fn mk_109(_: &Env) -> Verdict {
    let (mut s, _, [km1, km2]) = two_keys()?;
    s.store_flush(km1, &RAMP)?;
    let first = s.dram(FRAME);
    s.store_flush(km2, &RAMP)?;
    let second = s.dram(FRAME);
    for n in 0..4 {
        check!(block(&first, n) != block(&second, n), "block {n} is the same under both keys");
        check!(block(&first, n) != block(&RAMP, n), "block {n} is plaintext");
    }
    Ok(())
}

fn mk_110(_: &Env) -> Verdict {
    let mut s = Power::default().activated()?;
    for keyid in [1, 2] {
        s.program(&Program::direct(keyid, XTS_128, key(0x31), key(0x51)))?;
    }
    let (km1, km2) = (s.map(FRAME, 1), s.map(FRAME, 2));
    s.store_flush(km1, &RAMP)?;
    let first = s.dram(FRAME);
    equal!(s.load(km2)?, RAMP, "through KeyID 2");
    s.clflush(km2)?;
    s.store_flush(km2, &RAMP)?;
    equal!(s.dram(FRAME), first, "DRAM through KeyID 2");
    equal!(s.load(km1)?, RAMP, "through KeyID 1");
    Ok(())
}

fn mk_111(_: &Env) -> Verdict {
    let (mut s, _, [km1, _]) = two_keys()?;
    s.store_flush(km1, &RAMP)?;
    let before = s.dram(FRAME);
    for byte in [0, 15, 16, 31, 40, 63] {
        let mut changed = RAMP;
        changed[byte] ^= 0x80;
        s.store_flush(km1, &changed)?;
        let after = s.dram(FRAME);
        for n in 0..4 {
            equal!(block(&before, n) != block(&after, n), n == byte / 16, "byte {byte}: block {n} changed");
        }
    }
    Ok(())
}

fn mk_112(_: &Env) -> Verdict {
    let (mut s, [program, _], [km1, _]) = two_keys()?;
    s.store_flush(km1, &RAMP)?;
    for target in [FRAME + 0x40, FRAME_2] {
        s.set_dram(target, s.dram(FRAME));
        let page = target & !0xFFF;
        let linear = s.map(page, 1) + (target - page);
        let seen = s.load(linear)?;
        for n in 0..4 {
            check!(block(&seen, n) != block(&RAMP, n), "block {n} is intact at {target:#x}");
        }
        equal!(seen, program.decrypt(target, &program.encrypt(FRAME, &RAMP)), "the line at {target:#x}");
    }
    Ok(())
}

fn mk_113(_: &Env) -> Verdict {
    let (mut s, _, [km1, _]) = two_keys()?;
    s.store_flush(km1, &RAMP)?;
    let mut cells = s.dram(FRAME);
    let (first, second) = cells.split_at_mut(16);
    first.swap_with_slice(&mut second[..16]);
    s.set_dram(FRAME, cells);
    let seen = s.load(km1)?;
    for n in 0..4 {
        let was_moved = n < 2;
        equal!(block(&seen, n) == block(&RAMP, n), !was_moved, "block {n} intact");
        check!(!was_moved || block(&seen, n) != block(&RAMP, 1 - n), "block {n} decrypted at another place");
    }
    Ok(())
}

fn mk_114(_: &Env) -> Verdict {
    let (mut s, _, [km1, _]) = two_keys()?;
    s.store_flush(km1, &RAMP)?;
    let snapshot = s.dram(FRAME);
    s.store_flush(km1, &[0xA5; 64])?;
    s.set_dram(FRAME, snapshot);
    // The run ends with HLT: nothing was raised.
    equal!(s.load(km1)?, RAMP, "the line after the replay");
    Ok(())
}
