//! The alias sanitizer (design D4): judges every access of the guest by the rules that software has to follow when one
//! page is reachable through several KeyIDs (MK specification sections 5.2, 5.3 and 5.7).
//!
//! It judges an abstract machine that is driven by the guest's own accesses and flushes only, never by what the modelled
//! cache happens to hold. So the reports are the same under every cache model, seed and eviction rate.
//!
//! # The abstract machine
//!
//! For each line and each KeyID K that touched it: *cached* (a copy may be in the cache; set by every access that
//! allocates, cleared by CLFLUSH through K, WBINVD, INVD, and what bypasses the cache through K), *dirty* (that copy may
//! be newer than DRAM), and the *marked* bytes of that copy: those that are stale, or were encrypted with another key.
//! For DRAM: the cipher class of each 16-byte block (KeyIDs that encrypt alike are of one class), the marked bytes and
//! the writer, as if every flush had done its work and nothing else had.
//!
//! * An access through K while the line is dirty under another KeyID is a hazard, whatever the cache makes of it.
//! * A store through K marks the copies of all other KeyIDs; a fill marks what DRAM has of another class, and everything
//!   while another KeyID is dirty. Bytes that are stored to are good again. Only *consuming* a marked byte is a hazard:
//!   zeroing a page through its new mapping is silent.
//! * A flush through a KeyID that is not dirty, while another is, is a hazard.
//! * A changed key is a hazard for the dirty lines of its KeyID. Clean copies count as read again with the new key.
//! * One cause, one report: a dirty copy is reported once until it is written back and stored to again, marked bytes of a
//!   copy once until they are marked anew.
//! * A fetch consumes a line only if no byte of it is good, since it reads more than it executes.
//! * Activation (IA32_TME_ACTIVATE) changes the class of KeyID 0 but is no hazard for dirty lines: firmware runs then.
//!
//! Accesses that would neither change nor report anything may take the fast path: [`FramePtr`](crate::FramePtr)'s bits are
//! restricted to those while the sanitizer is on. All others are told to [`Memory::observe`](crate::Memory::observe)
//! before they are performed.
//!
//! Reading order: [`hazard`] (what is reported), [`class`], [`shadow`] (the state), [`rules`] (one access), [`engine`]
//! (everything else), [`observe`] (the way in, and what becomes of the fast path), [`watch`].

mod class;
mod engine;
mod hazard;
mod observe;
mod record;
mod rules;
mod shadow;
mod watch;

pub(crate) use engine::Allowed;
pub use engine::Sanitizer;
pub use hazard::{Agent, Hazard, HazardKind, MissingAction, Operation, Site};
pub(crate) use observe::Observer;
pub use watch::{Watched, WatchedLine};
