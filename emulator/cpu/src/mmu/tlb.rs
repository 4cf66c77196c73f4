//! The translation lookaside buffers: one for data, one for instruction fetch, both set-associative.
//!
//! They are architectural state (stale translations are something a guest can see), so what they hold depends on misses
//! and invalidations only, never on the host's shortcuts, which are subsets of them (design D3, inclusion). Entries
//! are tagged with an identity that a flush replaces, so flushing a PCID costs one addition. A set replaces what is no
//! longer live, else what came first: both follow from misses and flushes alone. Translations of large pages are kept in
//! 4-KiB pieces. No paging-structure caches are modelled.

use mem::MemType;

/// Permissions and properties of a translation.
pub mod prop {
    /// Every level allows writes.
    pub const W: u16 = 1 << 0;
    /// Every level allows user mode.
    pub const U: u16 = 1 << 1;
    /// Some level forbids fetches.
    pub const NX: u16 = 1 << 2;
    /// The dirty bit is set in the page tables.
    pub const D: u16 = 1 << 3;
    /// Global, and CR4.PGE was set.
    pub const G: u16 = 1 << 4;
    /// A piece of a 2-MiB, 4-MiB or 1-GiB page.
    pub const LARGE: u16 = 1 << 5;
    /// The page is RAM (otherwise memory-mapped registers or nothing).
    pub const RAM: u16 = 1 << 6;
}

/// One translation of a 4-KiB linear page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Translation {
    /// Linear address >> 12.
    pub vpage: u64,
    /// Bus address of the page, KeyID included.
    pub bus_page: u64,
    /// See [`prop`].
    pub props: u16,
    pub pcid: u16,
    pub ty: MemType,
}

const PCIDS: usize = 4096;
/// Sets of each buffer, and entries of a set: 4,096 translations in each. With one way, two pages that a guest's inner
/// loop used alternately walked at every access.
const SETS: usize = 1024;
const WAYS: usize = 4;

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Data,
    Fetch,
}

/// What an entry is found by: bits 47:12 of the linear address above the identity it was made under. Canonical
/// addresses differ in these bits if they differ at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct Tag(u64);

impl Tag {
    const ID_BITS: u32 = 28;
    const EMPTY: Tag = Tag(0);

    fn new(vpage: u64, id: u32) -> Self {
        Tag(vpage << Self::ID_BITS | u64::from(id))
    }

    fn id(self) -> u32 {
        (self.0 & ((1 << Self::ID_BITS) - 1)) as u32
    }
}

const EMPTY: Translation = Translation { vpage: u64::MAX, bus_page: 0, props: 0, pcid: 0, ty: MemType::Uc };

/// One buffer.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
struct Buffer {
    tags: Box<[[Tag; WAYS]]>,
    entries: Box<[[Translation; WAYS]]>,
    /// The way that each set replaces next when all are live.
    oldest: Box<[u8]>,
}

impl Buffer {
    fn new() -> Self {
        Buffer {
            tags: vec![[Tag::EMPTY; WAYS]; SETS].into(),
            entries: vec![[EMPTY; WAYS]; SETS].into(),
            oldest: vec![0; SETS].into(),
        }
    }

    #[inline(always)]
    fn get(&self, set: usize, tag: Tag) -> Option<&Translation> {
        let way = self.tags[set].iter().position(|t| *t == tag)?;
        Some(&self.entries[set][way])
    }
}

/// Both buffers of one logical processor.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Tlb {
    data: Buffer,
    fetch: Buffer,
    ids: Identities,
    /// A bit per GiB (hashed) that may have pieces of large pages, so that INVLPG rarely searches.
    large: u64,
}

/// The identities under which live entries are tagged.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
struct Identities {
    of_pcid: Box<[u32]>,
    global: u32,
    /// The last that was given out. 0 is nobody's.
    last: u32,
}

impl Identities {
    /// Identities that fit in a tag.
    const MAX: u32 = (1 << Tag::ID_BITS) - 1;

    fn new() -> Self {
        Identities { of_pcid: (0..PCIDS as u32).map(|n| n + 2).collect(), global: 1, last: PCIDS as u32 + 1 }
    }

