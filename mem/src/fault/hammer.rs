//! Rowhammer (the hardware specification's section 9.5): a row of DRAM that is activated often disturbs its neighbours.
//!
//! Cells are counted as [`crate::AddressMap`] counts RAM, without the hole. Stretches of `row_bytes` go to the banks in turn, so
//! that row `r` of bank `b` has the bytes from `(r * banks + b) * row_bytes` on. A bank keeps the row open that was accessed
//! last; an access to another row of the bank is an *activation*. At multiples of `window` instructions everything is
//! refreshed, and counts start anew.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

use rand_chacha::ChaCha20Rng;

use crate::addr::LINE_BYTES;
use crate::rate::Rate;

/// How DRAM is disturbed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rowhammer {
    /// Activations of a row within a window that disturb its neighbours; and so do as many more.
    pub threshold: u64,
    /// Probability that a bit of a neighbouring row flips then.
    pub rate: Rate,
    /// Bytes of a row: a multiple of a line.
    pub row_bytes: u32,
    pub banks: u16,
    /// Instructions from refresh to refresh.
    pub window: u64,
}

impl Rowhammer {
    /// 8 KiB, as DIMMs with eight chips of x8 have.
    pub const ROW_BYTES: u32 = 8192;
    pub const BANKS: u16 = 16;
    /// 64 ms at the default instruction rate.
    pub const WINDOW: u64 = 6_400_000;

    fn row_lines(&self) -> u64 {
        (u64::from(self.row_bytes) / LINE_BYTES as u64).max(1)
    }
}

/// A bank.
#[derive(Debug, Default)]
struct Bank {
    open: Option<u64>,
    /// Activations of its rows since the last refresh.
    counts: BTreeMap<u64, u64>,
}

/// The state of the DIMMs, from when the fault begins.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    window: u64,
    banks: BTreeMap<u64, Bank>,
}

impl Rows {
    /// A line of cells, by its number, is accessed after `now` instructions. Returns the bits that flip, counted from the
    /// start of RAM, which has `lines` lines.
    pub(crate) fn access(
        &mut self,
        how: &Rowhammer,
        line: u64,
        lines: u64,
        now: u64,
        rng: &mut ChaCha20Rng,
    ) -> Vec<u64> {
        let window = now / how.window.max(1);
        if window != self.window {
            self.window = window;
            self.banks.values_mut().for_each(|bank| bank.counts.clear());
        }
        let (banks, row_lines) = (u64::from(how.banks.max(1)), how.row_lines());
        let stretch = line / row_lines;
        let (bank, row) = (self.banks.entry(stretch % banks).or_default(), stretch / banks);
        if bank.open.replace(row) == Some(row) {
            return Vec::new();
        }
        let count = bank.counts.entry(row).or_default();
        *count += 1;
        if *count < how.threshold {
            return Vec::new();
        }
        *count = 0;
        let neighbours = [stretch.checked_sub(banks), stretch.checked_add(banks)];
        let mut flips = Vec::new();
        for victim in neighbours.into_iter().flatten() {
            let bits = |line: u64| line.min(lines) * LINE_BYTES as u64 * 8;
            let (first, end) = (bits(victim * row_lines), bits((victim + 1) * row_lines));
            let mut at = first.saturating_add(how.rate.gap(rng));
            while at < end {
                flips.push(at);
                at = at.saturating_add(1).saturating_add(how.rate.gap(rng));
            }
        }
        flips
    }
}

impl Hash for Rows {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.window.hash(state);
        for (number, Bank { open, counts }) in &self.banks {
            (number, open, counts).hash(state);
        }
    }
}
