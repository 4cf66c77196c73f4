//! What cannot fire is refused before the run: the message says what is wrong and what would be accepted.

use super::apply::{FLAGS_ACCEPTED, MSRS_ACCEPTED, is_flag, is_msr};
use super::spec::{CodeAddress, FaultSpec, Lasts, Target, Trigger};
use crate::Machine;
use mem::{CacheModel, Disturbance, KeyId, LineAddr};
use std::fmt::Display;
use thiserror::Error;
use x86::tme::activate;

/// A fault that cannot fire on this machine or in this run.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct Cannot(pub String);

/// What is known of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The run ends at this instruction count.
    pub until: u64,
}

impl Default for Limits {
    /// A run without an end.
    fn default() -> Self {
        Limits { until: u64::MAX }
    }
}

type Result<T> = std::result::Result<T, Cannot>;

/// Address bits below a line.
const LINE_MASK: u64 = 0x3F;
/// Number of AES-XTS-256 in algorithm bitmaps.
const AES_XTS_256: u32 = 2;

fn refuse<T>(what: impl Display, accepted: impl Display) -> Result<T> {
    Err(Cannot(format!("{what}; accepted: {accepted}")))
}

/// Checks one fault against a machine that has been powered on.
///
/// # Errors
/// The first reason why it cannot fire.
pub fn check(spec: &FaultSpec, machine: &Machine, limits: Limits) -> Result<()> {
    trigger(&spec.at, machine, limits)?;
    match &spec.target {
        Target::Memory(disturbance) => memory(disturbance, machine)?,
        Target::Replay { line: at, since } => {
            line(*at, machine)?;
            trigger(since, machine, limits)?;
            if let (Trigger::Icount(since), Trigger::Icount(at)) = (since, &spec.at)
                && since >= at
            {
                return refuse(
                    format_args!("replay: since=icount:{since} is not before at=icount:{at}"),
                    "an earlier since=",
                );
            }
        }
        Target::Gpr { .. } | Target::Rip { .. } => {}
        Target::Flags { bit } if is_flag(*bit) => {}
        Target::Flags { bit } => return refuse(format_args!("RFLAGS bit {bit} cannot change"), FLAGS_ACCEPTED),
        Target::Msr { msr, .. } if is_msr(*msr) => {}
        Target::Msr { msr, .. } => return refuse(format_args!("MSR {msr:#x} has no bits to flip here"), MSRS_ACCEPTED),
        Target::Tlb { bit, .. } => wire(*bit, machine)?,
        Target::Pte { bit, .. } if *bit < 64 => {}
        Target::Pte { bit, .. } => return refuse(format_args!("bit {bit}"), "0 to 63"),
    }
    lasts(spec)
}

fn lasts(spec: &FaultSpec) -> Result<()> {
    let Some(asked) = spec.lasts else { return Ok(()) };
    if spec.duration().is_none() {
        return refuse("for=: this fault happens once", "the fault without for=");
    }
    let counts = matches!(
        &spec.target,
        Target::Memory(
            Disturbance::Intermittent { .. }
                | Disturbance::Bus { .. }
                | Disturbance::WriteBack { .. }
                | Disturbance::Flush { .. }
        )
    );
    match asked {
        Lasts::Times(n) if !counts => refuse(
            format_args!("for={n}: the effects of this fault cannot be counted"),
            "for=icount:N (instructions), for=ever",
        ),
        _ => Ok(()),
    }
}

fn line(line: LineAddr, machine: &Machine) -> Result<()> {
    let map = machine.cpu.mem.map();
    if map.is_ram(line.start()) {
        return Ok(());
    }
    let regions = map.regions().map(|region| (region.base.0, region.base.0 + region.bytes));
    let ranges: Vec<String> = regions
        .iter()
        .filter(|(base, end)| end > base)
        .map(|(base, end)| format!("{base:#x} to {:#x}", end - LINE_MASK - 1))
        .collect();
    refuse(format_args!("line {} is not in RAM", line.start()), format_args!("lines {}", ranges.join(", ")))
}

fn keyid(keyid: KeyId, machine: &Machine) -> Result<()> {
    let tme = machine.cpu.mem.tme();
    let unlocked = tme.activate() & activate::LOCK == 0;
    let bits = if unlocked { tme.features().max_keyid_bits() } else { tme.keyid_bits() };
    let last = u32::from(tme.max_keys()).min((1u32 << bits) - 1);
    if u32::from(keyid.0) <= last {
        return Ok(());
    }
    refuse(format_args!("KeyID {} is beyond the key table of this machine", keyid.0), format_args!("0 to {last}"))
}

fn wire(bit: u8, machine: &Machine) -> Result<()> {
    let tme = machine.cpu.mem.tme();
    let unlocked = tme.activate() & activate::LOCK == 0;
    match if unlocked { tme.features().max_keyid_bits() } else { tme.keyid_bits() } {
        0 => refuse("this machine has no KeyID bits", "a profile with MKTME, and --tme on"),
        bits if bit < bits => Ok(()),
        bits => {
            refuse(format_args!("KeyID bit {bit}: this machine has {bits} of them"), format_args!("0 to {}", bits - 1))
        }
    }
}

