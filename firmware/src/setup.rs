//! The BIOS menu: settings, and which of them this processor and this memory can honour.
//!
//! Everything is checked here, before the first MSR is written: IA32_TME_ACTIVATE answers nonsense with #GP(0) and nothing
//! more (MK specification, section 3.3), which is no help to somebody who mistyped an option.

use crate::log::Size;
use crate::memory_map::{MemoryMap, PAGE};
use crate::processor::Processor;
use std::str::FromStr;
use thiserror::Error;
use x86::tme::{activate, capability, exclude};

/// "Memory Encryption (TME)" in the menu, `--tme` on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TmeSetting {
    /// Activate and lock.
    On,
    /// Write 0: locked and disabled.
    Off,
    /// Leave IA32_TME_ACTIVATE alone: neither enabled nor locked, as with firmware that knows nothing of TME.
    Unlocked,
    /// Activate with KeyID 0 in clear (IA32_TME_ACTIVATE[31]).
    Bypass,
}

impl FromStr for TmeSetting {
    type Err = SetupError;

    fn from_str(text: &str) -> Result<Self, SetupError> {
        match text {
            "on" => Ok(TmeSetting::On),
            "off" => Ok(TmeSetting::Off),
            "unlocked" => Ok(TmeSetting::Unlocked),
            "bypass" => Ok(TmeSetting::Bypass),
            _ => Err(SetupError::UnknownTme(text.into())),
        }
    }
}

/// `--tme-exclude BASE,SIZE`: a range whose KeyID-0 accesses stay in clear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exclude {
    pub base: u64,
    pub size: u64,
}

impl FromStr for Exclude {
    type Err = SetupError;

    /// `BASE,SIZE`: decimal or 0x-prefixed, with an optional suffix K, M or G.
    fn from_str(text: &str) -> Result<Self, SetupError> {
        let parts = text.split_once(',').and_then(|(b, s)| Some((number(b)?, number(s)?)));
        let (base, size) = parts.ok_or_else(|| SetupError::BadExclude(text.into()))?;
        Ok(Exclude { base, size })
    }
}

fn number(text: &str) -> Option<u64> {
    let text = text.trim();
    let (digits, shift) = match text.chars().last()?.to_ascii_uppercase() {
        'K' => (&text[..text.len() - 1], 10),
        'M' => (&text[..text.len() - 1], 20),
        'G' => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    let value = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(hex) => u64::from_str_radix(hex, 16).ok()?,
        None => digits.parse().ok()?,
    };
    value.checked_mul(1 << shift)
}

/// The settings. `None` means that the user said nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setup {
    /// Default: on where the processor has TME.
    pub tme: Option<TmeSetting>,
    /// Default: MK_TME_MAX_KEYID_BITS.
    pub keyid_bits: Option<u8>,
    /// Default: no exclusion range.
    pub exclude: Option<Exclude>,
    /// "TME-MT memory integrity": allow algorithms with integrity for KeyIDs, where the processor has them.
    pub integrity: bool,
    /// Logical processors to describe in the MADT, at least 1.
    pub processors: u8,
}

impl Default for Setup {
    fn default() -> Self {
        Setup { tme: None, keyid_bits: None, exclude: None, integrity: false, processors: 1 }
    }
}

