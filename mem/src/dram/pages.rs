//! DRAM contents that do not change any more: pages shared between snapshots and machines.

use std::sync::{Arc, OnceLock};

use xxhash_rust::xxh3::xxh3_128;

use crate::CipherLine;
use crate::addr::{LINE_BYTES, LINES_PER_PAGE, PAGE_BYTES};
use crate::integrity::LineMetadata;

/// Pages of a group: a snapshot copies one pointer for each group that it leaves as it was.
const GROUP_PAGES: usize = 512;

/// A page.
pub(crate) struct CellPage {
    pub(crate) lines: [CipherLine; LINES_PER_PAGE],
    /// Bits of each line's [`LineMetadata`]; `None` for zeros.
    pub(crate) metadata: Option<Box<Metadata>>,
    /// Hash of the bytes; `None` for zeros.
    hash: OnceLock<Option<u128>>,
}

/// [`LineMetadata::to_bits`] of the lines of a page.
pub(crate) type Metadata = [u32; LINES_PER_PAGE];
const METADATA_BYTES: usize = 4 * LINES_PER_PAGE;

impl CellPage {
    pub(crate) fn new(lines: [CipherLine; LINES_PER_PAGE], metadata: Option<Box<Metadata>>) -> Self {
        let metadata = metadata.filter(|metadata| metadata.iter().any(|bits| *bits != 0));
        Self { lines, metadata, hash: OnceLock::new() }
    }

    /// The bytes.
    pub(crate) fn to_bytes(&self) -> [u8; PAGE_BYTES] {
        let mut bytes = [0; PAGE_BYTES];
        for (to, line) in bytes.chunks_exact_mut(LINE_BYTES).zip(&self.lines) {
            to.copy_from_slice(&line.0);
        }
        bytes
    }

    /// A page of bytes.
    pub(crate) fn from_bytes(bytes: &[u8; PAGE_BYTES], metadata: Option<Box<Metadata>>) -> Self {
        let (lines, _) = bytes.as_chunks::<LINE_BYTES>();
        Self::new(std::array::from_fn(|at| CipherLine(lines[at])), metadata)
    }

    /// Metadata of line `line`.
    pub(crate) fn metadata(&self, line: usize) -> LineMetadata {
        self.metadata.as_ref().map_or_else(LineMetadata::default, |all| LineMetadata::from_bits(all[line]))
    }

    /// What page `number` with these bytes adds to the state hash. Zeros add nothing, so that "never written" and "written
    /// with zeros" hash alike.
    pub(crate) fn hash(&self, number: u32) -> u128 {
        let hash = *self.hash.get_or_init(|| {
            let written = self.lines.iter().any(|line| *line != CipherLine::ZERO);
            match &self.metadata {
                None => written.then(|| xxh3_128(&self.to_bytes())),
                Some(metadata) => {
                    let mut bytes = [0; PAGE_BYTES + METADATA_BYTES];
                    bytes[..PAGE_BYTES].copy_from_slice(&self.to_bytes());
                    for (to, bits) in bytes[PAGE_BYTES..].chunks_exact_mut(4).zip(&**metadata) {
                        to.copy_from_slice(&bits.to_le_bytes());
                    }
                    Some(xxh3_128(&bytes))
                }
            }
        });
        hash.map_or(0, |hash| {
            let mut placed = [0; 20];
            placed[..16].copy_from_slice(&hash.to_le_bytes());
            placed[16..].copy_from_slice(&number.to_le_bytes());
            xxh3_128(&placed)
        })
    }
}

/// Consecutive pages.
#[derive(Clone)]
struct Group {
    pages: [Option<Arc<CellPage>>; GROUP_PAGES],
    /// How many there are.
    count: usize,
    hash: OnceLock<u128>,
}

impl Group {
    fn new() -> Self {
        Self { pages: [const { None }; GROUP_PAGES], count: 0, hash: OnceLock::new() }
    }
}

