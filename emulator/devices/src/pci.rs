//! PCI configuration mechanism #1 and the host bridge (PCI Local Bus 3.0, 3.2.2.3.2). What else is on the bus, the chipset
//! knows.

/// CONFIG_ADDRESS and the configuration header's registers, in offset order.
mod spec {
    pub const CONFIG_ENABLE: u32 = 1 << 31;
    pub const CONFIG_WRITABLE: u32 = 0x80FF_FFFC;
    /// Bus, device and function.
    pub const CONFIG_BDF: u32 = 0x00FF_FF00;
    pub const CONFIG_BUS: u32 = 0x00FF_0000;
    pub const CONFIG_DEVICE_SHIFT: u32 = 11;
    pub const CONFIG_DEVICE: u32 = 0x1F << CONFIG_DEVICE_SHIFT;
    pub const CONFIG_FUNCTION: u32 = 0x700;
    pub const CONFIG_REGISTER: u32 = 0xFC;

    /// Vendor 8086H (Intel), device 2020H (DMI3 registers of a Xeon Scalable processor).
    pub const ID: u32 = 0x00;
    pub const ID_VALUE: u32 = 0x2020_8086;
    /// No capability list; memory space and bus mastering are hard-wired on.
    pub const COMMAND_STATUS: u32 = 0x04;
    pub const COMMAND_STATUS_VALUE: u32 = 0x0000_0006;
    /// Class 060000H: host bridge.
    pub const CLASS_REVISION: u32 = 0x08;
    pub const CLASS_REVISION_VALUE: u32 = 0x0600_0004;
    /// Subsystem: Intel.
    pub const SUBSYSTEM: u32 = 0x2C;
    pub const SUBSYSTEM_VALUE: u32 = 0x0000_8086;
}
use spec::*;

/// The host bridge's two configuration ports.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize)]
pub struct PciHost {
    address: u32,
}

impl PciHost {
    /// CONFIG_ADDRESS; only doubleword accesses reach it.
    pub fn address(&self) -> u32 {
        self.address
    }

    pub fn set_address(&mut self, value: u32) {
        self.address = value & CONFIG_WRITABLE;
    }

    /// The register (a multiple of 4) that CONFIG_DATA reaches, if it is one of function 0 of this device on bus 0.
    pub fn selects(&self, device: u8) -> Option<u8> {
        let on_bus_0 = self.address & (CONFIG_ENABLE | CONFIG_BUS | CONFIG_FUNCTION) == CONFIG_ENABLE;
        let selected = (self.address & CONFIG_DEVICE) >> CONFIG_DEVICE_SHIFT == u32::from(device);
        (on_bus_0 && selected).then_some((self.address & CONFIG_REGISTER) as u8)
    }

    /// Reads `size` bytes at byte `offset` (0 to 3) of CONFIG_DATA. All ones where no function answers.
    pub fn read_data(&self, offset: u16, size: u8) -> u32 {
        let mask = if size >= 4 { u32::MAX } else { (1 << (8 * u32::from(size))) - 1 };
        if self.address & CONFIG_ENABLE == 0 || self.address & CONFIG_BDF != 0 {
            return mask;
        }
        let value = match self.address & CONFIG_REGISTER {
            ID => ID_VALUE,
            COMMAND_STATUS => COMMAND_STATUS_VALUE,
            CLASS_REVISION => CLASS_REVISION_VALUE,
            SUBSYSTEM => SUBSYSTEM_VALUE,
            _ => 0,
        };
        value >> (8 * u32::from(offset & 3)) & mask
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bdf: u32, register: u32, size: u8) -> u32 {
        let mut host = PciHost::default();
        host.set_address(CONFIG_ENABLE | bdf << 8 | register & !3);
        host.read_data((register & 3) as u16, size)
    }

    #[test]
    fn host_bridge_answers_at_0_0_0() {
        assert_eq!(read(0, 0, 4), 0x2020_8086);
        assert_eq!(read(0, 0x0A, 2), 0x0600);
        assert_eq!(read(0, 0x0E, 1), 0);
        assert!((0x10..0x28).step_by(4).all(|bar| read(0, bar, 4) == 0));
    }

    #[test]
    fn everything_else_reads_all_ones() {
        assert!((1..0x10000).all(|bdf| read(bdf, 0, 4) == u32::MAX));
        assert_eq!(read(8, 0, 2), 0xFFFF);
        let host = PciHost { address: 0 };
        assert_eq!(host.read_data(0, 4), u32::MAX, "mechanism not enabled");
    }

    #[test]
    fn a_device_is_selected_by_its_number_on_bus_0_and_function_0() {
        let selects = |address| PciHost { address }.selects(1);
        assert_eq!(selects(CONFIG_ENABLE | 1 << 11 | 0x40), Some(0x40));
        for address in [1 << 11, CONFIG_ENABLE, CONFIG_ENABLE | 3 << 11, CONFIG_ENABLE | 1 << 16 | 1 << 11] {
            assert_eq!(selects(address), None);
        }
        assert_eq!(selects(CONFIG_ENABLE | 1 << 11 | 1 << 8), None);
    }

    #[test]
    fn linux_probe_of_mechanism_1_reads_back_the_enable_bit() {
        let mut host = PciHost::default();
        host.set_address(0x8000_0000);
        assert_eq!(host.address(), 0x8000_0000);
        host.set_address(u32::MAX);
        assert_eq!(host.address(), 0x80FF_FFFC);
    }
}
