//! The fast path: a direct-mapped table from virtual page to plaintext frame, embedded in each logical processor.
//!
//! A probe answers "mapped, allowed, cached, and no alias in the way" with one tag compare and one bit test. Everything
//! else is a miss and goes the slow way (design D3). A hit takes 14 to 18 host instructions, most of them moves and
//! masks; the same access through `Memory::touch` takes about 5 ns.
//!
//! Two kinds of probe: [`FastTable::load`], [`FastTable::store`] and [`FastTable::slot`], which handlers of instructions are made
//! of, hit naturally aligned integers only, since the tag compare tells alignment for nothing, and the others any
//! bytes within one line.
#![allow(unsafe_code)]

use std::marker::PhantomData;

use crate::addr::{LINE_BYTES, PAGE_BYTES};
use crate::frame::{Frame, FramePtr};

/// Entries of a [`FastTable`]: 0.35 % of accesses miss with 1,024 entries; with 4,096 walking directories is 6 % faster.
pub const FAST_ENTRIES: usize = 4096;

/// Deny bits, kept in a tag between the offset in a line and the page number. A mode tests exactly one read and one write
/// bit.
pub mod deny {
    /// Reads by user-mode code.
    pub const RU: u64 = 1 << 6;
    /// Reads by supervisor-mode code while SMAP is in force.
    pub const RS: u64 = 1 << 7;
    /// Reads by supervisor-mode code with RFLAGS.AC = 1 or SMAP off.
    pub const RSA: u64 = 1 << 8;
    /// Writes by user-mode code.
    pub const WU: u64 = 1 << 9;
    /// Writes by supervisor-mode code while SMAP is in force.
    pub const WS: u64 = 1 << 10;
    /// Writes by supervisor-mode code with RFLAGS.AC = 1 or SMAP off.
    pub const WSA: u64 = 1 << 11;
    /// All of them.
    pub const ALL: u64 = RU | RS | RSA | WU | WS | WSA;
}

const PAGE_MASK: u64 = !(PAGE_BYTES as u64 - 1);
/// Bits of a tag that are zero: what a probe leaves of the address there says how it is not aligned.
const ALIGN_MASK: u64 = LINE_BYTES as u64 - 1;
/// No page address equals this tag under a mask that has a deny bit.
const EMPTY_TAG: u64 = !ALIGN_MASK;

/// One entry. Empty entries hold [`FramePtr::empty`], every probe of which misses, so that no combination of masks and
/// address needs a test for emptiness.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct FastEntry {
    tag: u64,
    frame: FramePtr,
}

impl FastEntry {
    fn empty() -> Self {
        Self { tag: EMPTY_TAG, frame: FramePtr::empty() }
    }
}

/// The table and the masks of the current mode.
#[repr(C)]
pub struct FastTable {
    entries: [FastEntry; FAST_ENTRIES],
    /// What a tag and an address are compared by: all but the deny bits that the current mode's reads do not ask.
    mask_r: u64,
    /// The same for writes.
    mask_w: u64,
}

impl Default for FastTable {
    fn default() -> Self {
        Self::new()
    }
}

/// Integers the probe moves.
pub trait Word: Copy + sealed::Sealed {}
mod sealed {
    pub trait Sealed {}
}
macro_rules! words {
    ($($t:ty),*) => { $(impl Word for $t {} impl sealed::Sealed for $t {})* };
}
words!(u8, u16, u32, u64, u128);

/// A place that a write probe hit, for read-modify-write. Use it before the next call into `Memory`: later the line may
/// have left the cache, and a `set` would be lost.
pub struct Slot<T: Word> {
    at: *mut T,
    _type: PhantomData<T>,
}

impl<T: Word> Slot<T> {
    /// The current value.
    #[inline(always)]
    pub fn get(&self) -> T {
        // SAFETY: a Slot is only made by `FastTable::slot`, from a pointer to `size_of::<T>()` bytes inside a frame's
        // data. Frames are never freed and are used by one thread (the raw pointer keeps Slot !Send).
        unsafe { self.at.read_unaligned() }
    }

    /// Replaces the value.
    #[inline(always)]
    pub fn set(&self, value: T) {
        // SAFETY: as in `get`; frame data is in an UnsafeCell and no reference into it exists.
        unsafe { self.at.write_unaligned(value) }
    }
}

/// Up to [`Quadwords::MOST`] quadwords side by side that a probe hit, lowest address first. Use it before the next call into
/// `Memory`, as a [`Slot`].
pub struct Quadwords {
    next: *mut u64,
    end: *mut u64,
}

