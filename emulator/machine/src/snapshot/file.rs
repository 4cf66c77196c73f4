//! What is in a snapshot file: the configuration as a machine file, the processor with its board, and the memory side.
//!
//! A file appears whole or not at all: it is written under another name in its directory, made durable, and then renamed.

use super::container::{FileReader, FileWriter, Tag};
use super::{Snapshot, SnapshotError, State};
use crate::config::{Config, ConfigError};
use cpu::CpuSnapshot;
use devices::Chipset;
use mem::{Invalid, MemorySnapshot, TmeFeatures};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Sections, in this order.
mod tag {
    use super::Tag;
    pub const CONFIG: Tag = *b"CONF";
    pub const MACHINE: Tag = *b"MACH";
    pub const KEYS: Tag = *b"KEYS";
    pub const CACHE: Tag = *b"CACH";
    pub const DRAM: Tag = *b"DRAM";
}

/// The configuration and the other small sections are no larger.
const SMALL_BYTES_MAX: u64 = 64 << 20;

/// Section `MACH`.
#[derive(Serialize, Deserialize)]
struct Parts<C, B> {
    /// Who wrote it, for people.
    program: String,
    features: Option<TmeFeatures>,
    cpu: C,
    board: B,
    resets: u64,
}

/// Told how much is done: (pages of DRAM, of how many).
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);

impl Snapshot {
    /// Writes a file, in place of one of that name. Returns its size in bytes.
    ///
    /// # Errors
    /// Those of the host. The file of that name, if there is one, is as it was then.
    pub fn save(&self, path: &Path, progress: Progress) -> Result<u64, SnapshotError> {
        let temporary = Temporary::create(path)?;
        let (file, bytes) = self.write(BufWriter::new(&temporary.file), progress)?;
        drop(file);
        temporary.finish(path)?;
        Ok(bytes)
    }

    /// Writes what the file has. Returns `out` and the number of bytes.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write<W: Write>(&self, out: W, progress: Progress) -> Result<(W, u64), SnapshotError> {
        let State { config, cpu, board, memory, resets } = &*self.0;
        let mut file = FileWriter::new(out)?;
        file.section(tag::CONFIG, |out| out.write_all(config.to_file().as_bytes()))?;
        let program = concat!("mktme-emu ", env!("CARGO_PKG_VERSION")).to_owned();
        let parts = Parts { program, features: config.features, cpu, board, resets: *resets };
        let parts = postcard::to_stdvec(&parts).map_err(|e| SnapshotError::Invalid(e.to_string()))?;
        file.section(tag::MACHINE, |out| out.write_all(&parts))?;
        let keys = memory.write_small().map_err(|e| SnapshotError::Invalid(e.to_string()))?;
        file.section(tag::KEYS, |out| out.write_all(&keys))?;
        file.section(tag::CACHE, |out| memory.write_cache(out))?;
        let pages = memory.dram_pages() as u64;
        file.section(tag::DRAM, |out| memory.write_dram(out, &mut |done| progress(done as u64, pages)))?;
        Ok(file.finish()?)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// What is not exactly what [`save`](Self::save) wrote.
    pub fn load(path: &Path, progress: Progress) -> Result<Snapshot, SnapshotError> {
        Self::read(File::open(path).map_err(SnapshotError::Io)?, progress)
    }

    /// Reads what [`write`](Self::write) wrote.
    ///
    /// # Errors
    /// Anything else.
    pub fn read(from: impl Read, progress: Progress) -> Result<Snapshot, SnapshotError> {
        let invalid = |what: &str| SnapshotError::Invalid(what.to_owned());
        let mut file = FileReader::new(io::BufReader::with_capacity(1 << 16, from))?;
        let config = String::from_utf8(small(&mut file.section(tag::CONFIG))?)
            .map_err(|_| invalid("its configuration is not text"))?;
        let parts = small(&mut file.section(tag::MACHINE))?;
        let (parts, rest) = postcard::take_from_bytes::<Parts<CpuSnapshot, Chipset>>(&parts)
            .map_err(|e| SnapshotError::Invalid(format!("processor and board: {e}")))?;
        if !rest.is_empty() {
            return Err(invalid("processor and board: bytes are left"));
        }
        let Parts { program: _, features, cpu, board, resets } = parts;
        let mut built = Config { features, ..Config::default() };
        built.apply_file(&config).map_err(|e| SnapshotError::Invalid(format!("its configuration: {e}")))?;
        let config = built;
        config.check()?;
        if !cpu.is_valid() || !board.fits(&config.chipset().map_err(ConfigError::from)?) {
            return Err(invalid("processor and board of another machine"));
        }
        let keys = small(&mut file.section(tag::KEYS))?;
        let pages = (config.ram_bytes >> 12).max(1);
        // The sections of the memory side come one after the other, and the file is read once.
        let mut cache = Vec::new();
        file.section(tag::CACHE).read_to_end(&mut cache)?;
        let memory =
            MemorySnapshot::read(&config.memory(), &keys, &mut &cache[..], &mut file.section(tag::DRAM), &mut |done| {
                progress(done as u64, pages)
            });
        let memory = memory.map_err(|e| match e {
            Invalid::Io(e) => SnapshotError::from(e),
            e => SnapshotError::Invalid(e.to_string()),
        })?;
        file.finish()?;
        Ok(Snapshot(Arc::new(State { config, cpu, board, memory, resets })))
    }
}

/// All of a section that is small.
fn small(section: &mut impl Read) -> Result<Vec<u8>, SnapshotError> {
    let mut bytes = Vec::new();
    section.take(SMALL_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > SMALL_BYTES_MAX {
        return Err(SnapshotError::Invalid("a part is too large".into()));
    }
    Ok(bytes)
}

/// A file without its name yet, removed if it does not get it.
struct Temporary {
    file: File,
    path: PathBuf,
}

impl Temporary {
    fn create(path: &Path) -> Result<Temporary, SnapshotError> {
        let name = path.file_name().ok_or_else(|| SnapshotError::Io(io::ErrorKind::InvalidFilename.into()))?;
        if path.is_dir() {
            return Err(SnapshotError::Io(io::ErrorKind::IsADirectory.into()));
        }
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}.tmp", std::process::id()));
        let path = path.with_file_name(hidden);
        Ok(Temporary { file: File::create(&path)?, path })
    }

    /// Gives the file its name, once its contents are on the disk; then the name as well.
    fn finish(self, path: &Path) -> Result<(), SnapshotError> {
        self.file.sync_all()?;
        fs::rename(&self.path, path)?;
        let directory = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // Not every file system knows directories that can be synchronised.
        let _ = File::open(directory).and_then(|d| d.sync_all());
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Gone already if it was renamed.
        let _ = fs::remove_file(&self.path);
    }
}
