//! Which code runs the AES rounds.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

/// An implementation of the cipher. All of them compute the same function; they differ in speed and in the hosts they
/// need.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Backend {
    /// The `aes` crate, on any host.
    Portable,
    /// AESENC and AESDEC with everything around them inlined: x86-64 hosts with CPUID.01H:ECX.AESNI\[25\].
    AesNi,
    /// VAESENC and VAESDEC on YMM registers, two blocks each: hosts that also have CPUID.(EAX=07H,ECX=0):EBX.AVX2\[5\]
    /// and ECX.VAES\[9\].
    Vaes256,
    /// The same on ZMM registers, a line each: hosts that also have CPUID.(EAX=07H,ECX=0):EBX.AVX512F\[16\].
    Vaes512,
}

/// The instructions that backends are made of, as far as a processor may lack them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Features {
    /// CPUID.01H:ECX.AESNI\[25\].
    pub aes: bool,
    /// CPUID.(EAX=07H,ECX=0):EBX.AVX2\[5\], and YMM registers in use by the operating system.
    pub avx2: bool,
    /// CPUID.(EAX=07H,ECX=0):EBX.AVX512F\[16\], and ZMM registers in use by the operating system.
    pub avx512f: bool,
    /// CPUID.(EAX=07H,ECX=0):ECX.VAES\[9\].
    pub vaes: bool,
}

impl Features {
    /// Those of this host.
    #[cfg(target_arch = "x86_64")]
    pub fn of_host() -> Self {
        Self {
            aes: is_x86_feature_detected!("aes"),
            avx2: is_x86_feature_detected!("avx2"),
            avx512f: is_x86_feature_detected!("avx512f"),
            vaes: is_x86_feature_detected!("vaes"),
        }
    }

    /// Those of this host: none, it is not x86-64.
    #[cfg(not(target_arch = "x86_64"))]
    pub fn of_host() -> Self {
        Self::default()
    }
}

/// The process's default, once somebody needs it or chooses it.
static DEFAULT: OnceLock<Backend> = OnceLock::new();

impl Backend {
    /// Every backend, the fastest last.
    pub const ALL: [Self; 4] = [Self::Portable, Self::AesNi, Self::Vaes256, Self::Vaes512];

    /// The name users type.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::AesNi => "aesni",
            Self::Vaes256 => "vaes256",
            Self::Vaes512 => "vaes512",
        }
    }

    /// True on processors that can run it. The wider kernels leave what is too short for them to AES-NI.
    pub const fn runs_on(self, features: Features) -> bool {
        match self {
            Self::Portable => true,
            Self::AesNi => features.aes,
            Self::Vaes256 => features.aes && features.avx2 && features.vaes,
            Self::Vaes512 => features.aes && features.avx512f && features.vaes,
        }
    }

    /// True on hosts that can run it.
    pub fn is_available(self) -> bool {
        self.runs_on(Features::of_host())
    }

    /// The backends of a processor, the fastest last.
    pub fn of(features: Features) -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(move |backend| backend.runs_on(features))
    }

    /// The backends of this host, the fastest last.
    pub fn available() -> impl Iterator<Item = Self> {
        Self::of(Features::of_host())
    }

    /// The fastest backend of this host.
    pub fn fastest() -> Self {
        Self::available().last().unwrap_or(Self::Portable)
    }

    /// What [`XtsKey::new`](crate::XtsKey::new) expands keys for: what was [chosen](Self::choose), or the fastest.
    /// Settled by the first call, for the rest of the process.
    pub fn default_of_process() -> Self {
        *DEFAULT.get_or_init(Self::fastest)
    }

    /// Makes this the default of the process, before the first key is expanded.
    ///
    /// # Errors
    ///
    /// When the host lacks the backend, or another default is settled already.
    pub fn choose(self) -> Result<(), BackendError> {
        if !self.is_available() {
            return Err(BackendError::Unavailable(self));
        }
        match *DEFAULT.get_or_init(|| self) {
            settled if settled == self => Ok(()),
            settled => Err(BackendError::Settled(settled)),
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Backend {
    type Err = BackendError;

    fn from_str(name: &str) -> Result<Self, BackendError> {
        let found = Self::ALL.into_iter().find(|backend| backend.name() == name);
        found.ok_or_else(|| BackendError::Unknown(name.to_owned()))
    }
}

/// Why a backend cannot be had.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BackendError {
    /// No backend has this name.
    Unknown(String),
    /// The host's processor lacks the instructions.
    Unavailable(Backend),
    /// Keys have been expanded for this one already.
    Settled(Backend),
}

impl fmt::Display for BackendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names =
            |backends: &mut dyn Iterator<Item = Backend>| backends.map(Backend::name).collect::<Vec<_>>().join(", ");
        match self {
            Self::Unknown(name) => {
                write!(f, "unknown backend `{name}`: expected one of {}", names(&mut Backend::ALL.into_iter()))
            }
            Self::Unavailable(backend) => {
                write!(f, "this processor cannot run `{backend}`; it can run {}", names(&mut Backend::available()))
            }
            Self::Settled(backend) => write!(f, "keys have been expanded for `{backend}` already"),
        }
    }
}

impl std::error::Error for BackendError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_runs_where_all_its_instructions_are() {
        let has = |aes, avx2, avx512f, vaes| Features { aes, avx2, avx512f, vaes };
        for (features, names) in [
            (has(false, false, false, false), vec![Backend::Portable]),
            // Hypervisors may hide any of them.
            (has(false, true, true, true), vec![Backend::Portable]),
            (has(true, true, true, false), vec![Backend::Portable, Backend::AesNi]),
            (has(true, true, false, true), vec![Backend::Portable, Backend::AesNi, Backend::Vaes256]),
            (has(true, false, true, true), vec![Backend::Portable, Backend::AesNi, Backend::Vaes512]),
            (has(true, true, true, true), Backend::ALL.to_vec()),
        ] {
            assert_eq!(Backend::of(features).collect::<Vec<_>>(), names, "{features:?}");
        }
    }
}
