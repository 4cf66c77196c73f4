//! Hot integer instructions: handlers specialised by operation, operand size and operand form.
//!
//! Reading order: this file (sizes, address forms, memory policies, exits), [`alu`], [`shift`], [`bits`], [`mov`], [`mul`],
//! [`exchange`], [`stack`], [`branch`], [`fuse`]. The translator picks handlers through the `*_handler` functions of each.
//!
//! Every handler that touches memory exists twice: with [`Fast`] it uses the fast path and, on a miss, starts again as
//! its [`Slow`] twin by a tail call, so that the fast one needs no stack frame. Semantics are written once, generic over
//! the policy: an instruction is a [`Step`], and a handler is a step ([`run`]) or two ([`fuse`]).

pub mod alu;
pub mod bits;
pub mod branch;
pub mod exchange;
pub mod fuse;
pub mod mov;
pub mod mul;
pub mod shift;
pub mod stack;

use crate::op::{At, Handler, next};
use crate::state::{Cpu, slot};
use mem::fast::{Slot, Word};
use x86::segment::sreg;

/// An operand size.
pub trait Size: Word + Copy + Eq + 'static {
    const BITS: u32;
    fn from_u64(v: u64) -> Self;
    fn to_u64(self) -> u64;
    /// Sign-extended to 64 bits.
    fn sx(self) -> u64;
    fn reg(cpu: &Cpu, r: u8) -> Self;
    fn set_reg(cpu: &mut Cpu, r: u8, v: Self);
    fn add(self, b: Self) -> (Self, bool);
    fn sub(self, b: Self) -> (Self, bool);
}

macro_rules! size {
    ($t:ty, $s:ty, |$cpu:ident, $r:ident| $get:expr, |$c2:ident, $r2:ident, $v:ident| $set:expr) => {
        impl Size for $t {
            const BITS: u32 = <$t>::BITS;
            #[inline(always)]
            fn from_u64(v: u64) -> Self {
                v as $t
            }
            #[inline(always)]
            fn to_u64(self) -> u64 {
                self as u64
            }
            #[inline(always)]
            fn sx(self) -> u64 {
                self as $s as i64 as u64
            }
            #[inline(always)]
            fn reg($cpu: &Cpu, $r: u8) -> Self {
                $get
            }
            #[inline(always)]
            fn set_reg($c2: &mut Cpu, $r2: u8, $v: Self) {
                $set
            }
            #[inline(always)]
            fn add(self, b: Self) -> (Self, bool) {
                self.overflowing_add(b)
            }
            #[inline(always)]
            fn sub(self, b: Self) -> (Self, bool) {
                self.overflowing_sub(b)
            }
        }
    };
}

/// The register file as bytes: byte operands are numbered by offset, so that AH..BH need no case of their own.
#[inline(always)]
fn bytes(regs: &[u64; 256]) -> &[u8; 2048] {
    bytemuck::cast_ref(regs)
}

#[inline(always)]
fn bytes_mut(regs: &mut [u64; 256]) -> &mut [u8; 2048] {
    bytemuck::cast_mut(regs)
}

/// The register file as words, for 16-bit writes.
#[inline(always)]
fn words_mut(regs: &mut [u64; 256]) -> &mut [u16; 1024] {
    bytemuck::cast_mut(regs)
}

size!(u8, i8, |cpu, r| bytes(&cpu.regs)[r as usize], |cpu, r, v| bytes_mut(&mut cpu.regs)[r as usize] = v);
size!(u16, i16, |cpu, r| cpu.regs[r as usize] as u16, |cpu, r, v| words_mut(&mut cpu.regs)[r as usize * 4] = v);
size!(u32, i32, |cpu, r| cpu.regs[r as usize] as u32, |cpu, r, v| cpu.regs[r as usize] = u64::from(v));
size!(u64, i64, |cpu, r| cpu.regs[r as usize], |cpu, r, v| cpu.regs[r as usize] = v);

/// An address form.
pub trait Addr: 'static {
    fn ea(cpu: &Cpu, op: At) -> u64;
}

