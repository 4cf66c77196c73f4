//! The rules.

use super::class::{Class, Classes};
use super::hazard::{Agent, Hazard, HazardKind, MissingAction, Operation, Site};
use super::record::Record;
use super::shadow::{ALL_BYTES, Cause, Mark, PageShadow, whole_blocks};
use crate::addr::{AddressLayout, BusAddr, KeyId, LINE_BYTES, LINES_PER_PAGE, LineAddr, MemType};
use crate::controller::Place;
use crate::packages::Packages;

/// Hazards that are kept until somebody takes them; further ones are only counted.
const HAZARDS_MAX: usize = 1 << 16;

/// What the fast path may do with a line of a frame, and what a fetch of it would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Allowed {
    pub(crate) loads: bool,
    pub(crate) stores: bool,
    /// False: the next fetch is to be observed.
    pub(crate) fetches: bool,
}

/// The part of a line that is accessed, in the terms of the abstract machine.
#[derive(Clone, Copy)]
struct Piece<'a> {
    place: Place,
    address: LineAddr,
    bytes: u64,
    site: &'a Site,
}

impl Piece<'_> {
    fn line(&self) -> u32 {
        self.place.line()
    }

    fn bit(&self) -> u64 {
        1 << self.line()
    }

    fn keyid(&self) -> KeyId {
        self.site.keyid
    }
}

/// The sanitizer.
pub struct Sanitizer {
    /// By RAM page.
    pages: Vec<Option<Box<PageShadow>>>,
    classes: Classes,
    hazards: Vec<Hazard>,
    reported: u64,
    dropped: u64,
}

/// The bytes of a line that `len` bytes from `offset` on are.
pub(super) fn byte_mask(offset: usize, len: usize) -> u64 {
    let ones = if len >= LINE_BYTES { ALL_BYTES } else { (1 << len) - 1 };
    ones << (offset % LINE_BYTES)
}

impl Sanitizer {
    pub(super) fn new(ram_pages: usize) -> Self {
        Self {
            pages: std::iter::repeat_with(|| None).take(ram_pages).collect(),
            classes: Classes::default(),
            hazards: Vec::new(),
            reported: 0,
            dropped: 0,
        }
    }

    /// Hazards found so far, taken or not.
    pub fn reported(&self) -> u64 {
        self.reported
    }

    /// Hazards that were lost because nobody took the ones before them.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// True when [`crate::Memory::take_hazards`] has something.
    pub fn has_hazards(&self) -> bool {
        !self.hazards.is_empty()
    }

    pub(super) fn take_hazards(&mut self) -> Vec<Hazard> {
        std::mem::take(&mut self.hazards)
    }

    /// Takes note of changed keys.
    pub(super) fn update(&mut self, packages: &Packages) {
        self.classes.update(packages);
    }

    /// Keys may change from now on.
    pub(super) fn keys_may_change(&mut self, packages: &Packages) {
        // The table as it was before is what a re-key is told by.
        self.classes.update(packages);
        self.classes.expire();
    }

    /// Reset: caches are empty and DRAM holds what nobody relies on.
    pub(super) fn forget(&mut self) {
        self.pages.fill_with(|| None);
    }

    /// An access inside one line. True if the state changed.
    pub(super) fn access(
        &mut self,
        packages: &Packages,
        layout: AddressLayout,
        place: Place,
        len: usize,
        ty: MemType,
        no_fill: bool,
        site: &Site,
    ) -> bool {
        self.classes.update(packages);
        let bytes = byte_mask(place.address.line_offset(), len);
        let keyid = layout.keyid(place.address);
        let page = self.pages[place.page as usize].get_or_insert_default();
        let bit = 1u64 << place.line();
        // The common case by far: nothing new about a line that only this KeyID has.
        if let [key] = page.keys.as_slice()
            && key.keyid == keyid
            && ty == MemType::Wb
            && key.cached & key.dirty & bit != 0
            && key.marks.bytes(place.line()) == 0
            && matches!(
                site.operation,
                Operation::Load | Operation::Store | Operation::Fetch | Operation::PageWalk | Operation::PageWalkUpdate
            )
        {
            return false;
        }
        let site = Site { keyid, ..*site };
        let piece = Piece { place, address: layout.mem(place.address).line(), bytes, site: &site };
        let class = self.classes.of(packages, place.page, place.address, keyid);
        let mut found = Found { page, hazards: Vec::new() };
        match site.operation {
            Operation::Load | Operation::Fetch | Operation::PageWalk => found.load(&piece, class, ty, no_fill),
            Operation::Store | Operation::PageWalkUpdate => found.store(&piece, class, ty, no_fill),
            Operation::NonTemporalStore => found.store_past(&piece, class),
            Operation::Flush => found.flush(&piece, class, true),
            Operation::WriteBack => found.flush(&piece, class, false),
            Operation::DmaRead => found.dma_read(&piece, class),
            Operation::DmaWrite => found.store_past(&piece, class),
            Operation::WriteBackInvalidate | Operation::WriteBackAll | Operation::Invalidate | Operation::Pconfig => {}
        }
        let hazards = found.hazards;
        hazards.into_iter().for_each(|hazard| self.report(hazard));
        true
    }

