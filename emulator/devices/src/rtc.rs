//! MC146818 real-time clock and its CMOS RAM (Motorola MC146818A data sheet; 128 bytes as in Intel's ICH).
//!
//! The clock is a function of virtual time and a fixed starting second, never of the host's clock (design D6).

/// Registers, in index order.
pub mod spec {
    pub const SECONDS: u8 = 0x00;
    pub const SECONDS_ALARM: u8 = 0x01;
    pub const MINUTES: u8 = 0x02;
    pub const MINUTES_ALARM: u8 = 0x03;
    pub const HOURS: u8 = 0x04;
    pub const HOURS_ALARM: u8 = 0x05;
    pub const DAY_OF_WEEK: u8 = 0x06;
    pub const DATE: u8 = 0x07;
    pub const MONTH: u8 = 0x08;
    pub const YEAR: u8 = 0x09;
    pub const A: u8 = 0x0A;
    pub const A_UIP: u8 = 1 << 7;
    pub const A_DV_SHIFT: u32 = 4;
    /// DV for a 32,768 Hz crystal.
    pub const DV_RUN: u8 = 0b010;
    pub const A_RS: u8 = 0x0F;
    pub const B: u8 = 0x0B;
    pub const B_SET: u8 = 1 << 7;
    pub const B_PIE: u8 = 1 << 6;
    pub const B_AIE: u8 = 1 << 5;
    pub const B_UIE: u8 = 1 << 4;
    pub const B_SQWE: u8 = 1 << 3;
    pub const B_DM_BINARY: u8 = 1 << 2;
    pub const B_24_HOURS: u8 = 1 << 1;
    pub const C: u8 = 0x0C;
    pub const C_IRQF: u8 = 1 << 7;
    pub const C_PF: u8 = 1 << 6;
    pub const C_AF: u8 = 1 << 5;
    pub const C_UF: u8 = 1 << 4;
    pub const D: u8 = 0x0D;
    pub const D_VRT: u8 = 1 << 7;
    /// Alarm bytes of C0H and above match anything.
    pub const ALARM_ANY: u8 = 0xC0;
    pub const HOURS_PM: u8 = 1 << 7;
    /// PC/AT configuration bytes (IBM PC/AT technical reference, CMOS RAM map).
    pub const EQUIPMENT: u8 = 0x14;
    pub const BASE_MEMORY_KIB: u8 = 0x15;
    pub const EXTENDED_MEMORY_KIB: u8 = 0x17;
    pub const EXTENDED_MEMORY_KIB_AGAIN: u8 = 0x30;
    /// Memory between 16 MiB and 4 GiB in 64 KiB units, as Bochs' and QEMU's BIOSes read it.
    pub const MEMORY_ABOVE_16M: u8 = 0x34;
    /// Memory above 4 GiB in 64 KiB units, three bytes.
    pub const MEMORY_ABOVE_4G: u8 = 0x5B;
}
use crate::layout::CMOS_CENTURY;
use spec::*;

const SECOND: i64 = 1_000_000_000;
/// UIP rises this long before the update (t_BUC) ...
const BEFORE_UPDATE: i64 = 244_000;
/// ... and the update takes this long with a 32,768 Hz crystal (t_UC). It ends with UF.
const UPDATE: i64 = 1_984_000;
/// The first update comes half a second after the divider chain is released.
const AFTER_DIVIDER_RESET: i64 = 500_000_000;
const SECONDS_PER_DAY: i64 = 86_400;
/// 9999-12-31T23:59:59Z.
const LAST_SECOND: u64 = 253_402_300_799;
/// The clock stops here, 146 years after power-up, so that no arithmetic on times can overflow. A guest gets here by
/// halting with a timer set that far ahead.
const END_OF_TIME: u64 = 1 << 62;

