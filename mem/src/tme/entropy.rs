//! The random generator of the package (MK specification, Appendix A `rng`): pinned ChaCha20 streams from one seed.

use std::collections::VecDeque;

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::hash::StateHasher;
use crate::rate::Rate;

/// Consumers of random numbers. Each has a stream of its own, so that what one draws does not shift the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntropyStream {
    /// The TME key, made by activation (W12).
    TmeKey = 0,
    /// PCONFIG KEYID_SET_KEY_RANDOM.
    Pconfig = 1,
    /// RDRAND and RDSEED.
    Instruction = 2,
}

/// What a scripted draw yields instead of the generator's output (fault hook, MK specification section 9.15).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum EntropyStep {
    /// The generator's own output: passes over one draw.
    Normal,
    /// The draw fails.
    Fail,
    /// These bytes; an eight-byte draw takes the first eight.
    Give([u8; 32]),
}

/// ChaCha20 stream numbers, the low byte of the nonce; the package's number is the next byte. Those of the consumers are
/// 0 to 2.
mod stream {
    pub const BUSY: u64 = 3;
    pub const FAILURES: u64 = 4;
    pub const WRITE_BACK: u64 = 5;
    pub const EVICTION: u64 = 6;
    pub const PREFETCH: u64 = 7;
    pub const INJECTION: u64 = 8;
    pub const MAC_KEY: u64 = 9;
    pub const INJECTION_SHIFT: u32 = 16;
    pub const PACKAGE_SHIFT: u32 = 8;
}

fn generator(seed: u64, number: u64) -> ChaCha20Rng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    let mut rng = ChaCha20Rng::from_seed(key);
    rng.set_stream(number);
    rng
}

/// The generator of `wb_order = seeded`.
pub(crate) fn write_back_generator(seed: u64) -> ChaCha20Rng {
    generator(seed, stream::WRITE_BACK)
}

/// The generator behind `evict_rate`.
pub(crate) fn eviction_generator(seed: u64) -> ChaCha20Rng {
    generator(seed, stream::EVICTION)
}

/// The MAC key of a package (MC-32), which hardware makes when power comes on.
pub(crate) fn mac_key(seed: u64, package: usize) -> [u8; 32] {
    let mut key = [0; 32];
    generator(seed, (package as u64) << stream::PACKAGE_SHIFT | stream::MAC_KEY).fill_bytes(&mut key);
    key
}

/// The generator behind `prefetch`.
pub(crate) fn prefetch_generator(seed: u64) -> ChaCha20Rng {
    generator(seed, stream::PREFETCH)
}

/// The generator of an injected fault: a function of the seed and of its number.
pub(crate) fn injection_generator(seed: u64, number: usize) -> ChaCha20Rng {
    generator(seed, (number as u64) << stream::INJECTION_SHIFT | stream::INJECTION)
}

#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
struct Stream {
    rng: ChaCha20Rng,
    script: VecDeque<EntropyStep>,
}

impl Stream {
    /// `failing` decides about draws that are not scripted.
    fn fill(&mut self, out: &mut [u8], failing: impl FnOnce() -> bool) -> Option<()> {
        match self.script.pop_front() {
            None if failing() => return None,
            None | Some(EntropyStep::Normal) => self.rng.fill_bytes(out),
            Some(EntropyStep::Fail) => return None,
            Some(EntropyStep::Give(bytes)) => out.copy_from_slice(bytes.get(..out.len())?),
        }
        Some(())
    }
}

/// The streams. A reset does not restart them (MK-034).
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(crate) struct Entropy {
    seed: u64,
    streams: [Stream; 3],
    busy: ChaCha20Rng,
    failures: ChaCha20Rng,
    /// How often a draw for PCONFIG fails (knob `entropy_fail_rate`).
    pub(crate) fail_rate: Rate,
}

impl Entropy {
    /// The generators of package number `package`: a RANDOM key differs between packages (MK specification section 4.7).
    pub(crate) fn new(seed: u64, package: usize) -> Self {
        let generator = |number| generator(seed, (package as u64) << stream::PACKAGE_SHIFT | number);
        let streams = [0, 1, 2].map(|number| Stream { rng: generator(number), script: VecDeque::new() });
        let (busy, failures) = (generator(stream::BUSY), generator(stream::FAILURES));
        Self { seed, streams, busy, failures, fail_rate: Rate::NEVER }
    }

    /// 32 bytes; `None` when the generator fails.
    pub(crate) fn draw(&mut self, stream: EntropyStream) -> Option<[u8; 32]> {
        let mut bytes = [0; 32];
        self.fill(stream, &mut bytes)?;
        Some(bytes)
    }

    /// 8 bytes as a little-endian integer; `None` when the generator fails.
    pub(crate) fn draw64(&mut self, stream: EntropyStream) -> Option<u64> {
        let mut bytes = [0; 8];
        self.fill(stream, &mut bytes)?;
        Some(u64::from_le_bytes(bytes))
    }

    fn fill(&mut self, stream: EntropyStream, out: &mut [u8]) -> Option<()> {
        let failing = || stream == EntropyStream::Pconfig && self.fail_rate.happens(&mut self.failures);
        self.streams[stream as usize].fill(out, failing)
    }

    /// Decides whether a PCONFIG finds the key table locked (knob `busy_rate`).
    pub(crate) fn busy(&mut self, rate: Rate) -> bool {
        rate.happens(&mut self.busy)
    }

    pub(crate) fn script(&mut self, stream: EntropyStream, steps: impl IntoIterator<Item = EntropyStep>) {
        self.streams[stream as usize].script.extend(steps);
    }

    /// True if both have the same seed and rate.
    pub(crate) fn same_generator(&self, other: &Self) -> bool {
        (self.seed, self.fail_rate) == (other.seed, other.fail_rate)
    }

    pub(crate) fn hash(&self, hasher: &mut StateHasher) {
        hasher.u64(self.seed);
        for rng in [&self.busy, &self.failures] {
            hasher.u128(rng.get_word_pos());
        }
        for stream in &self.streams {
            hasher.u128(stream.rng.get_word_pos());
            hasher.u64(stream.script.len() as u64);
            for step in &stream.script {
                match step {
                    EntropyStep::Normal => hasher.u64(0),
                    EntropyStep::Fail => hasher.u64(1),
                    EntropyStep::Give(bytes) => {
                        hasher.u64(2);
                        hasher.bytes(bytes);
                    }
                }
            }
        }
    }
}
