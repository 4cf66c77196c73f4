//! Which function executes which segment, descriptor-table or privilege-changing instruction.

use super::{delivery, far, iret, segment, syscall, tables, verify};
use crate::ExecFn;
use crate::exec::cold::Direct;
use iced_x86::Code;
use x86::segment::sreg::{DS, ES, FS, GS, SS};

/// The function of an instruction that this family owns, in any mode.
pub fn lookup(code: Code) -> Option<ExecFn> {
    use Code::*;
    let f: ExecFn = match code {
        Mov_Sreg_rm16 | Mov_Sreg_r32m16 | Mov_Sreg_r64m16 => segment::mov_to_sreg,
        Mov_rm16_Sreg | Mov_r32m16_Sreg | Mov_r64m16_Sreg => segment::mov_from_sreg,
        Pushw_ES | Pushw_CS | Pushw_SS | Pushw_DS | Pushw_FS | Pushw_GS => segment::push_sreg::<2>,
        Pushd_ES | Pushd_CS | Pushd_SS | Pushd_DS | Pushd_FS | Pushd_GS => segment::push_sreg::<4>,
        Pushq_FS | Pushq_GS => segment::push_sreg::<8>,
        Popw_ES | Popw_SS | Popw_DS | Popw_FS | Popw_GS => segment::pop_sreg::<2>,
        Popd_ES | Popd_SS | Popd_DS | Popd_FS | Popd_GS => segment::pop_sreg::<4>,
        Popq_FS | Popq_GS => segment::pop_sreg::<8>,
        Les_r16_m1616 => segment::load_far_pointer::<ES, 2>,
        Les_r32_m1632 => segment::load_far_pointer::<ES, 4>,
        Lds_r16_m1616 => segment::load_far_pointer::<DS, 2>,
        Lds_r32_m1632 => segment::load_far_pointer::<DS, 4>,
        Lss_r16_m1616 => segment::load_far_pointer::<SS, 2>,
        Lss_r32_m1632 => segment::load_far_pointer::<SS, 4>,
        Lss_r64_m1664 => segment::load_far_pointer::<SS, 8>,
        Lfs_r16_m1616 => segment::load_far_pointer::<FS, 2>,
        Lfs_r32_m1632 => segment::load_far_pointer::<FS, 4>,
        Lfs_r64_m1664 => segment::load_far_pointer::<FS, 8>,
        Lgs_r16_m1616 => segment::load_far_pointer::<GS, 2>,
        Lgs_r32_m1632 => segment::load_far_pointer::<GS, 4>,
        Lgs_r64_m1664 => segment::load_far_pointer::<GS, 8>,

        Lgdt_m1632_16 => tables::lgdt::<3>,
        Lgdt_m1632 => tables::lgdt::<4>,
        Lgdt_m1664 => tables::lgdt::<8>,
        Lidt_m1632_16 => tables::lidt::<3>,
        Lidt_m1632 => tables::lidt::<4>,
        Lidt_m1664 => tables::lidt::<8>,
        Sgdt_m1632_16 | Sgdt_m1632 => tables::sgdt::<4>,
        Sgdt_m1664 => tables::sgdt::<8>,
        Sidt_m1632_16 | Sidt_m1632 => tables::sidt::<4>,
        Sidt_m1664 => tables::sidt::<8>,
        Lldt_rm16 | Lldt_r32m16 | Lldt_r64m16 => tables::lldt,
        Ltr_rm16 | Ltr_r32m16 | Ltr_r64m16 => tables::ltr,
        Sldt_rm16 | Sldt_r32m16 | Sldt_r64m16 => tables::sldt,
        Str_rm16 | Str_r32m16 | Str_r64m16 => tables::str,

        Lar_r16_rm16 | Lar_r32_r32m16 | Lar_r64_r64m16 => verify::lar,
        Lsl_r16_rm16 | Lsl_r32_r32m16 | Lsl_r64_r64m16 => verify::lsl,
        Verr_rm16 | Verr_r32m16 | Verr_r64m16 => verify::verr,
        Verw_rm16 | Verw_r32m16 | Verw_r64m16 => verify::verw,
        Arpl_rm16_r16 | Arpl_r32m16_r32 => verify::arpl,

        Jmp_ptr1616 => far::jmp_far_direct::<2>,
        Jmp_ptr1632 => far::jmp_far_direct::<4>,
        Jmp_m1616 => far::jmp_far_indirect::<2>,
        Jmp_m1632 => far::jmp_far_indirect::<4>,
        Jmp_m1664 => far::jmp_far_indirect::<8>,
        Call_ptr1616 => far::call_far_direct::<2>,
        Call_ptr1632 => far::call_far_direct::<4>,
        Call_m1616 => far::call_far_indirect::<2>,
        Call_m1632 => far::call_far_indirect::<4>,
        Call_m1664 => far::call_far_indirect::<8>,
        Retfw => far::ret_far::<2>,
        Retfd => far::ret_far::<4>,
        Retfq => far::ret_far::<8>,
        Retfw_imm16 => far::ret_far_imm::<2>,
        Retfd_imm16 => far::ret_far_imm::<4>,
        Retfq_imm16 => far::ret_far_imm::<8>,

        Iretw => iret::iret::<2>,
        Iretd => iret::iret::<4>,
        Iretq => iret::iret::<8>,
        Int_imm8 => delivery::int_n,
        Int3 => delivery::int3,
        Into => delivery::into,
        Int1 => delivery::int1,

        Syscall => syscall::syscall,
        Sysretd => syscall::sysret::<false>,
        Sysretq => syscall::sysret::<true>,
        Sysenter => syscall::sysenter,
        Sysexitd => syscall::sysexit::<false>,
        Sysexitq => syscall::sysexit::<true>,
        Swapgs => |cpu, _| syscall::Swapgs::execute(cpu),
        Rdfsbase_r32 | Rdfsbase_r64 => syscall::read_base::<FS>,
        Rdgsbase_r32 | Rdgsbase_r64 => syscall::read_base::<GS>,
        Wrfsbase_r32 | Wrfsbase_r64 => syscall::write_base::<FS>,
        Wrgsbase_r32 | Wrgsbase_r64 => syscall::write_base::<GS>,
        _ => return None,
    };
    Some(f)
}
