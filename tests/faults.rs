//! Injected faults in a whole machine (docs/faults.md): results that are known by hand, and triggers that do not depend on how
//! the host executes.

mod common;

use common::asm::{Code, copy, marker, pconfig_random};
use common::{Scratch, emu};
use firmware::Images;
use iced_x86::code_asm::*;
use machine::inject::{FaultSpec, Limits, Outcome};
use machine::{Config, Exit, Machine};
use mem::{BusAddr, CacheModel, PhysAddr};

/// A page of data: physical, and its linear addresses with KeyIDs 1 and 2.
const PAGE: u64 = 0x40_0000;
const PAGE_1: u64 = 1 << 39 | PAGE;
const PAGE_2: u64 = 2 << 39 | PAGE;
/// Where the guest keeps what KeyID 2 is for.
const OTHER: u64 = 0x800;
/// What the guest has read, through KeyID 0.
const RESULT: u64 = 0x70_0000;
/// What its loop works on.
const WORK: u64 = 0x78_0000;
/// ENC_ALG
const AES_XTS_128: u64 = 1;
const TABLES: u64 = 0x60_0000;
/// The entry state's PML4 (docs/boot.md).
const PML4: u64 = 0x9000;
const PRESENT_RW: u64 = 0b11;
const LARGE: u64 = 1 << 7;
const KEYID_SHIFT: u32 = 40;
const DEBUG_EXIT: i32 = 0xF4;
const IA32_TSC_AUX: i32 = 0xC000_0103u32 as i32;

/// First contents of the line, second contents, and those of the line under KeyID 2.
const FIRST: u64 = 0x1111_1111_1111_1111;
const SECOND: u64 = 0x2222_2222_2222_2222;
const THIRD: u64 = 0x3333_3333_3333_3333;

fn fill(a: &mut CodeAssembler, address: u64, value: u64) -> Code {
    a.mov(rax, address)?;
    for n in 0..8 {
        a.mov(rcx, value + n)?;
        a.mov(qword_ptr(rax + 8 * n as i32), rcx)?;
    }
    Ok(())
}

fn flush(a: &mut CodeAssembler, address: u64) -> Code {
    a.mov(rax, address)?;
    a.clflush(byte_ptr(rax))
}

/// Loads, stores, string instructions and calls, over and over.
fn work(a: &mut CodeAssembler) -> Code {
    let (mut again, mut function, mut after) = (a.create_label(), a.create_label(), a.create_label());
    a.mov(rsp, WORK + 0x1000)?;
    a.mov(ebp, 300)?;
    a.set_label(&mut again)?;
    a.mov(rbx, WORK)?;
    a.inc(qword_ptr(rbx + 0x100))?;
    a.add(qword_ptr(rbx + 0x108), rbp)?;
    a.mov(rsi, WORK + 0x200)?;
    a.mov(rdi, WORK + 0x400)?;
    a.mov(ecx, 0x180)?;
    a.rep().movsb()?;
    a.mov(ecx, 0x20)?;
    a.mov(rax, rbp)?;
    a.mov(rdi, WORK + 0x600)?;
    a.rep().stosq()?;
    a.mov(ecx, IA32_TSC_AUX)?;
    a.mov(eax, ebp)?;
    a.xor(edx, edx)?;
    a.wrmsr()?;
    a.call(function)?;
    a.dec(ebp)?;
    a.jnz(again)?;
    a.jmp(after)?;
    a.set_label(&mut function)?;
    a.rol(qword_ptr(rbx + 0x200), 3)?;
    a.clflush(byte_ptr(rbx + 0x600))?;
    a.ret()?;
    a.set_label(&mut after)?;
    a.nop()
}

fn guest(a: &mut CodeAssembler) -> Code {
    pconfig_random(a, 1, AES_XTS_128)?;
    pconfig_random(a, 2, AES_XTS_128)?;
    for n in 0..2 {
        fill(a, PAGE_1 + 64 * n, FIRST)?;
        flush(a, PAGE_1 + 64 * n)?;
    }
    fill(a, PAGE_2 + OTHER, THIRD)?;
    flush(a, PAGE_2 + OTHER)?;
    marker(a, 1)?;
    fill(a, PAGE_1, SECOND)?;
    marker(a, 2)?;
    flush(a, PAGE_1)?;
    marker(a, 3)?;
    copy(a, PAGE_1, RESULT)?;
    copy(a, PAGE_2 + OTHER, RESULT + 64)?;
    work(a)?;
    a.mov(eax, 0)?;
    a.out(DEBUG_EXIT, al)
}

