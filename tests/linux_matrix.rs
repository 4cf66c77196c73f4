//! What Debian's kernels say about memory encryption, for every processor profile and every setting of the BIOS.
//!
//! The cloud kernel goes through the whole table; the kernel for ordinary PCs, whose XZ decompression takes about 5 G
//! instructions, through one entry of it, or the whole with MKTME_LONG=1.

mod common;

use common::linux::{Kit, assert_healthy, boot, boot_with, kit, long, plain_kit, tme_lines};
use common::{Run, emu};

/// `detect_tme_early()` of Linux 6.1 (MK-134, MK-136, MK-137).
mod log {
    pub const NOT_ENABLED: &[&str] = &["x86/tme: not enabled by BIOS"];
    /// k = 6, XTS-128 as policy, XTS-128 and XTS-256 for keys.
    pub const SIX_BITS: &[&str] =
        &["x86/tme: enabled by BIOS", "x86/mktme: enabled by BIOS", "x86/mktme: 63 KeyIDs available"];
    pub const SEVEN_BITS: &[&str] =
        &["x86/tme: enabled by BIOS", "x86/mktme: enabled by BIOS", "x86/mktme: 127 KeyIDs available"];
    /// k = 4, XTS-256 and nothing else.
    pub const CLIENT: &[&str] = &[
        "x86/tme: enabled by BIOS",
        "x86/tme: Unknown policy is active: 0x2",
        "x86/mktme: No known encryption algorithm is supported: 0x4",
        "x86/mktme: enabled by BIOS",
        "x86/mktme: 15 KeyIDs available",
    ];
    pub const TME_ONLY: &[&str] = &[
        "x86/tme: enabled by BIOS",
        "x86/mktme: No known encryption algorithm is supported: 0x0",
        "x86/mktme: disabled by BIOS",
    ];
}

/// MAXPHYADDR as CPUID has it, KeyID bits when TME is on, and the log then.
struct Profile {
    name: &'static str,
    maxphyaddr: u32,
    keyid_bits: u32,
    enabled: &'static [&'static str],
}

const DEFAULT: Profile = Profile { name: "default", maxphyaddr: 46, keyid_bits: 6, enabled: log::SIX_BITS };
const CLIENT4: Profile = Profile { name: "client4", maxphyaddr: 46, keyid_bits: 4, enabled: log::CLIENT };
const SERVER6: Profile = Profile { name: "server6", maxphyaddr: 52, keyid_bits: 6, enabled: log::SIX_BITS };
const SERVER7: Profile = Profile { name: "server7", maxphyaddr: 52, keyid_bits: 7, enabled: log::SEVEN_BITS };
const TME_ONLY: Profile = Profile { name: "tme-only", maxphyaddr: 46, keyid_bits: 0, enabled: log::TME_ONLY };

/// Bypass encrypts nothing that has KeyID 0, and no kernel looks at its bit (IA32_TME_ACTIVATE[31]).
const SETTINGS: [(&str, bool); 4] = [("on", true), ("off", false), ("unlocked", false), ("bypass", true)];

/// The kernel's probes of model-specific registers may fault, reads of MTRRs and writes of anything may not.
fn assert_no_msr_write_faulted(run: &Run) {
    for line in run.stderr.lines().filter(|line| line.contains("#GP(0)")) {
        assert!(line.contains("RDMSR") && line.contains("unknown MSR"), "{line}");
    }
}

fn check(kit: &Kit, options: &[&str], lines: &[&str], bits: u32) {
    let run = boot(kit, "guest.run=report", options);
    assert_healthy(&run);
    assert_no_msr_write_faulted(&run);
    assert_eq!(tme_lines(&run), lines, "{options:?}");
    let width = format!("address sizes\t: {bits} bits physical, 48 bits virtual\n");
    assert!(run.stdout.contains(&width), "{options:?}: {}", run.stdout);
    assert!(run.stdout.contains("GUEST-DONE"), "{options:?}");
}

fn check_profile(kit: &Kit, profile: &Profile) {
    for (setting, enabled) in SETTINGS {
        let (lines, bits) = match enabled {
            true => (profile.enabled, profile.maxphyaddr - profile.keyid_bits),
            false => (log::NOT_ENABLED, profile.maxphyaddr),
        };
        check(kit, &["--tme-profile", profile.name, "--tme", setting], lines, bits);
    }
}

#[test]
fn cloud_kernel_on_default() {
    let Some(kit) = kit() else { return };
    check_profile(kit, &DEFAULT);
}

#[test]
fn cloud_kernel_on_client4() {
    let Some(kit) = kit() else { return };
    check_profile(kit, &CLIENT4);
}

#[test]
fn cloud_kernel_on_server6() {
    let Some(kit) = kit() else { return };
    check_profile(kit, &SERVER6);
}

#[test]
fn cloud_kernel_on_server7() {
    let Some(kit) = kit() else { return };
    check_profile(kit, &SERVER7);
}

#[test]
fn cloud_kernel_on_tme_only() {
    let Some(kit) = kit() else { return };
    check_profile(kit, &TME_ONLY);
}

#[test]
fn cloud_kernel_without_tme_says_nothing() {
    let Some(kit) = kit() else { return };
    check(kit, &["--tme-profile", "none"], &[], 46);
}

#[test]
fn fewer_keyid_bits_give_back_address_bits() {
    let Some(kit) = kit() else { return };
    let lines = ["x86/tme: enabled by BIOS", "x86/mktme: enabled by BIOS", "x86/mktme: 7 KeyIDs available"];
    check(kit, &["--keyid-bits", "3"], &lines, 43);
    // No keys, so no algorithms for them either.
    check(kit, &["--keyid-bits", "0"], log::TME_ONLY, 46);
}

#[test]
fn a_processor_without_tme_refuses_every_setting_of_it() {
    for (setting, _) in SETTINGS {
        let run = emu(["run", "--tme-profile", "none", "--tme", setting]);
        assert_eq!(run.status, 2, "{setting}: {}", run.stderr);
        let message = "mktme-emu: --tme: this processor has no TME (CPUID.7.ECX[13] = 0); accepted: a --tme-profile \
                       other than none, or no --tme\n";
        assert_eq!(run.stderr, message, "{setting}");
        assert_eq!(run.stdout, "", "{setting}");
    }
}

#[test]
fn plain_kernel() {
    let Some(kit) = plain_kit() else { return };
    if !long() {
        return check(kit, &[], DEFAULT.enabled, 40);
    }
    for profile in [DEFAULT, CLIENT4, SERVER6, SERVER7, TME_ONLY] {
        check_profile(kit, &profile);
    }
    for memory in ["83M", "8G"] {
        let run = boot_with(kit, &kit.path("initramfs.cpio"), memory, "guest.run=report", &[]);
        assert_healthy(&run);
        assert!(run.stdout.contains("GUEST-DONE"), "{memory}");
    }
    check(kit, &["--tme-profile", "none"], &[], 46);
}
