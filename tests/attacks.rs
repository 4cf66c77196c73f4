//! The victims of the embedded guest `attacks`: the tables of the pages docs/attack-*.md.

mod common;

use common::{Run, Scratch, emu};
use mem::bus_trace::{Direction, Reader, Record, Transfer, What};
use mem::{CipherLine, KeyId, PhysAddr};
use std::collections::HashSet;
use std::fs::File;

/// Exit statuses of the guest.
const ENDED: i32 = 0;
const DETECTED: i32 = 9;
/// The line that the stories are about.
const VICTIM: u64 = 0x80_0000;
const BLOCK_BYTES: usize = 16;

/// Runs a story with faults and options.
fn story(words: &str, faults: &[&str], options: &[&str]) -> Run {
    let append = format!("story={words}");
    let base = ["run", "-m", "64M", "--quiet-bios", "-kernel", "embedded:attacks", "-append", &append];
    let faults = faults.iter().flat_map(|fault| ["--inject", fault]);
    emu(base.into_iter().chain(faults).chain(options.iter().copied()))
}

fn said<'a>(run: &'a Run, prefix: &str) -> &'a str {
    let found = run.stdout.lines().find_map(|line| line.strip_prefix(prefix));
    found.unwrap_or_else(|| panic!("no `{prefix}` in {}", run.stdout))
}

/// The rows of a table whose first column starts like this.
fn rows<'a>(run: &'a Run, start: &str) -> Vec<Vec<&'a str>> {
    let found: Vec<Vec<&str>> = run
        .stdout
        .lines()
        .filter_map(|line| line.strip_prefix("  ")?.strip_prefix(start))
        .map(|rest| rest.split_whitespace().collect())
        .collect();
    assert!(!found.is_empty(), "no row `{start}` in {}", run.stdout);
    found
}

fn assert_fired(run: &Run, faults: &[&str]) {
    let fired = run.stderr.lines().filter(|line| line.starts_with("  fault ") && line.contains(": fired")).count();
    assert_eq!(fired, faults.len(), "{}", run.stderr);
}

mod side_channel {
    use super::*;

    const BITS: usize = 64;
    /// 2^61 - 1, and what is raised to the secret power.
    const P: u128 = (1 << 61) - 1;
    const BASE: u128 = 37;

    struct Observed {
        secret: String,
        result: u64,
        writes: Vec<CipherLine>,
        /// Instructions at each write.
        times: Vec<u64>,
    }

    fn observe(nonce: &str, seed: &str) -> Observed {
        let scratch = Scratch::new();
        let trace = scratch.path("trace").display().to_string();
        let run = story(&format!("ciphertext nonce={nonce}"), &[], &["--seed", seed, "--bus-trace", &trace]);
        assert_eq!(run.status, ENDED, "{}", run.stdout);
        let records = Reader::new(File::open(&trace).expect("the trace")).expect("a trace");
        let writes = records.map(|record| record.expect("a record")).filter_map(|Record { stamp, what }| match what {
            What::Transfer(Transfer { line, keyid: KeyId(1), direction: Direction::Write, ciphertext, .. })
                if line == PhysAddr(VICTIM).line() =>
            {
                Some((stamp.icount, ciphertext.expect("all bytes are recorded")))
            }
            _ => None,
        });
        let (times, writes) = writes.unzip();
        let result = u64::from_str_radix(said(&run, "result: "), 16).expect("a number");
        Observed { secret: said(&run, "secret: ").to_owned(), result, writes, times }
    }

    /// What is concluded from whether a part of the line is what it was before the first exchange of each bit.
    fn recover(writes: &[CipherLine], part: std::ops::Range<usize>) -> String {
        let exchanges = writes.windows(2).step_by(3).take(BITS);
        exchanges.map(|pair| if pair[0].0[part.clone()] == pair[1].0[part.clone()] { '0' } else { '1' }).collect()
    }

    fn power(exponent: &str) -> u64 {
        exponent.bytes().fold(1, |power, bit| {
            let square = power * power % P;
            if bit == b'1' { square * BASE % P } else { square }
        }) as u64
    }

