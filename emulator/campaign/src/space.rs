//! Fault spaces: a fault as `run --inject` takes it, with holes in braces.
//!
//! A hole is a finite, ordered set of words. The space is their product, and its faults are numbered: the last hole counts
//! fastest.

use crate::error::{CampaignError, Result, refuse};
use machine::inject::number;
use std::collections::BTreeMap;

/// What a hole may be, for messages.
pub const HOLES: &str = "{FROM..TO}, {FROM..TO/STEP}, {A|B|...}, {window}, {phase NAME}, {lines-read[ keyid=K]}, \
                         {lines-written[ keyid=K]}, or the {NAME} of a [set.NAME]";

/// An ordered set of words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Set {
    /// Numbers from `from` to below `to`.
    Range { from: u64, to: u64, step: u64, hexadecimal: bool },
    /// Physical addresses of lines.
    Lines(Vec<u64>),
    /// Any words.
    Words(Vec<String>),
}

impl Set {
    /// Lines from an address on.
    pub fn lines(address: u64, bytes: u64) -> Set {
        const LINE: u64 = mem::LINE_BYTES as u64;
        let from = address / LINE * LINE;
        Set::Range { from, to: address.saturating_add(bytes), step: LINE, hexadecimal: true }
    }

    /// How many words there are.
    pub fn len(&self) -> u64 {
        match self {
            Set::Range { from, to, step, .. } => to.saturating_sub(*from).div_ceil(*step),
            Set::Lines(lines) => lines.len() as u64,
            Set::Words(words) => words.len() as u64,
        }
    }

    /// True without a word.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Word `n`, below [`len`](Self::len).
    fn word(&self, n: u64) -> String {
        match self {
            Set::Range { from, step, hexadecimal: true, .. } => format!("{:#x}", from + n * step),
            Set::Range { from, step, .. } => (from + n * step).to_string(),
            Set::Lines(lines) => lines.get(n as usize).map(|line| format!("{line:#x}")).unwrap_or_default(),
            Set::Words(words) => words.get(n as usize).cloned().unwrap_or_default(),
        }
    }

    /// `FROM..TO` or `FROM..TO/STEP`.
    fn range(text: &str) -> Option<Set> {
        let (from, rest) = text.split_once("..")?;
        let (to, step) = rest.split_once('/').unwrap_or((rest, "1"));
        let hexadecimal = from.trim().starts_with("0x");
        let (from, to, step) = (number(from.trim())?, number(to.trim())?, number(step.trim())?);
        (step > 0).then_some(Set::Range { from, to, step, hexadecimal })
    }
}

/// What holes may refer to.
#[derive(Debug, Clone, Default)]
pub struct Names {
    /// Instruction counts of the golden run.
    pub window: (u64, u64),
    /// Its phases: name, first count, count behind the last.
    pub phases: Vec<(String, u64, u64)>,
    /// Lines that were read from DRAM in the golden run, by KeyID, ascending.
    pub read: BTreeMap<u16, Vec<u64>>,
    /// Lines that were written to DRAM.
    pub written: BTreeMap<u16, Vec<u64>>,
    /// Named sets.
    pub sets: BTreeMap<String, Set>,
}

impl Names {
    fn hole(&self, text: &str) -> std::result::Result<Set, String> {
        let counts = |from, to| Set::Range { from, to, step: 1, hexadecimal: false };
        let (name, argument) = text.split_once(' ').unwrap_or((text, ""));
        match name {
            "window" if argument.is_empty() => return Ok(counts(self.window.0, self.window.1)),
            "phase" => {
                let names = || self.phases.iter().map(|(name, ..)| name.as_str()).collect::<Vec<_>>().join(", ");
                return match self.phases.iter().find(|(name, ..)| name == argument.trim()) {
                    Some((_, from, to)) => Ok(counts(*from, *to)),
                    None => Err(format!("the golden run has no such phase; accepted: {}", names())),
                };
            }
            "lines-read" => return lines_of(&self.read, argument),
            "lines-written" => return lines_of(&self.written, argument),
            _ => {}
        }
        if let Some(set) = self.sets.get(text) {
            return Ok(set.clone());
        }
        if let Some(range) = Set::range(text) {
            return Ok(range);
        }
        if text.contains('|') {
            return Ok(Set::Words(text.split('|').map(|word| word.trim().to_owned()).collect()));
        }
        Err(format!("no such set; accepted: {HOLES}"))
    }
}

fn lines_of(by_keyid: &BTreeMap<u16, Vec<u64>>, argument: &str) -> std::result::Result<Set, String> {
    let argument = argument.trim();
    if argument.is_empty() {
        let mut all: Vec<u64> = by_keyid.values().flatten().copied().collect();
        all.sort_unstable();
        all.dedup();
        return Ok(Set::Lines(all));
    }
    let keyid = argument.strip_prefix("keyid=").and_then(number).and_then(|keyid| u16::try_from(keyid).ok());
    match keyid {
        Some(keyid) => Ok(Set::Lines(by_keyid.get(&keyid).cloned().unwrap_or_default())),
        None => Err(format!("{argument:?}; accepted: keyid=K")),
    }
}

