//! What to boot, which protocol it speaks, and what all protocols have in common: checks, placement, the boot information.
//!
//! Nothing is written before everything is known to fit.

use crate::Bios;
use crate::bzimage::is_bzimage;
use crate::elf::{self, is_elf};
use crate::entry::layout;
use crate::error::LoadError;
use crate::log::Span;
use crate::memory_map::{IMAGE_BASE, LOW_RAM_LIMIT, PAGE};
use crate::platform::BootCpu;
use crate::{flat, linux, multiboot1, multiboot2, pvh};
use std::ops::Range;
use std::str::FromStr;

/// A file of `-initrd`: Linux' initial RAM disk, or one of a Multiboot or PVH kernel's modules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Module<'a> {
    /// The file's name as the user wrote it.
    pub name: &'a str,
    /// What followed the name; may be empty.
    pub arguments: &'a str,
    pub data: &'a [u8],
}

/// How a kernel is loaded and entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// bzImage, or an ELF64 executable entered as Linux' 64-bit boot protocol has it.
    Linux,
    Multiboot1,
    Multiboot2,
    /// Xen's PVH entry (ELF note XEN_ELFNOTE_PHYS32_ENTRY).
    Pvh,
    /// A file without headers.
    Flat(Flat),
}

/// Where a file without headers goes, and how it is entered (at its first byte).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flat {
    pub address: u64,
    pub mode: Mode,
}

/// Mode in which a flat image is entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Real-address mode, as a BIOS enters a boot sector.
    Real16,
    /// Protected mode without paging, as in Linux' 32-bit boot protocol.
    Prot32,
    /// 64-bit mode, as in Linux' 64-bit boot protocol.
    Long64,
}

impl FromStr for Mode {
    type Err = LoadError;

    fn from_str(text: &str) -> Result<Mode, LoadError> {
        match text {
            "real16" => Ok(Mode::Real16),
            "prot32" => Ok(Mode::Prot32),
            "long64" => Ok(Mode::Long64),
            _ => Err(LoadError::UnknownMode(text.into())),
        }
    }
}

impl Protocol {
    /// `--protocol`; `None` for `auto`.
    ///
    /// # Errors
    /// A name that is none of the protocols'.
    pub fn from_name(text: &str) -> Result<Option<Protocol>, LoadError> {
        match text {
            "auto" => Ok(None),
            "linux" => Ok(Some(Protocol::Linux)),
            "multiboot" => Ok(Some(Protocol::Multiboot1)),
            "multiboot2" => Ok(Some(Protocol::Multiboot2)),
            "pvh" => Ok(Some(Protocol::Pvh)),
            _ => Err(LoadError::UnknownProtocol(text.into())),
        }
    }

    /// By content. A kernel that speaks several protocols gets the first of: bzImage, Multiboot 2, Multiboot 1, PVH, ELF.
    ///
    /// # Errors
    /// A file that is no kernel, or an ELF file whose headers are damaged.
    pub fn detect(file: &[u8]) -> Result<Protocol, LoadError> {
        if file.is_empty() {
            Err(LoadError::EmptyKernel)
        } else if is_bzimage(file) {
            Ok(Protocol::Linux)
        } else if multiboot2::find_header(file).is_some() {
            Ok(Protocol::Multiboot2)
        } else if multiboot1::find_header(file).is_some() {
            Ok(Protocol::Multiboot1)
        } else if is_elf(file) {
            Ok(if elf::pvh_entry(file)?.is_some() { Protocol::Pvh } else { Protocol::Linux })
        } else {
            Err(LoadError::UnknownFormat)
        }
    }
}

/// What to boot.
#[derive(Debug, Clone, Default)]
pub struct Images<'a> {
    pub kernel: &'a [u8],
    /// The kernel file's name; Multiboot kernels expect it as the first word of their command line.
    pub kernel_name: &'a str,
    /// Files of `-initrd`, in order.
    pub modules: Vec<Module<'a>>,
    pub cmdline: &'a str,
    /// `None`: the kernel's contents decide ([`Protocol::detect`]).
    pub protocol: Option<Protocol>,
}

