//! What decoded code must notice: stores into it, other mappings of it, page tables that change under it, and where
//! instructions lie. Every test runs with and without the fast path, and in runs of several lengths, so that blocks are
//! cut and linked in several ways.

mod common;

use common::{PT, board_with, set};
use cpu::Cpu;
use cpu::run::Stop;
use cpu::state::slot::{RAX, RCX};
use mem::Config;

/// 4-KiB pages that are mapped one to one.
const CODE: u64 = 0x20_0000;
const OTHER: u64 = 0x22_0000;
/// Linear pages that the tests map.
const ALIAS: u64 = 0x24_0000;
const PRESENT_RW: u64 = 3;

const HLT: u8 = 0xF4;

/// Lengths of runs: one instruction, odd ones, and everything at once.
const CUTS: [u64; 5] = [1, 2, 3, 7, u64::MAX];

fn each(test: impl Fn(&mut Cpu, &dyn Fn(&mut Cpu, u64) -> u64)) {
    for fast in [true, false] {
        for cut in CUTS {
            let (mut cpu, _) = board_with(Config { ram_bytes: 4 << 20, fast, ..Config::default() });
            test(&mut cpu, &|cpu, rip| call(cpu, rip, cut));
        }
    }
}

fn put(cpu: &mut Cpu, at: u64, code: &[u8]) {
    cpu.write_linear(at, code).expect("the page is mapped");
}

/// Maps a linear page. INVLPG is the caller's.
fn map(cpu: &mut Cpu, linear: u64, entry: u64) {
    cpu.write_u64(PT + (linear >> 12 & 511) * 8, entry | PRESENT_RW).expect("page tables are mapped");
}

/// Runs from `rip` to HLT in runs of `cut` instructions; returns RAX.
fn call(cpu: &mut Cpu, rip: u64, cut: u64) -> u64 {
    cpu.activity = cpu::state::Activity::Running;
    cpu.set_rip(rip);
    for _ in 0..1000 {
        match cpu.run(cpu.icount().saturating_add(cut)) {
            Stop::HaltedDisabled => return cpu.regs[RAX as usize],
            Stop::Icount => {}
            stop => panic!("{stop:?} at {:#x}: {:?}", cpu.rip(), cpu.last_exception),
        }
    }
    panic!("no HLT in 1000 runs: RIP is {:#x}", cpu.rip());
}

/// MOV EAX, n
fn mov_eax(n: u8) -> [u8; 5] {
    [0xB8, n, 0, 0, 0]
}

#[test]
fn a_page_runs_on_into_what_is_mapped_behind_it_at_each_address() {
    each(|cpu, call| {
        // The end of one physical page, with two mappings that have different pages behind it.
        put(cpu, CODE + 0xFFE, &[0x90, 0x90]);
        put(cpu, CODE + 0x1000, &[&mov_eax(1)[..], &[HLT]].concat());
        put(cpu, OTHER, &[&mov_eax(2)[..], &[HLT]].concat());
        map(cpu, ALIAS, CODE);
        map(cpu, ALIAS + 0x1000, OTHER);
        for _ in 0..3 {
            assert_eq!(call(cpu, CODE + 0xFFE), 1);
            assert_eq!(call(cpu, ALIAS + 0xFFE), 2);
        }
        // The same with CALL rel32 into the page behind, and RET from there.
        let call_next = [0xE8, 0xFB, 0x0F, 0, 0, HLT];
        put(cpu, CODE, &call_next);
        put(cpu, CODE + 0x1000, &[&mov_eax(3)[..], &[0xC3]].concat());
        put(cpu, OTHER, &[&mov_eax(4)[..], &[0xC3]].concat());
        set(cpu, cpu::state::slot::RSP, 0x28_0000);
        for _ in 0..3 {
            assert_eq!(call(cpu, CODE), 3);
            assert_eq!(call(cpu, ALIAS), 4);
        }
    });
}

#[test]
fn a_return_goes_where_the_stack_says() {
    each(|cpu, call| {
        set(cpu, cpu::state::slot::RSP, 0x28_0000);
        // CALL f; MOV EAX, 1; HLT; f: ADD QWORD [RSP], RCX; RET
        let code = [&[0xE8, 6, 0, 0, 0][..], &mov_eax(1), &[HLT], &[0x48, 0x01, 0x0C, 0x24, 0xC3]].concat();
        put(cpu, CODE, &code);
        put(cpu, CODE + 0x100 + 5, &[&mov_eax(2)[..], &[HLT]].concat());
        for skip in [0, 0x100, 0, 0x100, 0x100, 0] {
            set(cpu, RCX, skip);
            assert_eq!(call(cpu, CODE), if skip == 0 { 1 } else { 2 });
        }
    });
}

