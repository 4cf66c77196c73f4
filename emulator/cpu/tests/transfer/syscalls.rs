//! SYSCALL, SYSRET, SYSENTER, SYSEXIT, SWAPGS, FS and GS bases.

use super::*;
use cpu::mode::Mode;
use x86::flags;

const SYSCALL: &[u8] = &[0x0F, 0x05];
const SYSRETQ: &[u8] = &[0x48, 0x0F, 0x07];
const SYSENTER: &[u8] = &[0x0F, 0x34];
const SYSEXIT: &[u8] = &[0x0F, 0x35];
const SYSEXITQ: &[u8] = &[0x48, 0x0F, 0x35];
const LSTAR: u64 = 0xFFFF_8000_0000_2000;

fn with_star(mut m: Machine) -> Machine {
    m.cpu.msr.star = u64::from(sel::CODE64) << 32 | u64::from(sel::USER_CODE32 & !3) << 48;
    m.cpu.msr.lstar = LSTAR;
    m.cpu.msr.fmask = flags::IF | flags::TF;
    m
}

#[test]
fn syscall_and_sysret_are_inverse() {
    let mut m = with_star(Machine::long().into_user(sel::USER_CODE64));
    let rflags = flags::IF | flags::CF | flags::FIXED;
    m.cpu.set_rflags(rflags);
    m.exec(SYSCALL).unwrap();
    assert_eq!((m.cpu.next_ip, m.cpu.cpl, m.rsp()), (LSTAR, 0, at::USER_STACK));
    assert_eq!((m.cpu.regs[1], m.cpu.regs[11]), (at::CODE + 2, rflags));
    assert_eq!(m.cpu.rflags(), flags::CF | flags::FIXED);
    assert_eq!((m.selector(sreg::CS), m.selector(sreg::SS)), (sel::CODE64, sel::CODE64 + 8));
    m.exec(SYSRETQ).unwrap();
    assert_eq!((m.cpu.next_ip, m.cpu.cpl, m.cpu.rflags()), (at::CODE + 2, 3, rflags));
    assert_eq!((m.selector(sreg::CS), m.selector(sreg::SS)), (sel::USER_CODE64, sel::USER_DATA));
}

#[test]
fn sysret_with_a_non_canonical_rcx_faults_at_cpl_0() {
    let mut m = with_star(Machine::long());
    m.cpu.regs[1] = 1 << 47;
    m.faults(SYSRETQ, Exception::GP0);
    m.exec(&[0x0F, 0x07]).unwrap();
    assert_eq!((m.cpu.mode, m.cpu.next_ip, m.cpu.cpl), (Mode::Protected32, 0, 3));
}

#[test]
fn syscall_needs_sce_and_64_bit_mode_and_sysret_cpl_0() {
    let mut m = Machine::long();
    m.cpu.msr.efer &= !cr::efer::SCE;
    m.faults(SYSCALL, Exception::UD);
    m.faults(SYSRETQ, Exception::UD);
    Machine::long().into_user(sel::USER_CODE32).faults(SYSCALL, Exception::UD);
    Machine::long().into_user(sel::USER_CODE64).faults(SYSRETQ, Exception::GP0);
}

#[test]
fn sysenter_and_sysexit_use_the_selectors_after_sysenter_cs() {
    let mut m = Machine::long().into_user(sel::USER_CODE32);
    m.faults(SYSENTER, Exception::GP0);
    m.cpu.msr.sysenter_cs = sel::CODE64.into();
    m.cpu.msr.sysenter_eip = LSTAR;
    m.cpu.msr.sysenter_esp = 0xFFFF_8000_0000_1000;
    m.cpu.set_rflags(flags::IF | flags::CF);
    m.exec(SYSENTER).unwrap();
    assert_eq!((m.cpu.mode, m.cpu.cpl, m.cpu.next_ip, m.rsp()), (Mode::Long64, 0, LSTAR, 0xFFFF_8000_0000_1000));
    assert_eq!(m.cpu.rflags(), flags::CF | flags::FIXED);
    (m.cpu.regs[1], m.cpu.regs[2]) = (1 << 47, 0);
    m.faults(SYSEXITQ, Exception::GP0);
    (m.cpu.regs[1], m.cpu.regs[2]) = (at::USER_STACK, 0x1_0000_1234);
    m.exec(SYSEXIT).unwrap();
    assert_eq!((m.cpu.mode, m.cpu.cpl, m.cpu.next_ip, m.rsp()), (Mode::Protected32, 3, 0x1234, at::USER_STACK));
    assert_eq!((m.selector(sreg::CS), m.selector(sreg::SS)), ((sel::CODE64 + 16) | 3, (sel::CODE64 + 24) | 3));
}

#[test]
fn sysexitq_goes_to_64_bit_code_32_beyond_sysenter_cs() {
    let mut m = Machine::long();
    m.cpu.msr.sysenter_cs = sel::CODE64.into();
    (m.cpu.regs[1], m.cpu.regs[2]) = (at::USER_STACK, 0x7FFF_1234_5678);
    m.exec(SYSEXITQ).unwrap();
    assert_eq!(
        (m.cpu.mode, m.cpu.next_ip, m.selector(sreg::CS)),
        (Mode::Long64, 0x7FFF_1234_5678, (sel::CODE64 + 32) | 3)
    );
}

#[test]
fn swapgs_exchanges_the_bases_at_cpl_0_only() {
    const SWAPGS: &[u8] = &[0x0F, 0x01, 0xF8];
    let mut m = Machine::long();
    m.cpu.msr.kernel_gs_base = 0xFFFF_8000_0000_3000;
    m.cpu.set_segment_base(sreg::GS, 0x4000);
    m.exec(SWAPGS).unwrap();
    assert_eq!((m.cpu.segments[sreg::GS].base, m.cpu.msr.kernel_gs_base), (0xFFFF_8000_0000_3000, 0x4000));
    assert_eq!(m.cpu.regs[usize::from(slot::SEG) + sreg::GS], 0xFFFF_8000_0000_3000);
    Machine::long().into_user(sel::USER_CODE64).faults(SWAPGS, Exception::GP0);
}

#[test]
fn base_instructions_need_fsgsbase_and_a_canonical_value() {
    const WRFSBASE_RAX: &[u8] = &[0xF3, 0x48, 0x0F, 0xAE, 0xD0];
    let mut m = Machine::long().into_user(sel::USER_CODE64);
    m.faults(WRFSBASE_RAX, Exception::UD);
    m.cpu.cr4 |= cr::cr4::FSGSBASE;
    m.cpu.regs[0] = 1 << 47;
    m.faults(WRFSBASE_RAX, Exception::GP0);
    m.cpu.regs[0] = 0x7FFF_FFFF_F000;
    m.exec(WRFSBASE_RAX).unwrap();
    // RDFSBASE ECX, then WRGSBASE EAX.
    m.cpu.regs[1] = u64::MAX;
    m.exec(&[0xF3, 0x0F, 0xAE, 0xC1]).unwrap();
    assert_eq!(m.cpu.regs[1], 0xFFFF_F000);
    m.exec(&[0xF3, 0x0F, 0xAE, 0xD8]).unwrap();
    assert_eq!(m.cpu.segments[sreg::GS].base, 0xFFFF_F000);
}
