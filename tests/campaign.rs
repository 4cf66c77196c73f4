//! `mktme-emu campaign` as a program: what a user sees, and what survives when it is interrupted.

mod common;

use common::{Run, Scratch, emu, run};
use machine::snapshot::FORMAT;
use std::fs;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

const PLAN: &str = r#"
name = "test"
seed = 11
[machine]
memory = "64M"
[guest]
[golden]
start = "icount:100000"
end = "exit"
[[stratum]]
name = "text"
faults = "dram-flip line={0x21e000..0x21e080/64} bit={0..512} at=icount:{window}"
injections = 120
[[stratum]]
name = "keys"
faults = "key-flip keyid={1|2} field={k1|k2} bit={0..128} at=icount:{window}"
injections = 80
"#;

fn campaign(scratch: &Scratch, words: &[&str]) -> Run {
    run(Command::new(env!("CARGO_BIN_EXE_mktme-emu")).arg("campaign").args(words).current_dir(scratch.dir()))
}

fn planned(plan: &str) -> Scratch {
    let scratch = Scratch::new();
    scratch.file("plan.toml", plan);
    scratch
}

#[test]
fn a_plan_makes_results_that_can_be_reported_and_replayed() {
    let scratch = planned(PLAN);
    let checked = campaign(&scratch, &["check", "plan.toml"]);
    assert_eq!(checked.status, 0, "{}", checked.stderr);
    assert!(checked.stdout.contains("stratum        text: 120 of "), "{}", checked.stdout);
    assert_eq!(scratch.names(), ["plan.toml"]);

    let ran = campaign(&scratch, &["run", "plan.toml"]);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("200 injections in "), "{}", ran.stderr);
    let names = Scratch::names_in(&scratch.dir().join("plan"));
    assert_eq!(names, ["plan.toml", "results.parquet", "start.json", "start.snap"]);
    let again = campaign(&scratch, &["run", "plan.toml"]);
    assert!(again.status == 0 && again.stdout.contains("complete already"), "{}", again.stdout);

    for id in ["0", "57", "119", "120", "199"] {
        let replayed = campaign(&scratch, &["replay", "plan", "--id", id]);
        assert_eq!(replayed.status, 0, "{}{}", replayed.stdout, replayed.stderr);
        assert!(replayed.stdout.contains("have the same outcome and state hash"), "{}", replayed.stdout);
    }
    let beyond = campaign(&scratch, &["replay", "plan", "--id", "200"]);
    assert!(beyond.status == 2 && beyond.stderr.contains("accepted: 0 to 199"), "{}", beyond.stderr);

    // The run command's own means, on the same injection.
    let looked = campaign(&scratch, &["replay", "plan", "--id", "150", "--", "-d", "mktme"]);
    assert!(looked.stderr.contains("keytable flip") || looked.stderr.contains("key-flip"), "{}", looked.stderr);
    let wrong = campaign(&scratch, &["replay", "plan", "--id", "150", "--", "--nonsense"]);
    assert!(wrong.status == 2 && wrong.stderr.contains("--nonsense"), "{}", wrong.stderr);

    let reported = campaign(&scratch, &["report", "plan", "--html", "page.html", "--svg", "figures"]);
    assert_eq!(reported.status, 0, "{}", reported.stderr);
    assert_eq!(reported.stdout.trim_end(), ran.stdout.trim_end().rsplit_once('\n').expect("lines").0.trim_end());
    assert!(fs::read_to_string(scratch.path("page.html")).expect("a page").contains("replay"));
    assert!(fs::read_dir(scratch.path("figures")).expect("figures").count() > 0);
}

