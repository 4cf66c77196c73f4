//! What the sanitizer reports.

use std::fmt;

use crate::addr::{KeyId, LineAddr};

/// What was done wrong. `Display` gives the name that users type and read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HazardKind {
    /// A load, fetch or walk consumed bytes that are older than a store through another KeyID, or went to DRAM while that
    /// store may still be in the cache.
    StaleRead,
    /// A store met a dirty copy of the line under another KeyID, so that one of the two is lost; or a load consumed bytes
    /// that a write-back of a stale copy had put over newer ones.
    LostWrite,
    /// Bytes were consumed that another key had encrypted.
    WrongKeyRead,
    /// PCONFIG changed the key of a KeyID with dirty lines.
    DirtyLineAtRekey,
    /// Dirty under KeyID 0, then touched through another KeyID.
    MissingFlushOnAlloc,
    /// Dirty under a KeyID, then stored to through KeyID 0.
    MissingFlushOnFree,
    /// CLFLUSH or CLWB through a KeyID under which the line is clean, while it is dirty under another.
    WrongAliasFlushed,
    /// A device accessed the DRAM line through one KeyID while it was dirty under another.
    DmaBypassesDirtyLine,
}

impl HazardKind {
    /// Every kind.
    pub const ALL: [Self; 8] = [
        Self::StaleRead,
        Self::LostWrite,
        Self::WrongKeyRead,
        Self::DirtyLineAtRekey,
        Self::MissingFlushOnAlloc,
        Self::MissingFlushOnFree,
        Self::WrongAliasFlushed,
        Self::DmaBypassesDirtyLine,
    ];

    /// The name in reports and suppressions.
    pub const fn name(self) -> &'static str {
        match self {
            Self::StaleRead => "stale-read",
            Self::LostWrite => "lost-write",
            Self::WrongKeyRead => "wrong-key-read",
            Self::DirtyLineAtRekey => "dirty-line-at-rekey",
            Self::MissingFlushOnAlloc => "missing-flush-on-alloc",
            Self::MissingFlushOnFree => "missing-flush-on-free",
            Self::WrongAliasFlushed => "wrong-alias-flushed",
            Self::DmaBypassesDirtyLine => "dma-bypasses-dirty-line",
        }
    }

    /// The kind of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl fmt::Display for HazardKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Who accessed memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Agent {
    /// A logical processor, by number.
    Cpu(u32),
    /// A bus master; its site has the RIP and the instruction count at which the transfer took place.
    Device,
    /// The machine before the guest runs: images that firmware and loader put into RAM.
    Loader,
}

impl fmt::Display for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu(number) => write!(f, "CPU {number}"),
            Self::Device => f.write_str("device"),
            Self::Loader => f.write_str("loader"),
        }
    }
}

/// How memory was accessed. The memory type is judged by itself: a load is a load whether or not it is cached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    Load,
    Store,
    /// An instruction fetch.
    Fetch,
    /// A page walk reads a paging-structure entry.
    PageWalk,
    /// A page walk sets an accessed or dirty bit.
    PageWalkUpdate,
    /// CLFLUSH, CLFLUSHOPT.
    Flush,
    /// CLWB.
    WriteBack,
    /// WBINVD.
    WriteBackInvalidate,
    /// WBNOINVD.
    WriteBackAll,
    /// INVD.
    Invalidate,
    /// A store with a non-temporal hint, MOVDIRI, MOVDIR64B.
    NonTemporalStore,
    Pconfig,
    DmaRead,
    DmaWrite,
}

