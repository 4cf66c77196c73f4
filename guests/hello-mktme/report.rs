//! The report: numbered chapters, explained findings, and checks that are counted.

use core::fmt;

use crate::mktme::LINE_BYTES;
use crate::say;

/// Columns of the text before the value of a finding.
const LABEL_COLUMNS: usize = 44;

/// Columns of a rule, and the width that texts keep to.
const PAGE_COLUMNS: usize = 80;

/// Counts of what was checked, and the number of the current chapter.
pub struct Report {
    chapter: u32,
    passed: u32,
    failed: u32,
    not_shown: u32,
}

impl Report {
    pub fn new() -> Self {
        Self { chapter: 0, passed: 0, failed: 0, not_shown: 0 }
    }

    /// Starts a chapter.
    pub fn chapter(&mut self, title: &str) {
        self.chapter += 1;
        say!();
        say!("{}. {title}", self.chapter);
        say!("{:-<PAGE_COLUMNS$}", "");
    }

    /// A named value.
    pub fn value(&self, label: &str, value: fmt::Arguments<'_>) {
        say!("   {label:<LABEL_COLUMNS$} {value}");
    }

    /// Counts a claim as passed or failed and says which.
    pub fn check(&mut self, holds: bool, claim: fmt::Arguments<'_>) -> bool {
        let (count, word) = if holds { (&mut self.passed, "PASS") } else { (&mut self.failed, "FAIL") };
        *count += 1;
        say!("   [{word}] {claim}");
        holds
    }

    /// Something that this machine, as configured, cannot show. Not a failure.
    pub fn not_shown(&mut self, reason: fmt::Arguments<'_>) {
        self.not_shown += 1;
        say!("   [----] not shown: {reason}");
    }

    /// Checks that failed so far.
    pub fn failed(&self) -> u32 {
        self.failed
    }

    /// The verdict, as the last chapter.
    pub fn summary(&mut self) {
        self.chapter("Summary");
        say!("   {} checks passed, {} failed, {} could not be shown here.", self.passed, self.failed, self.not_shown);
        let verdict = if self.failed == 0 {
            "Everything that this machine can show behaves as its manual says."
        } else {
            "Something does not behave as the manual says: look for [FAIL] above."
        };
        say!("   {verdict}");
    }
}

/// A 64-byte line as bytes and as text, 16 to a row: one row is one AES block.
pub fn dump(line: &[u8; LINE_BYTES]) {
    for (row, bytes) in line.chunks(16).enumerate() {
        say!("      {:02x}  {}  |{}|", row * 16, Hex(bytes), Ascii(bytes));
    }
}

/// Bytes as two digits each.
pub struct Hex<'a>(pub &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            let gap = if index == 0 { "" } else { " " };
            write!(f, "{gap}{byte:02x}")?;
        }
        Ok(())
    }
}

/// Bytes as characters, with dots for what cannot be printed.
pub struct Ascii<'a>(pub &'a [u8]);

impl fmt::Display for Ascii<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;
        for &byte in self.0 {
            f.write_char(if byte.is_ascii_graphic() || byte == b' ' { byte as char } else { '.' })?;
        }
        Ok(())
    }
}
