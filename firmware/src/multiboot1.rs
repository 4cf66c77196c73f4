//! Multiboot 1 (Multiboot Specification version 0.6.96).

use crate::Bios;
use crate::entry::{self, layout};
use crate::error::LoadError;
use crate::load::{
    BootInfo, ImageFormat, Images, Info, Mode, check_area, check_texts, place_modules, words, write_modules,
};
use crate::multiboot::{AddressFields, BOOT_LOADER_NAME, load_elf, mem_lower, mem_upper};
use crate::platform::{BootCpu, gpr};

/// The header (section 3.1): 32-bit fields.
mod header {
    pub const MAGIC: u32 = 0x1BAD_B002;
    /// It lies within this many bytes, at a multiple of 4.
    pub const SEARCH: usize = 8192;
    pub const ALIGN: usize = 4;
    pub const FLAGS: usize = 4;
    pub const CHECKSUM: usize = 8;
    /// End of the part that every header has.
    pub const END: usize = 12;
    pub const HEADER_ADDR: usize = 12;
    pub const LOAD_ADDR: usize = 16;
    pub const LOAD_END_ADDR: usize = 20;
    pub const BSS_END_ADDR: usize = 24;
    pub const ENTRY_ADDR: usize = 28;
    /// End of the address fields.
    pub const ADDRESSES_END: usize = 32;

    /// flags: what the loader has to honour or refuse.
    pub const REQUIREMENTS: u32 = 0xFFFF;
    /// Modules on page boundaries; memory information. Both always.
    pub const PAGE_ALIGN: u32 = 1 << 0;
    pub const MEMORY_INFO: u32 = 1 << 1;
    pub const VIDEO_MODE: u32 = 1 << 2;
    /// The address fields are valid.
    pub const ADDRESSES: u32 = 1 << 16;
}

/// The boot information (section 3.3).
mod info {
    pub const MEMORY: u32 = 1 << 0;
    pub const CMDLINE: u32 = 1 << 2;
    pub const MODS: u32 = 1 << 3;
    pub const MMAP: u32 = 1 << 6;
    pub const BOOT_LOADER_NAME: u32 = 1 << 9;

    pub const AT_FLAGS: usize = 0;
    pub const AT_MEM_LOWER: usize = 4;
    pub const AT_MEM_UPPER: usize = 8;
    pub const AT_CMDLINE: usize = 16;
    pub const AT_MODS_COUNT: usize = 20;
    pub const AT_MODS_ADDR: usize = 24;
    pub const AT_MMAP_LENGTH: usize = 44;
    pub const AT_MMAP_ADDR: usize = 48;
    pub const AT_BOOT_LOADER_NAME: usize = 64;
    /// Up to and with the framebuffer fields.
    pub const BYTES: usize = 116;

    /// A memory map entry's `size` field does not count itself.
    pub const MMAP_ENTRY_SIZE: u32 = 20;
}

/// EAX at the entry (section 3.2).
pub const BOOTLOADER_MAGIC: u32 = 0x2BAD_B002;

/// A header that has been found; its flags and fields are not checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Offset in the file.
    pub offset: usize,
    pub flags: u32,
}

/// The first header: magic, and a checksum that makes the sum of the three words 0.
pub fn find_header(file: &[u8]) -> Option<Header> {
    let searched = &file[..file.len().min(header::SEARCH)];
    (0..searched.len()).step_by(header::ALIGN).find_map(|offset| {
        let found = searched.get(offset..offset + header::END)?;
        if word(found, 0) != header::MAGIC {
            return None;
        }
        let flags = word(found, header::FLAGS);
        let sum = header::MAGIC.wrapping_add(flags).wrapping_add(word(found, header::CHECKSUM));
        (sum == 0).then_some(Header { offset, flags })
    })
}

/// The caller knows that the word is there.
fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

impl Header {
    fn check(&self) -> Result<(), LoadError> {
        let unknown = self.flags & header::REQUIREMENTS & !(header::PAGE_ALIGN | header::MEMORY_INFO);
        if unknown == 0 {
            return Ok(());
        }
        let what = if unknown == header::VIDEO_MODE {
            "flags bit 2 asks for a video mode, and there is no display".into()
        } else {
            format!("flags {:X}H ask for what this loader does not know", unknown)
        };
        Err(LoadError::BadMultiboot { version: 1, what, accepted: "flags bits 0, 1 and 16" })
    }

