//! The TME state of a package: MSRs, key table, retained key, random generator (MK specification sections 3 to 5).
//!
//! One copy per package, visible at once to all its logical processors (MC-05). Privilege checks are the core's.

mod entropy;
mod keys;
mod msr;
mod program;

use x86::mutant;
use x86::platform::ResetKind;
use x86::tme::activate;

pub use entropy::{EntropyStep, EntropyStream};
pub(crate) use entropy::{eviction_generator, injection_generator, mac_key, prefetch_generator, write_back_generator};
pub use keys::{DataKey, EncryptionAlgorithm, KeyField, KeyMode, KeyTable};
pub use program::ProgramError;

use crate::addr::{AddressLayout, BusAddr, Icount, KeyId};
use crate::config::Config;
use crate::event::{Event, Events};
use crate::hash::StateHasher;
use crate::profile::TmeFeatures;
use crate::rate::Rate;
use crate::tme::entropy::Entropy;
use crypto::XtsKey;

/// What a write to a locked IA32_TME_ACTIVATE does; the sources disagree (MC-07).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize)]
pub enum LockedWrite {
    /// #GP(0).
    #[default]
    Gp,
    /// No fault, no change.
    Ignore,
}

/// Faults and delays of PCONFIG (MK specification, Appendix A and section 9.15).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize)]
pub struct Knobs {
    /// How often PCONFIG finds the key table locked (MK-092).
    pub busy_rate: Rate,
    /// How often a draw for KEYID_SET_KEY_RANDOM fails (MK-091); each PCONFIG makes two.
    pub entropy_fail_rate: Rate,
    /// Instructions during which the key table stays locked after a PCONFIG that reached it (MC-23). Counted from what
    /// [`TmePackage::at`] was told.
    pub pconfig_latency: u64,
}

/// What the memory controller does to a line: the result of `resolve(pa)`.
#[derive(Debug, Clone, Copy)]
pub enum Cipher<'a> {
    /// DRAM holds the bytes as they are.
    Plaintext,
    /// DRAM holds AES-XTS ciphertext.
    Xts(&'a XtsKey),
}

/// The state.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct TmePackage {
    features: TmeFeatures,
    locked_write: LockedWrite,
    tdx_partition: bool,
    /// IA32_TME_ACTIVATE as it reads.
    activate: u64,
    exclude_mask: u64,
    exclude_base: u64,
    /// The key of KeyID 0; present exactly while 982H is locked and enabled.
    platform_key: Option<DataKey>,
    /// The retained slot (MC-15).
    saved_key: Option<DataKey>,
    keys: KeyTable,
    layout: AddressLayout,
    entropy: Entropy,
    /// PCONFIG attempts that will find the key-table lock taken (knob, MK-092).
    busy_attempts: u32,
    knobs: Knobs,
    /// The instruction count of the operation that comes next.
    now: Icount,
    /// The key table is locked before this count (knob `pconfig_latency`).
    busy_until: Icount,
    /// Host-side.
    #[serde(skip)]
    pub(crate) events: Events,
}

impl TmePackage {
    /// A package after cold reset. `seed` feeds the random generator.
    pub fn new(features: TmeFeatures, locked_write: LockedWrite, tdx_partition: bool, seed: u64) -> Self {
        Self {
            features,
            locked_write,
            tdx_partition,
            activate: 0,
            exclude_mask: 0,
            exclude_base: 0,
            platform_key: None,
            saved_key: None,
            keys: KeyTable::new(features.max_keys()),
            layout: AddressLayout { maxphyaddr: features.maxphyaddr, keyid_bits: 0 },
            entropy: Entropy::new(seed, 0),
            busy_attempts: 0,
            knobs: Knobs::default(),
            now: Icount(0),
            busy_until: Icount(0),
            events: Events::default(),
        }
    }

    /// Package `number` of a machine.
    pub(crate) fn numbered(number: usize, config: &Config) -> Self {
        let mut package = Self::new(config.features(), config.locked_write, config.tdx_partition, config.seed);
        package.entropy = Entropy::new(config.seed, number);
        package.set_knobs(config.knobs);
        package
    }

