//! Multiboot 2 (Multiboot2 Specification version 2.0).

use crate::Bios;
use crate::acpi;
use crate::entry::{self, layout};
use crate::error::LoadError;
use crate::load::{
    BootInfo, ImageFormat, Images, Info, Mode, check_area, check_texts, place_modules, words, write_modules,
};
use crate::multiboot::{AddressFields, BOOT_LOADER_NAME, load_elf, mem_lower, mem_upper};
use crate::platform::{BootCpu, gpr};
use std::ops::Range;

/// The header (section 3.1): four 32-bit words, then tags.
mod header {
    pub const MAGIC: u32 = 0xE852_50D6;
    /// It lies within this many bytes, at a multiple of 8.
    pub const SEARCH: usize = 32768;
    pub const ALIGN: usize = 8;
    pub const ARCHITECTURE: usize = 4;
    pub const HEADER_LENGTH: usize = 8;
    pub const CHECKSUM: usize = 12;
    /// Start of the tags.
    pub const TAGS: usize = 16;
    /// 32-bit (protected) mode of i386.
    pub const I386: u32 = 0;
}

/// Header tags (sections 3.1.3 to 3.1.13): type (16 bits), flags (16 bits), size (32 bits), contents, padding to 8 bytes.
mod tag {
    pub const BYTES: usize = 8;
    /// flags: the loader may ignore the tag.
    pub const OPTIONAL: u16 = 1 << 0;

    pub const END: u16 = 0;
    pub const INFORMATION_REQUEST: u16 = 1;
    pub const ADDRESS: u16 = 2;
    pub const ENTRY_ADDRESS: u16 = 3;
    pub const CONSOLE_FLAGS: u16 = 4;
    pub const FRAMEBUFFER: u16 = 5;
    pub const MODULE_ALIGN: u16 = 6;
    /// These concern EFI only: boot services, 32-bit entry, 64-bit entry.
    pub const EFI_BOOT_SERVICES: u16 = 7;
    pub const ENTRY_EFI32: u16 = 8;
    pub const ENTRY_EFI64: u16 = 9;
    pub const RELOCATABLE: u16 = 10;

    /// Contents of the address tag: header_addr, load_addr, load_end_addr, bss_end_addr.
    pub const ADDRESS_WORDS: usize = 4;
    /// load_addr of a file that is loaded from its first byte.
    pub const FROM_START: u32 = 0xFFFF_FFFF;
    /// console_flags: a supported console is required.
    pub const CONSOLE_REQUIRED: u32 = 1 << 0;
    /// The relocatable tag has min_addr, max_addr, align, preference.
    pub const RELOCATABLE_WORDS: usize = 4;
}

/// The boot information (section 3.6): total size, 0, tags of type (32 bits), size (32 bits), contents, padding to 8 bytes.
mod info {
    pub const ALIGN: usize = 8;
    pub const END: u32 = 0;
    pub const CMDLINE: u32 = 1;
    pub const BOOT_LOADER_NAME: u32 = 2;
    pub const MODULE: u32 = 3;
    pub const BASIC_MEMINFO: u32 = 4;
    pub const MMAP: u32 = 6;
    pub const ACPI_NEW: u32 = 15;
    pub const LOAD_BASE_ADDR: u32 = 21;
    /// Types that the specification defines, and so may be asked for, whether or not this machine has what they tell.
    pub const LAST: u32 = LOAD_BASE_ADDR;

    pub const MMAP_ENTRY_SIZE: u32 = 24;
    pub const MMAP_ENTRY_VERSION: u32 = 0;
}

/// EAX at the entry (section 3.3).
pub const BOOTLOADER_MAGIC: u32 = 0x36D7_6289;

/// The first header: magic, and a checksum that makes the sum of the four words 0. Returns its offset.
pub fn find_header(file: &[u8]) -> Option<usize> {
    let searched = &file[..file.len().min(header::SEARCH)];
    (0..searched.len()).step_by(header::ALIGN).find(|&offset| {
        let Some(found) = searched.get(offset..offset + header::TAGS) else { return false };
        let sum = [header::ARCHITECTURE, header::HEADER_LENGTH, header::CHECKSUM]
            .iter()
            .fold(word(found, 0), |sum, &at| sum.wrapping_add(word(found, at)));
        word(found, 0) == header::MAGIC && sum == 0
    })
}

/// The caller knows that the word is there.
fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn bad(what: String, accepted: &'static str) -> LoadError {
    LoadError::BadMultiboot { version: 2, what, accepted }
}