/// The clock, its alarm and 114 bytes of RAM.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Rtc {
    index: u8,
    /// All registers as stored. The time bytes count only while the clock is stopped.
    ram: Vec<u8>,
    /// Virtual time of one second boundary.
    phase: i64,
    /// Seconds since 1970 at second number `base_tick` after `phase`.
    base_seconds: i64,
    base_tick: i64,
    /// Added to the computed day of the week: the chip does not check what is written there.
    weekday_shift: i64,
    /// Flags are up to date until here.
    synced: i64,
}

/// Registers and RAM, in bytes.
const REGISTERS: usize = 128;

impl Rtc {
    /// True if all registers are there and one of them is selected.
    pub(crate) fn is_valid(&self) -> bool {
        self.ram.len() == REGISTERS && usize::from(self.index) < REGISTERS
    }

    /// `epoch` is the time at virtual time zero, in seconds since 1970-01-01T00:00:00Z; `ram_bytes` is the size of
    /// guest memory, `below_4g` what of it lies below 4 GiB.
    pub fn new(epoch: u64, ram_bytes: u64, below_4g: u64) -> Self {
        let mut ram = vec![0; REGISTERS];
        let kib = |bytes: u64| u16::try_from(bytes >> 10).unwrap_or(u16::MAX);
        let units = |bytes: u64| (bytes >> 16).min(0xFF_FFFF) as u32;
        let extended = kib(below_4g.saturating_sub(1 << 20).min(63 << 20));
        let above_16m = units(below_4g.saturating_sub(16 << 20)).min(0xFFFF);
        let mut put = |index: u8, bytes: &[u8]| {
            ram[usize::from(index)..usize::from(index) + bytes.len()].copy_from_slice(bytes);
        };
        put(A, &[DV_RUN << A_DV_SHIFT | 6]);
        put(B, &[B_24_HOURS]);
        // FPU present, no floppy, no display.
        put(EQUIPMENT, &[0x02]);
        put(BASE_MEMORY_KIB, &640u16.to_le_bytes());
        put(EXTENDED_MEMORY_KIB, &extended.to_le_bytes());
        put(EXTENDED_MEMORY_KIB_AGAIN, &extended.to_le_bytes());
        put(MEMORY_ABOVE_16M, &(above_16m as u16).to_le_bytes());
        put(MEMORY_ABOVE_4G, &units(ram_bytes.saturating_sub(below_4g)).to_le_bytes()[..3]);
        Rtc {
            index: 0,
            ram,
            phase: 0,
            // Four-digit years.
            base_seconds: epoch.min(LAST_SECOND) as i64,
            base_tick: 0,
            weekday_shift: 0,
            synced: 0,
        }
    }

    /// RESET pin: "PIE, AIE, UIE, SQWE cleared, PF, AF, UF, IRQF cleared"; time and RAM go on.
    pub fn reset(&mut self) {
        self.ram[usize::from(B)] &= !(B_PIE | B_AIE | B_UIE | B_SQWE);
        self.ram[usize::from(C)] = 0;
    }

    /// Port 70H.
    pub fn write_index(&mut self, value: u8) {
        self.index = value & 0x7F;
    }

    /// Port 71H. Call [`Rtc::sync`] first.
    pub fn read_data(&mut self, now: u64) -> u8 {
        match self.index {
            A => self.register(A) | if self.updating(now) { A_UIP } else { 0 },
            C => {
                let flags = self.flags();
                self.ram[usize::from(C)] = 0;
                flags
            }
            D => D_VRT,
            index if is_time(index) && self.running() => self.time_registers(self.seconds(now))[time_slot(index)],
            index => self.register(index),
        }
    }

    /// Port 71H. Call [`Rtc::sync`] first.
    pub fn write_data(&mut self, now: u64, value: u8) {
        match self.index {
            A => self.write_a(now, value & !A_UIP),
            B => self.write_b(now, value),
            C | D => {}
            index if is_time(index) && self.running() => {
                // Allowed by the data sheet, if unwise: the other fields keep their values.
                self.freeze(now);
                self.ram[usize::from(index)] = value;
                self.thaw(now);
            }
            index => self.ram[usize::from(index)] = value,
        }
    }

