//! `mktme-emu bench boot`: a small guest against another run of this program, and against scripts that pretend to be QEMU.
//! How long anything takes is no test's business.

mod common;

use common::{Run, Scratch, emu, guest};
use iced_x86::code_asm::*;
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;

/// What the workload of guests/linux prints, in short. The digests are 64 digits.
const CONSOLE: &str = "M READY 1.00 cpu  1 2\r\nM SHA 2.00 cpu  1 2\r\n\
    0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef  /tmp/f\r\n";

/// A guest that prints a text on the serial port and ends the machine well.
fn printing(text: &str) -> Vec<u8> {
    guest(|a| {
        a.mov(dx, 0x3F8)?;
        for byte in text.bytes() {
            a.mov(al, i32::from(byte))?;
            a.out(dx, al)?;
        }
        a.mov(dx, 0xF4)?;
        a.mov(eax, 0x10)?;
        a.out(dx, eax)
    })
}

/// A program called QEMU that does this when it is to boot.
fn qemu(scratch: &Scratch, name: &str, boot: &str) -> String {
    let script = format!("#!/bin/sh\n[ \"$1\" != --version ] || {{ echo QEMU emulator version 0; exit 0; }}\n{boot}\n");
    let path = scratch.file(name, script);
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    path
}

fn boot(kernel: &str, options: &[&str]) -> Run {
    emu(["bench", "boot", "-m", "64", "-kernel", kernel].iter().chain(options))
}

fn json(scratch: &Scratch) -> Value {
    serde_json::from_str(&std::fs::read_to_string(scratch.path("j")).unwrap()).unwrap()
}

