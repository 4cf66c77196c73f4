//! Bars of outcomes, with intervals.

use super::number::{grouped, percent, percents, short, step};
use super::summary::{Share, Summary};
use super::svg::{Figure, cut};
use crate::row::Outcome;

/// From one bar to the next.
const PITCH: f64 = 23.0;
const BAR: f64 = 13.0;
const LABELS: f64 = 92.0;
/// Of a share and its interval to four places.
const VALUES: f64 = 152.0;
const TOP: f64 = 30.0;

/// Outcomes as they are drawn: those that were not activated come last, apart.
fn order() -> impl Iterator<Item = Outcome> {
    let activated = Outcome::ALL.into_iter().filter(|outcome| *outcome != Outcome::NotActivated);
    activated.chain([Outcome::NotActivated])
}

/// Where the axis ends: the same for all, so that they can be compared.
fn limit(summary: &Summary) -> f64 {
    let of_strata = summary.strata.iter().filter(|stratum| stratum.counts.all() > 0).flat_map(|stratum| {
        Outcome::ALL.into_iter().map(|outcome| stratum.share(|of| of == outcome, summary.confidence).interval.high)
    });
    let high = of_strata.fold(0.0, f64::max);
    if high <= 0.0 {
        return 1.0;
    }
    let step = step(high, 5.0);
    ((high / step).ceil() * step).min(1.0)
}

/// All strata together, weighted.
pub(super) fn overall(summary: &Summary) -> Figure {
    let bars =
        order().map(|outcome| (outcome, summary.counts.of(outcome), summary.overall_share(move |of| of == outcome)));
    let n = summary.counts.all();
    let title = "Outcomes of the whole fault space";
    figure("outcomes", title, 580.0, limit(summary), n, bars.collect())
}

/// Each stratum.
pub(super) fn strata(summary: &Summary) -> Vec<Figure> {
    let limit = limit(summary);
    let figures = summary.strata.iter().enumerate().map(|(index, stratum)| {
        let bars = order().map(|outcome| {
            (outcome, stratum.counts.of(outcome), stratum.share(|of| of == outcome, summary.confidence))
        });
        let name = format!("outcomes-{}", index + 1);
        figure(&name, &cut(stratum.name, 40), 450.0, limit, stratum.counts.all(), bars.collect())
    });
    figures.collect()
}

fn figure(name: &str, title: &str, width: f64, limit: f64, n: u64, bars: Vec<(Outcome, u64, Share)>) -> Figure {
    let mut figure = Figure::new(name, title, width);
    let right = width - VALUES;
    let x = |share: f64| LABELS + (right - LABELS) * (share / limit).min(1.0);
    figure.text(0.0, 14.0, "start strong", title);
    figure.text(
        width,
        14.0,
        "end muted",
        &if n == 1 { "1 injection".into() } else { format!("{} injections", grouped(n)) },
    );
    let bottom = TOP + PITCH * bars.len() as f64 + 6.0;
    let step = step(limit * 100.0, 5.0);
    let mut tick = 0.0;
    while tick <= limit * 100.0 + 1e-9 {
        figure.line((x(tick / 100.0), TOP - 2.0), (x(tick / 100.0), bottom), "rule");
        figure.text(x(tick / 100.0), bottom + 14.0, "middle muted small", &short(tick));
        tick += step;
    }
    figure.text(right + 20.0, bottom + 14.0, "start muted small", "% of faults");
    let mut described = Vec::new();
    let count = bars.len();
    for (index, (outcome, found, Share { share, interval })) in bars.into_iter().enumerate() {
        // What was not activated stands apart.
        let apart = if index + 1 == count { 6.0 } else { 0.0 };
        let middle = TOP + PITCH * index as f64 + PITCH / 2.0 + apart;
        if apart > 0.0 {
            figure.line((0.0, middle - PITCH / 2.0 - 2.0), (width, middle - PITCH / 2.0 - 2.0), "rule");
        }
        let muted = if found == 0 { " muted" } else { "" };
        figure.text(LABELS - 8.0, middle + 4.0, &format!("end{muted}"), outcome.name());
        if n == 0 {
            figure.text(right + 12.0, middle + 4.0, "start muted", "–");
            continue;
        }
        let (value, range) = (percent(share, interval), percents(interval));
        figure.put(format_args!("<g class=\"bar\"><title>{outcome}: {found} of {n}, {value} % ({range})</title>"));
        if found > 0 {
            let (top, long) = (middle - BAR / 2.0, (x(share) - LABELS).max(1.0));
            figure.put(format_args!(
                "<rect class=\"o-{outcome}\" x=\"{LABELS:.1}\" y=\"{top:.1}\" width=\"{long:.1}\" height=\"{BAR}\"/>"
            ));
        }
        let (low, high) = (x(interval.low), x(interval.high));
        let whisker =
            format!("M{low:.1} {middle:.1}H{high:.1}M{low:.1} {:.1}v7M{high:.1} {:.1}v7", middle - 3.5, middle - 3.5);
        figure.put(format_args!("<path class=\"halo\" d=\"{whisker}\"/><path class=\"whisker\" d=\"{whisker}\"/></g>"));
        figure.put(format_args!(
            "<text x=\"{:.1}\" y=\"{:.1}\" class=\"start{muted}\">{value}<tspan class=\"muted small\" dx=\"6\">{range}</tspan></text>",
            right + 12.0,
            middle + 4.0
        ));
        described.push(format!("{outcome} {value} % ({range})"));
    }
    figure.description = if n == 0 { "No injections.".into() } else { format!("{}.", described.join("; ")) };
    figure.height = bottom + 20.0;
    figure
}
