//! What instructions do, by family.

use crate::ExecFn;
use iced_x86::Code;

pub mod cold;
pub mod int;
pub mod legacy;
pub mod simd;
pub mod system;
pub mod x87;

/// The semantics of an instruction that has no hot handler.
pub fn lookup(_code: Code) -> Option<ExecFn> {
    None
}
