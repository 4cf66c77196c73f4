//! Bus masters: where devices get at memory (MK specification section 5.6).

use crate::Cpu;
use mem::{BusAddr, Memory};
use x86::platform::{BusMemory, MasterAbort, VirtualTime};

/// The memory of the package, for one round of transfers.
struct MasterPort<'a>(&'a mut Memory);

impl MasterPort<'_> {
    /// The memory side answers everything somehow; a device is told what no memory controller claims.
    fn claim(&self, address: u64) -> Result<BusAddr, MasterAbort> {
        let bus = BusAddr(address);
        let (tme, layout) = (self.0.tme(), self.0.layout());
        let physical = address >> u32::from(layout.maxphyaddr).min(63) == 0;
        let shared_bits = tme.keyid_bits().saturating_sub(tme.tdx_reserved_keyid_bits());
        let private = layout.keyid(bus).0 >> shared_bits.min(15) != 0;
        if physical && !private && self.0.is_ram(layout.mem(bus)) { Ok(bus) } else { Err(MasterAbort) }
    }
}

impl BusMemory for MasterPort<'_> {
    fn read(&mut self, address: u64, buf: &mut [u8]) -> Result<(), MasterAbort> {
        let bus = self.claim(address)?;
        self.0.dma_read(bus, buf);
        Ok(())
    }

    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), MasterAbort> {
        let bus = self.claim(address)?;
        self.0.dma_write(bus, bytes);
        Ok(())
    }
}

impl Cpu {
    /// Runs the transfers that are due, between two instructions.
    pub(crate) fn run_dma(&mut self, now: VirtualTime) {
        self.platform.run_dma(now, &mut MasterPort(&mut self.mem));
        self.settle();
        // The line that is being executed may be another one now: the next instruction fetches anew, whether or not there
        // were decoded blocks to lose.
        self.sequential = false;
        self.repeating = 0;
        self.followed = None;
    }
}
