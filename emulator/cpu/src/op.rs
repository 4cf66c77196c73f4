//! Ops: what decoded instructions are turned into, and how one op leads to the next (design D5).
//!
//! An op is a handler and its operands, 32 bytes. A handler ends by calling the next op's handler in tail position,
//! which rustc turns into a jump at `-O`: handlers must not hold anything that needs a destructor, nor take a local's
//! address (a release test in `tests` checks the machine code). A build with debug assertions does not chain: every
//! handler returns to the run loop.
#![allow(unsafe_code)]

use crate::block::{Block, Item};
use crate::run::MAX_BUDGET;
use crate::state::{Cpu, slot};
use std::cell::Cell;

/// Executes an op and everything that follows it, until something needs the run loop.
pub type Handler = fn(&mut Cpu, At);

/// One op. The names of the fields are those of their usual meaning; handlers document other uses.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Op {
    pub f: Handler,
    /// Immediate; relative branch target; index of an [`iced_x86::Instruction`] for cold ops.
    pub imm: u64,
    pub disp: i32,
    /// Offset of the instruction from the block's first.
    pub ip_off: u16,
    /// Destination register: a register number, for byte operands an offset in the register file's bytes.
    pub d: u8,
    /// Source register, likewise.
    pub s: u8,
    /// Address slots, see [`slot`].
    pub base: u8,
    pub index: u8,
    pub scale: u8,
    pub seg: u8,
    /// Instruction length in bytes.
    pub len: u8,
    /// Instructions of the block after this one: what a premature end gives back to the budget.
    pub rest: u8,
}

/// A successor of a block, resolved when it is first taken. Links inside a page hold as long as the block is valid; the
/// others only while the block is [`BlockHeader::reachable`].
#[repr(C)]
pub struct Link {
    target: Cell<Option<Target>>,
}

/// A block and the handler of its first op, so that the jump there does not wait for the op.
#[derive(Clone, Copy)]
pub struct Target {
    pub block: &'static BlockHeader,
    pub f: Handler,
}

/// The successors of a terminal op, stored in the slot after it.
#[repr(C)]
pub struct Links {
    pub taken: Link,
    /// Where execution goes on if no branch is taken; of a call: where the RET that matches it goes on.
    pub after: Link,
}

impl Link {
    fn new() -> Self {
        Link { target: Cell::new(None) }
    }

    #[inline(always)]
    pub fn target(&self) -> Option<Target> {
        self.target.get()
    }

    pub fn lead_to(&self, block: &'static BlockHeader) {
        self.target.set(Some(Target { block, f: block.first().f }));
    }
}

/// What block entry checks. Occupies the slot before a block's first op, in the same line of the host's cache: what
/// entering costs is mostly the wait for it.
#[repr(C)]
pub struct BlockHeader {
    /// What entering takes off the budget: the number of instructions, or more than any budget has while the block must
    /// not be entered ([`PARKED`], [`DEAD`]), so that one test does for both.
    cost: Cell<i64>,
    /// The linear address, mode and privilege that the run loop last found the block under, as in
    /// [`crate::block::JumpCache::salt`], and the number of the translations it did so with.
    pub key: Cell<u64>,
    pub generation: Cell<u64>,
    /// Instructions in the block.
    pub insns: u16,
    /// The line of the page that the block starts in; how many it has bytes of; whether its first instruction has bytes of
    /// two.
    first_line: u8,
    line_count: u8,
    pub straddles: bool,
    /// True for blocks of the block cache.
    pub cached: bool,
}

/// A line of the block is not resident, or its bytes have not been compared since it came back.
const PARKED: i64 = MAX_BUDGET as i64 + 1;
/// The bytes the block was decoded from are gone.
const DEAD: i64 = MAX_BUDGET as i64 + 2;

impl BlockHeader {
    /// What entering takes off the budget. If that leaves less than nothing, the block is not to be entered.
    #[inline(always)]
    pub fn cost(&self) -> i64 {
        self.cost.get()
    }

