//! Addresses to names.

/// Longest name that is kept; KSYM_NAME_LEN of Linux is 512, mangled names of other guests may be longer.
pub const NAME_MAX: usize = 1024;

/// Symbols in order of address. Of several at one address the first that was added names it.
#[derive(Debug, Clone, Default)]
pub struct Table {
    entries: Vec<Entry>,
    names: String,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    address: u64,
    /// 0: up to the next symbol.
    size: u64,
    name: u32,
    name_length: u32,
}

/// Where an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found<'a> {
    pub name: &'a str,
    pub offset: u64,
    /// Up to the next symbol, as the kernel's own reports have it. 0: there is no next one.
    pub size: u64,
}

impl Table {
    /// Adds a symbol; [`sort`](Self::sort) comes later. Names are cut at [`NAME_MAX`].
    pub fn push(&mut self, address: u64, size: u64, name: &str) {
        let mut length = name.len().min(NAME_MAX);
        while !name.is_char_boundary(length) {
            length -= 1;
        }
        let Ok(start) = u32::try_from(self.names.len()) else { return };
        self.names.push_str(&name[..length]);
        self.entries.push(Entry { address, size, name: start, name_length: length as u32 });
    }

    /// Puts the symbols in order. Symbols at one address keep theirs.
    pub fn sort(&mut self) {
        self.entries.sort_by_key(|e| e.address);
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The symbol at or before an address. Symbols with a size of their own end there.
    pub fn find(&self, address: u64) -> Option<Found<'_>> {
        let after = self.entries.partition_point(|e| e.address <= address);
        let start = self.entries.get(after.checked_sub(1)?)?.address;
        let first = self.entries.partition_point(|e| e.address < start);
        let entry = self.entries.get(first)?;
        let offset = address - start;
        let next = self.entries.get(after).map_or(0, |e| e.address - start);
        if entry.size != 0 && offset >= entry.size {
            return None;
        }
        Some(Found { name: self.name(entry), offset, size: if entry.size != 0 { entry.size } else { next } })
    }

    /// The address of the first symbol with this name.
    pub fn address(&self, name: &str) -> Option<u64> {
        self.entries.iter().find(|e| self.name(e) == name).map(|e| e.address)
    }

    /// The same symbols, all `slide` bytes further up (wrapping).
    pub fn moved(&self, slide: u64) -> Table {
        let mut table = self.clone();
        table.entries.iter_mut().for_each(|e| e.address = e.address.wrapping_add(slide));
        table.sort();
        table
    }

    fn name(&self, entry: &Entry) -> &str {
        let start = entry.name as usize;
        self.names.get(start..start + entry.name_length as usize).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(symbols: &[(u64, u64, &str)]) -> Table {
        let mut table = Table::default();
        symbols.iter().for_each(|(address, size, name)| table.push(*address, *size, name));
        table.sort();
        table
    }

    #[test]
    fn an_address_belongs_to_the_symbol_before_it() {
        let t = table(&[(0x200, 0, "b"), (0x100, 0, "a"), (0x200, 0, "alias")]);
        assert_eq!(t.find(0xFF), None);
        assert_eq!(t.find(0x100), Some(Found { name: "a", offset: 0, size: 0x100 }));
        assert_eq!(t.find(0x1FF), Some(Found { name: "a", offset: 0xFF, size: 0x100 }));
        assert_eq!(t.find(0x234), Some(Found { name: "b", offset: 0x34, size: 0 }));
        assert_eq!(t.address("alias"), Some(0x200));
        assert_eq!(t.address("c"), None);
    }

    #[test]
    fn a_symbol_with_a_size_ends_there() {
        let t = table(&[(0x100, 0x10, "a"), (0x200, 0, "b")]);
        assert_eq!(t.find(0x10F), Some(Found { name: "a", offset: 0xF, size: 0x10 }));
        assert_eq!(t.find(0x110), None);
    }

    #[test]
    fn long_names_are_cut_between_characters() {
        let t = table(&[(1, 0, &"é".repeat(NAME_MAX))]);
        assert_eq!(t.find(1).map(|f| f.name.len()), Some(NAME_MAX));
        assert_eq!(table(&[(1, 0, "x"), (1, 0, &format!("x{}", "é".repeat(NAME_MAX)))]).len(), 2);
    }
}
