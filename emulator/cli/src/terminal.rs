//! The host's terminal in raw mode, and the keys that are not the guest's.

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::Timespec;
use rustix::io::Errno;
use rustix::termios::{OptionalActions, OutputModes, Termios, tcgetattr, tcsetattr};
use std::io;
use std::sync::Mutex;
use std::time::Duration;

/// Settings to go back to, wherever the program ends.
static SAVED: Mutex<Option<Termios>> = Mutex::new(None);

/// Raw mode until dropped.
pub struct RawMode(());

impl RawMode {
    /// Switches standard input's terminal. `None`: it is not a terminal.
    pub fn enter() -> Option<RawMode> {
        let saved = tcgetattr(io::stdin()).ok()?;
        let mut raw = saved.clone();
        raw.make_raw();
        // Line feeds still return the carriage: our own messages end in a bare one.
        raw.output_modes |= OutputModes::OPOST | OutputModes::ONLCR;
        if let Ok(mut slot) = SAVED.lock() {
            *slot = Some(saved);
        }
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            restore();
            hook(info);
        }));
        tcsetattr(io::stdin(), OptionalActions::Now, &raw).ok()?;
        Some(RawMode(()))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

fn restore() {
    if let Ok(mut slot) = SAVED.try_lock()
        && let Some(saved) = slot.take()
    {
        // There is nobody left to tell.
        let _ = tcsetattr(io::stdin(), OptionalActions::Drain, &saved);
    }
}

/// What standard input had.
#[derive(Debug, PartialEq, Eq)]
pub enum Read {
    Bytes(usize),
    Nothing,
    End,
}

/// Waits for standard input for at most `timeout` (`None`: for ever, or until a signal) and reads what is there.
pub fn read_stdin(timeout: Option<Duration>, buf: &mut [u8]) -> Read {
    let stdin = io::stdin();
    let mut fds = [PollFd::new(&stdin, PollFlags::IN)];
    let timeout = timeout.map(|t| Timespec { tv_sec: t.as_secs() as _, tv_nsec: i64::from(t.subsec_nanos()) as _ });
    match poll(&mut fds, timeout.as_ref()) {
        Ok(0) | Err(Errno::INTR) => return Read::Nothing,
        Ok(_) => {}
        Err(_) => return Read::End,
    }
    match rustix::io::read(&stdin, buf) {
        Ok(0) => Read::End,
        Ok(n) => Read::Bytes(n),
        Err(Errno::INTR | Errno::AGAIN) => Read::Nothing,
        Err(_) => Read::End,
    }
}

/// The prefix of our own keys.
const ESCAPE: u8 = 0x01;

/// What a key asks of us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Quit,
    Help,
}

/// Tells our own keys from the guest's.
#[derive(Debug, Default)]
pub struct Keys {
    escaped: bool,
}

impl Keys {
    /// Splits typed bytes into what the guest gets and what we are asked for.
    pub fn sort(&mut self, typed: &[u8]) -> (Vec<u8>, Vec<Action>) {
        let mut guest = Vec::new();
        let mut actions = Vec::new();
        for &byte in typed {
            if !std::mem::take(&mut self.escaped) {
                if byte == ESCAPE {
                    self.escaped = true;
                } else {
                    guest.push(byte);
                }
                continue;
            }
            match byte {
                b'x' | b'X' => actions.push(Action::Quit),
                b'h' | b'H' | b'?' => actions.push(Action::Help),
                ESCAPE | b'a' | b'A' => guest.push(ESCAPE),
                _ => {}
            }
        }
        (guest, actions)
    }
}

/// The help of Ctrl-A H.
pub const KEYS_HELP: &str = "
Ctrl-A X       end the run
Ctrl-A H       this help
Ctrl-A Ctrl-A  send one Ctrl-A
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_are_ours_and_everything_else_is_the_guests() {
        let mut keys = Keys::default();
        assert_eq!(keys.sort(b"ls\r\x03"), (b"ls\r\x03".to_vec(), vec![]));
        assert_eq!(keys.sort(b"a\x01"), (b"a".to_vec(), vec![]));
        assert_eq!(keys.sort(b"\x01b"), (b"\x01b".to_vec(), vec![]));
        assert_eq!(keys.sort(b"\x01h\x01qz\x01x"), (b"z".to_vec(), vec![Action::Help, Action::Quit]));
    }
}
