//! Data transfer and constants (SDM Vol. 1, sections 8.3.3 and 8.3.4).

use super::f80;
use super::host::{self, Format, Outcome, Source};
use super::spec::{BCD_INDEFINITE, cw::Rounding, cw::rounding, sw, tag};
use super::stack::{begin, end};
use crate::mmu::Access;
use crate::state::{Cpu, X87};
use iced_x86::{Instruction, MemorySize};
use x86::{Exception, flags};

impl X87 {
    /// Ends a load: overflow of the stack, exceptions of the conversion, or a push.
    pub(super) fn load(&mut self, outcome: Outcome) {
        if !self.is_empty(7) {
            if self.overflow() {
                self.push(f80::INDEFINITE);
            }
        } else {
            // An unmasked DE of FLD of a single or double does not keep silicon from loading the value, in spite of SDM
            // Vol. 1, section 8.5.2.
            self.report(outcome.status);
            if self.unmasked(outcome.status & sw::IE) == 0 {
                self.push(outcome.value);
            }
        }
    }

    /// FLD ST(i). Underflow goes before overflow.
    pub(super) fn load_register(&mut self, i: usize) {
        if self.is_empty(i) {
            if self.underflow() {
                self.push(f80::INDEFINITE);
            }
        } else {
            self.load(Outcome::new(self.st(i), 0));
        }
    }

    /// FST, FSTP ST(i).
    pub(super) fn store_register(&mut self, i: usize, pops: usize) {
        let done =
            if self.is_empty(0) { self.complete_underflow(i) } else { self.complete(i, Outcome::new(self.st(0), 0)) };
        if done {
            self.pop(pops);
        }
    }

    /// FSTPNCE (D9 D8+i, undocumented): FSTP ST(i) that does not check ST(0): an empty one is only popped.
    pub(super) fn store_register_unchecked(&mut self, i: usize) {
        if self.is_empty(0) {
            self.set_codes(sw::C1, 0);
            self.pop(1);
        } else {
            self.store_register(i, 1);
        }
    }

    pub(super) fn exchange(&mut self, i: usize) {
        let empty = [0, i].map(|r| self.is_empty(r));
        if empty != [false; 2] {
            if !self.underflow() {
                return;
            }
            for (r, empty) in [0, i].into_iter().zip(empty) {
                if empty {
                    self.set_st(r, f80::INDEFINITE);
                }
            }
        } else {
            self.set_codes(sw::C1, 0);
        }
        let (a, b) = (self.st(0), self.st(i));
        self.set_st(0, b);
        self.set_st(i, a);
    }

    /// FCMOVcc. Only an underflow changes C1.
    pub(super) fn conditional_move(&mut self, i: usize, condition: bool) {
        if self.is_empty(0) || self.is_empty(i) {
            self.complete_underflow(0);
        } else if condition {
            self.set_st(0, self.st(i));
        }
    }

    /// FFREE and FFREEP.
    pub(super) fn free(&mut self, i: usize, pops: usize) {
        self.set_tag(self.top() + i, tag::EMPTY);
        self.set_codes(sw::C1, 0);
        self.pop(pops);
    }

    /// What a store delivers. ST(0) is not popped yet.
    pub(super) fn store_outcome(&self, to: Store) -> Outcome {
        if self.is_empty(0) {
            return Outcome::new(to.indefinite(), sw::IE | sw::SF);
        }
        match to {
            Store::Extended => Outcome::new(self.st(0), 0),
            Store::Converted(format) => host::store(format, self.fcw, self.st(0)),
        }
    }

    /// True if an outcome is to be stored: an unmasked exception other than PE suppresses the store (SDM Vol. 1, sections
    /// 8.5.4 and 8.5.5).
    pub(super) fn stores(&self, outcome: Outcome) -> bool {
        self.unmasked(outcome.status) & !sw::PE == 0
    }

    /// Reports the exceptions of a store after it was done (or suppressed), and pops.
    pub(super) fn complete_store(&mut self, outcome: Outcome, pops: usize) {
        let stored = self.stores(outcome);
        self.report(outcome.status);
        if stored {
            self.pop(pops);
        }
    }
}

/// Destination of a store to memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Store {
    Extended,
    Converted(Format),
}

impl Store {
    pub(super) fn size(self) -> usize {
        use Format::*;
        match self {
            Store::Extended | Store::Converted(Bcd) => 10,
            Store::Converted(Word | WordTruncated) => 2,
            Store::Converted(Single | Dword | DwordTruncated) => 4,
            Store::Converted(Double | Qword | QwordTruncated) => 8,
        }
    }

