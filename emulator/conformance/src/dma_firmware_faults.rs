//! 10.8 DMA, firmware, guests, faults.

use crate::harness::layout::{FRAME, FRAME_2};

use crate::harness::{ACTIVATE, Asm, Dma, Failure, Power, Program, RAMP, Scenario, Verdict};
use crate::linux::{mk_134, mk_136, mk_137};
use crate::statement::Env;
use crate::{check, equal, statements};
use devices::layout::LAPIC_BASE as LAPIC;
use iced_x86::code_asm::*;
use mem::{
    EntropyStep, EntropyStream, Event, KeyField, KeyId, Knobs, MemType, PhysAddr, Rate, TweakFault, WritebackAction,
    WritebackFilter,
};
use x86::msr;

statements! {
    "10.8 DMA, firmware, guests, faults";
    mk_130 GuestAndProbe "a device writes to KeyID 1: encrypted with key 1, coherent with KM(1), not with KM(0)";
    mk_131 GuestAndProbe "a device reads with KeyID 0 what key 1 encrypted: wrong-key decryption";
    mk_132 na "there is no IOMMU" "an IOMMU entry carries KeyID 1: as MK-130";
    mk_133 GuestAndProbe "MMIO with KeyID bits: the same register, event keyid_on_mmio";
    mk_134 boot "Linux 6.1 on default: the three lines of section 8.1, 40 bits physical";
    mk_135 na "a kernel from outside" "Linux >= 6.11 on default: two lines, 40 bits";
    mk_136 boot "Linux 4.17-6.10 on client4: policy and algorithm lines, 15 KeyIDs";
    mk_137 boot "Linux on locked-off: only `x86/tme: not enabled by BIOS`";
    mk_138 na "there is one processor" "Linux 4.17-6.10 with core_override on one AP: the inconsistent lines";
    mk_139 na "a guest from outside" "NOVA on default: 63 RANDOM PCONFIGs";
    mk_140 na "a guest from outside" "NOVA with nomktme: 63 CLEAR_KEY PCONFIGs";
    mk_141 GuestAndProbe "dram_flip on a clean uncached line: one garbled block, no exception";
    mk_142 GuestAndProbe "dram_flip on a line dirty in the cache: no effect after write-back";
    mk_143 GuestAndProbe "keytable_flip on K1: uncached lines garbled, re-programming restores them";
    mk_144 GuestAndProbe "dram_alias: read via the alias and write back: victim bit-identical";
    mk_145 GuestAndProbe "writeback_filter = drop: old data returns after eviction";
    mk_146 GuestAndProbe "tweak_fault on writes only: garbled; on both directions: invisible";
    mk_147 GuestAndProbe "the hooks that exist change neither CPUID, TSC, the MSRs nor exception counts";
}

/// A new line of data, as a device writes it.
const DEVICE_DATA: [u8; 64] = [DEVICE_BYTE; 64];
const DEVICE_BYTE: u8 = 0xD5;

/// A keyed KeyID 1, KM(0) and KM(1) of the frame, E1(ramp) in DRAM.
fn keyed() -> Result<(Scenario, Program, u64, u64), Failure> {
    let mut s = Power::default().dma_device().activated()?;
    let program = Program::simple(1, 0x31);
    s.program(&program)?;
    let (km0, km1) = (s.map(FRAME, 0), s.map(FRAME, 1));
    s.store_flush(km1, &RAMP)?;
    Ok((s, program, km0, km1))
}

fn mk_130(_: &Env) -> Verdict {
    for dirty in [false, true] {
        let (mut s, program, km0, km1) = keyed()?;
        let device = Dma::new(&mut s)?;
        let stale = s.load(km0)?;
        if dirty {
            s.store(km1, &[0x77; 64])?;
        } else {
            s.load(km1)?;
        }
        let one = s.bus(FRAME, 1);
        device.fill(&mut s, one, DEVICE_BYTE)?;
        equal!(s.dram(FRAME), program.encrypt(FRAME, &DEVICE_DATA), "DRAM");
        equal!(s.load(km1)?, DEVICE_DATA, "KM(1)");
        equal!(s.load(km0)?, stale, "KM(0)");
        // The other direction: a device reads what the processor has not written back.
        s.store(km1, &[0x66; 64])?;
        let (copy, to) = (s.map(FRAME_2, 0), s.bus(FRAME_2, 0));
        device.copy(&mut s, one, to)?;
        equal!(s.load(copy)?, [0x66; 64], "a device's read with KeyID 1");
        equal!(s.dirty(FRAME, 1), true, "the line that the device read is still dirty");
    }
    Ok(())
}