    fn report(&mut self, hazard: Hazard) {
        self.reported += 1;
        if self.hazards.len() < HAZARDS_MAX {
            self.hazards.push(hazard);
        } else {
            self.dropped += 1;
        }
    }

    /// WBINVD, WBNOINVD, INVD.
    pub(super) fn whole_cache(
        &mut self,
        packages: &Packages,
        layout: AddressLayout,
        operation: Operation,
        map: PageMap,
    ) {
        self.classes.update(packages);
        for (number, page) in self.pages.iter_mut().enumerate() {
            let Some(page) = page else { continue };
            let start = map(number as u32);
            for at in 0..page.keys.len() {
                let keyid = page.keys[at].keyid;
                let class = self.classes.of(packages, number as u32, layout.join(start, keyid), keyid);
                if operation != Operation::Invalidate {
                    for line in bits(page.keys[at].dirty) {
                        page.write_back(at, line, class);
                    }
                }
                if operation != Operation::WriteBackAll {
                    let key = &mut page.keys[at];
                    bits(key.cached).for_each(|line| key.drop_line(line));
                }
            }
        }
    }

    /// PCONFIG programmed `site.keyid` in the executing package.
    pub(super) fn rekey(&mut self, packages: &Packages, site: &Site, map: PageMap) {
        let before = self.classes.of_key(packages.number(), site.keyid);
        self.classes.update(packages);
        if self.classes.of_key(packages.number(), site.keyid) == before {
            return;
        }
        let by = Record::new(site);
        let (mut lines, mut first) = (0u64, None);
        for (number, page) in self.pages.iter_mut().enumerate() {
            let Some(page) = page else { continue };
            if packages.home(number as u32) != packages.number() {
                continue;
            }
            let Some(key) = page.keys.iter_mut().find(|key| key.keyid == site.keyid && key.dirty != 0) else {
                continue;
            };
            for line in bits(key.dirty) {
                first.get_or_insert_with(|| {
                    (LineAddr(map(number as u32).line().0 + u64::from(line)), key.store_record(line))
                });
                lines += 1;
                key.marks.set(line, Mark::all(Cause::Stale, site.keyid, by));
            }
            key.told |= key.dirty;
            key.silent |= key.dirty;
        }
        if let Some((line, store)) = first {
            self.report(Hazard {
                kind: HazardKind::DirtyLineAtRekey,
                line,
                offset: 0,
                lines,
                access: *site,
                other: store.site(site.keyid),
                action: MissingAction::FlushBeforeRekey { keyid: site.keyid },
            });
        }
    }

    /// What accesses of a line through a KeyID may skip the sanitizer because it would neither change nor report anything.
    pub(super) fn allowed(&self, packages: &Packages, page: u32, line: u32, address: BusAddr, keyid: KeyId) -> Allowed {
        let nothing = Allowed { loads: false, stores: false, fetches: false };
        let bit = 1u64 << line;
        let Some(shadow) = &self.pages[page as usize] else { return nothing };
        let Some(key) = shadow.key(keyid).filter(|key| key.cached & bit != 0) else { return nothing };
        let others = || shadow.keys.iter().filter(|other| other.keyid != keyid);
        if others().any(|other| other.dirty & !other.told & bit != 0) {
            return nothing;
        }
        let clean = key.marks.bytes(line);
        let unreadable = match &shadow.dram {
            Some(dram) if key.dirty & bit == 0 => {
                dram.unreadable(line, self.classes.of(packages, page, address, keyid))
            }
            _ => 0,
        };
        let bad = clean | unreadable;
        let loads = bad == 0 || key.silent & bit != 0;
        let stores = bad == 0 && key.dirty & bit != 0 && !others().any(|other| other.cached & bit != 0);
        Allowed { loads, stores, fetches: bad != ALL_BYTES || key.silent & bit != 0 }
    }
}

