//! Conversion between virtual nanoseconds and a chip's clock, without drift.
//!
//! Both directions start from time zero every time: the error is below one period and never adds up.

const NANOSECONDS_PER_SECOND: u128 = 1_000_000_000;

/// Whole periods of a `hz` clock that have passed at `ns`.
pub fn ticks_at(ns: u64, hz: u64) -> u64 {
    u64::try_from(u128::from(ns) * u128::from(hz) / NANOSECONDS_PER_SECOND).unwrap_or(u64::MAX)
}

/// The first nanosecond at which [`ticks_at`] reaches `tick`; `u64::MAX` when beyond representable time.
pub fn time_of_tick(tick: u64, hz: u64) -> u64 {
    let ns = (u128::from(tick) * NANOSECONDS_PER_SECOND).div_ceil(u128::from(hz));
    u64::try_from(ns).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_of_a_tick_is_the_first_nanosecond_that_shows_it() {
        for hz in [1_193_182, 3_579_545, 25_000_000] {
            for tick in [1, 2, 3, 1000, 65_536, 1_193_182 * 3600] {
                let at = time_of_tick(tick, hz);
                assert_eq!(ticks_at(at, hz), tick);
                assert_eq!(ticks_at(at - 1, hz), tick - 1);
            }
        }
    }

    #[test]
    fn a_day_has_exactly_a_day_of_ticks() {
        assert_eq!(ticks_at(86_400_000_000_000, 1_193_182), 86_400 * 1_193_182);
        assert_eq!(ticks_at(u64::MAX, u64::MAX), u64::MAX);
    }
}
