//! Segment registers and descriptors (SDM Vol. 3A, sections 3.4 and 3.5).

/// Segment register numbers as ModRM encodes them.
pub mod sreg {
    pub const ES: usize = 0;
    pub const CS: usize = 1;
    pub const SS: usize = 2;
    pub const DS: usize = 3;
    pub const FS: usize = 4;
    pub const GS: usize = 5;
}

/// Access-rights bits in the layout of a VMCS guest access-rights field (SDM Vol. 3C, table 24-2), which is the
/// high descriptor dword shifted right by 8, with bit 16 for "unusable".
pub mod ar {
    pub const TYPE: u32 = 0xF;
    pub const ACCESSED: u32 = 1 << 0;
    /// Writable (data) or readable (code).
    pub const RW: u32 = 1 << 1;
    /// Expand-down (data) or conforming (code).
    pub const EC: u32 = 1 << 2;
    pub const CODE: u32 = 1 << 3;
    pub const S: u32 = 1 << 4;
    pub const DPL_SHIFT: u32 = 5;
    pub const P: u32 = 1 << 7;
    pub const AVL: u32 = 1 << 12;
    pub const L: u32 = 1 << 13;
    pub const DB: u32 = 1 << 14;
    pub const G: u32 = 1 << 15;
    pub const UNUSABLE: u32 = 1 << 16;
}

/// A segment register with its hidden part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Segment {
    pub selector: u16,
    /// Access rights, see [`ar`].
    pub ar: u32,
    /// Limit in bytes, granularity already applied (inclusive).
    pub limit: u32,
    pub base: u64,
}

impl Segment {
    /// Decodes an 8-byte descriptor (SDM Vol. 3A, figure 3-8). The upper half of a 16-byte system descriptor is
    /// the caller's.
    pub fn from_descriptor(selector: u16, d: u64) -> Segment {
        let ar = ((d >> 40) & 0xF0FF) as u32;
        let raw = ((d & 0xFFFF) | ((d >> 32) & 0xF_0000)) as u32;
        let limit = if ar & ar::G != 0 { raw << 12 | 0xFFF } else { raw };
        let base = ((d >> 16) & 0xFF_FFFF) | ((d >> 32) & 0xFF00_0000);
        Segment { selector, ar, limit, base }
    }

    /// Descriptor privilege level.
    pub fn dpl(&self) -> u8 {
        (self.ar >> ar::DPL_SHIFT & 3) as u8
    }

    pub fn is(&self, bits: u32) -> bool {
        self.ar & bits == bits
    }

    /// Usable and present.
    pub fn present(&self) -> bool {
        self.ar & (ar::P | ar::UNUSABLE) == ar::P
    }
}
