//! Loading an image and handing over by Linux' 64-bit boot protocol (Linux Documentation/arch/x86/boot.rst).
//!
//! A bare-metal ELF is entered in the same way: identity-mapped 64-bit mode, interrupts off, RSI pointing at the zero page.

use crate::Bios;
use crate::bzimage::{self, BzImage, is_bzimage, offset};
use crate::elf::{Executable, is_elf};
use crate::log::{Size, Span};
use crate::memory_map::{GIB, IMAGE_BASE, LOW_RAM_LIMIT, MIB, PAGE};
use crate::platform::{BootCpu, DescriptorTable, EntryState, gpr};
use std::ops::Range;
use thiserror::Error;
use x86::cr::{cr0, cr4, efer};
use x86::flags;
use x86::segment::{Segment, sreg};

/// What firmware keeps in conventional memory for the hand-over.
pub mod layout {
    use std::ops::Range;

    pub const GDT: u64 = 0x6000;
    pub const ZERO_PAGE: u64 = 0x7000;
    /// One page below this is free for whoever needs a stack before having one.
    pub const STACK_TOP: u64 = 0x9000;
    /// PML4, PDPT, then four page directories: 4 GiB in 2 MiB pages.
    pub const PAGE_TABLES: u64 = 0x9000;
    /// Command line with its NUL.
    pub const COMMAND_LINE: Range<u64> = 0x2_0000..0x3_0000;
}

/// Fields of the zero page outside the setup header (Linux Documentation/arch/x86/zero-page.rst).
mod zero_page {
    pub const ACPI_RSDP_ADDR: usize = 0x070;
    pub const EXT_RAMDISK_IMAGE: usize = 0x0C0;
    pub const EXT_RAMDISK_SIZE: usize = 0x0C4;
    pub const EXT_CMD_LINE_PTR: usize = 0x0C8;
    pub const E820_ENTRIES: usize = 0x1E8;
    pub const E820_TABLE: usize = 0x2D0;
    pub const BYTES: usize = 4096;
}

/// Setup header of an image that brings none: what Linux itself would say.
mod default_header {
    pub const VERSION: u16 = 0x020F;
    pub const KERNEL_ALIGNMENT: u32 = 0x100_0000;
    pub const INITRD_ADDR_MAX: u32 = 0x7FFF_FFFF;
    /// COMMAND_LINE_SIZE less the NUL.
    pub const CMDLINE_SIZE: u32 = 2047;
}

/// A boot loader without an assigned number.
const LOADER_UNDEFINED: u8 = 0xFF;
/// __BOOT_CS and __BOOT_DS.
const BOOT_CS: u16 = 0x10;
const BOOT_DS: u16 = 0x18;
/// Null, unused, flat 64-bit code, flat data; accessed bits set (SDM Vol. 3A, section 3.4.5).
const GDT: [u64; 4] = [0, 0, 0x00AF_9B00_0000_FFFF, 0x00CF_9300_0000_FFFF];

/// Page-table bits (SDM Vol. 3A, section 4.5).
const PRESENT_WRITABLE: u64 = 0b11;
const PAGE_SIZE: u64 = 1 << 7;
const LARGE_PAGE: u64 = 2 * MIB;
const ENTRIES: u64 = 512;
const MAPPED_GIB: u64 = 4;

/// What to boot.
#[derive(Debug, Clone, Copy)]
pub struct Images<'a> {
    /// bzImage or static ELF64 executable; the contents decide.
    pub kernel: &'a [u8],
    pub initrd: Option<&'a [u8]>,
    pub cmdline: &'a str,
}

/// Kernel formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageFormat {
    BzImage,
    Elf64,
}

/// Where everything went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootInfo {
    pub format: ImageFormat,
    /// Linux' release string, if the image tells.
    pub version: Option<String>,
    /// Memory the kernel needs, physical.
    pub kernel: Range<u64>,
    /// First instruction, physical (and linear: the mapping is the identity).
    pub entry: u64,
    pub initrd: Option<Range<u64>>,
    pub zero_page: u64,
}

