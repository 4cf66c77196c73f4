//! ACPI fixed hardware: PM1a event and control blocks, PM timer (ACPI 6.5 section 4.8).
//!
//! The machine is born in ACPI mode: FADT SMI_CMD is zero, so SCI_EN is always set. There is no GPE block. The RTC's alarm
//! is a fixed event (FADT FIX_RTC clear).

use crate::clock;
use crate::layout::{PM_TIMER_HZ, SLP_TYP_S5};

/// Offsets from PM1A_EVT_BLK, and the bits of section 4.8.3.
pub mod spec {
    pub const PM1_STS: u16 = 0;
    pub const PM1_EN: u16 = 2;
    pub const PM1_CNT: u16 = 4;
    pub const PM_TMR: u16 = 8;
    /// Bytes from PM1_STS to the end of PM_TMR. Bytes 6 and 7 are not decoded.
    pub const BLOCK: u16 = 12;

    /// The same positions in PM1_STS and PM1_EN.
    pub const TMR: u16 = 1 << 0;
    pub const GBL: u16 = 1 << 5;
    pub const PWRBTN: u16 = 1 << 8;
    pub const RTC: u16 = 1 << 10;
    /// Status only.
    pub const BM_STS: u16 = 1 << 4;
    pub const WAK_STS: u16 = 1 << 15;

    pub const SCI_EN: u16 = 1 << 0;
    pub const BM_RLD: u16 = 1 << 1;
    pub const SLP_TYP_SHIFT: u32 = 10;
    pub const SLP_TYP: u16 = 7 << SLP_TYP_SHIFT;
    pub const SLP_EN: u16 = 1 << 13;
}
use spec::*;

const STATUS_BITS: u16 = TMR | BM_STS | GBL | PWRBTN | RTC | WAK_STS;
const ENABLE_BITS: u16 = TMR | GBL | PWRBTN | RTC;

/// The PM1a block and the timer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct AcpiPm {
    status: u16,
    enable: u16,
    control: u16,
    /// PM timer ticks until which TMR_STS is up to date.
    synced: u64,
    /// The RTC's alarm interrupt as last seen.
    rtc_alarm: bool,
}

impl Default for AcpiPm {
    fn default() -> Self {
        Self::new()
    }
}

impl AcpiPm {
    pub fn new() -> Self {
        AcpiPm { status: 0, enable: 0, control: SCI_EN, synced: 0, rtc_alarm: false }
    }

    /// Platform reset; the timer goes on counting.
    pub fn reset(&mut self) {
        *self = AcpiPm { synced: self.synced, ..AcpiPm::new() };
    }

    /// Sets TMR_STS if the timer's top bit changed until `now`.
    pub fn sync(&mut self, now: u64) {
        let ticks = clock::ticks_at(now, PM_TIMER_HZ);
        if ticks >> 31 != self.synced >> 31 {
            self.status |= TMR;
        }
        self.synced = ticks;
    }

    /// Level of the SCI.
    pub fn sci(&self) -> bool {
        self.status & self.enable != 0
    }

    /// Nanosecond at which TMR_STS raises the SCI, if it is enabled.
    pub fn next_event(&self) -> Option<u64> {
        let armed = self.enable & !self.status & TMR != 0;
        armed.then(|| clock::time_of_tick(((self.synced >> 31) + 1) << 31, PM_TIMER_HZ))
    }

    /// Follows the RTC's alarm interrupt: "this bit is set when the RTC generates an alarm (asserts the RTC IRQ signal)".
    pub fn set_rtc_alarm(&mut self, active: bool) {
        if active && !self.rtc_alarm {
            self.status |= RTC;
        }
        self.rtc_alarm = active;
    }

    /// True when an alarm would raise the SCI.
    pub fn wants_rtc_alarm(&self) -> bool {
        self.enable & !self.status & RTC != 0
    }

    /// The power button: PWRBTN_STS, and the SCI if the operating system listens.
    pub fn press_power_button(&mut self) {
        self.status |= PWRBTN;
    }

    /// Byte `offset` of the block; `None` where nothing decodes.
    pub fn read(&self, now: u64, offset: u16) -> Option<u8> {
        let byte_of = |value: u32, register: u16| (value >> (8 * (offset - register))) as u8;
        match offset {
            PM1_STS..PM1_EN => Some(byte_of(self.status.into(), PM1_STS)),
            PM1_EN..PM1_CNT => Some(byte_of(self.enable.into(), PM1_EN)),
            PM1_CNT..6 => Some(byte_of(self.control.into(), PM1_CNT)),
            PM_TMR..BLOCK => Some(byte_of(clock::ticks_at(now, PM_TIMER_HZ) as u32, PM_TMR)),
            _ => None,
        }
    }

