//! Chapter 6: the cache takes two KeyIDs for two memories.

use super::keys::program;
use super::{Machine, keyid, line};
use crate::mktme::{Command, LINE_BYTES};
use crate::paging::Windows;
use crate::report::{Report, dump};
use crate::say;

const OLD: [u8; LINE_BYTES] = line("Old news: the meeting is on Monday.");
const NEW: [u8; LINE_BYTES] = line("New: the meeting has been moved to Friday!");

pub fn run(report: &mut Report, machine: &Machine, windows: &Windows) {
    report.chapter("A stale alias, and the CLFLUSH that cures it");
    say!(
        "   KeyID {} now gets the same key as KeyID {}, so that encryption is out of the way:",
        keyid::RANDOM,
        keyid::DIRECT
    );
    say!("   both decrypt the page correctly. Only the cache stands between them. It keeps lines");
    say!("   by their whole address, KeyID included, and takes the two for different memory.");
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
    let stale = after_store == OLD;
    if !stale && after_store == NEW {
        report.not_shown(format_args!("a stale line: this machine keeps no separate copy per KeyID (cache off?)."));
    } else {
        report.check(stale, format_args!("The store is not seen: KeyID {} has its own copy, now stale.", reader.keyid));
        report.check(writer.read(0) == NEW, format_args!("The writer itself sees its new text."));
    }

    if stale {
        reader.flush(0);
        say!("   CLFLUSH through the reader's KeyID {} alone does not help:", reader.keyid);
        report.check(
            reader.read(0) == OLD,
            format_args!("Memory still has the old text; the new one is in KeyID {}'s line.", writer.keyid),
        );
        writer.flush(0);
        say!("   CLFLUSH through the writer's KeyID {} brings it to memory:", writer.keyid);
        report.check(
            reader.read(0) == OLD,
            format_args!("But KeyID {} read its line again before that, and still has the old copy.", reader.keyid),
        );
    } else {
        writer.flush(0);
    }
    reader.flush(0);
    let cured = reader.read(0);
    say!("   With the writer's line written back and the reader's line dropped, KeyID {} reads:", reader.keyid);
    dump(&cured);
    report.check(cured == NEW, format_args!("Cured: flush the writer's line, then the reader's."));
    windows.flush_all();
}
