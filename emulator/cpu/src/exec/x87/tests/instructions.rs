//! Instructions on a processor: images in memory, faults, pending exceptions, pointers to the last instruction.

use super::processor::{CODE, DATA, execute, long64, protected32, read, real};
use crate::Cpu;
use crate::exec::x87::spec::sw;
use crate::exec::x87::stack::opcode;
use crate::exec::x87::{f80, lookup};
use crate::state::{X87, slot};
use iced_x86::{Code, Decoder, DecoderOptions, MemorySize};
use x86::Exception;
use x86::cr::{cr0, cr4};

const RAX: usize = slot::RAX as usize;
const RCX: usize = slot::RCX as usize;
const RDX: usize = slot::RDX as usize;
const RDI: usize = slot::RDI as usize;

/// FLD1; FLDPI; FCHS
const LOAD_SOME: [&[u8]; 3] = [&[0xD9, 0xE8], &[0xD9, 0xEB], &[0xD9, 0xE0]];
const MINUS_PI: u128 = 0xC000_C90F_DAA2_2168_C235;

const FXSAVE: &[u8] = &[0x0F, 0xAE, 0x07];
const FXSAVE64: &[u8] = &[0x48, 0x0F, 0xAE, 0x07];
const FXRSTOR64: &[u8] = &[0x48, 0x0F, 0xAE, 0x0F];
const XSAVE64: &[u8] = &[0x48, 0x0F, 0xAE, 0x27];
const XRSTOR64: &[u8] = &[0x48, 0x0F, 0xAE, 0x2F];
const XSAVEOPT64: &[u8] = &[0x48, 0x0F, 0xAE, 0x37];
const XSETBV: &[u8] = &[0x0F, 0x01, 0xD1];
const XGETBV: &[u8] = &[0x0F, 0x01, 0xD0];

fn run(cpu: &mut Cpu, program: &[&[u8]]) {
    for bytes in program {
        execute(cpu, bytes).unwrap_or_else(|e| panic!("{bytes:02X?}: {e:?}"));
    }
}

fn with_values(mut cpu: Box<Cpu>) -> Box<Cpu> {
    run(&mut cpu, &LOAD_SOME);
    cpu.x87.fip = 0x1234_5678_9ABC;
    cpu.x87.fdp = 0x0F0E_0D0C_0B0A;
    cpu.x87.fop = 0x5A5;
    cpu
}

fn word(image: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(image[at..at + 4].try_into().expect("4 bytes"))
}

fn contents(x: &X87) -> (u16, u16, u16, u16, u64, u64, [u128; 8]) {
    (x.fcw, x.fsw, x.ftw, x.fop, x.fip, x.fdp, x.regs)
}

#[test]
fn every_decodable_escape_has_semantics() {
    for first in 0xD8..=0xDFu8 {
        for modrm in 0..=0xFF {
            let bytes = [first, modrm, 0, 0, 0, 0, 0];
            for prefix in [None, Some(0x66)] {
                let bytes: Vec<u8> = prefix.into_iter().chain(bytes).collect();
                let code = Decoder::new(64, &bytes, DecoderOptions::NONE).decode().code();
                assert!(code == Code::INVALID || lookup(code).is_some(), "{code:?}");
            }
        }
    }
    for bytes in [FXSAVE, FXSAVE64, FXRSTOR64, XSAVE64, XRSTOR64, XSAVEOPT64, XSETBV, XGETBV, &[0x9B]] {
        assert!(lookup(Decoder::new(64, bytes, DecoderOptions::NONE).decode().code()).is_some());
    }
    assert!(lookup(Code::Xsavec_mem).is_none() && lookup(Code::Xsaves_mem).is_none());
}