    #[test]
    fn ciphertext_tells_the_secret_unless_each_block_has_a_nonce() {
        let mut secrets = HashSet::new();
        for seed in ["0", "1", "2"] {
            for nonce in ["none", "other", "same"] {
                let seen = observe(nonce, seed);
                assert_eq!(seen.writes.len(), 1 + 3 * BITS, "{nonce}");
                assert_eq!(seen.result, power(&seen.secret), "{nonce}: the computation is right");
                let blocks = [0, 1].map(|n| recover(&seen.writes, n * BLOCK_BYTES..(n + 1) * BLOCK_BYTES));
                let all_ones = "1".repeat(BITS);
                let whole = recover(&seen.writes, 0..mem::LINE_BYTES);
                match nonce {
                    "none" => assert_eq!([&blocks[0], &blocks[1], &whole], [&seen.secret; 3]),
                    "other" => {
                        assert_eq!([&blocks[0], &blocks[1]], [&seen.secret; 2]);
                        assert_eq!(whole, all_ones, "no line is written twice");
                    }
                    _ => assert_eq!([&blocks[0], &blocks[1], &whole], [&all_ones; 3]),
                }
                secrets.insert(seen.secret);
            }
        }
        assert_eq!(secrets.len(), 3, "one for each seed");
    }

    #[test]
    fn the_ladder_takes_the_same_time_for_every_bit() {
        let seen = observe("none", "3");
        let steps: Vec<u64> = seen.times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        for kind in 0..3 {
            // The first store of all is no step of the loop.
            let times: HashSet<u64> = steps.iter().skip(3 + kind).step_by(3).copied().collect();
            assert_eq!(times.len(), 1, "{times:?}");
        }
        assert!(seen.secret.contains("01") && seen.secret.contains("10"), "both bits occur");
    }

    #[test]
    fn the_option_repeats_says_which_write_had_a_block_first() {
        let scratch = Scratch::new();
        let trace = scratch.path("trace").display().to_string();
        let run = story("ciphertext", &[], &["--bus-trace", &trace, "--seed", "5"]);
        let secret = said(&run, "secret: ");
        let shown = emu(["bus-trace", &trace, "--repeats", "0x800000"]);
        assert_eq!((shown.status, shown.stderr.as_str()), (0, ""));
        let rows: Vec<Vec<&str>> = shown.stdout.lines().skip(1).map(|l| l.split_whitespace().collect()).collect();
        assert_eq!(rows.len(), 1 + 3 * BITS);
        let concluded: String = rows
            .windows(2)
            .step_by(3)
            .take(BITS)
            .map(|pair| if pair[0][3..5] == pair[1][3..5] { '0' } else { '1' })
            .collect();
        assert_eq!(concluded, secret);
        // Blocks 2 and 3 are zeros at all times.
        assert!(rows.iter().all(|row| row[2] == "1" && row[5..] == ["0", "0"]));
        let none = emu(["bus-trace", &trace, "--repeats", "0x3000000"]);
        assert_eq!((none.status, none.stdout.lines().count()), (0, 1));

        let bare = scratch.path("bare").display().to_string();
        story("ciphertext", &[], &["--bus-trace", &bare, "--bus-trace-ciphertext", "off"]);
        for (file, address, part) in
            [(&trace, "0x800010", "accepted: a multiple of 64"), (&bare, "0x800000", "accepted: a trace without")]
        {
            let refused = emu(["bus-trace", file, "--repeats", address]);
            assert_eq!((refused.status, refused.stdout.as_str()), (2, ""), "{}", refused.stderr);
            assert!(refused.stderr.contains(part), "{}", refused.stderr);
        }
    }
}

