//! Integrity of lines (MC-32) without a processor: every MAC against a second computation, every flip of a bit, what is not
//! detected, and how poison comes and goes.

mod common;

use common::*;
use mem::integrity::mac28;
use mem::{
    Access, Algorithm, CacheModel, CipherLine, Config, ConfigError, EncryptionAlgorithm, Event, KeyField, KeyId,
    LineMetadata, MAC_BITS, MemType, Memory, MemorySnapshot, PhysAddr, TmeProfile,
};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use sha3::{Digest, Sha3_256};
use x86::tme::pconfig;

/// k = 6; all four algorithms allowed.
const ACTIVATE: u64 = 0x000F_0006_0000_0002;
const PA: u64 = 0x3000;
const SEED: u64 = 11;

fn config() -> Config {
    Config { integrity: true, seed: SEED, ..common::config() }
}

fn protected(cipher: Algorithm) -> EncryptionAlgorithm {
    EncryptionAlgorithm { cipher, integrity: true }
}

fn key(kid: u16) -> ([u8; 64], [u8; 64]) {
    (ascending(kid as u8 * 0x20), ascending(kid as u8 * 0x20 + 0x10))
}

/// KeyIDs 1 and 2 carry MACs, with keys of 128 and 256 bits; KeyID 3 does not.
fn memory_of(config: Config) -> Memory {
    let mut mem = Memory::new(config).unwrap();
    assert!(activate(&mut mem, ACTIVATE));
    let algorithms = [protected(Algorithm::AesXts128), protected(Algorithm::AesXts256), Algorithm::AesXts128.into()];
    for (kid, algorithm) in (1..).zip(algorithms) {
        let (k1, k2) = key(kid);
        mem.tme_mut().program_key(KeyId(kid), pconfig::KEYID_SET_KEY_DIRECT, algorithm, &k1, &k2).unwrap();
    }
    mem
}

fn memory() -> Memory {
    memory_of(config())
}

/// The generator of MAC keys, of package 0: ChaCha20 under the seed, stream 9.
fn mac_key() -> [u8; 32] {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&SEED.to_le_bytes());
    let mut rng = ChaCha20Rng::from_seed(seed);
    rng.set_stream(9);
    let mut key = [0; 32];
    rng.fill_bytes(&mut key);
    key
}

/// E_K2(DUN) by a cipher of this test's own.
fn tweak0(kid: u16, pa: u64) -> [u8; 16] {
    use aes::cipher::{BlockCipherEncrypt, KeyInit};
    let (_, k2) = key(kid);
    let mut block = u128::from(pa >> 6).to_le_bytes().into();
    if kid == 1 {
        aes::Aes128::new_from_slice(&k2[..16]).unwrap().encrypt_block(&mut block);
    } else {
        aes::Aes256::new_from_slice(&k2[..32]).unwrap().encrypt_block(&mut block);
    }
    block.into()
}

fn expected_mac(mem: &Memory, kid: u16, pa: u64) -> u32 {
    let message = [&mac_key()[..], &raw(mem, pa), &tweak0(kid, pa), &[0]].concat();
    let digest = Sha3_256::digest(message);
    u32::from_le_bytes(digest[..4].try_into().unwrap()) & 0x0FFF_FFFF
}

fn metadata(mem: &Memory, pa: u64) -> LineMetadata {
    mem.dram().metadata_raw(PhysAddr(pa).line())
}

/// Loads, and says whether poison was met.
fn look(mem: &mut Memory, pa: u64, kid: u16) -> ([u8; 64], bool) {
    let line = load(mem, pa, kid);
    (line, mem.take_consumed().is_some())
}

fn flip(mem: &mut Memory, pa: u64, bit: usize) {
    let mut cells = raw(mem, pa);
    cells[bit / 8] ^= 1 << (bit % 8);
    assert!(mem.dram_write_raw(PhysAddr(pa).line(), &CipherLine(cells)));
}

