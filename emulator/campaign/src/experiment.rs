//! One injection: what its fault is, and what becomes of the guest.

use crate::error::{CampaignError, Result};
use crate::golden::Golden;
use crate::guest::Guest;
use crate::judge::{Results, Seen, look, machine_check};
use crate::meta::Campaign;
use crate::names::Symbols;
use crate::plan::{Plan, PlanFile};
use crate::row::{Outcome, Proof, Row};
use crate::sample::Permutation;
use crate::space::Space;
use crate::transfers::Transfer;
use machine::Machine;
use machine::inject::{FaultSpec, Limits, Target, Trigger};
use mem::{Disturbance, LineAddr, Moment};

/// A campaign whose golden run is known: any injection can be made, on any thread.
pub struct Ready {
    pub file: PlanFile,
    pub golden: Golden,
    pub spaces: Vec<Space>,
    pub campaign: Campaign,
    pub(crate) symbols: Symbols,
}

/// What saves time and changes no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortcuts {
    /// Outcomes that follow from the transfers of the golden run are not run, and others not before the first use.
    pub transfers: bool,
    /// A run ends once its state is that of the golden run.
    pub meet: bool,
}

impl Shortcuts {
    pub const ALL: Shortcuts = Shortcuts { transfers: true, meet: true };
    pub const NONE: Shortcuts = Shortcuts { transfers: false, meet: false };
}

/// The fault of an injection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Injection {
    pub id: u64,
    /// Number of the stratum.
    pub stratum: usize,
    /// Number of the fault in its space.
    pub element: u64,
    pub spec: FaultSpec,
}

impl Injection {
    /// When it is triggered, if that is an instruction count.
    pub fn planned(&self) -> Option<u64> {
        if let Trigger::Icount(n) = self.spec.at { Some(n) } else { None }
    }

    /// The line that it names.
    fn line(&self) -> Option<LineAddr> {
        match (&self.spec.target, &self.spec.at) {
            (Target::Replay { line, .. }, _) => Some(*line),
            (Target::Memory(disturbance), _) if disturbance.line().is_some() => disturbance.line(),
            (_, Trigger::Line { line, .. }) => Some(*line),
            _ => None,
        }
    }

    /// What it has for a key, in its text.
    fn key<'a>(text: &'a str, key: &str) -> Option<&'a str> {
        text.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    }
}

impl Ready {
    /// The fault of injection `id`: a pure function of the campaign and the number.
    ///
    /// # Errors
    /// A number that the campaign does not have; a fault that is none.
    pub fn injection(&self, id: u64) -> Result<Injection> {
        let strata = &self.campaign.strata;
        let stratum = strata.iter().position(|of| (of.first..of.first + of.injections).contains(&id));
        let Some(stratum) = stratum else {
            let last = self.campaign.injections().saturating_sub(1);
            return crate::error::refuse(format_args!("injection {id}: there is none"), format_args!("0 to {last}"));
        };
        let (of, space) = (&strata[stratum], &self.spaces[stratum]);
        let element = Permutation::new(self.file.plan.seed, &of.name, space.len()).at(id - of.first);
        let spec = self.spec(&space.fault(element), &of.name)?;
        Ok(Injection { id, stratum, element, spec })
    }

    /// Makes an injection. `guest` is a machine of this campaign, in any state.
    ///
    /// # Errors
    /// A fault that cannot fire.
    pub fn perform(&self, guest: &mut Guest, injection: &Injection, shortcuts: Shortcuts) -> Result<Row> {
        let mut run = Run { ready: self, injection, row: self.blank(injection), moved: None };
        if shortcuts.transfers
            && let Some(row) = run.known_from_transfers(guest)?
        {
            return Ok(row);
        }
        run.perform(guest, shortcuts)
    }

    /// Reads a fault of a stratum.
    ///
    /// # Errors
    /// A text that is none, or has unknown symbols.
    pub(crate) fn spec(&self, text: &str, stratum: &str) -> Result<FaultSpec> {
        let mut spec =
            text.parse::<FaultSpec>().map_err(|e| CampaignError::Input(format!("stratum {stratum:?}: {text}: {e}")))?;
        self.symbols.resolve(&mut spec, stratum)?;
        Ok(spec)
    }

    /// A row with what is known before anything is run.
    pub(crate) fn blank(&self, injection: &Injection) -> Row {
        let text = injection.spec.to_string();
        let number = |key| Injection::key(&text, key).and_then(machine::inject::number);
        Row {
            id: injection.id,
            stratum: self.campaign.strata[injection.stratum].name.clone(),
            target: text.split(' ').next().unwrap_or_default().to_owned(),
            element: injection.element,
            phase: None,
            line: injection.line().map(|line| line.start().0),
            bit: Injection::key(&text, "bit").and_then(|bits| bits.split(',').next()?.parse().ok()),
            keyid: number("keyid").map(|keyid| keyid as u16),
            triggered: None,
            effect: None,
            rip: None,
            outcome: Outcome::NotActivated,
            detail: String::new(),
            proof: Proof::Run,
            end: 0,
            latency: None,
            console_line: None,
            console_text: None,
            first_wrong_line: None,
            wrong_lines: None,
            state_hash: String::new(),
            fault: text,
        }
    }