    /// Writes byte `offset` of the block. True when this orders S5.
    pub fn write(&mut self, offset: u16, value: u8) -> bool {
        let high = offset & 1 != 0;
        let word = u16::from(value) << (8 * (offset & 1));
        let keep = if high { 0x00FF } else { 0xFF00 };
        match offset {
            // Written with ones to clear.
            PM1_STS..PM1_EN => self.status &= !(word & STATUS_BITS),
            PM1_EN..PM1_CNT => self.enable = (self.enable & keep | word) & ENABLE_BITS,
            PM1_CNT..6 => {
                self.control = (self.control & keep | word) & (BM_RLD | SLP_TYP) | SCI_EN;
                let sleep_type = (word & SLP_TYP) >> SLP_TYP_SHIFT;
                return word & SLP_EN != 0 && sleep_type == u16::from(SLP_TYP_S5);
            }
            _ => {}
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timer(pm: &AcpiPm, now: u64) -> u32 {
        (0..4).fold(0, |sum, i| sum | u32::from(pm.read(now, PM_TMR + i).unwrap()) << (8 * i))
    }

    #[test]
    fn pm_timer_runs_at_3_579545_mhz_and_wraps_at_32_bits() {
        let pm = AcpiPm::new();
        assert_eq!(timer(&pm, 1_000_000_000), 3_579_545);
        assert_eq!(timer(&pm, 3_600_000_000_000), (3_579_545u64 * 3600) as u32);
    }

    #[test]
    fn toggling_the_top_bit_raises_the_sci_if_enabled() {
        let mut pm = AcpiPm::new();
        assert_eq!(pm.next_event(), None);
        pm.write(PM1_EN, TMR as u8);
        let event = pm.next_event().unwrap();
        pm.sync(event - 1);
        assert!(!pm.sci());
        pm.sync(event);
        assert!(pm.sci());
        assert_eq!(timer(&pm, event), 1 << 31);
        pm.write(PM1_STS, TMR as u8);
        assert!(!pm.sci());
        pm.sync(pm.next_event().unwrap());
        assert!(pm.sci());
    }

    #[test]
    fn only_slp_en_with_the_type_of_s5_powers_off() {
        let mut pm = AcpiPm::new();
        assert!(!pm.write(PM1_CNT + 1, SLP_TYP_S5 << 2));
        assert_eq!(pm.read(0, PM1_CNT + 1), Some(SLP_TYP_S5 << 2));
        assert!(!pm.write(PM1_CNT + 1, 1 << 5 | 1 << 2));
        assert!(pm.write(PM1_CNT + 1, 1 << 5 | SLP_TYP_S5 << 2));
        assert_eq!(pm.read(0, PM1_CNT + 1), Some(SLP_TYP_S5 << 2), "SLP_EN reads as zero");
    }

    #[test]
    fn the_machine_is_always_in_acpi_mode() {
        let mut pm = AcpiPm::new();
        pm.write(PM1_CNT, 0);
        assert_eq!(pm.read(0, PM1_CNT), Some(SCI_EN as u8));
    }

    #[test]
    fn rtc_status_is_set_by_the_edge_of_an_alarm() {
        let mut pm = AcpiPm::new();
        pm.write(PM1_EN + 1, (RTC >> 8) as u8);
        assert_eq!(pm.read(0, PM1_EN + 1), Some((RTC >> 8) as u8), "what ACPICA checks after enabling the event");
        assert!(pm.wants_rtc_alarm());
        pm.set_rtc_alarm(true);
        assert!(pm.sci() && !pm.wants_rtc_alarm());
        pm.write(PM1_STS + 1, (RTC >> 8) as u8);
        pm.set_rtc_alarm(true);
        assert!(!pm.sci(), "the same alarm");
        pm.set_rtc_alarm(false);
        pm.set_rtc_alarm(true);
        assert!(pm.sci());
    }

    #[test]
    fn power_button_status_is_cleared_by_writing_one() {
        let mut pm = AcpiPm::new();
        pm.write(PM1_EN + 1, (PWRBTN >> 8) as u8);
        pm.press_power_button();
        assert!(pm.sci());
        pm.write(PM1_STS, 0xFF);
        assert!(pm.sci());
        pm.write(PM1_STS + 1, (PWRBTN >> 8) as u8);
        assert!(!pm.sci());
    }
}
