//! Set-up shared by the tests.
#![allow(dead_code, reason = "every test file uses a part of it")]

use mem::{
    Algorithm, BusAddr, Config, EntropyStep, EntropyStream, KeyId, MemType, Memory, PhysAddr, StateHasher, TmeProfile,
};
use x86::{msr, tme::pconfig};

/// "activated" of MK specification section 10: k = 6, XTS-128 and XTS-256 keys allowed.
pub const ACTIVATE_K6: u64 = 0x0005_0006_0000_0002;

/// The keys of MK specification section 6.4.
pub const XTS128: ([u8; 64], [u8; 64]) = (ascending(0x00), ascending(0x10));
pub const XTS256: ([u8; 64], [u8; 64]) = (ascending(0x00), ascending(0x40));

/// Bytes `first`, `first + 1`, ... as a KEY_FIELD.
pub const fn ascending(first: u8) -> [u8; 64] {
    let mut field = [0; 64];
    let mut i = 0;
    while i < 64 {
        field[i] = first.wrapping_add(i as u8);
        i += 1;
    }
    field
}

/// A small machine.
pub fn config() -> Config {
    Config { ram_bytes: 4 << 20, ..Config::default() }
}

pub fn memory(profile: TmeProfile) -> Memory {
    Memory::new(Config { profile, ..config() }).unwrap()
}

/// Writes 982H; true when there was no #GP.
pub fn activate(mem: &mut Memory, value: u64) -> bool {
    mem.tme_mut().wrmsr(msr::IA32_TME_ACTIVATE, value).is_some()
}

pub fn rdmsr(mem: &Memory, msr: u32) -> Option<u64> {
    mem.tme().rdmsr(msr)
}

pub fn activated() -> Memory {
    let mut mem = memory(TmeProfile::Default);
    assert!(activate(&mut mem, ACTIVATE_K6));
    mem
}

/// An activated machine whose KeyIDs 1, 2 and 3 have different XTS-128 keys.
pub fn keyed() -> Memory {
    let mut mem = activated();
    for kid in 1..=3 {
        direct(&mut mem, kid, Algorithm::AesXts128, &ascending(kid as u8 * 0x20), &ascending(kid as u8 * 0x20 + 0x10));
    }
    mem
}

pub fn direct(mem: &mut Memory, kid: u16, algorithm: Algorithm, k1: &[u8; 64], k2: &[u8; 64]) {
    mem.tme_mut().program_key(KeyId(kid), pconfig::KEYID_SET_KEY_DIRECT, algorithm, k1, k2).unwrap();
}

pub fn command(mem: &mut Memory, kid: u16, command: u8) {
    let field = [0; 64];
    mem.tme_mut().program_key(KeyId(kid), command, Algorithm::AesXts128, &field, &field).unwrap();
}

/// Makes the next activation use these keys.
pub fn script_tme_key(mem: &mut Memory, k1: &[u8; 64], k2: &[u8; 64]) {
    let steps = [k1, k2].map(|field| EntropyStep::Give(std::array::from_fn(|i| field[i])));
    mem.tme_mut().script_entropy(EntropyStream::TmeKey, steps);
}

/// The full physical address of `pa` through a KeyID.
pub fn via(mem: &Memory, pa: u64, kid: u16) -> BusAddr {
    mem.layout().join(PhysAddr(pa), KeyId(kid))
}

/// Loads the line at `pa` through a KeyID.
pub fn load(mem: &mut Memory, pa: u64, kid: u16) -> [u8; 64] {
    let mut line = [0; 64];
    mem.read(via(mem, pa, kid), MemType::Wb, false, &mut line);
    line
}

/// Stores at `pa` through a KeyID.
pub fn store(mem: &mut Memory, pa: u64, kid: u16, bytes: &[u8]) {
    mem.write(via(mem, pa, kid), MemType::Wb, false, bytes);
}

/// CLFLUSH at `pa` through a KeyID.
pub fn clflush(mem: &mut Memory, pa: u64, kid: u16) {
    mem.clflush(via(mem, pa, kid));
}

/// Raw DRAM cells of the line at `pa`.
pub fn raw(mem: &Memory, pa: u64) -> [u8; 64] {
    mem.dram_read_raw(PhysAddr(pa).line()).0
}

pub fn ramp() -> [u8; 64] {
    ascending(0)
}

pub fn state_hash(mem: &Memory) -> u128 {
    let mut hasher = StateHasher::new();
    mem.state_hash(&mut hasher);
    hasher.finish()
}

pub fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_digit(16).unwrap()).collect();
    digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
}
