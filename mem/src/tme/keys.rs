//! Keys and the key table (MK specification section 5.1).

use crypto::{Algorithm, XtsKey};

use crate::addr::KeyId;
use crate::hash::StateHasher;

/// Bytes kept of each key: the longest AES key.
const KEY_BYTES: usize = 32;

/// A field of a key table entry {mode, alg, K1, K2} (MK specification section 5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyField {
    /// The data key: bit `n` is bit `n % 8` of byte `n / 8`.
    K1,
    /// The tweak key, as K1.
    K2,
    /// Bit 0 tells AES-XTS-128 from AES-XTS-256. A 128-bit key has zeros for what a 256-bit key has more.
    Alg,
    /// Bit 0 tells ENCRYPT from PLAINTEXT.
    Mode,
}

/// What PCONFIG's ENC_ALG chooses: a position of IA32_TME_CAPABILITY\[15:0\] (MK specification section 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncryptionAlgorithm {
    /// The cipher.
    pub cipher: Algorithm,
    /// Lines carry a MAC.
    pub integrity: bool,
}

impl EncryptionAlgorithm {
    /// The algorithm of a position; `None` for those that no manual defines.
    pub fn from_number(number: u32) -> Option<Self> {
        let integrity = matches!(number, 1 | 3);
        let cipher = Algorithm::from_number(number - u32::from(integrity))?;
        Some(Self { cipher, integrity })
    }

    /// The position.
    pub fn number(self) -> u32 {
        self.cipher.number() + u32::from(self.integrity)
    }
}

impl From<Algorithm> for EncryptionAlgorithm {
    /// Without integrity.
    fn from(cipher: Algorithm) -> Self {
        Self { cipher, integrity: false }
    }
}

/// A data key and a tweak key, with their schedules expanded once.
#[derive(Clone)]
pub struct DataKey {
    algorithm: Algorithm,
    /// Lines carry a MAC.
    integrity: bool,
    k1: [u8; KEY_BYTES],
    k2: [u8; KEY_BYTES],
    schedule: XtsKey,
}

impl DataKey {
    /// `k1` is the data key, `k2` the tweak key; byte 0 first (MC-21). Bytes beyond the algorithm's key size are
    /// ignored and not kept.
    pub fn new(algorithm: Algorithm, k1: &[u8; KEY_BYTES], k2: &[u8; KEY_BYTES]) -> Self {
        let used = algorithm.key_bytes();
        let keep = |key: &[u8; KEY_BYTES]| std::array::from_fn(|i| if i < used { key[i] } else { 0 });
        let (k1, k2): ([u8; KEY_BYTES], [u8; KEY_BYTES]) = (keep(k1), keep(k2));
        let schedule = XtsKey::new(algorithm, &k1[..used], &k2[..used]);
        Self { algorithm, integrity: false, k1, k2, schedule }
    }

    /// The same key, whose lines carry a MAC or do not.
    pub fn with_integrity(self, integrity: bool) -> Self {
        Self { integrity, ..self }
    }

    /// True when lines carry a MAC.
    pub fn integrity(&self) -> bool {
        self.integrity
    }

    fn number(&self) -> u32 {
        EncryptionAlgorithm { cipher: self.algorithm, integrity: self.integrity }.number()
    }

    /// The cipher.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The expanded key pair.
    #[inline]
    pub fn schedule(&self) -> &XtsKey {
        &self.schedule
    }

    /// Flips a bit of a key in use or of the algorithm, and expands the keys again. False, and no change, for other bits.
    pub(crate) fn flip(&mut self, field: KeyField, bit: u32) -> bool {
        let (byte, mask) = (bit as usize / 8, 1 << (bit % 8));
        let used = self.algorithm.key_bytes();
        match field {
            KeyField::K1 if byte < used => self.k1[byte] ^= mask,
            KeyField::K2 if byte < used => self.k2[byte] ^= mask,
            KeyField::Alg if bit == 0 => {
                self.algorithm = match self.algorithm {
                    Algorithm::AesXts128 => Algorithm::AesXts256,
                    Algorithm::AesXts256 => Algorithm::AesXts128,
                }
            }
            _ => return false,
        }
        let used = self.algorithm.key_bytes();
        self.schedule = XtsKey::new(self.algorithm, &self.k1[..used], &self.k2[..used]);
        true
    }

    /// Bytes of [`material`](Self::material).
    pub(crate) const MATERIAL_BYTES: usize = 2 * KEY_BYTES + 1;

    /// What tells one key from another: algorithm, K1, K2. For comparison only.
    pub(crate) fn material(&self) -> [u8; Self::MATERIAL_BYTES] {
        let mut bytes = [self.number() as u8; Self::MATERIAL_BYTES];
        bytes[1..=KEY_BYTES].copy_from_slice(&self.k1);
        bytes[KEY_BYTES + 1..].copy_from_slice(&self.k2);
        bytes
    }

    /// True for two all-zero keys, which W15 treats as "no saved key".
    pub(crate) fn is_zero(&self) -> bool {
        self.k1 == [0; KEY_BYTES] && self.k2 == [0; KEY_BYTES]
    }

