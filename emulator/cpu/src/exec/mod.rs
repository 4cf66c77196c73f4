//! What instructions do, by family.

pub mod legacy;
pub mod simd;
pub mod system;
pub mod x87;
