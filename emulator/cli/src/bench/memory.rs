//! The modelled memory system through its public interface: cache, controller and DRAM, with the encryption on, bypassed
//! and off.

use super::Progress;
use super::sample::{Budget, Series, Timing};
use crate::Result;
use crate::outcome::Failure;
use mem::{BusAddr, Config, LINE_BYTES, MemType, Memory, PAGE_BYTES};
use x86::msr::IA32_TME_ACTIVATE;
use x86::tme::activate;

/// RAM of the machine.
const RAM_BYTES: u64 = 64 << 20;
/// Where the work is done: above the first mebibyte.
const BASE: u64 = 1 << 20;
/// Well within the cache.
const RESIDENT_BYTES: u64 = 256 << 10;
/// Eight times the cache.
const STREAM_BYTES: u64 = 8 << 20;
/// Thirty-two times the cache.
const RANDOM_BYTES: u64 = 32 << 20;
/// Accesses of a pass over a stream or random lines.
const ACCESSES: usize = 4096;

/// How IA32_TME_ACTIVATE was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encryption {
    /// KeyID 0 goes through AES-XTS-128.
    On,
    /// Enabled, but KeyID 0 in clear.
    Bypass,
    /// Not activated.
    Off,
}

impl Encryption {
    pub const ALL: [Self; 3] = [Self::On, Self::Bypass, Self::Off];

    pub const fn name(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Bypass => "bypass",
            Self::Off => "off",
        }
    }

    fn activate(self) -> Option<u64> {
        match self {
            Self::On => Some(activate::ENABLE),
            Self::Bypass => Some(activate::ENABLE | activate::BYPASS),
            Self::Off => None,
        }
    }
}

/// What is asked of the memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Loads of lines that are in the cache.
    Hit,
    /// Loads that miss and replace clean lines: a fill each.
    Fill,
    /// Stores that miss and replace dirty lines: a fill and a write-back each.
    WriteBack,
    /// Stores of whole lines past the cache.
    Streaming,
    /// Devices' writes of whole pages.
    DmaPage,
    /// Three loads to one store, anywhere.
    Random,
}

impl Access {
    pub const ALL: [Self; 6] = [Self::Hit, Self::Fill, Self::WriteBack, Self::Streaming, Self::DmaPage, Self::Random];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Fill => "fill",
            Self::WriteBack => "fill and write-back",
            Self::Streaming => "streaming store",
            Self::DmaPage => "DMA, page",
            Self::Random => "random, 3 loads : 1 store",
        }
    }
}

/// One figure.
#[derive(Debug, Clone)]
pub struct Row {
    pub encryption: Encryption,
    pub access: Access,
    /// Per line.
    pub timing: Timing,
    /// Lines through the cipher, for each line that was accessed.
    pub ciphered: f64,
}

struct Bench {
    memory: Memory,
    /// Bytes from [`BASE`].
    at: u64,
    random: u64,
}

impl Bench {
    fn new(encryption: Encryption) -> Result<Bench> {
        let config = Config { ram_bytes: RAM_BYTES, ..Config::default() };
        let mut memory = Memory::new(config).map_err(|e| Failure::Host(format!("memory system: {e}")))?;
        if let Some(value) = encryption.activate() {
            memory
                .tme_mut()
                .wrmsr(IA32_TME_ACTIVATE, value)
                .ok_or_else(|| Failure::Host("memory system: IA32_TME_ACTIVATE was refused".into()))?;
        }
        Ok(Bench { memory, at: 0, random: 1 })
    }

    fn next(&mut self, step: usize, bytes: u64) -> BusAddr {
        self.at = (self.at + step as u64) % bytes;
        BusAddr(BASE + self.at)
    }

    fn load(&mut self, at: BusAddr) {
        let mut word = [0; 8];
        self.memory.read(at, MemType::Wb, false, &mut word);
        std::hint::black_box(word);
    }

    fn store(&mut self, at: BusAddr) {
        self.memory.write(at, MemType::Wb, false, &at.0.to_le_bytes());
    }

