//! INVLPG and INVPCID (SDM Vol. 2A; Vol. 3A, section 4.10.4.1).

use crate::Cpu;
use crate::mmu::Access;
use crate::operand::{canonical, sreg_of};
use crate::state::slot;
use iced_x86::Instruction;
use x86::{Exception, cr::cr4};

/// INVPCID types and descriptor fields.
mod spec {
    pub const INDIVIDUAL_ADDRESS: u64 = 0;
    pub const SINGLE_CONTEXT: u64 = 1;
    pub const ALL_WITH_GLOBALS: u64 = 2;
    pub const ALL_WITHOUT_GLOBALS: u64 = 3;
    pub const DESCRIPTOR_BYTES: usize = 16;
    pub const PCID: u64 = 0xFFF;
}

/// INVLPG: no segment checks; a non-canonical address makes it a NOP.
pub(super) fn invlpg(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    if cpu.cpl > 0 {
        return Err(Exception::GP0);
    }
    let base = cpu.regs[slot::SEG as usize + sreg_of(insn.memory_segment())];
    let linear = cpu.effective_address(insn).wrapping_add(base);
    if !cpu.mode.is_long64() {
        cpu.invalidate_page(linear & 0xFFFF_FFFF);
    } else if canonical(linear) {
        cpu.invalidate_page(linear);
    }
    Ok(())
}

pub(super) fn invpcid(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    if cpu.cpl > 0 {
        return Err(Exception::GP0);
    }
    let kind = cpu.reg(insn.op0_register());
    let at = cpu.linear_address(insn, spec::DESCRIPTOR_BYTES, Access::Read)?;
    let descriptor = cpu.read_u128(at)?;
    let (low, linear) = (descriptor as u64, (descriptor >> 64) as u64);
    let pcid = low & spec::PCID;
    let names_pcid = kind <= spec::SINGLE_CONTEXT;
    if kind > spec::ALL_WITHOUT_GLOBALS
        || low & !spec::PCID != 0
        || (names_pcid && pcid != 0 && cpu.cr4 & cr4::PCIDE == 0)
        || (kind == spec::INDIVIDUAL_ADDRESS && !canonical(linear))
    {
        return Err(Exception::GP0);
    }
    match kind {
        spec::INDIVIDUAL_ADDRESS => cpu.invalidate_pcid_page(pcid as u16, linear),
        spec::SINGLE_CONTEXT => cpu.flush_pcid(pcid as u16),
        spec::ALL_WITH_GLOBALS => cpu.flush_tlb(true),
        _ => cpu.flush_tlb(false),
    }
    Ok(())
}
