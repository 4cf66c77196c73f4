//! The writes of one line, and which of its blocks had the same ciphertext before: what a ciphertext side channel is made of.

use crate::summary::grouped;
use mem::bus_trace::{Direction, Record, Transfer, What};
use mem::{KeyId, LINE_BYTES, LineAddr};
use std::collections::HashMap;
use std::io::{self, Write};

/// AES-XTS encrypts blocks of 16 bytes, each for itself.
const BLOCK_BYTES: usize = 16;
const BLOCKS: usize = LINE_BYTES / BLOCK_BYTES;

/// Follows a line.
pub struct Repeats {
    line: LineAddr,
    /// Writes so far.
    writes: u64,
    /// For each block: the write that had this ciphertext first. Under another KeyID the same bytes mean nothing.
    first: [HashMap<(KeyId, [u8; BLOCK_BYTES]), u64>; BLOCKS],
}

impl Repeats {
    pub fn new(line: LineAddr) -> Repeats {
        Repeats { line, writes: 0, first: Default::default() }
    }

    pub fn heading(out: &mut impl Write) -> io::Result<()> {
        let blocks: String = (0..BLOCKS).map(|n| format!("  block {n}")).collect();
        writeln!(out, "   write     instruction KeyID{blocks}")
    }

    /// Writes a row, if the record is a write of the line.
    pub fn row(&mut self, record: &Record, out: &mut impl Write) -> io::Result<()> {
        let What::Transfer(Transfer { line, keyid, direction: Direction::Write, ciphertext: Some(bytes), .. }) =
            record.what
        else {
            return Ok(());
        };
        if line != self.line {
            return Ok(());
        }
        write!(out, "{:>8} {:>15} {:>5}", self.writes, grouped(record.stamp.icount), keyid.0)?;
        for (block, first) in bytes.0.as_chunks::<BLOCK_BYTES>().0.iter().zip(&mut self.first) {
            write!(out, " {:>8}", first.entry((keyid, *block)).or_insert(self.writes))?;
        }
        self.writes += 1;
        writeln!(out)
    }
}
