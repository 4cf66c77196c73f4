//! MOV, MOVZX, MOVSX, LEA, XCHG of registers, CMOVcc, SETcc, BSWAP, the CBW and CWD families, and the address ops.

use super::alu::{Imm, Reg, Src};
use super::branch::condition;
use super::{Addr, Fast, Full, Policy, Size, Step, by_addr, by_size, run};
use crate::exec::int::fault_exit;
use crate::mmu::Access;
use crate::op::{At, Handler, next};
use crate::state::{Cpu, slot};
use std::marker::PhantomData;

pub struct MovR<S, X>(PhantomData<(S, X)>);

impl<S: Size, X: Src> Step for MovR<S, X> {
    #[inline(always)]
    fn step<P: Policy>(cpu: &mut Cpu, op: At) -> bool {
        let v = X::get::<S>(cpu, op);
        S::set_reg(cpu, op.d, v);
        true
    }
}

pub struct MovRM<S, A>(PhantomData<(S, A)>);

impl<S: Size, A: Addr> Step for MovRM<S, A> {
    const MEMORY: bool = true;
    #[inline(always)]
    fn step<P: Policy>(cpu: &mut Cpu, op: At) -> bool {
        let va = A::ea(cpu, op);
        let Some(v) = P::load::<S>(cpu, va, op) else { return false };
        S::set_reg(cpu, op.d, v);
        true
    }
}

pub struct MovM<S, X, A>(PhantomData<(S, X, A)>);

impl<S: Size, X: Src, A: Addr> Step for MovM<S, X, A> {
    const MEMORY: bool = true;
    #[inline(always)]
    fn step<P: Policy>(cpu: &mut Cpu, op: At) -> bool {
        let va = A::ea(cpu, op);
        let v = X::get::<S>(cpu, op);
        if !P::store::<S>(cpu, va, v, op) {
            return false;
        }
        true
    }
}

/// MOV by operand form; see [`super::alu::Handlers::alu`].
pub fn mov_handler(form: super::alu::Form, size: usize, full: bool) -> Handler {
    use super::alu::Form;
    by_size!(size, |S| match form {
        Form::RegReg => run::<MovR<S, Reg>, Fast>,
        Form::RegImm => run::<MovR<S, Imm>, Fast>,
        Form::RegMem => by_addr!(full, MovRM, [S]),
        Form::MemReg => by_addr!(full, MovM, [S, Reg]),
        Form::MemImm => by_addr!(full, MovM, [S, Imm]),
    })
}

/// Zero or sign extension.
pub trait Extend: 'static {
    fn extend<S: Size, D: Size>(v: S) -> D;
}

pub struct Zero;
pub struct Sign;

impl Extend for Zero {
    #[inline(always)]
    fn extend<S: Size, D: Size>(v: S) -> D {
        D::from_u64(v.to_u64())
    }
}

impl Extend for Sign {
    #[inline(always)]
    fn extend<S: Size, D: Size>(v: S) -> D {
        D::from_u64(v.sx())
    }
}

pub struct MovxR<E, S, D>(PhantomData<(E, S, D)>);

impl<E: Extend, S: Size, D: Size> Step for MovxR<E, S, D> {
    #[inline(always)]
    fn step<P: Policy>(cpu: &mut Cpu, op: At) -> bool {
        let v = S::reg(cpu, op.s);
        D::set_reg(cpu, op.d, E::extend::<S, D>(v));
        true
    }
}

pub struct MovxM<E, S, D, A>(PhantomData<(E, S, D, A)>);

impl<E: Extend, S: Size, D: Size, A: Addr> Step for MovxM<E, S, D, A> {
    const MEMORY: bool = true;
    #[inline(always)]
    fn step<P: Policy>(cpu: &mut Cpu, op: At) -> bool {
        let va = A::ea(cpu, op);
        let Some(v) = P::load::<S>(cpu, va, op) else { return false };
        D::set_reg(cpu, op.d, E::extend::<S, D>(v));
        true
    }
}

fn extend_pair<E: Extend, S: Size, D: Size>(memory: bool, full: bool) -> Handler {
    if memory { by_addr!(full, MovxM, [E, S, D]) } else { run::<MovxR<E, S, D>, Fast> }
}

/// MOVZX, MOVSX, MOVSXD: sizes in bytes.
pub fn extend_handler<E: Extend>(memory: bool, from: usize, to: usize, full: bool) -> Handler {
    by_size!(to, |D| match from {
        1 => extend_pair::<E, u8, D>(memory, full),
        2 => extend_pair::<E, u16, D>(memory, full),
        _ => extend_pair::<E, u32, D>(memory, full),
    })
}

/// LEA in 64-bit mode with 64-bit addresses. The segment slot is [`slot::ZERO`].
pub struct Lea<S, A>(PhantomData<(S, A)>);