#[test]
fn the_opcode_register_is_rebuilt_from_the_decoded_instruction() {
    for bitness in [16, 32, 64] {
        for first in 0xD8..=0xDFu8 {
            for modrm in 0..=0xFFu8 {
                // With SIB [rax + rcx * 2] where there is one, and a displacement that disp8 cannot hold.
                let bytes = [first, modrm, 0x48, 0x12, 0x34, 0x56, 0x78, 0x12];
                let insn = Decoder::new(bitness, &bytes, DecoderOptions::NONE).decode();
                if insn.code() == Code::INVALID {
                    continue;
                }
                let expected = u16::from(first & 7) << 8 | u16::from(modrm);
                assert_eq!(opcode(&insn), expected, "{bitness}: {bytes:02X?} {:?}", insn.code());
            }
        }
    }
}

#[test]
fn environment_in_the_32_bit_protected_format_follows_figure_8_9() {
    for mut cpu in [with_values(protected32()), with_values(long64())] {
        run(&mut cpu, &[&[0xD9, 0x37]]);
        let image: [u8; 28] = read(&mut cpu, DATA);
        let fields: Vec<u32> = (0..7).map(|i| word(&image, 4 * i)).collect();
        let expected = [0xFFFF_037F, 0xFFFF_3000, 0xFFFF_0FFF, 0x5678_9ABC, 0x05A5_0000, 0x0D0C_0B0A, 0xFFFF_0000];
        assert_eq!(fields, expected);
    }
}

#[test]
fn environment_in_the_16_bit_formats_follows_figures_8_11_and_8_12() {
    let mut cpu = with_values(real());
    run(&mut cpu, &[&[0xD9, 0x35]]);
    let image: [u8; 14] = read(&mut cpu, DATA);
    let fields: Vec<u16> = image.chunks(2).map(|b| u16::from_le_bytes([b[0], b[1]])).collect();
    assert_eq!(fields, [0x037F, 0x3000, 0x0FFF, 0x9ABC, 0x85A5, 0x0B0A, 0xC000]);

    let mut cpu = with_values(long64());
    run(&mut cpu, &[&[0x66, 0xD9, 0x37]]);
    let image: [u8; 14] = read(&mut cpu, DATA);
    let fields: Vec<u16> = image.chunks(2).map(|b| u16::from_le_bytes([b[0], b[1]])).collect();
    assert_eq!(fields, [0x037F, 0x3000, 0x0FFF, 0x9ABC, 0, 0x0B0A, 0]);
}

#[test]
fn environment_in_the_32_bit_real_format_follows_figure_8_10() {
    let mut cpu = with_values(real());
    run(&mut cpu, &[&[0x66, 0xD9, 0x35]]);
    let image: [u8; 28] = read(&mut cpu, DATA);
    let fields: Vec<u32> = (0..7).map(|i| word(&image, 4 * i)).collect();
    let expected = [0xFFFF_037F, 0xFFFF_3000, 0xFFFF_0FFF, 0xFFFF_9ABC, 0x0567_85A5, 0xFFFF_0B0A, 0x00D0_C000];
    assert_eq!(fields, expected);
    run(&mut cpu, &[&[0xDB, 0xE3], &[0x66, 0xD9, 0x25]]);
    assert_eq!((cpu.x87.fip, cpu.x87.fdp, cpu.x87.fop), (0x5678_9ABC, 0x0D0C_0B0A, 0x5A5));
}

#[test]
fn fnsave_then_frstor_restores_all_but_the_upper_pointer_halves() {
    for (mut cpu, save, restore) in [
        (with_values(long64()), &[0xDD, 0x37][..], &[0xDD, 0x27][..]),
        (with_values(protected32()), &[0xDD, 0x37], &[0xDD, 0x27]),
        (with_values(real()), &[0x66, 0xDD, 0x35], &[0x66, 0xDD, 0x25]),
    ] {
        cpu.x87.fip &= 0xFFFF_FFFF;
        cpu.x87.fdp &= 0xFFFF_FFFF;
        let before = contents(&cpu.x87);
        run(&mut cpu, &[save]);
        assert_eq!((cpu.x87.fcw, cpu.x87.fsw, cpu.x87.ftw), (0x037F, 0, 0xFFFF));
        run(&mut cpu, &[restore]);
        assert_eq!(contents(&cpu.x87), before);
    }
}

