//! The alias sanitizer (design D4): judges every access of the guest by the rules that software has to follow when one
//! page is reachable through several KeyIDs (MK specification sections 5.2, 5.3 and 5.7).
//!
//! It judges an abstract machine that is driven by the guest's own accesses and flushes only, never by what the modelled
//! cache happens to hold. So the reports are the same under every cache model, seed and eviction rate.
//!
//! Reading order: [`hazard`] (what is reported).

mod hazard;

pub use hazard::{Agent, Hazard, HazardKind, MissingAction, Operation, Site};
