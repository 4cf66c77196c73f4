//! Far JMP, CALL and RET.

use super::*;
use cpu::mode::Mode;

fn ptr32(opcode: u8, selector: u16, offset: u64) -> Vec<u8> {
    let mut code = vec![opcode];
    code.extend((offset as u32).to_le_bytes());
    code.extend(selector.to_le_bytes());
    code
}

fn jmp(selector: u16, offset: u64) -> Vec<u8> {
    ptr32(0xEA, selector, offset)
}

fn call(selector: u16, offset: u64) -> Vec<u8> {
    ptr32(0x9A, selector, offset)
}

fn call_gate(m: &mut Machine, target: u16, offset: u64, low: u64) {
    let [raw, upper] = gate(target, offset, rights::CALL_GATE_DPL3, low);
    m.poke64(at::GDT + u64::from(sel::GATE), raw);
    if m.cpu.ia32e_active() {
        m.poke64(at::GDT + u64::from(sel::GATE) + 8, upper);
    }
}

/// A far pointer in memory, in RBX; the instruction is `FF /3` or `FF /5` with a 64-bit offset.
fn indirect(m: &mut Machine, reg: u8, selector: u16, offset: u64) -> [u8; 3] {
    m.poke64(at::DATA, offset);
    m.poke(at::DATA + 8, &selector.to_le_bytes());
    m.cpu.regs[3] = at::DATA;
    [0x48, 0xFF, reg << 3 | 3]
}

#[test]
fn a_far_jump_changes_between_64_bit_and_compatibility_mode() {
    let mut m = Machine::long();
    let code = indirect(&mut m, 5, sel::CODE32, 0x1_2345);
    m.exec(&code).unwrap();
    assert_eq!((m.cpu.mode, m.cpu.next_ip), (Mode::Protected32, 0x1_2345));
    m.exec(&jmp(sel::CODE64, 0x5_4321)).unwrap();
    assert_eq!((m.cpu.mode, m.cpu.next_ip), (Mode::Long64, 0x5_4321));
}

#[test]
fn a_far_jump_checks_the_code_segment() {
    let gp = Exception::GeneralProtection;
    let mut m = Machine::protected();
    for (selector, offset, expected) in [
        (0, 0, Exception::GP0),
        (sel::DATA0, 0, gp(sel::DATA0)),
        (sel::USER_CODE32, 0, gp(sel::USER_CODE32 & !3)),
        (sel::CODE32 | 1, 0, gp(sel::CODE32)),
        (sel::LAST + 8, 0, gp(sel::LAST + 8)),
        (sel::CODE16, 0x1_0000, Exception::GP0),
        (sel::TSS, 0, gp(sel::TSS)),
    ] {
        m.faults(&jmp(selector, offset), expected);
    }
    let mut m = Machine::long();
    let code = indirect(&mut m, 5, sel::CODE64, 1 << 47);
    m.faults(&code, Exception::GP0);
}

#[test]
fn a_conforming_segment_runs_at_the_callers_privilege() {
    let mut m = Machine::protected().into_user(sel::USER_CODE32);
    m.exec(&jmp(sel::CONFORMING32, 0x100)).unwrap();
    assert_eq!((m.cpu.cpl, m.selector(sreg::CS)), (3, sel::CONFORMING32 | 3));
}

#[test]
fn a_far_call_and_its_return_keep_privilege_and_stack() {
    let mut m = Machine::protected();
    m.exec(&call(sel::CODE16, 0x200)).unwrap();
    assert_eq!((m.cpu.mode, m.cpu.next_ip, m.rsp()), (Mode::Protected16, 0x200, at::KERNEL_STACK - 8));
    assert_eq!(m.stack(4), [at::CODE + 7, sel::CODE32.into()]);
    m.exec(&[0x66, 0xCB]).unwrap();
    assert_eq!((m.cpu.mode, m.cpu.next_ip, m.rsp()), (Mode::Protected32, at::CODE + 7, at::KERNEL_STACK));
}

#[test]
fn a_32_bit_call_gate_copies_parameters_to_the_inner_stack_and_retf_releases_them() {
    let mut m = Machine::protected().into_user(sel::USER_CODE32);
    call_gate(&mut m, sel::CODE32, 0x7_1234, 3);
    let sp = at::USER_STACK - 12;
    for (i, parameter) in [11u32, 22, 33].into_iter().enumerate() {
        m.poke(sp + 4 * i as u64, &parameter.to_le_bytes());
    }
    m.cpu.regs[slot::RSP as usize] = sp;
    m.exec(&call(sel::GATE, 0xDEAD)).unwrap();
    assert_eq!((m.cpu.cpl, m.cpu.next_ip, m.rsp()), (0, 0x7_1234, at::RSP0 - 28));
    assert_eq!(m.stack(4), [at::CODE + 7, sel::USER_CODE32.into(), 11, 22, 33, sp, sel::USER_DATA.into()]);
    assert_eq!((m.selector(sreg::CS), m.selector(sreg::SS)), (sel::CODE32, sel::DATA0));
    m.exec(&[0xCA, 12, 0]).unwrap();
    assert_eq!((m.cpu.cpl, m.cpu.next_ip, m.rsp()), (3, at::CODE + 7, at::USER_STACK));
    assert_eq!((m.selector(sreg::CS), m.selector(sreg::SS)), (sel::USER_CODE32, sel::USER_DATA));
}