    #[inline(always)]
    fn of(&self, pcid: u16) -> u32 {
        self.of_pcid[usize::from(pcid) & (PCIDS - 1)]
    }

    fn is_live(&self, tag: Tag, t: &Translation) -> bool {
        let id = tag.id();
        id == self.global || id == self.of(t.pcid)
    }
}

impl Default for Tlb {
    fn default() -> Self {
        Tlb { data: Buffer::new(), fetch: Buffer::new(), ids: Identities::new(), large: 0 }
    }
}

/// The set of a page. Non-global translations of the PCIDs are spread, since programs lie at the same addresses.
fn set_of(vpage: u64, pcid: u16) -> usize {
    (vpage ^ vpage >> 10 ^ u64::from(pcid).wrapping_mul(0x9E5)) as usize & (SETS - 1)
}

fn set_of_global(vpage: u64) -> usize {
    set_of(vpage, 0)
}

fn region_bit(vpage: u64) -> u64 {
    1 << ((vpage >> 18).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 58)
}

impl Tlb {
    fn buffer(&self, side: Side) -> &Buffer {
        match side {
            Side::Data => &self.data,
            Side::Fetch => &self.fetch,
        }
    }

    /// The live translation of a page for a PCID, global ones included.
    #[inline]
    pub fn lookup(&self, side: Side, vpage: u64, pcid: u16) -> Option<&Translation> {
        let buffer = self.buffer(side);
        buffer
            .get(set_of(vpage, pcid), Tag::new(vpage, self.ids.of(pcid)))
            .or_else(|| buffer.get(set_of_global(vpage), Tag::new(vpage, self.ids.global)))
    }

    /// Fault hook: changes the bus address of the live translation of a page for a PCID by XOR, in both buffers. False: there is
    /// none. The caller drops the shortcuts.
    pub fn flip(&mut self, vpage: u64, pcid: u16, bits: u64) -> bool {
        let places = [
            (set_of(vpage, pcid), Tag::new(vpage, self.ids.of(pcid))),
            (set_of_global(vpage), Tag::new(vpage, self.ids.global)),
        ];
        let mut found = false;
        for buffer in [&mut self.data, &mut self.fetch] {
            for (set, tag) in places {
                if let Some(way) = buffer.tags[set].iter().position(|t| *t == tag) {
                    buffer.entries[set][way].bus_page ^= bits & !0xFFF;
                    found = true;
                    break;
                }
            }
        }
        found
    }

    /// Adds a translation. Returns the live translation of another page that it replaced.
    pub fn insert(&mut self, side: Side, t: Translation) -> Option<Translation> {
        let (id, set) = if t.props & prop::G != 0 {
            (self.ids.global, set_of_global(t.vpage))
        } else {
            (self.ids.of(t.pcid), set_of(t.vpage, t.pcid))
        };
        if t.props & prop::LARGE != 0 {
            self.large |= region_bit(t.vpage);
        }
        let tag = Tag::new(t.vpage, id);
        let buffer = match side {
            Side::Data => &mut self.data,
            Side::Fetch => &mut self.fetch,
        };
        let (tags, entries) = (&mut buffer.tags[set], &mut buffer.entries[set]);
        let same = tags.iter().position(|other| *other == tag);
        let dead = || (0..WAYS).find(|&way| !self.ids.is_live(tags[way], &entries[way]));
        let (way, replaced) = match same.or_else(dead) {
            Some(way) => (way, None),
            None => {
                let way = usize::from(buffer.oldest[set]);
                buffer.oldest[set] = (way as u8 + 1) % WAYS as u8;
                (way, Some(entries[way]))
            }
        };
        tags[way] = tag;
        entries[way] = t;
        replaced
    }

    /// Drops everything, global translations included.
    pub fn flush_all(&mut self) {
        self.ids.global = self.fresh_id().0;
        self.flush_non_global();
        self.large = 0;
    }

    /// Drops all non-global translations. True if everything went.
    pub fn flush_non_global(&mut self) -> bool {
        (0..PCIDS as u16).fold(false, |all, pcid| self.flush_pcid(pcid) | all)
    }