    /// Replaces the knobs.
    pub fn set_knobs(&mut self, knobs: Knobs) {
        self.knobs = knobs;
        self.entropy.fail_rate = knobs.entropy_fail_rate;
    }

    /// Tells when the operation that follows is executed, which [`Knobs::pconfig_latency`] needs.
    pub fn at(&mut self, now: Icount) -> &mut Self {
        self.now = now;
        self
    }

    /// What the processor enumerates.
    pub fn features(&self) -> &TmeFeatures {
        &self.features
    }

    /// How addresses split now.
    #[inline]
    pub fn layout(&self) -> AddressLayout {
        self.layout
    }

    /// IA32_TME_CAPABILITY.
    pub fn capability(&self) -> u64 {
        self.features.capability
    }

    /// IA32_TME_ACTIVATE as RDMSR returns it.
    pub fn activate(&self) -> u64 {
        self.activate
    }

    /// True once activation has locked 982H with encryption enabled.
    pub fn enabled(&self) -> bool {
        const LOCKED_ON: u64 = activate::LOCK | activate::ENABLE;
        self.activate & LOCKED_ON == LOCKED_ON
    }

    /// `k`: KeyID bits in force, 0 until activation has succeeded.
    pub fn keyid_bits(&self) -> u8 {
        self.layout.keyid_bits
    }

    /// `p`: KeyID bits reserved for TDX, 0 until activation has succeeded.
    pub fn tdx_reserved_keyid_bits(&self) -> u8 {
        if self.enabled() { (self.activate >> activate::TDX_RESERVED_KEYID_BITS_SHIFT & 0xF) as u8 } else { 0 }
    }

    /// MK_TME_MAX_KEYS: programmable keys without KeyID 0.
    pub fn max_keys(&self) -> u16 {
        self.features.max_keys()
    }

    /// MK_TME_CRYPTO_ALGS, 982H\[63:48\]: the algorithms that PCONFIG allows.
    pub fn crypto_algs(&self) -> u16 {
        (self.activate >> activate::CRYPTO_ALGS_SHIFT) as u16
    }

    /// The key table.
    pub fn keys(&self) -> &KeyTable {
        &self.keys
    }

