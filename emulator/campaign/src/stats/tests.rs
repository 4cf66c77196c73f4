use super::*;
use crate::synthetic::Random;

/// Much larger than any sample.
const LARGE: u64 = 1 << 60;

fn near(a: f64, b: f64, error: f64) -> bool {
    (a - b).abs() <= error
}

#[test]
fn cut_offs_are_those_of_the_normal_distribution() {
    for (ppm, t) in [(900_000, 1.644_854), (950_000, 1.959_964), (990_000, 2.575_829), (998_000, 3.090_232)] {
        assert!(near(Confidence::from_ppm(ppm).unwrap().cut_off(), t, 1e-6), "{ppm}");
    }
    assert!(Confidence::from_ppm(0).is_none() && Confidence::from_ppm(1_000_000).is_none());
    assert_eq!(Confidence::P95.percent(), "95");
    assert_eq!(Confidence::from_ppm(999_900).unwrap().percent(), "99.99");
}

#[test]
fn sample_sizes_are_those_of_leveugle() {
    assert_eq!(sample_size(LARGE, 0.5, 0.05, Confidence::P95), 385);
    assert_eq!(sample_size(LARGE, 0.5, 0.01, Confidence::P95), 9604);
    // The published value is for the cut-off as tables have it; the exact one is smaller by two.
    assert_eq!(sample_size_for(LARGE, 0.5, 0.01, 2.576), 16_590);
    assert_eq!(sample_size(LARGE, 0.5, 0.01, Confidence::P99), 16_588);
    assert_eq!(sample_size(LARGE, 0.5, 0.001, Confidence::P99), 1_658_725);
    // Small fault spaces need fewer: 500 / (1 + 0.05² · 499 / 0.9604) = 217.5.
    assert_eq!(sample_size(500, 0.5, 0.05, Confidence::P95), 218);
    assert_eq!(sample_size(10_000, 0.5, 0.05, Confidence::P95), 370);
    assert_eq!(sample_size(1000, 0.5, 0.05, Confidence::P95), 278);
    assert_eq!(sample_size(100, 0.5, 0.01, Confidence::P99), 100);
    assert_eq!((sample_size(1, 0.5, 0.01, Confidence::P95), sample_size(0, 0.5, 0.01, Confidence::P95)), (1, 0));
    assert_eq!((sample_size(77, 0.0, 0.01, Confidence::P95), sample_size(77, 0.5, 0.0, Confidence::P95)), (1, 77));
}

#[test]
fn margins_are_the_inverse_of_sample_sizes() {
    for population in [50, 1000, 123_456, LARGE] {
        for wanted in [0.1, 0.05, 0.01, 0.003] {
            for confidence in [Confidence::P95, Confidence::P99] {
                let n = sample_size(population, 0.5, wanted, confidence);
                let so_many = margin(population, n, 0.5, confidence);
                assert!(so_many <= wanted * (1.0 + 1e-9), "{population} {wanted}: {n} give {so_many}");
                assert!(n == 1 || margin(population, n - 1, 0.5, confidence) > wanted, "{population} {wanted}: {n}");
            }
        }
    }
    assert_eq!(margin(100, 100, 0.5, Confidence::P95), 0.0);
    assert_eq!(margin(100, 0, 0.5, Confidence::P95), 1.0);
    assert!(near(correction(101, 51), 0.5f64.sqrt(), 1e-12));
}

/// Newcombe, "Two-sided confidence intervals for the single proportion", Statistics in Medicine 17 (1998), table I.
#[test]
fn intervals_are_those_of_newcombe() {
    let table = [
        (81, 263, (0.2553, 0.3662), (0.2527, 0.3676)),
        (15, 148, (0.0624, 0.1605), (0.0578, 0.1617)),
        (0, 20, (0.0, 0.1611), (0.0, 0.1684)),
        (1, 29, (0.0061, 0.1718), (0.0009, 0.1776)),
    ];
    for (successes, n, score, exact) in table {
        for (interval, (low, high)) in
            [(wilson(successes, n, Confidence::P95), score), (clopper_pearson(successes, n, Confidence::P95), exact)]
        {
            assert!(
                near(interval.low, low, 5.1e-5) && near(interval.high, high, 5.1e-5),
                "{successes}/{n}: {interval:?}"
            );
        }
    }
}

