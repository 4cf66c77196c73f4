//! The naive model: lists of (full PA, bytes) above a map from line to ciphertext. Nothing here is clever.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use crypto::XtsKey;
use mem::{Algorithm, CacheModel, CipherLine, MemType, PlainLine, WbOrder};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::Setup;
use crate::common::ascending;

/// Sizes of the modelled machine: small, so that sets overflow and aliases meet.
pub const WAYS: usize = 4;
pub const SETS: u64 = 16;
pub const RAM_BYTES: u64 = 1 << 20;
pub const KEYIDS: u64 = 5;
pub const MEMORY_BITS: u32 = 40;
pub const EXCLUDED_PAGE: u64 = 1;

/// An entry of the key table.
#[derive(Clone)]
pub enum Key {
    Tme,
    Plain,
    Own(Box<XtsKey>),
}

pub struct Line {
    pub tag: u64,
    pub bytes: [u8; 64],
    pub dirty: bool,
}

pub struct Model {
    setup: Setup,
    pub dram: HashMap<u64, [u8; 64]>,
    /// Oldest fill first. `lazy` has one list, `off` has none.
    sets: Vec<VecDeque<Line>>,
    pub keys: Vec<Key>,
    tme: XtsKey,
    pub code: BTreeSet<u64>,
    write_backs: ChaCha20Rng,
    evictions: ChaCha20Rng,
    prefetches: ChaCha20Rng,
}

/// A number below `end`.
fn below(rng: &mut ChaCha20Rng, end: u64) -> u64 {
    ((u128::from(rng.next_u64()) * u128::from(end)) >> 64) as u64
}

impl Model {
    pub fn new(setup: Setup) -> Self {
        let tme = XtsKey::new(Algorithm::AesXts128, &ascending(0xA0)[..16], &ascending(0xB0)[..16]);
        let sets = std::iter::repeat_with(VecDeque::new).take(SETS as usize).collect();
        let keys = vec![Key::Tme; KEYIDS as usize];
        let generator = |stream| {
            let mut rng = ChaCha20Rng::from_seed([0; 32]);
            rng.set_stream(stream);
            rng
        };
        let (write_backs, evictions, prefetches) = (generator(5), generator(6), generator(7));
        Self { setup, dram: HashMap::new(), sets, keys, tme, code: BTreeSet::new(), write_backs, evictions, prefetches }
    }

