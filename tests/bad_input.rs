//! Bad usage and bad input: one clear message, exit status 2, nothing run and nothing left behind.

mod common;

use common::{Scratch, elf, emu, guest};
use std::process::{Command, Stdio};

/// Runs and returns the message of a refusal.
fn refusal<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> String {
    let run = emu(args);
    assert_eq!(run.status, 2, "{}{}", run.stdout, run.stderr);
    assert_eq!(run.stdout, "", "nothing was run");
    run.stderr
}

/// One line of our own.
fn message(args: &str) -> String {
    let text = refusal(args.split(' '));
    let line = text.strip_prefix("mktme-emu: ").and_then(|t| t.strip_suffix('\n'));
    let line = line.unwrap_or_else(|| panic!("{args}: {text}"));
    assert!(!line.contains('\n'), "{text}");
    line.to_owned()
}

const KERNELS: &str =
    "a bzImage (vmlinuz), a Multiboot 1 or 2 kernel, a PVH kernel, or a static ELF64 executable for x86-64";

#[test]
fn files_that_are_no_kernels_are_refused_by_name() {
    let scratch = Scratch::new();
    let dir = scratch.dir().display().to_string();
    let empty = scratch.file("empty", "");
    let text = scratch.file("text", "#!/bin/sh\n");
    let whole = guest(|a| a.hlt());
    let truncated = scratch.file("truncated", &whole[..whole.len() - 1]);
    let mut foreign = whole.clone();
    foreign[18] = 183;
    let foreign = scratch.file("foreign", foreign);
    let high = scratch.file("high", {
        let mut image = elf(&[0xF4]);
        // The segment's physical address.
        image[64 + 24..64 + 32].copy_from_slice(&(62u64 << 20).to_le_bytes());
        image[64 + 40..64 + 48].copy_from_slice(&(4u64 << 20).to_le_bytes());
        image
    });
    for (options, expected) in [
        (
            format!("-kernel {dir}/missing"),
            format!("-kernel {dir}/missing: no such file or directory; accepted: {KERNELS}"),
        ),
        (format!("-kernel {dir}"), format!("-kernel {dir}: is a directory; accepted: {KERNELS}")),
        (format!("-kernel {empty}"), format!("-kernel: the file is empty; accepted: {KERNELS}")),
        (
            format!("-kernel {text}"),
            format!(
                "-kernel: not a kernel (no setup header of a bzImage, no Multiboot header, no ELF header); accepted: {KERNELS}"
            ),
        ),
        (
            format!("-kernel {truncated}"),
            "-kernel: truncated ELF: 120 bytes, but its headers describe 121; accepted: the whole file".into(),
        ),
        (format!("-kernel {foreign}"), "-kernel: ELF for machine 183; accepted: x86-64 (machine 62)".into()),
        (
            "-m 64 -kernel /dev/zero".into(),
            format!("-kernel /dev/zero: larger than all of RAM, -m (64 MiB); accepted: {KERNELS}"),
        ),
        (
            format!("-m 64M -kernel {high}"),
            "-m: the kernel occupies 003E00000-0041FFFFF and does not fit into 64 MiB of RAM; accepted: at least 67 MiB"
                .into(),
        ),
    ] {
        assert_eq!(message(&options), expected);
    }
}

#[test]
fn an_initrd_or_command_line_that_does_not_fit_is_refused() {
    let scratch = Scratch::new();
    let kernel = scratch.file("kernel", guest(|a| a.hlt()));
    let initrd = scratch.file("initrd", vec![1; 63 << 20]);
    let empty = scratch.file("empty", "");
    assert_eq!(
        message(&format!("-m 64M -kernel {kernel} -initrd {initrd}")),
        "-initrd: 66060288 bytes do not fit beside the kernel; accepted: at most 64942080 bytes, or -m of at least 66 MiB"
    );
    assert_eq!(
        message(&format!("-kernel {kernel} -initrd {empty}")),
        "-initrd: the file is empty; accepted: a cpio archive, or no -initrd"
    );
    assert_eq!(message("-initrd x"), "-initrd: the embedded guest takes none; accepted: -initrd together with -kernel");
    assert_eq!(
        message(&format!("-kernel {kernel} -append {}", "x".repeat(3000))),
        "-append: command line of 3000 bytes; this kernel accepts at most 2047"
    );
}

