//! CPUID, MSRs, control and debug registers, ports.

mod common;

use common::{DATA, UNMAPPED, board, board_with, enter_32bit, enter_real_mode, exec, long_mode, rax, set};
use cpu::exec::system::unknown::Unknown;
use cpu::state::slot::{RAX, RBX, RCX, RDX};
use cpu::{Cpu, exec as instructions};
use iced_x86::Code;
use mem::{Config, MemType, TmeProfile};
use x86::cr::{cr0, cr4, efer};
use x86::msr::*;
use x86::segment::{Segment, ar};
use x86::{Exception, flags};

const CPUID: [u8; 2] = [0x0F, 0xA2];
const RDMSR: [u8; 2] = [0x0F, 0x32];
const WRMSR: [u8; 2] = [0x0F, 0x30];
const GP: Exception = Exception::GP0;

fn cpu_of(profile: TmeProfile) -> Box<Cpu> {
    board(profile).0
}

#[test]
fn mk_001_002_003_feature_bits_follow_the_profile() {
    for (profile, tme, pconfig) in [
        (TmeProfile::Default, 1, 1),
        (TmeProfile::TmeOnly, 1, 0),
        (TmeProfile::None, 0, 0),
        (TmeProfile::Server7, 1, 1),
    ] {
        let cpu = cpu_of(profile);
        let leaf7 = cpu.cpuid(7, 0);
        assert_eq!((leaf7[2] >> 13 & 1, leaf7[3] >> 18 & 1), (tme, pconfig), "{profile}");
        assert_eq!(cpu.cpuid(0x1B, 0), if pconfig == 1 { [1, 1, 0, 0] } else { [0; 4] });
    }
}

#[test]
fn mk_002_003_tme_msrs_exist_as_the_profile_says() {
    let all = [0x981, 0x982, 0x983, 0x984, 0x87, 0x9FB, 0x9FF];
    let mut none = cpu_of(TmeProfile::None);
    for number in all {
        assert_eq!(none.rdmsr(number), Err(GP));
        assert_eq!(none.wrmsr(number, 0), Err(GP));
    }
    let mut tme_only = cpu_of(TmeProfile::TmeOnly);
    for number in [0x87, 0x9FF] {
        assert_eq!(tme_only.rdmsr(number), Err(GP));
        assert_eq!(tme_only.wrmsr(number, 0), Err(GP));
    }
    assert_eq!(tme_only.rdmsr(0x981).map(|v| v >> 32), Ok(0));
}

#[test]
fn mk_004_005_006_leaf_1b_ends_after_its_first_subleaf() {
    let cpu = long_mode();
    assert!(cpu.cpuid(0, 0)[0] >= 0x1B);
    for subleaf in [1, 2, u32::MAX] {
        assert_eq!(cpu.cpuid(0x1B, subleaf), [0; 4]);
    }
}

#[test]
fn mk_007_008_maxphyaddr_and_feature_bits_survive_activation() {
    for value in [0x0005_0006_0000_0002, 0] {
        let mut cpu = long_mode();
        let before = (cpu.cpuid(7, 0), cpu.cpuid(0x8000_0008, 0));
        assert_eq!(before.1[0] & 0xFF, 46);
        cpu.wrmsr(IA32_TME_ACTIVATE, value).expect("accepted");
        cpu.wrmsr(MK_TME_CORE_ACTIVATE, 0).expect("accepted");
        assert_eq!((cpu.cpuid(7, 0), cpu.cpuid(0x8000_0008, 0)), before);
    }
}

#[test]
fn cpuid_tells_a_consistent_processor() {
    let mut cpu = long_mode();
    set(&mut cpu, RAX, 0);
    exec(&mut cpu, &CPUID).expect("CPUID");
    let name: Vec<u8> = [RBX, RDX, RCX].iter().flat_map(|r| (cpu.regs[*r as usize] as u32).to_le_bytes()).collect();
    assert_eq!(name, b"GenuineIntel");
    // Family 6, model 6AH, stepping 6.
    let signature = cpu.cpuid(1, 0)[0];
    assert_eq!((signature >> 8 & 0xF, signature >> 12 & 0xF0 | signature >> 4 & 0xF, signature & 0xF), (6, 0x6A, 6));
    // Leaf 4: ways * partitions * line size * sets.
    let [_, ebx, ecx, _] = cpu.cpuid(4, 2);
    assert_eq!(((ebx >> 22) + 1) * ((ebx >> 12 & 0x3FF) + 1) * ((ebx & 0xFFF) + 1) * (ecx + 1), 1 << 20);
    assert_eq!(cpu.cpuid(0x8000_0006, 0)[2] >> 16, 1024);
    assert_eq!(cpu.cpuid(4, 3), [0; 4]);
    // Leaf 15H gives the TSC's 1 GHz.
    let [den, num, hz, _] = cpu.cpuid(0x15, 0);
    assert_eq!(u64::from(hz) * u64::from(num) / u64::from(den), 1_000_000_000);
    // No AVX, MONITOR, hypervisor; one logical processor.
    let [_, ebx, ecx, edx] = cpu.cpuid(1, 0);
    assert_eq!(ecx & (1 << 28 | 1 << 3 | 1 << 31), 0);
    assert_eq!((edx >> 28 & 1, ebx >> 16 & 0xFF), (0, 0));
    // Above the maximum: the highest basic leaf.
    assert_eq!(cpu.cpuid(0x4000_0000, 1), cpu.cpuid(0x1F, 1));
}

