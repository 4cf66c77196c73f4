//! How a snapshot file is laid out: a header, then sections of checked blocks, then a block that ends the file.
//!
//! ```text
//! header   magic (20 bytes), format (u32)
//! block    tag (4 bytes), bytes (u32), bytes in the file (u32), XXH3-64 of these and of what follows (u64), what follows
//! ```
//!
//! Integers are little-endian. A block has up to 1 MiB, compressed by zstd where that makes it smaller. A section is a row of
//! blocks of one tag, ended by one without bytes. The last block, `END `, has the length of the file before it and its XXH3-128.
//! Nothing is decoded, and no memory is set aside for it, before the checksum of its block was found right.

use super::SnapshotError;
use std::fmt;
use std::io::{self, Read, Write};
use xxhash_rust::xxh3::Xxh3;
use zstd::bulk::{Compressor, Decompressor};

/// Version of the format. Another one is refused.
pub const FORMAT: u32 = 2;

/// Not text, and damaged by whatever changes line ends (as PNG's signature is).
const MAGIC: [u8; 20] = *b"\x89mktme-emu state\r\n\x1a\n";
const HEADER_BYTES: usize = MAGIC.len() + 4;
/// Tag, two lengths, checksum.
const BLOCK_HEAD_BYTES: usize = 20;
const BLOCK_BYTES: usize = 1 << 20;
/// The fastest: DRAM is ciphertext, which no level makes smaller.
const LEVEL: i32 = 1;

/// A section's name.
pub type Tag = [u8; 4];
const END: Tag = *b"END ";

/// What is wrong with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// It ends here.
    Short,
    /// Something comes after the end.
    Long,
    /// A checksum is another one.
    Checksum,
    /// A block is where none like it can be.
    Order,
    /// A block cannot be decompressed.
    Compression,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Damage::Short => "the file ends early",
            Damage::Long => "the file goes on after its end",
            Damage::Checksum => "wrong checksum",
            Damage::Order => "a part is missing",
            Damage::Compression => "cannot be decompressed",
        })
    }
}

/// [`SnapshotError::Damaged`] on its way through [`Read`].
#[derive(Debug)]
struct Found(u64, Damage);

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.1.fmt(f)
    }
}

impl std::error::Error for Found {}

impl From<io::Error> for SnapshotError {
    fn from(e: io::Error) -> Self {
        match e.get_ref().and_then(|inner| inner.downcast_ref()) {
            Some(&Found(at, what)) => SnapshotError::Damaged { at, what },
            None => SnapshotError::Io(e),
        }
    }
}

/// Checksum of a block: its tag, its lengths, and what follows them.
fn checksum(head: &[u8], stored: &[u8]) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(head);
    hash.update(stored);
    hash.digest()
}

/// Writes a file.
pub struct FileWriter<W> {
    out: W,
    length: u64,
    hash: Box<Xxh3>,
    compressor: Compressor<'static>,
    stored: Vec<u8>,
}

impl<W: Write> FileWriter<W> {
    /// Writes the header.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn new(out: W) -> io::Result<Self> {
        let hash = Box::new(Xxh3::new());
        let mut file = Self { out, length: 0, hash, compressor: Compressor::new(LEVEL)?, stored: Vec::new() };
        file.put(&MAGIC)?;
        file.put(&FORMAT.to_le_bytes())?;
        Ok(file)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.hash.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    fn block(&mut self, tag: Tag, bytes: &[u8]) -> io::Result<()> {
        let mut stored = std::mem::take(&mut self.stored);
        stored.resize(bytes.len(), 0);
        // A block that does not become smaller does not fit.
        let smaller = self.compressor.compress_to_buffer(bytes, &mut stored[..]).ok().filter(|n| *n < bytes.len());
        let data = smaller.map_or(bytes, |n| &stored[..n]);
        let mut head = [0; BLOCK_HEAD_BYTES];
        head[..4].copy_from_slice(&tag);
        head[4..8].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
        head[8..12].copy_from_slice(&(data.len() as u32).to_le_bytes());
        let sum = checksum(&head[..12], data);
        head[12..].copy_from_slice(&sum.to_le_bytes());
        self.put(&head)?;
        self.put(data)?;
        self.stored = stored;
        Ok(())
    }

    /// Writes a section: what `write` writes.
    ///
    /// # Errors
    /// Those of `out` and `write`.
    pub fn section(&mut self, tag: Tag, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
        let mut section = SectionWriter { file: self, tag, waiting: Vec::with_capacity(BLOCK_BYTES) };
        write(&mut section)?;
        section.flush()?;
        self.block(tag, &[])
    }

    /// Writes the end. The file has to be made durable by whoever opened it.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn finish(mut self) -> io::Result<(W, u64)> {
        let mut end = self.length.to_le_bytes().to_vec();
        end.extend(self.hash.digest128().to_le_bytes());
        self.block(END, &end)?;
        self.out.flush()?;
        Ok((self.out, self.length))
    }
}

