//! The state of a processor as a value. What the host derives from it (decoded blocks, the fast path, links) is not in it: a
//! restore keeps blocks, which are compared with their lines when they are fetched again, and drops every way to them.

use crate::Cpu;
use crate::exec::system::unknown::Unknowns;
use crate::mmu::tlb::{Side, Tlb};
use crate::state::{Activity, CoreMsrs, TableRegister, X87};
use mem::{BusAddr, LINE_BYTES};
use serde::{Deserialize, Serialize};
use x86::Exception;
use x86::segment::Segment;

/// Slots of [`Cpu::regs`] that are used: the rest of them are zero.
const SLOTS: usize = 32;

/// A line of code that was fetched and has left the cache since, while execution goes on in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FetchedLine {
    bus: BusAddr,
    /// Two halves: serde knows no longer arrays.
    bytes: [[u8; LINE_BYTES / 2]; 2],
}

/// Everything that the processor's future depends on, and what reports tell about its past.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CpuSnapshot {
    id: usize,
    regs: [u64; SLOTS],
    rflags: u64,
    ip: u64,
    next_ip: u64,
    access_ip: u64,
    icount: u64,
    skipped: u64,
    iterations: u64,
    cpl: u8,
    activity: Activity,
    interrupt_shadow: bool,
    nmi_blocked: bool,
    discard_trap: bool,
    sequential: bool,
    repeating: u8,
    segments: [Segment; 6],
    ldtr: Segment,
    tr: Segment,
    gdtr: TableRegister,
    idtr: TableRegister,
    /// CR0, CR2, CR3, CR4, DR6, DR7, XCR0.
    controls: [u64; 7],
    dr: [u64; 4],
    pdpte: [u64; 4],
    msr: CoreMsrs,
    x87: X87,
    xmm: [u128; 16],
    mxcsr: u32,
    tlb: Tlb,
    unknowns: Unknowns,
    last_exception: Option<(Exception, u64)>,
    machine_check_shutdown: bool,
    supervisor_fetch_non_global: bool,
    told_not_activated: bool,
    fetched: Vec<FetchedLine>,
}

impl CpuSnapshot {
    /// Instructions retired.
    pub fn icount(&self) -> u64 {
        self.icount
    }

    /// Nanoseconds that passed without instructions.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// RIP of the next instruction.
    pub fn rip(&self) -> u64 {
        self.next_ip
    }

    /// True if the processor can have been in this state. For snapshots that were read from a file.
    pub fn is_valid(&self) -> bool {
        self.cpl <= 3
            && self.regs[16] == 0
            && self.tlb.is_valid()
            && self.fetched.len() <= 2
            && usize::from(self.repeating) <= MAX_INSN
    }
}

/// Longest instruction (SDM Vol. 2A, section 2.3.11).
const MAX_INSN: usize = 15;

impl Cpu {
    /// The state now, between two calls of [`Cpu::run`]. Memory and board are the machine's.
    pub fn snapshot(&mut self) -> CpuSnapshot {
        self.settle();
        let fetched = self.fetched_lines();
        let (rflags, icount) = (self.rflags(), self.icount());
        // Every field is here: in the snapshot, or among those that it leaves out.
        let Self {
            regs,
            rflags_system: _,
            lazy: _,
            ip,
            next_ip,
            cpl,
            activity,
            interrupt_shadow,
            nmi_blocked,
            discard_trap,
            segments,
            ldtr,
            tr,
            gdtr,
            idtr,
            cr0,
            cr2,
            cr3,
            cr4,
            dr,
            dr6,
            dr7,
            pdpte,
            msr,
            xcr0,
            x87,
            xmm,
            mxcsr,
            tlb,
            id,
            unknowns,
            clock,
            access_ip,
            iterations,
            sequential,
            repeating,
            last_exception,
            machine_check_shutdown,
            supervisor_fetch_non_global,
            told_not_activated,
            // Of the configuration, or of the machine.
            model: _,
            mem: _,
            platform: _,
            // Follow from the rest.
            supervisor_data_non_global: _,
            mode: _,
            budget: _,
            icount_limit: _,
            unretired: _,
            block_key: _,
            attention: _,
            event_waits: _,
            // Of one instruction or chain.
            fault: _,
            leave_block: _,
            code_modified: _,
            resume: _,
            // The host's.
            fast: _,
            followed: _,
            blocks: _,
            jumps: _,
            returns: _,
            shortcuts: _,
            scratch: _,
            types: _,
            stop_on_hazard: _,
            breakpoint: _,
            breakpoint_armed: _,
            traps: _,
            trace: _,
        } = self;
        CpuSnapshot {
            id: *id,
            regs: std::array::from_fn(|slot| regs[slot]),
            rflags,
            ip: *ip,
            next_ip: *next_ip,
            access_ip: *access_ip,
            icount,
            skipped: clock.skipped,
            iterations: *iterations,
            cpl: *cpl,
            activity: *activity,
            interrupt_shadow: *interrupt_shadow,
            nmi_blocked: *nmi_blocked,
            discard_trap: *discard_trap,
            sequential: *sequential,
            repeating: *repeating,
            segments: *segments,
            ldtr: *ldtr,
            tr: *tr,
            gdtr: *gdtr,
            idtr: *idtr,
            controls: [*cr0, *cr2, *cr3, *cr4, *dr6, *dr7, *xcr0],
            dr: *dr,
            pdpte: *pdpte,
            msr: msr.clone(),
            x87: x87.clone(),
            xmm: *xmm,
            mxcsr: *mxcsr,
            tlb: tlb.clone(),
            unknowns: unknowns.clone(),
            last_exception: *last_exception,
            machine_check_shutdown: *machine_check_shutdown,
            supervisor_fetch_non_global: *supervisor_fetch_non_global,
            told_not_activated: *told_not_activated,
            fetched,
        }
    }

