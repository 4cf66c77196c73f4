//! Code on a page that is mapped under two KeyIDs: what is executed through one mapping while the other is stored to,
//! flushed, evicted or written by a device (MK-087 to MK-091, MK-129). Every test runs in every mode of execution
//! ([`common::every_mode`]); where a result depends on the cache model, the test says what each gives.

mod common;

use common::{Guest, PRESENT_RW, activate_tme, assemble, every_mode, every_mode_and_cache, pt_entry, set};
use cpu::run::Stop;
use cpu::state::slot::{RAX, RCX, RDX, RSP};
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use mem::{Algorithm, BusAddr, CacheModel, Config, KeyId};
use x86::tme::pconfig;

/// The page that has two mappings, and those: with KeyID 1 and with KeyID 2.
const PAGE: u64 = 0x18_0000;
const A: u64 = 0x24_0000;
const B: u64 = 0x25_0000;
/// Pages of KeyID 0, mapped one to one.
const CODE: u64 = 0x20_0000;
const PLAIN: u64 = 0x21_0000;
const STACK: u64 = 0x28_0000;

const HLT: u8 = 0xF4;

/// MOV EAX, n; HLT
fn returns(n: u8) -> [u8; 6] {
    [0xB8, n, 0, 0, 0, HLT]
}

fn keyed(guest: &Guest, keyid: u64) -> u64 {
    PAGE | keyid << guest.cpu.mem.layout().memory_bits()
}

/// Activates TME, programs KeyIDs 1 and 2 with these keys and maps the page under both.
fn two_keyids(guest: &mut Guest, keys: [u8; 2]) {
    activate_tme(&mut guest.cpu);
    for (keyid, key) in (1..).map(KeyId).zip(keys) {
        let (key, tweak) = ([key; 64], [!key; 64]);
        let tme = guest.cpu.mem.tme_mut();
        tme.program_key(keyid, pconfig::KEYID_SET_KEY_DIRECT, Algorithm::AesXts128, &key, &tweak).expect("it can be");
    }
    for (linear, keyid) in [(A, 1), (B, 2)] {
        let entry = keyed(guest, keyid);
        guest.map(linear, entry);
    }
    guest.cpu.flush_tlb(true);
    set(&mut guest.cpu, RSP, STACK);
}

const OWN_KEYS: [u8; 2] = [0x11, 0x22];
/// What is written back under one KeyID reads as the same under the other.
const SAME_KEY: [u8; 2] = [0x33, 0x33];

/// CLFLUSH of a line, executed by the guest.
fn clflush(guest: &mut Guest, linear: u64) {
    let code = assemble(CODE, |a| {
        a.clflush(ptr(linear))?;
        a.hlt()
    });
    guest.put(CODE, &code);
    guest.call(CODE);
}

#[test]
fn each_mapping_executes_what_was_stored_through_it_until_it_is_flushed() {
    every_mode_and_cache(|guest| {
        two_keyids(guest, OWN_KEYS);
        for n in [1, 3, 5] {
            guest.put(A, &returns(n));
            guest.put(B, &returns(n + 1));
            for _ in 0..2 {
                assert_eq!(guest.call(B), u64::from(n) + 1);
                // Without a cache, the store through B has already made what A reads.
                if guest.model != CacheModel::Off {
                    assert_eq!(guest.call(A), u64::from(n));
                }
            }
        }
    });
}

#[test]
fn with_one_key_for_both_a_store_reaches_the_other_mapping_when_both_are_flushed() {
    every_mode_and_cache(|guest| {
        two_keyids(guest, SAME_KEY);
        let cached = guest.model != CacheModel::Off;
        let stale = |old: u64, new: u64| if cached { old } else { new };
        guest.put(A, &returns(1));
        clflush(guest, A);
        for (n, from) in (2..).zip([1, 2, 3]) {
            assert_eq!((guest.call(A), guest.call(B)), (from, from));
            guest.cpu.write_u8(B + 1, n).expect("mapped");
            let n = u64::from(n);
            assert_eq!((guest.call(A), guest.call(B)), (stale(from, n), n), "only stored");
            clflush(guest, A);
            assert_eq!(guest.call(A), stale(from, n), "read from DRAM again, which has the old code still");
            clflush(guest, B);
            assert_eq!((guest.call(A), guest.call(B)), (stale(from, n), n), "DRAM has the new code, A's line the old");
            clflush(guest, A);
            assert_eq!((guest.call(A), guest.call(B)), (n, n));
        }
    });
}

