//! Cryptographic integrity of lines (the hardware specification's section 5.9; MC-32).
//!
//! With each line DRAM keeps {owner, poison, mac28}, where a DIMM has bits for ECC. [`Integrity`] has the MAC keys and what
//! was found; the controller computes and checks. A machine without the option has no [`Integrity`], and its DRAM no
//! metadata.

use sha3::{Digest, Sha3_256};

use crate::CipherLine;
use crate::addr::{BusAddr, KeyId, LineAddr};
use crate::fault::Moment;
use crate::tme::mac_key;

/// Bits of a MAC.
pub const MAC_BITS: u16 = 28;
const MAC_MASK: u32 = (1 << MAC_BITS) - 1;
/// An instruction count that is not known yet.
const UNKNOWN: u64 = u64::MAX;

/// What DRAM keeps with a line besides its cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct LineMetadata {
    /// MAC, 28 bits. 0 for a line that was written under a KeyID without integrity.
    pub mac: u32,
    /// The line was written under a TDX-private KeyID.
    pub owner: bool,
    /// The line's contents are known to be wrong. Stays until the whole line is overwritten.
    pub poison: bool,
}

impl LineMetadata {
    const OWNER: u32 = 1 << MAC_BITS;
    const POISON: u32 = Self::OWNER << 1;
    /// Bits of [`to_bits`](Self::to_bits) that are used.
    pub(crate) const BITS: u32 = Self::POISON << 1;

    pub(crate) fn to_bits(self) -> u32 {
        let flag = |on: bool, bit| if on { bit } else { 0 };
        self.mac & MAC_MASK | flag(self.owner, Self::OWNER) | flag(self.poison, Self::POISON)
    }

    pub(crate) fn from_bits(bits: u32) -> Self {
        Self { mac: bits & MAC_MASK, owner: bits & Self::OWNER != 0, poison: bits & Self::POISON != 0 }
    }
}

/// The MAC of a line (MC-32). `tweak0` is E_K2 of the data-unit number.
pub fn mac28(mac_key: &[u8; 32], cells: &CipherLine, tweak0: &[u8; 16], owner: bool) -> u32 {
    let mut hash = Sha3_256::new();
    hash.update(mac_key);
    hash.update(cells.0);
    hash.update(tweak0);
    hash.update([u8::from(owner)]);
    let digest = hash.finalize();
    u32::from_le_bytes([digest[0], digest[1], digest[2], digest[3]]) & MAC_MASK
}

/// Where and when integrity has found something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Detection {
    /// The line, without KeyID.
    pub line: LineAddr,
    /// The instruction that was under way, and the KeyID of its access. For what a bus master, the firmware or a host
    /// operation has met, the instruction before which that was.
    pub moment: Moment,
}

/// What integrity has found since the machine was built or restored. Host-side: no part of the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Detections {
    /// Lines read whose MAC or owner bit was not what it should be. A store to a part of a line reads it too.
    pub mismatches: u64,
    /// Loads, fetches and page walks that met poison; each raises #MC.
    pub consumed: u64,
    /// The first of `mismatches`.
    pub first_mismatch: Option<Detection>,
    /// The first of `consumed`.
    pub first_consumed: Option<Detection>,
}

/// What the check of a line that was read says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Sound,
    /// Poisoned before.
    Poisoned,
    /// The owner bit or the MAC is wrong.
    Mismatch,
}

/// The engines' part of integrity.
pub(crate) struct Integrity {
    /// By package. Made by hardware when power comes on: a function of the seed.
    mac_keys: Vec<[u8; 32]>,
    /// A read since this was last taken has met poison.
    met: bool,
    /// Poison that a load, fetch or page walk has met, for the processor.
    pub(crate) consumed: Option<BusAddr>,
    /// The host looks: what is found changes nothing.
    pub(crate) quiet: bool,
    pub(crate) detections: Detections,
    /// `detections` lack their time.
    unstamped: bool,
}

impl Integrity {
    pub(crate) fn new(seed: u64, packages: usize) -> Self {
        Self {
            mac_keys: (0..packages).map(|package| mac_key(seed, package)).collect(),
            met: false,
            consumed: None,
            quiet: false,
            detections: Detections::default(),
            unstamped: false,
        }
    }

    pub(crate) fn mac(&self, package: usize, cells: &CipherLine, tweak0: &[u8; 16], owner: bool) -> u32 {
        self.mac_keys.get(package).map_or(0, |key| mac28(key, cells, tweak0, owner))
    }

    pub(crate) fn meet(&mut self) {
        self.met = true;
    }

    /// True if poison was met since the last call.
    pub(crate) fn take_met(&mut self) -> bool {
        std::mem::take(&mut self.met)
    }

    pub(crate) fn note_mismatch(&mut self, line: LineAddr, keyid: KeyId) {
        self.detections.mismatches += 1;
        if self.detections.first_mismatch.is_none() {
            self.detections.first_mismatch = Some(unknown(line, keyid));
            self.unstamped = true;
        }
    }

    pub(crate) fn note_consumed(&mut self, address: BusAddr, line: LineAddr, keyid: KeyId) {
        self.consumed = Some(address);
        self.detections.consumed += 1;
        if self.detections.first_consumed.is_none() {
            self.detections.first_consumed = Some(unknown(line, keyid));
            self.unstamped = true;
        }
    }

    #[inline(always)]
    pub(crate) fn has_unstamped(&self) -> bool {
        self.unstamped
    }

    pub(crate) fn stamp(&mut self, icount: u64, rip: u64) {
        self.unstamped = false;
        let Detections { first_mismatch, first_consumed, .. } = &mut self.detections;
        for detection in [first_mismatch, first_consumed].into_iter().flatten() {
            if detection.moment.icount == UNKNOWN {
                detection.moment = Moment { icount, rip, ..detection.moment };
            }
        }
    }

    /// After a restore.
    pub(crate) fn forget(&mut self) {
        (self.met, self.consumed, self.unstamped) = (false, None, false);
        self.detections = Detections::default();
    }
}

fn unknown(line: LineAddr, keyid: KeyId) -> Detection {
    Detection { line, moment: Moment { icount: UNKNOWN, rip: 0, keyid: Some(keyid) } }
}
