//! Static ELF executables: an uncompressed vmlinux, a Multiboot or PVH kernel, or a bare-metal program.

use crate::error::LoadError;
use crate::load::zero;
use crate::platform::BootCpu;
use object::LittleEndian;
use object::elf;
use object::read::elf::{FileHeader, ProgramHeader};
use std::ops::Range;

/// One PT_LOAD segment, or what the address fields of a Multiboot header describe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Physical addresses, `.bss` included.
    pub range: Range<u64>,
    /// What the file has for it; the rest of the range is zero.
    pub data: &'a [u8],
}

/// An executable that has been checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Executable<'a> {
    /// Non-empty, in file order.
    pub segments: Vec<Segment<'a>>,
    /// Physical address of the entry point.
    pub entry: u64,
}

/// True if the file starts like an ELF file.
pub fn is_elf(file: &[u8]) -> bool {
    file.starts_with(&elf::ELFMAG)
}

/// ELF classes that a protocol has a use for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Classes {
    /// 64-bit code only.
    Elf64,
    /// Entered in 32-bit mode; what the file becomes later is its own business.
    Any,
}

/// XEN_ELFNOTE_PHYS32_ENTRY (Xen xen/include/public/elfnote.h).
const XEN_NOTE_NAME: &[u8] = b"Xen";
const XEN_ELFNOTE_PHYS32_ENTRY: u32 = 18;

