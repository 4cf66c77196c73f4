//! What `-d` writes, and the single lines about what the model does not have.

use crate::Result;
use crate::args::LogItem;
use crate::files;
use crate::outcome::Failure;
use cpu::exec::system::unknown::Unknown;
use cpu::trace::{Flush, Trace, Traced, What};
use devices::{AccessKind, UnclaimedAccess};
use machine::Machine;
use machine::trace::{TracedInsn, describe, mode_name};
use mem::event::ActivateOutcome;
use mem::{Event, WritebackAction};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use x86::Exception;
use x86::platform::ResetKind;

/// A set of items and where their lines go.
pub struct Log {
    items: BTreeSet<LogItem>,
    out: Out,
    /// Everything unknown that the guest asked for, once each.
    unknown: Vec<String>,
    /// Print those when they occur. False while the console is on the same terminal.
    immediate: bool,
    failed: Option<io::Error>,
}

enum Out {
    Stderr(io::Stderr),
    File(BufWriter<File>),
}

impl Log {
    pub fn open(items: &[LogItem], path: Option<&Path>, immediate: bool) -> Result<Log> {
        let out = match path {
            Some(path) => Out::File(BufWriter::new(files::create_stream("-D", path)?)),
            None => Out::Stderr(io::stderr()),
        };
        let items: BTreeSet<LogItem> = items.iter().copied().collect();
        let immediate = immediate || items.contains(&LogItem::GuestErrors) || path.is_some();
        Ok(Log { items, out, unknown: Vec::new(), immediate, failed: None })
    }

    /// True for an item of `-d`.
    pub fn wants(&self, item: LogItem) -> bool {
        self.items.contains(&item)
    }

    /// Makes the machine record what will be asked for.
    pub fn attach(&self, machine: &mut Machine) {
        if [LogItem::Int, LogItem::Mmu, LogItem::Exec].iter().any(|item| self.wants(*item)) {
            machine.cpu.trace = Some(Box::new(Trace::default()));
        }
        machine.cpu.mem.events_mut().enable(self.wants(LogItem::Mktme));
    }

    fn line(&mut self, text: std::fmt::Arguments<'_>) {
        let result = match &mut self.out {
            Out::Stderr(out) => writeln!(out, "{text}"),
            Out::File(out) => writeln!(out, "{text}"),
        };
        if let Err(e) = result {
            self.failed.get_or_insert(e);
        }
    }

    /// Writes what the machine recorded since the last call.
    ///
    /// # Errors
    /// The log could not be written.
    pub fn drain(&mut self, machine: &mut Machine) -> Result<()> {
        let traced = machine.cpu.trace.as_mut().map(|t| t.take()).unwrap_or_default();
        for event in &traced {
            self.traced(event);
        }
        let icount = machine.cpu.icount();
        while let Some(event) = machine.cpu.mem.events_mut().take() {
            self.line(format_args!("mktme: before {icount}: {}", encryption(&event)));
        }
        let unclaimed = machine.chipset().take_unclaimed_accesses();
        if self.wants(LogItem::GuestErrors) {
            for access in &unclaimed {
                self.line(format_args!("guest_errors: before {icount}: {}", unclaimed_access(access)));
            }
        }
        while let Some((what, rip)) = machine.cpu.unknowns.next_report() {
            let text = format!("{} at RIP {rip:016x}", unknown(what));
            if self.immediate {
                self.line(format_args!("guest_errors: before {icount}: {text}"));
            }
            self.unknown.push(text);
        }
        match self.failed.take() {
            Some(e) => Err(Failure::Host(format!("-D: {}", files::reason(&e)))),
            None => Ok(()),
        }
    }

