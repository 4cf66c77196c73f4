//! Configuration space of the DMA test device (PCI Local Bus 3.0, 6.1, 6.2, 6.8.1).

use crate::apic::{DeliveryMode, Destination, Message};

/// The header and the MSI capability, in offset order.
mod spec {
    /// Vendor 1AF4H, device 10F0H: the range 1AF4:10F0 to 10FF "is available for experimental usage without
    /// registration" (QEMU, PCI IDs).
    pub const ID: u8 = 0x00;
    pub const ID_VALUE: u32 = 0x10F0_1AF4;
    pub const COMMAND_STATUS: u8 = 0x04;
    pub const COMMAND_MEMORY: u32 = 1 << 1;
    pub const COMMAND_MASTER: u32 = 1 << 2;
    pub const COMMAND_INTX_DISABLE: u32 = 1 << 10;
    pub const COMMAND_WRITABLE: u32 = COMMAND_MEMORY | COMMAND_MASTER | COMMAND_INTX_DISABLE;
    pub const STATUS_INTERRUPT: u32 = 1 << 19;
    pub const STATUS_CAPABILITIES: u32 = 1 << 20;
    /// Class FF0000H: fits no defined class. Revision 1.
    pub const CLASS_REVISION: u8 = 0x08;
    pub const CLASS_REVISION_VALUE: u32 = 0xFF00_0001;
    /// 32-bit memory, not prefetchable.
    pub const BAR_0: u8 = 0x10;
    pub const SUBSYSTEM: u8 = 0x2C;
    pub const CAPABILITIES: u8 = 0x34;
    pub const INTERRUPT: u8 = 0x3C;
    pub const INTERRUPT_LINE: u32 = 0xFF;
    /// INTA#.
    pub const INTERRUPT_PIN_A: u32 = 1 << 8;
    /// What a BIOS writes when no 8259A input is connected.
    pub const INTERRUPT_LINE_NONE: u32 = 0xFF;
    /// The only capability: MSI, one message, 32-bit address.
    pub const MSI_CONTROL: u8 = 0x40;
    pub const MSI_ID: u32 = 0x05;
    pub const MSI_ENABLE: u32 = 1 << 16;
    pub const MSI_ADDRESS: u8 = 0x44;
    pub const MSI_ADDRESS_WRITABLE: u32 = !3;
    pub const MSI_DATA: u8 = 0x48;
    pub const MSI_DATA_WRITABLE: u32 = 0xFFFF;

    /// What the address and the data mean to local APICs (SDM Vol. 3A, section 11.11).
    pub const MSI_WINDOW: u32 = 0xFEE0_0000;
    pub const MSI_WINDOW_MASK: u32 = 0xFFF0_0000;
    pub const MSI_DESTINATION_SHIFT: u32 = 12;
    pub const MSI_LOGICAL: u32 = 1 << 2;
    pub const MSI_DELIVERY_MODE_SHIFT: u32 = 8;
}
use super::spec::BAR_BYTES;
use spec::*;

/// The registers that can be written.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct ConfigSpace {
    command: u32,
    bar: u32,
    interrupt_line: u32,
    msi_enable: u32,
    msi_address: u32,
    msi_data: u32,
}

impl Default for ConfigSpace {
    fn default() -> Self {
        ConfigSpace {
            command: 0,
            bar: 0,
            interrupt_line: INTERRUPT_LINE_NONE,
            msi_enable: 0,
            msi_address: 0,
            msi_data: 0,
        }
    }
}

impl ConfigSpace {
    /// Reads the doubleword at `register`. `interrupt`: the function has an interrupt to report.
    pub fn read(&self, register: u8, interrupt: bool) -> u32 {
        match register {
            ID | SUBSYSTEM => ID_VALUE,
            COMMAND_STATUS => self.command | STATUS_CAPABILITIES | if interrupt { STATUS_INTERRUPT } else { 0 },
            CLASS_REVISION => CLASS_REVISION_VALUE,
            BAR_0 => self.bar,
            CAPABILITIES => MSI_CONTROL.into(),
            INTERRUPT => self.interrupt_line | INTERRUPT_PIN_A,
            MSI_CONTROL => MSI_ID | self.msi_enable,
            MSI_ADDRESS => self.msi_address,
            MSI_DATA => self.msi_data,
            _ => 0,
        }
    }

    /// Writes the bits of `value` that `enables` selects, a mask of whole bytes.
    pub fn write(&mut self, register: u8, value: u32, enables: u32) {
        let (field, writable) = match register {
            COMMAND_STATUS => (&mut self.command, COMMAND_WRITABLE),
            BAR_0 => (&mut self.bar, !(BAR_BYTES as u32 - 1)),
            INTERRUPT => (&mut self.interrupt_line, INTERRUPT_LINE),
            MSI_CONTROL => (&mut self.msi_enable, MSI_ENABLE),
            MSI_ADDRESS => (&mut self.msi_address, MSI_ADDRESS_WRITABLE),
            MSI_DATA => (&mut self.msi_data, MSI_DATA_WRITABLE),
            _ => return,
        };
        let change = enables & writable;
        *field = *field & !change | value & change;
    }

    /// Where BAR 0 is decoded, if memory space is on.
    pub fn window(&self) -> Option<u64> {
        (self.command & COMMAND_MEMORY != 0).then_some(self.bar.into())
    }

    /// True while the function may access memory.
    pub fn bus_master(&self) -> bool {
        self.command & COMMAND_MASTER != 0
    }

    /// True while interrupts go out on INTA#.
    pub fn intx_enabled(&self) -> bool {
        self.command & COMMAND_INTX_DISABLE == 0 && self.msi_enable == 0
    }

    /// The message that an interrupt sends. `None`: MSI is off, or the address is not one of local APICs (such a write
    /// would go to memory, which this device does not do), or a bus master may not send anything.
    pub fn message(&self) -> Option<Message> {
        let to_apics = self.msi_address & MSI_WINDOW_MASK == MSI_WINDOW;
        if self.msi_enable == 0 || !self.bus_master() || !to_apics {
            return None;
        }
        let address = self.msi_address >> MSI_DESTINATION_SHIFT & 0xFF;
        let destination = match self.msi_address & MSI_LOGICAL != 0 {
            true => Destination::Logical(address),
            false if address == 0xFF => Destination::Everyone,
            false => Destination::Physical(address),
        };
        let mode = DeliveryMode::from_bits(self.msi_data >> MSI_DELIVERY_MODE_SHIFT)?;
        // Edge-triggered whatever the data says: there is no wire whose level an EOI could ask about.
        Some(Message { destination, mode, vector: self.msi_data as u8, level: false })
    }
}
