//! Linear address to bus address to bytes (SDM Vol. 3A, ch. 4 "Paging" and ch. 12 "Memory Cache Control").
//!
//! Reading order: [`tlb`], [`walk`] (page tables), [`access`] (loads, stores and fetches that leave the fast path),
//! [`invalidate`] (what drops translations and shortcuts).

pub mod access;
pub mod invalidate;
pub mod tlb;
pub mod walk;

pub use mem::Access;
pub use walk::Privilege;

/// Cache-line instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlushKind {
    /// CLFLUSH, CLFLUSHOPT: write back and invalidate.
    Clflush,
    /// CLWB: write back, may stay.
    Clwb,
}
