//! Rowhammer (the hardware specification's section 9.5): which accesses are activations, and whose neighbours they disturb.

mod common;

use common::*;
use mem::{Config, Disturbance, Memory, PhysAddr, Rate, Reported, Rowhammer};
use x86::platform::ResetKind;

const ROW: u64 = 256;
const BANKS: u64 = 2;
/// Rows 0 to 7 of bank 0 and 1, all written.
const ROWS: u64 = 8;

fn how(threshold: u64, rate: Rate) -> Rowhammer {
    Rowhammer { threshold, rate, row_bytes: ROW as u32, banks: BANKS as u16, window: 1000 }
}

fn address(bank: u64, row: u64) -> u64 {
    (row * BANKS + bank) * ROW
}

fn memory(seed: u64, how: Rowhammer) -> Memory {
    let mut mem = Memory::new(Config { seed, ..config() }).unwrap();
    for pa in (0..ROWS * BANKS * ROW).step_by(64) {
        let at = via(&mem, pa, 0);
        mem.write_nontemporal(at, &[0x5A; 64]);
    }
    mem.disturb(0, Disturbance::Rowhammer(how), None);
    mem
}

/// Reads a line from DRAM.
fn read(mem: &mut Memory, bank: u64, row: u64) {
    load(mem, address(bank, row), 0);
    clflush(mem, address(bank, row), 0);
}

fn tell(mem: &mut Memory, icount: u64) {
    mem.set_bus_time(mem::bus_trace::Stamp { icount, skipped: 0 });
}

/// (bank, row) of rows with a bit that is not what was written, and how many bits those are.
fn disturbed(mem: &Memory) -> Vec<((u64, u64), u32)> {
    let rows = (0..ROWS).flat_map(|row| (0..BANKS).map(move |bank| (bank, row)));
    let flips = |(bank, row): (u64, u64)| {
        let start = address(bank, row);
        let lines = (start..start + ROW).step_by(64).map(|pa| raw(mem, pa));
        lines.flatten().map(|byte| (byte ^ 0x5A).count_ones()).sum::<u32>()
    };
    rows.map(|row| (row, flips(row))).filter(|(_, flips)| *flips > 0).collect()
}

#[test]
fn the_neighbours_in_the_bank_flip_at_the_threshold_and_no_other_row() {
    let mut mem = memory(1, how(10, Rate::ALWAYS));
    // Rows 3 and 6 of bank 1, in turn: each access opens a row.
    for n in 0..18 {
        read(&mut mem, 1, [3, 6][n % 2]);
    }
    assert_eq!(disturbed(&mem), []);
    read(&mut mem, 1, 3);
    let all = ROW as u32 * 8;
    assert_eq!(disturbed(&mem), [((1, 2), all), ((1, 4), all)]);
    let reports = mem.take_reports();
    assert_eq!(reports.iter().filter(|report| report.what == Reported::Effect).count(), 1);
    read(&mut mem, 1, 6);
    assert_eq!(disturbed(&mem).len(), 4, "and row 6 disturbs 5 and 7");
    // Ten more put it back: the same bits flip again.
    for n in 0..19 {
        read(&mut mem, 1, [3, 6][n % 2]);
    }
    assert_eq!(disturbed(&mem).len(), 2);
}

#[test]
fn an_open_row_and_the_cache_are_no_activations_and_a_refresh_forgets() {
    let mut mem = memory(1, how(10, Rate::ALWAYS));
    for _ in 0..100 {
        read(&mut mem, 0, 3);
    }
    load(&mut mem, address(0, 5), 0);
    for _ in 0..100 {
        load(&mut mem, address(0, 5), 0);
    }
    assert_eq!(disturbed(&mem), []);
    let mut mem = memory(1, how(10, Rate::ALWAYS));
    for n in 0..36 {
        // Nine of each before the refresh, and after it.
        tell(&mut mem, if n < 18 { 999 } else { 1000 });
        read(&mut mem, 0, [2, 5][n % 2]);
    }
    assert_eq!(disturbed(&mem), []);
    read(&mut mem, 0, 2);
    assert_eq!(disturbed(&mem).len(), 2);
    // Rows in different banks do not close each other.
    let mut mem = memory(1, how(2, Rate::ALWAYS));
    for n in 0..40 {
        read(&mut mem, n % 2, 3);
    }
    assert_eq!(disturbed(&mem), []);
}

#[test]
fn which_bits_flip_follows_from_the_seed() {
    let run = |seed| {
        let mut mem = memory(seed, how(10, Rate::from_ppm(20_000).unwrap()));
        for n in 0..19 {
            read(&mut mem, 0, [3, 6][n % 2]);
        }
        let rows: Vec<(u64, u64)> = disturbed(&mem).iter().map(|(row, _)| *row).collect();
        assert_eq!(rows, [(0, 2), (0, 4)]);
        let flips: u32 = disturbed(&mem).iter().map(|(_, flips)| flips).sum();
        assert!((20..170).contains(&flips), "{flips} of 4096 at 2 %");
        mem.disarm();
        mem.reset(ResetKind::Init);
        (address(0, 2)..address(0, 5)).step_by(64).map(|pa| raw(&mem, PhysAddr(pa).0)).collect::<Vec<_>>()
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}
