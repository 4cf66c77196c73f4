//! How faults are written: `TARGET key=value... at=TRIGGER [for=DURATION]`.

use super::spec::{CodeAddress, FaultSpec, Lasts, LineEvent, Target, Trigger};
use mem::{
    Bits, Disturbance, KeyField, KeyId, LINE_BITS, LateWriteBack, LineAddr, MAC_BITS, PhysAddr, Rate, Rowhammer, Way,
};
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// The grammar, for messages.
pub const GRAMMAR: &str = "TARGET key=value... at=TRIGGER [for=DURATION], as docs/faults.md has them";

/// A text that is no fault: what is wrong, and what is accepted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct SpecError(pub String);

type Result<T> = std::result::Result<T, SpecError>;

fn error<T>(message: impl Into<String>) -> Result<T> {
    Err(SpecError(message.into()))
}

/// Names of targets with their keys; those in brackets may be left out.
const TARGETS: [(&str, &str); 27] = [
    ("dram-flip", "line bit"),
    ("dram-stuck", "line bit value"),
    ("dram-intermittent", "line bit rate"),
    ("dram-decay", "rate"),
    ("mac-flip", "line bit"),
    ("rowhammer", "threshold rate [row-bytes] [banks] [window]"),
    ("bus-flip", "line bit [dir]"),
    ("replay", "line since"),
    ("splice", "line from [block]"),
    ("alias", "mask"),
    ("tweak", "[xor] [ignore] [dir]"),
    ("key-flip", "keyid field bit [package]"),
    ("exclude-flip", "register bit"),
    ("write-back-drop", "line [keyid]"),
    ("write-back-duplicate", "line [keyid]"),
    ("write-back-delay", "line [keyid] by"),
    ("flush-drop", "line [keyid]"),
    ("cache-flip", "line keyid bit"),
    ("keyid-wire", "bit value"),
    ("pconfig-busy", "[count]"),
    ("pconfig-entropy", "[count]"),
    ("random-fail", "[count]"),
    ("gpr-flip", "reg bit"),
    ("flags-flip", "bit"),
    ("msr-flip", "msr bit"),
    ("tlb-flip", "address bit"),
    ("pte-flip", "address level bit"),
];

const TRIGGERS: &str = "icount:N, random:FROM..TO, pc:ADDRESS or pc:SYMBOL, exec: or phys-exec:ADDRESS, read:, write: or access:ADDRESS (linear), phys-read:, \
                        phys-write: or phys-access:ADDRESS, fill:, write-back: or flush:LINE[,keyid=K], wrmsr:MSR, pconfig, \
                        marker[:VALUE]; all but the first two with [,nth=N]";

/// Registers by their number in encodings; RIP comes after them.
const REGISTERS: [&str; 17] = [
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rip",
];
const RIP: usize = 16;

/// A whole number: decimal, hexadecimal with 0x, with suffix K, M or G (thousands), or as 1.2e9.
pub fn number(text: &str) -> Option<u64> {
    if let Some(hex) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        return hex.bytes().all(|b| b.is_ascii_hexdigit()).then(|| u64::from_str_radix(hex, 16).ok()).flatten();
    }
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let (mantissa, exponent) = match text.as_bytes().last()? {
        b'K' | b'k' => (&text[..text.len() - 1], 3),
        b'M' | b'm' => (&text[..text.len() - 1], 6),
        b'G' | b'g' => (&text[..text.len() - 1], 9),
        _ => match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) if digits(exponent) => (mantissa, exponent.parse().ok()?),
            Some(_) => return None,
            None => (text, 0),
        },
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let fraction = fraction.trim_end_matches('0');
    if !digits(whole) || !digits(fraction) || whole.is_empty() || fraction.len() as u32 > exponent {
        return None;
    }
    let scale = 10u64.checked_pow(exponent - fraction.len() as u32)?;
    format!("{whole}{fraction}").parse::<u64>().ok()?.checked_mul(scale)
}

/// The keys of a fault, with what was given for them.
struct Keys<'a> {
    target: &'a str,
    given: Vec<(&'a str, &'a str)>,
}

