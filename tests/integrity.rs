//! Integrity (MC-32) in a whole machine (docs/integrity.md): what the guest sees of it, in every mode.

mod common;

use common::asm::{Code, KEY_PROGRAM, MARKER, copy, marker, pconfig_random};
use common::{Scratch, emu};
use firmware::Images;
use iced_x86::code_asm::*;
use machine::inject::{FaultSpec, Limits, Outcome};
use machine::snapshot::Snapshot;
use machine::{Config, Exit, Machine};
use mem::{Algorithm, BusAddr, CacheModel, EncryptionAlgorithm, KeyId, PhysAddr};
use x86::msr::{IA32_MC0_ADDR, IA32_MC0_CTL, IA32_MC0_MISC, IA32_MC0_STATUS, IA32_MCG_CAP, IA32_MCG_STATUS};
use x86::tme::pconfig;

/// A page of data: physical, and its linear address with KeyID 1.
const PAGE: u64 = 0x40_0000;
const PAGE_1: u64 = 1 << 39 | PAGE;
/// Code and data of the same large page with KeyID 3, through page tables with KeyID 3.
const CODE: u64 = 0x48_0000;
const CODE_3: u64 = 3 << 39 | CODE;
/// What the guest has read.
const RESULT: u64 = 0x70_0000;
/// What its handler has: five words for each machine check, RIP and four registers. Their number first.
const CHECKS: u64 = 0x71_0000;
const STACK: u64 = 0x79_0000;
const IDT: u64 = 0x68_0000;
const IDTR: u64 = 0x69_0000;
const STAGING: u64 = 0x6A_0000;
const GOOD_LINE: u64 = 0x6B_0000;
/// ENC_ALG
const AES_XTS_128_WITH_INTEGRITY: u64 = 2;
const TABLES: u64 = 0x60_0000;
const TABLES_3: u64 = 0x4A_0000;
const PML4: u64 = 0x9000;
const PRESENT_RW: u64 = 0b11;
const LARGE: u64 = 1 << 7;
const KEYID_SHIFT: u32 = 40;
const DEBUG_EXIT: i32 = 0xF4;

const FIRST: u64 = 0x1111_1111_1111_1111;
const SECOND: u64 = 0x2222_2222_2222_2222;
const GOOD: u64 = 0x7777_7777_7777_7777;
/// The guest's exit when the handler cannot repair anything.
const UNREPAIRED: u32 = 7;

/// A whole line, past the cache: nothing is read, so nothing is checked.
fn put(a: &mut CodeAssembler, address: u64, value: u64) -> Code {
    a.mov(rsi, STAGING)?;
    for n in 0..8 {
        a.mov(rcx, value + n)?;
        a.mov(qword_ptr(rsi + 8 * n as i32), rcx)?;
    }
    a.mov(rax, address)?;
    a.movdir64b(rax, zmmword_ptr(rsi))
}

/// Notes registers, repairs the data line by MOVDIR64B and goes on; ends the run where the line is another one.
fn handler(a: &mut CodeAssembler) -> Code {
    let mut other = a.create_label();
    for register in [rax, rbx, rcx, rdx, rsi] {
        a.push(register)?;
    }
    a.mov(rbx, CHECKS)?;
    a.inc(qword_ptr(rbx))?;
    a.imul_3(rsi, qword_ptr(rbx), 40)?;
    a.add(rbx, rsi)?;
    a.mov(rax, qword_ptr(rsp + 40))?;
    a.mov(qword_ptr(rbx), rax)?;
    for (n, msr) in [IA32_MCG_STATUS, IA32_MC0_STATUS, IA32_MC0_ADDR, IA32_MC0_MISC].into_iter().enumerate() {
        a.mov(ecx, msr as i32)?;
        a.rdmsr()?;
        a.shl(rdx, 32)?;
        a.or(rax, rdx)?;
        a.mov(qword_ptr(rbx + 8 * (n as i32 + 1)), rax)?;
    }
    a.mov(rax, PAGE)?;
    a.cmp(qword_ptr(rbx + 24), rax)?;
    a.jne(other)?;
    a.mov(rsi, GOOD_LINE)?;
    a.mov(rax, PAGE_1)?;
    a.movdir64b(rax, zmmword_ptr(rsi))?;
    for msr in [IA32_MC0_STATUS, IA32_MCG_STATUS] {
        a.mov(ecx, msr as i32)?;
        a.xor(eax, eax)?;
        a.xor(edx, edx)?;
        a.wrmsr()?;
    }
    for register in [rsi, rdx, rcx, rbx, rax] {
        a.pop(register)?;
    }
    a.iretq()?;
    a.set_label(&mut other)?;
    a.mov(eax, UNREPAIRED as i32)?;
    a.out(DEBUG_EXIT, al)
}

