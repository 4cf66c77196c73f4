//! The run loop: events, interrupts, faults, and the next chain of blocks.
//!
//! A *chain* is what one entry into [`crate::op`]'s handlers executes. It ends when the budget is used up, an instruction
//! faulted or asked for the loop, or the next block is not linked yet.
//!
//! Instruction fetch touches the cache when it enters a line: at every control transfer and when execution runs on into
//! another line, but not when a chain ends and goes on in the same line (design D2). So results do not depend on how code
//! was cut into blocks.

use crate::block::{Block, ModeKey};
use crate::exec::int::fault_exit;
use crate::machine_check::Use;
use crate::mmu::tlb::{Side, Translation};
use crate::op::{At, BlockHeader};
use crate::operand::canonical;
use crate::state::{Activity, Cpu, slot};
use crate::trace::What;
use crate::translate::{NeedsMore, Source, Translated, translate};
use mem::{BusAddr, FramePtr, Operation};
use x86::platform::VirtualTime;
use x86::{Exception, flags};

/// Why [`Cpu::run`] returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// The instruction count asked for was reached.
    Icount,
    /// The board has a signal for the machine.
    Signal,
    /// Halted, and no timer is armed that could end it.
    Halted,
    /// Halted with interrupts disabled: nothing but NMI or reset could end it.
    HaltedDisabled,
    /// A fault while delivering a double fault.
    TripleFault,
    /// The RIP asked for was reached.
    Breakpoint,
    /// [`Cpu::stop_on_hazard`], and the memory has hazards to take.
    Hazard,
    /// The next instruction is at an address of [`Cpu::set_traps`].
    Trap,
    /// The next instruction, which has been fetched, is at a physical address of [`Cpu::set_physical_traps`].
    PhysicalTrap,
    /// An injected fault was met, by the instruction before or by the fetch of the next one.
    Fault,
}

/// Instructions that the budget word can count.
pub const MAX_BUDGET: u64 = 1 << 62;

/// DR6.BS: single step.
const DR6_BS: u64 = 1 << 14;

impl Cpu {
    /// Notes, for [`Cpu::now`] and for reports about accesses, that the op's instruction is under way.
    #[inline(always)]
    pub fn at_op(&mut self, op: At) {
        self.access_ip = op.ip(self);
        self.unretired = i64::from(op.rest) + 1;
    }

    /// Instructions retired since reset, the one under way not counted.
    pub fn icount(&self) -> u64 {
        (self.icount_limit as i64).wrapping_sub(self.budget).wrapping_sub(self.unretired) as u64
    }

    /// Virtual time of the instruction being executed.
    pub fn now(&self) -> VirtualTime {
        self.clock.at(self.icount())
    }

    /// RIP of the next instruction. Meaningful between calls of [`Cpu::run`].
    pub fn rip(&self) -> u64 {
        self.next_ip
    }

    /// Recomputes what blocks and jump-cache entries are keyed by, after a change of mode or CPL.
    pub fn update_block_key(&mut self) {
        let user = self.cpl == 3;
        self.block_key = ModeKey::new(self.mode, user);
        // Canonical addresses have bits 63:48 all equal, so these salts set modes apart.
        self.jumps.salt = u64::from(self.block_key.0 & 7) << 49 | u64::from(user) << 52;
        self.select_generation();
    }