    /// The phase of the golden run at an instruction count.
    fn phase(&self, icount: u64) -> Option<String> {
        let phases = &self.campaign.golden.phases;
        let at = phases.partition_point(|(from, _)| *from <= icount).checked_sub(1)?;
        phases.get(at).map(|(_, name)| name.clone())
    }
}

/// A state hash as text.
pub fn hash_text(hash: u128) -> String {
    format!("{hash:032x}")
}

struct Run<'a> {
    ready: &'a Ready,
    injection: &'a Injection,
    row: Row,
    /// The fault is injected at this transfer, which is the first that sees it.
    moved: Option<Transfer>,
}

impl Run<'_> {
    fn plan(&self) -> &Plan {
        &self.ready.file.plan
    }

    fn golden(&self) -> &Golden {
        &self.ready.golden
    }

    /// What the transfers of the golden run say of a flip in DRAM: its outcome, or when it is first seen.
    fn known_from_transfers(&mut self, guest: &mut Guest) -> Result<Option<Row>> {
        let (Target::Memory(Disturbance::Flip { line, .. }), Some(at)) =
            (&self.injection.spec.target, self.injection.planned())
        else {
            return Ok(None);
        };
        let golden = &self.ready.golden;
        let Some(next) = golden.transfers.as_ref().and_then(|transfers| transfers.next(*line, at)) else {
            return Ok(None);
        };
        if at < golden.start() || at >= golden.end {
            return Ok(None);
        }
        let looked_at = |region: &crate::plan::Region| {
            let start = line.start().0;
            start < region.address + region.bytes && start + mem::LINE_BYTES as u64 > region.address
        };
        let row = &mut self.row;
        (row.triggered, row.effect) = (Some(at), Some(at));
        row.phase = self.ready.phase(at);
        row.keyid = next.map(|transfer| transfer.keyid);
        match next {
            Some(transfer) if transfer.write => {
                row.outcome = Outcome::Masked;
                row.proof = Proof::Overwritten;
                row.end = golden.end;
                row.state_hash = hash_text(golden.state_hash);
            }
            Some(transfer) => {
                self.moved = Some(transfer);
                return Ok(None);
            }
            None if self.plan().oracle.memory.iter().any(looked_at) => return Ok(None),
            None => {
                // The state at the verdict, with the change.
                restore(&mut guest.machine, &golden.last)?;
                let spec = FaultSpec { at: Trigger::Icount(golden.end), ..self.injection.spec.clone() };
                self.arm(guest, spec, u64::MAX)?;
                guest.machine.run(golden.end);
                let row = &mut self.row;
                row.outcome = Outcome::Latent;
                row.proof = Proof::Unread;
                row.end = golden.end;
                row.state_hash = hash_text(guest.machine.state_hash());
                (row.first_wrong_line, row.wrong_lines) = (Some(line.start().0), Some(1));
            }
        }
        Ok(Some(self.row.clone()))
    }

    fn arm(&self, guest: &mut Guest, spec: FaultSpec, until: u64) -> Result<()> {
        guest.machine.arm(&[spec], Limits { until }).map_err(|(_, cannot)| {
            let Injection { id, spec, .. } = self.injection;
            CampaignError::Input(format!("stratum {:?}, injection {id}: {spec}: {cannot}", self.row.stratum))
        })
    }

    fn perform(self, guest: &mut Guest, shortcuts: Shortcuts) -> Result<Row> {
        let golden = self.golden();
        let mut spec = self.injection.spec.clone();
        if let Some(transfer) = self.moved {
            spec.at = Trigger::Icount(transfer.icount);
        }
        let first = if let Trigger::Icount(n) = spec.at { golden.rung_at(n) } else { 0 };
        let rung = &golden.rungs[first];
        restore(&mut guest.machine, &rung.snapshot)?;
        guest.rewound(&golden.console[..rung.console]);
        let length = (golden.end - golden.start()) as f64 * self.plan().golden.budget;
        let limit = golden.start().saturating_add(length as u64);
        self.arm(guest, spec, limit)?;

        let mut wrong_output: Option<u64> = None;
        let mut compared = rung.console;
        let (mut check, mut stride) = (first + 1, 1);
        let seen = loop {
            let stopped = guest.step(limit);
            let icount = guest.icount();
            let (ours, theirs) = (&guest.console[compared..], golden.console.get(compared..).unwrap_or_default());
            if wrong_output.is_none() && !theirs.starts_with(ours) {
                wrong_output = Some(icount);
            }
            if wrong_output.is_none() {
                compared = guest.console.len();
            }
            if let Some(what) = machine_check(&guest.machine) {
                break Seen::Detected(what);
            }
            match look(self.plan(), guest, &stopped) {
                Seen::Nothing if icount >= limit => break Seen::Hang(format!("no verdict by instruction {limit}")),
                Seen::Nothing => {}
                seen => break seen,
            }
            while golden.rungs.get(check).is_some_and(|rung| rung.icount < icount) {
                check += 1;
            }
            let Some(rung) = golden.rungs.get(check).filter(|rung| rung.icount == icount) else { continue };
            let (triggered, _) = moments(&guest.machine);
            if triggered.is_none() {
                check += 1;
                continue;
            }
            // Each time the distance to the next look doubles: what does not fade soon most often never does.
            (check, stride) = (check + stride, stride * 2);
            if shortcuts.meet
                && guest.console.len() == rung.console
                && wrong_output.is_none()
                && guest.machine.state_hash() == rung.state_hash
            {
                return Ok(self.met(guest));
            }
        };
        self.ended(guest, seen, wrong_output)
    }

    /// Takes over when the fault did what.
    fn note_moments(&mut self, machine: &Machine) {
        if self.moved.is_some() {
            return;
        }
        let (triggered, effect) = moments(machine);
        let row = &mut self.row;
        row.triggered = triggered.map(|moment| moment.icount);
        row.effect = effect.map(|moment| moment.icount);
        row.rip = effect.or(triggered).map(|moment| moment.rip);
        row.keyid = effect.and_then(|moment| moment.keyid).map(|keyid| keyid.0).or(row.keyid);
        row.phase = row.triggered.and_then(|at| self.ready.phase(at));
    }

    /// The state is that of the golden run.
    fn met(mut self, guest: &Guest) -> Row {
        self.note_moments(&guest.machine);
        let golden = &self.ready.golden;
        let row = &mut self.row;
        row.outcome = if row.effect.is_some() { Outcome::Masked } else { Outcome::NotActivated };
        row.proof = Proof::Met;
        row.end = golden.end;
        row.state_hash = hash_text(golden.state_hash);
        self.row
    }

    fn ended(mut self, guest: &mut Guest, seen: Seen, wrong_output: Option<u64>) -> Result<Row> {
        self.note_moments(&guest.machine);
        let golden = &self.ready.golden;
        let hash = guest.machine.state_hash();
        self.row.end = guest.icount();
        self.row.state_hash = hash_text(hash);
        let mut shown_at = guest.icount();
        let noticed = guest.machine.integrity_detections().first_consumed;
        let (outcome, detail) = match seen {
            Seen::Verdict(exit) => {
                let results = Results::of(&self.plan().oracle, guest, exit);
                let difference = results.difference(&golden.results, &self.plan().oracle);
                if hash != golden.state_hash {
                    let differences = guest.machine.snapshot().memory_differences(&golden.last);
                    self.row.wrong_lines = Some(differences.lines);
                    self.row.first_wrong_line = differences.first.map(|line| line.start().0);
                }
                match difference {
                    _ if self.row.effect.is_none() => (Outcome::NotActivated, String::new()),
                    Some(what) => {
                        shown_at = wrong_output.unwrap_or(shown_at);
                        (Outcome::Sdc, what)
                    }
                    None if hash == golden.state_hash => (Outcome::Masked, String::new()),
                    None => (Outcome::Latent, String::new()),
                }
            }
            Seen::Detected(what) => {
                shown_at = noticed.map_or(shown_at, |detection| detection.moment.icount);
                (Outcome::Detected, what)
            }
            Seen::Crash(what) => (Outcome::Crash, what),
            Seen::Hang(what) => (Outcome::Hang, what),
            Seen::Nothing => (Outcome::ToolError, "the run ended without a reason".into()),
        };
        let visible = matches!(outcome, Outcome::Sdc | Outcome::Detected | Outcome::Crash | Outcome::Hang);
        let row = &mut self.row;
        row.latency = row.effect.filter(|_| visible).map(|effect| shown_at.saturating_sub(effect));
        (row.outcome, row.detail) = (outcome, detail);
        if let Some((number, line)) = first_difference(&guest.console, &golden.console, wrong_output.is_some()) {
            (row.console_line, row.console_text) = (Some(number), Some(line));
        }
        Ok(self.row)
    }
}

fn restore(machine: &mut Machine, snapshot: &machine::Snapshot) -> Result<()> {
    machine.restore(snapshot).map(|_| ()).map_err(|e| CampaignError::Host(format!("a snapshot of the golden run: {e}")))
}

/// When the only armed fault was triggered, and when it first changed something.
fn moments(machine: &Machine) -> (Option<Moment>, Option<Moment>) {
    use machine::inject::Outcome::{Fired, NoEffect, NotActivated};
    match machine.injections().first().map(|injection| injection.outcome()) {
        None | Some(NotActivated) => (None, None),
        Some(NoEffect { triggered }) => (Some(triggered), None),
        Some(Fired { triggered, at }) => (Some(triggered), Some(at)),
    }
}

/// The first line of output that is not the golden run's: its number from 1, and the line.
fn first_difference(ours: &[u8], golden: &[u8], differs: bool) -> Option<(u64, String)> {
    if !differs {
        return None;
    }
    let mut golden = golden.split(|byte| *byte == b'\n');
    let lines = ours.split(|byte| *byte == b'\n').enumerate();
    for (at, line) in lines {
        if golden.next() != Some(line) {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            return Some((at as u64 + 1, crate::judge::shown(line)));
        }
    }
    None
}
