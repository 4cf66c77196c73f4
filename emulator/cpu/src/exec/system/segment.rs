//! Segment-register loads and stores (SDM Vol. 2A/2B: MOV, POP, PUSH, LDS/LES/LFS/LGS/LSS; Vol. 3A, sections 3.4.4,
//! 5.4.1, 5.6, 5.7).

use super::descriptor::{null_segment, real_segment, selector, v86_segment};
use crate::mmu::Access;
use crate::operand::sreg_of;
use crate::state::{Cpu, slot};
use iced_x86::{Instruction, OpKind};
use x86::Exception;
use x86::segment::{Segment, ar, sreg};

impl Cpu {
    /// Loads ES, SS, DS, FS or GS with all checks of the current mode. CS is loaded by control transfers only.
    pub fn load_segment(&mut self, seg: usize, value: u16) -> Result<(), Exception> {
        use crate::mode::Mode;
        let segment = match self.mode {
            Mode::Real => real_segment(self.segments[seg], value),
            Mode::Virtual8086 => v86_segment(value),
            _ if seg == sreg::SS => self.stack_segment(value)?,
            _ => self.data_segment(value)?,
        };
        self.set_segment(seg, segment);
        Ok(())
    }

    /// Checks for loading SS at the current privilege level.
    fn stack_segment(&mut self, value: u16) -> Result<Segment, Exception> {
        let code = selector::error_code(value);
        if selector::is_null(value) {
            // 64-bit mode below CPL 3 runs with a null SS (SDM Vol. 3A, section 5.4.1.1).
            if self.mode.is_long64() && self.cpl < 3 && selector::rpl(value) == self.cpl {
                return Ok(null_segment(value));
            }
            return Err(Exception::GP0);
        }
        let mut d = self.fetch_descriptor(value, Exception::GeneralProtection)?;
        if selector::rpl(value) != self.cpl || !d.is_writable_data() || d.segment.dpl() != self.cpl {
            return Err(Exception::GeneralProtection(code));
        }
        if !d.segment.present() {
            return Err(Exception::StackFault(code));
        }
        self.set_accessed(&mut d)?;
        Ok(d.segment)
    }

    /// Checks for loading DS, ES, FS or GS.
    fn data_segment(&mut self, value: u16) -> Result<Segment, Exception> {
        let code = selector::error_code(value);
        if selector::is_null(value) {
            return Ok(null_segment(value));
        }
        let mut d = self.fetch_descriptor(value, Exception::GeneralProtection)?;
        let execute_only = d.is_code() && !d.segment.is(ar::RW);
        let dpl = d.segment.dpl();
        let privileged = !d.is_conforming_code() && (selector::rpl(value) > dpl || self.cpl > dpl);
        if !d.is_code_or_data() || execute_only || privileged {
            return Err(Exception::GeneralProtection(code));
        }
        if !d.segment.present() {
            return Err(Exception::SegmentNotPresent(code));
        }
        self.set_accessed(&mut d)?;
        Ok(d.segment)
    }

    /// Checks SS of a return to privilege level `rpl` (SDM Vol. 2B, "RET", RETURN-TO-OUTER-PRIVILEGE-LEVEL): `to_long`
    /// if it returns to 64-bit code, which may run with a null SS below CPL 3.
    pub(crate) fn return_stack_segment(&mut self, value: u16, rpl: u8, to_long: bool) -> Result<Segment, Exception> {
        let code = selector::error_code(value);
        if selector::is_null(value) {
            return if to_long && rpl != 3 { Ok(null_segment(value)) } else { Err(Exception::GP0) };
        }
        let mut d = self.fetch_descriptor(value, Exception::GeneralProtection)?;
        if selector::rpl(value) != rpl || !d.is_writable_data() || d.segment.dpl() != rpl {
            return Err(Exception::GeneralProtection(code));
        }
        if !d.segment.present() {
            return Err(Exception::StackFault(code));
        }
        self.set_accessed(&mut d)?;
        Ok(d.segment)
    }

