//! Memory-type range registers (SDM Vol. 3A, section 12.11).
//!
//! RAM is the default, write-back, and the hole below 4 GiB is carved out as uncacheable: Linux 6.1 then finds nothing to
//! "fix" (MK specification, sections 7.5 rule 4 and 8.1). Masks have M-k bits; a KeyID bit in them is #GP(0) (section 3.9).

use crate::log::{BiosLog, Span};
use crate::memory_map::{HIGH_RAM_BASE, MemoryMap, PAGE};
use crate::platform::BootCpu;
use crate::setup::SetupError;
use crate::tme::{read, write};
use std::ops::Range;
use x86::msr;

/// Memory types (SDM Vol. 3A, table 12-2).
mod memory_type {
    pub const UC: u64 = 0;
    pub const WP: u64 = 5;
    pub const WB: u64 = 6;
}

/// IA32_MTRRCAP
mod mtrrcap {
    pub const VCNT: u64 = 0xFF;
    pub const FIX: u64 = 1 << 8;
}

/// IA32_MTRR_DEF_TYPE
mod def_type {
    pub const FE: u64 = 1 << 10;
    pub const E: u64 = 1 << 11;
}

/// IA32_MTRR_PHYSMASKn
const VALID: u64 = 1 << 11;

/// One memory type in all eight bytes of a fixed-range register.
const fn all(memory_type: u64) -> u64 {
    memory_type * 0x0101_0101_0101_0101
}

/// Fixed ranges as BIOSes leave them: conventional memory, the VGA window, no option ROMs, and the BIOS area, which is shadow
/// RAM behind a write-protected type.
const FIXED: [(u32, u64); 11] = [
    (msr::IA32_MTRR_FIX64K_00000, all(memory_type::WB)),
    (msr::IA32_MTRR_FIX16K_80000, all(memory_type::WB)),
    (msr::IA32_MTRR_FIX16K_A0000, all(memory_type::UC)),
    (msr::IA32_MTRR_FIX4K_C0000, all(memory_type::UC)),
    (msr::IA32_MTRR_FIX4K_C0000 + 1, all(memory_type::UC)),
    (msr::IA32_MTRR_FIX4K_C0000 + 2, all(memory_type::UC)),
    (msr::IA32_MTRR_FIX4K_C0000 + 3, all(memory_type::UC)),
    (msr::IA32_MTRR_FIX4K_C0000 + 4, all(memory_type::WP)),
    (msr::IA32_MTRR_FIX4K_C0000 + 5, all(memory_type::WP)),
    (msr::IA32_MTRR_FIX4K_C0000 + 6, all(memory_type::WP)),
    (msr::IA32_MTRR_FIX4K_C0000 + 7, all(memory_type::WP)),
];

/// Programs all MTRRs of one logical processor. `width` is the number of address bits that select memory, so this comes
/// after core activation.
///
/// The SDM's procedure (section 12.11.8) disables caches around it. Here nothing is cached yet: firmware has written no
/// memory, and MTRRs are off at reset, which makes everything uncacheable.
pub fn program(cpu: &mut dyn BootCpu, memory: &MemoryMap, width: u8, log: &mut BiosLog) -> Result<(), SetupError> {
    let cap = read(cpu, msr::IA32_MTRRCAP)?;
    let mut default = memory_type::WB | def_type::E;
    if cap & mtrrcap::FIX != 0 {
        for (register, value) in FIXED {
            write(cpu, register, value)?;
        }
        default |= def_type::FE;
    }
    let count = (cap & mtrrcap::VCNT) as usize;
    let ranges = hole_ranges(memory.low_top(), count);
    let addresses = (1u64 << width) - 1;
    for n in 0..count {
        let (base, mask) = match ranges.get(n) {
            Some(range) => (range.start | memory_type::UC, addresses & !(range.end - range.start - 1) | VALID),
            None => (0, 0),
        };
        let offset = 2 * n as u32;
        write(cpu, msr::IA32_MTRR_PHYSBASE0 + offset, base)?;
        write(cpu, msr::IA32_MTRR_PHYSMASK0 + offset, mask)?;
    }
    write(cpu, msr::IA32_MTRR_DEF_TYPE, default)?;

    log.line(format!("MTRR: default write-back, {} of {count} ranges used, {width}-bit masks", ranges.len()));
    for range in &ranges {
        log.line(format!("MTRR: {} uncacheable", Span::new(range)));
    }
    Ok(())
}

/// Splits `[low_top, 4 GiB)` into naturally aligned powers of two, at most `count` of them.
///
/// An odd RAM size may need more ranges than there are. The start is then rounded up: what is left out is neither RAM nor a
/// chip, so its type does not matter.
fn hole_ranges(low_top: u64, count: usize) -> Vec<Range<u64>> {
    let mut granule = PAGE;
    loop {
        let mut ranges = Vec::new();
        let mut start = low_top.next_multiple_of(granule);
        while start < HIGH_RAM_BASE {
            // The alignment of `start` is also the largest size that stays below 4 GiB, since 4 GiB is a multiple of it.
            let size = 1 << start.trailing_zeros();
            ranges.push(start..start + size);
            start += size;
        }
        if ranges.len() <= count {
            return ranges;
        }
        granule *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory_map::{GIB, MIB};

    #[test]
    fn hole_is_covered_exactly_when_the_registers_suffice() {
        assert_eq!(hole_ranges(3 * GIB, 10), vec![3 * GIB..4 * GIB]);
        assert_eq!(hole_ranges(512 * MIB, 10), vec![512 * MIB..GIB, GIB..2 * GIB, 2 * GIB..4 * GIB]);
    }

    #[test]
    fn an_odd_size_is_rounded_up_until_it_fits_and_stays_above_ram() {
        for ram in (64 * MIB..=3 * GIB).step_by((MIB + PAGE) as usize) {
            for count in [1, 2, 8, 10] {
                let ranges = hole_ranges(ram, count);
                assert!(ranges.len() <= count);
                assert!(ranges.iter().all(|r| r.start >= ram && r.start % (r.end - r.start) == 0));
                assert!(ranges.windows(2).all(|w| w[0].end == w[1].start));
                assert!(ranges.last().is_none_or(|r| r.end == 4 * GIB));
            }
            // The chips at the end of the hole are uncacheable whenever there are registers at all.
            assert!(hole_ranges(ram, 2).iter().any(|r| r.contains(&0xFEC0_0000)));
        }
    }

    #[test]
    fn no_registers_give_no_ranges() {
        assert!(hole_ranges(64 * MIB, 0).is_empty());
    }
}
