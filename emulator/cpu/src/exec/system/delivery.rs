//! Delivery of exceptions and interrupts (SDM Vol. 3A, ch. 6; Vol. 2A, "INT n"; Vol. 3B, ch. 21 for 8086 modes).
//!
//! Contract with the run loop: [`Cpu::ip`] is the instruction that faulted and [`Cpu::next_ip`] what would have run next;
//! for an interrupt between instructions both are the latter. The event's class decides which one is pushed. After a
//! delivery `next_ip` is the handler's first instruction.
//!
//! Task gates raise #GP like a gate of a wrong type, see [`super::far`].

use super::descriptor::{Descriptor, Gate, null_segment, selector, system_type, tss};
use super::frame::Stack;
use crate::mode::Mode;
use crate::operand::canonical;
use crate::state::{Activity, Cpu, slot};
use crate::trace::What;
use iced_x86::Instruction;
use x86::exception::Class;
use x86::segment::{ar, sreg};
use x86::{Exception, cr, flags};

/// A fault while a double fault was being delivered: the processor shuts down (SDM Vol. 3A, section 6.15, "Interrupt 8").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TripleFault;

/// Where an event comes from. Decides EXT of error codes, and whether the gate's DPL counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// An interrupt, NMI or exception that no INT instruction asked for.
    Hardware,
    /// INT n
    Interrupt,
    /// INT3, INTO
    SoftwareException,
    /// INT1
    PrivilegedSoftwareException,
}

impl Source {
    /// EXT (SDM Vol. 3A, section 6.13): INT1 counts as external.
    fn ext(self) -> u16 {
        matches!(self, Source::Hardware | Source::PrivilegedSoftwareException).into()
    }

    /// INT n, INT3 and INTO need CPL <= DPL of the gate (SDM Vol. 3A, section 6.12.1.2).
    fn checks_dpl(self) -> bool {
        matches!(self, Source::Interrupt | Source::SoftwareException)
    }
}

/// One event on its way through the IDT.
#[derive(Debug, Clone, Copy)]
struct Event {
    vector: u8,
    source: Source,
    error_code: Option<u32>,
    /// RIP and RFLAGS to push.
    return_ip: u64,
    rflags: u64,
}

/// DR6 and DR7 (SDM Vol. 3B, sections 17.2.3 and 17.2.4).
mod debug {
    /// DR6.BD: access to a debug register.
    pub const BD: u64 = 1 << 13;
    /// DR6.BS: single step.
    pub const BS: u64 = 1 << 14;
    /// DR7.GD
    pub const GD: u64 = 1 << 13;
    /// DR7.R/W0; four bits a breakpoint.
    pub const RW0_SHIFT: u32 = 16;
}

/// Bit 1 of an error code: the index is that of an IDT gate (SDM Vol. 3A, figure 6-7).
const IDT: u16 = 1 << 1;

/// An exception that delivery of another one raises can itself be followed by another. All chains but those of #AC end
/// in a double fault; this bounds them.
const MAX_NESTING: usize = 8;

fn gate_code(vector: u8) -> u16 {
    u16::from(vector) << 3 | IDT
}

/// Sets EXT in a selector error code.
fn with_ext(e: Exception, ext: u16) -> Exception {
    match e {
        Exception::InvalidTss(c) => Exception::InvalidTss(c | ext),
        Exception::SegmentNotPresent(c) => Exception::SegmentNotPresent(c | ext),
        Exception::StackFault(c) => Exception::StackFault(c | ext),
        Exception::GeneralProtection(c) => Exception::GeneralProtection(c | ext),
        other => other,
    }
}

/// What to deliver when `second` occurs while `first` is being delivered (SDM Vol. 3A, table 6-5).
pub fn escalate(first: Exception, second: Exception) -> Result<Exception, TripleFault> {
    let serious = second.class() != Class::Benign;
    let double = match (first, first.class()) {
        (Exception::DoubleFault, _) if serious => return Err(TripleFault),
        (_, Class::Contributory) => second.class() == Class::Contributory,
        (_, Class::PageFault) => serious,
        _ => false,
    };
    Ok(if double { Exception::DoubleFault } else { second })
}

/// True if a #DB with these DR6 bits is a fault: general detect and instruction breakpoints (SDM Vol. 3B, table 17-2).
fn debug_is_fault(bits: u64, dr7: u64) -> bool {
    let execute = |i: u32| bits >> i & 1 != 0 && dr7 >> (debug::RW0_SHIFT + 4 * i) & 3 == 0;
    bits & debug::BD != 0 || bits & debug::BS == 0 && (0..4).any(execute)
}

