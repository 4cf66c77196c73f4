//! Debian's Linux drives MKTME: the kernel module `guests/linux/mktme_demo` and its program, built here and run there.
//!
//! Short forms; MKTME_LONG=1 asks for the 10,000 rounds and the many trials.

mod common;

use common::linux::{assert_healthy, boot_with, kit, long, module_initrd};
use common::{Run, Scratch};
use crypto::{Algorithm, CipherLine, LINE_BYTES, XtsKey};
use std::collections::BTreeMap;
use std::fs;

const MEMORY: &str = "512M";
const PAGE_BYTES: usize = 4096;
/// What every boot of this file has.
const OPTIONS: [&str; 2] = ["--dma-device", "on"];
/// What `--sanitize` says at the end of a run without reports.
const NO_HAZARDS: &str = "sanitizer: 0 hazards";
const MISTAKES: [&str; 6] =
    ["no-flush-on-alloc", "no-flush-on-free", "wrong-mapping-on-free", "rekey-dirty", "direct-map", "dma-wrong-keyid"];

/// Boots into `guest.run=mktme-WHAT`; the machine powers off and the kernel has nothing to complain about. `None`: no kit.
fn guest(what: &str, options: &[&str]) -> Option<Run> {
    let (kit, initrd) = (kit()?, module_initrd()?);
    let all: Vec<&str> = OPTIONS.iter().chain(options).copied().collect();
    let run = boot_with(kit, initrd, MEMORY, &format!("guest.run=mktme-{what}"), &all);
    assert_healthy(&run);
    assert!(run.stdout.contains("GUEST-DONE"), "{what} {options:?}: {}", run.stdout);
    Some(run)
}

/// The numbers of the program's `random.c`.
mod numbers {
    const GOLDEN_GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

