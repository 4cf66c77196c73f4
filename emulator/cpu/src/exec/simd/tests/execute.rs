//! Instructions on a processor: operand forms, conditions, faults. Real mode with flat addresses is enough: the functions
//! get 64-bit instructions, and effective addresses stay below 64 KiB.

use super::super::lookup;
use crate::exec::system::cpuid::CpuModel;
use crate::state::Cpu;
use iced_x86::{Decoder, DecoderOptions};
use mem::Memory;
use x86::Exception;
use x86::cr::{cr0, cr4};
use x86::flags;
use x86::platform::NoBoard;

const RSI: usize = 6;
const RDI: usize = 7;
const BUFFER: u64 = 0x1000;
/// Data of which every byte is different.
const DATA: u128 = 0x0F0E_0D0C_0B0A_0908_0706_0504_0302_0100;
const OTHER: u128 = 0x1F1E_1D1C_1B1A_1918_1716_1514_1312_1110;

fn processor() -> Box<Cpu> {
    let config = mem::Config::default();
    let (bytes, ways) = (config.cache_bytes as u32, config.cache_ways as u32);
    let memory = Memory::new(config).expect("the default is valid");
    let model = CpuModel::new(memory.tme().features(), 1, bytes, ways);
    let mut cpu = Cpu::new(0, model, Box::new(memory), Box::new(NoBoard), 1_000_000_000);
    cpu.cr4 |= cr4::OSFXSR | cr4::OSXMMEXCPT;
    // FNINIT
    cpu.x87.fcw = 0x37F;
    cpu.x87.ftw = 0xFFFF;
    cpu.regs[RSI] = BUFFER;
    cpu.regs[RDI] = BUFFER;
    cpu.xmm[0] = DATA;
    cpu.xmm[1] = OTHER;
    cpu.x87.regs[0] = DATA as u64 as u128;
    cpu.x87.regs[1] = OTHER as u64 as u128;
    cpu.write_u128(BUFFER, OTHER).expect("RAM");
    cpu.write_u128(BUFFER + 16, 0).expect("RAM");
    cpu
}

fn run(cpu: &mut Cpu, code: &[u8]) -> Result<(), Exception> {
    let insn = Decoder::with_ip(64, code, 0, DecoderOptions::NONE).decode();
    assert_eq!(insn.len(), code.len(), "{insn:?}");
    let f = lookup(insn.code()).expect("an instruction of this module");
    f(cpu, &insn)
}

/// Runs an instruction on a new processor.
fn after(code: &[u8]) -> Box<Cpu> {
    let mut cpu = processor();
    run(&mut cpu, code).expect("no exception");
    cpu
}

const ADDPS_MEM: &[u8] = &[0x0F, 0x58, 0x06];
const MOVAPS_STORE: &[u8] = &[0x0F, 0x29, 0x06];
const MOVUPS_LOAD: &[u8] = &[0x0F, 0x10, 0x06];
const PADDB_MM: &[u8] = &[0x0F, 0xFC, 0xC1];
const EMMS: &[u8] = &[0x0F, 0x77];

#[test]
fn em_and_osfxsr_give_ud_before_ts_gives_nm() {
    for (em, ts, osfxsr, sse, mmx) in [
        (false, false, true, None, None),
        (true, true, true, Some(Exception::InvalidOpcode), Some(Exception::InvalidOpcode)),
        (false, true, false, Some(Exception::InvalidOpcode), Some(Exception::DeviceNotAvailable)),
        (false, true, true, Some(Exception::DeviceNotAvailable), Some(Exception::DeviceNotAvailable)),
        (false, false, false, Some(Exception::InvalidOpcode), None),
    ] {
        let mut cpu = processor();
        cpu.cr0 |= if em { cr0::EM } else { 0 } | if ts { cr0::TS } else { 0 };
        cpu.cr4 = if osfxsr { cr4::OSFXSR } else { 0 };
        assert_eq!(run(&mut cpu, MOVUPS_LOAD).err(), sse);
        assert_eq!(run(&mut cpu, PADDB_MM).err(), mmx);
        // MOVNTI [rsi], eax; CRC32 eax, cl; MFENCE; PREFETCHT0 [rsi]
        for free in [&[0x0F, 0xC3, 0x06][..], &[0xF2, 0x0F, 0x38, 0xF0, 0xC1], &[0x0F, 0xAE, 0xF0], &[0x0F, 0x18, 0x0E]]
        {
            assert_eq!(run(&mut cpu, free), Ok(()));
        }
    }
}

