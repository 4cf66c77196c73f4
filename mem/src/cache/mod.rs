//! The `exact` cache: tags carry the KeyID, and copies of one line under several KeyIDs do not know of each other
//! (rules R1 to R5).
//!
//! The victim of a set is its oldest fill (MC-26). Hits never matter, so a fast path that hides them cannot change what
//! the guest sees. The set comes from `Mem(pa)`, so the aliases of a line compete for one set (MC-27).

mod pool;

use crate::addr::{BusAddr, LINE_BYTES, LINE_SHIFT, LINES_PER_PAGE, PAGE_BYTES};
use crate::controller::{Controller, Place};
use crate::event::Event;
use crate::frame::FramePtr;
use crate::hash::StateHasher;

pub(crate) use pool::{FramePool, line_bit};

/// A cached line by its place in the pool: frame index and line number.
#[derive(Clone, Copy, PartialEq, Eq)]
struct LineId(u32);

impl LineId {
    const VACANT: Self = Self(u32::MAX);

    fn new(frame: FramePtr, line: u32) -> Self {
        Self(frame.index() * LINES_PER_PAGE as u32 + line)
    }

    fn frame_index(self) -> u32 {
        self.0 / LINES_PER_PAGE as u32
    }

    fn line(self) -> u32 {
        self.0 % LINES_PER_PAGE as u32
    }
}

/// The largest cache, so that a [`LineId`] fits its integer: 1 GiB.
pub(crate) const CACHE_BYTES_MAX: usize = 1 << 30;
pub(crate) const CACHE_WAYS_MAX: usize = 64;

pub(crate) struct ExactCache {
    pub(crate) pool: FramePool,
    ways: usize,
    set_mask: usize,
    /// `ways` places per set, oldest fill first.
    lines: Vec<LineId>,
    /// Occupied places per set.
    filled: Vec<u8>,
    /// Work space for ordered write-back: (full PA, line).
    order: Vec<(u64, LineId)>,
}

impl ExactCache {
    /// `bytes / (64 * ways)` is a power of two.
    pub(crate) fn new(bytes: usize, ways: usize, ram_pages: usize, fast: bool) -> Self {
        let lines = bytes / LINE_BYTES;
        let sets = lines / ways;
        Self {
            pool: FramePool::new(ram_pages, lines, fast),
            ways,
            set_mask: sets - 1,
            lines: vec![LineId::VACANT; sets * ways],
            filled: vec![0; sets],
            order: Vec::with_capacity(lines),
        }
    }

    /// The frame in which this line is resident.
    #[inline(always)]
    pub(crate) fn hit(&self, place: Place) -> Option<FramePtr> {
        let frame = self.pool.find(place.page, place.address.page())?;
        (frame.resident() & line_bit(place.line()) != 0).then_some(frame)
    }

    /// Brings a missing line in. A victim is written back before the line is read, which matters when the victim is an
    /// alias of it.
    pub(crate) fn fill(&mut self, controller: &mut Controller, place: Place) -> FramePtr {
        let frame = self.pool.obtain(place.page, place.address.page());
        let line = place.line();
        let set = self.set_of(controller, place);
        let first = set * self.ways;
        if usize::from(self.filled[set]) == self.ways {
            let victim = self.lines[first];
            self.lines.copy_within(first + 1..first + self.ways, first);
            self.filled[set] -= 1;
            self.write_back(controller, victim);
            self.forget(victim);
        }
        controller.stats.count_fill(controller.tme.layout().keyid(place.address));
        let plain = controller.read_line(place);
        frame.0.set_line(line, &plain);
        frame.0.resident.set(frame.resident() | line_bit(line));
        self.lines[first + usize::from(self.filled[set])] = LineId::new(frame, line);
        self.filled[set] += 1;
        self.pool.refresh(place.page, line);
        frame
    }

    /// Marks a resident line dirty. True when blocks were decoded from it: they are void now.
    #[inline]
    pub(crate) fn store(&mut self, frame: FramePtr, line: u32) -> bool {
        let bit = line_bit(line);
        let code_hit = frame.code() & bit != 0;
        if code_hit || frame.dirty() & bit == 0 {
            frame.0.code.set(frame.code() & !bit);
            frame.0.exec_ok.set(frame.exec_ok() & !bit);
            frame.0.dirty.set(frame.dirty() | bit);
            self.pool.refresh(frame.0.page_index.get(), line);
        }
        code_hit
    }

    /// Notes that blocks were decoded from a line.
    pub(crate) fn set_code(&mut self, frame: FramePtr, line: u32) {
        let bit = line_bit(line);
        frame.0.code.set(frame.code() | bit);
        if frame.resident() & bit != 0 {
            frame.0.exec_ok.set(frame.exec_ok() | bit);
            self.pool.refresh(frame.0.page_index.get(), line);
        }
    }

    /// Forgets code decoded from a line that was written without the cache; the frame if there was some.
    pub(crate) fn void_code(&mut self, place: Place) -> Option<FramePtr> {
        let frame = self.pool.find(place.page, place.address.page())?;
        let bit = line_bit(place.line());
        if frame.code() & bit == 0 {
            return None;
        }
        frame.0.code.set(frame.code() & !bit);
        frame.0.exec_ok.set(frame.exec_ok() & !bit);
        self.pool.refresh(place.page, place.line());
        Some(frame)
    }

