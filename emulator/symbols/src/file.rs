//! Symbol files: System.map and ELF.

use crate::guest::printable;
use crate::table::Table;
use object::{Object, ObjectSection, ObjectSymbol, SymbolKind, elf};
use thiserror::Error;

/// Lines or symbols, more of which no kernel has.
const SYMBOLS_MAX: usize = 1 << 22;
/// Length of a kernel's banner that is compared.
const BANNER_MAX: usize = 512;
const BANNER: &str = "linux_banner";

/// Why a file is of no use.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum FileError {
    #[error("line {0}: not an address, a type and a name")]
    Line(usize),
    #[error("no symbols in it{}", if *.stub { ": it is Debian's stub, and the real one is in the package linux-image-...-dbg" } else { "" })]
    Empty { stub: bool },
    #[error("damaged ELF file: {0}")]
    Elf(String),
    #[error("an ELF file without a symbol table (.symtab); it was stripped")]
    Stripped,
}

/// What is accepted, for messages.
pub const ACCEPTED: &str = "a System.map, or an ELF file with a symbol table (vmlinux)";

/// A file that has been read.
#[derive(Debug, Clone)]
pub struct SymbolFile {
    /// Addresses as linked.
    pub table: Table,
    /// The kernel's `linux_banner`, where the file has its text.
    pub banner: Option<Vec<u8>>,
    /// It has `_text` and `entry_SYSCALL_64`: a Linux kernel, which may run elsewhere than it was linked for.
    pub linux: bool,
}

impl SymbolFile {
    /// Reads either kind.
    ///
    /// # Errors
    /// A file that is neither, or has no symbols.
    pub fn parse(bytes: &[u8]) -> Result<SymbolFile, FileError> {
        let (table, banner) =
            if bytes.starts_with(&elf::ELFMAG) { parse_elf(bytes)? } else { (system_map(bytes)?, None) };
        if table.is_empty() {
            return Err(FileError::Empty { stub: contains(bytes, b"dbg") });
        }
        let linux = table.address("_text").is_some() && table.address("entry_SYSCALL_64").is_some();
        Ok(SymbolFile { table, banner, linux })
    }
}

fn contains(bytes: &[u8], word: &[u8]) -> bool {
    bytes.windows(word.len()).any(|w| w == word)
}

/// `ffffffff81000000 T _text`
fn system_map(bytes: &[u8]) -> Result<Table, FileError> {
    let mut table = Table::default();
    for (index, line) in bytes.split(|b| *b == b'\n').enumerate().take(SYMBOLS_MAX) {
        let error = FileError::Line(index + 1);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            continue;
        }
        let line = std::str::from_utf8(line).map_err(|_| error)?;
        let mut words = line.split_ascii_whitespace();
        let (address, ty, name, rest) = (words.next(), words.next(), words.next(), words.next());
        let parsed = address.filter(|a| a.bytes().all(|b| b.is_ascii_hexdigit()));
        let parsed = parsed.and_then(|a| u64::from_str_radix(a, 16).ok());
        match (parsed, ty, name, rest) {
            // /proc/kallsyms has a module's name after the symbol's; a module's place in another boot is of no use.
            (Some(_), Some(_), Some(_), Some(_)) => {}
            (Some(address), Some(ty), Some(name), None) if ty.len() == 1 => {
                if !matches!(ty, "a" | "A" | "U" | "u" | "w") {
                    table.push(address, 0, &printable(name.as_bytes()));
                }
            }
            // Debian's package has one line of text.
            _ if index == 0 && contains(line.as_bytes(), b"dbg") => return Err(FileError::Empty { stub: true }),
            _ => return Err(FileError::Line(index + 1)),
        }
    }
    table.sort();
    Ok(table)
}

