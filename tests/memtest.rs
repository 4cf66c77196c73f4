//! Debian's memtest86+: every cell of RAM, through the cache and the cipher, with patterns that notice a line that went astray.
//!
//! `guests/linux/memtest.sh` fetches it; without it these tests say so and pass, unless MKTME_REQUIRE_LINUX=1. The whole pass,
//! 64 G instructions or about five minutes, runs with MKTME_LONG=1.

mod common;

use common::linux::{long, script};
use common::{Run, emu};
use std::path::Path;

/// 64 MiB, the options, and ends: at an error, else where the screen matches `until`.
fn memtest(options: &[&str], until: &str) -> Option<Run> {
    let image = Path::new(env!("CARGO_MANIFEST_DIR")).join("guests/linux/work/memtest.bin");
    if !image.exists() {
        script("memtest.sh", &[], &[])?;
    }
    let kernel = image.display().to_string();
    let until = format!("console:{until}");
    let base = ["run", "-m", "64M", "-no-reboot", "-kernel", &kernel, "-append", "console=ttyS0,115200"];
    let ends = ["--until", "console:Errors: +[1-9]", "--until", &until, "--until", "icount:100G"];
    Some(emu(base.into_iter().chain(ends).chain(options.iter().copied())))
}

/// The end came by the screen, and no screen counted an error.
fn assert_without_errors(run: &Run) {
    assert_eq!(run.status, 12, "{}", run.stderr);
    assert!(!run.stderr.contains("matched \"Errors"), "{}", run.stderr);
    assert!(run.stdout.contains("Memtest86+ v"), "{}", run.stdout);
    let counts: Vec<&str> = run.stdout.split("Errors: ").skip(1).collect();
    assert!(counts.len() > 1 && counts.iter().all(|count| count.starts_with("0 ")), "{}", run.stdout);
}

/// Tests #0 to #2: walking ones on the address lines, and every address as its own contents.
#[test]
fn memtest86_plus_finds_no_error_in_its_address_tests() {
    for options in [&[][..], &["--cache", "off", "--tme", "bypass"]] {
        let Some(run) = memtest(options, r"#3  \[Moving inversions") else { return };
        assert_without_errors(&run);
    }
}

#[test]
fn memtest86_plus_makes_a_whole_pass_without_an_error() {
    if !long() {
        return eprintln!("SKIPPED, 64 G instructions: MKTME_LONG=1 runs it");
    }
    let Some(run) = memtest(&[], "Pass: +[1-9]") else { return };
    assert_without_errors(&run);
    for number in 0..=10 {
        // Tests #1 and #2 are over before the screen shows them.
        let shown = run.stdout.contains(&format!("#{number:<2} ["));
        assert!(shown || matches!(number, 1 | 2), "test #{number}");
    }
}
