//! CPUID (SDM Vol. 2A, "CPUID"; MK specification section 2).
//!
//! An Ice-Lake-class server limited to what is implemented. A feature bit stands here only if its instructions, MSRs
//! and control bits exist: VME, HLE/RTM, AVX, MONITOR, PERFMON and SHA are absent for that reason, SELFSNOOP because
//! copies of a line under two KeyIDs do not snoop each other.

use crate::Cpu;
use crate::exec::system::msr::{MICROCODE_REVISION, misc_enable};
use crate::exec::system::unknown::Unknown;
use crate::state::slot;
use iced_x86::Instruction;
use mem::TmeFeatures;
use x86::{Exception, cr::cr4, msr, mutant};

/// Leaf numbers and bits, in manual order.
mod spec {
    /// "GenuineIntel" in EBX, EDX, ECX.
    pub const VENDOR: [u32; 3] =
        [u32::from_le_bytes(*b"Genu"), u32::from_le_bytes(*b"ineI"), u32::from_le_bytes(*b"ntel")];
    pub const MAX_BASIC: u32 = 0x1F;
    pub const MAX_EXTENDED: u32 = 0x8000_0008;
    /// Maximum basic leaf while IA32_MISC_ENABLE.LIMIT_CPUID_MAXVAL is set.
    pub const LIMITED_MAX_BASIC: u32 = 2;

    /// Leaf 1 EAX: family 6, model 6AH, stepping 6.
    pub const SIGNATURE: u32 = 0x0006_06A6;
    /// Leaf 1 EBX\[15:8\]: CLFLUSH line size in quadwords.
    pub const CLFLUSH_QUADWORDS: u32 = 8;

    pub mod leaf1_ecx {
        pub const SSE3: u32 = 1 << 0;
        pub const PCLMULQDQ: u32 = 1 << 1;
        pub const SSSE3: u32 = 1 << 9;
        pub const CMPXCHG16B: u32 = 1 << 13;
        pub const PCID: u32 = 1 << 17;
        pub const SSE4_1: u32 = 1 << 19;
        pub const SSE4_2: u32 = 1 << 20;
        pub const X2APIC: u32 = 1 << 21;
        pub const MOVBE: u32 = 1 << 22;
        pub const POPCNT: u32 = 1 << 23;
        pub const TSC_DEADLINE: u32 = 1 << 24;
        pub const AESNI: u32 = 1 << 25;
        pub const XSAVE: u32 = 1 << 26;
        pub const OSXSAVE: u32 = 1 << 27;
        pub const RDRAND: u32 = 1 << 30;
    }
    pub mod leaf1_edx {
        pub const FPU: u32 = 1 << 0;
        pub const DE: u32 = 1 << 2;
        pub const PSE: u32 = 1 << 3;
        pub const TSC: u32 = 1 << 4;
        pub const MSR: u32 = 1 << 5;
        pub const PAE: u32 = 1 << 6;
        pub const MCE: u32 = 1 << 7;
        pub const CX8: u32 = 1 << 8;
        pub const APIC: u32 = 1 << 9;
        pub const SEP: u32 = 1 << 11;
        pub const MTRR: u32 = 1 << 12;
        pub const PGE: u32 = 1 << 13;
        pub const MCA: u32 = 1 << 14;
        pub const CMOV: u32 = 1 << 15;
        pub const PAT: u32 = 1 << 16;
        pub const PSE36: u32 = 1 << 17;
        pub const CLFSH: u32 = 1 << 19;
        pub const MMX: u32 = 1 << 23;
        pub const FXSR: u32 = 1 << 24;
        pub const SSE: u32 = 1 << 25;
        pub const SSE2: u32 = 1 << 26;
        pub const HTT: u32 = 1 << 28;
    }

    /// Leaf 2: TLB descriptors 63H, 03H, 76H, B5H, C3H; F0H 64-byte prefetch; FFH "see leaf 4" (table 3-12).
    pub const LEAF2: [u32; 4] = [0x7603_6301, 0x00F0_B5FF, 0, 0x00C3_0000];

