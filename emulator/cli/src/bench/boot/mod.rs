//! `mktme-emu bench boot`: a guest booted by this emulator and by QEMU's TCG or another build, in turns, and what each
//! part of it costs.
//!
//! Reading order: [`args`], [`side`] (the programs and their command lines), [`child`] (one run, watched), [`items`]
//! (runs compared), [`report`].
//!
//! CPU time, not wall time: other work on the host does not count as such. It still slows caches and clocks down, so that
//! only ratios of runs that lie next to each other mean anything.

pub mod args;
mod child;
mod items;
mod report;
mod side;

use super::datapath::{self, LineCost};
use super::sample::Budget;
use super::{Progress, plot};
use crate::Result;
use crate::files::{self, WholeFile};
use crate::modules;
use crate::outcome::{Failure, status};
use args::BootArgs;
use child::{Run, Watch};
use crypto::Backend;
use firmware::MemoryMap;
use firmware::error::KERNELS;
use report::Report;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use side::Side;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Exit status: measured, but the consoles' results are not the same.
const DIFFERENT: u8 = 1;

/// Measures, prints, writes the files. Everything that can be wrong with the arguments is found before anything runs.
///
/// # Errors
/// Bad arguments, a file that cannot be written, a run that fails or hangs.
pub fn run(args: &BootArgs) -> Result<u8> {
    check_guest(args)?;
    let sides = side::both(args)?;
    let processor = pin(args.pin)?;
    let json = args.json.as_deref().map(|path| WholeFile::create("--json", path)).transpose()?;
    let svg = args.svg.as_deref().map(|path| WholeFile::create("--svg", path)).transpose()?;
    let signalled = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, signalled.clone())
            .map_err(|e| Failure::Host(format!("cannot catch signal {signal}: {e}")))?;
    }

    let timeout = Duration::from_secs(args.timeout);
    let watch = Watch { marker: &args.marker, result: &args.result, timeout, signalled: &signalled };
    let progress = Progress::new(usize::from(args.pairs) * sides.len());
    let Some((pairs, lines)) = measure(usize::from(args.pairs), &sides, &watch, &progress)? else {
        return Ok(status::SIGNAL);
    };
    progress.end();

    let report = Report::new(args, sides, processor, pairs, &lines);
    let printed = std::io::stdout().lock().write_all(report.table().as_bytes());
    printed.map_err(|e| Failure::Host(format!("standard output: {}", files::reason(&e))))?;
    if let Some(file) = json {
        let text = report.json();
        file.finish(|out| out.write_all(text.as_bytes()))?;
    }
    if let Some(file) = svg {
        let text = plot::render(&report.panels()).map_err(|e| Failure::Host(format!("--svg: {e}")))?;
        file.finish(|out| out.write_all(text.as_bytes()))?;
    }
    Ok(if report.disagreement.is_none() { status::SUCCESS } else { DIFFERENT })
}

/// Files that are not there are no failure of an emulator.
fn check_guest(args: &BootArgs) -> Result<()> {
    let config = machine::Config::default();
    let ram = args.memory.unwrap_or(config.ram_bytes);
    MemoryMap::new(ram).map_err(Failure::usage)?;
    let ram = (ram, "all of RAM, -m");
    files::read_image("-kernel", &args.kernel, ram, KERNELS)?;
    args.initrd.as_deref().map(|value| modules::read(value, ram, "a cpio archive")).transpose()?;
    Ok(())
}

/// Keeps this thread, and with it the runs, on one processor: moves between processors cost caches, and a program with
/// several threads would pay for their talk across processors.
fn pin(wanted: Option<usize>) -> Result<usize> {
    let host = |e| Failure::Host(format!("--pin: {e}"));
    let allowed = sched_getaffinity(None).map_err(host)?;
    let allowed: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).collect();
    let processor = wanted.or(allowed.last().copied()).unwrap_or(0);
    if !allowed.contains(&processor) {
        let names: Vec<String> = allowed.iter().map(usize::to_string).collect();
        return Err(Failure::Usage(format!("--pin {processor}: not to be had; accepted: {}", names.join(", "))));
    }
    let mut set = CpuSet::new();
    set.set(processor);
    sched_setaffinity(None, &set).map_err(host)?;
    Ok(processor)
}

type Measured = (Vec<[Run; 2]>, Vec<LineCost>);

/// Pairs of runs, and what a line costs the cipher, measured between them. `None`: signalled.
fn measure(pairs: usize, sides: &[Side; 2], watch: &Watch, progress: &Progress) -> Result<Option<Measured>> {
    let budget = Budget::new(true, None);
    let backend = Backend::available().last().unwrap_or(Backend::Portable);
    let (mut measured, mut lines) = (Vec::new(), Vec::new());
    for pair in 1..=pairs {
        let mut runs = [None, None];
        // The second pair begins with the other side, and so on: a host that slows down steadily slows both alike.
        let order = if pair % 2 == 1 { [0, 1] } else { [1, 0] };
        for side in order {
            let name = &sides[side].name;
            let mut tick = |item: &str, cpu: f64| {
                let item = if item.is_empty() { "boot" } else { item };
                progress.say(&format!("pair {pair} of {pairs}, {name}: {item}, {cpu:.1} s"));
            };
            runs[side] = child::run(&sides[side], watch, &mut tick)?;
            if runs[side].is_none() {
                return Ok(None);
            }
            progress.step("");
        }
        lines.push(datapath::line_cost(&budget, backend));
        if let [Some(ours), Some(other)] = runs {
            measured.push([ours, other]);
        }
    }
    Ok(Some((measured, lines)))
}
