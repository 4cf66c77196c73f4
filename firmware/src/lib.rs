//! The firmware stage: what a BIOS does between reset and the operating system.
//!
//! It drives the boot processor through [`BootCpu`], which offers nothing but what real firmware has: CPUID, MSRs,
//! memory and ports. So everything it sets up is checked by the same rules as if the guest had done it, and every byte it
//! writes after TME activation reaches DRAM encrypted (MK specification, section 7.5 rule 1).
//!
//! Reading order: [`platform`] (the interface), [`setup`] (the menu, and what is refused), [`memory_map`] and [`e820`]
//! (where RAM is), [`processor`] and [`tme`] (the TME sequence), [`mtrr`], [`chipset`], [`services`] (real mode), [`acpi`], [`init`] (INIT). Then [`load`] (which
//! protocol an image speaks, and what all protocols share) and [`entry`] (the states in which images are entered); the
//! protocols [`linux`], [`multiboot1`], [`multiboot2`], [`pvh`] and [`flat`]; the file formats [`bzimage`] and [`elf`].

pub mod acpi;
pub mod bzimage;
pub mod chipset;
pub mod e820;
pub mod elf;
pub mod entry;
pub mod error;
pub mod flat;
pub mod init;
pub mod linux;
pub mod load;
pub mod log;
pub mod memory_map;
pub mod mtrr;
pub mod multiboot;
pub mod multiboot1;
pub mod multiboot2;
pub mod platform;
pub mod processor;
pub mod pvh;
pub mod services;
pub mod setup;
pub mod tme;

use acpi::AcpiTables;
use e820::E820Entry;
use processor::Processor;
use tme::TmeState;

pub use error::LoadError;
pub use init::resume;
pub use load::{BootInfo, Flat, ImageFormat, Images, Mode, Module, Protocol, boot};
pub use log::BiosLog;
pub use memory_map::{MemoryMap, MemoryMapError};
pub use platform::{BootCpu, DescriptorTable, EntryState, GpFault};
pub use setup::{Exclude, Setup, SetupError, TmeSetting};

/// A machine that has been powered on and waits for something to boot.
#[derive(Debug, Clone)]
pub struct Bios {
    /// What the BIOS printed so far. [`boot`] appends to it.
    pub log: BiosLog,
    /// The memory-encryption state that firmware left behind.
    pub tme: TmeState,
    /// Where RAM is.
    pub memory: MemoryMap,
    /// The memory map as the operating system is told.
    pub e820: Vec<E820Entry>,
    /// Physical address of the ACPI root pointer.
    pub rsdp: u64,
}

/// Takes the boot processor from reset to the point where an image can be loaded.
///
/// Order (MK specification, section 7.1): identify, check the settings, exclusion range, TME_ACTIVATE, core activation,
/// and only then whatever depends on the reduced address width or writes to memory: MTRRs, chip set, ACPI tables.
///
/// # Errors
/// Settings that this processor cannot honour, before anything is changed; and an MSR that faults although the settings
/// are possible.
pub fn power_on(cpu: &mut dyn BootCpu, setup: &Setup, memory: &MemoryMap) -> Result<Bios, SetupError> {
    let mut log = BiosLog::default();
    log.line(format!("mktme-emu BIOS {}", env!("CARGO_PKG_VERSION")));
    log.line(format!("Memory: {memory}"));

    let processor = Processor::identify(cpu)?;
    log.line(format!("Processor: {processor}"));

    let plan = setup::plan(setup, &processor, memory)?;
    let tme = tme::activate(cpu, &processor, &plan, &mut log)?;
    mtrr::program(cpu, memory, tme.effective_width(), &mut log)?;
    chipset::initialise(cpu);
    services::install(cpu);

    let tables = AcpiTables::build(memory, setup.processors);
    tables.write(cpu);
    log.line(format!("ACPI: {tables}"));

    let e820 = e820::table(memory);
    for entry in &e820 {
        log.line(format!("E820: {entry}"));
    }
    Ok(Bios { log, tme, memory: *memory, e820, rsdp: acpi::RSDP_ADDRESS })
}