    /// Writes one event of the processor, if its item was asked for.
    pub fn traced(&mut self, event: &Traced) {
        let Traced { icount, rip, what } = *event;
        match what {
            What::Exception { exception, handler } => {
                let text = describe(exception);
                if self.wants(LogItem::Int) {
                    let vector = exception.vector();
                    self.line(format_args!("int: {icount} {rip:016x} vector {vector:02x} {text}, to {handler:016x}"));
                }
                if self.wants(LogItem::Mmu) && matches!(exception, Exception::PageFault { .. }) {
                    self.line(format_args!("mmu: {icount} {rip:016x} {text}"));
                }
            }
            What::Interrupt { vector, handler } if self.wants(LogItem::Int) => {
                self.line(format_args!("int: {icount} {rip:016x} vector {vector:02x} interrupt, to {handler:016x}"));
            }
            What::Software { vector, handler } if self.wants(LogItem::Int) => {
                self.line(format_args!("int: {icount} {rip:016x} vector {vector:02x} software, to {handler:016x}"));
            }
            What::Flush(flush) if self.wants(LogItem::Mmu) => {
                let text = match flush {
                    Flush::All => "flush all".to_owned(),
                    Flush::NonGlobal => "flush all but global".to_owned(),
                    Flush::Pcid(pcid) => format!("flush PCID {pcid:x}"),
                    Flush::Page { linear, pcid } => format!("flush page {linear:016x}, PCID {pcid:x}"),
                };
                self.line(format_args!("mmu: {icount} {rip:016x} {text}"));
            }
            _ => {}
        }
    }

    /// An instruction that was executed.
    pub fn insn(&mut self, insn: &TracedInsn) {
        let TracedInsn { icount, rip, cpl, mode, text } = insn;
        let mode = if mode.is_long64() { String::new() } else { format!(" ({})", mode_name(*mode)) };
        self.line(format_args!("exec: {icount} {rip:016x} {cpl} {text}{mode}"));
    }

    /// A line of our own about the machine, in its place among the others. Written if any item was asked for.
    pub fn remark(&mut self, text: std::fmt::Arguments<'_>) {
        if !self.items.is_empty() {
            self.line(text);
        }
    }

    /// What was reported as unknown, for the summary; empty if it was printed when it occurred.
    pub fn unknown_unprinted(&self) -> &[String] {
        if self.immediate { &[] } else { &self.unknown }
    }

    /// Writes what is buffered.
    pub fn finish(&mut self) -> Result<()> {
        let result = match &mut self.out {
            Out::Stderr(_) => Ok(()),
            Out::File(out) => out.flush(),
        };
        result.map_err(|e| Failure::Host(format!("-D: {}", files::reason(&e))))
    }
}

fn unknown(what: Unknown) -> String {
    match what {
        Unknown::MsrRead(msr) => format!("RDMSR {msr:X}H: unknown MSR, #GP(0)"),
        Unknown::MsrWrite(msr) => format!("WRMSR {msr:X}H: unknown MSR, #GP(0)"),
        Unknown::CpuidLeaf(leaf) => format!("CPUID leaf {leaf:X}H: unknown"),
        Unknown::Instruction(code) => format!("unknown instruction {code:?}, #UD"),
    }
}

fn unclaimed_access(access: &UnclaimedAccess) -> String {
    let UnclaimedAccess { kind, address, size, value } = *access;
    match kind {
        AccessKind::PortRead => format!("read of {size} bytes from port {address:X}H, where nothing is"),
        AccessKind::PortWrite => format!("write of {value:X}H, {size} bytes, to port {address:X}H, where nothing is"),
        AccessKind::MmioRead => format!("read of {size} bytes from address {address:X}H, where nothing is"),
        AccessKind::MmioWrite => {
            format!("write of {value:X}H, {size} bytes, to address {address:X}H, where nothing is")
        }
    }
}

