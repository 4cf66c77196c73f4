//! Records as lines of text.

use super::Format;
use mem::bus_trace::{Direction, Event, Header, Record, Transfer, What};
use std::io::{self, Write};

/// Nanoseconds in a second.
const NS: u64 = 1_000_000_000;

/// How to write them.
pub struct Table {
    format: Format,
    /// Time is in ticks of this.
    header: Header,
    dram_mhz: u32,
}

impl Table {
    pub fn new(format: Format, header: &Header, dram_mhz: u32) -> Table {
        Table { format, header: header.clone(), dram_mhz }
    }

    /// What comes before all records.
    pub fn heading(&self, out: &mut impl Write) -> io::Result<()> {
        match self.format {
            Format::Text => {
                writeln!(
                    out,
                    "{:>14} {:>12} {:>12} KeyID {:<5} {:<10} {:<10} bytes",
                    "time/ns", "instruction", "address", "", "for", "in DRAM"
                )
            }
            Format::Csv => writeln!(out, "time_ns,icount,address,keyid,direction,cause,encrypted,ciphertext"),
            Format::Ramulator2 | Format::Dramsim3 => Ok(()),
        }
    }

    /// One record. Events are in text only: the other formats have no place for them.
    pub fn row(&self, record: &Record, out: &mut impl Write) -> io::Result<()> {
        let (icount, ns) = (record.stamp.icount, nanoseconds(&self.header, record));
        let transfer = match &record.what {
            What::Transfer(transfer) => transfer,
            What::Event(event) if self.format == Format::Text => {
                return match event {
                    Event::PowerLoss => writeln!(out, "{ns:>14} {icount:>12} power loss: every cell is zero"),
                    Event::KeyidBits(bits) => writeln!(out, "{ns:>14} {icount:>12} KeyID bits: {bits}"),
                };
            }
            What::Event(_) => return Ok(()),
        };
        let &Transfer { line, keyid, direction, cause, encrypted, ref ciphertext } = transfer;
        let address = line.start().0;
        let write = direction == Direction::Write;
        match self.format {
            Format::Text => {
                let (direction, cause) = (if write { "write" } else { "read" }, cause.name());
                let kind = if encrypted { "ciphertext" } else { "plaintext" };
                write!(
                    out,
                    "{ns:>14} {icount:>12} {address:#012x} {:>5} {direction:<5} {cause:<10} {kind:<10}",
                    keyid.0
                )?;
                if let Some(bytes) = ciphertext {
                    out.write_all(b" ")?;
                    hexadecimal(&bytes.0, out)?;
                }
                writeln!(out)
            }
            Format::Csv => {
                let (direction, cause) = (if write { "write" } else { "read" }, cause.name());
                write!(out, "{ns},{icount},{address:#x},{},{direction},{cause},{},", keyid.0, u8::from(encrypted))?;
                if let Some(bytes) = ciphertext {
                    hexadecimal(&bytes.0, out)?;
                }
                writeln!(out)
            }
            Format::Ramulator2 => writeln!(out, "{} {address:#x}", if write { "ST" } else { "LD" }),
            Format::Dramsim3 => {
                let cycle = u128::from(ns) * u128::from(self.dram_mhz) / 1000;
                writeln!(out, "{address:#x} {} {cycle}", if write { "WRITE" } else { "READ" })
            }
        }
    }
}

/// Virtual time of a record.
pub fn nanoseconds(header: &Header, record: &Record) -> u64 {
    (u128::from(header.time(record.stamp)) * u128::from(NS) / u128::from(header.tsc_hz.max(1))) as u64
}

fn hexadecimal(bytes: &[u8], out: &mut impl Write) -> io::Result<()> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0; 2 * mem::LINE_BYTES];
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
    out.write_all(&text[..2 * bytes.len().min(mem::LINE_BYTES)])
}
