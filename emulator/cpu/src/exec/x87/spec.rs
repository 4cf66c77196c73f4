//! Bits and formats of the x87 FPU, in the order of SDM Vol. 1, sections 8.1 and 4.8.

/// Status word (SDM Vol. 1, figure 8-4).
pub mod sw {
    pub const IE: u16 = 1 << 0;
    pub const DE: u16 = 1 << 1;
    pub const ZE: u16 = 1 << 2;
    pub const OE: u16 = 1 << 3;
    pub const UE: u16 = 1 << 4;
    pub const PE: u16 = 1 << 5;
    /// Stack fault: qualifies IE.
    pub const SF: u16 = 1 << 6;
    /// Exception summary: an unmasked exception flag is set.
    pub const ES: u16 = 1 << 7;
    pub const C0: u16 = 1 << 8;
    pub const C1: u16 = 1 << 9;
    pub const C2: u16 = 1 << 10;
    pub const TOP_SHIFT: u32 = 11;
    pub const TOP: u16 = 7 << TOP_SHIFT;
    pub const C3: u16 = 1 << 14;
    /// Busy: a copy of ES since the 80387.
    pub const B: u16 = 1 << 15;

    /// The six exception flags.
    pub const EXCEPTIONS: u16 = IE | DE | ZE | OE | UE | PE;
    /// Exceptions detected before the operation: if unmasked, nothing is computed (SDM Vol. 1, section 8.5.7).
    pub const PRE: u16 = IE | DE | ZE;
    /// Condition codes that comparisons set.
    pub const CC: u16 = C0 | C2 | C3;
}

/// Control word (SDM Vol. 1, figure 8-6).
pub mod cw {
    /// The mask bits stand where the status word has the flags.
    pub const MASKS: u16 = super::sw::EXCEPTIONS;
    pub const RC_SHIFT: u32 = 10;
    /// Bits a program can change; the others read as 0 but for [`ONE`].
    pub const WRITABLE: u16 = 0x1F3F;
    /// Reserved bit 6 always reads as 1.
    pub const ONE: u16 = 1 << 6;

    /// RC: rounding control.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Rounding {
        Nearest,
        Down,
        Up,
        Zero,
    }

    /// The rounding control of a control word.
    pub fn rounding(fcw: u16) -> Rounding {
        match fcw >> RC_SHIFT & 3 {
            0 => Rounding::Nearest,
            1 => Rounding::Down,
            2 => Rounding::Up,
            _ => Rounding::Zero,
        }
    }
}

/// Tag word entries, two bits a physical register (SDM Vol. 1, figure 8-7).
pub mod tag {
    pub const VALID: u16 = 0;
    pub const ZERO: u16 = 1;
    pub const SPECIAL: u16 = 2;
    pub const EMPTY: u16 = 3;
    /// All eight registers empty.
    pub const ALL_EMPTY: u16 = 0xFFFF;
}

/// Bits of the last-instruction opcode register (SDM Vol. 1, section 8.1.9).
pub const FOP: u16 = 0x7FF;
/// Exponent adjustment of unmasked overflow and underflow (SDM Vol. 1, sections 8.5.4 and 8.5.5).
pub const BIAS_ADJUST: i32 = 24576;
/// Packed BCD indefinite (SDM Vol. 1, table 4-4).
pub const BCD_INDEFINITE: u128 = 0xFFFF_C000_0000_0000_0000;
