//! Random operations on every cache model against a naive model of it.

#[path = "../common/mod.rs"]
mod common;
mod naive;

use std::collections::BTreeSet;

use common::*;
use crypto::XtsKey;
use mem::{Access, Algorithm, BusAddr, CacheModel, Config, FastTable, KeyId, MemType, Memory, PhysAddr, Rate, WbOrder};
use naive::{EXCLUDED_PAGE, KEYIDS, Key, Model, RAM_BYTES, SETS, WAYS};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use x86::platform::ResetKind;
use x86::tme::pconfig;

/// Pages that the operations go to.
const PAGES: u64 = 6;
/// Operations between two looks at everything the fast path would hand out.
const INSPECTION: u32 = 100;

/// What a run is about.
#[derive(Debug, Clone, Copy)]
struct Setup {
    cache: CacheModel,
    order: WbOrder,
    evict_rate: Rate,
    prefetch: Rate,
    bypass: bool,
}

/// The emulator's side: a memory with the fast table of a core in front, virtual address = full PA.
struct Machine {
    mem: Memory,
    fast: FastTable,
    fast_hits: u64,
}

impl Machine {
    fn new(fast: bool, setup: Setup) -> Self {
        let mut mem = Memory::new(Config {
            ram_bytes: RAM_BYTES,
            cache: setup.cache,
            cache_bytes: SETS as usize * WAYS * 64,
            cache_ways: WAYS,
            wb_order: setup.order,
            evict_rate: setup.evict_rate,
            prefetch: setup.prefetch,
            fast,
            ..Config::default()
        })
        .unwrap();
        power_on(&mut mem, setup.bypass);
        let mut table = FastTable::new();
        table.set_mode(mem::deny::RS, mem::deny::WS);
        Self { mem, fast: table, fast_hits: 0 }
    }

    fn load(&mut self, at: BusAddr) -> u32 {
        if let Some(value) = self.fast.load_u32(at.0).or_else(|| self.fast.load_anywhere(at.0)) {
            self.fast_hits += 1;
            return value;
        }
        let mut bytes = [0; 4];
        for (i, byte) in bytes.iter_mut().enumerate() {
            let at = at.offset(i as u64);
            let frame = self.mem.touch(at, Access::Read, false).unwrap().frame;
            self.fast.install(at.0, 0, frame);
            frame.read(at.page_offset(), std::slice::from_mut(byte));
        }
        u32::from_le_bytes(bytes)
    }

    fn store(&mut self, at: BusAddr, value: u32) -> bool {
        if self.fast.store_u32(at.0, value) || self.fast.store_anywhere(at.0, value) {
            self.fast_hits += 1;
            return false;
        }
        let mut code_hit = false;
        for (i, byte) in value.to_le_bytes().iter().enumerate() {
            let at = at.offset(i as u64);
            let touched = self.mem.touch(at, Access::Write, false).unwrap();
            self.fast.install(at.0, 0, touched.frame);
            touched.frame.write(at.page_offset(), &[*byte]);
            code_hit |= touched.code_hit;
        }
        code_hit
    }
}

/// The lines that `take_code_hit` reports.
fn reported(mem: &mut Memory) -> BTreeSet<u64> {
    std::iter::from_fn(|| mem.take_code_hit()).map(|hit| hit.frame.bus_page().0 + u64::from(hit.line) * 64).collect()
}

fn power_on(mem: &mut Memory, bypass: bool) {
    script_tme_key(mem, &ascending(0xA0), &ascending(0xB0));
    let all_ones = (1u64 << 46) - 0x1000;
    mem.tme_mut().wrmsr(x86::msr::IA32_TME_EXCLUDE_MASK, all_ones | x86::tme::exclude::ENABLE).unwrap();
    mem.tme_mut().wrmsr(x86::msr::IA32_TME_EXCLUDE_BASE, EXCLUDED_PAGE << 12).unwrap();
    assert!(activate(mem, ACTIVATE_K6 | if bypass { x86::tme::activate::BYPASS } else { 0 }));
}

/// Runs `steps` random operations; returns the state hash and the number of fast-path hits.
fn run(setup: Setup, seed: u64, steps: u32, fast: bool) -> (u128, u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut machine = Machine::new(fast, setup);
    let mut model = Model::new(setup);
    for step in 0..steps {
        one_step(&mut rng, &mut machine, &mut model, setup.bypass, step);
        if step % INSPECTION == 0 {
            inspect(&machine.mem, &mut model);
        }
    }
    inspect(&machine.mem, &mut model);
    let m = &machine.mem;
    for pa in (0..PAGES << 12).step_by(64) {
        assert_eq!(raw(m, pa), model.dram.get(&pa).copied().unwrap_or([0; 64]), "cells at {pa:#x}, {setup:?} {seed}");
        for kid in 0..KEYIDS {
            let at = via(m, pa, kid as u16);
            let line = model.find(at.0).map(|line| (line.dirty, line.bytes));
            assert_eq!((m.line_resident(at), m.line_dirty(at)), (line.is_some(), line.is_some_and(|(dirty, _)| dirty)));
            if let Some((_, bytes)) = line {
                assert_eq!(m.frame_lookup(at).unwrap().line_bytes(at.line_in_page()), bytes);
            }
        }
    }
    (state_hash(m), machine.fast_hits)
}

