//! The memory side of a package: cache, memory controller with its key table, DRAM, and the TME state.
//!
//! Reading order: [`addr`] (address types), [`profile`] (which processor), [`tme`] (MSRs, key programming, `resolve`),
//! `controller` (lines to ciphertext), [`dram`], `cache` (lines by full physical address), [`frame`] and [`fast`] (the
//! fast path), [`memory`] (the one entry point).
//!
//! Plaintext exists above the controller, ciphertext below it ([`PlainLine`], [`CipherLine`]).

pub mod addr;
mod cache;
mod controller;
pub mod dram;
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
pub use crypto::{Algorithm, CipherLine, PlainLine};
pub use dram::Dram;
pub use event::{Event, Events};
pub use fast::{FAST_ENTRIES, FastTable, Slot, deny};
pub use frame::FramePtr;
pub use hash::StateHasher;
pub use map::{AddressMap, RamRegion};
pub use memory::{CodeHit, Config, ConfigError, Memory, Retired, Touched};
pub use profile::{TmeFeatures, TmeProfile, UnknownProfile};
pub use stats::{KeyStats, Stats};
pub use tme::{EntropyStep, EntropyStream, LockedWrite, ProgramError, TmePackage};
