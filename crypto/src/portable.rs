//! The portable kernel: XTS over whatever the `aes` crate finds on the host (VAES, AES-NI, ARMv8, constant-time software).
//!
//! A kernel is what works on one line or on a run of lines of one key. Those written for one instruction set stand beside
//! this one, behind the same two entry points.

use aes::Block;
use aes::cipher::consts::U16;
use aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, BlockSizeUser, KeyInit};

use crate::direction::Direction;
use crate::line::LINE_BYTES;
use crate::run::{LineRun, RUN_LINES};
use crate::tweak::{BLOCK_BYTES, BLOCKS_PER_LINE, line_tweaks, unit_block};

/// Lines whose data blocks are encrypted in one call: 16 lines of 4 blocks, again 64 blocks.
const DATA_RUN: usize = 16;

/// The XOR with the tweaks before the block cipher, from a line into its four blocks.
#[inline(always)]
fn whiten_in(source: &[u8; LINE_BYTES], tweaks: &[u128; BLOCKS_PER_LINE], blocks: &mut [Block]) {
    let (chunks, _) = source.as_chunks::<BLOCK_BYTES>();
    for ((block, chunk), tweak) in blocks.iter_mut().zip(chunks).zip(tweaks) {
        *block = (u128::from_le_bytes(*chunk) ^ tweak).to_le_bytes().into();
    }
}

/// The XOR with the tweaks after the block cipher, from four blocks into their line.
#[inline(always)]
fn whiten_out(blocks: &[Block], tweaks: &[u128; BLOCKS_PER_LINE], target: &mut [u8; LINE_BYTES]) {
    let (chunks, _) = target.as_chunks_mut::<BLOCK_BYTES>();
    for ((block, chunk), tweak) in blocks.iter().zip(chunks).zip(tweaks) {
        *chunk = (u128::from_le_bytes((*block).into()) ^ tweak).to_le_bytes();
    }
}

/// The expanded schedules of one key pair.
#[derive(Clone)]
pub(crate) struct Schedules<C, T> {
    /// K1 in both directions.
    data: C,
    /// K2, which only ever encrypts.
    tweak: T,
}

impl<C, T> Schedules<C, T>
where
    C: BlockCipherEncrypt + BlockCipherDecrypt + BlockSizeUser<BlockSize = U16> + KeyInit,
    T: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16> + KeyInit,
{
    /// Panics unless each slice has exactly the key length of its cipher; [`XtsKey::new`] cuts them.
    pub(crate) fn new(k1: &[u8], k2: &[u8]) -> Self {
        let data = C::new_from_slice(k1).expect("K1 cut to the key length of the algorithm");
        let tweak = T::new_from_slice(k2).expect("K2 cut to the key length of the algorithm");
        Self { data, tweak }
    }

    /// The kernel whose accesses are blocks.
    #[inline(always)]
    pub(crate) fn narrow(&self) -> &Self {
        self
    }

    /// E_K2 of a data-unit number.
    pub(crate) fn first_tweak(&self, dun: u64) -> [u8; BLOCK_BYTES] {
        let mut block = unit_block(dun);
        self.tweak.encrypt_block(&mut block);
        block.into()
    }

    #[inline]
    pub(crate) fn line<D: Direction>(&self, dun: u64, source: &D::Source, target: &mut D::Target) {
        let mut first = unit_block(dun);
        self.tweak.encrypt_block(&mut first);
        let tweaks = line_tweaks(&first);
        let mut blocks = [Block::default(); BLOCKS_PER_LINE];
        whiten_in(D::bytes(source), &tweaks, &mut blocks);
        D::blocks(&self.data, &mut blocks);
        whiten_out(&blocks, &tweaks, D::bytes_mut(target));
    }

    /// Up to [`RUN_LINES`] lines: all tweaks in one pass, then the data in passes of [`DATA_RUN`] lines.
    pub(crate) fn run<D: Direction>(&self, run: &mut impl LineRun<D>) {
        let lines = run.len();
        debug_assert!(lines <= RUN_LINES);
        let mut first = [Block::default(); RUN_LINES];
        for (index, block) in first[..lines].iter_mut().enumerate() {
            *block = unit_block(run.dun(index));
        }
        self.tweak.encrypt_blocks(&mut first[..lines]);

        let mut tweaks = [[0; BLOCKS_PER_LINE]; DATA_RUN];
        let mut blocks = [Block::default(); DATA_RUN * BLOCKS_PER_LINE];
        for start in (0..lines).step_by(DATA_RUN) {
            let count = DATA_RUN.min(lines - start);
            for slot in 0..count {
                tweaks[slot] = line_tweaks(&first[start + slot]);
                let source = D::bytes(run.source(start + slot));
                whiten_in(source, &tweaks[slot], &mut blocks[slot * BLOCKS_PER_LINE..][..BLOCKS_PER_LINE]);
            }
            D::blocks(&self.data, &mut blocks[..count * BLOCKS_PER_LINE]);
            for slot in 0..count {
                let target = D::bytes_mut(run.target(start + slot));
                whiten_out(&blocks[slot * BLOCKS_PER_LINE..][..BLOCKS_PER_LINE], &tweaks[slot], target);
            }
        }
    }
}