/// A piece of a fault.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    /// Number of a hole.
    Hole(usize),
}

/// A fault space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Space {
    pieces: Vec<Piece>,
    holes: Vec<Set>,
    len: u64,
}

impl Space {
    /// Reads a fault with holes; `what` is for messages.
    ///
    /// # Errors
    /// A hole that is none, or that is empty; a space that is too large to number.
    pub fn parse(text: &str, names: &Names, what: &str) -> Result<Space> {
        let (mut pieces, mut holes) = (Vec::new(), Vec::new());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let Some((hole, behind)) = after.split_once('}') else {
                return refuse(format_args!("{what}: {{{after} has no end"), "a } for each {");
            };
            let set =
                names.hole(hole.trim()).map_err(|why| CampaignError::Input(format!("{what}: {{{hole}}}: {why}")))?;
            if set.is_empty() {
                return refuse(
                    format_args!("{what}: {{{hole}}} is empty: there is nothing to inject"),
                    "a set that is not",
                );
            }
            pieces.extend([Piece::Text(before.to_owned()), Piece::Hole(holes.len())]);
            holes.push(set);
            rest = behind;
        }
        pieces.push(Piece::Text(rest.to_owned()));
        let len = holes.iter().try_fold(1u64, |len, set| len.checked_mul(set.len()).filter(|len| *len < 1 << 62));
        match len {
            Some(len) => Ok(Space { pieces, holes, len }),
            None => refuse(format_args!("{what}: the fault space has 2^62 faults or more"), "smaller sets"),
        }
    }

    /// Faults in it, at least 1.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Never: an empty space is refused.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The text of fault `n`, below [`len`](Self::len).
    pub fn fault(&self, n: u64) -> String {
        let mut digits = vec![0; self.holes.len()];
        let mut rest = n;
        for (digit, set) in digits.iter_mut().zip(&self.holes).rev() {
            *digit = rest % set.len();
            rest /= set.len();
        }
        self.filled(&digits)
    }

    fn filled(&self, digits: &[u64]) -> String {
        let word = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Hole(at) => self.holes[*at].word(digits[*at]),
        };
        self.pieces.iter().map(word).collect()
    }

    /// Faults with the first and the last word of each hole: where one of the space is impossible, most often one of these is.
    pub fn corners(&self) -> Vec<String> {
        let first = vec![0; self.holes.len()];
        let mut corners = vec![self.filled(&first)];
        for (at, set) in self.holes.iter().enumerate() {
            let mut digits = first.clone();
            digits[at] = set.len() - 1;
            corners.push(self.filled(&digits));
        }
        // Words of a short list have nothing in common.
        for (at, set) in self.holes.iter().enumerate() {
            if let Set::Words(words) = set {
                for n in 1..words.len().min(64) as u64 {
                    let mut digits = first.clone();
                    digits[at] = n;
                    corners.push(self.filled(&digits));
                }
            }
        }
        corners
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        let mut names = Names { window: (100, 110), ..Names::default() };
        names.phases.push(("absorb".into(), 103, 105));
        names.read.insert(1, vec![0x40, 0x1000]);
        names.read.insert(2, vec![0x40]);
        names.sets.insert("secret".into(), Set::lines(0x2010, 0x81));
        names
    }

    fn all(text: &str) -> Vec<String> {
        let space = Space::parse(text, &names(), "stratum \"s\"").expect(text);
        (0..space.len()).map(|n| space.fault(n)).collect()
    }

    #[test]
    fn the_last_hole_counts_fastest() {
        assert_eq!(all("a={0..2} b={x|y} c"), ["a=0 b=x c", "a=0 b=y c", "a=1 b=x c", "a=1 b=y c"]);
        assert_eq!(all("no hole"), ["no hole"]);
    }

    #[test]
    fn ranges_have_steps_and_keep_their_base() {
        assert_eq!(all("{0x40..0xc1/64}"), ["0x40", "0x80", "0xc0"]);
        assert_eq!(all("{1K..1003}"), ["1000", "1001", "1002"]);
        assert_eq!(all("{phase absorb}"), ["103", "104"]);
        assert_eq!(all("{window}").len(), 10);
    }

    #[test]
    fn sets_of_lines_begin_at_lines() {
        assert_eq!(all("{secret}"), ["0x2000", "0x2040", "0x2080"]);
        assert_eq!(all("{lines-read}"), ["0x40", "0x1000"]);
        assert_eq!(all("{lines-read keyid=2}"), ["0x40"]);
    }

    #[test]
    fn what_is_no_space_is_refused_by_name() {
        let refused = |text: &str| Space::parse(text, &names(), "stratum \"s\"").expect_err(text).to_string();
        assert!(refused("{nothing}").starts_with("stratum \"s\": {nothing}: no such set; accepted: {FROM..TO}"));
        assert!(refused("{5..5}").contains("is empty"));
        assert!(refused("{lines-written}").contains("is empty"));
        assert!(refused("a {b").contains("has no end"));
        assert!(refused("{phase squeeze}").contains("accepted: absorb"));
        assert!(refused("{0..1e18} {0..1e18}").contains("2^62"));
        assert!(refused("{lines-read keyid=x}").contains("accepted: keyid=K"));
    }
}
