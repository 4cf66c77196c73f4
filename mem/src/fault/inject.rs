//! Faults that wait for an occasion, and those that last. The controller has one [`Injector`] or none, and tests for it where
//! a line is transferred.

use rand_chacha::ChaCha20Rng;
use std::hash::{Hash, Hasher};

use super::disturb::{Captured, Disturbance, Effect, LateWriteBack, Moment, Occasion, Report, Reported};
use super::hammer::Rows;
use super::{Direction, Transfer};
use crate::addr::{KeyId, LINE_SHIFT, LINES_PER_PAGE, LineAddr, PAGE_SHIFT};
use crate::controller::Place;
use crate::hash::StateHasher;
use crate::tme::injection_generator;
use crate::{CipherLine, PlainLine};

/// An instruction count that is not known yet.
const UNKNOWN: u64 = u64::MAX;

/// A fault that waits.
#[derive(Debug)]
struct Waiting {
    number: usize,
    occasion: Occasion,
    /// Occasions that are still to come, the last included.
    left: u64,
    effect: Effect,
}

/// A fault that lasts.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) number: usize,
    pub(crate) disturbance: Disturbance,
    /// Effects after which it goes.
    left: Option<u64>,
    effects: u64,
    rng: ChaCha20Rng,
    /// For [`Disturbance::Rowhammer`].
    rows: Rows,
}

/// A write-back that is held back.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) place: Place,
    pub(crate) line: PlainLine,
    pub(crate) poison: bool,
    instructions: u64,
    /// Instruction count, [`UNKNOWN`] until the processor has said when it was held.
    due: u64,
}

/// What happens to cached lines, seen from the controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LineEvent {
    Fill,
    WriteBack,
    Flush,
}

/// Armed faults.
pub(crate) struct Injector {
    seed: u64,
    /// Injections that draw by another number than their own.
    draws: Vec<(usize, u32)>,
    waiting: Vec<Waiting>,
    active: Vec<Active>,
    pub(crate) captured: Vec<Captured>,
    held: Vec<Held>,
    /// Faults of cached lines that were due while the controller was at work.
    pub(crate) deferred: Vec<(usize, Disturbance)>,
    reports: Vec<Report>,
    /// Reports from here on lack their time.
    stamped: usize,
    /// Lines that a waiting or a lasting fault is about, ascending.
    lines: Vec<LineAddr>,
    /// A lasting fault is about every transfer.
    everywhere: bool,
    /// One of them is Rowhammer, which has to know the time.
    pub(crate) hammers: bool,
    /// The instruction count of the transfers that follow, while `hammers`.
    pub(crate) now: u64,
    /// Pages with awaited accesses, by linear and by physical address: bit `n` for pages whose number is `n` modulo 64.
    linear_pages: u64,
    physical_pages: u64,
}

