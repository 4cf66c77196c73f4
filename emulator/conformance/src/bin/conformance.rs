//! `cargo run --release -p conformance`: what `mktme-emu conformance` does.

use clap::Parser;
use std::process::ExitCode;

#[derive(Debug, Parser)]
#[command(about = "Checks the model against the statements of the hardware specification")]
struct Cli {
    #[command(flatten)]
    args: conformance::Args,
}

fn main() -> ExitCode {
    conformance::main(&Cli::parse().args)
}
