//! Page walks (SDM Vol. 3A, sections 4.3 to 4.8): 32-bit, PAE and 4-level paging.
//!
//! Addresses in paging structures are full bus addresses: the KeyID in CR3 and in each entry selects the key of what it
//! points to (spec 5.5). Reserved bits are those at and above MAXPHYADDR; KeyID bits lie below it and are legal, except,
//! outside SEAM, those that TDX has reserved (3.9).

use super::Access;
use super::tlb::{Translation, prop};
use crate::machine_check::Use;
use crate::state::Cpu;
use mem::{Accessed, BusAddr, MemType, Operation};
use x86::cr::{cr0, cr4, efer};
use x86::exception::pf;
use x86::{Exception, flags, mutant};

/// Bits of paging-structure entries.
mod pte {
    pub const P: u64 = 1 << 0;
    pub const RW: u64 = 1 << 1;
    pub const US: u64 = 1 << 2;
    pub const PWT: u64 = 1 << 3;
    pub const PCD: u64 = 1 << 4;
    pub const A: u64 = 1 << 5;
    pub const D: u64 = 1 << 6;
    pub const PS: u64 = 1 << 7;
    /// PAT bit of a 4-KiB page.
    pub const PAT: u64 = 1 << 7;
    pub const G: u64 = 1 << 8;
    /// PAT bit of a large page.
    pub const PAT_LARGE: u64 = 1 << 12;
    pub const NX: u64 = 1 << 63;
}

/// Whose access a translation serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privilege {
    /// An instruction's explicit access at the current privilege level.
    Current,
    /// An implicit supervisor access: descriptor tables, TSS (SDM Vol. 3A, section 4.6.1).
    System,
}

/// The paging mode's shape: entry size, and for each level its index shift, widest first.
struct Shape {
    entry: u64,
    index_bits: u32,
    shifts: &'static [u32],
}

const FOUR_LEVEL: Shape = Shape { entry: 8, index_bits: 9, shifts: &[39, 30, 21, 12] };
const PAE: Shape = Shape { entry: 8, index_bits: 9, shifts: &[21, 12] };
const THIRTY_TWO: Shape = Shape { entry: 4, index_bits: 10, shifts: &[22, 12] };

impl Cpu {
    /// True if the access is at user privilege.
    fn is_user(&self, privilege: Privilege) -> bool {
        privilege == Privilege::Current && self.cpl == 3
    }

    fn page_fault(&self, linear: u64, access: Access, privilege: Privilege, bits: u32) -> Exception {
        let mut code = bits;
        if access == Access::Write {
            code |= pf::WR;
        }
        if self.is_user(privilege) {
            code |= pf::US;
        }
        let fetch_is_told = self.msr.efer & efer::NXE != 0 || self.cr4 & cr4::SMEP != 0;
        if access == Access::Fetch && fetch_is_told {
            code |= pf::ID;
        }
        Exception::PageFault { address: linear, code }
    }

    /// True if the access rights allow the access (SDM Vol. 3A, section 4.6.1).
    pub(super) fn allows(&self, props: u16, access: Access, privilege: Privilege) -> bool {
        let (w, u) = (props & prop::W != 0, props & prop::U != 0);
        if self.is_user(privilege) {
            return u
                && match access {
                    Access::Read => true,
                    Access::Write => w,
                    Access::Fetch => props & prop::NX == 0,
                };
        }
        if access == Access::Fetch {
            return props & prop::NX == 0 && !(u && self.cr4 & cr4::SMEP != 0);
        }
        // SMAP: explicit accesses may be allowed by RFLAGS.AC, implicit ones never are.
        let ac = privilege == Privilege::Current && self.rflags_system & flags::AC != 0;
        if u && self.cr4 & cr4::SMAP != 0 && !ac {
            return false;
        }
        access == Access::Read || w || self.cr0 & cr0::WP == 0
    }

