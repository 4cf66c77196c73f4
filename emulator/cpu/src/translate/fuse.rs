//! Gives ops handlers that do the work of several ([`crate::exec::int::fuse`]).

use crate::block::Item;
use crate::exec::int::fuse::{frame, fused};
use crate::op::Op;

/// Chooses so that the fewest jumps remain whether or not the block is entered at its start: the slow path of an op goes on to
/// the next one alone.
pub(super) fn fuse(items: &mut [Item]) {
    for item in items.iter_mut() {
        if let Item::Op(op) = item {
            frame::prepare(op);
        }
    }
    // With their own handlers.
    let own = items.to_vec();
    // Jumps from an item on to the end of the block.
    let mut jumps = vec![0; items.len() + 1];
    for (at, item) in items.iter_mut().enumerate().rev() {
        jumps[at] = match item {
            Item::Op(op) => 1 + choose(op, &own[at..], &jumps[at..]),
            _ => jumps[at + 1],
        };
    }
}

/// Chooses the handler of the first op of `own`. Returns the jumps from behind what it executes.
fn choose(op: &mut Op, own: &[Item], jumps: &[usize]) -> usize {
    let mut fewest = jumps[1];
    let [Item::Op(first), Item::Op(second), rest @ ..] = own else { return fewest };
    if let Some(fused) = fused(first.f, second.f) {
        if jumps[2] < fewest
            && let Some(pair) = fused.pair()
        {
            (op.f, fewest) = (pair, jumps[2]);
        }
        if let [Item::Op(third), ..] = rest
            && jumps[3] < fewest
            && let Some(triple) = fused.triple(third.f)
        {
            (op.f, fewest) = (triple, jumps[3]);
        }
    }
    let directly = own.iter().map_while(|item| if let Item::Op(op) = item { Some(op) } else { None });
    for run in frame::runs(directly) {
        if jumps[run.ops] <= fewest {
            fewest = jumps[run.ops];
            run.put_into(op);
        }
    }
    fewest
}
