//! What is varied besides the seed: which lines are evicted, and in which order they are written back.

use std::str::FromStr;

/// A cache policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Policy {
    /// The options of the run.
    Given,
    /// The default: sets and ways.
    Exact,
    /// A cache that is too small for anything.
    Small,
    /// Additional evictions, now and then.
    EvictRare,
    /// Additional evictions all the time.
    EvictOften,
    /// WBINVD in an order drawn from the seed.
    Seeded,
    /// WBINVD in the order that loses most.
    Adversarial,
    /// Nothing is ever evicted.
    Lazy,
    /// Every store is in DRAM at once.
    Off,
}

/// `--help`
pub const HELP: &str = "\
Cache policies, comma-separated [default: all; only `given` if the run has options about the cache]:
given (the run's own options), exact (the default cache), small (64 KiB), evict-rare, evict-often (additional evictions \
for one of 1000, of 10 fills), seeded, adversarial (orders of WBINVD's write-backs), lazy (no evictions), off (no cache)";

impl Policy {
    /// All but [`Policy::Given`].
    pub const VARIED: [Policy; 8] = [
        Policy::Exact,
        Policy::Small,
        Policy::EvictRare,
        Policy::EvictOften,
        Policy::Seeded,
        Policy::Adversarial,
        Policy::Lazy,
        Policy::Off,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Policy::Given => "given",
            Policy::Exact => "exact",
            Policy::Small => "small",
            Policy::EvictRare => "evict-rare",
            Policy::EvictOften => "evict-often",
            Policy::Seeded => "seeded",
            Policy::Adversarial => "adversarial",
            Policy::Lazy => "lazy",
            Policy::Off => "off",
        }
    }

    /// Options of a run.
    pub const fn options(self) -> &'static [&'static str] {
        match self {
            Policy::Given => &[],
            Policy::Exact => &["--cache", "exact"],
            Policy::Small => &["--cache", "exact", "--cache-size", "64K", "--cache-ways", "4"],
            Policy::EvictRare => &["--cache", "exact", "--evict-rate", "0.001"],
            Policy::EvictOften => &["--cache", "exact", "--evict-rate", "0.1"],
            Policy::Seeded => &["--cache", "exact", "--wb-order", "seeded"],
            Policy::Adversarial => &["--cache", "exact", "--wb-order", "adversarial"],
            Policy::Lazy => &["--cache", "lazy"],
            Policy::Off => &["--cache", "off"],
        }
    }
}

impl FromStr for Policy {
    type Err = String;

    fn from_str(text: &str) -> Result<Policy, String> {
        let all = || [Policy::Given].into_iter().chain(Policy::VARIED);
        all().find(|policy| policy.name() == text).ok_or_else(|| {
            let names: Vec<&str> = all().map(Policy::name).collect();
            format!("accepted: {}", names.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Cli;
    use clap::Parser;

    #[test]
    fn every_policy_is_a_run_that_is_possible() {
        for policy in Policy::VARIED {
            assert_eq!(policy.name().parse(), Ok(policy));
            let argv = ["mktme-emu", "run"].into_iter().chain(policy.options().iter().copied());
            assert!(Cli::try_parse_from(argv).is_ok(), "{policy:?}");
        }
        assert!("none".parse::<Policy>().unwrap_err().contains("accepted: given, exact"));
    }
}
