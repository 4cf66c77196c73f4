//! 10.2 IA32_TME_CAPABILITY and IA32_TME_ACTIVATE.

use crate::harness::layout::{FRAME, FRAME_2, K5_FRAME};
use crate::harness::{ACTIVATE, Asm, Mode, Power, Program, RAMP, Scenario, Verdict, key};
use crate::statement::Env;
use crate::{check, equal, statements};
use crypto::{Algorithm, CipherLine, PlainLine, XtsKey};
use mem::{EntropyStep, EntropyStream, TmeProfile};
use x86::msr::{
    IA32_MKTME_KEYID_PARTITIONING, IA32_TME_ACTIVATE, IA32_TME_CAPABILITY, IA32_TME_EXCLUDE_BASE,
    IA32_TME_EXCLUDE_MASK, MK_TME_CORE_ACTIVATE,
};
use x86::platform::ResetKind;
use x86::tme::{activate, capability};

statements! {
    "10.2 IA32_TME_CAPABILITY / IA32_TME_ACTIVATE";
    mk_009 Guest "RDMSR and WRMSR of 981H-984H at CPL 3: #GP";
    mk_010 Guest "WRMSR 981H with its own value: #GP";
    mk_011 Guest "982H reads 0 after reset";
    mk_012 Guest "WRMSR 982H with one of bits 8-30, 40-47, 52-63: #GP";
    mk_013 Guest "WRMSR 982H: the written bit 0 has no influence";
    mk_014 Guest "policy 1, 3, 4-15: #GP";
    mk_015 Guest "policy 2 without CAPABILITY[2]: #GP";
    mk_016 Guest "bit 31 without CAPABILITY[31]: #GP";
    mk_017 Guest "more KeyID bits than MK_TME_MAX_KEYID_BITS; policy 0 on client4: #GP";
    mk_018 Guest "KeyID bits with enable = 0: #GP";
    mk_019 Guest "bits 39:36 with the TDX option off, or p > k with it on: #GP";
    mk_020 Guest "CRYPTO_ALGS bit that CAPABILITY[15:0] lacks: #GP";
    mk_021 Guest "profile tme-only: any of bits 63:32: #GP";
    mk_022 GuestAndProbe "WRMSR 982H := 0: reads 1, memory is plaintext, a second write #GP";
    mk_023 GuestAndProbe "WRMSR 982H := 2: reads 3, KeyID-0 stores are ciphertext in DRAM";
    mk_024 Guest "RNG fails once: reads 0, no fault, not locked; the retry succeeds";
    mk_025 Guest "RNG fails with k = 6 requested: the write is not committed";
    mk_026 GuestAndProbe "key select with an empty slot, k = 0: reads 4, not locked, plaintext";
    mk_027 Guest "key select with an empty slot, k = 6: MSR unchanged, not locked";
    mk_028 GuestAndProbe "saved key restored after a warm reset: reads ...111b, KeyID-0 data readable";
    mk_029 Guest "nothing saved (bit 3 = 0): the slot is empty after a warm reset";
    mk_030 Guest "a cold reset empties the slot";
    mk_031 Guest "WRMSR 982H while locked: #GP; with locked_write=ignore no fault and no change";
    mk_032 Guest "INIT while locked: MSR unchanged";
    mk_033 Guest "warm reset: 982H, 983H, 984H, 9FFH, 87H read 0";
    mk_034 GuestAndProbe "two activations with new keys: different ciphertext";
    mk_035 Guest "k > 0 with CRYPTO_ALGS = 0: accepted, every PCONFIG leaf 0 #GP";
    mk_036 GuestAndProbe "data in DRAM before activation reads as the XTS decryption of its raw bytes";
    mk_037 GuestAndProbe "a line cached during activation stays readable, and is flushed as ciphertext";
}

/// 982H as resume firmware writes it: key select and enable.
const RESTORE: u64 = activate::ENABLE | activate::KEY_SELECT;
/// The value of section 10, which restores the key.
const ACTIVATE_RESTORE: u64 = ACTIVATE | activate::KEY_SELECT;
/// [`ACTIVATE`] without TME-MK fields.
const TME_ON: u64 = activate::ENABLE;

