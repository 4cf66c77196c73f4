//! The cache in its three models (MC-27). Tags carry the KeyID.
//!
//! `exact` and `lazy`: copies of one line under several KeyIDs do not know of each other (rules R1 to R5). `off`: a line
//! has one copy at most, owned by one KeyID and written back before anything else needs the line, so that nothing shows
//! that it exists. The fast path works on frames and does not know the model: every model sets and clears the same bits.

mod evict;
mod order;
mod pool;
mod sets;
pub(crate) mod snapshot;

use rand_chacha::ChaCha20Rng;
use x86::mutant;

use crate::addr::{BusAddr, LINE_BYTES, LINES_PER_PAGE};
use crate::config::{CacheModel, Config};
use crate::controller::{Controller, Place};
use crate::event::Event;
use crate::frame::FramePtr;
use crate::rate::Rate;
use crate::tme::{eviction_generator, prefetch_generator};
use order::{Dirty, Orderer};
use pool::{FramePool, POOL_FRAMES, line_address};
use sets::{LineId, Sets};

pub(crate) use pool::line_bit;
pub(crate) use sets::{CACHE_BYTES_MAX, CACHE_WAYS_MAX, GROUP_SETS};

/// Frames that `off` leaves without lines, for pages that come: it evicts a page beyond that, which changes no result.
const OFF_SLACK: usize = 64;

enum Model {
    Exact(Sets),
    Lazy,
    Off,
}

pub(crate) struct Cache {
    pub(crate) pool: FramePool,
    model: Model,
    orderer: Orderer,
    evict_rate: Rate,
    evictions: ChaCha20Rng,
    prefetch: Rate,
    prefetches: ChaCha20Rng,
    /// Work space for ordered write-back.
    work: Vec<Dirty>,
}

impl Cache {
    /// `config` was checked.
    pub(crate) fn new(config: &Config, ram_pages: usize) -> Self {
        let (model, limit) = match config.cache {
            CacheModel::Exact => {
                let lines = config.cache_bytes / LINE_BYTES;
                // More frames than lines, so that a frame without a resident line always exists.
                let limit = POOL_FRAMES.max(lines + lines / 4 + 1);
                (Model::Exact(Sets::new(config.cache_bytes, config.cache_ways)), limit)
            }
            CacheModel::Lazy => (Model::Lazy, POOL_FRAMES),
            CacheModel::Off => (Model::Off, POOL_FRAMES),
        };
        Self {
            pool: FramePool::new(ram_pages, limit, config.fast),
            model,
            orderer: Orderer::new(config.wb_order, config.seed),
            evict_rate: config.evict_rate,
            evictions: eviction_generator(config.seed),
            prefetch: config.prefetch,
            prefetches: prefetch_generator(config.seed),
            work: Vec::new(),
        }
    }

    /// True for `cache = off`.
    #[inline(always)]
    pub(crate) fn is_off(&self) -> bool {
        matches!(self.model, Model::Off)
    }

    /// The frame in which this line is resident.
    #[inline(always)]
    pub(crate) fn hit(&self, place: Place) -> Option<FramePtr> {
        let frame = self.pool.find(place.page, place.address.page())?;
        (frame.resident() & line_bit(place.line()) != 0).then_some(frame)
    }

    /// Brings a missing line in. What is prefetched with it comes first, so that it cannot be what displaces the line.
    pub(crate) fn fill(&mut self, controller: &mut Controller, place: Place) -> FramePtr {
        if self.prefetch != Rate::NEVER {
            self.prefetch_pair(controller, place);
        }
        self.fill_one(controller, place)
    }

    /// With probability `prefetch`, brings in the other line of the 128-byte pair (SDM Optimization Manual, "Data Prefetch to
    /// L2 and Last Level Cache": the spatial prefetcher), unless it is there. It is in the same page, hence RAM.
    #[cold]
    fn prefetch_pair(&mut self, controller: &mut Controller, place: Place) {
        let pair = Place { address: BusAddr(place.address.0 & !(LINE_BYTES as u64 - 1) ^ LINE_BYTES as u64), ..place };
        if !self.is_off() && self.hit(pair).is_none() && self.prefetch.happens(&mut self.prefetches) {
            self.fill_one(controller, pair);
        }
    }