/// Stores a line whole, past the cache.
fn put(mem: &mut Memory, pa: u64, kid: u16, line: &[u8; 64]) {
    let at = via(mem, pa, kid);
    mem.write_nontemporal(at, line);
}

#[test]
fn the_option_enumerates_and_a_part_without_keys_cannot_have_it() {
    let features = config().features();
    assert_eq!(features.capability & 0xF, 0xF);
    let client = Config { profile: TmeProfile::Client4, ..config() }.features();
    assert_eq!(client.capability & 0xF, 0b1100, "only the variant of what there is");
    for profile in [TmeProfile::TmeOnly, TmeProfile::None] {
        let refused = Config { profile, ..config() }.check();
        assert_eq!(refused, Err(ConfigError::IntegrityWithoutKeys(profile)));
    }
    // W6 and W10 (specification section 3.3).
    let mut mem = Memory::new(config()).unwrap();
    for policy in [1, 3] {
        assert!(!activate(&mut mem, ACTIVATE | policy << 4));
    }
    assert!(activate(&mut mem, ACTIVATE));
    let mut without = Memory::new(common::config()).unwrap();
    assert!(!activate(&mut without, ACTIVATE));
}

#[test]
fn a_mac_is_what_the_specification_says() {
    let message = [&[7; 32][..], &[5; 64], &[3; 16], &[1]].concat();
    let digest = Sha3_256::digest(message);
    let expected = u32::from_le_bytes(digest[..4].try_into().unwrap()) & 0x0FFF_FFFF;
    assert_eq!(mac28(&[7; 32], &CipherLine([5; 64]), &[3; 16], true), expected);
}

#[test]
fn every_line_written_has_its_mac_however_it_was_written() {
    for cache in CacheModel::ALL {
        let mut mem = memory_of(Config { cache, cache_bytes: 16 << 10, cache_ways: 4, ..config() });
        let mut rng = ChaCha20Rng::seed_from_u64(3);
        let mut writer = [0; 64 * 4];
        // No line is poisoned: nothing is written under a KeyID that did not write the line whole before.
        for n in 0..4000u64 {
            let at = (rng.next_u64() % 256) as usize;
            let (pa, kid) = (PA + at as u64 * 64, 1 + (rng.next_u64() % 3) as u16);
            let line: [u8; 64] = std::array::from_fn(|i| (n as u8).wrapping_mul(31) ^ i as u8);
            match rng.next_u64() % 4 {
                0 => put(&mut mem, pa, kid, &line),
                1 => {
                    let bus = via(&mem, pa, kid);
                    mem.dma_write(bus, &line);
                }
                _ if writer[at] != kid => continue,
                2 => store(&mut mem, pa, kid, &line[..9]),
                _ => {
                    let bus = via(&mem, pa + 4, kid);
                    mem.write(bus, MemType::Uc, false, &line[..5]);
                }
            }
            writer[at] = kid;
            if n % 64 == 0 {
                mem.wbinvd();
                for (at, kid) in writer.iter().enumerate().filter(|(_, kid)| **kid != 0) {
                    let pa = PA + at as u64 * 64;
                    let mac = if *kid == 3 { 0 } else { expected_mac(&mem, *kid, pa) };
                    assert_eq!(metadata(&mem, pa), LineMetadata { mac, owner: false, poison: false }, "{cache}: {n}");
                }
            }
            // Another KeyID's copy would be written back later.
            let bus = via(&mem, pa, kid);
            mem.clflush(bus);
        }
        assert_eq!(mem.detections().mismatches, 0, "{cache}");
    }
}