#[test]
fn osxsave_apic_syscall_and_nx_bits_follow_the_state() {
    let (mut cpu, seen) = board(TmeProfile::Default);
    assert_eq!(cpu.cpuid(1, 0)[2] >> 27 & 1, 0);
    cpu.write_cr4(cpu.cr4 | cr4::OSXSAVE).expect("exists");
    assert_eq!(cpu.cpuid(1, 0)[2] >> 27 & 1, 1);
    for enabled in [0, 1] {
        seen.0.borrow_mut().apic_base = 0xFEE0_0000 | enabled << 11;
        set(&mut cpu, RAX, 1);
        exec(&mut cpu, &CPUID).expect("CPUID");
        assert_eq!(cpu.regs[RDX as usize] >> 9 & 1, enabled);
    }
    assert_eq!(cpu.cpuid(0x8000_0001, 0)[3] >> 11 & 1, 1);
    cpu.wrmsr(IA32_MISC_ENABLE, 1 | 1 << 34).expect("XD disable");
    assert_eq!(cpu.cpuid(0x8000_0001, 0)[3] >> 20 & 1, 0);
    enter_32bit(&mut cpu);
    assert_eq!(cpu.cpuid(0x8000_0001, 0)[3] >> 11 & 1, 0);
}

#[test]
fn mk_009_msr_instructions_fault_outside_cpl_0() {
    let mut cpu = long_mode();
    cpu.set_cpl(3);
    for number in 0x981..=0x984 {
        set(&mut cpu, RCX, number);
        assert_eq!(exec(&mut cpu, &RDMSR), Err(GP));
        assert_eq!(exec(&mut cpu, &WRMSR), Err(GP));
    }
}

#[test]
fn rdmsr_and_wrmsr_use_the_low_halves() {
    let mut cpu = long_mode();
    set(&mut cpu, RCX, 0xFFFF_FFFF_0000_0000 | u64::from(IA32_KERNEL_GS_BASE));
    set(&mut cpu, RAX, 0x1111_1111_89AB_CDEF);
    set(&mut cpu, RDX, 0x2222_2222_FFFF_8567);
    exec(&mut cpu, &WRMSR).expect("canonical");
    set(&mut cpu, RAX, u64::MAX);
    exec(&mut cpu, &RDMSR).expect("readable");
    assert_eq!((rax(&cpu), cpu.regs[RDX as usize]), (0x89AB_CDEF, 0xFFFF_8567));
    assert_eq!(cpu.msr.kernel_gs_base, 0xFFFF_8567_89AB_CDEF);
}

#[test]
fn mk_044_045_046_core_activation() {
    let mut cpu = long_mode();
    assert_eq!(cpu.rdmsr(MK_TME_CORE_ACTIVATE), Ok(0));
    assert_eq!(cpu.wrmsr(MK_TME_CORE_ACTIVATE, 0), Ok(()));
    assert_eq!(cpu.rdmsr(MK_TME_CORE_ACTIVATE), Ok(0));
    cpu.wrmsr(IA32_TME_ACTIVATE, 0x0005_0006_0000_0002).expect("accepted");
    assert_eq!(cpu.rdmsr(MK_TME_CORE_ACTIVATE), Ok(0));
    for bit in 0..64 {
        assert_eq!(cpu.wrmsr(MK_TME_CORE_ACTIVATE, 1 << bit), Err(GP));
    }
    assert_eq!(cpu.wrmsr(MK_TME_CORE_ACTIVATE, 0), Ok(()));
    assert_eq!(cpu.rdmsr(MK_TME_CORE_ACTIVATE), Ok(6 << 32));
}

