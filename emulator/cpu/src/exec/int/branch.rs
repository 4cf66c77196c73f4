//! Near control transfers in 64-bit mode, and the ends of blocks.
//!
//! A terminal op is followed by [`crate::op::Links`]: its direct successors, found by the run loop when they are first
//! taken. [`crate::op::Op::imm`] of a direct branch is the distance from the block's first byte to the target, so blocks
//! do not depend on the linear address they run at.

use super::{Addr, Fast, Full, Policy, Slow, fault_exit};
use crate::lazy::Lazy;
use crate::op::{At, BlockHeader, Handler, Link, Target, chain, chain_to};
use crate::operand::canonical;
use crate::state::{Cpu, slot};
use x86::Exception;

const RSP: usize = slot::RSP as usize;
const RIP: usize = slot::RIP as usize;

/// Condition codes (SDM Vol. 1, table B-1): O, NO, B, NB, Z, NZ, BE, NBE, S, NS, P, NP, L, NL, LE, NLE.
#[inline(always)]
pub fn condition<const CC: u8>(lazy: &Lazy) -> bool {
    let c = match CC >> 1 {
        0 => lazy.of(),
        1 => lazy.cf(),
        2 => lazy.zf(),
        3 => lazy.cf() | lazy.zf(),
        4 => lazy.sf(),
        5 => lazy.pf(),
        6 => less(lazy),
        _ => less(lazy) | lazy.zf(),
    };
    c ^ (CC & 1 != 0)
}

/// SF != OF
#[inline(always)]
fn less(lazy: &Lazy) -> bool {
    ((lazy.res ^ lazy.x) >> 63 ^ lazy.c ^ lazy.c >> 1) & 1 != 0
}

/// An op that ends a block, or may leave it.
pub trait End: 'static {
    fn end(cpu: &mut Cpu, op: At);
}

/// The handler of an op that ends a block. Never inlined, so that it has one address, by which [`super::fuse`] knows it.
#[inline(never)]
pub fn ending<E: End>(cpu: &mut Cpu, op: At) {
    E::end(cpu, op)
}

/// Enters a block at `rip`, or asks the run loop to. `FALL`: no branch leads there.
#[inline(always)]
fn enter<const FALL: bool>(cpu: &mut Cpu, to: Target, rip: u64, link: Option<&'static Link>) {
    cpu.regs[RIP] = rip;
    cpu.budget -= to.block.cost();
    if cpu.budget < 0 {
        return not_entered::<FALL>(cpu, to.block, link);
    }
    chain_to(cpu, to.f, to.block.first())
}

/// Undoes what [`enter`] did.
#[cold]
#[inline(never)]
fn not_entered<const FALL: bool>(cpu: &mut Cpu, header: &'static BlockHeader, link: Option<&'static Link>) {
    cpu.budget += header.cost();
    cpu.next_ip = cpu.regs[RIP];
    cpu.unretired = 0;
    cpu.followed = link;
    cpu.sequential |= FALL;
}

#[inline(always)]
fn reachable(cpu: &Cpu, header: &BlockHeader, rip: u64) -> bool {
    header.reachable(rip ^ cpu.jumps.salt, cpu.blocks.link_generation)
}

/// Continues at a direct successor.
#[inline(always)]
fn follow<const CROSS: bool, const FALL: bool>(cpu: &mut Cpu, link: &'static Link, rip: u64) {
    if let Some(to) = link.target()
        && (!CROSS || reachable(cpu, to.block, rip))
    {
        return enter::<FALL>(cpu, to, rip, Some(link));
    }
    unlinked::<FALL>(cpu, link, rip)
}

/// Asks the run loop for the block at `rip` and for the link to it.
#[cold]
#[inline(never)]
fn unlinked<const FALL: bool>(cpu: &mut Cpu, link: &'static Link, rip: u64) {
    cpu.next_ip = rip;
    cpu.unretired = 0;
    cpu.sequential |= FALL;
    cpu.followed = Some(link);
}

/// JMP rel
#[inline(always)]
fn jmp<const CROSS: bool>(cpu: &mut Cpu, op: At) {
    let rip = cpu.regs[RIP].wrapping_add(op.imm);
    follow::<CROSS, false>(cpu, &op.links().taken, rip)
}

/// Jcc rel. The block goes on after it, unless a successor is in another page.
#[inline(always)]
fn jcc<const CC: u8, const CROSS: bool>(cpu: &mut Cpu, op: At) {
    if condition::<CC>(&cpu.lazy) {
        let rip = cpu.regs[RIP].wrapping_add(op.imm);
        if !CROSS {
            cpu.budget += i64::from(op.rest);
        }
        return follow::<CROSS, false>(cpu, &op.links().taken, rip);
    }
    if !CROSS {
        return chain(cpu, op.following().following());
    }
    let rip = op.next_ip(cpu);
    follow::<CROSS, true>(cpu, &op.links().after, rip)
}