#[test]
fn misaligned_128_bit_operands_give_gp_unless_the_instruction_allows_them() {
    let mut cpu = processor();
    cpu.regs[RSI] += 8;
    // PADDB xmm0, [rsi]; MOVNTDQ [rsi], xmm0; MOVNTDQA xmm0, [rsi]; CVTPD2PI mm0, [rsi]
    for code in [
        ADDPS_MEM,
        MOVAPS_STORE,
        &[0x66, 0x0F, 0xFC, 0x06],
        &[0x66, 0x0F, 0xE7, 0x06],
        &[0x66, 0x0F, 0x38, 0x2A, 0x06],
        &[0x66, 0x0F, 0x2D, 0x06],
    ] {
        assert_eq!(run(&mut cpu, code), Err(Exception::GP0), "{code:02x?}");
    }
    assert_eq!(cpu.xmm[0], DATA);
    assert_eq!(cpu.read_u128(BUFFER), Ok(OTHER));
    assert_eq!(cpu.x87.ftw, 0xFFFF);
    // MOVUPS, LDDQU, PCMPISTRI, ADDSS, CVTPS2PD and PMOVZXBW
    for code in [
        MOVUPS_LOAD,
        &[0xF2, 0x0F, 0xF0, 0x06],
        &[0x66, 0x0F, 0x3A, 0x63, 0x06, 0x00],
        &[0xF3, 0x0F, 0x58, 0x06],
        &[0x0F, 0x5A, 0x06],
        &[0x66, 0x0F, 0x38, 0x30, 0x06],
    ] {
        assert_eq!(run(&mut cpu, code), Ok(()), "{code:02x?}");
    }
}

#[test]
fn mmx_reads_and_writes_make_the_transition() {
    // PADDB mm0, mm1; MOVD eax, mm0; MOVQ [rsi], mm0; PMOVMSKB eax, mm0; MOVQ2DQ xmm0, mm0; MASKMOVQ mm0, mm1
    for code in [
        PADDB_MM,
        &[0x0F, 0x7E, 0xC0],
        &[0x0F, 0x7F, 0x06],
        &[0x0F, 0xD7, 0xC0],
        &[0xF3, 0x0F, 0xD6, 0xC0],
        &[0x0F, 0xF7, 0xC1],
    ] {
        let mut cpu = processor();
        cpu.x87.fsw = 3 << 11 | 0x4700;
        run(&mut cpu, code).expect("no exception");
        assert_eq!((cpu.x87.ftw, cpu.x87.fsw), (0, 0x4700), "{code:02x?}");
    }
    assert_eq!(after(PADDB_MM).x87.regs[0] >> 64, 0xFFFF);
    assert_eq!(after(&[0x0F, 0x7E, 0xC0]).x87.regs[0] >> 64, 0, "a read leaves bits 79:64");
    let mut cpu = after(PADDB_MM);
    run(&mut cpu, EMMS).expect("no exception");
    assert_eq!(cpu.x87.ftw, 0xFFFF);
}

