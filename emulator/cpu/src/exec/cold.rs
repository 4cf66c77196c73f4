//! Ops that execute an [`ExecFn`].

use super::int::branch::{arrive, go_on};
use super::int::{fault_exit, leave_after};
use crate::ExecFn;
use crate::exec::system::unknown::Unknown;
use crate::op::{At, next};
use crate::state::Cpu;
use iced_x86::Instruction;
use x86::{Exception, flags};

/// What an [`ExecFn`] left to do.
#[derive(PartialEq, Eq)]
enum After {
    Next,
    Leave,
    Transfer,
    Fault,
}

/// Executes the instruction and goes on with the next op, unless it faulted, transferred control or needs the run loop.
pub fn cold(cpu: &mut Cpu, op: At) {
    match exec(cpu, op) {
        After::Next => next(cpu, op),
        After::Leave => leave_after(cpu, op),
        After::Transfer => transferred(cpu, op),
        After::Fault => fault_exit(cpu, op),
    }
}

/// The same for instructions that end a block: on to the next one, unless what they changed is the run loop's to judge.
pub fn cold_end(cpu: &mut Cpu, op: At) {
    match exec(cpu, op) {
        After::Next if !needs_loop(cpu) => go_on(cpu, op),
        After::Next | After::Leave => leave_after(cpu, op),
        After::Transfer if cpu.repeating == 0 && !cpu.interrupt_shadow && !needs_loop(cpu) => arrive(cpu),
        After::Transfer => transferred(cpu, op),
        After::Fault => fault_exit(cpu, op),
    }
}

/// The same for instructions that reach the board, change what it may do, or let time pass: back to the run loop.
pub fn cold_attend(cpu: &mut Cpu, op: At) {
    cpu.attention = true;
    match exec(cpu, op) {
        After::Next | After::Leave => leave_after(cpu, op),
        After::Transfer => transferred(cpu, op),
        After::Fault => fault_exit(cpu, op),
    }
}

/// True if the run loop has to look before the next instruction: an event waits, which may have become deliverable; the
/// next instruction is a single step; RF, which lasts for one instruction, is to be cleared; or the mode is one whose
/// blocks are entered by the loop alone.
#[inline(always)]
pub fn needs_loop(cpu: &Cpu) -> bool {
    let flagged = cpu.rflags_system & (flags::TF | flags::RF) != 0;
    cpu.attention || cpu.leave_block || cpu.event_waits || flagged || !cpu.mode.is_long64()
}

/// An instruction without operands that knows nothing of where it is. A fault changes nothing.
pub trait Direct: 'static {
    fn execute(cpu: &mut Cpu) -> Result<(), Exception>;
}

/// [`cold`], for an instruction that needs less. A fault is the [`ExecFn`]'s.
pub fn direct<D: Direct>(cpu: &mut Cpu, op: At) {
    if D::execute(cpu).is_err() {
        return cold(cpu, op);
    }
    next(cpu, op)
}

/// [`cold_end`], for an instruction that needs less. A fault is the [`ExecFn`]'s.
pub fn direct_end<D: Direct>(cpu: &mut Cpu, op: At) {
    if needs_loop(cpu) || D::execute(cpu).is_err() {
        return cold_end(cpu, op);
    }
    go_on(cpu, op)
}

/// The instruction set RIP: [`Cpu::next_ip`] stands.
#[cold]
#[inline(never)]
fn transferred(cpu: &mut Cpu, op: At) {
    cpu.budget += i64::from(op.rest);
    cpu.unretired = 0;
}

#[inline(never)]
fn exec(cpu: &mut Cpu, op: At) -> After {
    cpu.ip = op.ip(cpu);
    cpu.next_ip = op.next_ip(cpu);
    if cpu.mode.bitness() < 64 {
        cpu.next_ip &= 0xFFFF_FFFF;
    }
    let sequential = cpu.next_ip;
    cpu.at_op(op);
    let (f, insn) = cpu.blocks.cold[op.imm as usize];
    match f(cpu, &insn) {
        Ok(()) if cpu.next_ip != sequential => {
            if cpu.next_ip == cpu.ip && insn.is_string_instruction() {
                cpu.repeating = op.len;
            }
            After::Transfer
        }
        Ok(()) if cpu.leave_block => After::Leave,
        Ok(()) => After::Next,
        Err(e) => {
            cpu.fault = Some(e);
            After::Fault
        }
    }
}

/// #UD, for encodings that are invalid or not implemented.
pub fn undefined(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    cpu.log_unknown(Unknown::Instruction(insn.code()));
    Err(Exception::UD)
}

/// The semantics of an instruction that has no handler of its own.
pub fn lookup(insn: &Instruction) -> Option<ExecFn> {
    super::lookup(insn.code())
}
