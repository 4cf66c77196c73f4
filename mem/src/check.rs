//! How the controller checks lines that it reads, and seals those that it writes (MC-32).

use crate::CipherLine;
use crate::controller::{Controller, Place};
use crate::event::Event;
use crate::fault::Transfer;
use crate::frame::FramePtr;
use crate::integrity::{Detections, Integrity, LineMetadata, Verdict};
use crate::memory::Memory;
use crate::{BusAddr, PlainLine};

impl Controller {
    /// What metadata says about cells that were read for `place`.
    fn verdict(&self, place: Place, at: Transfer, cells: &CipherLine) -> Verdict {
        let Some(integrity) = &self.integrity else { return Verdict::Sound };
        let stored = self.dram.metadata(at.page, at.line);
        if stored.poison {
            return Verdict::Poisoned;
        }
        let computed = self.metadata_of(integrity, place, at.dun, cells);
        let wrong_mac = computed.is_some_and(|(mac, _)| mac != stored.mac);
        if wrong_mac || stored.owner != self.is_private(place) { Verdict::Mismatch } else { Verdict::Sound }
    }

    fn is_private(&self, place: Place) -> bool {
        let engine = self.packages.engine(place.page);
        engine.is_private(engine.layout().keyid(place.address))
    }

    /// MAC and owner bit of cells that belong to `place`; `None` under a KeyID without integrity.
    fn metadata_of(&self, integrity: &Integrity, place: Place, dun: u64, cells: &CipherLine) -> Option<(u32, bool)> {
        let key = self.packages.engine(place.page).mac_carrier(place.address)?;
        let (package, owner) = (self.packages.home(place.page), self.is_private(place));
        Some((integrity.mac(package, cells, &key.schedule().first_tweak(dun), owner), owner))
    }

    /// Checks cells that were read. True: what arrives is the fixed pattern, and poison. A line that is found wrong is
    /// poisoned in DRAM.
    #[cold]
    #[inline(never)]
    pub(crate) fn check(&mut self, place: Place, at: Transfer, cells: &CipherLine) -> bool {
        let verdict = self.verdict(place, at, cells);
        let (line, keyid) = (self.layout().mem(place.address).line(), self.layout().keyid(place.address));
        let Some(integrity) = &mut self.integrity else { return false };
        if verdict == Verdict::Sound {
            return false;
        }
        integrity.meet();
        if verdict == Verdict::Mismatch && !integrity.quiet {
            integrity.note_mismatch(line, keyid);
            self.stats.mac_mismatches += 1;
            self.push_event(Event::MacMismatch { line, keyid });
            self.poison(place, at);
        }
        true
    }

    /// True where a probe of `place` would see the fixed pattern. Nothing changes.
    pub(crate) fn would_poison(&self, place: Place, at: Transfer, cells: &CipherLine) -> bool {
        self.verdict(place, at, cells) != Verdict::Sound
    }

    /// Poisons a line in DRAM.
    fn poison(&mut self, place: Place, at: Transfer) {
        let stored = self.dram.metadata(at.page, at.line);
        if !stored.poison {
            self.dram.set_metadata(at.page, at.line, LineMetadata { poison: true, ..stored });
            let (line, keyid) = (self.layout().mem(place.address).line(), self.layout().keyid(place.address));
            self.push_event(Event::PoisonCreated { line, keyid });
        }
    }

    /// After a fill: the bytes of a line that was found wrong are the fixed pattern, and the frame has it poisoned.
    pub(crate) fn check_filled(&mut self, place: Place, at: Transfer, cells: &CipherLine, frame: FramePtr) {
        if self.check(place, at, cells) {
            self.take_met();
            frame.0.set_line(place.line(), &PlainLine::ZERO);
            frame.0.poison.set(frame.0.poison.get() | 1 << place.line());
        }
    }

