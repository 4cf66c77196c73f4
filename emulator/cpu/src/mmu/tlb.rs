//! The translation lookaside buffers.

/// Translations cached by linear page.
#[derive(Debug, Default)]
pub struct Tlb {}
