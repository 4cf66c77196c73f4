//! 10.7 Caches and aliases.

use crate::harness::layout::{FRAME, FRAME_2};
use crate::harness::{Asm, Failure, Power, Program, RAMP, Scenario, Verdict, key, load_line, store_line};
use crate::statement::Env;
use crate::{check, equal, statements};
use iced_x86::code_asm::*;
use mem::{CacheModel, Event, KeyId, MemType, PhysAddr};
use x86::flags::ZF;

statements! {
    "10.7 Caches and aliases";
    mk_115 GuestAndProbe "store via KM(1), read via KM(2): the store is not seen, both tags valid";
    mk_116 GuestAndProbe "dirty via KM(1), CLFLUSH via KM(2): KM(1) stays dirty, DRAM unchanged";
    mk_117 GuestAndProbe "dirty via KM(1), CLFLUSH, CLFLUSHOPT, CLWB via KM(1): DRAM updated";
    mk_118 GuestAndProbe "dirty via KM(1) and KM(2), WBINVD, ascending: the last alias wins whole, event";
    mk_119 GuestAndProbe "dirty via KM(1), INVD: store lost, DRAM unchanged";
    mk_120 GuestAndProbe "dirty via KM(1), key 1 changed, read: cached plaintext";
    mk_121 GuestAndProbe "then flush and read: plaintext, encrypted under the new key";
    mk_122 GuestAndProbe "line in DRAM only, key 1 changed, read: old ciphertext with the new key";
    mk_123 GuestAndProbe "free without flush: zeros overwritten at eviction";
    mk_124 GuestAndProbe "NT and UC store via KM(2) while KM(1) has the line: KM(1) untouched and stale";
    mk_125 GuestAndProbe "1-byte UC store through a wrong KeyID: exactly one 16-byte block changes";
    mk_126 GuestAndProbe "MOVDIR64B: the whole line is written without reading the old contents";
    mk_127 GuestAndProbe "LOCK CMPXCHG on KM(1) while KM(2) has the line: tag 1 only";
    mk_128 GuestAndProbe "cache = off: no aliasing effects, as if every access went to DRAM";
    mk_129 GuestAndProbe "code modified through another KeyID's alias: not seen";
}

/// Another line than the ramp.
const OTHER: [u8; 64] = [0xA5; 64];
const THIRD: [u8; 64] = [0x3C; 64];

/// KeyIDs 1 and 2 with keys of their own, KM(1) and KM(2) of the frame; its first line holds E1(ramp) and is not cached.
struct Aliases {
    s: Scenario,
    keys: [Program; 2],
    km1: u64,
    km2: u64,
}

impl Aliases {
    fn new() -> Result<Aliases, Failure> {
        Aliases::on(Power::default().activated()?)
    }

    fn on(mut s: Scenario) -> Result<Aliases, Failure> {
        let keys = [Program::simple(1, 0x31), Program::simple(2, 0x51)];
        for program in &keys {
            s.program(program)?;
        }
        let (km1, km2) = (s.map(FRAME, 1), s.map(FRAME, 2));
        s.store_flush(km1, &RAMP)?;
        Ok(Aliases { s, keys, km1, km2 })
    }

    /// DRAM is the encryption of `line` under KeyID 1 or 2.
    fn dram_is(&self, keyid: usize, line: &[u8; 64], when: &str) -> Verdict {
        equal!(self.s.dram(FRAME), self.keys[keyid - 1].encrypt(FRAME, line), "DRAM {when}");
        Ok(())
    }

    /// What KeyID 2 makes of the ramp that KeyID 1 stored.
    fn garbage(&self) -> [u8; 64] {
        self.keys[1].decrypt(FRAME, &self.keys[0].encrypt(FRAME, &RAMP))
    }
}

fn mk_115(_: &Env) -> Verdict {
    let mut a = Aliases::new()?;
    a.s.store(a.km1, &OTHER)?;
    equal!(a.s.load(a.km2)?, a.garbage(), "read via KM(2)");
    equal!((a.s.resident(FRAME, 1), a.s.resident(FRAME, 2)), (true, true), "tags 1 and 2 valid");
    equal!(a.s.load(a.km1)?, OTHER, "read via KM(1)");
    // A tag that was there before the store does not see it either.
    a.s.store(a.km1, &THIRD)?;
    equal!(a.s.load(a.km2)?, a.garbage(), "second read via KM(2)");
    a.dram_is(1, &RAMP, "with both tags cached")
}

