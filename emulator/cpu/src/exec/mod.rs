//! What instructions do, by family.
//!
//! Reading order: [`int`] (hot handlers), [`cold`] (how the others are called), then the families: [`general`] (the
//! rest of the general-purpose instructions), [`legacy`] (stack and near transfers in all modes), [`system`], [`x87`],
//! [`simd`].

use crate::ExecFn;
use iced_x86::Code;

pub mod cold;
pub mod general;
pub mod int;
pub mod legacy;
pub mod simd;
pub mod system;
pub mod x87;

/// True on an AMD host (or a relative of one), for tests against the host's own instructions.
#[cfg(test)]
fn host_is_amd() -> bool {
    let leaf = std::arch::x86_64::__cpuid(0);
    // "AuthenticAMD", "HygonGenuine"
    leaf.ebx == u32::from_le_bytes(*b"Auth") || leaf.ebx == u32::from_le_bytes(*b"Hygo")
}

/// The semantics of an instruction that has no hot handler, or whose form has none.
pub fn lookup(code: Code) -> Option<ExecFn> {
    general::lookup(code)
        .or_else(|| legacy::lookup_legacy(code))
        .or_else(|| system::transfer::lookup(code))
        .or_else(|| system::sysregs::lookup(code))
        .or_else(|| simd::lookup(code))
        .or_else(|| x87::lookup(code))
}
