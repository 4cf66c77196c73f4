//! Executes one instruction in the interpreter: a processor in 64-bit mode at CPL 3, as Linux runs user code, with the
//! arena in pages of a KeyID of their own.

use crate::layout::{ARENA_BYTES, CODE, CODE_BYTES, PAGE, PAGES, SYSTEM, in_code};
use crate::state::{Case, Fault, Outcome, SELECTORS, State, USER_FLAGS, fx, zero_arena};
use cpu::Cpu;
use cpu::exec::system::cpuid::CpuModel;
use cpu::run::Stop;
use cpu::state::TableRegister;
use mem::{BusAddr, KeyId, MemType, Memory, PhysAddr, TmeProfile};
use x86::cr::{cr0, cr4, efer};
use x86::platform::NoBoard;
use x86::segment::{Segment, ar, sreg};

/// Physical addresses. System structures are supervisor pages at [`SYSTEM`] plus these.
mod place {
    pub const PML4: u64 = 0x1000;
    /// One page directory for each of the first four GiB, behind the page-directory-pointer table.
    pub const PDPT: u64 = 0x2000;
    pub const DIRECTORY: u64 = 0x3000;
    /// Page tables are allocated from here on.
    pub const TABLES: u64 = 0x1_0000;
    pub const GDT: u64 = 0x8000;
    pub const TSS: u64 = 0x9000;
    pub const IDT: u64 = 0xA000;
    /// One HLT for each vector.
    pub const HANDLERS: u64 = 0xB000;
    pub const KERNEL_STACK: u64 = 0xC000;
    pub const CODE: u64 = 0x10_0000;
    pub const ARENA: u64 = 0x11_0000;
}

/// Page-table entry bits.
mod pte {
    pub const P: u64 = 1 << 0;
    pub const W: u64 = 1 << 1;
    pub const U: u64 = 1 << 2;
    pub const A: u64 = 1 << 5;
    pub const D: u64 = 1 << 6;
    pub const NX: u64 = 1 << 63;
}

/// Linux's selectors (arch/x86/include/asm/segment.h), which user code can see.
mod selector {
    pub const KERNEL_CS: u16 = 0x10;
    pub const TSS: u16 = 0x40;
    pub const CPUNODE: u16 = 0x78;
}

/// Linux's per-CPU segment for GETCPU: read-only data, DPL 3, base 0. Its limit holds the CPU's number, which is not known
/// here; the generator keeps its selector out of what would show that. A load of it must succeed.
const CPUNODE_DESCRIPTOR: u64 = 0x0040_F500_0000_0000;

/// Linux's descriptors, in GDT order from selector 8 on.
const DESCRIPTORS: [u64; 6] = [
    0x00CF_9B00_0000_FFFF,
    0x00AF_9B00_0000_FFFF,
    0x00CF_9300_0000_FFFF,
    0x00CF_FB00_0000_FFFF,
    0x00CF_F300_0000_FFFF,
    0x00AF_FB00_0000_FFFF,
];

/// IA32_TME_ACTIVATE: enabled, 6 KeyID bits, XTS-128 and XTS-256 allowed.
const ACTIVATE: u64 = 0x0005_0006_0000_0002;
const KEYID_BITS: u8 = 6;
/// KeyIDs of code and arena.
const CODE_KEYID: KeyId = KeyId(1);
const ARENA_KEYID: KeyId = KeyId(2);
/// MTRRs enabled, default type WB.
const MTRR_DEF_TYPE: u64 = 0x806;

/// Instructions that a REP string instruction may count as before that is a hang.
const STEPS_MAX: u32 = 1 << 22;
/// More instructions than any program executes.
const PROGRAM_STEPS: u64 = 1 << 16;

/// The processor and what its memory holds now.
pub struct Interpreter {
    cpu: Box<Cpu>,
    memory: Box<[u8; ARENA_BYTES]>,
    code: Vec<u8>,
    used: (usize, usize),
}