#[test]
fn aliases_bring_back_an_old_account_and_the_check_at_boot_finds_only_those_of_boot() {
    const ALIAS: &str = "alias mask=0x1000000";
    let boot = &format!("{ALIAS} at=icount:0");
    let later = &format!("{ALIAS} at=marker:0x51");
    let briefly = &format!("{ALIAS} at=marker:0x51 for=icount:5000");
    let other_bit = &format!("{} at=marker:0x51", ALIAS.replace("0x1000000", "0x2000000"));
    let replay = &format!("replay line={VICTIM:#x} since=marker:0x51 at=marker:0x52");
    let too_late = &format!("{ALIAS} at=marker:0x52");
    let (old, new) = ("1000 1", "10 2");
    // Firmware's check, fault, result, and what the second check finds.
    for (check, fault, result, afterwards) in [
        ("on", None, new, "none"),
        ("off", Some(boot), old, "24"),
        ("on", Some(later), old, "24"),
        ("on", Some(briefly), old, "none"),
        ("on", Some(replay), old, "none"),
        // Not the neighbour's bit.
        ("on", Some(other_bit), new, "25"),
    ] {
        let faults: Vec<&str> = fault.into_iter().map(String::as_str).collect();
        let run = story(&format!("alias check={check}"), &faults, &[]);
        assert_eq!(run.status, ENDED, "{faults:?}: {}", run.stdout);
        assert_fired(&run, &faults);
        let first =
            if check == "on" { "address bits that make no difference: none" } else { "does not look for aliases" };
        assert_eq!(said(&run, "firmware: "), first);
        assert_eq!(rows(&run, "before it pays"), [["1000", "1", "right"]]);
        assert_eq!(rows(&run, "after it has paid 990"), [["10", "2", "right"]]);
        let account: Vec<&str> = result.split(' ').chain(["right"]).collect();
        assert_eq!(rows(&run, "after its neighbour's store"), [account], "{faults:?}");
        assert_eq!(said(&run, "result: "), result, "{faults:?}");
        assert_eq!(said(&run, "address bits that make no difference now: "), afterwards, "{faults:?}");
    }
    // What the neighbour has is then not the victim's ciphertext, or not at the victim's line.
    let splice = &format!("splice line={VICTIM:#x} from=0x1800000 at=marker:0x52");
    for fault in [too_late, splice] {
        let run = story("alias", &[fault], &[]);
        assert_eq!(run.status, DETECTED, "{fault}: {}", run.stdout);
        assert_eq!(rows(&run, "after its neighbour's store"), [["noise"]], "{fault}");
        assert_eq!(said(&run, "detected: "), "checksum of the account");
    }
    // Bits that the program itself can do without.
    for (mask, bits) in [("0x1000000", "24"), ("0x2000000", "25"), ("0x3800000", "23, 24, 25")] {
        let run = story("alias", &[&format!("alias mask={mask} at=icount:0")], &[]);
        assert_eq!(run.status, DETECTED, "{mask}: {}", run.stdout);
        assert_eq!(said(&run, "firmware: address bits that make no difference: "), bits);
        assert!(!run.stdout.contains("result: "));
    }
}

/// Wrong bits of each block: four reads of the encrypted record, four of the one in clear.
fn wrong_bits(run: &Run) -> [Vec<Vec<u32>>; 2] {
    assert_eq!(run.status, ENDED, "{}", run.stdout);
    let reads = [
        "the first read, from DRAM",
        "the second, from the cache",
        "the third, from DRAM again",
        "what was written anew",
    ];
    ["encrypted", "in clear"].map(|record| {
        let row = |read: &&str| {
            let rows = rows(run, read);
            let words = rows.iter().find(|words| words.join(" ").starts_with(record)).expect("the record's row");
            let numbers = words.iter().rev().take(4).rev();
            numbers.map(|word| word.parse().expect("a number")).collect()
        };
        reads.iter().map(row).collect()
    })
}

#[test]
fn a_flip_costs_one_block_of_ciphertext_or_one_bit_of_plaintext_and_no_exception() {
    const NOTHING: [u32; 4] = [0; 4];
    for (bits, blocks) in [("0", &[0][..]), ("77", &[0]), ("130", &[1]), ("500", &[3]), ("3,200,201", &[0, 1])] {
        // The marker of the flip, and the reads that see it.
        for (marker, seen) in [("0x50", &[][..]), ("0x51", &[0, 1, 2]), ("0x52", &[2])] {
            let faults =
                [VICTIM, VICTIM + 0x1000].map(|line| format!("dram-flip line={line:#x} bit={bits} at=marker:{marker}"));
            let faults = faults.each_ref().map(String::as_str);
            let run = story("rowhammer", &faults, &[]);
            assert_fired(&run, &faults);
            let [encrypted, clear] = wrong_bits(&run);
            for read in 0..4 {
                if !seen.contains(&read) {
                    assert_eq!([&encrypted[read], &clear[read]], [&NOTHING; 2], "{bits} {marker}: read {read}");
                    continue;
                }
                for (block, &wrong) in encrypted[read].iter().enumerate() {
                    let expected = if blocks.contains(&block) { 30..99 } else { 0..1 };
                    assert!(expected.contains(&wrong), "{bits} {marker}: {wrong} bits of block {block}");
                }
                let flipped = bits.split(',').count() as u32;
                assert_eq!(clear[read].iter().sum::<u32>(), flipped, "{bits} {marker}");
            }
            let sums = [&encrypted[2], &clear[2]].map(|blocks| blocks.iter().sum::<u32>());
            assert_eq!(said(&run, "result: "), format!("{} {}", sums[0], sums[1]));
        }
    }
}

