//! Loads, stores and fetches beyond the fast path: translation, the modelled cache, devices.

use super::tlb::{Side, Translation, prop};
use super::{Access, FlushKind, Privilege};
use crate::block::LineCheck;
use crate::machine_check::Use;
use crate::operand::canonical;
use crate::state::{Cpu, slot};
use mem::{Accessed, BusAddr, Event, FramePtr, MemType, Operation, deny};
use x86::cr::{cr0, cr4};
use x86::segment::sreg;
use x86::{Exception, mutant};

const PAGE: u64 = 4096;
const LINE: u64 = 64;

/// What a store says about the caches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hint {
    None,
    NonTemporal,
}

macro_rules! typed {
    ($read:ident, $write:ident, $t:ty) => {
        #[doc = concat!("Loads a `", stringify!($t), "` at a linear address with the current privilege.")]
        pub fn $read(&mut self, linear: u64) -> Result<$t, Exception> {
            if let Some(v) = self.fast.load_anywhere::<$t>(linear) {
                return Ok(v);
            }
            let mut b = [0; size_of::<$t>()];
            self.read_slow(linear, &mut b, Privilege::Current, sreg::DS)?;
            Ok(<$t>::from_le_bytes(b))
        }

        #[doc = concat!("Stores a `", stringify!($t), "` at a linear address with the current privilege.")]
        pub fn $write(&mut self, linear: u64, value: $t) -> Result<(), Exception> {
            if self.fast.store_anywhere::<$t>(linear, value) {
                return Ok(());
            }
            self.write_slow(linear, &value.to_le_bytes(), Privilege::Current, sreg::DS, Hint::None)
        }
    };
}

impl Cpu {
    typed!(read_u8, write_u8, u8);
    typed!(read_u16, write_u16, u16);
    typed!(read_u32, write_u32, u32);
    typed!(read_u64, write_u64, u64);
    typed!(read_u128, write_u128, u128);

    /// Loads bytes at a linear address with the current privilege. Faults leave the buffer unspecified.
    pub fn read_linear(&mut self, linear: u64, buf: &mut [u8]) -> Result<(), Exception> {
        self.read_slow(linear, buf, Privilege::Current, sreg::DS)
    }

    /// Stores bytes at a linear address with the current privilege. All pages are checked before the first byte is
    /// written, so that a fault leaves memory unchanged.
    pub fn write_linear(&mut self, linear: u64, bytes: &[u8]) -> Result<(), Exception> {
        self.write_slow(linear, bytes, Privilege::Current, sreg::DS, Hint::None)
    }

    /// As [`Cpu::write_linear`] with a non-temporal hint, and MOVDIRI and MOVDIR64B: the caches are bypassed
    /// (SDM Vol. 1, section 10.4.6.2; spec 5.4).
    pub fn write_nontemporal(&mut self, linear: u64, bytes: &[u8]) -> Result<(), Exception> {
        self.write_slow(linear, bytes, Privilege::Current, sreg::DS, Hint::NonTemporal)
    }

    /// Loads as a supervisor-mode access whatever CPL is: descriptor tables, TSS, IDT (SDM Vol. 3A, section 4.6.1,
    /// "implicit supervisor-mode accesses").
    pub fn read_system(&mut self, linear: u64, buf: &mut [u8]) -> Result<(), Exception> {
        self.read_slow(linear, buf, Privilege::System, sreg::DS)
    }

    /// Stores as an implicit supervisor-mode access (accessed bit of descriptors, TSS busy bit, stack switches).
    pub fn write_system(&mut self, linear: u64, bytes: &[u8]) -> Result<(), Exception> {
        self.write_slow(linear, bytes, Privilege::System, sreg::DS, Hint::None)
    }

    /// Checks that `len` bytes could be stored at the current privilege without a fault.
    pub fn probe_write(&mut self, linear: u64, len: usize) -> Result<(), Exception> {
        self.check_pages(linear, len, Access::Write, Privilege::Current, sreg::DS)
    }

