//! Tables of the page.

use super::number::{estimate, grouped, percent, percents};
use super::summary::{Counts, Group, Share, Summary};
use super::svg::escape;
use crate::row::Outcome;
use crate::stats::Estimate;
use std::fmt::Write;

/// A row of a table of outcomes.
struct Line {
    name: String,
    /// What the name stands for.
    about: Option<String>,
    population: Option<String>,
    counts: Counts,
    shares: Vec<Share>,
    failures: Option<Estimate>,
    class: &'static str,
}

/// All strata, and all together.
pub(super) fn strata(summary: &Summary) -> String {
    let confidence = summary.confidence;
    let mut lines: Vec<Line> = summary
        .strata
        .iter()
        .map(|stratum| Line {
            name: stratum.name.to_owned(),
            about: Some(stratum.faults.to_owned()),
            population: Some(grouped(stratum.population)),
            counts: stratum.counts,
            shares: Outcome::ALL.map(|outcome| stratum.share(|of| of == outcome, confidence)).to_vec(),
            failures: stratum.failures(confidence),
            class: "",
        })
        .collect();
    lines.push(Line {
        name: "all, weighted".into(),
        about: None,
        population: Some(estimate(summary.population() as f64)),
        counts: summary.counts,
        shares: Outcome::ALL.map(|outcome| summary.overall_share(move |of| of == outcome)).to_vec(),
        failures: summary.overall(Outcome::is_failure),
        class: " class=\"sum\"",
    });
    table(summary, "strata", "Outcomes by stratum", "stratum", true, &lines)
}

/// Groups that cut through strata.
pub(super) fn groups(summary: &Summary, id: &str, caption: &str, head: &str, groups: &[Group]) -> String {
    let lines: Vec<Line> = groups
        .iter()
        .map(|group| Line {
            name: group.name.clone(),
            about: None,
            population: None,
            counts: group.counts,
            shares: Outcome::ALL.map(|outcome| summary.group_share(group, |of| of == outcome)).to_vec(),
            failures: summary.group_failures(group),
            class: "",
        })
        .collect();
    table(summary, id, caption, head, false, &lines)
}

fn table(summary: &Summary, id: &str, caption: &str, head: &str, population: bool, lines: &[Line]) -> String {
    let mut out = String::new();
    let level = summary.confidence.percent();
    let _ = write!(
        out,
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{caption}\"><table id=\"{id}\" class=\"outcomes sortable\"><caption>{caption}: injections, \
         share in %, {level} % interval</caption><thead><tr><th scope=\"col\">{head}</th>{}<th scope=\"col\">injections</th>",
        if population { "<th scope=\"col\">faults</th>" } else { "" }
    );
    for outcome in Outcome::ALL {
        let _ = write!(out, "<th scope=\"col\"><i class=\"key o-{outcome}\"></i>{outcome}</th>");
    }
    out.push_str("<th scope=\"col\">failures in the fault space</th></tr></thead><tbody>");
    for line in lines {
        let about = line.about.as_ref().map_or(String::new(), |about| format!("<small>{}</small>", escape(about)));
        let _ = write!(out, "<tr{}><th scope=\"row\">{}{about}</th>", line.class, escape(&line.name));
        if let Some(population) = &line.population {
            let _ = write!(out, "<td>{population}</td>");
        }
        let n = line.counts.all();
        let _ = write!(out, "<td data-v=\"{n}\">{}</td>", grouped(n));
        for (outcome, Share { share, interval }) in Outcome::ALL.into_iter().zip(&line.shares) {
            let count = line.counts.of(outcome);
            if n == 0 {
                out.push_str("<td class=\"none\" data-v=\"-1\">–</td>");
            } else {
                let class = if count == 0 { " class=\"none\"" } else { "" };
                let _ = write!(
                    out,
                    "<td{class} data-v=\"{share:.9}\">{}<b>{}</b><small>{}</small></td>",
                    grouped(count),
                    percent(*share, *interval),
                    percents(*interval)
                );
            }
        }
        match line.failures {
            Some(failures) => {
                let range = failures.total_interval();
                let _ = write!(
                    out,
                    "<td data-v=\"{:.3}\"><b>{}</b><small>{}–{}</small></td>",
                    failures.total(),
                    estimate(failures.total()),
                    estimate(range.low),
                    estimate(range.high)
                );
            }
            None => out.push_str("<td class=\"none\" data-v=\"-1\">–</td>"),
        }
        out.push_str("</tr>");
    }
    if lines.is_empty() {
        let _ = write!(out, "<tr><td class=\"none\" colspan=\"{}\">no injections</td></tr>", Outcome::ALL.len() + 3);
    }
    out.push_str("</tbody></table></div>");
    out
}
