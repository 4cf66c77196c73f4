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
        Exception::Lines(|line| is_word_double_shift_above_16(line) || is_unequal_cmpxchg_of_doublewords(line)),
        "SHLD and SHRD with a count above the operand size: undefined (SDM Vol. 2B). CMPXCHG of unequal 32-bit registers: \
         SDM Vol. 2A has DEST := TEMP, which clears bits 63:32; AMD processors do not write DEST",
    ),
    ("vsyscall", Exception::StatusOnly, "prints the time of day"),
    ("test-mmap", Exception::StatusOnly, "prints addresses, which the kernel randomises"),
    ("signals", Exception::StatusOnly, "threads count alarms of a real timer"),
    ("testthread", Exception::StatusOnly, "two threads print in the order the scheduler chooses"),
    ("test-avx", Exception::IllegalInstruction, "no profile enumerates AVX (CPUID.1.ECX[28] = 0)"),
    ("test-3dnow", Exception::IllegalInstruction, "3DNow! is AMD's (CPUID.80000001H.EDX[31] = 0)"),
];

/// The value that `test-i386.c` prints after ` C=`.
fn value_c(line: &str) -> Option<u64> {
    let (_, rest) = line.split_once(" C=")?;
    u64::from_str_radix(rest.get(..16)?, 16).ok()
}

fn is_word_double_shift_above_16(line: &str) -> bool {
    // The count is taken modulo 32.
    (line.starts_with("shldw ") || line.starts_with("shrdw ")) && value_c(line).is_some_and(|count| count % 32 > 16)
}

/// The program prints EAX before and C after: its lower half is still the old, different value.
fn is_unequal_cmpxchg_of_doublewords(line: &str) -> bool {
    const OLD: u64 = 0xFBCA_7654;
    line.starts_with("cmpxchgl ")
        && !line.contains("fbca7654 A=")
        && value_c(line).is_some_and(|c| c as u32 as u64 == OLD)
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