impl Operation {
    /// The name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::Store => "store",
            Self::Fetch => "fetch",
            Self::PageWalk => "page walk",
            Self::PageWalkUpdate => "accessed/dirty-bit update",
            Self::Flush => "CLFLUSH",
            Self::WriteBack => "CLWB",
            Self::WriteBackInvalidate => "WBINVD",
            Self::WriteBackAll => "WBNOINVD",
            Self::Invalidate => "INVD",
            Self::NonTemporalStore => "non-temporal store",
            Self::Pconfig => "PCONFIG",
            Self::DmaRead => "DMA read",
            Self::DmaWrite => "DMA write",
        }
    }

    /// True for operations that put bytes into memory.
    pub const fn writes(self) -> bool {
        matches!(self, Self::Store | Self::PageWalkUpdate | Self::NonTemporalStore | Self::DmaWrite)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One access: who, what, where in the program, and through which KeyID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Site {
    pub agent: Agent,
    pub operation: Operation,
    /// RIP of the instruction; of the interrupted one for DMA, and for what an interrupt or exception pushes.
    pub rip: u64,
    /// Instructions retired before the access. The CPU's, or for DMA the one of the CPU that ran it.
    pub icount: u64,
    pub keyid: KeyId,
    /// Current privilege level.
    pub cpl: u8,
}

/// What would have prevented the hazard. `Display` gives a sentence without a full stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MissingAction {
    /// The line is dirty under KeyID 0 and was handed to `keyid`.
    FlushOnAlloc { keyid: KeyId },
    /// The line is dirty under `keyid` and was handed back to KeyID 0.
    FlushOnFree { keyid: KeyId },
    /// The line is dirty under `dirty` and is accessed through `keyid`.
    FlushBeforeAccess { dirty: KeyId, keyid: KeyId },
    /// The copy under `keyid` is older than what `writer` wrote.
    DropStaleCopy { keyid: KeyId, writer: KeyId },
    /// The copy under `writer` was stale when a part of it was stored to and the whole of it written back.
    DropBeforeStore { writer: KeyId },
    /// Nothing was written through `keyid` since another key encrypted the bytes.
    WriteBeforeRead { keyid: KeyId },
    /// The key of `keyid` changes under dirty lines.
    FlushBeforeRekey { keyid: KeyId },
    /// `flushed` was flushed where `dirty` is dirty.
    FlushOther { flushed: KeyId, dirty: KeyId },
    /// The line is dirty under `dirty`, and a device accesses it through `keyid`.
    FlushBeforeDma { dirty: KeyId, keyid: KeyId },
}

impl fmt::Display for MissingAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FlushOnAlloc { keyid: KeyId(k) } => write!(
                f,
                "CLFLUSH the line through its KeyID 0 mapping, then SFENCE or MFENCE, before it is accessed through KeyID \
                 {k} for the first time"
            ),
            Self::FlushOnFree { keyid: KeyId(k) } => write!(
                f,
                "CLFLUSH the line through its KeyID {k} mapping, then SFENCE or MFENCE, before the page is given back to \
                 KeyID 0"
            ),
            Self::FlushBeforeAccess { dirty: KeyId(d), keyid: KeyId(k) } => write!(
                f,
                "CLFLUSH the line through its KeyID {d} mapping, then SFENCE or MFENCE, before it is accessed through \
                 KeyID {k}"
            ),
            Self::DropStaleCopy { keyid: KeyId(k), writer: KeyId(w) } => write!(
                f,
                "CLFLUSH the line through its KeyID {k} mapping after the write through KeyID {w} and before it is read \
                 through KeyID {k}"
            ),
            Self::DropBeforeStore { writer: KeyId(w) } => write!(
                f,
                "CLFLUSH the line through its KeyID {w} mapping before a part of it is stored to through KeyID {w}"
            ),
            Self::WriteBeforeRead { keyid: KeyId(k) } => write!(
                f,
                "write the bytes through the KeyID {k} mapping (zero the page) before they are read through it"
            ),
            Self::FlushBeforeRekey { keyid: KeyId(k) } => write!(
                f,
                "CLFLUSH every dirty line through its KeyID {k} mapping, or WBINVD, before PCONFIG changes the key of \
                 KeyID {k}"
            ),
            Self::FlushOther { flushed: KeyId(c), dirty: KeyId(d) } => write!(
                f,
                "flush through the KeyID {d} mapping, under which the line is dirty, instead of through KeyID {c}"
            ),
            Self::FlushBeforeDma { dirty: KeyId(d), keyid: KeyId(k) } => write!(
                f,
                "CLFLUSH the line through its KeyID {d} mapping before a device accesses it through KeyID {k}, or give \
                 the device the address with KeyID {d}"
            ),
        }
    }
}

/// A broken rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hazard {
    pub kind: HazardKind,
    /// The physical line, without KeyID; for [`HazardKind::DirtyLineAtRekey`] the first one in address order.
    pub line: LineAddr,
    /// First byte of the line that is concerned, 0 to 63.
    pub offset: u8,
    /// 1; for [`HazardKind::DirtyLineAtRekey`] the number of dirty lines.
    pub lines: u64,
    /// The access that makes the hazard.
    pub access: Site,
    /// The access it collides with: the store that made the line dirty, or that wrote what was read. `None` if it is not
    /// known (before power-on, or before the sanitizer was switched on).
    pub other: Option<Site>,
    /// The action that was missing.
    pub action: MissingAction,
}
