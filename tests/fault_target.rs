//! The program for fault injection in Debian's Linux, `guest.run=mktme-fault-target`: its result, and what faults do to it.

mod common;

use common::linux::{assert_healthy, boot_with, kit, module_initrd};
use common::{Run, run};
use mem::LINE_BYTES;
use std::process::Command;

const MEMORY: &str = "256M";
/// Markers of the program.
const START: &str = "marker:0x51";
const END: &str = "marker:0x5e";
const DETECTED: &str = "marker:0xd1";
const BUFFER_BYTES: u64 = 16384;

/// Boots into the program. `None`: no kit.
fn target(what: &str, options: &[&str]) -> Option<Run> {
    let (kit, initrd) = (kit()?, module_initrd()?);
    let run = boot_with(kit, initrd, MEMORY, &format!("quiet nokaslr guest.run=mktme-fault-target {what}"), options);
    assert_healthy(&run);
    assert!(run.stdout.contains("GUEST-DONE"), "{what} {options:?}: {}", run.stdout);
    Some(run)
}

fn said<'a>(run: &'a Run, prefix: &str) -> Option<&'a str> {
    run.stdout.lines().find_map(|line| line.strip_prefix(prefix))
}

/// Physical address of the buffer.
fn buffer(run: &Run) -> u64 {
    let said = said(run, "buffer: 0x").expect("the program says where");
    let (at, rest) = said.split_once(' ').expect("more words");
    assert!(rest.ends_with(&format!(" bytes {BUFFER_BYTES}")), "{said}");
    u64::from_str_radix(at, 16).expect("an address")
}

/// What the same program computes on this host, in memory that nothing encrypts.
fn reference(rounds: u32, seed: u64) -> Option<String> {
    let program = kit()?.path("mktme_user");
    let arguments = ["fault-target", "reference", "0", &rounds.to_string(), "check", &seed.to_string()];
    let run = run(Command::new(program).args(arguments));
    assert_eq!(run.status, 0, "{}", run.stdout);
    Some(said(&run, "result: ").expect("a result").to_owned())
}

/// At which instruction a fault fired or was triggered.
fn instruction(run: &Run, trigger: &str) -> u64 {
    let line = run.stderr.lines().find(|line| line.contains(trigger)).expect("the summary has it");
    let number = line.split(" at instruction ").nth(1).expect("it was triggered").split([' ', ',']).next();
    number.and_then(|number| number.parse().ok()).expect("a number")
}

#[test]
fn the_result_is_what_the_host_computes_and_the_work_is_ten_million_instructions() {
    for (what, seed) in [("guest.seed=3 guest.check=1", 3), ("guest.key=cpu guest.keyid=5", 0)] {
        // Nothing is delayed at these lines; the summary says when the markers came.
        let probe = |at: &str| format!("write-back-drop line=0 at={at} for=1");
        let Some(run) = target(what, &["--inject", &probe(START), "--inject", &probe(END)]) else { return };
        assert_eq!(said(&run, "result: "), reference(10, seed).as_deref(), "{what}");
        let window = instruction(&run, END) - instruction(&run, START);
        assert!((9_500_000..11_000_000).contains(&window), "{what}: {window} instructions");
        assert!(run.stdout.contains(if what.contains("keyid=5") { " keyid 5 " } else { " keyid 1 " }));
    }
}

#[test]
fn one_bit_of_ciphertext_changes_the_result_and_the_check_finds_it() {
    let Some(undisturbed) = target("", &[]) else { return };
    let right = said(&undisturbed, "result: ").expect("a result");
    assert_eq!(Some(right), reference(10, 0).as_deref());
    // The first line has the key, the last is read last.
    for line in [0, BUFFER_BYTES / LINE_BYTES as u64 - 1] {
        let at = buffer(&undisturbed) + line * LINE_BYTES as u64;
        let run = target("", &["--inject", &format!("dram-flip line={at:#x} bit=77 at={START}")]).expect("a kit");
        assert!(run.stderr.contains("bit=77 at=marker:0x51: fired"), "{}", run.stderr);
        assert_eq!(buffer(&run), buffer(&undisturbed), "the boot is the same");
        assert_ne!(said(&run, "result: ").expect("a result"), right, "line {line}");
    }
    let undisturbed = target("guest.check=1", &[]).expect("a kit");
    assert_eq!(said(&undisturbed, "result: "), Some(right));
    let line = buffer(&undisturbed) + 100 * LINE_BYTES as u64;
    let noticed = format!("write-back-drop line=0 at={DETECTED} for=1");
    for fault in [
        format!("dram-flip line={line:#x} bit=77 at={START}"),
        // Old contents of the line are a line of the wrong round.
        format!("write-back-drop line={line:#x} keyid=1 at={START}"),
    ] {
        let run = target("guest.check=1", &["--inject", &fault, "--inject", &noticed]).expect("a kit");
        assert!(said(&run, "fault detected: line 100 of the buffer, round ").is_some(), "{fault}: {}", run.stdout);
        assert_eq!(said(&run, "result: "), None, "{fault}");
        instruction(&run, DETECTED);
    }
}
