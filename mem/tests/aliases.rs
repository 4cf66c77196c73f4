//! Caches, aliases and DMA: rules R1 to R8 and the worked examples 1 to 10 of MK specification section 5, MK-115 to
//! MK-126, MK-130, MK-131, MK-141, MK-142.

mod common;

use common::*;
use mem::{Access, Algorithm, CipherLine, Event, KeyId, MemType, Memory, PhysAddr, TmeProfile};
use x86::platform::ResetKind;
use x86::tme::{activate as bits, pconfig};

const PA: u64 = 0x1000;
const P: [u8; 64] = [0x11; 64];
const P2: [u8; 64] = [0x22; 64];
const Q: [u8; 64] = [0x33; 64];

/// "Line L, KeyIDs 1 and 2 with different keys, everything flushed, DRAM holds E1(P)". Also returns E1(P).
fn example() -> (Memory, [u8; 64]) {
    let mut mem = keyed();
    store(&mut mem, PA, 1, &P);
    mem.wbinvd();
    let cells = raw(&mem, PA);
    (mem, cells)
}

/// What `bytes` look like in DRAM when they are written through a KeyID now.
fn encrypted(mem: &mut Memory, kid: u16, bytes: &[u8; 64]) -> [u8; 64] {
    let before = raw(mem, PA);
    mem.write_nontemporal(via(mem, PA, kid), bytes);
    let cells = raw(mem, PA);
    mem.dram_write_raw(PhysAddr(PA).line(), &CipherLine(before));
    cells
}

fn resident(mem: &Memory, kid: u16) -> bool {
    mem.line_resident(via(mem, PA, kid))
}

fn dirty(mem: &Memory, kid: u16) -> bool {
    mem.line_dirty(via(mem, PA, kid))
}

#[test]
fn example_1_reading_through_the_wrong_keyid_caches_garbage_beside_the_right_line() {
    let (mut mem, cells) = example();
    let garbage = load(&mut mem, PA, 2);
    assert_ne!(garbage, P);
    assert_eq!(load(&mut mem, PA, 1), P);
    assert!(resident(&mem, 1) && resident(&mem, 2));
    // R6: the garbage is D2(E1(P)), deterministic.
    assert_eq!(encrypted(&mut mem, 2, &garbage), cells);
}

#[test]
fn example_2_mk_115_a_store_is_not_seen_through_another_keyid() {
    let (mut mem, _) = example();
    let garbage = load(&mut mem, PA, 2);
    store(&mut mem, PA, 1, &P2);
    assert_eq!(load(&mut mem, PA, 2), garbage);
    assert!(dirty(&mem, 1) && !dirty(&mem, 2));
}

#[test]
fn example_3_mk_116_clflush_of_another_keyid_leaves_the_dirty_line() {
    let (mut mem, cells) = example();
    load(&mut mem, PA, 2);
    store(&mut mem, PA, 1, &P2);
    clflush(&mut mem, PA, 2);
    assert!(!resident(&mem, 2) && dirty(&mem, 1));
    assert_eq!(raw(&mem, PA), cells);
}

#[test]
fn example_4_mk_117_clflush_of_the_same_keyid_writes_dram() {
    let (mut mem, _) = example();
    store(&mut mem, PA, 1, &P2);
    let cells = encrypted(&mut keyed(), 1, &P2);
    clflush(&mut mem, PA, 1);
    assert_eq!(raw(&mem, PA), cells);
    assert!(!resident(&mem, 1));
    store(&mut mem, PA, 1, &Q);
    mem.clwb(via(&mem, PA, 1));
    assert_eq!(raw(&mem, PA), encrypted(&mut keyed(), 1, &Q));
    assert!(resident(&mem, 1) && !dirty(&mem, 1));
}

#[test]
fn example_5_mk_118_wbinvd_writes_the_highest_full_pa_last() {
    for first in [1, 2] {
        let (mut mem, _) = example();
        mem.events_mut().enable(true);
        store(&mut mem, PA, first, &[first as u8; 8]);
        store(&mut mem, PA, 3 - first, &[3 - first as u8; 8]);
        let second_copy = load(&mut mem, PA, 2);
        while mem.events_mut().take().is_some() {}
        mem.wbinvd();
        assert_eq!(raw(&mem, PA), encrypted(&mut keyed(), 2, &second_copy));
        let line = PhysAddr(PA).line();
        let conflict = Event::AliasWritebackConflict { line, kid_lost: KeyId(1), kid_won: KeyId(2) };
        assert_eq!(mem.events_mut().take(), Some(conflict));
    }
}

