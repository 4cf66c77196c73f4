//! A last resort for exceptions: say which one, where, and end with a failure.

use core::arch::asm;
use core::cell::UnsafeCell;

use crate::cpu;
use crate::exit::{self, Verdict};
use crate::say;

/// Vectors that the architecture reserves for exceptions.
const VECTORS: usize = 32;

/// Bytes between the stubs of `entry.s`.
const STUB_BYTES: u64 = 16;

/// P = 1, DPL = 0, type 1110B: 64-bit interrupt gate (SDM Vol. 3A, 7.14.1).
const INTERRUPT_GATE: u16 = 0x8e00;

const NAMES: [&str; VECTORS] = [
    "#DE divide error",
    "#DB debug exception",
    "NMI",
    "#BP breakpoint",
    "#OF overflow",
    "#BR bound range exceeded",
    "#UD invalid opcode",
    "#NM no math coprocessor",
    "#DF double fault",
    "coprocessor segment overrun",
    "#TS invalid TSS",
    "#NP segment not present",
    "#SS stack-segment fault",
    "#GP general protection",
    "#PF page fault",
    "reserved",
    "#MF x87 floating-point error",
    "#AC alignment check",
    "#MC machine check",
    "#XM SIMD floating-point exception",
    "#VE virtualization exception",
    "#CP control protection exception",
    "reserved",
    "reserved",
    "reserved",
    "reserved",
    "reserved",
    "reserved",
    "#HV hypervisor injection exception",
    "#VC VMM communication exception",
    "#SX security exception",
    "reserved",
];

const PAGE_FAULT: u64 = 14;

/// One gate of the 64-bit IDT.
#[repr(C)]
#[derive(Clone, Copy)]
struct Gate {
    offset_15_0: u16,
    selector: u16,
    /// IST index 0: the stack in use. Nothing here returns, so there is nothing on it to protect.
    attributes: u16,
    offset_31_16: u16,
    offset_63_32: u32,
    reserved: u32,
}

impl Gate {
    const ABSENT: Self =
        Self { offset_15_0: 0, selector: 0, attributes: 0, offset_31_16: 0, offset_63_32: 0, reserved: 0 };

    fn to(handler: u64, selector: u16) -> Self {
        Self {
            offset_15_0: handler as u16,
            selector,
            attributes: INTERRUPT_GATE,
            offset_31_16: (handler >> 16) as u16,
            offset_63_32: (handler >> 32) as u32,
            reserved: 0,
        }
    }
}

#[repr(C, align(16))]
struct Idt(UnsafeCell<[Gate; VECTORS]>);

// SAFETY: written once, by `install`, on the only CPU; afterwards only the CPU itself reads it.
unsafe impl Sync for Idt {}

static IDT: Idt = Idt(UnsafeCell::new([Gate::ABSENT; VECTORS]));

/// The operand of LIDT.
#[repr(C, packed)]
struct Descriptor {
    limit: u16,
    base: u64,
}

/// What the stubs of `entry.s` leave on the stack.
#[repr(C)]
struct Frame {
    vector: u64,
    error_code: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

unsafe extern "C" {
    /// The first of the 32 stubs; code, not data.
    static exception_stubs: u8;
}

/// Points the IDT at the stubs. The code segment stays the loader's.
pub fn install() {
    let stubs = (&raw const exception_stubs) as u64;
    let selector = cpu::read_cs();
    // SAFETY: nothing else refers to the table before LIDT below.
    let gates = unsafe { &mut *IDT.0.get() };
    for (gate, vector) in gates.iter_mut().zip(0..) {
        *gate = Gate::to(stubs + vector * STUB_BYTES, selector);
    }
    let descriptor = Descriptor { limit: (size_of::<Idt>() - 1) as u16, base: IDT.0.get() as u64 };
    // SAFETY: the table is complete and lives for ever.
    unsafe { asm!("lidt [{}]", in(reg) &descriptor, options(readonly, nostack, preserves_flags)) }
}

/// Where all stubs end.
#[unsafe(no_mangle)]
extern "C" fn exception(frame: &Frame) -> ! {
    let name = NAMES.get(frame.vector as usize).copied().unwrap_or("unknown");
    say!();
    say!("The CPU raised an exception that this program did not expect:");
    say!("   vector {} ({name}), error code {:#x}", frame.vector, frame.error_code);
    say!(
        "   at RIP {:#x}, CS {:#x}, RFLAGS {:#x}, RSP {:#x}, SS {:#x}",
        frame.rip,
        frame.cs,
        frame.rflags,
        frame.rsp,
        frame.ss
    );
    if frame.vector == PAGE_FAULT {
        say!("   address (CR2) {:#x}", cpu::read_cr2());
    }
    exit::end(Verdict::Exception)
}
