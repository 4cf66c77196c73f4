//! Construction and reset (SDM Vol. 3A, table 9-1 "IA-32 and Intel 64 Processor States Following Power-up, Reset, or
//! INIT").

use crate::block::{BlockCache, JumpCache, ModeKey, ReturnStack};
use crate::clock::Clock;
use crate::exec::system::cpuid::CpuModel;
use crate::lazy::Lazy;
use crate::mmu::invalidate::TypeCache;
use crate::mmu::tlb::Tlb;
use crate::mode::Mode;
use crate::op::Slots;
use crate::state::{Activity, CoreMsrs, Cpu, Shortcuts, TableRegister, X87};
use mem::{FastTable, Memory};
use x86::cr::cr0;
use x86::flags;
use x86::platform::{Platform, ResetKind};
use x86::segment::{Segment, ar, sreg};

/// Present, accessed, writable data segment.
const DATA_AR: u32 = ar::P | ar::S | ar::RW | ar::ACCESSED;
/// LDT and busy 32-bit TSS, as reset leaves the hidden parts.
const LDT_AR: u32 = ar::P | 2;
const TSS_AR: u32 = ar::P | 11;

impl Cpu {
    /// A processor in the state that a cold reset leaves. `ips` is the instruction rate of virtual time.
    pub fn new(id: usize, model: CpuModel, mem: Box<Memory>, platform: Box<dyn Platform>, ips: u64) -> Box<Cpu> {
        let mut cpu = Box::new(Cpu {
            regs: [0; 256],
            lazy: Lazy::default(),
            budget: 0,
            rflags_system: flags::FIXED,
            fast: FastTable::new(),
            ip: 0,
            next_ip: 0,
            mode: Mode::Real,
            cpl: 0,
            activity: Activity::Running,
            interrupt_shadow: false,
            nmi_blocked: false,
            discard_trap: false,
            segments: [Segment::default(); 6],
            ldtr: Segment::default(),
            tr: Segment::default(),
            gdtr: TableRegister::default(),
            idtr: TableRegister::default(),
            cr0: 0,
            cr2: 0,
            cr3: 0,
            cr4: 0,
            dr: [0; 4],
            dr6: 0,
            dr7: 0,
            pdpte: [0; 4],
            msr: CoreMsrs::default(),
            xcr0: 1,
            x87: X87::default(),
            xmm: [0; 16],
            mxcsr: 0,
            tlb: Tlb::default(),
            id,
            model,
            unknowns: Default::default(),
            clock: Clock::new(ips),
            mem,
            platform,
            icount_limit: 0,
            unretired: 0,
            access_ip: 0,
            iterations: 0,
            stop_on_hazard: false,
            sequential: false,
            repeating: 0,
            breakpoint: None,
            breakpoint_armed: true,
            traps: Default::default(),
            last_exception: None,
            machine_check_shutdown: false,
            trace: None,
            fault: None,
            leave_block: false,
            code_modified: false,
            attention: true,
            event_waits: false,
            supervisor_fetch_non_global: true,
            supervisor_data_non_global: false,
            followed: None,
            resume: None,
            block_key: ModeKey(0),
            blocks: BlockCache::default(),
            jumps: JumpCache::default(),
            returns: ReturnStack::default(),
            shortcuts: Shortcuts::default(),
            scratch: Slots::default(),
            types: TypeCache::default(),
            told_not_activated: false,
        });
        cpu.reset(ResetKind::Cold);
        cpu
    }

    /// Puts the registers into their state after a reset. Memory and board are the machine's. Time goes on.
    pub fn reset(&mut self, kind: ResetKind) {
        let init = kind == ResetKind::Init;
        self.regs = [0; 256];
        // Family, model and stepping of CPUID.1:EAX.
        self.regs[2] = u64::from(self.cpuid(1, 0)[0]);
        self.lazy.set(0);
        self.rflags_system = flags::FIXED;
        // CD and NW are kept by INIT.
        let caching = if init { self.cr0 & (cr0::CD | cr0::NW) } else { cr0::CD | cr0::NW };
        self.cr0 = caching | cr0::ET;
        (self.cr2, self.cr3, self.cr4) = (0, 0, 0);
        self.dr = [0; 4];
        self.dr6 = 0xFFFF_0FF0;
        self.dr7 = 0x400;
        self.pdpte = [0; 4];
        self.cpl = 0;
        self.activity = Activity::Running;
        self.machine_check_shutdown = false;
        self.interrupt_shadow = false;
        self.nmi_blocked = false;
        self.gdtr = TableRegister { base: 0, limit: 0xFFFF };
        self.idtr = TableRegister { base: 0, limit: 0xFFFF };
        self.ldtr = Segment { ar: LDT_AR, limit: 0xFFFF, ..Segment::default() };
        self.tr = Segment { ar: TSS_AR, limit: 0xFFFF, ..Segment::default() };
        if init {
            self.msr.efer = 0;
        } else {
            self.msr = CoreMsrs::at_reset();
            self.told_not_activated = false;
            self.xcr0 = 1;
            self.x87 = X87 { fcw: 0x40, ftw: 0x5555, ..X87::default() };
            self.xmm = [0; 16];
            self.mxcsr = 0x1F80;
        }
        for i in 0..6 {
            self.segments[i] = Segment { selector: 0, ar: DATA_AR, limit: 0xFFFF, base: 0 };
        }
        self.segments[sreg::CS] =
            Segment { selector: 0xF000, ar: DATA_AR | ar::CODE, limit: 0xFFFF, base: 0xFFFF_0000 };
        self.next_ip = 0xFFF0;
        self.sequential = false;
        self.repeating = 0;
        self.followed = None;
        self.fault = None;
        self.update_mode();
        self.update_access_masks();
        self.flush_tlb(true);
        self.drop_shortcuts();
    }
}
