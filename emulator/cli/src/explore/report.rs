//! The table, and the same as JSON.

use super::Job;
use super::child::{Console, Observed};
use super::policy::Policy;
use crate::sanitize::json::{Object, array, quoted};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;

/// Of the JSON schema.
const VERSION: u64 = 1;

/// What came of all runs.
pub struct Report<'a> {
    run: &'a [OsString],
    policies: &'a [Policy],
    /// Runs that were planned.
    planned: usize,
    /// The most frequent first.
    outcomes: Vec<Outcome<'a>>,
}

struct Outcome<'a> {
    observed: &'a Observed,
    /// In the order of the jobs; not empty.
    jobs: Vec<&'a Job>,
}

impl<'a> Report<'a> {
    /// `observed` has what came of each of `jobs`.
    pub fn new(run: &'a [OsString], policies: &'a [Policy], jobs: &'a [Job], observed: &'a [Option<Observed>]) -> Self {
        let mut by_outcome: BTreeMap<&Observed, Vec<(usize, &Job)>> = BTreeMap::new();
        for (index, (job, observed)) in jobs.iter().zip(observed).enumerate() {
            if let Some(observed) = observed {
                by_outcome.entry(observed).or_default().push((index, job));
            }
        }
        let mut sorted: Vec<_> = by_outcome.into_iter().collect();
        sorted.sort_by_key(|(_, jobs)| (usize::MAX - jobs.len(), jobs[0].0));
        let outcomes = sorted.into_iter().map(|(observed, jobs)| {
            let jobs = jobs.into_iter().map(|(_, job)| job).collect();
            Outcome { observed, jobs }
        });
        Report { run, policies, planned: jobs.len(), outcomes: outcomes.collect() }
    }

    /// Distinct ones.
    pub fn outcomes(&self) -> usize {
        self.outcomes.len()
    }

    fn runs(&self) -> usize {
        self.outcomes.iter().map(|outcome| outcome.jobs.len()).sum()
    }

    /// The command that repeats the first run of an outcome.
    fn command(&self, outcome: &Outcome<'_>) -> Vec<String> {
        let words = self.run.iter().cloned().chain(outcome.jobs[0].options());
        std::iter::once("mktme-emu".into()).chain(words.map(|word| word.to_string_lossy().into_owned())).collect()
    }

    /// The document that `--json` writes (docs/explore.md).
    pub fn to_json(&self) -> String {
        let outcome = |(index, outcome): (usize, &Outcome<'_>)| {
            let mut o = Object::default();
            o.string("name", &name(index));
            o.raw("status", &outcome.observed.status.to_string());
            match &outcome.observed.console {
                Console::Hash(hash) => o.string("console", &format!("{hash:032x}")),
                Console::Captured(Some(text)) => o.string("captured", text),
                Console::Captured(None) => o.raw("captured", "null"),
            }
            let run = |job: &&Job| {
                let mut o = Object::default();
                o.number("seed", job.seed);
                o.string("policy", job.policy.name());
                o.finish()
            };
            o.raw("runs", &array(outcome.jobs.iter().map(run)));
            o.raw("command", &array(self.command(outcome).iter().map(|word| quoted(word))));
            o.finish()
        };
        let mut o = Object::default();
        o.number("version", VERSION);
        o.number("planned", self.planned as u64);
        o.number("runs", self.runs() as u64);
        o.raw("outcomes", &array(self.outcomes.iter().enumerate().map(outcome)));
        o.finish()
    }
}

/// A, B, ... Z, A1, B1, ...
fn name(index: usize) -> String {
    let letter = char::from(b'A' + (index % 26) as u8);
    if index < 26 { letter.into() } else { format!("{letter}{}", index / 26) }
}

/// A word as a shell takes it.
fn shell(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.into();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let runs = self.runs();
        let plural = |n: usize, one: &str| format!("{n} {one}{}", if n == 1 { "" } else { "s" });
        write!(f, "{}, {}", plural(runs, "run"), plural(self.outcomes.len(), "outcome"))?;
        if runs < self.planned {
            write!(f, " ({} were not run)", self.planned - runs)?;
        }
        writeln!(f, "\n\n{:<8} {:>6} {:>8}  {:>11}  console", "outcome", "runs", "share", "exit status")?;
        for (index, Outcome { observed, jobs }) in self.outcomes.iter().enumerate() {
            let share = format!("{:.1} %", jobs.len() as f64 * 100.0 / runs as f64);
            let status = match observed.status {
                status @ 0.. => status.to_string(),
                signal => format!("signal {}", -signal),
            };
            write!(f, "{:<8} {:>6} {share:>8}  {status:>11}  ", name(index), jobs.len())?;
            match &observed.console {
                Console::Hash(hash) => writeln!(f, "hash {:016x}", (hash >> 64) as u64)?,
                Console::Captured(Some(text)) => writeln!(f, "{text}")?,
                Console::Captured(None) => writeln!(f, "(no match)")?,
            }
        }
        if self.policies.len() > 1 && self.outcomes.len() > 1 {
            write!(f, "\n{:<12}", "policy")?;
            (0..self.outcomes.len()).try_for_each(|index| write!(f, " {:>6}", name(index)))?;
            for policy in self.policies {
                write!(f, "\n{:<12}", policy.name())?;
                for outcome in &self.outcomes {
                    let count = outcome.jobs.iter().filter(|job| job.policy == *policy).count();
                    write!(f, " {count:>6}")?;
                }
            }
            writeln!(f)?;
        }
        for (index, outcome) in self.outcomes.iter().enumerate() {
            let words: Vec<String> = self.command(outcome).iter().map(|word| shell(word)).collect();
            write!(f, "\n{}: {}", name(index), words.join(" "))?;
        }
        writeln!(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_sorted_by_their_number_and_have_the_command_that_repeats_them() {
        let run = ["run", "-append", "a 'b'"].map(OsString::from);
        let policies = [Policy::Exact, Policy::Lazy];
        let jobs: Vec<Job> = (7..9).flat_map(|seed| policies.map(|policy| Job { seed, policy })).collect();
        let observed = |status, hash: u128| Some(Observed { status, console: Console::Hash(hash << 64) });
        let all = [observed(0, 5), observed(4, 1), observed(4, 1), None];
        let report = Report::new(&run, &policies, &jobs, &all);
        let text = report.to_string();
        assert_eq!(
            text,
            "3 runs, 2 outcomes (1 were not run)\n\n\
             outcome    runs    share  exit status  console\n\
             A             2   66.7 %            4  hash 0000000000000001\n\
             B             1   33.3 %            0  hash 0000000000000005\n\n\
             policy            A      B\n\
             exact             1      1\n\
             lazy              1      0\n\n\
             A: mktme-emu run -append 'a '\\''b'\\''' --cache lazy --seed 7\n\
             B: mktme-emu run -append 'a '\\''b'\\''' --cache exact --seed 7\n"
        );
        let json = report.to_json();
        assert!(json.starts_with(r#"{"version":1,"planned":4,"runs":3,"outcomes":[{"name":"A","status":4,"#), "{json}");
        assert!(
            json.contains(r#""command":["mktme-emu","run","-append","a 'b'","--cache","lazy","--seed","7"]"#),
            "{json}"
        );
    }

    #[test]
    fn names_never_end() {
        assert_eq!([0, 25, 26, 53].map(name), ["A", "Z", "A1", "B2"]);
    }
}