#[test]
fn every_single_bit_of_cells_and_mac_is_detected() {
    for (kid, cache) in [(1, CacheModel::Exact), (2, CacheModel::Lazy), (1, CacheModel::Off)] {
        let mut mem = memory_of(Config { cache, ..config() });
        for bit in 0..512 {
            put(&mut mem, PA, kid, &ramp());
            flip(&mut mem, PA, bit);
            assert_eq!(look(&mut mem, PA, kid), ([0; 64], true), "bit {bit}");
            clflush(&mut mem, PA, kid);
        }
        for bit in 0..MAC_BITS {
            put(&mut mem, PA, kid, &ramp());
            let mut changed = metadata(&mem, PA);
            changed.mac ^= 1 << bit;
            mem.dram_mut().set_metadata_raw(PhysAddr(PA).line(), changed);
            assert_eq!(look(&mut mem, PA, kid), ([0; 64], true), "MAC bit {bit}");
            clflush(&mut mem, PA, kid);
        }
        put(&mut mem, PA, kid, &ramp());
        assert_eq!(look(&mut mem, PA, kid), (ramp(), false));
        assert_eq!(mem.detections().mismatches, 512 + u64::from(MAC_BITS));
        assert_eq!(mem.detections().consumed, mem.detections().mismatches);
        assert_eq!((mem.stats().mac_mismatches, mem.stats().poison_consumed), (540, 540));
    }
}

#[test]
fn without_a_mac_a_flip_is_garbage_and_nothing_else() {
    let mut mem = memory();
    for kid in [0, 3] {
        put(&mut mem, PA, kid, &ramp());
        flip(&mut mem, PA, 7);
        let (line, met) = look(&mut mem, PA, kid);
        assert!(!met && line != ramp() && line[16..] == ramp()[16..]);
        clflush(&mut mem, PA, kid);
    }
    assert_eq!(mem.detections(), Default::default());
}

#[test]
fn replay_is_not_detected_and_everything_that_moves_is() {
    let mut mem = memory();
    put(&mut mem, PA, 1, &[1; 64]);
    let (old, seal) = (mem.dram_read_raw(PhysAddr(PA).line()), metadata(&mem, PA));
    put(&mut mem, PA, 1, &[2; 64]);
    // Ciphertext alone does not fit the MAC.
    mem.dram_write_raw(PhysAddr(PA).line(), &old);
    assert!(look(&mut mem, PA, 1).1);
    clflush(&mut mem, PA, 1);
    // With its metadata it does.
    mem.dram_write_raw(PhysAddr(PA).line(), &old);
    mem.dram_mut().set_metadata_raw(PhysAddr(PA).line(), seal);
    assert_eq!(look(&mut mem, PA, 1), ([1; 64], false));
    // At another address neither does.
    mem.dram_write_raw(PhysAddr(PA + 64).line(), &old);
    mem.dram_mut().set_metadata_raw(PhysAddr(PA + 64).line(), seal);
    assert!(look(&mut mem, PA + 64, 1).1);
    // Under another key neither: the tweak depends on K2, and K1 on nothing that the MAC covers.
    clflush(&mut mem, PA, 1);
    assert!(mem.keytable_flip(0, KeyId(1), KeyField::K1, 3));
    let (garbage, met) = look(&mut mem, PA, 1);
    assert!(garbage != [1; 64] && !met);
    clflush(&mut mem, PA, 1);
    assert!(mem.keytable_flip(0, KeyId(1), KeyField::K2, 3));
    assert!(look(&mut mem, PA, 1).1);
    assert!(look(&mut mem, PA, 2).1, "poison is the line's, whoever reads");
    assert!(look(&mut mem, PA, 0).1);
}

