//! How long it takes until an outcome shows.

use super::number::{grouped, short, step};
use super::summary::{Counts, Summary};
use super::svg::Figure;
use crate::row::Outcome;
use std::collections::BTreeMap;

const LEFT: f64 = 52.0;
const TOP: f64 = 26.0;
const BOTTOM: f64 = 216.0;

/// Number of the bin: 0 for no instructions, then three for each power of ten, from 1, 2 and 5 on.
fn bin(latency: u64) -> u32 {
    let Some(power) = latency.checked_ilog10() else { return 0 };
    let first = latency / 10u64.pow(power);
    1 + 3 * power + if first >= 5 { 2 } else { u32::from(first >= 2) }
}

/// The first latency of a bin.
fn start(bin: u32) -> u64 {
    let Some(index) = bin.checked_sub(1) else { return 0 };
    10u64.saturating_pow(index / 3).saturating_mul([1, 2, 5][(index % 3) as usize])
}

pub(super) fn figure(summary: &Summary) -> Figure {
    let mut figure = Figure::new("latency", "Latency from the first effect to where the outcome showed", 560.0);
    let mut bins: BTreeMap<u32, Counts> = BTreeMap::new();
    for row in &summary.table.rows {
        if let Some(latency) = row.latency {
            bins.entry(bin(latency)).or_default().add(row.outcome);
        }
    }
    let (Some((&first, _)), Some((&last, _))) = (bins.first_key_value(), bins.last_key_value()) else {
        figure.description = "No injection has a latency.".into();
        figure.say_empty();
        return figure;
    };
    let right = figure.width - 8.0;
    let most = bins.values().map(Counts::all).max().unwrap_or(1);
    let step = step(most as f64, 4.0).max(1.0);
    let limit = (most as f64 / step).ceil() * step;
    let y = |count: f64| BOTTOM - (BOTTOM - TOP) * count / limit;
    let mut tick = 0.0;
    while tick <= limit {
        figure.line((LEFT, y(tick)), (right, y(tick)), if tick == 0.0 { "axis" } else { "rule" });
        figure.text(LEFT - 6.0, y(tick) + 4.0, "end muted small", &short(tick));
        tick += step;
    }
    figure.text(0.0, 12.0, "start muted small", "injections");
    // Bars stay slender where there are few.
    let pitch = ((right - LEFT) / f64::from(last - first + 1)).min(48.0);
    let every = ((38.0 / pitch).ceil() as u32).max(1);
    for bin in first..=last {
        let x = LEFT + pitch * f64::from(bin - first);
        // The limits of the decades, as far as they fit.
        let labelled = if every == 1 { true } else { bin == 0 || (bin - 1).is_multiple_of(3) };
        if labelled {
            figure.line((x, BOTTOM), (x, BOTTOM + 4.0), "axis");
            figure.text(x, BOTTOM + 17.0, "middle muted small", &short(start(bin) as f64));
        }
        let Some(counts) = bins.get(&bin) else { continue };
        let all = Outcome::ALL.into_iter().filter(|of| counts.of(*of) > 0);
        let parts: Vec<String> = all.clone().map(|of| format!("{} {of}", grouped(counts.of(of)))).collect();
        let range =
            if bin == 0 { "0".into() } else { format!("{} to {}", grouped(start(bin)), grouped(start(bin + 1) - 1)) };
        figure.put(format_args!("<g class=\"bin\"><title>{range} instructions: {}</title>", parts.join(", ")));
        let mut below = 0;
        for outcome in all {
            let count = counts.of(outcome);
            let top = y((below + count) as f64);
            figure.put(format_args!(
                "<rect class=\"o-{outcome}\" x=\"{:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>",
                x + 1.0,
                (pitch - 2.0).max(1.0),
                y(below as f64) - top
            ));
            below += count;
        }
        figure.put(format_args!("</g>"));
    }
    figure.text(
        LEFT,
        BOTTOM + 36.0,
        "start muted small",
        "instructions from the first effect to where the outcome showed",
    );
    let outcomes: Vec<Outcome> =
        Outcome::ALL.into_iter().filter(|outcome| bins.values().any(|counts| counts.of(*outcome) > 0)).collect();
    figure.height = figure.legend(&outcomes, false, LEFT, BOTTOM + 60.0);
    let injections: u64 = bins.values().map(Counts::all).sum();
    figure.description = format!(
        "Histogram of {} injections whose outcome showed, in bins of 1, 2 and 5 times powers of ten, from {} to {} instructions.",
        grouped(injections),
        grouped(start(first)),
        grouped(start(last + 1).saturating_sub(1))
    );
    figure
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_start_where_they_say() {
        for number in 0..58 {
            assert_eq!(bin(start(number)), number);
            assert_eq!(bin(start(number + 1) - 1), number);
        }
        assert_eq!(bin(u64::MAX), 58);
    }
}
