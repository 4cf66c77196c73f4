//! The run: power on, slices of execution with the console served between them, and the end.

use crate::Result;
use crate::args::LogItem;
use crate::console::Lines;
use crate::inject::Inject;
use crate::input::{Input, Looked};
use crate::outcome::{Failure, Outcome, kind_name, status};
use crate::plan::{self, Plan};
use crate::progress::Progress;
use crate::sanitize::Sanitize;
use crate::summary::{Summary, grouped};
use crate::value::Until;
use cpu::state::Activity;
use cpu::trace::What;
use firmware::BiosLog;
use machine::{Exit, Machine};
use mem::bus_trace::Counts;
use regex::bytes::Regex;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use x86::cr::cr4::MCE;
use x86::platform::{ResetKind, VirtualTime};

/// Guest time between two looks at the console. A person notices no delay, and a script's view of the guest depends on
/// nothing but the guest.
const SLICE_NS: u64 = 10_000_000;
/// Slow clocks (`--ips`) get longer slices: entering and leaving the run loop has a price.
const SLICE_INSNS: u64 = 1_000_000;

/// Runs the plan; returns the exit status.
///
/// # Errors
/// An image or setting that does not fit this machine (nothing has run then), or a failure of the host.
pub fn run(plan: Plan) -> Result<u8> {
    let mut session = Session::start(plan)?;
    let outcome = session.execute();
    // The terminal is itself again before anything is printed.
    let waits_at = session.input.waits_at();
    session.input = Input::None;
    session.progress.clear();
    session.finish(outcome?, waits_at)
}

struct Session {
    plan: Plan,
    machine: Machine,
    sanitize: Sanitize,
    input: Input,
    /// Output that the input script has yet to look at.
    lines: Lines,
    /// `--until console:`
    watches: Vec<(Regex, Lines)>,
    until_icount: u64,
    slice_ns: u64,
    progress: Progress,
    signalled: Arc<AtomicBool>,
}

