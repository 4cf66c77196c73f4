//! How faults are armed, and how the rest of the memory side meets them.

use super::about::About;
use super::disturb::{Accessed, Disturbance, Effect, LateWriteBack, Occasion, Report, Reported};
use super::inject::{Injector, LineEvent};
use crate::CipherLine;
use crate::addr::{BusAddr, KeyId, LINE_BYTES, LINES_PER_PAGE, LineAddr};
use crate::controller::{Controller, Place};
use crate::event::Event;
use crate::frame::FramePtr;
use crate::integrity::MAC_BITS;
use crate::memory::Memory;
use crate::rate::Rate;
use crate::tme::{EntropyStep, EntropyStream};

impl Controller {
    /// True when a transfer of one of these lines needs a look.
    #[inline]
    pub(crate) fn disturbed(&self, place: Place, lines: usize) -> bool {
        let may_be = if lines == 1 { self.about.line(place.line()) } else { self.about.any_line() };
        may_be && self.is_disturbed(place, lines)
    }

    fn is_disturbed(&self, place: Place, lines: usize) -> bool {
        let line = self.layout().mem(place.address).line();
        self.injector.as_ref().is_some_and(|injector| injector.concerns(line, lines))
    }

    fn line_and_keyid(&self, place: Place) -> (LineAddr, KeyId) {
        (self.layout().mem(place.address).line(), self.layout().keyid(place.address))
    }

    fn cells_of(&self, page: u32, line: u32) -> LineAddr {
        LineAddr(self.map.page_address(page).line().0 + u64::from(line))
    }

    /// Something happens to a line.
    #[cold]
    pub(crate) fn meet(&mut self, event: LineEvent, place: Place) {
        let (line, keyid) = self.line_and_keyid(place);
        let Some(injector) = &mut self.injector else { return };
        for (number, effect) in injector.meet_line(event, line, keyid) {
            self.carry_out(number, effect, Some(keyid));
        }
    }

    fn report(&mut self, number: usize, what: Reported, keyid: Option<KeyId>) {
        if let Some(injector) = &mut self.injector {
            injector.report(number, what, keyid);
        }
    }

    fn carry_out(&mut self, number: usize, effect: Effect, keyid: Option<KeyId>) {
        match effect {
            Effect::Report => self.report(number, Reported::Triggered, keyid),
            Effect::Capture { line } => {
                let (cells, metadata) = (self.dram.read_raw(line), self.dram.metadata_raw(line));
                if let Some(injector) = &mut self.injector {
                    injector.captured.push((number, cells, metadata));
                }
            }
            Effect::Disturb { disturbance, times } => {
                self.report(number, Reported::Triggered, keyid);
                self.disturb(number, disturbance, times, keyid);
            }
        }
    }

    /// Performs a fault, or begins one that lasts.
    fn disturb(&mut self, number: usize, disturbance: Disturbance, times: Option<u64>, keyid: Option<KeyId>) {
        self.about.note_disturbance(&disturbance);
        let effect = match &disturbance {
            Disturbance::Flip { line, bits } => self.change_cells(*line, |cells| bits.flip(&mut cells.0)),
            Disturbance::Stuck { line, bits, value } => {
                self.change_cells(*line, |cells| bits.force(&mut cells.0, *value))
            }
            Disturbance::Replay { line } => {
                let of = |injector: &Injector| injector.captured.iter().rfind(|(of, ..)| *of == number).copied();
                match self.injector.as_deref().and_then(of) {
                    Some((_, old, metadata)) => {
                        self.dram.set_metadata_raw(*line, metadata);
                        self.change_cells(*line, |cells| *cells = old)
                    }
                    None => false,
                }
            }
            Disturbance::Splice { line, from, block } => {
                let source = self.dram.read_raw(*from);
                if block.is_none() {
                    // The metadata is in the same chips.
                    let metadata = self.dram.metadata_raw(*from);
                    self.dram.set_metadata_raw(*line, metadata);
                }
                let range = block.map_or(0..LINE_BYTES, |block| {
                    let at = usize::from(block & 3) * 16;
                    at..at + 16
                });
                self.change_cells(*line, |cells| cells.0[range.clone()].copy_from_slice(&source.0[range]))
            }
            Disturbance::Mac { line, bits } => {
                let mut metadata = self.dram.metadata_raw(*line);
                metadata.mac ^= bits.iter().filter(|bit| *bit < MAC_BITS).fold(0, |mask, bit| mask | 1 << bit);
                self.integrity.is_some() && self.dram.set_metadata_raw(*line, metadata)
            }
            Disturbance::Decay { rate } => self.decay(number, *rate),
            &Disturbance::Key { package, keyid, field, bit } => {
                let flipped = self.packages.get_mut(package).is_some_and(|tme| tme.flip_key(keyid, field, bit));
                if flipped {
                    self.push_event(Event::KeytableFlip { package, keyid, field, bit });
                }
                flipped
            }
            &Disturbance::Exclude { base, bit } => {
                self.packages.executing.flip_exclude(base, bit);
                true
            }
            &Disturbance::PconfigBusy { count } => {
                self.packages.executing.hold_key_table(count);
                true
            }
            &Disturbance::PconfigEntropy { count } => self.fail_draws(EntropyStream::Pconfig, count),
            &Disturbance::Random { count } => self.fail_draws(EntropyStream::Instruction, count),
            Disturbance::Cache { .. } => {
                if let Some(injector) = &mut self.injector {
                    injector.deferred.push((number, disturbance));
                }
                return;
            }
            Disturbance::Alias { .. } | Disturbance::Tweak { .. } | Disturbance::KeyidWire { .. } => true,
            // These say for themselves when they have an effect.
            Disturbance::Intermittent { .. }
            | Disturbance::Bus { .. }
            | Disturbance::Rowhammer(_)
            | Disturbance::WriteBack { .. }
            | Disturbance::Flush { .. } => false,
        };
        if effect {
            self.report(number, Reported::Effect, keyid);
        }
        if disturbance.lasts()
            && let Some(injector) = &mut self.injector
        {
            injector.start(number, disturbance, times);
            self.wires = injector.wires();
        }
    }

