//! Fault-injection campaigns.
//!
//! Reading order: [`row`] (what is known of one injection), [`meta`] (what is known of all).

#![forbid(unsafe_code)]

pub mod meta;
pub mod report;
pub mod results;
pub mod row;
pub mod stats;

/// Results made up for tests; those of the program use them as well.
#[cfg(test)]
#[path = "../../../tests/common/synthetic.rs"]
mod synthetic;

#[cfg(test)]
extern crate self as campaign;
