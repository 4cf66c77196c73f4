//! The states in which images are entered, and what firmware leaves in memory for them.

use crate::memory_map::{GIB, MIB, PAGE};
use crate::platform::{BootCpu, DescriptorTable, EntryState, gpr};
use x86::cr::{cr0, cr4, efer};
use x86::flags;
use x86::segment::{Segment, ar, sreg};

/// What firmware keeps in conventional memory for the hand-over.
pub mod layout {
    use std::ops::Range;

    /// First byte behind the interrupt vectors and the BIOS data area (and what boot sectors use of it).
    pub const LOWEST: u64 = 0x500;
    pub const GDT: u64 = 0x6000;
    pub const ZERO_PAGE: u64 = 0x7000;
    /// One page below this is free for whoever needs a stack before having one.
    pub const STACK_TOP: u64 = 0x9000;
    /// PML4, PDPT, then four page directories: 4 GiB in 2 MiB pages.
    pub const PAGE_TABLES: u64 = 0x9000;
    /// Boot information of Multiboot and PVH.
    pub const INFO: Range<u64> = 0x1_0000..0x9_0000;
    /// Command line of the zero page, with its NUL.
    pub const COMMAND_LINE: Range<u64> = 0x2_0000..0x3_0000;
    /// End of everything that goes with the zero page.
    pub const LINUX_END: u64 = COMMAND_LINE.end;
}

/// Selectors of code and data: Linux' __BOOT_CS and __BOOT_DS, used for every protocol that leaves the choice.
const BOOT_CS: u16 = 0x10;
const BOOT_DS: u16 = 0x18;

/// Flat segments with limit 4 GiB, accessed bits set (SDM Vol. 3A, section 3.4.5).
mod descriptor {
    pub const CODE_64: u64 = 0x00AF_9B00_0000_FFFF;
    pub const CODE_32: u64 = 0x00CF_9B00_0000_FFFF;
    pub const DATA: u64 = 0x00CF_9300_0000_FFFF;
}

/// Null, unused, code, data.
type Gdt = [u64; 4];
const GDT_64: Gdt = [0, 0, descriptor::CODE_64, descriptor::DATA];
const GDT_32: Gdt = [0, 0, descriptor::CODE_32, descriptor::DATA];

/// Page-table bits (SDM Vol. 3A, section 4.5).
const PRESENT_WRITABLE: u64 = 0b11;
const PAGE_SIZE: u64 = 1 << 7;
const LARGE_PAGE: u64 = 2 * MIB;
const ENTRIES: u64 = 512;
const MAPPED_GIB: u64 = 4;

/// Real-address mode as a BIOS leaves it to a boot sector.
mod real {
    pub const IVT: u64 = 0;
    pub const IVT_LIMIT: u16 = 0x3FF;
    pub const SEGMENT_LIMIT: u32 = 0xFFFF;
    /// DL: the first hard disk.
    pub const BOOT_DRIVE: u64 = 0x80;
}

/// 32-bit TSS, busy, at 0, as PVH wants TR to be.
const PVH_TSS_TYPE: u32 = 0xB;
const PVH_TSS_LIMIT: u32 = 0x67;

/// 64-bit mode with the first 4 GiB mapped to themselves (Linux Documentation/arch/x86/boot.rst, "64-bit boot protocol").
/// Writes GDT and page tables.
pub fn long64(cpu: &mut dyn BootCpu, entry: u64) -> EntryState {
    write_gdt(cpu, &GDT_64);
    write_page_tables(cpu);
    EntryState {
        cr0: cr0::PE | cr0::MP | cr0::ET | cr0::NE | cr0::WP | cr0::PG,
        cr3: layout::PAGE_TABLES,
        cr4: cr4::PAE,
        efer: efer::LME | efer::LMA,
        ..flat_segments(entry, &GDT_64)
    }
}

