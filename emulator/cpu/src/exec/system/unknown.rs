//! What the guest asked for and the model does not have: one record each, for the machine to report (design D12).

use iced_x86::Code;
use serde::{Deserialize, Serialize};

/// An architectural request that was refused because nothing here implements it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Unknown {
    /// RDMSR of this MSR gave #GP(0).
    MsrRead(u32),
    /// WRMSR of this MSR gave #GP(0).
    MsrWrite(u32),
    /// CPUID leaf above the maximum leaves, or reserved below them.
    CpuidLeaf(u32),
    /// #UD because the instruction has no semantics here.
    Instruction(#[serde(with = "code")] Code),
}

/// An instruction's code as a number.
mod code {
    use iced_x86::Code;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(code: &Code, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_u32(*code as u32)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Code, D::Error> {
        Code::try_from(u32::deserialize(from)? as usize).map_err(serde::de::Error::custom)
    }
}

/// Records kept; a guest that probes every MSR must not fill the host's memory.
const LIMIT: usize = 256;

/// The first occurrence of each [`Unknown`], in order.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
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

    /// Takes over the records of a snapshot. A new machine reports them once more.
    pub(crate) fn restore(&mut self, snapshot: &Self) {
        let Self { seen, reported: _ } = snapshot;
        self.seen.clone_from(seen);
        self.reported = self.reported.min(self.seen.len());
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
