//! 10.3 Exclusion range, core activation, partitioning, saved key.

use crate::activate::slot_is_empty;
use crate::harness::layout::{FRAME, FRAME_2, RAM_BYTES};
use crate::harness::{ACTIVATE, Asm, Failure, Power, Program, RAMP, Scenario, Verdict};
use crate::statement::Env;
use crate::{check, equal, statements};
use mem::Event;
use x86::msr::{
    IA32_MKTME_KEYID_PARTITIONING, IA32_MTRR_DEF_TYPE, IA32_MTRR_PHYSBASE0, IA32_MTRR_PHYSMASK0, IA32_TME_ACTIVATE,
    IA32_TME_CLEAR_SAVED_KEY, IA32_TME_EXCLUDE_BASE, IA32_TME_EXCLUDE_MASK, MK_TME_CORE_ACTIVATE,
};
use x86::platform::ResetKind;
use x86::tme::{activate, exclude};

statements! {
    "10.3 Exclusion range, core activation, partitioning, saved key";
    mk_038 Guest "983H with bits 10:0 or >= M, 984H with bits 11:0 or >= M: #GP";
    mk_039 Guest "983H with a gap in the mask, or a run that does not end at bit M-1: #GP";
    mk_040 Guest "983H and 984H after lock: #GP, also when locked off";
    mk_041 GuestAndProbe "KeyID-0 stores: plaintext inside the excluded range, ciphertext outside";
    mk_042 GuestAndProbe "KeyID-1 stores inside the range: ciphertext, keyed and un-keyed";
    mk_043 GuestAndProbe "983H Enable = 0: no exclusion";
    mk_044 Guest "9FFH reads 0 before and k << 32 after its write on an activated package";
    mk_045 Guest "WRMSR 9FFH with any bit set: #GP";
    mk_046 Guest "WRMSR(9FFH, 0) before activation: no fault, reads 0, to be repeated";
    mk_047 na "SMM is not modelled" "an SMI without a 9FFH write: 9FFH reads k << 32";
    mk_048 GuestAndProbe "core without 9FFH: the key applies, M-bit MTRR masks miss, M-k-bit ones match, event";
    mk_049 Guest "87H: 0 unlocked, 0 for k = 0, 63 for k = 6, 31 + (32 << 32) for k = 6, p = 1";
    mk_050 Guest "WRMSR 87H: #GP";
    mk_051 Guest "WRMSR(9FBH, 1) empties the slot";
    mk_052 Guest "WRMSR 9FBH with bits 63:1: #GP";
}

/// `M` of the profile `default`.
const M: u32 = 46;
/// Naturally aligned at [`FRAME`].
const EXCLUDED_BYTES: u64 = 16 << 20;
/// TMEEMASK for that size, without Enable.
const EXCLUDE_MASK: u64 = ((1 << M) - 1) & !(EXCLUDED_BYTES - 1);
const OUTSIDE: u64 = FRAME + EXCLUDED_BYTES;
/// IA32_MTRR_PHYSMASKn.
const VALID: u64 = 1 << 11;
/// Memory types of range registers.
const UC: u64 = 0;
const WB: u64 = 6;
/// IA32_MTRR_DEF_TYPE.
const MTRR_ENABLE: u64 = 1 << 11;

/// Writes 984H and 983H; both are accepted.
fn exclude_range(s: &mut Scenario, mask: u64, base: u64) -> Verdict {
    s.wrmsr(IA32_TME_EXCLUDE_BASE, base)?.halted()?;
    s.wrmsr(IA32_TME_EXCLUDE_MASK, mask)?.halted()?;
    equal!(s.rdmsr(IA32_TME_EXCLUDE_MASK)?, mask, "983H");
    equal!(s.rdmsr(IA32_TME_EXCLUDE_BASE)?, base, "984H");
    Ok(())
}

/// DRAM after a store of the ramp through a KeyID.
fn stored_ramp(s: &mut Scenario, frame: u64, keyid: u16) -> Result<[u8; 64], Failure> {
    let linear = s.map(frame, keyid);
    s.store_flush(linear, &RAMP)?;
    equal!(s.load(linear)?, RAMP, "the line read back through KeyID {keyid}");
    Ok(s.dram(frame))
}

fn mk_038(_: &Env) -> Verdict {
    let mut s = Power::default().reset_state()?;
    for bit in (0..=10).chain(M..64) {
        s.wrmsr(IA32_TME_EXCLUDE_MASK, EXCLUDE_MASK | 1 << bit)?.gp(&format!("983H with bit {bit}"))?;
    }
    for bit in (0..=11).chain(M..64) {
        s.wrmsr(IA32_TME_EXCLUDE_BASE, FRAME | 1 << bit)?.gp(&format!("984H with bit {bit}"))?;
    }
    equal!(s.rdmsr(IA32_TME_EXCLUDE_MASK)? | s.rdmsr(IA32_TME_EXCLUDE_BASE)?, 0, "983H and 984H");
    exclude_range(&mut s, EXCLUDE_MASK | exclude::ENABLE, FRAME)
}

