//! The DMA test device, driven by the guest (docs/dma-device.md).

use super::{Failure, Scenario};
use crate::equal;
use devices::dma::spec::{
    COMMAND, COMMAND_COPY, COMMAND_FILL, DESTINATION, DESTINATION_HIGH, LENGTH, PATTERN, SOURCE, SOURCE_HIGH, STATUS,
    STATUS_BUSY, STATUS_DONE,
};
use devices::layout::{PCI_CONFIG_ADDRESS, PCI_CONFIG_DATA, PCI_DMA_DEVICE};
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use mem::{BusAddr, MemType};

/// Where the harness puts BAR 0: in the hole below 4 GiB.
const BAR: u64 = 0xC000_0000;
/// Configuration registers (PCI Local Bus 3.0, section 6.1).
const COMMAND_REGISTER: u32 = 0x04;
const BAR_0: u32 = 0x10;
/// Memory space and bus master enable.
const MEMORY_AND_MASTER: u32 = 1 << 1 | 1 << 2;
const CONFIG_ENABLE: u32 = 1 << 31;

/// The device with its registers mapped.
pub struct Dma {
    registers: u64,
}

fn write_config(a: &mut CodeAssembler, register: u32, value: u32) -> Result<(), IcedError> {
    a.mov(edx, u32::from(PCI_CONFIG_ADDRESS))?;
    a.mov(eax, CONFIG_ENABLE | u32::from(PCI_DMA_DEVICE) << 11 | register)?;
    a.out(dx, eax)?;
    a.mov(edx, u32::from(PCI_CONFIG_DATA))?;
    a.mov(eax, value)?;
    a.out(dx, eax)
}

impl Dma {
    /// Assigns BAR 0 and switches bus mastering on.
    pub fn new(s: &mut Scenario) -> Result<Dma, Failure> {
        let registers = s.map_type(BAR, 0, MemType::Uc);
        let end = s.run(|a| {
            write_config(a, BAR_0, BAR as u32)?;
            write_config(a, COMMAND_REGISTER, MEMORY_AND_MASTER)?;
            a.hlt()
        })?;
        end.halted()?;
        Ok(Dma { registers })
    }

    /// Copies a line.
    pub fn copy(&self, s: &mut Scenario, from: BusAddr, to: BusAddr) -> Result<(), Failure> {
        self.line(s, COMMAND_COPY, from, to, 0)
    }

    /// Fills a line with a byte.
    pub fn fill(&self, s: &mut Scenario, to: BusAddr, byte: u8) -> Result<(), Failure> {
        self.line(s, COMMAND_FILL, BusAddr(0), to, u32::from_le_bytes([byte; 4]))
    }

    fn line(&self, s: &mut Scenario, command: u32, from: BusAddr, to: BusAddr, pattern: u32) -> Result<(), Failure> {
        let values = [
            (SOURCE, from.0 as u32),
            (SOURCE_HIGH, (from.0 >> 32) as u32),
            (DESTINATION, to.0 as u32),
            (DESTINATION_HIGH, (to.0 >> 32) as u32),
            (LENGTH, mem::LINE_BYTES as u32),
            (PATTERN, pattern),
            (COMMAND, command),
        ];
        let end = s.run(|a| {
            a.mov(rdi, self.registers)?;
            for (register, value) in values {
                a.mov(eax, value)?;
                a.mov(dword_ptr(rdi + register as i32), eax)?;
            }
            let mut busy = a.create_label();
            a.set_label(&mut busy)?;
            a.mov(eax, dword_ptr(rdi + STATUS as i32))?;
            a.test(eax, STATUS_BUSY)?;
            a.jnz(busy)?;
            a.hlt()
        })?;
        equal!(end.halted()?.rax(), u64::from(STATUS_DONE), "STATUS of the DMA device");
        Ok(())
    }
}
