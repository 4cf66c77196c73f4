//! The options. QEMU's spellings where QEMU has the option.

use crate::bench::args::BenchArgs;
use crate::bus_trace::BusTraceArgs;
use crate::bus_trace::record::RecordArgs;
use crate::campaign::CampaignArgs;
use crate::explore::ExploreArgs;
use crate::help;
use crate::inject::InjectArgs;
use crate::sanitize::SanitizeArgs;
use crate::snapshot::SaveVm;
use crate::value::{self, AesBackend, SerialSink, Until};
use clap::{ArgAction, Args, CommandFactory, Parser, Subcommand, ValueEnum};
use firmware::{Exclude, TmeSetting};
use mem::{CacheModel, LockedWrite, Rate, TmeProfile, WbOrder};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "mktme-emu",
    version,
    about = help::ABOUT,
    long_about = help::LONG_ABOUT,
    after_help = help::AFTER,
    after_long_help = help::AFTER_LONG,
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true,
    max_term_width = 100
)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Boots a guest: the one of -kernel, or the embedded one
    #[command(long_about = help::RUN_ABOUT, after_long_help = help::AFTER_LONG, max_term_width = 100)]
    Run(Box<RunArgs>),
    /// Checks the model against the hardware specification, statement by statement
    #[command(long_about = help::CONFORMANCE_ABOUT, after_help = help::CONFORMANCE_AFTER, max_term_width = 100)]
    Conformance(conformance::Args),
    /// Measures the encryption datapath and the memory system, and models what a guest sees of them
    #[command(long_about = help::BENCH_ABOUT, after_help = help::BENCH_AFTER, max_term_width = 100, args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
    Bench(Box<BenchArgs>),
    /// Repeats a run under many seeds and cache policies, and tells which outcomes there are
    #[command(long_about = help::EXPLORE_ABOUT, after_help = help::EXPLORE_AFTER, max_term_width = 100)]
    Explore(ExploreArgs),
    /// Shows what `run --bus-trace` has recorded, or writes it for DRAM simulators
    #[command(long_about = help::BUS_TRACE_ABOUT, after_help = help::BUS_TRACE_AFTER, max_term_width = 100)]
    BusTrace(BusTraceArgs),
    /// Injects many faults into one guest, and counts what becomes of it
    #[command(long_about = help::CAMPAIGN_ABOUT, after_help = help::CAMPAIGN_AFTER, max_term_width = 100, disable_help_subcommand = true)]
    Campaign(CampaignArgs),
}

/// What is to be done.
#[derive(Debug)]
pub enum Action {
    Run(Box<RunArgs>),
    Conformance(conformance::Args),
    Bench(Box<BenchArgs>),
    Explore(ExploreArgs),
    BusTrace(BusTraceArgs),
    Campaign(CampaignArgs),
}

impl Cli {
    /// `run` is what happens without a subcommand, too.
    pub fn into_action(self) -> Action {
        match self.command {
            Some(Command::Run(args)) => Action::Run(args),
            Some(Command::Conformance(args)) => Action::Conformance(args),
            Some(Command::Bench(args)) => Action::Bench(args),
            Some(Command::Explore(args)) => Action::Explore(args),
            Some(Command::BusTrace(args)) => Action::BusTrace(args),
            Some(Command::Campaign(args)) => Action::Campaign(args),
            None => Action::Run(Box::new(self.run)),
        }
    }
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    On,
    Off,
}

/// What `-d` writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum LogItem {
    /// Interrupts and exceptions that were delivered.
    Int,
    /// Page faults and TLB flushes.
    Mmu,
    /// TME and MKTME: IA32_TME_ACTIVATE, PCONFIG, hazards between KeyIDs.
    Mktme,
    /// Every instruction, before it is executed.
    Exec,
    /// Accesses to nothing: ports, addresses, MSRs, CPUID leaves, instructions.
    GuestErrors,
}

