//! The register stack, its exceptions and the pointers to the last instruction (SDM Vol. 1, sections 8.1 and 8.5).

use super::f80;
use super::host::Outcome;
use super::spec::{FOP, cw, sw, tag};
use crate::state::{Cpu, X87};
use iced_x86::{Instruction, OpKind, Register};
use x86::Exception;
use x86::cr::cr0;

impl X87 {
    pub(super) fn top(&self) -> usize {
        usize::from(self.fsw >> sw::TOP_SHIFT & 7)
    }

    pub(super) fn set_top(&mut self, top: usize) {
        self.fsw = self.fsw & !sw::TOP | (top as u16 & 7) << sw::TOP_SHIFT;
    }

    /// The physical register of ST(i).
    fn physical(&self, i: usize) -> usize {
        (self.top() + i) & 7
    }

    pub(super) fn is_empty(&self, i: usize) -> bool {
        self.ftw >> (2 * self.physical(i)) & 3 == tag::EMPTY
    }

    pub(super) fn set_tag(&mut self, physical: usize, tag: u16) {
        let shift = 2 * (physical & 7);
        self.ftw = self.ftw & !(3 << shift) | tag << shift;
    }

    /// The contents of ST(i), empty or not.
    pub(super) fn st(&self, i: usize) -> u128 {
        self.regs[self.physical(i)] & f80::MASK
    }

    pub(super) fn set_st(&mut self, i: usize, value: u128) {
        let physical = self.physical(i);
        self.regs[physical] = value & f80::MASK;
        self.set_tag(physical, f80::tag_of(value));
    }

    pub(super) fn push(&mut self, value: u128) {
        self.set_top(self.top().wrapping_sub(1));
        self.set_st(0, value);
    }

    pub(super) fn pop(&mut self, count: usize) {
        for _ in 0..count {
            self.set_tag(self.top(), tag::EMPTY);
            self.set_top(self.top() + 1);
        }
    }

    pub(super) fn set_codes(&mut self, which: u16, status: u16) {
        self.fsw = self.fsw & !which | status & which;
    }

    /// Sets exception flags (and SF) and, if one is unmasked, ES and B. Returns the unmasked ones.
    pub(super) fn raise(&mut self, status: u16) -> u16 {
        self.fsw |= status & (sw::EXCEPTIONS | sw::SF);
        let unmasked = self.unmasked(status);
        if unmasked != 0 {
            self.fsw |= sw::ES | sw::B;
        }
        unmasked
    }

    /// Those of the exceptions in `status` that the control word does not mask.
    pub(super) fn unmasked(&self, status: u16) -> u16 {
        status & sw::EXCEPTIONS & !self.fcw
    }

    /// ES and B after the control word or the flags were loaded.
    pub(super) fn update_summary(&mut self) {
        self.fsw &= !(sw::ES | sw::B);
        if self.unmasked(self.fsw) != 0 {
            self.fsw |= sw::ES | sw::B;
        }
    }

    pub(super) fn set_control(&mut self, value: u16) {
        self.fcw = value & cw::WRITABLE | cw::ONE;
        self.update_summary();
    }

    /// What FNINIT does. The data registers keep their contents.
    pub(super) fn init(&mut self) {
        *self = X87 { regs: self.regs, ..X87::default() };
    }

    /// Reports `status` with its C1. False if an unmasked exception suppresses the operation: no register may change then.
    pub(super) fn report(&mut self, status: u16) -> bool {
        self.set_codes(sw::C1, status);
        self.raise(status) & sw::PRE == 0
    }

    /// A stack underflow: #IS with C1 = 0 (SDM Vol. 1, section 8.5.1.1). True if it is masked.
    pub(super) fn underflow(&mut self) -> bool {
        self.report(sw::IE | sw::SF)
    }

    /// A stack overflow: #IS with C1 = 1. True if it is masked.
    pub(super) fn overflow(&mut self) -> bool {
        self.report(sw::IE | sw::SF | sw::C1)
    }

    /// Ends an operation with destination ST(dst). Unmasked OE and UE store their biased result. False if suppressed.
    pub(super) fn complete(&mut self, dst: usize, outcome: Outcome) -> bool {
        let proceed = self.report(outcome.status);
        if proceed {
            self.set_st(dst, outcome.value);
        }
        proceed
    }

    /// The masked response to underflow of an operation with destination ST(dst). False if suppressed.
    pub(super) fn complete_underflow(&mut self, dst: usize) -> bool {
        self.complete(dst, Outcome::new(f80::INDEFINITE, sw::IE | sw::SF))
    }

