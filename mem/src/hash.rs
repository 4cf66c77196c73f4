//! The state hash: one number for everything the guest's future depends on (design D6).

use xxhash_rust::xxh3::Xxh3;

/// Collects state in a fixed order. Integers enter as little-endian bytes, so the result does not depend on the host.
pub struct StateHasher(Box<Xxh3>);

impl Default for StateHasher {
    fn default() -> Self {
        Self::new()
    }
}

impl StateHasher {
    /// A hasher without input.
    pub fn new() -> Self {
        Self(Box::new(Xxh3::new()))
    }

    /// Adds bytes. Sequences of variable length need their length added first.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Adds an integer.
    pub fn u64(&mut self, value: u64) {
        self.0.update(&value.to_le_bytes());
    }

    /// Adds an integer.
    pub fn u128(&mut self, value: u128) {
        self.0.update(&value.to_le_bytes());
    }

    /// The hash of everything added so far (XXH3-128).
    pub fn finish(&self) -> u128 {
        self.0.digest128()
    }
}
