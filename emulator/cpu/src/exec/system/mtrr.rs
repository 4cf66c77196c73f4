//! Memory types: MTRRs and PAT (SDM Vol. 3A, sections 12.5.2, 12.11 and 12.12).

use crate::Cpu;
use crate::state::Mtrrs;
use mem::MemType;

/// Register layouts (SDM Vol. 3A, sections 12.11.2 and 12.11.3).
pub mod spec {
    /// Variable ranges.
    pub const VARIABLE_RANGES: usize = 10;
    /// IA32_MTRRCAP: VCNT, FIX, WC.
    pub const MTRRCAP: u64 = VARIABLE_RANGES as u64 | 1 << 8 | 1 << 10;
    /// IA32_MTRR_DEF_TYPE: default type, fixed-range enable, MTRR enable.
    pub const TYPE: u64 = 0xFF;
    pub const FE: u64 = 1 << 10;
    pub const E: u64 = 1 << 11;
    /// IA32_MTRR_PHYSBASEn\[11:8\] and IA32_MTRR_PHYSMASKn\[10:0\] are reserved, bit 11 of the mask is "valid".
    pub const PHYSBASE_RESERVED: u64 = 0xF00;
    pub const PHYSMASK_RESERVED: u64 = 0x7FF;
    pub const VALID: u64 = 1 << 11;
    /// Where base and mask carry address bits.
    pub const PAGE_BITS: u64 = 0xFFF;
    /// End of the fixed ranges.
    pub const FIXED_END: u64 = 0x10_0000;
}

/// True for the types a range register may hold (UC- exists in the PAT only).
pub fn valid_mtrr_type(bits: u64) -> bool {
    matches!(bits, 0 | 1 | 4 | 5 | 6)
}

/// True if all eight bytes are types a range register may hold.
pub fn valid_fixed_mtrr(value: u64) -> bool {
    value.to_le_bytes().into_iter().all(|b| valid_mtrr_type(u64::from(b)))
}

/// True if all eight bytes are PAT types (SDM Vol. 3A, table 12-10).
pub fn valid_pat(value: u64) -> bool {
    value.to_le_bytes().into_iter().all(|b| b == 7 || valid_mtrr_type(u64::from(b)))
}

fn decode(bits: u64) -> MemType {
    MemType::from_bits(bits as u8).unwrap_or(MemType::Uc)
}

impl Mtrrs {
    /// The type of a physical address. `address_mask` holds the bits the core knows of: bits `M-1:M-k_core` of bases and
    /// masks are ignored (MC-19), those of the address too (MC-20).
    fn range_type(&self, physical: u64, address_mask: u64) -> MemType {
        use MemType::{Uc, Wb, Wt};
        if self.def_type & spec::E == 0 {
            return Uc;
        }
        let physical = physical & address_mask;
        if physical < spec::FIXED_END && self.def_type & spec::FE != 0 {
            return self.fixed_type(physical);
        }
        let mut found = None;
        for (&base, &mask) in self.phys_base.iter().zip(&self.phys_mask) {
            let compared = mask & address_mask & !spec::PAGE_BITS;
            if mask & spec::VALID == 0 || (physical ^ base) & compared != 0 {
                continue;
            }
            let this = decode(base & spec::TYPE);
            // Overlaps (SDM Vol. 3A, section 12.11.4.1): UC wins, WT wins over WB, other mixtures are undefined; UC here.
            found = Some(match (found, this) {
                (None, t) => t,
                (Some(a), b) if a == b => a,
                (Some(Wt | Wb), Wt | Wb) => Wt,
                _ => Uc,
            });
        }
        found.unwrap_or_else(|| decode(self.def_type & spec::TYPE))
    }

    /// Types of the first MiB: 8 ranges of 64 KiB, 16 of 16 KiB, 64 of 4 KiB (SDM Vol. 3A, table 12-9).
    fn fixed_type(&self, physical: u64) -> MemType {
        let (register, byte) = match physical {
            0..0x8_0000 => (0, physical >> 16),
            0x8_0000..0xC_0000 => {
                let n = (physical - 0x8_0000) >> 14;
                (1 + (n >> 3) as usize, n & 7)
            }
            _ => {
                let n = ((physical - 0xC_0000) >> 12) & 63;
                (3 + (n >> 3) as usize, n & 7)
            }
        };
        decode(self.fixed[register] >> (byte * 8) & 0xFF)
    }
}

/// Effective memory type (SDM Vol. 3A, table 12-7).
pub fn effective_type(mtrr: MemType, pat: MemType) -> MemType {
    use MemType::{Uc, UcMinus, Wb, Wc, Wp, Wt};
    match (pat, mtrr) {
        (Uc, _) => Uc,
        (Wc, _) => Wc,
        (UcMinus, Wc | Wp) => Wc,
        (UcMinus, _) => Uc,
        (Wb, Wb) => Wb,
        (Wb, other) => other,
        (Wt, Uc | Wc) => Uc,
        (Wt, _) => Wt,
        (Wp, Uc | Wc) => Uc,
        (Wp, _) => Wp,
    }
}

