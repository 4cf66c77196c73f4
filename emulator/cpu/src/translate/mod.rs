//! Decoded instructions to ops.
//!
//! Reading order: this file (blocks: where they end, lines, page ends), [`address`] (address forms and address ops),
//! [`select`] (which handler an instruction gets), [`fuse`] (which of them do the work of several ops).

pub mod address;
mod fuse;
pub mod select;

use crate::ExecFn;
use crate::block::{Item, MAX_INSNS};
use crate::exec::cold;
use crate::exec::int::branch;
use crate::mode::Mode;
use crate::op::{Handler, Op};
use crate::state::slot;
use iced_x86::{Code, Decoder, DecoderError, DecoderOptions, FlowControl, Instruction, Mnemonic};

/// What is known about the place the code is at.
pub struct Source<'a> {
    /// Bytes from the first instruction on: as many as are resident, within the page.
    pub bytes: &'a [u8],
    /// Offset of the first instruction in its page.
    pub page_offset: u64,
    pub mode: Mode,
    /// At most this many instructions.
    pub max_insns: usize,
    /// False for code that is run once: its links hold while its bytes are reachable at their linear address only.
    pub cached: bool,
    /// Instructions numbered from here on are put into `cold`.
    pub cold_base: usize,
}

/// A translated block.
pub struct Translated {
    pub items: Vec<Item>,
    pub insns: u32,
    pub cold: Vec<(ExecFn, Instruction)>,
    /// Lines of the page that the first instruction and the whole block have bytes in.
    pub entry_lines: u64,
    pub all_lines: u64,
    /// The block would go on beyond `bytes`.
    pub cut: bool,
}

/// Why nothing could be translated.
#[derive(Debug, PartialEq, Eq)]
pub enum NeedsMore {
    /// The first instruction goes on beyond `bytes`.
    Bytes,
}

pub(crate) struct Translator<'a> {
    source: &'a Source<'a>,
    pub items: Vec<Item>,
    /// For every item that is an op: the number of its instruction.
    numbers: Vec<u32>,
    cold: Vec<(ExecFn, Instruction)>,
    insns: u32,
    /// The op under construction starts from this.
    template: Op,
    mode: Mode,
}

/// Lines (of the page) that bytes `from..to` of the page are in.
fn lines(from: u64, to: u64) -> u64 {
    let (first, last) = (from >> 6, (to - 1) >> 6);
    1 << first | 1u64.checked_shl(last as u32).unwrap_or(0)
}

/// F3 90 is PAUSE, but with REX.B it is XCHG r8, rAX and F3 is ignored; iced-x86 decodes PAUSE.
fn exchange_r8(bytes: &[u8], mode: Mode, insn: &mut Instruction) {
    let len = insn.len();
    let rex_b = mode.is_long64() && len > 2 && bytes.get(len - 2).is_some_and(|b| b & 0xF1 == 0x41);
    if rex_b {
        let without: Vec<u8> = bytes[..len].iter().copied().filter(|b| *b != 0xF3).collect();
        *insn = Decoder::with_ip(64, &without, insn.ip(), DecoderOptions::NONE).decode();
        insn.set_len(len);
        insn.set_next_ip(insn.ip().wrapping_add(len as u64));
    }
}

/// Translates a block.
pub fn translate(source: &Source<'_>) -> Result<Translated, NeedsMore> {
    let mut decoder = Decoder::with_ip(source.mode.bitness(), source.bytes, source.page_offset, DecoderOptions::NONE);
    let mut t = Translator {
        source,
        items: Vec::with_capacity(24),
        numbers: Vec::with_capacity(24),
        cold: Vec::new(),
        insns: 0,
        template: NOTHING,
        mode: source.mode,
    };
    let mut insn = Instruction::default();
    let (mut entry_lines, mut all_lines) = (0, 0);
    let mut at = source.page_offset;
    let (mut ended, mut cut) = (false, false);
    // Behind the last conditional branch: what there is by then, and the lines of it.
    let mut exit = None;
    while t.insns < source.max_insns.min(MAX_INSNS) as u32 && decoder.can_decode() {
        decoder.decode_out(&mut insn);
        if insn.is_invalid()
            && decoder.last_error() == DecoderError::NoMoreBytes
            && source.bytes.len() as u64 + source.page_offset - at < 15
        {
            cut = true;
            break;
        }
        if insn.code() == Code::Pause {
            exchange_r8(&source.bytes[(at - source.page_offset) as usize..], source.mode, &mut insn);
        }
        let end = at + insn.len() as u64;
        let used = lines(at, end);
        if t.insns == 0 {
            entry_lines = used;
        }
        all_lines |= used;
        t.start(&insn, at);
        ended = t.instruction(&insn);
        t.insns += 1;
        at = end;
        if ended {
            break;
        }
        if insn.is_jcc_short_or_near() {
            exit = Some((t.items.len(), t.cold.len(), t.insns, at, all_lines));
        }
    }
    if t.insns == 0 {
        return Err(NeedsMore::Bytes);
    }
    cut |= !ended && !decoder.can_decode();
    if cut
        && source.page_offset + (source.bytes.len() as u64) < 4096
        && let Some((items, cold, insns, end, lines)) = exit
    {
        // What follows the branch may never be executed, so nothing must wait for the line that it goes on in.
        t.items.truncate(items);
        t.numbers.truncate(items);
        t.cold.truncate(cold);
        (t.insns, at, all_lines, cut) = (insns, end, lines, false);
    }
    if !ended {
        t.fall(at);
    }
    Ok(Translated { cut, ..t.finish(entry_lines, all_lines) })
}