#[test]
fn a_pending_x87_exception_is_reported_by_mmx_only() {
    let mut cpu = processor();
    // ZE, unmasked, with the summary and busy bits.
    cpu.x87.fsw = 0x8084;
    cpu.x87.fcw = 0x37B;
    for code in [PADDB_MM, EMMS, &[0x66, 0x0F, 0x2A, 0xC1]] {
        assert_eq!(run(&mut cpu, code), Err(Exception::X87FloatingPoint));
    }
    // CVTPI2PD xmm0, [rsi] uses no MMX register.
    for code in [ADDPS_MEM, &[0x66, 0x0F, 0x2A, 0x06]] {
        assert_eq!(run(&mut cpu, code), Ok(()));
    }
}

#[test]
fn an_unmasked_exception_sets_its_flag_and_leaves_the_destination() {
    // DIVPS xmm0, xmm1 of anything by zeros, with ZM clear and PE already set.
    for (control, exception) in
        [(cr4::OSFXSR | cr4::OSXMMEXCPT, Exception::SimdFloatingPoint), (cr4::OSFXSR, Exception::InvalidOpcode)]
    {
        let mut cpu = processor();
        cpu.cr4 = control;
        cpu.xmm = [0x3F80_0000; 16];
        cpu.xmm[1] = 0;
        cpu.mxcsr = 0x1DA0;
        assert_eq!(run(&mut cpu, &[0xF3, 0x0F, 0x5E, 0xC1]), Err(exception));
        assert_eq!((cpu.mxcsr, cpu.xmm[0]), (0x1DA4, 0x3F80_0000));
        // COMISS xmm0, xmm1 with a signalling NaN and IM clear leaves the flags.
        cpu.mxcsr = 0x1F00;
        cpu.xmm[1] = 0x7F80_0001;
        cpu.lazy.set(flags::ARITH);
        assert_eq!(run(&mut cpu, &[0x0F, 0x2F, 0xC1]), Err(exception));
        assert_eq!((cpu.mxcsr, cpu.lazy.get()), (0x1F01, flags::ARITH));
    }
}

#[test]
fn comiss_and_ptest_set_and_clear_all_flags() {
    let compare = |a: f32, b: f32| {
        let mut cpu = processor();
        cpu.xmm[0] = a.to_bits().into();
        cpu.xmm[1] = b.to_bits().into();
        cpu.lazy.set(flags::ARITH);
        run(&mut cpu, &[0x0F, 0x2E, 0xC1]).expect("no exception");
        cpu.lazy.get()
    };
    assert_eq!(compare(1.0, 0.0), 0);
    assert_eq!(compare(0.0, 1.0), flags::CF);
    assert_eq!(compare(1.0, 1.0), flags::ZF);
    assert_eq!(compare(f32::NAN, 1.0), flags::ZF | flags::PF | flags::CF);
    // PTEST xmm0, xmm0
    assert_eq!(after(&[0x66, 0x0F, 0x38, 0x17, 0xC0]).lazy.get(), flags::CF);
}

#[test]
fn scalar_moves_merge_from_registers_and_zero_from_memory() {
    let low = |bits: u32| (1u128 << bits) - 1;
    // MOVSS xmm0, xmm1 and xmm0, [rsi]; MOVSD likewise; MOVQ xmm0, xmm1; MOVD xmm0, esi; MOVLHPS, MOVHLPS xmm0, xmm1
    let cases: [(&[u8], u128); 8] = [
        (&[0xF3, 0x0F, 0x10, 0xC1], DATA & !low(32) | OTHER & low(32)),
        (&[0xF3, 0x0F, 0x10, 0x06], OTHER & low(32)),
        (&[0xF2, 0x0F, 0x10, 0xC1], DATA & !low(64) | OTHER & low(64)),
        (&[0xF2, 0x0F, 0x10, 0x06], OTHER & low(64)),
        (&[0xF3, 0x0F, 0x7E, 0xC1], OTHER & low(64)),
        (&[0x66, 0x0F, 0x6E, 0xC6], BUFFER.into()),
        (&[0x0F, 0x16, 0xC1], DATA & low(64) | OTHER << 64),
        (&[0x0F, 0x12, 0xC1], DATA & !low(64) | OTHER >> 64),
    ];
    for (code, want) in cases {
        assert_eq!(after(code).xmm[0], want, "{code:02x?}");
    }
    // MOVHPS xmm0, [rsi]; MOVLPS xmm0, [rsi]
    assert_eq!(after(&[0x0F, 0x16, 0x06]).xmm[0], DATA & low(64) | OTHER << 64);
    assert_eq!(after(&[0x0F, 0x12, 0x06]).xmm[0], DATA & !low(64) | OTHER & low(64));
}

