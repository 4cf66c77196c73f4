//! Arithmetic with exactly defined results (SDM Vol. 1, section 8.3.5), sign operations and comparisons (8.3.6).

use super::host::{self, Arith, Outcome, Source, Unary};
use super::spec::sw;
use super::stack::{begin, end};
use super::{f80, remainder};
use crate::mmu::Access;
use crate::state::{Cpu, X87};
use iced_x86::{Instruction, MemorySize};
use x86::{Exception, flags};

/// How a comparison reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Comparison {
    /// FUCOM: a QNaN is unordered without an exception.
    pub unordered: bool,
    pub pops: usize,
    /// FCOMI, FUCOMI: into ZF, PF and CF.
    pub to_flags: bool,
}

impl X87 {
    /// ST(dst) = ST(dst) op ST(src), then pops.
    pub(super) fn arith_registers(&mut self, op: Arith, dst: usize, src: usize, pops: usize) {
        let done = if self.is_empty(dst) || self.is_empty(src) {
            self.complete_underflow(dst)
        } else {
            self.complete(dst, host::arith(op, self.fcw, self.st(dst), Source::Register(self.st(src))))
        };
        if done {
            self.pop(pops);
        }
    }

    /// ST(0) = ST(0) op source.
    pub(super) fn arith_memory(&mut self, op: Arith, source: Source) {
        if self.is_empty(0) {
            self.complete_underflow(0);
        } else {
            self.complete(0, host::arith(op, self.fcw, self.st(0), source));
        }
    }

    /// FSQRT and FRNDINT of ST(0), FSCALE by ST(1).
    pub(super) fn unary(&mut self, op: Unary) {
        if self.is_empty(0) || op == Unary::Scale && self.is_empty(1) {
            self.complete_underflow(0);
        } else {
            self.complete(0, host::unary(op, self.fcw, self.st(0), self.st(1)));
        }
    }

    /// FPREM or FPREM1.
    pub(super) fn remainder(&mut self, op: Unary) {
        self.set_codes(sw::C2, 0);
        if self.is_empty(0) || self.is_empty(1) {
            self.complete_underflow(0);
            return;
        }
        let outcome = remainder::step(op, self.fcw, self.st(0), self.st(1));
        // The quotient's bit 0 is in C1, where other instructions have the rounding direction. A NaN has no quotient.
        if self.complete(0, outcome) && f80::exponent(outcome.value) != f80::EXPONENT_MAX {
            self.set_codes(sw::CC, outcome.status);
        }
    }

    pub(super) fn extract(&mut self) {
        if self.is_empty(0) {
            if self.underflow() {
                self.set_st(0, f80::INDEFINITE);
                self.push(f80::INDEFINITE);
            }
        } else if !self.is_empty(7) {
            if self.overflow() {
                self.set_st(0, f80::INDEFINITE);
                self.push(f80::INDEFINITE);
            }
        } else {
            let (significand, exponent) = host::extract(self.fcw, self.st(0));
            if self.complete(0, Outcome::new(exponent, significand.status)) {
                self.push(significand.value);
            }
        }
    }

    /// FABS, FCHS: on the sign alone, without exceptions but stack underflow.
    pub(super) fn sign(&mut self, f: fn(u128) -> u128) {
        if self.is_empty(0) {
            self.complete_underflow(0);
        } else {
            self.set_codes(sw::C1, 0);
            self.set_st(0, f(self.st(0)));
        }
    }

    /// Compares ST(0) with ST(i) or memory. The codes C3, C2 and C0, or `None` if they are not to be set.
    pub(super) fn compare(&mut self, kind: Comparison, source: Option<Source>) -> Option<u16> {
        let status = match source {
            Some(source) if !self.is_empty(0) => host::compare(kind.unordered, self.fcw, self.st(0), source),
            _ => sw::IE | sw::SF | sw::CC,
        };
        let proceed = self.report(status & !sw::C1);
        // SDM Vol. 2A, FCOM: an unmasked #IA leaves the codes unset. (AMD's processors set them even then; both set them
        // before #IS and #D.)
        let unset = status & (sw::IE | sw::SF) == sw::IE && self.unmasked(sw::IE) != 0;
        if !kind.to_flags && !unset {
            self.set_codes(sw::CC, status);
        }
        if proceed {
            self.pop(kind.pops);
        }
        (!unset).then_some(status & sw::CC)
    }

