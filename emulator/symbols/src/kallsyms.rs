//! The symbol table that Linux carries for its own reports (`kernel/kallsyms.c`, written by `scripts/kallsyms.c`), found in
//! its read-only data without knowing where it is.
//!
//! Every name is a string of tokens, one byte each. The tables, each aligned to 8 bytes, with `n` symbols:
//!
//! | Linux up to 6.3                     | Linux 6.4 and later                 |
//! |-------------------------------------|-------------------------------------|
//! | offsets, 4 bytes × n                | num_syms, 4 bytes                   |
//! | relative_base, 8 bytes              | names                               |
//! | num_syms, 4 bytes                   | markers                             |
//! | names                               | token_table                         |
//! | markers, 4 bytes × ceil(n / 256)    | token_index                         |
//! | (6.2: seqs_of_names, 3 bytes × n)   | offsets                             |
//! | token_table, 256 strings with NUL   | relative_base                       |
//! | token_index, 2 bytes × 256          | (seqs_of_names)                     |
//!
//! The token table gives itself away: a digit stands for itself, so the ten digits are ten consecutive strings. The token
//! index repeats what the table says; the markers repeat what the names say; nothing is believed before that is checked.

use crate::guest::Guest;
use crate::table::{NAME_MAX, Table};
use std::ops::Range;

const ALIGN: usize = 8;
const TOKENS: usize = 256;
/// Symbols between two markers.
const MARKED: usize = 256;
/// Bounds of what is looked at. Debian's kernel has 150,000 symbols with 2 MiB of names.
const SYMBOLS_MAX: usize = 1 << 21;
const BEFORE_MAX: u64 = 48 << 20;
const AFTER_MAX: u64 = 16 << 20;
const TOKEN_MAX: usize = 64;
const NAMES_MAX: usize = 256 << 20;
/// Fewest symbols of any kernel; the smallest configurations have ten times as many.
const SYMBOLS_MIN: usize = 4 * MARKED;
/// A symbol's tokens with their length, at least and at most: KSYM_NAME_LEN is 512.
const SYMBOL_BYTES: Range<usize> = 2..514;
/// Kernels and their images live in the top 2 GiB.
const KERNEL_MIN: u64 = 0xFFFF_FFFF_8000_0000;

const DIGITS: &[u8] = b"0\x001\x002\x003\x004\x005\x006\x007\x008\x009\0";
const CHUNK: u64 = 1 << 20;
/// Places that have the digits, and places with a token table, of which the search looks at no more.
const CANDIDATES_MAX: usize = 4096;
const TABLES_MAX: u32 = 4;
/// Steps of the search in all: that of a real kernel takes under 2 million.
const STEPS_MAX: u64 = 1 << 28;

/// What the search may still do: a hostile guest can make every step of it lead nowhere, late.
struct Effort {
    tables: u32,
    steps: u64,
}

impl Effort {
    fn step(&mut self) -> Option<()> {
        self.steps = self.steps.checked_sub(1)?;
        Some(())
    }
}

/// Finds and decodes the table in the mapped parts of `range`, `limit` bytes of them at most. Addresses are the run-time
/// ones; per-CPU symbols, which are offsets, are left out.
pub fn find(guest: &mut impl Guest, range: Range<u64>, mut limit: u64) -> Option<Table> {
    let mut candidates = CANDIDATES_MAX;
    let mut effort = Effort { tables: TABLES_MAX, steps: STEPS_MAX };
    let mut at = range.start;
    while let Some(run) = guest.mapped(at, range.end) {
        let mut from = run.start;
        while from < run.end {
            let length = CHUNK.min(run.end - from).min(limit);
            if length == 0 {
                return None;
            }
            // The pattern may lie across two chunks.
            let overlap = (DIGITS.len() as u64 - 1).min(run.end - from - length);
            let mut chunk = vec![0; (length + overlap) as usize];
            let read = guest.read(from, &mut chunk);
            chunk.truncate(read);
            let mut skip = 0;
            while let Some(hit) = position(&chunk[skip..], DIGITS) {
                let digits = from + (skip + hit) as u64;
                if let Some(table) = around(guest, digits, &run, &mut effort) {
                    return Some(table);
                }
                candidates = candidates.checked_sub(1)?;
                skip += hit + 1;
            }
            limit -= length;
            from += length;
        }
        at = run.end;
    }
    None
}

