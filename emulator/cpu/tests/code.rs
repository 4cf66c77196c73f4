//! What decoded code must notice: stores into it, other mappings of it, page tables that change under it, and where
//! instructions lie. Every test runs in every mode of execution ([`common::every_mode`]) under every cache model. Pages
//! under two KeyIDs are in `aliases.rs`.

mod common;

use common::{Guest, PRESENT_RW, assemble, every_mode_and_cache, pt_entry, set};
use cpu::mmu::FlushKind;
use cpu::run::Stop;
use cpu::state::slot::{RAX, RBX, RCX, RDI, RSP};
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use mem::BusAddr;

/// 4-KiB pages that are mapped one to one.
const CODE: u64 = 0x20_0000;
const OTHER: u64 = 0x22_0000;
/// Linear pages that the tests map.
const ALIAS: u64 = 0x24_0000;
const STACK: u64 = 0x28_0000;
const HANDLER: u64 = 0x2A_0000;

const HLT: u8 = 0xF4;
const RET: u8 = 0xC3;
const NO_EXECUTE: u64 = 1 << 63;
/// Bits of a page fault's error code (SDM Vol. 3A, figure 4-12): P, I/D.
const PRESENT: u64 = 1;
const FETCH: u64 = 1 << 4;
/// Registers by number.
const R8: u8 = 8;
const R9: u8 = 9;
const R10: u8 = 10;
const R11: u8 = 11;
const R12: u8 = 12;
const R13: u8 = 13;
/// Vector of #PF.
const PAGE_FAULT: u8 = 14;

/// MOV EAX, n
fn mov_eax(n: u8) -> [u8; 5] {
    [0xB8, n, 0, 0, 0]
}

#[test]
fn a_page_runs_on_into_what_is_mapped_behind_it_at_each_address() {
    every_mode_and_cache(|guest| {
        // The end of one physical page, with two mappings that have different pages behind it.
        guest.put(CODE + 0xFFE, &[0x90, 0x90]);
        guest.put(CODE + 0x1000, &[&mov_eax(1)[..], &[HLT]].concat());
        guest.put(OTHER, &[&mov_eax(2)[..], &[HLT]].concat());
        guest.map(ALIAS, CODE);
        guest.map(ALIAS + 0x1000, OTHER);
        for _ in 0..3 {
            assert_eq!(guest.call(CODE + 0xFFE), 1);
            assert_eq!(guest.call(ALIAS + 0xFFE), 2);
        }
        // The same with CALL rel32 into the page behind, and RET from there.
        let call_next = [0xE8, 0xFB, 0x0F, 0, 0, HLT];
        guest.put(CODE, &call_next);
        guest.put(CODE + 0x1000, &[&mov_eax(3)[..], &[0xC3]].concat());
        guest.put(OTHER, &[&mov_eax(4)[..], &[0xC3]].concat());
        set(&mut guest.cpu, RSP, STACK);
        for _ in 0..3 {
            assert_eq!(guest.call(CODE), 3);
            assert_eq!(guest.call(ALIAS), 4);
        }
    });
}

#[test]
fn a_return_goes_where_the_stack_says() {
    every_mode_and_cache(|guest| {
        set(&mut guest.cpu, RSP, STACK);
        // CALL f; MOV EAX, 1; HLT; f: ADD QWORD [RSP], RCX; RET
        let code = [&[0xE8, 6, 0, 0, 0][..], &mov_eax(1), &[HLT], &[0x48, 0x01, 0x0C, 0x24, 0xC3]].concat();
        guest.put(CODE, &code);
        guest.put(CODE + 0x100 + 5, &[&mov_eax(2)[..], &[HLT]].concat());
        for skip in [0, 0x100, 0, 0x100, 0x100, 0] {
            set(&mut guest.cpu, RCX, skip);
            assert_eq!(guest.call(CODE), if skip == 0 { 1 } else { 2 });
        }
    });
}

#[test]
fn code_that_changes_the_next_instruction_executes_the_new_one() {
    every_mode_and_cache(|guest| {
        // MOV BYTE [RIP + 1], CL; MOV EAX, 0 (its immediate is the byte stored to); HLT
        guest.put(CODE, &[&[0x88, 0x0D, 1, 0, 0, 0][..], &mov_eax(0), &[HLT]].concat());
        for n in [5, 6, 6, 7] {
            set(&mut guest.cpu, RCX, n);
            assert_eq!(guest.call(CODE), n);
        }
    });
}

