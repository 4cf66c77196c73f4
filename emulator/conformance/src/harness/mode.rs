//! The modes that code can be run in.

use super::image::TSS64_LIMIT;
use super::layout::{self, real, selector};
use cpu::Cpu;
use cpu::state::{Activity, TableRegister};
use x86::cr::{cr0, cr4, efer};
use x86::flags;
use x86::segment::{Segment, ar, sreg};

/// How a run starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// 64-bit mode, CPL 0.
    Long,
    /// 64-bit mode, CPL 3. Ends with INT 80H.
    User,
    /// Compatibility mode, CPL 0.
    Compatibility,
    /// Protected mode, 32 bits, no paging, CPL 0.
    Protected,
    /// Protected mode with PAE paging; [`layout::PAE_PDPT`] maps like the 64-bit tables.
    Pae,
    /// Real-address mode; code at [`real::CODE`].
    Real,
    /// Virtual-8086 mode, code at the same place.
    Virtual8086,
}

const FLAT: u32 = ar::P | ar::S | ar::RW | ar::ACCESSED | ar::G | ar::DB;
const DPL3: u32 = 3 << ar::DPL_SHIFT;
const REAL: u32 = ar::P | ar::S | ar::RW | ar::ACCESSED;
/// Busy 32- or 64-bit TSS.
const TSS: u32 = ar::P | 11;

impl Mode {
    pub fn bitness(self) -> u32 {
        match self {
            Mode::Long | Mode::User => 64,
            Mode::Compatibility | Mode::Protected | Mode::Pae => 32,
            Mode::Real | Mode::Virtual8086 => 16,
        }
    }

    /// True in IA-32e mode: runs may follow each other without a change of control registers.
    fn is_long(self) -> bool {
        matches!(self, Mode::Long | Mode::User | Mode::Compatibility)
    }

    fn is_real_like(self) -> bool {
        matches!(self, Mode::Real | Mode::Virtual8086)
    }

    /// Linear address of the code.
    pub fn code(self) -> u64 {
        if self.is_real_like() { real::CODE } else { layout::CODE }
    }

    /// RIP of the code.
    pub fn entry(self) -> u64 {
        if self.is_real_like() { 0 } else { layout::CODE }
    }

    fn stack(self) -> u64 {
        if self.is_real_like() { real::STACK_TOP } else { layout::STACK_TOP }
    }

    /// Puts the processor at the start of the code. Control registers, and with them the TLB, are left alone when both
    /// `last` and this mode are IA-32e modes.
    pub(super) fn enter(self, last: Option<Mode>, cpu: &mut Cpu) {
        cpu.activity = Activity::Running;
        cpu.regs[..16].fill(0);
        cpu.regs[usize::from(cpu::state::slot::RSP)] = self.stack();
        let vm = if self == Mode::Virtual8086 { flags::VM | flags::IOPL } else { 0 };
        cpu.set_rflags(flags::FIXED | vm);
        if !(self.is_long() && last.is_some_and(Mode::is_long)) {
            self.control_registers(cpu);
        }
        self.segments(cpu);
        cpu.set_cpl(if matches!(self, Mode::User | Mode::Virtual8086) { 3 } else { 0 });
        cpu.update_mode();
        if !(self.is_long() && last.is_some_and(Mode::is_long)) {
            cpu.flush_tlb(true);
        }
        cpu.drop_shortcuts();
        cpu.move_to(self.entry());
    }

    fn control_registers(self, cpu: &mut Cpu) {
        let base = cr0::ET | cr0::NE;
        let (idt, idt_limit) = match self {
            _ if self.is_long() => (layout::IDT, 0xFFF),
            Mode::Real => (real::IVT, 0x3FF),
            _ => (layout::IDT32, 0x7FF),
        };
        cpu.idtr = TableRegister { base: idt, limit: idt_limit };
        cpu.gdtr = TableRegister { base: layout::GDT, limit: selector::GDT_BYTES - 1 };
        (cpu.cr4, cpu.msr.efer, cpu.cr3) = (0, 0, 0);
        cpu.cr0 = match self {
            Mode::Real => base,
            Mode::Protected | Mode::Virtual8086 => base | cr0::PE,
            _ => base | cr0::PE | cr0::PG | cr0::WP,
        };
        if self.is_long() {
            cpu.cr3 = layout::PML4;
            cpu.cr4 = cr4::PAE | cr4::OSFXSR;
            cpu.msr.efer = efer::LME | efer::LMA | efer::NXE;
        }
        if self == Mode::Pae {
            cpu.cr3 = layout::PAE_PDPT;
            cpu.cr4 = cr4::PAE;
            // A machine whose tables cannot be read stops at its first fetch, which the outcome tells.
            let _ = cpu.load_pdptes();
        }
        let (tss, selector) =
            if self.is_long() { (layout::TSS, selector::TSS) } else { (layout::TSS32, selector::TSS32) };
        cpu.tr = Segment { selector, ar: TSS, limit: TSS64_LIMIT as u32, base: tss };
    }

    fn segments(self, cpu: &mut Cpu) {
        let flat = |selector, ar| Segment { selector, ar, limit: u32::MAX, base: 0 };
        let (code, data) = match self {
            Mode::Long => (flat(selector::CODE64, FLAT & !ar::DB | ar::CODE | ar::L), flat(selector::DATA, FLAT)),
            Mode::User => (
                flat(selector::USER_CODE64, FLAT & !ar::DB | ar::CODE | ar::L | DPL3),
                flat(selector::USER_DATA, FLAT | DPL3),
            ),
            Mode::Compatibility | Mode::Protected | Mode::Pae => {
                (flat(selector::CODE32, FLAT | ar::CODE), flat(selector::DATA, FLAT))
            }
            Mode::Real | Mode::Virtual8086 => {
                let dpl = if self == Mode::Virtual8086 { DPL3 } else { 0 };
                let base = u64::from(real::CODE_SEGMENT) << 4;
                (
                    Segment { selector: real::CODE_SEGMENT, ar: REAL | dpl, limit: 0xFFFF, base },
                    Segment { selector: 0, ar: REAL | dpl, limit: 0xFFFF, base: 0 },
                )
            }
        };
        for i in 0..6 {
            cpu.set_segment(i, if i == sreg::CS { code } else { data });
        }
    }
}
