//! Single instructions.

use core::arch::asm;
use core::arch::x86_64::{__cpuid_count, CpuidResult};

pub fn cpuid(leaf: u32, subleaf: u32) -> CpuidResult {
    __cpuid_count(leaf, subleaf)
}

pub fn outb(port: u16, value: u8) {
    // SAFETY: the ports that this program writes are a UART's and the exit port's; neither reaches memory.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags)) }
}

pub fn inb(port: u16) -> u8 {
    let value;
    // SAFETY: as for `outb`.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack, preserves_flags)) }
    value
}

/// A 32-bit OUT. Not `nomem`: a write that ends the machine comes after all stores.
pub fn outl(port: u16, value: u32) {
    // SAFETY: as for `outb`.
    unsafe { asm!("out dx, eax", in("dx") port, in("eax") value, options(nostack, preserves_flags)) }
}

/// Reads an MSR. One that does not exist raises #GP, which without an IDT is a triple fault: ask CPUID first.
pub fn rdmsr(msr: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reading an MSR changes nothing that the compiler knows of.
    unsafe { asm!("rdmsr", in("ecx") msr, out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags)) }
    u64::from(high) << 32 | u64::from(low)
}

/// CLFLUSH, then MFENCE: on return the line is in memory, and later loads come after it.
pub fn clflush(address: u64) {
    // SAFETY: writing a line back and invalidating it changes no value. An address that is not mapped faults.
    unsafe { asm!("clflush [{}]", "mfence", in(reg) address, options(nostack, preserves_flags)) }
}

/// Stops for good: interrupts are off.
pub fn halt() -> ! {
    loop {
        // SAFETY: HLT touches nothing.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) }
    }
}
