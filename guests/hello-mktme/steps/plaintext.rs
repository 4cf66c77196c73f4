//! Chapter 7: a KeyID without encryption, and the end of a key.

use super::keys::program;
use super::{Machine, all_blocks_differ, keyid, line};
use crate::mktme::{Command, KeyFields, LINE_BYTES};
use crate::paging::Windows;
use crate::report::{Report, dump};
use crate::say;

const POSTCARD: [u8; LINE_BYTES] = line("A postcard: everyone along the way can read this.");
const LETTER: [u8; LINE_BYTES] = line("A sealed letter, written before its key was thrown away.");
const NOTE: [u8; LINE_BYTES] = line("Written through KeyID 2 after CLEAR_KEY.");

pub fn run(report: &mut Report, machine: &Machine, windows: &Windows) {
    report.chapter("No encryption, and throwing a key away");
    no_encrypt(report, machine, windows);
    clear_key(report, machine, windows);

    say!("   The remaining KeyIDs are cleared as well; the machine is as it was found.");
    for keyid in [keyid::DIRECT, keyid::PLAIN] {
        program(report, machine, keyid, Command::ClearKey, &KeyFields::ZERO);
    }
}

#[inline(never)]
fn no_encrypt(report: &mut Report, machine: &Machine, windows: &Windows) {
    let [tme, direct, plain] = [keyid::TME, keyid::DIRECT, keyid::PLAIN].map(|keyid| windows.through(keyid));
    windows.flush_all();
    plain.write(0, &POSTCARD);
    plain.flush(0);
    say!("   Written through KeyID {} (KEYID_NO_ENCRYPT), flushed, and read back:", plain.keyid);
    let read = plain.read(0);
    dump(&read);
    report.check(read == POSTCARD, format_args!("The text comes back. It lies in the memory cells in clear."));

    say!("   KeyID {} decrypts what was never encrypted:", direct.keyid);
    let mangled = direct.read(0);
    dump(&mangled);
    report.check(all_blocks_differ(&mangled, &POSTCARD), format_args!("Decrypting clear text garbles it."));
    if machine.keyid_0_is_plain() {
        report
            .check(tme.read(0) == POSTCARD, format_args!("KeyID 0 is not encrypted here either, and reads the text."));
    } else {
        report.check(
            all_blocks_differ(&tme.read(0), &POSTCARD),
            format_args!("KeyID 0, with its own key, cannot read it either."),
        );
    }
    windows.flush_all();
}

#[inline(never)]
fn clear_key(report: &mut Report, machine: &Machine, windows: &Windows) {
    let [tme, direct, cleared] = [keyid::TME, keyid::DIRECT, keyid::RANDOM].map(|keyid| windows.through(keyid));
    cleared.write(0, &LETTER);
    // Written back now, under the old key: a dirty line that left the cache later would be encrypted with the new one.
    cleared.flush(0);
    say!("   A text is written through KeyID {} and flushed; then its key is thrown away.", cleared.keyid);
    if !program(report, machine, cleared.keyid, Command::ClearKey, &KeyFields::ZERO) {
        return;
    }
    report.check(
        all_blocks_differ(&cleared.read(0), &LETTER),
        format_args!("KeyID {} cannot read its own text any more.", cleared.keyid),
    );
    report.check(
        direct.read(0) == LETTER,
        format_args!("KeyID {}, which has the same key, can: memory did not change.", direct.keyid),
    );

    windows.flush_all();
    cleared.write(0, &NOTE);
    cleared.flush(0);
    if machine.frame_is_excluded() {
        report.not_shown(format_args!("a cleared KeyID: KeyID 0 does not encrypt this page."));
    } else {
        report.check(
            tme.read(0) == NOTE,
            format_args!("It uses KeyID 0's key now: KeyID 0 reads what KeyID {} writes.", cleared.keyid),
        );
    }
    windows.flush_all();
}
