//! The TME sequence and the MTRRs as the processor's registers show them afterwards.

mod common;

use common::{CLIENT4, DEFAULT, GIB, MIB, MockCpu, TME_ONLY};
use firmware::{Bios, Exclude, MemoryMap, Setup, SetupError, TmeSetting, power_on};
use x86::msr;

fn boot(capability: Option<u64>, setup: Setup) -> (MockCpu, Result<Bios, SetupError>) {
    let memory = MemoryMap::new(512 * MIB).unwrap();
    let mut cpu = MockCpu::new(46, capability, memory.low_top());
    let bios = power_on(&mut cpu, &setup, &memory);
    (cpu, bios)
}

fn with(tme: TmeSetting) -> Setup {
    Setup { tme: Some(tme), ..Setup::default() }
}

fn position(cpu: &MockCpu, register: u32) -> usize {
    cpu.writes.iter().position(|&(msr, _)| msr == register).unwrap()
}

#[test]
fn activation_values_are_those_of_the_specification() {
    let no_keyids = Setup { keyid_bits: Some(0), ..Setup::default() };
    for (capability, setup, reads, width) in [
        (DEFAULT, Setup::default(), 0x0005_0006_0000_0003, 40),
        (CLIENT4, Setup::default(), 0x0004_0004_0000_0023, 42),
        (TME_ONLY, Setup::default(), 0x3, 46),
        (DEFAULT, no_keyids, 0x3, 46),
        (DEFAULT, with(TmeSetting::Bypass), 0x0005_0006_8000_0003, 40),
        (DEFAULT, with(TmeSetting::Off), 0x1, 46),
        (DEFAULT, with(TmeSetting::Unlocked), 0x0, 46),
        // Integrity algorithms are left out even where they exist.
        (DEFAULT | 0xA, Setup::default(), 0x0005_0006_0000_0003, 40),
    ] {
        let (cpu, bios) = boot(Some(capability), setup);
        let bios = bios.unwrap();
        assert_eq!(cpu.msr(msr::IA32_TME_ACTIVATE), reads);
        assert_eq!(bios.tme.activate, reads);
        assert_eq!(bios.tme.effective_width(), width);
    }
}

#[test]
fn unlocked_never_touches_the_activation_register() {
    let (cpu, bios) = boot(Some(DEFAULT), with(TmeSetting::Unlocked));
    bios.unwrap();
    assert!(cpu.writes.iter().all(|&(register, _)| !(0x981..=0x9FF).contains(&register)));
}

#[test]
fn a_processor_without_tme_is_left_alone() {
    let (cpu, bios) = boot(None, Setup::default());
    assert!(!bios.unwrap().tme.enabled());
    assert!(cpu.writes.iter().all(|&(register, _)| register < 0x300));
}

#[test]
fn sequence_is_exclusion_then_activation_then_core_then_mtrrs_then_memory() {
    let exclude = Some(Exclude { base: 256 * MIB, size: 64 * MIB });
    let (cpu, bios) = boot(Some(DEFAULT), Setup { exclude, ..Setup::default() });
    bios.unwrap();
    let order = [
        msr::IA32_TME_EXCLUDE_BASE,
        msr::IA32_TME_EXCLUDE_MASK,
        msr::IA32_TME_ACTIVATE,
        msr::MK_TME_CORE_ACTIVATE,
        msr::IA32_MTRR_PHYSMASK0,
    ];
    assert!(order.windows(2).all(|pair| position(&cpu, pair[0]) < position(&cpu, pair[1])));
    assert_eq!(cpu.msr(msr::IA32_TME_EXCLUDE_BASE), 0x1000_0000);
    assert_eq!(cpu.msr(msr::IA32_TME_EXCLUDE_MASK), 0x3FFF_FC00_0800);
    assert_eq!(cpu.activate_at_first_store, Some(0x0005_0006_0000_0003));
}

#[test]
fn one_random_generator_failure_is_retried() {
    let (mut cpu, memory) = MockCpu::default_profile(512 * MIB);
    cpu.rng_failures = 1;
    let bios = power_on(&mut cpu, &Setup::default(), &memory).unwrap();
    assert!(bios.tme.enabled());
    assert_eq!(bios.tme.keyid_bits(), 6);
}