#[test]
fn impossible_settings_are_refused_with_what_would_be_possible() {
    for (options, expected) in [
        ("-m 63", "-m: 63 MiB of RAM; accepted: 64 MiB to 8 GiB"),
        ("-m 9G", "-m: 9 GiB of RAM; accepted: 64 MiB to 8 GiB"),
        ("--keyid-bits 7", "--keyid-bits 7: this processor has 6 KeyID bits (MK_TME_MAX_KEYID_BITS); accepted: 0 to 6"),
        (
            "--tme-profile none --tme on",
            "--tme: this processor has no TME (CPUID.7.ECX[13] = 0); accepted: a --tme-profile other than none, or no --tme",
        ),
        (
            "--tme off --keyid-bits 3",
            "--keyid-bits: needs TME enabled, but --tme is off or unlocked; accepted: --tme on or bypass, or no --keyid-bits",
        ),
        ("--tme-exclude 0x1000,3000", "--tme-exclude: size 0xbb8; accepted: a power of two of at least 4 KiB"),
        (
            "--tme-exclude 0x1000,64K",
            "--tme-exclude: base 0x1000 is not a multiple of the size 64 KiB; accepted: 0x0 or 0x10000",
        ),
        ("--cache-ways 65", "--cache-ways 65; accepted: 1 to 64"),
        (
            "--cache-size 100K",
            "--cache-size: 102400 bytes with 16 ways; accepted: 64 * 16 * a power of two, at most 1 GiB",
        ),
        ("--until pc:1 --until pc:2", "--until pc: given 2 times; accepted: once"),
        (
            "-D x",
            "-D: there is nothing to write without -d; accepted: -D together with -d int, mmu, mktme, exec, guest_errors",
        ),
    ] {
        assert_eq!(message(options), expected);
    }
}

#[test]
fn values_that_mean_nothing_are_refused_with_what_would() {
    for (options, option, accepted) in [
        ("--tme-profile xeon", "--tme-profile", "accepted: default, client4, server6, server7, tme-only, none"),
        ("--tme maybe", "--tme", "accepted: on, off, unlocked, bypass"),
        ("--tme-exclude 5", "--tme-exclude", "accepted: BASE,SIZE"),
        ("-m lots", "-m", "accepted: a number of MiB"),
        ("--ips 0", "--ips", "accepted: 1K to 1000G"),
        ("--until never", "--until", "accepted: icount:N, pc:ADDRESS (hexadecimal), console:REGEX"),
        ("--until console:(", "--until", "not a regular expression (unclosed group)"),
        ("-serial tcp:1", "--serial", "accepted: stdio, file:PATH, none"),
        ("-d all", "-d", "int"),
        ("--cache on", "--cache", "accepted: exact, lazy, off"),
        ("--wb-order random", "--wb-order", "accepted: ascending, descending, seeded, adversarial"),
        ("--keyid-bits many", "--keyid-bits", "invalid digit"),
        ("-kernal x", "-k", "unexpected argument"),
        ("boot", "boot", "unrecognized subcommand"),
    ] {
        let text = refusal(options.split(' '));
        assert!(text.contains(option) && text.contains(accepted), "{options}: {text}");
    }
}

#[test]
fn files_that_cannot_be_written_are_found_before_the_run() {
    for (options, expected) in [
        ("--dump-dram /nonexistent/x", "--dump-dram /nonexistent/x: no such file or directory"),
        ("--dump-dram /", "--dump-dram /: is a directory"),
        ("-d int -D /nonexistent/x", "-D /nonexistent/x: no such file or directory"),
        ("-serial file:/nonexistent/x", "-serial /nonexistent/x: no such file or directory"),
    ] {
        assert_eq!(message(options), format!("{expected}; accepted: a file that can be written"));
    }
}

#[test]
fn a_refused_run_leaves_no_dump_behind() {
    let scratch = Scratch::new();
    let dump = scratch.path("dump").display().to_string();
    message(&format!("--dump-dram {dump} --keyid-bits 15"));
    assert_eq!(scratch.names(), [""; 0]);
}

#[test]
fn scripts_are_refused_by_file_and_line() {
    let scratch = Scratch::new();
    let script = scratch.file("script", "expect ok\n\nsay hello\n");
    assert_eq!(
        message(&format!("--input {script}")),
        format!(
            "--input {script}:3: unknown step `say`; accepted: expect REGEX, send TEXT, sendline TEXT, wait icount N, wait TIME"
        )
    );
    assert!(message("--input /nonexistent").starts_with("--input /nonexistent: no such file or directory; accepted:"));
    let binary = scratch.file("binary", [0xFF, 0xFE]);
    assert!(message(&format!("--input {binary}")).contains("not UTF-8"));
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    for (args, status) in [(&["-m", "64M", "--quiet-bios", "-serial", "none"][..], 0), (&["-m", "1"][..], 2)] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_mktme-emu"))
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        drop(child.stderr.take());
        assert_eq!(child.wait().expect("an end").code(), Some(status), "{args:?}");
    }
}
