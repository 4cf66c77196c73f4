//! Watched lines: the last store to a line before an instruction count. The sanitizer keeps the store that made a line
//! dirty, not the last one; a second run of the same machine that watches the line finds it (design D4).

use super::hazard::{Operation, Site};
use crate::addr::LineAddr;

/// A question: what happened to `line` before instruction count `before`?
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WatchedLine {
    /// The physical line, whatever KeyID it is reached through.
    pub line: LineAddr,
    /// Only accesses of instructions with a lower count are of interest; `u64::MAX` for all.
    pub before: u64,
}

/// The answer for a KeyID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Watched {
    /// The question.
    pub watched: WatchedLine,
    /// The last access of its kind through its KeyID ([`Site::keyid`]). [`Site::operation`] tells stores from flushes.
    pub site: Site,
}

/// Collected answers.
pub(super) struct Watch {
    lines: Vec<WatchedLine>,
    /// At most one store and one flush for each question and KeyID.
    found: Vec<Watched>,
}

impl Watch {
    pub(super) fn new(lines: &[WatchedLine]) -> Self {
        let mut lines = lines.to_vec();
        lines.sort_unstable();
        lines.dedup();
        Self { lines, found: Vec::new() }
    }

    pub(super) fn watches(&self, line: LineAddr) -> bool {
        let at = self.lines.partition_point(|watched| watched.line < line);
        self.lines.get(at).is_some_and(|watched| watched.line == line)
    }

    /// An access of a line. Loads are of no interest.
    pub(super) fn note(&mut self, line: LineAddr, site: &Site) {
        if !(site.operation.writes() || flushes(site.operation)) {
            return;
        }
        let first = self.lines.partition_point(|watched| watched.line < line);
        let asked = self.lines[first..].iter().take_while(|watched| watched.line == line);
        for &watched in asked.filter(|watched| site.icount < watched.before) {
            note(&mut self.found, watched, site);
        }
    }

    /// WBINVD, WBNOINVD, INVD.
    pub(super) fn note_all(&mut self, site: &Site) {
        for &watched in self.lines.iter().filter(|watched| site.icount < watched.before) {
            note(&mut self.found, watched, site);
        }
    }

    /// What was found, by line, count, KeyID and age.
    pub(super) fn take(&mut self) -> Vec<Watched> {
        let mut found = std::mem::take(&mut self.found);
        found.sort_unstable_by_key(|found| (found.watched, found.site.keyid, found.site.icount));
        found
    }
}

fn note(found: &mut Vec<Watched>, watched: WatchedLine, site: &Site) {
    let same = |old: &&mut Watched| {
        old.watched == watched && old.site.keyid == site.keyid && old.site.operation.writes() == site.operation.writes()
    };
    match found.iter_mut().find(same) {
        Some(old) => old.site = *site,
        None => found.push(Watched { watched, site: *site }),
    }
}

fn flushes(operation: Operation) -> bool {
    matches!(operation, Operation::Flush | Operation::WriteBack)
}