#[test]
fn fxsave64_has_the_layout_of_table_10_2_and_leaves_software_bytes_alone() {
    let mut cpu = with_values(long64());
    cpu.xmm = std::array::from_fn(|i| u128::MAX / (i as u128 + 1));
    cpu.mxcsr = 0x1F81;
    cpu.write_linear(DATA, &[0xA5; 512]).expect("RAM");
    run(&mut cpu, &[FXSAVE64]);
    let image: [u8; 512] = read(&mut cpu, DATA);
    assert_eq!((word(&image, 0), image[4], word(&image, 6) as u16), (0x3000_037F, 0xC0, 0x5A5));
    assert_eq!(image[8..16], 0x1234_5678_9ABCu64.to_le_bytes());
    assert_eq!(image[16..24], 0x0F0E_0D0C_0B0Au64.to_le_bytes());
    assert_eq!((word(&image, 24), word(&image, 28)), (0x1F81, 0xFFFF));
    assert_eq!(image[32..48], MINUS_PI.to_le_bytes());
    assert_eq!(image[160 + 16 * 15..416], cpu.xmm[15].to_le_bytes());
    assert!(image[416..].iter().all(|b| *b == 0xA5));

    let (before, xmm) = (contents(&cpu.x87), cpu.xmm);
    run(&mut cpu, &[&[0xDB, 0xE3]]);
    (cpu.xmm, cpu.mxcsr) = ([0; 16], 0x1F80);
    run(&mut cpu, &[FXRSTOR64]);
    assert_eq!((contents(&cpu.x87), cpu.xmm, cpu.mxcsr), (before, xmm, 0x1F81));
}

#[test]
fn fxsave_without_rex_w_keeps_32_bits_of_the_pointers() {
    let mut cpu = with_values(long64());
    run(&mut cpu, &[FXSAVE]);
    let image: [u8; 32] = read(&mut cpu, DATA);
    assert_eq!([8, 12, 16, 20].map(|at| word(&image, at)), [0x5678_9ABC, 0, 0x0D0C_0B0A, 0]);
}

#[test]
fn fxrstor_faults_change_nothing() {
    let mut cpu = with_values(long64());
    run(&mut cpu, &[FXSAVE64, &[0xDB, 0xE3]]);
    cpu.write_u32(DATA + 24, 0x1_1F80).expect("RAM");
    let before = contents(&cpu.x87);
    assert_eq!(execute(&mut cpu, FXRSTOR64), Err(Exception::GP0));
    cpu.regs[RDI] += 8;
    assert_eq!(execute(&mut cpu, FXRSTOR64), Err(Exception::GP0));
    assert_eq!(execute(&mut cpu, FXSAVE64), Err(Exception::GP0));
    assert_eq!((contents(&cpu.x87), cpu.mxcsr), (before, 0x1F80));
}

#[test]
fn xsave_writes_what_is_requested_and_xrstor_initialises_what_is_absent() {
    let mut cpu = with_values(long64());
    cpu.xmm[3] = 7;
    (cpu.regs[RAX], cpu.regs[RDX]) = (1, 0);
    cpu.write_linear(DATA, &[0xA5; 576]).expect("RAM");
    cpu.write_u64(DATA + 512, 2).expect("RAM");
    run(&mut cpu, &[XSAVE64]);
    let image: [u8; 576] = read(&mut cpu, DATA);
    // SSE was not requested: its bit and its bytes stay, MXCSR's too.
    assert_eq!(image[512..520], 3u64.to_le_bytes());
    assert!(image[24..32].iter().chain(&image[160..512]).chain(&image[520..]).all(|b| *b == 0xA5));

    cpu.regs[RAX] = u64::MAX;
    run(&mut cpu, &[XSAVE64]);
    cpu.write_linear(DATA + 520, &[0; 16]).expect("RAM");
    cpu.write_u64(DATA + 512, 1).expect("RAM");
    let before = contents(&cpu.x87);
    cpu.x87 = X87::default();
    run(&mut cpu, &[XRSTOR64]);
    assert_eq!((contents(&cpu.x87), cpu.xmm), (before, [0; 16]));

    cpu.write_u64(DATA + 512, 0).expect("RAM");
    run(&mut cpu, &[XRSTOR64]);
    assert_eq!(contents(&cpu.x87), contents(&X87::default()));
}