fn start(config: Config) -> Machine {
    let image = common::guest(guest);
    let config = Config { ram_bytes: 64 << 20, ..config };
    let mut machine = Machine::new(config).unwrap();
    let mut bios = machine.power_on().unwrap();
    machine.boot(&mut bios, &Images { kernel: &image, ..Images::default() }).unwrap();
    for keyid in [1, 2] {
        let tables = TABLES + 0x2000 * keyid;
        for (at, entry) in [
            (PML4 + 8 * keyid, tables | PRESENT_RW),
            (tables, (tables + 0x1000) | PRESENT_RW),
            (tables + 0x1000 + (PAGE >> 21) * 8, keyid << KEYID_SHIFT | PAGE | LARGE | PRESENT_RW),
        ] {
            machine.cpu.mem.load_image(PhysAddr(at), &u64::to_le_bytes(entry));
        }
    }
    machine
}

fn arm(machine: &mut Machine, specs: &[&str]) {
    let specs: Vec<FaultSpec> =
        specs.iter().map(|text| text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))).collect();
    machine.arm(&specs, Limits::default()).unwrap_or_else(|(_, e)| panic!("{e}"));
}

/// Runs the guest to its end with faults.
fn run(specs: &[&str]) -> Machine {
    let mut machine = start(Config::default());
    arm(&mut machine, specs);
    assert_eq!(machine.run(u64::MAX), Exit::DebugExit(0), "{specs:?}");
    machine
}

fn words(machine: &mut Machine, address: u64) -> [u64; 8] {
    let mut bytes = [0; 64];
    machine.cpu.mem.probe(BusAddr(address), &mut bytes);
    std::array::from_fn(|n| u64::from_le_bytes(bytes[8 * n..8 * n + 8].try_into().unwrap()))
}

fn pattern(value: u64) -> [u64; 8] {
    std::array::from_fn(|n| value + n as u64)
}

/// The 16-byte blocks in which what the guest has read through KeyID 1 is not this.
fn wrong_blocks(machine: &mut Machine, value: u64) -> Vec<usize> {
    let (found, expected) = (words(machine, RESULT), pattern(value));
    (0..4).filter(|n| found[2 * n..2 * n + 2] != expected[2 * n..2 * n + 2]).collect()
}

fn fired(machine: &Machine) -> bool {
    machine.injections().iter().all(|injection| matches!(injection.outcome(), Outcome::Fired { .. }))
}

#[test]
fn one_flipped_bit_of_ciphertext_garbles_exactly_its_block() {
    for (bit, block) in [(0, 0), (77, 0), (128, 1), (383, 2), (511, 3)] {
        let mut machine = run(&[&format!("dram-flip line={PAGE:#x} bit={bit} at=marker:3")]);
        assert!(fired(&machine));
        assert_eq!(wrong_blocks(&mut machine, SECOND), [block], "bit {bit}");
        let (found, expected) = (words(&mut machine, RESULT), pattern(SECOND));
        let different: u32 = (0..8).map(|n| (found[n] ^ expected[n]).count_ones()).sum();
        assert!((30..99).contains(&different), "{different} bits of a block of 128 differ");
        assert_eq!(words(&mut machine, RESULT + 64), pattern(THIRD));
    }
    let mut machine = run(&[&format!("dram-flip line={PAGE:#x} bit=3,200,201 at=marker:3")]);
    assert_eq!(wrong_blocks(&mut machine, SECOND), [0, 1]);
}

#[test]
fn a_flip_in_a_line_that_is_written_back_before_it_is_read_is_masked() {
    let undisturbed = run(&[]).state_hash();
    for at in ["marker:1", "marker:2", &format!("write-back:{PAGE:#x},keyid=1,nth=2")] {
        let mut machine = run(&[&format!("dram-flip line={PAGE:#x} bit=77 at={at}")]);
        assert!(fired(&machine), "{at}");
        assert_eq!(wrong_blocks(&mut machine, SECOND), [0; 0], "{at}");
        machine.disarm();
        assert_eq!(machine.state_hash(), undisturbed, "{at}");
    }
}

