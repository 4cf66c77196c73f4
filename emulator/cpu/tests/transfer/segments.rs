//! Segment and table registers, and looking at descriptors.

use super::*;
use x86::flags;
use x86::segment::ar;

/// MOV DS, AX and so on.
const MOV_DS_AX: &[u8] = &[0x8E, 0xD8];
const MOV_SS_AX: &[u8] = &[0x8E, 0xD0];
const MOV_FS_AX: &[u8] = &[0x8E, 0xE0];

fn set_ax(m: &mut Machine, value: u16) {
    m.cpu.regs[0] = value.into();
}

#[test]
fn loading_a_segment_sets_the_accessed_bit_in_memory_once() {
    let mut m = Machine::long();
    let at = at::GDT + u64::from(sel::USER_DATA & !7);
    let before = m.peek64(at);
    set_ax(&mut m, sel::USER_DATA);
    m.exec(MOV_DS_AX).unwrap();
    assert_eq!(m.peek64(at), before | 1 << 40);
    assert_eq!(m.cpu.segments[sreg::DS], Segment::from_descriptor(sel::USER_DATA, before | 1 << 40));
}

#[test]
fn data_segments_are_checked_for_type_privilege_and_presence() {
    let gp = Exception::GeneralProtection;
    let mut m = Machine::protected();
    for (selector, expected) in [
        (sel::TSS, gp(sel::TSS)),
        (sel::EXECUTE_ONLY, gp(sel::EXECUTE_ONLY)),
        (sel::ABSENT_DATA, Exception::SegmentNotPresent(sel::ABSENT_DATA)),
        (sel::DATA0 | 3, gp(sel::DATA0)),
        (sel::LAST + 8, gp(sel::LAST + 8)),
        (sel::DATA0 | 4, gp(sel::DATA0 | 4)),
    ] {
        set_ax(&mut m, selector);
        m.faults(MOV_DS_AX, expected);
    }
    let mut m = Machine::protected().into_user(sel::USER_CODE32);
    set_ax(&mut m, sel::DATA0);
    m.faults(MOV_DS_AX, gp(sel::DATA0));
    for readable in [sel::CONFORMING32, sel::USER_CODE32] {
        set_ax(&mut m, readable);
        m.exec(MOV_DS_AX).unwrap();
    }
    set_ax(&mut m, 3);
    m.exec(MOV_DS_AX).unwrap();
    assert!(m.cpu.segments[sreg::DS].is(ar::UNUSABLE));
}

#[test]
fn ss_must_be_writable_data_of_exactly_the_current_privilege() {
    let gp = Exception::GeneralProtection;
    let mut m = Machine::protected();
    for (selector, expected) in [
        (0, Exception::GP0),
        (sel::USER_DATA, gp(sel::USER_DATA & !3)),
        (sel::DATA0 | 1, gp(sel::DATA0)),
        (sel::CODE32, gp(sel::CODE32)),
        (sel::ABSENT_DATA, Exception::StackFault(sel::ABSENT_DATA)),
    ] {
        set_ax(&mut m, selector);
        m.faults(MOV_SS_AX, expected);
    }
    set_ax(&mut m, sel::DATA16);
    m.exec(MOV_SS_AX).unwrap();
    assert!(m.cpu.interrupt_shadow);
}

#[test]
fn a_null_ss_is_for_64_bit_mode_below_cpl_3_with_rpl_equal_to_cpl() {
    let mut m = Machine::long();
    set_ax(&mut m, 1);
    m.faults(MOV_SS_AX, Exception::GP0);
    set_ax(&mut m, 0);
    m.exec(MOV_SS_AX).unwrap();
    let mut m = Machine::long().into_user(sel::USER_CODE64);
    set_ax(&mut m, 3);
    m.faults(MOV_SS_AX, Exception::GP0);
}

#[test]
fn a_null_fs_clears_the_base_as_intel_processors_do() {
    let mut m = Machine::long();
    m.cpu.set_segment_base(sreg::FS, 0xFFFF_8000_0000_0000);
    set_ax(&mut m, 0);
    m.exec(MOV_FS_AX).unwrap();
    assert_eq!(m.cpu.regs[usize::from(slot::SEG) + sreg::FS], 0);
}

#[test]
fn selectors_are_stored_as_16_bits_in_memory_and_zero_extended_in_registers() {
    let mut m = Machine::long();
    m.cpu.regs[0] = u64::MAX;
    m.exec(&[0x8C, 0xD8]).unwrap();
    assert_eq!(m.cpu.regs[0], sel::DATA0.into());
    m.poke64(at::DATA, u64::MAX);
    m.cpu.regs[3] = at::DATA;
    m.exec(&[0x48, 0x8C, 0x1B]).unwrap();
    assert_eq!(m.peek64(at::DATA), u64::MAX << 16 | u64::from(sel::DATA0));
}

