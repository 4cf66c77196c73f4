//! Pieces of guests that work on a line.

use iced_x86::IcedError;
use iced_x86::code_asm::*;

/// What assembling gives.
pub type Code = Result<(), IcedError>;

/// MKTME_KEY_PROGRAM_STRUCT
pub const KEY_PROGRAM: u64 = 0x50_0000;
/// The port of guest markers.
pub const MARKER: i32 = 0xE8;

/// Copies a line.
pub fn copy(a: &mut CodeAssembler, from: u64, to: u64) -> Code {
    a.mov(rax, from)?;
    a.mov(rbx, to)?;
    for n in 0..8 {
        a.mov(rcx, qword_ptr(rax + 8 * n))?;
        a.mov(qword_ptr(rbx + 8 * n), rcx)?;
    }
    Ok(())
}

/// Says where the guest is.
pub fn marker(a: &mut CodeAssembler, value: i32) -> Code {
    a.mov(eax, value)?;
    a.out(MARKER, al)
}

/// Gives a KeyID a random key, with the algorithm of this number in ENC_ALG.
pub fn pconfig_random(a: &mut CodeAssembler, keyid: u64, algorithm: u64) -> Code {
    const SET_KEY_RANDOM: u64 = 1;
    a.mov(rax, KEY_PROGRAM)?;
    a.mov(rcx, keyid | (algorithm << 8 | SET_KEY_RANDOM) << 16)?;
    a.mov(qword_ptr(rax), rcx)?;
    a.mov(rbx, KEY_PROGRAM)?;
    a.mov(eax, 0)?;
    a.pconfig()
}
