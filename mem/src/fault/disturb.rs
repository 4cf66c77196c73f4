//! What can go wrong on the memory side, and when (design D9; MK specification section 9).

use super::hammer::Rowhammer;
use crate::addr::{BusAddr, KeyId, LINE_BYTES, LineAddr};
use crate::integrity::LineMetadata;
use crate::rate::Rate;

use crate::{CipherLine, KeyField};

/// Bits of a line: bit `n` is bit `n % 8` of byte `n / 8`.
pub const LINE_BITS: u16 = 8 * LINE_BYTES as u16;

/// Different bits of a line, ascending.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Bits(Vec<u16>);

impl Bits {
    /// `None` if there is none, or one at or above [`LINE_BITS`].
    pub fn new(bits: impl IntoIterator<Item = u16>) -> Option<Self> {
        let mut bits: Vec<u16> = bits.into_iter().collect();
        bits.sort_unstable();
        bits.dedup();
        let valid = bits.last().is_some_and(|last| *last < LINE_BITS);
        valid.then_some(Self(bits))
    }

    /// The numbers, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        self.0.iter().copied()
    }

    pub(crate) fn flip(&self, line: &mut [u8; LINE_BYTES]) {
        for bit in self.iter() {
            line[usize::from(bit / 8)] ^= 1 << (bit % 8);
        }
    }

    pub(crate) fn force(&self, line: &mut [u8; LINE_BYTES], value: bool) {
        for bit in self.iter() {
            let (byte, mask) = (usize::from(bit / 8), 1 << (bit % 8));
            line[byte] = if value { line[byte] | mask } else { line[byte] & !mask };
        }
    }
}

/// Which way a line goes, seen from the controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Way {
    /// From DRAM.
    Read,
    /// To DRAM.
    Write,
    /// Either.
    Both,
}

impl Way {
    pub(super) fn covers(self, direction: super::Direction) -> bool {
        match self {
            Self::Read => direction == super::Direction::Read,
            Self::Write => direction == super::Direction::Write,
            Self::Both => true,
        }
    }
}

/// What becomes of a write-back that does not simply take place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LateWriteBack {
    /// It is lost: the line is clean in the cache, DRAM keeps its old contents.
    Drop,
    /// It is performed twice.
    Duplicate,
    /// It is performed this many instructions later, with the key that the KeyID has then.
    Delay(u64),
}

/// A fault of the memory side.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Disturbance {
    /// DRAM cells change once (section 9.5).
    Flip { line: LineAddr, bits: Bits },
    /// DRAM cells hold one value, whatever is written. They keep it when the fault goes.
    Stuck { line: LineAddr, bits: Bits, value: bool },
    /// Each time the line is read from DRAM, its bits arrive flipped with this probability. The cells do not change.
    Intermittent { line: LineAddr, bits: Bits, rate: Rate },
    /// Bits of the line are flipped on the bus. Each transfer that is hit is one effect.
    Bus { line: LineAddr, bits: Bits, way: Way },
    /// Bits of the line's MAC change once (MC-32). Numbers from [`crate::MAC_BITS`] on have no effect.
    Mac { line: LineAddr, bits: Bits },
    /// DRAM loses a part of its charge: each bit of every page ever written is flipped with this probability (section 9.1).
    Decay { rate: Rate },
    /// Rows that are activated often disturb their neighbours (section 9.5).
    Rowhammer(Rowhammer),
    /// The cells are replaced by what [`Effect::Capture`] of the same injection took from them (section 9.2).
    Replay { line: LineAddr },
    /// The cells are replaced by those of another line, or one 16-byte block of them (section 9.4).
    Splice { line: LineAddr, from: LineAddr, block: Option<u8> },
    /// DRAM decoding takes these address bits for 0 (sections 9.7 and 9.8), as [`super::Faults::dram_alias`].
    Alias { mask: u64 },
    /// The cipher is given a wrong data unit number: without the bits of `ignore`, then XORed with `xor` (section 9.12).
    Tweak { xor: u64, ignore: u64, way: Way },
    /// A bit of a key table entry changes once (section 9.11).
    Key { package: usize, keyid: KeyId, field: KeyField, bit: u32 },
    /// A bit of IA32_TME_EXCLUDE_MASK or, with `base`, IA32_TME_EXCLUDE_BASE changes once (section 9.17).
    Exclude { base: bool, bit: u32 },
    /// A write-back of the line goes wrong (section 9.13).
    WriteBack { line: LineAddr, keyid: Option<KeyId>, how: LateWriteBack },
    /// CLFLUSH, CLFLUSHOPT and CLWB of the line do nothing.
    Flush { line: LineAddr, keyid: Option<KeyId> },
    /// Bits of a cached copy change once. Without effect where the line is not in the cache under this KeyID.
    Cache { line: LineAddr, keyid: KeyId, bits: Bits },
    /// A wire of the KeyID between cores and caches is stuck (section 9.10). `bit` counts from the KeyID's lowest.
    KeyidWire { bit: u8, value: bool },
    /// The next key programmings find the key table locked (section 9.15).
    PconfigBusy { count: u32 },
    /// The next draws for KEYID_SET_KEY_RANDOM fail.
    PconfigEntropy { count: u32 },
    /// The next RDRAND and RDSEED fail.
    Random { count: u32 },
}

