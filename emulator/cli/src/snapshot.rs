//! `--savevm` and `--loadvm`: snapshots as files (docs/snapshots.md).

use crate::Result;
use crate::console::Lines;
use crate::files;
use crate::outcome::Failure;
use crate::script;
use crate::value;
use indicatif::{ProgressBar, ProgressStyle};
use machine::{Machine, Snapshot, SnapshotError};
use regex::bytes::Regex;
use std::io::{IsTerminal, stderr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

/// From here on a person wants to know that something is going on.
const PATIENCE: Duration = Duration::from_secs(2);
const LOADVM_ACCEPTED: &str = "a file that --savevm wrote";

/// When a snapshot is to be taken.
#[derive(Debug, Clone)]
pub enum At {
    /// When the run is over, however it ended.
    End,
    /// This many instructions have retired.
    Icount(u64),
    /// The guest's time is this, in nanoseconds.
    Time(u64),
    /// A line of console output matches.
    Console(Regex),
}

/// `--savevm FILE[,at=WHEN][,stop]`
#[derive(Debug, Clone)]
pub struct SaveVm {
    pub path: PathBuf,
    pub at: At,
    /// The run ends there.
    pub stop: bool,
    /// As it was written.
    text: String,
}

impl FromStr for SaveVm {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        const ACCEPTED: &str =
            "accepted: FILE, FILE,at=icount:N, FILE,at=time:TIME, FILE,at=console:REGEX; with ,stop the run ends there";
        let (rest, stop) = text.strip_suffix(",stop").map_or((text, false), |rest| (rest, true));
        let (path, at) = rest.split_once(",at=").map_or((rest, None), |(path, at)| (path, Some(at)));
        if path.is_empty() || stop && at.is_none() {
            return Err(ACCEPTED.into());
        }
        let at = match at.map(|at| at.split_once(':').ok_or(ACCEPTED)).transpose()? {
            None => At::End,
            Some(("icount", n)) => At::Icount(value::count(n)?),
            Some(("time", time)) => {
                At::Time(script::duration(time).ok_or("accepted: a time in ns, us, ms or s, for example 500ms")?)
            }
            Some(("console", regex)) => At::Console(value::regex(regex)?),
            Some(_) => return Err(ACCEPTED.into()),
        };
        Ok(SaveVm { path: path.into(), at, stop, text: text.to_owned() })
    }
}

/// A snapshot that was saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    pub path: PathBuf,
    pub icount: u64,
    pub bytes: u64,
}

/// The snapshots of a run.
#[derive(Default)]
pub struct Saver {
    waiting: Vec<(SaveVm, Lines)>,
    saved: Vec<Saved>,
}

impl Saver {
    pub fn new(wanted: Vec<SaveVm>) -> Saver {
        Saver { waiting: wanted.into_iter().map(|save| (save, Lines::default())).collect(), saved: Vec::new() }
    }

    /// Console output for those that wait for some.
    pub fn output(&mut self, bytes: &[u8]) {
        let watching = self.waiting.iter_mut().filter(|(save, _)| matches!(save.at, At::Console(_)));
        watching.for_each(|(_, lines)| lines.push(bytes));
    }

    /// The next instruction count after `now` at which one is due; `u64::MAX` if there is none.
    pub fn next_icount(&self, now: u64) -> u64 {
        let counts =
            self.waiting.iter().filter_map(|(save, _)| if let At::Icount(n) = save.at { Some(n) } else { None });
        counts.filter(|n| *n > now).min().unwrap_or(u64::MAX)
    }

    /// The next guest time after `now` at which one is due; `u64::MAX` if there is none.
    pub fn next_time(&self, now: u64) -> u64 {
        let times =
            self.waiting.iter().filter_map(|(save, _)| if let At::Time(ns) = save.at { Some(ns) } else { None });
        times.filter(|ns| *ns > now).min().unwrap_or(u64::MAX)
    }

    /// Saves those that are due between two slices. The text of one with `,stop`, if there is one.
    ///
    /// # Errors
    /// A file could not be written.
    pub fn save_due(&mut self, machine: &mut Machine) -> Result<Option<String>> {
        if self.waiting.is_empty() {
            return Ok(None);
        }
        let (icount, now) = (machine.cpu.icount(), machine.cpu.now().0);
        let mut stop = None;
        let mut due = Vec::new();
        self.waiting.retain_mut(|(save, lines)| {
            let is_due = match &save.at {
                At::End => false,
                At::Icount(n) => icount >= *n,
                At::Time(ns) => now >= *ns,
                At::Console(regex) => lines.find(regex),
            };
            if is_due {
                due.push(save.clone());
            }
            !is_due
        });
        for save in due {
            self.save(machine, &save)?;
            if save.stop {
                stop.get_or_insert(save.text);
            }
        }
        Ok(stop)
    }

