//! What the silicon can do: AES rounds that only touch registers, in the same run as everything else.

use super::datapath::Workload;
use super::sample::{Budget, Series, Timing};
use crypto::{Algorithm, Backend, LINE_BYTES, Width};

/// Rounds between two looks at the clock.
const ROUNDS: usize = 4096;
/// Blocks in a line.
const LINE_BLOCKS: f64 = (LINE_BYTES / 16) as f64;

/// Samples of the rounds.
pub struct Sampler {
    widths: Vec<(Width, Series)>,
    /// Dependent rounds.
    latency: Option<Series>,
}

impl Sampler {
    pub fn new(budget: &Budget) -> Sampler {
        let widths = Width::ALL.into_iter().filter(|width| width.is_available());
        Sampler {
            widths: widths.map(|width| (width, Series::calibrate(budget, || independent(width)))).collect(),
            latency: Width::Xmm.is_available().then(|| Series::calibrate(budget, dependent)),
        }
    }

    pub fn take(&mut self) {
        for (width, series) in &mut self.widths {
            series.take(|| independent(*width));
        }
        if let Some(series) = &mut self.latency {
            series.take(dependent);
        }
    }

    /// Adds the samples of another sampler of this run.
    pub fn append(&mut self, other: Sampler) {
        for ((_, series), (_, more)) in self.widths.iter_mut().zip(other.widths) {
            series.append(more);
        }
        if let (Some(series), Some(more)) = (&mut self.latency, other.latency) {
            series.append(more);
        }
    }

    pub fn limit(&self) -> Limit {
        Limit {
            rounds: self.widths.iter().map(|(width, series)| (*width, series.timing())).collect(),
            latency: self.latency.as_ref().map(Series::timing),
        }
    }
}

fn independent(width: Width) -> usize {
    width.independent_rounds(ROUNDS as u64) as usize
}

fn dependent() -> usize {
    Width::Xmm.dependent_rounds(ROUNDS as u64);
    ROUNDS
}

/// Nanoseconds of a round, by width; empty on hosts without AES instructions.
#[derive(Debug, Clone)]
pub struct Limit {
    /// A register's round among independent ones.
    pub rounds: Vec<(Width, Timing)>,
    /// A round that waits for the one before.
    pub latency: Option<Timing>,
}

impl Limit {
    fn round_ns(&self, width: Width) -> Option<f64> {
        self.rounds.iter().find(|(w, _)| *w == width).map(|(_, timing)| timing.best)
    }

    /// Nanoseconds that the rounds of one line take at least on registers of this width. Libraries (`None`) could use
    /// whatever is widest.
    ///
    /// A batch encrypts the tweaks of several lines in one register; a line by itself spends a narrow register on its
    /// tweak. A dependent chain waits for the rounds of the tweak, then for those of the data.
    pub fn line_ns(&self, backend: Option<Backend>, algorithm: Algorithm, workload: Workload) -> Option<f64> {
        let widest = self.rounds.last().map(|(width, _)| *width);
        let width = backend.and_then(Width::of).or(widest)?;
        let wide = self.round_ns(width)? / width.blocks() as f64;
        let rounds = rounds(algorithm);
        Some(match workload {
            Workload::Page | Workload::Bulk => rounds * (LINE_BLOCKS + 1.0) * wide,
            Workload::Single | Workload::Mixed => rounds * (LINE_BLOCKS * wide + self.round_ns(Width::Xmm)?),
            Workload::Dependent => 2.0 * rounds * self.latency?.best,
        })
    }
}

/// Nr of FIPS 197.
pub fn rounds(algorithm: Algorithm) -> f64 {
    match algorithm {
        Algorithm::AesXts128 => 10.0,
        Algorithm::AesXts256 => 14.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_those_of_the_rounds() {
        let timing = |best| Timing { best, median: best };
        let limit = Limit {
            rounds: vec![(Width::Xmm, timing(0.5)), (Width::Ymm, timing(0.5)), (Width::Zmm, timing(1.0))],
            latency: Some(timing(4.0)),
        };
        let ns = |backend, algorithm, workload| limit.line_ns(backend, algorithm, workload).unwrap();
        // In cycles, as the reference for this processor has them: 12.5 and 17.5, 15 and 21, 80 and 112; AES-NI 25.
        assert_eq!(ns(None, Algorithm::AesXts128, Workload::Page), 12.5);
        assert_eq!(ns(None, Algorithm::AesXts256, Workload::Bulk), 17.5);
        assert_eq!(ns(Some(Backend::Vaes512), Algorithm::AesXts128, Workload::Single), 15.0);
        assert_eq!(ns(Some(Backend::Vaes256), Algorithm::AesXts256, Workload::Mixed), 21.0);
        assert_eq!(ns(Some(Backend::AesNi), Algorithm::AesXts128, Workload::Page), 25.0);
        assert_eq!(ns(None, Algorithm::AesXts128, Workload::Dependent), 80.0);
        assert_eq!(Limit { rounds: vec![], latency: None }.line_ns(None, Algorithm::AesXts128, Workload::Page), None);
    }
}
