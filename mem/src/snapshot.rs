//! Snapshots of the memory side, in memory and as bytes.
//!
//! A snapshot shares what did not change with the one before it, and a restored machine shares everything with its snapshot
//! until it writes (`dram`, `cache/snapshot.rs`). Observers are no part of it: events are forgotten by a restore, and the
//! sanitizer starts anew. Nor are injected faults ([`crate::fault::disturb`]): a restore disarms them.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::sync::Arc;

use crate::PlainLine;
use crate::addr::{BusAddr, LINE_BYTES, LINE_SHIFT, LINES_PER_PAGE, LineAddr, PAGE_BYTES};
use crate::cache::snapshot::{CacheSnapshot, Contents, FrameImage, Poison, SetGroup};
use crate::cache::{GROUP_SETS, line_bit};
use crate::config::{CacheModel, Config};
use crate::controller::Writers;
use crate::dram::{CellPage, Metadata, PageTable};
use crate::event::Events;
use crate::fault::Faults;
use crate::fault::about::About;
use crate::frame::FramePtr;
use crate::integrity::LineMetadata;
use crate::map::AddressMap;
use crate::memory::Memory;
use crate::packages::Packages;
use crate::stats::Stats;
use rand_chacha::ChaCha20Rng;

/// Everything that the guest's future depends on, and the counters. Clones share everything.
#[derive(Clone)]
pub struct MemorySnapshot {
    map: AddressMap,
    cache: CacheSnapshot,
    dram: PageTable,
    packages: Arc<Packages>,
    faults: Option<Faults>,
    stats: Stats,
    writers: Writers,
}

/// What a restore had to give back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Restored {
    /// Pages of DRAM.
    pub dram_pages: usize,
    /// Pages with cached lines, each KeyID's counted.
    pub cached_pages: usize,
}

/// What two states of a machine's memory have not in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Differences {
    /// Lines whose cells differ, or that a cache holds modified in one of the two and not, or otherwise, in the other.
    pub lines: u64,
    /// The first of them, without KeyID.
    pub first: Option<LineAddr>,
}