    pub mod leaf4 {
        pub const DATA: u32 = 1;
        pub const INSTRUCTION: u32 = 2;
        pub const UNIFIED: u32 = 3;
        pub const SELF_INITIALIZING: u32 = 1 << 8;
        /// EDX: inclusive of lower levels.
        pub const INCLUSIVE: u32 = 1 << 1;
        pub const LINE_BYTES: u32 = 64;
        /// First-level caches are not modelled (MC-27); Ice Lake's shapes are reported.
        pub const L1D_WAYS: u32 = 12;
        pub const L1I_WAYS: u32 = 8;
        pub const L1_SETS: u32 = 64;
    }

    /// Leaf 6 EAX: the APIC timer runs in every state.
    pub const ARAT: u32 = 1 << 2;

    pub mod leaf7_ebx {
        pub const FSGSBASE: u32 = 1 << 0;
        pub const TSC_ADJUST: u32 = 1 << 1;
        pub const BMI1: u32 = 1 << 3;
        pub const FDP_EXCPTN_ONLY: u32 = 1 << 6;
        pub const SMEP: u32 = 1 << 7;
        pub const BMI2: u32 = 1 << 8;
        pub const ERMS: u32 = 1 << 9;
        pub const INVPCID: u32 = 1 << 10;
        pub const FCS_FDS_DEPRECATED: u32 = 1 << 13;
        pub const RDSEED: u32 = 1 << 18;
        pub const SMAP: u32 = 1 << 20;
        pub const CLFLUSHOPT: u32 = 1 << 23;
        pub const CLWB: u32 = 1 << 24;
    }
    pub mod leaf7_ecx {
        pub const UMIP: u32 = 1 << 2;
        pub const TME_EN: u32 = 1 << 13;
        pub const RDPID: u32 = 1 << 22;
        pub const MOVDIRI: u32 = 1 << 27;
        pub const MOVDIR64B: u32 = 1 << 28;
    }
    pub mod leaf7_edx {
        pub const FSRM: u32 = 1 << 4;
        pub const PCONFIG: u32 = 1 << 18;
        /// IA32_SPEC_CTRL.IBRS and IA32_PRED_CMD.
        pub const IBRS_IBPB: u32 = 1 << 26;
        pub const STIBP: u32 = 1 << 27;
        pub const ARCH_CAPABILITIES: u32 = 1 << 29;
        pub const SSBD: u32 = 1 << 31;
    }

    /// Leaves 0BH and 1FH ECX\[15:8\].
    pub const LEVEL_SMT: u32 = 1 << 8;
    pub const LEVEL_CORE: u32 = 2 << 8;

    /// Leaf 0DH: x87 and SSE state in XCR0, and the XSAVE area they need.
    pub const XCR0_SUPPORTED: u32 = 0b11;
    pub const XSAVE_BYTES: u32 = 576;
    pub const XSAVEOPT: u32 = 1 << 0;

    /// Leaf 15H: TSC = 25 MHz crystal * 40 / 1 (design D6: 1 GHz).
    pub const CRYSTAL_HZ: u32 = 25_000_000;
    pub const TSC_NUMERATOR: u32 = 40;
    /// Leaf 16H, in MHz.
    pub const BASE_MHZ: u32 = 1000;
    pub const BUS_MHZ: u32 = 100;

    /// Leaf 1BH (MC-03).
    pub const PCONFIG_TARGETS: u32 = 1;
    pub const TARGET_TME_MK: u32 = 1;

    pub mod ext1_ecx {
        pub const LAHF64: u32 = 1 << 0;
        pub const LZCNT: u32 = 1 << 5;
        pub const PREFETCHW: u32 = 1 << 8;
    }
    pub mod ext1_edx {
        pub const SYSCALL: u32 = 1 << 11;
        pub const NX: u32 = 1 << 20;
        pub const PAGE1GB: u32 = 1 << 26;
        pub const RDTSCP: u32 = 1 << 27;
        pub const LM: u32 = 1 << 29;
    }
    pub const BRAND: &[u8; 48] = b"mktme-emu Intel(R) Xeon(R) @ 1.00GHz\0\0\0\0\0\0\0\0\0\0\0\0";
    pub const INVARIANT_TSC: u32 = 1 << 8;
    /// Leaf 80000008H EAX\[15:8\].
    pub const LINEAR_BITS: u32 = 48;
    /// Leaf 80000008H EBX\[9\].
    pub const WBNOINVD: u32 = 1 << 9;
}