#[test]
fn poison_stays_until_the_whole_line_is_overwritten() {
    for cache in CacheModel::ALL {
        let mut mem = memory_of(Config { cache, ..config() });
        let poisoned = |mem: &mut Memory| {
            clflush(mem, PA, 1);
            put(mem, PA, 1, &ramp());
            flip(mem, PA, 9);
            assert!(look(mem, PA, 1).1);
            clflush(mem, PA, 1);
            assert!(metadata(mem, PA).poison);
        };
        poisoned(&mut mem);
        // Putting the cells right does not help.
        flip(&mut mem, PA, 9);
        assert!(look(&mut mem, PA, 1).1, "{cache}");
        // Nor do stores to a part of it, cached or not.
        store(&mut mem, PA, 1, &[1; 63]);
        assert!(look(&mut mem, PA, 1).1, "{cache}");
        clflush(&mut mem, PA, 1);
        assert!(metadata(&mem, PA).poison);
        let at = via(&mem, PA, 1);
        mem.write(at, MemType::Uc, false, &[1; 63]);
        assert!(metadata(&mem, PA).poison);
        assert!(look(&mut mem, PA, 1).1, "{cache}");
        // A store of the whole line does, and DMA, and MOVDIR64B.
        put(&mut mem, PA, 1, &[2; 64]);
        assert_eq!(look(&mut mem, PA, 1), ([2; 64], false));
        poisoned(&mut mem);
        let at = via(&mem, PA, 1);
        mem.dma_write(at, &[3; 64]);
        assert_eq!(look(&mut mem, PA, 1), ([3; 64], false));
        // Stores of all its bytes while it is cached: where there is a cache.
        poisoned(&mut mem);
        for n in [3, 0, 1, 2, 7, 6, 5] {
            store(&mut mem, PA + 8 * n, 1, &[4; 8]);
        }
        store(&mut mem, PA + 32, 1, &[4; 7]);
        assert!(look(&mut mem, PA, 1).1, "one byte is missing");
        store(&mut mem, PA + 39, 1, &[4]);
        let cached = cache != CacheModel::Off;
        assert_eq!(look(&mut mem, PA, 1), if cached { ([4; 64], false) } else { ([0; 64], true) });
        clflush(&mut mem, PA, 1);
        assert_eq!(look(&mut mem, PA, 1).1, !cached);
        // Written back before all of it was stored: poisoned again.
        poisoned(&mut mem);
        store(&mut mem, PA, 1, &[5; 32]);
        clflush(&mut mem, PA, 1);
        store(&mut mem, PA + 32, 1, &[5; 32]);
        assert!(look(&mut mem, PA, 1).1, "{cache}");
    }
}

#[test]
fn poisoned_lines_have_no_fast_bits() {
    let mut mem = memory();
    put(&mut mem, PA, 1, &ramp());
    flip(&mut mem, PA, 0);
    let at = via(&mem, PA, 1);
    for access in [Access::Write, Access::Read, Access::Fetch] {
        let touched = mem.touch(at, access, false).unwrap();
        assert!(touched.poisoned);
        assert_eq!((touched.frame.fast_r() | touched.frame.fast_w()) & 1, 0);
        assert_eq!(touched.frame.intact() & 1, 0);
        assert_eq!(mem.take_consumed(), (access != Access::Write).then_some(at));
    }
    let touched = mem.touch(at, Access::Write, false).unwrap();
    touched.frame.write(0, &[1; 64]);
    mem.note_overwritten(at, 64);
    assert_eq!(touched.frame.fast_w() & 1, 1);
}

#[test]
fn devices_get_the_fixed_pattern_and_probes_change_nothing() {
    let mut mem = memory();
    put(&mut mem, PA, 1, &ramp());
    flip(&mut mem, PA, 0);
    let (before, mut line) = (state_hash(&mem), [0xFF; 64]);
    let at = via(&mem, PA, 1);
    mem.probe(at, &mut line);
    assert_eq!((line, state_hash(&mem)), ([0; 64], before));
    assert_eq!(mem.detections(), Default::default());
    mem.events_mut().enable(true);
    line = [0xFF; 64];
    mem.dma_read(at, &mut line);
    assert_eq!(line, [0; 64]);
    assert!(mem.take_consumed().is_none(), "a device raises no #MC");
    let (line, keyid) = (PhysAddr(PA).line(), KeyId(1));
    for event in [
        Event::MacMismatch { line, keyid },
        Event::PoisonCreated { line, keyid },
        Event::PoisonToDevice { line, keyid },
    ] {
        assert_eq!(mem.events_mut().take(), Some(event));
    }
    assert!(look(&mut mem, PA, 1).1);
    assert_eq!(mem.events_mut().take(), Some(Event::PoisonConsumed { line, keyid }));
}