#[test]
fn old_ciphertext_is_old_plaintext_and_elsewhere_garbage() {
    let mut replayed = run(&[&format!("replay line={PAGE:#x} since=marker:1 at=marker:3")]);
    assert_eq!(wrong_blocks(&mut replayed, FIRST), [0; 0]);
    let mut too_early = run(&[&format!("replay line={PAGE:#x} since=marker:3 at=marker:1")]);
    assert!(matches!(too_early.injections()[0].outcome(), Outcome::NoEffect { .. }));
    assert_eq!(wrong_blocks(&mut too_early, SECOND), [0; 0]);
    let mut moved = run(&[&format!("splice line={PAGE:#x} from={:#x} at=marker:3", PAGE + 64)]);
    assert_eq!(wrong_blocks(&mut moved, FIRST), [0, 1, 2, 3]);
    let mut block = run(&[&format!("splice line={PAGE:#x} from={:#x} block=2 at=marker:3", PAGE + 64)]);
    assert_eq!(wrong_blocks(&mut block, SECOND), [2]);
    // Under the tweak of the line that it comes from, a moved line decrypts.
    let mut weak = run(&[
        &format!("splice line={PAGE:#x} from={:#x} at=marker:3", PAGE + 64),
        &format!("tweak xor=1 dir=read at=read:{PAGE_1:#x} for=icount:1"),
    ]);
    assert_eq!(wrong_blocks(&mut weak, FIRST), [0; 0]);
}

#[test]
fn a_key_table_upset_concerns_its_keyid_alone() {
    for field in ["k1", "k2"] {
        let mut machine = run(&[&format!("key-flip keyid=1 field={field} bit=5 at=marker:3")]);
        assert!(fired(&machine));
        assert_eq!(wrong_blocks(&mut machine, SECOND), [0, 1, 2, 3]);
        assert_eq!(words(&mut machine, RESULT + 64), pattern(THIRD));
        // Before the line is written back it is invisible: the key is wrong both ways.
        let mut machine = run(&[&format!("key-flip keyid=1 field={field} bit=5 at=marker:2")]);
        assert_eq!(wrong_blocks(&mut machine, SECOND), [0; 0]);
    }
    let mut other = run(&["key-flip keyid=2 field=k1 bit=5 at=marker:3"]);
    assert_eq!(wrong_blocks(&mut other, SECOND), [0; 0]);
    assert_ne!(words(&mut other, RESULT + 64), pattern(THIRD));
    let unused = run(&["key-flip keyid=9 field=k1 bit=5 at=marker:3"]);
    assert!(matches!(unused.injections()[0].outcome(), Outcome::NoEffect { .. }), "KeyID 9 has no key of its own");
}

#[test]
fn write_backs_are_lost_repeated_and_late() {
    let line = format!("line={PAGE:#x} keyid=1");
    let mut dropped = run(&[&format!("write-back-drop {line} at=marker:2")]);
    assert!(fired(&dropped));
    assert_eq!(wrong_blocks(&mut dropped, FIRST), [0; 0]);
    let mut other_keyid = run(&[&format!("write-back-drop line={PAGE:#x} keyid=2 at=marker:2")]);
    assert!(matches!(other_keyid.injections()[0].outcome(), Outcome::NoEffect { .. }));
    assert_eq!(wrong_blocks(&mut other_keyid, SECOND), [0; 0]);
    let mut repeated = run(&[&format!("write-back-duplicate {line} at=marker:2")]);
    assert_eq!(wrong_blocks(&mut repeated, SECOND), [0; 0]);
    // Read before it arrives, and there at the end.
    let late = &format!("write-back-delay {line} by=5000 at=marker:2");
    let mut machine = run(&[late]);
    assert_eq!(wrong_blocks(&mut machine, FIRST), [0; 0]);
    let (mut undisturbed, line) = (run(&[]), PhysAddr(PAGE).line());
    assert_eq!(machine.cpu.mem.dram_read_raw(line), undisturbed.cpu.mem.dram_read_raw(line));
    assert_eq!(wrong_blocks(&mut undisturbed, SECOND), [0; 0]);
    // One instruction late is in time.
    let mut soon = run(&[&format!("write-back-delay line={PAGE:#x} by=1 at=marker:2")]);
    assert_eq!(wrong_blocks(&mut soon, SECOND), [0; 0]);
}

