//! Near transfers: CALL, RET, JMP, Jcc, LOOP, JCXZ (SDM Vol. 2A/2B).
//!
//! The operand size truncates the instruction pointer; a target outside the code segment, or not canonical in 64-bit
//! mode, is a #GP(0) of the transfer itself.

use super::stack::truncate;
use crate::operand::canonical;
use crate::state::{Cpu, slot};
use iced_x86::{ConditionCode, Instruction, OpKind};
use x86::Exception;
use x86::segment::sreg;

impl Cpu {
    /// #GP(0) unless near code at `target` may run.
    fn check_near_target(&self, target: u64) -> Result<(), Exception> {
        let ok =
            if self.mode.is_long64() { canonical(target) } else { target <= u64::from(self.segments[sreg::CS].limit) };
        if ok { Ok(()) } else { Err(Exception::GP0) }
    }

    /// Near jump to an instruction pointer that has been truncated to the operand size.
    fn jump_near(&mut self, target: u64) -> Result<(), Exception> {
        self.check_near_target(target)?;
        self.set_rip(target);
        Ok(())
    }

    fn call_near(&mut self, size: usize, target: u64) -> Result<(), Exception> {
        self.check_near_target(target)?;
        self.push(size, self.next_ip)?;
        self.set_rip(target);
        Ok(())
    }

    /// An arithmetic-flag condition.
    pub fn condition(&self, condition: ConditionCode) -> bool {
        let f = &self.lazy;
        match condition {
            ConditionCode::o => f.of(),
            ConditionCode::no => !f.of(),
            ConditionCode::b => f.cf(),
            ConditionCode::ae => !f.cf(),
            ConditionCode::e => f.zf(),
            ConditionCode::ne => !f.zf(),
            ConditionCode::be => f.cf() || f.zf(),
            ConditionCode::a => !f.cf() && !f.zf(),
            ConditionCode::s => f.sf(),
            ConditionCode::ns => !f.sf(),
            ConditionCode::p => f.pf(),
            ConditionCode::np => !f.pf(),
            ConditionCode::l => f.sf() != f.of(),
            ConditionCode::ge => f.sf() == f.of(),
            ConditionCode::le => f.zf() || f.sf() != f.of(),
            ConditionCode::g => !f.zf() && f.sf() == f.of(),
            ConditionCode::None => false,
        }
    }
}

/// Target of a relative branch from where it runs, which need not be where it was decoded.
fn relative_target(cpu: &Cpu, insn: &Instruction) -> u64 {
    let size = match insn.op0_kind() {
        OpKind::NearBranch16 => 2,
        OpKind::NearBranch32 => 4,
        _ => 8,
    };
    let displacement = insn.near_branch_target().wrapping_sub(insn.next_ip());
    truncate(cpu.next_ip.wrapping_add(displacement), size)
}

/// JMP rel
pub fn jmp_relative(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    cpu.jump_near(relative_target(cpu, insn))
}

/// JMP r/m
pub fn jmp_indirect(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    let target = cpu.read_operand(insn, 0)?;
    cpu.jump_near(target)
}

/// CALL rel
pub fn call_relative<const SIZE: usize>(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    cpu.call_near(SIZE, relative_target(cpu, insn))
}

/// CALL r/m
pub fn call_indirect<const SIZE: usize>(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    let target = cpu.read_operand(insn, 0)?;
    cpu.call_near(SIZE, target)
}

/// RET, RET imm16
pub fn ret_near<const SIZE: usize>(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    let release = if insn.op_count() == 1 { u64::from(insn.immediate16()) } else { 0 };
    let target = cpu.stack_read(0, SIZE)?;
    cpu.jump_near(target)?;
    cpu.set_sp(cpu.regs[slot::RSP as usize].wrapping_add(SIZE as u64 + release));
    Ok(())
}

/// Jcc
pub fn jcc(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    if cpu.condition(insn.condition_code()) { cpu.jump_near(relative_target(cpu, insn)) } else { Ok(()) }
}

/// Decrements the counter of `SIZE` bytes (the address size) and jumps if it is not zero and `condition` holds.
fn loop_if<const SIZE: usize>(cpu: &mut Cpu, insn: &Instruction, condition: bool) -> Result<(), Exception> {
    let rcx = cpu.regs[slot::RCX as usize];
    let count = truncate(rcx.wrapping_sub(1), SIZE);
    if count != 0 && condition {
        cpu.jump_near(relative_target(cpu, insn))?;
    }
    cpu.regs[slot::RCX as usize] = if SIZE == 2 { rcx & !0xFFFF | count } else { count };
    Ok(())
}

/// LOOP
pub fn loop_while_counting<const SIZE: usize>(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    loop_if::<SIZE>(cpu, insn, true)
}

/// LOOPE (`ZF` true), LOOPNE
pub fn loop_while_zf<const SIZE: usize, const ZF: bool>(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    let condition = cpu.lazy.zf() == ZF;
    loop_if::<SIZE>(cpu, insn, condition)
}

/// JCXZ, JECXZ, JRCXZ
pub fn jump_if_count_is_zero<const SIZE: usize>(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    if truncate(cpu.regs[slot::RCX as usize], SIZE) == 0 {
        return cpu.jump_near(relative_target(cpu, insn));
    }
    Ok(())
}
