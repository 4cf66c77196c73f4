//! Running the program, and guests made of a few instructions.
#![allow(dead_code)]

pub mod asm;
pub mod linux;

use iced_x86::IcedError;
use iced_x86::code_asm::CodeAssembler;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// What a run printed and how it ended.
pub struct Run {
    /// Without carriage returns.
    pub stdout: String,
    pub stderr: String,
    pub status: i32,
}

impl Run {
    /// The line `state-hash: ...` and the one after it.
    pub fn state(&self) -> String {
        let at = self.stdout.find("state-hash: ").unwrap_or_else(|| panic!("no state hash in {}", self.stdout));
        self.stdout[at..].to_owned()
    }
}

/// Runs mktme-emu without a console input.
pub fn emu<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Run {
    run(Command::new(env!("CARGO_BIN_EXE_mktme-emu")).args(args).stdin(Stdio::null()))
}

/// Runs a command to its end.
pub fn run(command: &mut Command) -> Run {
    let Output { stdout, stderr, status } = command.output().expect("the program starts");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).replace('\r', "");
    let status = status.code().unwrap_or_else(|| panic!("{status}: {}", text(stderr.clone())));
    Run { stdout: text(stdout), stderr: text(stderr), status }
}

/// A directory that goes away with its value.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> Scratch {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("mktme-emu-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("the temporary directory is writable");
        Scratch(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn dir(&self) -> &Path {
        &self.0
    }

    /// A file with these contents.
    pub fn file(&self, name: &str, contents: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        fs::write(&path, contents).expect("the temporary directory is writable");
        path.display().to_string()
    }

    pub fn names(&self) -> Vec<String> {
        Self::names_in(&self.0)
    }

    /// Names of what is in a directory.
    pub fn names_in(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).expect("the directory is readable");
        let mut names: Vec<String> =
            entries.map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Where guests are linked to.
pub const BASE: u64 = 0x20_0000;

/// Assembles a guest that starts in 64-bit mode at [`BASE`].
pub fn guest(code: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> Vec<u8> {
    let mut a = CodeAssembler::new(64).expect("64 is a bitness");
    code(&mut a).expect("the instructions exist");
    elf(&a.assemble(BASE).expect("the guest assembles"))
}

/// A static ELF64 executable with one segment at [`BASE`], which is also the entry (System V ABI, ELF-64).
pub fn elf(code: &[u8]) -> Vec<u8> {
    const HEADERS: u64 = 64 + 56;
    let mut image = Vec::new();
    image.extend(*b"\x7FELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    // ET_EXEC, EM_X86_64, EV_CURRENT.
    image.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    for field in [BASE, 64, 0] {
        image.extend(field.to_le_bytes());
    }
    // Flags, sizes of the headers, one program header, no sections.
    image.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    // PT_LOAD, PF_R | PF_W | PF_X.
    image.extend([1, 0, 0, 0, 7, 0, 0, 0]);
    let size = code.len() as u64;
    for field in [HEADERS, BASE, BASE, size, size, 16] {
        image.extend(field.to_le_bytes());
    }
    image.extend(code);
    image
}
