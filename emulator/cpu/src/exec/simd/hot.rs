//! Handlers for the moves of whole XMM registers from and to memory, in 64-bit mode, on the fast path. What else they may do
//! (no XMM registers to be used, an access beyond the fast path, an operand that is not aligned) is the cold op's.

use super::operands::sse_usable;
use crate::exec::cold::cold;
use crate::exec::int::{Addr, Full};
use crate::op::{At, Handler, next};
use crate::state::Cpu;
use iced_x86::{Code, Instruction, OpKind};

/// Moves with a handler of their own. [`crate::op::Op::d`] or `s` is the register, [`crate::op::Op::imm`] the cold op's.
#[derive(Clone, Copy)]
pub enum Move {
    Load(Handler),
    Store(Handler),
}

/// The handler of an instruction, if it is such a move.
pub fn hot_move(insn: &Instruction) -> Option<Move> {
    use Code::*;
    let found = match insn.code() {
        Movaps_xmm_xmmm128 | Movapd_xmm_xmmm128 | Movdqa_xmm_xmmm128 => Move::Load(load::<true>),
        Movups_xmm_xmmm128 | Movupd_xmm_xmmm128 | Movdqu_xmm_xmmm128 => Move::Load(load::<false>),
        Movaps_xmmm128_xmm | Movapd_xmmm128_xmm | Movdqa_xmmm128_xmm => Move::Store(store::<true>),
        Movups_xmmm128_xmm | Movupd_xmmm128_xmm | Movdqu_xmmm128_xmm => Move::Store(store::<false>),
        _ => return None,
    };
    (0..2).any(|n| insn.op_kind(n) == OpKind::Memory).then_some(found)
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