impl Session {
    fn start(mut plan: Plan) -> Result<Session> {
        let mut machine = Machine::new(plan.config.clone()).map_err(plan::config_error)?;
        plan.log.attach(&mut machine);
        let sanitize = plan.sanitize.take().unwrap_or_default();
        sanitize.attach(&mut machine);
        plan.bus_trace.attach(&mut machine)?;
        let bios = start(&mut machine, &plan).map_err(|e| {
            plan.bus_trace.discard();
            Failure::Usage(e)
        })?;
        let until = plan.until.iter().filter_map(|until| if let Until::Icount(n) = until { Some(*n) } else { None });
        let until = until.min().unwrap_or(u64::MAX);
        let armed = plan.inject.arm(&mut machine, &sanitize.symbols, &plan.kernel, &plan.cmdline, until);
        armed.inspect_err(|_| plan.bus_trace.discard())?;

        let signalled = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, signalled.clone())
                .map_err(|e| Failure::Host(format!("cannot catch signal {signal}: {e}")))?;
        }
        let mut until_icount = u64::MAX;
        let mut watches = Vec::new();
        for until in &plan.until {
            match until {
                Until::Icount(n) => until_icount = until_icount.min(*n),
                Until::Pc(rip) => machine.cpu.breakpoint = Some(*rip),
                Until::Console(regex) => watches.push((regex.clone(), Lines::default())),
            }
        }
        let slice_insns_ns = u128::from(SLICE_INSNS) * 1_000_000_000 / u128::from(plan.config.ips.max(1));
        let mut session = Session {
            input: plan.take_input(),
            lines: Lines::default(),
            watches,
            until_icount,
            slice_ns: SLICE_NS.max(slice_insns_ns as u64),
            progress: Progress::new(plan.no_progress),
            signalled,
            machine,
            sanitize,
            plan,
        };
        if let Some(bios) = bios {
            session.print_bios(&bios)?;
        }
        // What the firmware stage did comes before the first instruction.
        session.plan.log.drain(&mut session.machine)?;
        if !session.sanitize.repeats() {
            session.plan.loadvm = None;
        }
        if !session.plan.reboot && !session.sanitize.repeats() {
            session.plan.kernel = Default::default();
            session.plan.initrd = Vec::new();
        }
        Ok(session)
    }

    fn print_bios(&mut self, bios: &BiosLog) -> Result<()> {
        if self.plan.quiet_bios {
            return Ok(());
        }
        // Line ends as on any serial line.
        let text: String = bios.lines().iter().flat_map(|line| [line, "\r\n"]).collect();
        self.plan.console.write(text.as_bytes())
    }

    fn execute(&mut self) -> Result<Outcome> {
        loop {
            let skipped = self.machine.cpu.clock.skipped;
            let exit = self.slice()?;
            let slept = Duration::from_nanos(self.machine.cpu.clock.skipped.wrapping_sub(skipped));
            self.serve_output()?;
            self.plan.bus_trace.check(&self.machine)?;
            if let Some(outcome) = self.sanitize.drain(&mut self.machine)? {
                return Ok(outcome);
            }
            let stop = self.plan.savevm.save_due(&mut self.machine)?;
            if let Some(outcome) = self.judge(exit, slept)? {
                return Ok(outcome);
            }
            if let Some(what) = stop {
                return Ok(Outcome::Saved(what));
            }
        }
    }

    /// Runs to the next multiple of the slice length, or to an instruction count that somebody asked for.
    fn slice(&mut self) -> Result<Exit> {
        let (icount, now) = (self.machine.cpu.icount(), self.machine.cpu.now().0);
        let awaited = self.input.awaited_icount().filter(|n| *n > icount).unwrap_or(u64::MAX);
        let saver = &self.plan.savevm;
        let limit = self.until_icount.min(awaited).min(saver.next_icount(icount));
        let slice_end = (now / self.slice_ns + 1).saturating_mul(self.slice_ns);
        let horizon = VirtualTime(slice_end.min(saver.next_time(now)));
        if !self.plan.log.wants(LogItem::Exec) {
            return Ok(self.machine.run_until(limit, horizon));
        }
        loop {
            let exit = self.step(horizon)?;
            if exit != Exit::Icount || self.machine.cpu.icount() >= limit || self.machine.cpu.now() >= horizon {
                return Ok(exit);
            }
        }
    }

    /// One instruction, with everything that happened on the way to it.
    fn step(&mut self, horizon: VirtualTime) -> Result<Exit> {
        let log = &mut self.plan.log;
        let before = self.machine.cpu.icount();
        let running = self.machine.cpu.activity == Activity::Running;
        let mut insn = running.then(|| self.machine.insn_at(self.machine.cpu.rip()));
        let exit = self.machine.step(horizon);
        for event in self.machine.cpu.trace.as_mut().map(|t| t.take()).unwrap_or_default() {
            let handler = match event.what {
                What::Exception { handler, .. } => {
                    insn.take().iter().for_each(|faulted| log.insn(faulted));
                    Some(handler)
                }
                // Delivered before the instruction.
                What::Interrupt { handler, .. } => Some(handler),
                What::Software { .. } | What::Flush(_) => None,
            };
            log.traced(&event);
            if let Some(handler) = handler {
                let mut first = self.machine.insn_at(handler);
                first.icount = event.icount;
                insn = Some(first);
            }
        }
        // Nothing has retired if time was up first, or if a halted processor stays so.
        if self.machine.cpu.icount() > before || exit == Exit::TripleFault {
            insn.iter().for_each(|executed| log.insn(executed));
        }
        Ok(exit)
    }

    /// Passes output and log lines on.
    fn serve_output(&mut self) -> Result<()> {
        let (serial, debug) = {
            let mut chipset = self.machine.chipset();
            (chipset.take_serial_output(), chipset.take_debug_console_output())
        };
        if !serial.is_empty() || !debug.is_empty() {
            self.progress.output();
        }
        if !serial.is_empty() {
            self.plan.console.write(&serial)?;
            if matches!(self.input, Input::Script(_)) {
                self.lines.push(&serial);
            }
            self.watches.iter_mut().for_each(|(_, lines)| lines.push(&serial));
            self.plan.savevm.output(&serial);
        }
        if !debug.is_empty() {
            let written = std::io::stderr().write_all(&debug);
            written.map_err(|e| Failure::Host(format!("standard error: {}", crate::files::reason(&e))))?;
        }
        self.progress.tick(self.machine.cpu.icount());
        self.plan.log.drain(&mut self.machine)
    }

    /// Goes on (`None`) or ends.
    fn judge(&mut self, exit: Exit, slept: Duration) -> Result<Option<Outcome>> {
        if let Some((regex, _)) = self.watches.iter_mut().find_map(|(r, lines)| lines.find(r).then_some((r, ()))) {
            return Ok(Some(Outcome::Console(regex.as_str().to_owned())));
        }
        if self.signalled.load(Ordering::Relaxed) {
            return Ok(Some(Outcome::Signal));
        }
        let looked = match exit {
            Exit::Icount if self.machine.cpu.icount() >= self.until_icount => {
                return Ok(Some(Outcome::Icount(self.until_icount)));
            }
            Exit::Icount | Exit::Time => Some(self.input.look(&mut self.machine, &mut self.lines, slept)),
            Exit::Breakpoint => return Ok(Some(Outcome::Pc(self.machine.cpu.rip()))),
            Exit::Halted { interrupts: true } => self.input.wait(&mut self.machine, &mut self.lines),
            Exit::Reset(ResetKind::Init) if self.init() => return Ok(None),
            Exit::Reset(kind) if self.plan.reboot => {
                self.reset(kind)?;
                return Ok(None);
            }
            _ => None,
        };
        Ok(match looked {
            Some(Looked::Done) => None,
            Some(Looked::Quit) => Some(Outcome::Quit),
            None if exit == Exit::TripleFault && self.machine.machine_check_shutdown() => {
                Some(Outcome::MachineCheck { nested: self.machine.cpu.cr4 & MCE != 0 })
            }
            None => Outcome::of(exit),
        })
    }

    /// INIT. True: the guest goes on by itself.
    fn init(&mut self) -> bool {
        self.plan.log.remark(format_args!("reset: {} {}", self.machine.cpu.icount(), kind_name(ResetKind::Init)));
        self.machine.init()
    }

    /// Resets the machine and boots again, as the BIOS would from its disk.
    fn reset(&mut self, kind: ResetKind) -> Result<()> {
        let kind = platform_reset(kind);
        self.plan.log.remark(format_args!("reset: {} {}", self.machine.cpu.icount(), kind_name(kind)));
        self.machine.reset(kind);
        self.sanitize.symbols.forget();
        let bios = power_on(&mut self.machine, &self.plan)
            .map_err(|e| Failure::Host(format!("cannot boot after a reset: {e}")))?;
        self.print_bios(&bios)?;
        self.plan.log.drain(&mut self.machine)
    }

    fn finish(mut self, mut outcome: Outcome, waits_at: Option<String>) -> Result<u8> {
        if let Some(step) = waits_at.filter(|_| outcome.status() == status::SUCCESS && outcome != Outcome::Quit) {
            outcome = Outcome::ScriptUnfinished(step);
        }
        let missed = self.plan.savevm.finish(&mut self.machine)?;
        if let Some(what) = missed.first().filter(|_| outcome.status() == status::SUCCESS) {
            outcome = Outcome::NotSaved(what.clone());
        }
        self.plan.console.end_line()?;
        self.plan.log.finish()?;
        let traced = self.plan.bus_trace.finish(&mut self.machine)?;
        let status = outcome.status();
        for what in missed {
            sayln!("mktme-emu: --savevm {what}: not saved, the run ended before");
        }
        if self.plan.summary || status != status::SUCCESS {
            sayln!("mktme-emu: {outcome} (exit status {status})");
        }
        if outcome.wants_dump() {
            say!("{}", self.machine.register_dump());
            let (rip, cpl) = (self.machine.cpu.rip(), self.machine.cpu.cpl);
            let place = self.sanitize.symbols.resolve(&mut self.machine, rip, cpl);
            if place.symbol.is_some() {
                sayln!("  RIP is at {place}");
            }
        }
        if let Some(file) = self.plan.dump_dram.take() {
            file.finish(|mut out| self.machine.cpu.mem.dram().dump(&mut out))?;
        }
        if self.plan.state_hash {
            let (hash, icount) = (self.machine.state_hash(), self.machine.cpu.icount());
            writeln!(std::io::stdout(), "state-hash: {hash:032x}\ninstructions: {icount}")
                .map_err(|e| Failure::Host(format!("standard output: {}", crate::files::reason(&e))))?;
        }
        if self.plan.summary {
            say!("{}", Summary::new(&self.machine, self.plan.log.unknown_unprinted(), self.plan.savevm.saved()));
            if let Some(Counts { reads, writes, .. }) = traced {
                sayln!("  bus trace      {} reads, {} writes", grouped(reads), grouped(writes));
            }
            say!("{}", Inject::summary(&self.machine));
        }
        self.sanitize.finish(&mut self.machine, &self.plan)?;
        Ok(status)
    }
}

/// After INIT that led nowhere, the BIOS resets the platform.
pub fn platform_reset(kind: ResetKind) -> ResetKind {
    if kind == ResetKind::Init { ResetKind::Warm } else { kind }
}

/// The machine as the run finds it: booted, or with the state of a snapshot, for which there is no log.
///
/// # Errors
/// The message names the option.
pub fn start(machine: &mut Machine, plan: &Plan) -> std::result::Result<Option<BiosLog>, String> {
    match &plan.loadvm {
        Some(snapshot) => machine.restore(snapshot).map(|_| None).map_err(|e| format!("--loadvm: {e}")),
        None => power_on(machine, plan).map(Some),
    }
}

/// BIOS and boot loader. The message of a failure names the option.
pub fn power_on(machine: &mut Machine, plan: &Plan) -> std::result::Result<BiosLog, String> {
    let mut bios = machine.power_on().map_err(|e| e.to_string())?;
    machine.boot(&mut bios, &plan.images()).map_err(|e| e.to_string())?;
    Ok(bios.log)
}