/// The first address of a RAM page.
pub(super) type PageMap<'a> = &'a dyn Fn(u32) -> crate::addr::PhysAddr;

/// The numbers of the set bits, ascending.
fn bits(mut set: u64) -> impl Iterator<Item = u32> {
    const { assert!(LINES_PER_PAGE == u64::BITS as usize) };
    std::iter::from_fn(move || {
        let line = (set != 0).then(|| set.trailing_zeros())?;
        set &= set - 1;
        Some(line)
    })
}

/// A page under an access, and what the access finds.
struct Found<'a> {
    page: &'a mut PageShadow,
    hazards: Vec<Hazard>,
}

impl Found<'_> {
    fn push(&mut self, piece: &Piece, kind: HazardKind, bytes: u64, other: Option<Site>, action: MissingAction) {
        self.hazards.push(Hazard {
            kind,
            line: piece.address,
            offset: (bytes.trailing_zeros() as usize % LINE_BYTES) as u8,
            lines: 1,
            access: *piece.site,
            other,
            action,
        });
    }

    /// Reports the copies of other KeyIDs that are dirty and were not reported yet. True if any is dirty.
    fn foreign_dirty(&mut self, piece: &Piece) -> bool {
        let (line, bit, here) = (piece.line(), piece.bit(), piece.keyid());
        let mut any = false;
        for at in 0..self.page.keys.len() {
            let other = &mut self.page.keys[at];
            if other.keyid == here || other.dirty & bit == 0 {
                continue;
            }
            any = true;
            if other.told & bit != 0 {
                continue;
            }
            other.told |= bit;
            let (dirty, store) = (other.keyid, other.store_record(line).site(other.keyid));
            let (kind, action) = foreign_dirty_kind(dirty, here, piece.site.operation);
            self.push(piece, kind, piece.bytes, store, action);
        }
        any
    }

    /// An access that allocates: what the KeyID sees of the line from now on.
    fn fill(&mut self, piece: &Piece, class: Class) -> usize {
        let (line, bit) = (piece.line(), piece.bit());
        let at = self.page.key_index(piece.keyid());
        if self.page.keys[at].cached & bit != 0 {
            return at;
        }
        let dirty = |key: &&super::shadow::KeyShadow| key.keyid != piece.keyid() && key.dirty & bit != 0;
        let stale = self.page.keys.iter().find(dirty).map(|other| {
            // What DRAM has is older than that store, whatever else it is.
            Mark::all(Cause::Stale, other.keyid, other.store_record(line))
        });
        let dram = self.page.dram.as_deref();
        let told = dram.is_some_and(|dram| dram.told & bit != 0);
        let mark = stale.or(dram.map(|dram| dram.mark_for(line, class))).unwrap_or_default();
        let key = &mut self.page.keys[at];
        key.cached |= bit;
        key.marks.set(line, mark);
        key.silent = if stale.is_some() || told { key.silent | bit } else { key.silent & !bit };
        at
    }

    /// Load, fetch or walk.
    fn load(&mut self, piece: &Piece, class: Class, ty: MemType, no_fill: bool) {
        let foreign = self.foreign_dirty(piece);
        match ty {
            MemType::Uc | MemType::UcMinus | MemType::Wc => {
                self.leave_cache(piece, class, true);
                self.consume_dram(piece, class, foreign);
            }
            MemType::Wb | MemType::Wt | MemType::Wp => {
                if no_fill && self.page.key(piece.keyid()).is_none_or(|key| key.cached & piece.bit() == 0) {
                    return self.consume_dram(piece, class, foreign);
                }
                let at = self.fill(piece, class);
                self.consume_copy(piece, at, class, foreign);
            }
        }
    }

    /// Bytes of the KeyID's copy are used.
    fn consume_copy(&mut self, piece: &Piece, at: usize, class: Class, foreign: bool) {
        let line = piece.line();
        let key = &self.page.keys[at];
        let mut mark = key.marks.get(line);
        let from_dram = self.page.dram.as_deref().filter(|_| key.dirty & piece.bit() == 0);
        let mut told = false;
        if let Some(dram) = from_dram {
            // The copy is clean, so it may have left the cache by now and be read again; a key has changed then.
            let unreadable = dram.unreadable(line, class);
            if unreadable != 0 && mark.bytes & piece.bytes == 0 {
                let (keyid, by) = dram.writer(line);
                mark = Mark { bytes: mark.bytes, cause: Cause::WrongKey, keyid, by };
                told = dram.told & piece.bit() != 0;
            }
            mark.bytes |= unreadable;
        }
        self.consume(piece, at, mark, foreign || told);
    }

    /// Bytes are used as DRAM has them.
    fn consume_dram(&mut self, piece: &Piece, class: Class, foreign: bool) {
        let at = self.page.key_index(piece.keyid());
        let Some(dram) = self.page.dram.as_deref() else { return };
        let (mark, told) = (dram.mark_for(piece.line(), class), dram.told & piece.bit() != 0);
        self.consume(piece, at, mark, foreign || told);
    }

    fn consume(&mut self, piece: &Piece, at: usize, mark: Mark, known: bool) {
        let bytes = match piece.site.operation {
            // A line is fetched whole, and decoded from its start to wherever; only a line of which nothing is good is
            // code that was read wrongly for sure.
            Operation::Fetch if mark.bytes == ALL_BYTES => piece.bytes,
            Operation::Fetch => 0,
            _ => mark.bytes & piece.bytes,
        };
        if bytes == 0 {
            return;
        }
        let key = &mut self.page.keys[at];
        let silent = key.silent & piece.bit() != 0;
        key.silent |= piece.bit();
        if silent || known {
            return;
        }
        let other = mark.by.site(mark.keyid);
        let (reader, writer) = (piece.keyid(), mark.keyid);
        let (kind, action) = match mark.cause {
            Cause::Stale => (HazardKind::StaleRead, MissingAction::DropStaleCopy { keyid: reader, writer }),
            Cause::WrongKey => (HazardKind::WrongKeyRead, MissingAction::WriteBeforeRead { keyid: reader }),
            Cause::Lost => (HazardKind::LostWrite, MissingAction::DropBeforeStore { writer }),
        };
        self.push(piece, kind, bytes, other, action);
    }

    /// A store by its memory type.
    fn store(&mut self, piece: &Piece, class: Class, ty: MemType, no_fill: bool) {
        let cached = self.page.key(piece.keyid()).is_some_and(|key| key.cached & piece.bit() != 0);
        match ty {
            MemType::Wb if cached || !no_fill => self.store_copy(piece, class),
            // Neither allocates nor evicts.
            MemType::Wb | MemType::Wt => {
                self.foreign_dirty(piece);
                let at = self.page.key_index(piece.keyid());
                self.page.keys[at].marks.clear(piece.line(), piece.bytes);
                self.write_dram(piece, class);
            }
            MemType::Wp | MemType::Uc | MemType::UcMinus | MemType::Wc => self.store_past(piece, class),
        }
    }

    fn store_copy(&mut self, piece: &Piece, class: Class) {
        let (line, bit) = (piece.line(), piece.bit());
        let foreign = self.foreign_dirty(piece);
        let at = self.fill(piece, class);
        let by = Record::new(piece.site);
        let key = &mut self.page.keys[at];
        if key.dirty & bit == 0 {
            // A clean copy of what a changed key cannot read any more is garbage once it has been read again.
            if let Some(dram) = &self.page.dram {
                let (keyid, writer) = dram.writer(line);
                let bytes = dram.unreadable(line, class) & !key.marks.bytes(line);
                if bytes != 0 {
                    key.marks.add(line, Mark { bytes, cause: Cause::WrongKey, keyid, by: writer });
                    key.silent |= dram.told & bit;
                }
            }
            key.dirty |= bit;
            key.told &= !bit;
            key.set_store_record(line, by);
        }
        key.marks.clear(line, piece.bytes);
        if foreign {
            key.silent |= bit;
        }
        let known = key.told & bit != 0;
        self.outdate(piece, ALL_BYTES, by, known);
    }

    /// Non-temporal and uncached stores, and devices.
    fn store_past(&mut self, piece: &Piece, class: Class) {
        self.foreign_dirty(piece);
        self.leave_cache(piece, class, piece.bytes != ALL_BYTES);
        self.write_dram(piece, class);
    }

    fn write_dram(&mut self, piece: &Piece, class: Class) {
        let (line, by) = (piece.line(), Record::new(piece.site));
        let dram = self.page.dram.get_or_insert_default();
        if piece.bytes == ALL_BYTES {
            dram.write_line(line, class, piece.keyid(), by, Mark::default(), false);
        } else {
            dram.write_bytes(line, piece.bytes, class, piece.keyid(), by);
        }
        self.page.dram_changed(line);
        self.outdate(piece, whole_blocks(piece.bytes), by, false);
    }

    /// The copies of other KeyIDs are stale in `bytes` from now on. `known`: a hazard of this store was reported.
    fn outdate(&mut self, piece: &Piece, bytes: u64, by: Record, known: bool) {
        let mark = Mark { bytes, cause: Cause::Stale, keyid: piece.keyid(), by };
        for other in &mut self.page.keys {
            if other.keyid != piece.keyid() && other.cached & piece.bit() != 0 {
                other.marks.add(piece.line(), mark);
                if !known {
                    other.silent &= !piece.bit();
                }
            }
        }
    }

    /// The KeyID's copy leaves the cache.
    fn leave_cache(&mut self, piece: &Piece, class: Class, write_back: bool) {
        let at = self.page.key_index(piece.keyid());
        if write_back && self.page.keys[at].dirty & piece.bit() != 0 {
            self.page.write_back(at, piece.line(), class);
        }
        self.page.keys[at].drop_line(piece.line());
    }

    /// CLFLUSH, CLFLUSHOPT; CLWB with `drop = false`.
    fn flush(&mut self, piece: &Piece, class: Class, drop: bool) {
        let (line, bit, here) = (piece.line(), piece.bit(), piece.keyid());
        let at = self.page.key_index(here);
        if self.page.keys[at].dirty & bit != 0 {
            self.page.write_back(at, line, class);
        } else {
            for n in 0..self.page.keys.len() {
                let other = &mut self.page.keys[n];
                if other.dirty & !other.told & bit != 0 {
                    other.told |= bit;
                    let (dirty, store) = (other.keyid, other.store_record(line).site(other.keyid));
                    let action = MissingAction::FlushOther { flushed: here, dirty };
                    self.push(piece, HazardKind::WrongAliasFlushed, piece.bytes, store, action);
                }
            }
        }
        if drop {
            self.page.keys[at].drop_line(line);
        }
    }

    /// A device reads: from the KeyID's copy if there may be one.
    fn dma_read(&mut self, piece: &Piece, class: Class) {
        let foreign = self.foreign_dirty(piece);
        let at = self.page.key_index(piece.keyid());
        if self.page.keys[at].cached & piece.bit() != 0 {
            self.consume_copy(piece, at, class, foreign);
        } else {
            self.consume_dram(piece, class, foreign);
        }
    }
}

/// What it is called when `here` accesses a line that is dirty under `dirty`.
fn foreign_dirty_kind(dirty: KeyId, here: KeyId, operation: Operation) -> (HazardKind, MissingAction) {
    let before_access = MissingAction::FlushBeforeAccess { dirty, keyid: here };
    match operation {
        Operation::DmaRead | Operation::DmaWrite => {
            (HazardKind::DmaBypassesDirtyLine, MissingAction::FlushBeforeDma { dirty, keyid: here })
        }
        _ if dirty == KeyId(0) => (HazardKind::MissingFlushOnAlloc, MissingAction::FlushOnAlloc { keyid: here }),
        _ if here == KeyId(0) && operation.writes() => {
            (HazardKind::MissingFlushOnFree, MissingAction::FlushOnFree { keyid: dirty })
        }
        _ if operation.writes() && here != KeyId(0) => (HazardKind::LostWrite, before_access),
        _ => (HazardKind::StaleRead, before_access),
    }
}

/// A site of the loader.
pub(super) const LOADER: Site =
    Site { agent: Agent::Loader, operation: Operation::DmaWrite, rip: 0, icount: 0, keyid: KeyId(0), cpl: 0 };