    /// Walks the page tables for an access, sets accessed and dirty bits, and returns the translation.
    pub(super) fn walk(&mut self, linear: u64, access: Access, privilege: Privilege) -> Result<Translation, Exception> {
        let long = self.msr.efer & efer::LMA != 0;
        let m = u32::from(self.mem.layout().maxphyaddr);
        let physical = (1u64 << m) - 1;
        let legal = self.legal_address_bits();
        let nxe = self.msr.efer & efer::NXE != 0;
        let (shape, mut table, mut reserved) = if long {
            (&FOUR_LEVEL, self.cr3 & physical & !0xFFF, ((1u64 << 52) - 1) & !legal)
        } else if self.cr4 & cr4::PAE != 0 {
            let e = self.pdpte[(linear >> 30 & 3) as usize];
            if e & pte::P == 0 {
                return Err(self.page_fault(linear, access, privilege, 0));
            }
            (&PAE, e & physical & !0xFFF, !(legal | pte::NX))
        } else {
            (&THIRTY_TWO, self.cr3 & 0xFFFF_F000, 0)
        };
        if !nxe && shape.entry == 8 {
            reserved |= pte::NX;
        }
        if mutant!(Cr3KeyidIgnored) {
            table = self.mem.layout().mem(BusAddr(table)).0;
        }
        let mut table_pat = pat_index(self.cr3, false);
        let mut props = prop::W | prop::U;
        let mut path = [(0u64, 0u64, MemType::Wb); 4];
        for (level, &shift) in shape.shifts.iter().enumerate() {
            let index = linear >> shift & ((1 << shape.index_bits) - 1);
            let at = table + index * shape.entry;
            let (entry, ty) = self.read_entry(at, shape.entry, table_pat)?;
            path[level] = (at, entry, ty);
            if entry & pte::P == 0 {
                return Err(self.page_fault(linear, access, privilege, 0));
            }
            let leaf_by_ps = shift != 12 && entry & pte::PS != 0 && self.page_size_allowed(shape, shift);
            let leaf = shift == 12 || leaf_by_ps;
            let low_reserved = match (leaf_by_ps, shape.entry) {
                // Bit 12 is PAT; bits above it up to the page size must be zero.
                (true, 8) => ((1u64 << shift) - 1) & !0x1FFF,
                // PSE-36: bits 20:13 are address bits 39:32, only those below min(M, 40) (MC-17); bit 21 is reserved.
                (true, _) => 1 << 21 | (0xFFu64 << 13 & !((physical >> 32 & 0xFF) << 13)),
                // PS is reserved in a PML4E, and where the page size is not supported.
                (false, 8) if shift == 39 || shift == 30 && !self.model_has_1gib() => pte::PS,
                _ => 0,
            };
            if entry & (reserved | low_reserved) != 0 {
                return Err(self.page_fault(linear, access, privilege, pf::P | pf::RSVD));
            }
            if entry & pte::RW == 0 {
                props &= !prop::W;
            }
            if entry & pte::US == 0 {
                props &= !prop::U;
            }
            if nxe && shape.entry == 8 && entry & pte::NX != 0 {
                props |= prop::NX;
            }
            if !leaf {
                table = entry & physical & !0xFFF;
                if mutant!(WalkerIgnoresTableKeyid) {
                    table = self.mem.layout().mem(BusAddr(table)).0;
                }
                table_pat = pat_index(entry, false);
                continue;
            }
            if !self.allows(props, access, privilege) {
                return Err(self.page_fault(linear, access, privilege, pf::P));
            }
            let page = if !leaf_by_ps {
                entry & physical & !0xFFF
            } else if shape.entry == 8 {
                (entry & physical & !((1 << shift) - 1)) | linear & ((1 << shift) - 1) & !0xFFF
            } else {
                (entry & 0xFFC0_0000) | (entry >> 13 & 0xFF) << 32 | linear & 0x3F_F000
            };
            self.set_accessed_dirty(&path[..=level], shape.entry, access == Access::Write);
            if entry & pte::D != 0 || access == Access::Write {
                props |= prop::D;
            }
            if entry & pte::G != 0 && self.cr4 & cr4::PGE != 0 {
                props |= prop::G;
            }
            if leaf_by_ps {
                props |= prop::LARGE;
            }
            let memory = self.mem.layout().mem(BusAddr(page));
            if self.mem.is_ram(memory) {
                props |= prop::RAM;
            }
            let ty = self.page_memory_type(page, pat_index(entry, leaf_by_ps) | pat_bit(entry, leaf_by_ps));
            return Ok(Translation { vpage: linear >> 12, bus_page: page, props, pcid: self.pcid(), ty });
        }
        // The last level of every shape is a leaf.
        Err(self.page_fault(linear, access, privilege, 0))
    }

