//! The guest's serial port and debug console on the host's side.

use crate::Result;
use crate::files;
use crate::outcome::Failure;
use crate::value::SerialSink;
use regex::bytes::Regex;
use std::fs::File;
use std::io::{self, Write};

/// Unread output that is kept for somebody who waits for a line.
const UNREAD_MAX: usize = 64 << 10;

/// Where the serial port's output goes.
pub struct Console {
    sink: Sink,
    /// The last character was a line feed, so that what follows starts a line.
    at_line_start: bool,
}

enum Sink {
    Stdout(io::Stdout),
    File(File, String),
    None,
}

impl Console {
    /// Opens the sink, a file before the run begins.
    pub fn open(serial: &SerialSink) -> Result<Console> {
        let sink = match serial {
            SerialSink::Stdio => Sink::Stdout(io::stdout()),
            SerialSink::File(path) => {
                Sink::File(files::create_stream("-serial", path)?, format!("-serial file:{}", path.display()))
            }
            SerialSink::None => Sink::None,
        };
        Ok(Console { sink, at_line_start: true })
    }

    /// Passes the guest's output on at once.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if let Some(last) = bytes.last() {
            self.at_line_start = *last == b'\n';
        }
        let (result, name) = match &mut self.sink {
            Sink::Stdout(out) => (out.write_all(bytes).and_then(|()| out.flush()), "standard output"),
            Sink::File(out, name) => (out.write_all(bytes), name.as_str()),
            Sink::None => return Ok(()),
        };
        result.map_err(|e| Failure::Host(format!("{name}: {}", files::reason(&e))))
    }

    /// Ends an unfinished line on standard output, before something else is printed there or on the same terminal.
    pub fn end_line(&mut self) -> Result<()> {
        if matches!(self.sink, Sink::Stdout(_)) && !self.at_line_start { self.write(b"\n") } else { Ok(()) }
    }
}

/// Output that somebody has yet to look at, line by line.
#[derive(Debug, Default)]
pub struct Lines {
    unread: Vec<u8>,
    /// Looked at without success since the last output.
    stale: bool,
}

impl Lines {
    pub fn push(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.stale = false;
        self.unread.extend_from_slice(bytes);
        if self.unread.len() > UNREAD_MAX {
            let excess = self.unread.len() - UNREAD_MAX / 2;
            self.unread.drain(..excess);
        }
    }

    /// True if a line matches, the last and unfinished one included. What was before the end of the match is forgotten, and
    /// so are whole lines that do not match.
    pub fn find(&mut self, regex: &Regex) -> bool {
        if std::mem::replace(&mut self.stale, true) {
            return false;
        }
        let mut start = 0;
        loop {
            let rest = &self.unread[start..];
            let end = rest.iter().position(|b| *b == b'\n');
            let line = &rest[..end.unwrap_or(rest.len())];
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if let Some(found) = regex.find(line) {
                let end = start + found.end();
                self.unread.drain(..end);
                self.stale = false;
                return true;
            }
            match end {
                Some(end) => start += end + 1,
                None => break,
            }
        }
        self.unread.drain(..start);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(lines: &mut Lines, regex: &str) -> bool {
        lines.find(&Regex::new(regex).unwrap())
    }

    #[test]
    fn a_match_consumes_what_was_before_it() {
        let mut lines = Lines::default();
        lines.push(b"one two\r\n~ # ");
        assert!(found(&mut lines, "one"));
        assert!(!found(&mut lines, "one"));
        lines.push(b"x");
        assert!(found(&mut lines, "^~ # x$"));
    }

    #[test]
    fn lines_are_matched_without_their_ends_and_across_pushes() {
        let mut lines = Lines::default();
        lines.push(b"GUEST-");
        assert!(!found(&mut lines, "^GUEST-READY$"));
        lines.push(b"READY\r\nnext");
        assert!(found(&mut lines, "^GUEST-READY$"));
        assert!(!found(&mut lines, "READY"));
    }

    #[test]
    fn endless_output_that_nobody_reads_is_bounded() {
        let mut lines = Lines::default();
        (0..10_000).for_each(|_| lines.push(&[b'x'; 100]));
        assert!(lines.unread.len() <= UNREAD_MAX);
    }
}
