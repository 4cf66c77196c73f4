//! 8254 programmable interval timer (Intel 8254 data sheet 231164) and its gate and output at port 61H.
//!
//! Nothing counts: every counter is a function of the clock tick at which it was loaded, so reading costs no events
//! and long sleeps cost no time. Only the output of counter 0 makes events.

use crate::clock;
use crate::layout::PIT_HZ;

/// Control word and status, in data sheet order.
mod spec {
    pub const CONTROL_BCD: u8 = 1 << 0;
    pub const CONTROL_MODE_SHIFT: u32 = 1;
    pub const CONTROL_RW_SHIFT: u32 = 4;
    pub const CONTROL_SC_SHIFT: u32 = 6;
    /// SC value of the read-back command.
    pub const SC_READ_BACK: u8 = 3;
    /// Read-back: active low.
    pub const READ_BACK_NO_COUNT: u8 = 1 << 5;
    pub const READ_BACK_NO_STATUS: u8 = 1 << 4;
    pub const STATUS_OUTPUT: u8 = 1 << 7;
    pub const STATUS_NULL_COUNT: u8 = 1 << 6;
    /// Port 61H.
    pub const PORT_B_GATE2: u8 = 1 << 0;
    pub const PORT_B_WRITABLE: u8 = 0x0F;
    pub const PORT_B_REFRESH: u8 = 1 << 4;
    pub const PORT_B_OUT2: u8 = 1 << 5;
    /// Input clocks between toggles of the refresh bit: 15.085 us, the ISA refresh period.
    pub const REFRESH_TICKS: u64 = 18;
}
use spec::*;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
enum Mode {
    InterruptOnTerminalCount,
    HardwareOneShot,
    RateGenerator,
    SquareWave,
    SoftwareStrobe,
    HardwareStrobe,
}

impl Mode {
    /// Bits 3:1 of the control word; 6 and 7 are 2 and 3.
    fn from_bits(bits: u8) -> Self {
        match bits & 7 {
            0 => Mode::InterruptOnTerminalCount,
            1 => Mode::HardwareOneShot,
            2 | 6 => Mode::RateGenerator,
            3 | 7 => Mode::SquareWave,
            4 => Mode::SoftwareStrobe,
            _ => Mode::HardwareStrobe,
        }
    }

    fn periodic(self) -> bool {
        matches!(self, Mode::RateGenerator | Mode::SquareWave)
    }

