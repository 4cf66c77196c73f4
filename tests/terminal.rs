//! The terminal: raw mode, the escape key, and everything as it was afterwards.

mod common;

use common::{Scratch, guest};
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::Timespec;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::process::{Command, Stdio};

const COM1: u32 = 0x3F8;

/// Prints `>` and sends back what it receives, control characters as letters.
fn echo(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut wait = a.create_label();
    a.mov(edx, COM1)?;
    a.mov(al, u32::from(b'>') as i32)?;
    a.out(dx, al)?;
    a.set_label(&mut wait)?;
    a.mov(edx, COM1 + 5)?;
    a.in_(al, dx)?;
    a.test(al, 1)?;
    a.jz(wait)?;
    a.mov(edx, COM1)?;
    a.in_(al, dx)?;
    a.or(al, 0x40)?;
    a.out(dx, al)?;
    a.jmp(wait)
}

/// Reads until `text` has come.
fn read_until(terminal: &mut File, text: &str) -> String {
    let mut seen = String::new();
    while !seen.contains(text) {
        let timeout = Timespec { tv_sec: 30, tv_nsec: 0 };
        let ready =
            poll(&mut [PollFd::new(&*terminal, PollFlags::IN)], Some(&timeout)).expect("a terminal can be polled");
        assert!(ready > 0, "{text:?} does not come: {seen:?}");
        let mut buf = [0; 256];
        let n = terminal.read(&mut buf).expect("a terminal can be read");
        seen += &String::from_utf8_lossy(&buf[..n]);
    }
    seen
}

#[test]
fn keys_go_to_the_guest_and_ctrl_a_x_ends_the_run_and_restores_the_terminal() {
    let scratch = Scratch::new();
    let kernel = scratch.file("guest", guest(echo));
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudo-terminal");
    grantpt(&master).and_then(|()| unlockpt(&master)).expect("its other side");
    let name = ptsname(&master, Vec::new()).expect("its name").into_string().expect("ASCII");
    let slave = OpenOptions::new().read(true).write(true).open(name).expect("its other side");
    let before = tcgetattr(&slave).expect("a terminal");
    assert!(before.local_modes.contains(LocalModes::ICANON));

    let end = || Stdio::from(slave.try_clone().expect("a descriptor"));
    let mut child = Command::new(env!("CARGO_BIN_EXE_mktme-emu"))
        .args(["-quiet-bios", "-kernel", &kernel])
        .stdin(end())
        .stdout(end())
        .stderr(end())
        .spawn()
        .expect("the program starts");
    let mut terminal = File::from(master);
    read_until(&mut terminal, ">");
    assert!(!tcgetattr(&slave).expect("a terminal").local_modes.contains(LocalModes::ICANON));
    // An ordinary key, Ctrl-C, and one Ctrl-A.
    terminal.write_all(b"k\x03\x01\x01").expect("typed");
    read_until(&mut terminal, "kCA");
    terminal.write_all(b"\x01h").expect("typed");
    read_until(&mut terminal, "one Ctrl-A");
    terminal.write_all(b"\x01x").expect("typed");
    read_until(&mut terminal, "mktme-emu: ended from the terminal (exit status 0)");
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
    let after = tcgetattr(&slave).expect("a terminal");
    assert_eq!(after.local_modes, before.local_modes);
    assert_eq!(after.input_modes, before.input_modes);
}
