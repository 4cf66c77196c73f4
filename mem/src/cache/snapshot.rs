//! Cache contents that do not change any more, and what changed since they were taken.
//!
//! A frame whose page is as the last snapshot has it is `saved`: its lines have no `fast_w`, so that the first store to one of
//! them takes the slow path and is noted here. After that the frame is as fast as ever. Frames, slots and everything else
//! of the host's is left out; which line is where in its set is not.

use std::cell::{Cell, RefCell};
use std::sync::{Arc, OnceLock};

use rand_chacha::ChaCha20Rng;
use xxhash_rust::xxh3::xxh3_128;

use super::pool::{FramePool, line_address};
use super::sets::{LineId, Sets};
use super::{Cache, Model, bits};
use crate::PlainLine;
use crate::addr::{BusAddr, LINE_BYTES, LINES_PER_PAGE};
use crate::controller::{Controller, Place};
use crate::frame::{FramePtr, NO_FRAME};
use crate::hash::StateHasher;
use crate::rate::Rate;

/// Noted pages from which on those that are noted twice are looked for.
const TIDY: usize = 1 << 16;

/// The cached lines of a page under one KeyID.
pub(crate) struct FrameImage {
    pub(crate) bus_page: BusAddr,
    /// Number of the RAM page.
    pub(crate) page: u32,
    pub(crate) resident: u64,
    pub(crate) dirty: u64,
    /// Those that are resident, ascending.
    pub(crate) lines: Box<[PlainLine]>,
    pub(crate) poison: Poison,
    hash: OnceLock<u128>,
}

/// The poisoned lines of a frame.
#[derive(Default)]
pub(crate) struct Poison {
    pub(crate) lines: u64,
    /// Of each of them, ascending, the bytes that were stored since it came.
    pub(crate) overwritten: Box<[u64]>,
}

impl Poison {
    fn of(frame: FramePtr, pool: &FramePool) -> Self {
        let lines = frame.0.poison.get();
        let stored = |line| pool.overwritten.get(&line_address(frame, line).0).copied().unwrap_or(0);
        Self { lines, overwritten: bits(lines).map(stored).collect() }
    }
}

impl FrameImage {
    pub(crate) fn new(
        bus_page: BusAddr,
        page: u32,
        [resident, dirty]: [u64; 2],
        lines: Box<[PlainLine]>,
        poison: Poison,
    ) -> Self {
        Self { bus_page, page, resident, dirty, lines, poison, hash: OnceLock::new() }
    }

    fn of(frame: FramePtr, pool: &FramePool) -> Self {
        let lines = bits(frame.resident()).map(|line| frame.0.line(line)).collect();
        let state = [frame.resident(), frame.dirty()];
        Self::new(frame.bus_page(), frame.0.page_index.get(), state, lines, Poison::of(frame, pool))
    }

    /// A line, if it is resident.
    fn line(&self, line: usize) -> Option<&PlainLine> {
        let before = self.resident & ((1 << line) - 1);
        (self.resident >> line & 1 == 1).then(|| self.lines.get(before.count_ones() as usize))?
    }

    /// Lines that are modified, as they are here.
    fn modified(&self, line: usize) -> Option<&PlainLine> {
        (self.dirty >> line & 1 == 1).then(|| self.line(line))?
    }

    /// What the lines add to the state hash.
    fn hash(&self) -> u128 {
        *self.hash.get_or_init(|| {
            let lines = self.lines.iter().copied();
            hash_lines(self.bus_page, self.resident, self.dirty, lines, &self.poison)
        })
    }
}

fn hash_lines(
    bus_page: BusAddr,
    resident: u64,
    dirty: u64,
    lines: impl Iterator<Item = PlainLine>,
    poison: &Poison,
) -> u128 {
    const HEAD: usize = 24;
    if resident == 0 {
        return 0;
    }
    let mut bytes = [0; HEAD + LINES_PER_PAGE * LINE_BYTES];
    for (to, value) in bytes[..HEAD].chunks_exact_mut(8).zip([bus_page.0, resident, dirty]) {
        to.copy_from_slice(&value.to_le_bytes());
    }
    let mut end = HEAD;
    for (to, line) in bytes[HEAD..].chunks_exact_mut(LINE_BYTES).zip(lines) {
        to.copy_from_slice(&line.0);
        end += LINE_BYTES;
    }
    if poison.lines == 0 {
        return xxh3_128(&bytes[..end]);
    }
    let mut bytes = bytes[..end].to_vec();
    for value in std::iter::once(&poison.lines).chain(&poison.overwritten) {
        bytes.extend(value.to_le_bytes());
    }
    xxh3_128(&bytes)
}