const NOTHING: Op = Op {
    f: crate::exec::int::mov::nop,
    imm: 0,
    disp: 0,
    ip_off: 0,
    d: 0,
    s: 0,
    base: slot::ZERO,
    index: slot::ZERO,
    scale: 0,
    seg: slot::ZERO,
    len: 0,
    rest: 0,
};

impl Translator<'_> {
    /// Prepares the template for an instruction at a page offset.
    fn start(&mut self, insn: &Instruction, at: u64) {
        self.template = Op { ip_off: (at - self.source.page_offset) as u16, len: insn.len() as u8, ..NOTHING };
    }

    /// Adds an op of the current instruction.
    pub(crate) fn push(&mut self, op: Op) {
        self.items.push(Item::Op(op));
        self.numbers.push(self.insns);
    }

    fn extra(&mut self, item: Item) {
        self.items.push(item);
        self.numbers.push(self.insns);
    }

    /// The current instruction's op, to be completed.
    pub(crate) fn op(&self, f: Handler) -> Op {
        Op { f, ..self.template }
    }

    pub(crate) fn mode(&self) -> Mode {
        self.mode
    }

    /// The distance from the block's first byte to a page offset (which wraps for targets in other pages).
    pub(crate) fn delta(&self, page_offset: u64) -> u64 {
        page_offset.wrapping_sub(self.source.page_offset)
    }

    /// True if a link to a page offset has to be checked: it is in another page, or the page may be another one when the block
    /// is executed.
    pub(crate) fn crosses(&self, page_offset: u64) -> bool {
        !self.source.cached || page_offset >> 12 != 0
    }

    /// Adds a terminal op with room for its links.
    pub(crate) fn push_terminal(&mut self, op: Op) {
        self.push(op);
        self.extra(Item::Links);
    }

    fn fall(&mut self, at: u64) {
        let op =
            Op { f: branch::fall_handler(self.crosses(at)), ip_off: (at - self.source.page_offset) as u16, ..NOTHING };
        self.insns -= 1;
        self.push_terminal(op);
        self.insns += 1;
    }

    /// A cold op; `end`: back to the run loop after it.
    pub(crate) fn push_cold(&mut self, insn: &Instruction, f: ExecFn, end: bool) {
        let handler: Handler = match (end, reaches_board(insn)) {
            (_, true) => cold::cold_attend,
            (true, false) => cold::cold_end,
            (false, false) => cold::cold,
        };
        let op = Op { imm: self.note_cold(insn, f), ..self.op(handler) };
        if end { self.push_terminal(op) } else { self.push(op) }
    }

    /// Notes what a cold op executes; returns its [`Op::imm`].
    pub(crate) fn note_cold(&mut self, insn: &Instruction, f: ExecFn) -> u64 {
        self.cold.push((f, *insn));
        (self.source.cold_base + self.cold.len() - 1) as u64
    }

    /// Translates one instruction. True if the block ends with it.
    fn instruction(&mut self, insn: &Instruction) -> bool {
        if insn.is_invalid() {
            self.push_cold(insn, cold::undefined, true);
            return true;
        }
        if let Some(ended) = self.select(insn) {
            return ended;
        }
        let end = ends_block(insn);
        match cold::lookup(insn) {
            Some(f) => self.push_cold(insn, f, end),
            None => {
                self.push_cold(insn, cold::undefined, true);
                return true;
            }
        }
        end
    }

    fn finish(self, entry_lines: u64, all_lines: u64) -> Translated {
        let mut items = self.items;
        for (item, number) in items.iter_mut().zip(&self.numbers) {
            if let Item::Op(op) = item {
                op.rest = (self.insns - 1 - number) as u8;
            }
        }
        fuse::fuse(&mut items);
        Translated { items, insns: self.insns, cold: self.cold, entry_lines, all_lines, cut: false }
    }
}

/// Instructions that access the board or let time pass. (Loads and stores of device memory say so themselves.)
fn reaches_board(insn: &Instruction) -> bool {
    use Mnemonic as M;
    match insn.mnemonic() {
        M::In | M::Out | M::Insb | M::Insw | M::Insd | M::Outsb | M::Outsw | M::Outsd => true,
        M::Wrmsr | M::Hlt | M::Pause | M::Lmsw => true,
        M::Mov => insn.op0_register().is_cr() || insn.op0_register().is_dr(),
        _ => false,
    }
}

/// Instructions after which the run loop must look: control transfers, and what changes the mode, interruptibility,
/// translations or devices.
fn ends_block(insn: &Instruction) -> bool {
    use Mnemonic as M;
    if insn.flow_control() != FlowControl::Next {
        return true;
    }
    if insn.is_string_instruction() {
        return true;
    }
    match insn.mnemonic() {
        M::Sti | M::Cli | M::Popf | M::Popfd | M::Popfq | M::Hlt | M::Pause | M::In | M::Out => true,
        M::Wrmsr | M::Lmsw | M::Clts | M::Invlpg | M::Invpcid | M::Wbinvd | M::Invd | M::Wbnoinvd => true,
        M::Lgdt | M::Lidt | M::Lldt | M::Ltr | M::Lss | M::Xsetbv | M::Swapgs | M::Cpuid | M::Pconfig => true,
        M::Mov => {
            let r = insn.op0_register();
            insn.op0_kind() == iced_x86::OpKind::Register && (r.is_cr() || r.is_dr() || r.is_segment_register())
        }
        M::Pop => insn.op0_register().is_segment_register(),
        _ => false,
    }
}
