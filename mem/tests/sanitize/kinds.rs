//! Every kind of hazard, and the correct code next to it.

use crate::common::*;
use crate::guest::{Brief, Guest};
use mem::HazardKind::*;
use mem::{Agent, CacheModel, Config, HazardKind, MemType, Operation};
use x86::tme::pconfig;

const PA: u64 = 0x1000;
const P: [u8; 64] = [0x11; 64];

/// Runs the scenario under every cache model, with and without fast path, and compares what is found.
fn expect(found: &[Brief], scenario: impl Fn(&mut Guest)) {
    for cache in CacheModel::ALL {
        for fast in [true, false] {
            let mut guest = Guest::new(Config { cache, fast, ..config() });
            scenario(&mut guest);
            assert_eq!(guest.briefs(), found, "cache {cache}, fast {fast}");
        }
    }
}

#[test]
fn every_kind_has_a_name_of_its_own() {
    for kind in HazardKind::ALL {
        assert_eq!(HazardKind::from_name(&kind.to_string()), Some(kind));
    }
    assert_eq!(HazardKind::from_name("stale"), None);
}

#[test]
fn a_page_dirty_under_keyid_0_and_used_under_another_misses_the_flush_on_alloc() {
    expect(&[(MissingFlushOnAlloc, 1, Some(0))], |g| {
        g.store(PA, 0, &P);
        g.store(PA, 1, &[0; 64]);
        g.load(PA, 1, 8);
        g.flush(PA, 1);
    });
    expect(&[(MissingFlushOnAlloc, 1, Some(0))], |g| {
        g.store(PA, 0, &P);
        g.load(PA + 3, 1, 8);
        g.load(PA, 1, 64);
    });
    expect(&[], |g| {
        g.store(PA, 0, &P);
        g.flush(PA, 0);
        g.store(PA, 1, &[0; 64]);
        g.load(PA, 1, 8);
        g.flush(PA, 1);
        g.store(PA, 0, &P);
    });
}

#[test]
fn a_page_dirty_under_a_key_and_stored_to_through_keyid_0_misses_the_flush_on_free() {
    expect(&[(MissingFlushOnFree, 0, Some(1))], |g| {
        g.store(PA, 1, &P);
        g.store(PA, 0, &[0; 64]);
        g.load(PA, 0, 8);
        g.flush(PA, 0);
        g.load(PA, 0, 64);
    });
    // Every line of a page is a case of its own.
    let found: Vec<Brief> = (0..64).map(|_| (MissingFlushOnFree, 0, Some(2))).collect();
    expect(&found, |g| {
        (0..64).for_each(|line| g.store(PA + line * 64, 2, &P));
        (0..64).for_each(|line| g.store(PA + line * 64, 0, &[0; 8]));
        (0..64).for_each(|line| g.store(PA + line * 64 + 8, 0, &[0; 8]));
    });
}

#[test]
fn a_load_fetch_or_walk_of_a_line_dirty_under_another_key_is_a_stale_read() {
    expect(&[(StaleRead, 0, Some(1))], |g| {
        g.store(PA, 1, &P);
        g.load(PA, 0, 1);
    });
    expect(&[(StaleRead, 2, Some(1))], |g| {
        g.store(PA, 1, &P);
        g.fetch(PA, 2);
        g.fetch(PA, 2);
    });
    expect(&[(StaleRead, 2, Some(1))], |g| {
        g.store(PA, 1, &P);
        g.walk(PA, 2);
    });
}

#[test]
fn a_copy_that_another_keyid_wrote_behind_is_a_stale_read_although_the_writer_flushed() {
    expect(&[(StaleRead, 3, Some(2))], |g| {
        // KeyIDs 2 and 3 share the TME key.
        g.clear_key(2);
        g.clear_key(3);
        g.load(PA, 3, 8);
        g.store(PA, 2, &P);
        g.flush(PA, 2);
        g.load(PA, 3, 8);
        g.load(PA, 3, 8);
    });
    expect(&[], |g| {
        g.clear_key(2);
        g.clear_key(3);
        g.load(PA, 3, 8);
        g.store(PA, 2, &P);
        g.flush(PA, 2);
        g.flush(PA, 3);
        g.load(PA, 3, 8);
    });
    // The copy may have been made before DRAM was written without the cache.
    expect(&[(StaleRead, 1, Some(0))], |g| {
        g.store(PA, 1, &P);
        g.flush(PA, 1);
        g.load(PA, 1, 1);
        g.store_nontemporal(PA, 0, &[0; 8]);
        g.load(PA + 16, 1, 48);
        g.load(PA + 15, 1, 1);
    });
}