#[test]
fn a_campaign_that_is_killed_loses_and_doubles_nothing() {
    // Enough work for ten kills, none of it avoided.
    let plan = PLAN.replace("injections = 120", "injections = 3000").replace("injections = 80", "injections = 2000");
    let scratch = planned(&plan);
    let whole = campaign(&scratch, &["run", "plan.toml", "-o", "whole"]);
    assert_eq!(whole.status, 0, "{}", whole.stderr);
    let start = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mktme-emu"));
        command.args(["campaign", "run", "plan.toml", "-o", "killed", "--no-shortcuts"]).current_dir(scratch.dir());
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a process")
    };
    let mut random = 0x2545_f491_u32;
    let mut kills = 0;
    while kills < 10 && !scratch.path("killed/results.parquet").exists() {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let mut process = start();
        sleep(Duration::from_millis(u64::from(random >> 16) % 400));
        process.kill().expect("killed");
        process.wait().expect("gone");
        kills += 1;
    }
    assert!(kills >= 3, "the campaign was over after {kills} kills");
    assert!(start().wait().expect("an end").success());
    let bytes = |name: &str| fs::read(scratch.path(name)).expect("results");
    assert!(bytes("whole/results.parquet") != Vec::new());
    // How an outcome came to be known is in the results; without shortcuts that is another one.
    let outcomes = |name: &str| campaign(&scratch, &["report", name]).stdout;
    assert_eq!(outcomes("whole"), outcomes("killed"));
    let unbroken = campaign(&scratch, &["run", "plan.toml", "-o", "unbroken", "--no-shortcuts"]);
    assert_eq!(unbroken.status, 0, "{}", unbroken.stderr);
    assert!(bytes("unbroken/results.parquet") == bytes("killed/results.parquet"));
}

