//! General-purpose instructions that have no hot handler.

mod common;

use common::{DATA, LAST_MAPPED, UNMAPPED, enter_32bit, enter_real_mode, exec, long_mode, rax, set};
use cpu::Cpu;
use cpu::run::Stop;
use cpu::state::slot::{RAX, RBX, RCX, RDI, RDX, RSI};
use x86::{Exception, flags};

const GP: Exception = Exception::GP0;

fn get(cpu: &Cpu, register: u8) -> u64 {
    cpu.regs[register as usize]
}

#[test]
fn division_faults_on_zero_and_on_overflow_and_changes_nothing() {
    let mut cpu = long_mode();
    // DIV RBX, IDIV RBX, DIV BL, IDIV BL
    let (div64, idiv64, div8, idiv8) = ([0x48, 0xF7, 0xF3], [0x48, 0xF7, 0xFB], [0xF6, 0xF3], [0xF6, 0xFB]);
    for (rdx, rax_in, rbx, insn) in [
        (0, 1, 0, &div64[..]),
        (5, 0, 5, &div64),
        (i64::MIN as u64, 0, u64::MAX, &idiv64),
        (u64::MAX, i64::MIN as u64, u64::MAX, &idiv64),
        (0, 0x0100, 1, &div8),
        (0, 0x0080, 1, &idiv8),
        (0, 0x8000, 0xFF, &idiv8),
    ] {
        set(&mut cpu, RDX, rdx);
        set(&mut cpu, RAX, rax_in);
        set(&mut cpu, RBX, rbx);
        assert_eq!(exec(&mut cpu, insn), Err(Exception::DivideError), "{rdx:#x}:{rax_in:#x} / {rbx:#x}");
        assert_eq!((get(&cpu, RDX), rax(&cpu)), (rdx, rax_in));
    }
}

#[test]
fn division_truncates_toward_zero_and_the_remainder_has_the_dividends_sign() {
    let mut cpu = long_mode();
    set(&mut cpu, RDX, u64::MAX);
    set(&mut cpu, RAX, -7i64 as u64);
    set(&mut cpu, RBX, 2);
    exec(&mut cpu, &[0x48, 0xF7, 0xFB]).expect("IDIV RBX");
    assert_eq!((rax(&cpu) as i64, get(&cpu, RDX) as i64), (-3, -1));
    set(&mut cpu, RAX, 0xFFF9);
    exec(&mut cpu, &[0xF6, 0xFB]).expect("IDIV BL");
    assert_eq!(rax(&cpu), 0xFFFD);
    set(&mut cpu, RDX, 1);
    set(&mut cpu, RAX, 0);
    set(&mut cpu, RBX, 16);
    exec(&mut cpu, &[0x48, 0xF7, 0xF3]).expect("DIV RBX");
    assert_eq!((rax(&cpu), get(&cpu, RDX)), (1 << 60, 0));
}

#[test]
fn bit_strings_at_32_bit_addresses_reach_both_sides_of_their_address() {
    let mut cpu = long_mode();
    set(&mut cpu, RBX, 0xFFFF_FFFF_0000_0000 | (DATA + 0x100));
    // BTS [EBX], RAX and BT [EBX], EAX
    for (offset, byte) in [(-1i64, 0xFFu64), (-65, 0xF7), (0, 0x100), (1000, 0x100 + 125)] {
        set(&mut cpu, RAX, offset as u64);
        exec(&mut cpu, &[0x67, 0x48, 0x0F, 0xAB, 0x03]).expect("BTS");
        assert!(!cpu.lazy.cf());
        assert_eq!(cpu.read_u8(DATA + byte), Ok(1 << (offset & 7)));
        exec(&mut cpu, &[0x67, 0x0F, 0xA3, 0x03]).expect("BT");
        assert!(cpu.lazy.cf());
    }
}

