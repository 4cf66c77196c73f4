//! 10.1 CPUID.

use crate::harness::{Asm, Power, Scenario, Verdict};
use crate::statement::Env;
use crate::{equal, statements};
use mem::TmeProfile;
use x86::msr;

statements! {
    "10.1 CPUID";
    mk_001 Guest "profiles with TME-MK: CPUID.7.0 ECX[13] = 1 and EDX[18] = 1";
    mk_002 Guest "profile none: no TME_EN, no PCONFIG, leaf 1BH zero, no memory-encryption MSR";
    mk_003 Guest "profile tme-only: TME_EN without PCONFIG; no TME-MK in 981H, no 9FFH, no 87H; PCONFIG #UD";
    mk_004 Guest "CPUID.1BH.0 = 1, 1, 0, 0";
    mk_005 Guest "CPUID.1BH, sub-leaves 1, 2, FFFFFFFFH: zeros";
    mk_006 Guest "CPUID.0: EAX >= 1BH where there is PCONFIG";
    mk_007 Guest "CPUID.80000008H: EAX[7:0] = M before and after activation";
    mk_008 Guest "locked off: TME_EN and PCONFIG still enumerated";
}

const LEAF_7: u32 = 7;
const PCONFIG_LEAF: u32 = 0x1B;
const ADDRESS_LEAF: u32 = 0x8000_0008;
const TME_EN: u64 = 1 << 13;
const PCONFIG: u64 = 1 << 18;
const TME_MK: [TmeProfile; 4] = [TmeProfile::Default, TmeProfile::Client4, TmeProfile::Server6, TmeProfile::Server7];

/// TME_EN and PCONFIG as CPUID tells them.
fn enumerated(s: &mut Scenario) -> Result<(bool, bool), crate::harness::Failure> {
    let [_, _, ecx, edx] = s.cpuid(LEAF_7, 0)?;
    Ok((ecx & TME_EN != 0, edx & PCONFIG != 0))
}

/// RDMSR and WRMSR of 0 both give #GP(0).
fn absent(s: &mut Scenario, number: u32) -> Verdict {
    s.rdmsr_outcome(number)?.gp(&format!("RDMSR {number:X}H"))?;
    s.wrmsr(number, 0)?.gp(&format!("WRMSR {number:X}H"))
}

fn mk_001(_: &Env) -> Verdict {
    for profile in TME_MK {
        equal!(enumerated(&mut Power::profile(profile).reset_state()?)?, (true, true), "{profile}: TME_EN, PCONFIG");
    }
    Ok(())
}

fn mk_002(_: &Env) -> Verdict {
    let mut s = Power::profile(TmeProfile::None).reset_state()?;
    equal!(enumerated(&mut s)?, (false, false), "TME_EN, PCONFIG");
    for subleaf in [0, 1, u32::MAX] {
        equal!(s.cpuid(PCONFIG_LEAF, subleaf)?, [0; 4], "CPUID.1BH.{subleaf:X}");
    }
    for number in msr::IA32_TME_CAPABILITY..=msr::IA32_TME_EXCLUDE_BASE {
        absent(&mut s, number)?;
    }
    absent(&mut s, msr::IA32_MKTME_KEYID_PARTITIONING)?;
    absent(&mut s, msr::IA32_TME_CLEAR_SAVED_KEY)?;
    absent(&mut s, msr::MK_TME_CORE_ACTIVATE)
}

fn mk_003(_: &Env) -> Verdict {
    let mut s = Power::profile(TmeProfile::TmeOnly).reset_state()?;
    equal!(enumerated(&mut s)?, (true, false), "TME_EN, PCONFIG");
    equal!(s.cpuid(PCONFIG_LEAF, 0)?, [0; 4], "CPUID.1BH.0");
    const MK_FIELDS: u64 = 0x0007_FFFF_0000_0000;
    equal!(s.rdmsr(msr::IA32_TME_CAPABILITY)? & MK_FIELDS, 0, "981H[50:32]");
    absent(&mut s, msr::MK_TME_CORE_ACTIVATE)?;
    absent(&mut s, msr::IA32_MKTME_KEYID_PARTITIONING)?;
    s.run(|a| {
        a.pconfig_at(crate::harness::layout::PROGRAM)?;
        a.hlt()
    })?
    .ud("PCONFIG")
}

fn mk_004(_: &Env) -> Verdict {
    for profile in TME_MK {
        equal!(Power::profile(profile).reset_state()?.cpuid(PCONFIG_LEAF, 0)?, [1, 1, 0, 0], "{profile}: CPUID.1BH.0");
    }
    Ok(())
}

fn mk_005(_: &Env) -> Verdict {
    let mut s = Power::default().reset_state()?;
    for subleaf in [1, 2, u32::MAX] {
        equal!(s.cpuid(PCONFIG_LEAF, subleaf)?, [0; 4], "CPUID.1BH.{subleaf:X}");
    }
    Ok(())
}

fn mk_006(_: &Env) -> Verdict {
    for profile in TME_MK {
        let [max, ..] = Power::profile(profile).reset_state()?.cpuid(0, 0)?;
        crate::check!(max >= u64::from(PCONFIG_LEAF), "{profile}: CPUID.0 EAX = {max:#x}");
    }
    Ok(())
}

fn mk_007(_: &Env) -> Verdict {
    for (profile, m, activate) in [
        (TmeProfile::Default, 46, crate::harness::ACTIVATE),
        (TmeProfile::Client4, 46, 0x0004_0004_0000_0022),
        (TmeProfile::Server6, 52, crate::harness::ACTIVATE),
        (TmeProfile::Server7, 52, 0x0005_0007_0000_0002),
    ] {
        let mut s = Power::profile(profile).reset_state()?;
        equal!(s.cpuid(ADDRESS_LEAF, 0)?[0] & 0xFF, m, "{profile}: M before activation");
        s.activate(activate)?;
        equal!(s.cpuid(ADDRESS_LEAF, 0)?[0] & 0xFF, m, "{profile}: M after activation");
    }
    Ok(())
}

fn mk_008(_: &Env) -> Verdict {
    let mut s = Power::default().reset_state()?;
    s.wrmsr(msr::IA32_TME_ACTIVATE, 0)?.halted()?;
    equal!(s.rdmsr(msr::IA32_TME_ACTIVATE)?, 1, "982H");
    equal!(enumerated(&mut s)?, (true, true), "TME_EN, PCONFIG");
    Ok(())
}