/// Kernel formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageFormat {
    BzImage,
    Elf64,
    Multiboot1,
    Multiboot2,
    Pvh,
    Flat,
}

/// Where everything went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootInfo {
    pub format: ImageFormat,
    /// Linux' release string, if the image tells.
    pub version: Option<String>,
    /// Memory the kernel needs, physical.
    pub kernel: Range<u64>,
    /// First instruction, physical (and linear: segments are flat, and the mapping, if there is one, is the identity).
    pub entry: u64,
    /// Mode at the entry.
    pub mode: Mode,
    /// The initrd, or the modules in order.
    pub modules: Vec<Range<u64>>,
    /// Zero page, Multiboot information or hvm_start_info; 0 for a boot sector, which gets none.
    pub info: u64,
}

/// Loads the images through the processor's own memory path and sets the processor up to start them.
///
/// # Errors
/// Images that no protocol accepts or that do not fit. Nothing has been written then.
pub fn boot(cpu: &mut dyn BootCpu, bios: &mut Bios, images: &Images) -> Result<BootInfo, LoadError> {
    if images.kernel.is_empty() {
        return Err(LoadError::EmptyKernel);
    }
    let protocol = match images.protocol {
        Some(protocol) => protocol,
        None => Protocol::detect(images.kernel)?,
    };
    let info = match protocol {
        Protocol::Linux => linux::boot(cpu, bios, images)?,
        Protocol::Multiboot1 => multiboot1::boot(cpu, bios, images)?,
        Protocol::Multiboot2 => multiboot2::boot(cpu, bios, images)?,
        Protocol::Pvh => pvh::boot(cpu, bios, images)?,
        Protocol::Flat(flat) => flat::boot(cpu, bios, images, flat)?,
    };
    report(bios, &info, images);
    Ok(info)
}

fn report(bios: &mut Bios, info: &BootInfo, images: &Images) {
    let what = match (info.format, &info.version) {
        (ImageFormat::BzImage, Some(version)) => format!("bzImage, Linux {version}"),
        (ImageFormat::BzImage, None) => "bzImage".into(),
        (ImageFormat::Elf64, _) => "ELF64 executable".into(),
        (ImageFormat::Multiboot1, _) => "Multiboot 1 kernel".into(),
        (ImageFormat::Multiboot2, _) => "Multiboot 2 kernel".into(),
        (ImageFormat::Pvh, _) => "PVH kernel".into(),
        (ImageFormat::Flat, _) => "flat image".into(),
    };
    bios.log.line(format!("Boot: {what}, {}", Span::new(&info.kernel)));
    let linux = matches!(info.format, ImageFormat::BzImage | ImageFormat::Elf64 | ImageFormat::Flat);
    for (module, range) in images.modules.iter().zip(&info.modules) {
        let what = if linux { "initrd".into() } else { format!("module \"{}\"", words(module.name, module.arguments)) };
        bios.log.line(format!("Boot: {what} {} ({} bytes)", Span::new(range), range.end - range.start));
    }
    if !images.cmdline.is_empty() {
        bios.log.line(format!("Boot: command line \"{}\"", images.cmdline));
    }
    let mode = match info.mode {
        Mode::Real16 => "16-bit",
        Mode::Prot32 => "32-bit",
        Mode::Long64 => "64-bit",
    };
    bios.log.line(format!("Boot: {mode} entry at {:X}", info.entry));
}

/// The non-empty ones of two texts, with a space between them.
pub(crate) fn words(first: &str, second: &str) -> String {
    let separator = if first.is_empty() || second.is_empty() { "" } else { " " };
    [first, separator, second].concat()
}

