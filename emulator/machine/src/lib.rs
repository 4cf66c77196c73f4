//! The machine: one processor, its memory and its board, put together, powered on and run.
//!
//! Reading order: [`config`], [`file`] (it as TOML), [`board`] (the board as the processor sees it), [`machine`] (construction, power-on, running),
//! [`boot`] (the processor as firmware drives it), [`hash`] (the state hash), [`snapshot`], [`inject`] (faults); for people who look at a guest: [`peek`]
//! (memory without side effects), [`dump`] (registers), [`trace`] (one instruction at a time).

pub mod board;
pub mod boot;
pub mod config;
pub mod dump;
pub mod file;
pub mod hash;
pub mod inject;
pub mod machine;
pub mod peek;
pub mod snapshot;
pub mod trace;

pub use config::{Config, ConfigError};
pub use file::{Difference, FileError, LOCKED_WRITES};
pub use machine::{Exit, Machine};
pub use snapshot::{Restored, Snapshot, SnapshotError};
