//! MOVDIRI and MOVDIR64B (SDM Vol. 2B): stores that bypass the caches, with the KeyID of their address like any access
//! (MK specification section 5.4).

use crate::Cpu;
use crate::mmu::Access;
use iced_x86::Instruction;
use x86::Exception;
use x86::segment::sreg;

/// What MOVDIR64B moves, and the alignment of where to.
const LINE: usize = 64;

/// MOVDIRI m32/m64, r32/r64
pub(super) fn movdiri(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    let value = cpu.reg(insn.op1_register()).to_le_bytes();
    let size = insn.memory_size().size().min(value.len());
    let linear = cpu.linear_address(insn, size, Access::Write)?;
    cpu.write_nontemporal(linear, &value[..size])
}

/// MOVDIR64B r, m512: the destination is ES:r whatever the segment prefix.
pub(super) fn movdir64b(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    let to = cpu.segment_address(sreg::ES, cpu.reg(insn.op0_register()), LINE, Access::Write)?;
    if !to.is_multiple_of(LINE as u64) {
        return Err(Exception::GP0);
    }
    let from = cpu.linear_address(insn, LINE, Access::Read)?;
    let mut line = [0; LINE];
    cpu.read_linear(from, &mut line)?;
    cpu.write_nontemporal(to, &line)
}
