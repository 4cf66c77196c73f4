//! PCONFIG (MK specification section 10.5).

mod common;

use common::{DATA, LAST_MAPPED, UNMAPPED, board, board_with, enter_32bit, enter_real_mode, exec, long_mode, rax, set};
use cpu::Cpu;
use cpu::state::slot::{RAX, RBX, RCX, RDX};
use iced_x86::{Code, Decoder, DecoderOptions};
use mem::{BusAddr, Config, TmeProfile};
use x86::segment::sreg;
use x86::{Exception, flags, msr};

const PCONFIG: [u8; 3] = [0x0F, 0x01, 0xC5];
/// k = 6, XTS-128 and XTS-256.
const ACTIVATE: u64 = 0x0005_0006_0000_0002;
const DIRECT_XTS128: u32 = 0x100;

fn activate(cpu: &mut Cpu) {
    cpu.wrmsr(msr::IA32_TME_ACTIVATE, ACTIVATE).expect("activation");
    cpu.wrmsr(msr::MK_TME_CORE_ACTIVATE, 0).expect("core activation");
}

/// An activated processor whose page tables were encrypted along with everything else.
fn activated() -> Box<Cpu> {
    let mut cpu = long_mode();
    // The tables lie in DRAM as plaintext; bypass keeps KeyID 0 readable.
    cpu.wrmsr(msr::IA32_TME_ACTIVATE, ACTIVATE | 1 << 31).expect("activation");
    cpu.wrmsr(msr::MK_TME_CORE_ACTIVATE, 0).expect("core activation");
    cpu
}

fn structure(cpu: &mut Cpu, at: u64, keyid: u16, ctrl: u32, fill: u8) {
    let mut bytes = [fill; 192];
    bytes[..2].copy_from_slice(&keyid.to_le_bytes());
    bytes[2..6].copy_from_slice(&ctrl.to_le_bytes());
    cpu.write_linear(at, &bytes).expect("mapped");
    set(cpu, RBX, at);
    set(cpu, RAX, 0);
}

#[test]
fn mk_069_071_072_needs_cpl_0_and_enumeration() {
    let mut cpu = activated();
    structure(&mut cpu, DATA, 1, DIRECT_XTS128, 0x11);
    cpu.set_cpl(3);
    for leaf in [0, 1, 3, u64::MAX] {
        set(&mut cpu, RAX, leaf);
        assert_eq!(exec(&mut cpu, &PCONFIG), Err(Exception::UD));
    }
    cpu.set_cpl(0);
    cpu.rflags_system |= flags::VM;
    assert_eq!(exec(&mut cpu, &PCONFIG), Err(Exception::UD));
    let (mut cpu, _) = board(TmeProfile::TmeOnly);
    assert_eq!(exec(&mut cpu, &PCONFIG), Err(Exception::UD));
}

#[test]
fn mk_070_prefixes_make_it_undefined_or_are_ignored() {
    for prefix in [0xF0, 0x66, 0xF2, 0xF3] {
        let bytes = [prefix, 0x0F, 0x01, 0xC5];
        let insn = Decoder::new(64, &bytes, DecoderOptions::NONE).decode();
        assert_ne!(insn.code(), Code::Pconfig, "{prefix:02X}");
    }
    for prefix in [0x2E, 0x64, 0x67, 0x48] {
        let bytes = [prefix, 0x0F, 0x01, 0xC5];
        let insn = Decoder::new(64, &bytes, DecoderOptions::NONE).decode();
        assert_eq!(insn.code(), Code::Pconfig, "{prefix:02X}");
    }
}

#[test]
fn mk_073_074_075_leaves() {
    let mut cpu = activated();
    structure(&mut cpu, DATA, 1, DIRECT_XTS128, 0x11);
    for leaf in [1, 2, 3, 0x8000_0000, 0xFFFF_FFFF] {
        set(&mut cpu, RAX, leaf);
        assert_eq!(exec(&mut cpu, &PCONFIG), Err(Exception::GP0));
    }
    set(&mut cpu, RAX, 0xFFFF_FFFF_0000_0000);
    assert_eq!(exec(&mut cpu, &PCONFIG), Ok(3));
    assert_eq!(rax(&cpu), 0);
}

