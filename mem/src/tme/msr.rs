//! MSRs 981H-984H, 9FBH and 87H (MK specification section 3).

use crypto::Algorithm;
use x86::msr;
use x86::mutant;
use x86::tme::{activate, capability, exclude};

use super::{LockedWrite, TmePackage};
use crate::addr::BusAddr;
use crate::event::{ActivateOutcome, Event};
use crate::tme::entropy::EntropyStream;
use crate::tme::keys::DataKey;

/// 982H bits that are reserved on every part: 30:8, 47:40, 63:52.
const ACTIVATE_RESERVED: u64 = 0x7FFF_FF00 | 0xFF << 40 | 0xFFF << 52;
/// 982H\[39:36\].
const ACTIVATE_TDX_BITS: u64 = 0xF << activate::TDX_RESERVED_KEYID_BITS_SHIFT;
/// 982H\[63:32\], reserved without TME-MK.
const ACTIVATE_MK_BITS: u64 = 0xFFFF_FFFF << 32;
/// The algorithm positions of 981H\[15:0\] that are integrity variants, not allowed as TME policy (W6).
const INTEGRITY_POLICIES: [u64; 2] = [1, 3];
/// The largest algorithm number that fits the 982H policy check (W5).
const POLICY_MAX: u64 = 3;
/// 983H\[10:0\] are reserved, and bit 11 is Enable.
const EXCLUDE_MASK_RESERVED: u64 = 0x7FF;
/// 984H\[11:0\] are reserved.
const EXCLUDE_BASE_RESERVED: u64 = 0xFFF;
/// 9FBH bit 0: clear the retained key (MC-16).
const CLEAR_SAVED_KEY: u64 = 1;

/// Fields of a value written to 982H.
struct Request {
    enable: bool,
    restore: bool,
    policy: u64,
    keyid_bits: u64,
    tdx_bits: u64,
    algs: u64,
}

impl Request {
    fn new(value: u64) -> Self {
        Self {
            enable: value & activate::ENABLE != 0,
            restore: value & activate::KEY_SELECT != 0,
            policy: value >> activate::POLICY_SHIFT & 0xF,
            keyid_bits: value >> activate::MK_TME_KEYID_BITS_SHIFT & 0xF,
            tdx_bits: value >> activate::TDX_RESERVED_KEYID_BITS_SHIFT & 0xF,
            algs: value >> activate::CRYPTO_ALGS_SHIFT,
        }
    }
}

impl TmePackage {
    /// RDMSR of 87H, 981H-984H, 9FBH. `None` is #GP(0); so it is for every other number.
    pub fn rdmsr(&self, msr: u32) -> Option<u64> {
        if !self.exists(msr) {
            return None;
        }
        match msr {
            msr::IA32_MKTME_KEYID_PARTITIONING => Some(self.keyid_partitioning()),
            msr::IA32_TME_CAPABILITY => Some(self.features.capability),
            msr::IA32_TME_ACTIVATE => Some(self.activate),
            msr::IA32_TME_EXCLUDE_MASK => Some(self.exclude_mask),
            msr::IA32_TME_EXCLUDE_BASE => Some(self.exclude_base),
            msr::IA32_TME_CLEAR_SAVED_KEY => Some(0),
            _ => None,
        }
    }

    /// WRMSR of the same. `None` is #GP(0), and nothing changed.
    pub fn wrmsr(&mut self, msr: u32, value: u64) -> Option<()> {
        if !self.exists(msr) {
            return None;
        }
        match msr {
            msr::IA32_TME_ACTIVATE => self.write_activate(value),
            msr::IA32_TME_EXCLUDE_MASK => self.write_exclude_mask(value),
            msr::IA32_TME_EXCLUDE_BASE => self.write_exclude_base(value),
            msr::IA32_TME_CLEAR_SAVED_KEY => self.write_clear_saved_key(value),
            _ => None,
        }
    }

