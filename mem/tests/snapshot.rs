//! Snapshots of the memory side: a restored memory is the one that was taken, whatever happened in between, and what was
//! not written is not copied.

mod common;

use common::*;
use mem::{
    Access, BusAddr, CacheModel, Config, FastTable, KeyId, MemType, Memory, MemorySnapshot, PhysAddr, Rate, WbOrder,
};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use x86::platform::ResetKind;

const RAM: u64 = 4 << 20;

fn configs() -> Vec<Config> {
    let base = Config { ram_bytes: RAM, cache_bytes: 16 << 10, cache_ways: 4, ..Config::default() };
    let rate = Rate::from_ppm(20_000).unwrap();
    let random = Config { evict_rate: rate, prefetch: rate, wb_order: WbOrder::Seeded, ..base.clone() };
    vec![
        Config { cache: CacheModel::Lazy, ..random.clone() },
        Config { cache: CacheModel::Lazy, ..base.clone() },
        Config { cache: CacheModel::Off, ..base.clone() },
        Config { packages: 2, ..base.clone() },
        Config { fast: false, ..base.clone() },
        random,
        base,
    ]
}

/// A memory with a guest that does anything at all, by fast and slow accesses.
struct Guest {
    mem: Memory,
    fast: FastTable,
    rng: ChaCha20Rng,
}

impl Guest {
    fn new(config: &Config) -> Self {
        let mut mem = Memory::new(config.clone()).unwrap();
        for package in 0..config.packages {
            mem.execute_on(package);
            assert!(activate(&mut mem, ACTIVATE_K6));
        }
        mem.execute_on(0);
        let mut fast = FastTable::new();
        fast.set_mode(0, 0);
        Self { mem, fast, rng: ChaCha20Rng::seed_from_u64(0) }
    }

    fn below(&mut self, end: u64) -> u64 {
        self.rng.next_u64() % end
    }

    fn settle(&mut self) {
        while let Some(retired) = self.mem.take_retired() {
            self.fast.purge_frame(retired.frame);
        }
        while self.mem.take_code_hit().is_some() {}
        while self.mem.take_parked().is_some() {}
    }

    /// Addresses in few pages often, everywhere seldom.
    fn address(&mut self) -> (u64, BusAddr) {
        let pages = if self.below(4) == 0 { RAM / 4096 } else { 8 };
        let pa = self.below(pages) * 4096 + self.below(64) * 64 + self.below(8) * 8;
        let kid = self.below(4) as u16;
        (u64::from(kid) << 32 | pa, via(&self.mem, pa, kid))
    }

    fn access(&mut self) {
        let (linear, bus) = self.address();
        let value = self.rng.next_u64();
        if self.below(2) == 0 {
            if self.fast.store(linear, value) {
                return;
            }
            let touched = self.mem.touch(bus, Access::Write, false).unwrap();
            touched.frame.write(bus.page_offset(), &value.to_le_bytes());
            self.settle();
            self.fast.install(linear, 0, touched.frame);
        } else if self.fast.load::<u64>(linear).is_none() {
            let touched = self.mem.touch(bus, Access::Read, false).unwrap();
            self.settle();
            self.fast.install(linear, 0, touched.frame);
        }
    }

    fn step(&mut self) {
        let (_, bus) = self.address();
        let bytes = self.rng.next_u64().to_le_bytes();
        match self.below(400) {
            0 => self.mem.wbinvd(),
            1 => self.mem.invd(),
            2 => self.mem.wbnoinvd(),
            3 => {
                let (kid, key) = (self.below(3) as u16 + 1, ascending(self.below(200) as u8));
                direct(&mut self.mem, kid, mem::Algorithm::AesXts128, &key, &ascending(1));
            }
            4 => {
                self.mem.keytable_flip(0, KeyId(1), mem::KeyField::K1, 3);
            }
            5 => {
                let line = self.mem.layout().mem(bus).line();
                self.mem.dram_write_raw(line, &mem::CipherLine([bytes[0]; 64]));
            }
            6 => {
                self.mem.tme_mut().rdrand64();
            }
            7 if self.below(8) == 0 => {
                self.mem.reset(ResetKind::Warm);
                for package in 0..self.mem.packages() {
                    self.mem.execute_on(package);
                    activate(&mut self.mem, ACTIVATE_K6);
                }
                self.mem.execute_on(0);
            }
            8..20 => self.mem.clflush(bus),
            20..30 => self.mem.clwb(bus),
            30..40 => drop(self.mem.write_nontemporal(bus, &bytes)),
            40..50 => self.mem.dma_write(bus, &bytes),
            50..60 => drop(self.mem.write(bus, MemType::Wt, false, &bytes)),
            60..70 => drop(self.mem.write(bus, MemType::Uc, false, &bytes)),
            70..80 => {
                if let Some(touched) = self.mem.touch(bus, Access::Fetch, false) {
                    self.mem.set_code(touched.frame, bus.line_in_page());
                }
            }
            _ => self.access(),
        }
        self.settle();
    }

