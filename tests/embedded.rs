//! The embedded guest, and what holds for every run.

mod common;

use common::{Scratch, emu};

const WHOLE_TOUR: &str = "32 checks passed, 0 failed, 0 could not be shown here";

#[test]
fn without_arguments_the_embedded_guest_shows_everything_and_exits_with_0() {
    let run = emu::<&str>([]);
    assert_eq!(run.status, 0, "{}{}", run.stdout, run.stderr);
    assert!(run.stdout.starts_with("mktme-emu BIOS "), "{}", run.stdout);
    assert!(run.stdout.contains(WHOLE_TOUR), "{}", run.stdout);
    assert!(run.stderr.starts_with("mktme-emu: debug exit, value 10H (exit status 0)\n"), "{}", run.stderr);
    for figure in ["instructions", "MIPS", "host CPU time", "guest time", "AES-XTS", "peak memory", "KeyID 3"] {
        assert!(run.stderr.contains(figure), "{figure}: {}", run.stderr);
    }
}

#[test]
fn the_summary_and_the_bios_can_be_switched_off() {
    let run = emu(["-quiet-bios", "--no-summary"]);
    assert_eq!(run.stderr, "");
    assert!(!run.stdout.contains("BIOS"), "{}", run.stdout);
    assert!(run.stdout.contains("Hello from inside the machine."));
}

#[test]
fn every_profile_and_setting_passes_what_it_can_show() {
    for (options, verdict) in [
        ("--tme-profile client4", WHOLE_TOUR),
        ("--tme-profile server6", WHOLE_TOUR),
        ("--tme-profile server7", WHOLE_TOUR),
        ("--keyid-bits 3", WHOLE_TOUR),
        ("--tme bypass", "checks passed, 0 failed, 0 could not be shown here"),
        ("--tme-exclude 0x200000,2M", "checks passed, 0 failed"),
        ("--tme-profile tme-only", "checks passed, 0 failed"),
        ("--tme-profile none", "checks passed, 0 failed"),
        ("--tme off", "checks passed, 0 failed"),
        ("--tme unlocked", "checks passed, 0 failed"),
        ("--keyid-bits 0", "checks passed, 0 failed"),
        ("--cache-size 64K --cache-ways 2", WHOLE_TOUR),
        ("--cache lazy --wb-order descending", WHOLE_TOUR),
        ("--cache off", "checks passed, 0 failed"),
        ("-m 8G", WHOLE_TOUR),
    ] {
        let run = emu(options.split(' '));
        assert_eq!(run.status, 0, "{options}: {}{}", run.stdout, run.stderr);
        assert!(run.stdout.contains(verdict), "{options}: {}", run.stdout);
    }
}

#[test]
fn equal_runs_end_in_equal_states_and_the_fast_path_changes_none() {
    let first = emu(["--state-hash"]);
    assert_eq!(first.state(), emu(["run", "--state-hash"]).state());
    assert_eq!(first.state(), emu(["--state-hash", "--no-fast-path"]).state());
    assert_eq!(first.stdout, emu(["--state-hash", "--fast-path", "off"]).stdout);
    assert_ne!(first.state(), emu(["--state-hash", "--seed", "1"]).state());
}

#[test]
fn logs_and_stops_do_not_change_the_state() {
    let scratch = Scratch::new();
    let log = scratch.path("log").display().to_string();
    let until = ["--state-hash", "--until", "icount:100K"];
    let plain = emu(until);
    assert_eq!(plain.status, 10);
    assert!(plain.state().ends_with("instructions: 100000\n"), "{}", plain.stdout);
    let logged = emu(until.into_iter().chain(["-d", "int,mmu,mktme,exec,guest_errors", "-D", &log]));
    assert_eq!(plain.state(), logged.state());
    let text = std::fs::read_to_string(&log).expect("the log was written");
    assert_eq!(text.lines().filter(|l| l.starts_with("exec: ")).count(), 100_000);
    assert!(text.contains("exec: 0 0000000000200000 0 cli\n"), "the first instruction");
    assert!(text.contains("mktme: ") && text.contains("IA32_TME_ACTIVATE written"));
}

#[test]
fn the_dram_holds_the_guest_in_clear_only_if_nothing_encrypts_it() {
    const TEXT: &[u8] = b"The treasure lie";
    let scratch = Scratch::new();
    let dump = scratch.path("dram");
    for (options, clear) in [("--tme on", false), ("--tme off", true), ("--tme bypass", true)] {
        let run = emu(options.split(' ').chain(["-m", "64M", "--dump-dram", &dump.display().to_string()]));
        assert_eq!(run.status, 0, "{}", run.stderr);
        let cells = std::fs::read(&dump).expect("the dump was written");
        assert_eq!(cells.len(), 64 << 20);
        // The text is in the guest's image, so the loader put it into memory.
        assert_eq!(cells.windows(TEXT.len()).any(|w| w == TEXT), clear, "{options}");
        assert_eq!(scratch.names(), ["dram"]);
    }
}

#[test]
fn help_teaches_and_goes_to_standard_output() {
    for option in ["--help", "-help"] {
        let run = emu([option]);
        assert_eq!((run.status, run.stderr.as_str()), (0, ""));
        for taught in ["Examples:", "Exit statuses:", "Ctrl-A X", "[default: 512M]", "--until", "(v << 1) | 1"] {
            assert!(run.stdout.contains(taught), "{taught}: {}", run.stdout);
        }
    }
    assert!(emu(["--version"]).stdout.starts_with("mktme-emu "));
}