#[test]
fn example_6_mk_120_mk_121_mk_122_rekeying_reaches_dram_only_by_write_back() {
    let (mut mem, _) = example();
    store(&mut mem, PA + 0x40, 1, &P);
    clflush(&mut mem, PA + 0x40, 1);
    store(&mut mem, PA, 1, &P2);
    direct(&mut mem, 1, Algorithm::AesXts256, &XTS256.0, &XTS256.1);
    assert_eq!(load(&mut mem, PA, 1), P2);
    clflush(&mut mem, PA, 1);
    assert_eq!(raw(&mem, PA), encrypted(&mut mem, 1, &P2));
    assert_eq!(load(&mut mem, PA, 1), P2);
    assert_ne!(load(&mut mem, PA + 0x40, 1), P);
}

#[test]
fn example_7_after_clear_key_a_dirty_line_is_written_as_tme_has_it() {
    for bypass in [0, bits::BYPASS] {
        let mut mem = memory(TmeProfile::Default);
        assert!(activate(&mut mem, ACTIVATE_K6 | bypass));
        direct(&mut mem, 1, Algorithm::AesXts128, &XTS128.0, &XTS128.1);
        store(&mut mem, PA, 1, &P);
        command(&mut mem, 1, pconfig::KEYID_CLEAR_KEY);
        clflush(&mut mem, PA, 1);
        assert_eq!(raw(&mem, PA), encrypted(&mut mem, 0, &P));
        assert_eq!(raw(&mem, PA) == P, bypass != 0);
        assert_eq!(load(&mut mem, PA, 1), P);
    }
}

#[test]
fn example_8_no_encrypt_puts_plaintext_into_dram() {
    let mut mem = keyed();
    command(&mut mem, 3, pconfig::KEYID_NO_ENCRYPT);
    store(&mut mem, PA, 3, &P);
    clflush(&mut mem, PA, 3);
    assert_eq!(raw(&mem, PA), P);
    let garbage = load(&mut mem, PA, 0);
    assert_ne!(garbage, P);
    assert_eq!(encrypted(&mut mem, 0, &garbage), P);
}

#[test]
fn example_9_mk_123_a_line_left_dirty_overwrites_the_next_owners_zeros_when_evicted() {
    let (mut mem, _) = example();
    store(&mut mem, PA, 1, &P2);
    store(&mut mem, PA, 0, &[0; 64]);
    clflush(&mut mem, PA, 0);
    assert_eq!(load(&mut mem, PA, 0), [0; 64]);
    clflush(&mut mem, PA, 0);
    // 1 MiB, 16 ways: lines 64 KiB apart share a set.
    for way in 1..=16 {
        load(&mut mem, PA + way * 0x1_0000, 0);
    }
    assert!(!resident(&mem, 1));
    assert_eq!(raw(&mem, PA), encrypted(&mut keyed(), 1, &P2));
    assert_ne!(load(&mut mem, PA, 0), [0; 64]);
}

#[test]
fn example_10_mk_119_invd_loses_the_store() {
    let (mut mem, cells) = example();
    store(&mut mem, PA, 1, &P2);
    mem.invd();
    assert_eq!(raw(&mem, PA), cells);
    assert_eq!(load(&mut mem, PA, 1), P);
}

#[test]
fn r5_the_last_write_back_wins_all_64_bytes() {
    let (mut mem, _) = example();
    load(&mut mem, PA, 2);
    store(&mut mem, PA, 1, &[0xAA; 8]);
    store(&mut mem, PA + 56, 2, &[0xBB; 8]);
    clflush(&mut mem, PA, 2);
    clflush(&mut mem, PA, 1);
    let mut expected = P;
    expected[..8].fill(0xAA);
    assert_eq!(load(&mut mem, PA, 1), expected);
}

