//! What can be chosen of a machine.

use firmware::{MemoryMapError, Setup};
use mem::{LockedWrite, TmeProfile};
use thiserror::Error;

/// A machine's hardware and firmware settings. Two runs with equal configurations, images and input are identical.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// RAM in bytes.
    pub ram_bytes: u64,
    pub profile: TmeProfile,
    /// Firmware settings.
    pub setup: Setup,
    /// Seed of every generator.
    pub seed: u64,
    /// Instructions per second of virtual time.
    pub ips: u64,
    /// Cache geometry.
    pub cache_bytes: usize,
    pub cache_ways: usize,
    /// What a write to the locked IA32_TME_ACTIVATE does (MC-07).
    pub locked_write: LockedWrite,
    /// PCONFIG returns the legacy error codes (MK specification section 4.3).
    pub pconfig_legacy_codes: bool,
    /// 982H\[39:36\] may be set.
    pub tdx_partition: bool,
    /// The DMA test device is on the PCI bus.
    pub dma_device: bool,
    /// False: every access takes the slow path. Changes nothing that a guest or the state hash sees.
    pub fast: bool,
}

impl Default for Config {
    fn default() -> Self {
        let mem = mem::Config::default();
        Config {
            ram_bytes: 512 << 20,
            profile: TmeProfile::Default,
            setup: Setup::default(),
            seed: 0,
            ips: cpu::clock::DEFAULT_IPS,
            cache_bytes: mem.cache_bytes,
            cache_ways: mem.cache_ways,
            locked_write: mem.locked_write,
            pconfig_legacy_codes: false,
            tdx_partition: mem.tdx_partition,
            dma_device: false,
            fast: true,
        }
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
