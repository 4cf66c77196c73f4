//! How a piece of code ended.

use super::Failure;
use crate::{check, equal};
use cpu::state::slot;

/// An exception that the guest's handler received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    pub vector: u8,
    /// The error code that was pushed; 0 for vectors without one.
    pub code: u64,
    pub cr2: u64,
}

/// The state when a run ended: at HLT, or at the instruction that raised the exception.
#[derive(Debug, Clone)]
pub struct Outcome {
    pub fault: Option<Fault>,
    /// By encoding number: RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8..R15.
    pub regs: [u64; 16],
    pub rflags: u64,
    /// The instruction that ended the run: HLT or the faulting one, relative to the start of the code.
    pub at: u64,
}

macro_rules! registers {
    ($($name:ident = $slot:ident),+) => {
        $(pub fn $name(&self) -> u64 {
            self.regs[slot::$slot as usize]
        })+
    };
}

impl Outcome {
    registers!(rax = RAX, rbx = RBX, rcx = RCX, rdx = RDX);

    /// R8..R15 as 64 bytes: where [`super::load_line`] puts a line.
    pub fn line(&self) -> [u8; 64] {
        let mut line = [0; 64];
        for (bytes, register) in line.chunks_exact_mut(8).zip(&self.regs[8..]) {
            bytes.copy_from_slice(&register.to_le_bytes());
        }
        line
    }

    /// No exception.
    pub fn halted(self) -> Result<Outcome, Failure> {
        check!(self.fault.is_none(), "{}, expected none", self.describe());
        Ok(self)
    }

    /// #GP(0).
    pub fn gp(&self, what: &str) -> Result<(), Failure> {
        self.raised(13, 0, what)
    }

    /// #UD.
    pub fn ud(&self, what: &str) -> Result<(), Failure> {
        self.raised(6, 0, what)
    }

    /// #PF with this error code at this linear address.
    pub fn page_fault(&self, code: u64, cr2: u64, what: &str) -> Result<(), Failure> {
        self.raised(14, code, what)?;
        let got = self.fault.map_or(0, |f| f.cr2);
        equal!(got, cr2, "{what}: CR2");
        Ok(())
    }

    fn raised(&self, vector: u8, code: u64, what: &str) -> Result<(), Failure> {
        let ok = self.fault.is_some_and(|f| (f.vector, f.code) == (vector, code));
        check!(ok, "{what}: {}, expected exception {vector} with error code {code:#x}", self.describe());
        Ok(())
    }

    fn describe(&self) -> String {
        match self.fault {
            None => "no exception".into(),
            Some(f) => format!("exception {} with error code {:#x}, CR2 {:#x}", f.vector, f.code, f.cr2),
        }
    }
}
