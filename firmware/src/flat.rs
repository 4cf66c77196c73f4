//! Files without headers: boot sectors, and programs for protected or 64-bit mode. Entered at their first byte.

use crate::Bios;
use crate::entry::{self, layout};
use crate::error::LoadError;
use crate::linux;
use crate::load::{BootInfo, Flat, ImageFormat, Images, Mode};
use crate::log::Span;
use crate::memory_map::EBDA;
use crate::platform::{BootCpu, gpr};
use std::ops::Range;

/// Loads a flat image.
///
/// In protected and 64-bit mode it gets what a Linux kernel gets, ESI or RSI = zero page. A boot sector gets nothing.
///
/// # Errors
/// As [`crate::boot`].
pub fn boot(cpu: &mut dyn BootCpu, bios: &mut Bios, images: &Images, flat: Flat) -> Result<BootInfo, LoadError> {
    let Flat { address, mode } = flat;
    let end = address.saturating_add(images.kernel.len() as u64);
    let area = address..end;
    check_flat_area(bios, &area, mode)?;
    let (state, modules, info) = if mode == Mode::Real16 {
        if !images.cmdline.is_empty() {
            return Err(LoadError::CommandLineForBootSector);
        }
        if !images.modules.is_empty() {
            return Err(LoadError::TooManyModules { given: images.modules.len(), accepted: "none" });
        }
        (entry::real16(address), Vec::new(), 0)
    } else {
        let initrd = linux::check_and_place(bios, images, &area, linux::DEFAULT_LIMITS)?;
        linux::write_hand_over(cpu, bios, images, initrd.as_ref(), None);
        let mut state = if mode == Mode::Long64 { entry::long64(cpu, address) } else { entry::prot32(cpu, address) };
        state.gpr[gpr::RSI] = layout::ZERO_PAGE;
        (state, initrd.into_iter().collect(), layout::ZERO_PAGE)
    };
    cpu.write_phys(address, images.kernel);
    cpu.enter(state);
    Ok(BootInfo { format: ImageFormat::Flat, version: None, kernel: area, entry: address, mode, modules, info })
}

/// Conventional memory as far as firmware does not need it, or the memory for images.
fn check_flat_area(bios: &Bios, area: &Range<u64>, mode: Mode) -> Result<(), LoadError> {
    let conventional = layout::LOWEST..EBDA.start;
    let around_the_hand_over = [layout::LOWEST..layout::GDT, layout::LINUX_END..EBDA.start, bios.memory.image_area()];
    let allowed = if mode == Mode::Real16 { std::slice::from_ref(&conventional) } else { &around_the_hand_over };
    if allowed.iter().any(|range| range.start <= area.start && area.end <= range.end) {
        return Ok(());
    }
    let accepted: Vec<String> = allowed.iter().map(|range| Span::new(range).to_string()).collect();
    Err(LoadError::OutsideFlatMemory { range: area.clone(), accepted: accepted.join(" or ") })
}
