//! The DRAM array: what a bus probe or a cold-boot dump sees. Nothing here knows a key.

use std::io::{self, Write};

use crate::CipherLine;
use crate::addr::{LINE_BYTES, LINES_PER_PAGE, LineAddr, PAGE_BYTES};
use crate::hash::StateHasher;
use crate::map::AddressMap;

type Page = [CipherLine; LINES_PER_PAGE];

/// Sparse DRAM: a page exists from its first write on; cells never written read as zero bytes.
pub struct Dram {
    map: AddressMap,
    pages: Vec<Option<Box<Page>>>,
}

impl Dram {
    pub(crate) fn new(map: AddressMap) -> Self {
        let pages = std::iter::repeat_with(|| None).take(map.pages()).collect();
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
            out.write_all(&page_bytes(page.as_deref()))?;
        }
        Ok(())
    }

    /// Bytes of host memory in use for cells.
    pub fn allocated_bytes(&self) -> u64 {
        (self.pages.iter().flatten().count() * PAGE_BYTES) as u64
    }

    /// Line `line` of page number `page`, both in range.
    #[inline]
    pub(crate) fn read(&self, page: u32, line: u32) -> CipherLine {
        match &self.pages[page as usize] {
            Some(cells) => cells[line as usize % LINES_PER_PAGE],
            None => CipherLine::ZERO,
        }
    }

    /// Line `line` of page number `page`, both in range.
    #[inline]
    pub(crate) fn write(&mut self, page: u32, line: u32, cells: &CipherLine) {
        self.page_mut(page)[line as usize % LINES_PER_PAGE] = *cells;
    }

    /// The cells of a page, if it was ever written.
    pub(crate) fn page(&self, page: u32) -> Option<&Page> {
        self.pages[page as usize].as_deref()
    }

    /// The cells of a page, allocated if need be.
    #[inline]
    pub(crate) fn page_mut(&mut self, page: u32) -> &mut Page {
        self.pages[page as usize].get_or_insert_with(|| Box::new([CipherLine::ZERO; LINES_PER_PAGE]))
    }

    /// Power loss without remanence.
    pub(crate) fn clear(&mut self) {
        self.pages.fill_with(|| None);
    }

    /// Pages of zero bytes do not enter, so that "never written" and "written with zeros" hash alike.
    pub(crate) fn hash(&self, hasher: &mut StateHasher) {
        hasher.u64(self.pages.len() as u64);
        for (number, page) in self.pages.iter().enumerate() {
            if let Some(page) = page.as_deref()
                && page.iter().any(|line| *line != CipherLine::ZERO)
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
            to.copy_from_slice(&line.0);
        }
    }
    bytes
}
