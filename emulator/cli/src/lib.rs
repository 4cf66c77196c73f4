//! The command line of mktme-emu: arguments in, a machine that runs, a console, an exit status.
//!
//! Reading order: [`args`] (what can be asked for) with [`value`] (how values are written) and [`help`], [`plan`] (what is
//! checked before anything starts), [`session`] (the run), which uses [`console`], [`input`] with [`script`] and
//! [`terminal`], [`log`], [`sanitize`], [`snapshot`], [`inject`] and [`progress`]; then [`outcome`] (how it ended, exit statuses) and [`summary`];
//! and the other commands: [`explore`], which repeats runs, [`bus_trace`], which shows what a run recorded, [`campaign`], which injects
//! many faults, and [`bench`].

#[macro_use]
mod say;

pub mod args;
pub mod bench;
pub mod bus_trace;
pub mod campaign;
pub mod console;
pub mod explore;
pub mod files;
pub mod help;
pub mod inject;
pub mod input;
pub mod log;
pub mod modules;
pub mod outcome;
pub mod plan;
pub mod progress;
pub mod sanitize;
pub mod script;
pub mod session;
pub mod snapshot;
pub mod summary;
pub mod terminal;
pub mod value;

use args::{Action, Cli, RunArgs};
use clap::Parser;
use outcome::Failure;
use plan::Plan;
use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

/// Everything `main` does. `argv` starts with the program's name.
pub fn main(argv: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args::accept_single_dashes(argv)) {
        Ok(cli) => cli,
        Err(e) => {
            // Help and version go to standard output and are no failure. A reader that has gone away is none either.
            let _ = e.print();
            return ExitCode::from(if e.use_stderr() { outcome::status::USAGE } else { outcome::status::SUCCESS });
        }
    };
    let result = match cli.into_action() {
        Action::Run(args) if args.machine_show => show_machine(&args),
        Action::Run(args) => Plan::new(*args).and_then(session::run),
        Action::Bench(args) => bench::run(&args),
        Action::Conformance(args) => return conformance::main(&args),
        Action::Explore(args) => return explore::main(&args),
        Action::BusTrace(args) => return bus_trace::main(&args),
        Action::Campaign(args) => campaign::run(&args),
    };
    match result {
        Ok(status) => ExitCode::from(status),
        Err(failure) => {
            sayln!("mktme-emu: {failure}");
            ExitCode::from(failure.status())
        }
    }
}

/// `--machine-show`
fn show_machine(args: &RunArgs) -> Result<u8> {
    let file = plan::config(args)?.to_file();
    let written = std::io::stdout().write_all(file.as_bytes());
    written.map_err(|e| Failure::Host(format!("standard output: {}", files::reason(&e))))?;
    Ok(outcome::status::SUCCESS)
}

/// What the modules return.
pub type Result<T> = std::result::Result<T, Failure>;
