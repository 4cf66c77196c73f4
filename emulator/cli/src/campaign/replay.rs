//! `campaign replay`.

use super::{ReplayArgs, print};
use crate::Result;
use crate::args::{Action, Cli, accept_single_dashes};
use crate::outcome::{Failure, status};
use crate::plan::Plan;
use crate::session;
use ::campaign::directory::Directory;
use ::campaign::experiment::{Ready, Shortcuts};
use ::campaign::guest::Guest;
use ::campaign::row::Row;
use clap::Parser;
use machine::Machine;
use std::ffi::OsString;
use std::fmt::Write;

/// Exit status: the injection went otherwise than in the results.
const DIFFERENT: u8 = 1;

pub fn replay(args: &ReplayArgs) -> Result<u8> {
    let directory = Directory::new(&args.directory);
    let file = directory.plan()?;
    let start = directory.kept_start()?;
    let ready = Ready::prepare(file, &start, &mut |_| {})?;
    let injection = ready.injection(args.id)?;
    if !args.run.is_empty() {
        return look_again(args, &directory, &ready, &injection.spec.to_string());
    }
    let machine = Machine::from_snapshot(&start.snapshot).map_err(Failure::usage)?;
    let row = ready.perform(&mut Guest::new(machine), &injection, Shortcuts::NONE)?;
    print(&shown(&row))?;
    let known = super::results::rows(&args.directory).ok();
    let known = known.as_ref().and_then(|table| table.rows.iter().find(|known| known.id == row.id));
    let same = known.map(|known| (known.outcome, &known.state_hash) == (row.outcome, &row.state_hash));
    print(match same {
        Some(true) => "the results    have the same outcome and state hash\n",
        Some(false) => "the results    DIFFER\n",
        None => "the results    do not have it yet\n",
    })?;
    print(&format!(
        "look again     mktme-emu campaign replay {} --id {} -- -d int,mktme\n",
        args.directory.display(),
        row.id
    ))?;
    Ok(if same == Some(false) { DIFFERENT } else { status::SUCCESS })
}

fn shown(row: &Row) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name:<14} {value}");
    };
    line("injection", format!("{} of stratum {}", row.id, row.stratum));
    line("fault", row.fault.clone());
    let at = |icount: Option<u64>| icount.map_or("never".into(), |icount| format!("at instruction {icount}"));
    line("triggered", at(row.triggered));
    line("effect", at(row.effect));
    let detail = if row.detail.is_empty() { String::new() } else { format!(" ({})", row.detail) };
    line("outcome", format!("{}{detail}", row.outcome));
    line("end", format!("at instruction {}", row.end));
    if let Some(latency) = row.latency {
        line("latency", format!("{latency} instructions"));
    }
    if let (Some(number), Some(said)) = (row.console_line, &row.console_text) {
        line("console", format!("line {number} differs: {said}"));
    }
    if let Some(lines) = row.wrong_lines {
        let first = row.first_wrong_line.map(|line| format!(", the first at {line:#x}")).unwrap_or_default();
        line("wrong lines", format!("{lines}{first}"));
    }
    line("state hash", row.state_hash.clone());
    text
}

/// An ordinary run from the start of the campaign with the fault, and what the user wants to see.
fn look_again(args: &ReplayArgs, directory: &Directory, ready: &Ready, fault: &str) -> Result<u8> {
    let length = (ready.golden.end - ready.golden.start()) as f64 * ready.file.plan.golden.budget;
    let until = ready.golden.start().saturating_add(length as u64);
    let mut argv: Vec<OsString> = vec!["mktme-emu".into(), "run".into(), "--loadvm".into()];
    argv.push(directory.start_snapshot().into());
    argv.extend(["--inject".into(), fault.into(), "--until".into(), format!("icount:{until}").into()]);
    argv.extend(args.run.iter().cloned());
    let cli = Cli::try_parse_from(accept_single_dashes(argv)).map_err(|e| {
        let text = e.to_string();
        Failure::Usage(format!("after --: {}", text.strip_prefix("error: ").unwrap_or(&text).trim_end()))
    })?;
    match cli.into_action() {
        Action::Run(run) => session::run(Plan::new(*run)?),
        _ => Err(Failure::usage("after --: not an option of run; accepted: options of run")),
    }
}
