//! IN, OUT, INS, OUTS (SDM Vol. 1, chapter 19 "Input/Output").

use crate::Cpu;
use crate::exec::general::string::{self, Sides};
use iced_x86::{Instruction, Register};
use x86::segment::ar;
use x86::{Exception, flags};

/// 32-bit or 64-bit TSS (SDM Vol. 3A, sections 8.2.1 and 8.7): offset of the I/O map base, types, smallest limit.
mod spec {
    pub const IO_MAP_BASE: u64 = 0x66;
    pub const TYPE_AVAILABLE: u32 = 9;
    pub const TYPE_BUSY: u32 = 11;
    pub const MIN_LIMIT: u32 = 0x67;
}

impl Cpu {
    /// Checks IOPL, and beyond it the I/O permission bit map, for `size` ports from `port` (SDM Vol. 1, section 19.5.2).
    fn check_port(&mut self, port: u16, size: usize) -> Result<(), Exception> {
        let v86 = self.rflags_system & flags::VM != 0;
        let by_level = !self.mode.is_protected() || self.cpl <= self.iopl();
        if by_level && !v86 {
            return Ok(());
        }
        let kind = self.tr.ar & (ar::S | ar::TYPE);
        if !self.tr.present()
            || !matches!(kind, spec::TYPE_AVAILABLE | spec::TYPE_BUSY)
            || self.tr.limit < spec::MIN_LIMIT
        {
            return Err(Exception::GP0);
        }
        let mut word = [0; 2];
        self.read_system(self.tr.base.wrapping_add(spec::IO_MAP_BASE), &mut word)?;
        // Two bytes are read, so the map must have a byte beyond the last port's.
        let at = u64::from(u16::from_le_bytes(word)) + u64::from(port >> 3);
        if at + 1 > u64::from(self.tr.limit) {
            return Err(Exception::GP0);
        }
        self.read_system(self.tr.base.wrapping_add(at), &mut word)?;
        let denied = u16::from_le_bytes(word) >> (port & 7) & ((1 << size) - 1);
        if denied == 0 { Ok(()) } else { Err(Exception::GP0) }
    }

    fn port_in(&mut self, port: u16, size: usize) -> u64 {
        let now = self.now();
        u64::from(self.platform.port_read(now, self.id, port, size as u8))
    }

    fn port_out(&mut self, port: u16, size: usize, value: u64) {
        let now = self.now();
        self.platform.port_write(now, self.id, port, size as u8, value as u32);
    }
}

/// IN
pub(super) fn input(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    let accumulator = insn.op0_register();
    let port = cpu.read_operand(insn, 1)? as u16;
    cpu.check_port(port, accumulator.size())?;
    let value = cpu.port_in(port, accumulator.size());
    cpu.set_reg(accumulator, value);
    Ok(())
}

/// OUT
pub(super) fn output(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    let accumulator = insn.op1_register();
    let port = cpu.read_operand(insn, 0)? as u16;
    cpu.check_port(port, accumulator.size())?;
    let value = cpu.reg(accumulator);
    cpu.port_out(port, accumulator.size(), value);
    Ok(())
}

/// INS
pub(super) fn ins(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    let port = cpu.reg(Register::DX) as u16;
    cpu.check_port(port, insn.memory_size().size())?;
    string::execute(cpu, insn, Sides::DESTINATION, |cpu, run, done| {
        for linear in run.destinations() {
            // A port read can have side effects: nothing may fault after it.
            cpu.probe_write(linear, run.size)?;
            let value = cpu.port_in(port, run.size);
            cpu.store_sized(linear, run.size, value)?;
            cpu.iterated(done, 1);
            if cpu.traps.met {
                break;
            }
        }
        Ok(false)
    })
}

/// OUTS
pub(super) fn outs(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    let port = cpu.reg(Register::DX) as u16;
    cpu.check_port(port, insn.memory_size().size())?;
    string::execute(cpu, insn, Sides::SOURCE, |cpu, run, done| {
        for linear in run.sources() {
            let value = cpu.load_sized(linear, run.size)?;
            cpu.port_out(port, run.size, value);
            cpu.iterated(done, 1);
            if cpu.traps.met {
                break;
            }
        }
        Ok(false)
    })
}
