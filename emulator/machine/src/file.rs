//! Machine files: a [`Config`] as TOML (docs/machine-file.md).
//!
//! One table of knobs is the whole format: how each is read, how it is written, what it accepts.

use crate::Config;
use firmware::{Exclude, TmeSetting};
use mem::{CacheModel, LockedWrite, PACKAGES_MAX, Rate, TmeProfile, WbOrder};
use std::fmt::Write;
use thiserror::Error;
use toml::de::{DeTable, DeValue};

/// What is wrong with a machine file, and where.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("line {line}: {what}")]
pub struct FileError {
    /// From 1.
    pub line: usize,
    what: String,
}

/// A key of the file. Names are the command line's, with underscores.
struct Knob {
    name: &'static str,
    about: &'static str,
    accepted: &'static str,
    /// `None`: not accepted.
    set: fn(&mut Config, &Value) -> Option<()>,
    /// TOML. `None`: the user said nothing, and there is no value that means that.
    show: fn(&Config) -> Option<String>,
}

/// A value without its spelling.
#[derive(Debug, PartialEq, Eq)]
enum Value {
    Text(String),
    Number(u64),
    /// As written.
    Real(String),
    Switch(bool),
    Other,
}

impl Value {
    fn new(value: &DeValue<'_>) -> Value {
        match value {
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Boolean(on) => Value::Switch(*on),
            DeValue::Integer(n) => u64::from_str_radix(n.as_str(), n.radix()).map_or(Value::Other, Value::Number),
            DeValue::Float(x) => Value::Real(x.as_str().to_owned()),
            _ => Value::Other,
        }
    }

    fn text(&self) -> Option<&str> {
        if let Value::Text(text) = self { Some(text) } else { None }
    }

    fn number(&self) -> Option<u64> {
        if let Value::Number(n) = self { Some(*n) } else { None }
    }

    fn switch(&self) -> Option<bool> {
        if let Value::Switch(on) = self { Some(*on) } else { None }
    }

    fn rate(&self) -> Option<Rate> {
        match self {
            Value::Real(text) => text.parse().ok(),
            Value::Number(n) => n.to_string().parse().ok(),
            _ => None,
        }
    }

    /// A text with a binary suffix: a bare number could be taken for bytes or for MiB.
    fn size(&self) -> Option<u64> {
        let text = self.text()?;
        let (factor, _) = SIZES.iter().find(|(_, suffix)| text.ends_with(*suffix))?;
        let digits = &text[..text.len() - 1];
        // `parse` would take a plus sign.
        if !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        digits.parse::<u64>().ok()?.checked_mul(*factor)
    }
}

/// Largest first, so that sizes are written with the largest suffix that divides them.
const SIZES: [(u64, char); 4] = [(1 << 30, 'G'), (1 << 20, 'M'), (1 << 10, 'K'), (1, 'B')];

fn quoted_size(bytes: u64) -> String {
    let (factor, suffix) = SIZES.into_iter().find(|(factor, _)| bytes.is_multiple_of(*factor)).unwrap_or((1, 'B'));
    format!("\"{}{suffix}\"", bytes / factor)
}

fn quoted(name: &str) -> String {
    format!("\"{name}\"")
}

const SWITCH: &str = "true, false";
const RATE: &str = "0 to 1, in steps of 0.000001";

