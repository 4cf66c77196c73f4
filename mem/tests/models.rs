//! The cache models `lazy` and `off` (MC-27, MK-128), and what all models have in common.

mod common;

use common::*;
use mem::{Access, Algorithm, BusAddr, CacheModel, CipherLine, Config, FastTable, MemType, Memory, PhysAddr, Rate};
use x86::platform::ResetKind;
use x86::tme::pconfig;

const PA: u64 = 0x1000;
const P: [u8; 64] = [0x11; 64];
const Q: [u8; 64] = [0x33; 64];

fn with(cache: CacheModel) -> Memory {
    give_keys(Memory::new(Config { cache, ..config() }).unwrap())
}

/// Activates, and gives KeyIDs 1, 2 and 3 different XTS-128 keys.
fn give_keys(mut mem: Memory) -> Memory {
    assert!(activate(&mut mem, ACTIVATE_K6));
    for kid in 1..=3 {
        direct(&mut mem, kid, Algorithm::AesXts128, &ascending(kid as u8 * 0x20), &ascending(kid as u8 * 0x20 + 0x10));
    }
    mem
}

/// What `bytes` at [`PA`] look like in DRAM under KeyIDs 0 to 3.
fn encrypted(kid: u16, bytes: &[u8; 64]) -> [u8; 64] {
    let mut mem = with(CacheModel::Exact);
    mem.write_nontemporal(via(&mem, PA, kid), bytes);
    raw(&mem, PA)
}

/// What a KeyID reads at [`PA`] when DRAM holds these cells.
fn decrypted(kid: u16, cells: [u8; 64]) -> [u8; 64] {
    let mut mem = with(CacheModel::Exact);
    mem.dram_write_raw(PhysAddr(PA).line(), &CipherLine(cells));
    load(&mut mem, PA, kid)
}

#[test]
fn mk_128_without_cache_stores_are_in_dram_at_once() {
    let mut mem = with(CacheModel::Off);
    store(&mut mem, PA, 1, &P);
    assert_eq!(raw(&mem, PA), encrypted(1, &P));
    let mut dump = Vec::new();
    store(&mut mem, PA, 1, &Q);
    mem.dram().dump(&mut dump).unwrap();
    assert_eq!(dump[PA as usize..][..64], encrypted(1, &Q));
    // A probe does not disturb later stores.
    store(&mut mem, PA, 1, &P);
    assert_eq!(raw(&mem, PA), encrypted(1, &P));
    assert!(!mem.line_resident(via(&mem, PA, 1)) && !mem.line_dirty(via(&mem, PA, 1)));
}

#[test]
fn mk_128_without_cache_another_keyid_sees_what_dram_holds_mk_115() {
    let mut mem = with(CacheModel::Off);
    store(&mut mem, PA, 1, &P);
    let garbage = load(&mut mem, PA, 2);
    assert_eq!(garbage, decrypted(2, encrypted(1, &P)));
    store(&mut mem, PA, 1, &Q);
    assert_eq!(load(&mut mem, PA, 2), decrypted(2, encrypted(1, &Q)));
    // A store of a part through another KeyID changes the blocks it touches, and no others.
    store(&mut mem, PA + 5, 2, &[0xEE]);
    let line = load(&mut mem, PA, 1);
    assert_ne!(line[..16], Q[..16]);
    assert_eq!(line[16..], Q[16..]);
}

#[test]
fn mk_128_without_cache_flushes_find_nothing_to_do_mk_116_mk_118_mk_119() {
    let ops: [fn(&mut Memory); 5] = [
        |mem| clflush(mem, PA, 2),
        |mem| clflush(mem, PA, 1),
        |mem| mem.clwb(via(mem, PA, 1)),
        Memory::wbinvd,
        Memory::invd,
    ];
    for op in ops {
        let mut mem = with(CacheModel::Off);
        mem.events_mut().enable(true);
        store(&mut mem, PA, 2, &Q);
        store(&mut mem, PA, 1, &P);
        while mem.events_mut().take().is_some() {}
        op(&mut mem);
        assert_eq!(raw(&mem, PA), encrypted(1, &P));
        assert_eq!(load(&mut mem, PA, 1), P);
        assert_eq!(mem.events_mut().take(), None);
    }
}

