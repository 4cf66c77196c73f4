//! CMPXCHG, XADD and XCHG with a memory operand (SDM Vol. 2A, 2D): what locks and reference counts are made of. Register
//! forms are in `exec::general`; CMPXCHG8B and CMPXCHG16B too.

use super::alu::{Add, Alu, Sub};
use super::{Addr, Policy, Size, Step, by_addr, by_size};
use crate::op::{At, Handler};
use crate::state::{Cpu, slot};
use std::marker::PhantomData;

/// What an instruction stores for the value it found; it changes registers and flags by the way.
pub trait Exchange: 'static {
    fn exchange<S: Size>(cpu: &mut Cpu, op: At, old: S) -> S;
}

/// The destination is written in either case, the accumulator only if the comparison failed.
pub struct Cmpxchg;
pub struct Xadd;
pub struct Xchg;

impl Exchange for Cmpxchg {
    #[inline(always)]
    fn exchange<S: Size>(cpu: &mut Cpu, op: At, old: S) -> S {
        let expected = S::reg(cpu, slot::RAX);
        Sub::exec(&mut cpu.lazy, expected, old);
        if old == expected {
            return S::reg(cpu, op.s);
        }
        S::set_reg(cpu, slot::RAX, old);
        old
    }
}

impl Exchange for Xadd {
    #[inline(always)]
    fn exchange<S: Size>(cpu: &mut Cpu, op: At, old: S) -> S {
        let addend = S::reg(cpu, op.s);
        let sum = Add::exec(&mut cpu.lazy, old, addend);
        S::set_reg(cpu, op.s, old);
        sum
    }
}

impl Exchange for Xchg {
    #[inline(always)]
    fn exchange<S: Size>(cpu: &mut Cpu, op: At, old: S) -> S {
        let new = S::reg(cpu, op.s);
        S::set_reg(cpu, op.s, old);
        new
    }
}

/// `op mem, reg`
pub struct ExchangeM<O, S, A>(PhantomData<(O, S, A)>);

pub type CmpxchgM<S, A> = ExchangeM<Cmpxchg, S, A>;
pub type XaddM<S, A> = ExchangeM<Xadd, S, A>;
pub type XchgM<S, A> = ExchangeM<Xchg, S, A>;

impl<O: Exchange, S: Size, A: Addr> Step for ExchangeM<O, S, A> {
    const MEMORY: bool = true;
    #[inline(always)]
    fn step<P: Policy>(cpu: &mut Cpu, op: At) -> bool {
        let va = A::ea(cpu, op);
        let Some(p) = P::place::<S>(cpu, va, op) else { return false };
        let old = P::get(cpu, &p);
        let new = O::exchange(cpu, op, old);
        P::put(cpu, p, new);
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
