//! Bus traces: every line that goes between the memory controller and DRAM, with its time and its ciphertext, in a file.
//!
//! This is what an interposer in a DIMM socket would record, and more: the KeyID, which is not on the bus, and why the line
//! was transferred. docs/bus-trace.md is the user's page and defines the format byte by byte.
//!
//! Reading order: this file (what a trace says), [`format`] (how it is written down), [`writer`], [`reader`],
//! [`recorder`] (how the transfers of a machine get there).

mod format;
mod reader;
mod recorder;
mod writer;

use crate::CipherLine;
use crate::addr::{KeyId, LineAddr};

pub use format::VERSION;
pub use reader::{Reader, TraceError};
pub(crate) use recorder::Recorder;
pub use writer::{Counts, Writer};

/// Of which transfers the 64 bytes are recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ciphertext {
    /// Of none: times and addresses are enough for a DRAM simulator.
    Off,
    /// Of writes. A read returns what the last write to the line put there.
    Writes,
    /// Of all.
    All,
}

impl Ciphertext {
    /// Every choice.
    pub const ALL: [Self; 3] = [Self::Off, Self::Writes, Self::All];

    /// The name on command lines.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Writes => "writes",
            Self::All => "all",
        }
    }

    /// True when the bytes of transfers in this direction are recorded.
    pub const fn has(self, direction: Direction) -> bool {
        match self {
            Self::Off => false,
            Self::Writes => matches!(direction, Direction::Write),
            Self::All => true,
        }
    }
}

/// The machine that was traced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// RAM in bytes. Physical addresses go around the hole below 4 GiB ([`crate::AddressMap`]).
    pub ram_bytes: u64,
    /// Instructions in a second of virtual time.
    pub ips: u64,
    /// Ticks of the time-stamp counter in a second of virtual time: the unit of [`Stamp::time`].
    pub tsc_hz: u64,
    /// `M`: physical address bits, those of the KeyID included.
    pub maxphyaddr: u8,
    /// The largest number of KeyID bits that the processor can be given; [`Event::KeyidBits`] says how many it has.
    pub keyid_bits_max: u8,
    /// What is recorded of the bytes.
    pub ciphertext: Ciphertext,
    /// The whole configuration as a machine file (docs/machine-file.md), without what changes no result.
    pub machine: String,
}

/// When something happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stamp {
    /// Instructions retired before the one that caused it; iterations of string instructions count like instructions.
    pub icount: u64,
    /// Ticks that passed without instructions (HLT, PAUSE).
    pub skipped: u64,
}

impl Header {
    /// Virtual time in ticks of the time-stamp counter, at `tsc_hz` to the second.
    pub fn time(&self, stamp: Stamp) -> u64 {
        let ticks = u128::from(stamp.icount) * u128::from(self.tsc_hz) / u128::from(self.ips.max(1));
        (ticks as u64).wrapping_add(stamp.skipped)
    }
}

/// Which way a line goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// From DRAM to the controller.
    Read,
    /// From the controller to DRAM.
    Write,
}

/// For whom a line is transferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// The cache: a fill (read) or a write-back (write).
    Cache,
    /// An access of the processor past the cache: UC, WC, WT and WP memory, non-temporal stores, CR0.CD = 1. A store to a
    /// part of a line is a read and a write.
    Processor,
    /// A bus master.
    Device,
    /// The firmware, which loads images as a bus master does.
    Loader,
}

impl Cause {
    /// Every cause, by its number in the file.
    pub const ALL: [Self; 4] = [Self::Cache, Self::Processor, Self::Device, Self::Loader];

    /// The name in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cache => "cache",
            Self::Processor => "processor",
            Self::Device => "device",
            Self::Loader => "loader",
        }
    }
}

/// A line that was transferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transfer {
    /// Number of the line, which is its physical address without the KeyID, divided by 64.
    pub line: LineAddr,
    /// The KeyID that the transaction carried.
    pub keyid: KeyId,
    /// Read or written.
    pub direction: Direction,
    /// For whom.
    pub cause: Cause,
    /// It went through the cipher. False: DRAM has the bytes as they are (TME off or bypassed, a KeyID without encryption,
    /// the exclusion range).
    pub encrypted: bool,
    /// What the data pins carried, if it was recorded.
    pub ciphertext: Option<CipherLine>,
}

/// What else matters to who follows DRAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Power was lost (cold reset): every cell reads as zero again.
    PowerLoss,
    /// Full physical addresses have this many KeyID bits from now on, the topmost of `maxphyaddr`. 0 until it is said.
    KeyidBits(u8),
}

/// A transfer or an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// A line was transferred.
    Transfer(Transfer),
    /// Something else happened.
    Event(Event),
}

/// An entry of a trace. Entries are in the order in which the lines were transferred, and times do not decrease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// When.
    pub stamp: Stamp,
    /// What.
    pub what: What,
}
