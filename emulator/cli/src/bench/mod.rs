//! `mktme-emu bench`: the encryption datapath, the modelled memory system, and what a guest would see of them.
//!
//! Reading order: [`args`] (what can be asked for), [`sample`] (how anything is timed), [`limit`] (what the silicon can
//! do), [`cipher`] (the implementations) with [`datapath`] (the work they get), [`memory`], [`guest`] (the line transfers
//! of a run) with [`latency`] (the model that they go through), [`report`] (table and JSON), [`plot`] (SVG). `bench boot`,
//! the whole emulator against others, is in [`boot`].
//!
//! Only ratios within a run mean anything: samples of everything that is compared alternate, and the limit is sampled
//! among them, so that a busy or throttled host slows all alike.

pub mod args;
pub mod boot;
mod cipher;
mod datapath;
mod guest;
mod latency;
mod limit;
mod memory;
mod plot;
mod report;
mod sample;

use crate::Result;
use crate::files::{self, WholeFile};
use crate::outcome::{Failure, status};
use args::{BenchArgs, BenchCommand};
use indicatif::{ProgressBar, ProgressStyle};
use report::Report;
use sample::Budget;
use std::io::Write;

/// Measures, prints, writes the files. Everything that can be wrong with the arguments is found before anything is timed.
///
/// # Errors
/// Bad arguments, a file that cannot be written, a guest that cannot be booted.
pub fn run(args: &BenchArgs) -> Result<u8> {
    if let Some(BenchCommand::Boot(args)) = &args.command {
        return boot::run(args);
    }
    args.aes_backend.choose()?;
    let model = args.model()?;
    let guest = guest::Guest::open(args)?;
    let json = args.json.as_deref().map(|path| WholeFile::create("--json", path)).transpose()?;
    let svg = args.svg.as_deref().map(|path| WholeFile::create("--svg", path)).transpose()?;
    let budget = Budget::new(args.quick, args.samples);

    let progress = Progress::new(datapath::steps() + memory::steps() + guest::STEPS);
    let (limit, datapath) = datapath::measure(&budget, &args.aes_backend.backends(), &progress)?;
    let memory = memory::measure(&budget, &progress)?;
    let trace = guest.run(&progress)?;
    progress.end();

    let policies = model.policies(&trace);
    let report = Report { budget, limit, datapath, memory, trace, model, policies };
    let printed = std::io::stdout().lock().write_all(report.table().as_bytes());
    printed.map_err(|e| Failure::Host(format!("standard output: {}", files::reason(&e))))?;
    if let Some(file) = json {
        let text = report.json();
        file.finish(|out| out.write_all(text.as_bytes()))?;
    }
    if let Some(file) = svg {
        let text = plot::render(&plot::panels(&report)).map_err(|e| Failure::Host(format!("--svg: {e}")))?;
        file.finish(|out| out.write_all(text.as_bytes()))?;
    }
    Ok(status::SUCCESS)
}

/// A line on standard error, if that is a terminal.
pub struct Progress(ProgressBar);

impl Progress {
    fn new(steps: usize) -> Progress {
        let bar = ProgressBar::new(steps as u64);
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {percent:>3} % {eta:>4}  {msg}") {
            bar.set_style(style);
        }
        Progress(bar)
    }

    /// The next step, in words.
    fn step(&self, what: &str) {
        self.0.set_message(what.to_owned());
        self.0.inc(1);
    }

    /// What the step has come to.
    fn say(&self, what: &str) {
        self.0.set_message(what.to_owned());
    }

    fn end(&self) {
        self.0.finish_and_clear();
    }
}
