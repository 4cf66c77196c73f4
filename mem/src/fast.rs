//! The fast path: a direct-mapped table from virtual page to plaintext frame, embedded in each logical processor.
//!
//! A probe answers "mapped, allowed, cached, and no alias in the way" with one tag compare and one bit test. Everything
//! else is a miss and goes the slow way (design D3). A hit takes 16 to 19 host instructions, most of them moves and
//! masks; the same access through `Memory::touch` takes about 5 ns.
#![allow(unsafe_code)]

use std::marker::PhantomData;

use crate::addr::{LINE_BYTES, PAGE_BYTES};
use crate::frame::{Frame, FramePtr};

/// Entries of a [`FastTable`]: 0.35 % of accesses miss with 1,024 entries; with 4,096 walking directories is 6 % faster.
pub const FAST_ENTRIES: usize = 4096;

/// Deny bits, kept in the low 12 bits of a tag. A mode tests exactly one read and one write bit.
pub mod deny {
    /// Reads by user-mode code.
    pub const RU: u64 = 1 << 0;
    /// Reads by supervisor-mode code while SMAP is in force.
    pub const RS: u64 = 1 << 1;
    /// Reads by supervisor-mode code with RFLAGS.AC = 1 or SMAP off.
    pub const RSA: u64 = 1 << 2;
    /// Writes by user-mode code.
    pub const WU: u64 = 1 << 3;
    /// Writes by supervisor-mode code while SMAP is in force.
    pub const WS: u64 = 1 << 4;
    /// Writes by supervisor-mode code with RFLAGS.AC = 1 or SMAP off.
    pub const WSA: u64 = 1 << 5;
}

const PAGE_MASK: u64 = !(PAGE_BYTES as u64 - 1);
/// No page address equals this tag under a mask that has a deny bit.
const EMPTY_TAG: u64 = !0;

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
    /// `!0xFFF` and the read deny bit of the current mode.
    pub mask_r: u64,
    /// `!0xFFF` and the write deny bit of the current mode.
    pub mask_w: u64,
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

impl FastTable {
    /// A table of empty entries. The masks deny everything until the mode is set.
    pub fn new() -> Self {
        Self { entries: [FastEntry::empty(); FAST_ENTRIES], mask_r: !0, mask_w: !0 }
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
        let entry = &self.entries[Self::index(va)];
        if (entry.tag ^ (va & PAGE_MASK)) & mask != 0 {
            return None;
        }
        Some(entry.frame)
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

    /// Loads an integer, or `None` when the access must go the slow way.
    #[inline(always)]
    pub fn load<T: Word>(&self, va: u64) -> Option<T> {
        let at = self.probe_read(va, size_of::<T>())?.cast::<T>();
        // SAFETY: the probe returned `size_of::<T>()` bytes inside one line of a frame's data, which is never freed.
        Some(unsafe { at.read_unaligned() })
    }

    /// The place of an integer that may be read and written directly, or `None` when the access must go the slow way.
    /// The write permission of a mode implies its read permission (SDM Vol. 3A, "Access Rights").
    #[inline(always)]
    pub fn slot<T: Word>(&self, va: u64) -> Option<Slot<T>> {
        Some(Slot { at: self.probe_write(va, size_of::<T>())?.cast(), _type: PhantomData })
    }

    /// Stores an integer; false when the access must go the slow way.
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

    /// Copies `len` bytes (1 to 64, within one line on each side) as if byte by byte in ascending order, or returns false
    /// when either side must go the slow way. The ranges must not overlap so that the order matters.
    #[inline]
    pub fn copy(&self, from: u64, to: u64, len: usize) -> bool {
        let (Some(from), Some(to)) = (self.probe_read(from, len), self.probe_write(to, len)) else { return false };
        // SAFETY: each probe returned `len` bytes inside one line of a frame's data, which is never freed; `copy` allows the
        // two to overlap.
        unsafe { std::ptr::copy(from, to, len) };
        true
    }

    /// Stores the low `size` bytes (1, 2, 4, 8) of `value` `count` times from `to` on, within one line, or returns false when
    /// that must go the slow way.
    #[inline]
    pub fn fill(&self, to: u64, value: u64, size: usize, count: usize) -> bool {
        let Some(at) = self.probe_write(to, size * count) else { return false };
        let bytes = value.to_le_bytes();
        // SAFETY: the probe returned `size * count` bytes inside one line of a frame's data, which is never freed and of
        // which no other reference exists while this one lives.
        let line = unsafe { std::slice::from_raw_parts_mut(at, size * count) };
        if size == 1 {
            line.fill(bytes[0]);
        } else {
            line.chunks_exact_mut(size).for_each(|chunk| chunk.copy_from_slice(&bytes[..size]));
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
        self.entries[Self::index(va)] = FastEntry { tag: va & PAGE_MASK | deny_bits & !PAGE_MASK, frame };
    }

    /// Forgets every page.
    pub fn clear(&mut self) {
        self.entries.fill(FastEntry::empty());
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
