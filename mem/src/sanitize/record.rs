//! Sites in sixteen bytes, since there is one for every line that was stored to.

use super::hazard::{Agent, Operation, Site};
use crate::addr::KeyId;

const ICOUNT_BITS: u32 = 48;
const OPERATION_SHIFT: u32 = ICOUNT_BITS;
const CPL_SHIFT: u32 = 52;
const AGENT_SHIFT: u32 = 54;
const PRESENT: u64 = 1 << 63;
/// Agents by number: processors, and from here on what is none.
const DEVICE: u64 = 0xFE;
const LOADER: u64 = 0xFF;

/// Every operation, by number.
const OPERATIONS: [Operation; 14] = [
    Operation::Load,
    Operation::Store,
    Operation::Fetch,
    Operation::PageWalk,
    Operation::PageWalkUpdate,
    Operation::Flush,
    Operation::WriteBack,
    Operation::WriteBackInvalidate,
    Operation::WriteBackAll,
    Operation::Invalidate,
    Operation::NonTemporalStore,
    Operation::Pconfig,
    Operation::DmaRead,
    Operation::DmaWrite,
];
const _: () = {
    let mut n = 0;
    while n < OPERATIONS.len() {
        assert!(OPERATIONS[n] as usize == n);
        n += 1;
    }
};

/// A site without its KeyID, or nothing. Instruction counts beyond 2^48 and processors beyond 253 are cut off.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Record {
    rip: u64,
    rest: u64,
}

impl Record {
    pub(super) fn new(site: &Site) -> Self {
        let agent = match site.agent {
            Agent::Cpu(number) => u64::from(number).min(DEVICE - 1),
            Agent::Device => DEVICE,
            Agent::Loader => LOADER,
        };
        let icount = site.icount & ((1 << ICOUNT_BITS) - 1);
        let operation = (site.operation as u64) << OPERATION_SHIFT;
        let cpl = u64::from(site.cpl & 3) << CPL_SHIFT;
        Self { rip: site.rip, rest: PRESENT | agent << AGENT_SHIFT | cpl | operation | icount }
    }

    /// The site, with the KeyID that was kept elsewhere.
    pub(super) fn site(self, keyid: KeyId) -> Option<Site> {
        if self.rest & PRESENT == 0 {
            return None;
        }
        let agent = match self.rest >> AGENT_SHIFT & 0xFF {
            DEVICE => Agent::Device,
            LOADER => Agent::Loader,
            number => Agent::Cpu(number as u32),
        };
        let operation = OPERATIONS[(self.rest >> OPERATION_SHIFT & 0xF) as usize % OPERATIONS.len()];
        Some(Site {
            agent,
            operation,
            rip: self.rip,
            icount: self.rest & ((1 << ICOUNT_BITS) - 1),
            keyid,
            cpl: (self.rest >> CPL_SHIFT & 3) as u8,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_survives_being_packed() {
        for agent in [Agent::Cpu(0), Agent::Cpu(200), Agent::Device, Agent::Loader] {
            for operation in OPERATIONS {
                let site = Site { agent, operation, rip: !0x123, icount: 0x7FFF_0000_1234, keyid: KeyId(0x2A), cpl: 3 };
                assert_eq!(Record::new(&site).site(KeyId(0x2A)), Some(site));
            }
        }
        assert_eq!(Record::default().site(KeyId(0)), None);
    }
}
