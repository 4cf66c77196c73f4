//! x87 and the state-save instructions (SDM Vol. 1, ch. 8 and 13; Vol. 2).
//!
//! Reading order: [`spec`] (bits of the control, status and tag words), [`f80`] (the 80-bit format), [`stack`] (register
//! stack, exceptions, last-instruction pointers), [`host`] (exactly defined operations, done by the host's FPU), [`arith`],
//! [`remainder`], [`transfer`], [`control`], [`xsave`]; then [`wide`] and [`transcendental`] (software arithmetic) and
//! [`functions`].
//!
//! The processor modelled enumerates FDP_EXCPTN_ONLY and the deprecation of FCS and FDS (CPUID.(EAX=07H,ECX=0):EBX bits 6
//! and 13), like Ice Lake.

mod arith;
mod control;
mod f80;
mod functions;
mod host;
mod remainder;
mod spec;
mod stack;
#[cfg(test)]
mod tests;
mod transcendental;
mod transfer;
mod wide;
mod xsave;

use crate::ExecFn;
use arith::Comparison;
use host::{Arith, Format, Unary};
use iced_x86::Code;
use transfer::Store;
use x86::flags;

/// FCOM and its relatives.
const fn ordered(pops: usize) -> Comparison {
    Comparison { unordered: false, pops, to_flags: false }
}

const fn unordered(pops: usize) -> Comparison {
    Comparison { unordered: true, pops, to_flags: false }
}

const fn into_flags(unordered: bool, pops: usize) -> Comparison {
    Comparison { unordered, pops, to_flags: true }
}

/// The semantics of an x87 or state-save instruction; `None` for other instructions, and for those the processor does not
/// have: XSAVEC, XSAVES, XRSTORS (not enumerated), FRSTPM and other instructions of early coprocessors.
pub fn lookup(code: Code) -> Option<ExecFn> {
    let function: ExecFn = match arithmetic(code).or_else(|| transfers(code)).or_else(|| comparisons(code)) {
        Some(function) => function,
        None => functions_of(code).or_else(|| controls(code)).or_else(|| state_saves(code))?,
    };
    Some(function)
}

fn arithmetic(code: Code) -> Option<ExecFn> {
    use Code::*;
    let function: ExecFn = match code {
        Fadd_m32fp | Fadd_m64fp | Fiadd_m16int | Fiadd_m32int => |c, i| arith::memory(c, i, Arith::Add),
        Fmul_m32fp | Fmul_m64fp | Fimul_m16int | Fimul_m32int => |c, i| arith::memory(c, i, Arith::Mul),
        Fsub_m32fp | Fsub_m64fp | Fisub_m16int | Fisub_m32int => |c, i| arith::memory(c, i, Arith::Sub),
        Fsubr_m32fp | Fsubr_m64fp | Fisubr_m16int | Fisubr_m32int => |c, i| arith::memory(c, i, Arith::SubR),
        Fdiv_m32fp | Fdiv_m64fp | Fidiv_m16int | Fidiv_m32int => |c, i| arith::memory(c, i, Arith::Div),
        Fdivr_m32fp | Fdivr_m64fp | Fidivr_m16int | Fidivr_m32int => |c, i| arith::memory(c, i, Arith::DivR),
        Fadd_st0_sti | Fadd_sti_st0 => |c, i| arith::registers(c, i, Arith::Add, 0),
        Fmul_st0_sti | Fmul_sti_st0 => |c, i| arith::registers(c, i, Arith::Mul, 0),
        Fsub_st0_sti | Fsub_sti_st0 => |c, i| arith::registers(c, i, Arith::Sub, 0),
        Fsubr_st0_sti | Fsubr_sti_st0 => |c, i| arith::registers(c, i, Arith::SubR, 0),
        Fdiv_st0_sti | Fdiv_sti_st0 => |c, i| arith::registers(c, i, Arith::Div, 0),
        Fdivr_st0_sti | Fdivr_sti_st0 => |c, i| arith::registers(c, i, Arith::DivR, 0),
        Faddp_sti_st0 => |c, i| arith::registers(c, i, Arith::Add, 1),
        Fmulp_sti_st0 => |c, i| arith::registers(c, i, Arith::Mul, 1),
        Fsubp_sti_st0 => |c, i| arith::registers(c, i, Arith::Sub, 1),
        Fsubrp_sti_st0 => |c, i| arith::registers(c, i, Arith::SubR, 1),
        Fdivp_sti_st0 => |c, i| arith::registers(c, i, Arith::Div, 1),
        Fdivrp_sti_st0 => |c, i| arith::registers(c, i, Arith::DivR, 1),
        Fsqrt => |c, i| arith::implicit(c, i, |x| x.unary(Unary::Sqrt)),
        Frndint => |c, i| arith::implicit(c, i, |x| x.unary(Unary::RoundInt)),
        Fscale => |c, i| arith::implicit(c, i, |x| x.unary(Unary::Scale)),
        Fprem => |c, i| arith::implicit(c, i, |x| x.remainder(Unary::Prem)),
        Fprem1 => |c, i| arith::implicit(c, i, |x| x.remainder(Unary::Prem1)),
        Fxtract => |c, i| arith::implicit(c, i, |x| x.extract()),
        Fabs => |c, i| arith::implicit(c, i, |x| x.sign(|v| v & !f80::SIGN)),
        Fchs => |c, i| arith::implicit(c, i, |x| x.sign(|v| v ^ f80::SIGN)),
        _ => return None,
    };
    Some(function)
}

