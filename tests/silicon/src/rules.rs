//! What need not agree: flags and results that the SDM leaves undefined, and the table of differences between vendors
//! and of approximate results. Everything else is compared exactly.

use crate::state::{Case, fx};
use iced_x86::{Code, Instruction, MemorySize, Mnemonic, OpKind, RflagsBits};
use x86::flags;

/// What a case may differ in.
#[derive(Debug, Clone, Default)]
pub struct Allowance {
    /// RFLAGS bits.
    pub flags: u64,
    /// x87 status-word bits.
    pub fsw: u16,
    /// Bits of general registers: number and mask.
    pub gprs: Vec<(usize, u64)>,
    /// Bytes of memory: offset from the memory operand and length.
    pub memory: Vec<(u64, u64)>,
    /// Units in the last place of x87 results.
    pub x87_ulps: u128,
    /// Relative error of single-precision results, as a power of two.
    pub relative: Option<f64>,
    /// Which of the faults that the memory operand has is raised: #PF on any of its bytes, #GP or #SS.
    pub operand_fault: bool,
    /// The host faults although nothing is accessed.
    pub host_fault: bool,
    /// Upper halves of all general registers, and R8 to R15: the case is 32-bit code.
    pub low_halves: bool,
    /// Upper halves of general registers, if the case ended in compatibility mode.
    pub compatibility_upper: bool,
    /// Which of two operands that fault is reported.
    pub either_operand: bool,
    /// TOP and tags.
    pub tags: bool,
    /// TOP and tags, when the instruction faulted.
    pub mmx_transition: bool,
}

/// A row of the table.
pub struct Rule {
    pub name: &'static str,
    /// Where the SDM (or the APM) says so.
    pub source: &'static str,
    /// What is still required.
    pub bound: &'static str,
    pub applies: fn(&Case) -> bool,
    pub allow: fn(&Case, &mut Allowance),
}

/// x87 condition codes in the status word.
mod sw {
    pub const C0: u16 = 1 << 8;
    pub const C1: u16 = 1 << 9;
    pub const C2: u16 = 1 << 10;
    pub const C3: u16 = 1 << 14;
    pub const PE: u16 = 1 << 5;
    pub const UE: u16 = 1 << 4;
}

/// True on an AMD host (or a relative of one).
pub fn host_is_amd() -> bool {
    let leaf = std::arch::x86_64::__cpuid(0);
    // "AuthenticAMD", "HygonGenuine"
    leaf.ebx == u32::from_le_bytes(*b"Auth") || leaf.ebx == u32::from_le_bytes(*b"Hygo")
}

fn mnemonic(case: &Case) -> Mnemonic {
    case.insn.mnemonic()
}

fn operand_bits(insn: &Instruction, n: u32) -> u32 {
    if insn.op_kind(n) == OpKind::Register {
        insn.op_register(n).size() as u32 * 8
    } else {
        insn.memory_size().size() as u32 * 8
    }
}

/// The masked count of a shift or rotate.
fn count(case: &Case) -> u32 {
    let insn = &case.insn;
    let last = insn.op_count() - 1;
    let raw = match insn.op_kind(last) {
        OpKind::Register => case.pre.gpr[1] as u32,
        _ => u32::from(insn.immediate8()),
    };
    raw & if operand_bits(insn, 0) == 64 { 0x3F } else { 0x1F }
}

