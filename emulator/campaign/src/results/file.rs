//! Results files: read whole, written whole or not at all.

use super::bytes::{pack, unpack};
use super::{FORMAT, Table};
use crate::files::{put, reason};
use crate::meta::{Campaign, Shard};
use crate::row::Row;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// Why results could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ResultsError {
    /// The host's answer.
    #[error("{path}: {}; accepted: {}", reason(error), if *writing { "a file that can be written" } else { "results of a campaign" }, path = path.display())]
    Io {
        /// Of which file.
        path: PathBuf,
        /// While writing, not reading.
        writing: bool,
        /// What it said.
        error: io::Error,
    },
    /// The file is something else, or not what was written.
    #[error("{}: not results of a campaign: {why}; accepted: a Parquet file of `campaign run` or `campaign merge`, format {FORMAT}", path.display())]
    Invalid {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The rows could not be packed.
    #[error("{}: results cannot be packed: {why}", path.display())]
    Pack {
        /// Which file.
        path: PathBuf,
        /// What is wrong with them.
        why: String,
    },
}

/// Writes the results of a part of a campaign, in place of a file of that name. The order of `rows` does not matter.
///
/// # Errors
/// Those of the host, and two rows of the same number. The file of that name, if there is one, is as it was then.
pub fn write(path: &Path, campaign: &Campaign, shard: Shard, rows: &[Row]) -> Result<(), ResultsError> {
    let cannot = |why: String| ResultsError::Pack { path: path.into(), why };
    let mut sorted: Vec<&Row> = rows.iter().collect();
    sorted.sort_by_key(|row| row.id);
    if let Some(pair) = sorted.windows(2).find(|pair| pair[0].id == pair[1].id) {
        return Err(cannot(format!("injection {} is there twice", pair[0].id)));
    }
    let bytes = pack(campaign, shard, &sorted).map_err(|e| cannot(e.to_string()))?;
    put(path, &bytes).map_err(|error| ResultsError::Io { path: path.into(), writing: true, error })
}

/// Reads the results of a part of a campaign.
///
/// # Errors
/// What is not exactly what [`write`] wrote.
pub fn read(path: &Path) -> Result<Table, ResultsError> {
    let bytes = fs::read(path).map_err(|error| ResultsError::Io { path: path.into(), writing: false, error })?;
    unpack(bytes).map_err(|why| ResultsError::Invalid { path: path.into(), why })
}