impl Cpu {
    /// Address bits that the core's range logic compares: `M - k_core` of them (MC-14).
    pub(crate) fn range_address_mask(&self) -> u64 {
        let bits = u32::from(self.model.maxphyaddr.saturating_sub(self.msr.k_core)).min(63);
        (1 << bits) - 1
    }

    /// The MTRRs' memory type of a full physical address, KeyID bits included: what applies while paging is off.
    pub fn mtrr_type(&self, physical: u64) -> MemType {
        self.msr.mtrr.range_type(physical, self.range_address_mask())
    }

    /// Effective memory type of a full physical address (KeyID bits included, as the page walk yields it) and a PAT index
    /// (PAT, PCD and PWT bits of the last entry).
    ///
    /// The core masks the KeyID with its own `k_core`, so a KeyID changes the type only on a core that has not executed
    /// WRMSR(9FFH) (MC-14, MC-20). CR0.CD is not part of it: no-fill mode is the cache's (MC-35).
    pub fn memory_type(&self, physical: u64, pat_index: u8) -> MemType {
        let pat = decode(self.msr.pat >> ((pat_index & 7) * 8) & 7);
        effective_type(self.mtrr_type(physical), pat)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use MemType::{Uc, UcMinus, Wb, Wc, Wp, Wt};

    const M46: u64 = (1 << 46) - 1;
    const M40: u64 = (1 << 40) - 1;

    fn mtrrs(default: u64, ranges: &[(u64, u64)]) -> Mtrrs {
        let mut m = Mtrrs { def_type: default | spec::E, ..Mtrrs::default() };
        for (i, &(base, mask)) in ranges.iter().enumerate() {
            (m.phys_base[i], m.phys_mask[i]) = (base, mask | spec::VALID);
        }
        m
    }

    #[test]
    fn effective_types_are_those_of_table_12_7() {
        // Rows: MTRR; columns: PAT UC, UC-, WC, WT, WB, WP.
        let table = [
            (Uc, [Uc, Uc, Wc, Uc, Uc, Uc]),
            (Wc, [Uc, Wc, Wc, Uc, Wc, Uc]),
            (Wt, [Uc, Uc, Wc, Wt, Wt, Wp]),
            (Wb, [Uc, Uc, Wc, Wt, Wb, Wp]),
            (Wp, [Uc, Wc, Wc, Wt, Wp, Wp]),
        ];
        for (mtrr, row) in table {
            for (pat, expected) in [Uc, UcMinus, Wc, Wt, Wb, Wp].into_iter().zip(row) {
                assert_eq!(effective_type(mtrr, pat), expected, "MTRR {mtrr:?} PAT {pat:?}");
            }
        }
    }

    #[test]
    fn disabled_mtrrs_make_all_memory_uncacheable() {
        let mut m = mtrrs(6, &[]);
        m.def_type &= !spec::E;
        assert_eq!(m.range_type(0x1234_5000, M46), Uc);
    }

    #[test]
    fn overlapping_ranges_follow_the_precedence_rules() {
        let all = M46 & !0xFFF;
        let m = mtrrs(6, &[(4, all & !0xFFFF), (6, all & !0xFFFF), (0, all & !0xFFF)]);
        assert_eq!(m.range_type(0x0, M46), Uc);
        assert_eq!(m.range_type(0x1000, M46), Wt);
        assert_eq!(m.range_type(0x1_0000, M46), Wb);
    }

    #[test]
    fn fixed_ranges_cover_the_first_mebibyte_only_when_enabled() {
        let mut m = mtrrs(6, &[]);
        m.fixed[0] = 0x0606_0606_0606_0604;
        m.fixed[2] = 0x0000_0000_0000_0001;
        m.fixed[10] = 0x0500_0000_0000_0000;
        assert_eq!(m.range_type(0, M46), Wb);
        m.def_type |= spec::FE;
        assert_eq!(m.range_type(0xFFFF, M46), Wt);
        assert_eq!(m.range_type(0x1_0000, M46), Wb);
        assert_eq!(m.range_type(0xA_3FFF, M46), Wc);
        assert_eq!(m.range_type(0xA_4000, M46), Uc);
        assert_eq!(m.range_type(0xF_FFFF, M46), Wp);
        assert_eq!(m.range_type(0x10_0000, M46), Wb);
    }

    #[test]
    fn mk_048_without_core_activation_a_keyid_misses_wide_masks_and_matches_narrow_ones() {
        let keyid1 = 1u64 << 40 | 0x1000;
        let wide = mtrrs(0, &[(6, M46 & !0xFFFF_FFFF)]);
        let narrow = mtrrs(0, &[(6, M40 & !0xFFFF_FFFF)]);
        assert_eq!(wide.range_type(keyid1, M46), Uc);
        assert_eq!(narrow.range_type(keyid1, M46), Wb);
    }

    #[test]
    fn mk_062_after_core_activation_the_type_does_not_depend_on_the_keyid() {
        let wide = mtrrs(0, &[(6, M46 & !0xFFFF_FFFF)]);
        for keyid in 0..64u64 {
            assert_eq!(wide.range_type(keyid << 40 | 0x1000, M40), Wb);
        }
    }
}
