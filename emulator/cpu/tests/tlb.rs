//! What the TLBs hold must not depend on the fast path: its pages are a subset of the data TLB's.

mod common;

use common::{DATA, board_with};
use cpu::mmu::tlb::{Side, Translation};
use mem::Config;

/// What the data TLB holds after some accesses, and how its sets will replace it.
fn after(accesses: &[(u64, bool)], fast: bool) -> (Vec<Translation>, Vec<u64>) {
    let (mut cpu, _) = board_with(Config { ram_bytes: 4 << 20, fast, ..Config::default() });
    for &(at, store) in accesses {
        match store {
            true => cpu.write_u64(at, 1).expect("the page is mapped"),
            false => {
                cpu.read_u64(at).expect("the page is mapped");
            }
        }
    }
    (cpu.tlb.live(Side::Data).copied().collect(), cpu.tlb.replacement(Side::Data).collect())
}

/// The first store to a page whose dirty bit is clear drops its translation; of a large page, all pieces (SDM Vol. 3A,
/// section 4.10.4.1 allows it to be any translation for the address).
#[test]
fn a_store_that_drops_a_large_page_drops_its_other_pieces_from_the_fast_path() {
    let accesses =
        [(DATA, false), (DATA + 0x1000, false), (DATA + 0x1000, true), (DATA, false), (DATA + 0x2000, false)];
    for count in 1..=accesses.len() {
        let (on, off) = (after(&accesses[..count], true), after(&accesses[..count], false));
        assert_eq!(on, off, "after {count} accesses");
    }
}