    /// For the handlers: a load of 1 to 8 bytes, zero-extended. `None`: the fault is in [`Cpu::fault`]. `seg` is the
    /// address's segment slot.
    #[cold]
    #[inline(never)]
    pub fn load_slow(&mut self, va: u64, size: u32, seg: u8) -> Option<u64> {
        // The handlers' own probe takes aligned integers only.
        if !va.is_multiple_of(u64::from(size)) {
            let v = match size {
                2 => self.fast.load_anywhere::<u16>(va).map(u64::from),
                4 => self.fast.load_anywhere::<u32>(va).map(u64::from),
                _ => self.fast.load_anywhere::<u64>(va),
            };
            if v.is_some() {
                return v;
            }
        }
        let mut b = [0; 8];
        match self.read_slow(va, &mut b[..size as usize & 15], Privilege::Current, seg_of(seg)) {
            Ok(()) => Some(u64::from_le_bytes(b)),
            Err(e) => {
                self.fault = Some(e);
                None
            }
        }
    }

    /// For the handlers: a store of 1 to 8 bytes. False: the fault is in [`Cpu::fault`].
    #[cold]
    #[inline(never)]
    pub fn store_slow(&mut self, va: u64, size: u32, value: u64, seg: u8) -> bool {
        if !va.is_multiple_of(u64::from(size)) {
            let stored = match size {
                2 => self.fast.store_anywhere(va, value as u16),
                4 => self.fast.store_anywhere(va, value as u32),
                _ => self.fast.store_anywhere(va, value),
            };
            if stored {
                return true;
            }
        }
        let b = value.to_le_bytes();
        match self.write_slow(va, &b[..size as usize & 15], Privilege::Current, seg_of(seg), Hint::None) {
            Ok(()) => true,
            Err(e) => {
                self.fault = Some(e);
                false
            }
        }
    }

    /// For the handlers: checks that a read-modify-write of 1 to 8 bytes will not fault.
    #[cold]
    #[inline(never)]
    pub fn writable_slow(&mut self, va: u64, size: u32, seg: u8) -> bool {
        match self.check_pages(va, size as usize, Access::Write, Privilege::Current, seg_of(seg)) {
            Ok(()) => true,
            Err(e) => {
                self.fault = Some(e);
                false
            }
        }
    }

    fn check_canonical(&self, linear: u64, len: usize, seg: usize) -> Result<(), Exception> {
        let last = linear.wrapping_add(len as u64).wrapping_sub(1);
        if canonical(linear) && canonical(last) {
            Ok(())
        } else if seg == sreg::SS {
            Err(Exception::SS0)
        } else {
            Err(Exception::GP0)
        }
    }

    /// Translates every page of the range for the access.
    fn check_pages(
        &mut self,
        linear: u64,
        len: usize,
        access: Access,
        privilege: Privilege,
        seg: usize,
    ) -> Result<(), Exception> {
        self.check_canonical(linear, len, seg)?;
        let mut at = linear;
        let mut left = len as u64;
        while left > 0 {
            self.translate(at, access, privilege)?;
            let n = (PAGE - at % PAGE).min(left);
            at = at.wrapping_add(n);
            left -= n;
        }
        Ok(())
    }

    fn read_slow(&mut self, linear: u64, buf: &mut [u8], privilege: Privilege, seg: usize) -> Result<(), Exception> {
        self.check_canonical(linear, buf.len(), seg)?;
        if linear % PAGE + buf.len() as u64 > PAGE {
            // Faults come before side effects: a device register must not be read by an access that then faults.
            self.check_pages(linear, buf.len(), Access::Read, privilege, seg)?;
        }
        let mut at = linear;
        let mut buf = buf;
        while !buf.is_empty() {
            let t = self.translate(at, Access::Read, privilege)?;
            let room = if t.props & prop::RAM != 0 { LINE - at % LINE } else { PAGE - at % PAGE };
            let n = (buf.len() as u64).min(room) as usize;
            let (piece, rest) = buf.split_at_mut(n);
            self.read_piece(at, &t, privilege, piece)?;
            buf = rest;
            at = at.wrapping_add(n as u64);
        }
        Ok(())
    }

    fn write_slow(
        &mut self,
        linear: u64,
        bytes: &[u8],
        privilege: Privilege,
        seg: usize,
        hint: Hint,
    ) -> Result<(), Exception> {
        self.check_canonical(linear, bytes.len(), seg)?;
        if linear % PAGE + bytes.len() as u64 > PAGE {
            self.check_pages(linear, bytes.len(), Access::Write, privilege, seg)?;
        }
        let mut at = linear;
        let mut bytes = bytes;
        while !bytes.is_empty() {
            let t = self.translate(at, Access::Write, privilege)?;
            let room = if t.props & prop::RAM != 0 { LINE - at % LINE } else { PAGE - at % PAGE };
            let n = (bytes.len() as u64).min(room) as usize;
            let (piece, rest) = bytes.split_at(n);
            self.write_piece(at, &t, privilege, piece, hint);
            bytes = rest;
            at = at.wrapping_add(n as u64);
        }
        Ok(())
    }