/// Encryption is on, or the guest may still switch it on.
fn encryption(what: &str, machine: &Machine) -> Result<()> {
    let tme = machine.cpu.mem.tme();
    if !tme.features().has_tme {
        return refuse(format_args!("{what}: the processor has no memory encryption"), "another --tme-profile");
    }
    if !tme.enabled() && tme.activate() & activate::LOCK != 0 {
        return refuse(format_args!("{what}: memory encryption is off and locked"), "--tme on, bypass or unlocked");
    }
    Ok(())
}

fn transfers(what: &str, machine: &Machine) -> Result<()> {
    if machine.config().cache != CacheModel::Off {
        return Ok(());
    }
    refuse(
        format_args!("{what}: cache off has the results of a machine without a cache, not its line transfers"),
        "--cache exact, lazy",
    )
}

fn memory(disturbance: &Disturbance, machine: &Machine) -> Result<()> {
    if let Some(at) = disturbance.line() {
        line(at, machine)?;
    }
    if disturbance.needs_transfers() {
        transfers("this fault", machine)?;
    }
    match *disturbance {
        Disturbance::Mac { .. } if !machine.config().integrity => {
            return refuse("mac-flip: this machine has no MACs", "--integrity on");
        }
        Disturbance::Splice { from, line: to, .. } => {
            line(from, machine)?;
            if from == to {
                return refuse("splice: line= and from= are the same", "two lines");
            }
        }
        Disturbance::Alias { mask } => {
            let top = machine.config().ram_bytes.next_power_of_two();
            if mask & (top - 1) & !LINE_MASK == 0 {
                return refuse(
                    format_args!("alias: mask={mask:#x} ignores no address bit of RAM"),
                    format_args!("bits 6 to {}, for example {:#x}", top.ilog2() - 1, top / 2),
                );
            }
        }
        Disturbance::Tweak { .. } => encryption("tweak", machine)?,
        Disturbance::Key { package, keyid: of, bit, .. } => {
            encryption("key-flip", machine)?;
            keyid(of, machine)?;
            let packages = machine.config().packages;
            if package >= packages {
                return refuse(format_args!("package {package}"), format_args!("0 to {}", packages - 1));
            }
            let algorithms = machine.cpu.mem.tme().features().capability as u32;
            if bit >= 128 && algorithms >> AES_XTS_256 & 1 == 0 {
                return refuse(format_args!("bit {bit}: this processor has 128-bit keys only"), "0 to 127");
            }
        }
        Disturbance::Exclude { .. } => encryption("exclude-flip", machine)?,
        Disturbance::WriteBack { keyid: Some(of), .. }
        | Disturbance::Flush { keyid: Some(of), .. }
        | Disturbance::Cache { keyid: of, .. } => keyid(of, machine)?,
        Disturbance::KeyidWire { bit, .. } => wire(bit, machine)?,
        Disturbance::PconfigBusy { .. } | Disturbance::PconfigEntropy { .. } => pconfig(machine)?,
        _ => {}
    }
    Ok(())
}

fn pconfig(machine: &Machine) -> Result<()> {
    if machine.cpu.mem.tme().features().has_pconfig {
        return Ok(());
    }
    refuse("this processor has no PCONFIG", "a --tme-profile with MKTME: default, client4, server6, server7")
}

fn trigger(trigger: &Trigger, machine: &Machine, limits: Limits) -> Result<()> {
    let behind = |from: u64| {
        if from < limits.until {
            return Ok(());
        }
        refuse(
            format_args!("{trigger} is not before the end of the run, --until icount:{}", limits.until),
            format_args!("a count below {}", limits.until),
        )
    };
    match trigger {
        Trigger::Icount(n) | Trigger::Random { from: n, .. } if *n < machine.cpu.icount() => {
            let now = machine.cpu.icount();
            refuse(
                format_args!("{trigger} has passed: the run begins at instruction {now}"),
                format_args!("a count from {now} on"),
            )
        }
        Trigger::Icount(n) => behind(*n),
        Trigger::Random { to, .. } => behind(to - 1),
        Trigger::Pc { place: CodeAddress::Linear(_), .. } | Trigger::Wrmsr { .. } | Trigger::Marker { .. } => Ok(()),
        Trigger::Pc { place: CodeAddress::Symbol(name), .. } => refuse(
            format_args!("{trigger}: nothing is known of `{name}`"),
            "a symbol of --symbols or -kernel, or an address",
        ),
        Trigger::Access { physical: true, address, .. } | Trigger::Exec { physical: true, address, .. } => {
            line(LineAddr(address >> 6), machine)
        }
        Trigger::Access { .. } | Trigger::Exec { .. } => Ok(()),
        Trigger::Line { line: at, keyid: of, .. } => {
            line(*at, machine)?;
            of.map_or(Ok(()), |of| keyid(of, machine))?;
            transfers(&trigger.to_string(), machine)
        }
        Trigger::Pconfig { .. } => pconfig(machine),
    }
}