fn mk_116(_: &Env) -> Verdict {
    let mut a = Aliases::new()?;
    a.s.store(a.km1, &OTHER)?;
    a.s.load(a.km2)?;
    a.s.clflush(a.km2)?;
    equal!(a.s.resident(FRAME, 2), false, "tag 2 cached after its CLFLUSH");
    equal!(a.s.dirty(FRAME, 1), true, "tag 1 dirty");
    a.dram_is(1, &RAMP, "after CLFLUSH via KM(2)")
}

fn mk_117(_: &Env) -> Verdict {
    type Flush = fn(&mut CodeAssembler) -> Result<(), iced_x86::IcedError>;
    let kinds: [(&str, Flush, bool); 3] = [
        ("CLFLUSH", |a| a.clflush(byte_ptr(rdi)), true),
        ("CLFLUSHOPT", |a| a.clflushopt(byte_ptr(rdi)), true),
        ("CLWB", |a| a.clwb(byte_ptr(rdi)), false),
    ];
    for (name, flush, invalidates) in kinds {
        let mut a = Aliases::new()?;
        let km1 = a.km1;
        let end = a.s.run(|a| {
            store_line(a, km1, &OTHER)?;
            a.mov(rdi, km1 + 63)?;
            flush(a)?;
            a.sfence()?;
            a.hlt()
        })?;
        end.halted()?;
        a.dram_is(1, &OTHER, &format!("after {name}"))?;
        equal!(a.s.dirty(FRAME, 1), false, "dirty after {name}");
        check!(!invalidates || !a.s.resident(FRAME, 1), "cached after {name}");
        equal!(a.s.load(km1)?, OTHER, "read after {name}");
    }
    Ok(())
}

fn mk_118(_: &Env) -> Verdict {
    // Ascending full PA: KeyID 2 is written last, whichever was stored last.
    for swapped in [false, true] {
        let mut a = Aliases::new()?;
        let (mut first, mut second) = ((a.km1, OTHER), (a.km2, THIRD));
        if swapped {
            std::mem::swap(&mut first, &mut second);
        }
        a.s.store(first.0, &first.1)?;
        a.s.store(second.0, &second.1)?;
        a.s.take_events();
        a.s.wbinvd()?;
        a.dram_is(2, &THIRD, "after WBINVD")?;
        let want =
            Event::AliasWritebackConflict { line: PhysAddr(FRAME).line(), kid_lost: KeyId(1), kid_won: KeyId(2) };
        check!(a.s.take_events().contains(&want), "no event alias_writeback_conflict");
        equal!((a.s.resident(FRAME, 1), a.s.resident(FRAME, 2)), (false, false), "tags cached after WBINVD");
        let lost = a.s.load(a.km1)?;
        for n in 0..4 {
            check!(lost[16 * n..16 * n + 16] != OTHER[16 * n..16 * n + 16], "block {n} of the loser survived");
        }
    }
    // WBNOINVD writes back in the same order, and the lines stay.
    let mut a = Aliases::new()?;
    let (km1, km2) = (a.km1, a.km2);
    let end = a.s.run(|a| {
        store_line(a, km1, &OTHER)?;
        store_line(a, km2, &THIRD)?;
        a.wbnoinvd()?;
        a.hlt()
    })?;
    end.halted()?;
    a.dram_is(2, &THIRD, "after WBNOINVD")?;
    for (keyid, linear, line) in [(1, km1, OTHER), (2, km2, THIRD)] {
        equal!((a.s.resident(FRAME, keyid), a.s.dirty(FRAME, keyid)), (true, false), "KM({keyid}) after WBNOINVD");
        equal!(a.s.load(linear)?, line, "read via KM({keyid}) after WBNOINVD");
    }
    // One byte stored costs the other alias all 64.
    let mut a = Aliases::new()?;
    let (km1, km2) = (a.km1, a.km2);
    let garbage = a.garbage();
    let end = a.s.run(|a| {
        store_line(a, km1, &OTHER)?;
        a.store_byte(km2, 0x99)?;
        a.wbinvd()?;
        a.hlt()
    })?;
    end.halted()?;
    let mut won = garbage;
    won[0] = 0x99;
    a.dram_is(2, &won, "after a one-byte store via KM(2)")
}

