//! What a package and its memory are made of (MK specification, Appendix A), and the rules for it.

use std::fmt;
use std::str::FromStr;

use crate::addr::{LINE_BYTES, PAGE_BYTES, PhysAddr};
use crate::cache::{CACHE_BYTES_MAX, CACHE_WAYS_MAX};
use crate::map::AddressMap;
use crate::profile::{TmeFeatures, TmeProfile};
use crate::rate::Rate;
use crate::tme::{Knobs, LockedWrite};

/// Cache models (MC-27).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum CacheModel {
    /// Sets and ways; the victim is the oldest fill of its set.
    #[default]
    Exact,
    /// Unbounded: a line leaves only by a flush, WBINVD, INVD, a write that bypasses the caches, or reset. Host memory:
    /// up to 4.1 KiB for each (page, KeyID) with a line in the cache, so up to RAM times the KeyIDs in use.
    Lazy,
    /// Results as if every access went to DRAM at once.
    Off,
}

/// The order in which WBINVD and WBNOINVD write back dirty lines (MC-26). Capacity victims are not concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum WbOrder {
    /// Ascending full PA: of dirty aliases, the one with the highest KeyID survives.
    #[default]
    Ascending,
    /// Descending full PA: the one with the lowest KeyID survives.
    Descending,
    /// A permutation drawn from the machine's seed, another one each time.
    Seeded,
    /// What loses most: of dirty aliases, the one survives that differs in the fewest bytes from what
    /// DRAM holds for it.
    Adversarial,
}

macro_rules! names {
    ($type:ident, $error:ident, $what:literal, $($variant:ident => $name:literal),+) => {
        impl $type {
            /// Every value.
            pub const ALL: [Self; [$($name),+].len()] = [$(Self::$variant),+];

            /// The name users type.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name),+
                }
            }
        }

        #[doc = concat!("The name is not that of a ", $what, ".")]
        #[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
        #[error("unknown {what} `{name}`: expected one of {names}", what = $what, names = [$($name),+].join(", "))]
        pub struct $error {
            name: String,
        }

        impl FromStr for $type {
            type Err = $error;

            fn from_str(name: &str) -> Result<Self, $error> {
                Self::ALL.into_iter().find(|value| value.name() == name).ok_or_else(|| $error { name: name.to_owned() })
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}
names!(CacheModel, UnknownCacheModel, "cache model", Exact => "exact", Lazy => "lazy", Off => "off");
names!(WbOrder, UnknownWbOrder, "write-back order",
    Ascending => "ascending", Descending => "descending", Seeded => "seeded", Adversarial => "adversarial");

/// What a package and its memory are made of.
#[derive(Debug, Clone)]
pub struct Config {
    /// RAM in bytes: a multiple of 4 KiB, at least 1 MiB.
    pub ram_bytes: u64,
    /// The processor.
    pub profile: TmeProfile,
    /// What the processor enumerates, where it is not what its profile says (MC-02).
    pub features: Option<TmeFeatures>,
    /// Cache model (MC-27).
    pub cache: CacheModel,
    /// Cache size of [`CacheModel::Exact`]; with `cache_ways` it must give a power-of-two number of sets.
    pub cache_bytes: usize,
    /// Lines per set of [`CacheModel::Exact`], 1 to 64.
    pub cache_ways: usize,
    /// In which order WBINVD and WBNOINVD write back (MC-26).
    pub wb_order: WbOrder,
    /// Probability that a fill is preceded by the eviction of some other line. Without effect on [`CacheModel::Off`].
    pub evict_rate: Rate,
    /// Probability that a fill brings in the other line of its 128-byte pair as well, as the spatial prefetcher of Intel's
    /// processors does: under the same KeyID, into a clean line. Without effect on [`CacheModel::Off`].
    pub prefetch: Rate,
    /// Packages, 1 to [`PACKAGES_MAX`]. Each has its own TME state and encrypts an equal, contiguous part of RAM.
    pub packages: usize,
    /// Faults and delays of PCONFIG, the same for every package.
    pub knobs: Knobs,
    /// Seed of every random generator.
    pub seed: u64,
    /// MC-07.
    pub locked_write: LockedWrite,
    /// The TDX option: 982H\[39:36\] may be set.
    pub tdx_partition: bool,
    /// The integrity option (MC-32): for each algorithm the processor has its variant with a MAC, too.
    pub integrity: bool,
    /// False: no fast bits, every access is a slow one. Changes nothing that the guest sees.
    pub fast: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            ram_bytes: 512 << 20,
            profile: TmeProfile::Default,
            features: None,
            cache: CacheModel::Exact,
            cache_bytes: 1 << 20,
            cache_ways: 16,
            wb_order: WbOrder::Ascending,
            evict_rate: Rate::NEVER,
            prefetch: Rate::NEVER,
            packages: 1,
            knobs: Knobs::default(),
            seed: 0,
            locked_write: LockedWrite::Gp,
            tdx_partition: false,
            integrity: false,
            fast: true,
        }
    }
}

/// Most packages: what Xeon systems reach without node controllers.
pub const PACKAGES_MAX: usize = 8;
/// Least RAM: what a PC has below the first mebibyte.
const RAM_BYTES_MIN: u64 = 1 << 20;

