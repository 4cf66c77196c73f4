//! Arming faults, and the run with its stops.

use super::check::{Cannot, Limits, check};
use super::spec::{CodeAddress, FaultSpec, Lasts, LineEvent, Target, Trigger};
use crate::Machine;
use mem::{Disturbance, Effect, Moment, Occasion, Reported, injection_number};

/// What became of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Its trigger has not come.
    NotActivated,
    /// Its trigger came, but there was nothing that it could have changed.
    NoEffect { triggered: Moment },
    /// It had an effect; `at` is the first.
    Fired { triggered: Moment, at: Moment },
}

/// A fault that was armed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Injection {
    /// As it was armed, symbols resolved.
    pub spec: FaultSpec,
    triggered: Option<Moment>,
    effect: Option<Moment>,
}

impl Injection {
    /// What has become of it so far.
    pub fn outcome(&self) -> Outcome {
        match (self.triggered, self.effect) {
            (None, _) => Outcome::NotActivated,
            (Some(triggered), None) => Outcome::NoEffect { triggered },
            (Some(triggered), Some(at)) => Outcome::Fired { triggered, at },
        }
    }
}

/// What a trigger leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Fire,
    /// The first trigger of a replay.
    Capture,
    /// The end of a fault that lasts.
    End,
}

/// Something that is counted.
#[derive(Debug, Clone, Copy)]
struct Counted<T> {
    what: T,
    left: u64,
    number: usize,
    act: Act,
}

/// Counts those that `met` picks; returns what is due.
fn count<T>(waiting: &mut Vec<Counted<T>>, met: impl Fn(&T) -> bool) -> Vec<(usize, Act)> {
    let mut due = Vec::new();
    waiting.retain_mut(|one| {
        if met(&one.what) {
            one.left -= 1;
            if one.left == 0 {
                due.push((one.number, one.act));
            }
        }
        one.left > 0
    });
    due
}

/// The armed faults of a machine.
#[derive(Debug, Default)]
pub(crate) struct Injections {
    list: Vec<Injection>,
    /// By instruction count.
    due: Vec<(u64, usize, Act)>,
    /// By linear address.
    traps: Vec<Counted<u64>>,
    /// By physical address.
    physical_traps: Vec<Counted<u64>>,
    markers: Vec<Counted<Option<u32>>>,
}

impl Machine {
    /// Arms faults, in addition to those armed before. The machine has been powered on; nothing of the guest need have run.
    /// The numbers by which random triggers and rates draw count from 0 in the order of arming, where a fault does not have its
    /// own.
    ///
    /// # Errors
    /// The first fault that cannot fire, and why; nothing is armed then.
    pub fn arm(&mut self, specs: &[FaultSpec], limits: Limits) -> Result<(), (usize, Cannot)> {
        for (at, spec) in specs.iter().enumerate() {
            check(spec, self, limits).map_err(|cannot| (at, cannot))?;
        }
        for spec in specs {
            let number = self.injections.as_ref().map_or(0, |injections| injections.list.len());
            let injections = self.injections.get_or_insert_default();
            injections.list.push(Injection { spec: spec.clone(), triggered: None, effect: None });
            if let Some(draw) = spec.draw {
                self.cpu.mem.draw_as(number, draw);
            }
            if let Target::Replay { since, .. } = &spec.target {
                self.wait(number, since, Act::Capture);
            }
            self.wait(number, &spec.at, Act::Fire);
        }
        self.set_traps();
        // Pages with awaited accesses must not be on the fast path.
        self.cpu.refetch_data();
        Ok(())
    }

    /// The armed faults in the order of arming, and what became of them.
    pub fn injections(&self) -> &[Injection] {
        self.injections.as_ref().map_or(&[], |injections| &injections.list)
    }

    /// Disarms everything; what lasted ends.
    pub fn disarm(&mut self) {
        if self.injections.take().is_some() {
            let wired = self.cpu.mem.has_stuck_wires();
            self.cpu.mem.disarm();
            self.cpu.set_traps(Vec::new());
            self.cpu.set_physical_traps(Vec::new());
            self.watch_markers(false);
            if wired {
                self.cpu.refetch();
            }
        }
    }

    /// The number by which an injection draws.
    fn draw(&self, number: usize) -> usize {
        self.injections().get(number).and_then(|injection| injection.spec.draw).map_or(number, |draw| draw as usize)
    }