#[test]
fn wbnoinvd_keeps_lines_and_wbinvd_does_not() {
    let (mut mem, _) = example();
    store(&mut mem, PA, 1, &P2);
    store(&mut mem, PA + 64, 2, &P2);
    mem.wbnoinvd();
    assert!(resident(&mem, 1) && !dirty(&mem, 1) && mem.line_resident(via(&mem, PA + 64, 2)));
    mem.wbinvd();
    assert!(!resident(&mem, 1) && !mem.line_resident(via(&mem, PA + 64, 2)));
}

#[test]
fn mc_26_the_victim_is_the_oldest_fill_and_hits_do_not_matter() {
    let mut mem = keyed();
    for way in 0..16 {
        load(&mut mem, PA + way * 0x1_0000, 0);
    }
    load(&mut mem, PA, 0);
    store(&mut mem, PA, 0, &P);
    load(&mut mem, PA + 16 * 0x1_0000, 0);
    assert!(!resident(&mem, 0));
    assert!(mem.line_resident(via(&mem, PA + 0x1_0000, 0)));
    // MC-27: an alias competes for the same set.
    load(&mut mem, PA, 5);
    assert!(!mem.line_resident(via(&mem, PA + 0x1_0000, 0)));
}

#[test]
fn mk_124_uncached_and_nontemporal_stores_leave_aliases_stale() {
    for nontemporal in [false, true] {
        let (mut mem, _) = example();
        load(&mut mem, PA, 1);
        let at = via(&mem, PA, 2);
        if nontemporal {
            mem.write_nontemporal(at, &[0xEE; 16]);
        } else {
            mem.write(at, MemType::Uc, false, &[0xEE; 16]);
        }
        assert_eq!(load(&mut mem, PA, 1), P);
        clflush(&mut mem, PA, 1);
        let line = load(&mut mem, PA, 1);
        assert_ne!(line[..16], P[..16]);
        assert_eq!(line[16..], P[16..]);
    }
}

#[test]
fn a_nontemporal_store_first_writes_back_the_line_of_its_own_tag() {
    let (mut mem, _) = example();
    store(&mut mem, PA, 1, &[0xAA; 8]);
    mem.write_nontemporal(via(&mem, PA + 8, 1), &[0xBB; 8]);
    assert!(!resident(&mem, 1));
    let line = load(&mut mem, PA, 1);
    assert_eq!((line[0], line[8], line[16]), (0xAA, 0xBB, P[16]));
}

#[test]
fn mk_125_a_one_byte_uncached_store_through_a_wrong_keyid_changes_one_block() {
    let mut mem = activated();
    direct(&mut mem, 1, Algorithm::AesXts128, &XTS128.0, &XTS128.1);
    direct(&mut mem, 2, Algorithm::AesXts128, &ascending(0x80), &ascending(0x90));
    store(&mut mem, PA, 1, &ramp());
    mem.wbinvd();
    let before = raw(&mem, PA);
    mem.write(via(&mem, PA + 5, 2), MemType::Uc, false, &[0xEE]);
    assert_ne!(raw(&mem, PA)[..16], before[..16]);
    assert_eq!(raw(&mem, PA)[16..], before[16..]);
    // D5 of section 6.4.
    let line = load(&mut mem, PA, 1);
    assert_eq!(line[..16], hex("1d6d1593e18cbb93d7e7298e357381de"));
    assert_eq!(line[16..], ramp()[16..]);
}

#[test]
fn mk_126_a_whole_line_is_written_without_being_read() {
    let (mut mem, _) = example();
    let decrypted = mem.stats().bytes_decrypted;
    mem.write_nontemporal(via(&mem, PA, 2), &Q);
    assert_eq!(mem.stats().bytes_decrypted, decrypted);
    assert_eq!(load(&mut mem, PA, 2), Q);
}

