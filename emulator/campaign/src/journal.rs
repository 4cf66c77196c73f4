//! The journal of a campaign under way: a line of JSON for each injection that is done.
//!
//! Lines are appended whole. A process that is killed loses at most the line under way, which is cut off when the journal is opened
//! again; a disk that is full, too.

use crate::error::{CampaignError, Result, host, refuse};
use crate::meta::{Campaign, Shard};
use crate::row::Row;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    identity: String,
    shard: Shard,
}

/// An open journal. Nobody else can open it meanwhile.
pub struct Journal {
    path: PathBuf,
    file: File,
}

impl Journal {
    /// Opens a journal, or starts one, and returns the rows that it has by number.
    ///
    /// # Errors
    /// A journal of another campaign, or one that is damaged before its last line, or that another process writes.
    pub fn open(path: &Path, campaign: &Campaign, shard: Shard) -> Result<(Journal, BTreeMap<u64, Row>)> {
        let wrong = |e: &std::io::Error| host(path, e);
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path).map_err(|e| wrong(&e))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return refuse(format_args!("{}: another process writes it", path.display()), "one process at a time");
            }
            // A file system without locks.
            Err(TryLockError::Error(_)) => {}
        }
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(|e| wrong(&e))?;
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let (head, rows) = read(path, &text[..whole])?;
        let mut journal = Journal { path: path.to_owned(), file };
        match head {
            Some(head) if head.identity != campaign.identity => {
                return refuse(
                    format_args!("{}: the results of another campaign, or of another plan or guest", path.display()),
                    "another directory for this one",
                );
            }
            Some(head) if head.shard != shard => {
                return refuse(
                    format_args!("{}: part {} of {}", path.display(), head.shard.part, head.shard.parts),
                    "the same --shard, or another directory",
                );
            }
            Some(_) => {
                journal
                    .file
                    .set_len(whole as u64)
                    .and_then(|()| journal.file.seek(SeekFrom::End(0)))
                    .map_err(|e| wrong(&e))?;
            }
            None => {
                journal.file.set_len(0).map_err(|e| wrong(&e))?;
                journal.line(&Head { identity: campaign.identity.clone(), shard })?;
            }
        }
        Ok((journal, rows))
    }

    /// Appends a row.
    ///
    /// # Errors
    /// Those of the file; what was appended before stays.
    pub fn push(&mut self, row: &Row) -> Result<()> {
        self.line(row)
    }

    fn line(&mut self, what: &impl Serialize) -> Result<()> {
        let mut line = serde_json::to_vec(what).map_err(|e| CampaignError::Host(e.to_string()))?;
        line.push(b'\n');
        self.file.write_all(&line).map_err(|e| {
            CampaignError::Host(format!(
                "{}; the results before it are kept, run the same command again",
                host(&self.path, &e)
            ))
        })
    }

    /// Makes durable what was appended.
    ///
    /// # Errors
    /// Those of the file.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(|e| host(&self.path, &e))
    }
}

fn read(path: &Path, text: &[u8]) -> Result<(Option<Head>, BTreeMap<u64, Row>)> {
    let damaged = |number: usize, e: &dyn std::fmt::Display| {
        CampaignError::Input(format!(
            "{}: line {}: {e}; accepted: a journal that campaign run wrote; delete the file to start again",
            path.display(),
            number + 1
        ))
    };
    let mut lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).enumerate();
    let head = lines.next().map(|(n, line)| serde_json::from_slice(line).map_err(|e| damaged(n, &e))).transpose()?;
    let mut rows = BTreeMap::new();
    for (n, line) in lines {
        let row: Row = serde_json::from_slice(line).map_err(|e| damaged(n, &e))?;
        rows.insert(row.id, row);
    }
    Ok((head, rows))
}

/// The rows of a journal, whoever writes it.
///
/// # Errors
/// A file that is no journal.
pub fn rows(path: &Path) -> Result<Vec<Row>> {
    let text = std::fs::read(path).map_err(|e| host(path, &e))?;
    let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    Ok(read(path, &text[..whole])?.1.into_values().collect())
}