fn mk_131(_: &Env) -> Verdict {
    let (mut s, _, km0, km1) = keyed()?;
    let device = Dma::new(&mut s)?;
    let (copy, from, to) = (s.map(FRAME_2, 0), s.bus(FRAME, 0), s.bus(FRAME_2, 0));
    device.copy(&mut s, from, to)?;
    let seen = s.load(copy)?;
    check!(seen != RAMP, "KeyID 0 reads KeyID 1's plaintext");
    equal!(seen, s.load(km0)?, "a device's read with KeyID 0, compared with the processor's");
    s.clflush(km0)?;
    // A dirty line of KeyID 1 makes no difference.
    s.store(km1, &DEVICE_DATA)?;
    device.copy(&mut s, from, to)?;
    equal!(s.load(copy)?, seen, "a device's read with KeyID 0 while KeyID 1 has the line dirty");
    Ok(())
}

fn mk_133(_: &Env) -> Verdict {
    /// A register that always reads the same, and one that holds what is written.
    const VERSION: u64 = 0x30;
    const TPR: u64 = 0x80;
    let mut s = Power::default().activated()?;
    let (zero, five) = (s.map_type(LAPIC, 0, MemType::Uc), s.map_type(LAPIC, 5, MemType::Uc));
    s.take_events();
    let end = s.run(|a| {
        a.mov(rsi, zero)?;
        a.mov(rdi, five)?;
        a.mov(r8d, dword_ptr(rsi + VERSION as i32))?;
        a.mov(r9d, dword_ptr(rdi + VERSION as i32))?;
        a.mov(dword_ptr(rdi + TPR as i32), 0x20)?;
        a.mov(r10d, dword_ptr(rsi + TPR as i32))?;
        a.mov(dword_ptr(rsi + TPR as i32), 0)?;
        a.mov(r11d, dword_ptr(rdi + TPR as i32))?;
        a.hlt()
    })?;
    let end = end.halted()?;
    check!(end.regs[8] != 0xFFFF_FFFF, "nothing answers at the local APIC's address");
    equal!(end.regs[9], end.regs[8], "version register through KeyID 5");
    equal!((end.regs[10], end.regs[11]), (0x20, 0), "task priority written through one KeyID, read through the other");
    let address = s.bus(LAPIC + VERSION, 5);
    let want = Event::KeyidOnMmio { address, keyid: KeyId(5) };
    check!(s.take_events().contains(&want), "no event keyid_on_mmio for the version register");
    Ok(())
}

fn mk_141(_: &Env) -> Verdict {
    let (mut s, _, _, km1) = keyed()?;
    let clean = s.dram(FRAME);
    for bit in [0usize, 127, 128, 300, 511] {
        let mut cells = clean;
        cells[bit / 8] ^= 1 << (bit % 8);
        s.set_dram(FRAME, cells);
        let seen = s.load(km1)?;
        for n in 0..4 {
            let range = 16 * n..16 * n + 16;
            equal!(seen[range.clone()] == RAMP[range], n != bit / 128, "bit {bit}: block {n} intact");
        }
        s.clflush(km1)?;
    }
    Ok(())
}

fn mk_142(_: &Env) -> Verdict {
    let (mut s, program, _, km1) = keyed()?;
    s.store(km1, &DEVICE_DATA)?;
    let mut cells = s.dram(FRAME);
    cells[3] ^= 0x10;
    s.set_dram(FRAME, cells);
    equal!(s.load(km1)?, DEVICE_DATA, "read while cached");
    s.clflush(km1)?;
    equal!(s.dram(FRAME), program.encrypt(FRAME, &DEVICE_DATA), "DRAM after the write-back");
    equal!(s.load(km1)?, DEVICE_DATA, "read after the write-back");
    Ok(())
}

/// Every one of the four blocks differs from the ramp's.
fn garbled(seen: &[u8; 64]) -> bool {
    seen.chunks(16).zip(RAMP.chunks(16)).all(|(a, b)| a != b)
}

