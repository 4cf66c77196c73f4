//! MK-009 to MK-052, as far as they are the package's (MK specification sections 10.2 and 10.3). The others are the
//! core's: MK-009 (privilege), MK-044 to MK-048 (9FFH).

mod common;

use common::*;
use mem::{Algorithm, Config, EntropyStep, EntropyStream, Event, LockedWrite, Memory, TmeProfile, tme::Cipher};
use x86::msr::*;
use x86::platform::ResetKind;
use x86::tme::{activate as bits, exclude};

const TME_ONLY_XTS_128: u64 = bits::ENABLE;

fn tme_fails(mem: &mut Memory, draws: usize) {
    mem.tme_mut().script_entropy(EntropyStream::TmeKey, std::iter::repeat_n(EntropyStep::Fail, draws));
}

fn encrypted(mem: &Memory, pa: u64, kid: u16) -> bool {
    matches!(mem.tme().resolve(via(mem, pa, kid)), Cipher::Xts(_))
}

#[test]
fn mk_002_profile_none_has_no_tme_msrs() {
    let mut mem = memory(TmeProfile::None);
    for msr in [0x981, 0x982, 0x983, 0x984, 0x87, 0x9FB] {
        assert_eq!(rdmsr(&mem, msr), None);
        assert_eq!(mem.tme_mut().wrmsr(msr, 0), None);
    }
}

#[test]
fn mk_003_profile_tme_only_has_no_tme_mk() {
    let mem = memory(TmeProfile::TmeOnly);
    assert_eq!(rdmsr(&mem, IA32_TME_CAPABILITY).unwrap() >> 32, 0);
    assert_eq!(rdmsr(&mem, IA32_MKTME_KEYID_PARTITIONING), None);
}

#[test]
fn mk_010_capability_is_read_only() {
    let mut mem = memory(TmeProfile::Default);
    let value = rdmsr(&mem, IA32_TME_CAPABILITY).unwrap();
    assert_eq!(value, 0x0000_03F6_C000_0005);
    assert_eq!(mem.tme_mut().wrmsr(IA32_TME_CAPABILITY, value), None);
}

#[test]
fn mk_011_activate_reads_0_after_reset() {
    assert_eq!(rdmsr(&memory(TmeProfile::Default), IA32_TME_ACTIVATE), Some(0));
}

#[test]
fn mk_012_each_reserved_bit_of_activate_is_refused() {
    for bit in (8..=30).chain(40..=47).chain(52..=63) {
        let mut mem = memory(TmeProfile::Default);
        assert!(!activate(&mut mem, ACTIVATE_K6 | 1 << bit), "bit {bit}");
        assert_eq!(rdmsr(&mem, IA32_TME_ACTIVATE), Some(0));
    }
}

#[test]
fn mk_013_the_written_lock_bit_is_ignored() {
    for (value, reads) in [(ACTIVATE_K6, ACTIVATE_K6 | 1), (ACTIVATE_K6 | 1, ACTIVATE_K6 | 1), (0, 1), (1, 1)] {
        let mut mem = memory(TmeProfile::Default);
        assert!(activate(&mut mem, value));
        assert_eq!(rdmsr(&mem, IA32_TME_ACTIVATE), Some(reads));
    }
    let mut mem = memory(TmeProfile::Default);
    tme_fails(&mut mem, 1);
    assert!(activate(&mut mem, TME_ONLY_XTS_128 | bits::LOCK));
    assert_eq!(rdmsr(&mem, IA32_TME_ACTIVATE), Some(0));
}

#[test]
fn mk_014_policies_without_an_algorithm_are_refused() {
    for policy in [1, 3].into_iter().chain(4..=15) {
        assert!(!activate(&mut memory(TmeProfile::Default), TME_ONLY_XTS_128 | policy << bits::POLICY_SHIFT));
    }
    // With enable = 0 the policy is stored unchecked (W11).
    assert!(activate(&mut memory(TmeProfile::Default), 1 << bits::POLICY_SHIFT));
}

#[test]
fn mk_015_mk_017_policy_0_is_refused_without_xts_128() {
    assert!(!activate(&mut memory(TmeProfile::Client4), TME_ONLY_XTS_128));
    assert!(activate(&mut memory(TmeProfile::Client4), TME_ONLY_XTS_128 | 2 << bits::POLICY_SHIFT));
}