/// An image that cannot be booted. Messages name the option and what would be accepted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LoadError {
    #[error("-kernel: the file is empty; accepted: a bzImage (vmlinuz) or a static ELF64 executable for x86-64")]
    EmptyKernel,
    #[error(
        "-kernel: not a kernel (neither the setup header of a bzImage nor an ELF header); accepted: a bzImage (vmlinuz) or a static ELF64 executable for x86-64"
    )]
    UnknownFormat,
    #[error(
        "-kernel: truncated {format}: {length} bytes, but its headers describe {expected}; accepted: the whole file"
    )]
    Truncated { format: &'static str, expected: usize, length: usize },
    #[error("-kernel: bzImage of boot protocol {major}.{minor:02}; accepted: 2.12 (Linux 3.8) or later")]
    OldProtocol { major: u16, minor: u16 },
    #[error("-kernel: bzImage without a 64-bit entry point (XLF_KERNEL_64 clear); accepted: a kernel built for x86-64")]
    No64BitEntry,
    #[error("-kernel: bzImage with a nonsensical setup header ({field}); accepted: an undamaged bzImage")]
    BadSetupHeader { field: &'static str },
    #[error("-kernel: 32-bit ELF; accepted: a bzImage or a static ELF64 executable for x86-64")]
    Elf32,
    #[error("-kernel: ELF for machine {machine}; accepted: x86-64 (machine 62)")]
    ElfMachine { machine: u16 },
    #[error("-kernel: ELF of type {kind}; accepted: an executable linked to fixed addresses (type 2, ET_EXEC)")]
    ElfType { kind: u16 },
    #[error("-kernel: bad ELF {what}; accepted: an undamaged static ELF64 executable for x86-64")]
    BadElf { what: &'static str },
    #[error(
        "-kernel: the image occupies {}, outside the memory for images; accepted: addresses from 100000H up to the end of RAM below 3 GiB",
        Span::new(.0)
    )]
    OutsideMemory(Range<u64>),
    #[error(
        "-m: the kernel occupies {} and does not fit into {} of RAM; accepted: at least {} MiB",
        Span::new(.kernel), Size(*.ram), .needed.div_ceil(MIB)
    )]
    RamTooSmall { kernel: Range<u64>, ram: u64, needed: u64 },
    #[error("-initrd: the file is empty; accepted: a cpio archive, or no -initrd")]
    EmptyInitrd,
    #[error(
        "-initrd: {size} bytes do not fit beside the kernel; accepted: at most {available} bytes{}",
        match .needed { Some(bytes) => format!(", or -m of at least {} MiB", bytes.div_ceil(MIB)), None => String::new() }
    )]
    InitrdTooBig { size: u64, available: u64, needed: Option<u64> },
    #[error("-append: command line of {length} bytes; this kernel accepts at most {limit}")]
    CommandLineTooLong { length: usize, limit: usize },
    #[error("-append: the command line has a NUL byte; accepted: text without NUL")]
    CommandLineNul,
}