impl<S: Size, A: Addr> Step for Lea<S, A> {
    #[inline(always)]
    fn step<P: Policy>(cpu: &mut Cpu, op: At) -> bool {
        let v = A::ea(cpu, op);
        S::set_reg(cpu, op.d, S::from_u64(v));
        true
    }
}

/// LEA with 16- or 32-bit addresses; [`crate::op::Op::imm`] is the address mask.
pub struct LeaMasked<S>(PhantomData<S>);

impl<S: Size> Step for LeaMasked<S> {
    #[inline(always)]
    fn step<P: Policy>(cpu: &mut Cpu, op: At) -> bool {
        let v = Full::ea(cpu, op) & op.imm;
        S::set_reg(cpu, op.d, S::from_u64(v));
        true
    }
}

/// LEA by destination size; `masked`: the address size is not 64.
pub fn lea_handler(size: usize, full: bool, masked: bool) -> Handler {
    by_size!(size, |S| match (masked, full) {
        (true, _) => run::<LeaMasked<S>, Fast>,
        (false, true) => run::<Lea<S, Full>, Fast>,
        (false, false) => run::<Lea<S, super::Base>, Fast>,
    })
}

/// Leaves the linear address of the instruction's memory operand in [`slot::TMP`]: the offset masked by
/// [`crate::op::Op::imm`], plus the segment base. 64-bit mode.
pub fn address_64(cpu: &mut Cpu, op: At) {
    let offset = cpu.regs[op.base as usize]
        .wrapping_add(cpu.regs[op.index as usize] << (op.scale & 3))
        .wrapping_add(op.disp as i64 as u64);
    cpu.regs[slot::TMP as usize] = (offset & op.imm).wrapping_add(cpu.regs[op.seg as usize]);
    next(cpu, op)
}

/// The same outside 64-bit mode, with limit and type checks. [`crate::op::Op::s`] is the operand's size, `d` 1 for a
/// write.
pub fn address_legacy(cpu: &mut Cpu, op: At) {
    let offset = cpu.regs[op.base as usize]
        .wrapping_add(cpu.regs[op.index as usize] << (op.scale & 3))
        .wrapping_add(op.disp as i64 as u64)
        & op.imm;
    if !legacy_address(cpu, op, offset) {
        return fault_exit(cpu, op);
    }
    next(cpu, op)
}

#[inline(never)]
fn legacy_address(cpu: &mut Cpu, op: At, offset: u64) -> bool {
    let access = if op.d == 1 { Access::Write } else { Access::Read };
    match cpu.segment_address((op.seg - slot::SEG) as usize, offset, op.s as usize, access) {
        Ok(linear) => {
            cpu.regs[slot::TMP as usize] = linear;
            true
        }
        Err(e) => {
            cpu.fault = Some(e);
            false
        }
    }
}

pub struct XchgR<S>(PhantomData<S>);

impl<S: Size> Step for XchgR<S> {
    #[inline(always)]
    fn step<P: Policy>(cpu: &mut Cpu, op: At) -> bool {
        let (a, b) = (S::reg(cpu, op.d), S::reg(cpu, op.s));
        S::set_reg(cpu, op.d, b);
        S::set_reg(cpu, op.s, a);
        true
    }
}

/// XCHG of two registers.
pub fn xchg_handler(size: usize) -> Handler {
    by_size!(size, |S| run::<XchgR<S>, Fast>)
}

pub struct CmovR<const CC: u8, S>(PhantomData<S>);

impl<const CC: u8, S: Size> Step for CmovR<CC, S> {
    #[inline(always)]
    fn step<P: Policy>(cpu: &mut Cpu, op: At) -> bool {
        let v = if condition::<CC>(&cpu.lazy) { S::reg(cpu, op.s) } else { S::reg(cpu, op.d) };
        S::set_reg(cpu, op.d, v);
        true
    }
}

/// The load happens, and can fault, whatever the condition (SDM Vol. 2A, CMOVcc).
pub struct CmovM<const CC: u8, S>(PhantomData<S>);

impl<const CC: u8, S: Size> Step for CmovM<CC, S> {
    const MEMORY: bool = true;
    #[inline(always)]
    fn step<P: Policy>(cpu: &mut Cpu, op: At) -> bool {
        let va = Full::ea(cpu, op);
        let Some(v) = P::load::<S>(cpu, va, op) else { return false };
        let v = if condition::<CC>(&cpu.lazy) { v } else { S::reg(cpu, op.d) };
        S::set_reg(cpu, op.d, v);
        true
    }
}

pub struct SetR<const CC: u8>;

impl<const CC: u8> Step for SetR<CC> {
    #[inline(always)]
    fn step<P: Policy>(cpu: &mut Cpu, op: At) -> bool {
        let v = u8::from(condition::<CC>(&cpu.lazy));
        u8::set_reg(cpu, op.d, v);
        true
    }
}

pub struct SetM<const CC: u8>;