    fn mix(z: u64) -> u64 {
        let z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// `random_word()` after `random_seed(seed)`.
    pub fn random_words(seed: u64) -> impl Iterator<Item = u64> {
        let start = mix(seed);
        (1u64..).map(move |n| mix(start.wrapping_add(n.wrapping_mul(GOLDEN_GAMMA))))
    }

    pub fn content_word(seed: u64, index: u64) -> u64 {
        mix(seed.wrapping_add((index + 1).wrapping_mul(GOLDEN_GAMMA)))
    }
}

/// The text of the program's `secret.c`.
fn secret_text(seed: u64) -> String {
    let line = |n: u64| {
        let word = |m| numbers::content_word(seed, n * 3 + m);
        format!("secret {n:02} {:016x} {:016x} {:016x} ..\n", word(0), word(1), word(2))
    };
    let text: String = (0..(PAGE_BYTES / LINE_BYTES) as u64).map(line).collect();
    assert_eq!(text.len(), PAGE_BYTES);
    text
}

/// The secret's page as DRAM holds it in the end, and how many lines of the secret are anywhere in DRAM.
fn probe(key: &str, flush: &str, options: &[&str]) -> Option<(u64, Vec<u8>, usize)> {
    const SEED: u64 = 11;
    let scratch = Scratch::new();
    let dump = scratch.path("dram").display().to_string();
    let all: Vec<&str> = ["--dump-dram", &dump].into_iter().chain(options.iter().copied()).collect();
    let what = format!("secret guest.key={key} guest.flush={flush} guest.seed={SEED}");
    let run = guest(&what, &all)?;
    let said = run.stdout.lines().find_map(|line| line.strip_prefix("SECRET at 0x")).expect("the program says where");
    let at = u64::from_str_radix(said.split(' ').next().unwrap_or_default(), 16).expect("an address");

    let dram = fs::read(&dump).expect("the dump");
    let page = dram[at as usize..][..PAGE_BYTES].to_vec();
    // A page is where it is by lines, and so is what is found of it.
    let lines: Vec<String> = secret_text(SEED).lines().map(|line| format!("{line}\n")).collect();
    let found = dram
        .chunks_exact(LINE_BYTES)
        .filter(|cell| cell.starts_with(b"secret ") && lines.iter().any(|line| line.as_bytes() == *cell));
    Some((at, page, found.count()))
}

#[test]
fn a_secret_in_encrypted_memory_is_not_in_dram() {
    // KeyID 0 in clear: everything but encrypted memory can be read on the bus.
    let Some((at, page, found)) = probe("user", "1", &["--tme", "bypass"]) else { return };
    assert_eq!(found, 0);
    // It is there, though, for those who have the key.
    let (mut key, mut tweak) = (Vec::new(), Vec::new());
    for (n, word) in numbers::random_words(11).take(8).enumerate() {
        [&mut key, &mut tweak][n % 2].extend(word.to_le_bytes());
    }
    let cipher = XtsKey::new(Algorithm::AesXts128, &key[..16], &tweak[..16]);
    let decrypted: Vec<u8> = page
        .chunks_exact(LINE_BYTES)
        .zip(at / LINE_BYTES as u64..)
        .flat_map(|(line, number)| cipher.decrypt_line(number, &CipherLine(line.try_into().expect("64 bytes"))).0)
        .collect();
    assert_eq!(String::from_utf8_lossy(&decrypted), secret_text(11));
}

#[test]
fn a_secret_under_a_key_of_the_processor_is_not_in_dram() {
    let Some((_, page, found)) = probe("cpu", "1", &["--tme", "bypass"]) else { return };
    assert_eq!(found, 0);
    assert!(page.iter().any(|byte| *byte != 0), "something was written");
}

#[test]
fn a_secret_without_encryption_is_in_dram_once_it_was_flushed() {
    let lines = PAGE_BYTES / LINE_BYTES;
    for (key, flush, options, expected) in [
        ("no-encrypt", "1", &[][..], lines),
        // The modelled cache never gives it away by itself.
        ("no-encrypt", "0", &["--cache", "lazy"], 0),
        ("no-encrypt", "0", &["--cache", "off"], lines),
        ("keyid-0", "1", &["--tme", "bypass"], lines),
        ("keyid-0", "1", &[], 0),
    ] {
        let Some((_, _, found)) = probe(key, flush, options) else { return };
        assert_eq!(found, expected, "{key}, flush {flush}, {options:?}");
    }
}

#[test]
fn the_protocol_keeps_contents_and_the_sanitizer_is_silent() {
    let rounds = if long() { 10_000 } else { 200 };
    for (seed, options) in [
        (1, &[][..]),
        (2, &["--cache", "lazy", "--wb-order", "adversarial"]),
        (3, &["--cache", "off"]),
        (4, &["--cache-size", "64K", "--wb-order", "seeded"]),
        // KeyIDs elsewhere, 256-bit keys.
        (5, &["--tme-profile", "client4"]),
    ] {
        let what = format!("protocol guest.count={rounds} guest.seed={seed}");
        let all: Vec<&str> = ["--sanitize"].iter().chain(options).copied().collect();
        let Some(run) = guest(&what, &all) else { return };
        assert!(run.stderr.contains(NO_HAZARDS), "{options:?}: {}", run.stderr);
        assert!(
            run.stdout.contains(&format!("PROTOCOL {rounds} rounds: contents correct")),
            "{options:?}: {}",
            run.stdout
        );
        assert!(run.stdout.contains("pages were under KeyIDs, 0 are;"), "{options:?}: {}", run.stdout);
    }
}

#[test]
fn pconfig_is_tried_again_when_the_key_table_is_locked_or_entropy_is_short() {
    let scratch = Scratch::new();
    let machine = scratch.file("machine.toml", "busy_rate = 0.3\nentropy_fail_rate = 0.2\n");
    let Some(run) = guest("protocol guest.count=20", &["--machine", &machine]) else { return };
    assert!(run.stdout.contains("PROTOCOL 20 rounds: contents correct"), "{}", run.stdout);
    assert!(!run.stdout.contains(", 0 retries"), "{}", run.stdout);
}

/// How many trials each mistake corrupted.
fn corrupted(run: &Run) -> BTreeMap<&str, u32> {
    let lines = run.stdout.lines().filter_map(|line| line.strip_prefix("MISTAKE "));
    lines
        .map(|line| {
            let (name, rest) = line.split_once(": ").expect("a name");
            let mut words = rest.split([' ', ',']).filter(|word| !word.is_empty());
            let verdict = words.next();
            let count = words.next().and_then(|word| word.parse().ok()).expect("a count");
            assert_eq!(verdict, Some(if count > 0 { "corrupted" } else { "intact" }), "{line}");
            (name, count)
        })
        .collect()
}

#[test]
fn each_mistake_corrupts_data_and_the_protocol_does_not() {
    let trials = if long() { 200 } else { 20 };
    let lasting = &MISTAKES[3..];
    for (options, expected) in [
        (&[][..], &MISTAKES[..]),
        // WBINVD writes KeyID 0 back first, so that the new owner's lines win.
        (&["--cache", "lazy"], &MISTAKES[1..]),
        (&["--cache", "lazy", "--wb-order", "descending"], &MISTAKES),
        (&["--wb-order", "adversarial"], &MISTAKES),
        // No line is ever dirty, so no flush is ever missing.
        (&["--cache", "off"], lasting),
    ] {
        let what = format!("mistake guest.count={trials} guest.seed=0");
        let Some(run) = guest(&what, options) else { return };
        let counts = corrupted(&run);
        assert_eq!(counts.len(), MISTAKES.len() + 1, "{options:?}: {}", run.stdout);
        let found: Vec<&str> = MISTAKES.into_iter().filter(|name| counts[name] > 0).collect();
        assert_eq!(counts["none"], 0, "{options:?}");
        assert_eq!(found, expected, "{options:?}");
        // These two need no bad luck.
        for name in ["direct-map", "dma-wrong-keyid"] {
            assert_eq!(counts[name], trials, "{options:?}: {name}");
        }
    }
}

/// What is reported where a mistake is made: mistake, kind, place, and the missing action without the KeyIDs.
const REPORTS: [(&str, &str, &str, [&str; 2]); 6] = [
    (
        "no-flush-on-alloc",
        "missing-flush-on-alloc",
        "mktme_alloc_no_flush+",
        [
            "CLFLUSH the line through its KeyID 0 mapping, then SFENCE or MFENCE, before it is accessed through KeyID ",
            "",
        ],
    ),
    (
        "no-flush-on-free",
        "missing-flush-on-free",
        "mktme_free_no_flush+",
        [
            "CLFLUSH the line through its KeyID ",
            " mapping, then SFENCE or MFENCE, before the page is given back to KeyID 0",
        ],
    ),
    (
        "wrong-mapping-on-free",
        "wrong-alias-flushed",
        "mktme_free_wrong_mapping+",
        ["flush through the KeyID ", " mapping, under which the line is dirty, instead of through KeyID 0"],
    ),
    (
        "rekey-dirty",
        "dirty-line-at-rekey",
        "mktme_rekey_dirty+",
        [
            "CLFLUSH every dirty line through its KeyID ",
            " mapping, or WBINVD, before PCONFIG changes the key of KeyID ",
        ],
    ),
    (
        "direct-map",
        "stale-read",
        "mktme_direct_map_read+",
        [
            "CLFLUSH the line through its KeyID ",
            " mapping, then SFENCE or MFENCE, before it is accessed through KeyID 0",
        ],
    ),
    (
        "dma-wrong-keyid",
        "dma-bypasses-dirty-line",
        "a device, while the CPU was at mktme_dma_wrong_keyid+",
        ["CLFLUSH the line through its KeyID ", " mapping before a device accesses it through KeyID 0, or "],
    ),
];

/// The mistakes that were reported where they were made, by the function's name, with what was missing.
fn reported(run: &Run) -> Vec<&'static str> {
    let texts: Vec<&str> = run.stderr.split("BUG: mktme-emu: ").skip(1).collect();
    let made = |kind: &str, place: &str, [start, end]: [&str; 2]| {
        texts.iter().any(|text| {
            let (first, rest) = text.split_once('\n').expect("more lines");
            let missing = rest.lines().find_map(|line| line.strip_prefix("  missing  ")).expect("what is missing");
            first.starts_with(&format!("{kind} in {place}"))
                && first.ends_with(" [mktme_demo]")
                && missing.strip_prefix(start).is_some_and(|more| more.contains(end))
        })
    };
    let found = REPORTS.into_iter().filter(|(_, kind, place, missing)| made(kind, place, *missing));
    found.map(|(mistake, ..)| mistake).collect()
}