#[test]
fn a_store_through_another_mapping_with_the_same_keyid_changes_the_code() {
    every_mode_and_cache(|guest| {
        guest.map(ALIAS, CODE);
        guest.put(CODE, &[&mov_eax(1)[..], &[HLT]].concat());
        assert_eq!(guest.call(CODE), 1);
        guest.cpu.write_u8(ALIAS + 1, 2).expect("mapped");
        assert_eq!(guest.call(CODE), 2);
    });
}

#[test]
fn an_instruction_may_lie_across_lines_and_pages() {
    every_mode_and_cache(|guest| {
        for start in (CODE + 0x3C..CODE + 0x40).chain(CODE + 0xFFC..CODE + 0x1000) {
            guest.put(start, &[&mov_eax(9)[..], &[HLT]].concat());
            assert_eq!(guest.call(start), 9, "{start:#x}");
            // Its second part changes, then its second page.
            guest.cpu.write_u8(start + 1, 8).expect("mapped");
            assert_eq!(guest.call(start), 8, "{start:#x}");
        }
        guest.put(CODE + 0xFFE, &[0xB8, 1]);
        guest.put(CODE + 0x1000, &[0, 0, 0, HLT]);
        guest.put(OTHER, &[1, 0, 0, HLT]);
        assert_eq!(guest.call(CODE + 0xFFE), 1);
        guest.map(CODE + 0x1000, OTHER);
        guest.cpu.invalidate_page(CODE + 0x1000);
        assert_eq!(guest.call(CODE + 0xFFE), 0x101);
    });
}

#[test]
fn a_new_block_that_runs_into_a_line_does_not_revive_what_was_decoded_from_its_old_bytes() {
    every_mode_and_cache(|guest| {
        guest.put(CODE + 0x3F, &[&[0x90][..], &mov_eax(1), &[HLT]].concat());
        assert_eq!(guest.call(CODE + 0x40), 1);
        // The line leaves the cache, and its cells change without anybody being told.
        guest.cpu.flush_line(CODE + 0x40, FlushKind::Clflush).expect("mapped");
        let line = mem::PhysAddr(CODE + 0x40).line();
        let mut cells = guest.cpu.mem.dram_read_raw(line);
        cells.0[..5].copy_from_slice(&mov_eax(2));
        guest.cpu.mem.dram_write_raw(line, &cells);
        // A load brings it back, which compares no code; then a block of the line before goes on into it.
        guest.cpu.read_u8(CODE + 0x40).expect("mapped");
        assert_eq!(guest.call(CODE + 0x3F), 2);
        assert_eq!(guest.call(CODE + 0x40), 2);
    });
}

#[test]
fn the_rest_of_a_fetched_line_is_executed_after_the_line_has_left_the_cache() {
    every_mode_and_cache(|guest| {
        // WBINVD; MOV EAX, 5; HLT, in one line: however runs are cut, the line is fetched once and then not resident.
        guest.put(CODE, &[&[0x0F, 0x09][..], &mov_eax(5), &[HLT]].concat());
        for _ in 0..3 {
            assert_eq!(guest.call(CODE), 5);
            assert!(!guest.cpu.mem.line_resident(mem::BusAddr(CODE)));
        }
    });
}

#[test]
fn a_single_step_ends_where_a_block_leads_on_to_the_next() {
    every_mode_and_cache(|guest| {
        // The end of a line, decoded while the next line is not in the cache: a block of one instruction, linked on.
        guest.put(CODE + 0x3F, &[0x90, 0x90, HLT]);
        for _ in 0..3 {
            guest.cpu.mem.wbinvd();
            guest.call(CODE + 0x3F);
        }
        guest.call(CODE + 0x3F);
        guest.cpu.rflags_system |= x86::flags::TF;
        // No IDT: the trap ends in shutdown.
        assert_eq!(guest.run(CODE + 0x3F, u64::MAX), Stop::TripleFault);
        assert_eq!(guest.cpu.last_exception.map(|(_, rip)| rip), Some(CODE + 0x40));
    });
}

#[test]
fn changed_page_tables_count_from_the_flush_on() {
    every_mode_and_cache(|guest| {
        guest.put(CODE, &[&mov_eax(1)[..], &[HLT]].concat());
        guest.put(OTHER, &[&mov_eax(2)[..], &[HLT]].concat());
        guest.map(ALIAS, CODE);
        assert_eq!(guest.call(ALIAS), 1);
        guest.map(ALIAS, OTHER);
        assert_eq!(guest.call(ALIAS), 1, "the TLB still has the old translation");
        guest.cpu.invalidate_page(ALIAS);
        assert_eq!(guest.call(ALIAS), 2);
        guest.map(ALIAS, CODE);
        guest.cpu.flush_tlb(true);
        assert_eq!(guest.call(ALIAS), 1);
    });
}

