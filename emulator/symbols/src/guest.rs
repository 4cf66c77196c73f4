//! The guest's memory as its kernel sees it.

use machine::Machine;
use machine::peek::Walked;
use std::ops::Range;

/// Memory by linear address. Reading has no effect on the guest.
pub trait Guest {
    /// Reads from `linear` on and returns how many bytes there were: fewer than asked for where something is not mapped.
    fn read(&mut self, linear: u64, buf: &mut [u8]) -> usize;

    /// The first mapped range at or after `from` that begins below `limit`, cut off there. Adjacent pages are one range.
    fn mapped(&mut self, from: u64, limit: u64) -> Option<Range<u64>>;

    /// Exactly `N` bytes.
    fn array<const N: usize>(&mut self, linear: u64) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        (self.read(linear, &mut bytes) == N).then_some(bytes)
    }

    fn u32(&mut self, linear: u64) -> Option<u32> {
        self.array(linear).map(u32::from_le_bytes)
    }

    fn u64(&mut self, linear: u64) -> Option<u64> {
        self.array(linear).map(u64::from_le_bytes)
    }

    /// Exactly `length` bytes. The caller bounds it.
    fn bytes(&mut self, linear: u64, length: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; length];
        (self.read(linear, &mut bytes) == length).then_some(bytes)
    }

    /// A string that ends with NUL, `longest` bytes at most; bytes that are not printable ASCII become `?`.
    fn string(&mut self, linear: u64, longest: usize) -> Option<String> {
        let mut bytes = vec![0; longest + 1];
        let length = self.read(linear, &mut bytes);
        let end = bytes[..length].iter().position(|b| *b == 0)?;
        Some(printable(&bytes[..end]))
    }
}

/// Text that a guest made, fit for a terminal.
pub fn printable(bytes: &[u8]) -> String {
    bytes.iter().map(|b| if b.is_ascii_graphic() || *b == b' ' { *b as char } else { '?' }).collect()
}

/// A machine's memory through the 4-level page table at `root`.
pub struct AddressSpace<'a> {
    pub machine: &'a mut Machine,
    /// Full physical address.
    pub root: u64,
}

impl Guest for AddressSpace<'_> {
    fn read(&mut self, linear: u64, buf: &mut [u8]) -> usize {
        self.machine.peek_through(self.root, linear, buf)
    }

    fn mapped(&mut self, from: u64, limit: u64) -> Option<Range<u64>> {
        let mut at = from;
        let mut start = None;
        while at < limit {
            let (size, mapped) = match self.machine.walk_through(self.root, at) {
                Walked::Leaf { size, .. } => (size, true),
                Walked::Hole { size } => (size, false),
            };
            match (start, mapped) {
                (None, true) => start = Some(at),
                (Some(start), false) => return Some(start..at),
                _ => {}
            }
            // The aligned area that the entry speaks for.
            at = (at & !(size - 1)).saturating_add(size);
        }
        start.map(|start| start..limit)
    }
}

#[cfg(test)]
pub mod fake {
    //! A guest made of a few pieces of memory.

    use super::*;
    use std::collections::BTreeMap;

    #[derive(Debug, Default, Clone)]
    pub struct Pieces(pub BTreeMap<u64, Vec<u8>>);

    impl Pieces {
        pub fn put(&mut self, linear: u64, bytes: impl Into<Vec<u8>>) {
            self.0.insert(linear, bytes.into());
        }
    }

    impl Guest for Pieces {
        fn read(&mut self, linear: u64, buf: &mut [u8]) -> usize {
            let Some((start, piece)) = self.0.range(..=linear).next_back() else { return 0 };
            let skip = ((linear - start) as usize).min(piece.len());
            let count = (piece.len() - skip).min(buf.len());
            buf[..count].copy_from_slice(&piece[skip..skip + count]);
            count
        }

        fn mapped(&mut self, from: u64, limit: u64) -> Option<Range<u64>> {
            let ranges = self.0.iter().map(|(start, piece)| *start..start + piece.len() as u64);
            let found = ranges.filter(|r| r.end > from && r.start < limit).min_by_key(|r| r.start)?;
            Some(found.start.max(from)..found.end.min(limit))
        }
    }
}
