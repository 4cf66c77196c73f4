//! An MKTME test kernel to start from: copy this directory, then change [`test`].
//!
//! It is loaded by Multiboot 1, Multiboot 2 or PVH, switches itself to 64-bit mode (`boot.s`), programs a key, maps one page
//! frame under two KeyIDs, and checks what each of them sees. `docs/test-kernel.md` explains it.

#![no_std]
#![no_main]

mod cpu;
mod mktme;
mod paging;
mod protocol;
mod serial;

use core::arch::global_asm;
use core::panic::PanicInfo;
use mktme::{Key, Machine};
use paging::Window;
use protocol::Boot;

global_asm!(include_str!("boot.s"));

/// What goes to the debug-exit port, F4H. The emulator's exit status is 0 for 10H, otherwise `(value << 1) | 1`.
#[derive(Clone, Copy)]
#[repr(u32)]
enum Verdict {
    Passed = 0x10,
    /// Exit status 3.
    Failed = 1,
    /// Nothing to test on this machine: exit status 5.
    NoMktme = 2,
}

const DEBUG_EXIT: u16 = 0xf4;

/// What `boot.s` calls in 64-bit mode, with the EAX and EBX that the loader passed.
#[unsafe(no_mangle)]
extern "C" fn start(magic: u32, info: u32) -> ! {
    serial::init();
    let boot = Boot::new(magic, info);
    say!("template: loaded by {}, command line \"{}\"", boot.protocol(), boot.command_line());
    let verdict = match Machine::find() {
        Ok(machine) => {
            let passed = test(&machine);
            say!("template: {}", if passed { "all checks passed" } else { "FAILED" });
            if passed { Verdict::Passed } else { Verdict::Failed }
        }
        Err(why) => {
            say!("template: nothing to test: {why}");
            Verdict::NoMktme
        }
    };
    end(verdict)
}

/// The KeyID that gets a key.
const KEYID: u16 = 1;
const SECRET: [u8; mktme::LINE_BYTES] = *b"Written through KeyID 1. Only its key makes sense of this line. ";
const NOTE: [u8; mktme::LINE_BYTES] = *b"Written through KeyID 0, which everybody has. Nothing to hide.. ";

fn test(machine: &Machine) -> bool {
    say!("template: {} KeyIDs, KeyID in physical address bits {} and up", machine.keyids(), machine.keyid_shift);
    // A key that a test can know. KEYID_SET_KEY_RANDOM would let the processor choose one.
    let key = Key { data: core::array::from_fn(|i| i as u8), tweak: core::array::from_fn(|i| 0x80 + i as u8) };
    let status = machine.set_key_direct(KEYID, &key);
    let mut passed = check(status == mktme::PROG_SUCCESS, "PCONFIG programmed KeyID 1 with a key of ours");

    let everybody = paging::map(machine, 0);
    let owner = paging::map(machine, KEYID);
    // What loader and `.bss` left dirty in the cache under KeyID 0 would be written back over the test's data.
    everybody.flush();
    owner.flush();

    owner.write(&SECRET);
    // The line is in the cache under KeyID 1. Write it back, so that memory has it.
    owner.flush();
    passed &= check(owner.read() == SECRET, "KeyID 1 reads what it wrote");
    passed &= check(everybody.read() != SECRET, "KeyID 0 reads something else from the same memory");

    // Reads leave clean copies under both KeyIDs. Those under KeyID 1 would hide what happens next.
    change(&everybody, &NOTE);
    owner.flush();
    passed &= check(everybody.read() == NOTE, "KeyID 0 reads what it wrote");
    passed & check(owner.read() != NOTE, "KeyID 1 reads something else, and its old text is gone")
}

/// Writes through a KeyID and brings the line to memory.
fn change(window: &Window, line: &[u8; mktme::LINE_BYTES]) {
    window.write(line);
    window.flush();
}

fn check(holds: bool, what: &str) -> bool {
    say!("  [{}] {what}", if holds { "PASS" } else { "FAIL" });
    holds
}

/// Ends the run. On a machine without the port, stops for good.
fn end(verdict: Verdict) -> ! {
    cpu::outl(DEBUG_EXIT, verdict as u32);
    cpu::halt()
}

#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    say!("template: {info}");
    end(Verdict::Failed)
}