#[test]
fn two_random_generator_failures_lock_tme_off() {
    for keyid_bits in [None, Some(0)] {
        let (mut cpu, memory) = MockCpu::default_profile(512 * MIB);
        cpu.rng_failures = 2;
        let bios = power_on(&mut cpu, &Setup { keyid_bits, ..Setup::default() }, &memory).unwrap();
        assert_eq!(bios.tme.activate, 1);
        assert_eq!(bios.tme.effective_width(), 46);
        assert!(bios.log.to_string().contains("random generator failed"));
    }
}

#[test]
fn mtrrs_default_to_write_back_with_an_uncacheable_hole_in_narrow_masks() {
    let (cpu, bios) = boot(Some(DEFAULT), Setup::default());
    bios.unwrap();
    assert_eq!(cpu.msr(msr::IA32_MTRR_DEF_TYPE), 0xC06);
    // 512 MiB to 1 GiB, 1 to 2 GiB, 2 to 4 GiB, all with 40-bit masks.
    for (n, base, mask) in [
        (0, 0x2000_0000, 0xFF_E000_0800),
        (1, 0x4000_0000, 0xFF_C000_0800),
        (2, 0x8000_0000, 0xFF_8000_0800),
        (3, 0, 0),
        (9, 0, 0),
    ] {
        assert_eq!(cpu.msr(msr::IA32_MTRR_PHYSBASE0 + 2 * n), base);
        assert_eq!(cpu.msr(msr::IA32_MTRR_PHYSMASK0 + 2 * n), mask);
    }
    assert_eq!(cpu.msr(msr::IA32_MTRR_FIX64K_00000), 0x0606_0606_0606_0606);
    assert_eq!(cpu.msr(msr::IA32_MTRR_FIX16K_A0000), 0);
    assert_eq!(cpu.msr(msr::IA32_MTRR_FIX4K_C0000 + 4), 0x0505_0505_0505_0505);
}

#[test]
fn impossible_settings_are_refused_before_anything_is_written() {
    let bits = |n| Setup { keyid_bits: Some(n), ..Setup::default() };
    let exclude = |base, size| Setup { exclude: Some(Exclude { base, size }), ..Setup::default() };
    let range = Some(Exclude { base: 0, size: MIB });
    let no_bypass = Some(DEFAULT & !(1 << 31));
    for (capability, setup, words) in [
        (None, with(TmeSetting::On), vec!["--tme:", "no TME", "accepted"]),
        (None, with(TmeSetting::Off), vec!["--tme:", "no TME"]),
        (None, bits(1), vec!["--keyid-bits:", "no TME"]),
        (None, exclude(0, MIB), vec!["--tme-exclude:", "no TME"]),
        (Some(DEFAULT), bits(7), vec!["--keyid-bits 7", "0 to 6"]),
        (Some(TME_ONLY), bits(1), vec!["--keyid-bits 1", "0 to 0"]),
        (no_bypass, with(TmeSetting::Bypass), vec!["--tme bypass", "accepted: on, off, unlocked"]),
        (Some(DEFAULT & !5 | 2), Setup::default(), vec!["--tme", "no algorithm"]),
        (Some(DEFAULT), exclude(0, 3 * MIB), vec!["--tme-exclude", "power of two"]),
        (Some(DEFAULT), exclude(0, 2048), vec!["--tme-exclude", "at least 4 KiB"]),
        (Some(DEFAULT), exclude(0, 0), vec!["--tme-exclude", "power of two"]),
        (Some(DEFAULT), exclude(MIB, 2 * MIB), vec!["--tme-exclude", "multiple", "0x0 or 0x200000"]),
        (Some(DEFAULT), exclude(1 << 40, MIB), vec!["--tme-exclude", "40 address bits", "0x10000000000"]),
        (Some(DEFAULT), exclude(1 << 63, 1 << 63), vec!["--tme-exclude"]),
        (Some(DEFAULT), Setup { exclude: range, ..with(TmeSetting::Off) }, vec!["--tme-exclude", "--tme is off"]),
        (Some(DEFAULT), Setup { keyid_bits: Some(4), ..with(TmeSetting::Unlocked) }, vec!["--keyid-bits"]),
        (Some(DEFAULT), Setup { processors: 0, ..Setup::default() }, vec!["processors", "1 to 255"]),
    ] {
        let (cpu, bios) = boot(capability, setup);
        let message = bios.unwrap_err().to_string();
        assert!(words.iter().all(|word| message.contains(word)), "{message}");
        assert!(cpu.writes.is_empty());
    }
}