impl Disturbance {
    /// The line it is about; `None` for those that are not about one.
    pub fn line(&self) -> Option<LineAddr> {
        match self {
            Self::Flip { line, .. }
            | Self::Stuck { line, .. }
            | Self::Intermittent { line, .. }
            | Self::Bus { line, .. }
            | Self::Mac { line, .. }
            | Self::Replay { line }
            | Self::Splice { line, .. }
            | Self::WriteBack { line, .. }
            | Self::Flush { line, .. }
            | Self::Cache { line, .. } => Some(*line),
            Self::Decay { .. }
            | Self::Rowhammer(_)
            | Self::Alias { .. }
            | Self::Tweak { .. }
            | Self::Key { .. }
            | Self::Exclude { .. }
            | Self::KeyidWire { .. }
            | Self::PconfigBusy { .. }
            | Self::PconfigEntropy { .. }
            | Self::Random { .. } => None,
        }
    }

    /// True for those that stay until they are taken back; the others happen once.
    pub fn lasts(&self) -> bool {
        matches!(
            self,
            Self::Stuck { .. }
                | Self::Intermittent { .. }
                | Self::Bus { .. }
                | Self::Rowhammer(_)
                | Self::Alias { .. }
                | Self::Tweak { .. }
                | Self::WriteBack { .. }
                | Self::Flush { .. }
                | Self::KeyidWire { .. }
        )
    }

    /// True for those that need transfers as they are: [`crate::CacheModel::Off`] has the results of a machine without a
    /// cache, not its transfers.
    pub fn needs_transfers(&self) -> bool {
        matches!(
            self,
            Self::Intermittent { .. }
                | Self::Bus { .. }
                | Self::Rowhammer(_)
                | Self::WriteBack { .. }
                | Self::Flush { .. }
                | Self::Cache { .. }
        )
    }
}

/// Something that memory sees happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Occasion {
    /// A line comes into the cache, before it is read from DRAM.
    Fill { line: LineAddr, keyid: Option<KeyId> },
    /// A dirty line leaves the cache or is cleaned, before it is encrypted.
    WriteBack { line: LineAddr, keyid: Option<KeyId> },
    /// CLFLUSH, CLFLUSHOPT or CLWB of a line, before it takes place, whether or not the line is cached.
    Flush { line: LineAddr, keyid: Option<KeyId> },
    /// A load (`read`), or a store (`write`), that includes the byte at a linear address, before it takes place.
    Linear { address: u64, read: bool, write: bool },
    /// The same for a physical address, through whatever KeyID; accesses of the page walker included.
    Physical { address: u64, read: bool, write: bool },
    /// PCONFIG is about to program a key.
    Pconfig,
    /// WRMSR of this MSR, before it takes place.
    Wrmsr { msr: u32 },
}

impl Occasion {
    pub(super) fn line(&self) -> Option<LineAddr> {
        match self {
            Self::Fill { line, .. } | Self::WriteBack { line, .. } | Self::Flush { line, .. } => Some(*line),
            _ => None,
        }
    }
}

/// What happens on an occasion.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Effect {
    /// The fault; `times`: it goes after so many effects.
    Disturb { disturbance: Disturbance, times: Option<u64> },
    /// The cells of a line are remembered for [`Disturbance::Replay`].
    Capture { line: LineAddr },
    /// Nothing: somebody else acts on the report.
    Report,
}

/// Where and when something happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Moment {
    /// Instructions retired before the one under way.
    pub icount: u64,
    /// Its RIP.
    pub rip: u64,
    /// The KeyID of the access or line, where there is one.
    pub keyid: Option<KeyId>,
}

/// A report about an injection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// The number that it was armed with.
    pub number: usize,
    pub what: Reported,
    pub moment: Moment,
}

/// What is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reported {
    /// The occasion has come.
    Triggered,
    /// The fault had its first effect.
    Effect,
    /// A write-back is held back, for so many instructions.
    Held { instructions: u64 },
}

/// An access of the processor.
#[derive(Debug, Clone, Copy)]
pub struct Accessed {
    /// `None`: the page walker's.
    pub linear: Option<u64>,
    pub bus: BusAddr,
    pub len: usize,
    pub write: bool,
}

/// Cells and metadata taken from a line.
pub(super) type Captured = (usize, CipherLine, LineMetadata);
