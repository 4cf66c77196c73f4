//! Segments, control transfers, event delivery and system calls on a processor with real memory, one instruction at a
//! time: the functions of `exec` run on decoded bytes, without the block cache and the run loop.

mod events;
mod far;
mod legacy;
mod segments;
mod syscalls;

use cpu::Cpu;
use cpu::exec::legacy::lookup_legacy;
use cpu::exec::system::cpuid::CpuModel;
use cpu::exec::system::transfer;
use cpu::state::{TableRegister, slot};
use iced_x86::{Decoder, DecoderOptions};
use mem::{Config, Memory};
use x86::platform::NoBoard;
use x86::segment::{Segment, sreg};
use x86::{Exception, cr};

/// Where things are. Everything is identity-mapped.
mod at {
    pub const PML4: u64 = 0x1000;
    pub const PDPT: u64 = 0x2000;
    pub const PD: u64 = 0x3000;
    pub const GDT: u64 = 0x5000;
    pub const IDT: u64 = 0x6000;
    pub const TSS: u64 = 0x7000;
    pub const LDT: u64 = 0x8000;
    pub const CODE: u64 = 0x1_0000;
    pub const KERNEL_STACK: u64 = 0x2_0000;
    pub const IST1: u64 = 0x2_2000;
    pub const RSP0: u64 = 0x2_4000;
    pub const USER_STACK: u64 = 0x3_0000;
    pub const HANDLER: u64 = 0x4_0000;
    pub const DATA: u64 = 0x5_0000;
    /// First address that is not mapped while paging is on.
    pub const UNMAPPED: u64 = 0x40_0000;
}

/// Selectors of the GDT that [`Machine::new`] builds.
mod sel {
    pub const CODE64: u16 = 0x08;
    pub const DATA0: u16 = 0x10;
    pub const USER_CODE32: u16 = 0x1B;
    pub const USER_DATA: u16 = 0x23;
    pub const USER_CODE64: u16 = 0x2B;
    pub const CODE32: u16 = 0x30;
    pub const CODE16: u16 = 0x38;
    pub const DATA16: u16 = 0x40;
    pub const CONFORMING32: u16 = 0x48;
    pub const TSS: u16 = 0x50;
    pub const ABSENT_DATA: u16 = 0x60;
    pub const LDT: u16 = 0x70;
    pub const GATE: u16 = 0x80;
    pub const CONFORMING64: u16 = 0x90;
    pub const EXECUTE_ONLY: u16 = 0x98;
    pub const LAST: u16 = 0x98;
}

/// Access-rights words (bits 55:40 of a descriptor, the limit's bits 19:16 left out), accessed bits clear.
mod rights {
    pub const CODE64: u64 = 0xA09A;
    pub const CODE32: u64 = 0xC09A;
    pub const CODE16: u64 = 0x009A;
    pub const DATA32: u64 = 0xC092;
    pub const DATA16: u64 = 0x0092;
    pub const DPL3: u64 = 0x60;
    pub const CONFORMING: u64 = 0x04;
    pub const ABSENT_DATA: u64 = 0xC012;
    pub const TSS: u64 = 0x0089;
    pub const LDT: u64 = 0x0082;
    pub const EXECUTE_ONLY32: u64 = 0xC098;
    pub const CALL_GATE_DPL3: u64 = 0xEC;
    pub const INTERRUPT_GATE: u64 = 0x8E;
    pub const TRAP_GATE: u64 = 0x8F;
}

fn descriptor(base: u64, limit: u64, rights: u64) -> u64 {
    limit & 0xFFFF | (base & 0xFF_FFFF) << 16 | rights << 40 | (limit >> 16 & 0xF) << 48 | (base >> 24 & 0xFF) << 56
}

fn gate(selector: u16, offset: u64, rights: u64, low: u64) -> [u64; 2] {
    let raw = offset & 0xFFFF | u64::from(selector) << 16 | low << 32 | rights << 40 | (offset >> 16 & 0xFFFF) << 48;
    [raw, offset >> 32]
}

/// What a fault must leave alone.
type Snapshot = (Vec<u64>, u64, [Segment; 6], u8, u64);

