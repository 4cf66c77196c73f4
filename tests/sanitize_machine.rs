//! The alias sanitizer in a whole machine: devices, PCONFIG, and stopping at a hazard.

mod common;

use devices::dma::spec::*;
use firmware::Images;
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use machine::{Config, Exit, Machine};
use mem::HazardKind::{self, *};
use mem::{Agent, CacheModel, Operation, PhysAddr};

type Code = Result<(), IcedError>;

/// Where the guest puts the device's BAR.
const BAR: u64 = 0xE000_0000;
/// A page of the guest: physical, and its linear address with KeyID 0.
const PAGE: u64 = 0x40_0000;
/// The same with KeyID 1.
const PAGE_1: u64 = 1 << 39 | PAGE;
/// MKTME_KEY_PROGRAM_STRUCT
const KEY_PROGRAM: u64 = 0x50_0000;
const TABLES: u64 = 0x60_0000;
/// The entry state's PML4 (docs/boot.md).
const PML4: u64 = 0x9000;
const PRESENT_RW: u64 = 0b11;
const LARGE: u64 = 1 << 7;
const KEYID_SHIFT: u32 = 40;
const DEBUG_EXIT: i32 = 0xF4;

fn store(a: &mut CodeAssembler, address: u64, value: u64) -> Code {
    a.mov(rax, address)?;
    a.mov(rcx, value)?;
    a.mov(qword_ptr(rax), rcx)
}

/// The device moves a line between memory and its buffer; waits for it.
fn transfer(a: &mut CodeAssembler, command: u32, source: u64, destination: u64) -> Code {
    for (register, value) in [(SOURCE, source), (DESTINATION, destination)] {
        a.mov(rax, value)?;
        a.mov(qword_ptr(rbx + register as i32), rax)?;
    }
    a.mov(dword_ptr(rbx + LENGTH as i32), 64)?;
    a.mov(dword_ptr(rbx + COMMAND as i32), command as i32)?;
    let mut busy = a.create_label();
    a.set_label(&mut busy)?;
    a.mov(eax, dword_ptr(rbx + STATUS as i32))?;
    a.test(eax, STATUS_BUSY as i32)?;
    a.jnz(busy)
}

/// KEYID_CLEAR_KEY or another command for KeyID 1.
fn pconfig(a: &mut CodeAssembler, command: u64) -> Code {
    // XTS-128 is algorithm bit 0.
    store(a, KEY_PROGRAM, 1 | (1 << 8 | command) << 16)?;
    a.mov(rbx, KEY_PROGRAM)?;
    a.mov(eax, 0)?;
    a.pconfig()
}

fn guest(a: &mut CodeAssembler) -> Code {
    for (register, value) in [(0x10u32, BAR as u32), (0x04, 0b110)] {
        a.mov(edx, 0xCF8)?;
        a.mov(eax, (0x8000_0800 | register) as i32)?;
        a.out(dx, eax)?;
        a.mov(edx, 0xCFC)?;
        a.mov(eax, value as i32)?;
        a.out(dx, eax)?;
    }
    a.mov(rbx, BAR)?;
    // A buffer for the device, dirty under KeyID 1.
    store(a, PAGE_1, 1)?;
    transfer(a, COMMAND_READ, PAGE, 0)?;
    transfer(a, COMMAND_READ, 1 << KEYID_SHIFT | PAGE, 0)?;
    // A device writes under a dirty line.
    store(a, PAGE + 64, 1)?;
    transfer(a, COMMAND_WRITE, 0, 1 << KEYID_SHIFT | (PAGE + 64))?;
    // A new key under three dirty lines, one of which was told already; random, then the TME key again.
    store(a, PAGE_1 + 0x800, 1)?;
    store(a, PAGE_1 + 0x400, 1)?;
    pconfig(a, 1)?;
    a.wbinvd()?;
    pconfig(a, 2)?;
    a.mov(eax, 0)?;
    a.out(DEBUG_EXIT, al)
}

const EXPECTED: [(HazardKind, Operation, u64); 3] = [
    (DmaBypassesDirtyLine, Operation::DmaRead, PAGE),
    (DmaBypassesDirtyLine, Operation::DmaWrite, PAGE + 64),
    (DirtyLineAtRekey, Operation::Pconfig, PAGE),
];

fn start(config: Config) -> Machine {
    let image = common::guest(guest);
    let config = Config { dma_device: true, ram_bytes: 64 << 20, ..config };
    let mut machine = Machine::new(config).unwrap();
    let mut bios = machine.power_on().unwrap();
    machine.boot(&mut bios, &Images { kernel: &image, ..Images::default() }).unwrap();
    for (at, entry) in [
        (PML4 + 8, TABLES | PRESENT_RW),
        (TABLES, (TABLES + 0x1000) | PRESENT_RW),
        (TABLES + 0x1000 + (PAGE >> 21) * 8, 1 << KEYID_SHIFT | PAGE | LARGE | PRESENT_RW),
    ] {
        machine.cpu.mem.load_image(PhysAddr(at), &u64::to_le_bytes(entry));
    }
    assert_eq!(machine.take_hazards(), []);
    machine
}

fn settings(sanitize: bool) -> impl Iterator<Item = Config> {
    CacheModel::ALL.into_iter().map(move |cache| Config { cache, sanitize, ..Config::default() })
}

#[test]
fn devices_and_pconfig_are_reported_and_correct_transfers_are_not() {
    for config in settings(true) {
        let mut machine = start(config);
        assert_eq!(machine.run(u64::MAX), Exit::DebugExit(0));
        let hazards = machine.take_hazards();
        let found: Vec<_> = hazards.iter().map(|h| (h.kind, h.access.operation, h.line.start().0)).collect();
        assert_eq!(found, EXPECTED);
        assert_eq!([0, 1, 2].map(|n| hazards[n].access.agent), [Agent::Device, Agent::Device, Agent::Cpu(0)]);
        assert_eq!([0, 1, 2].map(|n| hazards[n].access.keyid.0), [0, 1, 1]);
        assert_eq!((hazards[2].lines, hazards[2].other.unwrap().icount), (3, hazards[0].other.unwrap().icount));
    }
}

#[test]
fn the_machine_stops_at_hazards_when_asked_and_the_guest_does_not_notice() {
    for (config, plain) in settings(true).zip(settings(false)) {
        let mut plain = start(plain);
        assert_eq!(plain.run(u64::MAX), Exit::DebugExit(0));
        let mut machine = start(config);
        machine.stop_on_hazard(true);
        for expected in EXPECTED {
            assert_eq!(machine.run(u64::MAX), Exit::Hazard);
            let hazards = machine.take_hazards();
            let found: Vec<_> = hazards.iter().map(|h| (h.kind, h.access.operation, h.line.start().0)).collect();
            assert_eq!(found, [expected]);
            assert!(machine.cpu.icount() - hazards[0].access.icount <= 1);
        }
        assert_eq!(machine.run(u64::MAX), Exit::DebugExit(0));
        assert_eq!(machine.take_hazards(), []);
        assert_eq!(machine.state_hash(), plain.state_hash());
    }
}
