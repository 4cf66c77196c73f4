//! `--machine` and `--machine-show` (docs/machine-file.md).

mod common;

use common::{Scratch, emu};

#[test]
fn the_machine_shown_is_a_machine_file_of_itself() {
    let scratch = Scratch::new();
    let shown = emu(["--machine-show", "-m", "128M", "--tme", "bypass", "--dma-device", "on", "--seed", "7"]);
    assert_eq!(shown.status, 0, "{}", shown.stderr);
    for line in ["memory = \"128M\"", "tme = \"bypass\"", "dma_device = true", "seed = 7", "# keyid_bits ="] {
        assert!(shown.stdout.lines().any(|l| l == line), "{line} is not in\n{}", shown.stdout);
    }
    let file = scratch.file("machine.toml", &shown.stdout);
    assert_eq!(emu(["--machine", &file, "--machine-show"]).stdout, shown.stdout);
}

#[test]
fn options_override_the_machine_file() {
    let scratch = Scratch::new();
    let file = scratch.file("machine.toml", "seed = 1\nips = 5_000_000\nkeyid_bits = 3\ndma_device = true\n");
    let shown = emu(["--machine-show", "--machine", &file, "--seed", "2", "--keyid-bits", "4", "--dma-device", "off"]);
    for line in ["seed = 2", "ips = 5000000", "keyid_bits = 4", "dma_device = false"] {
        assert!(shown.stdout.lines().any(|l| l == line), "{line} is not in\n{}", shown.stdout);
    }
}

#[test]
fn the_machine_file_makes_the_machine() {
    let scratch = Scratch::new();
    let file = scratch.file("machine.toml", "memory = '64M'\ntme_profile = 'client4'\nkeyid_bits = 2\n");
    let image = common::guest(|a| {
        a.mov(eax, 0x10)?;
        a.out(0xF4, al)
    });
    use iced_x86::code_asm::{al, eax};
    let kernel = scratch.file("kernel", image);
    let run = emu(["--machine", &file, "-kernel", &kernel]);
    assert_eq!(run.status, 0, "{}", run.stderr);
    assert!(run.stdout.contains("Memory: 64 MiB") && run.stdout.contains("TME-MK: 2 KeyID bits"), "{}", run.stdout);
}

#[test]
fn mistakes_name_the_file_the_line_and_what_is_accepted() {
    let scratch = Scratch::new();
    for (text, message) in [
        ("# mine\nmemmory = '1G'\n", "line 2: unknown key `memmory`; did you mean `memory`?"),
        ("cache = 'fast'", "line 1: cache = 'fast': accepted: \"exact\", \"lazy\", \"off\""),
        ("seed = 1\nseed = 2", "line 2: duplicate key"),
        ("\u{FEFF}seed", "line 1: "),
    ] {
        let file = scratch.file("machine.toml", text);
        let run = emu(["--machine", &file]);
        assert_eq!((run.status, run.stdout.as_str()), (2, ""));
        assert!(run.stderr.contains(&format!("--machine {file}: {message}")), "{}", run.stderr);
    }
    // Keys that contradict each other, or the processor.
    for (text, message) in [
        ("tme = 'off'\nkeyid_bits = 4", "needs TME enabled"),
        ("tme_profile = 'client4'\nkeyid_bits = 5", "this processor has 4 KeyID bits"),
        ("cache_size = '100K'", "--cache-size: 102400 bytes with 16 ways"),
        ("memory = '9G'", "accepted:"),
    ] {
        let file = scratch.file("machine.toml", text);
        let run = emu(["--machine", &file]);
        assert_eq!(run.status, 2, "{}", run.stderr);
        assert!(run.stderr.contains(message), "{}", run.stderr);
    }
    let run = emu(["--machine", "/nonexistent"]);
    assert!(run.status == 2 && run.stderr.contains("accepted: a machine file"), "{}", run.stderr);
}
