//! DIV and IDIV (SDM Vol. 2A). All six arithmetic flags are undefined afterwards; they keep their values here.

use super::{mask, operand_size, sign_extend};
use crate::Cpu;
use crate::state::slot;
use iced_x86::{Instruction, Register};
use x86::Exception;

impl Cpu {
    /// AX, DX:AX, EDX:EAX or RDX:RAX, twice as wide as the divisor.
    fn dividend(&self, size: usize) -> u128 {
        let (rax, rdx) = (self.regs[slot::RAX as usize], self.regs[slot::RDX as usize]);
        if size == 1 {
            return u128::from(rax & 0xFFFF);
        }
        u128::from(rdx & mask(size)) << (size * 8) | u128::from(rax & mask(size))
    }

    /// Quotient to AL, AX, EAX or RAX; remainder to AH, DX, EDX or RDX.
    fn set_division(&mut self, size: usize, quotient: u64, remainder: u64) {
        let (q, r) = match size {
            1 => (Register::AL, Register::AH),
            2 => (Register::AX, Register::DX),
            4 => (Register::EAX, Register::EDX),
            _ => (Register::RAX, Register::RDX),
        };
        self.set_reg(q, quotient);
        self.set_reg(r, remainder);
    }
}

pub(super) fn div(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    let size = operand_size(insn, 0);
    let divisor = u128::from(cpu.read_operand(insn, 0)?);
    let dividend = cpu.dividend(size);
    let quotient = dividend.checked_div(divisor).ok_or(Exception::DivideError)?;
    if quotient > u128::from(mask(size)) {
        return Err(Exception::DivideError);
    }
    cpu.set_division(size, quotient as u64, (dividend % divisor) as u64);
    Ok(())
}

pub(super) fn idiv(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    let size = operand_size(insn, 0);
    let divisor = i128::from(sign_extend(cpu.read_operand(insn, 0)?, size));
    let unused = 128 - size * 16;
    let dividend = (cpu.dividend(size) as i128) << unused >> unused;
    let quotient = dividend.checked_div(divisor).ok_or(Exception::DivideError)?;
    if quotient != i128::from(sign_extend(quotient as u64, size)) {
        return Err(Exception::DivideError);
    }
    let remainder = dividend.wrapping_rem(divisor);
    cpu.set_division(size, quotient as u64, remainder as u64);
    Ok(())
}
