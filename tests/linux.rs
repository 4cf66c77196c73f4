//! Debian's Linux. The kit in `guests/linux` fetches the packages; without them these tests say so and pass, unless
//! MKTME_REQUIRE_LINUX=1 asks them not to.

mod common;

use common::linux::{assert_healthy, boot, boot_with, kit, long, tme_lines};
use common::{Scratch, emu};
use std::process::Command;

#[test]
fn the_kernel_finds_what_the_bios_enabled() {
    let Some(kit) = kit() else { return };
    for (options, lines, bits) in [
        (
            &[][..],
            &["x86/tme: enabled by BIOS", "x86/mktme: enabled by BIOS", "x86/mktme: 63 KeyIDs available"][..],
            40,
        ),
        (
            &["--tme-profile", "client4"],
            &[
                "x86/tme: enabled by BIOS",
                "x86/tme: Unknown policy is active: 0x2",
                "x86/mktme: No known encryption algorithm is supported: 0x4",
                "x86/mktme: enabled by BIOS",
                "x86/mktme: 15 KeyIDs available",
            ],
            42,
        ),
        (
            &["--tme-profile", "tme-only"],
            &[
                "x86/tme: enabled by BIOS",
                "x86/mktme: No known encryption algorithm is supported: 0x0",
                "x86/mktme: disabled by BIOS",
            ],
            46,
        ),
        (
            &["--integrity", "on"],
            &["x86/tme: enabled by BIOS", "x86/mktme: enabled by BIOS", "x86/mktme: 63 KeyIDs available"],
            40,
        ),
        (&["--tme", "off"], &["x86/tme: not enabled by BIOS"], 46),
        (&["--tme", "unlocked"], &["x86/tme: not enabled by BIOS"], 46),
        (&["--tme-profile", "none"], &[], 46),
    ] {
        let run = boot(kit, "guest.run=report", options);
        assert_healthy(&run);
        assert_eq!(tme_lines(&run), lines, "{options:?}");
        assert!(run.stdout.contains(&format!(": {bits} bits physical")), "{options:?}: {}", run.stdout);
        assert!(run.stdout.contains("GUEST-DONE"), "{options:?}");
    }
}

#[test]
fn the_workload_computes_what_this_host_computes() {
    let Some(kit) = kit() else { return };
    let run = boot(kit, "guest.run=workload", &[]);
    assert_healthy(&run);
    assert!(run.stdout.contains("GUEST-DONE"));
    let script = "cd \"$0\" && for i in $(seq 128); do cat block; done >\"$1\" && ./busybox sha256sum <\"$1\" && \
                  ./busybox gzip -c \"$1\" | ./busybox sha256sum";
    let scratch = Scratch::new();
    let file = scratch.path("f").display().to_string();
    let host = common::run(Command::new("sh").args(["-c", script, &kit.dir.display().to_string(), &file]));
    assert_eq!(host.status, 0, "{}", host.stderr);
    let sums: Vec<&str> = host.stdout.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(sums.len(), 2);
    for sum in sums {
        assert!(run.stdout.contains(sum), "{sum}: {}", run.stdout);
    }
}

#[test]
fn commands_typed_into_the_shell_work_and_a_reboot_boots_again() {
    let Some(kit) = kit() else { return };
    let scratch = Scratch::new();
    let script = scratch.file(
        "script",
        "expect / # \nsendline echo $((6 * 7))\nexpect ^42$\nsendline ls /bin/busybox\nexpect ^/bin/busybox$\n\
         expect / # \nsendline reboot -f\nexpect GUEST-READY\nexpect / # \nsendline exit\n",
    );
    let (kernel, initrd) = (kit.path("vmlinuz"), kit.path("initramfs.cpio"));
    let append = "console=ttyS0 cryptomgr.notests";
    let run = emu([
        "run",
        "-kernel",
        &kernel,
        "-initrd",
        &initrd,
        "-append",
        append,
        "--input",
        &script,
        "--until",
        "icount:20G",
    ]);
    assert_healthy(&run);
    assert_eq!(run.stdout.matches("mktme-emu BIOS").count(), 2);
    assert_eq!(run.stdout.matches("GUEST-READY").count(), 2);
    assert!(run.stderr.contains("resets         1"), "{}", run.stderr);
}

