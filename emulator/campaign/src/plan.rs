//! Plans: what a campaign is, as a TOML file. docs/campaigns.md is the user's page.

use crate::error::{CampaignError, Result, refuse};
use crate::files::reason;
use crate::stats::Confidence;
use regex::bytes::Regex;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A plan as it was written. Paths are relative to its directory.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Plan {
    /// Name of the campaign.
    pub name: String,
    /// What the choice of faults follows from.
    #[serde(default)]
    pub seed: u64,
    /// What runs.
    pub guest: Guest,
    /// Keys of a machine file, which change the machine of `guest.machine` or the default one.
    #[serde(default)]
    pub machine: toml::Table,
    /// The run without a fault.
    pub golden: GoldenPlan,
    /// What the results of the guest are.
    #[serde(default)]
    pub oracle: Oracle,
    /// What counts as noticed.
    #[serde(default)]
    pub detected: Detected,
    /// What counts as a crash besides the end of the run before the verdict.
    #[serde(default)]
    pub crash: Crash,
    /// How exact the results shall be.
    #[serde(default)]
    pub statistics: Statistics,
    /// Named sets for holes in faults.
    #[serde(default)]
    pub set: BTreeMap<String, SetPlan>,
    /// Names of the phases that begin with a marker: its value, and the name.
    #[serde(default)]
    pub phase: BTreeMap<String, String>,
    /// The fault spaces.
    #[serde(default)]
    pub stratum: Vec<StratumPlan>,
}

impl Plan {
    /// Confidence level of intervals in parts per million.
    pub fn confidence_ppm(&self) -> u32 {
        const MILLION: f64 = 1e6;
        (self.statistics.confidence * MILLION).round() as u32
    }

    /// Confidence level of intervals.
    ///
    /// # Errors
    /// It is none.
    pub fn confidence(&self) -> Result<Confidence> {
        match Confidence::from_ppm(self.confidence_ppm()) {
            Some(confidence) => Ok(confidence),
            None => {
                let level = self.statistics.confidence;
                refuse(format_args!("statistics.confidence = {level}"), "above 0 and below 1, say 0.95")
            }
        }
    }
}

/// What runs: an image that is booted, or a snapshot.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Guest {
    /// Kernel; without it and `loadvm` the embedded guest.
    pub kernel: Option<PathBuf>,
    /// Initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// Command line.
    #[serde(default)]
    pub append: String,
    /// System.map or ELF file for symbols in faults; without it the kernel, if it is an ELF file.
    pub symbols: Option<PathBuf>,
    /// A snapshot by `run --savevm`, instead of an image.
    pub loadvm: Option<PathBuf>,
    /// A machine file (docs/machine-file.md).
    pub machine: Option<PathBuf>,
}

/// The golden run.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct GoldenPlan {
    /// Where it starts.
    #[serde(default)]
    pub start: Place,
    /// Where the verdict is.
    pub end: Place,
    /// Instructions after which there is no golden run.
    #[serde(default = "golden_limit")]
    pub limit: u64,
    /// Instructions that an injection may take, as a multiple of the golden run's.
    #[serde(default = "budget")]
    pub budget: f64,
}

fn golden_limit() -> u64 {
    100_000_000_000
}

fn budget() -> f64 {
    3.0
}

/// What the results of the guest are.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Oracle {
    /// What counts of the console: what this expression matches, or its first group. Without it all output.
    pub console: Option<Expression>,
    /// Memory at the end: `ADDRESS+BYTES` or `ADDRESS+BYTES,keyid=K`.
    #[serde(default)]
    pub memory: Vec<Region>,
}

/// Memory as it is read through a KeyID and the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// Physical address without KeyID.
    pub address: u64,
    /// Length.
    pub bytes: u64,
    /// The KeyID.
    pub keyid: u16,
}

/// What counts as noticed. Machine checks always do.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Detected {
    /// Console output.
    pub console: Vec<Expression>,
    /// Values of markers.
    pub markers: Vec<u32>,
}

impl Default for Detected {
    fn default() -> Self {
        Detected { console: vec![Expression::known("Kernel panic")], markers: Vec::new() }
    }
}