#[test]
fn a_swallowed_flush_leaves_the_line_dirty_and_dram_old() {
    let mut machine = start(Config::default());
    arm(&mut machine, &[&format!("flush-drop line={PAGE:#x} at=marker:2")]);
    assert_eq!(machine.run(u64::MAX), Exit::DebugExit(0));
    assert!(fired(&machine));
    assert!(machine.cpu.mem.line_dirty(BusAddr(1 << KEYID_SHIFT | PAGE)));
    assert_eq!(wrong_blocks(&mut machine, SECOND), [0; 0], "the cache has it");
    machine.cpu.mem.invd();
    assert_eq!(words(&mut machine, 1 << KEYID_SHIFT | PAGE), pattern(FIRST));
}

#[test]
fn faults_of_the_bus_the_tweak_the_cache_and_the_cells_are_what_they_are() {
    let line = format!("line={PAGE:#x}");
    let mut bus = run(&[&format!("bus-flip {line} bit=130 dir=read at=marker:3")]);
    assert_eq!(wrong_blocks(&mut bus, SECOND), [1]);
    let (undisturbed, at) = (run(&[]), PhysAddr(PAGE).line());
    assert_eq!(bus.cpu.mem.dram_read_raw(at), undisturbed.cpu.mem.dram_read_raw(at), "the cells did not change");
    let mut tweak = run(&[&format!("tweak xor=8 dir=read at=read:{PAGE_1:#x} for=icount:1")]);
    assert_eq!(wrong_blocks(&mut tweak, SECOND), [0, 1, 2, 3]);
    let mut cache = run(&[&format!("cache-flip {line} keyid=1 bit=5 at=marker:2")]);
    assert_eq!(words(&mut cache, RESULT)[0], SECOND ^ 1 << 5);
    let absent = run(&[&format!("cache-flip {line} keyid=3 bit=5 at=marker:2")]);
    assert!(matches!(absent.injections()[0].outcome(), Outcome::NoEffect { .. }));
    // Stuck at both values: one of them is what the bit would not have been.
    let stuck: Vec<usize> = ["0", "1"]
        .into_iter()
        .map(|value| {
            wrong_blocks(&mut run(&[&format!("dram-stuck {line} bit=300 value={value} at=marker:1")]), SECOND).len()
        })
        .collect();
    assert_eq!(stuck.iter().sum::<usize>(), 1);
    let mut sometimes = run(&[&format!("dram-intermittent {line} bit=300 rate=1 at=marker:3")]);
    assert_eq!(wrong_blocks(&mut sometimes, SECOND), [2]);
    let mut alias = run(&["alias mask=0x40 at=marker:3 for=icount:8"]);
    assert_eq!(wrong_blocks(&mut alias, SECOND), [0; 0], "the victim's own address has none of the ignored bits");
    let mut failing = run(&["pconfig-busy at=pconfig,nth=1"]);
    assert_ne!(words(&mut failing, RESULT + 64), [0; 8]);
    // Code decays as well: the guest goes anywhere.
    let mut decayed = start(Config::default());
    arm(&mut decayed, &["dram-decay rate=0.001 at=marker:3"]);
    decayed.run(100_000);
    assert!(fired(&decayed));
}

#[test]
fn a_stuck_keyid_wire_leads_to_another_key() {
    // KeyID 1 becomes 0, KeyIDs 0 and 2 stay.
    let mut machine = run(&["keyid-wire bit=0 value=0 at=marker:3"]);
    assert!(fired(&machine));
    assert_eq!(wrong_blocks(&mut machine, SECOND), [0, 1, 2, 3]);
    assert_eq!(words(&mut machine, RESULT + 64), pattern(THIRD));
    let mut tlb = run(&[&format!("tlb-flip address={PAGE_1:#x} bit=1 at=marker:3")]);
    assert!(fired(&tlb));
    assert_eq!(wrong_blocks(&mut tlb, SECOND), [0, 1, 2, 3]);
    let pte = run(&[&format!("pte-flip address={PAGE_1:#x} level=2 bit=41 at=icount:0")]);
    assert!(fired(&pte));
}

