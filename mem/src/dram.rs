//! The DRAM array: what a bus probe or a cold-boot dump sees. Nothing here knows a key.

use std::cell::{Cell, OnceCell};
use std::io::{self, Write};

use crate::CipherLine;
use crate::addr::{LINE_BYTES, LINES_PER_PAGE, LineAddr, PAGE_BYTES};
use crate::hash::StateHasher;
use crate::map::AddressMap;

/// The lines of a page. They are `Cell`s because with `cache = off` a probe finds DRAM current (MC-27), and probing is
/// not an operation that needs exclusive access.
type Page = [Cell<CipherLine>; LINES_PER_PAGE];

/// Sparse DRAM: a page exists from its first write on; cells never written read as zero bytes.
pub struct Dram {
    map: AddressMap,
    pages: Vec<OnceCell<Box<Page>>>,
}

impl Dram {
    pub(crate) fn new(map: AddressMap) -> Self {
        let pages = std::iter::repeat_with(OnceCell::new).take(map.pages()).collect();
        Self { map, pages }
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

    /// Writes the raw cells of all RAM in address order, regions back to back.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn dump(&self, out: &mut impl Write) -> io::Result<()> {
        for page in &self.pages {
            out.write_all(&page_bytes(page.get().map(Box::as_ref)))?;
        }
        Ok(())
    }

    /// Bytes of host memory in use for cells.
    pub fn allocated_bytes(&self) -> u64 {
        (self.pages.iter().filter(|page| page.get().is_some()).count() * PAGE_BYTES) as u64
    }

    /// True when the page was ever written.
    pub(crate) fn exists(&self, page: u32) -> bool {
        self.pages[page as usize].get().is_some()
    }

    /// Line `line` of page number `page`, both in range.
    #[inline]
    pub(crate) fn read(&self, page: u32, line: u32) -> CipherLine {
        match self.pages[page as usize].get() {
            Some(cells) => cells[line as usize % LINES_PER_PAGE].get(),
            None => CipherLine::ZERO,
        }
    }

    /// Line `line` of page number `page`, both in range.
    #[inline]
    pub(crate) fn write(&self, page: u32, line: u32, cells: &CipherLine) {
        self.page(page)[line as usize % LINES_PER_PAGE].set(*cells);
    }

    /// Line `line` of page number `page`, both in range, where it is; `None` if the page was never written.
    #[inline]
    pub(crate) fn cells(&mut self, page: u32, line: u32) -> Option<&CipherLine> {
        let page = self.pages[page as usize].get_mut()?;
        Some(page[line as usize % LINES_PER_PAGE].get_mut())
    }

    /// Line `line` of page number `page`, both in range, to be written where it is.
    #[inline]
    pub(crate) fn cells_mut(&mut self, page: u32, line: u32) -> &mut CipherLine {
        self.page(page);
        let page = self.pages[page as usize].get_mut().expect("the page was allocated");
        page[line as usize % LINES_PER_PAGE].get_mut()
    }

    /// Consecutive lines of a page from `first` on.
    pub(crate) fn read_run(&self, page: u32, first: u32, lines: &mut [CipherLine]) {
        match self.pages[page as usize].get() {
            Some(cells) => {
                for (to, from) in lines.iter_mut().zip(&cells[first as usize..]) {
                    *to = from.get();
                }
            }
            None => lines.fill(CipherLine::ZERO),
        }
    }

    /// Consecutive lines of a page from `first` on.
    pub(crate) fn write_run(&self, page: u32, first: u32, lines: &[CipherLine]) {
        for (to, from) in self.page(page)[first as usize..].iter().zip(lines) {
            to.set(*from);
        }
    }

    /// The cells of a page, allocated if need be.
    #[inline]
    fn page(&self, page: u32) -> &Page {
        self.pages[page as usize].get_or_init(|| Box::new([const { Cell::new(CipherLine::ZERO) }; LINES_PER_PAGE]))
    }

    /// Power loss without remanence.
    pub(crate) fn clear(&mut self) {
        self.pages.fill_with(OnceCell::new);
    }

    /// Pages of zero bytes do not enter, so that "never written" and "written with zeros" hash alike.
    pub(crate) fn hash(&self, hasher: &mut StateHasher) {
        hasher.u64(self.pages.len() as u64);
        for (number, page) in self.pages.iter().enumerate() {
            if let Some(page) = page.get()
                && page.iter().any(|line| line.get() != CipherLine::ZERO)
            {
                hasher.u64(number as u64);
                hasher.bytes(&page_bytes(Some(page)));
            }
        }
        hasher.u64(u64::MAX);
    }
}

fn page_bytes(page: Option<&Page>) -> [u8; PAGE_BYTES] {
    let mut bytes = [0; PAGE_BYTES];
    if let Some(page) = page {
        for (to, line) in bytes.chunks_exact_mut(LINE_BYTES).zip(page) {
            to.copy_from_slice(&line.get().0);
        }
    }
    bytes
}
