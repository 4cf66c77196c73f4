//! MOV, MOVZX, MOVSX, LEA, XCHG of registers, CMOVcc, SETcc, BSWAP, the CBW and CWD families, BT of registers, and the
//! address ops.

use super::alu::{Imm, Reg, Src};
use super::branch::condition;
use super::{Addr, Fast, Full, Policy, Size, Slow, by_addr, by_size};
use crate::exec::int::fault_exit;
use crate::mmu::Access;
use crate::op::{At, Handler, next};
use crate::state::{Cpu, slot};

fn mov_r<S: Size, X: Src>(cpu: &mut Cpu, op: At) {
    let v = X::get::<S>(cpu, op);
    S::set_reg(cpu, op.d, v);
    next(cpu, op)
}

fn mov_r_m<S: Size, A: Addr, P: Policy>(cpu: &mut Cpu, op: At) {
    let va = A::ea(cpu, op);
    let Some(v) = P::load::<S>(cpu, va, op) else { return P::miss(cpu, op, mov_r_m::<S, A, Slow>) };
    S::set_reg(cpu, op.d, v);
    P::done(cpu, op)
}

fn mov_m<S: Size, X: Src, A: Addr, P: Policy>(cpu: &mut Cpu, op: At) {
    let va = A::ea(cpu, op);
    let v = X::get::<S>(cpu, op);
    if !P::store::<S>(cpu, va, v, op) {
        return P::miss(cpu, op, mov_m::<S, X, A, Slow>);
    }
    P::done(cpu, op)
}