    fn change_cells(&mut self, line: LineAddr, change: impl FnOnce(&mut CipherLine)) -> bool {
        let mut cells = self.dram.read_raw(line);
        change(&mut cells);
        self.dram.write_raw(line, &cells)
    }

    fn fail_draws(&mut self, stream: EntropyStream, count: u32) -> bool {
        let steps = std::iter::repeat_n(EntropyStep::Fail, count as usize);
        self.packages.executing.script_entropy(stream, steps);
        true
    }

    /// Every bit of every page that exists, with one probability, and after them those of the MACs. Gaps between flipped bits
    /// are drawn, not bits.
    fn decay(&mut self, number: usize, rate: Rate) -> bool {
        let Some(mut rng) = self.injector.as_ref().map(|injector| injector.generator(number)) else { return false };
        if rate == Rate::NEVER {
            return false;
        }
        let lines = (self.map.pages() * LINES_PER_PAGE) as u64;
        let mut each = |bits: u64, flip: &mut dyn FnMut(u32, u32, u64)| {
            let mut at = rate.gap(&mut rng);
            while at < lines * bits {
                let (line, bit) = (at / bits, at % bits);
                let (page, line) = (line / LINES_PER_PAGE as u64, line % LINES_PER_PAGE as u64);
                if self.dram.exists(page as u32) {
                    flip(page as u32, line as u32, bit);
                }
                at = at.saturating_add(1).saturating_add(rate.gap(&mut rng));
            }
        };
        each(LINE_BYTES as u64 * 8, &mut |page, line, bit| {
            let mut cells = self.dram.read(page, line);
            cells.0[(bit / 8) as usize] ^= 1 << (bit % 8);
            self.dram.write(page, line, &cells);
        });
        if self.integrity.is_some() {
            each(u64::from(MAC_BITS), &mut |page, line, bit| {
                let mut metadata = self.dram.metadata(page, line);
                metadata.mac ^= 1 << bit;
                self.dram.set_metadata(page, line, metadata);
            });
        }
        true
    }

    /// What arrives of cells that were read for `place`.
    #[cold]
    pub(crate) fn arrive(&mut self, place: Place, page: u32, line: u32) -> CipherLine {
        self.hammer(page, line);
        let mut cells = self.dram.read(page, line);
        let ((at, keyid), cells_of) = (self.line_and_keyid(place), self.cells_of(page, line));
        if let Some(injector) = &mut self.injector {
            injector.arrive(at, cells_of, keyid, &mut cells);
        }
        cells
    }

    /// What has become of cells that were written for `place`.
    #[cold]
    pub(crate) fn leave(&mut self, place: Place, page: u32, line: u32) {
        let mut cells = self.dram.read(page, line);
        let ((at, keyid), cells_of) = (self.line_and_keyid(place), self.cells_of(page, line));
        if let Some(injector) = &mut self.injector {
            injector.leave(at, keyid, &mut cells);
            injector.stick(cells_of, &mut cells);
        }
        self.dram.write(page, line, &cells);
        self.hammer(page, line);
    }

