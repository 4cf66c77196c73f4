//! What the guest asked for and the model does not have: one record each, for the machine to report (design D12).

use iced_x86::Code;

/// An architectural request that was refused because nothing here implements it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unknown {
    /// RDMSR of this MSR gave #GP(0).
    MsrRead(u32),
    /// WRMSR of this MSR gave #GP(0).
    MsrWrite(u32),
    /// CPUID leaf above the maximum leaves, or reserved below them.
    CpuidLeaf(u32),
    /// #UD because the instruction has no semantics here.
    Instruction(Code),
}

/// Records kept; a guest that probes every MSR must not fill the host's memory.
const LIMIT: usize = 256;

/// The first occurrence of each [`Unknown`], in order.
#[derive(Debug, Clone, Default)]
pub struct Unknowns {
    seen: Vec<(Unknown, u64)>,
    reported: usize,
}

impl Unknowns {
    /// Records a request made at `rip`, unless it is known already or there are too many.
    pub fn record(&mut self, what: Unknown, rip: u64) {
        if self.seen.len() < LIMIT && !self.seen.iter().any(|(known, _)| *known == what) {
            self.seen.push((what, rip));
        }
    }

    /// Takes the next record that has not been reported: what, and the RIP of its first occurrence.
    pub fn next_report(&mut self) -> Option<(Unknown, u64)> {
        let next = self.seen.get(self.reported).copied();
        self.reported += usize::from(next.is_some());
        next
    }
}

impl crate::Cpu {
    /// Records something unmodelled at the instruction being executed.
    pub fn log_unknown(&mut self, what: Unknown) {
        self.unknowns.record(what, self.ip);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_unknown_is_reported_once_with_its_first_rip() {
        let mut u = Unknowns::default();
        u.record(Unknown::MsrRead(0x33), 0x1000);
        u.record(Unknown::MsrRead(0x33), 0x2000);
        u.record(Unknown::MsrWrite(0x33), 0x3000);
        assert_eq!(u.next_report(), Some((Unknown::MsrRead(0x33), 0x1000)));
        assert_eq!(u.next_report(), Some((Unknown::MsrWrite(0x33), 0x3000)));
        assert_eq!(u.next_report(), None);
    }

    #[test]
    fn a_guest_that_probes_everything_cannot_grow_the_list_without_bound() {
        let mut u = Unknowns::default();
        (0..100_000).for_each(|msr| u.record(Unknown::MsrRead(msr), 0));
        assert_eq!(u.seen.len(), LIMIT);
    }
}
