//! Random operations against a naive model: a FIFO list of (full PA, bytes) per set above a map from line to ciphertext.

mod common;

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use common::*;
use crypto::XtsKey;
use mem::{Access, Algorithm, BusAddr, CipherLine, Config, FastTable, KeyId, MemType, Memory, PhysAddr, PlainLine};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use x86::platform::ResetKind;
use x86::tme::pconfig;

const WAYS: usize = 4;
const SETS: u64 = 16;
const PAGES: u64 = 6;
const KEYIDS: u64 = 5;
const MEMORY_BITS: u32 = 40;
const EXCLUDED_PAGE: u64 = 1;

#[derive(Clone)]
enum Key {
    Tme,
    Plain,
    Own(Box<XtsKey>),
}

struct Line {
    tag: u64,
    bytes: [u8; 64],
    dirty: bool,
}

/// The naive model.
struct Model {
    dram: HashMap<u64, [u8; 64]>,
    sets: Vec<VecDeque<Line>>,
    keys: Vec<Key>,
    tme: XtsKey,
    bypass: bool,
    code: HashSet<u64>,
}

impl Model {
    fn new(bypass: bool) -> Self {
        let tme = XtsKey::new(Algorithm::AesXts128, &ascending(0xA0)[..16], &ascending(0xB0)[..16]);
        let sets = std::iter::repeat_with(VecDeque::new).take(SETS as usize).collect();
        let keys = vec![Key::Tme; KEYIDS as usize];
        Self { dram: HashMap::new(), sets, keys, tme, bypass, code: HashSet::new() }
    }

    fn key(&self, tag: u64) -> Option<&XtsKey> {
        let (kid, pa) = (tag >> MEMORY_BITS, mem(tag));
        match &self.keys[kid as usize] {
            _ if kid == 0 && pa >> 12 == EXCLUDED_PAGE => None,
            Key::Plain => None,
            Key::Own(key) => Some(key),
            Key::Tme => (!self.bypass).then_some(&self.tme),
        }
    }

    fn dram_read(&self, tag: u64) -> [u8; 64] {
        let cells = self.dram.get(&mem(tag)).copied().unwrap_or([0; 64]);
        match self.key(tag) {
            Some(key) => key.decrypt_line(mem(tag) >> 6, &CipherLine(cells)).0,
            None => cells,
        }
    }

    fn dram_write(&mut self, tag: u64, bytes: [u8; 64]) {
        let cells = match self.key(tag) {
            Some(key) => key.encrypt_line(mem(tag) >> 6, &PlainLine(bytes)).0,
            None => bytes,
        };
        self.dram.insert(mem(tag), cells);
    }

    fn set(&mut self, tag: u64) -> &mut VecDeque<Line> {
        &mut self.sets[(mem(tag) >> 6 & (SETS - 1)) as usize]
    }

    fn find(&mut self, tag: u64) -> Option<&mut Line> {
        self.set(tag).iter_mut().find(|line| line.tag == tag)
    }

    fn fill(&mut self, tag: u64) -> &mut Line {
        if self.find(tag).is_none() {
            if self.set(tag).len() == WAYS {
                let victim = self.set(tag).pop_front().unwrap();
                if victim.dirty {
                    self.dram_write(victim.tag, victim.bytes);
                }
            }
            let bytes = self.dram_read(tag);
            self.set(tag).push_back(Line { tag, bytes, dirty: false });
        }
        self.find(tag).unwrap()
    }

    fn clean(&mut self, tag: u64) {
        if let Some(line) = self.find(tag).filter(|line| line.dirty) {
            line.dirty = false;
            let bytes = line.bytes;
            self.dram_write(tag, bytes);
        }
    }

    fn drop_line(&mut self, tag: u64) {
        self.set(tag).retain(|line| line.tag != tag);
    }

    fn read(&mut self, at: u64, ty: MemType, no_fill: bool, buf: &mut [u8]) {
        let (tag, offset) = (at & !63, (at & 63) as usize);
        let allocates = matches!(ty, MemType::Wb | MemType::Wt | MemType::Wp);
        let line = if allocates && (!no_fill || self.find(tag).is_some()) {
            self.fill(tag).bytes
        } else {
            if !allocates {
                self.clean(tag);
                self.drop_line(tag);
            }
            self.dram_read(tag)
        };
        buf.copy_from_slice(&line[offset..offset + buf.len()]);
    }

