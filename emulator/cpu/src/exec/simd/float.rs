//! Floating-point arithmetic, comparison, minimum, maximum and dot products.

use super::format::{DOUBLE, Format, SINGLE};
use super::host;
use super::lanes::low;
use super::mxcsr::{OE, PE, UE, deliver, host_control, raise, reported, unmasked};
use super::operands::*;
use super::shuffle::{deinterleave, movddup, pshufd};
use crate::ExecFn;
use crate::state::Cpu;
use iced_x86::{Code, Instruction};
use x86::{Exception, flags};

type Done = Result<(), Exception>;
/// Result and MXCSR flags of an operation.
pub type Outcome = (u128, u32);

/// `xmm1 = f(MXCSR, xmm1, xmm2/m128)`
#[inline(always)]
pub fn packed(cpu: &mut Cpu, insn: &Instruction, f: impl FnOnce(u32, u128, u128) -> Outcome) -> Done {
    check_sse(cpu)?;
    let src = xmm_m128(cpu, insn, 1)?;
    let (value, flags) = f(cpu.mxcsr, xmm(cpu, insn, 0), src);
    raise(cpu, flags)?;
    set_xmm(cpu, insn, 0, value);
    Ok(())
}

/// `xmm1 = f(MXCSR, xmm1, xmm2/m32 or m64)`. `f` uses only the source's low element and keeps the destination's upper
/// ones.
#[inline(always)]
pub fn scalar(cpu: &mut Cpu, insn: &Instruction, f: impl FnOnce(u32, u128, u128) -> Outcome) -> Done {
    check_sse(cpu)?;
    let src = xmm_scalar(cpu, insn, 1)?;
    let (value, flags) = f(cpu.mxcsr, xmm(cpu, insn, 0), src);
    raise(cpu, flags)?;
    set_xmm(cpu, insn, 0, value);
    Ok(())
}

/// Arithmetic that can overflow or underflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Add,
    Sub,
    Mul,
    Div,
}

impl Operation {
    /// The host's instruction for one element.
    fn one(self, format: Format, control: u32, a: u64, b: u64) -> (u64, u32) {
        let run = match (self, format == SINGLE) {
            (Operation::Add, true) => host::addss,
            (Operation::Add, false) => host::addsd,
            (Operation::Sub, true) => host::subss,
            (Operation::Sub, false) => host::subsd,
            (Operation::Mul, true) => host::mulss,
            (Operation::Mul, false) => host::mulsd,
            (Operation::Div, true) => host::divss,
            (Operation::Div, false) => host::divsd,
        };
        let (v, flags) = run(control, a.into(), b.into());
        (v as u64, flags)
    }

    /// Is the result, rounded to the format's precision with an unbounded exponent, inexact? For operands whose result
    /// overflows or is tiny: operands with other exponents give the same significand in range.
    fn inexact_unbounded(self, format: Format, control: u32, a: u64, b: u64) -> bool {
        let rescale = match self {
            Operation::Add | Operation::Sub => Format::quartered,
            Operation::Mul | Operation::Div => Format::normalized,
        };
        self.one(format, control, rescale(format, a), rescale(format, b)).1 & PE != 0
    }
}

/// Flags of one element whose operation ran with underflow and overflow masked, if the guest does not mask both: an
/// unmasked underflow is signalled for every tiny result, exact or not, and with an unmasked underflow or overflow PE
/// tells of the result with an unbounded exponent (SDM Vol. 1, sections 4.9.1.4 to 4.9.1.6 and E.4.2.2).
fn unmasked_flags(mxcsr: u32, flags: u32, tiny: bool, inexact_unbounded: impl FnOnce() -> bool) -> u32 {
    let tiny = unmasked(mxcsr, UE) != 0 && (tiny || flags & UE != 0);
    let huge = unmasked(mxcsr, flags & OE) != 0;
    if !tiny && !huge {
        return flags;
    }
    flags & !PE | if tiny { UE } else { 0 } | if inexact_unbounded() { PE } else { 0 }
}

