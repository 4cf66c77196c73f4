//! Fault hooks: MK-143 to MK-146 without a processor.

mod common;

use common::*;
use mem::{Event, KeyField, KeyId, Memory, PhysAddr, TweakFault, WritebackAction, WritebackFilter};

const PA: u64 = 0x1000;

#[test]
fn a_flipped_key_bit_garbles_and_flipping_it_back_repairs() {
    let mut mem = keyed();
    store(&mut mem, PA, 1, &ramp());
    clflush(&mut mem, PA, 1);
    for (field, bit) in [(KeyField::K1, 5), (KeyField::K2, 127), (KeyField::Alg, 0), (KeyField::Mode, 0)] {
        assert!(mem.keytable_flip(0, KeyId(1), field, bit));
        assert_ne!(load(&mut mem, PA, 1), ramp());
        clflush(&mut mem, PA, 1);
        assert!(mem.keytable_flip(0, KeyId(1), field, bit));
        assert_eq!(load(&mut mem, PA, 1), ramp());
        clflush(&mut mem, PA, 1);
    }
    assert!(!mem.keytable_flip(0, KeyId(1), KeyField::K1, 128));
    assert!(!mem.keytable_flip(0, KeyId(9), KeyField::K1, 0));
    assert!(!mem.keytable_flip(1, KeyId(1), KeyField::K1, 0));
}

#[test]
fn write_backs_are_dropped_only_where_the_filter_says_and_armed_faults_are_state() {
    let mut mem = keyed();
    let unarmed = state_hash(&mem);
    let line = PhysAddr(PA).line();
    mem.faults_mut();
    assert_eq!(state_hash(&mem), unarmed);
    let action = WritebackAction::Drop;
    mem.faults_mut().writeback_filter = Some(WritebackFilter { first: line, last: line, keyid: None, action });
    assert_ne!(state_hash(&mem), unarmed);
    for pa in [PA, PA + 64] {
        store(&mut mem, pa, 1, &ramp());
        clflush(&mut mem, pa, 1);
    }
    assert_eq!(raw(&mem, PA), [0; 64]);
    assert_eq!(load(&mut mem, PA + 64, 1), ramp());
}

#[test]
fn aliased_runs_and_lines_reach_the_same_cells_and_probes_are_not_aliased() {
    let mut mem = keyed();
    mem.faults_mut().dram_alias = Some(1 << 20);
    let run = [0x5A; 256];
    let alias = PA | 1 << 20;
    mem.dma_write(via(&mem, alias, 1), &run);
    assert_eq!(raw(&mem, alias), [0; 64]);
    assert_ne!(raw(&mem, PA), [0; 64]);
    assert_ne!(load(&mut mem, PA, 1), [0x5A; 64]);
    assert_eq!(load(&mut mem, alias + 192, 1), [0x5A; 64]);
}

#[test]
fn a_wrong_tweak_on_both_directions_is_invisible() {
    let mut mem = keyed();
    mem.faults_mut().tweak_fault = Some(TweakFault { xor_mask: 8, read: true, write: true });
    store(&mut mem, PA, 1, &ramp());
    clflush(&mut mem, PA, 1);
    assert_eq!(load(&mut mem, PA, 1), ramp());
    clflush(&mut mem, PA, 1);
    mem.clear_faults();
    assert_ne!(load(&mut mem, PA, 1), ramp());
}

/// The events so far; none remain.
fn events(mem: &mut Memory) -> Vec<Event> {
    std::iter::from_fn(|| mem.events_mut().take()).collect()
}

#[test]
fn every_fault_that_takes_effect_is_an_event_and_one_that_does_not_is_none() {
    let mut mem = keyed();
    mem.events_mut().enable(true);
    let (line, keyid) = (PhysAddr(PA).line(), KeyId(1));

    // Writes only, so that the fill of the line is no event.
    mem.faults_mut().tweak_fault = Some(TweakFault { xor_mask: 8, read: false, write: true });
    store(&mut mem, PA, 1, &ramp());
    assert_eq!(events(&mut mem), []);
    clflush(&mut mem, PA, 1);
    assert_eq!(events(&mut mem), [Event::TweakFault { line, write: true }]);

    mem.clear_faults();
    mem.faults_mut().dram_alias = Some(1 << 20);
    load(&mut mem, PA, 1);
    assert_eq!(events(&mut mem), [], "an address without the bit has its own cells");
    let aliased = PhysAddr(PA | 1 << 20).line();
    store(&mut mem, PA | 1 << 20, 1, &ramp());
    clflush(&mut mem, PA | 1 << 20, 1);
    assert_eq!(events(&mut mem), [false, true].map(|write| Event::DramAlias { line: aliased, cells: line, write }));

    mem.clear_faults();
    for action in [WritebackAction::Drop, WritebackAction::Duplicate, WritebackAction::Pass] {
        mem.faults_mut().writeback_filter = Some(WritebackFilter { first: line, last: line, keyid: None, action });
        store(&mut mem, PA, 1, &ramp());
        clflush(&mut mem, PA, 1);
        let expected = (action != WritebackAction::Pass).then_some(Event::WritebackFault { line, keyid, action });
        assert_eq!(events(&mut mem), Vec::from_iter(expected));
    }

    let (field, bit) = (KeyField::K2, 127);
    assert!(mem.keytable_flip(0, keyid, field, bit) && !mem.keytable_flip(0, KeyId(9), field, bit));
    assert_eq!(events(&mut mem), [Event::KeytableFlip { package: 0, keyid, field, bit }]);
}
