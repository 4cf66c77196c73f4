//! How a run ends, and the exit status that says so.
//!
//! The statuses are even: the debug-exit port makes all the odd ones, and 0.

use machine::Exit;
use mem::HazardKind;
use std::fmt;
use thiserror::Error;
use x86::platform::ResetKind;

/// Exit statuses that are not the guest's own.
pub mod status {
    /// Power-off, debug exit with [`super::DEBUG_EXIT_SUCCESS`], or the user's Ctrl-A X.
    pub const SUCCESS: u8 = 0;
    /// Bad usage or bad input; nothing has run.
    pub const USAGE: u8 = 2;
    /// The guest's processor shut down.
    pub const TRIPLE_FAULT: u8 = 4;
    /// HLT with nothing that could end it.
    pub const HALTED: u8 = 6;
    /// Reset with `-no-reboot`.
    pub const RESET: u8 = 8;
    /// `--until icount:` or `pc:`, `--savevm` with `,stop`.
    pub const STOPPED: u8 = 10;
    /// `--until console:`.
    pub const CONSOLE: u8 = 12;
    /// The host failed: a file could not be written, say.
    pub const HOST: u8 = 14;
    /// SIGINT, SIGTERM or SIGHUP.
    pub const SIGNAL: u8 = 16;
    /// The guest ended well, but before the `--input` script did.
    pub const SCRIPT: u8 = 18;
    /// `--sanitize=stop`: a hazard.
    pub const HAZARD: u8 = 20;
    /// The guest ended well, but before the place of a `--savevm`.
    pub const NOT_SAVED: u8 = 22;
}

/// The debug-exit value that means success; every other value `v` becomes status `(v << 1) | 1`.
pub const DEBUG_EXIT_SUCCESS: u32 = 0x10;

/// Why the run is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    PowerOff,
    DebugExit(u32),
    TripleFault,
    /// Shutdown by a machine check that could not be delivered. `nested`: another one was in progress; else CR4.MCE was 0.
    MachineCheck {
        nested: bool,
    },
    /// `interrupts`: RFLAGS.IF was set, but no timer was armed and no input can come.
    Halted {
        interrupts: bool,
    },
    Reset(ResetKind),
    Icount(u64),
    Pc(u64),
    /// The regular expression that matched.
    Console(String),
    Quit,
    Signal,
    /// The guest ended with success, but this step of the script still waited.
    ScriptUnfinished(String),
    /// The value of the `--savevm` that ended the run.
    Saved(String),
    /// The guest ended with success, but before this `--savevm`.
    NotSaved(String),
    /// The first hazard, and where, with `--sanitize=stop`.
    Hazard {
        kind: HazardKind,
        place: String,
    },
}

impl Outcome {
    /// What a machine's exit means if nobody handles it. `None`: the run goes on.
    pub fn of(exit: Exit) -> Option<Outcome> {
        match exit {
            Exit::Icount | Exit::Time | Exit::Breakpoint | Exit::Hazard | Exit::Marker(_) => None,
            Exit::PowerOff => Some(Outcome::PowerOff),
            Exit::Reset(kind) => Some(Outcome::Reset(kind)),
            Exit::DebugExit(value) => Some(Outcome::DebugExit(value)),
            Exit::TripleFault => Some(Outcome::TripleFault),
            Exit::Halted { interrupts } => Some(Outcome::Halted { interrupts }),
        }
    }

    /// The process's exit status.
    pub fn status(&self) -> u8 {
        match self {
            Outcome::PowerOff | Outcome::Quit | Outcome::DebugExit(DEBUG_EXIT_SUCCESS) => status::SUCCESS,
            // An exit status has eight bits.
            Outcome::DebugExit(value) => (value << 1 | 1) as u8,
            Outcome::TripleFault | Outcome::MachineCheck { .. } => status::TRIPLE_FAULT,
            Outcome::Halted { .. } => status::HALTED,
            Outcome::Reset(_) => status::RESET,
            Outcome::Icount(_) | Outcome::Pc(_) | Outcome::Saved(_) => status::STOPPED,
            Outcome::Console(_) => status::CONSOLE,
            Outcome::Signal => status::SIGNAL,
            Outcome::ScriptUnfinished(_) => status::SCRIPT,
            Outcome::NotSaved(_) => status::NOT_SAVED,
            Outcome::Hazard { .. } => status::HAZARD,
        }
    }

