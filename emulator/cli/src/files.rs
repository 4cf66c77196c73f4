//! Files that the user named: read whole, or written whole or not at all.

use crate::Result;
use crate::outcome::Failure;
use firmware::error::KERNELS;
use std::borrow::Cow;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Reads an image of at most `limit` bytes, which is the size of `what`. All names are for the message.
pub fn read_image(option: &str, path: &Path, (limit, what): (u64, &str), accepted: &str) -> Result<Vec<u8>> {
    let refuse = |why: String| Failure::Usage(format!("{option} {}: {why}; accepted: {accepted}", path.display()));
    let mut file = File::open(path).map_err(|e| refuse(reason(&e)))?;
    if file.metadata().is_ok_and(|m| m.is_dir()) {
        return Err(refuse("is a directory".into()));
    }
    let mut bytes = Vec::new();
    // Devices and pipes may never end.
    (&mut file).take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(|e| refuse(reason(&e)))?;
    if bytes.len() as u64 > limit {
        return Err(refuse(format!("larger than {what} ({} MiB)", limit >> 20)));
    }
    Ok(bytes)
}

/// Reads the kernel of `-kernel`, which is a file of at most `limit` bytes, the size of `what`, or one of the embedded guests.
pub fn read_kernel(path: &Path, limit: (u64, &str)) -> Result<Cow<'static, [u8]>> {
    match path.to_str().and_then(guests::embedded) {
        None => read_image("-kernel", path, limit, KERNELS).map(Cow::Owned),
        Some(guest) => guest.map(Cow::Borrowed).map_err(|e| Failure::Usage(format!("-kernel {e}"))),
    }
}

/// The operating system's words without Rust's "(os error 2)".
pub fn reason(e: &io::Error) -> String {
    let text = e.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_lowercase(),
        None => text,
    }
}

/// Creates a file that is written while the run goes on.
pub fn create_stream(option: &str, path: &Path) -> Result<File> {
    File::create(path).map_err(|e| {
        Failure::Usage(format!("{option} {}: {}; accepted: a file that can be written", path.display(), reason(&e)))
    })
}

/// A file that appears when it is complete. Whether it can be written is known from the start.
pub struct WholeFile {
    option: &'static str,
    path: PathBuf,
    /// `None`: not a regular file (a device, a pipe), which cannot be replaced and is written directly.
    temporary: Option<PathBuf>,
    file: Option<File>,
}

impl WholeFile {
    pub fn create(option: &'static str, path: &Path) -> Result<WholeFile> {
        let refuse = |why: String| {
            Failure::Usage(format!("{option} {}: {why}; accepted: a file that can be written", path.display()))
        };
        let special = match fs::metadata(path) {
            Ok(m) if m.is_dir() => return Err(refuse("is a directory".into())),
            Ok(m) => !m.is_file(),
            Err(_) => false,
        };
        let temporary = if special {
            None
        } else {
            let name = path.file_name().ok_or_else(|| refuse("names no file".into()))?;
            let mut hidden = std::ffi::OsString::from(".");
            hidden.push(name);
            hidden.push(format!(".{}.tmp", std::process::id()));
            Some(path.with_file_name(hidden))
        };
        let target = temporary.as_deref().unwrap_or(path);
        let file = File::create(target).map_err(|e| refuse(reason(&e)))?;
        Ok(WholeFile { option, path: path.into(), temporary, file: Some(file) })
    }

    /// False for a device or a pipe, which is written directly.
    pub fn is_replaced(&self) -> bool {
        self.temporary.is_some()
    }

    /// Writes the contents and gives the file its name. Pages of zeros become holes where the file can have any.
    pub fn finish(mut self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
        let result = match (self.file.take(), &self.temporary) {
            (None, _) => Ok(()),
            (Some(file), None) => {
                let mut out = BufWriter::new(file);
                write(&mut out).and_then(|()| out.flush())
            }
            (Some(file), Some(temporary)) => {
                let mut out = Sparse { file, skipped: 0 };
                write(&mut out).and_then(|()| out.flush()).and_then(|()| fs::rename(temporary, &self.path))
            }
        };
        if result.is_ok() {
            self.temporary = None;
        }
        result.map_err(|e| Failure::Host(format!("{} {}: {}", self.option, self.path.display(), reason(&e))))
    }
}

impl Drop for WholeFile {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // Nothing better can be done about a temporary file that will not go.
            let _ = fs::remove_file(temporary);
        }
    }
}

/// Writes a file and leaves holes for zeros.
struct Sparse {
    file: File,
    skipped: u64,
}

impl Write for Sparse {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.iter().all(|b| *b == 0) {
            self.skipped += bytes.len() as u64;
        } else {
            if self.skipped > 0 {
                self.file.seek(SeekFrom::Current(self.skipped as i64))?;
                self.skipped = 0;
            }
            self.file.write_all(bytes)?;
        }
        Ok(bytes.len())
    }

    /// The last hole has to be told.
    fn flush(&mut self) -> io::Result<()> {
        let end = self.file.stream_position()? + self.skipped;
        self.file.set_len(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("mktme-emu-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    #[test]
    fn an_unfinished_file_leaves_nothing_behind() {
        let dir = scratch("unfinished");
        drop(WholeFile::create("--dump-dram", &dir.join("x")).unwrap());
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
        fs::remove_dir(&dir).unwrap();
    }

    #[test]
    fn holes_read_as_zeros_up_to_the_last_byte() {
        let dir = scratch("holes");
        let path = dir.join("x");
        let parts: [&[u8]; 4] = [&[0; 4096], &[1, 2], &[0; 100], &[0; 5]];
        let file = WholeFile::create("--dump-dram", &path).unwrap();
        file.finish(|out| parts.iter().try_for_each(|part| out.write_all(part))).unwrap();
        assert_eq!(fs::read(&path).unwrap(), parts.concat());
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_file_that_cannot_be_written_is_refused_by_option_and_name() {
        let message = |r: Result<WholeFile>| r.err().unwrap().to_string();
        assert_eq!(
            message(WholeFile::create("--dump-dram", Path::new("/nonexistent/x"))),
            "--dump-dram /nonexistent/x: no such file or directory; accepted: a file that can be written"
        );
        assert_eq!(
            message(WholeFile::create("--dump-dram", Path::new("/"))),
            "--dump-dram /: is a directory; accepted: a file that can be written"
        );
    }
}
