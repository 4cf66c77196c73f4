//! Faults and triggers as values. [`FaultSpec`] is written as text ([`std::fmt::Display`], [`std::str::FromStr`]), and that is
//! how serde has it, too.

use mem::{Disturbance, KeyId, LineAddr};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// One fault to inject.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FaultSpec {
    pub target: Target,
    pub at: Trigger,
    /// `None`: as long as faults of this kind last by themselves.
    pub lasts: Option<Lasts>,
    /// The number by which rates and random triggers draw, instead of the place among the armed faults.
    pub draw: Option<u32>,
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// The memory side, whose faults these are.
    Memory(Disturbance),
    /// The cells of a line are put back to what they were at `since`.
    Replay { line: LineAddr, since: Trigger },
    /// A bit of a general-purpose register, by its number in encodings.
    Gpr { register: u8, bit: u8 },
    /// A bit of RIP.
    Rip { bit: u8 },
    /// A bit of RFLAGS.
    Flags { bit: u8 },
    /// A bit of an MSR that the core keeps.
    Msr { msr: u32, bit: u8 },
    /// A KeyID bit of the TLB's translations of a linear page in the current address space.
    Tlb { address: u64, bit: u8 },
    /// A bit of a paging-structure entry for a linear address: 1 is the page table, 4 the PML4.
    Pte { address: u64, level: u8, bit: u8 },
}

/// How long it lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lasts {
    /// So many effects.
    Times(u64),
    /// So many instructions.
    Instructions(u64),
    /// To the end of the run.
    Ever,
}

/// Where an instruction is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum CodeAddress {
    /// A linear address.
    Linear(u64),
    /// A symbol, which [`FaultSpec::resolve`] makes an address of.
    Symbol(String),
}

/// What happens to a cached line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LineEvent {
    Fill,
    WriteBack,
    Flush,
}

/// When it goes wrong. `nth` counts from 1.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Trigger {
    /// Between two instructions, when so many have retired.
    Icount(u64),
    /// As [`Icount`](Self::Icount), at a count from `from` to below `to` that follows from the seed and the injection's number.
    Random { from: u64, to: u64 },
    /// Before the instruction at an address.
    Pc { place: CodeAddress, nth: u64 },
    /// Before the instruction that begins at an address, linear or physical: then after its fetch, through whatever mapping.
    Exec { physical: bool, address: u64, nth: u64 },
    /// Before a load or store that includes the byte at an address.
    Access { physical: bool, address: u64, read: bool, write: bool, nth: u64 },
    /// Before something happens to a line, under a KeyID or any.
    Line { event: LineEvent, line: LineAddr, keyid: Option<KeyId>, nth: u64 },
    /// Before WRMSR of an MSR.
    Wrmsr { msr: u32, nth: u64 },
    /// Before PCONFIG programs a key, its operands having been accepted.
    Pconfig { nth: u64 },
    /// After the guest has written a value, or any, to port [`Self::MARKER_PORT`].
    Marker { value: Option<u32>, nth: u64 },
}

impl Trigger {
    /// The port of guest markers: writes of any size, zero-extended. Nothing else answers there.
    pub const MARKER_PORT: u16 = 0xE8;
}

impl FaultSpec {
    /// Puts addresses in the place of symbols.
    ///
    /// # Errors
    /// The first symbol that `address` does not know.
    pub fn resolve(&mut self, mut address: impl FnMut(&str) -> Option<u64>) -> Result<(), String> {
        let since = match &mut self.target {
            Target::Replay { since, .. } => Some(since),
            _ => None,
        };
        for trigger in [Some(&mut self.at), since].into_iter().flatten() {
            if let Trigger::Pc { place, .. } = trigger
                && let CodeAddress::Symbol(name) = place
            {
                *place = CodeAddress::Linear(address(name).ok_or_else(|| name.clone())?);
            }
        }
        Ok(())
    }

    /// How long it lasts: as asked for, or as its kind does. `None`: it happens once.
    pub fn duration(&self) -> Option<Lasts> {
        let Target::Memory(disturbance) = &self.target else { return None };
        let default = match disturbance {
            Disturbance::Bus { .. } | Disturbance::WriteBack { .. } | Disturbance::Flush { .. } => Lasts::Times(1),
            _ => Lasts::Ever,
        };
        disturbance.lasts().then(|| self.lasts.unwrap_or(default))
    }
}

impl Serialize for FaultSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for FaultSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}
