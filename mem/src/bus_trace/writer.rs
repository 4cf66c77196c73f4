//! Writing a trace.

use super::format::{
    self, BLOCK, BLOCK_RECORDS_MAX, END, MACHINE_BYTES_MAX, MAGIC, Previous, RECORD_BYTES_MAX, VERSION,
};
use super::{Direction, Event, Header, Record, Transfer, What};
use crate::LINE_BYTES;
use lz4_flex::block::{compress_into, get_maximum_output_size};
use std::io::{self, Error, ErrorKind, Write};

/// Records in a block that is written. It costs little to have many blocks, and a run that is killed loses one.
const BLOCK_RECORDS: usize = 1 << 11;
const _: () = assert!(BLOCK_RECORDS <= BLOCK_RECORDS_MAX);

/// What a trace has, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Lines read from DRAM.
    pub reads: u64,
    /// Lines written to DRAM.
    pub writes: u64,
    /// [`Event`]s.
    pub events: u64,
}

impl Counts {
    pub(super) fn add(&mut self, record: &Record) {
        match record.what {
            What::Transfer(Transfer { direction: Direction::Read, .. }) => self.reads += 1,
            What::Transfer(Transfer { direction: Direction::Write, .. }) => self.writes += 1,
            What::Event(Event::PowerLoss | Event::KeyidBits(_)) => self.events += 1,
        }
    }
}

/// Writes a trace, a block at a time: what a process that is killed leaves behind can be read up to its last whole block.
pub struct Writer<W> {
    out: W,
    header: Header,
    counts: Counts,
    /// Of the block under way.
    records: u32,
    first: super::Stamp,
    previous: Previous,
    encoded: Vec<u8>,
    lines: Vec<u8>,
    /// The block as it goes out.
    block: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// Writes the header.
    ///
    /// # Errors
    /// Those of `out`; a machine file of more than 1 MiB is invalid input.
    pub fn new(mut out: W, header: Header) -> io::Result<Self> {
        let machine = header.machine.as_bytes();
        if machine.len() > MACHINE_BYTES_MAX {
            return Err(Error::new(ErrorKind::InvalidInput, "the machine file is longer than 1 MiB"));
        }
        let mut bytes = Vec::with_capacity(format::HEADER_BYTES + machine.len() + format::CHECKSUM_BYTES);
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend((machine.len() as u32).to_le_bytes());
        for number in [header.ram_bytes, header.ips, header.tsc_hz] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend([header.maxphyaddr, header.keyid_bits_max, format::ciphertext_number(header.ciphertext)]);
        bytes.resize(format::HEADER_BYTES, 0);
        bytes.extend(machine);
        bytes.extend(format::checksum(&bytes).to_le_bytes());
        out.write_all(&bytes)?;
        Ok(Self {
            out,
            header,
            counts: Counts::default(),
            records: 0,
            first: super::Stamp::default(),
            previous: Previous::new(super::Stamp::default()),
            encoded: Vec::with_capacity(BLOCK_RECORDS * RECORD_BYTES_MAX),
            lines: Vec::with_capacity(BLOCK_RECORDS * LINE_BYTES),
            block: Vec::new(),
        })
    }

    /// What the header says.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Appends a record. Its 64 bytes are kept if the header says so, and must be there then.
    ///
    /// # Errors
    /// Those of the output, once a block is full.
    pub fn push(&mut self, record: &Record) -> io::Result<()> {
        if let What::Transfer(Transfer { direction, ciphertext, .. }) = &record.what
            && self.header.ciphertext.has(*direction)
        {
            let line =
                ciphertext.as_ref().ok_or_else(|| Error::new(ErrorKind::InvalidInput, "a transfer without bytes"))?;
            self.lines.extend_from_slice(&line.0);
        }
        if self.records == 0 {
            self.first = record.stamp;
            self.previous = Previous::new(record.stamp);
        }
        self.previous.encode(record, &mut self.encoded);
        self.records += 1;
        self.counts.add(record);
        if self.records as usize == BLOCK_RECORDS { self.write_block() } else { Ok(()) }
    }

    /// Writes what is left, and the end.
    ///
    /// # Errors
    /// Those of the output.
    pub fn finish(mut self) -> io::Result<Counts> {
        self.write_block()?;
        let Counts { reads, writes, events } = self.counts;
        let mut end = Vec::with_capacity(format::END_BYTES + format::CHECKSUM_BYTES);
        end.extend(END.to_le_bytes());
        end.extend([0; 4]);
        for count in [reads, writes, events] {
            end.extend(count.to_le_bytes());
        }
        end.extend(format::checksum(&end).to_le_bytes());
        self.out.write_all(&end)?;
        self.out.flush()?;
        Ok(self.counts)
    }

    fn write_block(&mut self) -> io::Result<()> {
        if self.records == 0 {
            return Ok(());
        }
        self.block.clear();
        self.block.resize(format::BLOCK_HEADER_BYTES, 0);
        let packed_records = pack(&self.encoded, &mut self.block)?;
        let packed_lines = pack(&self.lines, &mut self.block)?;
        let (records, lines) = (self.encoded.len() as u32, (self.lines.len() / LINE_BYTES) as u32);
        let words = [BLOCK, self.records, packed_records, records, lines, packed_lines];
        let header = words.into_iter().flat_map(u32::to_le_bytes);
        let header = header.chain([self.first.icount, self.first.skipped].into_iter().flat_map(u64::to_le_bytes));
        self.block.iter_mut().zip(header).for_each(|(to, byte)| *to = byte);
        self.block.extend(format::checksum(&self.block).to_le_bytes());
        (self.records, self.encoded, self.lines) =
            (0, cleared(std::mem::take(&mut self.encoded)), cleared(std::mem::take(&mut self.lines)));
        self.out.write_all(&self.block)
    }
}

fn cleared(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.clear();
    bytes
}

/// Appends `bytes`, as an LZ4 block if that is shorter. Returns how many there are then.
fn pack(bytes: &[u8], out: &mut Vec<u8>) -> io::Result<u32> {
    let start = out.len();
    out.resize(start + get_maximum_output_size(bytes.len()), 0);
    let mut packed = compress_into(bytes, &mut out[start..]).map_err(Error::other)?;
    if packed >= bytes.len() {
        out[start..start + bytes.len()].copy_from_slice(bytes);
        packed = bytes.len();
    }
    out.truncate(start + packed);
    Ok(packed as u32)
}
