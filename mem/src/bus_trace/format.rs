//! The bytes of a trace. docs/bus-trace.md says the same for readers in other languages: change both, and [`VERSION`].

use super::{Cause, Ciphertext, Direction, Event, Record, Stamp, Transfer, What};
use crate::addr::{KeyId, LineAddr};
use xxhash_rust::xxh3::xxh3_64;

/// First bytes of a file.
pub(super) const MAGIC: [u8; 8] = *b"MKTMEBUS";
/// Version of the format.
pub const VERSION: u32 = 1;

/// The header up to its text: magic, version, length of the text, RAM, IPS, TSC frequency, three small numbers, padding.
pub(super) const HEADER_BYTES: usize = 48;
/// No machine file is longer.
pub(super) const MACHINE_BYTES_MAX: usize = 1 << 20;

/// First word of a block of records, and of the end.
pub(super) const BLOCK: u32 = u32::from_le_bytes(*b"BLCK");
pub(super) const END: u32 = u32::from_le_bytes(*b"END.");
/// A block's header: tag, records, packed and unpacked bytes of the records, lines, packed bytes of the lines, the stamp that
/// the first record counts from.
pub(super) const BLOCK_HEADER_BYTES: usize = 40;
/// The end: tag, padding, reads, writes, events.
pub(super) const END_BYTES: usize = 32;
/// Bytes of a checksum, which is the last thing of what it is of.
pub(super) const CHECKSUM_BYTES: usize = 8;

/// Records in a block at most, so that a reader can tell how large its buffers become.
pub(super) const BLOCK_RECORDS_MAX: usize = 1 << 16;
/// The longest record: its tag, and four numbers of 64 bits.
pub(super) const RECORD_BYTES_MAX: usize = 1 + 4 * NUMBER_BYTES_MAX;
/// A number of 64 bits in groups of 7.
const NUMBER_BYTES_MAX: usize = 10;

/// Bits of a record's tag.
mod tag {
    pub const WRITE: u8 = 1 << 0;
    pub const CAUSE_SHIFT: u8 = 1;
    pub const CAUSE: u8 = 3 << CAUSE_SHIFT;
    pub const ENCRYPTED: u8 = 1 << 3;
    /// The KeyID is that of the transfer before.
    pub const SAME_KEYID: u8 = 1 << 4;
    /// The instruction count is that of the record before.
    pub const SAME_ICOUNT: u8 = 1 << 5;
    /// Time has passed without instructions since the record before.
    pub const SKIPPED: u8 = 1 << 6;
    pub const EVENT: u8 = 1 << 7;
    /// In an event: which. The other bits but those of the time are 0.
    pub const EVENT_NUMBER: u8 = 15;
    pub const POWER_LOSS: u8 = 0;
    pub const KEYID_BITS: u8 = 1;
}

/// XXH3, 64 bits, seed 0.
pub(super) fn checksum(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}

/// Numbers of ciphertext choices in the header.
pub(super) fn ciphertext_number(ciphertext: Ciphertext) -> u8 {
    match ciphertext {
        Ciphertext::Off => 0,
        Ciphertext::Writes => 1,
        Ciphertext::All => 2,
    }
}

/// What the next record is a difference from. A block starts with a new one, so that blocks can be read by themselves.
#[derive(Debug, Clone, Copy)]
pub(super) struct Previous {
    pub(super) stamp: Stamp,
    keyid: KeyId,
    line: LineAddr,
}

impl Previous {
    pub(super) fn new(stamp: Stamp) -> Self {
        Self { stamp, keyid: KeyId(0), line: LineAddr(0) }
    }

    /// Appends a record without its 64 bytes.
    pub(super) fn encode(&mut self, record: &Record, out: &mut Vec<u8>) {
        let Record { stamp, what } = *record;
        let mut bits = match what {
            What::Event(Event::PowerLoss) => tag::EVENT | tag::POWER_LOSS,
            What::Event(Event::KeyidBits(_)) => tag::EVENT | tag::KEYID_BITS,
            What::Transfer(Transfer { keyid, direction, cause, encrypted, .. }) => {
                let mut bits = (cause as u8) << tag::CAUSE_SHIFT;
                for (bit, set) in [
                    (tag::WRITE, direction == Direction::Write),
                    (tag::ENCRYPTED, encrypted),
                    (tag::SAME_KEYID, keyid == self.keyid),
                ] {
                    bits |= if set { bit } else { 0 };
                }
                bits
            }
        };
        if stamp.icount == self.stamp.icount {
            bits |= tag::SAME_ICOUNT;
        }
        if stamp.skipped != self.stamp.skipped {
            bits |= tag::SKIPPED;
        }
        out.push(bits);
        if stamp.icount != self.stamp.icount {
            put_number(out, stamp.icount.wrapping_sub(self.stamp.icount));
        }
        if stamp.skipped != self.stamp.skipped {
            put_number(out, stamp.skipped.wrapping_sub(self.stamp.skipped));
        }
        self.stamp = stamp;
        match what {
            What::Event(Event::PowerLoss) => {}
            What::Event(Event::KeyidBits(bits)) => put_number(out, bits.into()),
            What::Transfer(Transfer { keyid, line, .. }) => {
                if keyid != self.keyid {
                    put_number(out, keyid.0.into());
                }
                put_number(out, zigzag(line.0.wrapping_sub(self.line.0)));
                (self.keyid, self.line) = (keyid, line);
            }
        }
    }

