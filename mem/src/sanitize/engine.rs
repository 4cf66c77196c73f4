//! The pages, the operations on all of them, and what may skip the sanitizer.

use super::class::Classes;
use super::hazard::{Agent, Hazard, HazardKind, MissingAction, Operation, Site};
use super::record::Record;
use super::rules::{Found, Piece};
use super::shadow::{ALL_BYTES, Cause, Mark, PageShadow};
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

/// An access inside one line, as it is told.
pub(super) struct Access<'a> {
    pub(super) place: Place,
    pub(super) len: usize,
    pub(super) ty: MemType,
    pub(super) no_fill: bool,
    /// Its KeyID is that of `place`.
    pub(super) site: &'a Site,
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

/// True for accesses that depend on nothing but the KeyID's copy, if there is one.
fn is_plain(operation: Operation) -> bool {
    matches!(
        operation,
        Operation::Load | Operation::Store | Operation::Fetch | Operation::PageWalk | Operation::PageWalkUpdate
    )
}

/// True when the line is dirty and good under this KeyID and the page has no other.
fn is_alone(page: &PageShadow, keyid: KeyId, line: u32) -> bool {
    match page.keys.as_slice() {
        [key] => key.keyid == keyid && key.dirty >> line & 1 != 0 && key.marks.bytes(line) == 0,
        _ => false,
    }
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

    /// True if the state changed.
    pub(super) fn access(&mut self, packages: &Packages, layout: AddressLayout, access: &Access) -> bool {
        self.classes.update(packages);
        let Access { place, ty, no_fill, site, .. } = *access;
        let page = self.pages[place.page as usize].get_or_insert_default();
        // The common case by far: nothing new about a line that only this KeyID has.
        if ty == MemType::Wb && is_plain(site.operation) && is_alone(page, site.keyid, place.line()) {
            return false;
        }
        let class = self.classes.of(packages, place.page, place.address, site.keyid);
        let bytes = byte_mask(place.address.line_offset(), access.len);
        let piece = Piece { line: place.line(), address: layout.mem(place.address).line(), bytes, class, site };
        let mut found = Found { page, hazards: Vec::new() };
        match site.operation {
            Operation::Load | Operation::Fetch | Operation::PageWalk => found.load(&piece, ty, no_fill),
            Operation::Store | Operation::PageWalkUpdate => found.store(&piece, ty, no_fill),
            Operation::NonTemporalStore | Operation::DmaWrite => found.store_past(&piece),
            Operation::Flush => found.flush(&piece, true),
            Operation::WriteBack => found.flush(&piece, false),
            Operation::DmaRead => found.dma_read(&piece),
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

/// A site of the loader.
pub(super) const LOADER: Site =
    Site { agent: Agent::Loader, operation: Operation::DmaWrite, rip: 0, icount: 0, keyid: KeyId(0), cpl: 0 };