/// What distinguishes one processor model from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuModel {
    /// `M`, the physical address width told by CPUID.80000008H. Never reduced (MK-007).
    pub maxphyaddr: u8,
    /// CPUID.7.0:ECX\[13\].
    pub has_tme: bool,
    /// CPUID.7.0:EDX\[18\].
    pub has_pconfig: bool,
    /// Logical processors in the package, one a core.
    pub cpus: u32,
    /// The modelled cache (MC-27): size in bytes and ways.
    pub cache_bytes: u32,
    pub cache_ways: u32,
    /// Knob `pconfig_legacy_codes` (MK specification section 4.3).
    pub pconfig_legacy_codes: bool,
    /// Fault knob `core_override` (MC-05, MK specification section 9.16): what this processor takes for IA32_TME_ACTIVATE, in
    /// RDMSR and when 9FFH takes over the KeyID width. The package and its PCONFIG are not concerned.
    pub core_override: Option<u64>,
}

impl Default for CpuModel {
    fn default() -> Self {
        CpuModel::new(&mem::TmeProfile::Default.features(), 1, 1 << 20, 16)
    }
}

impl CpuModel {
    /// The model of a package with `cpus` processors and the cache that memory models.
    pub fn new(features: &TmeFeatures, cpus: u32, cache_bytes: u32, cache_ways: u32) -> CpuModel {
        CpuModel {
            maxphyaddr: features.maxphyaddr,
            has_tme: features.has_tme,
            has_pconfig: features.has_pconfig,
            cpus: cpus.max(1),
            cache_bytes,
            cache_ways: cache_ways.max(1),
            pconfig_legacy_codes: false,
            core_override: None,
        }
    }

    /// APIC IDs the package may use: the next power of two.
    fn apic_ids(&self) -> u32 {
        self.cpus.checked_next_power_of_two().unwrap_or(1 << 31)
    }

    /// Leaf 4: deterministic cache parameters.
    fn cache_leaf(&self, subleaf: u32) -> [u32; 4] {
        use spec::leaf4::*;
        let package_ids = self.apic_ids();
        let (kind, level, shared_by, ways, sets) = match subleaf {
            0 => (DATA, 1, 1, L1D_WAYS, L1_SETS),
            1 => (INSTRUCTION, 1, 1, L1I_WAYS, L1_SETS),
            2 => {
                let sets = self.cache_bytes / LINE_BYTES / self.cache_ways;
                (UNIFIED, 2, package_ids, self.cache_ways, sets.max(1))
            }
            _ => return [0; 4],
        };
        let eax = kind | level << 5 | SELF_INITIALIZING | (shared_by - 1) << 14 | (package_ids - 1).min(0x3F) << 26;
        let ebx = (LINE_BYTES - 1) | (ways - 1) << 22;
        [eax, ebx, sets - 1, if kind == UNIFIED { INCLUSIVE } else { 0 }]
    }

    /// Leaves 0BH and 1FH: one thread a core, all cores in one package.
    fn topology_leaf(&self, subleaf: u32, apic_id: u32) -> [u32; 4] {
        match subleaf {
            0 => [0, 1, spec::LEVEL_SMT, apic_id],
            1 => [self.apic_ids().trailing_zeros(), self.cpus, spec::LEVEL_CORE | 1, apic_id],
            n => [0, 0, n & 0xFF, apic_id],
        }
    }
}