    /// Takes a record off the front of `bytes`, its 64 bytes still missing. `None`: that is no record.
    pub(super) fn decode(&mut self, bytes: &mut &[u8]) -> Option<Record> {
        let (&bits, rest) = bytes.split_first()?;
        *bytes = rest;
        if bits & tag::SAME_ICOUNT == 0 {
            self.stamp.icount = self.stamp.icount.wrapping_add(take_number(bytes)?);
        }
        if bits & tag::SKIPPED != 0 {
            self.stamp.skipped = self.stamp.skipped.wrapping_add(take_number(bytes)?);
        }
        let what = if bits & tag::EVENT != 0 {
            What::Event(match bits & tag::EVENT_NUMBER {
                tag::POWER_LOSS => Event::PowerLoss,
                tag::KEYID_BITS => Event::KeyidBits(u8::try_from(take_number(bytes)?).ok()?),
                _ => return None,
            })
        } else {
            if bits & tag::SAME_KEYID == 0 {
                self.keyid = KeyId(u16::try_from(take_number(bytes)?).ok()?);
            }
            self.line = LineAddr(self.line.0.wrapping_add(unzigzag(take_number(bytes)?)));
            What::Transfer(Transfer {
                line: self.line,
                keyid: self.keyid,
                direction: if bits & tag::WRITE != 0 { Direction::Write } else { Direction::Read },
                cause: Cause::ALL[usize::from((bits & tag::CAUSE) >> tag::CAUSE_SHIFT)],
                encrypted: bits & tag::ENCRYPTED != 0,
                ciphertext: None,
            })
        };
        Some(Record { stamp: self.stamp, what })
    }
}

/// LEB128: 7 bits a byte, the lowest first; bit 7 says that there are more.
fn put_number(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut n = 0;
    for shift in (0..).step_by(7).take(NUMBER_BYTES_MAX) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let group = u64::from(byte & 0x7F);
        // The last group has room for one bit.
        if group << shift >> shift != group {
            return None;
        }
        n |= group << shift;
        if byte & 0x80 == 0 {
            return Some(n);
        }
    }
    None
}

/// Small differences of either sign become small numbers: 0, -1, 1, -2, ... are 0, 1, 2, 3, ...
fn zigzag(difference: u64) -> u64 {
    difference << 1 ^ ((difference as i64) >> 63) as u64
}

fn unzigzag(n: u64) -> u64 {
    n >> 1 ^ (n & 1).wrapping_neg()
}

/// A little-endian number at an offset of a header that has it.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

/// The same of 8 bytes.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_survive_and_overlong_ones_are_refused() {
        for n in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            let mut out = Vec::new();
            put_number(&mut out, n);
            let mut rest = &out[..];
            assert_eq!(take_number(&mut rest), Some(n));
            assert!(rest.is_empty());
            assert_eq!(unzigzag(zigzag(n)), n);
        }
        assert_eq!(take_number(&mut &[0x80; 9][..]), None, "cut short");
        assert_eq!(take_number(&mut &[0xFF; 11][..]), None, "too many groups");
        assert_eq!(take_number(&mut &[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 2][..]), None, "65 bits");
    }

    #[test]
    fn near_lines_and_repeated_keyids_and_times_take_two_bytes() {
        let mut previous = Previous::new(Stamp { icount: 7, skipped: 0 });
        let record = |line| Record {
            stamp: Stamp { icount: 7, skipped: 0 },
            what: What::Transfer(Transfer {
                line: LineAddr(line),
                keyid: KeyId(0),
                direction: Direction::Read,
                cause: Cause::Cache,
                encrypted: true,
                ciphertext: None,
            }),
        };
        let mut out = Vec::new();
        for line in [1, 2, 1] {
            previous.encode(&record(line), &mut out);
        }
        assert_eq!(out, [0x38, 2, 0x38, 2, 0x38, 1]);
    }
}