/// Faults with every kind of trigger. Whatever they do to the guest, they do it in every mode.
fn triggered() -> Vec<String> {
    let line = format!("line={PAGE:#x}");
    let function = format!("dram-flip {line} bit=7 at=pc:{:#x}", function_address());
    vec![
        format!("dram-flip {line} bit=7 at=icount:300"),
        format!("dram-flip {line} bit=7 at=random:200..9000"),
        function.clone(),
        format!("{function},nth=100"),
        format!("gpr-flip reg=rbp bit=2 at=read:{:#x},nth=50", WORK + 0x100),
        format!("gpr-flip reg=rax bit=2 at=write:{:#x},nth=77", WORK + 0x108),
        format!("gpr-flip reg=rbp bit=1 at=access:{:#x},nth=33", WORK + 0x233),
        format!("gpr-flip reg=rbp bit=1 at=phys-write:{:#x},nth=60", WORK + 0x433),
        format!("gpr-flip reg=rbp bit=1 at=write:{:#x},nth=40", WORK + 0x688),
        format!("gpr-flip reg=rbp bit=1 at=phys-read:{:#x}", TABLES + 0x2000),
        format!("flags-flip bit=6 at=flush:{:#x},nth=30", WORK + 0x600),
        format!("gpr-flip reg=rbp bit=1 at=fill:{:#x},keyid=0,nth=9", WORK + 0x600),
        format!("gpr-flip reg=rbp bit=1 at=write-back:{:#x},nth=20", WORK + 0x600),
        format!("write-back-drop line={:#x} at=write-back:{:#x},nth=20 for=3", WORK + 0x600, WORK + 0x600),
        format!("write-back-delay line={:#x} by=777 at=flush:{:#x},nth=5 for=ever", WORK + 0x600, WORK + 0x600),
        format!("dram-intermittent line={:#x} bit=9 rate=0.3 at=icount:500 for=50", WORK + 0x600),
        format!("gpr-flip reg=rbp bit=1 at=exec:{:#x},nth=55", function_address()),
        format!("gpr-flip reg=rbp bit=1 at=phys-exec:{:#x},nth=56", function_address()),
        format!("dram-flip {line} bit=7 at=phys-exec:{:#x},nth=2", function_address() + 8),
        format!("rowhammer threshold=40 rate=0.001 row-bytes=256 banks=2 window=4000 at=fill:{:#x}", WORK + 0x600),
        "gpr-flip reg=rbp bit=3 at=wrmsr:0xc0000103,nth=100".into(),
        "pconfig-entropy at=pconfig,nth=2".into(),
        "msr-flip msr=0xc0000103 bit=3 at=marker:2".into(),
        "keyid-wire bit=0 value=0 at=marker:3 for=icount:12".into(),
    ]
}

/// Linear address of the function that the guest's loop calls: where its RET's page and pattern say.
fn function_address() -> u64 {
    let image = common::guest(guest);
    // ROL qword [rbx+200H], 3
    let code = [0x48, 0xC1, 0x83, 0x00, 0x02, 0x00, 0x00, 0x03];
    let at = image.windows(code.len()).position(|window| window == code).expect("the guest has it");
    common::BASE + (at as u64 - (64 + 56))
}

fn modes() -> [Config; 5] {
    let config = || Config { seed: 5, ..Config::default() };
    [
        config(),
        Config { fast: false, ..config() },
        Config { links: false, ..config() },
        Config { bulk_strings: false, ..config() },
        Config { fast: false, links: false, bulk_strings: false, ..config() },
    ]
}

#[test]
fn a_fired_fault_is_the_same_with_every_shortcut_off() {
    for spec in triggered() {
        let mut seen = Vec::new();
        for config in modes() {
            let mut machine = start(config);
            arm(&mut machine, &[&spec]);
            // A fault may send the guest anywhere.
            let exit = machine.run(200_000);
            let outcome = machine.injections()[0].outcome();
            assert_ne!(outcome, Outcome::NotActivated, "{spec}");
            seen.push((exit, outcome, machine.cpu.icount(), machine.state_hash()));
        }
        assert!(seen.iter().all(|other| *other == seen[0]), "{spec}: {seen:#?}");
    }
}