    /// Runs until the instruction count `until`, or until something stops it earlier.
    pub fn run(&mut self, until: u64) -> Stop {
        loop {
            self.unretired = 0;
            let icount = self.icount();
            let mut now = self.clock.at(icount);
            if self.platform.next_event().is_some_and(|t| t <= now) {
                self.platform.advance(now);
                if self.platform.dma_pending(now) {
                    self.run_dma(now);
                }
            }
            if self.platform.signal_pending() {
                return Stop::Signal;
            }
            if self.hazard_stops() {
                return Stop::Hazard;
            }
            if std::mem::take(&mut self.traps.met) {
                return Stop::Fault;
            }
            if icount >= until {
                return Stop::Icount;
            }
            if self.breakpoint == Some(self.next_ip) && self.breakpoint_armed {
                self.breakpoint_armed = false;
                return Stop::Breakpoint;
            }
            self.breakpoint_armed = true;
            if self.activity != Activity::Running || self.interrupt_waits() {
                match self.wait_or_interrupt(&mut now) {
                    Ok(true) => {}
                    Ok(false) => continue,
                    Err(stop) => return stop,
                }
            }
            let icount = self.icount();
            let mut limit = until.min(icount.saturating_add(MAX_BUDGET));
            if let Some(t) = self.platform.next_event() {
                limit = limit.min(icount + self.clock.insns_until(icount, t).max(1));
            }
            self.icount_limit = limit;
            self.budget = (limit - icount) as i64;
            self.attention = false;
            self.event_waits = self.platform.interrupt_pending(self.id) || self.platform.nmi_pending(self.id);
            if let Err(stop) = self.execute() {
                return stop;
            }
        }
    }

    /// Executes chains and delivers their faults until the board or the budget needs a look.
    fn execute(&mut self) -> Result<(), Stop> {
        loop {
            if self.has_traps() && self.trapped() {
                return Err(Stop::Trap);
            }
            if !self.step()
                && let Some(e) = self.fault.take()
            {
                self.fault_to_handler(e)?;
            }
            if std::mem::take(&mut self.traps.physical_stop) {
                return Err(Stop::PhysicalTrap);
            }
            let interruptible = self.event_waits && (self.rflags_system & flags::IF != 0 || !self.nmi_blocked);
            if self.attention || self.budget <= 0 || interruptible || self.breakpoint.is_some() {
                return Ok(());
            }
        }
    }

    fn interrupt_waits(&self) -> bool {
        self.nmi_pending() || (self.platform.interrupt_pending(self.id) && self.rflags_system & flags::IF != 0)
    }

    fn nmi_pending(&self) -> bool {
        !self.nmi_blocked && self.platform.nmi_pending(self.id)
    }

    /// Takes an interrupt if one may be taken, or lets time pass while halted. `Ok(true)`: execute; `Ok(false)`: look again.
    fn wait_or_interrupt(&mut self, now: &mut VirtualTime) -> Result<bool, Stop> {
        if self.activity == Activity::Shutdown {
            return Err(Stop::TripleFault);
        }
        if self.interrupt_waits() {
            if self.interrupt_shadow && self.activity == Activity::Running {
                // One instruction first (STI, MOV SS).
                return Ok(true);
            }
            self.activity = Activity::Running;
            self.interrupt_shadow = false;
            if self.nmi_pending() && self.platform.take_nmi(self.id) {
                self.ip = self.next_ip;
                self.access_ip = self.ip;
                self.followed = None;
                return match self.fault_to_handler(Exception::Nmi) {
                    Ok(()) => Ok(false),
                    Err(stop) => Err(stop),
                };
            }
            if let Some(vector) = self.platform.acknowledge_interrupt(*now, self.id) {
                self.ip = self.next_ip;
                self.access_ip = self.ip;
                self.sequential = false;
                self.repeating = 0;
                self.followed = None;
                let rip = self.next_ip;
                return match self.deliver_interrupt(vector) {
                    Ok(()) => {
                        self.note(rip, What::Interrupt { vector, handler: self.next_ip });
                        Ok(false)
                    }
                    Err(_) => Err(Stop::TripleFault),
                };
            }
            return Ok(true);
        }
        if self.activity == Activity::Running {
            return Ok(true);
        }
        if self.rflags_system & flags::IF == 0 {
            return Err(Stop::HaltedDisabled);
        }
        let Some(t) = self.platform.next_event() else { return Err(Stop::Halted) };
        self.clock.skipped += t.0.saturating_sub(now.0);
        *now = t;
        Ok(false)
    }

