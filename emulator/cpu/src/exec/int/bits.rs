//! Bit tests, scans and counts (SDM Vol. 2A and 2B). A bit string in memory that a register indexes is here with 64-bit
//! addresses only; other address sizes are in `exec::general`.

use super::alu::{Form, Imm, Reg, Src};
use super::{Addr, Fast, Policy, Size, Step, by_addr, by_size, run};
use crate::lazy::Lazy;
use crate::op::{At, Handler};
use crate::state::Cpu;
use std::marker::PhantomData;
use x86::flags;

/// What becomes of the operand that holds the bit.
pub trait Bit: 'static {
    const WRITES: bool = true;
    fn change(value: u64, bit: u64) -> u64;
}

pub struct Bt;
pub struct Bts;
pub struct Btr;
pub struct Btc;

impl Bit for Bt {
    const WRITES: bool = false;
    #[inline(always)]
    fn change(value: u64, _bit: u64) -> u64 {
        value
    }
}

impl Bit for Bts {
    #[inline(always)]
    fn change(value: u64, bit: u64) -> u64 {
        value | bit
    }
}

impl Bit for Btr {
    #[inline(always)]
    fn change(value: u64, bit: u64) -> u64 {
        value & !bit
    }
}

impl Bit for Btc {
    #[inline(always)]
    fn change(value: u64, bit: u64) -> u64 {
        value ^ bit
    }
}

/// CF is the bit; ZF is unchanged, the other flags (undefined) as well.
#[inline(always)]
fn set_carry(lazy: &mut Lazy, bit: u64) {
    // OF is CF ^ x[63]: keep it.
    lazy.x ^= ((lazy.c ^ bit) & 1) << 63;
    lazy.c = lazy.c & !1 | bit;
}

/// BT, BTS, BTR, BTC of a register.
pub struct BitR<O, S, X>(PhantomData<(O, S, X)>);

impl<O: Bit, S: Size, X: Src> Step for BitR<O, S, X> {
    #[inline(always)]
    fn step<P: Policy>(cpu: &mut Cpu, op: At) -> bool {
        let v = S::reg(cpu, op.d).to_u64();
        let n = X::get::<S>(cpu, op).to_u64() & u64::from(S::BITS - 1);
        set_carry(&mut cpu.lazy, v >> n & 1);
        if O::WRITES {
            S::set_reg(cpu, op.d, S::from_u64(O::change(v, 1 << n)));
        }
        true
    }
}

/// The same in memory. A register's offset reaches beyond the operand at the address, an immediate one does not.
pub struct BitM<O, S, X, A>(PhantomData<(O, S, X, A)>);

impl<O: Bit, S: Size, X: Src, A: Addr> Step for BitM<O, S, X, A> {
    const MEMORY: bool = true;
    #[inline(always)]
    fn step<P: Policy>(cpu: &mut Cpu, op: At) -> bool {
        let offset = X::get::<S>(cpu, op).sx();
        let n = offset & u64::from(S::BITS - 1);
        let operands = if X::IMMEDIATE { 0 } else { offset as i64 >> S::BITS.ilog2() };
        let va = A::ea(cpu, op).wrapping_add((operands << (S::BITS / 8).ilog2()) as u64);
        let v;
        if O::WRITES {
            let Some(p) = P::place::<S>(cpu, va, op) else { return false };
            v = P::get(cpu, &p).to_u64();
            P::put(cpu, p, S::from_u64(O::change(v, 1 << n)));
        } else {
            let Some(loaded) = P::load::<S>(cpu, va, op) else { return false };
            v = loaded.to_u64();
        }
        set_carry(&mut cpu.lazy, v >> n & 1);
        true
    }
}

/// BT and its kin by operand form ([`Form::MemReg`] with 64-bit addresses only) and size in bytes; `full`: the address needs
/// [`super::Full`].
pub fn bit_handler<O: Bit>(form: Form, size: usize, full: bool) -> Handler {
    by_size!(size, |S| match form {
        Form::RegImm => run::<BitR<O, S, Imm>, Fast>,
        Form::MemReg => by_addr!(full, BitM, [O, S, Reg]),
        Form::MemImm => by_addr!(full, BitM, [O, S, Imm]),
        Form::RegReg | Form::RegMem => run::<BitR<O, S, Reg>, Fast>,
    })
}

