//! Stops for injected faults: before instructions at given addresses, and after an instruction that met a fault. An address
//! costs nothing elsewhere: no block runs over it, so that it is looked for where a chain ends.

use crate::Cpu;
use crate::mmu::tlb::Side;
use mem::BusAddr;

/// What [`Cpu::run`] stops for.
#[derive(Debug, Clone, Default)]
pub struct Traps {
    /// Linear addresses of instructions, ascending. Set through [`Cpu::set_traps`].
    at: Vec<u64>,
    /// Physical addresses of instructions, without KeyID, ascending. Set through [`Cpu::set_physical_traps`].
    physical: Vec<u64>,
    /// The stop was made, and running on is not to make it again.
    pub(crate) passed: bool,
    /// The same of stops at physical addresses.
    pub(crate) physical_passed: bool,
    /// The run is to stop at a physical address.
    pub(crate) physical_stop: bool,
    /// An injected fault was met.
    pub(crate) met: bool,
}

impl Cpu {
    /// Makes [`Cpu::run`] stop, with [`crate::run::Stop::Trap`], before instructions at these linear addresses. A string
    /// instruction that goes on after an interruption by the host is not stopped again.
    pub fn set_traps(&mut self, mut at: Vec<u64>) {
        at.sort_unstable();
        at.dedup();
        let added = at.iter().any(|linear| !self.is_trap(*linear));
        self.traps.at = at;
        if added {
            self.forget_blocks();
        }
    }

    /// Makes [`Cpu::run`] stop, with [`crate::run::Stop::PhysicalTrap`], before instructions that begin at these physical
    /// addresses, through whatever mapping and KeyID; after they were fetched, since the fetch is what finds the address.
    pub fn set_physical_traps(&mut self, mut at: Vec<u64>) {
        at.sort_unstable();
        at.dedup();
        let added = at.iter().any(|address| self.traps.physical.binary_search(address).is_err());
        self.traps.physical = at;
        if added {
            self.forget_blocks();
        }
    }

    /// A trap was set.
    fn forget_blocks(&mut self) {
        // Blocks that run over an address were made before it was known. What was fetched stays fetched.
        let fetched = self.fetched_lines();
        self.blocks.clear();
        self.jumps.clear();
        self.returns.clear();
        self.followed = None;
        self.drop_code_shortcuts();
        self.put_fetched(&fetched);
    }

    /// True when there is an address.
    #[inline(always)]
    pub(crate) fn has_traps(&self) -> bool {
        !(self.traps.at.is_empty() && self.traps.physical.is_empty())
    }

    /// After the fetch of the next instruction: true when it is to be stopped before because of its physical address.
    #[cold]
    #[inline(never)]
    pub(crate) fn trapped_physically(&mut self) -> bool {
        let linear = self.linear_ip();
        let hit = self.repeating == 0 && self.is_physical_trap(linear);
        let stop = hit && !self.traps.physical_passed;
        self.traps.physical_passed = stop;
        if stop {
            // A stop at its linear address was made before this one.
            self.traps.passed = self.is_trap(linear);
            self.traps.physical_stop = true;
        }
        stop
    }

    /// True when the instruction at a linear address is at a physical trap, by the translation that its fetch has used.
    fn is_physical_trap(&self, linear: u64) -> bool {
        let Some(t) = self.tlb.lookup(Side::Fetch, linear >> 12, self.pcid()) else { return false };
        self.is_physical_trap_at(t.bus_page | linear & 0xFFF)
    }

    /// True when there is a physical trap at a full physical address.
    pub(crate) fn is_physical_trap_at(&self, bus: u64) -> bool {
        let address = self.mem.layout().mem(BusAddr(bus)).0;
        self.traps.physical.binary_search(&address).is_ok()
    }

    /// Physical address, without KeyID, of the instruction that [`Cpu::run`] has stopped before.
    pub fn trapped_address(&self) -> Option<u64> {
        let linear = self.linear_ip();
        let t = self.tlb.lookup(Side::Fetch, linear >> 12, self.pcid())?;
        Some(self.mem.layout().mem(BusAddr(t.bus_page | linear & 0xFFF)).0)
    }

    /// True when there is a physical trap.
    #[inline(always)]
    pub(crate) fn has_physical_traps(&self) -> bool {
        !self.traps.physical.is_empty()
    }

    /// True when the next instruction is to be stopped before.
    #[cold]
    #[inline(never)]
    pub(crate) fn trapped(&mut self) -> bool {
        let hit = self.repeating == 0 && self.is_trap(self.linear_ip());
        let stop = hit && !self.traps.passed;
        self.traps.passed = stop;
        stop
    }

    /// True when there is an address at the next instruction.
    pub(crate) fn at_trap(&self) -> bool {
        self.has_traps() && {
            let linear = self.linear_ip();
            self.is_trap(linear) || self.has_physical_traps() && self.is_physical_trap(linear)
        }
    }

    fn is_trap(&self, linear: u64) -> bool {
        self.traps.at.binary_search(&linear).is_ok()
    }

    /// How many of `len` bytes of code at `linear`, in one page, may be one block. `bus`: the full physical address.
    pub(crate) fn up_to_trap(&self, linear: u64, bus: u64, len: usize) -> usize {
        let before = |traps: &[u64], start: u64| {
            let next = traps.partition_point(|at| *at <= start);
            traps.get(next).map_or(len, |at| ((at - start).min(len as u64)) as usize)
        };
        let physical = self.mem.layout().mem(BusAddr(bus)).0;
        before(&self.traps.at, linear).min(before(&self.traps.physical, physical))
    }

    /// Linear address of the next instruction, without checks.
    fn linear_ip(&self) -> u64 {
        if self.mode.is_long64() {
            return self.next_ip;
        }
        self.segments[x86::segment::sreg::CS].base.wrapping_add(self.next_ip) & 0xFFFF_FFFF
    }

    /// Says when what was reported about injected faults has happened, and ends the run after this instruction.
    #[cold]
    pub(crate) fn stamp_faults(&mut self) {
        let icount = self.icount().wrapping_add(self.iterations);
        let rip = self.access_ip;
        self.mem.stamp(icount, rip);
        self.traps.met = true;
        self.leave_block = true;
        self.attention = true;
    }
}