#[test]
fn mk_017_more_keyid_bits_than_the_part_has_are_refused() {
    for profile in [TmeProfile::Default, TmeProfile::Client4, TmeProfile::Server6, TmeProfile::Server7] {
        let k = u64::from(profile.features().max_keyid_bits());
        let value = 2 << bits::POLICY_SHIFT | bits::ENABLE;
        assert!(!activate(&mut memory(profile), value | (k + 1) << bits::MK_TME_KEYID_BITS_SHIFT));
        assert!(activate(&mut memory(profile), value | k << bits::MK_TME_KEYID_BITS_SHIFT));
    }
}

#[test]
fn mk_018_keyid_bits_without_enable_are_refused() {
    assert!(!activate(&mut memory(TmeProfile::Default), 1 << bits::MK_TME_KEYID_BITS_SHIFT));
}

#[test]
fn mk_019_tdx_bits_need_the_option_and_fit_in_k() {
    let value = |p: u64| ACTIVATE_K6 | p << bits::TDX_RESERVED_KEYID_BITS_SHIFT;
    let tdx = || Memory::new(Config { tdx_partition: true, ..config() }).unwrap();
    assert!(!activate(&mut memory(TmeProfile::Default), value(1)));
    assert!(activate(&mut tdx(), value(6)));
    assert!(!activate(&mut tdx(), value(7)));
}

#[test]
fn mk_020_algorithms_that_the_part_lacks_are_refused() {
    for bit in [49, 51] {
        assert!(!activate(&mut memory(TmeProfile::Default), ACTIVATE_K6 | 1 << bit));
    }
    assert!(!activate(&mut memory(TmeProfile::Client4), 0x0001_0004_0000_0022));
    assert!(activate(&mut memory(TmeProfile::Client4), 0x0004_0004_0000_0022));
}

#[test]
fn mk_021_without_tme_mk_the_high_half_is_reserved() {
    for bit in 32..64 {
        assert!(!activate(&mut memory(TmeProfile::TmeOnly), TME_ONLY_XTS_128 | 1 << bit), "bit {bit}");
    }
}

#[test]
fn mk_022_writing_0_locks_with_encryption_off() {
    let mut mem = memory(TmeProfile::Default);
    assert!(activate(&mut mem, 0));
    assert_eq!(rdmsr(&mem, IA32_TME_ACTIVATE), Some(1));
    assert!(!activate(&mut mem, 0));
    store(&mut mem, 0x1000, 0, &ramp());
    mem.wbinvd();
    assert_eq!(raw(&mem, 0x1000), ramp());
}

#[test]
fn mk_023_tme_encrypts_keyid_0() {
    let mut mem = memory(TmeProfile::Default);
    script_tme_key(&mut mem, &XTS128.0, &XTS128.1);
    assert!(activate(&mut mem, TME_ONLY_XTS_128));
    assert_eq!(rdmsr(&mem, IA32_TME_ACTIVATE), Some(3));
    store(&mut mem, 0x1000, 0, &ramp());
    mem.wbinvd();
    let k5 = "18fb07510003216d637206d59889f0e1 160bf4eb41051537b48ac0167bf3f7db
              7a72f3918b312d83a12efaf1b3cd1813 cc105bc23b2f6e8657067afc9d896cfd";
    assert_eq!(raw(&mem, 0x1000)[..], hex(k5));
}

#[test]
fn mk_024_after_a_random_generator_failure_firmware_can_retry() {
    // The first or the second half of the key may fail.
    for steps in [vec![EntropyStep::Fail], vec![EntropyStep::Normal, EntropyStep::Fail]] {
        let mut mem = memory(TmeProfile::Default);
        mem.tme_mut().script_entropy(EntropyStream::TmeKey, steps);
        assert!(activate(&mut mem, TME_ONLY_XTS_128));
        assert_eq!(rdmsr(&mem, IA32_TME_ACTIVATE), Some(0));
        assert!(!encrypted(&mem, 0, 0));
        assert!(activate(&mut mem, TME_ONLY_XTS_128));
        assert_eq!(rdmsr(&mem, IA32_TME_ACTIVATE), Some(3));
    }
}

#[test]
fn mk_025_a_failed_activation_with_keyid_bits_is_not_committed() {
    let mut mem = memory(TmeProfile::Default);
    tme_fails(&mut mem, 1);
    assert!(activate(&mut mem, ACTIVATE_K6));
    assert_eq!(rdmsr(&mem, IA32_TME_ACTIVATE), Some(0));
    assert_eq!(mem.layout().keyid_bits, 0);
}

