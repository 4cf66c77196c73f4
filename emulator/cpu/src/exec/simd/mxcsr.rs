//! MXCSR (SDM Vol. 1, section 10.2.3) and the delivery of SIMD floating-point exceptions (sections 11.5.2 and 11.5.3).

use crate::state::Cpu;
use x86::Exception;
use x86::cr::cr4;

/// Invalid operation.
pub const IE: u32 = 1 << 0;
/// Denormal operand.
pub const DE: u32 = 1 << 1;
/// Divide by zero.
pub const ZE: u32 = 1 << 2;
pub const OE: u32 = 1 << 3;
pub const UE: u32 = 1 << 4;
/// Inexact result.
pub const PE: u32 = 1 << 5;
/// The six exception flags.
pub const FLAGS: u32 = 0x3F;
/// Denormals are zeros.
pub const DAZ: u32 = 1 << 6;
/// An exception's mask is its flag shifted left by this.
pub const MASK_SHIFT: u32 = 7;
/// Rounding control.
pub const RC_SHIFT: u32 = 13;
pub const RC: u32 = 3 << RC_SHIFT;
/// Flush to zero.
pub const FZ: u32 = 1 << 15;
/// The writable bits (MXCSR_MASK of FXSAVE).
pub const MASK: u32 = 0xFFFF;
/// Exceptions detected before an operation is carried out.
pub const PRE_COMPUTATION: u32 = IE | DE | ZE;

/// The exceptions among `flags` that `mxcsr` does not mask.
pub fn unmasked(mxcsr: u32, flags: u32) -> u32 {
    flags & !(mxcsr >> MASK_SHIFT) & FLAGS
}

/// What to load into the host's MXCSR: the guest's DAZ, RC and FZ, all exceptions masked, no flags. Flush to zero acts
/// only while underflow is masked (section 10.2.3.3).
pub fn host_control(mxcsr: u32) -> u32 {
    let flush = if unmasked(mxcsr, UE) == 0 { mxcsr & FZ } else { 0 };
    mxcsr & (DAZ | RC) | flush | FLAGS << MASK_SHIFT
}

/// The flags an operation reports: with an unmasked pre-computation exception in any element, nothing is computed and
/// post-computation exceptions are not seen (section 11.5.2, SDM Vol. 1, section 4.9.2).
pub fn reported(mxcsr: u32, flags: u32) -> u32 {
    if unmasked(mxcsr, flags & PRE_COMPUTATION) != 0 { flags & PRE_COMPUTATION } else { flags }
}

/// Delivers the exceptions of an operation, see [`reported`].
#[inline(always)]
pub fn raise(cpu: &mut Cpu, flags: u32) -> Result<(), Exception> {
    deliver(cpu, reported(cpu.mxcsr, flags))
}

/// Sets flags in MXCSR. `Err` if one is unmasked: the destination must not be written.
#[inline(always)]
pub fn deliver(cpu: &mut Cpu, flags: u32) -> Result<(), Exception> {
    let fault = unmasked(cpu.mxcsr, flags) != 0;
    cpu.mxcsr |= flags;
    if !fault {
        Ok(())
    } else if cpu.cr4 & cr4::OSXMMEXCPT != 0 {
        Err(Exception::SimdFloatingPoint)
    } else {
        Err(Exception::InvalidOpcode)
    }
}
