//! Near transfers and stack instructions outside the plain 64-bit forms.

use super::*;
use x86::flags;

/// Real mode with CS:IP at offset `ip` of a segment of base 0.
fn real(ip: u64) -> Machine {
    let mut m = Machine::new();
    m.cpu.set_segment(sreg::CS, Segment { selector: 0, base: 0, ..m.cpu.segments[sreg::CS] });
    m.cpu.next_ip = ip;
    m
}

#[test]
fn relative_jumps_wrap_at_the_operand_size() {
    let mut m = real(0xFFF0);
    m.exec(&[0xEB, 0x20]).unwrap();
    assert_eq!(m.cpu.next_ip, 0x12);
    m.exec(&[0xE9, 0xE0, 0xFF]).unwrap();
    assert_eq!(m.cpu.next_ip, 0xFFF5);
    let mut m = Machine::protected();
    m.cpu.next_ip = 0xFFFF_FFF0;
    m.exec(&[0xEB, 0x20]).unwrap();
    assert_eq!(m.cpu.next_ip, 0x12);
    m.cpu.next_ip = 0x1_2340;
    m.exec(&[0x66, 0xEB, 0x00]).unwrap();
    assert_eq!(m.cpu.next_ip, 0x2343);
}

#[test]
fn targets_beyond_the_code_segment_fault() {
    let mut m = Machine::protected();
    m.cpu.segments[sreg::CS].limit = at::CODE as u32 + 0xFF;
    m.faults(&[0xE9, 0, 1, 0, 0], Exception::GP0);
    m.faults(&[0xE8, 0, 1, 0, 0], Exception::GP0);
    m.cpu.lazy.set(flags::ZF);
    m.faults(&[0x0F, 0x84, 0, 1, 0, 0], Exception::GP0);
    m.exec(&[0x0F, 0x85, 0, 1, 0, 0]).unwrap();
    m.cpu.regs[1] = 0x100;
    m.poke64(at::KERNEL_STACK, 0x10_0000);
    m.faults(&[0xC3], Exception::GP0);
    let mut m = Machine::long();
    m.cpu.regs[0] = 1 << 47;
    m.faults(&[0xFF, 0xE0], Exception::GP0);
    m.faults(&[0xFF, 0xD0], Exception::GP0);
}

#[test]
fn calls_push_the_next_ip_in_the_operand_size_and_ret_releases_parameters() {
    let mut m = real(0x100);
    m.exec(&[0xE8, 0x10, 0x00]).unwrap();
    assert_eq!((m.cpu.next_ip, m.rsp()), (0x113, 0x7FFE));
    assert_eq!(m.stack(2), [0x103]);
    m.exec(&[0xC2, 0x04, 0x00]).unwrap();
    assert_eq!((m.cpu.next_ip, m.rsp()), (0x103, 0x8004));
    let mut m = Machine::protected();
    m.cpu.regs[0] = 0x1234;
    m.exec(&[0xFF, 0xD0]).unwrap();
    assert_eq!(m.stack(4), [at::CODE + 2]);
    assert_eq!(m.cpu.next_ip, 0x1234);
}

#[test]
fn loops_count_in_the_address_size() {
    let mut m = real(0x100);
    m.cpu.regs[1] = 0x5_0001;
    m.exec(&[0xE2, 0x10]).unwrap();
    assert_eq!((m.cpu.next_ip, m.cpu.regs[1]), (0x102, 0x5_0000));
    m.exec(&[0xE3, 0x10]).unwrap();
    assert_eq!(m.cpu.next_ip, 0x114);
    m.exec(&[0x67, 0xE2, 0x10]).unwrap();
    assert_eq!((m.cpu.next_ip, m.cpu.regs[1]), (0x127, 0x4_FFFF));
    m.cpu.lazy.set(0);
    m.exec(&[0xE1, 0x10]).unwrap();
    assert_eq!((m.cpu.next_ip, m.cpu.regs[1]), (0x129, 0x4_FFFE));
    m.exec(&[0xE0, 0x10]).unwrap();
    assert_eq!((m.cpu.next_ip, m.cpu.regs[1]), (0x13B, 0x4_FFFD));
    let mut m = Machine::long();
    m.cpu.regs[1] = 0xFFFF_FFFF_0000_0000;
    m.exec(&[0x67, 0xE3, 0x10]).unwrap();
    assert_eq!(m.cpu.next_ip, at::CODE + 3 + 0x10);
    m.exec(&[0x67, 0xE2, 0x10]).unwrap();
    assert_eq!(m.cpu.regs[1], 0xFFFF_FFFF);
}

#[test]
fn a_16_bit_stack_wraps_and_keeps_the_upper_half_of_esp() {
    let mut m = Machine::protected();
    m.force(sreg::SS, sel::DATA16);
    m.cpu.regs[slot::RSP as usize] = 0xABCD_0000;
    m.cpu.regs[0] = 0x1122_3344;
    m.exec(&[0x50]).unwrap();
    assert_eq!((m.rsp(), m.peek(0xFFFC, 4)), (0xABCD_FFFC, 0x1122_3344));
    m.exec(&[0x5B]).unwrap();
    assert_eq!((m.rsp(), m.cpu.regs[3]), (0xABCD_0000, 0x1122_3344));
    m.cpu.regs[slot::RSP as usize] = 2;
    m.faults(&[0x50], Exception::SS0);
}

