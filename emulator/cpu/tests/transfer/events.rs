//! Event delivery and IRET.

use super::*;
use cpu::exec::system::delivery::TripleFault;
use cpu::mode::Mode;
use x86::flags;
use x86::segment::ar;

const IRETQ: &[u8] = &[0x48, 0xCF];
const IRETD: &[u8] = &[0xCF];
const RFLAGS: u64 = flags::IF | flags::FIXED | flags::CF | flags::NT | flags::TF;

/// At the instruction 10000H..10002H.
fn between(mut m: Machine) -> Machine {
    m.cpu.ip = at::CODE;
    m.cpu.next_ip = at::CODE + 2;
    m.cpu.set_rflags(RFLAGS);
    m
}

#[test]
fn an_interrupt_at_cpl_3_switches_to_rsp0_with_a_null_ss() {
    let mut m = between(Machine::long().into_user(sel::USER_CODE64));
    let handler = m.gate(0x40, rights::INTERRUPT_GATE, 0);
    m.cpu.deliver_interrupt(0x40).unwrap();
    assert_eq!((m.cpu.next_ip, m.cpu.cpl, m.rsp()), (handler, 0, at::RSP0 - 40));
    let frame = [at::CODE + 2, sel::USER_CODE64.into(), RFLAGS, at::USER_STACK, sel::USER_DATA.into()];
    assert_eq!(m.stack(8), frame);
    assert_eq!(m.cpu.rflags() & (flags::IF | flags::TF | flags::NT), 0);
    assert!(m.cpu.segments[sreg::SS].is(ar::UNUSABLE));
    assert_eq!((m.selector(sreg::SS), m.selector(sreg::CS)), (0, sel::CODE64));
    assert_eq!(m.cpu.mode, Mode::Long64);
}

#[test]
fn an_interrupt_at_cpl_0_aligns_the_stack_and_pushes_ss_rsp_all_the_same() {
    let mut m = between(Machine::long());
    m.gate(0x40, rights::TRAP_GATE, 0);
    m.cpu.regs[slot::RSP as usize] = at::KERNEL_STACK - 1;
    m.cpu.deliver_interrupt(0x40).unwrap();
    assert_eq!(m.rsp(), at::KERNEL_STACK - 16 - 40);
    let [_, _, _, rsp, ss] = m.stack(8);
    assert_eq!((rsp, ss), (at::KERNEL_STACK - 1, sel::DATA0.into()));
    assert_ne!(m.cpu.rflags() & flags::IF, 0, "a trap gate keeps IF");
    assert_eq!(m.selector(sreg::SS), sel::DATA0);
}

#[test]
fn ist_replaces_the_stack_at_any_privilege() {
    for mut m in [Machine::long(), Machine::long().into_user(sel::USER_CODE64)] {
        m.gate(2, rights::INTERRUPT_GATE, 1);
        m.cpu.deliver_exception(Exception::Nmi).unwrap();
        assert_eq!(m.rsp(), at::IST1 - 40);
    }
}

#[test]
fn a_page_fault_pushes_its_error_code_the_faulting_rip_and_rf_and_loads_cr2() {
    let mut m = between(Machine::long());
    let handler = m.gate(14, rights::INTERRUPT_GATE, 0);
    m.cpu.deliver_exception(Exception::PageFault { address: 0x1234, code: 6 }).unwrap();
    assert_eq!((m.cpu.next_ip, m.cpu.cr2), (handler, 0x1234));
    assert_eq!(m.stack(8), [6, at::CODE, sel::CODE64.into(), RFLAGS | flags::RF]);
    assert_eq!(m.cpu.rflags() & flags::RF, 0);
}

#[test]
fn a_single_step_trap_pushes_the_next_rip_and_sets_dr6_and_clears_gd() {
    let mut m = between(Machine::long());
    m.gate(1, rights::INTERRUPT_GATE, 0);
    m.cpu.dr7 |= 1 << 13;
    m.cpu.deliver_exception(Exception::Debug(1 << 14)).unwrap();
    assert_eq!(m.stack(8), [at::CODE + 2, sel::CODE64.into(), RFLAGS]);
    assert_eq!((m.cpu.dr6 >> 14 & 1, m.cpu.dr7 >> 13 & 1), (1, 0));
}

#[test]
fn two_contributory_exceptions_make_a_double_fault_with_error_code_0() {
    let mut m = between(Machine::long());
    m.gate(13, rights::INTERRUPT_GATE & !0x80, 0);
    let handler = m.gate(8, rights::INTERRUPT_GATE, 1);
    m.cpu.deliver_exception(Exception::GP0).unwrap();
    assert_eq!(m.cpu.next_ip, handler);
    assert_eq!(m.stack(8), [0, at::CODE]);
}