    /// Loads within one line of RAM, or from a device.
    fn read_piece(
        &mut self,
        linear: u64,
        t: &Translation,
        privilege: Privilege,
        buf: &mut [u8],
    ) -> Result<(), Exception> {
        let bus = BusAddr(t.bus_page | (linear % PAGE));
        if t.props & prop::RAM == 0 {
            self.read_device(bus, buf);
            return Ok(());
        }
        if self.mem.observed() {
            self.observe(bus, buf.len(), t.ty, Operation::Load);
        }
        if self.mem.awaits_access(linear, bus) {
            self.mem.note_access(&Accessed { linear: Some(linear), bus, len: buf.len(), write: false });
        }
        let no_fill = self.no_fill();
        if t.ty == MemType::Wb
            && let Some(touched) = self.mem.touch(bus, Access::Read, no_fill)
        {
            touched.frame.read((linear % PAGE) as usize, buf);
            self.settle();
            self.install(linear, t, privilege, touched.frame);
            return self.check_poison(Use::Data);
        }
        self.mem.read(bus, t.ty, no_fill, buf);
        self.settle();
        self.check_poison(Use::Data)
    }

    /// Stores within one line of RAM, or to a device.
    fn write_piece(&mut self, linear: u64, t: &Translation, privilege: Privilege, bytes: &[u8], hint: Hint) {
        let bus = BusAddr(t.bus_page | (linear % PAGE));
        if t.props & prop::RAM == 0 {
            return self.write_device(bus, bytes);
        }
        // UC and WP override the hint.
        let nontemporal = hint == Hint::NonTemporal && matches!(t.ty, MemType::Wb | MemType::Wt | MemType::Wc);
        if self.mem.observed() {
            let operation = if nontemporal { Operation::NonTemporalStore } else { Operation::Store };
            self.observe(bus, bytes.len(), t.ty, operation);
        }
        if self.mem.awaits_access(linear, bus) {
            self.mem.note_access(&Accessed { linear: Some(linear), bus, len: bytes.len(), write: true });
        }
        if nontemporal {
            self.mem.write_nontemporal(bus, bytes);
            return self.settle();
        }
        let no_fill = self.no_fill();
        if t.ty == MemType::Wb
            && let Some(touched) = self.mem.touch(bus, Access::Write, no_fill)
        {
            touched.frame.write((linear % PAGE) as usize, bytes);
            if touched.poisoned {
                self.mem.note_overwritten(bus, bytes.len());
            }
            self.settle();
            self.install(linear, t, privilege, touched.frame);
            return;
        }
        self.mem.write(bus, t.ty, no_fill, bytes);
        self.settle();
    }

    /// The address that devices decode: without the KeyID, which is reported (MC-31).
    pub(crate) fn device_address(&mut self, bus: BusAddr) -> u64 {
        let layout = self.mem.layout();
        let keyid = layout.keyid(bus);
        if keyid.0 != 0 {
            self.mem.events_mut().push(Event::KeyidOnMmio { address: bus, keyid });
        }
        if mutant!(KeyidReachesRegisters) { bus.0 } else { layout.mem(bus).0 }
    }

    /// Device registers: accesses of 1, 2, 4 or 8 naturally aligned bytes; others are split into bytes. KeyID bits are
    /// dropped (MC-31).
    fn read_device(&mut self, bus: BusAddr, buf: &mut [u8]) {
        let address = self.device_address(bus);
        let (now, id) = (self.now(), self.id);
        let n = buf.len();
        if n.is_power_of_two() && n <= 8 && address.is_multiple_of(n as u64) {
            let v = self.platform.mmio_read(now, id, address, n as u8);
            buf.copy_from_slice(&v.to_le_bytes()[..n]);
        } else {
            for (i, b) in buf.iter_mut().enumerate() {
                *b = self.platform.mmio_read(now, id, address + i as u64, 1) as u8;
            }
        }
        self.leave_block = true;
        self.attention = true;
    }

