//! The summary for terminals.

use super::number::{estimate, grouped, percent, percents};
use super::summary::{Counts, Share, Summary};
use super::svg::cut;
use crate::meta::Shard;
use crate::row::Outcome;
use crate::stats::Estimate;
use std::fmt::Write;

/// Of a name, at most.
const NAME: usize = 20;
const INDENTED: usize = NAME - 2;

pub(super) fn text(summary: &Summary) -> String {
    let mut out = String::new();
    let (done, planned, shard) = (summary.counts.all(), summary.planned(), summary.table.shard);
    let _ = writeln!(
        out,
        "{}: {} of {} injections, {} faults{}",
        clean(&summary.table.campaign.name),
        grouped(done),
        grouped(planned),
        estimate(summary.population() as f64),
        if shard == Shard::WHOLE { String::new() } else { format!(", part {} of {}", shard.part, shard.parts) }
    );
    if done < planned {
        let _ = writeln!(out, "not a random sample: injections are done in the order of their triggers");
    }
    let level = summary.confidence.percent();
    let _ = writeln!(out, "\n{:<NAME$} {:>13} {:>9}  {level} % interval", "stratum, outcome", "injections", "%");
    for stratum in &summary.strata {
        let shares = Outcome::ALL.map(|outcome| stratum.share(|of| of == outcome, summary.confidence));
        let share = stratum.share(Outcome::is_failure, summary.confidence);
        let failures = stratum.failures(summary.confidence).map(|failures| (share, failures));
        block(&mut out, stratum.name, &stratum.counts, &shares, failures);
    }
    let shares = Outcome::ALL.map(|outcome| summary.overall_share(move |of| of == outcome));
    let share = summary.overall_share(Outcome::is_failure);
    let failures = summary.overall(Outcome::is_failure).map(|failures| (share, failures));
    block(&mut out, "all, weighted", &summary.counts, &shares, failures);
    let unsampled = summary.unsampled();
    if !unsampled.is_empty() && done > 0 {
        let _ = writeln!(out, "left out, without injections: {}", clean(&unsampled.join(", ")));
    }
    out.push_str(
        "Failures are SDCs, crashes and hangs, extrapolated to the whole fault space.\n\
         Compare programs by that number, not by percentages (Schirmeier et al., DSN\n2015).\n",
    );
    out
}

fn block(out: &mut String, name: &str, counts: &Counts, shares: &[Share], failures: Option<(Share, Estimate)>) {
    let population = failures.map_or(String::new(), |(_, e)| format!("of {} faults", estimate(e.population)));
    let name = cut(&clean(name), NAME - 1);
    let _ =
        writeln!(out, "{}", format!("{name:<NAME$} {:>13}            {population}", grouped(counts.all())).trim_end());
    let mut line = |name: &str, count: u64, Share { share, interval }: Share| {
        let (value, range) = (percent(share, interval), percents(interval));
        let _ = writeln!(out, "  {name:<INDENTED$} {:>13} {value:>9}  {range}", grouped(count));
    };
    // Outcomes that never came are left out, unless they are failures.
    for (outcome, share) in Outcome::ALL.into_iter().zip(shares) {
        let count = counts.of(outcome);
        if counts.all() > 0 && (count > 0 || outcome.is_failure()) {
            line(outcome.name(), count, *share);
        }
    }
    if let Some((share, failures)) = failures {
        line("failures", counts.failures(), share);
        let range = failures.total_interval();
        let range = format!("{}–{}", estimate(range.low), estimate(range.high));
        let number = estimate(failures.total());
        let _ = writeln!(out, "  {:<INDENTED$} {number:>13}            {range}", "extrapolated");
    }
    out.push('\n');
}

/// Without what a terminal would act on.
fn clean(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}