    /// Returns the lines that were accessed.
    fn pass(&mut self, access: Access) -> usize {
        for count in 0..ACCESSES {
            match access {
                Access::Hit => {
                    let at = self.next(LINE_BYTES, RESIDENT_BYTES);
                    self.load(at);
                }
                Access::Fill => {
                    let at = self.next(LINE_BYTES, STREAM_BYTES);
                    self.load(at);
                }
                Access::WriteBack => {
                    let at = self.next(LINE_BYTES, STREAM_BYTES);
                    self.store(at);
                }
                Access::Streaming => {
                    let at = self.next(LINE_BYTES, STREAM_BYTES);
                    self.memory.write_nontemporal(at, &[count as u8; LINE_BYTES]);
                }
                Access::DmaPage if count % mem::LINES_PER_PAGE == 0 => {
                    let at = self.next(PAGE_BYTES, STREAM_BYTES);
                    self.memory.dma_write(at, &[count as u8; PAGE_BYTES]);
                }
                Access::DmaPage => {}
                Access::Random => {
                    // Knuth's 64-bit linear congruential generator; its upper bits are the good ones.
                    self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let line = (self.random >> 33) % (RANDOM_BYTES / LINE_BYTES as u64);
                    let at = BusAddr(BASE + line * LINE_BYTES as u64);
                    if count % 4 == 3 { self.store(at) } else { self.load(at) }
                }
            }
            while self.memory.take_retired().is_some() {}
        }
        ACCESSES
    }

    /// Once over all lines of the work, so that the host has its pages and the cache is in its steady state.
    fn warm(&mut self, access: Access) {
        let bytes = if access == Access::Random { RANDOM_BYTES } else { STREAM_BYTES };
        self.memory.wbinvd();
        for page in (0..bytes).step_by(PAGE_BYTES) {
            self.memory.dma_write(BusAddr(BASE + page), &[0; PAGE_BYTES]);
        }
        for _ in 0..2 * self.memory_lines() / ACCESSES {
            self.pass(access);
        }
    }

    fn memory_lines(&self) -> usize {
        Config::default().cache_bytes / LINE_BYTES
    }

    fn ciphered_bytes(&self) -> u64 {
        let stats = self.memory.stats();
        stats.bytes_encrypted + stats.bytes_decrypted
    }
}

/// How often [`measure`] says that it goes on.
pub fn steps() -> usize {
    Access::ALL.len()
}

/// Every access under every setting; samples of the settings alternate.
///
/// # Errors
/// A memory system that cannot be built.
pub fn measure(budget: &Budget, progress: &Progress) -> Result<Vec<Row>> {
    let mut benches = Vec::new();
    for encryption in Encryption::ALL {
        benches.push((encryption, Bench::new(encryption)?));
    }
    let mut rows = Vec::new();
    for access in Access::ALL {
        progress.step(&format!("memory system, {}", access.name()));
        let mut series = Vec::new();
        for (_, bench) in &mut benches {
            bench.warm(access);
            series.push(Series::calibrate(budget, || bench.pass(access)));
        }
        for _ in 0..budget.samples {
            for ((_, bench), series) in benches.iter_mut().zip(&mut series) {
                series.take(|| bench.pass(access));
            }
        }
        for ((encryption, bench), series) in benches.iter_mut().zip(&series) {
            let before = bench.ciphered_bytes();
            let lines = bench.pass(access);
            let ciphered = (bench.ciphered_bytes() - before) as f64 / (lines * LINE_BYTES) as f64;
            rows.push(Row { encryption: *encryption, access, timing: series.timing(), ciphered });
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_access_costs_the_line_transfers_that_its_name_says() {
        for (access, expected) in [
            (Access::Hit, 0.0),
            (Access::Fill, 1.0),
            (Access::WriteBack, 2.0),
            (Access::Streaming, 1.0),
            (Access::DmaPage, 1.0),
        ] {
            for encryption in Encryption::ALL {
                let mut bench = Bench::new(encryption).unwrap();
                bench.warm(access);
                let before = bench.ciphered_bytes();
                let lines = bench.pass(access);
                let ciphered = (bench.ciphered_bytes() - before) as f64 / (lines * LINE_BYTES) as f64;
                let expected = if encryption == Encryption::On { expected } else { 0.0 };
                assert_eq!(ciphered, expected, "{access:?} {encryption:?}");
            }
        }
    }
}