/// Protected mode, paging off, flat 32-bit segments, interrupts off: what Multiboot 1 (section 3.2), Multiboot 2 (section
/// 3.3), PVH and Linux' 32-bit boot protocol have in common. Writes the GDT.
pub fn prot32(cpu: &mut dyn BootCpu, entry: u64) -> EntryState {
    write_gdt(cpu, &GDT_32);
    EntryState { cr0: cr0::PE | cr0::ET, cr3: 0, cr4: 0, efer: 0, ..flat_segments(entry, &GDT_32) }
}

/// TR as PVH has it (Xen docs/misc/pvh.pandoc).
pub fn pvh_task_register() -> Segment {
    Segment { selector: 0, ar: ar::P | PVH_TSS_TYPE, limit: PVH_TSS_LIMIT, base: 0 }
}

/// Real-address mode at `address`, which is below 1 MiB: 0:7C00 for a boot sector.
pub fn real16(address: u64) -> EntryState {
    // Offsets from segment 0 as far as they reach: boot sectors take 0:7C00 for granted.
    let (selector, offset) =
        if address <= u64::from(u16::MAX) { (0, address) } else { ((address >> 4) as u16, address & 0xF) };
    let segment =
        |selector: u16, ar: u32| Segment { selector, ar, limit: real::SEGMENT_LIMIT, base: u64::from(selector) << 4 };
    let data = ar::P | ar::S | ar::RW | ar::ACCESSED;
    let mut segments = [segment(0, data); 6];
    segments[sreg::CS] = segment(selector, data | ar::CODE);
    let mut registers = [0; 16];
    registers[gpr::RDX] = real::BOOT_DRIVE;
    registers[gpr::RSP] = address & !0xF & u64::from(u16::MAX);
    EntryState {
        gpr: registers,
        rip: offset,
        rflags: flags::FIXED,
        cr0: cr0::ET,
        cr3: 0,
        cr4: 0,
        efer: 0,
        segments,
        tr: None,
        gdtr: DescriptorTable { base: 0, limit: u16::MAX },
        idtr: DescriptorTable { base: real::IVT, limit: real::IVT_LIMIT },
    }
}

/// Everything but the control registers.
fn flat_segments(entry: u64, gdt: &Gdt) -> EntryState {
    let segment = |selector: u16| Segment::from_descriptor(selector, gdt[usize::from(selector / 8)]);
    let mut segments = [segment(BOOT_DS); 6];
    segments[sreg::CS] = segment(BOOT_CS);
    let mut registers = [0; 16];
    registers[gpr::RSP] = layout::STACK_TOP;
    EntryState {
        gpr: registers,
        rip: entry,
        rflags: flags::FIXED,
        cr0: 0,
        cr3: 0,
        cr4: 0,
        efer: 0,
        segments,
        tr: None,
        gdtr: DescriptorTable { base: layout::GDT, limit: size_of::<Gdt>() as u16 - 1 },
        // No handlers: an exception before the image has its own IDT is a triple fault.
        idtr: DescriptorTable::default(),
    }
}

fn write_gdt(cpu: &mut dyn BootCpu, gdt: &Gdt) {
    let bytes: Vec<u8> = gdt.iter().flat_map(|d| d.to_le_bytes()).collect();
    cpu.write_phys(layout::GDT, &bytes);
}

/// Identity page tables of the first 4 GiB.
fn write_page_tables(cpu: &mut dyn BootCpu) {
    let pdpt = layout::PAGE_TABLES + PAGE;
    let directory = |gib: u64| pdpt + PAGE * (1 + gib);
    let mut tables = vec![0u64; ((2 + MAPPED_GIB) * ENTRIES) as usize];
    tables[0] = pdpt | PRESENT_WRITABLE;
    for gib in 0..MAPPED_GIB {
        tables[(ENTRIES + gib) as usize] = directory(gib) | PRESENT_WRITABLE;
    }
    for n in 0..MAPPED_GIB * GIB / LARGE_PAGE {
        tables[(2 * ENTRIES + n) as usize] = (n * LARGE_PAGE) | PRESENT_WRITABLE | PAGE_SIZE;
    }
    let bytes: Vec<u8> = tables.iter().flat_map(|entry| entry.to_le_bytes()).collect();
    cpu.write_phys(layout::PAGE_TABLES, &bytes);
}
