//! The memory side of a machine: cache, memory controllers with their key tables, DRAM, and the TME state.
//!
//! Reading order: [`addr`] (address types), [`profile`] (which processor), [`config`] (everything that can be chosen),
//! [`tme`] (MSRs, key programming, `resolve`), `packages` (which TME state is whose), `controller` (lines to ciphertext),
//! [`dram`], [`bus_trace`] (what goes in between, in a file), `cache` (lines by full physical address, in three models), [`huge`], [`frame`] and [`fast`] (the fast path),
//! [`integrity`] (MACs and poison), [`memory`] (the one entry point), [`snapshot`].
//!
//! Plaintext exists above the controller, ciphertext below it ([`PlainLine`], [`CipherLine`]).

pub mod addr;
pub mod bus_trace;
mod cache;
mod check;
pub mod config;
mod controller;
pub mod dram;
pub mod event;
pub mod fast;
pub mod fault;
pub mod frame;
pub mod hash;
pub mod huge;
pub mod integrity;
pub mod map;
pub mod memory;
mod packages;
pub mod profile;
mod rate;
pub mod sanitize;
pub mod snapshot;
pub mod stats;
pub mod tme;

pub use addr::{
    Access, AddressLayout, BusAddr, Icount, KeyId, LINE_BYTES, LINES_PER_PAGE, LineAddr, MemType, PAGE_BYTES, PhysAddr,
    VirtAddr,
};
pub use config::{CacheModel, Config, ConfigError, PACKAGES_MAX, UnknownCacheModel, UnknownWbOrder, WbOrder};
pub use crypto::{Algorithm, CipherLine, PlainLine};
pub use dram::Dram;
pub use event::{Event, Events};
pub use fast::{FAST_ENTRIES, FastTable, Quadwords, Slot, deny};
pub use fault::{
    Accessed, Bits, Disturbance, Effect, Faults, LINE_BITS, LateWriteBack, Moment, Occasion, Report, Reported,
    Rowhammer, TweakFault, Way, WritebackAction, WritebackFilter, injection_number,
};
pub use frame::FramePtr;
pub use hash::StateHasher;
pub use integrity::{Detection, Detections, LineMetadata, MAC_BITS};
pub use map::{AddressMap, RamRegion};
pub use memory::{CodeHit, Memory, Parked, Retired, Touched};
pub use profile::{TmeFeatures, TmeProfile, UnknownProfile};
pub use rate::{NotARate, Rate};
pub use sanitize::{Agent, Hazard, HazardKind, MissingAction, Operation, Sanitizer, Site, Watched, WatchedLine};
pub use snapshot::{Invalid, MemorySnapshot};
pub use stats::{KeyStats, Stats};
pub use tme::{
    EncryptionAlgorithm, EntropyStep, EntropyStream, KeyField, Knobs, LockedWrite, ProgramError, TmePackage,
};