fn transfers(code: Code) -> Option<ExecFn> {
    use Code::*;
    use Format::*;
    use transfer::{BELOW_OR_EQUAL, conditional_move, load_constant, store, with_register};
    let function: ExecFn = match code {
        Fld_m32fp | Fld_m64fp | Fld_m80fp | Fild_m16int | Fild_m32int | Fild_m64int | Fbld_m80bcd => transfer::load,
        Fld_sti => |c, i| with_register(c, i, |x, r| x.load_register(r)),
        Fst_m32fp => |c, i| store(c, i, Store::Converted(Single), 0),
        Fst_m64fp => |c, i| store(c, i, Store::Converted(Double), 0),
        Fstp_m32fp => |c, i| store(c, i, Store::Converted(Single), 1),
        Fstp_m64fp => |c, i| store(c, i, Store::Converted(Double), 1),
        Fstp_m80fp => |c, i| store(c, i, Store::Extended, 1),
        Fist_m16int => |c, i| store(c, i, Store::Converted(Word), 0),
        Fist_m32int => |c, i| store(c, i, Store::Converted(Dword), 0),
        Fistp_m16int => |c, i| store(c, i, Store::Converted(Word), 1),
        Fistp_m32int => |c, i| store(c, i, Store::Converted(Dword), 1),
        Fistp_m64int => |c, i| store(c, i, Store::Converted(Qword), 1),
        Fisttp_m16int => |c, i| store(c, i, Store::Converted(WordTruncated), 1),
        Fisttp_m32int => |c, i| store(c, i, Store::Converted(DwordTruncated), 1),
        Fisttp_m64int => |c, i| store(c, i, Store::Converted(QwordTruncated), 1),
        Fbstp_m80bcd => |c, i| store(c, i, Store::Converted(Bcd), 1),
        Fst_sti => |c, i| with_register(c, i, |x, r| x.store_register(r, 0)),
        // DF D0+i and DF D8+i are undocumented aliases, like the other Code names that end in an opcode.
        Fstp_sti | Fstp_sti_DFD0 | Fstp_sti_DFD8 => |c, i| with_register(c, i, |x, r| x.store_register(r, 1)),
        Fstpnce_sti => |c, i| with_register(c, i, |x, r| x.store_register_unchecked(r)),
        Fxch_st0_sti | Fxch_st0_sti_DDC8 | Fxch_st0_sti_DFC8 => |c, i| with_register(c, i, |x, r| x.exchange(r)),
        Fcmovb_st0_sti => |c, i| conditional_move(c, i, flags::CF, true),
        Fcmove_st0_sti => |c, i| conditional_move(c, i, flags::ZF, true),
        Fcmovbe_st0_sti => |c, i| conditional_move(c, i, BELOW_OR_EQUAL, true),
        Fcmovu_st0_sti => |c, i| conditional_move(c, i, flags::PF, true),
        Fcmovnb_st0_sti => |c, i| conditional_move(c, i, flags::CF, false),
        Fcmovne_st0_sti => |c, i| conditional_move(c, i, flags::ZF, false),
        Fcmovnbe_st0_sti => |c, i| conditional_move(c, i, BELOW_OR_EQUAL, false),
        Fcmovnu_st0_sti => |c, i| conditional_move(c, i, flags::PF, false),
        Fld1 => |c, i| arith::implicit(c, i, |x| x.load(host::Outcome::new(f80::ONE, 0))),
        Fldz => |c, i| arith::implicit(c, i, |x| x.load(host::Outcome::new(f80::ZERO, 0))),
        Fldl2t => |c, i| arith::implicit(c, i, |x| load_constant(x, transfer::LOG2_10)),
        Fldl2e => |c, i| arith::implicit(c, i, |x| load_constant(x, transfer::LOG2_E)),
        Fldpi => |c, i| arith::implicit(c, i, |x| load_constant(x, transfer::PI)),
        Fldlg2 => |c, i| arith::implicit(c, i, |x| load_constant(x, transfer::LOG10_2)),
        Fldln2 => |c, i| arith::implicit(c, i, |x| load_constant(x, transfer::LN_2)),
        _ => return None,
    };
    Some(function)
}

