//! The end: a value written to the debug-exit port.
//!
//! The emulator's exit status is 0 for 10H and `(value << 1) | 1` for every other value, as with QEMU's isa-debug-exit.

use crate::cpu;

const DEBUG_EXIT: u16 = 0xf4;

/// How the run ended. The number is what goes to the port.
#[derive(Clone, Copy)]
#[repr(u32)]
pub enum Verdict {
    /// Everything that this machine can show was shown and checked: exit status 0.
    Success = 0x10,
    /// At least one check failed: exit status 3.
    CheckFailed = 1,
    /// The CPU raised an exception: exit status 5.
    Exception = 2,
    /// The program itself found a contradiction: exit status 7.
    Panic = 3,
}

/// Ends the run. On a machine without the port, stops for good.
pub fn end(verdict: Verdict) -> ! {
    cpu::outl(DEBUG_EXIT, verdict as u32);
    crate::say!("There is no debug-exit port here; the CPU halts.");
    cpu::halt()
}