/// Flags that are undefined after the case (SDM Vol. 1, appendix A, and the instructions' own pages).
fn undefined_flags(case: &Case) -> u64 {
    use Mnemonic as M;
    let insn = &case.insn;
    match insn.mnemonic() {
        M::Shl | M::Sal | M::Shr | M::Sar => {
            let n = count(case);
            let carry = insn.mnemonic() != M::Sar && n >= operand_bits(insn, 0);
            match n {
                0 => 0,
                1 => flags::AF,
                _ => flags::AF | flags::OF | if carry { flags::CF } else { 0 },
            }
        }
        M::Rol | M::Ror | M::Rcl | M::Rcr => {
            if count(case) > 1 {
                flags::OF
            } else {
                0
            }
        }
        M::Shld | M::Shrd => match count(case) {
            0 => 0,
            1 => flags::AF,
            n if n > operand_bits(insn, 0) => flags::ARITH,
            _ => flags::AF | flags::OF,
        },
        _ => {
            let u = insn.rflags_undefined();
            let bit = |from: u32, to: u64| if u & from != 0 { to } else { 0 };
            bit(RflagsBits::OF, flags::OF)
                | bit(RflagsBits::SF, flags::SF)
                | bit(RflagsBits::ZF, flags::ZF)
                | bit(RflagsBits::AF, flags::AF)
                | bit(RflagsBits::PF, flags::PF)
                | bit(RflagsBits::CF, flags::CF)
        }
    }
}

/// The destination register as a row of [`Allowance::gprs`], or the memory operand.
fn destination(case: &Case, a: &mut Allowance) {
    let insn = &case.insn;
    if insn.op0_kind() == OpKind::Register {
        let r = insn.op0_register();
        let mask = match r.size() {
            2 => 0xFFFF,
            4 => 0xFFFF_FFFF,
            _ => u64::MAX,
        };
        a.gprs.push((r.number(), mask));
    } else {
        a.memory.push((0, insn.memory_size().size() as u64));
    }
}

fn is_x87(insn: &Instruction) -> bool {
    use iced_x86::CpuidFeature as F;
    insn.cpuid_features().iter().any(|f| matches!(f, F::FPU | F::FPU287 | F::FPU387))
}

/// True for codes to which no row but that of flags ever applies.
pub fn defined_everywhere(code: Code) -> bool {
    use Mnemonic as M;
    use iced_x86::{CpuidFeature as F, OpCodeOperandKind as K};
    let families = [F::FPU, F::FPU287, F::FPU387, F::MMX, F::FXSR, F::XSAVE, F::XSAVEOPT];
    let op = code.op_code();
    let x87_or_mmx = code.cpuid_features().iter().any(|f| families.contains(f))
        || op.op_kinds().iter().any(|k| matches!(k, K::mm_or_mem | K::mm_reg | K::mm_rm));
    // Selectors would be random.
    let selectors = matches!(code.mnemonic(), M::Lar | M::Lsl | M::Verr | M::Verw | M::Lss | M::Lfs | M::Lgs)
        || matches!(code.mnemonic(), M::Mov | M::Pop)
            && op.op_kinds().iter().any(|k| matches!(k, K::seg_reg | K::fs | K::gs));
    let undefined = matches!(code.mnemonic(), M::Shld | M::Shrd | M::Bsf | M::Bsr | M::Bswap)
        || matches!(code.mnemonic(), M::Rcpps | M::Rcpss | M::Rsqrtps | M::Rsqrtss)
        || matches!(code, Code::Cmpxchg_rm32_r32 | Code::Movsxd_r16_rm16);
    !(x87_or_mmx || selectors || undefined)
}

/// x87 instructions that define C0, C2 and C3, or leave all of them alone.
fn defines_condition_codes(m: Mnemonic) -> bool {
    use Mnemonic as M;
    matches!(
        m,
        M::Fcom
            | M::Fcomp
            | M::Fcompp
            | M::Fucom
            | M::Fucomp
            | M::Fucompp
            | M::Ficom
            | M::Ficomp
            | M::Ftst
            | M::Fxam
            | M::Fprem
            | M::Fprem1
            | M::Fldenv
            | M::Frstor
            | M::Fnsave
            | M::Fninit
            | M::Fnstenv
            | M::Fcomi
            | M::Fcomip
            | M::Fucomi
            | M::Fucomip
    )
}

