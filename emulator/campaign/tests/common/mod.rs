//! Campaigns with the embedded guest, which writes a text of two lines through KeyID 1 to 21E000H, flushes it, and reads it back.
#![allow(dead_code, reason = "each test uses some")]

use campaign::engine::{self, Finished, Observer, Options};
use campaign::error::Result;
use campaign::experiment::{Ready, Shortcuts};
use campaign::golden::Start;
use campaign::journal::Journal;
use campaign::meta::Shard;
use campaign::plan::PlanFile;
use campaign::row::Row;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// The guest, with strata.
pub fn plan(strata: &str) -> String {
    format!(
        r#"
name = "test"
seed = 3
[machine]
memory = "64M"
[guest]
[golden]
start = "icount:100000"
end = "exit"
{strata}
"#
    )
}

pub fn read(text: &str) -> Result<PlanFile> {
    PlanFile::parse(text.to_owned(), PathBuf::new(), Path::new("plan.toml"))
}

pub fn prepare(text: &str) -> Result<Ready> {
    let file = read(text)?;
    let start = Start::reach(&file, &mut |_| {})?;
    Ready::prepare(file, &start, &mut |_| {})
}

/// A directory that goes when the test is over.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new() -> Scratch {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("mktme-campaign-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a directory");
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Stops after so many rows.
pub struct StopAfter(pub u64);

impl Observer for StopAfter {
    fn row(&mut self, _: &Row, _: u64, _: u64) {
        self.0 = self.0.saturating_sub(1);
    }

    fn go_on(&mut self) -> bool {
        self.0 > 0
    }
}

pub fn options() -> Options {
    Options { shard: Shard::WHOLE, jobs: 2, shortcuts: Shortcuts::ALL }
}

/// Runs a campaign with a journal of its own.
pub fn run(ready: &Arc<Ready>, options: Options) -> Result<Finished> {
    let scratch = Scratch::new();
    let (mut journal, rows) = Journal::open(&scratch.0.join("journal"), &ready.campaign, options.shard)?;
    engine::run(ready, &mut journal, rows, options, &mut StopAfter(u64::MAX))
}
