//! Random guests: the same reports under every cache model and with every way of getting at memory, as the naive rules
//! have them; nothing that a guest sees is different; correct programs are not reported.

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::common::*;
use crate::guest::Guest;
use crate::naive::{By, Naive, Report};
use mem::{CacheModel, Config, MemType, Operation, Rate};

const BASE: u64 = 0x8000;

fn below(rng: &mut ChaCha20Rng, end: u64) -> u64 {
    rng.next_u64() % end
}

/// An operation of a guest.
#[derive(Debug, Clone, Copy)]
enum Op {
    Load,
    Fetch,
    LoadUncached,
    Store,
    StoreUncached,
    NonTemporal,
    Flush,
    Clwb,
    DmaRead,
    DmaWrite,
    Whole(Operation),
    Program(u8),
}

#[derive(Debug, Clone, Copy)]
struct Step {
    op: Op,
    pa: u64,
    len: usize,
    kid: u16,
    value: u8,
}

/// `lines` lines in 16 pages, 4 KeyIDs. Half of the programs are tame: they flush often, so that state recovers.
fn steps(rng: &mut ChaCha20Rng, count: usize) -> Vec<Step> {
    let lines = 1 + below(rng, 40);
    let flushes = 8 + below(rng, 60);
    let step = |rng: &mut ChaCha20Rng| {
        let op = match below(rng, 200) {
            0 => Op::Whole(Operation::WriteBackInvalidate),
            1 => Op::Whole(Operation::WriteBackAll),
            2 => Op::Whole(Operation::Invalidate),
            3..=5 => Op::Program([0x20, 0x40, 0x60, 0x80][below(rng, 4) as usize]),
            6..=12 => Op::DmaRead,
            13..=19 => Op::DmaWrite,
            20..=27 => Op::NonTemporal,
            28..=33 => Op::StoreUncached,
            34..=38 => Op::LoadUncached,
            39..=50 => Op::Fetch,
            51..=60 => Op::Clwb,
            n if n < 61 + flushes => Op::Flush,
            n if n % 2 == 0 => Op::Load,
            _ => Op::Store,
        };
        let line = below(rng, lines);
        // Two neighbours in each page.
        let at = BASE + (line / 2) * 4096 + (line % 2) * 64;
        let whole = below(rng, 3) == 0;
        let (offset, len) = if whole {
            (0, 64)
        } else {
            let offset = below(rng, 64);
            (offset, 1 + below(rng, (64 - offset).min(20)) as usize)
        };
        let kid = below(rng, 4) as u16;
        let kid = if matches!(op, Op::Program(_)) { 1 + kid % 3 } else { kid };
        Step { op, pa: at + offset, len, kid, value: rng.next_u32() as u8 }
    };
    (0..count).map(|_| step(rng)).collect()
}

/// Performs a step; returns what the guest sees.
fn perform(g: &mut Guest, step: &Step) -> Vec<u8> {
    let Step { op, pa, len, kid, value } = *step;
    let bytes = vec![value; len];
    match op {
        Op::Load => return g.load(pa, kid, len),
        Op::Fetch => g.fetch(pa, kid),
        Op::LoadUncached => return g.load_uncached(pa, kid, len),
        Op::Store => g.store(pa, kid, &bytes),
        Op::StoreUncached => g.store_typed(pa, kid, MemType::Uc, &bytes),
        Op::NonTemporal => g.store_nontemporal(pa, kid, &bytes),
        Op::Flush => g.flush(pa, kid),
        Op::Clwb => g.clwb(pa, kid),
        Op::DmaRead => return g.dma_read(pa, kid, len),
        Op::DmaWrite => g.dma_write(pa, kid, &bytes),
        Op::Whole(operation) => g.whole_cache(operation),
        Op::Program(key) => g.program(kid, key),
    }
    Vec::new()
}

fn judge(naive: &mut Naive, step: &Step, now: u64) {
    let Step { op, pa, len, kid, .. } = *step;
    let (line, first, by) = (pa >> 6, (pa & 63) as usize, (kid, now));
    match op {
        Op::Load => naive.load(line, first, len, by, Operation::Load),
        Op::Fetch => naive.load(line, first, 1, by, Operation::Fetch),
        Op::LoadUncached => naive.load_uncached(line, first, len, by),
        Op::Store => naive.store(line, first, len, by),
        Op::StoreUncached => naive.store_past(line, first, len, by, Operation::Store),
        Op::NonTemporal => naive.store_past(line, first, len, by, Operation::NonTemporalStore),
        Op::Flush => naive.flush(line, by, Operation::Flush),
        Op::Clwb => naive.flush(line, by, Operation::WriteBack),
        Op::DmaRead => naive.load(line, first, len, by, Operation::DmaRead),
        Op::DmaWrite => naive.store_past(line, first, len, by, Operation::DmaWrite),
        Op::Whole(operation) => naive.whole_cache(operation),
        Op::Program(key) => naive.program(by, u32::from(key) + 2),
    }
}

fn naive() -> Naive {
    let mut naive = Naive::default();
    naive.keys = (1..=3).map(|kid| (kid, u32::from(kid) * 0x20 + 2)).collect();
    naive
}

fn reports(g: &Guest) -> Vec<Report> {
    let by = |site: mem::Site| -> By { (site.keyid.0, site.icount) };
    let report = |h: &mem::Hazard| {
        // A flush concerns the byte it was given, which is of no interest.
        let flush = matches!(h.access.operation, Operation::Flush | Operation::WriteBack);
        (h.kind, h.line.0, if flush { 0 } else { h.offset }, by(h.access), h.other.map_or((0, 0), by))
    };
    g.hazards.iter().map(report).collect()
}

