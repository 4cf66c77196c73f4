//! The block cache: decoded code, keyed by (bus address, mode), and what makes it invalid.
//!
//! A block is the plaintext of lines of the modelled cache, decoded. So its validity hangs on those lines, per (page,
//! KeyID), not on DRAM: a store through the same mapping kills the blocks of the line; eviction and flushes only *park*
//! them (the frame's `exec_ok` bit goes), and the next fetch compares the refilled 64 bytes with what was decoded. A
//! store through another KeyID's mapping kills nothing: stale execution is what hardware does (MK-129).

use crate::ExecFn;
use crate::mode::Mode;
use crate::op::{BlockHeader, Link, Op, Slots};
use hashbrown::HashMap;
use iced_x86::Instruction;
use mem::FramePtr;

/// Blocks end after this many instructions.
pub const MAX_INSNS: usize = 32;

/// What a block's meaning depends on besides its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ModeKey(pub u32);

impl ModeKey {
    pub fn new(mode: Mode, user: bool) -> Self {
        ModeKey(mode as u32 | u32::from(user) << 8)
    }
}

/// What the translator hands over.
pub struct Block {
    pub frame: FramePtr,
    /// Bus address of the first byte.
    pub bus: u64,
    pub key: ModeKey,
    pub entry_lines: u64,
    /// All lines the block has bytes of.
    pub all_lines: u64,
    pub insns: u32,
    pub number: u32,
}

/// What a block is made of, one slot each.
#[derive(Clone, Copy)]
pub enum Item {
    Op(Op),
    /// The frame that the op before it looks at.
    Frame(FramePtr),
    /// The successors of the terminal op before it.
    Links,
}

impl Block {
    /// Number of a block that is not in the cache.
    pub const UNCACHED: u32 = u32::MAX;
}

struct Entry {
    header: &'static BlockHeader,
    bus: u64,
    key: ModeKey,
}

/// A line that blocks were decoded from.
struct CodeLine {
    bytes: [u8; 64],
    blocks: Vec<u32>,
}

/// See the module's description.
#[derive(Default)]
pub struct BlockCache {
    slots: Slots,
    entries: Vec<Entry>,
    by_address: HashMap<(u64, ModeKey), &'static BlockHeader>,
    /// By bus address of the line.
    lines: HashMap<u64, CodeLine>,
    /// Instructions that cold ops execute, by [`Op::imm`].
    pub cold: Vec<(ExecFn, Instruction)>,
    /// Blocks are reachable by other ways than from within their page only under the number they were found with, see
    /// [`Generations`].
    pub link_generation: u64,
    pub generations: Generations,
}

/// Numbers under which blocks are found ([`BlockHeader::reachable`]): one for supervisor code, one for the user
/// code of each PCID. A number is replaced when many fetch translations of its class go at once; when a single one goes,
/// the blocks of its page are told ([`BlockCache::forget_ways_to`]). So every such shortcut is a subset of the instruction
/// TLB (design D3, inclusion). Switching PCIDs and back keeps what still holds.
pub struct Generations {
    supervisor: u64,
    user: Box<[u64]>,
    last: u64,
}

impl Default for Generations {
    fn default() -> Self {
        // Numbers are never shared, so an entry of one class is never taken for another's.
        Generations { supervisor: 1, user: (2..2 + 4096).collect(), last: 2 + 4096 }
    }
}

impl Generations {
    fn fresh(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// The number for code of a privilege and PCID.
    pub fn of(&self, user: bool, pcid: u16) -> u64 {
        if user { self.user[usize::from(pcid) & 4095] } else { self.supervisor }
    }

    pub fn replace_supervisor(&mut self) {
        self.supervisor = self.fresh();
    }

    pub fn replace_user(&mut self, pcid: u16) {
        self.user[usize::from(pcid) & 4095] = self.fresh();
    }

    pub fn replace_all_user(&mut self) {
        for pcid in 0..4096 {
            self.replace_user(pcid);
        }
    }
}

/// The block cache starts anew beyond this many slots of 32 bytes (48 MiB).
const MAX_SLOTS: usize = 3 << 19;

/// Where indirect branches look for blocks: by linear address, direct-mapped. The block itself knows whether it is the
/// one ([`BlockHeader::reachable`]).
pub struct JumpCache {
    entries: Box<[Option<&'static BlockHeader>; JumpCache::ENTRIES]>,
    /// Set apart from canonical addresses by its top bits: mode and privilege of the blocks that may be entered now.
    pub salt: u64,
}

impl JumpCache {
    const ENTRIES: usize = 16384;

    #[inline(always)]
    fn index(rip: u64) -> usize {
        (rip ^ rip >> 14) as usize & (Self::ENTRIES - 1)
    }

    #[inline(always)]
    pub fn entry(&self, rip: u64) -> Option<&'static BlockHeader> {
        self.entries[Self::index(rip)]
    }

    pub fn insert(&mut self, rip: u64, block: &'static BlockHeader) {
        self.entries[Self::index(rip)] = Some(block);
    }

