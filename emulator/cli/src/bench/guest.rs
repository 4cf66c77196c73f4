//! The line transfers of a real guest: what its cache asked DRAM for, and when.

use super::Progress;
use super::args::BenchArgs;
use crate::Result;
use crate::files;
use crate::modules::{self, InitrdFile};
use crate::outcome::Failure;
use crate::plan;
use firmware::{Images, MemoryMap};
use machine::{Config, Exit, Machine};
use mem::{KeyId, KeyStats};
use std::borrow::Cow;

/// Instructions between two looks at the counters.
const SLICE: u64 = 1_000;
/// Where a recording ends that nothing else ends.
const ICOUNT: u64 = 500_000_000;
/// How often [`Guest::run`] says that it goes on.
pub const STEPS: usize = 1;

/// A guest that can be booted.
pub struct Guest {
    config: Config,
    kernel: Cow<'static, [u8]>,
    kernel_name: String,
    initrd: Vec<InitrdFile>,
    cmdline: String,
    icount: u64,
}

impl Guest {
    /// Reads the files.
    ///
    /// # Errors
    /// Files that cannot be read, or a size of RAM that no machine has.
    pub fn open(args: &BenchArgs) -> Result<Guest> {
        let mut config = Config::default();
        config.ram_bytes = args.memory.unwrap_or(config.ram_bytes);
        MemoryMap::new(config.ram_bytes).map_err(Failure::usage)?;
        let ram = (config.ram_bytes, "all of RAM, -m");
        let kernel = match &args.kernel {
            Some(path) => files::read_kernel(path, ram)?,
            None => Cow::Borrowed(guests::HELLO_MKTME),
        };
        let initrd = match &args.initrd {
            Some(value) => modules::read(value, ram, "a cpio archive")?,
            None => Vec::new(),
        };
        Ok(Guest {
            config,
            kernel,
            kernel_name: args.kernel.as_deref().map(|path| path.display().to_string()).unwrap_or_default(),
            initrd,
            cmdline: args.append.clone(),
            icount: args.guest_icount.unwrap_or(ICOUNT),
        })
    }

    /// Boots and records until the guest ends, waits for input, or has had its instructions.
    ///
    /// # Errors
    /// An image that does not fit the machine.
    pub fn run(&self, progress: &Progress) -> Result<Trace> {
        progress.step("line transfers of the guest");
        let mut machine = Machine::new(self.config.clone()).map_err(plan::config_error)?;
        let mut bios = machine.power_on().map_err(Failure::usage)?;
        let images = Images {
            kernel: &self.kernel,
            kernel_name: &self.kernel_name,
            modules: self.initrd.iter().map(InitrdFile::as_module).collect(),
            cmdline: &self.cmdline,
            protocol: None,
        };
        machine.boot(&mut bios, &images).map_err(Failure::usage)?;

        let mut recorder = Recorder::new(&machine);
        loop {
            let icount = machine.cpu.icount();
            if icount >= self.icount {
                break;
            }
            let exit = machine.run(self.icount.min(icount + SLICE));
            recorder.look(&machine);
            // Nobody reads it, and a transmitter that is never emptied keeps everything.
            machine.chipset().take_serial_output();
            machine.chipset().take_debug_console_output();
            if exit != Exit::Icount {
                break;
            }
        }
        Ok(recorder.trace)
    }
}

/// Turns counters into differences.
struct Recorder {
    icount: u64,
    seen: Vec<KeyStats>,
    trace: Trace,
}

impl Recorder {
    fn new(machine: &Machine) -> Recorder {
        let seen = machine.cpu.mem.stats().per_key().to_vec();
        Recorder { icount: machine.cpu.icount(), seen, trace: Trace::default() }
    }

    fn look(&mut self, machine: &Machine) {
        let (icount, stats) = (machine.cpu.icount(), machine.cpu.mem.stats().per_key());
        let mut transfers = Vec::new();
        for (keyid, (now, seen)) in (0..).map(KeyId).zip(stats.iter().zip(&mut self.seen)) {
            let more = KeyStats { fills: now.fills - seen.fills, write_backs: now.write_backs - seen.write_backs };
            if more != KeyStats::default() {
                transfers.push((keyid, more));
            }
            *seen = *now;
        }
        self.trace.push(Slice { instructions: icount - self.icount, transfers });
        self.icount = icount;
    }
}

/// Instructions, and the line transfers they caused.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Slice {
    pub instructions: u64,
    /// Of KeyIDs that had any.
    pub transfers: Vec<(KeyId, KeyStats)>,
}

/// A run.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    pub slices: Vec<Slice>,
}

impl Trace {
    /// Slices without transfers become part of the one before.
    pub fn push(&mut self, slice: Slice) {
        match self.slices.last_mut() {
            Some(last) if slice.transfers.is_empty() => last.instructions += slice.instructions,
            _ => self.slices.push(slice),
        }
    }

    pub fn instructions(&self) -> u64 {
        self.slices.iter().map(|slice| slice.instructions).sum()
    }

    /// Fills and write-backs by KeyID, ascending.
    pub fn per_key(&self) -> Vec<(KeyId, KeyStats)> {
        let mut sums = std::collections::BTreeMap::<KeyId, KeyStats>::new();
        for (keyid, more) in self.slices.iter().flat_map(|slice| &slice.transfers) {
            let sum = sums.entry(*keyid).or_default();
            sum.fills += more.fills;
            sum.write_backs += more.write_backs;
        }
        sums.into_iter().collect()
    }
}