    fn wait(&mut self, number: usize, trigger: &Trigger, act: Act) {
        let occasion = match *trigger {
            Trigger::Icount(n) => return self.wait_until(n, number, act),
            Trigger::Random { from, to } => {
                let n = from + injection_number(self.config().seed, self.draw(number), to - from);
                return self.wait_until(n, number, act);
            }
            Trigger::Exec { physical: true, address: what, nth } => {
                let counted = Counted { what, left: nth, number, act };
                return self.injections.get_or_insert_default().physical_traps.push(counted);
            }
            Trigger::Pc { place: CodeAddress::Linear(what), nth } | Trigger::Exec { address: what, nth, .. } => {
                let counted = Counted { what, left: nth, number, act };
                return self.injections.get_or_insert_default().traps.push(counted);
            }
            // Refused.
            Trigger::Pc { .. } => return,
            Trigger::Marker { value: what, nth } => {
                let counted = Counted { what, left: nth, number, act };
                self.injections.get_or_insert_default().markers.push(counted);
                return self.watch_markers(true);
            }
            Trigger::Access { physical: false, address, read, write, .. } => Occasion::Linear { address, read, write },
            Trigger::Access { address, read, write, .. } => Occasion::Physical { address, read, write },
            Trigger::Line { event, line, keyid, .. } => match event {
                LineEvent::Fill => Occasion::Fill { line, keyid },
                LineEvent::WriteBack => Occasion::WriteBack { line, keyid },
                LineEvent::Flush => Occasion::Flush { line, keyid },
            },
            Trigger::Wrmsr { msr, .. } => Occasion::Wrmsr { msr },
            Trigger::Pconfig { .. } => Occasion::Pconfig,
        };
        let nth = match *trigger {
            Trigger::Access { nth, .. }
            | Trigger::Line { nth, .. }
            | Trigger::Wrmsr { nth, .. }
            | Trigger::Pconfig { nth } => nth,
            _ => 1,
        };
        let Some(injection) = self.injections().get(number) else { return };
        let effect = match (&injection.spec.target, act) {
            (Target::Replay { line, .. }, Act::Capture) => Effect::Capture { line: *line },
            (Target::Replay { line, .. }, _) => {
                Effect::Disturb { disturbance: Disturbance::Replay { line: *line }, times: None }
            }
            // Addresses that are on their way over the wires are the processor's.
            (Target::Memory(disturbance), _) if !matches!(disturbance, Disturbance::KeyidWire { .. }) => {
                Effect::Disturb { disturbance: disturbance.clone(), times: times(&injection.spec) }
            }
            _ => Effect::Report,
        };
        self.cpu.mem.arm(number, occasion, nth, effect);
    }

    fn wait_until(&mut self, icount: u64, number: usize, act: Act) {
        self.injections.get_or_insert_default().due.push((icount, number, act));
    }

    fn set_traps(&mut self) {
        let traps = self.injections.iter().flat_map(|injections| &injections.traps).map(|trap| trap.what).collect();
        self.cpu.set_traps(traps);
        let injections = self.injections.iter();
        let physical = injections.flat_map(|injections| &injections.physical_traps).map(|trap| trap.what).collect();
        self.cpu.set_physical_traps(physical);
    }

    /// The instruction count at which something is due.
    pub(crate) fn next_injection(&self) -> u64 {
        let due = self.injections.iter().flat_map(|injections| &injections.due).map(|(icount, ..)| *icount);
        due.chain(self.cpu.mem.next_release()).min().unwrap_or(u64::MAX)
    }

    /// Does what is due by the instruction count.
    pub(crate) fn inject_due(&mut self) {
        let now = self.cpu.icount();
        if self.cpu.mem.next_release().is_some_and(|at| at <= now) {
            self.cpu.tell_time();
            self.cpu.mem.release(now);
        }
        let Some(injections) = &mut self.injections else { return };
        let mut due: Vec<_> = injections.due.extract_if(.., |(icount, ..)| *icount <= now).collect();
        due.sort_by_key(|(icount, ..)| *icount);
        for (_, number, act) in due {
            self.act(number, act);
        }
    }

    /// The processor has stopped before an instruction, because of its linear address or its physical one.
    pub(crate) fn inject_at_trap(&mut self, physical: bool) {
        let linear = self.code_address(self.cpu.rip());
        let at = if physical { self.cpu.trapped_address() } else { Some(linear) };
        let Some(injections) = &mut self.injections else { return };
        let traps = if physical { &mut injections.physical_traps } else { &mut injections.traps };
        let due = count(traps, |address| Some(*address) == at);
        let done = !due.is_empty();
        for (number, act) in due {
            self.act(number, act);
        }
        if done {
            self.set_traps();
        }
    }

