//! The state of the abstract machine, page by page.
//!
//! All bit sets have one bit per line of the page, except those that are called bytes: one bit per byte of a line.

use super::class::Class;
use super::record::Record;
use crate::addr::{KeyId, LINE_BYTES, LINES_PER_PAGE};

/// Bytes of an AES block, which a cipher operation changes as a whole.
const BLOCK_BYTES: usize = 16;
const BLOCKS: usize = LINE_BYTES / BLOCK_BYTES;
pub(super) const ALL_BYTES: u64 = !0;
const _: () = assert!(LINE_BYTES == u64::BITS as usize && LINES_PER_PAGE == u64::BITS as usize);

/// Why bytes are not what was stored last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Cause {
    /// Another KeyID stored after they were read into this copy.
    #[default]
    Stale,
    /// Another key encrypted them.
    WrongKey,
    /// A write-back of a stale copy put them over newer ones.
    Lost,
}

/// The bytes of a line that are not to be trusted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) bytes: u64,
    pub(super) cause: Cause,
    /// KeyID of `by`.
    pub(super) keyid: KeyId,
    /// The access that made them so.
    pub(super) by: Record,
}

impl Mark {
    pub(super) const fn all(cause: Cause, keyid: KeyId, by: Record) -> Self {
        Self { bytes: ALL_BYTES, cause, keyid, by }
    }
}

/// Marks of the lines of a page, allocated with the first one.
#[derive(Debug, Default)]
pub(super) struct Marks(Option<Box<[Mark; LINES_PER_PAGE]>>);

impl Marks {
    #[inline]
    pub(super) fn get(&self, line: u32) -> Mark {
        self.0.as_ref().map_or(Mark::default(), |marks| marks[line as usize % LINES_PER_PAGE])
    }

    #[inline]
    pub(super) fn bytes(&self, line: u32) -> u64 {
        self.0.as_ref().map_or(0, |marks| marks[line as usize % LINES_PER_PAGE].bytes)
    }

    #[inline]
    pub(super) fn set(&mut self, line: u32, mark: Mark) {
        if self.0.is_some() || mark.bytes != 0 {
            let marks = self.0.get_or_insert_with(|| Box::new([Mark::default(); LINES_PER_PAGE]));
            marks[line as usize % LINES_PER_PAGE] = mark;
        }
    }

    /// Trusts bytes again.
    #[inline]
    pub(super) fn clear(&mut self, line: u32, bytes: u64) {
        if let Some(marks) = &mut self.0 {
            marks[line as usize % LINES_PER_PAGE].bytes &= !bytes;
        }
    }

    /// Distrusts more bytes, for the newest reason.
    pub(super) fn add(&mut self, line: u32, mark: Mark) {
        self.set(line, Mark { bytes: mark.bytes | self.bytes(line), ..mark });
    }
}

/// A page as one KeyID sees it.
#[derive(Debug, Default)]
pub(super) struct KeyShadow {
    pub(super) keyid: KeyId,
    /// Lines of which a copy may be in the cache.
    pub(super) cached: u64,
    /// Lines of which that copy may be newer than DRAM; a subset of `cached`.
    pub(super) dirty: u64,
    /// Dirty lines that were reported as such.
    pub(super) told: u64,
    /// Lines whose marked bytes were reported, or come from something that was.
    pub(super) silent: u64,
    pub(super) marks: Marks,
    /// The store that made the line dirty.
    stores: Option<Box<[Record; LINES_PER_PAGE]>>,
}

impl KeyShadow {
    pub(super) fn store_record(&self, line: u32) -> Record {
        self.stores.as_ref().map_or(Record::default(), |stores| stores[line as usize % LINES_PER_PAGE])
    }

    pub(super) fn set_store_record(&mut self, line: u32, record: Record) {
        let stores = self.stores.get_or_insert_with(|| Box::new([Record::default(); LINES_PER_PAGE]));
        stores[line as usize % LINES_PER_PAGE] = record;
    }

    /// The copy has left the cache.
    pub(super) fn drop_line(&mut self, line: u32) {
        let keep = !(1 << line);
        self.cached &= keep;
        self.dirty &= keep;
        self.told &= keep;
        self.marks.clear(line, ALL_BYTES);
    }
}

/// What DRAM holds.
#[derive(Debug)]
pub(super) struct DramShadow {
    classes: [Class; LINES_PER_PAGE],
    /// Lines whose blocks are of several classes, in no order; `classes` does not count for them.
    mixed: Vec<(u32, [Class; BLOCKS])>,
    keyids: [KeyId; LINES_PER_PAGE],
    writers: [Record; LINES_PER_PAGE],
    /// Lines that were written back after they had been reported.
    pub(super) told: u64,
    pub(super) marks: Marks,
}

impl Default for DramShadow {
    fn default() -> Self {
        Self {
            classes: [Class::UNWRITTEN; LINES_PER_PAGE],
            mixed: Vec::new(),
            keyids: [KeyId(0); LINES_PER_PAGE],
            writers: [Record::default(); LINES_PER_PAGE],
            told: 0,
            marks: Marks::default(),
        }
    }
}

/// The bytes of block `n` of a line.
const fn block_bytes(n: usize) -> u64 {
    ((1 << BLOCK_BYTES) - 1) << (n * BLOCK_BYTES)
}

