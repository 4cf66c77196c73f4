//! The options of `mktme-emu bench`.

use super::boot::args::BootArgs;
use super::latency::{Model, Parameters};
use crate::Result;
use crate::help;
use crate::outcome::Failure;
use crate::value::{self, AesBackend};
use clap::{Args, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;

/// What else can be measured.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Boots a guest here and in QEMU or another build, in turns, and compares CPU times item by item
    #[command(long_about = help::BENCH_BOOT_ABOUT, after_help = help::BENCH_BOOT_AFTER, max_term_width = 100)]
    Boot(Box<BootArgs>),
}

/// Options of a measurement.
#[derive(Debug, Args)]
pub struct BenchArgs {
    #[command(subcommand)]
    pub command: Option<BenchCommand>,
    /// A few seconds instead of half a minute; the figures are rough
    #[arg(long, help_heading = help::MEASUREMENT)]
    pub quick: bool,
    /// Samples of each figure, 1 to 1000 [default: 21; 3 with --quick]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000), help_heading = help::MEASUREMENT)]
    pub samples: Option<u16>,
    /// Measure this one only: auto (all that the processor can run), portable, aesni, vaes256, vaes512
    #[arg(long, value_name = "NAME", default_value = "auto", value_parser = value::aes_backend, hide_default_value = true, help_heading = help::MEASUREMENT)]
    pub aes_backend: AesBackend,
    /// Write every figure as JSON
    #[arg(long, value_name = "FILE", help_heading = help::MEASUREMENT)]
    pub json: Option<PathBuf>,
    /// Write plots as SVG
    #[arg(long, value_name = "FILE", help_heading = help::MEASUREMENT)]
    pub svg: Option<PathBuf>,

    /// Kernel of the guest whose line transfers are recorded [default: the embedded guest]
    #[arg(long, value_name = "FILE", help_heading = help::GUEST)]
    pub kernel: Option<PathBuf>,
    /// Its initial RAM disk
    #[arg(long, value_name = "FILE", requires = "kernel", help_heading = help::GUEST)]
    pub initrd: Option<OsString>,
    /// Its command line
    #[arg(long, value_name = "TEXT", default_value = "", allow_hyphen_values = true, hide_default_value = true, help_heading = help::GUEST)]
    pub append: String,
    /// Its RAM, 64M to 8G; a plain number is MiB [default: 512M]
    #[arg(short = 'm', long = "memory", value_name = "SIZE", value_parser = value::memory_size, help_heading = help::GUEST)]
    pub memory: Option<u64>,
    /// Instructions after which its recording ends [default: 500M]
    #[arg(long, value_name = "N", value_parser = value::count, help_heading = help::GUEST)]
    pub guest_icount: Option<u64>,

    /// Clock of the modelled processor
    #[arg(long, value_name = "GHZ", default_value_t = 3.0, help_heading = help::MODEL)]
    pub clock: f64,
    /// Cycles per instruction while every access hits the cache
    #[arg(long, value_name = "CYCLES", default_value_t = 1.0, help_heading = help::MODEL)]
    pub cpi: f64,
    /// Cycles from a fill's request to its whole line, without encryption
    #[arg(long, value_name = "CYCLES", default_value_t = 240.0, help_heading = help::MODEL)]
    pub dram_cycles: f64,
    /// DRAM bandwidth in GB/s
    #[arg(long, value_name = "GB/S", default_value_t = 25.6, help_heading = help::MODEL)]
    pub bandwidth: f64,
    /// Cycles of AES-128 in the engine's pipeline; AES-256 takes 14/10 of it
    #[arg(long, value_name = "CYCLES", default_value_t = 20.0, help_heading = help::MODEL)]
    pub aes_latency: f64,
    /// Cycles between two lines that the engine accepts
    #[arg(long, value_name = "CYCLES", default_value_t = 4.0, help_heading = help::MODEL)]
    pub aes_interval: f64,
}

impl BenchArgs {
    /// The latency model.
    ///
    /// # Errors
    /// Parameters that no machine has.
    pub fn model(&self) -> Result<Model> {
        let parameters = Parameters {
            clock_ghz: self.clock,
            cpi: self.cpi,
            dram_cycles: self.dram_cycles,
            bandwidth_gbps: self.bandwidth,
            aes_latency: self.aes_latency,
            aes_interval: self.aes_interval,
        };
        Model::new(parameters).map_err(Failure::usage)
    }
}
