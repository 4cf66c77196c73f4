//! What drops translations and the host's shortcuts (SDM Vol. 3A, section 4.10.4).

use super::tlb::{Translation, prop};
use crate::state::Cpu;
use crate::trace::{Flush, What};
use mem::{BusAddr, Event, KeyId, MemType, deny};
use x86::cr::cr4;
use x86::flags;

/// Memory types of recently used pages, so that a walk does not search the range registers.
pub struct TypeCache {
    entries: [(u64, MemType); TypeCache::ENTRIES],
}

impl TypeCache {
    const ENTRIES: usize = 256;

    fn slot(key: u64) -> usize {
        (key ^ key >> 8 ^ key >> 16) as usize & (Self::ENTRIES - 1)
    }

    fn clear(&mut self) {
        self.entries = [(u64::MAX, MemType::Uc); Self::ENTRIES];
    }
}

impl Default for TypeCache {
    fn default() -> Self {
        TypeCache { entries: [(u64::MAX, MemType::Uc); Self::ENTRIES] }
    }
}

impl Cpu {
    /// After a change of CPL, CR4.SMAP or RFLAGS.AC: which deny bits of a fast-path entry apply. (CR0.WP goes into the
    /// entries themselves; its change drops them.)
    pub fn update_access_masks(&mut self) {
        let (r, w) = if self.cpl == 3 {
            (deny::RU, deny::WU)
        } else if self.cr4 & cr4::SMAP != 0 && self.rflags_system & flags::AC == 0 {
            (deny::RS, deny::WS)
        } else {
            (deny::RSA, deny::WSA)
        };
        self.fast.set_mode(r, w);
        self.update_block_key();
    }

    /// Drops translations: all, or all but global ones.
    pub fn flush_tlb(&mut self, include_global: bool) {
        if include_global {
            self.tlb.flush_all();
            self.blocks.generations.replace_supervisor();
            self.supervisor_fetch_non_global = false;
            self.clear_fast_path();
        } else if self.tlb.flush_non_global() {
            self.blocks.generations.replace_supervisor();
        }
        self.blocks.generations.replace_all_user();
        self.note(self.ip, What::Flush(if include_global { Flush::All } else { Flush::NonGlobal }));
        self.address_space_changed();
    }

    /// MOV to CR3 without PCIDs flushes PCID 0; with PCIDs and bit 63 clear the new PCID; INVPCID type 1 its operand's.
    pub fn flush_pcid(&mut self, pcid: u16) {
        if self.tlb.flush_pcid(pcid) {
            self.blocks.generations.replace_supervisor();
            self.blocks.generations.replace_all_user();
        }
        self.blocks.generations.replace_user(pcid);
        self.note(self.ip, What::Flush(Flush::Pcid(pcid)));
        self.address_space_changed();
    }

    /// MOV to CR3 that keeps translations (bit 63 with CR4.PCIDE = 1): the current PCID changed, so what is found by linear
    /// address alone no longer applies.
    pub fn switch_pcid(&mut self) {
        self.address_space_changed();
    }

    /// INVLPG: one page of the current PCID, and its global translation.
    pub fn invalidate_page(&mut self, linear: u64) {
        let pcid = self.pcid();
        let fetch_went = self.tlb.invalidate(linear >> 12, pcid, true);
        self.page_translation_changed(linear, pcid, fetch_went);
    }

    /// INVPCID type 0: one page's non-global translation of one PCID.
    pub fn invalidate_pcid_page(&mut self, pcid: u16, linear: u64) {
        let fetch_went = self.tlb.invalidate(linear >> 12, pcid, false);
        self.page_translation_changed(linear, pcid, fetch_went);
    }

    fn page_translation_changed(&mut self, linear: u64, pcid: u16, fetch_went: bool) {
        self.note(self.ip, What::Flush(Flush::Page { linear, pcid }));
        // A large page leaves with all its pieces, whose fast-path entries are elsewhere.
        if self.tlb.may_have_large(linear >> 12) {
            self.fast.clear();
        } else {
            self.fast.clear_page(linear);
        }
        if fetch_went {
            self.blocks.generations.replace_supervisor();
            self.blocks.generations.replace_user(pcid);
            self.select_generation();
        }
    }