/// Bytes that are no snapshot of this machine.
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    /// What they say makes no sense.
    #[error("{0}")]
    Contents(&'static str),
    /// They end early, or could not be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// They are of no such types.
    #[error("{0}")]
    Encoding(#[from] postcard::Error),
}

/// What is small.
#[derive(serde::Serialize, serde::Deserialize)]
struct Small<P, F, S, W> {
    packages: P,
    faults: F,
    stats: S,
    generators: [ChaCha20Rng; 3],
    /// Pages with writers, and those of their lines.
    writers: W,
}

impl Memory {
    /// The state now. Costs what changed since the last snapshot or restore; the first one copies everything.
    pub fn snapshot(&mut self) -> MemorySnapshot {
        // Every part of the memory side is here, or named as what a snapshot leaves out.
        let Self { cache, controller, code_hits: _, observer: _, observed: _, seed: _ } = self;
        MemorySnapshot {
            map: controller.map,
            cache: cache.snapshot(),
            dram: controller.dram.snapshot(),
            packages: Arc::new(controller.packages.clone()),
            faults: controller.faults.as_deref().copied(),
            stats: controller.stats.clone(),
            writers: controller.writers.clone(),
        }
    }

    /// Takes over the state of a snapshot of the same configuration. Costs what changed since the last snapshot or restore,
    /// and what differs between that one and this. [`has_reports`](Self::has_reports) may be true afterwards: blocks of code stay,
    /// but are parked, to be compared when their lines are fetched again.
    ///
    /// # Errors
    /// A snapshot of another configuration; nothing has changed then.
    pub fn restore(&mut self, snapshot: &MemorySnapshot) -> Result<Restored, Invalid> {
        let MemorySnapshot { map, cache, dram, packages, faults, stats, writers } = snapshot;
        let controller = &mut self.controller;
        if !packages.same_hardware(&controller.packages) || *map != controller.map {
            return Err(Invalid::Contents("of another machine"));
        }
        let restored =
            Restored { dram_pages: controller.dram.pages_written(), cached_pages: self.cache.pages_changed() };
        let mut events = std::mem::take(&mut controller.packages.executing.events);
        events.forget();
        controller.packages = Packages::clone(packages);
        controller.packages.executing.events = events;
        controller.dram.restore(dram);
        controller.stats = stats.clone();
        controller.faults = faults.map(Box::new);
        (controller.injector, controller.wires) = (None, None);
        controller.about = About::default();
        if let Some(integrity) = &mut controller.integrity {
            integrity.forget();
        }
        if controller.events().enabled() {
            controller.writers.clone_from(writers);
        }
        self.cache.restore(&self.controller, cache);
        self.note_observed();
        self.observe_reset();
        if self.observer.is_some() {
            self.cache.pool.allow_all(false);
        }
        Ok(restored)
    }

    /// A fetched line of code that has left the cache since, and that the processor still goes by: stores to it are reported
    /// as if it had been fetched now. The frame of its page; `None` outside RAM.
    pub fn park_code(&mut self, address: BusAddr) -> Option<FramePtr> {
        let place = self.controller.place(address)?;
        Some(self.cache.park_code(place))
    }
}

impl MemorySnapshot {
    /// What memory holds here and not in another state of the same machine. Clean cached lines are left aside: they are
    /// copies.
    pub fn differences(&self, other: &Self) -> Differences {
        let mut lines = BTreeSet::new();
        let mut differ = |page: u32, line: usize| {
            lines.insert(self.map.page_address(page).line().0 + line as u64);
        };
        self.dram.differences(&other.dram, &mut differ);
        self.cache.differences(&other.cache, &mut differ);
        Differences { lines: lines.len() as u64, first: lines.first().map(|line| LineAddr(*line)) }
    }

    /// Pages of DRAM that have ever been written.
    pub fn dram_pages(&self) -> usize {
        self.dram.pages()
    }

    /// Writes what is small: key tables, generators, counters.
    ///
    /// # Errors
    /// Those of the encoding.
    pub fn write_small(&self) -> Result<Vec<u8>, postcard::Error> {
        let writers = self.writers.iter().enumerate();
        let small = Small {
            packages: &*self.packages,
            faults: &self.faults,
            stats: &self.stats,
            generators: self.cache.generators.clone(),
            writers: writers.filter_map(|(page, of)| Some((page as u32, of.as_deref()?.to_vec()))).collect::<Vec<_>>(),
        };
        postcard::to_stdvec(&small)
    }

    /// Writes the cached lines: their number of pages, each page, then the sets of the `exact` model. Integers are
    /// little-endian.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_cache(&self, out: &mut dyn Write) -> io::Result<()> {
        let Contents { frames, groups, .. } = &*self.cache.contents;
        out.write_all(&(frames.len() as u64).to_le_bytes())?;
        for frame in frames {
            let poison = &frame.poison;
            let head = [frame.bus_page.0, frame.resident, frame.dirty, poison.lines];
            for value in head.iter().chain(&poison.overwritten) {
                out.write_all(&value.to_le_bytes())?;
            }
            frame.lines.iter().try_for_each(|line| out.write_all(&line.0))?;
        }
        for group in groups {
            out.write_all(&group.filled)?;
            group.lines.iter().try_for_each(|line| out.write_all(&line.0.to_le_bytes()))?;
        }
        Ok(())
    }

    /// Writes the pages of DRAM that have ever been written: their number, then of each its number, its bytes, and 1 and the
    /// metadata of its lines, or 0 where that is zeros. `progress` is told
    /// how many are done.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_dram(&self, out: &mut dyn Write, progress: &mut dyn FnMut(usize)) -> io::Result<()> {
        out.write_all(&(self.dram.pages() as u64).to_le_bytes())?;
        for (done, (number, page)) in self.dram.iter().enumerate() {
            out.write_all(&number.to_le_bytes())?;
            out.write_all(&page.to_bytes())?;
            out.write_all(&[page.metadata.is_some().into()])?;
            let metadata = page.metadata.iter().flat_map(|all| all.iter());
            metadata.clone().try_for_each(|bits| out.write_all(&bits.to_le_bytes()))?;
            progress(done);
        }
        Ok(())
    }

    /// Reads what the three wrote for a machine of this configuration.
    ///
    /// # Errors
    /// Whatever is not what they write. Nothing is trusted: memory is allocated for what was read, not for what is announced.
    pub fn read(
        config: &Config,
        small: &[u8],
        cache: &mut dyn Read,
        dram: &mut dyn Read,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Self, Invalid> {
        let map = AddressMap::new(config.ram_bytes);
        let (small, rest) =
            postcard::take_from_bytes::<Small<Packages, Option<Faults>, Stats, Vec<(u32, Vec<u16>)>>>(small)?;
        let fresh = Packages::new(config, map.pages());
        if !rest.is_empty() || !small.packages.same_hardware(&fresh) {
            return Err(Invalid::Contents("key tables of another machine"));
        }
        if small.stats.keyids() != 1 << fresh.executing.features().max_keyid_bits() {
            return Err(Invalid::Contents("counters of another machine"));
        }
        let writers = read_writers(small.writers, map.pages())?;
        let contents = Arc::new(read_cache(config, &map, &small.packages, cache)?);
        let dram = read_dram(config, &map, dram, progress)?;
        Ok(Self {
            map,
            cache: CacheSnapshot { contents, generators: small.generators },
            dram,
            packages: Arc::new(small.packages),
            faults: small.faults,
            stats: small.stats,
            writers,
        })
    }
}

