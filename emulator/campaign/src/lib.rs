//! Fault-injection campaigns: many injections into one guest, from one snapshot (docs/campaigns.md is the user's page).
//!
//! Reading order: [`plan`] (what a campaign is), [`golden`] (the run without a fault), [`transfers`] (what DRAM saw of it),
//! [`space`] and [`sample`] (which faults), [`guest`] and [`judge`] (running a guest and what it shows), [`experiment`] (one
//! injection), [`engine`] (all of them), [`journal`] and [`directory`] (so that none is lost), [`row`] and [`meta`] (what is
//! known afterwards), [`results`] (in files), [`stats`] (how exact it is), [`report`] (as text and figures).

#![forbid(unsafe_code)]

pub mod directory;
pub mod engine;
pub mod error;
pub mod experiment;
mod files;
pub mod golden;
pub mod guest;
pub mod journal;
pub mod judge;
pub mod meta;
mod names;
pub mod plan;
mod prepare;
pub mod report;
pub mod results;
pub mod row;
pub mod sample;
pub mod space;
pub mod stats;
pub mod transfers;

/// Results made up for tests; those of the program use them as well.
#[cfg(test)]
#[path = "../../../tests/common/synthetic.rs"]
mod synthetic;

#[cfg(test)]
extern crate self as campaign;
