//! The architectural state of one logical processor.

use crate::block::{BlockCache, JumpCache, ModeKey, ReturnStack};
use crate::clock::Clock;
use crate::exec::system::cpuid::CpuModel;
use crate::exec::system::unknown::Unknowns;
use crate::lazy::Lazy;
use crate::mmu::invalidate::TypeCache;
use crate::mmu::tlb::Tlb;
use crate::mode::Mode;
use crate::op::{At, Link, Slots};
use crate::trace::Trace;
use crate::traps::Traps;
use mem::{FastTable, Memory};
use x86::Exception;
use x86::platform::Platform;
use x86::segment::Segment;
use x86::{cr, flags};

/// Slots of [`Cpu::regs`]. 0..16 are the GPRs in encoding order. The rest make address forms uniform: an effective
/// address is always `regs[base] + (regs[index] << scale) + regs[segment] + displacement`.
pub mod slot {
    pub const RAX: u8 = 0;
    pub const RCX: u8 = 1;
    pub const RDX: u8 = 2;
    pub const RBX: u8 = 3;
    pub const RSP: u8 = 4;
    pub const RBP: u8 = 5;
    pub const RSI: u8 = 6;
    pub const RDI: u8 = 7;
    /// Always zero.
    pub const ZERO: u8 = 16;
    /// RIP of the block being executed (its first instruction).
    pub const RIP: u8 = 17;
    /// A linear address computed by an address op for the op after it.
    pub const TMP: u8 = 18;
    /// Segment bases: SEG + sreg number. In 64-bit mode only FS and GS may be non-zero.
    pub const SEG: u8 = 24;
}

/// MSRs that live in the core and have no other home.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub struct CoreMsrs {
    pub efer: u64,
    pub star: u64,
    pub lstar: u64,
    pub cstar: u64,
    pub fmask: u64,
    pub kernel_gs_base: u64,
    pub tsc_aux: u64,
    pub sysenter_cs: u64,
    pub sysenter_esp: u64,
    pub sysenter_eip: u64,
    pub pat: u64,
    pub misc_enable: u64,
    pub tsc_adjust: u64,
    pub spec_ctrl: u64,
    pub bios_sign_id: u64,
    pub feature_control: u64,
    pub mcg_status: u64,
    pub mc0: crate::machine_check::Bank,
    pub xss: u64,
    /// MK_TME_CORE_ACTIVATE: the KeyID bits this core knows of (spec 3.6).
    pub k_core: u8,
    pub mtrr: Mtrrs,
}

/// Memory-type range registers (SDM Vol. 3A, section 12.11). Values as written.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub struct Mtrrs {
    pub def_type: u64,
    pub phys_base: [u64; 10],
    pub phys_mask: [u64; 10],
    /// FIX64K_00000, FIX16K_80000, FIX16K_A0000, FIX4K_C0000..F8000.
    pub fixed: [u64; 11],
}

/// x87 state in the terms of FXSAVE (SDM Vol. 1, section 8.1).
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct X87 {
    /// Control word.
    pub fcw: u16,
    /// Status word, TOP (bits 13:11) included.
    pub fsw: u16,
    /// Full tag word, two bits a *physical* register: 00 valid, 01 zero, 10 special, 11 empty.
    pub ftw: u16,
    /// Last opcode (11 bits), instruction pointer and data pointer.
    pub fop: u16,
    pub fip: u64,
    pub fdp: u64,
    pub fcs: u16,
    pub fds: u16,
    /// Physical registers R0..R7, 80 bits each in the low bits. MMX registers are their low 64 bits.
    pub regs: [u128; 8],
}

impl Default for X87 {
    /// The state after FNINIT, except that reset differs (SDM Vol. 3A, table 9-1: FCW 0040H, FTW 5555H).
    fn default() -> Self {
        X87 { fcw: 0x37F, fsw: 0, ftw: 0xFFFF, fop: 0, fip: 0, fdp: 0, fcs: 0, fds: 0, regs: [0; 8] }
    }
}

/// A descriptor-table register.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TableRegister {
    pub base: u64,
    pub limit: u16,
}

/// What the host does to be fast, besides the fast path of memory accesses. Nothing here changes a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortcuts {
    /// Blocks lead to each other without a fetch: links, jump cache, return stack.
    pub links: bool,
    /// String instructions move up to a page at a time.
    pub bulk_strings: bool,
}

impl Default for Shortcuts {
    fn default() -> Self {
        Shortcuts { links: true, bulk_strings: true }
    }
}