    pub fn clear(&mut self) {
        self.entries.fill(None);
    }
}

impl Default for JumpCache {
    fn default() -> Self {
        JumpCache { entries: Box::new([None; Self::ENTRIES]), salt: 0 }
    }
}

/// The calls that have not returned yet, the latest first: where RET looks before it asks the jump cache. A hint: an entry
/// says nothing that the block it leads to does not confirm.
#[derive(Default)]
pub struct ReturnStack {
    entries: [(u64, Option<&'static Link>); ReturnStack::ENTRIES],
    top: u8,
}

impl ReturnStack {
    const ENTRIES: usize = 16;

    /// A call that is to return to the linear address of `key`.
    #[inline(always)]
    pub fn push(&mut self, key: u64, link: &'static Link) {
        self.top = self.top.wrapping_add(1);
        self.entries[usize::from(self.top) % Self::ENTRIES] = (key, Some(link));
    }

    /// A return to the linear address of `key`: the link of the call, if it was the one.
    #[inline(always)]
    pub fn pop(&mut self, key: u64) -> Option<&'static Link> {
        let (expected, link) = self.entries[usize::from(self.top) % Self::ENTRIES];
        self.top = self.top.wrapping_sub(1);
        if expected == key { link } else { None }
    }

    /// Before blocks, and the links in them, are dropped.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Verdict on a line that was fetched again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineCheck {
    /// No block was decoded from the line.
    NoCode,
    /// The bytes are those that were decoded.
    Same,
    /// The bytes differ; the line's blocks are dead now.
    Changed,
}

impl BlockCache {
    /// The valid block at a bus address, if it was decoded before.
    pub fn lookup(&self, bus: u64, key: ModeKey) -> Option<&'static BlockHeader> {
        self.by_address.get(&(bus, key)).copied()
    }

    /// True when so much is cached that everything should be dropped before the next block is made.
    pub fn is_full(&self) -> bool {
        self.slots.len() > MAX_SLOTS || self.cold.len() > 1 << 19
    }

    /// Number that the next block gets.
    pub fn next_number(&self) -> u32 {
        self.entries.len() as u32
    }

    /// Adds a block. `bytes_of` gives the 64 bytes of each of its lines.
    pub fn insert(
        &mut self,
        block: &Block,
        items: &[Item],
        bytes_of: impl Fn(u32) -> [u8; 64],
    ) -> &'static BlockHeader {
        let header = self.slots.push_block(block, items);
        self.entries.push(Entry { header, bus: block.bus, key: block.key });
        self.by_address.insert((block.bus, block.key), header);
        let page = block.bus & !0xFFF;
        for line in bits(block.all_lines) {
            self.lines
                .entry(page | u64::from(line) << 6)
                .or_insert_with(|| CodeLine { bytes: bytes_of(line), blocks: Vec::new() })
                .blocks
                .push(block.number);
        }
        header
    }

    /// Compares a line that was just made resident with what was decoded from it.
    pub fn check_line(&mut self, bus_line: u64, bytes: &[u8; 64]) -> LineCheck {
        match self.lines.get(&bus_line) {
            None => LineCheck::NoCode,
            Some(line) if line.bytes == *bytes => LineCheck::Same,
            Some(_) => {
                self.kill_line(bus_line);
                LineCheck::Changed
            }
        }
    }

    /// Puts a fetched line in place of what was decoded from it.
    pub fn put_line(&mut self, bus_line: u64, bytes: &[u8; 64]) {
        if self.check_line(bus_line, bytes) != LineCheck::Same {
            self.lines.insert(bus_line, CodeLine { bytes: *bytes, blocks: Vec::new() });
        }
    }

    /// What was decoded from a line.
    pub fn line_bytes(&self, bus_line: u64) -> Option<&[u8; 64]> {
        self.lines.get(&bus_line).map(|line| &line.bytes)
    }

    /// A store changed the line: its blocks die.
    pub fn kill_line(&mut self, bus_line: u64) {
        if let Some(line) = self.lines.remove(&bus_line) {
            for n in line.blocks {
                self.kill(n);
            }
        }
    }

    /// A translation of the page is gone: its blocks are reachable from within the page only, until they are found again.
    pub fn forget_ways_to(&mut self, bus_page: u64, lines: u64) {
        for line in bits(lines) {
            let Some(code) = self.lines.get(&(bus_page | u64::from(line) << 6)) else { continue };
            for &n in &code.blocks {
                self.entries[n as usize].header.generation.set(0);
            }
        }
    }

    /// The frame of a page with code now shows another page.
    pub fn kill_page(&mut self, bus_page: u64) {
        for line in 0..64 {
            self.kill_line(bus_page | line << 6);
        }
    }

    fn kill(&mut self, number: u32) {
        let e = &self.entries[number as usize];
        e.header.kill();
        if self.by_address.get(&(e.bus, e.key)).is_some_and(|header| header.number == number) {
            self.by_address.remove(&(e.bus, e.key));
        }
    }

    /// Drops everything. Lines of code that the caller's memory knows stay marked there; that only costs time.
    pub fn clear(&mut self) {
        for e in &self.entries {
            e.header.kill();
        }
        self.by_address.clear();
        self.lines.clear();
        self.entries.clear();
        self.cold.clear();
        self.slots.clear();
    }
}

/// The numbers of the set bits, ascending.
pub fn bits(mut set: u64) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        if set == 0 {
            return None;
        }
        let n = set.trailing_zeros();
        set &= set - 1;
        Some(n)
    })
}