#[test]
fn xsaveopt_does_not_write_components_in_their_initial_configuration() {
    let mut cpu = long64();
    cpu.xmm[9] = 1;
    cpu.regs[RAX] = 3;
    cpu.write_linear(DATA, &[0xA5; 576]).expect("RAM");
    cpu.write_u64(DATA + 512, 0).expect("RAM");
    run(&mut cpu, &[XSAVEOPT64]);
    let image: [u8; 576] = read(&mut cpu, DATA);
    assert_eq!(image[512..520], 2u64.to_le_bytes());
    assert!(image[..24].iter().chain(&image[32..160]).all(|b| *b == 0xA5));
    assert_eq!((word(&image, 24), word(&image, 160), word(&image, 160 + 9 * 16)), (0x1F80, 0, 1));
}

#[test]
fn xrstor_checks_the_header() {
    let mut cpu = long64();
    cpu.regs[RAX] = 3;
    run(&mut cpu, &[XSAVE64]);
    for (at, value) in [(512, 4), (520, 1), (520, 1 << 63), (528, 1)] {
        let old = cpu.read_u64(DATA + at).expect("RAM");
        cpu.write_u64(DATA + at, value).expect("RAM");
        assert_eq!(execute(&mut cpu, XRSTOR64), Err(Exception::GP0));
        cpu.write_u64(DATA + at, old).expect("RAM");
    }
    run(&mut cpu, &[XRSTOR64]);
    cpu.regs[RDI] += 16;
    assert_eq!(execute(&mut cpu, XRSTOR64), Err(Exception::GP0));
    cpu.cr4 &= !cr4::OSXSAVE;
    assert_eq!(execute(&mut cpu, XRSTOR64), Err(Exception::UD));
}

#[test]
fn xcr0_takes_x87_alone_or_with_sse() {
    let mut cpu = long64();
    for (value, valid) in [(0, false), (1, true), (2, false), (3, true), (7, false), (1 << 32 | 3, false)] {
        (cpu.regs[RAX], cpu.regs[RCX], cpu.regs[RDX]) = (value & 0xFFFF_FFFF, 0, value >> 32);
        assert_eq!(execute(&mut cpu, XSETBV).is_ok(), valid, "{value:X}");
    }
    cpu.regs[RDX] = u64::MAX;
    run(&mut cpu, &[XGETBV]);
    assert_eq!((cpu.regs[RAX], cpu.regs[RDX]), (3, 0));
    cpu.regs[RCX] = 1;
    assert_eq!(execute(&mut cpu, XGETBV), Err(Exception::GP0));
    (cpu.regs[RCX], cpu.cpl) = (0, 3);
    assert_eq!(execute(&mut cpu, XSETBV), Err(Exception::GP0));
}

