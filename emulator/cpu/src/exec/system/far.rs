//! Far JMP, CALL and RET (SDM Vol. 2A/2B; Vol. 3A, sections 5.8.1 to 5.8.6).
//!
//! Hardware task switching is not modelled: a TSS descriptor or task gate as the target raises #GP(selector), as it does
//! in IA-32e mode, where the mechanism does not exist (SDM Vol. 3A, section 7.7).

use super::descriptor::{Descriptor, Gate, null_segment, real_segment, selector, system_type, tss, v86_segment};
use super::frame::{MAX_VALUES, Stack, merge_sp};
use crate::mode::Mode;
use crate::state::{Cpu, slot};
use iced_x86::Instruction;
use x86::Exception;
use x86::segment::{Segment, ar, sreg};

/// What a far transfer leaves on the stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    /// JMP: nothing.
    Jump,
    /// CALL: CS and the next instruction's offset, in values of this many bytes (a call gate's own size overrides it).
    Call(usize),
}

impl Cpu {
    /// Loads CS of real or virtual-8086 mode.
    pub(crate) fn load_cs_8086(&mut self, value: u16) {
        let segment = if self.mode == Mode::Virtual8086 {
            v86_segment(value)
        } else {
            real_segment(self.segments[sreg::CS], value)
        };
        self.set_segment(sreg::CS, segment);
    }

    /// Loads CS with RPL = `cpl`, which becomes the current privilege level. All checks have been made.
    pub(crate) fn load_cs(&mut self, mut code: Segment, cpl: u8) {
        code.selector = code.selector & selector::INDEX_AND_TI | u16::from(cpl);
        self.set_segment(sreg::CS, code);
        if cpl != self.cpl {
            self.set_cpl(cpl);
        }
    }

    /// True for a code segment with L = D = 1, which IA-32e mode reserves.
    fn reserved_code_size(&self, d: &Descriptor) -> bool {
        self.ia32e_active() && d.segment.is(ar::L | ar::DB)
    }

    /// CS and return offset, as CALL pushes them.
    fn return_link(&self) -> [u64; 2] {
        [u64::from(self.segments[sreg::CS].selector), self.next_ip]
    }

    fn far_transfer(&mut self, value: u16, offset: u64, link: Link) -> Result<(), Exception> {
        if !self.mode.is_protected() {
            return self.far_transfer_8086(value, offset, link);
        }
        if selector::is_null(value) {
            return Err(Exception::GP0);
        }
        let d = self.fetch_descriptor(value, Exception::GeneralProtection)?;
        if d.is_code_or_data() {
            return self.far_to_code(d, value, offset, link);
        }
        let bad = Exception::GeneralProtection(selector::error_code(value));
        match d.kind() {
            system_type::CALL_GATE => {}
            system_type::CALL_GATE16 if !self.ia32e_active() => {}
            _ => return Err(bad),
        }
        // Privilege and presence of a gate are those of the fields that every descriptor has.
        let dpl = d.segment.dpl();
        if dpl < self.cpl || dpl < selector::rpl(value) {
            return Err(bad);
        }
        let d = if self.ia32e_active() { self.fetch_descriptor16(value, Exception::GeneralProtection)? } else { d };
        if !d.upper_type_is_zero() {
            return Err(bad);
        }
        let gate = Gate::decode(d.raw, d.upper);
        if !gate.present {
            return Err(Exception::SegmentNotPresent(selector::error_code(value)));
        }
        self.far_through_gate(&gate, link)
    }

    fn far_transfer_8086(&mut self, value: u16, offset: u64, link: Link) -> Result<(), Exception> {
        if offset > u64::from(self.segments[sreg::CS].limit) {
            return Err(Exception::GP0);
        }
        if let Link::Call(size) = link {
            let rsp = self.regs[slot::RSP as usize];
            let rsp = self.push_frame(&self.current_stack(), rsp, size, &self.return_link())?;
            self.regs[slot::RSP as usize] = rsp;
        }
        self.load_cs_8086(value);
        self.set_rip(offset);
        Ok(())
    }