/// What counts as a crash.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Crash {
    /// Console output.
    pub console: Vec<Expression>,
}

impl Default for Crash {
    fn default() -> Self {
        // What Linux and its shells say.
        let known = ["BUG: ", "Oops", "general protection", "segfault at", "Segmentation fault", "Illegal instruction"];
        Crash { console: known.into_iter().map(Expression::known).collect() }
    }
}

/// How exact the results shall be.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Statistics {
    /// Confidence level of intervals.
    pub confidence: f64,
    /// Half the width that intervals shall have at most.
    pub margin: f64,
    /// End a stratum once its intervals are so narrow.
    pub stop: bool,
    /// Injections between two looks at the intervals.
    pub batch: u64,
}

impl Default for Statistics {
    fn default() -> Self {
        Statistics { confidence: 0.95, margin: 0.01, stop: false, batch: 500 }
    }
}

/// A named set: lines, values, or what the guest printed before the golden run.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct SetPlan {
    /// `FROM..TO`: lines of an address range.
    pub lines: Option<String>,
    /// Any words.
    pub values: Option<Vec<String>>,
    /// The first group is an address, the second, or `bytes`, a length: the lines there. Without a length the first group is
    /// the one value.
    pub console: Option<Expression>,
    /// See `console`.
    pub bytes: Option<u64>,
}

/// A fault space.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct StratumPlan {
    /// Its name.
    pub name: String,
    /// A fault as `run --inject` takes it, with holes in braces.
    pub faults: String,
    /// How many.
    #[serde(default)]
    pub injections: Amount,
}

/// Injections of a stratum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(untagged)]
pub enum Amount {
    /// So many, or the whole fault space if it is smaller.
    Number(u64),
    /// Every fault of the space.
    All(All),
    /// As many as `statistics` asks for.
    #[default]
    Enough,
}

/// The word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum All {
    All,
}

/// A point of a run.
#[derive(Debug, Clone, Default)]
pub enum Place {
    /// Where the guest starts, or the snapshot stands.
    #[default]
    Begin,
    /// So many instructions have retired.
    Icount(u64),
    /// A marker of this value.
    Marker(u32),
    /// A line of console output.
    Console(Expression),
    /// Power-off or the debug-exit port.
    Exit,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Begin => write!(f, "begin"),
            Place::Icount(n) => write!(f, "icount:{n}"),
            Place::Marker(value) => write!(f, "marker:{value:#x}"),
            Place::Console(expression) => write!(f, "console:{}", expression.0),
            Place::Exit => write!(f, "exit"),
        }
    }
}

const PLACES: &str = "begin, icount:N, marker:VALUE, console:REGEX, exit";

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Place, String> {
        let wrong = || format!("{text:?}; accepted: {PLACES}");
        let value = |text: &str| machine::inject::number(text).ok_or_else(wrong);
        match text.split_once(':') {
            None if text == "begin" => Ok(Place::Begin),
            None if text == "exit" => Ok(Place::Exit),
            Some(("icount", n)) => Ok(Place::Icount(value(n)?)),
            Some(("marker", n)) => Ok(Place::Marker(u32::try_from(value(n)?).map_err(|_| wrong())?)),
            Some(("console", regex)) => Ok(Place::Console(regex.parse()?)),
            _ => Err(wrong()),
        }
    }
}

/// A regular expression for console output.
#[derive(Debug, Clone)]
pub struct Expression(pub Regex);

impl Expression {
    fn known(text: &str) -> Expression {
        // Escaped text is an expression.
        Expression(Regex::new(&regex::escape(text)).unwrap_or_else(|_| unreachable!("escaped text is an expression")))
    }
}

impl FromStr for Expression {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Expression, String> {
        Regex::new(text).map(Expression).map_err(|e| {
            let reason = e.to_string().lines().last().unwrap_or_default().to_owned();
            format!("{text:?}: {reason}; accepted: a regular expression")
        })
    }
}

