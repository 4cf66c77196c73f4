//! A seeded run over all forms, for CI. It has a process of its own, as the harness needs.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use iced_x86::{Code, Decoder, DecoderOptions, Mnemonic};
use silicon::report::Report;
use silicon::rules::host_is_amd;

use Mnemonic as M;

/// The table of `rules.rs` was made on AMD's processors, with which everything agrees. On others these may differ beyond it, see
/// `docs/silicon.md`.
#[rustfmt::skip]
const MAY_DIFFER_ELSEWHERE: &[Mnemonic] = &[
    M::Movsb, M::Movsw, M::Movsd, M::Movsq, M::Stosb, M::Stosw, M::Stosd, M::Stosq,
    M::Lodsb, M::Lodsw, M::Lodsd, M::Lodsq, M::Scasb, M::Scasw, M::Scasd, M::Scasq,
    M::Cmpsb, M::Cmpsw, M::Cmpsd, M::Cmpsq,
    M::Retf, M::Iret, M::Iretd, M::Iretq, M::Pop, M::Call,
    M::Fst, M::Fstp, M::Fist, M::Fistp, M::Fisttp, M::Fbstp,
    M::Dpps, M::Dppd, M::Rcl, M::Rcr,
];

fn may_differ_elsewhere(mnemonic: Mnemonic) -> bool {
    MAY_DIFFER_ELSEWHERE.contains(&mnemonic)
}

/// What differs and may not, as far as a host that is not AMD's can tell.
fn disagreements(report: &Report) -> Vec<String> {
    let cases = report.mismatches.keys().filter(|code: &&Code| !may_differ_elsewhere(code.mnemonic()));
    let programs = report.program_mismatches.iter().filter(|(_, case, _)| {
        let decoder = Decoder::with_ip(case.bits, &case.bytes, case.pre.rip, DecoderOptions::NONE);
        !decoder.into_iter().any(|insn| may_differ_elsewhere(insn.mnemonic()))
    });
    let failures = report.failures.iter().map(|(index, _, why)| format!("case {index}: {why}"));
    cases.map(|code| format!("{code:?}")).chain(programs.map(|p| format!("program {}", p.0))).chain(failures).collect()
}

#[test]
fn the_interpreter_agrees_with_the_host_on_every_form() {
    let options = silicon::Options { cases: 100_000, seed: 1, only: None, index: None, bits: None };
    match silicon::run(&options) {
        Ok(report) if host_is_amd() => {
            println!("{report}");
            assert!(report.agreed(), "{report}");
        }
        Ok(report) => {
            println!("{report}");
            let disagreements = disagreements(&report);
            assert!(disagreements.is_empty(), "{disagreements:?}\n{report}");
        }
        Err(why) => println!("skipped: {why}"),
    }
}
