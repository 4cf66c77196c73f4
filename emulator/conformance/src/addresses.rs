//! 10.4 Physical-address rules.

use crate::harness::layout::{self, FRAME, FRAME_2, FRAME_3};
use crate::harness::{
    ACTIVATE, Asm, Failure, Outcome, Power, Program, RAMP, Scenario, Verdict, load_line, pte, store_line,
};
use crate::statement::Env;
use crate::{check, equal, statements};
use iced_x86::code_asm::*;
use mem::{Event, MemType};
use x86::exception::pf;
use x86::msr::{IA32_MTRR_DEF_TYPE, IA32_MTRR_PHYSBASE0, IA32_MTRR_PHYSMASK0, IA32_TME_ACTIVATE, MK_TME_CORE_ACTIVATE};
use x86::tme::activate;

statements! {
    "10.4 Physical-address rules";
    mk_053 GuestAndProbe "PTE with KeyID bits, activated: no fault, the key is used";
    mk_054 Guest "PTE with bit M: #PF with RSVD = 1";
    mk_055 GuestAndProbe "PTE with bits M-1:M-k, not activated: an ordinary, unpopulated address";
    mk_056 GuestAndProbe "KeyID bits in PML4E, PDPTE, PDE: the table is read with that key";
    mk_057 GuestAndProbe "2-MiB and 1-GiB pages with a KeyID: the whole page uses it";
    mk_058 GuestAndProbe "MOV CR3 with KeyID bits: accepted, the top table is decrypted with that key";
    mk_059 Guest "MOV CR3 with bit M: #GP";
    mk_060 Guest "MTRR PHYSBASE/PHYSMASK with a KeyID bit after 9FFH: #GP";
    mk_061 GuestAndProbe "the same before 9FFH: accepted, later ignored in matching";
    mk_062 GuestAndProbe "memory through KeyIDs 0 and 5: the same effective type";
    mk_063 na "SMM is not modelled" "SMRAM through KeyID 5 outside SMM: blocked as through KeyID 0";
    mk_064 Guest "TDX, p = 1: PTE with bit M-1 outside SEAM: #PF with RSVD = 1; CPUID still M";
    mk_065 GuestAndProbe "KeyID above MK_TME_MAX_KEYS in a PTE: TME mode, event; PCONFIG #GP";
    mk_066 Guest "PTE's KeyID changed without INVLPG: the old translation is used until flushed";
    mk_067 GuestAndProbe "fetch through the wrong KeyID: the bytes executed are the wrong-key decryption";
    mk_068 GuestAndProbe "A/D update: dirties the PTE's line under the table's KeyID only";
}

/// `M` and `M - k` of the profile `default`, activated.
const M: u32 = 46;
const A: u32 = 40;
/// #PF error codes of a supervisor load and store that meet a reserved bit.
const RSVD_LOAD: u64 = (pf::P | pf::RSVD) as u64;
const RSVD_STORE: u64 = (pf::P | pf::RSVD | pf::WR) as u64;
/// IA32_MTRR_PHYSMASKn, IA32_MTRR_DEF_TYPE.
const VALID: u64 = 1 << 11;
const MTRR_ENABLE: u64 = 1 << 11;
const UC: u64 = 0;
const WT: u64 = 4;
const WB: u64 = 6;
/// Naturally aligned at [`FRAME`].
const RANGE_BYTES: u64 = 16 << 20;

fn try_load(s: &mut Scenario, linear: u64) -> Result<Outcome, Failure> {
    s.run(|a| {
        load_line(a, linear)?;
        a.hlt()
    })
}

fn mk_053(_: &Env) -> Verdict {
    let mut s = Power::default().activated()?;
    for keyid in [1, 2, 33, 63] {
        let program = Program::simple(keyid, keyid as u8);
        s.program(&program)?;
        let linear = s.map(FRAME, keyid);
        s.store_flush(linear, &RAMP)?;
        equal!(s.dram(FRAME), program.encrypt(FRAME, &RAMP), "DRAM through KeyID {keyid}");
        equal!(s.load(linear)?, RAMP, "the line read back through KeyID {keyid}");
    }
    Ok(())
}

