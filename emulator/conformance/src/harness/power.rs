//! Which machine, and how far it was switched on.

use super::layout::RAM_BYTES;
use super::{Failure, Scenario};
use machine::Config;
use mem::{CacheModel, LockedWrite, TmeFeatures, TmeProfile};

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

    /// Packages, which share the RAM in equal parts.
    pub fn packages(mut self, count: usize) -> Power {
        self.0.packages = count;
        self
    }

    /// The DMA test device.
    pub fn dma_device(mut self) -> Power {
        self.0.dma_device = true;
        self
    }

    pub fn cache(mut self, model: CacheModel) -> Power {
        self.0.cache = model;
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

    /// "Activated" before the harness is loaded, as firmware does it: without a cache that keeps them, code and tables
    /// would be garbage after activation (MK specification section 7.5).
    pub fn activated_before_loading(self) -> Result<Scenario, Failure> {
        Scenario::activated_first(self.0, ACTIVATE)
    }

    /// The same as [`Power::activated`] with another value for IA32_TME_ACTIVATE.
    pub fn activated_with(self, value: u64) -> Result<Scenario, Failure> {
        let mut s = self.reset_state()?;
        s.activate(value)?;
        Ok(s)
    }
}