fn mk_143(_: &Env) -> Verdict {
    for bit in [0, 77, 127] {
        let (mut s, program, _, km1) = keyed()?;
        let cached = s.map(FRAME_2, 1);
        s.store_flush(cached, &RAMP)?;
        s.load(cached)?;
        check!(s.mem().keytable_flip(0, KeyId(1), KeyField::K1, bit), "there is no bit {bit} in K1");
        equal!(s.load(cached)?, RAMP, "bit {bit}: a cached line");
        check!(garbled(&s.load(km1)?), "bit {bit}: an uncached line is not garbled");
        s.clflush(km1)?;
        s.program(&program)?;
        equal!(s.load(km1)?, RAMP, "bit {bit}: the line after PCONFIG with the DIRECT key");
    }
    Ok(())
}

fn mk_144(_: &Env) -> Verdict {
    /// The bit that DRAM ignores; no address of the harness has it.
    const IGNORED: u64 = 1 << 24;
    const ALIAS: u64 = FRAME | IGNORED;
    let mut s = Power::default().reset_state()?;
    s.mem().faults_mut().dram_alias = Some(IGNORED);
    s.activate(ACTIVATE)?;
    let program = Program::simple(1, 0x31);
    s.program(&program)?;
    let (victim, alias) = (s.map(FRAME, 1), s.map(ALIAS, 1));
    s.store_flush(victim, &RAMP)?;
    let cells = s.dram(FRAME);
    equal!(cells, program.encrypt(FRAME, &RAMP), "DRAM of the victim");
    let seen = s.load(alias)?;
    equal!(seen, program.decrypt(ALIAS, &cells), "read through the alias");
    check!(garbled(&seen), "the alias reads the victim's plaintext");
    s.store_flush(alias, &seen)?;
    equal!(s.dram(FRAME), cells, "DRAM of the victim after the same bytes were written back");
    equal!(s.load(victim)?, RAMP, "the victim's line");
    // That the write arrives: it also brings the old contents back once the victim has new ones.
    s.store_flush(victim, &DEVICE_DATA)?;
    check!(s.dram(FRAME) != cells, "the victim's new data is not in DRAM");
    s.store_flush(alias, &seen)?;
    equal!(s.load(victim)?, RAMP, "the victim's line after a replay through the alias");
    Ok(())
}

fn mk_145(_: &Env) -> Verdict {
    let (mut s, _, _, km1) = keyed()?;
    let cells = s.dram(FRAME);
    let line = PhysAddr(FRAME).line();
    let filter = WritebackFilter { first: line, last: line, keyid: Some(KeyId(1)), action: WritebackAction::Drop };
    s.mem().faults_mut().writeback_filter = Some(filter);
    s.store(km1, &DEVICE_DATA)?;
    equal!(s.load(km1)?, DEVICE_DATA, "read while cached");
    // Scenario::clflush fails on any exception.
    s.clflush(km1)?;
    check!(!s.resident(FRAME, 1), "the line is still cached");
    equal!(s.dram(FRAME), cells, "DRAM after the eviction");
    equal!(s.load(km1)?, RAMP, "read after the eviction");
    s.mem().clear_faults();
    s.store_flush(km1, &DEVICE_DATA)?;
    equal!(s.load(km1)?, DEVICE_DATA, "read after an eviction without the fault");
    Ok(())
}

fn mk_146(_: &Env) -> Verdict {
    let fault = |read| Some(TweakFault { xor_mask: 1 << 20, read, write: true });
    let (mut s, program, _, km1) = keyed()?;
    let cells = s.dram(FRAME);
    s.mem().faults_mut().tweak_fault = fault(false);
    s.store_flush(km1, &RAMP)?;
    equal!(s.dram(FRAME), program.encrypt(FRAME ^ (1 << 26), &RAMP), "DRAM");
    check!(garbled(&s.load(km1)?), "a fault on writes only: the line is not garbled");
    // Both directions from the start, so that no line was written with the right tweak.
    let mut s = Power::default().reset_state()?;
    s.mem().faults_mut().tweak_fault = fault(true);
    s.activate(ACTIVATE)?;
    s.program(&program)?;
    let (km0, km1) = (s.map(FRAME_2, 0), s.map(FRAME, 1));
    for linear in [km0, km1] {
        s.store_flush(linear, &RAMP)?;
        equal!(s.load(linear)?, RAMP, "a fault on both directions");
    }
    check!(s.dram(FRAME) != cells, "a fault on both directions does not show in DRAM");
    Ok(())
}

