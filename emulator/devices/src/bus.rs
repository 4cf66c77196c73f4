//! Address decoding: which chip answers which port and which physical address.

use x86::platform::Signal;

use crate::access_log::{AccessKind, UnclaimedAccess};
use crate::acpi_pm;
use crate::chipset::Chipset;
use crate::layout::*;
use crate::pic::PicRegister;

/// What port E9H reads as, by which programs detect the debug console.
const DEBUG_CONSOLE_PRESENT: u8 = 0xE9;
const PAGE: u64 = 0xFFF;
const PIC_MASTER_DATA: u16 = PIC_MASTER + 1;
const PIC_SLAVE_DATA: u16 = PIC_SLAVE + 1;
const ELCR_SLAVE: u16 = ELCR + 1;
const PIT_CONTROL: u16 = PIT + 3;
const COM1_LAST: u16 = COM1 + 7;
const PM_LAST: u16 = PM1A_EVT_BLK + acpi_pm::spec::BLOCK - 1;
const PCI_CONFIG_DATA_LAST: u16 = PCI_CONFIG_DATA + 3;
const _: () = assert!(PM1A_CNT_BLK - PM1A_EVT_BLK == acpi_pm::spec::PM1_CNT);
const _: () = assert!(PM_TMR_BLK - PM1A_EVT_BLK == acpi_pm::spec::PM_TMR);

fn all_ones(size: u8) -> u64 {
    if size >= 8 { u64::MAX } else { (1 << (8 * u32::from(size))) - 1 }
}

fn pic_register(port: u16) -> Option<PicRegister> {
    Some(match port {
        PIC_MASTER => PicRegister::MasterCommand,
        PIC_MASTER_DATA => PicRegister::MasterData,
        PIC_SLAVE => PicRegister::SlaveCommand,
        PIC_SLAVE_DATA => PicRegister::SlaveData,
        ELCR => PicRegister::MasterElcr,
        ELCR_SLAVE => PicRegister::SlaveElcr,
        _ => return None,
    })
}

impl Chipset {
    pub(crate) fn read_port(&mut self, now: u64, port: u16, size: u8) -> u32 {
        match port {
            COM1..=COM1_LAST if size == 1 => {
                let value = self.uart.read((port - COM1) as u8);
                self.update_serial_line();
                return value.into();
            }
            PCI_CONFIG_ADDRESS if size == 4 => return self.pci.address(),
            PCI_CONFIG_DATA..=PCI_CONFIG_DATA_LAST => {
                return self.read_config((port - PCI_CONFIG_DATA) as u32, size);
            }
            _ => {}
        }
        // Chips on the ISA side have 8-bit registers: a wider access is split into byte cycles at successive ports.
        let mut value = 0;
        let mut claimed = false;
        for byte in 0..u16::from(size.min(4)) {
            let read = self.read_byte(now, port.wrapping_add(byte));
            claimed |= read.is_some();
            value |= u32::from(read.unwrap_or(0xFF)) << (8 * byte);
        }
        if claimed {
            self.update_serial_line();
            self.update_lines(now);
        } else {
            self.record(AccessKind::PortRead, port.into(), size, 0);
        }
        value
    }

    pub(crate) fn write_port(&mut self, now: u64, port: u16, size: u8, value: u32) {
        match port {
            COM1..=COM1_LAST if size == 1 => {
                let sent = self.uart.write((port - COM1) as u8, value as u8);
                self.serial_output.extend(sent);
                self.update_serial_line();
                return;
            }
            PCI_CONFIG_ADDRESS if size == 4 => return self.pci.set_address(value),
            PCI_CONFIG_DATA..=PCI_CONFIG_DATA_LAST => {
                return self.write_config((port - PCI_CONFIG_DATA) as u32, size, value);
            }
            DEBUG_EXIT => {
                return self.signal(Signal::DebugExit(value & all_ones(size) as u32));
            }
            _ => {}
        }
        let mut claimed = false;
        for byte in 0..u16::from(size.min(4)) {
            claimed |= self.write_byte(now, port.wrapping_add(byte), (value >> (8 * byte)) as u8);
        }
        if claimed {
            self.update_serial_line();
            self.update_lines(now);
        } else {
            self.record(AccessKind::PortWrite, port.into(), size, value.into());
        }
    }

    /// Reads `size` bytes at byte `offset` (0 to 3) of CONFIG_DATA.
    fn read_config(&self, offset: u32, size: u8) -> u32 {
        match (&self.dma, self.pci.selects(PCI_DMA_DEVICE)) {
            (Some(dma), Some(register)) => dma.read_config(register) >> (8 * offset) & all_ones(size.min(4)) as u32,
            _ => self.pci.read_data(offset as u16, size),
        }
    }