#[test]
fn write_through_updates_a_hit_and_dram_and_does_not_allocate() {
    let (mut mem, _) = example();
    mem.write(via(&mem, PA, 1), MemType::Wt, false, &[0xAA; 4]);
    assert!(!resident(&mem, 1));
    load(&mut mem, PA, 1);
    mem.write(via(&mem, PA + 4, 1), MemType::Wt, false, &[0xBB; 4]);
    assert!(resident(&mem, 1) && !dirty(&mem, 1));
    let line = load(&mut mem, PA, 1);
    assert_eq!(line[..9], [0xAA, 0xAA, 0xAA, 0xAA, 0xBB, 0xBB, 0xBB, 0xBB, P[8]]);
    mem.invd();
    assert_eq!(load(&mut mem, PA, 1), line);
}

#[test]
fn write_protected_stores_invalidate_the_line_and_go_to_dram() {
    let (mut mem, _) = example();
    load(&mut mem, PA, 1);
    mem.write(via(&mem, PA, 1), MemType::Wp, false, &[0xAA; 4]);
    assert!(!resident(&mem, 1));
    assert_eq!(load(&mut mem, PA, 1)[..5], [0xAA, 0xAA, 0xAA, 0xAA, P[4]]);
}

#[test]
fn no_fill_mode_serves_hits_and_sends_misses_to_dram() {
    let (mut mem, _) = example();
    let at = via(&mem, PA, 1);
    assert!(mem.touch(at, Access::Read, true).is_none());
    let mut byte = [0];
    mem.read(at, MemType::Wb, true, &mut byte);
    assert_eq!((byte[0], resident(&mem, 1)), (P[0], false));
    mem.write(at, MemType::Wb, true, &[0xAA]);
    assert_ne!(encrypted(&mut keyed(), 1, &P), raw(&mem, PA));
    load(&mut mem, PA, 1);
    mem.write(at, MemType::Wb, true, &[0xBB]);
    assert!(dirty(&mem, 1));
}

#[test]
fn mk_130_dma_is_coherent_for_its_own_full_pa_only() {
    let (mut mem, _) = example();
    store(&mut mem, PA, 1, &[0xAA; 8]);
    load(&mut mem, PA, 0);
    let stale = load(&mut mem, PA, 0);
    let mut seen = [0; 16];
    mem.dma_read(via(&mem, PA, 1), &mut seen);
    assert_eq!(seen, [0xAA, 0xAA, 0xAA, 0xAA, 0xAA, 0xAA, 0xAA, 0xAA, 17, 17, 17, 17, 17, 17, 17, 17]);
    assert!(dirty(&mem, 1));
    mem.dma_write(via(&mem, PA + 8, 1), &[0xBB; 8]);
    let mut expected = P;
    expected[..8].fill(0xAA);
    expected[8..16].fill(0xBB);
    assert_eq!(raw(&mem, PA), encrypted(&mut keyed(), 1, &expected));
    assert_eq!(load(&mut mem, PA, 1), expected);
    assert_eq!(load(&mut mem, PA, 0), stale);
}

#[test]
fn mk_131_dma_with_the_wrong_keyid_reads_garbage() {
    let (mut mem, _) = example();
    let mut seen = [0; 64];
    mem.dma_read(via(&mem, PA, 0), &mut seen);
    assert_ne!(seen, P);
    assert_eq!(seen, load(&mut mem, PA, 0));
}

#[test]
fn dma_crosses_lines_and_pages_and_skips_what_is_not_ram() {
    let mut mem = keyed();
    let data: Vec<u8> = (0..10_000u32).map(|i| (i * 7) as u8).collect();
    mem.dma_write(via(&mem, 0x2FFD, 1), &data);
    let mut back = vec![0; data.len()];
    mem.dma_read(via(&mem, 0x2FFD, 1), &mut back);
    assert_eq!(back, data);
    assert_eq!(load(&mut mem, 0x3000, 1)[..], data[3..67]);
    // The last page of RAM and what follows.
    let mut edge = [0; 32];
    mem.dma_write(via(&mem, (4 << 20) - 16, 0), &[0x55; 32]);
    mem.dma_read(via(&mem, (4 << 20) - 16, 0), &mut edge);
    assert_eq!(edge[..16], [0x55; 16]);
    assert_eq!(edge[16..], [0xFF; 16]);
}