/// RF in the pushed image: 1 for faults, except those of instruction breakpoints (SDM Vol. 3B, section 17.3.1.1).
fn sets_rf(e: Exception) -> bool {
    !matches!(e, Exception::Debug(_) | Exception::Nmi | Exception::Breakpoint | Exception::Overflow)
}

impl Cpu {
    /// Delivers an exception or NMI. On success [`Cpu::next_ip`] is its handler.
    ///
    /// # Errors
    ///
    /// [`TripleFault`]: the processor enters shutdown, which is the caller's to do.
    pub fn deliver_exception(&mut self, exception: Exception) -> Result<(), TripleFault> {
        let mut current = exception;
        self.note_exception(current);
        for _ in 0..MAX_NESTING {
            if current == Exception::MachineCheck {
                self.enter_machine_check()?;
            }
            let trap = match current {
                Exception::Debug(bits) => !debug_is_fault(bits, self.dr7),
                Exception::Nmi => true,
                e => e.is_trap(),
            };
            let event = Event {
                vector: current.vector(),
                source: if current.is_trap() { Source::SoftwareException } else { Source::Hardware },
                error_code: current.error_code(),
                return_ip: if trap { self.next_ip } else { self.ip },
                rflags: self.rflags() | if sets_rf(current) { flags::RF } else { 0 },
            };
            let second = match self.deliver(&event) {
                Ok(()) => {
                    match current {
                        // So that the handler can use the debug registers (SDM Vol. 3B, section 17.2.4).
                        Exception::Debug(_) => self.dr7 &= !debug::GD,
                        Exception::Nmi => self.nmi_blocked = true,
                        _ => {}
                    }
                    return Ok(());
                }
                Err(second) => second,
            };
            if trap && !current.is_trap() {
                // The instruction is complete: what fails now happens at the boundary after it.
                self.ip = self.next_ip;
            }
            self.note_exception(second);
            current = escalate(current, second)?;
        }
        Err(TripleFault)
    }

    /// Delivers an external interrupt. On success [`Cpu::next_ip`] is its handler.
    ///
    /// # Errors
    ///
    /// As [`Cpu::deliver_exception`].
    pub fn deliver_interrupt(&mut self, vector: u8) -> Result<(), TripleFault> {
        let event = Event {
            vector,
            source: Source::Hardware,
            error_code: None,
            return_ip: self.next_ip,
            rflags: self.rflags(),
        };
        match self.deliver(&event) {
            Ok(()) => Ok(()),
            Err(e) => {
                self.ip = self.next_ip;
                self.deliver_exception(e)
            }
        }
    }

    /// Delivers the event of an INT n, INT3, INTO or INT1 instruction, whose return address is [`Cpu::next_ip`]. An
    /// exception is a fault of that instruction.
    pub fn software_interrupt(&mut self, vector: u8, source: Source) -> Result<(), Exception> {
        let event =
            Event { vector, source, error_code: None, return_ip: self.next_ip, rflags: self.rflags() & !flags::RF };
        if self.mode == Mode::Virtual8086 && source == Source::Interrupt {
            if self.cr4 & cr::cr4::VME != 0 && self.redirected_to_8086(vector)? {
                return self.deliver_redirected(&event);
            }
            if self.iopl() < 3 {
                return Err(Exception::GP0);
            }
        }
        self.deliver(&event)?;
        self.note(self.ip, What::Software { vector, handler: self.next_ip });
        Ok(())
    }

    /// What an exception changes besides control flow.
    fn note_exception(&mut self, e: Exception) {
        match e {
            Exception::PageFault { address, .. } => self.cr2 = address,
            Exception::Debug(bits) => self.dr6 |= bits,
            _ => {}
        }
    }

    fn deliver(&mut self, event: &Event) -> Result<(), Exception> {
        let result = if self.mode == Mode::Real {
            self.deliver_8086(event)
        } else if self.ia32e_active() {
            self.deliver_ia32e(event)
        } else {
            self.deliver_protected(event)
        };
        result.map_err(|e| with_ext(e, event.source.ext()))?;
        self.interrupt_shadow = false;
        self.discard_trap = true;
        if self.activity == Activity::Halted {
            self.activity = Activity::Running;
        }
        Ok(())
    }

