//! How many injections, and what can be said after them. docs/campaign-statistics.md has the formulas and their sources.
//!
//! Pure functions; shares are from 0 to 1.

mod interval;
mod sample;
mod stopping;
mod strata;

pub use interval::{Confidence, Interval, clopper_pearson, rule_of_three, wilson, wilson_share};
pub use sample::{correction, effective_size, margin, sample_size, sample_size_for};
pub use stopping::enough;
pub use strata::{Estimate, Part, stratified};

#[cfg(test)]
mod tests;
