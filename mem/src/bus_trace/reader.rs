//! Reading a trace.

use super::format::{
    self, BLOCK, BLOCK_RECORDS_MAX, END, MACHINE_BYTES_MAX, MAGIC, Previous, RECORD_BYTES_MAX, VERSION,
};
use super::{Ciphertext, Counts, Header, Record, Stamp, Transfer, What};
use crate::{CipherLine, LINE_BYTES};
use lz4_flex::block::decompress_into;
use std::io::{self, ErrorKind, Read};
use thiserror::Error;

/// Why a trace cannot be read, or not any further.
#[derive(Debug, Error)]
pub enum TraceError {
    /// The file itself cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It does not start as a trace does.
    #[error("not a bus trace: it does not start with MKTMEBUS")]
    NotATrace,
    /// It is of another version.
    #[error("a bus trace of version {0}; this program reads version {VERSION}")]
    Version(u32),
    /// The header's checksum is wrong, or what it says is impossible.
    #[error("the header is damaged")]
    Header,
    /// A block's checksum is wrong, or its contents are impossible. Blocks are counted from 1; those before are good.
    #[error("block {0} is damaged")]
    Block(u64),
    /// The file ends before the trace does, as after a run that was killed. All records of the blocks have been read.
    #[error("the trace is cut short: it has {blocks} whole blocks with {records} records, but no end")]
    Cut {
        /// Whole blocks.
        blocks: u64,
        /// Records in them.
        records: u64,
    },
    /// The end is damaged, or does not go with the blocks before it.
    #[error("the end of the trace is damaged, or blocks before it are missing")]
    End,
    /// Something comes after the end.
    #[error("there is something after the end of the trace")]
    Trailing,
}

/// Reads a trace: an iterator over its records, in order. It ends after the last record of a whole trace, or after an error,
/// which comes after all records that can be read. It keeps one block in memory.
pub struct Reader<R> {
    input: R,
    header: Header,
    counts: Counts,
    blocks: u64,
    done: bool,
    /// Records of the block that are left, and where they are.
    left: u32,
    previous: Previous,
    encoded: Vec<u8>,
    at: usize,
    lines: Vec<u8>,
    next_line: usize,
    /// Bytes as they are in the file.
    packed: Vec<u8>,
}

impl<R: Read> Reader<R> {
    /// Reads the header. `input` is read in large pieces, and needs no buffer.
    ///
    /// # Errors
    /// [`TraceError::NotATrace`], [`TraceError::Version`], [`TraceError::Header`], [`TraceError::Cut`] in the header, and those
    /// of `input`.
    pub fn new(mut input: R) -> Result<Self, TraceError> {
        const CUT: TraceError = TraceError::Cut { blocks: 0, records: 0 };
        let mut bytes = vec![0; format::HEADER_BYTES];
        let got = fill(&mut input, &mut bytes)?;
        if got < MAGIC.len() || bytes[..MAGIC.len()] != MAGIC {
            return Err(TraceError::NotATrace);
        }
        if got >= 12 && format::u32_at(&bytes, 8) != VERSION {
            return Err(TraceError::Version(format::u32_at(&bytes, 8)));
        }
        if got < bytes.len() {
            return Err(CUT);
        }
        let text = format::u32_at(&bytes, 12) as usize;
        if text > MACHINE_BYTES_MAX {
            return Err(TraceError::Header);
        }
        bytes.resize(format::HEADER_BYTES + text + format::CHECKSUM_BYTES, 0);
        if fill(&mut input, &mut bytes[format::HEADER_BYTES..])? < text + format::CHECKSUM_BYTES {
            return Err(CUT);
        }
        let header = header(verified(&bytes).ok_or(TraceError::Header)?).ok_or(TraceError::Header)?;
        Ok(Self {
            input,
            header,
            counts: Counts::default(),
            blocks: 0,
            done: false,
            left: 0,
            previous: Previous::new(Stamp::default()),
            encoded: Vec::new(),
            at: 0,
            lines: Vec::new(),
            next_line: 0,
            packed: Vec::new(),
        })
    }

