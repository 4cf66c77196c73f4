//! How accesses reach the sanitizer and the watched lines, and how it restricts the fast path.

use super::engine::{Access, Allowed, LOADER, Sanitizer};
use super::hazard::{Hazard, Operation, Site};
use super::watch::{Watch, Watched, WatchedLine};
use crate::addr::{BusAddr, MemType, PAGE_SHIFT, PhysAddr};
use crate::controller::{Controller, Place, line_pieces};
use crate::map::HIGH_BASE;
use crate::memory::Memory;

/// Who looks at accesses. A machine without one has no cost but the test for it.
#[derive(Default)]
pub(crate) struct Observer {
    sanitizer: Option<Sanitizer>,
    watch: Option<Watch>,
}

impl Memory {
    /// Switches the sanitizer on or off. It knows nothing about what happened before: DRAM counts as never written.
    pub fn sanitize(&mut self, on: bool) {
        if on == self.sanitizer().is_some() {
            return;
        }
        let sanitizer = on.then(|| Sanitizer::new(self.controller.map.pages()));
        self.set_observer(|observer| observer.sanitizer = sanitizer);
    }

    /// The sanitizer, if it is on.
    pub fn sanitizer(&self) -> Option<&Sanitizer> {
        self.observer.as_ref()?.sanitizer.as_ref()
    }

    /// True when [`take_hazards`](Self::take_hazards) has something.
    #[inline]
    pub fn has_hazards(&self) -> bool {
        self.sanitizer().is_some_and(Sanitizer::has_hazards)
    }

    /// The hazards found since the last call, in the order in which the guest made them.
    pub fn take_hazards(&mut self) -> Vec<Hazard> {
        let sanitizer = self.observer.as_mut().and_then(|observer| observer.sanitizer.as_mut());
        sanitizer.map(Sanitizer::take_hazards).unwrap_or_default()
    }

    /// Watches lines for stores and flushes, through whichever KeyID, instead of those watched before; none with an empty
    /// list. Works with the sanitizer on or off.
    pub fn watch_lines(&mut self, lines: &[WatchedLine]) {
        let watch = (!lines.is_empty()).then(|| Watch::new(lines));
        self.set_observer(|observer| observer.watch = watch);
    }

    /// For every watched line and KeyID the last store and the last flush before the count that was given. Starts anew.
    /// WBINVD, WBNOINVD and INVD count as flushes through KeyID 0.
    pub fn take_watched(&mut self) -> Vec<Watched> {
        let watch = self.observer.as_mut().and_then(|observer| observer.watch.as_mut());
        watch.map(Watch::take).unwrap_or_default()
    }

    /// True when accesses have to be told to [`observe`](Self::observe), and their times to
    /// [`set_bus_time`](Self::set_bus_time).
    #[inline(always)]
    pub fn observed(&self) -> bool {
        self.observed
    }

    /// After an observer, a bus trace or a fault that has to know the time has come or gone.
    pub(crate) fn note_observed(&mut self) {
        let hammered = self.controller.injector.as_ref().is_some_and(|injector| injector.hammers);
        self.observed = self.observer.is_some() || self.controller.bus.is_some() || hammered;
    }

    fn set_observer(&mut self, change: impl FnOnce(&mut Observer)) {
        let mut observer = self.observer.take().unwrap_or_default();
        change(&mut observer);
        let on = observer.sanitizer.is_some() || observer.watch.is_some();
        self.cache.pool.allow_all(!on);
        self.observer = on.then_some(observer);
        self.note_observed();
    }

    /// Tells about an access of the guest before it is performed. Nothing happens to the memory, now or later. The KeyID of
    /// `site` is taken from `address`. `ty` and `no_fill` are those of [`read`](Self::read); flushes, non-temporal stores
    /// and DMA ignore them. Operations on the whole cache ignore the address too, and PCONFIG is told by
    /// [`observe_pconfig`](Self::observe_pconfig).
    ///
    /// Host probes are not told.
    #[cold]
    pub fn observe(&mut self, address: BusAddr, len: usize, ty: MemType, no_fill: bool, site: &Site) {
        let Some(mut observer) = self.observer.take() else { return };
        match site.operation {
            Operation::WriteBackInvalidate | Operation::WriteBackAll | Operation::Invalidate => {
                self.observe_whole_cache(&mut observer, site);
            }
            _ => {
                for (at, range) in line_pieces(address, len) {
                    self.observe_line(&mut observer, at, range.len(), ty, no_fill, site);
                }
            }
        }
        self.observer = Some(observer);
    }