/// What the processor is doing between instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Activity {
    Running,
    /// HLT: waits for an interrupt, NMI or reset.
    Halted,
    /// Shutdown after a triple fault.
    Shutdown,
}

/// One logical processor with the memory and the board it is attached to.
///
/// `repr(C)`: a later JIT tier addresses these fields by offset.
#[repr(C)]
pub struct Cpu {
    /// GPRs and address slots, see [`slot`]. 256 entries, so that a `u8` index needs no bounds check.
    pub regs: [u64; 256],
    /// CF, PF, AF, ZF, SF, OF.
    pub lazy: Lazy,
    /// Instructions left until the run loop must look up (timer event, stop condition). Debited at block entry.
    pub budget: i64,
    /// The other RFLAGS bits (bit 1 included). Never holds arithmetic flags.
    pub rflags_system: u64,
    /// Linear-address fast path (design D3).
    pub fast: FastTable,

    /// RIP of the instruction an [`crate::ExecFn`] executes, and of the one after it.
    pub ip: u64,
    pub next_ip: u64,

    pub mode: Mode,
    pub cpl: u8,
    pub activity: Activity,
    /// STI and MOV SS/POP SS: no interrupt before the next instruction has completed.
    pub interrupt_shadow: bool,
    /// An NMI was delivered and no IRET has run since: further ones wait (SDM Vol. 3A, section 6.7.1).
    pub nmi_blocked: bool,
    /// An event was delivered by the instruction under way: its single-step trap is dropped.
    pub discard_trap: bool,
    /// Segment registers by [`x86::segment::sreg`] number. Set through [`Cpu::set_segment`].
    pub segments: [Segment; 6],
    pub ldtr: Segment,
    pub tr: Segment,
    pub gdtr: TableRegister,
    pub idtr: TableRegister,
    pub cr0: u64,
    pub cr2: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub dr: [u64; 4],
    pub dr6: u64,
    pub dr7: u64,
    /// PAE page-directory-pointer entries loaded by MOV CR3.
    pub pdpte: [u64; 4],
    pub msr: CoreMsrs,
    pub xcr0: u64,
    pub x87: X87,
    pub xmm: [u128; 16],
    pub mxcsr: u32,
    pub tlb: Tlb,
    /// Logical processor number (APIC ID at reset).
    pub id: usize,
    /// What CPUID tells, and the knobs of the instructions that depend on it.
    pub model: CpuModel,
    /// What the guest asked for and this processor does not have.
    pub unknowns: Unknowns,
    pub clock: Clock,
    pub mem: Box<Memory>,
    pub platform: Box<dyn Platform>,

    /// Instruction count at which [`Cpu::budget`] is zero.
    pub icount_limit: u64,
    /// Instructions debited by a block but not retired while one of its slow ops is under way.
    pub unretired: i64,
    /// RIP of the instruction whose access is under way on the slow path, or is fetched, or was interrupted.
    pub access_ip: u64,
    /// Iterations that the string instruction under way has completed and that are not counted yet.
    pub iterations: u64,
    /// [`Cpu::run`] stops after an instruction that made a hazard, while somebody has yet to take it from the memory.
    pub stop_on_hazard: bool,
    /// The next instruction follows the last one in memory, so a fetch in the same line touches nothing.
    pub sequential: bool,
    /// The next instruction is a repeated string instruction of this length that goes on (0: it is not): fetched already.
    pub repeating: u8,
    /// RIP at which [`Cpu::run`] stops, checked between chains.
    pub breakpoint: Option<u64>,
    /// False right after the stop, so that running on does not stop again.
    pub breakpoint_armed: bool,
    /// Where [`Cpu::run`] stops before an instruction, and what it has to say about injected faults.
    pub traps: Traps,
    /// The last exception that was delivered and the RIP it happened at, for reports.
    pub last_exception: Option<(Exception, u64)>,
    /// The shutdown is one of a machine check that could not be delivered.
    pub machine_check_shutdown: bool,
    /// Deliveries and TLB flushes, recorded while this is some.
    pub trace: Option<Box<Trace>>,