    /// True if the block's lines are resident and still hold what it was decoded from.
    #[inline(always)]
    pub fn enterable(&self) -> bool {
        self.cost.get() < PARKED
    }

    /// Lines that the block has bytes of, one bit a line. While it runs, none of them leaves unnoticed: only a slow access
    /// can evict them, and that ends the block ([`Cpu::leave_block`]).
    pub fn lines(&self) -> u64 {
        u64::MAX >> (64 - self.line_count.clamp(1, 64)) << self.first_line
    }

    /// Allows entry, or parks the block, by the lines of the page that may be executed.
    pub fn refresh(&self, usable: u64) {
        if !self.is_dead() {
            self.cost.set(if self.lines() & !usable == 0 { i64::from(self.insns) } else { PARKED });
        }
    }

    /// True if a fetch at the linear address of `key` would find this block: shortcuts that leave a page, or come from
    /// nowhere, ask this. (The same page can be mapped at several addresses, with other pages behind it.)
    #[inline(always)]
    pub fn reachable(&self, key: u64, generation: u64) -> bool {
        self.key.get() == key && self.generation.get() == generation
    }

    /// True if the block is not dead and lies in one line.
    pub fn is_live_in_one_line(&self) -> bool {
        !self.is_dead() && self.line_count == 1
    }

    pub fn is_dead(&self) -> bool {
        self.cost.get() == DEAD
    }

    /// Makes every later entry fail.
    pub fn kill(&self) {
        self.cost.set(DEAD);
    }

    /// The block's first op.
    #[inline(always)]
    pub fn first(&'static self) -> At {
        // SAFETY: headers are only made by `Slots::push_block`, which puts at least one op one slot (32 bytes) after the
        // header's start, in the same allocation, which is never freed.
        At(unsafe { std::ptr::from_ref(self).cast::<Op>().add(1) })
    }
}

/// A position in a block's ops.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct At(*const Op);

impl std::ops::Deref for At {
    type Target = Op;

    #[inline(always)]
    fn deref(&self) -> &Op {
        // SAFETY: an At is made by `BlockHeader::first` and `At::following` only. Every block's last op is a terminal op
        // that never asks for an op after it, so the position is that of an initialised op.
        unsafe { &*self.0 }
    }
}

impl At {
    /// The op after this one. Not for terminal ops.
    #[inline(always)]
    pub fn following(self) -> At {
        // SAFETY: the translator ends every block with a terminal op, so a non-terminal op has a successor.
        At(unsafe { self.0.add(1) })
    }

    /// The successors of a terminal op.
    #[inline(always)]
    pub fn links(self) -> &'static Links {
        // SAFETY: the translator puts a `Links` in the slot after every terminal op whose handler uses this; slots are
        // never freed.
        unsafe { &*self.0.add(1).cast::<Links>() }
    }

    /// RIP of the op's instruction.
    #[inline(always)]
    pub fn ip(self, cpu: &Cpu) -> u64 {
        cpu.regs[slot::RIP as usize].wrapping_add(u64::from(self.ip_off))
    }

    /// RIP of the instruction after the op's.
    #[inline(always)]
    pub fn next_ip(self, cpu: &Cpu) -> u64 {
        self.ip(cpu).wrapping_add(u64::from(self.len))
    }
}

/// Continues with the op after `op`.
#[inline(always)]
pub fn next(cpu: &mut Cpu, op: At) {
    chain(cpu, op.following())
}

/// Continues at `op`.
#[inline(always)]
pub fn chain(cpu: &mut Cpu, op: At) {
    chain_to(cpu, op.f, op)
}

/// Continues at `op`, whose handler is `f`.
#[inline(always)]
pub fn chain_to(cpu: &mut Cpu, f: Handler, op: At) {
    if cfg!(debug_assertions) {
        cpu.resume = Some(op);
        return;
    }
    f(cpu, op)
}

