//! `--sanitize`: reports, their machine-readable form, suppressions, origins, and everything that can be wrong with the
//! options. Which access is a hazard is tested where the rules are, in `mem`.

mod common;

use common::linux::{assert_healthy, boot, kit};
use common::{Run, Scratch, emu, guest};
use iced_x86::code_asm::*;
use serde_json::Value;
use std::fs;

/// The records of a JSON-lines file of one type.
fn records(path: &str, ty: &str) -> Vec<Value> {
    let text = fs::read_to_string(path).expect("the file was written");
    let all = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("each line is JSON"));
    all.inspect(|r| assert_eq!(r["version"], 1)).filter(|r| r["type"] == ty).collect()
}

/// Kinds and functions, in order.
fn sites(path: &str) -> Vec<(String, String)> {
    let text = |v: &Value| v.as_str().unwrap_or("none").to_owned();
    records(path, "hazard").iter().map(|r| (text(&r["kind"]), text(&r["access"]["symbol"]))).collect()
}

fn embedded(options: &[&str]) -> Run {
    emu(["run", "-quiet-bios", "--no-summary"].iter().chain(options))
}

/// Maps the 2 MiB at [`common::BASE`] through KeyID 1 at `1 << 40`, stores to a line through KeyID 0, and loads from it through
/// KeyID 1 without a flush between; before all that, waits for `typed` characters from the serial port.
fn forgetful_guest(typed: u32) -> Vec<u8> {
    guest(|a| {
        let mut wait = a.create_label();
        if typed > 0 {
            a.mov(ecx, typed)?;
            a.set_label(&mut wait)?;
            // The line status register: data ready.
            a.mov(edx, 0x3FD)?;
            a.in_(al, dx)?;
            a.test(al, 1)?;
            a.je(wait)?;
            a.mov(edx, 0x3F8)?;
            a.in_(al, dx)?;
            a.dec(ecx)?;
            a.jne(wait)?;
        }
        a.mov(rax, cr3)?;
        a.and(rax, -4096)?;
        a.mov(dword_ptr(rax + 16), 0x30_1003)?;
        a.mov(dword_ptr(rax + 20), 0)?;
        a.mov(rbx, 0x30_1000u64)?;
        a.mov(rcx, 0x30_2003u64)?;
        a.mov(qword_ptr(rbx), rcx)?;
        a.mov(rcx, 1u64 << 40 | 0x20_0083)?;
        a.mov(qword_ptr(rbx + 0x1008), rcx)?;
        a.mov(rbx, 0x38_0040u64)?;
        a.mov(rcx, 1u64 << 40 | 0x38_0040)?;
        a.mov(byte_ptr(rbx), 1)?;
        a.mov(byte_ptr(rbx + 1), 2)?;
        a.mov(al, byte_ptr(rcx))?;
        a.mov(eax, 0x10)?;
        a.out(0xF4, eax)
    })
}

#[test]
fn the_tours_tricks_are_reported_alike_under_every_cache_model() {
    let scratch = Scratch::new();
    let json = scratch.path("j").display().to_string();
    let mut first = None;
    for cache in ["exact", "lazy", "off"] {
        let run = embedded(&["--sanitize", "--sanitize-json", &json, "--cache", cache]);
        assert_eq!(run.status, 0, "{}", run.stderr);
        let found = sites(&json);
        assert!(found.iter().any(|(kind, f)| kind == "stale-read" && f.contains("alias::run")), "{found:?}");
        assert!(found.iter().any(|(kind, f)| kind == "wrong-key-read" && f.contains("secret::run")), "{found:?}");
        assert_eq!(run.stderr.matches("BUG: mktme-emu: ").count(), found.len());
        assert_eq!(*first.get_or_insert(found.clone()), found, "{cache}");
    }
}

#[test]
fn the_guest_does_not_notice() {
    for options in [&["--cache", "exact"][..], &["--cache", "off"], &["--no-fast-path"]] {
        let plain = embedded(&[options, &["--state-hash"]].concat());
        let watched = embedded(&[options, &["--state-hash", "--sanitize", "--sanitize-origins"]].concat());
        assert_eq!(plain.stdout, watched.stdout, "{options:?}");
    }
}

#[test]
fn a_report_has_both_accesses_the_line_and_what_is_missing() {
    let scratch = Scratch::new();
    let kernel = scratch.file("k", forgetful_guest(0));
    let run = emu(["run", "-quiet-bios", "--sanitize", "-kernel", &kernel]);
    assert_eq!(run.status, 0, "{}", run.stderr);
    let report: Vec<&str> = run.stderr.lines().skip_while(|line| !line.starts_with("BUG")).take(7).collect();
    assert!(report[0].starts_with("BUG: mktme-emu: missing-flush-on-alloc in 0x00000000002000"), "{report:?}");
    assert!(report[1].starts_with("  access   load through KeyID 1, CPU 0, CPL 0, instruction "), "{report:?}");
    assert!(report[3].starts_with("  other    store through KeyID 0, CPU 0, CPL 0, instruction "), "{report:?}");
    assert_eq!(report[5], "  line     0x380040, byte 0");
    assert!(report[6].starts_with("  missing  CLFLUSH the line through its KeyID 0 mapping"), "{report:?}");
    assert!(run.stderr.contains("mktme-emu: sanitizer: 1 hazard at 1 site\n"), "{}", run.stderr);
}

