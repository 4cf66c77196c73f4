//! The exactly specified x87 operations, done by the host's x87 FPU.
//!
//! IEEE 754 and the SDM define every operation here to the last bit and flag, so the host's make does not matter; tests
//! compare what could differ (NaN selection, unmasked responses) with software models. Operations that are not defined
//! exactly (transcendentals, how far FPREM reduces at a time) must not be added.
//!
//! Each run starts from FNINIT and the guest's control word. Unmasked exceptions stay unmasked, since only then does the
//! FPU deliver the biased results of SDM Vol. 1, sections 8.5.4 and 8.5.5. They never trap here: #MF is raised by the next
//! *waiting* instruction, and FNSTSW and FNCLEX, which do not wait, come before one. FNINIT at the end leaves the register
//! stack empty and the control word at its ABI default.

#![allow(unsafe_code)]

use super::spec::sw;
use std::arch::asm;

/// What an operation delivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// The result in the destination's format. Unspecified if an unmasked exception suppressed the operation.
    pub value: u128,
    /// Exception flags and condition codes as the operation alone sets them in a cleared status word.
    pub status: u16,
}

impl Outcome {
    pub fn new(value: u128, status: u16) -> Self {
        Outcome { value, status }
    }
}

/// The second operand of an arithmetic instruction or comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Register(u128),
    Single(u32),
    Double(u64),
    Word(u16),
    Dword(u32),
}

/// Operations of ST(0) with a [`Source`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arith {
    Add,
    Mul,
    /// ST(0) - source
    Sub,
    /// source - ST(0)
    SubR,
    /// ST(0) / source
    Div,
    /// source / ST(0)
    DivR,
}

/// Operations of one or two stack registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unary {
    Sqrt,
    RoundInt,
    /// ST(0) scaled by ST(1).
    Scale,
    /// One step of FPREM. Only for exponent differences below 64, where it is defined exactly.
    Prem,
    /// Like [`Unary::Prem`].
    Prem1,
}

/// Destination formats of stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Single,
    Double,
    Word,
    Dword,
    Qword,
    WordTruncated,
    DwordTruncated,
    QwordTruncated,
    Bcd,
}

/// The control word with PC = 01B, which is reserved, made 11B: what a host does with it must not matter.
fn precision_pinned(cw: u16) -> u16 {
    const PC: u16 = 3 << 8;
    const RESERVED: u16 = 1 << 8;
    if cw & PC == RESERVED { cw | PC } else { cw }
}

/// Runs instructions between FNINIT + FLDCW and FNINIT. `a`, `s` and `d` are the addresses of 16-byte variables.
macro_rules! run {
    ($cw:expr, $a:expr, $s:expr, $d:expr, $($line:expr),+ $(,)?) => {{
        let status: u16;
        let cw: u16 = precision_pinned($cw);
        // SAFETY: the pointers are to live locals of at least 16 bytes, as much as any of the operand sizes; only `d` is
        // written. No instruction traps: exceptions that are unmasked are cleared by a non-waiting instruction before a
        // waiting one. All x87 registers are declared clobbered, and FNINIT restores the state that the ABI wants.
        unsafe {
            asm!(
                "fninit",
                "fldcw word ptr [{cw}]",
                $($line,)+
                "fninit",
                "/* {a} {s} {d} */",
                cw = in(reg) &raw const cw,
                a = in(reg) &raw const $a,
                s = in(reg) &raw const $s,
                d = in(reg) &raw mut $d,
                out("ax") status,
                out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
                out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
                options(nostack),
            );
        }
        status
    }};
}

/// ST(0) op ST(1): `$s` is ST(1).
macro_rules! registers {
    ($cw:expr, $a:expr, $s:expr, $d:expr, $insn:expr) => {
        run!(
            $cw,
            $a,
            $s,
            $d,
            "fld tbyte ptr [{s}]",
            "fld tbyte ptr [{a}]",
            $insn,
            "fnstsw ax",
            "fnclex",
            "fstp tbyte ptr [{d}]"
        )
    };
}

/// ST(0) op memory at `$s`.
macro_rules! memory {
    ($cw:expr, $a:expr, $s:expr, $d:expr, $insn:expr) => {{
        let s: u128 = $s;
        run!(
            $cw,
            $a,
            s,
            $d,
            "fld tbyte ptr [{a}]",
            concat!($insn, " ptr [{s}]"),
            "fnstsw ax",
            "fnclex",
            "fstp tbyte ptr [{d}]"
        )
    }};
}

/// All operand forms of one instruction: with ST(1), with a float in memory, with an integer in memory.
macro_rules! forms {
    ($cw:expr, $a:expr, $src:expr, $d:expr, $register:literal, $float:literal, $int:literal) => {
        match $src {
            Source::Register(s) => registers!($cw, $a, s, $d, $register),
            Source::Single(v) => memory!($cw, $a, u128::from(v), $d, concat!($float, " dword")),
            Source::Double(v) => memory!($cw, $a, u128::from(v), $d, concat!($float, " qword")),
            Source::Word(v) => memory!($cw, $a, u128::from(v), $d, concat!($int, " word")),
            Source::Dword(v) => memory!($cw, $a, u128::from(v), $d, concat!($int, " dword")),
        }
    };
}

