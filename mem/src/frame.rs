//! Plaintext page frames: where the bytes of cached lines live (design D3).
//!
//! A frame belongs to one (physical page, KeyID). Its bit vectors have one bit per line; the probe of `fast.rs` reads
//! them directly, so that evicting, flushing or vetoing a line is the clearing of a bit.
#![allow(unsafe_code)]

use std::cell::{Cell, RefCell, UnsafeCell};

use crate::addr::{BusAddr, LINE_BYTES, LINES_PER_PAGE, PAGE_BYTES};
use crate::huge;
use crate::{CipherLine, PlainLine};
use crypto::XtsKey;

/// Marks the end of a chain, and "no frame" in the page index.
pub(crate) const NO_FRAME: u32 = u32::MAX;

/// One plaintext page. Only the cache changes the bit vectors; the bytes are also written through the fast path.
#[repr(C, align(64))]
pub struct Frame {
    /// Lines a load may take directly: resident, and no other KeyID's copy of the line is (veto).
    pub(crate) fast_r: Cell<u64>,
    /// Lines a store may take directly: `fast_r`, already dirty, no decoded code in it, and the frame is not `saved`.
    pub(crate) fast_w: Cell<u64>,
    /// Lines whose decoded blocks are valid.
    pub(crate) exec_ok: Cell<u64>,
    pub(crate) resident: Cell<u64>,
    pub(crate) dirty: Cell<u64>,
    /// Resident lines that are poisoned: never in `fast_r`, `fast_w` and `exec_ok`.
    pub(crate) poison: Cell<u64>,
    /// Lines that blocks were decoded from. Stays set when the line is evicted ("parked").
    pub(crate) code: Cell<u64>,
    /// Lines that may be in `fast_r`, `fast_w` and `exec_ok` as far as the sanitizer is concerned; all of them while it is
    /// off.
    pub(crate) allow_r: Cell<u64>,
    pub(crate) allow_w: Cell<u64>,
    pub(crate) allow_x: Cell<u64>,
    /// Full physical address of the page.
    pub(crate) bus_page: Cell<u64>,
    /// Number of the physical page (index into DRAM).
    pub(crate) page_index: Cell<u32>,
    /// The next frame of the same physical page with another KeyID.
    pub(crate) next: Cell<u32>,
    /// True while the frame waits in the pool's queue of frames without resident lines.
    pub(crate) queued: Cell<bool>,
    /// True while the frame is in the pool's list of frames with resident lines.
    pub(crate) listed: Cell<bool>,
    /// True while the frame holds what the pool's snapshot has of its page: the next change has to be noted, so no line may be
    /// stored to directly.
    pub(crate) saved: Cell<bool>,
    /// Position in the pool, constant while the pool owns the frame.
    pub(crate) index: Cell<u32>,
    data: UnsafeCell<[PlainLine; LINES_PER_PAGE]>,
}

impl Frame {
    /// Offset of the page's bytes in a frame, for the probe.
    pub(crate) const DATA: usize = std::mem::offset_of!(Frame, data);

    fn new() -> Self {
        Self {
            fast_r: Cell::new(0),
            fast_w: Cell::new(0),
            exec_ok: Cell::new(0),
            resident: Cell::new(0),
            dirty: Cell::new(0),
            poison: Cell::new(0),
            code: Cell::new(0),
            allow_r: Cell::new(!0),
            allow_w: Cell::new(!0),
            allow_x: Cell::new(!0),
            bus_page: Cell::new(u64::MAX),
            page_index: Cell::new(u32::MAX),
            next: Cell::new(NO_FRAME),
            queued: Cell::new(false),
            listed: Cell::new(false),
            saved: Cell::new(false),
            index: Cell::new(NO_FRAME),
            data: UnsafeCell::new([PlainLine([0; LINE_BYTES]); LINES_PER_PAGE]),
        }
    }

    /// Copies out the plaintext of line `line & 63`.
    #[inline]
    pub(crate) fn line(&self, line: u32) -> PlainLine {
        let at = line as usize & (LINES_PER_PAGE - 1);
        // SAFETY: `at` is below LINES_PER_PAGE. Frame is !Sync and no reference into `data` is ever handed out or kept,
        // so nothing else accesses it during this copy.
        unsafe { (*self.data.get())[at] }
    }