fn position(bytes: &[u8], pattern: &[u8]) -> Option<usize> {
    let mut start = 0;
    loop {
        // The first two bytes are rare enough.
        let hit = start + bytes.get(start..)?.iter().position(|b| *b == pattern[0])?;
        if bytes.get(hit..hit + pattern.len())? == pattern {
            return Some(hit);
        }
        start = hit + 1;
    }
}

/// Decodes the tables around the ten digits at `digits`.
fn around(guest: &mut impl Guest, digits: u64, run: &Range<u64>, effort: &mut Effort) -> Option<Table> {
    // First the token table alone: most candidates end here.
    const NEAR: u64 = (TOKENS * (TOKEN_MAX + 1) + 2 * TOKENS + 2 * ALIGN) as u64;
    let near_start = digits.saturating_sub(NEAR).max(run.start);
    let near = guest.bytes(near_start, ((digits + NEAR).min(run.end) - near_start) as usize)?;
    token_table(&near, near_start, (digits - near_start) as usize)?;
    effort.tables = effort.tables.checked_sub(1)?;
    let start = digits.saturating_sub(BEFORE_MAX).max(run.start);
    let end = (digits + AFTER_MAX).min(run.end);
    let window = guest.bytes(start, (end - start) as usize)?;
    decode(&window, start, (digits - start) as usize, effort)
}

/// Decodes the tables in a window of memory that begins at the address `base`; `digits` is where the tokens of the digits
/// begin in it.
fn decode(window: &[u8], base: u64, digits: usize, effort: &mut Effort) -> Option<Table> {
    // Alignment is that of addresses.
    let skew = (base % ALIGN as u64) as usize;
    let window = &window[(ALIGN - skew) % ALIGN..];
    let (base, digits) = (base.next_multiple_of(ALIGN as u64), digits.checked_sub((ALIGN - skew) % ALIGN)?);
    let (tokens, table, after) = token_table(window, base, digits)?;
    let names = names(window, table, effort)?;
    let addresses = addresses(window, names.start, after, names.lengths.len())?;
    let mut out = Table::default();
    let (mut at, mut total, mut name) = (names.start, 0, Vec::new());
    for (address, length) in addresses.into_iter().zip(&names.lengths) {
        at += if *length > 0x7F { 2 } else { 1 };
        name.clear();
        for token in window.get(at..at + length)? {
            name.extend_from_slice(&tokens[usize::from(*token)]);
            if name.len() > NAME_MAX {
                return None;
            }
        }
        at += length;
        total += name.len();
        if total > NAMES_MAX {
            return None;
        }
        // The first character is the type, as nm(1) prints it.
        if address >= KERNEL_MIN
            && let Some((_, name)) = name.split_first()
        {
            out.push(address, 0, &crate::guest::printable(name));
        }
    }
    out.sort();
    Some(out)
}

/// The tokens, where their table begins and where the index after it ends. Offsets into the window.
fn token_table(window: &[u8], base: u64, digits: usize) -> Option<(Vec<Vec<u8>>, usize, usize)> {
    // From the digits on to the last token.
    let mut end = digits;
    for _ in usize::from(b'0')..TOKENS {
        let length = window.get(end..)?.iter().take(TOKEN_MAX + 1).position(|b| *b == 0)?;
        end += length + 1;
    }
    let index = align(base, end);
    let offset = |token: usize| read_u16(window, index + 2 * token).map(usize::from);
    let table = digits.checked_sub(offset(usize::from(b'0'))?)?;
    let mut tokens = Vec::with_capacity(TOKENS);
    let mut at = table;
    for token in 0..TOKENS {
        if offset(token)? != at - table {
            return None;
        }
        let length = window.get(at..end)?.iter().take(TOKEN_MAX + 1).position(|b| *b == 0)?;
        tokens.push(window[at..at + length].to_vec());
        at += length + 1;
    }
    (at == end && align(base, table) == table).then_some((tokens, table, index + 2 * TOKENS))
}

