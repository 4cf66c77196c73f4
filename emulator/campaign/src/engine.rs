//! All injections of a campaign, on all processors of the host.
//!
//! Threads have a machine each and share the snapshots of the golden run. They take injections in the order of their triggers,
//! so that each restore goes a short way. Results come back in any order; none of them depends on it.

use crate::error::{CampaignError, Result};
use crate::experiment::{Injection, Ready, Shortcuts};
use crate::guest::Guest;
use crate::journal::Journal;
use crate::meta::{Campaign, Shard};
use crate::row::{Outcome, Row};
use crate::stats::{self, Confidence};
use machine::Machine;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::panic;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Once};
use std::thread;
use std::time::{Duration, Instant};

/// Between two times that the journal is made durable, and that the caller is asked whether to go on.
const PERIOD: Duration = Duration::from_millis(500);
/// After so many tool errors something is wrong with the tool, not with an injection.
const TOOL_ERRORS_MAX: usize = 100;

/// How to run.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    pub shard: Shard,
    /// Threads.
    pub jobs: usize,
    pub shortcuts: Shortcuts,
}

/// Told about what was done, and asked whether to go on.
pub trait Observer {
    /// A row is done. `done` of `total`, those of earlier runs among them.
    fn row(&mut self, row: &Row, done: u64, total: u64);
    /// False: stop soon.
    fn go_on(&mut self) -> bool;
}

/// How it went.
pub struct Finished {
    /// All rows by number.
    pub rows: Vec<Row>,
    /// The campaign, with the strata that were ended early.
    pub campaign: Campaign,
    /// False: the observer stopped it.
    pub complete: bool,
}

/// Makes all injections of a shard that the journal does not have.
///
/// # Errors
/// A fault that cannot fire; a journal that cannot be written. What was done is in the journal.
pub fn run(
    ready: &Arc<Ready>,
    journal: &mut Journal,
    mut rows: BTreeMap<u64, Row>,
    options: Options,
    observer: &mut dyn Observer,
) -> Result<Finished> {
    let mut campaign = ready.campaign.clone();
    let statistics = &ready.file.plan.statistics;
    let confidence = ready.file.plan.confidence()?;
    // Where a stratum ends is looked at for its first injections by number, whatever else is done already.
    let mut next: Vec<u64> = campaign.strata.iter().map(|of| of.first).collect();
    loop {
        let mut due = Vec::new();
        for (of, next) in campaign.strata.iter_mut().zip(&mut next) {
            let end = of.first + of.injections;
            if of.stopped_after.is_some() || *next >= end {
                continue;
            }
            let done = rows.range(of.first..*next).map(|(_, row)| row);
            if statistics.stop && *next > of.first && narrow(done, of.population, confidence, statistics.margin) {
                of.stopped_after = Some(*next - of.first);
                continue;
            }
            let to = if statistics.stop { end.min(next.saturating_add(statistics.batch)) } else { end };
            due.extend((*next..to).filter(|id| options.shard.has(*id) && !rows.contains_key(id)));
            *next = to;
        }
        let total = total(&campaign, options.shard);
        if !due.is_empty() {
            let complete = Round { ready, options, total, observer, journal, rows: &mut rows }.run(due)?;
            if !complete {
                return Ok(Finished { rows: rows.into_values().collect(), campaign, complete });
            }
        }
        let over =
            |(of, next): (&crate::meta::Stratum, &u64)| of.stopped_after.is_some() || *next >= of.first + of.injections;
        if campaign.strata.iter().zip(&next).all(over) {
            break;
        }
    }
    journal.sync()?;
    // A journal may have rows from behind the end of a stratum, if a run was stopped there.
    rows.retain(|id, _| {
        let of = campaign.strata.iter().find(|of| (of.first..of.first + of.injections).contains(id));
        of.is_some_and(|of| of.stopped_after.is_none_or(|n| *id < of.first + n))
    });
    Ok(Finished { rows: rows.into_values().collect(), campaign, complete: true })
}

/// Injections to be made, as far as that is known.
fn total(campaign: &Campaign, shard: Shard) -> u64 {
    let count = |of: &crate::meta::Stratum| {
        let n = of.stopped_after.unwrap_or(of.injections);
        let before = |end: u64| (end + shard.parts - shard.part) / shard.parts;
        before(of.first + n) - before(of.first)
    };
    campaign.strata.iter().map(count).sum()
}