impl<'a> Keys<'a> {
    fn optional(&self, key: &str) -> Option<&'a str> {
        self.given.iter().find(|(name, _)| *name == key).map(|(_, value)| *value)
    }

    fn text(&self, key: &str) -> Result<&'a str> {
        self.optional(key).ok_or_else(|| {
            let keys = TARGETS.iter().find(|(name, _)| *name == self.target).map_or("", |(_, keys)| keys);
            SpecError(format!("{}: {key}= is missing; accepted: {}", self.target, listed(keys)))
        })
    }

    fn refuse<T>(&self, key: &str, value: &str, accepted: impl fmt::Display) -> Result<T> {
        error(format!("{}: {key}={value}; accepted: {accepted}", self.target))
    }

    fn below(&self, key: &str, end: u64, accepted: impl fmt::Display) -> Result<u64> {
        let text = self.text(key)?;
        match number(text).filter(|n| *n < end) {
            Some(n) => Ok(n),
            None => self.refuse(key, text, accepted),
        }
    }

    fn number(&self, key: &str) -> Result<u64> {
        self.below(key, u64::MAX, "a number, for example 0x1000 or 4096")
    }

    fn bit(&self, end: u64) -> Result<u8> {
        Ok(self.below("bit", end, format_args!("0 to {}", end - 1))? as u8)
    }

    fn line(&self, key: &str) -> Result<LineAddr> {
        let text = self.text(key)?;
        line(text).or_else(|accepted| self.refuse(key, text, accepted))
    }

    fn bits(&self) -> Result<Bits> {
        let text = self.text("bit")?;
        let bits: Option<Vec<u16>> =
            text.split(',').map(|bit| number(bit).and_then(|n| u16::try_from(n).ok())).collect();
        match bits.and_then(Bits::new) {
            Some(bits) => Ok(bits),
            None => {
                self.refuse("bit", text, format_args!("bits of a line, 0 to {}, separated by commas", LINE_BITS - 1))
            }
        }
    }

    fn keyid(&self) -> Result<KeyId> {
        Ok(KeyId(self.below("keyid", 1 << 15, "a KeyID, 0 to 32767")? as u16))
    }

    fn any_keyid(&self) -> Result<Option<KeyId>> {
        self.optional("keyid").map(|_| self.keyid()).transpose()
    }

    fn value(&self) -> Result<bool> {
        Ok(self.below("value", 2, "0 or 1")? == 1)
    }

    fn way(&self) -> Result<Way> {
        match self.optional("dir") {
            None | Some("both") => Ok(Way::Both),
            Some("read") => Ok(Way::Read),
            Some("write") => Ok(Way::Write),
            Some(other) => self.refuse("dir", other, "read, write, both"),
        }
    }

    fn rate(&self) -> Result<Rate> {
        const ACCEPTED: &str = "a probability, 0.000001 to 1, in steps of 0.000001";
        let text = self.text("rate")?;
        match text.parse().ok().filter(|rate| *rate != Rate::NEVER) {
            Some(rate) => Ok(rate),
            None => self.refuse("rate", text, ACCEPTED),
        }
    }

    fn count(&self) -> Result<u32> {
        let Some(text) = self.optional("count") else { return Ok(1) };
        match number(text).filter(|n| (1..=COUNT_MAX).contains(n)) {
            Some(n) => Ok(n as u32),
            None => self.refuse("count", text, format_args!("1 to {COUNT_MAX}")),
        }
    }

    fn trigger(&self, key: &str) -> Result<Trigger> {
        trigger(self.text(key)?).map_err(|SpecError(e)| SpecError(format!("{}: {key}={e}", self.target)))
    }
}

/// Failures that are scripted at most.
const COUNT_MAX: u64 = 1 << 20;

/// `line bit [dir]` as `line=, bit=, [dir=]`, with what every fault has.
fn listed(keys: &str) -> String {
    let each = keys.split(' ').filter(|key| !key.is_empty()).map(|key| match key.strip_suffix(']') {
        Some(optional) => format!("{optional}=], "),
        None => format!("{key}=, "),
    });
    each.collect::<String>() + "at=, [for=], [draw=]"
}

