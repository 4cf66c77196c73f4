//! The user-mode x86 programs of QEMU's source package print in the guest what they print on this host.
//!
//! `guests/linux/programs.sh` builds them, runs them here and packs them; `guest.run=programs` runs them there. A few in
//! every run, all of them with MKTME_LONG=1.

mod common;

use common::linux::{assert_healthy, boot_with, kit, long, script};
use common::{Run, Scratch};
use std::collections::BTreeMap;
use std::fs;

/// Programs for every run: integer flags, x87, SSE, SSE4.2, BMI, CMPXCHG16B, self-modifying code.
const SHORT: [&str; 13] = [
    "test-x86_64",
    "test-mmx",
    "test-i386-bmi2",
    "test-i386-fxam",
    "test-i386-fldcst",
    "test-i386-fbstp",
    "test-i386-sse-exceptions",
    "test-i386-pcmpistri",
    "cmpxchg",
    "noexec",
    "sha512-sse",
    "float_convs",
    "float_madds",
];

/// What differs from the host's, and why that is right.
enum Exception {
    /// Lines that show results the SDM leaves undefined.
    Lines(fn(&str) -> bool),
    /// The program checks itself; what it prints is different in any two runs. The exit status counts.
    StatusOnly,
    /// The guest's processor does not have the instructions: SIGILL, which a shell reports as 128 + 4.
    IllegalInstruction,
}

const EXCEPTIONS: [(&str, Exception, &str); 7] = [
    (
        "test-x86_64",
        Exception::Lines(is_double_shift_of_a_word_by_more_than_16),
        "SHLD and SHRD with a count above the operand size: result and flags are undefined (SDM Vol. 2B)",
    ),
    ("vsyscall", Exception::StatusOnly, "prints the time of day"),
    ("test-mmap", Exception::StatusOnly, "prints addresses, which the kernel randomises"),
    ("signals", Exception::StatusOnly, "threads count alarms of a real timer"),
    ("testthread", Exception::StatusOnly, "two threads print in the order the scheduler chooses"),
    ("test-avx", Exception::IllegalInstruction, "no profile enumerates AVX (CPUID.1.ECX[28] = 0)"),
    ("test-3dnow", Exception::IllegalInstruction, "3DNow! is AMD's (CPUID.80000001H.EDX[31] = 0)"),
];

fn is_double_shift_of_a_word_by_more_than_16(line: &str) -> bool {
    let count = line.split_once(" C=").and_then(|(_, rest)| u64::from_str_radix(rest.get(..16)?, 16).ok());
    (line.starts_with("shldw ") || line.starts_with("shrdw ")) && count.is_some_and(|c| c % 32 > 16)
}

/// Where the guest stops to print differences, headings included.
const DIFF_LIMIT: usize = 1000;
const SIGILL: &str = "132";

/// Lines `P NAME STATUS SHA256`: name to status and digest.
fn results(text: &str) -> BTreeMap<String, (String, String)> {
    let fields = text.lines().filter_map(|line| line.strip_prefix("P "));
    fields
        .map(|line| {
            let mut words = line.split(' ').map(str::to_owned);
            let mut word = || words.next().unwrap_or_default();
            (word(), (word(), word()))
        })
        .collect()
}

/// `diff -U 0` of what the host printed and what the guest did, without its headings, and whether that is all.
fn differing_lines<'a>(run: &'a Run, name: &str) -> (Vec<&'a str>, bool) {
    let start = format!("D {name} ");
    let mut lines: Vec<&str> = run.stdout.lines().filter_map(|line| line.strip_prefix(&start)).collect();
    let whole = lines.len() < DIFF_LIMIT;
    lines.retain(|line| !["---", "+++", "@@"].iter().any(|heading| line.starts_with(heading)));
    (lines, whole)
}

#[test]
fn programs_print_in_the_guest_what_they_print_on_the_host() {
    let Some(kit) = kit() else { return };
    let names: &[&str] = if long() { &[] } else { &SHORT };
    let Some(work) = script("programs.sh", names, &[]) else { return };
    let expected = results(&fs::read_to_string(work.join("programs/results")).expect("the script leaves its results"));
    assert!(expected.len() >= names.len().max(1), "{expected:?}");

    // The kernel unpacks archives that follow each other.
    let mut archive = fs::read(kit.path("initramfs.cpio")).expect("the kit has it");
    archive.extend(fs::read(work.join("programs.cpio")).expect("the script leaves its archive"));
    let scratch = Scratch::new();
    let initrd = scratch.file("initrd", archive);
    // Debian's kernels have no vsyscall page unless asked.
    let append = "vsyscall=xonly guest.run=programs";
    let run = boot_with(kit, &initrd, "1G", append, &["--until", "icount:200G"]);
    assert_healthy(&run);
    assert!(run.stdout.contains("GUEST-DONE"), "{}", run.stdout);

    let guest = results(&run.stdout);
    assert_eq!(guest.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    let mut wrong = Vec::new();
    for (name, there) in &guest {
        let here = &expected[name];
        let (lines, whole) = differing_lines(&run, name);
        let right = match EXCEPTIONS.iter().find(|(exempt, ..)| exempt == name) {
            None => there == here,
            Some((_, Exception::Lines(exempt), _)) => {
                there.0 == here.0 && whole && lines.iter().all(|line| exempt(&line[1..]))
            }
            Some((_, Exception::StatusOnly, _)) => there.0 == here.0,
            Some((_, Exception::IllegalInstruction, _)) => there.0 == SIGILL,
        };
        if !right {
            let shown = lines[..lines.len().min(20)].join("\n");
            wrong.push(format!("{name}: exit status {} here, {} in the guest\n{shown}", here.0, there.0));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