/// Runs `whole`, an instruction on the low `count` elements. If the guest unmasks underflow or overflow, the flags are
/// found element by element.
#[inline(always)]
fn arithmetic(
    operation: Operation,
    format: Format,
    count: usize,
    whole: impl FnOnce(u32, u128, u128) -> Outcome,
    (mxcsr, a, b): (u32, u128, u128),
) -> Outcome {
    let control = host_control(mxcsr);
    let (value, flags) = whole(control, a, b);
    if unmasked(mxcsr, OE | UE) == 0 {
        return (value, flags);
    }
    (value, arithmetic_flags(operation, format, count, (mxcsr, a, b)))
}

#[cold]
fn arithmetic_flags(operation: Operation, format: Format, count: usize, (mxcsr, a, b): (u32, u128, u128)) -> u32 {
    let control = host_control(mxcsr);
    (0..count).fold(0, |all, i| {
        let (x, y) = (format.element(a, i), format.element(b, i));
        let (value, flags) = operation.one(format, control, x, y);
        all | unmasked_flags(mxcsr, flags, format.is_denormal(value), || {
            operation.inexact_unbounded(format, control, x, y)
        })
    })
}

macro_rules! arithmetic_ops {
    ($($name:ident: $operation:ident, $format:ident, $count:literal;)*) => {$(
        #[inline(always)]
        pub fn $name(mxcsr: u32, a: u128, b: u128) -> Outcome {
            arithmetic(Operation::$operation, $format, $count, host::$name, (mxcsr, a, b))
        }
    )*};
}

arithmetic_ops! {
    addps: Add, SINGLE, 4;
    addpd: Add, DOUBLE, 2;
    addss: Add, SINGLE, 1;
    addsd: Add, DOUBLE, 1;
    subps: Sub, SINGLE, 4;
    subpd: Sub, DOUBLE, 2;
    subss: Sub, SINGLE, 1;
    subsd: Sub, DOUBLE, 1;
    mulps: Mul, SINGLE, 4;
    mulpd: Mul, DOUBLE, 2;
    mulss: Mul, SINGLE, 1;
    mulsd: Mul, DOUBLE, 1;
    divps: Div, SINGLE, 4;
    divpd: Div, DOUBLE, 2;
    divss: Div, SINGLE, 1;
    divsd: Div, DOUBLE, 1;
}

/// CVTSD2SS
pub fn cvtsd2ss(mxcsr: u32, a: u128, b: u128) -> Outcome {
    let (value, flags) = host::cvtsd2ss(host_control(mxcsr), a, b);
    if unmasked(mxcsr, OE | UE) == 0 { (value, flags) } else { (value, narrowing_flags(mxcsr, 1, b)) }
}

/// CVTPD2PS
pub fn cvtpd2ps(mxcsr: u32, a: u128, b: u128) -> Outcome {
    let (value, flags) = host::cvtpd2ps(host_control(mxcsr), a, b);
    if unmasked(mxcsr, OE | UE) == 0 { (value, flags) } else { (value, narrowing_flags(mxcsr, 2, b)) }
}

#[cold]
fn narrowing_flags(mxcsr: u32, count: usize, b: u128) -> u32 {
    let control = host_control(mxcsr);
    (0..count).fold(0, |all, i| {
        let x = DOUBLE.element(b, i);
        let (value, flags) = host::cvtsd2ss(control, 0, x.into());
        all | unmasked_flags(mxcsr, flags, SINGLE.is_denormal(value as u64), || {
            host::cvtsd2ss(control, 0, DOUBLE.normalized(x).into()).1 & PE != 0
        })
    })
}

