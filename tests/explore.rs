//! `mktme-emu explore`: outcomes and the commands that repeat them, and everything that can be wrong with the options.

mod common;

use common::{Run, Scratch, emu};
use serde_json::Value;
use std::fs;

const CHECKS: &str = r"console:(\d+) checks passed";

fn explore(options: &[&str], run: &[&str]) -> Run {
    emu([&["explore"][..], options, &["--"], run].concat())
}

#[test]
fn distinct_outcomes_are_told_with_the_command_that_repeats_each() {
    let run = explore(&["--seeds", "2", "--outcome", CHECKS], &["run"]);
    assert_eq!(run.status, 1, "{}", run.stderr);
    assert!(run.stdout.starts_with("16 runs, 2 outcomes\n"), "{}", run.stdout);
    // The tour cannot show what a cache does where there is none.
    assert!(run.stdout.contains("\nA            14   87.5 %            0  32\n"), "{}", run.stdout);
    assert!(run.stdout.contains("\noff               0      2\n"), "{}", run.stdout);
    let command = run.stdout.lines().find_map(|line| line.strip_prefix("B: mktme-emu ")).expect("a command");
    assert_eq!(command, "run --cache off --seed 0");
    let again = emu(command.split(' '));
    assert!(again.stdout.contains("27 checks passed"), "{}", again.stdout);
}

#[test]
fn the_order_in_which_runs_end_does_not_matter() {
    let options = |jobs| ["--seeds", "3", "--first-seed", "5", "--jobs", jobs];
    let one = explore(&options("1"), &["run"]);
    assert_eq!(one.stdout, explore(&options("5"), &["run"]).stdout);
    assert!(one.stdout.contains("--seed 5\n") && one.stdout.contains("--seed 7\n"), "{}", one.stdout);
}

#[test]
fn runs_that_all_end_alike_are_success() {
    let options = ["--seeds", "2", "--policies", "lazy,exact", "--outcome", CHECKS];
    let run = explore(&options, &["run", "-quiet-bios", "--no-summary"]);
    assert_eq!(run.status, 0, "{}{}", run.stdout, run.stderr);
    assert!(run.stdout.starts_with("4 runs, 1 outcome\n"), "{}", run.stdout);
    assert!(
        run.stdout.ends_with("\nA: mktme-emu run -quiet-bios --no-summary --cache exact --seed 0\n"),
        "{}",
        run.stdout
    );
}

#[test]
fn a_run_with_a_cache_of_its_own_is_repeated_with_other_seeds_only() {
    let run = explore(&["--seeds", "2", "--outcome", CHECKS], &["run", "-cache", "off"]);
    assert!(run.stdout.starts_with("2 runs, 1 outcome\n"), "{}{}", run.stdout, run.stderr);
    assert!(run.stdout.contains("  27\n"), "{}", run.stdout);
}

#[test]
fn hazards_that_stop_the_run_are_an_outcome() {
    let run = explore(&["--seeds", "1", "--policies", "exact,off", "--outcome", CHECKS], &["run", "--sanitize=stop"]);
    assert_eq!(run.status, 0, "{}", run.stderr);
    assert!(run.stdout.contains("\nA             2  100.0 %           20  (no match)\n"), "{}", run.stdout);
}

#[test]
fn the_json_file_has_every_run() {
    let scratch = Scratch::new();
    let path = scratch.path("j").display().to_string();
    explore(&["--seeds", "2", "--outcome", CHECKS, "--json", &path], &["run"]);
    let json: Value = serde_json::from_str(&fs::read_to_string(&path).expect("it was written")).expect("JSON");
    assert_eq!((&json["version"], &json["planned"], &json["runs"]), (&1.into(), &16.into(), &16.into()));
    assert_eq!(json["outcomes"][1]["captured"], "27");
    assert_eq!(json["outcomes"][1]["status"], 0);
    assert_eq!(
        json["outcomes"][1]["runs"],
        serde_json::json!([{"seed": 0, "policy": "off"}, {"seed": 1, "policy": "off"}])
    );
    assert_eq!(json["outcomes"][1]["command"][3], "off");
    assert_eq!(scratch.names(), ["j"]);
}

#[test]
fn bad_input_is_refused_before_anything_runs() {
    let scratch = Scratch::new();
    let kernel = scratch.file("k", "no kernel");
    for (options, run, message) in [
        (&[][..], &[][..], "required"),
        (&[], &["conformance"], "the command after -- is not run"),
        (&[], &["run", "--nonsense"], "unexpected argument '--nonsense'"),
        (&[], &["run", "-seed", "1"], "--seed in the command after --"),
        (&[], &["run", "-serial", "file:x"], "-serial file: in the command after --"),
        (&[], &["run", "-D", "x", "-d", "int"], "-D in the command after --"),
        (&[], &["run", "--dump-dram", "x"], "--dump-dram in the command after --"),
        (&[], &["run", "--sanitize", "--sanitize-json", "x"], "--sanitize-json in the command after --"),
        (&[], &["run", "--machine-show"], "--machine-show in the command after --"),
        (&[], &["run", "-kernel", "/nonexistent"], "-kernel /nonexistent: no such file"),
        (&[], &["run", "-kernel", &kernel], "-kernel"),
        (&["--seeds", "0"], &["run"], "--seeds"),
        (&["--jobs", "0"], &["run"], "--jobs"),
        (&["--policies", "warm"], &["run"], "accepted: given, exact, small"),
        (&["--policies", "exact"], &["run", "--cache", "off"], "--policies exact: the command after -- has options"),
        (&["--outcome", "stdout:x"], &["run"], "accepted: console:REGEX"),
        (&["--outcome", "console:("], &["run"], "not a regular expression"),
        (&["--first-seed", "18446744073709551615"], &["run"], "--first-seed"),
        (&["--json", "/nonexistent/x"], &["run"], "--json /nonexistent/x: no such file"),
    ] {
        let result = explore(options, run);
        assert_eq!((result.status, result.stdout.as_str()), (2, ""), "{options:?} {run:?}: {}", result.stderr);
        assert!(result.stderr.contains(message), "{options:?} {run:?}: {}", result.stderr);
    }
}