impl Cpu {
    /// EAX, EBX, ECX and EDX of a leaf.
    ///
    /// Leaves above the maximum return the highest basic leaf's data (SDM Vol. 2A, "CPUID", "INPUT EAX"), reserved ones
    /// below it zeros. Whether the local APIC is enabled (leaf 1, EDX\[9\]) is added by the instruction.
    pub fn cpuid(&self, leaf: u32, subleaf: u32) -> [u32; 4] {
        let limited = self.msr.misc_enable & misc_enable::LIMIT_CPUID_MAXVAL != 0;
        let max_basic = if limited { spec::LIMITED_MAX_BASIC } else { spec::MAX_BASIC };
        let is_extended = (0x8000_0000..=spec::MAX_EXTENDED).contains(&leaf);
        let leaf = if leaf <= max_basic || is_extended { leaf } else { max_basic };
        let m = &self.model;
        let apic_id = self.id as u32;
        match leaf {
            0 => [max_basic, spec::VENDOR[0], spec::VENDOR[2], spec::VENDOR[1]],
            1 => self.feature_leaf(apic_id),
            2 => spec::LEAF2,
            4 => m.cache_leaf(subleaf),
            6 => [spec::ARAT, 0, 0, 0],
            7 if subleaf == 0 => self.structured_feature_leaf(),
            0xB | 0x1F => m.topology_leaf(subleaf, apic_id),
            0xD => match subleaf {
                // Both components live in the legacy region, so the enabled size never changes.
                0 => [spec::XCR0_SUPPORTED, spec::XSAVE_BYTES, spec::XSAVE_BYTES, 0],
                1 => [spec::XSAVEOPT, 0, 0, 0],
                _ => [0; 4],
            },
            0x15 => [1, spec::TSC_NUMERATOR, spec::CRYSTAL_HZ, 0],
            0x16 => [spec::BASE_MHZ, spec::BASE_MHZ, spec::BUS_MHZ, 0],
            0x1B if m.has_pconfig && (subleaf == 0 || mutant!(Leaf1bHasNoEnd)) => {
                [spec::PCONFIG_TARGETS, spec::TARGET_TME_MK, 0, 0]
            }
            0x8000_0000 => [spec::MAX_EXTENDED, 0, 0, 0],
            0x8000_0001 => self.extended_feature_leaf(),
            0x8000_0002..=0x8000_0004 => {
                let at = (leaf - 0x8000_0002) as usize * 16;
                std::array::from_fn(|i| {
                    let mut word = [0; 4];
                    word.copy_from_slice(&spec::BRAND[at + i * 4..][..4]);
                    u32::from_le_bytes(word)
                })
            }
            0x8000_0006 => [0, 0, self.l2_word(), 0],
            0x8000_0007 => [0, 0, 0, spec::INVARIANT_TSC],
            0x8000_0008 if mutant!(MaxphyaddrReduced) => {
                [u32::from(m.maxphyaddr - self.mem.layout().keyid_bits), 0, 0, 0]
            }
            0x8000_0008 => [u32::from(m.maxphyaddr) | spec::LINEAR_BITS << 8, spec::WBNOINVD, 0, 0],
            // 3 serial number, 5 MONITOR, 8, 9 DCA, AH PMU, CH, EH-14H, 17H-1AH, 1CH-1EH: nothing there.
            _ => [0; 4],
        }
    }

    fn feature_leaf(&self, apic_id: u32) -> [u32; 4] {
        use spec::{leaf1_ecx as c, leaf1_edx as d};
        let ids = self.model.apic_ids();
        let mut ebx = spec::CLFLUSH_QUADWORDS << 8 | (apic_id & 0xFF) << 24;
        let mut ecx = c::SSE3
            | c::PCLMULQDQ
            | c::SSSE3
            | c::CMPXCHG16B
            | c::PCID
            | c::SSE4_1
            | c::SSE4_2
            | c::X2APIC
            | c::MOVBE
            | c::POPCNT
            | c::TSC_DEADLINE
            | c::AESNI
            | c::XSAVE
            | c::RDRAND;
        let mut edx = d::FPU
            | d::DE
            | d::PSE
            | d::TSC
            | d::MSR
            | d::PAE
            | d::MCE
            | d::CX8
            | d::APIC
            | d::SEP
            | d::MTRR
            | d::PGE
            | d::MCA
            | d::CMOV
            | d::PAT
            | d::PSE36
            | d::CLFSH
            | d::MMX
            | d::FXSR
            | d::SSE
            | d::SSE2;
        if self.cr4 & cr4::OSXSAVE != 0 {
            ecx |= c::OSXSAVE;
        }
        if ids > 1 {
            edx |= d::HTT;
            ebx |= ids.min(0xFF) << 16;
        }
        [spec::SIGNATURE, ebx, ecx, edx]
    }