impl<'a> Executable<'a> {
    /// Parses and checks the headers. The caller knows that [`is_elf`] holds.
    ///
    /// # Errors
    /// Classes, machines and types other than asked for; headers that contradict themselves or the file's length.
    pub fn parse(file: &'a [u8], classes: Classes) -> Result<Executable<'a>, LoadError> {
        match class(file)? {
            Class::Elf64 => parse::<elf::FileHeader64<LittleEndian>>(file, classes),
            Class::Elf32 if classes == Classes::Any => parse::<elf::FileHeader32<LittleEndian>>(file, classes),
            Class::Elf32 => Err(LoadError::Elf32),
        }
    }

    /// Writes the segments, zeros included.
    pub fn write(&self, cpu: &mut dyn BootCpu) {
        for segment in &self.segments {
            cpu.write_phys(segment.range.start, segment.data);
            zero(cpu, segment.range.start + segment.data.len() as u64..segment.range.end);
        }
    }

    /// From the lowest to the highest address in use.
    pub fn footprint(&self) -> Range<u64> {
        let start = self.segments.iter().map(|s| s.range.start).min().unwrap_or(0);
        let end = self.segments.iter().map(|s| s.range.end).max().unwrap_or(0);
        start..end
    }
}

/// The entry point that a PVH note names, physical; `None` without such a note. The caller knows that [`is_elf`] holds.
///
/// # Errors
/// Damaged headers, or a note whose contents are no address.
pub fn pvh_entry(file: &[u8]) -> Result<Option<u32>, LoadError> {
    match class(file)? {
        Class::Elf64 => find_pvh_note::<elf::FileHeader64<LittleEndian>>(file),
        Class::Elf32 => find_pvh_note::<elf::FileHeader32<LittleEndian>>(file),
    }
}

enum Class {
    Elf32,
    Elf64,
}

fn class(file: &[u8]) -> Result<Class, LoadError> {
    // The class decides how long the header is, so it comes before the length.
    let (class, length) = match file.get(4) {
        Some(&class) if class == elf::ELFCLASS64.0 => (Class::Elf64, size_of::<elf::FileHeader64<LittleEndian>>()),
        Some(&class) if class == elf::ELFCLASS32.0 => (Class::Elf32, size_of::<elf::FileHeader32<LittleEndian>>()),
        Some(_) => return Err(LoadError::BadElf { what: "class" }),
        None => return Err(truncated(file, size_of::<elf::FileHeader32<LittleEndian>>() as u64)),
    };
    if file.len() < length { Err(truncated(file, length as u64)) } else { Ok(class) }
}

fn truncated(file: &[u8], expected: u64) -> LoadError {
    LoadError::Truncated { format: "ELF", expected: expected.try_into().unwrap_or(usize::MAX), length: file.len() }
}

/// Header and program headers. The caller knows that the file is as long as the header.
fn headers<H>(file: &[u8]) -> Result<(&H, &[H::ProgramHeader]), LoadError>
where
    H: FileHeader<Endian = LittleEndian>,
{
    let header = H::parse(file).map_err(|_| LoadError::BadElf { what: "identification" })?;
    if header.e_ident().data != elf::ELFDATA2LSB {
        return Err(LoadError::BadElf { what: "data encoding" });
    }
    let offset: u64 = header.e_phoff(LittleEndian).into();
    let table_end = offset
        .checked_add(u64::from(header.e_phnum(LittleEndian)) * size_of::<H::ProgramHeader>() as u64)
        .ok_or(LoadError::BadElf { what: "program header offset" })?;
    if table_end > file.len() as u64 {
        return Err(truncated(file, table_end));
    }
    let program_headers =
        header.program_headers(LittleEndian, file).map_err(|_| LoadError::BadElf { what: "program header size" })?;
    Ok((header, program_headers))
}

fn parse<H>(file: &[u8], classes: Classes) -> Result<Executable<'_>, LoadError>
where
    H: FileHeader<Endian = LittleEndian>,
{
    let endian = LittleEndian;
    let (header, program_headers) = headers::<H>(file)?;
    let machine = header.e_machine(endian);
    match classes {
        _ if machine == elf::EM_X86_64 => {}
        Classes::Any if machine == elf::EM_386 => {}
        Classes::Any => {
            return Err(LoadError::ElfMachine { machine: machine.0, accepted: "x86-64 (62) or 80386 (3)" });
        }
        Classes::Elf64 => {
            return Err(LoadError::ElfMachine { machine: machine.0, accepted: "x86-64 (machine 62)" });
        }
    }
    let kind = header.e_type(endian);
    if kind != elf::ET_EXEC {
        return Err(LoadError::ElfType { kind: kind.0 });
    }

    let mut segments = Vec::new();
    let mut virtual_entry = None;
    let entry: u64 = header.e_entry(endian).into();
    for ph in program_headers.iter().filter(|ph| ph.p_type(endian) == elf::PT_LOAD) {
        let (offset, filesz): (u64, u64) = (ph.p_offset(endian).into(), ph.p_filesz(endian).into());
        let memsz: u64 = ph.p_memsz(endian).into();
        if memsz == 0 {
            continue;
        }
        let overflow = LoadError::BadElf { what: "segment size" };
        let file_end = offset.checked_add(filesz).ok_or(overflow.clone())?;
        let data = ph.data(endian, file).map_err(|()| truncated(file, file_end))?;
        if filesz > memsz {
            return Err(overflow);
        }
        let start: u64 = ph.p_paddr(endian).into();
        let range = start..start.checked_add(memsz).ok_or(overflow)?;
        let from_start = entry.wrapping_sub(ph.p_vaddr(endian).into());
        if from_start < memsz {
            virtual_entry = Some(start + from_start);
        }
        segments.push(Segment { range, data });
    }
    if segments.is_empty() {
        return Err(LoadError::BadElf { what: "program headers (nothing to load)" });
    }
    // Overlapping segments have no meaning, and many of them would make loading arbitrarily long.
    let mut ranges: Vec<&Range<u64>> = segments.iter().map(|s| &s.range).collect();
    ranges.sort_by_key(|range| range.start);
    if ranges.windows(2).any(|pair| pair[0].end > pair[1].start) {
        return Err(LoadError::BadElf { what: "program headers (segments overlap)" });
    }
    // vmlinux has its entry point as a physical address already; a program linked elsewhere has a virtual one.
    let entry = if segments.iter().any(|s| s.range.contains(&entry)) {
        entry
    } else {
        virtual_entry.ok_or(LoadError::BadElf { what: "entry point (outside every segment)" })?
    };
    Ok(Executable { segments, entry })
}

fn find_pvh_note<H>(file: &[u8]) -> Result<Option<u32>, LoadError>
where
    H: FileHeader<Endian = LittleEndian>,
{
    let damaged = |_| LoadError::BadElf { what: "note" };
    let (_, program_headers) = headers::<H>(file)?;
    for ph in program_headers {
        let Some(mut notes) = ph.notes(LittleEndian, file).map_err(damaged)? else { continue };
        while let Some(note) = notes.next().map_err(damaged)? {
            if note.name() != XEN_NOTE_NAME || note.n_type(LittleEndian).0 != XEN_ELFNOTE_PHYS32_ENTRY {
                continue;
            }
            // A number as wide as the file's class makes it, or 32 bits.
            let entry = match *note.desc() {
                [a, b, c, d] => u32::from_le_bytes([a, b, c, d]),
                [a, b, c, d, 0, 0, 0, 0] => u32::from_le_bytes([a, b, c, d]),
                [_, _, _, _, _, _, _, _] => return Err(LoadError::BadPvh { what: "entry point beyond 4 GiB" }),
                _ => return Err(LoadError::BadPvh { what: "neither 4 nor 8 bytes long" }),
            };
            return Ok(Some(entry));
        }
    }
    Ok(None)
}