impl Interpreter {
    /// A processor ready for cases.
    ///
    /// # Errors
    /// Memory or processor that cannot be built, as a sentence.
    pub fn new(image: &[u8; ARENA_BYTES]) -> Result<Interpreter, String> {
        cpu::exec::simd::host_supported().map_err(|e| e.to_string())?;
        let profile = TmeProfile::Default;
        let config = mem::Config { ram_bytes: 4 << 20, profile, ..mem::Config::default() };
        let (cache_bytes, cache_ways) = (config.cache_bytes as u32, config.cache_ways as u32);
        let mut memory = Memory::new(config).map_err(|e| e.to_string())?;
        memory.tme_mut().wrmsr(x86::msr::IA32_TME_ACTIVATE, ACTIVATE).ok_or("TME activation failed")?;
        for keyid in [CODE_KEYID, ARENA_KEYID] {
            let field = std::array::from_fn(|i| i as u8 ^ keyid.0 as u8);
            let command = x86::tme::pconfig::KEYID_SET_KEY_DIRECT;
            let second = field.map(|b: u8| !b);
            memory
                .tme_mut()
                .program_key(keyid, command, mem::Algorithm::AesXts128, &field, &second)
                .map_err(|e| e.to_string())?;
        }
        let model = CpuModel::new(&profile.features(), 1, cache_bytes, cache_ways);
        let cpu = Cpu::new(0, model, Box::new(memory), Box::new(NoBoard), 1_000_000_000);
        let mut this = Interpreter { cpu, memory: zero_arena(), code: vec![0xCC; CODE_BYTES], used: (0, 0) };
        this.build_tables();
        this.enter_user_mode();
        let whole = this.code.clone();
        this.load_code(0, &whole);
        for (i, bytes) in image.chunks(PAGE).enumerate() {
            let bus = this.arena_bus(i * PAGE);
            this.cpu.mem.write(bus, MemType::Wb, false, bytes);
        }
        this.memory.copy_from_slice(image);
        Ok(this)
    }

    fn store(&mut self, address: u64, value: u64) {
        self.cpu.mem.load_image(PhysAddr(address), &value.to_le_bytes());
    }

    fn build_tables(&mut self) {
        // Cells that nobody wrote decrypt to noise.
        self.cpu.mem.load_image(PhysAddr(0), &vec![0; place::CODE as usize]);
        let all = pte::P | pte::W | pte::U | pte::A;
        self.store(place::PML4, place::PDPT | all);
        for gib in 0..4 {
            self.store(place::PDPT + 8 * gib, (place::DIRECTORY + 0x1000 * gib) | all);
        }
        let layout = self.cpu.mem.layout();
        let mut pages = vec![];
        for page in (place::GDT..place::TABLES).step_by(PAGE) {
            pages.push((SYSTEM + page, page | pte::P | pte::W | pte::A | pte::D));
        }
        for offset in (0..CODE_BYTES as u64).step_by(PAGE) {
            let bus = layout.join(PhysAddr(place::CODE + offset), CODE_KEYID).0;
            pages.push((CODE + offset, bus | all | pte::D));
        }
        for (i, page) in PAGES.iter().enumerate() {
            let bus = layout.join(PhysAddr(place::ARENA + (i * PAGE) as u64), ARENA_KEYID).0;
            let w = if page.writable { pte::W | pte::D } else { 0 };
            pages.push((page.linear, bus | pte::P | pte::U | pte::A | pte::NX | w));
        }
        // One page table for each 2 MiB that has a page.
        let mut directory: Vec<u64> = pages.iter().map(|p| p.0 >> 21).collect();
        directory.dedup();
        for (linear, entry) in pages {
            let n = directory.iter().position(|d| *d == linear >> 21).unwrap_or(0) as u64;
            let table = place::TABLES + n * PAGE as u64;
            self.store(place::DIRECTORY + (linear >> 21) * 8, table | all);
            self.store(table + (linear >> 12 & 0x1FF) * 8, entry);
        }
        self.build_descriptors();
    }

