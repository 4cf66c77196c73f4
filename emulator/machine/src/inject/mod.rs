//! Injected faults: what goes wrong, when, and what became of it (design D9; docs/faults.md is the user's page).
//!
//! Reading order: [`spec`] (targets and triggers), `text` (how they are written), [`check`](mod@check) (what cannot fire is
//! refused), `run` (arming, and the run with its stops), `apply` (faults of the processor). Faults of the memory side are
//! [`mem::fault`]'s.

mod apply;
pub mod check;
mod run;
pub mod spec;
#[cfg(test)]
mod tests;
mod text;

pub use check::{Cannot, Limits};
pub(crate) use run::Injections;
pub use run::{Injection, Outcome};
pub use spec::{CodeAddress, FaultSpec, Lasts, LineEvent, Target, Trigger};
pub use text::{GRAMMAR, SpecError, number};
