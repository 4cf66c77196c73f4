//! One run of an emulator, watched: its console with the CPU time at each marker, and what it cost in the end.

use super::side::Side;
use crate::Result;
use crate::files;
use crate::outcome::Failure;
use crate::summary::peak_kib;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use regex::Regex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How often a silent run is looked at.
const TICK: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
/// Longest line of console output that is looked at as a whole.
const LINE_MAX: usize = 64 << 10;
/// How much of standard error is kept: the end, where the reason is.
const ERRORS_MAX: usize = 16 << 10;
/// Result lines that are kept.
const RESULTS_MAX: usize = 10_000;

/// How runs are watched.
pub struct Watch<'a> {
    pub marker: &'a Regex,
    pub result: &'a Regex,
    pub timeout: Duration,
    /// Somebody wants everything to end.
    pub signalled: &'a AtomicBool,
}

/// A marker's name, and the CPU seconds of the process until it was on the console.
#[derive(Debug, Clone, PartialEq)]
pub struct Mark {
    pub name: String,
    pub cpu: f64,
}

/// A run that ended well.
#[derive(Debug, Clone, Default)]
pub struct Run {
    pub marks: Vec<Mark>,
    pub results: Vec<String>,
    /// CPU seconds of the process with all its threads.
    pub user: f64,
    pub system: f64,
    pub wall: f64,
    /// Largest resident size seen, KiB.
    pub peak_kib: u64,
    /// The end of what went to standard error.
    pub errors: String,
}

impl Run {
    pub fn cpu(&self) -> f64 {
        self.user + self.system
    }
}

