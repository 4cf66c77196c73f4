//! When a stratum has been sampled enough.

use super::{Confidence, Part};

/// True if the interval of each outcome is at most ±`margin` wide: the stratum may stop. `counts` has the injections of each
/// outcome among the `n` that were done, drawn without replacement from `population` faults.
///
/// To be asked after each batch of a size that is fixed beforehand, in the order of the numbers of the injections, and not in
/// between: then the same campaign stops at the same injection, on however many threads.
pub fn enough(counts: &[u64], n: u64, population: u64, confidence: Confidence, margin: f64) -> bool {
    n > 0
        && counts.iter().all(|&successes| {
            let part = Part { population, n, successes, replaced: false };
            part.interval(confidence).half_width() <= margin
        })
}