/// What a fixed piece of code sees of itself: CPUID leaves, MSRs, TSC, the count of its exceptions.
fn observe(arm: impl FnOnce(&mut Scenario)) -> Result<Vec<u64>, Failure> {
    let (mut s, ..) = keyed()?;
    arm(&mut s);
    let mut seen = Vec::new();
    for (leaf, subleaf) in [(0, 0), (1, 0), (7, 0), (0x15, 0), (0x16, 0), (0x1B, 0), (0x1B, 1), (0x8000_0008, 0)] {
        seen.extend(s.cpuid(leaf, subleaf)?);
    }
    for number in [
        msr::IA32_MKTME_KEYID_PARTITIONING,
        msr::IA32_TME_CAPABILITY,
        msr::IA32_TME_ACTIVATE,
        msr::IA32_TME_EXCLUDE_MASK,
        msr::IA32_TME_EXCLUDE_BASE,
        msr::IA32_TME_CLEAR_SAVED_KEY,
        msr::MK_TME_CORE_ACTIVATE,
    ] {
        seen.push(s.rdmsr(number)?);
        let faulted = s.wrmsr(number, u64::MAX)?.fault;
        seen.push(faulted.map_or(0, |f| u64::from(f.vector)));
    }
    let line = s.map(FRAME + 0x1000, 1);
    let end = s.run(|a| {
        a.rdtsc()?;
        a.mov(r8, rax)?;
        a.mov(rcx, 100u64)?;
        let mut again = a.create_label();
        a.set_label(&mut again)?;
        a.store_byte(line, 1)?;
        a.clflush_at(line)?;
        a.dec(rcx)?;
        a.jnz(again)?;
        a.rdtsc()?;
        a.sub(rax, r8)?;
        a.hlt()
    })?;
    seen.push(end.halted()?.rax());
    seen.push(s.machine.cpu.icount());
    seen.push(s.machine.cpu.now().0);
    Ok(seen)
}

fn mk_147(_: &Env) -> Verdict {
    type Hook = fn(&mut Scenario);
    fn filter(s: &mut Scenario, action: WritebackAction) {
        let (first, last) = (PhysAddr(0).line(), PhysAddr(u64::MAX).line());
        s.mem().faults_mut().writeback_filter = Some(WritebackFilter { first, last, keyid: Some(KeyId(1)), action });
    }
    let undisturbed = observe(|_| ())?;
    let hooks: [(&str, Hook); 10] = [
        ("dram_write_raw", |s| s.set_dram(FRAME, [0xFF; 64])),
        // FRAME reaches the cells at 0, which nothing needs in 64-bit mode.
        ("dram_alias", |s| s.mem().faults_mut().dram_alias = Some(FRAME)),
        ("tweak_fault", |s| {
            s.mem().faults_mut().tweak_fault = Some(TweakFault { xor_mask: 1, read: false, write: true });
        }),
        ("writeback_filter = drop", |s| filter(s, WritebackAction::Drop)),
        ("writeback_filter = duplicate", |s| filter(s, WritebackAction::Duplicate)),
        ("keytable_flip", |s| {
            s.mem().keytable_flip(0, KeyId(1), KeyField::K1, 5);
        }),
        ("entropy_fail_rate, busy_rate, pconfig_latency", |s| {
            let knobs = Knobs { busy_rate: Rate::ALWAYS, entropy_fail_rate: Rate::ALWAYS, pconfig_latency: 1000 };
            s.mem().tme_mut().set_knobs(knobs);
        }),
        ("entropy script", |s| {
            s.mem().tme_mut().script_entropy(EntropyStream::Pconfig, [EntropyStep::Fail]);
            s.mem().tme_mut().script_entropy(EntropyStream::TmeKey, [EntropyStep::Fail]);
        }),
        ("busy key table", |s| s.mem().tme_mut().hold_key_table(3)),
        ("events off", |s| s.mem().events_mut().enable(false)),
    ];
    for (name, hook) in hooks {
        equal!(observe(hook)?, undisturbed, "what the guest sees with {name}");
    }
    Ok(())
}