#[test]
fn ram_that_keyid_bits_would_push_out_of_reach_is_refused() {
    // 36 - 4 bits reach 4 GiB: enough for 2 GiB of RAM with its hole, not for 8 GiB.
    let capability = Some(0x0000_00F4_8000_0005);
    let memory = MemoryMap::new(2 * GIB).unwrap();
    let mut cpu = MockCpu::new(36, capability, memory.low_top());
    assert_eq!(power_on(&mut cpu, &Setup::default(), &memory).unwrap().tme.effective_width(), 32);

    let memory = MemoryMap::new(8 * GIB).unwrap();
    let mut cpu = MockCpu::new(36, capability, memory.low_top());
    let message = power_on(&mut cpu, &Setup::default(), &memory).unwrap_err().to_string();
    assert!(message.contains("--keyid-bits 0 to 2") && message.contains("smaller -m"), "{message}");
    let mut cpu = MockCpu::new(36, capability, memory.low_top());
    assert!(power_on(&mut cpu, &Setup { keyid_bits: Some(2), ..Setup::default() }, &memory).is_ok());
}

#[test]
fn settings_are_read_from_text() {
    assert_eq!("bypass".parse(), Ok(TmeSetting::Bypass));
    assert!("maybe".parse::<TmeSetting>().unwrap_err().to_string().contains("on, off, unlocked, bypass"));
    assert_eq!("0x10000000,64M".parse(), Ok(Exclude { base: 0x1000_0000, size: 64 * MIB }));
    assert_eq!("1g,4096".parse(), Ok(Exclude { base: GIB, size: 4096 }));
    for text in ["", "1", "1,", "x,1", "1,2,3", "0x,1", "99999999999G,1", "-1,1", "é,1"] {
        assert!(text.parse::<Exclude>().is_err(), "{text}");
    }
}

#[test]
fn chips_end_up_masked_and_in_acpi_mode() {
    let (cpu, bios) = boot(Some(DEFAULT), Setup::default());
    bios.unwrap();
    let last = |port| cpu.ports.iter().rev().find(|write| write.0 == port).map(|write| write.2);
    assert_eq!((last(0x21), last(0xA1)), (Some(0xFF), Some(0xFF)));
    assert_eq!(last(0x604), Some(1));
}

#[test]
fn the_log_tells_what_a_bios_would() {
    let (_, bios) = boot(Some(DEFAULT), Setup::default());
    let expected = "\
Memory: 512 MiB
Processor: GenuineIntel family 6 model 6AH stepping 6, MAXPHYADDR 46
TME: capability 000003F680000005: AES-XTS-128, AES-XTS-256, bypass, 6 KeyID bits, 63 keys
TME: IA32_TME_ACTIVATE written 0005000600000002, reads 0005000600000003
TME: enabled, locked, KeyID 0 uses AES-XTS-128
TME-MK: 6 KeyID bits, KeyIDs 1 to 63, physical addresses reduced to 40 bits
MTRR: default write-back, 3 of 10 ranges used, 40-bit masks
MTRR: 020000000-03FFFFFFF uncacheable
MTRR: 040000000-07FFFFFFF uncacheable
MTRR: 080000000-0FFFFFFFF uncacheable
";
    let log = bios.unwrap().log.to_string();
    assert!(log.contains(expected), "{log}");
}

#[test]
fn the_transcripts_in_the_documentation_are_real() {
    let document = include_str!("../../docs/boot.md");
    let exclude = Some(Exclude { base: 256 * MIB, size: 64 * MIB });
    let (_, bios) = boot(Some(DEFAULT), Setup::default());
    assert!(document.contains(&bios.unwrap().log.to_string()));
    for (capability, setup) in [
        (Some(DEFAULT), with(TmeSetting::Off)),
        (Some(DEFAULT), with(TmeSetting::Unlocked)),
        (Some(DEFAULT), with(TmeSetting::Bypass)),
        (Some(DEFAULT), Setup { exclude, ..Setup::default() }),
        (None, Setup::default()),
    ] {
        let (_, bios) = boot(capability, setup);
        let log = bios.unwrap().log;
        let unknown = log.lines().iter().find(|line| line.starts_with("TME") && !document.contains(*line));
        assert_eq!(unknown, None);
    }
}