    /// A page's translations were dropped, with all pieces of its large page: shortcuts of their class go with them.
    pub(super) fn fetch_translations_went(&mut self, t: Translation) {
        let user = t.props & prop::U != 0;
        if user {
            self.blocks.generations.replace_user(t.pcid);
        }
        // Without SMEP supervisor code may run from user pages.
        if !user || self.cr4 & cr4::SMEP == 0 {
            self.blocks.generations.replace_supervisor();
        }
        self.select_generation();
    }

    /// A fetch translation was replaced by another page's: shortcuts to the blocks of its page go with it.
    pub(super) fn fetch_translation_went(&mut self, t: Translation) {
        if let Some(frame) = self.mem.frame_lookup(BusAddr(t.bus_page)) {
            self.blocks.forget_ways_to(frame);
        }
    }

    /// What linear addresses mean has changed, for user code at least: shortcuts by linear address go. The supervisor's stay if
    /// all of its code, and all of its data, is in global pages.
    fn address_space_changed(&mut self) {
        if self.supervisor_data_non_global {
            self.clear_fast_path();
        } else {
            self.fast.clear_user();
        }
        if self.supervisor_fetch_non_global {
            self.blocks.generations.replace_supervisor();
        }
        self.select_generation();
    }

    fn clear_fast_path(&mut self) {
        self.fast.clear();
        self.supervisor_data_non_global = false;
    }

    /// Makes the number of the current privilege and PCID the one that links and jumps are checked against.
    pub(crate) fn select_generation(&mut self) {
        self.blocks.link_generation = self.blocks.generations.of(self.cpl == 3, self.pcid());
    }

    /// CR0, CR4, EFER, MTRRs or PAT changed what cached translations mean: everything derived is dropped.
    pub fn drop_shortcuts(&mut self) {
        self.types.clear();
        self.clear_fast_path();
        self.drop_code_shortcuts();
    }

    /// The meaning of addresses has changed from outside: everything derived is dropped, and the next instruction fetches
    /// anew.
    pub fn refetch(&mut self) {
        self.drop_shortcuts();
        self.sequential = false;
        self.repeating = 0;
        self.followed = None;
    }

    /// Accesses are to be told from now on that were not: those on the fast path go the slow way once.
    pub fn refetch_data(&mut self) {
        self.fast.clear();
    }

    /// Voids all links between pages and the jump cache.
    pub(crate) fn drop_code_shortcuts(&mut self) {
        self.blocks.generations.replace_supervisor();
        self.blocks.generations.replace_all_user();
        self.select_generation();
    }

    /// [`Cpu::memory_type`] through a small cache. `page` is a bus address.
    pub(super) fn page_memory_type(&mut self, page: u64, pat: u8) -> MemType {
        self.cached_type(page, u64::from(pat))
    }

    /// The type of a page while paging is off.
    pub(super) fn unpaged_memory_type(&mut self, page: u64) -> MemType {
        self.cached_type(page, 8)
    }

    #[cold]
    fn note_not_activated(&mut self, page: u64) {
        if self.mem.layout().keyid(BusAddr(page)) != KeyId(0) && self.mem.events().enabled() && !self.told_not_activated
        {
            self.told_not_activated = true;
            self.mem.events_mut().push(Event::CoreNotActivated { cpu: self.id });
        }
    }

    fn cached_type(&mut self, page: u64, selector: u64) -> MemType {
        let layout = self.mem.layout();
        // MC-14: a core that does not know of the KeyID bits compares them with its ranges.
        let seen = if self.msr.k_core == layout.keyid_bits {
            layout.mem(BusAddr(page)).0
        } else {
            self.note_not_activated(page);
            page
        };
        let key = seen >> 12 << 4 | selector;
        let at = TypeCache::slot(key >> 4 ^ selector << 5);
        let (k, ty) = self.types.entries[at];
        if k == key {
            return ty;
        }
        let ty = if selector == 8 { self.mtrr_type(seen) } else { self.memory_type(seen, selector as u8) };
        self.types.entries[at] = (key, ty);
        ty
    }
}
