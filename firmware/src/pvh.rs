//! PVH: the 32-bit entry of kernels made for Xen and its imitators (Xen docs/misc/pvh.pandoc and
//! xen/include/public/arch-x86/hvm/start_info.h).

use crate::Bios;
use crate::elf::{self, Classes, Executable, is_elf};
use crate::entry::{self, layout};
use crate::error::LoadError;
use crate::load::{BootInfo, ImageFormat, Images, Info, Mode, check_area, check_texts, place_modules, write_modules};
use crate::platform::{BootCpu, gpr};
use std::ops::Range;

/// struct hvm_start_info.
mod start_info {
    pub const MAGIC: u32 = 0x336E_C578;
    /// The first version with a memory map.
    pub const VERSION: u32 = 1;
    pub const FLAGS: u32 = 0;

    pub const AT_MAGIC: u64 = 0;
    pub const AT_VERSION: u64 = 4;
    pub const AT_FLAGS: u64 = 8;
    pub const AT_NR_MODULES: u64 = 12;
    pub const AT_MODLIST_PADDR: u64 = 16;
    pub const AT_CMDLINE_PADDR: u64 = 24;
    pub const AT_RSDP_PADDR: u64 = 32;
    pub const AT_MEMMAP_PADDR: u64 = 40;
    pub const AT_MEMMAP_ENTRIES: u64 = 48;
    pub const BYTES: usize = 56;
}

/// Loads a PVH kernel.
///
/// # Errors
/// As [`crate::boot`].
pub fn boot(cpu: &mut dyn BootCpu, bios: &mut Bios, images: &Images) -> Result<BootInfo, LoadError> {
    let not_pvh =
        |missing| LoadError::NotThisProtocol { asked: "pvh", missing, accepted: "an ELF executable with a PVH note" };
    if !is_elf(images.kernel) {
        return Err(not_pvh("no ELF header"));
    }
    let entry = elf::pvh_entry(images.kernel)?.ok_or(not_pvh("no note \"Xen\" of type 18"))?;
    let entry = u64::from(entry);
    let kernel = Executable::parse(images.kernel, Classes::Any)?;
    if !kernel.segments.iter().any(|segment| segment.range.contains(&entry)) {
        return Err(LoadError::BadPvh { what: "entry point outside every segment" });
    }
    let area = kernel.footprint();
    check_area(bios, &area)?;
    check_texts(images)?;
    let modules = place_modules(bios, &images.modules, &area)?;
    let information = build_info(bios, images, &modules).finish()?;

    kernel.write(cpu);
    write_modules(cpu, &images.modules, &modules);
    cpu.write_phys(layout::INFO.start, &information);
    let mut state = entry::prot32(cpu, entry);
    state.gpr[gpr::RBX] = layout::INFO.start;
    state.tr = Some(entry::pvh_task_register());
    cpu.enter(state);
    Ok(BootInfo {
        format: ImageFormat::Pvh,
        version: None,
        kernel: area,
        entry,
        mode: Mode::Prot32,
        modules,
        info: layout::INFO.start,
    })
}

/// The structure first, then what it points to.
fn build_info(bios: &Bios, images: &Images, modules: &[Range<u64>]) -> Info {
    let mut out = Info::default();
    let base = out.put(8, &[0; start_info::BYTES]);
    let cmdline = out.put_text(images.cmdline);

    let mut list = Vec::new();
    for (module, range) in images.modules.iter().zip(modules) {
        let arguments = if module.arguments.is_empty() { 0 } else { out.put_text(module.arguments) };
        // hvm_modlist_entry: address, size, command line, reserved.
        for field in [range.start, range.end - range.start, arguments, 0] {
            list.extend(field.to_le_bytes());
        }
    }
    let list = if modules.is_empty() { 0 } else { out.put(8, &list) };

    let mut map = Vec::new();
    for entry in &bios.e820 {
        // hvm_memmap_table_entry: an E820 entry and a reserved word.
        map.extend(entry.to_bytes());
        map.extend([0; 4]);
    }
    let map = out.put(8, &map);

    let mut word = |at: u64, value: u32| out.set(base + at, &value.to_le_bytes());
    word(start_info::AT_MAGIC, start_info::MAGIC);
    word(start_info::AT_VERSION, start_info::VERSION);
    word(start_info::AT_FLAGS, start_info::FLAGS);
    word(start_info::AT_NR_MODULES, modules.len() as u32);
    word(start_info::AT_MEMMAP_ENTRIES, bios.e820.len() as u32);
    for (at, address) in [
        (start_info::AT_MODLIST_PADDR, list),
        (start_info::AT_CMDLINE_PADDR, cmdline),
        (start_info::AT_RSDP_PADDR, bios.rsdp),
        (start_info::AT_MEMMAP_PADDR, map),
    ] {
        out.set(base + at, &address.to_le_bytes());
    }
    out
}
