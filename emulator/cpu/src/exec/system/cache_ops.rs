//! Cache control (SDM Vol. 2A; MK specification section 5.3).

use crate::Cpu;
use crate::mmu::{Access, FlushKind};
use iced_x86::Instruction;
use mem::Operation;
use x86::Exception;

fn require_cpl0(cpu: &Cpu) -> Result<(), Exception> {
    if cpu.cpl == 0 { Ok(()) } else { Err(Exception::GP0) }
}

/// WBINVD: the lines of all KeyIDs are written back and dropped.
pub(super) fn wbinvd(cpu: &mut Cpu, _: &Instruction) -> Result<(), Exception> {
    require_cpl0(cpu)?;
    cpu.observe_cache(Operation::WriteBackInvalidate);
    cpu.mem.wbinvd();
    cpu.settle();
    Ok(())
}

/// WBNOINVD: the lines of all KeyIDs are written back and stay. An older processor takes its encoding, F3 0F 09, for WBINVD.
pub(super) fn wbnoinvd(cpu: &mut Cpu, _: &Instruction) -> Result<(), Exception> {
    require_cpl0(cpu)?;
    cpu.observe_cache(Operation::WriteBackAll);
    cpu.mem.wbnoinvd();
    cpu.settle();
    Ok(())
}

/// INVD: stores since the last write-back vanish.
pub(super) fn invd(cpu: &mut Cpu, _: &Instruction) -> Result<(), Exception> {
    require_cpl0(cpu)?;
    cpu.observe_cache(Operation::Invalidate);
    cpu.mem.invd();
    cpu.settle();
    Ok(())
}

/// The operand is checked like a byte load, except that execute-only segments are allowed; a fetch has just that
/// segment check, and the translation itself is a load's.
fn line(cpu: &mut Cpu, insn: &Instruction, kind: FlushKind) -> Result<(), Exception> {
    let linear = cpu.linear_address(insn, 1, Access::Fetch)?;
    cpu.flush_line(linear, kind)
}

/// CLFLUSH, CLFLUSHOPT (the model has no order between them to lose)
pub(super) fn clflush(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    line(cpu, insn, FlushKind::Clflush)
}

pub(super) fn clwb(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    line(cpu, insn, FlushKind::Clwb)
}
