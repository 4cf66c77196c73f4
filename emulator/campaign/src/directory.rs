//! The directory of a campaign:
//!
//! | file | what it is |
//! |---|---|
//! | `plan.toml` | the plan |
//! | `start.snap` | where injections start; `run --loadvm` takes it |
//! | `start.json` | what `start.snap` follows from, and what the guest had said before |
//! | `results.journal`, `part-K-of-N.journal` | rows, while the campaign runs |
//! | `results.parquet`, `part-K-of-N.parquet` | rows, when it is over |

use crate::error::{CampaignError, Result, host};
use crate::files::{put, reason};
use crate::golden::{Start, Tick, config};
use crate::meta::Shard;
use crate::plan::PlanFile;
use machine::Snapshot;
use machine::snapshot::FORMAT;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::xxh3_128;

/// A directory that a campaign has, or will have.
#[derive(Debug, Clone)]
pub struct Directory(PathBuf);

/// `start.json`
#[derive(Serialize, Deserialize)]
struct StartRecord {
    /// Of everything that the snapshot follows from.
    key: String,
    /// Where the plan was, which its paths are relative to.
    plan_directory: PathBuf,
    console: Vec<u8>,
}

impl Directory {
    /// A directory, which need not exist.
    pub fn new(path: &Path) -> Directory {
        Directory(path.to_owned())
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The journal of a shard.
    pub fn journal(&self, shard: Shard) -> PathBuf {
        self.0.join(part_name(shard, "journal"))
    }

    /// The results of a shard.
    pub fn results(&self, shard: Shard) -> PathBuf {
        self.0.join(part_name(shard, "parquet"))
    }

    /// The snapshot from which injections start.
    pub fn start_snapshot(&self) -> PathBuf {
        self.0.join("start.snap")
    }

    /// The plan that it was made from.
    ///
    /// # Errors
    /// There is none, or it is damaged.
    pub fn plan(&self) -> Result<PlanFile> {
        let path = self.0.join("plan.toml");
        let text = std::fs::read_to_string(&path).map_err(|e| {
            let why = reason(&e);
            CampaignError::Input(format!("{}: {why}; accepted: a directory that campaign run wrote", path.display()))
        })?;
        let directory = self.record().map(|record| record.plan_directory).unwrap_or_default();
        PlanFile::parse(text, directory, &path)
    }

    fn record(&self) -> Option<StartRecord> {
        serde_json::from_slice(&std::fs::read(self.0.join("start.json")).ok()?).ok()
    }

    /// Where injections start: from the snapshot in the directory if the plan, its files and this program are the same as
    /// then, from a boot otherwise. `writes`: the directory gets what is new.
    ///
    /// # Errors
    /// A guest that does not come there; a directory that cannot be written.
    pub fn start(&self, file: &PlanFile, writes: bool, tick: Tick) -> Result<Start> {
        let key = start_key(file)?;
        if let Some(record) = self.record().filter(|record| record.key == key)
            && let Ok(snapshot) = Snapshot::load(&self.start_snapshot(), &mut |_, _| {})
        {
            return Ok(Start { snapshot, console: record.console });
        }
        let start = Start::reach(file, tick)?;
        if writes {
            self.write(file, key, &start)?;
        }
        Ok(start)
    }

    /// The start that the directory has, whatever has become of the files that it was made from.
    ///
    /// # Errors
    /// There is none, or it is damaged.
    pub fn kept_start(&self) -> Result<Start> {
        let (snap, record) = (self.start_snapshot(), self.0.join("start.json"));
        const ACCEPTED: &str = "accepted: a directory that campaign run wrote";
        let console = match self.record() {
            Some(record) => record.console,
            None => {
                let what = format!("{}: missing or damaged; {ACCEPTED}", record.display());
                return Err(CampaignError::Input(what));
            }
        };
        let snapshot = Snapshot::load(&snap, &mut |_, _| {});
        let snapshot = snapshot.map_err(|e| CampaignError::Input(format!("{}: {e}; {ACCEPTED}", snap.display())))?;
        Ok(Start { snapshot, console })
    }

    fn write(&self, file: &PlanFile, key: String, start: &Start) -> Result<()> {
        std::fs::create_dir_all(&self.0).map_err(|e| host(&self.0, &e))?;
        let snap = self.start_snapshot();
        start
            .snapshot
            .save(&snap, &mut |_, _| {})
            .map_err(|e| CampaignError::Host(format!("{}: {e}", snap.display())))?;
        let plan_directory = std::path::absolute(&file.directory).map_err(|e| host(&file.directory, &e))?;
        let record = StartRecord { key, plan_directory, console: start.console.clone() };
        let record = serde_json::to_vec(&record).map_err(|e| CampaignError::Host(e.to_string()))?;
        for (name, bytes) in [("start.json", &record[..]), ("plan.toml", file.text.as_bytes())] {
            let path = self.0.join(name);
            put(&path, bytes).map_err(|e| host(&path, &e))?;
        }
        Ok(())
    }
}

fn part_name(shard: Shard, extension: &str) -> String {
    match shard {
        Shard { parts: 1, .. } => format!("results.{extension}"),
        Shard { part, parts } => format!("part-{part}-of-{parts}.{extension}"),
    }
}

/// A hash of everything that the start follows from: two that are equal start alike.
fn start_key(file: &PlanFile) -> Result<String> {
    let guest = &file.plan.guest;
    let mut text = format!("{FORMAT} {} {} {}\n", env!("CARGO_PKG_VERSION"), guest.append, file.plan.golden.start);
    if guest.loadvm.is_none() {
        text.push_str(&config(file)?.to_file());
    }
    for path in [&guest.kernel, &guest.initrd, &guest.loadvm].into_iter().flatten() {
        let path = file.directory.join(path);
        // A file that has gone is missed where it is needed.
        let hash = std::fs::read(&path).map(|bytes| xxh3_128(&bytes)).unwrap_or_default();
        text.push_str(&format!("{} {hash:032x}\n", path.display()));
    }
    Ok(format!("{:032x}", xxh3_128(text.as_bytes())))
}