    /// Asks the host for what evicting line `line & 63` takes.
    #[inline(always)]
    pub(crate) fn prefetch(&self, line: u32) {
        let at = line as usize & (LINES_PER_PAGE - 1);
        huge::prefetch(&self.fast_r);
        huge::prefetch(&self.bus_page);
        huge::prefetch(self.data.get().cast::<PlainLine>().wrapping_add(at));
    }

    /// Sets the plaintext of line `line & 63`.
    #[inline]
    pub(crate) fn set_line(&self, line: u32, bytes: &PlainLine) {
        let at = line as usize & (LINES_PER_PAGE - 1);
        // SAFETY: as in `line`; `bytes` cannot alias `data` because no reference into `data` exists.
        unsafe { (*self.data.get())[at] = *bytes }
    }

    /// Sets line `line & 63` to what is in `cells` under a key.
    #[inline]
    pub(crate) fn decrypt_line(&self, line: u32, key: &XtsKey, dun: u64, cells: &CipherLine) {
        let at = line as usize & (LINES_PER_PAGE - 1);
        // SAFETY: `at` is below LINES_PER_PAGE. Frame is !Sync and the reference ends with the statement; the cipher accesses
        // nothing but its arguments, none of which can be in `data`.
        let plain = unsafe { &mut (*self.data.get())[at] };
        key.decrypt_line_into(dun, cells, plain);
    }

    /// Puts line `line & 63` into `cells` under a key.
    #[inline]
    pub(crate) fn encrypt_line(&self, line: u32, key: &XtsKey, dun: u64, cells: &mut CipherLine) {
        let at = line as usize & (LINES_PER_PAGE - 1);
        // SAFETY: as in `decrypt_line`; nothing is written through this reference.
        let plain = unsafe { &(*self.data.get())[at] };
        key.encrypt_line_into(dun, plain, cells);
    }
}

/// A frame, by address. Frames are never freed (a dropped `Memory` leaves its frames to the next one), so a `FramePtr`
/// is always safe to follow; after the frame was retired ([`crate::Memory::take_retired`]) it shows another page.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct FramePtr(pub(crate) &'static Frame);

impl PartialEq for FramePtr {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.0, other.0)
    }
}

impl Eq for FramePtr {}

impl std::fmt::Debug for FramePtr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Frame#{}@{:#x}", self.0.index.get(), self.0.bus_page.get())
    }
}

impl FramePtr {
    /// A frame without a page and without a resident line, for places that need a valid pointer: every probe of it
    /// misses.
    pub fn empty() -> Self {
        thread_local!(static EMPTY: FramePtr = FramePtr(Box::leak(Box::new(Frame::new()))));
        EMPTY.with(|frame| *frame)
    }

    /// Position in the pool: dense from 0, stable for the life of the `Memory`. For side tables.
    pub fn index(self) -> u32 {
        self.0.index.get()
    }

    /// Full physical address of the page this frame holds.
    #[inline(always)]
    pub fn bus_page(self) -> BusAddr {
        BusAddr(self.0.bus_page.get())
    }

    /// Lines a load may take directly.
    #[inline(always)]
    pub fn fast_r(self) -> u64 {
        self.0.fast_r.get()
    }

    /// Lines a store may take directly.
    #[inline(always)]
    pub fn fast_w(self) -> u64 {
        self.0.fast_w.get()
    }

    /// Lines whose decoded blocks are valid: a block may run while `exec_ok & block.lines == block.lines`.
    #[inline(always)]
    pub fn exec_ok(self) -> u64 {
        self.0.exec_ok.get()
    }

    /// Lines in the cache.
    #[inline(always)]
    pub fn resident(self) -> u64 {
        self.0.resident.get()
    }

    /// Lines in the cache whose bytes are what they should be, as far as integrity can tell.
    #[inline(always)]
    pub fn intact(self) -> u64 {
        self.0.resident.get() & !self.0.poison.get()
    }

    /// Lines in the cache that may be fetched without the sanitizer's knowing, and without a machine check.
    #[inline(always)]
    pub fn fetchable(self) -> u64 {
        self.intact() & self.0.allow_x.get()
    }

