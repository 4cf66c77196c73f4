//! The memory side of the machine: caches, memory controller with its key table, DRAM, and the package's TME state.
//!
//! Reading order: [`addr`] (address types), [`profile`], [`tme`] (MSRs, key programming), [`controller`] (KeyID to
//! cipher), [`dram`], [`frame`] and [`fast`] (the fast path), [`memory`] (the one entry point).

pub mod addr;
mod crypto_stub;
pub mod event;
pub mod fast;
pub mod frame;
pub mod hash;
pub mod map;
pub mod memory;
pub mod profile;
pub mod stats;
pub mod tme;

pub use addr::{
    Access, AddressLayout, BusAddr, Icount, KeyId, LINE_BYTES, LINES_PER_PAGE, LineAddr, MemType, PAGE_BYTES, PhysAddr,
    VirtAddr,
};
pub use crypto_stub::{Algorithm, CipherLine, PlainLine};
pub use event::{Event, Events};
pub use fast::{FAST_ENTRIES, FastTable, Slot, deny};
pub use frame::FramePtr;
pub use hash::StateHasher;
pub use map::{AddressMap, RamRegion};
pub use memory::{CodeHit, Config, ConfigError, LockedWrite, Memory, Retired, Touched};
pub use profile::{TmeFeatures, TmeProfile, UnknownProfile};
pub use stats::Stats;
pub use tme::{ProgramError, TmePackage};
