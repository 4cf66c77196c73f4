//! Virtual time (design D6): a function of the instruction count and of the time skipped while halted.

use x86::platform::VirtualTime;

/// The frequency the CPUID leaves and MSR_PLATFORM_INFO tell: TSC ticks are nanoseconds.
pub const TSC_HZ: u64 = 1_000_000_000;

/// Instructions a second of virtual time, by default: 10 ns an instruction.
pub const DEFAULT_IPS: u64 = 100_000_000;

/// How instruction counts become nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Clock {
    ips: u64,
    /// Nanoseconds that passed without instructions (HLT, PAUSE).
    pub skipped: u64,
}

impl Clock {
    /// `ips` is clipped to 1 kHz..1 THz.
    pub fn new(ips: u64) -> Self {
        Clock { ips: ips.clamp(1_000, 1_000_000_000_000), skipped: 0 }
    }

    /// Instructions in a second of virtual time.
    pub fn ips(&self) -> u64 {
        self.ips
    }

    /// The time at an instruction count.
    pub fn at(&self, icount: u64) -> VirtualTime {
        let ns = if TSC_HZ.is_multiple_of(self.ips) {
            icount.wrapping_mul(TSC_HZ / self.ips)
        } else {
            (u128::from(icount) * u128::from(TSC_HZ) / u128::from(self.ips)) as u64
        };
        VirtualTime(ns.wrapping_add(self.skipped))
    }

    /// Instructions from `icount` until the time is at least `until`.
    pub fn insns_until(&self, icount: u64, until: VirtualTime) -> u64 {
        let now = self.at(icount);
        if until <= now {
            return 0;
        }
        if TSC_HZ.is_multiple_of(self.ips) {
            return (until.0 - now.0).div_ceil(TSC_HZ / self.ips);
        }
        let ns = u128::from(until.0 - now.0);
        (ns * u128::from(self.ips)).div_ceil(u128::from(TSC_HZ)).min(u128::from(u64::MAX)) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_until_a_time_reaches_it_and_not_one_earlier() {
        for ips in [DEFAULT_IPS, 33_333_333, 1_000_000_000, 2_500_000_000] {
            let clock = Clock::new(ips);
            for (from, ns) in [(0, 1), (7, 999), (1_000_003, 12_345_678)] {
                let until = VirtualTime(clock.at(from).0 + ns);
                let n = clock.insns_until(from, until);
                assert!(clock.at(from + n) >= until, "{ips} {from} {ns}");
                assert!(n == 0 || clock.at(from + n - 1) < until || ips > TSC_HZ, "{ips} {from} {ns}");
            }
        }
    }
}