fn hash_frame(frame: FramePtr, pool: &FramePool) -> u128 {
    let lines = bits(frame.resident()).map(|line| frame.0.line(line));
    hash_lines(frame.bus_page(), frame.resident(), frame.dirty(), lines, &Poison::of(frame, pool))
}

/// The lines of the sets of a group, by full PA.
pub(crate) struct SetGroup {
    /// Lines of each set.
    pub(crate) filled: Box<[u8]>,
    /// Set by set, oldest fill first.
    pub(crate) lines: Box<[BusAddr]>,
    hash: OnceLock<u128>,
}

impl SetGroup {
    pub(crate) fn new(filled: Box<[u8]>, lines: Box<[BusAddr]>) -> Self {
        Self { filled, lines, hash: OnceLock::new() }
    }

    fn of(sets: &Sets, group: usize, pool: &FramePool) -> Self {
        let lines = sets.group(group).flatten().map(|id| line_address(pool.get(id.frame_index()), id.line())).collect();
        Self::new(sets.group(group).map(|set| set.len() as u8).collect(), lines)
    }

    fn hash(&self) -> u128 {
        *self.hash.get_or_init(|| {
            let mut bytes = self.filled.to_vec();
            bytes.extend(self.lines.iter().flat_map(|line| line.0.to_le_bytes()));
            xxh3_128(&bytes)
        })
    }

    /// The lines set by set.
    pub(crate) fn sets(&self) -> impl Iterator<Item = &[BusAddr]> {
        let mut rest = &self.lines[..];
        self.filled.iter().map(move |&count| {
            let (set, after) = rest.split_at(usize::from(count).min(rest.len()));
            rest = after;
            set
        })
    }
}

/// The contents of a cache. Clones share everything.
#[derive(Clone)]
pub(crate) struct CacheSnapshot {
    pub(crate) contents: Arc<Contents>,
    /// Of `wb_order = seeded`, `evict_rate` and `prefetch`.
    pub(crate) generators: [ChaCha20Rng; 3],
}

impl CacheSnapshot {
    /// Calls `differ` with the RAM page and the line of each line that is modified in one of the two, and not, or otherwise, in
    /// the other. Shared pages are not looked at.
    pub(crate) fn differences(&self, other: &Self, mut differ: impl FnMut(u32, usize)) {
        let (mut ours, mut theirs) = (&self.contents.frames[..], &other.contents.frames[..]);
        loop {
            // Both are in the order of full physical addresses.
            let (a, b) = match (ours.split_first(), theirs.split_first()) {
                (None, None) => return,
                (Some((a, rest)), None) => {
                    ours = rest;
                    (Some(a), None)
                }
                (None, Some((b, rest))) => {
                    theirs = rest;
                    (None, Some(b))
                }
                (Some((a, rest_a)), Some((b, rest_b))) => {
                    if a.bus_page.0 <= b.bus_page.0 {
                        ours = rest_a;
                    }
                    if b.bus_page.0 <= a.bus_page.0 {
                        theirs = rest_b;
                    }
                    ((a.bus_page.0 <= b.bus_page.0).then_some(a), (b.bus_page.0 <= a.bus_page.0).then_some(b))
                }
            };
            if let (Some(a), Some(b)) = (a, b)
                && Arc::ptr_eq(a, b)
            {
                continue;
            }
            let Some(page) = a.or(b).map(|frame| frame.page) else { continue };
            for line in 0..LINES_PER_PAGE {
                if a.and_then(|frame| frame.modified(line)) != b.and_then(|frame| frame.modified(line)) {
                    differ(page, line);
                }
            }
        }
    }
}