/// What the header asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Header {
    /// Offset in the file.
    pub offset: usize,
    pub addresses: Option<AddressFields>,
    pub entry: Option<u32>,
    /// There is a relocatable tag: the load base address is to be told.
    pub relocatable: bool,
}

impl Header {
    /// Parses and checks the header at `offset`.
    ///
    /// # Errors
    /// Sizes that lead outside the header or the file, and tags that cannot be ignored and not be honoured.
    pub fn parse(file: &[u8], offset: usize) -> Result<Header, LoadError> {
        let start = file.get(offset..).unwrap_or_default();
        if start.len() < header::TAGS {
            return Err(bad("cut off".into(), "a whole header"));
        }
        let architecture = word(start, header::ARCHITECTURE);
        if architecture != header::I386 {
            return Err(bad(format!("architecture {architecture}"), "architecture 0 (i386, protected mode)"));
        }
        let length = word(start, header::HEADER_LENGTH) as usize;
        if length < header::TAGS + tag::BYTES {
            return Err(bad(format!("header_length {length}"), "at least 24 bytes: four words and the end tag"));
        }
        let bytes = start.get(..length).ok_or(LoadError::Truncated {
            format: "Multiboot 2 header",
            expected: offset.saturating_add(length),
            length: file.len(),
        })?;
        let mut parsed = Header { offset, ..Header::default() };
        let mut at = header::TAGS;
        loop {
            let Some(head) = bytes.get(at..at + tag::BYTES) else {
                return Err(bad("no end tag".into(), "tags that end with one of type 0"));
            };
            let kind = u16::from_le_bytes([head[0], head[1]]);
            let optional = u16::from_le_bytes([head[2], head[3]]) & tag::OPTIONAL != 0;
            let size = word(head, 4) as usize;
            if kind == tag::END {
                return Ok(parsed);
            }
            let contents = size.checked_sub(tag::BYTES).and_then(|length| bytes[at + tag::BYTES..].get(..length));
            let contents = contents.ok_or_else(|| {
                bad(format!("tag {kind} of {size} bytes"), "at least 8 bytes, within the header's length")
            })?;
            parsed.tag(kind, optional, contents)?;
            // At most the header's length, which is that of a slice.
            at += size.next_multiple_of(header::ALIGN);
        }
    }

    fn tag(&mut self, kind: u16, optional: bool, contents: &[u8]) -> Result<(), LoadError> {
        let numbers = |count: usize| {
            if contents.len() < count * 4 {
                let message = format!("tag {kind} of {} bytes", contents.len() + tag::BYTES);
                Err(bad(message, "the size that the specification gives"))
            } else {
                Ok(contents.chunks_exact(4).map(|bytes| word(bytes, 0)).collect::<Vec<u32>>())
            }
        };
        match kind {
            tag::INFORMATION_REQUEST => {
                let unknown = numbers(0)?.into_iter().find(|request| *request > info::LAST);
                if let Some(request) = unknown.filter(|_| !optional) {
                    return Err(bad(format!("it requires information of type {request}"), "types 1 to 21"));
                }
            }
            tag::ADDRESS => {
                let fields = numbers(tag::ADDRESS_WORDS)?;
                let (header_addr, mut load_addr) = (fields[0], fields[1]);
                if load_addr == tag::FROM_START {
                    load_addr =
                        u32::try_from(self.offset).ok().and_then(|offset| header_addr.checked_sub(offset)).ok_or_else(
                            || bad("header_addr below the header's offset".into(), "an image from address 0 up"),
                        )?;
                }
                self.addresses =
                    Some(AddressFields { header_addr, load_addr, load_end_addr: fields[2], bss_end_addr: fields[3] });
            }
            tag::ENTRY_ADDRESS => self.entry = Some(numbers(1)?[0]),
            tag::CONSOLE_FLAGS => {
                if numbers(1)?[0] & tag::CONSOLE_REQUIRED != 0 && !optional {
                    return Err(bad(
                        "it requires a console of the loader, and there is no display".into(),
                        "a console tag that is optional or does not require one",
                    ));
                }
            }
            tag::FRAMEBUFFER if !optional => {
                return Err(bad(
                    "it requires a frame buffer, and there is no display".into(),
                    "a frame buffer tag that is optional, or none",
                ));
            }
            tag::RELOCATABLE => {
                numbers(tag::RELOCATABLE_WORDS)?;
                self.relocatable = true;
            }
            tag::FRAMEBUFFER | tag::MODULE_ALIGN | tag::EFI_BOOT_SERVICES | tag::ENTRY_EFI32 | tag::ENTRY_EFI64 => {}
            _ if optional => {}
            _ => return Err(bad(format!("it requires what tag {kind} means"), "tags 1 to 10, and optional ones")),
        }
        Ok(())
    }
}