struct Machine {
    cpu: Box<Cpu>,
}

impl Machine {
    /// Real mode, with the tables of the other modes in memory.
    fn new() -> Machine {
        let config = Config { ram_bytes: 8 << 20, ..Config::default() };
        let memory = Memory::new(config).expect("a valid configuration");
        let cpu = Cpu::new(0, CpuModel::default(), Box::new(memory), Box::new(NoBoard), 1_000_000_000);
        let mut m = Machine { cpu };
        m.poke64(at::PML4, at::PDPT | 7);
        m.poke64(at::PDPT, at::PD | 7);
        // Two large pages: the first for everyone, the second for supervisors.
        m.poke64(at::PD, 0x87);
        m.poke64(at::PD + 8, 0x20_0083);
        let flat = 0xF_FFFF;
        for (selector, d) in [
            (sel::CODE64, descriptor(0, flat, rights::CODE64)),
            (sel::DATA0, descriptor(0, flat, rights::DATA32)),
            (sel::USER_CODE32, descriptor(0, flat, rights::CODE32 | rights::DPL3)),
            (sel::USER_DATA, descriptor(0, flat, rights::DATA32 | rights::DPL3)),
            (sel::USER_CODE64, descriptor(0, flat, rights::CODE64 | rights::DPL3)),
            (sel::CODE32, descriptor(0, flat, rights::CODE32)),
            (sel::CODE16, descriptor(0, 0xFFFF, rights::CODE16)),
            (sel::DATA16, descriptor(0, 0xFFFF, rights::DATA16)),
            (sel::CONFORMING32, descriptor(0, flat, rights::CODE32 | rights::CONFORMING)),
            (sel::TSS, descriptor(at::TSS, 0x67, rights::TSS)),
            (sel::ABSENT_DATA, descriptor(0, flat, rights::ABSENT_DATA)),
            (sel::LDT, descriptor(at::LDT, 0xF, rights::LDT)),
            (sel::CONFORMING64, descriptor(0, flat, rights::CODE64 | rights::CONFORMING)),
            (sel::EXECUTE_ONLY, descriptor(0, flat, rights::EXECUTE_ONLY32)),
        ] {
            m.poke64(at::GDT + u64::from(selector & !7), d);
        }
        m.cpu.next_ip = at::CODE;
        m.cpu.regs[slot::RSP as usize] = 0x8000;
        m
    }

    /// 64-bit mode at CPL 0 with TSS, IST1 and IDT.
    fn long() -> Machine {
        let mut m = Machine::new();
        m.cpu.cr3 = at::PML4;
        m.cpu.cr4 = cr::cr4::PAE;
        m.cpu.msr.efer = cr::efer::LME | cr::efer::LMA | cr::efer::SCE;
        m.cpu.cr0 |= cr::cr0::PE | cr::cr0::PG;
        m.tables();
        m.cpu.flush_tlb(true);
        m.cpu.drop_shortcuts();
        m.force(sreg::CS, sel::CODE64);
        for seg in [sreg::SS, sreg::DS, sreg::ES, sreg::FS, sreg::GS] {
            m.force(seg, sel::DATA0);
        }
        m.poke64(at::TSS + 4, at::RSP0);
        m.poke64(at::TSS + 36, at::IST1);
        m.cpu.regs[slot::RSP as usize] = at::KERNEL_STACK;
        m
    }

    /// 32-bit protected mode without paging, CPL 0.
    fn protected() -> Machine {
        let mut m = Machine::new();
        m.cpu.cr0 |= cr::cr0::PE;
        m.tables();
        m.force(sreg::CS, sel::CODE32);
        for seg in [sreg::SS, sreg::DS, sreg::ES, sreg::FS, sreg::GS] {
            m.force(seg, sel::DATA0);
        }
        m.poke(at::TSS + 4, &(at::RSP0 as u32).to_le_bytes());
        m.poke(at::TSS + 8, &sel::DATA0.to_le_bytes());
        m.cpu.regs[slot::RSP as usize] = at::KERNEL_STACK;
        m
    }

