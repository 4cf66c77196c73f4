//! Linear address to bus address to bytes (SDM Vol. 3A, ch. 4 "Paging" and ch. 12 "Memory Cache Control").

pub mod tlb;

use crate::state::Cpu;
use x86::Exception;

/// Which kind of access a translation is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
    Fetch,
}

/// What happens to a cache line that an instruction names (MK specification section 5.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlushKind {
    /// CLFLUSH, CLFLUSHOPT: written back if dirty, and invalidated.
    Clflush,
    /// CLWB: written back if dirty, and kept.
    Clwb,
}

macro_rules! typed {
    ($read:ident, $write:ident, $t:ty) => {
        #[doc = concat!("Loads a `", stringify!($t), "` at a linear address with the current privilege.")]
        pub fn $read(&mut self, linear: u64) -> Result<$t, Exception> {
            let mut b = [0; size_of::<$t>()];
            self.read_linear(linear, &mut b)?;
            Ok(<$t>::from_le_bytes(b))
        }

        #[doc = concat!("Stores a `", stringify!($t), "` at a linear address with the current privilege.")]
        pub fn $write(&mut self, linear: u64, value: $t) -> Result<(), Exception> {
            self.write_linear(linear, &value.to_le_bytes())
        }
    };
}

impl Cpu {
    typed!(read_u8, write_u8, u8);
    typed!(read_u16, write_u16, u16);
    typed!(read_u32, write_u32, u32);
    typed!(read_u64, write_u64, u64);
    typed!(read_u128, write_u128, u128);

    /// Loads bytes at a linear address with the current privilege. Faults leave the buffer unspecified.
    pub fn read_linear(&mut self, _linear: u64, _buf: &mut [u8]) -> Result<(), Exception> {
        Err(Exception::GP0)
    }

    /// Stores bytes at a linear address with the current privilege. All pages are checked before the first byte is
    /// written, so that a fault leaves memory unchanged.
    pub fn write_linear(&mut self, _linear: u64, _bytes: &[u8]) -> Result<(), Exception> {
        Err(Exception::GP0)
    }

    /// Loads as a supervisor-mode access whatever CPL is: descriptor tables, TSS, IDT (SDM Vol. 3A, section 4.6.1,
    /// "implicit supervisor-mode accesses").
    pub fn read_system(&mut self, _linear: u64, _buf: &mut [u8]) -> Result<(), Exception> {
        Err(Exception::GP0)
    }

    /// Stores as an implicit supervisor-mode access (accessed bit of descriptors, TSS busy bit, stack switches).
    pub fn write_system(&mut self, _linear: u64, _bytes: &[u8]) -> Result<(), Exception> {
        Err(Exception::GP0)
    }

    /// Checks that `len` bytes could be stored at the current privilege without a fault.
    pub fn probe_write(&mut self, _linear: u64, _len: usize) -> Result<(), Exception> {
        Ok(())
    }

    /// After a change of CPL, CR0.WP, CR4.SMAP, RFLAGS.AC: which deny bits of a fast-path entry apply.
    pub fn update_access_masks(&mut self) {}

    /// MOV to CR3 and what changes paging modes: drops translations as SDM Vol. 3A, section 4.10.4 says.
    pub fn flush_tlb(&mut self, _include_global: bool) {}

    /// MOV to CR3 that keeps translations (bit 63 with CR4.PCIDE = 1): the current PCID changed, so what is found by linear
    /// address alone no longer applies.
    pub fn switch_pcid(&mut self) {}

    /// Loads PDPTE0-3 from the table CR3 points to (SDM Vol. 3A, section 4.4.1). #GP(0) for reserved bits, with
    /// `pdpte` unchanged.
    pub fn load_pdptes(&mut self) -> Result<(), Exception> {
        Ok(())
    }

    /// Writes back the cache line at a linear address, which is translated as a load with the current privilege.
    pub fn flush_line(&mut self, _linear: u64, _kind: FlushKind) -> Result<(), Exception> {
        Ok(())
    }

    /// INVLPG: drops translations of one linear page, global ones and every PCID's of the current PCID.
    pub fn invalidate_page(&mut self, _linear: u64) {}

    /// INVPCID types 0-3 and MOV CR3 with PCIDs: drops the non-global translations of one PCID.
    pub fn flush_pcid(&mut self, _pcid: u16) {}

    /// INVPCID type 0: drops one page's non-global translation of one PCID.
    pub fn invalidate_pcid_page(&mut self, _pcid: u16, _linear: u64) {}

    /// Something outside the processor's own stores changed what code or memory types mean (CR0, CR4, EFER, MTRR, PAT,
    /// A20): drops every host-side shortcut.
    pub fn drop_shortcuts(&mut self) {}
}
