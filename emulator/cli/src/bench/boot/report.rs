//! The comparison as a table, as JSON and as plots.

use super::args::BootArgs;
use super::child::Run;
use super::items::{self, Row, median};
use super::side::Side;
use crate::bench::datapath::LineCost;
use crate::bench::plot::Panel;
use crate::summary::Totals;
use mem::LINE_BYTES;
use serde_json::{Value, json};
use std::fmt::Write;

/// Of the JSON.
const FORMAT: u32 = 1;

/// Everything that was measured.
pub struct Report {
    guest: String,
    sides: [Side; 2],
    processor: usize,
    pairs: Vec<[Run; 2]>,
    rows: Vec<Row>,
    /// Names of markers that only some consoles have.
    missing: Vec<String>,
    work: [Option<Work>; 2],
    line: LineCost,
    /// The first two results that are not the same.
    pub disagreement: Option<[String; 2]>,
}

/// What an emulator did, from its summary.
struct Work {
    totals: Totals,
    /// Guest instructions in a second of CPU time, the median of the runs.
    per_second: f64,
    /// Lines through the cipher times what one costs, in percent of the run: the median of the runs.
    encryption_percent: f64,
}

impl Report {
    pub fn new(
        args: &BootArgs,
        sides: [Side; 2],
        processor: usize,
        pairs: Vec<[Run; 2]>,
        lines: &[LineCost],
    ) -> Report {
        let (rows, missing) = items::compare(&pairs);
        let line = LineCost {
            encrypt_ns: median(lines.iter().map(|line| line.encrypt_ns).collect()),
            decrypt_ns: median(lines.iter().map(|line| line.decrypt_ns).collect()),
            backend: lines.first().map_or("", |line| line.backend),
        };
        let work = [0, 1].map(|i| if sides[i].is_emulator { work(&pairs, i, &line) } else { None });
        let initrd = args.initrd.as_ref().map(|name| format!(", {}", name.to_string_lossy()));
        let guest = format!("{}{}", args.kernel.display(), initrd.unwrap_or_default());
        let disagreement = disagreement(&pairs, &sides);
        Report { guest, sides, processor, pairs, rows, missing, work, line, disagreement }
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut out = String::new();
        // Writing to a string does not fail.
        let _ = self.write_table(&mut out);
        out
    }

    fn write_table(&self, out: &mut String) -> std::fmt::Result {
        let pairs = counted(self.pairs.len(), "pair");
        writeln!(out, "Boot of {}: {pairs} of runs on processor {}", self.guest, self.processor)?;
        for side in &self.sides {
            writeln!(out, "  {:<12} {}", side.name, side.version)?;
        }
        let names = [&self.sides[0].name, &self.sides[1].name];
        writeln!(out, "\nCPU seconds, medians; the median of the pairs' ratios, least and largest")?;
        writeln!(out, "  {:<16} {:>12} {:>12} {:>8}", "item", names[0], names[1], "ratio")?;
        for row in &self.rows {
            writeln!(
                out,
                "  {:<16} {:12.2} {:12.2} {:8.2}   {:.2} to {:.2}",
                row.name, row.seconds[0], row.seconds[1], row.ratio, row.least, row.largest
            )?;
        }
        if !self.missing.is_empty() {
            writeln!(out, "  no items: only some of the consoles have {}", self.missing.join(", "))?;
        }
        writeln!(out, "\n  {:<28} {:>12} {:>12}", "", names[0], names[1])?;
        let mut line = |name: &str, values: [Option<String>; 2]| {
            let [a, b] = values.map(|value| value.unwrap_or("-".to_owned()));
            writeln!(out, "  {name:<28} {a:>12} {b:>12}")
        };
        let work = |f: &dyn Fn(&Work) -> String| [0, 1].map(|i| self.work[i].as_ref().map(f));
        line("guest instructions, millions", work(&|w| format!("{:.0}", w.totals.instructions as f64 / 1e6)))?;
        line("millions a second", work(&|w| format!("{:.0}", w.per_second / 1e6)))?;
        line("peak memory, MiB", [0, 1].map(|i| Some(self.peak_kib(i).div_ceil(1024).to_string())))?;
        line("lines encrypted, thousands", work(&|w| (w.totals.lines_encrypted() / 1000).to_string()))?;
        line("lines decrypted, thousands", work(&|w| (w.totals.lines_decrypted() / 1000).to_string()))?;
        line("encryption, % of the run", work(&|w| format!("{:.2}", w.encryption_percent)))?;
        writeln!(
            out,
            "  A line costs {:.1} ns to encrypt and {:.1} ns to decrypt ({}, single lines, AES-XTS-128).",
            self.line.encrypt_ns, self.line.decrypt_ns, self.line.backend
        )?;
        let results = self.pairs.first().map_or(0, |pair| pair[0].results.len());
        match &self.disagreement {
            Some([a, b]) => writeln!(out, "\nThe results differ:\n  {a}\n  {b}"),
            None if results == 0 => writeln!(out, "\nNo console has a result (--result) to compare."),
            None => writeln!(out, "\nThe results on all consoles are the same: {}.", counted(results, "line")),
        }
    }