/// Two slots of 32 bytes: a line of the host's cache.
#[repr(C, align(64))]
struct SlotPair(Cell<[u64; 8]>);

/// The unit in which a block's parts are laid out.
type Slot = [u64; 4];

/// Memory for ops, in slots of 32 bytes with stable addresses. Every block starts with a pair.
///
/// Chunks are leaked: a `Slots` lives as long as its processor, and processors as long as the process. [`Slots::clear`]
/// starts again at the first chunk.
#[derive(Default)]
pub struct Slots {
    chunks: Vec<&'static [SlotPair]>,
    chunk: usize,
    used: usize,
    /// Pairs in the chunks before `chunk`.
    before: usize,
}

/// Pairs of the first chunk, enough for small guests, and of the others.
const FIRST_CHUNK: usize = 1 << 12;
const CHUNK: usize = mem::huge::HUGE_PAGE / size_of::<SlotPair>();

impl Slots {
    /// Slots handed out since the last [`Slots::clear`].
    pub fn len(&self) -> usize {
        2 * (self.before + self.used)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets all blocks. No header may be entered afterwards: the owner drops every table that holds one first.
    pub fn clear(&mut self) {
        self.chunk = 0;
        self.used = 0;
        self.before = 0;
    }

    /// Copies a block in.
    pub fn push_block(&mut self, block: &Block, items: &[Item]) -> &'static BlockHeader {
        let need = (1 + items.len()).div_ceil(2);
        assert!(!items.is_empty() && need <= FIRST_CHUNK);
        if let Some(chunk) = self.chunks.get(self.chunk)
            && self.used + need > chunk.len()
        {
            self.before += chunk.len();
            self.chunk += 1;
            self.used = 0;
        }
        if self.chunk == self.chunks.len() {
            let empty = || SlotPair(Cell::new([0; 8]));
            self.chunks.push(match self.chunk {
                0 => Box::leak(std::iter::repeat_with(empty).take(FIRST_CHUNK).collect::<Box<[_]>>()),
                _ => mem::huge::leak(CHUNK, empty),
            });
        }
        let at = self.chunks[self.chunk][self.used..self.used + need].as_ptr().cast_mut().cast::<Slot>();
        self.used += need;
        // SAFETY: `at` is the start of `need` pairs of slots of 32 bytes, aligned to 64, of a leaked allocation, handed out
        // once until `clear`. The header takes a slot, every item one; sizes and alignments are checked below at compile
        // time. The memory is inside `Cell`s, so writing through a shared pointer is allowed.
        unsafe {
            at.cast::<BlockHeader>().write(BlockHeader {
                cost: Cell::new(if block.cached { PARKED } else { i64::from(block.insns) }),
                key: Cell::new(0),
                generation: Cell::new(0),
                insns: block.insns as u16,
                first_line: block.all_lines.trailing_zeros().min(63) as u8,
                line_count: block.all_lines.count_ones() as u8,
                straddles: block.entry_lines.count_ones() > 1,
                cached: block.cached,
            });
            for (i, item) in items.iter().enumerate() {
                let slot = at.add(1 + i);
                match item {
                    Item::Op(op) => slot.cast::<Op>().write(*op),
                    Item::Links => {
                        slot.cast::<Links>().write(Links { taken: Link::new(), after: Link::new() });
                    }
                }
            }
            &*at.cast::<BlockHeader>()
        }
    }
}

const _: () = {
    assert!(size_of::<SlotPair>() == 64 && size_of::<Slot>() == 32);
    assert!(size_of::<Op>() == 32 && align_of::<Op>() <= 32);
    assert!(size_of::<Links>() == 32 && align_of::<Links>() <= 32);
    assert!(size_of::<BlockHeader>() == 32 && align_of::<BlockHeader>() <= 32);
};
