//! The rules once more, byte by byte, with maps and without thought for speed.

use std::collections::BTreeMap;

use mem::HazardKind::{self, *};
use mem::Operation;

/// KeyID, instruction count of an access.
pub type By = (u16, u64);
/// Kind, line, first byte, access, other access.
pub type Report = (HazardKind, u64, u8, By, By);

#[derive(Clone, Copy, PartialEq)]
pub enum Why {
    Stale,
    WrongKey,
    Lost,
}

/// A copy of a line that may be in the cache.
#[derive(Clone)]
struct Copy {
    bad: [bool; 64],
    why: Why,
    by: By,
    /// The store that made it dirty.
    dirty: Option<By>,
    told: bool,
}

/// A line as DRAM has it; key 0 means that nobody has written the byte.
#[derive(Clone)]
struct Cells {
    key: [u32; 64],
    bad: [bool; 64],
    why: Why,
    by: By,
    told: bool,
}

#[derive(Default)]
pub struct Naive {
    copies: BTreeMap<(u64, u16), Copy>,
    cells: BTreeMap<u64, Cells>,
    silent: BTreeMap<(u64, u16), bool>,
    pub keys: BTreeMap<u16, u32>,
    pub reports: Vec<Report>,
}

impl Naive {
    fn key(&self, kid: u16) -> u32 {
        self.keys.get(&kid).copied().unwrap_or(1)
    }

    fn kids(&self, line: u64) -> Vec<u16> {
        self.copies.range((line, 0)..=(line, u16::MAX)).map(|((_, kid), _)| *kid).collect()
    }

    fn foreign_dirty(&mut self, line: u64, first: u8, (kid, now): By, operation: Operation) -> bool {
        let mut any = false;
        for other in self.kids(line).into_iter().filter(|other| *other != kid) {
            let copy = self.copies.get_mut(&(line, other)).unwrap();
            let Some(store) = copy.dirty else { continue };
            any = true;
            if !std::mem::replace(&mut copy.told, true) {
                let kind = match operation {
                    Operation::DmaRead | Operation::DmaWrite => DmaBypassesDirtyLine,
                    Operation::Flush | Operation::WriteBack => WrongAliasFlushed,
                    _ if other == 0 => MissingFlushOnAlloc,
                    Operation::Store | Operation::NonTemporalStore if kid == 0 => MissingFlushOnFree,
                    Operation::Store | Operation::NonTemporalStore => LostWrite,
                    _ => StaleRead,
                };
                self.reports.push((kind, line, first, (kid, now), store));
            }
        }
        any
    }

    /// Bytes of DRAM that a KeyID cannot use, why, and who wrote them.
    fn dram_view(&self, line: u64, kid: u16) -> ([bool; 64], Why, By, bool) {
        let Some(cells) = self.cells.get(&line) else { return ([false; 64], Why::Stale, (0, 0), false) };
        let unreadable: [bool; 64] = std::array::from_fn(|i| cells.key[i] != 0 && cells.key[i] != self.key(kid));
        let why = if unreadable.contains(&true) { Why::WrongKey } else { cells.why };
        (std::array::from_fn(|i| unreadable[i] || cells.bad[i]), why, cells.by, cells.told)
    }

    fn fill(&mut self, line: u64, kid: u16) {
        if self.copies.contains_key(&(line, kid)) {
            return;
        }
        let (mut bad, mut why, mut by, mut told) = self.dram_view(line, kid);
        let dirty = self.kids(line).into_iter().find_map(|other| Some((other, self.copies[&(line, other)].dirty?)));
        if let Some((_, store)) = dirty {
            (bad, why, by, told) = ([true; 64], Why::Stale, store, true);
        }
        self.silent.insert((line, kid), told);
        self.copies.insert((line, kid), Copy { bad, why, by, dirty: None, told: false });
    }

    fn consume(&mut self, line: u64, first: usize, len: usize, by: By, view: ([bool; 64], Why, By, bool), fetch: bool) {
        let (bad, why, other, known) = view;
        let used = (first..first + len).find(|i| bad[*i]);
        let used = if fetch { bad.iter().all(|bad| *bad).then_some(first) } else { used };
        let Some(byte) = used else { return };
        let silent = self.silent.insert((line, by.0), true).unwrap_or(false);
        if !silent && !known {
            let kind = match why {
                Why::Stale => StaleRead,
                Why::WrongKey => WrongKeyRead,
                Why::Lost => LostWrite,
            };
            self.reports.push((kind, line, byte as u8, by, other));
        }
    }

    fn copy_view(&self, line: u64, kid: u16, first: usize, len: usize) -> ([bool; 64], Why, By, bool) {
        let copy = &self.copies[&(line, kid)];
        let mut view = (copy.bad, copy.why, copy.by, false);
        if copy.dirty.is_none()
            && let Some(cells) = self.cells.get(&line)
        {
            let unreadable: [bool; 64] = std::array::from_fn(|i| cells.key[i] != 0 && cells.key[i] != self.key(kid));
            if unreadable.contains(&true) && !copy.bad[first..first + len].contains(&true) {
                view = (view.0, Why::WrongKey, cells.by, cells.told);
            }
            view.0 = std::array::from_fn(|i| copy.bad[i] || unreadable[i]);
        }
        view
    }

