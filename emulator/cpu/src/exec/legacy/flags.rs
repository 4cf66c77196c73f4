//! PUSHF and POPF (SDM Vol. 2B; which flags POPF changes: table 4-16, "Effect of POPF/POPFD on the EFLAGS Register").

use crate::exec::system::delivery::virtual_if_image;
use crate::mode::Mode;
use crate::state::Cpu;
use iced_x86::Instruction;
use x86::{Exception, cr, flags};

/// RFLAGS bits that POPF loads, outside the virtual-8086 mode extensions. RF is not among them: it becomes 0.
pub fn popf_mask(size: usize, cpl: u8, iopl: u8, virtual_8086: bool) -> u64 {
    let mut mask = flags::ARITH | flags::TF | flags::DF | flags::NT;
    if size >= 4 {
        mask |= flags::AC | flags::ID;
    }
    if cpl <= iopl {
        mask |= flags::IF;
    }
    if cpl == 0 && !virtual_8086 {
        mask |= flags::IOPL;
    }
    mask
}

impl Cpu {
    /// RFLAGS as PUSHF pushes them: VM and RF as 0.
    #[inline(always)]
    pub(crate) fn rflags_to_push(&self) -> u64 {
        self.rflags() & !(flags::VM | flags::RF)
    }

    /// Virtual-8086 mode below IOPL 3: PUSHF and POPF are for the monitor, or for VIF with VME and 16-bit operands.
    fn flags_use_virtual_if(&self, size: usize) -> Result<bool, Exception> {
        if self.mode != Mode::Virtual8086 || self.iopl() == 3 {
            return Ok(false);
        }
        if self.cr4 & cr::cr4::VME != 0 && size == 2 { Ok(true) } else { Err(Exception::GP0) }
    }
}

/// PUSHF, PUSHFD, PUSHFQ.
pub fn pushf<const SIZE: usize>(cpu: &mut Cpu, _insn: &Instruction) -> Result<(), Exception> {
    let virtual_if = cpu.flags_use_virtual_if(SIZE)?;
    let rflags = cpu.rflags_to_push();
    cpu.push(SIZE, if virtual_if { virtual_if_image(rflags) } else { rflags })
}

/// POPF, POPFD, POPFQ
pub fn popf<const SIZE: usize>(cpu: &mut Cpu, _insn: &Instruction) -> Result<(), Exception> {
    let virtual_if = cpu.flags_use_virtual_if(SIZE)?;
    let image = cpu.stack_read(0, SIZE)?;
    if virtual_if {
        cpu.check_virtual_if(image)?;
        cpu.pop(SIZE)?;
        cpu.load_flags_with_virtual_if(image);
        return Ok(());
    }
    cpu.pop(SIZE)?;
    let mask = popf_mask(SIZE, cpu.cpl, cpu.iopl(), cpu.mode == Mode::Virtual8086);
    cpu.merge_rflags(image & !flags::RF, mask | flags::RF);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn popf_changes_if_only_within_iopl_and_iopl_only_at_cpl_0() {
        assert_eq!(popf_mask(8, 3, 0, false) & (flags::IF | flags::IOPL), 0);
        assert_eq!(popf_mask(8, 3, 3, false) & (flags::IF | flags::IOPL), flags::IF);
        assert_eq!(popf_mask(8, 0, 0, false) & (flags::IF | flags::IOPL), flags::IF | flags::IOPL);
    }

    #[test]
    fn popf_changes_ac_and_id_only_with_wide_operands_and_never_the_virtual_flags() {
        assert_eq!(popf_mask(2, 0, 0, false) & (flags::AC | flags::ID), 0);
        assert_eq!(popf_mask(4, 3, 0, false) & (flags::AC | flags::ID), flags::AC | flags::ID);
        assert_eq!(popf_mask(8, 0, 3, false) & (flags::VM | flags::VIF | flags::VIP | flags::RF), 0);
    }
}
