//! Where the guest's console input comes from.

use crate::console::Lines;
use crate::script::Script;
use crate::terminal::{Action, KEYS_HELP, Keys, RawMode, Read, read_stdin};
use machine::Machine;
use std::time::{Duration, Instant};

/// Bytes taken from a pipe at a time; the guest reads them from a FIFO of 16.
const PIPE_CHUNK: usize = 64;

/// One of the sources.
pub enum Input {
    None,
    /// Reproducible: depends on the guest alone.
    Script(Script),
    /// Standard input that is not a terminal. Fed while the guest's driver waits for input.
    Pipe,
    Terminal(Terminal),
}

/// A person at the keyboard.
pub struct Terminal {
    _raw: RawMode,
    keys: Keys,
    /// Time that the guest slept and the host has not, yet.
    ahead: Duration,
}

/// What came of looking at the input.
#[derive(Debug, PartialEq, Eq)]
pub enum Looked {
    /// Nothing, or something that has been typed.
    Done,
    /// The user wants to end the run.
    Quit,
}

impl Input {
    /// A terminal in raw mode if standard input is one, otherwise a pipe.
    pub fn stdin() -> Input {
        match RawMode::enter() {
            Some(raw) => Input::Terminal(Terminal { _raw: raw, keys: Keys::default(), ahead: Duration::ZERO }),
            None => Input::Pipe,
        }
    }

    /// Looks at the source between two slices. `slept`: how long the guest was idle in the last one.
    pub fn look(&mut self, machine: &mut Machine, lines: &mut Lines, slept: Duration) -> Looked {
        match self {
            Input::None => {}
            Input::Script(script) => {
                let typed = script.advance(machine.cpu.icount(), machine.cpu.now(), lines);
                type_in(machine, &typed);
            }
            Input::Pipe => {
                let wanted = {
                    let chipset = machine.chipset();
                    chipset.serial_receive_interrupt_enabled() && chipset.input_wanted()
                };
                if wanted {
                    return self.read_pipe(machine, Some(Duration::ZERO));
                }
            }
            Input::Terminal(terminal) => return terminal.look(machine, slept),
        }
        Looked::Done
    }

    /// The guest waits and nothing but input can wake it. `None`: none can come.
    pub fn wait(&mut self, machine: &mut Machine, lines: &mut Lines) -> Option<Looked> {
        match self {
            Input::None => None,
            Input::Script(script) => {
                let typed = script.advance(machine.cpu.icount(), machine.cpu.now(), lines);
                type_in(machine, &typed);
                (!typed.is_empty()).then_some(Looked::Done)
            }
            Input::Pipe => {
                let looked = self.read_pipe(machine, None);
                (!matches!(self, Input::None)).then_some(looked)
            }
            Input::Terminal(terminal) => terminal.read(machine, None),
        }
    }

    fn read_pipe(&mut self, machine: &mut Machine, timeout: Option<Duration>) -> Looked {
        let mut buf = [0; PIPE_CHUNK];
        match read_stdin(timeout, &mut buf) {
            Read::Bytes(n) => type_in(machine, &buf[..n]),
            Read::Nothing => {}
            Read::End => *self = Input::None,
        }
        Looked::Done
    }

    /// The instruction count at which a script wants to be looked at.
    pub fn awaited_icount(&self) -> Option<u64> {
        match self {
            Input::Script(script) => script.awaited_icount(),
            _ => None,
        }
    }

    /// Where a script has come to a halt.
    pub fn waits_at(&self) -> Option<String> {
        match self {
            Input::Script(script) => script.waits_at(),
            _ => None,
        }
    }
}

impl Terminal {
    /// Reads the keyboard, and sleeps for as long as the guest did. A key cuts the sleep short.
    fn look(&mut self, machine: &mut Machine, slept: Duration) -> Looked {
        self.ahead += slept;
        let before = Instant::now();
        let looked = self.read(machine, Some(self.ahead)).unwrap_or(Looked::Done);
        self.ahead = self.ahead.saturating_sub(before.elapsed());
        looked
    }

    fn read(&mut self, machine: &mut Machine, timeout: Option<Duration>) -> Option<Looked> {
        let mut buf = [0; 256];
        let n = match read_stdin(timeout, &mut buf) {
            Read::Bytes(n) => n,
            Read::Nothing => return Some(Looked::Done),
            Read::End => return None,
        };
        self.ahead = Duration::ZERO;
        let (guest, actions) = self.keys.sort(&buf[..n]);
        type_in(machine, &guest);
        if actions.contains(&Action::Help) {
            say!("{KEYS_HELP}");
        }
        Some(if actions.contains(&Action::Quit) { Looked::Quit } else { Looked::Done })
    }
}

fn type_in(machine: &mut Machine, bytes: &[u8]) {
    if !bytes.is_empty() {
        machine.type_in(bytes);
    }
}
