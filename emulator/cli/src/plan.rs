//! From options to a run that can start: everything that can be wrong is found here or in the first power-on.

use crate::Result;
use crate::args::{RunArgs, Switch};
use crate::bus_trace::record::BusTrace;
use crate::console::Console;
use crate::files::{self, WholeFile};
use crate::inject::Inject;
use crate::input::Input;
use crate::log::Log;
use crate::modules::{self, InitrdFile};
use crate::outcome::Failure;
use crate::sanitize::Sanitize;
use crate::script::Script;
use crate::snapshot::{self, Saver};
use crate::value::{SerialSink, Until};
use firmware::{Flat, Images, MemoryMap, Mode, Protocol};
use machine::{Config, Snapshot, SnapshotError};
use std::borrow::Cow;
use std::io::{IsTerminal, stderr, stdout};
use std::path::Path;

const INITRD_ACCEPTED: &str = "a cpio archive; for Multiboot and PVH kernels FILE [ARGUMENTS], comma-separated";
const SCRIPT_ACCEPTED: &str = "a console script (docs/cli.md)";
/// Where a PC's BIOS loads a boot sector.
const BOOT_SECTOR: u64 = 0x7C00;
const MACHINE_FILE_ACCEPTED: &str = "a machine file (docs/machine-file.md)";
/// No script and no machine file is larger.
const TEXT_BYTES_MAX: u64 = 16 << 20;

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
    /// Taken by the session.
    pub sanitize: Option<Sanitize>,
    pub bus_trace: BusTrace,
    pub inject: Inject,
    pub dump_dram: Option<WholeFile>,
    pub reboot: bool,
    pub quiet_bios: bool,
    pub state_hash: bool,
    pub summary: bool,
    /// What the run starts from, instead of a boot.
    pub loadvm: Option<Snapshot>,
    /// Taken by the session.
    pub savevm: Saver,
    /// No progress line: there is a better sign of life, or it would be in the way.
    pub no_progress: bool,
}