/// What an instruction makes of its source.
pub trait Scan: 'static {
    /// The result and the flags, all six of them. No result: the whole destination stays as it is.
    fn scan<S: Size>(source: S) -> (Option<u32>, u64);
}

pub struct Bsf;
pub struct Bsr;
pub struct Tzcnt;
pub struct Lzcnt;
pub struct Popcnt;

/// BSF and BSR: a zero source sets ZF. The other flags (undefined) are cleared.
#[inline(always)]
fn index<S: Size>(source: S, index: impl Fn(u64) -> u32) -> (Option<u32>, u64) {
    match source.to_u64() {
        0 => (None, flags::ZF),
        v => (Some(index(v)), 0),
    }
}

/// TZCNT and LZCNT: CF tells that the source is zero, ZF that the count is. The other flags (undefined) are cleared.
#[inline(always)]
fn count<S: Size>(n: u32) -> (Option<u32>, u64) {
    let carry = if n == S::BITS { flags::CF } else { 0 };
    (Some(n), carry | if n == 0 { flags::ZF } else { 0 })
}

impl Scan for Bsf {
    #[inline(always)]
    fn scan<S: Size>(source: S) -> (Option<u32>, u64) {
        index(source, u64::trailing_zeros)
    }
}

impl Scan for Bsr {
    #[inline(always)]
    fn scan<S: Size>(source: S) -> (Option<u32>, u64) {
        index(source, u64::ilog2)
    }
}

impl Scan for Tzcnt {
    #[inline(always)]
    fn scan<S: Size>(source: S) -> (Option<u32>, u64) {
        count::<S>(source.to_u64().trailing_zeros().min(S::BITS))
    }
}

impl Scan for Lzcnt {
    #[inline(always)]
    fn scan<S: Size>(source: S) -> (Option<u32>, u64) {
        count::<S>(source.to_u64().leading_zeros() - (64 - S::BITS))
    }
}

/// ZF for a zero source, all other flags cleared.
impl Scan for Popcnt {
    #[inline(always)]
    fn scan<S: Size>(source: S) -> (Option<u32>, u64) {
        let n = source.to_u64().count_ones();
        (Some(n), if n == 0 { flags::ZF } else { 0 })
    }
}

#[inline(always)]
fn conclude<O: Scan, S: Size>(cpu: &mut Cpu, op: At, source: S) {
    let (result, flags) = O::scan(source);
    if let Some(n) = result {
        S::set_reg(cpu, op.d, S::from_u64(u64::from(n)));
    }
    cpu.lazy.set(flags);
}

/// BSF, BSR, TZCNT, LZCNT, POPCNT r, r
pub struct ScanRR<O, S>(PhantomData<(O, S)>);

impl<O: Scan, S: Size> Step for ScanRR<O, S> {
    #[inline(always)]
    fn step<P: Policy>(cpu: &mut Cpu, op: At) -> bool {
        let source = S::reg(cpu, op.s);
        conclude::<O, S>(cpu, op, source);
        true
    }
}

/// The same, r, m
pub struct ScanRM<O, S, A>(PhantomData<(O, S, A)>);

impl<O: Scan, S: Size, A: Addr> Step for ScanRM<O, S, A> {
    const MEMORY: bool = true;
    #[inline(always)]
    fn step<P: Policy>(cpu: &mut Cpu, op: At) -> bool {
        let va = A::ea(cpu, op);
        let Some(source) = P::load::<S>(cpu, va, op) else { return false };
        conclude::<O, S>(cpu, op, source);
        true
    }
}

/// By operand form (a register and what is scanned) and size in bytes; `full`: the address needs [`super::Full`].
pub fn scan_handler<O: Scan>(form: Form, size: usize, full: bool) -> Handler {
    by_size!(size, |S| match form {
        Form::RegMem => by_addr!(full, ScanRM, [O, S]),
        Form::RegReg | Form::RegImm | Form::MemReg | Form::MemImm => run::<ScanRR<O, S>, Fast>,
    })
}
