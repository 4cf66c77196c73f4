//! Chapter 6: the cache takes two KeyIDs for two memories.

use super::keys::program;
use super::{Machine, keyid, line};
use crate::mktme::{Command, LINE_BYTES};
use crate::paging::Windows;
use crate::report::{Report, dump};
use crate::say;

const OLD: [u8; LINE_BYTES] = line("Old news: the meeting is on Monday.");
const NEW: [u8; LINE_BYTES] = line("New: the meeting has been moved to Friday!");

#[inline(never)]
pub fn run(report: &mut Report, machine: &Machine, windows: &Windows) {
    report.chapter("A stale alias, and the CLFLUSH that cures it");
    say!(
        "   KeyID {} now gets the same key as KeyID {}: encryption is out of the way, both",
        keyid::RANDOM,
        keyid::DIRECT
    );
    say!("   decrypt the page correctly. What stands between them is the cache. It knows");
    say!("   lines by their whole address, KeyID included, and so takes the two for");
    say!("   different memory: neither sees what the other has not yet written back.");
    if !program(report, machine, keyid::RANDOM, Command::SetKeyDirect, &machine.direct_key) {
        return;
    }
    let (writer, reader) = (windows.through(keyid::DIRECT), windows.through(keyid::RANDOM));
    windows.flush_all();
    writer.write(0, &OLD);
    writer.flush(0);
    let before = reader.read(0);
    say!("   A text is written through KeyID {} and flushed. KeyID {} reads:", writer.keyid, reader.keyid);
    dump(&before);
    report.check(before == OLD, format_args!("Once in memory, the text is there for both."));

    writer.write(0, &NEW);
    let after_store = reader.read(0);
    say!("   KeyID {} writes a new text, without a flush. KeyID {} reads:", writer.keyid, reader.keyid);
    dump(&after_store);
    if after_store == NEW {
        report.not_shown(format_args!("a stale line: this cache has no copy per KeyID (is it off?)."));
        windows.flush_all();
        return;
    }
    report.check(
        after_store == OLD,
        format_args!("The store is not seen: KeyID {} has a copy, now stale.", reader.keyid),
    );
    report.check(writer.read(0) == NEW, format_args!("The writer itself sees its new text."));

    reader.flush(0);
    say!("   CLFLUSH through KeyID {} alone does not help:", reader.keyid);
    report.check(
        reader.read(0) == OLD,
        format_args!("It reads the old text from memory: the new one is in KeyID {}'s line.", writer.keyid),
    );
    writer.flush(0);
    say!("   CLFLUSH through KeyID {} writes the new text to memory, but:", writer.keyid);
    report.check(
        reader.read(0) == OLD,
        format_args!("KeyID {} read its line again before that, and has the old copy.", reader.keyid),
    );
    reader.flush(0);
    say!("   CLFLUSH through KeyID {} drops that copy. Now it reads:", reader.keyid);
    let cured = reader.read(0);
    dump(&cured);
    report.check(cured == NEW, format_args!("Cured: first the writer's line is flushed, then the reader's."));
    windows.flush_all();
}