    /// The masked response to #IS and #IA (SDM Vol. 1, tables 4-1, 4-3, 4-4).
    pub(super) fn indefinite(self) -> u128 {
        use Format::*;
        match self {
            Store::Extended => f80::INDEFINITE,
            Store::Converted(Single) => 0xFFC0_0000,
            Store::Converted(Double) => 0xFFF8_0000_0000_0000,
            Store::Converted(Bcd) => BCD_INDEFINITE,
            Store::Converted(Word | WordTruncated) => 1 << 15,
            Store::Converted(Dword | DwordTruncated) => 1 << 31,
            Store::Converted(Qword | QwordTruncated) => 1 << 63,
        }
    }
}

/// The value of a memory operand, with the exceptions of its conversion. Only FLD of single and double has any.
pub(super) fn read(size: MemorySize, fcw: u16, raw: u128) -> Outcome {
    match size {
        MemorySize::Float32 => host::load(fcw, Source::Single(raw as u32)),
        MemorySize::Float64 => host::load(fcw, Source::Double(raw as u64)),
        MemorySize::Int16 => Outcome::new(f80::from_i64(i64::from(raw as i16)), 0),
        MemorySize::Int32 => Outcome::new(f80::from_i64(i64::from(raw as i32)), 0),
        MemorySize::Int64 => Outcome::new(f80::from_i64(raw as i64), 0),
        MemorySize::Bcd => Outcome::new(f80::from_bcd(raw), 0),
        _ => Outcome::new(raw & f80::MASK, 0),
    }
}

/// FLD, FILD and FBLD from memory.
pub(super) fn load(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    begin(cpu)?;
    let size = insn.memory_size().size();
    let linear = cpu.linear_address(insn, size, Access::Read)?;
    let mut bytes = [0; 16];
    cpu.read_linear(linear, &mut bytes[..size])?;
    let outcome = read(insn.memory_size(), cpu.x87.fcw, u128::from_le_bytes(bytes));
    cpu.x87.load(outcome);
    end(cpu, insn);
    Ok(())
}

/// FST, FIST, FISTTP and FBSTP to memory. The store comes before any change of state, since it may fault.
pub(super) fn store(cpu: &mut Cpu, insn: &Instruction, to: Store, pops: usize) -> Result<(), Exception> {
    begin(cpu)?;
    let outcome = cpu.x87.store_outcome(to);
    let linear = cpu.linear_address(insn, to.size(), Access::Write)?;
    if cpu.x87.stores(outcome) {
        cpu.write_linear(linear, &outcome.value.to_le_bytes()[..to.size()])?;
    } else {
        // The destination is checked before the exception that suppresses the store is reported.
        cpu.probe_write(linear, to.size())?;
    }
    cpu.x87.complete_store(outcome, pops);
    end(cpu, insn);
    Ok(())
}

/// Instructions with one operand ST(i), and FXCH (whose ST(i) is its second operand).
pub(super) fn with_register(cpu: &mut Cpu, insn: &Instruction, f: fn(&mut X87, usize)) -> Result<(), Exception> {
    begin(cpu)?;
    let i = insn.op_register(insn.op_count().saturating_sub(1)).number() & 7;
    f(&mut cpu.x87, i);
    end(cpu, insn);
    Ok(())
}

/// FCMOVcc: the condition is one of CF, ZF, CF or ZF, PF, perhaps negated.
pub(super) fn conditional_move(cpu: &mut Cpu, insn: &Instruction, mask: u64, set: bool) -> Result<(), Exception> {
    begin(cpu)?;
    let condition = (cpu.lazy.get() & mask != 0) == set;
    cpu.x87.conditional_move(insn.op1_register().number() & 7, condition);
    end(cpu, insn);
    Ok(())
}

/// CF or ZF of FCMOVBE.
pub(super) const BELOW_OR_EQUAL: u64 = flags::CF | flags::ZF;

/// Constants of FLDxx: the value truncated to 64 bits, and whether the rest is above half a unit. They round by RC without
/// setting PE (SDM Vol. 1, section 8.3.4).
#[derive(Debug, Clone, Copy)]
pub(super) struct Constant {
    truncated: u128,
    above_half: bool,
}

pub(super) const LOG2_10: Constant = Constant { truncated: 0x4000_D49A_784B_CD1B_8AFE, above_half: false };
pub(super) const LOG2_E: Constant = Constant { truncated: 0x3FFF_B8AA_3B29_5C17_F0BB, above_half: true };
pub(super) const PI: Constant = Constant { truncated: 0x4000_C90F_DAA2_2168_C234, above_half: true };
pub(super) const LOG10_2: Constant = Constant { truncated: 0x3FFD_9A20_9A84_FBCF_F798, above_half: true };
pub(super) const LN_2: Constant = Constant { truncated: 0x3FFE_B172_17F7_D1CF_79AB, above_half: true };

pub(super) fn load_constant(x87: &mut X87, constant: Constant) {
    let up = match rounding(x87.fcw) {
        Rounding::Nearest => constant.above_half,
        Rounding::Up => true,
        Rounding::Down | Rounding::Zero => false,
    };
    x87.load(Outcome::new(constant.truncated + u128::from(up), 0));
}
