//! Time, random numbers, HLT, and the instructions that do nothing or are not there.

use crate::Cpu;
use crate::state::{Activity, slot};
use iced_x86::Instruction;
use x86::{Exception, cr::cr4, flags};

/// Time that PAUSE lets pass besides its own instruction: about 140 cycles since Skylake (Intel Optimization Reference
/// Manual, "Pause Latency in Skylake Client Microarchitecture").
const PAUSE_NS: u64 = 130;

/// PAUSE
pub(super) fn pause(cpu: &mut Cpu, _: &Instruction) -> Result<(), Exception> {
    cpu.clock.skipped += PAUSE_NS;
    Ok(())
}

/// NOP, PAUSE, ENDBR, and hints and shadow-stack reads that processors without the feature execute as NOP.
pub(super) fn nop(_: &mut Cpu, _: &Instruction) -> Result<(), Exception> {
    Ok(())
}

/// UD0, UD1, UD2, and instructions whose feature is not enumerated.
pub(super) fn undefined(_: &mut Cpu, _: &Instruction) -> Result<(), Exception> {
    Err(Exception::UD)
}

pub(super) fn hlt(cpu: &mut Cpu, _: &Instruction) -> Result<(), Exception> {
    if cpu.cpl > 0 {
        return Err(Exception::GP0);
    }
    cpu.activity = Activity::Halted;
    Ok(())
}

/// RDTSC
pub(super) fn rdtsc(cpu: &mut Cpu, _: &Instruction) -> Result<(), Exception> {
    if cpu.cr4 & cr4::TSD != 0 && cpu.cpl > 0 {
        return Err(Exception::GP0);
    }
    let tsc = cpu.tsc();
    cpu.regs[slot::RAX as usize] = tsc & 0xFFFF_FFFF;
    cpu.regs[slot::RDX as usize] = tsc >> 32;
    Ok(())
}

/// RDTSCP: RDTSC with IA32_TSC_AUX in ECX.
pub(super) fn rdtscp(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    rdtsc(cpu, insn)?;
    cpu.regs[slot::RCX as usize] = cpu.msr.tsc_aux & 0xFFFF_FFFF;
    Ok(())
}

pub(super) fn rdpid(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    let aux = cpu.msr.tsc_aux & 0xFFFF_FFFF;
    cpu.set_reg(insn.op0_register(), aux);
    Ok(())
}

/// RDRAND, RDSEED: CF tells success, the other arithmetic flags are cleared. A failure leaves zero.
pub(super) fn rdrand(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    let drawn = cpu.mem.rdrand64();
    cpu.set_reg(insn.op0_register(), drawn.unwrap_or(0));
    cpu.lazy.set(if drawn.is_some() { flags::CF } else { 0 });
    Ok(())
}
