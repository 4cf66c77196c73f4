//! The memory map for the operating system (ACPI 6.4, section 15.1; types: table 15.2).
//!
//! TME removes nothing from it (MK specification, section 7.4).

use crate::log::Span;
use crate::memory_map::{BIOS_AREA, EBDA, IOAPIC_BASE, LOCAL_APIC_BASE, MIB, MemoryMap, PAGE};
use std::fmt;
use std::ops::Range;

/// What a range is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum E820Type {
    Ram = 1,
    Reserved = 2,
    /// ACPI tables; RAM once the OS has read them.
    Acpi = 3,
    /// ACPI non-volatile storage; never RAM for the OS.
    Nvs = 4,
}

/// One range `[start, end)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct E820Entry {
    pub range: Range<u64>,
    pub kind: E820Type,
}

impl E820Entry {
    /// Size of an entry in the zero page.
    pub const BYTES: usize = 20;

    /// The entry as the boot protocol has it: start, length, type, all little-endian.
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[0..8].copy_from_slice(&self.range.start.to_le_bytes());
        bytes[8..16].copy_from_slice(&(self.range.end - self.range.start).to_le_bytes());
        bytes[16..20].copy_from_slice(&(self.kind as u32).to_le_bytes());
        bytes
    }
}

impl fmt::Display for E820Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            E820Type::Ram => "RAM",
            E820Type::Reserved => "reserved",
            E820Type::Acpi => "ACPI data",
            E820Type::Nvs => "ACPI NVS",
        };
        write!(f, "{} {kind}", Span::new(&self.range))
    }
}

/// The ranges in ascending order, without overlaps.
pub fn table(memory: &MemoryMap) -> Vec<E820Entry> {
    let entry = |range, kind| E820Entry { range, kind };
    let mut table = vec![
        entry(0..EBDA.start, E820Type::Ram),
        entry(EBDA, E820Type::Reserved),
        entry(BIOS_AREA, E820Type::Reserved),
        entry(MIB..memory.acpi_area().start, E820Type::Ram),
        entry(memory.acpi_area(), E820Type::Acpi),
        entry(memory.acpi_nvs(), E820Type::Nvs),
        entry(IOAPIC_BASE..IOAPIC_BASE + PAGE, E820Type::Reserved),
        entry(LOCAL_APIC_BASE..LOCAL_APIC_BASE + PAGE, E820Type::Reserved),
    ];
    if !memory.high_ram().is_empty() {
        table.push(entry(memory.high_ram(), E820Type::Ram));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory_map::GIB;

    #[test]
    fn ranges_ascend_and_hold_all_ram_but_the_vga_hole() {
        for ram in [64 * MIB, 512 * MIB, 3 * GIB, 8 * GIB] {
            let memory = MemoryMap::new(ram).unwrap();
            let table = table(&memory);
            assert!(table.windows(2).all(|w| w[0].range.end <= w[1].range.start));
            let in_ram = |e: &&E820Entry| e.range.end <= memory.low_top() || e.range.start >= 4 * GIB;
            let covered: u64 = table.iter().filter(in_ram).map(|e| e.range.end - e.range.start).sum();
            assert_eq!(covered, ram - (0xE_0000 - 0xA_0000));
        }
    }
}
