//! Where the alias sanitizer says that an access is made: RIP, instruction count and operation of every slow path.

mod common;

use common::*;
use cpu::Cpu;
use cpu::run::Stop;
use mem::HazardKind::{self, *};
use mem::{CacheModel, Config, Operation, PhysAddr, Rate};
use x86::cr::cr4;

const PAGE: u64 = 0x18_0000;
/// Linear addresses of [`PAGE`] with KeyID 1 and with KeyID 0.
const A: u32 = 0x20_0000;
const B: u32 = 0x20_1000;
/// Linear address of the page table with KeyID 1, and a page whose entry is in its last line.
const TABLE: u32 = 0x20_2000;
const WALKED: u32 = 0x3F_F000;
/// Linear address of [`CODE`]'s page with KeyID 1.
const CODE_1: u32 = 0x20_3000;
const CODE: u64 = 0x10_0000;
const TARGET: u64 = CODE + 0x800;
/// JMP to itself
const STAY: [u8; 2] = [0xEB, 0xFE];

/// Assembles, and notes which instructions are expected to make which hazard.
#[derive(Default)]
struct Program {
    bytes: Vec<u8>,
    /// Instructions before the next one.
    count: u64,
    expected: Vec<(HazardKind, Operation, u64, u64)>,
}

impl Program {
    fn insn(&mut self, opcode: &[u8], operand: u32) -> &mut Self {
        self.bytes.extend(opcode);
        self.bytes.extend(operand.to_le_bytes());
        self.count += 1;
        self
    }

    fn plain(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend(bytes);
        self.count += 1;
        self
    }

    /// The next instruction makes a hazard, after `iterations`.
    fn makes(&mut self, kind: HazardKind, operation: Operation, iterations: u64) -> &mut Self {
        let rip = CODE + self.bytes.len() as u64;
        self.expected.push((kind, operation, rip, self.count + iterations));
        self
    }

    /// MOV \[at\], RAX
    fn store(&mut self, at: u32) -> &mut Self {
        self.insn(&[0x48, 0x89, 0x04, 0x25], at)
    }

    /// MOV RDX, \[at\]
    fn load(&mut self, at: u32) -> &mut Self {
        self.insn(&[0x48, 0x8B, 0x14, 0x25], at)
    }
}

/// One line of the page for each case.
fn program() -> Program {
    let mut p = Program::default();
    // What is stored is the code that the target has already, so that all cache models execute the same.
    p.insn(&[0x48, 0xC7, 0xC0], u32::from(u16::from_le_bytes(STAY)));
    p.store(A).makes(StaleRead, Operation::Load, 0).load(B);
    p.store(B + 0x40).makes(MissingFlushOnAlloc, Operation::Store, 0).store(A + 0x40);
    // ADD [A + 80H], RAX
    p.store(B + 0x80).makes(MissingFlushOnAlloc, Operation::Load, 0).insn(&[0x48, 0x01, 0x04, 0x25], A + 0x80);
    // REP MOVSB of 20 bytes, the sixth of which is in the line.
    p.store(A + 0x100).insn(&[0x48, 0xC7, 0xC6], B + 0x100 - 5).insn(&[0x48, 0xC7, 0xC7], CODE as u32 + 0x4000);
    p.insn(&[0x48, 0xC7, 0xC1], 20).makes(StaleRead, Operation::Load, 5).plain(&[0xF3, 0xA4]);
    p.count += 19;
    // REP STOSQ of 10, the third of which is in the line.
    p.store(A + 0x180).insn(&[0x48, 0xC7, 0xC7], B + 0x180 - 16).insn(&[0x48, 0xC7, 0xC1], 10);
    p.makes(MissingFlushOnFree, Operation::Store, 2).plain(&[0xF3, 0x48, 0xAB]);
    p.count += 9;
    // CLFLUSH, CLWB
    p.store(A + 0x200).makes(WrongAliasFlushed, Operation::Flush, 0).insn(&[0x0F, 0xAE, 0x3C, 0x25], B + 0x200);
    p.store(A + 0x240).makes(WrongAliasFlushed, Operation::WriteBack, 0);
    p.insn(&[0x66, 0x0F, 0xAE, 0x34, 0x25], B + 0x240);
    // MOVAPS [B + 280H], XMM0; MOVUPS XMM0, [B + 2C0H]
    p.store(A + 0x280).makes(MissingFlushOnFree, Operation::Store, 0).insn(&[0x0F, 0x29, 0x04, 0x25], B + 0x280);
    p.store(A + 0x2C0).makes(StaleRead, Operation::Load, 0).insn(&[0x0F, 0x10, 0x04, 0x25], B + 0x2C0);
    // MOV RSP, imm; PUSH RAX
    p.store(A + 0x300).insn(&[0x48, 0xC7, 0xC4], B + 0x308);
    p.makes(MissingFlushOnFree, Operation::Store, 0).plain(&[0x50]);
    // MOVNTI
    p.store(A + 0x340).makes(MissingFlushOnFree, Operation::NonTemporalStore, 0);
    p.insn(&[0x48, 0x0F, 0xC3, 0x04, 0x25], B + 0x340);
    // FXSAVE, FLD m64
    p.store(A + 0x400).makes(MissingFlushOnFree, Operation::Store, 0).insn(&[0x0F, 0xAE, 0x04, 0x25], B + 0x3C0);
    p.store(A + 0x640).makes(StaleRead, Operation::Load, 0).insn(&[0xDD, 0x04, 0x25], B + 0x640);
    // A page walk reads what was stored to through another KeyID.
    p.store(TABLE + 0xFC0).makes(StaleRead, Operation::PageWalk, 0).load(WALKED);
    // So does a fetch; JMP rel32.
    p.store(CODE_1 + TARGET as u32 % 0x1000);
    p.expected.push((StaleRead, Operation::Fetch, TARGET, p.count + 1));
    let next = CODE + p.bytes.len() as u64 + 5;
    p.insn(&[0xE9], (TARGET - next) as u32);
    p
}