    /// Sets the flags of everything that happened until `now`.
    pub fn sync(&mut self, now: u64) {
        let now = clamped(now);
        let before = std::mem::replace(&mut self.synced, now);
        if now <= before || !self.divider_running() {
            return;
        }
        let mut flags = 0;
        if self.periodic_count(now) > self.periodic_count(before) {
            flags |= C_PF;
        }
        let (first, last) = (self.updates_ended(before) + 1, self.updates_ended(now));
        if first <= last && self.running() {
            flags |= C_UF;
            // After a whole day every time of day has come by.
            let first = first.max(last - SECONDS_PER_DAY + 1);
            if (first..=last).any(|tick| self.alarm_matches(self.base_seconds + tick - self.base_tick)) {
                flags |= C_AF;
            }
        }
        self.ram[usize::from(C)] |= flags;
    }

    /// The IRQ pin (active while IRQF is set), as of the last `sync`.
    pub fn irq(&self) -> bool {
        self.flags() & C_IRQF != 0
    }

    /// True while the alarm is what makes the IRQ pin active, alone or with others.
    pub fn alarm(&self) -> bool {
        self.register(C) & self.register(B) & C_AF != 0
    }

    /// Nanosecond at which [`Rtc::alarm`] may become true, given the last `sync`.
    pub fn next_alarm(&self) -> Option<u64> {
        let armed = self.register(B) & B_AIE != 0 && !self.alarm() && self.running();
        if !armed || self.synced == clamped(END_OF_TIME) {
            return None;
        }
        u64::try_from(self.next_update()).ok()
    }

    /// Nanosecond at which the IRQ pin may become active, given the last `sync`.
    pub fn next_event(&self) -> Option<u64> {
        if self.irq() || !self.divider_running() || self.synced == clamped(END_OF_TIME) {
            return None;
        }
        let enables = self.register(B);
        let periodic = self.periodic_hz().filter(|_| enables & B_PIE != 0).map(|hz| {
            let ticks = i128::from(self.periodic_count(self.synced) + 1);
            let ns = (ticks * i128::from(SECOND) + i128::from(hz) - 1).div_euclid(i128::from(hz));
            self.phase.saturating_add(i64::try_from(ns).unwrap_or(i64::MAX))
        });
        let update = (enables & (B_AIE | B_UIE) != 0 && self.running()).then(|| self.next_update());
        let next = periodic.into_iter().chain(update).min()?;
        u64::try_from(next).ok()
    }

    fn register(&self, index: u8) -> u8 {
        self.ram[usize::from(index & 0x7F)]
    }

    fn flags(&self) -> u8 {
        // PF, AF, UF stand where PIE, AIE, UIE do.
        let flags = self.register(C);
        flags | if flags & self.register(B) & (C_PF | C_AF | C_UF) != 0 { C_IRQF } else { 0 }
    }

    fn divider_running(&self) -> bool {
        self.register(A) >> A_DV_SHIFT & 7 == DV_RUN
    }

    /// True while the time bytes are updated.
    fn running(&self) -> bool {
        self.divider_running() && self.register(B) & B_SET == 0
    }

    fn second_tick(&self, now: i64) -> i64 {
        (now - self.phase).div_euclid(SECOND)
    }

    fn updates_ended(&self, now: i64) -> i64 {
        (now - self.phase - UPDATE).div_euclid(SECOND)
    }

    /// End of the next update cycle.
    fn next_update(&self) -> i64 {
        self.phase + (self.updates_ended(self.synced) + 1) * SECOND + UPDATE
    }

    fn seconds(&self, now: u64) -> i64 {
        self.base_seconds + self.second_tick(clamped(now)) - self.base_tick
    }

