//! The options of `mktme-emu bench boot`.

use crate::help;
use crate::value;
use clap::Args;
use regex::Regex;
use std::ffi::OsString;
use std::path::PathBuf;

/// What QEMU for x86-64 is called.
pub const QEMU: &str = "qemu-system-x86_64";
/// The lines by which `guests/linux` marks the phases of its workload.
const MARKER: &str = r"\bM ([A-Z]+) [0-9.]+ cpu ";
/// What sha256sum prints.
const RESULT: &str = r"^[0-9a-f]{64}\b";

/// Options of a boot that is compared.
#[derive(Debug, Args)]
pub struct BootArgs {
    /// Kernel that both boot
    #[arg(long, value_name = "FILE", help_heading = help::GUEST)]
    pub kernel: PathBuf,
    /// Its initial RAM disk
    #[arg(long, value_name = "FILE", help_heading = help::GUEST)]
    pub initrd: Option<OsString>,
    /// Its command line
    #[arg(long, value_name = "TEXT", default_value = "", allow_hyphen_values = true, hide_default_value = true, help_heading = help::GUEST)]
    pub append: String,
    /// RAM, 64M to 8G; a plain number is MiB [default: 512M]
    #[arg(short = 'm', long = "memory", value_name = "SIZE", value_parser = value::memory_size, help_heading = help::GUEST)]
    pub memory: Option<u64>,
    /// A console line that begins an item, named by the first group [default: the `M NAME ...` lines of guests/linux]
    #[arg(long, value_name = "REGEX", default_value = MARKER, hide_default_value = true, help_heading = help::GUEST)]
    pub marker: Regex,
    /// Console lines that must be the same in all runs [default: those that sha256sum prints]
    #[arg(long, value_name = "REGEX", default_value = RESULT, hide_default_value = true, help_heading = help::GUEST)]
    pub result: Regex,

    /// The QEMU to compare with, which emulates by TCG
    #[arg(long, value_name = "PATH", default_value = QEMU, help_heading = help::OPPONENT)]
    pub qemu: PathBuf,
    /// Another build of mktme-emu to compare with, instead of QEMU
    #[arg(long, value_name = "PATH", conflicts_with = "qemu", help_heading = help::OPPONENT)]
    pub against: Option<PathBuf>,
    /// More options of this emulator, separated by spaces
    #[arg(long, value_name = "TEXT", default_value = "", allow_hyphen_values = true, hide_default_value = true, help_heading = help::OPPONENT)]
    pub options: String,
    /// More options of QEMU or the other build
    #[arg(long, value_name = "TEXT", default_value = "", allow_hyphen_values = true, hide_default_value = true, help_heading = help::OPPONENT)]
    pub against_options: String,

    /// Pairs of runs, 1 to 99
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=99), help_heading = help::MEASUREMENT)]
    pub pairs: u16,
    /// Seconds after which a run counts as hung and is killed
    #[arg(long, value_name = "SECONDS", default_value_t = 900, value_parser = clap::value_parser!(u64).range(1..=86_400), help_heading = help::MEASUREMENT)]
    pub timeout: u64,
    /// Processor that everything runs on [default: the last one allowed]
    #[arg(long, value_name = "N", help_heading = help::MEASUREMENT)]
    pub pin: Option<usize>,
    /// Write every figure as JSON
    #[arg(long, value_name = "FILE", help_heading = help::MEASUREMENT)]
    pub json: Option<PathBuf>,
    /// Write plots as SVG
    #[arg(long, value_name = "FILE", help_heading = help::MEASUREMENT)]
    pub svg: Option<PathBuf>,
}