/// WRMSR(982H) raises #GP(0), and 982H reads as before.
fn refused(s: &mut Scenario, value: u64) -> Verdict {
    let before = s.rdmsr(IA32_TME_ACTIVATE)?;
    s.wrmsr(IA32_TME_ACTIVATE, value)?.gp(&format!("WRMSR 982H of {value:#x}"))?;
    equal!(s.rdmsr(IA32_TME_ACTIVATE)?, before, "982H after the refused write of {value:#x}");
    Ok(())
}

/// WRMSR(982H) does not fault, and 982H then reads `reads`.
fn accepted(s: &mut Scenario, value: u64, reads: u64) -> Verdict {
    s.wrmsr(IA32_TME_ACTIVATE, value)?.halted()?;
    equal!(s.rdmsr(IA32_TME_ACTIVATE)?, reads, "982H after WRMSR of {value:#x}");
    Ok(())
}

/// What DRAM holds after a store of the ramp through KeyID 0 and a flush.
fn stored_ramp(s: &mut Scenario, frame: u64) -> Result<[u8; 64], crate::harness::Failure> {
    let linear = s.map(frame, 0);
    s.store_flush(linear, &RAMP)?;
    Ok(s.dram(frame))
}

fn mk_009(_: &Env) -> Verdict {
    let mut s = Power::default().reset_state()?;
    for number in IA32_TME_CAPABILITY..=IA32_TME_EXCLUDE_BASE {
        let end = s.run_in(Mode::User, |a| {
            a.rdmsr_of(number)?;
            a.int(0x80)
        })?;
        end.gp(&format!("RDMSR {number:X}H at CPL 3"))?;
        let end = s.run_in(Mode::User, |a| {
            a.wrmsr_value(number, 0)?;
            a.int(0x80)
        })?;
        end.gp(&format!("WRMSR {number:X}H at CPL 3"))?;
    }
    equal!(s.rdmsr(IA32_TME_ACTIVATE)?, 0, "982H");
    Ok(())
}

fn mk_010(_: &Env) -> Verdict {
    let mut s = Power::default().reset_state()?;
    let value = s.rdmsr(IA32_TME_CAPABILITY)?;
    const BIT_30: u64 = capability::CLEAR_SAVED_KEY;
    equal!(value & !BIT_30, 0x0000_03F6_8000_0005, "981H apart from bit 30");
    s.wrmsr(IA32_TME_CAPABILITY, value)?.gp("WRMSR 981H")
}

fn mk_011(_: &Env) -> Verdict {
    for profile in TmeProfile::ALL.into_iter().filter(|p| p.features().has_tme) {
        equal!(Power::profile(profile).reset_state()?.rdmsr(IA32_TME_ACTIVATE)?, 0, "{profile}: 982H");
    }
    Ok(())
}

fn mk_012(_: &Env) -> Verdict {
    let mut s = Power::default().reset_state()?;
    for bit in (8..=30).chain(40..=47).chain(52..=63) {
        refused(&mut s, ACTIVATE | 1 << bit)?;
    }
    accepted(&mut s, ACTIVATE, ACTIVATE | 1)
}

fn mk_013(_: &Env) -> Verdict {
    for (value, reads) in [(ACTIVATE, ACTIVATE | 1), (0, 1), (RESTORE, activate::KEY_SELECT)] {
        for bit_0 in [0, 1] {
            accepted(&mut Power::default().reset_state()?, value | bit_0, reads)?;
        }
    }
    Ok(())
}

fn mk_014(_: &Env) -> Verdict {
    let integrity = capability::AES_XTS_128_INTEGRITY | capability::AES_XTS_256_INTEGRITY;
    // Not enumerated (W5), and enumerated but not allowed for KeyID 0 (W6).
    for enumerated in [0, integrity] {
        let mut s = Power::default().features(|f| f.capability |= enumerated).reset_state()?;
        for policy in [1, 3].into_iter().chain(4..=15) {
            refused(&mut s, TME_ON | policy << activate::POLICY_SHIFT)?;
        }
        accepted(&mut s, TME_ON, TME_ON | 1)?;
    }
    Ok(())
}