    pub fn load(&mut self, line: u64, first: usize, len: usize, by: By, operation: Operation) {
        let foreign = self.foreign_dirty(line, first as u8, by, operation);
        if operation != Operation::DmaRead {
            self.fill(line, by.0);
        }
        let mut view = match self.copies.contains_key(&(line, by.0)) {
            true => self.copy_view(line, by.0, first, len),
            false => self.dram_view(line, by.0),
        };
        view.3 |= foreign;
        self.consume(line, first, len, by, view, operation == Operation::Fetch);
    }

    pub fn load_uncached(&mut self, line: u64, first: usize, len: usize, by: By) {
        let foreign = self.foreign_dirty(line, first as u8, by, Operation::Load);
        self.write_back(line, by.0);
        self.copies.remove(&(line, by.0));
        let mut view = self.dram_view(line, by.0);
        view.3 |= foreign;
        self.consume(line, first, len, by, view, false);
    }

    pub fn store(&mut self, line: u64, first: usize, len: usize, by: By) {
        let foreign = self.foreign_dirty(line, first as u8, by, Operation::Store);
        self.fill(line, by.0);
        let key = self.key(by.0);
        let cells = self.cells.get(&line).cloned();
        let copy = self.copies.get_mut(&(line, by.0)).unwrap();
        if copy.dirty.is_none() {
            let lost: Vec<usize> = cells
                .iter()
                .flat_map(|cells| (0..64).filter(|i| cells.key[*i] != 0 && cells.key[*i] != key))
                .filter(|i| !copy.bad[*i])
                .collect();
            if let (Some(cells), false) = (&cells, lost.is_empty()) {
                lost.iter().for_each(|i| copy.bad[*i] = true);
                (copy.why, copy.by) = (Why::WrongKey, cells.by);
                if cells.told {
                    self.silent.insert((line, by.0), true);
                }
            }
            copy.dirty = Some(by);
            copy.told = false;
        }
        copy.bad[first..first + len].fill(false);
        let known = copy.told;
        if foreign {
            self.silent.insert((line, by.0), true);
        }
        self.outdate(line, 0..64, by, known);
    }

    fn outdate(&mut self, line: u64, bytes: std::ops::Range<usize>, by: By, known: bool) {
        for other in self.kids(line).into_iter().filter(|other| *other != by.0) {
            let copy = self.copies.get_mut(&(line, other)).unwrap();
            copy.bad[bytes.clone()].fill(true);
            (copy.why, copy.by) = (Why::Stale, by);
            if !known {
                self.silent.insert((line, other), false);
            }
        }
    }

    pub fn store_past(&mut self, line: u64, first: usize, len: usize, by: By, operation: Operation) {
        self.foreign_dirty(line, first as u8, by, operation);
        if len < 64 {
            self.write_back(line, by.0);
        }
        self.copies.remove(&(line, by.0));
        let key = self.key(by.0);
        let blocks = first / 16 * 16..(first + len).next_multiple_of(16);
        let unwritten = Cells { key: [0; 64], bad: [false; 64], why: Why::Stale, by, told: false };
        let cells = self.cells.entry(line).or_insert(unwritten);
        for i in blocks.clone() {
            if cells.key[i] != 0 && cells.key[i] != key {
                (cells.bad[i], cells.why) = (true, Why::WrongKey);
            }
            cells.key[i] = key;
        }
        cells.bad[first..first + len].fill(false);
        (cells.by, cells.told) = (by, false);
        self.dram_changed(line);
        self.outdate(line, blocks, by, false);
    }

    fn dram_changed(&mut self, line: u64) {
        let copies = &self.copies;
        self.silent.retain(|key, _| key.0 != line || copies.contains_key(key));
    }

    fn write_back(&mut self, line: u64, kid: u16) {
        let key = self.key(kid);
        let Some(copy) = self.copies.get_mut(&(line, kid)) else { return };
        let Some(store) = copy.dirty.take() else { return };
        let why = if copy.why == Why::Stale { Why::Lost } else { copy.why };
        let told = std::mem::take(&mut copy.told);
        self.cells.insert(line, Cells { key: [key; 64], bad: copy.bad, why, by: store, told });
        self.dram_changed(line);
    }

    pub fn flush(&mut self, line: u64, by: By, operation: Operation) {
        let dirty = self.copies.get(&(line, by.0)).is_some_and(|copy| copy.dirty.is_some());
        if dirty {
            self.write_back(line, by.0);
        } else {
            self.foreign_dirty(line, 0, by, operation);
        }
        if operation == Operation::Flush {
            self.copies.remove(&(line, by.0));
        }
    }

    pub fn whole_cache(&mut self, operation: Operation) {
        let all: Vec<(u64, u16)> = self.copies.keys().copied().collect();
        for (line, kid) in all {
            if operation != Operation::Invalidate {
                self.write_back(line, kid);
            }
        }
        if operation != Operation::WriteBackAll {
            self.copies.clear();
        }
    }

    pub fn program(&mut self, by: By, key: u32) {
        if std::mem::replace(self.keys.entry(by.0).or_insert(1), key) == key {
            return;
        }
        let mut first = None;
        for ((line, kid), copy) in &mut self.copies {
            if let (true, Some(store)) = (*kid == by.0, copy.dirty) {
                first.get_or_insert((*line, store));
                (copy.bad, copy.why, copy.by, copy.told) = ([true; 64], Why::Stale, by, true);
                self.silent.insert((*line, *kid), true);
            }
        }
        if let Some((line, store)) = first {
            self.reports.push((DirtyLineAtRekey, line, 0, by, store));
        }
    }
}
