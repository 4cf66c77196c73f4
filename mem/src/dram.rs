//! The DRAM array: what a bus probe or a cold-boot dump sees. Nothing here knows a key.
//!
//! Cells are in two layers. [`PageTable`] is a snapshot's, shared and never written; what was written since is in pages of
//! this array's own, copied on the first write. Without snapshots the first layer is empty.

mod pages;

use std::cell::{Cell, OnceCell, RefCell};
use std::io::{self, Write};

use crate::CipherLine;
use crate::addr::{LINE_BYTES, LINES_PER_PAGE, LineAddr, PAGE_BYTES};
use crate::hash::StateHasher;
use crate::huge;
use crate::integrity::LineMetadata;
use crate::map::AddressMap;
pub(crate) use pages::{CellPage, Metadata, PageTable};

/// A page that is written to. The lines are `Cell`s because with `cache = off` a probe finds DRAM current (MC-27), and
/// probing is not an operation that needs exclusive access.
struct Page {
    lines: [Cell<CipherLine>; LINES_PER_PAGE],
    /// Bits of each line's metadata; made for the first that are not 0.
    metadata: OnceCell<Box<[Cell<u32>; LINES_PER_PAGE]>>,
    /// What the page adds to the state hash, if nothing was written since that was computed.
    hash: Cell<Option<u128>>,
}

impl Page {
    fn new(cells: Option<&CellPage>) -> Box<Self> {
        let line = |at| Cell::new(cells.map_or(CipherLine::ZERO, |cells| cells.lines[at]));
        let metadata = OnceCell::new();
        if let Some(bits) = cells.and_then(|cells| cells.metadata.as_ref()) {
            metadata.get_or_init(|| Box::new(bits.map(Cell::new)));
        }
        Box::new(Self { lines: std::array::from_fn(line), metadata, hash: Cell::new(None) })
    }

    fn to_cells(&self) -> CellPage {
        let metadata = self.metadata.get().map(|all| Box::new(std::array::from_fn(|at| all[at].get())));
        CellPage::new(std::array::from_fn(|at| self.lines[at].get()), metadata)
    }

    fn hash(&self, number: u32) -> u128 {
        self.hash.get().unwrap_or_else(|| {
            let hash = self.to_cells().hash(number);
            self.hash.set(Some(hash));
            hash
        })
    }
}

/// Sparse DRAM: a page exists from its first write on; cells never written read as zero bytes.
pub struct Dram {
    map: AddressMap,
    /// Pages written since the last snapshot or restore.
    own: Vec<OnceCell<Box<Page>>>,
    /// Their numbers.
    own_numbers: RefCell<Vec<u32>>,
    /// What the others hold.
    base: PageTable,
}

impl Dram {
    pub(crate) fn new(map: AddressMap) -> Self {
        let own = std::iter::repeat_with(OnceCell::new).take(map.pages()).collect();
        Self { map, own, own_numbers: RefCell::default(), base: PageTable::new(map.pages()) }
    }

    /// Raw cells of a line; zero bytes outside RAM.
    pub fn read_raw(&self, line: LineAddr) -> CipherLine {
        self.map.locate(line).map_or(CipherLine::ZERO, |(page, at)| self.read(page, at))
    }

    /// Replaces the raw cells of a line. False, and no effect, outside RAM.
    pub fn write_raw(&mut self, line: LineAddr, cells: &CipherLine) -> bool {
        match self.map.locate(line) {
            Some((page, at)) => {
                self.write(page, at, cells);
                true
            }
            None => false,
        }
    }

    /// Metadata of a line ([`crate::Config::integrity`]); nothing set outside RAM.
    pub fn metadata_raw(&self, line: LineAddr) -> LineMetadata {
        self.map.locate(line).map_or_else(LineMetadata::default, |(page, at)| self.metadata(page, at))
    }

    /// Replaces the metadata of a line. False, and no effect, outside RAM.
    pub fn set_metadata_raw(&mut self, line: LineAddr, metadata: LineMetadata) -> bool {
        match self.map.locate(line) {
            Some((page, at)) => {
                self.set_metadata(page, at, metadata);
                true
            }
            None => false,
        }
    }

    /// Metadata of line `line` of page number `page`, both in range.
    pub(crate) fn metadata(&self, page: u32, line: u32) -> LineMetadata {
        let at = line as usize % LINES_PER_PAGE;
        match self.own[page as usize].get() {
            Some(own) => LineMetadata::from_bits(own.metadata.get().map_or(0, |all| all[at].get())),
            None => self.base.get(page).map_or_else(LineMetadata::default, |cells| cells.metadata(at)),
        }
    }

    /// Replaces the metadata of line `line` of page number `page`, both in range.
    pub(crate) fn set_metadata(&self, page: u32, line: u32, metadata: LineMetadata) {
        if self.metadata(page, line) == metadata {
            return;
        }
        let all = self.page(page).metadata.get_or_init(|| Box::new(std::array::from_fn(|_| Cell::new(0))));
        all[line as usize % LINES_PER_PAGE].set(metadata.to_bits());
    }

