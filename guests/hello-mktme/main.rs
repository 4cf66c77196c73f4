//! A guided tour of TME and MKTME, from inside the machine.
//!
//! A freestanding 64-bit program. The loader enters it like a Linux kernel image; it talks on the serial port COM1, checks
//! every claim that it makes, and ends by writing its verdict to the debug-exit port (see `exit`). `docs/embedded-guest.md`
//! describes what it shows.

#![no_std]
#![no_main]

mod boot;
mod cpu;
mod exception;
mod exit;
mod mktme;
mod paging;
mod report;
mod serial;
mod steps;

use core::arch::global_asm;
use core::panic::PanicInfo;

use boot::BootParams;
use exit::Verdict;
use report::Report;

global_asm!(include_str!("entry.s"));

/// What `entry.s` calls, on the guest's own stack with SSE enabled. `zero_page` is the RSI that the loader passed.
#[unsafe(no_mangle)]
extern "C" fn start(zero_page: u64) -> ! {
    serial::init();
    exception::install();

    let mut report = Report::new();
    steps::tour(&mut report, &BootParams::at(zero_page));
    report.summary();
    exit::end(if report.failed() == 0 { Verdict::Success } else { Verdict::CheckFailed })
}

#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    say!();
    say!("The guest program gave up: {info}");
    exit::end(Verdict::Panic)
}