    fn tables(&mut self) {
        self.cpu.gdtr = TableRegister { base: at::GDT, limit: sel::LAST + 7 };
        self.cpu.idtr = TableRegister { base: at::IDT, limit: 0xFFF };
        let tss = self.peek64(at::GDT + u64::from(sel::TSS));
        self.cpu.tr = Segment::from_descriptor(sel::TSS, tss);
        self.cpu.update_mode();
    }

    /// Loads a segment register from the GDT without checks.
    fn force(&mut self, seg: usize, selector: u16) {
        let d = self.peek64(at::GDT + u64::from(selector & !7));
        self.cpu.set_segment(seg, Segment::from_descriptor(selector, d));
    }

    /// Goes to CPL 3 in 64-bit or 32-bit code.
    fn into_user(mut self, code: u16) -> Machine {
        self.force(sreg::CS, code);
        for seg in [sreg::SS, sreg::DS, sreg::ES, sreg::FS, sreg::GS] {
            self.force(seg, sel::USER_DATA);
        }
        self.cpu.set_cpl(3);
        self.cpu.regs[slot::RSP as usize] = at::USER_STACK;
        self
    }

    /// Writes an IDT gate of the current mode, to [`at::HANDLER`] plus 16 bytes a vector.
    fn gate(&mut self, vector: u8, rights: u64, ist: u64) -> u64 {
        let long = self.cpu.msr.efer & cr::efer::LMA != 0;
        let handler = at::HANDLER + 16 * u64::from(vector);
        let [low, high] = gate(if long { sel::CODE64 } else { sel::CODE32 }, handler, rights, ist);
        if long {
            self.poke64(at::IDT + 16 * u64::from(vector), low);
            self.poke64(at::IDT + 16 * u64::from(vector) + 8, high);
        } else {
            self.poke64(at::IDT + 8 * u64::from(vector), low);
        }
        handler
    }

    fn poke(&mut self, address: u64, bytes: &[u8]) {
        self.cpu.write_system(address, bytes).expect("mapped");
    }

    fn poke64(&mut self, address: u64, value: u64) {
        self.poke(address, &value.to_le_bytes());
    }

    fn peek(&mut self, address: u64, size: usize) -> u64 {
        let mut b = [0; 8];
        self.cpu.read_system(address, &mut b[..size]).expect("mapped");
        u64::from_le_bytes(b)
    }

    fn peek64(&mut self, address: u64) -> u64 {
        self.peek(address, 8)
    }

    /// `n` values of `size` bytes from the top of the stack (flat).
    fn stack<const N: usize>(&mut self, size: usize) -> [u64; N] {
        let sp = self.rsp();
        std::array::from_fn(|i| self.peek(sp + (i * size) as u64, size))
    }

    fn rsp(&self) -> u64 {
        self.cpu.regs[slot::RSP as usize]
    }

    fn selector(&self, seg: usize) -> u16 {
        self.cpu.segments[seg].selector
    }

    /// Decodes and executes one instruction at [`Cpu::next_ip`].
    fn exec(&mut self, code: &[u8]) -> Result<(), Exception> {
        // Decoded at another address than it runs at, as blocks are.
        let mut decoder = Decoder::with_ip(self.cpu.mode.bitness(), code, 0x123, DecoderOptions::NONE);
        let insn = decoder.decode();
        assert!(!insn.is_invalid() && insn.len() == code.len(), "{code:02X?}");
        let f = transfer::lookup(insn.code()).or_else(|| lookup_legacy(insn.code())).expect("an instruction of ours");
        self.cpu.ip = self.cpu.next_ip;
        self.cpu.next_ip = self.cpu.ip + code.len() as u64;
        f(&mut self.cpu, &insn)
    }

    /// Executes one instruction that must fault and change nothing.
    fn faults(&mut self, code: &[u8], expected: Exception) {
        let before = self.snapshot();
        let ip = self.cpu.next_ip;
        assert_eq!(self.exec(code), Err(expected), "{code:02X?}");
        self.cpu.next_ip = ip;
        assert_eq!(self.snapshot(), before, "{code:02X?}");
    }

    fn snapshot(&self) -> Snapshot {
        let c = &self.cpu;
        (c.regs[..16].to_vec(), c.rflags(), c.segments, c.cpl, c.next_ip)
    }
}
