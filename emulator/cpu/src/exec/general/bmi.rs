//! BMI1 and BMI2 (SDM Vol. 2A and 2B). VEX-encoded: #UD in real-address and virtual-8086 mode.

use super::{mask, operand_size, sign_extend};
use crate::Cpu;
use crate::lazy::Lazy;
use crate::state::slot;
use iced_x86::Instruction;
use x86::Exception;

fn require_vex(cpu: &Cpu) -> Result<(), Exception> {
    if cpu.mode.is_protected() { Ok(()) } else { Err(Exception::UD) }
}

/// Reads operands 1 and 2.
fn sources(cpu: &mut Cpu, insn: &Instruction) -> Result<(u64, u64), Exception> {
    require_vex(cpu)?;
    Ok((cpu.read_operand(insn, 1)?, cpu.read_operand(insn, 2)?))
}

/// Writes the destination, and SF and ZF with it; OF = 0; AF and PF are undefined.
fn finish(cpu: &mut Cpu, insn: &Instruction, result: u64, carry: bool) {
    let size = operand_size(insn, 0);
    cpu.set_reg(insn.op0_register(), result);
    let c = u64::from(carry);
    // x bit 63 = CF makes OF 0.
    cpu.lazy = Lazy { res: sign_extend(result, size) as u64, x: c << 63, c };
}

pub(super) fn andn(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    let (a, b) = sources(cpu, insn)?;
    finish(cpu, insn, !a & b, false);
    Ok(())
}

/// BEXTR: start in bits 7:0 and length in bits 15:8 of the control operand. Only ZF, CF and OF are defined.
pub(super) fn bextr(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    let (source, control) = sources(cpu, insn)?;
    let (start, length) = (control as u32 & 0xFF, control as u32 >> 8 & 0xFF);
    let shifted = source.checked_shr(start).unwrap_or(0);
    let kept = 1u64.checked_shl(length).map_or(u64::MAX, |bit| bit - 1);
    finish(cpu, insn, shifted & kept, false);
    Ok(())
}

/// The three with one source.
fn lowest_bit(cpu: &mut Cpu, insn: &Instruction, f: fn(u64) -> u64, carry: fn(u64) -> bool) -> Result<(), Exception> {
    require_vex(cpu)?;
    let source = cpu.read_operand(insn, 1)?;
    let result = f(source) & mask(operand_size(insn, 0));
    finish(cpu, insn, result, carry(source));
    Ok(())
}

pub(super) fn blsi(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    lowest_bit(cpu, insn, |v| v & v.wrapping_neg(), |v| v != 0)
}

pub(super) fn blsmsk(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    lowest_bit(cpu, insn, |v| v ^ v.wrapping_sub(1), |v| v == 0)
}

pub(super) fn blsr(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    lowest_bit(cpu, insn, |v| v & v.wrapping_sub(1), |v| v == 0)
}

pub(super) fn bzhi(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    let bits = operand_size(insn, 0) as u64 * 8;
    let (source, control) = sources(cpu, insn)?;
    let index = control & 0xFF;
    let saturated = index >= bits;
    let result = if saturated { source } else { source & ((1 << index) - 1) };
    finish(cpu, insn, result, saturated);
    Ok(())
}

/// MULX: high half to operand 0, low half to operand 1; if they are the same register, the high half stays. No flags.
pub(super) fn mulx(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    require_vex(cpu)?;
    let size = operand_size(insn, 0);
    let a = cpu.regs[slot::RDX as usize] & mask(size);
    let product = u128::from(a) * u128::from(cpu.read_operand(insn, 2)?);
    cpu.set_reg(insn.op1_register(), product as u64);
    cpu.set_reg(insn.op0_register(), (product >> (size * 8)) as u64);
    Ok(())
}

fn deposit(mut source: u64, mut mask: u64) -> u64 {
    let mut result = 0;
    while mask != 0 {
        let bit = mask & mask.wrapping_neg();
        if source & 1 != 0 {
            result |= bit;
        }
        source >>= 1;
        mask ^= bit;
    }
    result
}

fn extract(source: u64, mut mask: u64) -> u64 {
    let (mut result, mut position) = (0, 0);
    while mask != 0 {
        let bit = mask & mask.wrapping_neg();
        result |= u64::from(source & bit != 0) << position;
        position += 1;
        mask ^= bit;
    }
    result
}

pub(super) fn pdep(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    let (source, selector) = sources(cpu, insn)?;
    cpu.set_reg(insn.op0_register(), deposit(source, selector));
    Ok(())
}

pub(super) fn pext(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    let (source, selector) = sources(cpu, insn)?;
    cpu.set_reg(insn.op0_register(), extract(source, selector));
    Ok(())
}

/// RORX, SARX, SHLX, SHRX: counts are taken modulo the operand size; no flags.
fn shift(cpu: &mut Cpu, insn: &Instruction, f: fn(u64, u32, usize) -> u64) -> Result<(), Exception> {
    let size = operand_size(insn, 0);
    let (source, count) = sources(cpu, insn)?;
    let count = count as u32 & (size as u32 * 8 - 1);
    cpu.set_reg(insn.op0_register(), f(source, count, size));
    Ok(())
}

pub(super) fn rorx(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    shift(cpu, insn, |v, n, size| if size == 8 { v.rotate_right(n) } else { u64::from((v as u32).rotate_right(n)) })
}

pub(super) fn sarx(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    shift(cpu, insn, |v, n, size| (sign_extend(v, size) >> n) as u64)
}

pub(super) fn shlx(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    shift(cpu, insn, |v, n, _| v << n)
}

pub(super) fn shrx(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    shift(cpu, insn, |v, n, _| v >> n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extract_undoes_deposit() {
        for (source, selector) in [(0x5A5A, 0xFF00_FF00_00FF_F0F0), (u64::MAX, u64::MAX), (3, 1 << 63 | 1), (7, 0)] {
            let kept = 1u64.checked_shl(selector.count_ones()).map_or(u64::MAX, |b| b - 1);
            assert_eq!(extract(deposit(source, selector), selector), source & kept);
            assert_eq!(deposit(source, selector) & !selector, 0);
        }
        assert_eq!(deposit(0b1011, 0b1010_1010), 0b1000_1010);
    }
}
