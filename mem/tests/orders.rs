//! Write-back orders (MC-26) and the event that tells which copy won.

mod common;

use common::*;
use mem::{Algorithm, CacheModel, Config, Event, KeyId, Memory, PhysAddr, WbOrder};

const PA: u64 = 0x1000;

/// KeyIDs 1 to 3 with keys, and what they store in one line: `lengths[i]` bytes through KeyID `i + 1`.
fn dirty(cache: CacheModel, wb_order: WbOrder, seed: u64, lengths: [usize; 3]) -> Memory {
    let mut mem = Memory::new(Config { cache, wb_order, seed, ..config() }).unwrap();
    script_tme_key(&mut mem, &ascending(0xA0), &ascending(0xB0));
    assert!(activate(&mut mem, ACTIVATE_K6));
    for kid in 1..=3u8 {
        direct(&mut mem, kid.into(), Algorithm::AesXts128, &ascending(kid * 0x20), &ascending(kid * 0x20 + 0x10));
    }
    for (kid, length) in (1..).zip(lengths) {
        let line = load(&mut mem, PA, kid);
        store(&mut mem, PA, kid, &line[..length].iter().map(|byte| !byte).collect::<Vec<_>>());
    }
    mem
}

/// The KeyID whose copy is in DRAM after WBINVD, and what the events say: (lost, won).
fn outcome(mut mem: Memory, keep: bool) -> (u16, Vec<(u16, u16)>) {
    let copies = [1, 2, 3].map(|kid| mem.frame_lookup(via(&mem, PA, kid)).unwrap().line_bytes(0));
    mem.events_mut().enable(true);
    if keep {
        mem.wbnoinvd()
    } else {
        mem.wbinvd()
    }
    let line = PhysAddr(PA).line();
    let mut events = Vec::new();
    while let Some(event) = mem.events_mut().take() {
        match event {
            Event::AliasWritebackConflict { line: at, kid_lost: KeyId(lost), kid_won: KeyId(won) } if at == line => {
                events.push((lost, won));
            }
            Event::AliasDirtyOnKeySwitch { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    mem.invd();
    let won: Vec<u16> = (1..=3).filter(|&kid| load(&mut mem, PA, kid) == copies[usize::from(kid) - 1]).collect();
    assert_eq!(won.len(), 1, "DRAM holds one KeyID's copy, whole");
    (won[0], events)
}

const CACHING: [CacheModel; 2] = [CacheModel::Exact, CacheModel::Lazy];

#[test]
fn mk_118_ascending_and_descending_order_decide_which_alias_survives() {
    for cache in CACHING {
        for keep in [false, true] {
            let run = |order| outcome(dirty(cache, order, 0, [64, 8, 1]), keep);
            assert_eq!(run(WbOrder::Ascending), (3, vec![(1, 3), (2, 3)]));
            assert_eq!(run(WbOrder::Descending), (1, vec![(3, 1), (2, 1)]));
        }
    }
}

#[test]
fn mk_118_the_adversarial_order_keeps_the_copy_with_the_least_in_it() {
    for cache in CACHING {
        let run = |lengths| outcome(dirty(cache, WbOrder::Adversarial, 0, lengths), false);
        assert_eq!(run([64, 8, 1]), (3, vec![(1, 3), (2, 3)]));
        assert_eq!(run([64, 1, 8]), (2, vec![(1, 2), (3, 2)]));
        assert_eq!(run([1, 64, 8]), (1, vec![(2, 1), (3, 1)]));
        assert_eq!(run([8, 8, 8]).0, 1);
    }
}

#[test]
fn mk_118_the_seeded_order_repeats_with_the_seed_and_reaches_every_outcome() {
    for cache in CACHING {
        let run = |seed| outcome(dirty(cache, WbOrder::Seeded, seed, [64, 8, 1]), false);
        let winners: Vec<u16> = (0..40).map(|seed| run(seed).0).collect();
        assert!((1..=3).all(|kid| winners.contains(&kid)), "{winners:?}");
        for seed in 0..5 {
            let (won, events) = run(seed);
            assert_eq!((won, &events), (run(seed).0, &run(seed).1));
            assert_eq!(events.len(), 2);
            assert!(events.iter().all(|&(lost, winner)| winner == won && lost != won));
        }
        // Within one run the permutations differ.
        let mut mem = dirty(cache, WbOrder::Seeded, 7, [64, 8, 1]);
        let mut before = state_hash(&mem);
        let mut winners = Vec::new();
        for _ in 0..20 {
            for kid in 1..=3 {
                let line = load(&mut mem, PA, kid);
                store(&mut mem, PA, kid, &line);
            }
            mem.events_mut().enable(true);
            mem.wbnoinvd();
            while let Some(event) = mem.events_mut().take() {
                if let Event::AliasWritebackConflict { kid_won, .. } = event {
                    winners.push(kid_won);
                }
            }
            assert_ne!(std::mem::replace(&mut before, state_hash(&mem)), before);
        }
        assert!((1..=3).all(|kid| winners.contains(&KeyId(kid))), "{winners:?}");
    }
}

#[test]
fn capacity_victims_leave_in_fill_order_whatever_the_write_back_order() {
    for order in WbOrder::ALL {
        let mut mem = dirty(CacheModel::Exact, order, 0, [64, 8, 1]);
        // 1 MiB, 16 ways: lines 64 KiB apart share a set. KeyID 1's copy was filled first.
        for way in 1..=14 {
            load(&mut mem, PA + way * 0x1_0000, 0);
        }
        assert!([1, 2, 3].map(|kid| mem.line_resident(via(&mem, PA, kid))) == [false, true, true], "{order}");
    }
}

#[test]
fn without_conflicts_every_order_leaves_the_same_dram() {
    let run = |order| {
        let mut mem = dirty(CacheModel::Exact, order, 0, [0; 3]);
        for line in 1..1000u64 {
            store(&mut mem, PA + line * 64, (line % 4) as u16, &line.to_le_bytes());
        }
        mem.wbinvd();
        let mut dump = Vec::new();
        mem.dram().dump(&mut dump).unwrap();
        dump.drain(PA as usize..PA as usize + 64);
        dump
    };
    let [first, others @ ..] = WbOrder::ALL.map(run);
    assert!(others.iter().all(|dump| *dump == first));
}
