//! Memory (placeholder for the interface that is being built).
pub struct Memory;
pub struct FastTable;