    fn write_device(&mut self, bus: BusAddr, bytes: &[u8]) {
        let address = self.device_address(bus);
        let (now, id) = (self.now(), self.id);
        let n = bytes.len();
        if n.is_power_of_two() && n <= 8 && address.is_multiple_of(n as u64) {
            let mut b = [0; 8];
            b[..n].copy_from_slice(bytes);
            self.platform.mmio_write(now, id, address, n as u8, u64::from_le_bytes(b));
        } else {
            for (i, b) in bytes.iter().enumerate() {
                self.platform.mmio_write(now, id, address + i as u64, 1, u64::from(*b));
            }
        }
        self.leave_block = true;
        self.attention = true;
    }

    /// The translation of a linear address for an access, from the TLB or by a walk.
    pub fn translate(&mut self, linear: u64, access: Access, privilege: Privilege) -> Result<Translation, Exception> {
        let side = if access == Access::Fetch { Side::Fetch } else { Side::Data };
        let vpage = linear >> 12;
        let pcid = self.pcid();
        if let Some(&t) = self.tlb.lookup(side, vpage, pcid) {
            if self.allows(t.props, access, privilege) && (access != Access::Write || t.props & prop::D != 0) {
                return Ok(t);
            }
            // The dirty bit is to be set, or the access faults, which drops the translation (SDM Vol. 3A, section
            // 4.10.4.1): the tables decide.
            self.drop_translation(Translation { pcid, ..t });
        }
        let t = if self.cr0 & cr0::PG == 0 { self.unpaged(linear) } else { self.walk(linear, access, privilege)? };
        if side == Side::Fetch && self.cpl != 3 && t.props & prop::G == 0 {
            self.supervisor_fetch_non_global = true;
        }
        if let Some(replaced) = self.tlb.insert(side, t) {
            match side {
                Side::Data => self.fast.clear_page(replaced.vpage << 12),
                Side::Fetch => self.fetch_translation_went(replaced),
            }
        }
        Ok(t)
    }

    fn drop_translation(&mut self, t: Translation) {
        let fetch_went = self.tlb.invalidate(t.vpage, t.pcid, true);
        if self.tlb.may_have_large(t.vpage) {
            // All pieces of the large page have gone, wherever their fast-path entries are.
            self.fast.clear();
        } else {
            self.fast.clear_page(t.vpage << 12);
        }
        if fetch_went {
            self.fetch_translations_went(t);
        }
    }

    /// Without paging a linear address is a bus address with KeyID 0 (spec 5.5), and the MTRRs alone give the type.
    fn unpaged(&mut self, linear: u64) -> Translation {
        let page = linear & 0xFFFF_F000;
        let mut props = prop::W | prop::U | prop::D;
        if self.mem.is_ram(self.mem.layout().mem(BusAddr(page))) {
            props |= prop::RAM;
        }
        // PAT entry 0 at reset is WB; without paging PAT does not take part.
        let ty = self.unpaged_memory_type(page);
        Translation { vpage: linear >> 12, bus_page: page, props, pcid: 0, ty }
    }

    /// Enters a page into the fast path, if repeating the access could change nothing observable: write-back RAM only;
    /// the line bits of the frame say the rest.
    fn install(&mut self, linear: u64, t: &Translation, privilege: Privilege, frame: FramePtr) {
        if privilege == Privilege::System {
            return;
        }
        let page = BusAddr(t.bus_page);
        if self.mem.awaits_access(linear, page) && self.mem.watches_page(linear, page) {
            return;
        }
        let (w, u, d) = (t.props & prop::W != 0, t.props & prop::U != 0, t.props & prop::D != 0);
        self.supervisor_data_non_global |= !u && t.props & prop::G == 0;
        let supervisor_w = d && (w || self.cr0 & cr0::WP == 0);
        let mut bits = 0;
        if !u {
            bits |= deny::RU;
        }
        if !(u && w && d) {
            bits |= deny::WU;
        }
        if u && self.cr4 & cr4::SMAP != 0 {
            bits |= deny::RS | deny::WS;
        }
        if !supervisor_w {
            bits |= deny::WS | deny::WSA;
        }
        self.fast.install(linear, bits, frame);
    }