    /// Cells are accessed: their row may disturb its neighbours.
    fn hammer(&mut self, page: u32, line: u32) {
        let lines = (self.map.pages() * LINES_PER_PAGE) as u64;
        let number_of = u64::from(page) * LINES_PER_PAGE as u64 + u64::from(line);
        let Some(injector) = &mut self.injector else { return };
        for (number, bits) in injector.hammer(number_of, lines) {
            let mut flipped = false;
            for bit in bits {
                let (line, bit) = (bit / (LINE_BYTES as u64 * 8), bit % (LINE_BYTES as u64 * 8));
                let (page, line) = ((line / LINES_PER_PAGE as u64) as u32, (line % LINES_PER_PAGE as u64) as u32);
                // Cells that were never written hold nothing that anybody could miss.
                if self.dram.exists(page) {
                    let mut cells = self.dram.read(page, line);
                    cells.0[(bit / 8) as usize] ^= 1 << (bit % 8);
                    self.dram.write(page, line, &cells);
                    flipped = true;
                }
            }
            if flipped {
                self.report(number, Reported::Effect, None);
            }
        }
    }

    /// [`leave`](Self::leave) of a write that is no transfer.
    pub(crate) fn stick(&self, page: u32, line: u32) {
        if let Some(injector) = &self.injector {
            let mut cells = self.dram.read(page, line);
            injector.stick(self.cells_of(page, line), &mut cells);
            self.dram.write(page, line, &cells);
        }
    }

    /// A write-back is about to take place. False: it does not.
    #[cold]
    pub(crate) fn lets_write_back(&mut self, place: Place, frame: FramePtr) -> bool {
        self.meet(LineEvent::WriteBack, place);
        let (line, keyid) = self.line_and_keyid(place);
        let Some(injector) = &mut self.injector else { return true };
        match injector.late_write_back(line, keyid) {
            None => true,
            Some(LateWriteBack::Drop) => false,
            Some(LateWriteBack::Duplicate) => {
                self.write_from(place, frame);
                true
            }
            Some(LateWriteBack::Delay(instructions)) => {
                injector.hold(place, frame.0.line(place.line()), frame.is_poisoned(place.line()), instructions, keyid);
                false
            }
        }
    }

    /// CLFLUSH, CLFLUSHOPT or CLWB is about to take place. False: it does not.
    #[cold]
    pub(crate) fn lets_flush(&mut self, place: Place) -> bool {
        self.meet(LineEvent::Flush, place);
        let (line, keyid) = self.line_and_keyid(place);
        !self.injector.as_mut().is_some_and(|injector| injector.swallows_flush(line, keyid))
    }

    /// The address that arrives at the caches.
    #[cold]
    pub(crate) fn over_wires(&self, address: BusAddr, (low, high): (u16, u16)) -> BusAddr {
        let layout = self.layout();
        let keyid = KeyId(layout.keyid(address).0 & !low | high);
        // Bits that are no address bits stay, so that the address is refused as before.
        BusAddr(layout.join(layout.mem(address), keyid).0 | address.0 & !((1 << u32::from(layout.maxphyaddr)) - 1))
    }
}

impl Memory {
    fn injector_mut(&mut self) -> &mut Injector {
        let seed = self.seed;
        self.controller.injector.get_or_insert_with(|| Box::new(Injector::new(seed)))
    }

    /// Lets an injection wait: on the `nth` occasion, from 1, `effect` happens. Costs nothing elsewhere, but accesses to the
    /// page of an awaited access are slow ones: the processor has to forget its shortcuts.
    pub fn arm(&mut self, number: usize, occasion: Occasion, nth: u64, effect: Effect) {
        self.controller.about.note_occasion(&occasion);
        self.injector_mut().wait(number, occasion, nth, effect);
    }

    /// Makes an injection draw by another number than its own.
    pub fn draw_as(&mut self, number: usize, draw: u32) {
        self.injector_mut().draw_as(number, draw);
    }

    /// Performs a fault between two instructions, or begins one that lasts: `times` effects at most.
    pub fn disturb(&mut self, number: usize, disturbance: Disturbance, times: Option<u64>) {
        self.observe_key_access();
        self.cache.expose_all(&mut self.controller);
        self.injector_mut();
        self.controller.disturb(number, disturbance, times, None);
        self.note_observed();
        self.catch_up();
    }

    /// Remembers the cells of a line for [`Disturbance::Replay`] of the same injection.
    pub fn capture(&mut self, number: usize, line: LineAddr) {
        self.cache.expose_all(&mut self.controller);
        self.injector_mut();
        self.controller.carry_out(number, Effect::Capture { line }, None);
    }

    /// Ends what lasts of an injection.
    pub fn relieve(&mut self, number: usize) {
        self.cache.expose_all(&mut self.controller);
        if let Some(injector) = &mut self.controller.injector {
            injector.end(number);
            self.controller.wires = injector.wires();
        }
        self.note_observed();
    }

