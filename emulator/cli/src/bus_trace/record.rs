//! The trace of a run.

use crate::Result;
use crate::files;
use crate::help;
use crate::outcome::Failure;
use clap::{Args, ValueEnum};
use machine::{Config, Machine};
use mem::CacheModel;
use mem::bus_trace::{Ciphertext, Counts};
use std::fs::File;
use std::path::PathBuf;

/// `--bus-trace-ciphertext`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Bytes {
    #[default]
    All,
    Writes,
    Off,
}

/// The options.
#[derive(Debug, Args)]
pub struct RecordArgs {
    /// Write every line transfer between memory controller and DRAM, with its ciphertext (docs/bus-trace.md)
    #[arg(long, value_name = "FILE", help_heading = help::REPORTS)]
    pub bus_trace: Option<PathBuf>,
    /// Transfers whose 64 bytes are in the trace: all, writes (a read returns what was written), off [default: all]
    #[arg(long, value_name = "WHICH", value_enum, requires = "bus_trace", hide_possible_values = true, help_heading = help::REPORTS)]
    pub bus_trace_ciphertext: Option<Bytes>,
}

/// The trace of a run.
#[derive(Debug, Default)]
pub struct BusTrace {
    wanted: Option<Wanted>,
}

#[derive(Debug)]
struct Wanted {
    path: PathBuf,
    /// Until the machine has it.
    file: Option<File>,
    ciphertext: Ciphertext,
}

impl BusTrace {
    /// Opens the file.
    ///
    /// # Errors
    /// It cannot be written, or the machine has no transfers to record.
    pub fn open(args: &RecordArgs, config: &Config) -> Result<BusTrace> {
        let Some(path) = &args.bus_trace else { return Ok(BusTrace::default()) };
        if config.cache == CacheModel::Off {
            return Err(Failure::usage(
                "--bus-trace: cache off has the results of a machine without a cache, not its line transfers; accepted: \
                 --cache exact, lazy",
            ));
        }
        let ciphertext = match args.bus_trace_ciphertext.unwrap_or_default() {
            Bytes::All => Ciphertext::All,
            Bytes::Writes => Ciphertext::Writes,
            Bytes::Off => Ciphertext::Off,
        };
        let file = Some(files::create_stream("--bus-trace", path)?);
        Ok(BusTrace { wanted: Some(Wanted { path: path.clone(), file, ciphertext }) })
    }

    /// Begins the trace. Nothing must have been executed yet.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn attach(&mut self, machine: &mut Machine) -> Result<()> {
        let Some(wanted) = &mut self.wanted else { return Ok(()) };
        let Some(file) = wanted.file.take() else { return Ok(()) };
        let begun = machine.trace_bus(Box::new(file), wanted.ciphertext);
        begun.map_err(|e| wanted.failure(&e))
    }

    /// What was asked for cannot be run after all: no file stays behind.
    pub fn discard(&self) {
        if let Some(Wanted { path, .. }) = &self.wanted
            && path.metadata().is_ok_and(|m| m.is_file())
        {
            // Nothing better can be done about a file that will not go.
            let _ = std::fs::remove_file(path);
        }
    }

    /// To be called from time to time: the guest does not go on without its trace.
    ///
    /// # Errors
    /// The file cannot be written any more.
    pub fn check(&self, machine: &Machine) -> Result<()> {
        match (&self.wanted, machine.cpu.mem.bus_trace_error()) {
            (Some(wanted), Some(e)) => Err(wanted.failure(e)),
            _ => Ok(()),
        }
    }

    /// Completes the trace; what it has, if there is one.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn finish(&self, machine: &mut Machine) -> Result<Option<Counts>> {
        match (&self.wanted, machine.cpu.mem.end_bus_trace()) {
            (Some(wanted), Some(ended)) => ended.map(Some).map_err(|e| wanted.failure(&e)),
            _ => Ok(None),
        }
    }
}

impl Wanted {
    fn failure(&self, e: &std::io::Error) -> Failure {
        Failure::Host(format!("--bus-trace {}: {}", self.path.display(), files::reason(e)))
    }
}
