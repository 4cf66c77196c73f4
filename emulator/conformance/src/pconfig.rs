//! 10.5 PCONFIG.

use crate::cipher::{K5, K10};
use crate::harness::layout::{FRAME, FRAME_2, K5_FRAME, PROGRAM, selector};
use crate::harness::{
    ACTIVATE, Failure, Mode, Outcome, Power, Program, RAMP, Scenario, Verdict, XTS_128, XTS_256, key,
};
use crate::statement::Env;
use crate::{check, equal, statements};
use iced_x86::code_asm::*;
use mem::{EntropyStep, EntropyStream, MemType, PhysAddr, TmeProfile};
use x86::flags::{ARITH, DF, IF, TF, ZF};
use x86::msr;
use x86::platform::ResetKind;
use x86::tme::{activate, pconfig as spec};

statements! {
    "10.5 PCONFIG";
    mk_069 Guest "CPL 3, any EAX: #UD";
    mk_070 Guest "LOCK, 66, F2, F3 prefix: #UD; segment, 67 and REX prefixes ignored";
    mk_071 Guest "virtual-8086 mode: #UD";
    mk_072 Guest "CPUID PCONFIG = 0: #UD";
    mk_073 Guest "EAX = 3, 80000000H, FFFFFFFFH: #GP";
    mk_074 Guest "EAX = 1 or 2: #GP";
    mk_075 Guest "RAX = FFFFFFFF_00000000H: leaf 0";
    mk_076 Guest "leaf 0 while unlocked, locked off, k = 0: #GP even with RBX unmapped";
    mk_077 Guest "RBX & FFH != 0: #GP before any memory access";
    mk_078 Guest "RBX non-canonical: #GP";
    mk_079 Guest "RBX aligned and unmapped: #PF, error code 0, CR2 in the page";
    mk_080 Guest "structure in the last 256 bytes before an unmapped page: success";
    mk_081 Guest "KEYID_CTRL[31:24] != 0, COMMAND 4..255: #GP";
    mk_082 Guest "KEYID 0, 64, FFFFH, > MAX_KEYS: #GP; legacy knob: RAX 3, ZF 1";
    mk_083 Guest "TDX, p = 2, k = 6: KEYID 15 succeeds, 16 #GP";
    mk_084 Guest "ENC_ALG none, two bits, or not allowed: #GP for each of the four commands";
    mk_085 GuestAndProbe "bytes 6..63 and upper key bytes all FFH: the same key as with zeros";
    mk_086 Guest "success with RFLAGS = ED7H before: RAX = 0, RFLAGS = 602H";
    mk_087 GuestAndProbe "DIRECT XTS-128 with K5's keys, ramp at 1000H: DRAM = K5";
    mk_088 GuestAndProbe "DIRECT XTS-256 with K10's keys, ramp at 1000H: DRAM = K10";
    mk_089 GuestAndProbe "RANDOM twice with the same entropy: different ciphertext";
    mk_090 GuestAndProbe "RANDOM with scripted RNG (r1, r2) and fields (f1, f2): keys r1^f1, r2^f2";
    mk_091 GuestAndProbe "RANDOM, RNG fails on either draw: RAX = 2, only ZF, entry unchanged";
    mk_092 GuestAndProbe "key-table lock held: RAX = 5, ZF, table unchanged; the next try succeeds";
    mk_093 GuestAndProbe "CLEAR_KEY: lines then written match KeyID 0's encryption";
    mk_094 GuestAndProbe "CLEAR_KEY with bypass: plaintext in DRAM";
    mk_095 GuestAndProbe "NO_ENCRYPT: plaintext in DRAM, bypass on or off";
    mk_096 GuestAndProbe "all-zero keys, K1 = K2: accepted";
    mk_097 Guest "RBX, RCX, RDX and DF, IF, TF are kept";
    mk_098 GuestAndProbe "#GP or #PF: RAX, flags, table unchanged";
    mk_099 GuestAndProbe "real mode: works with DS:EBX; misaligned #GP";
    mk_100 Guest "protected mode, structure beyond the DS limit: #GP";
    mk_101 na "VMX is not modelled" "VMX non-root, enable PCONFIG = 0: #UD";
    mk_102 na "VMX is not modelled" "VMX non-root, exiting bitmap bit = 1: VM exit 65";
    mk_103 na "VMX is not modelled" "VMX non-root, exiting bitmap 0: executes natively";
    mk_104 GuestAndProbe "two packages, PCONFIG on package 0: DRAM behind package 1 still uses TME mode";
    mk_105 GuestAndProbe "structure in a page with KeyID 3: decrypted with key 3";
    mk_106 GuestAndProbe "warm reset: KeyID keys are gone, even with the same TME key";
}

