//! The last store to a line before a hazard. The sanitizer keeps the store that made the line dirty; a second run of the
//! same machine, which is identical (design D6), watches the reported lines and knows the rest (design D4).

use super::Reported;
use super::report::Named;
use crate::Result;
use crate::outcome::Failure;
use crate::plan::{self, Plan};
use crate::session;
use machine::{Exit, Machine};
use mem::{Site, WatchedLine};
use x86::platform::{ResetKind, VirtualTime};

/// What happened to the line before the hazard, through any KeyID.
#[derive(Debug)]
pub struct Origin {
    pub last_store: Option<Named>,
    /// CLFLUSH, CLWB, WBINVD, ...
    pub last_flush: Option<Named>,
}

/// Repeats the run with what was `typed`. For each report the last store and the last flush.
///
/// # Errors
/// The host cannot have a second machine.
pub fn find(
    plan: &Plan,
    typed: &[(VirtualTime, Vec<u8>)],
    reported: &[&mut Reported],
) -> Result<Vec<[Option<Site>; 2]>> {
    let question = |r: &Reported| WatchedLine { line: r.hazard.line, before: r.hazard.access.icount };
    let questions: Vec<WatchedLine> = reported.iter().map(|r| question(r)).collect();
    let end = questions.iter().map(|q| q.before).max().unwrap_or(0);

    let config = machine::Config { sanitize: false, ..plan.config.clone() };
    let mut machine = Machine::new(config).map_err(plan::config_error)?;
    machine.cpu.mem.watch_lines(&questions);
    let again = |e| Failure::Host(format!("--sanitize-origins: cannot repeat the run: {e}"));
    session::start(&mut machine, plan).map_err(again)?;
    plan.inject.arm_again(&mut machine);
    let mut typed = typed.iter();
    let mut next = typed.next();
    while machine.cpu.icount() < end {
        let time = next.map_or(VirtualTime(u64::MAX), |(time, _)| *time);
        let exit = machine.run_until(end, time);
        discard_output(&mut machine);
        match exit {
            Exit::Time | Exit::Halted { interrupts: true } => {
                let Some((_, bytes)) = next.filter(|(time, _)| machine.cpu.now() >= *time) else { break };
                machine.type_in(bytes);
                next = typed.next();
            }
            Exit::Reset(ResetKind::Init) if machine.init() => {}
            Exit::Reset(kind) if plan.reboot => {
                machine.reset(session::platform_reset(kind));
                session::power_on(&mut machine, plan).map_err(again)?;
            }
            Exit::Icount | Exit::Breakpoint | Exit::Hazard | Exit::Marker(_) => {}
            _ => break,
        }
    }

    let found = machine.cpu.mem.take_watched();
    let last = |question: WatchedLine, writes: bool| {
        let about = found.iter().filter(|f| f.watched == question && f.site.operation.writes() == writes);
        about.max_by_key(|f| f.site.icount).map(|f| f.site)
    };
    Ok(questions.iter().map(|q| [last(*q, true), last(*q, false)]).collect())
}

/// Nobody reads it twice, and it must not pile up.
fn discard_output(machine: &mut Machine) {
    let mut chipset = machine.chipset();
    chipset.take_serial_output();
    chipset.take_debug_console_output();
    chipset.take_unclaimed_accesses();
}
