//! What is compared: this emulator, QEMU, or another build of this emulator.

use super::args::{BootArgs, QEMU};
use crate::Result;
use crate::files;
use crate::outcome::Failure;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Debian's.
const QEMU_PACKAGE: &str = "qemu-system-x86";
/// RAM without `-m`.
const MEMORY: u64 = 512 << 20;

/// A program and how it boots the guest.
pub struct Side {
    /// For people.
    pub name: String,
    pub program: PathBuf,
    pub arguments: Vec<OsString>,
    /// The first line of `--version`.
    pub version: String,
    /// It prints mktme-emu's summary.
    pub is_emulator: bool,
}

/// This emulator, and what it is compared with.
///
/// # Errors
/// A program that is not there, or that is not what it should be.
pub fn both(args: &BootArgs) -> Result<[Side; 2]> {
    let own = std::env::current_exe()
        .map_err(|e| Failure::Host(format!("cannot find this program: {}", files::reason(&e))))?;
    let name = "mktme-emu".to_owned();
    let version = version(&own).map_err(|e| Failure::Host(format!("{}: {e}", own.display())))?;
    let arguments = emulator_arguments(args, &args.options);
    let this = Side { name, program: own, arguments, version, is_emulator: true };
    let other = match &args.against {
        Some(path) => against(args, path)?,
        None => qemu(args)?,
    };
    Ok([this, other])
}

fn against(args: &BootArgs, path: &Path) -> Result<Side> {
    let refuse = |why: &str| {
        Failure::Usage(format!("--against {}: {why}; accepted: another build of mktme-emu", path.display()))
    };
    // Without a slash it would be looked for in PATH.
    let program = path.canonicalize().map_err(|e| refuse(&files::reason(&e)))?;
    let version = version(&program).map_err(|e| refuse(&e))?;
    if !version.starts_with("mktme-emu ") {
        return Err(refuse(&format!("--version says {version:?}")));
    }
    let arguments = emulator_arguments(args, &args.against_options);
    Ok(Side { name: "other build".to_owned(), program, arguments, version, is_emulator: true })
}

fn qemu(args: &BootArgs) -> Result<Side> {
    let path = &args.qemu;
    let refuse = |why: &str| {
        Failure::Usage(format!(
            "--qemu {}: {why}; accepted: {QEMU} (Debian: apt install {QEMU_PACKAGE}), or --against another build of \
             mktme-emu",
            path.display()
        ))
    };
    let version = version(path).map_err(|e| refuse(&e))?;
    if !version.contains("QEMU emulator version") {
        return Err(refuse(&format!("--version says {version:?}")));
    }
    let arguments = qemu_arguments(args);
    Ok(Side { name: "QEMU".to_owned(), program: path.clone(), arguments, version, is_emulator: false })
}

/// The first line of `--version`, or why there is none.
fn version(program: &Path) -> std::result::Result<String, String> {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output().map_err(|e| files::reason(&e))?;
    if !output.status.success() {
        return Err(format!("--version ends with {}", output.status));
    }
    Ok(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().trim().to_owned())
}

/// As a user would run it: all settings are the defaults. A reset ends the run, as it does for QEMU.
fn emulator_arguments(args: &BootArgs, more: &str) -> Vec<OsString> {
    let mut words: Vec<OsString> = vec!["run".into()];
    words.extend(guest(args));
    words.extend(["-no-reboot".into(), "-serial".into(), "stdio".into()]);
    words.extend(more.split_whitespace().map(OsString::from));
    words
}

/// One processor without hardware virtualization, and nothing but a serial port to talk to.
fn qemu_arguments(args: &BootArgs) -> Vec<OsString> {
    let fixed = "-accel tcg,thread=single -cpu max -smp 1 -display none -serial stdio -monitor none -no-reboot";
    let mut words: Vec<OsString> = fixed.split(' ').map(OsString::from).collect();
    words.extend(guest(args));
    words.extend(args.against_options.split_whitespace().map(OsString::from));
    words
}

/// QEMU knows K as the smallest suffix.
fn memory_words(bytes: u64) -> String {
    if bytes.is_multiple_of(1 << 20) { format!("{}M", bytes >> 20) } else { format!("{}K", bytes >> 10) }
}

/// Spelled alike by both.
fn guest(args: &BootArgs) -> Vec<OsString> {
    let memory = args.memory.unwrap_or(MEMORY);
    let mut words = vec!["-m".into(), memory_words(memory).into(), "-kernel".into(), args.kernel.clone().into()];
    if let Some(initrd) = &args.initrd {
        words.extend(["-initrd".into(), initrd.clone()]);
    }
    if !args.append.is_empty() {
        words.extend(["-append".into(), OsString::from(&args.append)]);
    }
    words
}
