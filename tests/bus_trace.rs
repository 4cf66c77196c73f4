//! `run --bus-trace` and `mktme-emu bus-trace` (docs/bus-trace.md).

mod common;

use common::{Run, Scratch, emu, guest, run};
use mem::bus_trace::{Ciphertext, Direction, Event, Reader, Record, Transfer, What};
use mem::{CipherLine, LINE_BYTES};
use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// Small, so that the embedded guest has write-backs; and a shuffled order of those of WBINVD.
const CACHE: &str = "--cache-size 64K --cache-ways 2 --wb-order seeded";

/// Runs the embedded guest or another with a trace, and returns the trace's bytes.
fn trace(scratch: &Scratch, options: &str) -> Vec<u8> {
    let path = scratch.path("trace");
    let options = options.split_whitespace();
    let run = emu(["run", "-m", "64M", "--bus-trace", &path.display().to_string()].into_iter().chain(options));
    assert!([0, 10].contains(&run.status), "{}", run.stderr);
    fs::read(path).expect("the trace was written")
}

fn records(trace: &[u8]) -> Vec<Record> {
    let reader = Reader::new(trace).expect("a trace");
    reader.collect::<Result<_, _>>().expect("a whole trace")
}

/// Follows DRAM through a trace: every read must have what was written last. Returns what the lines hold at the end.
fn replayed(records: &[Record]) -> HashMap<u64, CipherLine> {
    let mut dram = HashMap::new();
    for Record { stamp, what } in records {
        match *what {
            What::Event(Event::PowerLoss) => dram.clear(),
            What::Event(Event::KeyidBits(_)) => {}
            What::Transfer(Transfer { line, direction, ciphertext, .. }) => {
                let bytes = ciphertext.expect("all bytes were recorded");
                match direction {
                    Direction::Write => _ = dram.insert(line.0, bytes),
                    Direction::Read => {
                        let before = dram.get(&line.0).copied().unwrap_or(CipherLine::ZERO);
                        assert_eq!(bytes, before, "line {:#x} at instruction {}", line.0, stamp.icount);
                    }
                }
            }
        }
    }
    dram
}

/// Replays a trace and compares with the dump of the same run.
fn assert_replay_is_dram(options: &str) -> Vec<Record> {
    let scratch = Scratch::new();
    let dump = scratch.path("dump");
    let records = records(&trace(&scratch, &format!("{options} --dump-dram {}", dump.display())));
    let mut expected = fs::read(dump).expect("the dump was written");
    for (line, bytes) in replayed(&records) {
        let at = line as usize * LINE_BYTES;
        assert_eq!(expected[at..at + LINE_BYTES], bytes.0, "{options}: line {line:#x}");
        expected[at..at + LINE_BYTES].fill(0);
    }
    assert!(expected.iter().all(|byte| *byte == 0), "{options}: DRAM has something that was not written");
    records
}

#[test]
fn the_writes_of_a_trace_are_what_dram_holds_and_its_reads_what_was_written() {
    for options in [CACHE, "--cache lazy", "--tme off", "--tme bypass", "--evict-rate 0.3 --seed 5 --dma-device on"] {
        let records = assert_replay_is_dram(options);
        let write_back =
            |r: &Record| matches!(r.what, What::Transfer(t) if t.direction == Direction::Write && t.keyid.0 > 0);
        assert!(options == "--tme off" || records.iter().any(write_back), "{options}");
        assert!(records.is_sorted_by_key(|r| r.stamp.icount), "{options}");
    }
}

#[test]
fn a_cold_reset_empties_dram_in_the_trace_too() {
    let scratch = Scratch::new();
    let image = guest(|a| {
        use iced_x86::code_asm::*;
        a.inc(qword_ptr(0x40_0000u64))?;
        a.clflush(byte_ptr(0x40_0000u64))?;
        a.mov(edx, 0xCF9)?;
        for value in [0x0A, 0x0E] {
            a.mov(eax, value)?;
            a.out(dx, al)?;
        }
        a.hlt()
    });
    let kernel = scratch.file("kernel", image);
    let records = assert_replay_is_dram(&format!("-kernel {kernel} --until icount:20"));
    let losses = records.iter().filter(|r| r.what == What::Event(Event::PowerLoss)).count();
    assert!(losses >= 2, "{losses}");
}

