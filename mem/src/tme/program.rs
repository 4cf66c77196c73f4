//! The key-programming half of PCONFIG leaf 0 (MK specification section 4.4, steps 17 to 20). The core does the checks.

use x86::mutant;
use x86::tme::pconfig;

use super::TmePackage;
use crate::addr::{Icount, KeyId};
use crate::event::Event;
use crate::tme::entropy::EntropyStream;
use crate::tme::keys::{DataKey, EncryptionAlgorithm, KeyMode};

/// Why PCONFIG returns with ZF = 1. Nothing changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProgramError {
    /// RAX = 2.
    #[error("the random generator failed (ENTROPY_ERROR)")]
    EntropyError,
    /// RAX = 5.
    #[error("the key table is locked (DEVICE_BUSY)")]
    DeviceBusy,
}

impl ProgramError {
    /// The failure code that PCONFIG returns in RAX.
    pub const fn code(self) -> u64 {
        match self {
            Self::EntropyError => pconfig::ENTROPY_ERROR,
            Self::DeviceBusy => pconfig::DEVICE_BUSY,
        }
    }
}

impl TmePackage {
    /// Programs `table[keyid]`. `key1` and `key2` are KEY_FIELD_1 and KEY_FIELD_2; only the bytes that `algorithm`
    /// needs are used. Steps 12 to 16 of section 4.4 are the caller's; a KeyID or command that they refuse changes
    /// nothing here.
    ///
    /// # Errors
    /// DEVICE_BUSY and ENTROPY_ERROR; no entry changed.
    pub fn program_key(
        &mut self,
        keyid: KeyId,
        command: u8,
        algorithm: impl Into<EncryptionAlgorithm>,
        key1: &[u8; 64],
        key2: &[u8; 64],
    ) -> Result<(), ProgramError> {
        let algorithm = algorithm.into();
        let result = self.program(keyid, command, algorithm, key1, key2);
        let status = result.map_or_else(ProgramError::code, |()| pconfig::PROG_SUCCESS);
        let algorithm = 1 << algorithm.number();
        self.events.push(Event::Pconfig { kid: keyid, command, algorithm, status });
        result
    }

    fn program(
        &mut self,
        keyid: KeyId,
        command: u8,
        algorithm: EncryptionAlgorithm,
        key1: &[u8; 64],
        key2: &[u8; 64],
    ) -> Result<(), ProgramError> {
        if self.busy_attempts > 0 {
            self.busy_attempts -= 1;
            if mutant!(BusyProgramsAnyway) {
                self.keys.set(keyid, KeyMode::Tme);
            }
            return Err(ProgramError::DeviceBusy);
        }
        if self.now < self.busy_until || self.entropy.busy(self.knobs.busy_rate) {
            return Err(ProgramError::DeviceBusy);
        }
        let mask = match command {
            pconfig::KEYID_SET_KEY_RANDOM if mutant!(RandomIsPseudo) => [[0x5A; 32]; 2],
            pconfig::KEYID_SET_KEY_RANDOM => {
                if mutant!(EntropyErrorClears) {
                    self.keys.set(keyid, KeyMode::Tme);
                }
                let rng1 = self.entropy.draw(EntropyStream::Pconfig).ok_or(ProgramError::EntropyError)?;
                let rng2 = self.entropy.draw(EntropyStream::Pconfig).ok_or(ProgramError::EntropyError)?;
                [rng1, rng2]
            }
            _ => [[0; 32]; 2],
        };
        let mode = match command {
            pconfig::KEYID_SET_KEY_DIRECT | pconfig::KEYID_SET_KEY_RANDOM => {
                let fields = !(mutant!(RandomIgnoresFields) && command == pconfig::KEYID_SET_KEY_RANDOM);
                let field = |key: &[u8; 64], i: usize| if fields { key[i] } else { 0 };
                let (key1, key2) = if mutant!(KeysExchanged) { (key2, key1) } else { (key1, key2) };
                let k1 = std::array::from_fn(|i| field(key1, i) ^ mask[0][i]);
                let k2 = std::array::from_fn(|i| field(key2, i) ^ mask[1][i]);
                let key = DataKey::new(algorithm.cipher, &k1, &k2);
                KeyMode::Encrypt(Box::new(key.with_integrity(algorithm.integrity)))
            }
            pconfig::KEYID_CLEAR_KEY if mutant!(ClearKeyKeepsKey) => return Ok(()),
            pconfig::KEYID_CLEAR_KEY => KeyMode::Tme,
            pconfig::KEYID_NO_ENCRYPT if mutant!(NoEncryptIsTme) => KeyMode::Tme,
            pconfig::KEYID_NO_ENCRYPT => KeyMode::Plaintext,
            _ => return Ok(()),
        };
        self.keys.set(keyid, mode);
        // An entropy failure has released the lock at once (section 4.4).
        self.busy_until = Icount(self.now.0.saturating_add(self.knobs.pconfig_latency));
        Ok(())
    }
}