fn narrow<'a>(rows: impl Iterator<Item = &'a Row>, population: u64, confidence: Confidence, margin: f64) -> bool {
    let mut counts = [0u64; Outcome::ALL.len()];
    let mut n = 0;
    for row in rows {
        n += 1;
        if let Some(at) = Outcome::ALL.iter().position(|outcome| *outcome == row.outcome) {
            counts[at] += 1;
        }
    }
    stats::enough(&counts, n, population, confidence, margin)
}

thread_local! {
    /// The injection that this thread makes, and where its failure is told.
    static UNDER_WAY: Cell<Option<Box<Failing>>> = const { Cell::new(None) };
}

/// Where a thread tells that it failed.
struct Failing {
    ready: Arc<Ready>,
    injection: Injection,
    to: Sender<Message>,
}

enum Message {
    Done(Box<Row>),
    /// The fault cannot be injected.
    Refused(CampaignError),
    /// The thread has failed with this injection, and is gone.
    Failed(Box<Row>),
    /// The thread found nothing more to do.
    Idle,
}

/// The injections between two looks at the intervals.
struct Round<'a> {
    ready: &'a Arc<Ready>,
    options: Options,
    total: u64,
    observer: &'a mut dyn Observer,
    journal: &'a mut Journal,
    rows: &'a mut BTreeMap<u64, Row>,
}

/// What the threads of a round share.
struct Shared {
    due: Vec<Injection>,
    next: AtomicUsize,
    stop: AtomicBool,
}

impl Round<'_> {
    /// Makes the injections. False: the observer stopped them.
    fn run(mut self, due: Vec<u64>) -> Result<bool> {
        let mut due = due.into_iter().map(|id| self.ready.injection(id)).collect::<Result<Vec<_>>>()?;
        due.sort_by_key(|injection| (injection.planned().unwrap_or(0), injection.id));
        let jobs = self.options.jobs.clamp(1, due.len().max(1));
        let shared = Arc::new(Shared { due, next: AtomicUsize::new(0), stop: AtomicBool::new(false) });
        let (to, from) = mpsc::channel();
        catch_panics();
        (0..jobs).try_for_each(|_| self.start(&shared, &to))?;
        let (mut running, mut complete, mut tool_errors) = (jobs, true, 0);
        let mut failure = None;
        let mut last = Instant::now();
        while running > 0 {
            match from.recv_timeout(PERIOD) {
                Ok(Message::Done(row)) => failure = failure.or(self.take(*row).err()),
                Ok(Message::Failed(row)) => {
                    failure = failure.or(self.take(*row).err());
                    tool_errors += 1;
                    if tool_errors >= TOOL_ERRORS_MAX {
                        let text = format!("{tool_errors} injections failed in the emulator itself");
                        failure = failure.or(Some(CampaignError::Host(text)));
                    }
                    match failure {
                        None => self.start(&shared, &to)?,
                        Some(_) => running -= 1,
                    }
                }
                Ok(Message::Refused(e)) => failure = failure.or(Some(e)),
                Ok(Message::Idle) => running -= 1,
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
            if failure.is_some() {
                shared.stop.store(true, Ordering::Relaxed);
            }
            if last.elapsed() >= PERIOD {
                last = Instant::now();
                if let Err(e) = self.journal.sync() {
                    failure = failure.or(Some(e));
                }
                if !self.observer.go_on() {
                    complete = false;
                    shared.stop.store(true, Ordering::Relaxed);
                }
            }
        }
        failure.map_or(Ok(complete), Err)
    }

    fn take(&mut self, row: Row) -> Result<()> {
        self.journal.push(&row)?;
        let new = u64::from(!self.rows.contains_key(&row.id));
        self.observer.row(&row, self.rows.len() as u64 + new, self.total);
        self.rows.insert(row.id, row);
        Ok(())
    }

    fn start(&self, shared: &Arc<Shared>, to: &Sender<Message>) -> Result<()> {
        let (ready, shared, to, shortcuts) = (self.ready.clone(), shared.clone(), to.clone(), self.options.shortcuts);
        let thread = thread::Builder::new().name("injections".into());
        let work = move || {
            work(&ready, &shared, &to, shortcuts);
            // Nobody listens any more if the round has failed.
            let _ = to.send(Message::Idle);
        };
        thread.spawn(work).map(drop).map_err(|e| CampaignError::Host(format!("cannot start a thread: {e}")))
    }
}