    fn updating(&self, now: u64) -> bool {
        let into_second = (clamped(now) - self.phase).rem_euclid(SECOND);
        self.running() && !(UPDATE..SECOND - BEFORE_UPDATE).contains(&into_second)
    }

    /// Rate of the periodic interrupt (data sheet table 5): RS 1 and 2 repeat 8 and 9.
    fn periodic_hz(&self) -> Option<u64> {
        match self.register(A) & A_RS {
            0 => None,
            rs @ 1..=2 => Some(32_768 >> (rs + 6)),
            rs => Some(32_768 >> (rs - 1)),
        }
    }

    fn periodic_count(&self, now: i64) -> i64 {
        let Some(hz) = self.periodic_hz() else { return 0 };
        let ticks = (i128::from(now) - i128::from(self.phase)) * i128::from(hz);
        i64::try_from(ticks.div_euclid(i128::from(SECOND))).unwrap_or(i64::MAX)
    }

    fn write_a(&mut self, now: u64, value: u8) {
        let (was_running, divider_ran) = (self.running(), self.divider_running());
        if was_running {
            self.freeze(now);
        }
        self.ram[usize::from(A)] = value;
        if self.divider_running() && !divider_ran {
            self.phase = clamped(now) + AFTER_DIVIDER_RESET - SECOND;
        }
        if self.running() {
            self.thaw(now);
        }
    }

    fn write_b(&mut self, now: u64, value: u8) {
        if self.running() {
            self.freeze(now);
        }
        // "When SET is 1 ... UIE is cleared."
        let uie = if value & B_SET != 0 { B_UIE } else { 0 };
        let layout_changed = (self.register(B) ^ value) & (B_DM_BINARY | B_24_HOURS) != 0 && value & B_SET == 0;
        let seconds = layout_changed.then(|| self.stored_seconds());
        self.ram[usize::from(B)] = value & !uie;
        if let Some(seconds) = seconds {
            // The chip would now misread its own bytes; drivers set the format only together with the time. The
            // time is kept, which is what a driver that only flips the format expects.
            self.store_time(seconds);
        }
        if self.running() {
            self.thaw(now);
        }
    }

    /// Copies the time into the registers: from now on they are plain bytes.
    fn freeze(&mut self, now: u64) {
        self.store_time(self.seconds(now));
    }

    fn store_time(&mut self, seconds: i64) {
        let time = self.time_registers(seconds);
        for index in TIME_REGISTERS {
            self.ram[usize::from(index)] = time[time_slot(index)];
        }
    }

    /// Goes on from the time in the registers.
    fn thaw(&mut self, now: u64) {
        self.base_seconds = self.stored_seconds();
        self.base_tick = self.second_tick(clamped(now));
        let weekday = i64::from(self.decode(self.register(DAY_OF_WEEK)));
        self.weekday_shift = (weekday - i64::from(weekday_of(self.base_seconds))).rem_euclid(7);
    }

    fn encode(&self, value: u8) -> u8 {
        if self.register(B) & B_DM_BINARY != 0 { value } else { ((value / 10) << 4) | (value % 10) }
    }

    fn decode(&self, value: u8) -> u8 {
        if self.register(B) & B_DM_BINARY != 0 { value } else { (value >> 4).wrapping_mul(10) + (value & 0x0F) }
    }

    fn encode_hours(&self, hours: u8) -> u8 {
        if self.register(B) & B_24_HOURS != 0 {
            return self.encode(hours);
        }
        let pm = if hours >= 12 { HOURS_PM } else { 0 };
        self.encode((hours + 11) % 12 + 1) | pm
    }

    fn decode_hours(&self, value: u8) -> u8 {
        if self.register(B) & B_24_HOURS != 0 {
            return self.decode(value);
        }
        let pm = if value & HOURS_PM != 0 { 12 } else { 0 };
        self.decode(value & !HOURS_PM) % 12 + pm
    }

