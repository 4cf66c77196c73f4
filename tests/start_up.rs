//! What a start costs. Times are no test's business: what could make them depend on the size of RAM is that somebody
//! touches all of it, and that shows in memory.

mod common;

use common::emu;

/// MiB of the summary's line "peak memory P MiB, of that R MiB guest RAM".
fn peak(memory: &str) -> (u64, u64) {
    let run = emu(["run", "-m", memory, "--until", "icount:0"]);
    assert!(run.stdout.contains("TME-MK: 6 KeyID bits"), "the firmware has spoken: {}", run.stdout);
    let line = run.stderr.lines().find_map(|line| line.trim().strip_prefix("peak memory")).expect("a summary");
    let mut numbers = line.split_whitespace().filter_map(|word| word.parse().ok());
    (numbers.next().expect("the process"), numbers.next().expect("guest RAM"))
}

#[test]
fn ram_is_not_touched_before_the_guest_uses_it() {
    let (small, large) = (peak("64M"), peak("8G"));
    assert_eq!(small.1, large.1, "pages of RAM in use");
    // A few bytes for each page of 4 KiB.
    let bookkeeping = 8192 / 256;
    assert!(large.0 <= small.0 + bookkeeping, "{} MiB with 64 MiB of RAM, {} MiB with 8 GiB", small.0, large.0);
}