#[test]
fn where_runs_are_cut_changes_no_fault() {
    for spec in triggered() {
        let whole = {
            let mut machine = start(Config::default());
            arm(&mut machine, &[&spec]);
            (machine.run(200_000), machine.injections()[0].outcome(), machine.state_hash())
        };
        let mut machine = start(Config::default());
        arm(&mut machine, &[&spec]);
        let mut exit = Exit::Icount;
        while exit == Exit::Icount && machine.cpu.icount() < 200_000 {
            exit = machine.run((machine.cpu.icount() + 37).min(200_000));
        }
        assert_eq!((exit, machine.injections()[0].outcome(), machine.state_hash()), whole, "{spec}");
    }
}

#[test]
fn an_armed_fault_that_does_not_fire_leaves_the_state_as_it_is() {
    for config in modes() {
        let mut plain = start(config.clone());
        assert_eq!(plain.run(u64::MAX), Exit::DebugExit(0));
        let far = triggered().into_iter().filter(|spec| !spec.contains("random"));
        let specs: Vec<String> = far
            .map(|spec| match (spec.split_once(" for="), spec.contains("icount:")) {
                (_, true) => "dram-flip line=0x400000 bit=7 at=icount:100G".into(),
                (None, _) => spec.split(",nth").next().unwrap_or_default().to_owned() + ",nth=1000000",
                (Some((spec, _)), _) => spec.split(",nth").next().unwrap_or_default().to_owned() + ",nth=1000000",
            })
            .collect();
        let specs: Vec<&str> = specs.iter().map(String::as_str).collect();
        let mut machine = start(config);
        arm(&mut machine, &specs);
        assert_eq!(machine.run(u64::MAX), Exit::DebugExit(0));
        for injection in machine.injections() {
            assert_eq!(injection.outcome(), Outcome::NotActivated, "{}", injection.spec);
        }
        assert_eq!(machine.state_hash(), plain.state_hash());
    }
}

#[test]
fn what_cannot_fire_is_refused_with_what_would_be_accepted() {
    let refusal = |config: Config, until: u64, text: &str| {
        let spec: FaultSpec = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
        let mut machine = start(config);
        let (at, cannot) = machine.arm(&[spec], Limits { until }).expect_err(text);
        assert_eq!((at, machine.injections().len()), (0, 0));
        cannot.to_string()
    };
    let off = Config { profile: mem::TmeProfile::None, ..Config::default() };
    let uncached = Config { cache: CacheModel::Off, ..Config::default() };
    let default = Config::default;
    for (config, text, part) in [
        (
            default(),
            "dram-flip line=0x4000000 bit=1 at=icount:1",
            "line 0x4000000 is not in RAM; accepted: lines 0x0 to 0x3ffffc0",
        ),
        (default(), "splice line=0 from=0x4000000 at=icount:1", "is not in RAM"),
        (default(), "dram-flip line=0 bit=1 at=icount:1000", "is not before the end of the run, --until icount:1000"),
        (default(), "dram-flip line=0 bit=1 at=random:5..2000", "is not before the end"),
        (default(), "dram-flip line=0 bit=1 at=pc:main", "nothing is known of `main`"),
        (default(), "dram-flip line=0 bit=1 at=phys-read:0x4000000", "is not in RAM"),
        (
            default(),
            "dram-flip line=0 bit=1 at=fill:0,keyid=64",
            "KeyID 64 is beyond the key table of this machine; accepted: 0 to 63",
        ),
        (default(), "key-flip keyid=64 field=k1 bit=0 at=icount:1", "accepted: 0 to 63"),
        (default(), "key-flip keyid=1 field=k1 bit=0 package=1 at=icount:1", "package 1; accepted: 0 to 0"),
        (default(), "keyid-wire bit=6 value=1 at=icount:1", "this machine has 6 of them"),
        (default(), "alias mask=0x3f at=icount:1", "ignores no address bit of RAM; accepted: bits 6 to 25"),
        (default(), "dram-flip line=0 bit=1 at=icount:1 for=2", "happens once"),
        (default(), "dram-stuck line=0 bit=1 value=1 at=icount:1 for=2", "cannot be counted; accepted: for=icount:N"),
        (default(), "flags-flip bit=1 at=icount:1", "RFLAGS bit 1 cannot change"),
        (default(), "msr-flip msr=0x10 bit=1 at=icount:1", "MSR 0x10 has no bits"),
        (default(), "replay line=0 since=icount:5 at=icount:5", "an earlier since="),
        (off.clone(), "tweak xor=1 at=icount:1", "the processor has no memory encryption"),
        (off.clone(), "key-flip keyid=0 field=k1 bit=0 at=icount:1", "the processor has no memory encryption"),
        (off.clone(), "keyid-wire bit=0 value=1 at=icount:1", "no KeyID bits"),
        (off, "pconfig-busy at=pconfig", "no PCONFIG"),
        (uncached.clone(), "write-back-drop line=0 at=icount:1", "accepted: --cache exact, lazy"),
        (uncached, "dram-flip line=0 bit=1 at=fill:0", "accepted: --cache exact, lazy"),
    ] {
        let message = refusal(config, 1000, text);
        assert!(message.contains(part) && message.contains("accepted: "), "{text}: {message}");
    }
}

