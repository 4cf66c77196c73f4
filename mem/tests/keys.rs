//! Key programming and the cipher as the bus sees it: MK-085 to MK-096, MK-106 to MK-114.

mod common;

use common::*;
use mem::{
    Algorithm, CipherLine, EntropyStep, EntropyStream, Icount, KeyId, Knobs, Memory, PhysAddr, ProgramError, Rate,
    TmeProfile,
};
use x86::platform::ResetKind;
use x86::tme::{activate as bits, pconfig};

const PA: u64 = 0x1000;
const K5: &str = "18fb07510003216d637206d59889f0e1 160bf4eb41051537b48ac0167bf3f7db
                  7a72f3918b312d83a12efaf1b3cd1813 cc105bc23b2f6e8657067afc9d896cfd";
const K10: &str = "532330b6a82530b5eaf0d274b6505edd ad7b420c3766acfcd4557be76ba230c9
                   94bca7366f0ac6f2807ab953aba06a6a ecbd55ba809b328c85d584c502202b05";

/// Stores the ramp through a KeyID and returns the DRAM cells.
fn cells(mem: &mut Memory, pa: u64, kid: u16) -> [u8; 64] {
    store(mem, pa, kid, &ramp());
    clflush(mem, pa, kid);
    raw(mem, pa)
}

fn random(mem: &mut Memory, kid: u16, field1: &[u8; 64], field2: &[u8; 64]) -> Result<(), ProgramError> {
    let command = pconfig::KEYID_SET_KEY_RANDOM;
    mem.tme_mut().program_key(KeyId(kid), command, Algorithm::AesXts256, field1, field2)
}

#[test]
fn mk_085_key_bytes_beyond_the_key_size_are_ignored() {
    let mut mem = activated();
    let mut fields = XTS128;
    fields.0[16..].fill(0xFF);
    fields.1[16..].fill(0xFF);
    direct(&mut mem, 1, Algorithm::AesXts128, &fields.0, &fields.1);
    assert_eq!(cells(&mut mem, PA, 1)[..], hex(K5));
}

#[test]
fn mk_087_mk_088_direct_keys_give_the_published_cells() {
    let mut mem = activated();
    direct(&mut mem, 1, Algorithm::AesXts128, &XTS128.0, &XTS128.1);
    direct(&mut mem, 2, Algorithm::AesXts256, &XTS256.0, &XTS256.1);
    assert_eq!(cells(&mut mem, PA, 1)[..], hex(K5));
    assert_eq!(cells(&mut mem, PA, 2)[..], hex(K10));
}

#[test]
fn mk_089_a_random_key_is_new_each_time() {
    let mut mem = activated();
    random(&mut mem, 1, &[0; 64], &[0; 64]).unwrap();
    let first = cells(&mut mem, PA, 1);
    random(&mut mem, 1, &[0; 64], &[0; 64]).unwrap();
    assert_ne!(cells(&mut mem, PA, 1), first);
}

#[test]
fn mk_090_a_random_key_is_the_draw_xored_with_the_field() {
    let mut mem = activated();
    let (r1, r2) = ([0x5A; 32], [0xC3; 32]);
    mem.tme_mut().script_entropy(EntropyStream::Pconfig, [r1, r2].map(EntropyStep::Give));
    let field = |key: &[u8; 64], draw: u8| key.map(|byte| byte ^ draw);
    random(&mut mem, 1, &field(&XTS256.0, 0x5A), &field(&XTS256.1, 0xC3)).unwrap();
    assert_eq!(cells(&mut mem, PA, 1)[..], hex(K10));
}

#[test]
fn mk_091_an_entropy_failure_leaves_the_entry() {
    for script in [vec![EntropyStep::Fail], vec![EntropyStep::Normal, EntropyStep::Fail]] {
        let mut mem = activated();
        direct(&mut mem, 1, Algorithm::AesXts128, &XTS128.0, &XTS128.1);
        mem.tme_mut().script_entropy(EntropyStream::Pconfig, script);
        let failed = random(&mut mem, 1, &[0; 64], &[0; 64]).unwrap_err();
        assert_eq!(failed.code(), 2);
        assert_eq!(cells(&mut mem, PA, 1)[..], hex(K5));
        random(&mut mem, 1, &[0; 64], &[0; 64]).unwrap();
    }
}

