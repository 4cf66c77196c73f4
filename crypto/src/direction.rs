//! Encryption and decryption as type parameters.

use aes::Block;
use aes::cipher::consts::U16;
use aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, BlockSizeUser};

use crate::line::{CipherLine, LINE_BYTES, PlainLine};

/// Which way a batch goes. A type parameter, so that each direction is its own straight-line code.
pub(crate) trait Direction {
    /// The bytes of what the direction reads.
    type Source;
    /// The bytes of what the direction writes.
    type Target;
    /// The direction as a value.
    const DECRYPTS: bool;

    fn bytes(source: &Self::Source) -> &[u8; LINE_BYTES];
    fn bytes_mut(target: &mut Self::Target) -> &mut [u8; LINE_BYTES];
    fn blocks<C>(cipher: &C, blocks: &mut [Block])
    where
        C: BlockCipherEncrypt + BlockCipherDecrypt + BlockSizeUser<BlockSize = U16>;
}

pub(crate) enum Encrypt {}

impl Direction for Encrypt {
    type Source = PlainLine;
    type Target = CipherLine;
    const DECRYPTS: bool = false;

    #[inline(always)]
    fn bytes(source: &PlainLine) -> &[u8; LINE_BYTES] {
        &source.0
    }

    #[inline(always)]
    fn bytes_mut(target: &mut CipherLine) -> &mut [u8; LINE_BYTES] {
        &mut target.0
    }

    #[inline(always)]
    fn blocks<C>(cipher: &C, blocks: &mut [Block])
    where
        C: BlockCipherEncrypt + BlockCipherDecrypt + BlockSizeUser<BlockSize = U16>,
    {
        cipher.encrypt_blocks(blocks);
    }
}

pub(crate) enum Decrypt {}

impl Direction for Decrypt {
    type Source = CipherLine;
    type Target = PlainLine;
    const DECRYPTS: bool = true;

    #[inline(always)]
    fn bytes(source: &CipherLine) -> &[u8; LINE_BYTES] {
        &source.0
    }

    #[inline(always)]
    fn bytes_mut(target: &mut PlainLine) -> &mut [u8; LINE_BYTES] {
        &mut target.0
    }

    #[inline(always)]
    fn blocks<C>(cipher: &C, blocks: &mut [Block])
    where
        C: BlockCipherEncrypt + BlockCipherDecrypt + BlockSizeUser<BlockSize = U16>,
    {
        cipher.decrypt_blocks(blocks);
    }
}
