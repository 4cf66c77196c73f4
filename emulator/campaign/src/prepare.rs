//! From a plan to a campaign that can start: the golden run is made, fault spaces are counted, impossible faults are found.

use crate::error::{CampaignError, Result, refuse};
use crate::experiment::{Ready, hash_text};
use crate::golden::{Golden, Start, Tick, config};
use crate::meta::{Campaign, GoldenRun, Stratum};
use crate::names::Symbols;
use crate::plan::{Amount, PlanFile, SetPlan};
use crate::space::{Names, Set, Space};
use crate::stats;
use machine::Machine;
use machine::inject::{Limits, check, number};
use mem::PhysAddr;
use std::collections::BTreeMap;
use xxhash_rust::xxh3::xxh3_128;

/// Changes when the same plan gives other results than before: another choice of faults, other outcomes.
const GENERATION: u32 = 1;
/// The phase before the first marker.
const FIRST_PHASE: &str = "start";
/// The share that needs the largest sample: nothing is known of the outcomes.
const HALF: f64 = 0.5;

impl Ready {
    /// Makes the golden run of a campaign that starts at `start`.
    ///
    /// # Errors
    /// A guest that does not reach its verdict; fault spaces that are empty or have faults that cannot fire.
    pub fn prepare(file: PlanFile, start: &Start, tick: Tick) -> Result<Ready> {
        let golden = Golden::run(&file, start, tick)?;
        let phases = phases(&file, &golden)?;
        let names = names(&file, &golden, &phases)?;
        let spaces =
            file.plan.stratum.iter().map(|of| Space::parse(&of.faults, &names, &format!("stratum {:?}", of.name)));
        let spaces = spaces.collect::<Result<Vec<Space>>>()?;
        let statistics = &file.plan.statistics;
        let confidence = file.plan.confidence()?;
        let mut first = 0;
        let mut strata = Vec::new();
        for (of, space) in file.plan.stratum.iter().zip(&spaces) {
            let wanted = match of.injections {
                Amount::Number(n) => n,
                Amount::All(_) => space.len(),
                Amount::Enough => stats::sample_size(space.len(), HALF, statistics.margin, confidence),
            };
            let injections = wanted.min(space.len());
            strata.push(Stratum {
                name: of.name.clone(),
                faults: of.faults.clone(),
                first,
                injections,
                population: space.len(),
                stopped_after: None,
            });
            first += injections;
        }
        let campaign = Campaign {
            name: file.plan.name.clone(),
            identity: identity(&file, start, &golden)?,
            plan: file.text.clone(),
            confidence_ppm: file.plan.confidence_ppm(),
            golden: GoldenRun {
                start: golden.start(),
                end: golden.end,
                state_hash: hash_text(golden.state_hash),
                phases: phases.iter().map(|(name, from, _)| (*from, name.clone())).collect(),
                console: String::from_utf8_lossy(&golden.console).into_owned(),
            },
            strata,
        };
        let ready = Ready { symbols: Symbols::of(&file)?, file, golden, spaces, campaign };
        ready.check_possible()?;
        Ok(ready)
    }

    /// Looks for memory that is not there and faults that cannot fire, before anything is injected.
    fn check_possible(&self) -> Result<()> {
        let Some(first) = self.golden.rungs.first() else { return Ok(()) };
        let machine = Machine::from_snapshot(&first.snapshot).map_err(|e| CampaignError::Host(e.to_string()))?;
        let keyids = 1u32 << machine.cpu.mem.tme().keyid_bits();
        for region in &self.file.plan.oracle.memory {
            let (first, last) = (region.address, region.address.saturating_add(region.bytes - 1));
            if ![first, last].into_iter().all(|address| machine.cpu.mem.is_ram(PhysAddr(address))) {
                return refuse(
                    format_args!("oracle.memory: {first:#x} to {last:#x} is not in RAM"),
                    "an address range in RAM",
                );
            }
            if u32::from(region.keyid) >= keyids {
                return refuse(
                    format_args!("oracle.memory: KeyID {}", region.keyid),
                    format_args!("0 to {}", keyids - 1),
                );
            }
        }
        for (of, space) in self.campaign.strata.iter().zip(&self.spaces) {
            for text in space.corners() {
                let spec = self.spec(&text, &of.name)?;
                check::check(&spec, &machine, Limits { until: self.golden.end })
                    .map_err(|cannot| CampaignError::Input(format!("stratum {:?}: {text}: {cannot}", of.name)))?;
            }
        }
        Ok(())
    }
}