#[test]
fn a_loop_that_unmaps_its_own_second_page_faults_there() {
    every_mode_and_cache(|guest| {
        guest.put(CODE + 0xFFF, &[0x90]);
        guest.put(CODE + 0x1000, &[HLT]);
        guest.map(CODE + 0x1000, CODE + 0x1000);
        for _ in 0..2 {
            assert_eq!(guest.run(CODE + 0xFFF, 10), Stop::HaltedDisabled);
        }
        guest.cpu.write_u64(pt_entry(CODE + 0x1000), 0).expect("mapped");
        guest.cpu.invalidate_page(CODE + 0x1000);
        // No IDT: the page fault ends in shutdown.
        assert_eq!(guest.run(CODE + 0xFFF, 10), Stop::TripleFault);
    });
}

/// Lets #PF do this: R8 = CR2, R9 = the error code, R10 = the RIP pushed, R11 += 1, \[R13\] = R12; and IRET.
fn repair_page_faults(guest: &mut Guest) {
    let handler = assemble(HANDLER, |a| {
        a.mov(r8, cr2)?;
        a.pop(r9)?;
        a.mov(r10, ptr(rsp))?;
        a.inc(r11)?;
        a.mov(ptr(r13), r12)?;
        a.iretq()
    });
    guest.put(HANDLER, &handler);
    guest.set_gate(PAGE_FAULT, HANDLER);
    set(&mut guest.cpu, RSP, STACK);
}

fn registers(guest: &Guest, slots: [u8; 4]) -> [u64; 4] {
    slots.map(|slot| guest.cpu.regs[slot as usize])
}

#[test]
fn an_instruction_whose_second_page_is_missing_faults_there_and_starts_again() {
    every_mode_and_cache(|guest| {
        repair_page_faults(guest);
        let (first, second) = (ALIAS, ALIAS + 0x1000);
        let (present, no_execute) = (OTHER | PRESENT_RW, OTHER | PRESENT_RW | NO_EXECUTE);
        guest.map(first, CODE);
        set(&mut guest.cpu, R12, present);
        set(&mut guest.cpu, R13, pt_entry(second));
        for in_first in 1..=4 {
            let start = first + 0x1000 - in_first;
            let code = [&mov_eax(9)[..], &[HLT]].concat();
            let (head, tail) = code.split_at(in_first as usize);
            guest.put(start, head);
            guest.put(OTHER, tail);
            for (entry, error) in [(0, FETCH), (no_execute, FETCH | PRESENT)] {
                for round in 0..3 {
                    // The second time, a block that leads across is known.
                    guest.cpu.write_u64(pt_entry(second), entry).expect("mapped");
                    guest.cpu.invalidate_page(second);
                    set(&mut guest.cpu, R11, 0);
                    assert_eq!(guest.call(start), 9);
                    assert_eq!(registers(guest, [R8, R9, R10, R11]), [second, error, start, 1], "{start:#x}, {round}");
                    // Present now.
                    assert_eq!(guest.call(start), 9);
                    assert_eq!(registers(guest, [R8, R9, R10, R11]), [second, error, start, 1]);
                    // Missing again, but the TLB does not know.
                    guest.cpu.write_u64(pt_entry(second), entry).expect("mapped");
                    assert_eq!(guest.call(start), 9);
                    assert_eq!(registers(guest, [R8, R9, R10, R11]), [second, error, start, 1]);
                }
            }
        }
    });
}

#[test]
fn a_guest_that_remaps_code_executes_the_new_code_from_its_flush_on() {
    every_mode_and_cache(|guest| {
        set(&mut guest.cpu, RSP, STACK);
        for (page, n) in [(OTHER, 1), (OTHER + 0x1000, 2)] {
            guest.put(page, &[&mov_eax(n)[..], &[RET]].concat());
        }
        guest.map(ALIAS, OTHER);
        guest.cpu.invalidate_page(ALIAS);
        let entries = [OTHER, OTHER + 0x1000].map(|page| page | PRESENT_RW);
        // Collects what each call of ALIAS returns in R15, four bits for each.
        let code = assemble(CODE, |a| {
            let collect = |a: &mut CodeAssembler| -> Result<(), IcedError> {
                a.call(ALIAS)?;
                a.shl(r15, 4)?;
                a.or(r15, rax)
            };
            let mut again = a.create_label();
            a.mov(ecx, 3)?;
            a.mov(ebx, pt_entry(ALIAS) as u32)?;
            a.set_label(&mut again)?;
            a.xor(r15d, r15d)?;
            collect(a)?;
            a.mov(rdx, entries[1])?;
            a.mov(ptr(rbx), rdx)?;
            collect(a)?;
            a.invlpg(ptr(ALIAS))?;
            collect(a)?;
            a.mov(rdx, entries[0])?;
            a.mov(ptr(rbx), rdx)?;
            collect(a)?;
            a.mov(rax, cr3)?;
            a.mov(cr3, rax)?;
            collect(a)?;
            a.dec(ecx)?;
            a.jnz(again)?;
            a.mov(rax, r15)?;
            a.hlt()
        });
        guest.put(CODE, &code);
        assert_eq!(guest.call(CODE), 0x1_1221);
    });
}

