//! The memory controller: turns transactions into cipher operations on DRAM. The only caller of the cipher.

use crate::addr::{AddressLayout, BusAddr, KeyId, LINE_BYTES, LINES_PER_PAGE, PAGE_BYTES, PAGE_SHIFT, PhysAddr};
use crate::bus_trace;
use crate::dram::Dram;
use crate::event::{Event, Events};
use crate::fault::about::About;
use crate::fault::inject::{Injector, LineEvent};
use crate::fault::{Direction, Faults, Transfer, WritebackAction};
use crate::frame::FramePtr;
use crate::integrity::Integrity;
use crate::map::AddressMap;
use crate::packages::Packages;
use crate::stats::Stats;
use crate::tme::{Cipher, TmePackage};
use crate::{CipherLine, PlainLine};
use crypto::Request;
use std::sync::Arc;
use x86::mutant;

/// A line's place in DRAM together with the address that the transaction carried.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    /// Any address in the line, KeyID included.
    pub(crate) address: BusAddr,
    /// Number of the RAM page.
    pub(crate) page: u32,
}

impl Place {
    #[inline(always)]
    pub(crate) fn line(self) -> u32 {
        self.address.line_in_page()
    }
}

/// Marks a line that nobody wrote since events were enabled.
const NO_WRITER: u16 = u16::MAX;

/// The KeyID that wrote each line last, by page; empty while events are not recorded.
pub(crate) type Writers = Vec<Option<Arc<[u16; LINES_PER_PAGE]>>>;

/// DRAM behind the encryption engines of all packages.
pub(crate) struct Controller {
    pub(crate) packages: Packages,
    pub(crate) dram: Dram,
    pub(crate) stats: Stats,
    pub(crate) map: AddressMap,
    /// Who wrote each line last, by page; kept only while events are recorded.
    pub(crate) writers: Writers,
    /// False with `cache = off`: no write-back can come after another KeyID's access to the line.
    late_write_backs: bool,
    /// Armed faults; one test for null where a line is transferred.
    pub(crate) faults: Option<Box<Faults>>,
    /// Faults that wait or last; likewise.
    pub(crate) injector: Option<Box<Injector>>,
    /// What the injector may be about, so that what it is not about costs next to nothing.
    pub(crate) about: About,
    /// KeyID bits that are stuck at 0 and at 1 on the way from the cores.
    pub(crate) wires: Option<(u16, u16)>,
    /// MACs and poison, on a machine that has them; likewise.
    pub(crate) integrity: Option<Box<Integrity>>,
    /// The trace of what goes over the bus; likewise.
    pub(crate) bus: Option<Box<bus_trace::Recorder>>,
}

impl Controller {
    pub(crate) fn new(packages: Packages, map: AddressMap, late_write_backs: bool) -> Self {
        let stats = Stats::new(1 << packages.executing.features().max_keyid_bits());
        Self {
            packages,
            dram: Dram::new(map),
            stats,
            map,
            writers: Vec::new(),
            late_write_backs,
            faults: None,
            injector: None,
            about: About::default(),
            wires: None,
            integrity: None,
            bus: None,
        }
    }

    /// The TME state of the executing package.
    #[inline(always)]
    pub(crate) fn tme(&self) -> &TmePackage {
        &self.packages.executing
    }

    /// How the executing package's processors split addresses.
    #[inline(always)]
    pub(crate) fn layout(&self) -> AddressLayout {
        self.tme().layout()
    }

    #[inline(always)]
    pub(crate) fn events(&self) -> &Events {
        &self.tme().events
    }

    #[inline(always)]
    pub(crate) fn push_event(&mut self, event: Event) {
        self.packages.executing.events.push(event);
    }

    /// Where the line of a transaction is; `None` outside RAM, which includes addresses of more than `M` bits.
    #[inline(always)]
    pub(crate) fn place(&self, address: BusAddr) -> Option<Place> {
        match self.wires {
            None => self.place_beyond_wires(address),
            Some(wires) => self.place_beyond_wires(self.over_wires(address, wires)),
        }
    }

    /// [`place`](Self::place) of an address that does not come from a core.
    #[inline(always)]
    pub(crate) fn place_beyond_wires(&self, address: BusAddr) -> Option<Place> {
        let layout = self.layout();
        if address.0 >> (layout.maxphyaddr & 63) != 0 {
            return None;
        }
        let page = self.map.page_index(layout.mem(address))?;
        Some(Place { address, page })
    }