fn mk_119(_: &Env) -> Verdict {
    let mut a = Aliases::new()?;
    let km1 = a.km1;
    // WBINVD first: INVD would take the harness's own dirty lines with it.
    let end = a.s.run(|a| {
        a.wbinvd()?;
        store_line(a, km1, &OTHER)?;
        a.invd()?;
        load_line(a, km1)?;
        a.hlt()
    })?;
    equal!(end.halted()?.line(), RAMP, "read after INVD");
    a.dram_is(1, &RAMP, "after INVD")
}

/// Dirty via KM(1), then another key for KeyID 1. Returns it.
fn rekeyed() -> Result<(Aliases, Program), Failure> {
    let mut a = Aliases::new()?;
    a.s.store(a.km1, &OTHER)?;
    let new = Program::direct(1, crate::harness::XTS_256, key(0x90), key(0xD0));
    a.s.program(&new)?;
    Ok((a, new))
}

fn mk_120(_: &Env) -> Verdict {
    let (mut a, _) = rekeyed()?;
    equal!(a.s.dirty(FRAME, 1), true, "dirty after PCONFIG");
    a.dram_is(1, &RAMP, "after PCONFIG")?;
    equal!(a.s.load(a.km1)?, OTHER, "read after PCONFIG");
    // Even after CLEAR_KEY (section 4.8).
    a.s.program(&Program::clear(1))?;
    equal!(a.s.load(a.km1)?, OTHER, "read after CLEAR_KEY");
    Ok(())
}

fn mk_121(_: &Env) -> Verdict {
    let (mut a, new) = rekeyed()?;
    a.s.clflush(a.km1)?;
    equal!(a.s.dram(FRAME), new.encrypt(FRAME, &OTHER), "DRAM after the flush");
    equal!(a.s.load(a.km1)?, OTHER, "read after the flush");
    Ok(())
}

fn mk_122(_: &Env) -> Verdict {
    let mut a = Aliases::new()?;
    let new = Program::simple(1, 0x71);
    a.s.program(&new)?;
    equal!(a.s.load(a.km1)?, new.decrypt(FRAME, &a.keys[0].encrypt(FRAME, &RAMP)), "read with the new key");
    a.dram_is(1, &RAMP, "after PCONFIG")
}

fn mk_123(_: &Env) -> Verdict {
    let mut a = Aliases::new()?;
    let km0 = a.s.map(FRAME, 0);
    a.s.store(a.km1, &OTHER)?;
    a.s.store_flush(km0, &[0; 64])?;
    check!(a.s.dram(FRAME) != a.keys[0].encrypt(FRAME, &OTHER), "tag 1 was written back early");
    equal!(a.s.load(km0)?, [0; 64], "the zeros");
    a.s.clflush(km0)?;
    // Lines of the same set push tag 1 out: a line of each 64 KiB, more of them than there are ways.
    let ways = a.s.machine.config().cache_ways as u64;
    let stride = a.s.machine.config().cache_bytes as u64 / ways;
    let end = a.s.run(|a| {
        for n in 1..=ways + 1 {
            a.mov(rsi, FRAME + n * stride)?;
            a.mov(al, byte_ptr(rsi))?;
        }
        a.hlt()
    })?;
    end.halted()?;
    equal!(a.s.resident(FRAME, 1), false, "tag 1 cached");
    a.dram_is(1, &OTHER, "after the eviction")?;
    check!(a.s.load(km0)? != [0; 64], "the zeros are still there");
    Ok(())
}