#[test]
fn mk_128_without_cache_a_new_key_garbles_what_the_old_one_stored_mk_120() {
    for command_of in [None, Some(pconfig::KEYID_CLEAR_KEY), Some(pconfig::KEYID_NO_ENCRYPT)] {
        let mut mem = with(CacheModel::Off);
        store(&mut mem, PA, 1, &P);
        match command_of {
            None => direct(&mut mem, 1, Algorithm::AesXts256, &XTS256.0, &XTS256.1),
            Some(cmd) => command(&mut mem, 1, cmd),
        }
        assert_eq!(raw(&mem, PA), encrypted(1, &P));
        assert_ne!(load(&mut mem, PA, 1), P);
    }
    // So does activation.
    let mut mem = Memory::new(Config { cache: CacheModel::Off, ..config() }).unwrap();
    store(&mut mem, PA, 0, &P);
    assert!(activate(&mut mem, ACTIVATE_K6));
    assert_eq!(raw(&mem, PA), P);
    assert_ne!(load(&mut mem, PA, 0), P);
}

#[test]
fn without_cache_a_reset_loses_no_store() {
    let mut mem = with(CacheModel::Off);
    store(&mut mem, PA, 1, &P);
    mem.reset(ResetKind::Warm);
    assert_eq!(raw(&mem, PA), encrypted(1, &P));
    mem.reset(ResetKind::Cold);
    assert_eq!(raw(&mem, PA), [0; 64]);
}

#[test]
fn without_cache_devices_and_raw_writes_meet_every_keyid() {
    let mut mem = with(CacheModel::Off);
    store(&mut mem, PA, 1, &P);
    let mut seen = [0; 64];
    mem.dma_read(via(&mem, PA, 2), &mut seen);
    assert_eq!(seen, decrypted(2, encrypted(1, &P)));
    mem.dma_write(via(&mem, PA, 2), &Q);
    assert_eq!(load(&mut mem, PA, 1), decrypted(1, encrypted(2, &Q)));
    store(&mut mem, PA, 1, &[0xAA]);
    mem.dram_write_raw(PhysAddr(PA).line(), &CipherLine(encrypted(1, &Q)));
    assert_eq!(load(&mut mem, PA, 1), Q);
    store(&mut mem, PA, 1, &P);
    assert!(mem.dram_mut().write_raw(PhysAddr(PA).line(), &CipherLine(encrypted(3, &Q))));
    assert_eq!(load(&mut mem, PA, 3), Q);
}

#[test]
fn without_cache_every_memory_type_and_no_fill_mode_act_alike() {
    for ty in [MemType::Wb, MemType::Wt, MemType::Wp, MemType::Uc, MemType::UcMinus, MemType::Wc] {
        for no_fill in [false, true] {
            let mut mem = with(CacheModel::Off);
            store(&mut mem, PA, 2, &Q);
            let (one, mut seen) = (via(&mem, PA, 1), [0; 64]);
            mem.write(one, ty, no_fill, &P[..48]);
            mem.read(one, ty, no_fill, &mut seen);
            assert_eq!(seen[..48], P[..48]);
            assert_eq!(load(&mut mem, PA, 2)[48..], Q[48..], "{ty:?}");
        }
    }
}