#[test]
fn code_that_changes_the_next_instruction_executes_the_new_one() {
    each(|cpu, call| {
        // MOV BYTE [RIP + 1], CL; MOV EAX, 0 (its immediate is the byte stored to); HLT
        put(cpu, CODE, &[&[0x88, 0x0D, 1, 0, 0, 0][..], &mov_eax(0), &[HLT]].concat());
        for n in [5, 6, 6, 7] {
            set(cpu, RCX, n);
            assert_eq!(call(cpu, CODE), n);
        }
    });
}

#[test]
fn a_store_through_another_mapping_with_the_same_keyid_changes_the_code() {
    each(|cpu, call| {
        map(cpu, ALIAS, CODE);
        put(cpu, CODE, &[&mov_eax(1)[..], &[HLT]].concat());
        assert_eq!(call(cpu, CODE), 1);
        cpu.write_u8(ALIAS + 1, 2).expect("mapped");
        assert_eq!(call(cpu, CODE), 2);
    });
}

#[test]
fn an_instruction_may_lie_across_lines_and_pages() {
    each(|cpu, call| {
        for start in (CODE + 0x3C..CODE + 0x40).chain(CODE + 0xFFC..CODE + 0x1000) {
            put(cpu, start, &[&mov_eax(9)[..], &[HLT]].concat());
            assert_eq!(call(cpu, start), 9, "{start:#x}");
            // Its second part changes, then its second page.
            cpu.write_u8(start + 1, 8).expect("mapped");
            assert_eq!(call(cpu, start), 8, "{start:#x}");
        }
        put(cpu, CODE + 0xFFE, &[0xB8, 1]);
        put(cpu, CODE + 0x1000, &[0, 0, 0, HLT]);
        put(cpu, OTHER, &[1, 0, 0, HLT]);
        assert_eq!(call(cpu, CODE + 0xFFE), 1);
        map(cpu, CODE + 0x1000, OTHER);
        cpu.invalidate_page(CODE + 0x1000);
        assert_eq!(call(cpu, CODE + 0xFFE), 0x101);
    });
}

#[test]
fn a_single_step_ends_where_a_block_leads_on_to_the_next() {
    each(|cpu, call| {
        // The end of a line, decoded while the next line is not in the cache: a block of one instruction, linked on.
        put(cpu, CODE + 0x3F, &[0x90, 0x90, HLT]);
        for _ in 0..3 {
            cpu.mem.wbinvd();
            call(cpu, CODE + 0x3F);
        }
        call(cpu, CODE + 0x3F);
        cpu.activity = cpu::state::Activity::Running;
        cpu.set_rip(CODE + 0x3F);
        cpu.rflags_system |= x86::flags::TF;
        // No IDT: the trap ends in shutdown.
        assert_eq!(cpu.run(u64::MAX), Stop::TripleFault);
        assert_eq!(cpu.last_exception.map(|(_, rip)| rip), Some(CODE + 0x40));
    });
}

#[test]
fn changed_page_tables_count_from_the_flush_on() {
    each(|cpu, call| {
        put(cpu, CODE, &[&mov_eax(1)[..], &[HLT]].concat());
        put(cpu, OTHER, &[&mov_eax(2)[..], &[HLT]].concat());
        map(cpu, ALIAS, CODE);
        assert_eq!(call(cpu, ALIAS), 1);
        map(cpu, ALIAS, OTHER);
        assert_eq!(call(cpu, ALIAS), 1, "the TLB still has the old translation");
        cpu.invalidate_page(ALIAS);
        assert_eq!(call(cpu, ALIAS), 2);
        map(cpu, ALIAS, CODE);
        cpu.flush_tlb(true);
        assert_eq!(call(cpu, ALIAS), 1);
    });
}

#[test]
fn a_loop_that_unmaps_its_own_second_page_faults_there() {
    each(|cpu, _| {
        put(cpu, CODE + 0xFFF, &[0x90]);
        put(cpu, CODE + 0x1000, &[HLT]);
        map(cpu, CODE + 0x1000, CODE + 0x1000);
        for _ in 0..2 {
            cpu.activity = cpu::state::Activity::Running;
            cpu.set_rip(CODE + 0xFFF);
            assert_eq!(cpu.run(u64::MAX), Stop::HaltedDisabled);
        }
        cpu.write_u64(PT + 8 * ((CODE + 0x1000) >> 12 & 511), 0).expect("mapped");
        cpu.invalidate_page(CODE + 0x1000);
        cpu.activity = cpu::state::Activity::Running;
        cpu.set_rip(CODE + 0xFFF);
        // No IDT: the page fault ends in shutdown.
        assert_eq!(cpu.run(u64::MAX), Stop::TripleFault);
    });
}