    /// True when the line is in the cache and poisoned.
    #[inline(always)]
    pub(crate) fn is_poisoned(self, line: u32) -> bool {
        self.0.poison.get() >> (line & 63) & 1 != 0
    }

    /// Lines in the cache and newer than DRAM.
    #[inline(always)]
    pub fn dirty(self) -> u64 {
        self.0.dirty.get()
    }

    /// Lines that blocks were decoded from, resident or not.
    #[inline(always)]
    pub fn code(self) -> u64 {
        self.0.code.get()
    }

    /// The bytes of line `line & 63`. Meaningful only while the line is resident.
    #[inline]
    pub fn line_bytes(self, line: u32) -> [u8; LINE_BYTES] {
        self.0.line(line).0
    }

    /// Copies bytes out of the page. Meaningful only for resident lines.
    ///
    /// # Panics
    /// When `offset + buf.len()` exceeds the page.
    #[inline]
    pub fn read(self, offset: usize, buf: &mut [u8]) {
        assert!(offset <= PAGE_BYTES && buf.len() <= PAGE_BYTES - offset, "read leaves the page frame");
        // SAFETY: the range was checked to lie inside `data`; Frame is !Sync and no reference into `data` exists, so
        // `buf` cannot overlap it.
        unsafe {
            let from = self.0.data.get().cast::<u8>().add(offset);
            std::ptr::copy_nonoverlapping(from, buf.as_mut_ptr(), buf.len());
        }
    }

    /// Copies bytes into the page. The lines must have been touched with [`crate::Access::Write`] before.
    ///
    /// # Panics
    /// When `offset + buf.len()` exceeds the page.
    #[inline]
    pub fn write(self, offset: usize, buf: &[u8]) {
        assert!(offset <= PAGE_BYTES && buf.len() <= PAGE_BYTES - offset, "write leaves the page frame");
        // SAFETY: as in `read`, with the direction reversed.
        unsafe {
            let to = self.0.data.get().cast::<u8>().add(offset);
            std::ptr::copy_nonoverlapping(buf.as_ptr(), to, buf.len());
        }
    }
}

/// Frames in a slab, the unit of allocation: a huge page.
pub(crate) const SLAB_FRAMES: usize = huge::HUGE_PAGE / size_of::<Frame>();

thread_local! {
    /// Slabs that a dropped pool gave back.
    static FREE_SLABS: RefCell<Vec<&'static [Frame]>> = const { RefCell::new(Vec::new()) };
}

/// A slab of frames without pages. The memory is never returned to the host, only handed to a later pool of the same
/// thread: that is what makes every `FramePtr` and every fast-table entry safe to follow at any time.
pub(crate) fn take_slab() -> &'static [Frame] {
    let slab = FREE_SLABS.with_borrow_mut(Vec::pop).unwrap_or_else(|| huge::leak(SLAB_FRAMES, Frame::new));
    for frame in slab {
        let b = frame;
        for bits in [&b.fast_r, &b.fast_w, &b.exec_ok, &b.resident, &b.dirty, &b.poison, &b.code] {
            bits.set(0);
        }
        frame.allow_r.set(!0);
        frame.allow_w.set(!0);
        frame.allow_x.set(!0);
        frame.bus_page.set(u64::MAX);
        frame.page_index.set(u32::MAX);
        frame.next.set(NO_FRAME);
        frame.index.set(NO_FRAME);
        frame.queued.set(false);
        frame.listed.set(false);
        frame.saved.set(false);
    }
    slab
}

/// Gives slabs back for the next pool of this thread. Their fast bits are cleared, so that a stale fast-table entry
/// misses.
pub(crate) fn return_slabs(slabs: impl Iterator<Item = &'static [Frame]>) {
    // The list is gone when thread-local destructors already ran; the slabs then stay leaked, which is harmless.
    let _ = FREE_SLABS.try_with(|free| {
        for slab in slabs {
            for frame in slab {
                frame.fast_r.set(0);
                frame.fast_w.set(0);
                frame.exec_ok.set(0);
            }
            free.borrow_mut().push(slab);
        }
    });
}
