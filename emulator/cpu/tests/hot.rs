//! Instructions whose usual case has a handler of its own and whose others are executed elsewhere: bit strings, scans, REP MOVS
//! and REP STOS, CMPXCHG16B, flags, XMM registers. Each is compared with a plain model of what it does, in every mode of
//! execution and cache model.

mod common;

use common::{DATA, Guest, UNMAPPED, assemble, every_mode_and_cache, set};
use cpu::run::Stop;
use cpu::state::slot::{RAX, RBX, RCX, RDI, RDX, RSI, RSP};
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use x86::flags;

/// 4-KiB pages that are mapped one to one.
const CODE: u64 = 0x20_0000;
const STACK: u64 = 0x28_0000;
const HANDLER: u64 = 0x2A_0000;
const GENERAL_PROTECTION: u8 = 13;
const PAGE_FAULT: u8 = 14;

/// Puts code between loading RFLAGS from RDI and leaving them in RDX.
fn put_flagged(guest: &mut Guest, code: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) {
    let code = assemble(CODE, |a| {
        a.push(rdi)?;
        a.popfq()?;
        code(a)?;
        a.pushfq()?;
        a.pop(rdx)?;
        a.hlt()
    });
    guest.put(CODE, &code);
}

fn call(guest: &mut Guest) -> u64 {
    set(&mut guest.cpu, RSP, STACK + 0x1000);
    guest.call(CODE)
}

fn register(guest: &Guest, register: u8) -> u64 {
    guest.cpu.regs[usize::from(register)]
}

fn bytes<const N: usize>(guest: &mut Guest, at: u64) -> [u8; N] {
    let mut bytes = [0; N];
    guest.cpu.read_linear(at, &mut bytes).expect("mapped");
    bytes
}

/// Flags that the tests set or clear: all arithmetic ones.
const NONE_AND_ALL: [u64; 2] = [flags::FIXED, flags::FIXED | flags::ARITH];

/// What becomes of a bit.
type Change = fn(bool) -> bool;
/// An instruction.
type Form = fn(&mut CodeAssembler) -> Result<(), IcedError>;

#[test]
fn bit_strings_reach_both_sides_of_their_address() {
    // What it does with the bit, bytes of an operand, and the instruction.
    let forms: [(Change, i64, Form); 7] = [
        (|b| !b, 4, |a| a.btc(dword_ptr(ebx), eax)),
        (|b| b, 8, |a| a.bt(qword_ptr(rbx), rax)),
        (|_| true, 8, |a| a.bts(qword_ptr(rbx), rax)),
        (|_| false, 4, |a| a.lock().btr(dword_ptr(rbx), eax)),
        (|b| !b, 2, |a| a.btc(word_ptr(rbx), ax)),
        (|_| true, 4, |a| a.bts(dword_ptr(rbx + rcx), eax)),
        (|b| b, 2, |a| a.bt(word_ptr(rbx), ax)),
    ];
    every_mode_and_cache(|guest| {
        for (change, size, form) in forms {
            put_flagged(guest, form);
            // Within a line, over its end, and over that of a page.
            for base in [DATA + 0x840, DATA + 0x83F, DATA + 0xFFD] {
                for offset in [0i64, 1, -1, -64, 65, 1000, -1001, 8 * size - 1] {
                    for before in NONE_AND_ALL {
                        let at = base.wrapping_add_signed(offset >> 3);
                        let old: u8 = 0b0101_1010;
                        guest.put(at, &[old]);
                        set(&mut guest.cpu, RBX, base);
                        set(&mut guest.cpu, RCX, 0);
                        set(&mut guest.cpu, RAX, offset as u64);
                        set(&mut guest.cpu, RDI, before);
                        call(guest);
                        let bit = 1 << (offset & 7);
                        let new = if change(old & bit != 0) { old | bit } else { old & !bit };
                        assert_eq!(bytes(guest, at), [new], "{base:#x}, {offset}");
                        let carry = if old & bit != 0 { flags::CF } else { 0 };
                        assert_eq!(register(guest, RDX), before & !flags::CF | carry, "{base:#x}, {offset}");
                    }
                }
            }
        }
    });
}

