//! Which machine, and how far it was switched on.

use super::layout::RAM_BYTES;
use super::{Failure, Scenario};
use machine::Config;
use mem::{LockedWrite, TmeFeatures, TmeProfile};

/// IA32_TME_ACTIVATE of the state "activated" (MK specification section 10): k = 6, XTS-128 and XTS-256.
pub const ACTIVATE: u64 = 0x0005_0006_0000_0002;

/// A machine to be: profile and knobs. Default: what section 10 says.
#[derive(Debug, Clone)]
pub struct Power(Config);

impl Default for Power {
    fn default() -> Self {
        Power(Config { ram_bytes: RAM_BYTES, seed: 0x004D_4B54, ..Config::default() })
    }
}

impl Power {
    pub fn profile(profile: TmeProfile) -> Power {
        let mut power = Power::default();
        power.0.profile = profile;
        power
    }

    /// A processor that enumerates something else than its profile.
    pub fn features(mut self, change: impl FnOnce(&mut TmeFeatures)) -> Power {
        let mut features = self.0.features.unwrap_or(self.0.profile.features());
        change(&mut features);
        self.0.features = Some(features);
        self
    }

    /// The TDX option.
    pub fn tdx(mut self) -> Power {
        self.0.tdx_partition = true;
        self
    }

    /// `locked_write=ignore`.
    pub fn locked_writes_ignored(mut self) -> Power {
        self.0.locked_write = LockedWrite::Ignore;
        self
    }

    /// `pconfig_legacy_codes=on`.
    pub fn legacy_codes(mut self) -> Power {
        self.0.pconfig_legacy_codes = true;
        self
    }

    /// A cache of this many ways, one set.
    pub fn one_set(mut self, ways: usize) -> Power {
        self.0.cache_ways = ways;
        self.0.cache_bytes = 64 * ways;
        self
    }

    /// Another size than [`RAM_BYTES`].
    pub fn ram(mut self, bytes: u64) -> Power {
        self.0.ram_bytes = bytes;
        self
    }

    /// Reset state, TME neither enabled nor locked.
    pub fn reset_state(self) -> Result<Scenario, Failure> {
        Scenario::new(self.0)
    }

    /// "Activated" as section 10 defines it.
    pub fn activated(self) -> Result<Scenario, Failure> {
        self.activated_with(ACTIVATE)
    }

    /// The same with another value for IA32_TME_ACTIVATE.
    pub fn activated_with(self, value: u64) -> Result<Scenario, Failure> {
        let mut s = self.reset_state()?;
        s.activate(value)?;
        Ok(s)
    }
}