    fn observe_line(
        &mut self,
        observer: &mut Observer,
        at: BusAddr,
        len: usize,
        ty: MemType,
        no_fill: bool,
        site: &Site,
    ) {
        let dma = matches!(site.operation, Operation::DmaRead | Operation::DmaWrite);
        let place = if dma { self.controller.dma_place(at) } else { self.controller.place(at) };
        let Some(place) = place else { return };
        let layout = self.controller.layout();
        let site = &Site { keyid: layout.keyid(place.address), ..*site };
        if let Some(watch) = &mut observer.watch {
            watch.note(layout.mem(place.address).line(), site);
        }
        if let Some(sanitizer) = &mut observer.sanitizer {
            let access = Access { place, len, ty, no_fill, site };
            let changed = sanitizer.access(&self.controller.packages, layout, &access);
            if !changed && self.cache.pool.allows(place) {
                return;
            }
        }
        self.restrict(observer, place);
    }

    fn observe_whole_cache(&mut self, observer: &mut Observer, site: &Site) {
        if let Some(watch) = &mut observer.watch {
            watch.note_all(site);
        }
        if let Some(sanitizer) = &mut observer.sanitizer {
            let Controller { packages, map, .. } = &self.controller;
            let low_pages = (map.regions()[0].bytes >> PAGE_SHIFT) as u32;
            let start = |page| page_start(page, low_pages);
            sanitizer.whole_cache(packages, packages.executing.layout(), site.operation, &start);
            self.cache.pool.allow_all(false);
        }
    }

    /// Tells that PCONFIG has programmed the KeyID of `site`, or clears its key, in the executing package.
    #[cold]
    pub fn observe_pconfig(&mut self, site: &Site) {
        let Some(sanitizer) = self.observer.as_mut().and_then(|observer| observer.sanitizer.as_mut()) else { return };
        let Controller { packages, map, .. } = &self.controller;
        let low_pages = (map.regions()[0].bytes >> PAGE_SHIFT) as u32;
        sanitizer.rekey(packages, site, &|page| page_start(page, low_pages));
        self.cache.pool.allow_all(false);
    }

    /// An image is put into RAM by the machine.
    #[cold]
    pub(crate) fn observe_loader(&mut self, address: BusAddr, len: usize) {
        self.observe(address, len, MemType::Wb, false, &LOADER);
    }

    /// Keys are about to change, perhaps.
    #[inline]
    pub(crate) fn observe_key_access(&mut self) {
        if let Some(observer) = &mut self.observer
            && let Some(sanitizer) = &mut observer.sanitizer
        {
            sanitizer.keys_may_change(&self.controller.packages);
            self.cache.pool.allow_all(false);
        }
    }

    /// The caches are empty, and nobody relies on what DRAM holds.
    pub(crate) fn observe_reset(&mut self) {
        if let Some(observer) = &mut self.observer
            && let Some(sanitizer) = &mut observer.sanitizer
        {
            sanitizer.forget();
            self.cache.pool.allow_all(false);
        }
    }

    /// After a fill: the frame may be a new one, for which nothing is allowed yet.
    #[inline]
    pub(crate) fn restrict_filled(&mut self, place: Place) {
        if self.observer.is_some() && !self.cache.pool.allows(place) {
            self.restrict_again(place);
        }
    }

    #[cold]
    fn restrict_again(&mut self, place: Place) {
        if let Some(mut observer) = self.observer.take() {
            if let Some(sanitizer) = &mut observer.sanitizer {
                sanitizer.update(&self.controller.packages);
            }
            self.restrict(&observer, place);
            self.observer = Some(observer);
        }
    }

    /// Brings the fast bits of a line up to date with what may be skipped, for every KeyID. Code whose next
    /// fetch is to be observed is parked.
    fn restrict(&mut self, observer: &Observer, place: Place) {
        let Controller { packages, .. } = &self.controller;
        let layout = packages.executing.layout();
        let (page, line) = (place.page, place.line());
        let mut changed = false;
        let mut next = self.cache.pool.aliases(page).next();
        while let Some(frame) = next {
            next = self.cache.pool.alias_after(frame);
            let keyid = layout.keyid(frame.bus_page());
            let mut allowed = match &observer.sanitizer {
                Some(sanitizer) => sanitizer.allowed(packages, page, line, frame.bus_page(), keyid),
                None => Allowed { loads: true, stores: true, fetches: true },
            };
            if let Some(watch) = &observer.watch {
                allowed.stores &= !watch.watches(layout.mem(place.address).line());
            }
            changed |= self.cache.pool.allow(frame, line, allowed);
        }
        if changed {
            self.cache.pool.refresh(page, line);
        }
    }
}

/// The first address of a RAM page, by its number.
fn page_start(page: u32, low_pages: u32) -> PhysAddr {
    if page < low_pages {
        PhysAddr(u64::from(page) << PAGE_SHIFT)
    } else {
        PhysAddr(HIGH_BASE + (u64::from(page - low_pages) << PAGE_SHIFT))
    }
}
