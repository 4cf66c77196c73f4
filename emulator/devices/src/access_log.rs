//! Guest accesses that nothing on the board answers, each kind once, for the guest-error log.

use std::collections::BTreeSet;

/// How many different accesses are remembered; a probing guest makes thousands.
const CAPACITY: usize = 256;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum AccessKind {
    PortRead,
    PortWrite,
    MmioRead,
    MmioWrite,
}

/// An access to an address that no device decodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct UnclaimedAccess {
    pub kind: AccessKind,
    /// Port number or physical address.
    pub address: u64,
    /// Bytes.
    pub size: u8,
    /// What the first such write carried; zero for reads.
    pub value: u64,
}

/// First accesses, in the order they happened.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub struct AccessLog {
    seen: BTreeSet<(AccessKind, u64, u8)>,
    fresh: Vec<UnclaimedAccess>,
}

impl AccessLog {
    pub fn record(&mut self, access: UnclaimedAccess) {
        if self.seen.len() < CAPACITY && self.seen.insert((access.kind, access.address, access.size)) {
            self.fresh.push(access);
        }
    }

    /// The accesses recorded since the last call.
    pub fn take(&mut self) -> Vec<UnclaimedAccess> {
        std::mem::take(&mut self.fresh)
    }
}
