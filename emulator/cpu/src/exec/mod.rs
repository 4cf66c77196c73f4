//! What instructions do, by family.

pub mod general;
pub mod simd;
pub mod system;
pub mod x87;
