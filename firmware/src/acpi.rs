//! ACPI tables (ACPI 6.4): RSDP, XSDT, FADT, FACS, MADT, DSDT.
//!
//! They describe what the machine has and, as important, what it has not: no keyboard controller, no VGA, no HPET, so that an
//! operating system does not spend its boot on probing.

use crate::chipset::{pm, rtc};
use crate::log::Span;
use crate::memory_map::{BIOS_AREA, IOAPIC_BASE, LOCAL_APIC_BASE, MemoryMap, PCI_WINDOW};
use crate::platform::BootCpu;
use acpi_tables::aml;
use acpi_tables::facs::FACS;
use acpi_tables::fadt::{FADTBuilder, Flags, PmProfile};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use acpi_tables::{Aml, AmlSink};
use std::fmt;
use std::ops::Range;

/// Where the root pointer is: on a 16-byte boundary of the BIOS area.
pub const RSDP_ADDRESS: u64 = BIOS_AREA.start;
/// Its length in revision 2 (section 5.2.5.3).
pub const RSDP_BYTES: usize = 36;

const OEM_ID: [u8; 6] = *b"MKTME ";
const OEM_TABLE_ID: [u8; 8] = *b"MKTMEEMU";
const OEM_REVISION: u32 = 1;
/// Table length before anything is appended.
const SDT_HEADER: u32 = 36;
/// The FACS wants 64 bytes (section 5.2.10); the others get the same.
const TABLE_ALIGN: u64 = 64;

/// FADT fields (section 5.2.9).
mod fadt {
    /// IAPC_BOOT_ARCH (table 5.11). Bits that stay clear: 8042, MSI not supported, CMOS RTC not present.
    pub const LEGACY_DEVICES: u16 = 1 << 0;
    pub const VGA_NOT_PRESENT: u16 = 1 << 2;
    /// Latencies above these limits (100 and 1000 us) say that C2 and C3 are not supported.
    pub const NO_C2: u16 = 0xFFFF;
    pub const NO_C3: u16 = 0xFFFF;
    pub const PM1_EVT_LEN: u8 = 4;
    pub const PM1_CNT_LEN: u8 = 2;
    pub const PM_TMR_LEN: u8 = 4;
}

/// MADT (section 5.2.12).
mod madt {
    pub const REVISION: u8 = 5;
    /// A dual 8259 is present.
    pub const PCAT_COMPAT: u32 = 1;
    pub const LOCAL_APIC: u8 = 0;
    pub const IO_APIC: u8 = 1;
    pub const INTERRUPT_SOURCE_OVERRIDE: u8 = 2;
    pub const LOCAL_APIC_NMI: u8 = 4;
    pub const ENABLED: u32 = 1;
    /// The IOAPIC's ID register as reset leaves it.
    pub const IOAPIC_ID: u8 = 0;
    pub const BUS_ISA: u8 = 0;
    pub const ALL_PROCESSORS: u8 = 0xFF;
    pub const LINT1: u8 = 1;
    /// MPS INTI flags (table 5.26).
    pub const CONFORMS: u16 = 0;
    pub const ACTIVE_HIGH_LEVEL: u16 = 0b11_01;
    /// The timer's ISA interrupt and the IOAPIC input that it is wired to.
    pub const PIT_IRQ: u8 = 0;
    pub const PIT_GSI: u32 = 2;
}

/// DSDT contents.
mod dsdt {
    /// Revision 2: 64-bit integers.
    pub const REVISION: u8 = 2;
    /// PM1_CNT.SLP_TYP that powers the machine off.
    pub const SLP_TYP_S5: u8 = 5;
    pub const COM1_BASE: u16 = 0x3F8;
    pub const COM1_IRQ: u32 = 4;
    pub const RTC_BASE: u16 = 0x70;
    pub const RTC_IRQ: u32 = 8;
    pub const PCI_CONFIG: u16 = 0xCF8;
    /// The slot of the DMA test device, all functions (section 6.2.13), filled or not, and the IOAPIC input it is wired to.
    pub const DMA_DEVICE: u32 = 0x0001_FFFF;
    pub const INTA: u8 = 0;
    pub const DMA_DEVICE_GSI: u8 = 16;
}

/// All tables with their addresses, ready to be written.
#[derive(Debug, Clone)]
pub struct AcpiTables {
    tables: Vec<(u64, Vec<u8>)>,
    area: Range<u64>,
}