    /// Writes the raw cells of all RAM in address order, regions back to back.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn dump(&self, out: &mut impl Write) -> io::Result<()> {
        for (number, own) in self.own.iter().enumerate() {
            let mut bytes = [0; PAGE_BYTES];
            for (line, to) in bytes.chunks_exact_mut(LINE_BYTES).enumerate() {
                to.copy_from_slice(&match own.get() {
                    Some(page) => page.lines[line].get().0,
                    None => self.base.line(number as u32, line).0,
                });
            }
            out.write_all(&bytes)?;
        }
        Ok(())
    }

    /// Bytes of DRAM that have ever been written.
    pub fn allocated_bytes(&self) -> u64 {
        let numbers = self.own_numbers.borrow();
        let new = numbers.iter().filter(|number| self.base.get(**number).is_none()).count();
        ((new + self.base.pages()) * PAGE_BYTES) as u64
    }

    /// Pages written since the last snapshot or restore: what a restore has to give back.
    pub fn pages_written(&self) -> usize {
        self.own_numbers.borrow().len()
    }

    /// True when the page was ever written.
    pub(crate) fn exists(&self, page: u32) -> bool {
        self.own[page as usize].get().is_some() || self.base.get(page).is_some()
    }

    /// Line `line` of page number `page`, both in range.
    #[inline]
    pub(crate) fn read(&self, page: u32, line: u32) -> CipherLine {
        match self.own[page as usize].get() {
            Some(own) => own.lines[line as usize % LINES_PER_PAGE].get(),
            None => self.base.line(page, line as usize % LINES_PER_PAGE),
        }
    }

    /// Line `line` of page number `page`, both in range.
    #[inline]
    pub(crate) fn write(&self, page: u32, line: u32, cells: &CipherLine) {
        self.page(page).lines[line as usize % LINES_PER_PAGE].set(*cells);
    }

    /// Line `line` of page number `page`, both in range, where it is; `None` if the page was never written.
    #[inline]
    pub(crate) fn cells(&mut self, page: u32, line: u32) -> Option<&CipherLine> {
        let at = line as usize % LINES_PER_PAGE;
        match self.own[page as usize].get_mut() {
            Some(own) => Some(own.lines[at].get_mut()),
            None => self.base.get(page).map(|cells| &cells.lines[at]),
        }
    }

    /// Asks the host for a line that will be read.
    #[inline(always)]
    pub(crate) fn prefetch(&self, page: u32, line: u32) {
        if let Some(own) = self.own[page as usize].get() {
            huge::prefetch(&own.lines[line as usize % LINES_PER_PAGE]);
        }
    }

    /// Line `line` of page number `page`, both in range, to be written where it is.
    #[inline]
    pub(crate) fn cells_mut(&mut self, page: u32, line: u32) -> &mut CipherLine {
        // Copies the page if need be, and voids its hash.
        self.page(page);
        let own = self.own[page as usize].get_mut().expect("the page was allocated");
        own.lines[line as usize % LINES_PER_PAGE].get_mut()
    }

    /// Consecutive lines of a page from `first` on.
    pub(crate) fn read_run(&self, page: u32, first: u32, lines: &mut [CipherLine]) {
        match self.own[page as usize].get() {
            Some(own) => {
                for (to, from) in lines.iter_mut().zip(&own.lines[first as usize..]) {
                    *to = from.get();
                }
            }
            None => {
                for (to, line) in lines.iter_mut().zip(first as usize..) {
                    *to = self.base.line(page, line);
                }
            }
        }
    }

    /// Consecutive lines of a page from `first` on.
    pub(crate) fn write_run(&self, page: u32, first: u32, lines: &[CipherLine]) {
        for (to, from) in self.page(page).lines[first as usize..].iter().zip(lines) {
            to.set(*from);
        }
    }

    /// The cells of a page for writing, copied if need be.
    #[inline]
    fn page(&self, page: u32) -> &Page {
        let own = self.own[page as usize].get_or_init(|| {
            self.own_numbers.borrow_mut().push(page);
            Page::new(self.base.get(page))
        });
        own.hash.set(None);
        own
    }

    /// Power loss without remanence.
    pub(crate) fn clear(&mut self) {
        self.restore(&PageTable::new(self.map.pages()));
    }

    /// The contents now. The pages written since the last snapshot are copied, the others shared.
    pub(crate) fn snapshot(&mut self) -> PageTable {
        let own = &mut self.own;
        let written = self.own_numbers.get_mut().drain(..);
        let written = written.filter_map(|number| Some((number, own[number as usize].take()?.to_cells())));
        self.base.replace(written);
        self.base.clone()
    }

    /// Takes contents over. Costs what was written since the last snapshot or restore.
    pub(crate) fn restore(&mut self, table: &PageTable) {
        for number in self.own_numbers.get_mut().drain(..) {
            self.own[number as usize].take();
        }
        self.base = table.clone();
    }

    /// The sum of what the pages add ([`CellPage::hash`]): repeated, it costs what was written in between.
    pub(crate) fn hash(&self, hasher: &mut StateHasher) {
        hasher.u64(self.own.len() as u64);
        let mut sum = self.base.hash();
        for &number in self.own_numbers.borrow().iter() {
            if let Some(page) = self.own[number as usize].get() {
                let before = self.base.get(number).map_or(0, |cells| cells.hash(number));
                sum = sum.wrapping_add(page.hash(number)).wrapping_sub(before);
            }
        }
        hasher.u128(sum);
    }
}