/// All pages by number. Clones share everything.
#[derive(Clone)]
pub(crate) struct PageTable {
    groups: Arc<[Option<Arc<Group>>]>,
    hash: OnceLock<u128>,
}

impl PageTable {
    /// `pages` pages, none of them written.
    pub(crate) fn new(pages: usize) -> Self {
        Self { groups: vec![None; pages.div_ceil(GROUP_PAGES)].into(), hash: OnceLock::new() }
    }

    /// The page; `None` if it was never written.
    #[inline]
    pub(crate) fn get(&self, number: u32) -> Option<&CellPage> {
        let group = self.groups[number as usize / GROUP_PAGES].as_ref()?;
        group.pages[number as usize % GROUP_PAGES].as_deref()
    }

    /// Line `line` of a page.
    #[inline]
    pub(crate) fn line(&self, number: u32, line: usize) -> CipherLine {
        self.get(number).map_or(CipherLine::ZERO, |page| page.lines[line])
    }

    /// Pages that were written.
    pub(crate) fn pages(&self) -> usize {
        self.groups.iter().flatten().map(|group| group.count).sum()
    }

    /// The pages that were written, by number.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &CellPage)> {
        self.groups.iter().enumerate().flat_map(|(at, group)| {
            let pages = group.iter().flat_map(|group| group.pages.iter().enumerate());
            pages.filter_map(move |(n, page)| Some(((at * GROUP_PAGES + n) as u32, page.as_deref()?)))
        })
    }

    /// Calls `differ` with each line that has other bytes in the other table, in order. Shared pages are not looked at.
    pub(crate) fn differences(&self, other: &PageTable, mut differ: impl FnMut(u32, usize)) {
        for (at, (ours, theirs)) in self.groups.iter().zip(&*other.groups).enumerate() {
            let same = match (ours, theirs) {
                (Some(ours), Some(theirs)) => Arc::ptr_eq(ours, theirs),
                (None, None) => true,
                _ => false,
            };
            if same {
                continue;
            }
            for number in (at * GROUP_PAGES) as u32..((at + 1) * GROUP_PAGES) as u32 {
                let (ours, theirs) = (self.get(number), other.get(number));
                if ours.map(std::ptr::from_ref) == theirs.map(std::ptr::from_ref) {
                    continue;
                }
                for line in 0..LINES_PER_PAGE {
                    let of = |page: Option<&CellPage>| page.map_or(CipherLine::ZERO, |page| page.lines[line]);
                    if of(ours) != of(theirs) {
                        differ(number, line);
                    }
                }
            }
        }
    }

    /// Replaces pages, whose numbers are in range. Groups without a new page stay shared.
    pub(crate) fn replace(&mut self, pages: impl Iterator<Item = (u32, CellPage)>) {
        let mut groups: Vec<Option<Arc<Group>>> = self.groups.to_vec();
        for (number, page) in pages {
            let group =
                Arc::make_mut(groups[number as usize / GROUP_PAGES].get_or_insert_with(|| Arc::new(Group::new())));
            let place = &mut group.pages[number as usize % GROUP_PAGES];
            group.count += usize::from(place.is_none());
            *place = Some(Arc::new(page));
            group.hash = OnceLock::new();
        }
        *self = Self { groups: groups.into(), hash: OnceLock::new() };
    }

    /// The sum of what the pages add to the state hash.
    pub(crate) fn hash(&self) -> u128 {
        *self.hash.get_or_init(|| {
            self.groups.iter().enumerate().fold(0, |sum: u128, (at, group)| {
                let Some(group) = group else { return sum };
                let of_group = group.hash.get_or_init(|| {
                    let pages = group.pages.iter().enumerate();
                    pages.fold(0, |sum: u128, (n, page)| {
                        let number = (at * GROUP_PAGES + n) as u32;
                        sum.wrapping_add(page.as_ref().map_or(0, |page| page.hash(number)))
                    })
                });
                sum.wrapping_add(*of_group)
            })
        })
    }
}
