//! Segments, control transfers between privilege levels, control registers, MSRs, CPUID, PCONFIG.

pub mod cache_ops;
pub mod control;
pub mod cpuid;
pub mod flagctl;
pub mod misc;
pub mod msr;
pub mod mtrr;
pub mod pconfig;
pub mod port_io;
pub mod sysregs;
pub mod tlb_ops;
pub mod unknown;