    fn build_descriptors(&mut self) {
        for (i, d) in DESCRIPTORS.into_iter().enumerate() {
            self.store(place::GDT + 8 + 8 * i as u64, d);
        }
        self.store(place::GDT + u64::from(selector::CPUNODE), CPUNODE_DESCRIPTOR);
        // Busy 64-bit TSS with RSP0.
        let base = SYSTEM + place::TSS;
        let low = 0x0000_8B00_0000_0067 | (base & 0xFF_FFFF) << 16 | base >> 24 << 56;
        self.store(place::GDT + u64::from(selector::TSS), low);
        let stack = (SYSTEM + place::KERNEL_STACK + PAGE as u64).to_le_bytes();
        self.cpu.mem.load_image(PhysAddr(place::TSS + 4), &stack);
        // I/O map beyond the limit.
        self.cpu.mem.load_image(PhysAddr(place::TSS + 102), &[0x68, 0]);
        for vector in 0..256 {
            let handler = SYSTEM + place::HANDLERS + vector;
            // #BP and #OF may be raised by user code, as in Linux.
            let dpl = if vector == 3 || vector == 4 { 3u64 } else { 0 };
            let gate =
                handler & 0xFFFF | handler >> 16 << 48 | u64::from(selector::KERNEL_CS) << 16 | (0x8E | dpl << 5) << 40;
            self.store(place::IDT + 16 * vector, gate);
            self.cpu.mem.load_image(PhysAddr(place::HANDLERS + vector), &[0xF4]);
        }
    }

    fn enter_user_mode(&mut self) {
        let cpu = &mut *self.cpu;
        cpu.cr0 = cr0::PE | cr0::MP | cr0::ET | cr0::NE | cr0::WP | cr0::AM | cr0::PG;
        cpu.cr4 = cr4::DE
            | cr4::PAE
            | cr4::MCE
            | cr4::PGE
            | cr4::OSFXSR
            | cr4::OSXMMEXCPT
            | cr4::UMIP
            | cr4::FSGSBASE
            | cr4::OSXSAVE
            | cr4::SMEP
            | cr4::SMAP;
        cpu.cr3 = place::PML4;
        cpu.msr.efer = efer::SCE | efer::LME | efer::LMA | efer::NXE;
        cpu.msr.k_core = KEYID_BITS;
        cpu.msr.mtrr.def_type = MTRR_DEF_TYPE;
        cpu.xcr0 = 3;
        cpu.gdtr = TableRegister { base: SYSTEM + place::GDT, limit: 0x7F };
        cpu.idtr = TableRegister { base: SYSTEM + place::IDT, limit: 0xFFF };
        cpu.tr = Segment { selector: selector::TSS, ar: ar::P | 11, limit: 0x67, base: SYSTEM + place::TSS };
        cpu.ldtr = Segment { selector: 0, ar: ar::UNUSABLE, limit: 0, base: 0 };
        self.load_segments(&SELECTORS);
        let cpu = &mut *self.cpu;
        cpu.flush_tlb(true);
        cpu.drop_shortcuts();
    }

    fn load_segments(&mut self, selectors: &[u16; 6]) {
        let cpu = &mut *self.cpu;
        for (s, selector) in selectors.iter().enumerate() {
            let segment = match usize::from(*selector >> 3) {
                0 => Segment { selector: 0, ar: ar::UNUSABLE, limit: 0, base: 0 },
                n => Segment::from_descriptor(*selector, DESCRIPTORS[n - 1]),
            };
            cpu.set_segment(s, segment);
        }
        cpu.set_cpl(3);
        cpu.update_mode();
    }

    fn arena_bus(&self, index: usize) -> BusAddr {
        self.cpu.mem.layout().join(PhysAddr(place::ARENA + index as u64), ARENA_KEYID)
    }

    fn load_code(&mut self, offset: usize, bytes: &[u8]) {
        let bus = self.cpu.mem.layout().join(PhysAddr(place::CODE + offset as u64), CODE_KEYID);
        self.cpu.mem.dma_write(bus, bytes);
    }

    /// Puts the case into memory: what differs from what is there.
    fn load_memory(&mut self, case: &Case) {
        self.load_code_of(case);
        self.load_arena(case);
    }

    fn load_code_of(&mut self, case: &Case) {
        let (at, end) = ((case.pre.rip - CODE) as usize, (case.pre.rip - CODE) as usize + case.bytes.len());
        let (from, to) = (self.used.0.min(at), self.used.1.max(end));
        let fresh = self.used == (0, 0);
        self.code[self.used.0..self.used.1].fill(0xCC);
        self.code[at..end].copy_from_slice(&case.bytes);
        if fresh || to - from > 256 {
            let old: Vec<u8> = self.code[self.used.0..self.used.1].to_vec();
            self.load_code(self.used.0, &old);
            let new = case.bytes.clone();
            self.load_code(at, &new);
        } else {
            let piece = self.code[from..to].to_vec();
            self.load_code(from, &piece);
        }
        self.used = (at, end);
    }