/// A setting that cannot be honoured, or an MSR that refused what the settings ask for.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SetupError {
    #[error("--tme {0}: unknown setting; accepted: on, off, unlocked, bypass")]
    UnknownTme(String),
    #[error(
        "--tme-exclude {0}: not a range; accepted: BASE,SIZE, two numbers (decimal or 0x..., suffix K, M or G), for example 0x10000000,64M"
    )]
    BadExclude(String),
    #[error(
        "{option}: this processor has no TME (CPUID.7.ECX[13] = 0); accepted: a --tme-profile other than none, or no {option}"
    )]
    NoTme { option: &'static str },
    #[error(
        "--tme bypass: this processor has no TME bypass (IA32_TME_CAPABILITY[31] = 0); accepted: on, off, unlocked"
    )]
    NoBypass,
    #[error(
        "--tme: this processor enumerates no algorithm for KeyID 0 (IA32_TME_CAPABILITY = {capability:#x}, bits 0 and 2 clear); accepted: off, unlocked"
    )]
    NoAlgorithm { capability: u64 },
    #[error("--keyid-bits {given}: this processor has {max} KeyID bits (MK_TME_MAX_KEYID_BITS); accepted: 0 to {max}")]
    TooManyKeyIdBits { given: u8, max: u8 },
    #[error("{option}: needs TME enabled, but --tme is off or unlocked; accepted: --tme on or bypass, or no {option}")]
    NeedsTme { option: &'static str },
    #[error(
        "--keyid-bits: {bits} KeyID bits of {maxphyaddr} leave {width} address bits, but RAM and the hole below 4 GiB end at {top:#x}; accepted: --keyid-bits 0 to {max}{}",
        if *.smaller_ram_helps { ", or a smaller -m" } else { "" }
    )]
    MemoryBeyondWidth { bits: u8, maxphyaddr: u8, width: u8, top: u64, max: u8, smaller_ram_helps: bool },
    #[error(
        "-m: RAM and the hole below 4 GiB end at {top:#x}, beyond the processor's {maxphyaddr} physical address bits"
    )]
    MemoryBeyondProcessor { maxphyaddr: u8, top: u64 },
    #[error("--tme-exclude: size {size:#x}; accepted: a power of two of at least 4 KiB")]
    ExcludeSize { size: u64 },
    #[error("--tme-exclude: base {base:#x} is not a multiple of the size {}; accepted: {:#x} or {}", Size(*.size), .base - .base % .size, next(*.base, *.size))]
    ExcludeAlignment { base: u64, size: u64 },
    #[error(
        "--tme-exclude: {base:#x} + {} ends beyond the {width} address bits that select memory; accepted: ranges below {limit:#x}",
        Size(*.size)
    )]
    ExcludeBeyondWidth { base: u64, size: u64, width: u8, limit: u64 },
    #[error("processors: 0; accepted: 1 to 255")]
    NoProcessors,
    #[error("firmware: RDMSR {msr:X}H raised #GP(0)")]
    ReadFault { msr: u32 },
    #[error("firmware: WRMSR {msr:X}H of {value:#x} raised #GP(0)")]
    WriteFault { msr: u32, value: u64 },
    #[error("firmware: IA32_TME_ACTIVATE reads {read:#x} after {written:#x} was written: not locked")]
    NotLocked { written: u64, read: u64 },
}

fn next(base: u64, size: u64) -> String {
    match (base - base % size).checked_add(size) {
        Some(next) => format!("{next:#x}"),
        None => "a smaller one".into(),
    }
}

/// What the TME sequence has to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TmePlan {
    /// Value for IA32_TME_ACTIVATE. `None`: leave it alone.
    pub activate: Option<u64>,
    /// Values for IA32_TME_EXCLUDE_MASK and IA32_TME_EXCLUDE_BASE.
    pub exclude: Option<ExcludeRegisters>,
    /// KeyID bits that `activate` asks for.
    pub keyid_bits: u8,
}

/// The exclusion range as 983H and 984H hold it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExcludeRegisters {
    pub mask: u64,
    pub base: u64,
}

