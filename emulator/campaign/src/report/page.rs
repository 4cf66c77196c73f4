//! The page.

use super::number::{estimate, grouped, percent, percents};
use super::summary::Summary;
use super::svg::{Figure, escape};
use super::{FIGURE_STYLE, bars, latency, lists, map, tables};
use crate::meta::Shard;
use crate::row::Outcome;
use std::fmt::Write;

/// All figures, in the order of the page.
pub(super) fn figures(summary: &Summary) -> Vec<Figure> {
    let mut figures = vec![bars::overall(summary)];
    figures.extend(bars::strata(summary));
    figures.push(map::figure(summary));
    figures.push(latency::figure(summary));
    figures
}

pub(super) fn page(summary: &Summary) -> String {
    let campaign = &summary.table.campaign;
    let name = escape(&campaign.name);
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\"><meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none';style-src 'unsafe-inline';script-src 'unsafe-inline'\">\
         <title>{name}: fault-injection campaign</title><style>{FIGURE_STYLE}{}</style></head><body><h1>{name}: fault-injection campaign</h1>",
        include_str!("page.css")
    );
    lead(&mut out, summary);
    out.push_str("<h2>Outcomes</h2><div class=\"pair\"><div>");
    let overall = bars::overall(summary);
    figure(&mut out, "", &overall, &overall_caption(summary));
    out.push_str("</div><div>");
    facts(&mut out, summary);
    out.push_str("</div></div>");
    if !summary.strata.is_empty() {
        out.push_str("<h2>Strata</h2><div class=\"many\">");
        for stratum in bars::strata(summary) {
            figure(&mut out, "", &stratum, "");
        }
        out.push_str("</div>");
        let _ = write!(
            out,
            "<p class=\"note\">Share of injections in % with {} % intervals (Wilson). All axes are the same.</p>",
            summary.confidence.percent()
        );
    }
    out.push_str(&tables::strata(summary));
    remark(&mut out);
    out.push_str("<h2>Fault space</h2>");
    let space = map::figure(summary);
    figure(&mut out, "map", &space, caption(&space));
    out.push_str("<h2>Targets, KeyIDs and phases</h2>");
    out.push_str(&tables::groups(summary, "targets", "Outcomes by target", "target", &summary.targets));
    out.push_str(&tables::groups(summary, "keyids", "Outcomes by KeyID", "KeyID", &summary.keyids));
    out.push_str(&tables::groups(summary, "phases", "Outcomes by phase", "phase", &summary.phases));
    remark(&mut out);
    out.push_str("<h2>Latency</h2>");
    let latency = latency::figure(summary);
    figure(&mut out, "latency", &latency, caption(&latency));
    out.push_str("<h2>Injections to look at</h2>");
    out.push_str(&lists::lists(summary));
    out.push_str("<h2>Golden run and plan</h2>");
    let _ = write!(
        out,
        "<details><summary>Console of the golden run</summary><pre>{}</pre></details><details><summary>Plan</summary><pre>{}</pre></details>",
        escape(&campaign.golden.console.replace('\r', "")),
        escape(&campaign.plan)
    );
    let _ = writeln!(out, "<script>{}</script></body></html>", include_str!("page.js"));
    out
}