#[test]
fn read_modify_write_faults_as_a_write() {
    let mut cpu = long_mode();
    set(&mut cpu, RBX, UNMAPPED);
    // XADD, XCHG, CMPXCHG [RBX], RAX; LOCK CMPXCHG8B [RBX]
    for bytes in
        [&[0x48, 0x0F, 0xC1, 0x03][..], &[0x48, 0x87, 0x03], &[0x48, 0x0F, 0xB1, 0x03], &[0xF0, 0x0F, 0xC7, 0x0B]]
    {
        assert_eq!(exec(&mut cpu, bytes), Err(Exception::PageFault { address: UNMAPPED, code: 2 }), "{bytes:02X?}");
    }
}

#[test]
fn compare_and_exchange() {
    let mut cpu = long_mode();
    set(&mut cpu, RBX, DATA);
    cpu.write_u32(DATA, 7).expect("mapped");
    set(&mut cpu, RAX, 0xFFFF_FFFF_0000_0007);
    set(&mut cpu, RCX, 9);
    let cmpxchg = [0xF0, 0x0F, 0xB1, 0x0B];
    exec(&mut cpu, &cmpxchg).expect("LOCK CMPXCHG [RBX], ECX");
    assert_eq!((cpu.read_u32(DATA), cpu.lazy.zf(), rax(&cpu)), (Ok(9), true, 0xFFFF_FFFF_0000_0007));
    exec(&mut cpu, &cmpxchg).expect("LOCK CMPXCHG [RBX], ECX");
    assert_eq!((cpu.read_u32(DATA), cpu.lazy.zf(), rax(&cpu)), (Ok(9), false, 9));

    let cmpxchg16b = [0x48, 0x0F, 0xC7, 0x0B];
    set(&mut cpu, RBX, DATA + 8);
    assert_eq!(exec(&mut cpu, &cmpxchg16b), Err(GP), "16-byte alignment");
    set(&mut cpu, RBX, DATA);
    cpu.write_u128(DATA, 3 << 64 | 4).expect("mapped");
    set(&mut cpu, RDX, 3);
    set(&mut cpu, RAX, 4);
    set(&mut cpu, RCX, 5);
    cpu.lazy.set(flags::CF | flags::OF);
    exec(&mut cpu, &cmpxchg16b).expect("equal");
    assert_eq!(cpu.read_u128(DATA), Ok(5 << 64 | u128::from(DATA)));
    assert_eq!(cpu.lazy.get(), flags::CF | flags::OF | flags::ZF, "only ZF changes");
    exec(&mut cpu, &cmpxchg16b).expect("different");
    assert_eq!((get(&cpu, RDX), rax(&cpu), cpu.lazy.zf()), (5, DATA, false));
}

#[test]
fn xadd_movbe_xlat_and_direct_offsets() {
    let mut cpu = long_mode();
    set(&mut cpu, RAX, 0x8000_0001);
    exec(&mut cpu, &[0x0F, 0xC1, 0xC0]).expect("XADD EAX, EAX");
    assert_eq!((rax(&cpu), cpu.lazy.cf(), cpu.lazy.of()), (2, true, true));
    cpu.write_u64(DATA, 0x0102_0304_0506_0708).expect("mapped");
    set(&mut cpu, RBX, DATA);
    exec(&mut cpu, &[0x48, 0x0F, 0x38, 0xF0, 0x03]).expect("MOVBE RAX, [RBX]");
    assert_eq!(rax(&cpu), 0x0807_0605_0403_0201);
    exec(&mut cpu, &[0x66, 0x0F, 0x38, 0xF1, 0x03]).expect("MOVBE [RBX], AX");
    assert_eq!(cpu.read_u16(DATA), Ok(0x0102));
    set(&mut cpu, RAX, 7);
    exec(&mut cpu, &[0xD7]).expect("XLAT");
    assert_eq!(rax(&cpu), 1);
    let mut mov = vec![0x48, 0xA1];
    mov.extend(DATA.to_le_bytes());
    exec(&mut cpu, &mov).expect("MOV RAX, moffs64");
    assert_eq!(rax(&cpu), cpu.read_u64(DATA).expect("mapped"));
}

