//! Definitions of the x86-64 architecture: numbers and names, no behaviour.
//!
//! Reading order: [`exception`] (what an instruction can raise), [`flags`] and [`cr`] (the bits of
//! RFLAGS, CR0, CR4, EFER), [`msr`] (MSR numbers), [`tme`] (the memory-encryption MSRs and the PCONFIG
//! structure), [`segment`] (descriptors), [`platform`] (what a processor sees of its board); [`mutants`] is for tests of the
//! tests.

pub mod cr;
pub mod exception;
pub mod flags;
pub mod msr;
pub mod mutants;
pub mod platform;
pub mod segment;
pub mod tme;

pub use exception::Exception;