#[test]
fn shortcuts_logs_and_repetition_change_no_byte_of_a_trace() {
    let scratch = Scratch::new();
    let whole = trace(&scratch, CACHE);
    let log = scratch.path("log").display().to_string();
    for options in [
        "",
        "--fast-path off",
        "--links off",
        "--bulk-strings off",
        "--fast-path off --links off --bulk-strings off",
        "--sanitize",
        &format!("-d exec -D {log}"),
    ] {
        assert!(trace(&scratch, &format!("{CACHE} {options}")) == whole, "{options}");
    }
    assert!(trace(&scratch, &format!("{CACHE} --seed 1")) != whole);
}

#[test]
fn a_trace_changes_nothing_of_the_run() {
    let scratch = Scratch::new();
    let path = scratch.path("trace").display().to_string();
    let traced = emu(["--state-hash", "--bus-trace", &path]);
    assert_eq!(traced.state(), emu(["--state-hash"]).state());
    assert!(traced.stderr.contains("  bus trace      "), "{}", traced.stderr);
}

#[test]
fn every_transfer_is_at_the_instruction_that_caused_it() {
    let scratch = Scratch::new();
    // A page is filled, so that a line is filled every 8 iterations of one instruction; then one load.
    let image = guest(|a| {
        use iced_x86::code_asm::*;
        a.mov(edi, 0x40_0000)?;
        a.mov(ecx, 512)?;
        a.xor(eax, eax)?;
        a.rep().stosq()?;
        a.nop()?;
        a.mov(rax, qword_ptr(0x50_0040u64))?;
        a.mov(eax, 0x10)?;
        a.out(0xF4, al)
    });
    let kernel = scratch.file("kernel", image);
    let records = records(&trace(&scratch, &format!("-kernel {kernel} --until icount:600")));
    let filled = |line: u64| {
        let fill = |r: &&Record| matches!(r.what, What::Transfer(t) if t.line.0 == line && t.cause.name() == "cache");
        records.iter().find(fill).expect("it was filled").stamp.icount
    };
    for n in 0..64 {
        assert_eq!(filled((0x40_0000 >> 6) + n), 3 + 8 * n);
    }
    assert_eq!(filled(0x50_0040 >> 6), 3 + 512 + 1);
}

#[test]
fn bytes_can_be_left_out() {
    let scratch = Scratch::new();
    let all = records(&trace(&scratch, CACHE));
    for (name, kept) in [("writes", Ciphertext::Writes), ("off", Ciphertext::Off)] {
        let bytes = trace(&scratch, &format!("{CACHE} --bus-trace-ciphertext {name}"));
        assert_eq!(Reader::new(&bytes[..]).unwrap().header().ciphertext, kept);
        let expected = all.iter().copied().map(|mut record| {
            if let What::Transfer(t) = &mut record.what {
                t.ciphertext = t.ciphertext.filter(|_| kept.has(t.direction));
            }
            record
        });
        assert!(expected.eq(records(&bytes)), "{name}");
    }
}

#[test]
fn the_header_has_the_machine() {
    let scratch = Scratch::new();
    let bytes = trace(&scratch, "--tme-profile server7 --seed 9 --ips 33333333 --fast-path off");
    let header = Reader::new(&bytes[..]).unwrap().header().clone();
    assert_eq!((header.ram_bytes, header.ips, header.tsc_hz), (64 << 20, 33_333_333, 1_000_000_000));
    let file = scratch.file("machine.toml", &header.machine);
    let shown = emu(["run", "--machine", &file, "--machine-show"]).stdout;
    assert_eq!(shown, header.machine);
    assert!(shown.contains("\nseed = 9\n") && shown.contains("\nfast_path = true\n"), "{shown}");
}

#[test]
fn what_encrypts_nothing_has_the_guest_in_clear_on_the_bus() {
    let scratch = Scratch::new();
    let treasure = |options: &str| {
        let shown = |r: Record| match r.what {
            What::Transfer(Transfer { ciphertext: Some(bytes), .. }) => bytes.0.windows(8).any(|w| w == b"treasure"),
            _ => false,
        };
        records(&trace(&scratch, options)).into_iter().any(shown)
    };
    assert!(!treasure(""));
    assert!(treasure("--tme off"));
}

fn shown(options: &[&str], path: &Path) -> Run {
    emu(["bus-trace", &path.display().to_string()].into_iter().chain(options.iter().copied()))
}