const RESULT: u16 = sw::EXCEPTIONS | sw::C1;

/// ST(0) `op` source under control word `cw`.
pub fn arith(op: Arith, cw: u16, a: u128, source: Source) -> Outcome {
    let mut d = 0u128;
    let status = match op {
        Arith::Add => forms!(cw, a, source, d, "fadd st(0), st(1)", "fadd", "fiadd"),
        Arith::Mul => forms!(cw, a, source, d, "fmul st(0), st(1)", "fmul", "fimul"),
        Arith::Sub => forms!(cw, a, source, d, "fsub st(0), st(1)", "fsub", "fisub"),
        Arith::SubR => forms!(cw, a, source, d, "fsubr st(0), st(1)", "fsubr", "fisubr"),
        Arith::Div => forms!(cw, a, source, d, "fdiv st(0), st(1)", "fdiv", "fidiv"),
        Arith::DivR => forms!(cw, a, source, d, "fdivr st(0), st(1)", "fdivr", "fidivr"),
    };
    Outcome::new(d, status & RESULT)
}

/// FCOM of ST(0) with a source: flags and C0, C2, C3. `unordered` is FUCOM, for which a QNaN is not an exception; it has
/// no memory forms.
pub fn compare(unordered: bool, cw: u16, a: u128, source: Source) -> u16 {
    let mut d = 0u128;
    let status = match source {
        Source::Register(s) if unordered => registers!(cw, a, s, d, "fucom st(1)"),
        _ => forms!(cw, a, source, d, "fcom st(1)", "fcom", "ficom"),
    };
    status & (sw::EXCEPTIONS | sw::CC)
}

/// ST(0) = op(ST(0), ST(1)); operations of one register ignore `b`.
pub fn unary(op: Unary, cw: u16, a: u128, b: u128) -> Outcome {
    let mut d = 0u128;
    let status = match op {
        Unary::Sqrt => registers!(cw, a, b, d, "fsqrt"),
        Unary::RoundInt => registers!(cw, a, b, d, "frndint"),
        Unary::Scale => registers!(cw, a, b, d, "fscale"),
        Unary::Prem => registers!(cw, a, b, d, "fprem"),
        Unary::Prem1 => registers!(cw, a, b, d, "fprem1"),
    };
    let codes = if matches!(op, Unary::Prem | Unary::Prem1) { sw::CC } else { 0 };
    Outcome::new(d, status & (RESULT | codes))
}

/// FXTRACT: the significand (the new ST(0)) and the exponent (ST(1)).
pub fn extract(cw: u16, a: u128) -> (Outcome, u128) {
    let mut d = [0u128; 2];
    let unused = 0u128;
    let status = run!(
        cw,
        a,
        unused,
        d,
        "fld tbyte ptr [{a}]",
        "fxtract",
        "fnstsw ax",
        "fnclex",
        "fstp tbyte ptr [{d}]",
        // Underflows if an unmasked exception suppressed the operation; FNINIT then discards the flag.
        "fstp tbyte ptr [{d} + 16]"
    );
    (Outcome::new(d[0], status & RESULT), d[1])
}

/// FLD of a single or double.
pub fn load(cw: u16, source: Source) -> Outcome {
    let mut d = 0u128;
    let unused = 0u128;
    let status = match source {
        Source::Single(v) => {
            let s = u128::from(v);
            run!(cw, unused, s, d, "fld dword ptr [{s}]", "fnstsw ax", "fnclex", "fstp tbyte ptr [{d}]")
        }
        Source::Double(v) => {
            let s = u128::from(v);
            run!(cw, unused, s, d, "fld qword ptr [{s}]", "fnstsw ax", "fnclex", "fstp tbyte ptr [{d}]")
        }
        Source::Register(v) => return Outcome::new(v, 0),
        Source::Word(v) => return Outcome::new(super::f80::from_i64(i64::from(v as i16)), 0),
        Source::Dword(v) => return Outcome::new(super::f80::from_i64(i64::from(v as i32)), 0),
    };
    Outcome::new(d, status & RESULT)
}

/// FST, FIST, FISTTP or FBSTP: ST(0) in a memory format.
pub fn store(format: Format, cw: u16, a: u128) -> Outcome {
    let mut d = 0u128;
    let unused = 0u128;
    macro_rules! store {
        ($insn:expr) => {
            run!(cw, a, unused, d, "fld tbyte ptr [{a}]", concat!($insn, " ptr [{d}]"), "fnstsw ax", "fnclex")
        };
    }
    let status = match format {
        Format::Single => store!("fstp dword"),
        Format::Double => store!("fstp qword"),
        Format::Word => store!("fistp word"),
        Format::Dword => store!("fistp dword"),
        Format::Qword => store!("fistp qword"),
        Format::WordTruncated => store!("fisttp word"),
        Format::DwordTruncated => store!("fisttp dword"),
        Format::QwordTruncated => store!("fisttp qword"),
        Format::Bcd => store!("fbstp tbyte"),
    };
    Outcome::new(d, status & RESULT)
}