/// The end of a block that no instruction ends: the next one belongs to another block. `ip_off` is its offset, `len` is 0.
#[inline(always)]
fn fall<const CROSS: bool>(cpu: &mut Cpu, op: At) {
    let rip = op.ip(cpu);
    follow::<CROSS, true>(cpu, &op.links().after, rip)
}

/// CALL rel
#[inline(always)]
fn call<const CROSS: bool, P: Policy>(cpu: &mut Cpu, op: At) {
    let sp = cpu.regs[RSP].wrapping_sub(8);
    let ret = op.next_ip(cpu);
    if !P::store::<u64>(cpu, sp, ret, op) {
        return P::miss(cpu, op, slow_call::<CROSS>);
    }
    cpu.regs[RSP] = sp;
    called(cpu, op, ret);
    let rip = cpu.regs[RIP].wrapping_add(op.imm);
    if P::leaves(cpu) {
        return transfer(cpu, rip);
    }
    follow::<CROSS, false>(cpu, &op.links().taken, rip)
}

#[cold]
#[inline(never)]
fn slow_call<const CROSS: bool>(cpu: &mut Cpu, op: At) {
    call::<CROSS, Slow>(cpu, op)
}

/// Continues at an indirect target through the jump cache.
#[inline(always)]
fn jump_to(cpu: &mut Cpu, rip: u64) {
    if let Some(header) = cpu.jumps.entry(rip)
        && reachable(cpu, header, rip)
    {
        return enter::<false>(cpu, Target { block: header, f: header.first().f }, rip, None);
    }
    transfer(cpu, rip)
}

/// Continues after an instruction that ends a block without a transfer. An interrupt shadow (STI, MOV SS) ends with the next
/// instruction; no event waits that it could hold up, so it ends with the entry into the next block.
pub fn go_on(cpu: &mut Cpu, op: At) {
    let rip = op.next_ip(cpu);
    let link = &op.links().after;
    let shadow = std::mem::take(&mut cpu.interrupt_shadow);
    if let Some(to) = link.target()
        && reachable(cpu, to.block, rip)
        && to.block.cost() <= cpu.budget
    {
        return enter::<true>(cpu, to, rip, Some(link));
    }
    cpu.interrupt_shadow = shadow;
    unlinked::<true>(cpu, link, rip)
}

/// Continues where an instruction that is no near branch has set RIP to.
pub fn arrive(cpu: &mut Cpu) {
    jump_to(cpu, cpu.next_ip)
}

/// Notes where the call at `op` is to return to.
#[inline(always)]
fn called(cpu: &mut Cpu, op: At, ret: u64) {
    cpu.returns.push(ret, &op.links().after);
}

/// Leaves the chain for the run loop, to continue at `rip`.
#[cold]
#[inline(never)]
fn transfer(cpu: &mut Cpu, rip: u64) {
    cpu.next_ip = rip;
    cpu.unretired = 0;
}

/// A branch to a non-canonical address faults before it changes anything (SDM Vol. 2A, CALL, JMP, RET).
#[cold]
#[inline(never)]
fn bad_target(cpu: &mut Cpu, op: At) {
    cpu.fault = Some(Exception::GP0);
    fault_exit(cpu, op)
}

/// JMP r64
fn jmp_r(cpu: &mut Cpu, op: At) {
    let rip = cpu.regs[op.s as usize];
    if !canonical(rip) {
        return bad_target(cpu, op);
    }
    jump_to(cpu, rip)
}

/// JMP m64
fn jmp_m<P: Policy>(cpu: &mut Cpu, op: At) {
    let va = Full::ea(cpu, op);
    let Some(rip) = P::load::<u64>(cpu, va, op) else { return P::miss(cpu, op, jmp_m::<Slow>) };
    if !canonical(rip) {
        return bad_target(cpu, op);
    }
    if P::leaves(cpu) {
        return transfer(cpu, rip);
    }
    jump_to(cpu, rip)
}

/// CALL r64
fn call_r<P: Policy>(cpu: &mut Cpu, op: At) {
    let rip = cpu.regs[op.s as usize];
    if !canonical(rip) {
        return bad_target(cpu, op);
    }
    let sp = cpu.regs[RSP].wrapping_sub(8);
    let ret = op.next_ip(cpu);
    if !P::store::<u64>(cpu, sp, ret, op) {
        return P::miss(cpu, op, call_r::<Slow>);
    }
    cpu.regs[RSP] = sp;
    called(cpu, op, ret);
    if P::leaves(cpu) {
        return transfer(cpu, rip);
    }
    jump_to(cpu, rip)
}