    fn key(&self, tag: u64) -> Option<&XtsKey> {
        let (kid, pa) = (tag >> MEMORY_BITS, mem(tag));
        match &self.keys[kid as usize] {
            _ if kid == 0 && pa >> 12 == EXCLUDED_PAGE => None,
            Key::Plain => None,
            Key::Own(key) => Some(key),
            Key::Tme => (!self.setup.bypass).then_some(&self.tme),
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

    pub fn find(&mut self, tag: u64) -> Option<&mut Line> {
        self.set(tag).iter_mut().find(|line| line.tag == tag)
    }

    /// What a load would return.
    pub fn view(&mut self, tag: u64) -> [u8; 64] {
        self.find(tag).map(|line| line.bytes).unwrap_or_else(|| self.dram_read(tag))
    }

    /// A load of type WB; in `off` it leaves nothing behind.
    pub fn fill(&mut self, tag: u64) {
        if self.find(tag).is_some() || self.setup.cache == CacheModel::Off {
            return;
        }
        let ppm = u64::from(self.setup.prefetch.ppm());
        if ppm > 0 && self.find(tag ^ 64).is_none() && below(&mut self.prefetches, 1_000_000) < ppm {
            self.fill_one(tag ^ 64);
        }
        self.fill_one(tag);
    }

    fn fill_one(&mut self, tag: u64) {
        self.evict_at_random();
        if self.setup.cache == CacheModel::Exact && self.set(tag).len() == WAYS {
            let victim = self.set(tag)[0].tag;
            self.clean(victim);
            self.drop_line(victim);
        }
        let bytes = self.dram_read(tag);
        self.set(tag).push_back(Line { tag, bytes, dirty: false });
    }

    fn evict_at_random(&mut self) {
        let ppm = u64::from(self.setup.evict_rate.ppm());
        if ppm == 0 || below(&mut self.evictions, 1_000_000) >= ppm {
            return;
        }
        let (pages, mut by_page) = (RAM_BYTES >> 12, BTreeMap::<u64, Vec<u64>>::new());
        let (first, pick) = (below(&mut self.evictions, pages), self.evictions.next_u64());
        for line in self.sets.iter().flatten() {
            by_page.entry(mem(line.tag) >> 12).or_default().push(line.tag);
        }
        if let Some(mut tags) = (first..pages).chain(0..first).find_map(|page| by_page.remove(&page)) {
            tags.sort_unstable();
            let victim = tags[(pick % tags.len() as u64) as usize];
            self.clean(victim);
            self.drop_line(victim);
        }
    }

    pub fn clean(&mut self, tag: u64) {
        if let Some(line) = self.find(tag).filter(|line| line.dirty) {
            line.dirty = false;
            let bytes = line.bytes;
            self.dram_write(tag, bytes);
        }
    }

    pub fn drop_line(&mut self, tag: u64) {
        self.set(tag).retain(|line| line.tag != tag);
    }

    pub fn read(&mut self, at: u64, ty: MemType, no_fill: bool, buf: &mut [u8]) {
        let (tag, offset) = (at & !63, (at & 63) as usize);
        if !matches!(ty, MemType::Wb | MemType::Wt | MemType::Wp) {
            self.clean(tag);
            self.drop_line(tag);
        } else if !no_fill {
            self.fill(tag);
        }
        let line = self.view(tag);
        buf.copy_from_slice(&line[offset..offset + buf.len()]);
    }

    /// True when code was hit.
    pub fn write(&mut self, at: u64, ty: MemType, no_fill: bool, buf: &[u8]) -> bool {
        let (tag, offset) = (at & !63, (at & 63) as usize);
        let hit = self.find(tag).is_some();
        let merge = |line: &mut [u8; 64]| line[offset..offset + buf.len()].copy_from_slice(buf);
        if ty == MemType::Wb && (hit || !no_fill) && self.setup.cache != CacheModel::Off {
            self.fill(tag);
            let line = self.find(tag).unwrap();
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
    pub fn write_past(&mut self, at: u64, bytes: &[u8]) -> BTreeSet<u64> {
        let addresses = at..at + bytes.len() as u64;
        let hits = addresses.zip(bytes).filter(|(at, byte)| self.write(*at, MemType::Uc, false, &[**byte]));
        hits.map(|(at, _)| at & !63).collect()
    }

    pub fn write_back_all(&mut self) {
        let mut tags: Vec<u64> = self.sets.iter().flatten().filter(|line| line.dirty).map(|line| line.tag).collect();
        tags.sort_unstable();
        match self.setup.order {
            WbOrder::Ascending => {}
            WbOrder::Descending => tags.reverse(),
            WbOrder::Seeded => {
                for at in (1..tags.len()).rev() {
                    tags.swap(at, below(&mut self.write_backs, at as u64 + 1) as usize);
                }
            }
            WbOrder::Adversarial => {
                // Of one line's copies the last write-back counts: the one that changes least.
                let changed: HashMap<u64, usize> = tags.iter().map(|&tag| (tag, self.changed_bytes(tag))).collect();
                tags.sort_by_key(|tag| (mem(*tag), std::cmp::Reverse(changed[tag]), std::cmp::Reverse(*tag)));
            }
        }
        for tag in tags {
            self.clean(tag);
        }
    }

    fn changed_bytes(&mut self, tag: u64) -> usize {
        let memory = self.dram_read(tag);
        self.view(tag).iter().zip(memory).filter(|(a, b)| **a != *b).count()
    }

    pub fn drop_all(&mut self) {
        self.sets.iter_mut().for_each(VecDeque::clear);
    }
}

/// `Mem(pa)`.
pub fn mem(tag: u64) -> u64 {
    tag & ((1 << MEMORY_BITS) - 1)
}
