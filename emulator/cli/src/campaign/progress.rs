//! How far a campaign is.

use crate::outcome::{Failure, status};
use ::campaign::engine::Observer;
use ::campaign::row::{Outcome, Row};
use indicatif::{ProgressBar, ProgressStyle};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::fmt::Write;
use std::io::{IsTerminal, stderr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Between two lines where there is no terminal for a bar.
const INTERVAL: Duration = Duration::from_secs(10);

/// A bar on a terminal, a line from time to time elsewhere.
pub struct Progress {
    bar: ProgressBar,
    counts: [u64; Outcome::ALL.len()],
    started: Instant,
    /// Rows of this run.
    rows: u64,
    told: Instant,
    stopped: Arc<AtomicBool>,
}

impl Progress {
    /// # Errors
    /// Signals cannot be caught.
    pub fn new() -> Result<Progress, Failure> {
        let stopped = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, stopped.clone())
                .map_err(|e| Failure::Host(format!("cannot catch signal {signal}: {e}")))?;
        }
        let bar = if stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        let now = Instant::now();
        Ok(Progress { bar, counts: [0; Outcome::ALL.len()], started: now, rows: 0, told: now, stopped })
    }

    /// The guest runs to where the golden run starts, or through it.
    pub fn tick(&mut self, what: &str, icount: u64) {
        if self.stopped.load(Ordering::Relaxed) {
            self.clear();
            sayln!("mktme-emu: stopped before the first injection (exit status {})", status::SIGNAL);
            std::process::exit(i32::from(status::SIGNAL));
        }
        self.bar.set_message(format!("{what}: {:.0} million instructions", icount as f64 / 1e6));
        self.bar.tick();
        if !stderr().is_terminal() && self.told.elapsed() >= INTERVAL {
            self.told = Instant::now();
            sayln!("{what}: {:.0} million instructions", icount as f64 / 1e6);
        }
    }

    /// Injections begin.
    pub fn begin(&mut self) {
        self.started = Instant::now();
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}") {
            self.bar.set_style(style);
        }
    }

    fn line(&self, done: u64, total: u64) -> String {
        let seconds = self.started.elapsed().as_secs_f64().max(1e-3);
        let rate = self.rows as f64 / seconds;
        let left = if rate > 0.0 { (total.saturating_sub(done)) as f64 / rate } else { 0.0 };
        let mut line = format!("{rate:.1} a second, {:.0} s left", left);
        for (outcome, count) in Outcome::ALL.iter().zip(self.counts).filter(|(_, count)| *count > 0) {
            // Writing to a string cannot fail.
            let _ = write!(line, ", {count} {outcome}");
        }
        line
    }

    /// Removes the bar.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

impl Observer for Progress {
    fn row(&mut self, row: &Row, done: u64, total: u64) {
        self.rows += 1;
        if let Some(at) = Outcome::ALL.iter().position(|outcome| *outcome == row.outcome) {
            self.counts[at] += 1;
        }
        self.bar.set_length(total);
        self.bar.set_position(done);
        if self.told.elapsed() >= if stderr().is_terminal() { Duration::from_millis(200) } else { INTERVAL } {
            self.told = Instant::now();
            let line = self.line(done, total);
            if stderr().is_terminal() {
                self.bar.set_message(line);
            } else {
                sayln!("{done}/{total}: {line}");
            }
        }
    }

    fn go_on(&mut self) -> bool {
        self.bar.tick();
        !self.stopped.load(Ordering::Relaxed)
    }
}