    fn load_arena(&mut self, case: &Case) {
        for index in (0..ARENA_BYTES).step_by(64) {
            if self.memory[index..index + 64] != case.memory[index..index + 64] {
                let bus = self.arena_bus(index);
                self.cpu.mem.write(bus, MemType::Wb, false, &case.memory[index..index + 64]);
            }
        }
    }

    fn load_registers(&mut self, pre: &State) {
        if self.cpu.cpl != 3 || (0..6).any(|s| self.cpu.segments[s].selector != pre.selectors[s]) {
            self.load_segments(&pre.selectors);
        }
        let cpu = &mut *self.cpu;
        cpu.regs[..16].copy_from_slice(&pre.gpr);
        cpu.set_rflags(pre.rflags | USER_FLAGS);
        cpu.set_segment_base(sreg::FS, pre.fs_base);
        cpu.set_segment_base(sreg::GS, pre.gs_base);
        for n in 0..16 {
            cpu.xmm[n] = pre.xmm(n);
        }
        cpu.mxcsr = pre.mxcsr();
        let x = &mut cpu.x87;
        (x.fcw, x.fsw) = (pre.get16(fx::FCW), pre.get16(fx::FSW));
        (x.fop, x.fip, x.fdp, x.fcs, x.fds) = (0, 0, 0, 0, 0);
        let tags = pre.fx[fx::FTW];
        x.ftw = 0;
        for n in 0..8 {
            x.regs[(pre.top() + n) & 7] = pre.st(n);
        }
        for r in 0..8 {
            x.ftw |= (if tags >> r & 1 == 0 { 3 } else { tag_of(x.regs[r]) }) << (2 * r);
        }
        cpu.activity = cpu::state::Activity::Running;
        cpu.interrupt_shadow = false;
        cpu.sequential = false;
        cpu.followed = None;
        cpu.fault = None;
        cpu.cr2 = 0;
        cpu.next_ip = pre.rip;
    }

    fn store_registers(&self, out: &mut State) {
        let cpu = &*self.cpu;
        out.gpr.copy_from_slice(&cpu.regs[..16]);
        out.rip = cpu.rip();
        out.rflags = cpu.rflags();
        out.fs_base = cpu.segments[sreg::FS].base;
        out.gs_base = cpu.segments[sreg::GS].base;
        for s in 0..6 {
            out.selectors[s] = cpu.segments[s].selector;
        }
        out.fx = [0; 512];
        for n in 0..16 {
            out.set_xmm(n, cpu.xmm[n]);
        }
        out.set_mxcsr(cpu.mxcsr);
        let x = &cpu.x87;
        out.set16(fx::FCW, x.fcw);
        out.set16(fx::FSW, x.fsw);
        for r in 0..8 {
            out.fx[fx::FTW] |= u8::from(x.ftw >> (2 * r) & 3 != 3) << r;
        }
        for n in 0..8 {
            out.set_st(n, x.regs[(out.top() + n) & 7]);
        }
    }

    /// Executes the case and stores what it led to.
    ///
    /// # Errors
    /// The interpreter stopped in a way that no case should lead to.
    pub fn run(&mut self, case: &Case, out: &mut Outcome) -> Result<(), String> {
        self.load_memory(case);
        self.load_registers(&case.pre);
        let mut steps = 0;
        let mut stop = self.one();
        // A repeated string instruction may stop between iterations.
        while self.cpu.cpl == 3 && self.cpu.rip() == case.pre.rip && stop == Stop::Icount {
            steps += 1;
            if steps == STEPS_MAX {
                self.forget_memory();
                return Err("a repeated instruction does not end".into());
            }
            stop = self.one();
        }
        // A branch to a page without code: the host reports the fault of the fetch.
        if self.cpu.cpl == 3 && !in_code(self.cpu.rip()) && stop == Stop::Icount {
            stop = self.one();
        }
        if self.cpu.cpl == 3 && stop != Stop::Icount {
            self.cpu.activity = cpu::state::Activity::Running;
            self.forget_memory();
            return Err(format!("the interpreter stopped: {stop:?} after {:x?}", self.cpu.last_exception));
        }
        self.store_registers(&mut out.state);
        out.fault = None;
        if self.cpu.cpl != 3 {
            self.take_fault(out)?;
        }
        self.store_memory(out);
        Ok(())
    }