#[test]
fn bits_of_registers_and_immediate_bits_are_taken_modulo_the_operand_size() {
    every_mode_and_cache(|guest| {
        put_flagged(guest, |a| {
            a.btc(qword_ptr(rbx), 67)?;
            a.bts(rax, rcx)?;
            a.btr(ax, 16 + 2)?;
            a.btc(eax, 31)
        });
        guest.put(DATA + 0x100, &0b0001u64.to_le_bytes());
        set(&mut guest.cpu, RBX, DATA + 0x100);
        set(&mut guest.cpu, RAX, 0b0100);
        set(&mut guest.cpu, RCX, 64 + 40);
        set(&mut guest.cpu, RDI, flags::FIXED | flags::CF);
        // A 32-bit result clears bit 40.
        assert_eq!(call(guest), 1 << 31);
        assert_eq!(bytes(guest, DATA + 0x100), 0b1001u64.to_le_bytes());
        assert_eq!(register(guest, RDX), flags::FIXED);
    });
}

#[test]
fn scans_and_counts_follow_their_definitions() {
    /// Result (none: the destination stays) and flags, of the low `bits` of a value.
    type Model = fn(u64, u32) -> (Option<u64>, u64);
    fn zero(n: u64) -> u64 {
        if n == 0 { flags::ZF } else { 0 }
    }
    fn count(n: u64, bits: u32) -> (Option<u64>, u64) {
        (Some(n), zero(n) | if n == u64::from(bits) { flags::CF } else { 0 })
    }
    fn lowest(v: u64, bits: u32) -> u64 {
        (0..bits).find(|n| v >> n & 1 != 0).unwrap_or(bits).into()
    }
    fn above_highest(v: u64, bits: u32) -> u64 {
        (0..bits).rev().position(|n| v >> n & 1 != 0).map_or(bits.into(), |n| n as u64)
    }
    let bsf: Model = |v, bits| if v == 0 { (None, flags::ZF) } else { (Some(lowest(v, bits)), 0) };
    let bsr: Model =
        |v, bits| if v == 0 { (None, flags::ZF) } else { (Some(u64::from(bits) - 1 - above_highest(v, bits)), 0) };
    let tzcnt: Model = |v, bits| count(lowest(v, bits), bits);
    let lzcnt: Model = |v, bits| count(above_highest(v, bits), bits);
    let popcnt: Model = |v, bits| {
        let n = (0..bits).filter(|n| v >> n & 1 != 0).count() as u64;
        (Some(n), zero(n))
    };
    let forms: [(Model, u32, Form); 12] = [
        (bsf, 64, |a| a.bsf(rax, rbx)),
        (bsf, 32, |a| a.bsf(eax, ebx)),
        (bsf, 64, |a| a.bsf(rax, qword_ptr(rsi))),
        (bsr, 64, |a| a.bsr(rax, qword_ptr(rsi))),
        (bsr, 16, |a| a.bsr(ax, bx)),
        (tzcnt, 32, |a| a.tzcnt(eax, ebx)),
        (tzcnt, 64, |a| a.tzcnt(rax, qword_ptr(rsi + rcx))),
        (lzcnt, 16, |a| a.lzcnt(ax, bx)),
        (lzcnt, 64, |a| a.lzcnt(rax, rbx)),
        (lzcnt, 32, |a| a.lzcnt(eax, dword_ptr(rsi))),
        (popcnt, 64, |a| a.popcnt(rax, rbx)),
        (popcnt, 16, |a| a.popcnt(ax, word_ptr(rsi))),
    ];
    every_mode_and_cache(|guest| {
        for (n, (model, bits, form)) in forms.iter().enumerate() {
            put_flagged(guest, form);
            let values = [0, 1, 2, 0x8000, 0x7FFF_0000, 1 << 31, 1 << 32, 1 << 63, u64::MAX, 0x00FF_00FF_0000_0000];
            for value in values {
                for (before, at) in NONE_AND_ALL.into_iter().zip([DATA + 0x40, DATA + 0xFFB]) {
                    guest.put(at, &value.to_le_bytes());
                    set(&mut guest.cpu, RSI, at);
                    set(&mut guest.cpu, RCX, 0);
                    set(&mut guest.cpu, RBX, value);
                    set(&mut guest.cpu, RDI, before);
                    let old = 0xDEAD_BEEF_0000_0001;
                    set(&mut guest.cpu, RAX, old);
                    let result = call(guest);
                    let (found, expected) = model(value & u64::MAX >> (64 - bits), *bits);
                    let new = match (found, bits) {
                        (None, _) => old,
                        (Some(n), 16) => old & !0xFFFF | n,
                        (Some(n), _) => n,
                    };
                    assert_eq!(result, new, "form {n}, {value:#x}");
                    assert_eq!(register(guest, RDX), flags::FIXED | expected, "form {n}, {value:#x}");
                }
            }
        }
    });
}

/// Bytes that the string tests look at, from [`DATA`] on.
const AREA: usize = 0x3000;

