//! Linux' boot protocol (Linux Documentation/arch/x86/boot.rst): the 64-bit entry, and the 32-bit one of a bzImage that has
//! no other.
//!
//! A bare-metal ELF64 is entered as a 64-bit vmlinux is: identity-mapped 64-bit mode, interrupts off, RSI pointing at the
//! zero page.

use crate::Bios;
use crate::bzimage::{self, BzImage, is_bzimage, offset};
use crate::elf::{Classes, Executable, is_elf};
use crate::entry::{self, layout};
use crate::error::LoadError;
use crate::load::{BootInfo, ImageFormat, Images, Mode, check_area, check_texts};
use crate::memory_map::{IMAGE_BASE, LOW_RAM_LIMIT, PAGE};
use crate::platform::{BootCpu, gpr};
use std::ops::Range;

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
/// A kernel of either format, checked but not placed.
pub(crate) enum Kernel<'a> {
    BzImage(BzImage<'a>),
    Elf(Executable<'a>),
}

impl<'a> Kernel<'a> {
    fn parse(file: &'a [u8]) -> Result<Kernel<'a>, LoadError> {
        if is_bzimage(file) {
            BzImage::parse(file).map(Kernel::BzImage)
        } else if is_elf(file) {
            Executable::parse(file, Classes::Elf64).map(Kernel::Elf)
        } else {
            let missing = "neither the setup header of a bzImage nor an ELF header";
            Err(LoadError::NotThisProtocol {
                asked: "linux",
                missing,
                accepted: "a bzImage or a static ELF64 executable for x86-64",
            })
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
            Kernel::BzImage(image) if image.entry_64 => image.pref_address + bzimage::ENTRY_64,
            Kernel::BzImage(image) => image.pref_address,
            Kernel::Elf(image) => image.entry,
        }
    }

    fn mode(&self) -> Mode {
        match self {
            Kernel::BzImage(image) if !image.entry_64 => Mode::Prot32,
            Kernel::BzImage(_) | Kernel::Elf(_) => Mode::Long64,
        }
    }

    fn limits(&self) -> Limits {
        match self {
            Kernel::BzImage(image) => {
                Limits { initrd_addr_max: image.initrd_addr_max, cmdline_size: image.cmdline_size }
            }
            Kernel::Elf(_) => DEFAULT_LIMITS,
        }
    }

    fn write(&self, cpu: &mut dyn BootCpu) {
        match self {
            Kernel::BzImage(image) => cpu.write_phys(image.pref_address, image.code),
            Kernel::Elf(image) => image.write(cpu),
        }
    }
}

/// Loads a bzImage or an ELF64 executable with its zero page.
///
/// # Errors
/// As [`crate::boot`].
pub fn boot(cpu: &mut dyn BootCpu, bios: &mut Bios, images: &Images) -> Result<BootInfo, LoadError> {
    let kernel = Kernel::parse(images.kernel)?;
    let area = kernel.footprint()?;
    check_area(bios, &area)?;
    let initrd = check_and_place(bios, images, &area, kernel.limits())?;

    kernel.write(cpu);
    write_hand_over(cpu, bios, images, initrd.as_ref(), Some(&kernel));
    let entry = kernel.entry();
    let mode = kernel.mode();
    let mut state = match mode {
        Mode::Long64 => entry::long64(cpu, entry),
        Mode::Real16 | Mode::Prot32 => entry::prot32(cpu, entry),
    };
    state.gpr[gpr::RSI] = layout::ZERO_PAGE;
    cpu.enter(state);

    let (format, version) = match &kernel {
        Kernel::BzImage(image) => (ImageFormat::BzImage, image.version.clone()),
        Kernel::Elf(_) => (ImageFormat::Elf64, None),
    };
    let modules = initrd.into_iter().collect();
    Ok(BootInfo { format, version, kernel: area, entry, mode, modules, info: layout::ZERO_PAGE })
}

/// What a kernel's setup header allows.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    initrd_addr_max: u32,
    cmdline_size: u32,
}

/// Of an image that brings no setup header.
pub(crate) const DEFAULT_LIMITS: Limits =
    Limits { initrd_addr_max: default_header::INITRD_ADDR_MAX, cmdline_size: default_header::CMDLINE_SIZE };

/// Checks command line and initrd; returns where the initrd goes.
pub(crate) fn check_and_place(
    bios: &Bios,
    images: &Images,
    kernel: &Range<u64>,
    limits: Limits,
) -> Result<Option<Range<u64>>, LoadError> {
    check_texts(images)?;
    check_command_line(images.cmdline, limits.cmdline_size)?;
    match images.modules.as_slice() {
        [] => Ok(None),
        [initrd] if initrd.arguments.is_empty() => {
            place_initrd(bios, initrd.data, kernel, limits.initrd_addr_max).map(Some)
        }
        [initrd] => Err(LoadError::InitrdArguments { arguments: initrd.arguments.into() }),
        modules => Err(LoadError::TooManyModules { given: modules.len(), accepted: "one" }),
    }
}

/// Writes initrd, command line and zero page. `kernel` is `None` for a flat image.
pub(crate) fn write_hand_over(
    cpu: &mut dyn BootCpu,
    bios: &Bios,
    images: &Images,
    initrd: Option<&Range<u64>>,
    kernel: Option<&Kernel>,
) {
    if let (Some(module), Some(range)) = (images.modules.first(), initrd) {
        cpu.write_phys(range.start, module.data);
    }
    let mut command_line = images.cmdline.as_bytes().to_vec();
    command_line.push(0);
    cpu.write_phys(layout::COMMAND_LINE.start, &command_line);
    cpu.write_phys(layout::ZERO_PAGE, &build_zero_page(bios, kernel, initrd));
}

fn check_command_line(text: &str, kernel_limit: u32) -> Result<(), LoadError> {
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

fn build_zero_page(bios: &Bios, kernel: Option<&Kernel>, initrd: Option<&Range<u64>>) -> Vec<u8> {
    let mut page = vec![0u8; zero_page::BYTES];
    let mut put = |at: usize, bytes: &[u8]| page[at..at + bytes.len()].copy_from_slice(bytes);
    let loadflags = match kernel {
        Some(Kernel::BzImage(image)) => {
            put(offset::SETUP_SECTS, image.header);
            put(offset::CODE32_START, &(image.pref_address as u32).to_le_bytes());
            image.loadflags & !(bzimage::KEEP_SEGMENTS | bzimage::CAN_USE_HEAP)
        }
        Some(Kernel::Elf(_)) | None => {
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