#[test]
fn addresses_of_more_than_m_bits_are_not_ram() {
    let mut mem = keyed();
    for high in [1 << 46, 1 << 63, u64::MAX << 46] {
        let at = mem::BusAddr(high | PA);
        mem.dma_write(at, &P);
        assert!(mem.touch(at, Access::Write, false).is_none());
        let mut seen = [0; 64];
        mem.dma_read(at, &mut seen);
        assert_eq!(seen, [0xFF; 64]);
    }
    mem.dma_write(mem::BusAddr(u64::MAX - 7), &[0x55; 8]);
    assert_eq!(raw(&mem, PA), [0; 64]);
}

#[test]
fn dma_with_a_tdx_private_keyid_is_aborted() {
    let mut mem = Memory::new(mem::Config { tdx_partition: true, ..config() }).unwrap();
    assert!(activate(&mut mem, ACTIVATE_K6 | 1 << bits::TDX_RESERVED_KEYID_BITS_SHIFT));
    for (kid, aborted) in [(31, false), (32, true), (63, true)] {
        let mut seen = [0; 64];
        mem.dma_write(via(&mem, PA, kid), &P);
        mem.dma_read(via(&mem, PA, kid), &mut seen);
        assert_eq!(seen, if aborted { [0xFF; 64] } else { P });
    }
}

#[test]
fn load_image_goes_through_keyid_0_and_does_not_allocate() {
    let mut mem = activated();
    let image: Vec<u8> = (0..9000u32).map(|i| i as u8).collect();
    mem.load_image(PhysAddr(0x1010), &image);
    assert!(!resident(&mem, 0));
    assert_ne!(raw(&mem, 0x1040), image[0x30..0x70]);
    assert_eq!(load(&mut mem, 0x1040, 0)[..], image[0x30..0x70]);
}

#[test]
fn mk_141_mk_142_a_flip_in_dram_costs_one_block_unless_the_cache_overwrites_it() {
    let (mut mem, cells) = example();
    let mut flipped = cells;
    flipped[0x13] ^= 1;
    mem.dram_write_raw(PhysAddr(PA).line(), &CipherLine(flipped));
    let line = load(&mut mem, PA, 1);
    assert_eq!((line[..16] == P[..16], line[16..32] == P[16..32], line[32..] == P[32..]), (true, false, true));
    store(&mut mem, PA, 1, &P2);
    mem.dram_write_raw(PhysAddr(PA).line(), &CipherLine(cells));
    mem.wbinvd();
    assert_eq!(load(&mut mem, PA, 1), P2);
}

#[test]
fn mc_34_a_warm_reset_drops_the_cache_and_keeps_dram_and_a_cold_reset_loses_both() {
    let (mut mem, cells) = example();
    store(&mut mem, PA, 1, &P2);
    mem.reset(ResetKind::Warm);
    assert_eq!(raw(&mem, PA), cells);
    assert!(!mem.line_resident(via(&mem, PA, 0)));
    mem.reset(ResetKind::Cold);
    assert_eq!(raw(&mem, PA), [0; 64]);
}

#[test]
fn events_tell_of_stale_reads_and_of_write_backs_over_another_keyids_line() {
    let (mut mem, _) = example();
    mem.events_mut().enable(true);
    store(&mut mem, PA, 1, &P2);
    load(&mut mem, PA, 2);
    let line = PhysAddr(PA).line();
    let stale = Event::AliasReadStale { line, kid_read: KeyId(2), kid_dirty: KeyId(1) };
    assert_eq!(mem.events_mut().take(), Some(stale));
    store(&mut mem, PA, 0, &Q);
    clflush(&mut mem, PA, 0);
    clflush(&mut mem, PA, 1);
    let switch = Event::AliasDirtyOnKeySwitch { line, kid_before: KeyId(0), kid_now: KeyId(1) };
    assert_eq!(mem.events_mut().take(), Some(switch));
    assert_eq!(mem.events_mut().take(), None);
}

#[test]
fn a_dram_dump_has_every_region_back_to_back_and_only_ciphertext() {
    let (mem, cells) = example();
    let mut dump = Vec::new();
    mem.dram().dump(&mut dump).unwrap();
    assert_eq!(dump.len(), 4 << 20);
    assert_eq!(dump[PA as usize..][..64], cells);
    assert!(!dump.windows(16).any(|window| window == &P[..16]));
}