    /// [`place`](Self::place) for devices: DMA with a TDX-private KeyID is aborted (MK specification section 5.6).
    pub(crate) fn dma_place(&self, address: BusAddr) -> Option<Place> {
        let address = if mutant!(DmaIgnoresKeyid) { BusAddr(self.layout().mem(address).0) } else { address };
        let shared_bits = self.tme().keyid_bits() - self.tme().tdx_reserved_keyid_bits();
        let private = self.layout().keyid(address).0 >> shared_bits != 0;
        if private { None } else { self.place_beyond_wires(address) }
    }

    #[inline]
    fn dun(&self, place: Place) -> u64 {
        let line = self.layout().mem(place.address).line().0;
        if mutant!(KeyidInTweak) {
            return line | u64::from(self.layout().keyid(place.address).0) << 48;
        }
        if mutant!(TweakIgnoresPage) { line % LINES_PER_PAGE as u64 } else { line }
    }

    #[inline]
    fn transfer(&self, place: Place, direction: Direction) -> Transfer {
        let transfer = Transfer { page: place.page, line: place.line(), dun: self.dun(place) };
        let transfer = match &self.faults {
            None => transfer,
            Some(faults) => faults.apply(transfer, direction),
        };
        if !self.about.line(place.line()) {
            return transfer;
        }
        match &self.injector {
            None => transfer,
            Some(injector) => injector.redirect(transfer, direction),
        }
    }

    /// True while several addresses reach the same cells.
    pub(crate) fn aliased(&self) -> bool {
        self.faults.as_ref().is_some_and(|faults| faults.dram_alias.is_some())
            || self.injector.as_ref().is_some_and(|injector| injector.aliases())
    }

    /// Reads and decrypts one line into the frame of its page.
    pub(crate) fn fill(&mut self, place: Place, frame: FramePtr) {
        self.note_keyid(place);
        let disturbed = self.disturbed(place, 1);
        if disturbed {
            self.meet(LineEvent::Fill, place);
        }
        self.note_faults(place, Direction::Read);
        let transfer = self.transfer(place, Direction::Read);
        let Transfer { page, line, dun } = transfer;
        let arrived = if disturbed { self.arrive(place, page, line) } else { CipherLine::ZERO };
        let cells = if disturbed { &arrived } else { self.dram.cells(page, line).unwrap_or(&CipherLine::ZERO) };
        let encrypted = match self.packages.engine(place.page).resolve(place.address) {
            Cipher::Plaintext => {
                frame.0.set_line(place.line(), &PlainLine::unencrypted(cells));
                false
            }
            Cipher::Xts(key) => {
                frame.0.decrypt_line(place.line(), key, dun, cells);
                true
            }
        };
        self.stats.count_decrypted(encrypted.into());
        if self.integrity.is_some() {
            let cells = if disturbed { arrived } else { self.dram.read(page, line) };
            self.check_filled(place, transfer, &cells, frame);
        }
        if self.bus.is_some() {
            self.trace(place, Direction::Read, true, encrypted);
        }
    }

    /// Asks the host for a line that [`fill`](Self::fill) will read. (A fault may have it read another one.)
    #[inline(always)]
    pub(crate) fn prefetch(&self, place: Place) {
        self.dram.prefetch(place.page, place.line());
    }

    /// Encrypts and writes one line of the frame of its page, without reading its old contents (R4).
    pub(crate) fn write_from(&mut self, place: Place, frame: FramePtr) {
        self.note_keyid(place);
        self.note_faults(place, Direction::Write);
        self.note_writer(place, 1);
        let transfer = self.transfer(place, Direction::Write);
        let Transfer { page, line, dun } = transfer;
        let cells = self.dram.cells_mut(page, line);
        let encrypted = match self.packages.engine(place.page).resolve(place.address) {
            Cipher::Plaintext => {
                *cells = CipherLine::unencrypted(&frame.0.line(place.line()));
                false
            }
            Cipher::Xts(key) => {
                frame.0.encrypt_line(place.line(), key, dun, cells);
                true
            }
        };
        if self.integrity.is_some() {
            self.seal(place, transfer, frame.is_poisoned(place.line()));
        }
        if self.disturbed(place, 1) {
            self.leave(place, page, line);
        }
        self.stats.count_encrypted(encrypted.into());
        if self.bus.is_some() {
            self.trace(place, Direction::Write, true, encrypted);
        }
    }

