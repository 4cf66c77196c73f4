//! How values on the command line are written.

use crate::outcome::Failure;
use crypto::{Backend, Features};
use firmware::{Exclude, TmeSetting};
use mem::{CacheModel, LockedWrite, PACKAGES_MAX, Rate, TmeProfile, WbOrder};
use regex::bytes::Regex;
use std::path::PathBuf;
use std::str::FromStr;

/// A number with one of the suffixes, each a factor.
fn scaled(text: &str, suffixes: &[(char, u64)]) -> Option<u64> {
    let last = text.chars().last()?.to_ascii_uppercase();
    let factor = suffixes.iter().find(|(c, _)| *c == last).map(|(_, f)| *f);
    let digits = if factor.is_some() { &text[..text.len() - 1] } else { text };
    // `parse` would take a plus sign.
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(factor.unwrap_or(1))
}

const BINARY: [(char, u64); 5] = [('B', 1), ('K', 1 << 10), ('M', 1 << 20), ('G', 1 << 30), ('T', 1 << 40)];
const DECIMAL: [(char, u64); 3] = [('K', 1_000), ('M', 1_000_000), ('G', 1_000_000_000)];

/// A memory size as QEMU writes it: a plain number is MiB.
pub fn memory_size(text: &str) -> Result<u64, String> {
    let plain = text.bytes().last().is_some_and(|b| b.is_ascii_digit());
    let bytes = scaled(text, &BINARY).and_then(|n| if plain { n.checked_mul(1 << 20) } else { Some(n) });
    bytes.ok_or_else(|| "accepted: a number of MiB, or a number with suffix B, K, M, G or T, for example 512M".into())
}

/// A size in bytes; K, M and G are binary.
pub fn byte_size(text: &str) -> Result<usize, String> {
    let bytes = scaled(text, &BINARY).and_then(|n| usize::try_from(n).ok());
    bytes.ok_or_else(|| "accepted: a number of bytes, or a number with suffix K, M or G, for example 1M".into())
}

/// A physical address: hexadecimal with 0x, or decimal with an optional suffix.
pub fn address(text: &str) -> Result<u64, String> {
    let value = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        // `from_str_radix` would take a plus sign.
        Some(hex) if hex.bytes().all(|b| b.is_ascii_hexdigit()) => u64::from_str_radix(hex, 16).ok(),
        Some(_) => None,
        None => scaled(text, &BINARY),
    };
    value.ok_or_else(|| "accepted: an address, for example 0x100000 or 1M".into())
}

/// A count; K, M and G are decimal.
pub fn count(text: &str) -> Result<u64, String> {
    scaled(text, &DECIMAL)
        .ok_or_else(|| "accepted: a number, with suffix K, M or G for thousands, millions, ...".into())
}

/// Instructions per second of virtual time.
pub fn ips(text: &str) -> Result<u64, String> {
    const ACCEPTED: std::ops::RangeInclusive<u64> = 1_000..=1_000_000_000_000;
    scaled(text, &DECIMAL)
        .filter(|n| ACCEPTED.contains(n))
        .ok_or_else(|| "accepted: 1K to 1000G instructions a second, for example 100M".into())
}

/// `--tme-profile`
pub fn profile(text: &str) -> Result<TmeProfile, String> {
    text.parse().map_err(|_| {
        let names: Vec<&str> = TmeProfile::ALL.iter().map(|p| p.name()).collect();
        format!("accepted: {}", names.join(", "))
    })
}

/// `--cache`
pub fn cache_model(text: &str) -> Result<CacheModel, String> {
    text.parse().map_err(|_| format!("accepted: {}", CacheModel::ALL.map(CacheModel::name).join(", ")))
}

/// `--wb-order`
pub fn wb_order(text: &str) -> Result<WbOrder, String> {
    text.parse().map_err(|_| format!("accepted: {}", WbOrder::ALL.map(WbOrder::name).join(", ")))
}

/// `--locked-write`
pub fn locked_write(text: &str) -> Result<LockedWrite, String> {
    let known = machine::LOCKED_WRITES.iter().find(|(name, _)| *name == text);
    known.map(|(_, what)| *what).ok_or_else(|| "accepted: gp, ignore".into())
}

/// A probability.
pub fn rate(text: &str) -> Result<Rate, String> {
    text.parse().map_err(|_| "accepted: a number from 0 to 1, in steps of 0.000001".into())
}

/// `--packages`
pub fn packages(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|n| (1..=PACKAGES_MAX).contains(n));
    number.ok_or_else(|| format!("accepted: 1 to {PACKAGES_MAX}"))
}

/// The value of an MSR.
pub fn msr_value(text: &str) -> Result<u64, String> {
    address(text).map_err(|_| "accepted: 64 bits, for example 0x0005000400000003".into())
}

/// `--tme`
pub fn tme_setting(text: &str) -> Result<TmeSetting, String> {
    text.parse().map_err(|_| "accepted: on, off, unlocked, bypass".into())
}

/// `--tme-exclude`
pub fn exclude(text: &str) -> Result<Exclude, String> {
    text.parse().map_err(|_| {
        "accepted: BASE,SIZE, two numbers (decimal or 0x..., suffix K, M or G), for example 0x10000000,64M".into()
    })
}

/// `--aes-backend`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AesBackend {
    /// The fastest that the host can run.
    Auto,
    Only(Backend),
}

impl AesBackend {
    /// Makes it what this process encrypts with.
    ///
    /// # Errors
    /// One that the host cannot run.
    pub fn choose(self) -> crate::Result<()> {
        let Self::Only(backend) = self else { return Ok(()) };
        self.check(Features::of_host()).map_err(Failure::Usage)?;
        backend.choose().map_err(|e| Failure::Usage(format!("--aes-backend {backend}: {e}")))
    }

