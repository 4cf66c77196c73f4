//! Which function executes which system instruction (registers, caches, TLB, flags, ports, time).

use super::{cache_ops, control, cpuid, flagctl, misc, msr, pconfig, port_io, tlb_ops};
use crate::ExecFn;
use crate::exec::cold::Direct;
use iced_x86::{Code, Mnemonic};

/// The semantics of `code`, if they are in this family.
pub fn lookup(code: Code) -> Option<ExecFn> {
    Some(match code {
        Code::Mov_r32_cr | Code::Mov_r64_cr => control::mov_from_cr,
        Code::Mov_cr_r32 | Code::Mov_cr_r64 => control::mov_to_cr,
        Code::Mov_r32_dr | Code::Mov_r64_dr => control::mov_from_dr,
        Code::Mov_dr_r32 | Code::Mov_dr_r64 => control::mov_to_dr,
        _ => return by_mnemonic(code.mnemonic()),
    })
}

fn by_mnemonic(mnemonic: Mnemonic) -> Option<ExecFn> {
    Some(match mnemonic {
        Mnemonic::Cpuid => cpuid::cpuid,
        Mnemonic::Rdmsr => msr::rdmsr,
        Mnemonic::Wrmsr => msr::wrmsr,
        Mnemonic::Rdpmc => msr::rdpmc,
        Mnemonic::Pconfig => pconfig::pconfig,

        Mnemonic::Lmsw => control::lmsw,
        Mnemonic::Smsw => control::smsw,
        Mnemonic::Clts => control::clts,

        Mnemonic::Clc => flagctl::clc,
        Mnemonic::Stc => flagctl::stc,
        Mnemonic::Cmc => flagctl::cmc,
        Mnemonic::Cld => flagctl::cld,
        Mnemonic::Std => flagctl::std,
        Mnemonic::Cli => |cpu, _| flagctl::Cli::execute(cpu),
        Mnemonic::Sti => |cpu, _| flagctl::Sti::execute(cpu),
        Mnemonic::Clac => |cpu, _| flagctl::SetAc::<false>::execute(cpu),
        Mnemonic::Stac => |cpu, _| flagctl::SetAc::<true>::execute(cpu),
        Mnemonic::Lahf => flagctl::lahf,
        Mnemonic::Sahf => flagctl::sahf,

        Mnemonic::Invlpg => tlb_ops::invlpg,
        Mnemonic::Invpcid => tlb_ops::invpcid,

        Mnemonic::Wbinvd => cache_ops::wbinvd,
        Mnemonic::Wbnoinvd => cache_ops::wbnoinvd,
        Mnemonic::Invd => cache_ops::invd,
        Mnemonic::Clflush | Mnemonic::Clflushopt => cache_ops::clflush,
        Mnemonic::Clwb => cache_ops::clwb,

        Mnemonic::Hlt => misc::hlt,
        Mnemonic::Rdtsc => misc::rdtsc,
        Mnemonic::Rdtscp => misc::rdtscp,
        Mnemonic::Rdpid => misc::rdpid,
        Mnemonic::Rdrand | Mnemonic::Rdseed => misc::rdrand,

        Mnemonic::In => port_io::input,
        Mnemonic::Out => port_io::output,
        Mnemonic::Insb | Mnemonic::Insw | Mnemonic::Insd => port_io::ins,
        Mnemonic::Outsb | Mnemonic::Outsw | Mnemonic::Outsd => port_io::outs,

        Mnemonic::Nop | Mnemonic::Reservednop | Mnemonic::Endbr32 | Mnemonic::Endbr64 => misc::nop,
        Mnemonic::Pause => misc::pause,
        // Hints change no architectural state, and only their own line's tag could be touched (section 5.3).
        Mnemonic::Prefetch
        | Mnemonic::Prefetchnta
        | Mnemonic::Prefetcht0
        | Mnemonic::Prefetcht1
        | Mnemonic::Prefetcht2
        | Mnemonic::Prefetchw
        | Mnemonic::Prefetchwt1
        | Mnemonic::Prefetchit0
        | Mnemonic::Prefetchit1
        | Mnemonic::Cldemote => misc::nop,
        // CET's RDSSP is a NOP on processors without it.
        Mnemonic::Rdsspd | Mnemonic::Rdsspq => misc::nop,

        Mnemonic::Ud0 | Mnemonic::Ud1 | Mnemonic::Ud2 => misc::undefined,
        // RSM outside SMM, SMX without CR4.SMXE, VMX without CR4.VMXE, and what CPUID does not enumerate.
        Mnemonic::Rsm
        | Mnemonic::Getsec
        | Mnemonic::Getsecq
        | Mnemonic::Vmcall
        | Mnemonic::Vmmcall
        | Mnemonic::Vmxon
        | Mnemonic::Vmxoff
        | Mnemonic::Monitor
        | Mnemonic::Mwait
        | Mnemonic::Xbegin
        | Mnemonic::Xabort
        | Mnemonic::Xend
        | Mnemonic::Xtest
        | Mnemonic::Serialize => misc::undefined,
        _ => return None,
    })
}
