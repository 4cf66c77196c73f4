//! Attacks on encrypted memory, one at a time: the command line says `story=NAME`. What goes wrong, and when, says the emulator's
//! command line (`--inject`, `--bus-trace`); this program is the victim, and for `story=alias` its neighbour as well. The
//! pages docs/attack-*.md tell the stories.
//!
//! Every story is a target for campaigns, too: marker 51H (docs/faults.md) where the attack can begin, a line `result: ...`,
//! then marker 5EH; marker D1H and exit value 4 when the program itself has noticed something.
//!
//! Boot code and single instructions are those of `guests/template`.

#![no_std]
#![no_main]

#[path = "../template/cpu.rs"]
mod cpu;
#[path = "../template/mktme.rs"]
mod mktme;
#[path = "../template/protocol.rs"]
mod protocol;
#[path = "../template/serial.rs"]
mod serial;

mod alias;
mod ciphertext;
mod detect;
mod keys;
mod options;
mod pages;
mod rowhammer;
mod upset;

use core::arch::global_asm;
use core::panic::PanicInfo;
use mktme::Machine;
use options::{Options, Story};
use protocol::Boot;

global_asm!(include_str!("../template/boot.s"));

/// What goes to the debug-exit port, F4H. The emulator's exit status is 0 for 10H, otherwise `(value << 1) | 1`.
#[derive(Clone, Copy)]
#[repr(u32)]
pub enum Verdict {
    /// The program came to its end, whatever it has read.
    Ended = 0x10,
    /// Bad options, or a panic: exit status 3.
    Failed = 1,
    /// A machine without what the story needs: exit status 5.
    Unsuitable = 2,
    /// The program has noticed something: exit status 9.
    Detected = 4,
}

const DEBUG_EXIT: u16 = 0xf4;

/// A place in the program, for triggers.
#[derive(Clone, Copy)]
#[repr(u8)]
pub enum Marker {
    Before = 0x50,
    Start = 0x51,
    Second = 0x52,
    Third = 0x53,
    End = 0x5e,
    Detected = 0xd1,
}

const MARKER: u16 = 0xe8;

pub fn marker(marker: Marker) {
    cpu::outb(MARKER, marker as u8);
}

/// What `boot.s` calls in 64-bit mode, with the EAX and EBX that the loader passed.
#[unsafe(no_mangle)]
extern "C" fn start(magic: u32, info: u32) -> ! {
    serial::init();
    detect::install();
    let boot = Boot::new(magic, info);
    let options = match Options::new(&boot.command_line()) {
        Ok(options) => options,
        Err(why) => {
            say!("attacks: command line: {why}");
            say!("attacks: accepted: {}", options::ACCEPTED);
            end(Verdict::Failed)
        }
    };
    let mut machine = match Machine::find() {
        Ok(machine) => machine,
        Err(why) => {
            say!("attacks: {why}");
            end(Verdict::Unsuitable)
        }
    };
    let integrity = options.integrity && keys::use_integrity(&mut machine);
    say!("attacks: {}, loaded by {}, {} KeyIDs", options.story.name(), boot.protocol(), machine.keyids());
    say!("attacks: keys {} integrity", if integrity { "with" } else { "without" });
    end(match options.story {
        Story::Ciphertext => ciphertext::run(&machine, options.nonce),
        Story::Alias => alias::run(&machine, options.check),
        Story::Rowhammer => rowhammer::run(&machine),
        Story::Upset => upset::run(&machine),
    })
}

/// Says what was noticed, and ends.
pub fn detected(what: core::fmt::Arguments<'_>) -> ! {
    say!("detected: {what}");
    marker(Marker::Detected);
    end(Verdict::Detected)
}

/// Ends the run. On a machine without the port, stops for good.
fn end(verdict: Verdict) -> ! {
    cpu::outl(DEBUG_EXIT, verdict as u32);
    cpu::halt()
}

#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    say!("attacks: {info}");
    end(Verdict::Failed)
}