#[test]
fn rep_moves_and_stores_as_element_by_element() {
    // Bytes of an element; MOVS; the instruction.
    let forms: [(usize, bool, Form); 6] = [
        (1, false, |a| a.rep().stosb()),
        (8, false, |a| a.rep().stosq()),
        (2, false, |a| a.rep().stosw()),
        (1, true, |a| a.rep().movsb()),
        (4, true, |a| a.rep().movsd()),
        (8, true, |a| a.rep().movsq()),
    ];
    every_mode_and_cache(|guest| {
        for (size, moves, form) in forms {
            let code = assemble(CODE, |a| {
                form(a)?;
                a.mov(rax, rcx)?;
                a.hlt()
            });
            guest.put(CODE, &code);
            // Where from, where to, how many: lines, ends of pages, overlaps of both kinds, nothing at all.
            for (source, destination, count) in [
                (0x000, 0x1000, 0),
                (0x008, 0x1010, 1),
                (0x000, 0x1000, 8),
                (0x03C, 0x1021, 9),
                (0x000, 0x1000, 0x1000 / size),
                (0x020, 0x1FF0, 40),
                (0xFE1, 0x2003, 13),
                (0x100, 0x108, 30),
                (0x108, 0x100, 30),
                (0x100, 0x100, 30),
                (0xFF0, 0xFF1, 20),
            ] {
                for descending in [false, true] {
                    let mut model: Vec<u8> = (0..AREA).map(|n| (n * 7 % 251) as u8).collect();
                    guest.put(DATA, &model);
                    let value = 0x8877_6655_4433_2211u64;
                    let step = if descending { (size as i64).wrapping_neg() } else { size as i64 };
                    let (mut from, mut to) = (source as i64, destination as i64);
                    if descending {
                        from += (count * size) as i64;
                        to += (count * size) as i64;
                    }
                    set(&mut guest.cpu, RSI, DATA.wrapping_add_signed(from));
                    set(&mut guest.cpu, RDI, DATA.wrapping_add_signed(to));
                    set(&mut guest.cpu, RCX, count as u64);
                    set(&mut guest.cpu, RAX, value);
                    guest.cpu.set_rflags(flags::FIXED | if descending { flags::DF } else { 0 });
                    for _ in 0..count {
                        for byte in 0..size {
                            // An element is loaded before it is stored.
                            let new = value.to_le_bytes()[byte];
                            if !moves {
                                model[to as usize + byte] = new;
                            }
                        }
                        if moves {
                            model.copy_within(from as usize..from as usize + size, to as usize);
                            from += step;
                        }
                        to += step;
                    }
                    let what = format!("{size} bytes, {source:#x} to {destination:#x}, {count}, down {descending}");
                    let before = guest.cpu.icount();
                    assert_eq!(call(guest), 0, "{what}");
                    // Each iteration counts; MOV and HLT.
                    assert_eq!(guest.cpu.icount() - before, count.max(1) as u64 + 2, "{what}");
                    assert_eq!(register(guest, RSI), DATA.wrapping_add_signed(from), "{what}");
                    assert_eq!(register(guest, RDI), DATA.wrapping_add_signed(to), "{what}");
                    assert!(bytes::<AREA>(guest, DATA)[..] == model, "{what}");
                }
            }
        }
        guest.cpu.set_rflags(flags::FIXED);
    });
}

#[test]
fn a_store_into_a_missing_page_keeps_what_it_has_done() {
    every_mode_and_cache(|guest| {
        guest.put(HANDLER, &[0xF4]);
        guest.set_gate(PAGE_FAULT, HANDLER);
        guest.put(CODE, &assemble(CODE, |a| a.rep().stosq()));
        for done in [0, 1, 8, 20] {
            set(&mut guest.cpu, RSP, STACK + 0x1000);
            set(&mut guest.cpu, RDI, UNMAPPED - 8 * done);
            set(&mut guest.cpu, RCX, 100);
            set(&mut guest.cpu, RAX, 0x55);
            assert_eq!(guest.run(CODE, 1000), Stop::HaltedDisabled);
            assert_eq!((register(guest, RDI), register(guest, RCX)), (UNMAPPED, 100 - done));
            if done > 0 {
                assert_eq!(bytes(guest, UNMAPPED - 8 * done), 0x55u64.to_le_bytes());
            }
        }
    });
}