#[test]
fn a_signal_ends_it_in_good_order() {
    let scratch = planned(&PLAN.replace("injections = 120", "injections = 200000"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_mktme-emu"));
    command.args(["campaign", "run", "plan.toml", "--no-shortcuts"]).current_dir(scratch.dir());
    let process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a process");
    while !scratch.path("plan/results.journal").exists() {
        sleep(Duration::from_millis(10));
    }
    sleep(Duration::from_millis(300));
    let pid = rustix::process::Pid::from_raw(process.id() as i32).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("sent");
    let output = process.wait_with_output().expect("an end");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(16), "{said}");
    assert!(said.contains("the same command goes on from there"), "{said}");
    // What there is can be looked at.
    let reported = campaign(&scratch, &["report", "plan"]);
    assert!(reported.status == 0 && reported.stdout.contains("keys"), "{}{}", reported.stdout, reported.stderr);
}

#[test]
fn shards_are_joined_and_none_is_forgotten_or_counted_twice() {
    let scratch = planned(PLAN);
    let whole = campaign(&scratch, &["run", "plan.toml", "-o", "whole"]);
    assert_eq!(whole.status, 0, "{}", whole.stderr);
    for part in 1..=8 {
        let out = format!("d{part}");
        let ran = campaign(&scratch, &["run", "plan.toml", "-o", &out, "--shard", &format!("{part}/8")]);
        assert_eq!(ran.status, 0, "{}", ran.stderr);
    }
    let parts: Vec<String> = (1..=8).map(|part| format!("d{part}/part-{part}-of-8.parquet")).collect();
    let merge = |parts: &[&str]| campaign(&scratch, &[&["merge", "-o", "merged.parquet"], parts].concat());
    let all: Vec<&str> = parts.iter().map(String::as_str).collect();
    let merged = merge(&all);
    assert_eq!(merged.status, 0, "{}", merged.stderr);
    let bytes = |name: &str| fs::read(scratch.path(name)).expect("results");
    assert!(bytes("merged.parquet") == bytes("whole/results.parquet"));

    fs::remove_file(scratch.path("merged.parquet")).expect("removed");
    for (parts, message) in [
        (&all[1..], "1"),
        (&[all[0], all[0]][..], "d1/part-1-of-8.parquet"),
        (&["d1/start.snap"][..], "d1/start.snap"),
        (&["whole", "d1"][..], "part"),
        (&["nothing.parquet"][..], "nothing.parquet"),
    ] {
        let refused = merge(parts);
        assert_eq!(refused.status, 2, "{parts:?}: {}", refused.stderr);
        assert!(
            refused.stderr.contains(message) && refused.stderr.contains("accepted"),
            "{parts:?}: {}",
            refused.stderr
        );
        assert!(!scratch.path("merged.parquet").exists());
    }
}

#[test]
fn a_full_disk_costs_no_result() {
    let scratch = planned(PLAN);
    let unbroken = campaign(&scratch, &["run", "plan.toml", "-o", "unbroken"]);
    assert_eq!(unbroken.status, 0, "{}", unbroken.stderr);
    fs::create_dir(scratch.path("full")).expect("a directory");
    for name in ["start.snap", "start.json", "plan.toml"] {
        fs::copy(scratch.path(&format!("unbroken/{name}")), scratch.path(&format!("full/{name}"))).expect("a copy");
    }
    // No file may become larger than 20 KiB, and the signal that says so is ignored.
    let program = env!("CARGO_BIN_EXE_mktme-emu");
    let script = format!("trap '' XFSZ; ulimit -f 40; exec {program} campaign run plan.toml -o full");
    let full = run(Command::new("sh").args(["-c", &script]).current_dir(scratch.dir()));
    assert_eq!(full.status, 14, "{}", full.stderr);
    assert!(full.stderr.contains("full/results.journal: "), "{}", full.stderr);
    assert!(full.stderr.contains("the results before it are kept"), "{}", full.stderr);
    assert!(fs::metadata(scratch.path("full/results.journal")).expect("a journal").len() > 10_000);
    let rest = campaign(&scratch, &["run", "plan.toml", "-o", "full"]);
    assert_eq!(rest.status, 0, "{}", rest.stderr);
    let bytes = |name: &str| fs::read(scratch.path(name)).expect("results");
    assert!(bytes("full/results.parquet") == bytes("unbroken/results.parquet"));
}

#[test]
fn what_cannot_be_done_is_refused_with_a_next_step() {
    let scratch = planned(PLAN);
    let saved = run(Command::new(env!("CARGO_BIN_EXE_mktme-emu"))
        .args(["-m", "64M", "-serial", "none", "--savevm", "new.snap,at=icount:1000,stop"])
        .current_dir(scratch.dir()));
    assert_eq!(saved.status, 10, "{}", saved.stderr);
    let mut snapshot = fs::read(scratch.path("new.snap")).expect("a snapshot");
    // The format's number comes after the 20 bytes that say what it is.
    snapshot[20] ^= 0x40;
    scratch.file("old.snap", snapshot);
    fs::remove_file(scratch.path("new.snap")).expect("removed");
    scratch.file(
        "loads.toml",
        PLAN.replace("[machine]\nmemory = \"64M\"\n", "").replace("[guest]", "[guest]\nloadvm = \"old.snap\""),
    );
    scratch.file("typo.toml", PLAN.replace("[golden]", "[gold]"));
    scratch.file("stop.toml", format!("{PLAN}[statistics]\nstop = true\n"));
    scratch.file("kernel.toml", PLAN.replace("[guest]", "[guest]\nkernel = \"none\""));
    for (words, message) in [
        (&["run", "missing.toml"][..], "missing.toml: no such file"),
        (&["run", "loads.toml"], &format!("old.snap: a snapshot of format {}; this program reads", FORMAT ^ 0x40)),
        (&["run", "typo.toml"], "gold"),
        (&["run", "kernel.toml"], "none: no such file"),
        (&["run", "stop.toml", "--shard", "1/2"], "stop = false"),
        (&["run", "plan.toml", "--shard", "3/2"], "K from 1 to N"),
        (&["run", "plan.toml", "--shard", "0/2"], "K from 1 to N"),
        (&["run", "plan.toml", "-o", "plan.toml"], "plan.toml"),
        (&["replay", ".", "--id", "1"], "start.json"),
        (&["report", "."], "no results.parquet"),
        (&["report", "plan.toml"], "plan.toml"),
        (&["merge", "-o", "x.parquet", "."], "accepted"),
    ] {
        let refused = campaign(&scratch, words);
        assert!(matches!(refused.status, 2 | 14), "{words:?}: {} {}", refused.status, refused.stderr);
        assert!(refused.stderr.contains(message), "{words:?}: {}", refused.stderr);
    }
    let wanted = ["kernel.toml", "loads.toml", "old.snap", "plan.toml", "stop.toml", "typo.toml"];
    assert_eq!(scratch.names(), wanted, "{:?}", emu(["--version"]).status);
}