/// Policies of `explore`, with the cache models first.
const POLICIES: [(&str, &[&str]); 8] = [
    ("exact", &[]),
    ("lazy", &["--cache", "lazy"]),
    ("off", &["--cache", "off"]),
    ("small", &["--cache-size", "64K", "--cache-ways", "4"]),
    ("evict-rare", &["--evict-rate", "0.001"]),
    ("evict-often", &["--evict-rate", "0.1"]),
    ("seeded", &["--wb-order", "seeded"]),
    ("adversarial", &["--wb-order", "adversarial"]),
];

/// Runs in which a mistake corrupted data, and in which it was reported.
#[derive(Default, Clone, Copy)]
struct Power {
    corrupted: usize,
    reported: usize,
}

/// One trial of each mistake for each seed. `--sanitize` changes nothing that the guest sees, so what the trial says of data
/// is what it says without (`the_sanitizer_changes_nothing_of_a_mistake`).
fn powers(policy: &[&str], seeds: usize) -> Option<[Power; MISTAKES.len()]> {
    let mut powers = [Power::default(); MISTAKES.len()];
    for seed in 0..seeds {
        let number = seed.to_string();
        let all: Vec<&str> = ["--sanitize", "--seed", &number].iter().chain(policy).copied().collect();
        let run = guest(&format!("mistake guest.count=1 guest.seed={seed}"), &all)?;
        let (counts, reported) = (corrupted(&run), reported(&run));
        assert_eq!(counts["none"], 0, "{all:?}");
        for (power, name) in powers.iter_mut().zip(MISTAKES) {
            power.corrupted += usize::from(counts[name] > 0);
            power.reported += usize::from(reported.contains(&name));
        }
    }
    Some(powers)
}

