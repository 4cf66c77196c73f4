//! The setup header of a bzImage (Linux Documentation/arch/x86/boot.rst, "The real-mode kernel header").

use crate::error::LoadError;
use std::ops::Range;

/// Offsets of the header's fields, from the start of the file and of the zero page alike.
pub mod offset {
    pub const SETUP_SECTS: usize = 0x1F1;
    pub const SYSSIZE: usize = 0x1F4;
    pub const BOOT_FLAG: usize = 0x1FE;
    /// The header ends at 202H + this byte (it is the displacement of a short jump).
    pub const JUMP_DISPLACEMENT: usize = 0x201;
    pub const HEADER: usize = 0x202;
    pub const VERSION: usize = 0x206;
    pub const KERNEL_VERSION: usize = 0x20E;
    pub const TYPE_OF_LOADER: usize = 0x210;
    pub const LOADFLAGS: usize = 0x211;
    pub const CODE32_START: usize = 0x214;
    pub const RAMDISK_IMAGE: usize = 0x218;
    pub const RAMDISK_SIZE: usize = 0x21C;
    pub const CMD_LINE_PTR: usize = 0x228;
    pub const INITRD_ADDR_MAX: usize = 0x22C;
    pub const KERNEL_ALIGNMENT: usize = 0x230;
    pub const XLOADFLAGS: usize = 0x236;
    pub const CMDLINE_SIZE: usize = 0x238;
    pub const PREF_ADDRESS: usize = 0x258;
    pub const INIT_SIZE: usize = 0x260;
    /// End of the fields of protocol 2.12.
    pub const END: usize = 0x268;
}

pub const BOOT_FLAG: u16 = 0xAA55;
pub const MAGIC: [u8; 4] = *b"HdrS";
/// The first protocol with `xloadflags`, which tell whether there is a 64-bit entry (Linux 3.8).
pub const MIN_VERSION: u16 = 0x020C;
/// loadflags
pub const LOADED_HIGH: u8 = 1 << 0;
pub const KEEP_SEGMENTS: u8 = 1 << 6;
pub const CAN_USE_HEAP: u8 = 1 << 7;
/// xloadflags
const XLF_KERNEL_64: u16 = 1 << 0;
/// The 64-bit entry point, from the start of the protected-mode code.
pub const ENTRY_64: u64 = 0x200;

const SECTOR: usize = 512;
/// setup_sects = 0 means this many.
const DEFAULT_SETUP_SECTS: usize = 4;
/// syssize counts paragraphs.
const PARAGRAPH: usize = 16;
/// Enough for any release string.
const MAX_VERSION_STRING: usize = 256;

/// A bzImage that has been checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BzImage<'a> {
    /// The setup header, from 1F1H to its end.
    pub header: &'a [u8],
    /// The protected-mode code.
    pub code: &'a [u8],
    /// Where the code wants to be loaded and run.
    pub pref_address: u64,
    /// Memory it needs from there on before it has looked at the memory map.
    pub init_size: u32,
    /// Last address an initrd may occupy.
    pub initrd_addr_max: u32,
    /// Longest command line, without the final NUL.
    pub cmdline_size: u32,
    pub loadflags: u8,
    /// Whether there is a 64-bit entry point, at [`ENTRY_64`]. The 32-bit one is the start of the code.
    pub entry_64: bool,
    /// Release string, if the image has one.
    pub version: Option<String>,
}

/// True if the file carries the magic of a setup header.
pub fn is_bzimage(file: &[u8]) -> bool {
    file.get(offset::BOOT_FLAG..offset::HEADER - 2) == Some(&BOOT_FLAG.to_le_bytes())
        && file.get(offset::HEADER..offset::VERSION) == Some(&MAGIC)
}

impl<'a> BzImage<'a> {
    /// Parses and checks the header. The caller knows that [`is_bzimage`] holds.
    pub fn parse(file: &'a [u8]) -> Result<BzImage<'a>, LoadError> {
        let truncated = |expected: usize| LoadError::Truncated { format: "bzImage", expected, length: file.len() };
        let fixed: &[u8; offset::END] = file.first_chunk().ok_or(truncated(offset::END))?;
        let u16_at = |at: usize| u16::from_le_bytes([fixed[at], fixed[at + 1]]);
        let u32_at = |at: usize| u32::from(u16_at(at)) | u32::from(u16_at(at + 2)) << 16;

        let version = u16_at(offset::VERSION);
        if version < MIN_VERSION {
            return Err(LoadError::OldProtocol { major: version >> 8, minor: version & 0xFF });
        }
        let header_end = offset::HEADER + usize::from(fixed[offset::JUMP_DISPLACEMENT]);
        if header_end < offset::END {
            return Err(LoadError::BadSetupHeader { field: "header length" });
        }
        let header = file.get(offset::SETUP_SECTS..header_end).ok_or(truncated(header_end))?;

        let setup_sects = match usize::from(fixed[offset::SETUP_SECTS]) {
            0 => DEFAULT_SETUP_SECTS,
            n => n,
        };
        let start = (setup_sects + 1) * SECTOR;
        let end = start + u32_at(offset::SYSSIZE) as usize * PARAGRAPH;
        // The size is in whole paragraphs. Files need not end with one (memtest86+'s do not).
        let present = if end.saturating_sub(file.len()) < PARAGRAPH { end.min(file.len()) } else { end };
        let code = file.get(start..present).ok_or(truncated(end))?;
        // An entry point outside the code means that the header's sizes are nonsense.
        if code.len() <= ENTRY_64 as usize {
            return Err(LoadError::BadSetupHeader { field: "syssize" });
        }
        let pref_address = u64::from(u32_at(offset::PREF_ADDRESS)) | u64::from(u32_at(offset::PREF_ADDRESS + 4)) << 32;
        Ok(BzImage {
            header,
            code,
            pref_address,
            init_size: u32_at(offset::INIT_SIZE),
            initrd_addr_max: u32_at(offset::INITRD_ADDR_MAX),
            cmdline_size: u32_at(offset::CMDLINE_SIZE),
            loadflags: fixed[offset::LOADFLAGS],
            entry_64: u16_at(offset::XLOADFLAGS) & XLF_KERNEL_64 != 0,
            version: version_string(file, usize::from(u16_at(offset::KERNEL_VERSION)), start),
        })
    }

    /// Memory that the image occupies once it runs, or `None` if its numbers overflow.
    pub fn footprint(&self) -> Option<Range<u64>> {
        let size = u64::from(self.init_size).max(self.code.len() as u64);
        Some(self.pref_address..self.pref_address.checked_add(size)?)
    }
}

/// The NUL-terminated string at `pointer` + 200H in the setup code; its first word is the release.
fn version_string(file: &[u8], pointer: usize, setup_end: usize) -> Option<String> {
    if pointer == 0 {
        return None;
    }
    let setup = file.get(pointer + SECTOR..setup_end)?;
    let text = setup.split(|&b| b == 0 || b == b' ').next()?;
    let printable = text.len() < MAX_VERSION_STRING && !text.is_empty() && text.iter().all(u8::is_ascii_graphic);
    printable.then(|| String::from_utf8_lossy(text).into_owned())
}
