//! What functions begin and end with: PUSHes with MOVs of registers between them; POPs, with or without a RET.
//!
//! The stack is probed once for all of them. If it can't be accessed directly as a whole, the first instruction is executed
//! alone, and the op after it has a handler for the rest. How much there is, the first op says in fields that these
//! instructions have no other use for ([`Run`]).

use super::super::alu::Reg;
use super::super::branch::{self, return_to};
use super::super::mov::MovR;
use super::super::stack::{Pop, Push};
use super::super::{Fast, run};
use crate::op::{At, Handler, Op, chain};
use crate::state::{Cpu, slot};

const RSP: usize = slot::RSP as usize;

/// What a handler of this module executes, from its first op on.
#[derive(Clone, Copy)]
pub struct Run {
    /// Quadwords, one to [`mem::Quadwords::MOST`]: in [`Op::index`], less one.
    quadwords: u8,
    /// Ops: in [`Op::disp`], less one.
    pub ops: usize,
    f: Handler,
}

impl Run {
    /// Gives the first op the handler of the run.
    pub fn put_into(self, op: &mut Op) {
        op.f = self.f;
        op.index = self.quadwords - 1;
        op.disp = self.ops as i32 - 1;
    }
}

/// What an op can be in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// [`Op::scale`] is 1.
    Push,
    /// MOV r64, r64, but into RSP. [`Op::scale`] is 0.
    Move,
    /// But into RSP.
    Pop,
    Ret,
}

impl Part {
    /// By an op that still has its own handler.
    fn of(op: &Op) -> Option<Part> {
        let is = |f: Handler| std::ptr::fn_addr_eq(op.f, f);
        let keeps_rsp = op.d != slot::RSP;
        if is(run::<Push<Reg>, Fast>) {
            Some(Part::Push)
        } else if is(run::<MovR<u64, Reg>, Fast>) && keeps_rsp {
            Some(Part::Move)
        } else if is(run::<Pop, Fast>) && keeps_rsp {
            Some(Part::Pop)
        } else if is(branch::RET) {
            Some(Part::Ret)
        } else {
            None
        }
    }
}

/// Prepares an op that still has its own handler for being part of a run.
pub fn prepare(op: &mut Op) {
    if Part::of(op) == Some(Part::Push) {
        op.scale = 1;
    }
}

/// The runs that begin with the first of these ops, which have their own handlers and follow each other directly.
pub fn runs<'a>(ops: impl Iterator<Item = &'a Op>) -> impl Iterator<Item = Run> {
    let mut begins_with = None;
    let mut ended = false;
    let mut quadwords = 0;
    ops.map_while(Part::of)
        .zip(1..)
        .map_while(move |(part, ops)| {
            let f: Handler = match (*begins_with.get_or_insert(part), part) {
                _ if ended => return None,
                (Part::Push | Part::Move, Part::Push | Part::Move) => pushes,
                (Part::Pop, Part::Pop) => pops,
                (Part::Pop, Part::Ret) => pops_ret,
                _ => return None,
            };
            ended = part == Part::Ret;
            quadwords += usize::from(part != Part::Move);
            (quadwords <= mem::Quadwords::MOST).then_some(Run { quadwords: quadwords as u8, ops, f })
        })
        .filter(|run| run.quadwords >= 2)
}

/// PUSH r64, and MOV r64, r64 between.
fn pushes(cpu: &mut Cpu, op: At) {
    let lowest = cpu.regs[RSP].wrapping_sub(8 * u64::from(op.index & 7) + 8);
    let Some(mut stack) = cpu.fast.quadwords_for_write(lowest, op.index) else {
        return if op.scale == 0 { run::<MovR<u64, Reg>, Fast>(cpu, op) } else { run::<Push<Reg>, Fast>(cpu, op) };
    };
    let mut left = op.disp;
    let mut op = op;
    while left >= 0 {
        let v = cpu.regs[op.s as usize];
        if op.scale == 0 {
            cpu.regs[op.d as usize] = v;
        } else if let Some(place) = stack.take_last() {
            place.set(v);
            // At once, because a MOV may read RSP.
            cpu.regs[RSP] = cpu.regs[RSP].wrapping_sub(8);
        }
        left -= 1;
        op = op.following();
    }
    chain(cpu, op)
}

/// POP r64.
fn pops(cpu: &mut Cpu, op: At) {
    let sp = cpu.regs[RSP];
    let Some(mut stack) = cpu.fast.quadwords_for_read(sp, op.index) else { return run::<Pop, Fast>(cpu, op) };
    cpu.regs[RSP] = sp.wrapping_add(8 * u64::from(op.index & 7) + 8);
    let mut op = op;
    while let Some(place) = stack.take_first() {
        cpu.regs[op.d as usize] = place.get();
        op = op.following();
    }
    chain(cpu, op)
}

/// POP r64, and RET.
fn pops_ret(cpu: &mut Cpu, op: At) {
    let sp = cpu.regs[RSP];
    let Some(mut stack) = cpu.fast.quadwords_for_read(sp, op.index) else { return run::<Pop, Fast>(cpu, op) };
    let Some(rip) = stack.take_last() else { return run::<Pop, Fast>(cpu, op) };
    let rip = rip.get();
    cpu.regs[RSP] = sp.wrapping_add(8 * u64::from(op.index & 7));
    let mut op = op;
    while let Some(place) = stack.take_first() {
        cpu.regs[op.d as usize] = place.get();
        op = op.following();
    }
    return_to(cpu, op, rip)
}