/// Turns settings into register values, or says why not.
pub fn plan(setup: &Setup, processor: &Processor, memory: &MemoryMap) -> Result<TmePlan, SetupError> {
    if setup.processors == 0 {
        return Err(SetupError::NoProcessors);
    }
    let m = processor.maxphyaddr;
    if memory.top() > 1 << m {
        return Err(SetupError::MemoryBeyondProcessor { maxphyaddr: m, top: memory.top() });
    }
    let Some(cap) = processor.tme else {
        let given = [
            (setup.tme.is_some(), "--tme"),
            (setup.keyid_bits.is_some(), "--keyid-bits"),
            (setup.exclude.is_some(), "--tme-exclude"),
        ];
        return match given.iter().find(|(given, _)| *given) {
            Some(&(_, option)) => Err(SetupError::NoTme { option }),
            None => Ok(TmePlan::default()),
        };
    };

    let setting = setup.tme.unwrap_or(TmeSetting::On);
    let max_bits = cap.max_keyid_bits();
    if let Some(given) = setup.keyid_bits.filter(|&bits| bits > max_bits) {
        return Err(SetupError::TooManyKeyIdBits { given, max: max_bits });
    }
    if matches!(setting, TmeSetting::Off | TmeSetting::Unlocked) {
        if setup.keyid_bits.is_some_and(|bits| bits > 0) {
            return Err(SetupError::NeedsTme { option: "--keyid-bits" });
        }
        if setup.exclude.is_some() {
            return Err(SetupError::NeedsTme { option: "--tme-exclude" });
        }
        let activate = (setting == TmeSetting::Off).then_some(0);
        return Ok(TmePlan { activate, exclude: None, keyid_bits: 0 });
    }
    if setting == TmeSetting::Bypass && !cap.bypass() {
        return Err(SetupError::NoBypass);
    }

    let keyid_bits = setup.keyid_bits.unwrap_or(max_bits);
    check_width(keyid_bits, m, memory)?;
    let exclude = setup.exclude.map(|range| exclude_registers(range, m, m - keyid_bits)).transpose()?;

    let policy = cap.tme_policy().ok_or(SetupError::NoAlgorithm { capability: cap.0 })?;
    let mut value = activate::ENABLE | policy << activate::POLICY_SHIFT;
    if setting == TmeSetting::Bypass {
        value |= activate::BYPASS;
    }
    // Without KeyIDs the algorithm bitmap has no meaning, and on a part without TME-MK all of 63:32 is reserved (W4).
    if keyid_bits > 0 {
        let with_integrity = capability::AES_XTS_128_INTEGRITY | capability::AES_XTS_256_INTEGRITY;
        let algorithms = u64::from(cap.algorithms()) & if setup.integrity { !0 } else { !with_integrity };
        value |= u64::from(keyid_bits) << activate::MK_TME_KEYID_BITS_SHIFT | algorithms << activate::CRYPTO_ALGS_SHIFT;
    }
    Ok(TmePlan { activate: Some(value), exclude, keyid_bits })
}

/// KeyID bits are address bits taken from memory: what is left must still reach all of it.
fn check_width(bits: u8, maxphyaddr: u8, memory: &MemoryMap) -> Result<(), SetupError> {
    // Bits needed to address the last byte.
    let needed = |top: u64| (u64::BITS - (top - 1).leading_zeros()) as u8;
    let width = maxphyaddr.saturating_sub(bits);
    if needed(memory.top()) <= width {
        return Ok(());
    }
    Err(SetupError::MemoryBeyondWidth {
        bits,
        maxphyaddr,
        width,
        top: memory.top(),
        max: maxphyaddr - needed(memory.top()),
        smaller_ram_helps: needed(crate::memory_map::HIGH_RAM_BASE) <= width,
    })
}

/// 983H describes one naturally aligned power-of-two range: the mask is one run of ones that ends at bit M-1 (MC-11). The
/// range applies to KeyID 0 only, so it has to lie below 2^(M-k).
fn exclude_registers(range: Exclude, maxphyaddr: u8, width: u8) -> Result<ExcludeRegisters, SetupError> {
    let Exclude { base, size } = range;
    if !size.is_power_of_two() || size < PAGE {
        return Err(SetupError::ExcludeSize { size });
    }
    if base & (size - 1) != 0 {
        return Err(SetupError::ExcludeAlignment { base, size });
    }
    let limit = 1 << width;
    if base.checked_add(size).is_none_or(|end| end > limit) {
        return Err(SetupError::ExcludeBeyondWidth { base, size, width, limit });
    }
    let addresses = (1u64 << maxphyaddr) - 1;
    Ok(ExcludeRegisters { mask: addresses & !(size - 1) | exclude::ENABLE, base })
}
