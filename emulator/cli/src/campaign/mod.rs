//! `mktme-emu campaign`: many injections into one guest. The crate `campaign` makes them; this is its command line. docs/campaigns.md is
//! the user's page.
//!
//! Reading order: this file (options), [`run`], [`replay`], [`results`] (merging and reporting), [`progress`].

mod progress;
mod replay;
mod results;
mod run;

use crate::Result;
use crate::help;
use crate::outcome::Failure;
use ::campaign::error::CampaignError;
use ::campaign::meta::Shard;
use clap::{Args, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;

/// The options.
#[derive(Debug, Args)]
pub struct CampaignArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Makes the golden run of a plan and shows its fault spaces; injects nothing
    #[command(max_term_width = 100)]
    Check(CheckArgs),
    /// Makes the injections of a plan, or those that a run before this one did not make
    #[command(long_about = help::CAMPAIGN_RUN_ABOUT, max_term_width = 100)]
    Run(RunArgs),
    /// Makes one injection again, from its snapshot to its end
    #[command(long_about = help::CAMPAIGN_REPLAY_ABOUT, max_term_width = 100)]
    Replay(ReplayArgs),
    /// Joins the results of all shards
    #[command(max_term_width = 100)]
    Merge(MergeArgs),
    /// Shows results, as text and as a page with figures
    #[command(max_term_width = 100)]
    Report(ReportArgs),
}

/// `campaign check`
#[derive(Debug, Args)]
struct CheckArgs {
    /// The plan (docs/campaigns.md)
    #[arg(value_name = "PLAN")]
    plan: PathBuf,
}

/// `campaign run`
#[derive(Debug, Args)]
struct RunArgs {
    /// The plan (docs/campaigns.md)
    #[arg(value_name = "PLAN")]
    plan: PathBuf,
    /// Directory of the campaign [default: the plan's name without its extension]
    #[arg(short = 'o', long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Make part K of N only; `merge` joins the parts
    #[arg(long, value_name = "K/N", default_value = "1/1")]
    shard: ShardArg,
    /// Injections at a time [default: one for each processor core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,
    /// Run every injection to its end, even if its outcome is known before; the results are the same
    #[arg(long)]
    no_shortcuts: bool,
}

/// `campaign replay`
#[derive(Debug, Args)]
struct ReplayArgs {
    /// Directory of the campaign
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Number of the injection
    #[arg(long, value_name = "N")]
    id: u64,
    /// Options of `run` for another look at it, after `--`: -d, --sanitize, --bus-trace ...
    #[arg(last = true, value_name = "run options")]
    run: Vec<OsString>,
}

/// `campaign merge`
#[derive(Debug, Args)]
struct MergeArgs {
    /// Results of all shards, or directories that have them
    #[arg(value_name = "PARTS", required = true)]
    parts: Vec<PathBuf>,
    /// The file to write
    #[arg(short = 'o', long, value_name = "FILE")]
    out: PathBuf,
}

/// `campaign report`
#[derive(Debug, Args)]
struct ReportArgs {
    /// Results, or the directory of a campaign, which may still run
    #[arg(value_name = "RESULTS")]
    results: PathBuf,
    /// Write a self-contained page
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write the figures as SVG files into this directory
    #[arg(long, value_name = "DIR")]
    svg: Option<PathBuf>,
}

/// `K/N`
#[derive(Debug, Clone, Copy)]
struct ShardArg(Shard);

impl FromStr for ShardArg {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<ShardArg, String> {
        const PARTS_MAX: u64 = 100_000;
        let numbers = text.split_once('/').and_then(|(part, parts)| Some((part.parse().ok()?, parts.parse().ok()?)));
        match numbers {
            Some((part, parts)) if part >= 1 && part <= parts && parts <= PARTS_MAX => {
                Ok(ShardArg(Shard { part, parts }))
            }
            _ => Err(format!("accepted: K/N with K from 1 to N, and N up to {PARTS_MAX}")),
        }
    }
}

/// Runs the subcommand; returns the exit status.
///
/// # Errors
/// Those of the campaign.
pub fn run(args: &CampaignArgs) -> Result<u8> {
    match &args.command {
        Command::Check(args) => run::check(args),
        Command::Run(args) => run::run(args),
        Command::Replay(args) => replay::replay(args),
        Command::Merge(args) => results::merge(args),
        Command::Report(args) => results::report(args),
    }
}

impl From<CampaignError> for Failure {
    fn from(e: CampaignError) -> Failure {
        match e {
            CampaignError::Input(text) => Failure::Usage(text),
            CampaignError::Host(text) => Failure::Host(text),
        }
    }
}

/// Writes to standard output.
fn print(text: &str) -> Result<()> {
    use std::io::Write;
    let written = std::io::stdout().write_all(text.as_bytes());
    written.map_err(|e| Failure::Host(format!("standard output: {}", crate::files::reason(&e))))
}
