//! TME state of the package.
use x86::platform::ResetKind;

use crate::profile::TmeFeatures;
use crate::{AddressLayout, Algorithm};

/// Why PCONFIG failed after its checks (MK specification 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProgramError {
    #[error("the random generator failed")]
    EntropyError,
    #[error("the key table is locked")]
    DeviceBusy,
}

pub struct TmePackage {}

impl TmePackage {
    pub fn features(&self) -> &TmeFeatures {
        todo!()
    }
    pub fn layout(&self) -> AddressLayout {
        todo!()
    }
    /// IA32_TME_CAPABILITY
    pub fn capability(&self) -> u64 {
        todo!()
    }
    /// IA32_TME_ACTIVATE
    pub fn activate(&self) -> u64 {
        todo!()
    }
    /// k: 0 until locked and enabled.
    pub fn keyid_bits(&self) -> u8 {
        todo!()
    }
    /// p
    pub fn tdx_reserved_keyid_bits(&self) -> u8 {
        todo!()
    }
    /// MK_TME_MAX_KEYS
    pub fn max_keys(&self) -> u16 {
        todo!()
    }
    /// RDMSR of 981H-984H, 9FBH, 87H; None = #GP(0)
    pub fn rdmsr(&self, _msr: u32) -> Option<u64> {
        todo!()
    }
    /// WRMSR; None = #GP(0)
    pub fn wrmsr(&mut self, _msr: u32, _value: u64) -> Option<()> {
        todo!()
    }
    /// Steps 17-20 of PCONFIG leaf 0.
    pub fn program_key(
        &mut self,
        _keyid: u16,
        _command: u8,
        _algorithm: Algorithm,
        _key1: &[u8; 64],
        _key2: &[u8; 64],
    ) -> Result<(), ProgramError> {
        todo!()
    }
    /// RDRAND / RDSEED
    pub fn rdrand64(&mut self) -> Option<u64> {
        todo!()
    }
    pub fn reset(&mut self, _kind: ResetKind) {
        todo!()
    }
}
