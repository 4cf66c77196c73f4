//! What the firmware stage sees of the machine. The machine implements [`BootCpu`]; the firmware knows nothing else of it.

use thiserror::Error;
use x86::segment::Segment;

/// RDMSR or WRMSR raised #GP(0).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("#GP(0)")]
pub struct GpFault;

/// The boot processor and its memory as firmware drives them.
pub trait BootCpu {
    /// CPUID: EAX, EBX, ECX, EDX.
    fn cpuid(&mut self, leaf: u32, subleaf: u32) -> [u32; 4];
    /// RDMSR at CPL 0.
    fn rdmsr(&mut self, msr: u32) -> Result<u64, GpFault>;
    /// WRMSR at CPL 0.
    fn wrmsr(&mut self, msr: u32, value: u64) -> Result<(), GpFault>;
    /// Stores `bytes` at a physical address with KeyID 0, through the memory controller (MK specification, section 7.5
    /// rule 1), so that what DRAM holds afterwards is what a store by the processor would have left there. Any alignment,
    /// any length; the range lies in RAM as [`crate::MemoryMap`] describes it.
    fn write_phys(&mut self, address: u64, bytes: &[u8]);
    /// Loads from a physical address with KeyID 0, the counterpart of [`BootCpu::write_phys`].
    fn read_phys(&mut self, address: u64, bytes: &mut [u8]);
    /// Loads the state with which the operating system starts. The last thing firmware does.
    fn enter(&mut self, state: EntryState);
    /// OUT of `size` (1, 2, 4) bytes.
    fn port_out(&mut self, port: u16, size: u8, value: u32);
    /// IN of `size` (1, 2, 4) bytes.
    fn port_in(&mut self, port: u16, size: u8) -> u32;
    /// A far jump in real-address mode; nothing else changes.
    fn jump_real16(&mut self, selector: u16, offset: u16);
}

/// GDTR or IDTR.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DescriptorTable {
    pub base: u64,
    /// Last byte, relative to `base`.
    pub limit: u16,
}

/// Register state at the hand-over. What is not named here (LDTR, debug registers, x87 and SSE state) stays as reset left
/// it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryState {
    /// RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8..R15 (encoding order).
    pub gpr: [u64; 16],
    pub rip: u64,
    pub rflags: u64,
    pub cr0: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub efer: u64,
    /// ES, CS, SS, DS, FS, GS with their hidden parts, by [`x86::segment::sreg`] number.
    pub segments: [Segment; 6],
    /// TR; `None`: as reset left it.
    pub tr: Option<Segment>,
    pub gdtr: DescriptorTable,
    pub idtr: DescriptorTable,
}

/// Indices into [`EntryState::gpr`].
pub mod gpr {
    pub const RAX: usize = 0;
    pub const RDX: usize = 2;
    pub const RBX: usize = 3;
    pub const RSP: usize = 4;
    pub const RSI: usize = 6;
}