#[test]
fn mk_092_a_locked_table_is_busy_once() {
    let mut mem = activated();
    direct(&mut mem, 1, Algorithm::AesXts128, &XTS128.0, &XTS128.1);
    mem.tme_mut().hold_key_table(1);
    let busy = random(&mut mem, 1, &[0; 64], &[0; 64]).unwrap_err();
    assert_eq!((busy, busy.code()), (ProgramError::DeviceBusy, 5));
    assert_eq!(cells(&mut mem, PA, 1)[..], hex(K5));
    random(&mut mem, 1, &[0; 64], &[0; 64]).unwrap();
}

fn with_knobs(knobs: Knobs) -> Memory {
    let mut mem = Memory::new(mem::Config { knobs, ..config() }).unwrap();
    assert!(activate(&mut mem, ACTIVATE_K6));
    mem
}

#[test]
fn mk_092_the_busy_rate_fails_attempts_and_retrying_succeeds() {
    let mut mem = with_knobs(Knobs { busy_rate: Rate::from_ppm(300_000).unwrap(), ..Knobs::default() });
    let results: Vec<_> = (0..1000).map(|_| random(&mut mem, 1, &[0; 64], &[0; 64])).collect();
    let busy = results.iter().filter(|result| **result == Err(ProgramError::DeviceBusy)).count();
    let good = results.iter().filter(|result| result.is_ok()).count();
    assert!((240..360).contains(&busy) && busy + good == 1000, "{busy} busy, {good} good");
    mem.tme_mut().set_knobs(Knobs { busy_rate: Rate::ALWAYS, ..Knobs::default() });
    let before = cells(&mut mem, PA, 1);
    assert_eq!(random(&mut mem, 1, &[0; 64], &[0; 64]), Err(ProgramError::DeviceBusy));
    assert_eq!(cells(&mut mem, PA, 1), before);
}

#[test]
fn mk_091_the_entropy_failure_rate_is_that_of_draws_for_pconfig() {
    let knobs = Knobs { entropy_fail_rate: Rate::from_ppm(500_000).unwrap(), ..Knobs::default() };
    let mut mem = with_knobs(knobs);
    let failed = (0..1000).filter(|_| random(&mut mem, 1, &[0; 64], &[0; 64]) == Err(ProgramError::EntropyError));
    // Two draws each: one success in four.
    let failed = failed.count();
    assert!((690..810).contains(&failed), "{failed}");
    // Other commands, other consumers and scripted draws do not fail.
    for kid in 2..60 {
        direct(&mut mem, kid, Algorithm::AesXts128, &XTS128.0, &XTS128.1);
        assert!(mem.rdrand64().is_some());
        mem.tme_mut().script_entropy(EntropyStream::Pconfig, [EntropyStep::Normal; 2]);
        assert_eq!(random(&mut mem, kid, &[0; 64], &[0; 64]), Ok(()));
    }
}

#[test]
fn mc_23_the_key_table_stays_locked_for_the_latency_of_pconfig() {
    let mut mem = with_knobs(Knobs { pconfig_latency: 100, ..Knobs::default() });
    let mut at = |count| {
        mem.tme_mut().at(Icount(count));
        random(&mut mem, 1, &[0; 64], &[0; 64])
    };
    assert_eq!(at(1000), Ok(()));
    assert_eq!([1001, 1099].map(&mut at), [Err(ProgramError::DeviceBusy); 2]);
    // A refused attempt does not prolong it.
    assert_eq!([1100, 1199, 1200].map(at), [Ok(()), Err(ProgramError::DeviceBusy), Ok(())]);
    // An entropy failure releases the lock at once (section 4.4), and a reset does.
    let knobs = Knobs { pconfig_latency: u64::MAX, ..Knobs::default() };
    let mut mem = with_knobs(knobs);
    mem.tme_mut().script_entropy(EntropyStream::Pconfig, [EntropyStep::Fail]);
    assert_eq!(random(&mut mem, 1, &[0; 64], &[0; 64]), Err(ProgramError::EntropyError));
    assert_eq!(random(&mut mem, 1, &[0; 64], &[0; 64]), Ok(()));
    assert_eq!(random(&mut mem, 1, &[0; 64], &[0; 64]), Err(ProgramError::DeviceBusy));
    mem.reset(ResetKind::Warm);
    assert!(activate(&mut mem, ACTIVATE_K6));
    assert_eq!(random(&mut mem, 1, &[0; 64], &[0; 64]), Ok(()));
}

