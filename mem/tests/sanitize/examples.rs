//! The worked examples of MK specification section 5.8, in order: line L, KeyIDs 1 and 2 with different keys, DRAM holds
//! what was written through KeyID 1.

use crate::common::*;
use crate::guest::Guest;
use mem::HazardKind::*;
use mem::{CacheModel, Config, Operation};
use x86::tme::pconfig;

const L: u64 = 0x4000;

fn each(scenario: impl Fn(&mut Guest)) {
    for cache in CacheModel::ALL {
        let mut guest = Guest::new(Config { cache, ..config() });
        guest.store(L, 1, &[0x50; 64]);
        guest.flush(L, 1);
        scenario(&mut guest);
    }
}

#[test]
fn example_1_reading_through_another_key() {
    each(|g| {
        g.load(L, 2, 64);
        g.load(L, 1, 64);
        assert_eq!(g.briefs(), [(WrongKeyRead, 2, Some(1))]);
    });
}

#[test]
fn examples_2_to_4_a_store_is_not_seen_and_the_wrong_flush_does_not_help() {
    each(|g| {
        g.load(L, 2, 64);
        g.load(L, 1, 64);
        g.briefs();
        g.store(L, 1, &[0x51; 64]);
        g.load(L, 2, 64);
        assert_eq!(g.briefs(), [(StaleRead, 2, Some(1))]);
        // Told already.
        g.flush(L, 2);
        g.flush(L, 1);
        assert_eq!(g.briefs(), []);
    });
    each(|g| {
        g.store(L, 1, &[0x51; 64]);
        g.flush(L, 2);
        assert_eq!(g.briefs(), [(WrongAliasFlushed, 2, Some(1))]);
        g.flush(L, 1);
        g.load(L, 1, 64);
        assert_eq!(g.briefs(), []);
    });
}

#[test]
fn example_5_two_dirty_copies() {
    each(|g| {
        g.store(L, 1, &[0x51; 64]);
        g.store(L, 2, &[0x52; 64]);
        g.whole_cache(Operation::WriteBackInvalidate);
        assert_eq!(g.briefs(), [(LostWrite, 2, Some(1))]);
    });
}

#[test]
fn examples_6_and_7_another_key_or_none_for_a_dirty_line() {
    each(|g| {
        g.store(L, 1, &[0x51; 64]);
        g.program(1, 0x99);
        assert_eq!(g.briefs(), [(DirtyLineAtRekey, 1, Some(1))]);
        g.load(L, 1, 64);
        g.flush(L, 1);
        g.load(L, 1, 64);
        assert_eq!(g.briefs(), []);
    });
    each(|g| {
        g.store(L, 1, &[0x51; 64]);
        g.clear_key(1);
        g.flush(L, 1);
        assert_eq!(g.briefs(), [(DirtyLineAtRekey, 1, Some(1))]);
    });
    // Lines that were not cached read back as garbage.
    each(|g| {
        g.program(1, 0x99);
        g.load(L, 1, 64);
        assert_eq!(g.briefs(), [(WrongKeyRead, 1, Some(1))]);
    });
}

#[test]
fn example_8_plaintext_read_through_keyid_0() {
    each(|g| {
        g.command(3, pconfig::KEYID_NO_ENCRYPT);
        g.store(L, 3, &[0x53; 64]);
        g.flush(L, 3);
        g.load(L, 3, 64);
        assert_eq!(g.briefs(), []);
        g.load(L, 0, 64);
        assert_eq!(g.briefs(), [(WrongKeyRead, 0, Some(3))]);
    });
}

#[test]
fn example_9_free_without_flush() {
    each(|g| {
        g.store(L, 1, &[0x51; 64]);
        g.store(L, 0, &[0; 64]);
        assert_eq!(g.briefs(), [(MissingFlushOnFree, 0, Some(1))]);
        g.flush(L, 0);
        g.load(L, 0, 64);
        g.whole_cache(Operation::WriteBackInvalidate);
        // The zeros are gone; that was told.
        g.load(L, 0, 64);
        assert_eq!(g.briefs(), []);
    });
}

#[test]
fn example_10_invd() {
    each(|g| {
        g.load(L, 2, 64);
        g.store(L, 1, &[0x51; 64]);
        g.load(L, 2, 64);
        g.briefs();
        g.whole_cache(Operation::Invalidate);
        g.load(L, 1, 64);
        assert_eq!(g.briefs(), []);
    });
}