#[test]
fn bmi_is_undefined_in_real_mode_and_works_in_protected_mode() {
    let mut cpu = long_mode();
    set(&mut cpu, RBX, 0xFF00);
    set(&mut cpu, RCX, 0x0FF0);
    let andn = [0xC4, 0xE2, 0x60, 0xF2, 0xC1];
    exec(&mut cpu, &andn).expect("ANDN EAX, EBX, ECX");
    assert_eq!(rax(&cpu), 0x00F0);
    set(&mut cpu, RCX, 0x0804);
    exec(&mut cpu, &[0xC4, 0xE2, 0x70, 0xF7, 0xC3]).expect("BEXTR EAX, EBX, ECX");
    assert_eq!(rax(&cpu), 0xF0);
    set(&mut cpu, RDX, u64::MAX);
    exec(&mut cpu, &[0xC4, 0xE2, 0xFB, 0xF6, 0xC3]).expect("MULX RAX, RAX, RBX");
    assert_eq!(rax(&cpu), 0xFEFF);
    enter_real_mode(&mut cpu);
    assert_eq!(exec(&mut cpu, &andn), Err(Exception::UD));
}

#[test]
fn decimal_adjustment() {
    let mut cpu = long_mode();
    enter_32bit(&mut cpu);
    for (insn, ax, flags_in, expected, carries) in [
        (&[0x27][..], 0xAEu64, 0, 0x14u64, flags::CF | flags::AF),
        (&[0x27], 0x9A, 0, 0x00, flags::CF | flags::AF),
        (&[0x2F], 0xEE, flags::CF | flags::AF, 0x88, flags::CF | flags::AF),
        (&[0x37], 0x000A, 0, 0x0100, flags::CF | flags::AF),
        (&[0x3F], 0x0200 | 0x0F, flags::AF, 0x0109, flags::CF | flags::AF),
        (&[0xD4, 10], 0x004B, 0, 0x0705, 0),
        (&[0xD5, 10], 0x0705, 0, 0x004B, 0),
    ] {
        set(&mut cpu, RAX, ax);
        cpu.lazy.set(flags_in);
        exec(&mut cpu, insn).expect("adjustment");
        assert_eq!((rax(&cpu), cpu.lazy.get() & (flags::CF | flags::AF)), (expected, carries), "{insn:02X?} {ax:#x}");
    }
    assert_eq!(exec(&mut cpu, &[0xD4, 0]), Err(Exception::DivideError));
}

#[test]
fn bound_is_signed_and_inclusive() {
    let mut cpu = long_mode();
    enter_32bit(&mut cpu);
    cpu.write_u64(DATA, 10 << 32 | u64::from(-5i32 as u32)).expect("mapped");
    set(&mut cpu, RBX, DATA);
    for (index, inside) in [(-5i32, true), (10, true), (-6, false), (11, false)] {
        set(&mut cpu, RAX, u64::from(index as u32));
        let expected = if inside { Ok(2) } else { Err(Exception::BoundRange) };
        assert_eq!(exec(&mut cpu, &[0x62, 0x03]), expected, "{index}");
    }
}

fn string_registers(cpu: &mut Cpu, count: u64, source: u64, destination: u64) {
    set(cpu, RCX, count);
    set(cpu, RSI, source);
    set(cpu, RDI, destination);
}

const REP_MOVSB: [u8; 2] = [0xF3, 0xA4];

#[test]
fn rep_movs_gives_control_back_after_its_quantum_and_resumes() {
    let mut cpu = long_mode();
    let text: Vec<u8> = (0..10_000u32).map(|i| (i * 7) as u8).collect();
    cpu.write_linear(DATA, &text).expect("mapped");
    string_registers(&mut cpu, 10_000, DATA, DATA + 0x8000);
    cpu.budget = 1_000_000;
    let mut calls = 0;
    while exec(&mut cpu, &REP_MOVSB).expect("mapped") == 0 {
        calls += 1;
        assert!(calls < 100);
    }
    let mut copy = vec![0; 10_000];
    cpu.read_linear(DATA + 0x8000, &mut copy).expect("mapped");
    assert!(copy == text);
    assert_eq!((get(&cpu, RCX), get(&cpu, RSI), get(&cpu, RDI)), (0, DATA + 10_000, DATA + 0x8000 + 10_000));
    // The run loop counts each call as one instruction.
    assert_eq!(cpu.budget - calls - 1, 1_000_000 - 10_000);
}