fn mk_124(_: &Env) -> Verdict {
    for dirty in [false, true] {
        for uncached in [false, true] {
            let mut a = Aliases::new()?;
            let km1 = a.km1;
            let held = if dirty { OTHER } else { RAMP };
            if dirty {
                a.s.store(km1, &held)?;
            } else {
                a.s.load(km1)?;
            }
            // What KeyID 2 has cached of the line is written back and invalidated first.
            a.s.load(a.km2)?;
            let target = if uncached { a.s.map_type(FRAME, 2, MemType::Uc) } else { a.km2 };
            let end = a.s.run(|a| {
                a.mov(rdi, target)?;
                a.mov(rax, 0x1122_3344_5566_7788u64)?;
                if uncached {
                    a.mov(qword_ptr(rdi), rax)?
                } else {
                    a.movnti(qword_ptr(rdi), rax)?
                }
                a.sfence()?;
                a.hlt()
            })?;
            end.halted()?;
            let kind = if uncached { "UC" } else { "NT" };
            let mut merged = a.garbage();
            merged[..8].copy_from_slice(&0x1122_3344_5566_7788u64.to_le_bytes());
            a.dram_is(2, &merged, &format!("after the {kind} store"))?;
            equal!((a.s.resident(FRAME, 1), a.s.dirty(FRAME, 1)), (true, dirty), "{kind}: tag 1 cached, dirty");
            equal!(a.s.resident(FRAME, 2), false, "{kind}: tag 2 cached");
            equal!(a.s.load(km1)?, held, "{kind}: read via KM(1)");
        }
    }
    Ok(())
}

fn mk_125(_: &Env) -> Verdict {
    let mut a = Aliases::new()?;
    let before = a.s.dram(FRAME);
    for offset in [5, 16, 47, 63] {
        a.s.set_dram(FRAME, before);
        let uncached = a.s.map_type(FRAME, 2, MemType::Uc);
        let end = a.s.run(|a| {
            a.store_byte(uncached + offset, 0xEE)?;
            a.hlt()
        })?;
        end.halted()?;
        let after = a.s.dram(FRAME);
        for n in 0..4 {
            let range = 16 * n..16 * n + 16;
            let hit = n == offset as usize / 16;
            equal!(before[range.clone()] != after[range], hit, "byte {offset}: block {n} changed");
        }
        // The right KeyID loses that block and no other.
        let seen = a.s.load(a.km1)?;
        for n in 0..4 {
            let range = 16 * n..16 * n + 16;
            equal!(seen[range.clone()] == RAMP[range], n != offset as usize / 16, "byte {offset}: block {n} readable");
        }
        a.s.clflush(a.km1)?;
    }
    Ok(())
}

fn mk_126(_: &Env) -> Verdict {
    let mut a = Aliases::new()?;
    let source = a.s.map(FRAME_2, 0);
    a.s.store(source, &THIRD)?;
    let km2 = a.km2;
    let mut decrypted = Vec::new();
    // The second run finds its code, its tables and the source in the cache: what it decrypts is what MOVDIR64B reads.
    for _ in 0..2 {
        a.s.set_dram(FRAME, [0xFF; 64]);
        let before = a.s.mem().stats().bytes_decrypted;
        let end = a.s.run(|a| {
            a.mov(rdi, km2)?;
            a.mov(rsi, source)?;
            a.movdir64b(rdi, zmmword_ptr(rsi))?;
            a.hlt()
        })?;
        end.halted()?;
        decrypted.push(a.s.mem().stats().bytes_decrypted - before);
        a.dram_is(2, &THIRD, "after MOVDIR64B")?;
        equal!(a.s.resident(FRAME, 2), false, "tag 2 cached");
    }
    equal!(decrypted[1], 0, "bytes decrypted by the second run");
    let end = a.s.run(|a| {
        a.mov(rdi, km2 + 8)?;
        a.mov(rsi, source)?;
        a.movdir64b(rdi, zmmword_ptr(rsi))?;
        a.hlt()
    })?;
    end.gp("MOVDIR64B to a misaligned line")
}