fn parse_elf(bytes: &[u8]) -> Result<(Table, Option<Vec<u8>>), FileError> {
    let damaged = |e: object::Error| FileError::Elf(e.to_string());
    let file = object::File::parse(bytes).map_err(damaged)?;
    let mut banner = None;
    let mut entries = Vec::new();
    for symbol in file.symbols().take(SYMBOLS_MAX) {
        let name = String::from_utf8_lossy(symbol.name_bytes().map_err(damaged)?);
        let code_or_data =
            matches!(symbol.kind(), SymbolKind::Text | SymbolKind::Data | SymbolKind::Unknown | SymbolKind::Label);
        if !code_or_data || name.is_empty() || symbol.section_index().is_none() {
            continue;
        }
        let address = symbol.address();
        if name == BANNER {
            banner = file.sections().find_map(|section| text_at(&section, address));
        }
        let function = symbol.kind() == SymbolKind::Text;
        entries.push((address, !function, if function { symbol.size() } else { 0 }, demangled(&name)));
    }
    if entries.is_empty() {
        return Err(FileError::Stripped);
    }
    // A function's name before a label's at the same address.
    entries.sort_by_key(|(address, label, ..)| (*address, *label));
    let mut table = Table::default();
    entries.iter().for_each(|(address, _, size, name)| table.push(*address, *size, name));
    Ok((table, banner))
}

/// The string at a linked address, if this section has it.
fn text_at<'a>(section: &impl ObjectSection<'a>, address: u64) -> Option<Vec<u8>> {
    let offset = address.checked_sub(section.address()).filter(|_| section.address() != 0)?;
    let rest = section.data().ok()?.get(usize::try_from(offset).ok()?..)?;
    let end = rest.iter().take(BANNER_MAX).position(|b| *b == 0)?;
    Some(rest[..end].to_vec())
}

/// Rust's names as they were written, without the hash.
fn demangled(name: &str) -> String {
    match rustc_demangle::try_demangle(name) {
        Ok(text) => format!("{text:#}"),
        Err(_) => printable(name.as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_map_is_read() {
        let map = b"0000000000000000 A fixed_percpu_data\nffffffff81000000 T _text\r\n\
                    ffffffff81c00000 T entry_SYSCALL_64\n\nffffffff81c01000 t other\n";
        let file = SymbolFile::parse(map).unwrap();
        assert!(file.linux && file.banner.is_none());
        let found = file.table.find(0xFFFF_FFFF_81C0_0042).unwrap();
        assert_eq!((found.name, found.offset, found.size), ("entry_SYSCALL_64", 0x42, 0x1000));
    }

    #[test]
    fn files_without_symbols_are_refused_by_line() {
        let error = |bytes: &[u8]| SymbolFile::parse(bytes).unwrap_err();
        assert_eq!(error(b""), FileError::Empty { stub: false });
        assert_eq!(error(b"ffffffff81000000 T _text\nffffffff81000001 T\n"), FileError::Line(2));
        assert_eq!(error(b"+1 T x\n"), FileError::Line(1));
        assert_eq!(error(b"ffffffff81000000 TT x\n"), FileError::Line(1));
        assert_eq!(error(b"\xFF\xFE\n"), FileError::Line(1));
        assert_eq!(error(b"ffffffff81000000 T x [ext4] y\n"), FileError::Empty { stub: false });
        let stub = error(b"ffffffffffffffff B The real System.map is in the linux-image-<version>-dbg package\n");
        assert_eq!(stub, FileError::Empty { stub: true });
        assert!(stub.to_string().contains("-dbg"));
    }

    #[test]
    fn damaged_elf_files_are_refused() {
        assert!(matches!(SymbolFile::parse(b"\x7FELF"), Err(FileError::Elf(_))));
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(matches!(SymbolFile::parse(&own[..own.len() / 2]), Err(FileError::Elf(_) | FileError::Stripped)));
    }

    #[test]
    fn rust_names_are_shown_as_they_were_written() {
        assert_eq!(demangled("_ZN5guest4main17h0123456789abcdefE"), "guest::main");
        assert_eq!(demangled("start_kernel"), "start_kernel");
    }
}
