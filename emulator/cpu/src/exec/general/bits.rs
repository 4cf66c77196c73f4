//! Bit tests, scans and counts (SDM Vol. 2A and 2B).

use super::{mask, operand_size, sign_extend};
use crate::Cpu;
use crate::mmu::Access;
use crate::operand::{address_size, memory_segment};
use iced_x86::{Instruction, OpKind};
use x86::{Exception, flags};

/// The linear address of the operand that holds a bit, and the bit's number in it. With a register bit offset the memory
/// operand is a bit string that reaches from -2^(n-1) to 2^(n-1) - 1 bits around its address.
fn memory_bit(cpu: &mut Cpu, insn: &Instruction, access: Access) -> Result<(u64, u32), Exception> {
    let size = insn.memory_size().size();
    let bits = size as i64 * 8;
    let offset = cpu.read_operand(insn, 1)?;
    let (displacement, bit) = if insn.op1_kind() == OpKind::Register {
        let offset = sign_extend(offset, size);
        (offset.div_euclid(bits) * size as i64, offset.rem_euclid(bits))
    } else {
        (0, offset as i64 & (bits - 1))
    };
    let address_mask = mask(address_size(insn, cpu.mode.bitness()));
    let ea = cpu.effective_address(insn).wrapping_add(displacement as u64) & address_mask;
    let linear = cpu.segment_address(memory_segment(insn, cpu.mode), ea, size, access)?;
    Ok((linear, bit as u32))
}

/// Tests a bit and replaces the operand by `f(operand, bit mask)`. CF is the old bit; ZF is unaffected, and so are OF, SF,
/// AF and PF, which the SDM leaves undefined.
fn test_and(cpu: &mut Cpu, insn: &Instruction, f: fn(u64, u64) -> u64) -> Result<(), Exception> {
    let (old, bit) = if insn.op0_kind() == OpKind::Register {
        let bit = cpu.read_operand(insn, 1)? as u32 & (insn.op0_register().size() as u32 * 8 - 1);
        (cpu.modify_operand(insn, 0, |v| f(v, 1 << bit))?, bit)
    } else {
        let (linear, bit) = memory_bit(cpu, insn, Access::Write)?;
        (cpu.modify_memory(linear, insn.memory_size().size(), |v| f(v, 1 << bit))?, bit)
    };
    cpu.change_arithmetic_flags(flags::CF, old >> bit & flags::CF);
    Ok(())
}

pub(super) fn bt(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    let (value, bit) = if insn.op0_kind() == OpKind::Register {
        let bit = cpu.read_operand(insn, 1)? as u32 & (insn.op0_register().size() as u32 * 8 - 1);
        (cpu.reg(insn.op0_register()), bit)
    } else {
        let (linear, bit) = memory_bit(cpu, insn, Access::Read)?;
        (cpu.load_sized(linear, insn.memory_size().size())?, bit)
    };
    cpu.change_arithmetic_flags(flags::CF, value >> bit & flags::CF);
    Ok(())
}

pub(super) fn bts(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    test_and(cpu, insn, |v, bit| v | bit)
}

pub(super) fn btr(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    test_and(cpu, insn, |v, bit| v & !bit)
}

pub(super) fn btc(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    test_and(cpu, insn, |v, bit| v ^ bit)
}

/// BSF and BSR: a zero source sets ZF and leaves the whole destination alone. The other flags (undefined) are cleared.
fn scan(cpu: &mut Cpu, insn: &Instruction, index: fn(u64) -> u32) -> Result<(), Exception> {
    let source = cpu.read_operand(insn, 1)?;
    if source == 0 {
        cpu.lazy.set(flags::ZF);
    } else {
        cpu.set_reg(insn.op0_register(), u64::from(index(source)));
        cpu.lazy.set(0);
    }
    Ok(())
}

pub(super) fn bsf(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    scan(cpu, insn, u64::trailing_zeros)
}

pub(super) fn bsr(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    scan(cpu, insn, u64::ilog2)
}

/// TZCNT and LZCNT: CF tells that the source is zero, ZF that the count is. The other flags (undefined) are cleared.
fn count(cpu: &mut Cpu, insn: &Instruction, f: fn(u64, u32) -> u32) -> Result<(), Exception> {
    let bits = operand_size(insn, 0) as u32 * 8;
    let source = cpu.read_operand(insn, 1)?;
    let n = f(source, bits);
    cpu.set_reg(insn.op0_register(), u64::from(n));
    let carry = if n == bits { flags::CF } else { 0 };
    cpu.lazy.set(carry | if n == 0 { flags::ZF } else { 0 });
    Ok(())
}

pub(super) fn tzcnt(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    count(cpu, insn, |v, bits| v.trailing_zeros().min(bits))
}

pub(super) fn lzcnt(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    count(cpu, insn, |v, bits| v.leading_zeros() - (64 - bits))
}

/// POPCNT: ZF for a zero source, all other flags cleared.
pub(super) fn popcnt(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    let source = cpu.read_operand(insn, 1)?;
    cpu.set_reg(insn.op0_register(), u64::from(source.count_ones()));
    cpu.lazy.set(if source == 0 { flags::ZF } else { 0 });
    Ok(())
}