#[test]
fn stores_write_their_size() {
    let low = |bits: u32| (1u128 << bits) - 1;
    let store = |data: u128, bits: u32| OTHER & !low(bits) | data & low(bits);
    // MOVSS, MOVSD, MOVQ, MOVHPS, MOVD, PEXTRB [rsi], xmm0, 15; EXTRACTPS [rsi], xmm0, 2
    let cases: [(&[u8], u128); 7] = [
        (&[0xF3, 0x0F, 0x11, 0x06], store(DATA, 32)),
        (&[0xF2, 0x0F, 0x11, 0x06], store(DATA, 64)),
        (&[0x66, 0x0F, 0xD6, 0x06], store(DATA, 64)),
        (&[0x0F, 0x17, 0x06], store(DATA >> 64, 64)),
        (&[0x66, 0x0F, 0x7E, 0x06], store(DATA, 32)),
        (&[0x66, 0x0F, 0x3A, 0x14, 0x06, 0x0F], store(DATA >> 120, 8)),
        (&[0x66, 0x0F, 0x3A, 0x17, 0x06, 0x02], store(DATA >> 64, 32)),
    ];
    for (code, want) in cases {
        assert_eq!(after(code).read_u128(BUFFER), Ok(want), "{code:02x?}");
    }
    assert_eq!(after(MOVAPS_STORE).read_u128(BUFFER), Ok(DATA));
}

#[test]
fn maskmovdqu_writes_the_selected_bytes() {
    let mut cpu = processor();
    cpu.xmm[1] = 0x80FF_0000_7F00_0000_0000_0080_0000_0081;
    run(&mut cpu, &[0x66, 0x0F, 0xF7, 0xC1]).expect("no exception");
    let selected = 0xFFFF_0000_0000_0000_0000_00FF_0000_00FF;
    assert_eq!(cpu.read_u128(BUFFER), Ok(OTHER & !selected | DATA & selected));
}

#[test]
fn mxcsr_refuses_reserved_bits() {
    // LDMXCSR [rsi]; STMXCSR [rsi + 4]
    let mut cpu = processor();
    cpu.write_u32(BUFFER, 0x1_0000).expect("RAM");
    assert_eq!(run(&mut cpu, &[0x0F, 0xAE, 0x16]), Err(Exception::GP0));
    cpu.write_u32(BUFFER, 0xFFFF).expect("RAM");
    assert_eq!(run(&mut cpu, &[0x0F, 0xAE, 0x16]), Ok(()));
    assert_eq!(run(&mut cpu, &[0x0F, 0xAE, 0x5E, 0x04]), Ok(()));
    assert_eq!(cpu.read_u32(BUFFER + 4), Ok(0xFFFF));
}

#[test]
fn conversions_write_general_registers_zero_extended() {
    // CVTTSD2SI eax, xmm0 of -1.0; CVTSI2SD xmm0, rsi
    let mut cpu = processor();
    cpu.regs[0] = !0;
    cpu.xmm[0] = (-1f64).to_bits().into();
    run(&mut cpu, &[0xF2, 0x0F, 0x2C, 0xC0]).expect("no exception");
    assert_eq!(cpu.regs[0], 0xFFFF_FFFF);
    run(&mut cpu, &[0xF2, 0x48, 0x0F, 0x2A, 0xC6]).expect("no exception");
    assert_eq!(cpu.xmm[0], (BUFFER as f64).to_bits().into());
}