    /// Real mode: the vector table at IDTR's base (SDM Vol. 3B, section 21.1.4). No error codes.
    fn deliver_8086(&mut self, event: &Event) -> Result<(), Exception> {
        let at = u64::from(event.vector) * 4;
        if at + 3 > u64::from(self.idtr.limit) {
            return Err(Exception::GeneralProtection(gate_code(event.vector)));
        }
        let vector = self.read_system_u32(self.idtr.base.wrapping_add(at) & 0xFFFF_FFFF)?;
        self.enter_8086_handler(vector, event.rflags, event.return_ip, flags::IF | flags::TF | flags::RF | flags::AC)
    }

    /// Pushes FLAGS, CS and IP, clears `cleared` and continues at the far pointer `vector`.
    fn enter_8086_handler(&mut self, vector: u32, image: u64, ip: u64, cleared: u64) -> Result<(), Exception> {
        let frame = [image, u64::from(self.segments[sreg::CS].selector), ip];
        let rsp = self.regs[slot::RSP as usize];
        let rsp = self.push_frame(&self.current_stack(), rsp, 2, &frame)?;
        self.regs[slot::RSP as usize] = rsp;
        self.merge_rflags(0, cleared);
        self.load_cs_8086((vector >> 16) as u16);
        self.set_rip(u64::from(vector & 0xFFFF));
        Ok(())
    }

    /// Virtual-8086 mode extensions: the bit of `vector` in the TSS's redirection bitmap is 0 (SDM Vol. 3B, section
    /// 21.3.3).
    fn redirected_to_8086(&mut self, vector: u8) -> Result<bool, Exception> {
        let limit = u64::from(self.tr.limit);
        if tss::IO_MAP_BASE + 1 > limit {
            return Err(Exception::GP0);
        }
        let map = u64::from(self.read_system_u16(self.tr.base.wrapping_add(tss::IO_MAP_BASE) & 0xFFFF_FFFF)?);
        let at = map.wrapping_sub(tss::REDIRECTION_BYTES).wrapping_add(u64::from(vector / 8));
        if at > limit {
            return Err(Exception::GP0);
        }
        let mut byte = [0];
        self.read_system(self.tr.base.wrapping_add(at) & 0xFFFF_FFFF, &mut byte)?;
        Ok(byte[0] >> (vector % 8) & 1 == 0)
    }

    /// INT n in virtual-8086 mode through the 8086 vector table at linear address 0. Below IOPL 3, VIF stands for IF.
    fn deliver_redirected(&mut self, event: &Event) -> Result<(), Exception> {
        let vector = self.read_system_u32(u64::from(event.vector) * 4)?;
        if self.iopl() == 3 {
            return self.enter_8086_handler(vector, event.rflags, event.return_ip, flags::IF | flags::TF | flags::RF);
        }
        let image = virtual_if_image(event.rflags);
        self.enter_8086_handler(vector, image, event.return_ip, flags::VIF | flags::TF | flags::RF)
    }

    /// The gate of a vector, with the checks that do not depend on its target.
    fn idt_gate(&mut self, event: &Event, ia32e: bool) -> Result<Gate, Exception> {
        use system_type::{INTERRUPT_GATE, INTERRUPT_GATE16, TRAP_GATE, TRAP_GATE16};
        let bad = Exception::GeneralProtection(gate_code(event.vector));
        let bytes = if ia32e { 16 } else { 8 };
        let at = u64::from(event.vector) * bytes;
        if at + bytes - 1 > u64::from(self.idtr.limit) {
            return Err(bad);
        }
        let width = if ia32e { u64::MAX } else { 0xFFFF_FFFF };
        let linear = self.idtr.base.wrapping_add(at) & width;
        let raw = self.read_system_u64(linear)?;
        let upper = if ia32e { self.read_system_u64(linear.wrapping_add(8))? } else { 0 };
        let gate = Gate::decode(raw, upper & 0xFFFF_FFFF);
        let valid = match gate.kind {
            INTERRUPT_GATE | TRAP_GATE => true,
            INTERRUPT_GATE16 | TRAP_GATE16 => !ia32e,
            _ => false,
        };
        if !valid || event.source.checks_dpl() && gate.dpl < self.cpl {
            return Err(bad);
        }
        if !gate.present {
            return Err(Exception::SegmentNotPresent(gate_code(event.vector)));
        }
        Ok(gate)
    }