    fn address_fields(&self, file: &[u8]) -> Result<(AddressFields, u32), LoadError> {
        let end = self.offset + header::ADDRESSES_END;
        let bytes = file.get(self.offset..end).ok_or(LoadError::Truncated {
            format: "Multiboot 1 header",
            expected: end,
            length: file.len(),
        })?;
        let fields = AddressFields {
            header_addr: word(bytes, header::HEADER_ADDR),
            load_addr: word(bytes, header::LOAD_ADDR),
            load_end_addr: word(bytes, header::LOAD_END_ADDR),
            bss_end_addr: word(bytes, header::BSS_END_ADDR),
        };
        Ok((fields, word(bytes, header::ENTRY_ADDR)))
    }
}

/// Loads a Multiboot 1 kernel.
///
/// # Errors
/// As [`crate::boot`].
pub fn boot(cpu: &mut dyn BootCpu, bios: &mut Bios, images: &Images) -> Result<BootInfo, LoadError> {
    let file = images.kernel;
    let header = find_header(file).ok_or(LoadError::NotThisProtocol {
        asked: "multiboot",
        missing: "no header with magic 1BADB002H and a valid checksum at a multiple of 4 in the first 8 KiB",
        accepted: "a Multiboot 1 kernel",
    })?;
    header.check()?;
    let kernel = if header.flags & header::ADDRESSES != 0 {
        let (fields, entry) = header.address_fields(file)?;
        fields.load(file, header.offset, entry, 1)?
    } else {
        load_elf(file, 1)?
    };
    let area = kernel.footprint();
    check_area(bios, &area)?;
    check_texts(images)?;
    let modules = place_modules(bios, &images.modules, &area)?;
    let information = build_info(bios, images, &modules).finish()?;

    kernel.write(cpu);
    write_modules(cpu, &images.modules, &modules);
    cpu.write_phys(layout::INFO.start, &information);
    let mut state = entry::prot32(cpu, kernel.entry);
    state.gpr[gpr::RAX] = BOOTLOADER_MAGIC.into();
    state.gpr[gpr::RBX] = layout::INFO.start;
    cpu.enter(state);
    Ok(BootInfo {
        format: ImageFormat::Multiboot1,
        version: None,
        kernel: area,
        entry: kernel.entry,
        mode: Mode::Prot32,
        modules,
        info: layout::INFO.start,
    })
}

/// The structure first, then what it points to.
fn build_info(bios: &Bios, images: &Images, modules: &[std::ops::Range<u64>]) -> Info {
    let mut out = Info::default();
    let base = out.put(4, &[0; info::BYTES]);
    // QEMU's convention and GRUB Legacy's: the file's name is the first word.
    let cmdline = out.put_text(&words(images.kernel_name, images.cmdline));
    let loader = out.put_text(BOOT_LOADER_NAME);

    let mut list = Vec::new();
    for (module, range) in images.modules.iter().zip(modules) {
        let string = out.put_text(&words(module.name, module.arguments));
        // Start, end, string, reserved. Everything lies below 4 GiB.
        for field in [range.start, range.end, string, 0] {
            list.extend((field as u32).to_le_bytes());
        }
    }
    let mods = out.put(4, &list);

    let mut map = Vec::new();
    for entry in &bios.e820 {
        map.extend(info::MMAP_ENTRY_SIZE.to_le_bytes());
        map.extend(entry.to_bytes());
    }
    let mmap = out.put(4, &map);

    let mut flags = info::MEMORY | info::CMDLINE | info::MMAP | info::BOOT_LOADER_NAME;
    if !modules.is_empty() {
        flags |= info::MODS;
    }
    for (at, value) in [
        (info::AT_FLAGS, u64::from(flags)),
        (info::AT_MEM_LOWER, mem_lower().into()),
        (info::AT_MEM_UPPER, mem_upper(&bios.memory).into()),
        (info::AT_CMDLINE, cmdline),
        (info::AT_MODS_COUNT, modules.len() as u64),
        (info::AT_MODS_ADDR, if modules.is_empty() { 0 } else { mods }),
        (info::AT_MMAP_LENGTH, map.len() as u64),
        (info::AT_MMAP_ADDR, mmap),
        (info::AT_BOOT_LOADER_NAME, loader),
    ] {
        out.set(base + at as u64, &(value as u32).to_le_bytes());
    }
    out
}