    fn write_config(&mut self, offset: u32, size: u8, value: u32) {
        // No register of the host bridge can be written.
        if let Some(dma) = &mut self.dma
            && let Some(register) = self.pci.selects(PCI_DMA_DEVICE)
        {
            let enables = all_ones(size.min(4)) as u32;
            dma.write_config(register, value << (8 * offset), enables << (8 * offset));
            self.update_dma_line();
        }
    }

    /// `None` where no chip answers.
    fn read_byte(&mut self, now: u64, port: u16) -> Option<u8> {
        if let Some(register) = pic_register(port) {
            self.catch_up(now);
            return Some(self.pic.read(register));
        }
        Some(match port {
            PIT..=PIT_CONTROL => {
                self.catch_up(now);
                self.pit.read(now, (port - PIT) as u8)
            }
            PORT_B => {
                self.catch_up(now);
                self.pit.read_port_b(now)
            }
            // No keyboard controller, no readable POST code, write-only index and exit registers.
            KBC_DATA | KBC_COMMAND | POST | RTC_INDEX | DEBUG_EXIT => 0xFF,
            RTC_DATA => {
                self.catch_up(now);
                self.rtc.read_data(now)
            }
            PORT_92 => self.reset_ports.read_port_92(),
            DEBUG_CONSOLE => DEBUG_CONSOLE_PRESENT,
            COM1..=COM1_LAST => self.uart.read((port - COM1) as u8),
            PM1A_EVT_BLK..=PM_LAST => {
                self.catch_up(now);
                self.pm.read(now, port - PM1A_EVT_BLK)?
            }
            RESET_CONTROL => self.reset_ports.read_reset_control(),
            _ => return None,
        })
    }

    /// False where no chip answers.
    fn write_byte(&mut self, now: u64, port: u16, value: u8) -> bool {
        if let Some(register) = pic_register(port) {
            self.catch_up(now);
            self.pic.write(register, value);
            return true;
        }
        let reset = match port {
            PIT..=PIT_CONTROL => {
                self.catch_up(now);
                self.pit.write(now, (port - PIT) as u8, value);
                None
            }
            PORT_B => {
                self.catch_up(now);
                self.pit.write_port_b(now, value);
                None
            }
            KBC_DATA | POST => None,
            KBC_COMMAND => self.reset_ports.write_keyboard_command(value),
            RTC_INDEX => {
                self.rtc.write_index(value);
                None
            }
            RTC_DATA => {
                self.catch_up(now);
                self.rtc.write_data(now, value);
                None
            }
            PORT_92 => self.reset_ports.write_port_92(value),
            DEBUG_CONSOLE => {
                self.debug_console_output.push(value);
                None
            }
            COM1..=COM1_LAST => {
                let sent = self.uart.write((port - COM1) as u8, value);
                self.serial_output.extend(sent);
                None
            }
            PM1A_EVT_BLK..=PM_LAST => {
                self.catch_up(now);
                if self.pm.write(port - PM1A_EVT_BLK, value) {
                    self.signal(Signal::PowerOff);
                }
                None
            }
            RESET_CONTROL => self.reset_ports.write_reset_control(value),
            _ => return false,
        };
        if let Some(kind) = reset {
            self.signal(Signal::Reset(kind));
        }
        true
    }

    pub(crate) fn read_memory(&mut self, now: u64, cpu: usize, address: u64, size: u8) -> u64 {
        let offset = address & PAGE;
        if self.lapics[cpu].window() == Some(address - offset) {
            let value = self.lapics[cpu].read_mmio(now, offset, size);
            // An illegal register is an error that may interrupt.
            self.settle();
            return value;
        }
        if address - offset == IOAPIC_BASE {
            let value = u64::from(self.ioapic.read(offset & !3));
            return value >> (8 * (offset & 3)) & all_ones(size);
        }
        if let Some((dma, offset)) = self.dma.as_ref().and_then(|dma| Some((dma, dma.decode(address)?))) {
            return dma.read(offset, size);
        }
        self.record(AccessKind::MmioRead, address, size, 0);
        all_ones(size)
    }

    pub(crate) fn write_memory(&mut self, now: u64, cpu: usize, address: u64, size: u8, value: u64) {
        let offset = address & PAGE;
        if self.lapics[cpu].window() == Some(address - offset) {
            let effect = self.lapics[cpu].write_mmio(now, offset, size, value);
            self.apply(cpu, effect);
            self.settle();
        } else if address - offset == IOAPIC_BASE {
            // An edge that a masked pin ignores must have come before the mask changes.
            self.catch_up(now);
            self.ioapic.write(offset, (value & all_ones(size)) as u32);
            self.settle();
        } else if let Some((dma, offset)) = self.dma.as_mut().and_then(|dma| dma.decode(address).map(|o| (dma, o))) {
            dma.write(now, offset, size, value);
            self.update_dma_line();
        } else {
            self.record(AccessKind::MmioWrite, address, size, value);
        }
    }

    fn record(&mut self, kind: AccessKind, address: u64, size: u8, value: u64) {
        self.unclaimed.record(UnclaimedAccess { kind, address, size, value });
    }
}