fn mk_015(_: &Env) -> Verdict {
    let without = |power: Power| power.features(|f| f.capability &= !capability::AES_XTS_256);
    let policy_2 = TME_ON | 2 << activate::POLICY_SHIFT;
    refused(&mut without(Power::default()).reset_state()?, policy_2)?;
    accepted(&mut Power::default().reset_state()?, policy_2, policy_2 | 1)
}

fn mk_016(_: &Env) -> Verdict {
    let without = Power::default().features(|f| f.capability &= !capability::BYPASS);
    let mut s = without.reset_state()?;
    for value in [TME_ON, ACTIVATE, 0] {
        refused(&mut s, value | activate::BYPASS)?;
    }
    accepted(&mut Power::default().reset_state()?, ACTIVATE | activate::BYPASS, ACTIVATE | activate::BYPASS | 1)
}

fn mk_017(_: &Env) -> Verdict {
    for (profile, bits, policy) in [
        (TmeProfile::Default, 6, 0u64),
        (TmeProfile::Client4, 4, 2),
        (TmeProfile::Server6, 6, 0),
        (TmeProfile::Server7, 7, 0),
    ] {
        let mut s = Power::profile(profile).reset_state()?;
        let value = |k: u64| TME_ON | policy << activate::POLICY_SHIFT | k << activate::MK_TME_KEYID_BITS_SHIFT;
        refused(&mut s, value(bits + 1))?;
        if profile == TmeProfile::Client4 {
            refused(&mut s, TME_ON)?;
        }
        accepted(&mut s, value(bits), value(bits) | 1)?;
    }
    Ok(())
}

fn mk_018(_: &Env) -> Verdict {
    let mut s = Power::default().reset_state()?;
    refused(&mut s, 1 << activate::MK_TME_KEYID_BITS_SHIFT)?;
    refused(&mut s, 6 << activate::MK_TME_KEYID_BITS_SHIFT)
}

fn mk_019(_: &Env) -> Verdict {
    let p = |bits: u64| bits << activate::TDX_RESERVED_KEYID_BITS_SHIFT;
    let mut s = Power::default().reset_state()?;
    for bits in 1..=15 {
        refused(&mut s, ACTIVATE | p(bits))?;
    }
    let mut s = Power::default().tdx().reset_state()?;
    for bits in 7..=15 {
        refused(&mut s, ACTIVATE | p(bits))?;
    }
    accepted(&mut s, ACTIVATE | p(1), ACTIVATE | p(1) | 1)
}

fn mk_020(_: &Env) -> Verdict {
    for (profile, base, lacking) in
        [(TmeProfile::Default, ACTIVATE, [1, 3].as_slice()), (TmeProfile::Client4, 0x0004_0004_0000_0022, &[0, 1, 3])]
    {
        let mut s = Power::profile(profile).reset_state()?;
        for algorithm in lacking {
            refused(&mut s, base | 1 << (activate::CRYPTO_ALGS_SHIFT + algorithm))?;
        }
        accepted(&mut s, base, base | 1)?;
    }
    Ok(())
}

fn mk_021(_: &Env) -> Verdict {
    let mut s = Power::profile(TmeProfile::TmeOnly).reset_state()?;
    for bit in 32..64 {
        refused(&mut s, TME_ON | 1 << bit)?;
    }
    accepted(&mut s, TME_ON, TME_ON | 1)
}

fn mk_022(_: &Env) -> Verdict {
    let mut s = Power::default().reset_state()?;
    accepted(&mut s, 0, 1)?;
    equal!(stored_ramp(&mut s, FRAME)?, RAMP, "DRAM");
    refused(&mut s, 0)?;
    refused(&mut s, TME_ON)
}

fn mk_023(_: &Env) -> Verdict {
    let mut s = Power::default().reset_state()?;
    accepted(&mut s, 2, 3)?;
    let cells = stored_ramp(&mut s, FRAME)?;
    for block in 0..4 {
        let range = 16 * block..16 * block + 16;
        check!(cells[range.clone()] != RAMP[range], "block {block} of a KeyID-0 line is plaintext in DRAM");
    }
    let linear = s.map(FRAME, 0);
    equal!(s.load(linear)?, RAMP, "the line read back");
    Ok(())
}