#[test]
fn code_that_remaps_or_unmaps_its_own_page_goes_on_in_it_until_invlpg() {
    every_mode_and_cache(|guest| {
        repair_page_faults(guest);
        // Two pages that differ in one number; which of them is mapped changes on the way.
        let code = |n: u32, entry: u64| {
            assemble(ALIAS, |a| {
                a.mov(rdx, entry)?;
                a.mov(ebx, pt_entry(ALIAS) as u32)?;
                a.mov(ptr(rbx), rdx)?;
                a.mov(eax, n)?;
                a.invlpg(ptr(ALIAS))?;
                a.shl(eax, 4)?;
                a.add(eax, n)?;
                a.hlt()
            })
        };
        let tail = assemble(0, |a| {
            a.shl(eax, 4)?;
            a.add(eax, 1)?;
            a.hlt()
        });
        for _ in 0..3 {
            for entry in [(OTHER + 0x1000) | PRESENT_RW, 0] {
                guest.put(OTHER, &code(1, entry));
                guest.put(OTHER + 0x1000, &code(2, entry));
                guest.map(ALIAS, OTHER);
                guest.cpu.invalidate_page(ALIAS);
                set(&mut guest.cpu, R11, 0);
                set(&mut guest.cpu, R12, (OTHER + 0x1000) | PRESENT_RW);
                set(&mut guest.cpu, R13, pt_entry(ALIAS));
                assert_eq!(guest.call(ALIAS), 0x12);
                let faults = registers(guest, [R8, R9, R10, R11]);
                if entry == 0 {
                    let behind = ALIAS + (code(1, entry).len() - tail.len()) as u64;
                    assert_eq!(faults, [behind, FETCH, behind, 1]);
                } else {
                    assert_eq!(faults[3], 0);
                }
            }
        }
    });
}

#[test]
fn a_string_store_that_overwrites_the_code_behind_it_executes_the_new_code() {
    every_mode_and_cache(|guest| {
        // REP STOSB of NOPs over the rest of this line, the next two and a part of a fourth; there, MOV EAX, 6; HLT.
        for start in [CODE, CODE + 0x33, CODE + 0xFC0] {
            let code = assemble(start, |a| {
                a.rep().stosb()?;
                a.mov(ebx, 1)?;
                a.hlt()
            });
            let end = start + 200;
            guest.put(start, &code);
            guest.put(end, &[&mov_eax(6)[..], &[HLT]].concat());
            for _ in 0..3 {
                guest.put(start, &code);
                let behind = start + 2;
                for (slot, value) in [(RAX, 0x90), (RBX, 0), (RCX, end - behind), (RDI, behind)] {
                    set(&mut guest.cpu, slot, value);
                }
                assert_eq!(guest.call(start), 6);
                assert_eq!(guest.cpu.regs[RBX as usize], 0);
            }
        }
    });
}

#[test]
fn a_device_that_writes_code_changes_what_the_running_loop_executes() {
    every_mode_and_cache(|guest| {
        // again: MOV EAX, 1; INC RCX; CMP EAX, 1; JE again; HLT
        let code = assemble(CODE, |a| {
            let mut again = a.create_label();
            a.set_label(&mut again)?;
            a.mov(eax, 1)?;
            a.inc(rcx)?;
            a.cmp(eax, 1)?;
            a.je(again)?;
            a.hlt()
        });
        guest.put(CODE, &code);
        let mut counts = Vec::new();
        for n in [2, 3] {
            guest.put(CODE + 1, &[1]);
            set(&mut guest.cpu, RCX, 0);
            // In the middle of a round: the instructions behind it are of the same line, and changed as well.
            let when = guest.cpu.clock.at(guest.cpu.icount() + 1001 + n);
            guest.board.0.borrow_mut().dma.push_back((when, BusAddr(CODE + 1), vec![n as u8]));
            assert_eq!(guest.call(CODE), n);
            counts.push(guest.cpu.regs[RCX as usize]);
        }
        assert!(counts.iter().all(|count| (250..=252).contains(count)), "{counts:?}");
        counts
    });
}