    /// Gives cells that were written their metadata. `poison`: what was written is known to be wrong.
    pub(crate) fn seal(&self, place: Place, at: Transfer, poison: bool) {
        let Some(integrity) = &self.integrity else { return };
        let cells = self.dram.read(at.page, at.line);
        let sealed = self.metadata_of(integrity, place, at.dun, &cells);
        let (mac, owner) = sealed.unwrap_or((0, self.is_private(place)));
        self.dram.set_metadata(at.page, at.line, LineMetadata { mac, owner, poison });
    }

    /// True if poison was met by a read past the cache since the last call.
    #[inline]
    pub(crate) fn take_met(&mut self) -> bool {
        match &mut self.integrity {
            None => false,
            Some(integrity) => integrity.take_met(),
        }
    }

    /// A load, fetch or page walk has met poison.
    #[cold]
    #[inline(never)]
    pub(crate) fn consume(&mut self, place: Place) {
        let (line, keyid) = (self.layout().mem(place.address).line(), self.layout().keyid(place.address));
        if let Some(integrity) = &mut self.integrity {
            integrity.note_consumed(place.address, line, keyid);
            self.stats.poison_consumed += 1;
            self.push_event(Event::PoisonConsumed { line, keyid });
        }
    }

    /// A bus master has met poison.
    #[cold]
    pub(crate) fn note_poison_to_device(&mut self, place: Place) {
        if self.integrity.as_ref().is_some_and(|integrity| !integrity.quiet) {
            let (line, keyid) = (self.layout().mem(place.address).line(), self.layout().keyid(place.address));
            self.push_event(Event::PoisonToDevice { line, keyid });
        }
    }
}

impl Memory {
    /// True when the machine has the integrity option ([`crate::Config::integrity`]).
    pub fn has_integrity(&self) -> bool {
        self.controller.integrity.is_some()
    }

    /// What integrity has found since the machine was built or restored.
    pub fn detections(&self) -> Detections {
        self.controller.integrity.as_ref().map_or_else(Detections::default, |integrity| integrity.detections)
    }

    /// True when [`take_consumed`](Self::take_consumed) has something.
    #[inline(always)]
    pub fn has_consumed(&self) -> bool {
        match &self.controller.integrity {
            None => false,
            Some(integrity) => integrity.consumed.is_some(),
        }
    }

    /// The full physical address of the access that has met poison: the bytes that it was given are not to be used.
    pub fn take_consumed(&mut self) -> Option<BusAddr> {
        self.controller.integrity.as_mut()?.consumed.take()
    }

    /// True when something was found whose time [`stamp_detections`](Self::stamp_detections) has to say.
    #[inline(always)]
    pub fn has_unstamped_detections(&self) -> bool {
        match &self.controller.integrity {
            None => false,
            Some(integrity) => integrity.has_unstamped(),
        }
    }

    /// Says when what was found since the last call has happened.
    pub fn stamp_detections(&mut self, icount: u64, rip: u64) {
        if let Some(integrity) = &mut self.controller.integrity {
            integrity.stamp(icount, rip);
        }
    }

    /// Bytes of a cached line that [`touch`](Self::touch) said is poisoned were stored. A line all of whose bytes were stored
    /// while it is cached is not poisoned any more.
    ///
    /// With `cache = off` every store goes to DRAM at once (MC-27), and one to a part of a line leaves it poisoned.
    #[cold]
    pub fn note_overwritten(&mut self, address: BusAddr, len: usize) {
        if let Some(place) = self.controller.place(address)
            && let Some(frame) = self.cache.hit(place)
            && !self.cache.is_off()
        {
            self.cache.pool.note_overwritten(frame, place.line(), address.line_offset(), len);
        }
    }

    /// Runs `look` so that what integrity finds changes nothing.
    pub(crate) fn quietly<T>(&mut self, look: impl FnOnce(&mut Self) -> T) -> T {
        let quiet = |mem: &mut Self, on| {
            if let Some(integrity) = &mut mem.controller.integrity {
                integrity.quiet = on;
            }
        };
        quiet(self, true);
        let seen = look(self);
        quiet(self, false);
        self.controller.take_met();
        seen
    }
}