#[test]
fn mk_026_mk_027_restoring_from_an_empty_slot_does_not_lock() {
    let mut mem = memory(TmeProfile::Default);
    assert!(activate(&mut mem, ACTIVATE_K6 | bits::KEY_SELECT));
    assert_eq!(rdmsr(&mem, IA32_TME_ACTIVATE), Some(0));
    assert!(activate(&mut mem, TME_ONLY_XTS_128 | bits::KEY_SELECT));
    assert_eq!(rdmsr(&mem, IA32_TME_ACTIVATE), Some(4));
    assert!(!encrypted(&mem, 0, 0));
    assert!(activate(&mut mem, ACTIVATE_K6));
}

/// Activates with `save` in bit 3, writes a line, resets, and restores.
fn save_and_restore(save: u64, kind: ResetKind, between: impl FnOnce(&mut Memory)) -> (u64, [u8; 64]) {
    let mut mem = memory(TmeProfile::Default);
    assert!(activate(&mut mem, ACTIVATE_K6 | save));
    store(&mut mem, 0x1000, 0, &ramp());
    mem.wbinvd();
    mem.reset(kind);
    between(&mut mem);
    assert!(activate(&mut mem, TME_ONLY_XTS_128 | bits::KEY_SELECT));
    let line = load(&mut mem, 0x1000, 0);
    (rdmsr(&mem, IA32_TME_ACTIVATE).unwrap(), line)
}

#[test]
fn mk_028_a_saved_key_survives_a_warm_reset() {
    assert_eq!(save_and_restore(bits::SAVE_KEY, ResetKind::Warm, |_| ()), (7, ramp()));
}

#[test]
fn mk_029_without_bit_3_the_slot_stays_empty() {
    assert_eq!(save_and_restore(0, ResetKind::Warm, |_| ()).0, 4);
}

#[test]
fn mk_030_a_cold_reset_empties_the_slot() {
    assert_eq!(save_and_restore(bits::SAVE_KEY, ResetKind::Cold, |_| ()).0, 4);
}

#[test]
fn mk_051_clear_saved_key_empties_the_slot() {
    let cleared = |value| move |mem: &mut Memory| mem.tme_mut().wrmsr(IA32_TME_CLEAR_SAVED_KEY, value).unwrap();
    assert_eq!(save_and_restore(bits::SAVE_KEY, ResetKind::Warm, cleared(1)).0, 4);
    assert_eq!(save_and_restore(bits::SAVE_KEY, ResetKind::Warm, cleared(0)).0, 7);
}

#[test]
fn an_all_zero_saved_key_counts_as_none() {
    let mut mem = memory(TmeProfile::Default);
    script_tme_key(&mut mem, &[0; 64], &[0; 64]);
    assert!(activate(&mut mem, TME_ONLY_XTS_128 | bits::SAVE_KEY));
    mem.reset(ResetKind::Warm);
    assert!(activate(&mut mem, TME_ONLY_XTS_128 | bits::KEY_SELECT));
    assert_eq!(rdmsr(&mem, IA32_TME_ACTIVATE), Some(4));
}

#[test]
fn mk_031_a_locked_activate_refuses_or_ignores_writes() {
    let mut mem = activated();
    assert!(!activate(&mut mem, ACTIVATE_K6));
    let mut mem = Memory::new(Config { locked_write: LockedWrite::Ignore, ..config() }).unwrap();
    assert!(activate(&mut mem, ACTIVATE_K6));
    assert!(activate(&mut mem, 0));
    assert_eq!(rdmsr(&mem, IA32_TME_ACTIVATE), Some(ACTIVATE_K6 | 1));
}

#[test]
fn mk_032_init_keeps_the_msrs_and_the_keys() {
    let mut mem = keyed();
    store(&mut mem, 0x1000, 1, &ramp());
    mem.reset(ResetKind::Init);
    assert_eq!(rdmsr(&mem, IA32_TME_ACTIVATE), Some(ACTIVATE_K6 | 1));
    assert!(mem.line_dirty(via(&mem, 0x1000, 1)));
    mem.wbinvd();
    assert_eq!(load(&mut mem, 0x1000, 1), ramp());
}

