//! Stops for injected faults: before instructions at given addresses, and after an instruction that met a fault. An address
//! costs nothing elsewhere: no block runs over it, so that it is looked for where a chain ends.

use crate::Cpu;

/// What [`Cpu::run`] stops for.
#[derive(Debug, Clone, Default)]
pub struct Traps {
    /// Linear addresses of instructions, ascending. Set through [`Cpu::set_traps`].
    at: Vec<u64>,
    /// The stop was made, and running on is not to make it again.
    pub(crate) passed: bool,
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
            // Blocks that run over an address were made before it was known. What was fetched stays fetched.
            let fetched = self.fetched_lines();
            self.blocks.clear();
            self.jumps.clear();
            self.returns.clear();
            self.followed = None;
            self.drop_code_shortcuts();
            self.put_fetched(&fetched);
        }
    }

    /// True when there is an address.
    #[inline(always)]
    pub(crate) fn has_traps(&self) -> bool {
        !self.traps.at.is_empty()
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
        self.has_traps() && self.is_trap(self.linear_ip())
    }

    fn is_trap(&self, linear: u64) -> bool {
        self.traps.at.binary_search(&linear).is_ok()
    }

    /// How many of `len` bytes of code at `linear` may be one block.
    pub(crate) fn up_to_trap(&self, linear: u64, len: usize) -> usize {
        let next = self.traps.at.partition_point(|at| *at <= linear);
        self.traps.at.get(next).map_or(len, |at| ((at - linear).min(len as u64)) as usize)
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