#[test]
fn mk_060_061_range_registers_refuse_keyid_bits_after_core_activation() {
    let mut cpu = long_mode();
    let wide = ((1 << 46) - 1) & !0xFFFF_FFFF | 1 << 11;
    assert_eq!(cpu.wrmsr(IA32_MTRR_PHYSMASK0, wide), Ok(()));
    cpu.wrmsr(IA32_TME_ACTIVATE, 0x0005_0006_8000_0002).expect("accepted");
    assert_eq!(cpu.wrmsr(IA32_MTRR_PHYSMASK0 + 2, wide), Ok(()));
    cpu.wrmsr(MK_TME_CORE_ACTIVATE, 0).expect("accepted");
    for number in [IA32_MTRR_PHYSBASE0, IA32_MTRR_PHYSMASK0, IA32_APIC_BASE] {
        assert_eq!(cpu.wrmsr(number, 1 << 40), Err(GP));
        assert_eq!(cpu.wrmsr(number, 1 << 39), Ok(()));
    }
    assert_eq!(cpu.rdmsr(IA32_MTRR_PHYSMASK0 + 2), Ok(wide));
}

#[test]
fn mk_062_a_keyid_does_not_change_the_memory_type() {
    let mut cpu = long_mode();
    cpu.wrmsr(IA32_MTRR_DEF_TYPE, 0x800).expect("UC by default");
    cpu.wrmsr(IA32_MTRR_PHYSBASE0, 6).expect("WB from 0");
    cpu.wrmsr(IA32_MTRR_PHYSMASK0, ((1 << 46) - 1) & !0xFF_FFFF | 1 << 11).expect("16 MiB");
    cpu.wrmsr(IA32_TME_ACTIVATE, 0x0005_0006_8000_0002).expect("accepted");
    assert_eq!(cpu.memory_type(5 << 40 | 0x1000, 0), MemType::Uc, "MC-14: not activated on this core");
    cpu.wrmsr(MK_TME_CORE_ACTIVATE, 0).expect("accepted");
    for keyid in [0, 5] {
        assert_eq!(cpu.memory_type(keyid << 40 | 0x1000, 0), MemType::Wb);
        assert_eq!(cpu.memory_type(keyid << 40 | 0x100_0000, 0), MemType::Uc);
        assert_eq!(cpu.memory_type(keyid << 40 | 0x1000, 3), MemType::Uc);
    }
}

#[test]
fn mtrr_and_pat_values_are_checked() {
    let mut cpu = long_mode();
    assert_eq!(cpu.rdmsr(IA32_MTRRCAP), Ok(0x50A));
    assert_eq!(cpu.wrmsr(IA32_MTRRCAP, 0x50A), Err(GP));
    for (number, value) in [
        (IA32_MTRR_PHYSBASE0, 2),
        (IA32_MTRR_PHYSBASE0, 0x106),
        (IA32_MTRR_PHYSBASE0, 1 << 46),
        (IA32_MTRR_PHYSMASK0, 0x400),
        (IA32_MTRR_DEF_TYPE, 7),
        (IA32_MTRR_DEF_TYPE, 0x1006),
        (IA32_MTRR_FIX4K_C0000 + 7, 0x0600_0000_0000_0700),
        (IA32_PAT, 2),
        (IA32_PAT, 0x0800_0000_0000_0000),
    ] {
        assert_eq!(cpu.wrmsr(number, value), Err(GP), "{number:#x} {value:#x}");
    }
    assert_eq!(cpu.wrmsr(IA32_PAT, 0x0007_0106_0005_0406), Ok(()));
    assert_eq!(cpu.wrmsr(IA32_MTRR_FIX16K_A0000, 0x0606_0505_0404_0100), Ok(()));
    assert_eq!(cpu.rdmsr(IA32_MTRR_FIX16K_A0000), Ok(0x0606_0505_0404_0100));
    assert_eq!(cpu.wrmsr(IA32_MTRR_PHYSBASE0 + 20, 0), Err(GP), "ten ranges");
}

#[test]
fn the_tsc_its_adjustment_and_an_armed_deadline_move_together() {
    let (mut cpu, seen) = board(TmeProfile::Default);
    cpu.wrmsr(IA32_TSC_DEADLINE, 5000).expect("armed");
    cpu.wrmsr(IA32_TIME_STAMP_COUNTER, 1_000_000).expect("writable");
    assert_eq!(cpu.rdmsr(IA32_TIME_STAMP_COUNTER), Ok(1_000_000));
    let adjust = cpu.rdmsr(IA32_TSC_ADJUST).expect("readable");
    assert_eq!(adjust, 1_000_000u64.wrapping_sub(cpu.now().0));
    assert_eq!((seen.0.borrow().deadline, seen.0.borrow().deadline_offset), (5000, adjust));
    cpu.wrmsr(IA32_TSC_ADJUST, 0).expect("writable");
    assert_eq!(cpu.rdmsr(IA32_TIME_STAMP_COUNTER), Ok(cpu.now().0));
}