/// Operations that neither overflow nor underflow: the host's flags are the guest's.
macro_rules! direct {
    ($($name:ident)*) => {$(
        #[inline(always)]
        pub fn $name(mxcsr: u32, a: u128, b: u128) -> Outcome {
            host::$name(host_control(mxcsr), a, b)
        }
    )*};
}

direct! {
    minps minpd minss minsd
    maxps maxpd maxss maxsd
    sqrtps sqrtpd sqrtss sqrtsd
}

/// CMPPS and its like: the predicate is imm[2:0], the other bits are ignored in legacy encodings.
macro_rules! compare_ops {
    ($($name:ident)*) => {$(
        #[inline(always)]
        pub fn $name(mxcsr: u32, a: u128, b: u128, imm: u8) -> Outcome {
            let run = match imm & 7 {
                0 => host::$name::<0>,
                1 => host::$name::<1>,
                2 => host::$name::<2>,
                3 => host::$name::<3>,
                4 => host::$name::<4>,
                5 => host::$name::<5>,
                6 => host::$name::<6>,
                _ => host::$name::<7>,
            };
            run(host_control(mxcsr), a, b)
        }
    )*};
}

compare_ops!(cmpps cmppd cmpss cmpsd);

/// HADDPS, HADDPD, HSUBPS, HSUBPD: the lower element of each pair is the first source operand.
macro_rules! horizontal {
    ($($name:ident: $lane:ty, $vertical:ident;)*) => {$(
        #[inline(always)]
        pub fn $name(mxcsr: u32, a: u128, b: u128) -> Outcome {
            let (even, odd) = deinterleave::<$lane, 16>(a, b);
            $vertical(mxcsr, even, odd)
        }
    )*};
}

horizontal! {
    haddps: u32, addps;
    haddpd: u64, addpd;
    hsubps: u32, subps;
    hsubpd: u64, subpd;
}

/// Subtracts the even elements and adds the odd ones. The elements an operation is not for are made zero, which raises
/// nothing.
#[inline(always)]
fn add_sub(
    (mxcsr, a, b): (u32, u128, u128),
    odd: u128,
    add: impl FnOnce(u32, u128, u128) -> Outcome,
    sub: impl FnOnce(u32, u128, u128) -> Outcome,
) -> Outcome {
    let (sums, add_flags) = add(mxcsr, a & odd, b & odd);
    let (differences, sub_flags) = sub(mxcsr, a & !odd, b & !odd);
    (sums & odd | differences & !odd, add_flags | sub_flags)
}

pub fn addsubps(mxcsr: u32, a: u128, b: u128) -> Outcome {
    add_sub((mxcsr, a, b), 0xFFFF_FFFF_0000_0000_FFFF_FFFF_0000_0000, addps, subps)
}

pub fn addsubpd(mxcsr: u32, a: u128, b: u128) -> Outcome {
    add_sub((mxcsr, a, b), !u128::from(u64::MAX), addpd, subpd)
}

/// `v` with only the lanes of `bits` bits whose bit is set in `select`.
fn select_lanes(v: u128, bits: u32, select: u8) -> u128 {
    (0..128 / bits).fold(0, |r, i| if select >> i & 1 != 0 { r | v & (((1 << bits) - 1) << (bits * i)) } else { r })
}

/// The steps of a dot product. Each is an operation of its own as exceptions go: an unmasked one ends the instruction
/// with the flags of the steps before it (SDM Vol. 2A, "DPPD", "DPPS").
struct Steps {
    mxcsr: u32,
    flags: u32,
}

impl Steps {
    /// The result of a step, or the flags at its unmasked exception.
    fn run(&mut self, f: impl FnOnce(u32, u128, u128) -> Outcome, a: u128, b: u128) -> Result<u128, u32> {
        let (value, flags) = f(self.mxcsr, a, b);
        let flags = reported(self.mxcsr, flags);
        self.flags |= flags;
        if unmasked(self.mxcsr, flags) != 0 { Err(self.flags) } else { Ok(value) }
    }
}