/// All rows.
pub const RULES: &[Rule] = &[
    Rule {
        name: "undefined arithmetic flags",
        source: "SDM Vol. 1, appendix A, table A-2; Vol. 2, \"Flags Affected\" of each instruction",
        bound: "the flags not named there agree; a shift by 0 changes none",
        applies: |c| undefined_flags(c) != 0,
        allow: |c, a| a.flags |= undefined_flags(c),
    },
    Rule {
        name: "SHLD and SHRD by more than the operand size",
        source: "SDM Vol. 2B, SHLD: \"If the count is greater than the operand size, the result is undefined\"",
        bound: "faults and the rest of the state agree",
        applies: |c| matches!(mnemonic(c), Mnemonic::Shld | Mnemonic::Shrd) && count(c) > operand_bits(&c.insn, 0),
        allow: destination,
    },
    Rule {
        name: "BSF and BSR of zero",
        source: "SDM Vol. 2A, BSF: \"If the content of the source operand is 0, the content of the destination operand is \
                 undefined\"; AMD and Intel processors leave it unchanged, with bits 63:32 of a 32-bit form vendor-specific",
        bound: "ZF agrees; bits 31:0 agree",
        applies: |c| matches!(mnemonic(c), Mnemonic::Bsf | Mnemonic::Bsr) && operand_bits(&c.insn, 0) == 32,
        allow: |c, a| {
            a.gprs.push((c.insn.op0_register().number(), 0xFFFF_FFFF_0000_0000));
        },
    },
    Rule {
        name: "BSWAP of a 16-bit register",
        source: "SDM Vol. 2A, BSWAP: \"When the BSWAP instruction references a 16-bit register, the result is undefined\"",
        bound: "the rest of the state agrees",
        applies: |c| mnemonic(c) == Mnemonic::Bswap && operand_bits(&c.insn, 0) == 16,
        allow: destination,
    },
    Rule {
        name: "undefined x87 condition codes",
        source: "SDM Vol. 2A, \"FPU Flags Affected\": \"C0, C2, C3 undefined\" of loads, stores and arithmetic",
        bound: "C1 and the exception flags agree",
        applies: |c| is_x87(&c.insn) && !defines_condition_codes(mnemonic(c)),
        allow: |_, a| a.fsw |= sw::C0 | sw::C2 | sw::C3,
    },
    Rule {
        name: "RCPPS, RCPSS, RSQRTPS, RSQRTSS",
        source: "SDM Vol. 2B, RCPPS: \"|Relative Error| <= 1.5 * 2^-12\", each processor's own table",
        bound: "within twice that of each other; zeros, infinities and NaNs agree",
        applies: |c| matches!(mnemonic(c), Mnemonic::Rcpps | Mnemonic::Rcpss | Mnemonic::Rsqrtps | Mnemonic::Rsqrtss),
        allow: |_, a| a.relative = Some(3.0 / 4096.0),
    },
    Rule {
        name: "x87 transcendental functions",
        source: "SDM Vol. 1, section 8.3.10: \"worst case error ... is less than 1 ulp\" in round-to-nearest",
        bound: "1 ulp; C1 and the inexact and underflow flags follow the result",
        applies: |c| {
            use Mnemonic as M;
            matches!(
                mnemonic(c),
                M::F2xm1 | M::Fyl2x | M::Fyl2xp1 | M::Fpatan | M::Fptan | M::Fsin | M::Fcos | M::Fsincos
            )
        },
        allow: |_, a| {
            a.x87_ulps = 1;
            a.fsw |= sw::C1 | sw::PE | sw::UE;
        },
    },
    Rule {
        name: "last-instruction pointers in state images",
        source: "SDM Vol. 1, sections 8.1.8 and 8.1.9; AMD APM Vol. 2, section 11.4.4: saved only with a pending exception",
        bound: "the rest of the image agrees",
        applies: |c| image(&c.insn).is_some(),
        allow: |c, a| match image(&c.insn) {
            Some(Image::Fxsave) => {
                a.memory.push((fx::FOP as u64, (fx::MXCSR - fx::FOP) as u64));
                // MXCSR_MASK: bit 17 is AMD's misaligned-exception mask.
                a.memory.push((fx::MXCSR_MASK as u64, 4));
            }
            Some(Image::Environment28) => a.memory.push((12, 16)),
            Some(Image::Environment14) => a.memory.push((6, 8)),
            None => {}
        },
    },
    Rule {
        name: "FCOMI and relatives: C1",
        source: "SDM Vol. 2A, FCOMI: \"C1 Set to 0\"; AMD processors leave it unless the stack underflows",
        bound: "the rest of the status word agrees",
        applies: |c| matches!(mnemonic(c), Mnemonic::Fcomi | Mnemonic::Fcomip | Mnemonic::Fucomi | Mnemonic::Fucomip),
        allow: |_, a| a.fsw |= sw::C1,
    },
    Rule {
        name: "x87 comparisons with an unmasked invalid operation",
        source: "SDM Vol. 2A, FCOM, table 3-21: \"Flags not set if unmasked invalid-arithmetic-operand (#IA) exception is \
                 generated\"; AMD processors set them",
        bound: "exception flags, registers and tags agree",
        applies: |c| is_comparison(mnemonic(c)) && c.pre.get16(fx::FCW) & 1 == 0,
        allow: |_, a| {
            a.fsw |= sw::C0 | sw::C2 | sw::C3;
            a.flags |= flags::ARITH;
        },
    },
    Rule {
        name: "operands of several accesses that fault",
        source: "SDM Vol. 3A, section 6.5: an instruction with several faults reports one of them",
        bound: "a fault on one of the operand's bytes, nothing changed",
        applies: |c| {
            image(&c.insn).is_some()
                || matches!(c.insn.memory_size(), MemorySize::Bcd | MemorySize::Float80)
                || matches!(mnemonic(c), Mnemonic::Maskmovq | Mnemonic::Maskmovdqu)
        },
        allow: |_, a| a.operand_fault = true,
    },
    Rule {
        name: "bytes that MASKMOVQ and MASKMOVDQU do not store",
        source: "SDM Vol. 2B, MASKMOVQ: \"Exceptions associated with addressing memory and page faults may still be \
                 signaled (implementation dependent)\"",
        bound: "the host may fault where the model has nothing to store",
        applies: |c| matches!(mnemonic(c), Mnemonic::Maskmovdqu | Mnemonic::Maskmovq),
        allow: |_, a| a.host_fault = true,
    },
    Rule {
        name: "two operands that fault",
        source: "SDM Vol. 3A, section 6.5: an instruction with several faults reports one of them; CALL checks its target \
                 before it pushes (SDM Vol. 2A), AMD processors after",
        bound: "both raise a memory fault, nothing changed",
        applies: |c| {
            use Mnemonic as M;
            let strings =
                [M::Movsb, M::Movsw, M::Movsd, M::Movsq, M::Cmpsb, M::Cmpsw, M::Cmpsd, M::Cmpsq].contains(&mnemonic(c));
            let far = matches!(mnemonic(c), M::Call | M::Retf | M::Iret | M::Iretd | M::Iretq)
                || matches!(mnemonic(c), M::Pusha | M::Pushad)
                || mnemonic(c) == M::Pop && c.insn.op0_register().is_segment_register();
            strings && c.insn.is_string_instruction() || far
        },
        allow: |_, a| a.either_operand = true,
    },
    Rule {
        name: "PUSH of a segment register with a 32-bit operand size",
        source: "SDM Vol. 2B, PUSH: recent Intel processors \"perform a 16-bit move, leaving the upper portion of the stack \
                 location unmodified\"; AMD processors zero-extend",
        bound: "the selector agrees",
        applies: |c| mnemonic(c) == Mnemonic::Push && c.bits == 32 && c.insn.op0_register().is_segment_register(),
        allow: |_, a| a.memory.push((2, 2)),
    },
    Rule {
        name: "LAR: bits 19:16",
        source: "SDM Vol. 2A, LAR: \"masked by 00FxFF00H, where 'x' indicates that the four corresponding bits ... are \
                 undefined\"",
        bound: "the other bits agree",
        applies: |c| mnemonic(c) == Mnemonic::Lar,
        allow: |c, a| a.gprs.push((c.insn.op0_register().number(), 0xF_0000)),
    },
    Rule {
        name: "transfers to compatibility mode: bits 63:32 of general registers",
        source: "SDM Vol. 1, section 3.4.1.1: \"undefined when switching from 64-bit to 32-bit modes\"",
        bound: "bits 31:0 agree",
        applies: |c| {
            use Mnemonic as M;
            matches!(mnemonic(c), M::Jmp | M::Call | M::Retf | M::Iret | M::Iretd | M::Iretq)
        },
        allow: |_, a| a.compatibility_upper = true,
    },
    Rule {
        name: "MMX transition before a fault",
        source: "SDM Vol. 3A, section 12.5 does not order it; AMD processors set TOP and the tags before the fault",
        bound: "the rest of the state is unchanged",
        applies: |c| is_mmx(&c.insn),
        allow: |_, a| a.mmx_transition = true,
    },
    Rule {
        name: "CVTPI2PS from memory: MMX transition",
        source: "SDM Vol. 2A, CVTPI2PS: a transition with either form; AMD processors make it only with a register",
        bound: "everything but TOP and the tags agrees",
        applies: |c| c.insn.code() == Code::Cvtpi2ps_xmm_mmm64 && c.insn.op1_kind() == OpKind::Memory,
        allow: |_, a| a.tags = true,
    },
    Rule {
        name: "CMPXCHG of unequal 32-bit registers",
        source: "SDM Vol. 2A, CMPXCHG: DEST := TEMP, which clears bits 63:32; AMD processors do not write DEST",
        bound: "bits 31:0 agree",
        applies: |c| c.insn.code() == Code::Cmpxchg_rm32_r32 && c.insn.op0_kind() == OpKind::Register,
        allow: |c, a| a.gprs.push((c.insn.op0_register().number(), 0xFFFF_FFFF_0000_0000)),
    },
    Rule {
        name: "ENTER with a 16-bit operand size",
        source: "SDM Vol. 2A, ENTER: RBP := FrameTemp with a 64-bit stack; AMD processors write BP",
        bound: "BP agrees",
        applies: |c| c.insn.code() == Code::Enterw_imm16_imm8,
        allow: |_, a| a.gprs.push((5, !0xFFFF)),
    },
];