    /// Address bits that software outside SEAM may set in a 64-bit paging-structure entry: `M - p` of them (MK-064).
    fn legal_address_bits(&self) -> u64 {
        let layout = self.mem.layout();
        if mutant!(BitMNotReserved) {
            return (1 << 52) - 1;
        }
        let p = match self.mem.tme().tdx_reserved_keyid_bits() {
            _ if mutant!(KeyidReservedInPte) => layout.keyid_bits,
            _ if mutant!(TdxBitsInPte) => 0,
            p => p,
        };
        (1 << u32::from(layout.maxphyaddr.saturating_sub(p)).min(63)) - 1
    }

    fn page_size_allowed(&self, shape: &Shape, shift: u32) -> bool {
        match shift {
            39 => false,
            30 => self.model_has_1gib(),
            22 => shape.entry == 4 && self.cr4 & cr4::PSE != 0,
            _ => true,
        }
    }

    /// CPUID.80000001H:EDX.Page1GB
    fn model_has_1gib(&self) -> bool {
        true
    }

    fn read_entry(&mut self, at: u64, size: u64, pat: u8) -> Result<(u64, MemType), Exception> {
        let bus = BusAddr(at);
        if !self.mem.is_ram(self.mem.layout().mem(bus)) {
            // Nothing answers there: all ones, as an unclaimed read returns.
            return Ok((if size == 8 { u64::MAX } else { 0xFFFF_FFFF }, MemType::Uc));
        }
        let ty = self.page_memory_type(at & !0xFFF, pat);
        let mut b = [0; 8];
        if self.mem.observed() {
            self.observe(bus, size as usize, ty, Operation::PageWalk);
        }
        if self.mem.awaits_access(at, bus) {
            self.mem.note_access(&Accessed { linear: None, bus, len: size as usize, write: false });
        }
        let no_fill = self.no_fill();
        self.mem.read(bus, ty, no_fill, &mut b[..size as usize]);
        self.settle();
        self.check_poison(Use::Data)?;
        Ok((u64::from_le_bytes(b), ty))
    }

    /// Sets A in every entry used and D in the leaf, where they are clear: a locked read-modify-write at the address the
    /// walker found the entry (spec 5.5).
    fn set_accessed_dirty(&mut self, path: &[(u64, u64, MemType)], size: u64, write: bool) {
        let last = path.len() - 1;
        for (level, &(at, entry, ty)) in path.iter().enumerate() {
            let mut new = entry | pte::A;
            if level == last && write {
                new |= pte::D;
            }
            if new != entry {
                let no_fill = self.no_fill();
                let at = if mutant!(AccessedBitByKeyid0) { self.mem.layout().mem(BusAddr(at)).0 } else { at };
                if self.mem.observed() {
                    self.observe(BusAddr(at), size as usize, ty, Operation::PageWalkUpdate);
                }
                if self.mem.awaits_access(at, BusAddr(at)) {
                    let bus = BusAddr(at);
                    self.mem.note_access(&Accessed { linear: None, bus, len: size as usize, write: true });
                }
                self.mem.write(BusAddr(at), ty, no_fill, &new.to_le_bytes()[..size as usize]);
                self.settle();
            }
        }
    }

    /// Loads the PAE page-directory-pointer entries that CR3 points to (SDM Vol. 3A, section 4.4.1): #GP(0) for reserved
    /// bits in a present one, nothing loaded then.
    pub fn load_pdptes(&mut self) -> Result<(), Exception> {
        let reserved = !self.legal_address_bits() | 0x1E6;
        let mut loaded = [0; 4];
        for (i, slot) in loaded.iter_mut().enumerate() {
            let (e, _) = self.read_entry((self.cr3 & 0xFFFF_FFE0) + 8 * i as u64, 8, pat_index(self.cr3, false))?;
            if e & pte::P != 0 && e & reserved != 0 {
                return Err(Exception::GP0);
            }
            *slot = e;
        }
        self.pdpte = loaded;
        Ok(())
    }
}

fn pat_index(entry: u64, _large: bool) -> u8 {
    u8::from(entry & pte::PWT != 0) | u8::from(entry & pte::PCD != 0) << 1
}

fn pat_bit(entry: u64, large: bool) -> u8 {
    let bit = if large { pte::PAT_LARGE } else { pte::PAT };
    u8::from(entry & bit != 0) << 2
}
