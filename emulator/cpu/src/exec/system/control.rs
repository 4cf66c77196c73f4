//! Control and debug registers (SDM Vol. 2B, "MOV—Move to/from Control Registers", "MOV—Move to/from Debug
//! Registers", LMSW, SMSW, CLTS; Vol. 3A, sections 2.5, 4.1 and 17.2).

use crate::Cpu;
use iced_x86::{Instruction, Register};
use x86::cr::{cr0, cr4, efer};
use x86::segment::{ar, sreg};
use x86::{Exception, flags};

/// Register layouts.
mod spec {
    use super::{cr0, cr4};

    /// Bits of CR0 that exist; the others below 32 read 0 and ignore writes.
    pub const CR0_DEFINED: u64 =
        cr0::PE | cr0::MP | cr0::EM | cr0::TS | cr0::ET | cr0::NE | cr0::WP | cr0::AM | cr0::NW | cr0::CD | cr0::PG;
    /// What LMSW writes.
    pub const MACHINE_STATUS: u64 = cr0::PE | cr0::MP | cr0::EM | cr0::TS;
    /// Bits of CR4 that exist; setting another is #GP(0).
    pub const CR4_DEFINED: u64 = cr4::TSD
        | cr4::DE
        | cr4::PSE
        | cr4::PAE
        | cr4::MCE
        | cr4::PGE
        | cr4::PCE
        | cr4::OSFXSR
        | cr4::OSXMMEXCPT
        | cr4::UMIP
        | cr4::FSGSBASE
        | cr4::PCIDE
        | cr4::OSXSAVE
        | cr4::SMEP
        | cr4::SMAP;
    /// MOV to CR3: keep the new PCID's translations.
    pub const CR3_NOFLUSH: u64 = 1 << 63;
    pub const CR3_PCID: u64 = 0xFFF;

    /// DR6 (figure 17-1): B0-B3, BD, BS, BT can change; bits 11:4 and 31:16 read 1, as bus-lock detection and RTM do not
    /// exist.
    pub const DR6_WRITABLE: u64 = 0xE00F;
    pub const DR6_FIXED: u64 = 0xFFFF_0FF0;
    pub const DR6_BD: u64 = 1 << 13;
    pub const DR7_WRITABLE: u64 = 0xFFFF_23FF;
    pub const DR7_FIXED: u64 = 1 << 10;
    pub const DR7_GD: u64 = 1 << 13;
    /// CR8 is the task-priority class, 4 bits.
    pub const CR8_MAX: u64 = 0xF;
}

fn require(condition: bool) -> Result<(), Exception> {
    if condition { Ok(()) } else { Err(Exception::GP0) }
}

impl Cpu {
    /// PAE paging will be in use with these register values (SDM Vol. 3A, section 4.1.1).
    fn pae_paging(&self, new_cr0: u64, new_cr4: u64) -> bool {
        new_cr0 & cr0::PG != 0 && new_cr4 & cr4::PAE != 0 && self.msr.efer & efer::LME == 0
    }

    /// MOV to CR0 with all its checks. #GP(0) changes nothing.
    pub fn write_cr0(&mut self, value: u64) -> Result<(), Exception> {
        require(value >> 32 == 0)?;
        let old = self.cr0;
        let new = value & spec::CR0_DEFINED | cr0::ET;
        let changed = old ^ new;
        let has = |bits: u64| new & bits == bits;
        require(!has(cr0::PG) || has(cr0::PE))?;
        require(!has(cr0::NW) || has(cr0::CD))?;
        let mut new_efer = self.msr.efer;
        if changed & cr0::PG != 0 {
            let cs_long = self.segments[sreg::CS].is(ar::L);
            if has(cr0::PG) {
                if new_efer & efer::LME != 0 {
                    // Activation of IA-32e mode (SDM Vol. 3A, section 9.8.5).
                    let tss16 = self.tr.selector != 0 && matches!(self.tr.ar & (ar::S | ar::TYPE), 1 | 3);
                    require(self.cr4 & cr4::PAE != 0 && !cs_long && !tss16)?;
                    new_efer |= efer::LMA;
                }
            } else {
                require(self.cr4 & cr4::PCIDE == 0)?;
                require(!(new_efer & efer::LMA != 0 && cs_long))?;
                new_efer &= !efer::LMA;
            }
        }
        if self.pae_paging(new, self.cr4) && changed & (cr0::PG | cr0::CD | cr0::NW) != 0 {
            self.load_pdptes()?;
        }
        self.cr0 = new;
        self.msr.efer = new_efer;
        if changed & (cr0::PE | cr0::PG) != 0 {
            self.update_mode();
            self.flush_tlb(true);
        }
        self.update_access_masks();
        if changed & (cr0::PE | cr0::PG | cr0::WP | cr0::NW | cr0::CD) != 0 {
            self.drop_shortcuts();
        }
        Ok(())
    }

