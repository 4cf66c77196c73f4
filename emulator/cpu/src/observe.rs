//! What the alias sanitizer and the bus trace are told about accesses: where in the program and when they are made (design
//! D4).
//!
//! Accesses on the fast path are not told; the memory side keeps lines off it that the sanitizer has to see, and an access
//! on it transfers no line.

use crate::Cpu;
use mem::bus_trace::Stamp;
use mem::{Agent, BusAddr, KeyId, MemType, Operation, Site};

impl Cpu {
    /// The site of an access that the instruction under way makes, or the fetch or delivery between two instructions. The
    /// KeyID is left to the memory side.
    pub(crate) fn site(&self, operation: Operation) -> Site {
        Site {
            agent: Agent::Cpu(self.id as u32),
            operation,
            rip: self.access_ip,
            // Iterations of a string instruction count like instructions, but are subtracted later.
            icount: self.icount().wrapping_add(self.iterations),
            keyid: KeyId(0),
            cpl: self.cpl,
        }
    }

    /// Tells about an access of RAM that is about to be performed.
    #[cold]
    #[inline(never)]
    pub(crate) fn observe(&mut self, bus: BusAddr, len: usize, ty: MemType, operation: Operation) {
        let site = self.site(operation);
        let no_fill = self.no_fill();
        self.tell_time();
        self.mem.observe(bus, len, ty, no_fill, &site);
        self.settle();
        self.stop_at_hazard();
    }

    /// Tells the bus trace, if there is one, when the line transfers that follow take place.
    pub fn tell_time(&mut self) {
        let icount = self.icount().wrapping_add(self.iterations);
        self.mem.set_bus_time(Stamp { icount, skipped: self.clock.skipped });
    }

    /// Tells about an operation on the whole cache.
    pub(crate) fn observe_cache(&mut self, operation: Operation) {
        if self.mem.observed() {
            self.observe(BusAddr(0), 0, MemType::Wb, operation);
        }
    }

    /// Tells that PCONFIG has programmed a KeyID.
    pub(crate) fn observe_pconfig(&mut self, keyid: KeyId) {
        if self.mem.observed() {
            let site = Site { keyid, ..self.site(Operation::Pconfig) };
            self.mem.observe_pconfig(&site);
            self.settle();
            self.stop_at_hazard();
        }
    }

    /// True when [`Cpu::stop_on_hazard`] asks for [`crate::run::Stop::Hazard`].
    pub(crate) fn hazard_stops(&self) -> bool {
        self.stop_on_hazard && self.mem.has_hazards()
    }

    fn stop_at_hazard(&mut self) {
        if self.hazard_stops() {
            self.leave_block = true;
            self.attention = true;
        }
    }
}
