//! A processor in 64-bit mode with 4 MiB of RAM, mapped one to one, on a board that has nothing but registers to look at.
#![allow(dead_code, reason = "each test file uses its part")]

use cpu::exec::system::cpuid::CpuModel;
use cpu::run::Stop;
use cpu::state::{Activity, Shortcuts, TableRegister, slot};
use cpu::{Cpu, exec};
use iced_x86::code_asm::CodeAssembler;
use iced_x86::{Decoder, DecoderOptions, IcedError};
use mem::{BusAddr, CacheModel, Config, Memory, PhysAddr, StateHasher, TmeProfile};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt::Debug;
use std::rc::Rc;
use x86::cr::{cr0, cr4, efer};
use x86::platform::{BusMemory, Platform, Signal, VirtualTime};
use x86::segment::{Segment, ar, sreg};
use x86::{Exception, msr};

/// Page tables: PML4, PDPT, page directory of 2-MiB pages, and one page table for the second 2 MiB.
const PML4: u64 = 0x1000;
const PDPT: u64 = 0x2000;
const PD: u64 = 0x3000;
pub const PT: u64 = 0x4000;
/// Mapped and free for tests.
pub const DATA: u64 = 0x10_0000;
/// 4-KiB pages: this one is mapped, the next is not.
pub const LAST_MAPPED: u64 = 0x30_0000;
pub const UNMAPPED: u64 = LAST_MAPPED + 0x1000;

const PRESENT_RW_USER: u64 = 7;
const LARGE: u64 = 1 << 7;

/// What the board saw.
#[derive(Debug, Default)]
pub struct Seen {
    pub port_writes: Vec<(u16, u8, u32)>,
    pub deadline: u64,
    pub deadline_offset: u64,
    pub apic_base: u64,
    pub cr8: u8,
    /// Writes that a device has yet to make, in the order of their times.
    pub dma: VecDeque<(VirtualTime, BusAddr, Vec<u8>)>,
}

/// See the module's description.
#[derive(Clone, Default)]
pub struct TestBoard(pub Rc<RefCell<Seen>>);

impl Platform for TestBoard {
    fn port_read(&mut self, _: VirtualTime, _: usize, port: u16, size: u8) -> u32 {
        u32::from(port) << 16 | u32::from(size)
    }
    fn port_write(&mut self, _: VirtualTime, _: usize, port: u16, size: u8, value: u32) {
        self.0.borrow_mut().port_writes.push((port, size, value));
    }
    fn mmio_read(&mut self, _: VirtualTime, _: usize, _: u64, _: u8) -> u64 {
        u64::MAX
    }
    fn mmio_write(&mut self, _: VirtualTime, _: usize, _: u64, _: u8, _: u64) {}
    fn apic_msr_read(&mut self, _: VirtualTime, _: usize, number: u32) -> Option<u64> {
        let seen = self.0.borrow();
        match number {
            msr::IA32_APIC_BASE => Some(seen.apic_base),
            msr::IA32_TSC_DEADLINE => Some(seen.deadline),
            _ => None,
        }
    }
    fn apic_msr_write(&mut self, _: VirtualTime, _: usize, number: u32, value: u64, tsc_offset: u64) -> Option<()> {
        let mut seen = self.0.borrow_mut();
        match number {
            msr::IA32_APIC_BASE => seen.apic_base = value,
            msr::IA32_TSC_DEADLINE => (seen.deadline, seen.deadline_offset) = (value, tsc_offset),
            _ => return None,
        }
        Some(())
    }
    fn cr8(&self, _: usize) -> u8 {
        self.0.borrow().cr8
    }
    fn set_cr8(&mut self, _: VirtualTime, _: usize, value: u8) {
        self.0.borrow_mut().cr8 = value;
    }
    fn next_event(&self) -> Option<VirtualTime> {
        self.0.borrow().dma.front().map(|(time, ..)| *time)
    }
    fn advance(&mut self, _: VirtualTime) {}
    fn dma_pending(&self, now: VirtualTime) -> bool {
        self.next_event().is_some_and(|time| time <= now)
    }
    fn run_dma(&mut self, now: VirtualTime, memory: &mut dyn BusMemory) {
        while self.dma_pending(now) {
            let (_, address, bytes) = self.0.borrow_mut().dma.pop_front().expect("one is pending");
            memory.write(address.0, &bytes).expect("the address is in RAM");
        }
    }
    fn interrupt_pending(&self, _: usize) -> bool {
        false
    }
    fn acknowledge_interrupt(&mut self, _: VirtualTime, _: usize) -> Option<u8> {
        None
    }
    fn nmi_pending(&self, _: usize) -> bool {
        false
    }
    fn take_nmi(&mut self, _: usize) -> bool {
        false
    }
    fn take_signal(&mut self) -> Option<Signal> {
        None
    }
    fn signal_pending(&self) -> bool {
        false
    }
}

pub fn board(profile: TmeProfile) -> (Box<Cpu>, TestBoard) {
    board_with(Config { ram_bytes: 4 << 20, profile, ..Config::default() })
}