    /// The inverse of [`material`](Self::material); `None` for an algorithm that there is not.
    fn from_material(bytes: &[u8; Self::MATERIAL_BYTES]) -> Option<Self> {
        let (mut k1, mut k2) = ([0; KEY_BYTES], [0; KEY_BYTES]);
        k1.copy_from_slice(&bytes[1..=KEY_BYTES]);
        k2.copy_from_slice(&bytes[KEY_BYTES + 1..]);
        let EncryptionAlgorithm { cipher: algorithm, integrity } = EncryptionAlgorithm::from_number(bytes[0].into())?;
        let used = algorithm.key_bytes();
        let schedule = XtsKey::new(algorithm, &k1[..used], &k2[..used]);
        // A flip of the algorithm's bit leaves bytes behind that the shorter key does not use.
        Some(Self { algorithm, integrity, k1, k2, schedule })
    }

    pub(crate) fn hash(&self, hasher: &mut StateHasher) {
        hasher.u64(u64::from(self.number()));
        hasher.bytes(&self.k1);
        hasher.bytes(&self.k2);
    }
}

/// Without the keys: they must not leak into logs.
impl std::fmt::Debug for DataKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DataKey")
            .field("algorithm", &self.algorithm)
            .field("integrity", &self.integrity)
            .finish_non_exhaustive()
    }
}

/// In snapshots.
impl serde::Serialize for DataKey {
    fn serialize<S: serde::Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        let bytes = self.material();
        (bytes[0], &bytes[1..=KEY_BYTES], &bytes[KEY_BYTES + 1..]).serialize(out)
    }
}

impl<'de> serde::Deserialize<'de> for DataKey {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let (algorithm, k1, k2) = <(u8, Vec<u8>, Vec<u8>)>::deserialize(from)?;
        let mut bytes = [algorithm; Self::MATERIAL_BYTES];
        if k1.len() != KEY_BYTES || k2.len() != KEY_BYTES {
            return Err(serde::de::Error::custom("a key of another length"));
        }
        bytes[1..=KEY_BYTES].copy_from_slice(&k1);
        bytes[KEY_BYTES + 1..].copy_from_slice(&k2);
        Self::from_material(&bytes).ok_or_else(|| serde::de::Error::custom("a key of no algorithm"))
    }
}

/// What a KeyID does to memory.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub enum KeyMode {
    /// As KeyID 0: the TME key, or plaintext under bypass.
    #[default]
    Tme,
    /// KEYID_NO_ENCRYPT.
    Plaintext,
    /// A key of its own.
    Encrypt(Box<DataKey>),
    /// PLAINTEXT by a fault, with the key still in the entry ([`KeyField::Mode`]).
    FlippedToPlaintext(Box<DataKey>),
}

/// One entry per KeyID 0 to MK_TME_MAX_KEYS. Entry 0 is fixed to TME mode.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct KeyTable {
    entries: Vec<KeyMode>,
}

impl KeyTable {
    pub(crate) fn new(max_keys: u16) -> Self {
        Self { entries: vec![KeyMode::Tme; usize::from(max_keys) + 1] }
    }

    /// The mode of a KeyID; KeyIDs beyond the table are in TME mode (MC-01).
    #[inline]
    pub fn mode(&self, keyid: KeyId) -> &KeyMode {
        self.entries.get(usize::from(keyid.0)).unwrap_or(&KeyMode::Tme)
    }

    /// Replaces the entry in one step. False, and no change, for KeyID 0 and KeyIDs beyond the table.
    pub(crate) fn set(&mut self, keyid: KeyId, mode: KeyMode) -> bool {
        match self.entries.get_mut(usize::from(keyid.0)) {
            Some(entry) if keyid.0 != 0 => {
                *entry = mode;
                true
            }
            _ => false,
        }
    }

    /// Flips a bit of an entry that holds a key; false, and no change, for others.
    pub(crate) fn flip(&mut self, keyid: KeyId, field: KeyField, bit: u32) -> bool {
        let Some(entry) = self.entries.get_mut(usize::from(keyid.0)) else { return false };
        if field != KeyField::Mode {
            return match entry {
                KeyMode::Encrypt(key) | KeyMode::FlippedToPlaintext(key) => key.flip(field, bit),
                KeyMode::Tme | KeyMode::Plaintext => false,
            };
        }
        *entry = match std::mem::take(entry) {
            KeyMode::Encrypt(key) if bit == 0 => KeyMode::FlippedToPlaintext(key),
            KeyMode::FlippedToPlaintext(key) if bit == 0 => KeyMode::Encrypt(key),
            other => {
                *entry = other;
                return false;
            }
        };
        true
    }

    /// Entries, that of KeyID 0 included.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn clear(&mut self) {
        self.entries.fill(KeyMode::Tme);
    }

    pub(crate) fn hash(&self, hasher: &mut StateHasher) {
        hasher.u64(self.entries.len() as u64);
        for entry in &self.entries {
            match entry {
                KeyMode::Tme => hasher.u64(0),
                KeyMode::Plaintext => hasher.u64(1),
                KeyMode::Encrypt(key) => {
                    hasher.u64(2);
                    key.hash(hasher);
                }
                KeyMode::FlippedToPlaintext(key) => {
                    hasher.u64(3);
                    key.hash(hasher);
                }
            }
        }
    }
}
