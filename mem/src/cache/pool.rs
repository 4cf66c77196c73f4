//! The pool of plaintext frames: which frame holds which (page, KeyID), and the veto between aliases.
//!
//! Frames are host-side only. Which frame a page gets, and when it loses it, cannot be seen by the guest.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};

use super::snapshot::Changes;
use crate::addr::{BusAddr, LINE_BYTES, LINES_PER_PAGE, PAGE_BYTES};
use crate::controller::{Controller, Place};
use crate::frame::{Frame, FramePtr, NO_FRAME, SLAB_FRAMES, return_slabs, take_slab};
use crate::memory::{Parked, Retired};
use crate::sanitize::Allowed;

/// Frames a pool may have before it recycles empty ones: 80 MiB of plaintext.
pub(super) const POOL_FRAMES: usize = 20 * 1024;
/// Recycling passes over this many frames with decoded code in search of one without.
const CODE_PATIENCE: usize = 8;

pub(crate) struct FramePool {
    slabs: Vec<&'static [Frame]>,
    pub(super) frames: Vec<FramePtr>,
    limit: usize,
    /// Frames that had no resident line when they were queued, the longest empty first. A frame that was filled again
    /// since then is passed over.
    empty: VecDeque<u32>,
    /// Every frame with a resident line, in models that list them, and some without; the longest listed first.
    holders: VecDeque<u32>,
    /// First frame of each RAM page; the others follow by `Frame::next`.
    pub(super) heads: Vec<u32>,
    /// Frames that changed their page since the list was last drained.
    pub(crate) retired: Vec<Retired>,
    /// Lines that left `exec_ok` without being written since the list was last drained.
    pub(crate) parked: Vec<Parked>,
    pub(crate) recycled: u64,
    /// False: no line ever gets a fast bit.
    pub(super) fast: bool,
    /// The pages that may differ from the last snapshot; `None` before the first one.
    pub(super) changes: Option<Changes>,
    /// Of poisoned lines, by full PA, the bytes that were stored since they came, one bit each; none yet for those that are
    /// not here.
    pub(super) overwritten: BTreeMap<u64, u64>,
    /// What frames start with: no line is allowed until the sanitizer says so, or every line while it is off.
    allow: u64,
}

impl FramePool {
    /// A pool for `ram_pages` pages of RAM. From `limit` frames on it recycles empty ones, if there are any.
    pub(crate) fn new(ram_pages: usize, limit: usize, fast: bool) -> Self {
        Self {
            slabs: Vec::new(),
            frames: Vec::new(),
            limit,
            empty: VecDeque::new(),
            holders: VecDeque::new(),
            heads: vec![NO_FRAME; ram_pages],
            retired: Vec::new(),
            parked: Vec::new(),
            recycled: 0,
            fast,
            changes: None,
            overwritten: BTreeMap::new(),
            allow: !0,
        }
    }

    /// The frame with this index.
    #[inline(always)]
    pub(crate) fn get(&self, index: u32) -> FramePtr {
        self.frames[index as usize]
    }

    /// The frame of (page, KeyID).
    #[inline(always)]
    pub(crate) fn find(&self, page: u32, bus_page: BusAddr) -> Option<FramePtr> {
        let mut at = self.heads[page as usize];
        while at != NO_FRAME {
            let frame = self.get(at);
            if frame.bus_page() == bus_page {
                return Some(frame);
            }
            at = frame.0.next.get();
        }
        None
    }