    /// Reads and decrypts one line past the cache.
    pub(crate) fn read_line(&mut self, place: Place) -> PlainLine {
        self.note_keyid(place);
        self.note_faults(place, Direction::Read);
        let (line, decrypted) = if self.disturbed(place, 1) {
            let transfer = self.transfer(place, Direction::Read);
            let cells = self.arrive(place, transfer.page, transfer.line);
            self.decrypt_checked(place, transfer, &cells)
        } else if self.integrity.is_some() {
            let transfer = self.transfer(place, Direction::Read);
            let cells = self.dram.read(transfer.page, transfer.line);
            self.decrypt_checked(place, transfer, &cells)
        } else {
            self.get_line(place)
        };
        self.stats.count_decrypted(decrypted);
        if self.bus.is_some() {
            self.trace(place, Direction::Read, false, decrypted > 0);
        }
        line
    }

    /// [`read_line`](Self::read_line) without counters and events. Also the number of lines that went through the cipher.
    pub(crate) fn get_line(&self, place: Place) -> (PlainLine, usize) {
        let transfer = self.transfer(place, Direction::Read);
        let cells = self.dram.read(transfer.page, transfer.line);
        if self.integrity.is_some() && self.would_poison(place, transfer, &cells) {
            return (PlainLine::ZERO, 0);
        }
        self.decrypt(place, transfer.dun, &cells)
    }

    /// [`decrypt`](Self::decrypt) after the check of MC-32, if the machine has it.
    fn decrypt_checked(&mut self, place: Place, transfer: Transfer, cells: &CipherLine) -> (PlainLine, usize) {
        let (line, decrypted) = self.decrypt(place, transfer.dun, cells);
        let poisoned = self.integrity.is_some() && self.check(place, transfer, cells);
        (if poisoned { PlainLine::ZERO } else { line }, decrypted)
    }

    fn decrypt(&self, place: Place, dun: u64, cells: &CipherLine) -> (PlainLine, usize) {
        match self.packages.engine(place.page).resolve(place.address) {
            Cipher::Plaintext => (PlainLine::unencrypted(cells), 0),
            Cipher::Xts(key) => (key.decrypt_line(dun, cells), 1),
        }
    }

    /// Encrypts and writes one line past the cache, without reading its old contents (R4).
    pub(crate) fn write_line(&mut self, place: Place, line: &PlainLine) {
        self.write_line_with(place, line, false);
    }

    /// [`write_line`](Self::write_line) of a line that may be poisoned.
    pub(crate) fn write_line_with(&mut self, place: Place, line: &PlainLine, poison: bool) {
        self.note_keyid(place);
        self.note_faults(place, Direction::Write);
        self.note_writer(place, 1);
        let encrypted = self.put_line(place, line, poison);
        if self.disturbed(place, 1) {
            let Transfer { page, line, .. } = self.transfer(place, Direction::Write);
            self.leave(place, page, line);
        }
        self.stats.count_encrypted(encrypted);
        if self.bus.is_some() {
            self.trace(place, Direction::Write, false, encrypted > 0);
        }
    }

    /// Encrypts and writes one line without counters and events. Returns the number of lines that went through the
    /// cipher.
    pub(crate) fn put_line(&self, place: Place, plain: &PlainLine, poison: bool) -> usize {
        let transfer = self.transfer(place, Direction::Write);
        let Transfer { page, line, dun } = transfer;
        let (cells, encrypted) = match self.packages.engine(place.page).resolve(place.address) {
            Cipher::Plaintext => (CipherLine::unencrypted(plain), 0),
            Cipher::Xts(key) => (key.encrypt_line(dun, plain), 1),
        };
        self.dram.write(page, line, &cells);
        if self.integrity.is_some() {
            self.seal(place, transfer, poison);
        }
        if self.disturbed(place, 1) {
            self.stick(page, line);
        }
        encrypted
    }

