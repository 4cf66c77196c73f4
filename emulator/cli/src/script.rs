//! Console scripts (`--input`): the guest's user as a text file. `docs/cli.md` describes the format.

use crate::console::Lines;
use crate::value;
use regex::bytes::Regex;
use std::path::Path;
use x86::platform::VirtualTime;

/// One line of a script.
#[derive(Debug, Clone)]
enum Step {
    Expect(Regex),
    Send(Vec<u8>),
    WaitIcount(u64),
    /// Nanoseconds.
    WaitTime(u64),
}

/// A script and how far it has come. What it does depends on the guest's output, instruction count and time only.
#[derive(Debug)]
pub struct Script {
    name: String,
    /// With line numbers, from 1.
    steps: Vec<(usize, Step)>,
    next: usize,
    /// When the wait in progress ends.
    deadline: Option<VirtualTime>,
}

impl Script {
    /// Parses a file's contents.
    ///
    /// # Errors
    /// `--input FILE:LINE: ...` for the first line that is no step.
    pub fn parse(path: &Path, text: &str) -> Result<Script, String> {
        let name = path.display().to_string();
        let mut steps = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.strip_suffix('\r').unwrap_or(line);
            if line.trim().is_empty() || line.trim_start().starts_with('#') {
                continue;
            }
            let step = parse_step(line).map_err(|e| format!("--input {name}:{}: {e}", index + 1))?;
            steps.push((index + 1, step));
        }
        Ok(Script { name, steps, next: 0, deadline: None })
    }

    /// Takes all steps that can be taken now; returns what is to be typed.
    pub fn advance(&mut self, icount: u64, now: VirtualTime, console: &mut Lines) -> Vec<u8> {
        let mut typed = Vec::new();
        while let Some((_, step)) = self.steps.get(self.next) {
            let done = match step {
                Step::Expect(regex) => console.find(regex),
                Step::Send(text) => {
                    typed.extend_from_slice(text);
                    true
                }
                Step::WaitIcount(n) => icount >= *n,
                Step::WaitTime(ns) => {
                    let deadline = *self.deadline.get_or_insert(VirtualTime(now.0.saturating_add(*ns)));
                    now >= deadline
                }
            };
            if !done {
                break;
            }
            self.deadline = None;
            self.next += 1;
        }
        typed
    }

    /// The instruction count that the script waits for.
    pub fn awaited_icount(&self) -> Option<u64> {
        match self.steps.get(self.next) {
            Some((_, Step::WaitIcount(n))) => Some(*n),
            _ => None,
        }
    }

    /// The step that has not been taken, as FILE:LINE.
    pub fn waits_at(&self) -> Option<String> {
        self.steps.get(self.next).map(|(line, _)| format!("{}:{line}", self.name))
    }
}

fn parse_step(line: &str) -> Result<Step, String> {
    const ACCEPTED: &str = "accepted: expect REGEX, send TEXT, sendline TEXT, wait icount N, wait TIME";
    let line = line.trim_start();
    let (word, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    match word {
        "expect" => value::regex(rest).map(Step::Expect),
        "send" if rest.is_empty() => Err("nothing to send; accepted: send TEXT".into()),
        "send" => unescape(rest).map(Step::Send),
        "sendline" => {
            let mut text = unescape(rest)?;
            // What the Enter key sends.
            text.push(b'\r');
            Ok(Step::Send(text))
        }
        "wait" => match rest.trim().split_once([' ', '\t']) {
            Some(("icount", n)) => value::count(n.trim()).map(Step::WaitIcount),
            None => duration(rest.trim()).map(Step::WaitTime).ok_or_else(|| {
                "accepted: wait icount N, or wait and a time in ns, us, ms or s, for example wait 500ms".into()
            }),
            Some(_) => Err(format!("unknown wait; {ACCEPTED}")),
        },
        _ => Err(format!("unknown step `{word}`; {ACCEPTED}")),
    }
}

/// A time in nanoseconds, from a number and a unit.
pub fn duration(text: &str) -> Option<u64> {
    const UNITS: [(&str, u64); 4] = [("ns", 1), ("us", 1_000), ("ms", 1_000_000), ("s", 1_000_000_000)];
    let unit = UNITS.iter().find_map(|(unit, ns)| Some((text.strip_suffix(unit)?, *ns)));
    unit.and_then(|(n, ns)| n.parse::<u64>().ok()?.checked_mul(ns))
}

/// `\n`, `\r`, `\t`, `\e`, `\\`, `\xHH`.
fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        let (byte, length) = match rest {
            [b'n', ..] => (b'\n', 1),
            [b'r', ..] => (b'\r', 1),
            [b't', ..] => (b'\t', 1),
            [b'e', ..] => (0x1B, 1),
            [b'\\', ..] => (b'\\', 1),
            [b'x', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                let digit = |b: u8| (b as char).to_digit(16).unwrap_or(0) as u8;
                (digit(*high) << 4 | digit(*low), 3)
            }
            _ => return Err(r"bad escape; accepted: \n \r \t \e \\ \xHH".into()),
        };
        out.push(byte);
        rest = &rest[length..];
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(text: &str) -> Script {
        Script::parse(Path::new("s"), text).unwrap()
    }

    #[test]
    fn steps_are_taken_in_order_and_wait_for_what_they_name() {
        let mut s =
            script("# log in\nexpect login: $\nsendline root\nwait icount 1K\nsend a\\x41\\n\nwait 2us\nsend b");
        let mut console = Lines::default();
        let t = VirtualTime;
        assert!(s.advance(0, t(0), &mut console).is_empty());
        console.push(b"Debian\r\nhost login: ");
        assert_eq!(s.advance(10, t(100), &mut console), b"root\r");
        assert_eq!(s.awaited_icount(), Some(1000));
        assert_eq!(s.advance(1000, t(10_000), &mut console), b"aA\n");
        assert_eq!(s.waits_at().as_deref(), Some("s:6"));
        assert!(s.advance(1000, t(11_999), &mut console).is_empty());
        assert_eq!(s.advance(1000, t(12_000), &mut console), b"b");
        assert_eq!(s.waits_at(), None);
    }

    #[test]
    fn errors_name_file_and_line_and_what_is_accepted() {
        for (text, message) in [
            ("\nsay x", "--input s:2: unknown step `say`; accepted: expect REGEX"),
            ("send \\q", r"--input s:1: bad escape; accepted: \n \r"),
            ("send", "--input s:1: nothing to send; accepted"),
            ("expect (", "--input s:1: not a regular expression"),
            ("wait forever", "--input s:1: accepted: wait icount N"),
            ("wait icount x", "--input s:1: accepted: a number"),
        ] {
            let error = Script::parse(Path::new("s"), text).unwrap_err();
            assert!(error.starts_with(message), "{error}");
        }
    }
}