#[test]
fn a_64_bit_call_gate_switches_to_rsp0_with_a_null_ss_and_retfq_returns() {
    let mut m = Machine::long().into_user(sel::USER_CODE64);
    let target = 0xFFFF_8000_0000_1000;
    call_gate(&mut m, sel::CODE64, target, 0);
    let code = indirect(&mut m, 3, sel::GATE, 0);
    m.exec(&code).unwrap();
    assert_eq!((m.cpu.cpl, m.cpu.next_ip, m.rsp()), (0, target, at::RSP0 - 32));
    assert_eq!(m.stack(8), [at::CODE + 3, sel::USER_CODE64.into(), at::USER_STACK, sel::USER_DATA.into()]);
    assert_eq!(m.selector(sreg::SS), 0);
    m.exec(&[0x48, 0xCB]).unwrap();
    assert_eq!((m.cpu.cpl, m.cpu.next_ip, m.rsp()), (3, at::CODE + 3, at::USER_STACK));
}

#[test]
fn call_gates_check_their_own_privilege_presence_and_target() {
    let gp = Exception::GeneralProtection;
    let mut m = Machine::long().into_user(sel::USER_CODE64);
    call_gate(&mut m, sel::CODE32, 0x1000, 0);
    let code = indirect(&mut m, 3, sel::GATE, 0);
    m.faults(&code, gp(sel::CODE32));
    let raw = m.peek64(at::GDT + u64::from(sel::GATE));
    m.poke64(at::GDT + u64::from(sel::GATE), raw & !(3 << 45));
    m.faults(&code, gp(sel::GATE));
    m.poke64(at::GDT + u64::from(sel::GATE), raw & !(1 << 47));
    m.faults(&code, Exception::SegmentNotPresent(sel::GATE));
    m.poke64(at::GDT + u64::from(sel::GATE), raw);
    m.poke64(at::GDT + u64::from(sel::GATE) + 8, 1 << 40);
    m.faults(&code, gp(sel::GATE));
    call_gate(&mut m, sel::CODE64, 1 << 47, 0);
    m.faults(&code, Exception::GP0);
}

#[test]
fn a_jump_through_a_gate_never_gains_privilege() {
    let mut m = Machine::long().into_user(sel::USER_CODE64);
    call_gate(&mut m, sel::CODE64, 0x1000, 0);
    let code = indirect(&mut m, 5, sel::GATE, 0);
    m.faults(&code, Exception::GeneralProtection(sel::CODE64));
    call_gate(&mut m, sel::CONFORMING64, 0x1000, 0);
    m.exec(&code).unwrap();
    assert_eq!((m.cpu.cpl, m.cpu.next_ip, m.selector(sreg::CS)), (3, 0x1000, sel::CONFORMING64 | 3));
}

#[test]
fn a_fault_on_the_inner_stack_leaves_the_caller_as_it_was() {
    let mut m = Machine::long().into_user(sel::USER_CODE64);
    m.poke64(at::TSS + 4, at::UNMAPPED + 0x100);
    call_gate(&mut m, sel::CODE64, 0x1000, 0);
    let code = indirect(&mut m, 3, sel::GATE, 0);
    let before = m.snapshot();
    let result = m.exec(&code);
    // A supervisor's write to a page that is not present.
    assert_eq!(result, Err(Exception::PageFault { address: at::UNMAPPED + 0xE0, code: 2 }));
    m.cpu.next_ip = before.4;
    assert_eq!(m.snapshot(), before);
}

#[test]
fn retf_refuses_to_gain_privilege() {
    let mut m = Machine::protected().into_user(sel::USER_CODE32);
    let sp = at::USER_STACK - 8;
    m.poke64(sp, 0x1000 | u64::from(sel::CODE32) << 32);
    m.cpu.regs[slot::RSP as usize] = sp;
    m.faults(&[0xCB], Exception::GeneralProtection(sel::CODE32));
}

#[test]
fn real_mode_far_calls_push_16_bits_and_check_the_limit() {
    let mut m = Machine::new();
    m.cpu.next_ip = 0x100;
    m.exec(&[0x9A, 0x34, 0x12, 0x00, 0x20]).unwrap();
    assert_eq!((m.cpu.next_ip, m.cpu.segments[sreg::CS].base), (0x1234, 0x2_0000));
    assert_eq!(m.stack(2), [0x105, 0xF000]);
    m.exec(&[0xCB]).unwrap();
    assert_eq!((m.cpu.next_ip, m.selector(sreg::CS), m.rsp()), (0x105, 0xF000, 0x8000));
    m.faults(&[0x66, 0xEA, 0, 0, 1, 0, 0, 0x20], Exception::GP0);
}
