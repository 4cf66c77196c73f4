//! Segments, control transfers between privilege levels, control registers, MSRs, CPUID, PCONFIG.

pub mod delivery;
pub mod descriptor;
pub mod far;
pub mod frame;
pub mod iret;
pub mod segment;
pub mod syscall;
pub mod tables;
pub mod transfer;
pub mod verify;