#[test]
fn stop_ends_at_the_first_hazard_that_is_not_suppressed() {
    let run = embedded(&["--sanitize=stop"]);
    assert_eq!(run.status, 20);
    assert_eq!(run.stderr.matches("BUG: ").count(), 1);
    assert!(run.stderr.contains("stopped at wrong-key-read in hello_mktme::"), "{}", run.stderr);
    assert!(run.stderr.contains("(exit status 20)"), "{}", run.stderr);

    let scratch = Scratch::new();
    let list = scratch.file("s", "# The tour's chapter on secrets.\nwrong-key-read:*secret*\nlost-write:*\n");
    let run = embedded(&["--sanitize=stop", "--sanitize-suppressions", &list]);
    assert_eq!(run.status, 20);
    assert!(run.stderr.contains("BUG: mktme-emu: stale-read in hello_mktme::steps::alias::run"), "{}", run.stderr);
    assert!(run.stderr.contains(&format!("{list}:3: lost-write:*: suppressed nothing")), "{}", run.stderr);

    let all = scratch.file("a", "*:*\n");
    let run = embedded(&["--sanitize=stop", "--sanitize-suppressions", &all]);
    assert_eq!((run.status, run.stderr.as_str()), (0, ""));
}

#[test]
fn suppressed_hazards_are_counted_and_not_told() {
    let scratch = Scratch::new();
    let (list, json) = (scratch.file("s", "wrong-key-read:*\n"), scratch.path("j").display().to_string());
    let run = emu(["run", "--sanitize", "--sanitize-suppressions", &list, "--sanitize-json", &json]);
    assert_eq!(run.status, 0);
    assert_eq!(run.stderr.matches("BUG: ").count(), 1, "{}", run.stderr);
    let end = &records(&json, "end")[0];
    assert_eq!((&end["hazards"], &end["dropped"]), (&Value::from(1), &Value::from(0)));
    let suppressed = end["suppressed"].as_u64().expect("a number");
    assert!(suppressed > 1);
    let line = format!("mktme-emu: sanitizer: 1 hazard at 1 site, {suppressed} suppressed\n");
    assert!(run.stderr.contains(&line), "{}", run.stderr);
}

#[test]
fn the_last_store_is_found_by_a_second_run_with_the_same_input() {
    let scratch = Scratch::new();
    let json = scratch.path("j").display().to_string();
    for typed in [0, 3] {
        let kernel = scratch.file("k", forgetful_guest(typed));
        let script = scratch.file("i", "wait 20ms\nsend a\nwait 1500us\nsend bc\n");
        let map = scratch.file("m", "200000 T whole_guest\n");
        let base =
            ["run", "-quiet-bios", "-kernel", &kernel, "--sanitize", "--sanitize-json", &json, "--symbols", &map];
        let input = ["--input", &script];
        let run = emu(base.iter().chain(&["--sanitize-origins"]).chain(if typed > 0 { &input[..] } else { &[] }));
        assert_eq!(run.status, 0, "{}", run.stderr);
        let (hazard, origin) = (&records(&json, "hazard")[0], &records(&json, "origin")[0]);
        let count = |site: &Value| site["icount"].as_u64().expect("a number");
        // The store that made the line dirty, and the one after it.
        assert_eq!(count(&hazard["other"]) + 1, count(&origin["last_store"]));
        assert_eq!(count(&origin["last_store"]) + 1, count(&hazard["access"]));
        assert_eq!(origin["last_store"]["symbol"], "whole_guest");
        assert_eq!(origin["last_flush"], Value::Null);
        assert!(run.stderr.contains("last store before it: KeyID 0, instruction "), "{}", run.stderr);
        assert!(run.stderr.contains("last flush before it: none"), "{}", run.stderr);
    }
}

