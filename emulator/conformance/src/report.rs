//! The table for people and the JUnit file for machines.

use crate::statement::{Result, Statement};
use std::fmt::Write;
use std::time::Duration;

/// One statement that was looked at.
#[derive(Debug)]
pub struct Row {
    pub statement: &'static Statement,
    pub result: Result,
    pub time: Duration,
}

/// How many of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    pub passed: usize,
    pub failed: usize,
    pub not_applicable: usize,
    pub not_run: usize,
}

impl Counts {
    pub fn of(rows: &[Row]) -> Counts {
        let mut counts = Counts::default();
        for row in rows {
            match row.result {
                Result::Pass => counts.passed += 1,
                Result::Fail(_) => counts.failed += 1,
                Result::NotApplicable(_) => counts.not_applicable += 1,
                Result::NotRun(_) => counts.not_run += 1,
            }
        }
        counts
    }
}

/// The line of one statement: name, result, how, text, and below it what is to be said about the result.
pub fn line(statement: &Statement, result: &Result) -> String {
    let (word, note) = match result {
        Result::Pass => ("pass", None),
        Result::Fail(failure) => ("FAIL", Some(failure.to_string())),
        Result::NotApplicable(reason) => ("n/a", Some((*reason).to_owned())),
        Result::NotRun(reason) => ("not run", Some((*reason).to_owned())),
    };
    let mut line = format!("{}  {word:<7}  {:<12}  {}", statement.name(), statement.how, statement.text);
    if let Some(note) = note {
        for part in note.lines() {
            let _ = write!(line, "\n{:31}{part}", "");
        }
    }
    line
}

/// The last line.
pub fn totals(counts: Counts) -> String {
    let Counts { passed, failed, not_applicable, not_run } = counts;
    format!("{passed} passed, {failed} failed, {not_applicable} not applicable yet, {not_run} not run")
}

/// JUnit XML: one suite per subsection, one case per statement.
pub fn junit(rows: &[Row]) -> String {
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let all = Counts::of(rows);
    let _ = writeln!(
        xml,
        "<testsuites name=\"conformance\" tests=\"{}\" failures=\"{}\" skipped=\"{}\" time=\"{:.3}\">",
        rows.len(),
        all.failed,
        all.not_applicable + all.not_run,
        rows.iter().map(|row| row.time.as_secs_f64()).sum::<f64>()
    );
    for suite in rows.chunk_by(|a, b| a.statement.section == b.statement.section) {
        let counts = Counts::of(suite);
        let section = escape(suite[0].statement.section);
        let _ = writeln!(
            xml,
            "  <testsuite name=\"{section}\" tests=\"{}\" failures=\"{}\" skipped=\"{}\">",
            suite.len(),
            counts.failed,
            counts.not_applicable + counts.not_run
        );
        for row in suite {
            let (name, text) = (row.statement.name(), escape(row.statement.text));
            let time = row.time.as_secs_f64();
            let _ = write!(xml, "    <testcase classname=\"{section}\" name=\"{name} {text}\" time=\"{time:.3}\"");
            let _ = match &row.result {
                Result::Pass => writeln!(xml, "/>"),
                Result::Fail(failure) => {
                    let message = escape(&failure.to_string());
                    writeln!(xml, ">\n      <failure message=\"{message}\"/>\n    </testcase>")
                }
                Result::NotApplicable(reason) | Result::NotRun(reason) => {
                    writeln!(xml, ">\n      <skipped message=\"{}\"/>\n    </testcase>", escape(reason))
                }
            };
        }
        xml.push_str("  </testsuite>\n");
    }
    xml.push_str("</testsuites>\n");
    xml
}

/// Text as an attribute value (XML 1.0, section 2.3). Control characters cannot be written in XML at all.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push_str("&#10;"),
            c if c.is_control() => out.push('\u{FFFD}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::Failure;
    use crate::statement::{Check, How};

    static STATEMENT: Statement = Statement {
        number: 7,
        section: "10.1 CPUID",
        text: "a < b & \"c\"",
        how: How::Guest,
        check: Check::NotApplicable("because"),
    };

    fn row(result: Result) -> Row {
        Row { statement: &STATEMENT, result, time: Duration::from_millis(2) }
    }

    #[test]
    fn junit_counts_and_escapes() {
        let wrong = || Failure::Wrong("1 < 2\u{7}".into());
        let xml = junit(&[row(Result::Pass), row(Result::Fail(wrong())), row(Result::NotApplicable("because"))]);
        assert!(xml.contains("tests=\"3\" failures=\"1\" skipped=\"1\""), "{xml}");
        assert!(xml.contains("name=\"MK-007 a &lt; b &amp; &quot;c&quot;\""), "{xml}");
        assert!(xml.contains("<failure message=\"1 &lt; 2\u{FFFD}\"/>"), "{xml}");
        assert_eq!(xml.matches("<testcase").count(), 3);
    }

    #[test]
    fn a_failure_is_said_below_its_statement() {
        let text = line(&STATEMENT, &Result::Fail(Failure::Wrong("seen\nwanted".into())));
        assert_eq!(text.lines().count(), 3);
        assert!(text.starts_with("MK-007  FAIL "), "{text}");
    }
}