#[test]
fn mk_033_a_warm_reset_clears_the_msrs() {
    let mut mem = memory(TmeProfile::Default);
    mem.tme_mut().wrmsr(IA32_TME_EXCLUDE_BASE, 0x1000).unwrap();
    mem.tme_mut().wrmsr(IA32_TME_EXCLUDE_MASK, exclude::ENABLE).unwrap();
    assert!(activate(&mut mem, ACTIVATE_K6));
    mem.reset(ResetKind::Warm);
    for msr in [IA32_TME_ACTIVATE, IA32_TME_EXCLUDE_MASK, IA32_TME_EXCLUDE_BASE, IA32_MKTME_KEYID_PARTITIONING] {
        assert_eq!(rdmsr(&mem, msr), Some(0));
    }
    assert_eq!(mem.layout().keyid_bits, 0);
}

#[test]
fn mk_034_the_generator_goes_on_across_resets() {
    let mut mem = memory(TmeProfile::Default);
    let mut cells = Vec::new();
    for kind in [ResetKind::Warm, ResetKind::Cold, ResetKind::Warm] {
        assert!(activate(&mut mem, ACTIVATE_K6));
        store(&mut mem, 0x1000, 0, &ramp());
        mem.wbinvd();
        assert!(!cells.contains(&raw(&mem, 0x1000)));
        cells.push(raw(&mem, 0x1000));
        mem.reset(kind);
    }
}

#[test]
fn mk_035_no_algorithms_is_a_legal_choice() {
    let mut mem = memory(TmeProfile::Default);
    assert!(activate(&mut mem, 0x0000_0006_0000_0002));
    assert_eq!((mem.tme().crypto_algs(), mem.tme().keyid_bits()), (0, 6));
}

#[test]
fn mk_036_bytes_from_before_activation_decrypt_to_garbage() {
    let mut mem = memory(TmeProfile::Default);
    script_tme_key(&mut mem, &XTS128.0, &XTS128.1);
    mem.dma_write(via(&mem, 0x1000, 0), &[0; 64]);
    assert!(activate(&mut mem, ACTIVATE_K6));
    let d4 = "d03882a8565d63eadfa2d372edc59861 f292c7b64105036352eb16266e43a842
              59450a9e49e0e6e58faf85527f11419b 01c114b4fab2f25a1c638864902cd63d";
    assert_eq!(load(&mut mem, 0x1000, 0)[..], hex(d4));
}

#[test]
fn mk_037_a_cached_line_stays_readable_across_activation() {
    let mut mem = memory(TmeProfile::Default);
    store(&mut mem, 0x1000, 0, &ramp());
    assert!(activate(&mut mem, ACTIVATE_K6));
    assert_eq!(load(&mut mem, 0x1000, 0), ramp());
    clflush(&mut mem, 0x1000, 0);
    assert_ne!(raw(&mem, 0x1000), ramp());
    assert_eq!(load(&mut mem, 0x1000, 0), ramp());
}

#[test]
fn mk_038_reserved_bits_of_the_exclusion_registers_are_refused() {
    let mut mem = memory(TmeProfile::Default);
    for bit in (0..=10).chain(46..64) {
        assert_eq!(mem.tme_mut().wrmsr(IA32_TME_EXCLUDE_MASK, 1 << bit), None, "mask bit {bit}");
    }
    for bit in (0..=11).chain(46..64) {
        assert_eq!(mem.tme_mut().wrmsr(IA32_TME_EXCLUDE_BASE, 1 << bit), None, "base bit {bit}");
    }
    assert!(mem.tme_mut().wrmsr(IA32_TME_EXCLUDE_BASE, (1 << 46) - 0x1000).is_some());
}

#[test]
fn mk_039_the_exclusion_mask_is_one_run_up_to_the_top() {
    let mut mem = memory(TmeProfile::Default);
    let run = |low: u32| (1u64 << 46) - (1 << low);
    for low in 12..46 {
        assert!(mem.tme_mut().wrmsr(IA32_TME_EXCLUDE_MASK, run(low)).is_some(), "run from {low}");
    }
    assert!(mem.tme_mut().wrmsr(IA32_TME_EXCLUDE_MASK, 0).is_some());
    for bad in [run(20) & !(1 << 30), run(20) >> 1 & !0xFFF, 1 << 12, run(44) | 1 << 12] {
        assert_eq!(mem.tme_mut().wrmsr(IA32_TME_EXCLUDE_MASK, bad), None, "{bad:#x}");
    }
}

#[test]
fn mk_040_the_lock_covers_the_exclusion_registers() {
    for value in [0, ACTIVATE_K6] {
        let mut mem = memory(TmeProfile::Default);
        assert!(activate(&mut mem, value));
        for msr in [IA32_TME_EXCLUDE_MASK, IA32_TME_EXCLUDE_BASE] {
            assert_eq!(mem.tme_mut().wrmsr(msr, 0), None);
        }
    }
}

