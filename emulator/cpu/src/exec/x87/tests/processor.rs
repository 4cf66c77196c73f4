//! A processor with RAM and an empty board, for single instructions.

use crate::Cpu;
use crate::exec::system::cpuid::CpuModel;
use crate::exec::x87::lookup;
use iced_x86::{Decoder, DecoderOptions};
use x86::platform::NoBoard;
use x86::segment::{Segment, ar, sreg};
use x86::{Exception, cr};

/// Where the instructions pretend to be, and where their operands are (RDI).
pub const CODE: u64 = 0x4_5678;
pub const DATA: u64 = 0x2000;

/// In 64-bit mode, without paging (which no instruction here looks at), all FPU features enabled, after FNINIT.
pub fn long64() -> Box<Cpu> {
    let mut cpu = real();
    cpu.cr0 |= cr::cr0::PE;
    cpu.msr.efer = cr::efer::LMA;
    flat(&mut cpu, ar::L);
    cpu
}

/// In 32-bit protected mode.
pub fn protected32() -> Box<Cpu> {
    let mut cpu = real();
    cpu.cr0 |= cr::cr0::PE;
    flat(&mut cpu, ar::DB);
    cpu
}

/// In real mode.
pub fn real() -> Box<Cpu> {
    let memory = mem::Memory::new(mem::Config { ram_bytes: 1 << 20, ..mem::Config::default() });
    let mut cpu = Cpu::new(0, CpuModel::default(), Box::new(memory.expect("valid")), Box::new(NoBoard), 1_000_000);
    cpu.cr0 = cr::cr0::NE | cr::cr0::MP | cr::cr0::ET;
    cpu.cr4 = cr::cr4::OSFXSR | cr::cr4::OSXSAVE;
    cpu.xcr0 = 3;
    cpu.x87 = crate::state::X87::default();
    cpu.regs[usize::from(crate::state::slot::RDI)] = DATA;
    cpu
}

fn flat(cpu: &mut Cpu, code: u32) {
    let data = ar::P | ar::S | ar::RW | ar::ACCESSED;
    for i in 0..6 {
        cpu.set_segment(i, Segment { selector: 8, ar: data | ar::DB, limit: u32::MAX, base: 0 });
    }
    cpu.set_segment(sreg::CS, Segment { selector: 16, ar: data | ar::CODE | code, limit: u32::MAX, base: 0 });
}

/// Executes one instruction at [`CODE`].
pub fn execute(cpu: &mut Cpu, bytes: &[u8]) -> Result<(), Exception> {
    let insn = Decoder::with_ip(cpu.mode.bitness(), bytes, CODE, DecoderOptions::NONE).decode();
    (cpu.ip, cpu.next_ip) = (CODE, CODE + bytes.len() as u64);
    lookup(insn.code()).expect("an instruction of this module")(cpu, &insn)
}

pub fn read<const N: usize>(cpu: &mut Cpu, at: u64) -> [u8; N] {
    let mut bytes = [0; N];
    cpu.read_linear(at, &mut bytes).expect("RAM");
    bytes
}