/// Lines and their order.
pub(crate) struct Contents {
    /// By full PA, only those with a resident line.
    pub(crate) frames: Vec<Arc<FrameImage>>,
    /// In the `exact` model.
    pub(crate) groups: Vec<Arc<SetGroup>>,
    hash: OnceLock<u128>,
}

impl Contents {
    pub(crate) fn new(frames: Vec<Arc<FrameImage>>, groups: Vec<Arc<SetGroup>>) -> Self {
        Self { frames, groups, hash: OnceLock::new() }
    }

    fn image(&self, bus_page: BusAddr) -> Option<&FrameImage> {
        let at = self.frames.binary_search_by_key(&bus_page, |image| image.bus_page).ok()?;
        Some(&self.frames[at])
    }

    /// The sum of what the frames add to the state hash.
    fn hash(&self) -> u128 {
        *self.hash.get_or_init(|| self.frames.iter().fold(0, |sum, image| sum.wrapping_add(image.hash())))
    }

    /// The pages that are not the same in both.
    fn differences(&self, other: &Self, pages: &mut Vec<(BusAddr, u32)>) {
        let (mut a, mut b) = (self.frames.iter().peekable(), other.frames.iter().peekable());
        let mut add = |image: &FrameImage| pages.push((image.bus_page, image.page));
        loop {
            match (a.peek(), b.peek()) {
                (None, None) => return,
                (Some(x), Some(y)) if x.bus_page == y.bus_page => {
                    if !Arc::ptr_eq(x, y) {
                        add(x);
                    }
                    a.next();
                    b.next();
                }
                (Some(x), Some(y)) if x.bus_page > y.bus_page => {
                    add(y);
                    b.next();
                }
                (Some(x), _) => {
                    add(x);
                    a.next();
                }
                (None, Some(y)) => {
                    add(y);
                    b.next();
                }
            }
        }
    }
}

/// The pages that may differ from a snapshot.
pub(crate) struct Changes {
    since: Arc<Contents>,
    /// Some more than once.
    pages: RefCell<Vec<(BusAddr, u32)>>,
    tidy_at: Cell<usize>,
}

impl Changes {
    fn new(since: Arc<Contents>) -> Self {
        Self { since, pages: RefCell::default(), tidy_at: Cell::new(TIDY) }
    }

    /// Notes the page of a frame.
    pub(super) fn note(&self, frame: FramePtr) {
        frame.0.saved.set(false);
        let mut pages = self.pages.borrow_mut();
        pages.push((frame.bus_page(), frame.0.page_index.get()));
        if pages.len() >= self.tidy_at.get() {
            pages.sort_unstable();
            pages.dedup();
            self.tidy_at.set(pages.len() * 2 + TIDY);
        }
    }

    /// Each page once, ascending.
    fn pages(&self) -> Vec<(BusAddr, u32)> {
        let mut pages = self.pages.borrow().clone();
        pages.sort_unstable();
        pages.dedup();
        pages
    }
}

impl FramePool {
    /// To be called before a frame's lines or their state change.
    #[inline]
    pub(crate) fn note_change(&self, frame: FramePtr) {
        if frame.0.saved.get() {
            self.note_first_change(frame);
        }
    }

    #[cold]
    fn note_first_change(&self, frame: FramePtr) {
        match &self.changes {
            Some(changes) => changes.note(frame),
            None => frame.0.saved.set(false),
        }
        let bits = frame.0;
        bits.fast_w.set(bits.fast_r.get() & bits.allow_w.get() & bits.dirty.get() & !bits.code.get());
    }

    /// What has to be compared with the last snapshot: (page, its number), ascending. All frames if there was none.
    fn changed_pages(&self) -> Vec<(BusAddr, u32)> {
        match &self.changes {
            Some(changes) => changes.pages(),
            None => {
                let used = self.frames.iter().filter(|frame| frame.0.page_index.get() != u32::MAX);
                let mut pages: Vec<_> = used.map(|frame| (frame.bus_page(), frame.0.page_index.get())).collect();
                pages.sort_unstable();
                pages
            }
        }
    }

