//! Fast system calls and the FS/GS base instructions (SDM Vol. 2B: SYSCALL, SYSRET, SYSENTER, SYSEXIT, SWAPGS, RDFSBASE,
//! WRFSBASE; Vol. 3A, section 5.8.7 and 5.8.8), as Intel processors have them.

use super::descriptor::selector;
use crate::exec::cold::Direct;
use crate::operand::canonical;
use crate::state::{Cpu, slot};
use iced_x86::Instruction;
use x86::segment::{Segment, ar, sreg};
use x86::{Exception, cr, flags};

/// RFLAGS bits that SYSRET loads from R11: all but RF, VM and the reserved ones.
const SYSRET_FLAGS: u64 = 0x3C_7FD7;
/// Selector fields of IA32_STAR: SYSCALL's CS and SS, SYSRET's CS and SS.
const STAR_SYSCALL_SHIFT: u32 = 32;
const STAR_SYSRET_SHIFT: u32 = 48;

/// The flat code segment these instructions load without reading a descriptor: 4 GiB, execute/read, accessed.
fn flat_code(selector: u16, dpl: u8, long: bool) -> Segment {
    let size = if long { ar::L } else { ar::DB };
    let kind = ar::CODE | ar::RW | ar::ACCESSED | ar::S;
    flat(selector, kind | size | u32::from(dpl) << ar::DPL_SHIFT)
}

/// The flat stack segment: 4 GiB, read/write, accessed, 32-bit.
fn flat_stack(selector: u16, dpl: u8) -> Segment {
    flat(selector, ar::RW | ar::ACCESSED | ar::S | ar::DB | u32::from(dpl) << ar::DPL_SHIFT)
}

fn flat(selector: u16, rights: u32) -> Segment {
    Segment { selector, ar: rights | ar::P | ar::G, limit: u32::MAX, base: 0 }
}

impl Cpu {
    /// #UD unless in 64-bit mode with EFER.SCE set.
    fn require_syscall(&self) -> Result<(), Exception> {
        let on = self.mode.is_long64() && self.msr.efer & cr::efer::SCE != 0;
        if on { Ok(()) } else { Err(Exception::UD) }
    }

    fn load_flat(&mut self, cs: Segment, ss: Segment, cpl: u8) {
        self.set_segment(sreg::CS, cs);
        self.set_segment(sreg::SS, ss);
        self.set_cpl(cpl);
    }

    /// #UD unless in 64-bit mode with CR4.FSGSBASE set.
    fn require_fsgsbase(&self) -> Result<(), Exception> {
        let on = self.mode.is_long64() && self.cr4 & cr::cr4::FSGSBASE != 0;
        if on { Ok(()) } else { Err(Exception::UD) }
    }
}

/// SYSCALL
pub fn syscall(cpu: &mut Cpu, _insn: &Instruction) -> Result<(), Exception> {
    cpu.require_syscall()?;
    let rflags = cpu.rflags() & !flags::RF;
    cpu.regs[slot::RCX as usize] = cpu.next_ip;
    cpu.regs[11] = rflags;
    cpu.set_rflags(rflags & !cpu.msr.fmask);
    let cs = (cpu.msr.star >> STAR_SYSCALL_SHIFT) as u16;
    let (code, stack) = (cs & selector::INDEX_AND_TI, cs.wrapping_add(8));
    cpu.load_flat(flat_code(code, 0, true), flat_stack(stack, 0), 0);
    cpu.set_rip(cpu.msr.lstar);
    Ok(())
}