    /// Drops the non-global translations of one PCID. True if everything went.
    pub fn flush_pcid(&mut self, pcid: u16) -> bool {
        let (id, all) = self.fresh_id();
        self.ids.of_pcid[usize::from(pcid) & (PCIDS - 1)] = id;
        all
    }

    /// Identities are used once. When they run out, every entry is emptied and counting starts again; that is told.
    fn fresh_id(&mut self) -> (u32, bool) {
        let ran_out = self.ids.last == Identities::MAX;
        if ran_out {
            self.data = Buffer::new();
            self.fetch = Buffer::new();
            self.ids = Identities::new();
        }
        self.ids.last += 1;
        (self.ids.last, ran_out)
    }

    /// Drops one page for a PCID, and its global translation if `global`; a large page goes whole. True if a fetch
    /// translation went.
    pub fn invalidate(&mut self, vpage: u64, pcid: u16, global: bool) -> bool {
        let own = Tag::new(vpage, self.ids.of(pcid));
        let everyone = Tag::new(vpage, self.ids.global);
        let mut fetch_went = false;
        for (is_fetch, buffer) in [(false, &mut self.data), (true, &mut self.fetch)] {
            let mut drop = |set: usize, tag: Tag| {
                if let Some(way) = buffer.tags[set].iter().position(|t| *t == tag) {
                    buffer.tags[set][way] = Tag::EMPTY;
                    fetch_went |= is_fetch;
                }
            };
            drop(set_of(vpage, pcid), own);
            if global {
                drop(set_of_global(vpage), everyone);
            }
        }
        if self.may_have_large(vpage) {
            fetch_went |= self.invalidate_large(vpage, own.id(), global.then_some(everyone.id()));
        }
        fetch_went
    }

    /// Drops the pieces of the large page that covers this address: 2 MiB at least; a 1-GiB page's other pieces as well.
    fn invalidate_large(&mut self, vpage: u64, own: u32, global: Option<u32>) -> bool {
        let mut fetch_went = false;
        for (is_fetch, buffer) in [(false, &mut self.data), (true, &mut self.fetch)] {
            for (tag, t) in buffer.tags.iter_mut().flatten().zip(buffer.entries.iter().flatten()) {
                let piece = t.props & prop::LARGE != 0 && t.vpage >> 18 == vpage >> 18;
                if piece && (tag.id() == own || Some(tag.id()) == global) {
                    *tag = Tag::EMPTY;
                    fetch_went |= is_fetch;
                }
            }
        }
        fetch_went
    }

    /// False if no piece of a large page can be cached for this page's region.
    pub fn may_have_large(&self, vpage: u64) -> bool {
        self.large & region_bit(vpage) != 0
    }

    /// True if the tables have the sizes that they are used with.
    pub(crate) fn is_valid(&self) -> bool {
        let sets = |b: &Buffer| (b.tags.len(), b.entries.len(), b.oldest.len()) == (SETS, SETS, SETS);
        let ways = |b: &Buffer| b.oldest.iter().all(|way| usize::from(*way) < WAYS);
        [&self.data, &self.fetch].into_iter().all(|b| sets(b) && ways(b)) && self.ids.of_pcid.len() == PCIDS
    }

    /// Which way each set replaces next, eight sets to a word.
    pub fn replacement(&self, side: Side) -> impl Iterator<Item = u64> {
        let sets = self.buffer(side).oldest.chunks(8);
        sets.map(|ways| ways.iter().fold(0, |word, way| word << 8 | u64::from(*way)))
    }

