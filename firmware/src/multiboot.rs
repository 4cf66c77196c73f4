//! What Multiboot 1 and 2 have in common: address fields for files that are no ELF, ELF loading, sizes of memory.

use crate::elf::{Classes, Executable, Segment, is_elf};
use crate::error::LoadError;
use crate::memory_map::{EBDA, IMAGE_BASE, KIB, MemoryMap};

/// What the header's place in the file and its own words say about loading (Multiboot 1, section 3.1.3; Multiboot 2, the
/// address tag, section 3.1.5). Physical addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressFields {
    /// Where the header's first byte goes.
    pub header_addr: u32,
    pub load_addr: u32,
    /// 0: up to the end of the file.
    pub load_end_addr: u32,
    /// 0: no `.bss`.
    pub bss_end_addr: u32,
}

impl AddressFields {
    /// The image in `file`, whose header is at `header_offset`, as one segment.
    ///
    /// # Errors
    /// Fields that contradict each other or the file's length, for the message of a Multiboot `version` header.
    pub fn load<'a>(
        &self,
        file: &'a [u8],
        header_offset: usize,
        entry: u32,
        version: u8,
    ) -> Result<Executable<'a>, LoadError> {
        let bad = |what: String| LoadError::BadMultiboot {
            version,
            what,
            accepted: "load_addr <= header_addr, load_addr < load_end_addr <= bss_end_addr, and a file that holds it all",
        };
        let before_header = self
            .header_addr
            .checked_sub(self.load_addr)
            .ok_or_else(|| bad(format!("load_addr {:X}H above header_addr {:X}H", self.load_addr, self.header_addr)))?;
        let start = header_offset.checked_sub(before_header as usize).ok_or_else(|| {
            bad(format!(
                "load_addr {:X}H is {before_header} bytes below header_addr, but the header is at offset {header_offset}",
                self.load_addr
            ))
        })?;
        let end = match self.load_end_addr {
            0 => file.len(),
            end => {
                let length = end
                    .checked_sub(self.load_addr)
                    .ok_or_else(|| bad(format!("load_end_addr {end:X}H below load_addr {:X}H", self.load_addr)))?;
                start + length as usize
            }
        };
        let data = file.get(start..end).ok_or(LoadError::Truncated {
            format: "Multiboot image",
            expected: end,
            length: file.len(),
        })?;
        let loaded = u64::from(self.load_addr)..u64::from(self.load_addr) + data.len() as u64;
        let end = match u64::from(self.bss_end_addr) {
            0 => loaded.end,
            end if end < loaded.end => {
                return Err(bad(format!("bss_end_addr {end:X}H below the end of the data {:X}H", loaded.end)));
            }
            end => end,
        };
        let range = loaded.start..end;
        if !range.contains(&u64::from(entry)) {
            return Err(bad(format!("entry address {entry:X}H outside the image")));
        }
        Ok(Executable { segments: vec![Segment { range, data }], entry: entry.into() })
    }
}

/// The image as its ELF headers, of either class, describe it.
///
/// # Errors
/// A file that is no ELF either, or one with damaged headers.
pub fn load_elf(file: &[u8], version: u8) -> Result<Executable<'_>, LoadError> {
    if !is_elf(file) {
        return Err(LoadError::BadMultiboot {
            version,
            what: "no address fields, and the file is no ELF".into(),
            accepted: "a header with address fields, or an ELF executable",
        });
    }
    Executable::parse(file, Classes::Any)
}

/// `mem_lower`: KiB of conventional memory.
pub fn mem_lower() -> u32 {
    (EBDA.start / KIB) as u32
}

/// `mem_upper`: KiB of RAM from 1 MiB up to the first hole in it.
pub fn mem_upper(memory: &MemoryMap) -> u32 {
    ((memory.image_area().end - IMAGE_BASE) / KIB) as u32
}

/// Name and version, as kernels print it.
pub const BOOT_LOADER_NAME: &str = concat!("mktme-emu ", env!("CARGO_PKG_VERSION"));