    /// MOV to CR3. KeyID bits are address bits (MK-058); bits at and above M, and TDX's KeyID bits outside SEAM, are
    /// reserved (MK-059).
    pub fn write_cr3(&mut self, value: u64) -> Result<(), Exception> {
        let pcide = self.cr4 & cr4::PCIDE != 0;
        let noflush = pcide && value & spec::CR3_NOFLUSH != 0;
        let new = if noflush { value & !spec::CR3_NOFLUSH } else { value };
        let bits = self.model.maxphyaddr.saturating_sub(self.mem.tme().tdx_reserved_keyid_bits());
        require(new >> bits.min(63) == 0)?;
        let old = std::mem::replace(&mut self.cr3, new);
        if self.pae_paging(self.cr0, self.cr4)
            && let Err(fault) = self.load_pdptes()
        {
            self.cr3 = old;
            return Err(fault);
        }
        if noflush {
            self.switch_pcid();
        } else if pcide {
            self.flush_pcid((new & spec::CR3_PCID) as u16);
            self.switch_pcid();
        } else {
            self.flush_tlb(false);
        }
        Ok(())
    }

    /// MOV to CR4 with all its checks. #GP(0) changes nothing.
    pub fn write_cr4(&mut self, value: u64) -> Result<(), Exception> {
        require(value & !spec::CR4_DEFINED == 0)?;
        let changed = self.cr4 ^ value;
        let long = self.msr.efer & efer::LMA != 0;
        require(!(long && value & cr4::PAE == 0))?;
        if changed & value & cr4::PCIDE != 0 {
            require(long && self.cr3 & spec::CR3_PCID == 0)?;
        }
        if self.pae_paging(self.cr0, value) && changed & (cr4::PAE | cr4::PGE | cr4::PSE | cr4::SMEP) != 0 {
            self.load_pdptes()?;
        }
        self.cr4 = value;
        // SDM Vol. 3A, section 4.10.4.1: what invalidates, global translations and all PCIDs included.
        let paging = cr4::PAE | cr4::PSE | cr4::PGE | cr4::PCIDE | cr4::SMEP;
        if changed & paging != 0 {
            self.flush_tlb(true);
        }
        if changed & cr4::SMAP != 0 {
            self.update_access_masks();
        }
        // PGE alone is how Linux flushes global translations: no shortcut outlives flush_tlb, none needs dropping.
        if changed & (cr4::PAE | cr4::PSE | cr4::PCIDE | cr4::SMEP | cr4::SMAP) != 0 {
            self.drop_shortcuts();
        }
        Ok(())
    }

    /// Privilege and existence checks common to all debug-register moves.
    fn check_debug_register(&mut self, register: Register) -> Result<usize, Exception> {
        let mut n = register.number();
        if n > 7 || (matches!(n, 4 | 5) && self.cr4 & cr4::DE != 0) {
            return Err(Exception::UD);
        }
        require(self.cpl == 0)?;
        if self.dr7 & spec::DR7_GD != 0 {
            // GD is cleared on entry to the handler, which could not use the registers otherwise.
            self.dr7 &= !spec::DR7_GD;
            return Err(Exception::Debug(spec::DR6_BD));
        }
        if matches!(n, 4 | 5) {
            n += 2;
        }
        Ok(n)
    }
}

