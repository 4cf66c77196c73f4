//! The fast table, the veto, and the bits that decoded code depends on (design D3).

mod common;

use common::*;
use mem::{Access, BusAddr, Config, FastTable, FramePtr, Memory, deny};

const PA: u64 = 0x1000;
const VA: u64 = 0xFFFF_8000_0000_1000;

fn supervisor() -> FastTable {
    let mut table = FastTable::new();
    table.set_mode(deny::RS, deny::WS);
    table
}

fn touch(mem: &mut Memory, at: BusAddr, access: Access) -> FramePtr {
    mem.touch(at, access, false).unwrap().frame
}

#[test]
fn a_load_hits_once_the_line_is_resident_and_a_store_once_it_is_dirty() {
    let (mut mem, mut fast) = (keyed(), supervisor());
    let at = via(&mem, PA, 1);
    assert_eq!(fast.load_u64(VA), None);
    fast.install(VA, 0, touch(&mut mem, at, Access::Read));
    assert_eq!(fast.load_u64(VA), Some(u64::from_le_bytes(load(&mut mem, PA, 1)[..8].try_into().unwrap())));
    assert!(!fast.store_u8(VA, 1));
    assert_eq!(fast.load_u8(VA + 64), None);
    touch(&mut mem, at, Access::Write);
    assert!(fast.store_u32(VA + 4, 0x1234_5678));
    let slot = fast.slot::<u16>(VA + 4).unwrap();
    slot.set(slot.get() ^ 0xFFFF);
    assert_eq!(load(&mut mem, PA, 1)[4..8], 0x1234_A987u32.to_le_bytes());
}

#[test]
fn accesses_that_leave_the_line_miss() {
    let (mut mem, mut fast) = (keyed(), supervisor());
    for offset in [0, 64] {
        let at = via(&mem, PA + offset, 1);
        fast.install(VA, 0, touch(&mut mem, at, Access::Write));
    }
    assert!(fast.load_u64(VA + 56).is_some());
    for va in 57..64 {
        assert_eq!(fast.load_u64(VA + va), None);
        assert_eq!(fast.load_anywhere::<u64>(VA + va), None);
        assert!(!fast.store_u64(VA + va, 0));
        assert!(!fast.store_anywhere(VA + va, 0u64));
    }
    assert!(fast.load_u8(VA + 63).is_some());
    assert!(fast.slot::<u128>(VA + 112).is_some());
    assert!(fast.slot::<u128>(VA + 113).is_none());
    assert!(fast.load_anywhere::<u128>(VA + 112).is_some() && fast.load_anywhere::<u128>(VA + 113).is_none());
}

#[test]
fn runs_of_bytes_are_copied_and_filled_when_all_their_lines_are_there() {
    let (mut mem, mut fast) = (keyed(), supervisor());
    // Lines 1 to 3 of one page may be read, lines 2 to 4 of the next one written.
    const TO: u64 = 0x1000;
    for line in 1..=3 {
        let at = via(&mem, PA + 64 * line, 1);
        fast.install(VA, 0, touch(&mut mem, at, Access::Read));
    }
    for line in 2..=4 {
        let at = via(&mem, PA + TO + 64 * line, 1);
        fast.install(VA + TO, 0, touch(&mut mem, at, Access::Write));
    }
    let lines = |mem: &mut Memory, at: u64, count: u64| -> Vec<u8> {
        (0..count).flat_map(|line| load(mem, at + 64 * line, 1)).collect()
    };
    let (source, before) = (lines(&mut mem, PA + 64, 3), lines(&mut mem, PA + TO + 128, 3));
    for (from, to, len) in [
        (63, 128, 1),
        (255, 128, 2),
        (64, 127, 8),
        (64, 313, 8),
        (0, 128, 4096),
        (64, 128, 0),
        (64, 128, 4097),
        (64, 128, usize::MAX),
    ] {
        assert!(!fast.copy(VA + from, VA + TO + to, len), "{len} bytes from {from} to {to}");
    }
    for (to, size, count) in [(127, 1, 2), (319, 1, 2), (128, 8, 25), (128, 4, 0)] {
        assert!(!fast.fill(VA + TO + to, 7, size, count), "{count} times {size} bytes at {to}");
    }
    assert_eq!(lines(&mut mem, PA + TO + 128, 3), before);
    assert!(fast.copy(VA + 64 + 5, VA + TO + 128 + 3, 187));
    let mut expected = before;
    expected[3..190].copy_from_slice(&source[5..192]);
    assert_eq!(lines(&mut mem, PA + TO + 128, 3), expected);
    assert!(fast.fill(VA + TO + 128 + 10, 0x0201, 2, 90));
    expected[10..190].as_chunks_mut::<2>().0.fill([1, 2]);
    assert_eq!(lines(&mut mem, PA + TO + 128, 3), expected);
}

