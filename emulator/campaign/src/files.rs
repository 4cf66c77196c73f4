//! Files that are written whole or not at all, and what the host says of files.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The operating system's words without Rust's "(os error 2)".
pub(crate) fn reason(e: &io::Error) -> String {
    let text = e.to_string();
    text.find(" (os error").map_or(text.clone(), |end| text[..end].to_lowercase())
}

/// Writes under another name, makes that durable, and renames it.
pub(crate) fn put(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
    if path.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{}.tmp", std::process::id()));
    let temporary = Temporary(path.with_file_name(hidden));
    let mut file = File::create(&temporary.0)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary.0, path)?;
    let directory = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Not every file system knows directories that can be synchronised.
    let _ = File::open(directory).and_then(|d| d.sync_all());
    Ok(())
}

/// Removed with its value; gone already if it was renamed.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
