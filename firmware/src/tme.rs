//! The TME sequence (MK specification, sections 3.1 to 3.6 and 7.1).

use crate::log::{BiosLog, Size, Span};
use crate::platform::BootCpu;
use crate::processor::Processor;
use crate::setup::{SetupError, TmePlan};
use std::fmt;
use x86::msr;
use x86::tme::{activate, capability, exclude};

/// IA32_TME_CAPABILITY[35:32] and IA32_TME_ACTIVATE[35:32].
const KEYID_BITS_MASK: u64 = 0xF;
/// IA32_TME_CAPABILITY[50:36]
const MAX_KEYS_MASK: u64 = 0x7FFF;
/// IA32_TME_ACTIVATE[7:4]
const POLICY_MASK: u64 = 0xF;
/// TME policies are algorithm numbers (MK specification, section 3.2).
const POLICY_AES_XTS_128: u64 = 0;
const POLICY_AES_XTS_256: u64 = 2;
/// One try, and one retry when the random generator failed (section 7.1 step 4).
const ATTEMPTS: usize = 2;

/// IA32_TME_CAPABILITY.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capability(pub u64);

impl Capability {
    /// Algorithm bitmap, bits 15:0.
    pub fn algorithms(self) -> u16 {
        self.0 as u16
    }

    pub fn bypass(self) -> bool {
        self.0 & capability::BYPASS != 0
    }

    /// MK_TME_MAX_KEYID_BITS; 0 = no TME-MK.
    pub fn max_keyid_bits(self) -> u8 {
        (self.0 >> capability::MK_TME_MAX_KEYID_BITS_SHIFT & KEYID_BITS_MASK) as u8
    }

    /// MK_TME_MAX_KEYS, KeyID 0 not counted.
    pub fn max_keys(self) -> u16 {
        (self.0 >> capability::MK_TME_MAX_KEYS_SHIFT & MAX_KEYS_MASK) as u16
    }

    /// The policy for KeyID 0: AES-XTS-128 where there is a choice, and never an integrity algorithm (W6).
    pub fn tme_policy(self) -> Option<u64> {
        if self.0 & capability::AES_XTS_128 != 0 {
            Some(POLICY_AES_XTS_128)
        } else if self.0 & capability::AES_XTS_256 != 0 {
            Some(POLICY_AES_XTS_256)
        } else {
            None
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const FEATURES: [(u64, &str); 5] = [
            (capability::AES_XTS_128, "AES-XTS-128"),
            (capability::AES_XTS_128_INTEGRITY, "AES-XTS-128 with integrity"),
            (capability::AES_XTS_256, "AES-XTS-256"),
            (capability::AES_XTS_256_INTEGRITY, "AES-XTS-256 with integrity"),
            (capability::BYPASS, "bypass"),
        ];
        write!(f, "{:016X}:", self.0)?;
        for (_, name) in FEATURES.iter().filter(|(bit, _)| self.0 & bit != 0) {
            write!(f, " {name},")?;
        }
        match self.max_keyid_bits() {
            0 => write!(f, " no TME-MK"),
            bits => write!(f, " {bits} KeyID bits, {} keys", self.max_keys()),
        }
    }
}

/// What the sequence left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TmeState {
    /// MAXPHYADDR.
    pub maxphyaddr: u8,
    /// `None` on a processor without TME.
    pub capability: Option<Capability>,
    /// IA32_TME_ACTIVATE as it reads now; 0 without TME.
    pub activate: u64,
}

impl TmeState {
    /// Encryption hardware on and locked.
    pub fn enabled(&self) -> bool {
        self.activate & (activate::ENABLE | activate::LOCK) == activate::ENABLE | activate::LOCK
    }

    pub fn locked(&self) -> bool {
        self.activate & activate::LOCK != 0
    }

    /// MK_TME_KEYID_BITS in force.
    pub fn keyid_bits(&self) -> u8 {
        if self.enabled() { (self.activate >> activate::MK_TME_KEYID_BITS_SHIFT & KEYID_BITS_MASK) as u8 } else { 0 }
    }

    /// Address bits that select memory: MAXPHYADDR less the KeyID bits.
    pub fn effective_width(&self) -> u8 {
        self.maxphyaddr - self.keyid_bits()
    }
}

/// RDMSR that is expected to work.
pub(crate) fn read(cpu: &mut dyn BootCpu, msr: u32) -> Result<u64, SetupError> {
    cpu.rdmsr(msr).map_err(|_| SetupError::ReadFault { msr })
}