    fn images(&self) -> Vec<Arc<FrameImage>> {
        let none = Vec::new();
        let mut old = self.changes.as_ref().map_or(&none, |changes| &changes.since.frames).iter().peekable();
        let mut new = Vec::with_capacity(old.len());
        for (bus_page, page) in self.changed_pages() {
            while let Some(image) = old.next_if(|image| image.bus_page < bus_page) {
                new.push(image.clone());
            }
            old.next_if(|image| image.bus_page == bus_page);
            let Some(frame) = self.find(page, bus_page) else { continue };
            if frame.resident() != 0 {
                new.push(Arc::new(FrameImage::of(frame, self)));
            }
            frame.0.saved.set(true);
            frame.0.fast_w.set(0);
        }
        new.extend(old.cloned());
        new
    }

    /// Puts the frames into the state of a snapshot. `list`: the model lists them.
    fn restore(&mut self, contents: &Arc<Contents>, list: bool) {
        let mut pages = self.changed_pages();
        match &self.changes {
            Some(changes) if Arc::ptr_eq(&changes.since, contents) => {}
            Some(changes) => changes.since.differences(contents, &mut pages),
            None => pages.extend(contents.frames.iter().map(|image| (image.bus_page, image.page))),
        }
        pages.sort_unstable();
        pages.dedup();
        // Getting frames is no change.
        self.changes = None;
        for &(bus_page, page) in &pages {
            if let Some(frame) = self.find(page, bus_page) {
                self.park(frame, !0);
                self.cleanse(frame, !0);
                let b = frame.0;
                for bits in [&b.fast_r, &b.fast_w, &b.resident, &b.dirty] {
                    bits.set(0);
                }
                b.saved.set(true);
                self.note_empty(frame);
            }
        }
        let mut images = contents.frames.iter().peekable();
        for &(bus_page, page) in &pages {
            while images.next_if(|image| image.bus_page < bus_page).is_some() {}
            let Some(image) = images.next_if(|image| image.bus_page == bus_page) else { continue };
            let frame = self.obtain(page, bus_page);
            for (line, bytes) in bits(image.resident).zip(&image.lines) {
                frame.0.set_line(line, bytes);
            }
            frame.0.resident.set(image.resident);
            frame.0.dirty.set(image.dirty);
            frame.0.poison.set(image.poison.lines);
            for (line, stored) in bits(image.poison.lines).zip(&image.poison.overwritten) {
                self.overwritten.insert(line_address(frame, line).0, *stored);
            }
            frame.0.saved.set(true);
            if list {
                self.note_holder(frame);
            }
        }
        pages.dedup_by_key(|(_, page)| *page);
        for &(_, page) in &pages {
            self.refresh_page(page);
        }
        self.changes = Some(Changes::new(contents.clone()));
    }

    /// Recomputes the fast bits of all lines of a page, as [`refresh`](Self::refresh) does for one line.
    fn refresh_page(&self, page: u32) {
        if !self.fast || self.heads[page as usize] == NO_FRAME {
            return;
        }
        let (once, twice) = self.aliases(page).fold((0, 0), |(once, twice), frame| {
            let resident = frame.resident();
            (once | resident, twice | once & resident)
        });
        for frame in self.aliases(page) {
            let b = frame.0;
            b.fast_r.set(frame.intact() & b.allow_r.get() & once & !twice);
            let writable = b.fast_r.get() & b.allow_w.get() & b.dirty.get() & !b.code.get();
            b.fast_w.set(if b.saved.get() { 0 } else { writable });
        }
    }

    fn hash(&self) -> u128 {
        let Some(changes) = &self.changes else {
            return self.frames.iter().fold(0, |sum, frame| sum.wrapping_add(hash_frame(*frame, self)));
        };
        changes.pages().into_iter().fold(changes.since.hash(), |sum, (bus_page, page)| {
            let before = changes.since.image(bus_page).map_or(0, FrameImage::hash);
            let now = self.find(page, bus_page).map_or(0, |frame| hash_frame(frame, self));
            sum.wrapping_sub(before).wrapping_add(now)
        })
    }
}

