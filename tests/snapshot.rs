//! `--savevm` and `--loadvm`: a run that was saved goes on in another process as if nothing had been.

mod common;

use common::linux::{Kit, kit, long};
use common::{Run, Scratch, emu, run};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const QUIET: [&str; 3] = ["--quiet-bios", "--no-summary", "--state-hash"];
/// Other ways to the same state.
const MODES: [&[&str]; 3] = [&[], &["--fast-path", "off"], &["--links", "off", "--bulk-strings", "off"]];

fn with<'a>(parts: &[&[&'a str]]) -> Vec<&'a str> {
    parts.concat()
}

/// What a run printed before its last two lines.
fn output(run: &Run) -> &str {
    run.stdout.split("state-hash: ").next().unwrap_or_default()
}

#[test]
fn the_embedded_guest_goes_on_from_any_point_in_another_process() {
    let scratch = Scratch::new();
    let whole = emu(QUIET);
    for machine in [&[][..], &["--cache-size", "8K", "--cache-ways", "2"], &["--cache", "lazy", "--evict-rate", "0.01"]]
    {
        let whole = if machine.is_empty() { &whole } else { &emu(with(&[&QUIET, machine])) };
        for (n, point) in ["icount:1", "icount:123456", "time:2ms", "icount:400K"].into_iter().enumerate() {
            let file = scratch.path("snap").display().to_string();
            let save = format!("{file},at={point},stop");
            let first = emu(with(&[&QUIET, machine, MODES[n % 3], &["--savevm", &save]]));
            assert_eq!(first.status, 10, "{point}: {}{}", first.stdout, first.stderr);
            let rest = emu(with(&[&QUIET, MODES[(n + 1) % 3], &["--loadvm", &file]]));
            assert_eq!(rest.state(), whole.state(), "{machine:?} {point}");
            // The first part was cut in the middle of a line, perhaps, which then got an end.
            let both = format!("{}{}", output(&first), output(&rest));
            assert!(both.replace('\n', "") == output(whole).replace('\n', ""), "{machine:?} {point}: {both}");
        }
    }
}

#[test]
fn saving_changes_nothing_and_the_summary_tells_of_it() {
    let scratch = Scratch::new();
    let [early, end] = ["early", "end"].map(|name| scratch.path(name).display().to_string());
    let save = format!("{early},at=icount:100K");
    let run = emu(["--quiet-bios", "--state-hash", "--savevm", &save, "--savevm", &end]);
    assert_eq!((run.status, run.state()), (0, emu(QUIET).state()));
    assert!(run.stderr.contains(&format!("saved          {early} at instruction 100,000, ")), "{}", run.stderr);
    assert!(run.stderr.contains(&format!("saved          {end} at instruction ")), "{}", run.stderr);
    let shown = emu(["--loadvm", &end, "--until", "icount:0", "--state-hash", "--no-summary"]);
    assert_eq!(shown.state(), run.state());
    assert_eq!(scratch.names(), ["early", "end"]);
}

fn boot(kit: &Kit, options: &[&str]) -> Run {
    let (kernel, initrd) = (kit.kernel(), kit.path("initramfs.cpio"));
    let append = "console=ttyS0 cryptomgr.notests guest.run=report";
    let base = ["run", "-no-reboot", "-m", "512M", "-kernel", &kernel, "-initrd", &initrd, "-append", append];
    emu(with(&[&base, &QUIET, options]))
}

#[test]
fn linux_goes_on_from_the_middle_of_its_boot() {
    let Some(kit) = kit() else { return };
    let scratch = Scratch::new();
    let [middle, late] = ["middle", "late"].map(|name| scratch.path(name).display().to_string());
    let saves = [format!("{middle},at=icount:150M"), format!("{late},at=console:Run /init")];
    let whole = boot(kit, &["--savevm", &saves[0], "--savevm", &saves[1], "--until", "icount:2G"]);
    assert_eq!(whole.status, 0, "{}{}", whole.stdout, whole.stderr);
    assert_eq!(whole.state(), boot(kit, &["--until", "icount:2G"]).state(), "saving changes nothing");
    for (file, mode) in [(&middle, MODES[0]), (&late, MODES[1]), (&late, MODES[2])] {
        let rest = emu(with(&[&QUIET, mode, &["--loadvm", file, "--until", "icount:2G"]]));
        assert_eq!((rest.status, rest.state()), (0, whole.state()), "{file} {mode:?}");
        assert!(whole.stdout.ends_with(&rest.stdout), "{file} {mode:?}");
    }
}

