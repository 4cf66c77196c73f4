//! `cargo run --release -p conformance --features mutants --bin mutants [NAME...]`
//!
//! Switches on each deliberate mistake of `x86::mutants`, runs the test of the statement that it breaks, and expects it to
//! fail. Exit status: 0 if every mutant was caught and all these tests pass without one.

use conformance::statement::{Env, Result, Statement};
use std::process::ExitCode;
use x86::mutants::{self, Mutant};

fn main() -> ExitCode {
    let names: Vec<String> = std::env::args().skip(1).collect();
    let chosen = |m: &&Mutant| names.is_empty() || names.contains(&format!("{m:?}"));
    let (mut caught, mut missed) = (0, 0);
    for &mutant in Mutant::ALL.iter().filter(chosen) {
        let Some(statement) = conformance::statements().find(|s| s.number == mutant.statement()) else { continue };
        mutants::activate(None);
        let without = run(statement);
        mutants::activate(Some(mutant));
        let with = run(statement);
        let (verdict, note) = match (without, with) {
            (Result::Pass, Result::Fail(failure)) => ("caught", failure.to_string()),
            (Result::Pass, _) => ("MISSED", "the test passes".into()),
            (_, _) => ("MISSED", "the test does not pass without the mutant".into()),
        };
        if verdict == "caught" {
            caught += 1
        } else {
            missed += 1
        }
        println!("{}  {verdict}  {mutant:?}: {}", statement.name(), mutant.text());
        println!("                {}", note.lines().next().unwrap_or_default());
    }
    println!("\n{caught} mutants caught, {missed} missed");
    if caught > 0 && missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A test that panics has noticed something, too.
fn run(statement: &Statement) -> Result {
    std::panic::catch_unwind(|| statement.run(&Env::default()))
        .unwrap_or_else(|_| Result::Fail(conformance::harness::Failure::Wrong("the test panicked".into())))
}