#[test]
fn pusha_stores_the_old_stack_pointer_and_popa_skips_it() {
    for (mut m, size) in [(real(0x100), 2), (Machine::protected(), 4)] {
        let top = m.rsp();
        for i in [0, 1, 2, 3, 5, 6, 7] {
            m.cpu.regs[i] = 0x1111 * (i as u64 + 1);
        }
        let before = m.snapshot().0;
        m.exec(&[0x60]).unwrap();
        assert_eq!(m.rsp(), top - 8 * size as u64);
        assert_eq!(m.stack(size), [0x8888, 0x7777, 0x6666, top, 0x4444, 0x3333, 0x2222, 0x1111]);
        m.cpu.regs[..4].fill(0);
        m.cpu.regs[5..8].fill(0);
        m.exec(&[0x61]).unwrap();
        assert_eq!(m.snapshot().0, before);
    }
}

#[test]
fn pusha_over_the_end_of_the_stack_segment_wraps_or_changes_nothing() {
    let mut m = real(0x100);
    m.cpu.regs[slot::RSP as usize] = 8;
    m.exec(&[0x60]).unwrap();
    assert_eq!((m.rsp(), m.peek(6, 2), m.peek(0xFFF8, 2)), (0xFFF8, 0, 0));
    assert_eq!(m.peek(0xFFFE, 2), 8, "SP is the fifth word: at offset -2");
    m.cpu.regs[slot::RSP as usize] = 9;
    m.faults(&[0x60], Exception::SS0);
}

#[test]
fn push_of_the_stack_pointer_pushes_the_old_value_and_pop_loads_the_popped_one() {
    let mut m = Machine::protected();
    m.exec(&[0x54]).unwrap();
    assert_eq!(m.stack(4), [at::KERNEL_STACK]);
    m.exec(&[0x5C]).unwrap();
    assert_eq!(m.rsp(), at::KERNEL_STACK);
}

#[test]
fn pop_to_memory_addresses_with_the_incremented_stack_pointer() {
    let mut m = Machine::protected();
    m.poke64(at::KERNEL_STACK, 0x5555_6666);
    // POP DWORD [ESP]
    m.exec(&[0x8F, 0x04, 0x24]).unwrap();
    assert_eq!(m.peek(at::KERNEL_STACK + 4, 4), 0x5555_6666);
    let mut m = Machine::long();
    m.cpu.regs[0] = at::UNMAPPED;
    let before = m.snapshot();
    assert!(matches!(m.exec(&[0x66, 0x8F, 0x00]), Err(Exception::PageFault { .. })));
    m.cpu.next_ip = before.4;
    assert_eq!(m.snapshot(), before);
}

#[test]
fn immediates_are_sign_extended_to_the_operand_size() {
    let mut m = Machine::protected();
    m.exec(&[0x6A, 0xFF]).unwrap();
    assert_eq!(m.stack(4), [0xFFFF_FFFF]);
    m.exec(&[0x66, 0x6A, 0x80]).unwrap();
    assert_eq!((m.stack(2), m.rsp()), ([0xFF80], at::KERNEL_STACK - 6));
    let mut m = Machine::long();
    m.exec(&[0x66, 0x68, 0x34, 0x12]).unwrap();
    assert_eq!((m.stack(2), m.rsp()), ([0x1234], at::KERNEL_STACK - 2));
}

#[test]
fn enter_copies_the_display_and_leave_undoes_it() {
    let mut m = Machine::protected();
    let outer = at::KERNEL_STACK + 0x100;
    m.cpu.regs[5] = outer;
    m.poke64(outer - 8, 0x2222_0000_1111);
    m.exec(&[0xC8, 0x20, 0x00, 0x03]).unwrap();
    let frame = at::KERNEL_STACK - 4;
    assert_eq!(m.cpu.regs[5], frame);
    assert_eq!(m.rsp(), frame - 12 - 0x20);
    assert_eq!([0, 4, 8, 12].map(|i| m.peek(frame - i, 4)), [outer, 0x2222, 0x1111, frame]);
    m.exec(&[0xC9]).unwrap();
    assert_eq!((m.cpu.regs[5], m.rsp()), (outer, at::KERNEL_STACK));
}

#[test]
fn enter_checks_that_the_final_stack_pointer_can_be_written() {
    let mut m = Machine::long().into_user(sel::USER_CODE64);
    m.cpu.regs[slot::RSP as usize] = 0x100;
    let before = m.snapshot();
    assert!(m.exec(&[0xC8, 0x00, 0x10, 0x00]).is_err());
    m.cpu.next_ip = before.4;
    assert_eq!(m.snapshot(), before);
}

#[test]
fn pushf_hides_vm_and_rf_and_popf_honours_iopl() {
    let mut m = Machine::long().into_user(sel::USER_CODE64);
    m.cpu.set_rflags(flags::IF | flags::RF | flags::ID);
    m.exec(&[0x9C]).unwrap();
    assert_eq!(m.stack(8), [flags::IF | flags::ID | flags::FIXED]);
    m.poke64(m.rsp(), flags::IOPL | flags::CF | flags::AC | flags::VM | flags::VIF);
    m.exec(&[0x9D]).unwrap();
    assert_eq!(m.cpu.rflags(), flags::IF | flags::CF | flags::AC | flags::FIXED);
    let mut m = Machine::long();
    m.cpu.set_rflags(flags::IF | flags::ID);
    m.cpu.regs[slot::RSP as usize] -= 2;
    m.poke(at::KERNEL_STACK - 2, &(flags::IOPL as u16).to_le_bytes());
    m.exec(&[0x66, 0x9D]).unwrap();
    assert_eq!((m.cpu.rflags(), m.rsp()), (flags::IOPL | flags::ID | flags::FIXED, at::KERNEL_STACK));
}
