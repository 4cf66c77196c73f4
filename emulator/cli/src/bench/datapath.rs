//! The encryption datapath: the same work for every implementation, and the limit next to it.

use super::Progress;
#[cfg(feature = "openssl")]
use super::cipher::OpenSsl;
use super::cipher::{BATCH, Cipher, KEYS, OwnCipher, XtsMode};
use super::limit::{Limit, Sampler};
use super::sample::{Budget, Series, Timing};
use crate::Result;
#[cfg(feature = "openssl")]
use crate::outcome::Failure;
use aes::{Aes128, Aes256};
use crypto::{Algorithm, Backend, CipherLine, LINE_BYTES, PlainLine};
use std::hint::black_box;

const ALGORITHMS: [Algorithm; 2] = [Algorithm::AesXts128, Algorithm::AesXts256];

/// Lines of [`Workload::Bulk`].
const BULK_LINES: usize = (1 << 20) / LINE_BYTES;
/// Lines of the others: 256 KiB, beyond a first-level cache and within a second-level one.
const LINES: usize = 4096;
/// With `--quick`.
const QUICK_LINES: usize = 512;
/// From one line to the next; odd, so that all lines are visited.
const STRIDE: usize = 1597;
/// Lines of a 4 KiB page.
const PAGE_LINES: usize = 64;

/// What an implementation has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    /// Lines all over, each with one of 64 keys, none waiting for another.
    Single,
    /// The same, but where the next line is depends on what the last one decrypts or encrypts to.
    Dependent,
    /// Pages of 64 lines, a key for each.
    Page,
    /// 1 MiB under one key.
    Bulk,
    /// Batches of 64 lines, each with another key than its neighbours.
    Mixed,
}

impl Workload {
    pub const ALL: [Self; 5] = [Self::Single, Self::Dependent, Self::Page, Self::Bulk, Self::Mixed];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Single => "single lines",
            Self::Dependent => "dependent chain",
            Self::Page => "page",
            Self::Bulk => "1 MiB",
            Self::Mixed => "mixed keys",
        }
    }
}

/// Which way lines go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Encrypt,
    Decrypt,
}

impl Way {
    const BOTH: [Self; 2] = [Self::Encrypt, Self::Decrypt];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Encrypt => "encrypt",
            Self::Decrypt => "decrypt",
        }
    }
}

/// "AES-XTS-128"
pub const fn algorithm_name(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::AesXts128 => "AES-XTS-128",
        Algorithm::AesXts256 => "AES-XTS-256",
    }
}

/// One figure.
#[derive(Debug, Clone)]
pub struct Row {
    pub algorithm: Algorithm,
    pub way: Way,
    pub workload: Workload,
    pub implementation: &'static str,
    /// Per line.
    pub timing: Timing,
    /// Nanoseconds that the silicon needs for a line; `None` on hosts without AES instructions.
    pub limit_ns: Option<f64>,
}

impl Row {
    /// At the best sample.
    pub fn gib_per_s(&self) -> f64 {
        LINE_BYTES as f64 / self.timing.best * 1e9 / f64::from(1 << 30)
    }

    /// At the best sample.
    pub fn limit_percent(&self) -> Option<f64> {
        self.limit_ns.map(|limit| limit / self.timing.best * 100.0)
    }
}

/// An implementation with its lines.
struct Bench<C> {
    cipher: C,
    plain: Vec<PlainLine>,
    encrypted: Vec<CipherLine>,
    /// Lines of all workloads but bulk; a power of two.
    lines: usize,
}

/// [`Bench`] of whatever implementation.
trait Subject {
    /// Does the work once; returns how many lines it was.
    fn pass(&mut self, workload: Workload, way: Way) -> usize;
}

impl<C: Cipher> Bench<C> {
    fn new(cipher: C, budget: &Budget) -> Box<Self> {
        Box::new(Self {
            cipher,
            plain: (0..BULK_LINES).map(|i| PlainLine([i as u8; LINE_BYTES])).collect(),
            encrypted: vec![CipherLine::ZERO; BULK_LINES],
            lines: if budget.quick { QUICK_LINES } else { LINES },
        })
    }

