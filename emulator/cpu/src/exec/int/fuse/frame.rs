//! What functions begin and end with: PUSHes with MOVs of registers between them, and SUB RSP; ADD RSP or a MOV and POPs, with or
//! without a RET.
//!
//! The stack is probed once for all of them. If it can't be accessed directly as a whole, the first instruction is executed
//! alone, and the op after it has a handler for the rest. How much there is, the first op says in fields that these
//! instructions have no other use for ([`Run`]).

use super::super::alu::{Add, AluR, Imm, Reg, Sub};
use super::super::branch::{self, return_to};
use super::super::mov::MovR;
use super::super::stack::{Pop, Push};
use super::super::{Fast, Size, Step, run};
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
    Push,
    /// MOV r64, r64, but into RSP.
    Move64,
    /// MOV r32, r32, but into ESP.
    Move32,
    /// SUB RSP, imm
    Sub,
    /// ADD RSP, imm
    Add,
    /// But into RSP.
    Pop,
    Ret,
}

/// [`Op::scale`] of what [`pushes`] executes.
const MOVE_64: u8 = 0;
const PUSH: u8 = 1;
const MOVE_32: u8 = 2;

impl Part {
    /// By an op that still has its own handler.
    fn of(op: &Op) -> Option<Part> {
        let is = |f: Handler| std::ptr::fn_addr_eq(op.f, f);
        let keeps_rsp = op.d != slot::RSP;
        if is(run::<Push<Reg>, Fast>) {
            Some(Part::Push)
        } else if is(run::<MovR<u64, Reg>, Fast>) && keeps_rsp {
            Some(Part::Move64)
        } else if is(run::<MovR<u32, Reg>, Fast>) && keeps_rsp {
            Some(Part::Move32)
        } else if is(run::<AluR<Sub, u64, Imm>, Fast>) && !keeps_rsp {
            Some(Part::Sub)
        } else if is(run::<AluR<Add, u64, Imm>, Fast>) && !keeps_rsp {
            Some(Part::Add)
        } else if is(run::<Pop, Fast>) && keeps_rsp {
            Some(Part::Pop)
        } else if is(branch::RET) {
            Some(Part::Ret)
        } else {
            None
        }
    }

    /// The handler of the run that this part goes on or ends with, if it can.
    fn after(self, run: SoFar) -> Option<SoFar> {
        Some(match (self, run) {
            (Part::Push | Part::Move64 | Part::Move32, SoFar::Pushes | SoFar::Move(_)) => SoFar::Pushes,
            (Part::Sub, SoFar::Pushes) => SoFar::Ended(pushes::<true>),
            (Part::Pop, SoFar::Move(pops)) => SoFar::Pops(pops),
            (Part::Pop, SoFar::Pops(_)) => run,
            (Part::Ret, SoFar::Pops([_, ret])) => SoFar::Ended(ret),
            _ => return None,
        })
    }

    /// The run that begins with this part.
    fn begins(self) -> Option<SoFar> {
        Some(match self {
            Part::Push => SoFar::Pushes,
            Part::Move64 => SoFar::Move([pops::<MovR<u64, Reg>>, pops_ret::<MovR<u64, Reg>>]),
            Part::Move32 => SoFar::Move([pops::<MovR<u32, Reg>>, pops_ret::<MovR<u32, Reg>>]),
            Part::Add => SoFar::Pops([pops::<AddRsp>, pops_ret::<AddRsp>]),
            Part::Pop => SoFar::Pops([pops::<Nothing>, pops_ret::<Nothing>]),
            Part::Sub | Part::Ret => return None,
        })
    }
}

/// What a run can be by its parts so far.
#[derive(Clone, Copy)]
enum SoFar {
    /// One MOV. If POPs follow: without and with a RET.
    Move([Handler; 2]),
    Pushes,
    /// Without and with a RET.
    Pops([Handler; 2]),
    Ended(Handler),
}

impl SoFar {
    /// That of the parts so far.
    fn handler(self) -> Handler {
        match self {
            SoFar::Move(_) | SoFar::Pushes => pushes::<false>,
            SoFar::Pops([pops, _]) => pops,
            SoFar::Ended(handler) => handler,
        }
    }
}

/// Prepares an op that still has its own handler for being part of a run.
pub fn prepare(op: &mut Op) {
    op.scale = match Part::of(op) {
        Some(Part::Push) => PUSH,
        Some(Part::Move64) => MOVE_64,
        Some(Part::Move32) => MOVE_32,
        _ => return,
    };
}

