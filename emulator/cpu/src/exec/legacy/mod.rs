//! Near control transfers and stack instructions in their general form: every mode, operand size and stack size.
//!
//! 64-bit code mostly runs the specialised handlers of `exec::int`; these functions serve 16- and 32-bit code, and the
//! forms those handlers do not have.

pub mod branch;
pub mod flags;
pub mod stack;

use crate::ExecFn;
use branch::*;
use flags::{popf, pushf};
use iced_x86::{Code, ConditionCode};
use stack::*;

/// The function of a near transfer or stack instruction, in any mode.
pub fn lookup_legacy(code: Code) -> Option<ExecFn> {
    use Code::*;
    let f: ExecFn = match code {
        Push_r16 | Push_rm16 | Push_imm16 | Pushw_imm8 => push::<2>,
        Push_r32 | Push_rm32 | Pushd_imm32 | Pushd_imm8 => push::<4>,
        Push_r64 | Push_rm64 | Pushq_imm32 | Pushq_imm8 => push::<8>,
        Pop_r16 | Pop_rm16 => pop::<2>,
        Pop_r32 | Pop_rm32 => pop::<4>,
        Pop_r64 | Pop_rm64 => pop::<8>,
        Pushaw => pusha::<2>,
        Pushad => pusha::<4>,
        Popaw => popa::<2>,
        Popad => popa::<4>,
        Pushfw => pushf::<2>,
        Pushfd => pushf::<4>,
        Pushfq => pushf::<8>,
        Popfw => popf::<2>,
        Popfd => popf::<4>,
        Popfq => popf::<8>,
        Enterw_imm16_imm8 => enter::<2>,
        Enterd_imm16_imm8 => enter::<4>,
        Enterq_imm16_imm8 => enter::<8>,
        Leavew => leave::<2>,
        Leaved => leave::<4>,
        Leaveq => leave::<8>,

        Call_rel16 => call_relative::<2>,
        Call_rel32_32 => call_relative::<4>,
        Call_rel32_64 => call_relative::<8>,
        Call_rm16 => call_indirect::<2>,
        Call_rm32 => call_indirect::<4>,
        Call_rm64 => call_indirect::<8>,
        Retnw | Retnw_imm16 => ret_near::<2>,
        Retnd | Retnd_imm16 => ret_near::<4>,
        Retnq | Retnq_imm16 => ret_near::<8>,
        Jmp_rel8_16 | Jmp_rel8_32 | Jmp_rel8_64 | Jmp_rel16 | Jmp_rel32_32 | Jmp_rel32_64 => jmp_relative,
        Jmp_rm16 | Jmp_rm32 | Jmp_rm64 => jmp_indirect,
        Loop_rel8_16_CX | Loop_rel8_32_CX => loop_while_counting::<2>,
        Loop_rel8_16_ECX | Loop_rel8_32_ECX | Loop_rel8_64_ECX => loop_while_counting::<4>,
        Loop_rel8_16_RCX | Loop_rel8_64_RCX => loop_while_counting::<8>,
        Loope_rel8_16_CX | Loope_rel8_32_CX => loop_while_zf::<2, true>,
        Loope_rel8_16_ECX | Loope_rel8_32_ECX | Loope_rel8_64_ECX => loop_while_zf::<4, true>,
        Loope_rel8_16_RCX | Loope_rel8_64_RCX => loop_while_zf::<8, true>,
        Loopne_rel8_16_CX | Loopne_rel8_32_CX => loop_while_zf::<2, false>,
        Loopne_rel8_16_ECX | Loopne_rel8_32_ECX | Loopne_rel8_64_ECX => loop_while_zf::<4, false>,
        Loopne_rel8_16_RCX | Loopne_rel8_64_RCX => loop_while_zf::<8, false>,
        Jcxz_rel8_16 | Jcxz_rel8_32 => jump_if_count_is_zero::<2>,
        Jecxz_rel8_16 | Jecxz_rel8_32 | Jecxz_rel8_64 => jump_if_count_is_zero::<4>,
        Jrcxz_rel8_16 | Jrcxz_rel8_64 => jump_if_count_is_zero::<8>,
        _ if code.is_jcc_short_or_near() && code.condition_code() != ConditionCode::None => jcc,
        _ => return None,
    };
    Some(f)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_encoding_of_near_transfers_and_stack_instructions_has_a_function() {
        use iced_x86::Mnemonic::*;
        const MNEMONICS: &[iced_x86::Mnemonic] = &[
            Pusha, Pushad, Popa, Popad, Pushf, Pushfd, Pushfq, Popf, Popfd, Popfq, Enter, Leave, Ret, Loop, Loope,
            Loopne, Jcxz, Jecxz, Jrcxz, Jo, Jno, Jb, Jae, Je, Jne, Jbe, Ja, Js, Jns, Jp, Jnp, Jl, Jge, Jle, Jg,
        ];
        for code in Code::values().filter(|c| MNEMONICS.contains(&c.mnemonic())) {
            assert!(lookup_legacy(code).is_some(), "{code:?}");
        }
    }
}