    /// The machine that was traced.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What was read so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    fn read_record(&mut self) -> Result<Option<Record>, TraceError> {
        while self.left == 0 {
            // A block must have been used up.
            if self.at != self.encoded.len() || self.next_line != self.lines.len() {
                return Err(TraceError::Block(self.blocks));
            }
            if !self.read_block()? {
                return Ok(None);
            }
        }
        self.left -= 1;
        let record = self.decode().ok_or(TraceError::Block(self.blocks))?;
        self.counts.add(&record);
        Ok(Some(record))
    }

    fn decode(&mut self) -> Option<Record> {
        let mut rest = &self.encoded[self.at..];
        let mut record = self.previous.decode(&mut rest)?;
        self.at = self.encoded.len() - rest.len();
        if let What::Transfer(Transfer { direction, ciphertext, .. }) = &mut record.what
            && self.header.ciphertext.has(*direction)
        {
            let line = self.lines.get(self.next_line..self.next_line + LINE_BYTES)?;
            *ciphertext = Some(CipherLine(line.try_into().ok()?));
            self.next_line += LINE_BYTES;
        }
        Some(record)
    }

    /// Reads the next block. False: that was the end.
    fn read_block(&mut self) -> Result<bool, TraceError> {
        let Counts { reads, writes, events } = self.counts;
        let cut = TraceError::Cut { blocks: self.blocks, records: reads + writes + events };
        let damaged = TraceError::Block(self.blocks + 1);
        self.packed.clear();
        self.packed.resize(4, 0);
        if fill(&mut self.input, &mut self.packed)? < self.packed.len() {
            return Err(cut);
        }
        let header = match format::u32_at(&self.packed, 0) {
            BLOCK => format::BLOCK_HEADER_BYTES,
            END => return self.read_end(cut).map(|()| false),
            _ => return Err(damaged),
        };
        self.packed.resize(header, 0);
        if fill(&mut self.input, &mut self.packed[4..])? < header - 4 {
            return Err(cut);
        }
        let word = |n: usize| format::u32_at(&self.packed, 4 * n) as usize;
        let (records, packed_encoded, encoded, lines, packed_lines) = (word(1), word(2), word(3), word(4), word(5));
        let (icount, skipped) = (format::u64_at(&self.packed, 24), format::u64_at(&self.packed, 32));
        // No buffer is larger than a block may be, whatever the file says.
        let possible = (1..=BLOCK_RECORDS_MAX).contains(&records)
            && encoded <= records * RECORD_BYTES_MAX
            && packed_encoded <= encoded
            && lines <= records
            && packed_lines <= lines * LINE_BYTES;
        if !possible {
            return Err(damaged);
        }
        let rest = packed_encoded + packed_lines + format::CHECKSUM_BYTES;
        self.packed.resize(header + rest, 0);
        if fill(&mut self.input, &mut self.packed[header..])? < rest {
            return Err(cut);
        }
        let unpacked = verified(&self.packed).and_then(|bytes| {
            let (packed, packed_lines) = bytes[header..].split_at_checked(packed_encoded)?;
            unpack(packed, &mut self.encoded, encoded)?;
            unpack(packed_lines, &mut self.lines, lines * LINE_BYTES)
        });
        unpacked.ok_or(damaged)?;
        self.blocks += 1;
        self.left = records as u32;
        self.previous = Previous::new(Stamp { icount, skipped });
        (self.at, self.next_line) = (0, 0);
        Ok(true)
    }

    fn read_end(&mut self, cut: TraceError) -> Result<(), TraceError> {
        self.packed.resize(format::END_BYTES + format::CHECKSUM_BYTES, 0);
        let rest = self.packed.len() - 4;
        if fill(&mut self.input, &mut self.packed[4..])? < rest {
            return Err(cut);
        }
        let end = verified(&self.packed).ok_or(TraceError::End)?;
        let count = |n: usize| format::u64_at(end, 8 + 8 * n);
        if (Counts { reads: count(0), writes: count(1), events: count(2) }) != self.counts {
            return Err(TraceError::End);
        }
        if fill(&mut self.input, &mut [0])? > 0 { Err(TraceError::Trailing) } else { Ok(()) }
    }
}

impl<R: Read> Iterator for Reader<R> {
    type Item = Result<Record, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let item = self.read_record().transpose();
        self.done = !matches!(item, Some(Ok(_)));
        item
    }
}

/// The bytes before a checksum that is right.
fn verified(bytes: &[u8]) -> Option<&[u8]> {
    let (bytes, sum) = bytes.split_at_checked(bytes.len().checked_sub(format::CHECKSUM_BYTES)?)?;
    (format::checksum(bytes) == format::u64_at(sum, 0)).then_some(bytes)
}

fn header(bytes: &[u8]) -> Option<Header> {
    let number = |n: usize| format::u64_at(bytes, 16 + 8 * n);
    let &[maxphyaddr, keyid_bits_max, ciphertext, ..] = bytes.get(40..)? else { return None };
    let header = Header {
        ram_bytes: number(0),
        ips: number(1),
        tsc_hz: number(2),
        maxphyaddr,
        keyid_bits_max,
        ciphertext: Ciphertext::ALL.into_iter().find(|c| format::ciphertext_number(*c) == ciphertext)?,
        machine: String::from_utf8(bytes.get(format::HEADER_BYTES..)?.to_vec()).ok()?,
    };
    (header.ips > 0 && header.tsc_hz > 0).then_some(header)
}

/// Fills `out` with `len` bytes from `packed`, which is as long only if it is not packed.
fn unpack(packed: &[u8], out: &mut Vec<u8>, len: usize) -> Option<()> {
    out.clear();
    if packed.len() == len {
        out.extend_from_slice(packed);
        return Some(());
    }
    out.resize(len, 0);
    (decompress_into(packed, out).ok()? == len).then_some(())
}

/// Reads until `buf` is full or the input ends. Returns how many bytes there were.
fn fill(input: &mut impl Read, buf: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while got < buf.len() {
        match input.read(&mut buf[got..]) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(got)
}