/// The bytes of all blocks that `bytes` have a part of.
pub(super) fn whole_blocks(bytes: u64) -> u64 {
    (0..BLOCKS).map(block_bytes).filter(|block| block & bytes != 0).fold(0, |all, block| all | block)
}

impl DramShadow {
    fn blocks(&self, line: u32) -> [Class; BLOCKS] {
        let mixed = self.mixed.iter().find(|(at, _)| *at == line).map(|(_, blocks)| *blocks);
        mixed.unwrap_or([self.classes[line as usize % LINES_PER_PAGE]; BLOCKS])
    }

    fn set_blocks(&mut self, line: u32, blocks: [Class; BLOCKS]) {
        self.mixed.retain(|(at, _)| *at != line);
        self.classes[line as usize % LINES_PER_PAGE] = blocks[0];
        if blocks.iter().any(|class| *class != blocks[0]) {
            self.mixed.push((line, blocks));
        }
    }

    /// The bytes of a line that cannot be read with `class`, whoever wrote them.
    #[inline]
    pub(super) fn unreadable(&self, line: u32, class: Class) -> u64 {
        if self.mixed.is_empty() {
            let written = self.classes[line as usize % LINES_PER_PAGE];
            return if written.readable_as(class) { 0 } else { ALL_BYTES };
        }
        let blocks = self.blocks(line);
        (0..BLOCKS).filter(|n| !blocks[*n].readable_as(class)).fold(0, |bytes, n| bytes | block_bytes(n))
    }

    /// What a fill with `class` finds.
    pub(super) fn mark_for(&self, line: u32, class: Class) -> Mark {
        let (keyid, by) = self.writer(line);
        let unreadable = self.unreadable(line, class);
        let mark = self.marks.get(line);
        let cause = if unreadable != 0 { Cause::WrongKey } else { mark.cause };
        Mark { bytes: unreadable | mark.bytes, cause, keyid, by }
    }

    pub(super) fn writer(&self, line: u32) -> (KeyId, Record) {
        (self.keyids[line as usize % LINES_PER_PAGE], self.writers[line as usize % LINES_PER_PAGE])
    }

    /// A whole line is written. `bad`: bytes of it that are not to be trusted.
    pub(super) fn write_line(&mut self, line: u32, class: Class, keyid: KeyId, by: Record, bad: Mark, told: bool) {
        self.set_blocks(line, [class; BLOCKS]);
        self.note_writer(line, keyid, by);
        self.marks.set(line, bad);
        self.told = self.told & !(1 << line) | u64::from(told) << line;
    }

    /// Bytes of a line are merged into what DRAM holds: decrypted, changed and encrypted again with `class`, which
    /// changes the blocks touched and no others (MK specification section 5.4).
    pub(super) fn write_bytes(&mut self, line: u32, bytes: u64, class: Class, keyid: KeyId, by: Record) {
        let mut blocks = self.blocks(line);
        let mut mark = self.marks.get(line);
        for (n, block) in blocks.iter_mut().enumerate() {
            let whole = block_bytes(n);
            if whole & bytes == 0 {
                continue;
            }
            if !block.readable_as(class) {
                mark = Mark { bytes: mark.bytes | whole, cause: Cause::WrongKey, keyid, by };
            }
            *block = class;
        }
        mark.bytes &= !bytes;
        self.set_blocks(line, blocks);
        self.note_writer(line, keyid, by);
        self.marks.set(line, mark);
        self.told &= !(1 << line);
    }

    fn note_writer(&mut self, line: u32, keyid: KeyId, by: Record) {
        self.keyids[line as usize % LINES_PER_PAGE] = keyid;
        self.writers[line as usize % LINES_PER_PAGE] = by;
    }
}

/// A page.
#[derive(Debug, Default)]
pub(super) struct PageShadow {
    /// The KeyIDs that touched the page, ascending.
    pub(super) keys: Vec<KeyShadow>,
    pub(super) dram: Option<Box<DramShadow>>,
}

impl PageShadow {
    /// Where the KeyID's state is, made if there is none.
    pub(super) fn key_index(&mut self, keyid: KeyId) -> usize {
        match self.keys.binary_search_by_key(&keyid, |key| key.keyid) {
            Ok(at) => at,
            Err(at) => {
                self.keys.insert(at, KeyShadow { keyid, ..KeyShadow::default() });
                at
            }
        }
    }

    pub(super) fn key(&self, keyid: KeyId) -> Option<&KeyShadow> {
        self.keys.iter().find(|key| key.keyid == keyid)
    }

    /// A DRAM line was written: who reads it from there reads something new.
    pub(super) fn dram_changed(&mut self, line: u32) {
        for key in &mut self.keys {
            if key.cached >> line & 1 == 0 {
                key.silent &= !(1 << line);
            }
        }
    }

    /// Writes the dirty copy of a KeyID back.
    pub(super) fn write_back(&mut self, at: usize, line: u32, class: Class) {
        let key = &mut self.keys[at];
        let mut bad = key.marks.get(line);
        if bad.cause == Cause::Stale {
            bad.cause = Cause::Lost;
        }
        let (keyid, by, told) = (key.keyid, key.store_record(line), key.told >> line & 1 != 0);
        key.dirty &= !(1 << line);
        key.told &= !(1 << line);
        self.dram.get_or_insert_default().write_line(line, class, keyid, by, bad, told);
        self.dram_changed(line);
    }
}
