//! The tour, a module per chapter. Chapters are not inlined: reports about the guest name the function (docs/symbols.md).

mod alias;
mod enumerate;
mod keys;
mod mapping;
mod plaintext;
mod registers;
mod secret;

use crate::boot::BootParams;
use crate::mktme::{Algorithm, Exclusion, KeyFields, LINE_BYTES};
use crate::paging::{self, AddressLayout, WINDOW_COUNT, Windows};
use crate::report::Report;
use crate::say;

/// KeyIDs and what the tour uses them for.
mod keyid {
    /// The platform's own key; not programmable.
    pub const TME: u16 = 0;
    /// Gets a key that software chose.
    pub const DIRECT: u16 = 1;
    /// Gets a key that the CPU chose; later the same key as `DIRECT`, as its alias; later none.
    pub const RANDOM: u16 = 2;
    /// Is told not to encrypt.
    pub const PLAIN: u16 = 3;
}

/// KeyIDs that the tour programs: 1 to 3.
const KEYIDS_NEEDED: u32 = WINDOW_COUNT as u32 - 1;

/// Blocks of AES in a line.
const BLOCK_BYTES: usize = 16;

/// What the chapters from the third on need to know.
struct Machine {
    layout: AddressLayout,
    /// KeyID 0 is stored in clear everywhere.
    bypassed: bool,
    exclusion: Exclusion,
    /// An algorithm that PCONFIG accepts and that needs no integrity support.
    algorithm: Algorithm,
    /// The key that the tour programs with KEYID_SET_KEY_DIRECT.
    direct_key: KeyFields,
}

impl Machine {
    /// Whether the frame lies in the range that firmware excluded from encryption, for KeyID 0 only.
    fn frame_is_excluded(&self) -> bool {
        !self.bypassed && self.exclusion.contains(paging::frame())
    }

    /// Whether KeyID 0 reads and writes the frame in clear.
    fn keyid_0_is_plain(&self) -> bool {
        self.bypassed || self.frame_is_excluded()
    }
}

/// The whole tour, as far as the machine allows.
pub fn tour(report: &mut Report, boot: &BootParams) {
    introduce(boot);
    let features = enumerate::run(report);
    let Some(machine) = registers::run(report, &features) else { return };
    let windows: Windows = mapping::run(report, &machine);
    if !keys::run(report, &machine) {
        report.not_shown(format_args!("the chapters that need keys, since programming them failed"));
        return;
    }
    secret::run(report, &machine, &windows);
    alias::run(report, &machine, &windows);
    plaintext::run(report, &machine, &windows);
}

fn introduce(boot: &BootParams) {
    say!();
    say!("Hello from inside the machine.");
    say!();
    say!("Memory modules can be pulled out and read, and buses can be tapped. A machine");
    say!("with TME (total memory encryption) therefore encrypts every 64-byte line on its");
    say!("way from the CPU's cache to memory, with AES-XTS and one key for everything.");
    say!("With MKTME (multi-key TME) it has a table of keys, and the topmost bits of a");
    say!("physical address are no longer part of the address: they are a number, the");
    say!("KeyID, that says which key to use.");
    say!();
    say!("This program runs on the bare CPU, tries all of that, and checks what it sees.");
    say!();
    match boot.memory() {
        Some(memory) => {
            say!("Firmware reports {} KiB of usable memory in {} range(s).", memory.bytes >> 10, memory.ranges)
        }
        None => say!("The loader passed no memory map."),
    }
    if let Some(text) = boot.command_line() {
        use core::fmt::Write;
        let mut serial = crate::serial::Serial;
        let _ = serial.write_str("Command line: ");
        text.for_each(|character| _ = serial.write_char(character));
        say!();
    }
}

/// A text as a line, filled up with spaces.
const fn line(text: &str) -> [u8; LINE_BYTES] {
    let bytes = text.as_bytes();
    let mut line = [b' '; LINE_BYTES];
    let mut index = 0;
    while index < bytes.len() {
        line[index] = bytes[index];
        index += 1;
    }
    line
}

/// Whether two lines have no 16-byte block in common: what a wrong key makes of a line.
fn all_blocks_differ(a: &[u8; LINE_BYTES], b: &[u8; LINE_BYTES]) -> bool {
    a.chunks(BLOCK_BYTES).zip(b.chunks(BLOCK_BYTES)).all(|(a, b)| a != b)
}