    /// Every frame of a RAM page.
    pub(crate) fn aliases(&self, page: u32) -> impl Iterator<Item = FramePtr> + '_ {
        let mut at = self.heads[page as usize];
        std::iter::from_fn(move || {
            let frame = (at != NO_FRAME).then(|| self.get(at))?;
            at = frame.0.next.get();
            Some(frame)
        })
    }

    /// The frame that [`aliases`](Self::aliases) gives after this one.
    pub(crate) fn alias_after(&self, frame: FramePtr) -> Option<FramePtr> {
        let at = frame.0.next.get();
        (at != NO_FRAME).then(|| self.get(at))
    }

    /// The frame of (page, KeyID), made if there is none.
    pub(crate) fn obtain(&mut self, page: u32, bus_page: BusAddr) -> FramePtr {
        if let Some(frame) = self.find(page, bus_page) {
            return frame;
        }
        let frame = self.unused();
        frame.0.bus_page.set(bus_page.0);
        frame.0.page_index.set(page);
        frame.0.allow_r.set(self.allow);
        frame.0.allow_w.set(self.allow);
        frame.0.allow_x.set(self.allow);
        frame.0.next.set(self.heads[page as usize]);
        self.heads[page as usize] = frame.index();
        if let Some(changes) = &self.changes {
            changes.note(frame);
        }
        frame
    }

    /// A frame without page: a new one, or one whose lines have all left the cache.
    fn unused(&mut self) -> FramePtr {
        if self.frames.len() >= self.limit
            && let Some(frame) = self.recycle()
        {
            return frame;
        }
        let at = self.frames.len();
        if at.is_multiple_of(SLAB_FRAMES) {
            self.slabs.push(take_slab());
        }
        let frame = FramePtr(&self.slabs[at / SLAB_FRAMES][at % SLAB_FRAMES]);
        frame.0.index.set(at as u32);
        self.frames.push(frame);
        frame
    }

    /// Takes the longest empty frame from its page, but passes over some with decoded code first: decoding costs more
    /// than a frame.
    fn recycle(&mut self) -> Option<FramePtr> {
        let mut patience = CODE_PATIENCE;
        while let Some(index) = self.empty.pop_front() {
            let frame = self.get(index);
            if frame.resident() != 0 {
                frame.0.queued.set(false);
            } else if frame.code() != 0 && patience > 0 {
                patience -= 1;
                self.empty.push_back(index);
            } else {
                frame.0.queued.set(false);
                self.retire(frame);
                return Some(frame);
            }
        }
        None
    }

    /// Notes that a frame's last line has left the cache.
    #[inline]
    pub(crate) fn note_empty(&mut self, frame: FramePtr) {
        if !frame.0.queued.replace(true) {
            self.empty.push_back(frame.index());
        }
    }

    /// Lists a frame that gets a resident line.
    #[inline]
    pub(crate) fn note_holder(&mut self, frame: FramePtr) {
        if !frame.0.listed.replace(true) {
            self.holders.push_back(frame.index());
        }
    }

    /// The listed frames.
    pub(crate) fn holders(&self) -> impl Iterator<Item = FramePtr> + '_ {
        self.holders.iter().map(|&index| self.get(index))
    }

    pub(crate) fn holder_count(&self) -> usize {
        self.holders.len()
    }

    /// Takes the longest listed frame off the list. Its lines must leave the cache, or it must be listed again.
    pub(crate) fn pop_holder(&mut self) -> Option<FramePtr> {
        let index = self.holders.pop_front()?;
        let frame = self.get(index);
        frame.0.listed.set(false);
        Some(frame)
    }

    /// Writes a line back if it is dirty, and makes it clean.
    pub(crate) fn write_back(&self, controller: &mut Controller, frame: FramePtr, line: u32) {
        if frame.dirty() & line_bit(line) == 0 {
            return;
        }
        controller.write_back(place_of(frame, line), frame);
        self.note_clean(frame, line);
    }

    /// [`write_back`](Self::write_back) on behalf of a probe: not traffic of the machine, so no counter and no event.
    pub(crate) fn publish(&self, controller: &Controller, frame: FramePtr, line: u32) {
        if frame.dirty() & line_bit(line) == 0 {
            return;
        }
        controller.put_line(place_of(frame, line), &frame.0.line(line), frame.is_poisoned(line));
        self.note_clean(frame, line);
    }

    /// A line was written back.
    pub(crate) fn note_clean(&self, frame: FramePtr, line: u32) {
        self.note_change(frame);
        frame.0.dirty.set(frame.dirty() & !line_bit(line));
        self.refresh(frame.0.page_index.get(), line);
    }

    /// Takes a line's residency away. Its `code` bit stays ("parked"): the core compares the bytes when they return.
    pub(crate) fn forget(&mut self, frame: FramePtr, line: u32) {
        self.note_change(frame);
        let bit = line_bit(line);
        self.park(frame, bit);
        self.cleanse(frame, bit);
        for bits in [&frame.0.resident, &frame.0.dirty, &frame.0.fast_r, &frame.0.fast_w] {
            bits.set(bits.get() & !bit);
        }
        if frame.resident() == 0 {
            self.note_empty(frame);
        }
        // The veto on a remaining copy under another KeyID may end.
        self.refresh(frame.0.page_index.get(), line);
    }

    /// Takes the residency of every line of a frame away.
    pub(crate) fn forget_page(&mut self, frame: FramePtr) {
        self.note_change(frame);
        self.park(frame, !0);
        self.cleanse(frame, !0);
        let bits = frame.0;
        for bits in [&bits.resident, &bits.dirty, &bits.fast_r, &bits.fast_w] {
            bits.set(0);
        }
        self.note_empty(frame);
    }

    /// Notes that bytes of a poisoned line were stored. Once all were, it is poisoned no more.
    pub(crate) fn note_overwritten(&mut self, frame: FramePtr, line: u32, offset: usize, len: usize) {
        let bytes = if len >= LINE_BYTES { !0 } else { ((1 << len) - 1) << (offset % LINE_BYTES) };
        let stored = self.overwritten.entry(line_address(frame, line).0).or_default();
        *stored |= bytes;
        if *stored == !0 {
            self.cleanse(frame, line_bit(line));
            self.refresh(frame.0.page_index.get(), line);
        }
    }

    /// Lines are not poisoned any more: overwritten, or no longer here.
    pub(super) fn cleanse(&mut self, frame: FramePtr, lines: u64) {
        let lines = frame.0.poison.get() & lines;
        if lines != 0 {
            frame.0.poison.set(frame.0.poison.get() & !lines);
            for line in super::bits(lines) {
                self.overwritten.remove(&line_address(frame, line).0);
            }
        }
    }

    /// Takes lines out of `exec_ok`.
    #[inline]
    pub(super) fn park(&mut self, frame: FramePtr, lines: u64) {
        let lines = frame.exec_ok() & lines;
        if lines != 0 {
            frame.0.exec_ok.set(frame.exec_ok() & !lines);
            self.parked.push(Parked { frame, lines });
        }
    }

    fn retire(&mut self, frame: FramePtr) {
        let page = frame.0.page_index.get() as usize;
        let next = frame.0.next.get();
        if self.heads[page] == frame.index() {
            self.heads[page] = next;
        } else {
            let before = self.aliases(page as u32).find(|other| other.0.next.get() == frame.index());
            if let Some(before) = before {
                before.0.next.set(next);
            }
        }
        self.retired.push(Retired { frame, bus_page: frame.bus_page(), code: frame.code() });
        self.recycled += 1;
        frame.0.code.set(0);
    }

    /// Allows the fast path in every line, or in none until [`allow`](Self::allow) is called for it. Code is parked then,
    /// so that its next fetch is a slow one too.
    pub(crate) fn allow_all(&mut self, on: bool) {
        self.allow = if on { !0 } else { 0 };
        for at in 0..self.frames.len() {
            let frame = self.frames[at];
            let bits = frame.0;
            for bits in [&bits.allow_r, &bits.allow_w, &bits.allow_x] {
                bits.set(self.allow);
            }
            if !on {
                self.park(frame, !0);
                bits.fast_r.set(0);
                bits.fast_w.set(0);
            }
        }
        if on {
            for page in 0..self.heads.len() as u32 {
                (0..LINES_PER_PAGE as u32).for_each(|line| self.refresh(page, line));
            }
        }
    }

    /// True when the fast path is allowed for loads and fetches of the line, or there is no frame that could be on it.
    #[inline]
    pub(crate) fn allows(&self, place: Place) -> bool {
        self.find(place.page, place.address.page())
            .is_none_or(|frame| frame.0.allow_r.get() & frame.0.allow_x.get() & line_bit(place.line()) != 0)
    }

    /// Allows the fast path for one line of a frame, or forbids it. True if [`refresh`](Self::refresh) has to follow.
    pub(crate) fn allow(&mut self, frame: FramePtr, line: u32, allowed: Allowed) -> bool {
        let bit = line_bit(line);
        let set = |bits: &Cell<u64>, on: bool| {
            let new = if on { bits.get() | bit } else { bits.get() & !bit };
            bits.replace(new) != new
        };
        if set(&frame.0.allow_x, allowed.fetches) && !allowed.fetches {
            self.park(frame, bit);
        }
        set(&frame.0.allow_r, allowed.loads) | set(&frame.0.allow_w, allowed.stores)
    }

    /// Recomputes the fast bits of one line in every frame of its page, after a bit they derive from has changed.
    ///
    /// Veto (design D3): a line has fast bits only while exactly one KeyID's copy of it is resident, so that every
    /// access that can be a hazard between aliases is a slow one.
    #[inline]
    pub(crate) fn refresh(&self, page: u32, line: u32) {
        if !self.fast {
            return;
        }
        let bit = line_bit(line);
        let head = self.heads[page as usize];
        if head == NO_FRAME {
            return;
        }
        let first = self.get(head);
        if first.0.next.get() == NO_FRAME {
            return set_fast(first, bit, true);
        }
        let copies = self.aliases(page).filter(|frame| frame.resident() & bit != 0).count();
        for frame in self.aliases(page) {
            set_fast(frame, bit, copies == 1);
        }
    }
}

impl Drop for FramePool {
    fn drop(&mut self) {
        return_slabs(self.slabs.drain(..));
    }
}

/// Full PA of a line of a frame.
pub(crate) fn line_address(frame: FramePtr, line: u32) -> BusAddr {
    frame.bus_page().offset((line as usize * LINE_BYTES % PAGE_BYTES) as u64)
}

fn place_of(frame: FramePtr, line: u32) -> Place {
    Place { address: line_address(frame, line), page: frame.0.page_index.get() }
}

#[inline(always)]
pub(crate) fn line_bit(line: u32) -> u64 {
    1 << (line as usize % LINES_PER_PAGE)
}

#[inline(always)]
fn set_fast(frame: FramePtr, bit: u64, alone: bool) {
    let frame = frame.0;
    let intact = frame.resident.get() & !frame.poison.get();
    let readable = if alone { intact & frame.allow_r.get() & bit } else { 0 };
    let writable =
        if frame.saved.get() { 0 } else { readable & frame.allow_w.get() & frame.dirty.get() & !frame.code.get() };
    frame.fast_r.set(frame.fast_r.get() & !bit | readable);
    frame.fast_w.set(frame.fast_w.get() & !bit | writable);
}