#[test]
fn mk_076_inactive_states_are_refused_before_memory_is_touched() {
    for value in [None, Some(0), Some(2 | 1 << 31)] {
        let mut cpu = long_mode();
        if let Some(value) = value {
            cpu.wrmsr(msr::IA32_TME_ACTIVATE, value).expect("accepted");
        }
        set(&mut cpu, RAX, 0);
        set(&mut cpu, RBX, UNMAPPED);
        assert_eq!(exec(&mut cpu, &PCONFIG), Err(Exception::GP0));
    }
}

#[test]
fn mk_077_078_079_080_addresses() {
    let mut cpu = activated();
    set(&mut cpu, RAX, 0);
    for (rbx, fault) in [
        (UNMAPPED + 1, Exception::GP0),
        (1 << 47, Exception::GP0),
        (UNMAPPED, Exception::PageFault { address: UNMAPPED, code: 0 }),
    ] {
        set(&mut cpu, RBX, rbx);
        assert_eq!(exec(&mut cpu, &PCONFIG), Err(fault), "{rbx:#x}");
    }
    structure(&mut cpu, LAST_MAPPED + 0xF00, 1, DIRECT_XTS128, 0x11);
    assert_eq!(exec(&mut cpu, &PCONFIG), Ok(3));
}

#[test]
fn mk_081_082_084_bad_fields_are_refused_and_mk_098_change_nothing() {
    let mut cpu = activated();
    for (keyid, ctrl) in
        [(1, 1 << 24 | 0x100), (1, 0x104), (0, 0x100), (64, 0x100), (0xFFFF, 0x100), (1, 0), (1, 0x500)]
    {
        structure(&mut cpu, DATA, keyid, ctrl, 0x11);
        cpu.lazy.set(flags::ARITH);
        assert_eq!(exec(&mut cpu, &PCONFIG), Err(Exception::GP0), "{keyid} {ctrl:#x}");
        assert_eq!((rax(&cpu), cpu.lazy.get()), (0, flags::ARITH));
    }
}

#[test]
fn mk_082_084_with_the_legacy_knob_codes_are_returned() {
    let mut cpu = activated();
    cpu.model.pconfig_legacy_codes = true;
    for (keyid, ctrl, code) in [(1, 0x104, 1), (64, 0x100, 3), (1, 0x500, 4)] {
        structure(&mut cpu, DATA, keyid, ctrl, 0x11);
        assert_eq!(exec(&mut cpu, &PCONFIG), Ok(3));
        assert_eq!((rax(&cpu), cpu.lazy.get()), (code, flags::ZF));
    }
    structure(&mut cpu, DATA, 1, 1 << 24 | 0x100, 0x11);
    assert_eq!(exec(&mut cpu, &PCONFIG), Err(Exception::GP0));
}

#[test]
fn mk_083_tdx_private_keyids_are_refused() {
    let config = Config { ram_bytes: 4 << 20, tdx_partition: true, ..Config::default() };
    let (mut cpu, _) = board_with(config);
    cpu.wrmsr(msr::IA32_TME_ACTIVATE, ACTIVATE | 2 << 36 | 1 << 31).expect("activation");
    structure(&mut cpu, DATA, 15, DIRECT_XTS128, 0x11);
    assert_eq!(exec(&mut cpu, &PCONFIG), Ok(3));
    structure(&mut cpu, DATA, 16, DIRECT_XTS128, 0x11);
    assert_eq!(exec(&mut cpu, &PCONFIG), Err(Exception::GP0));
}

#[test]
fn mk_086_success_clears_the_six_flags_and_keeps_the_others() {
    let mut cpu = activated();
    structure(&mut cpu, DATA, 1, DIRECT_XTS128, 0x11);
    cpu.set_rflags(0xED7);
    assert_eq!(exec(&mut cpu, &PCONFIG), Ok(3));
    assert_eq!((rax(&cpu), cpu.rflags()), (0, 0x602));
}

