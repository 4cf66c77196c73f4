//! The local APIC's timer (SDM Vol. 3A 11.5.4): one-shot, periodic, TSC-deadline.

use crate::layout::LAPIC_TIMER_HZ;

/// Nanoseconds of one input clock, before the divider.
const NS_PER_CLOCK: u64 = 1_000_000_000 / LAPIC_TIMER_HZ;
const _: () = assert!(NS_PER_CLOCK * LAPIC_TIMER_HZ == 1_000_000_000);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum TimerMode {
    OneShot,
    Periodic,
    TscDeadline,
    /// Encoding 11b: the timer does not run.
    Reserved,
}

impl TimerMode {
    /// LVT timer bits 18:17.
    pub fn from_bits(bits: u32) -> Self {
        match bits & 3 {
            0 => TimerMode::OneShot,
            1 => TimerMode::Periodic,
            2 => TimerMode::TscDeadline,
            _ => TimerMode::Reserved,
        }
    }
}

/// Timer state. Times are nanoseconds of virtual time.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct ApicTimer {
    mode: TimerMode,
    divide_configuration: u32,
    initial_count: u32,
    /// Next expiry while armed.
    expiry: Option<u64>,
    /// IA32_TSC_DEADLINE; zero when disarmed.
    deadline: u64,
}

impl Default for ApicTimer {
    fn default() -> Self {
        Self::new()
    }
}

impl ApicTimer {
    pub fn new() -> Self {
        ApicTimer { mode: TimerMode::OneShot, divide_configuration: 0, initial_count: 0, expiry: None, deadline: 0 }
    }

    pub fn divide_configuration(&self) -> u32 {
        self.divide_configuration
    }

    /// Writes the divide configuration register (bits 3, 1, 0). A running count goes on at the new rate.
    pub fn set_divide_configuration(&mut self, now: u64, value: u32) {
        let left = self.clocks_left(now);
        self.divide_configuration = value;
        if let (Some(left), true) = (left, self.counts()) {
            self.expiry = Some(now.saturating_add(left * self.clock()));
        }
    }

    /// The LVT timer entry's mode field was written. A change disarms the timer (11.5.4.1).
    pub fn set_mode(&mut self, mode: TimerMode) {
        if mode != self.mode {
            let divide_configuration = self.divide_configuration;
            *self = ApicTimer { mode, divide_configuration, ..ApicTimer::new() };
        }
    }

    pub fn initial_count(&self) -> u32 {
        self.initial_count
    }

    /// Writes the initial count, which starts the timer (zero stops it). Ignored in TSC-deadline mode.
    pub fn set_initial_count(&mut self, now: u64, value: u32) {
        if self.counts() {
            self.initial_count = value;
            self.expiry = (value != 0).then(|| now.saturating_add(self.period()));
        }
    }

    /// The current-count register. Zero in TSC-deadline mode.
    pub fn current_count(&self, now: u64) -> u32 {
        if !self.counts() {
            return 0;
        }
        self.clocks_left(now).map_or(0, |left| left as u32)
    }

    /// IA32_TSC_DEADLINE as read at `now`.
    pub fn deadline(&self, now: u64) -> u64 {
        if self.expiry.is_some_and(|expiry| expiry > now) { self.deadline } else { 0 }
    }

    /// WRMSR IA32_TSC_DEADLINE; `tsc_offset` is TSC minus `now`. Ignored outside TSC-deadline mode.
    pub fn set_deadline(&mut self, now: u64, deadline: u64, tsc_offset: u64) {
        if self.mode != TimerMode::TscDeadline {
            return;
        }
        self.deadline = deadline;
        let left = deadline.saturating_sub(now.wrapping_add(tsc_offset));
        self.expiry = (deadline != 0).then(|| now.saturating_add(left));
    }

    /// The TSC was written: an armed deadline means another time now.
    pub fn tsc_changed(&mut self, now: u64, tsc_offset: u64) {
        if self.mode == TimerMode::TscDeadline && self.expiry.is_some() {
            self.set_deadline(now, self.deadline, tsc_offset);
        }
    }

    /// Next expiry.
    pub fn expiry(&self) -> Option<u64> {
        self.expiry
    }