const KNOBS: &[Knob] = &[
    Knob {
        name: "memory",
        about: "RAM",
        accepted: "\"64M\" to \"8G\"",
        set: |c, v| v.size().map(|n| c.ram_bytes = n),
        show: |c| Some(quoted_size(c.ram_bytes)),
    },
    Knob {
        name: "tme_profile",
        about: "processor, as far as TME is concerned",
        accepted: "\"default\", \"client4\", \"server6\", \"server7\", \"tme-only\", \"none\"",
        set: |c, v| v.text()?.parse::<TmeProfile>().ok().map(|p| c.profile = p),
        show: |c| Some(quoted(c.profile.name())),
    },
    Knob {
        name: "tme",
        about: "BIOS setting; without it: on, if the processor has TME",
        accepted: "\"on\", \"off\", \"unlocked\", \"bypass\"",
        set: |c, v| v.text()?.parse::<TmeSetting>().ok().map(|s| c.setup.tme = Some(s)),
        show: |c| c.setup.tme.map(|s| quoted(tme_setting(s))),
    },
    Knob {
        name: "keyid_bits",
        about: "address bits that become KeyID bits; without it: all that the processor has",
        accepted: "0 to 15",
        set: |c, v| {
            let bits = u8::try_from(v.number()?).ok().filter(|bits| *bits <= 15)?;
            c.setup.keyid_bits = Some(bits);
            Some(())
        },
        show: |c| c.setup.keyid_bits.map(|bits| bits.to_string()),
    },
    Knob {
        name: "tme_exclude",
        about: "range that stays in clear for KeyID 0; without it: none",
        accepted: "\"BASE,SIZE\", for example \"0x10000000,64M\"",
        set: |c, v| v.text()?.parse::<Exclude>().ok().map(|range| c.setup.exclude = Some(range)),
        show: |c| c.setup.exclude.map(|Exclude { base, size }| format!("\"{base:#x},{size:#x}\"")),
    },
    Knob {
        name: "locked_write",
        about: "what a write to the locked 982H does (MC-07)",
        accepted: "\"gp\", \"ignore\"",
        set: |c, v| {
            c.locked_write = LOCKED_WRITES.iter().find(|(name, _)| v.text() == Some(*name))?.1;
            Some(())
        },
        show: |c| LOCKED_WRITES.iter().find(|(_, w)| *w == c.locked_write).map(|(name, _)| quoted(name)),
    },
    Knob {
        name: "pconfig_legacy_codes",
        about: "PCONFIG returns the old error codes (hardware specification 4.3)",
        accepted: SWITCH,
        set: |c, v| v.switch().map(|on| c.pconfig_legacy_codes = on),
        show: |c| Some(c.pconfig_legacy_codes.to_string()),
    },
    Knob {
        name: "tdx_partition",
        about: "982H[39:36] may reserve KeyIDs for TDX",
        accepted: SWITCH,
        set: |c, v| v.switch().map(|on| c.tdx_partition = on),
        show: |c| Some(c.tdx_partition.to_string()),
    },
    Knob {
        name: "integrity",
        about: "algorithms with a MAC for every line exist (docs/integrity.md)",
        accepted: SWITCH,
        set: |c, v| v.switch().map(|on| c.integrity = on),
        show: |c| Some(c.integrity.to_string()),
    },
    Knob {
        name: "pconfig_latency",
        about: "instructions for which the key table stays locked after PCONFIG (MC-23)",
        accepted: "0 to 18446744073709551615",
        set: |c, v| v.number().map(|n| c.knobs.pconfig_latency = n),
        show: |c| Some(c.knobs.pconfig_latency.to_string()),
    },
    Knob {
        name: "busy_rate",
        about: "how often PCONFIG finds the key table locked",
        accepted: RATE,
        set: |c, v| v.rate().map(|r| c.knobs.busy_rate = r),
        show: |c| Some(c.knobs.busy_rate.to_string()),
    },
    Knob {
        name: "entropy_fail_rate",
        about: "how often a draw for a random key fails",
        accepted: RATE,
        set: |c, v| v.rate().map(|r| c.knobs.entropy_fail_rate = r),
        show: |c| Some(c.knobs.entropy_fail_rate.to_string()),
    },
    Knob {
        name: "core_override",
        about: "fault: what the processor takes for 982H, in RDMSR and for 9FFH; without it: what the package has",
        accepted: "a value of 982H, for example 0x0005_0004_0000_0003",
        set: |c, v| v.number().map(|n| c.core_override = Some(n)),
        show: |c| c.core_override.map(|n| format!("{n:#018x}")),
    },
    Knob {
        name: "packages",
        about: "packages with their own key tables and DRAM; the processor is in the first",
        accepted: "1 to 8",
        set: |c, v| {
            usize::try_from(v.number()?).ok().filter(|n| (1..=PACKAGES_MAX).contains(n)).map(|n| c.packages = n)
        },
        show: |c| Some(c.packages.to_string()),
    },
    Knob {
        name: "cache",
        about: "cache model",
        accepted: "\"exact\", \"lazy\", \"off\"",
        set: |c, v| v.text()?.parse::<CacheModel>().ok().map(|model| c.cache = model),
        show: |c| Some(quoted(c.cache.name())),
    },
    Knob {
        name: "cache_size",
        about: "64 bytes * ways * a power of two",
        accepted: "a size, for example \"1M\"",
        set: |c, v| usize::try_from(v.size()?).ok().map(|n| c.cache_bytes = n),
        show: |c| Some(quoted_size(c.cache_bytes as u64)),
    },
    Knob {
        name: "cache_ways",
        about: "lines in a set",
        accepted: "1 to 64",
        set: |c, v| usize::try_from(v.number()?).ok().filter(|n| (1..=64).contains(n)).map(|n| c.cache_ways = n),
        show: |c| Some(c.cache_ways.to_string()),
    },
    Knob {
        name: "evict_rate",
        about: "how often a fill is preceded by an eviction of another line",
        accepted: RATE,
        set: |c, v| v.rate().map(|r| c.evict_rate = r),
        show: |c| Some(c.evict_rate.to_string()),
    },
    Knob {
        name: "prefetch",
        about: "how often a fill brings in the other line of its 128-byte pair, under the same KeyID",
        accepted: RATE,
        set: |c, v| v.rate().map(|r| c.prefetch = r),
        show: |c| Some(c.prefetch.to_string()),
    },
    Knob {
        name: "wb_order",
        about: "order of WBINVD's write-backs (MC-26)",
        accepted: "\"ascending\", \"descending\", \"seeded\", \"adversarial\"",
        set: |c, v| v.text()?.parse::<WbOrder>().ok().map(|order| c.wb_order = order),
        show: |c| Some(quoted(c.wb_order.name())),
    },
    Knob {
        name: "dma_device",
        about: "the DMA test device is on the PCI bus (docs/dma-device.md)",
        accepted: SWITCH,
        set: |c, v| v.switch().map(|on| c.dma_device = on),
        show: |c| Some(c.dma_device.to_string()),
    },
    Knob {
        name: "seed",
        about: "seed of everything random: keys, RDRAND",
        accepted: "0 to 18446744073709551615",
        set: |c, v| v.number().map(|n| c.seed = n),
        show: |c| Some(c.seed.to_string()),
    },
    Knob {
        name: "ips",
        about: "instructions in a second of the guest's time",
        accepted: "1_000 to 1_000_000_000_000",
        set: |c, v| v.number().filter(|n| (1_000..=1_000_000_000_000).contains(n)).map(|n| c.ips = n),
        show: |c| Some(c.ips.to_string()),
    },
    Knob {
        name: "fast_path",
        about: "host-side shortcuts for memory accesses; changes no result",
        accepted: SWITCH,
        set: |c, v| v.switch().map(|on| c.fast = on),
        show: |c| Some(c.fast.to_string()),
    },
    Knob {
        name: "links",
        about: "blocks of decoded code lead to each other without a fetch; changes no result",
        accepted: SWITCH,
        set: |c, v| v.switch().map(|on| c.links = on),
        show: |c| Some(c.links.to_string()),
    },
    Knob {
        name: "bulk_strings",
        about: "string instructions move up to a page at a time; changes no result",
        accepted: SWITCH,
        set: |c, v| v.switch().map(|on| c.bulk_strings = on),
        show: |c| Some(c.bulk_strings.to_string()),
    },
];