/// The table of docs/linux-module.md; `MKTME_LONG=1 cargo test --release --test linux_module detection -- --nocapture`.
#[test]
fn detection_does_not_depend_on_whether_a_mistake_corrupts() {
    let (seeds, policies) = if long() { (20, &POLICIES[..]) } else { (2, &POLICIES[..3]) };
    if module_initrd().is_none() {
        return;
    }
    let columns: Vec<_> = std::thread::scope(|scope| {
        let threads = policies.iter().map(|(_, options)| scope.spawn(|| powers(options, seeds)));
        let threads: Vec<_> = threads.collect();
        threads.into_iter().map(|thread| thread.join().expect("no run failed").expect("there is a kit")).collect()
    });
    let names: Vec<&str> = policies.iter().map(|(name, _)| *name).collect();
    println!("| {seeds} seeds | {} | all | reported |\n|{}", names.join(" | "), "---|".repeat(names.len() + 3));
    let (runs, percent) = (seeds * policies.len(), |part: usize, whole: usize| 100.0 * part as f64 / whole as f64);
    for (row, name) in MISTAKES.iter().enumerate() {
        let cells: Vec<String> =
            columns.iter().map(|column| format!("{:.0} %", percent(column[row].corrupted, seeds))).collect();
        let corrupted = columns.iter().map(|column| column[row].corrupted).sum();
        let reported = columns.iter().map(|column| column[row].reported).sum();
        let [all, told] = [corrupted, reported].map(|part| percent(part, runs));
        println!("| `{name}` | {} | {all:.0} % | {told:.0} % |", cells.join(" | "));
        assert_eq!(reported, runs, "{name}");
    }
}

