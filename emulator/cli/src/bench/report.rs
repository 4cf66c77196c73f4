//! The figures as a table and as JSON.

use super::datapath::{self, OPENSSL, Row, Way, Workload, XTS_MODE, algorithm_name};
use super::guest::Trace;
use super::latency::{Cost, Model};
use super::limit::Limit;
use super::memory;
use super::sample::Budget;
use crypto::{Algorithm, Backend};
use serde_json::{Value, json};
use std::fmt::Write;

/// Of the JSON.
const FORMAT: u32 = 1;

/// Everything that was measured.
pub struct Report {
    pub budget: Budget,
    pub limit: Limit,
    pub datapath: Vec<Row>,
    pub memory: Vec<memory::Row>,
    pub trace: Trace,
    pub model: Model,
    pub policies: Vec<Cost>,
}

/// How much faster one implementation is than a library.
pub struct Ratio {
    pub algorithm: Algorithm,
    pub way: Way,
    pub workload: Workload,
    pub implementation: &'static str,
    pub library: &'static str,
    pub times: f64,
}

impl Report {
    /// The fastest backend that was measured against every library, at the best samples, for the workloads that people
    /// compare: pages and single lines.
    pub fn ratios(&self) -> Vec<Ratio> {
        let own = |row: &&Row| Backend::ALL.iter().any(|backend| backend.name() == row.implementation);
        let mut ratios = Vec::new();
        for library in self.datapath.iter().filter(|row| [XTS_MODE, OPENSSL].contains(&row.implementation)) {
            if ![Workload::Page, Workload::Single].contains(&library.workload) {
                continue;
            }
            let same = |row: &&Row| {
                (row.algorithm, row.way, row.workload) == (library.algorithm, library.way, library.workload)
            };
            let rows = self.datapath.iter().filter(same).filter(own);
            if let Some(fastest) = rows.min_by(|a, b| a.timing.best.total_cmp(&b.timing.best)) {
                ratios.push(Ratio {
                    algorithm: library.algorithm,
                    way: library.way,
                    workload: library.workload,
                    implementation: fastest.implementation,
                    library: library.implementation,
                    times: library.timing.best / fastest.timing.best,
                });
            }
        }
        ratios
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut out = String::new();
        // Writing to a string does not fail.
        let _ = self.write_table(&mut out);
        out
    }

    fn write_table(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "AES rounds in registers (the limit), ns per round: best / median")?;
        for (width, timing) in &self.limit.rounds {
            writeln!(
                out,
                "  {:<16} {:8.4} / {:8.4}   {} blocks",
                width.name(),
                timing.best,
                timing.median,
                width.blocks()
            )?;
        }
        match &self.limit.latency {
            Some(timing) => writeln!(out, "  {:<16} {:8.4} / {:8.4}", "dependent", timing.best, timing.median)?,
            None => writeln!(out, "  this processor has no AES instructions")?,
        }

        writeln!(out, "\nEncryption datapath, per 64-byte line (best, median of {} samples)", self.budget.samples)?;
        let mut group = None;
        for row in &self.datapath {
            let this = (row.algorithm, row.way);
            if group.replace(this) != Some(this) {
                writeln!(
                    out,
                    "{:<32} {:<10} {:>9} {:>9} {:>8} {:>10}",
                    format!("{}, {}", algorithm_name(row.algorithm), row.way.name()),
                    "",
                    "best ns",
                    "median ns",
                    "GiB/s",
                    "% of limit"
                )?;
            }
            let limit = row.limit_percent().map_or("-".to_owned(), |percent| format!("{percent:.0}"));
            writeln!(
                out,
                "  {:<30} {:<10} {:9.2} {:9.2} {:8.2} {:>10}",
                row.workload.name(),
                row.implementation,
                row.timing.best,
                row.timing.median,
                row.gib_per_s(),
                limit
            )?;
        }

        writeln!(out, "\nThe fastest backend against the libraries, at the best samples")?;
        for ratio in self.ratios() {
            writeln!(
                out,
                "  {}, {}, {:<14} {:<9} {:6.1} times as fast as {}",
                algorithm_name(ratio.algorithm),
                ratio.way.name(),
                ratio.workload.name(),
                ratio.implementation,
                ratio.times,
                ratio.library
            )?;
        }

        writeln!(out, "\nModelled memory system, per line accessed")?;
        writeln!(
            out,
            "  {:<26} {:<10} {:>9} {:>9} {:>16}",
            "access", "encryption", "best ns", "median ns", "lines ciphered"
        )?;
        for row in &self.memory {
            writeln!(
                out,
                "  {:<26} {:<10} {:9.1} {:9.1} {:16.2}",
                row.access.name(),
                row.encryption.name(),
                row.timing.best,
                row.timing.median,
                row.ciphered
            )?;
        }