/// A [`Config`] that cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// RAM too small or not whole pages.
    #[error("{0} bytes of RAM: expected a multiple of 4096, at least 1 MiB")]
    RamSize(u64),
    /// RAM would reach into the KeyID bits.
    #[error(
        "{ram_bytes} bytes of RAM do not fit below 2^{memory_bits}, where the KeyID bits of profile {profile} start"
    )]
    RamBeyondKeyid { ram_bytes: u64, memory_bits: u32, profile: TmeProfile },
    /// Ways out of range.
    #[error("a cache with {0} ways: expected 1 to 64")]
    CacheWays(usize),
    /// Sets not a power of two, or too large.
    #[error("a cache of {bytes} bytes with {ways} ways: expected 64 * {ways} * 2^n bytes, at most 1 GiB")]
    CacheSize { bytes: usize, ways: usize },
    /// Integrity without KeyIDs to program.
    #[error(
        "integrity: a processor of profile {0} has no keys to program with an algorithm with integrity; accepted: a profile with MKTME, or integrity off"
    )]
    IntegrityWithoutKeys(TmeProfile),
    /// Packages out of range.
    #[error("{0} packages: expected 1 to 8")]
    Packages(usize),
}

impl Config {
    /// What the processor enumerates.
    pub fn features(&self) -> TmeFeatures {
        let features = self.features.unwrap_or(self.profile.features());
        if self.integrity { features.with_integrity() } else { features }
    }

    /// Checks every rule.
    ///
    /// # Errors
    /// The first rule that does not hold.
    pub fn check(&self) -> Result<(), ConfigError> {
        let Self { ram_bytes, cache_bytes: bytes, cache_ways: ways, profile, packages, .. } = *self;
        let features = self.features();
        if ram_bytes < RAM_BYTES_MIN || !ram_bytes.is_multiple_of(PAGE_BYTES as u64) {
            return Err(ConfigError::RamSize(ram_bytes));
        }
        // Checked for the largest k, so that activation can never turn RAM addresses into KeyIDs.
        let memory_bits = u32::from(features.maxphyaddr - features.max_keyid_bits());
        let limit = PhysAddr(1 << memory_bits);
        if ram_bytes > limit.0 || AddressMap::new(ram_bytes).top() > limit {
            return Err(ConfigError::RamBeyondKeyid { ram_bytes, memory_bits, profile });
        }
        if !(1..=CACHE_WAYS_MAX).contains(&ways) {
            return Err(ConfigError::CacheWays(ways));
        }
        let sets = bytes / (LINE_BYTES * ways);
        if !sets.is_power_of_two() || sets * LINE_BYTES * ways != bytes || bytes > CACHE_BYTES_MAX {
            return Err(ConfigError::CacheSize { bytes, ways });
        }
        if self.integrity && features.max_keyid_bits() == 0 {
            return Err(ConfigError::IntegrityWithoutKeys(profile));
        }
        if !(1..=PACKAGES_MAX).contains(&packages) {
            return Err(ConfigError::Packages(packages));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(change: impl FnOnce(&mut Config)) -> Option<ConfigError> {
        let mut config = Config { ram_bytes: 4 << 20, ..Config::default() };
        change(&mut config);
        config.check().err()
    }

    #[test]
    fn configurations_are_checked() {
        assert_eq!(error(|_| ()), None);
        assert_eq!(error(|c| c.ram_bytes = 4097 << 10 | 1), Some(ConfigError::RamSize(4097 << 10 | 1)));
        assert_eq!(error(|c| c.ram_bytes = 4096), Some(ConfigError::RamSize(4096)));
        assert!(matches!(error(|c| c.ram_bytes = 1 << 40), Some(ConfigError::RamBeyondKeyid { memory_bits: 40, .. })));
        assert!(matches!(error(|c| c.ram_bytes = !0xFFF), Some(ConfigError::RamBeyondKeyid { .. })));
        for ways in [0, 65] {
            assert_eq!(error(|c| c.cache_ways = ways), Some(ConfigError::CacheWays(ways)));
        }
        for bytes in [0, 1 << 9, 3 << 20, (1 << 20) + 64, 2 << 30] {
            assert_eq!(error(|c| c.cache_bytes = bytes), Some(ConfigError::CacheSize { bytes, ways: 16 }));
        }
        assert_eq!(error(|c| (c.cache_bytes, c.cache_ways) = (3 << 18, 12)), None);
        assert_eq!(error(|c| (c.cache_bytes, c.cache_ways) = (64, 1)), None);
    }

    #[test]
    fn the_number_of_packages_is_bounded() {
        for packages in [0, PACKAGES_MAX + 1] {
            assert_eq!(error(|c| c.packages = packages), Some(ConfigError::Packages(packages)));
        }
        assert_eq!(error(|c| c.packages = PACKAGES_MAX), None);
    }

    #[test]
    fn models_and_orders_parse_from_their_names_and_the_errors_list_them() {
        for model in CacheModel::ALL {
            assert_eq!(model.to_string().parse(), Ok(model));
        }
        for order in WbOrder::ALL {
            assert_eq!(order.to_string().parse(), Ok(order));
        }
        let message = "on".parse::<CacheModel>().unwrap_err().to_string();
        assert_eq!(message, "unknown cache model `on`: expected one of exact, lazy, off");
        let message = "random".parse::<WbOrder>().unwrap_err().to_string();
        assert!(WbOrder::ALL.iter().all(|order| message.contains(order.name())), "{message}");
    }
}