fn mk_039(_: &Env) -> Verdict {
    let mut s = Power::default().reset_state()?;
    for bit in 25..M {
        s.wrmsr(IA32_TME_EXCLUDE_MASK, EXCLUDE_MASK & !(1 << bit))?.gp(&format!("mask without bit {bit}"))?;
    }
    for end in 13..M {
        let mask = ((1u64 << end) - 1) & !0xFFF;
        s.wrmsr(IA32_TME_EXCLUDE_MASK, mask)?.gp(&format!("run that ends at bit {}", end - 1))?;
    }
    for start in 12..M {
        let mask = ((1u64 << M) - 1) & !((1 << start) - 1);
        exclude_range(&mut s, mask, 0)?;
    }
    // MC-11: no bit at all is accepted.
    exclude_range(&mut s, 0, 0)
}

fn mk_040(_: &Env) -> Verdict {
    for value in [ACTIVATE, 0] {
        let mut s = Power::default().reset_state()?;
        exclude_range(&mut s, EXCLUDE_MASK, FRAME)?;
        s.wrmsr(IA32_TME_ACTIVATE, value)?.halted()?;
        for (number, reads) in [(IA32_TME_EXCLUDE_MASK, EXCLUDE_MASK), (IA32_TME_EXCLUDE_BASE, FRAME)] {
            for write in [0, reads] {
                s.wrmsr(number, write)?.gp(&format!("WRMSR {number:X}H with 982H locked by {value:#x}"))?;
            }
            equal!(s.rdmsr(number)?, reads, "{number:X}H");
        }
    }
    Ok(())
}

fn mk_041(_: &Env) -> Verdict {
    let mut s = Power::default().reset_state()?;
    exclude_range(&mut s, EXCLUDE_MASK | exclude::ENABLE, FRAME)?;
    s.activate(ACTIVATE)?;
    for inside in [FRAME, FRAME + EXCLUDED_BYTES - 64] {
        let page = inside & !0xFFF;
        let linear = s.map(page, 0) + (inside - page);
        s.store_flush(linear, &RAMP)?;
        equal!(s.dram(inside), RAMP, "DRAM at {inside:#x}, inside");
    }
    for outside in [FRAME - 0x1000, OUTSIDE] {
        check!(stored_ramp(&mut s, outside, 0)? != RAMP, "plaintext in DRAM at {outside:#x}, outside");
    }
    Ok(())
}

fn mk_042(_: &Env) -> Verdict {
    let mut s = Power::default().reset_state()?;
    exclude_range(&mut s, EXCLUDE_MASK | exclude::ENABLE, FRAME)?;
    s.activate(ACTIVATE)?;
    check!(stored_ramp(&mut s, FRAME, 1)? != RAMP, "un-keyed KeyID 1 stored plaintext in the excluded range");
    let program = Program::simple(1, 0x31);
    s.program(&program)?;
    equal!(stored_ramp(&mut s, FRAME, 1)?, program.encrypt(FRAME, &RAMP), "DRAM through keyed KeyID 1");
    Ok(())
}

fn mk_043(_: &Env) -> Verdict {
    let mut s = Power::default().reset_state()?;
    exclude_range(&mut s, EXCLUDE_MASK, FRAME)?;
    s.activate(ACTIVATE)?;
    check!(stored_ramp(&mut s, FRAME, 0)? != RAMP, "plaintext in DRAM with 983H Enable = 0");
    Ok(())
}

fn mk_044(_: &Env) -> Verdict {
    let mut s = Power::default().reset_state()?;
    equal!(s.rdmsr(MK_TME_CORE_ACTIVATE)?, 0, "9FFH after reset");
    s.wrmsr(IA32_TME_ACTIVATE, ACTIVATE)?.halted()?;
    equal!(s.rdmsr(MK_TME_CORE_ACTIVATE)?, 0, "9FFH before its write");
    s.wrmsr(MK_TME_CORE_ACTIVATE, 0)?.halted()?;
    equal!(s.rdmsr(MK_TME_CORE_ACTIVATE)?, 6 << 32, "9FFH after its write");
    Ok(())
}

fn mk_045(_: &Env) -> Verdict {
    let mut s = Power::default().activated()?;
    for bit in 0..64 {
        s.wrmsr(MK_TME_CORE_ACTIVATE, 1 << bit)?.gp(&format!("9FFH with bit {bit}"))?;
    }
    s.wrmsr(MK_TME_CORE_ACTIVATE, 6 << 32)?.gp("9FFH with its own value")?;
    equal!(s.rdmsr(MK_TME_CORE_ACTIVATE)?, 6 << 32, "9FFH");
    Ok(())
}

fn mk_046(_: &Env) -> Verdict {
    let mut s = Power::default().reset_state()?;
    s.wrmsr(MK_TME_CORE_ACTIVATE, 0)?.halted()?;
    equal!(s.rdmsr(MK_TME_CORE_ACTIVATE)?, 0, "9FFH before activation");
    s.wrmsr(IA32_TME_ACTIVATE, ACTIVATE)?.halted()?;
    equal!(s.rdmsr(MK_TME_CORE_ACTIVATE)?, 0, "9FFH after activation, not yet repeated");
    s.wrmsr(MK_TME_CORE_ACTIVATE, 0)?.halted()?;
    equal!(s.rdmsr(MK_TME_CORE_ACTIVATE)?, 6 << 32, "9FFH after the repetition");
    Ok(())
}