fn mk_127(_: &Env) -> Verdict {
    let mut a = Aliases::new()?;
    let (km1, km2) = (a.km1, a.km2);
    a.s.store(km1, &OTHER)?;
    a.s.store(km2, &THIRD)?;
    let word = |byte: u8| u64::from_le_bytes([byte; 8]);
    let exchange = |s: &mut Scenario, linear: u64, expected: u64, new: u64| -> Result<bool, Failure> {
        let end = s.run(|a| {
            a.mov(rdi, linear)?;
            a.mov(rax, expected)?;
            a.mov(rcx, new)?;
            a.lock().cmpxchg(qword_ptr(rdi), rcx)?;
            a.hlt()
        })?;
        Ok(end.halted()?.rflags & ZF != 0)
    };
    equal!(exchange(&mut a.s, km1, word(THIRD[0]), 1)?, false, "KM(1) compared with KM(2)'s value");
    equal!(exchange(&mut a.s, km1, word(OTHER[0]), 1)?, true, "KM(1) compared with its own");
    equal!(a.s.load(km2)?, THIRD, "KM(2)");
    // Both take the same "lock" word: no atomicity between aliases (R8).
    equal!(exchange(&mut a.s, km2, word(THIRD[0]), 2)?, true, "KM(2) compared with its own");
    let mut want = OTHER;
    want[..8].copy_from_slice(&1u64.to_le_bytes());
    equal!(a.s.load(km1)?, want, "KM(1)");
    a.dram_is(1, &RAMP, "after both")
}

fn mk_128(_: &Env) -> Verdict {
    let uncached = || Aliases::on(Power::default().cache(CacheModel::Off).activated_before_loading()?);
    // MK-115: the other KeyID sees the store, as its decryption of what is in DRAM.
    let mut a = uncached()?;
    a.s.store(a.km1, &OTHER)?;
    a.dram_is(1, &OTHER, "after a store")?;
    let seen = a.keys[1].decrypt(FRAME, &a.keys[0].encrypt(FRAME, &OTHER));
    equal!(a.s.load(a.km2)?, seen, "read via KM(2)");
    // MK-116: there is nothing to flush.
    a.s.clflush(a.km2)?;
    a.dram_is(1, &OTHER, "after CLFLUSH via KM(2)")?;
    // MK-118: the last store wins, whichever KeyID it had; stores of single bytes are merged through their key.
    for first in [0, 1] {
        let mut a = uncached()?;
        let mappings = [a.km1, a.km2];
        a.s.store(mappings[first], &OTHER)?;
        a.s.store(mappings[1 - first], &THIRD)?;
        a.s.wbinvd()?;
        a.dram_is(2 - first, &THIRD, "after two stores and WBINVD")?;
    }
    // MK-120: a key change takes the data with it.
    let mut a = uncached()?;
    a.s.store(a.km1, &OTHER)?;
    let new = Program::simple(1, 0x71);
    a.s.program(&new)?;
    equal!(a.s.load(a.km1)?, new.decrypt(FRAME, &a.keys[0].encrypt(FRAME, &OTHER)), "read with the new key");
    // MK-119: INVD loses nothing.
    let mut a = uncached()?;
    let km1 = a.km1;
    let end = a.s.run(|a| {
        store_line(a, km1, &OTHER)?;
        a.invd()?;
        load_line(a, km1)?;
        a.hlt()
    })?;
    equal!(end.halted()?.line(), OTHER, "read after INVD");
    Ok(())
}

fn mk_129(_: &Env) -> Verdict {
    let mut a = Aliases::new()?;
    let (km1, km2) = (a.km1, a.km2);
    // MOV EAX, imm32; RET.
    let routine = |value: u8| {
        let mut code = [0x90; 64];
        code[..6].copy_from_slice(&[0xB8, value, 0, 0, 0, 0xC3]);
        code
    };
    a.s.store(km1, &routine(1))?;
    let end = a.s.run(|a| {
        a.mov(rbx, km1)?;
        a.call(rbx)?;
        a.mov(r12, rax)?;
        store_line(a, km2, &routine(2))?;
        a.mov(rbx, km1)?;
        a.call(rbx)?;
        a.mov(r13, rax)?;
        // Serialising makes no difference: it is another address.
        a.xor(eax, eax)?;
        a.cpuid()?;
        a.mov(rbx, km1)?;
        a.call(rbx)?;
        a.mov(r14, rax)?;
        a.mov(rbx, km2)?;
        a.call(rbx)?;
        a.mov(r15, rax)?;
        a.hlt()
    })?;
    equal!(end.halted()?.regs[12..16], [1, 1, 1, 2], "the routine via KM(1) three times, via KM(2)");
    Ok(())
}
