//! A bit of the key table flips (MK specification section 9.11; docs/attack-key-table-upset.md).
//!
//! KeyID 1 has a key of this program's, KeyID 2 one of the processor's, and each has three lines: one that is only in DRAM when
//! the bit flips, one that is in the cache as well, and one that is written afterwards. KeyID 3 is not encrypted and shows
//! what the DRAM has.

use crate::keys::{self, Command};
use crate::mktme::{Key, Machine, PROG_SUCCESS};
use crate::pages::{self, Line, Window};
use crate::{Marker, Verdict, marker, say};
use core::fmt;

const PAGES: [u64; 2] = [0x80_0000, 0x80_1000];
const KEYIDS: [u16; 2] = [1, 2];
const RAW: u16 = 3;
/// Lines of a page.
const IN_DRAM: usize = 0;
const CACHED: usize = 1;
const AFTER: usize = 2;

fn text(line: usize) -> Line {
    let mut text = *b"Line 0: as long as its key is right, this is what one can read. ";
    text[5] += line as u8;
    text
}

/// What a line reads as.
#[derive(Clone, Copy, PartialEq)]
enum Seen {
    Text,
    /// What the DRAM has, as it is.
    Ciphertext,
    Noise,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Seen::Text => "text",
            Seen::Ciphertext => "ciphertext",
            Seen::Noise => "noise",
        })
    }
}

/// A page under its KeyID, and as it is.
struct Page {
    own: Window,
    raw: Window,
}

impl Page {
    fn see(&self, line: usize) -> Seen {
        match self.own.read(line) {
            bytes if bytes == text(line) => Seen::Text,
            bytes if bytes == self.raw.load(line) => Seen::Ciphertext,
            _ => Seen::Noise,
        }
    }
}

fn row(what: &str, cells: [&dyn fmt::Display; 2]) {
    say!("  {what:<36} {:<12} {}", cells[0], cells[1]);
}

/// One line of both pages, as a row.
fn see(what: &str, pages: &[Page; 2], line: usize) -> [Seen; 2] {
    let seen = pages.each_ref().map(|page| page.see(line));
    row(what, [&seen[0], &seen[1]]);
    seen
}

fn program(machine: &Machine, keyid: u16) {
    if keyid == KEYIDS[0] {
        let key = Key { data: core::array::from_fn(|i| i as u8), tweak: core::array::from_fn(|i| 0x80 + i as u8) };
        let status = machine.set_key_direct(keyid, &key);
        assert!(status == PROG_SUCCESS, "PCONFIG for KeyID {keyid}: RAX {status}");
    } else {
        keys::program(machine, keyid, Command::SetKeyRandom);
    }
}

pub fn run(machine: &Machine) -> Verdict {
    keys::program(machine, RAW, Command::NoEncrypt);
    let pages: [Page; 2] = core::array::from_fn(|n| {
        program(machine, KEYIDS[n]);
        let own = pages::map(machine, KEYIDS[n], PAGES[n]);
        own.store(IN_DRAM, &text(IN_DRAM));
        own.store(CACHED, &text(CACHED));
        own.read(CACHED);
        Page { own, raw: pages::map(machine, RAW, PAGES[n]) }
    });
    say!("  read as                              KeyID 1      KeyID 2");
    say!("  key                                  ours         random");
    marker(Marker::Start);
    let before = see("a line in DRAM", &pages, IN_DRAM);
    let cached = see("a line in the cache", &pages, CACHED);
    for page in &pages {
        page.own.store(AFTER, &text(AFTER));
        page.own.flush(CACHED);
    }
    let after = see("a line written now", &pages, AFTER);
    let dropped = see("the cached line, from DRAM", &pages, CACHED);
    let bus = pages.each_ref().map(|page| if page.raw.load(AFTER) == text(AFTER) { "text" } else { "ciphertext" });
    row("DRAM has the line written now as", [&bus[0], &bus[1]]);
    marker(Marker::Second);
    // Keys are programmed again only where something was lost.
    let damaged = before.map(|seen| seen != Seen::Text);
    for (n, page) in pages.iter().enumerate().filter(|(n, _)| damaged[*n]) {
        (IN_DRAM..=AFTER).for_each(|line| page.own.flush(line));
        program(machine, KEYIDS[n]);
    }
    let how = [("same key", "not needed"), ("another key", "not needed")];
    let how = [0, 1].map(|n| if damaged[n] { how[n].0 } else { how[n].1 });
    row("PCONFIG", [&how[0], &how[1]]);
    let repaired = see("the line in DRAM", &pages, IN_DRAM);
    let written = see("the line written before PCONFIG", &pages, AFTER);
    let intact = |n: usize| [before, cached, after, dropped, repaired, written].map(|seen| seen[n] == Seen::Text);
    let digits = |n: usize| intact(n).iter().fold(0u32, |sum, right| sum << 1 | u32::from(*right));
    say!("result: {:06b} {:06b}", digits(0), digits(1));
    marker(Marker::End);
    Verdict::Ended
}