    /// True when code was hit.
    fn write(&mut self, at: u64, ty: MemType, no_fill: bool, buf: &[u8]) -> bool {
        let (tag, offset) = (at & !63, (at & 63) as usize);
        let hit = self.find(tag).is_some();
        let merge = |line: &mut [u8; 64]| line[offset..offset + buf.len()].copy_from_slice(buf);
        if ty == MemType::Wb && (hit || !no_fill) {
            let line = self.fill(tag);
            merge(&mut line.bytes);
            line.dirty = true;
        } else {
            if ty == MemType::Wt {
                if let Some(line) = self.find(tag) {
                    merge(&mut line.bytes);
                }
            } else {
                self.clean(tag);
                self.drop_line(tag);
            }
            let mut line = self.dram_read(tag);
            merge(&mut line);
            self.dram_write(tag, line);
        }
        self.code.remove(&tag)
    }

    /// A write that bypasses the cache, of any length; the lines in which code was hit.
    fn write_past(&mut self, at: u64, bytes: &[u8]) -> BTreeSet<u64> {
        let addresses = at..at + bytes.len() as u64;
        let hits = addresses.zip(bytes).filter(|(at, byte)| self.write(*at, MemType::Uc, false, &[**byte]));
        hits.map(|(at, _)| at & !63).collect()
    }

    fn write_back_all(&mut self) {
        let mut tags: Vec<u64> = self.sets.iter().flatten().map(|line| line.tag).collect();
        tags.sort_unstable();
        for tag in tags {
            self.clean(tag);
        }
    }

    fn drop_all(&mut self) {
        self.sets.iter_mut().for_each(VecDeque::clear);
    }
}

fn mem(tag: u64) -> u64 {
    tag & ((1 << MEMORY_BITS) - 1)
}

/// The emulator's side: a memory with the fast table of a core in front, virtual address = full PA.
struct Machine {
    mem: Memory,
    fast: FastTable,
    fast_hits: u64,
}

impl Machine {
    fn new(fast: bool, bypass: bool) -> Self {
        let cache_bytes = SETS as usize * WAYS * 64;
        let mut mem =
            Memory::new(Config { ram_bytes: 1 << 20, cache_bytes, cache_ways: WAYS, fast, ..Config::default() })
                .unwrap();
        power_on(&mut mem, bypass);
        let mut table = FastTable::new();
        table.mask_r = !0xFFF | mem::deny::RS;
        table.mask_w = !0xFFF | mem::deny::WS;
        Self { mem, fast: table, fast_hits: 0 }
    }

    fn load(&mut self, at: BusAddr) -> u32 {
        if let Some(value) = self.fast.load_u32(at.0) {
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
        if self.fast.store_u32(at.0, value) {
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
fn run(seed: u64, steps: u32, fast: bool, bypass: bool) -> (u128, u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut machine = Machine::new(fast, bypass);
    let mut model = Model::new(bypass);
    for step in 0..steps {
        one_step(&mut rng, &mut machine, &mut model, bypass, step);
    }
    let m = &machine.mem;
    for pa in (0..PAGES << 12).step_by(64) {
        assert_eq!(raw(m, pa), model.dram.get(&pa).copied().unwrap_or([0; 64]), "cells at {pa:#x}, seed {seed}");
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
                    let line = model.find(at & !63).map(|line| line.bytes).unwrap_or_else(|| model.dram_read(at & !63));
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

#[test]
fn random_operations_match_the_naive_model_and_do_not_depend_on_the_fast_path() {
    for seed in 0..4 {
        let bypass = seed % 2 == 1;
        let (with, hits) = run(seed, 40_000, true, bypass);
        let (without, no_hits) = run(seed, 40_000, false, bypass);
        assert_eq!(with, without, "seed {seed}");
        assert!(hits > 1000, "the fast path was used {hits} times");
        assert_eq!(no_hits, 0);
    }
}

#[test]
fn the_state_hash_tells_runs_apart() {
    assert_ne!(run(1, 1000, true, false).0, run(2, 1000, true, false).0);
    assert_eq!(run(1, 1000, true, false).0, run(1, 1000, true, false).0);
}