impl Plan {
    /// Checks the options and opens all files.
    pub fn new(args: RunArgs) -> Result<Plan> {
        let loadvm = args.loadvm.as_deref().map(snapshot::load).transpose()?;
        let mut config = config_with(&args, loadvm.as_ref())?;
        config.sanitize = args.sanitizer.sanitize.is_some();
        args.aes_backend.choose()?;
        check(&args)?;
        let protocol = protocol(&args)?;
        let ram = (config.ram_bytes, "all of RAM, -m");
        let kernel = match &args.kernel {
            Some(path) => files::read_kernel(path, ram)?,
            // What goes on after a reset is not known then.
            None if loadvm.is_some() => Cow::Borrowed(&[][..]),
            None => Cow::Borrowed(guests::HELLO_MKTME),
        };
        let initrd = match &args.initrd {
            Some(value) => modules::read(value, ram, INITRD_ACCEPTED)?,
            None => Vec::new(),
        };
        snapshot::check(&args.savevm)?;
        let script = args.input.as_deref().map(read_script).transpose()?;
        let serial_here = args.serial == SerialSink::Stdio;
        // Lines between the guest's would spoil its screen.
        let same_terminal = serial_here && stdout().is_terminal() && stderr().is_terminal();
        let log = Log::open(&args.log_items, args.log_file.as_deref(), !same_terminal)?;
        let console = Console::open(&args.serial)?;
        let sanitize = Sanitize::open(&args.sanitizer, &kernel)?;
        let dump_dram = args.dump_dram.as_deref().map(|p| WholeFile::create("--dump-dram", p)).transpose()?;
        let bus_trace = BusTrace::open(&args.record, &config)?;
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
            sanitize: Some(sanitize),
            bus_trace,
            inject: Inject::new(args.inject),
            dump_dram,
            reboot: !args.no_reboot && (loadvm.is_none() || args.kernel.is_some()),
            loadvm,
            savevm: Saver::new(args.savevm),
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

/// The machine: the defaults, changed by the machine file, changed by the options.
///
/// # Errors
/// A machine file that cannot be read, or a size of RAM that no machine has.
pub fn config(args: &RunArgs) -> Result<Config> {
    let loadvm = args.loadvm.as_deref().map(snapshot::load).transpose()?;
    config_with(args, loadvm.as_ref())
}

/// [`config`], where the snapshot has been read. It gives the machine; options may say the same, and choose the host's
/// shortcuts.
fn config_with(args: &RunArgs, loadvm: Option<&Snapshot>) -> Result<Config> {
    let mut config = loadvm.map_or_else(Config::default, |snapshot| snapshot.config().clone());
    set_options(&mut config, args)?;
    if let Some((snapshot, path)) = loadvm.zip(args.loadvm.as_deref())
        && let Some(difference) = config.difference(snapshot.config())
    {
        return Err(snapshot::refused(path, &SnapshotError::Config(difference)));
    }
    Ok(config)
}

fn set_options(config: &mut Config, args: &RunArgs) -> Result<()> {
    if let Some(path) = &args.machine {
        config
            .apply_file(&read_text("--machine", path, MACHINE_FILE_ACCEPTED)?)
            .map_err(|e| Failure::Usage(format!("--machine {}: {e}", path.display())))?;
    }
    fn set<T>(field: &mut T, option: Option<T>) {
        if let Some(value) = option {
            *field = value;
        }
    }
    set(&mut config.ram_bytes, args.memory);
    set(&mut config.profile, args.tme_profile);
    set(&mut config.seed, args.seed);
    set(&mut config.ips, args.ips);
    set(&mut config.cache, args.cache);
    set(&mut config.cache_bytes, args.cache_size);
    set(&mut config.cache_ways, args.cache_ways);
    set(&mut config.wb_order, args.wb_order);
    set(&mut config.dma_device, args.dma_device.map(|s| s == Switch::On));
    set(&mut config.fast, args.fast_path.map(|s| s == Switch::On));
    config.fast &= !args.no_fast_path;
    set(&mut config.links, args.links.map(|s| s == Switch::On));
    set(&mut config.bulk_strings, args.bulk_strings.map(|s| s == Switch::On));
    set(&mut config.locked_write, args.locked_write);
    set(&mut config.pconfig_legacy_codes, args.pconfig_legacy_codes.map(|s| s == Switch::On));
    set(&mut config.tdx_partition, args.tdx_partition.map(|s| s == Switch::On));
    set(&mut config.integrity, args.integrity.map(|s| s == Switch::On));
    set(&mut config.knobs.pconfig_latency, args.pconfig_latency);
    set(&mut config.knobs.busy_rate, args.busy_rate);
    set(&mut config.knobs.entropy_fail_rate, args.entropy_fail_rate);
    config.core_override = args.core_override.or(config.core_override);
    set(&mut config.packages, args.packages);
    set(&mut config.evict_rate, args.evict_rate);
    set(&mut config.prefetch, args.prefetch);
    let setup = &mut config.setup;
    setup.tme = args.tme.or(setup.tme);
    setup.keyid_bits = args.keyid_bits.or(setup.keyid_bits);
    setup.exclude = args.tme_exclude.or(setup.exclude);
    MemoryMap::new(config.ram_bytes).map_err(Failure::usage)?;
    Ok(())
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
    Script::parse(path, &read_text("--input", path, SCRIPT_ACCEPTED)?).map_err(Failure::Usage)
}

fn read_text(option: &str, path: &Path, accepted: &str) -> Result<String> {
    let bytes = files::read_image(option, path, (TEXT_BYTES_MAX, "any such file"), accepted)?;
    String::from_utf8(bytes)
        .map_err(|_| Failure::Usage(format!("{option} {}: not UTF-8; accepted: {accepted}", path.display())))
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
        Machine::Memory(e @ Memory::IntegrityWithoutKeys(_)) => Failure::usage(format!("--{e}")),
        e @ (Machine::MemoryMap(_) | Machine::Memory(Memory::Packages(_))) => Failure::usage(e),
        e @ Machine::Host(_) => Failure::Host(e.to_string()),
    }
}
