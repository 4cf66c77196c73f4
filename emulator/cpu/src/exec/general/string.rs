//! MOVS, STOS, LODS, CMPS, SCAS and the repetition that INS and OUTS share (SDM Vol. 1, section 7.3.9; Vol. 2B, "REP").
//!
//! [`execute`] cuts a repetition into [`Run`]s: iterations whose elements ascend within one page on each side and whose
//! segment checks have passed. The closure performs a run; only it touches memory. Interruption: one call performs at
//! most [`Cpu::rep_quantum`] iterations and leaves RIP on the instruction if some remain. A fault leaves rCX, rSI and
//! rDI as after the last completed iteration.

use super::{mask, sub_flags};
use crate::Cpu;
use crate::exec::cold::{cold_end, needs_loop};
use crate::exec::int::branch::go_on;
use crate::mmu::Access;
use crate::op::{At, Handler};
use crate::operand::memory_segment;
use crate::state::slot;
use iced_x86::{Instruction, Mnemonic, OpKind, Register};
use x86::segment::sreg;
use x86::{Exception, flags};

/// Iterations of one call at most; short enough that a stop request is seen soon.
const MAX_QUANTUM: i64 = 4096;

const PAGE_BYTES: u64 = 4096;
const LINE_BYTES: u64 = 64;

/// Which memory operands an instruction has: \[seg:rSI\] and ES:\[rDI\].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sides {
    source: bool,
    destination: bool,
    /// Access to ES:\[rDI\]: CMPS and SCAS read it.
    destination_access: Access,
}

impl Sides {
    pub(crate) const SOURCE: Sides = Sides { source: true, destination: false, destination_access: Access::Read };
    pub(crate) const DESTINATION: Sides = Sides { source: false, destination: true, destination_access: Access::Write };
    const COPY: Sides = Sides { source: true, destination: true, destination_access: Access::Write };
    const COMPARE: Sides = Sides { source: true, destination: true, destination_access: Access::Read };
    const SCAN: Sides = Sides { source: false, destination: true, destination_access: Access::Read };
}

/// Consecutive iterations that need no further checks but translation. With one iteration an operand may cross a page.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    /// Linear addresses of the first elements (0 for a side that is not used).
    pub source: u64,
    pub destination: u64,
    /// Bytes an element.
    pub size: usize,
    /// Iterations.
    pub count: u64,
}

impl Run {
    pub(crate) fn sources(&self) -> impl Iterator<Item = u64> + use<> {
        (self.source..).step_by(self.size).take(self.count as usize)
    }

    pub(crate) fn destinations(&self) -> impl Iterator<Item = u64> + use<> {
        (self.destination..).step_by(self.size).take(self.count as usize)
    }
}

/// What stays the same over all iterations.
struct Shape {
    sides: Sides,
    size: usize,
    /// Of the address size: 2, 4 or 8 bytes.
    address_size: usize,
    source_segment: usize,
    descending: bool,
}

impl Shape {
    fn new(cpu: &Cpu, insn: &Instruction, sides: Sides) -> Shape {
        let address_size = (0..insn.op_count())
            .find_map(|n| match insn.op_kind(n) {
                OpKind::MemorySegSI | OpKind::MemoryESDI => Some(2),
                OpKind::MemorySegESI | OpKind::MemoryESEDI => Some(4),
                OpKind::MemorySegRSI | OpKind::MemoryESRDI => Some(8),
                _ => None,
            })
            .unwrap_or(cpu.mode.bitness() as usize / 8);
        Shape {
            sides,
            size: insn.memory_size().size().clamp(1, 8),
            address_size,
            source_segment: memory_segment(insn, cpu.mode),
            descending: cpu.rflags_system & flags::DF != 0,
        }
    }

    fn index(&self, cpu: &Cpu, register: u8) -> u64 {
        cpu.regs[register as usize] & mask(self.address_size)
    }

    /// Writes rCX, rSI or rDI with the address size's width.
    fn set_index(&self, cpu: &mut Cpu, register: u8, value: u64) {
        let r = &mut cpu.regs[register as usize];
        *r = match self.address_size {
            2 => *r & !0xFFFF | value & 0xFFFF,
            n => value & mask(n),
        };
    }