/// `mce`: CR4.MCE is set. `plain`: the line is written by stores in the cache, not whole.
fn guest(a: &mut CodeAssembler, mce: bool, plain: bool) -> Code {
    let (mut entry, mut start) = (a.create_label(), a.create_label());
    a.jmp(start)?;
    a.set_label(&mut entry)?;
    handler(a)?;
    a.set_label(&mut start)?;
    a.mov(rsp, STACK)?;
    // The gate of vector 18, and IDTR.
    a.lea(rax, ptr(entry))?;
    a.mov(rbx, IDT + 18 * 16)?;
    a.mov(word_ptr(rbx), ax)?;
    a.mov(word_ptr(rbx + 2), cs)?;
    a.mov(word_ptr(rbx + 4), 0x8E00)?;
    a.shr(rax, 16)?;
    a.mov(word_ptr(rbx + 6), ax)?;
    a.mov(rbx, IDTR)?;
    a.mov(word_ptr(rbx), 0xFFF)?;
    a.mov(rax, IDT)?;
    a.mov(qword_ptr(rbx + 2), rax)?;
    a.lidt(ptr(rbx))?;
    if mce {
        a.mov(rax, cr4)?;
        a.or(eax, 1 << 6)?;
        a.mov(cr4, rax)?;
    }
    put(a, GOOD_LINE, GOOD)?;
    pconfig_random(a, 1, AES_XTS_128_WITH_INTEGRITY)?;
    a.mov(rbx, RESULT + 0x100)?;
    a.mov(qword_ptr(rbx), rax)?;
    for n in 0..2 {
        put(a, PAGE_1 + 64 * n, FIRST)?;
    }
    marker(a, 1)?;
    if plain {
        a.mov(rax, PAGE_1)?;
        for n in 0..8u64 {
            a.mov(rcx, SECOND + n)?;
            a.mov(qword_ptr(rax + 8 * n as i32), rcx)?;
        }
        a.clflush(byte_ptr(rax))?;
    } else {
        put(a, PAGE_1, SECOND)?;
    }
    marker(a, 3)?;
    copy(a, PAGE_1, RESULT)?;
    // A read-modify-write of what was read.
    a.mov(rax, PAGE_1)?;
    a.inc(qword_ptr(rax))?;
    marker(a, 4)?;
    a.mov(rax, CODE_3)?;
    a.call(rax)?;
    marker(a, 5)?;
    a.mov(eax, 0)?;
    a.out(DEBUG_EXIT, al)
}

fn start_with(config: Config, mce: bool, plain: bool) -> Machine {
    let image = common::guest(|a| guest(a, mce, plain));
    let mut machine = Machine::new(Config { ram_bytes: 64 << 20, integrity: true, ..config }).unwrap();
    let mut bios = machine.power_on().unwrap();
    machine.boot(&mut bios, &Images { kernel: &image, ..Images::default() }).unwrap();
    let mem = &mut machine.cpu.mem;
    let algorithm = EncryptionAlgorithm { cipher: Algorithm::AesXts256, integrity: true };
    let direct = pconfig::KEYID_SET_KEY_DIRECT;
    mem.tme_mut().program_key(KeyId(3), direct, algorithm, &[5; 64], &[6; 64]).unwrap();
    let through_3 = |address: u64| 3 << KEYID_SHIFT | address;
    let tables = TABLES + 0x2000;
    for (at, entry) in [
        (PML4 + 8, tables | PRESENT_RW),
        (tables, (tables + 0x1000) | PRESENT_RW),
        (tables + 0x1000 + (PAGE >> 21) * 8, 1 << KEYID_SHIFT | PAGE | LARGE | PRESENT_RW),
        (PML4 + 24, through_3(TABLES_3) | PRESENT_RW),
    ] {
        mem.load_image(PhysAddr(at), &u64::to_le_bytes(entry));
    }
    // RAM holds anything.
    for page in [CHECKS, IDT] {
        mem.load_image(PhysAddr(page), &[0; 4096]);
    }
    // Tables and code that carry MACs: whole lines.
    let mut table = [0; 4096];
    table[..8].copy_from_slice(&(through_3(TABLES_3 + 0x1000) | PRESENT_RW).to_le_bytes());
    mem.dma_write(BusAddr(through_3(TABLES_3)), &table);
    table = [0; 4096];
    let at = (PAGE >> 21) as usize * 8;
    table[at..at + 8].copy_from_slice(&(through_3(PAGE) | LARGE | PRESENT_RW).to_le_bytes());
    mem.dma_write(BusAddr(through_3(TABLES_3 + 0x1000)), &table);
    // RET
    mem.dma_write(BusAddr(through_3(CODE)), &[0xC3; 64]);
    machine
}