    /// Writes back a cache line: `write_from`, with the events that only write-backs raise.
    pub(crate) fn write_back(&mut self, place: Place, frame: FramePtr) {
        if self.late_write_backs && self.disturbed(place, 1) && !self.lets_write_back(place, frame) {
            return;
        }
        if let Some(faults) = &self.faults
            && self.late_write_backs
        {
            let (at, keyid) = (self.layout().mem(place.address).line(), self.layout().keyid(place.address));
            let action = faults.write_back(at, keyid);
            if action != WritebackAction::Pass {
                self.push_event(Event::WritebackFault { line: at, keyid, action });
            }
            match action {
                WritebackAction::Pass => {}
                WritebackAction::Drop => return,
                WritebackAction::Duplicate => self.write_from(place, frame),
            }
        }
        if self.late_write_backs && self.events().enabled() {
            self.note_key_switch(place);
        }
        self.stats.count_write_back(self.layout().keyid(place.address));
        self.write_from(place, frame);
    }

    /// [`write_back`](Self::write_back) of many lines, in order: the cipher takes as many as a page has at a time.
    pub(crate) fn write_back_all(&mut self, lines: impl ExactSizeIterator<Item = (Place, FramePtr)>) {
        // What these look at changes from line to line.
        let each = self.faults.is_some() || self.integrity.is_some();
        if each || self.events().enabled() {
            return lines.for_each(|(place, frame)| self.write_back(place, frame));
        }
        let mut lines = lines;
        let mut plain = [PlainLine::ZERO; LINES_PER_PAGE];
        let mut cells = [CipherLine::ZERO; LINES_PER_PAGE];
        let mut batch = Vec::with_capacity(LINES_PER_PAGE.min(lines.len()));
        loop {
            batch.clear();
            batch.extend(lines.by_ref().take(LINES_PER_PAGE));
            if batch.is_empty() {
                return;
            }
            if batch.iter().any(|(place, _)| self.about.line(place.line())) {
                batch.iter().for_each(|&(place, frame)| self.write_back(place, frame));
                continue;
            }
            for (plain, (place, frame)) in plain.iter_mut().zip(&batch) {
                *plain = frame.0.line(place.line());
            }
            self.encrypt_batch(&batch, &plain, &mut cells);
            // Several KeyIDs' copies of one line have the same cells: the last one stays.
            for (cells, &(place, _)) in cells.iter().zip(&batch) {
                self.dram.write(place.page, place.line(), cells);
                self.stats.count_write_back(self.layout().keyid(place.address));
                if self.bus.is_some() {
                    let cipher = self.packages.engine(place.page).resolve(place.address);
                    self.trace(place, Direction::Write, true, matches!(cipher, Cipher::Xts(_)));
                }
            }
        }
    }

    /// Turns lines into what DRAM will hold.
    fn encrypt_batch(&mut self, batch: &[(Place, FramePtr)], plain: &[PlainLine], cells: &mut [CipherLine]) {
        let mut requests = Vec::with_capacity(batch.len());
        for ((&(place, _), source), target) in batch.iter().zip(plain).zip(cells) {
            match self.packages.engine(place.page).resolve(place.address) {
                Cipher::Plaintext => *target = CipherLine::unencrypted(source),
                Cipher::Xts(key) => requests.push(Request { key, dun: self.dun(place), source, target }),
            }
        }
        crypto::encrypt_batch(&mut requests);
        self.stats.count_encrypted(requests.len());
    }

    /// Reads bytes that lie in one page.
    pub(crate) fn read_bytes(&mut self, place: Place, buf: &mut [u8]) {
        let first = place.line() as usize;
        let offset = place.address.line_offset();
        // By far the most frequent, and a page of lines costs more to clear than a line to read.
        if offset + buf.len() <= LINE_BYTES {
            let line = self.read_line(place);
            return buf.copy_from_slice(&line.0[offset..offset + buf.len()]);
        }
        let mut lines = [PlainLine::ZERO; LINES_PER_PAGE];
        let count = (offset + buf.len()).div_ceil(LINE_BYTES).min(LINES_PER_PAGE - first);
        let lines = &mut lines[..count];
        self.read_run(place, lines);
        let (head, rest) = buf.split_at_mut(buf.len().min(LINE_BYTES - offset));
        head.copy_from_slice(&lines[0].0[offset..offset + head.len()]);
        for (piece, line) in rest.chunks_mut(LINE_BYTES).zip(&lines[1..]) {
            piece.copy_from_slice(&line.0[..piece.len()]);
        }
    }