#[test]
fn the_dram_of_a_booted_machine_has_text_in_clear_only_without_tme() {
    let Some(kit) = kit() else { return };
    let scratch = Scratch::new();
    let dump = scratch.path("dram").display().to_string();
    for (setting, clear) in [("on", false), ("off", true)] {
        let run = boot(kit, "guest.run=report", &["--tme", setting, "--dump-dram", &dump]);
        assert_healthy(&run);
        for text in ["Linux version", "BusyBox is copyrighted"] {
            let found = common::run(Command::new("grep").args(["-q", "-a", "-F", text, &dump])).status == 0;
            assert_eq!(found, clear, "--tme {setting}: {text}");
        }
    }
}

#[test]
fn two_boots_are_identical_and_so_is_one_without_the_fast_path() {
    let Some(kit) = kit() else { return };
    let state = |options: &[&str]| {
        let ready = ["--state-hash", "--until", "console:GUEST-READY"];
        let all: Vec<&str> = ready.into_iter().chain(options.iter().copied()).collect();
        let run = boot(kit, "", &all);
        assert_eq!(run.status, 12, "{}", run.stderr);
        run.state()
    };
    let first = state(&[]);
    assert_eq!(first, state(&[]));
    assert_eq!(first, state(&["--no-fast-path"]));
}

#[test]
fn no_shortcut_of_the_host_changes_a_state() {
    let Some(kit) = kit() else { return };
    // With programs: processes share pages, and interrupts meet STI in every place.
    let append = if long() { "guest.run=workload" } else { "guest.run=report" };
    let state = |options: &[&str]| {
        let run = boot(kit, append, &[&["--state-hash"], options].concat());
        assert_healthy(&run);
        run.state()
    };
    let with = state(&[]);
    for without in ["--fast-path", "--links", "--bulk-strings"] {
        assert_eq!(with, state(&[without, "off"]), "{without}");
    }
}

/// A difference can heal, since flushes leave no trace of what was dropped: the state is compared on the way as well.
#[test]
fn no_shortcut_of_the_host_changes_a_state_on_the_way() {
    let Some(kit) = kit() else { return };
    for until in ["icount:100K", "icount:1M", "icount:5M", "icount:20M", "icount:60M"] {
        let state = |options: &[&str]| {
            let run = boot(kit, "", &[&["--state-hash", "--until", until], options].concat());
            assert_eq!(run.status, 10, "{}", run.stderr);
            run.state()
        };
        let with = state(&[]);
        for without in ["--fast-path", "--links", "--bulk-strings"] {
            assert_eq!(with, state(&[without, "off"]), "{without} off, {until}");
        }
    }
}

/// Instructions of the short boot: decompression, early memory set-up and the first drivers.
const SHORT_BOOT: &str = "icount:150M";

#[test]
fn the_fast_path_changes_no_state_in_any_cache_model() {
    let Some(kit) = kit() else { return };
    // The long form is the whole workload, to the power-off.
    let (append, until, status) =
        if long() { ("guest.run=workload", "console:GUEST-DONE", 12) } else { ("", SHORT_BOOT, 10) };
    let mut models = Vec::new();
    for cache in ["exact", "lazy", "off"] {
        let [with, without] = ["on", "off"].map(|fast| {
            let options = ["--state-hash", "--until", until, "--cache", cache, "--fast-path", fast];
            let run = boot(kit, append, &options);
            assert_eq!(run.status, status, "{}", run.stderr);
            run.state()
        });
        assert_eq!(with, without, "--cache {cache}");
        models.push(with);
    }
    models.dedup();
    assert_eq!(models.len(), 3, "what is in the cache is part of the state");
}

/// Where Linux boots, and from where on it is too little: docs/boot.md, "Memory sizes".
#[test]
fn the_kernel_boots_with_71_mib_and_8_gib_and_is_refused_where_it_cannot_unpack() {
    let Some(kit) = kit() else { return };
    let initrd = kit.path("initramfs.cpio");
    for memory in ["71M", "8G"] {
        let run = boot_with(kit, &initrd, memory, "guest.run=report", &[]);
        assert_healthy(&run);
        assert_eq!(tme_lines(&run).len(), 3, "{memory}");
        assert!(run.stdout.contains("GUEST-DONE"), "{memory}");
    }
    let run = boot_with(kit, &initrd, "64M", "", &[]);
    assert_eq!((run.status, run.stdout.as_str()), (2, ""));
    let message = "does not fit into 64 MiB of RAM; accepted: at least 68 MiB\n";
    assert!(
        run.stderr.starts_with("mktme-emu: -m: the kernel occupies ") && run.stderr.ends_with(message),
        "{}",
        run.stderr
    );
}