/// Options of a run.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Kernel: bzImage (vmlinuz), Multiboot 1 or 2, PVH, static ELF64, embedded:NAME [default: embedded:hello-mktme]
    #[arg(long, value_name = "FILE", help_heading = help::GUEST)]
    pub kernel: Option<PathBuf>,
    /// Initial RAM disk; for Multiboot and PVH kernels modules: FILE [ARGUMENTS], comma-separated
    #[arg(long, value_name = "FILE", help_heading = help::GUEST)]
    pub initrd: Option<OsString>,
    /// Kernel command line
    #[arg(long, value_name = "TEXT", default_value = "", allow_hyphen_values = true, hide_default_value = true, help_heading = help::GUEST)]
    pub append: String,
    /// How to boot the kernel: auto, linux, multiboot, multiboot2, pvh [default: auto, by its contents]
    #[arg(long, value_name = "NAME", default_value = "auto", hide_default_value = true, help_heading = help::GUEST)]
    pub protocol: String,
    /// Load -kernel, whatever it is, at this address and enter it at its first byte
    #[arg(long, value_name = "ADDRESS", value_parser = value::address, requires = "kernel", requires = "entry", conflicts_with = "protocol", help_heading = help::GUEST)]
    pub load_addr: Option<u64>,
    /// Mode at --load-addr: real16 (a boot sector; --load-addr is 0x7C00 then unless given), prot32, long64
    #[arg(long, value_name = "MODE", requires = "kernel", conflicts_with = "protocol", help_heading = help::GUEST)]
    pub entry: Option<String>,

    /// Machine file: the options below as TOML (see docs/machine-file.md); options override it
    #[arg(long, value_name = "FILE", help_heading = help::MACHINE)]
    pub machine: Option<PathBuf>,
    /// Print the machine that the options and the machine file give, as a machine file, and end
    #[arg(long, help_heading = help::MACHINE)]
    pub machine_show: bool,
    /// RAM, 64M to 8G; a plain number is MiB [default: 512M]
    #[arg(short = 'm', long = "memory", value_name = "SIZE", value_parser = value::memory_size, help_heading = help::MACHINE)]
    pub memory: Option<u64>,
    /// Cache model: exact (sets and ways), lazy (unbounded: lines stay until flushed), off (every store is in DRAM at once) [default: exact]
    #[arg(long, value_name = "MODEL", value_parser = value::cache_model, help_heading = help::MACHINE)]
    pub cache: Option<CacheModel>,
    /// Cache size: 64 bytes * ways * a power of two [default: 1M]
    #[arg(long, value_name = "SIZE", value_parser = value::byte_size, help_heading = help::MACHINE)]
    pub cache_size: Option<usize>,
    /// Lines in a set of the cache, 1 to 64 [default: 16]
    #[arg(long, value_name = "N", help_heading = help::MACHINE)]
    pub cache_ways: Option<usize>,
    /// Order of WBINVD's write-backs: ascending, descending, seeded, adversarial (the one that loses most) [default: ascending]
    #[arg(long, value_name = "ORDER", value_parser = value::wb_order, help_heading = help::MACHINE)]
    pub wb_order: Option<WbOrder>,
    /// Seed of everything random: keys, RDRAND [default: 0]
    #[arg(long, value_name = "N", help_heading = help::MACHINE)]
    pub seed: Option<u64>,
    /// Instructions in a second of the guest's time [default: 100M]
    #[arg(long, value_name = "N", value_parser = value::ips, help_heading = help::MACHINE)]
    pub ips: Option<u64>,
    /// A PCI device for tests of DMA (see docs/dma-device.md) [default: off]
    #[arg(long, value_name = "SWITCH", value_enum, help_heading = help::MACHINE)]
    pub dma_device: Option<Switch>,
    /// Host-side shortcuts for memory accesses; off is slow and changes no result [default: on]
    #[arg(long, value_name = "SWITCH", value_enum, help_heading = help::MACHINE)]
    pub fast_path: Option<Switch>,
    /// Decoded code leads on to decoded code without a fetch; off is slow and changes no result [default: on]
    #[arg(long, value_name = "SWITCH", value_enum, help_heading = help::MACHINE)]
    pub links: Option<Switch>,
    /// String instructions move up to a page at a time; off is slow and changes no result [default: on]
    #[arg(long, value_name = "SWITCH", value_enum, help_heading = help::MACHINE)]
    pub bulk_strings: Option<Switch>,
    /// Instructions that encrypt and decrypt: auto (the fastest that the host has), portable, aesni, vaes256, vaes512 [default: auto]
    #[arg(long, value_name = "NAME", default_value = "auto", value_parser = value::aes_backend, hide_default_value = true, help_heading = help::MACHINE)]
    pub aes_backend: AesBackend,
    /// The same as --fast-path off
    #[arg(long, help_heading = help::MACHINE)]
    pub no_fast_path: bool,

    /// Processor, as far as TME is concerned: default, client4, server6, server7, tme-only, none [default: default]
    #[arg(long, value_name = "NAME", value_parser = value::profile, help_heading = help::BIOS)]
    pub tme_profile: Option<TmeProfile>,
    /// BIOS setting: on, off, unlocked, bypass [default: on, if the processor has TME]
    #[arg(long, value_name = "SETTING", value_parser = value::tme_setting, help_heading = help::BIOS)]
    pub tme: Option<TmeSetting>,
    /// Physical address bits that become KeyID bits [default: all that the processor has]
    #[arg(long, value_name = "N", help_heading = help::BIOS)]
    pub keyid_bits: Option<u8>,
    /// Range that stays in clear for KeyID 0: a power-of-two SIZE at a multiple of it
    #[arg(long, value_name = "BASE,SIZE", value_parser = value::exclude, help_heading = help::BIOS)]
    pub tme_exclude: Option<Exclude>,
    /// Do not print what the BIOS says
    #[arg(long, help_heading = help::BIOS)]
    pub quiet_bios: bool,

    /// What a write to the locked IA32_TME_ACTIVATE does: gp, ignore [default: gp]
    #[arg(long, value_name = "WHAT", value_parser = value::locked_write, hide_short_help = true, help_heading = help::KNOBS)]
    pub locked_write: Option<LockedWrite>,
    /// PCONFIG returns the error codes of old manuals instead of #GP [default: off]
    #[arg(long, value_name = "SWITCH", value_enum, hide_possible_values = true, hide_short_help = true, help_heading = help::KNOBS)]
    pub pconfig_legacy_codes: Option<Switch>,
    /// IA32_TME_ACTIVATE[39:36] may reserve KeyIDs for TDX [default: off]
    #[arg(long, value_name = "SWITCH", value_enum, hide_possible_values = true, hide_short_help = true, help_heading = help::KNOBS)]
    pub tdx_partition: Option<Switch>,
    /// Algorithms with a MAC for every line exist, and the BIOS allows them (docs/integrity.md) [default: off]
    #[arg(long, value_name = "SWITCH", value_enum, hide_possible_values = true, hide_short_help = true, help_heading = help::KNOBS)]
    pub integrity: Option<Switch>,
    /// Instructions for which the key table stays locked after PCONFIG [default: 0]
    #[arg(long, value_name = "N", value_parser = value::count, hide_short_help = true, help_heading = help::KNOBS)]
    pub pconfig_latency: Option<u64>,
    /// How often PCONFIG finds the key table locked, 0 to 1 [default: 0]
    #[arg(long, value_name = "RATE", value_parser = value::rate, hide_short_help = true, help_heading = help::KNOBS)]
    pub busy_rate: Option<Rate>,
    /// How often a draw for a random key fails, 0 to 1 [default: 0]
    #[arg(long, value_name = "RATE", value_parser = value::rate, hide_short_help = true, help_heading = help::KNOBS)]
    pub entropy_fail_rate: Option<Rate>,
    /// Fault: what the processor takes for IA32_TME_ACTIVATE, in RDMSR and for 9FFH
    #[arg(long, value_name = "VALUE", value_parser = value::msr_value, hide_short_help = true, help_heading = help::KNOBS)]
    pub core_override: Option<u64>,
    /// Packages with their own key tables and DRAM, 1 to 8; the processor is in the first [default: 1]
    #[arg(long, value_name = "N", value_parser = value::packages, hide_short_help = true, help_heading = help::KNOBS)]
    pub packages: Option<usize>,
    /// How often a fill is preceded by an eviction of another line, 0 to 1 [default: 0]
    #[arg(long, value_name = "RATE", value_parser = value::rate, hide_short_help = true, help_heading = help::KNOBS)]
    pub evict_rate: Option<Rate>,
    /// How often a fill brings in the other line of its 128-byte pair, 0 to 1 [default: 0]
    #[arg(long, value_name = "RATE", value_parser = value::rate, hide_short_help = true, help_heading = help::KNOBS)]
    pub prefetch: Option<Rate>,

    /// Serial port: stdio, file:PATH, none
    #[arg(long, value_name = "SINK", default_value = "stdio", help_heading = help::CONSOLE)]
    pub serial: SerialSink,
    /// Console script that types for you (see docs/cli.md)
    #[arg(long, value_name = "FILE", help_heading = help::CONSOLE)]
    pub input: Option<PathBuf>,
    /// Accepted and without effect: there is no graphics
    #[arg(long, help_heading = help::CONSOLE)]
    pub nographic: bool,

    /// End the run when the guest resets the machine
    #[arg(long, help_heading = help::END)]
    pub no_reboot: bool,
    /// End the run at icount:N, pc:ADDRESS or console:REGEX; may be repeated
    #[arg(long, value_name = "CONDITION", action = ArgAction::Append, help_heading = help::END)]
    pub until: Vec<Until>,

    /// Save the machine's state, at the end or at=icount:N, at=time:TIME, at=console:REGEX, and go on, or end there with ,stop; may be repeated
    #[arg(long, value_name = "FILE[,at=WHEN][,stop]", action = ArgAction::Append, help_heading = help::SNAPSHOTS)]
    pub savevm: Vec<SaveVm>,
    /// Start from a saved state, with its machine, instead of booting
    #[arg(long, value_name = "FILE", help_heading = help::SNAPSHOTS)]
    pub loadvm: Option<PathBuf>,

    #[command(flatten)]
    pub sanitizer: SanitizeArgs,

    /// Write about these, comma-separated: int, mmu, mktme, exec, guest_errors
    #[arg(short = 'd', long = "debug", value_name = "ITEMS", value_enum, value_delimiter = ',', hide_possible_values = true, help_heading = help::REPORTS)]
    pub log_items: Vec<LogItem>,
    /// Where -d writes [default: standard error]
    #[arg(short = 'D', long = "debug-file", value_name = "FILE", help_heading = help::REPORTS)]
    pub log_file: Option<PathBuf>,
    #[command(flatten)]
    pub record: RecordArgs,
    #[command(flatten)]
    pub inject: InjectArgs,
    /// At the end, write what the DRAM chips hold (no cache is written back)
    #[arg(long, value_name = "FILE", help_heading = help::REPORTS)]
    pub dump_dram: Option<PathBuf>,
    /// At the end, print a hash of the machine's state and the instruction count on standard output
    #[arg(long, help_heading = help::REPORTS)]
    pub state_hash: bool,
    /// No summary on standard error at the end
    #[arg(long, help_heading = help::REPORTS)]
    pub no_summary: bool,
}