    /// FTW as FNSTENV stores it: computed from the contents, since only *empty* is architectural (SDM Vol. 1, 8.1.7).
    pub(super) fn full_tags(&self) -> u16 {
        (0..8).fold(0, |word, r| {
            let empty = self.ftw >> (2 * r) & 3 == tag::EMPTY;
            word | if empty { tag::EMPTY } else { f80::tag_of(self.regs[r] & f80::MASK) } << (2 * r)
        })
    }

    /// Loads the tag word after the registers: tags of registers that are not empty follow from the contents.
    pub(super) fn set_tags(&mut self, word: u16) {
        self.ftw = word;
        self.ftw = self.full_tags();
    }
}

/// #NM of every x87 instruction but WAIT (SDM Vol. 3A, table 2-2).
pub(super) fn begin_control(cpu: &Cpu) -> Result<(), Exception> {
    if cpu.cr0 & (cr0::EM | cr0::TS) != 0 { Err(Exception::DeviceNotAvailable) } else { Ok(()) }
}

/// #NM, and #MF of an exception that is pending from an earlier instruction.
///
/// With CR0.NE = 0 hardware asserts FERR# instead, which boards of the DOS era turn into IRQ 13, and stops until an
/// interrupt or IGNNE# arrives (SDM Vol. 1, section 8.7.2). This board has no such wire: the exception stays pending in ES
/// and the instruction executes, as with IGNNE# asserted.
pub(super) fn begin(cpu: &Cpu) -> Result<(), Exception> {
    begin_control(cpu)?;
    pending(cpu)
}

pub(super) fn pending(cpu: &Cpu) -> Result<(), Exception> {
    let raise = cpu.x87.fsw & sw::ES != 0 && cpu.cr0 & cr0::NE != 0;
    if raise { Err(Exception::X87FloatingPoint) } else { Ok(()) }
}

/// Records a non-control instruction. FIP always; FDP and FOP only if it raised an unmasked exception, as processors that
/// enumerate FDP_EXCPTN_ONLY (CPUID.(EAX=07H,ECX=0):EBX[6]) do (SDM Vol. 1, sections 8.1.8 and 8.1.9). FCS and FDS stay 0:
/// CPUID.(EAX=07H,ECX=0):EBX[13].
pub(super) fn end(cpu: &mut Cpu, insn: &Instruction) {
    cpu.x87.fip = cpu.ip;
    if cpu.x87.fsw & sw::ES != 0 {
        cpu.x87.fop = opcode(insn);
        if insn.op_kinds().any(|kind| kind == OpKind::Memory) {
            cpu.x87.fdp = cpu.effective_address(insn);
        }
    }
}

/// FOP: bits 2:0 of the first opcode byte, then the ModR/M byte. iced does not keep the latter; it is rebuilt from the
/// operands. (An encoder's choice between equivalent encodings, such as a needless SIB byte, is lost.)
pub(super) fn opcode(insn: &Instruction) -> u16 {
    let info = insn.code().op_code();
    let code = info.op_code() as u16;
    if !insn.op_kinds().any(|kind| kind == OpKind::Memory) {
        let i = insn.op_kinds().enumerate().find_map(|(n, kind)| {
            let register = insn.op_register(n as u32);
            let encoded = kind == OpKind::Register && register.is_st();
            // Two-operand forms name ST(0) as well; ST(i) is the other, or ST(0) itself.
            (encoded && register != Register::ST0).then(|| register.number() as u16)
        });
        return (code | i.unwrap_or(0)) & FOP;
    }
    let reg = (info.group_index().max(0) as u16) << 3;
    ((code & 7) << 8) | modrm_address(insn) | reg
}

/// Mod and R/M of a memory operand (SDM Vol. 2A, tables 2-1 and 2-2).
fn modrm_address(insn: &Instruction) -> u16 {
    let (base, index) = (insn.memory_base(), insn.memory_index());
    let mode = match insn.memory_displ_size() {
        _ if base == Register::None || base.is_ip() => 0,
        0 => 0,
        1 => 1,
        _ => 2u16,
    } << 6;
    let rm = match (base, index) {
        (Register::BX, Register::SI) => 0,
        (Register::BX, Register::DI) => 1,
        (Register::BP, Register::SI) => 2,
        (Register::BP, Register::DI) => 3,
        (Register::SI, _) => 4,
        (Register::DI, _) => 5,
        (Register::BP, _) => 6,
        (Register::BX, _) => 7,
        (Register::None, Register::None) => match insn.memory_displ_size() {
            2 => 6,
            4 => 5,
            _ => 4,
        },
        (base, _) if base.is_ip() => 5,
        (_, index) if index != Register::None => 4,
        (base, _) => base.number() as u16 & 7,
    };
    mode | rm
}