const PCONFIG: [u8; 3] = [0x0F, 0x01, 0xC5];

/// PCONFIG with these RAX and RBX.
fn with(s: &mut Scenario, rax_value: u64, rbx_value: u64) -> Result<Outcome, Failure> {
    s.run(|a| {
        a.mov(rax, rax_value)?;
        a.mov(rbx, rbx_value)?;
        a.pconfig()?;
        a.hlt()
    })
}

/// A machine with a valid structure for KeyID 1 in place.
fn ready() -> Result<Scenario, Failure> {
    let mut s = Power::default().activated()?;
    s.write(PROGRAM, &Program::simple(1, 0x31).bytes());
    Ok(s)
}

/// Stores the ramp through a KeyID, flushes it, and returns DRAM.
fn cells(s: &mut Scenario, frame: u64, keyid: u16) -> Result<[u8; 64], Failure> {
    let linear = s.map(frame, keyid);
    s.store_flush(linear, &RAMP)?;
    equal!(s.load(linear)?, RAMP, "the line read back through KeyID {keyid}");
    s.clflush(linear)?;
    Ok(s.dram(frame))
}

/// The key of KeyID 1 is that of `program`.
fn key_is(s: &mut Scenario, program: &Program, what: &str) -> Verdict {
    let linear = s.map(FRAME, program.keyid);
    s.store_flush(linear, &RAMP)?;
    equal!(s.dram(FRAME), program.encrypt(FRAME, &RAMP), "DRAM {what}");
    Ok(())
}

fn mk_069(_: &Env) -> Verdict {
    let mut s = ready()?;
    for leaf in [0u64, 1, 2, 3, 0x8000_0000, 0xFFFF_FFFF] {
        let end = s.run_in(Mode::User, |a| {
            a.mov(rax, leaf)?;
            a.mov(rbx, PROGRAM)?;
            a.pconfig()?;
            a.int(0x80)
        })?;
        end.ud(&format!("EAX = {leaf:#x} at CPL 3"))?;
    }
    Ok(())
}

/// The instruction with a prefix, registers set up for success.
fn prefixed(s: &mut Scenario, prefix: u8) -> Result<Outcome, Failure> {
    let code = [&[prefix], &PCONFIG[..], &[0xF4]].concat();
    s.run_bytes(Mode::Long, &code, |cpu| cpu.regs[usize::from(cpu::state::slot::RBX)] = PROGRAM)
}

fn mk_070(_: &Env) -> Verdict {
    let mut s = ready()?;
    for prefix in [0xF0, 0x66, 0xF2, 0xF3] {
        prefixed(&mut s, prefix)?.ud(&format!("prefix {prefix:02X}"))?;
    }
    for prefix in [0x2E, 0x36, 0x64, 0x65, 0x67, 0x40, 0x48] {
        let end = prefixed(&mut s, prefix)?.halted()?;
        equal!((end.rax(), end.rflags & ZF), (0, 0), "RAX and ZF with prefix {prefix:02X}");
    }
    // VEX.128.0F.W0 01 C5.
    s.run_bytes(Mode::Long, &[0xC5, 0xF8, 0x01, 0xC5, 0xF4], |_| ())?.ud("VEX")
}

fn mk_071(_: &Env) -> Verdict {
    let mut s = ready()?;
    let end = s.run_in(Mode::Virtual8086, |a| {
        a.xor(eax, eax)?;
        a.pconfig()?;
        a.hlt()
    })?;
    end.ud("virtual-8086 mode")
}

fn mk_072(_: &Env) -> Verdict {
    let mut s = Power::profile(TmeProfile::TmeOnly).activated_with(activate::ENABLE)?;
    s.pconfig(&Program::simple(1, 0x31))?.ud("profile tme-only")?;
    let mut s = Power::profile(TmeProfile::None).reset_state()?;
    s.pconfig(&Program::simple(1, 0x31))?.ud("profile none")
}