#[test]
fn a_page_fault_on_the_handlers_stack_is_a_double_fault_and_cr2_names_the_stack() {
    let mut m = between(Machine::long().into_user(sel::USER_CODE64));
    m.poke64(at::TSS + 4, at::UNMAPPED + 0x1000);
    m.gate(14, rights::INTERRUPT_GATE, 0);
    let handler = m.gate(8, rights::INTERRUPT_GATE, 1);
    m.cpu.deliver_exception(Exception::PageFault { address: 8, code: 4 }).unwrap();
    assert_eq!((m.cpu.next_ip, m.cpu.cr2), (handler, at::UNMAPPED + 0x1000 - 48));
    assert_eq!(m.stack(8), [0, at::CODE, sel::USER_CODE64.into()]);
}

#[test]
fn a_double_fault_without_a_gate_is_a_triple_fault() {
    let mut m = between(Machine::long());
    assert_eq!(m.cpu.deliver_exception(Exception::GP0), Err(TripleFault));
}

#[test]
fn a_fault_in_the_delivery_of_an_interrupt_has_ext_set_and_returns_to_the_interrupted_code() {
    let mut m = between(Machine::long());
    m.cpu.ip = m.cpu.next_ip;
    m.gate(11, rights::INTERRUPT_GATE, 0);
    m.gate(0x40, rights::INTERRUPT_GATE & !0x80, 0);
    m.cpu.deliver_interrupt(0x40).unwrap();
    assert_eq!(m.stack(8), [0x40 << 3 | 2 | 1, at::CODE + 2]);
}

#[test]
fn int_n_checks_the_gates_dpl_and_faults_without_ext() {
    let mut m = Machine::long().into_user(sel::USER_CODE64);
    m.gate(0x80, rights::INTERRUPT_GATE, 0);
    m.faults(&[0xCD, 0x80], Exception::GeneralProtection(0x80 << 3 | 2));
    let handler = m.gate(0x80, rights::INTERRUPT_GATE | rights::DPL3, 0);
    m.exec(&[0xCD, 0x80]).unwrap();
    assert_eq!(m.cpu.next_ip, handler);
    assert_eq!(m.stack(8), [at::CODE + 2, sel::USER_CODE64.into()]);
}

#[test]
fn int1_does_not_check_the_gates_dpl() {
    let mut m = Machine::long().into_user(sel::USER_CODE64);
    let handler = m.gate(1, rights::INTERRUPT_GATE, 0);
    m.exec(&[0xF1]).unwrap();
    assert_eq!(m.cpu.next_ip, handler);
}

#[test]
fn handlers_in_compatibility_mode_are_refused() {
    let mut m = Machine::long();
    let [low, high] = gate(sel::CODE32, at::HANDLER, rights::INTERRUPT_GATE, 0);
    m.poke64(at::IDT + 16 * 3, low);
    m.poke64(at::IDT + 16 * 3 + 8, high);
    m.faults(&[0xCC], Exception::GeneralProtection(sel::CODE32));
}

#[test]
fn iretq_undoes_an_interrupt_from_cpl_3() {
    for code in [sel::USER_CODE64, sel::USER_CODE32] {
        let mut m = between(Machine::long().into_user(code));
        m.gate(0x40, rights::INTERRUPT_GATE, 0);
        m.cpu.set_segment_base(sreg::FS, 0x1234);
        let before = m.snapshot();
        let mode = m.cpu.mode;
        m.cpu.deliver_interrupt(0x40).unwrap();
        m.exec(IRETQ).unwrap();
        let mut after = m.snapshot();
        // The return has set the accessed bits of CS and SS.
        after.2[sreg::CS].ar &= !ar::ACCESSED;
        after.2[sreg::SS].ar &= !ar::ACCESSED;
        assert_eq!(after, before);
        assert_eq!(m.cpu.mode, mode);
    }
}

#[test]
fn iretq_pops_ss_rsp_at_the_same_privilege() {
    let mut m = between(Machine::long());
    m.gate(0x40, rights::INTERRUPT_GATE, 0);
    m.cpu.regs[slot::RSP as usize] = at::KERNEL_STACK - 3;
    m.cpu.deliver_interrupt(0x40).unwrap();
    m.exec(IRETQ).unwrap();
    assert_eq!((m.rsp(), m.cpu.next_ip, m.cpu.rflags()), (at::KERNEL_STACK - 3, at::CODE + 2, RFLAGS));
}

