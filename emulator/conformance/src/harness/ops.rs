//! Pieces of guest code that many tests share, and single-instruction runs.

use super::{Failure, Outcome, Scenario};
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use mem::Event;

type Code = Result<(), IcedError>;

/// Sequences of the assembler.
pub trait Asm {
    /// WRMSR of a constant. Changes RAX, RCX, RDX.
    fn wrmsr_value(&mut self, msr: u32, value: u64) -> Code;
    /// RDMSR. Changes RAX, RCX, RDX.
    fn rdmsr_of(&mut self, msr: u32) -> Code;
    /// PCONFIG leaf 0 of a structure. Changes RAX, RBX.
    fn pconfig_at(&mut self, linear: u64) -> Code;
    /// A one-byte store. Changes RDI.
    fn store_byte(&mut self, linear: u64, value: u32) -> Code;
    fn clflush_at(&mut self, linear: u64) -> Code;
}

impl Asm for CodeAssembler {
    fn wrmsr_value(&mut self, msr: u32, value: u64) -> Code {
        self.mov(ecx, msr)?;
        self.mov(eax, value as u32)?;
        self.mov(edx, (value >> 32) as u32)?;
        self.wrmsr()
    }

    fn rdmsr_of(&mut self, msr: u32) -> Code {
        self.mov(ecx, msr)?;
        self.rdmsr()
    }

    fn pconfig_at(&mut self, linear: u64) -> Code {
        self.mov(rbx, linear)?;
        self.xor(eax, eax)?;
        self.pconfig()
    }

    fn store_byte(&mut self, linear: u64, value: u32) -> Code {
        self.mov(rdi, linear)?;
        self.mov(byte_ptr(rdi), value)
    }

    fn clflush_at(&mut self, linear: u64) -> Code {
        self.mov(rdi, linear)?;
        self.clflush(byte_ptr(rdi))
    }
}

/// Stores a line as eight quadwords. Changes RAX, RDI.
pub fn store_line(a: &mut CodeAssembler, linear: u64, line: &[u8; 64]) -> Code {
    a.mov(rdi, linear)?;
    for (n, bytes) in line.chunks_exact(8).enumerate() {
        let mut word = [0; 8];
        word.copy_from_slice(bytes);
        a.mov(rax, u64::from_le_bytes(word))?;
        a.mov(qword_ptr(rdi + 8 * n as i32), rax)?;
    }
    Ok(())
}

/// Loads a line into R8..R15, where [`Outcome::line`] finds it. Changes RSI.
pub fn load_line(a: &mut CodeAssembler, linear: u64) -> Code {
    a.mov(rsi, linear)?;
    for (n, register) in [r8, r9, r10, r11, r12, r13, r14, r15].into_iter().enumerate() {
        a.mov(register, qword_ptr(rsi + 8 * n as i32))?;
    }
    Ok(())
}

impl Scenario {
    /// WRMSR at CPL 0.
    pub fn wrmsr(&mut self, msr: u32, value: u64) -> Result<Outcome, Failure> {
        self.run(|a| {
            a.wrmsr_value(msr, value)?;
            a.hlt()
        })
    }

    /// RDMSR at CPL 0 that does not fault.
    pub fn rdmsr(&mut self, msr: u32) -> Result<u64, Failure> {
        let end = self.rdmsr_outcome(msr)?.halted()?;
        Ok(end.rdx() << 32 | end.rax() & 0xFFFF_FFFF)
    }

    pub fn rdmsr_outcome(&mut self, msr: u32) -> Result<Outcome, Failure> {
        self.run(|a| {
            a.rdmsr_of(msr)?;
            a.hlt()
        })
    }

    /// EAX, EBX, ECX, EDX.
    pub fn cpuid(&mut self, leaf: u32, subleaf: u32) -> Result<[u64; 4], Failure> {
        let end = self
            .run(|a| {
                a.mov(eax, leaf)?;
                a.mov(ecx, subleaf)?;
                a.cpuid()?;
                a.hlt()
            })?
            .halted()?;
        Ok([end.rax(), end.rbx(), end.rcx(), end.rdx()])
    }

    /// Stores a line; it stays in the cache if the mapping is write-back.
    pub fn store(&mut self, linear: u64, line: &[u8; 64]) -> Result<(), Failure> {
        self.run(|a| {
            store_line(a, linear, line)?;
            a.hlt()
        })?
        .halted()?;
        Ok(())
    }

    /// Stores a line and flushes it through the same mapping.
    pub fn store_flush(&mut self, linear: u64, line: &[u8; 64]) -> Result<(), Failure> {
        self.run(|a| {
            store_line(a, linear, line)?;
            a.clflush_at(linear)?;
            a.hlt()
        })?
        .halted()?;
        Ok(())
    }

    pub fn load(&mut self, linear: u64) -> Result<[u8; 64], Failure> {
        let end = self.run(|a| {
            load_line(a, linear)?;
            a.hlt()
        })?;
        Ok(end.halted()?.line())
    }

    pub fn clflush(&mut self, linear: u64) -> Result<(), Failure> {
        self.run(|a| {
            a.clflush_at(linear)?;
            a.hlt()
        })?
        .halted()?;
        Ok(())
    }

    pub fn wbinvd(&mut self) -> Result<(), Failure> {
        self.run(|a| {
            a.wbinvd()?;
            a.hlt()
        })?
        .halted()?;
        Ok(())
    }

    /// Events recorded so far, oldest first; none remain.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.mem().events_mut().take()).collect()
    }
}