#[test]
fn a_dirty_line_of_the_one_overwrites_the_code_of_the_other() {
    every_mode_and_cache(|guest| {
        two_keyids(guest, SAME_KEY);
        guest.put(A, &returns(1));
        guest.put(B, &returns(2));
        clflush(guest, B);
        // The older store is written back later.
        clflush(guest, A);
        let last = if guest.model == CacheModel::Off { 2 } else { 1 };
        assert_eq!((guest.call(A), guest.call(B)), (last, last));
    });
}

#[test]
fn code_that_stores_to_itself_through_the_other_keyid_goes_on_unchanged() {
    every_mode_and_cache(|guest| {
        two_keyids(guest, SAME_KEY);
        // MOV BYTE [B + ...], CL; then, in the next line, MOV EAX, 0, whose immediate is the byte stored to; HLT
        let target = 0x80;
        let code = assemble(A, |a| {
            a.mov(byte_ptr(B + target + 1), cl)?;
            a.jmp(A + target)
        });
        guest.put(A, &code);
        guest.put(A + target, &returns(0));
        for at in [A, A + target] {
            clflush(guest, at);
        }
        let mut old = 0;
        for n in [5, 6, 6, 7] {
            set(&mut guest.cpu, RCX, n);
            let seen = guest.call(A);
            assert_eq!(seen, if guest.model == CacheModel::Off { n } else { old });
            assert_eq!(guest.call(B + target), n);
            clflush(guest, B + target);
            clflush(guest, A + target);
            old = n;
        }
    });
}

#[test]
fn string_operations_write_code_under_the_keyid_of_their_destination() {
    every_mode_and_cache(|guest| {
        two_keyids(guest, OWN_KEYS);
        // 256 bytes at a time, so that whole lines are moved at once.
        for (source, n) in [(PLAIN, 1), (PLAIN + 0x100, 2)] {
            guest.put(source + 0x40, &[0xB8, n, 0, 0, 0, 0xC3]);
        }
        // In R15, four bits each: what B's code returns after it was copied there twice, A's after that.
        let cached = guest.model != CacheModel::Off;
        let code = assemble(CODE, |a| {
            let copy_and_call = |a: &mut CodeAssembler, from: u64, to: u64, at: u64| -> Result<(), IcedError> {
                a.mov(rsi, from)?;
                a.mov(rdi, to)?;
                a.mov(ecx, 0x100)?;
                a.rep().movsb()?;
                a.call(at + 0x40)?;
                a.shl(r15, 4)?;
                a.or(r15, rax)
            };
            let mut again = a.create_label();
            a.mov(r14d, 3)?;
            a.set_label(&mut again)?;
            a.xor(r15d, r15d)?;
            copy_and_call(a, PLAIN, A, A)?;
            copy_and_call(a, PLAIN + 0x100, A, A)?;
            copy_and_call(a, PLAIN, B, B)?;
            // Still A's own, where the line is cached.
            copy_and_call(a, PLAIN, B, if cached { A } else { B })?;
            a.dec(r14d)?;
            a.jnz(again)?;
            a.mov(rax, r15)?;
            a.hlt()
        });
        guest.put(CODE, &code);
        assert_eq!(guest.call(CODE), if cached { 0x1212 } else { 0x1211 });
    });
}

#[test]
fn eviction_is_as_good_as_a_flush() {
    // Two lines in a set, 16 sets.
    let config = Config { cache_bytes: 2048, cache_ways: 2, ..Config::default() };
    every_mode(config, |guest| {
        two_keyids(guest, SAME_KEY);
        guest.put(A, &returns(1));
        clflush(guest, A);
        let at = |keyid| BusAddr(keyed(guest, keyid));
        let (a, b) = (at(1), at(2));
        for n in 2..6 {
            assert_eq!((guest.call(A), guest.call(B)), (u64::from(n) - 1, u64::from(n) - 1));
            guest.cpu.write_u8(B + 1, n).expect("mapped");
            assert_eq!((guest.call(B), guest.call(A)), (u64::from(n), u64::from(n) - 1));
            // Lines of the same set drive both out; what is dirty reaches DRAM.
            for conflict in 1..20 {
                guest.cpu.read_u64(0x12_0000 + 1024 * conflict).expect("mapped");
            }
            assert!(!guest.cpu.mem.line_resident(a) && !guest.cpu.mem.line_resident(b));
            assert_eq!((guest.call(B), guest.call(A)), (u64::from(n), u64::from(n)));
        }
    });
}