fn mk_073(_: &Env) -> Verdict {
    let mut s = ready()?;
    for leaf in [3, 0x8000_0000, 0xFFFF_FFFF] {
        with(&mut s, leaf, PROGRAM)?.gp(&format!("EAX = {leaf:#x}"))?;
    }
    Ok(())
}

fn mk_074(_: &Env) -> Verdict {
    let mut s = ready()?;
    for leaf in [1, 2] {
        with(&mut s, leaf, PROGRAM)?.gp(&format!("EAX = {leaf}"))?;
    }
    Ok(())
}

fn mk_075(_: &Env) -> Verdict {
    let mut s = ready()?;
    let end = with(&mut s, 0xFFFF_FFFF_0000_0000, PROGRAM)?.halted()?;
    equal!(end.rax(), 0, "RAX");
    key_is(&mut s, &Program::simple(1, 0x31), "after it")
}

fn mk_076(_: &Env) -> Verdict {
    for (state, value) in [("unlocked", None), ("locked off", Some(0)), ("k = 0", Some(2))] {
        let mut s = Power::default().reset_state()?;
        if let Some(value) = value {
            s.wrmsr(msr::IA32_TME_ACTIVATE, value)?.halted()?;
        }
        let unmapped = s.map_entry(0);
        for rbx_value in [PROGRAM, unmapped] {
            s.write(PROGRAM, &Program::simple(1, 0x31).bytes());
            with(&mut s, 0, rbx_value)?.gp(&format!("{state}, RBX = {rbx_value:#x}"))?;
        }
    }
    Ok(())
}

fn mk_077(_: &Env) -> Verdict {
    let mut s = ready()?;
    let unmapped = s.map_entry(0);
    for low in [1, 8, 16, 64, 128, 192, 255] {
        with(&mut s, 0, PROGRAM + low)?.gp(&format!("RBX + {low}"))?;
        with(&mut s, 0, unmapped + low)?.gp(&format!("unmapped RBX + {low}"))?;
    }
    Ok(())
}

fn mk_078(_: &Env) -> Verdict {
    let mut s = ready()?;
    for rbx_value in [1 << 47, 1 << 63, 0xFFFF_7FFF_FFFF_FF00, 0x0001_0000_0000_0000] {
        with(&mut s, 0, rbx_value)?.gp(&format!("RBX = {rbx_value:#x}"))?;
    }
    Ok(())
}

fn mk_079(_: &Env) -> Verdict {
    let mut s = ready()?;
    let unmapped = s.map_entry(0);
    for offset in [0, 0x100, 0xF00] {
        let end = with(&mut s, 0, unmapped + offset)?;
        let address = end.fault.map_or(0, |f| f.cr2);
        check!(address & !0xFFF == unmapped, "CR2 = {address:#x}, outside the page at {unmapped:#x}");
        end.page_fault(0, address, "unmapped structure")?;
    }
    Ok(())
}

fn mk_080(_: &Env) -> Verdict {
    let mut s = Power::default().activated()?;
    let program = Program::simple(1, 0x31);
    s.write(FRAME + 0xF00, &program.bytes());
    let page = s.map(FRAME, 0);
    let next = s.map_entry(0);
    equal!(next, page + 0x1000, "the unmapped page");
    equal!(with(&mut s, 0, page + 0xF00)?.halted()?.rax(), 0, "RAX");
    Ok(())
}

fn mk_081(_: &Env) -> Verdict {
    let mut s = Power::default().activated()?;
    for bit in 0..8 {
        let mut program = Program::simple(1, 0x31);
        program.reserved = 1 << bit;
        s.pconfig(&program)?.gp(&format!("KEYID_CTRL bit {}", 24 + bit))?;
    }
    for command in 4..=255 {
        s.pconfig(&Program::new(1, command, XTS_128))?.gp(&format!("COMMAND {command}"))?;
    }
    s.program(&Program::simple(1, 0x31))
}

