//! The encryption datapath by its parts: `cargo bench --bench datapath`.
//!
//! Compare within one run only. `cargo bench -p crypto` puts the cipher's backends side by side, sample by sample.

use criterion::{Criterion, criterion_group, criterion_main};
use mem::{Access, BusAddr, Config, LINE_BYTES, Memory};
use std::hint::black_box;

const PAGE_LINES: usize = 64;

/// One line, and a page of lines, for both algorithms on the host's fastest backend.
fn cipher(c: &mut Criterion) {
    for algorithm in [crypto::Algorithm::AesXts128, crypto::Algorithm::AesXts256] {
        let key = crypto::XtsKey::new(algorithm, &[1; 32], &[2; 32]);
        let plain = [crypto::PlainLine([0x5A; LINE_BYTES]); PAGE_LINES];
        let mut cipher = [crypto::CipherLine::ZERO; PAGE_LINES];
        c.bench_function(&format!("{algorithm:?} encrypt line"), |b| {
            b.iter(|| key.encrypt_line(black_box(0x40), &plain[0]));
        });
        c.bench_function(&format!("{algorithm:?} encrypt page"), |b| {
            b.iter(|| key.encrypt_lines(black_box(0x40), &plain, &mut cipher));
        });
        c.bench_function(&format!("{algorithm:?} decrypt line"), |b| {
            b.iter(|| key.decrypt_line(black_box(0x40), &cipher[0]));
        });
    }
}

/// The slow path of the modelled cache: a hit, and stores that stream through more lines than it has.
fn cache(c: &mut Criterion) {
    let mut memory = Memory::new(Config::default()).expect("the default configuration is valid");
    c.bench_function("touch, hit", |b| {
        b.iter(|| memory.touch(black_box(BusAddr(0x1000)), Access::Read, false).is_some());
    });
    let mut at = 0;
    c.bench_function("touch, fill and write back", |b| {
        b.iter(|| {
            at = (at + LINE_BYTES as u64) & 0xFF_FFFF;
            while memory.take_retired().is_some() {}
            memory.touch(BusAddr(at), Access::Write, false).is_some()
        });
    });
}

criterion_group!(benches, cipher, cache);
criterion_main!(benches);
