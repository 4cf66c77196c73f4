//! Faults between the encryption engines and DRAM, for experiments (MK specification sections 9.7, 9.8, 9.12, 9.13). Host-side: the
//! guest sees nothing of them but the bytes that its loads return.
//!
//! [`Faults`] are armed and disarmed by hand. [`disturb`] has the faults that wait for something, and last as long as they
//! should: `inject` keeps them, `arm` is where the controller and the processor meet them.

pub(crate) mod about;
mod arm;
pub mod disturb;
mod hammer;
pub(crate) mod inject;

/// A number below `end`, or 0, that follows from the seed and an injection's number.
pub fn injection_number(seed: u64, number: usize, end: u64) -> u64 {
    crate::rate::below(&mut crate::tme::injection_generator(seed, number), end)
}

pub use disturb::{
    Accessed, Bits, Disturbance, Effect, LINE_BITS, LateWriteBack, Moment, Occasion, Report, Reported, Way,
};

pub use hammer::Rowhammer;

use crate::addr::{KeyId, LINE_SHIFT, LINES_PER_PAGE, LineAddr};
use crate::hash::StateHasher;

/// Which way a line goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Read,
    Write,
}

/// The cells and the data unit number with which one line is transferred.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Transfer {
    pub(crate) page: u32,
    pub(crate) line: u32,
    pub(crate) dun: u64,
}

/// The cipher is given a wrong data unit number (section 9.12).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TweakFault {
    /// XORed to the data unit number, `Mem(pa) >> 6`.
    pub xor_mask: u64,
    /// On decryption.
    pub read: bool,
    /// On encryption.
    pub write: bool,
}

/// What becomes of a write-back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum WritebackAction {
    /// It is performed.
    Pass,
    /// It is lost: the line is clean in the cache, DRAM keeps its old contents.
    Drop,
    /// It is performed twice.
    Duplicate,
}

/// Which write-backs are disturbed, and how (section 9.13). Write-backs only: stores past the cache and DMA pass. Without
/// effect on `cache = off`, which has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct WritebackFilter {
    /// First line, without KeyID.
    pub first: LineAddr,
    /// Last line, inclusive.
    pub last: LineAddr,
    /// The KeyID; `None` for any.
    pub keyid: Option<KeyId>,
    /// What happens to those that match. The others pass.
    pub action: WritebackAction,
}

impl WritebackFilter {
    fn action(&self, line: LineAddr, keyid: KeyId) -> WritebackAction {
        let matches = (self.first..=self.last).contains(&line) && self.keyid.is_none_or(|k| k == keyid);
        if matches { self.action } else { WritebackAction::Pass }
    }
}

/// Armed faults. Nothing is armed by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Faults {
    /// Address bits that DRAM decoding takes for 0 (sections 9.7 and 9.8). The tweak uses the full address (section 6.2).
    /// DRAM counts RAM without the hole below 4 GiB, so that these are bits of the physical address for RAM below the
    /// hole. Bits 5:0 have no effect. The host's probes are not subject to it.
    pub dram_alias: Option<u64>,
    /// A wrong tweak.
    pub tweak_fault: Option<TweakFault>,
    /// Lost or repeated write-backs.
    pub writeback_filter: Option<WritebackFilter>,
}

impl Faults {
    /// True when anything is armed.
    pub fn armed(&self) -> bool {
        *self != Self::default()
    }

    pub(crate) fn apply(&self, transfer: Transfer, direction: Direction) -> Transfer {
        let Transfer { page, line, mut dun } = transfer;
        let cells = u64::from(page) * LINES_PER_PAGE as u64 + u64::from(line);
        // Clearing bits makes the number smaller, so the cells exist.
        let cells = cells & !(self.dram_alias.unwrap_or(0) >> LINE_SHIFT);
        if let Some(fault) = self.tweak_fault
            && (if direction == Direction::Read { fault.read } else { fault.write })
        {
            dun ^= fault.xor_mask;
        }
        let (page, line) = (cells / LINES_PER_PAGE as u64, cells % LINES_PER_PAGE as u64);
        Transfer { page: page as u32, line: line as u32, dun }
    }

    pub(crate) fn write_back(&self, line: LineAddr, keyid: KeyId) -> WritebackAction {
        self.writeback_filter.map_or(WritebackAction::Pass, |filter| filter.action(line, keyid))
    }

    pub(crate) fn hash(&self, hasher: &mut StateHasher) {
        let Self { dram_alias, tweak_fault, writeback_filter } = *self;
        hasher.u64(dram_alias.unwrap_or(0));
        if let Some(TweakFault { xor_mask, read, write }) = tweak_fault {
            hasher.bytes(&[1, u8::from(read), u8::from(write)]);
            hasher.u64(xor_mask);
        }
        if let Some(WritebackFilter { first, last, keyid, action }) = writeback_filter {
            hasher.bytes(&[2, action as u8, u8::from(keyid.is_some())]);
            for value in [first.0, last.0, keyid.map_or(0, |k| u64::from(k.0))] {
                hasher.u64(value);
            }
        }
    }
}
