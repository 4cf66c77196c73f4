//! What a campaign knows of one injection.

use serde::{Deserialize, Serialize};
use std::fmt;

/// What became of the guest. Declared from the worst for the tool to the best for the guest; reports list them in the order of
/// [`Outcome::ALL`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The emulator failed: a bug of this program.
    ToolError,
    /// The trigger did not come, or there was nothing to change.
    NotActivated,
    /// The guest reached its verdict, and nothing differs from the golden run, not even its state.
    Masked,
    /// The guest reached its verdict with the right results, but its state differs.
    Latent,
    /// The guest reached its verdict with wrong results: silent data corruption.
    Sdc,
    /// Something noticed: a MAC, the guest itself.
    Detected,
    /// The guest went down.
    Crash,
    /// The guest did not reach its verdict within its budget of instructions.
    Hang,
}

impl Outcome {
    /// Every outcome, in the order of reports.
    pub const ALL: [Outcome; 8] = [
        Outcome::NotActivated,
        Outcome::Masked,
        Outcome::Latent,
        Outcome::Detected,
        Outcome::Sdc,
        Outcome::Crash,
        Outcome::Hang,
        Outcome::ToolError,
    ];

    /// The name in tables and files.
    pub const fn name(self) -> &'static str {
        match self {
            Outcome::ToolError => "tool-error",
            Outcome::NotActivated => "not-activated",
            Outcome::Masked => "masked",
            Outcome::Latent => "latent",
            Outcome::Sdc => "sdc",
            Outcome::Detected => "detected",
            Outcome::Crash => "crash",
            Outcome::Hang => "hang",
        }
    }

    /// The outcome of that name.
    pub fn from_name(name: &str) -> Option<Outcome> {
        Outcome::ALL.into_iter().find(|outcome| outcome.name() == name)
    }

    /// True for what is counted as a failure of the guest: wrong results, or none.
    pub const fn is_failure(self) -> bool {
        matches!(self, Outcome::Sdc | Outcome::Crash | Outcome::Hang)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How an outcome came to be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Proof {
    /// The guest ran to its end.
    Run,
    /// The guest ran until its state was that of the golden run at the same instruction: the rest is the golden run.
    Met,
    /// From the golden run alone: what was changed is written before it is read.
    Overwritten,
    /// From the golden run alone: what was changed is neither read nor written any more.
    Unread,
}

impl Proof {
    /// Every one.
    pub const ALL: [Proof; 4] = [Proof::Run, Proof::Met, Proof::Overwritten, Proof::Unread];

    /// The name in tables and files.
    pub const fn name(self) -> &'static str {
        match self {
            Proof::Run => "run",
            Proof::Met => "met",
            Proof::Overwritten => "overwritten",
            Proof::Unread => "unread",
        }
    }

    /// The one of that name.
    pub fn from_name(name: &str) -> Option<Proof> {
        Proof::ALL.into_iter().find(|proof| proof.name() == name)
    }
}

/// One injection and what became of it. A pure function of the campaign and the number; nothing in it depends on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Number of the injection in the campaign, from 0.
    pub id: u64,
    /// Name of the stratum.
    pub stratum: String,
    /// The fault as `run --inject` takes it.
    pub fault: String,
    /// Its target, for example `dram-flip`.
    pub target: String,
    /// Number of the fault in the fault space of its stratum.
    pub element: u64,
    /// The part of the golden run in which the fault is triggered.
    pub phase: Option<String>,
    /// Physical address, without KeyID, of the line that the fault names.
    pub line: Option<u64>,
    /// The first bit that the fault names.
    pub bit: Option<u32>,
    /// The KeyID for which the fault had its first effect, or that it names.
    pub keyid: Option<u16>,
    /// Instructions retired when the trigger came.
    pub triggered: Option<u64>,
    /// Instructions retired when the fault first changed something.
    pub effect: Option<u64>,
    /// RIP then, if the guest was run there.
    pub rip: Option<u64>,
    /// What became of the guest.
    pub outcome: Outcome,
    /// What told, for example `#MC` or `console: Kernel panic`.
    pub detail: String,
    /// How it is known.
    pub proof: Proof,
    /// Instructions retired at the end of the run.
    pub end: u64,
    /// Instructions from the first effect to where the outcome showed: detection, crash, or the first wrong line of console
    /// output.
    pub latency: Option<u64>,
    /// Number of the first line of console output, from 1, that differs from the golden run.
    pub console_line: Option<u64>,
    /// That line.
    pub console_text: Option<String>,
    /// Physical address of the first line of memory that differs from the golden run at the end.
    pub first_wrong_line: Option<u64>,
    /// Lines of memory that differ from the golden run at the end.
    pub wrong_lines: Option<u64>,
    /// State hash at the end, 32 hexadecimal digits.
    pub state_hash: String,
}