/// DPPS: multiplications, two additions and a last one. The flags are those to report.
pub fn dpps(mxcsr: u32, a: u128, b: u128, imm: u8) -> Outcome {
    let mut steps = Steps { mxcsr, flags: 0 };
    let mut sum = || {
        let products = steps.run(mulps, select_lanes(a, 32, imm >> 4), select_lanes(b, 32, imm >> 4))?;
        // Only the low two elements of the sums mean something.
        let (even, odd) = deinterleave::<u32, 16>(products, 0);
        let sums = steps.run(addps, even, odd)?;
        steps.run(addss, low::<4>(sums), low::<4>(sums >> 32))
    };
    match sum() {
        Ok(sum) => (select_lanes(pshufd(0, sum, 0), 32, imm), steps.flags),
        Err(flags) => (a, flags),
    }
}

/// DPPD: multiplications and an addition. The flags are those to report.
pub fn dppd(mxcsr: u32, a: u128, b: u128, imm: u8) -> Outcome {
    let mut steps = Steps { mxcsr, flags: 0 };
    let mut sum = || {
        let products = steps.run(mulpd, select_lanes(a, 64, imm >> 4), select_lanes(b, 64, imm >> 4))?;
        steps.run(addsd, low::<8>(products), products >> 64)
    };
    match sum() {
        Ok(sum) => (select_lanes(movddup(sum), 64, imm), steps.flags),
        Err(flags) => (a, flags),
    }
}

/// DPPS, DPPD
#[inline(always)]
fn dot_product(cpu: &mut Cpu, insn: &Instruction, f: impl FnOnce(u32, u128, u128, u8) -> Outcome) -> Done {
    check_sse(cpu)?;
    let src = xmm_m128(cpu, insn, 1)?;
    let (value, flags) = f(cpu.mxcsr, xmm(cpu, insn, 0), src, insn.immediate8());
    deliver(cpu, flags)?;
    set_xmm(cpu, insn, 0, value);
    Ok(())
}

/// COMISS, COMISD, UCOMISS, UCOMISD
#[inline(always)]
fn compare_to_rflags(
    cpu: &mut Cpu,
    insn: &Instruction,
    f: impl FnOnce(u32, u128, u128) -> ((bool, bool, bool), u32),
) -> Done {
    check_sse(cpu)?;
    let b = xmm_scalar(cpu, insn, 1)?;
    let ((zf, pf, cf), raised) = f(host_control(cpu.mxcsr), xmm(cpu, insn, 0), b);
    raise(cpu, raised)?;
    let bit = |on: bool, flag: u64| if on { flag } else { 0 };
    cpu.lazy.set(bit(zf, flags::ZF) | bit(pf, flags::PF) | bit(cf, flags::CF));
    Ok(())
}

/// PTEST: ZF = no common bits, CF = no bits of the source outside the destination.
fn ptest(cpu: &mut Cpu, insn: &Instruction) -> Done {
    check_sse(cpu)?;
    let b = xmm_m128(cpu, insn, 1)?;
    let a = xmm(cpu, insn, 0);
    let bit = |on: bool, flag: u64| if on { flag } else { 0 };
    cpu.lazy.set(bit(a & b == 0, flags::ZF) | bit(!a & b == 0, flags::CF));
    Ok(())
}

/// An [`ExecFn`] of an operand form and a function above.
macro_rules! function {
    (packed $name:ident) => {
        |cpu: &mut Cpu, insn: &Instruction| packed(cpu, insn, $name)
    };
    (scalar $name:ident) => {
        |cpu: &mut Cpu, insn: &Instruction| scalar(cpu, insn, $name)
    };
    (packed_imm $name:ident) => {
        |cpu: &mut Cpu, insn: &Instruction| packed(cpu, insn, |m, a, b| $name(m, a, b, insn.immediate8()))
    };
    (scalar_imm $name:ident) => {
        |cpu: &mut Cpu, insn: &Instruction| scalar(cpu, insn, |m, a, b| $name(m, a, b, insn.immediate8()))
    };
    (rflags $name:ident) => {
        |cpu: &mut Cpu, insn: &Instruction| compare_to_rflags(cpu, insn, host::$name)
    };
}