    /// Executes a program: the case's bytes up to the INT3 behind them. With `again` the code of the last case is still
    /// in place, decoded.
    ///
    /// # Errors
    /// As [`Interpreter::run`].
    pub fn run_program(&mut self, case: &Case, again: bool, out: &mut Outcome) -> Result<(), String> {
        if !again {
            self.load_code_of(case);
        }
        self.load_arena(case);
        self.load_registers(&case.pre);
        let until = self.cpu.icount() + PROGRAM_STEPS;
        let stop = self.cpu.run(until);
        if stop != Stop::HaltedDisabled || self.cpu.cpl != 0 {
            self.forget_memory();
            self.cpu.activity = cpu::state::Activity::Running;
            return Err(format!("the interpreter stopped: {stop:?} after {:x?}", self.cpu.last_exception));
        }
        self.store_registers(&mut out.state);
        self.take_fault(out)?;
        let end = case.pre.rip + case.bytes.len() as u64;
        if out.fault.is_some_and(|f| f.vector == 3) && out.state.rip == end + 1 {
            out.fault = None;
            out.state.rip = end;
        }
        self.store_memory(out);
        Ok(())
    }

    fn one(&mut self) -> Stop {
        let until = self.cpu.icount() + 1;
        self.cpu.run(until)
    }

    /// Reads the frame that delivery pushed (SDM Vol. 3A, figure 6-9).
    fn take_fault(&mut self, out: &mut Outcome) -> Result<(), String> {
        let halted = self.cpu.activity == cpu::state::Activity::Halted;
        let vector = self.cpu.rip().wrapping_sub(SYSTEM + place::HANDLERS + u64::from(halted));
        let Ok(vector) = u8::try_from(vector) else { return Err(format!("not at a handler: {:#x}", self.cpu.rip())) };
        let has_error = matches!(vector, 8 | 10..=14 | 17);
        let mut at = self.cpu.regs[4].wrapping_sub(SYSTEM);
        let mut pop = || {
            let mut b = [0; 8];
            self.cpu.mem.read(BusAddr(at), MemType::Wb, false, &mut b);
            at += 8;
            u64::from_le_bytes(b)
        };
        let error = if has_error { pop() } else { 0 };
        out.state.rip = pop();
        let cs = pop();
        out.state.rflags = pop();
        out.state.gpr[4] = pop();
        let ss = pop();
        (out.state.selectors[sreg::CS], out.state.selectors[sreg::SS]) = (cs as u16, ss as u16);
        let cr2 = if vector == 14 { self.cpu.cr2 } else { 0 };
        out.fault = Some(Fault { vector, error, cr2 });
        Ok(())
    }

    /// After a run that was given up: the next case writes all of its memory.
    fn forget_memory(&mut self) {
        self.memory.iter_mut().for_each(|b| *b = !*b);
    }

    fn store_memory(&mut self, out: &mut Outcome) {
        for (i, bytes) in out.memory.chunks_mut(PAGE).enumerate() {
            let bus = self.arena_bus(i * PAGE);
            match self.cpu.mem.frame_lookup(bus) {
                Some(frame) if frame.resident() == u64::MAX => frame.read(0, bytes),
                _ => self.cpu.mem.read(bus, MemType::Wb, false, bytes),
            }
        }
        self.memory.copy_from_slice(&out.memory[..]);
    }
}

/// The full tag of a register that is not empty (SDM Vol. 1, section 8.1.7).
fn tag_of(register: u128) -> u16 {
    let (exponent, significand) = ((register >> 64) as u16 & 0x7FFF, register as u64);
    match (exponent, significand >> 63) {
        (0, _) if significand == 0 => 1,
        (0 | 0x7FFF, _) | (_, 0) => 2,
        _ => 0,
    }
}
