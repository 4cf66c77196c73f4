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

/// Every key of the file that is not the default, as an option; `_` and `-` are the only difference in the names.
#[test]
fn every_key_of_the_machine_file_is_an_option() {
    let options = [
        ("memory", "128M", "\"128M\""),
        ("tme_profile", "server7", "\"server7\""),
        ("tme", "bypass", "\"bypass\""),
        ("keyid_bits", "5", "5"),
        ("tme_exclude", "0x1000000,16M", "\"0x1000000,0x1000000\""),
        ("locked_write", "ignore", "\"ignore\""),
        ("pconfig_legacy_codes", "on", "true"),
        ("tdx_partition", "on", "true"),
        ("integrity", "on", "true"),
        ("pconfig_latency", "1K", "1000"),
        ("busy_rate", "0.25", "0.25"),
        ("entropy_fail_rate", "1e-3", "0.001"),
        ("core_override", "0x0005000400000003", "0x0005000400000003"),
        ("packages", "2", "2"),
        ("cache", "lazy", "\"lazy\""),
        ("cache_size", "96K", "\"96K\""),
        ("cache_ways", "12", "12"),
        ("evict_rate", "0.000001", "0.000001"),
        ("prefetch", "1", "1"),
        ("wb_order", "seeded", "\"seeded\""),
        ("dma_device", "on", "true"),
        ("seed", "7", "7"),
        ("ips", "1M", "1000000"),
        ("fast_path", "off", "false"),
        ("links", "off", "false"),
        ("bulk_strings", "off", "false"),
    ];
    let dashed = |name: &str| format!("--{}", name.replace('_', "-"));
    let arguments = options.iter().flat_map(|(name, value, _)| [dashed(name), (*value).to_owned()]);
    let shown = emu(std::iter::once("--machine-show".to_owned()).chain(arguments));
    assert_eq!(shown.status, 0, "{}", shown.stderr);
    let lines = shown.stdout.lines().filter(|line| !line.is_empty() && !line.starts_with("# "));
    let expected: Vec<String> = options.iter().map(|(name, _, value)| format!("{name} = {value}")).collect();
    let mut lines: Vec<&str> = lines.collect();
    lines.sort_unstable();
    let mut sorted: Vec<&str> = expected.iter().map(String::as_str).collect();
    sorted.sort_unstable();
    assert_eq!(lines, sorted);
    let help = emu(["--help"]).stdout;
    for (name, _, _) in options {
        assert!(help.contains(&dashed(name)), "{name}");
        assert!(include_str!("../docs/machine-file.md").contains(&format!("| `{name}` |")), "{name}");
    }
    for (option, value) in [("busy-rate", "2"), ("packages", "9"), ("locked-write", "no"), ("core-override", "x")] {
        let run = emu([format!("--{option}"), value.to_owned()]);
        assert!(run.status == 2 && run.stderr.contains("accepted: "), "{option}: {}", run.stderr);
    }
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
fn the_bios_activates_every_package() {
    let scratch = Scratch::new();
    let dump = scratch.path("dram").display().to_string();
    // The ACPI tables lie at the end of RAM, in the last package.
    for (setting, clear) in [("on", false), ("off", true)] {
        let run = emu(["--packages", "4", "-m", "64M", "--tme", setting, "--dump-dram", &dump, "--until", "icount:0"]);
        assert_eq!(run.status, 10, "{}", run.stderr);
        let dram = std::fs::read(&dump).unwrap();
        let table = dram[48 << 20..].windows(4).any(|bytes| bytes == b"FACP");
        assert_eq!(table, clear, "--tme {setting}");
    }
    let run = emu(["--packages", "8", "--tme-exclude", "32M,32M", "-d", "mktme", "--no-summary"]);
    assert_eq!(run.status, 0, "{}", run.stderr);
    let activations = run.stderr.lines().filter(|line| line.ends_with("locked, new TME key")).count();
    assert_eq!((activations, run.stderr.contains("packages disagree")), (8, false), "{}", run.stderr);
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
        ("haw_reduced = true", "line 1: haw_reduced: it shortens the host address width in the DMAR table"),
        ("integrity = 1", "line 1: integrity = 1: accepted: true, false"),
        ("tme_profile = 'tme-only'\nintegrity = true", "--integrity: a processor of profile tme-only has no keys"),
        ("tme = 'off'\ntme_exclude = '0x1000000,16M'", "needs TME enabled"),
        ("tme_profile = 'none'\ntme = 'on'", "this processor has no TME"),
        ("tme_profile = 'tme-only'\nkeyid_bits = 1", "this processor has 0 KeyID bits"),
        ("cache_ways = 3", "--cache-size: 1048576 bytes with 3 ways"),
        ("core_override = '3'", "line 1: core_override = '3': accepted: a value of 982H"),
    ] {
        let file = scratch.file("machine.toml", text);
        let run = emu(["--machine", &file]);
        assert_eq!(run.status, 2, "{}", run.stderr);
        assert!(run.stderr.contains(message), "{}", run.stderr);
    }
    let run = emu(["--machine", "/nonexistent"]);
    assert!(run.status == 2 && run.stderr.contains("accepted: a machine file"), "{}", run.stderr);
}