    /// Delivers a fault; a failed delivery escalates in `deliver_exception`.
    fn fault_to_handler(&mut self, e: Exception) -> Result<(), Stop> {
        self.sequential = false;
        self.repeating = 0;
        self.interrupt_shadow = false;
        self.last_exception = Some((e, self.ip));
        let rip = self.ip;
        self.access_ip = rip;
        self.deliver_exception(e).map_err(|_| Stop::TripleFault)?;
        self.note(rip, What::Exception { exception: e, handler: self.next_ip });
        Ok(())
    }

    /// Executes one chain. True if it ended without a fault.
    fn step(&mut self) -> bool {
        let single = self.rflags_system & flags::TF != 0;
        // Of what happened to memory between chains: DMA, resets, what is done to a machine from outside.
        self.settle();
        self.discard_trap = false;
        // RF lasts for one instruction; a fault's image sets it again itself (SDM Vol. 3B, section 18.3.1.1).
        self.rflags_system &= !flags::RF;
        let shadow = std::mem::take(&mut self.interrupt_shadow);
        let rip = self.next_ip;
        let one = single || shadow && self.interrupt_waits() || self.breakpoint_near(rip) || self.at_trap();
        self.leave_block = false;
        self.code_modified = false;
        let link = self.followed.take();
        let times_cleared = self.blocks.times_cleared;
        self.access_ip = rip;
        let header = match self.find(rip, if one { 1 } else { self.budget as u64 }) {
            Ok(h) => h,
            Err(e) => {
                self.ip = rip;
                self.fault = Some(e);
                return false;
            }
        };
        if self.traps.met || self.has_physical_traps() && self.trapped_physically() {
            // The fetch met it: the instruction is yet to come, and what was fetched stays fetched.
            self.interrupt_shadow = shadow;
            return true;
        }
        if self.shortcuts.links
            && let Some(link) = link
            && header.cached
            && times_cleared == self.blocks.times_cleared
        {
            link.lead_to(header);
        }
        if one || self.breakpoint.is_some() || self.hazard_stops() {
            // One block at a time: without a budget left, no other is entered, linked or not, even with what a branch out of the
            // middle of the block gives back.
            let left = i64::from(header.insns) - i64::from(u8::MAX);
            self.icount_limit = self.icount_limit.wrapping_sub((self.budget - left) as u64);
            self.budget = left;
        }
        self.leave_block = false;
        self.sequential = false;
        self.repeating = 0;
        self.regs[slot::RIP as usize] = rip;
        self.budget -= i64::from(header.insns);
        let first = header.first();
        self.enter_chain(first);
        if self.code_modified {
            self.sequential = false;
            self.repeating = 0;
        }
        if self.mode.bitness() < 64 {
            self.next_ip &= 0xFFFF_FFFF;
        }
        if self.fault.is_some() {
            self.followed = None;
            return false;
        }
        // INT n enters its handler without the trap; MOV SS and POP SS delay it by an instruction.
        if single && !self.discard_trap && !self.interrupt_shadow {
            self.followed = None;
            self.ip = self.next_ip;
            self.fault = Some(Exception::Debug(DR6_BS));
            return false;
        }
        true
    }

    /// True if a block that starts at `rip` could run over the breakpoint.
    fn breakpoint_near(&self, rip: u64) -> bool {
        const BLOCK_BYTES: u64 = 15 * crate::block::MAX_INSNS as u64;
        self.breakpoint.is_some_and(|b| (1..BLOCK_BYTES).contains(&b.wrapping_sub(rip)))
    }

    fn enter_chain(&mut self, first: At) {
        (first.f)(self, first);
        if cfg!(debug_assertions) {
            while let Some(op) = self.resume.take() {
                (op.f)(self, op);
            }
        }
    }

