//! Host-side events about memory encryption (MK specification, Appendix B). Never visible to the guest.

use std::collections::VecDeque;

use x86::platform::ResetKind;

use crate::addr::{BusAddr, KeyId, LineAddr};
use crate::fault::WritebackAction;
use crate::tme::KeyField;

/// How a write of IA32_TME_ACTIVATE ended (MK specification section 3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActivateOutcome {
    /// #GP(0) by check W`n`.
    Refused(u8),
    /// Ignored because locked (knob `locked_write = ignore`).
    Ignored,
    /// W11: locked with encryption off.
    LockedOff,
    /// W12: new TME key.
    NewKey,
    /// W13: the random generator failed.
    EntropyFailure,
    /// W14: TME key restored.
    Restored,
    /// W15: no saved key.
    NothingSaved,
}

/// Something worth telling the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// An access used a KeyID above MK_TME_MAX_KEYS (MC-01).
    KeyidBeyondMax { address: BusAddr, keyid: KeyId },
    /// A logical processor used a KeyID before its 9FFH write (MC-14).
    CoreNotActivated { cpu: usize },
    /// An access to memory-mapped registers carried a KeyID (MC-31).
    KeyidOnMmio { address: BusAddr, keyid: KeyId },
    /// WBINVD or WBNOINVD wrote back several dirty copies of one line (MC-26).
    AliasWritebackConflict { line: LineAddr, kid_lost: KeyId, kid_won: KeyId },
    /// A load hit a line while another KeyID's copy of it was dirty.
    AliasReadStale { line: LineAddr, kid_read: KeyId, kid_dirty: KeyId },
    /// A write-back went to a line that another KeyID had written in DRAM.
    AliasDirtyOnKeySwitch { line: LineAddr, kid_before: KeyId, kid_now: KeyId },
    /// The operating system started with 982H unlocked.
    UnlockedAtOsStart,
    /// Packages disagree about 982H.
    PackageMismatch,
    /// PCONFIG leaf 0 reached the key table; `status` is the RAX it returns.
    Pconfig { kid: KeyId, command: u8, algorithm: u16, status: u64 },
    /// IA32_TME_ACTIVATE was written.
    Activate { value: u64, outcome: ActivateOutcome },
    /// The package was reset.
    Reset { kind: ResetKind },
    /// A line was read whose MAC or owner bit is wrong (MC-32).
    MacMismatch { line: LineAddr, keyid: KeyId },
    /// A line in DRAM was poisoned.
    PoisonCreated { line: LineAddr, keyid: KeyId },
    /// A load, fetch or page walk has met poison: #MC.
    PoisonConsumed { line: LineAddr, keyid: KeyId },
    /// A bus master has read a poisoned line, and was given the fixed pattern.
    PoisonToDevice { line: LineAddr, keyid: KeyId },
    /// Fault hook `tweak_fault`: a line was encrypted (`write`) or decrypted with a wrong data unit number.
    TweakFault { line: LineAddr, write: bool },
    /// Fault hook `dram_alias`: a line went to or came from the cells of another.
    DramAlias { line: LineAddr, cells: LineAddr, write: bool },
    /// Fault hook `writeback_filter`: a write-back was lost or performed twice.
    WritebackFault { line: LineAddr, keyid: KeyId, action: WritebackAction },
    /// Fault hook `keytable_flip`: a bit of a package's key table changed.
    KeytableFlip { package: usize, keyid: KeyId, field: KeyField, bit: u32 },
}

/// Events the queue holds before it drops new ones.
const QUEUE_LIMIT: usize = 4096;

/// A bounded queue, off by default.
#[derive(Debug, Default, Clone)]
pub struct Events {
    enabled: bool,
    queue: VecDeque<Event>,
    dropped: u64,
}

impl Events {
    /// Switches recording on or off; off also forgets what was recorded.
    pub fn enable(&mut self, on: bool) {
        self.enabled = on;
        if !on {
            self.queue.clear();
            self.dropped = 0;
        }
    }

    /// True while events are recorded.
    #[inline]
    pub fn enabled(&self) -> bool {
        self.enabled
    }

    /// Records an event, if enabled; beyond the limit it is only counted.
    #[inline]
    pub fn push(&mut self, event: Event) {
        if self.enabled {
            self.push_enabled(event);
        }
    }

    #[cold]
    fn push_enabled(&mut self, event: Event) {
        if self.queue.len() < QUEUE_LIMIT {
            self.queue.push_back(event);
        } else {
            self.dropped += 1;
        }
    }

    /// Takes the oldest event.
    pub fn take(&mut self) -> Option<Event> {
        self.queue.pop_front()
    }

    /// Events lost because nobody took them.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}