/// Puts an IRETQ frame on the kernel's stack.
fn frame64(m: &mut Machine, values: [u64; 5]) {
    let rsp = m.rsp() - 40;
    m.cpu.regs[slot::RSP as usize] = rsp;
    for (i, v) in values.into_iter().enumerate() {
        m.poke64(rsp + 8 * i as u64, v);
    }
}

#[test]
fn iretq_faults_at_cpl_0_with_the_state_of_before() {
    let user = (u64::from(sel::USER_CODE64), u64::from(sel::USER_DATA));
    for (frame, expected) in [
        ([1 << 47, user.0, 2, 0, user.1], Exception::GP0),
        ([0, 0, 2, 0, user.1], Exception::GP0),
        ([0, user.0, 2, 0, 3], Exception::GP0),
        ([0, user.0, 2, 0, sel::DATA0.into()], Exception::GeneralProtection(sel::DATA0)),
        ([0, (sel::CODE64 | 3).into(), 2, 0, user.1], Exception::GeneralProtection(sel::CODE64)),
        ([0, 0x1000 | 3, 2, 0, user.1], Exception::GeneralProtection(0x1000)),
        ([0, sel::DATA0.into(), 2, 0, user.1], Exception::GeneralProtection(sel::DATA0)),
    ] {
        let mut m = Machine::long();
        frame64(&mut m, frame);
        m.faults(IRETQ, expected);
    }
    let mut m = Machine::long();
    m.cpu.set_rflags(flags::NT);
    m.faults(IRETQ, Exception::GP0);
}

#[test]
fn iretq_to_a_null_ss_below_cpl_3_is_legal() {
    let mut m = Machine::long();
    frame64(&mut m, [at::CODE, sel::CODE64.into(), flags::FIXED, 0x9999, 0]);
    m.exec(IRETQ).unwrap();
    assert_eq!(m.rsp(), 0x9999);
    assert!(m.cpu.segments[sreg::SS].is(ar::UNUSABLE));
}

#[test]
fn segments_that_an_outer_level_may_not_use_become_null_but_null_ones_keep_their_base() {
    let mut m = Machine::long();
    m.cpu.set_segment(sreg::GS, Segment { selector: 0, ar: ar::UNUSABLE, limit: 0, base: 0x7777 });
    frame64(&mut m, [at::CODE, sel::USER_CODE64.into(), flags::FIXED, at::USER_STACK, sel::USER_DATA.into()]);
    m.exec(IRETQ).unwrap();
    assert_eq!(m.selector(sreg::DS), 0);
    assert!(m.cpu.segments[sreg::DS].is(ar::UNUSABLE));
    assert_eq!(m.cpu.segments[sreg::GS].base, 0x7777);
}

#[test]
fn an_iret_to_a_16_bit_stack_segment_keeps_the_upper_half_of_esp() {
    let mut m = Machine::long();
    m.poke64(at::GDT + u64::from(sel::DATA16), descriptor(0, 0xFFFF, rights::DATA16 | rights::DPL3));
    frame64(&mut m, [at::CODE, sel::USER_CODE32.into(), flags::FIXED, 0x1234_5678, (sel::DATA16 | 3).into()]);
    let upper = m.rsp() & !0xFFFF;
    m.exec(IRETQ).unwrap();
    assert_eq!(m.rsp(), upper | 0x5678);
}

#[test]
fn an_nmi_blocks_others_until_iret_even_if_it_faults() {
    let mut m = Machine::long();
    m.gate(2, rights::INTERRUPT_GATE, 0);
    m.cpu.deliver_exception(Exception::Nmi).unwrap();
    assert!(m.cpu.nmi_blocked);
    m.cpu.regs[slot::RSP as usize] = at::UNMAPPED;
    assert!(matches!(m.exec(IRETQ), Err(Exception::PageFault { address: at::UNMAPPED, .. })));
    assert!(!m.cpu.nmi_blocked);
}

#[test]
fn a_32_bit_gate_switches_to_ss0_esp0_and_iretd_returns() {
    let mut m = between(Machine::protected().into_user(sel::USER_CODE32));
    m.cpu.set_rflags(flags::FIXED | flags::IF);
    let handler = m.gate(14, rights::INTERRUPT_GATE, 0);
    let before = m.snapshot();
    m.cpu.deliver_exception(Exception::PageFault { address: 0, code: 4 }).unwrap();
    assert_eq!((m.cpu.next_ip, m.cpu.cpl, m.rsp()), (handler, 0, at::RSP0 - 24));
    let rflags = flags::FIXED | flags::IF | flags::RF;
    let frame = [4, at::CODE, sel::USER_CODE32.into(), rflags, at::USER_STACK, sel::USER_DATA.into()];
    assert_eq!(m.stack(4), frame);
    assert_eq!(m.selector(sreg::SS), sel::DATA0);
    m.cpu.regs[slot::RSP as usize] += 4;
    m.exec(IRETD).unwrap();
    assert_eq!((m.cpu.cpl, m.rsp(), m.cpu.next_ip), (3, at::USER_STACK, at::CODE));
    assert_eq!(m.cpu.rflags(), rflags);
    assert_eq!(m.cpu.segments[sreg::DS], before.2[sreg::DS]);
}