/// The runs that begin with the first of these ops, which have their own handlers and follow each other directly.
pub fn runs<'a>(ops: impl Iterator<Item = &'a Op>) -> impl Iterator<Item = Run> {
    let mut so_far = None;
    let mut quadwords = 0;
    ops.map_while(Part::of)
        .zip(1..)
        .map_while(move |(part, ops)| {
            let run = match so_far {
                None => part.begins(),
                Some(run) => part.after(run),
            }?;
            so_far = Some(run);
            quadwords += usize::from(matches!(part, Part::Push | Part::Pop | Part::Ret));
            (quadwords <= mem::Quadwords::MOST).then_some(Run { quadwords: quadwords as u8, ops, f: run.handler() })
        })
        .filter(|run| run.quadwords >= 2)
}

/// PUSH r64, and MOVs of registers between; `SUB`: and SUB RSP, imm at the end.
fn pushes<const SUB: bool>(cpu: &mut Cpu, op: At) {
    let lowest = cpu.regs[RSP].wrapping_sub(8 * u64::from(op.index & 7) + 8);
    let Some(mut stack) = cpu.fast.quadwords_for_write(lowest, op.index) else {
        return match op.scale {
            MOVE_64 => run::<MovR<u64, Reg>, Fast>(cpu, op),
            MOVE_32 => run::<MovR<u32, Reg>, Fast>(cpu, op),
            _ => run::<Push<Reg>, Fast>(cpu, op),
        };
    };
    let mut left = op.disp - i32::from(SUB);
    let mut op = op;
    while left >= 0 {
        let v = cpu.regs[op.s as usize];
        if op.scale != PUSH {
            cpu.regs[op.d as usize] = if op.scale == MOVE_64 { v } else { u64::from(v as u32) };
        } else if let Some(place) = stack.take_last() {
            place.set(v);
            // At once, because a MOV may read RSP.
            cpu.regs[RSP] = cpu.regs[RSP].wrapping_sub(8);
        }
        left -= 1;
        op = op.following();
    }
    if SUB {
        AluR::<Sub, u64, Imm>::step::<Fast>(cpu, op);
        op = op.following();
    }
    chain(cpu, op)
}

/// What may come before POPs: an instruction that accesses registers only.
trait Before: 'static {
    /// False: there is none, the run begins with a POP.
    const EXISTS: bool = true;
    /// What it adds to RSP.
    #[inline(always)]
    fn distance(_op: At) -> u64 {
        0
    }
    fn execute(cpu: &mut Cpu, op: At);
    /// Executes the first instruction of the run alone.
    fn alone(cpu: &mut Cpu, op: At);
}

struct Nothing;

impl Before for Nothing {
    const EXISTS: bool = false;
    #[inline(always)]
    fn execute(_cpu: &mut Cpu, _op: At) {}
    #[inline(always)]
    fn alone(cpu: &mut Cpu, op: At) {
        run::<Pop, Fast>(cpu, op)
    }
}

/// ADD RSP, imm
struct AddRsp;

impl Before for AddRsp {
    #[inline(always)]
    fn distance(op: At) -> u64 {
        op.imm
    }
    #[inline(always)]
    fn execute(cpu: &mut Cpu, op: At) {
        AluR::<Add, u64, Imm>::step::<Fast>(cpu, op);
    }
    #[inline(always)]
    fn alone(cpu: &mut Cpu, op: At) {
        run::<AluR<Add, u64, Imm>, Fast>(cpu, op)
    }
}

impl<S: Size> Before for MovR<S, Reg> {
    #[inline(always)]
    fn execute(cpu: &mut Cpu, op: At) {
        Self::step::<Fast>(cpu, op);
    }
    #[inline(always)]
    fn alone(cpu: &mut Cpu, op: At) {
        run::<Self, Fast>(cpu, op)
    }
}

/// POP r64.
fn pops<B: Before>(cpu: &mut Cpu, op: At) {
    let sp = cpu.regs[RSP].wrapping_add(B::distance(op));
    let Some(mut stack) = cpu.fast.quadwords_for_read(sp, op.index) else { return B::alone(cpu, op) };
    B::execute(cpu, op);
    cpu.regs[RSP] = sp.wrapping_add(8 * u64::from(op.index & 7) + 8);
    let mut op = if B::EXISTS { op.following() } else { op };
    while let Some(place) = stack.take_first() {
        cpu.regs[op.d as usize] = place.get();
        op = op.following();
    }
    chain(cpu, op)
}

/// POP r64, and RET.
fn pops_ret<B: Before>(cpu: &mut Cpu, op: At) {
    let sp = cpu.regs[RSP].wrapping_add(B::distance(op));
    let Some(mut stack) = cpu.fast.quadwords_for_read(sp, op.index) else { return B::alone(cpu, op) };
    let Some(rip) = stack.take_last() else { return B::alone(cpu, op) };
    let rip = rip.get();
    B::execute(cpu, op);
    cpu.regs[RSP] = sp.wrapping_add(8 * u64::from(op.index & 7));
    let mut op = if B::EXISTS { op.following() } else { op };
    while let Some(place) = stack.take_first() {
        cpu.regs[op.d as usize] = place.get();
        op = op.following();
    }
    return_to(cpu, op, rip)
}
