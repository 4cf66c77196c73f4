//! Counters. They are not state: the state hash leaves them out.

use crate::addr::{KeyId, LINE_BYTES};

/// Traffic of one KeyID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct KeyStats {
    /// Lines read from DRAM into the cache.
    pub fills: u64,
    /// Lines written back from the cache to DRAM.
    pub write_backs: u64,
}

/// Traffic below the cache since the start of the run.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub struct Stats {
    per_key: Vec<KeyStats>,
    /// Bytes that went through the cipher towards DRAM.
    pub bytes_encrypted: u64,
    /// Bytes that went through the cipher from DRAM.
    pub bytes_decrypted: u64,
    /// Lines read whose MAC or owner bit was wrong (MC-32).
    pub mac_mismatches: u64,
    /// Loads, fetches and page walks that met poison.
    pub poison_consumed: u64,
}

impl Stats {
    pub(crate) fn new(keyids: usize) -> Self {
        Self { per_key: vec![KeyStats::default(); keyids], ..Self::default() }
    }

    /// Counters by KeyID, from KeyID 0 to the largest that fits in an address.
    pub fn per_key(&self) -> &[KeyStats] {
        &self.per_key
    }

    /// Fills of all KeyIDs.
    pub fn fills(&self) -> u64 {
        self.per_key.iter().map(|key| key.fills).sum()
    }

    /// Write-backs of all KeyIDs.
    pub fn write_backs(&self) -> u64 {
        self.per_key.iter().map(|key| key.write_backs).sum()
    }

    /// KeyIDs that are counted.
    pub(crate) fn keyids(&self) -> usize {
        self.per_key.len()
    }

    #[inline]
    pub(crate) fn count_fill(&mut self, keyid: KeyId) {
        if let Some(key) = self.per_key.get_mut(usize::from(keyid.0)) {
            key.fills += 1;
        }
    }

    #[inline]
    pub(crate) fn count_write_back(&mut self, keyid: KeyId) {
        if let Some(key) = self.per_key.get_mut(usize::from(keyid.0)) {
            key.write_backs += 1;
        }
    }

    #[inline]
    pub(crate) fn count_encrypted(&mut self, lines: usize) {
        self.bytes_encrypted += (lines * LINE_BYTES) as u64;
    }

    #[inline]
    pub(crate) fn count_decrypted(&mut self, lines: usize) {
        self.bytes_decrypted += (lines * LINE_BYTES) as u64;
    }
}