    /// A victim is written back before the line is read, which matters when the victim is an alias of it.
    fn fill_one(&mut self, controller: &mut Controller, place: Place) -> FramePtr {
        if mutant!(FillSnoops) {
            self.write_back_aliases(controller, place);
        }
        // A fill waits for the host's memory more than for anything else, so all that it will need is asked for at once.
        controller.prefetch(place);
        if let Model::Exact(sets) = &self.model
            && let Some(victim) = sets.next_victim(controller.layout().mem(place.address))
        {
            self.pool.get(victim.frame_index()).0.prefetch(victim.line());
        }
        let frame = self.pool.obtain(place.page, place.address.page());
        let line = place.line();
        if self.evict_rate != Rate::NEVER {
            self.evict_at_random(controller);
        }
        match &mut self.model {
            Model::Exact(sets) => {
                let address = controller.layout().mem(place.address);
                if let Some(victim) = sets.make_room(address) {
                    let (frame, line) = (self.pool.get(victim.frame_index()), victim.line());
                    self.pool.write_back(controller, frame, line);
                    self.pool.forget(frame, line);
                }
                sets.push(address, LineId::new(frame, line));
            }
            Model::Lazy => self.pool.note_holder(frame),
            Model::Off => {
                if !mutant!(CacheOffKeepsAliases) {
                    self.take_from_owner(controller, place, true);
                }
                self.pool.note_holder(frame);
            }
        }
        controller.stats.count_fill(controller.layout().keyid(place.address));
        self.pool.note_change(frame);
        controller.fill(place, frame);
        frame.0.resident.set(frame.resident() | line_bit(line));
        self.pool.refresh(place.page, line);
        if self.is_off() {
            self.bound_holders(controller, frame);
        }
        frame
    }

    /// Marks a resident line dirty. True when blocks were decoded from it: they are void now.
    #[inline]
    pub(crate) fn store(&mut self, frame: FramePtr, line: u32) -> bool {
        let bit = line_bit(line);
        self.pool.note_change(frame);
        let code_hit = frame.code() & bit != 0;
        if code_hit || frame.dirty() & bit == 0 {
            frame.0.code.set(frame.code() & !bit);
            frame.0.exec_ok.set(frame.exec_ok() & !bit);
            frame.0.dirty.set(frame.dirty() | bit);
            self.pool.refresh(frame.0.page_index.get(), line);
        }
        code_hit
    }

    /// Notes that blocks were decoded from a line.
    pub(crate) fn set_code(&mut self, frame: FramePtr, line: u32) {
        let bit = line_bit(line);
        frame.0.code.set(frame.code() | bit);
        if frame.intact() & bit != 0 {
            frame.0.exec_ok.set(frame.exec_ok() | bit & frame.0.allow_x.get());
            self.pool.refresh(frame.0.page_index.get(), line);
        }
    }

    /// Forgets code decoded from a line that was written without the cache; the frame if there was some.
    pub(crate) fn void_code(&mut self, place: Place) -> Option<FramePtr> {
        let frame = self.pool.find(place.page, place.address.page())?;
        let bit = line_bit(place.line());
        if frame.code() & bit == 0 {
            return None;
        }
        frame.0.code.set(frame.code() & !bit);
        frame.0.exec_ok.set(frame.exec_ok() & !bit);
        self.pool.refresh(place.page, place.line());
        Some(frame)
    }

    /// CLFLUSH of one tag. Nothing to do in `off`: the store is in DRAM, as far as anybody can tell.
    pub(crate) fn flush(&mut self, controller: &mut Controller, place: Place) {
        if !self.is_off() {
            if mutant!(FlushEveryKeyid) {
                self.write_back_aliases(controller, place);
            }
            self.flush_tag(controller, place, !mutant!(FlushDrops));
        }
    }