fn mk_082(_: &Env) -> Verdict {
    const MAX_KEYS: u64 = 50;
    let fewer_keys = |p: Power| p.features(|f| f.capability = f.capability & !(0x7FFF << 36) | MAX_KEYS << 36);
    for (power, keyids, last) in
        [(Power::default(), [0, 64, 0xFFFF], 63), (fewer_keys(Power::default()), [0, 51, 63], 50)]
    {
        let mut s = power.clone().activated()?;
        let mut legacy = power.legacy_codes().activated()?;
        for keyid in keyids {
            s.pconfig(&Program::simple(keyid, 1))?.gp(&format!("KEYID {keyid}"))?;
            let end = legacy.pconfig(&Program::simple(keyid, 1))?.halted()?;
            equal!((end.rax(), end.rflags & ARITH), (spec::INVALID_KEYID, ZF), "legacy RAX and flags, KEYID {keyid}");
        }
        s.program(&Program::simple(last, 1))?;
        legacy.program(&Program::simple(last, 1))?;
    }
    Ok(())
}

fn mk_083(_: &Env) -> Verdict {
    let mut s = Power::default().tdx().activated_with(ACTIVATE | 2 << activate::TDX_RESERVED_KEYID_BITS_SHIFT)?;
    s.program(&Program::simple(15, 0x31))?;
    for keyid in [16, 32, 48, 63] {
        s.pconfig(&Program::simple(keyid, 0x31))?.gp(&format!("KEYID {keyid}"))?;
    }
    Ok(())
}

fn mk_084(_: &Env) -> Verdict {
    let mut s = Power::default().activated()?;
    // XTS-256 is enumerated, but not allowed by this activation.
    let mut xts_128_only = Power::default().activated_with(0x0001_0006_0000_0002)?;
    for command in 0..4 {
        for algorithms in [0, XTS_128 | XTS_256, 1 << 1, 1 << 3, 1 << 4, 1 << 15, 0xFFFF] {
            let what = format!("command {command}, ENC_ALG {algorithms:#x}");
            s.pconfig(&Program::new(1, command, algorithms))?.gp(&what)?;
        }
        xts_128_only.pconfig(&Program::new(1, command, XTS_256))?.gp(&format!("command {command}, XTS-256"))?;
        for algorithm in [XTS_128, XTS_256] {
            s.program(&Program::new(1, command, algorithm))?;
        }
    }
    Ok(())
}

fn mk_085(_: &Env) -> Verdict {
    for (algorithm, used) in [(XTS_128, 16), (XTS_256, 32)] {
        let mut s = Power::default().activated()?;
        let zeros = Program::direct(1, algorithm, key(0x31), key(0x71));
        let mut ones = zeros.clone();
        ones.filler = 0xFF;
        ones.key1[used..].fill(0xFF);
        ones.key2[used..].fill(0xFF);
        s.program(&ones)?;
        key_is(&mut s, &zeros, "with the ignored bytes set")?;
        s.program(&zeros)?;
        key_is(&mut s, &zeros, "with the ignored bytes clear")?;
    }
    Ok(())
}

fn mk_086(_: &Env) -> Verdict {
    let mut s = ready()?;
    let end = s.run(|a| {
        a.xor(eax, eax)?;
        a.mov(rbx, PROGRAM)?;
        a.push(0xED7)?;
        a.popfq()?;
        a.pconfig()?;
        a.pushfq()?;
        a.cli()?;
        a.pop(r8)?;
        a.hlt()
    })?;
    let end = end.halted()?;
    equal!((end.rax(), end.regs[8]), (0, 0x602), "RAX and RFLAGS");
    Ok(())
}

fn mk_087(_: &Env) -> Verdict {
    let mut s = Power::default().activated()?;
    s.program(&Program::direct(1, XTS_128, key(0), key(0x10)))?;
    equal!(cells(&mut s, K5_FRAME, 1)?, K5, "DRAM");
    Ok(())
}

fn mk_088(_: &Env) -> Verdict {
    let mut s = Power::default().activated()?;
    s.program(&Program::direct(1, XTS_256, key(0), key(0x40)))?;
    equal!(cells(&mut s, K5_FRAME, 1)?, K10, "DRAM");
    Ok(())
}

fn mk_089(_: &Env) -> Verdict {
    let mut s = Power::default().activated()?;
    let mut seen = Vec::new();
    for field in [0x00, 0x00, 0xFF, 0xFF] {
        let mut program = Program::random(1);
        program.key1.fill(field);
        program.key2.fill(field);
        s.program(&program)?;
        let now = cells(&mut s, FRAME, 1)?;
        check!(!seen.contains(&now), "RANDOM with fields of {field:02x} gave a key that was there before");
        seen.push(now);
    }
    Ok(())
}