fn start(config: Config) -> Machine {
    start_with(config, true, false)
}

fn arm(machine: &mut Machine, specs: &[&str]) {
    let specs: Vec<FaultSpec> =
        specs.iter().map(|text| text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))).collect();
    machine.arm(&specs, Limits::default()).unwrap_or_else(|(_, e)| panic!("{e}"));
}

fn words<const N: usize>(machine: &mut Machine, address: u64) -> [u64; N] {
    let mut bytes = vec![0; 8 * N];
    machine.cpu.mem.probe(BusAddr(address), &mut bytes);
    std::array::from_fn(|n| u64::from_le_bytes(bytes[8 * n..8 * n + 8].try_into().unwrap()))
}

fn pattern(value: u64) -> [u64; 8] {
    std::array::from_fn(|n| value + n as u64)
}

/// RIP, IA32_MCG_STATUS, IA32_MC0_STATUS, ADDR and MISC of each machine check.
fn checks(machine: &mut Machine) -> Vec<[u64; 5]> {
    let [count] = words(machine, CHECKS);
    (1..=count).map(|n| words(machine, CHECKS + 40 * n)).collect()
}

/// Every cache model with and without the host's shortcuts.
fn modes() -> Vec<Config> {
    let config = |cache, fast| Config { cache, fast, links: fast, bulk_strings: fast, seed: 3, ..Config::default() };
    CacheModel::ALL.into_iter().flat_map(|cache| [config(cache, true), config(cache, false)]).collect()
}

/// VAL, UC, EN, MISCV, ADDRV, S, AR.
const SRAR: u64 = 0xBD80_0000_0000_0000;
const DATA_LOAD: u64 = 0x134;
const INSTRUCTION_FETCH: u64 = 0x150;
/// RIPV, EIPV, MCIP.
const MCG: u64 = 0b111;
const PHYSICAL_LINE: u64 = 0b010 << 6 | 6;

/// What is compared between modes.
type Seen = (Exit, u64, Vec<[u64; 5]>, [u64; 8], mem::Detections);

fn run_mode(config: Config, specs: &[&str]) -> Seen {
    let mut machine = start(config);
    arm(&mut machine, specs);
    let exit = machine.run(1_000_000);
    assert_ne!(exit, Exit::TripleFault, "{specs:?}: {:x?}", machine.cpu.last_exception);
    let found = machine.integrity_detections();
    (exit, machine.cpu.icount(), checks(&mut machine), words(&mut machine, RESULT), found)
}

/// The same in every mode; the times are those of the model with a cache, too.
fn run(specs: &[&str]) -> Seen {
    let mut all: Vec<Seen> = modes().into_iter().map(|config| run_mode(config, specs)).collect();
    let first = all.remove(0);
    for (n, other) in all.iter().enumerate() {
        assert_eq!(*other, first, "{specs:?}, mode {}", n + 1);
    }
    first
}

#[test]
fn an_undisturbed_guest_sees_nothing() {
    let (exit, _, checks, result, found) = run(&[]);
    assert_eq!((exit, checks.len(), result), (Exit::DebugExit(0), 0, pattern(SECOND)));
    assert_eq!(found, mem::Detections::default());
    let mut machine = start(Config::default());
    machine.run(u64::MAX);
    assert_eq!(words(&mut machine, RESULT + 0x100), [pconfig::PROG_SUCCESS]);
}