    /// CLWB of one tag; nothing to do in `off`.
    pub(crate) fn clean(&mut self, controller: &mut Controller, place: Place) {
        if !self.is_off()
            && let Some(frame) = self.hit(place)
        {
            self.pool.write_back(controller, frame, place.line());
        }
    }

    /// Before an access of the line that bypasses the cache: its tag is flushed; in `off` its copy, whoever owns it. With
    /// `write_back = false`, for a line that is overwritten whole, it is dropped.
    pub(crate) fn bypass(&mut self, controller: &mut Controller, place: Place, write_back: bool) {
        if mutant!(NontemporalSnoops) {
            self.write_back_aliases(controller, place);
        }
        if self.is_off() {
            self.take_from_owner(controller, place, write_back);
        } else {
            self.flush_tag(controller, place, write_back);
        }
    }

    /// Before an access to DRAM that leaves cached copies alone. In `off` there must be none.
    pub(crate) fn expose(&mut self, controller: &mut Controller, place: Place) {
        if self.is_off() {
            self.take_from_owner(controller, place, true);
        }
    }

    /// [`expose`](Self::expose) of all lines: before a key changes, or cells do.
    #[inline(always)]
    pub(crate) fn expose_all(&mut self, controller: &mut Controller) {
        if self.is_off() {
            self.give_up_all(controller);
        }
    }

    /// Makes DRAM current for a probe of lines of a page, in `off`. Copies stay.
    pub(crate) fn publish(&self, controller: &Controller, page: u32, lines: u64) {
        if !self.is_off() {
            return;
        }
        if controller.aliased() {
            return self.publish_all(controller);
        }
        for frame in self.pool.aliases(page) {
            for line in bits(frame.dirty() & lines) {
                self.pool.publish(controller, frame, line);
            }
        }
    }

    /// Makes DRAM current for a probe of all of it, in `off`.
    pub(crate) fn publish_all(&self, controller: &Controller) {
        if self.is_off() {
            for frame in self.pool.holders() {
                for line in bits(frame.dirty()) {
                    self.pool.publish(controller, frame, line);
                }
            }
        }
    }

    /// WBINVD, WBNOINVD: writes back every dirty line in the order of `wb_order` (MC-26), keeping all lines. Nothing to do
    /// in `off`.
    pub(crate) fn write_back_all(&mut self, controller: &mut Controller) {
        let mut work = std::mem::take(&mut self.work);
        work.clear();
        let mut add = |frame: FramePtr, lines: u64| {
            work.extend(bits(frame.dirty() & lines).map(|line| Dirty { address: line_address(frame, line), frame }));
        };
        match &self.model {
            Model::Exact(sets) => {
                for id in sets.iter().flatten() {
                    add(self.pool.get(id.frame_index()), line_bit(id.line()));
                }
            }
            Model::Lazy => self.pool.holders().for_each(|frame| add(frame, !0)),
            Model::Off => {}
        }
        self.orderer.sort(controller, &mut work);
        if controller.events().enabled() {
            note_conflicts(controller, &work);
        }
        controller.write_back_all(work.iter().map(|dirty| (dirty.place(), dirty.frame)));
        for dirty in &work {
            self.pool.note_clean(dirty.frame, dirty.address.line_in_page());
        }
        self.work = work;
    }

    /// INVD, and the second half of WBINVD: drops every line without write-back. In `off` stores are in DRAM already.
    pub(crate) fn drop_all(&mut self) {
        match &mut self.model {
            Model::Exact(sets) => {
                for id in sets.iter().flatten() {
                    self.pool.forget_page(self.pool.get(id.frame_index()));
                }
                sets.clear();
            }
            Model::Lazy => {
                while let Some(frame) = self.pool.pop_holder() {
                    self.pool.forget_page(frame);
                }
            }
            Model::Off => {}
        }
    }