#[test]
fn every_cache_model_takes_faults_of_dram_and_keys() {
    for cache in CacheModel::ALL {
        for (spec, blocks) in [("dram-flip line=0x400000 bit=77", 1), ("key-flip keyid=1 field=k1 bit=0", 4)] {
            let mut machine = start(Config { cache, ..Config::default() });
            arm(&mut machine, &[&format!("{spec} at=marker:3")]);
            assert_eq!(machine.run(u64::MAX), Exit::DebugExit(0));
            assert_eq!(wrong_blocks(&mut machine, SECOND).len(), blocks, "{cache}: {spec}");
        }
    }
}

#[test]
fn the_summary_says_what_became_of_each_fault() {
    let run = emu([
        "run",
        "-m",
        "64M",
        "--quiet-bios",
        "--inject",
        "dram-flip line=0x3000000 bit=1 at=icount:1.5e3",
        "--inject",
        "write-back-drop line=0x3000000 at=icount:10",
        "-inject",
        "gpr-flip reg=rax bit=0 at=wrmsr:0x12345678",
    ]);
    assert_eq!(run.status, 0, "{}", run.stderr);
    for line in [
        "dram-flip line=0x3000000 bit=1 at=icount:1500: fired at instruction 1500 (RIP 0x",
        "write-back-drop line=0x3000000 at=icount:10: triggered at instruction 10 (RIP 0x",
        "without effect",
        "gpr-flip reg=rax bit=0 at=wrmsr:0x12345678: not activated",
    ] {
        assert!(run.stderr.contains(line), "{line}: {}", run.stderr);
    }
    for (option, part) in [
        (
            "dram-flip line=0x8000000 bit=1 at=icount:1",
            "mktme-emu: --inject dram-flip line=0x8000000 bit=1 at=icount:1: line 0x8000000 is not in RAM",
        ),
        ("dram-flip line=0 bit=1 at=pc:no_such", "nothing is known of the symbol `no_such`"),
        ("nonsense", "unknown target `nonsense`"),
    ] {
        let scratch = Scratch::new();
        let trace = scratch.path("trace").display().to_string();
        let run = emu(["run", "-m", "64M", "--bus-trace", &trace, "--inject", option]);
        assert_eq!((run.status, run.stdout.as_str()), (2, ""), "{}", run.stderr);
        assert!(run.stderr.contains(part), "{}", run.stderr);
        assert_eq!(scratch.names(), [""; 0]);
    }
}

#[test]
fn a_snapshot_has_no_faults_and_a_restored_machine_takes_them() {
    for spec in triggered().iter().filter(|spec| !spec.contains("at=icount") && !spec.contains("random")) {
        let mut machine = start(Config::default());
        let snapshot = machine.snapshot();
        let mut seen = Vec::new();
        for _ in 0..2 {
            arm(&mut machine, &[spec]);
            let exit = machine.run(200_000);
            seen.push((exit, machine.injections()[0].outcome(), machine.state_hash()));
            machine.restore(&snapshot).unwrap();
            assert_eq!(machine.injections().len(), 0);
        }
        assert_eq!(seen[0], seen[1], "{spec}");
        assert_eq!(machine.run(u64::MAX), Exit::DebugExit(0));
        assert_eq!(wrong_blocks(&mut machine, SECOND), [0; 0], "{spec}");
    }
}