#[test]
fn without_cache_a_line_changes_hands_with_its_fast_bits_and_its_code() {
    let mut mem = with(CacheModel::Off);
    let (one, two) = (via(&mem, PA, 1), via(&mem, PA, 2));
    let first = mem.touch(one, Access::Write, false).unwrap().frame;
    mem.set_code(first, 0);
    assert_eq!((first.fast_r(), first.exec_ok()), (1, 1));
    let second = mem.touch(two, Access::Read, false).unwrap().frame;
    // Code that was decoded through KeyID 1 must be compared with DRAM before it runs again.
    assert_eq!((first.fast_r(), first.fast_w(), first.exec_ok(), first.code()), (0, 0, 0, 1));
    assert_eq!((second.fast_r(), second.fast_w()), (1, 0));
    assert_eq!(
        mem.touch(two, Access::Write, false).unwrap(),
        mem::Touched { frame: second, code_hit: false, poisoned: false }
    );
    assert_eq!(second.fast_w(), 1);
    second.write(0, &Q);
    let again = mem.touch(one, Access::Fetch, false).unwrap().frame;
    assert_eq!((again.exec_ok(), again.line_bytes(0)), (0, decrypted(1, encrypted(2, &Q))));
}

#[test]
fn without_cache_random_numbers_do_not_disturb_lines() {
    let mut mem = with(CacheModel::Off);
    let frame = mem.touch(via(&mem, PA, 1), Access::Write, false).unwrap().frame;
    let drawn = mem.rdrand64();
    assert_eq!(frame.fast_w(), 1);
    assert_eq!(drawn, with(CacheModel::Exact).tme_mut().rdrand64());
    assert!(mem.tme_mut().rdrand64().is_some());
    assert_eq!(frame.resident(), 0);
}

#[test]
fn without_cache_the_state_hash_shows_dram_and_nothing_of_the_copies() {
    let hash = |ops: fn(&mut Memory)| {
        let mut mem = with(CacheModel::Off);
        store(&mut mem, PA, 1, &P);
        ops(&mut mem);
        state_hash(&mem)
    };
    let plain = hash(|_| ());
    let invisible: [fn(&mut Memory); 4] = [
        |mem| _ = load(mem, PA, 1),
        |mem| _ = load(mem, PA + 0x1000, 2),
        |mem| _ = mem.tme_mut(),
        |mem| _ = mem.write_nontemporal(via(mem, PA, 1), &P),
    ];
    for ops in invisible {
        assert_eq!(hash(ops), plain);
    }
    assert_ne!(hash(|mem| store(mem, PA, 1, &Q)), plain);
}

#[test]
fn a_lazy_line_stays_until_it_is_flushed() {
    let mut mem = with(CacheModel::Lazy);
    store(&mut mem, PA, 1, &P);
    let garbage = load(&mut mem, PA, 2);
    assert_eq!(garbage, decrypted(2, [0; 64]));
    // Everything else in RAM cannot push it out.
    for pa in (0..mem.map().ram_bytes()).step_by(64) {
        load(&mut mem, pa, 0);
    }
    assert!(mem.line_dirty(via(&mem, PA, 1)));
    assert_eq!(raw(&mem, PA), [0; 64]);
    let mut seen = [0; 64];
    mem.dma_read(via(&mem, PA, 1), &mut seen);
    assert_eq!((seen, raw(&mem, PA)), (P, [0; 64]));
    clflush(&mut mem, PA, 1);
    assert_eq!(raw(&mem, PA), encrypted(1, &P));
    assert_eq!(load(&mut mem, PA, 2), garbage);
}

#[test]
fn a_lazy_line_is_written_by_whatever_flushes_and_lost_by_reset_and_invd() {
    type Op = fn(&mut Memory);
    let written: [Op; 5] = [
        |mem| mem.clwb(via(mem, PA, 1)),
        Memory::wbinvd,
        Memory::wbnoinvd,
        |mem| mem.dma_write(via(mem, PA + 60, 1), &P[60..]),
        |mem| _ = mem.write_nontemporal(via(mem, PA + 60, 1), &P[60..]),
    ];
    let lost: [Op; 2] = [Memory::invd, |mem| mem.reset(ResetKind::Warm)];
    for (op, cells) in written.map(|op| (op, encrypted(1, &P))).into_iter().chain(lost.map(|op| (op, [0; 64]))) {
        let mut mem = with(CacheModel::Lazy);
        store(&mut mem, PA, 1, &P);
        op(&mut mem);
        assert_eq!(raw(&mem, PA), cells);
    }
}