    /// Applies what the last call into memory reported: recycled frames leave the fast path and take their blocks with
    /// them, stores into code kill blocks, lines of code that left the cache park them. Every call that can fill, evict,
    /// flush or store is followed by this.
    #[inline]
    pub(crate) fn settle(&mut self) {
        if self.mem.has_reports() {
            self.settle_slow();
        }
        if self.mem.has_unstamped() {
            self.stamp_faults();
        }
        if self.mem.has_unstamped_detections() {
            self.stamp_detections();
        }
    }

    /// Says when integrity has found what it found.
    #[cold]
    fn stamp_detections(&mut self) {
        let icount = self.icount().wrapping_add(self.iterations);
        self.mem.stamp_detections(icount, self.access_ip);
    }

    #[cold]
    fn settle_slow(&mut self) {
        while let Some(r) = self.mem.take_retired() {
            self.fast.purge_frame(r.frame);
            if r.code != 0 {
                self.blocks.kill_page(r.frame);
                self.leave_block = true;
            }
        }
        while let Some(hit) = self.mem.take_code_hit() {
            self.blocks.kill_line(hit.frame, hit.line);
            self.leave_block = true;
            self.code_modified = true;
        }
        while let Some(parked) = self.mem.take_parked() {
            self.blocks.refresh(parked.frame, parked.lines);
            // It may be a line that the block under way goes on in.
            self.leave_block = true;
        }
    }

    /// Fetches the line at a linear address: translation, residency, and the comparison of code that was parked. Returns
    /// the frame and whether the page is RAM that may hold cached blocks.
    pub(crate) fn fetch_line(&mut self, linear: u64) -> Result<(Translation, Option<FramePtr>), Exception> {
        if !canonical(linear) {
            return Err(Exception::GP0);
        }
        let t = self.translate(linear, Access::Fetch, Privilege::Current)?;
        if t.props & prop::RAM == 0 || t.ty != MemType::Wb {
            return Ok((t, None));
        }
        let bus = BusAddr(t.bus_page | (linear % PAGE));
        if self.mem.observed() {
            self.observe(bus, 1, t.ty, Operation::Fetch);
        }
        let no_fill = self.no_fill();
        let Some(touched) = self.mem.touch(bus, Access::Fetch, no_fill) else { return Ok((t, None)) };
        self.settle();
        self.check_poison(Use::Instruction)?;
        self.readmit_code(touched.frame, 1 << (linear % PAGE / LINE));
        Ok((t, Some(touched.frame)))
    }

    /// Compares lines that have come back into the cache with the code that was decoded from them: their blocks may be entered
    /// again, or are void.
    pub(crate) fn readmit_code(&mut self, frame: FramePtr, lines: u64) {
        for line in crate::block::bits(lines & frame.intact() & !frame.exec_ok()) {
            if self.blocks.check_line(frame, line, &frame.line_bytes(line)) == LineCheck::Same {
                self.mem.set_code(frame, line);
                self.blocks.refresh(frame, 1 << line);
            }
        }
    }

    /// CLFLUSH, CLFLUSHOPT, CLWB: translated as a load; only the tag with that translation's KeyID (spec 5.3).
    pub fn flush_line(&mut self, linear: u64, kind: FlushKind) -> Result<(), Exception> {
        self.check_canonical(linear, 1, sreg::DS)?;
        let t = self.translate(linear, Access::Read, Privilege::Current)?;
        if t.props & prop::RAM != 0 {
            let bus = BusAddr(t.bus_page | (linear % PAGE));
            if self.mem.observed() {
                let operation = match kind {
                    FlushKind::Clflush => Operation::Flush,
                    FlushKind::Clwb => Operation::WriteBack,
                };
                self.observe(bus, 1, t.ty, operation);
            }
            match kind {
                FlushKind::Clflush => self.mem.clflush(bus),
                FlushKind::Clwb => self.mem.clwb(bus),
            }
            self.settle();
        }
        Ok(())
    }

    /// CR0.CD: misses do not allocate (spec 5.4; MC-35).
    pub(crate) fn no_fill(&self) -> bool {
        self.cr0 & cr0::CD != 0
    }

    pub(crate) fn pcid(&self) -> u16 {
        if self.cr4 & cr4::PCIDE != 0 { (self.cr3 & 0xFFF) as u16 } else { 0 }
    }
}

fn seg_of(slot_number: u8) -> usize {
    if slot_number >= slot::SEG { usize::from(slot_number - slot::SEG) } else { sreg::DS }
}