    /// The handler's code segment and the privilege level it runs at.
    fn handler_segment(&mut self, gate: &Gate) -> Result<(Descriptor, u8), Exception> {
        let code = selector::error_code(gate.selector);
        if selector::is_null(gate.selector) {
            return Err(Exception::GP0);
        }
        let d = self.fetch_descriptor(gate.selector, Exception::GeneralProtection)?;
        let dpl = d.segment.dpl();
        if !d.is_code() || dpl > self.cpl {
            return Err(Exception::GeneralProtection(code));
        }
        if !d.segment.present() {
            return Err(Exception::SegmentNotPresent(code));
        }
        let level = if d.is_conforming_code() { self.cpl } else { dpl };
        // Virtual-8086 mode is left to CPL 0 only.
        if self.rflags_system & flags::VM != 0 && level != 0 {
            return Err(Exception::GeneralProtection(code));
        }
        Ok((d, level))
    }

    /// Flags that entering a handler clears (SDM Vol. 3A, section 6.12.1.3).
    fn clear_flags_for(&mut self, gate: &Gate) {
        use system_type::{INTERRUPT_GATE, INTERRUPT_GATE16};
        let mut cleared = flags::TF | flags::NT | flags::RF | flags::VM;
        if matches!(gate.kind, INTERRUPT_GATE | INTERRUPT_GATE16) {
            cleared |= flags::IF;
        }
        self.merge_rflags(0, cleared);
    }

    /// IA-32e mode (SDM Vol. 3A, section 6.14): 64-bit gates, IST, a frame that always has SS:RSP and is aligned to 16
    /// bytes.
    fn deliver_ia32e(&mut self, event: &Event) -> Result<(), Exception> {
        let gate = self.idt_gate(event, true)?;
        let (mut code, level) = self.handler_segment(&gate)?;
        if code.segment.ar & (ar::L | ar::DB) != ar::L {
            return Err(Exception::GeneralProtection(selector::error_code(gate.selector)));
        }
        let old_ss = self.segments[sreg::SS].selector;
        let old_rsp = self.regs[slot::RSP as usize];
        let ist = u64::from(gate.low_bits & 7);
        let inward = level < self.cpl;
        let top = if ist != 0 {
            self.tss64_stack(tss::IST1 + 8 * (ist - 1))?
        } else if inward {
            self.tss64_stack(tss::SP0 + 8 * u64::from(level))?
        } else {
            old_rsp
        };
        if !canonical(gate.offset) {
            return Err(Exception::GP0);
        }
        self.set_accessed(&mut code)?;
        let frame = [
            u64::from(old_ss),
            old_rsp,
            event.rflags,
            u64::from(self.segments[sreg::CS].selector),
            event.return_ip,
            u64::from(event.error_code.unwrap_or(0)),
        ];
        let count = if event.error_code.is_some() { 6 } else { 5 };
        let stack = Stack::long(Exception::SS0);
        let rsp = self.at_cpl(level, |cpu| cpu.push_frame(&stack, top & !0xF, 8, &frame[..count]))?;
        self.clear_flags_for(&gate);
        self.load_cs(code.segment, level);
        if inward {
            self.set_segment(sreg::SS, null_segment(u16::from(level)));
        }
        self.regs[slot::RSP as usize] = rsp;
        self.set_rip(gate.offset);
        Ok(())
    }

    /// Legacy protected and virtual-8086 mode (SDM Vol. 3A, section 6.12).
    fn deliver_protected(&mut self, event: &Event) -> Result<(), Exception> {
        let gate = self.idt_gate(event, false)?;
        let (mut code, level) = self.handler_segment(&gate)?;
        let size = gate.operand_size(false);
        let from_v86 = self.mode == Mode::Virtual8086;
        let inward = level < self.cpl;
        let mut stack_segment = None;
        let (stack, top) = if inward {
            let (ss, sp) = self.tss_stack(level)?;
            let d = self.inner_stack_segment(ss, level)?;
            stack_segment = Some(d);
            (Stack::protected(d.segment, Exception::StackFault(selector::error_code(ss))), sp)
        } else {
            (self.current_stack(), self.regs[slot::RSP as usize])
        };

        let mut frame = [0u64; 10];
        let mut count = 0;
        let mut push = |value: u64| {
            frame[count] = value;
            count += 1;
        };
        if from_v86 {
            for seg in [sreg::GS, sreg::FS, sreg::DS, sreg::ES] {
                push(u64::from(self.segments[seg].selector));
            }
        }
        if inward {
            push(u64::from(self.segments[sreg::SS].selector));
            push(self.regs[slot::RSP as usize]);
        }
        push(event.rflags);
        push(u64::from(self.segments[sreg::CS].selector));
        push(event.return_ip);
        if let Some(error_code) = event.error_code {
            push(u64::from(error_code));
        }

        self.check_code_offset(&code.segment, gate.offset)?;
        self.set_accessed(&mut code)?;
        if let Some(d) = &mut stack_segment {
            self.set_accessed(d)?;
        }
        let rsp = self.at_cpl(level, |cpu| cpu.push_frame(&stack, top, size, &frame[..count]))?;
        self.clear_flags_for(&gate);
        self.load_cs(code.segment, level);
        if let Some(d) = stack_segment {
            self.set_segment(sreg::SS, d.segment);
        }
        if from_v86 {
            for seg in [sreg::GS, sreg::FS, sreg::DS, sreg::ES] {
                self.set_segment(seg, null_segment(0));
            }
        }
        self.regs[slot::RSP as usize] = rsp;
        self.set_rip(gate.offset);
        Ok(())
    }
}