#[test]
fn flips_are_detected_and_the_handler_is_told() {
    let line = format!("line={PAGE:#x}");
    for fault in [
        format!("dram-flip {line} bit=0"),
        format!("dram-flip {line} bit=77,300"),
        format!("dram-flip {line} bit=511"),
        format!("mac-flip {line} bit=0"),
        format!("mac-flip {line} bit=27"),
        format!("splice {line} from={:#x}", PAGE + 64),
        format!("splice {line} from={:#x} block=1", PAGE + 64),
        "key-flip keyid=1 field=k2 bit=4".into(),
    ] {
        let (exit, _, checks, result, found) = run(&[&format!("{fault} at=marker:3")]);
        assert_eq!((exit, result), (Exit::DebugExit(0), pattern(GOOD)), "{fault}");
        let [[rip, mcg, status, address, misc]] = checks[..] else { panic!("{fault}: {checks:x?}") };
        assert_eq!((mcg, status), (MCG, SRAR | DATA_LOAD), "{fault}");
        assert_eq!((address, misc), (PAGE, PHYSICAL_LINE), "{fault}");
        assert_eq!((found.mismatches, found.consumed), (1, 1), "{fault}");
        let first = found.first_consumed.unwrap();
        assert_eq!((first.line.start().0, first.moment.keyid), (PAGE, Some(KeyId(1))));
        assert_eq!((first.moment.rip, Some(first.moment.icount)), (rip, found.first_mismatch.map(|m| m.moment.icount)));
    }
}

#[test]
fn replay_and_the_data_key_are_not_covered() {
    let replay = format!("replay line={PAGE:#x} since=marker:1 at=marker:3");
    let (exit, _, checks, result, found) = run(&[&replay]);
    assert_eq!((exit, checks.len(), result), (Exit::DebugExit(0), 0, pattern(FIRST)));
    assert_eq!(found, mem::Detections::default());
    let (_, _, checks, result, _) = run(&["key-flip keyid=1 field=k1 bit=4 at=marker:3"]);
    assert!(checks.is_empty() && result != pattern(SECOND));
    let (_, _, checks, result, _) = run(&["key-flip keyid=1 field=mode bit=0 at=marker:3"]);
    assert!(checks.is_empty() && result != pattern(SECOND), "plaintext mode has no MAC");
}

#[test]
fn fetches_and_page_walks_use_poison_too() {
    for (line, code) in [(CODE, INSTRUCTION_FETCH), (TABLES_3, DATA_LOAD), (TABLES_3 + 0x1000, DATA_LOAD)] {
        let (exit, _, checks, _, _) = run(&[&format!("dram-flip line={line:#x} bit=9 at=marker:4")]);
        assert_eq!(exit, Exit::DebugExit(UNREPAIRED), "{line:#x}");
        let [[rip, mcg, status, address, _]] = checks[..] else { panic!("{line:#x}: {checks:x?}") };
        assert_eq!((mcg, status, address), (MCG, SRAR | code, line), "{line:#x}");
        assert_eq!(rip, CODE_3, "the instruction that could not be fetched");
    }
}

#[test]
fn a_line_written_by_stores_is_found_good_where_there_is_a_cache() {
    for cache in [CacheModel::Exact, CacheModel::Lazy] {
        let mut machine = start_with(Config { cache, ..Config::default() }, true, true);
        // The first store reads a line that is wrong.
        arm(&mut machine, &[&format!("dram-flip line={PAGE:#x} bit=3 at=marker:1")]);
        assert_eq!(machine.run(1_000_000), Exit::DebugExit(0));
        assert_eq!((checks(&mut machine).len(), words(&mut machine, RESULT)), (0, pattern(SECOND)));
        let found = machine.integrity_detections();
        assert_eq!((found.mismatches, found.consumed), (1, 0));
    }
}