    /// The cipher of a transaction (MK specification section 5.1, `resolve`).
    #[inline]
    pub fn resolve(&self, address: BusAddr) -> Cipher<'_> {
        if self.platform_key.is_none() || self.excludes(address) {
            return Cipher::Plaintext;
        }
        self.data_key(self.layout.keyid(address)).map_or(Cipher::Plaintext, |key| Cipher::Xts(key.schedule()))
    }

    /// True when the exclusion range keeps this address from being encrypted.
    #[inline]
    pub(crate) fn excludes(&self, address: BusAddr) -> bool {
        // The exclusion range is for KeyID 0 only, not for KeyIDs in TME mode (MC-12).
        let everywhere = mutant!(ExcludeEveryKeyid) && self.excluded(BusAddr(self.layout.mem(address).0));
        self.layout.keyid(address) == KeyId(0) && self.excluded(address) || everywhere
    }

    /// The key of a KeyID where nothing is excluded; `None` for plaintext.
    #[inline]
    pub(crate) fn data_key(&self, keyid: KeyId) -> Option<&DataKey> {
        let platform_key = self.platform_key.as_ref()?;
        match self.keys.mode(keyid) {
            KeyMode::Plaintext | KeyMode::FlippedToPlaintext(_) => None,
            KeyMode::Encrypt(key) => Some(key),
            KeyMode::Tme if mutant!(KeyidBeyondMaxPlaintext) && keyid.0 > self.max_keys() => None,
            KeyMode::Tme if self.activate & activate::BYPASS != 0 => None,
            KeyMode::Tme => Some(platform_key),
        }
    }

    /// The key of a transaction whose lines carry a MAC: that of a KeyID programmed with an integrity algorithm (MC-32).
    pub(crate) fn mac_carrier(&self, address: BusAddr) -> Option<&DataKey> {
        self.data_key(self.layout.keyid(address)).filter(|key| key.integrity())
    }

    /// True for a KeyID that TDX has reserved.
    pub(crate) fn is_private(&self, keyid: KeyId) -> bool {
        let shared_bits = self.keyid_bits().saturating_sub(self.tdx_reserved_keyid_bits());
        self.tdx_reserved_keyid_bits() > 0 && keyid.0 >> shared_bits.min(15) != 0
    }

    /// RDRAND or RDSEED; `None` when the generator fails (CF = 0).
    pub fn rdrand64(&mut self) -> Option<u64> {
        self.entropy.draw64(EntropyStream::Instruction)
    }

    /// 32 random bytes from a stream; `None` when the generator fails.
    pub fn rng_draw(&mut self, stream: EntropyStream) -> Option<[u8; 32]> {
        self.entropy.draw(stream)
    }

    /// Fault hook: the next draws from `stream` follow `steps`.
    pub fn script_entropy(&mut self, stream: EntropyStream, steps: impl IntoIterator<Item = EntropyStep>) {
        self.entropy.script(stream, steps);
    }

    /// Fault hook: the next `attempts` key programmings find the key table locked.
    pub fn hold_key_table(&mut self, attempts: u32) {
        self.busy_attempts = attempts;
    }

    /// Fault hook: flips a bit of an entry of the key table. For KeyID 0, of the TME key in use, not of the retained one.
    pub(crate) fn flip_key(&mut self, keyid: KeyId, field: KeyField, bit: u32) -> bool {
        match &mut self.platform_key {
            Some(key) if keyid == KeyId(0) => key.flip(field, bit),
            _ => self.keys.flip(keyid, field, bit),
        }
    }

    /// Fault hook: flips a bit of IA32_TME_EXCLUDE_MASK or IA32_TME_EXCLUDE_BASE, locked or not (section 9.17).
    pub(crate) fn flip_exclude(&mut self, base: bool, bit: u32) {
        let register = if base { &mut self.exclude_base } else { &mut self.exclude_mask };
        *register ^= 1 << (bit & 63);
    }

    /// Reset (MK specification section 7.3). The random generator goes on where it was (MK-034).
    pub fn reset(&mut self, kind: ResetKind) {
        self.events.push(Event::Reset { kind });
        if kind == ResetKind::Init && !mutant!(InitUnlocks) {
            return;
        }
        if kind == ResetKind::Cold && !mutant!(ColdResetKeepsSlot) || mutant!(WarmResetLosesSlot) {
            self.saved_key = None;
        }
        self.activate = 0;
        if !mutant!(WarmResetKeepsExclusion) {
            self.exclude_mask = 0;
            self.exclude_base = 0;
        }
        self.platform_key = None;
        if !mutant!(WarmResetKeepsKeys) {
            self.keys.clear();
        }
        self.layout.keyid_bits = 0;
        self.busy_until = Icount(0);
    }

    /// True if what reset does not change is the same, so that the state of one can be taken over by the other.
    pub(crate) fn same_hardware(&self, other: &Self) -> bool {
        let fixed = |tme: &Self| (tme.features, tme.locked_write, tme.tdx_partition, tme.knobs, tme.layout.maxphyaddr);
        let bits = [self, other].map(|tme| tme.layout.keyid_bits <= tme.features.max_keyid_bits());
        fixed(self) == fixed(other)
            && bits == [true; 2]
            && self.keys.len() == other.keys.len()
            && self.entropy.same_generator(&other.entropy)
    }

    pub(crate) fn hash(&self, hasher: &mut StateHasher) {
        for value in [self.capability(), self.activate, self.exclude_mask, self.exclude_base] {
            hasher.u64(value);
        }
        for key in [&self.platform_key, &self.saved_key] {
            hasher.u64(u64::from(key.is_some()));
            if let Some(key) = key {
                key.hash(hasher);
            }
        }
        self.keys.hash(hasher);
        self.entropy.hash(hasher);
        hasher.u64(u64::from(self.busy_attempts));
        hasher.u64(self.busy_until.0);
    }
}
