//! The block cache: decoded code, keyed by (bus address, mode), and what makes it invalid.
//!
//! A block is the plaintext of lines of the modelled cache, decoded. So its validity hangs on those lines, per (page,
//! KeyID), not on DRAM: a store through the same mapping kills the blocks of the line; eviction and flushes only *park*
//! them (the frame's `exec_ok` bit goes, and with it the headers' permission to enter), and the next fetch compares the
//! refilled 64 bytes with what was decoded. A store through another KeyID's mapping kills nothing: stale execution is what hardware does (MK-129).

use crate::ExecFn;
use crate::mode::Mode;
use crate::op::{BlockHeader, Link, Op, Slots, Target};
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

/// What a block is besides its ops.
pub struct Block {
    /// Offset of the first byte in its page.
    pub offset: u64,
    pub key: ModeKey,
    /// Lines that hold the first instruction.
    pub entry_lines: u64,
    /// All lines the block has bytes of.
    pub all_lines: u64,
    pub insns: u32,
    /// False for a block that is made for one execution.
    pub cached: bool,
}

/// What a block is made of, one slot each.
#[derive(Clone, Copy)]
pub enum Item {
    Op(Op),
    /// The successors of the terminal op before it.
    Links,
}

/// What the blocks of a line are told apart by: offset in the page and mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Start(u32);

impl Start {
    fn new(offset: u64, key: ModeKey) -> Self {
        Start(offset as u32 & 0xFFF | key.0 << 12)
    }
}

/// A line that blocks were decoded from, and the blocks with bytes in it.
struct CodeLine {
    bytes: [u8; 64],
    blocks: Vec<(Start, &'static BlockHeader)>,
}

/// The lines of a page. Boxed one by one: code pages have few.
struct CodePage([Option<Box<CodeLine>>; 64]);

/// See the module's description.
#[derive(Default)]
pub struct BlockCache {
    slots: Slots,
    /// By [`FramePtr::index`]: the frame says which page and KeyID.
    pages: Vec<Option<Box<CodePage>>>,
    /// Instructions that cold ops execute, by [`Op::imm`].
    pub cold: Vec<(ExecFn, Instruction)>,
    pub crossings: Crossings,
    /// How often everything was dropped: a link that was followed before leads nowhere.
    pub times_cleared: u64,
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

/// Instructions whose bytes are in two pages: fetched each time they are executed, but decoded again only if their bytes are
/// others.
#[derive(Default)]
pub struct Crossings {
    slots: Slots,
    /// Direct-mapped by linear address; empty until there is one.
    entries: Vec<Option<Crossing>>,
}

/// An instruction's linear address, mode and bytes (and what follows it), and the block that is made of it alone.
struct Crossing {
    linear: u64,
    key: ModeKey,
    bytes: [u8; 15],
    header: &'static BlockHeader,
}

impl Crossings {
    const ENTRIES: usize = 512;
    /// The block cache starts anew beyond this many slots of them.
    const MAX_SLOTS: usize = 1 << 14;

    fn index(linear: u64) -> usize {
        (linear >> 12 ^ linear >> 21) as usize & (Self::ENTRIES - 1)
    }

    fn entry(&self, linear: u64, key: ModeKey) -> Option<&Crossing> {
        self.entries.get(Self::index(linear))?.as_ref().filter(|e| e.linear == linear && e.key == key)
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// True if the bytes in the first page are those of an instruction that goes on in the second.
    pub fn begins_with(&self, linear: u64, key: ModeKey, first: &[u8]) -> bool {
        self.entry(linear, key).is_some_and(|e| e.bytes.starts_with(first))
    }

    /// The block of the instruction with these bytes, if it was decoded before.
    pub fn get(&self, linear: u64, key: ModeKey, bytes: &[u8; 15]) -> Option<&'static BlockHeader> {
        self.entry(linear, key).filter(|e| e.bytes == *bytes).map(|e| e.header)
    }

    pub fn insert(
        &mut self,
        linear: u64,
        key: ModeKey,
        bytes: &[u8; 15],
        block: &Block,
        items: &[Item],
    ) -> &'static BlockHeader {
        let header = self.slots.push_block(block, items);
        self.entries.resize_with(Self::ENTRIES, || None);
        self.entries[Self::index(linear)] = Some(Crossing { linear, key, bytes: *bytes, header });
        header
    }

    fn is_full(&self) -> bool {
        self.slots.len() > Self::MAX_SLOTS
    }

    fn clear(&mut self) {
        self.slots.clear();
        self.entries.clear();
    }
}

/// The calls that have not returned yet, the latest first: where RET looks before it asks the jump cache. A hint: an entry
/// says nothing that the block it leads to does not confirm.
#[derive(Default)]
pub struct ReturnStack {
    entries: [Return; ReturnStack::ENTRIES],
    top: u8,
}

/// A call that has not returned: the linear address it is to return to; what its link led to when it was made; the link.
#[derive(Clone, Copy, Default)]
pub struct Return {
    rip: u64,
    pub target: Option<Target>,
    pub link: Option<&'static Link>,
}

impl ReturnStack {
    const ENTRIES: usize = 16;

    /// A call that is to return to `rip`.
    #[inline(always)]
    pub fn push(&mut self, rip: u64, link: &'static Link) {
        self.top = self.top.wrapping_add(1);
        self.entries[usize::from(self.top) % Self::ENTRIES] = Return { rip, target: link.target(), link: Some(link) };
    }

    /// The latest call, if it is to return to `rip`.
    #[inline(always)]
    pub fn latest(&self, rip: u64) -> Option<Return> {
        let at = self.entries[usize::from(self.top) % Self::ENTRIES];
        (at.rip == rip).then_some(at)
    }