/// Time and again under the same name: whenever the process dies, the file is one of those that were written.
#[test]
fn a_kill_while_saving_leaves_a_file_that_loads_or_none() {
    let scratch = Scratch::new();
    let whole = emu(QUIET);
    let file = scratch.path("snap").display().to_string();
    let saves: Vec<String> = (1..=100).map(|n| format!("{file},at=icount:{n}K")).collect();
    let mut found = 0;
    let started = Instant::now();
    let mut kill_after = |n: u32| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mktme-emu"));
        command.args(QUIET).args(saves.iter().flat_map(|save| ["--savevm", save]));
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // Anywhere in the first half second: no two delays are alike, and most meet a file that is being written.
        std::thread::sleep(Duration::from_micros(u64::from(n.wrapping_mul(2_654_435_761) % 500_000)));
        child.kill().unwrap();
        child.wait().unwrap();
        if !scratch.path("snap").exists() {
            return;
        }
        found += 1;
        let rest = emu(with(&[&QUIET, &["--loadvm", &file]]));
        assert_eq!((rest.status, rest.state()), (0, whole.state()), "kill {n}: {}", rest.stderr);
        // Later kills do not find what earlier ones left.
        std::fs::remove_file(&file).unwrap();
    };
    (1..=if long() { 200 } else { 20 }).for_each(&mut kill_after);
    assert!(found > 0, "no kill came after the first file in {:?}", started.elapsed());
}

#[test]
fn what_cannot_be_loaded_or_saved_is_refused_before_anything_runs() {
    let scratch = Scratch::new();
    let file = scratch.path("snap").display().to_string();
    assert_eq!(emu(["--no-summary", "-serial", "none", "--savevm", &format!("{file},at=icount:1K,stop")]).status, 10);
    let (missing, text) = (scratch.path("missing").display().to_string(), scratch.file("text", "a text\n"));
    let damaged = scratch.file("damaged", {
        let mut bytes = std::fs::read(&file).unwrap();
        let at = bytes.len() / 2;
        bytes[at] ^= 1;
        bytes
    });
    let (dir, no_dir) = (scratch.dir().display().to_string(), scratch.path("none/snap").display().to_string());
    for (options, message) in [
        (&["--loadvm", &missing][..], "no such file or directory; accepted: a file that --savevm wrote"),
        (&["--loadvm", &text], "not a snapshot; accepted: a file that --savevm wrote"),
        (&["--loadvm", &damaged], "wrong checksum; accepted: a file that --savevm wrote"),
        (&["--loadvm", &dir], "is a directory"),
        (&["--loadvm", &file, "--seed", "7"], "seed is 0 there and 7 here; accepted: the machine of the snapshot"),
        (&["--loadvm", &file, "--cache", "lazy"], "cache is \"exact\" there and \"lazy\" here"),
        (&["--savevm", &dir], "is a directory; accepted: a file that can be written"),
        (&["--savevm", &no_dir], "no such file or directory; accepted: a file that can be written"),
        (&["--savevm", "/dev/null"], "not a regular file; accepted: a file that can be replaced"),
        (&["--savevm", "x,at=noon"], "accepted: FILE, FILE,at=icount:N, FILE,at=time:TIME, FILE,at=console:REGEX"),
        (&["explore", "--", "run", "--savevm", "x"], "--savevm in the command after --"),
        (&["explore", "--", "run", "--loadvm", "x"], "--loadvm in the command after --"),
    ] {
        let run = emu(options);
        assert_eq!(run.status, 2, "{options:?}: {}{}", run.stdout, run.stderr);
        assert!(run.stderr.contains(message), "{options:?}: {}", run.stderr);
    }
    assert_eq!(scratch.names(), ["damaged", "snap", "text"]);
}

#[test]
fn a_disk_that_is_full_ends_the_run_and_keeps_what_there_was() {
    let scratch = Scratch::new();
    let file = scratch.file("snap", "what there was");
    // Files of at most 64 KiB; writing more is an error rather than a signal.
    let script = "ulimit -f 64; trap '' XFSZ; exec \"$0\" --no-summary -serial none --savevm \"$1\",at=icount:300K";
    let run = run(Command::new("bash").args(["-c", script, env!("CARGO_BIN_EXE_mktme-emu"), &file]));
    assert_eq!(run.status, 14, "{}{}", run.stdout, run.stderr);
    assert!(run.stderr.contains(&format!("--savevm {file}: file too large")), "{}", run.stderr);
    assert_eq!(std::fs::read(&file).unwrap(), b"what there was");
    assert_eq!(scratch.names(), ["snap"]);
}
