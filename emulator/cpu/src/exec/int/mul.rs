//! MUL and IMUL (SDM Vol. 2A, 2B). CF = OF = "the high half is significant"; SF, ZF, AF, PF are undefined: SF and PF
//! follow the low half, ZF and AF are clear.

use super::{Addr, Fast, Policy, Size, Step, by_addr, run};
use crate::lazy::Lazy;
use crate::op::{At, Handler};
use crate::state::{Cpu, slot};
use std::marker::PhantomData;

#[inline(always)]
fn set_flags(lazy: &mut Lazy, low_sx: u64, overflow: bool) {
    // A zero result would read as ZF = 1; the value below has the same sign and parity.
    let res = if low_sx == 0 { 1 << 62 } else { low_sx };
    *lazy = Lazy { res, x: 0, c: u64::from(overflow) };
}

/// `dest = a * b`, truncated, signed overflow in CF and OF.
#[inline(always)]
fn imul<S: Size>(lazy: &mut Lazy, a: S, b: S) -> S {
    let (r, overflow) = if S::BITS == 64 {
        let (r, o) = (a.to_u64() as i64).overflowing_mul(b.to_u64() as i64);
        (r as u64, o)
    } else {
        let r = (a.sx() as i64).wrapping_mul(b.sx() as i64) as u64;
        (r, S::from_u64(r).sx() != r)
    };
    let r = S::from_u64(r);
    set_flags(lazy, r.sx(), overflow);
    r
}

/// IMUL r, r
pub struct ImulRR<S>(PhantomData<S>);

impl<S: Size> Step for ImulRR<S> {
    #[inline(always)]
    fn step<P: Policy>(cpu: &mut Cpu, op: At) -> bool {
        let (a, b) = (S::reg(cpu, op.d), S::reg(cpu, op.s));
        let r = imul(&mut cpu.lazy, a, b);
        S::set_reg(cpu, op.d, r);
        true
    }
}

/// IMUL r, m
pub struct ImulRM<S, A>(PhantomData<(S, A)>);

impl<S: Size, A: Addr> Step for ImulRM<S, A> {
    const MEMORY: bool = true;
    #[inline(always)]
    fn step<P: Policy>(cpu: &mut Cpu, op: At) -> bool {
        let va = A::ea(cpu, op);
        let Some(b) = P::load::<S>(cpu, va, op) else { return false };
        let a = S::reg(cpu, op.d);
        let r = imul(&mut cpu.lazy, a, b);
        S::set_reg(cpu, op.d, r);
        true
    }
}

/// IMUL r, r, imm
pub struct ImulRRI<S>(PhantomData<S>);

impl<S: Size> Step for ImulRRI<S> {
    #[inline(always)]
    fn step<P: Policy>(cpu: &mut Cpu, op: At) -> bool {
        let a = S::reg(cpu, op.s);
        let r = imul(&mut cpu.lazy, a, S::from_u64(op.imm));
        S::set_reg(cpu, op.d, r);
        true
    }
}

/// IMUL r, m, imm
pub struct ImulRMI<S, A>(PhantomData<(S, A)>);

impl<S: Size, A: Addr> Step for ImulRMI<S, A> {
    const MEMORY: bool = true;
    #[inline(always)]
    fn step<P: Policy>(cpu: &mut Cpu, op: At) -> bool {
        let va = A::ea(cpu, op);
        let Some(a) = P::load::<S>(cpu, va, op) else { return false };
        let r = imul(&mut cpu.lazy, a, S::from_u64(op.imm));
        S::set_reg(cpu, op.d, r);
        true
    }
}

/// Signedness of a one-operand multiplication.
pub trait Wide: 'static {
    const SIGNED: bool;
}

/// MUL
pub struct Unsigned;
/// IMUL with one operand
pub struct Signed;

impl Wide for Unsigned {
    const SIGNED: bool = false;
}

impl Wide for Signed {
    const SIGNED: bool = true;
}

/// rDX:rAX = rAX * v (AX = AL * v for bytes).
#[inline(always)]
fn wide<W: Wide, S: Size>(cpu: &mut Cpu, v: S) {
    let a = S::reg(cpu, slot::RAX);
    let (low, high) = match (S::BITS, W::SIGNED) {
        (64, false) => {
            let r = u128::from(a.to_u64()) * u128::from(v.to_u64());
            (r as u64, (r >> 64) as u64)
        }
        (64, true) => {
            let r = i128::from(a.to_u64() as i64) * i128::from(v.to_u64() as i64);
            (r as u64, (r >> 64) as u64)
        }
        (bits, signed) => {
            let r = if signed {
                (a.sx() as i64).wrapping_mul(v.sx() as i64) as u64
            } else {
                a.to_u64().wrapping_mul(v.to_u64())
            };
            (r, (r as i64 >> bits) as u64)
        }
    };
    let (lo, hi) = (S::from_u64(low), S::from_u64(high));
    let overflow = if W::SIGNED { hi.sx() != (lo.sx() as i64 >> 63) as u64 } else { hi.to_u64() != 0 };
    if S::BITS == 8 {
        u16::set_reg(cpu, slot::RAX, low as u16);
    } else {
        S::set_reg(cpu, slot::RAX, lo);
        S::set_reg(cpu, slot::RDX, hi);
    }
    set_flags(&mut cpu.lazy, lo.sx(), overflow);
}

pub struct WideR<W, S>(PhantomData<(W, S)>);

impl<W: Wide, S: Size> Step for WideR<W, S> {
    #[inline(always)]
    fn step<P: Policy>(cpu: &mut Cpu, op: At) -> bool {
        let v = S::reg(cpu, op.s);
        wide::<W, S>(cpu, v);
        true
    }
}

pub struct WideM<W, S, A>(PhantomData<(W, S, A)>);

impl<W: Wide, S: Size, A: Addr> Step for WideM<W, S, A> {
    const MEMORY: bool = true;
    #[inline(always)]
    fn step<P: Policy>(cpu: &mut Cpu, op: At) -> bool {
        let va = A::ea(cpu, op);
        let Some(v) = P::load::<S>(cpu, va, op) else { return false };
        wide::<W, S>(cpu, v);
        true
    }
}

/// MUL/IMUL of rAX.
pub fn wide_handler<W: Wide>(memory: bool, size: usize, full: bool) -> Handler {
    super::by_size!(size, |S| if memory { by_addr!(full, WideM, [W, S]) } else { run::<WideR<W, S>, Fast> })
}

fn imul_for<S: Size>(memory: bool, imm: bool, full: bool) -> Handler {
    match (memory, imm) {
        (false, false) => run::<ImulRR<S>, Fast>,
        (false, true) => run::<ImulRRI<S>, Fast>,
        (true, false) => by_addr!(full, ImulRM, [S]),
        (true, true) => by_addr!(full, ImulRMI, [S]),
    }
}

/// IMUL with two or three operands.
pub fn imul_handler(memory: bool, imm: bool, size: usize, full: bool) -> Handler {
    match size {
        2 => imul_for::<u16>(memory, imm, full),
        4 => imul_for::<u32>(memory, imm, full),
        _ => imul_for::<u64>(memory, imm, full),
    }
}