/// Knobs that change no result.
const HOST_KNOBS: [&str; 3] = ["fast_path", "links", "bulk_strings"];

/// Parameters of the hardware specification's Appendix A that no machine has yet, and why.
const ABSENT: [(&str, &str); 1] = [(
    "haw_reduced",
    "it shortens the host address width in the DMAR table (MC-29), and there is neither IOMMU nor DMAR table",
)];

/// `locked_write`, as it is written.
pub const LOCKED_WRITES: [(&str, LockedWrite); 2] = [("gp", LockedWrite::Gp), ("ignore", LockedWrite::Ignore)];

fn tme_setting(setting: TmeSetting) -> &'static str {
    match setting {
        TmeSetting::On => "on",
        TmeSetting::Off => "off",
        TmeSetting::Unlocked => "unlocked",
        TmeSetting::Bypass => "bypass",
    }
}

/// A knob that two machines have differently.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{knob} is {theirs} there and {ours} here")]
pub struct Difference {
    /// The key in a machine file.
    pub knob: &'static str,
    pub ours: String,
    pub theirs: String,
}

impl Config {
    /// The first knob, in the order of machine files, that a machine of this configuration and one of the other have
    /// differently. The host's shortcuts and the sanitizer do not count: they change no result.
    pub fn difference(&self, other: &Config) -> Option<Difference> {
        let unset = || "not set".to_owned();
        let found = KNOBS.iter().filter(|knob| !HOST_KNOBS.contains(&knob.name)).find_map(|knob| {
            let (ours, theirs) = ((knob.show)(self), (knob.show)(other));
            (ours != theirs).then(|| Difference {
                knob: knob.name,
                ours: ours.unwrap_or_else(unset),
                theirs: theirs.unwrap_or_else(unset),
            })
        });
        found.or_else(|| {
            let shown = |config: &Config| config.features.map_or_else(unset, |features| format!("{features:x?}"));
            let (ours, theirs) = (shown(self), shown(other));
            (ours != theirs).then_some(Difference { knob: "features", ours, theirs })
        })
    }