#[test]
fn intervals_are_symmetrical_and_end_at_0_and_1() {
    for n in [1, 2, 20, 1000] {
        for successes in [0, 1, n / 3, n] {
            for interval in [wilson, clopper_pearson] {
                let (a, b) = (interval(successes, n, Confidence::P99), interval(n - successes, n, Confidence::P99));
                assert!(near(a.low, 1.0 - b.high, 1e-9) && near(a.high, 1.0 - b.low, 1e-9), "{successes}/{n}");
                assert!(a.has(successes as f64 / n as f64));
            }
        }
        assert_eq!((wilson(0, n, Confidence::P95).low, wilson(n, n, Confidence::P95).high), (0.0, 1.0));
    }
    for interval in [wilson, clopper_pearson] {
        assert_eq!(interval(0, 0, Confidence::P95), Interval::UNKNOWN);
    }
}

/// A quantile of the Beta distribution is where sums of the binomial distribution reach the tail's probability.
#[test]
fn clopper_pearson_agrees_with_sums_of_the_binomial_distribution() {
    for (successes, n) in [(3u64, 30u64), (50, 400), (1000, 20_000), (300_000, 1_000_000), (7, 1_000_000)] {
        let interval = clopper_pearson(successes, n, Confidence::P95);
        let above: f64 = (successes..=n).map(|k| probability(k, n, interval.low)).sum();
        let below: f64 = (0..=successes).map(|k| probability(k, n, interval.high)).sum();
        assert!(near(above, 0.025, 1e-6) && near(below, 0.025, 1e-6), "{successes}/{n}: {above} {below}");
    }
}

fn probability(k: u64, n: u64, share: f64) -> f64 {
    use statrs::function::factorial::ln_binomial;
    (ln_binomial(n, k) + k as f64 * share.ln() + (n - k) as f64 * (1.0 - share).ln()).exp()
}

#[test]
fn no_event_in_n_leaves_three_in_n() {
    for n in [30, 1000, 50_000] {
        assert!(near(rule_of_three(n, Confidence::P95) * n as f64, 3.0, 0.005));
        // A one-sided 95 % is a two-sided 90 %.
        let exact = clopper_pearson(0, n, Confidence::from_ppm(900_000).unwrap()).high;
        assert!(near(rule_of_three(n, Confidence::P95), exact, exact * 3.0 / n as f64));
    }
    assert_eq!(rule_of_three(0, Confidence::P95), 1.0);
}

/// The mean over shares of the probability, summed exactly, that an interval has the share. Wilson's is near the level, Clopper
/// and Pearson's nowhere below it (Brown, Cai and DasGupta 2001).
#[test]
fn intervals_have_the_share_as_often_as_they_say() {
    let n = 100;
    let exact: Vec<Interval> = (0..=n).map(|k| clopper_pearson(k, n, Confidence::P95)).collect();
    let score: Vec<Interval> = (0..=n).map(|k| wilson(k, n, Confidence::P95)).collect();
    let covered = |intervals: &[Interval], share: f64| -> f64 {
        (0..=n).filter(|k| intervals[*k as usize].has(share)).map(|k| probability(k, n, share)).sum()
    };
    let shares: Vec<f64> = (1..500).map(|i| f64::from(i) / 500.0).collect();
    let mean = shares.iter().map(|share| covered(&score, *share)).sum::<f64>() / shares.len() as f64;
    assert!(near(mean, 0.95, 0.005), "{mean}");
    assert!(shares.iter().all(|share| covered(&exact, *share) >= 0.95));
}

/// Draws from strata that are finite, and whose shares are known.
#[test]
fn intervals_of_drawn_strata_have_the_share_as_often_as_they_say() {
    // Faults, of these the ones that fail, injections.
    let cases: [&[(u64, u64, u64)]; 4] = [
        &[(50_000, 500, 400), (2000, 900, 300), (300, 150, 200)],
        &[(1000, 30, 100), (1000, 0, 100)],
        &[(400, 160, 300)],
        &[(1_000_000, 3000, 500), (10_000, 9900, 50), (10, 5, 10)],
    ];
    let mut random = Random(2009);
    for strata in cases {
        let faults: u64 = strata.iter().map(|(population, ..)| population).sum();
        let share = strata.iter().map(|(_, failing, _)| failing).sum::<u64>() as f64 / faults as f64;
        let rounds = 2000;
        let (mut covered, mut mean, mut square, mut variance) = (0, 0.0, 0.0, 0.0);
        for _ in 0..rounds {
            let parts: Vec<Part> = strata
                .iter()
                .map(|&(population, failing, n)| {
                    let mut left = failing;
                    let drawn = |i: u64| {
                        random.below(population - i) < left && {
                            left -= 1;
                            true
                        }
                    };
                    let successes = (0..n).map(drawn).filter(|failed| *failed).count() as u64;
                    Part { population, n, successes, replaced: false }
                })
                .collect();
            let estimate = stratified(&parts, Confidence::P95).unwrap();
            covered += u32::from(estimate.interval.has(share));
            mean += estimate.share / f64::from(rounds);
            square += (estimate.share - share).powi(2) / f64::from(rounds);
            variance += estimate.variance / f64::from(rounds);
        }
        let covered = f64::from(covered) / f64::from(rounds);
        // Three standard errors of a simulation of 2,000 rounds are 1.5 %.
        assert!((0.935..=0.985).contains(&covered), "{strata:?}: {covered}");
        assert!(near(mean, share, 4.0 * (square / f64::from(rounds)).sqrt()), "{strata:?}: {mean} for {share}");
        assert!(near(variance / square, 1.0, 0.15), "{strata:?}: variance {variance}, is {square}");
    }
}

