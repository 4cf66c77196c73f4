//! What firmware learns from CPUID.

use crate::platform::BootCpu;
use crate::setup::SetupError;
use crate::tme::Capability;
use std::fmt;
use x86::msr;

/// CPUID leaf 0: highest basic leaf and vendor.
const LEAF_VENDOR: u32 = 0;
/// CPUID leaf 1: signature.
const LEAF_SIGNATURE: u32 = 1;
/// CPUID leaf 7, sub-leaf 0: structured extended features.
const LEAF_FEATURES: u32 = 7;
/// CPUID.(7,0):ECX
const TME_EN: u32 = 1 << 13;
/// CPUID leaf 80000000H: highest extended leaf.
const LEAF_EXTENDED: u32 = 0x8000_0000;
/// CPUID leaf 80000008H: address sizes.
const LEAF_ADDRESS_SIZES: u32 = 0x8000_0008;
/// Width without leaf 80000008H (SDM Vol. 3A, section 4.1.4).
const DEFAULT_MAXPHYADDR: u8 = 36;

/// The architecture has no wider physical addresses (same place).
const LIMIT_MAXPHYADDR: u8 = 52;

/// The boot processor's identity, as far as firmware cares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Processor {
    vendor: String,
    /// CPUID.1:EAX.
    signature: u32,
    /// MAXPHYADDR, KeyID bits included.
    pub maxphyaddr: u8,
    /// IA32_TME_CAPABILITY, if CPUID enumerates TME.
    pub tme: Option<Capability>,
}

impl Processor {
    /// Reads CPUID, and IA32_TME_CAPABILITY where it exists.
    pub fn identify(cpu: &mut dyn BootCpu) -> Result<Processor, SetupError> {
        let [max_leaf, b, c, d] = cpu.cpuid(LEAF_VENDOR, 0);
        let vendor: Vec<u8> = [b, d, c].iter().flat_map(|r| r.to_le_bytes()).collect();
        let [signature, ..] = cpu.cpuid(LEAF_SIGNATURE, 0);
        let max_extended = cpu.cpuid(LEAF_EXTENDED, 0)[0];
        let maxphyaddr = if max_extended >= LEAF_ADDRESS_SIZES {
            (cpu.cpuid(LEAF_ADDRESS_SIZES, 0)[0] as u8).min(LIMIT_MAXPHYADDR)
        } else {
            DEFAULT_MAXPHYADDR
        };
        let has_tme = max_leaf >= LEAF_FEATURES && cpu.cpuid(LEAF_FEATURES, 0)[2] & TME_EN != 0;
        let tme = if has_tme { Some(Capability(crate::tme::read(cpu, msr::IA32_TME_CAPABILITY)?)) } else { None };
        Ok(Processor { vendor: String::from_utf8_lossy(&vendor).into_owned(), signature, maxphyaddr, tme })
    }

    /// Display family and model (SDM Vol. 2A, CPUID, figure 3-6).
    fn family_model(&self) -> (u32, u32) {
        let s = self.signature;
        let (family, model) = (s >> 8 & 0xF, s >> 4 & 0xF);
        let extended_model = if family == 6 || family == 15 { (s >> 16 & 0xF) << 4 } else { 0 };
        let extended_family = if family == 15 { s >> 20 & 0xFF } else { 0 };
        (family + extended_family, model + extended_model)
    }
}

impl fmt::Display for Processor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (family, model) = self.family_model();
        write!(
            f,
            "{} family {family} model {model:02X}H stepping {}, MAXPHYADDR {}",
            self.vendor,
            self.signature & 0xF,
            self.maxphyaddr
        )
    }
}
