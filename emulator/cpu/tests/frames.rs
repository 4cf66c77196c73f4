//! What functions begin and end with, PUSHes, MOVs between them, POPs and RET, which the processor executes together where it
//! can: over every end of a line and a page, with a stack that is not aligned, and into pages that are missing. And blocks that
//! go on behind a conditional branch and in another line. Every test runs in every mode of execution and cache model.

mod common;

use common::{Guest, LAST_MAPPED, PRESENT_RW, UNMAPPED, assemble, every_mode_and_cache, pt_entry, set};
use cpu::run::Stop;
use cpu::state::slot::{RAX, RBP, RBX, RCX, RDI, RDX, RSI, RSP};
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use x86::flags;

/// 4-KiB pages that are mapped one to one.
const CODE: u64 = 0x20_0000;
const OTHER: u64 = 0x22_0000;
const STACK: u64 = 0x28_0000;
const HANDLER: u64 = 0x2A_0000;
/// A linear page that a test maps.
const ALIAS: u64 = 0x24_0000;
/// Registers by number.
const R12: u8 = 12;
const R13: u8 = 13;
const R14: u8 = 14;
const R15: u8 = 15;
/// Vector of #PF.
const PAGE_FAULT: u8 = 14;

/// A function that begins and ends as compilers make them, called once; RAX is what it has seen.
fn caller_and_function(guest: &mut Guest) {
    let code = assemble(CODE, |a| {
        let mut function = a.create_label();
        a.call(function)?;
        a.hlt()?;
        a.set_label(&mut function)?;
        a.push(r15)?;
        a.mov(r15, rdi)?;
        a.push(r14)?;
        a.push(r13)?;
        a.mov(r13, rsp)?;
        a.mov(r14, rsi)?;
        a.push(r12)?;
        a.push(rbp)?;
        a.mov(rbp, rsp)?;
        a.push(rbx)?;
        a.push(rsp)?;
        a.lea(rax, r15 + r14)?;
        a.sub(rax, r13)?;
        a.add(rax, rbp)?;
        a.pop(rcx)?;
        a.pop(rbx)?;
        a.pop(rbp)?;
        a.pop(r12)?;
        a.pop(r13)?;
        a.pop(r14)?;
        a.pop(r15)?;
        a.ret()
    });
    guest.put(CODE, &code);
}

const SAVED: [u8; 6] = [RBX, RBP, R12, R13, R14, R15];

fn set_saved(guest: &mut Guest) {
    for (n, register) in (1..).zip(SAVED) {
        set(&mut guest.cpu, register, n * 0x0101_0101_0101_0101);
    }
    set(&mut guest.cpu, RDI, 1 << 40);
    set(&mut guest.cpu, RSI, 1 << 41);
}

fn assert_saved(guest: &Guest, at: u64) {
    for (n, register) in (1..).zip(SAVED) {
        assert_eq!(
            guest.cpu.regs[usize::from(register)],
            n * 0x0101_0101_0101_0101,
            "register {register}, RSP {at:#x}"
        );
    }
}

#[test]
fn functions_save_and_restore_wherever_the_stack_is() {
    every_mode_and_cache(|guest| {
        caller_and_function(guest);
        let aligned = (0..20).map(|n| STACK + 0x1000 + 8 * n);
        let unaligned = [STACK + 0x1001, STACK + 0x103C, STACK + 0x1047];
        for stack in aligned.chain(unaligned) {
            // Twice: once over lines that may not be dirty yet.
            for _ in 0..2 {
                set_saved(guest);
                set(&mut guest.cpu, RSP, stack);
                // R13 is read after three PUSHes, RBP after five.
                assert_eq!(guest.call(CODE), (1 << 40 | 1 << 41) - 16, "RSP {stack:#x}");
                assert_eq!(guest.cpu.regs[usize::from(RSP)], stack);
                // PUSH RSP stores RSP from before: behind the return address and six registers.
                assert_eq!(guest.cpu.regs[usize::from(RCX)], stack - 56);
                assert_saved(guest, stack);
            }
        }
    });
}