fn mk_054(_: &Env) -> Verdict {
    for activated in [false, true] {
        let mut s = Power::default().reset_state()?;
        if activated {
            s.activate(ACTIVATE)?;
        }
        for bit in M..52 {
            let linear = s.map_entry(FRAME | 1 << bit | pte::RWU);
            try_load(&mut s, linear)?.page_fault(RSVD_LOAD, linear, &format!("load, PTE with bit {bit}"))?;
            let end = s.run(|a| a.store_byte(linear, 1))?;
            end.page_fault(RSVD_STORE, linear, &format!("store, PTE with bit {bit}"))?;
        }
    }
    Ok(())
}

fn mk_055(_: &Env) -> Verdict {
    let mut s = Power::default().reset_state()?;
    let plain = s.map(FRAME, 0);
    s.store_flush(plain, &RAMP)?;
    for bit in A..M {
        let linear = s.map_entry(FRAME | 1 << bit | pte::RWU);
        let end = s.run(|a| {
            store_line(a, linear, &[0x55; 64])?;
            load_line(a, linear)?;
            a.hlt()
        })?;
        equal!(end.halted()?.line(), [0xFF; 64], "load with address bit {bit}");
    }
    equal!(s.load(plain)?, RAMP, "the RAM below");
    equal!(s.dram(FRAME), RAMP, "DRAM");
    Ok(())
}

/// Tables for one page at linear address 512 GiB: the entry of the level `keyed` (0: PML4E, 1: PDPTE, 2: PDE) carries
/// KeyID 1; the table it points to is written through `through` and flushed. Returns the linear address.
fn table_chain(s: &mut Scenario, keyed: usize, through: u16) -> Result<u64, Failure> {
    let tables = [FRAME + 0x10_0000, FRAME + 0x10_1000, FRAME + 0x10_2000];
    for (level, &table) in tables.iter().enumerate() {
        let next = match tables.get(level + 1) {
            Some(&next) => s.bus(next, u16::from(level + 1 == keyed)).0,
            None => FRAME,
        };
        let writer = if level == keyed { through } else { 0 };
        let linear = s.map(table, writer);
        let mut line = [0; 64];
        line[..8].copy_from_slice(&(next | pte::RWU | pte::A | pte::D).to_le_bytes());
        s.store_flush(linear, &line)?;
    }
    let first = s.bus(tables[0], u16::from(keyed == 0)).0;
    s.write(layout::PML4 + 8, &(first | pte::RWU).to_le_bytes());
    Ok(1 << 39)
}

fn mk_056(_: &Env) -> Verdict {
    for keyed in 0..3 {
        let mut s = Power::default().activated()?;
        let program = Program::simple(1, 0x31);
        s.program(&program)?;
        let target = s.map(FRAME, 0);
        s.store(target, &RAMP)?;
        let linear = table_chain(&mut s, keyed, 1)?;
        equal!(s.load(linear)?, RAMP, "load, KeyID in level {keyed}");
    }
    for keyed in 0..3 {
        // The first key with which the entry that the walker sees is not present or has reserved bits: garbage that says
        // so by a page fault.
        for seed in 0x31..=u8::MAX {
            let mut s = Power::default().activated()?;
            let program = Program::simple(1, seed);
            s.program(&program)?;
            let linear = table_chain(&mut s, keyed, 0)?;
            let table = FRAME + 0x10_0000 + 0x1000 * keyed as u64;
            let seen = program.decrypt(table, &s.dram(table));
            let entry = seen.iter().take(8).rev().fold(0u64, |value, &byte| value << 8 | u64::from(byte));
            let code = match (entry & pte::P != 0, entry >> M & 0x3F != 0) {
                (false, _) => 0,
                (true, true) => RSVD_LOAD,
                (true, false) => continue,
            };
            try_load(&mut s, linear)?.page_fault(code, linear, &format!("garbage entry {entry:#x}"))?;
            break;
        }
    }
    Ok(())
}

fn mk_057(_: &Env) -> Verdict {
    let mut s = Power::default().activated()?;
    let program = Program::simple(1, 0x31);
    s.program(&program)?;
    let two_mib = s.bus(FRAME, 1).0 | pte::PS | pte::RWU;
    s.write(layout::PD_WINDOWS + 8, &two_mib.to_le_bytes());
    let one_gib = s.bus(0, 1).0 | pte::PS | pte::RWU;
    s.write(layout::PDPT + 16, &one_gib.to_le_bytes());
    let (at_2m, at_1g) = (layout::WINDOWS + (2 << 20), 2 << 30);
    for (linear, frame) in [
        (at_2m, FRAME),
        (at_2m + 0xFFFC0, FRAME + 0xFFFC0),
        (at_2m + 0x1F_FFC0, FRAME + 0x1F_FFC0),
        (at_1g + FRAME + 0x40_0000, FRAME + 0x40_0000),
        (at_1g + layout::RAM_BYTES - 64, layout::RAM_BYTES - 64),
    ] {
        s.store_flush(linear, &RAMP)?;
        equal!(s.dram(frame), program.encrypt(frame, &RAMP), "DRAM at {frame:#x}");
    }
    Ok(())
}