    /// Takes over the knobs that change no result.
    pub fn set_shortcuts(&mut self, from: &Config) {
        (self.fast, self.links, self.bulk_strings) = (from.fast, from.links, from.bulk_strings);
    }

    /// Takes over what a machine file says; the rest stays.
    ///
    /// # Errors
    /// The first line with something that is not TOML, not a key, or not a value of it. Values that do not fit together or do
    /// not fit the processor are found by [`crate::Machine::new`] and [`crate::Machine::power_on`].
    pub fn apply_file(&mut self, text: &str) -> Result<(), FileError> {
        let error = |at: usize, what: String| {
            let line = text.as_bytes()[..at.min(text.len())].iter().filter(|b| **b == b'\n').count() + 1;
            FileError { line, what }
        };
        let table = DeTable::parse(text).map_err(|e| {
            // Some messages have a second line with what was expected.
            let what = e.message().lines().collect::<Vec<_>>().join("; ");
            error(e.span().map_or(0, |span| span.start), what)
        })?;
        let mut entries: Vec<_> = table.get_ref().iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        for (key, value) in entries {
            let name: &str = key.get_ref();
            if let Some((_, why)) = ABSENT.iter().find(|(absent, _)| *absent == name) {
                return Err(error(key.span().start, format!("{name}: {why}; accepted: the file without it")));
            }
            let knob = KNOBS
                .iter()
                .find(|knob| knob.name == name)
                .ok_or_else(|| error(key.span().start, unknown_key(name)))?;
            (knob.set)(self, &Value::new(value.get_ref())).ok_or_else(|| {
                let written = &text[value.span()];
                let written = written.lines().next().unwrap_or_default();
                error(value.span().start, format!("{name} = {written}: accepted: {}", knob.accepted))
            })?;
        }
        Ok(())
    }

    /// The configuration as a machine file that gives the same one.
    pub fn to_file(&self) -> String {
        let mut file = String::new();
        for Knob { name, about, accepted, show, .. } in KNOBS {
            // Writing to a string cannot fail.
            let _ = match show(self) {
                Some(value) => write!(file, "# {about}\n# accepted: {accepted}\n{name} = {value}\n\n"),
                None => write!(file, "# {about}\n# accepted: {accepted}\n# {name} =\n\n"),
            };
        }
        file.truncate(file.trim_end().len());
        file.push('\n');
        file
    }
}

fn unknown_key(name: &str) -> String {
    let names = || KNOBS.iter().map(|knob| knob.name);
    let typed = name.replace('-', "_").to_lowercase();
    let near = names().map(|known| (distance(&typed, known), known)).min().filter(|(d, known)| *d * 2 <= known.len());
    match near {
        Some((_, near)) => format!("unknown key `{name}`; did you mean `{near}`?"),
        None => format!("unknown key `{name}`; accepted: {}", names().collect::<Vec<_>>().join(", ")),
    }
}