/// A processor and its board in 64-bit mode at CPL 0.
pub fn board_with(config: Config) -> (Box<Cpu>, TestBoard) {
    let mut memory = Memory::new(config.clone()).expect("a valid configuration");
    let mut entry = |at: u64, value: u64| memory.load_image(PhysAddr(at), &value.to_le_bytes());
    entry(PML4, PDPT | PRESENT_RW_USER);
    entry(PDPT, PD | PRESENT_RW_USER);
    entry(PD, LARGE | PRESENT_RW_USER);
    entry(PD + 8, PT | PRESENT_RW_USER);
    for page in (0x20_0000..=LAST_MAPPED).step_by(0x1000) {
        entry(PT + (page >> 12 & 511) * 8, page | PRESENT_RW_USER);
    }
    let test_board = TestBoard::default();
    let model = CpuModel::new(&config.profile.features(), 1, 1 << 20, 16);
    let mut cpu = Cpu::new(0, model, Box::new(memory), Box::new(test_board.clone()), 100_000_000);
    cpu.cr3 = PML4;
    cpu.cr4 = cr4::PAE;
    cpu.cr0 = cr0::PE | cr0::PG | cr0::ET | cr0::NE | cr0::WP;
    cpu.msr.efer = efer::LME | efer::LMA | efer::NXE;
    cpu.msr.mtrr.def_type = 0x806;
    let flat = ar::P | ar::S | ar::RW | ar::ACCESSED | ar::G | ar::DB;
    for i in 0..6 {
        cpu.set_segment(i, Segment { selector: 0x10, ar: flat, limit: u32::MAX, base: 0 });
    }
    let code = flat & !ar::DB | ar::CODE | ar::L;
    cpu.set_segment(sreg::CS, Segment { selector: 8, ar: code, limit: u32::MAX, base: 0 });
    cpu.update_access_masks();
    cpu.flush_tlb(true);
    cpu.drop_shortcuts();
    (cpu, test_board)
}

/// The default profile's processor in 64-bit mode.
pub fn long_mode() -> Box<Cpu> {
    board(TmeProfile::Default).0
}

/// IA32_TME_ACTIVATE: enabled and locked, k = 6, AES-XTS-128 and -256 for keys.
pub const ACTIVATE_K6: u64 = 0x0005_0006_0000_0002;
/// The four page tables of [`board_with`] and their bytes.
const TABLES: (u64, usize) = (PML4, 0x4000);

/// Activates TME with 6 KeyID bits.
pub fn activate_tme(cpu: &mut Cpu) {
    let mut tables = vec![0; TABLES.1];
    cpu.mem.dma_read(BusAddr(TABLES.0), &mut tables);
    cpu.mem.tme_mut().wrmsr(msr::IA32_TME_ACTIVATE, ACTIVATE_K6).expect("nothing is locked yet");
    // Written before activation, so not encrypted.
    cpu.mem.load_image(PhysAddr(TABLES.0), &tables);
}