    /// The block at `rip`, of at most `budget` instructions, with its lines fetched.
    fn find(&mut self, rip: u64, budget: u64) -> Result<&'static BlockHeader, Exception> {
        let linear = self.code_address(rip)?;
        let same_line = self.goes_on_at(linear);
        if let Some(header) = self.known(rip, linear)
            && (header.enterable() || same_line && header.is_live_in_one_line())
            && u64::from(header.insns) <= budget
        {
            return Ok(header);
        }
        if same_line && let Some(header) = self.in_fetched_line(linear, budget)? {
            return Ok(header);
        }
        let (t, frame) = self.fetch_line(linear)?;
        let Some(frame) = frame else { return self.run_once(linear, &t, budget) };
        if let Some(header) = self.blocks.lookup(frame, linear & 0xFFF, self.block_key) {
            if !header.enterable() && header.straddles {
                let line_after = (linear | 63) + 1;
                if line_after & 0xFFF != 0 {
                    self.fetch_line(line_after)?;
                }
            }
            if !header.enterable() {
                self.readmit_code(frame, header.lines() & frame.fetchable());
            }
            // Fetching the second line may have evicted or killed things again.
            if header.enterable() && u64::from(header.insns) <= budget {
                self.remember(rip, linear, header);
                return Ok(header);
            }
        }
        self.build(rip, linear, t.bus_page | linear & 0xFFF, frame, budget)
    }

    /// Execution goes on in a line that was fetched but has left the cache since: what was fetched is executed, and only
    /// what lies beyond it is touched. `None` if the line is resident, so that touching it changes nothing.
    fn in_fetched_line(&mut self, linear: u64, budget: u64) -> Result<Option<&'static BlockHeader>, Exception> {
        let Some(&t) = self.tlb.lookup(Side::Fetch, linear >> 12, self.pcid()) else { return Ok(None) };
        let Some(frame) = self.mem.frame_lookup(BusAddr(t.bus_page)) else { return Ok(None) };
        let line_after = (linear | 63).wrapping_add(1);
        let repeats_into_next = linear + u64::from(self.repeating) > line_after && line_after & 0xFFF != 0;
        let evicted = |at: u64| frame.intact() >> (at >> 6 & 63) & 1 == 0;
        if !(evicted(linear) || repeats_into_next && evicted(line_after)) {
            return Ok(None);
        }
        let mut code = [0; 128];
        let Some(first) = self.fetched_bytes(frame, linear) else { return Ok(None) };
        code[..64].copy_from_slice(&first);
        let mut end = 64;
        if repeats_into_next && let Some(second) = self.fetched_bytes(frame, line_after) {
            code[64..].copy_from_slice(&second);
            end = 128;
        }
        let start = (linear & 63) as usize;
        let bus = t.bus_page | linear & 0xFFF;
        if let Ok(translated) = self.translate_code(&code[start..end], linear, bus, budget, false) {
            return Ok(Some(self.scratch_block(frame, translated)));
        }
        let (t, second) = self.fetch_line(line_after)?;
        self.read_code(&t, second, (line_after & 0xFFF) as usize, &mut code[64..79])?;
        self.once(frame, &code[start..79], linear, budget).map(Some)
    }

    /// The bytes of a fetched line of code, from the cache or as they were when they were decoded.
    fn fetched_bytes(&self, frame: FramePtr, linear: u64) -> Option<[u8; 64]> {
        let line = (linear >> 6 & 63) as u32;
        if frame.intact() >> line & 1 != 0 {
            return Some(frame.line_bytes(line));
        }
        self.blocks.line_bytes(frame, line).copied()
    }

    /// What the jump cache knows of `rip`, when that is still reachable under its translation.
    fn known(&self, rip: u64, linear: u64) -> Option<&'static BlockHeader> {
        let header = self.jumps.entry(rip)?;
        let ok = rip == linear && header.reachable(rip ^ self.jumps.salt, self.blocks.link_generation);
        ok.then_some(header)
    }

    /// Notes that the block is what a fetch at `rip` finds. With a segment base, RIP alone does not say where that is.
    fn remember(&mut self, rip: u64, linear: u64, header: &'static BlockHeader) {
        if rip == linear && self.shortcuts.links {
            header.key.set(rip ^ self.jumps.salt);
            header.generation.set(self.blocks.link_generation);
            self.jumps.insert(rip, header);
        }
    }

    /// The linear address of the next instruction, if it goes on in a line that was fetched for the last one.
    pub(crate) fn continued_at(&self) -> Option<u64> {
        let linear = self.code_address(self.next_ip).ok()?;
        self.goes_on_at(linear).then_some(linear)
    }

    fn goes_on_at(&self, linear: u64) -> bool {
        self.repeating != 0 || self.sequential && linear.wrapping_sub(1) >> 6 == linear >> 6
    }

    /// Linear address of the instruction at `rip`, with the checks of a transfer that comes from an interrupt or a return.
    fn code_address(&self, rip: u64) -> Result<u64, Exception> {
        use x86::segment::sreg::CS;
        if self.mode.is_long64() {
            return if canonical(rip) { Ok(rip) } else { Err(Exception::GP0) };
        }
        if rip > u64::from(self.segments[CS].limit) {
            return Err(Exception::GP0);
        }
        Ok(self.segments[CS].base.wrapping_add(rip) & 0xFFFF_FFFF)
    }

    fn source<'a>(&self, bytes: &'a [u8], linear: u64, budget: u64) -> Source<'a> {
        Source {
            bytes,
            page_offset: linear & 0xFFF,
            mode: self.mode,
            max_insns: budget.min(usize::MAX as u64) as usize,
            cached: false,
            cold_base: self.blocks.cold.len(),
        }
    }

    /// A block of the code at `linear`. It ends before a trap, unless that is inside its first instruction.
    fn translate_code(
        &self,
        bytes: &[u8],
        linear: u64,
        bus: u64,
        budget: u64,
        cached: bool,
    ) -> Result<Translated, NeedsMore> {
        let source = |bytes| Source { cached, ..self.source(bytes, linear, budget) };
        if self.has_traps() {
            let end = self.up_to_trap(linear, bus, bytes.len());
            if end < bytes.len()
                && let Ok(translated) = translate(&source(&bytes[..end]))
            {
                return Ok(translated);
            }
        }
        translate(&source(bytes))
    }

    /// Translates and enters into the block cache what is at `linear`, whose line is resident in `frame`.
    fn build(
        &mut self,
        rip: u64,
        linear: u64,
        bus: u64,
        frame: FramePtr,
        budget: u64,
    ) -> Result<&'static BlockHeader, Exception> {
        if self.blocks.is_full() {
            self.blocks.clear();
            self.jumps.clear();
            self.returns.clear();
            self.drop_code_shortcuts();
        }
        let offset = (linear & 0xFFF) as usize;
        if offset > 4096 - 15 && !self.blocks.crossings.is_empty() && !self.has_traps() {
            let mut first = [0; 14];
            let first = &mut first[..4096 - offset];
            frame.read(offset, first);
            if self.blocks.crossings.begins_with(linear, self.block_key, first) {
                return self.page_crossing(linear, frame, budget);
            }
        }
        let mut bytes = [0; 256];
        let mut n = fetchable_run(frame, offset, &mut bytes);
        let translated = match self.translate_code(&bytes[..n], linear, bus, budget, true) {
            Ok(t) => t,
            Err(NeedsMore::Bytes) => {
                let line_after = (linear | 63) + 1;
                if line_after & 0xFFF == 0 {
                    return self.page_crossing(linear, frame, budget);
                }
                let (_, second) = self.fetch_line(line_after)?;
                n = straddling_run(frame, offset, &mut bytes);
                match (second, self.translate_code(&bytes[..n], linear, bus, budget, true)) {
                    (Some(_), Ok(t)) => t,
                    // The second line pushed the first out of the cache: execute from what was fetched.
                    _ => return self.run_straddling(linear, bus, frame, budget),
                }
            }
        };
        // No way may lead past the stop.
        if self.has_physical_traps() && self.is_physical_trap_at(bus) {
            return Ok(self.scratch_block(frame, translated));
        }
        // It goes on in a line that will be there when this part has been executed: the whole is decoded then.
        let end = offset + n;
        if translated.cut && n < bytes.len() && end < 4096 && frame.intact() >> (end / 64) & 1 == 0 {
            return Ok(self.scratch_block(frame, translated));
        }
        // Cut short by the budget: not worth keeping.
        if u64::from(translated.insns) == budget && (translated.insns as usize) < crate::block::MAX_INSNS {
            return Ok(self.scratch_block(frame, translated));
        }
        let block = Block {
            offset: linear & 0xFFF,
            key: self.block_key,
            entry_lines: translated.entry_lines,
            all_lines: translated.all_lines,
            insns: translated.insns,
            cached: true,
        };
        self.blocks.cold.extend(translated.cold);
        let header = self.blocks.insert(frame, &block, &translated.items);
        self.admit_code(frame, translated.all_lines);
        self.remember(rip, linear, header);
        Ok(header)
    }

    /// A block for one execution.
    fn scratch_block(&mut self, frame: FramePtr, translated: Translated) -> &'static BlockHeader {
        let block = self.uncached(translated.insns);
        // Room for more than one, so that a scratch block is never overwritten by its successor's making.
        if self.scratch.len() > 4096 {
            self.scratch.clear();
            self.returns.clear();
        }
        if frame != FramePtr::empty() {
            self.note_code(frame, translated.all_lines);
        }
        self.blocks.cold.extend(translated.cold);
        self.scratch.push_block(&block, &translated.items)
    }

    /// What is said of a block that the cache has not got.
    fn uncached(&self, insns: u32) -> Block {
        Block { offset: 0, key: self.block_key, entry_lines: 0, all_lines: 0, insns, cached: false }
    }

    /// Notes that what is about to be executed was decoded from these lines: so a store into its own bytes ends it, and the rest
    /// of its line can be executed after the line has left the cache, as if it were kept: where runs are cut changes nothing.
    fn note_code(&mut self, frame: FramePtr, lines: u64) {
        self.blocks.note_lines(frame, lines);
        self.admit_code(frame, lines);
    }

    /// Marks lines as decoded, and lets the blocks in them be entered.
    fn admit_code(&mut self, frame: FramePtr, lines: u64) {
        for line in crate::block::bits(lines) {
            self.mem.set_code(frame, line);
        }
        self.blocks.refresh(frame, lines);
    }

    /// An instruction whose bytes are in two pages: fetched each time it is executed.
    fn page_crossing(&mut self, linear: u64, frame: FramePtr, budget: u64) -> Result<&'static BlockHeader, Exception> {
        let offset = (linear & 0xFFF) as usize;
        let first = 4096 - offset;
        let mut bytes = [0; 15];
        frame.read(offset, &mut bytes[..first]);
        let next_page = (linear | 0xFFF).wrapping_add(1);
        let (t, second) = self.fetch_line(next_page)?;
        self.read_code(&t, second, 0, &mut bytes[first..])?;
        let last_line = 1 << 63;
        if let Some(header) = self.blocks.crossings.get(linear, self.block_key, &bytes) {
            self.note_code(frame, last_line);
            return Ok(header);
        }
        if second.is_none() || self.has_traps() {
            return self.once(frame, &bytes, linear, budget.min(1));
        }
        let translated = self.decode_one(&bytes, linear, budget)?;
        self.note_code(frame, last_line);
        self.blocks.cold.extend(translated.cold);
        let block = self.uncached(translated.insns);
        Ok(self.blocks.crossings.insert(linear, self.block_key, &bytes, &block, &translated.items))
    }

    /// An instruction in two lines that cannot both stay in the cache.
    fn run_straddling(
        &mut self,
        linear: u64,
        bus: u64,
        frame: FramePtr,
        budget: u64,
    ) -> Result<&'static BlockHeader, Exception> {
        let mut bytes = [0; 15];
        let no_fill = self.no_fill();
        let split = 64 - (bus & 63) as usize;
        self.mem.read(BusAddr(bus), mem::MemType::Wb, no_fill, &mut bytes[..split.min(15)]);
        if split < 15 {
            self.mem.read(BusAddr(bus + split as u64), mem::MemType::Wb, no_fill, &mut bytes[split..]);
        }
        self.settle();
        self.check_poison(Use::Instruction)?;
        self.once(frame, &bytes, linear, budget.min(1))
    }

    /// Code outside write-back RAM (device memory, uncached RAM, CR0.CD): one instruction at a time.
    fn run_once(&mut self, linear: u64, t: &Translation, budget: u64) -> Result<&'static BlockHeader, Exception> {
        let mut bytes = [0; 15];
        let room = (4096 - (linear & 0xFFF) as usize).min(15);
        self.read_code(t, None, (linear & 0xFFF) as usize, &mut bytes[..room])?;
        if room < 15 {
            // Only if the instruction needs it may the next page be fetched.
            let source = self.source(&bytes[..room], linear, 1);
            if translate(&source).is_err() {
                let (t, frame) = self.fetch_line((linear | 0xFFF).wrapping_add(1))?;
                self.read_code(&t, frame, 0, &mut bytes[room..])?;
            }
        }
        self.once(FramePtr::empty(), &bytes, linear, budget.min(1))
    }

    /// Copies code bytes of one page from a resident line or through the uncached path.
    fn read_code(
        &mut self,
        t: &Translation,
        frame: Option<FramePtr>,
        offset: usize,
        out: &mut [u8],
    ) -> Result<(), Exception> {
        if let Some(frame) = frame {
            frame.read(offset, out);
            return Ok(());
        }
        let mut done = 0;
        while done < out.len() {
            let at = offset + done;
            let n = (64 - at % 64).min(out.len() - done);
            let bus = BusAddr(t.bus_page | at as u64);
            if t.props & crate::mmu::tlb::prop::RAM != 0 {
                if self.mem.observed() {
                    self.observe(bus, n, t.ty, Operation::Fetch);
                }
                let no_fill = self.no_fill();
                self.mem.read(bus, t.ty, no_fill, &mut out[done..done + n]);
                self.settle();
                self.check_poison(Use::Instruction)?;
            } else {
                let address = self.device_address(bus);
                let (now, id) = (self.now(), self.id);
                for (i, b) in out[done..done + n].iter_mut().enumerate() {
                    *b = self.platform.mmio_read(now, id, address + i as u64, 1) as u8;
                }
            }
            done += n;
        }
        Ok(())
    }

    fn once(
        &mut self,
        frame: FramePtr,
        bytes: &[u8],
        linear: u64,
        budget: u64,
    ) -> Result<&'static BlockHeader, Exception> {
        let translated = self.decode_one(bytes, linear, budget)?;
        Ok(self.scratch_block(frame, translated))
    }

    /// One instruction, whose bytes are all there.
    fn decode_one(&self, bytes: &[u8], linear: u64, budget: u64) -> Result<Translated, Exception> {
        let source = self.source(bytes, linear, budget.max(1));
        // 15 bytes and still no end: longer than an instruction may be (SDM Vol. 2A, section 2.3.11).
        translate(&Source { max_insns: 1, ..source }).map_err(|NeedsMore::Bytes| Exception::GP0)
    }

    /// Ends the chain with a fault that a handler found.
    pub fn raise(&mut self, op: At, e: Exception) {
        self.fault = Some(e);
        fault_exit(self, op)
    }
}

/// Copies the bytes from `offset` on whose lines can be executed after one another without a fetch that anyone would notice.
/// The first line has been fetched. Returns their number.
fn fetchable_run(frame: FramePtr, offset: usize, out: &mut [u8; 256]) -> usize {
    run_of(frame, frame.intact() & 1 << (offset / 64) | frame.fetchable(), offset, out)
}

/// The same for an instruction in two lines, both of which have been fetched.
fn straddling_run(frame: FramePtr, offset: usize, out: &mut [u8; 256]) -> usize {
    run_of(frame, frame.intact() & 3 << (offset / 64) | frame.fetchable(), offset, out)
}

/// Copies the bytes from `offset` to the end of the run of `lines`.
fn run_of(frame: FramePtr, lines: u64, offset: usize, out: &mut [u8; 256]) -> usize {
    let run = (!(lines >> (offset / 64))).trailing_zeros() as usize;
    let end = ((offset / 64 + run) * 64).min(4096);
    let n = end.saturating_sub(offset).min(out.len());
    frame.read(offset, &mut out[..n]);
    n
}