fn line(text: &str) -> std::result::Result<LineAddr, &'static str> {
    const ACCEPTED: &str = "the physical address of a line, a multiple of 64 without KeyID";
    number(text).filter(|address| address.is_multiple_of(64)).map(|address| PhysAddr(address).line()).ok_or(ACCEPTED)
}

impl FromStr for FaultSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self> {
        let mut words = text.split_ascii_whitespace();
        let Some(target) = words.next() else { return error(format!("nothing is given; accepted: {GRAMMAR}")) };
        let Some((target, keys)) = TARGETS.iter().find(|(name, _)| *name == target) else {
            let names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
            return error(format!("unknown target `{target}`; accepted: {}", names.join(", ")));
        };
        let known = |key: &str| {
            let mut all = keys.split(' ').map(|key| key.trim_matches(['[', ']'])).chain(["at", "for", "draw"]);
            all.any(|name| name == key)
        };
        let mut given: Vec<(&str, &str)> = Vec::new();
        for word in words {
            match word.split_once('=') {
                Some((key, _)) if given.iter().any(|(name, _)| *name == key) => {
                    return error(format!("{target}: {key}= is given twice; accepted: once"));
                }
                Some((key, value)) if known(key) => given.push((key, value)),
                _ => return error(format!("{target}: unknown key `{word}`; accepted: {}", listed(keys))),
            }
        }
        let keys = Keys { target, given };
        let draw = match keys.optional("draw") {
            None => None,
            Some(text) => match number(text).and_then(|n| u32::try_from(n).ok()) {
                None => return keys.refuse("draw", text, "a number of 32 bits"),
                draw => draw,
            },
        };
        Ok(Self { target: parse_target(&keys)?, at: keys.trigger("at")?, lasts: lasts(&keys)?, draw })
    }
}

fn lasts(keys: &Keys<'_>) -> Result<Option<Lasts>> {
    let Some(text) = keys.optional("for") else { return Ok(None) };
    let parsed = match text.split_once(':') {
        Some(("icount", count)) => number(count).map(Lasts::Instructions),
        None if text == "ever" => Some(Lasts::Ever),
        None => number(text).map(Lasts::Times),
        Some(_) => None,
    };
    match parsed.filter(|lasts| !matches!(lasts, Lasts::Times(0) | Lasts::Instructions(0))) {
        Some(lasts) => Ok(Some(lasts)),
        None => keys.refuse("for", text, "a number of effects, icount:N, ever"),
    }
}