fn mk_090(_: &Env) -> Verdict {
    for algorithm in [XTS_128, XTS_256] {
        let mut s = Power::default().activated()?;
        let (r1, r2, f1, f2) = (key(0x11), key(0x83), [0x5A; 32], key(0xC0));
        let steps = [EntropyStep::Give(r1), EntropyStep::Give(r2)];
        s.mem().tme_mut().script_entropy(EntropyStream::Pconfig, steps);
        let mut program = Program::direct(1, algorithm, f1, f2);
        program.command = spec::KEYID_SET_KEY_RANDOM;
        s.program(&program)?;
        let xor = |r: [u8; 32], f: [u8; 32]| std::array::from_fn(|i| r[i] ^ f[i]);
        key_is(&mut s, &Program::direct(1, algorithm, xor(r1, f1), xor(r2, f2)), "with the scripted generator")?;
    }
    Ok(())
}

fn mk_091(_: &Env) -> Verdict {
    for steps in [vec![EntropyStep::Fail], vec![EntropyStep::Normal, EntropyStep::Fail]] {
        let mut s = Power::default().activated()?;
        let before = Program::simple(1, 0x31);
        s.program(&before)?;
        s.mem().tme_mut().script_entropy(EntropyStream::Pconfig, steps);
        failed(&mut s, &Program::random(1), spec::ENTROPY_ERROR)?;
        key_is(&mut s, &before, "after ENTROPY_ERROR")?;
        // The lock was released.
        s.program(&Program::random(1))?;
    }
    Ok(())
}

/// PCONFIG returns a failure code, with all arithmetic flags set before.
fn failed(s: &mut Scenario, program: &Program, code: u64) -> Verdict {
    s.write(PROGRAM, &program.bytes());
    let end = s.run(|a| {
        a.push(ARITH as i32 | 2)?;
        a.popfq()?;
        a.mov(rbx, PROGRAM)?;
        a.mov(rax, 0xFFFF_FFFF_0000_0000u64)?;
        a.pconfig()?;
        a.hlt()
    })?;
    let end = end.halted()?;
    equal!((end.rax(), end.rflags & ARITH), (code, ZF), "RAX and arithmetic flags");
    Ok(())
}

fn mk_092(_: &Env) -> Verdict {
    let mut s = Power::default().activated()?;
    let (before, after) = (Program::simple(1, 0x31), Program::simple(1, 0x51));
    s.program(&before)?;
    s.mem().tme_mut().hold_key_table(1);
    failed(&mut s, &after, spec::DEVICE_BUSY)?;
    key_is(&mut s, &before, "after DEVICE_BUSY")?;
    s.program(&after)?;
    key_is(&mut s, &after, "after the retry")
}

fn mk_093(_: &Env) -> Verdict {
    let mut s = Power::default().activated()?;
    let program = Program::simple(1, 0x31);
    s.program(&program)?;
    key_is(&mut s, &program, "before CLEAR_KEY")?;
    s.program(&Program::clear(1))?;
    let (zero, one) = (cells(&mut s, FRAME, 0)?, cells(&mut s, FRAME, 1)?);
    check!(zero != RAMP, "KeyID 0 stored plaintext");
    equal!(one, zero, "DRAM through KeyID 1, compared with KeyID 0");
    Ok(())
}

/// Activated with KeyID 0 in clear.
fn bypassed() -> Result<Scenario, Failure> {
    Power::default().activated_with(ACTIVATE | activate::BYPASS)
}

fn mk_094(_: &Env) -> Verdict {
    let mut s = bypassed()?;
    s.program(&Program::simple(1, 0x31))?;
    check!(cells(&mut s, FRAME, 1)? != RAMP, "plaintext through a keyed KeyID");
    s.program(&Program::clear(1))?;
    equal!(cells(&mut s, FRAME, 1)?, RAMP, "DRAM");
    Ok(())
}

fn mk_095(_: &Env) -> Verdict {
    for mut s in [Power::default().activated()?, bypassed()?] {
        s.program(&Program::simple(1, 0x31))?;
        s.program(&Program::no_encrypt(1))?;
        equal!(cells(&mut s, FRAME, 1)?, RAMP, "DRAM");
    }
    Ok(())
}