fn read_writers(pages: Vec<(u32, Vec<u16>)>, ram_pages: usize) -> Result<Writers, Invalid> {
    let mut writers: Writers = if pages.is_empty() { Vec::new() } else { vec![None; ram_pages] };
    for (page, of) in pages {
        let place = writers.get_mut(page as usize).zip(<[u16; LINES_PER_PAGE]>::try_from(of).ok());
        let (place, of) = place.ok_or(Invalid::Contents("writers of lines that there are not"))?;
        *place = Some(Arc::new(of));
    }
    Ok(writers)
}

fn read_u64(from: &mut dyn Read) -> io::Result<u64> {
    let mut bytes = [0; 8];
    from.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

fn read_cache(
    config: &Config,
    map: &AddressMap,
    packages: &Packages,
    from: &mut dyn Read,
) -> Result<Contents, Invalid> {
    const WRONG: Invalid = Invalid::Contents("a cached line that the cache cannot have");
    let layout = packages.executing.layout();
    let mut frames: Vec<Arc<FrameImage>> = Vec::new();
    for _ in 0..read_u64(from)? {
        let [bus_page, resident, dirty] = [read_u64(from)?, read_u64(from)?, read_u64(from)?];
        let poison = read_u64(from)?;
        if poison & !resident != 0 || poison != 0 && !config.integrity {
            return Err(WRONG);
        }
        let overwritten = (0..poison.count_ones()).map(|_| read_u64(from)).collect::<io::Result<Box<[u64]>>>()?;
        let bus_page = BusAddr(bus_page);
        let inside = bus_page.0 >> layout.maxphyaddr.min(63) == 0 && bus_page.page_offset() == 0;
        let page = map.page_index(layout.mem(bus_page)).filter(|_| inside).ok_or(WRONG)?;
        let ascending = frames.last().is_none_or(|last| last.bus_page < bus_page);
        if !ascending || resident == 0 || dirty & !resident != 0 {
            return Err(WRONG);
        }
        let mut lines = vec![PlainLine([0; LINE_BYTES]); resident.count_ones() as usize];
        lines.iter_mut().try_for_each(|line| from.read_exact(&mut line.0))?;
        let poison = Poison { lines: poison, overwritten };
        frames.push(Arc::new(FrameImage::new(bus_page, page, [resident, dirty], lines.into(), poison)));
    }
    let groups = if config.cache == CacheModel::Exact { read_sets(config, &frames, from)? } else { Vec::new() };
    if from.read(&mut [0])? != 0 {
        return Err(WRONG);
    }
    Ok(Contents::new(frames, groups))
}

/// The sets list each line of the frames once, in its set.
fn read_sets(config: &Config, frames: &[Arc<FrameImage>], from: &mut dyn Read) -> Result<Vec<Arc<SetGroup>>, Invalid> {
    const WRONG: Invalid = Invalid::Contents("a set that the cache cannot have");
    let sets = config.cache_bytes / (LINE_BYTES * config.cache_ways);
    let mut unlisted: Vec<u64> = frames.iter().map(|frame| frame.resident).collect();
    let mut groups = Vec::new();
    for first in (0..sets).step_by(GROUP_SETS) {
        let mut filled = vec![0; GROUP_SETS.min(sets - first)];
        from.read_exact(&mut filled)?;
        let mut lines = Vec::new();
        for (set, &count) in (first..).zip(&filled) {
            if usize::from(count) > config.cache_ways {
                return Err(WRONG);
            }
            for _ in 0..count {
                let line = BusAddr(read_u64(from)?);
                let at = frames.binary_search_by_key(&line.page(), |frame| frame.bus_page).map_err(|_| WRONG)?;
                let bit = line_bit(line.line_in_page());
                if unlisted[at] & bit == 0 || line.line_offset() != 0 || (line.0 >> LINE_SHIFT) as usize % sets != set {
                    return Err(WRONG);
                }
                unlisted[at] &= !bit;
                lines.push(line);
            }
        }
        groups.push(Arc::new(SetGroup::new(filled.into(), lines.into())));
    }
    if unlisted.iter().any(|lines| *lines != 0) { Err(WRONG) } else { Ok(groups) }
}

fn read_dram(
    config: &Config,
    map: &AddressMap,
    from: &mut dyn Read,
    progress: &mut dyn FnMut(usize),
) -> Result<PageTable, Invalid> {
    const WRONG: Invalid = Invalid::Contents("a page of DRAM that the machine does not have");
    let mut table = PageTable::new(map.pages());
    let count = read_u64(from)?;
    if count > map.pages() as u64 {
        return Err(WRONG);
    }
    let mut pages = Vec::new();
    let mut last = None;
    for done in 0..count as usize {
        let mut number = [0; 4];
        from.read_exact(&mut number)?;
        let number = u32::from_le_bytes(number);
        if number as usize >= map.pages() || last.is_some_and(|last| number <= last) {
            return Err(WRONG);
        }
        last = Some(number);
        let mut bytes = [0; PAGE_BYTES];
        from.read_exact(&mut bytes)?;
        pages.push((number, CellPage::from_bytes(&bytes, read_metadata(config, from)?)));
        progress(done);
    }
    table.replace(pages.into_iter());
    if from.read(&mut [0])? != 0 { Err(WRONG) } else { Ok(table) }
}

fn read_metadata(config: &Config, from: &mut dyn Read) -> Result<Option<Box<Metadata>>, Invalid> {
    const WRONG: Invalid = Invalid::Contents("metadata of lines that cannot be");
    let mut present = [0];
    from.read_exact(&mut present)?;
    match present {
        [0] => return Ok(None),
        [1] if config.integrity => {}
        _ => return Err(WRONG),
    }
    let mut all = Box::new([0; LINES_PER_PAGE]);
    for bits in all.iter_mut() {
        let mut bytes = [0; 4];
        from.read_exact(&mut bytes)?;
        *bits = u32::from_le_bytes(bytes);
    }
    if all.iter().any(|bits| *bits >= LineMetadata::BITS) { Err(WRONG) } else { Ok(Some(all)) }
}

impl Events {
    /// Forgets what was recorded.
    pub(crate) fn forget(&mut self) {
        let on = self.enabled();
        self.enable(false);
        self.enable(on);
    }
}
