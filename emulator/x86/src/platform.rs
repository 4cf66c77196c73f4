//! What a processor sees of its board: ports, memory-mapped registers, interrupts, time.
//!
//! The processor core knows only this trait; `devices` implements it (design D10). Time is virtual (design D6):
//! nanoseconds since reset, derived from the instruction count, never from the host's clock.

/// Virtual time in nanoseconds. The TSC runs at 1 GHz, so it is also the TSC before offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash, serde::Serialize, serde::Deserialize)]
pub struct VirtualTime(pub u64);

/// Kinds of reset (MK specification section 7.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum ResetKind {
    /// Power was lost: the saved TME key is gone.
    Cold,
    /// Port CF9H, keyboard controller, ACPI reset register, triple fault.
    Warm,
    /// INIT: registers only; caches, memory and the TME MSRs are kept.
    Init,
}

/// Something the board asks of the machine around the processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Signal {
    /// ACPI S5 or an equivalent.
    PowerOff,
    Reset(ResetKind),
    /// The debug-exit port was written with this value.
    DebugExit(u32),
}

/// No RAM answers at an address, or the KeyID in it is private to TDX: the transfer is aborted (MK specification 5.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MasterAbort;

/// Memory as a bus master reaches it. Addresses are full physical addresses, KeyID bits included; a transfer is coherent
/// with lines cached under the same full physical address only (MK specification 5.6).
pub trait BusMemory {
    /// Reads `buf.len()` bytes, which all are in one 4-KiB page.
    ///
    /// # Errors
    /// Nothing was read.
    fn read(&mut self, address: u64, buf: &mut [u8]) -> Result<(), MasterAbort>;
    /// Writes `bytes`, which all go to one 4-KiB page.
    ///
    /// # Errors
    /// Nothing was written.
    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), MasterAbort>;
}

/// The board. All sizes are 1, 2, 4 (ports) or 1, 2, 4, 8 (memory-mapped) bytes; `cpu` is the logical processor's
/// number, whose local APIC is meant.
pub trait Platform {
    /// IN. Unclaimed ports read as all ones.
    fn port_read(&mut self, now: VirtualTime, cpu: usize, port: u16, size: u8) -> u32;
    /// OUT. Writes to unclaimed ports are dropped.
    fn port_write(&mut self, now: VirtualTime, cpu: usize, port: u16, size: u8, value: u32);

    /// Load from an address that is not RAM (KeyID already removed, MC-31). Unclaimed addresses read as all ones.
    fn mmio_read(&mut self, now: VirtualTime, cpu: usize, address: u64, size: u8) -> u64;
    /// Store to an address that is not RAM.
    fn mmio_write(&mut self, now: VirtualTime, cpu: usize, address: u64, size: u8, value: u64);

    /// RDMSR of IA32_APIC_BASE, IA32_TSC_DEADLINE and the x2APIC range 800H-8FFH. `None` is #GP(0).
    fn apic_msr_read(&mut self, now: VirtualTime, cpu: usize, msr: u32) -> Option<u64>;
    /// WRMSR of the same. `None` is #GP(0). `tsc_offset` is TSC minus virtual time, for TSC_DEADLINE.
    fn apic_msr_write(&mut self, now: VirtualTime, cpu: usize, msr: u32, value: u64, tsc_offset: u64) -> Option<()>;
    /// CR8 (task priority class, bits 7:4 of TPR).
    fn cr8(&self, cpu: usize) -> u8;
    fn set_cr8(&mut self, now: VirtualTime, cpu: usize, value: u8);

    /// Absolute time of the earliest timer event, if one is armed.
    fn next_event(&self) -> Option<VirtualTime>;
    /// Runs every event due at or before `now`.
    fn advance(&mut self, now: VirtualTime);

    /// True when a bus master has a transfer that is due at or before `now`. Until it is run, `next_event` names its time.
    fn dma_pending(&self, _now: VirtualTime) -> bool {
        false
    }
    /// Runs the transfers that are due. The processor calls this between two instructions: a board has no memory of its
    /// own, so this is where bus masters get it.
    fn run_dma(&mut self, _now: VirtualTime, _memory: &mut dyn BusMemory) {}

    /// True while a maskable interrupt that passes the priority check waits for this processor.
    fn interrupt_pending(&self, cpu: usize) -> bool;
    /// Interrupt acknowledge: the vector, moved from IRR to ISR (or from the PIC). `None` if it went away.
    fn acknowledge_interrupt(&mut self, now: VirtualTime, cpu: usize) -> Option<u8>;
    /// True while an NMI waits for this processor.
    fn nmi_pending(&self, cpu: usize) -> bool;
    /// Takes a pending NMI.
    fn take_nmi(&mut self, cpu: usize) -> bool;

    /// Takes the next signal for the machine, if any.
    fn take_signal(&mut self) -> Option<Signal>;
    /// True when a signal waits: the processor leaves its run loop.
    fn signal_pending(&self) -> bool;
}

/// A board with nothing on it: reads are all ones, writes are dropped, nothing ever interrupts. For a processor by itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoBoard;

impl Platform for NoBoard {
    fn port_read(&mut self, _: VirtualTime, _: usize, _: u16, _: u8) -> u32 {
        u32::MAX
    }
    fn port_write(&mut self, _: VirtualTime, _: usize, _: u16, _: u8, _: u32) {}
    fn mmio_read(&mut self, _: VirtualTime, _: usize, _: u64, _: u8) -> u64 {
        u64::MAX
    }
    fn mmio_write(&mut self, _: VirtualTime, _: usize, _: u64, _: u8, _: u64) {}
    fn apic_msr_read(&mut self, _: VirtualTime, _: usize, _: u32) -> Option<u64> {
        None
    }
    fn apic_msr_write(&mut self, _: VirtualTime, _: usize, _: u32, _: u64, _: u64) -> Option<()> {
        None
    }
    fn cr8(&self, _: usize) -> u8 {
        0
    }
    fn set_cr8(&mut self, _: VirtualTime, _: usize, _: u8) {}
    fn next_event(&self) -> Option<VirtualTime> {
        None
    }
    fn advance(&mut self, _: VirtualTime) {}
    fn interrupt_pending(&self, _: usize) -> bool {
        false
    }
    fn acknowledge_interrupt(&mut self, _: VirtualTime, _: usize) -> Option<u8> {
        None
    }
    fn nmi_pending(&self, _: usize) -> bool {
        false
    }
    fn take_nmi(&mut self, _: usize) -> bool {
        false
    }
    fn take_signal(&mut self) -> Option<Signal> {
        None
    }
    fn signal_pending(&self) -> bool {
        false
    }
}
