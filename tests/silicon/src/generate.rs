//! Cases: an encoding of a form, and registers and memory that make it reach something.

mod memory;
mod operands;
pub mod program;
mod registers;

use crate::forms::Form;
use crate::layout::{Arena, CODE, CODE_BYTES, CODE_FIRST, PAGE, arena_index, harmless};
use crate::native::JMP_BYTES;
use crate::rng::Rng;
use crate::state::{Case, SELECTORS_32, State, zero_arena};
use iced_x86::{Code, Decoder, DecoderOptions, Encoder, Instruction, Mnemonic, OpKind};

const LOCK: u8 = 0xF0;

/// Tries to encode a form before the case is given up.
const TRIES: u32 = 40;

/// Makes cases.
pub struct Generator {
    seed: u64,
    /// Memory that cases start from, before they put their own operands there.
    pub image: Box<Arena>,
    encoder: Encoder,
    bits: u32,
    /// Codes that cases may decode to once prefixes were added.
    allowed: Vec<bool>,
    /// True if locked accesses may cross a cache line: kernels punish that where the processor reports it.
    pub split_locks: bool,
}

/// A case under construction.
struct Draft<'a> {
    rng: &'a mut Rng,
    pre: State,
    memory: Box<Arena>,
    insn: Instruction,
    /// It is part of a program.
    program: bool,
    bits: u32,
}

impl Draft<'_> {
    /// 32-bit code starts with zeros in what it cannot see.
    fn narrow(&mut self) {
        if self.bits == 32 {
            self.pre.gpr.iter_mut().for_each(|r| *r &= 0xFFFF_FFFF);
        }
    }

    /// Writes bytes where the arena has them; elsewhere nothing.
    fn put(&mut self, linear: u64, bytes: &[u8]) {
        for (i, b) in bytes.iter().enumerate() {
            if let Some(at) = arena_index(linear.wrapping_add(i as u64))
                && crate::layout::PAGES[at / PAGE].writable
            {
                self.memory[at] = *b;
            }
        }
    }

    fn put_u64(&mut self, linear: u64, value: u64) {
        self.put(linear, &value.to_le_bytes());
    }
}

impl Generator {
    pub fn new(seed: u64, bits: u32, forms: &[Form]) -> Generator {
        let mut image = zero_arena();
        let mut rng = Rng::new(seed, u64::MAX);
        for chunk in image.chunks_mut(16) {
            chunk.copy_from_slice(&rng.vector().to_le_bytes());
        }
        let mut allowed = vec![false; Code::values().count()];
        for form in forms {
            allowed[form.code as usize] = true;
        }
        let split_locks = crate::rules::host_is_amd();
        Generator { seed, image, encoder: Encoder::new(bits), bits, allowed, split_locks }
    }

    /// Case `index`, of `form`. `None` if the form cannot be encoded as drawn.
    pub fn case(&mut self, index: u64, form: Form) -> Option<Case> {
        let mut rng = Rng::new(self.seed, index);
        let rip = self.place(&mut rng);
        for _ in 0..TRIES {
            let mut draft = Draft {
                rng: &mut rng,
                pre: State::default(),
                memory: self.image.clone(),
                insn: Instruction::default(),
                program: false,
                bits: self.bits,
            };
            draft.registers();
            draft.pre.rip = rip;
            if self.bits == 32 {
                draft.pre.selectors = SELECTORS_32;
            }
            if !draft.operands(form) {
                continue;
            }
            let Ok(len) = self.encoder.encode(&draft.insn, rip) else {
                drop(self.encoder.take_buffer());
                continue;
            };
            let mut bytes = self.encoder.take_buffer();
            debug_assert_eq!(bytes.len(), len);
            redundant_prefix(draft.rng, form, &mut bytes);
            let mut decoder = Decoder::with_ip(self.bits, &bytes, rip, DecoderOptions::NONE);
            let insn = decoder.decode();
            let illegal_lock = insn.is_invalid() && bytes[0] == LOCK;
            if illegal_lock {
                draft.narrow();
                let Draft { pre, memory, .. } = draft;
                return Some(Case { bytes, insn, bits: self.bits, pre, memory });
            }
            if insn.len() != bytes.len() || !self.allowed[insn.code() as usize] {
                continue;
            }
            draft.insn = insn;
            draft.implied_operands();
            draft.narrow();
            draft.fill_memory();
            draft.narrow();
            if !draft.is_harmless(self.split_locks) || draft.wild_branch() {
                continue;
            }
            let Draft { pre, memory, insn, .. } = draft;
            return Some(Case { bytes, insn, bits: self.bits, pre, memory });
        }
        None
    }

