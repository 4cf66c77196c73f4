//! Which instruction forms are executed: every [`Code`] of the processor model's features that 64-bit user code can
//! encode, in its register and its memory form, minus the table of [`exclusion`]s.

use iced_x86::{Code, CpuidFeature, EncodingKind, Mnemonic, OpCodeOperandKind};

/// A form to generate cases of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Form {
    pub code: Code,
    /// The `reg-or-mem` operand is memory.
    pub memory: bool,
}

/// Why a [`Code`] of the model's features has no cases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Skip {
    /// See [`exclusion`].
    Excluded(&'static str),
    /// The host's processor does not have the feature.
    Host(&'static str),
}

/// What the model's CPUID enumerates or every processor in 64-bit mode has.
fn in_model(feature: CpuidFeature) -> bool {
    use CpuidFeature as F;
    matches!(
        feature,
        F::INTEL8086
            | F::INTEL186
            | F::INTEL286
            | F::INTEL386
            | F::INTEL486
            | F::X64
            | F::CPUID
            | F::MSR
            | F::TSC
            | F::CX8
            | F::CMOV
            | F::MULTIBYTENOP
            | F::PAUSE
            | F::FPU
            | F::FPU287
            | F::FPU387
            | F::MMX
            | F::FXSR
            | F::SSE
            | F::SSE2
            | F::SSE3
            | F::SSSE3
            | F::SSE4_1
            | F::SSE4_2
            | F::AES
            | F::PCLMULQDQ
            | F::POPCNT
            | F::LZCNT
            | F::BMI1
            | F::BMI2
            | F::MOVBE
            | F::CMPXCHG16B
            | F::XSAVE
            | F::XSAVEOPT
            | F::FSGSBASE
            | F::CLFSH
            | F::CLFLUSHOPT
            | F::CLWB
            | F::PREFETCHW
            | F::CET_IBT
            | F::SMAP
            | F::RDTSCP
            | F::RDPID
            | F::RDRAND
            | F::RDSEED
            | F::INVPCID
            | F::PCONFIG
            | F::SYSCALL
            | F::SEP
    )
}

/// Features that not every 64-bit processor has: name, and CPUID leaf, register (EAX to EDX: 0 to 3) and bit.
const OPTIONAL: [(CpuidFeature, &str, u32, usize, u32); 18] = {
    use CpuidFeature as F;
    [
        (F::SSE3, "sse3", 1, 2, 0),
        (F::PCLMULQDQ, "pclmulqdq", 1, 2, 1),
        (F::SSSE3, "ssse3", 1, 2, 9),
        (F::CMPXCHG16B, "cmpxchg16b", 1, 2, 13),
        (F::SSE4_1, "sse4.1", 1, 2, 19),
        (F::SSE4_2, "sse4.2", 1, 2, 20),
        (F::MOVBE, "movbe", 1, 2, 22),
        (F::POPCNT, "popcnt", 1, 2, 23),
        (F::AES, "aes", 1, 2, 25),
        (F::XSAVE, "xsave", 1, 2, 27),
        (F::BMI1, "bmi1", 7, 1, 3),
        (F::BMI2, "bmi2", 7, 1, 8),
        (F::SMAP, "smap", 7, 1, 20),
        (F::CLFLUSHOPT, "clflushopt", 7, 1, 23),
        (F::CLWB, "clwb", 7, 1, 24),
        (F::XSAVEOPT, "xsaveopt", 0xD, 0, 0),
        (F::LZCNT, "lzcnt", 0x8000_0001, 2, 5),
        (F::PREFETCHW, "prefetchw", 0x8000_0001, 2, 8),
    ]
};

/// The name of a feature that the host does not have.
fn missing_on_host(feature: CpuidFeature) -> Option<&'static str> {
    let (_, name, leaf, register, bit) = OPTIONAL.into_iter().find(|row| row.0 == feature)?;
    // XSAVEOPT is in sub-leaf 1.
    let r = std::arch::x86_64::__cpuid_count(leaf, u32::from(leaf == 0xD));
    let present = [r.eax, r.ebx, r.ecx, r.edx][register] >> bit & 1 != 0;
    if present { None } else { Some(name) }
}

