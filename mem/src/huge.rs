//! Host memory for what is touched all the time and never given back, in huge pages where the host has them, and its prefetch.
//!
//! Frames and decoded blocks are walked at random over tens of MiB: with 4-KiB pages the host's own TLB misses cost more
//! than its caches'.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc, handle_alloc_error};
use std::ptr::NonNull;

/// Asks the host to bring the line at `at` into its caches. Nothing waits for it, and any address will do.
#[inline(always)]
pub(crate) fn prefetch<T>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: PREFETCHT0 is part of SSE, which every x86-64 host has; it changes nothing and never faults.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Size and alignment of a huge page.
pub const HUGE_PAGE: usize = 2 << 20;

/// `count` values made by `make`, for the rest of the process, starting at a huge page.
pub fn leak<T>(count: usize, make: impl Fn() -> T) -> &'static [T] {
    let layout = Layout::array::<T>(count).and_then(|layout| layout.align_to(HUGE_PAGE));
    let Ok(layout) = layout.map(|layout| layout.pad_to_align()) else { panic!("{count} values are more than memory") };
    if layout.size() == 0 {
        return &[];
    }
    // SAFETY: the layout's size is not zero.
    let Some(start) = NonNull::new(unsafe { alloc(layout) }) else { handle_alloc_error(layout) };
    // A kernel without huge pages refuses, which costs nothing but the gain.
    #[cfg(target_os = "linux")]
    // SAFETY: the range is the allocation just made, nobody else's; the advice does not change its contents.
    let _ = unsafe { rustix::mm::madvise(start.as_ptr().cast(), layout.size(), rustix::mm::Advice::LinuxHugepage) };
    let start = start.cast::<T>();
    for at in 0..count {
        // SAFETY: `at` is below `count`, so the place is inside the allocation, which is aligned for T and ours alone.
        unsafe { start.add(at).write(make()) };
    }
    // SAFETY: all `count` values were just written; the allocation is never freed and only this slice refers to it.
    unsafe { std::slice::from_raw_parts(start.as_ptr(), count) }
}