/// RAM write-back by one MTRR with a mask of `bits` bits, everything else uncacheable.
fn mtrr_for_ram(s: &mut Scenario, bits: u32) -> Verdict {
    let mask = ((1u64 << bits) - 1) & !(RAM_BYTES - 1);
    let end = s.run(|a| {
        a.wrmsr_value(IA32_MTRR_PHYSBASE0, WB)?;
        a.wrmsr_value(IA32_MTRR_PHYSMASK0, mask | VALID)?;
        a.wrmsr_value(IA32_MTRR_DEF_TYPE, UC | MTRR_ENABLE)?;
        a.hlt()
    })?;
    end.halted()?;
    Ok(())
}

fn mk_048(_: &Env) -> Verdict {
    for (bits, write_back) in [(46, false), (40, true)] {
        let mut s = Power::default().reset_state()?;
        mtrr_for_ram(&mut s, bits)?;
        s.wrmsr(IA32_TME_ACTIVATE, ACTIVATE)?.halted()?;
        let program = Program::simple(1, 0x31);
        s.program(&program)?;
        s.take_events();
        let (linear, second) = (s.map(FRAME, 1), s.map(FRAME_2, 1));
        s.store(linear, &RAMP)?;
        s.store(second, &RAMP)?;
        equal!(s.resident(FRAME, 1), write_back, "cached with {bits}-bit masks");
        s.clflush(linear)?;
        equal!(s.dram(FRAME), program.encrypt(FRAME, &RAMP), "DRAM with {bits}-bit masks");
        let told = s.take_events().iter().filter(|e| **e == Event::CoreNotActivated { cpu: 0 }).count();
        equal!(told, 1, "events core_not_activated");
        // Writing 9FFH repairs it.
        s.wrmsr(MK_TME_CORE_ACTIVATE, 0)?.halted()?;
        s.store(linear, &RAMP)?;
        equal!(s.resident(FRAME, 1), true, "cached after the 9FFH write");
    }
    Ok(())
}

fn mk_049(_: &Env) -> Verdict {
    let p = 1 << activate::TDX_RESERVED_KEYID_BITS_SHIFT;
    equal!(Power::default().reset_state()?.rdmsr(IA32_MKTME_KEYID_PARTITIONING)?, 0, "87H unlocked");
    for (power, value, reads) in [
        (Power::default(), 2, 0),
        (Power::default(), ACTIVATE, 63),
        (Power::default().tdx(), ACTIVATE | p, 31 | 32 << 32),
        (Power::default().tdx(), ACTIVATE, 63),
    ] {
        let mut s = power.activated_with(value)?;
        equal!(s.rdmsr(IA32_MKTME_KEYID_PARTITIONING)?, reads, "87H with 982H = {value:#x}");
    }
    let mut s = Power::default().reset_state()?;
    s.wrmsr(IA32_TME_ACTIVATE, 0)?.halted()?;
    equal!(s.rdmsr(IA32_MKTME_KEYID_PARTITIONING)?, 0, "87H locked off");
    Ok(())
}

fn mk_050(_: &Env) -> Verdict {
    let mut s = Power::default().activated()?;
    for value in [0, 63, u64::MAX] {
        s.wrmsr(IA32_MKTME_KEYID_PARTITIONING, value)?.gp("WRMSR 87H")?;
    }
    equal!(s.rdmsr(IA32_MKTME_KEYID_PARTITIONING)?, 63, "87H");
    Ok(())
}

fn mk_051(_: &Env) -> Verdict {
    const RESUME: u64 = ACTIVATE | activate::KEY_SELECT;
    for clear in [true, false] {
        let mut s = Power::default().activated_with(ACTIVATE | activate::SAVE_KEY)?;
        // 982H's lock does not cover 9FBH; writing 0 does nothing (MC-16).
        s.wrmsr(IA32_TME_CLEAR_SAVED_KEY, u64::from(clear))?.halted()?;
        equal!(s.rdmsr(IA32_TME_CLEAR_SAVED_KEY)?, 0, "9FBH");
        s.reset(ResetKind::Warm);
        if clear {
            slot_is_empty(&mut s)?;
        } else {
            s.wrmsr(IA32_TME_ACTIVATE, RESUME)?.halted()?;
            equal!(s.rdmsr(IA32_TME_ACTIVATE)?, RESUME | 1, "982H");
        }
    }
    Ok(())
}

fn mk_052(_: &Env) -> Verdict {
    let mut s = Power::default().reset_state()?;
    for bit in 1..64 {
        s.wrmsr(IA32_TME_CLEAR_SAVED_KEY, 1 << bit)?.gp(&format!("9FBH with bit {bit}"))?;
        s.wrmsr(IA32_TME_CLEAR_SAVED_KEY, 1 << bit | 1)?.gp(&format!("9FBH with bits {bit} and 0"))?;
    }
    Ok(())
}
