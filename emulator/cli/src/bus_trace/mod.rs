//! `run --bus-trace` and `mktme-emu bus-trace`: the lines that go between memory controller and DRAM, recorded and shown.
//! docs/bus-trace.md is the user's page; the file format is [`mem::bus_trace`].
//!
//! Reading order: this file (the command), [`record`] (the options of a run), [`table`] (records as lines of text),
//! [`summary`] (what the records add up to), [`repeats`] (the writes of one line).

pub mod record;
pub mod repeats;
pub mod summary;
pub mod table;

use crate::Result;
use crate::files;
use crate::outcome::{Failure, status};
use crate::value;
use clap::{Args, ValueEnum};
use mem::bus_trace::{Direction, Header, Reader, TraceError};
use mem::{LINE_BYTES, PhysAddr};
use repeats::Repeats;
use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use summary::Summary;
use table::Table;

/// Exit status: the trace is damaged or cut short. What comes before that was written.
const INCOMPLETE: u8 = 1;

/// How records are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns for people.
    Text,
    /// Comma-separated values, with a header.
    Csv,
    /// What Ramulator 2 reads with its front end LoadStoreTrace: `LD 0x1000`.
    Ramulator2,
    /// What DRAMsim3 reads: `0x1000 READ 125`.
    Dramsim3,
}

/// The options.
#[derive(Debug, Args)]
pub struct BusTraceArgs {
    /// What `run --bus-trace` has written
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// text, csv, ramulator2, dramsim3
    #[arg(long, value_name = "NAME", value_enum, default_value = "text", hide_possible_values = true)]
    pub format: Format,
    /// Not the records, but what they add up to
    #[arg(long, conflicts_with = "format")]
    pub summary: bool,
    /// Only the writes of the line at this physical address: for each block of 16 bytes, which write had its ciphertext first
    #[arg(long, value_name = "ADDRESS", value_parser = value::address, conflicts_with_all = ["format", "summary"])]
    pub repeats: Option<u64>,
    /// Clock of the DRAM in MHz, for the cycles of dramsim3
    #[arg(long, value_name = "MHZ", default_value = "1600", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub dram_mhz: u32,
}

/// Runs the subcommand.
pub fn main(args: &BusTraceArgs) -> ExitCode {
    match show(args) {
        Ok(status) => ExitCode::from(status),
        Err(failure) => {
            sayln!("mktme-emu: bus-trace: {failure}");
            ExitCode::from(failure.status())
        }
    }
}

fn show(args: &BusTraceArgs) -> Result<u8> {
    let refuse = |e: TraceError| {
        let why = if let TraceError::Io(e) = &e { files::reason(e) } else { e.to_string() };
        Failure::Usage(format!("{}: {why}; accepted: a file of run --bus-trace", args.file.display()))
    };
    let file = File::open(&args.file).map_err(|e| refuse(TraceError::Io(e)))?;
    let mut reader = Reader::new(file).map_err(refuse)?;
    let repeats = args.repeats.map(|address| follow(address, reader.header(), args)).transpose()?;
    let mut out = BufWriter::new(io::stdout().lock());
    let read = match repeats {
        Some(repeats) => list_repeats(repeats, &mut reader, &mut out),
        None if args.summary => summarise(&mut reader, &mut out),
        None => list(args, &mut reader, &mut out),
    };
    let ended = match read.and_then(|ended| out.flush().map(|()| ended)) {
        Ok(ended) => ended,
        // Whoever reads has seen enough.
        Err(e) if e.kind() == ErrorKind::BrokenPipe => return Ok(status::SUCCESS),
        Err(e) => return Err(Failure::Host(format!("standard output: {}", files::reason(&e)))),
    };
    match ended {
        None => Ok(status::SUCCESS),
        Some(TraceError::Io(e)) => Err(Failure::Host(format!("{}: {}", args.file.display(), files::reason(&e)))),
        Some(e) => {
            sayln!("mktme-emu: bus-trace: {}: {e}", args.file.display());
            Ok(INCOMPLETE)
        }
    }
}

/// What `--repeats` follows.
fn follow(address: u64, header: &Header, args: &BusTraceArgs) -> Result<Repeats> {
    let refuse = |why: &str| Err(Failure::Usage(format!("--repeats {address:#x}: {why}")));
    if !address.is_multiple_of(LINE_BYTES as u64) {
        return refuse("not the address of a line; accepted: a multiple of 64");
    }
    if !header.ciphertext.has(Direction::Write) {
        let file = args.file.display();
        return refuse(&format!("{file} has no bytes; accepted: a trace without --bus-trace-ciphertext off"));
    }
    Ok(Repeats::new(PhysAddr(address).line()))
}

/// Writes the writes of a line. Returns what ended the trace before its end.
fn list_repeats(
    mut repeats: Repeats,
    reader: &mut Reader<File>,
    out: &mut impl Write,
) -> io::Result<Option<TraceError>> {
    Repeats::heading(out)?;
    for record in reader {
        match record {
            Ok(record) => repeats.row(&record, out)?,
            Err(e) => return Ok(Some(e)),
        }
    }
    Ok(None)
}

/// Writes every record. Returns what ended the trace before its end.
fn list(args: &BusTraceArgs, reader: &mut Reader<File>, out: &mut impl Write) -> io::Result<Option<TraceError>> {
    let table = Table::new(args.format, reader.header(), args.dram_mhz);
    table.heading(out)?;
    for record in reader {
        match record {
            Ok(record) => table.row(&record, out)?,
            Err(e) => return Ok(Some(e)),
        }
    }
    Ok(None)
}

/// Writes sums. Returns what ended the trace before its end.
fn summarise(reader: &mut Reader<File>, out: &mut impl Write) -> io::Result<Option<TraceError>> {
    let mut summary = Summary::new(reader.header().clone());
    let ended = reader.find_map(|record| record.map(|record| summary.add(&record)).err());
    write!(out, "{summary}")?;
    Ok(ended)
}
