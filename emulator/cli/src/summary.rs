//! The screen of figures at the end.

use crate::snapshot::Saved;
use machine::Machine;
use mem::KeyStats;
use rustix::time::{ClockId, clock_gettime};
use std::fmt;

/// Rows of KeyIDs; more of them than this are added up.
const KEYID_ROWS: usize = 8;

/// Names that [`Totals`] looks for.
const INSTRUCTIONS: &str = "instructions";
const CIPHERED: &str = "AES-XTS";
const ENCRYPTED: &str = " bytes encrypted,";

/// Figures of a run.
#[derive(Default)]
pub struct Summary {
    instructions: u64,
    /// Host CPU time of this process, seconds.
    cpu_seconds: f64,
    /// Guest time, seconds.
    virtual_seconds: f64,
    resets: u64,
    /// KeyIDs with traffic.
    keys: Vec<(usize, KeyStats)>,
    encrypted: u64,
    decrypted: u64,
    /// Wrong MACs, uses of poison; `None` without the option.
    integrity: Option<[u64; 2]>,
    /// KiB; `None` where the host does not tell.
    peak_kib: Option<u64>,
    /// Bytes of DRAM that have ever been written.
    dram_bytes: u64,
    unknown: Vec<String>,
    saved: Vec<Saved>,
}

impl Summary {
    pub fn new(machine: &Machine, unknown: &[String], saved: &[Saved]) -> Summary {
        let stats = machine.cpu.mem.stats();
        let traffic = |(_, key): &(usize, KeyStats)| *key != KeyStats::default();
        Summary {
            instructions: machine.cpu.icount(),
            cpu_seconds: cpu_seconds(),
            virtual_seconds: machine.cpu.now().0 as f64 / 1e9,
            resets: machine.resets(),
            keys: stats.per_key().iter().copied().enumerate().filter(traffic).collect(),
            encrypted: stats.bytes_encrypted,
            decrypted: stats.bytes_decrypted,
            integrity: machine.config().integrity.then_some([stats.mac_mismatches, stats.poison_consumed]),
            peak_kib: peak_kib("self"),
            dram_bytes: machine.cpu.mem.dram().allocated_bytes(),
            unknown: unknown.to_vec(),
            saved: saved.to_vec(),
        }
    }
}

/// What a summary says about the work of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    pub instructions: u64,
    pub bytes_encrypted: u64,
    pub bytes_decrypted: u64,
}

impl Totals {
    /// Finds it in a summary that was printed; `None`: there is none.
    pub fn read(printed: &str) -> Option<Totals> {
        let number = |text: &str| text.split_whitespace().next()?.replace(',', "").parse().ok();
        let after = |name: &str| printed.lines().rev().find_map(|line| line.trim_start().strip_prefix(name));
        let (encrypted, decrypted) = after(CIPHERED)?.split_once(ENCRYPTED)?;
        Some(Totals {
            instructions: number(after(INSTRUCTIONS)?)?,
            bytes_encrypted: number(encrypted)?,
            bytes_decrypted: number(decrypted)?,
        })
    }
}

fn cpu_seconds() -> f64 {
    let t = clock_gettime(ClockId::ProcessCPUTime);
    t.tv_sec as f64 + t.tv_nsec as f64 / 1e9
}

/// The largest resident size so far, VmHWM of proc(5). `process`: a number, or "self".
pub fn peak_kib(process: impl fmt::Display) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.split_whitespace().next()?.parse().ok()
}

/// `1234567` as `1,234,567`.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let first = (digits.len() + 2) % 3 + 1;
    let (head, tail) = digits.split_at(first);
    tail.as_bytes().chunks(3).fold(head.to_owned(), |text, group| text + "," + &String::from_utf8_lossy(group))
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mips = self.instructions as f64 / 1e6 / self.cpu_seconds.max(1e-9);
        writeln!(f, "  {INSTRUCTIONS:<14} {} ({mips:.1} MIPS)", grouped(self.instructions))?;
        writeln!(f, "  host CPU time  {:.2} s", self.cpu_seconds)?;
        writeln!(f, "  guest time     {:.3} s", self.virtual_seconds)?;
        if self.resets > 0 {
            writeln!(f, "  resets         {}", self.resets)?;
        }
        writeln!(f, "  {CIPHERED:<14} {}{ENCRYPTED} {} decrypted", grouped(self.encrypted), grouped(self.decrypted))?;
        if let Some([mismatches, consumed]) = self.integrity {
            let (mismatches, consumed) = (grouped(mismatches), grouped(consumed));
            writeln!(f, "  integrity      {mismatches} wrong MACs, {consumed} uses of poison")?;
        }
        if let Some(kib) = self.peak_kib {
            writeln!(
                f,
                "  peak memory    {} MiB, of that {} MiB guest RAM",
                kib.div_ceil(1024),
                self.dram_bytes.div_ceil(1 << 20)
            )?;
        }
        writeln!(f, "  {:<14} {:>16}  {:>18}", "cache lines", "filled", "written back")?;
        let (shown, rest) = self.keys.split_at(self.keys.len().min(KEYID_ROWS));
        for (keyid, key) in shown {
            let name = format!("KeyID {keyid}");
            writeln!(f, "    {name:<12} {:>16}  {:>18}", grouped(key.fills), grouped(key.write_backs))?;
        }
        if !rest.is_empty() {
            let (fills, backs) = rest.iter().fold((0, 0), |(a, b), (_, k)| (a + k.fills, b + k.write_backs));
            writeln!(f, "    {:<12} {:>16}  {:>18}", format!("{} more", rest.len()), grouped(fills), grouped(backs))?;
        }
        for Saved { path, icount, bytes } in &self.saved {
            let (icount, mib) = (grouped(*icount), bytes.div_ceil(1 << 20));
            writeln!(f, "  saved          {} at instruction {icount}, {mib} MiB", path.display())?;
        }
        if let Some((first, rest)) = self.unknown.split_first() {
            writeln!(f, "  not modelled   {first}")?;
            rest.iter().try_for_each(|line| writeln!(f, "                 {line}"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_summary_says_can_be_read_back() {
        let summary = Summary { instructions: 4_210_987_654, encrypted: 1 << 30, decrypted: 640, ..Summary::default() };
        let totals = Totals { instructions: 4_210_987_654, bytes_encrypted: 1 << 30, bytes_decrypted: 640 };
        assert_eq!(Totals::read(&format!("mktme-emu: power-off (exit status 0)\n{summary}")), Some(totals));
        assert_eq!(Totals::read("mktme-emu: power-off (exit status 0)\n"), None);
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        let shown = [0, 7, 999, 1000, 1_234_567].map(grouped);
        assert_eq!(shown, ["0", "7", "999", "1,000", "1,234,567"]);
    }
}