    /// FXAM: the class of ST(0) in C3, C2, C0 and its sign in C1, of an empty register too.
    pub(super) fn examine(&mut self) {
        use f80::Class::*;
        let v = self.st(0);
        let class = match f80::classify(v) {
            _ if self.is_empty(0) => sw::C3 | sw::C0,
            Unsupported => 0,
            SignalingNan | QuietNan => sw::C0,
            Normal => sw::C2,
            Infinity => sw::C2 | sw::C0,
            Zero => sw::C3,
            Denormal => sw::C3 | sw::C2,
        };
        let sign = if f80::negative(v) { sw::C1 } else { 0 };
        self.set_codes(sw::CC | sw::C1, class | sign);
    }
}

/// The operand of an arithmetic instruction or comparison in memory.
fn memory_source(cpu: &mut Cpu, insn: &Instruction) -> Result<Source, Exception> {
    let linear = cpu.linear_address(insn, insn.memory_size().size(), Access::Read)?;
    Ok(match insn.memory_size() {
        MemorySize::Float32 => Source::Single(cpu.read_u32(linear)?),
        MemorySize::Float64 => Source::Double(cpu.read_u64(linear)?),
        MemorySize::Int16 => Source::Word(cpu.read_u16(linear)?),
        _ => Source::Dword(cpu.read_u32(linear)?),
    })
}

pub(super) fn memory(cpu: &mut Cpu, insn: &Instruction, op: Arith) -> Result<(), Exception> {
    begin(cpu)?;
    let source = memory_source(cpu, insn)?;
    cpu.x87.arith_memory(op, source);
    end(cpu, insn);
    Ok(())
}

pub(super) fn registers(cpu: &mut Cpu, insn: &Instruction, op: Arith, pops: usize) -> Result<(), Exception> {
    begin(cpu)?;
    let (dst, src) = (insn.op0_register().number() & 7, insn.op1_register().number() & 7);
    cpu.x87.arith_registers(op, dst, src, pops);
    end(cpu, insn);
    Ok(())
}

/// An instruction whose operands are all on the register stack.
pub(super) fn implicit(cpu: &mut Cpu, insn: &Instruction, f: fn(&mut X87)) -> Result<(), Exception> {
    begin(cpu)?;
    f(&mut cpu.x87);
    end(cpu, insn);
    Ok(())
}

/// All comparisons. FCOMPP and FUCOMPP have no operands and compare with ST(1).
pub(super) fn compare(cpu: &mut Cpu, insn: &Instruction, kind: Comparison) -> Result<(), Exception> {
    begin(cpu)?;
    let source = if insn.memory_size() != MemorySize::Unknown {
        Some(memory_source(cpu, insn)?)
    } else {
        let i = if insn.op_count() == 0 { 1 } else { insn.op1_register().number() & 7 };
        (!cpu.x87.is_empty(i)).then(|| Source::Register(cpu.x87.st(i)))
    };
    let codes = cpu.x87.compare(kind, source);
    if let (true, Some(codes)) = (kind.to_flags, codes) {
        let bit = |code, flag| if codes & code != 0 { flag } else { 0 };
        // OF, SF and AF are cleared.
        cpu.lazy.set(bit(sw::C3, flags::ZF) | bit(sw::C2, flags::PF) | bit(sw::C0, flags::CF));
    }
    end(cpu, insn);
    Ok(())
}

/// FTST: compares with +0.0.
pub(super) fn test(x87: &mut X87) {
    let kind = Comparison { unordered: false, pops: 0, to_flags: false };
    x87.compare(kind, Some(Source::Register(f80::ZERO)));
}