/// Whatever the fast path or decoded code takes from a frame is what a load would return.
fn inspect(m: &Memory, model: &mut Model) {
    for page in (0..PAGES << 12).step_by(4096) {
        for kid in 0..KEYIDS {
            let at = via(m, page, kid as u16);
            let Some(frame) = m.frame_lookup(at) else { continue };
            assert_eq!(frame.fast_w() & !frame.fast_r(), 0);
            assert_eq!(frame.exec_ok() & !(frame.code() & frame.resident()), 0);
            for line in (0..64).filter(|line| (frame.fast_r() | frame.exec_ok()) >> line & 1 != 0) {
                let tag = at.0 + u64::from(line) * 64;
                assert_eq!(frame.line_bytes(line), model.view(tag), "line at {tag:#x}");
            }
        }
    }
}

fn one_step(rng: &mut ChaCha8Rng, machine: &mut Machine, model: &mut Model, bypass: bool, step: u32) {
    let m = &mut machine.mem;
    // Most accesses go to few lines, so that hits, aliases and evictions all happen.
    let (spread, kid) = match rng.next_u64() % 4 {
        0 => (PAGES << 12, rng.next_u64() % KEYIDS),
        1 => (0x200, rng.next_u64() % KEYIDS),
        _ => (0x200, 1),
    };
    let pa = rng.next_u64() % spread;
    let at = via(m, pa, kid as u16);
    let (tag, value) = (at.0 & !63, rng.next_u64());
    let len = 1 + (rng.next_u64() as usize) % (64 - at.line_offset());
    let mut data = [0; 700];
    rng.fill_bytes(&mut data);
    let ty = MemType::from_bits([0, 1, 4, 5, 6, 7][(rng.next_u64() % 6) as usize]).unwrap();
    let no_fill = rng.next_u64().is_multiple_of(4);
    match rng.next_u64() % 1000 {
        0..300 => {
            let at = BusAddr(at.0.min(at.0 & !0xFFF | 0xFFC));
            let mut bytes = [0; 4];
            for (i, byte) in bytes.iter_mut().enumerate() {
                model.read(at.0 + i as u64, MemType::Wb, false, std::slice::from_mut(byte));
            }
            assert_eq!(machine.load(at), u32::from_le_bytes(bytes), "load at {at}, step {step}");
        }
        300..600 => {
            let at = BusAddr(at.0.min(at.0 & !0xFFF | 0xFFC));
            let mut code_hit = false;
            for (i, byte) in (value as u32).to_le_bytes().iter().enumerate() {
                code_hit |= model.write(at.0 + i as u64, MemType::Wb, false, &[*byte]);
            }
            assert_eq!(machine.store(at, value as u32), code_hit, "store at {at}, step {step}");
        }
        600..680 => {
            let (mut got, mut want) = ([0; 64], [0; 64]);
            m.read(at, ty, no_fill, &mut got[..len]);
            model.read(at.0, ty, no_fill, &mut want[..len]);
            assert_eq!(got, want, "{ty:?} read at {at}, step {step}");
        }
        680..760 => {
            let want = model.write(at.0, ty, no_fill, &data[..len]);
            assert_eq!(m.write(at, ty, no_fill, &data[..len]), want, "{ty:?} write at {at}, step {step}");
        }
        760..790 => {
            let want = model.write(at.0, MemType::Uc, false, &data[..len]);
            assert_eq!(m.write_nontemporal(at, &data[..len]), want);
        }
        790..850 => {
            m.clflush(at);
            model.clean(tag);
            model.drop_line(tag);
        }
        850..890 => {
            m.clwb(at);
            model.clean(tag);
        }
        890..930 => {
            // DMA of any length, across lines and pages.
            let len = 1 + value as usize % data.len();
            let len = len.min(((PAGES << 12) - pa) as usize);
            if value >> 32 & 1 == 0 {
                let mut got = [0; 700];
                m.dma_read(at, &mut got[..len]);
                for (i, byte) in got[..len].iter().enumerate() {
                    let at = at.0 + i as u64;
                    let line = model.view(at & !63);
                    assert_eq!(*byte, line[(at & 63) as usize], "DMA read at {at:#x}, step {step}");
                }
            } else {
                m.dma_write(at, &data[..len]);
                assert_eq!(reported(m), model.write_past(at.0, &data[..len]), "DMA write at {at}, step {step}");
            }
        }
        930..960 => {
            let frame = m.touch(at, Access::Fetch, false).unwrap().frame;
            model.fill(tag);
            m.set_code(frame, at.line_in_page());
            model.code.insert(tag);
            assert_ne!(frame.exec_ok() >> at.line_in_page() & 1, 0);
        }
        960..985 => {
            let kid = 1 + value % (KEYIDS - 1);
            let (cmd, key) = match value >> 32 & 3 {
                0 => (pconfig::KEYID_CLEAR_KEY, Key::Tme),
                1 => (pconfig::KEYID_NO_ENCRYPT, Key::Plain),
                n => {
                    let alg = if n == 2 { Algorithm::AesXts128 } else { Algorithm::AesXts256 };
                    let used = alg.key_bytes();
                    let key = XtsKey::new(alg, &data[..used], &data[64..64 + used]);
                    let (k1, k2) = (data[..64].try_into().unwrap(), data[64..128].try_into().unwrap());
                    m.tme_mut().program_key(KeyId(kid as u16), pconfig::KEYID_SET_KEY_DIRECT, alg, k1, k2).unwrap();
                    model.keys[kid as usize] = Key::Own(Box::new(key));
                    return;
                }
            };
            command(m, kid as u16, cmd);
            model.keys[kid as usize] = key;
        }
        985..992 => {
            let pa = pa & !0xFFF;
            m.load_image(PhysAddr(pa), &data[..500]);
            assert_eq!(reported(m), model.write_past(pa, &data[..500]));
        }
        992..994 => {
            m.wbinvd();
            model.write_back_all();
            model.drop_all();
        }
        994..996 => {
            m.wbnoinvd();
            model.write_back_all();
        }
        996..998 => {
            m.invd();
            model.drop_all();
        }
        998 => m.reset(ResetKind::Init),
        _ => {
            m.reset(ResetKind::Warm);
            power_on(m, bypass);
            model.drop_all();
            model.keys.fill(Key::Tme);
        }
    }
    while machine.mem.take_code_hit().is_some() {}
    while let Some(retired) = machine.mem.take_retired() {
        machine.fast.purge_frame(retired.frame);
    }
}