    /// Writes bytes that lie in one page. Whole lines are written without being read; the partial ones at the ends are
    /// read, merged and written (MK specification section 5.4).
    pub(crate) fn write_bytes(&mut self, place: Place, buf: &[u8]) {
        let lead = (LINE_BYTES - place.address.line_offset()) % LINE_BYTES;
        let (head, rest) = buf.split_at(lead.min(buf.len()));
        if !head.is_empty() {
            self.merge(place, head);
        }
        let at = Place { address: place.address.offset(head.len() as u64), ..place };
        let (whole, tail) = rest.split_at(rest.len() - rest.len() % LINE_BYTES);
        if let Ok(line) = whole.try_into() {
            self.write_line(at, &PlainLine(line));
        } else if !whole.is_empty() {
            let mut lines = [PlainLine::ZERO; LINES_PER_PAGE];
            let lines = &mut lines[..whole.len() / LINE_BYTES];
            for (line, bytes) in lines.iter_mut().zip(whole.chunks_exact(LINE_BYTES)) {
                line.0.copy_from_slice(bytes);
            }
            self.write_run(at, lines);
        }
        if !tail.is_empty() {
            self.merge(Place { address: at.address.offset(whole.len() as u64), ..place }, tail);
        }
    }

    /// Read-modify-write of a part of one line.
    fn merge(&mut self, place: Place, bytes: &[u8]) {
        let mut line = if mutant!(PartialWriteClears) { PlainLine::ZERO } else { self.read_line(place) };
        let offset = place.address.line_offset();
        line.0[offset..offset + bytes.len()].copy_from_slice(bytes);
        // What was read was wrong: so is what is written, whatever part of it was replaced.
        let poison = self.take_met();
        self.write_line_with(place, &line, poison);
    }

    /// Reads consecutive lines of one page. The page resolves as a whole: the exclusion range has 4 KiB grains.
    fn read_run(&mut self, place: Place, lines: &mut [PlainLine]) {
        if self.faults.is_some() || self.integrity.is_some() || self.disturbed(place, lines.len()) {
            for (n, line) in lines.iter_mut().enumerate() {
                *line = self.read_line(nth_line(place, n));
            }
            return;
        }
        self.note_keyid(place);
        let mut cells = [CipherLine::ZERO; LINES_PER_PAGE];
        let cells = &mut cells[..lines.len()];
        self.dram.read_run(place.page, place.line(), cells);
        match self.packages.engine(place.page).resolve(place.address) {
            Cipher::Plaintext => {
                for (to, from) in lines.iter_mut().zip(&*cells) {
                    *to = PlainLine::unencrypted(from);
                }
            }
            Cipher::Xts(key) => {
                key.decrypt_lines(self.dun(place), cells, lines);
                self.stats.count_decrypted(lines.len());
            }
        }
        if self.bus.is_some() {
            self.trace_run(place, lines.len(), Direction::Read);
        }
    }

    /// Writes consecutive whole lines of one page.
    fn write_run(&mut self, place: Place, lines: &[PlainLine]) {
        if self.faults.is_some() || self.integrity.is_some() || self.disturbed(place, lines.len()) {
            for (n, line) in lines.iter().enumerate() {
                self.write_line(nth_line(place, n), line);
            }
            return;
        }
        self.note_keyid(place);
        self.note_writer(place, lines.len());
        let mut cells = [CipherLine::ZERO; LINES_PER_PAGE];
        let cells = &mut cells[..lines.len()];
        match self.packages.engine(place.page).resolve(place.address) {
            Cipher::Plaintext => {
                for (to, from) in cells.iter_mut().zip(lines) {
                    *to = CipherLine::unencrypted(from);
                }
            }
            Cipher::Xts(key) => {
                key.encrypt_lines(self.dun(place), lines, cells);
                self.stats.count_encrypted(lines.len());
            }
        }
        self.dram.write_run(place.page, place.line(), cells);
        if self.bus.is_some() {
            self.trace_run(place, lines.len(), Direction::Write);
        }
    }

    /// Records the transfer of a line that has just taken place, from the cells it came from or went to.
    #[cold]
    fn trace(&mut self, place: Place, direction: Direction, cached: bool, encrypted: bool) {
        let Transfer { page, line, .. } = self.transfer(place, direction);
        let (layout, cells) = (self.layout(), self.dram.read(page, line));
        if let Some(bus) = &mut self.bus {
            let direction = match direction {
                Direction::Read => bus_trace::Direction::Read,
                Direction::Write => bus_trace::Direction::Write,
            };
            bus.transfer(layout, place.address, direction, cached, encrypted, cells);
        }
    }

