//! Injections that one wants to see again.

use super::number::grouped;
use super::summary::Summary;
use super::svg::{cut, escape};
use crate::row::{Outcome, Row};
use std::fmt::Write;

/// Of each outcome.
const ROWS_MAX: usize = 10;
/// Of a text from a guest.
const CHARACTERS_MAX: usize = 160;

const LISTED: [(Outcome, &str); 4] = [
    (Outcome::Sdc, "Silent data corruption"),
    (Outcome::Crash, "Crashes"),
    (Outcome::Hang, "Hangs"),
    (Outcome::ToolError, "Errors of the tool"),
];

/// The first injections of each outcome that is listed.
pub(super) fn lists(summary: &Summary) -> String {
    let mut out = String::new();
    for (outcome, title) in LISTED {
        let rows: Vec<&Row> = summary.table.rows.iter().filter(|row| row.outcome == outcome).take(ROWS_MAX).collect();
        if rows.is_empty() {
            continue;
        }
        let all = summary.counts.of(outcome);
        let shown = if all > rows.len() as u64 {
            format!("the first {} of {}", rows.len(), grouped(all))
        } else {
            grouped(all)
        };
        let _ = write!(
            out,
            "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{title}\"><table class=\"list\" id=\"list-{outcome}\"><caption><i class=\"key o-{outcome}\"></i>{title}: {shown}</caption>\
             <thead><tr><th scope=\"col\">fault and replay</th><th scope=\"col\">seen</th><th scope=\"col\">phase</th><th scope=\"col\">KeyID</th>\
             <th scope=\"col\">RIP</th><th scope=\"col\">latency</th><th scope=\"col\">first wrong line</th></tr></thead><tbody>"
        );
        rows.into_iter().for_each(|row| line(&mut out, row));
        out.push_str("</tbody></table></div>");
    }
    if out.is_empty() {
        out.push_str("<p>No injection ended in silent data corruption, a crash, a hang or an error of the tool.</p>");
    }
    out
}

fn line(out: &mut String, row: &Row) {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "–".into());
    let seen = match (&row.detail[..], row.console_line, &row.console_text) {
        ("", Some(number), Some(text)) => format!("console line {number}: {text}"),
        ("", Some(number), None) => format!("console line {number} is missing"),
        ("", ..) => match row.wrong_lines {
            Some(lines) if lines > 0 => format!("{} lines of memory differ", grouped(lines)),
            _ => "–".into(),
        },
        (detail, ..) => detail.to_owned(),
    };
    let _ = write!(
        out,
        "<tr><td><code>{}</code><br><code class=\"replay\">mktme-emu campaign replay DIR --id {}</code></td><td>{}</td><td>{}</td><td>{}</td>\
         <td><code>{}</code></td><td class=\"n\">{}</td><td><code>{}</code></td></tr>",
        escape(&cut(&row.fault, CHARACTERS_MAX)),
        row.id,
        escape(&cut(&seen, CHARACTERS_MAX)),
        escape(row.phase.as_deref().unwrap_or("–")),
        or_dash(row.keyid.map(|keyid| keyid.to_string())),
        or_dash(row.rip.map(|rip| format!("{rip:#x}"))),
        or_dash(row.latency.map(grouped)),
        or_dash(row.first_wrong_line.map(|line| format!("{line:#x}"))),
    );
}