    /// After a return to an outer level: ES, DS, FS and GS that the new CPL may not use become null.
    pub(crate) fn drop_privileged_segments(&mut self) {
        for seg in [sreg::ES, sreg::DS, sreg::FS, sreg::GS] {
            let s = &self.segments[seg];
            let conforming = s.is(ar::CODE | ar::EC);
            if s.is(ar::UNUSABLE) {
                // A null selector counts as privileged too: its RPL is cleared. The base of FS or GS, which need no
                // selector in 64-bit mode, stays.
                self.segments[seg].selector = 0;
            } else if !conforming && s.dpl() < self.cpl {
                self.set_segment(seg, null_segment(0));
            }
        }
    }
}

/// MOV Sreg, r/m16
pub fn mov_to_sreg(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    let seg = sreg_of(insn.op0_register());
    if seg == sreg::CS {
        return Err(Exception::UD);
    }
    let value = cpu.read_operand(insn, 1)? as u16;
    cpu.load_segment(seg, value)?;
    if seg == sreg::SS {
        cpu.interrupt_shadow = true;
    }
    Ok(())
}

/// MOV r/m, Sreg: memory gets 16 bits, a register is zero-extended from its operand size.
pub fn mov_from_sreg(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    let value = cpu.segments[sreg_of(insn.op1_register())].selector;
    store_selector(cpu, insn, value)
}

/// Stores a selector in operand 0, as MOV r/m,Sreg, SLDT and STR do.
pub(super) fn store_selector(cpu: &mut Cpu, insn: &Instruction, value: u16) -> Result<(), Exception> {
    if insn.op0_kind() == OpKind::Register {
        cpu.set_reg(insn.op0_register(), u64::from(value));
        return Ok(());
    }
    let linear = cpu.linear_address(insn, 2, Access::Write)?;
    cpu.write_u16(linear, value)
}

/// PUSH Sreg. With a 32-bit operand size only the low 16 bits of the slot are written, as "all recent Intel Core and
/// Intel Atom processors" do (SDM Vol. 2B, "PUSH").
pub fn push_sreg<const SIZE: usize>(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    let value = cpu.segments[sreg_of(insn.op0_register())].selector;
    if SIZE != 4 {
        return cpu.push(SIZE, u64::from(value));
    }
    let sp = cpu.regs[slot::RSP as usize].wrapping_sub(4) & cpu.stack_mask();
    let linear = cpu.segment_address(sreg::SS, sp, 2, Access::Write)?;
    cpu.write_u16(linear, value)?;
    cpu.set_sp(sp);
    Ok(())
}

/// POP Sreg. The whole slot is read, although two bytes of it count.
pub fn pop_sreg<const SIZE: usize>(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    let seg = sreg_of(insn.op0_register());
    let value = cpu.stack_read(0, SIZE)? as u16;
    // The stack size in force is that of the SS the value was popped from.
    let mask = cpu.stack_mask();
    let rsp = cpu.regs[slot::RSP as usize];
    cpu.load_segment(seg, value)?;
    cpu.regs[slot::RSP as usize] = super::frame::merge_sp(rsp, rsp.wrapping_add(SIZE as u64), mask);
    if seg == sreg::SS {
        cpu.interrupt_shadow = true;
    }
    Ok(())
}

/// LDS, LES, LFS, LGS, LSS: offset first in memory, then the selector. `SIZE` is that of the offset.
pub fn load_far_pointer<const SEG: usize, const SIZE: usize>(
    cpu: &mut Cpu,
    insn: &Instruction,
) -> Result<(), Exception> {
    let (offset, value) = cpu.read_far_pointer(insn, SIZE)?;
    cpu.load_segment(SEG, value)?;
    cpu.set_reg(insn.op0_register(), offset);
    Ok(())
}

impl Cpu {
    /// Reads an m16:16, m16:32 or m16:64 operand: offset and selector.
    pub(super) fn read_far_pointer(&mut self, insn: &Instruction, size: usize) -> Result<(u64, u16), Exception> {
        let linear = self.linear_address(insn, size + 2, Access::Read)?;
        let mut bytes = [0; 10];
        self.read_linear(linear, &mut bytes[..size + 2])?;
        let mut offset = [0; 8];
        offset[..size].copy_from_slice(&bytes[..size]);
        Ok((u64::from_le_bytes(offset), u16::from_le_bytes([bytes[size], bytes[size + 1]])))
    }
}