#[test]
fn mk_097_inputs_are_kept() {
    let mut cpu = activated();
    structure(&mut cpu, DATA, 1, DIRECT_XTS128, 0x11);
    set(&mut cpu, RCX, 0x1234);
    set(&mut cpu, RDX, 0x5678);
    exec(&mut cpu, &PCONFIG).expect("success");
    assert_eq!([RBX, RCX, RDX].map(|r| cpu.regs[r as usize]), [DATA, 0x1234, 0x5678]);
}

#[test]
fn mk_087_set_key_direct_decides_what_dram_holds() {
    let mut cpu = activated();
    let layout = cpu.mem.layout();
    let bus = layout.join(mem::PhysAddr(0x20_0000), mem::KeyId(1));
    let mut cells = Vec::new();
    for fill in [0x11, 0x22, 0x11] {
        structure(&mut cpu, DATA, 1, DIRECT_XTS128, fill);
        exec(&mut cpu, &PCONFIG).expect("success");
        cpu.mem.write(bus, mem::MemType::Uc, false, &[0xA5; 64]);
        cells.push(cpu.mem.dram_read_raw(mem::PhysAddr(0x20_0000).line()).0);
    }
    assert_eq!(cells[0], cells[2]);
    assert_ne!(cells[0], cells[1]);
    assert_ne!(cells[0], [0xA5; 64]);
}

#[test]
fn mk_099_works_in_real_mode() {
    let mut cpu = activated();
    enter_real_mode(&mut cpu);
    structure(&mut cpu, 0x8000, 1, DIRECT_XTS128, 0x11);
    assert_eq!(exec(&mut cpu, &PCONFIG), Ok(3));
    for rbx in [0x8001, 0xFF80, 0x1_0000] {
        set(&mut cpu, RBX, rbx);
        assert_eq!(exec(&mut cpu, &PCONFIG), Err(Exception::GP0), "{rbx:#x}");
    }
}

#[test]
fn mk_100_the_ds_limit_applies_outside_64_bit_mode() {
    let mut cpu = activated();
    structure(&mut cpu, DATA, 1, DIRECT_XTS128, 0x11);
    enter_32bit(&mut cpu);
    set(&mut cpu, RBX, 0xFFFF_FFFF_0000_0000 | DATA);
    assert_eq!(exec(&mut cpu, &PCONFIG), Ok(3));
    let mut ds = cpu.segments[sreg::DS];
    ds.limit = DATA as u32 + 190;
    cpu.set_segment(sreg::DS, ds);
    assert_eq!(exec(&mut cpu, &PCONFIG), Err(Exception::GP0));
    ds.limit += 1;
    cpu.set_segment(sreg::DS, ds);
    assert_eq!(exec(&mut cpu, &PCONFIG), Ok(3));
}

#[test]
fn mk_105_the_structure_is_read_through_its_pages_key() {
    let mut cpu = activated();
    structure(&mut cpu, DATA, 3, DIRECT_XTS128, 0x33);
    exec(&mut cpu, &PCONFIG).expect("KeyID 3 is keyed");
    // Remap the second 2 MiB's first page to KeyID 3.
    let bus = cpu.mem.layout().join(mem::PhysAddr(0x20_0000), mem::KeyId(3));
    cpu.mem.write(BusAddr(0x4000), mem::MemType::Wb, false, &(bus.0 | 7).to_le_bytes());
    cpu.flush_tlb(true);
    structure(&mut cpu, 0x20_0000, 4, DIRECT_XTS128, 0x44);
    cpu.mem.wbinvd();
    assert_eq!(exec(&mut cpu, &PCONFIG), Ok(3));
}

#[test]
fn activation_without_bypass_succeeds_too() {
    let mut cpu = long_mode();
    activate(&mut cpu);
    assert_eq!(cpu.rdmsr(msr::IA32_TME_ACTIVATE), Ok(ACTIVATE | 1));
}