#[test]
fn efer_rules() {
    let mut cpu = long_mode();
    let value = cpu.msr.efer;
    assert_eq!(cpu.wrmsr(IA32_EFER, value & !efer::LME), Err(GP), "LME while paging");
    assert_eq!(cpu.wrmsr(IA32_EFER, value | 1 << 1), Err(GP), "reserved");
    assert_eq!(cpu.wrmsr(IA32_EFER, value & !efer::LMA | efer::SCE), Ok(()));
    assert_eq!(cpu.rdmsr(IA32_EFER), Ok(value | efer::SCE), "LMA is read-only");
}

#[test]
fn other_msr_rules() {
    let mut cpu = long_mode();
    for number in [IA32_SYSENTER_ESP, IA32_SYSENTER_EIP, IA32_LSTAR, IA32_CSTAR, IA32_FS_BASE, IA32_GS_BASE] {
        assert_eq!(cpu.wrmsr(number, 1 << 47), Err(GP));
        assert_eq!(cpu.wrmsr(number, 0xFFFF_8000_0000_1000), Ok(()));
        assert_eq!(cpu.rdmsr(number), Ok(0xFFFF_8000_0000_1000));
    }
    for number in [IA32_FMASK, IA32_TSC_AUX] {
        assert_eq!(cpu.wrmsr(number, 1 << 32), Err(GP));
        assert_eq!(cpu.wrmsr(number, 0xFFFF_FFFF), Ok(()));
    }
    assert_eq!(cpu.wrmsr(IA32_SPEC_CTRL, 7), Ok(()));
    assert_eq!(cpu.wrmsr(IA32_SPEC_CTRL, 8), Err(GP));
    assert_eq!((cpu.wrmsr(IA32_PRED_CMD, 1), cpu.wrmsr(IA32_PRED_CMD, 2)), (Ok(()), Err(GP)));
    assert_eq!(cpu.rdmsr(IA32_PRED_CMD), Err(GP));
    assert_eq!(cpu.wrmsr(IA32_FEATURE_CONTROL, 1), Err(GP), "locked");
    assert_eq!(cpu.rdmsr(IA32_XSS), Err(GP), "no XSAVES");
    assert_eq!(cpu.wrmsr(IA32_MCG_STATUS, 1), Err(GP));
}

#[test]
fn the_microcode_revision_is_loaded_by_cpuid_1() {
    let mut cpu = long_mode();
    cpu.wrmsr(IA32_BIOS_SIGN_ID, 0).expect("writable");
    assert_eq!(cpu.rdmsr(IA32_BIOS_SIGN_ID), Ok(0));
    set(&mut cpu, RAX, 1);
    exec(&mut cpu, &CPUID).expect("CPUID");
    assert_ne!(cpu.rdmsr(IA32_BIOS_SIGN_ID).map(|v| v >> 32), Ok(0));
}

#[test]
fn unknown_msrs_and_leaves_are_recorded_once() {
    let mut cpu = long_mode();
    for _ in 0..3 {
        assert_eq!(cpu.rdmsr(0x33), Err(GP));
        assert_eq!(cpu.wrmsr(0x1A2, 0), Err(GP));
    }
    let mut told = Vec::new();
    while let Some((what, _)) = cpu.unknowns.next_report() {
        told.push(what);
    }
    assert_eq!(told, [Unknown::MsrRead(0x33), Unknown::MsrWrite(0x1A2)]);
}

#[test]
fn cr0_rules() {
    let mut cpu = long_mode();
    let value = cpu.cr0;
    assert_eq!(cpu.write_cr0(value & !cr0::PE), Err(GP), "PG without PE");
    assert_eq!(cpu.write_cr0(value | cr0::NW), Err(GP), "NW without CD");
    assert_eq!(cpu.write_cr0(value | 1 << 32), Err(GP));
    assert_eq!(cpu.write_cr0(value & !cr0::PG), Err(GP), "PG in 64-bit mode");
    assert_eq!(cpu.write_cr0(value | cr0::CD | cr0::NW | 1 << 6), Ok(()));
    assert_eq!(cpu.cr0, value | cr0::CD | cr0::NW, "reserved bits are ignored");
}

#[test]
fn long_mode_is_left_and_entered_through_cr0() {
    let mut cpu = long_mode();
    enter_32bit(&mut cpu);
    let value = cpu.cr0;
    cpu.write_cr0(value & !cr0::PG).expect("compatibility mode may leave");
    assert_eq!(cpu.msr.efer & efer::LMA, 0);
    cpu.write_cr4(cpu.cr4 & !cr4::PAE).expect("LMA is clear");
    assert_eq!(cpu.write_cr0(value), Err(GP), "LME without PAE");
    cpu.write_cr4(cpu.cr4 | cr4::PAE).expect("PAE");
    cpu.write_cr0(value).expect("activation");
    assert_ne!(cpu.msr.efer & efer::LMA, 0);
    assert_eq!(cpu.write_cr4(cpu.cr4 & !cr4::PAE), Err(GP));
}

