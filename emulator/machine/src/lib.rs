//! The machine: one processor, its memory and its board, put together, powered on and run.
//!
//! Reading order: [`config`], [`board`] (the board as the processor sees it), [`machine`] (construction, power-on, running),
//! [`boot`] (the processor as firmware drives it), [`hash`] (the state hash).

pub mod board;
pub mod boot;
pub mod config;
pub mod hash;
pub mod machine;

pub use config::{Config, ConfigError};
pub use machine::{Exit, Machine};
