//! Scattered lines, each with its own key: what a queue of write-backs or fills looks like.

use crate::direction::{Decrypt, Direction, Encrypt};
use crate::line::{CipherLine, PlainLine};
use crate::run::{LineRun, RUN_LINES};
use crate::xts::{MIXED, XtsKey, mixed};

/// One line to convert from `Source` to `Target`.
#[derive(Debug)]
pub struct Request<'a, Source, Target> {
    /// The key of the line's KeyID.
    pub key: &'a XtsKey,
    /// Data-unit number, `Mem(pa) >> 6`.
    pub dun: u64,
    /// The line to read.
    pub source: &'a Source,
    /// Where the result goes.
    pub target: &'a mut Target,
}

/// Encrypts every request, in order. Neighbours with the same key (the same `XtsKey`, by identity) share their cipher
/// calls, so sorting by key pays; any order is correct.
pub fn encrypt_batch(requests: &mut [Request<'_, PlainLine, CipherLine>]) {
    batch::<Encrypt>(requests);
}

/// Decrypts every request, in order; see [`encrypt_batch`].
pub fn decrypt_batch(requests: &mut [Request<'_, CipherLine, PlainLine>]) {
    batch::<Decrypt>(requests);
}

/// Requests as a run.
struct Requests<'r, 'a, D: Direction>(&'r mut [Request<'a, D::Source, D::Target>]);

impl<D: Direction> LineRun<D> for Requests<'_, '_, D> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.0.len()
    }

    #[inline(always)]
    fn dun(&self, index: usize) -> u64 {
        self.0[index].dun
    }

    #[inline(always)]
    fn source(&self, index: usize) -> &D::Source {
        self.0[index].source
    }

    #[inline(always)]
    fn target(&mut self, index: usize) -> &mut D::Target {
        self.0[index].target
    }

    #[inline(always)]
    fn pair(&mut self, index: usize) -> (&D::Source, &mut D::Target) {
        let Request { source, target, .. } = &mut self.0[index];
        (source, target)
    }
}

fn batch<D: Direction>(requests: &mut [Request<'_, D::Source, D::Target>]) {
    let mut rest = requests;
    while let Some(first) = rest.first() {
        let key = first.key;
        let same = rest.iter().take(RUN_LINES).take_while(|request| std::ptr::eq(request.key, key)).count();
        let done = if same < MIXED && mixed_keys::<D>(rest) {
            MIXED
        } else {
            let run = &mut rest[..same];
            if let [only] = run {
                key.line::<D>(only.dun, only.source, only.target);
            } else {
                key.run(&mut Requests::<D>(run));
            }
            same
        };
        rest = &mut rest[done..];
    }
}

/// The first [`MIXED`] requests, if there are as many and a kernel takes their keys together.
#[inline]
fn mixed_keys<D: Direction>(requests: &mut [Request<'_, D::Source, D::Target>]) -> bool {
    let Some(run) = requests.first_chunk_mut::<MIXED>() else { return false };
    let keys = run.each_ref().map(|request| request.key);
    mixed(keys, &mut Requests::<D>(run))
}
