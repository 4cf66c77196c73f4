//! The rules for an access of one line, as the module's description has them.

use super::class::Class;
use super::hazard::{Hazard, HazardKind, MissingAction, Operation, Site};
use super::record::Record;
use super::shadow::{ALL_BYTES, Cause, KeyShadow, Mark, PageShadow, whole_blocks};
use crate::addr::{KeyId, LINE_BYTES, LineAddr, MemType};

/// The part of a line that is accessed, in the terms of the abstract machine.
#[derive(Clone, Copy)]
pub(super) struct Piece<'a> {
    /// The line in its page.
    pub(super) line: u32,
    pub(super) address: LineAddr,
    pub(super) bytes: u64,
    /// Of the site's KeyID.
    pub(super) class: Class,
    pub(super) site: &'a Site,
}

impl Piece<'_> {
    fn bit(&self) -> u64 {
        1 << self.line
    }

    fn keyid(&self) -> KeyId {
        self.site.keyid
    }
}

/// A page under an access, and what the access finds.
pub(super) struct Found<'a> {
    pub(super) page: &'a mut PageShadow,
    pub(super) hazards: Vec<Hazard>,
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
        let (line, bit, here) = (piece.line, piece.bit(), piece.keyid());
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
    fn fill(&mut self, piece: &Piece) -> usize {
        let (line, bit) = (piece.line, piece.bit());
        let at = self.page.key_index(piece.keyid());
        if self.page.keys[at].cached & bit != 0 {
            return at;
        }
        let dirty = |key: &&KeyShadow| key.keyid != piece.keyid() && key.dirty & bit != 0;
        let stale = self.page.keys.iter().find(dirty).map(|other| {
            // What DRAM has is older than that store, whatever else it is.
            Mark::all(Cause::Stale, other.keyid, other.store_record(line))
        });
        let dram = self.page.dram.as_deref();
        let told = dram.is_some_and(|dram| dram.told & bit != 0);
        let mark = stale.or(dram.map(|dram| dram.mark_for(line, piece.class))).unwrap_or_default();
        let key = &mut self.page.keys[at];
        key.cached |= bit;
        key.marks.set(line, mark);
        key.silent = if stale.is_some() || told { key.silent | bit } else { key.silent & !bit };
        at
    }

    /// Load, fetch or walk.
    pub(super) fn load(&mut self, piece: &Piece, ty: MemType, no_fill: bool) {
        let foreign = self.foreign_dirty(piece);
        match ty {
            MemType::Uc | MemType::UcMinus | MemType::Wc => {
                self.leave_cache(piece, true);
                self.consume_dram(piece, foreign);
            }
            MemType::Wb | MemType::Wt | MemType::Wp => {
                if no_fill && self.page.key(piece.keyid()).is_none_or(|key| key.cached & piece.bit() == 0) {
                    return self.consume_dram(piece, foreign);
                }
                let at = self.fill(piece);
                self.consume_copy(piece, at, foreign);
            }
        }
    }

    /// Bytes of the KeyID's copy are used.
    fn consume_copy(&mut self, piece: &Piece, at: usize, foreign: bool) {
        let line = piece.line;
        let key = &self.page.keys[at];
        let mut mark = key.marks.get(line);
        let from_dram = self.page.dram.as_deref().filter(|_| key.dirty & piece.bit() == 0);
        let mut told = false;
        if let Some(dram) = from_dram {
            // The copy is clean, so it may have left the cache by now and be read again; a key has changed then.
            let unreadable = dram.unreadable(line, piece.class);
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
    fn consume_dram(&mut self, piece: &Piece, foreign: bool) {
        let at = self.page.key_index(piece.keyid());
        let Some(dram) = self.page.dram.as_deref() else { return };
        let (mark, told) = (dram.mark_for(piece.line, piece.class), dram.told & piece.bit() != 0);
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
    pub(super) fn store(&mut self, piece: &Piece, ty: MemType, no_fill: bool) {
        let cached = self.page.key(piece.keyid()).is_some_and(|key| key.cached & piece.bit() != 0);
        match ty {
            MemType::Wb if cached || !no_fill => self.store_copy(piece),
            // Neither allocates nor evicts.
            MemType::Wb | MemType::Wt => {
                self.foreign_dirty(piece);
                let at = self.page.key_index(piece.keyid());
                self.page.keys[at].marks.clear(piece.line, piece.bytes);
                self.write_dram(piece);
            }
            MemType::Wp | MemType::Uc | MemType::UcMinus | MemType::Wc => self.store_past(piece),
        }
    }

    fn store_copy(&mut self, piece: &Piece) {
        let (line, bit) = (piece.line, piece.bit());
        let foreign = self.foreign_dirty(piece);
        let at = self.fill(piece);
        let by = Record::new(piece.site);
        let key = &mut self.page.keys[at];
        if key.dirty & bit == 0 {
            // A clean copy of what a changed key cannot read any more is garbage once it has been read again.
            if let Some(dram) = &self.page.dram {
                let (keyid, writer) = dram.writer(line);
                let bytes = dram.unreadable(line, piece.class) & !key.marks.bytes(line);
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
    pub(super) fn store_past(&mut self, piece: &Piece) {
        self.foreign_dirty(piece);
        self.leave_cache(piece, piece.bytes != ALL_BYTES);
        self.write_dram(piece);
    }

    fn write_dram(&mut self, piece: &Piece) {
        let (line, by) = (piece.line, Record::new(piece.site));
        let dram = self.page.dram.get_or_insert_default();
        if piece.bytes == ALL_BYTES {
            dram.write_line(line, piece.class, piece.keyid(), by, Mark::default(), false);
        } else {
            dram.write_bytes(line, piece.bytes, piece.class, piece.keyid(), by);
        }
        self.page.dram_changed(line);
        self.outdate(piece, whole_blocks(piece.bytes), by, false);
    }

    /// The copies of other KeyIDs are stale in `bytes` from now on. `known`: a hazard of this store was reported.
    fn outdate(&mut self, piece: &Piece, bytes: u64, by: Record, known: bool) {
        let mark = Mark { bytes, cause: Cause::Stale, keyid: piece.keyid(), by };
        for other in &mut self.page.keys {
            if other.keyid != piece.keyid() && other.cached & piece.bit() != 0 {
                other.marks.add(piece.line, mark);
                if !known {
                    other.silent &= !piece.bit();
                }
            }
        }
    }

    /// The KeyID's copy leaves the cache.
    fn leave_cache(&mut self, piece: &Piece, write_back: bool) {
        let at = self.page.key_index(piece.keyid());
        if write_back && self.page.keys[at].dirty & piece.bit() != 0 {
            self.page.write_back(at, piece.line, piece.class);
        }
        self.page.keys[at].drop_line(piece.line);
    }

    /// CLFLUSH, CLFLUSHOPT; CLWB with `drop = false`.
    pub(super) fn flush(&mut self, piece: &Piece, drop: bool) {
        let (line, bit, here) = (piece.line, piece.bit(), piece.keyid());
        let at = self.page.key_index(here);
        if self.page.keys[at].dirty & bit != 0 {
            self.page.write_back(at, line, piece.class);
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
    pub(super) fn dma_read(&mut self, piece: &Piece) {
        let foreign = self.foreign_dirty(piece);
        let at = self.page.key_index(piece.keyid());
        if self.page.keys[at].cached & piece.bit() != 0 {
            self.consume_copy(piece, at, foreign);
        } else {
            self.consume_dram(piece, foreign);
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
