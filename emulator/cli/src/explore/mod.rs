//! `mktme-emu explore`: one guest under many seeds and cache policies, and which outcomes there are. Whether a bug of
//! aliased KeyIDs shows depends on what is evicted when; on real machines that is chance. docs/explore.md is the user's page.
//!
//! Reading order: this file (options and their checks, the work), [`policy`] (what is varied), [`child`] (one run),
//! [`report`] (what came of it).

pub mod child;
pub mod policy;
pub mod report;

use crate::Result;
use crate::args::{Action, Cli, RunArgs, accept_single_dashes};
use crate::files::{self, WholeFile};
use crate::outcome::{Failure, status};
use crate::value::{self, SerialSink};
use child::{Child, Observed};
use clap::{Args, Parser};
use indicatif::{ProgressBar, ProgressStyle};
use policy::Policy;
use regex::bytes::Regex;
use report::Report;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::ffi::OsString;
use std::io::{IsTerminal, Write, stderr, stdout};
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Exit status: the runs did not all end alike.
const DIFFERENT: u8 = 1;
/// Between two lines about the progress where there is no terminal for a bar.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);

/// The options.
#[derive(Debug, Args)]
pub struct ExploreArgs {
    /// Seeds to try, with every policy
    #[arg(long, value_name = "N", default_value = "8", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub seeds: u64,
    /// The first seed; the others follow it
    #[arg(long, value_name = "N", default_value = "0")]
    pub first_seed: u64,
    /// Cache policies, comma-separated [default: all; only `given` if the run has options about the cache]
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = Policy::from_str, long_help = policy::HELP)]
    pub policies: Vec<Policy>,
    /// Runs at a time [default: one for each processor core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub jobs: Option<u16>,
    /// Tell outcomes apart by what this first captures on a line of console output, not by all the output: console:REGEX
    #[arg(long, value_name = "WHAT", value_parser = capture)]
    pub outcome: Option<Regex>,
    /// Write the result as JSON, too
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// `run` and its options, after `--`
    #[arg(last = true, required = true, value_name = "run ...")]
    pub run: Vec<OsString>,
}

/// `console:REGEX`
fn capture(text: &str) -> std::result::Result<Regex, String> {
    let regex = text.strip_prefix("console:").ok_or("accepted: console:REGEX, for example 'console:result: (.*)'")?;
    value::regex(regex)
}

/// Everything that is varied: one run.
#[derive(Debug, Clone, Copy)]
pub struct Job {
    pub seed: u64,
    pub policy: Policy,
}

/// Runs the subcommand.
pub fn main(args: &ExploreArgs) -> ExitCode {
    match explore(args) {
        Ok(status) => ExitCode::from(status),
        Err(failure) => {
            sayln!("mktme-emu: explore: {failure}");
            ExitCode::from(failure.status())
        }
    }
}

fn explore(args: &ExploreArgs) -> Result<u8> {
    let policies = check(args)?;
    let json = args.json.as_deref().map(|path| WholeFile::create("--json", path)).transpose()?;
    if args.first_seed.checked_add(args.seeds - 1).is_none() {
        return Err(Failure::usage(
            "--first-seed: the seeds after it do not fit into 64 bits; accepted: a smaller number",
        ));
    }
    let seeds = args.first_seed..=args.first_seed + (args.seeds - 1);
    let jobs: Vec<Job> = seeds.flat_map(|seed| policies.iter().map(move |&policy| Job { seed, policy })).collect();

    let stopped = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, stopped.clone())
            .map_err(|e| Failure::Host(format!("cannot catch signal {signal}: {e}")))?;
    }
    let observed = run_all(args, &jobs, &stopped)?;
    let report = Report::new(&args.run, &policies, &jobs, &observed);
    let written = write!(stdout(), "{report}");
    written.map_err(|e| Failure::Host(format!("standard output: {}", files::reason(&e))))?;
    if let Some(file) = json {
        file.finish(|out| writeln!(out, "{}", report.to_json()))?;
    }
    Ok(match report.outcomes() {
        _ if stopped.load(Ordering::Relaxed) => status::SIGNAL,
        0 | 1 => status::SUCCESS,
        _ => DIFFERENT,
    })
}

