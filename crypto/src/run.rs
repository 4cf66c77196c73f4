//! What a kernel works on besides single lines.

use crate::direction::Direction;

/// The longest run: a page. It is also what fills the 64-block calls in which the `aes` crate uses 512-bit VAES, one
/// tweak block to a line (shorter calls go a few blocks at a time).
pub(crate) const RUN_LINES: usize = 64;

/// A run of at most [`RUN_LINES`] lines under one key. They need not be neighbours, by address or in host memory.
pub(crate) trait LineRun<D: Direction> {
    fn len(&self) -> usize;
    /// Data-unit number of a line; `index < len()`, as below.
    fn dun(&self, index: usize) -> u64;
    /// The first data-unit number, if each of the others is one more than the one before it (modulo 2^64).
    #[inline(always)]
    fn neighbours_from(&self) -> Option<u64> {
        None
    }
    fn source(&self, index: usize) -> &D::Source;
    fn target(&mut self, index: usize) -> &mut D::Target;
    /// Both ends of one line.
    fn pair(&mut self, index: usize) -> (&D::Source, &mut D::Target);
}
