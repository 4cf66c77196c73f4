//! Stand-in for the `crypto` crate until that is merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct PlainLine(pub [u8; 64]);
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct CipherLine(pub [u8; 64]);
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    AesXts128,
    AesXts256,
}
impl Algorithm {
    pub fn key_bytes(self) -> usize {
        if self == Self::AesXts128 { 16 } else { 32 }
    }
    pub fn from_number(n: u8) -> Option<Self> {
        match n {
            0 => Some(Self::AesXts128),
            2 => Some(Self::AesXts256),
            _ => None,
        }
    }
    pub fn number(self) -> u8 {
        if self == Self::AesXts128 { 0 } else { 2 }
    }
}
#[derive(Clone)]
pub struct XtsKey([u8; 32]);
impl XtsKey {
    pub fn new(_alg: Algorithm, k1: &[u8], k2: &[u8]) -> Self {
        let mut key = [0; 32];
        key[..16].copy_from_slice(&k1[..16]);
        key[16..].copy_from_slice(&k2[..16]);
        Self(key)
    }
    fn mix(&self, dun: u64, from: &[u8; 64]) -> [u8; 64] {
        std::array::from_fn(|i| from[i] ^ self.0[i % 32] ^ (dun >> (i % 8 * 8)) as u8)
    }
    pub fn encrypt_line(&self, dun: u64, line: &PlainLine) -> CipherLine {
        CipherLine(self.mix(dun, &line.0))
    }
    pub fn decrypt_line(&self, dun: u64, line: &CipherLine) -> PlainLine {
        PlainLine(self.mix(dun, &line.0))
    }
    pub fn encrypt_lines(&self, dun: u64, from: &[PlainLine], to: &mut [CipherLine]) {
        for (i, (f, t)) in from.iter().zip(to).enumerate() {
            *t = self.encrypt_line(dun + i as u64, f);
        }
    }
    pub fn decrypt_lines(&self, dun: u64, from: &[CipherLine], to: &mut [PlainLine]) {
        for (i, (f, t)) in from.iter().zip(to).enumerate() {
            *t = self.decrypt_line(dun + i as u64, f);
        }
    }
}