    fn run(&mut self, steps: usize) {
        (0..steps).for_each(|_| self.step());
    }

    fn hash(&self) -> u128 {
        state_hash(&self.mem)
    }

    fn restore(&mut self, (snapshot, rng): &(MemorySnapshot, ChaCha20Rng)) {
        self.mem.restore(snapshot).unwrap();
        self.settle();
        self.rng = rng.clone();
    }
}

/// Through bytes and back.
fn copied(config: &Config, snapshot: &MemorySnapshot) -> MemorySnapshot {
    let small = snapshot.write_small().unwrap();
    let (mut cache, mut dram) = (Vec::new(), Vec::new());
    snapshot.write_cache(&mut cache).unwrap();
    snapshot.write_dram(&mut dram, &mut |_| ()).unwrap();
    MemorySnapshot::read(config, &small, &mut &cache[..], &mut &dram[..], &mut |_| ()).unwrap()
}

#[test]
fn any_rung_of_a_ladder_is_restored_and_goes_on_as_before() {
    for config in configs() {
        let mut plain = Guest::new(&config);
        let mut guest = Guest::new(&config);
        let mut ladder = Vec::new();
        let mut hashes = Vec::new();
        for _ in 0..8 {
            plain.run(1500);
            guest.run(1500);
            ladder.push((guest.mem.snapshot(), guest.rng.clone()));
            hashes.push(plain.hash());
            assert_eq!(guest.hash(), plain.hash(), "taking a snapshot changes nothing: {config:?}");
        }
        plain.run(1500);
        let mut order = ChaCha20Rng::seed_from_u64(7);
        for n in 0..24 {
            let rung = order.next_u64() as usize % ladder.len();
            guest.restore(&ladder[rung]);
            assert_eq!(guest.hash(), hashes[rung], "{n} {rung} {config:?}");
            if n % 8 == 0 {
                // The snapshots are as they were, whoever restores them.
                let mut other = Guest::new(&config);
                other.restore(&(copied(&config, &ladder[rung].0), ladder[rung].1.clone()));
                assert_eq!(other.hash(), hashes[rung]);
                other.run(1500);
                assert_eq!(Some(other.hash()), hashes.get(rung + 1).copied().or(Some(plain.hash())));
            }
            guest.run(1500);
            let expected = hashes.get(rung + 1).copied().unwrap_or_else(|| plain.hash());
            assert_eq!(guest.hash(), expected, "{n} {rung} {config:?}");
            guest.run(order.next_u64() as usize % 3000);
        }
    }
}

#[test]
fn frames_that_change_their_pages_are_told_apart() {
    let config = Config { ram_bytes: 96 << 20, ..Config::default() };
    let mut guest = Guest::new(&config);
    let touch = |guest: &mut Guest, from: u64| {
        for page in 0..12_000u64 {
            let bus = via(&guest.mem, (from + page) % (96 << 8) * 4096 + page % 64 * 64, (page % 3) as u16);
            guest.mem.write(bus, MemType::Wb, false, &page.to_le_bytes());
            guest.settle();
        }
    };
    touch(&mut guest, 0);
    touch(&mut guest, 12_000);
    let (snapshot, before) = (guest.mem.snapshot(), guest.hash());
    touch(&mut guest, 5_000);
    touch(&mut guest, 18_000);
    assert!(guest.mem.frames_recycled() > 0);
    let (later, after) = (guest.mem.snapshot(), guest.hash());
    touch(&mut guest, 3_000);
    for (snapshot, hash) in [(&snapshot, before), (&later, after), (&snapshot, before)] {
        guest.mem.restore(snapshot).unwrap();
        guest.settle();
        assert_eq!(guest.hash(), hash);
        touch(&mut guest, 9_000);
    }
}

