//! RDMSR and WRMSR (SDM Vol. 4, chapter 2; MK specification section 3).

use crate::Cpu;
use crate::exec::system::mtrr::{self, valid_fixed_mtrr, valid_mtrr_type, valid_pat};
use crate::exec::system::unknown::Unknown;
use crate::operand::canonical;
use crate::state::{CoreMsrs, slot};
use iced_x86::Instruction;
use x86::msr::*;
use x86::mutant;
use x86::segment::sreg;
use x86::{Exception, cr};

/// Revision of the microcode "loaded": Ice Lake's, and not on any list of faulty ones.
pub const MICROCODE_REVISION: u32 = 0x0D00_03F5;

/// IA32_APIC_BASE
pub mod apic_base {
    pub const ENABLE: u64 = 1 << 11;
    /// Bits 7:0 and 9.
    pub const RESERVED: u64 = 0x2FF;
}

/// IA32_SPEC_CTRL
mod spec_ctrl {
    pub const IBRS: u64 = 1 << 0;
    pub const STIBP: u64 = 1 << 1;
    pub const SSBD: u64 = 1 << 2;
}

/// IA32_PRED_CMD
const IBPB: u64 = 1 << 0;

/// IA32_FEATURE_CONTROL: locked, with everything it could enable off.
const FEATURE_CONTROL_LOCK: u64 = 1 << 0;

/// MSR_PLATFORM_INFO: maximum non-turbo and maximum efficiency ratio, in units of 100 MHz (the TSC's 1 GHz).
const PLATFORM_INFO: u64 = 10 << 8 | 10 << 40;

/// IA32_ARCH_CAPABILITIES: immune to what would only cost time to mitigate.
mod arch_capabilities {
    pub const RDCL_NO: u64 = 1 << 0;
    pub const IBRS_ALL: u64 = 1 << 1;
    pub const SKIP_L1DFL_VMENTRY: u64 = 1 << 3;
    pub const SSB_NO: u64 = 1 << 4;
    pub const MDS_NO: u64 = 1 << 5;
    pub const PSCHANGE_MC_NO: u64 = 1 << 6;
    pub const TAA_NO: u64 = 1 << 8;
    pub const SBDR_SSDP_NO: u64 = 1 << 13;
    pub const FBSDP_NO: u64 = 1 << 14;
    pub const PSDP_NO: u64 = 1 << 15;
    pub const BHI_NO: u64 = 1 << 20;
    pub const PBRSB_NO: u64 = 1 << 24;
    pub const GDS_NO: u64 = 1 << 26;
    pub const RFDS_NO: u64 = 1 << 27;
    pub const ITS_NO: u64 = 1 << 62;
    pub const VALUE: u64 = RDCL_NO
        | IBRS_ALL
        | SKIP_L1DFL_VMENTRY
        | SSB_NO
        | MDS_NO
        | PSCHANGE_MC_NO
        | TAA_NO
        | SBDR_SSDP_NO
        | FBSDP_NO
        | PSDP_NO
        | BHI_NO
        | PBRSB_NO
        | GDS_NO
        | RFDS_NO
        | ITS_NO;
}

/// IA32_MISC_ENABLE
pub mod misc_enable {
    pub const FAST_STRINGS: u64 = 1 << 0;
    pub const BTS_UNAVAILABLE: u64 = 1 << 11;
    pub const PEBS_UNAVAILABLE: u64 = 1 << 12;
    pub const LIMIT_CPUID_MAXVAL: u64 = 1 << 22;
    pub const XD_BIT_DISABLE: u64 = 1 << 34;
    /// Bits with an effect here.
    pub const WRITABLE: u64 = FAST_STRINGS | LIMIT_CPUID_MAXVAL | XD_BIT_DISABLE;
    /// Defined bits for features that do not exist here (TM1, PMU, EIST, MONITOR, xTPR): writes are ignored.
    pub const IGNORED: u64 = 1 << 3 | 1 << 7 | BTS_UNAVAILABLE | PEBS_UNAVAILABLE | 1 << 16 | 1 << 18 | 1 << 23;
    pub const RESET: u64 = FAST_STRINGS | BTS_UNAVAILABLE | PEBS_UNAVAILABLE;
}