#[test]
fn decoded_code_of_one_keyid_is_not_executed_under_the_other() {
    every_mode_and_cache(|guest| {
        two_keyids(guest, SAME_KEY);
        // Both mappings execute the same bytes in turns, ten times: INC EAX; CMP EAX, 10; JAE out; XCHG RCX, RDX; JMP RDX
        let code = assemble(0, |a| {
            let mut out = a.create_label();
            a.inc(eax)?;
            a.cmp(eax, 10)?;
            a.jae(out)?;
            a.xchg(rcx, rdx)?;
            a.jmp(rdx)?;
            a.set_label(&mut out)?;
            a.hlt()
        });
        guest.put(A, &code);
        clflush(guest, A);
        let start = assemble(CODE + 0x100, |a| {
            a.mov(rcx, B)?;
            a.mov(rdx, A)?;
            a.xor(eax, eax)?;
            a.jmp(rdx)
        });
        guest.put(CODE + 0x100, &start);
        let run = |guest: &mut Guest| {
            let before = guest.cpu.icount();
            (guest.call(CODE + 0x100), guest.cpu.icount() - before)
        };
        let plain = run(guest);
        assert_eq!(plain, (10, 4 + 9 * 5 + 4));
        // INC EAX (FF C0) becomes DEC EAX (FF C8) through A.
        guest.cpu.write_u8(A + 1, 0xC8).expect("mapped");
        // Below 0 is above 10: A ends the loop before B has had a turn.
        assert_eq!(run(guest), (0xFFFF_FFFF, 4 + 4));
        if guest.model != CacheModel::Off {
            // B first, which adds what A then takes back: the loop does not end.
            for (slot, value) in [(RAX, 0), (RCX, A), (RDX, B)] {
                set(&mut guest.cpu, slot, value);
            }
            assert_eq!(guest.run(B, 5000), Stop::Icount);
            assert!(guest.cpu.regs[RAX as usize] <= 1);
        }
        // Back again, and through B to DRAM.
        guest.cpu.write_u8(A + 1, 0xC0).expect("mapped");
        assert_eq!(run(guest), plain);
    });
}

/// Everything that code can leave behind in 40 instructions.
fn outcome(guest: &mut Guest, at: u64) -> (Stop, Vec<u64>, u64, u64, String) {
    for (i, value) in (0..16).zip([0x10_1000, 2, 0x10_2000, 3, STACK, 0x10_3000, 0x10_4000, 0x10_5000].repeat(2)) {
        set(&mut guest.cpu, i, value);
    }
    let before = guest.cpu.icount();
    let stop = guest.run(at, 40);
    let cpu = &guest.cpu;
    (stop, cpu.regs[..16].to_vec(), cpu.rip(), cpu.icount() - before, format!("{:x?}", cpu.last_exception))
}

#[test]
fn after_the_flushes_the_ciphertext_of_the_other_key_is_executed_as_what_it_decrypts_to() {
    for seed in 0..8 {
        let keys = [0x40 + seed, 0x80 + seed];
        every_mode_and_cache(|guest| {
            two_keyids(guest, keys);
            guest.put(A, &returns(1));
            assert_eq!(guest.call(A), 1);
            clflush(guest, A);
            assert_eq!(guest.call(A), 1);
            guest.put(B, &returns(2));
            clflush(guest, B);
            clflush(guest, A);
            let mut garbage = [0; 4096];
            for (i, byte) in (0..).zip(&mut garbage) {
                *byte = guest.cpu.read_u8(A + i).expect("mapped");
            }
            assert_ne!(garbage[..6], returns(1));
            let seen = outcome(guest, A);

            // The same as plain code under KeyID 0, at the same address.
            let (cpu, board) = common::board_with(Config { ram_bytes: 4 << 20, ..Config::default() });
            let mut plain = Guest::new(cpu, board, CacheModel::Exact);
            two_keyids(&mut plain, keys);
            plain.put(PLAIN, &garbage);
            plain.map(A, PLAIN);
            plain.cpu.flush_tlb(true);
            assert_eq!(seen, outcome(&mut plain, A));
            assert_eq!(guest.call(B), 2);
        });
    }
}