    /// Linear address of the element at `offset`, and how many of `want` ascending elements lie in its page, do not wrap
    /// the address size, and pass the segment check.
    fn extent(
        &self,
        cpu: &Cpu,
        segment: usize,
        offset: u64,
        access: Access,
        want: u64,
    ) -> Result<(u64, u64), Exception> {
        let size = self.size as u64;
        let linear = cpu.regs[slot::SEG as usize + segment].wrapping_add(offset);
        let in_page = (PAGE_BYTES - linear % PAGE_BYTES) / size;
        let before_wrap = (mask(self.address_size) - offset) / size;
        let n = want.min(in_page).min(before_wrap);
        if n > 1
            && let Ok(linear) = cpu.segment_address(segment, offset, (n * size) as usize, access)
        {
            return Ok((linear, n));
        }
        Ok((cpu.segment_address(segment, offset, self.size, access)?, 1))
    }

    /// The next run, of at most `want` iterations (at least one).
    fn run(&self, cpu: &Cpu, want: u64) -> Result<Run, Exception> {
        let mut run = Run { source: 0, destination: 0, size: self.size, count: if self.descending { 1 } else { want } };
        if self.sides.source {
            let offset = self.index(cpu, slot::RSI);
            (run.source, run.count) = self.extent(cpu, self.source_segment, offset, Access::Read, run.count)?;
        }
        if self.sides.destination {
            let offset = self.index(cpu, slot::RDI);
            let access = self.sides.destination_access;
            (run.destination, run.count) = self.extent(cpu, sreg::ES, offset, access, run.count)?;
        }
        Ok(run)
    }

    /// Moves rSI and rDI past `iterations` elements.
    fn advance(&self, cpu: &mut Cpu, iterations: u64) {
        let distance = iterations * self.size as u64;
        let distance = if self.descending { distance.wrapping_neg() } else { distance };
        for (used, register) in [(self.sides.source, slot::RSI), (self.sides.destination, slot::RDI)] {
            if used && iterations > 0 {
                let moved = self.index(cpu, register).wrapping_add(distance);
                self.set_index(cpu, register, moved);
            }
        }
    }
}

impl Cpu {
    /// Counts `n` completed iterations in `done`, and for reports about the accesses of later ones.
    #[inline(always)]
    pub(crate) fn iterated(&mut self, done: &mut u64, n: u64) {
        *done += n;
        self.iterations += n;
    }

    /// Iterations that a repeated string instruction may perform before the run loop gets control. Single-stepping traps
    /// after each one (SDM Vol. 3B, section 17.3.1.4).
    pub fn rep_quantum(&self) -> u64 {
        if self.rflags_system & flags::TF != 0 {
            return 1;
        }
        self.budget.clamp(1, MAX_QUANTUM) as u64
    }
}

/// Performs a string instruction. `perform` executes a [`Run`], counts completed iterations in its third parameter as it
/// goes, and returns whether the repetition ends there (CMPS, SCAS).
pub(crate) fn execute(
    cpu: &mut Cpu,
    insn: &Instruction,
    sides: Sides,
    perform: impl FnMut(&mut Cpu, &Run, &mut u64) -> Result<bool, Exception>,
) -> Result<(), Exception> {
    let result = iterate(cpu, insn, sides, perform);
    cpu.iterations = 0;
    result
}

fn iterate(
    cpu: &mut Cpu,
    insn: &Instruction,
    sides: Sides,
    mut perform: impl FnMut(&mut Cpu, &Run, &mut u64) -> Result<bool, Exception>,
) -> Result<(), Exception> {
    let shape = Shape::new(cpu, insn, sides);
    if !(insn.has_rep_prefix() || insn.has_repne_prefix()) {
        let run = shape.run(cpu, 1)?;
        perform(cpu, &run, &mut 0)?;
        shape.advance(cpu, 1);
        return Ok(());
    }
    let mut left = shape.index(cpu, slot::RCX);
    if left == 0 {
        return Ok(());
    }
    let quantum = left.min(cpu.rep_quantum());
    let (mut total, mut ended) = (0, false);
    // An injected fault that an iteration met ends the instruction's turn.
    while total < quantum && !ended && !cpu.traps.met {
        let mut done = 0;
        let outcome = shape.run(cpu, quantum - total).and_then(|run| perform(cpu, &run, &mut done));
        shape.advance(cpu, done);
        if done > 0 {
            left -= done;
            shape.set_index(cpu, slot::RCX, left);
        }
        total += done;
        match outcome {
            Ok(end) => ended = end,
            Err(fault) => {
                // The faulting instruction is not counted as executed, its completed iterations are. CMPS and SCAS keep
                // the flags of the last one: Intel gives back those from before the instruction (SDM Vol. 2B, "REP"), but
                // where an instruction was interrupted that is the last iteration too, and it must not matter here where
                // a quantum ended.
                cpu.budget = cpu.budget.saturating_sub_unsigned(total);
                return Err(fault);
            }
        }
    }
    cpu.budget = cpu.budget.saturating_sub_unsigned(total - 1);
    if left > 0 && !ended {
        cpu.set_rip(cpu.ip);
    }
    Ok(())
}