#[test]
fn every_format_has_every_transfer() {
    let scratch = Scratch::new();
    let bytes = trace(&scratch, CACHE);
    let path = scratch.path("trace");
    let reader = Reader::new(&bytes[..]).unwrap();
    let header = reader.header().clone();
    let records: Vec<Record> = reader.map(Result::unwrap).collect();
    let transfers: Vec<(u64, Transfer)> = records
        .iter()
        .filter_map(|r| match r.what {
            What::Transfer(t) => Some((header.time(r.stamp), t)),
            What::Event(_) => None,
        })
        .collect();
    let write = |t: &Transfer| t.direction == Direction::Write;

    let lines = |options: &[&str]| {
        let run = shown(options, &path);
        assert_eq!((run.status, run.stderr.as_str()), (0, ""), "{options:?}");
        run.stdout.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let loads = lines(&["--format", "ramulator2"]);
    let expected =
        transfers.iter().map(|(_, t)| format!("{} {:#x}", if write(t) { "ST" } else { "LD" }, t.line.0 * 64));
    assert!(expected.eq(loads));
    let requests = lines(&["--format", "dramsim3", "--dram-mhz", "1200"]);
    let expected = transfers.iter().map(|(time, t)| {
        format!("{:#x} {} {}", t.line.0 * 64, if write(t) { "WRITE" } else { "READ" }, time * 12 / 10)
    });
    assert!(expected.eq(requests));
    let rows = lines(&["--format", "csv"]);
    assert_eq!(rows[0], "time_ns,icount,address,keyid,direction,cause,encrypted,ciphertext");
    assert_eq!(rows.len(), transfers.len() + 1);
    for (row, (time, t)) in rows[1..].iter().zip(&transfers) {
        let cells: Vec<&str> = row.split(',').collect();
        assert_eq!(cells.len(), 8);
        assert_eq!(cells[0], time.to_string());
        assert_eq!(cells[2], format!("{:#x}", t.line.0 * 64));
        assert_eq!(cells[7].len(), 128);
    }
    let text = lines(&[]);
    assert_eq!(text.len(), records.len() + 1);
    assert!(text[1].ends_with("KeyID bits: 6"), "{}", text[1]);
}

#[test]
fn the_summary_counts_and_finds_repeated_ciphertext() {
    let scratch = Scratch::new();
    // 1, 2, 1 to a line: the third write puts what the first did.
    let image = guest(|a| {
        use iced_x86::code_asm::*;
        for value in [1, 2, 1] {
            a.mov(qword_ptr(0x40_0000u64), value)?;
            a.clflush(byte_ptr(0x40_0000u64))?;
        }
        a.mov(eax, 0x10)?;
        a.out(0xF4, al)
    });
    let kernel = scratch.file("kernel", image);
    trace(&scratch, &format!("-kernel {kernel}"));
    let run = shown(&["--summary"], &scratch.path("trace"));
    assert_eq!(run.status, 0, "{}", run.stderr);
    let words: Vec<Vec<&str>> = run.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    let cache = words.iter().find(|w| w.get(1) == Some(&"cache")).expect("a row");
    assert_eq!(cache[3], "3", "write-backs: {}", run.stdout);
    assert_eq!(words.last().expect("a row")[..], ["0", "0", "1", "1"], "{}", run.stdout);
    trace(&scratch, &format!("-kernel {kernel} --bus-trace-ciphertext off"));
    let run = shown(&["--summary"], &scratch.path("trace"));
    assert!(run.stdout.ends_with("the trace has none (--bus-trace-ciphertext off).\n"), "{}", run.stdout);
}

#[test]
fn damaged_and_foreign_files_are_named_after_what_can_be_read() {
    let scratch = Scratch::new();
    let bytes = trace(&scratch, CACHE);
    let whole = shown(&[], &scratch.path("trace")).stdout;
    let path = scratch.path("other");
    let message = |bytes: &[u8], status: i32| {
        fs::write(&path, bytes).unwrap();
        let run = shown(&[], &path);
        assert_eq!(run.status, status, "{}", run.stderr);
        assert!(whole.starts_with(&run.stdout), "what comes before is the same");
        let prefix = format!("mktme-emu: bus-trace: {}: ", path.display());
        (run.stdout.lines().count(), run.stderr.strip_prefix(&prefix).expect("the name").trim_end().to_owned())
    };
    const ACCEPTED: &str = "; accepted: a file of run --bus-trace";
    let (lines, text) = message(&bytes[..bytes.len() - 50], 1);
    assert!(lines > 2048 && text.starts_with("the trace is cut short: it has "), "{lines} {text}");
    let mut damaged = bytes.clone();
    damaged[bytes.len() / 2] ^= 1;
    let (lines, text) = message(&damaged, 1);
    assert!(text.starts_with("block ") && text.ends_with(" is damaged"), "{lines} {text}");
    let (lines, text) = message(b"address,direction\n", 2);
    assert_eq!((lines, text), (0, format!("not a bus trace: it does not start with MKTMEBUS{ACCEPTED}")));
    damaged[8] = 7;
    let (_, text) = message(&damaged, 2);
    assert_eq!(text, format!("a bus trace of version 7; this program reads version 1{ACCEPTED}"));
    fs::remove_file(&path).unwrap();
    let run = shown(&["--summary"], &path);
    let expected = format!("mktme-emu: bus-trace: {}: no such file or directory{ACCEPTED}\n", path.display());
    assert_eq!((run.status, run.stderr), (2, expected));
}

#[test]
fn a_run_that_is_killed_leaves_its_whole_blocks() {
    let scratch = Scratch::new();
    // Stores to line after line of 2 MiB, for ever.
    let image = guest(|a| {
        use iced_x86::code_asm::*;
        let mut again = a.create_label();
        a.set_label(&mut again)?;
        a.add(ebx, 64)?;
        a.and(ebx, 0x1F_FFFF)?;
        a.inc(byte_ptr(rbx + 0x40_0000))?;
        a.jmp(again)
    });
    let (kernel, path) = (scratch.file("kernel", image), scratch.path("trace"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_mktme-emu"));
    command.args(["run", "-m", "64M", "-kernel", &kernel, "--bus-trace"]).arg(&path);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while fs::metadata(&path).map_or(0, |m| m.len()) < 1 << 20 {
        assert!(child.try_wait().unwrap().is_none(), "it goes on for ever");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let run = shown(&["--summary"], &path);
    assert_eq!(run.status, 1);
    assert!(run.stderr.contains("the trace is cut short: it has "), "{}", run.stderr);
    assert!(run.stdout.contains("\nKeyID  cause "), "{}", run.stdout);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let scratch = Scratch::new();
    trace(&scratch, CACHE);
    let command =
        format!("{} bus-trace {} | head -n 1", env!("CARGO_BIN_EXE_mktme-emu"), scratch.path("trace").display());
    let run = run(Command::new("sh").args(["-c", &command]));
    assert_eq!((run.status, run.stderr.as_str()), (0, ""));
    assert!(run.stdout.trim_start().starts_with("time/ns"), "{}", run.stdout);
}

#[test]
fn a_trace_that_cannot_be_written_is_refused_or_ends_the_run() {
    let scratch = Scratch::new();
    let refused = |args: &[&str], expected: &str| {
        let run = emu(["run"].iter().chain(args));
        assert_eq!((run.status, run.stdout.as_str()), (2, ""));
        assert!(run.stderr.starts_with(&format!("mktme-emu: {expected}")), "{}", run.stderr);
    };
    refused(
        &["--bus-trace", "/nonexistent/x"],
        "--bus-trace /nonexistent/x: no such file or directory; accepted: a file that can be written\n",
    );
    let path = scratch.path("trace").display().to_string();
    refused(&["--bus-trace", &path, "--cache", "off"], "--bus-trace: cache off has the results of");
    let kernel = scratch.file("kernel", "no kernel");
    refused(&["--bus-trace", &path, "-kernel", &kernel], "-kernel: not a kernel");
    assert_eq!(scratch.names(), ["kernel"], "nothing is left behind");
    let run = emu(["run", "--bus-trace-ciphertext", "off"]);
    assert_eq!(run.status, 2);
    assert!(run.stderr.contains("--bus-trace <FILE>"), "{}", run.stderr);
    let run = emu(["run", "--bus-trace", "/dev/full"]);
    assert_eq!(run.status, 14);
    assert_eq!(run.stderr, "mktme-emu: --bus-trace /dev/full: no space left on device\n");
    let run = emu(["explore", "--", "run", "--bus-trace", &path]);
    assert_eq!(run.status, 2);
    assert!(run.stderr.contains("--bus-trace in the command after --: each run has its own"), "{}", run.stderr);
}

#[test]
fn a_disk_that_fills_up_during_the_run_ends_it() {
    let scratch = Scratch::new();
    let path = scratch.path("trace").display().to_string();
    // RLIMIT_FSIZE in units of 512 bytes; without SIGXFSZ the write fails with EFBIG.
    let command =
        format!("trap '' XFSZ; ulimit -f 100; exec {} run --bus-trace {path}", env!("CARGO_BIN_EXE_mktme-emu"));
    let run = run(Command::new("sh").args(["-c", &command]).stdin(Stdio::null()));
    assert_eq!(run.status, 14, "{}{}", run.stdout, run.stderr);
    assert!(run.stderr.ends_with(&format!("mktme-emu: --bus-trace {path}: file too large\n")), "{}", run.stderr);
}