#[test]
fn a_machine_check_that_cannot_be_delivered_shuts_down() {
    let flip = format!("dram-flip line={PAGE:#x} bit=3 at=marker:3");
    for config in modes() {
        let mut machine = start_with(config, false, false);
        arm(&mut machine, &[&flip]);
        assert_eq!(machine.run(1_000_000), Exit::TripleFault);
        assert!(machine.machine_check_shutdown());
        assert_eq!((checks(&mut machine).len(), machine.cpu.msr.mcg_status), (0, 0));
        machine.reset(x86::platform::ResetKind::Warm);
        assert!(!machine.machine_check_shutdown());
    }
    // Another one in progress.
    let mut machine = start(Config::default());
    machine.cpu.msr.mcg_status = 4;
    arm(&mut machine, &[&flip]);
    assert_eq!(machine.run(1_000_000), Exit::TripleFault);
    assert!(machine.machine_check_shutdown());
    let scratch = Scratch::new();
    let kernel = scratch.file("guest", common::guest(no_mce));
    let run = emu([
        "run",
        "-m",
        "64M",
        "--integrity",
        "on",
        "-kernel",
        &kernel,
        "--inject",
        &format!("dram-flip line={PAGE:#x} bit=3 at=marker"),
    ]);
    assert_eq!(run.status, 4, "{}", run.stderr);
    for part in ["machine check (use of poisoned memory) with CR4.MCE = 0", "integrity      1 wrong MACs, 1 uses"] {
        assert!(run.stderr.contains(part), "{part}: {}", run.stderr);
    }
}

/// A key with a MAC for KeyID 1, and its mapping.
fn no_mce_mapping(a: &mut CodeAssembler) -> Code {
    pconfig_random(a, 1, AES_XTS_128_WITH_INTEGRITY)?;
    let tables = TABLES + 0x2000;
    for (at, entry) in [
        (PML4 + 8, tables | PRESENT_RW),
        (tables, (tables + 0x1000) | PRESENT_RW),
        (tables + 0x1000 + (PAGE >> 21) * 8, 1 << KEYID_SHIFT | PAGE | LARGE | PRESENT_RW),
    ] {
        a.mov(rax, at)?;
        a.mov(rcx, entry)?;
        a.mov(qword_ptr(rax), rcx)?;
    }
    a.nop()
}

fn no_mce(a: &mut CodeAssembler) -> Code {
    no_mce_mapping(a)?;
    put(a, PAGE_1, FIRST)?;
    marker(a, 1)?;
    a.mov(rax, PAGE_1)?;
    a.mov(rax, qword_ptr(rax))?;
    a.hlt()
}

#[test]
#[ignore = "prints the guest of docs/integrity.md in hexadecimal"]
fn print_the_guest_of_the_page() {
    let mut a = CodeAssembler::new(64).unwrap();
    page_guest(&mut a).unwrap();
    let code: String = a.assemble(common::BASE).unwrap().iter().map(|byte| format!("{byte:02x}")).collect();
    println!("{code}");
}

/// KeyID 1 gets a key with a MAC; a line is written through it twice, and read. Debug exit 10H if it is what was written last.
fn page_guest(a: &mut CodeAssembler) -> Code {
    let mut right = a.create_label();
    a.mov(ebx, KEY_PROGRAM as i32)?;
    a.mov(rcx, 1u64 | (2 << 8 | 1) << 16)?;
    a.mov(qword_ptr(rbx), rcx)?;
    a.xor(eax, eax)?;
    a.pconfig()?;
    for (at, entry) in [
        (PML4 + 8, TABLES | PRESENT_RW),
        (TABLES, (TABLES + 0x1000) | PRESENT_RW),
        (TABLES + 0x1000 + (PAGE >> 21) * 8, 1 << KEYID_SHIFT | PAGE | LARGE | PRESENT_RW),
    ] {
        a.mov(rcx, entry)?;
        a.mov(qword_ptr(at), rcx)?;
    }
    a.mov(rdx, PAGE_1)?;
    for n in [1, 2] {
        a.mov(edi, STAGING as i32)?;
        a.mov(eax, n)?;
        a.mov(ecx, 64)?;
        a.rep().stosb()?;
        a.lea(rsi, ptr(rdi - 64))?;
        a.movdir64b(rdx, zmmword_ptr(rsi))?;
        a.out(MARKER, al)?;
    }
    a.cmp(byte_ptr(rdx), 2)?;
    a.mov(al, 0x10)?;
    a.je(right)?;
    a.mov(al, 1)?;
    a.set_label(&mut right)?;
    a.out(DEBUG_EXIT, al)?;
    a.hlt()
}

