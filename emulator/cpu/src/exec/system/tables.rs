//! Descriptor-table registers (SDM Vol. 2A/2B: LGDT, LIDT, SGDT, SIDT, LLDT, LTR, SLDT, STR; Vol. 3A, section 2.4).

use super::descriptor::{null_segment, selector, system_type};
use super::segment::store_selector;
use crate::mmu::Access;
use crate::operand::canonical;
use crate::state::{Cpu, TableRegister};
use iced_x86::Instruction;
use x86::segment::ar;
use x86::{Exception, cr};

impl Cpu {
    /// #GP(0) above CPL 0. Virtual-8086 mode always has CPL 3.
    fn require_cpl0(&self) -> Result<(), Exception> {
        if self.cpl == 0 { Ok(()) } else { Err(Exception::GP0) }
    }

    /// #UD in real and virtual-8086 mode.
    pub(super) fn require_protected(&self) -> Result<(), Exception> {
        if self.mode.is_protected() { Ok(()) } else { Err(Exception::UD) }
    }

    /// User-mode instruction prevention: SGDT, SIDT, SLDT and STR (SDM Vol. 3A, section 2.5, CR4.UMIP).
    fn check_umip(&self) -> Result<(), Exception> {
        if self.cr4 & cr::cr4::UMIP != 0 && self.cpl > 0 { Err(Exception::GP0) } else { Ok(()) }
    }

    /// Reads the limit and base of LGDT or LIDT. `base_bytes` is 3 with a 16-bit operand size: bits 31:24 become 0.
    fn read_table_register(&mut self, insn: &Instruction, base_bytes: usize) -> Result<TableRegister, Exception> {
        self.require_cpl0()?;
        let size = if base_bytes == 8 { 10 } else { 6 };
        let linear = self.linear_address(insn, size, Access::Read)?;
        let mut bytes = [0; 10];
        self.read_linear(linear, &mut bytes[..size])?;
        let mut base = [0; 8];
        base[..base_bytes].copy_from_slice(&bytes[2..2 + base_bytes]);
        let base = u64::from_le_bytes(base);
        if !canonical(base) {
            return Err(Exception::GP0);
        }
        Ok(TableRegister { base, limit: u16::from_le_bytes([bytes[0], bytes[1]]) })
    }

    fn store_table_register(
        &mut self,
        insn: &Instruction,
        table: TableRegister,
        base_bytes: usize,
    ) -> Result<(), Exception> {
        self.check_umip()?;
        let mut bytes = [0; 10];
        bytes[..2].copy_from_slice(&table.limit.to_le_bytes());
        bytes[2..].copy_from_slice(&table.base.to_le_bytes());
        let size = 2 + base_bytes;
        let linear = self.linear_address(insn, size, Access::Write)?;
        self.write_linear(linear, &bytes[..size])
    }
}

/// LGDT; `BASE_BYTES` is 3 (16-bit operand size), 4 or 8.
pub fn lgdt<const BASE_BYTES: usize>(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    cpu.gdtr = cpu.read_table_register(insn, BASE_BYTES)?;
    Ok(())
}

/// LIDT, as [`lgdt`].
pub fn lidt<const BASE_BYTES: usize>(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    cpu.idtr = cpu.read_table_register(insn, BASE_BYTES)?;
    Ok(())
}

/// SGDT; stores the full 32-bit base with a 16-bit operand size too.
pub fn sgdt<const BASE_BYTES: usize>(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    cpu.store_table_register(insn, cpu.gdtr, BASE_BYTES)
}

/// SIDT, as [`sgdt`].
pub fn sidt<const BASE_BYTES: usize>(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    cpu.store_table_register(insn, cpu.idtr, BASE_BYTES)
}

/// SLDT
pub fn sldt(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    cpu.require_protected()?;
    cpu.check_umip()?;
    store_selector(cpu, insn, cpu.ldtr.selector)
}

/// STR
pub fn str(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    cpu.require_protected()?;
    cpu.check_umip()?;
    store_selector(cpu, insn, cpu.tr.selector)
}

/// LLDT: a null selector makes every later use of the LDT a #GP.
pub fn lldt(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    cpu.require_protected()?;
    cpu.require_cpl0()?;
    let value = cpu.read_operand(insn, 0)? as u16;
    if selector::is_null(value) {
        cpu.ldtr = null_segment(value);
        return Ok(());
    }
    let bad = Exception::GeneralProtection(selector::error_code(value));
    if value & selector::TI != 0 {
        return Err(bad);
    }
    let long = cpu.mode.is_long64();
    let mut d = if long {
        cpu.fetch_descriptor16(value, Exception::GeneralProtection)?
    } else {
        cpu.fetch_descriptor(value, Exception::GeneralProtection)?
    };
    if d.is_code_or_data() || d.kind() != system_type::LDT || !d.upper_type_is_zero() {
        return Err(bad);
    }
    if !d.segment.present() {
        return Err(Exception::SegmentNotPresent(selector::error_code(value)));
    }
    d.segment.base = d.base64();
    if !canonical(d.segment.base) {
        return Err(bad);
    }
    cpu.ldtr = d.segment;
    Ok(())
}

/// LTR: the TSS must be available and becomes busy, in memory as well.
pub fn ltr(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    cpu.require_protected()?;
    cpu.require_cpl0()?;
    let value = cpu.read_operand(insn, 0)? as u16;
    if selector::is_null(value) {
        return Err(Exception::GP0);
    }
    let bad = Exception::GeneralProtection(selector::error_code(value));
    if value & selector::TI != 0 {
        return Err(bad);
    }
    let long = cpu.mode.is_long64();
    let mut d = if long {
        cpu.fetch_descriptor16(value, Exception::GeneralProtection)?
    } else {
        cpu.fetch_descriptor(value, Exception::GeneralProtection)?
    };
    // IA-32e mode has no 16-bit TSS.
    let available =
        d.kind() == system_type::TSS_AVAILABLE || d.kind() == system_type::TSS16_AVAILABLE && !cpu.ia32e_active();
    if d.is_code_or_data() || !available || !d.upper_type_is_zero() {
        return Err(bad);
    }
    if !d.segment.present() {
        return Err(Exception::SegmentNotPresent(selector::error_code(value)));
    }
    if !canonical(d.base64()) {
        return Err(bad);
    }
    cpu.set_type_bits(&mut d, system_type::BUSY)?;
    d.segment.base = d.base64();
    d.segment.ar &= !ar::UNUSABLE;
    cpu.tr = d.segment;
    Ok(())
}