fn encryption(event: &Event) -> String {
    match *event {
        Event::KeyidBeyondMax { address, keyid } => {
            format!("access to {address} with KeyID {}, above MK_TME_MAX_KEYS", keyid.0)
        }
        Event::CoreNotActivated { cpu } => format!("processor {cpu} used a KeyID before its write of 9FFH"),
        Event::KeyidOnMmio { address, keyid } => format!("access to registers at {address} with KeyID {}", keyid.0),
        Event::AliasWritebackConflict { line, kid_lost, kid_won } => {
            format!("line {} written back for KeyIDs {} and {}: the last wins", line.start(), kid_lost.0, kid_won.0)
        }
        Event::AliasReadStale { line, kid_read, kid_dirty } => {
            format!("stale read of line {} with KeyID {}: dirty under KeyID {}", line.start(), kid_read.0, kid_dirty.0)
        }
        Event::AliasDirtyOnKeySwitch { line, kid_before, kid_now } => format!(
            "line {}, which KeyID {} had written, overwritten by a write-back of KeyID {}",
            line.start(),
            kid_before.0,
            kid_now.0
        ),
        Event::UnlockedAtOsStart => "IA32_TME_ACTIVATE not locked when the operating system starts".into(),
        Event::PackageMismatch => "packages disagree about IA32_TME_ACTIVATE".into(),
        Event::Pconfig { kid, command, algorithm, status } => {
            use x86::tme::pconfig::*;
            let command = match command {
                KEYID_SET_KEY_DIRECT => "SET_KEY_DIRECT".into(),
                KEYID_SET_KEY_RANDOM => "SET_KEY_RANDOM".into(),
                KEYID_CLEAR_KEY => "CLEAR_KEY".into(),
                KEYID_NO_ENCRYPT => "NO_ENCRYPT".into(),
                other => format!("command {other}"),
            };
            format!("PCONFIG KeyID {} {command}, algorithm {algorithm:#x}: RAX = {status}", kid.0)
        }
        Event::Activate { value, outcome } => {
            let outcome = match outcome {
                ActivateOutcome::Refused(check) => format!("#GP(0), rule W{check}"),
                ActivateOutcome::Ignored => "ignored, already locked".into(),
                ActivateOutcome::LockedOff => "locked, encryption off".into(),
                ActivateOutcome::NewKey => "locked, new TME key".into(),
                ActivateOutcome::EntropyFailure => "not locked, random generator failed".into(),
                ActivateOutcome::Restored => "locked, saved TME key restored".into(),
                ActivateOutcome::NothingSaved => "locked off, no saved TME key".into(),
            };
            format!("IA32_TME_ACTIVATE written {value:016x}: {outcome}")
        }
        Event::Reset { kind } => match kind {
            ResetKind::Cold => "cold reset".into(),
            ResetKind::Warm => "warm reset".into(),
            ResetKind::Init => "INIT".into(),
        },
        Event::MacMismatch { line, keyid } => {
            format!("integrity: line {} read with KeyID {}: wrong MAC or owner bit", line.start(), keyid.0)
        }
        Event::PoisonCreated { line, keyid } => {
            format!("integrity: line {} poisoned by an access with KeyID {}", line.start(), keyid.0)
        }
        Event::PoisonConsumed { line, keyid } => {
            format!("integrity: poison of line {} used with KeyID {}: #MC", line.start(), keyid.0)
        }
        Event::PoisonToDevice { line, keyid } => {
            format!("integrity: poisoned line {} read by a device with KeyID {}: zeros", line.start(), keyid.0)
        }
        Event::TweakFault { line, write } => {
            let done = if write { "encrypted" } else { "decrypted" };
            format!("fault: line {} {done} with a wrong tweak", line.start())
        }
        Event::DramAlias { line, cells, write } => {
            let done = if write { "written to" } else { "read from" };
            format!("fault: line {} {done} the cells of line {}", line.start(), cells.start())
        }
        Event::WritebackFault { line, keyid, action } => {
            let done = if action == WritebackAction::Drop { "lost" } else { "performed twice" };
            format!("fault: write-back of line {} with KeyID {} {done}", line.start(), keyid.0)
        }
        Event::KeytableFlip { package, keyid, field, bit } => {
            format!("fault: bit {bit} of {field:?} of KeyID {} flipped in package {package}", keyid.0)
        }
    }
}
