//! Which physical addresses are RAM.
//!
//! As on PC chipsets: RAM from 0 up to the hole below 4 GiB that memory-mapped registers need; the rest of it from
//! 4 GiB on. Everything else belongs to the platform.

use crate::addr::{LineAddr, PAGE_BYTES, PAGE_SHIFT, PhysAddr};

/// End of low RAM at most: 1 GiB below 4 GiB stay free for memory-mapped registers.
pub const LOW_TOP_MAX: u64 = 0xC000_0000;
/// Where RAM goes on above the hole.
pub const HIGH_BASE: u64 = 1 << 32;

/// A contiguous range of RAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RamRegion {
    pub base: PhysAddr,
    pub bytes: u64,
}

/// The RAM of the machine and its numbering: pages are counted without the hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressMap {
    low_bytes: u64,
    high_bytes: u64,
}

impl AddressMap {
    /// The map of `ram_bytes` of RAM, rounded down to whole pages.
    pub const fn new(ram_bytes: u64) -> Self {
        let bytes = ram_bytes & !(PAGE_BYTES as u64 - 1);
        let low_bytes = if bytes < LOW_TOP_MAX { bytes } else { LOW_TOP_MAX };
        Self { low_bytes, high_bytes: bytes - low_bytes }
    }

    /// RAM in bytes.
    pub const fn ram_bytes(&self) -> u64 {
        self.low_bytes + self.high_bytes
    }

    /// First address above all RAM.
    pub const fn top(&self) -> PhysAddr {
        PhysAddr(if self.high_bytes > 0 { HIGH_BASE + self.high_bytes } else { self.low_bytes })
    }

    /// The ranges of RAM in address order; the second is empty on machines without RAM above 4 GiB.
    pub const fn regions(&self) -> [RamRegion; 2] {
        [
            RamRegion { base: PhysAddr(0), bytes: self.low_bytes },
            RamRegion { base: PhysAddr(HIGH_BASE), bytes: self.high_bytes },
        ]
    }

    /// True for RAM.
    #[inline(always)]
    pub const fn is_ram(&self, address: PhysAddr) -> bool {
        self.page_index(address).is_some()
    }

    /// Number of 4 KiB pages of RAM.
    pub(crate) const fn pages(&self) -> usize {
        (self.ram_bytes() >> PAGE_SHIFT) as usize
    }

    /// Number of the RAM page that holds this address; `None` outside RAM.
    #[inline(always)]
    pub(crate) const fn page_index(&self, address: PhysAddr) -> Option<u32> {
        if address.0 < self.low_bytes {
            Some((address.0 >> PAGE_SHIFT) as u32)
        } else if address.0.wrapping_sub(HIGH_BASE) < self.high_bytes {
            Some(((address.0 - HIGH_BASE + self.low_bytes) >> PAGE_SHIFT) as u32)
        } else {
            None
        }
    }

    /// The first address of a page of RAM, by its number.
    pub(crate) const fn page_address(&self, page: u32) -> PhysAddr {
        let at = (page as u64) << PAGE_SHIFT;
        PhysAddr(if at < self.low_bytes { at } else { HIGH_BASE + (at - self.low_bytes) })
    }

    /// Page number and line in the page; `None` outside RAM.
    #[inline(always)]
    pub(crate) const fn locate(&self, line: LineAddr) -> Option<(u32, u32)> {
        match self.page_index(line.start()) {
            Some(page) => Some((page, line.start().line_in_page())),
            None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ram_above_the_hole_continues_at_4_gib() {
        let map = AddressMap::new(4 << 30);
        assert!(map.is_ram(PhysAddr(LOW_TOP_MAX - 1)));
        assert!(!map.is_ram(PhysAddr(LOW_TOP_MAX)));
        assert!(!map.is_ram(PhysAddr(HIGH_BASE - 1)));
        assert!(map.is_ram(PhysAddr(HIGH_BASE)));
        assert_eq!(map.top(), PhysAddr(HIGH_BASE + (1 << 30)));
        assert!(!map.is_ram(map.top()));
    }

    #[test]
    fn page_numbers_have_no_gap() {
        let map = AddressMap::new(LOW_TOP_MAX + 2 * PAGE_BYTES as u64);
        for (address, index) in
            [(0, 0), (LOW_TOP_MAX - 1, 0xBFFFF), (HIGH_BASE, 0xC0000), (HIGH_BASE + 0x1FFF, 0xC0001)]
        {
            assert_eq!(map.page_index(PhysAddr(address)), Some(index));
            assert_eq!(map.page_address(index), PhysAddr(address & !0xFFF));
        }
        assert_eq!(map.pages(), 0xC0002);
    }
}