#[test]
fn mk_058_059_cr3_accepts_keyid_bits_and_refuses_bits_from_m() {
    let mut cpu = long_mode();
    let value = cpu.cr3;
    for bit in 46..64 {
        assert_eq!(cpu.write_cr3(value | 1 << bit), Err(GP), "bit {bit}");
    }
    assert_eq!(cpu.write_cr3(value | 1 << 45), Ok(()));
    assert_eq!(cpu.cr3, value | 1 << 45);
    let config = Config { ram_bytes: 4 << 20, tdx_partition: true, ..Config::default() };
    let (mut cpu, _) = board_with(config);
    cpu.wrmsr(IA32_TME_ACTIVATE, 0x0005_0016_8000_0002).expect("accepted");
    assert_eq!(cpu.write_cr3(value | 1 << 45), Err(GP), "TDX KeyID bit outside SEAM");
}

#[test]
fn cr3_bit_63_is_the_noflush_hint_of_pcids_only() {
    let mut cpu = long_mode();
    let value = cpu.cr3;
    cpu.write_cr4(cpu.cr4 | cr4::PCIDE).expect("long mode, PCID 0");
    cpu.write_cr3(value | 5 | 1 << 63).expect("noflush");
    assert_eq!(cpu.cr3, value | 5, "bit 63 is not stored");
    assert_eq!(cpu.write_cr3(value | 1 << 62 | 1 << 63), Err(GP));
    assert_eq!(cpu.write_cr0(cpu.cr0 & !cr0::PG), Err(GP), "PCIDE = 1");
    cpu.write_cr4(cpu.cr4 & !cr4::PCIDE).expect("clearing is allowed");
    assert_eq!(cpu.write_cr4(cpu.cr4 | cr4::PCIDE), Err(GP), "PCID is not 0");
}

#[test]
fn reserved_cr4_bits_fault() {
    let mut cpu = long_mode();
    for bit in [0, 1, 12, 13, 14, 15, 19, 22, 23, 24, 25, 32, 63] {
        assert_eq!(cpu.write_cr4(cpu.cr4 | 1 << bit), Err(GP), "bit {bit}");
    }
}

#[test]
fn control_register_moves_by_instruction() {
    let (mut cpu, seen) = board(TmeProfile::Default);
    // MOV RAX, CR8 and back
    set(&mut cpu, RAX, 9);
    exec(&mut cpu, &[0x44, 0x0F, 0x22, 0xC0]).expect("MOV CR8");
    assert_eq!(seen.0.borrow().cr8, 9);
    set(&mut cpu, RAX, 0x10);
    assert_eq!(exec(&mut cpu, &[0x44, 0x0F, 0x22, 0xC0]), Err(GP));
    exec(&mut cpu, &[0x44, 0x0F, 0x20, 0xC0]).expect("MOV from CR8");
    assert_eq!(rax(&cpu), 9);
    cpu.set_cpl(3);
    assert_eq!(exec(&mut cpu, &[0x0F, 0x20, 0xC0]), Err(GP));
    cpu.cr4 |= cr4::UMIP;
    assert_eq!(exec(&mut cpu, &[0x0F, 0x01, 0xE0]), Err(GP), "SMSW under UMIP");
    cpu.cr4 &= !cr4::UMIP;
    exec(&mut cpu, &[0x48, 0x0F, 0x01, 0xE0]).expect("SMSW RAX");
    assert_eq!(rax(&cpu), cpu.cr0);
}

#[test]
fn lmsw_sets_but_never_clears_pe() {
    let mut cpu = long_mode();
    let before = cpu.cr0;
    set(&mut cpu, RAX, 0xFFFF_FFF0 | cr0::TS);
    exec(&mut cpu, &[0x0F, 0x01, 0xF0]).expect("LMSW AX");
    assert_eq!(cpu.cr0, before | cr0::TS);
    exec(&mut cpu, &[0x0F, 0x06]).expect("CLTS");
    assert_eq!(cpu.cr0, before);
}