fn mk_058(_: &Env) -> Verdict {
    let mut s = Power::default().activated()?;
    let program = Program::simple(1, 0x31);
    s.program(&program)?;
    let table = s.map(FRAME, 1);
    let mut line = [0; 64];
    line[..8].copy_from_slice(&(layout::PDPT | pte::RWU | pte::A).to_le_bytes());
    s.store_flush(table, &line)?;
    equal!(s.dram(FRAME), program.encrypt(FRAME, &line), "DRAM of the table");
    let data = s.map(FRAME_2, 0);
    s.store(data, &RAMP)?;
    let cr3_value = s.bus(FRAME, 1).0;
    let end = s.run(|a| {
        a.mov(rax, cr3_value)?;
        a.mov(cr3, rax)?;
        load_line(a, data)?;
        a.mov(rbx, cr3)?;
        a.mov(rax, layout::PML4)?;
        a.mov(cr3, rax)?;
        a.hlt()
    })?;
    let end = end.halted()?;
    equal!(end.rbx(), cr3_value, "CR3");
    equal!(end.line(), RAMP, "a load with that CR3");
    Ok(())
}

fn mk_059(_: &Env) -> Verdict {
    let mut s = Power::default().activated()?;
    for bit in M..52 {
        let value = layout::PML4 | 1 << bit;
        let end = s.run(|a| {
            a.mov(rax, value)?;
            a.mov(cr3, rax)?;
            a.hlt()
        })?;
        end.gp(&format!("MOV CR3 with bit {bit}"))?;
        equal!(s.machine.cpu.cr3, layout::PML4, "CR3");
    }
    Ok(())
}

fn mk_060(_: &Env) -> Verdict {
    let mut s = Power::default().activated()?;
    for n in [0, 1, 9] {
        for bit in A..64 {
            let (base, mask) = (IA32_MTRR_PHYSBASE0 + 2 * n, IA32_MTRR_PHYSMASK0 + 2 * n);
            s.wrmsr(base, FRAME | WB | 1 << bit)?.gp(&format!("{base:X}H with bit {bit}"))?;
            s.wrmsr(mask, !(RANGE_BYTES - 1) & ((1 << A) - 1) | VALID | 1 << bit)?
                .gp(&format!("{mask:X}H with bit {bit}"))?;
            equal!(s.rdmsr(base)? | s.rdmsr(mask)?, 0, "the pair after #GP");
        }
    }
    Ok(())
}

/// Programs MTRR `n`, which is accepted, and reloads CR3.
fn mtrr(s: &mut Scenario, n: u32, base: u64, mask: u64) -> Verdict {
    let end = s.run(|a| {
        a.wrmsr_value(IA32_MTRR_PHYSBASE0 + 2 * n, base)?;
        a.wrmsr_value(IA32_MTRR_PHYSMASK0 + 2 * n, mask | VALID)?;
        a.mov(rax, cr3)?;
        a.mov(cr3, rax)?;
        a.hlt()
    })?;
    end.halted()?;
    equal!(s.rdmsr(IA32_MTRR_PHYSBASE0 + 2 * n)?, base, "PHYSBASE{n}");
    equal!(s.rdmsr(IA32_MTRR_PHYSMASK0 + 2 * n)?, mask | VALID, "PHYSMASK{n}");
    Ok(())
}