#[test]
fn an_instruction_may_begin_under_one_keyid_and_end_under_another() {
    every_mode_and_cache(|guest| {
        two_keyids(guest, OWN_KEYS);
        // The page behind A is another one, with KeyID 2.
        let second = keyed(guest, 2) + 0x1000;
        guest.map(A + 0x1000, second);
        guest.map(B + 0x1000, second);
        guest.cpu.flush_tlb(true);
        let code = returns(7);
        for in_first in 1..=4 {
            let (head, tail) = code.split_at(in_first);
            let start = A + 0x1000 - in_first as u64;
            guest.put(start, head);
            guest.put(A + 0x1000, tail);
            assert_eq!(guest.call(start), 7);
            // The last byte of the immediate, through the other mapping with the same KeyID.
            guest.cpu.write_u8(B + 0x1000 + 4 - in_first as u64, 1).expect("mapped");
            assert_eq!(guest.call(start), 0x100_0007);
        }
    });
}

#[test]
fn a_page_whose_keyid_changes_in_its_entry_counts_from_invlpg_on() {
    every_mode_and_cache(|guest| {
        two_keyids(guest, OWN_KEYS);
        let entries = [1, 2].map(|keyid| (keyed(guest, keyid) + 0x1000) | PRESENT_RW);
        // Different lines, so that without a cache neither store destroys the other's code.
        for (linear, entry, at, n) in [(A, entries[0], 0, 1), (B, entries[1], 0x40, 2)] {
            guest.map(linear, entry);
            guest.cpu.flush_tlb(true);
            guest.put(linear + at, &[0xB8, n, 0, 0, 0, 0xC3]);
        }
        // Collects what calls of A's page return, four bits for each; the line to call depends on the KeyID.
        let code = assemble(CODE, |a| {
            let collect = |a: &mut CodeAssembler, at: u64| -> Result<(), IcedError> {
                a.call(A + at)?;
                a.shl(r15, 4)?;
                a.or(r15, rax)
            };
            let mut again = a.create_label();
            a.mov(ecx, 3)?;
            a.mov(ebx, pt_entry(A) as u32)?;
            a.set_label(&mut again)?;
            a.xor(r15d, r15d)?;
            collect(a, 0)?;
            a.mov(rdx, entries[1])?;
            a.mov(ptr(rbx), rdx)?;
            collect(a, 0)?;
            a.invlpg(ptr(A))?;
            collect(a, 0x40)?;
            a.mov(rdx, entries[0])?;
            a.mov(ptr(rbx), rdx)?;
            collect(a, 0x40)?;
            a.invlpg(ptr(A))?;
            collect(a, 0)?;
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
fn a_device_reaches_running_code_under_its_own_keyid_at_once_and_under_another_after_a_flush() {
    for keyid in [1, 2] {
        every_mode_and_cache(|guest| {
            two_keyids(guest, SAME_KEY);
            // again: MOV EAX, 1; DEC RCX; JZ out; CMP EAX, 1; JE again; out: HLT
            let code = assemble(A, |a| {
                let (mut again, mut out) = (a.create_label(), a.create_label());
                a.set_label(&mut again)?;
                a.mov(eax, 1)?;
                a.dec(rcx)?;
                a.jz(out)?;
                a.cmp(eax, 1)?;
                a.je(again)?;
                a.set_label(&mut out)?;
                a.hlt()
            });
            guest.put(A, &code);
            clflush(guest, A);
            let when = guest.cpu.clock.at(guest.cpu.icount() + 1003);
            let target = BusAddr(keyed(guest, keyid) + 1);
            guest.board.0.borrow_mut().dma.push_back((when, target, vec![9]));
            set(&mut guest.cpu, RCX, 1000);
            let seen = guest.call(A);
            let left = guest.cpu.regs[RCX as usize];
            if keyid == 1 || guest.model == CacheModel::Off {
                assert_eq!(seen, 9);
                assert!((790..=800).contains(&left), "{left}");
            } else {
                assert_eq!((seen, left), (1, 0), "the stale line goes on");
                clflush(guest, A);
                set(&mut guest.cpu, RCX, 1000);
                assert_eq!(guest.call(A), 9);
            }
            left
        });
    }
}