    /// Takes over a state. The memory has been restored already.
    pub fn restore(&mut self, snapshot: &CpuSnapshot) {
        // Frames that the restore took from their pages.
        self.settle();
        let CpuSnapshot {
            id: _,
            regs,
            rflags,
            ip,
            next_ip,
            access_ip,
            icount,
            skipped,
            iterations,
            cpl,
            activity,
            interrupt_shadow,
            nmi_blocked,
            discard_trap,
            sequential,
            repeating,
            segments,
            ldtr,
            tr,
            gdtr,
            idtr,
            controls,
            dr,
            pdpte,
            msr,
            x87,
            xmm,
            mxcsr,
            tlb,
            unknowns,
            last_exception,
            machine_check_shutdown,
            supervisor_fetch_non_global,
            told_not_activated,
            fetched,
        } = snapshot;
        self.regs[..SLOTS].copy_from_slice(regs);
        (self.ip, self.next_ip, self.access_ip) = (*ip, *next_ip, *access_ip);
        (self.icount_limit, self.budget, self.unretired, self.iterations) = (*icount, 0, 0, *iterations);
        self.clock.skipped = *skipped;
        (self.cpl, self.activity) = (*cpl, *activity);
        (self.interrupt_shadow, self.nmi_blocked, self.discard_trap) = (*interrupt_shadow, *nmi_blocked, *discard_trap);
        (self.sequential, self.repeating) = (*sequential, *repeating);
        (self.segments, self.ldtr, self.tr, self.gdtr, self.idtr) = (*segments, *ldtr, *tr, *gdtr, *idtr);
        [self.cr0, self.cr2, self.cr3, self.cr4, self.dr6, self.dr7, self.xcr0] = *controls;
        (self.dr, self.pdpte) = (*dr, *pdpte);
        self.msr.clone_from(msr);
        self.x87.clone_from(x87);
        (self.xmm, self.mxcsr) = (*xmm, *mxcsr);
        self.tlb.clone_from(tlb);
        self.unknowns.restore(unknowns);
        self.last_exception = *last_exception;
        self.machine_check_shutdown = *machine_check_shutdown;
        self.supervisor_fetch_non_global = *supervisor_fetch_non_global;
        self.told_not_activated = *told_not_activated;
        (self.fault, self.followed, self.resume) = (None, None, None);
        (self.leave_block, self.code_modified) = (false, false);
        (self.attention, self.breakpoint_armed) = (true, true);
        (self.traps.passed, self.traps.met) = (false, false);
        (self.traps.physical_passed, self.traps.physical_stop) = (false, false);
        self.set_rflags(*rflags);
        self.update_mode();
        self.update_access_masks();
        self.returns.clear();
        self.drop_shortcuts();
        self.put_fetched(fetched);
    }

    /// Remembers fetched lines that have left the cache.
    pub(crate) fn put_fetched(&mut self, fetched: &[FetchedLine]) {
        for FetchedLine { bus, bytes } in fetched {
            let Some(frame) = self.mem.park_code(*bus) else { continue };
            self.settle();
            self.blocks.put_line(frame, bus.line_in_page(), &std::array::from_fn(|at| bytes.as_flattened()[at]));
        }
    }

    /// The lines that the next instruction is executed from without a fetch although they have left the cache: [`Cpu::run`]
    /// goes by the bytes that were fetched.
    pub(crate) fn fetched_lines(&self) -> Vec<FetchedLine> {
        let Some(linear) = self.continued_at() else { return Vec::new() };
        let Some(t) = self.tlb.lookup(Side::Fetch, linear >> 12, self.pcid()) else { return Vec::new() };
        let Some(frame) = self.mem.frame_lookup(BusAddr(t.bus_page)) else { return Vec::new() };
        let line_after = (linear | 63).wrapping_add(1);
        // A repeated instruction may reach into the next line.
        let lines = [Some(linear), (self.repeating != 0 && line_after & 0xFFF != 0).then_some(line_after)];
        let evicted = lines.into_iter().flatten().filter(|at| frame.intact() >> (at >> 6 & 63) & 1 == 0);
        evicted
            .filter_map(|at| {
                let bus = BusAddr(frame.bus_page().0 | at & 0xFC0);
                let bytes = self.blocks.line_bytes(frame, bus.line_in_page())?;
                let half = |n: usize| std::array::from_fn(|at| bytes[n * (LINE_BYTES / 2) + at]);
                Some(FetchedLine { bus, bytes: [half(0), half(1)] })
            })
            .collect()
    }
}