/// Cache settings under which everything must be the same.
fn settings(seed: u64) -> Vec<Config> {
    let tiny = Config { cache_bytes: 1024, cache_ways: 2, seed, ..config() };
    let evicting = Config { evict_rate: Rate::from_ppm(300_000).unwrap(), ..config() };
    let mut all = vec![tiny.clone(), evicting, config()];
    all.push(Config { cache: CacheModel::Lazy, ..tiny.clone() });
    all.push(Config { cache: CacheModel::Off, ..tiny.clone() });
    for fast in 0..all.len() {
        all.push(Config { fast: false, ..all[fast].clone() });
    }
    all
}

#[test]
fn every_cache_model_and_path_gives_the_reports_of_the_naive_rules() {
    let mut found = 0;
    let mut kinds = std::collections::BTreeSet::new();
    for seed in 0..60 {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let program = steps(&mut rng, 600);
        let mut expected = naive();
        for (now, step) in program.iter().enumerate() {
            judge(&mut expected, step, now as u64);
        }
        found += expected.reports.len();
        kinds.extend(expected.reports.iter().map(|report| report.0));
        for config in settings(seed) {
            let (name, mut g) = (format!("seed {seed}, {config:?}"), Guest::new(config));
            for (now, step) in program.iter().enumerate() {
                perform(&mut g, step);
                let so_far = reports(&g);
                let due = expected.reports.iter().take_while(|report| report.3.1 <= now as u64).count();
                assert_eq!(
                    so_far.get(due.saturating_sub(3)..),
                    expected.reports.get(due.saturating_sub(3)..due),
                    "step {now} {step:x?} of {name}"
                );
            }
        }
    }
    assert!(found > 1000, "only {found} reports");
    assert_eq!(kinds.len(), 8);
}

#[test]
fn memory_and_state_hash_do_not_depend_on_the_sanitizer_or_on_watched_lines() {
    for seed in 0..25 {
        let mut rng = ChaCha20Rng::seed_from_u64(1000 + seed);
        let program = steps(&mut rng, 500);
        for config in settings(seed) {
            let mut plain = Guest::plain(config.clone(), false);
            let mut sanitized = Guest::plain(config.clone(), true);
            sanitized.mem.watch_lines(&[mem::WatchedLine { line: mem::LineAddr(BASE >> 6), before: u64::MAX }]);
            for step in &program {
                assert_eq!(perform(&mut plain, step), perform(&mut sanitized, step));
            }
            assert_eq!(state_hash(&plain.mem), state_hash(&sanitized.mem));
            assert!(plain.hazards.is_empty());
            // Once it is off, everything may be fast again.
            if config.fast && config.cache == CacheModel::Lazy {
                sanitized.mem.sanitize(false);
                sanitized.mem.watch_lines(&[]);
                let (a, b) = (plain.fast, sanitized.fast);
                for step in &program {
                    assert_eq!(perform(&mut plain, step), perform(&mut sanitized, step));
                }
                assert!(plain.fast - a >= sanitized.fast - b && sanitized.fast > b);
            }
        }
    }
}

/// MK specification section 5.7: flush through KeyID 0, zero through the KeyID, use, flush through the KeyID, reuse.
#[test]
fn correct_protocols_are_silent() {
    for (seed, config) in settings(5).into_iter().enumerate() {
        let mut rng = ChaCha20Rng::seed_from_u64(seed as u64);
        let mut g = Guest::new(config);
        for _ in 0..60 {
            let page = BASE + below(&mut rng, 12) * 4096;
            let kid = 1 + below(&mut rng, 3) as u16;
            let lines = || (0..64u64).map(move |line| page + line * 64);
            // In the hands of KeyID 0.
            for at in lines().filter(|at| at % 128 == 0) {
                g.store(at, 0, &[1; 64]);
                g.load(at, 0, 8);
            }
            // Allocation.
            if below(&mut rng, 4) == 0 {
                g.whole_cache(Operation::WriteBackInvalidate);
            } else {
                lines().for_each(|at| g.flush(at, 0));
            }
            if below(&mut rng, 3) == 0 {
                g.program(kid, rng.next_u32() as u8);
            }
            for at in lines() {
                match below(&mut rng, 3) {
                    0 => g.store_nontemporal(at, kid, &[0; 64]),
                    1 => g.store(at, kid, &[0; 64]),
                    _ => (0..8).for_each(|n| g.store(at + 8 * n, kid, &[0; 8])),
                }
            }
            // Use.
            for _ in 0..100 {
                let at = page + below(&mut rng, 64) * 64 + below(&mut rng, 56);
                match below(&mut rng, 8) {
                    0 => drop(g.dma_read(at & !63, kid, 64)),
                    1 => g.dma_write(at & !63, kid, &[3; 64]),
                    2 => g.fetch(at, kid),
                    3 => g.walk(at & !7, kid),
                    4 => g.clwb(at, kid),
                    5 => drop(g.load(at, kid, 8)),
                    _ => g.store(at, kid, &[2; 8]),
                }
            }
            // Release.
            lines().for_each(|at| g.flush(at, kid));
            lines().for_each(|at| g.store(at, 0, &[0; 64]));
            g.load(page + 8, 0, 8);
            // The next owner finds no dirty line of KeyID 0.
            lines().for_each(|at| g.flush(at, 0));
        }
        assert_eq!(g.hazards, []);
        assert!(g.icount > 10_000);
    }
}