/// A hash of all that results depend on.
fn identity(file: &PlanFile, start: &Start, golden: &Golden) -> Result<String> {
    let machine = match file.plan.guest.loadvm {
        Some(_) => start.snapshot.config().to_file(),
        None => config(file)?.to_file(),
    };
    let first = golden.rungs.first().map_or(0, |rung| rung.state_hash);
    let parts = [
        GENERATION.to_le_bytes().to_vec(),
        file.text.clone().into_bytes(),
        machine.into_bytes(),
        first.to_le_bytes().to_vec(),
        golden.state_hash.to_le_bytes().to_vec(),
        golden.end.to_le_bytes().to_vec(),
    ];
    let mut bytes = Vec::new();
    for part in parts {
        bytes.extend((part.len() as u64).to_le_bytes());
        bytes.extend(part);
    }
    Ok(hash_text(xxh3_128(&bytes)))
}

/// Name, first instruction count, and count behind the last.
fn phases(file: &PlanFile, golden: &Golden) -> Result<Vec<(String, u64, u64)>> {
    let mut named = BTreeMap::new();
    for (value, name) in &file.plan.phase {
        match number(value).and_then(|value| u32::try_from(value).ok()) {
            Some(value) => named.insert(value, name.as_str()),
            None => return refuse(format_args!("[phase]: {value:?}"), "the value of a marker, for example 0x52"),
        };
    }
    let mut starts = vec![(golden.start(), FIRST_PHASE.to_owned())];
    for (icount, value) in golden.markers.iter().filter(|(icount, _)| *icount < golden.end) {
        let name = named.get(value).map_or_else(|| format!("marker {value:#x}"), |name| (*name).to_owned());
        starts.push((*icount, name));
    }
    let ends = starts.iter().skip(1).map(|(icount, _)| *icount).chain([golden.end]).collect::<Vec<_>>();
    Ok(starts.into_iter().zip(ends).map(|((from, name), to)| (name, from, to)).collect())
}

fn names(file: &PlanFile, golden: &Golden, phases: &[(String, u64, u64)]) -> Result<Names> {
    let lines = |write| golden.transfers.as_ref().map(|transfers| transfers.lines(write)).unwrap_or_default();
    let sets = file.plan.set.iter().map(|(name, of)| Ok((name.clone(), set(name, of, golden)?)));
    Ok(Names {
        window: (golden.start(), golden.end),
        phases: phases.to_vec(),
        read: lines(false),
        written: lines(true),
        sets: sets.collect::<Result<_>>()?,
    })
}

fn set(name: &str, of: &SetPlan, golden: &Golden) -> Result<Set> {
    const FORMS: &str =
        "one of: lines = \"FROM..TO\"; values = [\"...\"]; console = 'REGEX' with a group, and bytes = N";
    match of {
        SetPlan { lines: Some(range), values: None, console: None, bytes: None } => {
            let ends = range.split_once("..").and_then(|(from, to)| Some((number(from)?, number(to)?)));
            match ends.filter(|(from, to)| from < to) {
                Some((from, to)) => Ok(Set::lines(from, to - from)),
                None => {
                    refuse(format_args!("[set.{name}]: lines = {range:?}"), "FROM..TO, for example 0x100000..0x104000")
                }
            }
        }
        SetPlan { lines: None, values: Some(values), console: None, bytes: None } => Ok(Set::Words(values.clone())),
        SetPlan { lines: None, values: None, console: Some(expression), bytes } => {
            let missing = |what: &str| {
                CampaignError::Input(format!(
                    "[set.{name}]: console = '{}': {what}; accepted: an expression that matches the output before the \
                     golden run, with the address in its first group",
                    expression.0
                ))
            };
            let found = expression.0.captures(&golden.before).ok_or_else(|| missing("nothing matches"))?;
            let group = |n: usize| found.get(n).and_then(|of| std::str::from_utf8(of.as_bytes()).ok());
            let word = group(1).ok_or_else(|| missing("it has no group"))?;
            let length = match group(2) {
                Some(text) => Some(number(text).ok_or_else(|| missing("the second group is no length"))?),
                None => *bytes,
            };
            match length {
                None => Ok(Set::Words(vec![word.to_owned()])),
                Some(bytes) => {
                    let address = number(word).ok_or_else(|| missing("the first group is no address"))?;
                    Ok(Set::lines(address, bytes))
                }
            }
        }
        _ => refuse(format_args!("[set.{name}]"), FORMS),
    }
}
