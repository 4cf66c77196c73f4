//! Where RAM is in the physical address space, and what firmware keeps in it.

use crate::log::Size;
use std::fmt;
use std::ops::Range;
use thiserror::Error;

pub const KIB: u64 = 1 << 10;
pub const MIB: u64 = 1 << 20;
pub const GIB: u64 = 1 << 30;
/// Size and alignment of a page.
pub const PAGE: u64 = 4 * KIB;

/// RAM below 4 GiB ends here at the latest; what is between belongs to PCI and to memory-mapped chips.
pub const LOW_RAM_LIMIT: u64 = 3 * GIB;
/// Where RAM goes on above the hole.
pub const HIGH_RAM_BASE: u64 = 4 * GIB;
pub const MIN_RAM: u64 = 64 * MIB;
pub const MAX_RAM: u64 = 8 * GIB;

/// PCI devices get their addresses here: above any low RAM, below the IOAPIC.
pub const PCI_WINDOW: Range<u64> = LOW_RAM_LIMIT..0xFEC0_0000;
pub const IOAPIC_BASE: u64 = 0xFEC0_0000;
pub const LOCAL_APIC_BASE: u64 = 0xFEE0_0000;

/// Conventional memory ends where the extended BIOS data area begins.
pub const EBDA: Range<u64> = 0x9_FC00..0xA_0000;
/// Shadow RAM under the BIOS ROM. The ACPI root pointer is found here by scanning (ACPI 6.4, section 5.2.5.1).
pub const BIOS_AREA: Range<u64> = 0xE_0000..0x10_0000;
/// First address an image may use: above the first MiB with its holes.
pub const IMAGE_BASE: u64 = MIB;
/// Top of low RAM kept for ACPI: tables, which the OS may reclaim, then one page of NVS for the FACS.
pub const ACPI_RESERVE: u64 = 64 * KIB;
/// The non-volatile part at the end of [`ACPI_RESERVE`].
pub const ACPI_NVS: u64 = PAGE;

/// A RAM size that the machine cannot have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum MemoryMapError {
    #[error("-m: {} of RAM; accepted: 64 MiB to 8 GiB", Size(*.0))]
    OutOfRange(u64),
    #[error("-m: {0} bytes of RAM; accepted: a multiple of 4 KiB")]
    NotPages(u64),
}

/// RAM at 0 up to [`MemoryMap::low_top`], and the rest of it at 4 GiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryMap {
    ram: u64,
}

impl MemoryMap {
    /// Lays out `ram` bytes.
    pub fn new(ram: u64) -> Result<MemoryMap, MemoryMapError> {
        if !(MIN_RAM..=MAX_RAM).contains(&ram) {
            return Err(MemoryMapError::OutOfRange(ram));
        }
        if !ram.is_multiple_of(PAGE) {
            return Err(MemoryMapError::NotPages(ram));
        }
        Ok(MemoryMap { ram })
    }

    /// Bytes of RAM in all.
    pub fn ram(&self) -> u64 {
        self.ram
    }

    /// End of the RAM below 4 GiB.
    pub fn low_top(&self) -> u64 {
        self.ram.min(LOW_RAM_LIMIT)
    }

    /// RAM above 4 GiB; empty if all of it fits below.
    pub fn high_ram(&self) -> Range<u64> {
        HIGH_RAM_BASE..HIGH_RAM_BASE + (self.ram - self.low_top())
    }

    /// End of the addresses in use. The MMIO hole counts: the chips below 4 GiB need addresses whatever the RAM size.
    pub fn top(&self) -> u64 {
        self.high_ram().end
    }

    /// Where images may be loaded.
    pub fn image_area(&self) -> Range<u64> {
        IMAGE_BASE..self.acpi_area().start
    }

    /// ACPI tables, reclaimable.
    pub fn acpi_area(&self) -> Range<u64> {
        self.low_top() - ACPI_RESERVE..self.acpi_nvs().start
    }

    /// The FACS, which the OS must leave alone.
    pub fn acpi_nvs(&self) -> Range<u64> {
        self.low_top() - ACPI_NVS..self.low_top()
    }
}

impl fmt::Display for MemoryMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let high = self.high_ram();
        write!(f, "{}", Size(self.ram))?;
        if !high.is_empty() {
            write!(f, " ({} below 4 GiB, {} above)", Size(self.low_top()), Size(high.end - high.start))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ram_beyond_three_gibibytes_continues_at_four() {
        let map = MemoryMap::new(8 * GIB).unwrap();
        assert_eq!(map.low_top(), 3 * GIB);
        assert_eq!(map.high_ram(), 4 * GIB..9 * GIB);
        assert_eq!(map.top(), 9 * GIB);
        let map = MemoryMap::new(512 * MIB).unwrap();
        assert_eq!(map.low_top(), 512 * MIB);
        assert!(map.high_ram().is_empty());
        assert_eq!(map.top(), 4 * GIB);
    }

    #[test]
    fn sizes_outside_the_limits_are_refused_by_name() {
        for ram in [0, MIN_RAM - PAGE, MAX_RAM + PAGE, u64::MAX] {
            assert_eq!(MemoryMap::new(ram), Err(MemoryMapError::OutOfRange(ram)));
        }
        assert_eq!(MemoryMap::new(MIN_RAM + 1), Err(MemoryMapError::NotPages(MIN_RAM + 1)));
        assert!(MemoryMap::new(0).unwrap_err().to_string().contains("64 MiB to 8 GiB"));
    }
}