    /// CLFLUSH of one tag; with `write_back = false` the line is dropped as INVD would.
    pub(crate) fn flush(&mut self, controller: &mut Controller, place: Place, write_back: bool) {
        let Some(frame) = self.hit(place) else { return };
        let id = LineId::new(frame, place.line());
        if write_back {
            self.write_back(controller, id);
        }
        let set = self.set_of(controller, place);
        let (first, filled) = (set * self.ways, usize::from(self.filled[set]));
        if let Some(at) = self.lines[first..first + filled].iter().position(|line| *line == id) {
            self.lines.copy_within(first + at + 1..first + filled, first + at);
            self.filled[set] -= 1;
        }
        self.forget(id);
    }

    /// CLWB of one tag.
    pub(crate) fn clean(&mut self, controller: &mut Controller, place: Place) {
        if let Some(frame) = self.hit(place) {
            self.write_back(controller, LineId::new(frame, place.line()));
        }
    }

    /// Writes back every dirty line in ascending order of full PA (MC-26), keeping all lines.
    pub(crate) fn write_back_all(&mut self, controller: &mut Controller) {
        let mut order = std::mem::take(&mut self.order);
        order.clear();
        for id in self.resident_lines() {
            let frame = self.pool.get(id.frame_index());
            if frame.dirty() & line_bit(id.line()) != 0 {
                order.push((line_address(frame, id.line()).0, id));
            }
        }
        order.sort_unstable_by_key(|&(address, _)| address);
        for &(_, id) in &order {
            if controller.tme.events.enabled() {
                self.note_conflict(controller, id);
            }
            self.write_back(controller, id);
        }
        self.order = order;
    }

    /// Drops every line without write-back.
    pub(crate) fn drop_all(&mut self) {
        for set in 0..self.filled.len() {
            for at in set * self.ways..set * self.ways + usize::from(self.filled[set]) {
                let frame = self.pool.get(self.lines[at].frame_index());
                let bits = frame.0;
                for bits in [&bits.resident, &bits.dirty, &bits.exec_ok, &bits.fast_r, &bits.fast_w] {
                    bits.set(0);
                }
                self.pool.note_empty(frame);
            }
        }
        self.filled.fill(0);
    }

    /// Tags, dirtiness, bytes and fill order.
    pub(crate) fn hash(&self, hasher: &mut StateHasher) {
        hasher.u64(self.filled.len() as u64);
        hasher.u64(self.ways as u64);
        for (set, &filled) in self.filled.iter().enumerate() {
            hasher.u64(u64::from(filled));
            for id in &self.lines[set * self.ways..][..usize::from(filled)] {
                let frame = self.pool.get(id.frame_index());
                let dirty = frame.dirty() & line_bit(id.line()) != 0;
                // Line addresses have six free low bits.
                hasher.u64(line_address(frame, id.line()).0 | u64::from(dirty));
                hasher.bytes(&frame.line_bytes(id.line()));
            }
        }
    }

    fn set_of(&self, controller: &Controller, place: Place) -> usize {
        (controller.tme.layout().mem(place.address).0 >> LINE_SHIFT) as usize & self.set_mask
    }

    fn resident_lines(&self) -> impl Iterator<Item = LineId> + '_ {
        let sets = self.lines.chunks_exact(self.ways).zip(&self.filled);
        sets.flat_map(|(lines, &filled)| lines.iter().take(usize::from(filled)).copied())
    }

    /// Writes a line back if it is dirty, and makes it clean.
    fn write_back(&self, controller: &mut Controller, id: LineId) {
        let (frame, line) = (self.pool.get(id.frame_index()), id.line());
        let bit = line_bit(line);
        if frame.dirty() & bit == 0 {
            return;
        }
        let place = Place { address: line_address(frame, line), page: frame.0.page_index.get() };
        controller.write_back(place, &frame.0.line(line));
        frame.0.dirty.set(frame.dirty() & !bit);
        self.pool.refresh(place.page, line);
    }

    /// Takes a line's residency away. Its `code` bit stays ("parked"): the core compares the bytes when they return.
    fn forget(&mut self, id: LineId) {
        let (frame, line) = (self.pool.get(id.frame_index()), id.line());
        let bit = line_bit(line);
        for bits in [&frame.0.resident, &frame.0.dirty, &frame.0.exec_ok, &frame.0.fast_r, &frame.0.fast_w] {
            bits.set(bits.get() & !bit);
        }
        if frame.resident() == 0 {
            self.pool.note_empty(frame);
        }
        // The veto on a remaining copy under another KeyID may end.
        self.pool.refresh(frame.0.page_index.get(), line);
    }

    /// The dirty copy of a line under another KeyID that WBINVD would write back last.
    pub(crate) fn dirty_alias(&self, frame: FramePtr, line: u32) -> Option<FramePtr> {
        let bit = line_bit(line);
        let others = self.pool.aliases(frame.0.page_index.get());
        others.filter(|other| *other != frame && other.dirty() & bit != 0).max_by_key(|other| other.bus_page())
    }

    #[cold]
    fn note_conflict(&self, controller: &mut Controller, id: LineId) {
        let frame = self.pool.get(id.frame_index());
        if let Some(winner) = self.dirty_alias(frame, id.line()) {
            let layout = controller.tme.layout();
            controller.tme.events.push(Event::AliasWritebackConflict {
                line: layout.mem(line_address(frame, id.line())).line(),
                kid_lost: layout.keyid(frame.bus_page()),
                kid_won: layout.keyid(winner.bus_page()),
            });
        }
    }
}

fn line_address(frame: FramePtr, line: u32) -> BusAddr {
    frame.bus_page().offset((line as usize * LINE_BYTES % PAGE_BYTES) as u64)
}
