//! SHL, SHR, SAR, ROL, ROR (SDM Vol. 2B). RCL, RCR, SHLD and SHRD are in `exec::general`.

use super::{Addr, Fast, Policy, Size, Step, by_addr, by_size, run};
use crate::lazy::Lazy;
use crate::op::{At, Handler};
use crate::state::{Cpu, slot};
use std::marker::PhantomData;

/// An operation by a count that is already masked to 5 or 6 bits and not zero.
pub trait Shift: 'static {
    fn exec<S: Size>(lazy: &mut Lazy, a: S, count: u32) -> S;
}

pub struct Shl;
pub struct Shr;
pub struct Sar;
pub struct Rol;
pub struct Ror;

/// Flags of a shift: OF is defined for counts of 1; the same formula is used for larger ones.
#[inline(always)]
fn set_flags<S: Size>(lazy: &mut Lazy, r: S, cf: u64, of: u64) {
    *lazy = Lazy { res: r.sx(), x: (cf ^ of) << 63, c: cf };
}

impl Shift for Shl {
    #[inline(always)]
    fn exec<S: Size>(lazy: &mut Lazy, a: S, count: u32) -> S {
        let v = a.to_u64();
        let r = S::from_u64(v << count);
        let cf = if count <= S::BITS { v >> (S::BITS - count) & 1 } else { 0 };
        set_flags(lazy, r, cf, cf ^ (r.sx() >> 63));
        r
    }
}

impl Shift for Shr {
    #[inline(always)]
    fn exec<S: Size>(lazy: &mut Lazy, a: S, count: u32) -> S {
        let v = a.to_u64();
        let r = S::from_u64(v >> count);
        // OF: the most significant bit of the operand.
        set_flags(lazy, r, v >> (count - 1) & 1, if count == 1 { a.sx() >> 63 } else { 0 });
        r
    }
}

impl Shift for Sar {
    #[inline(always)]
    fn exec<S: Size>(lazy: &mut Lazy, a: S, count: u32) -> S {
        let v = a.sx() as i64;
        let r = S::from_u64((v >> count) as u64);
        set_flags(lazy, r, (v >> (count - 1)) as u64 & 1, 0);
        r
    }
}

/// Rotates change only CF and OF.
#[inline(always)]
fn set_rotate_flags(lazy: &mut Lazy, cf: u64, of: u64) {
    lazy.c = lazy.c & !1 | cf;
    lazy.x = lazy.x & !(1 << 63) | (cf ^ of) << 63;
}

#[inline(always)]
fn rotate_left<S: Size>(v: u64, count: u32) -> u64 {
    match S::BITS {
        8 => u64::from((v as u8).rotate_left(count)),
        16 => u64::from((v as u16).rotate_left(count)),
        32 => u64::from((v as u32).rotate_left(count)),
        _ => v.rotate_left(count),
    }
}

impl Shift for Rol {
    #[inline(always)]
    fn exec<S: Size>(lazy: &mut Lazy, a: S, count: u32) -> S {
        let r = rotate_left::<S>(a.to_u64(), count & (S::BITS - 1));
        let cf = r & 1;
        set_rotate_flags(lazy, cf, cf ^ (r >> (S::BITS - 1) & 1));
        S::from_u64(r)
    }
}

impl Shift for Ror {
    #[inline(always)]
    fn exec<S: Size>(lazy: &mut Lazy, a: S, count: u32) -> S {
        let r = rotate_left::<S>(a.to_u64(), S::BITS.wrapping_sub(count) & (S::BITS - 1));
        let cf = r >> (S::BITS - 1) & 1;
        set_rotate_flags(lazy, cf, cf ^ (r >> (S::BITS - 2) & 1));
        S::from_u64(r)
    }
}

/// Where the count comes from.
pub trait Count: 'static {
    fn get(cpu: &Cpu, op: At) -> u32;
}

/// An immediate, or the 1 of the D0/D1 opcodes.
pub struct Imm;
pub struct Cl;

impl Count for Imm {
    #[inline(always)]
    fn get(_cpu: &Cpu, op: At) -> u32 {
        op.imm as u32
    }
}

impl Count for Cl {
    #[inline(always)]
    fn get(cpu: &Cpu, _op: At) -> u32 {
        cpu.regs[slot::RCX as usize] as u32
    }
}

#[inline(always)]
fn masked<S: Size>(count: u32) -> u32 {
    count & if S::BITS == 64 { 63 } else { 31 }
}

pub struct ShiftR<O, S, C>(PhantomData<(O, S, C)>);

impl<O: Shift, S: Size, C: Count> Step for ShiftR<O, S, C> {
    #[inline(always)]
    fn step<P: Policy>(cpu: &mut Cpu, op: At) -> bool {
        let count = masked::<S>(C::get(cpu, op));
        let a = S::reg(cpu, op.d);
        // A zero count changes no flag, but a 32-bit destination is still zero-extended.
        let r = if count == 0 { a } else { O::exec(&mut cpu.lazy, a, count) };
        S::set_reg(cpu, op.d, r);
        true
    }
}

pub struct ShiftM<O, S, C, A>(PhantomData<(O, S, C, A)>);

impl<O: Shift, S: Size, C: Count, A: Addr> Step for ShiftM<O, S, C, A> {
    const MEMORY: bool = true;
    #[inline(always)]
    fn step<P: Policy>(cpu: &mut Cpu, op: At) -> bool {
        let va = A::ea(cpu, op);
        let Some(p) = P::place::<S>(cpu, va, op) else { return false };
        let count = masked::<S>(C::get(cpu, op));
        let a = P::get(cpu, &p);
        let r = if count == 0 { a } else { O::exec(&mut cpu.lazy, a, count) };
        P::put(cpu, p, r);
        true
    }
}

/// `by_cl`: the count is CL.
pub fn shift_handler<O: Shift>(memory: bool, by_cl: bool, size: usize, full: bool) -> Handler {
    by_size!(size, |S| match (memory, by_cl) {
        (false, false) => run::<ShiftR<O, S, Imm>, Fast>,
        (false, true) => run::<ShiftR<O, S, Cl>, Fast>,
        (true, false) => by_addr!(full, ShiftM, [O, S, Imm]),
        (true, true) => by_addr!(full, ShiftM, [O, S, Cl]),
    })
}