    /// Where the instruction stands: anywhere in the first page, now and then across a line or the end of the page.
    fn place(&self, rng: &mut Rng) -> u64 {
        let room = CODE_BYTES as u64 - 32 - JMP_BYTES as u64;
        match rng.below(16) {
            0 => CODE + PAGE as u64 - rng.below(16),
            1 | 2 => CODE + 64 * (2 + rng.below(60)) - rng.below(16),
            _ => CODE_FIRST + rng.below(room - (CODE_FIRST - CODE)),
        }
    }
}

/// Adds 66H, F2H, F3H, a segment override or LOCK now and then; the decoder says what became of the instruction.
fn redundant_prefix(rng: &mut Rng, form: Form, bytes: &mut Vec<u8>) {
    if !rng.one_in(12) || bytes.len() > 13 {
        return;
    }
    // 66H on a near branch is where vendors differ, and what it selects is not in the model.
    let branch = form.code.op_code().is_cet_tracked()
        || form.code.is_jcc_short_or_near()
        || matches!(form.code.mnemonic(), Mnemonic::Jmp | Mnemonic::Call | Mnemonic::Ret | Mnemonic::Loop)
        || matches!(
            form.code.mnemonic(),
            Mnemonic::Loope | Mnemonic::Loopne | Mnemonic::Jecxz | Mnemonic::Jrcxz | Mnemonic::Jcxz
        );
    let prefix = rng.pick(&[0x66, 0xF2, 0xF3, 0x2E, 0x3E, 0x26, 0x36, LOCK]);
    // AMD takes LOCK MOV CR0 for CR8, and ignores LOCK before VERR and VERW.
    let verify = matches!(form.code.mnemonic(), Mnemonic::Verr | Mnemonic::Verw);
    if prefix == LOCK && (verify || form.code.op_code().is_privileged()) {
        return;
    }
    // AMD lets F2H and F3H choose the ZF that LOOPE and LOOPNE look for; Intel ignores them.
    let looping = matches!(form.code.mnemonic(), Mnemonic::Loope | Mnemonic::Loopne);
    if !(branch && prefix == 0x66 || looping && prefix >= 0xF2) {
        bytes.insert(0, prefix);
    }
}

impl Draft<'_> {
    /// Every linear address that the instruction may access is one that the host may be asked for.
    fn is_harmless(&self, split_locks: bool) -> bool {
        let accesses = self.accesses();
        let safe = |a: &u64| harmless(*a) && !crate::layout::in_code(*a);
        if !accesses.iter().all(|(at, len)| safe(at) && safe(&at.wrapping_add(*len - 1))) {
            return false;
        }
        // Intel checks linear addresses; AMD checks offsets as well (APM Vol. 2, section 5.3.1).
        let base = self.segment_base();
        if base != 0 && accesses.iter().any(|(at, _)| !cpu::operand::canonical(at.wrapping_sub(base))) {
            return false;
        }
        // MXCSR bit 17 is reserved on Intel, the misaligned-exception mask on AMD.
        if let Some(at) = self.mxcsr_address()
            && crate::layout::arena_index(at.wrapping_add(2)).is_some_and(|i| self.memory[i] & 2 != 0)
        {
            return false;
        }
        // MOVSXD r16, m16 reads 2 bytes on Intel (SDM Vol. 2B, "MOVSXD"), 4 on AMD.
        if self.insn.code() == Code::Movsxd_r16_rm16
            && accesses.iter().any(|(at, _)| at % PAGE as u64 > PAGE as u64 - 4)
        {
            return false;
        }
        // CALL RSP with a bad RSP: Intel checks the target first (SDM Vol. 2A, "CALL"), AMD pushes first.
        if self.insn.code() == Code::Call_rm64
            && self.insn.op0_kind() == iced_x86::OpKind::Register
            && self.insn.op0_register() == iced_x86::Register::RSP
        {
            return false;
        }
        let locked = self.insn.has_lock_prefix() || self.insn.mnemonic() == Mnemonic::Xchg;
        split_locks || !locked || accesses.iter().all(|(at, len)| at % 64 + len <= 64)
    }
}

/// The linear address of a case's explicit memory operand.
pub fn operand_address(case: &Case) -> Option<u64> {
    // MASKMOVQ's and MASKMOVDQU's is implied.
    let implied = match case.insn.op0_kind() {
        OpKind::MemorySegRDI => Some(case.pre.gpr[7]),
        OpKind::MemorySegEDI => Some(case.pre.gpr[7] & 0xFFFF_FFFF),
        OpKind::Register if case.insn.mnemonic() == Mnemonic::Push && case.bits == 32 => Some(case.pre.gpr[4] - 4),
        _ => None,
    };
    match implied {
        Some(offset) => Some(offset.wrapping_add(memory::segment_base(&case.insn, &case.pre))),
        None => memory::operand_address(&case.insn, &case.pre),
    }
}

/// Bytes of a case's explicit memory operand.
pub fn operand_bytes(case: &Case) -> u64 {
    Draft::operand_bytes(&case.insn)
}