#[test]
fn a_frame_that_goes_on_in_a_missing_page_faults_at_the_instruction_that_needs_it() {
    every_mode_and_cache(|guest| {
        guest.put(HANDLER, &[0xF4]);
        guest.set_gate(PAGE_FAULT, HANDLER);
        caller_and_function(guest);
        guest.map(UNMAPPED + 0x1000, LAST_MAPPED);
        // The page below is missing: what is stored above it stays stored, and RSP is that of the instruction that faults.
        for quadwords in 0..8 {
            set_saved(guest);
            set(&mut guest.cpu, RSP, UNMAPPED + 0x1000 + 8 * quadwords);
            let before = guest.cpu.icount();
            // The handler's frame has nowhere to go, nor has that of the double fault.
            assert_eq!(guest.run(CODE, 1000), Stop::TripleFault);
            assert_eq!(guest.cpu.regs[usize::from(RSP)], UNMAPPED + 0x1000, "{quadwords}");
            // CALL, PUSH, MOV, PUSH, PUSH, MOV, MOV, PUSH, PUSH, MOV, PUSH, PUSH
            let executed = [0, 1, 3, 4, 7, 8, 10, 11][quadwords as usize];
            assert_eq!(guest.cpu.icount() - before, executed, "{quadwords}");
        }
        // The page above is missing.
        let pops = assemble(OTHER, |a| {
            a.pop(rbx)?;
            a.pop(rbp)?;
            a.pop(r12)?;
            a.pop(r13)?;
            a.ret()
        });
        guest.put(OTHER, &pops);
        for quadwords in 0..5 {
            set_saved(guest);
            let stack = UNMAPPED - 8 * quadwords;
            for n in 0..quadwords {
                guest.put(stack + 8 * n, &(0xA0 + n).to_le_bytes());
            }
            set(&mut guest.cpu, RSP, stack);
            assert_eq!(guest.run(OTHER, 1000), Stop::HaltedDisabled);
            assert_eq!(guest.cpu.cr2, UNMAPPED);
            for (n, register) in (0..).zip([RBX, RBP, R12, R13]) {
                let loaded = guest.cpu.regs[usize::from(register)] == 0xA0 + n;
                assert_eq!(loaded, n < quadwords, "register {register}, {quadwords} quadwords");
            }
        }
    });
}

/// As compilers make a function with room on the stack: what RAX and the flags become says what it has seen.
fn function_with_locals(guest: &mut Guest, before_pops: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) {
    let code = assemble(CODE, |a| {
        let mut function = a.create_label();
        a.call(function)?;
        a.pushfq()?;
        a.pop(rdx)?;
        a.hlt()?;
        a.set_label(&mut function)?;
        a.push(rbp)?;
        a.mov(ebp, esi)?;
        a.push(rbx)?;
        a.mov(rbx, rdi)?;
        a.mov(r8d, r8d)?;
        a.sub(rsp, 0x28)?;
        a.pushfq()?;
        a.pop(rcx)?;
        a.mov(qword_ptr(rsp + 8), rbp)?;
        a.add(rbx, qword_ptr(rsp + 8))?;
        a.lea(r9, qword_ptr(rsp))?;
        before_pops(a)?;
        a.pop(rbx)?;
        a.pop(rbp)?;
        a.ret()
    });
    guest.put(CODE, &code);
}

