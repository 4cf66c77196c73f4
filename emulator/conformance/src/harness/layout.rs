//! Where the harness puts things. Physical addresses with KeyID 0; linear addresses below 1 GiB are the same numbers.

/// RAM of the test machine.
pub const RAM_BYTES: u64 = 64 << 20;

/// What real-address mode needs, in the first MiB: vectors, one HLT per vector, code, stack.
pub mod real {
    pub const IVT: u64 = 0;
    pub const STUBS: u64 = 0x8000;
    pub const CODE: u64 = 0x9000;
    /// Segment of [`CODE`].
    pub const CODE_SEGMENT: u16 = 0x900;
    pub const STACK_TOP: u64 = 0x7F00;
}

pub const PML4: u64 = 0x10_0000;
pub const PDPT: u64 = 0x10_1000;
/// 2-MiB pages, one to one.
pub const PD_IDENTITY: u64 = 0x10_2000;
pub const PD_WINDOWS: u64 = 0x10_3000;
/// One page table: 512 mappings that tests make.
pub const PT_WINDOWS: u64 = 0x10_4000;
/// PAE: four page-directory pointers.
pub const PAE_PDPT: u64 = 0x10_5000;
pub const GDT: u64 = 0x10_8000;
pub const IDT: u64 = 0x10_9000;
pub const IDT32: u64 = 0x10_A000;
pub const TSS: u64 = 0x10_B000;
pub const TSS32: u64 = 0x10_B800;
/// The stack that exceptions switch to in IA-32e mode.
pub const IST_TOP: u64 = 0x10_D000;
/// One HLT per vector, [`STUB_BYTES`] apart.
pub const STUBS: u64 = 0x10_D000;
pub const STUB_BYTES: u64 = 16;
pub const CODE: u64 = 0x10_E000;
pub const CODE_BYTES: u64 = 0x4000;
pub const STACK_TOP: u64 = 0x11_4000;
/// The PCONFIG structure.
pub const PROGRAM: u64 = 0x11_4000;
/// Everything from [`PML4`] up to here belongs to the harness.
pub const END: u64 = 0x11_5000;

/// Linear address of the first mapping that tests make.
pub const WINDOWS: u64 = 1 << 30;
pub const WINDOW_COUNT: u64 = 512;

/// A frame for tests, far from everything else.
pub const FRAME: u64 = 0x0200_0000;
/// More of them.
pub const FRAME_2: u64 = FRAME + 0x1000;
pub const FRAME_3: u64 = FRAME + 0x2000;
/// The line of K5 and K10 (MK specification section 6.4).
pub const K5_FRAME: u64 = 0x1000;

/// Selectors.
pub mod selector {
    pub const CODE64: u16 = 0x08;
    pub const DATA: u16 = 0x10;
    pub const CODE32: u16 = 0x18;
    pub const USER_DATA: u16 = 0x20 | 3;
    pub const USER_CODE64: u16 = 0x28 | 3;
    pub const TSS: u16 = 0x30;
    pub const TSS32: u16 = 0x40;
    /// Data segment whose limit ends inside [`super::PROGRAM`] (MK-100).
    pub const SHORT_DATA: u16 = 0x48;
    /// Code that can be left to by the end-of-run interrupt.
    pub const GDT_BYTES: u16 = 0x50;
}

/// The vector with which code that may not execute HLT ends a run.
pub const END_VECTOR: u8 = 0x80;
