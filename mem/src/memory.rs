//! The one entry point.
use x86::platform::ResetKind;

use crate::event::Events;
use crate::frame::FramePtr;
use crate::hash::StateHasher;
use crate::profile::TmeProfile;
use crate::stats::Stats;
use crate::tme::TmePackage;
use crate::{Access, AddressLayout, AddressMap, BusAddr, MemType, PhysAddr};

/// MC-07: what a write of a locked IA32_TME_ACTIVATE does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LockedWrite {
    #[default]
    Gp,
    Ignore,
}

#[derive(Debug, Clone)]
pub struct Config {
    pub ram_bytes: u64,
    pub profile: TmeProfile,
    pub cache_bytes: usize,
    pub cache_ways: usize,
    pub seed: u64,
    pub locked_write: LockedWrite,
    pub tdx_partition: bool,
    /// false: every access is slow
    pub fast: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            ram_bytes: 512 << 20,
            profile: TmeProfile::Default,
            cache_bytes: 1 << 20,
            cache_ways: 16,
            seed: 0,
            locked_write: LockedWrite::Gp,
            tdx_partition: false,
            fast: true,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("bad configuration")]
    Bad,
}

/// What `touch` found.
#[derive(Debug, Clone, Copy)]
pub struct Touched {
    pub frame: FramePtr,
    /// The access was a store to a line with decoded code: blocks of that line are dead.
    pub code_hit: bool,
}

/// A frame that now holds another page.
#[derive(Debug, Clone, Copy)]
pub struct Retired {
    pub frame: FramePtr,
    /// The page it held before.
    pub bus_page: BusAddr,
    /// Lines blocks were decoded from: those blocks must be forgotten.
    pub code: u64,
}

/// A device wrote to a line with decoded code.
#[derive(Debug, Clone, Copy)]
pub struct CodeHit {
    pub frame: FramePtr,
    pub line: u32,
}

pub struct Memory {}

impl Memory {
    pub fn new(_config: Config) -> Result<Self, ConfigError> {
        todo!()
    }
    pub fn layout(&self) -> AddressLayout {
        todo!()
    }
    pub fn map(&self) -> &AddressMap {
        todo!()
    }
    pub fn is_ram(&self, _address: PhysAddr) -> bool {
        todo!()
    }
    pub fn touch(&mut self, _address: BusAddr, _access: Access, _no_fill: bool) -> Option<Touched> {
        todo!()
    }
    pub fn read(&mut self, _address: BusAddr, _ty: MemType, _no_fill: bool, _buf: &mut [u8]) {
        todo!()
    }
    pub fn write(&mut self, _address: BusAddr, _ty: MemType, _no_fill: bool, _buf: &[u8]) -> bool {
        todo!()
    }
    pub fn write_nontemporal(&mut self, _address: BusAddr, _buf: &[u8]) -> bool {
        todo!()
    }
    pub fn frame_lookup(&self, _page: BusAddr) -> Option<FramePtr> {
        todo!()
    }
    pub fn line_resident(&self, _address: BusAddr) -> bool {
        todo!()
    }
    pub fn line_dirty(&self, _address: BusAddr) -> bool {
        todo!()
    }
    pub fn set_code(&mut self, _frame: FramePtr, _line: u32) {
        todo!()
    }
    pub fn clflush(&mut self, _address: BusAddr) {
        todo!()
    }
    pub fn clwb(&mut self, _address: BusAddr) {
        todo!()
    }
    pub fn wbinvd(&mut self) {
        todo!()
    }
    pub fn wbnoinvd(&mut self) {
        todo!()
    }
    pub fn invd(&mut self) {
        todo!()
    }
    pub fn dma_read(&mut self, _address: BusAddr, _buf: &mut [u8]) {
        todo!()
    }
    pub fn dma_write(&mut self, _address: BusAddr, _bytes: &[u8]) {
        todo!()
    }
    pub fn load_image(&mut self, _address: PhysAddr, _bytes: &[u8]) {
        todo!()
    }
    /// True when `take_retired` has something.
    #[inline(always)]
    pub fn has_retired(&self) -> bool {
        todo!()
    }
    pub fn take_retired(&mut self) -> Option<Retired> {
        todo!()
    }
    /// True when `take_code_hit` has something.
    #[inline(always)]
    pub fn has_code_hits(&self) -> bool {
        todo!()
    }
    pub fn take_code_hit(&mut self) -> Option<CodeHit> {
        todo!()
    }
    pub fn tme(&self) -> &TmePackage {
        todo!()
    }
    pub fn tme_mut(&mut self) -> &mut TmePackage {
        todo!()
    }
    pub fn events_mut(&mut self) -> &mut Events {
        todo!()
    }
    pub fn stats(&self) -> &Stats {
        todo!()
    }
    pub fn reset(&mut self, _kind: ResetKind) {
        todo!()
    }
    pub fn state_hash(&self, _hasher: &mut StateHasher) {
        todo!()
    }
}