    fn single(&mut self, way: Way) {
        let mask = self.lines - 1;
        let mut at = 0;
        for _ in 0..self.lines {
            at = (at + STRIDE) & mask;
            match way {
                Way::Encrypt => {
                    self.cipher.encrypt_line(at % KEYS, at as u64, &self.plain[at], &mut self.encrypted[at]);
                }
                Way::Decrypt => {
                    self.cipher.decrypt_line(at % KEYS, at as u64, &self.encrypted[at], &mut self.plain[at]);
                }
            }
        }
    }

    fn dependent(&mut self, way: Way) {
        let mask = self.lines - 1;
        let mut at = 0;
        for _ in 0..self.lines {
            let last = match way {
                Way::Encrypt => {
                    self.cipher.encrypt_line(at % KEYS, at as u64, &self.plain[at], &mut self.encrypted[at]);
                    self.encrypted[at].0[LINE_BYTES - 1]
                }
                Way::Decrypt => {
                    self.cipher.decrypt_line(at % KEYS, at as u64, &self.encrypted[at], &mut self.plain[at]);
                    self.plain[at].0[LINE_BYTES - 1]
                }
            };
            at = (at + STRIDE + usize::from(last)) & mask;
        }
    }

    /// Runs of `length` lines, a key for each.
    fn runs(&mut self, lines: usize, length: usize, way: Way) {
        let pairs = self.plain[..lines].chunks_mut(length).zip(self.encrypted[..lines].chunks_mut(length));
        for (run, (plain, encrypted)) in pairs.enumerate() {
            let (key, first) = (run * 29 % KEYS, (run * length) as u64);
            match way {
                Way::Encrypt => self.cipher.encrypt_lines(key, first, plain, encrypted),
                Way::Decrypt => self.cipher.decrypt_lines(key, first, encrypted, plain),
            }
        }
    }

    fn mixed(&mut self, way: Way) {
        let pairs = self.plain[..self.lines].chunks_mut(BATCH).zip(self.encrypted[..self.lines].chunks_mut(BATCH));
        for (batch, (plain, encrypted)) in pairs.enumerate() {
            let first = (batch * BATCH) as u64;
            match way {
                Way::Encrypt => self.cipher.encrypt_mixed(first, plain, encrypted),
                Way::Decrypt => self.cipher.decrypt_mixed(first, encrypted, plain),
            }
        }
    }
}

impl<C: Cipher> Subject for Bench<C> {
    fn pass(&mut self, workload: Workload, way: Way) -> usize {
        let bench = black_box(self);
        match workload {
            Workload::Single => bench.single(way),
            Workload::Dependent => bench.dependent(way),
            Workload::Page => bench.runs(bench.lines, PAGE_LINES, way),
            Workload::Bulk => {
                bench.runs(BULK_LINES, BULK_LINES, way);
                return BULK_LINES;
            }
            Workload::Mixed => bench.mixed(way),
        }
        bench.lines
    }
}