struct SectionWriter<'a, W> {
    file: &'a mut FileWriter<W>,
    tag: Tag,
    waiting: Vec<u8>,
}

impl<W: Write> Write for SectionWriter<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(BLOCK_BYTES - self.waiting.len());
        self.waiting.extend_from_slice(&bytes[..taken]);
        if self.waiting.len() == BLOCK_BYTES {
            self.flush()?;
        }
        Ok(taken)
    }

    /// Ends a block.
    fn flush(&mut self) -> io::Result<()> {
        if !self.waiting.is_empty() {
            self.file.block(self.tag, &self.waiting)?;
            self.waiting.clear();
        }
        Ok(())
    }
}

/// Reads a file.
pub struct FileReader<R> {
    from: R,
    at: u64,
    hash: Box<Xxh3>,
    decompressor: Decompressor<'static>,
    stored: Vec<u8>,
}

impl<R: Read> FileReader<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// What is no snapshot, or one of another format.
    pub fn new(from: R) -> Result<Self, SnapshotError> {
        let decompressor = Decompressor::new().map_err(SnapshotError::Io)?;
        let mut file = Self { from, at: 0, hash: Box::new(Xxh3::new()), decompressor, stored: Vec::new() };
        let mut header = [0; HEADER_BYTES];
        file.fill(&mut header).map_err(|e| match SnapshotError::from(e) {
            SnapshotError::Damaged { .. } => SnapshotError::NotASnapshot,
            e => e,
        })?;
        if header[..MAGIC.len()] != MAGIC {
            return Err(SnapshotError::NotASnapshot);
        }
        let found = u32_at(&header, MAGIC.len());
        if found == FORMAT { Ok(file) } else { Err(SnapshotError::Format { found }) }
    }

    /// The buffer's length of bytes.
    fn fill(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.from.read_exact(bytes).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => damaged(self.at, Damage::Short),
            _ => e,
        })?;
        self.hash.update(bytes);
        self.at += bytes.len() as u64;
        Ok(())
    }

    /// The next block, which must have this tag, in place of what `bytes` has.
    fn block(&mut self, tag: Tag, bytes: &mut Vec<u8>) -> io::Result<()> {
        let at = self.at;
        let mut head = [0; BLOCK_HEAD_BYTES];
        self.fill(&mut head)?;
        let (length, stored) = (u32_at(&head, 4) as usize, u32_at(&head, 8) as usize);
        if length > BLOCK_BYTES || stored > length {
            return Err(damaged(at, Damage::Checksum));
        }
        let mut data = std::mem::take(&mut self.stored);
        data.resize(stored, 0);
        self.fill(&mut data)?;
        if head[12..] != checksum(&head[..12], &data).to_le_bytes() {
            return Err(damaged(at, Damage::Checksum));
        }
        if head[..4] != tag {
            return Err(damaged(at, Damage::Order));
        }
        bytes.clear();
        if stored == length {
            bytes.extend_from_slice(&data);
        } else {
            bytes.resize(length, 0);
            let done = self.decompressor.decompress_to_buffer(&data, &mut bytes[..]);
            if !done.is_ok_and(|done| done == length) {
                return Err(damaged(at, Damage::Compression));
            }
        }
        self.stored = data;
        Ok(())
    }

    /// The next section, which must have this tag. It is read to its end, or the next one will not be found.
    pub fn section(&mut self, tag: Tag) -> SectionReader<'_, R> {
        SectionReader { file: self, tag, bytes: Vec::new(), done: 0, ended: false }
    }

    /// Checks the end.
    ///
    /// # Errors
    /// A file that is not, as a whole, what was written.
    pub fn finish(mut self) -> Result<(), SnapshotError> {
        let (at, hash) = (self.at, self.hash.digest128());
        let mut end = Vec::new();
        self.block(END, &mut end)?;
        if end[..] != [&at.to_le_bytes()[..], &hash.to_le_bytes()].concat() {
            return Err(SnapshotError::Damaged { at, what: Damage::Checksum });
        }
        if self.from.read(&mut [0]).map_err(SnapshotError::Io)? != 0 {
            return Err(SnapshotError::Damaged { at: self.at, what: Damage::Long });
        }
        Ok(())
    }
}

/// A section's bytes.
pub struct SectionReader<'a, R> {
    file: &'a mut FileReader<R>,
    tag: Tag,
    bytes: Vec<u8>,
    done: usize,
    ended: bool,
}

impl<R: Read> Read for SectionReader<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.done == self.bytes.len() && !self.ended && !out.is_empty() {
            self.done = 0;
            self.file.block(self.tag, &mut self.bytes)?;
            self.ended = self.bytes.is_empty();
        }
        let rest = &self.bytes[self.done..];
        let taken = rest.len().min(out.len());
        out[..taken].copy_from_slice(&rest[..taken]);
        self.done += taken;
        Ok(taken)
    }
}

fn damaged(at: u64, what: Damage) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, Found(at, what))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(number)
}