/// The rows of `story=upset` for a KeyID, in the order of the table.
fn upset(run: &Run, keyid: usize) -> [String; 8] {
    assert_eq!(run.status, ENDED, "{}", run.stdout);
    [
        "a line in DRAM",
        "a line in the cache",
        "a line written now",
        "the cached line, from DRAM",
        "DRAM has the line written now as",
        "PCONFIG",
        "the line in DRAM",
        "the line written before PCONFIG",
    ]
    .map(|start| {
        // Columns are 13 wide; some words have blanks.
        let line = run.stdout.lines().find(|line| line.starts_with(&format!("  {start}  "))).expect("the row");
        let cells = [&line[39..51], &line[52..]];
        cells[keyid - 1].trim().to_owned()
    })
}

#[test]
fn an_upset_of_a_key_loses_what_is_in_dram_and_only_a_known_key_brings_it_back() {
    const HEALTHY: [&str; 8] = ["text", "text", "text", "text", "ciphertext", "not needed", "text", "text"];
    let lost = |seen, bus, pconfig, repaired| [seen, "text", "text", seen, bus, pconfig, repaired, "noise"];
    let undisturbed = story("upset", &[], &[]);
    for keyid in [1, 2] {
        assert_eq!(upset(&undisturbed, keyid), HEALTHY);
    }
    assert_eq!(said(&undisturbed, "result: "), "111111 111111");
    for keyid in [1, 2] {
        // A key of ours comes back; one of the processor's does not.
        let (pconfig, repaired, digits) =
            if keyid == 1 { ("same key", "text", "011010") } else { ("another key", "noise", "011000") };
        for (field, bit, seen, bus) in [
            ("k1", 5, "noise", "ciphertext"),
            ("k1", 127, "noise", "ciphertext"),
            ("k2", 64, "noise", "ciphertext"),
            ("mode", 0, "ciphertext", "text"),
        ] {
            let fault = format!("key-flip keyid={keyid} field={field} bit={bit} at=marker:0x51");
            let run = story("upset", &[&fault], &[]);
            assert_fired(&run, &[&fault]);
            assert_eq!(upset(&run, keyid), lost(seen, bus, pconfig, repaired), "{fault}");
            assert_eq!(upset(&run, 3 - keyid), HEALTHY, "{fault}: the other KeyID");
            let results: Vec<&str> = said(&run, "result: ").split(' ').collect();
            assert_eq!((results[keyid - 1], results[2 - keyid]), (digits, "111111"), "{fault}");
        }
    }
}

#[test]
fn every_story_has_the_markers_of_a_campaign_in_their_order() {
    for (name, line) in [("ciphertext", "0x51"), ("alias", "0x51"), ("rowhammer", "0x51"), ("upset", "0x51")] {
        // Nothing is written back there; the summary says when the markers came.
        let [start, end] = [line, "0x5e"].map(|at| format!("write-back-drop line=0x3ffffc0 at=marker:{at} for=1"));
        let run = story(name, &[&start, &end], &[]);
        assert_eq!(run.status, ENDED, "{}", run.stdout);
        let triggered = run.stderr.lines().filter_map(|line| line.split(": triggered at instruction ").nth(1));
        let times: Vec<u64> =
            triggered.map(|rest| rest.split(' ').next().and_then(|word| word.parse().ok()).expect("a count")).collect();
        assert!(times.len() == 2 && times[0] < times[1], "{name}: {}", run.stderr);
        assert!(run.stdout.contains("\nresult: "), "{name}");
    }
}

