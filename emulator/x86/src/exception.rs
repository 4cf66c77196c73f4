//! Exceptions (SDM Vol. 3A, ch. 6 "Interrupt and Exception Handling").

/// A fault, trap or abort that an instruction raises. A guest's exceptions are values, never host errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Exception {
    /// #DE, vector 0
    DivideError,
    /// #DB, vector 1. The value is OR-ed into DR6.
    Debug(u64),
    /// NMI, vector 2
    Nmi,
    /// #BP, vector 3 (INT3)
    Breakpoint,
    /// #OF, vector 4 (INTO)
    Overflow,
    /// #BR, vector 5
    BoundRange,
    /// #UD, vector 6
    InvalidOpcode,
    /// #NM, vector 7
    DeviceNotAvailable,
    /// #DF, vector 8
    DoubleFault,
    /// #TS, vector 10, with selector error code
    InvalidTss(u16),
    /// #NP, vector 11, with selector error code
    SegmentNotPresent(u16),
    /// #SS, vector 12, with error code
    StackFault(u16),
    /// #GP, vector 13, with error code
    GeneralProtection(u16),
    /// #PF, vector 14: linear address for CR2, and the error code of SDM Vol. 3A, figure 4-12
    PageFault { address: u64, code: u32 },
    /// #MF, vector 16
    X87FloatingPoint,
    /// #AC, vector 17
    AlignmentCheck,
    /// #MC, vector 18
    MachineCheck,
    /// #XM, vector 19
    SimdFloatingPoint,
}

/// Bits of a page-fault error code (SDM Vol. 3A, figure 4-12).
pub mod pf {
    pub const P: u32 = 1 << 0;
    pub const WR: u32 = 1 << 1;
    pub const US: u32 = 1 << 2;
    pub const RSVD: u32 = 1 << 3;
    pub const ID: u32 = 1 << 4;
}

/// Double-fault class of an exception (SDM Vol. 3A, table 6-4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    Benign,
    Contributory,
    PageFault,
}

impl Exception {
    /// `#GP(0)`
    pub const GP0: Exception = Exception::GeneralProtection(0);
    /// `#SS(0)`
    pub const SS0: Exception = Exception::StackFault(0);
    /// `#UD`
    pub const UD: Exception = Exception::InvalidOpcode;

    /// The vector number.
    pub fn vector(self) -> u8 {
        match self {
            Exception::DivideError => 0,
            Exception::Debug(_) => 1,
            Exception::Nmi => 2,
            Exception::Breakpoint => 3,
            Exception::Overflow => 4,
            Exception::BoundRange => 5,
            Exception::InvalidOpcode => 6,
            Exception::DeviceNotAvailable => 7,
            Exception::DoubleFault => 8,
            Exception::InvalidTss(_) => 10,
            Exception::SegmentNotPresent(_) => 11,
            Exception::StackFault(_) => 12,
            Exception::GeneralProtection(_) => 13,
            Exception::PageFault { .. } => 14,
            Exception::X87FloatingPoint => 16,
            Exception::AlignmentCheck => 17,
            Exception::MachineCheck => 18,
            Exception::SimdFloatingPoint => 19,
        }
    }

    /// The error code that delivery pushes, if the vector has one.
    pub fn error_code(self) -> Option<u32> {
        match self {
            Exception::DoubleFault | Exception::AlignmentCheck => Some(0),
            Exception::InvalidTss(c)
            | Exception::SegmentNotPresent(c)
            | Exception::StackFault(c)
            | Exception::GeneralProtection(c) => Some(u32::from(c)),
            Exception::PageFault { code, .. } => Some(code),
            _ => None,
        }
    }

    /// The class that decides whether a second exception makes a double fault.
    pub fn class(self) -> Class {
        match self {
            Exception::PageFault { .. } => Class::PageFault,
            Exception::DivideError
            | Exception::InvalidTss(_)
            | Exception::SegmentNotPresent(_)
            | Exception::StackFault(_)
            | Exception::GeneralProtection(_) => Class::Contributory,
            _ => Class::Benign,
        }
    }

    /// Traps are delivered after the instruction (RIP already advanced): #BP and #OF. #DB carries its own case.
    pub fn is_trap(self) -> bool {
        matches!(self, Exception::Breakpoint | Exception::Overflow)
    }
}
