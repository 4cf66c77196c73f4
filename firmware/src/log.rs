//! The lines a BIOS prints.

use std::fmt;

/// Text for the user, collected rather than printed: the caller decides where it goes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BiosLog {
    lines: Vec<String>,
}

impl BiosLog {
    /// Appends one line (without line end).
    pub fn line(&mut self, text: impl Into<String>) {
        self.lines.push(text.into());
    }

    /// All lines so far, oldest first.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }
}

impl fmt::Display for BiosLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

/// A number of bytes in the largest binary unit that divides it.
pub struct Size(pub u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (shift, unit) = match self.0 {
            0 => (0, "bytes"),
            n if n.trailing_zeros() >= 30 => (30, "GiB"),
            n if n.trailing_zeros() >= 20 => (20, "MiB"),
            n if n.trailing_zeros() >= 10 => (10, "KiB"),
            _ => (0, "bytes"),
        };
        write!(f, "{} {unit}", self.0 >> shift)
    }
}

/// A range of addresses, first to last.
pub struct Span(pub u64, pub u64);

impl Span {
    /// The range `[start, end)`.
    pub fn new(range: &std::ops::Range<u64>) -> Span {
        Span(range.start, range.end.saturating_sub(1))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:09X}-{:09X}", self.0, self.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_use_the_largest_unit_that_divides() {
        let shown = |n| Size(n).to_string();
        assert_eq!(shown(0), "0 bytes");
        assert_eq!(shown(1023), "1023 bytes");
        assert_eq!(shown(4096), "4 KiB");
        assert_eq!(shown(512 << 20), "512 MiB");
        assert_eq!(shown(3 << 30), "3 GiB");
    }
}
