//! What is loaded before an instruction and compared after it.

use crate::layout::{ARENA_BYTES, Arena};

/// RFLAGS bits that user code sees and that are compared: CF PF AF ZF SF DF OF NT AC ID.
pub const COMPARED_FLAGS: u64 = 0x24_4CD5;
/// IF and the fixed bit, as Linux runs user code.
pub const USER_FLAGS: u64 = 0x202;

/// User-visible registers. x87, MMX and SSE are kept as an FXSAVE64 image (SDM Vol. 1, table 10-2).
#[derive(Clone)]
#[repr(C, align(64))]
pub struct State {
    pub fx: [u8; 512],
    /// In encoding order.
    pub gpr: [u64; 16],
    pub rip: u64,
    pub rflags: u64,
    pub fs_base: u64,
    pub gs_base: u64,
    /// Selectors by segment register number, [`SELECTORS`] before every case.
    pub selectors: [u16; 6],
}

/// ES, CS, SS, DS, FS and GS as Linux runs 64-bit user code.
pub const SELECTORS: [u16; 6] = [0, 0x33, 0x2B, 0, 0, 0];

/// Offsets in an FXSAVE image.
pub mod fx {
    pub const FCW: usize = 0;
    pub const FSW: usize = 2;
    /// Abridged: a bit is set for a register that is not empty.
    pub const FTW: usize = 4;
    pub const FOP: usize = 6;
    pub const FIP: usize = 8;
    pub const FDP: usize = 16;
    pub const MXCSR: usize = 24;
    pub const MXCSR_MASK: usize = 28;
    pub const ST: usize = 32;
    pub const XMM: usize = 160;
}

impl Default for State {
    fn default() -> Self {
        let mut s = State {
            fx: [0; 512],
            gpr: [0; 16],
            rip: 0,
            rflags: USER_FLAGS,
            fs_base: 0,
            gs_base: 0,
            selectors: SELECTORS,
        };
        s.set16(fx::FCW, 0x37F);
        s.set_mxcsr(0x1F80);
        s
    }
}

impl State {
    pub fn get16(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.fx[at], self.fx[at + 1]])
    }

    pub fn set16(&mut self, at: usize, value: u16) {
        self.fx[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }

    fn get128(&self, at: usize) -> u128 {
        let mut b = [0; 16];
        b.copy_from_slice(&self.fx[at..at + 16]);
        u128::from_le_bytes(b)
    }

    pub fn mxcsr(&self) -> u32 {
        u32::from(self.get16(fx::MXCSR)) | u32::from(self.get16(fx::MXCSR + 2)) << 16
    }

    pub fn set_mxcsr(&mut self, value: u32) {
        self.fx[fx::MXCSR..fx::MXCSR + 4].copy_from_slice(&value.to_le_bytes());
    }

    pub fn xmm(&self, n: usize) -> u128 {
        self.get128(fx::XMM + 16 * n)
    }

    pub fn set_xmm(&mut self, n: usize, value: u128) {
        self.fx[fx::XMM + 16 * n..][..16].copy_from_slice(&value.to_le_bytes());
    }

    /// ST(n), 80 bits.
    pub fn st(&self, n: usize) -> u128 {
        self.get128(fx::ST + 16 * n) & ((1 << 80) - 1)
    }

    pub fn set_st(&mut self, n: usize, value: u128) {
        self.fx[fx::ST + 16 * n..][..16].copy_from_slice(&(value & ((1 << 80) - 1)).to_le_bytes());
    }

    /// TOP of the status word.
    pub fn top(&self) -> usize {
        usize::from(self.get16(fx::FSW) >> 11 & 7)
    }
}

/// The same for 32-bit user code. CS is its 32-bit code segment.
pub const SELECTORS_32: [u16; 6] = [0x2B, 0x23, 0x2B, 0x2B, 0, 0];

/// An exception that the instruction raised. RIP of the frame is in [`State::rip`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    pub vector: u8,
    pub error: u64,
    /// For page faults.
    pub cr2: u64,
}

/// What executing a case led to.
#[derive(Clone)]
pub struct Outcome {
    pub state: State,
    pub fault: Option<Fault>,
    pub memory: Box<Arena>,
}

impl Default for Outcome {
    fn default() -> Self {
        Outcome { state: State::default(), fault: None, memory: zero_arena() }
    }
}

/// An arena of zeros, on the heap.
pub fn zero_arena() -> Box<Arena> {
    match vec![0; ARENA_BYTES].into_boxed_slice().try_into() {
        Ok(arena) => arena,
        Err(_) => unreachable!("the length is the type's"),
    }
}

/// A case: an instruction, where it stands, and everything it starts from.
#[derive(Clone)]
pub struct Case {
    /// The encoding.
    pub bytes: Vec<u8>,
    /// Decoded at its address.
    pub insn: iced_x86::Instruction,
    /// 64, or 32 for compatibility mode.
    pub bits: u32,
    /// RIP is its address.
    pub pre: State,
    pub memory: Box<Arena>,
}