/// What is wrong with the run to repeat is found before the first one. Returns the policies.
fn check(args: &ExploreArgs) -> Result<Vec<Policy>> {
    const ACCEPTED: &str = "accepted: -- run and the options of a run";
    if args.run.first().is_none_or(|word| word != "run") {
        return Err(Failure::usage(format!("the command after -- is not run; {ACCEPTED}")));
    }
    let argv = accept_single_dashes([OsString::from("mktme-emu")].into_iter().chain(args.run.iter().cloned()));
    let cli = Cli::try_parse_from(argv).map_err(|e| Failure::Usage(format!("in the command after --: {e}")))?;
    let Action::Run(run) = cli.into_action() else { return Err(Failure::usage(ACCEPTED)) };
    let chosen = |option: &str| {
        Err(Failure::usage(format!("{option} in the command after --: each run has its own; accepted: run without it")))
    };
    if run.seed.is_some() {
        return chosen("--seed");
    }
    for (given, option) in [
        (matches!(run.serial, SerialSink::File(_)), "-serial file:"),
        (run.log_file.is_some(), "-D"),
        (run.dump_dram.is_some(), "--dump-dram"),
        (run.record.bus_trace.is_some(), "--bus-trace"),
        (run.sanitizer.sanitize_json.is_some(), "--sanitize-json"),
        (run.machine_show, "--machine-show"),
        (!run.savevm.is_empty(), "--savevm"),
        (run.loadvm.is_some(), "--loadvm"),
    ] {
        if given {
            return chosen(option);
        }
    }
    let has_policy = has_policy(&run);
    let conflict = args.policies.iter().find(|p| has_policy && **p != Policy::Given);
    match conflict {
        Some(policy) => Err(Failure::usage(format!(
            "--policies {}: the command after -- has options about the cache; accepted: given",
            policy.name()
        ))),
        None if has_policy => Ok(vec![Policy::Given]),
        None if args.policies.is_empty() => Ok(Policy::VARIED.to_vec()),
        None => {
            let mut policies = args.policies.clone();
            policies.sort_unstable();
            policies.dedup();
            Ok(policies)
        }
    }
}

/// The run says itself how the cache is to be.
fn has_policy(run: &RunArgs) -> bool {
    run.cache.is_some()
        || run.cache_size.is_some()
        || run.cache_ways.is_some()
        || run.wb_order.is_some()
        || run.evict_rate.is_some()
        || run.prefetch.is_some()
}

/// Runs the jobs; those that were not run before a signal have `None`.
fn run_all(args: &ExploreArgs, jobs: &[Job], stopped: &AtomicBool) -> Result<Vec<Option<Observed>>> {
    let program = std::env::current_exe()
        .map_err(|e| Failure::Host(format!("cannot find this program: {}", files::reason(&e))))?;
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let threads = args.jobs.map_or_else(cores, usize::from).min(jobs.len());
    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let mut observed: Vec<Option<Observed>> = jobs.iter().map(|_| None).collect();
    let mut failure = None;
    std::thread::scope(|scope| {
        let (send, receive) = mpsc::channel();
        for _ in 0..threads {
            let (send, next, failed, program) = (send.clone(), &next, &failed, &program);
            scope.spawn(move || {
                while !stopped.load(Ordering::Relaxed) && !failed.load(Ordering::Relaxed) {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(job) = jobs.get(index) else { break };
                    let result = Child { program, run: &args.run, job }.run(args.outcome.as_ref());
                    failed.fetch_or(result.is_err(), Ordering::Relaxed);
                    if send.send((index, result)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(send);
        let mut progress = Progress::new(jobs.len());
        for (index, result) in receive {
            match result {
                Ok(one) => observed[index] = Some(one),
                Err(e) => failure = failure.take().or(Some(e)),
            }
            progress.one_more();
        }
        progress.end();
    });
    // A run that a signal to all of us has ended tells nothing.
    if stopped.load(Ordering::Relaxed) {
        observed.iter_mut().for_each(|o| *o = o.take().filter(|o| o.status != i32::from(status::SIGNAL)));
        return Ok(observed);
    }
    failure.map_or(Ok(observed), Err)
}

/// How far it is, on standard error.
struct Progress {
    bar: Option<ProgressBar>,
    done: usize,
    total: usize,
    told: Instant,
}

impl Progress {
    fn new(total: usize) -> Progress {
        let bar = stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(total as u64);
            if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} runs, {eta} to go") {
                bar.set_style(style);
            }
            bar
        });
        Progress { bar, done: 0, total, told: Instant::now() }
    }

    fn one_more(&mut self) {
        self.done += 1;
        match &self.bar {
            Some(bar) => bar.inc(1),
            None if self.told.elapsed() >= PROGRESS_INTERVAL => {
                self.told = Instant::now();
                sayln!("mktme-emu: explore: {} of {} runs", self.done, self.total);
            }
            None => {}
        }
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
