//! Bus masters: where devices get at memory (MK specification section 5.6).

use crate::Cpu;
use mem::{Agent, BusAddr, MemType, Memory, Operation, Site};
use x86::platform::{BusMemory, MasterAbort, VirtualTime};

/// The memory of the package, for one round of transfers.
struct MasterPort<'a> {
    mem: &'a mut Memory,
    /// Of the instruction before which the transfers take place.
    site: Site,
}

impl MasterPort<'_> {
    /// The memory side answers everything somehow; a device is told what no memory controller claims.
    fn claim(&self, address: u64) -> Result<BusAddr, MasterAbort> {
        let bus = BusAddr(address);
        let (tme, layout) = (self.mem.tme(), self.mem.layout());
        let physical = address >> u32::from(layout.maxphyaddr).min(63) == 0;
        let shared_bits = tme.keyid_bits().saturating_sub(tme.tdx_reserved_keyid_bits());
        let private = layout.keyid(bus).0 >> shared_bits.min(15) != 0;
        if physical && !private && self.mem.is_ram(layout.mem(bus)) { Ok(bus) } else { Err(MasterAbort) }
    }
}

impl MasterPort<'_> {
    fn observe(&mut self, bus: BusAddr, len: usize, operation: Operation) {
        if self.mem.observed() {
            self.mem.observe(bus, len, MemType::Wb, false, &Site { operation, ..self.site });
        }
    }
}

impl BusMemory for MasterPort<'_> {
    fn read(&mut self, address: u64, buf: &mut [u8]) -> Result<(), MasterAbort> {
        let bus = self.claim(address)?;
        self.observe(bus, buf.len(), Operation::DmaRead);
        self.mem.dma_read(bus, buf);
        Ok(())
    }

    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), MasterAbort> {
        let bus = self.claim(address)?;
        self.observe(bus, bytes.len(), Operation::DmaWrite);
        self.mem.dma_write(bus, bytes);
        Ok(())
    }
}

impl Cpu {
    /// Runs the transfers that are due, between two instructions.
    pub(crate) fn run_dma(&mut self, now: VirtualTime) {
        self.access_ip = self.next_ip;
        self.tell_time();
        let site = Site { agent: Agent::Device, ..self.site(Operation::DmaRead) };
        self.platform.run_dma(now, &mut MasterPort { mem: &mut self.mem, site });
        self.settle();
        // The line that is being executed may be another one now: the next instruction fetches anew, whether or not there
        // were decoded blocks to lose.
        self.sequential = false;
        self.repeating = 0;
        self.followed = None;
    }
}
