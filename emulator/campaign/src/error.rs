//! Why a campaign cannot start, or not go on.

use crate::files::reason;
use std::fmt::Display;
use std::io;
use std::path::Path;
use thiserror::Error;

/// The message names the thing, and says what would be accepted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CampaignError {
    /// What was asked for is impossible. Nothing was changed.
    #[error("{0}")]
    Input(String),
    /// The host let us down. The results so far are in the directory of the campaign.
    #[error("{0}")]
    Host(String),
}

/// What most functions here return.
pub type Result<T> = std::result::Result<T, CampaignError>;

/// Refuses something.
pub(crate) fn refuse<T>(what: impl Display, accepted: impl Display) -> Result<T> {
    Err(CampaignError::Input(format!("{what}; accepted: {accepted}")))
}

/// A file that cannot be read or written.
pub(crate) fn host(path: &Path, e: &io::Error) -> CampaignError {
    CampaignError::Host(format!("{}: {}", path.display(), reason(e)))
}