impl AcpiTables {
    /// Builds the tables for `processors` logical processors with APIC IDs from 0.
    pub fn build(memory: &MemoryMap, processors: u8) -> AcpiTables {
        let area = memory.acpi_area();
        let mut placed = AcpiTables { tables: Vec::new(), area: area.start..area.start };
        let facs = memory.acpi_nvs().start;
        placed.tables.push((facs, bytes(&FACS::new())));

        let dsdt = placed.place(dsdt_table(processors).as_slice().to_vec());
        let fadt = placed.place(fadt_table(facs, dsdt));
        let madt = placed.place(madt_table(processors).as_slice().to_vec());
        let mut xsdt = XSDT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
        xsdt.add_entry(fadt);
        xsdt.add_entry(madt);
        let xsdt = placed.place(bytes(&xsdt));
        placed.tables.push((RSDP_ADDRESS, bytes(&Rsdp::new(OEM_ID, xsdt))));
        placed
    }

    /// Puts a table behind those before it. At most 255 processors fit several times over.
    fn place(&mut self, table: Vec<u8>) -> u64 {
        let address = self.area.end;
        self.area.end = (address + table.len() as u64).next_multiple_of(TABLE_ALIGN);
        self.tables.push((address, table));
        address
    }

    /// Writes them to memory.
    pub fn write(&self, cpu: &mut dyn BootCpu) {
        for (address, bytes) in &self.tables {
            cpu.write_phys(*address, bytes);
        }
    }

    /// (address, bytes) of each table.
    pub fn tables(&self) -> &[(u64, Vec<u8>)] {
        &self.tables
    }
}

impl fmt::Display for AcpiTables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "root pointer {RSDP_ADDRESS:05X}, tables {}", Span::new(&self.area))
    }
}

fn bytes(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

fn fadt_table(facs: u64, dsdt: u64) -> Vec<u8> {
    let io = |address: u16, bytes: u8, access| GAS::new(AddressSpace::SystemIo, bytes * 8, 0, access, address.into());
    let mut table = FADTBuilder::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION)
        .preferred_pm_profile(PmProfile::EnterpriseServer)
        .flag(Flags::Wbinvd)
        .flag(Flags::ProcC1)
        // These two mean that the buttons are *not* fixed hardware; there are none at all.
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton)
        // FIX_RTC stays clear: PM1_STS and PM1_EN have the RTC's bits.
        .flag(Flags::TmrValExt)
        .flag(Flags::ResetRegSup)
        .flag(Flags::Headless);
    // Below 4 GiB both, so that readers of either width find them. With SMI_CMD = 0 the machine is always in ACPI mode.
    table.firmware_ctrl = (facs as u32).into();
    table.dsdt = (dsdt as u32).into();
    table.x_dsdt = dsdt.into();
    table.sci_int = u16::from(pm::SCI_IRQ).into();
    table.pm1a_evt_blk = u32::from(pm::PM1A_EVT).into();
    table.pm1a_cnt_blk = u32::from(pm::PM1A_CNT).into();
    table.pm_tmr_blk = u32::from(pm::PM_TMR).into();
    table.pm1_evt_len = fadt::PM1_EVT_LEN;
    table.pm1_cnt_len = fadt::PM1_CNT_LEN;
    table.pm_tmr_len = fadt::PM_TMR_LEN;
    table.x_pm1a_evt_blk = io(pm::PM1A_EVT, fadt::PM1_EVT_LEN, AccessSize::WordAccess);
    table.x_pm1a_cnt_blk = io(pm::PM1A_CNT, fadt::PM1_CNT_LEN, AccessSize::WordAccess);
    table.x_pm_tmr_blk = io(pm::PM_TMR, fadt::PM_TMR_LEN, AccessSize::DwordAccess);
    table.p_lvl2_lat = fadt::NO_C2.into();
    table.p_lvl3_lat = fadt::NO_C3.into();
    table.century = rtc::CENTURY;
    table.iapc_boot_arch = (fadt::LEGACY_DEVICES | fadt::VGA_NOT_PRESENT).into();
    table.reset_reg = io(pm::RESET, 1, AccessSize::ByteAccess);
    table.reset_value = pm::RESET_VALUE;
    bytes(&table.finalize())
}