/// FLAGS as virtual-8086 code below IOPL 3 sees them with VME: IOPL reads 3 and IF is VIF.
pub(crate) fn virtual_if_image(rflags: u64) -> u64 {
    let interrupt = if rflags & flags::VIF != 0 { flags::IF } else { 0 };
    rflags & !flags::IF | interrupt | flags::IOPL
}

/// INT imm8
pub fn int_n(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    cpu.software_interrupt(insn.immediate8(), Source::Interrupt)
}

/// INT3
pub fn int3(cpu: &mut Cpu, _insn: &Instruction) -> Result<(), Exception> {
    cpu.software_interrupt(Exception::Breakpoint.vector(), Source::SoftwareException)
}

/// INTO
pub fn into(cpu: &mut Cpu, _insn: &Instruction) -> Result<(), Exception> {
    if !cpu.lazy.of() {
        return Ok(());
    }
    cpu.software_interrupt(Exception::Overflow.vector(), Source::SoftwareException)
}

/// INT1 (ICEBP): a debug exception without a cause in DR6.
pub fn int1(cpu: &mut Cpu, _insn: &Instruction) -> Result<(), Exception> {
    cpu.software_interrupt(Exception::Debug(0).vector(), Source::PrivilegedSoftwareException)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXT: u16 = 1;
    const PF: Exception = Exception::PageFault { address: 0, code: 0 };
    const DF: Exception = Exception::DoubleFault;

    #[test]
    fn exceptions_escalate_as_table_6_5_says() {
        let contributory = Exception::InvalidTss(8);
        assert_eq!(escalate(Exception::DivideError, contributory), Ok(DF));
        assert_eq!(escalate(contributory, PF), Ok(PF));
        assert_eq!(escalate(PF, contributory), Ok(DF));
        assert_eq!(escalate(PF, PF), Ok(DF));
        assert_eq!(escalate(Exception::InvalidOpcode, Exception::GP0), Ok(Exception::GP0));
        assert_eq!(escalate(PF, Exception::AlignmentCheck), Ok(Exception::AlignmentCheck));
        assert_eq!(escalate(DF, PF), Err(TripleFault));
        assert_eq!(escalate(DF, Exception::SS0), Err(TripleFault));
    }

    #[test]
    fn error_codes_raised_while_delivering_external_events_have_ext_set() {
        assert_eq!(with_ext(Exception::InvalidTss(0x40), EXT), Exception::InvalidTss(0x41));
        assert_eq!(with_ext(PF, EXT), PF);
        assert_eq!(gate_code(0x0D), 0x6A);
        assert_eq!([Source::Hardware, Source::Interrupt, Source::SoftwareException].map(Source::ext), [EXT, 0, 0]);
        assert_eq!(Source::PrivilegedSoftwareException.ext(), EXT);
        assert!(!Source::PrivilegedSoftwareException.checks_dpl());
    }

    #[test]
    fn single_steps_and_data_breakpoints_are_traps_but_instruction_breakpoints_are_faults() {
        let write_in_dr1 = 1 << 20;
        assert!(!debug_is_fault(debug::BS, 0));
        assert!(debug_is_fault(1 << 0, write_in_dr1));
        assert!(!debug_is_fault(1 << 1, write_in_dr1));
        assert!(debug_is_fault(debug::BD, 0));
    }

    #[test]
    fn the_virtual_if_image_shows_vif_as_if_and_iopl_3() {
        assert_eq!(virtual_if_image(flags::VIF) & (flags::IF | flags::IOPL), flags::IF | flags::IOPL);
        assert_eq!(virtual_if_image(flags::IF) & flags::IF, 0);
    }
}