#[test]
fn mk_093_mk_094_mk_095_clear_key_and_no_encrypt_with_and_without_bypass() {
    for bypass in [0, bits::BYPASS] {
        let mut mem = memory(TmeProfile::Default);
        assert!(activate(&mut mem, ACTIVATE_K6 | bypass));
        for kid in [1, 2] {
            direct(&mut mem, kid, Algorithm::AesXts128, &XTS128.0, &XTS128.1);
        }
        command(&mut mem, 1, pconfig::KEYID_CLEAR_KEY);
        command(&mut mem, 2, pconfig::KEYID_NO_ENCRYPT);
        let tme = cells(&mut mem, PA, 0);
        assert_eq!(cells(&mut mem, PA, 1), tme);
        assert_eq!(tme == ramp(), bypass != 0);
        assert_eq!(cells(&mut mem, PA, 2), ramp());
    }
}

#[test]
fn mk_096_zero_keys_and_equal_keys_are_accepted() {
    let mut mem = activated();
    direct(&mut mem, 1, Algorithm::AesXts128, &[0; 64], &[0; 64]);
    store(&mut mem, 0, 1, &[0; 64]);
    clflush(&mut mem, 0, 1);
    // K1 of section 6.4 (IEEE 1619, vector 1).
    assert_eq!(raw(&mem, 0)[..32], hex("917cf69ebd68b2ec9b9fe9a3eadda692 cd43d2f59598ed858c02c2652fbf922e"));
}

#[test]
fn keyid_0_and_keyids_beyond_the_table_cannot_be_programmed() {
    let mut mem = activated();
    let before = cells(&mut mem, PA, 0);
    direct(&mut mem, 0, Algorithm::AesXts128, &XTS128.0, &XTS128.1);
    direct(&mut mem, 64, Algorithm::AesXts128, &XTS128.0, &XTS128.1);
    assert_eq!(cells(&mut mem, PA, 0), before);
}

#[test]
fn mk_106_a_warm_reset_forgets_keyid_keys() {
    let mut mem = memory(TmeProfile::Default);
    assert!(activate(&mut mem, ACTIVATE_K6 | bits::SAVE_KEY));
    direct(&mut mem, 1, Algorithm::AesXts128, &XTS128.0, &XTS128.1);
    cells(&mut mem, PA, 1);
    cells(&mut mem, PA + 0x40, 0);
    mem.reset(ResetKind::Warm);
    assert!(activate(&mut mem, ACTIVATE_K6 | bits::KEY_SELECT));
    assert_ne!(load(&mut mem, PA, 1), ramp());
    assert_eq!(load(&mut mem, PA + 0x40, 0), ramp());
}

#[test]
fn mk_108_mk_109_mk_110_cells_depend_on_key_and_address_only() {
    let mut mem = keyed();
    let first = cells(&mut mem, PA, 1);
    assert_eq!(cells(&mut mem, PA, 1), first);
    let other = cells(&mut mem, PA, 2);
    assert!((0..4).all(|block| first[block * 16..][..16] != other[block * 16..][..16]));
    direct(&mut mem, 2, Algorithm::AesXts128, &ascending(0x20), &ascending(0x30));
    assert_eq!(cells(&mut mem, PA, 2), first);
    assert_eq!(load(&mut mem, PA, 1), ramp());
}