    /// [`trace`](Self::trace) for consecutive lines of one page, past the cache.
    #[cold]
    fn trace_run(&mut self, place: Place, lines: usize, direction: Direction) {
        let cipher = self.packages.engine(place.page).resolve(place.address);
        let encrypted = matches!(cipher, Cipher::Xts(_));
        for n in 0..lines {
            self.trace(nth_line(place, n), direction, false, encrypted);
        }
    }

    #[inline]
    fn note_keyid(&mut self, place: Place) {
        if self.events().enabled() {
            let keyid = self.layout().keyid(place.address);
            if keyid.0 > self.tme().max_keys() {
                self.push_event(Event::KeyidBeyondMax { address: place.address, keyid });
            }
        }
    }

    #[inline]
    fn note_faults(&mut self, place: Place, direction: Direction) {
        if self.faults.is_some() && self.events().enabled() {
            self.record_faults(place, direction);
        }
    }

    #[cold]
    fn record_faults(&mut self, place: Place, direction: Direction) {
        let Transfer { page, line: cells, dun } = self.transfer(place, direction);
        let (line, write) = (self.layout().mem(place.address).line(), direction == Direction::Write);
        if dun != self.dun(place) {
            self.push_event(Event::TweakFault { line, write });
        }
        if (page, cells) != (place.page, place.line()) {
            let start = self.map.page_address(page).0 + u64::from(cells) * LINE_BYTES as u64;
            self.push_event(Event::DramAlias { line, cells: PhysAddr(start).line(), write });
        }
    }

    #[inline]
    fn note_writer(&mut self, place: Place, lines: usize) {
        if self.events().enabled() {
            self.record_writer(place, lines);
        }
    }

    #[cold]
    fn record_writer(&mut self, place: Place, lines: usize) {
        let keyid = self.layout().keyid(place.address).0;
        self.writers.resize(self.map.pages(), None);
        let writers = self.writers[place.page as usize].get_or_insert_with(|| Arc::new([NO_WRITER; LINES_PER_PAGE]));
        for writer in Arc::make_mut(writers).iter_mut().skip(place.line() as usize).take(lines) {
            *writer = keyid;
        }
    }

    #[cold]
    fn note_key_switch(&mut self, place: Place) {
        let kid_now = self.layout().keyid(place.address);
        let writers = self.writers.get(place.page as usize).and_then(Option::as_deref);
        if let Some(&before) = writers.and_then(|writers| writers.get(place.line() as usize))
            && before != NO_WRITER
            && before != kid_now.0
        {
            let line = self.layout().mem(place.address).line();
            self.push_event(Event::AliasDirtyOnKeySwitch { line, kid_before: KeyId(before), kid_now });
        }
    }

    /// Power loss, or events switched off.
    pub(crate) fn forget_writers(&mut self) {
        self.writers.clear();
    }
}

/// The line `n` lines after `place` in its page.
fn nth_line(place: Place, n: usize) -> Place {
    Place { address: place.address.offset((n * LINE_BYTES) as u64), ..place }
}

/// Splits `len` bytes at `address` into pieces that stay inside a page: (address, range of the buffer).
pub(crate) fn page_pieces(address: BusAddr, len: usize) -> impl Iterator<Item = (BusAddr, std::ops::Range<usize>)> {
    pieces(address, len, 1 << PAGE_SHIFT)
}

/// Splits `len` bytes at `address` into pieces that stay inside a line.
pub(crate) fn line_pieces(address: BusAddr, len: usize) -> impl Iterator<Item = (BusAddr, std::ops::Range<usize>)> {
    pieces(address, len, LINE_BYTES)
}

fn pieces(address: BusAddr, len: usize, grain: usize) -> impl Iterator<Item = (BusAddr, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done >= len {
            return None;
        }
        let at = address.offset(done as u64);
        let room = grain - (at.0 as usize & (grain - 1));
        let range = done..len.min(done + room);
        done = range.end;
        Some((at, range))
    })
}

const _: () = assert!(PAGE_BYTES == 1 << PAGE_SHIFT);
