//! What 64-bit mode dropped: decimal adjustment and BOUND (SDM Vol. 2A). They do not decode there.

use super::{mask, sign_extend};
use crate::Cpu;
use crate::mmu::Access;
use iced_x86::{Instruction, Register};
use x86::{Exception, flags};

const LOW_NIBBLE: u64 = 0xF;

/// SF, ZF and PF of AL, with `carries` (CF and AF); OF, which is undefined, is cleared.
fn set_flags_of_al(cpu: &mut Cpu, carries: u64) {
    let al = cpu.reg(Register::AL);
    cpu.lazy.set_logic(sign_extend(al, 1) as u64);
    cpu.change_arithmetic_flags(flags::CF | flags::AF, carries);
}

/// AAA and AAS. OF, SF, ZF and PF are undefined: those of AL here.
fn ascii_adjust(cpu: &mut Cpu, delta: u64) -> Result<(), Exception> {
    let ax = cpu.reg(Register::AX);
    let adjust = ax & LOW_NIBBLE > 9 || cpu.lazy.af();
    let adjusted = if adjust { ax.wrapping_add(delta) } else { ax };
    cpu.set_reg(Register::AX, adjusted & 0xFF0F);
    set_flags_of_al(cpu, if adjust { flags::CF | flags::AF } else { 0 });
    Ok(())
}

pub(super) fn aaa(cpu: &mut Cpu, _: &Instruction) -> Result<(), Exception> {
    ascii_adjust(cpu, 0x106)
}

/// AX - 6, then AH - 1.
pub(super) fn aas(cpu: &mut Cpu, _: &Instruction) -> Result<(), Exception> {
    ascii_adjust(cpu, 0x106u64.wrapping_neg())
}

pub(super) fn aam(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    let base = insn.immediate(0) & 0xFF;
    if base == 0 {
        return Err(Exception::DivideError);
    }
    let al = cpu.reg(Register::AL);
    cpu.set_reg(Register::AX, ((al / base) << 8) | (al % base));
    set_flags_of_al(cpu, 0);
    Ok(())
}

pub(super) fn aad(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    let base = insn.immediate(0) & 0xFF;
    let (al, ah) = (cpu.reg(Register::AL), cpu.reg(Register::AH));
    cpu.set_reg(Register::AX, (al + ah * base) & 0xFF);
    set_flags_of_al(cpu, 0);
    Ok(())
}

/// DAA and DAS: `correct` adds or subtracts the corrections 6 and 60H and tells the carry or borrow. The SDM's DAA clears CF
/// when the second correction does not apply; that changes nothing, as a carry out of the first implies the second.
fn decimal_adjust(cpu: &mut Cpu, correct: fn(u8, u8) -> (u8, bool)) -> Result<(), Exception> {
    let old = cpu.reg(Register::AL) as u8;
    let old_carry = cpu.lazy.cf();
    let (mut al, mut carries) = (old, 0);
    if u64::from(old) & LOW_NIBBLE > 9 || cpu.lazy.af() {
        let (adjusted, borrow) = correct(al, 6);
        al = adjusted;
        carries |= flags::AF | if old_carry || borrow { flags::CF } else { 0 };
    }
    if old > 0x99 || old_carry {
        al = correct(al, 0x60).0;
        carries |= flags::CF;
    }
    cpu.set_reg(Register::AL, u64::from(al));
    set_flags_of_al(cpu, carries);
    Ok(())
}

pub(super) fn daa(cpu: &mut Cpu, _: &Instruction) -> Result<(), Exception> {
    decimal_adjust(cpu, u8::overflowing_add)
}

pub(super) fn das(cpu: &mut Cpu, _: &Instruction) -> Result<(), Exception> {
    decimal_adjust(cpu, u8::overflowing_sub)
}

/// SALC: AL from CF. Not in the SDM, but every Intel processor has it outside of 64-bit mode.
pub(super) fn salc(cpu: &mut Cpu, _: &Instruction) -> Result<(), Exception> {
    let value = if cpu.lazy.cf() { 0xFF } else { 0 };
    cpu.set_reg(Register::AL, value);
    Ok(())
}

/// BOUND: #BR unless lower <= index <= upper, signed.
pub(super) fn bound(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    let size = insn.op0_register().size();
    let index = sign_extend(cpu.reg(insn.op0_register()), size);
    let at = cpu.linear_address(insn, size * 2, Access::Read)?;
    let pair = cpu.load_sized(at, size * 2)?;
    let lower = sign_extend(pair & mask(size), size);
    let upper = sign_extend(pair >> (size * 8), size);
    if (lower..=upper).contains(&index) { Ok(()) } else { Err(Exception::BoundRange) }
}