/// Runs it to its end. `tick` is told now and then at what item the run is and its CPU seconds. `None`: signalled.
///
/// # Errors
/// The process cannot be started, fails, or hangs.
pub fn run(side: &Side, watch: &Watch, tick: &mut dyn FnMut(&str, f64)) -> Result<Option<Run>> {
    let host = |what: &str, e: &dyn std::fmt::Display| Failure::Host(format!("{}: {what}: {e}", side.name));
    let before = children_cpu();
    let start = Instant::now();
    let mut command = Command::new(&side.program);
    command.args(&side.arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().map_err(|e| host(&side.program.display().to_string(), &files::reason(&e)))?;
    let mut child = Guard(child);
    let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(child.0.id() as i32)).map_err(|e| host("CPU clock", &e))?;
    let cpu = || clock_gettime(clock).map_or(0.0, |t| t.num_nanoseconds() as f64 / 1e9);
    let (Some(mut out), Some(mut err)) = (child.0.stdout.take(), child.0.stderr.take()) else {
        return Err(host("pipe", &"none"));
    };
    let mut console = Console { watch, line: Vec::new(), last: String::new(), run: Run::default() };
    let (mut open, mut buf) = ([true; 2], vec![0; 64 << 10]);
    while open != [false; 2] {
        if watch.signalled.load(Ordering::Relaxed) {
            return Ok(None);
        }
        if start.elapsed() > watch.timeout {
            return Err(hung(side, watch, &console));
        }
        let mut fds = vec![];
        fds.extend(open[0].then(|| PollFd::new(&out, PollFlags::IN)));
        fds.extend(open[1].then(|| PollFd::new(&err, PollFlags::IN)));
        match poll(&mut fds, Some(&TICK)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(host("poll", &e)),
        }
        let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
        let ready = open.map(|open| open && ready.next().unwrap_or(false));
        if ready[0] {
            let n = read(&mut out, &mut buf).map_err(|e| host("its console", &files::reason(&e)))?;
            open[0] = n > 0;
            console.push(&buf[..n], cpu());
        }
        if ready[1] {
            let n = read(&mut err, &mut buf).map_err(|e| host("its standard error", &files::reason(&e)))?;
            open[1] = n > 0;
            console.errors(&buf[..n]);
        }
        // A process that has ended has no memory any more.
        console.run.peak_kib = console.run.peak_kib.max(peak_kib(child.0.id()).unwrap_or(0));
        tick(console.run.marks.last().map_or("", |mark| &mark.name), cpu());
    }
    // A process may close its streams and go on; only its end is the end.
    let status = loop {
        if let Some(status) = child.0.try_wait().map_err(|e| host("wait", &e))? {
            break status;
        }
        if watch.signalled.load(Ordering::Relaxed) {
            return Ok(None);
        }
        if start.elapsed() > watch.timeout {
            return Err(hung(side, watch, &console));
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    let after = children_cpu();
    let mut run = console.finish();
    (run.user, run.system) = (after.0 - before.0, after.1 - before.1);
    run.wall = start.elapsed().as_secs_f64();
    if !status.success() {
        return Err(failed(side, status, &run));
    }
    Ok(Some(run))
}

fn hung(side: &Side, watch: &Watch, console: &Console) -> Failure {
    Failure::Host(format!(
        "{}: has not ended after {} s and was killed (--timeout); its last console line: {:?}; accepted: a guest that \
         ends by itself",
        side.name,
        watch.timeout.as_secs(),
        console.last
    ))
}

fn failed(side: &Side, status: ExitStatus, run: &Run) -> Failure {
    let errors = run.errors.trim();
    let said = if errors.is_empty() { "nothing on its standard error".to_owned() } else { errors.to_owned() };
    Failure::Host(format!("{}: ended with {status}; it says:\n{said}", side.name))
}

/// A child that does not outlive its reader.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        // It may have ended, which is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn read(stream: &mut impl Read, buf: &mut [u8]) -> std::io::Result<usize> {
    loop {
        match stream.read(buf) {
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// User and system CPU seconds of all children that have been waited for.
fn children_cpu() -> (f64, f64) {
    let seconds = |t: nix::sys::time::TimeVal| t.num_microseconds() as f64 / 1e6;
    // getrusage(2) fails for bad arguments only.
    getrusage(UsageWho::RUSAGE_CHILDREN).map_or((0.0, 0.0), |u| (seconds(u.user_time()), seconds(u.system_time())))
}

/// Takes output apart.
struct Console<'a> {
    watch: &'a Watch<'a>,
    line: Vec<u8>,
    /// The last line that was not empty.
    last: String,
    run: Run,
}

impl Console<'_> {
    /// `cpu`: of the process when the bytes had been read.
    fn push(&mut self, bytes: &[u8], cpu: f64) {
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            self.line.extend_from_slice(piece);
            if piece.ends_with(b"\n") || self.line.len() >= LINE_MAX {
                self.end_line(cpu);
            }
        }
    }

    fn end_line(&mut self, cpu: f64) {
        let text = String::from_utf8_lossy(&std::mem::take(&mut self.line)).into_owned();
        let text = text.trim_end_matches(['\r', '\n']);
        if text.is_empty() {
            return;
        }
        self.last = text.to_owned();
        if let Some(found) = self.watch.marker.captures(text) {
            let name = found.get(1).or_else(|| found.get(0)).map_or("", |m| m.as_str());
            self.run.marks.push(Mark { name: name.to_owned(), cpu });
        }
        if self.watch.result.is_match(text) && self.run.results.len() < RESULTS_MAX {
            self.run.results.push(text.to_owned());
        }
    }

    fn errors(&mut self, bytes: &[u8]) {
        let kept = &mut self.run.errors;
        kept.push_str(&String::from_utf8_lossy(bytes));
        if kept.len() > ERRORS_MAX {
            let cut = (kept.len() - ERRORS_MAX..).find(|at| kept.is_char_boundary(*at)).unwrap_or(kept.len());
            kept.drain(..cut);
        }
    }

    fn finish(mut self) -> Run {
        self.end_line(f64::NAN);
        // A marker without a line end is no marker: nobody knows when it was complete.
        self.run.marks.retain(|mark| !mark.cpu.is_nan());
        self.run
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_and_results_are_found_wherever_reads_cut_the_output() {
        let (marker, result) = (Regex::new(r"^M ([A-Z]+)").unwrap(), Regex::new("^[0-9a-f]{4}").unwrap());
        let signalled = AtomicBool::new(false);
        let watch = Watch { marker: &marker, result: &result, timeout: Duration::from_secs(1), signalled: &signalled };
        let output = b"hello\r\n\r\nM ONE 1\r\nbeef  file\r\nM TWO 2\r\nM CUT";
        for size in 1..output.len() {
            let mut console = Console { watch: &watch, line: Vec::new(), last: String::new(), run: Run::default() };
            for (i, piece) in output.chunks(size).enumerate() {
                console.push(piece, i as f64);
            }
            let run = console.finish();
            let names: Vec<&str> = run.marks.iter().map(|mark| mark.name.as_str()).collect();
            assert_eq!((names, run.results), (vec!["ONE", "TWO"], vec!["beef  file".to_owned()]), "{size}");
            assert!(run.marks[0].cpu <= run.marks[1].cpu);
        }
    }
}