impl FromStr for Region {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Region, String> {
        let wrong = || format!("{text:?}; accepted: ADDRESS+BYTES, ADDRESS+BYTES,keyid=K");
        let number = |text: &str| machine::inject::number(text).ok_or_else(wrong);
        let (place, keyid) = text.split_once(",keyid=").unwrap_or((text, "0"));
        let (address, bytes) = place.split_once('+').ok_or_else(wrong)?;
        let (address, bytes) = (number(address)?, number(bytes)?);
        if bytes == 0 || bytes > 1 << 30 {
            return Err(format!("{text:?}: {bytes} bytes; accepted: 1 to 1 GiB"));
        }
        Ok(Region { address, bytes, keyid: u16::try_from(number(keyid)?).map_err(|_| wrong())? })
    }
}

/// Text in the file.
macro_rules! from_text {
    ($($of:ty),*) => {$(
        impl<'de> Deserialize<'de> for $of {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
from_text!(Place, Expression, Region);

/// A plan, its text, and where it is.
#[derive(Debug, Clone)]
pub struct PlanFile {
    pub plan: Plan,
    pub text: String,
    /// What paths are relative to.
    pub directory: PathBuf,
    /// For messages.
    pub path: PathBuf,
}

impl PlanFile {
    /// Reads a plan.
    ///
    /// # Errors
    /// A file that cannot be read, or that is no plan.
    pub fn read(path: &Path) -> Result<PlanFile> {
        const ACCEPTED: &str = "a campaign plan (docs/campaigns.md)";
        let text = std::fs::read_to_string(path)
            .map_err(|e| CampaignError::Input(format!("{}: {}; accepted: {ACCEPTED}", path.display(), reason(&e))))?;
        // The parent of a bare name is empty.
        let directory = path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new(".")).to_owned();
        PlanFile::parse(text, directory, path)
    }

    /// Reads the text of a plan; `path` is for messages.
    ///
    /// # Errors
    /// It is no plan.
    pub fn parse(text: String, directory: PathBuf, path: &Path) -> Result<PlanFile> {
        let plan: Plan = toml::from_str(&text)
            .map_err(|e| CampaignError::Input(format!("{}: {}", path.display(), e.to_string().trim_end())))?;
        let file = PlanFile { plan, text, directory, path: path.to_owned() };
        file.check()?;
        Ok(file)
    }

    fn check(&self) -> Result<()> {
        let Plan { golden, statistics, stratum, guest, .. } = &self.plan;
        let at = self.path.display();
        if stratum.is_empty() {
            return refuse(format_args!("{at}: no faults"), "at least one [[stratum]] with `name` and `faults`");
        }
        for (n, one) in stratum.iter().enumerate() {
            if stratum[..n].iter().any(|other| other.name == one.name) {
                return refuse(format_args!("{at}: two strata are named {:?}", one.name), "names that differ");
            }
            if one.injections == Amount::Number(0) {
                return refuse(format_args!("{at}: stratum {:?}: 0 injections", one.name), "a number, or \"all\"");
            }
        }
        if !(golden.budget >= 1.0 && golden.budget <= 1e6) {
            return refuse(format_args!("{at}: golden.budget = {}", golden.budget), "1 to 1e6");
        }
        if let Place::Exit = golden.start {
            return refuse(
                format_args!("{at}: golden.start = \"exit\""),
                "begin, icount:N, marker:VALUE, console:REGEX",
            );
        }
        if let Place::Begin = golden.end {
            return refuse(format_args!("{at}: golden.end = \"begin\""), "icount:N, marker:VALUE, console:REGEX, exit");
        }
        self.plan.confidence()?;
        if !(statistics.margin > 0.0 && statistics.margin < 0.5) {
            return refuse(format_args!("{at}: statistics.margin = {}", statistics.margin), "0 to 0.5, say 0.01");
        }
        if statistics.batch == 0 {
            return refuse(format_args!("{at}: statistics.batch = 0"), "a number from 1 on");
        }
        if guest.loadvm.is_some() && (guest.kernel.is_some() || guest.initrd.is_some() || !guest.append.is_empty()) {
            return refuse(format_args!("{at}: guest.loadvm together with an image"), "one of the two");
        }
        if guest.initrd.is_some() && guest.kernel.is_none() {
            return refuse(format_args!("{at}: guest.initrd: the embedded guest takes none"), "guest.kernel with it");
        }
        Ok(())
    }
}
