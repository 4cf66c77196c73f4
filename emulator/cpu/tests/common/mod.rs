//! A processor in 64-bit mode with 4 MiB of RAM, mapped one to one, on a board that has nothing but registers to look at.
#![allow(dead_code, reason = "each test file uses its part")]

use cpu::exec::system::cpuid::CpuModel;
use cpu::state::slot;
use cpu::{Cpu, exec};
use iced_x86::{Decoder, DecoderOptions};
use mem::{Config, Memory, PhysAddr, TmeProfile};
use std::cell::RefCell;
use std::rc::Rc;
use x86::cr::{cr0, cr4, efer};
use x86::platform::{Platform, Signal, VirtualTime};
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
        None
    }
    fn advance(&mut self, _: VirtualTime) {}
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