    /// Enumeration (MK specification section 3, table; MC-04).
    fn exists(&self, msr: u32) -> bool {
        match msr {
            msr::IA32_MKTME_KEYID_PARTITIONING => self.features.max_keyid_bits() > 0,
            msr::IA32_TME_CLEAR_SAVED_KEY => {
                self.features.has_tme && self.features.capability & capability::CLEAR_SAVED_KEY != 0
            }
            _ => self.features.has_tme,
        }
    }

    /// 87H: shared KeyIDs in the low half, TDX private ones in the high half (section 3.7).
    fn keyid_partitioning(&self) -> u64 {
        let (k, p) = (u32::from(self.keyid_bits()), u32::from(self.tdx_reserved_keyid_bits()));
        let keys = |bits: u32| ((1u64 << bits) - 1).min(u64::from(self.max_keys()));
        let shared = keys(if mutant!(PartitioningIgnoresTdx) { k } else { k.saturating_sub(p) });
        (keys(k) - shared) << 32 | shared
    }

    /// W3 to W16 of section 3.3, in that order (MC-06).
    fn write_activate(&mut self, value: u64) -> Option<()> {
        let outcome = match self.refuse_activate(value) {
            Some(refused) => refused,
            None => self.commit_activate(value),
        };
        self.events.push(Event::Activate { value, outcome });
        match outcome {
            ActivateOutcome::Refused(_) => None,
            _ => Some(()),
        }
    }

    fn refuse_activate(&self, value: u64) -> Option<ActivateOutcome> {
        let capability = self.features.capability;
        let request = Request::new(value);
        if self.activate & activate::LOCK != 0 && !mutant!(LockForgotten) {
            return Some(match self.locked_write {
                LockedWrite::Gp => ActivateOutcome::Refused(3),
                LockedWrite::Ignore => ActivateOutcome::Ignored,
            });
        }
        let mut reserved = if mutant!(ActivateReservedBits) { 0 } else { ACTIVATE_RESERVED };
        if mutant!(ActivateLockBitReserved) {
            reserved |= activate::LOCK;
        }
        if capability & capability::BYPASS == 0 && !mutant!(BypassNotEnumerated) {
            reserved |= activate::BYPASS;
        }
        if !self.tdx_partition {
            reserved |= ACTIVATE_TDX_BITS;
        }
        if self.features.max_keyid_bits() == 0 && !mutant!(KeyidBitsWithoutTmeMk) {
            reserved |= ACTIVATE_MK_BITS;
        }
        let check = if value & reserved != 0 {
            4
        } else if request.enable
            && (request.policy > POLICY_MAX || capability >> request.policy & 1 == 0)
            && !mutant!(PolicyNotEnumerated)
        {
            5
        } else if request.enable && INTEGRITY_POLICIES.contains(&request.policy) && !mutant!(IntegrityPolicy) {
            6
        } else if request.keyid_bits > u64::from(self.features.max_keyid_bits()) && !mutant!(TooManyKeyidBits) {
            7
        } else if request.keyid_bits > 0 && !request.enable && !mutant!(KeyidBitsWithoutEnable) {
            8
        } else if request.tdx_bits > request.keyid_bits && !mutant!(TdxBitsAboveKeyidBits) {
            9
        } else if request.algs & !(capability & 0xFFFF) != 0 && !mutant!(AlgorithmNotEnumerated) {
            10
        } else {
            return None;
        };
        Some(ActivateOutcome::Refused(check))
    }