#[test]
fn a_stratum_alone_is_wilson_and_all_of_one_is_certain() {
    let part = Part { population: LARGE, n: 263, successes: 81, replaced: false };
    let estimate = stratified(&[part], Confidence::P95).unwrap();
    let score = wilson(81, 263, Confidence::P95);
    assert!(near(estimate.interval.low, score.low, 1e-12) && near(estimate.interval.high, score.high, 1e-12));
    let all = Part { population: 500, n: 500, successes: 100, replaced: false };
    let estimate = stratified(&[all], Confidence::P95).unwrap();
    assert_eq!((estimate.share, estimate.variance), (0.2, 0.0));
    assert_eq!(estimate.interval, Interval { low: 0.2, high: 0.2 });
    assert_eq!((estimate.total(), estimate.total_interval().high), (100.0, 100.0));
    let replaced = Part { replaced: true, ..all };
    assert!(replaced.interval(Confidence::P95).half_width() > 0.03);
    let none = Part { population: 500, n: 0, successes: 0, replaced: false };
    assert!(stratified(&[none], Confidence::P95).is_none() && stratified(&[], Confidence::P95).is_none());
    assert_eq!(stratified(&[all, none], Confidence::P95).unwrap().population, 500.0);
}

#[test]
fn strata_weigh_as_much_as_they_have_faults() {
    // Cochran, Sampling Techniques, chapter 5: the mean of strata is weighted by their sizes.
    let parts = [
        Part { population: 9000, n: 100, successes: 10, replaced: false },
        Part { population: 1000, n: 100, successes: 90, replaced: false },
    ];
    let estimate = stratified(&parts, Confidence::P95).unwrap();
    assert!(near(estimate.share, 0.18, 1e-12));
    assert!(near(estimate.total(), 1800.0, 1e-9));
    let by_hand = 0.81 * 0.09 / 99.0 * (1.0 - 100.0 / 9000.0) + 0.01 * 0.09 / 99.0 * 0.9;
    assert!(near(estimate.variance, by_hand, 1e-15));
}

#[test]
fn sampling_stops_when_every_interval_is_narrow() {
    let enough_at = |counts: &[u64], n| enough(counts, n, LARGE, Confidence::P95, 0.01);
    assert!(!enough_at(&[0, 0], 0));
    assert!(!enough_at(&[4800, 4700], 9500) && enough_at(&[4802, 4802], 9604));
    // Rare outcomes need fewer, but one common outcome is enough to go on.
    assert!(enough_at(&[1000, 0], 1000) && !enough_at(&[500, 500], 1000));
    // No draw is left to be wrong about.
    assert!(enough(&[50, 50], 100, 100, Confidence::P99, 0.0));
    assert!(!enough(&[50, 50], 100, 101, Confidence::P99, 0.001));
}

/// The interval of a sample that was stopped by its own width has the share nearly as often (Chow and Robbins 1965).
#[test]
fn stopping_costs_little_confidence() {
    let mut random = Random(1965);
    for share in [0.01, 0.1, 0.4] {
        let rounds = 2000;
        let covered = (0..rounds).filter(|_| {
            let (mut n, mut successes) = (0, 0);
            while !enough(&[successes, n - successes], n, LARGE, Confidence::P95, 0.03) {
                successes += (0..100).filter(|_| random.unit() < share).count() as u64;
                n += 100;
            }
            wilson(successes, n, Confidence::P95).has(share)
        });
        let covered = f64::from(covered.count() as u32) / f64::from(rounds);
        assert!((0.93..=0.985).contains(&covered), "{share}: {covered}");
    }
}
