//! Flag control: CLC to STI, CLAC, STAC, LAHF, SAHF.

use super::control::may_change_if;
use crate::Cpu;
use crate::exec::cold::Direct;
use iced_x86::{Instruction, Register};
use x86::{Exception, flags};

/// Status flags that LAHF and SAHF move.
const LOW_BYTE: u64 = flags::SF | flags::ZF | flags::AF | flags::PF | flags::CF;

pub(super) fn clc(cpu: &mut Cpu, _: &Instruction) -> Result<(), Exception> {
    cpu.change_arithmetic_flags(flags::CF, 0);
    Ok(())
}

pub(super) fn stc(cpu: &mut Cpu, _: &Instruction) -> Result<(), Exception> {
    cpu.change_arithmetic_flags(flags::CF, flags::CF);
    Ok(())
}

pub(super) fn cmc(cpu: &mut Cpu, _: &Instruction) -> Result<(), Exception> {
    let complement = !cpu.lazy.get();
    cpu.change_arithmetic_flags(flags::CF, complement);
    Ok(())
}

pub(super) fn cld(cpu: &mut Cpu, _: &Instruction) -> Result<(), Exception> {
    cpu.rflags_system &= !flags::DF;
    Ok(())
}

pub(super) fn std(cpu: &mut Cpu, _: &Instruction) -> Result<(), Exception> {
    cpu.rflags_system |= flags::DF;
    Ok(())
}

pub struct Cli;

impl Direct for Cli {
    #[inline(always)]
    fn execute(cpu: &mut Cpu) -> Result<(), Exception> {
        if !may_change_if(cpu) {
            return Err(Exception::GP0);
        }
        cpu.rflags_system &= !flags::IF;
        Ok(())
    }
}

pub struct Sti;

impl Direct for Sti {
    #[inline(always)]
    fn execute(cpu: &mut Cpu) -> Result<(), Exception> {
        if !may_change_if(cpu) {
            return Err(Exception::GP0);
        }
        // Interrupts stay blocked for one instruction, but only if IF was 0 (SDM Vol. 2B, "STI").
        if cpu.rflags_system & flags::IF == 0 {
            cpu.rflags_system |= flags::IF;
            cpu.interrupt_shadow = true;
        }
        Ok(())
    }
}

/// CLAC, STAC (`ON`): RFLAGS.AC as the override of SMAP.
pub struct SetAc<const ON: bool>;

impl<const ON: bool> Direct for SetAc<ON> {
    #[inline(always)]
    fn execute(cpu: &mut Cpu) -> Result<(), Exception> {
        if cpu.cpl > 0 || cpu.rflags_system & flags::VM != 0 {
            return Err(Exception::UD);
        }
        cpu.rflags_system = cpu.rflags_system & !flags::AC | if ON { flags::AC } else { 0 };
        cpu.update_access_masks();
        Ok(())
    }
}

pub(super) fn lahf(cpu: &mut Cpu, _: &Instruction) -> Result<(), Exception> {
    let image = cpu.lazy.get() & LOW_BYTE | flags::FIXED;
    cpu.set_reg(Register::AH, image);
    Ok(())
}

pub(super) fn sahf(cpu: &mut Cpu, _: &Instruction) -> Result<(), Exception> {
    let image = cpu.reg(Register::AH);
    cpu.change_arithmetic_flags(LOW_BYTE, image);
    Ok(())
}