    /// Modes that a rising gate starts, not the count.
    fn triggered(self) -> bool {
        matches!(self, Mode::HardwareOneShot | Mode::HardwareStrobe)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
enum ByteAccess {
    Low,
    High,
    LowThenHigh,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
enum Counting {
    /// Waiting for a count.
    Stopped,
    /// The counting element held `length` at this tick.
    Since(i64),
    /// The gate stopped it after this many clocks (modes 0 and 4), or it idles until the gate rises (the others).
    Gated(i64),
}

/// One of the three counters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
struct Counter {
    control: u8,
    mode: Mode,
    access: ByteAccess,
    gate: bool,
    /// Clocks of one run, 1 to 65,536 (10,000 in BCD).
    length: i64,
    counting: Counting,
    /// A count written to a running periodic counter, for its next (half) period.
    next_length: Option<i64>,
    low_byte_written: Option<u8>,
    high_byte_next: bool,
    latched_count: Option<u16>,
    latched_status: Option<u8>,
    /// The tick up to which reloads are done.
    synced: i64,
}

impl Counter {
    fn new(gate: bool) -> Self {
        Counter {
            control: 0,
            mode: Mode::InterruptOnTerminalCount,
            access: ByteAccess::LowThenHigh,
            gate,
            length: 0x1_0000,
            counting: Counting::Stopped,
            next_length: None,
            low_byte_written: None,
            high_byte_next: false,
            latched_count: None,
            latched_status: None,
            synced: 0,
        }
    }

    fn bcd(&self) -> bool {
        self.control & CONTROL_BCD != 0
    }

    /// The high half of a square wave is the longer one when the count is odd.
    fn high_half(length: i64) -> i64 {
        (length + 1) / 2
    }

    /// OUT at `tick`.
    fn output(&self, tick: i64) -> bool {
        let Counting::Since(start) = self.counting else {
            return match self.mode {
                Mode::InterruptOnTerminalCount => {
                    matches!(self.counting, Counting::Gated(elapsed) if elapsed >= self.length)
                }
                _ => true,
            };
        };
        let elapsed = tick - start;
        match self.mode {
            Mode::InterruptOnTerminalCount | Mode::HardwareOneShot => elapsed >= self.length,
            _ if elapsed < 0 => true,
            Mode::RateGenerator => elapsed % self.length != self.length - 1,
            Mode::SquareWave => elapsed % self.length < Self::high_half(self.length),
            Mode::SoftwareStrobe | Mode::HardwareStrobe => elapsed != self.length,
        }
    }

    /// The first tick after `tick` at which OUT rises, with the present count.
    fn next_rise(&self, tick: i64) -> Option<i64> {
        let Counting::Since(start) = self.counting else { return None };
        let once = match self.mode {
            Mode::InterruptOnTerminalCount | Mode::HardwareOneShot => start + self.length,
            Mode::SoftwareStrobe | Mode::HardwareStrobe => start + self.length + 1,
            Mode::RateGenerator | Mode::SquareWave => {
                let periods = (tick - start).div_euclid(self.length) + 1;
                return Some(start + periods.max(1) * self.length);
            }
        };
        (once > tick).then_some(once)
    }

    /// The first tick after `tick` at which an interrupt controller must look at OUT. The one-clock low pulses of
    /// modes 2 and 4 are seen at their end: nothing can be acknowledged in between.
    fn next_event(&self, tick: i64) -> Option<i64> {
        let rise = self.next_rise(tick)?;
        if self.mode == Mode::SquareWave {
            let fall = rise - self.length + Self::high_half(self.length);
            if fall > tick {
                return Some(fall);
            }
        }
        Some(rise)
    }

    /// End of the (half) period at which a waiting count is taken over.
    fn next_reload(&self, tick: i64) -> Option<i64> {
        self.next_length.and(self.next_event(tick))
    }

    /// Runs to `tick`. True if OUT rose on the way.
    fn sync(&mut self, tick: i64) -> bool {
        let mut rose = false;
        while let Some(boundary) = self.next_reload(self.synced).filter(|boundary| *boundary <= tick) {
            let rise = self.next_rise(self.synced) == Some(boundary);
            rose |= rise;
            if let Some(length) = self.next_length.take() {
                self.length = length;
                let phase = if rise { 0 } else { Self::high_half(length) };
                self.counting = Counting::Since(boundary - phase);
            }
            self.synced = boundary;
        }
        rose |= self.next_rise(self.synced).is_some_and(|rise| rise <= tick);
        self.synced = tick;
        rose
    }

    /// The counting element at `tick`, as read.
    fn count(&self, tick: i64) -> u16 {
        let elapsed = match self.counting {
            Counting::Since(start) => (tick - start).max(0),
            Counting::Gated(elapsed) => elapsed,
            Counting::Stopped => 0,
        };
        let length = self.length;
        let value = match self.mode {
            Mode::RateGenerator => length - elapsed % length,
            Mode::SquareWave => {
                let phase = elapsed % length;
                let high = Self::high_half(length);
                // An odd count is loaded minus one; both halves count down by two.
                let into_half = if phase < high { phase } else { phase - high };
                (length & !1) - 2 * into_half
            }
            // These go on below zero.
            _ => length - elapsed,
        };
        if self.bcd() {
            let value = value.rem_euclid(10_000) as u16;
            (value / 1000) << 12 | (value / 100 % 10) << 8 | (value / 10 % 10) << 4 | (value % 10)
        } else {
            value as u16
        }
    }

    fn status(&self, tick: i64) -> u8 {
        let null = match self.counting {
            Counting::Stopped => true,
            Counting::Since(start) => self.next_length.is_some() || start > tick,
            Counting::Gated(_) => self.next_length.is_some() || self.mode.triggered(),
        };
        let out = if self.output(tick) { STATUS_OUTPUT } else { 0 };
        out | if null { STATUS_NULL_COUNT } else { 0 } | self.control & 0x3F
    }

    fn write_control(&mut self, value: u8, tick: i64) {
        match value >> CONTROL_RW_SHIFT & 3 {
            // Counter latch: the first one stays until it is read.
            0 => {
                if self.latched_count.is_none() {
                    self.latched_count = Some(self.count(tick));
                }
                return;
            }
            1 => self.access = ByteAccess::Low,
            2 => self.access = ByteAccess::High,
            _ => self.access = ByteAccess::LowThenHigh,
        }
        self.control = value & 0x3F;
        self.mode = Mode::from_bits(value >> CONTROL_MODE_SHIFT);
        self.counting = Counting::Stopped;
        self.next_length = None;
        self.low_byte_written = None;
        self.high_byte_next = false;
        self.latched_count = None;
        self.latched_status = None;
    }

    fn write_count(&mut self, value: u8, tick: i64) {
        let raw = match (self.access, self.low_byte_written.take()) {
            (ByteAccess::Low, _) => u16::from(value),
            (ByteAccess::High, _) => u16::from(value) << 8,
            (ByteAccess::LowThenHigh, None) => {
                self.low_byte_written = Some(value);
                // In mode 0 the first byte stops the counting and sets OUT low.
                if self.mode == Mode::InterruptOnTerminalCount {
                    self.counting = Counting::Stopped;
                }
                return;
            }
            (ByteAccess::LowThenHigh, Some(low)) => u16::from(low) | u16::from(value) << 8,
        };
        let length = if self.bcd() {
            let digits = (0..4).rev().fold(0, |sum, digit| sum * 10 + i64::from(raw >> (4 * digit) & 0xF) % 10);
            if digits == 0 { 10_000 } else { digits }
        } else if raw == 0 {
            0x1_0000
        } else {
            i64::from(raw)
        };
        // "A COUNT of 1 is illegal" in the periodic modes.
        self.load(if self.mode.periodic() { length.max(2) } else { length }, tick);
    }

    fn load(&mut self, length: i64, tick: i64) {
        match self.counting {
            Counting::Since(_) if self.mode.periodic() => self.next_length = Some(length),
            _ if self.mode.triggered() => match self.counting {
                // The current pulse is not affected; the next trigger takes the new count.
                Counting::Since(_) => self.next_length = Some(length),
                _ => {
                    self.length = length;
                    self.counting = Counting::Gated(0);
                }
            },
            _ => {
                self.length = length;
                // Loaded by the next clock pulse.
                self.counting = match (self.gate, self.mode.periodic()) {
                    (true, _) => Counting::Since(tick + 1),
                    (false, _) => Counting::Gated(0),
                };
            }
        }
    }

    fn set_gate(&mut self, gate: bool, tick: i64) {
        if gate == self.gate {
            return;
        }
        self.gate = gate;
        if self.mode.triggered() {
            // Only with a count: after a control word alone there is nothing to start.
            if gate && self.counting != Counting::Stopped {
                if let Some(length) = self.next_length.take() {
                    self.length = length;
                }
                self.counting = Counting::Since(tick + 1);
            }
            return;
        }
        self.counting = match (self.counting, gate) {
            (Counting::Since(_), false) if self.mode.periodic() => Counting::Gated(0),
            (Counting::Since(start), false) => Counting::Gated(tick - start),
            (Counting::Gated(_), true) if self.mode.periodic() => {
                if let Some(length) = self.next_length.take() {
                    self.length = length;
                }
                Counting::Since(tick + 1)
            }
            (Counting::Gated(elapsed), true) => Counting::Since(tick - elapsed),
            (unchanged, _) => unchanged,
        };
    }

    fn read(&mut self, tick: i64) -> u8 {
        if let Some(status) = self.latched_status.take() {
            return status;
        }
        let count = self.latched_count.unwrap_or_else(|| self.count(tick));
        let high = match self.access {
            ByteAccess::Low => false,
            ByteAccess::High => true,
            ByteAccess::LowThenHigh => {
                let high = self.high_byte_next;
                self.high_byte_next = !high;
                high
            }
        };
        if !self.high_byte_next {
            self.latched_count = None;
        }
        if high { (count >> 8) as u8 } else { count as u8 }
    }
}

/// The 8254 and port 61H.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Pit {
    counters: [Counter; 3],
    /// Port 61H bits 3:0.
    port_b: u8,
}

impl Default for Pit {
    fn default() -> Self {
        Self::new()
    }
}

fn tick_at(now: u64) -> i64 {
    clock::ticks_at(now, PIT_HZ) as i64
}

impl Pit {
    /// True if the counters count with lengths that there are.
    pub(crate) fn is_valid(&self) -> bool {
        let length = |n: i64| (1..=0x1_0000).contains(&n);
        self.counters.iter().all(|c| length(c.length) && c.next_length.is_none_or(length))
    }

    pub fn new() -> Self {
        Pit { counters: [Counter::new(true), Counter::new(true), Counter::new(false)], port_b: 0 }
    }

    /// Runs counter 0 to `now` (nanoseconds). True if its output rose since the last call.
    pub fn sync(&mut self, now: u64) -> bool {
        let tick = tick_at(now);
        let [irq, refresh, speaker] = &mut self.counters;
        refresh.sync(tick);
        speaker.sync(tick);
        irq.sync(tick)
    }

    /// Level of counter 0's output, the IRQ 0 line.
    pub fn irq(&self, now: u64) -> bool {
        self.counters[0].output(tick_at(now))
    }

    /// Nanosecond of the next change of the IRQ 0 line after the last `sync`.
    pub fn next_event(&self) -> Option<u64> {
        let counter = &self.counters[0];
        let tick = counter.next_event(counter.synced)?;
        Some(clock::time_of_tick(u64::try_from(tick).unwrap_or(0), PIT_HZ))
    }

    /// Reads counter 0 to 2; the control word (3) cannot be read.
    pub fn read(&mut self, now: u64, register: u8) -> u8 {
        match self.counters.get_mut(usize::from(register & 3)) {
            Some(counter) => counter.read(tick_at(now)),
            None => 0xFF,
        }
    }

    /// Writes counter 0 to 2, or the control word (3). Call [`Pit::sync`] first.
    pub fn write(&mut self, now: u64, register: u8, value: u8) {
        let tick = tick_at(now);
        if let Some(counter) = self.counters.get_mut(usize::from(register & 3)) {
            counter.write_count(value, tick);
            return;
        }
        let select = value >> CONTROL_SC_SHIFT;
        if select == SC_READ_BACK {
            self.read_back(value, tick);
        } else {
            self.counters[usize::from(select)].write_control(value, tick);
        }
    }

    fn read_back(&mut self, command: u8, tick: i64) {
        for (index, counter) in self.counters.iter_mut().enumerate() {
            if command & 2 << index == 0 {
                continue;
            }
            if command & READ_BACK_NO_COUNT == 0 && counter.latched_count.is_none() {
                counter.latched_count = Some(counter.count(tick));
            }
            if command & READ_BACK_NO_STATUS == 0 && counter.latched_status.is_none() {
                counter.latched_status = Some(counter.status(tick));
            }
        }
    }

    /// Port 61H.
    pub fn read_port_b(&self, now: u64) -> u8 {
        let tick = clock::ticks_at(now, PIT_HZ);
        let refresh = if (tick / REFRESH_TICKS) & 1 != 0 { PORT_B_REFRESH } else { 0 };
        let out2 = if self.counters[2].output(tick as i64) { PORT_B_OUT2 } else { 0 };
        self.port_b | refresh | out2
    }

    /// Port 61H. Call [`Pit::sync`] first.
    pub fn write_port_b(&mut self, now: u64, value: u8) {
        self.port_b = value & PORT_B_WRITABLE;
        self.counters[2].set_gate(value & PORT_B_GATE2 != 0, tick_at(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nanosecond of clock `tick`.
    fn at(tick: u64) -> u64 {
        clock::time_of_tick(tick, PIT_HZ)
    }

    fn load(p: &mut Pit, tick: u64, counter: u8, control: u8, count: u16) {
        p.write(at(tick), 3, counter << 6 | 0x30 | control);
        p.write(at(tick), counter, count as u8);
        p.write(at(tick), counter, (count >> 8) as u8);
    }

    fn latch(p: &mut Pit, tick: u64, counter: u8) -> u16 {
        p.write(at(tick), 3, counter << 6);
        u16::from(p.read(at(tick + 50), counter)) | u16::from(p.read(at(tick + 60), counter)) << 8
    }

    #[test]
    fn mode_0_rises_once_after_the_count_plus_one() {
        let mut p = Pit::new();
        load(&mut p, 0, 0, 0, 100);
        assert!(!p.irq(at(0)));
        assert_eq!(p.next_event(), Some(at(101)));
        assert!(!p.sync(at(100)));
        assert!(!p.irq(at(100)));
        assert!(p.sync(at(101)));
        assert!(p.irq(at(101)));
        assert!(!p.sync(at(100_000)));
        assert_eq!(p.next_event(), None);
        assert_eq!(latch(&mut p, 102, 0), 0xFFFF, "it counts on below zero");
    }

    #[test]
    fn mode_2_rises_every_period_without_drift() {
        let mut p = Pit::new();
        load(&mut p, 0, 0, 4, 1193);
        for period in 1..=10_000u64 {
            let event = p.next_event().unwrap();
            assert_eq!(event, at(1 + period * 1193));
            assert!(p.sync(event));
            assert!(p.irq(event));
        }
        assert!(!p.irq(at(1 + 10_001 * 1193 - 1)), "low for the last clock");
    }

    #[test]
    fn a_long_sleep_is_one_step() {
        let mut p = Pit::new();
        load(&mut p, 0, 0, 4, 2);
        assert!(p.sync(3_600_000_000_000));
        assert!(!p.sync(3_600_000_000_000));
    }

    #[test]
    fn mode_2_counts_from_n_to_1() {
        let mut p = Pit::new();
        load(&mut p, 0, 0, 4, 1000);
        assert_eq!(latch(&mut p, 1, 0), 1000);
        assert_eq!(latch(&mut p, 1000, 0), 1);
        assert_eq!(latch(&mut p, 1001, 0), 1000);
    }

    #[test]
    fn mode_2_takes_a_new_count_at_the_end_of_the_period() {
        let mut p = Pit::new();
        load(&mut p, 0, 0, 4, 100);
        p.sync(at(50));
        p.write(at(50), 0, 10);
        p.write(at(50), 0, 0);
        assert_eq!(p.next_event(), Some(at(101)));
        assert!(p.sync(at(101)));
        assert_eq!(p.next_event(), Some(at(111)));
    }

    #[test]
    fn mode_3_is_high_longer_when_odd_and_counts_by_two() {
        let mut p = Pit::new();
        load(&mut p, 0, 0, 6, 5);
        let levels: Vec<bool> = (1..11).map(|tick| p.irq(at(tick))).collect();
        assert_eq!(levels, [true, true, true, false, false, true, true, true, false, false]);
        load(&mut p, 0, 0, 6, 10);
        assert_eq!(latch(&mut p, 1, 0), 10);
        assert_eq!(latch(&mut p, 5, 0), 2);
        assert_eq!(latch(&mut p, 6, 0), 10);
        p.sync(at(3));
        assert_eq!(p.next_event(), Some(at(6)), "falling edge");
        assert!(!p.sync(at(6)));
        assert_eq!(p.next_event(), Some(at(11)));
        assert!(p.sync(at(11)));
    }

    #[test]
    fn mode_4_pulses_low_for_one_clock() {
        let mut p = Pit::new();
        load(&mut p, 0, 0, 8, 20);
        let low: Vec<u64> = (0..100).filter(|tick| !p.irq(at(*tick))).collect();
        assert_eq!(low, [21]);
        assert_eq!(p.next_event(), Some(at(22)));
    }

    #[test]
    fn latched_count_stays_until_both_bytes_are_read() {
        let mut p = Pit::new();
        load(&mut p, 0, 0, 4, 0x1234);
        p.write(at(1), 3, 0);
        p.write(at(500), 3, 0);
        assert_eq!(p.read(at(600), 0), 0x34);
        assert_eq!(p.read(at(700), 0), 0x12);
        assert_eq!(p.read(at(1 + 0x34), 0), 0x00);
    }

    #[test]
    fn read_back_latches_status_then_count() {
        let mut p = Pit::new();
        p.write(0, 3, 0x34);
        p.write(0, 3, 0xE2);
        assert_eq!(p.read(0, 0), STATUS_OUTPUT | STATUS_NULL_COUNT | 0x34);
        load(&mut p, 0, 0, 4, 0x4321);
        p.write(at(1), 3, 0xC2);
        assert_eq!(p.read(at(9), 0), STATUS_OUTPUT | 0x34);
        assert_eq!(p.read(at(9), 0), 0x21);
        assert_eq!(p.read(at(9), 0), 0x43);
    }

    /// Linux's `pit_hpet_ptimer_calibrate_cpu`: gate on, mode 0 on counter 2, poll OUT2 at port 61H.
    #[test]
    fn counter_2_runs_while_gated_and_shows_at_port_61() {
        let mut p = Pit::new();
        p.write_port_b(0, 1);
        load(&mut p, 0, 2, 0, 1000);
        assert_eq!(p.read_port_b(at(1000)) & PORT_B_OUT2, 0);
        assert_eq!(p.read_port_b(at(1001)) & PORT_B_OUT2, PORT_B_OUT2);
        load(&mut p, 2000, 2, 0, 1000);
        p.write_port_b(at(2501), 0);
        assert_eq!(latch(&mut p, 9000, 2), 500);
        p.write_port_b(at(10_000), 1);
        assert_eq!(p.read_port_b(at(10_499)) & PORT_B_OUT2, 0);
        assert_eq!(p.read_port_b(at(10_500)) & PORT_B_OUT2, PORT_B_OUT2);
        assert_eq!(p.read_port_b(0) & 0x0F, 1);
    }

    #[test]
    fn mode_1_is_started_by_the_gate() {
        let mut p = Pit::new();
        load(&mut p, 0, 2, 2, 10);
        assert_eq!(p.read_port_b(at(50)) & PORT_B_OUT2, PORT_B_OUT2);
        p.write_port_b(at(100), 1);
        assert_eq!(p.read_port_b(at(101)) & PORT_B_OUT2, 0);
        assert_eq!(p.read_port_b(at(111)) & PORT_B_OUT2, PORT_B_OUT2);
    }

    #[test]
    fn a_gate_without_a_count_starts_nothing() {
        let mut p = Pit::new();
        p.write(0, 3, 0xB2);
        p.write_port_b(at(5), 1);
        assert_eq!(p.read_port_b(at(6)) & PORT_B_OUT2, PORT_B_OUT2);
        p.write(at(7), 3, 0xE8);
        assert_eq!(p.read(at(7), 2) & STATUS_NULL_COUNT, STATUS_NULL_COUNT);
    }

    #[test]
    fn the_illegal_count_of_one_does_not_make_an_event_every_clock() {
        let mut p = Pit::new();
        load(&mut p, 0, 0, 4, 1);
        assert_eq!(p.next_event(), Some(at(3)));
    }

    #[test]
    fn bcd_counts_in_decimal() {
        let mut p = Pit::new();
        load(&mut p, 0, 0, 1, 0x1000);
        assert_eq!(latch(&mut p, 2, 0), 0x0999);
        load(&mut p, 0, 0, 1, 0);
        assert_eq!(latch(&mut p, 1, 0), 0x0000);
        assert_eq!(latch(&mut p, 2, 0), 0x9999);
    }
}
