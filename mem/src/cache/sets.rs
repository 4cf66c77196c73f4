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

/// Sets in a group, the unit in which snapshots share them.
pub(crate) const GROUP_SETS: usize = 64;

/// Which lines are in the cache, set by set.
pub(super) struct Sets {
    ways: usize,
    set_mask: usize,
    /// `ways` places per set, oldest fill first.
    lines: Vec<LineId>,
    /// Occupied places per set.
    filled: Vec<u8>,
    /// Groups of sets ([`GROUP_SETS`]) that changed since the last snapshot or restore.
    changed: Vec<bool>,
}

impl Sets {
    /// `bytes / (64 * ways)` is a power of two.
    pub(super) fn new(bytes: usize, ways: usize) -> Self {
        let sets = bytes / (LINE_BYTES * ways);
        Self {
            ways,
            set_mask: sets - 1,
            lines: vec![LineId::VACANT; sets * ways],
            filled: vec![0; sets],
            changed: vec![true; sets.div_ceil(GROUP_SETS)],
        }
    }

    fn set_of(&self, address: PhysAddr) -> usize {
        (address.0 >> LINE_SHIFT) as usize & self.set_mask
    }

    /// The line that [`make_room`](Self::make_room) would take off the list.
    #[inline]
    pub(super) fn next_victim(&self, address: PhysAddr) -> Option<LineId> {
        let set = self.set_of(address);
        (usize::from(self.filled[set]) >= self.ways).then(|| self.lines[set * self.ways])
    }

    /// Makes room for a line. The victim, if the set was full, is no longer listed.
    pub(super) fn make_room(&mut self, address: PhysAddr) -> Option<LineId> {
        let victim = self.next_victim(address)?;
        let set = self.set_of(address);
        let first = set * self.ways;
        self.lines.copy_within(first + 1..first + self.ways, first);
        self.filled[set] -= 1;
        self.changed[set / GROUP_SETS] = true;
        Some(victim)
    }

    /// Lists the newest fill of a set that has room.
    pub(super) fn push(&mut self, address: PhysAddr, id: LineId) {
        let set = self.set_of(address);
        self.lines[set * self.ways + usize::from(self.filled[set])] = id;
        self.filled[set] += 1;
        self.changed[set / GROUP_SETS] = true;
    }

    /// Takes a line off the list.
    pub(super) fn remove(&mut self, address: PhysAddr, id: LineId) {
        let set = self.set_of(address);
        let (first, filled) = (set * self.ways, usize::from(self.filled[set]));
        if let Some(at) = self.lines[first..first + filled].iter().position(|line| *line == id) {
            self.lines.copy_within(first + at + 1..first + filled, first + at);
            self.filled[set] -= 1;
            self.changed[set / GROUP_SETS] = true;
        }
    }

    pub(super) fn clear(&mut self) {
        self.filled.fill(0);
        self.changed.fill(true);
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

    /// The groups of sets.
    pub(super) fn groups(&self) -> usize {
        self.changed.len()
    }

    /// True if the group may differ from the last snapshot.
    pub(super) fn has_changed(&self, group: usize) -> bool {
        self.changed[group]
    }

    /// The group is as the last snapshot has it.
    pub(super) fn note_saved(&mut self, group: usize) {
        self.changed[group] = false;
    }

    /// The lines of each set of a group, oldest fill first.
    pub(super) fn group(&self, group: usize) -> impl Iterator<Item = &[LineId]> + '_ {
        let sets = group * GROUP_SETS..self.filled.len().min((group + 1) * GROUP_SETS);
        sets.map(|set| &self.lines[set * self.ways..][..usize::from(self.filled[set])])
    }

    /// Replaces the lines of the sets of a group, oldest fill first. Sets and lines beyond those that there are are ignored.
    pub(super) fn set_group(&mut self, group: usize, sets: impl Iterator<Item = impl Iterator<Item = LineId>>) {
        for (set, lines) in (group * GROUP_SETS..self.filled.len().min((group + 1) * GROUP_SETS)).zip(sets) {
            let mut filled = 0;
            for (place, line) in self.lines[set * self.ways..][..self.ways].iter_mut().zip(lines) {
                *place = line;
                filled += 1;
            }
            self.filled[set] = filled;
        }
        self.changed[group] = false;
    }
}
