//! Shares of a fault space that was sampled stratum by stratum.

use super::{Confidence, Interval, effective_size, wilson_share};

/// What was found in one stratum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Faults in its fault space.
    pub population: u64,
    /// Injections.
    pub n: u64,
    /// Of these, the ones that are counted.
    pub successes: u64,
    /// A fault may have been drawn more than once: no finite population correction.
    pub replaced: bool,
}

impl Part {
    /// The share that was found. 0 without injections.
    pub fn share(&self) -> f64 {
        if self.n == 0 { 0.0 } else { self.successes.min(self.n) as f64 / self.n as f64 }
    }

    /// The size of its sample, for intervals.
    pub fn effective_size(&self) -> f64 {
        if self.replaced { self.n as f64 } else { effective_size(self.population, self.n) }
    }

    /// Wilson's score interval of its share, with the finite population correction.
    pub fn interval(&self, confidence: Confidence) -> Interval {
        wilson_share(self.share(), self.effective_size(), confidence)
    }
}

/// A share of the faults of several strata.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The share: strata weigh as much as they have faults.
    pub share: f64,
    /// Its variance, estimated.
    pub variance: f64,
    /// Its interval.
    pub interval: Interval,
    /// Faults that it is a share of: those of the strata with injections.
    pub population: f64,
}

impl Estimate {
    /// The number of faults that the share is.
    pub fn total(&self) -> f64 {
        self.share * self.population
    }

    /// The interval of [`total`](Self::total).
    pub fn total_interval(&self) -> Interval {
        self.interval.scaled(self.population)
    }
}

/// The share of all faults. Strata without injections are left out; `None` if there are no others.
pub fn stratified(parts: &[Part], confidence: Confidence) -> Option<Estimate> {
    let parts: Vec<&Part> = parts.iter().filter(|part| part.n > 0 && part.population > 0).collect();
    if parts.is_empty() {
        return None;
    }
    let population: f64 = parts.iter().map(|part| part.population as f64).sum();
    let (mut share, mut variance, mut below, mut above) = (0.0, 0.0, 0.0, 0.0);
    for part in parts {
        let weight = part.population as f64 / population;
        let (p, interval) = (part.share(), part.interval(confidence));
        let left = if part.replaced { 1.0 } else { (1.0 - part.n as f64 / part.population as f64).max(0.0) };
        share += weight * p;
        variance += weight * weight * p * (1.0 - p) / (part.n - 1).max(1) as f64 * left;
        // The strata are independent, so the squares of the distances to their limits add (Zou and Donner 2008).
        below += (weight * (p - interval.low)).powi(2);
        above += (weight * (interval.high - p)).powi(2);
    }
    let interval = Interval { low: (share - below.sqrt()).max(0.0), high: (share + above.sqrt()).min(1.0) };
    Some(Estimate { share, variance, interval, population })
}