/// IA32_PAT after reset: WB, WT, UC-, UC, twice.
const PAT_RESET: u64 = 0x0007_0406_0007_0406;

/// IA32_DEBUGCTL: last-branch records, branch traps and freezes are not modelled; only the reset value may be written.
const IA32_DEBUGCTL: u32 = 0x1D9;

const IA32_MTRR_PHYS_LAST: u32 = IA32_MTRR_PHYSBASE0 + 2 * mtrr::spec::VARIABLE_RANGES as u32 - 1;
const IA32_MTRR_FIX4K_LAST: u32 = IA32_MTRR_FIX4K_C0000 + 7;

impl CoreMsrs {
    /// The values after power-up or reset (SDM Vol. 3A, table 9-1).
    pub fn at_reset() -> CoreMsrs {
        CoreMsrs {
            pat: PAT_RESET,
            misc_enable: misc_enable::RESET,
            feature_control: FEATURE_CONTROL_LOCK,
            bios_sign_id: u64::from(MICROCODE_REVISION) << 32,
            ..CoreMsrs::default()
        }
    }
}

/// Index of a fixed-range MTRR in [`crate::state::Mtrrs::fixed`].
fn fixed_index(msr: u32) -> Option<usize> {
    match msr {
        IA32_MTRR_FIX64K_00000 => Some(0),
        IA32_MTRR_FIX16K_80000 | IA32_MTRR_FIX16K_A0000 => Some((msr - IA32_MTRR_FIX16K_80000) as usize + 1),
        IA32_MTRR_FIX4K_C0000..=IA32_MTRR_FIX4K_LAST => Some((msr - IA32_MTRR_FIX4K_C0000) as usize + 3),
        _ => None,
    }
}

fn require(condition: bool) -> Result<(), Exception> {
    if condition { Ok(()) } else { Err(Exception::GP0) }
}

impl Cpu {
    /// The value of an MSR; #GP(0) if it does not exist or cannot be read. Privilege is the caller's.
    pub fn rdmsr(&mut self, msr: u32) -> Result<u64, Exception> {
        if let Some(i) = fixed_index(msr) {
            return Ok(self.msr.mtrr.fixed[i]);
        }
        Ok(match msr {
            IA32_TIME_STAMP_COUNTER => self.tsc(),
            IA32_PLATFORM_ID => 0,
            IA32_APIC_BASE | IA32_TSC_DEADLINE | IA32_X2APIC_FIRST..=IA32_X2APIC_LAST => {
                let now = self.now();
                return self.platform.apic_msr_read(now, self.id, msr).ok_or(Exception::GP0);
            }
            IA32_FEATURE_CONTROL => self.msr.feature_control,
            IA32_TSC_ADJUST => self.msr.tsc_adjust,
            IA32_SPEC_CTRL => self.msr.spec_ctrl,
            IA32_PRED_CMD => return Err(Exception::GP0),
            IA32_BIOS_SIGN_ID => self.msr.bios_sign_id,
            MSR_PLATFORM_INFO => PLATFORM_INFO,
            IA32_MTRRCAP => mtrr::spec::MTRRCAP,
            IA32_ARCH_CAPABILITIES => arch_capabilities::VALUE,
            IA32_SYSENTER_CS => self.msr.sysenter_cs,
            IA32_SYSENTER_ESP => self.msr.sysenter_esp,
            IA32_SYSENTER_EIP => self.msr.sysenter_eip,
            IA32_MCG_STATUS => self.msr.mcg_status,
            IA32_MISC_ENABLE => self.msr.misc_enable,
            IA32_DEBUGCTL => 0,
            IA32_MTRR_PHYSBASE0..=IA32_MTRR_PHYS_LAST => {
                let n = (msr - IA32_MTRR_PHYSBASE0) as usize;
                let m = &self.msr.mtrr;
                if n & 1 == 0 { m.phys_base[n / 2] } else { m.phys_mask[n / 2] }
            }
            IA32_PAT => self.msr.pat,
            IA32_MTRR_DEF_TYPE => self.msr.mtrr.def_type,
            IA32_MKTME_KEYID_PARTITIONING | IA32_TME_CAPABILITY..=IA32_TME_EXCLUDE_BASE | IA32_TME_CLEAR_SAVED_KEY => {
                let value = self.mem.tme().rdmsr(msr).ok_or(Exception::GP0)?;
                return Ok(self.model.core_override.filter(|_| msr == IA32_TME_ACTIVATE).unwrap_or(value));
            }
            MK_TME_CORE_ACTIVATE => {
                require(self.has_core_activate())?;
                u64::from(self.msr.k_core) << x86::tme::activate::MK_TME_KEYID_BITS_SHIFT
            }
            IA32_EFER => self.msr.efer,
            IA32_STAR => self.msr.star,
            IA32_LSTAR => self.msr.lstar,
            IA32_CSTAR => self.msr.cstar,
            IA32_FMASK => self.msr.fmask,
            IA32_FS_BASE => self.segments[sreg::FS].base,
            IA32_GS_BASE => self.segments[sreg::GS].base,
            IA32_KERNEL_GS_BASE => self.msr.kernel_gs_base,
            IA32_TSC_AUX => self.msr.tsc_aux,
            _ => {
                if let Some(value) = self.machine_check_msr(msr) {
                    return Ok(value);
                }
                self.log_unknown(Unknown::MsrRead(msr));
                return Err(Exception::GP0);
            }
        })
    }