/// WRMSR that is expected to work.
pub(crate) fn write(cpu: &mut dyn BootCpu, msr: u32, value: u64) -> Result<(), SetupError> {
    cpu.wrmsr(msr, value).map_err(|_| SetupError::WriteFault { msr, value })
}

/// Runs the sequence: exclusion range, IA32_TME_ACTIVATE, check of the lock, core activation.
///
/// A random generator that fails twice is no error: like real firmware, this one then locks TME off and says so.
pub fn activate(
    cpu: &mut dyn BootCpu,
    processor: &Processor,
    plan: &TmePlan,
    log: &mut BiosLog,
) -> Result<TmeState, SetupError> {
    let maxphyaddr = processor.maxphyaddr;
    let Some(cap) = processor.tme else {
        log.line("TME: not present");
        return Ok(TmeState { maxphyaddr, capability: None, activate: 0 });
    };
    log.line(format!("TME: capability {cap}"));

    if let Some(range) = plan.exclude {
        // The mask carries the enable bit: written last, it never enables a stale base.
        write(cpu, msr::IA32_TME_EXCLUDE_BASE, range.base)?;
        write(cpu, msr::IA32_TME_EXCLUDE_MASK, range.mask)?;
        let size = 1u64 << (range.mask & !exclude::ENABLE).trailing_zeros();
        let span = Span(range.base, range.base + (size - 1));
        log.line(format!("TME: exclusion range {span} ({}) stays in clear for KeyID 0", Size(size)));
    }

    match plan.activate {
        Some(value) => activate_and_lock(cpu, value, log)?,
        None => log.line("TME: IA32_TME_ACTIVATE left unlocked"),
    }
    let state = TmeState { maxphyaddr, capability: Some(cap), activate: read(cpu, msr::IA32_TME_ACTIVATE)? };
    log.line(format!("TME: {}", describe(&state)));

    // 9FFH exists with TME-MK only (section 3.6). A locked-off package needs it no less than an enabled one: the write is
    // what makes the core take over the package's width.
    if state.locked() && cap.max_keyid_bits() > 0 {
        activate_core(cpu)?;
    }
    if state.keyid_bits() > 0 {
        let keys = ((1u32 << state.keyid_bits()) - 1).min(u32::from(cap.max_keys()));
        let (bits, width) = (state.keyid_bits(), state.effective_width());
        log.line(format!("TME-MK: {bits} KeyID bits, KeyIDs 1 to {keys}, physical addresses reduced to {width} bits"));
    }
    Ok(state)
}

/// Makes this core follow the package's KeyID width. Every logical processor does this on its way up (section 7.5
/// rule 5).
pub fn activate_core(cpu: &mut dyn BootCpu) -> Result<(), SetupError> {
    write(cpu, msr::MK_TME_CORE_ACTIVATE, 0)
}

fn activate_and_lock(cpu: &mut dyn BootCpu, value: u64, log: &mut BiosLog) -> Result<(), SetupError> {
    for attempt in 1..=ATTEMPTS {
        write(cpu, msr::IA32_TME_ACTIVATE, value)?;
        let read = read(cpu, msr::IA32_TME_ACTIVATE)?;
        log.line(format!("TME: IA32_TME_ACTIVATE written {value:016X}, reads {read:016X}"));
        if read & activate::LOCK != 0 {
            return Ok(());
        }
        // The lock stays clear only when no key could be made (W13, W16): worth another try.
        log.line(format!("TME: attempt {attempt} of {ATTEMPTS} made no key (random generator failed)"));
    }
    log.line("TME: giving up, locking TME off");
    write(cpu, msr::IA32_TME_ACTIVATE, 0)?;
    let read = read(cpu, msr::IA32_TME_ACTIVATE)?;
    if read & activate::LOCK == 0 {
        return Err(SetupError::NotLocked { written: 0, read });
    }
    Ok(())
}

fn describe(state: &TmeState) -> String {
    if !state.locked() {
        return "not enabled, not locked".into();
    }
    if !state.enabled() {
        return "not enabled, locked".into();
    }
    let policy = state.activate >> activate::POLICY_SHIFT & POLICY_MASK;
    let bypass = state.activate & activate::BYPASS != 0;
    let key = match (bypass, policy) {
        (true, _) => "KeyID 0 bypasses encryption",
        (false, POLICY_AES_XTS_128) => "KeyID 0 uses AES-XTS-128",
        (false, _) => "KeyID 0 uses AES-XTS-256",
    };
    format!("enabled, locked, {key}")
}
