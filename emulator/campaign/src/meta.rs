//! What results say of the campaign they are of.

use serde::{Deserialize, Serialize};

/// A campaign, in so far as its results depend on it. Kept with the results as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Campaign {
    /// Name, from the plan.
    pub name: String,
    /// Hash of everything that the results depend on, 32 hexadecimal digits. Results of different ones cannot be joined.
    pub identity: String,
    /// The text of the plan.
    pub plan: String,
    /// Confidence level of all intervals, in parts per million: 950,000 for 95 %.
    pub confidence_ppm: u32,
    /// The golden run.
    pub golden: GoldenRun,
    /// The strata, in the order of their numbers of injections.
    pub strata: Vec<Stratum>,
}

impl Campaign {
    /// Injections in all: their numbers are below.
    pub fn injections(&self) -> u64 {
        self.strata.iter().map(|stratum| stratum.injections).sum()
    }
}

/// The run without a fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoldenRun {
    /// Instructions retired where it starts.
    pub start: u64,
    /// Instructions retired at the verdict.
    pub end: u64,
    /// State hash at the end, 32 hexadecimal digits.
    pub state_hash: String,
    /// Where phases start: instructions retired, and the name.
    pub phases: Vec<(u64, String)>,
    /// What the guest wrote to its console.
    pub console: String,
}

/// A part of the campaign: one fault space.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stratum {
    /// Its name.
    pub name: String,
    /// The fault space as the plan has it.
    pub faults: String,
    /// Number of the first injection.
    pub first: u64,
    /// Number of injections.
    pub injections: u64,
    /// Faults in the fault space.
    pub population: u64,
    /// Where the stratum was ended before its last injection, because its intervals were narrow enough: the injections done.
    pub stopped_after: Option<u64>,
}

/// A part of the results: the injections whose number leaves the remainder `part - 1` when divided by `parts`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// From 1.
    pub part: u64,
    /// 1 for a whole campaign.
    pub parts: u64,
}

impl Shard {
    /// The whole.
    pub const WHOLE: Shard = Shard { part: 1, parts: 1 };

    /// True for the numbers of its injections.
    pub const fn has(self, id: u64) -> bool {
        id % self.parts == self.part - 1
    }
}