fn mk_024(_: &Env) -> Verdict {
    let mut s = Power::default().reset_state()?;
    // The first of two draws fails, then the second of the next attempt.
    let steps = [EntropyStep::Fail, EntropyStep::Normal, EntropyStep::Fail];
    s.mem().tme_mut().script_entropy(EntropyStream::TmeKey, steps);
    accepted(&mut s, 2, 0)?;
    accepted(&mut s, 2, 0)?;
    equal!(stored_ramp(&mut s, FRAME)?, RAMP, "DRAM while not enabled");
    accepted(&mut s, 2, 3)
}

fn mk_025(_: &Env) -> Verdict {
    let mut s = Power::default().reset_state()?;
    s.mem().tme_mut().script_entropy(EntropyStream::TmeKey, [EntropyStep::Fail]);
    accepted(&mut s, ACTIVATE, 0)?;
    accepted(&mut s, ACTIVATE, ACTIVATE | 1)
}

fn mk_026(_: &Env) -> Verdict {
    let mut s = Power::default().reset_state()?;
    accepted(&mut s, RESTORE, activate::KEY_SELECT)?;
    equal!(stored_ramp(&mut s, FRAME)?, RAMP, "DRAM");
    accepted(&mut s, TME_ON, TME_ON | 1)
}

fn mk_027(_: &Env) -> Verdict {
    let mut s = Power::default().reset_state()?;
    accepted(&mut s, ACTIVATE_RESTORE, 0)?;
    // The same with something in the MSR to be kept.
    let kept = activate::KEY_SELECT | activate::SAVE_KEY;
    accepted(&mut s, kept | activate::ENABLE, kept)?;
    accepted(&mut s, ACTIVATE_RESTORE, kept)?;
    accepted(&mut s, ACTIVATE, ACTIVATE | 1)
}

/// Activates with `first`, stores the ramp through KeyID 0, flushes it and resets.
fn activate_store_reset(first: u64, kind: ResetKind) -> Result<Scenario, crate::harness::Failure> {
    let mut s = Power::default().activated_with(first)?;
    let cells = stored_ramp(&mut s, FRAME)?;
    check!(cells != RAMP, "KeyID 0 stored plaintext");
    s.reset(kind);
    Ok(s)
}

/// With an empty slot: MK-026 for k = 0, MK-027 for k > 0.
pub(crate) fn slot_is_empty(s: &mut Scenario) -> Verdict {
    accepted(s, ACTIVATE_RESTORE, 0)?;
    accepted(s, RESTORE, activate::KEY_SELECT)
}

fn mk_028(_: &Env) -> Verdict {
    for (save, restore) in [(ACTIVATE, ACTIVATE_RESTORE), (TME_ON, RESTORE)] {
        let mut s = activate_store_reset(save | activate::SAVE_KEY, ResetKind::Warm)?;
        accepted(&mut s, restore, restore | 1)?;
        let linear = s.map(FRAME, 0);
        equal!(s.load(linear)?, RAMP, "what KeyID 0 held before the reset");
    }
    Ok(())
}

fn mk_029(_: &Env) -> Verdict {
    slot_is_empty(&mut activate_store_reset(ACTIVATE, ResetKind::Warm)?)
}

fn mk_030(_: &Env) -> Verdict {
    slot_is_empty(&mut activate_store_reset(ACTIVATE | activate::SAVE_KEY, ResetKind::Cold)?)
}

fn mk_031(_: &Env) -> Verdict {
    for first in [ACTIVATE, TME_ON, 0] {
        for second in [0, first | 1, ACTIVATE, 1 << 8] {
            let mut s = Power::default().reset_state()?;
            s.wrmsr(IA32_TME_ACTIVATE, first)?.halted()?;
            refused(&mut s, second)?;
            let mut s = Power::default().locked_writes_ignored().reset_state()?;
            s.wrmsr(IA32_TME_ACTIVATE, first)?.halted()?;
            accepted(&mut s, second, first | 1)?;
        }
    }
    Ok(())
}

fn mk_032(_: &Env) -> Verdict {
    let mut s = Power::default().activated()?;
    s.reset(ResetKind::Init);
    equal!(s.rdmsr(IA32_TME_ACTIVATE)?, ACTIVATE | 1, "982H after INIT");
    equal!(s.rdmsr(MK_TME_CORE_ACTIVATE)?, 6 << 32, "9FFH after INIT");
    refused(&mut s, ACTIVATE)
}

