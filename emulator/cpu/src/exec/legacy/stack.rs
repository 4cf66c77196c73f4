//! PUSH, POP, PUSHA, POPA, ENTER, LEAVE (SDM Vol. 2A/2B; Vol. 1, section 6.2).

use crate::exec::system::frame::merge_sp;
use crate::mmu::Access;
use crate::state::{Cpu, slot};
use iced_x86::Instruction;
use x86::Exception;
use x86::segment::sreg;

/// Keeps the low `size` bytes.
pub(crate) fn truncate(value: u64, size: usize) -> u64 {
    match size {
        2 => value & 0xFFFF,
        4 => value & 0xFFFF_FFFF,
        _ => value,
    }
}

/// `old` after a write of `size` bytes to a general register.
fn merge_register(old: u64, value: u64, size: usize) -> u64 {
    if size == 2 { old & !0xFFFF | value & 0xFFFF } else { truncate(value, size) }
}

impl Cpu {
    /// Loads `size` bytes (2, 4 or 8) from `above` bytes over the top of the stack; RSP stays.
    pub fn stack_read(&mut self, above: u64, size: usize) -> Result<u64, Exception> {
        self.stack_read_at(self.regs[slot::RSP as usize].wrapping_add(above), size)
    }

    fn stack_read_at(&mut self, offset: u64, size: usize) -> Result<u64, Exception> {
        let linear = self.segment_address(sreg::SS, offset & self.stack_mask(), size, Access::Read)?;
        Ok(match size {
            2 => u64::from(self.read_u16(linear)?),
            4 => u64::from(self.read_u32(linear)?),
            _ => self.read_u64(linear)?,
        })
    }

    /// Stores `size` bytes below stack offset `sp`, which is returned decremented; RSP stays.
    fn stack_write_below(&mut self, sp: u64, size: usize, value: u64) -> Result<u64, Exception> {
        let sp = sp.wrapping_sub(size as u64) & self.stack_mask();
        let linear = self.segment_address(sreg::SS, sp, size, Access::Write)?;
        match size {
            2 => self.write_u16(linear, value as u16)?,
            4 => self.write_u32(linear, value as u32)?,
            _ => self.write_u64(linear, value)?,
        }
        Ok(sp)
    }

    /// Pushes the low 2, 4 or 8 bytes of `value`. RSP changes only if the store succeeds.
    pub fn push(&mut self, size: usize, value: u64) -> Result<(), Exception> {
        let sp = self.stack_write_below(self.regs[slot::RSP as usize], size, value)?;
        self.set_sp(sp);
        Ok(())
    }

    /// Pops 2, 4 or 8 bytes, zero-extended. RSP changes only if the load succeeds.
    pub fn pop(&mut self, size: usize) -> Result<u64, Exception> {
        let value = self.stack_read(0, size)?;
        self.set_sp(self.regs[slot::RSP as usize].wrapping_add(size as u64));
        Ok(value)
    }
}

/// PUSH r, m, imm. PUSH of the stack pointer pushes its old value.
pub fn push<const SIZE: usize>(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    let value = cpu.read_operand(insn, 0)?;
    cpu.push(SIZE, value)
}

/// POP r, m. The address of a memory operand is computed with the incremented stack pointer; POP to the stack pointer
/// leaves the popped value in it.
pub fn pop<const SIZE: usize>(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    let rsp = cpu.regs[slot::RSP as usize];
    let value = cpu.pop(SIZE)?;
    let result = cpu.write_operand(insn, 0, value);
    if result.is_err() {
        cpu.regs[slot::RSP as usize] = rsp;
    }
    result
}

/// PUSHA, PUSHAD: AX, CX, DX, BX, SP as it was, BP, SI, DI.
pub fn pusha<const SIZE: usize>(cpu: &mut Cpu, _insn: &Instruction) -> Result<(), Exception> {
    let mut values = [0; 8];
    values.copy_from_slice(&cpu.regs[..8]);
    let rsp = cpu.regs[slot::RSP as usize];
    cpu.regs[slot::RSP as usize] = cpu.push_frame(&cpu.current_stack(), rsp, SIZE, &values)?;
    Ok(())
}

/// POPA, POPAD: the reverse; the stack pointer's slot is skipped.
pub fn popa<const SIZE: usize>(cpu: &mut Cpu, _insn: &Instruction) -> Result<(), Exception> {
    let mut values = [0; 8];
    for (i, value) in values.iter_mut().enumerate() {
        *value = cpu.stack_read((i * SIZE) as u64, SIZE)?;
    }
    for (i, &value) in values.iter().enumerate() {
        let register = 7 - i;
        if register != slot::RSP as usize {
            cpu.regs[register] = merge_register(cpu.regs[register], value, SIZE);
        }
    }
    cpu.set_sp(cpu.regs[slot::RSP as usize].wrapping_add(8 * SIZE as u64));
    Ok(())
}

/// ENTER. What faults leaves only memory below the stack pointer changed.
pub fn enter<const SIZE: usize>(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    let allocate = u64::from(insn.immediate16());
    let level = insn.immediate8_2nd() & 0x1F;
    let rbp = cpu.regs[slot::RBP as usize];
    let mut sp = cpu.stack_write_below(cpu.regs[slot::RSP as usize], SIZE, rbp)?;
    let frame = sp;
    if level > 0 {
        for i in 1..u64::from(level) {
            let outer = cpu.stack_read_at(rbp.wrapping_sub(i * SIZE as u64), SIZE)?;
            sp = cpu.stack_write_below(sp, SIZE, outer)?;
        }
        sp = cpu.stack_write_below(sp, SIZE, frame)?;
    }
    let mask = cpu.stack_mask();
    sp = sp.wrapping_sub(allocate) & mask;
    // "#SS, #PF if a write using the final value of the stack pointer would cause" one (SDM Vol. 2A, "ENTER").
    let linear = cpu.segment_address(sreg::SS, sp, SIZE, Access::Write)?;
    cpu.probe_write(linear, SIZE)?;
    // A 64-bit stack's frame pointer is loaded whole even with a 16-bit operand size.
    cpu.regs[slot::RBP as usize] = if cpu.mode.is_long64() { frame } else { merge_register(rbp, frame, SIZE) };
    cpu.set_sp(sp);
    Ok(())
}

/// LEAVE: the stack pointer from the frame pointer by the stack's size, then a POP of the frame pointer.
pub fn leave<const SIZE: usize>(cpu: &mut Cpu, _insn: &Instruction) -> Result<(), Exception> {
    let rbp = cpu.regs[slot::RBP as usize];
    let value = cpu.stack_read_at(rbp, SIZE)?;
    let (rsp, mask) = (cpu.regs[slot::RSP as usize], cpu.stack_mask());
    cpu.regs[slot::RSP as usize] = merge_sp(rsp, rbp.wrapping_add(SIZE as u64), mask);
    cpu.regs[slot::RBP as usize] = merge_register(rbp, value, SIZE);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn register_writes_of_16_bits_keep_the_rest_and_of_32_bits_clear_it() {
        assert_eq!(merge_register(0x1111_2222_3333_4444, 0xABCD, 2), 0x1111_2222_3333_ABCD);
        assert_eq!(merge_register(u64::MAX, 0x1_0000_0005, 4), 5);
        assert_eq!(merge_register(u64::MAX, 5, 8), 5);
    }
}
