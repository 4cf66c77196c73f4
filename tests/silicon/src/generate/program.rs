//! Programs: a few instructions in a row, perhaps in a loop. They test what single cases cannot: flags that one
//! instruction leaves to the next, blocks of several instructions, faults in the middle of one, and links between blocks.
//!
//! Addresses stay known because no instruction writes the [`POINTERS`], but for the steps of PUSH, POP and string
//! instructions.

use super::{Draft, Generator};
use crate::forms::Form;
use crate::layout::{Arena, CODE_FIRST, DATA, PAGE, STACK};
use crate::rng::Rng;
use crate::rules::defined_everywhere;
use crate::state::{Case, State};
use iced_x86::{
    CpuidFeature, Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess,
    OpCodeOperandKind, OpKind, Register, RflagsBits,
};

/// Base registers of memory operands, and the index.
const BASES: [Register; 5] = [Register::RBX, Register::R12, Register::RSI, Register::RDI, Register::RSP];
const INDEX: Register = Register::R13;
const COUNTER: Register = Register::R15;
/// Registers that programs do not write.
const POINTERS: [Register; 7] =
    [Register::RBX, Register::R12, Register::RSI, Register::RDI, Register::RSP, INDEX, COUNTER];

/// DEC R15D and JNZ rel32.
const DEC_R15D: [u8; 3] = [0x41, 0xFF, 0xCF];
const JNZ: [u8; 2] = [0x0F, 0x85];

/// Instructions in a row.
#[derive(Clone)]
pub struct Program {
    /// Encodings, none of which depends on where it stands.
    pub parts: Vec<Vec<u8>>,
    /// The parts are repeated R15 times.
    pub looped: bool,
    pre: State,
    memory: Box<Arena>,
}

impl Program {
    /// The whole as one case.
    pub fn case(&self) -> Case {
        let mut bytes = self.parts.concat();
        if self.looped {
            bytes.extend(DEC_R15D);
            bytes.extend(JNZ);
            let back = -((bytes.len() + 4) as i32);
            bytes.extend(back.to_le_bytes());
        }
        if bytes.is_empty() {
            bytes.push(0x90);
        }
        let insn = Decoder::with_ip(64, &bytes, self.pre.rip, DecoderOptions::NONE).decode();
        Case { bytes, insn, bits: 64, pre: self.pre.clone(), memory: self.memory.clone() }
    }

    /// The program without part `n`.
    pub fn without(&self, n: usize) -> Program {
        let mut shorter = self.clone();
        shorter.parts.remove(n);
        shorter
    }
}

/// True for forms that programs may contain: what they do is defined and the same everywhere, and they go on to the next
/// instruction.
pub fn belongs(form: Form) -> bool {
    use Mnemonic as M;
    let op = form.code.op_code();
    let m = form.code.mnemonic();
    let excluded = op.is_privileged()
        || form.code.flow_control() != FlowControl::Next
        || matches!(m, M::Pushf | M::Pushfq | M::Popf | M::Popfq | M::Lahf | M::Enter | M::Leave)
        || matches!(m, M::Ldmxcsr | M::Stmxcsr | M::Wrfsbase | M::Wrgsbase | M::Xlatb | M::Maskmovdqu)
        // A register may hold any bit offset.
        || form.memory && matches!(m, M::Bt | M::Bts | M::Btr | M::Btc)
        || op.op_kinds().contains(&OpCodeOperandKind::mem_offs);
    !excluded && defined_everywhere(form.code)
}

impl Generator {
    /// Program `index` from `forms`, all of which [`belongs`].
    pub fn program(&mut self, index: u64, forms: &[Form]) -> Program {
        let mut rng = Rng::new(self.seed ^ 0x5A5A_0000, index);
        let mut draft = Draft {
            rng: &mut rng,
            pre: State::default(),
            memory: self.image.clone(),
            insn: Instruction::default(),
            program: true,
            bits: 64,
        };
        draft.registers();
        draft.pointers();
        let rip = CODE_FIRST + draft.rng.below(2 * PAGE as u64 - 0x400);
        draft.pre.rip = rip;
        let looped = draft.rng.one_in(3);
        let wanted = 1 + draft.rng.below(if looped { 6 } else { 24 });
        let mut factory = InstructionInfoFactory::new();
        let mut parts = vec![];
        let mut tries = 0;
        while (parts.len() as u64) < wanted && tries < 400 {
            tries += 1;
            // Half of the instructions work on general registers, where flags matter.
            let form = draft.rng.pick(forms);
            let general = (form.code.cpuid_features()).iter().all(|f| (*f as u32) <= CpuidFeature::X64 as u32);
            if !general && draft.rng.one_in(2) {
                continue;
            }
            if !draft.operands(form) || self.encoder.encode(&draft.insn, rip).is_err() {
                drop(self.encoder.take_buffer());
                continue;
            }
            let bytes = self.encoder.take_buffer();
            let insn = Decoder::with_ip(64, &bytes, rip, DecoderOptions::NONE).decode();
            if insn.len() != bytes.len() || insn.code() != form.code || writes_pointer(&mut factory, &insn) {
                continue;
            }
            // Where they lie depends on what ran before.
            if !self.split_locks && is_locked(&insn) {
                continue;
            }
            let general_only = factory.info(&insn).used_memory().is_empty();
            parts.push(wrap(draft.rng, &insn, general_only, bytes));
            let undefined = insn.rflags_undefined() & !RflagsBits::AF;
            if undefined != 0 {
                parts.push(define_flags(draft.rng));
            }
        }
        let Draft { pre, memory, .. } = draft;
        Program { parts, looped, pre, memory }
    }
}