fn mk_061(_: &Env) -> Verdict {
    let mut s = Power::default().reset_state()?;
    let keyid_bits = 0x2A << A;
    let full_mask = ((1u64 << M) - 1) & !(RANGE_BYTES - 1);
    // The harness stays write-back; the range under test has KeyID bits in base and mask.
    mtrr(&mut s, 0, WB, ((1u64 << A) - 1) & !(FRAME - 1))?;
    mtrr(&mut s, 1, FRAME | WB | keyid_bits, full_mask)?;
    s.wrmsr(IA32_MTRR_DEF_TYPE, UC | MTRR_ENABLE)?.halted()?;
    let plain = s.map(FRAME, 0);
    s.load(plain)?;
    equal!(s.resident(FRAME, 0), false, "cached before activation");
    s.wrmsr(IA32_TME_ACTIVATE, ACTIVATE)?.halted()?;
    s.wrmsr(MK_TME_CORE_ACTIVATE, 0)?.halted()?;
    equal!(s.rdmsr(IA32_MTRR_PHYSBASE0 + 2)?, FRAME | WB | keyid_bits, "PHYSBASE1 after 9FFH");
    equal!(s.rdmsr(IA32_MTRR_PHYSMASK0 + 2)?, full_mask | VALID, "PHYSMASK1 after 9FFH");
    for keyid in [0, 1, 0x2A] {
        let linear = s.map(FRAME, keyid);
        s.load(linear)?;
        equal!(s.resident(FRAME, keyid), true, "cached through KeyID {keyid} after 9FFH");
    }
    Ok(())
}

fn mk_062(_: &Env) -> Verdict {
    let mut s = Power::default().activated()?;
    let mask = ((1u64 << A) - 1) & !(RANGE_BYTES - 1);
    mtrr(&mut s, 0, FRAME | UC, mask)?;
    mtrr(&mut s, 1, (FRAME + RANGE_BYTES) | WT, mask)?;
    for keyid in [0, 5] {
        for (frame, ty, cached, dirty) in
            [(FRAME, "UC", false, false), (FRAME + RANGE_BYTES, "WT", true, false), (FRAME - 0x1000, "WB", true, true)]
        {
            let linear = s.map(frame, keyid);
            let end = s.run(|a| {
                load_line(a, linear)?;
                store_line(a, linear, &RAMP)?;
                a.hlt()
            })?;
            end.halted()?;
            equal!(s.resident(frame, keyid), cached, "{ty} memory through KeyID {keyid}: cached");
            equal!(s.dirty(frame, keyid), dirty, "{ty} memory through KeyID {keyid}: dirty");
            s.clflush(linear)?;
        }
    }
    // The type of the page tables says the rest, alike for both.
    for ty in [MemType::Uc, MemType::Wb] {
        for keyid in [0, 5] {
            let linear = s.map_type(FRAME_3 - 0x4000, keyid, ty);
            s.load(linear)?;
            equal!(s.resident(FRAME_3 - 0x4000, keyid), ty == MemType::Wb, "PAT {ty:?} through KeyID {keyid}: cached");
            s.clflush(linear)?;
        }
    }
    Ok(())
}

fn mk_064(_: &Env) -> Verdict {
    let p = 1 << activate::TDX_RESERVED_KEYID_BITS_SHIFT;
    let mut s = Power::default().tdx().activated_with(ACTIVATE | p)?;
    let private = s.map_entry(FRAME | 1 << (M - 1) | pte::RWU);
    try_load(&mut s, private)?.page_fault(RSVD_LOAD, private, "PTE with bit M-1")?;
    let shared = s.map_entry(FRAME | 1 << (M - 2) | pte::RWU);
    try_load(&mut s, shared)?.halted()?;
    // The same in a directory entry, and in CR3 (section 3.9).
    s.write(layout::PD_WINDOWS + 8, &(layout::PT_WINDOWS | 1 << (M - 1) | pte::RWU).to_le_bytes());
    let linear = layout::WINDOWS + (2 << 20);
    try_load(&mut s, linear)?.page_fault(RSVD_LOAD, linear, "PDE with bit M-1")?;
    let end = s.run(|a| {
        a.mov(rax, layout::PML4 | 1 << (M - 1))?;
        a.mov(cr3, rax)?;
        a.hlt()
    })?;
    end.gp("MOV CR3 with bit M-1")?;
    equal!(s.cpuid(0x8000_0008, 0)?[0] & 0xFF, u64::from(M), "M");
    Ok(())
}