#[test]
fn two_builds_are_compared_item_by_item_and_the_encryption_is_accounted_for() {
    let scratch = Scratch::new();
    let kernel = scratch.file("kernel", printing(CONSOLE));
    let files = ["j", "s"].map(|name| scratch.path(name).display().to_string());
    let run = boot(
        &kernel,
        &[
            "--pairs",
            "2",
            "-json",
            &files[0],
            "-svg",
            &files[1],
            "-against",
            env!("CARGO_BIN_EXE_mktme-emu"),
            "--options",
            "--seed 3",
            "--against-options",
            "-tme off",
        ],
    );
    assert_eq!((run.status, run.stderr.as_str()), (0, ""), "{}", run.stdout);
    assert_eq!(scratch.names(), ["j", "kernel", "s"]);
    let report = json(&scratch);
    let names = |rows: &Value| -> Vec<String> {
        rows.as_array().unwrap().iter().map(|row| row["item"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&report["items"]), ["boot", "READY", "SHA", "total"]);
    assert_eq!(report["results_agree"], true);
    let pairs = report["pairs"].as_array().unwrap();
    assert_eq!(pairs.len(), 2);
    for run in pairs.iter().flat_map(|pair| pair.as_array().unwrap()) {
        assert_eq!(names(&run["items"]), ["boot", "READY", "SHA"]);
        let sum: f64 = run["items"].as_array().unwrap().iter().map(|item| item["cpu_s"].as_f64().unwrap()).sum();
        let cpu = run["user_s"].as_f64().unwrap() + run["system_s"].as_f64().unwrap();
        assert!(cpu > 0.0 && (sum - cpu).abs() < 0.01, "{sum} of {cpu}");
        assert_eq!(run["results"].as_array().unwrap().len(), 1);
    }
    let [ours, other] = [0, 1].map(|i| &report["sides"][i]);
    assert_eq!(ours["instructions"], other["instructions"]);
    assert!(ours["lines_decrypted"].as_u64().unwrap() > 0 && ours["encryption_percent"].as_f64().unwrap() > 0.0);
    assert_eq!((&other["lines_decrypted"], &other["encryption_percent"]), (&0.into(), &0.0.into()));
    assert!(ours["arguments"].as_array().unwrap().ends_with(&["--seed".into(), "3".into()]));
    for text in ["2 pairs of runs", "other build", "guest instructions", "results on all consoles are the same: 1 line"]
    {
        assert!(run.stdout.contains(text), "{text}: {}", run.stdout);
    }
    let plots = std::fs::read_to_string(&files[1]).unwrap();
    for text in ["<svg", "CPU seconds, medians", "SHA, other build"] {
        assert!(plots.contains(text), "{text}");
    }
}

#[test]
fn qemu_gets_the_guest_and_markers_can_be_chosen() {
    let scratch = Scratch::new();
    let kernel = scratch.file("kernel", printing("begin 1\nend 2\n"));
    let initrd = scratch.file("initrd", "x");
    let path = scratch.path("arguments");
    let qemu = qemu(&scratch, "qemu", &format!("echo \"$*\" >{}; echo begin 7; echo end 8", path.display()));
    let output = scratch.path("j").display().to_string();
    let options = ["-qemu", &qemu, "-initrd", &initrd, "-append", "a b", "-marker", "^(begin|end)", "-json", &output];
    let run = boot(&kernel, &[&options[..], &["-pairs", "1", "-against-options", "-S x"]].concat());
    assert_eq!(run.status, 0, "{}", run.stderr);
    let arguments = std::fs::read_to_string(path).unwrap();
    for text in [
        "-accel tcg,thread=single -cpu max -smp 1 ",
        "-serial stdio",
        "-no-reboot",
        &format!("-m 64M -kernel {kernel} -initrd {initrd} -append a b -S x\n"),
    ] {
        assert!(arguments.contains(text), "{text}: {arguments}");
    }
    let report = json(&scratch);
    let items: Vec<_> = report["items"].as_array().unwrap().iter().map(|row| row["item"].clone()).collect();
    assert_eq!(items, ["boot", "begin", "end", "total"]);
    assert_eq!(report["sides"][1]["instructions"], Value::Null);
    assert!(run.stdout.contains("No console has a result"), "{}", run.stdout);
}

#[test]
fn a_guest_without_markers_is_compared_as_a_whole() {
    let scratch = Scratch::new();
    let kernel = scratch.file("kernel", printing("hello\n"));
    let marked = qemu(&scratch, "marked", "echo M READY 1.0 cpu 1");
    for (qemu, note) in [(qemu(&scratch, "plain", "echo hello"), false), (marked, true)] {
        let run = boot(&kernel, &["-qemu", &qemu, "-pairs", "1"]);
        assert_eq!(run.status, 0, "{}", run.stderr);
        assert!(run.stdout.contains("\n  total ") && !run.stdout.contains("\n  boot "), "{}", run.stdout);
        assert_eq!(run.stdout.contains("no items: only some of the consoles have READY"), note, "{}", run.stdout);
    }
}

#[test]
fn results_that_differ_are_shown_and_end_with_a_status_of_their_own() {
    let scratch = Scratch::new();
    let kernel = scratch.file("kernel", printing(CONSOLE));
    let digest = "f".repeat(64);
    for (name, boot_script) in [("other", format!("echo {digest}")), ("none", "true".to_owned())] {
        let qemu = qemu(&scratch, name, &boot_script);
        let run = boot(&kernel, &["-qemu", &qemu, "-pairs", "1"]);
        assert_eq!(run.status, 1, "{}", run.stderr);
        let shown = if name == "none" { "nothing" } else { &digest };
        assert!(run.stdout.contains("The results differ:\n  mktme-emu, pair 1: 0123"), "{}", run.stdout);
        assert!(run.stdout.contains(&format!("  QEMU, pair 1: {shown}\n")), "{}", run.stdout);
    }
}

#[test]
fn a_run_that_hangs_is_killed_and_one_that_fails_is_quoted() {
    let scratch = Scratch::new();
    let kernel = scratch.file("kernel", printing("hello\n"));
    let pid = scratch.path("pid");
    let hang = qemu(&scratch, "hang", &format!("echo $$ >{}; echo Booting...; exec sleep 1000", pid.display()));
    let run = boot(&kernel, &["-qemu", &hang, "-timeout", "1"]);
    assert_eq!((run.status, run.stdout.as_str()), (14, ""));
    assert_eq!(
        run.stderr,
        "mktme-emu: QEMU: has not ended after 1 s and was killed (--timeout); its last console line: \"Booting...\"; \
         accepted: a guest that ends by itself\n"
    );
    let pid = std::fs::read_to_string(pid).unwrap();
    assert!(!std::path::Path::new("/proc").join(pid.trim()).exists());

    let deaf = qemu(&scratch, "deaf", "exec sleep 1000 >/dev/null 2>&1");
    let run = boot(&kernel, &["-qemu", &deaf, "-timeout", "1"]);
    assert_eq!((run.status, run.stdout.as_str()), (14, ""));
    assert!(run.stderr.contains("has not ended after 1 s and was killed (--timeout)"), "{}", run.stderr);

    let fail = qemu(&scratch, "fail", "echo qemu: no such device >&2; exit 3");
    let run = boot(&kernel, &["-qemu", &fail]);
    assert_eq!((run.status, run.stdout.as_str()), (14, ""));
    assert_eq!(run.stderr, "mktme-emu: QEMU: ended with exit status: 3; it says:\nqemu: no such device\n");

    let own = env!("CARGO_BIN_EXE_mktme-emu");
    let run = boot(&kernel, &["-against", own, "-options", "--cache-ways 99"]);
    assert_eq!((run.status, run.stdout.as_str()), (14, ""));
    assert!(run.stderr.starts_with("mktme-emu: mktme-emu: ended with exit status: 2; it says:\n"), "{}", run.stderr);
    assert!(run.stderr.contains("--cache-ways 99; accepted: 1 to 64"), "{}", run.stderr);
}

#[test]
fn what_cannot_be_compared_is_refused_before_anything_runs() {
    let scratch = Scratch::new();
    let kernel = scratch.file("kernel", printing("hello\n"));
    let ran = scratch.path("ran");
    let good = qemu(&scratch, "good", &format!("echo >{}", ran.display()));
    let dir = scratch.dir().display().to_string();
    let before = scratch.names();
    for (options, message) in [
        (
            "-kernel K -qemu /nonexistent/qemu",
            "--qemu /nonexistent/qemu: no such file or directory; accepted: qemu-system-x86_64 (Debian: apt install \
             qemu-system-x86), or --against another build of mktme-emu",
        ),
        ("-kernel K -qemu /bin/true", "--qemu /bin/true: --version says \"true"),
        ("-kernel K -qemu /bin/false", "--qemu /bin/false: --version "),
        (
            "-kernel K -against /nonexistent/emu",
            "--against /nonexistent/emu: no such file or directory; accepted: another build of mktme-emu",
        ),
        ("-kernel K -against /bin/true", "--against /bin/true: --version says \"true"),
        ("-kernel /nonexistent/k -qemu Q", "-kernel /nonexistent/k: no such file or directory; accepted: a bzImage"),
        ("-kernel K -initrd /nonexistent/i -qemu Q", "-initrd /nonexistent/i: no such file or directory"),
        ("-kernel K -qemu Q -m 1", "1 MiB"),
        (
            "-kernel K -qemu Q -json /nonexistent/x",
            "--json /nonexistent/x: no such file or directory; accepted: a file that can be written",
        ),
        ("-kernel K -qemu Q -json D/a -svg D", "is a directory; accepted: a file that can be written"),
        ("-kernel K -qemu Q -pin 1023", "--pin 1023: not to be had; accepted: "),
    ] {
        let options = options.replace('K', &kernel).replace('Q', &good).replace('D', &dir);
        let run = emu(["bench", "boot"].into_iter().chain(options.split(' ')));
        assert_eq!((run.status, run.stdout.as_str()), (2, ""), "{options}: {}", run.stderr);
        assert!(run.stderr.starts_with("mktme-emu: ") && run.stderr.contains(message), "{options}: {}", run.stderr);
    }
    for (options, message) in [
        ("boot", "--kernel <FILE>"),
        ("boot -kernel k -qemu q -against x", "cannot be used with"),
        ("boot -kernel k -marker (", "invalid value '('"),
        ("boot -kernel k -pairs 0", "0 is not in 1..=99"),
        ("boot -kernel k -timeout 0", "0 is not in 1..=86400"),
        ("--quick boot -kernel k", "cannot be used with"),
    ] {
        let run = emu(["bench"].into_iter().chain(options.split(' ')));
        assert_eq!((run.status, run.stdout.as_str()), (2, ""), "{options}: {}", run.stderr);
        assert!(run.stderr.contains(message), "{options}: {}", run.stderr);
    }
    assert_eq!(scratch.names(), before);
    assert!(!ran.exists());
}

#[test]
fn a_signal_ends_the_run_that_is_on() {
    use rustix::process::{Pid, Signal, kill_process};
    let scratch = Scratch::new();
    let kernel = scratch.file("kernel", printing("hello\n"));
    let pid = scratch.path("pid");
    let hang = qemu(&scratch, "hang", &format!("echo $$ >{}; exec sleep 1000", pid.display()));
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_mktme-emu"))
        .args(["bench", "boot", "-m", "64", "-kernel", &kernel, "-qemu", &hang])
        .spawn()
        .unwrap();
    let started = || std::fs::read_to_string(&pid).is_ok_and(|text| text.ends_with('\n'));
    while !started() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    kill_process(Pid::from_raw(child.id() as i32).unwrap(), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(16));
    let pid = std::fs::read_to_string(&pid).unwrap();
    assert!(!std::path::Path::new("/proc").join(pid.trim()).exists());
}