/// A kernel of either format, checked but not placed.
enum Kernel<'a> {
    BzImage(BzImage<'a>),
    Elf(Executable<'a>),
}

impl<'a> Kernel<'a> {
    fn parse(file: &'a [u8]) -> Result<Kernel<'a>, LoadError> {
        if file.is_empty() {
            Err(LoadError::EmptyKernel)
        } else if is_elf(file) {
            Executable::parse(file).map(Kernel::Elf)
        } else if is_bzimage(file) {
            BzImage::parse(file).map(Kernel::BzImage)
        } else {
            Err(LoadError::UnknownFormat)
        }
    }

    fn footprint(&self) -> Result<Range<u64>, LoadError> {
        match self {
            Kernel::BzImage(image) => image.footprint().ok_or(LoadError::BadSetupHeader { field: "init_size" }),
            Kernel::Elf(image) => Ok(image.footprint()),
        }
    }

    fn entry(&self) -> u64 {
        match self {
            Kernel::BzImage(image) => image.pref_address + bzimage::ENTRY_64,
            Kernel::Elf(image) => image.entry,
        }
    }

    fn initrd_addr_max(&self) -> u32 {
        match self {
            Kernel::BzImage(image) => image.initrd_addr_max,
            Kernel::Elf(_) => default_header::INITRD_ADDR_MAX,
        }
    }

    fn cmdline_size(&self) -> u32 {
        match self {
            Kernel::BzImage(image) => image.cmdline_size,
            Kernel::Elf(_) => default_header::CMDLINE_SIZE,
        }
    }

    fn write(&self, cpu: &mut dyn BootCpu) {
        match self {
            Kernel::BzImage(image) => cpu.write_phys(image.pref_address, image.code),
            Kernel::Elf(image) => {
                for segment in &image.segments {
                    cpu.write_phys(segment.range.start, segment.data);
                    // DRAM that nobody wrote decrypts to noise, so zeros have to be stored.
                    zero(cpu, segment.range.start + segment.data.len() as u64..segment.range.end);
                }
            }
        }
    }
}

/// Loads the images through the processor's own memory path and sets the processor up to start them.
///
/// Nothing is written unless everything fits.
pub fn boot_linux(cpu: &mut dyn BootCpu, bios: &mut Bios, images: &Images) -> Result<BootInfo, LoadError> {
    let kernel = Kernel::parse(images.kernel)?;
    let area = kernel.footprint()?;
    check_area(bios, &area)?;
    check_command_line(images.cmdline, kernel.cmdline_size())?;
    let initrd = match images.initrd {
        Some(data) => Some(place_initrd(bios, data, &area, kernel.initrd_addr_max())?),
        None => None,
    };

    kernel.write(cpu);
    if let (Some(data), Some(range)) = (images.initrd, &initrd) {
        cpu.write_phys(range.start, data);
    }
    let mut command_line = images.cmdline.as_bytes().to_vec();
    command_line.push(0);
    cpu.write_phys(layout::COMMAND_LINE.start, &command_line);
    cpu.write_phys(layout::ZERO_PAGE, &build_zero_page(bios, &kernel, initrd.as_ref()));
    write_tables(cpu);
    cpu.enter(entry_state(kernel.entry()));

    let (format, version) = match &kernel {
        Kernel::BzImage(image) => (ImageFormat::BzImage, image.version.clone()),
        Kernel::Elf(_) => (ImageFormat::Elf64, None),
    };
    let info = BootInfo { format, version, kernel: area, entry: kernel.entry(), initrd, zero_page: layout::ZERO_PAGE };
    report(bios, &info, images);
    Ok(info)
}

fn report(bios: &mut Bios, info: &BootInfo, images: &Images) {
    let what = match (info.format, &info.version) {
        (ImageFormat::BzImage, Some(version)) => format!("bzImage, Linux {version}"),
        (ImageFormat::BzImage, None) => "bzImage".into(),
        (ImageFormat::Elf64, _) => "ELF64 executable".into(),
    };
    bios.log.line(format!("Boot: {what}, {}", Span::new(&info.kernel)));
    if let Some(initrd) = &info.initrd {
        bios.log.line(format!("Boot: initrd {} ({} bytes)", Span::new(initrd), initrd.end - initrd.start));
    }
    if !images.cmdline.is_empty() {
        bios.log.line(format!("Boot: command line \"{}\"", images.cmdline));
    }
    bios.log.line(format!("Boot: 64-bit entry at {:X}", info.entry));
}

fn check_area(bios: &Bios, area: &Range<u64>) -> Result<(), LoadError> {
    let usable = bios.memory.image_area();
    let reserve = bios.memory.low_top() - usable.end;
    // Beyond the largest low RAM no -m helps.
    if area.start < usable.start || area.end > LOW_RAM_LIMIT - reserve {
        return Err(LoadError::OutsideMemory(area.clone()));
    }
    if area.end > usable.end {
        let needed = area.end + reserve;
        return Err(LoadError::RamTooSmall { kernel: area.clone(), ram: bios.memory.ram(), needed });
    }
    Ok(())
}

fn check_command_line(text: &str, kernel_limit: u32) -> Result<(), LoadError> {
    if text.as_bytes().contains(&0) {
        return Err(LoadError::CommandLineNul);
    }
    let room = layout::COMMAND_LINE.end - layout::COMMAND_LINE.start - 1;
    let limit = (kernel_limit as usize).min(room as usize);
    if text.len() > limit {
        return Err(LoadError::CommandLineTooLong { length: text.len(), limit });
    }
    Ok(())
}

/// As high as the kernel and low RAM allow, page-aligned, clear of the kernel; below the kernel if there is no room above.
fn place_initrd(bios: &Bios, data: &[u8], kernel: &Range<u64>, addr_max: u32) -> Result<Range<u64>, LoadError> {
    if data.is_empty() {
        return Err(LoadError::EmptyInitrd);
    }
    let size = data.len() as u64;
    let usable = bios.memory.image_area();
    let limit = u64::from(addr_max) + 1;
    let gaps = [kernel.end.next_multiple_of(PAGE)..usable.end.min(limit), IMAGE_BASE..kernel.start.min(limit)];
    for gap in &gaps {
        let start = gap.end.saturating_sub(size) & !(PAGE - 1);
        if size <= gap.end && start >= gap.start {
            return Ok(start..start + size);
        }
    }
    let available = gaps.iter().map(|gap| (gap.end & !(PAGE - 1)).saturating_sub(gap.start)).max().unwrap_or(0);
    let end = gaps[0].start + size.next_multiple_of(PAGE);
    let reserve = bios.memory.low_top() - usable.end;
    let needed = (end <= limit && end + reserve <= LOW_RAM_LIMIT).then_some(end + reserve);
    Err(LoadError::InitrdTooBig { size, available, needed })
}

fn build_zero_page(bios: &Bios, kernel: &Kernel, initrd: Option<&Range<u64>>) -> Vec<u8> {
    let mut page = vec![0u8; zero_page::BYTES];
    let mut put = |at: usize, bytes: &[u8]| page[at..at + bytes.len()].copy_from_slice(bytes);
    let loadflags = match kernel {
        Kernel::BzImage(image) => {
            put(offset::SETUP_SECTS, image.header);
            put(offset::CODE32_START, &(image.pref_address as u32).to_le_bytes());
            image.loadflags & !(bzimage::KEEP_SEGMENTS | bzimage::CAN_USE_HEAP)
        }
        Kernel::Elf(_) => {
            put(offset::BOOT_FLAG, &bzimage::BOOT_FLAG.to_le_bytes());
            put(offset::HEADER, &bzimage::MAGIC);
            put(offset::VERSION, &default_header::VERSION.to_le_bytes());
            put(offset::KERNEL_ALIGNMENT, &default_header::KERNEL_ALIGNMENT.to_le_bytes());
            put(offset::INITRD_ADDR_MAX, &default_header::INITRD_ADDR_MAX.to_le_bytes());
            put(offset::CMDLINE_SIZE, &default_header::CMDLINE_SIZE.to_le_bytes());
            0
        }
    };
    put(offset::TYPE_OF_LOADER, &[LOADER_UNDEFINED]);
    put(offset::LOADFLAGS, &[loadflags | bzimage::LOADED_HIGH]);

    // 64-bit addresses and sizes are split into a header field and its ext_ counterpart.
    let mut split = |low: usize, high: usize, value: u64| {
        put(low, &(value as u32).to_le_bytes());
        put(high, &((value >> 32) as u32).to_le_bytes());
    };
    split(offset::CMD_LINE_PTR, zero_page::EXT_CMD_LINE_PTR, layout::COMMAND_LINE.start);
    let initrd = initrd.cloned().unwrap_or(0..0);
    split(offset::RAMDISK_IMAGE, zero_page::EXT_RAMDISK_IMAGE, initrd.start);
    split(offset::RAMDISK_SIZE, zero_page::EXT_RAMDISK_SIZE, initrd.end - initrd.start);

    put(zero_page::ACPI_RSDP_ADDR, &bios.rsdp.to_le_bytes());
    // Fewer than the 128 entries that the page has room for (see e820::table).
    put(zero_page::E820_ENTRIES, &[bios.e820.len() as u8]);
    let table: Vec<u8> = bios.e820.iter().flat_map(|entry| entry.to_bytes()).collect();
    put(zero_page::E820_TABLE, &table);
    page
}

/// GDT and identity page tables of the first 4 GiB.
fn write_tables(cpu: &mut dyn BootCpu) {
    let gdt: Vec<u8> = GDT.iter().flat_map(|d| d.to_le_bytes()).collect();
    cpu.write_phys(layout::GDT, &gdt);

    let pdpt = layout::PAGE_TABLES + PAGE;
    let directory = |gib: u64| pdpt + PAGE * (1 + gib);
    let mut tables = vec![0u64; ((2 + MAPPED_GIB) * ENTRIES) as usize];
    tables[0] = pdpt | PRESENT_WRITABLE;
    for gib in 0..MAPPED_GIB {
        tables[(ENTRIES + gib) as usize] = directory(gib) | PRESENT_WRITABLE;
    }
    for n in 0..MAPPED_GIB * GIB / LARGE_PAGE {
        tables[(2 * ENTRIES + n) as usize] = (n * LARGE_PAGE) | PRESENT_WRITABLE | PAGE_SIZE;
    }
    let bytes: Vec<u8> = tables.iter().flat_map(|entry| entry.to_le_bytes()).collect();
    cpu.write_phys(layout::PAGE_TABLES, &bytes);
}

fn entry_state(entry: u64) -> EntryState {
    let segment = |selector: u16| Segment::from_descriptor(selector, GDT[usize::from(selector / 8)]);
    let mut segments = [segment(BOOT_DS); 6];
    segments[sreg::CS] = segment(BOOT_CS);
    let mut registers = [0; 16];
    registers[gpr::RSP] = layout::STACK_TOP;
    registers[gpr::RSI] = layout::ZERO_PAGE;
    EntryState {
        gpr: registers,
        rip: entry,
        rflags: flags::FIXED,
        cr0: cr0::PE | cr0::MP | cr0::ET | cr0::NE | cr0::WP | cr0::PG,
        cr3: layout::PAGE_TABLES,
        cr4: cr4::PAE,
        efer: efer::LME | efer::LMA,
        segments,
        gdtr: DescriptorTable { base: layout::GDT, limit: size_of_val(&GDT) as u16 - 1 },
        // No handlers: an exception before the image has its own IDT is a triple fault.
        idtr: DescriptorTable::default(),
    }
}

fn zero(cpu: &mut dyn BootCpu, range: Range<u64>) {
    let zeros = vec![0u8; PAGE as usize];
    let mut at = range.start;
    while at < range.end {
        let length = (range.end - at).min(PAGE);
        cpu.write_phys(at, &zeros[..length as usize]);
        at += length;
    }
}
