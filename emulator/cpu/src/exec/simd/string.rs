//! PCMPESTRI, PCMPESTRM, PCMPISTRI, PCMPISTRM (SDM Vol. 2, section 4.1, "imm8 Control Byte Operation").

use super::lanes::Lane;
use super::operands::{check_sse, xmm, xmm_m128_unaligned};
use crate::ExecFn;
use crate::state::Cpu;
use iced_x86::{Code, Instruction, Register};
use x86::{Exception, flags};

/// Fields of the control byte.
mod control {
    /// Elements are words, not bytes.
    pub const WORDS: u8 = 1 << 0;
    /// Elements are signed.
    pub const SIGNED: u8 = 1 << 1;
    /// Aggregation operation.
    pub const AGGREGATION_SHIFT: u32 = 2;
    pub const EQUAL_ANY: u8 = 0;
    pub const RANGES: u8 = 1;
    pub const EQUAL_EACH: u8 = 2;
    /// Polarity: invert IntRes1 ...
    pub const NEGATIVE: u8 = 1 << 4;
    /// ... but only where elements of the second operand are valid.
    pub const MASKED: u8 = 1 << 5;
    /// Output selection: most significant index, or byte/word mask.
    pub const OUTPUT: u8 = 1 << 6;
}

/// The elements of an operand as integers.
fn elements(v: u128, imm: u8) -> ([i32; 16], usize) {
    let signed = imm & control::SIGNED != 0;
    let mut r = [0; 16];
    if imm & control::WORDS != 0 {
        for (x, w) in r.iter_mut().zip(u16::split(v)) {
            *x = if signed { i32::from(w as i16) } else { i32::from(w) };
        }
        (r, 8)
    } else {
        for (x, b) in r.iter_mut().zip(u8::split(v)) {
            *x = if signed { i32::from(b as i8) } else { i32::from(b) };
        }
        (r, 16)
    }
}

/// Length of an operand that ends before its first null element.
pub fn implicit_length(v: u128, imm: u8) -> usize {
    let (e, n) = elements(v, imm);
    e[..n].iter().position(|&x| x == 0).unwrap_or(n)
}

/// Length of an operand from EAX, RAX, EDX or RDX: the absolute value, saturated.
pub fn explicit_length(register: i64, imm: u8) -> usize {
    let n = if imm & control::WORDS != 0 { 8 } else { 16 };
    register.unsigned_abs().min(n) as usize
}

/// IntRes2 and the flags CF, ZF, SF and OF at their places in RFLAGS.
pub fn compare(a: u128, b: u128, a_length: usize, b_length: usize, imm: u8) -> (u32, u64) {
    let ((a, n), (b, _)) = (elements(a, imm), elements(b, imm));
    let a_valid = |i: usize| i < a_length;
    let b_valid = |j: usize| j < b_length;
    let bit = |j: usize| match imm >> control::AGGREGATION_SHIFT & 3 {
        control::EQUAL_ANY => b_valid(j) && (0..n).any(|i| a_valid(i) && a[i] == b[j]),
        control::RANGES => b_valid(j) && (0..n).step_by(2).any(|i| a_valid(i + 1) && (a[i]..=a[i + 1]).contains(&b[j])),
        control::EQUAL_EACH => {
            if a_valid(j) && b_valid(j) {
                a[j] == b[j]
            } else {
                a_valid(j) == b_valid(j)
            }
        }
        // Equal ordered: `a` is a substring of `b` at j. Its end may lie beyond the end of the vector.
        _ => (0..n - j).all(|i| !a_valid(i) || b_valid(i + j) && a[i] == b[i + j]),
    };
    let result1 = (0..n).fold(0u32, |r, j| r | u32::from(bit(j)) << j);
    let all = (1u32 << n) - 1;
    let invert = match (imm & control::NEGATIVE != 0, imm & control::MASKED != 0) {
        (false, _) => 0,
        (true, false) => all,
        (true, true) => (1u32 << b_length) - 1,
    };
    let result2 = result1 ^ invert;
    let flag = |on: bool, flag: u64| if on { flag } else { 0 };
    let flags = flag(result2 != 0, flags::CF)
        | flag(b_length < n, flags::ZF)
        | flag(a_length < n, flags::SF)
        | flag(result2 & 1 != 0, flags::OF);
    (result2, flags)
}

/// ECX of the forms that return an index: of the least or most significant set bit, or the number of elements.
pub fn index(result2: u32, imm: u8) -> u32 {
    if result2 == 0 {
        if imm & control::WORDS != 0 { 8 } else { 16 }
    } else if imm & control::OUTPUT != 0 {
        result2.ilog2()
    } else {
        result2.trailing_zeros()
    }
}

/// XMM0 of the forms that return a mask.
pub fn mask(result2: u32, imm: u8) -> u128 {
    let on = |i: usize| result2 >> i & 1 != 0;
    if imm & control::OUTPUT == 0 {
        u128::from(result2)
    } else if imm & control::WORDS != 0 {
        u16::join(std::array::from_fn(|i| if on(i) { 0xFFFF } else { 0 }))
    } else {
        u8::join(std::array::from_fn(|i| if on(i) { 0xFF } else { 0 }))
    }
}

/// Where the lengths come from.
const IMPLICIT: u8 = 0;
const EXPLICIT_32: u8 = 1;
const EXPLICIT_64: u8 = 2;

fn exec<const LENGTHS: u8, const INDEX: bool>(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    check_sse(cpu)?;
    let b = xmm_m128_unaligned(cpu, insn, 1)?;
    let a = xmm(cpu, insn, 0);
    let imm = insn.immediate8();
    let (ax, dx) = (cpu.reg(Register::RAX), cpu.reg(Register::RDX));
    let (a_length, b_length) = match LENGTHS {
        IMPLICIT => (implicit_length(a, imm), implicit_length(b, imm)),
        EXPLICIT_32 => (explicit_length(ax as i32 as i64, imm), explicit_length(dx as i32 as i64, imm)),
        _ => (explicit_length(ax as i64, imm), explicit_length(dx as i64, imm)),
    };
    let (result2, flags) = compare(a, b, a_length, b_length, imm);
    if INDEX {
        cpu.set_reg(Register::ECX, u64::from(index(result2, imm)));
    } else {
        cpu.xmm[0] = mask(result2, imm);
    }
    cpu.lazy.set(flags);
    Ok(())
}

pub fn lookup(code: Code) -> Option<ExecFn> {
    use Code::*;
    let f: ExecFn = match code {
        Pcmpistri_xmm_xmmm128_imm8 => exec::<IMPLICIT, true>,
        Pcmpistrm_xmm_xmmm128_imm8 => exec::<IMPLICIT, false>,
        Pcmpestri_xmm_xmmm128_imm8 => exec::<EXPLICIT_32, true>,
        Pcmpestrm_xmm_xmmm128_imm8 => exec::<EXPLICIT_32, false>,
        Pcmpestri64_xmm_xmmm128_imm8 => exec::<EXPLICIT_64, true>,
        Pcmpestrm64_xmm_xmmm128_imm8 => exec::<EXPLICIT_64, false>,
        _ => return None,
    };
    Some(f)
}
