//! Chapter 1: CPUID.

use crate::cpu::cpuid;
use crate::mktme::cpuid as leaf;
use crate::report::{Ascii, Report};
use crate::say;

/// Sub-leaves of 1BH to look at before concluding that the list does not end.
const SUBLEAVES_MAX: u32 = 64;

/// What CPUID told.
pub struct Features {
    pub maxphyaddr: u32,
    /// The TME MSRs exist.
    pub tme: bool,
    /// PCONFIG exists and has MKTME as a target.
    pub pconfig_mktme: bool,
}

#[inline(never)]
pub fn run(report: &mut Report) -> Features {
    report.chapter("What the CPU says about itself (CPUID)");

    let vendor = cpuid(leaf::VENDOR, 0);
    let mut name = [0; 12];
    for (chunk, register) in name.chunks_mut(4).zip([vendor.ebx, vendor.edx, vendor.ecx]) {
        chunk.copy_from_slice(&register.to_le_bytes());
    }
    report.value("Vendor", format_args!("{}", Ascii(&name)));
    let max_leaf = vendor.eax;

    let maxphyaddr = cpuid(leaf::ADDRESS_SIZES, 0).eax & 0xff;
    report.value("Physical address width (MAXPHYADDR)", format_args!("{maxphyaddr} bits"));

    let (mut tme, mut pconfig) = (false, false);
    if max_leaf >= leaf::STRUCTURED_FEATURES {
        let features = cpuid(leaf::STRUCTURED_FEATURES, 0);
        tme = features.ecx & leaf::TME_EN != 0;
        pconfig = features.edx & leaf::PCONFIG != 0;
    }
    report.value("TME: the encryption MSRs exist (TME_EN)", format_args!("{}", yes_no(tme)));
    report.value("PCONFIG: the instruction that loads keys", format_args!("{}", yes_no(pconfig)));

    let mut mktme_target = false;
    if pconfig && max_leaf >= leaf::PCONFIG_TARGETS {
        mktme_target = scan_targets(report);
    }
    report.check(
        pconfig == mktme_target,
        format_args!(
            "PCONFIG and its list of targets (leaf 1BH) agree: MKTME is {}.",
            if mktme_target { "one" } else { "none" }
        ),
    );
    if !tme {
        say!("   This CPU has no TME. If memory is encrypted, nothing here can tell.");
    }
    Features { maxphyaddr, tme, pconfig_mktme: pconfig && mktme_target }
}

/// Reads the sub-leaves of 1BH up to the first invalid one, which ends the list.
fn scan_targets(report: &mut Report) -> bool {
    let mut found = false;
    for subleaf in 0..SUBLEAVES_MAX {
        let information = cpuid(leaf::PCONFIG_TARGETS, subleaf);
        match information.eax & leaf::SUBLEAF_TYPE {
            leaf::SUBLEAF_INVALID => {
                report.check(true, format_args!("The list of PCONFIG targets ends, after {subleaf} sub-leaf(s)."));
                return found;
            }
            leaf::SUBLEAF_TARGETS => {
                for target in
                    [information.ebx, information.ecx, information.edx].into_iter().filter(|target| *target != 0)
                {
                    let name = if target == leaf::TARGET_MKTME { "MKTME" } else { "another engine" };
                    report.value("PCONFIG target", format_args!("{target} ({name})"));
                    found |= target == leaf::TARGET_MKTME;
                }
            }
            _ => {}
        }
    }
    report.check(false, format_args!("The list of PCONFIG targets ends within {SUBLEAVES_MAX} sub-leaves."));
    found
}

fn yes_no(is: bool) -> &'static str {
    if is { "yes" } else { "no" }
}
