//! CMPXCHG, XADD and XCHG with a memory operand (SDM Vol. 2A, 2D): what locks and reference counts are made of. Register
//! forms are in `exec::general`; CMPXCHG8B and CMPXCHG16B too.

use super::alu::{Add, Alu, Sub};
use super::{Addr, Policy, Size, Step, by_addr, by_size};
use crate::op::{At, Handler};
use crate::state::{Cpu, slot};
use std::marker::PhantomData;

/// CMPXCHG m, r: the destination is written in either case, the accumulator only if the comparison failed.
pub struct CmpxchgM<S, A>(PhantomData<(S, A)>);

impl<S: Size, A: Addr> Step for CmpxchgM<S, A> {
    const MEMORY: bool = true;
    #[inline(always)]
    fn step<P: Policy>(cpu: &mut Cpu, op: At) -> bool {
        let va = A::ea(cpu, op);
        let Some(p) = P::place::<S>(cpu, va, op) else { return false };
        let old = P::get(cpu, &p);
        let expected = S::reg(cpu, slot::RAX);
        Sub::exec(&mut cpu.lazy, expected, old);
        if old == expected {
            let new = S::reg(cpu, op.s);
            P::put(cpu, p, new);
        } else {
            P::put(cpu, p, old);
            S::set_reg(cpu, slot::RAX, old);
        }
        true
    }
}

/// XADD m, r
pub struct XaddM<S, A>(PhantomData<(S, A)>);

impl<S: Size, A: Addr> Step for XaddM<S, A> {
    const MEMORY: bool = true;
    #[inline(always)]
    fn step<P: Policy>(cpu: &mut Cpu, op: At) -> bool {
        let va = A::ea(cpu, op);
        let Some(p) = P::place::<S>(cpu, va, op) else { return false };
        let old = P::get(cpu, &p);
        let addend = S::reg(cpu, op.s);
        let sum = Add::exec(&mut cpu.lazy, old, addend);
        P::put(cpu, p, sum);
        S::set_reg(cpu, op.s, old);
        true
    }
}

/// XCHG m, r
pub struct XchgM<S, A>(PhantomData<(S, A)>);

impl<S: Size, A: Addr> Step for XchgM<S, A> {
    const MEMORY: bool = true;
    #[inline(always)]
    fn step<P: Policy>(cpu: &mut Cpu, op: At) -> bool {
        let va = A::ea(cpu, op);
        let Some(p) = P::place::<S>(cpu, va, op) else { return false };
        let old = P::get(cpu, &p);
        let new = S::reg(cpu, op.s);
        P::put(cpu, p, new);
        S::set_reg(cpu, op.s, old);
        true
    }
}

/// `size` in bytes; `full`: the address needs [`super::Full`].
pub fn cmpxchg_handler(size: usize, full: bool) -> Handler {
    by_size!(size, |S| by_addr!(full, CmpxchgM, [S]))
}

/// As [`cmpxchg_handler`].
pub fn xadd_handler(size: usize, full: bool) -> Handler {
    by_size!(size, |S| by_addr!(full, XaddM, [S]))
}

/// As [`cmpxchg_handler`].
pub fn xchg_handler(size: usize, full: bool) -> Handler {
    by_size!(size, |S| by_addr!(full, XchgM, [S]))
}