#[test]
fn debug_registers() {
    let mut cpu = long_mode();
    // MOV DR7, RAX; MOV DR6, RAX; MOV RAX, DR4
    let (to_dr7, to_dr6, from_dr4) = ([0x0F, 0x23, 0xF8], [0x0F, 0x23, 0xF0], [0x0F, 0x21, 0xE0]);
    set(&mut cpu, RAX, 1 << 32);
    assert_eq!(exec(&mut cpu, &to_dr7), Err(GP));
    assert_eq!(exec(&mut cpu, &to_dr6), Err(GP));
    set(&mut cpu, RAX, 0);
    exec(&mut cpu, &to_dr6).expect("MOV DR6");
    exec(&mut cpu, &from_dr4).expect("DR4 is DR6");
    assert_eq!(rax(&cpu), 0xFFFF_0FF0);
    cpu.cr4 |= cr4::DE;
    assert_eq!(exec(&mut cpu, &from_dr4), Err(Exception::UD));
    set(&mut cpu, RAX, 1 << 13);
    exec(&mut cpu, &to_dr7).expect("GD");
    assert_eq!(exec(&mut cpu, &[0x0F, 0x21, 0xC0]), Err(Exception::Debug(1 << 13)));
    cpu.set_cpl(3);
    assert_eq!(exec(&mut cpu, &[0x0F, 0x21, 0xC0]), Err(GP));
}

#[test]
fn sti_opens_a_one_instruction_shadow_only_when_it_changes_if() {
    let mut cpu = long_mode();
    exec(&mut cpu, &[0xFB]).expect("STI");
    assert!(cpu.interrupt_shadow);
    cpu.interrupt_shadow = false;
    exec(&mut cpu, &[0xFB]).expect("STI");
    assert!(!cpu.interrupt_shadow);
    cpu.set_cpl(3);
    assert_eq!(exec(&mut cpu, &[0xFA]), Err(GP));
    cpu.rflags_system |= flags::IOPL;
    assert_eq!(exec(&mut cpu, &[0xFA]), Ok(1));
    assert_eq!(cpu.rflags_system & flags::IF, 0);
}

#[test]
fn lahf_and_sahf_move_the_low_status_flags() {
    let mut cpu = long_mode();
    cpu.lazy.set(flags::ARITH);
    exec(&mut cpu, &[0x9F]).expect("LAHF");
    assert_eq!(rax(&cpu) >> 8 & 0xFF, 0xD7);
    set(&mut cpu, RAX, 0);
    exec(&mut cpu, &[0x9E]).expect("SAHF");
    assert_eq!(cpu.lazy.get(), flags::OF);
}

#[test]
fn stac_and_clac_are_undefined_outside_cpl_0() {
    let mut cpu = long_mode();
    exec(&mut cpu, &[0x0F, 0x01, 0xCB]).expect("STAC");
    assert_ne!(cpu.rflags() & flags::AC, 0);
    cpu.set_cpl(3);
    assert_eq!(exec(&mut cpu, &[0x0F, 0x01, 0xCA]), Err(Exception::UD));
}

#[test]
fn privileged_instructions_fault_outside_cpl_0() {
    let mut cpu = long_mode();
    cpu.set_cpl(3);
    for bytes in [&[0xF4][..], &[0x0F, 0x09], &[0x0F, 0x08], &[0x0F, 0x06], &[0x0F, 0x01, 0x38], &[0x0F, 0x33]] {
        assert_eq!(exec(&mut cpu, bytes), Err(GP), "{bytes:02X?}");
    }
    cpu.cr4 |= cr4::TSD;
    assert_eq!(exec(&mut cpu, &[0x0F, 0x31]), Err(GP), "RDTSC");
    assert_eq!(exec(&mut cpu, &[0x0F, 0x01, 0xF9]), Err(GP), "RDTSCP");
}

#[test]
fn invpcid_checks_type_and_descriptor() {
    let mut cpu = long_mode();
    // INVPCID RAX, [RBX]
    let invpcid = [0x66, 0x0F, 0x38, 0x82, 0x03];
    set(&mut cpu, RBX, DATA);
    let mut with = |kind: u64, low: u64, linear: u64, pcide: bool| {
        cpu.cr4 = cpu.cr4 & !cr4::PCIDE | if pcide { cr4::PCIDE } else { 0 };
        cpu.write_u64(DATA, low).expect("mapped");
        cpu.write_u64(DATA + 8, linear).expect("mapped");
        set(&mut cpu, RAX, kind);
        exec(&mut cpu, &invpcid)
    };
    assert_eq!(with(0, 5, 0x1000, true), Ok(5));
    assert_eq!(with(0, 5, 0x1000, false), Err(GP));
    assert_eq!(with(0, 0, 1 << 47, true), Err(GP));
    assert_eq!(with(1, 0x1000, 0, true), Err(GP));
    assert_eq!(with(2, 0, 1 << 47, false), Ok(5));
    assert_eq!(with(3, 7, 0, false), Ok(5));
    assert_eq!(with(4, 0, 0, true), Err(GP));
}