    /// Direct transfer to a code segment: CPL stays.
    fn far_to_code(&mut self, mut d: Descriptor, value: u16, offset: u64, link: Link) -> Result<(), Exception> {
        let bad = Exception::GeneralProtection(selector::error_code(value));
        let dpl = d.segment.dpl();
        let allowed =
            if d.is_conforming_code() { dpl <= self.cpl } else { selector::rpl(value) <= self.cpl && dpl == self.cpl };
        if !d.is_code() || self.reserved_code_size(&d) || !allowed {
            return Err(bad);
        }
        if !d.segment.present() {
            return Err(Exception::SegmentNotPresent(selector::error_code(value)));
        }
        self.check_code_offset(&d.segment, offset)?;
        self.set_accessed(&mut d)?;
        if let Link::Call(size) = link {
            let rsp = self.regs[slot::RSP as usize];
            let rsp = self.push_frame(&self.current_stack(), rsp, size, &self.return_link())?;
            self.regs[slot::RSP as usize] = rsp;
        }
        self.load_cs(d.segment, self.cpl);
        self.set_rip(offset);
        Ok(())
    }

    fn far_through_gate(&mut self, gate: &Gate, link: Link) -> Result<(), Exception> {
        let code = selector::error_code(gate.selector);
        let bad = Exception::GeneralProtection(code);
        if selector::is_null(gate.selector) {
            return Err(Exception::GP0);
        }
        let mut d = self.fetch_descriptor(gate.selector, Exception::GeneralProtection)?;
        let dpl = d.segment.dpl();
        let conforming = d.is_conforming_code();
        let inward = link != Link::Jump && !conforming && dpl < self.cpl;
        if !d.is_code() || dpl > self.cpl || !conforming && dpl != self.cpl && !inward {
            return Err(bad);
        }
        if self.ia32e_active() && d.segment.ar & (ar::L | ar::DB) != ar::L {
            return Err(bad);
        }
        if !d.segment.present() {
            return Err(Exception::SegmentNotPresent(code));
        }
        if inward {
            return self.call_inner_level(gate, d);
        }
        self.check_code_offset(&d.segment, gate.offset)?;
        self.set_accessed(&mut d)?;
        if link != Link::Jump {
            let long = self.ia32e_active();
            // A 64-bit gate's frame is on a 64-bit stack even when compatibility-mode code calls it.
            let stack = if long { Stack::long(Exception::SS0) } else { self.current_stack() };
            let rsp = self.regs[slot::RSP as usize];
            let rsp = self.push_frame(&stack, rsp, gate.operand_size(long), &self.return_link())?;
            self.regs[slot::RSP as usize] = rsp;
        }
        self.load_cs(d.segment, self.cpl);
        self.set_rip(gate.offset);
        Ok(())
    }

    /// CALL through a gate to a more privileged level: switches to the stack that the TSS names.
    fn call_inner_level(&mut self, gate: &Gate, mut code: Descriptor) -> Result<(), Exception> {
        let level = code.segment.dpl();
        let old_ss = u64::from(self.segments[sreg::SS].selector);
        let old_rsp = self.regs[slot::RSP as usize];
        let [old_cs, return_ip] = self.return_link();
        if self.ia32e_active() {
            let rsp = self.tss64_stack(tss::SP0 + 8 * u64::from(level))?;
            self.check_code_offset(&code.segment, gate.offset)?;
            self.set_accessed(&mut code)?;
            let frame = [old_ss, old_rsp, old_cs, return_ip];
            let stack = Stack::long(Exception::SS0);
            let rsp = self.at_cpl(level, |cpu| cpu.push_frame(&stack, rsp, 8, &frame))?;
            self.load_cs(code.segment, level);
            self.set_segment(sreg::SS, null_segment(u16::from(level)));
            self.regs[slot::RSP as usize] = rsp;
            self.set_rip(gate.offset);
            return Ok(());
        }

        let (ss, sp) = self.tss_stack(level)?;
        let mut stack_segment = self.inner_stack_segment(ss, level)?;
        let size = gate.operand_size(false);
        let count = usize::from(gate.low_bits & 0x1F);
        let mut frame = [0u64; MAX_VALUES];
        frame[0] = old_ss;
        frame[1] = old_rsp & self.stack_mask();
        // Parameters keep their order: the one deepest in the old stack is pushed first.
        for i in 0..count {
            frame[2 + i] = self.stack_read(((count - 1 - i) * size) as u64, size)?;
        }
        frame[2 + count] = old_cs;
        frame[3 + count] = return_ip;
        self.check_code_offset(&code.segment, gate.offset)?;
        self.set_accessed(&mut code)?;
        self.set_accessed(&mut stack_segment)?;
        let stack = Stack::protected(stack_segment.segment, Exception::StackFault(selector::error_code(ss)));
        let rsp = self.at_cpl(level, |cpu| cpu.push_frame(&stack, sp, size, &frame[..4 + count]))?;
        self.load_cs(code.segment, level);
        self.set_segment(sreg::SS, stack_segment.segment);
        self.regs[slot::RSP as usize] = rsp;
        self.set_rip(gate.offset);
        Ok(())
    }