/// Every setting that the operations can tell apart.
fn setups() -> impl Iterator<Item = Setup> {
    let setup = |cache, order, evict_rate, prefetch, bypass| Setup { cache, order, evict_rate, prefetch, bypass };
    let (rare, often) = (Rate::from_ppm(20_000).unwrap(), Rate::from_ppm(300_000).unwrap());
    let caching = [CacheModel::Exact, CacheModel::Lazy].into_iter().flat_map(move |cache| {
        let orders = WbOrder::ALL.into_iter().enumerate();
        orders.map(move |(i, order)| {
            let only = |at: usize, rate| if i == at { rate } else { Rate::NEVER };
            setup(cache, order, only(1, rare), only(3, often), i == 2)
        })
    });
    caching.chain(
        [false, true].map(|bypass| setup(CacheModel::Off, WbOrder::Ascending, Rate::NEVER, Rate::ALWAYS, bypass)),
    )
}

/// Runs each setting with and without the fast path.
fn compare(seeds: std::ops::Range<u64>, steps: u32) {
    for setup in setups() {
        for seed in seeds.clone() {
            let (with, hits) = run(setup, seed, steps, true);
            let (without, no_hits) = run(setup, seed, steps, false);
            assert_eq!(with, without, "{setup:?} {seed}");
            assert!(hits > u64::from(steps / 50), "the fast path was used {hits} times, {setup:?}");
            assert_eq!(no_hits, 0);
        }
    }
}

/// 100,000 operations and more on each cache model.
#[test]
fn random_operations_match_the_naive_model_and_do_not_depend_on_the_fast_path() {
    compare(0..2, 30_000);
}

/// `MKTME_MODEL_OPS` operations on each cache model, 10 million by default.
#[test]
#[ignore = "takes minutes"]
fn a_long_run_of_random_operations_matches_the_naive_model() {
    let operations = std::env::var("MKTME_MODEL_OPS").ok().map_or(10_000_000, |text| text.parse::<u64>().unwrap());
    // `off` has the fewest settings, two; each runs with and without the fast path.
    compare(100..100 + operations.div_ceil(4 * 500_000), 500_000);
}

#[test]
fn the_state_hash_tells_runs_apart() {
    for cache in CacheModel::ALL {
        let setup =
            Setup { cache, order: WbOrder::Ascending, evict_rate: Rate::NEVER, prefetch: Rate::NEVER, bypass: false };
        assert_ne!(run(setup, 1, 1000, true).0, run(setup, 2, 1000, true).0);
        assert_eq!(run(setup, 1, 1000, true).0, run(setup, 1, 1000, true).0);
    }
}