impl<const CC: u8> Step for SetM<CC> {
    const MEMORY: bool = true;
    #[inline(always)]
    fn step<P: Policy>(cpu: &mut Cpu, op: At) -> bool {
        let va = Full::ea(cpu, op);
        let v = u8::from(condition::<CC>(&cpu.lazy));
        if !P::store::<u8>(cpu, va, v, op) {
            return false;
        }
        true
    }
}

fn cmov_cc<const CC: u8>(memory: bool, size: usize) -> Handler {
    match (memory, size) {
        (false, 2) => run::<CmovR<CC, u16>, Fast>,
        (false, 4) => run::<CmovR<CC, u32>, Fast>,
        (false, _) => run::<CmovR<CC, u64>, Fast>,
        (true, 2) => run::<CmovM<CC, u16>, Fast>,
        (true, 4) => run::<CmovM<CC, u32>, Fast>,
        (true, _) => run::<CmovM<CC, u64>, Fast>,
    }
}

fn set_cc<const CC: u8>(memory: bool) -> Handler {
    if memory { run::<SetM<CC>, Fast> } else { run::<SetR<CC>, Fast> }
}

/// Instantiates a function for the 16 condition codes of SDM Vol. 1, table B-1.
macro_rules! by_condition {
    ($cc:expr, $f:ident, ($($a:expr),*)) => {
        match $cc & 15 {
            0 => $f::<0>($($a),*), 1 => $f::<1>($($a),*), 2 => $f::<2>($($a),*), 3 => $f::<3>($($a),*),
            4 => $f::<4>($($a),*), 5 => $f::<5>($($a),*), 6 => $f::<6>($($a),*), 7 => $f::<7>($($a),*),
            8 => $f::<8>($($a),*), 9 => $f::<9>($($a),*), 10 => $f::<10>($($a),*), 11 => $f::<11>($($a),*),
            12 => $f::<12>($($a),*), 13 => $f::<13>($($a),*), 14 => $f::<14>($($a),*), _ => $f::<15>($($a),*),
        }
    };
}
pub(crate) use by_condition;

/// CMOVcc. The memory form takes a full address.
pub fn cmov_handler(cc: u8, memory: bool, size: usize) -> Handler {
    by_condition!(cc, cmov_cc, (memory, size))
}

/// SETcc. The memory form takes a full address.
pub fn set_handler(cc: u8, memory: bool) -> Handler {
    by_condition!(cc, set_cc, (memory))
}

/// BSWAP of 32 or 64 bits. (A 16-bit one is undefined; like Intel's parts this clears the register's low word.)
pub struct Bswap<S>(PhantomData<S>);

impl<S: Size> Step for Bswap<S> {
    #[inline(always)]
    fn step<P: Policy>(cpu: &mut Cpu, op: At) -> bool {
        let v = S::reg(cpu, op.d).to_u64();
        let r = match S::BITS {
            64 => v.swap_bytes(),
            32 => u64::from((v as u32).swap_bytes()),
            _ => 0,
        };
        S::set_reg(cpu, op.d, S::from_u64(r));
        true
    }
}

pub fn bswap_handler(size: usize) -> Handler {
    by_size!(size, |S| run::<Bswap<S>, Fast>)
}

/// CBW, CWDE, CDQE: `S` to `D` in rAX.
pub struct ConvertA<S, D>(PhantomData<(S, D)>);

impl<S: Size, D: Size> Step for ConvertA<S, D> {
    #[inline(always)]
    fn step<P: Policy>(cpu: &mut Cpu, _op: At) -> bool {
        let v = S::reg(cpu, slot::RAX).sx();
        D::set_reg(cpu, slot::RAX, D::from_u64(v));
        true
    }
}

/// CWD, CDQ, CQO: the sign of rAX into rDX.
pub struct ConvertD<S>(PhantomData<S>);

impl<S: Size> Step for ConvertD<S> {
    #[inline(always)]
    fn step<P: Policy>(cpu: &mut Cpu, _op: At) -> bool {
        let v = (S::reg(cpu, slot::RAX).sx() as i64 >> 63) as u64;
        S::set_reg(cpu, slot::RDX, S::from_u64(v));
        true
    }
}

/// CBW/CWDE/CDQE by destination size.
pub fn convert_a_handler(to: usize) -> Handler {
    match to {
        2 => run::<ConvertA<u8, u16>, Fast>,
        4 => run::<ConvertA<u16, u32>, Fast>,
        _ => run::<ConvertA<u32, u64>, Fast>,
    }
}

/// CWD/CDQ/CQO by size.
pub fn convert_d_handler(size: usize) -> Handler {
    match size {
        2 => run::<ConvertD<u16>, Fast>,
        4 => run::<ConvertD<u32>, Fast>,
        _ => run::<ConvertD<u64>, Fast>,
    }
}

/// Nothing: what ops under construction start from.
pub fn nop(cpu: &mut Cpu, op: At) {
    next(cpu, op)
}