fn work(ready: &Arc<Ready>, shared: &Shared, to: &Sender<Message>, shortcuts: Shortcuts) {
    let Some(first) = ready.golden.rungs.first() else { return };
    let mut guest = match Machine::from_snapshot(&first.snapshot) {
        Ok(machine) => Guest::new(machine),
        Err(e) => {
            let _ = to.send(Message::Refused(CampaignError::Host(e.to_string())));
            return;
        }
    };
    loop {
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        // One at a time: a thread that fails takes none with it.
        let Some(injection) = shared.due.get(shared.next.fetch_add(1, Ordering::Relaxed)) else { return };
        UNDER_WAY.set(Some(Box::new(Failing { ready: ready.clone(), injection: injection.clone(), to: to.clone() })));
        #[cfg(test)]
        tests::fail(injection.id);
        let result = ready.perform(&mut guest, injection, shortcuts);
        UNDER_WAY.set(None);
        let refused = result.is_err();
        let message = match result {
            Ok(row) => Message::Done(Box::new(row)),
            Err(e) => Message::Refused(e),
        };
        if to.send(message).is_err() || refused {
            return;
        }
    }
}

/// A panic of the emulator is the outcome of an injection, not the end of the campaign. Where a panic aborts, as in the
/// release build, that happens after the hook: the thread never leaves it, since its machine cannot be trusted any more. Where
/// it unwinds, the thread ends. Set once; other threads have the hook from before.
fn catch_panics() {
    static SET: Once = Once::new();
    SET.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| match UNDER_WAY.take() {
            None => before(info),
            Some(failing) => {
                let mut row = failing.ready.blank(&failing.injection);
                row.outcome = Outcome::ToolError;
                row.detail = info.to_string().lines().collect::<Vec<_>>().join(" ");
                let _ = failing.to.send(Message::Failed(Box::new(row)));
                while cfg!(panic = "abort") {
                    thread::park();
                }
            }
        }));
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::Start;
    use crate::plan::PlanFile;
    use std::path::{Path, PathBuf};
    use std::sync::atomic::AtomicU64;

    /// The injection with which a thread fails.
    static FAILS: AtomicU64 = AtomicU64::new(u64::MAX);

    pub(super) fn fail(id: u64) {
        assert_ne!(id, FAILS.load(Ordering::Relaxed), "made to fail");
    }

    struct Patient;

    impl Observer for Patient {
        fn row(&mut self, _: &Row, _: u64, _: u64) {}

        fn go_on(&mut self) -> bool {
            true
        }
    }

    #[test]
    fn a_panic_is_the_outcome_of_one_injection() {
        const PLAN: &str = r#"
name = "test"
machine = { memory = "64M" }
guest = {}
golden = { start = "icount:390000", end = "exit" }
[[stratum]]
name = "registers"
faults = "gpr-flip reg={rax|rcx} bit={0..64} at=icount:{window}"
injections = 40
"#;
        let file = PlanFile::parse(PLAN.to_owned(), PathBuf::new(), Path::new("plan.toml")).expect("a plan");
        let start = Start::reach(&file, &mut |_| {}).expect("a start");
        let ready = Arc::new(Ready::prepare(file, &start, &mut |_| {}).expect("a campaign"));
        let path = std::env::temp_dir().join(format!("mktme-campaign-panic-{}", std::process::id()));
        let (mut journal, rows) = Journal::open(&path, &ready.campaign, Shard::WHOLE).expect("a journal");
        FAILS.store(7, Ordering::Relaxed);
        let options = Options { shard: Shard::WHOLE, jobs: 2, shortcuts: Shortcuts::ALL };
        let finished = run(&ready, &mut journal, rows, options, &mut Patient).expect("rows");
        FAILS.store(u64::MAX, Ordering::Relaxed);
        let _ = std::fs::remove_file(path);
        assert!(finished.complete);
        assert_eq!(finished.rows.iter().map(|row| row.id).collect::<Vec<_>>(), (0..40).collect::<Vec<_>>());
        let failed: Vec<_> = finished.rows.iter().filter(|row| row.outcome == Outcome::ToolError).collect();
        assert_eq!(failed.iter().map(|row| row.id).collect::<Vec<_>>(), [7]);
        assert!(failed[0].detail.contains("made to fail"), "{}", failed[0].detail);
    }
}
