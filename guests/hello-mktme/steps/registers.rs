//! Chapter 2: the TME MSRs, in sentences.

use super::enumerate::Features;
use super::{KEYIDS_NEEDED, Machine};
use crate::cpu::rdmsr;
use crate::mktme::{Activate, Algorithm, Capability, CoreActivate, Exclusion, KeyFields, msr};
use crate::paging::AddressLayout;
use crate::report::Report;
use crate::say;

/// Describes the registers. `None` when the machine leaves nothing more to show.
#[inline(never)]
pub fn run(report: &mut Report, features: &Features) -> Option<Machine> {
    if !features.tme {
        report.not_shown(format_args!("the TME registers and everything after them: no TME."));
        return None;
    }
    report.chapter("What firmware made of it (MSRs 981H, 982H, 9FFH)");

    let capability = Capability(rdmsr(msr::IA32_TME_CAPABILITY));
    describe_capability(report, capability);
    let activate = Activate(rdmsr(msr::IA32_TME_ACTIVATE));
    if !describe_activation(report, capability, activate) {
        return None;
    }
    let exclusion = Exclusion { mask: rdmsr(msr::IA32_TME_EXCLUDE_MASK), base: rdmsr(msr::IA32_TME_EXCLUDE_BASE) };
    if exclusion.enabled() {
        say!("   Firmware excluded a range of memory: through KeyID 0 it is not encrypted");
        report.value("   base, mask", format_args!("{:#x}, {:#x}", exclusion.base, exclusion.mask));
    }
    let layout = AddressLayout { maxphyaddr: features.maxphyaddr, keyid_bits: activate.keyid_bits() };
    let algorithm = describe_keyids(report, features, capability, activate, layout)?;
    Some(Machine { layout, bypassed: activate.bypassed(), exclusion, algorithm, direct_key: direct_key(algorithm) })
}

fn describe_capability(report: &mut Report, capability: Capability) {
    report.value("IA32_TME_CAPABILITY (981H)", format_args!("{:#018x}", capability.0));
    for algorithm in Algorithm::ALL.into_iter().filter(|algorithm| algorithm.is_in(capability.algorithms())) {
        say!("     The memory controller can encrypt with {}.", algorithm.name());
    }
    if capability.bypass() {
        say!("     Firmware may let KeyID 0 bypass encryption.");
    }
    if capability.has_mktme() {
        let (bits, keys) = (capability.max_keyid_bits(), capability.max_keys());
        say!("     Up to {bits} address bits can be KeyID bits.");
        say!("     The key table has room for {keys} keys beside that of KeyID 0.");
    } else {
        say!("     There is one key for everything: no MKTME.");
    }
}

/// Returns whether encryption is on.
fn describe_activation(report: &mut Report, capability: Capability, activate: Activate) -> bool {
    report.value("IA32_TME_ACTIVATE (982H)", format_args!("{:#018x}", activate.0));
    match (activate.locked(), activate.enabled()) {
        (true, true) => say!("     Locked, and encryption is on. Nothing short of a reset changes that."),
        (true, false) => say!("     Locked with encryption off: firmware decided against TME."),
        (false, _) => say!("     Not locked: firmware never switched TME on, and no key can be programmed."),
    }
    if !(activate.locked() && activate.enabled()) {
        report.not_shown(format_args!("encryption, which is off on this machine."));
        return false;
    }
    let policy = activate.policy();
    if activate.bypassed() {
        say!("     KeyID 0 bypasses encryption: its lines lie in memory in clear.");
    } else {
        say!("     KeyID 0 is encrypted with {} and a key that only the CPU knows.", policy.name());
    }
    say!(
        "     The key of KeyID 0 is {}.",
        if activate.key_restored() { "the one from before standby" } else { "new since this boot" }
    );
    report.check(
        policy.is_in(capability.algorithms()),
        format_args!("The algorithm of KeyID 0 (policy {}) is one that the CPU offers.", policy.0),
    );
    true
}

/// Describes the KeyID side. `None` when the tour cannot go on, otherwise the algorithm to program keys with.
fn describe_keyids(
    report: &mut Report,
    features: &Features,
    capability: Capability,
    activate: Activate,
    layout: AddressLayout,
) -> Option<Algorithm> {
    if !capability.has_mktme() || activate.keyid_bits() == 0 {
        report.not_shown(format_args!("KeyIDs: this machine has TME with its one key, not MKTME."));
        return None;
    }
    let (k, p) = (activate.keyid_bits(), activate.tdx_bits());
    let usable = ((1_u32 << k.saturating_sub(p)) - 1).min(capability.max_keys());
    let shift = layout.keyid_shift();
    say!(
        "     {k} address bits are the KeyID: bits {}..{shift}. The {shift} below address memory.",
        layout.maxphyaddr - 1
    );
    if p > 0 {
        say!("     The upper {p} of them are reserved for TDX.");
    }
    say!("     KeyIDs 1 to {usable} can be programmed.");
    for algorithm in Algorithm::ALL.into_iter().filter(|algorithm| algorithm.is_in(activate.algorithms())) {
        say!("     They may use {}.", algorithm.name());
    }
    report.check(
        k <= capability.max_keyid_bits(),
        format_args!("{k} KeyID bits are no more than the {} that the CPU offers.", capability.max_keyid_bits()),
    );
    report.check(
        activate.algorithms() & !capability.algorithms() == 0,
        format_args!("All algorithms that KeyIDs may use are ones that the CPU offers."),
    );
    let core = CoreActivate(rdmsr(msr::MK_TME_CORE_ACTIVATE));
    report.value("MK_TME_CORE_ACTIVATE (9FFH)", format_args!("{:#018x}", core.0));
    report.check(core.keyid_bits() == k, format_args!("This core knows of the {k} KeyID bits too."));

    if !features.pconfig_mktme {
        report.not_shown(format_args!("keys: without PCONFIG none can be programmed."));
        return None;
    }
    if usable < KEYIDS_NEEDED {
        report.not_shown(format_args!("the rest of the tour: it needs {KEYIDS_NEEDED} KeyIDs beside KeyID 0."));
        return None;
    }
    let plain_xts = [Algorithm::AES_XTS_128, Algorithm::AES_XTS_256];
    let algorithm = plain_xts.into_iter().find(|algorithm| algorithm.is_in(activate.algorithms()));
    if algorithm.is_none() {
        report.not_shown(format_args!("keys: firmware allows no algorithm that this program knows."));
    }
    algorithm
}

/// A key anyone can look up, which is the point: with it, a dump of the memory cells can be decrypted and compared. Data
/// key 00 01 02 ..; tweak key 10 11 12 .. (AES-XTS-128) or 40 41 42 .. (AES-XTS-256).
fn direct_key(algorithm: Algorithm) -> KeyFields {
    let first_tweak_byte = if algorithm == Algorithm::AES_XTS_128 { 0x10 } else { 0x40 };
    let mut key = KeyFields::ZERO;
    for index in 0..algorithm.key_bytes() {
        key.data[index] = index as u8;
        key.tweak[index] = first_tweak_byte + index as u8;
    }
    key
}