struct Names {
    start: usize,
    /// Tokens of each symbol.
    lengths: Vec<usize>,
}

/// The names before the token table: markers first, then what they mark.
fn names(window: &[u8], table: usize, effort: &mut Effort) -> Option<Names> {
    const STEP: Range<usize> = SYMBOL_BYTES.start * MARKED..SYMBOL_BYTES.end * MARKED;
    // Just before the token table, or with one other table between.
    for markers in (0..=table.checked_sub(8)? & !(ALIGN - 1)).rev().step_by(ALIGN) {
        effort.step()?;
        if table - markers > 4 * SYMBOLS_MAX {
            return None;
        }
        if read_u32(window, markers) != Some(0) {
            continue;
        }
        let mut marked = vec![0usize];
        while let Some(next) =
            read_u32(window, markers + 4 * marked.len()).filter(|_| marked.len() * 4 < table - markers)
        {
            effort.step()?;
            let last = marked[marked.len() - 1];
            if !STEP.contains(&(next as usize).wrapping_sub(last)) {
                break;
            }
            marked.push(next as usize);
        }
        // What follows may look like one or two markers more.
        for count in (SYMBOLS_MIN / MARKED..=marked.len()).rev().take(3) {
            if let Some(names) = names_before(window, markers, &marked[..count], effort) {
                return Some(names);
            }
        }
    }
    None
}

fn names_before(window: &[u8], markers: usize, marked: &[usize], effort: &mut Effort) -> Option<Names> {
    let last = *marked.last()?;
    let lowest = (markers.checked_sub(last)?).saturating_sub(MARKED * SYMBOL_BYTES.end);
    let mut start = markers.checked_sub(last)? & !(ALIGN - 1);
    while start >= lowest.max(2 * ALIGN) {
        effort.step()?;
        let count = read_u32(window, start - ALIGN)? as usize;
        if count.div_ceil(MARKED) == marked.len()
            && count <= SYMBOLS_MAX
            && read_u32(window, start - 4) == Some(0)
            && let Some(lengths) = walk(window, start, markers, marked, count, effort)
        {
            return Some(Names { start, lengths });
        }
        start -= ALIGN;
    }
    None
}

/// Reads the lengths of `count` symbols and compares with the markers.
fn walk(
    window: &[u8],
    start: usize,
    end: usize,
    marked: &[usize],
    count: usize,
    effort: &mut Effort,
) -> Option<Vec<usize>> {
    let mut lengths = Vec::new();
    let mut at = start;
    for symbol in 0..count {
        effort.step()?;
        if symbol % MARKED == 0 && at - start != *marked.get(symbol / MARKED)? {
            return None;
        }
        // One byte, or two with the low seven bits first (Linux 6.1).
        let first = usize::from(*window.get(at)?);
        let length = if first & 0x80 == 0 { first } else { first & 0x7F | usize::from(*window.get(at + 1)?) << 7 };
        if first & 0x80 != 0 && length <= 0x7F || !(SYMBOL_BYTES.start - 1..SYMBOL_BYTES.end).contains(&length) {
            return None;
        }
        at += length + if first & 0x80 == 0 { 1 } else { 2 };
        if at > end {
            return None;
        }
        lengths.push(length);
    }
    (end - at < ALIGN).then_some(lengths)
}