    /// Writes an MSR; #GP(0), with nothing changed, if it does not exist, is read-only or refuses the value. Privilege is
    /// the caller's.
    pub fn wrmsr(&mut self, msr: u32, value: u64) -> Result<(), Exception> {
        if let Some(i) = fixed_index(msr) {
            require(valid_fixed_mtrr(value))?;
            self.msr.mtrr.fixed[i] = value;
            self.drop_shortcuts();
            return Ok(());
        }
        match msr {
            IA32_TIME_STAMP_COUNTER => {
                // IA32_TSC_ADJUST follows every write of the TSC (SDM Vol. 3B, section 18.17.3).
                let adjust = self.msr.tsc_adjust.wrapping_add(value.wrapping_sub(self.tsc()));
                self.set_tsc_adjust(adjust);
            }
            IA32_APIC_BASE => {
                // MC-18: like a range register, KeyID bits are refused.
                let reserved = !self.range_address_mask() | apic_base::RESERVED;
                require(value & reserved == 0)?;
                self.apic_write(msr, value)?;
                self.drop_shortcuts();
            }
            IA32_TSC_DEADLINE | IA32_X2APIC_FIRST..=IA32_X2APIC_LAST => self.apic_write(msr, value)?,
            IA32_TSC_ADJUST => self.set_tsc_adjust(value),
            IA32_SPEC_CTRL => {
                require(value & !(spec_ctrl::IBRS | spec_ctrl::STIBP | spec_ctrl::SSBD) == 0)?;
                self.msr.spec_ctrl = value;
            }
            IA32_PRED_CMD => require(value & !IBPB == 0)?,
            IA32_BIOS_SIGN_ID => self.msr.bios_sign_id = value,
            IA32_PLATFORM_ID | MSR_PLATFORM_INFO | IA32_MTRRCAP | IA32_ARCH_CAPABILITIES | IA32_MCG_CAP => {
                return Err(Exception::GP0);
            }
            IA32_FEATURE_CONTROL => {
                require(self.msr.feature_control & FEATURE_CONTROL_LOCK == 0)?;
                require(value & !FEATURE_CONTROL_LOCK == 0)?;
                self.msr.feature_control = value;
            }
            IA32_SYSENTER_CS => self.msr.sysenter_cs = value & 0xFFFF_FFFF,
            IA32_SYSENTER_ESP => self.msr.sysenter_esp = checked_canonical(value)?,
            IA32_SYSENTER_EIP => self.msr.sysenter_eip = checked_canonical(value)?,
            IA32_MCG_STATUS => {
                require(value == 0)?;
                self.msr.mcg_status = 0;
            }
            IA32_MISC_ENABLE => self.write_misc_enable(value)?,
            IA32_DEBUGCTL => require(value == 0)?,
            IA32_MTRR_PHYSBASE0..=IA32_MTRR_PHYS_LAST => self.write_variable_mtrr(msr, value)?,
            IA32_PAT => {
                require(valid_pat(value))?;
                self.msr.pat = value;
                self.drop_shortcuts();
            }
            IA32_MTRR_DEF_TYPE => {
                use mtrr::spec::{E, FE, TYPE};
                require(value & !(TYPE | FE | E) == 0 && valid_mtrr_type(value & TYPE))?;
                self.msr.mtrr.def_type = value;
                self.drop_shortcuts();
            }
            IA32_MKTME_KEYID_PARTITIONING | IA32_TME_CAPABILITY..=IA32_TME_EXCLUDE_BASE | IA32_TME_CLEAR_SAVED_KEY => {
                let written = self.mem.tme_mut().wrmsr(msr, value);
                self.settle();
                written.ok_or(Exception::GP0)?;
                // Activation moves the border between address and KeyID for every agent at once (MC-05, MC-14).
                self.drop_shortcuts();
            }
            MK_TME_CORE_ACTIVATE => {
                // MC-13: every bit of the written value is reserved.
                require(self.has_core_activate() && (value == 0 || mutant!(CoreActivateAnyValue)))?;
                self.msr.k_core =
                    if mutant!(CoreActivateStale) { self.msr.k_core } else { self.keyid_bits_to_activate() };
                self.told_not_activated = false;
                // The page-miss handler's address mask changed, and with it the memory types it would find.
                self.flush_tlb(true);
                self.drop_shortcuts();
            }
            IA32_EFER => self.write_efer(value)?,
            IA32_STAR => self.msr.star = value,
            IA32_LSTAR => self.msr.lstar = checked_canonical(value)?,
            IA32_CSTAR => self.msr.cstar = checked_canonical(value)?,
            IA32_FMASK => {
                require(value >> 32 == 0)?;
                self.msr.fmask = value;
            }
            IA32_FS_BASE => self.set_segment_base(sreg::FS, checked_canonical(value)?),
            IA32_GS_BASE => self.set_segment_base(sreg::GS, checked_canonical(value)?),
            IA32_KERNEL_GS_BASE => self.msr.kernel_gs_base = checked_canonical(value)?,
            IA32_TSC_AUX => {
                require(value >> 32 == 0)?;
                self.msr.tsc_aux = value;
            }
            IA32_MC0_CTL..=IA32_MC0_MISC if self.mem.has_integrity() => {
                return self.write_machine_check_msr(msr, value).ok_or(Exception::GP0);
            }
            _ => {
                self.log_unknown(Unknown::MsrWrite(msr));
                return Err(Exception::GP0);
            }
        }
        Ok(())
    }