#[test]
fn mk_111_one_changed_byte_changes_one_block() {
    let mut mem = keyed();
    let before = cells(&mut mem, PA, 1);
    store(&mut mem, PA + 0x25, 1, &[0xEE]);
    mem.wbinvd();
    let changed: Vec<bool> = (0..4).map(|b| raw(&mem, PA)[b * 16..][..16] != before[b * 16..][..16]).collect();
    assert_eq!(changed, [false, false, true, false]);
}

#[test]
fn mk_112_mk_113_mk_114_moved_swapped_and_replayed_cells() {
    let mut mem = activated();
    direct(&mut mem, 1, Algorithm::AesXts128, &XTS128.0, &XTS128.1);
    let old = cells(&mut mem, PA, 1);
    mem.dram_write_raw(PhysAddr(PA + 0x40).line(), &CipherLine(old));
    let d2 = "74faa949e011f6e4b8f06b93075da517 a0518c096059a9abefbce33251f2aeda
              152f3b7baf99bc6b08f5220f2514f871 27de3635b23d34263b6914ee40772934";
    assert_eq!(load(&mut mem, PA + 0x40, 1)[..], hex(d2));

    let mut swapped = old;
    swapped[..16].copy_from_slice(&old[16..32]);
    swapped[16..32].copy_from_slice(&old[..16]);
    mem.dram_write_raw(PhysAddr(PA).line(), &CipherLine(swapped));
    let line = load(&mut mem, PA, 1);
    assert_ne!(line[..16], ramp()[..16]);
    assert_ne!(line[16..32], ramp()[16..32]);
    assert_eq!(line[32..], ramp()[32..]);

    store(&mut mem, PA, 1, &[0; 64]);
    mem.wbinvd();
    mem.dram_write_raw(PhysAddr(PA).line(), &CipherLine(old));
    assert_eq!(load(&mut mem, PA, 1), ramp());
}

#[test]
fn mk_065_a_keyid_beyond_max_keys_behaves_as_tme_and_raises_the_event() {
    // No built-in profile has fewer keys than KeyIDs, so the package is built by hand.
    let mut features = TmeProfile::Default.features();
    features.capability = features.capability & !(0x7FFF << 36) | 50 << 36;
    let mut tme = mem::TmePackage::new(features, Default::default(), false, 0);
    tme.wrmsr(x86::msr::IA32_TME_ACTIVATE, ACTIVATE_K6).unwrap();
    let at = |kid| tme.layout().join(PhysAddr(PA), KeyId(kid));
    let encrypt = |kid| match tme.resolve(at(kid)) {
        mem::tme::Cipher::Xts(key) => key.encrypt_line(PA >> 6, &mem::PlainLine(ramp())).0,
        mem::tme::Cipher::Plaintext => ramp(),
    };
    assert_eq!(encrypt(51), encrypt(0));
    assert_ne!(encrypt(51), ramp());
    assert_eq!(tme.rdmsr(x86::msr::IA32_MKTME_KEYID_PARTITIONING), Some(50));
}

#[test]
fn the_generator_is_chacha20_so_that_seeds_mean_the_same_for_ever() {
    let mut mem = memory(TmeProfile::Default);
    // Key, nonce and counter zero: RFC 8439, appendix A.1, test vector 1.
    let block = hex("76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7");
    assert_eq!(mem.tme_mut().rng_draw(EntropyStream::TmeKey).unwrap()[..], block);
}

#[test]
fn rdrand_has_a_stream_of_its_own_and_can_fail() {
    let (mut one, mut two) = (activated(), activated());
    random(&mut two, 1, &[0; 64], &[0; 64]).unwrap();
    let first = one.tme_mut().rdrand64();
    assert_eq!(first, two.tme_mut().rdrand64());
    assert_ne!(first, one.tme_mut().rdrand64());
    one.tme_mut().script_entropy(EntropyStream::Instruction, [EntropyStep::Fail]);
    assert_eq!(one.tme_mut().rdrand64(), None);
    assert!(one.tme_mut().rdrand64().is_some());
}