/// MOV by operand form; see [`super::alu::Handlers::alu`].
pub fn mov_handler(form: super::alu::Form, size: usize, full: bool) -> Handler {
    use super::alu::Form;
    by_size!(size, |S| match form {
        Form::RegReg => mov_r::<S, Reg>,
        Form::RegImm => mov_r::<S, Imm>,
        Form::RegMem => by_addr!(full, mov_r_m, [S]),
        Form::MemReg => by_addr!(full, mov_m, [S, Reg]),
        Form::MemImm => by_addr!(full, mov_m, [S, Imm]),
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

fn movx_r<E: Extend, S: Size, D: Size>(cpu: &mut Cpu, op: At) {
    let v = S::reg(cpu, op.s);
    D::set_reg(cpu, op.d, E::extend::<S, D>(v));
    next(cpu, op)
}

fn movx_m<E: Extend, S: Size, D: Size, A: Addr, P: Policy>(cpu: &mut Cpu, op: At) {
    let va = A::ea(cpu, op);
    let Some(v) = P::load::<S>(cpu, va, op) else { return P::miss(cpu, op, movx_m::<E, S, D, A, Slow>) };
    D::set_reg(cpu, op.d, E::extend::<S, D>(v));
    P::done(cpu, op)
}

fn extend_pair<E: Extend, S: Size, D: Size>(memory: bool, full: bool) -> Handler {
    if memory { by_addr!(full, movx_m, [E, S, D]) } else { movx_r::<E, S, D> }
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
fn lea<S: Size, A: Addr>(cpu: &mut Cpu, op: At) {
    let v = A::ea(cpu, op);
    S::set_reg(cpu, op.d, S::from_u64(v));
    next(cpu, op)
}

/// LEA with 16- or 32-bit addresses; [`crate::op::Op::imm`] is the address mask.
fn lea_masked<S: Size>(cpu: &mut Cpu, op: At) {
    let v = Full::ea(cpu, op) & op.imm;
    S::set_reg(cpu, op.d, S::from_u64(v));
    next(cpu, op)
}

/// LEA by destination size; `masked`: the address size is not 64.
pub fn lea_handler(size: usize, full: bool, masked: bool) -> Handler {
    by_size!(size, |S| match (masked, full) {
        (true, _) => lea_masked::<S>,
        (false, true) => lea::<S, Full>,
        (false, false) => lea::<S, super::Base>,
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

fn xchg_r<S: Size>(cpu: &mut Cpu, op: At) {
    let (a, b) = (S::reg(cpu, op.d), S::reg(cpu, op.s));
    S::set_reg(cpu, op.d, b);
    S::set_reg(cpu, op.s, a);
    next(cpu, op)
}

/// XCHG of two registers.
pub fn xchg_handler(size: usize) -> Handler {
    by_size!(size, |S| xchg_r::<S>)
}

fn cmov_r<const CC: u8, S: Size>(cpu: &mut Cpu, op: At) {
    let v = if condition::<CC>(&cpu.lazy) { S::reg(cpu, op.s) } else { S::reg(cpu, op.d) };
    S::set_reg(cpu, op.d, v);
    next(cpu, op)
}

/// The load happens, and can fault, whatever the condition (SDM Vol. 2A, CMOVcc).
fn cmov_m<const CC: u8, S: Size, P: Policy>(cpu: &mut Cpu, op: At) {
    let va = Full::ea(cpu, op);
    let Some(v) = P::load::<S>(cpu, va, op) else { return P::miss(cpu, op, cmov_m::<CC, S, Slow>) };
    let v = if condition::<CC>(&cpu.lazy) { v } else { S::reg(cpu, op.d) };
    S::set_reg(cpu, op.d, v);
    P::done(cpu, op)
}

fn set_r<const CC: u8>(cpu: &mut Cpu, op: At) {
    let v = u8::from(condition::<CC>(&cpu.lazy));
    u8::set_reg(cpu, op.d, v);
    next(cpu, op)
}

fn set_m<const CC: u8, P: Policy>(cpu: &mut Cpu, op: At) {
    let va = Full::ea(cpu, op);
    let v = u8::from(condition::<CC>(&cpu.lazy));
    if !P::store::<u8>(cpu, va, v, op) {
        return P::miss(cpu, op, set_m::<CC, Slow>);
    }
    P::done(cpu, op)
}

fn cmov_cc<const CC: u8>(memory: bool, size: usize) -> Handler {
    match (memory, size) {
        (false, 2) => cmov_r::<CC, u16>,
        (false, 4) => cmov_r::<CC, u32>,
        (false, _) => cmov_r::<CC, u64>,
        (true, 2) => cmov_m::<CC, u16, Fast>,
        (true, 4) => cmov_m::<CC, u32, Fast>,
        (true, _) => cmov_m::<CC, u64, Fast>,
    }
}

fn set_cc<const CC: u8>(memory: bool) -> Handler {
    if memory { set_m::<CC, Fast> } else { set_r::<CC> }
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
fn bswap<S: Size>(cpu: &mut Cpu, op: At) {
    let v = S::reg(cpu, op.d).to_u64();
    let r = match S::BITS {
        64 => v.swap_bytes(),
        32 => u64::from((v as u32).swap_bytes()),
        _ => 0,
    };
    S::set_reg(cpu, op.d, S::from_u64(r));
    next(cpu, op)
}

pub fn bswap_handler(size: usize) -> Handler {
    by_size!(size, |S| bswap::<S>)
}

/// CBW, CWDE, CDQE: `S` to `D` in rAX.
fn convert_a<S: Size, D: Size>(cpu: &mut Cpu, op: At) {
    let v = S::reg(cpu, slot::RAX).sx();
    D::set_reg(cpu, slot::RAX, D::from_u64(v));
    next(cpu, op)
}

/// CWD, CDQ, CQO: the sign of rAX into rDX.
fn convert_d<S: Size>(cpu: &mut Cpu, op: At) {
    let v = (S::reg(cpu, slot::RAX).sx() as i64 >> 63) as u64;
    S::set_reg(cpu, slot::RDX, S::from_u64(v));
    next(cpu, op)
}

/// CBW/CWDE/CDQE by destination size.
pub fn convert_a_handler(to: usize) -> Handler {
    match to {
        2 => convert_a::<u8, u16>,
        4 => convert_a::<u16, u32>,
        _ => convert_a::<u32, u64>,
    }
}

/// CWD/CDQ/CQO by size.
pub fn convert_d_handler(size: usize) -> Handler {
    match size {
        2 => convert_d::<u16>,
        4 => convert_d::<u32>,
        _ => convert_d::<u64>,
    }
}

/// BT of a register: CF is the bit; ZF is unchanged, the other flags (undefined) as well.
fn bt_r<S: Size, X: Src>(cpu: &mut Cpu, op: At) {
    let v = S::reg(cpu, op.d).to_u64();
    let n = X::get::<S>(cpu, op).to_u64() & u64::from(S::BITS - 1);
    let bit = v >> n & 1;
    // OF is CF ^ x[63]: keep it.
    cpu.lazy.x ^= ((cpu.lazy.c ^ bit) & 1) << 63;
    cpu.lazy.c = cpu.lazy.c & !1 | bit;
    next(cpu, op)
}

/// BT with a register destination; `imm`: the bit number is an immediate.
pub fn bt_handler(size: usize, imm: bool) -> Handler {
    by_size!(size, |S| if imm { bt_r::<S, Imm> } else { bt_r::<S, Reg> })
}

/// NOP, ENDBR64, prefetches and fences: nothing.
pub fn nop(cpu: &mut Cpu, op: At) {
    next(cpu, op)
}
