//! Static ELF64 executables: an uncompressed vmlinux, or a bare-metal program.

use crate::linux::LoadError;
use object::LittleEndian;
use object::elf;
use object::read::elf::{FileHeader, ProgramHeader};
use std::ops::Range;

type Header = elf::FileHeader64<LittleEndian>;

/// One PT_LOAD segment.
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

impl<'a> Executable<'a> {
    /// Parses and checks the headers. The caller knows that [`is_elf`] holds.
    pub fn parse(file: &'a [u8]) -> Result<Executable<'a>, LoadError> {
        let truncated = |expected: usize| LoadError::Truncated { format: "ELF", expected, length: file.len() };
        // The class decides how long the header is, so it comes before the length.
        match file.get(4) {
            Some(&class) if class == elf::ELFCLASS64.0 => {}
            Some(&class) if class == elf::ELFCLASS32.0 => return Err(LoadError::Elf32),
            Some(_) => return Err(LoadError::BadElf { what: "class" }),
            None => return Err(truncated(size_of::<Header>())),
        }
        if file.len() < size_of::<Header>() {
            return Err(truncated(size_of::<Header>()));
        }
        let header = Header::parse(file).map_err(|_| LoadError::BadElf { what: "identification" })?;
        let endian = LittleEndian;
        if header.e_ident.data != elf::ELFDATA2LSB {
            return Err(LoadError::BadElf { what: "data encoding" });
        }
        let machine = header.e_machine.get(endian);
        if machine != elf::EM_X86_64 {
            return Err(LoadError::ElfMachine { machine: machine.0 });
        }
        let kind = header.e_type.get(endian);
        if kind != elf::ET_EXEC {
            return Err(LoadError::ElfType { kind: kind.0 });
        }
        let table_end = header
            .e_phoff
            .get(endian)
            .checked_add(u64::from(header.e_phnum.get(endian)) * size_of::<elf::ProgramHeader64<LittleEndian>>() as u64)
            .ok_or(LoadError::BadElf { what: "program header offset" })?;
        if table_end > file.len() as u64 {
            return Err(truncated(table_end.try_into().unwrap_or(usize::MAX)));
        }
        let program_headers =
            header.program_headers(endian, file).map_err(|_| LoadError::BadElf { what: "program header size" })?;

        let mut segments = Vec::new();
        let mut virtual_entry = None;
        let entry = header.e_entry.get(endian);
        for ph in program_headers.iter().filter(|ph| ph.p_type.get(endian) == elf::PT_LOAD) {
            let (offset, filesz, memsz) = (ph.p_offset.get(endian), ph.p_filesz.get(endian), ph.p_memsz.get(endian));
            if memsz == 0 {
                continue;
            }
            let overflow = LoadError::BadElf { what: "segment size" };
            let file_end = offset.checked_add(filesz).ok_or(overflow.clone())?;
            let data = ph.data(endian, file).map_err(|()| truncated(file_end.try_into().unwrap_or(usize::MAX)))?;
            if filesz > memsz {
                return Err(overflow);
            }
            let start = ph.p_paddr.get(endian);
            let range = start..start.checked_add(memsz).ok_or(overflow)?;
            let from_start = entry.wrapping_sub(ph.p_vaddr.get(endian));
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

    /// From the lowest to the highest address in use.
    pub fn footprint(&self) -> Range<u64> {
        let start = self.segments.iter().map(|s| s.range.start).min().unwrap_or(0);
        let end = self.segments.iter().map(|s| s.range.end).max().unwrap_or(0);
        start..end
    }
}