#[test]
fn push_and_pop_of_segment_registers_move_the_stack_by_the_operand_size() {
    let mut m = Machine::protected();
    m.poke64(at::KERNEL_STACK - 8, u64::MAX);
    m.exec(&[0x1E]).unwrap();
    assert_eq!(m.rsp(), at::KERNEL_STACK - 4);
    assert_eq!(m.peek(at::KERNEL_STACK - 4, 4), 0xFFFF_0000 | u64::from(sel::DATA0));
    m.exec(&[0x07]).unwrap();
    assert_eq!((m.rsp(), m.selector(sreg::ES)), (at::KERNEL_STACK, sel::DATA0));
    m.exec(&[0x66, 0x0E]).unwrap();
    assert_eq!(m.rsp(), at::KERNEL_STACK - 2);
    m.faults(&[0x66, 0x17], Exception::GeneralProtection(sel::CODE32));
}

#[test]
fn lss_loads_ss_and_the_stack_pointer_without_an_interrupt_shadow() {
    let mut m = Machine::protected();
    m.poke(at::DATA, &[0x78, 0x56, 0x34, 0x12, sel::DATA16 as u8, 0]);
    m.cpu.regs[3] = at::DATA;
    m.exec(&[0x0F, 0xB2, 0x23]).unwrap();
    assert_eq!((m.rsp(), m.selector(sreg::SS)), (0x1234_5678, sel::DATA16));
    assert!(!m.cpu.interrupt_shadow);
}

#[test]
fn lgdt_takes_24_bits_of_base_with_a_16_bit_operand_and_64_in_64_bit_mode() {
    let mut m = Machine::new();
    m.poke(at::DATA, &[0xFF, 0x0F, 1, 2, 3, 4, 5, 6, 0, 0]);
    m.cpu.set_segment(sreg::DS, Segment { base: at::DATA, ..m.cpu.segments[sreg::DS] });
    m.exec(&[0x0F, 0x01, 0x17]).unwrap();
    assert_eq!(m.cpu.gdtr, TableRegister { base: 0x03_0201, limit: 0xFFF });
    m.exec(&[0x66, 0x0F, 0x01, 0x1F]).unwrap();
    assert_eq!(m.cpu.idtr, TableRegister { base: 0x0403_0201, limit: 0xFFF });

    let mut m = Machine::long();
    m.poke(at::DATA, &[0xFF, 0x0F, 1, 2, 3, 4, 5, 0x6F, 0, 0]);
    m.cpu.regs[3] = at::DATA;
    m.exec(&[0x0F, 0x01, 0x13]).unwrap();
    assert_eq!(m.cpu.gdtr, TableRegister { base: 0x6F05_0403_0201, limit: 0xFFF });
    m.exec(&[0x0F, 0x01, 0x43, 0x20]).unwrap();
    assert_eq!(m.peek64(at::DATA + 0x22), 0x6F05_0403_0201);
    m.poke(at::DATA + 8, &[0, 1]);
    m.faults(&[0x0F, 0x01, 0x13], Exception::GP0);
}

#[test]
fn table_registers_are_for_cpl_0_and_their_stores_too_under_umip() {
    let mut m = Machine::long().into_user(sel::USER_CODE64);
    m.cpu.regs[3] = at::DATA;
    for code in [&[0x0F, 0x01, 0x13][..], &[0x0F, 0x01, 0x1B], &[0x0F, 0x00, 0xD0], &[0x0F, 0x00, 0xD8]] {
        m.faults(code, Exception::GP0);
    }
    let stores = [&[0x0F, 0x01, 0x03][..], &[0x0F, 0x01, 0x0B], &[0x0F, 0x00, 0xC0], &[0x0F, 0x00, 0xC8]];
    for code in stores {
        m.exec(code).unwrap();
    }
    m.cpu.cr4 |= cr::cr4::UMIP;
    for code in stores {
        m.faults(code, Exception::GP0);
    }
}

#[test]
fn ltr_marks_the_tss_busy_and_refuses_a_busy_one() {
    for mut m in [Machine::long(), Machine::protected()] {
        m.cpu.tr = Segment::default();
        set_ax(&mut m, sel::TSS);
        m.exec(&[0x0F, 0x00, 0xD8]).unwrap();
        assert_eq!((m.cpu.tr.base, m.cpu.tr.limit, m.cpu.tr.ar & 0xF), (at::TSS, 0x67, 0xB));
        assert_eq!(m.peek(at::GDT + u64::from(sel::TSS) + 5, 1), 0x8B);
        m.faults(&[0x0F, 0x00, 0xD8], Exception::GeneralProtection(sel::TSS));
    }
}