/// Iterations whose elements lie in the rest of the line at `address`, at most `left`.
fn in_line(address: u64, size: usize, left: u64) -> u64 {
    ((LINE_BYTES - address % LINE_BYTES) / size as u64).min(left)
}

/// True if the order of moves from `source` to `destination` matters: an overlap of this kind repeats a pattern.
#[inline(always)]
fn repeats(source: u64, destination: u64, bytes: u64) -> bool {
    (1..bytes).contains(&destination.wrapping_sub(source))
}

/// MOVS. Elements are moved on the host all at once, or line by line, where both sides are on the fast path and the order of
/// the moves cannot matter. The rest, and the first element of each line that is not on the fast path yet, goes element by
/// element.
pub(super) fn movs(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    execute(cpu, insn, Sides::COPY, |cpu, run, done| {
        let size = run.size as u64;
        let overlaps = repeats(run.source, run.destination, run.count * size);
        if run.count > 1
            && cpu.shortcuts.bulk_strings
            && !overlaps
            && cpu.fast.copy(run.source, run.destination, run.count as usize * run.size)
        {
            cpu.iterated(done, run.count);
        }
        while *done < run.count && !cpu.traps.met {
            let (from, to) = (run.source + *done * size, run.destination + *done * size);
            let n = in_line(from, run.size, in_line(to, run.size, run.count - *done));
            if n > 1 && cpu.shortcuts.bulk_strings && !overlaps && cpu.fast.copy(from, to, (n * size) as usize) {
                cpu.iterated(done, n);
                continue;
            }
            let value = cpu.load_sized(from, run.size)?;
            cpu.store_sized(to, run.size, value)?;
            cpu.iterated(done, 1);
        }
        Ok(false)
    })
}

/// STOS. Elements are stored on the host all at once, or line by line, where the lines are on the fast path.
pub(super) fn stos(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    let value = cpu.regs[slot::RAX as usize];
    execute(cpu, insn, Sides::DESTINATION, |cpu, run, done| {
        let size = run.size as u64;
        if run.count > 1
            && cpu.shortcuts.bulk_strings
            && cpu.fast.fill(run.destination, value, run.size, run.count as usize)
        {
            cpu.iterated(done, run.count);
        }
        while *done < run.count && !cpu.traps.met {
            let to = run.destination + *done * size;
            let n = in_line(to, run.size, run.count - *done);
            if n > 1 && cpu.shortcuts.bulk_strings && cpu.fast.fill(to, value, run.size, n as usize) {
                cpu.iterated(done, n);
                continue;
            }
            cpu.store_sized(to, run.size, value)?;
            cpu.iterated(done, 1);
        }
        Ok(false)
    })
}

/// Iterations of a REP with 64-bit addresses, if all of them may be performed at once.
#[inline(always)]
fn at_once(cpu: &Cpu) -> Option<u64> {
    let count = cpu.regs[slot::RCX as usize];
    let few = (1..=cpu.rep_quantum()).contains(&count);
    let ascending = cpu.rflags_system & flags::DF == 0;
    (few && ascending && cpu.shortcuts.bulk_strings && !cpu.traps.met && !needs_loop(cpu)).then_some(count)
}

/// Goes on after all `count` iterations.
#[inline(always)]
fn performed(cpu: &mut Cpu, op: At, count: u64) {
    cpu.regs[slot::RCX as usize] = 0;
    cpu.budget -= count as i64 - 1;
    go_on(cpu, op)
}

