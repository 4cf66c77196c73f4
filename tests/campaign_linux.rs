//! `guests/linux/fault-target.toml`, the campaign on a program in Debian's guest that works on a secret under a KeyID: every hundredth
//! injection, or all 20,000 with MKTME_LONG=1.

mod common;

use common::linux::{long, module_initrd};
use common::{Run, Scratch, run};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

const FEWER: u64 = 100;
/// What the whole campaign may take on two processors.
const LONGEST: Duration = Duration::from_secs(30 * 60);

fn campaign(scratch: &Scratch, words: &[&str]) -> Run {
    run(Command::new(env!("CARGO_BIN_EXE_mktme-emu")).arg("campaign").args(words).current_dir(scratch.dir()))
}

/// The plan, with paths that hold anywhere. Returns the number of injections.
fn plan(scratch: &Scratch, initrd: &str) -> u64 {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("guests/linux/fault-target.toml")).expect("a plan");
    let mut total = 0;
    let line = |line: &str| match line.split_once(" = ") {
        Some(("kernel", _)) => format!("kernel = \"{}\"", root.join("guests/linux/work/vmlinuz").display()),
        Some(("initrd", _)) => format!("initrd = \"{initrd}\""),
        Some(("injections", number)) => {
            let number: u64 = number.parse().expect("a number");
            let number = if long() { number } else { number / FEWER };
            total += number;
            format!("injections = {number}")
        }
        _ => line.to_owned(),
    };
    let text = text.lines().map(line).collect::<Vec<_>>().join("\n");
    scratch.file("plan.toml", text);
    total
}

#[test]
fn the_campaign_on_a_secret_in_debian_is_quick_and_can_be_repeated() {
    let Some(initrd) = module_initrd() else { return };
    let scratch = Scratch::new();
    let total = plan(&scratch, initrd);
    let started = Instant::now();
    let whole = campaign(&scratch, &["run", "plan.toml", "-o", "whole"]);
    assert_eq!(whole.status, 0, "{}", whole.stderr);
    assert!(started.elapsed() < LONGEST, "{}", whole.stderr);
    assert!(whole.stdout.contains(&format!("{total} of {total}").replace("20000", "20,000")), "{}", whole.stdout);
    let bytes = |name: &str| fs::read(scratch.path(name)).expect("results");

    // Any row alone.
    for n in 0..if long() { 50 } else { 5 } {
        let id = (n * 7919 + 17) % total;
        let replayed = campaign(&scratch, &["replay", "whole", "--id", &id.to_string()]);
        assert_eq!(replayed.status, 0, "{id}: {}{}", replayed.stdout, replayed.stderr);
        assert!(replayed.stdout.contains("have the same outcome and state hash"), "{id}: {}", replayed.stdout);
    }

    // In parts, from one snapshot.
    let parts = if long() { 8 } else { 2 };
    for part in 1..=parts {
        let ran = campaign(&scratch, &["run", "plan.toml", "-o", "parts", "--shard", &format!("{part}/{parts}")]);
        assert_eq!(ran.status, 0, "{}", ran.stderr);
    }
    let merged = campaign(&scratch, &["merge", "parts", "-o", "merged.parquet"]);
    assert_eq!(merged.status, 0, "{}", merged.stderr);
    assert!(bytes("merged.parquet") == bytes("whole/results.parquet"));

    // Again, killed on the way.
    let mut random = 12345_u32;
    for _ in 0..if long() { 10 } else { 1 } {
        random = random.wrapping_mul(1_103_515_245).wrapping_add(12345);
        let mut command = Command::new(env!("CARGO_BIN_EXE_mktme-emu"));
        command.args(["campaign", "run", "plan.toml", "-o", "again"]).current_dir(scratch.dir());
        let mut process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a process");
        sleep(Duration::from_millis(3000 + u64::from(random >> 16) % 8000));
        process.kill().expect("killed, or over");
        process.wait().expect("gone");
    }
    let again = campaign(&scratch, &["run", "plan.toml", "-o", "again"]);
    assert_eq!(again.status, 0, "{}", again.stderr);
    assert!(bytes("again/results.parquet") == bytes("whole/results.parquet"));
}
