//! Probabilities of faults and of spontaneous evictions (MK specification, Appendix A knobs).

use std::fmt;
use std::str::FromStr;

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::Rng;

/// Parts of a whole.
const MILLION: u32 = 1_000_000;

/// A probability in steps of a millionth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize)]
pub struct Rate(u32);

impl Rate {
    /// 0: the event does not happen, and nothing is drawn for it.
    pub const NEVER: Self = Self(0);
    /// 1.
    pub const ALWAYS: Self = Self(MILLION);

    /// A probability in millionths; `None` above a million.
    pub const fn from_ppm(ppm: u32) -> Option<Self> {
        if ppm <= MILLION { Some(Self(ppm)) } else { None }
    }

    /// The probability in millionths.
    pub const fn ppm(self) -> u32 {
        self.0
    }

    /// Decides one case.
    #[inline]
    pub(crate) fn happens(self, rng: &mut ChaCha20Rng) -> bool {
        self != Self::NEVER && below(rng, u64::from(MILLION)) < u64::from(self.0)
    }

    /// How many of many cases do not happen before the next one does: one draw, or none where that is certain.
    pub(crate) fn gap(self, rng: &mut ChaCha20Rng) -> u64 {
        const SCALE: u64 = 1 << 32;
        let probability = f64::from(self.0) / f64::from(MILLION);
        match self {
            Self::NEVER => u64::MAX,
            Self::ALWAYS => 0,
            _ => {
                // Inversion of the geometric distribution.
                let u = (below(rng, SCALE) + 1) as f64 / SCALE as f64;
                (u.ln() / (1.0 - probability).ln()) as u64
            }
        }
    }
}

/// A number below `end`, which is not 0, from one draw of 64 bits.
pub(crate) fn below(rng: &mut ChaCha20Rng, end: u64) -> u64 {
    ((u128::from(rng.next_u64()) * u128::from(end)) >> 64) as u64
}

/// The text is not a probability.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a probability: expected a number from 0 to 1, in steps of 0.000001")]
pub struct NotARate(String);

impl FromStr for Rate {
    type Err = NotARate;

    fn from_str(text: &str) -> Result<Self, NotARate> {
        let value = text.parse::<f64>().ok().map(|value| (value * f64::from(MILLION)).round());
        match value {
            Some(ppm) if (0.0..=f64::from(MILLION)).contains(&ppm) => Ok(Self(ppm as u32)),
            _ => Err(NotARate(text.to_owned())),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", f64::from(self.0) / f64::from(MILLION))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::rand_core::SeedableRng;

    #[test]
    fn probabilities_parse_and_print_and_others_are_refused() {
        for (text, ppm) in [("0", 0), ("1", MILLION), ("0.25", 250_000), ("0.000001", 1), ("1e-3", 1000)] {
            assert_eq!(text.parse(), Ok(Rate(ppm)));
            assert_eq!(Rate(ppm).to_string().parse(), Ok(Rate(ppm)));
        }
        for text in ["", "-0.1", "1.1", "NaN", "inf", "half"] {
            assert!(text.parse::<Rate>().unwrap_err().to_string().contains("from 0 to 1"));
        }
    }

    #[test]
    fn rates_are_kept_and_never_draws_nothing() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        assert!(!(0..1000).any(|_| Rate::NEVER.happens(&mut rng)));
        assert_eq!(rng.get_word_pos(), 0);
        assert!((0..1000).all(|_| Rate::ALWAYS.happens(&mut rng)));
        let hits = (0..10_000).filter(|_| Rate(250_000).happens(&mut rng)).count();
        assert!((2300..2700).contains(&hits), "{hits}");
    }
}