    /// True while a KeyID wire is stuck.
    pub fn has_stuck_wires(&self) -> bool {
        self.controller.wires.is_some()
    }

    /// Disarms everything, and gives the undisturbed path back its speed.
    pub fn disarm(&mut self) {
        self.cache.expose_all(&mut self.controller);
        self.controller.injector = None;
        self.controller.about = About::default();
        self.controller.wires = None;
        self.note_observed();
    }

    /// Performs faults of cached lines that were due while a line was transferred.
    pub fn catch_up(&mut self) {
        // A fault that has to know the time may have begun.
        self.note_observed();
        let Some(injector) = &mut self.controller.injector else { return };
        for (number, disturbance) in std::mem::take(&mut injector.deferred) {
            if let Disturbance::Cache { line, keyid, bits } = disturbance {
                let address = self.layout().join(line.start(), keyid);
                let place = self.controller.place_beyond_wires(address).filter(|_| !self.cache.is_off());
                let Some((place, frame)) = place.and_then(|place| Some((place, self.cache.hit(place)?))) else {
                    continue;
                };
                let mut bytes = frame.0.line(place.line());
                bits.flip(&mut bytes.0);
                frame.0.set_line(place.line(), &bytes);
                self.void_code(place);
                self.controller.report(number, Reported::Effect, Some(keyid));
            }
        }
    }

    /// True when something has happened whose time [`stamp`](Self::stamp) has to say.
    #[inline(always)]
    pub fn has_unstamped(&self) -> bool {
        match &self.controller.injector {
            None => false,
            Some(injector) => injector.has_unstamped(),
        }
    }

    /// Says when what was reported since the last call has happened.
    pub fn stamp(&mut self, icount: u64, rip: u64) {
        if let Some(injector) = &mut self.controller.injector {
            injector.stamp(icount, rip);
        }
    }

    /// What has happened since the last call.
    pub fn take_reports(&mut self) -> Vec<Report> {
        self.controller.injector.as_mut().map(|injector| injector.take_reports()).unwrap_or_default()
    }

    /// The instruction count at which [`release`](Self::release) has something to do.
    pub fn next_release(&self) -> Option<u64> {
        self.controller.injector.as_ref()?.next_held()
    }

    /// Performs the write-backs that were held back until now.
    pub fn release(&mut self, now: u64) {
        let Some(injector) = &mut self.controller.injector else { return };
        for held in injector.take_held(now) {
            self.controller.stats.count_write_back(self.controller.layout().keyid(held.place.address));
            self.controller.write_line_with(held.place, &held.line, held.poison);
        }
    }

    /// True when an access to an address has to be told to [`note_access`](Self::note_access). `linear`: that of the page
    /// walker's is its physical one.
    #[inline(always)]
    pub fn awaits_access(&self, linear: u64, bus: BusAddr) -> bool {
        self.controller.about.accesses()
            && self.controller.injector.as_ref().is_some_and(|injector| injector.may_await(linear, bus.0))
    }

    /// True when accesses to the page may not take a shortcut.
    pub fn watches_page(&self, linear: u64, bus: BusAddr) -> bool {
        let physical = self.layout().mem(bus).0;
        self.controller.injector.as_ref().is_some_and(|injector| injector.watches_page(linear, physical))
    }

    /// An access inside one line is about to take place.
    #[cold]
    pub fn note_access(&mut self, access: &Accessed) {
        let layout = self.layout();
        let (physical, keyid) = (layout.mem(access.bus).0, layout.keyid(access.bus));
        let Some(injector) = &mut self.controller.injector else { return };
        let due = injector.meet_access(access.linear, physical, access.len, access.write);
        self.carry_out_all(due, Some(keyid));
    }

    /// PCONFIG is about to program a key.
    pub fn note_pconfig(&mut self, keyid: KeyId) {
        if let Some(injector) = &mut self.controller.injector {
            let due = injector.meet_pconfig();
            self.carry_out_all(due, Some(keyid));
        }
    }

    /// WRMSR is about to be executed.
    pub fn note_wrmsr(&mut self, msr: u32) {
        if let Some(injector) = &mut self.controller.injector {
            let due = injector.meet_wrmsr(msr);
            self.carry_out_all(due, None);
        }
    }

    fn carry_out_all(&mut self, due: Vec<(usize, Effect)>, keyid: Option<KeyId>) {
        if due.is_empty() {
            return;
        }
        self.observe_key_access();
        self.cache.expose_all(&mut self.controller);
        for (number, effect) in due {
            self.controller.carry_out(number, effect, keyid);
        }
        self.catch_up();
    }
}