fn parse_target(keys: &Keys<'_>) -> Result<Target> {
    let write_back = |how| Ok(Disturbance::WriteBack { line: keys.line("line")?, keyid: keys.any_keyid()?, how });
    let disturbance = match keys.target {
        "dram-flip" => Disturbance::Flip { line: keys.line("line")?, bits: keys.bits()? },
        "dram-stuck" => Disturbance::Stuck { line: keys.line("line")?, bits: keys.bits()?, value: keys.value()? },
        "dram-intermittent" => {
            Disturbance::Intermittent { line: keys.line("line")?, bits: keys.bits()?, rate: keys.rate()? }
        }
        "dram-decay" => Disturbance::Decay { rate: keys.rate()? },
        "mac-flip" => {
            let bits = keys.bits()?;
            if bits.iter().any(|bit| bit >= MAC_BITS) {
                return keys.refuse("bit", keys.text("bit")?, format_args!("bits of a MAC, 0 to {}", MAC_BITS - 1));
            }
            Disturbance::Mac { line: keys.line("line")?, bits }
        }
        "rowhammer" => Disturbance::Rowhammer(rowhammer(keys)?),
        "bus-flip" => Disturbance::Bus { line: keys.line("line")?, bits: keys.bits()?, way: keys.way()? },
        "replay" => return Ok(Target::Replay { line: keys.line("line")?, since: keys.trigger("since")? }),
        "splice" => {
            let block = keys.optional("block").map(|_| keys.below("block", 4, "0 to 3")).transpose()?;
            Disturbance::Splice { line: keys.line("line")?, from: keys.line("from")?, block: block.map(|b| b as u8) }
        }
        "alias" => Disturbance::Alias { mask: keys.number("mask")? },
        "tweak" => {
            let of = |key| keys.optional(key).map_or(Ok(0), |_| keys.number(key));
            let (xor, ignore) = (of("xor")?, of("ignore")?);
            if xor | ignore == 0 {
                return error(
                    "tweak: changes nothing; accepted: xor=MASK, ignore=MASK or both, not 0 (bits of the line number)",
                );
            }
            Disturbance::Tweak { xor, ignore, way: keys.way()? }
        }
        "key-flip" => {
            let (field, end) = match keys.text("field")? {
                "k1" => (KeyField::K1, 256),
                "k2" => (KeyField::K2, 256),
                "alg" => (KeyField::Alg, 1),
                "mode" => (KeyField::Mode, 1),
                other => return keys.refuse("field", other, "k1, k2, alg, mode"),
            };
            let package = keys.optional("package").map_or(Ok(0), |_| keys.number("package"))?;
            let bit = keys.below("bit", end, format_args!("0 to {}", end - 1))? as u32;
            Disturbance::Key { package: package as usize, keyid: keys.keyid()?, field, bit }
        }
        "exclude-flip" => {
            let base = match keys.text("register")? {
                "mask" => false,
                "base" => true,
                other => return keys.refuse("register", other, "mask, base"),
            };
            Disturbance::Exclude { base, bit: u32::from(keys.bit(64)?) }
        }
        "write-back-drop" => write_back(LateWriteBack::Drop)?,
        "write-back-duplicate" => write_back(LateWriteBack::Duplicate)?,
        "write-back-delay" => {
            let text = keys.text("by")?;
            match number(text).filter(|n| *n > 0) {
                Some(by) => write_back(LateWriteBack::Delay(by))?,
                None => return keys.refuse("by", text, "a number of instructions"),
            }
        }
        "flush-drop" => Disturbance::Flush { line: keys.line("line")?, keyid: keys.any_keyid()? },
        "cache-flip" => Disturbance::Cache { line: keys.line("line")?, keyid: keys.keyid()?, bits: keys.bits()? },
        "keyid-wire" => Disturbance::KeyidWire { bit: keys.bit(15)?, value: keys.value()? },
        "pconfig-busy" => Disturbance::PconfigBusy { count: keys.count()? },
        "pconfig-entropy" => Disturbance::PconfigEntropy { count: keys.count()? },
        "random-fail" => Disturbance::Random { count: keys.count()? },
        "gpr-flip" => {
            let (name, bit) = (keys.text("reg")?, keys.bit(64)?);
            return match REGISTERS.iter().position(|register| *register == name) {
                Some(RIP) => Ok(Target::Rip { bit }),
                Some(register) => Ok(Target::Gpr { register: register as u8, bit }),
                None => keys.refuse("reg", name, REGISTERS.join(", ")),
            };
        }
        "flags-flip" => return Ok(Target::Flags { bit: keys.bit(64)? }),
        "msr-flip" => {
            let msr = keys.below("msr", 1 << 32, "the number of an MSR")? as u32;
            return Ok(Target::Msr { msr, bit: keys.bit(64)? });
        }
        "tlb-flip" => return Ok(Target::Tlb { address: keys.number("address")?, bit: keys.bit(15)? }),
        "pte-flip" => {
            let level = match keys.below("level", 5, "1 (page table) to 4 (PML4)")? {
                0 => return keys.refuse("level", "0", "1 (page table) to 4 (PML4)"),
                level => level as u8,
            };
            return Ok(Target::Pte { address: keys.number("address")?, level, bit: keys.bit(64)? });
        }
        other => return error(format!("unknown target `{other}`")),
    };
    Ok(Target::Memory(disturbance))
}

