//! Fault-injection campaigns: many injections into one guest, from one snapshot (docs/campaigns.md is the user's page).
//!
//! Reading order: [`plan`] (what a campaign is), [`golden`] (the run without a fault), [`transfers`] (what DRAM saw of it),
//! [`space`] and [`sample`] (which faults), [`guest`] and [`judge`] (running a guest and what it shows), [`experiment`] (one
//! injection), [`engine`] (all of them), [`journal`] (so that none is lost), [`row`] and [`meta`] (what is known afterwards).

#![forbid(unsafe_code)]

pub mod error;
pub mod experiment;
pub mod golden;
pub mod guest;
pub mod judge;
pub mod meta;
pub mod plan;
pub mod results;
pub mod row;
pub mod sample;
pub mod space;
pub mod stats;
pub mod transfers;