/// The addresses of `count` symbols: before num_syms (up to Linux 6.3), or after the token index.
fn addresses(window: &[u8], names: usize, after: usize, count: usize) -> Option<Vec<u64>> {
    let before = (names - 2 * ALIGN).checked_sub(4 * count).map(|at| at & !(ALIGN - 1));
    before.and_then(|offsets| relative(window, offsets, names - 2 * ALIGN, count)).or_else(|| {
        let offsets = after.next_multiple_of(ALIGN);
        relative(window, offsets, (offsets + 4 * count).next_multiple_of(ALIGN), count)
    })
}

/// KALLSYMS_BASE_RELATIVE. With KALLSYMS_ABSOLUTE_PERCPU (SMP kernels before Linux 6.15) offsets that are not negative are
/// absolute, the others count down from the base.
fn relative(window: &[u8], offsets: usize, base: usize, count: usize) -> Option<Vec<u64>> {
    let base = read_u64(window, base).filter(|base| *base >= KERNEL_MIN)?;
    let offsets: Vec<u32> = (0..count).map(|i| read_u32(window, offsets + 4 * i)).collect::<Option<_>>()?;
    let negative = offsets.iter().filter(|o| (**o as i32) < 0).count();
    let percpu = negative > count / 2;
    let address = |offset: &u32| match *offset as i32 {
        below if percpu && below < 0 => base.wrapping_sub(1).wrapping_sub(i64::from(below) as u64),
        _ if percpu => u64::from(*offset),
        _ => base.wrapping_add(u64::from(*offset)),
    };
    let addresses: Vec<u64> = offsets.iter().map(address).collect();
    // In order of address; absolute ones may be out of it.
    let kernel: Vec<u64> = addresses.iter().copied().filter(|a| *a >= KERNEL_MIN).collect();
    (kernel.len() >= count / 2 && kernel.is_sorted()).then_some(addresses)
}

fn align(base: u64, offset: usize) -> usize {
    ((base + offset as u64).next_multiple_of(ALIGN as u64) - base) as usize
}