/// Characters to insert, delete or replace to get from one to the other (Levenshtein distance).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Config, String> {
        let mut config = Config::default();
        config.apply_file(text).map(|()| config).map_err(|e| e.to_string())
    }

    #[test]
    fn an_empty_file_is_the_default_machine() {
        assert_eq!(parsed("").unwrap(), Config::default());
        assert_eq!(parsed(&Config::default().to_file()).unwrap(), Config::default());
    }

    #[test]
    fn every_knob_survives_a_round_trip() {
        let text = "
            memory = '1100M'            # a comment
            tme_profile = 'server7'
            tme = 'bypass'
            keyid_bits = 0x5
            tme_exclude = '0x10000000,64M'
            locked_write = 'ignore'
            pconfig_legacy_codes = true
            tdx_partition = true
            integrity = true
            pconfig_latency = 1_000
            busy_rate = 0.25
            entropy_fail_rate = 1
            packages = 2
            cache = 'lazy'
            evict_rate = 1e-6
            prefetch = 0.5
            core_override = 0x0005_0004_0000_0003
            wb_order = 'adversarial'
            cache_size = '96K'
            cache_ways = 12
            dma_device = true
            seed = 18446744073709551615
            ips = 33_333_333
            fast_path = false
            links = false
            bulk_strings = false
        ";
        let config = parsed(text).unwrap();
        assert_eq!(config.ram_bytes, 1100 << 20);
        assert_eq!(config.profile, TmeProfile::Server7);
        assert_eq!(config.setup.tme, Some(TmeSetting::Bypass));
        assert_eq!(config.setup.keyid_bits, Some(5));
        assert_eq!(config.setup.exclude, Some(Exclude { base: 1 << 28, size: 64 << 20 }));
        assert_eq!(config.locked_write, LockedWrite::Ignore);
        assert_eq!((config.cache_bytes, config.cache_ways), (96 << 10, 12));
        assert_eq!((config.seed, config.ips), (u64::MAX, 33_333_333));
        assert_eq!((config.cache, config.wb_order), (CacheModel::Lazy, WbOrder::Adversarial));
        assert_eq!((config.packages, config.evict_rate.ppm(), config.prefetch.ppm()), (2, 1, 500_000));
        assert_eq!(config.core_override, Some(0x0005_0004_0000_0003));
        let knobs = config.knobs;
        assert_eq!((knobs.pconfig_latency, knobs.busy_rate.ppm()), (1_000, 250_000));
        assert_eq!(knobs.entropy_fail_rate, Rate::ALWAYS);
        assert!(config.pconfig_legacy_codes && config.tdx_partition && config.integrity && config.dma_device);
        assert!(!config.fast && !config.links && !config.bulk_strings);
        assert!(KNOBS.iter().all(|knob| text.contains(&format!(" {} =", knob.name))), "all knobs are in this test");
        assert_eq!(parsed(&config.to_file()).unwrap(), config);
    }

    #[test]
    fn what_the_file_does_not_say_stays() {
        let mut config = Config { seed: 7, ..Config::default() };
        config.apply_file("ips = 1000000\n").unwrap();
        assert_eq!((config.seed, config.ips), (7, 1_000_000));
    }

    #[test]
    fn unknown_keys_name_the_line_and_the_nearest_key() {
        for (text, line, near) in [
            ("\n\nmemroy = '1G'\n", 3, "memory"),
            ("seed = 1\ncache-size = '1M'", 2, "cache_size"),
            ("TME = 'on'", 1, "tme"),
            ("keyidbits = 4", 1, "keyid_bits"),
            ("dma_device = true\ndma_devise = true", 2, "dma_device"),
        ] {
            let message = parsed(text).unwrap_err();
            assert!(message.starts_with(&format!("line {line}: unknown key")), "{message}");
            assert!(message.ends_with(&format!("did you mean `{near}`?")), "{message}");
        }
        let message = parsed("[bios]\ntme = 'on'\n").unwrap_err();
        assert!(message.starts_with("line 1: unknown key `bios`; accepted: memory, tme_profile,"), "{message}");
    }

    #[test]
    fn parameters_that_no_machine_has_say_why() {
        for (name, _) in ABSENT {
            let message = parsed(&format!("seed = 1\n{name} = true\n")).unwrap_err();
            assert!(
                message.starts_with(&format!("line 2: {name}: ")) && message.contains("neither IOMMU"),
                "{message}"
            );
            assert!(KNOBS.iter().all(|knob| knob.name != name));
        }
    }

    #[test]
    fn values_name_the_line_and_what_is_accepted() {
        for knob in KNOBS {
            for value in ["'?'", "-1", "1.5", "[]", "2000-01-01", "1e3", "99999999999999999999999", "\"\""] {
                let message = parsed(&format!("# first\n{} = {value}\n", knob.name)).unwrap_err();
                assert_eq!(message, format!("line 2: {} = {value}: accepted: {}", knob.name, knob.accepted));
            }
        }
        for text in ["memory = 512", "memory = '512'", "memory = '+1M'", "memory = 'é'", "cache_ways = 65", "ips = 1"]
        {
            assert!(parsed(text).unwrap_err().contains("accepted:"), "{text}");
        }
        assert!(parsed("memory = '99999999999999G'").is_err(), "more bytes than 64 bits count");
    }

    #[test]
    fn what_is_not_toml_names_the_line() {
        for (text, line) in [("a", 1), ("seed = 1\nseed = 2\n", 2), ("seed = 1\nips = \n", 2), ("\nmemory = '1G\n", 2)]
        {
            let message = parsed(text).unwrap_err();
            assert!(message.starts_with(&format!("line {line}: ")) && !message.contains('\n'), "{message}");
        }
    }
}