/// 16 KiB at 1 MiB are excluded.
fn excluding(mask_bits: u64) -> Memory {
    let mut mem = memory(TmeProfile::Default);
    mem.tme_mut().wrmsr(IA32_TME_EXCLUDE_BASE, 0x10_0000).unwrap();
    mem.tme_mut().wrmsr(IA32_TME_EXCLUDE_MASK, ((1 << 46) - 0x4000) | mask_bits).unwrap();
    assert!(activate(&mut mem, ACTIVATE_K6));
    mem
}

fn plain_in_dram(mem: &mut Memory, pa: u64, kid: u16) -> bool {
    store(mem, pa, kid, &ramp());
    clflush(mem, pa, kid);
    raw(mem, pa) == ramp()
}

#[test]
fn mk_041_the_exclusion_range_is_plaintext_in_dram() {
    let mut mem = excluding(exclude::ENABLE);
    for (pa, plain) in [(0xF_FFC0, false), (0x10_0000, true), (0x10_3FC0, true), (0x10_4000, false)] {
        assert_eq!(plain_in_dram(&mut mem, pa, 0), plain, "{pa:#x}");
    }
}

#[test]
fn mk_042_the_exclusion_range_is_for_keyid_0_only() {
    let mut mem = excluding(exclude::ENABLE);
    assert!(!plain_in_dram(&mut mem, 0x10_0000, 1));
    direct(&mut mem, 1, Algorithm::AesXts128, &XTS128.0, &XTS128.1);
    assert!(!plain_in_dram(&mut mem, 0x10_0000, 1));
}

#[test]
fn mk_043_without_enable_nothing_is_excluded() {
    assert!(!plain_in_dram(&mut excluding(0), 0x10_0000, 0));
}

#[test]
fn mk_049_mk_050_keyid_partitioning() {
    let read = |mem: &Memory| rdmsr(mem, IA32_MKTME_KEYID_PARTITIONING).unwrap();
    let mut mem = memory(TmeProfile::Default);
    assert_eq!(read(&mem), 0);
    assert_eq!(mem.tme_mut().wrmsr(IA32_MKTME_KEYID_PARTITIONING, 0), None);
    assert!(activate(&mut mem, TME_ONLY_XTS_128));
    assert_eq!(read(&mem), 0);
    assert_eq!(read(&activated()), 63);
    let mut mem = Memory::new(Config { tdx_partition: true, ..config() }).unwrap();
    assert!(activate(&mut mem, 0x0001_0016_8000_0002));
    assert_eq!(read(&mem), 31 | 32 << 32);
    assert_eq!(mem.tme().tdx_reserved_keyid_bits(), 1);
}

#[test]
fn mk_052_reserved_bits_of_clear_saved_key_are_refused() {
    let mut mem = memory(TmeProfile::Default);
    for bit in 1..64 {
        assert_eq!(mem.tme_mut().wrmsr(IA32_TME_CLEAR_SAVED_KEY, 1 << bit), None);
    }
    assert_eq!(rdmsr(&mem, IA32_TME_CLEAR_SAVED_KEY), Some(0));
}

#[test]
fn bypass_leaves_keyid_0_in_clear_and_keyed_keyids_encrypted() {
    let mut mem = memory(TmeProfile::Default);
    assert!(activate(&mut mem, ACTIVATE_K6 | bits::BYPASS));
    direct(&mut mem, 1, Algorithm::AesXts128, &XTS128.0, &XTS128.1);
    assert!(plain_in_dram(&mut mem, 0x1000, 0));
    assert!(!plain_in_dram(&mut mem, 0x1000, 1));
    assert!(plain_in_dram(&mut mem, 0x1000, 2));
}

#[test]
fn events_name_the_check_that_refused() {
    let mut mem = memory(TmeProfile::Default);
    mem.events_mut().enable(true);
    activate(&mut mem, 1 << 8);
    activate(&mut mem, ACTIVATE_K6);
    activate(&mut mem, ACTIVATE_K6);
    use mem::event::ActivateOutcome::*;
    for outcome in [Refused(4), NewKey, Refused(3)] {
        match mem.events_mut().take() {
            Some(Event::Activate { outcome: got, .. }) => assert_eq!(got, outcome),
            other => panic!("{other:?}"),
        }
    }
}