/// REP MOVS with 64-bit addresses, between pages that are on the fast path. What else it may do is the cold op's.
fn rep_movs<const SIZE: usize>(cpu: &mut Cpu, op: At) {
    let (source, destination) = (cpu.regs[slot::RSI as usize], cpu.regs[slot::RDI as usize]);
    let Some(count) = at_once(cpu) else { return cold_end(cpu, op) };
    let bytes = count * SIZE as u64;
    if repeats(source, destination, bytes) || !cpu.fast.copy(source, destination, bytes as usize) {
        return cold_end(cpu, op);
    }
    cpu.regs[slot::RSI as usize] = source.wrapping_add(bytes);
    cpu.regs[slot::RDI as usize] = destination.wrapping_add(bytes);
    performed(cpu, op, count)
}

/// REP STOS, likewise.
fn rep_stos<const SIZE: usize>(cpu: &mut Cpu, op: At) {
    let (value, destination) = (cpu.regs[slot::RAX as usize], cpu.regs[slot::RDI as usize]);
    let Some(count) = at_once(cpu) else { return cold_end(cpu, op) };
    if !cpu.fast.fill(destination, value, SIZE, count as usize) {
        return cold_end(cpu, op);
    }
    cpu.regs[slot::RDI as usize] = destination.wrapping_add(count * SIZE as u64);
    performed(cpu, op, count)
}

/// The handler of an instruction in 64-bit mode, if it is one that has one. [`crate::op::Op::imm`] is the cold op's.
pub(crate) fn rep_handler(insn: &Instruction) -> Option<Handler> {
    if !insn.has_rep_prefix() || insn.op0_kind() != OpKind::MemoryESRDI {
        return None;
    }
    let moves = insn.op1_kind() == OpKind::MemorySegRSI;
    if moves && matches!(insn.memory_segment(), Register::FS | Register::GS) {
        return None;
    }
    Some(match insn.mnemonic() {
        Mnemonic::Movsb => rep_movs::<1>,
        Mnemonic::Movsw => rep_movs::<2>,
        Mnemonic::Movsd => rep_movs::<4>,
        Mnemonic::Movsq => rep_movs::<8>,
        Mnemonic::Stosb => rep_stos::<1>,
        Mnemonic::Stosw => rep_stos::<2>,
        Mnemonic::Stosd => rep_stos::<4>,
        Mnemonic::Stosq => rep_stos::<8>,
        _ => return None,
    })
}

/// AL, AX, EAX or RAX.
fn accumulator(size: usize) -> Register {
    match size {
        1 => Register::AL,
        2 => Register::AX,
        4 => Register::EAX,
        _ => Register::RAX,
    }
}

pub(super) fn lods(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    execute(cpu, insn, Sides::SOURCE, |cpu, run, done| {
        for from in run.sources() {
            let value = cpu.load_sized(from, run.size)?;
            cpu.set_reg(accumulator(run.size), value);
            cpu.iterated(done, 1);
            if cpu.traps.met {
                break;
            }
        }
        Ok(false)
    })
}

/// True if the comparison just made ends a REPE (ZF = 0) or REPNE (ZF = 1).
fn ends(cpu: &Cpu, insn: &Instruction) -> bool {
    if insn.has_repne_prefix() { cpu.lazy.zf() } else { !cpu.lazy.zf() }
}

pub(super) fn cmps(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    execute(cpu, insn, Sides::COMPARE, |cpu, run, done| {
        for (left, right) in run.sources().zip(run.destinations()) {
            let a = cpu.load_sized(left, run.size)?;
            let b = cpu.load_sized(right, run.size)?;
            cpu.lazy = sub_flags(a, b, run.size);
            cpu.iterated(done, 1);
            if ends(cpu, insn) {
                return Ok(true);
            }
            if cpu.traps.met {
                break;
            }
        }
        Ok(false)
    })
}

pub(super) fn scas(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    execute(cpu, insn, Sides::SCAN, |cpu, run, done| {
        let a = cpu.reg(accumulator(run.size));
        for at in run.destinations() {
            let b = cpu.load_sized(at, run.size)?;
            cpu.lazy = sub_flags(a, b, run.size);
            cpu.iterated(done, 1);
            if ends(cpu, insn) {
                return Ok(true);
            }
            if cpu.traps.met {
                break;
            }
        }
        Ok(false)
    })
}
