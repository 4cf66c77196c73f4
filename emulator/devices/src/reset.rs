//! Ways in which a guest resets its processor or its platform by a port write: CF9H, 92H, 64H.

use x86::platform::ResetKind;

/// Bits, in port order.
mod spec {
    /// Keyboard controller command: pulse output port bit 0, the reset line.
    pub const KBC_PULSE_RESET: u8 = 0xFE;
    /// Port 92H.
    pub const P92_INIT_NOW: u8 = 1 << 0;
    pub const P92_A20: u8 = 1 << 1;
    /// Port CF9H (Intel ICH data sheet, "Reset Control Register").
    pub const RST_CNT_SYS_RST: u8 = 1 << 1;
    pub const RST_CNT_RST_CPU: u8 = 1 << 2;
    pub const RST_CNT_FULL_RST: u8 = 1 << 3;
}
use spec::*;

/// The reset ports' state.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize)]
pub struct ResetPorts {
    port_92: u8,
    reset_control: u8,
}

impl ResetPorts {
    /// Write to port 64H. The controller itself is absent. Its reset line is the chip set's RCIN#, which makes INIT# (Intel ICH
    /// data sheet, "INIT# going active").
    pub fn write_keyboard_command(&self, value: u8) -> Option<ResetKind> {
        (value == KBC_PULSE_RESET).then_some(ResetKind::Init)
    }

    /// A20 is never masked.
    pub fn read_port_92(&self) -> u8 {
        self.port_92 | P92_A20
    }

    /// INIT# on the rising edge of bit 0.
    pub fn write_port_92(&mut self, value: u8) -> Option<ResetKind> {
        let rising = value & !self.port_92 & P92_INIT_NOW != 0;
        self.port_92 = value & P92_INIT_NOW;
        rising.then_some(ResetKind::Init)
    }

    pub fn read_reset_control(&self) -> u8 {
        self.reset_control
    }

    /// The rising edge of RST_CPU resets: INIT# only, or with SYS_RST the platform, or with FULL_RST by a power cycle.
    pub fn write_reset_control(&mut self, value: u8) -> Option<ResetKind> {
        let rising = value & !self.reset_control & RST_CNT_RST_CPU != 0;
        self.reset_control = value & (RST_CNT_SYS_RST | RST_CNT_RST_CPU | RST_CNT_FULL_RST);
        rising.then_some(match (value & RST_CNT_SYS_RST != 0, value & RST_CNT_FULL_RST != 0) {
            (false, _) => ResetKind::Init,
            (true, false) => ResetKind::Warm,
            (true, true) => ResetKind::Cold,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cf9_resets_on_the_rising_edge_of_rst_cpu() {
        let mut r = ResetPorts::default();
        assert_eq!(r.write_reset_control(0x02), None);
        assert_eq!(r.write_reset_control(0x06), Some(ResetKind::Warm));
        assert_eq!(r.write_reset_control(0x06), None);
        assert_eq!(r.write_reset_control(0x0A), None);
        assert_eq!(r.write_reset_control(0x0E), Some(ResetKind::Cold));
        r.write_reset_control(0);
        assert_eq!(r.write_reset_control(0x04), Some(ResetKind::Init));
        assert_eq!(r.read_reset_control(), 0x04);
    }

    #[test]
    fn port_92_keeps_a20_on_and_pulses_init() {
        let mut r = ResetPorts::default();
        assert_eq!(r.write_port_92(0), None);
        assert_eq!(r.read_port_92(), 0x02);
        assert_eq!(r.write_port_92(0x03), Some(ResetKind::Init));
        assert_eq!(r.write_port_92(0x03), None);
    }

    #[test]
    fn only_the_pulse_command_resets_at_port_64() {
        let r = ResetPorts::default();
        assert_eq!(r.write_keyboard_command(0xFE), Some(ResetKind::Init));
        assert_eq!(r.write_keyboard_command(0xD1), None);
    }
}
