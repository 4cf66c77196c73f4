//! A machine with the harness in it.

use super::image::{Image, pte};
use super::layout::{self, END_VECTOR, real};
use super::outcome::{Fault, Outcome};
use super::{Asm, Failure, Mode, Program};
use crate::{check, equal};
use iced_x86::IcedError;
use iced_x86::code_asm::CodeAssembler;
use machine::{Config, Exit, Machine};
use mem::{BusAddr, CipherLine, KeyId, MemType, Memory, PhysAddr};
use x86::msr;
use x86::platform::ResetKind;
use x86::segment::sreg;

/// Instructions that a run may take.
const RUN_LIMIT: u64 = 2_000_000;
/// IA32_MTRR_DEF_TYPE: enabled, no fixed ranges, write-back.
const MTRR_ALL_WB: u64 = 0x806;
/// IA32_PAT: WB, WT, UC-, UC as at reset; then WC, WP and the two again.
const PAT: u64 = 0x0007_0501_0007_0406;
/// Vectors whose delivery pushes an error code (SDM Vol. 3A, table 6-1).
const WITH_ERROR_CODE: [u8; 8] = [8, 10, 11, 12, 13, 14, 17, 21];

/// A machine that runs pieces of code.
pub struct Scenario {
    pub machine: Machine,
    /// The mode of the last run.
    mode: Option<Mode>,
    windows: u64,
}

impl Scenario {
    fn bare(config: Config) -> Result<Scenario, Failure> {
        let mut s = Scenario { machine: Machine::new(config)?, mode: None, windows: 0 };
        s.machine.cpu.mem.events_mut().enable(true);
        Ok(s)
    }

    pub(super) fn new(config: Config) -> Result<Scenario, Failure> {
        let mut s = Scenario::bare(config)?;
        s.install();
        Ok(s)
    }

    pub(super) fn activated_first(config: Config, value: u64) -> Result<Scenario, Failure> {
        let mut s = Scenario::bare(config)?;
        for (number, value) in [(msr::IA32_TME_ACTIVATE, value), (msr::MK_TME_CORE_ACTIVATE, 0)] {
            let done = s.machine.cpu.wrmsr(number, value);
            check!(done.is_ok(), "WRMSR {number:X}H of {value:#x}: {done:?}");
        }
        s.install();
        Ok(s)
    }

    /// (Re)loads the harness, as dirty lines, and sets the range registers up. Mappings made so far are gone.
    fn install(&mut self) {
        let image = Image::new();
        self.machine.cpu.msr.mtrr.def_type = MTRR_ALL_WB;
        self.machine.cpu.msr.pat = PAT;
        self.write(layout::PML4, &image.body);
        self.write(real::IVT, &image.vectors);
        self.write(real::STUBS, &image.real_stubs);
        (self.mode, self.windows) = (None, 0);
    }

    /// Stores through the caches with KeyID 0.
    pub fn write(&mut self, physical: u64, bytes: &[u8]) {
        self.mem().write(BusAddr(physical), MemType::Wb, false, bytes);
        // Code and translations may have changed under the processor.
        self.machine.cpu.drop_shortcuts();
    }

    pub fn mem(&mut self) -> &mut Memory {
        &mut self.machine.cpu.mem
    }

    /// Resets the machine and loads the harness again.
    pub fn reset(&mut self, kind: ResetKind) {
        self.machine.reset(kind);
        if kind != ResetKind::Init {
            self.install();
        }
        self.mode = None;
    }

    /// A processor of another package executes from now on.
    pub fn execute_on(&mut self, package: usize) -> Result<(), Failure> {
        check!(self.mem().execute_on(package), "there is no package {package}");
        self.machine.cpu.drop_shortcuts();
        Ok(())
    }

    /// WRMSR(982H, value), WRMSR(9FFH, 0) where it exists, and WBINVD, all by the guest.
    pub fn activate(&mut self, value: u64) -> Result<(), Failure> {
        let core = self.mem().tme().features().max_keyid_bits() > 0;
        self.run(|a| {
            a.wrmsr_value(msr::IA32_TME_ACTIVATE, value)?;
            if core {
                a.wrmsr_value(msr::MK_TME_CORE_ACTIVATE, 0)?;
            }
            a.wbinvd()?;
            a.hlt()
        })?
        .halted()?;
        let read = self.mem().tme().activate();
        check!(read & 3 == 3, "activation with {value:#x}: 982H reads {read:#x}");
        Ok(())
    }