#[test]
fn functions_make_room_and_give_it_back_wherever_the_stack_is() {
    type Before = fn(&mut CodeAssembler) -> Result<(), IcedError>;
    // What stands right before the POPs, and whether its flags are those of the ADD.
    let ends: [(Before, bool); 3] = [
        (
            |a| {
                a.mov(rax, rbx)?;
                a.add(rsp, 0x28)
            },
            true,
        ),
        (
            |a| {
                a.add(rsp, 0x28)?;
                a.mov(rax, rbx)
            },
            true,
        ),
        (
            |a| {
                a.lea(rsp, qword_ptr(rsp + 0x28))?;
                a.mov(eax, ebx)
            },
            false,
        ),
    ];
    every_mode_and_cache(|guest| {
        let mut seen = Vec::new();
        for (n, (before, sets_flags)) in ends.into_iter().enumerate() {
            function_with_locals(guest, before);
            for stack in (0..20).map(|n| STACK + 0x1000 + 8 * n).chain([STACK + 0x1001, STACK + 0x103C]) {
                for _ in 0..2 {
                    set_saved(guest);
                    set(&mut guest.cpu, RSP, stack);
                    set(&mut guest.cpu, 8, u64::MAX);
                    set(&mut guest.cpu, RSI, 0xFFFF_FFFF_0000_0007);
                    // MOV EBP, ESI clears the upper half.
                    let sum = (1 << 40) + 7;
                    assert_eq!(guest.call(CODE), if n == 2 { sum & 0xFFFF_FFFF } else { sum }, "{n}, RSP {stack:#x}");
                    assert_eq!(guest.cpu.regs[usize::from(RSP)], stack);
                    assert_eq!(guest.cpu.regs[8], 0xFFFF_FFFF);
                    assert_eq!(guest.cpu.regs[9], stack - 8 - 16 - 0x28);
                    assert_saved(guest, stack);
                    // SUB RSP, 28H sets the flags by RSP, and so does what gives the room back.
                    let [after_sub, after] = [RCX, RDX].map(|r| guest.cpu.regs[usize::from(r)] & flags::ARITH);
                    assert_eq!(after_sub & flags::PF != 0, parity((stack - 24 - 0x28) as u8), "RSP {stack:#x}");
                    if sets_flags {
                        assert_eq!(after & flags::PF != 0, parity((stack - 24) as u8), "{n}, RSP {stack:#x}");
                    }
                    seen.push((after_sub, after));
                }
            }
        }
        seen
    });
}

/// PF of a result.
fn parity(low: u8) -> bool {
    low.count_ones().is_multiple_of(2)
}

#[test]
fn room_that_ends_in_a_missing_page_is_made_before_the_fault() {
    every_mode_and_cache(|guest| {
        guest.put(HANDLER, &[0xF4]);
        guest.set_gate(PAGE_FAULT, HANDLER);
        // PUSHes into the page below; then POPs from a page above, behind ADD RSP.
        let code = assemble(CODE, |a| {
            a.push(rbx)?;
            a.mov(ecx, edi)?;
            a.push(rbp)?;
            a.sub(rsp, 0x40)?;
            a.hlt()
        });
        guest.put(CODE, &code);
        guest.map(UNMAPPED + 0x1000, LAST_MAPPED);
        for quadwords in 0..3 {
            set_saved(guest);
            set(&mut guest.cpu, RCX, 0);
            set(&mut guest.cpu, RDI, 5);
            set(&mut guest.cpu, RSP, UNMAPPED + 0x1000 + 8 * quadwords);
            let stop = guest.run(CODE, 1000);
            let moved = guest.cpu.regs[usize::from(RCX)] != 0;
            let stack = guest.cpu.regs[usize::from(RSP)];
            match quadwords {
                0 => assert_eq!((stop, moved, stack), (Stop::TripleFault, false, UNMAPPED + 0x1000)),
                1 => assert_eq!((stop, moved, stack), (Stop::TripleFault, true, UNMAPPED + 0x1000)),
                _ => assert_eq!((stop, moved, stack), (Stop::HaltedDisabled, true, UNMAPPED + 0x1000 - 0x40)),
            }
        }
        let code = assemble(OTHER, |a| {
            a.add(rsp, 0x20)?;
            a.pop(rbx)?;
            a.pop(rbp)?;
            a.ret()
        });
        guest.put(OTHER, &code);
        for quadwords in 0..3 {
            set_saved(guest);
            let stack = UNMAPPED - 8 * quadwords;
            for n in 0..quadwords {
                guest.put(stack + 8 * n, &(0xA0 + n).to_le_bytes());
            }
            set(&mut guest.cpu, RSP, stack - 0x20);
            assert_eq!(guest.run(OTHER, 1000), Stop::HaltedDisabled);
            assert_eq!(guest.cpu.cr2, UNMAPPED);
            for (n, register) in (0..).zip([RBX, RBP]) {
                let loaded = guest.cpu.regs[usize::from(register)] == 0xA0 + n;
                assert_eq!(loaded, n < quadwords, "register {register}, {quadwords} quadwords");
            }
        }
    });
}

