//! ADD, OR, ADC, SBB, AND, SUB, XOR, CMP, TEST; INC, DEC, NEG, NOT (SDM Vol. 2A, 2B).

use super::{Addr, Policy, Size, Slow, by_addr, by_size};
use crate::lazy::Lazy;
use crate::op::{At, Handler, next};
use crate::state::Cpu;
use std::marker::PhantomData;

/// A two-operand operation.
pub trait Alu: 'static {
    /// False for CMP and TEST.
    const WRITES: bool;
    fn exec<S: Size>(lazy: &mut Lazy, a: S, b: S) -> S;
}

pub struct Add;
pub struct Or;
pub struct Adc;
pub struct Sbb;
pub struct And;
pub struct Sub;
pub struct Xor;
pub struct Cmp;
pub struct Test;

#[inline(always)]
fn set_arith<S: Size>(lazy: &mut Lazy, a: S, b: S, r: S, carry: bool) {
    *lazy = Lazy { res: r.sx(), x: a.sx() ^ b.sx() ^ r.sx(), c: u64::from(carry) };
}

impl Alu for Add {
    const WRITES: bool = true;
    #[inline(always)]
    fn exec<S: Size>(lazy: &mut Lazy, a: S, b: S) -> S {
        let (r, c) = a.add(b);
        set_arith(lazy, a, b, r, c);
        r
    }
}

impl Alu for Adc {
    const WRITES: bool = true;
    #[inline(always)]
    fn exec<S: Size>(lazy: &mut Lazy, a: S, b: S) -> S {
        let (r, c1) = a.add(b);
        let (r, c2) = r.add(S::from_u64(lazy.c & 1));
        set_arith(lazy, a, b, r, c1 | c2);
        r
    }
}

impl Alu for Sub {
    const WRITES: bool = true;
    #[inline(always)]
    fn exec<S: Size>(lazy: &mut Lazy, a: S, b: S) -> S {
        let (r, c) = a.sub(b);
        set_arith(lazy, a, b, r, c);
        r
    }
}

impl Alu for Sbb {
    const WRITES: bool = true;
    #[inline(always)]
    fn exec<S: Size>(lazy: &mut Lazy, a: S, b: S) -> S {
        let (r, c1) = a.sub(b);
        let (r, c2) = r.sub(S::from_u64(lazy.c & 1));
        set_arith(lazy, a, b, r, c1 | c2);
        r
    }
}

impl Alu for Cmp {
    const WRITES: bool = false;
    #[inline(always)]
    fn exec<S: Size>(lazy: &mut Lazy, a: S, b: S) -> S {
        Sub::exec(lazy, a, b)
    }
}

macro_rules! logic {
    ($t:ident, $writes:expr, |$a:ident, $b:ident| $e:expr) => {
        impl Alu for $t {
            const WRITES: bool = $writes;
            #[inline(always)]
            fn exec<S: Size>(lazy: &mut Lazy, a: S, b: S) -> S {
                let ($a, $b) = (a.to_u64(), b.to_u64());
                let r = S::from_u64($e);
                lazy.set_logic(r.sx());
                r
            }
        }
    };
}

logic!(And, true, |a, b| a & b);
logic!(Or, true, |a, b| a | b);
logic!(Xor, true, |a, b| a ^ b);
logic!(Test, false, |a, b| a & b);

/// Where the second operand comes from when it is not in memory.
pub trait Src: 'static {
    fn get<S: Size>(cpu: &Cpu, op: At) -> S;
}

/// Register [`crate::op::Op::s`].
pub struct Reg;
/// [`crate::op::Op::imm`].
pub struct Imm;

impl Src for Reg {
    #[inline(always)]
    fn get<S: Size>(cpu: &Cpu, op: At) -> S {
        S::reg(cpu, op.s)
    }
}

impl Src for Imm {
    #[inline(always)]
    fn get<S: Size>(_cpu: &Cpu, op: At) -> S {
        S::from_u64(op.imm)
    }
}

/// `op reg, reg|imm`
fn alu_r<O: Alu, S: Size, X: Src>(cpu: &mut Cpu, op: At) {
    let (a, b) = (S::reg(cpu, op.d), X::get::<S>(cpu, op));
    let r = O::exec(&mut cpu.lazy, a, b);
    if O::WRITES {
        S::set_reg(cpu, op.d, r);
    }
    next(cpu, op)
}