fn comparisons(code: Code) -> Option<ExecFn> {
    use Code::*;
    let function: ExecFn = match code {
        Fcom_m32fp | Fcom_m64fp | Ficom_m16int | Ficom_m32int | Fcom_st0_sti | Fcom_st0_sti_DCD0 => {
            |c, i| arith::compare(c, i, ordered(0))
        }
        Fcomp_m32fp | Fcomp_m64fp | Ficomp_m16int | Ficomp_m32int | Fcomp_st0_sti | Fcomp_st0_sti_DCD8
        | Fcomp_st0_sti_DED0 => |c, i| arith::compare(c, i, ordered(1)),
        Fcompp => |c, i| arith::compare(c, i, ordered(2)),
        Fucom_st0_sti => |c, i| arith::compare(c, i, unordered(0)),
        Fucomp_st0_sti => |c, i| arith::compare(c, i, unordered(1)),
        Fucompp => |c, i| arith::compare(c, i, unordered(2)),
        Fcomi_st0_sti => |c, i| arith::compare(c, i, into_flags(false, 0)),
        Fcomip_st0_sti => |c, i| arith::compare(c, i, into_flags(false, 1)),
        Fucomi_st0_sti => |c, i| arith::compare(c, i, into_flags(true, 0)),
        Fucomip_st0_sti => |c, i| arith::compare(c, i, into_flags(true, 1)),
        Ftst => |c, i| arith::implicit(c, i, arith::test),
        Fxam => |c, i| arith::implicit(c, i, |x| x.examine()),
        _ => return None,
    };
    Some(function)
}

fn functions_of(code: Code) -> Option<ExecFn> {
    let function: ExecFn = match code {
        Code::F2xm1 => |c, i| arith::implicit(c, i, functions::exp2_minus_1),
        Code::Fyl2x => |c, i| arith::implicit(c, i, functions::log2),
        Code::Fyl2xp1 => |c, i| arith::implicit(c, i, functions::log2_plus_1),
        Code::Fpatan => |c, i| arith::implicit(c, i, functions::arctangent),
        Code::Fptan => |c, i| arith::implicit(c, i, functions::tan),
        Code::Fsin => |c, i| arith::implicit(c, i, functions::sin),
        Code::Fcos => |c, i| arith::implicit(c, i, functions::cos),
        Code::Fsincos => |c, i| arith::implicit(c, i, functions::sin_cos),
        _ => return None,
    };
    Some(function)
}

fn controls(code: Code) -> Option<ExecFn> {
    use Code::*;
    let function: ExecFn = match code {
        Fldcw_m2byte => control::load_control,
        Fnstcw_m2byte | Fstcw_m2byte => |c, i| control::store_word(c, i, |x| x.fcw),
        Fnstsw_m2byte | Fstsw_m2byte => |c, i| control::store_word(c, i, |x| x.fsw),
        Fnstsw_AX | Fstsw_AX => control::status_to_ax,
        Fnstenv_m14byte | Fstenv_m14byte | Fnstenv_m28byte | Fstenv_m28byte => control::store_environment,
        Fldenv_m14byte | Fldenv_m28byte => control::load_environment,
        Fnsave_m94byte | Fsave_m94byte | Fnsave_m108byte | Fsave_m108byte => control::save,
        Frstor_m94byte | Frstor_m108byte => control::restore,
        Fninit | Finit => |c, i| control::no_wait(c, i, |x| x.init()),
        Fnclex | Fclex => |c, i| control::no_wait(c, i, |x| x.clear_exceptions()),
        Fneni | Feni | Fndisi | Fdisi | Fnsetpm | Fsetpm => |c, i| control::no_wait(c, i, |_| {}),
        Fincstp => |c, i| arith::implicit(c, i, |x| control::rotate(x, 1)),
        Fdecstp => |c, i| arith::implicit(c, i, |x| control::rotate(x, 7)),
        Ffree_sti => |c, i| transfer::with_register(c, i, |x, r| x.free(r, 0)),
        Ffreep_sti => |c, i| transfer::with_register(c, i, |x, r| x.free(r, 1)),
        Fnop => |c, i| arith::implicit(c, i, |_| {}),
        Wait => control::wait,
        _ => return None,
    };
    Some(function)
}

fn state_saves(code: Code) -> Option<ExecFn> {
    use Code::*;
    let function: ExecFn = match code {
        Fxsave_m512byte | Fxsave64_m512byte => xsave::fxsave,
        Fxrstor_m512byte | Fxrstor64_m512byte => xsave::fxrstor,
        Xsave_mem | Xsave64_mem => |c, i| xsave::xsave(c, i, false),
        Xsaveopt_mem | Xsaveopt64_mem => |c, i| xsave::xsave(c, i, true),
        Xrstor_mem | Xrstor64_mem => xsave::xrstor,
        Xgetbv => xsave::xgetbv,
        Xsetbv => xsave::xsetbv,
        _ => return None,
    };
    Some(function)
}
