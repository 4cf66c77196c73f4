//! A sign of life while the guest is silent, for somebody who sees standard error but not the console.

use indicatif::{ProgressBar, ProgressStyle};
use std::io::{IsTerminal, stderr, stdout};
use std::time::{Duration, Instant};

/// How long a guest may be silent before anybody wonders.
const SILENCE: Duration = Duration::from_secs(2);

pub struct Progress {
    enabled: bool,
    last_output: Instant,
    started: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// `quiet`: the console does not go to standard output anyway, or standard error has a log on it.
    pub fn new(quiet: bool) -> Progress {
        let now = Instant::now();
        let enabled = !quiet && stderr().is_terminal() && !stdout().is_terminal();
        Progress { enabled, last_output: now, started: now, bar: None }
    }

    /// The guest printed something.
    pub fn output(&mut self) {
        if self.enabled {
            self.last_output = Instant::now();
            self.clear();
        }
    }

    /// Called between slices.
    pub fn tick(&mut self, icount: u64) {
        if !self.enabled || self.last_output.elapsed() < SILENCE {
            return;
        }
        let started = self.started;
        let bar = self.bar.get_or_insert_with(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
                bar.set_style(style);
            }
            bar
        });
        let seconds = started.elapsed().as_secs_f64();
        let millions = icount as f64 / 1e6;
        bar.set_message(format!(
            "{millions:.0} million instructions, {:.0} s, {:.0} MIPS",
            seconds,
            millions / seconds
        ));
        bar.tick();
    }

    /// Removes the line.
    pub fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}