impl Injector {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            draws: Vec::new(),
            waiting: Vec::new(),
            active: Vec::new(),
            captured: Vec::new(),
            held: Vec::new(),
            deferred: Vec::new(),
            reports: Vec::new(),
            stamped: 0,
            lines: Vec::new(),
            everywhere: false,
            hammers: false,
            now: 0,
            linear_pages: 0,
            physical_pages: 0,
        }
    }

    pub(crate) fn draw_as(&mut self, number: usize, draw: u32) {
        self.draws.push((number, draw));
    }

    /// What an injection draws from.
    pub(crate) fn generator(&self, number: usize) -> ChaCha20Rng {
        let draw = self.draws.iter().find(|(of, _)| *of == number).map_or(number, |(_, draw)| *draw as usize);
        injection_generator(self.seed, draw)
    }

    /// Brings what is looked up quickly up to date.
    fn index(&mut self) {
        let waiting = self.waiting.iter().filter_map(|waiting| waiting.occasion.line());
        let active = self.active.iter().filter_map(|active| active.disturbance.line());
        self.lines = waiting.chain(active).collect();
        self.lines.sort_unstable();
        self.lines.dedup();
        self.everywhere = self
            .active
            .iter()
            .any(|active| matches!(active.disturbance, Disturbance::Alias { .. } | Disturbance::Tweak { .. }));
        self.hammers = self.active.iter().any(|active| matches!(active.disturbance, Disturbance::Rowhammer(_)));
        self.everywhere |= self.hammers;
        (self.linear_pages, self.physical_pages) = (0, 0);
        for waiting in &self.waiting {
            match waiting.occasion {
                Occasion::Linear { address, .. } => self.linear_pages |= page_bit(address),
                Occasion::Physical { address, .. } => self.physical_pages |= page_bit(address),
                _ => {}
            }
        }
    }

    /// False for most accesses that nobody waits for. KeyID bits of `bus` do not matter.
    #[inline(always)]
    pub(crate) fn may_await(&self, linear: u64, bus: u64) -> bool {
        self.linear_pages & page_bit(linear) | self.physical_pages & page_bit(bus) != 0
    }

    /// True when a transfer of one of `count` lines from `first` on needs a look.
    #[inline]
    pub(crate) fn concerns(&self, first: LineAddr, count: usize) -> bool {
        if self.everywhere {
            return true;
        }
        let at = self.lines.partition_point(|line| *line < first);
        self.lines.get(at).is_some_and(|line| line.0 - first.0 < count as u64)
    }

    pub(crate) fn wait(&mut self, number: usize, occasion: Occasion, nth: u64, effect: Effect) {
        self.waiting.push(Waiting { number, occasion, left: nth.max(1), effect });
        self.index();
    }

    /// Counts an occasion; returns what is due now, in the order in which it was armed.
    fn meet(&mut self, met: impl Fn(&Occasion) -> bool) -> Vec<(usize, Effect)> {
        let mut due = Vec::new();
        self.waiting.retain_mut(|waiting| {
            if !met(&waiting.occasion) {
                return true;
            }
            waiting.left -= 1;
            if waiting.left == 0 {
                due.push((waiting.number, waiting.effect.clone()));
            }
            waiting.left > 0
        });
        if !due.is_empty() {
            self.index();
        }
        due
    }

    pub(crate) fn meet_line(&mut self, event: LineEvent, line: LineAddr, keyid: KeyId) -> Vec<(usize, Effect)> {
        let same = |at: LineAddr, of: Option<KeyId>| at == line && of.is_none_or(|of| of == keyid);
        self.meet(|occasion| match *occasion {
            Occasion::Fill { line, keyid } => event == LineEvent::Fill && same(line, keyid),
            Occasion::WriteBack { line, keyid } => event == LineEvent::WriteBack && same(line, keyid),
            Occasion::Flush { line, keyid } => event == LineEvent::Flush && same(line, keyid),
            _ => false,
        })
    }

    /// An access of bytes that lie in one line. `physical`: their address without KeyID.
    pub(crate) fn meet_access(
        &mut self,
        linear: Option<u64>,
        physical: u64,
        len: usize,
        is_write: bool,
    ) -> Vec<(usize, Effect)> {
        let kind = |read: bool, write: bool| if is_write { write } else { read };
        self.meet(|occasion| match *occasion {
            Occasion::Linear { address, read, write } => {
                linear.is_some_and(|at| address.wrapping_sub(at) < len as u64) && kind(read, write)
            }
            Occasion::Physical { address, read, write } => {
                address.wrapping_sub(physical) < len as u64 && kind(read, write)
            }
            _ => false,
        })
    }

    pub(crate) fn meet_pconfig(&mut self) -> Vec<(usize, Effect)> {
        self.meet(|occasion| *occasion == Occasion::Pconfig)
    }

    pub(crate) fn meet_wrmsr(&mut self, number: u32) -> Vec<(usize, Effect)> {
        self.meet(|occasion| matches!(occasion, Occasion::Wrmsr { msr } if *msr == number))
    }

    /// True when accesses in the page have to be told one by one.
    pub(crate) fn watches_page(&self, linear: u64, physical: u64) -> bool {
        self.waiting.iter().any(|waiting| match waiting.occasion {
            Occasion::Linear { address, .. } => address >> PAGE_SHIFT == linear >> PAGE_SHIFT,
            Occasion::Physical { address, .. } => address >> PAGE_SHIFT == physical >> PAGE_SHIFT,
            _ => false,
        })
    }

    pub(crate) fn report(&mut self, number: usize, what: Reported, keyid: Option<KeyId>) {
        self.reports.push(Report { number, what, moment: Moment { icount: UNKNOWN, rip: 0, keyid } });
    }

    /// True when reports lack their time.
    #[inline]
    pub(crate) fn has_unstamped(&self) -> bool {
        self.stamped < self.reports.len()
    }

    pub(crate) fn stamp(&mut self, icount: u64, rip: u64) {
        for report in &mut self.reports[self.stamped..] {
            report.moment = Moment { icount, rip, ..report.moment };
        }
        self.stamped = self.reports.len();
        for held in self.held.iter_mut().filter(|held| held.due == UNKNOWN) {
            held.due = icount.saturating_add(held.instructions).min(UNKNOWN - 1);
        }
    }

    pub(crate) fn take_reports(&mut self) -> Vec<Report> {
        self.stamped = 0;
        std::mem::take(&mut self.reports)
    }

    pub(crate) fn start(&mut self, number: usize, disturbance: Disturbance, times: Option<u64>) {
        let rng = self.generator(number);
        self.active.push(Active { number, disturbance, left: times, effects: 0, rng, rows: Rows::default() });
        self.index();
    }

    pub(crate) fn end(&mut self, number: usize) {
        self.active.retain(|active| active.number != number);
        self.index();
    }

    /// Asks every lasting fault whether it has an effect now; the effect itself is the caller's, by the disturbance.
    fn each(&mut self, keyid: Option<KeyId>, mut effect: impl FnMut(&Disturbance, &mut ChaCha20Rng) -> bool) {
        let mut gone = false;
        for at in 0..self.active.len() {
            let active = &mut self.active[at];
            if !effect(&active.disturbance, &mut active.rng) {
                continue;
            }
            active.effects += 1;
            let (number, first) = (active.number, active.effects == 1);
            if let Some(left) = &mut active.left {
                *left = left.saturating_sub(1);
                gone |= *left == 0;
            }
            if first {
                self.report(number, Reported::Effect, keyid);
            }
        }
        if gone {
            self.active.retain(|active| active.left != Some(0));
            self.index();
        }
    }

    /// A line of cells, by its number, is accessed. Returns the bits that flip, by fault, counted from the start of RAM.
    pub(crate) fn hammer(&mut self, line: u64, lines: u64) -> Vec<(usize, Vec<u64>)> {
        if !self.hammers {
            return Vec::new();
        }
        let mut flips = Vec::new();
        for Active { number, disturbance, effects, rng, rows, .. } in &mut self.active {
            if let Disturbance::Rowhammer(how) = disturbance {
                let bits = rows.access(how, line, lines, self.now, rng);
                if !bits.is_empty() {
                    *effects += 1;
                    flips.push((*number, bits));
                }
            }
        }
        flips
    }

    /// What arrives at the controller of what the cells of line `cells_of` hold.
    pub(crate) fn arrive(&mut self, at: LineAddr, cells_of: LineAddr, keyid: KeyId, cells: &mut CipherLine) {
        self.each(Some(keyid), |disturbance, rng| match disturbance {
            Disturbance::Intermittent { line, bits, rate } if *line == cells_of && rate.happens(rng) => {
                bits.flip(&mut cells.0);
                true
            }
            Disturbance::Bus { line, bits, way } if *line == at && way.covers(Direction::Read) => {
                bits.flip(&mut cells.0);
                true
            }
            _ => false,
        });
    }

    /// What arrives at the cells of what left the controller for line `at`. Stuck cells are not this one's.
    pub(crate) fn leave(&mut self, at: LineAddr, keyid: KeyId, cells: &mut CipherLine) {
        self.each(Some(keyid), |disturbance, _| match disturbance {
            Disturbance::Bus { line, bits, way } if *line == at && way.covers(Direction::Write) => {
                bits.flip(&mut cells.0);
                true
            }
            _ => false,
        });
    }

    /// What cells hold after a write.
    pub(crate) fn stick(&self, cells_of: LineAddr, cells: &mut CipherLine) {
        for active in &self.active {
            if let Disturbance::Stuck { line, bits, value } = &active.disturbance
                && *line == cells_of
            {
                bits.force(&mut cells.0, *value);
            }
        }
    }

    pub(crate) fn late_write_back(&mut self, at: LineAddr, of: KeyId) -> Option<LateWriteBack> {
        let mut found = None;
        self.each(Some(of), |disturbance, _| match disturbance {
            Disturbance::WriteBack { line, keyid, how }
                if *line == at && keyid.is_none_or(|k| k == of) && found.is_none() =>
            {
                found = Some(*how);
                true
            }
            _ => false,
        });
        found
    }

    pub(crate) fn swallows_flush(&mut self, at: LineAddr, of: KeyId) -> bool {
        let mut found = false;
        self.each(Some(of), |disturbance, _| match disturbance {
            Disturbance::Flush { line, keyid } if *line == at && keyid.is_none_or(|k| k == of) => {
                found = true;
                true
            }
            _ => false,
        });
        found
    }

    pub(crate) fn hold(&mut self, place: Place, line: PlainLine, poison: bool, instructions: u64, keyid: KeyId) {
        self.held.push(Held { place, line, poison, instructions, due: UNKNOWN });
        self.report(usize::MAX, Reported::Held { instructions }, Some(keyid));
    }

    /// The first instruction count at which a write-back is due.
    pub(crate) fn next_held(&self) -> Option<u64> {
        self.held.iter().map(|held| held.due).filter(|due| *due != UNKNOWN).min()
    }

    /// Takes the write-backs that are due, the longest held first.
    pub(crate) fn take_held(&mut self, now: u64) -> Vec<Held> {
        let (due, rest) = std::mem::take(&mut self.held).into_iter().partition(|held| held.due <= now);
        self.held = rest;
        due
    }

    /// Write-backs that are on their way are lost.
    pub(crate) fn power_off(&mut self) {
        self.held.clear();
    }

    /// True while several addresses reach the same cells.
    pub(crate) fn aliases(&self) -> bool {
        self.everywhere && self.active.iter().any(|active| matches!(active.disturbance, Disturbance::Alias { .. }))
    }

    /// The stuck KeyID wires: KeyID bits that are 0, and that are 1.
    pub(crate) fn wires(&self) -> Option<(u16, u16)> {
        let mut wires = None;
        for active in &self.active {
            if let Disturbance::KeyidWire { bit, value } = active.disturbance {
                let (low, high) = wires.get_or_insert((0, 0));
                *(if value { high } else { low }) |= 1 << (bit & 15);
            }
        }
        wires
    }

    /// Where the cells are and what the cipher is told, as lasting faults have it.
    pub(crate) fn redirect(&self, transfer: Transfer, direction: Direction) -> Transfer {
        if !self.everywhere {
            return transfer;
        }
        let Transfer { page, line, mut dun } = transfer;
        let mut cells = u64::from(page) * LINES_PER_PAGE as u64 + u64::from(line);
        for active in &self.active {
            match active.disturbance {
                // Clearing bits makes the number smaller, so the cells exist.
                Disturbance::Alias { mask } => cells &= !(mask >> LINE_SHIFT),
                Disturbance::Tweak { xor, ignore, way } if way.covers(direction) => dun = dun & !ignore ^ xor,
                _ => {}
            }
        }
        let (page, line) = (cells / LINES_PER_PAGE as u64, cells % LINES_PER_PAGE as u64);
        Transfer { page: page as u32, line: line as u32, dun }
    }

    /// Lasting faults and held write-backs: the guest's future depends on them. What only waits does not enter, so that an
    /// armed fault leaves the hash as it is.
    pub(crate) fn hash(&self, hasher: &mut StateHasher) {
        let mut adapter = Adapter(hasher);
        for active in &self.active {
            active.disturbance.hash(&mut adapter);
            (active.number, active.left, active.rng.get_word_pos()).hash(&mut adapter);
            if matches!(active.disturbance, Disturbance::Rowhammer(_)) {
                active.rows.hash(&mut adapter);
            }
        }
        for held in &self.held {
            (held.place.address.0, held.line.0, held.due).hash(&mut adapter);
        }
    }
}

#[inline(always)]
fn page_bit(address: u64) -> u64 {
    1 << (address >> PAGE_SHIFT & 63)
}

/// [`StateHasher`] as the standard library's trait.
struct Adapter<'a>(&'a mut StateHasher);

impl Hasher for Adapter<'_> {
    fn finish(&self) -> u64 {
        0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0.bytes(bytes);
    }
}
