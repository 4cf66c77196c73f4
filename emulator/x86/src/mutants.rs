//! Deliberate mistakes, to prove that tests notice them.
//!
//! A mutant breaks one rule of the MK specification, at one place, which asks for it with [`mutant!`](crate::mutant!). At
//! most one is switched on, and only in builds with the feature `mutants`; in all others the question is the constant
//! `false` and costs nothing. `cargo run -p conformance --features mutants --bin mutants` switches on one after the other
//! and expects the test of the statement named here to fail.

macro_rules! mutants {
    ($($name:ident = $statement:literal $text:literal;)+) => {
        /// The mistakes, in the order of the statements they are to be caught by.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Mutant {
            $(#[doc = $text] $name),+
        }

        impl Mutant {
            pub const ALL: &[Mutant] = &[$(Mutant::$name),+];

            /// The number of the statement MK-nnn whose test has to fail.
            pub const fn statement(self) -> u16 {
                match self {
                    $(Mutant::$name => $statement),+
                }
            }

            /// What is wrong.
            pub const fn text(self) -> &'static str {
                match self {
                    $(Mutant::$name => $text),+
                }
            }
        }
    };
}

mutants! {
    Leaf1bHasNoEnd = 5 "CPUID.1BH returns target 1 in every sub-leaf";
    MaxphyaddrReduced = 7 "CPUID.80000008H shrinks by k";
    LockedOffHidesTme = 8 "CPUID.7 loses TME_EN when TME is locked off";
    ActivateReservedBits = 12 "reserved bits of 982H are accepted";
    ActivateLockBitReserved = 13 "writing 982H with bit 0 set faults";
    IntegrityPolicy = 14 "a policy with integrity is accepted for KeyID 0";
    PolicyNotEnumerated = 15 "a policy that 981H lacks is accepted";
    BypassNotEnumerated = 16 "982H bit 31 is accepted without 981H bit 31";
    TooManyKeyidBits = 17 "k above MK_TME_MAX_KEYID_BITS is accepted";
    KeyidBitsWithoutEnable = 18 "k > 0 is accepted with enable = 0";
    TdxBitsAboveKeyidBits = 19 "p > k is accepted";
    AlgorithmNotEnumerated = 20 "an algorithm that 981H lacks is accepted";
    KeyidBitsWithoutTmeMk = 21 "982H[63:32] is accepted without TME-MK";
    EntropyFailureLocks = 24 "982H is locked when the random generator fails";
    EntropyFailureCommits = 25 "a failed activation with k > 0 is committed";
    RestoreMakesKey = 26 "key select with an empty slot makes a new key";
    WarmResetLosesSlot = 28 "a warm reset empties the slot";
    KeyAlwaysSaved = 29 "the TME key is saved without bit 3";
    ColdResetKeepsSlot = 30 "a cold reset keeps the slot";
    LockForgotten = 31 "982H can be written while locked";
    InitUnlocks = 32 "INIT clears 982H";
    WarmResetKeepsExclusion = 33 "a warm reset keeps 983H and 984H";
    TmeKeyConstant = 34 "every activation makes the same TME key";
    ExcludeReservedBits = 38 "reserved bits of 984H are accepted";
    ExcludeGaps = 39 "any mask is accepted in 983H";
    ExcludeUnlocked = 40 "983H can be written after lock";
    ExcludeEveryKeyid = 42 "the exclusion range applies to every KeyID";
    ExcludeDisabled = 43 "the exclusion range applies with Enable = 0";
    CoreActivateStale = 44 "WRMSR(9FFH) does not take k over";
    CoreActivateAnyValue = 45 "WRMSR(9FFH) accepts any value";
    PartitioningIgnoresTdx = 49 "87H does not subtract TDX's KeyIDs";
    SavedKeyNotCleared = 51 "WRMSR(9FBH, 1) does nothing";
    ClearSavedKeyReserved = 52 "reserved bits of 9FBH are accepted";
    KeyidReservedInPte = 53 "KeyID bits of a PTE are reserved";
    BitMNotReserved = 54 "bits at and above M of a PTE are ignored";
    WalkerIgnoresTableKeyid = 56 "the walker reads lower tables with KeyID 0";
    Cr3KeyidIgnored = 58 "the walker reads the top table with KeyID 0";
    MtrrKeyidBits = 60 "MTRRs accept KeyID bits";
    TdxBitsInPte = 64 "TDX's KeyID bits are not reserved in a PTE";
    KeyidBeyondMaxPlaintext = 65 "KeyIDs above MK_TME_MAX_KEYS store plaintext";
    AccessedBitByKeyid0 = 68 "A and D bits are written through KeyID 0";
    PconfigAtCpl3 = 69 "PCONFIG at CPL 3 is #GP";
    PconfigTseLeaf = 74 "PCONFIG leaf 1 is taken for leaf 0";
    PconfigMisaligned = 77 "PCONFIG takes a misaligned structure";
    PconfigReservedControl = 81 "KEYID_CTRL[31:24] is ignored";
    PconfigKeyidRange = 82 "KEYIDs above the maximum succeed and do nothing";
    PconfigTdxKeyid = 83 "TDX's KeyIDs can be programmed";
    PconfigAlgorithmUnchecked = 84 "CLEAR_KEY and NO_ENCRYPT do not check ENC_ALG";
    PconfigKeepsFlags = 86 "PCONFIG leaves the flags alone";
    KeysExchanged = 87 "data key and tweak key are exchanged";
    RandomIsPseudo = 89 "RANDOM gives the same key each time";
    RandomIgnoresFields = 90 "RANDOM ignores the entropy fields";
    EntropyErrorClears = 91 "ENTROPY_ERROR clears the entry";
    BusyProgramsAnyway = 92 "DEVICE_BUSY is returned, but the key changes";
    ClearKeyKeepsKey = 93 "CLEAR_KEY keeps the key";
    NoEncryptIsTme = 95 "NO_ENCRYPT is TME mode";
    PackagesShareKeys = 104 "every package uses the executing package's keys";
    WarmResetKeepsKeys = 106 "a warm reset and activation keep the KeyID keys";
    KeyidInTweak = 110 "the KeyID is part of the tweak";
    TweakIgnoresPage = 112 "the tweak depends on the offset in the page only";
    FillSnoops = 115 "a fill writes other KeyIDs' copies back first";
    FlushEveryKeyid = 116 "CLFLUSH writes back the line under every KeyID";
    FlushDrops = 117 "CLFLUSH does not write back";
    WbinvdDescending = 118 "WBINVD writes back in descending order";
    InvdWritesBack = 119 "INVD writes back";
    PconfigFlushes = 120 "PCONFIG writes back and drops all lines";
    NontemporalSnoops = 124 "a store past the caches writes other KeyIDs' copies back first";
    PartialWriteClears = 125 "a partial write clears the rest of its line";
    DirectStoreReads = 126 "a whole-line store reads the line";
    CacheOffKeepsAliases = 128 "without a cache copies under other KeyIDs stay";
    DmaIgnoresKeyid = 130 "a device's writes use KeyID 0";
    KeyidReachesRegisters = 133 "memory-mapped registers see the KeyID";
}

#[cfg(feature = "mutants")]
static ACTIVE: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(usize::MAX);

/// Switches one on, or all off.
#[cfg(feature = "mutants")]
pub fn activate(mutant: Option<Mutant>) {
    ACTIVE.store(mutant.map_or(usize::MAX, |m| m as usize), std::sync::atomic::Ordering::Relaxed);
}

/// True while this one is on.
#[cfg(feature = "mutants")]
#[inline]
pub fn is(mutant: Mutant) -> bool {
    ACTIVE.load(std::sync::atomic::Ordering::Relaxed) == mutant as usize
}

/// Never, in this build.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
pub const fn is(_: Mutant) -> bool {
    false
}

/// True while the mutant of that name is on: never, except in builds with the feature `mutants`.
#[macro_export]
macro_rules! mutant {
    ($name:ident) => {
        $crate::mutants::is($crate::mutants::Mutant::$name)
    };
}
