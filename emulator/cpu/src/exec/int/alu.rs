//! ADD, OR, ADC, SBB, AND, SUB, XOR, CMP, TEST; INC, DEC, NEG, NOT (SDM Vol. 2A, 2B).

use super::{Addr, Fast, Policy, Size, Step, by_addr, by_size, run};
use crate::lazy::Lazy;
use crate::op::{At, Handler};
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
    /// True if it is part of the instruction.
    const IMMEDIATE: bool = false;
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
    const IMMEDIATE: bool = true;
    #[inline(always)]
    fn get<S: Size>(_cpu: &Cpu, op: At) -> S {
        S::from_u64(op.imm)
    }
}

/// `op reg, reg|imm`
pub struct AluR<O, S, X>(PhantomData<(O, S, X)>);

impl<O: Alu, S: Size, X: Src> Step for AluR<O, S, X> {
    #[inline(always)]
    fn step<P: Policy>(cpu: &mut Cpu, op: At) -> bool {
        let (a, b) = (S::reg(cpu, op.d), X::get::<S>(cpu, op));
        let r = O::exec(&mut cpu.lazy, a, b);
        if O::WRITES {
            S::set_reg(cpu, op.d, r);
        }
        true
    }
}

/// `op reg, mem`
pub struct AluRM<O, S, A>(PhantomData<(O, S, A)>);

impl<O: Alu, S: Size, A: Addr> Step for AluRM<O, S, A> {
    const MEMORY: bool = true;
    #[inline(always)]
    fn step<P: Policy>(cpu: &mut Cpu, op: At) -> bool {
        let va = A::ea(cpu, op);
        let Some(b) = P::load::<S>(cpu, va, op) else { return false };
        let a = S::reg(cpu, op.d);
        let r = O::exec(&mut cpu.lazy, a, b);
        if O::WRITES {
            S::set_reg(cpu, op.d, r);
        }
        true
    }
}

/// `op mem, reg|imm`
pub struct AluM<O, S, X, A>(PhantomData<(O, S, X, A)>);

impl<O: Alu, S: Size, X: Src, A: Addr> Step for AluM<O, S, X, A> {
    const MEMORY: bool = true;
    #[inline(always)]
    fn step<P: Policy>(cpu: &mut Cpu, op: At) -> bool {
        let va = A::ea(cpu, op);
        if O::WRITES {
            let Some(p) = P::place::<S>(cpu, va, op) else { return false };
            let a = P::get(cpu, &p);
            let b = X::get::<S>(cpu, op);
            let r = O::exec(&mut cpu.lazy, a, b);
            P::put(cpu, p, r);
        } else {
            let Some(a) = P::load::<S>(cpu, va, op) else { return false };
            let b = X::get::<S>(cpu, op);
            O::exec(&mut cpu.lazy, a, b);
        }
        true
    }
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

pub struct UnaryR<O, S>(PhantomData<(O, S)>);

impl<O: Unary, S: Size> Step for UnaryR<O, S> {
    #[inline(always)]
    fn step<P: Policy>(cpu: &mut Cpu, op: At) -> bool {
        let a = S::reg(cpu, op.d);
        let r = O::exec(&mut cpu.lazy, a);
        S::set_reg(cpu, op.d, r);
        true
    }
}

pub struct UnaryM<O, S, A>(PhantomData<(O, S, A)>);

impl<O: Unary, S: Size, A: Addr> Step for UnaryM<O, S, A> {
    const MEMORY: bool = true;
    #[inline(always)]
    fn step<P: Policy>(cpu: &mut Cpu, op: At) -> bool {
        let va = A::ea(cpu, op);
        let Some(p) = P::place::<S>(cpu, va, op) else { return false };
        let a = P::get(cpu, &p);
        let r = O::exec(&mut cpu.lazy, a);
        P::put(cpu, p, r);
        true
    }
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
            Form::RegReg => run::<AluR<O, S, Reg>, Fast>,
            Form::RegImm => run::<AluR<O, S, Imm>, Fast>,
            Form::RegMem => by_addr!(full, AluRM, [O, S]),
            Form::MemReg => by_addr!(full, AluM, [O, S, Reg]),
            Form::MemImm => by_addr!(full, AluM, [O, S, Imm]),
        })
    }
}

/// Handler of a one-operand instruction; `memory`: the operand's form.
pub fn unary_handler<O: Unary>(memory: bool, size: usize, full: bool) -> Handler {
    by_size!(size, |S| if memory { by_addr!(full, UnaryM, [O, S]) } else { run::<UnaryR<O, S>, Fast> })
}
