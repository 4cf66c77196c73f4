//! Chapter 3: one page frame under four KeyIDs.

use super::{Machine, keyid, line};
use crate::mktme::LINE_BYTES;
use crate::paging::{self, Windows};
use crate::report::Report;
use crate::say;

const NOTE: [u8; LINE_BYTES] = line("Before any key is programmed, all KeyIDs share KeyID 0's key.");

#[inline(never)]
pub fn run(report: &mut Report, machine: &Machine) -> Windows {
    report.chapter("One page of memory, four KeyIDs (page tables)");
    let windows = paging::map(machine.layout);
    let frame = paging::frame();
    say!("   The page at physical address {frame:#x} gets four page-table entries, which");
    say!("   differ only in the KeyID bits: four doors to the same 4096 bytes of memory.");
    for window in windows.iter() {
        say!("     address {:#x} -> entry {:#018x}: KeyID {}", window.linear, window.entry, window.keyid);
    }
    report.check(paging::is_loaded(), format_args!("The new page tables are in use (CR3)."));

    if machine.frame_is_excluded() {
        report.not_shown(format_args!("KeyIDs without a key: KeyID 0 does not encrypt this page."));
        return windows;
    }
    windows.flush_all();
    let writer = windows.through(keyid::TME);
    writer.write(0, &NOTE);
    writer.flush(0);
    let same = windows.iter().all(|window| window.read(0) == NOTE);
    report.check(same, format_args!("What KeyID 0 wrote reads the same through 1 to 3: they have no key."));
    windows.flush_all();
    windows
}