fn read<const N: usize>(window: &[u8], at: usize) -> Option<[u8; N]> {
    window.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn read_u16(window: &[u8], at: usize) -> Option<u16> {
    read(window, at).map(u16::from_le_bytes)
}

fn read_u32(window: &[u8], at: usize) -> Option<u32> {
    read(window, at).map(u32::from_le_bytes)
}

fn read_u64(window: &[u8], at: usize) -> Option<u64> {
    read(window, at).map(u64::from_le_bytes)
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::guest::fake::Pieces;

    /// How a kernel writes its table.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Layout {
        UpTo63,
        Since64,
    }

    /// A table as `scripts/kallsyms.c` would write it, with `sy` as the one token that is longer than a character.
    pub fn encode(symbols: &[(u64, String)], base: u64, layout: Layout, percpu: bool) -> Vec<u8> {
        const PAIR: u8 = 0xF0;
        let pad = |bytes: &mut Vec<u8>| bytes.resize(bytes.len().next_multiple_of(8), 0);
        let mut offsets = Vec::new();
        let (mut names, mut markers) = (Vec::new(), Vec::new());
        for (i, (address, name)) in symbols.iter().enumerate() {
            let offset = match (percpu, *address >= KERNEL_MIN) {
                (true, true) => (base.wrapping_sub(1).wrapping_sub(*address)) as u32,
                (true, false) => *address as u32,
                (false, _) => (address - base) as u32,
            };
            offsets.extend(offset.to_le_bytes());
            if i % 256 == 0 {
                markers.extend((names.len() as u32).to_le_bytes());
            }
            let text = format!("T{name}").replace("sy", "\u{1}");
            let tokens: Vec<u8> = text.bytes().map(|b| if b == 1 { PAIR } else { b }).collect();
            if tokens.len() > 0x7F {
                names.push(tokens.len() as u8 & 0x7F | 0x80);
                names.push((tokens.len() >> 7) as u8);
            } else {
                names.push(tokens.len() as u8);
            }
            names.extend(tokens);
        }
        let (mut tokens, mut index) = (Vec::new(), Vec::new());
        for token in 0..=255u8 {
            index.extend((tokens.len() as u16).to_le_bytes());
            match token {
                PAIR => tokens.extend(*b"sy"),
                0x20..0x7F => tokens.push(token),
                _ => tokens.extend(*b"xx"),
            }
            tokens.push(0);
        }
        let count = symbols.len() as u32;
        let base = base.to_le_bytes().to_vec();
        let parts: Vec<Vec<u8>> = match layout {
            Layout::UpTo63 => vec![offsets, base, count.to_le_bytes().to_vec(), names, markers, tokens, index],
            Layout::Since64 => vec![count.to_le_bytes().to_vec(), names, markers, tokens, index, offsets, base],
        };
        let mut out = Vec::new();
        for part in parts {
            out.extend(part);
            pad(&mut out);
        }
        out
    }

    const BASE: u64 = 0xFFFF_FFFF_8100_0000;

    fn symbols(count: u64, percpu: bool) -> Vec<(u64, String)> {
        let percpu = (0..if percpu { 5 } else { 0 }).map(|i| (i * 8, format!("percpu_{i}")));
        let long = "l".repeat(200);
        let name = |i| if i == 700 { format!("sys_{long}") } else { format!("sys_{i}_syx") };
        percpu.chain((0..count).map(|i| (BASE + i * 16, name(i)))).collect()
    }

    fn guest(table: Vec<u8>) -> Pieces {
        let mut guest = Pieces::default();
        // Somewhere in other data, across a chunk's end.
        let mut data = vec![0x5A; (1 << 20) - 4096];
        data[77..77 + DIGITS.len()].copy_from_slice(DIGITS);
        data.extend(table);
        data.extend([0xA5; 5000]);
        guest.put(BASE + 0x20_0000, data);
        guest
    }

    #[test]
    fn both_layouts_decode_with_and_without_per_cpu_symbols() {
        for layout in [Layout::UpTo63, Layout::Since64] {
            for percpu in [true, false] {
                for count in [1024, 1500, 1501] {
                    let mut g = guest(encode(&symbols(count, percpu), BASE, layout, percpu));
                    let table = find(&mut g, KERNEL_MIN..u64::MAX, 1 << 30)
                        .unwrap_or_else(|| panic!("{layout:?} {percpu} {count}"));
                    assert_eq!(table.len(), count as usize);
                    let found = table.find(BASE + 16 * 1000 + 3).unwrap();
                    assert_eq!((found.name, found.offset, found.size), ("sys_1000_syx", 3, 16));
                    assert_eq!(table.find(BASE + 16 * 700).unwrap().name.len(), 204);
                }
            }
        }
    }

    #[test]
    fn damaged_tables_are_refused_or_decoded_but_never_worse() {
        for layout in [Layout::UpTo63, Layout::Since64] {
            let whole = encode(&symbols(1100, true), BASE, layout, true);
            let (mut x, mut refused) = (1u32, 0);
            for round in 0..200 {
                let mut table = whole.clone();
                for _ in 0..1 + round / 20 {
                    x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    let at = x as usize % table.len();
                    table[at] ^= (x >> 24) as u8 | 1;
                }
                let mut g = Pieces::default();
                g.put(BASE, table);
                refused += u32::from(find(&mut g, KERNEL_MIN..u64::MAX, 1 << 30).is_none());
            }
            assert!(refused > 10, "{refused}");
            for cut in (0..whole.len()).step_by(997) {
                let mut g = Pieces::default();
                g.put(BASE, &whole[..cut]);
                let _ = find(&mut g, KERNEL_MIN..u64::MAX, 1 << 30);
            }
        }
    }

    #[test]
    fn memory_full_of_digits_ends_the_search() {
        let mut g = Pieces::default();
        g.put(BASE, DIGITS.repeat(10_000));
        assert!(find(&mut g, KERNEL_MIN..u64::MAX, 1 << 30).is_none());
    }
}