/// A command and all below it.
fn with_subcommands(command: &clap::Command) -> Box<dyn Iterator<Item = &clap::Command> + '_> {
    Box::new(std::iter::once(command).chain(command.get_subcommands().flat_map(with_subcommands)))
}

/// Long options may have one dash, as QEMU's do: `-kernel` becomes `--kernel`. Values are left alone.
pub fn accept_single_dashes(argv: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    // Name (with its dashes) to whether a value follows. A name means the same in every command that has it.
    let mut takes_value = BTreeMap::new();
    let cli = Cli::command();
    for arg in with_subcommands(&cli).flat_map(clap::Command::get_arguments) {
        // A value that is optional comes with `=`.
        let value = arg.get_action().takes_values() && !arg.is_require_equals_set();
        takes_value.extend(arg.get_long().map(|name| (format!("--{name}"), value)));
        takes_value.extend(arg.get_short().map(|name| (format!("-{name}"), value)));
    }
    takes_value.extend(["--help", "--version"].map(|name| (name.to_owned(), false)));

    let mut value_next = false;
    let mut verbatim = false;
    let rewrite = |arg: OsString| {
        let Some(text) = arg.to_str().filter(|_| !std::mem::take(&mut value_next) && !verbatim) else { return arg };
        if text == "--" {
            verbatim = true;
            return arg;
        }
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        let doubled = format!("-{name}");
        if let Some(&takes) = takes_value.get(name) {
            value_next = takes && value.is_none();
            arg
        } else if let Some(&takes) = takes_value.get(&doubled) {
            value_next = takes && value.is_none();
            match value {
                Some(value) => format!("{doubled}={value}").into(),
                None => doubled.into(),
            }
        } else {
            arg
        }
    };
    argv.into_iter().map(rewrite).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(args: &[&str]) -> Vec<String> {
        let argv = args.iter().map(|a| OsString::from(*a));
        accept_single_dashes(argv).into_iter().map(|a| a.into_string().unwrap()).collect()
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_page_on_the_command_line_names_every_option() {
        let page = include_str!("../../../docs/cli.md");
        for option in Cli::command().get_arguments().filter_map(|arg| arg.get_long()) {
            assert!(page.contains(&format!("-{option}")), "--{option}");
        }
    }

    #[test]
    fn one_dash_is_as_good_as_two() {
        assert_eq!(
            rewritten(&["emu", "run", "-kernel", "k", "-no-reboot", "-m", "1G", "-append=x", "--seed", "1"]),
            ["emu", "run", "--kernel", "k", "--no-reboot", "-m", "1G", "--append=x", "--seed", "1"]
        );
        assert_eq!(
            rewritten(&["emu", "bench", "boot", "-kernel", "k", "-append", "-pairs", "-pairs", "1"]),
            ["emu", "bench", "boot", "--kernel", "k", "--append", "-pairs", "--pairs", "1"]
        );
        assert_eq!(rewritten(&["emu", "-m512M", "-help"]), ["emu", "-m512M", "--help"]);
    }

    #[test]
    fn values_are_left_alone() {
        assert_eq!(rewritten(&["emu", "-append", "-kernel", "-kernel"]), ["emu", "--append", "-kernel", "--kernel"]);
        assert_eq!(rewritten(&["emu", "-d", "-seed", "--", "-seed"]), ["emu", "-d", "-seed", "--", "-seed"]);
    }

    #[test]
    fn options_work_with_and_without_the_subcommand() {
        for argv in [&["emu", "run", "--seed", "7"][..], &["emu", "--seed", "7"]] {
            let Action::Run(args) = Cli::try_parse_from(argv).unwrap().into_action() else { panic!("not a run") };
            assert_eq!(args.seed, Some(7));
        }
        assert!(Cli::try_parse_from(["emu", "--seed", "7", "run"]).is_err());
    }

    #[test]
    fn conformance_takes_its_own_options_with_one_dash_too() {
        let argv = rewritten(&["emu", "conformance", "-only", "MK-087", "-junit", "f", "-kernel", "k", "-list"]);
        assert_eq!(argv, ["emu", "conformance", "--only", "MK-087", "--junit", "f", "--kernel", "k", "--list"]);
        let action = Cli::try_parse_from(argv).unwrap().into_action();
        assert!(matches!(action, Action::Conformance(conformance::Args { list: true, .. })));
        assert!(Cli::try_parse_from(["emu", "conformance", "--seed", "7"]).is_err());
    }
}
