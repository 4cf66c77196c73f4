//! PUSH, PUSHF, POP and LEAVE with 64-bit operands in 64-bit mode. Other forms are in `exec::legacy`.

use super::alu::{Imm, Reg, Src};
use super::{Addr, Base, Fast, Full, Policy, Size, Step, run};
use crate::op::{At, Handler};
use crate::state::{Cpu, slot};
use std::marker::PhantomData;

const RSP: usize = slot::RSP as usize;

/// PUSH r64 or imm, PUSHFQ. PUSH RSP stores the old value.
pub struct Push<X>(PhantomData<X>);

impl<X: Src> Step for Push<X> {
    const MEMORY: bool = true;
    #[inline(always)]
    fn step<P: Policy>(cpu: &mut Cpu, op: At) -> bool {
        let v = X::get::<u64>(cpu, op);
        let va = cpu.regs[RSP].wrapping_sub(8);
        if !P::store::<u64>(cpu, va, v, op) {
            return false;
        }
        cpu.regs[RSP] = va;
        true
    }
}

/// PUSH m64. The address is formed with the old RSP.
pub struct PushM;

impl Step for PushM {
    const MEMORY: bool = true;
    #[inline(always)]
    fn step<P: Policy>(cpu: &mut Cpu, op: At) -> bool {
        let va = Full::ea(cpu, op);
        let Some(v) = P::load::<u64>(cpu, va, op) else { return false };
        let sp = cpu.regs[RSP].wrapping_sub(8);
        if !P::store_stack::<u64>(cpu, sp, v, op) {
            return false;
        }
        cpu.regs[RSP] = sp;
        true
    }
}

/// What PUSHFQ pushes.
pub struct Rflags;

impl Src for Rflags {
    #[inline(always)]
    fn get<S: Size>(cpu: &Cpu, _op: At) -> S {
        S::from_u64(cpu.rflags_to_push())
    }
}

/// POP r64. POP RSP loads the value.
pub struct Pop;

impl Step for Pop {
    const MEMORY: bool = true;
    #[inline(always)]
    fn step<P: Policy>(cpu: &mut Cpu, op: At) -> bool {
        let sp = cpu.regs[RSP];
        let Some(v) = P::load::<u64>(cpu, sp, op) else { return false };
        cpu.regs[RSP] = sp.wrapping_add(8);
        cpu.regs[op.d as usize] = v;
        true
    }
}

/// LEAVE: RSP = RBP, then POP RBP.
pub struct Leave;

impl Step for Leave {
    const MEMORY: bool = true;
    #[inline(always)]
    fn step<P: Policy>(cpu: &mut Cpu, op: At) -> bool {
        let va = Base::ea(cpu, op);
        let Some(v) = P::load::<u64>(cpu, va, op) else { return false };
        cpu.regs[RSP] = va.wrapping_add(8);
        cpu.regs[slot::RBP as usize] = v;
        true
    }
}

pub const PUSH_R: Handler = run::<Push<Reg>, Fast>;
pub const PUSH_I: Handler = run::<Push<Imm>, Fast>;
pub const PUSH_M: Handler = run::<PushM, Fast>;
pub const PUSH_F: Handler = run::<Push<Rflags>, Fast>;
pub const POP_R: Handler = run::<Pop, Fast>;
/// The op's address is RBP + 0 in SS.
pub const LEAVE: Handler = run::<Leave, Fast>;