fn rowhammer(keys: &Keys<'_>) -> Result<Rowhammer> {
    let positive = |key, default: u64, end: u64| match keys.optional(key) {
        None => Ok(default),
        Some(text) => match number(text).filter(|n| (1..end).contains(n)) {
            Some(n) => Ok(n),
            None => keys.refuse(key, text, format_args!("1 to {}", end - 1)),
        },
    };
    keys.text("threshold")?;
    let row_bytes = match keys.optional("row-bytes") {
        None => Rowhammer::ROW_BYTES,
        Some(text) => match number(text).filter(|n| (64..=1 << 20).contains(n) && n.is_power_of_two()) {
            Some(n) => n as u32,
            None => return keys.refuse("row-bytes", text, "a power of two, 64 to 1048576"),
        },
    };
    Ok(Rowhammer {
        threshold: positive("threshold", 1, u64::MAX)?,
        rate: keys.rate()?,
        row_bytes,
        banks: positive("banks", Rowhammer::BANKS.into(), 1 << 10)? as u16,
        window: positive("window", Rowhammer::WINDOW, u64::MAX)?,
    })
}

fn trigger(text: &str) -> Result<Trigger> {
    let refuse = |accepted: &str| error(format!("{text}; accepted: {accepted}"));
    let mut parts = text.split(',');
    let first = parts.next().unwrap_or_default();
    let (kind, argument) = match first.split_once(':') {
        Some((kind, argument)) => (kind, Some(argument)),
        None => (first, None),
    };
    let counted = !matches!(kind, "icount" | "random");
    let (mut nth, mut keyid) = (1, None);
    for part in parts {
        match part.split_once('=') {
            Some(("nth", n)) if counted => match number(n).filter(|n| *n > 0) {
                Some(n) => nth = n,
                None => return refuse("nth=1 and up"),
            },
            Some(("keyid", k)) if matches!(kind, "fill" | "write-back" | "flush") => {
                match number(k).filter(|k| *k < 1 << 15) {
                    Some(k) => keyid = Some(KeyId(k as u16)),
                    None => return refuse("keyid=0 to 32767"),
                }
            }
            _ => return refuse(TRIGGERS),
        }
    }
    let argument_number = argument.and_then(number);
    let access = |physical, read, write| match argument_number {
        Some(address) => Ok(Trigger::Access { physical, address, read, write, nth }),
        None => refuse("an address, for example read:0x1000"),
    };
    let exec = |physical| match argument_number {
        Some(address) => Ok(Trigger::Exec { physical, address, nth }),
        None => refuse("an address, for example exec:0x1000"),
    };
    let line_event = |event| match line(argument.unwrap_or_default()) {
        Ok(line) => Ok(Trigger::Line { event, line, keyid, nth }),
        Err(accepted) => refuse(accepted),
    };
    match kind {
        "icount" => match argument_number {
            Some(n) => Ok(Trigger::Icount(n)),
            None => refuse("icount: and a number of instructions, for example 1.2e9 or 300M"),
        },
        "random" => {
            let bounds = argument.and_then(|range| range.split_once(".."));
            match bounds.and_then(|(from, to)| Some((number(from)?, number(to)?))) {
                Some((from, to)) if from < to => Ok(Trigger::Random { from, to }),
                _ => refuse("random:FROM..TO, two numbers of instructions, the second larger"),
            }
        }
        "pc" => match (argument, argument_number) {
            (_, Some(address)) => Ok(Trigger::Pc { place: CodeAddress::Linear(address), nth }),
            (Some(name), None) if is_symbol(name) => {
                Ok(Trigger::Pc { place: CodeAddress::Symbol(name.to_owned()), nth })
            }
            _ => refuse("pc: and an address or the name of a symbol"),
        },
        "exec" => exec(false),
        "phys-exec" => exec(true),
        "read" => access(false, true, false),
        "write" => access(false, false, true),
        "access" => access(false, true, true),
        "phys-read" => access(true, true, false),
        "phys-write" => access(true, false, true),
        "phys-access" => access(true, true, true),
        "fill" => line_event(LineEvent::Fill),
        "write-back" => line_event(LineEvent::WriteBack),
        "flush" => line_event(LineEvent::Flush),
        "wrmsr" => match argument_number.and_then(|msr| u32::try_from(msr).ok()) {
            Some(msr) => Ok(Trigger::Wrmsr { msr, nth }),
            None => refuse("wrmsr: and the number of an MSR, for example 0x982"),
        },
        "pconfig" if argument.is_none() => Ok(Trigger::Pconfig { nth }),
        "marker" => match (argument, argument_number.and_then(|value| u32::try_from(value).ok())) {
            (None, _) => Ok(Trigger::Marker { value: None, nth }),
            (_, Some(value)) => Ok(Trigger::Marker { value: Some(value), nth }),
            _ => refuse("marker, or marker: and a value of 32 bits"),
        },
        _ => refuse(TRIGGERS),
    }
}

