//! The one entry point: cache, controller and DRAM of a package behind full physical addresses.

use x86::mutant;
use x86::platform::ResetKind;

use crate::PlainLine;
use crate::addr::{Access, AddressLayout, BusAddr, KeyId, LINE_BYTES, LineAddr, MemType, PhysAddr};
use crate::bus_trace::Cause;
use crate::cache::{Cache, line_bit};
use crate::config::{CacheModel, Config, ConfigError};
use crate::controller::{Controller, Place, line_pieces, page_pieces};
use crate::dram::Dram;
use crate::event::{Event, Events};
use crate::fault::Faults;
use crate::frame::FramePtr;
use crate::hash::StateHasher;
use crate::integrity::Integrity;
use crate::map::AddressMap;
use crate::packages::Packages;
use crate::sanitize::Observer;
use crate::stats::Stats;
use crate::tme::{KeyField, TmePackage};

/// What [`Memory::touch`] found or made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Touched {
    /// The frame in which the line is resident now.
    pub frame: FramePtr,
    /// The access is a store to a line that blocks were decoded from: those blocks are void.
    pub code_hit: bool,
    /// The line is poisoned. What a load or fetch finds is not to be used ([`Memory::take_consumed`]); a store is to be told
    /// to [`Memory::note_overwritten`].
    pub poisoned: bool,
}

/// A frame that was taken from its page. Fast-table entries and decoded blocks that refer to it are void.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retired {
    /// The frame, which may hold another page by now.
    pub frame: FramePtr,
    /// The page it held.
    pub bus_page: BusAddr,
    /// The lines of that page that blocks were decoded from; 0 if there are no blocks to forget.
    pub code: u64,
}

/// A write reached a line that blocks were decoded from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodeHit {
    /// The frame of the page.
    pub frame: FramePtr,
    /// The line in it.
    pub line: u32,
}

/// Lines with decoded code that may not be executed until they are fetched again: they have left the cache, or the
/// sanitizer wants to see the fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parked {
    /// The frame of the page.
    pub frame: FramePtr,
    /// The lines in it, one bit each. They were in [`FramePtr::exec_ok`], and are again if they came back since.
    pub lines: u64,
}

/// The machine's memory.
pub struct Memory {
    pub(crate) cache: Cache,
    pub(crate) controller: Controller,
    pub(crate) code_hits: Vec<CodeHit>,
    /// The sanitizer and watched lines; a machine without them tests for that on slow paths only.
    pub(crate) observer: Option<Box<Observer>>,
    /// There is an observer, a bus trace or a fault that has to know the time.
    pub(crate) observed: bool,
    /// [`Config::seed`], for injected faults.
    pub(crate) seed: u64,
}

