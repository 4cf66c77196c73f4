//! RCL, RCR, SHLD, SHRD (SDM Vol. 2B).
//!
//! OF is defined for counts of 1 only; for other counts it is what Intel processors compute: the formula of count 1
//! applied to the result.

use super::{mask, msb, operand_size, sign_extend};
use crate::Cpu;
use crate::lazy::Lazy;
use iced_x86::Instruction;
use x86::{Exception, flags};

/// Counts are taken modulo 32, or 64 for 64-bit operands.
fn masked_count(count: u64, size: usize) -> u32 {
    (count & if size == 8 { 63 } else { 31 }) as u32
}

fn flag(on: bool, flag: u64) -> u64 {
    if on { flag } else { 0 }
}

/// Rotates the `bits + 1` bits of CF:value left by `count`; returns the value and CF.
fn rotate_through_carry(value: u64, carry: bool, count: u32, bits: u32) -> (u64, bool) {
    let ring = bits + 1;
    let whole = u128::from(carry) << bits | u128::from(value);
    let count = count % ring;
    let rotated = if count == 0 { whole } else { whole << count | whole >> (ring - count) };
    ((rotated & ((1 << bits) - 1)) as u64, rotated >> bits & 1 != 0)
}

pub(super) fn rcl(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    let size = operand_size(insn, 0);
    let count = masked_count(cpu.read_operand(insn, 1)?, size);
    let carry_in = cpu.lazy.cf();
    let rotate = |v| rotate_through_carry(v, carry_in, count, size as u32 * 8);
    let old = cpu.modify_operand(insn, 0, |v| rotate(v).0)?;
    if count != 0 {
        let (result, carry) = rotate(old);
        let of = msb(result, size) != carry;
        cpu.change_arithmetic_flags(flags::CF | flags::OF, flag(carry, flags::CF) | flag(of, flags::OF));
    }
    Ok(())
}

pub(super) fn rcr(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    let size = operand_size(insn, 0);
    let bits = size as u32 * 8;
    let count = masked_count(cpu.read_operand(insn, 1)?, size);
    let carry_in = cpu.lazy.cf();
    let left = (bits + 1) - count % (bits + 1);
    let rotate = |v| rotate_through_carry(v, carry_in, left, bits);
    let old = cpu.modify_operand(insn, 0, |v| rotate(v).0)?;
    if count != 0 {
        let (result, carry) = rotate(old);
        let of = msb(result, size) != msb(result << 1, size);
        cpu.change_arithmetic_flags(flags::CF | flags::OF, flag(carry, flags::CF) | flag(of, flags::OF));
    }
    Ok(())
}

/// Result and last bit shifted out of a left double shift, `count` > 0. A 16-bit operand with a count above 16 is
/// undefined; Intel processors shift destination:source:destination.
fn double_left(destination: u64, source: u64, count: u32, size: usize) -> (u64, bool) {
    let bits = size as u32 * 8;
    let (d, s) = (u128::from(destination), u128::from(source));
    let shifted = match size {
        2 => (d << 32 | s << 16 | d) << count >> 32,
        _ => (d << bits | s) << count >> bits,
    };
    // Above bit 63 of a 64-bit operand the shift drops what is shifted out; below it stays visible.
    let carry = if count <= bits { destination >> (bits - count) & 1 } else { source >> (2 * bits - count) & 1 };
    (shifted as u64 & mask(size), carry != 0)
}

/// The same to the right.
fn double_right(destination: u64, source: u64, count: u32, size: usize) -> (u64, bool) {
    let bits = size as u32 * 8;
    let (d, s) = (u128::from(destination), u128::from(source));
    let whole = match size {
        2 => d << 32 | s << 16 | d,
        _ => s << bits | d,
    };
    ((whole >> count) as u64 & mask(size), whole >> (count - 1) & 1 != 0)
}

fn double_shift(
    cpu: &mut Cpu,
    insn: &Instruction,
    shift: fn(u64, u64, u32, usize) -> (u64, bool),
) -> Result<(), Exception> {
    let size = operand_size(insn, 0);
    let source = cpu.read_operand(insn, 1)?;
    let count = masked_count(cpu.read_operand(insn, 2)?, size);
    if count == 0 {
        // Nothing changes, but a 32-bit register is still written (its upper half is cleared) and memory still stored.
        cpu.modify_operand(insn, 0, |v| v)?;
        return Ok(());
    }
    let old = cpu.modify_operand(insn, 0, |v| shift(v, source, count, size).0)?;
    let (result, carry) = shift(old, source, count, size);
    // OF: the sign changed in the last single-bit step. AF (undefined) is cleared.
    let before = if count == 1 { old } else { shift(old, source, count - 1, size).0 };
    let overflow = msb(before, size) != msb(result, size);
    let carry = u64::from(carry);
    cpu.lazy = Lazy { res: sign_extend(result, size) as u64, x: (carry ^ u64::from(overflow)) << 63, c: carry };
    Ok(())
}

pub(super) fn shld(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    double_shift(cpu, insn, double_left)
}

pub(super) fn shrd(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    double_shift(cpu, insn, double_right)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotates_through_carry_are_cyclic_in_size_plus_one_bits() {
        for bits in [8, 16, 32, 64] {
            let value = 0x8123_4567_89AB_CDEF & (u64::MAX >> (64 - bits));
            assert_eq!(rotate_through_carry(value, true, bits + 1, bits), (value, true));
            let (v, c) = rotate_through_carry(value, false, 5, bits);
            assert_eq!(rotate_through_carry(v, c, bits + 1 - 5, bits), (value, false));
        }
        assert_eq!(rotate_through_carry(0x80, false, 1, 8), (0, true));
        assert_eq!(rotate_through_carry(0, true, 1, 8), (1, false));
    }

    #[test]
    fn double_shifts_move_bits_in_from_the_source() {
        assert_eq!(double_left(0x1234_5678, 0x9ABC_DEF0, 8, 4), (0x3456_789A, false));
        assert_eq!(double_right(0x1234_5678, 0x9ABC_DEF0, 8, 4), (0xF012_3456, false));
        assert_eq!(double_left(0x8000_0000_0000_0001, u64::MAX, 1, 8), (3, true));
        assert_eq!(double_right(1, 1, 1, 8), (1 << 63, true));
        assert_eq!(double_left(0x1234, 0x5678, 20, 2), (0x6781, true));
    }
}