    /// MK_TME_CORE_ACTIVATE exists with TME-MK (MK specification section 3.6).
    fn has_core_activate(&self) -> bool {
        self.mem.tme().features().max_keyid_bits() > 0
    }

    /// What a write of 9FFH makes `k_core`: MK_TME_KEYID_BITS of the locked and enabled 982H, else 0 (section 3.6).
    fn keyid_bits_to_activate(&self) -> u8 {
        use x86::tme::activate::*;
        match self.model.core_override {
            Some(seen) if seen & (LOCK | ENABLE) == LOCK | ENABLE => (seen >> MK_TME_KEYID_BITS_SHIFT & 0xF) as u8,
            Some(_) => 0,
            None => self.mem.tme().keyid_bits(),
        }
    }

    fn apic_write(&mut self, msr: u32, value: u64) -> Result<(), Exception> {
        let (now, offset) = (self.now(), self.tsc_offset());
        self.platform.apic_msr_write(now, self.id, msr, value, offset).ok_or(Exception::GP0)
    }

    /// Moves the TSC. An armed deadline is compared with the TSC, so it moves in time.
    fn set_tsc_adjust(&mut self, adjust: u64) {
        self.msr.tsc_adjust = adjust;
        let now = self.now();
        if let Some(deadline @ 1..) = self.platform.apic_msr_read(now, self.id, IA32_TSC_DEADLINE) {
            let armed = self.apic_write(IA32_TSC_DEADLINE, deadline);
            debug_assert!(armed.is_ok(), "a deadline that was read can be written");
        }
    }

