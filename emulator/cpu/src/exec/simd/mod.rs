//! MMX, SSE to SSE4.2, AES-NI, PCLMULQDQ in their legacy encodings (SDM Vol. 1, chapters 9 to 12; Vol. 2).
//!
//! Integer instructions are pure functions of vectors (`arithmetic`, `shuffle`, `crypto`, `string`) put into an operand
//! form (`operands`). Those of SSE2, which every x86-64 host has, are the host's own; later ones are computed.
//! Floating-point instructions run on the host's SSE unit (`host`) under the guest's rounding controls with all
//! exceptions masked; `float` then derives what the guest's masks make of them. RCPPS and RSQRTPS are the exception:
//! their results differ between processors, so they are computed here (`approximate`).

mod approximate;
mod arithmetic;
mod convert;
mod crypto;
mod float;
mod format;
mod host;
pub mod hot;
mod lanes;
mod mxcsr;
mod operands;
mod round;
mod shuffle;
mod string;
mod transfer;

pub use host::host_supported;

use crate::ExecFn;
use iced_x86::Code;

/// The semantics of `code`, if it belongs to this module. Fixed for a code: look it up at translation time.
pub fn lookup(code: Code) -> Option<ExecFn> {
    transfer::lookup(code)
        .or_else(|| arithmetic::lookup(code))
        .or_else(|| shuffle::lookup(code))
        .or_else(|| float::lookup(code))
        .or_else(|| convert::lookup(code))
        .or_else(|| approximate::lookup(code))
        .or_else(|| round::lookup(code))
        .or_else(|| string::lookup(code))
        .or_else(|| crypto::lookup(code))
}

#[cfg(test)]
mod tests;