/// What one wants to know first, and what is wrong with it.
fn lead(out: &mut String, summary: &Summary) {
    let (done, planned) = (summary.counts.all(), summary.planned());
    let shard = summary.table.shard;
    let level = summary.confidence.percent();
    match summary.overall(Outcome::is_failure) {
        Some(failures) => {
            let range = failures.total_interval();
            let _ = write!(
                out,
                "<p class=\"lead\">{} injections into a fault space of {} faults. <b>{} %</b> of the faults are failures (SDC, crash or hang; {level} % \
                 interval {}): <b>{}</b> faults ({}–{}).</p>",
                grouped(done),
                estimate(summary.population() as f64),
                percent(failures.share, failures.interval),
                percents(failures.interval),
                estimate(failures.total()),
                estimate(range.low),
                estimate(range.high)
            );
        }
        None => out.push_str("<p class=\"lead\">No injections.</p>"),
    }
    let mut warn = |text: String| {
        let _ = write!(out, "<p class=\"warning\">{text}</p>");
    };
    if shard != Shard::WHOLE {
        warn(format!("Part {} of {} of the campaign only.", shard.part, shard.parts));
    }
    if done < planned {
        warn(format!(
            "{} of {} injections are done. Those are not a random sample: injections are done in the order of their triggers.",
            grouped(done),
            grouped(planned)
        ));
    }
    let errors = summary.counts.of(Outcome::ToolError);
    if errors > 0 {
        warn(format!("{} injections failed because of the emulator, not of the guest.", grouped(errors)));
    }
    let unsampled = summary.unsampled();
    if !unsampled.is_empty() && done > 0 {
        warn(format!(
            "Strata without injections, left out of what is said of the whole: {}.",
            escape(&unsampled.join(", "))
        ));
    }
}

fn overall_caption(summary: &Summary) -> String {
    format!(
        "Share of the faults in %, each stratum weighted by its fault space, with {} % intervals. Below the line: faults that were never \
         triggered or found nothing to change.",
        summary.confidence.percent()
    )
}

/// The golden run and the campaign.
fn facts(out: &mut String, summary: &Summary) {
    let campaign = &summary.table.campaign;
    let golden = &campaign.golden;
    let (shard, not) = (summary.table.shard, summary.counts.of(Outcome::NotActivated));
    let stopped: Vec<&str> =
        summary.strata.iter().filter(|stratum| stratum.stopped).map(|stratum| stratum.name).collect();
    let phases: Vec<String> = golden
        .phases
        .iter()
        .map(|(at, name)| format!("{name} ({})", grouped(at.saturating_sub(golden.start))))
        .collect();
    let mut facts = vec![
        ("campaign", format!("<code>{}</code>", escape(&campaign.identity))),
        (
            "injections",
            format!(
                "{} of {} planned, part {} of {}",
                grouped(summary.counts.all()),
                grouped(summary.planned()),
                shard.part,
                shard.parts
            ),
        ),
        ("activated", format!("{}, not activated {}", grouped(summary.counts.all() - not), grouped(not))),
        ("fault space", format!("{} faults in {} strata", estimate(summary.population() as f64), summary.strata.len())),
        (
            "golden run",
            format!(
                "{} instructions, from {} to {}",
                grouped(golden.end.saturating_sub(golden.start)),
                grouped(golden.start),
                grouped(golden.end)
            ),
        ),
        ("its state hash", format!("<code>{}</code>", escape(&golden.state_hash))),
    ];
    if !phases.is_empty() {
        facts.push(("phases from", escape(&phases.join(", "))));
    }
    if !stopped.is_empty() {
        facts.push(("stopped early", escape(&stopped.join(", "))));
    }
    out.push_str("<dl id=\"facts\">");
    for (name, value) in facts {
        let _ = write!(out, "<dt>{name}</dt><dd>{value}</dd>");
    }
    out.push_str("</dl>");
}

/// The description, unless it is all that there is in the figure.
fn caption(figure: &Figure) -> &str {
    if figure.is_empty() { "" } else { &figure.description }
}

fn figure(out: &mut String, class: &str, figure: &Figure, caption: &str) {
    let caption =
        if caption.is_empty() { String::new() } else { format!("<figcaption>{}</figcaption>", escape(caption)) };
    let _ = write!(out, "<figure class=\"{class}\">{}{caption}</figure>", figure.element());
}

/// What percentages are not for.
fn remark(out: &mut String) {
    out.push_str(
        "<p class=\"note\">Percentages must not be used to compare programs: a longer run or more memory, however idle, makes them smaller. Compare the \
         number of failures in the whole fault space (Schirmeier, Borchert and Spinczyk, DSN 2015). Failures are SDCs, crashes and hangs.</p>",
    );
}