impl Quadwords {
    /// A line's worth: however they lie, they are in two lines at most.
    pub const MOST: usize = LINE_BYTES / 8;

    /// The lowest one that has not been taken.
    #[inline(always)]
    pub fn take_first(&mut self) -> Option<Slot<u64>> {
        if self.next == self.end {
            return None;
        }
        let at = self.next;
        // SAFETY: `next` and `end` are `Self::MOST` quadwords apart at most, in one frame's data, and `next` is below `end`.
        self.next = unsafe { at.add(1) };
        Some(Slot { at, _type: PhantomData })
    }

    /// The highest one that has not been taken.
    #[inline(always)]
    pub fn take_last(&mut self) -> Option<Slot<u64>> {
        if self.next == self.end {
            return None;
        }
        // SAFETY: as in `take_first`.
        self.end = unsafe { self.end.sub(1) };
        Some(Slot { at: self.end, _type: PhantomData })
    }
}

impl FastTable {
    /// A table of empty entries, for a mode that every deny bit keeps out.
    pub fn new() -> Self {
        Self { entries: [FastEntry::empty(); FAST_ENTRIES], mask_r: !0, mask_w: !0 }
    }

    /// Which bits of [`deny`] the reads and the writes of the current mode ask.
    pub fn set_mode(&mut self, read: u64, write: u64) {
        self.mask_r = !deny::ALL | read;
        self.mask_w = !deny::ALL | write;
    }

    #[inline(always)]
    fn index(va: u64) -> usize {
        (va >> 12) as usize & (FAST_ENTRIES - 1)
    }

    /// The host address of `size` bytes at `va`, when a load of the current mode may take it directly.
    /// `size` is 1 to 64; an access that leaves its line always misses.
    #[inline(always)]
    pub fn probe_read(&self, va: u64, size: usize) -> Option<*const u8> {
        let frame = self.line_frame(va, size, self.mask_r)?;
        Self::place(frame, frame.fast_r(), va).map(<*mut u8>::cast_const)
    }

    /// The host address of `size` bytes at `va`, when a store of the current mode may take it directly.
    /// `size` is 1 to 64; an access that leaves its line always misses.
    #[inline(always)]
    pub fn probe_write(&self, va: u64, size: usize) -> Option<*mut u8> {
        let frame = self.line_frame(va, size, self.mask_w)?;
        Self::place(frame, frame.fast_w(), va)
    }

    #[inline(always)]
    fn line_frame(&self, va: u64, size: usize, mask: u64) -> Option<FramePtr> {
        // First, because the compiler would otherwise combine it with the test of the line's bit without a branch.
        if (va as usize & (LINE_BYTES - 1)).saturating_add(size) > LINE_BYTES {
            return None;
        }
        self.frame(va, mask)
    }

    #[inline(always)]
    fn frame(&self, va: u64, mask: u64) -> Option<FramePtr> {
        self.frame_if(va, va & PAGE_MASK, mask)
    }

    /// The frame of an entry's page, if the tag is `tag` under the mask.
    #[inline(always)]
    fn frame_if(&self, va: u64, tag: u64, mask: u64) -> Option<FramePtr> {
        let FastEntry { tag: own, frame } = self.entries[Self::index(va)];
        if (own ^ tag) & mask != 0 {
            return None;
        }
        Some(frame)
    }

    /// The host address of a naturally aligned integer, which lies in one line.
    #[inline(always)]
    fn aligned<T: Word>(&self, va: u64, mask: u64, bits: impl Fn(FramePtr) -> u64) -> Option<*mut u8> {
        let frame = self.frame_if(va, va & (PAGE_MASK | (size_of::<T>() as u64 - 1)), mask)?;
        Self::place(frame, bits(frame), va)
    }

    /// The frame behind `va` when the current mode may read the page, for bulk operations: they test
    /// [`FramePtr::fast_r`] for the lines they want.
    #[inline]
    pub fn page_for_read(&self, va: u64) -> Option<FramePtr> {
        self.frame(va, self.mask_r)
    }

    /// The frame behind `va` when the current mode may write the page, for bulk operations: they test
    /// [`FramePtr::fast_w`] for the lines they want.
    #[inline]
    pub fn page_for_write(&self, va: u64) -> Option<FramePtr> {
        self.frame(va, self.mask_w)
    }