/// base + displacement; also an address that an address op left in [`slot::TMP`].
pub struct Base;

/// base + index << scale + displacement + segment base.
pub struct Full;

impl Addr for Base {
    #[inline(always)]
    fn ea(cpu: &Cpu, op: At) -> u64 {
        cpu.regs[op.base as usize].wrapping_add(op.disp as i64 as u64)
    }
}

impl Addr for Full {
    #[inline(always)]
    fn ea(cpu: &Cpu, op: At) -> u64 {
        cpu.regs[op.base as usize]
            .wrapping_add(cpu.regs[op.index as usize] << (op.scale & 3))
            .wrapping_add(cpu.regs[op.seg as usize])
            .wrapping_add(op.disp as i64 as u64)
    }
}

/// How a handler reaches memory.
pub trait Policy: 'static {
    /// A place that was checked for reading and writing.
    type Place<S: Size>;
    fn load<S: Size>(cpu: &mut Cpu, va: u64, op: At) -> Option<S>;
    fn store<S: Size>(cpu: &mut Cpu, va: u64, v: S, op: At) -> bool;
    /// A store through SS by an op whose segment is another operand's.
    fn store_stack<S: Size>(cpu: &mut Cpu, va: u64, v: S, op: At) -> bool;
    fn place<S: Size>(cpu: &mut Cpu, va: u64, op: At) -> Option<Self::Place<S>>;
    fn get<S: Size>(cpu: &mut Cpu, p: &Self::Place<S>) -> S;
    fn put<S: Size>(cpu: &mut Cpu, p: Self::Place<S>, v: S);
    /// After a failed access: the slow twin, or the fault.
    fn miss(cpu: &mut Cpu, op: At, slow: Handler);
    /// After a completed access: the next op, or the run loop if the access asks for it.
    fn done(cpu: &mut Cpu, op: At);
    /// True if a completed access asks for the run loop.
    fn leaves(cpu: &Cpu) -> bool;
}

/// The fast path only.
pub struct Fast;

/// Translation, cache and devices.
pub struct Slow;

impl Policy for Fast {
    type Place<S: Size> = Slot<S>;
    #[inline(always)]
    fn load<S: Size>(cpu: &mut Cpu, va: u64, _op: At) -> Option<S> {
        cpu.fast.load(va)
    }
    #[inline(always)]
    fn store<S: Size>(cpu: &mut Cpu, va: u64, v: S, _op: At) -> bool {
        cpu.fast.store(va, v)
    }
    #[inline(always)]
    fn store_stack<S: Size>(cpu: &mut Cpu, va: u64, v: S, _op: At) -> bool {
        cpu.fast.store(va, v)
    }
    #[inline(always)]
    fn place<S: Size>(cpu: &mut Cpu, va: u64, _op: At) -> Option<Slot<S>> {
        cpu.fast.slot(va)
    }
    #[inline(always)]
    fn get<S: Size>(_cpu: &mut Cpu, p: &Slot<S>) -> S {
        p.get()
    }
    #[inline(always)]
    fn put<S: Size>(_cpu: &mut Cpu, p: Slot<S>, v: S) {
        p.set(v);
    }
    #[inline(always)]
    fn miss(cpu: &mut Cpu, op: At, slow: Handler) {
        slow(cpu, op)
    }
    #[inline(always)]
    fn done(cpu: &mut Cpu, op: At) {
        next(cpu, op)
    }
    #[inline(always)]
    fn leaves(_cpu: &Cpu) -> bool {
        false
    }
}

