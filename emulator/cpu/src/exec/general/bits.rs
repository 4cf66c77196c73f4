//! BT, BTS, BTR and BTC of a bit string in memory that a register indexes, with addresses of 16 and 32 bits (SDM Vol. 2A).
//! The other forms are in `exec::int`.

use super::{mask, sign_extend};
use crate::Cpu;
use crate::mmu::Access;
use crate::operand::{address_size, memory_segment};
use iced_x86::Instruction;
use x86::{Exception, flags};

/// The linear address of the operand that holds the bit, and the bit's number in it. The string reaches from -2^(n-1) to
/// 2^(n-1) - 1 bits around the instruction's address.
fn memory_bit(cpu: &mut Cpu, insn: &Instruction, access: Access) -> Result<(u64, u32), Exception> {
    let size = insn.memory_size().size();
    let bits = size as i64 * 8;
    let offset = sign_extend(cpu.read_operand(insn, 1)?, size);
    let displacement = offset.div_euclid(bits) * size as i64;
    let address_mask = mask(address_size(insn, cpu.mode.bitness()));
    let ea = cpu.effective_address(insn).wrapping_add(displacement as u64) & address_mask;
    let linear = cpu.segment_address(memory_segment(insn, cpu.mode), ea, size, access)?;
    Ok((linear, offset.rem_euclid(bits) as u32))
}

/// Tests a bit and replaces the operand by `f(operand, bit mask)`. CF is the old bit; ZF is unaffected, and so are OF, SF,
/// AF and PF, which the SDM leaves undefined.
fn test_and(cpu: &mut Cpu, insn: &Instruction, f: fn(u64, u64) -> u64) -> Result<(), Exception> {
    let (linear, bit) = memory_bit(cpu, insn, Access::Write)?;
    let old = cpu.modify_memory(linear, insn.memory_size().size(), |v| f(v, 1 << bit))?;
    cpu.change_arithmetic_flags(flags::CF, old >> bit & flags::CF);
    Ok(())
}

pub(super) fn bt(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    let (linear, bit) = memory_bit(cpu, insn, Access::Read)?;
    let value = cpu.load_sized(linear, insn.memory_size().size())?;
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