/// Codes that are not executed, and why.
pub fn exclusion(code: Code) -> Option<&'static str> {
    use Mnemonic as M;
    let op = code.op_code();
    Some(match code.mnemonic() {
        M::Syscall | M::Sysenter => "calls the host's kernel",
        M::Sysexit | M::Sysexitq | M::Sysret | M::Sysretq => "not available to user code, and vendors differ on how",
        M::Int1 => "#DB of a hypervisor's guest is the hypervisor's to deliver",
        M::Cpuid | M::Rdpid | M::Rdtscp | M::Rdtsc | M::Xgetbv => "the answer is the processor's own",
        M::Rdrand | M::Rdseed => "random by definition",
        M::Rdpmc => "#GP or a count, as the host's kernel configures CR4.PCE",
        M::In | M::Out | M::Insb | M::Insw | M::Insd | M::Outsb | M::Outsw | M::Outsd => "I/O",
        M::Cli | M::Sti => "the host's kernel may emulate them",
        M::Sgdt | M::Sidt | M::Sldt | M::Smsw | M::Str => "with UMIP the host's kernel emulates them",
        M::Pconfig => "no AMD processor and few Intel ones have it",
        M::Invpcid | M::Xsetbv | M::Swapgs | M::Wbnoinvd => "privileged",
        M::Reservednop if op.op_code() == 0x0D => "a NOP on Intel, #UD in its register form on AMD",
        _ if op.op_kinds().iter().any(|k| matches!(k, OpCodeOperandKind::farbr2_2 | OpCodeOperandKind::farbr4_2)) => {
            "a far pointer in the code"
        }
        _ if op.op_kinds().iter().any(|k| matches!(k, OpCodeOperandKind::br16_1 | OpCodeOperandKind::br16_2)) => {
            "the target is below 64 KiB"
        }
        _ => return None,
    })
}

/// True for operands that have a register and a memory form.
fn register_or_memory(kind: OpCodeOperandKind) -> bool {
    use OpCodeOperandKind as K;
    matches!(kind, K::r8_or_mem | K::r16_or_mem | K::r32_or_mem | K::r64_or_mem | K::mm_or_mem | K::xmm_or_mem)
}

/// All forms of 64-bit or 32-bit code, and the codes that have none.
pub fn forms(bits: u32) -> (Vec<Form>, Vec<(Code, Skip)>) {
    let (mut forms, mut skipped) = (vec![], vec![]);
    for code in Code::values() {
        let op = code.op_code();
        // What the model decodes: no compatibility modes of a decoder, no pseudo codes, no instruction with an own WAIT.
        let candidate = op.is_instruction()
            && if bits == 64 { op.mode64() } else { op.mode32() }
            && !op.fwait()
            && op.decoder_option() == 0
            && matches!(op.encoding(), EncodingKind::Legacy | EncodingKind::VEX)
            && code.cpuid_features().iter().all(|f| in_model(*f));
        if !candidate {
            continue;
        }
        if let Some(reason) = exclusion(code) {
            skipped.push((code, Skip::Excluded(reason)));
            continue;
        }
        let everywhere = if bits == 64 {
            op.intel_decoder64() && op.amd_decoder64()
        } else {
            op.intel_decoder32() && op.amd_decoder32()
        };
        if !everywhere {
            skipped.push((code, Skip::Excluded("Intel and AMD decode it differently")));
            continue;
        }
        if let Some(name) = code.cpuid_features().iter().find_map(|f| missing_on_host(*f)) {
            skipped.push((code, Skip::Host(name)));
            continue;
        }
        if op.op_kinds().iter().any(|k| register_or_memory(*k)) {
            forms.push(Form { code, memory: false });
            forms.push(Form { code, memory: true });
        } else {
            let memory = op.op_kinds().iter().any(|k| {
                use OpCodeOperandKind as K;
                matches!(k, K::mem | K::mem_offs)
            });
            forms.push(Form { code, memory });
        }
    }
    (forms, skipped)
}
