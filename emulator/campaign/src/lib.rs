//! Fault-injection campaigns.
//!
//! Reading order: [`row`] (what is known of one injection), [`meta`] (what is known of all).

#![forbid(unsafe_code)]

pub mod meta;
pub mod row;
