//! The alias sanitizer (design D4): what it reports and what it does not, under every cache model.

#[path = "../common/mod.rs"]
mod common;
mod examples;
mod guest;
mod kinds;
mod naive;
mod random;
mod watch;