#[test]
fn the_run_loop_counts_iterations_and_stops_at_the_count_asked_for() {
    let mut cpu = long_mode();
    // REP MOVSB; NOP; HLT
    cpu.write_linear(DATA, &[0xF3, 0xA4, 0x90, 0xF4]).expect("mapped");
    string_registers(&mut cpu, 10_000, DATA + 0x1000, DATA + 0x8000);
    cpu.set_rip(DATA);
    let start = cpu.icount();
    for ask in [1, 2, 77, 4096, 5000, 9_999] {
        assert_eq!(cpu.run(start + ask), Stop::Icount);
        assert_eq!((cpu.icount() - start, 10_000 - get(&cpu, RCX), cpu.rip()), (ask, ask, DATA));
    }
    assert_eq!(cpu.run(u64::MAX), Stop::HaltedDisabled);
    assert_eq!((cpu.icount() - start, get(&cpu, RCX)), (10_002, 0));
}

#[test]
fn rep_stops_at_the_budget_and_single_steps_under_tf() {
    let mut cpu = long_mode();
    string_registers(&mut cpu, 100, DATA, DATA + 0x1000);
    cpu.budget = 30;
    assert_eq!(exec(&mut cpu, &REP_MOVSB), Ok(0));
    assert_eq!((get(&cpu, RCX), cpu.budget), (70, 1));
    cpu.rflags_system |= flags::TF;
    cpu.budget = 1000;
    assert_eq!(exec(&mut cpu, &REP_MOVSB), Ok(0));
    assert_eq!(get(&cpu, RCX), 69);
}

#[test]
fn a_fault_leaves_the_iterations_before_it() {
    let mut cpu = long_mode();
    cpu.budget = 1_000_000;
    string_registers(&mut cpu, 100, DATA, UNMAPPED - 24);
    let fault = Exception::PageFault { address: UNMAPPED, code: 2 };
    assert_eq!(exec(&mut cpu, &[0xF3, 0x48, 0xA5]), Err(fault));
    assert_eq!((get(&cpu, RCX), get(&cpu, RSI), get(&cpu, RDI)), (97, DATA + 24, UNMAPPED));
    assert_eq!(cpu.budget, 1_000_000 - 3);
    // An element across the border is not stored in part.
    cpu.write_u32(UNMAPPED - 4, 0x5555_5555).expect("mapped");
    string_registers(&mut cpu, 1, DATA, UNMAPPED - 4);
    assert_eq!(exec(&mut cpu, &[0xF3, 0x48, 0xA5]), Err(fault));
    assert_eq!((cpu.read_u32(UNMAPPED - 4), get(&cpu, RCX)), (Ok(0x5555_5555), 1));
}

#[test]
fn overlapping_moves_repeat_a_pattern_or_slide_with_df() {
    let mut cpu = long_mode();
    cpu.budget = 1_000_000;
    cpu.write_linear(DATA, b"abcdefgh").expect("mapped");
    string_registers(&mut cpu, 6, DATA, DATA + 2);
    exec(&mut cpu, &REP_MOVSB).expect("mapped");
    let mut b = [0; 8];
    cpu.read_linear(DATA, &mut b).expect("mapped");
    assert_eq!(&b, b"abababab");
    cpu.write_linear(DATA, b"abcdefgh").expect("mapped");
    cpu.rflags_system |= flags::DF;
    string_registers(&mut cpu, 6, DATA + 5, DATA + 7);
    exec(&mut cpu, &REP_MOVSB).expect("mapped");
    cpu.read_linear(DATA, &mut b).expect("mapped");
    assert_eq!(&b, b"ababcdef");
    assert_eq!(get(&cpu, RSI), DATA - 1);
}

