//! The built-in processors (MC-02).

use std::fmt;
use std::str::FromStr;

use x86::tme::capability;

/// A processor, as far as memory encryption is concerned (MC-02).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum TmeProfile {
    /// XTS-128, XTS-256, bypass, 6 KeyID bits, 63 keys, M = 46.
    #[default]
    Default,
    /// XTS-256 only, bypass, 4 KeyID bits, 15 keys, M = 46 (like Alder Lake).
    Client4,
    /// XTS-128, XTS-256, bypass, 6 KeyID bits, 63 keys, M = 52.
    Server6,
    /// XTS-128, XTS-256, bypass, 7 KeyID bits, 127 keys, M = 52.
    Server7,
    /// TME and bypass without TME-MK, M = 46.
    TmeOnly,
    /// No memory encryption, M = 46.
    None,
}

impl TmeProfile {
    /// Every profile, in the order of MC-02.
    pub const ALL: [Self; 6] = [Self::Default, Self::Client4, Self::Server6, Self::Server7, Self::TmeOnly, Self::None];

    /// The name users type.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Client4 => "client4",
            Self::Server6 => "server6",
            Self::Server7 => "server7",
            Self::TmeOnly => "tme-only",
            Self::None => "none",
        }
    }

    /// The values behind the name.
    pub const fn features(self) -> TmeFeatures {
        let (maxphyaddr, capability) = match self {
            Self::Default => (46, 0x0000_03F6_8000_0005),
            Self::Client4 => (46, 0x0000_00F4_8000_0004),
            Self::Server6 => (52, 0x0000_03F6_8000_0005),
            Self::Server7 => (52, 0x0000_07F7_8000_0005),
            Self::TmeOnly => (46, 0x0000_0000_8000_0005),
            Self::None => return TmeFeatures { maxphyaddr: 46, has_tme: false, has_pconfig: false, capability: 0 },
        };
        let has_pconfig = capability >> capability::MK_TME_MAX_KEYID_BITS_SHIFT & 0xF != 0;
        TmeFeatures { maxphyaddr, has_tme: true, has_pconfig, capability: capability | capability::CLEAR_SAVED_KEY }
    }
}

/// What a processor enumerates (MK specification section 2 and 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct TmeFeatures {
    /// `M`, CPUID.80000008H:EAX\[7:0\].
    pub maxphyaddr: u8,
    /// CPUID.7.0:ECX\[13\] TME_EN: MSRs 981H-984H exist.
    pub has_tme: bool,
    /// CPUID.7.0:EDX\[18\]: the PCONFIG instruction and leaf 1BH exist.
    pub has_pconfig: bool,
    /// IA32_TME_CAPABILITY.
    pub capability: u64,
}

impl TmeFeatures {
    /// MK_TME_MAX_KEYID_BITS, 0 to 15.
    pub const fn max_keyid_bits(&self) -> u8 {
        (self.capability >> capability::MK_TME_MAX_KEYID_BITS_SHIFT & 0xF) as u8
    }

    /// The same with the variant with integrity of each algorithm (MK specification section 3.1, bits 1 and 3).
    pub const fn with_integrity(self) -> Self {
        const CIPHERS: u64 = capability::AES_XTS_128 | capability::AES_XTS_256;
        // Each variant's bit follows its cipher's.
        Self { capability: self.capability | (self.capability & CIPHERS) << 1, ..self }
    }

    /// MK_TME_MAX_KEYS, programmable keys without KeyID 0, 0 to 32767.
    pub const fn max_keys(&self) -> u16 {
        (self.capability >> capability::MK_TME_MAX_KEYS_SHIFT & 0x7FFF) as u16
    }
}

/// The name is not that of a profile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown profile `{0}`: expected one of default, client4, server6, server7, tme-only, none")]
pub struct UnknownProfile(String);

impl FromStr for TmeProfile {
    type Err = UnknownProfile;

    fn from_str(name: &str) -> Result<Self, UnknownProfile> {
        Self::ALL.into_iter().find(|profile| profile.name() == name).ok_or_else(|| UnknownProfile(name.to_owned()))
    }
}

impl fmt::Display for TmeProfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_enumerate_what_mc_02_lists() {
        let rows =
            TmeProfile::ALL.map(|p| (p.features().maxphyaddr, p.features().max_keyid_bits(), p.features().max_keys()));
        assert_eq!(rows, [(46, 6, 63), (46, 4, 15), (52, 6, 63), (52, 7, 127), (46, 0, 0), (46, 0, 0)]);
        assert!(!TmeProfile::TmeOnly.features().has_pconfig);
        assert!(!TmeProfile::None.features().has_tme);
    }

    #[test]
    fn every_profile_parses_from_its_name_and_the_error_lists_them() {
        for profile in TmeProfile::ALL {
            assert_eq!(profile.name().parse(), Ok(profile));
        }
        let message = "client5".parse::<TmeProfile>().unwrap_err().to_string();
        assert!(TmeProfile::ALL.iter().all(|p| message.contains(p.name())), "{message}");
    }
}