    /// After a return, whichever call it belongs to.
    #[inline(always)]
    pub fn pop(&mut self) {
        self.top = self.top.wrapping_sub(1);
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
    /// The valid block at an offset in a page, if it was decoded before.
    pub fn lookup(&self, frame: FramePtr, offset: u64, key: ModeKey) -> Option<&'static BlockHeader> {
        let start = Start::new(offset, key);
        let line = self.line(frame, (offset >> 6) as u32)?;
        line.blocks.iter().find(|(s, header)| *s == start && !header.is_dead()).map(|(_, header)| *header)
    }

    fn line(&self, frame: FramePtr, line: u32) -> Option<&CodeLine> {
        self.pages.get(frame.index() as usize)?.as_ref()?.0[line as usize & 63].as_deref()
    }

    fn page_mut(&mut self, frame: FramePtr) -> Option<&mut CodePage> {
        self.pages.get_mut(frame.index() as usize)?.as_deref_mut()
    }

    /// True when so much is cached that everything should be dropped before the next block is made.
    pub fn is_full(&self) -> bool {
        self.slots.len() > MAX_SLOTS || self.cold.len() > 1 << 19 || self.crossings.is_full()
    }

    /// Adds a block of the page in `frame`, whose lines are resident. It is parked until [`BlockCache::refresh`].
    pub fn insert(&mut self, frame: FramePtr, block: &Block, items: &[Item]) -> &'static BlockHeader {
        let start = Start::new(block.offset, block.key);
        self.note_lines(frame, block.all_lines);
        let header = self.slots.push_block(block, items);
        let Some(page) = self.page_mut(frame) else { return header };
        for line in bits(block.all_lines) {
            let Some(code) = &mut page.0[line as usize] else { continue };
            code.blocks.retain(|(other, header)| {
                if *other == start {
                    header.kill();
                }
                !header.is_dead()
            });
            code.blocks.push((start, header));
        }
        header
    }

    /// Notes the bytes of those lines that are resident: something was decoded from them.
    pub fn note_lines(&mut self, frame: FramePtr, lines: u64) {
        let at = frame.index() as usize;
        if self.pages.len() <= at {
            self.pages.resize_with(at + 1, || None);
        }
        for line in bits(lines & frame.intact()) {
            let bytes = frame.line_bytes(line);
            // What was decoded from the line while it held other bytes must not be entered with the new block's mark.
            self.check_line(frame, line, &bytes);
            let page = self.pages[at].get_or_insert_with(|| Box::new(CodePage([const { None }; 64])));
            page.0[line as usize].get_or_insert_with(|| Box::new(CodeLine { bytes, blocks: Vec::new() }));
        }
    }

    /// After lines came into use or were parked: which blocks may be entered.
    pub fn refresh(&mut self, frame: FramePtr, lines: u64) {
        let Some(page) = self.page_mut(frame) else { return };
        let usable = frame.exec_ok();
        for line in bits(lines) {
            if let Some(code) = &page.0[line as usize] {
                code.blocks.iter().for_each(|(_, header)| header.refresh(usable));
            }
        }
    }

    /// Compares a line that was just made resident with what was decoded from it.
    pub fn check_line(&mut self, frame: FramePtr, line: u32, bytes: &[u8; 64]) -> LineCheck {
        match self.line(frame, line) {
            None => LineCheck::NoCode,
            Some(code) if code.bytes == *bytes => LineCheck::Same,
            Some(_) => {
                self.kill_line(frame, line);
                LineCheck::Changed
            }
        }
    }

    /// Puts a fetched line in place of what was decoded from it.
    pub fn put_line(&mut self, frame: FramePtr, line: u32, bytes: &[u8; 64]) {
        if self.check_line(frame, line, bytes) != LineCheck::Same {
            let at = frame.index() as usize;
            if self.pages.len() <= at {
                self.pages.resize_with(at + 1, || None);
            }
            let page = self.pages[at].get_or_insert_with(|| Box::new(CodePage([const { None }; 64])));
            page.0[line as usize & 63] = Some(Box::new(CodeLine { bytes: *bytes, blocks: Vec::new() }));
        }
    }

    /// What was decoded from a line.
    pub fn line_bytes(&self, frame: FramePtr, line: u32) -> Option<&[u8; 64]> {
        self.line(frame, line).map(|code| &code.bytes)
    }

    /// A store changed the line: its blocks die.
    pub fn kill_line(&mut self, frame: FramePtr, line: u32) {
        if let Some(page) = self.page_mut(frame)
            && let Some(code) = page.0[line as usize & 63].take()
        {
            code.blocks.iter().for_each(|(_, header)| header.kill());
        }
    }

    /// A translation of the page is gone: its blocks are reachable from within the page only, until they are found again.
    pub fn forget_ways_to(&mut self, frame: FramePtr) {
        for code in self.page_mut(frame).iter().flat_map(|page| page.0.iter().flatten()) {
            code.blocks.iter().for_each(|(_, header)| header.generation.set(0));
        }
    }

    /// The frame of a page with code now shows another page.
    pub fn kill_page(&mut self, frame: FramePtr) {
        if let Some(page) = self.pages.get_mut(frame.index() as usize).and_then(Option::take) {
            page.kill();
        }
    }

    /// Drops everything. Lines of code that the caller's memory knows stay marked there; that only costs time.
    pub fn clear(&mut self) {
        self.pages.drain(..).flatten().for_each(|page| page.kill());
        self.times_cleared += 1;
        self.cold.clear();
        self.slots.clear();
        self.crossings.clear();
    }
}

impl CodePage {
    fn kill(&self) {
        for code in self.0.iter().flatten() {
            code.blocks.iter().for_each(|(_, header)| header.kill());
        }
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