/// Loads a Multiboot 2 kernel.
///
/// # Errors
/// As [`crate::boot`].
pub fn boot(cpu: &mut dyn BootCpu, bios: &mut Bios, images: &Images) -> Result<BootInfo, LoadError> {
    let file = images.kernel;
    let offset = find_header(file).ok_or(LoadError::NotThisProtocol {
        asked: "multiboot2",
        missing: "no header with magic E85250D6H and a valid checksum at a multiple of 8 in the first 32 KiB",
        accepted: "a Multiboot 2 kernel",
    })?;
    let header = Header::parse(file, offset)?;
    let mut kernel = match (header.addresses, header.entry) {
        (Some(fields), Some(entry)) => fields.load(file, offset, entry, 2)?,
        (Some(_), None) => {
            return Err(bad("an address tag, but no entry address tag".into(), "both, or an ELF executable"));
        }
        (None, _) => load_elf(file, 2)?,
    };
    if let Some(entry) = header.entry.map(u64::from) {
        if !kernel.segments.iter().any(|segment| segment.range.contains(&entry)) {
            return Err(bad(format!("entry address {entry:X}H outside the image"), "an entry address inside it"));
        }
        kernel.entry = entry;
    }
    let area = kernel.footprint();
    check_area(bios, &area)?;
    check_texts(images)?;
    let modules = place_modules(bios, &images.modules, &area)?;
    let load_base = header.relocatable.then_some(area.start);
    let mut rsdp = [0; acpi::RSDP_BYTES];
    cpu.read_phys(bios.rsdp, &mut rsdp);
    let information = build_info(bios, images, &modules, &rsdp, load_base)?;

    kernel.write(cpu);
    write_modules(cpu, &images.modules, &modules);
    cpu.write_phys(layout::INFO.start, &information);
    let mut state = entry::prot32(cpu, kernel.entry);
    state.gpr[gpr::RAX] = BOOTLOADER_MAGIC.into();
    state.gpr[gpr::RBX] = layout::INFO.start;
    cpu.enter(state);
    Ok(BootInfo {
        format: ImageFormat::Multiboot2,
        version: None,
        kernel: area,
        entry: kernel.entry,
        mode: Mode::Prot32,
        modules,
        info: layout::INFO.start,
    })
}

fn build_info(
    bios: &Bios,
    images: &Images,
    modules: &[Range<u64>],
    rsdp: &[u8],
    load_base: Option<u64>,
) -> Result<Vec<u8>, LoadError> {
    let mut out = Info::default();
    // Total size, reserved.
    let base = out.put(info::ALIGN, &[0; 8]);
    let mut tag = |kind: u32, contents: &[u8]| {
        let size = 8 + contents.len() as u32;
        out.put(info::ALIGN, &[&kind.to_le_bytes(), &size.to_le_bytes(), contents].concat());
    };
    let text = |text: &str| [text.as_bytes(), &[0]].concat();
    // The specification leaves it open whether the file's name is the first word. Xen, for one, takes it for granted from
    // every loader but GRUB 2.
    tag(info::CMDLINE, &text(&words(images.kernel_name, images.cmdline)));
    tag(info::BOOT_LOADER_NAME, &text(BOOT_LOADER_NAME));
    for (module, range) in images.modules.iter().zip(modules) {
        let (start, end) = ((range.start as u32).to_le_bytes(), (range.end as u32).to_le_bytes());
        tag(info::MODULE, &[&start, &end, text(&words(module.name, module.arguments)).as_slice()].concat());
    }
    tag(info::BASIC_MEMINFO, &[mem_lower().to_le_bytes(), mem_upper(&bios.memory).to_le_bytes()].concat());
    let mut map = [info::MMAP_ENTRY_SIZE.to_le_bytes(), info::MMAP_ENTRY_VERSION.to_le_bytes()].concat();
    for entry in &bios.e820 {
        map.extend(entry.to_bytes());
        // Reserved.
        map.extend([0; 4]);
    }
    tag(info::MMAP, &map);
    tag(info::ACPI_NEW, rsdp);
    if let Some(address) = load_base {
        tag(info::LOAD_BASE_ADDR, &(address as u32).to_le_bytes());
    }
    tag(info::END, &[]);
    let end = out.put(1, &[]);
    out.set(base, &((end - base) as u32).to_le_bytes());
    out.finish()
}