pub fn lookup(code: Code) -> Option<ExecFn> {
    use Code::*;
    let f: ExecFn = match code {
        Addps_xmm_xmmm128 => function!(packed addps),
        Addpd_xmm_xmmm128 => function!(packed addpd),
        Addss_xmm_xmmm32 => function!(scalar addss),
        Addsd_xmm_xmmm64 => function!(scalar addsd),
        Subps_xmm_xmmm128 => function!(packed subps),
        Subpd_xmm_xmmm128 => function!(packed subpd),
        Subss_xmm_xmmm32 => function!(scalar subss),
        Subsd_xmm_xmmm64 => function!(scalar subsd),
        Mulps_xmm_xmmm128 => function!(packed mulps),
        Mulpd_xmm_xmmm128 => function!(packed mulpd),
        Mulss_xmm_xmmm32 => function!(scalar mulss),
        Mulsd_xmm_xmmm64 => function!(scalar mulsd),
        Divps_xmm_xmmm128 => function!(packed divps),
        Divpd_xmm_xmmm128 => function!(packed divpd),
        Divss_xmm_xmmm32 => function!(scalar divss),
        Divsd_xmm_xmmm64 => function!(scalar divsd),
        Minps_xmm_xmmm128 => function!(packed minps),
        Minpd_xmm_xmmm128 => function!(packed minpd),
        Minss_xmm_xmmm32 => function!(scalar minss),
        Minsd_xmm_xmmm64 => function!(scalar minsd),
        Maxps_xmm_xmmm128 => function!(packed maxps),
        Maxpd_xmm_xmmm128 => function!(packed maxpd),
        Maxss_xmm_xmmm32 => function!(scalar maxss),
        Maxsd_xmm_xmmm64 => function!(scalar maxsd),
        Sqrtps_xmm_xmmm128 => function!(packed sqrtps),
        Sqrtpd_xmm_xmmm128 => function!(packed sqrtpd),
        Sqrtss_xmm_xmmm32 => function!(scalar sqrtss),
        Sqrtsd_xmm_xmmm64 => function!(scalar sqrtsd),
        Haddps_xmm_xmmm128 => function!(packed haddps),
        Haddpd_xmm_xmmm128 => function!(packed haddpd),
        Hsubps_xmm_xmmm128 => function!(packed hsubps),
        Hsubpd_xmm_xmmm128 => function!(packed hsubpd),
        Addsubps_xmm_xmmm128 => function!(packed addsubps),
        Addsubpd_xmm_xmmm128 => function!(packed addsubpd),
        Dpps_xmm_xmmm128_imm8 => |cpu, insn| dot_product(cpu, insn, dpps),
        Dppd_xmm_xmmm128_imm8 => |cpu, insn| dot_product(cpu, insn, dppd),
        Cmpps_xmm_xmmm128_imm8 => function!(packed_imm cmpps),
        Cmppd_xmm_xmmm128_imm8 => function!(packed_imm cmppd),
        Cmpss_xmm_xmmm32_imm8 => function!(scalar_imm cmpss),
        Cmpsd_xmm_xmmm64_imm8 => function!(scalar_imm cmpsd),
        Comiss_xmm_xmmm32 => function!(rflags comiss),
        Comisd_xmm_xmmm64 => function!(rflags comisd),
        Ucomiss_xmm_xmmm32 => function!(rflags ucomiss),
        Ucomisd_xmm_xmmm64 => function!(rflags ucomisd),
        Ptest_xmm_xmmm128 => ptest,
        _ => return None,
    };
    Some(f)
}