#[test]
fn cache_line_instructions_translate_like_loads() {
    let mut cpu = long_mode();
    for bytes in [&[0x0F, 0xAE, 0x3B][..], &[0x66, 0x0F, 0xAE, 0x3B], &[0x66, 0x0F, 0xAE, 0x33]] {
        set(&mut cpu, RBX, DATA);
        assert_eq!(exec(&mut cpu, bytes), Ok(bytes.len() as u64));
        set(&mut cpu, RBX, UNMAPPED);
        assert_eq!(exec(&mut cpu, bytes), Err(Exception::PageFault { address: UNMAPPED, code: 0 }));
    }
}

#[test]
fn rdrand_reports_success_in_cf_alone() {
    let mut cpu = long_mode();
    let mut drawn = std::collections::BTreeSet::new();
    for _ in 0..16 {
        cpu.lazy.set(flags::ARITH);
        exec(&mut cpu, &[0x48, 0x0F, 0xC7, 0xF0]).expect("RDRAND RAX");
        assert_eq!(cpu.lazy.get(), flags::CF);
        drawn.insert(rax(&cpu));
    }
    assert_eq!(drawn.len(), 16);
    set(&mut cpu, RAX, u64::MAX);
    exec(&mut cpu, &[0x0F, 0xC7, 0xF8]).expect("RDSEED EAX");
    assert_eq!(rax(&cpu) >> 32, 0);
}

#[test]
fn ports_need_iopl_or_the_bit_map() {
    let (mut cpu, seen) = board(TmeProfile::Default);
    // OUT 0x80, AL; IN EAX, DX
    set(&mut cpu, RAX, 0x1234_5678);
    exec(&mut cpu, &[0xE6, 0x80]).expect("CPL 0");
    set(&mut cpu, RDX, 0x3F8);
    exec(&mut cpu, &[0xED]).expect("CPL 0");
    assert_eq!(rax(&cpu), 0x3F8 << 16 | 4);
    assert_eq!(seen.0.borrow().port_writes, [(0x80, 1, 0x78)]);

    cpu.set_cpl(3);
    let tss = Segment { selector: 0x40, ar: ar::P | 11, limit: 0x68 + 0x80, base: DATA };
    cpu.write_u16(DATA + 0x66, 0x68).expect("map base");
    cpu.write_u8(DATA + 0x68 + 0x3F8 / 8, 0b0000_1000).expect("map");
    cpu.tr = tss;
    set(&mut cpu, RDX, 0x3F8);
    assert_eq!(exec(&mut cpu, &[0xEC]), Ok(1), "byte port allowed");
    assert_eq!(exec(&mut cpu, &[0xED]), Err(GP), "the fourth port is denied");
    set(&mut cpu, RDX, 0x3FC);
    assert_eq!(exec(&mut cpu, &[0xED]), Ok(1));
    set(&mut cpu, RDX, 0x400);
    assert_eq!(exec(&mut cpu, &[0xEC]), Err(GP), "beyond the limit");
    cpu.rflags_system |= flags::IOPL;
    assert_eq!(exec(&mut cpu, &[0xEC]), Ok(1));
}

#[test]
fn rep_outs_and_ins_count_down() {
    let (mut cpu, seen) = board(TmeProfile::Default);
    cpu.budget = 1000;
    cpu.write_linear(DATA, b"abc").expect("mapped");
    for (register, value) in [(RCX, 3), (RDX, 0xE9), (6, DATA), (7, DATA + 16)] {
        set(&mut cpu, register, value);
    }
    exec(&mut cpu, &[0xF3, 0x6E]).expect("REP OUTSB");
    let written: Vec<u32> = seen.0.borrow().port_writes.iter().map(|w| w.2).collect();
    assert_eq!(written, [0x61, 0x62, 0x63]);
    assert_eq!((cpu.regs[RCX as usize], cpu.regs[6], cpu.budget), (0, DATA + 3, 998));
    set(&mut cpu, RCX, 2);
    exec(&mut cpu, &[0xF3, 0x6D]).expect("REP INSD");
    assert_eq!(cpu.read_u64(DATA + 16), Ok(0x00E9_0004_00E9_0004));
    set(&mut cpu, 7, UNMAPPED);
    set(&mut cpu, RCX, 2);
    let fault = Exception::PageFault { address: UNMAPPED, code: 2 };
    assert_eq!(exec(&mut cpu, &[0xF3, 0x6D]), Err(fault), "before the port is read");
}

#[test]
fn undefined_and_no_operation_encodings() {
    let mut cpu = long_mode();
    for bytes in [&[0x0F, 0x0B][..], &[0x0F, 0xB9, 0xC0], &[0x0F, 0xAA], &[0x0F, 0x37]] {
        assert_eq!(exec(&mut cpu, bytes), Err(Exception::UD), "{bytes:02X?}");
    }
    for bytes in [&[0x90][..], &[0xF3, 0x90], &[0xF3, 0x0F, 0x1E, 0xFA], &[0x0F, 0x1F, 0x40, 0x00], &[0x0F, 0x18, 0x00]]
    {
        assert_eq!(exec(&mut cpu, bytes), Ok(bytes.len() as u64), "{bytes:02X?}");
    }
}

