//! The command line.

use crate::report::{self, Counts, Row};
use crate::statement::{Env, Statement};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// Exit statuses.
mod status {
    /// A statement does not hold.
    pub const FAILED: u8 = 1;
    /// A file could not be written.
    pub const TROUBLE: u8 = 2;
}

/// Options of `mktme-emu conformance`.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Args {
    /// Run only these statements: MK-087, 87, or a range like 87-96
    #[arg(long, value_name = "MK-nnn", value_delimiter = ',', value_parser = selection)]
    pub only: Vec<Selection>,
    /// List the statements without running them
    #[arg(long)]
    pub list: bool,
    /// Write the results as JUnit XML
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// Kernel for the statements about Linux: a bzImage of Debian's 6.1
    #[arg(long, value_name = "FILE")]
    pub kernel: Option<PathBuf>,
}

/// Statement numbers, first and last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Selection(u16, u16);

fn selection(text: &str) -> Result<Selection, String> {
    let one = |text: &str| {
        let digits = text.strip_prefix("MK-").or_else(|| text.strip_prefix("mk-")).unwrap_or(text);
        digits.parse().ok().filter(|n| (1..=147).contains(n))
    };
    let range = match (one(text), text.rsplit_once('-').or_else(|| text.split_once(".."))) {
        (Some(n), _) => Some((n, n)),
        (None, Some((first, last))) => one(first).zip(one(last)),
        _ => None,
    };
    match range {
        Some((first, last)) if first <= last => Ok(Selection(first, last)),
        _ => Err("accepted: MK-001 to MK-147, or a range like MK-087-096".into()),
    }
}

/// Runs the statements and prints what became of them. Success only if every applicable statement that was run holds.
pub fn main(args: &Args) -> ExitCode {
    let chosen = |s: &&Statement| args.only.is_empty() || args.only.iter().any(|o| (o.0..=o.1).contains(&s.number));
    let statements = crate::statements().filter(chosen);
    if args.list {
        for s in statements {
            say(&format!("{}  {:<12}  {}", s.name(), s.how, s.text));
        }
        return ExitCode::SUCCESS;
    }
    let env = Env { kernel: args.kernel.clone() };
    let mut rows: Vec<Row> = Vec::new();
    for statement in statements {
        if rows.last().is_none_or(|row| row.statement.section != statement.section) {
            say(&format!("{}{}", if rows.is_empty() { "" } else { "\n" }, statement.section));
        }
        let start = Instant::now();
        let result = statement.run(&env);
        say(&report::line(statement, &result));
        rows.push(Row { statement, result, time: start.elapsed() });
    }
    let counts = Counts::of(&rows);
    say(&format!("\n{}", report::totals(counts)));
    if let Some(path) = &args.junit
        && let Err(e) = std::fs::write(path, report::junit(&rows))
    {
        eprintln!("mktme-emu: --junit {}: {e}", path.display());
        return ExitCode::from(status::TROUBLE);
    }
    if counts.failed > 0 { ExitCode::from(status::FAILED) } else { ExitCode::SUCCESS }
}

/// A line on standard output; a reader that has gone away is no reason to stop.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selections_name_one_statement_or_a_range() {
        for (text, first, last) in
            [("MK-087", 87, 87), ("87", 87, 87), ("mk-001", 1, 1), ("MK-087-096", 87, 96), ("1-147", 1, 147)]
        {
            assert_eq!(selection(text), Ok(Selection(first, last)), "{text}");
        }
        for text in ["", "MK-000", "148", "MK", "9-8", "1-2-3", "-5"] {
            assert!(selection(text).is_err(), "{text}");
        }
    }
}