#[test]
fn the_owner_bit_tells_private_from_shared() {
    let mut mem = Memory::new(Config { tdx_partition: true, ..config() }).unwrap();
    // p = 1: KeyIDs from 32 on are private.
    assert!(activate(&mut mem, ACTIVATE | 1 << 36));
    let private = via(&mem, PA, 40);
    mem.write_nontemporal(private, &ramp());
    assert!(metadata(&mem, PA).owner);
    assert_eq!(look(&mut mem, PA, 40), (ramp(), false));
    mem.clflush(private);
    assert_eq!(look(&mut mem, PA, 0), ([0; 64], true));
    assert!(metadata(&mem, PA).poison);
    clflush(&mut mem, PA, 0);
    put(&mut mem, PA, 0, &ramp());
    assert_eq!(metadata(&mem, PA), LineMetadata::default());
    assert_eq!(look(&mut mem, PA, 40), ([0; 64], true));
}

#[test]
fn snapshots_have_metadata_and_poison_in_memory_and_as_bytes() {
    for cache in CacheModel::ALL {
        let config = Config { cache, ..config() };
        let mut mem = memory_of(config.clone());
        for n in 0..8 {
            put(&mut mem, PA + 64 * n, 1, &[n as u8; 64]);
        }
        flip(&mut mem, PA, 5);
        flip(&mut mem, PA + 64, 5);
        assert!(look(&mut mem, PA, 1).1);
        store(&mut mem, PA + 64, 1, &[9; 40]);
        let (snapshot, hash) = (mem.snapshot(), state_hash(&mem));
        let finish = |mem: &mut Memory| {
            store(mem, PA + 104, 1, &[9; 24]);
            let seen: Vec<_> = (0..8).map(|n| look(mem, PA + 64 * n, 1)).collect();
            mem.wbinvd();
            (seen, state_hash(mem))
        };
        let first = finish(&mut mem);
        assert!(first.0[0].1 && !first.0[2].1);
        assert_eq!(first.0[1], if cache == CacheModel::Off { ([0; 64], true) } else { ([9; 64], false) });
        mem.restore(&snapshot).unwrap();
        assert_eq!(state_hash(&mem), hash);
        assert_eq!(mem.detections(), Default::default());
        assert_eq!(finish(&mut mem), first);
        let (mut cached, mut dram) = (Vec::new(), Vec::new());
        let small = snapshot.write_small().unwrap();
        snapshot.write_cache(&mut cached).unwrap();
        snapshot.write_dram(&mut dram, &mut |_| ()).unwrap();
        let read =
            |config: &Config| MemorySnapshot::read(config, &small, &mut &cached[..], &mut &dram[..], &mut |_| ());
        let mut other = memory_of(config.clone());
        other.restore(&read(&config).unwrap()).unwrap();
        assert_eq!(state_hash(&other), hash, "{cache}");
        assert_eq!(finish(&mut other), first);
        assert!(read(&Config { integrity: false, ..config }).is_err());
    }
}

#[test]
fn without_the_option_nothing_is_different() {
    let run = |integrity: bool| {
        // A part that enumerates the variants, with and without what is behind them.
        let features = Some(config().features());
        let mut mem = Memory::new(Config { integrity, features, ..config() }).unwrap();
        assert!(activate(&mut mem, ACTIVATE));
        let (k1, k2) = key(1);
        let random = pconfig::KEYID_SET_KEY_RANDOM;
        mem.tme_mut().program_key(KeyId(1), random, Algorithm::AesXts128, &k1, &k2).unwrap();
        for n in 0..100 {
            store(&mut mem, PA + n * 64, (n % 3) as u16, &ramp());
        }
        mem.wbinvd();
        flip(&mut mem, PA, 0);
        (look(&mut mem, PA, 0), state_hash(&mem))
    };
    assert_eq!(run(false), run(true), "no KeyID with a MAC, no difference");
}