    fn peak_kib(&self, side: usize) -> u64 {
        self.pairs.iter().map(|pair| pair[side].peak_kib).max().unwrap_or(0)
    }

    /// For programs; docs/bench.md has the fields.
    pub fn json(&self) -> String {
        let side = |i: usize| {
            let (side, work) = (&self.sides[i], &self.work[i]);
            let words = side.arguments.iter().map(|word| word.to_string_lossy());
            json!({
                "name": side.name,
                "version": side.version,
                "arguments": words.collect::<Vec<_>>(),
                "peak_kib": self.peak_kib(i),
                "instructions": work.as_ref().map(|w| w.totals.instructions),
                "instructions_per_s": work.as_ref().map(|w| w.per_second),
                "lines_encrypted": work.as_ref().map(|w| w.totals.lines_encrypted()),
                "lines_decrypted": work.as_ref().map(|w| w.totals.lines_decrypted()),
                "encryption_percent": work.as_ref().map(|w| w.encryption_percent),
            })
        };
        let run = |run: &Run| {
            let items = items::items(run).into_iter().map(|(item, s)| json!({"item": item, "cpu_s": s}));
            json!({
                "user_s": run.user,
                "system_s": run.system,
                "wall_s": run.wall,
                "peak_kib": run.peak_kib,
                "items": Value::from_iter(items),
                "results": run.results,
            })
        };
        let rows = self.rows.iter().map(|row| {
            json!({
                "item": row.name,
                "cpu_s": row.seconds,
                "ratio": row.ratio,
                "least": row.least,
                "largest": row.largest,
            })
        });
        let value = json!({
            "format": FORMAT,
            "guest": self.guest,
            "processor": self.processor,
            "sides": [side(0), side(1)],
            "items": Value::from_iter(rows),
            "line": {
                "backend": self.line.backend,
                "encrypt_ns": self.line.encrypt_ns,
                "decrypt_ns": self.line.decrypt_ns,
            },
            "results_agree": self.disagreement.is_none(),
            "pairs": Value::from_iter(self.pairs.iter().map(|pair| json!([run(&pair[0]), run(&pair[1])]))),
        });
        format!("{value:#}\n")
    }

    pub fn panels(&self) -> [Vec<Panel>; 1] {
        let names = [&self.sides[0].name, &self.sides[1].name];
        let bars =
            self.rows.iter().flat_map(|row| [0, 1].map(|i| (format!("{}, {}", row.name, names[i]), row.seconds[i])));
        let seconds = Panel { title: "CPU seconds, medians".into(), bars: bars.collect(), group: names.len() };
        let ratios = Panel {
            title: format!("CPU time of {} to that of {}, medians of the pairs", names[0], names[1]),
            bars: self.rows.iter().map(|row| (row.name.clone(), row.ratio)).collect(),
            group: 1,
        };
        [vec![seconds, ratios]]
    }
}

fn counted(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// From the summaries of one side; `None` if there is none (`--no-summary`).
fn work(pairs: &[[Run; 2]], side: usize, line: &LineCost) -> Option<Work> {
    let runs: Option<Vec<_>> =
        pairs.iter().map(|pair| Some((Totals::read(&pair[side].errors)?, pair[side].cpu()))).collect();
    let runs = runs?;
    let (totals, _) = *runs.first()?;
    let per_second = median(runs.iter().map(|(totals, cpu)| totals.instructions as f64 / cpu.max(1e-9)).collect());
    let share = |(totals, cpu): &(Totals, f64)| {
        let ns = totals.lines_encrypted() as f64 * line.encrypt_ns + totals.lines_decrypted() as f64 * line.decrypt_ns;
        ns / 1e9 / cpu.max(1e-9) * 100.0
    };
    Some(Work { totals, per_second, encryption_percent: median(runs.iter().map(share).collect()) })
}

/// The first result that is not on all consoles alike, and where.
fn disagreement(pairs: &[[Run; 2]], sides: &[Side; 2]) -> Option<[String; 2]> {
    let expected = &pairs.first()?[0].results;
    for (pair, runs) in pairs.iter().enumerate() {
        for (run, side) in runs.iter().zip(sides) {
            let lines = expected.len().max(run.results.len());
            let differs = (0..lines).find(|i| expected.get(*i) != run.results.get(*i));
            if let Some(i) = differs {
                let shown = |results: &[String]| results.get(i).map_or("nothing", String::as_str).to_owned();
                return Some([
                    format!("{}, pair 1: {}", sides[0].name, shown(expected)),
                    format!("{}, pair {}: {}", side.name, pair + 1, shown(&run.results)),
                ]);
            }
        }
    }
    None
}

impl Totals {
    fn lines_encrypted(&self) -> u64 {
        self.bytes_encrypted / LINE_BYTES as u64
    }

    fn lines_decrypted(&self) -> u64 {
        self.bytes_decrypted / LINE_BYTES as u64
    }
}
