//! Looking at descriptors without loading them (SDM Vol. 2: LAR, LSL, VERR, VERW, ARPL; Vol. 3A, section 5.10).

use super::descriptor::{Descriptor, selector, system_type};
use crate::state::Cpu;
use iced_x86::Instruction;
use x86::segment::ar;
use x86::{Exception, flags};

/// What LAR keeps of the second doubleword of a descriptor (bits 19:16 are undefined in its result).
const LAR_MASK: u64 = 0x00F0_FF00;

impl Cpu {
    fn set_zf(&mut self, on: bool) {
        let rest = self.lazy.get() & !flags::ZF;
        self.lazy.set(rest | if on { flags::ZF } else { 0 });
    }

    /// The descriptor of operand `n`'s selector if it may be looked at: not null, within its table, and visible at the
    /// current privilege. System descriptors of `system_types` (a bit a type) only. Conforming code segments are visible
    /// at any privilege.
    fn visible_descriptor(
        &mut self,
        insn: &Instruction,
        n: u32,
        system_types: u32,
    ) -> Result<Option<Descriptor>, Exception> {
        self.require_protected()?;
        let value = self.read_operand(insn, n)? as u16;
        if selector::is_null(value) {
            return Ok(None);
        }
        let Some(mut d) = self.find_descriptor(value, 8)? else { return Ok(None) };
        if !d.is_code_or_data() {
            if system_types >> d.kind() & 1 == 0 {
                return Ok(None);
            }
            if self.mode.is_long64() {
                match self.find_descriptor(value, 16)? {
                    Some(whole) if whole.upper_type_is_zero() => d = whole,
                    _ => return Ok(None),
                }
            }
        }
        let dpl = d.segment.dpl();
        let visible = d.is_conforming_code() || self.cpl <= dpl && selector::rpl(value) <= dpl;
        Ok(visible.then_some(d))
    }

    /// Descriptor types that LAR (with gates) or LSL (without) accept: SDM Vol. 2A, tables 3-53 and 3-56.
    fn loadable_system_types(&self, gates: bool) -> u32 {
        use system_type::*;
        let bit = |t: u32| 1 << t;
        let mut types = bit(LDT) | bit(TSS_AVAILABLE) | bit(TSS_BUSY);
        if gates {
            types |= bit(CALL_GATE);
        }
        if !self.ia32e_active() {
            types |= bit(TSS16_AVAILABLE) | bit(TSS16_BUSY);
            if gates {
                types |= bit(CALL_GATE16) | bit(TASK_GATE);
            }
        }
        types
    }
}

/// LAR: access rights of a visible descriptor, ZF = 1; else ZF = 0 and the destination keeps its value.
pub fn lar(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    let types = cpu.loadable_system_types(true);
    let found = cpu.visible_descriptor(insn, 1, types)?;
    if let Some(d) = found {
        cpu.set_reg(insn.op0_register(), d.raw >> 32 & LAR_MASK);
    }
    cpu.set_zf(found.is_some());
    Ok(())
}

/// LSL: the limit in bytes of a visible descriptor, ZF as [`lar`].
pub fn lsl(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    let types = cpu.loadable_system_types(false);
    let found = cpu.visible_descriptor(insn, 1, types)?;
    if let Some(d) = found {
        cpu.set_reg(insn.op0_register(), u64::from(d.segment.limit));
    }
    cpu.set_zf(found.is_some());
    Ok(())
}

/// VERR: ZF = 1 if the segment may be read at the current privilege.
pub fn verr(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    let found = cpu.visible_descriptor(insn, 0, 0)?;
    cpu.set_zf(found.is_some_and(|d| !d.is_code() || d.segment.is(ar::RW)));
    Ok(())
}

/// VERW: ZF = 1 if the segment may be written at the current privilege.
pub fn verw(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    let found = cpu.visible_descriptor(insn, 0, 0)?;
    cpu.set_zf(found.is_some_and(|d| d.is_writable_data()));
    Ok(())
}

/// ARPL: raises the RPL of operand 0 to that of operand 1.
pub fn arpl(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    cpu.require_protected()?;
    let dest = cpu.read_operand(insn, 0)?;
    let rpl = cpu.read_operand(insn, 1)? & u64::from(selector::RPL);
    let raise = dest & u64::from(selector::RPL) < rpl;
    if raise {
        cpu.write_operand(insn, 0, dest & !u64::from(selector::RPL) | rpl)?;
    }
    cpu.set_zf(raise);
    Ok(())
}
