//! Bits of the memory-encryption MSRs and the PCONFIG structure (MK specification sections 3 and 4).

/// IA32_TME_CAPABILITY (981H)
pub mod capability {
    pub const AES_XTS_128: u64 = 1 << 0;
    pub const AES_XTS_128_INTEGRITY: u64 = 1 << 1;
    pub const AES_XTS_256: u64 = 1 << 2;
    pub const AES_XTS_256_INTEGRITY: u64 = 1 << 3;
    pub const CLEAR_SAVED_KEY: u64 = 1 << 30;
    pub const BYPASS: u64 = 1 << 31;
    pub const MK_TME_MAX_KEYID_BITS_SHIFT: u32 = 32;
    pub const MK_TME_MAX_KEYS_SHIFT: u32 = 36;
}

/// IA32_TME_ACTIVATE (982H)
pub mod activate {
    pub const LOCK: u64 = 1 << 0;
    pub const ENABLE: u64 = 1 << 1;
    pub const KEY_SELECT: u64 = 1 << 2;
    pub const SAVE_KEY: u64 = 1 << 3;
    pub const POLICY_SHIFT: u32 = 4;
    pub const BYPASS: u64 = 1 << 31;
    pub const MK_TME_KEYID_BITS_SHIFT: u32 = 32;
    pub const TDX_RESERVED_KEYID_BITS_SHIFT: u32 = 36;
    pub const CRYPTO_ALGS_SHIFT: u32 = 48;
}

/// IA32_TME_EXCLUDE_MASK (983H)
pub mod exclude {
    pub const ENABLE: u64 = 1 << 11;
}

/// PCONFIG leaf 0, MKTME_KEY_PROGRAM (MK specification section 4.2).
pub mod pconfig {
    pub const MKTME_KEY_PROGRAM: u32 = 0;
    /// Bytes the processor reads, from a 256-byte aligned linear address.
    pub const STRUCT_BYTES: usize = 192;
    pub const STRUCT_ALIGN: u64 = 256;
    pub const KEYID_OFFSET: usize = 0;
    pub const KEYID_CTRL_OFFSET: usize = 2;
    pub const KEY_FIELD_1_OFFSET: usize = 64;
    pub const KEY_FIELD_2_OFFSET: usize = 128;

    pub const KEYID_SET_KEY_DIRECT: u8 = 0;
    pub const KEYID_SET_KEY_RANDOM: u8 = 1;
    pub const KEYID_CLEAR_KEY: u8 = 2;
    pub const KEYID_NO_ENCRYPT: u8 = 3;

    pub const PROG_SUCCESS: u64 = 0;
    pub const INVALID_PROG_CMD: u64 = 1;
    pub const ENTROPY_ERROR: u64 = 2;
    pub const INVALID_KEYID: u64 = 3;
    pub const INVALID_CRYPTO_ALG: u64 = 4;
    pub const DEVICE_BUSY: u64 = 5;
}
