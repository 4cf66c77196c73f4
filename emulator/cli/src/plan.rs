//! From options to a run that can start: everything that can be wrong is found here or in the first power-on.

use crate::Result;
use crate::args::{CacheModel, RunArgs, Switch};
use crate::console::Console;
use crate::files::{self, WholeFile};
use crate::input::Input;
use crate::log::Log;
use crate::modules::{self, InitrdFile};
use crate::outcome::Failure;
use crate::script::Script;
use crate::value::{SerialSink, Until};
use firmware::error::KERNELS;
use firmware::{Flat, Images, MemoryMap, Mode, Protocol, Setup};
use machine::Config;
use std::borrow::Cow;
use std::io::{IsTerminal, stderr, stdout};
use std::path::Path;

const INITRD_ACCEPTED: &str = "a cpio archive; for Multiboot and PVH kernels FILE [ARGUMENTS], comma-separated";
const SCRIPT_ACCEPTED: &str = "a console script (docs/cli.md)";
/// Where a PC's BIOS loads a boot sector.
const BOOT_SECTOR: u64 = 0x7C00;
/// No script is larger.
const SCRIPT_BYTES_MAX: u64 = 16 << 20;

/// A run that can start.
pub struct Plan {
    pub config: Config,
    pub kernel: Cow<'static, [u8]>,
    /// As the user wrote it.
    pub kernel_name: String,
    pub initrd: Vec<InitrdFile>,
    pub protocol: Option<Protocol>,
    pub cmdline: String,
    pub until: Vec<Until>,
    pub console: Console,
    pub script: Option<Script>,
    /// The terminal or pipe is the guest's keyboard.
    pub stdin: bool,
    pub log: Log,
    pub dump_dram: Option<WholeFile>,
    pub reboot: bool,
    pub quiet_bios: bool,
    pub state_hash: bool,
    pub summary: bool,
    /// No progress line: there is a better sign of life, or it would be in the way.
    pub no_progress: bool,
}

impl Plan {
    /// Checks the options and opens all files.
    pub fn new(args: RunArgs) -> Result<Plan> {
        let config = config(&args)?;
        check(&args)?;
        let protocol = protocol(&args)?;
        let ram = (config.ram_bytes, "all of RAM, -m");
        let kernel = match &args.kernel {
            Some(path) => files::read_image("-kernel", path, ram, KERNELS)?.into(),
            None => Cow::Borrowed(guests::HELLO_MKTME),
        };
        let initrd = match &args.initrd {
            Some(value) => modules::read(value, ram, INITRD_ACCEPTED)?,
            None => Vec::new(),
        };
        let script = args.input.as_deref().map(read_script).transpose()?;
        let serial_here = args.serial == SerialSink::Stdio;
        // Lines between the guest's would spoil its screen.
        let same_terminal = serial_here && stdout().is_terminal() && stderr().is_terminal();
        let log = Log::open(&args.log_items, args.log_file.as_deref(), !same_terminal)?;
        let console = Console::open(&args.serial)?;
        let dump_dram = args.dump_dram.as_deref().map(|p| WholeFile::create("--dump-dram", p)).transpose()?;
        Ok(Plan {
            kernel,
            kernel_name: args.kernel.as_deref().map(|p| p.display().to_string()).unwrap_or_default(),
            initrd,
            protocol,
            cmdline: args.append,
            until: args.until,
            console,
            stdin: serial_here && script.is_none(),
            script,
            no_progress: !serial_here || !args.log_items.is_empty() && args.log_file.is_none(),
            log,
            dump_dram,
            reboot: !args.no_reboot,
            quiet_bios: args.quiet_bios,
            state_hash: args.state_hash,
            summary: !args.no_summary,
            config,
        })
    }

    /// What is booted.
    pub fn images(&self) -> Images<'_> {
        Images {
            kernel: &self.kernel,
            kernel_name: &self.kernel_name,
            modules: self.initrd.iter().map(InitrdFile::as_module).collect(),
            cmdline: &self.cmdline,
            protocol: self.protocol,
        }
    }

    /// The console input of this run.
    pub fn take_input(&mut self) -> Input {
        match self.script.take() {
            Some(script) => Input::Script(script),
            None if self.stdin => Input::stdin(),
            None => Input::None,
        }
    }
}

fn config(args: &RunArgs) -> Result<Config> {
    let CacheModel::Exact = args.cache;
    MemoryMap::new(args.memory).map_err(Failure::usage)?;
    Ok(Config {
        ram_bytes: args.memory,
        profile: args.tme_profile,
        setup: Setup { tme: args.tme, keyid_bits: args.keyid_bits, exclude: args.tme_exclude, ..Setup::default() },
        seed: args.seed,
        ips: args.ips,
        cache_bytes: args.cache_size,
        cache_ways: args.cache_ways,
        fast: args.fast_path == Switch::On && !args.no_fast_path,
    })
}

/// `--protocol`, or `--load-addr` and `--entry`.
fn protocol(args: &RunArgs) -> Result<Option<Protocol>> {
    let Some(entry) = &args.entry else { return Protocol::from_name(&args.protocol).map_err(Failure::usage) };
    let mode = entry.parse().map_err(Failure::usage)?;
    let address = match (args.load_addr, mode) {
        (Some(address), _) => address,
        (None, Mode::Real16) => BOOT_SECTOR,
        (None, _) => {
            return Err(Failure::usage(format!(
                "--entry {entry}: needs an address; accepted: --load-addr ADDRESS together with it"
            )));
        }
    };
    Ok(Some(Protocol::Flat(Flat { address, mode })))
}

fn check(args: &RunArgs) -> Result<()> {
    if args.initrd.is_some() && args.kernel.is_none() {
        return Err(Failure::usage("-initrd: the embedded guest takes none; accepted: -initrd together with -kernel"));
    }
    if args.log_file.is_some() && args.log_items.is_empty() {
        return Err(Failure::usage(
            "-D: there is nothing to write without -d; accepted: -D together with -d int, mmu, mktme, exec, guest_errors",
        ));
    }
    let addresses = args.until.iter().filter(|u| matches!(u, Until::Pc(_))).count();
    if addresses > 1 {
        return Err(Failure::usage(format!("--until pc: given {addresses} times; accepted: once")));
    }
    Ok(())
}

fn read_script(path: &Path) -> Result<Script> {
    let bytes = files::read_image("--input", path, (SCRIPT_BYTES_MAX, "any script"), SCRIPT_ACCEPTED)?;
    let text = String::from_utf8(bytes)
        .map_err(|_| Failure::Usage(format!("--input {}: not UTF-8; accepted: {SCRIPT_ACCEPTED}", path.display())))?;
    Script::parse(path, &text).map_err(Failure::Usage)
}

/// A machine that cannot be built, in terms of the options.
pub fn config_error(e: machine::ConfigError) -> Failure {
    use machine::ConfigError as Machine;
    use mem::ConfigError as Memory;
    match e {
        Machine::Memory(Memory::CacheWays(n)) => Failure::usage(format!("--cache-ways {n}; accepted: 1 to 64")),
        Machine::Memory(Memory::CacheSize { bytes, ways }) => Failure::usage(format!(
            "--cache-size: {bytes} bytes with {ways} ways; accepted: 64 * {ways} * a power of two, at most 1 GiB"
        )),
        Machine::Memory(e @ (Memory::RamSize(_) | Memory::RamBeyondKeyid { .. })) => Failure::usage(format!("-m: {e}")),
        e @ Machine::MemoryMap(_) => Failure::usage(e),
        e @ Machine::Host(_) => Failure::Host(e.to_string()),
    }
}
