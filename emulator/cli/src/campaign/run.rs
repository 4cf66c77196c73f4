//! `campaign check` and `campaign run`.

use super::progress::Progress;
use super::{CheckArgs, RunArgs, ShardArg, print};
use crate::Result;
use crate::outcome::{Failure, status};
use crate::summary::grouped;
use ::campaign::directory::Directory;
use ::campaign::engine::{self, Options};
use ::campaign::experiment::{Ready, Shortcuts};
use ::campaign::golden::Start;
use ::campaign::journal::Journal;
use ::campaign::plan::PlanFile;
use ::campaign::results;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

pub fn check(args: &CheckArgs) -> Result<u8> {
    let file = PlanFile::read(&args.plan)?;
    let mut progress = Progress::new()?;
    let start = Start::reach(&file, &mut |icount| progress.tick("to the start", icount))?;
    let ready = Ready::prepare(file, &start, &mut |icount| progress.tick("golden run", icount))?;
    progress.clear();
    print(&described(&ready))?;
    Ok(status::SUCCESS)
}

/// The golden run and the fault spaces.
fn described(ready: &Ready) -> String {
    let golden = &ready.campaign.golden;
    let mut text = format!(
        "golden run     instructions {} to {}: {}, state hash {}\n",
        golden.start,
        golden.end,
        grouped(golden.end - golden.start),
        golden.state_hash
    );
    for (from, name) in &golden.phases {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  phase        {name}, from instruction {from}");
    }
    for of in &ready.campaign.strata {
        let _ = writeln!(
            text,
            "stratum        {}: {} of {} faults\n  faults       {}",
            of.name,
            grouped(of.injections),
            grouped(of.population),
            of.faults
        );
    }
    text
}

pub fn run(args: &RunArgs) -> Result<u8> {
    let ShardArg(shard) = args.shard;
    let file = PlanFile::read(&args.plan)?;
    if file.plan.statistics.stop && shard.parts > 1 {
        return Err(Failure::usage(
            "--shard: where strata end is decided by all their results (statistics.stop = true); accepted: --shard with a \
             plan that has stop = false, or the campaign as a whole",
        ));
    }
    let directory = Directory::new(&args.out.clone().unwrap_or_else(|| default_directory(&args.plan)));
    let results = directory.results(shard);
    let mut progress = Progress::new()?;
    let started = Instant::now();
    let start = directory.start(&file, true, &mut |icount| progress.tick("to the start", icount))?;
    let reached = started.elapsed();
    let ready = Arc::new(Ready::prepare(file, &start, &mut |icount| progress.tick("golden run", icount))?);
    if results.exists() {
        let table = results::read(&results).map_err(Failure::usage)?;
        if table.campaign.identity != ready.campaign.identity {
            return Err(Failure::Usage(format!(
                "{}: the results of another campaign, or of another plan or guest; accepted: another directory for this one \
                 (-o)",
                results.display()
            )));
        }
        progress.clear();
        print(&format!("{}: complete already\n", results.display()))?;
        return Ok(status::SUCCESS);
    }
    let path = directory.journal(shard);
    let (mut journal, rows) = Journal::open(&path, &ready.campaign, shard)?;
    let before = rows.len();
    let jobs = args.jobs.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from);
    let shortcuts = if args.no_shortcuts { Shortcuts::NONE } else { Shortcuts::ALL };
    progress.begin();
    let injecting = Instant::now();
    let finished = engine::run(&ready, &mut journal, rows, Options { shard, jobs, shortcuts }, &mut progress)?;
    progress.clear();
    let (seconds, made) = (injecting.elapsed().as_secs_f64(), finished.rows.len().saturating_sub(before));
    sayln!(
        "mktme-emu: {made} injections in {seconds:.1} s, {:.1} a second; {:.1} s to their start",
        made as f64 / seconds.max(1e-3),
        reached.as_secs_f64()
    );
    if !finished.complete {
        sayln!(
            "mktme-emu: stopped after {} injections; the same command goes on from there (exit status {})",
            finished.rows.len(),
            status::SIGNAL
        );
        return Ok(status::SIGNAL);
    }
    results::write(&results, &finished.campaign, shard, &finished.rows)
        .map_err(|e| Failure::Host(format!("{e}; the journal has them: run the same command again")))?;
    // Everything in it is in the results.
    drop(journal);
    let _ = std::fs::remove_file(&path);
    let table = results::Table { campaign: finished.campaign, shard, rows: finished.rows };
    print(&::campaign::report::text(&table))?;
    print(&format!("results        {}\n", results.display()))?;
    Ok(status::SUCCESS)
}

fn default_directory(plan: &Path) -> PathBuf {
    let directory = plan.with_extension("");
    if directory == plan { plan.with_extension("campaign") } else { directory }
}
