//! MKTME as software sees it: CPUID, MSRs, PCONFIG (Intel SDM Vol. 2B "PCONFIG", Vol. 4; Intel document 336907).

use crate::cpu::{cpuid, rdmsr};
use core::arch::asm;

/// What the encryption engine and the cache work on.
pub const LINE_BYTES: usize = 64;

const IA32_TME_CAPABILITY: u32 = 0x981;
const IA32_TME_ACTIVATE: u32 = 0x982;

/// CPUID leaf 7: ECX[13] TME_EN, EDX[18] PCONFIG.
const TME_EN: u32 = 1 << 13;
const PCONFIG: u32 = 1 << 18;
/// IA32_TME_ACTIVATE: lock and enable.
const ACTIVE: u64 = 0b11;

/// Leaf of PCONFIG, and what it returns in RAX.
const MKTME_KEY_PROGRAM: u64 = 0;
pub const PROG_SUCCESS: u64 = 0;
/// Another processor is at the key table: the only answer that asks for another attempt of a command without entropy.
pub const DEVICE_BUSY: u64 = 5;
/// KEYID_CTRL.COMMAND.
const KEYID_SET_KEY_DIRECT: u8 = 0;

/// A key of the longest algorithm; AES-XTS-128 uses 16 bytes of each half.
pub struct Key {
    pub data: [u8; 32],
    pub tweak: [u8; 32],
}

/// What a test has to know of the machine.
pub struct Machine {
    /// Lowest physical address bit of the KeyID.
    pub keyid_shift: u32,
    /// KeyIDs that can be programmed are 1 to this.
    max_keyid: u32,
    /// One bit: the algorithm to use, as ENC_ALG has it.
    pub algorithm: u16,
}

impl Machine {
    /// Asks the processor, in the order in which each answer may be relied on.
    pub fn find() -> Result<Machine, &'static str> {
        let features = cpuid(7, 0);
        if features.ecx & TME_EN == 0 {
            return Err("the processor has no TME");
        }
        if features.edx & PCONFIG == 0 {
            return Err("the processor has no PCONFIG");
        }
        let capability = rdmsr(IA32_TME_CAPABILITY);
        let activate = rdmsr(IA32_TME_ACTIVATE);
        if activate & ACTIVE != ACTIVE {
            return Err("firmware did not enable TME");
        }
        // MK_TME_KEYID_BITS and TDX_RESERVED_KEYID_BITS, MK_TME_CRYPTO_ALGS.
        let (keyid_bits, tdx_bits) = ((activate >> 32 & 0xf) as u32, (activate >> 36 & 0xf) as u32);
        let algorithms = (activate >> 48) as u16;
        if keyid_bits == 0 {
            return Err("firmware left no address bits for KeyIDs");
        }
        let maxphyaddr = cpuid(0x8000_0008, 0).eax & 0xff;
        // MK_TME_MAX_KEYS
        let max_keys = (capability >> 36 & 0x7fff) as u32;
        Ok(Machine {
            keyid_shift: maxphyaddr - keyid_bits,
            max_keyid: ((1 << (keyid_bits - tdx_bits)) - 1).min(max_keys),
            // The lowest bit set: AES-XTS-128 where there is a choice.
            algorithm: algorithms & algorithms.wrapping_neg(),
        })
    }

    /// How many KeyIDs can be programmed.
    pub fn keyids(&self) -> u32 {
        self.max_keyid
    }

    /// KEYID_SET_KEY_DIRECT; returns RAX.
    ///
    /// A KeyID or algorithm that the machine does not have is #GP, not a return value.
    pub fn set_key_direct(&self, keyid: u16, key: &Key) -> u64 {
        let [enc_alg_low, enc_alg_high] = self.algorithm.to_le_bytes();
        let mut structure = KeyProgramStruct {
            keyid: keyid.to_le_bytes(),
            keyid_ctrl: [KEYID_SET_KEY_DIRECT, enc_alg_low, enc_alg_high, 0],
            reserved: [0; 58],
            key_field_1: [0; 64],
            key_field_2: [0; 64],
        };
        structure.key_field_1[..32].copy_from_slice(&key.data);
        structure.key_field_2[..32].copy_from_slice(&key.tweak);
        loop {
            let status = pconfig(&structure);
            if status != DEVICE_BUSY {
                return status;
            }
        }
    }
}

/// MKTME_KEY_PROGRAM_STRUCT: 192 bytes, 256-byte aligned.
#[repr(C, align(256))]
pub struct KeyProgramStruct {
    pub keyid: [u8; 2],
    /// COMMAND in bits 7:0, ENC_ALG in bits 23:8.
    pub keyid_ctrl: [u8; 4],
    pub reserved: [u8; 58],
    /// Data key.
    pub key_field_1: [u8; 64],
    /// Tweak key.
    pub key_field_2: [u8; 64],
}

/// PCONFIG, leaf MKTME_KEY_PROGRAM; returns RAX.
pub fn pconfig(structure: &KeyProgramStruct) -> u64 {
    let rax;
    // SAFETY: reads the structure and changes the key table; no memory that Rust knows changes, since all of it is mapped
    // under KeyID 0, which cannot be programmed. RBX, the operand, is not available to asm! and is put back.
    unsafe {
        asm!(
            "xchg rbx, rsi",
            ".byte 0x0f, 0x01, 0xc5", // PCONFIG
            "xchg rbx, rsi",
            inout("rax") MKTME_KEY_PROGRAM => rax,
            inout("rsi") structure => _,
            options(nostack),
        );
    }
    rax
}
