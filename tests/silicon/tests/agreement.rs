//! A seeded run over all forms, for CI. It has a process of its own, as the harness needs.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

#[test]
fn the_interpreter_agrees_with_the_host_on_every_form() {
    let options = silicon::Options { cases: 100_000, seed: 1, only: None, index: None, bits: None };
    match silicon::run(&options) {
        Ok(report) => {
            println!("{report}");
            assert!(report.agreed(), "{report}");
        }
        Err(why) => println!("skipped: {why}"),
    }
}
