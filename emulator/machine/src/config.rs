//! What can be chosen of a machine.

use devices::{Chipset, ChipsetConfig};
use firmware::{MemoryMap, MemoryMapError, Setup};
use mem::{CacheModel, Knobs, LockedWrite, Rate, TmeFeatures, TmeProfile, WbOrder};
use thiserror::Error;

/// A machine's hardware and firmware settings. Two runs with equal configurations, images and input are identical.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// RAM in bytes.
    pub ram_bytes: u64,
    pub profile: TmeProfile,
    /// What the processor enumerates, where it is not what its profile says (MC-02).
    pub features: Option<TmeFeatures>,
    /// Knob `locked_write` (MC-07).
    pub locked_write: LockedWrite,
    /// The TDX option: IA32_TME_ACTIVATE\[39:36\] may be set.
    pub tdx_partition: bool,
    /// The integrity option (MC-32).
    pub integrity: bool,
    /// Knob `pconfig_legacy_codes` (MK specification section 4.3).
    pub pconfig_legacy_codes: bool,
    /// Fault knob `core_override` (MC-05): what the processor takes for IA32_TME_ACTIVATE.
    pub core_override: Option<u64>,
    /// Firmware settings.
    pub setup: Setup,
    /// Seed of every generator.
    pub seed: u64,
    /// Instructions per second of virtual time.
    pub ips: u64,
    pub cache: CacheModel,
    /// Cache geometry: what CPUID reports, and what [`CacheModel::Exact`] has.
    pub cache_bytes: usize,
    pub cache_ways: usize,
    /// In which order WBINVD and WBNOINVD write back.
    pub wb_order: WbOrder,
    /// Probability that a fill is preceded by an eviction of another line.
    pub evict_rate: Rate,
    /// Probability that a fill brings in the other line of its 128-byte pair as well.
    pub prefetch: Rate,
    /// Packages; the processor is in package 0.
    pub packages: usize,
    /// Faults and delays of PCONFIG.
    pub knobs: Knobs,
    /// The DMA test device is on the PCI bus.
    pub dma_device: bool,
    /// False: every access takes the slow path. Changes nothing that a guest or the state hash sees.
    pub fast: bool,
    /// False: every block of decoded code is found by a fetch. Changes nothing either.
    pub links: bool,
    /// False: string instructions move one element at a time. Changes nothing either.
    pub bulk_strings: bool,
    /// The alias sanitizer watches what the guest does ([`crate::Machine::take_hazards`]). Not a property of the machine:
    /// changes nothing that a guest or the state hash sees.
    pub sanitize: bool,
}

impl Default for Config {
    fn default() -> Self {
        let mem = mem::Config::default();
        Config {
            ram_bytes: 512 << 20,
            profile: TmeProfile::Default,
            features: None,
            locked_write: LockedWrite::Gp,
            tdx_partition: false,
            integrity: false,
            pconfig_legacy_codes: false,
            core_override: None,
            setup: Setup::default(),
            seed: 0,
            ips: cpu::clock::DEFAULT_IPS,
            cache: mem.cache,
            cache_bytes: mem.cache_bytes,
            cache_ways: mem.cache_ways,
            wb_order: mem.wb_order,
            evict_rate: mem.evict_rate,
            prefetch: mem.prefetch,
            packages: mem.packages,
            knobs: mem.knobs,
            dma_device: false,
            fast: true,
            links: true,
            bulk_strings: true,
            sanitize: false,
        }
    }
}

impl Config {
    /// What of it is the memory side's.
    pub fn memory(&self) -> mem::Config {
        mem::Config {
            ram_bytes: self.ram_bytes,
            profile: self.profile,
            cache: self.cache,
            features: self.features,
            locked_write: self.locked_write,
            tdx_partition: self.tdx_partition,
            integrity: self.integrity,
            cache_bytes: self.cache_bytes,
            cache_ways: self.cache_ways,
            wb_order: self.wb_order,
            evict_rate: self.evict_rate,
            prefetch: self.prefetch,
            packages: self.packages,
            knobs: self.knobs,
            seed: self.seed,
            fast: self.fast,
        }
    }

    /// The board, as it is after power-up.
    ///
    /// # Errors
    /// RAM that has no place in the memory map.
    pub fn chipset(&self) -> Result<Chipset, MemoryMapError> {
        Ok(Chipset::new(ChipsetConfig {
            ram_bytes: self.ram_bytes,
            ram_below_4g: MemoryMap::new(self.ram_bytes)?.low_top(),
            phys_bits: self.memory().features().maxphyaddr,
            dma_device: self.dma_device,
            ..ChipsetConfig::default()
        }))
    }

    /// Checks what [`crate::Machine::new`] would refuse, the host excepted.
    ///
    /// # Errors
    /// The first rule that does not hold.
    pub fn check(&self) -> Result<(), ConfigError> {
        MemoryMap::new(self.ram_bytes)?;
        Ok(self.memory().check()?)
    }
}

/// Why a machine could not be built.
#[derive(Debug, Error)]
pub enum ConfigError {
    #[error(transparent)]
    Memory(#[from] mem::ConfigError),
    #[error(transparent)]
    MemoryMap(#[from] MemoryMapError),
    #[error("this host cannot run the emulator: {0}")]
    Host(&'static str),
}