    /// Saves those that are due when the run is over. The texts of those that never were.
    ///
    /// # Errors
    /// A file could not be written.
    pub fn finish(&mut self, machine: &mut Machine) -> Result<Vec<String>> {
        let mut missed = Vec::new();
        for (save, _) in std::mem::take(&mut self.waiting) {
            match save.at {
                At::End => self.save(machine, &save)?,
                _ => missed.push(save.text),
            }
        }
        Ok(missed)
    }

    fn save(&mut self, machine: &mut Machine, save: &SaveVm) -> Result<()> {
        let snapshot = machine.snapshot();
        let mut progress = Progress::new("saving", &save.path);
        let bytes = snapshot.save(&save.path, &mut |done, of| progress.tick(done, of)).map_err(|e| {
            let why = match e {
                SnapshotError::Io(e) => files::reason(&e),
                e => e.to_string(),
            };
            Failure::Host(format!("--savevm {}: {why}", save.path.display()))
        })?;
        self.saved.push(Saved { path: save.path.clone(), icount: snapshot.icount(), bytes });
        Ok(())
    }

    /// Those that were saved.
    pub fn saved(&self) -> &[Saved] {
        &self.saved
    }
}

/// Finds out before the run whether its snapshots can be written.
///
/// # Errors
/// One that cannot.
pub fn check(wanted: &[SaveVm]) -> Result<()> {
    for save in wanted {
        let file = files::WholeFile::create("--savevm", &save.path)?;
        if !file.is_replaced() {
            let path = save.path.display();
            return Err(Failure::usage(format!(
                "--savevm {path}: not a regular file; accepted: a file that can be replaced"
            )));
        }
    }
    Ok(())
}

/// Reads the snapshot that a run starts from.
///
/// # Errors
/// A file that is none.
pub fn load(path: &Path) -> Result<Snapshot> {
    let mut progress = Progress::new("loading", path);
    Snapshot::load(path, &mut |done, of| progress.tick(done, of)).map_err(|e| refused(path, &e))
}

/// A snapshot that the run cannot start from.
pub fn refused(path: &Path, e: &SnapshotError) -> Failure {
    let (why, accepted) = match e {
        SnapshotError::Io(e) => (files::reason(e), LOADVM_ACCEPTED),
        SnapshotError::Config(_) => (e.to_string(), "the machine of the snapshot, which is what it is without options"),
        e => (e.to_string(), LOADVM_ACCEPTED),
    };
    Failure::Usage(format!("--loadvm {}: {why}; accepted: {accepted}", path.display()))
}

/// A bar on standard error, where that is a terminal, after some time.
struct Progress {
    started: Instant,
    what: String,
    bar: Option<ProgressBar>,
}

impl Progress {
    fn new(doing: &str, path: &Path) -> Progress {
        Progress { started: Instant::now(), what: format!("{doing} {}", path.display()), bar: None }
    }

    fn tick(&mut self, done: u64, of: u64) {
        // A page takes a microsecond or two.
        if !done.is_multiple_of(1024) || self.started.elapsed() < PATIENCE || !stderr().is_terminal() {
            return;
        }
        let bar = self.bar.get_or_insert_with(|| {
            let bar = ProgressBar::new(of);
            if let Ok(style) = ProgressStyle::with_template("{msg} [{bar:30}] {percent} %, {eta} left") {
                bar.set_style(style);
            }
            bar.set_message(self.what.clone());
            bar
        });
        bar.set_position(done);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> std::result::Result<SaveVm, String> {
        text.parse()
    }

    #[test]
    fn a_snapshot_is_a_file_and_a_time() {
        let save = parsed("a,b.snap").unwrap();
        assert!(save.path == Path::new("a,b.snap") && matches!(save.at, At::End) && !save.stop);
        assert!(matches!(parsed("x,at=icount:5M").unwrap().at, At::Icount(5_000_000)));
        assert!(matches!(parsed("x,at=time:1s").unwrap().at, At::Time(1_000_000_000)));
        let save = parsed("x,at=console:a,b: c,stop").unwrap();
        assert!(matches!(save.at, At::Console(regex) if regex.as_str() == "a,b: c") && save.stop);
        for text in
            ["", ",at=icount:1", "x,at=", "x,at=icount:", "x,at=pc:1", "x,at=time:soon", "x,at=console:(", "x,stop"]
        {
            assert!(parsed(text).unwrap_err().contains("accepted:"), "{text}");
        }
    }

    #[test]
    fn the_next_time_is_the_nearest_one_to_come() {
        let saver = Saver::new(["a,at=icount:7", "b,at=icount:5", "c,at=time:3us"].map(|t| t.parse().unwrap()).into());
        assert_eq!([0, 5, 7].map(|now| saver.next_icount(now)), [5, 7, u64::MAX]);
        assert_eq!([0, 3_000].map(|now| saver.next_time(now)), [3_000, u64::MAX]);
    }
}