fn mk_065(_: &Env) -> Verdict {
    const MAX_KEYS: u64 = 50;
    let power = Power::default().features(|f| f.capability = f.capability & !(0x7FFF << 36) | MAX_KEYS << 36);
    let mut s = power.activated()?;
    let zero = s.map(FRAME, 0);
    s.store_flush(zero, &RAMP)?;
    let tme = s.dram(FRAME);
    check!(tme != RAMP, "KeyID 0 stored plaintext");
    for keyid in [51, 63] {
        s.take_events();
        let linear = s.map(FRAME, keyid);
        s.store_flush(linear, &RAMP)?;
        equal!(s.dram(FRAME), tme, "DRAM through KeyID {keyid}");
        let told = |e: &Event| matches!(e, Event::KeyidBeyondMax { keyid: k, .. } if k.0 == keyid);
        check!(s.take_events().iter().any(told), "no event keyid_beyond_max for KeyID {keyid}");
        s.pconfig(&Program::simple(keyid, 1))?.gp(&format!("PCONFIG on KeyID {keyid}"))?;
    }
    s.program(&Program::simple(50, 1))
}

fn mk_066(_: &Env) -> Verdict {
    let mut s = Power::default().activated()?;
    for keyid in [1, 2] {
        s.program(&Program::simple(keyid, 0x40 + keyid as u8))?;
        let linear = s.map(FRAME, keyid);
        s.store(linear, &[keyid as u8; 64])?;
    }
    let linear = s.map(FRAME, 1);
    let (entry, changed) = (s.entry_of(linear), s.bus(FRAME, 2).0 | pte::RWU);
    let end = s.run(|a| {
        a.mov(rsi, linear)?;
        a.movzx(r8d, byte_ptr(rsi))?;
        a.mov(rdi, entry)?;
        a.mov(rax, changed)?;
        a.mov(qword_ptr(rdi), rax)?;
        a.movzx(r9d, byte_ptr(rsi))?;
        a.invlpg(byte_ptr(rsi))?;
        a.movzx(r10d, byte_ptr(rsi))?;
        a.hlt()
    })?;
    equal!(end.halted()?.regs[8..11], [1, 1, 2], "loads before the change, after it, after INVLPG");
    Ok(())
}

fn mk_067(_: &Env) -> Verdict {
    let mut s = Power::default().activated()?;
    let [right, wrong] = [Program::simple(1, 0x31), Program::simple(2, 0x51)];
    s.program(&right)?;
    s.program(&wrong)?;
    // MOV EAX, 12345678H; HLT; and filler.
    let mut code = [0x90; 64];
    code[..6].copy_from_slice(&[0xB8, 0x78, 0x56, 0x34, 0x12, 0xF4]);
    // What KeyID 1 has to store so that KeyID 2 fetches that.
    let stored = right.decrypt(FRAME, &wrong.encrypt(FRAME, &code));
    let (km1, km2) = (s.map(FRAME, 1), s.map(FRAME, 2));
    s.store_flush(km1, &stored)?;
    let end = s.run(|a| {
        a.mov(rbx, km2)?;
        a.jmp(rbx)
    })?;
    equal!(end.halted()?.rax(), 0x1234_5678, "EAX");
    Ok(())
}

fn mk_068(_: &Env) -> Verdict {
    let mut s = Power::default().activated()?;
    let program = Program::simple(1, 0x31);
    s.program(&program)?;
    let (km0, km1) = (s.map(FRAME, 0), s.map(FRAME, 1));
    let mut line = [0; 64];
    line[..8].copy_from_slice(&(FRAME_2 | pte::RWU).to_le_bytes());
    s.store_flush(km1, &line)?;
    let raw = s.dram(FRAME);
    let garbage = s.load(km0)?;
    let directory = s.bus(FRAME, 1).0 | pte::RWU;
    s.write(layout::PD_WINDOWS + 8, &directory.to_le_bytes());
    let linear = layout::WINDOWS + (2 << 20);
    let mut expect = |store: bool, bits: u64| -> Verdict {
        let end = s.run(|a| {
            a.mov(rsi, linear)?;
            if store {
                a.mov(byte_ptr(rsi), 1)?
            } else {
                a.mov(al, byte_ptr(rsi))?
            }
            a.hlt()
        })?;
        end.halted()?;
        equal!(s.dirty(FRAME, 1), true, "the table's line under KeyID 1 dirty");
        equal!(s.dirty(FRAME, 0), false, "the table's line under KeyID 0 dirty");
        equal!(s.dram(FRAME), raw, "DRAM of the table");
        let mut updated = line;
        updated[..8].copy_from_slice(&(FRAME_2 | pte::RWU | bits).to_le_bytes());
        equal!(s.load(km1)?, updated, "the table through KeyID 1");
        equal!(s.load(km0)?, garbage, "the table through KeyID 0");
        Ok(())
    };
    expect(false, pte::A)?;
    expect(true, pte::A | pte::D)
}
