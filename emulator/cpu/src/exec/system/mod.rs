//! Segments, control transfers between privilege levels, control registers, MSRs, CPUID, PCONFIG.