#[test]
fn the_bank_exists_with_the_option_only() {
    let mut with = start(Config::default()).cpu;
    let mut without = Machine::new(Config { ram_bytes: 64 << 20, ..Config::default() }).unwrap().cpu;
    assert_eq!(with.rdmsr(IA32_MCG_CAP), Ok(1 | 1 << 24));
    assert_eq!(without.rdmsr(IA32_MCG_CAP), Ok(0));
    for msr in IA32_MC0_CTL..=IA32_MC0_MISC {
        assert!(without.rdmsr(msr).is_err() && without.wrmsr(msr, 0).is_err());
        assert_eq!(with.rdmsr(msr), Ok(u64::from(msr == IA32_MC0_CTL)));
        assert_eq!(with.wrmsr(msr, 0), Ok(()));
        assert_eq!(with.wrmsr(msr, u64::MAX).is_ok(), msr == IA32_MC0_CTL, "{msr:#x}");
    }
    assert_eq!(with.rdmsr(IA32_MC0_CTL), Ok(1));
}

#[test]
fn snapshots_in_the_middle_lead_to_the_same_end() {
    for config in modes() {
        let mut machine = start_with(config.clone(), true, config.cache != CacheModel::Off);
        arm(&mut machine, &[&format!("dram-flip line={PAGE:#x} bit=3 at=marker:3")]);
        let mut whole = start_with(config, true, machine.config().cache != CacheModel::Off);
        arm(&mut whole, &[&format!("dram-flip line={PAGE:#x} bit=3 at=marker:3")]);
        assert_eq!(whole.run(1_000_000), Exit::DebugExit(0));
        let (end, hash) = (whole.cpu.icount(), whole.state_hash());
        let mut moved = 0;
        while machine.run(machine.cpu.icount() + 7) == Exit::Icount {
            // Once the fault is over, all that is left of it is in the snapshot.
            let fired = machine.injections().iter().all(|one| one.outcome() != Outcome::NotActivated);
            if fired && moved < 12 {
                moved += 1;
                let (file, _) = machine.snapshot().write(Vec::new(), &mut |_, _| ()).unwrap();
                let mut other = Machine::from_snapshot(&Snapshot::read(&file[..], &mut |_, _| ()).unwrap()).unwrap();
                assert_eq!(other.run(1_000_000), Exit::DebugExit(0));
                assert_eq!((other.cpu.icount(), other.state_hash()), (end, hash));
            }
        }
        assert!(moved > 4, "{moved}");
    }
}

#[test]
fn execution_by_physical_address_is_seen_through_any_mapping() {
    for config in modes() {
        let mut machine = start(config);
        // The guest calls CODE_3, which is not CODE.
        arm(
            &mut machine,
            &[
                &format!("gpr-flip reg=rdi bit=0 at=phys-exec:{CODE:#x}"),
                &format!("gpr-flip reg=rdi bit=0 at=exec:{CODE_3:#x}"),
                &format!("gpr-flip reg=rdi bit=0 at=exec:{CODE:#x}"),
                &format!("gpr-flip reg=rdi bit=0 at=phys-exec:{:#x}", CODE + 1),
                &format!("gpr-flip reg=rdi bit=0 at=phys-exec:{CODE:#x},nth=2"),
            ],
        );
        assert_eq!(machine.run(1_000_000), Exit::DebugExit(0));
        let at: Vec<Option<u64>> = machine
            .injections()
            .iter()
            .map(|injection| match injection.outcome() {
                Outcome::Fired { at, .. } => Some(at.rip),
                _ => None,
            })
            .collect();
        assert_eq!(at, [Some(CODE_3), Some(CODE_3), None, None, None]);
    }
    // What cannot be fetched is not executed.
    let mut machine = start(Config::default());
    let flip = format!("dram-flip line={CODE:#x} bit=9 at=marker:4");
    arm(&mut machine, &[&flip, &format!("gpr-flip reg=rdi bit=0 at=phys-exec:{CODE:#x}")]);
    assert_eq!(machine.run(1_000_000), Exit::DebugExit(UNREPAIRED));
    assert_eq!(machine.injections()[1].outcome(), Outcome::NotActivated);
}

#[test]
fn a_mac_flip_needs_macs() {
    let mut machine = Machine::new(Config { ram_bytes: 64 << 20, ..Config::default() }).unwrap();
    let spec: FaultSpec = "mac-flip line=0x400000 bit=1 at=icount:1".parse().unwrap();
    let (_, cannot) = machine.arm(&[spec], Limits::default()).unwrap_err();
    assert_eq!(cannot.to_string(), "mac-flip: this machine has no MACs; accepted: --integrity on");
}
