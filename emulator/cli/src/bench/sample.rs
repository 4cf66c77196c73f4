//! Timing: samples of equal work, best and median.

use rustix::time::{ClockId, clock_gettime};

/// Calls in a sample, whatever the clock says.
const PASSES_MAX: usize = 1 << 20;

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// Rough figures.
    pub quick: bool,
    /// Samples of each figure.
    pub samples: usize,
    /// What a sample should take at least, in nanoseconds.
    pub sample_ns: f64,
}

impl Budget {
    pub fn new(quick: bool, samples: Option<u16>) -> Budget {
        let (default, sample_ns) = if quick { (3, 1e5) } else { (21, 2e6) };
        Budget { quick, samples: samples.map_or(default, usize::from), sample_ns }
    }
}

/// CPU time of this thread in nanoseconds: what others do on the processor meanwhile does not count.
pub fn now_ns() -> f64 {
    let t = clock_gettime(ClockId::ThreadCPUTime);
    t.tv_sec as f64 * 1e9 + t.tv_nsec as f64
}

/// Nanoseconds that `work` takes for one unit; it returns how many units it did.
fn sample(passes: usize, mut work: impl FnMut() -> usize) -> f64 {
    let start = now_ns();
    let units: usize = (0..passes).map(|_| work()).sum();
    // A clock that has not ticked is no proof of infinite speed.
    (now_ns() - start).max(1.0) / units.max(1) as f64
}

/// One thing that is timed.
pub struct Series {
    /// Calls of the work in a sample.
    passes: usize,
    samples: Vec<f64>,
}

impl Series {
    /// Runs the work until a sample of it is long enough, which also warms caches up.
    pub fn calibrate(budget: &Budget, mut work: impl FnMut() -> usize) -> Series {
        work();
        let mut passes = 1;
        loop {
            let start = now_ns();
            for _ in 0..passes {
                work();
            }
            if now_ns() - start >= budget.sample_ns || passes >= PASSES_MAX {
                return Series { passes, samples: Vec::with_capacity(budget.samples) };
            }
            passes *= 2;
        }
    }

    /// Takes one more sample.
    pub fn take(&mut self, work: impl FnMut() -> usize) {
        let ns = sample(self.passes, work);
        self.samples.push(ns);
    }

    /// Adds the samples of `other`.
    pub fn append(&mut self, other: Series) {
        self.samples.extend(other.samples);
    }

    pub fn timing(&self) -> Timing {
        let mut sorted = self.samples.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.get(sorted.len() / 2).copied();
        Timing { best: sorted.first().copied().unwrap_or(0.0), median: middle.unwrap_or(0.0) }
    }
}

/// Nanoseconds per unit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Timing {
    pub best: f64,
    pub median: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_between_the_best_sample_and_the_worst() {
        let series = Series { passes: 1, samples: vec![5.0, 1.0, 9.0] };
        assert_eq!(series.timing(), Timing { best: 1.0, median: 5.0 });
    }
}