impl Policy for Slow {
    type Place<S: Size> = u64;
    #[inline(always)]
    fn load<S: Size>(cpu: &mut Cpu, va: u64, op: At) -> Option<S> {
        cpu.at_op(op);
        cpu.load_slow(va, S::BITS / 8, op.seg).map(S::from_u64)
    }
    #[inline(always)]
    fn store<S: Size>(cpu: &mut Cpu, va: u64, v: S, op: At) -> bool {
        cpu.at_op(op);
        cpu.store_slow(va, S::BITS / 8, v.to_u64(), op.seg)
    }
    #[inline(always)]
    fn store_stack<S: Size>(cpu: &mut Cpu, va: u64, v: S, op: At) -> bool {
        cpu.at_op(op);
        cpu.store_slow(va, S::BITS / 8, v.to_u64(), slot::SEG + sreg::SS as u8)
    }
    #[inline(always)]
    fn place<S: Size>(cpu: &mut Cpu, va: u64, op: At) -> Option<u64> {
        cpu.at_op(op);
        if cpu.writable_slow(va, S::BITS / 8, op.seg) { Some(va) } else { None }
    }
    #[inline(always)]
    fn get<S: Size>(cpu: &mut Cpu, p: &u64) -> S {
        // The place was checked: neither half can fault.
        S::from_u64(cpu.load_slow(*p, S::BITS / 8, slot::ZERO).unwrap_or(0))
    }
    #[inline(always)]
    fn put<S: Size>(cpu: &mut Cpu, p: u64, v: S) {
        cpu.store_slow(p, S::BITS / 8, v.to_u64(), slot::ZERO);
    }
    #[inline(always)]
    fn miss(cpu: &mut Cpu, op: At, _slow: Handler) {
        fault_exit(cpu, op)
    }
    #[inline(always)]
    fn done(cpu: &mut Cpu, op: At) {
        if cpu.leave_block {
            return leave_after(cpu, op);
        }
        next(cpu, op)
    }
    #[inline(always)]
    fn leaves(cpu: &Cpu) -> bool {
        cpu.leave_block
    }
}

/// An instruction, apart from going on to the next one.
pub trait Step: 'static {
    /// True if it loads or stores, and can therefore miss.
    const MEMORY: bool = false;
    /// Executes it. False: an access failed, and nothing has changed.
    fn step<P: Policy>(cpu: &mut Cpu, op: At) -> bool;
}

/// The handler of an instruction. Never inlined, so that it has one address, by which [`fuse`] knows it.
#[inline(never)]
pub fn run<T: Step, P: Policy>(cpu: &mut Cpu, op: At) {
    if T::MEMORY {
        if !T::step::<P>(cpu, op) {
            return P::miss(cpu, op, run::<T, Slow>);
        }
        return P::done(cpu, op);
    }
    T::step::<P>(cpu, op);
    next(cpu, op)
}

/// Ends the chain with [`Cpu::fault`] at this op; its instruction and the ones after it did not retire.
#[cold]
#[inline(never)]
pub fn fault_exit(cpu: &mut Cpu, op: At) {
    cpu.ip = op.ip(cpu);
    cpu.next_ip = op.next_ip(cpu);
    cpu.budget += i64::from(op.rest) + 1;
    cpu.unretired = 0;
}

/// Ends the chain after this op's instruction; those after it did not retire.
#[cold]
#[inline(never)]
pub fn leave_after(cpu: &mut Cpu, op: At) {
    cpu.next_ip = op.next_ip(cpu);
    cpu.budget += i64::from(op.rest);
    cpu.unretired = 0;
    cpu.sequential = true;
}

/// Picks a handler by address form.
macro_rules! by_addr {
    ($full:expr, $f:ident, [$($g:ty),*]) => {
        if $full { $crate::exec::int::run::<$f<$($g,)* $crate::exec::int::Full>, $crate::exec::int::Fast> as $crate::op::Handler }
        else { $crate::exec::int::run::<$f<$($g,)* $crate::exec::int::Base>, $crate::exec::int::Fast> as $crate::op::Handler }
    };
}

/// Picks a handler by operand size in bytes.
macro_rules! by_size {
    ($size:expr, |$t:ident| $e:expr) => {
        match $size {
            1 => { type $t = u8; $e }
            2 => { type $t = u16; $e }
            4 => { type $t = u32; $e }
            _ => { type $t = u64; $e }
        }
    };
}

pub(crate) use {by_addr, by_size};