#[test]
fn pages_beyond_the_pool_keep_their_data_in_every_model() {
    // More pages than the pool has frames; every page keeps its first line only.
    let pages: u64 = 24 * 1024;
    for cache in CacheModel::ALL {
        let mut mem = Memory::new(Config { ram_bytes: pages * 4096, cache, ..Config::default() }).unwrap();
        assert!(activate(&mut mem, ACTIVATE_K6));
        let mut fast = FastTable::new();
        fast.set_mode(mem::deny::RS, mem::deny::WS);
        for page in 0..pages {
            let at = via(&mem, page * 4096, 0);
            let frame = mem.touch(at, Access::Write, false).unwrap().frame;
            frame.write(0, &page.to_le_bytes());
            while let Some(gone) = mem.take_retired() {
                fast.purge_frame(gone.frame);
            }
            fast.install(at.0, 0, frame);
            assert_eq!(mem.frame_lookup(at), Some(frame));
            assert_eq!(fast.load_u64(at.0), Some(page));
        }
        // An unbounded cache needs a frame for each.
        assert_eq!(mem.frames_recycled() > 3000, cache != CacheModel::Lazy);
        for page in 0..pages {
            assert_eq!(load(&mut mem, page * 4096, 0)[..8], page.to_le_bytes());
        }
        mem.wbinvd();
        let mut line = [0; 8];
        mem.dma_read(BusAddr((pages - 1) * 4096), &mut line);
        assert_eq!(line, (pages - 1).to_le_bytes());
    }
}

#[test]
fn spontaneous_evictions_are_seeded_and_shift_what_aliases_see() {
    let run = |rate, seed| {
        let evict_rate = Rate::from_ppm(rate).unwrap();
        let mut mem = give_keys(Memory::new(Config { cache: CacheModel::Lazy, evict_rate, seed, ..config() }).unwrap());
        store(&mut mem, PA, 1, &P);
        for page in 2..200u64 {
            store(&mut mem, page * 4096, 2, &page.to_le_bytes());
        }
        for page in 2..200u64 {
            assert_eq!(load(&mut mem, page * 4096, 2)[..8], page.to_le_bytes());
        }
        (mem.line_resident(via(&mem, PA, 1)), mem.stats().write_backs(), state_hash(&mem))
    };
    let (resident, write_backs, _) = run(0, 1);
    assert_eq!((resident, write_backs), (true, 0));
    assert_eq!(run(500_000, 1), run(500_000, 1));
    assert!(run(500_000, 1).1 > 50);
    assert_ne!(run(500_000, 1).2, run(500_000, 2).2);
    assert!((1..10).any(|seed| !run(1_000_000, seed).0));
}

#[test]
fn lines_are_evicted_alike_wherever_they_are_in_ram() {
    // One line far away from the others, and brought in between them. It stays as often as the one before it.
    const LINES: u64 = 40;
    const SEEDS: u64 = 400;
    let far = 200 * 4096;
    for cache in [CacheModel::Exact, CacheModel::Lazy] {
        let mut stayed = [0; 2];
        for seed in 0..SEEDS {
            let evict_rate = Rate::from_ppm(300_000).unwrap();
            let mut mem = Memory::new(Config { cache, evict_rate, seed, ..config() }).unwrap();
            for line in 0..LINES {
                load(&mut mem, 4096 + line * 64, 0);
                if line == LINES / 2 {
                    load(&mut mem, far, 0);
                }
            }
            for (count, pa) in stayed.iter_mut().zip([far, 4096 + LINES / 2 * 64]) {
                *count += u64::from(mem.line_resident(via(&mem, pa, 0)));
            }
        }
        assert!(stayed.iter().all(|count| (SEEDS / 2..SEEDS).contains(count)), "{cache:?}: {stayed:?}");
        assert!(stayed[0].abs_diff(stayed[1]) < SEEDS / 10, "{cache:?}: {stayed:?}");
    }
}