/// MOV r, CRn
pub(super) fn mov_from_cr(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    let n = insn.op1_register().number();
    if !matches!(n, 0 | 2 | 3 | 4 | 8) {
        return Err(Exception::UD);
    }
    require(cpu.cpl == 0)?;
    let value = match n {
        0 => cpu.cr0,
        2 => cpu.cr2,
        3 => cpu.cr3,
        4 => cpu.cr4,
        _ => u64::from(cpu.platform.cr8(cpu.id)),
    };
    cpu.set_reg(insn.op0_register(), value);
    Ok(())
}

/// MOV CRn, r
pub(super) fn mov_to_cr(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    let n = insn.op0_register().number();
    if !matches!(n, 0 | 2 | 3 | 4 | 8) {
        return Err(Exception::UD);
    }
    require(cpu.cpl == 0)?;
    let value = cpu.reg(insn.op1_register());
    match n {
        0 => cpu.write_cr0(value),
        2 => {
            cpu.cr2 = value;
            Ok(())
        }
        3 => cpu.write_cr3(value),
        4 => cpu.write_cr4(value),
        _ => {
            require(value <= spec::CR8_MAX)?;
            let now = cpu.now();
            cpu.platform.set_cr8(now, cpu.id, value as u8);
            Ok(())
        }
    }
}

/// MOV r, DRn
pub(super) fn mov_from_dr(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    let value = match cpu.check_debug_register(insn.op1_register())? {
        6 => cpu.dr6 & spec::DR6_WRITABLE | spec::DR6_FIXED,
        7 => cpu.dr7 | spec::DR7_FIXED,
        n => cpu.dr[n & 3],
    };
    cpu.set_reg(insn.op0_register(), value);
    Ok(())
}

/// MOV DRn, r
pub(super) fn mov_to_dr(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    let n = cpu.check_debug_register(insn.op0_register())?;
    let value = cpu.reg(insn.op1_register());
    match n {
        6 => {
            require(value >> 32 == 0)?;
            cpu.dr6 = value & spec::DR6_WRITABLE | spec::DR6_FIXED;
        }
        7 => {
            require(value >> 32 == 0)?;
            cpu.dr7 = value & spec::DR7_WRITABLE | spec::DR7_FIXED;
            cpu.drop_shortcuts();
        }
        n => {
            cpu.dr[n & 3] = value;
            cpu.drop_shortcuts();
        }
    }
    Ok(())
}

/// LMSW: loads PE, MP, EM and TS, but cannot clear PE.
pub(super) fn lmsw(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    require(cpu.cpl == 0)?;
    let value = cpu.read_operand(insn, 0)? & spec::MACHINE_STATUS | cpu.cr0 & cr0::PE;
    cpu.write_cr0(cpu.cr0 & !spec::MACHINE_STATUS | value)
}

/// SMSW. To a register the whole of CR0 (of the operand size) is stored, to memory 16 bits.
pub(super) fn smsw(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    require(!(cpu.cr4 & cr4::UMIP != 0 && cpu.cpl > 0))?;
    cpu.write_operand(insn, 0, cpu.cr0)
}

/// CLTS
pub(super) fn clts(cpu: &mut Cpu, _: &Instruction) -> Result<(), Exception> {
    require(cpu.cpl == 0)?;
    cpu.cr0 &= !cr0::TS;
    Ok(())
}

/// CLI and STI may change IF (SDM Vol. 2A, table 3-7). PVI and VME do not exist in this model.
pub(super) fn may_change_if(cpu: &Cpu) -> bool {
    cpu.cr0 & cr0::PE == 0 || if cpu.rflags_system & flags::VM != 0 { cpu.iopl() == 3 } else { cpu.cpl <= cpu.iopl() }
}