impl Cache {
    /// The contents now. What did not change since the last snapshot or restore is shared with it.
    pub(crate) fn snapshot(&mut self) -> CacheSnapshot {
        let frames = self.pool.images();
        let groups = match &mut self.model {
            Model::Exact(sets) => {
                let old = self.pool.changes.as_ref().map(|changes| &changes.since.groups);
                let groups = (0..sets.groups()).map(|group| {
                    let old = old.and_then(|old| old.get(group)).filter(|_| !sets.has_changed(group));
                    sets.note_saved(group);
                    old.cloned().unwrap_or_else(|| Arc::new(SetGroup::of(sets, group, &self.pool)))
                });
                groups.collect()
            }
            Model::Lazy | Model::Off => Vec::new(),
        };
        let contents = Arc::new(Contents::new(frames, groups));
        if self.pool.changes.is_none() {
            // Frames without lines, too: the first fill of one is a change.
            self.pool.frames.iter().for_each(|frame| frame.0.saved.set(true));
        }
        self.pool.changes = Some(Changes::new(contents.clone()));
        let generators = [&self.orderer.rng, &self.evictions, &self.prefetches].map(Clone::clone);
        CacheSnapshot { contents, generators }
    }

    /// Takes contents over that fit the model and its geometry. Costs what changed, and what differs between the snapshots.
    pub(crate) fn restore(&mut self, controller: &Controller, snapshot: &CacheSnapshot) {
        let CacheSnapshot { contents, generators } = snapshot;
        let since = self.pool.changes.as_ref().map(|changes| changes.since.clone());
        self.pool.restore(contents, !matches!(self.model, Model::Exact(_)));
        if let Model::Exact(sets) = &mut self.model {
            let (layout, pool) = (controller.layout(), &self.pool);
            let id = |line: &BusAddr| {
                let page = controller.map.page_index(layout.mem(*line))?;
                Some(LineId::new(pool.find(page, line.page())?, line.line_in_page()))
            };
            for (at, group) in contents.groups.iter().enumerate().take(sets.groups()) {
                let old = since.as_ref().and_then(|since| since.groups.get(at));
                if sets.has_changed(at) || !old.is_some_and(|old| Arc::ptr_eq(old, group)) {
                    sets.set_group(at, group.sets().map(|set| set.iter().filter_map(id)));
                }
            }
        }
        let [orders, evictions, prefetches] = generators.clone();
        self.orderer.rng = orders;
        (self.evictions, self.prefetches) = (evictions, prefetches);
    }

    /// Pages with lines that changed since the last snapshot or restore; all that have lines if there was none.
    pub(crate) fn pages_changed(&self) -> usize {
        self.pool.changed_pages().len()
    }

    /// Tags, dirtiness, bytes, and what victims and write-back orders are chosen by. In `off` nothing is cached.
    /// Repeated, it costs what changed since the last snapshot or restore.
    pub(crate) fn hash(&self, hasher: &mut StateHasher) {
        match &self.model {
            Model::Exact(sets) => {
                hasher.u128(self.pool.hash());
                hasher.u64(sets.iter().len() as u64);
                hasher.u64(sets.ways() as u64);
                let old = self.pool.changes.as_ref().map(|changes| &changes.since.groups);
                for group in 0..sets.groups() {
                    let old = old.and_then(|old| old.get(group)).filter(|_| !sets.has_changed(group));
                    hasher.u128(old.map_or_else(|| SetGroup::of(sets, group, &self.pool).hash(), |old| old.hash()));
                }
            }
            Model::Lazy => hasher.u128(self.pool.hash()),
            Model::Off => {}
        }
        hasher.u128(self.orderer.position());
        hasher.u128(self.evictions.get_word_pos());
        if self.prefetch != Rate::NEVER {
            hasher.u128(self.prefetches.get_word_pos());
        }
    }

    /// Notes that a line of a page was fetched before it left the cache, with code that the processor still goes by.
    pub(crate) fn park_code(&mut self, place: Place) -> FramePtr {
        let frame = self.pool.obtain(place.page, place.address.page());
        self.set_code(frame, place.line());
        frame
    }
}