/// CALL m64
fn call_m<P: Policy>(cpu: &mut Cpu, op: At) {
    let va = Full::ea(cpu, op);
    let Some(rip) = P::load::<u64>(cpu, va, op) else { return P::miss(cpu, op, call_m::<Slow>) };
    if !canonical(rip) {
        return bad_target(cpu, op);
    }
    let sp = cpu.regs[RSP].wrapping_sub(8);
    let ret = op.next_ip(cpu);
    if !P::store_stack::<u64>(cpu, sp, ret, op) {
        return P::miss(cpu, op, call_m::<Slow>);
    }
    cpu.regs[RSP] = sp;
    called(cpu, op, ret);
    if P::leaves(cpu) {
        return transfer(cpu, rip);
    }
    jump_to(cpu, rip)
}

/// RET, RET imm16 ([`crate::op::Op::imm`] bytes released, 0 for the plain form)
#[inline(always)]
fn ret(cpu: &mut Cpu, op: At) {
    match cpu.fast.load::<u64>(cpu.regs[RSP]) {
        Some(rip) => return_to(cpu, op, rip),
        None => return_anywhere::<Slow>(cpu, op),
    }
}

/// RET at `op` to `rip`, which is at the top of the stack.
#[inline(always)]
pub(super) fn return_to(cpu: &mut Cpu, op: At, rip: u64) {
    // Where the latest call has led before, no other checks are due: a block was found there, so the address is canonical.
    if let Some(call) = cpu.returns.latest(rip)
        && let Some(to) = call.target
        && reachable(cpu, to.block, rip)
    {
        cpu.regs[RSP] = cpu.regs[RSP].wrapping_add(8).wrapping_add(op.imm);
        cpu.returns.pop();
        return enter::<false>(cpu, to, rip, call.link);
    }
    return_anywhere::<Fast>(cpu, op)
}

/// RET in general.
#[inline(never)]
fn return_anywhere<P: Policy>(cpu: &mut Cpu, op: At) {
    let sp = cpu.regs[RSP];
    let Some(rip) = P::load::<u64>(cpu, sp, op) else { return P::miss(cpu, op, return_anywhere::<Slow>) };
    if !canonical(rip) {
        return bad_target(cpu, op);
    }
    cpu.regs[RSP] = sp.wrapping_add(8).wrapping_add(op.imm);
    let link = cpu.returns.latest(rip).and_then(|call| call.link);
    cpu.returns.pop();
    if P::leaves(cpu) {
        return transfer(cpu, rip);
    }
    match link {
        Some(link) => follow::<true, false>(cpu, link, rip),
        None => jump_to(cpu, rip),
    }
}

macro_rules! ends {
    ($($(#[$doc:meta])* $name:ident $(<$(const $g:ident: $t:ty),*>)? = $f:expr;)*) => {
        $(
            $(#[$doc])*
            pub struct $name$(<$(const $g: $t),*>)?;

            impl$(<$(const $g: $t),*>)? End for $name$(<$($g),*>)? {
                #[inline(always)]
                fn end(cpu: &mut Cpu, op: At) {
                    $f(cpu, op)
                }
            }
        )*
    };
}

ends! {
    /// Jcc rel
    Jcc<const CC: u8, const CROSS: bool> = jcc::<CC, CROSS>;
    /// JMP rel
    Jmp<const CROSS: bool> = jmp::<CROSS>;
    /// CALL rel
    Call<const CROSS: bool> = call::<CROSS, Fast>;
    /// RET
    Ret = ret;
    /// See [`fall_handler`].
    Fall<const CROSS: bool> = fall::<CROSS>;
}

fn jcc_for<const CC: u8>(cross: bool) -> Handler {
    if cross { ending::<Jcc<CC, true>> } else { ending::<Jcc<CC, false>> }
}

/// Jcc; `cross`: a successor is in another page.
pub fn jcc_handler(cc: u8, cross: bool) -> Handler {
    super::mov::by_condition!(cc, jcc_for, (cross))
}

pub fn jmp_handler(cross: bool) -> Handler {
    if cross { ending::<Jmp<true>> } else { ending::<Jmp<false>> }
}

pub fn call_handler(cross: bool) -> Handler {
    if cross { ending::<Call<true>> } else { ending::<Call<false>> }
}

/// The end of a block that no instruction ends.
pub fn fall_handler(cross: bool) -> Handler {
    if cross { ending::<Fall<true>> } else { ending::<Fall<false>> }
}

pub const JMP_R: Handler = jmp_r;
pub const JMP_M: Handler = jmp_m::<Fast>;
pub const CALL_R: Handler = call_r::<Fast>;
pub const CALL_M: Handler = call_m::<Fast>;
pub const RET: Handler = ending::<Ret>;