#[test]
fn real_mode_may_use_system_registers() {
    let mut cpu = long_mode();
    enter_real_mode(&mut cpu);
    set(&mut cpu, RAX, cr0::PE | cr0::ET);
    exec(&mut cpu, &[0x0F, 0x22, 0xC0]).expect("MOV CR0, EAX");
    assert!(cpu.mode.is_protected());
}

#[test]
fn wbnoinvd_writes_every_keyid_back_and_keeps_the_lines() {
    let mut cpu = long_mode();
    assert_ne!(cpu.cpuid(0x8000_0008, 0)[1] & 1 << 9, 0, "CPUID.80000008H:EBX.WBNOINVD");
    cpu.wrmsr(IA32_TME_ACTIVATE, 0x0005_0006_0000_0002).expect("activation");
    cpu.wrmsr(MK_TME_CORE_ACTIVATE, 0).expect("core activation");
    // KeyID 1 has no key of its own, so both aliases are encrypted alike; full PA ascends with the KeyID.
    let alias = |cpu: &Cpu, keyid| cpu.mem.layout().join(mem::PhysAddr(DATA), mem::KeyId(keyid));
    let both = [0, 1].map(|keyid| alias(&cpu, keyid));
    for (at, byte) in both.into_iter().zip([0xA0, 0xA1]) {
        cpu.mem.write(at, MemType::Wb, false, &[byte; 64]);
    }
    cpu.set_cpl(3);
    assert_eq!(exec(&mut cpu, &[0xF3, 0x0F, 0x09]), Err(GP));
    assert!(both.iter().all(|at| cpu.mem.line_dirty(*at)), "a fault writes nothing back");
    cpu.set_cpl(0);
    assert_eq!(exec(&mut cpu, &[0xF3, 0x0F, 0x09]), Ok(3));
    assert!(both.iter().all(|at| cpu.mem.line_resident(*at) && !cpu.mem.line_dirty(*at)));
    // WBINVD, the same opcode without F3, drops them; DRAM has what was written last.
    assert_eq!(exec(&mut cpu, &[0x0F, 0x09]), Ok(2));
    assert!(both.iter().all(|at| !cpu.mem.line_resident(*at)));
    let mut line = [0; 64];
    cpu.mem.read(both[0], MemType::Wb, false, &mut line);
    assert_eq!(line, [0xA1; 64]);
}

#[test]
fn core_override_is_one_processors_view_of_982h_and_the_package_keeps_its_own() {
    const PACKAGE: u64 = 0x0005_0006_0000_0002;
    const SEEN: u64 = 0x0005_0004_0000_0003;
    let mut cpu = long_mode();
    cpu.model.core_override = Some(SEEN);
    assert_eq!((cpu.rdmsr(IA32_TME_ACTIVATE), cpu.rdmsr(IA32_TME_EXCLUDE_MASK)), (Ok(SEEN), Ok(0)));
    cpu.wrmsr(IA32_TME_ACTIVATE, PACKAGE).expect("the package is not locked");
    assert_eq!((cpu.rdmsr(IA32_TME_ACTIVATE), cpu.mem.tme().activate()), (Ok(SEEN), PACKAGE | 1));
    cpu.wrmsr(MK_TME_CORE_ACTIVATE, 0).expect("core activation");
    assert_eq!((cpu.rdmsr(MK_TME_CORE_ACTIVATE), cpu.mem.layout().keyid_bits), (Ok(4 << 32), 6));
    // A view that is not locked and enabled leaves the core without KeyID bits.
    cpu.model.core_override = Some(SEEN & !1);
    cpu.wrmsr(MK_TME_CORE_ACTIVATE, 0).expect("core activation");
    assert_eq!(cpu.rdmsr(MK_TME_CORE_ACTIVATE), Ok(0));
    // No TME, no register to have a view of.
    let mut none = cpu_of(TmeProfile::None);
    none.model.core_override = Some(SEEN);
    assert_eq!(none.rdmsr(IA32_TME_ACTIVATE), Err(GP));
}

#[test]
fn every_system_instruction_of_the_family_has_semantics() {
    for code in [Code::Wbinvd, Code::Wbnoinvd, Code::Invd, Code::Hlt, Code::Rdpmc, Code::Rdpid_r64, Code::Pconfig] {
        assert!(instructions::lookup(code).is_some(), "{code:?}");
    }
}
