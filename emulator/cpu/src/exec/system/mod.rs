//! Segments, control transfers between privilege levels, control registers, MSRs, CPUID, PCONFIG.

pub mod cache_ops;
pub mod control;
pub mod cpuid;
pub mod delivery;
pub mod descriptor;
pub mod far;
pub mod flagctl;
pub mod frame;
pub mod iret;
pub mod misc;
pub mod msr;
pub mod mtrr;
pub mod pconfig;
pub mod port_io;
pub mod segment;
pub mod syscall;
pub mod sysregs;
pub mod tables;
pub mod tlb_ops;
pub mod transfer;
pub mod unknown;
pub mod verify;