/// Not a number, and nothing that the grammar would take apart.
fn is_symbol(name: &str) -> bool {
    let starts = name.bytes().next().is_some_and(|b| !b.is_ascii_digit());
    starts && name.bytes().all(|b| b.is_ascii_graphic() && b != b',')
}

impl fmt::Display for FaultSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at={}", self.target, self.at)?;
        match self.lasts {
            None => {}
            Some(Lasts::Times(n)) => write!(f, " for={n}")?,
            Some(Lasts::Instructions(n)) => write!(f, " for=icount:{n}")?,
            Some(Lasts::Ever) => write!(f, " for=ever")?,
        }
        self.draw.map_or(Ok(()), |draw| write!(f, " draw={draw}"))
    }
}

fn join(bits: &Bits) -> String {
    bits.iter().map(|bit| bit.to_string()).collect::<Vec<_>>().join(",")
}

fn with_keyid(keyid: Option<KeyId>) -> String {
    keyid.map(|keyid| format!(" keyid={}", keyid.0)).unwrap_or_default()
}

fn way_name(way: Way) -> &'static str {
    match way {
        Way::Read => "read",
        Way::Write => "write",
        Way::Both => "both",
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let disturbance = match self {
            Self::Memory(disturbance) => disturbance,
            Self::Replay { line, since } => return write!(f, "replay line={} since={since}", line.start()),
            Self::Gpr { register, bit } => {
                return write!(f, "gpr-flip reg={} bit={bit}", REGISTERS[usize::from(*register) % RIP]);
            }
            Self::Rip { bit } => return write!(f, "gpr-flip reg=rip bit={bit}"),
            Self::Flags { bit } => return write!(f, "flags-flip bit={bit}"),
            Self::Msr { msr, bit } => return write!(f, "msr-flip msr={msr:#x} bit={bit}"),
            Self::Tlb { address, bit } => return write!(f, "tlb-flip address={address:#x} bit={bit}"),
            Self::Pte { address, level, bit } => {
                return write!(f, "pte-flip address={address:#x} level={level} bit={bit}");
            }
        };
        match disturbance {
            Disturbance::Flip { line, bits } => write!(f, "dram-flip line={} bit={}", line.start(), join(bits)),
            Disturbance::Stuck { line, bits, value } => {
                write!(f, "dram-stuck line={} bit={} value={}", line.start(), join(bits), u8::from(*value))
            }
            Disturbance::Intermittent { line, bits, rate } => {
                write!(f, "dram-intermittent line={} bit={} rate={rate}", line.start(), join(bits))
            }
            Disturbance::Mac { line, bits } => write!(f, "mac-flip line={} bit={}", line.start(), join(bits)),
            Disturbance::Rowhammer(Rowhammer { threshold, rate, row_bytes, banks, window }) => write!(
                f,
                "rowhammer threshold={threshold} rate={rate} row-bytes={row_bytes} banks={banks} window={window}"
            ),
            Disturbance::Bus { line, bits, way } => {
                write!(f, "bus-flip line={} bit={} dir={}", line.start(), join(bits), way_name(*way))
            }
            Disturbance::Decay { rate } => write!(f, "dram-decay rate={rate}"),
            // As a target of its own it has its second trigger.
            Disturbance::Replay { line } => write!(f, "replay line={}", line.start()),
            Disturbance::Splice { line, from, block } => {
                write!(f, "splice line={} from={}", line.start(), from.start())?;
                block.map_or(Ok(()), |block| write!(f, " block={block}"))
            }
            Disturbance::Alias { mask } => write!(f, "alias mask={mask:#x}"),
            Disturbance::Tweak { xor, ignore, way } => {
                write!(f, "tweak xor={xor:#x} ignore={ignore:#x} dir={}", way_name(*way))
            }
            Disturbance::Key { package, keyid, field, bit } => {
                let field = match field {
                    KeyField::K1 => "k1",
                    KeyField::K2 => "k2",
                    KeyField::Alg => "alg",
                    KeyField::Mode => "mode",
                };
                write!(f, "key-flip keyid={} field={field} bit={bit}", keyid.0)?;
                if *package == 0 { Ok(()) } else { write!(f, " package={package}") }
            }
            Disturbance::Exclude { base, bit } => {
                write!(f, "exclude-flip register={} bit={bit}", if *base { "base" } else { "mask" })
            }
            Disturbance::WriteBack { line, keyid, how } => {
                let (name, by) = match how {
                    LateWriteBack::Drop => ("drop", String::new()),
                    LateWriteBack::Duplicate => ("duplicate", String::new()),
                    LateWriteBack::Delay(by) => ("delay", format!(" by={by}")),
                };
                write!(f, "write-back-{name} line={}{}{by}", line.start(), with_keyid(*keyid))
            }
            Disturbance::Flush { line, keyid } => {
                write!(f, "flush-drop line={}{}", line.start(), with_keyid(*keyid))
            }
            Disturbance::Cache { line, keyid, bits } => {
                write!(f, "cache-flip line={} keyid={} bit={}", line.start(), keyid.0, join(bits))
            }
            Disturbance::KeyidWire { bit, value } => write!(f, "keyid-wire bit={bit} value={}", u8::from(*value)),
            Disturbance::PconfigBusy { count } => write!(f, "pconfig-busy count={count}"),
            Disturbance::PconfigEntropy { count } => write!(f, "pconfig-entropy count={count}"),
            Disturbance::Random { count } => write!(f, "random-fail count={count}"),
        }
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nth = match self {
            Self::Icount(n) => return write!(f, "icount:{n}"),
            Self::Random { from, to } => return write!(f, "random:{from}..{to}"),
            Self::Pc { place, nth } => {
                match place {
                    CodeAddress::Linear(address) => write!(f, "pc:{address:#x}")?,
                    CodeAddress::Symbol(name) => write!(f, "pc:{name}")?,
                }
                nth
            }
            Self::Exec { physical, address, nth } => {
                let space = if *physical { "phys-" } else { "" };
                write!(f, "{space}exec:{address:#x}")?;
                nth
            }
            Self::Access { physical, address, read, write, nth } => {
                let space = if *physical { "phys-" } else { "" };
                let kind = match (read, write) {
                    (true, true) => "access",
                    (true, false) => "read",
                    _ => "write",
                };
                write!(f, "{space}{kind}:{address:#x}")?;
                nth
            }
            Self::Line { event, line, keyid, nth } => {
                let event = match event {
                    LineEvent::Fill => "fill",
                    LineEvent::WriteBack => "write-back",
                    LineEvent::Flush => "flush",
                };
                write!(f, "{event}:{}", line.start())?;
                if let Some(keyid) = keyid {
                    write!(f, ",keyid={}", keyid.0)?;
                }
                nth
            }
            Self::Wrmsr { msr, nth } => {
                write!(f, "wrmsr:{msr:#x}")?;
                nth
            }
            Self::Pconfig { nth } => {
                write!(f, "pconfig")?;
                nth
            }
            Self::Marker { value, nth } => {
                write!(f, "marker")?;
                if let Some(value) = value {
                    write!(f, ":{value:#x}")?;
                }
                nth
            }
        };
        if *nth == 1 { Ok(()) } else { write!(f, ",nth={nth}") }
    }
}