fn madt_table(processors: u8) -> Sdt {
    let mut table = Sdt::new(*b"APIC", SDT_HEADER, madt::REVISION, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    let mut body = Vec::new();
    body.dword(LOCAL_APIC_BASE as u32);
    body.dword(madt::PCAT_COMPAT);
    for id in 0..processors {
        // Type, length, processor UID, APIC ID, flags.
        body.vec(&[madt::LOCAL_APIC, 8, id, id]);
        body.dword(madt::ENABLED);
    }
    // Type, length, ID, reserved, address, first GSI.
    body.vec(&[madt::IO_APIC, 12, madt::IOAPIC_ID, 0]);
    body.dword(IOAPIC_BASE as u32);
    body.dword(0);
    for (irq, gsi, flags) in
        [(madt::PIT_IRQ, madt::PIT_GSI, madt::CONFORMS), (pm::SCI_IRQ, u32::from(pm::SCI_IRQ), madt::ACTIVE_HIGH_LEVEL)]
    {
        // Type, length, bus, source, GSI, flags.
        body.vec(&[madt::INTERRUPT_SOURCE_OVERRIDE, 10, madt::BUS_ISA, irq]);
        body.dword(gsi);
        body.word(flags);
    }
    // Type, length, processor UID, flags, LINT.
    body.vec(&[madt::LOCAL_APIC_NMI, 6, madt::ALL_PROCESSORS]);
    body.word(madt::CONFORMS);
    body.byte(madt::LINT1);
    table.append_slice(&body);
    table
}

fn dsdt_table(processors: u8) -> Sdt {
    let mut table = Sdt::new(*b"DSDT", SDT_HEADER, dsdt::REVISION, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    let s5 = aml::Package::new(vec![&dsdt::SLP_TYP_S5, &aml::ZERO, &aml::ZERO, &aml::ZERO]);
    table.append_slice(&bytes(&aml::Name::new("\\_S5_".into(), &s5)));

    let mut devices = Vec::new();
    for id in 0..processors {
        processor_device(id).iter().for_each(|b| devices.push(*b));
    }
    devices.extend(pci_host_bridge());
    // COM1: 16550-compatible serial port.
    devices.extend(isa_device("COM1", "PNP0501", &[(dsdt::COM1_BASE, 8)], Some(dsdt::COM1_IRQ)));
    // AT real-time clock.
    devices.extend(isa_device("RTC0", "PNP0B00", &[(dsdt::RTC_BASE, 2)], Some(dsdt::RTC_IRQ)));
    // Motherboard resources: power management.
    let pm_length = (pm::END - pm::PM1A_EVT) as u8;
    devices.extend(isa_device("MBRD", "PNP0C02", &[(pm::PM1A_EVT, pm_length)], None));
    table.append_slice(&aml::Scope::raw("\\_SB_".into(), devices));
    table
}

/// Processor device (section 8.4); its _UID is the processor UID of the MADT.
fn processor_device(id: u8) -> Vec<u8> {
    let name = format!("CP{id:02X}");
    let hid = aml::Name::new("_HID".into(), &"ACPI0007");
    let uid = aml::Name::new("_UID".into(), &id);
    bytes(&aml::Device::new(name.as_str().into(), vec![&hid, &uid]))
}

/// The host bridge. A conventional PCI one (PNP0A03), since configuration space is reached by ports CF8H/CFCH only.
fn pci_host_bridge() -> Vec<u8> {
    let hid = aml::Name::new("_HID".into(), &aml::EISAName::new("PNP0A03"));
    let uid = aml::Name::new("_UID".into(), &aml::ZERO);
    let bbn = aml::Name::new("_BBN".into(), &aml::ZERO);
    let seg = aml::Name::new("_SEG".into(), &aml::ZERO);
    let buses = aml::AddressSpace::new_bus_number(0u16, 0xFF);
    let config = aml::IO::new(dsdt::PCI_CONFIG, dsdt::PCI_CONFIG, 1, 8);
    let io_below = aml::AddressSpace::new_io(0u16, dsdt::PCI_CONFIG - 1, None);
    let io_above = aml::AddressSpace::new_io(dsdt::PCI_CONFIG + 8, 0xFFFF, None);
    let memory = aml::AddressSpace::new_memory(
        aml::AddressSpaceCacheable::NotCacheable,
        true,
        PCI_WINDOW.start as u32,
        (PCI_WINDOW.end - 1) as u32,
        None,
    );
    let resources = aml::ResourceTemplate::new(vec![&buses, &config, &io_below, &io_above, &memory]);
    let crs = aml::Name::new("_CRS".into(), &resources);
    let route = aml::Package::new(vec![&dsdt::DMA_DEVICE, &dsdt::INTA, &aml::ZERO, &dsdt::DMA_DEVICE_GSI]);
    let routes = aml::Package::new(vec![&route]);
    let prt = aml::Name::new("_PRT".into(), &routes);
    bytes(&aml::Device::new("PCI0".into(), vec![&hid, &uid, &bbn, &seg, &crs, &prt]))
}

/// A device with fixed ports (base, length) and perhaps an edge-triggered interrupt.
fn isa_device(name: &str, hid: &str, ports: &[(u16, u8)], irq: Option<u32>) -> Vec<u8> {
    let hid = aml::Name::new("_HID".into(), &aml::EISAName::new(hid));
    let uid = aml::Name::new("_UID".into(), &aml::ZERO);
    let ports: Vec<aml::IO> = ports.iter().map(|&(base, length)| aml::IO::new(base, base, 1, length)).collect();
    let interrupt = irq.map(|gsi| aml::Interrupt::new(true, true, false, false, gsi));
    let mut resources: Vec<&dyn Aml> = ports.iter().map(|p| p as &dyn Aml).collect();
    resources.extend(interrupt.as_ref().map(|i| i as &dyn Aml));
    let crs = aml::Name::new("_CRS".into(), &aml::ResourceTemplate::new(resources));
    bytes(&aml::Device::new(name.into(), vec![&hid, &uid, &crs]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory_map::{GIB, MIB};

    fn find<'a>(tables: &'a AcpiTables, signature: &[u8]) -> &'a (u64, Vec<u8>) {
        tables.tables().iter().find(|(_, bytes)| bytes.starts_with(signature)).unwrap()
    }

    fn u32_at(bytes: &[u8], offset: usize) -> u32 {
        u32::from_le_bytes(bytes[offset..offset + 4].try_into().unwrap())
    }

    fn u64_at(bytes: &[u8], offset: usize) -> u64 {
        u64::from_le_bytes(bytes[offset..offset + 8].try_into().unwrap())
    }

    #[test]
    fn every_table_sums_to_zero_and_lies_where_e820_says() {
        for (ram, processors) in [(64 * MIB, 1), (8 * GIB, 255)] {
            let memory = MemoryMap::new(ram).unwrap();
            let tables = AcpiTables::build(&memory, processors);
            for (address, bytes) in tables.tables() {
                let end = address + bytes.len() as u64;
                if bytes.starts_with(b"FACS") {
                    assert!(memory.acpi_nvs().start <= *address && end <= memory.acpi_nvs().end);
                    continue;
                }
                assert_eq!(bytes.iter().fold(0u8, |sum, b| sum.wrapping_add(*b)), 0);
                if bytes.starts_with(b"RSD PTR ") {
                    assert!(BIOS_AREA.start <= *address && end <= BIOS_AREA.end && address % 16 == 0);
                } else {
                    assert!(memory.acpi_area().start <= *address && end <= memory.acpi_area().end);
                    assert_eq!(u32_at(bytes, 4) as usize, bytes.len());
                }
            }
        }
    }

    #[test]
    fn pointers_lead_from_the_root_to_the_dsdt() {
        let tables = AcpiTables::build(&MemoryMap::new(512 * MIB).unwrap(), 1);
        let (_, rsdp) = find(&tables, b"RSD PTR ");
        let (xsdt_address, xsdt) = find(&tables, b"XSDT");
        assert_eq!(rsdp[15], 2);
        assert_eq!(u64_at(rsdp, 24), *xsdt_address);
        let (fadt_address, fadt) = find(&tables, b"FACP");
        assert_eq!(u64_at(xsdt, 36), *fadt_address);
        assert_eq!(u64_at(xsdt, 44), find(&tables, b"APIC").0);
        assert_eq!(u64_at(fadt, 140), find(&tables, b"DSDT").0);
        assert_eq!(u64::from(u32_at(fadt, 36)), find(&tables, b"FACS").0);
    }

    #[test]
    fn fadt_has_the_fixed_registers_in_both_forms() {
        let (_, fadt) = find(&AcpiTables::build(&MemoryMap::new(512 * MIB).unwrap(), 1), b"FACP").clone();
        assert_eq!(fadt.len(), 276);
        assert_eq!(fadt[8], 6);
        assert_eq!(u32_at(&fadt, 48), 0, "SMI_CMD");
        for (legacy, extended, port, bits) in [(56, 148, 0x600, 32), (64, 172, 0x604, 16), (76, 208, 0x608, 32)] {
            assert_eq!(u32_at(&fadt, legacy), port);
            assert_eq!((fadt[extended], fadt[extended + 1]), (1, bits));
            assert_eq!(u64_at(&fadt, extended + 4), u64::from(port));
        }
        assert_eq!((fadt[88], fadt[89], fadt[91]), (4, 2, 4));
        assert_eq!(fadt[108], 0x32, "CENTURY");
        assert_eq!(u16::from_le_bytes([fadt[109], fadt[110]]), 0b101);
        // WBINVD, PROC_C1, PWR_BUTTON, SLP_BUTTON, TMR_VAL_EXT, RESET_REG_SUP, HEADLESS.
        assert_eq!(u32_at(&fadt, 112), 0x1535);
        assert_eq!((fadt[116], u64_at(&fadt, 120), fadt[128]), (1, 0xCF9, 6));
    }
}
