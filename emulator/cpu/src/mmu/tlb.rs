//! The translation lookaside buffers: one for data, one for instruction fetch, both direct-mapped.
//!
//! They are architectural state (stale translations are something a guest can see), so what they hold depends on misses
//! and invalidations only, never on the host's shortcuts, which are subsets of them (design D3, inclusion). Entries
//! are tagged with an identity that a flush replaces, so flushing a PCID costs one addition. Translations of large
//! pages are kept in 4-KiB pieces. No paging-structure caches are modelled.

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

#[derive(Debug, Clone, Copy, serde::Serialize, serde::Deserialize)]
struct Entry {
    id: u32,
    t: Translation,
}

const EMPTY: Entry =
    Entry { id: 0, t: Translation { vpage: u64::MAX, bus_page: 0, props: 0, pcid: 0, ty: MemType::Uc } };

const PCIDS: usize = 4096;
/// Entries of the data TLB and of the instruction TLB.
const DATA_ENTRIES: usize = 4096;
const FETCH_ENTRIES: usize = 4096;

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Data,
    Fetch,
}

/// Both buffers of one logical processor.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Tlb {
    data: Box<[Entry]>,
    fetch: Box<[Entry]>,
    /// Identity under which each PCID's live entries are tagged.
    ids: Box<[u32]>,
    global_id: u32,
    next_id: u32,
    /// A bit per GiB (hashed) that may have pieces of large pages, so that INVLPG rarely searches.
    large: u64,
}

impl Default for Tlb {
    fn default() -> Self {
        Tlb {
            data: vec![EMPTY; DATA_ENTRIES].into(),
            fetch: vec![EMPTY; FETCH_ENTRIES].into(),
            ids: (0..PCIDS as u32).map(|n| n + 2).collect(),
            global_id: 1,
            next_id: PCIDS as u32 + 2,
            large: 0,
        }
    }
}

fn spread(pcid: u16) -> u64 {
    u64::from(pcid).wrapping_mul(0x9E5)
}

fn region_bit(vpage: u64) -> u64 {
    1 << ((vpage >> 18).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 58)
}

impl Tlb {
    fn table(&self, side: Side) -> &[Entry] {
        match side {
            Side::Data => &self.data,
            Side::Fetch => &self.fetch,
        }
    }

    /// The live translation of a page for a PCID, global ones included.
    pub fn lookup(&self, side: Side, vpage: u64, pcid: u16) -> Option<Translation> {
        let table = self.table(side);
        let mask = table.len() as u64 - 1;
        let e = &table[((vpage ^ spread(pcid)) & mask) as usize];
        if e.t.vpage == vpage && e.id == self.ids[usize::from(pcid) & (PCIDS - 1)] {
            return Some(e.t);
        }
        let e = &table[(vpage & mask) as usize];
        (e.t.vpage == vpage && e.id == self.global_id).then_some(e.t)
    }

    /// Adds a translation. Returns the live translation of another page that it replaced.
    pub fn insert(&mut self, side: Side, t: Translation) -> Option<Translation> {
        let global = t.props & prop::G != 0;
        let id = if global { self.global_id } else { self.ids[usize::from(t.pcid) & (PCIDS - 1)] };
        if t.props & prop::LARGE != 0 {
            self.large |= region_bit(t.vpage);
        }
        let salt = if global { 0 } else { spread(t.pcid) };
        let table = match side {
            Side::Data => &mut self.data,
            Side::Fetch => &mut self.fetch,
        };
        let at = ((t.vpage ^ salt) & (table.len() as u64 - 1)) as usize;
        let old = std::mem::replace(&mut table[at], Entry { id, t });
        let live = old.id == self.global_id || old.id == self.ids[usize::from(old.t.pcid) & (PCIDS - 1)];
        (live && old.t.vpage != t.vpage && old.t.vpage != u64::MAX).then_some(old.t)
    }

    /// Drops everything, global translations included.
    pub fn flush_all(&mut self) {
        self.global_id = self.fresh_id();
        for pcid in 0..PCIDS {
            self.ids[pcid] = self.fresh_id();
        }
        self.large = 0;
    }

    /// Drops all non-global translations.
    pub fn flush_non_global(&mut self) {
        for pcid in 0..PCIDS {
            self.ids[pcid] = self.fresh_id();
        }
    }

    /// Drops the non-global translations of one PCID.
    pub fn flush_pcid(&mut self, pcid: u16) {
        self.ids[usize::from(pcid) & (PCIDS - 1)] = self.fresh_id();
    }

    /// Identities are used once. When they run out, every entry is emptied and counting starts again.
    fn fresh_id(&mut self) -> u32 {
        if self.next_id == u32::MAX {
            self.data.fill(EMPTY);
            self.fetch.fill(EMPTY);
            self.next_id = 1;
            // Entries are gone, so giving every PCID the same new identity range again is safe.
            for id in self.ids.iter_mut() {
                *id = 0;
            }
            self.global_id = u32::MAX;
        }
        self.next_id += 1;
        self.next_id
    }

    /// Drops one page for a PCID, and its global translation if `global`; a large page goes whole. True if a fetch
    /// translation went.
    pub fn invalidate(&mut self, vpage: u64, pcid: u16, global: bool) -> bool {
        let id = self.ids[usize::from(pcid) & (PCIDS - 1)];
        let global_id = self.global_id;
        let matches = |e: &Entry| e.id == id || global && e.id == global_id;
        let mut fetch_went = false;
        for (is_fetch, table) in [(false, &mut self.data), (true, &mut self.fetch)] {
            let mask = table.len() as u64 - 1;
            for at in [(vpage ^ spread(pcid)) & mask, vpage & mask] {
                let e = &mut table[at as usize];
                if e.t.vpage == vpage && matches(e) {
                    *e = EMPTY;
                    fetch_went |= is_fetch;
                }
            }
        }
        if self.large & region_bit(vpage) == 0 {
            return fetch_went;
        }
        // Pieces of the large page that covers this address: 2 MiB at least; a 1-GiB page's other pieces as well.
        for (is_fetch, table) in [(false, &mut self.data), (true, &mut self.fetch)] {
            for e in table.iter_mut() {
                let piece = e.t.vpage != u64::MAX && e.t.props & prop::LARGE != 0 && e.t.vpage >> 18 == vpage >> 18;
                if piece && matches(e) {
                    *e = EMPTY;
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
        (self.data.len(), self.fetch.len(), self.ids.len()) == (DATA_ENTRIES, FETCH_ENTRIES, PCIDS)
    }

    /// Live translations in table order, for the state hash and `info tlb`.
    pub fn live(&self, side: Side) -> impl Iterator<Item = &Translation> {
        self.table(side)
            .iter()
            .filter(|e| {
                e.t.vpage != u64::MAX
                    && (e.id == self.global_id || e.id == self.ids[usize::from(e.t.pcid) & (PCIDS - 1)])
            })
            .map(|e| &e.t)
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

    #[test]
    fn a_replaced_live_translation_is_reported() {
        let mut tlb = Tlb::default();
        assert_eq!(tlb.insert(Side::Fetch, t(5, 0, 0)), None);
        assert_eq!(tlb.insert(Side::Fetch, t(5 + FETCH_ENTRIES as u64, 0, 0)), Some(t(5, 0, 0)));
    }
}