fn mk_096(_: &Env) -> Verdict {
    let mut s = Power::default().activated()?;
    for (algorithm, data, tweak) in [
        (XTS_128, [0; 32], [0; 32]),
        (XTS_256, [0; 32], [0; 32]),
        (XTS_128, [0x77; 32], [0x77; 32]),
        (XTS_256, [0x77; 32], [0x77; 32]),
    ] {
        let program = Program::direct(1, algorithm, data, tweak);
        s.program(&program)?;
        key_is(&mut s, &program, "with a weak key")?;
    }
    Ok(())
}

fn mk_097(_: &Env) -> Verdict {
    let mut s = ready()?;
    let marks: [u64; 16] = std::array::from_fn(|n| 0x1111_0000_0000_0000 * (n as u64 & 7) + n as u64);
    let registers = [rcx, rdx, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15];
    let numbers = [1, 2, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
    for flags in [0, DF, IF, TF, DF | IF | TF] {
        let end = s.run(|a| {
            for (register, number) in registers.into_iter().zip(numbers) {
                a.mov(register, marks[number])?;
            }
            a.xor(eax, eax)?;
            a.mov(rbx, PROGRAM)?;
            a.push(flags as i32 | 2)?;
            a.popfq()?;
            a.pconfig()?;
            if flags & TF == 0 {
                a.pushfq()?;
                a.cli()?;
                a.pop(rax)?;
            }
            a.hlt()
        })?;
        let seen = if flags & TF == 0 {
            let end = end.clone().halted()?;
            end.rax()
        } else {
            // The single-step trap after PCONFIG: its frame has the flags.
            check!(end.fault.is_some_and(|f| f.vector == 1), "no single-step trap after PCONFIG");
            equal!(end.rax(), 0, "RAX");
            end.rflags
        };
        equal!(seen & (DF | IF | TF | ARITH), flags, "RFLAGS");
        equal!(end.rbx(), PROGRAM, "RBX");
        for number in numbers {
            equal!(end.regs[number], marks[number], "register {number}");
        }
    }
    Ok(())
}

fn mk_098(_: &Env) -> Verdict {
    let mut s = Power::default().activated()?;
    let before = Program::simple(1, 0x31);
    s.program(&before)?;
    let unmapped = s.map_entry(0);
    let mut bad = Program::simple(1, 0x51);
    bad.command = 4;
    s.write(PROGRAM, &bad.bytes());
    const RAX: u64 = 0xABCD_EF01_0000_0000;
    for (rbx_value, vector) in [(PROGRAM, 13), (PROGRAM + 1, 13), (unmapped, 14)] {
        for flags in [0, ARITH | DF] {
            let end = s.run(|a| {
                a.mov(rax, RAX)?;
                a.mov(rbx, rbx_value)?;
                a.mov(rcx, 0x1234u64)?;
                a.push(flags as i32 | 2)?;
                a.popfq()?;
                a.pconfig()?;
                a.hlt()
            })?;
            check!(end.fault.is_some_and(|f| f.vector == vector), "RBX = {rbx_value:#x}: {:?}", end.fault);
            equal!((end.rax(), end.rbx(), end.rcx()), (RAX, rbx_value, 0x1234), "RAX, RBX, RCX");
            equal!(end.rflags & (ARITH | DF), flags, "RFLAGS");
        }
    }
    key_is(&mut s, &before, "after the exceptions")
}

fn mk_099(_: &Env) -> Verdict {
    let mut s = Power::default().activated()?;
    const STRUCTURE: u64 = 0xA000;
    let program = Program::simple(1, 0x31);
    s.write(STRUCTURE, &program.bytes());
    // DS base 100H: the structure is at DS:EBX.
    let run = |s: &mut Scenario, ebx_value: u32| {
        s.run_in(Mode::Real, |a| {
            a.mov(ax, 0x10)?;
            a.mov(ds, ax)?;
            a.mov(ebx, ebx_value)?;
            a.xor(eax, eax)?;
            a.pconfig()?;
            a.hlt()
        })
    };
    let offset = STRUCTURE as u32 - 0x100;
    let end = run(&mut s, offset)?.halted()?;
    equal!((end.rax(), end.rflags & ZF), (0, 0), "EAX and ZF");
    run(&mut s, offset + 1)?.gp("misaligned")?;
    run(&mut s, 0x1_0000)?.gp("offset beyond the limit")?;
    key_is(&mut s, &program, "programmed in real mode")
}

fn mk_100(_: &Env) -> Verdict {
    for mode in [Mode::Protected, Mode::Pae, Mode::Compatibility] {
        let mut s = ready()?;
        for (ds_value, fits) in [(selector::SHORT_DATA, false), (selector::DATA, true)] {
            let end = s.run_in(mode, |a| {
                a.mov(eax, u32::from(ds_value))?;
                a.mov(ds, eax)?;
                a.mov(ebx, PROGRAM as u32)?;
                a.xor(eax, eax)?;
                a.pconfig()?;
                a.hlt()
            })?;
            if fits {
                equal!(end.halted()?.rax(), 0, "{mode:?}: EAX");
            } else {
                end.gp(&format!("{mode:?}: structure beyond the limit"))?;
            }
        }
        key_is(&mut s, &Program::simple(1, 0x31), "programmed outside 64-bit mode")?;
    }
    Ok(())
}

fn mk_104(_: &Env) -> Verdict {
    let mut s = Power::default().packages(2).activated()?;
    s.execute_on(1)?;
    s.activate(ACTIVATE)?;
    s.execute_on(0)?;
    // The harness and the first frame are behind package 0.
    let frames = [FRAME - 0x1000, FRAME];
    for (package, frame) in frames.into_iter().enumerate() {
        equal!(s.mem().home_package(PhysAddr(frame)), Some(package), "the package of {frame:#x}");
    }
    let program = Program::simple(1, 0x31);
    s.program(&program)?;
    equal!(cells(&mut s, frames[0], 1)?, program.encrypt(frames[0], &RAMP), "DRAM behind package 0");
    let tme = cells(&mut s, frames[1], 0)?;
    check!(tme != RAMP, "KeyID 0 stored plaintext behind package 1");
    equal!(cells(&mut s, frames[1], 1)?, tme, "DRAM behind package 1 through KeyID 1, compared with KeyID 0");
    // The other package's own PCONFIG completes it.
    s.execute_on(1)?;
    s.program(&program)?;
    equal!(cells(&mut s, frames[1], 1)?, program.encrypt(frames[1], &RAMP), "DRAM behind package 1 after its PCONFIG");
    Ok(())
}

fn mk_105(_: &Env) -> Verdict {
    let mut s = Power::default().activated()?;
    let (three, four) = (Program::simple(3, 0x31), Program::simple(4, 0x51));
    s.program(&three)?;
    let bus = s.bus(FRAME_2, 3);
    s.mem().write(bus, MemType::Wb, false, &four.bytes());
    s.wbinvd()?;
    let mut first = [0; 64];
    first.copy_from_slice(&four.bytes()[..64]);
    equal!(s.dram(FRAME_2), three.encrypt(FRAME_2, &first), "DRAM of the structure");
    let linear = s.map(FRAME_2, 3);
    equal!(with(&mut s, 0, linear)?.halted()?.rax(), 0, "RAX");
    key_is(&mut s, &four, "of the key that the structure holds")?;
    // Through KeyID 0 the same bytes are something else.
    let garbage = s.map(FRAME_2, 0);
    with(&mut s, 0, garbage)?.gp("the structure through KeyID 0")
}

fn mk_106(_: &Env) -> Verdict {
    for program in [Program::simple(1, 0x31), Program::random(1)] {
        let mut s = Power::default().activated_with(ACTIVATE | activate::SAVE_KEY)?;
        s.program(&program)?;
        let raw = cells(&mut s, FRAME, 1)?;
        s.reset(ResetKind::Warm);
        s.activate(ACTIVATE | activate::KEY_SELECT)?;
        equal!(s.dram(FRAME), raw, "DRAM after the reset");
        let (one, zero) = (s.map(FRAME, 1), s.map(FRAME, 0));
        let seen = s.load(one)?;
        check!(seen != RAMP, "the old line is readable");
        equal!(seen, s.load(zero)?, "the line through KeyID 1, compared with KeyID 0");
    }
    Ok(())
}
