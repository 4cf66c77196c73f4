//! Which code runs the AES rounds.

/// An implementation of the cipher. All of them compute the same function; they differ in speed and in the hosts they
/// need.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Backend {
    /// The `aes` crate, on any host.
    Portable,
    /// AESENC and AESDEC with everything around them inlined: x86-64 hosts with CPUID.01H:ECX.AESNI\[25\].
    AesNi,
    /// The same with VAES for runs of lines: hosts that also have CPUID.(EAX=07H,ECX=0):EBX.AVX512F\[16\] and
    /// ECX.VAES\[9\].
    Vaes,
}

impl Backend {
    /// Every backend, the fastest last.
    pub const ALL: [Self; 3] = [Self::Portable, Self::AesNi, Self::Vaes];

    /// True on hosts that can run it.
    pub fn is_available(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Self::AesNi => crate::aesni::is_available(),
            #[cfg(target_arch = "x86_64")]
            Self::Vaes => crate::vaes::is_available(),
            #[cfg(not(target_arch = "x86_64"))]
            Self::AesNi | Self::Vaes => false,
        }
    }

    /// The backends of this host, the fastest last.
    pub fn available() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|backend| backend.is_available())
    }

    /// What [`XtsKey::new`](crate::XtsKey::new) picks.
    pub fn fastest() -> Self {
        Self::available().last().unwrap_or(Self::Portable)
    }
}