#[test]
fn what_moves_the_stack_is_executed_alone() {
    every_mode_and_cache(|guest| {
        let code = assemble(CODE, |a| {
            a.push(rbx)?;
            a.push(rbp)?;
            a.mov(rsp, rdi)?;
            a.push(rsi)?;
            a.push(rdi)?;
            a.pop(rsp)?;
            a.pop(rax)?;
            a.pop(rdx)?;
            a.hlt()
        });
        guest.put(CODE, &code);
        for other in [STACK + 0x800, STACK + 0x7C8] {
            set_saved(guest);
            guest.put(other, &[7, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0]);
            set(&mut guest.cpu, RDI, other);
            set(&mut guest.cpu, RSI, 5);
            for _ in 0..2 {
                set(&mut guest.cpu, RSP, STACK + 0x1010);
                assert_eq!(guest.call(CODE), 7);
                assert_eq!(guest.cpu.regs[usize::from(RDX)], 8);
                assert_eq!(guest.cpu.regs[usize::from(RSP)], other + 16);
            }
        }
    });
}

#[test]
fn a_return_that_the_callee_redirects_goes_there_with_the_registers_restored() {
    every_mode_and_cache(|guest| {
        let elsewhere = OTHER;
        guest.put(
            elsewhere,
            &assemble(elsewhere, |a| {
                a.lea(rax, rbx + rbp)?;
                a.hlt()
            }),
        );
        let code = assemble(CODE, |a| {
            let mut function = a.create_label();
            a.call(function)?;
            a.mov(eax, 1u32)?;
            a.hlt()?;
            a.set_label(&mut function)?;
            a.push(rbx)?;
            a.push(rbp)?;
            a.add(qword_ptr(rsp + 16), rcx)?;
            a.pop(rbp)?;
            a.pop(rbx)?;
            a.ret()
        });
        guest.put(CODE, &code);
        set_saved(guest);
        let sum = 3 * 0x0101_0101_0101_0101;
        for distance in [0, elsewhere - CODE - 5, 0, elsewhere - CODE - 5] {
            set(&mut guest.cpu, RSP, STACK + 0x1000);
            set(&mut guest.cpu, RCX, distance);
            assert_eq!(guest.call(CODE), if distance == 0 { 1 } else { sum });
            assert_eq!(guest.cpu.regs[usize::from(RSP)], STACK + 0x1000);
        }
    });
}