#[test]
fn lldt_of_64_bit_mode_takes_16_bytes() {
    let mut m = Machine::long();
    m.poke64(at::GDT + u64::from(sel::LDT) + 8, 0xFFFF_8000);
    set_ax(&mut m, sel::LDT);
    m.exec(&[0x0F, 0x00, 0xD0]).unwrap();
    assert_eq!(m.cpu.ldtr.base, 0xFFFF_8000_0000_0000 | at::LDT);
    set_ax(&mut m, 0);
    m.exec(&[0x0F, 0x00, 0xD0]).unwrap();
    set_ax(&mut m, 4);
    m.faults(MOV_DS_AX, Exception::GeneralProtection(4));
}

#[test]
fn segments_can_be_loaded_from_the_ldt() {
    let mut m = Machine::protected();
    set_ax(&mut m, sel::LDT);
    m.exec(&[0x0F, 0x00, 0xD0]).unwrap();
    m.poke64(at::LDT + 8, descriptor(0x1_2345, 0xFFF, rights::DATA16));
    set_ax(&mut m, 0xC);
    m.exec(MOV_DS_AX).unwrap();
    assert_eq!((m.cpu.segments[sreg::DS].base, m.cpu.segments[sreg::DS].limit), (0x1_2345, 0xFFF));
    set_ax(&mut m, 0x14);
    m.faults(MOV_DS_AX, Exception::GeneralProtection(0x14));
}

fn zf(m: &Machine) -> bool {
    m.cpu.rflags() & flags::ZF != 0
}

#[test]
fn lar_lsl_verr_and_verw_report_through_zf() {
    // CX <- of AX; (selector, LAR, LSL, readable, writable) at CPL 3.
    let mut m = Machine::protected().into_user(sel::USER_CODE32);
    for (selector, lar, lsl, readable, writable) in [
        (sel::USER_DATA, Some(0xC0_F200), Some(u64::from(u32::MAX)), true, true),
        (sel::USER_CODE32, Some(0xC0_FA00), Some(u64::from(u32::MAX)), true, false),
        (sel::CONFORMING32, Some(0xC0_9E00), Some(u64::from(u32::MAX)), true, false),
        (sel::DATA0, None, None, false, false),
        (sel::TSS, None, None, false, false),
        (0, None, None, false, false),
        (0xFFF8, None, None, false, false),
    ] {
        set_ax(&mut m, selector);
        for (code, expected) in [(&[0x0F, 0x02, 0xC8], lar), (&[0x0F, 0x03, 0xC8], lsl)] {
            m.cpu.regs[1] = 0x55;
            m.exec(code).unwrap();
            // The low bit of a type is the accessed bit, which other loads may have set.
            assert_eq!((zf(&m), m.cpu.regs[1]), (expected.is_some(), expected.unwrap_or(0x55)), "{selector:#x}");
        }
        m.exec(&[0x0F, 0x00, 0xE0]).unwrap();
        assert_eq!(zf(&m), readable, "{selector:#x}");
        m.exec(&[0x0F, 0x00, 0xE8]).unwrap();
        assert_eq!(zf(&m), writable, "{selector:#x}");
    }
    let mut m = Machine::long();
    set_ax(&mut m, sel::TSS);
    m.exec(&[0x0F, 0x03, 0xC8]).unwrap();
    assert_eq!((zf(&m), m.cpu.regs[1]), (true, 0x67));
    m.poke64(at::GDT + u64::from(sel::TSS) + 8, 1 << 40);
    m.exec(&[0x0F, 0x03, 0xC8]).unwrap();
    assert!(!zf(&m));
}

#[test]
fn arpl_raises_rpl_and_does_not_exist_outside_protected_mode() {
    let mut m = Machine::protected();
    (m.cpu.regs[0], m.cpu.regs[1]) = (0x10, 3);
    m.exec(&[0x63, 0xC8]).unwrap();
    assert_eq!((m.cpu.regs[0], zf(&m)), (0x13, true));
    m.exec(&[0x63, 0xC8]).unwrap();
    assert!(!zf(&m));
    let mut m = Machine::new();
    for code in [&[0x63, 0xC8][..], &[0x0F, 0x00, 0xD8], &[0x0F, 0x00, 0xC0], &[0x0F, 0x02, 0xC8]] {
        m.faults(code, Exception::UD);
    }
}

#[test]
fn real_mode_loads_keep_the_limit_that_protected_mode_left() {
    let mut m = Machine::new();
    m.cpu.set_segment(sreg::DS, Segment { selector: 8, ar: 0xC093, limit: u32::MAX, base: 0 });
    set_ax(&mut m, 0x1234);
    m.exec(MOV_DS_AX).unwrap();
    let ds = m.cpu.segments[sreg::DS];
    assert_eq!((ds.selector, ds.base, ds.limit), (0x1234, 0x1_2340, u32::MAX));
}