    /// Runs code in 64-bit mode at CPL 0 until HLT, the end-of-run interrupt or an exception.
    pub fn run(&mut self, code: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> Result<Outcome, Failure> {
        self.run_in(Mode::Long, code)
    }

    /// The same in any mode.
    pub fn run_in(
        &mut self,
        mode: Mode,
        code: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
    ) -> Result<Outcome, Failure> {
        let mut a = CodeAssembler::new(mode.bitness())?;
        code(&mut a)?;
        let bytes = a.assemble(mode.entry())?;
        check!(bytes.len() < layout::CODE_BYTES as usize, "test code of {} bytes", bytes.len());
        self.run_bytes(mode, &bytes, |_| ())
    }

    /// The same for machine code; `prepare` may change registers before the first instruction.
    pub fn run_bytes(
        &mut self,
        mode: Mode,
        code: &[u8],
        prepare: impl FnOnce(&mut cpu::Cpu),
    ) -> Result<Outcome, Failure> {
        self.write(mode.code(), code);
        let last = self.mode.replace(mode);
        let cpu = &mut self.machine.cpu;
        mode.enter(last, cpu);
        prepare(cpu);
        let limit = cpu.icount() + RUN_LIMIT;
        match self.machine.run(limit) {
            Exit::Halted { interrupts: false } => Ok(self.outcome(mode)),
            exit => Err(Failure::Wrong(format!(
                "the code ended with {exit:?} at RIP {:#x}, last exception {:?}",
                self.machine.cpu.rip(),
                self.machine.cpu.last_exception
            ))),
        }
    }

    fn outcome(&mut self, mode: Mode) -> Outcome {
        let cpu = &self.machine.cpu;
        let mut regs = [0; 16];
        regs.copy_from_slice(&cpu.regs[..16]);
        let hlt = cpu.segments[sreg::CS].base.wrapping_add(cpu.rip()).wrapping_sub(1);
        let rflags = cpu.rflags();
        let at = hlt.wrapping_sub(mode.code());
        let real = mode == Mode::Real;
        let stubs = if real { real::STUBS } else { layout::STUBS };
        let Some(vector) = hlt.checked_sub(stubs).map(|n| n / layout::STUB_BYTES).filter(|&v| v < 256) else {
            return Outcome { fault: None, regs, rflags, at };
        };
        let vector = vector as u8;
        // The frame (SDM Vol. 3A, figures 6-4 and 6-9): error code, RIP, CS, RFLAGS, RSP, SS.
        let slot = if real {
            2
        } else if self.machine.cpu.mode.is_long64() {
            8
        } else {
            4
        };
        let frame = regs[4];
        let mut word = |n: u64| self.read_physical(frame + n * slot, slot as usize);
        let has_code = !real && WITH_ERROR_CODE.contains(&vector);
        let code = if has_code { word(0) } else { 0 };
        let first = u64::from(has_code);
        let (rip, flags) = (word(first), word(first + 2));
        if slot == 8 {
            regs[4] = word(first + 3);
        }
        let at = rip.wrapping_sub(mode.entry());
        let fault = Fault { vector, code, cr2: self.machine.cpu.cr2 };
        Outcome { fault: (vector != END_VECTOR).then_some(fault), regs, rflags: flags, at }
    }

    /// A value in memory with KeyID 0, as the caches have it.
    fn read_physical(&mut self, at: u64, size: usize) -> u64 {
        let mut bytes = [0; 8];
        self.mem().dma_read(BusAddr(at), &mut bytes[..size]);
        u64::from_le_bytes(bytes)
    }

    /// KM(keyid): a new linear address of the frame, write-back.
    pub fn map(&mut self, frame: u64, keyid: u16) -> u64 {
        self.map_type(frame, keyid, MemType::Wb)
    }

    /// The same with a memory type from the PAT.
    pub fn map_type(&mut self, frame: u64, keyid: u16, ty: MemType) -> u64 {
        let attributes = match ty {
            MemType::Wb => 0,
            MemType::Wt => pte::PWT,
            MemType::UcMinus => pte::PCD,
            MemType::Uc => pte::PCD | pte::PWT,
            MemType::Wc => pte::PAT,
            MemType::Wp => pte::PAT | pte::PWT,
        };
        let bus = self.bus(frame, keyid).0;
        self.map_entry(bus | pte::RWU | attributes)
    }

    /// A new linear page whose page-table entry is `entry`.
    pub fn map_entry(&mut self, entry: u64) -> u64 {
        let window = self.windows % layout::WINDOW_COUNT;
        self.windows += 1;
        self.write(self::entry_address(window), &entry.to_le_bytes());
        layout::WINDOWS + window * 0x1000
    }

    /// Physical address of the page-table entry of a mapping.
    pub fn entry_of(&self, linear: u64) -> u64 {
        entry_address((linear - layout::WINDOWS) >> 12)
    }

    /// The full physical address of a frame under a KeyID.
    pub fn bus(&self, physical: u64, keyid: u16) -> BusAddr {
        self.machine.cpu.mem.layout().join(PhysAddr(physical), KeyId(keyid))
    }

    /// Raw DRAM cells of the line at a physical address.
    pub fn dram(&self, physical: u64) -> [u8; 64] {
        self.machine.cpu.mem.dram_read_raw(PhysAddr(physical).line()).0
    }

    /// Replaces them.
    pub fn set_dram(&mut self, physical: u64, cells: [u8; 64]) {
        self.mem().dram_write_raw(PhysAddr(physical).line(), &CipherLine(cells));
    }

    /// The line is cached under this KeyID.
    pub fn resident(&self, physical: u64, keyid: u16) -> bool {
        self.machine.cpu.mem.line_resident(self.bus(physical, keyid))
    }

    /// The line is cached under this KeyID and newer than DRAM.
    pub fn dirty(&self, physical: u64, keyid: u16) -> bool {
        self.machine.cpu.mem.line_dirty(self.bus(physical, keyid))
    }

    /// Executes PCONFIG leaf 0 with this structure at [`layout::PROGRAM`].
    pub fn pconfig(&mut self, program: &Program) -> Result<Outcome, Failure> {
        self.write(layout::PROGRAM, &program.bytes());
        self.run(|a| {
            a.pconfig_at(layout::PROGRAM)?;
            a.hlt()
        })
    }

    /// The same, and it has to succeed.
    pub fn program(&mut self, program: &Program) -> Result<(), Failure> {
        let end = self.pconfig(program)?.halted()?;
        equal!(end.rax(), 0, "RAX after PCONFIG of {program:?}");
        Ok(())
    }
}

fn entry_address(window: u64) -> u64 {
    layout::PT_WINDOWS + 8 * window
}