#[test]
fn a_line_that_leaves_the_cache_under_a_block_is_fetched_when_it_is_reached() {
    every_mode_and_cache(|guest| {
        // The second line is flushed from the first, and may not be reached.
        let second = CODE + 0x40;
        let first = assemble(CODE + 0x20, |a| {
            a.test(rcx, rcx)?;
            let mut on = a.create_label();
            a.jz(on)?;
            a.clflush(byte_ptr(rdi))?;
            a.set_label(&mut on)?;
            a.mov(eax, 1u32)?;
            a.test(rdx, rdx)?;
            let mut out = a.create_label();
            a.jz(out)?;
            a.jmp(second)?;
            a.set_label(&mut out)?;
            a.hlt()
        });
        assert!(first.len() <= 0x20, "in one line");
        guest.put(CODE + 0x20, &first);
        guest.put(
            second,
            &assemble(second, |a| {
                a.add(eax, 2)?;
                a.hlt()
            }),
        );
        // Straight on into the second line.
        let straight = CODE + 0x140 - 12;
        let over = assemble(straight, |a| {
            a.clflush(byte_ptr(rsi))?;
            a.test(rcx, rcx)?;
            let mut on = a.create_label();
            a.jz(on)?;
            a.set_label(&mut on)?;
            a.mov(eax, 4u32)?;
            a.add(eax, 2)?;
            a.hlt()
        });
        guest.put(straight, &over);
        set(&mut guest.cpu, RDI, second);
        set(&mut guest.cpu, RSI, CODE + 0x140);
        for bits in [0, 1, 3, 2, 3, 3, 1, 0, 2, 3] {
            set(&mut guest.cpu, RCX, bits & 1);
            set(&mut guest.cpu, RDX, bits & 2);
            assert_eq!(guest.call(CODE + 0x20), if bits & 2 == 0 { 1 } else { 3 });
            assert_eq!(guest.call(straight), 6);
        }
    });
}

#[test]
fn a_branch_across_pages_stays_in_the_page_that_it_is_in_now() {
    every_mode_and_cache(|guest| {
        // JMP rel32 with its bytes in two pages, to the beginning of the first.
        let at = ALIAS + 0xFFE;
        let jump = assemble(at, |a| a.jmp(ALIAS + 0x100));
        let jump = [&jump[..], &[0x90; 5]].concat();
        assert_eq!(jump[0], 0xE9);
        for (page, n) in [(CODE, 1), (OTHER, 2)] {
            guest.put(page + 0xFFE, &jump[..2]);
            guest.put(page + 0x100, &[0xB8, n, 0, 0, 0, 0xF4]);
        }
        guest.put(STACK, &jump[2..]);
        guest.cpu.write_u64(pt_entry(ALIAS + 0x1000), STACK | PRESENT_RW).expect("mapped");
        for (page, n) in [(CODE, 1), (OTHER, 2), (CODE, 1)] {
            guest.map(ALIAS, page);
            guest.cpu.invalidate_page(ALIAS);
            for _ in 0..3 {
                assert_eq!(guest.call(at), n);
            }
        }
        // Another second half, another target.
        guest.put(OTHER + 0x200, &[0xB8, 3, 0, 0, 0, 0xF4]);
        guest.map(ALIAS, OTHER);
        guest.cpu.invalidate_page(ALIAS);
        let other = assemble(at, |a| a.jmp(ALIAS + 0x200));
        guest.put(STACK, &other[2..]);
        assert_eq!(guest.call(at), 3);
        assert_eq!(guest.cpu.regs[usize::from(RAX)], 3);
    });
}

#[test]
fn a_breakpoint_is_met_by_a_branch_out_of_the_middle_of_a_block() {
    every_mode_and_cache(|guest| {
        let target = CODE;
        let target_code = assemble(target, |a| {
            a.inc(eax)?;
            a.hlt()
        });
        guest.put(target, &target_code);
        let from = CODE + 0x100;
        let code = assemble(from, |a| {
            a.test(ecx, ecx)?;
            a.jnz(target)?;
            (0..20).try_for_each(|_| a.inc(edx))?;
            a.hlt()
        });
        guest.put(from, &code);
        for _ in 0..3 {
            // Both are decoded and linked.
            for taken in [1, 0] {
                set(&mut guest.cpu, RCX, taken);
                guest.call(from);
            }
            set(&mut guest.cpu, RCX, 1);
            set(&mut guest.cpu, RAX, 0);
            guest.cpu.breakpoint = Some(target);
            guest.cpu.breakpoint_armed = true;
            assert_eq!(guest.run(from, 1000), Stop::Breakpoint);
            assert_eq!((guest.cpu.rip(), guest.cpu.regs[usize::from(RAX)]), (target, 0));
            guest.cpu.breakpoint = None;
        }
    });
}