    fn structured_feature_leaf(&self) -> [u32; 4] {
        use spec::{leaf7_ebx as b, leaf7_ecx as c, leaf7_edx as d};
        let ebx = b::FSGSBASE
            | b::TSC_ADJUST
            | b::BMI1
            | b::FDP_EXCPTN_ONLY
            | b::SMEP
            | b::BMI2
            | b::ERMS
            | b::INVPCID
            | b::FCS_FDS_DEPRECATED
            | b::RDSEED
            | b::SMAP
            | b::CLFLUSHOPT
            | b::CLWB;
        let hidden = mutant!(LockedOffHidesTme) && self.mem.tme().activate() & 3 == 1;
        let tme = if self.model.has_tme && !hidden { c::TME_EN } else { 0 };
        let pconfig = if self.model.has_pconfig { d::PCONFIG } else { 0 };
        let edx = d::FSRM | pconfig | d::IBRS_IBPB | d::STIBP | d::ARCH_CAPABILITIES | d::SSBD;
        [0, ebx, c::UMIP | tme | c::RDPID | c::MOVDIRI | c::MOVDIR64B, edx]
    }

    fn extended_feature_leaf(&self) -> [u32; 4] {
        use spec::{ext1_ecx as c, ext1_edx as d};
        let mut edx = d::PAGE1GB | d::RDTSCP | d::LM;
        // Intel processors enumerate SYSCALL only to 64-bit code.
        if self.mode.is_long64() {
            edx |= d::SYSCALL;
        }
        if self.nx_supported() {
            edx |= d::NX;
        }
        [0, 0, c::LAHF64 | c::LZCNT | c::PREFETCHW, edx]
    }

    /// Leaf 80000006H ECX: the second-level cache in the older encoding.
    fn l2_word(&self) -> u32 {
        let associativity = match self.model.cache_ways {
            1 => 1,
            2 => 2,
            4 => 4,
            8 => 6,
            16 => 8,
            // "See leaf 4": no code for other way counts.
            _ => 9,
        };
        (self.model.cache_bytes >> 10).min(0xFFFF) << 16 | associativity << 12 | spec::leaf4::LINE_BYTES
    }

    /// NX exists unless IA32_MISC_ENABLE.XD_BIT_DISABLE hides it.
    pub(crate) fn nx_supported(&self) -> bool {
        self.msr.misc_enable & misc_enable::XD_BIT_DISABLE == 0
    }
}

/// CPUID
pub(super) fn cpuid(cpu: &mut Cpu, _: &Instruction) -> Result<(), Exception> {
    let (leaf, subleaf) = (cpu.regs[slot::RAX as usize] as u32, cpu.regs[slot::RCX as usize] as u32);
    // 40000000H-4FFFFFFFH never exist on a processor; software looks for hypervisors there.
    let hypervisor = leaf >> 28 == 4;
    if leaf > spec::MAX_EXTENDED || (leaf > spec::MAX_BASIC && leaf < 0x8000_0000 && !hypervisor) {
        cpu.log_unknown(Unknown::CpuidLeaf(leaf));
    }
    let mut out = cpu.cpuid(leaf, subleaf);
    if leaf == 1 {
        // CPUID.1 loads the signature of the last microcode update (SDM Vol. 3A, section 10.11.7.1).
        cpu.msr.bios_sign_id = u64::from(MICROCODE_REVISION) << 32;
        let now = cpu.now();
        let base = cpu.platform.apic_msr_read(now, cpu.id, msr::IA32_APIC_BASE).unwrap_or(0);
        if base & super::msr::apic_base::ENABLE == 0 {
            out[3] &= !spec::leaf1_edx::APIC;
        }
    }
    for (register, value) in [slot::RAX, slot::RBX, slot::RCX, slot::RDX].into_iter().zip(out) {
        cpu.regs[register as usize] = u64::from(value);
    }
    Ok(())
}