    fn stored_seconds(&self) -> i64 {
        let field = |index| i64::from(self.decode(self.register(index)));
        let year = field(CMOS_CENTURY) * 100 + field(YEAR);
        let days = days_from_date(year, field(MONTH).clamp(1, 12), field(DATE).max(1));
        let hours = i64::from(self.decode_hours(self.register(HOURS)));
        days * SECONDS_PER_DAY + hours * 3600 + field(MINUTES) * 60 + field(SECONDS)
    }

    fn time_registers(&self, seconds: i64) -> [u8; TIME_REGISTERS.len()] {
        let (year, month, date) = date_from_days(seconds.div_euclid(SECONDS_PER_DAY));
        let of_day = seconds.rem_euclid(SECONDS_PER_DAY);
        let weekday = (i64::from(weekday_of(seconds)) - 1 + self.weekday_shift).rem_euclid(7) + 1;
        let byte = |value: i64| self.encode(value as u8);
        [
            byte(of_day % 60),
            byte(of_day / 60 % 60),
            self.encode_hours((of_day / 3600) as u8),
            byte(weekday),
            byte(date),
            byte(month),
            byte(year.rem_euclid(100)),
            byte(year.div_euclid(100).rem_euclid(100)),
        ]
    }

    fn alarm_matches(&self, seconds: i64) -> bool {
        let of_day = seconds.rem_euclid(SECONDS_PER_DAY);
        let matches = |index: u8, now: u8| self.register(index) >= ALARM_ANY || self.register(index) == now;
        let hours = self.encode_hours((of_day / 3600) as u8);
        // In 12-hour mode an hour in the afternoon (bit 7) is below C0H.
        matches(SECONDS_ALARM, self.encode((of_day % 60) as u8))
            && matches(MINUTES_ALARM, self.encode((of_day / 60 % 60) as u8))
            && matches(HOURS_ALARM, hours)
    }
}

const TIME_REGISTERS: [u8; 8] = [SECONDS, MINUTES, HOURS, DAY_OF_WEEK, DATE, MONTH, YEAR, CMOS_CENTURY];

fn clamped(now: u64) -> i64 {
    now.min(END_OF_TIME) as i64
}

fn is_time(index: u8) -> bool {
    TIME_REGISTERS.contains(&index)
}

fn time_slot(index: u8) -> usize {
    TIME_REGISTERS.iter().position(|register| *register == index).unwrap_or(0)
}