#[test]
fn integers_that_are_not_aligned_have_probes_of_their_own() {
    let (mut mem, mut fast) = (keyed(), supervisor());
    let at = via(&mem, PA, 1);
    fast.install(VA, 0, touch(&mut mem, at, Access::Write));
    for offset in 0..=56 {
        let (va, value) = (VA + offset, 0x0102_0304_0506_0708 * (offset + 1));
        assert_eq!(fast.store_u64(va, value), offset % 8 == 0);
        assert!(fast.store_anywhere(va, value));
        assert_eq!(fast.load_anywhere(va), Some(value));
        assert_eq!(fast.load_u64(va), (offset % 8 == 0).then_some(value));
        assert_eq!(fast.load_u32(va), (offset % 4 == 0).then_some(value as u32));
        assert_eq!(fast.load_u16(va), (offset % 2 == 0).then_some(value as u16));
        assert_eq!(fast.load_u8(va), Some(value as u8));
    }
}

#[test]
fn deny_bits_are_tested_against_the_mode_only() {
    let (mut mem, mut fast) = (keyed(), supervisor());
    let at = via(&mem, PA, 1);
    let frame = touch(&mut mem, at, Access::Write);
    let modes = [(deny::RU, deny::WU), (deny::RS, deny::WS), (deny::RSA, deny::WSA)];
    for denied in 0..64 {
        fast.install(VA, denied, frame);
        for (read, write) in modes {
            fast.set_mode(read, write);
            assert_eq!(fast.load_u8(VA).is_some(), denied & read == 0);
            assert_eq!(fast.store_u8(VA, 0), denied & write == 0);
        }
    }
}

#[test]
fn pages_that_share_an_entry_and_cleared_pages_miss() {
    let (mut mem, mut fast) = (keyed(), supervisor());
    let at = via(&mem, PA, 1);
    let frame = touch(&mut mem, at, Access::Read);
    let other = VA + (mem::FAST_ENTRIES as u64) * 4096;
    fast.install(VA, 0, frame);
    assert_eq!(fast.load_u8(other), None);
    assert_eq!(fast.load_u8(VA & 0x0000_FFFF_FFFF_FFFF), None);
    fast.clear_page(other);
    assert!(fast.load_u8(VA).is_some());
    fast.clear_page(VA + 5);
    assert_eq!(fast.load_u8(VA), None);
    fast.install(VA, 0, frame);
    fast.purge_frame(frame);
    assert_eq!(fast.load_u8(VA), None);
    fast.install(VA, 0, frame);
    fast.clear();
    assert_eq!(fast.load_u8(VA), None);
}

#[test]
fn an_empty_table_misses_whatever_the_masks_and_the_address_are() {
    let mut fast = FastTable::new();
    for asked in [0, deny::RU, deny::WSA, !0] {
        fast.set_mode(asked, asked);
        for va in [0, 0xFFF, VA, !0xFFF, !0] {
            assert_eq!(fast.load_u8(va), None);
            assert!(!fast.store_u8(va, 0));
        }
    }
}

#[test]
fn bulk_operations_find_the_frame_behind_a_page() {
    let (mut mem, mut fast) = (keyed(), supervisor());
    let at = via(&mem, PA, 1);
    let frame = touch(&mut mem, at, Access::Write);
    fast.install(VA, deny::WS, frame);
    assert_eq!(fast.page_for_read(VA + 77), Some(frame));
    assert_eq!(fast.page_for_write(VA), None);
    assert_eq!(fast.page_for_read(VA + 4096), None);
}

#[test]
fn flushes_and_resets_take_fast_bits_away() {
    let ops: [fn(&mut Memory); 4] =
        [|mem| clflush(mem, PA, 1), Memory::wbinvd, Memory::invd, |mem| mem.reset(x86::platform::ResetKind::Warm)];
    for op in ops {
        let mut mem = keyed();
        let at = via(&mem, PA, 1);
        let frame = touch(&mut mem, at, Access::Write);
        assert_eq!((frame.fast_r(), frame.fast_w()), (1, 1));
        op(&mut mem);
        assert_eq!((frame.fast_r(), frame.fast_w(), frame.resident()), (0, 0, 0));
    }
    let mut mem = keyed();
    let at = via(&mem, PA, 1);
    let frame = touch(&mut mem, at, Access::Write);
    mem.clwb(at);
    assert_eq!((frame.fast_r(), frame.fast_w()), (1, 0));
}

#[test]
fn a_second_keyid_vetoes_a_line_until_only_one_copy_remains() {
    let mut mem = keyed();
    let (one, two) = (via(&mem, PA, 1), via(&mem, PA, 2));
    let first = touch(&mut mem, one, Access::Write);
    touch(&mut mem, one.offset(64), Access::Write);
    let second = touch(&mut mem, two, Access::Read);
    assert_eq!((first.fast_r(), first.fast_w(), second.fast_r()), (2, 2, 0));
    touch(&mut mem, two, Access::Write);
    assert_eq!((first.fast_r(), second.fast_w()), (2, 0));
    mem.clflush(one);
    assert_eq!((first.fast_r(), second.fast_r(), second.fast_w()), (2, 1, 1));
    // A third copy comes and goes.
    let third = via(&mem, PA, 3);
    touch(&mut mem, third, Access::Read);
    assert_eq!(second.fast_r(), 0);
    mem.clflush(third);
    assert_eq!((second.fast_r(), second.fast_w()), (1, 1));
}