/// Puts control flow around an instruction now and then: Jcc over it, a call of it, REP with a count.
fn wrap(rng: &mut Rng, insn: &Instruction, no_memory: bool, mut bytes: Vec<u8>) -> Vec<u8> {
    const JCC: u8 = 0x70;
    const CALL: u8 = 0xE8;
    const JMP: u8 = 0xEB;
    const RET: u8 = 0xC3;
    const MOV_ECX: u8 = 0xB9;
    let len = bytes.len() as u8;
    if insn.is_string_instruction() && rng.one_in(2) {
        let count = rng.below(12) as u8;
        let rep = rng.pick(&[0xF2, 0xF3]);
        // MOVS, STOS and LODS take F3H only.
        let rep = if matches!(insn.code().op_code().op_code() & 0xFE, 0xA6 | 0xAE) { rep } else { 0xF3 };
        bytes.insert(0, rep);
        bytes.splice(0..0, [MOV_ECX, count, 0, 0, 0]);
        return bytes;
    }
    match rng.below(8) {
        0 | 1 => bytes.splice(0..0, [JCC | rng.below(16) as u8, len]).count(),
        // What the call leaves on the stack must be there for RET.
        2 if no_memory => {
            bytes.splice(0..0, [CALL, 2, 0, 0, 0, JMP, len + 1]);
            bytes.push(RET);
            0
        }
        _ => 0,
    };
    bytes
}

/// ADD, SUB or CMP of two registers that are not pointers: after it every flag is defined.
fn define_flags(rng: &mut Rng) -> Vec<u8> {
    let opcode = rng.pick(&[0x01, 0x29, 0x39]);
    // RAX, RCX, RDX
    let (a, b) = (rng.below(3) as u8, rng.below(3) as u8);
    let rex = rng.pick(&[0x40, 0x48]);
    vec![rex, opcode, 0xC0 | a << 3 | b]
}

/// LOCK, and XCHG, which does without (SDM Vol. 3A, section 9.1.2.1).
fn is_locked(insn: &Instruction) -> bool {
    let memory = insn.op_kinds().any(|k| k == OpKind::Memory);
    insn.has_lock_prefix() || memory && insn.mnemonic() == Mnemonic::Xchg
}

/// True if the instruction changes a register that addresses are formed from in a way that is not foreseen.
fn writes_pointer(factory: &mut InstructionInfoFactory, insn: &Instruction) -> bool {
    let steps_stack = matches!(insn.mnemonic(), Mnemonic::Push | Mnemonic::Pop);
    let named = |r: Register| {
        (0..insn.op_count()).any(|n| insn.op_kind(n) == OpKind::Register && insn.op_register(n).full_register() == r)
    };
    factory.info(insn).used_registers().iter().any(|u| {
        let r = u.register().full_register();
        let writes =
            !matches!(u.access(), OpAccess::Read | OpAccess::CondRead | OpAccess::None | OpAccess::NoMemAccess);
        let implied = r == Register::RSP && steps_stack && !named(r)
            || insn.is_string_instruction() && matches!(r, Register::RSI | Register::RDI);
        writes && POINTERS.contains(&r) && !implied
    })
}

impl Draft<'_> {
    /// Pointers into the pages, with room for every displacement and step around them.
    fn pointers(&mut self) {
        for register in BASES {
            let page = if register == Register::RSP { STACK } else { DATA + self.rng.below(2) * PAGE as u64 };
            self.pre.gpr[register.number()] = page + 0x500 + (self.rng.below(0x600) & !0xF);
        }
        // Misaligned now and then.
        if self.rng.one_in(4) {
            self.pre.gpr[3] += self.rng.below(16);
        }
        self.pre.gpr[INDEX.number()] = 8 * self.rng.below(9);
        self.pre.gpr[COUNTER.number()] = 1 + self.rng.below(20);
        // No pending exception.
        self.pre.set16(0, 0x37F);
        let status = self.pre.get16(2) & 0x7F00;
        self.pre.set16(2, status);
    }

    /// A memory operand of a program.
    pub fn pointer_operand(&mut self, insn: &mut Instruction) {
        insn.set_memory_base(self.rng.pick(&BASES));
        if self.rng.one_in(3) {
            insn.set_memory_index(INDEX);
            insn.set_memory_index_scale(1 << self.rng.below(4));
        }
        let displacement = (self.rng.below(33) as i64 - 16) * 16 + i64::from(self.rng.one_in(8));
        insn.set_memory_displacement64(displacement as u64);
        insn.set_memory_displ_size(if displacement == 0 { 0 } else { 1 });
    }
}
