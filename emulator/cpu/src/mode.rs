//! Operating modes (SDM Vol. 3A, section 2.2).

/// What decides how instructions decode and how addresses form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Mode {
    /// CR0.PE = 0: 16-bit code.
    Real,
    /// RFLAGS.VM = 1: 16-bit code at CPL 3.
    Virtual8086,
    /// Protected or compatibility mode with CS.D = 0.
    Protected16,
    /// Protected or compatibility mode with CS.D = 1.
    Protected32,
    /// EFER.LMA = 1 and CS.L = 1.
    Long64,
}

impl Mode {
    /// The bitness the decoder uses.
    pub fn bitness(self) -> u32 {
        match self {
            Mode::Real | Mode::Virtual8086 | Mode::Protected16 => 16,
            Mode::Protected32 => 32,
            Mode::Long64 => 64,
        }
    }

    pub fn is_long64(self) -> bool {
        self == Mode::Long64
    }

    /// Protected, compatibility or 64-bit mode: segment loads go through descriptor tables.
    pub fn is_protected(self) -> bool {
        !matches!(self, Mode::Real | Mode::Virtual8086)
    }
}