    /// Cold and warm reset: MC-34. In `off` DRAM holds every store.
    pub(crate) fn reset(&mut self, controller: &mut Controller) {
        self.expose_all(controller);
        self.drop_all();
    }

    /// The dirty copy of a line under another KeyID; the one with the highest full PA.
    pub(crate) fn dirty_alias(&self, frame: FramePtr, line: u32) -> Option<FramePtr> {
        let bit = line_bit(line);
        let others = self.pool.aliases(frame.0.page_index.get());
        others.filter(|other| *other != frame && other.dirty() & bit != 0).max_by_key(|other| other.bus_page())
    }

    /// What a coherent cache would do. For mutants.
    #[cold]
    fn write_back_aliases(&mut self, controller: &mut Controller, place: Place) {
        for frame in self.pool.aliases(place.page) {
            self.pool.write_back(controller, frame, place.line());
        }
    }

    fn flush_tag(&mut self, controller: &mut Controller, place: Place, write_back: bool) {
        let Some(frame) = self.hit(place) else { return };
        if write_back {
            self.pool.write_back(controller, frame, place.line());
        }
        self.drop_line(controller, place, frame);
    }

    /// Takes a line off the model's list and out of its frame.
    fn drop_line(&mut self, controller: &Controller, place: Place, frame: FramePtr) {
        if let Model::Exact(sets) = &mut self.model {
            sets.remove(controller.layout().mem(place.address), LineId::new(frame, place.line()));
        }
        self.pool.forget(frame, place.line());
    }

    /// Ends the ownership of a line, in `off`. Blocks decoded from it are parked, so that the next fetch compares them with
    /// what DRAM then holds.
    fn take_from_owner(&mut self, controller: &mut Controller, place: Place, write_back: bool) {
        if controller.aliased() {
            // Lines of other addresses may share the cells.
            return self.give_up_all(controller);
        }
        let bit = line_bit(place.line());
        let Some(owner) = self.pool.aliases(place.page).find(|frame| frame.resident() & bit != 0) else { return };
        if write_back {
            self.pool.write_back(controller, owner, place.line());
        }
        self.pool.forget(owner, place.line());
    }

    /// Writes back and drops every line, in `off`.
    #[cold]
    fn give_up_all(&mut self, controller: &mut Controller) {
        while let Some(frame) = self.pool.pop_holder() {
            self.give_up_page(controller, frame);
        }
    }

    fn give_up_page(&mut self, controller: &mut Controller, frame: FramePtr) {
        for line in bits(frame.dirty()) {
            self.pool.write_back(controller, frame, line);
        }
        self.pool.forget_page(frame);
    }

    /// Keeps the pool of `off` bounded. The frame just filled stays.
    fn bound_holders(&mut self, controller: &mut Controller, filled: FramePtr) {
        while self.pool.holder_count() > POOL_FRAMES - OFF_SLACK {
            match self.pool.pop_holder() {
                Some(frame) if frame == filled => self.pool.note_holder(frame),
                Some(frame) => self.give_up_page(controller, frame),
                None => return,
            }
        }
    }
}

/// Says which copies the write-backs that follow lose.
#[cold]
fn note_conflicts(controller: &mut Controller, lines: &[Dirty]) {
    let layout = controller.layout();
    for (lost, won) in order::conflicts(controller, lines) {
        controller.push_event(Event::AliasWritebackConflict {
            line: layout.mem(lost.address).line(),
            kid_lost: layout.keyid(lost.address),
            kid_won: layout.keyid(won.address),
        });
    }
}

/// The numbers of the set bits, ascending.
fn bits(mut set: u64) -> impl Iterator<Item = u32> {
    const { assert!(LINES_PER_PAGE == u64::BITS as usize) };
    std::iter::from_fn(move || {
        let line = (set != 0).then(|| set.trailing_zeros())?;
        set &= set - 1;
        Some(line)
    })
}
