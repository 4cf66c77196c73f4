//! Results in files: one Parquet file for each part of a campaign, one row for each injection. docs/campaign-results.md has
//! the format.
//!
//! A file appears whole or not at all, and its bytes are a pure function of what is written. [`read`] accepts what [`write`]
//! wrote and nothing else. [`merge`] joins the parts of a campaign.

mod bytes;
mod checksum;
mod columns;
mod file;
mod merge;

pub use file::{ResultsError, read, write};
pub use merge::{MergeError, merge};

use crate::meta::{Campaign, Shard};
use crate::row::Row;

/// Number of the format, kept in each file. Others are refused.
pub const FORMAT: u64 = 1;

/// What a file has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// What the rows are of.
    pub campaign: Campaign,
    /// Which of the injections the file is for. Not all of them need be there: a run may have been interrupted.
    pub shard: Shard,
    /// Sorted by number.
    pub rows: Vec<Row>,
}

#[cfg(test)]
mod tests;
