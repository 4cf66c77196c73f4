//! The random generator of the package (MK specification, Appendix A `rng`): pinned ChaCha20 streams from one seed.

use std::collections::VecDeque;

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::hash::StateHasher;

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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntropyStep {
    /// The generator's own output: passes over one draw.
    Normal,
    /// The draw fails.
    Fail,
    /// These bytes; an eight-byte draw takes the first eight.
    Give([u8; 32]),
}

#[derive(Debug)]
struct Stream {
    rng: ChaCha20Rng,
    script: VecDeque<EntropyStep>,
}

impl Stream {
    fn fill(&mut self, out: &mut [u8]) -> Option<()> {
        match self.script.pop_front().unwrap_or(EntropyStep::Normal) {
            EntropyStep::Normal => self.rng.fill_bytes(out),
            EntropyStep::Fail => return None,
            EntropyStep::Give(bytes) => out.copy_from_slice(bytes.get(..out.len())?),
        }
        Some(())
    }
}

/// The streams. A reset does not restart them (MK-034).
#[derive(Debug)]
pub(crate) struct Entropy {
    seed: u64,
    streams: [Stream; 3],
}

impl Entropy {
    pub(crate) fn new(seed: u64) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        let streams = [0, 1, 2].map(|number| {
            let mut rng = ChaCha20Rng::from_seed(key);
            rng.set_stream(number);
            Stream { rng, script: VecDeque::new() }
        });
        Self { seed, streams }
    }

    /// 32 bytes; `None` when the generator fails.
    pub(crate) fn draw(&mut self, stream: EntropyStream) -> Option<[u8; 32]> {
        let mut bytes = [0; 32];
        self.streams[stream as usize].fill(&mut bytes)?;
        Some(bytes)
    }

    /// 8 bytes as a little-endian integer; `None` when the generator fails.
    pub(crate) fn draw64(&mut self, stream: EntropyStream) -> Option<u64> {
        let mut bytes = [0; 8];
        self.streams[stream as usize].fill(&mut bytes)?;
        Some(u64::from_le_bytes(bytes))
    }

    pub(crate) fn script(&mut self, stream: EntropyStream, steps: impl IntoIterator<Item = EntropyStep>) {
        self.streams[stream as usize].script.extend(steps);
    }

    pub(crate) fn hash(&self, hasher: &mut StateHasher) {
        hasher.u64(self.seed);
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