#[test]
fn hazards_at_one_site_are_told_once_and_counted() {
    let scratch = Scratch::new();
    let json = scratch.path("j").display().to_string();
    // Ten times the same mistake.
    let code = guest(|a| {
        a.mov(rax, cr3)?;
        a.and(rax, -4096)?;
        a.mov(rcx, 0x30_1003u64)?;
        a.mov(qword_ptr(rax + 16), rcx)?;
        a.mov(rbx, 0x30_1000u64)?;
        a.mov(rcx, 0x30_2003u64)?;
        a.mov(qword_ptr(rbx), rcx)?;
        a.mov(rcx, 1u64 << 40 | 0x20_0083)?;
        a.mov(qword_ptr(rbx + 0x1008), rcx)?;
        a.mov(rbx, 0x38_0000u64)?;
        a.mov(rcx, 1u64 << 40 | 0x38_0000)?;
        a.mov(edx, 10)?;
        let mut again = a.create_label();
        a.set_label(&mut again)?;
        a.mov(byte_ptr(rbx), 1)?;
        a.mov(al, byte_ptr(rcx))?;
        a.add(rbx, 64)?;
        a.add(rcx, 64)?;
        a.dec(edx)?;
        a.jne(again)?;
        a.mov(eax, 0x10)?;
        a.out(0xF4, eax)
    });
    let kernel = scratch.file("k", code);
    let run = emu(["run", "-quiet-bios", "-kernel", &kernel, "--sanitize", "--sanitize-json", &json]);
    assert_eq!(run.stderr.matches("BUG: ").count(), 1, "{}", run.stderr);
    assert!(run.stderr.contains("mktme-emu: sanitizer: 10 hazards at 1 site\n"), "{}", run.stderr);
    assert!(run.stderr.contains("      10 × missing-flush-on-alloc in 0x00"), "{}", run.stderr);
    assert_eq!(records(&json, "end")[0]["counts"], serde_json::json!([{"id": 1, "count": 10}]));
}

#[test]
fn bad_input_is_refused_by_name_with_what_is_accepted() {
    let scratch = Scratch::new();
    let file = |name: &str, text: &str| scratch.file(name, text);
    let stripped = scratch.file("stripped", common::elf(&[0xF4]));
    for (options, messages) in [
        (vec!["--sanitize=halt"], vec!["invalid value 'halt'", "report", "stop"]),
        (vec!["--sanitize-json", "x"], vec!["--sanitize"]),
        (vec!["--sanitize-suppressions", "x"], vec!["--sanitize"]),
        (vec!["--sanitize-origins"], vec!["--sanitize"]),
        (vec!["--sanitize", "--sanitize-json", "/nonexistent/x"], vec!["--sanitize-json /nonexistent/x: no such file"]),
        (
            vec!["--sanitize", "--sanitize-suppressions", "/nonexistent"],
            vec!["--sanitize-suppressions /nonexistent: no such"],
        ),
        (
            vec!["--sanitize", "--sanitize-suppressions", &file("kind", "\n# x\nstale-raed:f\n")],
            vec![":3: unknown kind `stale-raed`; accepted: stale-read, lost-write"],
        ),
        (
            vec!["--sanitize", "--sanitize-suppressions", &file("colon", "stale-read f\n")],
            vec![":1: no colon; accepted: KIND:FUNCTION, for example"],
        ),
        (
            vec!["--sanitize", "--sanitize-suppressions", &file("function", "*:\n")],
            vec![":1: no function after the colon"],
        ),
        (vec!["--symbols", "/nonexistent"], vec!["--symbols /nonexistent: no such file", "accepted: a System.map"]),
        (vec!["--symbols", &file("empty", "")], vec!["empty: no symbols in it; accepted: a System.map"]),
        (vec!["--symbols", &file("line", "200000 T f\nnonsense\n")], vec!["line: line 2: not an address"]),
        (vec!["--symbols", &file("elf", "\x7FELF")], vec!["elf: damaged ELF file"]),
        (vec!["--symbols", &stripped], vec!["stripped: an ELF file without a symbol table"]),
        (
            vec![
                "--symbols",
                &file("stub", "ffffffffffffffff B The real System.map is in the linux-image-1-dbg package\n"),
            ],
            vec!["stub: no symbols in it: it is Debian's stub", "-dbg"],
        ),
    ] {
        let run = embedded(&options);
        assert_eq!((run.status, run.stdout.as_str()), (2, ""), "{options:?}: {}", run.stderr);
        for message in messages {
            assert!(run.stderr.contains(message), "{options:?}: {message}: {}", run.stderr);
        }
    }
}

#[test]
fn the_register_dump_names_the_place_if_it_has_a_name() {
    let scratch = Scratch::new();
    let kernel = scratch.file("k", guest(|a| a.ud2()));
    let map = scratch.file("m", "200000 T doomed\n");
    let run = emu(["run", "-quiet-bios", "-kernel", &kernel, "--symbols", &map]);
    assert_eq!(run.status, 4);
    assert!(run.stderr.contains("RIP is at doomed+0x0\n"), "{}", run.stderr);
    assert!(!emu(["run", "-quiet-bios", "-kernel", &kernel]).stderr.contains("RIP is at"));
}

#[test]
fn debian_boots_without_a_report() {
    let Some(kit) = kit() else { return };
    let plain = boot(kit, "guest.run=report", &["--state-hash", "--no-summary"]);
    let watched = boot(kit, "guest.run=report", &["--state-hash", "--sanitize"]);
    assert_healthy(&watched);
    assert!(watched.stderr.contains("mktme-emu: sanitizer: 0 hazards\n"), "{}", watched.stderr);
    assert_eq!(plain.state(), watched.state());
}
