//! The machine-check handler. Memory with integrity answers the consumption of a poisoned line with #MC (MC-32).

use crate::detected;
use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;

const MACHINE_CHECK: usize = 18;
/// Of `boot.s`.
const CODE_SELECTOR: u16 = 0x08;
/// P = 1, DPL = 0, type 1110B: 64-bit interrupt gate (SDM Vol. 3A, 7.14.1).
const INTERRUPT_GATE: u16 = 0x8e00;
const CR4_MCE: u64 = 1 << 6;

// The handler never returns, so nothing is saved; a call expects the stack aligned.
global_asm!(
    ".section .text",
    "machine_check_entry:",
    "cld",
    "and rsp, -16",
    "call {handler}",
    "ud2",
    handler = sym machine_check,
);

unsafe extern "C" {
    /// Code, not data.
    static machine_check_entry: u8;
}

/// Gates of the 64-bit IDT, up to that of #MC. Any other exception is a triple fault.
#[repr(C, align(16))]
struct Idt(UnsafeCell<[[u64; 2]; MACHINE_CHECK + 1]>);

// SAFETY: written once, by `install`, on the only CPU; afterwards only the CPU itself reads it.
unsafe impl Sync for Idt {}

static IDT: Idt = Idt(UnsafeCell::new([[0; 2]; MACHINE_CHECK + 1]));

/// The operand of LIDT.
#[repr(C, packed)]
struct Descriptor {
    limit: u16,
    base: u64,
}

/// Points the IDT at the handler and lets machine checks be delivered instead of shutting the processor down.
pub fn install() {
    let at = (&raw const machine_check_entry) as u64;
    let low = at & 0xffff | u64::from(CODE_SELECTOR) << 16 | u64::from(INTERRUPT_GATE) << 32 | at >> 16 << 48;
    // SAFETY: nothing else refers to the table before LIDT below.
    unsafe { (*IDT.0.get())[MACHINE_CHECK] = [low, at >> 32] }
    let descriptor = Descriptor { limit: (size_of::<Idt>() - 1) as u16, base: IDT.0.get() as u64 };
    // SAFETY: the table is complete and lives for ever; CR4.MCE concerns machine checks alone.
    unsafe {
        asm!("lidt [{}]", in(reg) &descriptor, options(readonly, nostack, preserves_flags));
        asm!("mov {0}, cr4", "or {0}, {1}", "mov cr4, {0}", out(reg) _, const CR4_MCE, options(nostack));
    }
}

extern "C" fn machine_check() -> ! {
    detected(format_args!("#MC"))
}