    /// The guest has written a marker.
    pub(crate) fn inject_at_marker(&mut self, value: u32) {
        let Some(injections) = &mut self.injections else { return };
        let due = count(&mut injections.markers, |wanted| wanted.is_none_or(|wanted| wanted == value));
        if injections.markers.is_empty() {
            self.watch_markers(false);
        }
        for (number, act) in due {
            self.act(number, act);
        }
    }

    fn act(&mut self, number: usize, act: Act) {
        let Some(spec) = self.injections().get(number).map(|injection| injection.spec.clone()) else { return };
        match act {
            Act::Capture => {
                if let Target::Replay { line, .. } = spec.target {
                    self.cpu.mem.capture(number, line);
                }
            }
            Act::End => {
                self.cpu.mem.relieve(number);
                if is_wire(&spec.target) {
                    self.cpu.refetch();
                }
            }
            Act::Fire => {
                let now = self.now_here();
                self.note(number, Reported::Triggered, now);
                self.apply(number, &spec);
            }
        }
    }

    /// The boundary at which the machine stands.
    fn now_here(&self) -> Moment {
        Moment { icount: self.cpu.icount(), rip: self.cpu.rip(), keyid: None }
    }

    /// Performs a fault between two instructions.
    fn apply(&mut self, number: usize, spec: &FaultSpec) {
        let now = self.now_here();
        let disturbance = match &spec.target {
            Target::Memory(disturbance) => disturbance.clone(),
            Target::Replay { line, .. } => Disturbance::Replay { line: *line },
            target => {
                if self.apply_to_processor(target) {
                    self.note(number, Reported::Effect, now);
                }
                return;
            }
        };
        self.cpu.tell_time();
        self.cpu.mem.disturb(number, disturbance, times(spec));
        self.cpu.mem.stamp(now.icount, now.rip);
        if is_wire(&spec.target) {
            self.cpu.refetch();
        }
        self.inject_reports();
    }

    fn apply_to_processor(&mut self, target: &Target) -> bool {
        match *target {
            Target::Gpr { register, bit } => {
                self.cpu.regs[usize::from(register & 15)] ^= 1 << (bit & 63);
                true
            }
            Target::Rip { bit } => {
                self.flip_rip(bit);
                true
            }
            Target::Flags { bit } => {
                self.flip_flag(bit);
                true
            }
            Target::Msr { msr, bit } => self.flip_msr(msr, bit),
            Target::Tlb { address, bit } => self.flip_tlb(address, bit),
            Target::Pte { address, level, bit } => self.flip_pte(address, level, bit),
            Target::Memory(_) | Target::Replay { .. } => false,
        }
    }

    /// Takes note of what the memory side has met, and does the processor's part of it.
    pub(crate) fn inject_reports(&mut self) {
        self.cpu.mem.catch_up();
        for report in self.cpu.mem.take_reports() {
            let number = report.number;
            self.note(number, report.what, report.moment);
            let Some(spec) = self.injections().get(number).map(|injection| injection.spec.clone()) else { continue };
            let reported_only = match &spec.target {
                Target::Memory(_) => is_wire(&spec.target),
                Target::Replay { .. } => false,
                _ => true,
            };
            if report.what == Reported::Triggered && reported_only && self.injections()[number].effect.is_none() {
                self.apply(number, &spec);
            }
        }
    }

    fn note(&mut self, number: usize, what: Reported, moment: Moment) {
        let Some(injections) = &mut self.injections else { return };
        let Some(injection) = injections.list.get_mut(number) else { return };
        match what {
            Reported::Triggered => injection.triggered = injection.triggered.or(Some(moment)),
            Reported::Effect => injection.effect = injection.effect.or(Some(moment)),
            Reported::Held { .. } => {}
        }
        if what == Reported::Triggered
            && let Some(Lasts::Instructions(n)) = injection.spec.duration()
        {
            injections.due.push((moment.icount.saturating_add(n), number, Act::End));
        }
    }
}

fn times(spec: &FaultSpec) -> Option<u64> {
    match spec.duration() {
        Some(Lasts::Times(n)) => Some(n),
        _ => None,
    }
}

fn is_wire(target: &Target) -> bool {
    matches!(target, Target::Memory(Disturbance::KeyidWire { .. }))
}
