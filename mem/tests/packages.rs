//! Several packages (MK specification section 4.7): own MSRs, own keys, own DRAM.

mod common;

use common::*;
use mem::{Algorithm, CacheModel, Config, Event, KeyId, Memory, PhysAddr, ProgramError, TmeProfile};
use x86::msr;
use x86::platform::ResetKind;
use x86::tme::pconfig;

/// A line in the DRAM of package 0, and one in that of package 1.
const NEAR: u64 = 0x1000;
const FAR: u64 = (2 << 20) + 0x1000;

fn two(cache: CacheModel) -> Memory {
    Memory::new(Config { packages: 2, cache, ..config() }).unwrap()
}

/// Both packages activated with the same value.
fn both(cache: CacheModel) -> Memory {
    let mut mem = two(cache);
    for package in [1, 0] {
        assert!(mem.execute_on(package));
        assert!(activate(&mut mem, ACTIVATE_K6));
    }
    mem
}

/// Cells of `bytes` at `pa` as a KeyID writes them now.
fn cells(mem: &mut Memory, pa: u64, kid: u16) -> [u8; 64] {
    mem.write_nontemporal(via(mem, pa, kid), &ramp());
    raw(mem, pa)
}

#[test]
fn dram_is_split_evenly_and_the_executing_package_answers() {
    let mut mem = Memory::new(Config { packages: 3, ..config() }).unwrap();
    assert_eq!((mem.packages(), mem.executing_package()), (3, 0));
    let homes = [0, 341, 682, 1023].map(|page| mem.home_package(PhysAddr(page * 4096)));
    assert_eq!(homes, [Some(0), Some(1), Some(2), Some(2)]);
    assert_eq!(mem.home_package(PhysAddr(4 << 20)), None);
    assert!(!mem.execute_on(3) && mem.package(3).is_none());
    for package in [2, 0, 1, 2] {
        assert!(mem.execute_on(package));
        assert_eq!(mem.executing_package(), package);
        // Each has its own copy of 983H and 984H.
        mem.tme_mut().wrmsr(msr::IA32_TME_EXCLUDE_BASE, package as u64 * 4096).unwrap();
    }
    for package in 0..3 {
        let base = mem.package(package).unwrap().rdmsr(msr::IA32_TME_EXCLUDE_BASE);
        assert_eq!(base, Some(package as u64 * 4096));
    }
}

#[test]
fn mk_104_pconfig_on_package_0_leaves_package_1_in_tme_mode() {
    for cache in CacheModel::ALL {
        let mut mem = both(cache);
        let tme = [NEAR, FAR].map(|pa| cells(&mut mem, pa, 0));
        assert_eq!([NEAR, FAR].map(|pa| cells(&mut mem, pa, 1)), tme);
        direct(&mut mem, 1, Algorithm::AesXts128, &XTS128.0, &XTS128.1);
        assert_ne!(cells(&mut mem, NEAR, 1), tme[0]);
        assert_eq!(cells(&mut mem, FAR, 1), tme[1]);
        // Through the cache as well.
        store(&mut mem, FAR + 64, 1, &ramp());
        clflush(&mut mem, FAR + 64, 1);
        assert_eq!(load(&mut mem, FAR + 64, 0), ramp());
        // Once per package is what software has to do.
        mem.execute_on(1);
        direct(&mut mem, 1, Algorithm::AesXts128, &XTS128.0, &XTS128.1);
        assert_ne!(cells(&mut mem, FAR, 1), tme[1]);
    }
}

#[test]
fn packages_have_different_tme_keys_and_random_keys() {
    let draws = [0, 1].map(|package| {
        let mut mem = two(CacheModel::Exact);
        mem.execute_on(package);
        (mem.tme_mut().rng_draw(mem::EntropyStream::TmeKey), mem.rdrand64())
    });
    assert_ne!(draws[0].0, draws[1].0);
    assert_ne!(draws[0].1, draws[1].1);
    // The first package of a machine draws what the only one draws.
    let mut one = memory(TmeProfile::Default);
    assert_eq!(one.rdrand64(), draws[0].1);
}

#[test]
fn a_package_that_was_not_activated_stores_plaintext() {
    let mut mem = two(CacheModel::Exact);
    assert!(activate(&mut mem, ACTIVATE_K6));
    assert_ne!(cells(&mut mem, NEAR, 0), ramp());
    assert_eq!(cells(&mut mem, FAR, 0), ramp());
    assert_eq!(cells(&mut mem, FAR, 5), ramp());
}

#[test]
fn packages_that_disagree_about_982h_raise_one_event() {
    let mut mem = two(CacheModel::Exact);
    mem.events_mut().enable(true);
    assert!(activate(&mut mem, ACTIVATE_K6));
    mem.execute_on(1);
    assert!(activate(&mut mem, 0x0005_0004_0000_0002));
    for package in [0, 1, 0] {
        mem.execute_on(package);
    }
    let events: Vec<Event> = std::iter::from_fn(|| mem.events_mut().take()).collect();
    let mismatches = events.iter().filter(|event| **event == Event::PackageMismatch).count();
    assert_eq!((mismatches, events.len()), (1, 3), "{events:?}");
    let mut agreeing = both(CacheModel::Exact);
    agreeing.events_mut().enable(true);
    agreeing.execute_on(1);
    assert_eq!(agreeing.events_mut().take(), None);
}

#[test]
fn a_reset_reaches_every_package_and_the_hash_covers_them() {
    let mut mem = both(CacheModel::Exact);
    let before = state_hash(&mem);
    mem.execute_on(1);
    assert_ne!(state_hash(&mem), before);
    mem.execute_on(0);
    assert_eq!(state_hash(&mem), before);
    mem.execute_on(1);
    direct(&mut mem, 1, Algorithm::AesXts128, &XTS128.0, &XTS128.1);
    mem.execute_on(0);
    assert_ne!(state_hash(&mem), before);
    mem.reset(ResetKind::Warm);
    assert!((0..2).all(|package| mem.package(package).unwrap().activate() == 0));
}

#[test]
fn the_key_table_of_one_package_is_locked_alone() {
    let mut mem = both(CacheModel::Exact);
    mem.tme_mut().hold_key_table(1);
    let program = |mem: &mut Memory| {
        let field = [0; 64];
        mem.tme_mut().program_key(KeyId(1), pconfig::KEYID_CLEAR_KEY, Algorithm::AesXts128, &field, &field)
    };
    mem.execute_on(1);
    assert_eq!(program(&mut mem), Ok(()));
    mem.execute_on(0);
    assert_eq!(program(&mut mem), Err(ProgramError::DeviceBusy));
}
