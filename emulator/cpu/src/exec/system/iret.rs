//! IRET, IRETD, IRETQ (SDM Vol. 2A, "IRET"; Vol. 3A, section 6.14.3; Vol. 3B, section 21.2.3).

use super::descriptor::{selector, v86_segment};
use crate::mode::Mode;
use crate::state::{Cpu, slot};
use iced_x86::Instruction;
use x86::segment::{ar, sreg};
use x86::{Exception, cr, flags};

/// RFLAGS bits IRET loads at any privilege with any operand size.
const ALWAYS: u64 = flags::ARITH | flags::TF | flags::DF | flags::NT;
/// Those it loads besides with a 32- or 64-bit operand size.
const WIDE: u64 = flags::RF | flags::AC | flags::ID;
/// The flags that fit the 16-bit image.
const LOW16: u64 = 0xFFFF;
/// What virtual-8086 and real mode keep whatever the image says.
const KEPT_8086: u64 = flags::VM | flags::VIF | flags::VIP;

/// RFLAGS bits that IRET of protected mode loads, by operand size and by the privilege before the return.
pub fn iret_mask(size: usize, cpl: u8, iopl: u8) -> u64 {
    let mut mask = ALWAYS;
    if size >= 4 {
        mask |= WIDE;
    }
    if cpl <= iopl {
        mask |= flags::IF;
    }
    if cpl == 0 {
        mask |= flags::IOPL;
        if size >= 4 {
            mask |= flags::VIF | flags::VIP;
        }
    }
    mask
}

impl Cpu {
    /// Replaces the RFLAGS bits in `mask` by those of `image`.
    pub(crate) fn merge_rflags(&mut self, image: u64, mask: u64) {
        let rest = self.rflags() & !mask;
        self.set_rflags(rest | image & mask);
    }

    fn iret_8086(&mut self, size: usize) -> Result<(), Exception> {
        let step = size as u64;
        let virtual_if = self.mode == Mode::Virtual8086 && self.iopl() < 3;
        if virtual_if && (self.cr4 & cr::cr4::VME == 0 || size != 2) {
            return Err(Exception::GP0);
        }
        let ip = self.stack_read(0, size)?;
        let cs = self.stack_read(step, size)? as u16;
        let image = self.stack_read(2 * step, size)?;
        if ip > u64::from(self.segments[sreg::CS].limit) {
            return Err(Exception::GP0);
        }
        if virtual_if {
            self.check_virtual_if(image)?;
        }
        let rsp = self.regs[slot::RSP as usize];
        self.set_sp(rsp.wrapping_add(3 * step));
        self.load_cs_8086(cs);
        self.set_rip(ip);
        let width = if size == 2 { LOW16 } else { !KEPT_8086 };
        match (self.mode, virtual_if) {
            (Mode::Virtual8086, true) => self.load_flags_with_virtual_if(image),
            (Mode::Virtual8086, false) => self.merge_rflags(image, width & !flags::IOPL),
            _ => self.merge_rflags(image, width),
        }
        Ok(())
    }

    /// Virtual-8086 mode extensions: an image that enables interrupts while one is pending, or sets TF, goes to the
    /// monitor (SDM Vol. 2A, "IRET", RETURN-FROM-VIRTUAL-8086-MODE).
    pub(crate) fn check_virtual_if(&self, image: u64) -> Result<(), Exception> {
        let enables = image & flags::IF != 0 && self.rflags_system & flags::VIP != 0;
        if enables || image & flags::TF != 0 { Err(Exception::GP0) } else { Ok(()) }
    }

    /// Loads a 16-bit FLAGS image with VIF in the place of IF; IF and IOPL stay.
    pub(crate) fn load_flags_with_virtual_if(&mut self, image: u64) {
        let vif = if image & flags::IF != 0 { flags::VIF } else { 0 };
        let mask = LOW16 & !(flags::IF | flags::IOPL) | flags::VIF;
        self.merge_rflags(image & LOW16 | vif, mask);
    }