#[test]
fn what_the_guest_cannot_do_it_says() {
    for (append, options, status, part) in [
        ("", &[][..], 3, "attacks: command line: no story"),
        ("story=none", &[], 3, "accepted: story=ciphertext|alias|rowhammer|upset"),
        ("story=upset color=red", &[], 3, "unknown option"),
        ("story=upset", &["--tme-profile", "none"], 5, "attacks: the processor has no TME"),
        ("story=upset", &["--tme", "off"], 5, "attacks: firmware did not enable TME"),
    ] {
        let base = ["run", "--quiet-bios", "-kernel", "embedded:attacks", "-append", append];
        let run = emu(base.iter().chain(options));
        assert_eq!(run.status, status, "{append}: {}", run.stdout);
        assert!(run.stdout.contains(part), "{append}: {}", run.stdout);
    }
    let unknown = emu(["run", "-kernel", "embedded:nothing"]);
    assert_eq!(unknown.status, 2);
    assert!(unknown.stderr.contains("accepted: embedded:hello-mktme, embedded:template, embedded:attacks"));
    // By any of its protocols.
    for protocol in ["multiboot", "multiboot2", "pvh"] {
        let run = story("upset", &[], &["--protocol", protocol]);
        assert_eq!(said(&run, "result: "), "111111 111111", "{protocol}: {}", run.stdout);
    }
}

/// Keys with a MAC for every line (`--integrity on`).
mod with_integrity {
    use super::*;

    fn story(words: &str, faults: &[&str]) -> Run {
        let run = super::story(words, faults, &["--integrity", "on"]);
        assert!(run.stdout.contains("\nattacks: keys with integrity\n"), "{}", run.stdout);
        assert_fired(&run, faults);
        run
    }

    fn assert_machine_check(run: &Run, fault: &str) {
        assert_eq!(run.status, DETECTED, "{fault}: {}", run.stdout);
        assert_eq!(said(run, "detected: "), "#MC", "{fault}");
        assert!(!run.stdout.contains("result: "), "{fault}: {}", run.stdout);
    }

    #[test]
    fn nothing_is_detected_where_nothing_is_wrong() {
        for (words, result) in [("alias", "10 2"), ("rowhammer", "0 0"), ("upset", "111111 111111")] {
            assert_eq!(said(&story(words, &[]), "result: "), result);
        }
    }

    #[test]
    fn a_flip_in_dram_is_a_machine_check_when_the_line_is_read() {
        for bits in ["0", "77", "511", "3,200,201"] {
            let flip = |line: u64, marker| format!("dram-flip line={line:#x} bit={bits} at=marker:{marker}");
            let in_dram = flip(VICTIM, "0x51");
            let run = story("rowhammer", &[&in_dram]);
            assert_machine_check(&run, &in_dram);
            assert!(!run.stdout.contains("the first read"), "{}", run.stdout);
            let cached = flip(VICTIM, "0x52");
            let run = story("rowhammer", &[&cached]);
            assert_machine_check(&run, &cached);
            assert_eq!(rows(&run, "the second, from the cache").len(), 2);
            let replaced = flip(VICTIM, "0x50");
            assert_eq!(said(&story("rowhammer", &[&replaced]), "result: "), "0 0");
            // A KeyID without encryption has no MAC.
            let clear = flip(VICTIM + 0x1000, "0x51");
            let flipped = bits.split(',').count();
            assert_eq!(said(&story("rowhammer", &[&clear]), "result: "), format!("0 {flipped}"));
        }
    }

    #[test]
    fn a_neighbour_is_noticed_and_a_replay_with_its_mac_is_not() {
        for fault in [
            "alias mask=0x1000000 at=marker:0x51",
            "alias mask=0x1000000 at=marker:0x51 for=icount:5000",
            "splice line=0x800000 from=0x1800000 at=marker:0x52",
        ] {
            assert_machine_check(&story("alias", &[fault]), fault);
        }
        let replay = "replay line=0x800000 since=marker:0x51 at=marker:0x52";
        assert_eq!(said(&story("alias", &[replay]), "result: "), "1000 1");
    }

    #[test]
    fn a_mac_covers_the_tweak_key_and_not_the_data_key() {
        for keyid in [1, 2] {
            let flip = |field| format!("key-flip keyid={keyid} field={field} bit=0 at=marker:0x51");
            for field in ["k2", "mode"] {
                assert_machine_check(&story("upset", &[&flip(field)]), &flip(field));
            }
            let run = story("upset", &[&flip("k1")]);
            if keyid == 1 {
                assert_eq!(said(&run, "result: "), "011010 111111");
            } else {
                // Another random key has another tweak key.
                assert_machine_check(&run, &flip("k1"));
                assert_eq!(rows(&run, "the cached line, from DRAM"), [["text", "noise"]]);
            }
        }
    }
}