    /// True if the timer expired (once or more) until `now`; re-arms a periodic one.
    pub fn expire(&mut self, now: u64) -> bool {
        let Some(expiry) = self.expiry.filter(|expiry| *expiry <= now) else { return false };
        self.expiry = None;
        self.deadline = 0;
        if self.mode == TimerMode::Periodic {
            let period = self.period();
            let missed = (now - expiry) / period;
            self.expiry = Some(expiry.saturating_add((missed + 1).saturating_mul(period)));
        }
        true
    }

    fn counts(&self) -> bool {
        matches!(self.mode, TimerMode::OneShot | TimerMode::Periodic)
    }

    /// Nanoseconds per count: 000b divides by 2, 110b by 128, 111b by 1 (figure 11-10).
    fn clock(&self) -> u64 {
        let code = self.divide_configuration & 3 | self.divide_configuration >> 1 & 4;
        NS_PER_CLOCK << ((code + 1) & 7)
    }

    fn period(&self) -> u64 {
        u64::from(self.initial_count) * self.clock()
    }

    fn clocks_left(&self, now: u64) -> Option<u64> {
        self.expiry.filter(|expiry| *expiry > now).map(|expiry| (expiry - now).div_ceil(self.clock()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_shot_counts_down_at_25_mhz_over_the_divider() {
        let mut t = ApicTimer::new();
        for (divide, factor) in [(0b1011, 1), (0, 2), (1, 4), (2, 8), (3, 16), (8, 32), (9, 64), (10, 128)] {
            t.set_divide_configuration(0, divide);
            t.set_initial_count(0, 1000);
            assert_eq!(t.expiry(), Some(1000 * 40 * factor));
            assert_eq!(t.current_count(40 * factor), 999);
            assert_eq!(t.current_count(40 * factor - 1), 1000);
        }
        assert!(!t.expire(1000 * 40 * 128 - 1));
        assert!(t.expire(1000 * 40 * 128));
        assert_eq!((t.current_count(9_000_000), t.expiry()), (0, None));
    }

    #[test]
    fn periodic_reloads_without_drift() {
        let mut t = ApicTimer::new();
        t.set_mode(TimerMode::Periodic);
        t.set_divide_configuration(0, 0b1011);
        t.set_initial_count(7, 25);
        assert!(t.expire(1007 + 10));
        assert_eq!(t.expiry(), Some(2007));
        assert!(t.expire(1_000_500));
        assert_eq!(t.expiry(), Some(1_001_007));
        assert_eq!(t.current_count(1_000_807), 5);
        t.set_initial_count(1_000_900, 0);
        assert_eq!(t.expiry(), None);
    }

    #[test]
    fn tsc_deadline_fires_when_the_tsc_reaches_it_and_then_reads_zero() {
        let mut t = ApicTimer::new();
        t.set_deadline(0, 5000, 0);
        assert_eq!(t.expiry(), None, "ignored in one-shot mode");
        t.set_mode(TimerMode::TscDeadline);
        t.set_initial_count(0, 100);
        assert_eq!((t.expiry(), t.current_count(0)), (None, 0));
        t.set_deadline(1000, 5000, 2000);
        assert_eq!(t.expiry(), Some(3000));
        assert_eq!((t.deadline(2999), t.deadline(3000)), (5000, 0));
        t.set_deadline(1000, 5000, 6000);
        assert!(t.expire(1000), "a deadline in the past fires at once");
        t.set_deadline(1000, 500, 0u64.wrapping_sub(900));
        assert_eq!(t.expiry(), Some(1400), "the TSC may be behind virtual time");
        t.tsc_changed(1000, 0);
        assert_eq!(t.expiry(), Some(1000));
        t.set_deadline(1000, 0, 0);
        assert_eq!(t.expiry(), None);
        t.set_deadline(1000, u64::MAX, 0);
        assert!(!t.expire(1 << 62));
    }

    #[test]
    fn changing_the_mode_disarms_and_changing_the_divider_rescales() {
        let mut t = ApicTimer::new();
        t.set_divide_configuration(0, 0b1011);
        t.set_initial_count(0, 1000);
        t.set_divide_configuration(500 * 40, 0);
        assert_eq!(t.expiry(), Some(500 * 40 + 500 * 80));
        t.set_mode(TimerMode::Periodic);
        assert_eq!((t.expiry(), t.initial_count()), (None, 0));
    }
}