fn is_comparison(m: Mnemonic) -> bool {
    use Mnemonic as M;
    const MNEMONICS: [Mnemonic; 13] = [
        M::Fcom,
        M::Fcomp,
        M::Fcompp,
        M::Fucom,
        M::Fucomp,
        M::Fucompp,
        M::Ficom,
        M::Ficomp,
        M::Ftst,
        M::Fcomi,
        M::Fcomip,
        M::Fucomi,
        M::Fucomip,
    ];
    MNEMONICS.contains(&m)
}

fn is_mmx(insn: &Instruction) -> bool {
    (0..insn.op_count()).any(|n| insn.op_kind(n) == OpKind::Register && insn.op_register(n).is_mm())
}

/// An image with pointers in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Image {
    Fxsave,
    Environment28,
    Environment14,
}

fn image(insn: &Instruction) -> Option<Image> {
    use MemorySize as S;
    match insn.memory_size() {
        S::Fxsave_512Byte | S::Fxsave64_512Byte | S::Xsave | S::Xsave64 => Some(Image::Fxsave),
        S::FpuEnv28 | S::FpuState108 => Some(Image::Environment28),
        S::FpuEnv14 | S::FpuState94 => Some(Image::Environment14),
        _ => None,
    }
}

/// The sum of all rows that apply, and their indices in [`RULES`].
pub fn allowance(case: &Case) -> (Allowance, Vec<usize>) {
    let mut a = Allowance::default();
    let mut rows = vec![];
    for (i, rule) in RULES.iter().enumerate() {
        if (rule.applies)(case) {
            (rule.allow)(case, &mut a);
            rows.push(i);
        }
    }
    (a, rows)
}