#[test]
fn comparisons_stop_where_they_should() {
    let mut cpu = long_mode();
    cpu.budget = 1_000_000;
    cpu.write_linear(DATA, b"same until Here").expect("mapped");
    cpu.write_linear(DATA + 64, b"same until here").expect("mapped");
    string_registers(&mut cpu, 15, DATA, DATA + 64);
    exec(&mut cpu, &[0xF3, 0xA6]).expect("REPE CMPSB");
    assert_eq!((get(&cpu, RCX), cpu.lazy.cf(), cpu.lazy.zf()), (3, true, false));
    string_registers(&mut cpu, u64::MAX, 0, DATA);
    set(&mut cpu, RAX, 0);
    exec(&mut cpu, &[0xF2, 0xAE]).expect("REPNE SCASB");
    assert_eq!((get(&cpu, RDI), cpu.lazy.zf()), (DATA + 16, true));
    // A count of zero changes nothing, the flags included.
    string_registers(&mut cpu, 0, DATA, DATA);
    cpu.lazy.set(flags::CF);
    exec(&mut cpu, &[0xF3, 0xA6]).expect("REPE CMPSB");
    assert_eq!((get(&cpu, RSI), cpu.lazy.get()), (DATA, flags::CF));
}

#[test]
fn a_fault_in_scas_keeps_the_flags_of_the_last_iteration() {
    let mut cpu = long_mode();
    cpu.budget = 1_000_000;
    string_registers(&mut cpu, 100, 0, UNMAPPED - 8);
    set(&mut cpu, RAX, 0xFF);
    cpu.lazy.set(flags::ARITH);
    assert_eq!(exec(&mut cpu, &[0xF2, 0xAE]), Err(Exception::PageFault { address: UNMAPPED, code: 0 }));
    assert_eq!((get(&cpu, RDI), get(&cpu, RCX), cpu.lazy.get()), (UNMAPPED, 92, flags::SF | flags::PF));
}

#[test]
fn address_sizes_decide_which_parts_of_the_registers_move() {
    let mut cpu = long_mode();
    cpu.budget = 1_000_000;
    // REP STOSD with 32-bit addresses: the upper halves are cleared.
    string_registers(&mut cpu, 0xFFFF_FFFF_0000_0002, 0, 0xFFFF_FFFF_0000_0000 | DATA);
    set(&mut cpu, RAX, 0x0101_0101);
    exec(&mut cpu, &[0x67, 0xF3, 0xAB]).expect("mapped");
    assert_eq!((get(&cpu, RCX), get(&cpu, RDI)), (0, DATA + 8));
    // Real mode: 16-bit registers wrap, and an element across 64 KiB faults.
    enter_real_mode(&mut cpu);
    string_registers(&mut cpu, 0xABCD_0003, 0x1234_FFFF, 0x5678_8000);
    exec(&mut cpu, &REP_MOVSB).expect("wraps");
    assert_eq!((get(&cpu, RCX), get(&cpu, RSI), get(&cpu, RDI)), (0xABCD_0000, 0x1234_0002, 0x5678_8003));
    string_registers(&mut cpu, 1, 0xFFFF, 0x8000);
    assert_eq!(exec(&mut cpu, &[0xF3, 0xA5]), Err(GP));
}

#[test]
fn source_segment_overrides_apply_to_the_source_only() {
    let mut cpu = long_mode();
    cpu.write_u8(LAST_MAPPED, 0x77).expect("mapped");
    cpu.set_segment_base(x86::segment::sreg::FS, LAST_MAPPED);
    string_registers(&mut cpu, 0, 0, DATA);
    exec(&mut cpu, &[0x64, 0xA4]).expect("MOVSB from FS");
    assert_eq!(cpu.read_u8(DATA), Ok(0x77));
}