#[test]
fn a_16_bit_gate_pushes_words_on_the_current_stack() {
    let mut m = between(Machine::protected());
    let [low, _] = gate(sel::CODE32, 0x9_4000, 0x86, 0);
    m.poke64(at::IDT + 8 * 0x40, low);
    m.cpu.deliver_interrupt(0x40).unwrap();
    assert_eq!((m.cpu.next_ip, m.rsp()), (0x4000, at::KERNEL_STACK - 6));
    assert_eq!(m.stack(2), [(at::CODE + 2) & 0xFFFF, sel::CODE32.into(), RFLAGS]);
}

#[test]
fn a_bad_ss0_in_the_tss_is_an_invalid_tss() {
    let mut m = Machine::protected().into_user(sel::USER_CODE32);
    m.gate(0x80, rights::INTERRUPT_GATE | rights::DPL3, 0);
    for (ss, expected) in [
        (0, Exception::InvalidTss(0)),
        (sel::USER_DATA, Exception::InvalidTss(sel::USER_DATA & !3)),
        (sel::CODE32, Exception::InvalidTss(sel::CODE32)),
        (sel::ABSENT_DATA, Exception::StackFault(sel::ABSENT_DATA)),
    ] {
        m.poke(at::TSS + 8, &ss.to_le_bytes());
        m.faults(&[0xCD, 0x80], expected);
    }
    m.cpu.tr.limit = 8;
    m.faults(&[0xCD, 0x80], Exception::InvalidTss(sel::TSS));
}

#[test]
fn task_gates_are_refused() {
    let mut m = Machine::protected();
    m.gate(0x80, 0x85, 0);
    m.faults(&[0xCD, 0x80], Exception::GeneralProtection(0x80 << 3 | 2));
}

/// Virtual-8086 mode at 1000H:0100H, stack 2000H:1000H.
fn v86(iopl: u64) -> Machine {
    let mut m = Machine::protected();
    let rsp = at::KERNEL_STACK - 36;
    let frame = [0x100, 0x1000, flags::VM | flags::IF | 2 | iopl << 12, 0x1000, 0x2000, 0x3000, 0x4000, 0x5000, 0x6000];
    for (i, v) in frame.into_iter().enumerate() {
        m.poke(rsp + 4 * i as u64, &(v as u32).to_le_bytes());
    }
    m.cpu.regs[slot::RSP as usize] = rsp;
    m.exec(IRETD).unwrap();
    m
}

#[test]
fn iretd_enters_virtual_8086_mode_with_nine_values() {
    let m = v86(0);
    assert_eq!((m.cpu.mode, m.cpu.cpl, m.cpu.next_ip, m.rsp()), (Mode::Virtual8086, 3, 0x100, 0x1000));
    let order = [sreg::CS, sreg::SS, sreg::ES, sreg::DS, sreg::FS, sreg::GS];
    for (seg, value) in order.into_iter().zip([0x1000, 0x2000, 0x3000, 0x4000, 0x5000, 0x6000]) {
        let s = m.cpu.segments[seg];
        assert_eq!((s.selector, s.base, s.limit, s.ar), (value, u64::from(value) << 4, 0xFFFF, 0xF3));
    }
}

#[test]
fn an_interrupt_leaves_virtual_8086_mode_and_iretd_goes_back() {
    let mut m = v86(0);
    let handler = m.gate(0x40, rights::INTERRUPT_GATE, 0);
    let before = m.snapshot();
    m.cpu.deliver_interrupt(0x40).unwrap();
    assert_eq!((m.cpu.mode, m.cpu.cpl, m.cpu.next_ip), (Mode::Protected32, 0, handler));
    assert_eq!(m.rsp(), at::RSP0 - 36);
    assert_eq!(m.stack(4), [0x100, 0x1000, flags::VM | flags::IF | 2, 0x1000, 0x2000, 0x3000, 0x4000, 0x5000, 0x6000]);
    for seg in [sreg::ES, sreg::DS, sreg::FS, sreg::GS] {
        assert!(m.cpu.segments[seg].is(ar::UNUSABLE) && m.selector(seg) == 0);
    }
    assert_eq!(m.selector(sreg::SS), sel::DATA0);
    m.exec(IRETD).unwrap();
    assert_eq!(m.snapshot(), before);
}

