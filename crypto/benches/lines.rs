//! Nanoseconds per 64-byte line, every backend of the host side by side: `cargo bench -p crypto`.
//!
//! Samples of the backends alternate, so that a busy machine slows all of them alike; compare within one run only.

use std::hint::black_box;
use std::time::Instant;

use crypto::{Algorithm, Backend, CipherLine, PlainLine, Request, XtsKey, encrypt_batch};

/// 256 KiB of lines: beyond L1, within L2.
const LINES: usize = 4096;
const KEYS: usize = 64;
const PAGE: usize = 64;
const SAMPLES: usize = 31;
/// Passes over all lines in one sample.
const PASSES: usize = 8;

/// Odd, so that stepping by it visits all `LINES` lines.
const STRIDE: usize = 1597;

/// A pass over all lines.
type Work = fn(&mut Bench);

struct Bench {
    keys: Vec<XtsKey>,
    plain: Vec<PlainLine>,
    cipher: Vec<CipherLine>,
}

impl Bench {
    fn new(backend: Backend, alg: Algorithm) -> Self {
        let key = |i: usize| {
            let bytes: [u8; 64] = std::array::from_fn(|j| (i * 37 + j * 11) as u8);
            XtsKey::with_backend(backend, alg, &bytes[..32], &bytes[32..])
        };
        Self {
            keys: (0..KEYS).map(key).collect(),
            plain: (0..LINES).map(|i| PlainLine([i as u8; 64])).collect(),
            cipher: vec![CipherLine::ZERO; LINES],
        }
    }

    fn single_encrypt(&mut self) {
        let mut at = 0;
        for _ in 0..LINES {
            at = (at + STRIDE) % LINES;
            self.keys[at % KEYS].encrypt_line_into(at as u64, &self.plain[at], &mut self.cipher[at]);
        }
    }

    fn single_decrypt(&mut self) {
        let mut at = 0;
        for _ in 0..LINES {
            at = (at + STRIDE) % LINES;
            self.keys[at % KEYS].decrypt_line_into(at as u64, &self.cipher[at], &mut self.plain[at]);
        }
    }

    /// With copies on both sides of the cipher.
    fn single_decrypt_by_value(&mut self) {
        let mut at = 0;
        for _ in 0..LINES {
            at = (at + STRIDE) % LINES;
            let line = black_box(self.cipher[at]);
            self.plain[at] = self.keys[at % KEYS].decrypt_line(at as u64, &line);
        }
    }

    /// Each line's number depends on the bytes of the line before.
    fn dependent_decrypt(&mut self) {
        let mut at = 0;
        for _ in 0..LINES {
            self.keys[at % KEYS].decrypt_line_into(at as u64, &self.cipher[at], &mut self.plain[at]);
            at = (at + STRIDE + usize::from(self.plain[at].0[63])) % LINES;
        }
    }

    fn pages_encrypt(&mut self) {
        for (i, (plain, cipher)) in self.plain.chunks(PAGE).zip(self.cipher.chunks_mut(PAGE)).enumerate() {
            self.keys[i * 29 % KEYS].encrypt_lines((i * PAGE) as u64, plain, cipher);
        }
    }

    fn pages_decrypt(&mut self) {
        for (i, (plain, cipher)) in self.plain.chunks_mut(PAGE).zip(self.cipher.chunks(PAGE)).enumerate() {
            self.keys[i * 29 % KEYS].decrypt_lines((i * PAGE) as u64, cipher, plain);
        }
    }

    fn four_lines_decrypt(&mut self) {
        for (i, (plain, cipher)) in self.plain.chunks_mut(4).zip(self.cipher.chunks(4)).enumerate() {
            self.keys[i * 29 % KEYS].decrypt_lines((i * 4) as u64, cipher, plain);
        }
    }

    fn mixed_encrypt(&mut self) {
        for (i, (plain, cipher)) in self.plain.chunks(PAGE).zip(self.cipher.chunks_mut(PAGE)).enumerate() {
            let mut lines = plain.iter().zip(cipher);
            let mut requests: [_; PAGE] = std::array::from_fn(|j| {
                let (source, target) = lines.next().expect("a page");
                Request { key: &self.keys[(i + j * 29) % KEYS], dun: (i * PAGE + j) as u64, source, target }
            });
            encrypt_batch(&mut requests);
        }
    }
}

fn sample(bench: &mut Bench, work: Work) -> f64 {
    let start = Instant::now();
    for _ in 0..PASSES {
        work(black_box(bench));
    }
    start.elapsed().as_nanos() as f64 / (PASSES * LINES) as f64
}

fn main() {
    let workloads: [(&str, Work); 8] = [
        ("one line, 64 keys, encrypt", Bench::single_encrypt),
        ("one line, 64 keys, decrypt", Bench::single_decrypt),
        ("the same, by value", Bench::single_decrypt_by_value),
        ("one line, dependent, decrypt", Bench::dependent_decrypt),
        ("4 lines, decrypt", Bench::four_lines_decrypt),
        ("page of 64 lines, encrypt", Bench::pages_encrypt),
        ("page of 64 lines, decrypt", Bench::pages_decrypt),
        ("batch, a key per line, encrypt", Bench::mixed_encrypt),
    ];
    let backends: Vec<_> = Backend::available().collect();
    println!("ns per line, median / best; {backends:?}");
    for alg in [Algorithm::AesXts128, Algorithm::AesXts256] {
        let mut benches: Vec<_> = backends.iter().map(|backend| Bench::new(*backend, alg)).collect();
        for (name, work) in workloads {
            let mut times = vec![Vec::new(); benches.len()];
            for _ in 0..SAMPLES {
                for (bench, times) in benches.iter_mut().zip(&mut times) {
                    times.push(sample(bench, work));
                }
            }
            print!("{alg:?}  {name:<32}");
            for times in &mut times {
                times.sort_by(f64::total_cmp);
                print!("  {:7.1} / {:5.1}", times[SAMPLES / 2], times[0]);
            }
            println!();
        }
    }
}
