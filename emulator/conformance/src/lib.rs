//! Conformance of the model to section 10 of the hardware specification: MK-001 to MK-147, each a test of that name.
//!
//! What a guest can observe runs as guest code on the emulated processor of a real machine; what only a probe sees (raw
//! DRAM, cached lines, the event log) is checked through the host's interface as well.
//!
//! Reading order: [`harness`] (what tests are written with), [`statement`] (the tables), then the subsections in the
//! order of the specification: [`cpuid`], [`activate`], [`ranges`], [`addresses`], [`pconfig`], [`cipher`], [`caches`],
//! [`dma_firmware_faults`]; [`report`] prints, [`args`] is the command line.

pub mod activate;
pub mod addresses;
pub mod args;
pub mod caches;
pub mod cipher;
pub mod cpuid;
pub mod dma_firmware_faults;
pub mod harness;
mod linux;
pub mod pconfig;
pub mod ranges;
pub mod report;
pub mod statement;

pub use args::{Args, main};
use statement::Statement;

/// Every statement, in the order of the specification.
pub fn statements() -> impl Iterator<Item = &'static Statement> {
    [
        cpuid::STATEMENTS,
        activate::STATEMENTS,
        ranges::STATEMENTS,
        addresses::STATEMENTS,
        pconfig::STATEMENTS,
        cipher::STATEMENTS,
        caches::STATEMENTS,
        dma_firmware_faults::STATEMENTS,
    ]
    .into_iter()
    .flatten()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_tables_hold_mk_001_to_mk_147_in_order() {
        let numbers: Vec<u16> = super::statements().map(|s| s.number).collect();
        assert_eq!(numbers, (1..=147).collect::<Vec<u16>>());
    }

    #[test]
    fn every_mutant_names_a_statement_that_has_a_test() {
        for mutant in x86::mutants::Mutant::ALL {
            let statement = super::statements().find(|s| s.number == mutant.statement());
            let runs = statement.is_some_and(|s| matches!(s.check, super::statement::Check::Run(_)));
            assert!(runs, "{mutant:?}: MK-{:03}", mutant.statement());
        }
    }
}
