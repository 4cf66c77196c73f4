//! TME and MKTME as software sees them: CPUID bits, MSRs, PCONFIG (Intel SDM Vol. 2B "PCONFIG", Vol. 4, and Intel's
//! memory-encryption architecture specification, document 336907).

use core::arch::asm;

/// What the encryption engine works on.
pub const LINE_BYTES: usize = 64;

pub mod cpuid {
    pub const VENDOR: u32 = 0;
    pub const STRUCTURED_FEATURES: u32 = 7;
    /// Leaf 7, ECX: the TME MSRs exist.
    pub const TME_EN: u32 = 1 << 13;
    /// Leaf 7, EDX: PCONFIG exists.
    pub const PCONFIG: u32 = 1 << 18;
    pub const PCONFIG_TARGETS: u32 = 0x1b;
    /// Leaf 1BH, EAX[11:0]: kinds of sub-leaf.
    pub const SUBLEAF_TYPE: u32 = 0xfff;
    pub const SUBLEAF_INVALID: u32 = 0;
    pub const SUBLEAF_TARGETS: u32 = 1;
    /// The identifier of MKTME among PCONFIG's targets.
    pub const TARGET_MKTME: u32 = 1;
    pub const ADDRESS_SIZES: u32 = 0x8000_0008;
}

pub mod msr {
    pub const IA32_TME_CAPABILITY: u32 = 0x981;
    pub const IA32_TME_ACTIVATE: u32 = 0x982;
    pub const IA32_TME_EXCLUDE_MASK: u32 = 0x983;
    pub const IA32_TME_EXCLUDE_BASE: u32 = 0x984;
    pub const MK_TME_CORE_ACTIVATE: u32 = 0x9ff;
}

/// An algorithm by its number: bit `n` of a capability mask, policy `n`, bit `n` of ENC_ALG.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Algorithm(pub u32);

impl Algorithm {
    pub const AES_XTS_128: Self = Self(0);
    pub const AES_XTS_256: Self = Self(2);
    /// All that the manuals define.
    pub const ALL: [Self; 4] = [Self(0), Self(1), Self(2), Self(3)];

    pub fn name(self) -> &'static str {
        match self.0 {
            0 => "AES-XTS-128",
            1 => "AES-XTS-128 with integrity",
            2 => "AES-XTS-256",
            3 => "AES-XTS-256 with integrity",
            _ => "an algorithm unknown to this program",
        }
    }

    pub fn key_bytes(self) -> usize {
        if self.0 < 2 { 16 } else { 32 }
    }

    fn mask(self) -> u32 {
        1 << self.0
    }

    pub fn is_in(self, mask: u16) -> bool {
        u32::from(mask) & self.mask() != 0
    }
}

/// IA32_TME_CAPABILITY.
#[derive(Clone, Copy)]
pub struct Capability(pub u64);

impl Capability {
    pub fn algorithms(self) -> u16 {
        self.0 as u16
    }

    pub fn bypass(self) -> bool {
        self.0 >> 31 & 1 != 0
    }

    /// MK_TME_MAX_KEYID_BITS.
    pub fn max_keyid_bits(self) -> u32 {
        (self.0 >> 32 & 0xf) as u32
    }

    /// MK_TME_MAX_KEYS, not counting KeyID 0.
    pub fn max_keys(self) -> u32 {
        (self.0 >> 36 & 0x7fff) as u32
    }

    pub fn has_mktme(self) -> bool {
        self.max_keyid_bits() > 0 && self.max_keys() > 0
    }
}

/// IA32_TME_ACTIVATE.
#[derive(Clone, Copy)]
pub struct Activate(pub u64);

impl Activate {
    pub fn locked(self) -> bool {
        self.0 & 1 != 0
    }

    pub fn enabled(self) -> bool {
        self.0 >> 1 & 1 != 0
    }

    /// The key is the one saved before standby, not a new one.
    pub fn key_restored(self) -> bool {
        self.0 >> 2 & 1 != 0
    }

    /// The algorithm of KeyID 0.
    pub fn policy(self) -> Algorithm {
        Algorithm((self.0 >> 4 & 0xf) as u32)
    }

    /// KeyID 0 is stored in clear.
    pub fn bypassed(self) -> bool {
        self.0 >> 31 & 1 != 0
    }

    /// MK_TME_KEYID_BITS, `k`.
    pub fn keyid_bits(self) -> u32 {
        (self.0 >> 32 & 0xf) as u32
    }

    /// TDX_RESERVED_KEYID_BITS: how many of the upper KeyID bits belong to TDX.
    pub fn tdx_bits(self) -> u32 {
        (self.0 >> 36 & 0xf) as u32
    }

    /// MK_TME_CRYPTO_ALGS: what PCONFIG accepts.
    pub fn algorithms(self) -> u16 {
        (self.0 >> 48) as u16
    }
}

/// MK_TME_CORE_ACTIVATE: this core's copy of the KeyID width.
#[derive(Clone, Copy)]
pub struct CoreActivate(pub u64);

impl CoreActivate {
    pub fn keyid_bits(self) -> u32 {
        (self.0 >> 32 & 0xf) as u32
    }
}

