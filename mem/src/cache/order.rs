//! The order of the write-backs of WBINVD and WBNOINVD (MC-26).

use rand_chacha::ChaCha20Rng;
use x86::mutant;

use crate::addr::BusAddr;
use crate::config::WbOrder;
use crate::controller::{Controller, Place};
use crate::frame::FramePtr;
use crate::rate::below;
use crate::tme::write_back_generator;

/// A dirty line.
#[derive(Clone, Copy)]
pub(super) struct Dirty {
    /// Full PA of its first byte.
    pub(super) address: BusAddr,
    pub(super) frame: FramePtr,
}

impl Dirty {
    pub(super) fn place(self) -> Place {
        Place { address: self.address, page: self.frame.0.page_index.get() }
    }
}

/// Puts dirty lines in order.
pub(super) struct Orderer {
    order: WbOrder,
    pub(super) rng: ChaCha20Rng,
}

impl Orderer {
    pub(super) fn new(order: WbOrder, seed: u64) -> Self {
        Self { order, rng: write_back_generator(seed) }
    }

    /// Sorts the lines into the order in which they are written back.
    pub(super) fn sort(&mut self, controller: &Controller, lines: &mut [Dirty]) {
        lines.sort_unstable_by_key(|dirty| dirty.address);
        match self.order {
            WbOrder::Ascending if mutant!(WbinvdDescending) => lines.reverse(),
            WbOrder::Ascending => {}
            WbOrder::Descending => lines.reverse(),
            WbOrder::Seeded => {
                // Fisher and Yates, from the end.
                for at in (1..lines.len()).rev() {
                    lines.swap(at, below(&mut self.rng, at as u64 + 1) as usize);
                }
            }
            WbOrder::Adversarial => sort_adversarially(controller, lines),
        }
    }

    /// How often the generator was used.
    pub(super) fn position(&self) -> u128 {
        self.rng.get_word_pos()
    }
}

/// For each line with several dirty copies, in any sorted order: the copies that are lost, and the KeyID's copy that wins.
pub(super) fn conflicts(controller: &Controller, lines: &[Dirty]) -> Vec<(Dirty, Dirty)> {
    let layout = controller.layout();
    let mut found = Vec::new();
    for group in aliases(controller, lines) {
        if let [lost @ .., winner] = &group[..] {
            found.extend(lost.iter().map(|&at| (at, lines[at], lines[*winner])));
        }
    }
    // As they happen: in the order of the losing write-backs.
    found.sort_unstable_by_key(|&(at, ..)| at);
    debug_assert!(found.iter().all(|(_, a, b)| layout.mem(a.address) == layout.mem(b.address)));
    found.into_iter().map(|(_, lost, won)| (lost, won)).collect()
}

/// Positions in `lines` of the copies of one physical line, for each that has several, in the order of `lines`.
fn aliases(controller: &Controller, lines: &[Dirty]) -> Vec<Vec<usize>> {
    let layout = controller.layout();
    let mut by_line: Vec<(u64, usize)> =
        lines.iter().enumerate().map(|(at, dirty)| (layout.mem(dirty.address).0, at)).collect();
    by_line.sort_unstable();
    let groups = by_line.chunk_by(|a, b| a.0 == b.0).filter(|group| group.len() > 1);
    groups.map(|group| group.iter().map(|&(_, at)| at).collect()).collect()
}

/// Of the copies of a line, the one that differs least from what its KeyID reads in DRAM is written last; of equal ones the
/// first in ascending order, which the default order would lose.
fn sort_adversarially(controller: &Controller, lines: &mut [Dirty]) {
    let mut last = vec![false; lines.len()];
    for group in aliases(controller, lines) {
        if let Some(&winner) = group.iter().min_by_key(|&&at| changed_bytes(controller, lines[at])) {
            last[winner] = true;
        }
    }
    let mut ranked: Vec<(bool, Dirty)> = last.into_iter().zip(lines.iter().copied()).collect();
    ranked.sort_by_key(|&(last, _)| last);
    for (to, (_, dirty)) in lines.iter_mut().zip(ranked) {
        *to = dirty;
    }
}

/// Bytes of a dirty line that would be lost without its write-back.
fn changed_bytes(controller: &Controller, dirty: Dirty) -> usize {
    let place = dirty.place();
    let (memory, _) = controller.get_line(place);
    let bytes = dirty.frame.line_bytes(place.line());
    bytes.iter().zip(&memory.0).filter(|(cached, memory)| cached != memory).count()
}
