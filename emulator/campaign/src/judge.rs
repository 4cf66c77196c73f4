//! What the guest's output, its markers and its end mean.

use crate::guest::{End, Guest, Stopped, first_match};
use crate::plan::{Oracle, Place, Plan, Region};
use machine::Machine;
use xxhash_rust::xxh3::xxh3_128;

/// What was seen between two steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// Nothing that ends the run.
    Nothing,
    /// The verdict; with the way in which the guest ended, if it did.
    Verdict(Option<String>),
    /// Somebody noticed a fault.
    Detected(String),
    /// The guest went down.
    Crash(String),
    /// The guest does nothing any more.
    Hang(String),
}

/// Looks at what the guest has said since the last time.
pub fn look(plan: &Plan, guest: &mut Guest, stopped: &Stopped) -> Seen {
    let ended = matches!(stopped, Stopped::Ended(_));
    let lines = guest.fresh_lines(ended);
    let said = |what: &[u8]| format!("console: {}", shown(what));
    if let Some((_, line)) = first_match(lines, &plan.detected.console) {
        return Seen::Detected(said(line));
    }
    if let Some((_, line)) = first_match(lines, &plan.crash.console) {
        return Seen::Crash(said(line));
    }
    let console_ends = match &plan.golden.end {
        Place::Console(expression) => first_match(lines, std::slice::from_ref(expression)).is_some(),
        _ => false,
    };
    match stopped {
        Stopped::Marker(value) if plan.detected.markers.contains(value) => Seen::Detected(format!("marker {value:#x}")),
        Stopped::Marker(value) if matches!(plan.golden.end, Place::Marker(end) if end == *value) => Seen::Verdict(None),
        _ if console_ends => Seen::Verdict(None),
        Stopped::Ended(End::Exit(how)) if matches!(plan.golden.end, Place::Exit) => Seen::Verdict(Some(how.clone())),
        Stopped::Ended(End::Exit(how)) => Seen::Crash(format!("{how} before the verdict")),
        Stopped::Ended(End::Down(how)) => Seen::Crash(how.clone()),
        Stopped::Ended(End::Stuck(how)) => Seen::Hang(how.clone()),
        Stopped::Marker(_) | Stopped::There => Seen::Nothing,
    }
}

/// A machine check that memory integrity has raised since the machine was restored, in words. The guest need not know what to do with
/// it: whatever it does next, the fault was noticed.
pub fn machine_check(machine: &Machine) -> Option<String> {
    let line = machine.integrity_detections().first_consumed?.line;
    Some(format!("#MC, line {:#x}", line.start().0))
}

/// A line of output as it can be shown: no control characters, of limited length.
pub fn shown(line: &[u8]) -> String {
    const LENGTH: usize = 160;
    let text = String::from_utf8_lossy(line);
    text.chars().take(LENGTH).map(|c| if c.is_control() { '.' } else { c }).collect()
}

/// The results of a guest at its verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Results {
    /// How it ended, if it did.
    pub exit: Option<String>,
    /// What counts of its console.
    console: Vec<Vec<u8>>,
    /// Hashes of memory.
    memory: Vec<u128>,
}

impl Results {
    /// What the oracle looks at.
    pub fn of(oracle: &Oracle, guest: &mut Guest, exit: Option<String>) -> Results {
        let console = match &oracle.console {
            None => vec![guest.console.clone()],
            Some(expression) => {
                let found = expression.0.captures_iter(&guest.console);
                found.filter_map(|of| of.get(1).or_else(|| of.get(0))).map(|of| of.as_bytes().to_vec()).collect()
            }
        };
        let memory = oracle.memory.iter().map(|region| region_hash(&mut guest.machine, *region)).collect();
        Results { exit, console, memory }
    }

    /// What differs from the golden run, in words; `None`: nothing.
    pub fn difference(&self, golden: &Results, oracle: &Oracle) -> Option<String> {
        if self.exit != golden.exit {
            return Some(self.exit.clone().unwrap_or_else(|| "no exit".into()));
        }
        let region = self.memory.iter().zip(&golden.memory).position(|(ours, theirs)| ours != theirs);
        if let Some(region) = region.and_then(|at| oracle.memory.get(at)) {
            return Some(format!("memory at {:#x}", region.address));
        }
        (self.console != golden.console).then(|| "console".into())
    }
}

/// Memory as loads would find it.
fn region_hash(machine: &mut Machine, region: Region) -> u128 {
    let at = machine.cpu.mem.tme().layout().join(mem::PhysAddr(region.address), mem::KeyId(region.keyid));
    let mut bytes = vec![0; region.bytes as usize];
    machine.cpu.mem.probe(at, &mut bytes);
    xxh3_128(&bytes)
}