#[test]
fn a_restore_costs_what_was_changed() {
    let mut guest = Guest::new(&Config { ram_bytes: 64 << 20, ..Config::default() });
    guest.mem.load_image(PhysAddr(0), &vec![0x5A; 48 << 20]);
    let snapshot = guest.mem.snapshot();
    for page in 0..100u64 {
        let bus = via(&guest.mem, page * 0x3000, 1);
        guest.mem.write(bus, MemType::Wb, false, &[1]);
        guest.mem.clflush(bus);
        guest.mem.touch(via(&guest.mem, page * 0x3000, 2), Access::Read, false);
    }
    guest.mem.touch(via(&guest.mem, 0, 0), Access::Read, false);
    let restored = guest.mem.restore(&snapshot).unwrap();
    assert_eq!(restored.dram_pages, 100);
    // The lines that were flushed count as well: they were there in between.
    assert_eq!(restored.cached_pages, 201);
    let again = guest.mem.restore(&snapshot).unwrap();
    assert_eq!((again.dram_pages, again.cached_pages), (0, 0));
}

#[test]
fn a_line_that_was_dirty_when_the_snapshot_was_taken_is_saved_before_its_first_direct_store() {
    let mut guest = Guest::new(&Config { ram_bytes: RAM, ..Config::default() });
    let bus = via(&guest.mem, 0x1000, 1);
    let frame = guest.mem.touch(bus, Access::Write, false).unwrap().frame;
    frame.write(0, &[7]);
    guest.fast.install(0x1000, 0, frame);
    assert!(guest.fast.store_u8(0x1000, 8));
    let snapshot = guest.mem.snapshot();
    assert!(!guest.fast.store_u8(0x1000, 9), "the first store is a slow one");
    assert_eq!(guest.fast.load_u8(0x1000), Some(8));
    guest.mem.write(bus, MemType::Wb, false, &[9]);
    assert!(guest.fast.store_u8(0x1001, 9), "the second one is not");
    guest.mem.restore(&snapshot).unwrap();
    assert_eq!(guest.fast.load_u8(0x1000), Some(8));
    assert!(!guest.fast.store_u8(0x1000, 9));
}

#[test]
fn bytes_that_are_no_snapshot_are_refused_without_a_panic() {
    let config = &configs()[6];
    let mut guest = Guest::new(config);
    guest.run(5_000);
    let snapshot = guest.mem.snapshot();
    let parts = {
        let (mut cache, mut dram) = (Vec::new(), Vec::new());
        snapshot.write_cache(&mut cache).unwrap();
        snapshot.write_dram(&mut dram, &mut |_| ()).unwrap();
        [snapshot.write_small().unwrap(), cache, dram]
    };
    let read = |parts: &[Vec<u8>; 3]| {
        MemorySnapshot::read(config, &parts[0], &mut &parts[1][..], &mut &parts[2][..], &mut |_| ())
    };
    let mut rng = ChaCha20Rng::seed_from_u64(3);
    for n in 0..1500 {
        let mut damaged = parts.clone();
        let part = &mut damaged[n % 2];
        let at = rng.next_u64() as usize % part.len();
        match n % 5 {
            0 => part.truncate(at),
            _ => part[at] ^= 1 << (rng.next_u64() % 8),
        }
        // What passes is a snapshot of some machine, which can be restored and run.
        if let Ok(other) = read(&damaged) {
            let mut guest = Guest::new(config);
            if guest.mem.restore(&other).is_ok() {
                guest.hash();
                if n % 16 == 0 {
                    guest.run(50);
                }
            }
        }
    }
    for end in [0, 7, 8, 11, parts[2].len() - 1] {
        let mut cut = parts.clone();
        cut[2].truncate(end);
        assert!(read(&cut).is_err());
    }
    let mut longer = parts.clone();
    longer[2].push(0);
    assert!(read(&longer).is_err());
    let other = Config { ram_bytes: RAM / 2, ..config.clone() };
    assert!(MemorySnapshot::read(&other, &parts[0], &mut &parts[1][..], &mut &parts[2][..], &mut |_| ()).is_err());
}