/// An implementation by name. Libraries have no backend.
type Named = (&'static str, Option<Backend>, Box<dyn Subject>);

fn subjects(budget: &Budget, backends: &[Backend], algorithm: Algorithm) -> Result<Vec<Named>> {
    let mut subjects: Vec<Named> = Vec::new();
    for &backend in backends {
        let cipher = OwnCipher::new(backend, algorithm);
        subjects.push((backend.name(), Some(backend), Bench::new(cipher, budget)));
    }
    subjects.push(match algorithm {
        Algorithm::AesXts128 => (XTS_MODE, None, Bench::new(XtsMode::<Aes128>::new(algorithm, false), budget)),
        Algorithm::AesXts256 => (XTS_MODE, None, Bench::new(XtsMode::<Aes256>::new(algorithm, false), budget)),
    });
    #[cfg(feature = "openssl")]
    {
        let cipher = OpenSsl::new(algorithm).map_err(|e| Failure::Host(format!("OpenSSL: {e}")))?;
        subjects.push((OPENSSL, None, Bench::new(cipher, budget)));
    }
    Ok(subjects)
}

/// The `xts-mode` and `aes` crates.
pub const XTS_MODE: &str = "xts-mode";
/// The system's OpenSSL.
pub const OPENSSL: &str = "openssl";

/// How often [`measure`] says that it goes on.
pub fn steps() -> usize {
    ALGORITHMS.len() * Way::BOTH.len() * Workload::ALL.len()
}

/// Every implementation on every workload. Samples of one workload alternate between the implementations and the limit.
///
/// # Errors
/// A library without the cipher.
pub fn measure(budget: &Budget, backends: &[Backend], progress: &Progress) -> Result<(Limit, Vec<Row>)> {
    let mut whole: Option<Sampler> = None;
    let mut measured = Vec::new();
    for algorithm in ALGORITHMS {
        let mut subjects = subjects(budget, backends, algorithm)?;
        for (way, workload) in Way::BOTH.into_iter().flat_map(|way| Workload::ALL.map(|workload| (way, workload))) {
            progress.step(&format!("{}, {}, {}", algorithm_name(algorithm), way.name(), workload.name()));
            let mut limit = Sampler::new(budget);
            let mut series: Vec<_> = subjects
                .iter_mut()
                .map(|(_, _, subject)| Series::calibrate(budget, || subject.pass(workload, way)))
                .collect();
            for _ in 0..budget.samples {
                limit.take();
                for ((_, _, subject), series) in subjects.iter_mut().zip(&mut series) {
                    series.take(|| subject.pass(workload, way));
                }
            }
            match &mut whole {
                Some(whole) => whole.append(limit),
                None => whole = Some(limit),
            }
            for ((name, backend, _), series) in subjects.iter().zip(&series) {
                measured.push((algorithm, way, workload, *name, *backend, series.timing()));
            }
        }
    }
    let limit = whole.map_or_else(|| Sampler::new(budget).limit(), |whole| whole.limit());
    let rows = measured.into_iter().map(|(algorithm, way, workload, implementation, backend, timing)| Row {
        algorithm,
        way,
        workload,
        implementation,
        timing,
        limit_ns: limit.line_ns(backend, algorithm, workload),
    });
    let rows = rows.collect();
    Ok((limit, rows))
}

/// What a line costs that goes through the cipher alone, AES-XTS-128.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LineCost {
    pub backend: &'static str,
    pub encrypt_ns: f64,
    pub decrypt_ns: f64,
}

/// Measures it: medians, since it stands for what happens among other work.
pub fn line_cost(budget: &Budget, backend: Backend) -> LineCost {
    let mut bench = Bench::new(OwnCipher::new(backend, Algorithm::AesXts128), budget);
    let [encrypt_ns, decrypt_ns] = Way::BOTH.map(|way| {
        let mut series = Series::calibrate(budget, || bench.pass(Workload::Single, way));
        for _ in 0..budget.samples {
            series.take(|| bench.pass(Workload::Single, way));
        }
        series.timing().median
    });
    LineCost { backend: backend.name(), encrypt_ns, decrypt_ns }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_reports_the_lines_it_did_and_inverts() {
        let budget = Budget::new(true, None);
        let mut bench = Bench::new(OwnCipher::new(Backend::Portable, Algorithm::AesXts128), &budget);
        let before = bench.plain.clone();
        for workload in [Workload::Single, Workload::Page, Workload::Bulk, Workload::Mixed] {
            let lines = bench.pass(workload, Way::Encrypt);
            assert_eq!(lines, if workload == Workload::Bulk { BULK_LINES } else { QUICK_LINES });
            assert_ne!(bench.encrypted[QUICK_LINES - 1], CipherLine::ZERO);
            bench.plain[..lines].fill(PlainLine::ZERO);
            bench.pass(workload, Way::Decrypt);
            assert!(bench.plain == before, "{workload:?}");
        }
    }
}
