//! Intervals of a share.

use statrs::distribution::{ContinuousCDF, Normal};
use statrs::function::beta::checked_beta_reg;

/// A confidence level: the probability with which a two-sided interval has the true value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Confidence(f64);

impl Confidence {
    /// 95 %.
    pub const P95: Confidence = Confidence(0.95);
    /// 99 %.
    pub const P99: Confidence = Confidence(0.99);

    /// From parts per million, as in [`Campaign::confidence_ppm`](crate::meta::Campaign::confidence_ppm). `None` unless between
    /// 0 and a million.
    pub fn from_ppm(ppm: u32) -> Option<Confidence> {
        (0 < ppm && ppm < 1_000_000).then_some(Confidence(f64::from(ppm) / 1e6))
    }

    /// The level, for example 0.95.
    pub fn level(self) -> f64 {
        self.0
    }

    /// The level in percent, for example `95` or `99.9`.
    pub fn percent(self) -> String {
        let text = format!("{:.4}", self.0 * 100.0);
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    }

    /// The cut-off t: a standard normal value is within ±t with this probability. 1.959964 for 95 %.
    pub fn cut_off(self) -> f64 {
        Normal::standard().inverse_cdf(f64::midpoint(1.0, self.0))
    }
}

/// From a lower to an upper limit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// The lower limit.
    pub low: f64,
    /// The upper limit.
    pub high: f64,
}

impl Interval {
    /// Nothing is known of a share.
    pub const UNKNOWN: Interval = Interval { low: 0.0, high: 1.0 };

    /// Half of its width.
    pub fn half_width(self) -> f64 {
        (self.high - self.low) / 2.0
    }

    /// True for values in it, limits included.
    pub fn has(self, value: f64) -> bool {
        self.low <= value && value <= self.high
    }

    /// Both limits times a factor.
    #[must_use]
    pub fn scaled(self, factor: f64) -> Interval {
        Interval { low: self.low * factor, high: self.high * factor }
    }
}

/// Wilson's score interval of `successes` in `n`. [`Interval::UNKNOWN`] if `n` is 0.
pub fn wilson(successes: u64, n: u64, confidence: Confidence) -> Interval {
    if n == 0 {
        return Interval::UNKNOWN;
    }
    let interval = wilson_share(successes as f64 / n as f64, n as f64, confidence);
    // Exact, whatever rounding does.
    Interval {
        low: if successes == 0 { 0.0 } else { interval.low },
        high: if successes >= n { 1.0 } else { interval.high },
    }
}

/// Wilson's score interval of a share that was found in a sample of a size that need not be whole: see
/// [`effective_size`](super::effective_size). An infinite size gives the share itself.
pub fn wilson_share(share: f64, n: f64, confidence: Confidence) -> Interval {
    if n.is_nan() || n <= 0.0 {
        return Interval::UNKNOWN;
    }
    if n.is_infinite() {
        return Interval { low: share, high: share };
    }
    let t2 = confidence.cut_off().powi(2);
    let centre = (share + t2 / (2.0 * n)) / (1.0 + t2 / n);
    let half = (t2 * (share * (1.0 - share) / n + t2 / (4.0 * n * n))).max(0.0).sqrt() / (1.0 + t2 / n);
    Interval { low: (centre - half).clamp(0.0, share), high: (centre + half).clamp(share, 1.0) }
}

/// The interval of Clopper and Pearson: never has the true value less often than the level says, and is wider for that.
/// [`Interval::UNKNOWN`] if `n` is 0.
pub fn clopper_pearson(successes: u64, n: u64, confidence: Confidence) -> Interval {
    let successes = successes.min(n);
    if n == 0 {
        return Interval::UNKNOWN;
    }
    let tail = (1.0 - confidence.level()) / 2.0;
    let (x, rest) = (successes as f64, (n - successes) as f64);
    Interval {
        low: if successes == 0 { 0.0 } else { beta_quantile(x, rest + 1.0, tail) },
        high: if successes == n { 1.0 } else { beta_quantile(x + 1.0, rest, 1.0 - tail) },
    }
}

/// Where the Beta distribution's cumulative function reaches a probability.
///
/// By bisection: `statrs`'s own inverse iterates until it converges, which it need not. Its cumulative function cuts its
/// continued fraction off after 140 terms, too early next to the mean of distributions as narrow as those of a million
/// injections, but not where the tails of an interval are.
fn beta_quantile(a: f64, b: f64, probability: f64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..80 {
        let middle = f64::midpoint(low, high);
        if checked_beta_reg(a, b, middle).unwrap_or(1.0) < probability {
            low = middle;
        } else {
            high = middle;
        }
    }
    f64::midpoint(low, high)
}

/// The largest share with which `n` injections without an event are not yet improbable: at 95 %, 3/n. One-sided. 1 if `n` is 0.
pub fn rule_of_three(n: u64, confidence: Confidence) -> f64 {
    (-(1.0 - confidence.level()).ln() / n as f64).min(1.0)
}