fn machine(config: Config, program: &Program) -> Box<Cpu> {
    let (mut cpu, _) = board_with(Config { ram_bytes: 4 << 20, ..config });
    cpu.cr4 |= cr4::OSFXSR | cr4::OSXMMEXCPT;
    cpu.update_access_masks();
    cpu.mem.sanitize(true);
    // KeyIDs above 0 have keys of their own only after PCONFIG, which does not matter here.
    activate_tme(&mut cpu);
    let shift = cpu.mem.layout().memory_bits();
    let mut map = |linear: u32, page: u64, keyid: u64| {
        let entry = PhysAddr(pt_entry(u64::from(linear)));
        cpu.mem.load_image(entry, &(page | keyid << shift | 0x67).to_le_bytes());
    };
    map(A, PAGE, 1);
    map(B, PAGE, 0);
    map(TABLE, PT, 1);
    map(CODE_1, CODE, 1);
    map(WALKED, PAGE + 0x1000, 0);
    cpu.mem.load_image(PhysAddr(CODE), &program.bytes);
    cpu.mem.load_image(PhysAddr(TARGET), &STAY);
    cpu.flush_tlb(true);
    cpu.set_rip(CODE);
    cpu
}

/// Under which all reports must be the same.
fn settings() -> impl Iterator<Item = Config> {
    let exact = Config { cache_bytes: 2048, cache_ways: 2, ..Config::default() };
    let evicting = Config { evict_rate: Rate::from_ppm(200_000).unwrap(), ..exact.clone() };
    let models = CacheModel::ALL.map(|cache| Config { cache, ..Config::default() });
    let all = models.into_iter().chain([exact, evicting]);
    all.flat_map(|config| [true, false].map(|fast| Config { fast, ..config.clone() }))
}

fn hash(cpu: &Cpu) -> u128 {
    let mut hasher = mem::StateHasher::new();
    cpu.mem.state_hash(&mut hasher);
    hasher.finish()
}

#[test]
fn reports_have_the_rip_and_the_count_of_the_instruction_on_every_slow_path() {
    let program = program();
    for config in settings() {
        let name = format!("{config:?}");
        let mut cpu = machine(config, &program);
        assert_eq!(cpu.run(program.count + 10), Stop::Icount);
        let found = cpu.mem.take_hazards();
        let found: Vec<_> = found.iter().map(|h| (h.kind, h.access.operation, h.access.rip, h.access.icount)).collect();
        assert_eq!(found, program.expected, "{name}");
    }
}

#[test]
fn the_guest_does_not_notice() {
    let program = program();
    for config in settings() {
        let [mut with, mut without] = [0; 2].map(|_| machine(config.clone(), &program));
        without.mem.sanitize(false);
        for until in (0..program.count + 10).step_by(7) {
            with.run(until);
            without.run(until);
            assert_eq!(with.regs[..16], without.regs[..16]);
            assert_eq!((with.rip(), hash(&with)), (without.rip(), hash(&without)), "{config:?}");
        }
        assert!(without.mem.take_hazards().is_empty());
    }
}

#[test]
fn the_other_access_is_the_store_that_made_the_line_dirty() {
    let program = program();
    let mut cpu = machine(Config::default(), &program);
    cpu.run(program.count + 10);
    let found = cpu.mem.take_hazards();
    for hazard in &found {
        let other = hazard.other.unwrap();
        assert!(other.rip < hazard.access.rip && other.icount < hazard.access.icount);
        assert_eq!((other.operation, hazard.access.cpl), (Operation::Store, 0));
    }
    assert_eq!(
        (found[0].access.keyid.0, found[0].other.unwrap().keyid.0, found[0].other.unwrap().rip),
        (0, 1, CODE + 7)
    );
}

#[test]
fn a_run_can_stop_at_each_hazard_and_goes_on_as_if_nothing_had_been() {
    let program = program();
    let until = program.count + 10;
    let mut straight = machine(Config::default(), &program);
    straight.run(until);
    let mut cpu = machine(Config::default(), &program);
    cpu.stop_on_hazard = true;
    let mut found = Vec::new();
    while cpu.run(until) == Stop::Hazard {
        let new = cpu.mem.take_hazards();
        assert_eq!(new.len(), 1);
        let access = new[0].access;
        if matches!(access.operation, Operation::Load | Operation::Store | Operation::Flush) {
            let next = cpu.rip();
            assert!((1..16).contains(&next.wrapping_sub(access.rip)), "{access:x?} stops at {next:x}");
        }
        found.extend(new);
    }
    assert_eq!(found, straight.mem.take_hazards());
    assert_eq!((cpu.icount(), cpu.rip()), (straight.icount(), straight.rip()));
    assert_eq!(cpu.regs[..16], straight.regs[..16]);
    assert_eq!(hash(&cpu), hash(&straight));
}