    /// The registers say why: the guest did not mean to end like this.
    pub fn wants_dump(&self) -> bool {
        matches!(self, Outcome::TripleFault | Outcome::MachineCheck { .. } | Outcome::Halted { .. })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::PowerOff => write!(f, "power-off"),
            Outcome::DebugExit(value) => write!(f, "debug exit, value {value:X}H"),
            Outcome::TripleFault => write!(f, "triple fault: an exception while a double fault was being delivered"),
            Outcome::MachineCheck { nested: false } => {
                write!(f, "shutdown: a machine check (use of poisoned memory) with CR4.MCE = 0")
            }
            Outcome::MachineCheck { nested: true } => {
                write!(f, "shutdown: a machine check (use of poisoned memory) while another one was in progress")
            }
            Outcome::Halted { interrupts: false } => {
                write!(f, "halted for good: HLT with interrupts disabled (RFLAGS.IF = 0)")
            }
            Outcome::Halted { interrupts: true } => {
                write!(f, "halted for good: HLT with no timer armed and no input to come")
            }
            Outcome::Reset(kind) => write!(f, "reset ({})", kind_name(*kind)),
            Outcome::Icount(n) => write!(f, "stopped at instruction {n} (--until icount)"),
            Outcome::Pc(rip) => write!(f, "stopped before the instruction at {rip:#x} (--until pc)"),
            Outcome::Console(regex) => write!(f, "console output matched {regex:?} (--until console)"),
            Outcome::Saved(what) => write!(f, "stopped where the snapshot was taken (--savevm {what})"),
            Outcome::NotSaved(what) => write!(f, "the guest ended before the place of --savevm {what}"),
            Outcome::Quit => write!(f, "ended from the terminal"),
            Outcome::Signal => write!(f, "ended by a signal"),
            Outcome::Hazard { kind, place } => write!(f, "stopped at {kind} in {place} (--sanitize=stop)"),
            Outcome::ScriptUnfinished(step) => {
                write!(f, "the guest ended, but the --input script still waits at {step}")
            }
        }
    }
}

/// The kind in words.
pub fn kind_name(kind: ResetKind) -> &'static str {
    match kind {
        ResetKind::Cold => "cold",
        ResetKind::Warm => "warm",
        ResetKind::Init => "INIT",
    }
}

/// Why there is no outcome.
#[derive(Debug, Error)]
pub enum Failure {
    /// What the user asked for is impossible. The message names the option and what would be accepted.
    #[error("{0}")]
    Usage(String),
    /// The host let us down after the run had started.
    #[error("{0}")]
    Host(String),
}

impl Failure {
    /// A usage error from anything that prints itself.
    pub fn usage(e: impl fmt::Display) -> Failure {
        Failure::Usage(e.to_string())
    }

    pub fn status(&self) -> u8 {
        match self {
            Failure::Usage(_) => status::USAGE,
            Failure::Host(_) => status::HOST,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_debug_exit_value_looks_like_one_of_our_statuses() {
        for value in (0..600).chain([u32::MAX, 1 << 31]) {
            let status = Outcome::DebugExit(value).status();
            assert!(if value == DEBUG_EXIT_SUCCESS { status == 0 } else { status % 2 == 1 }, "{value:#x}");
        }
        for outcome in [Outcome::TripleFault, Outcome::Halted { interrupts: true }, Outcome::Icount(1), Outcome::Signal]
        {
            assert!(outcome.status() % 2 == 0 && outcome.status() > status::USAGE);
        }
    }
}
