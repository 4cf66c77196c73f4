//! The 64-byte line in its two forms.

use std::fmt;

/// Bytes in a cache line, which is also the data unit of the encryption engine.
pub const LINE_BYTES: usize = 64;

/// A line as caches and agents above the memory controller see it.
#[repr(C, align(64))]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PlainLine(pub [u8; LINE_BYTES]);

/// A line as DRAM holds it. Ciphertext for an encrypting KeyID; for KeyIDs in plaintext mode the controller stores the
/// same bytes here, see [`CipherLine::unencrypted`].
#[repr(C, align(64))]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CipherLine(pub [u8; LINE_BYTES]);

impl PlainLine {
    /// 64 zero bytes.
    pub const ZERO: Self = Self([0; LINE_BYTES]);

    /// What a KeyID in plaintext mode (KEYID_NO_ENCRYPT, TME bypass, exclusion range) reads from DRAM.
    #[inline]
    pub const fn unencrypted(line: &CipherLine) -> Self {
        Self(line.0)
    }
}

impl CipherLine {
    /// 64 zero bytes: a DRAM cell that was never written.
    pub const ZERO: Self = Self([0; LINE_BYTES]);

    /// What a KeyID in plaintext mode (KEYID_NO_ENCRYPT, TME bypass, exclusion range) puts into DRAM.
    #[inline]
    pub const fn unencrypted(line: &PlainLine) -> Self {
        Self(line.0)
    }
}

/// Prints the four AES blocks of a line as the specification does: hexadecimal, a space between blocks.
fn fmt_blocks(name: &str, bytes: &[u8; LINE_BYTES], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "{name}(")?;
    for (index, byte) in bytes.iter().enumerate() {
        let gap = if index > 0 && index % 16 == 0 { " " } else { "" };
        write!(f, "{gap}{byte:02x}")?;
    }
    f.write_str(")")
}

impl fmt::Debug for PlainLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt_blocks("PlainLine", &self.0, f)
    }
}

impl fmt::Debug for CipherLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt_blocks("CipherLine", &self.0, f)
    }
}