#[test]
fn the_sanitizer_is_silent_where_no_mistake_is_made() {
    for options in [&[][..], &["--cache", "lazy"], &["--cache", "off"]] {
        let all: Vec<&str> = ["--sanitize"].iter().chain(options).copied().collect();
        let Some(run) = guest("mistake guest.mistake=none guest.count=5", &all) else { return };
        assert!(run.stderr.contains(NO_HAZARDS), "{options:?}: {}", run.stderr);
    }
}

#[test]
fn the_sanitizer_changes_nothing_of_a_mistake() {
    let what = "mistake guest.count=3 guest.seed=8";
    let Some(plain) = guest(what, &["--state-hash"]) else { return };
    let Some(watched) = guest(what, &["--state-hash", "--sanitize"]) else { return };
    assert_eq!(plain.stdout, watched.stdout);
    assert_eq!(reported(&watched), MISTAKES);
}

#[test]
fn reports_name_a_module_that_is_gone() {
    let what = "reload guest.mistake=no-flush-on-alloc guest.count=3";
    let options = ["--sanitize", "--sanitize-origins", "--state-hash"];
    let (Some(run), Some(plain)) = (guest(what, &options), guest(what, &["--state-hash"])) else { return };
    // While it was there, and at the end, when it was not.
    assert_eq!(reported(&run), ["no-flush-on-alloc"]);
    assert!(run.stderr.contains("last store before it: KeyID 0, instruction "), "{}", run.stderr);
    assert!(run.stderr.contains(" [mktme_demo, unloaded]\n"), "{}", run.stderr);
    assert_eq!(run.stdout.matches("MISTAKE no-flush-on-alloc: ").count(), 3, "{}", run.stdout);
    assert_eq!(run.stdout, plain.stdout);
}

#[test]
fn a_symbol_file_of_another_kernel_is_told_once_and_reports_keep_their_names() {
    let scratch = Scratch::new();
    let map = scratch.file("map", "ffffffff81000000 T _text\nffffffff81000123 T entry_SYSCALL_64\n");
    let Some(run) = guest("mistake guest.count=1", &["--sanitize", "--symbols", &map]) else { return };
    assert_eq!(run.stderr.matches("does not match the running kernel").count(), 1, "{}", run.stderr);
    assert_eq!(reported(&run), MISTAKES);
}

#[test]
fn the_same_seed_gives_the_same_mistake() {
    let run = || guest("mistake guest.mistake=no-flush-on-free guest.count=5 guest.seed=3", &["--state-hash"]);
    let (Some(first), Some(second)) = (run(), run()) else { return };
    assert_eq!(first.stdout, second.stdout);
}

#[test]
fn the_module_can_be_unloaded_and_leaves_nothing() {
    const TIMES: usize = 6;
    let Some(run) = guest(&format!("reload guest.count={TIMES}"), &[]) else { return };
    let free = |line: &str| -> Option<i64> {
        let rest = line.split_once("MemFree: ")?.1;
        rest.split(' ').next()?.parse().ok()
    };
    let kilobytes: Vec<i64> = run.stdout.lines().filter(|line| line.starts_with("RELOAD ")).filter_map(free).collect();
    assert_eq!(kilobytes.len(), TIMES, "{}", run.stdout);
    // The first time fills the kernel's own caches.
    let lost = kilobytes[1] - kilobytes[TIMES - 1];
    assert!(lost < 64, "{lost} KiB in {} reloads: {kilobytes:?}", TIMES - 2);
    assert_eq!(run.stdout.matches("pages were under KeyIDs, 0 are;").count(), TIMES);
}

#[test]
fn the_module_refuses_a_machine_without_keyids() {
    for (options, reason) in [
        (["--tme", "off"], "mktme_demo: firmware did not enable TME"),
        (["--tme-profile", "none"], "mktme_demo: the processor has no MKTME"),
    ] {
        let Some(run) = guest("protocol guest.count=1", &options) else { return };
        assert!(run.stdout.contains(reason), "{options:?}: {}", run.stdout);
        assert!(!run.stdout.contains("PROTOCOL"), "{options:?}");
    }
}