#[test]
fn stores_through_two_keyids_lose_one() {
    expect(&[(LostWrite, 2, Some(1))], |g| {
        g.store(PA, 1, &P);
        g.store(PA + 8, 2, &P[..8]);
        g.store(PA + 16, 2, &P[..8]);
    });
    // A part stored to a stale copy, and the whole of it written back, is found by whoever reads the rest.
    expect(&[(LostWrite, 2, Some(3))], |g| {
        g.clear_key(2);
        g.clear_key(3);
        g.load(PA, 3, 8);
        g.store(PA, 2, &P);
        g.flush(PA, 2);
        g.store(PA, 3, &[1; 8]);
        g.flush(PA, 3);
        g.load(PA, 2, 8);
        g.load(PA + 8, 2, 8);
        g.load(PA + 16, 2, 8);
    });
}

#[test]
fn bytes_of_another_key_may_be_overwritten_but_not_used() {
    expect(&[(WrongKeyRead, 2, Some(1))], |g| {
        g.store(PA, 1, &P);
        g.flush(PA, 1);
        g.store(PA, 2, &[0; 32]);
        g.load(PA, 2, 32);
        g.load(PA + 28, 2, 8);
        g.load(PA + 60, 2, 4);
    });
    expect(&[(WrongKeyRead, 0, Some(3))], |g| {
        g.command(3, pconfig::KEYID_NO_ENCRYPT);
        g.store_nontemporal(PA, 3, &P);
        g.load_uncached(PA, 0, 8);
        g.load_uncached(PA, 0, 8);
    });
    // Never written: whatever the power-on contents decrypt to is nobody's mistake.
    expect(&[], |g| {
        g.load(PA, 1, 64);
        g.load(PA, 2, 64);
    });
    // Garbage that was written back is still garbage.
    expect(&[(WrongKeyRead, 2, Some(2))], |g| {
        g.store(PA, 1, &P);
        g.flush(PA, 1);
        g.store(PA, 2, &[0; 32]);
        g.flush(PA, 2);
        g.load(PA, 2, 32);
        g.load(PA, 2, 64);
    });
}

#[test]
fn a_line_of_which_only_a_part_is_code_may_be_fetched() {
    expect(&[], |g| {
        g.store(PA, 1, &P);
        g.flush(PA, 1);
        g.store(PA, 0, &[0x90; 8]);
        g.fetch(PA, 0);
    });
    expect(&[(WrongKeyRead, 0, Some(1))], |g| {
        g.store(PA, 1, &P);
        g.flush(PA, 1);
        g.fetch(PA, 0);
        g.fetch(PA + 4, 0);
    });
}

#[test]
fn a_changed_key_is_a_hazard_once_for_all_dirty_lines_of_its_keyid() {
    expect(&[(DirtyLineAtRekey, 1, Some(1))], |g| {
        (0..100).for_each(|line| g.store(PA + line * 64, 1, &P));
        g.store(PA + 100 * 64, 2, &P);
        g.program(1, 0x77);
        if let Some(hazard) = g.hazards.first() {
            assert_eq!((hazard.lines, hazard.line.start().0, hazard.access.operation), (100, PA, Operation::Pconfig));
            assert_eq!(hazard.other.unwrap().icount, 0);
        }
        g.load(PA, 1, 64);
        g.flush(PA, 1);
        g.load(PA, 1, 64);
    });
    // The key it had already.
    expect(&[], |g| {
        g.store(PA, 1, &P);
        g.program(1, 0x20);
        g.load(PA, 1, 64);
        g.flush(PA, 1);
        g.program(1, 0x77);
        g.program(1, 0x20);
        g.load(PA, 1, 64);
    });
    // Clean lines are read again with the new key.
    expect(&[(WrongKeyRead, 1, Some(1))], |g| {
        g.store(PA, 1, &P);
        g.flush(PA, 1);
        g.load(PA, 1, 64);
        g.program(1, 0x77);
        g.load(PA, 1, 64);
    });
    expect(&[], |g| {
        g.store(PA, 1, &P);
        g.whole_cache(Operation::WriteBackInvalidate);
        g.program(1, 0x77);
        g.store(PA, 1, &P);
        g.load(PA, 1, 64);
    });
}

#[test]
fn a_flush_through_the_wrong_mapping_is_told_from_a_useful_one() {
    expect(&[(WrongAliasFlushed, 0, Some(1))], |g| {
        g.store(PA, 1, &P);
        g.flush(PA, 0);
        g.store(PA, 0, &P);
    });
    expect(&[(WrongAliasFlushed, 2, Some(0))], |g| {
        g.store(PA, 0, &P);
        g.clwb(PA, 2);
    });
    expect(&[], |g| {
        g.store(PA, 1, &P);
        g.flush(PA, 1);
        g.flush(PA, 0);
        g.clwb(PA, 2);
    });
}

