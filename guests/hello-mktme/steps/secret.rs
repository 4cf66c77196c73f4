//! Chapter 5: plaintext through the right KeyID, noise through the others.

use super::{Machine, all_blocks_differ, keyid, line};
use crate::mktme::LINE_BYTES;
use crate::paging::Windows;
use crate::report::{Report, dump};
use crate::say;

const SECRET: [u8; LINE_BYTES] = line("The treasure lies under the third oak north of the old windmill.");

#[inline(never)]
pub fn run(report: &mut Report, machine: &Machine, windows: &Windows) {
    report.chapter("A secret, and who can read it");
    let [tme, direct, random, plain] =
        [keyid::TME, keyid::DIRECT, keyid::RANDOM, keyid::PLAIN].map(|keyid| windows.through(keyid));

    // No copy of the line, whatever its KeyID, may be left in the cache: each read below is to come from memory.
    windows.flush_all();
    direct.write(0, &SECRET);
    direct.flush(0);
    say!("   A text is written through KeyID {} and flushed out of the cache (CLFLUSH), so", keyid::DIRECT);
    say!("   that it now lies in memory, encrypted. Read back through KeyID {}:", keyid::DIRECT);
    let right = direct.read(0);
    dump(&right);
    report.check(right == SECRET, format_args!("The right key gives the text back."));

    say!("   The same page through KeyID {}, whose key is another one:", keyid::RANDOM);
    let wrong = random.read(0);
    dump(&wrong);
    report.check(
        all_blocks_differ(&wrong, &SECRET),
        format_args!("A wrong key gives noise in every 16-byte block, and no error."),
    );

    say!("   Through KeyID {}, which does not encrypt. These are the memory cells, and what", keyid::PLAIN);
    say!("   someone who taps the memory bus gets to see:");
    let cells = plain.read(0);
    dump(&cells);
    report.check(all_blocks_differ(&cells, &SECRET), format_args!("Nothing of the text is in the memory cells."));

    say!("   Through KeyID 0, which everyone uses who knows nothing of KeyIDs:");
    let unaware = tme.read(0);
    dump(&unaware);
    if machine.keyid_0_is_plain() {
        report.check(
            unaware == cells,
            format_args!("KeyID 0 is not encrypted here: it shows the memory cells as they are."),
        );
    } else {
        report.check(
            all_blocks_differ(&unaware, &SECRET) && all_blocks_differ(&unaware, &cells),
            format_args!("KeyID 0 decrypts with its own key, the wrong one: more noise."),
        );
        tme.flush(0);
        report.check(
            tme.read(0) == unaware,
            format_args!("It is the same noise every time: a wrong key is still arithmetic."),
        );
    }
    windows.flush_all();
}