    /// Live translations in table order, for the state hash and `info tlb`.
    pub fn live(&self, side: Side) -> impl Iterator<Item = &Translation> {
        let buffer = self.buffer(side);
        let pairs = buffer.tags.iter().flatten().zip(buffer.entries.iter().flatten());
        pairs.filter(|(tag, t)| self.ids.is_live(**tag, t)).map(|(_, t)| t)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn t(vpage: u64, pcid: u16, props: u16) -> Translation {
        Translation { vpage, bus_page: vpage << 12, props, pcid, ty: MemType::Wb }
    }

    #[test]
    fn flushing_a_pcid_keeps_global_and_other_translations() {
        let mut tlb = Tlb::default();
        tlb.insert(Side::Data, t(1, 1, 0));
        tlb.insert(Side::Data, t(2, 2, 0));
        tlb.insert(Side::Data, t(3, 1, prop::G));
        tlb.flush_pcid(1);
        assert_eq!(tlb.lookup(Side::Data, 1, 1), None);
        assert!(tlb.lookup(Side::Data, 2, 2).is_some());
        assert!(tlb.lookup(Side::Data, 3, 7).is_some());
        tlb.flush_all();
        assert_eq!(tlb.live(Side::Data).count(), 0);
    }

    #[test]
    fn invlpg_drops_every_piece_of_a_large_page() {
        let mut tlb = Tlb::default();
        tlb.insert(Side::Data, t(0x200, 0, prop::LARGE));
        tlb.insert(Side::Data, t(0x3FF, 0, prop::LARGE));
        tlb.invalidate(0x2AB, 0, true);
        assert_eq!(tlb.lookup(Side::Data, 0x200, 0), None);
        assert_eq!(tlb.lookup(Side::Data, 0x3FF, 0), None);
    }

    /// Pages of one set, in ascending order.
    fn pages_of_one_set() -> impl Iterator<Item = u64> {
        (1..).filter(|&v| set_of_global(v) == set_of_global(1))
    }

    #[test]
    fn a_set_replaces_its_oldest_live_translation_and_reports_it() {
        let mut tlb = Tlb::default();
        let pages: Vec<u64> = pages_of_one_set().take(WAYS + 2).collect();
        for &v in &pages[..WAYS] {
            assert_eq!(tlb.insert(Side::Fetch, t(v, 0, 0)), None);
        }
        // Use does not matter, only the order of the misses.
        assert!(tlb.lookup(Side::Fetch, pages[0], 0).is_some());
        assert_eq!(tlb.insert(Side::Fetch, t(pages[WAYS], 0, 0)), Some(t(pages[0], 0, 0)));
        assert_eq!(tlb.insert(Side::Fetch, t(pages[WAYS + 1], 0, 0)), Some(t(pages[1], 0, 0)));
        assert_eq!(tlb.lookup(Side::Fetch, pages[0], 0), None);
    }

    #[test]
    fn what_was_flushed_is_replaced_before_what_is_live() {
        let mut tlb = Tlb::default();
        let pages: Vec<u64> = pages_of_one_set().take(WAYS + 1).collect();
        for &v in &pages[..WAYS] {
            tlb.insert(Side::Data, t(v, 0, prop::G));
        }
        tlb.invalidate(pages[2], 0, true);
        assert_eq!(tlb.insert(Side::Data, t(pages[WAYS], 0, prop::G)), None);
        assert!(tlb.lookup(Side::Data, pages[0], 0).is_some());
    }

    #[test]
    fn a_new_translation_of_a_page_takes_the_place_of_its_old_one() {
        let mut tlb = Tlb::default();
        tlb.insert(Side::Data, t(7, 0, 0));
        assert_eq!(tlb.insert(Side::Data, t(7, 0, prop::D)), None);
        assert_eq!(tlb.live(Side::Data).count(), 1);
        assert_eq!(tlb.lookup(Side::Data, 7, 0).map(|t| t.props), Some(prop::D));
    }

    #[test]
    fn when_identities_run_out_nothing_old_comes_back() {
        let mut tlb = Tlb::default();
        tlb.insert(Side::Data, t(1, 1, 0));
        tlb.insert(Side::Data, t(2, 1, prop::G));
        tlb.ids.last = Identities::MAX - 1;
        assert!(!tlb.flush_pcid(5));
        assert!(tlb.lookup(Side::Data, 1, 1).is_some());
        assert!(tlb.flush_pcid(5));
        assert_eq!(tlb.live(Side::Data).count(), 0);
        tlb.insert(Side::Data, t(3, 1, 0));
        tlb.flush_all();
        assert_eq!(tlb.live(Side::Data).count(), 0);
    }
}