    #[inline(always)]
    fn place(frame: FramePtr, bits: u64, va: u64) -> Option<*mut u8> {
        if bits >> ((va >> 6) & 63) & 1 == 0 {
            return None;
        }
        let offset = Frame::DATA + (va as usize & (PAGE_BYTES - 1));
        // SAFETY: `offset` is below DATA + PAGE_BYTES, inside the frame.
        Some(unsafe { std::ptr::from_ref(frame.0).cast::<u8>().cast_mut().add(offset) })
    }

    /// Loads an integer; `None` when it is not naturally aligned or the access must go the slow way.
    #[inline(always)]
    pub fn load<T: Word>(&self, va: u64) -> Option<T> {
        let at = self.aligned::<T>(va, self.mask_r, FramePtr::fast_r)?.cast::<T>();
        // SAFETY: the probe returned `size_of::<T>()` bytes inside one line of a frame's data, which is never freed.
        Some(unsafe { at.read_unaligned() })
    }

    /// The place of an integer that may be read and written directly; `None` when it is not naturally aligned or the access
    /// must go the slow way. The write permission of a mode implies its read permission (SDM Vol. 3A, "Access Rights").
    #[inline(always)]
    pub fn slot<T: Word>(&self, va: u64) -> Option<Slot<T>> {
        Some(Slot { at: self.aligned::<T>(va, self.mask_w, FramePtr::fast_w)?.cast(), _type: PhantomData })
    }

    /// Stores an integer; false when it is not naturally aligned or the access must go the slow way.
    #[inline(always)]
    pub fn store<T: Word>(&self, va: u64, value: T) -> bool {
        match self.slot(va) {
            Some(slot) => {
                slot.set(value);
                true
            }
            None => false,
        }
    }

    /// Aligned quadwords from `va` on, one and `further & 7` more, if loads of the current mode may take all of them directly.
    #[inline(always)]
    pub fn quadwords_for_read(&self, va: u64, further: u8) -> Option<Quadwords> {
        self.quadwords(va, further, self.mask_r, FramePtr::fast_r)
    }

    /// The same for stores.
    #[inline(always)]
    pub fn quadwords_for_write(&self, va: u64, further: u8) -> Option<Quadwords> {
        self.quadwords(va, further, self.mask_w, FramePtr::fast_w)
    }

    #[inline(always)]
    fn quadwords(&self, va: u64, further: u8, mask: u64, bits: impl Fn(FramePtr) -> u64) -> Option<Quadwords> {
        let further = usize::from(further) & (Quadwords::MOST - 1);
        let last = va.wrapping_add(8 * further as u64);
        // The page of `last` under the index of `va`: two pages with one index are never neighbours, so both are in that page.
        let frame = self.frame_if(va, last & (PAGE_MASK | 7), mask)?;
        let bits = bits(frame);
        Self::place(frame, bits, last)?;
        let next = Self::place(frame, bits, va)?.cast::<u64>();
        // SAFETY: `va` and `last` are aligned and in the page that `frame` has the bytes of, and `further` quadwords apart.
        Some(Quadwords { next, end: unsafe { next.add(further + 1) } })
    }

    /// Loads an integer from anywhere within a line, or `None` when the access must go the slow way.
    #[inline(always)]
    pub fn load_anywhere<T: Word>(&self, va: u64) -> Option<T> {
        let at = self.probe_read(va, size_of::<T>())?.cast::<T>();
        // SAFETY: as in `load`.
        Some(unsafe { at.read_unaligned() })
    }

    /// Stores an integer anywhere within a line; false when the access must go the slow way.
    #[inline(always)]
    pub fn store_anywhere<T: Word>(&self, va: u64, value: T) -> bool {
        let Some(at) = self.probe_write(va, size_of::<T>()) else { return false };
        // SAFETY: the probe returned `size_of::<T>()` bytes inside one line of a frame's data, which is never freed and into
        // which no reference exists.
        unsafe { at.cast::<T>().write_unaligned(value) };
        true
    }

    /// The host address of `len` bytes within one page, if `bits` has all their lines.
    #[inline(always)]
    fn span(&self, va: u64, len: usize, mask: u64, bits: impl Fn(FramePtr) -> u64) -> Option<*mut u8> {
        let offset = va as usize & (PAGE_BYTES - 1);
        if len == 0 || len > PAGE_BYTES - offset {
            return None;
        }
        let frame = self.frame(va, mask)?;
        let (first, last) = (offset / LINE_BYTES, (offset + len - 1) / LINE_BYTES);
        let lines = u64::MAX >> (63 - (last - first)) << first;
        if bits(frame) & lines != lines {
            return None;
        }
        Self::place(frame, lines, va)
    }