    /// The code segment that RET or IRET returns to, and its requested privilege level (SDM Vol. 2B, "RET").
    pub(crate) fn return_code_segment(&mut self, value: u16) -> Result<Descriptor, Exception> {
        if selector::is_null(value) {
            return Err(Exception::GP0);
        }
        let d = self.fetch_descriptor(value, Exception::GeneralProtection)?;
        let (rpl, dpl) = (selector::rpl(value), d.segment.dpl());
        let allowed = if d.is_conforming_code() { dpl <= rpl } else { dpl == rpl };
        if !d.is_code() || rpl < self.cpl || !allowed || self.reserved_code_size(&d) {
            return Err(Exception::GeneralProtection(selector::error_code(value)));
        }
        if !d.segment.present() {
            return Err(Exception::SegmentNotPresent(selector::error_code(value)));
        }
        Ok(d)
    }

    /// RSP of a return that pops it: 64-bit code gets all of it, other code what its stack size says.
    pub(crate) fn returned_rsp(&self, popped: u64, to_long: bool, ss: &Segment) -> u64 {
        let mask = if ss.is(ar::DB) { 0xFFFF_FFFF } else { 0xFFFF };
        if to_long { popped } else { merge_sp(self.regs[slot::RSP as usize], popped, mask) }
    }

    fn far_return(&mut self, size: usize, release: u64) -> Result<(), Exception> {
        let step = size as u64;
        let ip = self.stack_read(0, size)?;
        let value = self.stack_read(step, size)? as u16;
        let rsp = self.regs[slot::RSP as usize];
        if !self.mode.is_protected() {
            if ip > u64::from(self.segments[sreg::CS].limit) {
                return Err(Exception::GP0);
            }
            self.load_cs_8086(value);
            self.set_sp(rsp.wrapping_add(2 * step + release));
            self.set_rip(ip);
            return Ok(());
        }
        let mut code = self.return_code_segment(value)?;
        let rpl = selector::rpl(value);
        if rpl == self.cpl {
            self.check_code_offset(&code.segment, ip)?;
            self.set_accessed(&mut code)?;
            // RSP is released with the size of the stack that was popped, before CS changes the mode.
            self.set_sp(rsp.wrapping_add(2 * step + release));
            self.load_cs(code.segment, rpl);
            self.set_rip(ip);
            return Ok(());
        }

        let popped = self.stack_read(2 * step + release, size)?;
        let ss = self.stack_read(3 * step + release, size)? as u16;
        let to_long = self.ia32e_active() && code.segment.is(ar::L);
        let ss = self.return_stack_segment(ss, rpl, to_long)?;
        self.check_code_offset(&code.segment, ip)?;
        self.set_accessed(&mut code)?;
        self.regs[slot::RSP as usize] = self.returned_rsp(popped.wrapping_add(release), to_long, &ss);
        self.load_cs(code.segment, rpl);
        self.set_segment(sreg::SS, ss);
        self.drop_privileged_segments();
        self.set_rip(ip);
        Ok(())
    }
}

/// JMP ptr16:16 and ptr16:32
pub fn jmp_far_direct<const SIZE: usize>(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    cpu.far_transfer(insn.far_branch_selector(), far_offset(insn, SIZE), Link::Jump)
}

/// CALL ptr16:16 and ptr16:32
pub fn call_far_direct<const SIZE: usize>(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    cpu.far_transfer(insn.far_branch_selector(), far_offset(insn, SIZE), Link::Call(SIZE))
}

/// JMP m16:16, m16:32, m16:64
pub fn jmp_far_indirect<const SIZE: usize>(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    let (offset, value) = cpu.read_far_pointer(insn, SIZE)?;
    cpu.far_transfer(value, offset, Link::Jump)
}

/// CALL m16:16, m16:32, m16:64
pub fn call_far_indirect<const SIZE: usize>(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    let (offset, value) = cpu.read_far_pointer(insn, SIZE)?;
    cpu.far_transfer(value, offset, Link::Call(SIZE))
}

/// RET far
pub fn ret_far<const SIZE: usize>(cpu: &mut Cpu, _insn: &Instruction) -> Result<(), Exception> {
    cpu.far_return(SIZE, 0)
}

/// RET far imm16
pub fn ret_far_imm<const SIZE: usize>(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    cpu.far_return(SIZE, insn.immediate(0))
}

fn far_offset(insn: &Instruction, size: usize) -> u64 {
    if size == 2 { u64::from(insn.far_branch16()) } else { u64::from(insn.far_branch32()) }
}