#[test]
fn devices_bypass_lines_that_are_dirty_under_another_keyid() {
    expect(&[(DmaBypassesDirtyLine, 0, Some(5))], |g| {
        g.store(PA, 5, &P);
        g.dma_read(PA, 0, 64);
        g.dma_read(PA, 0, 64);
    });
    expect(&[(DmaBypassesDirtyLine, 1, Some(0)), (StaleRead, 0, Some(1))], |g| {
        g.store(PA, 0, &P);
        g.dma_write(PA, 1, &P);
        g.flush(PA + 64, 1);
        g.load(PA, 0, 1);
    });
    expect(&[], |g| {
        g.store(PA, 5, &P);
        g.dma_read(PA, 5, 64);
        g.dma_write(PA, 5, &P);
        g.load(PA, 5, 64);
    });
    // The half of the first line that nobody wrote is nobody's mistake.
    expect(&[(WrongKeyRead, 1, Some(5)), (WrongKeyRead, 1, Some(5))], |g| {
        g.dma_write(PA - 32, 5, &[7; 96]);
        g.dma_read(PA - 64, 1, 32);
        g.dma_read(PA - 64, 1, 128);
    });
}

#[test]
fn a_small_write_with_the_wrong_key_destroys_one_block() {
    expect(&[(WrongKeyRead, 1, Some(2))], |g| {
        g.store(PA, 1, &P);
        g.flush(PA, 1);
        g.store_typed(PA + 20, 2, MemType::Uc, &[9]);
        g.load_uncached(PA + 20, 2, 1);
        g.load(PA, 1, 16);
        g.load(PA + 32, 1, 32);
        g.load(PA + 16, 1, 1);
    });
}

#[test]
fn write_through_lines_are_in_dram() {
    expect(&[(WrongKeyRead, 2, Some(1))], |g| {
        g.load(PA, 1, 8);
        g.store_typed(PA, 1, MemType::Wt, &P);
        g.load(PA, 1, 8);
        g.load(PA, 2, 8);
    });
}

#[test]
fn invd_drops_what_was_stored() {
    expect(&[], |g| {
        g.store(PA, 1, &P);
        g.whole_cache(Operation::Invalidate);
        g.store(PA, 2, &P);
    });
}

#[test]
fn a_report_says_who_what_where_and_what_to_do() {
    let mut g = Guest::new(config());
    g.load(PA, 0, 8);
    g.store(PA + 24, 0, &P[..8]);
    g.store(PA + 32, 0, &P[..8]);
    g.load(PA + 40, 5, 8);
    let hazard = g.hazards[0];
    assert_eq!((hazard.line.start().0, hazard.offset, hazard.lines), (PA, 40, 1));
    assert_eq!(hazard.access, mem::Site { icount: 3, rip: 0x1003, ..g.site(Operation::Load, 5) });
    assert_eq!(hazard.other, Some(mem::Site { icount: 1, rip: 0x1001, ..g.site(Operation::Store, 0) }));
    assert_eq!(
        hazard.action.to_string(),
        "CLFLUSH the line through its KeyID 0 mapping, then SFENCE or MFENCE, before it is accessed through KeyID 5 for \
         the first time"
    );
}

#[test]
fn what_the_loader_put_into_ram_is_known() {
    let mut g = Guest::new(config());
    g.mem.load_image(mem::PhysAddr(PA), &[1; 128]);
    g.load(PA, 0, 64);
    assert_eq!(g.briefs(), []);
    g.load(PA + 64, 1, 64);
    assert_eq!(g.hazards[0].other.unwrap().agent, Agent::Loader);
}

#[test]
fn the_exclusion_range_is_plaintext_under_keyid_0_only() {
    use x86::msr;
    for excluded in [false, true] {
        let mut mem = mem::Memory::new(config()).unwrap();
        mem.sanitize(true);
        if excluded {
            // One page.
            mem.tme_mut().wrmsr(msr::IA32_TME_EXCLUDE_BASE, PA).unwrap();
            mem.tme_mut().wrmsr(msr::IA32_TME_EXCLUDE_MASK, ((1 << 46) - 1) & !0xFFF | 1 << 11).unwrap();
        }
        assert!(activate(&mut mem, ACTIVATE_K6));
        let mut g = Guest { mem, icount: 0, hazards: Vec::new(), fast: 0 };
        // KeyID 1 has the TME key.
        g.store(PA, 0, &P);
        g.flush(PA, 0);
        g.load(PA, 1, 8);
        assert_eq!(g.briefs().len(), usize::from(excluded));
    }
}

#[test]
fn resets_forget_and_the_sanitizer_can_be_switched() {
    let mut g = Guest::new(config());
    g.store(PA, 1, &P);
    g.mem.reset(x86::platform::ResetKind::Warm);
    assert!(activate(&mut g.mem, ACTIVATE_K6));
    g.load(PA, 0, 8);
    assert_eq!(g.briefs(), []);
    g.store(PA, 1, &P);
    g.mem.sanitize(false);
    assert!(g.mem.sanitizer().is_none() && !g.mem.observed());
    g.load(PA, 0, 8);
    g.mem.sanitize(true);
    assert_eq!(g.briefs(), []);
}