    fn commit_activate(&mut self, value: u64) -> ActivateOutcome {
        let request = Request::new(value);
        if !request.enable {
            self.activate = value | activate::LOCK;
            return ActivateOutcome::LockedOff;
        }
        // W5 and W6 left only the numbers of algorithms without integrity.
        let key = Algorithm::from_number(request.policy as u32).and_then(|algorithm| {
            let restore = request.restore && !mutant!(RestoreMakesKey);
            if restore { self.restore_key(algorithm) } else { self.make_key(algorithm) }
        });
        let Some(key) = key else {
            // MC-09: with k > 0 the write is not committed at all, otherwise without Lock and Enable.
            if request.keyid_bits == 0 || mutant!(EntropyFailureCommits) {
                self.activate = value & !(activate::LOCK | activate::ENABLE);
                self.activate |= if mutant!(EntropyFailureLocks) { activate::LOCK } else { 0 };
            }
            return if request.restore { ActivateOutcome::NothingSaved } else { ActivateOutcome::EntropyFailure };
        };
        if value & activate::SAVE_KEY != 0 || mutant!(KeyAlwaysSaved) {
            self.saved_key = Some(key.clone());
        }
        self.platform_key = Some(key);
        self.activate = value | activate::LOCK;
        self.layout.keyid_bits = request.keyid_bits as u8;
        if !mutant!(WarmResetKeepsKeys) {
            self.keys.clear();
        }
        if request.restore { ActivateOutcome::Restored } else { ActivateOutcome::NewKey }
    }

    /// W12, W13.
    fn make_key(&mut self, algorithm: Algorithm) -> Option<DataKey> {
        if mutant!(TmeKeyConstant) {
            return Some(DataKey::new(algorithm, &[0x5A; 32], &[0xA5; 32]));
        }
        let k1 = self.entropy.draw(EntropyStream::TmeKey)?;
        let k2 = self.entropy.draw(EntropyStream::TmeKey)?;
        Some(DataKey::new(algorithm, &k1, &k2))
    }

    /// W14, W15. A slot that was saved under another policy holds no key for this one: W15.
    fn restore_key(&self, algorithm: Algorithm) -> Option<DataKey> {
        self.saved_key.clone().filter(|key| key.algorithm() == algorithm && !key.is_zero())
    }

    /// Bits of an address mask or base: M-1:12.
    fn exclude_address_bits(&self) -> u64 {
        ((1 << self.features.maxphyaddr) - 1) & !EXCLUDE_BASE_RESERVED
    }

    fn write_exclude_mask(&mut self, value: u64) -> Option<()> {
        let address_bits = self.exclude_address_bits();
        let mask = value & address_bits;
        let reserved = !(address_bits | exclude::ENABLE) | EXCLUDE_MASK_RESERVED;
        // MC-11: one run of ones that ends at bit M-1, or no bit at all.
        let run = mask == 0 || mask.wrapping_add(mask & mask.wrapping_neg()) == 1 << self.features.maxphyaddr;
        let locked = self.activate & activate::LOCK != 0 && !mutant!(ExcludeUnlocked);
        if locked || value & reserved != 0 || !run && !mutant!(ExcludeGaps) {
            return None;
        }
        self.exclude_mask = value;
        Some(())
    }

    fn write_exclude_base(&mut self, value: u64) -> Option<()> {
        let reserved = if mutant!(ExcludeReservedBits) { 0 } else { !self.exclude_address_bits() };
        if self.activate & activate::LOCK != 0 || value & reserved != 0 {
            return None;
        }
        self.exclude_base = value;
        Some(())
    }

    /// Not covered by the lock of 982H; writing 0 does nothing (MC-16).
    fn write_clear_saved_key(&mut self, value: u64) -> Option<()> {
        if value & !CLEAR_SAVED_KEY != 0 && !mutant!(ClearSavedKeyReserved) {
            return None;
        }
        if value & CLEAR_SAVED_KEY != 0 && !mutant!(SavedKeyNotCleared) {
            self.saved_key = None;
        }
        Some(())
    }

    /// Match rule of section 3.5 without the KeyID part.
    #[inline]
    pub(super) fn excluded(&self, address: BusAddr) -> bool {
        if self.exclude_mask & exclude::ENABLE == 0 && !(mutant!(ExcludeDisabled) && self.exclude_mask != 0) {
            return false;
        }
        let mask = self.exclude_mask & self.exclude_address_bits();
        address.0 & mask == self.exclude_base & mask
    }
}
