//! One run, as a process of its own: what happens to it happens to no other.

use super::Job;
use crate::Result;
use crate::files;
use crate::outcome::{Failure, status};
use mem::StateHasher;
use regex::bytes::Regex;
use std::ffi::OsString;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

/// Longest line of console output that is looked at.
const LINE_MAX: usize = 64 << 10;
/// How much of standard error is kept.
const ERRORS_MAX: usize = 16 << 10;

/// A run to be made.
pub struct Child<'a> {
    pub program: &'a Path,
    /// `run` and its options.
    pub run: &'a [OsString],
    pub job: &'a Job,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Observed {
    /// Exit status; negative: the signal that killed the process.
    pub status: i32,
    pub console: Console,
}

/// What tells outcomes apart besides the exit status.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Console {
    /// A hash of all output.
    Hash(u128),
    /// What `--outcome` captured first; `None`: nothing.
    Captured(Option<String>),
}

impl Child<'_> {
    /// Runs it to its end.
    ///
    /// # Errors
    /// The process cannot be started; or it refuses its options or files, as every other would.
    pub fn run(&self, outcome: Option<&Regex>) -> Result<Observed> {
        let host = |what: &str, e: &std::io::Error| Failure::Host(format!("{what}: {}", files::reason(e)));
        let mut command = Command::new(self.program);
        command.args(self.run).args(self.job.options());
        // Given twice it would be refused.
        command.args(
            (!self.run.iter().any(|word| word == "--no-summary" || word == "-no-summary")).then_some("--no-summary"),
        );
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|e| host("cannot start a run", &e))?;
        let (mut out, mut err) = (child.stdout.take(), child.stderr.take());
        let mut watch = Watch::new(outcome);
        let (read, errors) = std::thread::scope(|scope| {
            let errors = scope.spawn(|| keep_start(err.as_mut()));
            let mut buf = vec![0; 64 << 10];
            let read = loop {
                match out.as_mut().map_or(Ok(0), |out| out.read(&mut buf)) {
                    Ok(0) => break Ok(()),
                    Ok(n) => watch.push(&buf[..n]),
                    Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(e) => break Err(e),
                }
            };
            (read, errors.join().unwrap_or_default())
        });
        let ended = child.wait().map_err(|e| host("cannot wait for a run", &e))?;
        read.map_err(|e| host("cannot read a run's output", &e))?;
        use std::os::unix::process::ExitStatusExt;
        let ended = ended.code().unwrap_or_else(|| -ended.signal().unwrap_or(0));
        match u8::try_from(ended) {
            Ok(status::USAGE) => Err(Failure::Usage(errors.trim().trim_start_matches("mktme-emu: ").to_owned())),
            Ok(status::HOST) => Err(Failure::Host(errors.trim().trim_start_matches("mktme-emu: ").to_owned())),
            _ => Ok(Observed { status: ended, console: watch.finish() }),
        }
    }
}

impl Job {
    /// What this run has besides the options of all.
    pub fn options(&self) -> Vec<OsString> {
        let policy = self.policy.options().iter().map(OsString::from);
        policy.chain(["--seed".into(), self.seed.to_string().into()]).collect()
    }
}

/// Reads to the end and keeps the beginning.
fn keep_start(stream: Option<&mut impl Read>) -> String {
    let Some(stream) = stream else { return String::new() };
    let mut kept = Vec::new();
    let mut buf = [0; 4096];
    // Errors end it as well: what the run had to say is of use only if it comes.
    while let Ok(n @ 1..) = stream.read(&mut buf) {
        kept.extend_from_slice(&buf[..n.min(ERRORS_MAX - kept.len())]);
    }
    String::from_utf8_lossy(&kept).into_owned()
}

/// Looks at console output as it comes.
struct Watch<'a> {
    hasher: StateHasher,
    outcome: Option<&'a Regex>,
    line: Vec<u8>,
    captured: Option<String>,
}

impl<'a> Watch<'a> {
    fn new(outcome: Option<&'a Regex>) -> Watch<'a> {
        Watch { hasher: StateHasher::new(), outcome, line: Vec::new(), captured: None }
    }

    fn push(&mut self, bytes: &[u8]) {
        if self.outcome.is_none() {
            // By byte: where the pipe cuts the output must not matter.
            self.hasher.bytes(bytes);
            return;
        }
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            let room = LINE_MAX.saturating_sub(self.line.len());
            self.line.extend_from_slice(&piece[..piece.len().min(room)]);
            if piece.ends_with(b"\n") {
                self.end_line();
            }
        }
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        let line = line.strip_suffix(b"\n").unwrap_or(&line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if let Some(found) = self.outcome.filter(|_| self.captured.is_none()).and_then(|regex| regex.captures(line)) {
            // The first group, or all that matched if there is none.
            let text = found.get(1).or_else(|| found.get(0)).map(|m| m.as_bytes()).unwrap_or_default();
            self.captured = Some(symbols::guest::printable(text));
        }
    }

    fn finish(mut self) -> Console {
        self.end_line();
        match self.outcome {
            Some(_) => Console::Captured(self.captured),
            None => Console::Hash(self.hasher.finish()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watched(outcome: Option<&Regex>, pieces: &[&[u8]]) -> Console {
        let mut watch = Watch::new(outcome);
        pieces.iter().for_each(|piece| watch.push(piece));
        watch.finish()
    }

    #[test]
    fn the_first_capture_counts_wherever_the_output_is_cut() {
        let regex = Regex::new("sum: ([0-9]+)").unwrap();
        for pieces in [&[&b"sum: 12\r\nsum: 13\r\n"[..]][..], &[b"su", b"m: 1", b"2\r", b"\nx"], &[b"x\nsum: 12"]] {
            assert_eq!(watched(Some(&regex), pieces), Console::Captured(Some("12".into())));
        }
        assert_eq!(watched(Some(&regex), &[b"sum: x\n"]), Console::Captured(None));
        let whole = Regex::new("panic").unwrap();
        assert_eq!(watched(Some(&whole), &[b"a panic\n"]), Console::Captured(Some("panic".into())));
    }

    #[test]
    fn the_hash_is_that_of_all_output_wherever_it_is_cut() {
        assert_eq!(watched(None, &[b"abcdef"]), watched(None, &[b"a", b"bcd", b"ef"]));
        assert_ne!(watched(None, &[b"abcdef"]), watched(None, &[b"abcdeg"]));
    }
}