fn mk_033(_: &Env) -> Verdict {
    let mut s = Power::default().reset_state()?;
    s.wrmsr(IA32_TME_EXCLUDE_BASE, FRAME_2)?.halted()?;
    s.wrmsr(IA32_TME_EXCLUDE_MASK, 0x3FFF_FFFF_F800)?.halted()?;
    s.activate(ACTIVATE)?;
    let registers = [
        IA32_TME_ACTIVATE,
        IA32_TME_EXCLUDE_MASK,
        IA32_TME_EXCLUDE_BASE,
        MK_TME_CORE_ACTIVATE,
        IA32_MKTME_KEYID_PARTITIONING,
    ];
    for number in registers {
        check!(s.rdmsr(number)? != 0, "{number:X}H reads 0 before the reset");
    }
    s.reset(ResetKind::Warm);
    for number in registers {
        equal!(s.rdmsr(number)?, 0, "{number:X}H after a warm reset");
    }
    Ok(())
}

fn mk_034(_: &Env) -> Verdict {
    for kind in [ResetKind::Warm, ResetKind::Cold] {
        let mut s = Power::default().activated()?;
        let first = stored_ramp(&mut s, FRAME)?;
        s.reset(kind);
        s.activate(ACTIVATE)?;
        let second = stored_ramp(&mut s, FRAME)?;
        for block in 0..4 {
            let range = 16 * block..16 * block + 16;
            check!(first[range.clone()] != second[range], "block {block} is the same after a {kind:?} reset");
        }
    }
    Ok(())
}

fn mk_035(_: &Env) -> Verdict {
    let no_algorithms = TME_ON | 6 << activate::MK_TME_KEYID_BITS_SHIFT;
    let mut s = Power::default().activated_with(no_algorithms)?;
    for command in 0..4 {
        for algorithms in [0, 1, 4] {
            let what = format!("PCONFIG command {command} algorithms {algorithms:#x}");
            s.pconfig(&Program::new(1, command, algorithms))?.gp(&what)?;
        }
    }
    Ok(())
}

/// A machine whose TME key will be K1 = 00..0f, K2 = 10..1f of section 6.4.
fn with_known_key() -> Result<Scenario, crate::harness::Failure> {
    let mut s = Power::default().reset_state()?;
    let keys = [EntropyStep::Give(key(0)), EntropyStep::Give(key(0x10))];
    s.mem().tme_mut().script_entropy(EntropyStream::TmeKey, keys);
    Ok(s)
}

fn known_key() -> XtsKey {
    XtsKey::new(Algorithm::AesXts128, &key(0)[..16], &key(0x10)[..16])
}

fn mk_036(_: &Env) -> Verdict {
    let mut s = with_known_key()?;
    let (zeros, ramp) = (s.map(K5_FRAME, 0), s.map(FRAME, 0));
    s.store_flush(zeros, &[0; 64])?;
    s.store_flush(ramp, &RAMP)?;
    equal!(s.dram(FRAME), RAMP, "DRAM before activation");
    s.activate(ACTIVATE)?;
    equal!(s.dram(FRAME), RAMP, "DRAM right after activation");
    equal!(s.load(zeros)?, crate::cipher::D4, "64 zero bytes at 1000H (vector D4)");
    equal!(s.load(ramp)?, known_key().decrypt_line(FRAME >> 6, &CipherLine(RAMP)).0, "the ramp");
    Ok(())
}

fn mk_037(_: &Env) -> Verdict {
    let mut s = with_known_key()?;
    let (dirty, clean) = (s.map(FRAME, 0), s.map(FRAME_2, 0));
    s.store_flush(clean, &RAMP)?;
    s.load(clean)?;
    s.store(dirty, &RAMP)?;
    accepted(&mut s, ACTIVATE, ACTIVATE | 1)?;
    equal!(s.load(dirty)?, RAMP, "the dirty line after activation");
    equal!(s.load(clean)?, RAMP, "the clean line after activation");
    s.clflush(dirty)?;
    equal!(s.dram(FRAME), known_key().encrypt_line(FRAME >> 6, &PlainLine(RAMP)).0, "DRAM after the flush");
    equal!(s.load(dirty)?, RAMP, "the line read back");
    Ok(())
}