#[test]
fn cmpxchg16b_exchanges_compares_and_wants_alignment() {
    every_mode_and_cache(|guest| {
        guest.put(HANDLER, &[0xF4]);
        guest.set_gate(GENERAL_PROTECTION, HANDLER);
        put_flagged(guest, |a| {
            a.lock().cmpxchg16b(xmmword_ptr(rsi))?;
            a.mov(r8, rdx)
        });
        for before in NONE_AND_ALL {
            for (equal, expected) in [(true, 4u64), (false, 5)] {
                // Twice: the first time the line may not be dirty.
                for _ in 0..2 {
                    guest.put(DATA + 0x30, &(3u128 << 64 | 4).to_le_bytes());
                    for (r, v) in [(RSI, DATA + 0x30), (RDX, 3), (RAX, expected), (RCX, 7), (RBX, 8), (RDI, before)] {
                        set(&mut guest.cpu, r, v);
                    }
                    let result = call(guest);
                    let stored = if equal { 7u128 << 64 | 8 } else { 3u128 << 64 | 4 };
                    assert_eq!(bytes(guest, DATA + 0x30), stored.to_le_bytes());
                    assert_eq!((result, register(guest, 8)), (4, 3));
                    let zero = if equal { flags::ZF } else { 0 };
                    assert_eq!(register(guest, RDX), before & !flags::ZF | zero, "only ZF changes");
                }
            }
        }
        set(&mut guest.cpu, RSI, DATA + 0x38);
        set(&mut guest.cpu, RSP, STACK + 0x1000);
        assert_eq!(guest.run(CODE, 100), Stop::HaltedDisabled);
        assert_eq!(guest.cpu.rip(), HANDLER + 1);
    });
}

#[test]
fn flags_are_set_and_pushed() {
    every_mode_and_cache(|guest| {
        put_flagged(guest, |a| {
            a.sti()?;
            a.pushfq()?;
            a.cli()?;
            a.stac()?;
            a.pushfq()?;
            a.clac()?;
            a.pop(rbx)?;
            a.pop(rax)
        });
        for before in NONE_AND_ALL {
            set(&mut guest.cpu, RDI, before);
            assert_eq!(call(guest), before | flags::IF);
            assert_eq!(register(guest, RBX), before | flags::AC);
            assert_eq!(register(guest, RDX), before);
        }
    });
}

#[test]
fn vectors_are_computed_from_registers_and_aligned_memory() {
    every_mode_and_cache(|guest| {
        guest.put(HANDLER, &[0xF4]);
        guest.set_gate(GENERAL_PROTECTION, HANDLER);
        guest.cpu.cr4 |= x86::cr::cr4::OSFXSR;
        // The index of the first zero byte of 16, and of one that equals CL.
        let code = assemble(CODE, |a| {
            a.movd(xmm1, ecx)?;
            a.punpcklbw(xmm1, xmm1)?;
            a.punpcklwd(xmm1, xmm1)?;
            a.pshufd(xmm1, xmm1, 0)?;
            a.movdqu(xmm0, xmmword_ptr(rsi))?;
            a.movdqa(xmm2, xmm0)?;
            a.pcmpeqb(xmm0, xmm1)?;
            a.pxor(xmm3, xmm3)?;
            a.pcmpeqb(xmm3, xmm2)?;
            a.por(xmm3, xmm0)?;
            a.pmovmskb(eax, xmm3)?;
            a.pcmpeqb(xmm2, xmmword_ptr(rdi))?;
            a.pmovmskb(ebx, xmm2)?;
            a.hlt()
        });
        guest.put(CODE, &code);
        let text = *b"a line of text\0and more behind it";
        for at in [DATA + 0x40, DATA + 0x7B, DATA + 0xFFA] {
            guest.put(at, &text);
            guest.put(DATA + 0x800, &text[1..17]);
            set(&mut guest.cpu, RSI, at);
            set(&mut guest.cpu, RDI, DATA + 0x800);
            for wanted in [b'a', b't', b'z'] {
                set(&mut guest.cpu, RCX, wanted.into());
                let found = |byte: u8| byte == wanted || byte == 0;
                let expected = (0..16).filter(|n| found(text[*n])).fold(0, |mask, n| mask | 1 << n);
                assert_eq!(call(guest), expected);
                let equal = (0..16).filter(|n| text[*n] == text[n + 1]).fold(0, |mask, n| mask | 1 << n);
                assert_eq!(register(guest, RBX), equal);
            }
        }
        set(&mut guest.cpu, RDI, DATA + 0x808);
        set(&mut guest.cpu, RSP, STACK + 0x1000);
        assert_eq!(guest.run(CODE, 100), Stop::HaltedDisabled);
        assert_eq!(guest.cpu.rip(), HANDLER + 1, "an operand that is not aligned");
    });
}
