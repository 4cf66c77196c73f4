//! The PCONFIG structure (MK specification section 4.2) and test keys.

use crypto::{Algorithm, CipherLine, PlainLine, XtsKey};
use x86::tme::pconfig as spec;

/// ENC_ALG.
pub const XTS_128: u16 = 1 << 0;
pub const XTS_256: u16 = 1 << 2;

/// Bytes 00, 01, .. 3f: "ramp" of section 6.4.
pub const RAMP: [u8; 64] = {
    let mut line = [0; 64];
    let mut i = 0;
    while i < 64 {
        line[i] = i as u8;
        i += 1;
    }
    line
};

/// A key of bytes `first`, `first + 1`, ...
pub fn key(first: u8) -> [u8; 32] {
    std::array::from_fn(|i| first.wrapping_add(i as u8))
}

/// Fields of MKTME_KEY_PROGRAM_STRUCT.
#[derive(Debug, Clone)]
pub struct Program {
    pub keyid: u16,
    pub command: u8,
    pub algorithms: u16,
    /// KEYID_CTRL[31:24].
    pub reserved: u8,
    pub key1: [u8; 64],
    pub key2: [u8; 64],
    /// Bytes 6 to 63.
    pub filler: u8,
}

fn field(key: [u8; 32]) -> [u8; 64] {
    let mut field = [0; 64];
    field[..32].copy_from_slice(&key);
    field
}

impl Program {
    /// Any command, with keys that start with 11H and 22H.
    pub fn new(keyid: u16, command: u8, algorithms: u16) -> Program {
        let (key1, key2) = (field([0x11; 32]), field([0x22; 32]));
        Program { keyid, command, algorithms, reserved: 0, key1, key2, filler: 0 }
    }

    /// KEYID_SET_KEY_DIRECT. XTS-128 uses the first 16 bytes of each key.
    pub fn direct(keyid: u16, algorithm: u16, key1: [u8; 32], key2: [u8; 32]) -> Program {
        let mut program = Program::new(keyid, spec::KEYID_SET_KEY_DIRECT, algorithm);
        (program.key1, program.key2) = (field(key1), field(key2));
        program
    }

    /// KEYID_SET_KEY_DIRECT, XTS-128, keys that start with `seed` and `seed + 1`.
    pub fn simple(keyid: u16, seed: u8) -> Program {
        Program::direct(keyid, XTS_128, [seed; 32], [seed.wrapping_add(1); 32])
    }

    /// KEYID_SET_KEY_RANDOM with entropy fields of zero.
    pub fn random(keyid: u16) -> Program {
        let mut program = Program::new(keyid, spec::KEYID_SET_KEY_RANDOM, XTS_128);
        (program.key1, program.key2) = ([0; 64], [0; 64]);
        program
    }

    pub fn clear(keyid: u16) -> Program {
        Program::new(keyid, spec::KEYID_CLEAR_KEY, XTS_128)
    }

    pub fn no_encrypt(keyid: u16) -> Program {
        Program::new(keyid, spec::KEYID_NO_ENCRYPT, XTS_128)
    }

    /// The 192 bytes that the processor reads.
    pub fn bytes(&self) -> [u8; spec::STRUCT_BYTES] {
        let mut bytes = [self.filler; spec::STRUCT_BYTES];
        bytes[spec::KEYID_OFFSET..][..2].copy_from_slice(&self.keyid.to_le_bytes());
        let [low, high] = self.algorithms.to_le_bytes();
        bytes[spec::KEYID_CTRL_OFFSET..][..4].copy_from_slice(&[self.command, low, high, self.reserved]);
        bytes[spec::KEY_FIELD_1_OFFSET..][..64].copy_from_slice(&self.key1);
        bytes[spec::KEY_FIELD_2_OFFSET..][..64].copy_from_slice(&self.key2);
        bytes
    }
}

/// What a DIRECT key does to a line, computed by the cipher alone (MK specification section 6.2).
impl Program {
    fn xts(&self) -> XtsKey {
        let algorithm = if self.algorithms == XTS_256 { Algorithm::AesXts256 } else { Algorithm::AesXts128 };
        let n = algorithm.key_bytes();
        XtsKey::new(algorithm, &self.key1[..n], &self.key2[..n])
    }

    pub fn encrypt(&self, physical: u64, line: &[u8; 64]) -> [u8; 64] {
        self.xts().encrypt_line(physical >> 6, &PlainLine(*line)).0
    }

    pub fn decrypt(&self, physical: u64, cells: &[u8; 64]) -> [u8; 64] {
        self.xts().decrypt_line(physical >> 6, &CipherLine(*cells)).0
    }
}
