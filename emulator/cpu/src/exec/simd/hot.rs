//! Handlers for what string functions are made of, in 64-bit mode: moves of whole XMM registers, integer operations on them,
//! PMOVMSKB, MOVD and MOVQ. Memory operands are on the fast path. What else an instruction may do (no XMM registers to be
//! used, an access beyond the fast path, an operand that is not aligned) is the cold op's.

use super::arithmetic::{pand, pandn, por, pxor};
use super::host::sse2::*;
use super::operands::sse_usable;
use crate::exec::cold::cold;
use crate::exec::int::{Addr, Full};
use crate::op::{At, Handler, next};
use crate::state::Cpu;
use iced_x86::Code;

/// Operations of `xmm, xmm` and `xmm, m128`, each with the function of two vectors that it is.
macro_rules! binary {
    ($($name:ident = $f:ident: $($code:ident)|+;)*) => {
        $(
            struct $name;
            impl Binary for $name {
                #[inline(always)]
                fn of(a: u128, b: u128) -> u128 {
                    $f(a, b)
                }
            }
        )*

        fn binary_handler(code: Code, memory: bool) -> Option<Handler> {
            Some(match code {
                $($(Code::$code)|+ if memory => binary_m::<$name>,)*
                $($(Code::$code)|+ => binary_r::<$name>,)*
                _ => return None,
            })
        }
    };
}

/// `xmm1 = of(xmm1, xmm2/m128)`
trait Binary: 'static {
    fn of(a: u128, b: u128) -> u128;
}

binary! {
    Pand = pand: Pand_xmm_xmmm128 | Andps_xmm_xmmm128 | Andpd_xmm_xmmm128;
    Pandn = pandn: Pandn_xmm_xmmm128 | Andnps_xmm_xmmm128 | Andnpd_xmm_xmmm128;
    Por = por: Por_xmm_xmmm128 | Orps_xmm_xmmm128 | Orpd_xmm_xmmm128;
    Pxor = pxor: Pxor_xmm_xmmm128 | Xorps_xmm_xmmm128 | Xorpd_xmm_xmmm128;
    Paddb = paddb: Paddb_xmm_xmmm128;
    Paddd = paddd: Paddd_xmm_xmmm128;
    Paddq = paddq: Paddq_xmm_xmmm128;
    Psubb = psubb: Psubb_xmm_xmmm128;
    Pcmpeqb = pcmpeqb: Pcmpeqb_xmm_xmmm128;
    Pcmpeqd = pcmpeqd: Pcmpeqd_xmm_xmmm128;
    Pcmpgtb = pcmpgtb: Pcmpgtb_xmm_xmmm128;
    Pminub = pminub: Pminub_xmm_xmmm128;
    Pmaxub = pmaxub: Pmaxub_xmm_xmmm128;
    Punpcklbw = punpcklbw: Punpcklbw_xmm_xmmm128;
    Punpcklwd = punpcklwd: Punpcklwd_xmm_xmmm128;
    Punpckldq = punpckldq: Punpckldq_xmm_xmmm128;
    Punpcklqdq = punpcklqdq: Punpcklqdq_xmm_xmmm128;
}

/// The handler of an instruction, if it has one; `memory`: which of its operands is in memory. [`crate::op::Op::d`] and `s`
/// are the registers, [`crate::op::Op::imm`] is the cold op's.
pub fn handler(code: Code, memory: Option<u32>) -> Option<Handler> {
    use Code::*;
    Some(match (code, memory) {
        (Movaps_xmm_xmmm128 | Movapd_xmm_xmmm128 | Movdqa_xmm_xmmm128, Some(_)) => load::<true>,
        (Movups_xmm_xmmm128 | Movupd_xmm_xmmm128 | Movdqu_xmm_xmmm128, Some(_)) => load::<false>,
        (Movaps_xmmm128_xmm | Movapd_xmmm128_xmm | Movdqa_xmmm128_xmm, Some(_)) => store::<true>,
        (Movups_xmmm128_xmm | Movupd_xmmm128_xmm | Movdqu_xmmm128_xmm, Some(_)) => store::<false>,
        (Movaps_xmm_xmmm128 | Movapd_xmm_xmmm128 | Movdqa_xmm_xmmm128, None) => copy,
        (Movups_xmm_xmmm128 | Movupd_xmm_xmmm128 | Movdqu_xmm_xmmm128, None) => copy,
        (Pmovmskb_r32_xmm | Pmovmskb_r64_xmm, None) => mask,
        (Movd_xmm_rm32, None) => from_gpr::<false>,
        (Movq_xmm_rm64, None) => from_gpr::<true>,
        _ => return binary_handler(code, memory.is_some()),
    })
}

/// MOVAPS, MOVAPD, MOVDQA (`ALIGNED`); MOVUPS, MOVUPD, MOVDQU xmm, m128
fn load<const ALIGNED: bool>(cpu: &mut Cpu, op: At) {
    let at = Full::ea(cpu, op);
    let v = if ALIGNED { cpu.fast.load::<u128>(at) } else { cpu.fast.load_anywhere::<u128>(at) };
    if sse_usable(cpu)
        && let Some(v) = v
    {
        cpu.xmm[usize::from(op.d & 15)] = v;
        return next(cpu, op);
    }
    cold(cpu, op)
}

/// The same, m128, xmm
fn store<const ALIGNED: bool>(cpu: &mut Cpu, op: At) {
    let at = Full::ea(cpu, op);
    let v = cpu.xmm[usize::from(op.s & 15)];
    if sse_usable(cpu) && if ALIGNED { cpu.fast.store(at, v) } else { cpu.fast.store_anywhere(at, v) } {
        return next(cpu, op);
    }
    cold(cpu, op)
}

/// The same, xmm, xmm
fn copy(cpu: &mut Cpu, op: At) {
    if !sse_usable(cpu) {
        return cold(cpu, op);
    }
    cpu.xmm[usize::from(op.d & 15)] = cpu.xmm[usize::from(op.s & 15)];
    next(cpu, op)
}

fn binary_r<O: Binary>(cpu: &mut Cpu, op: At) {
    if !sse_usable(cpu) {
        return cold(cpu, op);
    }
    let (d, s) = (usize::from(op.d & 15), usize::from(op.s & 15));
    cpu.xmm[d] = O::of(cpu.xmm[d], cpu.xmm[s]);
    next(cpu, op)
}

fn binary_m<O: Binary>(cpu: &mut Cpu, op: At) {
    let v = cpu.fast.load::<u128>(Full::ea(cpu, op));
    if sse_usable(cpu)
        && let Some(v) = v
    {
        let d = usize::from(op.d & 15);
        cpu.xmm[d] = O::of(cpu.xmm[d], v);
        return next(cpu, op);
    }
    cold(cpu, op)
}

/// PMOVMSKB r, xmm
fn mask(cpu: &mut Cpu, op: At) {
    if !sse_usable(cpu) {
        return cold(cpu, op);
    }
    cpu.regs[usize::from(op.d)] = pmovmskb(cpu.xmm[usize::from(op.s & 15)]);
    next(cpu, op)
}

/// MOVD xmm, r32; MOVQ xmm, r64 (`WIDE`)
fn from_gpr<const WIDE: bool>(cpu: &mut Cpu, op: At) {
    if !sse_usable(cpu) {
        return cold(cpu, op);
    }
    let v = cpu.regs[usize::from(op.s)];
    cpu.xmm[usize::from(op.d & 15)] = u128::from(if WIDE { v } else { v & 0xFFFF_FFFF });
    next(cpu, op)
}
