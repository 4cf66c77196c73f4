//! PUSH, POP and LEAVE with 64-bit operands in 64-bit mode. Other forms are in `exec::legacy`.

use super::alu::{Imm, Reg, Src};
use super::{Addr, Base, Fast, Full, Policy, Slow};
use crate::op::{At, Handler};
use crate::state::{Cpu, slot};

const RSP: usize = slot::RSP as usize;

/// PUSH r64 or imm. PUSH RSP stores the old value.
fn push<X: Src, P: Policy>(cpu: &mut Cpu, op: At) {
    let v = X::get::<u64>(cpu, op);
    let va = cpu.regs[RSP].wrapping_sub(8);
    if !P::store::<u64>(cpu, va, v, op) {
        return P::miss(cpu, op, push::<X, Slow>);
    }
    cpu.regs[RSP] = va;
    P::done(cpu, op)
}

/// PUSH m64. The address is formed with the old RSP.
fn push_m<P: Policy>(cpu: &mut Cpu, op: At) {
    let va = Full::ea(cpu, op);
    let Some(v) = P::load::<u64>(cpu, va, op) else { return P::miss(cpu, op, push_m::<Slow>) };
    let sp = cpu.regs[RSP].wrapping_sub(8);
    if !P::store_stack::<u64>(cpu, sp, v, op) {
        return P::miss(cpu, op, push_m::<Slow>);
    }
    cpu.regs[RSP] = sp;
    P::done(cpu, op)
}

/// POP r64. POP RSP loads the value.
fn pop<P: Policy>(cpu: &mut Cpu, op: At) {
    let sp = cpu.regs[RSP];
    let Some(v) = P::load::<u64>(cpu, sp, op) else { return P::miss(cpu, op, pop::<Slow>) };
    cpu.regs[RSP] = sp.wrapping_add(8);
    cpu.regs[op.d as usize] = v;
    P::done(cpu, op)
}

/// LEAVE: RSP = RBP, then POP RBP.
fn leave<P: Policy>(cpu: &mut Cpu, op: At) {
    let va = Base::ea(cpu, op);
    let Some(v) = P::load::<u64>(cpu, va, op) else { return P::miss(cpu, op, leave::<Slow>) };
    cpu.regs[RSP] = va.wrapping_add(8);
    cpu.regs[slot::RBP as usize] = v;
    P::done(cpu, op)
}

pub const PUSH_R: Handler = push::<Reg, Fast>;
pub const PUSH_I: Handler = push::<Imm, Fast>;
pub const PUSH_M: Handler = push_m::<Fast>;
pub const POP_R: Handler = pop::<Fast>;
/// The op's address is RBP + 0 in SS.
pub const LEAVE: Handler = leave::<Fast>;