    fn iret_to_v86(&mut self, ip: u64, cs: u16, image: u64) -> Result<(), Exception> {
        let esp = self.stack_read(12, 4)?;
        let mut selectors = [0u16; 5];
        for (i, s) in selectors.iter_mut().enumerate() {
            *s = self.stack_read(16 + 4 * i as u64, 4)? as u16;
        }
        if ip > 0xFFFF {
            return Err(Exception::GP0);
        }
        // CPL is 0 here, so every flag of the image is loaded, VM among them.
        self.set_rflags(image & 0xFFFF_FFFF);
        self.set_segment(sreg::CS, v86_segment(cs));
        let order = [sreg::SS, sreg::ES, sreg::DS, sreg::FS, sreg::GS];
        for (seg, value) in order.into_iter().zip(selectors) {
            self.set_segment(seg, v86_segment(value));
        }
        self.set_cpl(3);
        self.regs[slot::RSP as usize] = esp;
        self.set_rip(ip);
        Ok(())
    }

    fn iret_protected(&mut self, size: usize) -> Result<(), Exception> {
        let ia32e = self.ia32e_active();
        if self.rflags_system & flags::NT != 0 {
            // A nested task's return. IA-32e mode has no tasks; in legacy mode they are not modelled (see `far`).
            let code = if ia32e { 0 } else { selector::error_code(self.tr.selector) };
            return Err(Exception::GeneralProtection(code));
        }
        let step = size as u64;
        let ip = self.stack_read(0, size)?;
        let value = self.stack_read(step, size)? as u16;
        let image = self.stack_read(2 * step, size)?;
        if !ia32e && size == 4 && image & flags::VM != 0 && self.cpl == 0 {
            return self.iret_to_v86(ip, value, image);
        }
        let mut code = self.return_code_segment(value)?;
        let rpl = selector::rpl(value);
        let mask = iret_mask(size, self.cpl, self.iopl());
        let rsp = self.regs[slot::RSP as usize];
        if rpl == self.cpl && !self.mode.is_long64() {
            self.check_code_offset(&code.segment, ip)?;
            self.set_accessed(&mut code)?;
            self.set_sp(rsp.wrapping_add(3 * step));
            self.load_cs(code.segment, rpl);
        } else {
            // 64-bit mode pops SS:RSP whether the privilege level changes or not.
            let popped = self.stack_read(3 * step, size)?;
            let ss = self.stack_read(4 * step, size)? as u16;
            let to_long = ia32e && code.segment.is(ar::L);
            let ss = self.return_stack_segment(ss, rpl, to_long)?;
            self.check_code_offset(&code.segment, ip)?;
            self.set_accessed(&mut code)?;
            let outward = rpl > self.cpl;
            self.regs[slot::RSP as usize] = self.returned_rsp(popped, to_long, &ss);
            self.load_cs(code.segment, rpl);
            self.set_segment(sreg::SS, ss);
            if outward {
                self.drop_privileged_segments();
            }
        }
        self.merge_rflags(image, mask);
        self.set_rip(ip);
        Ok(())
    }
}

/// IRET with an operand size of 2, 4 or 8 bytes. It ends the blocking of NMIs even if it faults (SDM Vol. 3A, section
/// 6.7.1).
pub fn iret<const SIZE: usize>(cpu: &mut Cpu, _insn: &Instruction) -> Result<(), Exception> {
    cpu.nmi_blocked = false;
    if cpu.mode.is_protected() { cpu.iret_protected(SIZE) } else { cpu.iret_8086(SIZE) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iret_loads_if_only_within_iopl_and_iopl_only_at_cpl_0() {
        assert_eq!(iret_mask(8, 3, 0) & (flags::IF | flags::IOPL), 0);
        assert_eq!(iret_mask(8, 3, 3) & (flags::IF | flags::IOPL), flags::IF);
        assert_eq!(iret_mask(8, 0, 0) & (flags::IF | flags::IOPL), flags::IF | flags::IOPL);
    }

    #[test]
    fn iretw_loads_no_flag_above_bit_15() {
        assert_eq!(iret_mask(2, 0, 0) & !LOW16, 0);
    }

    #[test]
    fn iret_never_loads_vm_in_a_protected_return() {
        assert_eq!(iret_mask(4, 0, 3) & flags::VM, 0);
    }
}
