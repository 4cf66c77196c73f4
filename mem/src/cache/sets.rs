//! Sets and ways of the `exact` model.
//!
//! The victim of a set is its oldest fill (MC-26). Hits never matter, so a fast path that hides them cannot change what
//! the guest sees. The set comes from `Mem(pa)`, so the aliases of a line compete for one set (MC-27).

use crate::addr::{LINE_BYTES, LINE_SHIFT, LINES_PER_PAGE, PhysAddr};
use crate::frame::FramePtr;

/// A cached line by its place in the pool: frame index and line number.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct LineId(u32);

impl LineId {
    const VACANT: Self = Self(u32::MAX);

    pub(super) fn new(frame: FramePtr, line: u32) -> Self {
        Self(frame.index() * LINES_PER_PAGE as u32 + line)
    }

    pub(super) fn frame_index(self) -> u32 {
        self.0 / LINES_PER_PAGE as u32
    }

    pub(super) fn line(self) -> u32 {
        self.0 % LINES_PER_PAGE as u32
    }
}

/// The largest cache, so that a [`LineId`] fits its integer: 1 GiB.
pub(crate) const CACHE_BYTES_MAX: usize = 1 << 30;
pub(crate) const CACHE_WAYS_MAX: usize = 64;

/// Which lines are in the cache, set by set.
pub(super) struct Sets {
    ways: usize,
    set_mask: usize,
    /// `ways` places per set, oldest fill first.
    lines: Vec<LineId>,
    /// Occupied places per set.
    filled: Vec<u8>,
}

impl Sets {
    /// `bytes / (64 * ways)` is a power of two.
    pub(super) fn new(bytes: usize, ways: usize) -> Self {
        let sets = bytes / (LINE_BYTES * ways);
        Self { ways, set_mask: sets - 1, lines: vec![LineId::VACANT; sets * ways], filled: vec![0; sets] }
    }

    fn set_of(&self, address: PhysAddr) -> usize {
        (address.0 >> LINE_SHIFT) as usize & self.set_mask
    }

    /// Makes room for a line. The victim, if the set was full, is no longer listed.
    pub(super) fn make_room(&mut self, address: PhysAddr) -> Option<LineId> {
        let set = self.set_of(address);
        if usize::from(self.filled[set]) < self.ways {
            return None;
        }
        let first = set * self.ways;
        let victim = self.lines[first];
        self.lines.copy_within(first + 1..first + self.ways, first);
        self.filled[set] -= 1;
        Some(victim)
    }

    /// Lists the newest fill of a set that has room.
    pub(super) fn push(&mut self, address: PhysAddr, id: LineId) {
        let set = self.set_of(address);
        self.lines[set * self.ways + usize::from(self.filled[set])] = id;
        self.filled[set] += 1;
    }

    /// Takes a line off the list.
    pub(super) fn remove(&mut self, address: PhysAddr, id: LineId) {
        let set = self.set_of(address);
        let (first, filled) = (set * self.ways, usize::from(self.filled[set]));
        if let Some(at) = self.lines[first..first + filled].iter().position(|line| *line == id) {
            self.lines.copy_within(first + at + 1..first + filled, first + at);
            self.filled[set] -= 1;
        }
    }

    pub(super) fn clear(&mut self) {
        self.filled.fill(0);
    }

    pub(super) fn ways(&self) -> usize {
        self.ways
    }

    /// The line in a place: `ways` places per set, the free ones last.
    pub(super) fn at(&self, place: usize) -> Option<LineId> {
        (place % self.ways < usize::from(self.filled[place / self.ways])).then(|| self.lines[place])
    }

    /// The lines of each set, oldest fill first.
    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = &[LineId]> + '_ {
        self.lines.chunks_exact(self.ways).zip(&self.filled).map(|(lines, &filled)| &lines[..usize::from(filled)])
    }
}