/// 64-bit code for an address.
pub fn assemble(at: u64, code: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> Vec<u8> {
    let mut a = CodeAssembler::new(64).expect("64 is a bitness");
    code(&mut a).expect("the instructions exist");
    a.assemble(at).expect("it assembles")
}

/// Lengths of runs: one instruction, odd ones, and everything at once.
const CUTS: [u64; 5] = [1, 2, 3, 7, u64::MAX];

/// A processor that executes in one of the ways the host has, none of which the guest can tell from another.
pub struct Guest {
    pub cpu: Box<Cpu>,
    pub board: TestBoard,
    pub model: CacheModel,
    /// Instructions in a run, so that blocks are cut and linked in several ways.
    cut: u64,
}

impl Guest {
    /// One that executes as a user's does.
    pub fn new(cpu: Box<Cpu>, board: TestBoard, model: CacheModel) -> Guest {
        Guest { cpu, board, model, cut: u64::MAX }
    }

    pub fn put(&mut self, at: u64, code: &[u8]) {
        self.cpu.write_linear(at, code).expect("the page is mapped");
    }

    /// Maps a page below [`LAST_MAPPED`]'s end of the second 2 MiB. INVLPG is the caller's.
    pub fn map(&mut self, linear: u64, entry: u64) {
        self.cpu.write_u64(pt_entry(linear), entry | PRESENT_RW).expect("page tables are mapped");
    }

    /// Delivers an exception to a handler at CPL 0, by a GDT and an IDT in memory that is free.
    pub fn set_gate(&mut self, vector: u8, handler: u64) {
        const GDT: u64 = 0x5000;
        const IDT: u64 = 0x6000;
        /// Flat 64-bit code at selector 8 and data at 10H.
        const DESCRIPTORS: [u64; 3] = [0, 0x00AF_9B00_0000_FFFF, 0x00CF_9300_0000_FFFF];
        /// P and the type of an interrupt gate, with the selector.
        const GATE: u64 = 0x8E00 << 32 | 8 << 16;
        for (i, descriptor) in (0..).zip(DESCRIPTORS) {
            self.cpu.write_u64(GDT + 8 * i, descriptor).expect("mapped");
        }
        let entry = IDT + 16 * u64::from(vector);
        let low = handler & 0xFFFF | GATE | (handler >> 16 & 0xFFFF) << 48;
        self.cpu.write_u64(entry, low).expect("mapped");
        self.cpu.write_u64(entry + 8, handler >> 32).expect("mapped");
        self.cpu.gdtr = TableRegister { base: GDT, limit: 23 };
        self.cpu.idtr = TableRegister { base: IDT, limit: 0xFFF };
    }

    /// Runs from `rip` until the processor stops, or for `insns`.
    pub fn run(&mut self, rip: u64, insns: u64) -> Stop {
        let cpu = &mut self.cpu;
        cpu.activity = Activity::Running;
        cpu.move_to(rip);
        let until = cpu.icount().saturating_add(insns);
        loop {
            let next = cpu.icount().saturating_add(self.cut).min(until);
            match cpu.run(next) {
                Stop::Icount if next < until => {}
                stop => return stop,
            }
        }
    }

    /// Runs from `rip` to HLT; returns RAX.
    pub fn call(&mut self, rip: u64) -> u64 {
        match self.run(rip, 100_000) {
            Stop::HaltedDisabled => rax(&self.cpu),
            stop => panic!("{stop:?} at {:#x}: {:?}", self.cpu.rip(), self.cpu.last_exception),
        }
    }

    /// Everything that must not depend on how the host executes.
    fn state(&self) -> (u64, u64, Vec<u64>, u128) {
        let mut hasher = StateHasher::new();
        self.cpu.mem.state_hash(&mut hasher);
        (self.cpu.icount(), self.cpu.rip(), self.cpu.regs[..16].to_vec(), hasher.finish())
    }
}

/// Where the page table has the entry of a linear address of the second 2 MiB.
pub fn pt_entry(linear: u64) -> u64 {
    PT + (linear >> 12 & 511) * 8
}

/// P, R/W
pub const PRESENT_RW: u64 = 3;

/// Runs a test with the fast path, links and bulk string operations each on and off, in runs of several lengths. What it
/// returns, and the state it leaves, have to be the same each time.
pub fn every_mode<T: PartialEq + Debug>(config: Config, test: impl Fn(&mut Guest) -> T) {
    let mut first = None;
    for bits in 0..8 {
        let [fast, links, bulk_strings] = [1, 2, 4].map(|bit| bits & bit == 0);
        for cut in CUTS {
            let (mut cpu, board) = board_with(Config { ram_bytes: 4 << 20, fast, ..config.clone() });
            cpu.shortcuts = Shortcuts { links, bulk_strings };
            let mut guest = Guest { cpu, board, model: config.cache, cut };
            let seen = (test(&mut guest), guest.state());
            let Some(expected) = &first else {
                first = Some(seen);
                continue;
            };
            assert_eq!(
                &seen, expected,
                "fast path {fast}, links {links}, bulk strings {bulk_strings}, cut {cut}, {}",
                config.cache
            );
        }
    }
}

/// [`every_mode`] under every cache model.
pub fn every_mode_and_cache<T: PartialEq + Debug>(test: impl Fn(&mut Guest) -> T) {
    for cache in CacheModel::ALL {
        every_mode(Config { cache, ..Config::default() }, &test);
    }
}

/// Switches to flat 32-bit code (compatibility mode).
pub fn enter_32bit(cpu: &mut Cpu) {
    let mut cs = cpu.segments[sreg::CS];
    cs.ar = cs.ar & !ar::L | ar::DB;
    cpu.set_segment(sreg::CS, cs);
}

/// Switches to real-address mode with all segments at 0.
pub fn enter_real_mode(cpu: &mut Cpu) {
    cpu.cr0 &= !(cr0::PE | cr0::PG);
    cpu.msr.efer = 0;
    for i in 0..6 {
        let mut s = cpu.segments[i];
        (s.selector, s.limit) = (0, 0xFFFF);
        cpu.set_segment(i, s);
    }
    cpu.update_mode();
    cpu.flush_tlb(true);
    cpu.drop_shortcuts();
}

/// Executes one instruction as the run loop would call it. Returns where RIP went, relative to the instruction.
pub fn exec(cpu: &mut Cpu, bytes: &[u8]) -> Result<u64, Exception> {
    let mut decoder = Decoder::with_ip(cpu.mode.bitness(), bytes, 0, DecoderOptions::NONE);
    let insn = decoder.decode();
    assert_eq!(insn.len(), bytes.len(), "{bytes:02X?} decodes as {insn:?}");
    let f = exec::lookup(insn.code()).unwrap_or_else(|| panic!("{:?} has no semantics", insn.code()));
    cpu.ip = 0x8000;
    cpu.next_ip = cpu.ip + bytes.len() as u64;
    f(cpu, &insn)?;
    Ok(cpu.next_ip - cpu.ip)
}

pub fn rax(cpu: &Cpu) -> u64 {
    cpu.regs[slot::RAX as usize]
}

pub fn set(cpu: &mut Cpu, register: u8, value: u64) {
    cpu.regs[register as usize] = value;
}