#[test]
fn int_n_pushf_popf_and_iret_of_virtual_8086_mode_need_iopl_3() {
    let mut m = v86(0);
    m.gate(0x21, rights::INTERRUPT_GATE | rights::DPL3, 0);
    for code in [&[0xCD, 0x21][..], &[0x9C], &[0x9D], &[0xCF]] {
        m.faults(code, Exception::GP0);
    }
    let mut m = v86(3);
    let handler = m.gate(0x21, rights::INTERRUPT_GATE | rights::DPL3, 0);
    m.exec(&[0x9C]).unwrap();
    assert_eq!(m.rsp(), 0x0FFE);
    m.exec(&[0xCD, 0x21]).unwrap();
    assert_eq!((m.cpu.next_ip, m.cpu.cpl), (handler, 0));
}

#[test]
fn virtual_8086_mode_enters_handlers_at_cpl_0_only() {
    let mut m = v86(3);
    let [low, _] = gate(sel::USER_CODE32, at::HANDLER, rights::INTERRUPT_GATE | rights::DPL3, 0);
    m.poke64(at::IDT + 8 * 0x21, low);
    m.faults(&[0xCD, 0x21], Exception::GeneralProtection(sel::USER_CODE32 & !3));
}

#[test]
fn with_vme_a_redirected_int_n_runs_the_8086_handler_with_vif_for_if() {
    let mut m = v86(0);
    m.cpu.cr4 |= cr::cr4::VME;
    // Redirection bitmap right below the I/O map; all bits 0.
    m.cpu.tr.limit = 0xFF;
    m.poke(at::TSS + 102, &0xA0u16.to_le_bytes());
    m.poke(4 * 0x21, &[0x34, 0x12, 0x00, 0x70]);
    m.cpu.set_rflags(m.cpu.rflags() | flags::VIF);
    m.exec(&[0xCD, 0x21]).unwrap();
    assert_eq!((m.cpu.mode, m.cpu.next_ip, m.selector(sreg::CS)), (Mode::Virtual8086, 0x1234, 0x7000));
    assert_eq!(m.peek(0x2_0FFA, 2), 0x102);
    assert_eq!(m.peek(0x2_0FFE, 2), flags::IF | flags::IOPL | 2);
    assert_eq!(m.cpu.rflags() & flags::VIF, 0);
    m.exec(&[0xCF]).unwrap();
    assert_eq!((m.cpu.next_ip, m.selector(sreg::CS)), (0x102, 0x1000));
    assert_ne!(m.cpu.rflags() & flags::VIF, 0);
}

#[test]
fn real_mode_uses_the_vector_table_and_iret_returns() {
    let mut m = Machine::new();
    m.poke(4 * 0x10, &[0x34, 0x12, 0x00, 0xC0]);
    m.cpu.set_segment(sreg::CS, Segment { selector: 0x1000, base: 0x1_0000, ..m.cpu.segments[sreg::CS] });
    m.cpu.next_ip = 0x20;
    m.cpu.set_rflags(flags::IF | flags::TF | flags::FIXED);
    m.exec(&[0xCD, 0x10]).unwrap();
    assert_eq!((m.cpu.next_ip, m.selector(sreg::CS), m.cpu.segments[sreg::CS].base), (0x1234, 0xC000, 0xC_0000));
    assert_eq!(m.stack(2), [0x22, 0x1000, flags::IF | flags::TF | flags::FIXED]);
    assert_eq!(m.cpu.rflags(), flags::FIXED);
    m.exec(&[0xCF]).unwrap();
    assert_eq!((m.cpu.next_ip, m.selector(sreg::CS), m.rsp()), (0x22, 0x1000, 0x8000));
    assert_eq!(m.cpu.rflags(), flags::IF | flags::TF | flags::FIXED);
}

#[test]
fn real_mode_pushes_no_error_code_and_a_short_table_ends_in_a_triple_fault() {
    let mut m = Machine::new();
    m.poke(4 * 13, &[0, 0x10, 0, 0]);
    m.cpu.deliver_exception(Exception::GP0).unwrap();
    assert_eq!((m.rsp(), m.cpu.next_ip), (0x7FFA, 0x1000));
    m.cpu.idtr.limit = 0;
    assert_eq!(m.cpu.deliver_exception(Exception::GP0), Err(TripleFault));
}