    /// The fault that ended a chain.
    pub fault: Option<Exception>,
    /// Set when the current chain must end after this instruction: a device was accessed, code was modified or has left the
    /// cache.
    pub leave_block: bool,
    /// Set when this instruction stored into decoded code: what was fetched ahead is void.
    pub code_modified: bool,
    /// The run loop must look at the board again before it goes on: it was accessed, or time passed without instructions.
    pub attention: bool,
    /// An interrupt or NMI waits that could not be taken when the run loop last looked.
    pub event_waits: bool,
    /// Supervisor code may have been fetched through a translation that is not global.
    pub supervisor_fetch_non_global: bool,
    /// The fast path may have a supervisor page through a translation that is not global.
    pub supervisor_data_non_global: bool,
    /// The link the next block is to be entered through.
    pub followed: Option<&'static Link>,
    /// Where a build with debug assertions goes on, see [`crate::op::chain`].
    pub resume: Option<At>,
    pub block_key: ModeKey,
    pub blocks: BlockCache,
    pub jumps: JumpCache,
    pub returns: ReturnStack,
    pub shortcuts: Shortcuts,
    pub scratch: Slots,
    pub types: TypeCache,
    /// The event `core_not_activated` was raised (MC-14: once a core).
    pub told_not_activated: bool,
}

impl Cpu {
    /// RFLAGS as PUSHF and interrupts see it.
    pub fn rflags(&self) -> u64 {
        self.rflags_system | self.lazy.get()
    }

    /// Loads all of RFLAGS; reserved bits take their fixed values. The caller has applied privilege masks.
    pub fn set_rflags(&mut self, value: u64) {
        const WRITABLE: u64 = flags::ARITH
            | flags::TF
            | flags::IF
            | flags::DF
            | flags::IOPL
            | flags::NT
            | flags::RF
            | flags::VM
            | flags::AC
            | flags::VIF
            | flags::VIP
            | flags::ID;
        self.lazy.set(value);
        let old = self.rflags_system;
        self.rflags_system = value & WRITABLE & !flags::ARITH | flags::FIXED;
        if (old ^ self.rflags_system) & flags::AC != 0 {
            self.update_access_masks();
        }
        if (old ^ self.rflags_system) & flags::VM != 0 {
            self.update_mode();
        }
    }

    pub fn iopl(&self) -> u8 {
        (self.rflags_system >> flags::IOPL_SHIFT & 3) as u8
    }

    /// Loads a segment register's visible and hidden parts, and what depends on them (base slots, mode, CPL is the
    /// caller's).
    pub fn set_segment(&mut self, sreg: usize, segment: Segment) {
        self.segments[sreg] = segment;
        if sreg == x86::segment::sreg::CS {
            self.update_mode();
        }
        self.update_segment_slots();
    }

    /// Sets only the base (WRFSBASE, WRMSR FS_BASE, SWAPGS).
    pub fn set_segment_base(&mut self, sreg: usize, base: u64) {
        self.segments[sreg].base = base;
        self.update_segment_slots();
    }

    /// In 64-bit mode ES, CS, SS and DS have base 0 whatever their descriptors say (SDM Vol. 3A, section 3.4.4).
    fn update_segment_slots(&mut self) {
        use x86::segment::sreg::{FS, GS};
        let long = self.mode.is_long64();
        for i in 0..6 {
            let flat = long && i != FS && i != GS;
            self.regs[slot::SEG as usize + i] = if flat { 0 } else { self.segments[i].base };
        }
    }

    /// Recomputes [`Cpu::mode`] after a change of CR0, EFER, RFLAGS.VM or CS.
    pub fn update_mode(&mut self) {
        use x86::segment::{ar, sreg::CS};
        let cs = &self.segments[CS];
        self.mode = if self.cr0 & cr::cr0::PE == 0 {
            Mode::Real
        } else if self.rflags_system & flags::VM != 0 {
            Mode::Virtual8086
        } else if self.msr.efer & cr::efer::LMA != 0 && cs.is(ar::L) {
            Mode::Long64
        } else if cs.is(ar::DB) {
            Mode::Protected32
        } else {
            Mode::Protected16
        };
        self.update_segment_slots();
        self.update_block_key();
    }

    /// Changes the current privilege level.
    pub fn set_cpl(&mut self, cpl: u8) {
        self.cpl = cpl;
        self.update_access_masks();
    }

    /// Continues at `rip` after this instruction (an [`crate::ExecFn`] that transfers control).
    pub fn set_rip(&mut self, rip: u64) {
        self.next_ip = rip;
    }

    /// Continues at `rip`, between runs: the host moves the processor, so that what it would have fetched next no longer
    /// matters.
    pub fn move_to(&mut self, rip: u64) {
        self.set_rip(rip);
        self.sequential = false;
        self.repeating = 0;
        self.followed = None;
    }

    /// TSC minus virtual time: IA32_TSC_ADJUST.
    pub fn tsc_offset(&self) -> u64 {
        self.msr.tsc_adjust
    }

    /// Time-stamp counter now (1 GHz, design D6).
    pub fn tsc(&self) -> u64 {
        self.now().0.wrapping_add(self.tsc_offset())
    }
}