    /// Refuses what a processor cannot run, and names what it can.
    fn check(self, features: Features) -> Result<(), String> {
        match self {
            Self::Only(backend) if !backend.runs_on(features) => {
                let names: Vec<&str> = Backend::of(features).map(Backend::name).collect();
                Err(format!(
                    "--aes-backend {backend}: this processor lacks the instructions; accepted: auto, {}",
                    names.join(", ")
                ))
            }
            _ => Ok(()),
        }
    }

    /// Those that it stands for.
    pub fn backends(self) -> Vec<Backend> {
        match self {
            Self::Auto => Backend::available().collect(),
            Self::Only(backend) => vec![backend],
        }
    }
}

/// `--aes-backend`
pub fn aes_backend(text: &str) -> Result<AesBackend, String> {
    if text == "auto" {
        return Ok(AesBackend::Auto);
    }
    text.parse().map(AesBackend::Only).map_err(|_| {
        let names = Backend::ALL.map(Backend::name);
        format!("accepted: auto, {}", names.join(", "))
    })
}

/// A condition of `--until`.
#[derive(Debug, Clone)]
pub enum Until {
    /// This many instructions have retired.
    Icount(u64),
    /// The instruction at this RIP is next.
    Pc(u64),
    /// A line of console output matches.
    Console(Regex),
}

impl FromStr for Until {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const ACCEPTED: &str = "accepted: icount:N, pc:ADDRESS (hexadecimal), console:REGEX";
        let (kind, rest) = text.split_once(':').ok_or(ACCEPTED)?;
        match kind {
            "icount" => Ok(Until::Icount(count(rest)?)),
            "pc" => {
                let digits = rest.strip_prefix("0x").or_else(|| rest.strip_prefix("0X")).unwrap_or(rest);
                let address = u64::from_str_radix(digits, 16);
                address.map(Until::Pc).map_err(|_| "accepted: pc: and a hexadecimal address".into())
            }
            "console" => regex(rest).map(Until::Console),
            _ => Err(ACCEPTED.into()),
        }
    }
}

/// A regular expression, or why it is none, on one line.
pub fn regex(text: &str) -> Result<Regex, String> {
    if text.is_empty() {
        return Err("accepted: a regular expression that is not empty".into());
    }
    Regex::new(text).map_err(|e| {
        let message = e.to_string();
        let last = message.lines().last().unwrap_or_default().trim().trim_start_matches("error: ").to_owned();
        format!("not a regular expression ({last}); accepted: the syntax of Rust's regex crate")
    })
}

/// `-serial`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SerialSink {
    Stdio,
    File(PathBuf),
    None,
}

impl FromStr for SerialSink {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "stdio" => Ok(SerialSink::Stdio),
            None if text == "none" => Ok(SerialSink::None),
            Some(("mon", "stdio")) => Ok(SerialSink::Stdio),
            Some(("file", path)) if !path.is_empty() => Ok(SerialSink::File(path.into())),
            _ => Err("accepted: stdio, file:PATH, none".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_sizes_are_written_as_for_qemu() {
        for (text, bytes) in [("512", 512 << 20), ("512M", 512 << 20), ("2G", 2 << 30), ("65536k", 64 << 20)] {
            assert_eq!(memory_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "M", "-1", "+1", "1.5G", "12X", "99999999999T", "é"] {
            assert!(memory_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_are_hexadecimal_with_0x_and_decimal_otherwise() {
        for (text, value) in [("0x7C00", 0x7C00), ("0X10", 16), ("16", 16), ("1M", 1 << 20)] {
            assert_eq!(address(text), Ok(value), "{text}");
        }
        for text in ["", "0x", "0x+1", "7C00", "-1"] {
            assert!(address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn conditions_parse_and_say_what_they_accept() {
        assert!(matches!("icount:5M".parse(), Ok(Until::Icount(5_000_000))));
        assert!(matches!("pc:0xffffffff81000000".parse(), Ok(Until::Pc(0xFFFF_FFFF_8100_0000))));
        assert!(matches!("console:a:b".parse(), Ok(Until::Console(r)) if r.as_str() == "a:b"));
        for text in ["", "icount", "icount:x", "pc:zz", "console:(", "console:", "time:1"] {
            assert!(text.parse::<Until>().unwrap_err().contains("accepted:"), "{text}");
        }
    }

    #[test]
    fn a_backend_is_refused_on_processors_that_lack_its_instructions() {
        let old = Features { aes: true, avx2: true, ..Features::default() };
        for backend in Backend::ALL {
            let refusal = AesBackend::Only(backend).check(old).err();
            let expected = [Backend::Vaes256, Backend::Vaes512].contains(&backend).then(|| {
                format!(
                    "--aes-backend {backend}: this processor lacks the instructions; accepted: auto, portable, aesni"
                )
            });
            assert_eq!(refusal, expected);
            assert_eq!(AesBackend::Only(backend).check(Features::default()).is_ok(), backend == Backend::Portable);
        }
        assert_eq!(AesBackend::Auto.check(Features::default()), Ok(()));
    }

    #[test]
    fn the_serial_port_goes_to_one_of_three_places() {
        assert_eq!("mon:stdio".parse(), Ok(SerialSink::Stdio));
        assert_eq!("file:a:b".parse(), Ok(SerialSink::File("a:b".into())));
        assert!("file:".parse::<SerialSink>().is_err());
    }
}