/// Whether the image lies where images may.
pub(crate) fn check_area(bios: &Bios, area: &Range<u64>) -> Result<(), LoadError> {
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

/// Texts become NUL-terminated strings.
pub(crate) fn check_texts(images: &Images) -> Result<(), LoadError> {
    if images.cmdline.contains('\0') || images.kernel_name.contains('\0') {
        return Err(LoadError::CommandLineNul);
    }
    if images.modules.iter().any(|m| m.name.contains('\0') || m.arguments.contains('\0')) {
        return Err(LoadError::ModuleNul);
    }
    Ok(())
}

/// Page-aligned, one after the other, as low above the kernel as possible: kernels that map little of memory at first
/// find them there, as after other boot loaders. Below the kernel if there is no room above.
pub(crate) fn place_modules(
    bios: &Bios,
    modules: &[Module],
    kernel: &Range<u64>,
) -> Result<Vec<Range<u64>>, LoadError> {
    if let Some(empty) = modules.iter().find(|m| m.data.is_empty()) {
        return Err(LoadError::EmptyModule { name: empty.name.into() });
    }
    let size: u64 = modules.iter().map(|m| (m.data.len() as u64).next_multiple_of(PAGE)).sum();
    let usable = bios.memory.image_area();
    let gaps = [kernel.end.next_multiple_of(PAGE)..usable.end, IMAGE_BASE..kernel.start];
    let room = |gap: &Range<u64>| gap.end.saturating_sub(gap.start);
    let Some(gap) = gaps.iter().find(|gap| size <= room(gap)) else {
        let available = gaps.iter().map(room).max().unwrap_or(0);
        let end = gaps[0].start + size + (bios.memory.low_top() - usable.end);
        let needed = (end <= LOW_RAM_LIMIT).then_some(end);
        return Err(LoadError::InitrdTooBig { size, available, needed });
    };
    let mut start = gap.start;
    let place = |module: &Module| {
        let range = start..start + module.data.len() as u64;
        start = range.end.next_multiple_of(PAGE);
        range
    };
    Ok(modules.iter().map(place).collect())
}

/// Writes the modules where [`place_modules`] put them.
pub(crate) fn write_modules(cpu: &mut dyn BootCpu, modules: &[Module], ranges: &[Range<u64>]) {
    for (module, range) in modules.iter().zip(ranges) {
        cpu.write_phys(range.start, module.data);
    }
}

/// Stores zeros. DRAM that nobody wrote decrypts to noise.
pub(crate) fn zero(cpu: &mut dyn BootCpu, range: Range<u64>) {
    let zeros = vec![0u8; PAGE as usize];
    let mut at = range.start;
    while at < range.end {
        let length = (range.end - at).min(PAGE);
        cpu.write_phys(at, &zeros[..length as usize]);
        at += length;
    }
}

/// Boot information under construction: pieces with pointers to each other, in [`layout::INFO`].
#[derive(Debug, Default)]
pub(crate) struct Info {
    bytes: Vec<u8>,
}

impl Info {
    /// Appends a piece at a multiple of `align` (a power of two); returns its physical address.
    pub fn put(&mut self, align: usize, piece: &[u8]) -> u64 {
        self.bytes.resize(self.bytes.len().next_multiple_of(align), 0);
        let address = layout::INFO.start + self.bytes.len() as u64;
        self.bytes.extend(piece);
        address
    }

    /// Appends a NUL-terminated string.
    pub fn put_text(&mut self, text: &str) -> u64 {
        let address = self.put(1, text.as_bytes());
        self.bytes.push(0);
        address
    }

    /// Overwrites what [`Info::put`] placed at `address`.
    pub fn set(&mut self, address: u64, piece: &[u8]) {
        let at = (address - layout::INFO.start) as usize;
        self.bytes[at..at + piece.len()].copy_from_slice(piece);
    }

    /// The finished bytes, to be written at the start of [`layout::INFO`].
    pub fn finish(self) -> Result<Vec<u8>, LoadError> {
        let (needed, limit) = (self.bytes.len() as u64, layout::INFO.end - layout::INFO.start);
        if needed > limit { Err(LoadError::InfoTooBig { needed, limit }) } else { Ok(self.bytes) }
    }
}