#[test]
fn with_fast_off_no_line_gets_fast_bits() {
    let mut mem = Memory::new(Config { fast: false, ..config() }).unwrap();
    let frame = touch(&mut mem, BusAddr(PA), Access::Write);
    assert_eq!((frame.resident(), frame.dirty(), frame.fast_r(), frame.fast_w()), (1, 1, 0, 0));
}

#[test]
fn a_store_to_decoded_code_is_slow_once_and_voids_it() {
    let mut mem = keyed();
    let at = via(&mem, PA, 1);
    let frame = touch(&mut mem, at, Access::Write);
    mem.set_code(frame, 0);
    assert_eq!((frame.exec_ok(), frame.code(), frame.fast_r(), frame.fast_w()), (1, 1, 1, 0));
    assert!(mem.touch(at, Access::Write, false).unwrap().code_hit);
    assert_eq!((frame.exec_ok(), frame.code(), frame.fast_w()), (0, 0, 1));
    assert_eq!(mem.take_code_hit(), Some(mem::CodeHit { frame, line: 0 }));
    assert!(!mem.touch(at, Access::Write, false).unwrap().code_hit);
}

#[test]
fn code_of_an_evicted_line_is_parked_until_the_core_vouches_for_it() {
    let mut mem = keyed();
    let at = via(&mem, PA, 1);
    let frame = touch(&mut mem, at, Access::Fetch);
    mem.set_code(frame, 0);
    mem.clflush(at);
    assert_eq!((frame.exec_ok(), frame.code()), (0, 1));
    assert_eq!(mem.frame_lookup(at), Some(frame));
    assert_eq!(touch(&mut mem, at, Access::Fetch), frame);
    assert_eq!((frame.exec_ok(), frame.code()), (0, 1));
    mem.set_code(frame, 0);
    assert_eq!(frame.exec_ok(), 1);
    // set_code of a line that is not resident parks it at once.
    mem.clflush(at);
    mem.set_code(frame, 0);
    assert_eq!((frame.exec_ok(), frame.code()), (0, 1));
    // A store to a parked line voids its code.
    assert!(mem.write(at, mem::MemType::Wb, false, &[0]));
    assert_eq!(frame.code(), 0);
}

#[test]
fn dma_and_the_loader_report_the_code_they_overwrite() {
    let mut mem = keyed();
    let at = via(&mem, PA, 0);
    let frame = touch(&mut mem, at, Access::Fetch);
    for line in [0, 1, 5] {
        mem.set_code(frame, line);
    }
    mem.dma_write(at.offset(32), &[0; 64]);
    assert!(mem.has_code_hits());
    let mut lines: Vec<u32> = std::iter::from_fn(|| mem.take_code_hit()).map(|hit| hit.line).collect();
    lines.sort_unstable();
    assert_eq!(lines, [0, 1]);
    assert_eq!(frame.code(), 1 << 5);
    // Another KeyID's code is not concerned.
    mem.dma_write(via(&mem, PA, 1), &[0; 4096]);
    assert!(!mem.has_code_hits());
}

#[test]
fn recycled_frames_are_reported_and_data_survives() {
    // More pages than the pool has frames; every page keeps its first line only.
    let pages: u64 = 24 * 1024;
    let mut mem = Memory::new(Config { ram_bytes: pages * 4096, ..Config::default() }).unwrap();
    assert!(activate(&mut mem, ACTIVATE_K6));
    let mut fast = supervisor();
    let mut retired = 0;
    for page in 0..pages {
        let at = via(&mem, page * 4096, 0);
        let frame = touch(&mut mem, at, Access::Write);
        frame.write(0, &page.to_le_bytes());
        while let Some(gone) = mem.take_retired() {
            retired += 1;
            fast.purge_frame(gone.frame);
            assert!(gone.code == 0 || gone.bus_page.0 < 100 * 4096);
        }
        fast.install(at.0, 0, frame);
        if page < 100 {
            mem.set_code(frame, 0);
        }
        assert_eq!(mem.frame_lookup(at), Some(frame));
        assert_eq!(fast.load_u64(at.0), Some(page));
    }
    assert!(retired > 3000, "{retired}");
    assert_eq!(mem.frames_recycled(), retired);
    for page in 0..pages {
        assert_eq!(load(&mut mem, page * 4096, 0)[..8], page.to_le_bytes());
    }
}

#[test]
fn frames_of_a_dropped_memory_miss() {
    let mut fast = supervisor();
    {
        let mut mem = keyed();
        let at = via(&mem, PA, 1);
        fast.install(VA, 0, touch(&mut mem, at, Access::Write));
        assert!(fast.load_u8(VA).is_some());
    }
    assert_eq!(fast.load_u8(VA), None);
    assert!(!fast.store_u8(VA, 0));
}
