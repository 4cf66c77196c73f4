//! A guest that is run in steps, with its console and its markers.
//!
//! A step ends at the latest at the next multiple of [`GRID`] instructions. What depends on the console is looked at between steps, so
//! that it does not depend on where else a run is cut.

use crate::plan::Expression;
use machine::{Exit, Machine};
use x86::platform::ResetKind;

/// Instructions between two looks at the console.
pub const GRID: u64 = 1 << 16;

/// Longest output that is kept: a guest that floods its console says no more than one that does not.
const CONSOLE_MAX: usize = 4 << 20;

/// A machine with what its guest has said.
pub struct Guest {
    pub machine: Machine,
    /// Console output, as far as it is kept.
    pub console: Vec<u8>,
    /// Markers, and the instructions retired then.
    pub markers: Vec<(u64, u32)>,
    /// Output up to the end of the last line that was looked at.
    looked: usize,
}

/// Why a step ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stopped {
    /// The instruction count was reached.
    There,
    /// The guest wrote this marker.
    Marker(u32),
    /// The guest ended.
    Ended(End),
}

/// How a guest ends by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Power-off or debug exit, in words.
    Exit(String),
    /// It went down, in words.
    Down(String),
    /// Nothing can happen any more, in words.
    Stuck(String),
}

impl Guest {
    /// A machine that is about to run.
    pub fn new(mut machine: Machine) -> Guest {
        machine.stop_at_markers(true);
        machine.chipset().take_serial_output();
        Guest { machine, console: Vec::new(), markers: Vec::new(), looked: 0 }
    }

    /// Forgets what the guest has said: it stands elsewhere now.
    pub fn rewound(&mut self, console: &[u8]) {
        self.console.clear();
        self.console.extend_from_slice(console);
        self.looked = console.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        self.markers.clear();
        self.machine.chipset().take_serial_output();
        self.machine.stop_at_markers(true);
    }

    /// Instructions retired.
    pub fn icount(&self) -> u64 {
        self.machine.cpu.icount()
    }

    /// Runs to the next multiple of [`GRID`], or to `until` if that comes first.
    pub fn step(&mut self, until: u64) -> Stopped {
        let until = (self.icount() / GRID + 1).saturating_mul(GRID).min(until);
        let exit = self.machine.run(until);
        let said = self.machine.chipset().take_serial_output();
        let room = CONSOLE_MAX.saturating_sub(self.console.len()).min(said.len());
        self.console.extend_from_slice(&said[..room]);
        self.machine.chipset().take_debug_console_output();
        Stopped::Ended(match exit {
            Exit::Icount | Exit::Time | Exit::Breakpoint | Exit::Hazard => return Stopped::There,
            Exit::Marker(value) => {
                self.markers.push((self.icount(), value));
                return Stopped::Marker(value);
            }
            Exit::Reset(ResetKind::Init) if self.machine.init() => return Stopped::There,
            Exit::PowerOff => End::Exit("power-off".into()),
            Exit::DebugExit(value) => End::Exit(format!("debug exit {value:#x}")),
            Exit::TripleFault => End::Down("triple fault".into()),
            Exit::Reset(kind) => End::Down(format!("reset ({})", format!("{kind:?}").to_lowercase())),
            Exit::Halted { interrupts: false } => End::Stuck("HLT with interrupts disabled".into()),
            Exit::Halted { interrupts: true } => End::Stuck("HLT with nothing to wait for".into()),
        })
    }

    /// Output that was not looked at yet, up to the last end of a line; all of it if the guest has ended.
    pub fn fresh_lines(&mut self, ended: bool) -> &[u8] {
        let fresh = &self.console[self.looked..];
        let end =
            if ended { fresh.len() } else { fresh.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1) };
        let start = self.looked;
        self.looked += end;
        &self.console[start..start + end]
    }
}

/// The first line in which one of the expressions matches: the expression's number and the line.
pub fn first_match<'a>(output: &'a [u8], expressions: &[Expression]) -> Option<(usize, &'a [u8])> {
    let lines = output.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    lines
        .into_iter()
        .find_map(|line| expressions.iter().position(|expression| expression.0.is_match(line)).map(|at| (at, line)))
}