#[test]
fn an_unmasked_exception_is_raised_by_the_next_waiting_instruction() {
    let mut cpu = long64();
    // Everything unmasked: 1 / 0 by FDIV m32.
    cpu.x87.set_control(0x0340);
    run(&mut cpu, &[&[0xD9, 0xE8], &[0xD8, 0x37]]);
    assert_eq!(cpu.x87.fsw & (sw::ZE | sw::ES | sw::B), sw::ZE | sw::ES | sw::B);
    assert_eq!((cpu.x87.fip, cpu.x87.fdp, cpu.x87.fop), (CODE, DATA, 0x037));
    assert_eq!(cpu.x87.st(0), f80::ONE);
    for waiting in [&[0xD9, 0xE8][..], &[0x9B], &[0xD9, 0x2F], &[0xD9, 0xD0], &[0xDD, 0x27]] {
        assert_eq!(execute(&mut cpu, waiting), Err(Exception::X87FloatingPoint));
    }
    // FNSTSW AX, FNSTCW, FXSAVE do not wait; without CR0.NE nothing is raised (FERR# is not wired).
    run(&mut cpu, &[&[0xDF, 0xE0], &[0xD9, 0x3F], FXSAVE64]);
    cpu.cr0 &= !cr0::NE;
    run(&mut cpu, &[&[0x9B]]);
    cpu.cr0 |= cr0::NE;
    run(&mut cpu, &[&[0xDB, 0xE2], &[0x9B]]);
    assert_eq!(cpu.x87.fsw & 0x80FF, 0);
}

#[test]
fn data_pointer_and_opcode_stay_without_an_unmasked_exception() {
    let mut cpu = long64();
    cpu.x87.fdp = 77;
    run(&mut cpu, &[&[0xD9, 0xE8], &[0xD8, 0x37]]);
    assert_eq!((cpu.x87.fip, cpu.x87.fdp, cpu.x87.fop), (CODE, 77, 0));
    assert_eq!(cpu.x87.st(0), f80::INFINITY);
}

#[test]
fn emulation_and_task_switched_make_the_device_not_available() {
    let fld1: &[u8] = &[0xD9, 0xE8];
    let wait: &[u8] = &[0x9B];
    let nm = Err(Exception::DeviceNotAvailable);
    let mut cpu = long64();
    cpu.regs[RAX] = 3;
    for (bits, x87, fwait, fxsave, xsave) in [
        (cr0::EM, nm, Ok(()), nm, Ok(())),
        (cr0::TS, nm, Ok(()), nm, nm),
        (cr0::TS | cr0::MP, nm, nm, nm, nm),
        (cr0::MP, Ok(()), Ok(()), Ok(()), Ok(())),
    ] {
        cpu.cr0 = cpu.cr0 & !(cr0::EM | cr0::TS | cr0::MP) | bits;
        let got = [fld1, wait, FXSAVE64, XSAVE64].map(|bytes| execute(&mut cpu, bytes));
        assert_eq!(got, [x87, fwait, fxsave, xsave], "{bits:X}");
    }
}

#[test]
fn a_store_that_faults_changes_nothing() {
    let mut cpu = with_values(long64());
    cpu.regs[RDI] = 1 << 63;
    let before = contents(&cpu.x87);
    // FSTP m32, FISTP m64, FBSTP, FSTP m80, FNSAVE, FNSTENV, FLD m64, FADD m32
    let instructions: [&[u8]; 8] = [
        &[0xD9, 0x1F],
        &[0xDF, 0x3F],
        &[0xDF, 0x37],
        &[0xDB, 0x3F],
        &[0xDD, 0x37],
        &[0xD9, 0x37],
        &[0xDD, 0x07],
        &[0xD8, 0x07],
    ];
    for bytes in instructions {
        assert_eq!(execute(&mut cpu, bytes), Err(Exception::GP0));
        assert_eq!(contents(&cpu.x87), before);
    }
}

#[test]
fn packed_bcd_survives_a_load_and_a_store() {
    let mut cpu = long64();
    for bcd in [0u128, 1, 0x99_9999_9999_9999_9999, 0x8000_0123_4567_8901_2345, 1 << 79] {
        cpu.write_linear(DATA, &bcd.to_le_bytes()[..10]).expect("RAM");
        run(&mut cpu, &[&[0xDF, 0x27], &[0xDF, 0x37]]);
        let stored: [u8; 10] = read(&mut cpu, DATA);
        assert_eq!(stored, bcd.to_le_bytes()[..10]);
    }
    assert_eq!(
        crate::exec::x87::transfer::read(MemorySize::Bcd, 0x37F, 0x12),
        crate::exec::x87::host::Outcome::new(f80::from_i64(12), 0)
    );
}