    fn write_misc_enable(&mut self, value: u64) -> Result<(), Exception> {
        require(value & !(misc_enable::WRITABLE | misc_enable::IGNORED) == 0)?;
        self.msr.misc_enable = self.msr.misc_enable & !misc_enable::WRITABLE | value & misc_enable::WRITABLE;
        Ok(())
    }

    /// SDM Vol. 3A, section 12.11.2.3; KeyID bits by MK specification section 3.9 (MK-060).
    fn write_variable_mtrr(&mut self, msr: u32, value: u64) -> Result<(), Exception> {
        use mtrr::spec::{PHYSBASE_RESERVED, PHYSMASK_RESERVED, TYPE};
        let beyond = !if mutant!(MtrrKeyidBits) { (1 << self.model.maxphyaddr) - 1 } else { self.range_address_mask() };
        let n = (msr - IA32_MTRR_PHYSBASE0) as usize;
        if n & 1 == 0 {
            require(value & (beyond | PHYSBASE_RESERVED) == 0 && valid_mtrr_type(value & TYPE))?;
            self.msr.mtrr.phys_base[n / 2] = value;
        } else {
            require(value & (beyond | PHYSMASK_RESERVED) == 0)?;
            self.msr.mtrr.phys_mask[n / 2] = value;
        }
        self.drop_shortcuts();
        Ok(())
    }

    fn write_efer(&mut self, value: u64) -> Result<(), Exception> {
        use cr::efer::{LMA, LME, NXE, SCE};
        let nxe = if self.nx_supported() { NXE } else { 0 };
        let old = self.msr.efer;
        require(value & !(SCE | LME | LMA | nxe) == 0)?;
        let paging = self.cr0 & cr::cr0::PG != 0;
        require(!(paging && (old ^ value) & LME != 0))?;
        // LMA is read-only: writes of it are ignored.
        self.msr.efer = value & !LMA | old & LMA;
        if (old ^ value) & NXE != 0 {
            // Cached translations were checked under the other meaning of bit 63.
            self.flush_tlb(true);
            self.drop_shortcuts();
        }
        Ok(())
    }
}

fn checked_canonical(value: u64) -> Result<u64, Exception> {
    require(canonical(value))?;
    Ok(value)
}

/// RDMSR
pub(super) fn rdmsr(cpu: &mut Cpu, _: &Instruction) -> Result<(), Exception> {
    require(cpu.cpl == 0)?;
    let value = cpu.rdmsr(cpu.regs[slot::RCX as usize] as u32)?;
    cpu.regs[slot::RAX as usize] = value & 0xFFFF_FFFF;
    cpu.regs[slot::RDX as usize] = value >> 32;
    Ok(())
}

/// WRMSR
pub(super) fn wrmsr(cpu: &mut Cpu, _: &Instruction) -> Result<(), Exception> {
    require(cpu.cpl == 0)?;
    let value = cpu.regs[slot::RAX as usize] & 0xFFFF_FFFF | cpu.regs[slot::RDX as usize] << 32;
    let msr = cpu.regs[slot::RCX as usize] as u32;
    cpu.mem.note_wrmsr(msr);
    cpu.settle();
    cpu.wrmsr(msr, value)
}

/// RDPMC: there are no performance counters, so every index is invalid (SDM Vol. 2B).
pub(super) fn rdpmc(_: &mut Cpu, _: &Instruction) -> Result<(), Exception> {
    Err(Exception::GP0)
}