/// `op reg, mem`
fn alu_r_m<O: Alu, S: Size, A: Addr, P: Policy>(cpu: &mut Cpu, op: At) {
    let va = A::ea(cpu, op);
    let Some(b) = P::load::<S>(cpu, va, op) else { return P::miss(cpu, op, alu_r_m::<O, S, A, Slow>) };
    let a = S::reg(cpu, op.d);
    let r = O::exec(&mut cpu.lazy, a, b);
    if O::WRITES {
        S::set_reg(cpu, op.d, r);
    }
    P::done(cpu, op)
}

/// `op mem, reg|imm`
fn alu_m<O: Alu, S: Size, X: Src, A: Addr, P: Policy>(cpu: &mut Cpu, op: At) {
    let va = A::ea(cpu, op);
    if O::WRITES {
        let Some(p) = P::place::<S>(cpu, va, op) else { return P::miss(cpu, op, alu_m::<O, S, X, A, Slow>) };
        let a = P::get(cpu, &p);
        let b = X::get::<S>(cpu, op);
        let r = O::exec(&mut cpu.lazy, a, b);
        P::put(cpu, p, r);
    } else {
        let Some(a) = P::load::<S>(cpu, va, op) else { return P::miss(cpu, op, alu_m::<O, S, X, A, Slow>) };
        let b = X::get::<S>(cpu, op);
        O::exec(&mut cpu.lazy, a, b);
    }
    P::done(cpu, op)
}

/// A one-operand operation.
pub trait Unary: 'static {
    fn exec<S: Size>(lazy: &mut Lazy, a: S) -> S;
}

pub struct Inc;
pub struct Dec;
pub struct Neg;
pub struct Not;

/// INC and DEC keep CF; OF is CF ^ x[63], so x[63] is turned with it.
#[inline(always)]
fn keep_cf(lazy: &mut Lazy, old: u64) {
    lazy.x ^= (lazy.c ^ old) << 63;
    lazy.c = old & 1;
}

impl Unary for Inc {
    #[inline(always)]
    fn exec<S: Size>(lazy: &mut Lazy, a: S) -> S {
        let old = lazy.c;
        let r = Add::exec(lazy, a, S::from_u64(1));
        keep_cf(lazy, old);
        r
    }
}

impl Unary for Dec {
    #[inline(always)]
    fn exec<S: Size>(lazy: &mut Lazy, a: S) -> S {
        let old = lazy.c;
        let r = Sub::exec(lazy, a, S::from_u64(1));
        keep_cf(lazy, old);
        r
    }
}

impl Unary for Neg {
    #[inline(always)]
    fn exec<S: Size>(lazy: &mut Lazy, a: S) -> S {
        Sub::exec(lazy, S::from_u64(0), a)
    }
}

impl Unary for Not {
    #[inline(always)]
    fn exec<S: Size>(_lazy: &mut Lazy, a: S) -> S {
        S::from_u64(!a.to_u64())
    }
}

fn unary_r<O: Unary, S: Size>(cpu: &mut Cpu, op: At) {
    let a = S::reg(cpu, op.d);
    let r = O::exec(&mut cpu.lazy, a);
    S::set_reg(cpu, op.d, r);
    next(cpu, op)
}

fn unary_m<O: Unary, S: Size, A: Addr, P: Policy>(cpu: &mut Cpu, op: At) {
    let va = A::ea(cpu, op);
    let Some(p) = P::place::<S>(cpu, va, op) else { return P::miss(cpu, op, unary_m::<O, S, A, Slow>) };
    let a = P::get(cpu, &p);
    let r = O::exec(&mut cpu.lazy, a);
    P::put(cpu, p, r);
    P::done(cpu, op)
}

/// Operand forms of two-operand instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    RegReg,
    RegImm,
    RegMem,
    MemReg,
    MemImm,
}

/// The handlers of one operation.
pub struct Handlers<O>(PhantomData<O>);

impl<O: Alu> Handlers<O> {
    /// `size` in bytes; `full`: the address needs [`super::Full`].
    pub fn alu(form: Form, size: usize, full: bool) -> Handler {
        by_size!(size, |S| match form {
            Form::RegReg => alu_r::<O, S, Reg>,
            Form::RegImm => alu_r::<O, S, Imm>,
            Form::RegMem => by_addr!(full, alu_r_m, [O, S]),
            Form::MemReg => by_addr!(full, alu_m, [O, S, Reg]),
            Form::MemImm => by_addr!(full, alu_m, [O, S, Imm]),
        })
    }
}

/// Handler of a one-operand instruction; `memory`: the operand's form.
pub fn unary_handler<O: Unary>(memory: bool, size: usize, full: bool) -> Handler {
    by_size!(size, |S| if memory { by_addr!(full, unary_m, [O, S]) } else { unary_r::<O, S> })
}