/// SYSRET to 64-bit (`LONG`) or compatibility mode. A non-canonical RCX faults at CPL 0, before anything is loaded.
pub fn sysret<const LONG: bool>(cpu: &mut Cpu, _insn: &Instruction) -> Result<(), Exception> {
    cpu.require_syscall()?;
    let rcx = cpu.regs[slot::RCX as usize];
    if cpu.cpl != 0 || LONG && !canonical(rcx) {
        return Err(Exception::GP0);
    }
    let base = (cpu.msr.star >> STAR_SYSRET_SHIFT) as u16;
    let cs = if LONG { base.wrapping_add(16) } else { base } | selector::RPL;
    let ss = base.wrapping_add(8) | selector::RPL;
    cpu.set_rflags(cpu.regs[11] & SYSRET_FLAGS);
    cpu.load_flat(flat_code(cs, 3, LONG), flat_stack(ss, 3), 3);
    cpu.set_rip(if LONG { rcx } else { rcx & 0xFFFF_FFFF });
    Ok(())
}

/// SYSENTER
pub fn sysenter(cpu: &mut Cpu, _insn: &Instruction) -> Result<(), Exception> {
    let cs = cpu.msr.sysenter_cs as u16;
    if cpu.cr0 & cr::cr0::PE == 0 || selector::is_null(cs) {
        return Err(Exception::GP0);
    }
    let long = cpu.ia32e_active();
    let width = if long { u64::MAX } else { 0xFFFF_FFFF };
    cpu.merge_rflags(0, flags::VM | flags::IF);
    let code = cs & selector::INDEX_AND_TI;
    cpu.load_flat(flat_code(code, 0, long), flat_stack(code.wrapping_add(8), 0), 0);
    cpu.regs[slot::RSP as usize] = cpu.msr.sysenter_esp & width;
    cpu.set_rip(cpu.msr.sysenter_eip & width);
    Ok(())
}

/// SYSEXIT to 64-bit (`LONG`) or 32-bit code: RIP from RDX, RSP from RCX.
pub fn sysexit<const LONG: bool>(cpu: &mut Cpu, _insn: &Instruction) -> Result<(), Exception> {
    let base = cpu.msr.sysenter_cs as u16;
    let invalid = cpu.cr0 & cr::cr0::PE == 0 || selector::is_null(base) || cpu.cpl != 0;
    let (rcx, rdx) = (cpu.regs[slot::RCX as usize], cpu.regs[slot::RDX as usize]);
    if invalid || LONG && !(canonical(rcx) && canonical(rdx)) {
        return Err(Exception::GP0);
    }
    let cs = base.wrapping_add(if LONG { 32 } else { 16 }) | selector::RPL;
    let ss = cs.wrapping_add(8) | selector::RPL;
    let width = if LONG { u64::MAX } else { 0xFFFF_FFFF };
    cpu.load_flat(flat_code(cs, 3, LONG), flat_stack(ss, 3), 3);
    cpu.regs[slot::RSP as usize] = rcx & width;
    cpu.set_rip(rdx & width);
    Ok(())
}

pub struct Swapgs;

impl Direct for Swapgs {
    #[inline(always)]
    fn execute(cpu: &mut Cpu) -> Result<(), Exception> {
        if !cpu.mode.is_long64() {
            return Err(Exception::UD);
        }
        if cpu.cpl != 0 {
            return Err(Exception::GP0);
        }
        let base = std::mem::replace(&mut cpu.msr.kernel_gs_base, cpu.segments[sreg::GS].base);
        cpu.set_segment_base(sreg::GS, base);
        Ok(())
    }
}

/// RDFSBASE, RDGSBASE
pub fn read_base<const SEG: usize>(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    cpu.require_fsgsbase()?;
    cpu.set_reg(insn.op0_register(), cpu.segments[SEG].base);
    Ok(())
}

/// WRFSBASE, WRGSBASE
pub fn write_base<const SEG: usize>(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    cpu.require_fsgsbase()?;
    let base = cpu.reg(insn.op0_register());
    if !canonical(base) {
        return Err(Exception::GP0);
    }
    cpu.set_segment_base(SEG, base);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed_segments_have_the_attributes_of_the_manual() {
        assert_eq!(flat_code(0x10, 0, true).ar, 0xA09B);
        assert_eq!(flat_code(0x23, 3, false).ar, 0xC0FB);
        assert_eq!(flat_stack(0x2B, 3).ar, 0xC0F3);
    }
}
