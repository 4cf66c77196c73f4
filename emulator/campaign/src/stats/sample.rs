//! Sizes of samples: Leveugle et al., "Statistical fault injection: quantified error and confidence", DATE 2009.

use super::Confidence;

/// Injections that estimate a share of about `share` to ±`margin` in a fault space of `population` faults, drawn without
/// replacement. `share` 0.5 is the worst case. At most `population`, at least 1 unless that is 0.
pub fn sample_size(population: u64, share: f64, margin: f64, confidence: Confidence) -> u64 {
    sample_size_for(population, share, margin, confidence.cut_off())
}

/// [`sample_size`] for a given cut-off t, for comparison with tables that round it: 1.96 for 95 %, 2.576 for 99 %.
pub fn sample_size_for(population: u64, share: f64, margin: f64, cut_off: f64) -> u64 {
    if population == 0 {
        return 0;
    }
    let faults = population as f64;
    let spread = cut_off * cut_off * share * (1.0 - share);
    let size = faults / (1.0 + margin * margin * (faults - 1.0) / spread);
    // A share of 0 or 1 has no spread, a margin of 0 needs all.
    if size.is_nan() { population } else { (size.ceil() as u64).clamp(1, population) }
}

/// The other way round: the margin that `n` injections give. 1 if `n` is 0.
pub fn margin(population: u64, n: u64, share: f64, confidence: Confidence) -> f64 {
    if n == 0 {
        return 1.0;
    }
    confidence.cut_off() * (share * (1.0 - share) / n as f64).sqrt() * correction(population, n)
}

/// The finite population correction, by which a standard error shrinks when `n` of `population` are drawn without
/// replacement: 1 for a small sample, 0 when all are drawn.
pub fn correction(population: u64, n: u64) -> f64 {
    if n >= population {
        return 0.0;
    }
    ((population - n) as f64 / (population - 1).max(1) as f64).sqrt()
}

/// The size of a sample from an infinite population that is worth as much as `n` of `population`. Infinite when all are drawn.
pub fn effective_size(population: u64, n: u64) -> f64 {
    let correction = correction(population, n);
    if n == 0 { 0.0 } else { n as f64 / (correction * correction) }
}
