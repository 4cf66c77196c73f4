//! Packages: each has TME state and engines of its own and encrypts the DRAM behind it (MK specification section 4.7).

use x86::mutant;
use x86::platform::ResetKind;

use crate::config::Config;
use crate::event::Event;
use crate::hash::StateHasher;
use crate::tme::TmePackage;

/// The packages of the machine. MSRs and PCONFIG act on the one whose processor executes; a line is encrypted by the one
/// whose DRAM range it lies in.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
pub(crate) struct Packages {
    pub(crate) executing: TmePackage,
    /// Number of the executing one.
    number: usize,
    /// The others by number.
    others: Vec<TmePackage>,
    /// RAM pages behind each package; the last one has the remainder too.
    pages_each: u32,
    /// [`Event::PackageMismatch`] was raised.
    mismatch: bool,
}

impl Packages {
    /// `config.packages` packages share `ram_pages` pages.
    pub(crate) fn new(config: &Config, ram_pages: usize) -> Self {
        let new = |number| TmePackage::numbered(number, config);
        Self {
            executing: new(0),
            number: 0,
            others: (1..config.packages).map(new).collect(),
            pages_each: (ram_pages / config.packages.max(1)).max(1) as u32,
            mismatch: false,
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.others.len() + 1
    }

    /// Number of the executing package.
    pub(crate) fn number(&self) -> usize {
        self.number
    }

    pub(crate) fn get(&self, number: usize) -> Option<&TmePackage> {
        if number == self.number { Some(&self.executing) } else { self.others.get(self.place(number)) }
    }

    pub(crate) fn get_mut(&mut self, number: usize) -> Option<&mut TmePackage> {
        if number == self.number {
            return Some(&mut self.executing);
        }
        let place = self.place(number);
        self.others.get_mut(place)
    }

    /// Where another package than the executing one is in `others`.
    fn place(&self, number: usize) -> usize {
        if number < self.number { number } else { number - 1 }
    }

    /// The package whose DRAM has this page.
    pub(crate) fn home(&self, page: u32) -> usize {
        ((page / self.pages_each) as usize).min(self.others.len())
    }

    /// The engines that encrypt this page.
    #[inline]
    pub(crate) fn engine(&self, page: u32) -> &TmePackage {
        if self.others.is_empty() || mutant!(PackagesShareKeys) {
            return &self.executing;
        }
        self.get(self.home(page)).unwrap_or(&self.executing)
    }

    /// From now on a processor of package `number` executes. False, and no change, if there is none.
    pub(crate) fn execute_on(&mut self, number: usize) -> bool {
        if number >= self.count() {
            return false;
        }
        if number != self.number {
            let arriving = self.others.remove(self.place(number));
            let leaving = std::mem::replace(&mut self.executing, arriving);
            let before = std::mem::replace(&mut self.number, number);
            self.others.insert(self.place(before), leaving);
            // One log for the machine: it follows the processor that executes.
            let at = self.place(before);
            std::mem::swap(&mut self.executing.events, &mut self.others[at].events);
        }
        self.note_mismatch();
        true
    }

    /// Firmware has to write the same value to every package (MK specification section 9.16).
    fn note_mismatch(&mut self) {
        let here = self.executing.activate();
        let locked = |value: u64| value & x86::tme::activate::LOCK != 0;
        let differs = |other: &TmePackage| locked(here) && locked(other.activate()) && here != other.activate();
        if !self.mismatch && self.others.iter().any(differs) {
            self.mismatch = true;
            self.executing.events.push(Event::PackageMismatch);
        }
    }

    pub(crate) fn reset(&mut self, kind: ResetKind) {
        self.executing.reset(kind);
        for other in &mut self.others {
            other.reset(kind);
        }
        self.mismatch &= kind == ResetKind::Init;
    }

    /// True if the state of one can be taken over by the other.
    pub(crate) fn same_hardware(&self, other: &Self) -> bool {
        let same = |number| match (self.get(number), other.get(number)) {
            (Some(a), Some(b)) => a.same_hardware(b),
            _ => false,
        };
        self.count() == other.count()
            && self.pages_each == other.pages_each
            && self.number < self.count()
            && other.number < other.count()
            && (0..self.count()).all(same)
    }

    pub(crate) fn hash(&self, hasher: &mut StateHasher) {
        if !self.others.is_empty() {
            hasher.u64(self.count() as u64);
            hasher.u64(self.number as u64);
        }
        for package in (0..self.count()).filter_map(|number| self.get(number)) {
            package.hash(hasher);
        }
    }
}