impl Memory {
    /// Memory after power-on: DRAM and caches empty, TME off.
    ///
    /// # Errors
    /// The first rule of [`Config`] that does not hold.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        config.check()?;
        let map = AddressMap::new(config.ram_bytes);
        let packages = Packages::new(&config, map.pages());
        let mut controller = Controller::new(packages, map, config.cache != CacheModel::Off);
        controller.integrity = config.integrity.then(|| Box::new(Integrity::new(config.seed, config.packages)));
        Ok(Self {
            cache: Cache::new(&config, map.pages()),
            controller,
            code_hits: Vec::new(),
            observer: None,
            observed: false,
            seed: config.seed,
        })
    }

    /// How addresses split, with `k` as the package has it.
    #[inline(always)]
    pub fn layout(&self) -> AddressLayout {
        self.controller.layout()
    }

    /// Where RAM is.
    pub fn map(&self) -> &AddressMap {
        &self.controller.map
    }

    /// True for RAM; everything else is the platform's.
    #[inline(always)]
    pub fn is_ram(&self, address: PhysAddr) -> bool {
        self.controller.map.is_ram(address)
    }

    /// Makes the line of `address` resident, and dirty for [`Access::Write`], as an access of type WB does. `None` when
    /// the address is not RAM, or when the line is missing and `no_fill` (CR0.CD = 1) forbids to allocate it.
    ///
    /// The frame keeps its page while the line is resident: any later call may evict the line, and a call after that
    /// may retire the frame ([`take_retired`](Self::take_retired)).
    #[inline]
    pub fn touch(&mut self, address: BusAddr, access: Access, no_fill: bool) -> Option<Touched> {
        let place = self.controller.place(address)?;
        let frame = match self.cache.hit(place) {
            Some(frame) => frame,
            None if no_fill => {
                self.cache.expose(&mut self.controller, place);
                return None;
            }
            None => {
                let frame = self.cache.fill(&mut self.controller, place);
                self.restrict_filled(place);
                frame
            }
        };
        let poisoned = frame.is_poisoned(place.line());
        if access == Access::Write {
            if poisoned && self.cache.is_off() {
                // Each store reads the line anew, and what arrives of a poisoned one is the fixed pattern.
                frame.0.set_line(place.line(), &PlainLine::ZERO);
            }
            let code_hit = self.cache.store(frame, place.line());
            if code_hit {
                self.code_hits.push(CodeHit { frame, line: place.line() });
            }
            return Some(Touched { frame, code_hit, poisoned });
        }
        if self.controller.events().enabled() {
            self.note_stale_read(frame, place);
        }
        if poisoned {
            self.controller.consume(place);
        }
        Some(Touched { frame, code_hit: false, poisoned })
    }

    /// Reads RAM with a memory type (MK specification section 5.4). Addresses that are not RAM read as all ones.
    pub fn read(&mut self, address: BusAddr, ty: MemType, no_fill: bool, buf: &mut [u8]) {
        for (at, range) in line_pieces(address, buf.len()) {
            let piece = &mut buf[range];
            let Some(place) = self.controller.place(at) else {
                piece.fill(0xFF);
                continue;
            };
            match ty {
                MemType::Wb | MemType::Wt | MemType::Wp => match self.touch(at, Access::Read, no_fill) {
                    Some(touched) if touched.poisoned => piece.fill(0),
                    Some(touched) => touched.frame.read(at.page_offset(), piece),
                    None => self.read_past(place, piece),
                },
                MemType::Uc | MemType::UcMinus | MemType::Wc => {
                    self.cache.bypass(&mut self.controller, place, true);
                    self.read_past(place, piece);
                }
            }
        }
    }

    /// A load inside one line that does not allocate.
    fn read_past(&mut self, place: Place, bytes: &mut [u8]) {
        self.controller.read_bytes(place, bytes);
        if self.controller.take_met() {
            self.controller.consume(place);
        }
    }

    /// Writes RAM with a memory type (MK specification section 5.4). True when blocks were decoded from a line that
    /// was written. Addresses that are not RAM ignore writes.
    pub fn write(&mut self, address: BusAddr, ty: MemType, no_fill: bool, buf: &[u8]) -> bool {
        let mut code_hit = false;
        for (at, range) in line_pieces(address, buf.len()) {
            let Some(place) = self.controller.place(at) else { continue };
            let piece = &buf[range];
            code_hit |= match ty {
                MemType::Wb => self.write_cached(place, no_fill, piece),
                MemType::Wt => {
                    self.cache.expose(&mut self.controller, place);
                    if let Some(frame) = self.cache.hit(place) {
                        self.cache.pool.note_change(frame);
                        frame.write(at.page_offset(), piece);
                    }
                    self.controller.write_bytes(place, piece);
                    self.void_code(place)
                }
                MemType::Wp | MemType::Uc | MemType::UcMinus | MemType::Wc => self.write_past(place, piece),
            };
        }
        code_hit
    }

    /// Non-temporal stores, MOVDIRI, MOVDIR64B and full WC buffers: the same-tag line is written back and invalidated,
    /// copies under other KeyIDs stay. A whole line is written without reading it. True as for [`write`](Self::write).
    pub fn write_nontemporal(&mut self, address: BusAddr, buf: &[u8]) -> bool {
        let mut code_hit = false;
        for (at, range) in line_pieces(address, buf.len()) {
            if let Some(place) = self.controller.place(at) {
                code_hit |= self.write_past(place, &buf[range]);
            }
        }
        code_hit
    }

    fn write_cached(&mut self, place: Place, no_fill: bool, bytes: &[u8]) -> bool {
        match self.touch(place.address, Access::Write, no_fill) {
            Some(touched) => {
                touched.frame.write(place.address.page_offset(), bytes);
                if touched.poisoned {
                    self.note_overwritten(place.address, bytes.len());
                }
                touched.code_hit
            }
            None => {
                self.controller.write_bytes(place, bytes);
                self.void_code(place)
            }
        }
    }

    /// A write inside one line that does not allocate. A line that is overwritten whole needs no write-back.
    fn write_past(&mut self, place: Place, bytes: &[u8]) -> bool {
        self.cache.bypass(&mut self.controller, place, bytes.len() < LINE_BYTES);
        if mutant!(DirectStoreReads) {
            self.controller.read_line(place);
            self.controller.take_met();
        }
        self.controller.write_bytes(place, bytes);
        self.void_code(place)
    }

    /// After a write without the cache: true when blocks were decoded from the line.
    pub(crate) fn void_code(&mut self, place: Place) -> bool {
        let Some(frame) = self.cache.void_code(place) else { return false };
        self.code_hits.push(CodeHit { frame, line: place.line() });
        true
    }

    /// The frame that is associated with the page of a full physical address, whether or not lines are resident.
    pub fn frame_lookup(&self, page: BusAddr) -> Option<FramePtr> {
        let place = self.controller.place(page)?;
        self.cache.pool.find(place.page, place.address.page())
    }

    /// True when the line is in the cache under this KeyID; never with [`CacheModel::Off`].
    pub fn line_resident(&self, address: BusAddr) -> bool {
        self.cached(address).is_some()
    }

    fn cached(&self, address: BusAddr) -> Option<FramePtr> {
        if self.cache.is_off() { None } else { self.cache.hit(self.controller.place(address)?) }
    }

    /// True when the line is in the cache under this KeyID and newer than DRAM; never with [`CacheModel::Off`].
    pub fn line_dirty(&self, address: BusAddr) -> bool {
        let hit = self.cached(address);
        hit.is_some_and(|frame| frame.dirty() & line_bit(address.line_in_page()) != 0)
    }

    /// Notes that blocks were decoded from a line of `frame`, or that blocks of it were found to be valid still: sets
    /// `code`, and `exec_ok` if the line is resident. Stores to the line go the slow way until one hits it.
    pub fn set_code(&mut self, frame: FramePtr, line: u32) {
        self.cache.set_code(frame, line);
    }

    /// CLFLUSH, CLFLUSHOPT.
    pub fn clflush(&mut self, address: BusAddr) {
        if let Some(place) = self.controller.place(address) {
            if self.controller.disturbed(place, 1) && !self.controller.lets_flush(place) {
                return;
            }
            self.cache.flush(&mut self.controller, place);
        }
    }

    /// CLWB: the line stays.
    pub fn clwb(&mut self, address: BusAddr) {
        if let Some(place) = self.controller.place(address) {
            if self.controller.disturbed(place, 1) && !self.controller.lets_flush(place) {
                return;
            }
            self.cache.clean(&mut self.controller, place);
        }
    }

    /// WBINVD: every KeyID.
    pub fn wbinvd(&mut self) {
        self.cache.write_back_all(&mut self.controller);
        self.cache.drop_all();
    }

    /// WBNOINVD: every KeyID; the lines stay.
    pub fn wbnoinvd(&mut self) {
        self.cache.write_back_all(&mut self.controller);
    }

    /// INVD: what was not written back is lost.
    pub fn invd(&mut self) {
        if mutant!(InvdWritesBack) {
            self.cache.write_back_all(&mut self.controller);
        }
        self.cache.drop_all();
    }

    /// A device reads. Coherent with lines cached under the same full physical address only (MK specification section
    /// 5.6); cached lines stay as they are. Addresses that are not RAM, and TDX-private KeyIDs, read as all ones; poisoned
    /// lines as the fixed pattern of MC-32, zeros, with [`Event::PoisonToDevice`].
    pub fn dma_read(&mut self, address: BusAddr, buf: &mut [u8]) {
        self.on_behalf_of(Cause::Device, |mem| mem.get(address, buf));
    }

    fn get(&mut self, address: BusAddr, buf: &mut [u8]) {
        for (at, range) in page_pieces(address, buf.len()) {
            let piece = &mut buf[range];
            let Some(place) = self.controller.dma_place(at) else {
                piece.fill(0xFF);
                continue;
            };
            let cached = self.cache.pool.find(place.page, at.page()).filter(|frame| frame.resident() != 0);
            let Some(frame) = cached.filter(|_| !self.cache.is_off()) else {
                self.cache.publish(&self.controller, place.page, lines_of(at, piece.len()));
                self.get_past(place, piece);
                continue;
            };
            for (at, range) in line_pieces(at, piece.len()) {
                let place = Place { address: at, ..place };
                if frame.is_poisoned(place.line()) {
                    // As from DRAM: the fixed pattern.
                    piece[range].fill(0);
                    self.controller.note_poison_to_device(place);
                } else if frame.resident() & line_bit(place.line()) != 0 {
                    frame.read(at.page_offset(), &mut piece[range]);
                } else {
                    self.get_past(place, &mut piece[range]);
                }
            }
        }
    }

    fn get_past(&mut self, place: Place, bytes: &mut [u8]) {
        self.controller.read_bytes(place, bytes);
        if self.controller.take_met() {
            self.controller.note_poison_to_device(place);
        }
    }

    /// A device writes. Lines cached under the same full physical address are invalidated, after a write-back if they
    /// are dirty and not wholly overwritten; DRAM then holds the data. [`take_code_hit`](Self::take_code_hit) reports
    /// decoded code that was hit.
    pub fn dma_write(&mut self, address: BusAddr, bytes: &[u8]) {
        self.on_behalf_of(Cause::Device, |mem| mem.put(address, bytes));
    }

    fn put(&mut self, address: BusAddr, bytes: &[u8]) {
        for (at, range) in page_pieces(address, bytes.len()) {
            let Some(place) = self.controller.dma_place(at) else { continue };
            let piece = &bytes[range];
            // In `off` another KeyID may own the line.
            let concerned = self.cache.is_off()
                && (self.controller.aliased() || self.cache.pool.aliases(place.page).next().is_some())
                || self.cache.pool.find(place.page, at.page()).is_some_and(|f| f.resident() | f.code() != 0);
            if concerned {
                for (at, range) in line_pieces(at, piece.len()) {
                    let place = Place { address: at, ..place };
                    self.cache.bypass(&mut self.controller, place, range.len() < LINE_BYTES);
                    self.void_code(place);
                }
            }
            self.controller.write_bytes(place, piece);
        }
    }

    /// Firmware and loader put an image into RAM through the KeyID-0 datapath, as DMA does: encrypted as activation has
    /// it at that moment (MK specification section 7.5), not allocated in the cache. Bytes outside RAM are dropped.
    pub fn load_image(&mut self, address: PhysAddr, bytes: &[u8]) {
        if self.observed() {
            self.observe_loader(BusAddr(address.0), bytes.len());
        }
        self.on_behalf_of(Cause::Loader, |mem| mem.put(BusAddr(address.0), bytes));
    }

    /// The firmware reads RAM through the KeyID-0 datapath, as DMA does.
    pub fn read_image(&mut self, address: PhysAddr, buf: &mut [u8]) {
        self.on_behalf_of(Cause::Loader, |mem| mem.get(BusAddr(address.0), buf));
    }

    /// True when [`take_retired`](Self::take_retired), [`take_code_hit`](Self::take_code_hit) or
    /// [`take_parked`](Self::take_parked) has something.
    #[inline(always)]
    pub fn has_reports(&self) -> bool {
        let pool = &self.cache.pool;
        !(pool.retired.is_empty() && pool.parked.is_empty() && self.code_hits.is_empty())
    }

    /// Lines with decoded code that were put out of use. Take what was retired first, then what was written.
    pub fn take_parked(&mut self) -> Option<Parked> {
        self.cache.pool.parked.pop()
    }

    /// True when [`take_retired`](Self::take_retired) has something.
    #[inline(always)]
    pub fn has_retired(&self) -> bool {
        !self.cache.pool.retired.is_empty()
    }

    /// A frame that was taken from its page. Every logical processor must purge it from its fast table, and forget the
    /// blocks of it, before the next probe; and before it installs the frame that the call returned, since that may be
    /// the very frame, now with another page.
    pub fn take_retired(&mut self) -> Option<Retired> {
        self.cache.pool.retired.pop()
    }

    /// True when [`take_code_hit`](Self::take_code_hit) has something.
    #[inline(always)]
    pub fn has_code_hits(&self) -> bool {
        !self.code_hits.is_empty()
    }

    /// A line with decoded code that was written, by whomever: blocks of it are void. What [`touch`](Self::touch) and
    /// [`write`](Self::write) return says the same about one call.
    pub fn take_code_hit(&mut self) -> Option<CodeHit> {
        self.code_hits.pop()
    }

    /// TME state of the executing package: MSRs, key table, random generator.
    #[inline(always)]
    pub fn tme(&self) -> &TmePackage {
        self.controller.tme()
    }

    /// TME state of the executing package, for the core's MSR and PCONFIG code. Nothing of it reaches into caches (section
    /// 4.8). With [`CacheModel::Off`] the call itself puts every store into DRAM, since a key may be about to change.
    #[inline(always)]
    pub fn tme_mut(&mut self) -> &mut TmePackage {
        self.observe_key_access();
        self.cache.expose_all(&mut self.controller);
        &mut self.controller.packages.executing
    }

    /// [`TmePackage::rdrand64`] of the executing package: the frequent use of it, which no line depends on.
    pub fn rdrand64(&mut self) -> Option<u64> {
        self.controller.packages.executing.rdrand64()
    }

    /// Number of packages.
    pub fn packages(&self) -> usize {
        self.controller.packages.count()
    }

    /// TME state of a package; `None` if there is no such package.
    pub fn package(&self, number: usize) -> Option<&TmePackage> {
        self.controller.packages.get(number)
    }

    /// Number of the package whose processor executes: 0 until [`execute_on`](Self::execute_on) says otherwise.
    pub fn executing_package(&self) -> usize {
        self.controller.packages.number()
    }

    /// A processor of package `number` executes from now on: [`tme`](Self::tme) and [`layout`](Self::layout) are that
    /// package's (section 4.7). False, and no change, if there is no such package.
    pub fn execute_on(&mut self, number: usize) -> bool {
        self.controller.packages.execute_on(number)
    }

    /// The package whose engines encrypt this part of RAM; `None` outside RAM.
    pub fn home_package(&self, address: PhysAddr) -> Option<usize> {
        self.controller.map.page_index(address).map(|page| self.controller.packages.home(page))
    }

    /// The event log.
    pub fn events(&self) -> &Events {
        self.controller.events()
    }

    /// The event log; the core and the machine push theirs here too.
    pub fn events_mut(&mut self) -> &mut Events {
        &mut self.controller.packages.executing.events
    }

    /// The DRAM array, as a bus probe sees it.
    pub fn dram(&self) -> &Dram {
        self.cache.publish_all(&self.controller);
        &self.controller.dram
    }

    /// The DRAM array, for faults and attacks below the encryption engine.
    pub fn dram_mut(&mut self) -> &mut Dram {
        self.cache.expose_all(&mut self.controller);
        &mut self.controller.dram
    }

    /// Raw cells of a line; zero bytes outside RAM.
    pub fn dram_read_raw(&self, line: LineAddr) -> crate::CipherLine {
        if let Some((page, at)) = self.controller.map.locate(line) {
            self.cache.publish(&self.controller, page, line_bit(at));
        }
        self.controller.dram.read_raw(line)
    }

    /// Replaces the raw cells of a line; false outside RAM. Cached copies do not change.
    pub fn dram_write_raw(&mut self, line: LineAddr, cells: &crate::CipherLine) -> bool {
        if let Some((page, _)) = self.controller.map.locate(line) {
            self.cache.expose(&mut self.controller, Place { address: BusAddr(line.start().0), page });
        }
        self.controller.dram.write_raw(line, cells)
    }

    /// The armed faults, if any.
    pub fn faults(&self) -> Option<&Faults> {
        self.controller.faults.as_deref()
    }

    /// Arms faults, changes them, or disarms single ones. Resets do not touch them.
    pub fn faults_mut(&mut self) -> &mut Faults {
        self.cache.expose_all(&mut self.controller);
        self.controller.faults.get_or_insert_default()
    }

    /// Disarms every fault, and gives the undisturbed path back its speed.
    pub fn clear_faults(&mut self) {
        self.cache.expose_all(&mut self.controller);
        self.controller.faults = None;
    }

    /// Flips a bit in the key table of a package (MK specification section 9.11). False, and no change, where there is no such
    /// package, entry or bit.
    pub fn keytable_flip(&mut self, package: usize, keyid: KeyId, field: KeyField, bit: u32) -> bool {
        self.observe_key_access();
        self.cache.expose_all(&mut self.controller);
        let flipped = self.controller.packages.get_mut(package).is_some_and(|tme| tme.flip_key(keyid, field, bit));
        if flipped {
            self.controller.push_event(Event::KeytableFlip { package, keyid, field, bit });
        }
        flipped
    }

    /// Reset of all packages (MK specification section 7.3): cold and warm invalidate the caches without write-back (MC-34),
    /// INIT does not touch them. DRAM survives a warm reset only.
    pub fn reset(&mut self, kind: ResetKind) {
        if kind != ResetKind::Init {
            self.cache.reset(&mut self.controller);
        }
        if kind == ResetKind::Cold {
            self.controller.dram.clear();
            if let Some(injector) = &mut self.controller.injector {
                injector.power_off();
            }
            if let Some(bus) = &mut self.controller.bus {
                bus.power_loss();
            }
            self.controller.forget_writers();
        }
        self.observe_key_access();
        self.controller.packages.reset(kind);
        if kind != ResetKind::Init {
            self.observe_reset();
        }
    }

    /// Traffic counters.
    pub fn stats(&self) -> &Stats {
        &self.controller.stats
    }

    /// Plaintext frames that changed their page since the start of the run.
    pub fn frames_recycled(&self) -> u64 {
        self.cache.pool.recycled
    }

    /// Adds everything that the guest's future depends on: cache, DRAM, TME state, armed faults. Counters, events and frames are
    /// host-side and stay out.
    pub fn state_hash(&self, hasher: &mut StateHasher) {
        self.cache.hash(hasher);
        self.dram().hash(hasher);
        self.controller.packages.hash(hasher);
        if let Some(faults) = self.faults().filter(|faults| faults.armed()) {
            faults.hash(hasher);
        }
        if let Some(injector) = &self.controller.injector {
            injector.hash(hasher);
        }
    }

    #[cold]
    fn note_stale_read(&mut self, frame: FramePtr, place: Place) {
        if let Some(other) = self.cache.dirty_alias(frame, place.line()) {
            let layout = self.layout();
            self.controller.push_event(Event::AliasReadStale {
                line: layout.mem(place.address).line(),
                kid_read: layout.keyid(place.address),
                kid_dirty: layout.keyid(other.bus_page()),
            });
        }
    }
}

/// The lines, as bits, that `len` bytes at `address` have a part of. They lie in one page.
fn lines_of(address: BusAddr, len: usize) -> u64 {
    line_pieces(address, len).fold(0, |lines, (at, _)| lines | line_bit(at.line_in_page()))
}