/// 1 is Sunday; 1970-01-01 was a Thursday.
fn weekday_of(seconds: i64) -> u8 {
    ((seconds.div_euclid(SECONDS_PER_DAY) + 4).rem_euclid(7) + 1) as u8
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to 1 January of `year` (Gregorian).
fn days_to_year(year: i64) -> i64 {
    let leap_days = |year: i64| year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    (year - 1970) * 365 + leap_days(year - 1) - leap_days(1969)
}

fn days_from_date(year: i64, month: i64, date: i64) -> i64 {
    days_to_year(year) + (1..month).map(|month| days_in_month(year, month)).sum::<i64>() + date - 1
}

fn date_from_days(days: i64) -> (i64, i64, i64) {
    // 146,097 days in 400 years; the estimate is off by at most one.
    let mut year = 1970 + (days * 400).div_euclid(146_097);
    while days_to_year(year) > days {
        year -= 1;
    }
    while days_to_year(year + 1) <= days {
        year += 1;
    }
    let mut date = days - days_to_year(year) + 1;
    let mut month = 1;
    while date > days_in_month(year, month) {
        date -= days_in_month(year, month);
        month += 1;
    }
    (year, month, date)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW_YEAR_2024: u64 = 1_704_067_200;
    const SEC: u64 = SECOND as u64;

    fn rtc() -> Rtc {
        Rtc::new(NEW_YEAR_2024, 5 << 30, 3 << 30)
    }

    fn read(r: &mut Rtc, now: u64, index: u8) -> u8 {
        r.sync(now);
        r.write_index(index);
        r.read_data(now)
    }

    fn write(r: &mut Rtc, now: u64, index: u8, value: u8) {
        r.sync(now);
        r.write_index(index | 0x80);
        r.write_data(now, value);
    }

    fn date_and_time(r: &mut Rtc, now: u64) -> [u8; 8] {
        TIME_REGISTERS.map(|index| read(r, now, index))
    }

    #[test]
    fn time_runs_in_bcd_from_the_epoch() {
        let mut r = rtc();
        assert_eq!(date_and_time(&mut r, 0), [0, 0, 0, 2, 1, 1, 0x24, 0x20]);
        let leap_day_end = (59 * 86_400 + 86_399) * SEC;
        assert_eq!(date_and_time(&mut r, leap_day_end), [0x59, 0x59, 0x23, 5, 0x29, 2, 0x24, 0x20]);
        assert_eq!(date_and_time(&mut r, leap_day_end + SEC), [0, 0, 0, 6, 1, 3, 0x24, 0x20]);
    }

    #[test]
    fn dates_convert_both_ways_over_400_years() {
        for days in -10_000..140_000 {
            let (year, month, date) = date_from_days(days);
            assert_eq!(days_from_date(year, month, date), days);
        }
    }

    #[test]
    fn update_in_progress_surrounds_the_second_boundary() {
        let mut r = rtc();
        assert_eq!(read(&mut r, 10 * SEC - 244_001, A) & A_UIP, 0);
        assert_eq!(read(&mut r, 10 * SEC - 244_000, A) & A_UIP, A_UIP);
        assert_eq!(read(&mut r, 10 * SEC - 1, SECONDS), 0x09);
        assert_eq!(read(&mut r, 10 * SEC + 1_983_999, A) & A_UIP, A_UIP);
        assert_eq!(read(&mut r, 10 * SEC + 1_984_000, A), 0x26);
        assert_eq!(read(&mut r, 10 * SEC + 1_984_000, SECONDS), 0x10);
    }

    #[test]
    fn setting_the_time_stops_and_restarts_the_clock() {
        let mut r = rtc();
        write(&mut r, 0, B, B_SET | B_24_HOURS | B_DM_BINARY);
        for (index, value) in
            [(SECONDS, 58), (MINUTES, 59), (HOURS, 23), (DATE, 31), (MONTH, 12), (YEAR, 99), (CMOS_CENTURY, 19)]
        {
            write(&mut r, 0, index, value);
        }
        assert_eq!(read(&mut r, 5 * SEC + SEC / 2, SECONDS), 58);
        assert_eq!(read(&mut r, 6 * SEC, A) & A_UIP, 0);
        write(&mut r, 5 * SEC + SEC / 2, B, B_24_HOURS | B_DM_BINARY);
        let t = date_and_time(&mut r, 7 * SEC + SEC / 2);
        assert_eq!((t[0], t[1], t[2], t[4], t[5], t[6], t[7]), (0, 0, 0, 1, 1, 0, 20));
    }

    #[test]
    fn twelve_hour_mode_counts_noon_and_midnight_as_twelve() {
        let mut r = rtc();
        write(&mut r, 0, B, 0);
        assert_eq!(read(&mut r, 0, HOURS), 0x12);
        assert_eq!(read(&mut r, 11 * 3600 * SEC, HOURS), 0x11);
        assert_eq!(read(&mut r, 12 * 3600 * SEC, HOURS), 0x92);
        assert_eq!(read(&mut r, 23 * 3600 * SEC, HOURS), 0x91);
    }

    #[test]
    fn releasing_the_divider_gives_the_first_update_half_a_second_later() {
        let mut r = rtc();
        write(&mut r, SEC / 4, A, 0x70);
        assert_eq!(read(&mut r, 9 * SEC, SECONDS), 0);
        write(&mut r, 9 * SEC, A, 0x26);
        assert_eq!(read(&mut r, 9 * SEC + SEC / 2 - 1, SECONDS), 0);
        assert_eq!(read(&mut r, 9 * SEC + SEC / 2, SECONDS), 1);
    }

    #[test]
    fn periodic_interrupt_fires_at_its_rate_until_c_is_read() {
        let mut r = rtc();
        assert_eq!(r.next_event(), None);
        write(&mut r, 0, B, B_24_HOURS | B_PIE);
        for k in 1..=1024u64 {
            let event = r.next_event().unwrap();
            assert_eq!(event, (k * SEC).div_ceil(1024));
            assert!(!r.irq());
            r.sync(event);
            assert!(r.irq());
            assert_eq!(r.next_event(), None, "the pin stays active until C is read");
            // The last tick of the second precedes the end of that second's update.
            assert_eq!(read(&mut r, event, C) & (C_IRQF | C_PF), C_IRQF | C_PF);
        }
    }

    #[test]
    fn update_interrupt_comes_once_a_second() {
        let mut r = rtc();
        read(&mut r, 3_000_000, C);
        write(&mut r, 3_000_000, B, B_24_HOURS | B_UIE);
        assert_eq!(r.next_event(), Some(SEC + UPDATE as u64));
        r.sync(SEC + UPDATE as u64);
        assert!(r.irq());
        assert_eq!(read(&mut r, SEC + UPDATE as u64, C) & C_UF, C_UF);
        assert_eq!(r.next_event(), Some(2 * SEC + UPDATE as u64));
    }

    #[test]
    fn alarm_matches_with_dont_cares_and_over_long_gaps() {
        let mut r = rtc();
        read(&mut r, 3_000_000, C);
        for (index, value) in [(SECONDS_ALARM, 0x30), (MINUTES_ALARM, 0xFF), (HOURS_ALARM, 0xFF)] {
            write(&mut r, 3_000_000, index, value);
        }
        assert_eq!(read(&mut r, 29 * SEC + 5_000_000, C) & C_AF, 0);
        assert_eq!(read(&mut r, 30 * SEC + 5_000_000, C) & C_AF, C_AF);
        write(&mut r, 40 * SEC, HOURS_ALARM, 0x23);
        assert_eq!(read(&mut r, 22 * 3600 * SEC, C) & C_AF, 0);
        assert_eq!(read(&mut r, 400 * 86_400 * SEC, C) & C_AF, C_AF);
    }

    #[test]
    fn memory_sizes_stand_in_cmos() {
        let mut r = rtc();
        let word = |r: &mut Rtc, i| u16::from(read(r, 0, i)) | u16::from(read(r, 0, i + 1)) << 8;
        assert_eq!(word(&mut r, BASE_MEMORY_KIB), 640);
        assert_eq!(word(&mut r, EXTENDED_MEMORY_KIB), 63 << 10);
        assert_eq!(word(&mut r, MEMORY_ABOVE_16M), (((3u64 << 30) - (16 << 20)) >> 16) as u16);
        assert_eq!(word(&mut r, MEMORY_ABOVE_4G), (2u64 << 30 >> 16) as u16);
    }

    #[test]
    fn reset_clears_enables_and_flags_but_keeps_time_and_ram() {
        let mut r = rtc();
        write(&mut r, 0, B, B_24_HOURS | B_PIE | B_UIE);
        write(&mut r, 0, 0x40, 0x77);
        r.sync(2 * SEC);
        assert!(r.irq());
        r.reset();
        assert!(!r.irq());
        assert_eq!(read(&mut r, 2 * SEC, B), B_24_HOURS);
        assert_eq!((read(&mut r, 2 * SEC, 0x40), read(&mut r, 2 * SEC, SECONDS)), (0x77, 2));
    }
}