        writeln!(out, "\nA guest's line transfers: {} instructions", self.trace.instructions())?;
        for (keyid, stats) in self.trace.per_key() {
            writeln!(out, "  KeyID {:<4} {:>12} fills {:>12} write-backs", keyid.0, stats.fills, stats.write_backs)?;
        }
        let p = &self.model.parameters;
        writeln!(
            out,
            "\nWhat encryption costs that guest, in order at {} GHz: {} cycles per instruction, DRAM {} cycles, {} GB/s, \
             AES {} cycles, a line every {}",
            p.clock_ghz, p.cpi, p.dram_cycles, p.bandwidth_gbps, p.aes_latency, p.aes_interval
        )?;
        writeln!(out, "  {:<32} {:>14} {:>12} {:>10}", "policy", "lines ciphered", "ms", "slowdown")?;
        for cost in &self.policies {
            writeln!(
                out,
                "  {:<32} {:>14} {:12.3} {:>9.2}%",
                cost.policy.name(),
                cost.encrypted_lines,
                cost.seconds * 1e3,
                cost.slowdown_percent
            )?;
        }
        Ok(())
    }

    /// For programs; docs/bench.md has the fields.
    pub fn json(&self) -> String {
        let rounds = self.limit.rounds.iter().map(|(width, timing)| {
            json!({"width": width.name(), "blocks": width.blocks(), "best_ns": timing.best, "median_ns": timing.median})
        });
        let datapath = self.datapath.iter().map(|row| {
            json!({
                "algorithm": algorithm_name(row.algorithm),
                "direction": row.way.name(),
                "workload": row.workload.name(),
                "implementation": row.implementation,
                "best_ns": row.timing.best,
                "median_ns": row.timing.median,
                "gib_per_s": row.gib_per_s(),
                "limit_ns": row.limit_ns,
                "limit_percent": row.limit_percent(),
            })
        });
        let ratios = self.ratios().into_iter().map(|ratio| {
            json!({
                "algorithm": algorithm_name(ratio.algorithm),
                "direction": ratio.way.name(),
                "workload": ratio.workload.name(),
                "implementation": ratio.implementation,
                "library": ratio.library,
                "times": ratio.times,
            })
        });
        let memory = self.memory.iter().map(|row| {
            json!({
                "access": row.access.name(),
                "encryption": row.encryption.name(),
                "best_ns": row.timing.best,
                "median_ns": row.timing.median,
                "lines_ciphered": row.ciphered,
            })
        });
        let keyids =
            self.trace.per_key().into_iter().map(
                |(keyid, stats)| json!({"keyid": keyid.0, "fills": stats.fills, "write_backs": stats.write_backs}),
            );
        let p = &self.model.parameters;
        let policies = self.policies.iter().map(|cost| {
            json!({
                "policy": cost.policy.name(),
                "lines_ciphered": cost.encrypted_lines,
                "cycles": cost.cycles,
                "seconds": cost.seconds,
                "slowdown_percent": cost.slowdown_percent,
            })
        });
        let collect = |rows: &mut dyn Iterator<Item = Value>| Value::from_iter(rows);
        let value = json!({
            "format": FORMAT,
            "samples": self.budget.samples,
            "quick": self.budget.quick,
            "backends": Backend::available().map(Backend::name).collect::<Vec<_>>(),
            "limit": {
                "rounds": collect(&mut rounds.into_iter()),
                "dependent_round_best_ns": self.limit.latency.map(|timing| timing.best),
                "dependent_round_median_ns": self.limit.latency.map(|timing| timing.median),
            },
            "datapath": collect(&mut datapath.into_iter()),
            "ratios": collect(&mut ratios.into_iter()),
            "memory": collect(&mut memory.into_iter()),
            "guest": {"instructions": self.trace.instructions(), "keyids": collect(&mut keyids.into_iter())},
            "model": {
                "clock_ghz": p.clock_ghz,
                "cpi": p.cpi,
                "dram_cycles": p.dram_cycles,
                "bandwidth_gb_per_s": p.bandwidth_gbps,
                "aes_latency_cycles": p.aes_latency,
                "aes_interval_cycles": p.aes_interval,
                "policies": collect(&mut policies.into_iter()),
            },
        });
        format!("{value:#}\n")
    }
}

/// Label of a figure of the datapath in a plot.
pub fn label(row: &datapath::Row) -> String {
    format!("{}, {}", row.workload.name(), row.implementation)
}