/// IA32_TME_EXCLUDE_MASK and IA32_TME_EXCLUDE_BASE: a range whose KeyID-0 accesses are not encrypted.
#[derive(Clone, Copy)]
pub struct Exclusion {
    pub mask: u64,
    pub base: u64,
}

impl Exclusion {
    const ENABLE: u64 = 1 << 11;
    /// Both registers hold page numbers in bits 12 and up.
    const ADDRESS: u64 = !0xfff;

    pub fn enabled(self) -> bool {
        self.mask & Self::ENABLE != 0
    }

    pub fn contains(self, address: u64) -> bool {
        let mask = self.mask & Self::ADDRESS;
        self.enabled() && address & mask == self.base & mask
    }
}

/// KEYID_CTRL.COMMAND of MKTME_KEY_PROGRAM_STRUCT.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Command {
    SetKeyDirect = 0,
    SetKeyRandom = 1,
    ClearKey = 2,
    NoEncrypt = 3,
}

impl Command {
    pub fn name(self) -> &'static str {
        match self {
            Self::SetKeyDirect => "KEYID_SET_KEY_DIRECT",
            Self::SetKeyRandom => "KEYID_SET_KEY_RANDOM",
            Self::ClearKey => "KEYID_CLEAR_KEY",
            Self::NoEncrypt => "KEYID_NO_ENCRYPT",
        }
    }
}

/// Data key and tweak key, or the entropy that RANDOM mixes into them.
#[derive(Clone, Copy)]
pub struct KeyFields {
    pub data: [u8; 64],
    pub tweak: [u8; 64],
}

impl KeyFields {
    pub const ZERO: Self = Self { data: [0; 64], tweak: [0; 64] };
}

/// What PCONFIG returned.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Status {
    pub rax: u64,
    pub zf: bool,
}

impl Status {
    const ENTROPY_ERROR: u64 = 2;
    const DEVICE_BUSY: u64 = 5;

    pub fn succeeded(self) -> bool {
        self == Self { rax: 0, zf: false }
    }

    /// The two failures that pass: try again.
    fn is_transient(self) -> bool {
        self.zf && matches!(self.rax, Self::ENTROPY_ERROR | Self::DEVICE_BUSY)
    }

    pub fn name(self) -> &'static str {
        match self.rax {
            0 => "PROG_SUCCESS",
            1 => "INVALID_PROG_CMD",
            Self::ENTROPY_ERROR => "ENTROPY_ERROR",
            3 => "INVALID_KEYID",
            4 => "INVALID_CRYPTO_ALG",
            Self::DEVICE_BUSY => "DEVICE_BUSY",
            _ => "unknown status",
        }
    }
}

/// MKTME_KEY_PROGRAM_STRUCT, 256-byte aligned; the CPU reads the first 192 bytes.
#[repr(C, align(256))]
struct KeyProgramStruct {
    keyid: [u8; 2],
    /// COMMAND in bits 7:0, ENC_ALG in bits 23:8; unaligned.
    keyid_ctrl: [u8; 4],
    ignored: [u8; 58],
    key_field_1: [u8; 64],
    key_field_2: [u8; 64],
}

/// Leaf 0 of PCONFIG.
const MKTME_KEY_PROGRAM: u64 = 0;

/// Attempts while the random generator or the key table is busy.
const ATTEMPTS: u32 = 100;

/// Programs a KeyID. ENC_ALG must be valid for every command, even those that need no algorithm.
///
/// Only to be called where PCONFIG is enumerated and TME is active, otherwise it is #UD or #GP, as are KeyIDs and
/// algorithms that the machine does not have.
pub fn program(keyid: u16, command: Command, algorithm: Algorithm, keys: &KeyFields) -> Status {
    let [enc_alg_low, enc_alg_high, ..] = algorithm.mask().to_le_bytes();
    let mut structure = KeyProgramStruct {
        keyid: keyid.to_le_bytes(),
        keyid_ctrl: [command as u8, enc_alg_low, enc_alg_high, 0],
        ignored: [0; 58],
        key_field_1: keys.data,
        key_field_2: keys.tweak,
    };
    let mut status = pconfig(&structure);
    for _ in 1..ATTEMPTS {
        if !status.is_transient() {
            break;
        }
        status = pconfig(&structure);
    }
    // Keys have no business on a stack after they were used.
    // SAFETY: a valid, exclusive reference; volatile, so that the store is not seen as dead.
    unsafe { (&raw mut structure).write_volatile(core::mem::zeroed()) };
    status
}

fn pconfig(structure: &KeyProgramStruct) -> Status {
    let (rax, zf): (u64, u8);
    // SAFETY: reads 192 bytes of the structure and changes the key table; no memory that Rust knows changes, since all of
    // it is mapped with KeyID 0, which cannot be programmed. RBX is not available as an operand and is put back.
    unsafe {
        asm!(
            "xchg rbx, rsi",
            ".byte 0x0f, 0x01, 0xc5",
            "setz dil",
            "xchg rbx, rsi",
            inout("rax") MKTME_KEY_PROGRAM => rax,
            inout("rsi") structure => _,
            out("dil") zf,
            options(nostack),
        );
    }
    Status { rax, zf: zf != 0 }
}