    /// Copies `len` bytes (at least one, within one page on each side) as if byte by byte in ascending order, or returns false
    /// when a line of either side must go the slow way. The ranges must not overlap so that the order matters.
    #[inline]
    pub fn copy(&self, from: u64, to: u64, len: usize) -> bool {
        let Some(from) = self.span(from, len, self.mask_r, FramePtr::fast_r) else { return false };
        let Some(to) = self.span(to, len, self.mask_w, FramePtr::fast_w) else { return false };
        // SAFETY: each span is `len` bytes in the page that a frame has the bytes of, which are never freed; `copy` allows the
        // two to overlap.
        unsafe { std::ptr::copy(from.cast_const(), to, len) };
        true
    }

    /// Stores the low `size` bytes (1, 2, 4, 8) of `value` `count` times (at least once) from `to` on, within one page, or returns
    /// false when a line of that must go the slow way.
    #[inline]
    pub fn fill(&self, to: u64, value: u64, size: usize, count: usize) -> bool {
        let len = size * count;
        let Some(at) = self.span(to, len, self.mask_w, FramePtr::fast_w) else { return false };
        // SAFETY: `len` bytes from `to` on are in the page that `frame` has the bytes of. They are never freed, and no other
        // reference to them exists while this one lives.
        let bytes = unsafe { std::slice::from_raw_parts_mut(at, len) };
        let pattern = value.to_le_bytes();
        if pattern[..size].iter().all(|b| *b == pattern[0]) {
            bytes.fill(pattern[0]);
        } else {
            bytes.chunks_exact_mut(size).for_each(|chunk| chunk.copy_from_slice(&pattern[..size]));
        }
        true
    }

    /// [`load`](Self::load) of one byte.
    #[inline(always)]
    pub fn load_u8(&self, va: u64) -> Option<u8> {
        self.load(va)
    }

    /// [`load`](Self::load) of two bytes.
    #[inline(always)]
    pub fn load_u16(&self, va: u64) -> Option<u16> {
        self.load(va)
    }

    /// [`load`](Self::load) of four bytes.
    #[inline(always)]
    pub fn load_u32(&self, va: u64) -> Option<u32> {
        self.load(va)
    }

    /// [`load`](Self::load) of eight bytes.
    #[inline(always)]
    pub fn load_u64(&self, va: u64) -> Option<u64> {
        self.load(va)
    }

    /// [`store`](Self::store) of one byte.
    #[inline(always)]
    pub fn store_u8(&self, va: u64, value: u8) -> bool {
        self.store(va, value)
    }

    /// [`store`](Self::store) of two bytes.
    #[inline(always)]
    pub fn store_u16(&self, va: u64, value: u16) -> bool {
        self.store(va, value)
    }

    /// [`store`](Self::store) of four bytes.
    #[inline(always)]
    pub fn store_u32(&self, va: u64, value: u32) -> bool {
        self.store(va, value)
    }

    /// [`store`](Self::store) of eight bytes.
    #[inline(always)]
    pub fn store_u64(&self, va: u64, value: u64) -> bool {
        self.store(va, value)
    }

    /// Maps the page of `va` to `frame`. `deny_bits` are those of [`deny`] that the translation forbids.
    pub fn install(&mut self, va: u64, deny_bits: u64, frame: FramePtr) {
        self.entries[Self::index(va)] = FastEntry { tag: va & PAGE_MASK | deny_bits & deny::ALL, frame };
    }

    /// Forgets every page.
    pub fn clear(&mut self) {
        self.entries.fill(FastEntry::empty());
    }

    /// Forgets the pages that user-mode code may read.
    pub fn clear_user(&mut self) {
        let empty = FastEntry::empty();
        for entry in &mut self.entries {
            if entry.tag & deny::RU == 0 {
                *entry = empty;
            }
        }
    }

    /// Forgets the page of `va`.
    pub fn clear_page(&mut self, va: u64) {
        let entry = &mut self.entries[Self::index(va)];
        if entry.tag & PAGE_MASK == va & PAGE_MASK {
            *entry = FastEntry::empty();
        }
    }

    /// Forgets every page that shows `frame`.
    pub fn purge_frame(&mut self, frame: FramePtr) {
        let empty = FastEntry::empty();
        for entry in &mut self.entries {
            if entry.frame == frame {
                *entry = empty;
            }
        }
    }
}
