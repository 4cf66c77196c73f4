//! Exchanges, MOVBE, XLAT and MOV with a direct offset (SDM Vol. 2A and 2B). LOCK adds nothing: one processor executes at
//! a time, and atomicity does not reach across KeyIDs (MK specification R8).

use super::{add_flags, mask, operand_size, sub_flags};
use crate::Cpu;
use crate::exec::cold::cold;
use crate::exec::int::{Addr, Full};
use crate::mmu::Access;
use crate::op::{At, next};
use crate::state::slot;
use iced_x86::{Instruction, OpKind, Register};
use x86::{Exception, flags};

/// MOV between the accumulator and memory at a direct offset.
pub(super) fn mov(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    let value = cpu.read_operand(insn, 1)?;
    cpu.write_operand(insn, 0, value)
}

pub(super) fn xchg(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    // iced may put memory first or second; the register is the other one.
    let (place, register) = if insn.op0_kind() == OpKind::Register && insn.op1_kind() != OpKind::Register {
        (1, insn.op0_register())
    } else {
        (0, insn.op1_register())
    };
    let value = cpu.reg(register);
    let old = cpu.modify_operand(insn, place, |_| value)?;
    cpu.set_reg(register, old);
    Ok(())
}

/// XADD: the source takes the old destination first, so that with one register as both the sum stays.
pub(super) fn xadd(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    let size = operand_size(insn, 0);
    let source = insn.op1_register();
    let addend = cpu.reg(source);
    if insn.op0_kind() == OpKind::Register {
        let destination = insn.op0_register();
        let old = cpu.reg(destination);
        cpu.set_reg(source, old);
        cpu.set_reg(destination, old.wrapping_add(addend));
        cpu.lazy = add_flags(old, addend, size);
    } else {
        let old = cpu.modify_operand(insn, 0, |v| v.wrapping_add(addend))?;
        cpu.set_reg(source, old);
        cpu.lazy = add_flags(old, addend, size);
    }
    Ok(())
}

/// CMPXCHG: the destination is written in either case; the accumulator only if the comparison failed (so that success
/// does not clear the upper half of RAX).
pub(super) fn cmpxchg(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    let size = operand_size(insn, 0);
    let accumulator = match size {
        1 => Register::AL,
        2 => Register::AX,
        4 => Register::EAX,
        _ => Register::RAX,
    };
    let expected = cpu.reg(accumulator);
    let new = cpu.reg(insn.op1_register());
    let old = cpu.modify_operand(insn, 0, |v| if v == expected { new } else { v })?;
    if old != expected {
        cpu.set_reg(accumulator, old);
    }
    cpu.lazy = sub_flags(expected, old, size);
    Ok(())
}

/// Joins two registers to the value they form, each `size` bytes.
#[inline(always)]
fn pair(cpu: &Cpu, high: u8, low: u8, size: usize) -> u128 {
    let half = |r: u8| u128::from(cpu.regs[r as usize] & mask(size));
    half(high) << (size * 8) | half(low)
}

/// CMPXCHG8B and CMPXCHG16B: only ZF changes.
fn cmpxchg_pair(cpu: &mut Cpu, linear: u64, size: usize) -> Result<(), Exception> {
    let bytes = size * 2;
    cpu.probe_write(linear, bytes)?;
    let mut buf = [0; 16];
    cpu.read_linear(linear, &mut buf[..bytes])?;
    let old = u128::from_le_bytes(buf);
    let stored = replacement(cpu, old, size);
    cpu.write_linear(linear, &stored.unwrap_or(old).to_le_bytes()[..bytes])?;
    conclude(cpu, old, stored.is_some(), size);
    Ok(())
}

/// What CMPXCHG8B and CMPXCHG16B replace `old` by, if it is what they expect.
#[inline(always)]
fn replacement(cpu: &Cpu, old: u128, size: usize) -> Option<u128> {
    (old == pair(cpu, slot::RDX, slot::RAX, size)).then(|| pair(cpu, slot::RCX, slot::RBX, size))
}

/// What they leave in registers and flags.
#[inline(always)]
fn conclude(cpu: &mut Cpu, old: u128, equal: bool, size: usize) {
    if !equal {
        cpu.regs[slot::RAX as usize] = old as u64 & mask(size);
        cpu.regs[slot::RDX as usize] = (old >> (size * 8)) as u64 & mask(size);
    }
    cpu.change_arithmetic_flags(flags::ZF, if equal { flags::ZF } else { 0 });
}

/// CMPXCHG16B in 64-bit mode, on the fast path. What else it may do is the cold op's.
pub(crate) fn cmpxchg16b_hot(cpu: &mut Cpu, op: At) {
    let Some(place) = cpu.fast.slot::<u128>(Full::ea(cpu, op)) else { return cold(cpu, op) };
    let old = place.get();
    let stored = replacement(cpu, old, 8);
    place.set(stored.unwrap_or(old));
    conclude(cpu, old, stored.is_some(), 8);
    next(cpu, op)
}

pub(super) fn cmpxchg8b(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    let linear = cpu.linear_address(insn, 8, Access::Write)?;
    cmpxchg_pair(cpu, linear, 4)
}

pub(super) fn cmpxchg16b(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    // Alignment before the last byte: see `exec::simd`'s aligned operands.
    if cpu.linear_address(insn, 1, Access::Write)? & 15 != 0 {
        return Err(Exception::GP0);
    }
    let linear = cpu.linear_address(insn, 16, Access::Write)?;
    cmpxchg_pair(cpu, linear, 8)
}

pub(super) fn movbe(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    let size = operand_size(insn, 0);
    let value = cpu.read_operand(insn, 1)?;
    cpu.write_operand(insn, 0, value.swap_bytes() >> (64 - size * 8))
}

/// XLAT: AL := \[rBX + AL\].
pub(super) fn xlat(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    let value = cpu.read_operand(insn, 0)?;
    cpu.set_reg(Register::AL, value);
    Ok(())
}
