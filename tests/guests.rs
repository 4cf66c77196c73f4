//! Guests of a few instructions: every way in which a run can end, and the console.

mod common;

use common::{BASE, Run, Scratch, emu, guest, run};
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use std::io::Write;
use std::process::{Command, Stdio};

const COM1: u32 = 0x3F8;
const DEBUG_CONSOLE: u32 = 0xE9;
const DEBUG_EXIT: u32 = 0xF4;
const RESET_CONTROL: u32 = 0xCF9;
const HARD_RESET: u32 = 6;

type Code = Result<(), IcedError>;

/// Boots the guest that `code` assembles.
fn boot(code: impl FnOnce(&mut CodeAssembler) -> Code, options: &[&str]) -> Run {
    let scratch = Scratch::new();
    let kernel = scratch.file("guest", guest(code));
    emu(["run", "-quiet-bios", "-m", "64M", "-kernel", &kernel].into_iter().chain(options.iter().copied()))
}

/// OUT of a byte.
fn out8(a: &mut CodeAssembler, port: u32, value: u32) -> Code {
    a.mov(edx, port)?;
    a.mov(eax, value)?;
    a.out(dx, al)
}

fn print(a: &mut CodeAssembler, text: &str) -> Code {
    text.bytes().try_for_each(|byte| out8(a, COM1, byte.into()))
}

/// Writes the debug-exit port.
fn end(a: &mut CodeAssembler, value: u32) -> Code {
    a.mov(edx, DEBUG_EXIT)?;
    a.mov(eax, value)?;
    a.out(dx, eax)
}

/// Sends back what it receives, until `q`; the exit value is 10H. Polled, with the receive interrupt enabled in the chip.
fn echo(a: &mut CodeAssembler) -> Code {
    let (mut wait, mut done) = (a.create_label(), a.create_label());
    out8(a, COM1 + 1, 1)?;
    print(a, "ready> ")?;
    a.set_label(&mut wait)?;
    a.mov(edx, COM1 + 5)?;
    a.in_(al, dx)?;
    a.test(al, 1)?;
    a.jz(wait)?;
    a.mov(edx, COM1)?;
    a.in_(al, dx)?;
    a.out(dx, al)?;
    a.cmp(al, u32::from(b'q'))?;
    a.jne(wait)?;
    a.set_label(&mut done)?;
    end(a, 0x10)
}

#[test]
fn debug_exit_values_become_odd_statuses_and_10h_success() {
    for (value, status) in [(0x10, 0), (0, 1), (1, 3), (3, 7), (0x7F, 255), (0x80, 1)] {
        let run = boot(|a| end(a, value), &[]);
        assert_eq!(run.status, status, "{}", run.stderr);
        assert!(run.stderr.starts_with(&format!("mktme-emu: debug exit, value {value:X}H")), "{}", run.stderr);
    }
}

#[test]
fn a_triple_fault_ends_with_status_4_and_the_registers() {
    let run = boot(
        |a| {
            a.mov(rbx, 0x1234_5678_9ABC_DEF0u64)?;
            a.ud2()
        },
        &[],
    );
    assert_eq!(run.status, 4);
    assert!(run.stderr.starts_with("mktme-emu: triple fault"), "{}", run.stderr);
    for line in [
        "RBX 123456789abcdef0",
        "RIP 000000000020000a",
        "CPL 0, 64-bit mode",
        "CS   0010",
        "last exception: #UD at RIP 000000000020000a",
        "code at 000000000020000a: 0f 0b",
        "next instruction: ud2",
    ] {
        assert!(run.stderr.contains(line), "{line}: {}", run.stderr);
    }
}

#[test]
fn executing_garbage_ends_with_status_4_and_says_what_it_was() {
    let garbage: Vec<u8> = (0..64u32).map(|n| (n * 167 + 6) as u8).collect();
    let scratch = Scratch::new();
    let kernel = scratch.file("garbage", common::elf(&garbage));
    let run = emu(["-quiet-bios", "-kernel", &kernel]);
    assert_eq!(run.status, 4, "{}", run.stderr);
    assert!(run.stderr.contains("last exception: #UD at RIP 0000000000200000"), "{}", run.stderr);
    assert!(run.stderr.contains("next instruction: (bad)"), "{}", run.stderr);
}

#[test]
fn a_jump_into_memory_mapped_registers_ends_with_status_4_and_says_where() {
    let run = boot(
        |a| {
            a.mov(rax, 0xFEC0_0000u64)?;
            a.jmp(rax)
        },
        &[],
    );
    assert_eq!(run.status, 4, "{}", run.stderr);
    assert!(run.stderr.contains("not readable (not mapped, or not RAM)"), "{}", run.stderr);
}

#[test]
fn a_processor_that_nothing_can_wake_ends_with_status_6() {
    let disabled = boot(
        |a| {
            a.cli()?;
            a.hlt()
        },
        &[],
    );
    assert_eq!(disabled.status, 6);
    assert!(disabled.stderr.contains("HLT with interrupts disabled"), "{}", disabled.stderr);
    assert!(disabled.stderr.contains("halted\n"), "{}", disabled.stderr);
    let enabled = boot(
        |a| {
            a.sti()?;
            a.hlt()
        },
        &[],
    );
    assert_eq!(enabled.status, 6);
    assert!(enabled.stderr.contains("HLT with no timer armed"), "{}", enabled.stderr);
}

/// Ways to INIT: port 92H, the reset control register without SYS_RST, the keyboard controller's reset line.
const INITS: [(u32, u32); 3] = [(0x92, 1), (RESET_CONTROL, 4), (0x64, 0xFE)];

#[test]
fn a_reset_boots_again_or_ends_with_status_8() {
    for (port, value) in INITS.into_iter().chain([(RESET_CONTROL, HARD_RESET)]) {
        reset_by(port, value);
    }
}

fn reset_by(port: u32, value: u32) {
    // CMOS RAM survives a reset: the second boot ends the run.
    let code = |a: &mut CodeAssembler| {
        let mut second = a.create_label();
        print(a, "boot.")?;
        out8(a, 0x70, 0x50)?;
        a.in_(al, 0x71u32)?;
        a.cmp(al, 0x55)?;
        a.je(second)?;
        a.mov(al, 0x55)?;
        a.out(0x71u32, al)?;
        out8(a, port, value)?;
        a.set_label(&mut second)?;
        end(a, 0x10)
    };
    let run = boot(code, &[]);
    assert_eq!(run.status, 0, "{}", run.stderr);
    assert_eq!(run.stdout, "boot.boot.\n");
    assert!(run.stderr.contains("resets         1"), "{}", run.stderr);
    let run = boot(code, &["-no-reboot"]);
    assert_eq!(run.status, 8, "{}", run.stderr);
    assert_eq!(run.stdout, "boot.\n");
}

#[test]
fn init_keeps_caches_and_memory_encryption_and_the_bios_jumps_through_40_67() {
    const WITNESS: u32 = 0x6_0000;
    const REAL_MODE: u32 = 0x5_0000;
    let mut real = CodeAssembler::new(16).unwrap();
    let mut code = || -> Code {
        let a = &mut real;
        let mut bad = a.create_label();
        let mut end = a.create_label();
        a.mov(ax, (WITNESS >> 4) as i32)?;
        a.mov(ds, ax)?;
        // The store before INIT is there.
        a.cmp(byte_ptr(0), 0x5A)?;
        a.jne(bad)?;
        // IA32_TME_ACTIVATE is enabled and locked as before.
        a.mov(ecx, 0x982)?;
        a.rdmsr()?;
        a.and(al, 3)?;
        a.cmp(al, 3)?;
        a.jne(bad)?;
        // It was never written back.
        a.invd()?;
        a.cmp(byte_ptr(0), 0x11)?;
        a.jne(bad)?;
        a.mov(eax, 0x10)?;
        a.jmp(end)?;
        a.set_label(&mut bad)?;
        a.mov(eax, 1)?;
        a.set_label(&mut end)?;
        a.mov(dx, DEBUG_EXIT as i32)?;
        a.out(dx, eax)
    };
    code().unwrap();
    let mut real = real.assemble(0).unwrap();
    real.resize(real.len().next_multiple_of(8), 0x90);
    for (port, value) in INITS {
        let code = |a: &mut CodeAssembler| {
            for (n, bytes) in real.chunks_exact(8).enumerate() {
                a.mov(rax, u64::from_le_bytes(bytes.try_into().unwrap()))?;
                a.mov(qword_ptr(u64::from(REAL_MODE) + 8 * n as u64), rax)?;
            }
            a.mov(dword_ptr(0x467), (REAL_MODE << 12) as i32)?;
            a.mov(byte_ptr(u64::from(WITNESS)), 0x11)?;
            a.wbinvd()?;
            a.mov(byte_ptr(u64::from(WITNESS)), 0x5A)?;
            out8(a, 0x70, 0x0F)?;
            out8(a, 0x71, 0x0A)?;
            out8(a, port, value)?;
            end(a, 2)
        };
        for options in [&[][..], &["-no-reboot", "-d", "mktme,int"]] {
            let run = boot(code, options);
            assert_eq!(run.status, 0, "{port:#x}: {}", run.stderr);
            assert!(!run.stderr.contains("resets"), "{}", run.stderr);
            let logged = run.stderr.lines().any(|l| l.starts_with("reset: ") && l.ends_with(" INIT"));
            assert_eq!(logged, !options.is_empty(), "{}", run.stderr);
        }
    }
}

#[test]
fn an_unlocked_982h_is_reported_when_the_operating_system_starts() {
    const LINE: &str = "mktme: before 0: IA32_TME_ACTIVATE not locked when the operating system starts";
    for (setting, unlocked) in [("unlocked", true), ("off", false), ("on", false)] {
        let run = boot(|a| end(a, 0x10), &["--tme", setting, "-d", "mktme"]);
        assert_eq!(run.status, 0);
        assert_eq!(run.stderr.lines().filter(|line| *line == LINE).count(), usize::from(unlocked), "{}", run.stderr);
    }
    let run = boot(|a| end(a, 0x10), &["--tme-profile", "none", "-d", "mktme"]);
    assert!(!run.stderr.contains("not locked"), "{}", run.stderr);
}

#[test]
fn power_off_ends_with_status_0() {
    // Sleep type 5 with SLP_EN, at PM1a_CNT as the FADT tells.
    let run = boot(
        |a| {
            a.mov(edx, u32::from(devices::layout::PM1A_CNT_BLK))?;
            a.mov(eax, 5 << 10 | 1 << 13)?;
            a.out(dx, ax)
        },
        &[],
    );
    assert_eq!(run.status, 0, "{}", run.stderr);
    assert!(run.stderr.starts_with("mktme-emu: power-off"), "{}", run.stderr);
}

#[test]
fn the_debug_console_goes_to_standard_error() {
    let run = boot(
        |a| {
            out8(a, DEBUG_CONSOLE, b'!'.into())?;
            print(a, "serial")?;
            end(a, 0x10)
        },
        &[],
    );
    assert_eq!(run.stdout, "serial\n");
    assert!(run.stderr.starts_with("!mktme-emu:"), "{}", run.stderr);
}

#[test]
fn the_serial_port_can_go_to_a_file_or_nowhere() {
    let scratch = Scratch::new();
    let file = scratch.path("serial");
    let code = |a: &mut CodeAssembler| {
        print(a, "serial")?;
        end(a, 0x10)
    };
    let run = boot(code, &["-serial", &format!("file:{}", file.display())]);
    assert_eq!((run.status, run.stdout.as_str()), (0, ""));
    assert_eq!(std::fs::read_to_string(&file).expect("written"), "serial");
    assert_eq!(boot(code, &["-serial", "none"]).stdout, "");
}

#[test]
fn conditions_of_until_stop_the_run_and_say_which() {
    let endless = |a: &mut CodeAssembler| {
        let mut forever = a.create_label();
        print(a, "Kernel panic - not syncing\n")?;
        a.set_label(&mut forever)?;
        a.jmp(forever)
    };
    let run = boot(endless, &["--until", "console:panic", "--until", "icount:100M"]);
    assert_eq!(run.status, 12, "{}", run.stderr);
    assert!(run.stderr.starts_with("mktme-emu: console output matched \"panic\""), "{}", run.stderr);
    let run = boot(endless, &["--until", "console:oops", "--until", "icount:12345", "--state-hash"]);
    assert_eq!(run.status, 10);
    assert!(run.state().ends_with("instructions: 12345\n"), "{}", run.stdout);
}

#[test]
fn a_stop_at_an_address_is_exact_inside_a_loop() {
    let code = |a: &mut CodeAssembler| {
        let mut around = a.create_label();
        a.mov(ecx, 1000)?;
        a.set_label(&mut around)?;
        a.inc(eax)?;
        a.dec(ecx)?;
        a.jnz(around)?;
        end(a, 0x10)
    };
    // The instruction after the loop, and one inside it.
    for (offset, count) in [(5 + 2 + 2 + 2, 3001), (5 + 2, 2)] {
        let run = boot(code, &["--until", &format!("pc:{:x}", BASE + offset), "--state-hash"]);
        assert_eq!(run.status, 10, "{}", run.stderr);
        assert!(run.state().ends_with(&format!("instructions: {count}\n")), "{}", run.stdout);
    }
}

#[test]
fn a_script_types_and_waits_and_is_reproducible() {
    let scratch = Scratch::new();
    let script = scratch.file("script", "# talk\nexpect ^ready> $\nsend a\\x42\nexpect aB\nwait 5ms\nsend cq\n");
    let options = ["--input", &script, "--state-hash"];
    let run = boot(echo, &options);
    assert_eq!(run.status, 0, "{}", run.stderr);
    assert!(run.stdout.starts_with("ready> aBcq\n"), "{}", run.stdout);
    assert_eq!(run.state(), boot(echo, &options).state());
    assert_eq!(run.state(), boot(echo, &["--input", &script, "--state-hash", "--no-fast-path"]).state());
}

#[test]
fn a_script_waits_for_an_exact_instruction_count() {
    let scratch = Scratch::new();
    let script = scratch.file("script", "wait icount 3M\nsend q\n");
    let run = boot(echo, &["--input", &script, "--state-hash"]);
    assert_eq!(run.status, 0, "{}", run.stderr);
    let count: u64 = run.state().trim_end().rsplit(' ').next().and_then(|n| n.parse().ok()).expect("a count");
    assert!((3_000_000..3_000_050).contains(&count), "{count}");
}

#[test]
fn a_guest_that_ends_before_its_script_is_status_18() {
    let scratch = Scratch::new();
    let script = scratch.file("script", "expect ready\nsend q\nexpect never\n");
    let run = boot(echo, &["--input", &script]);
    assert_eq!(run.status, 18, "{}", run.stderr);
    assert!(run.stderr.contains("script still waits at") && run.stderr.contains("script:3"), "{}", run.stderr);
}

#[test]
fn what_is_piped_in_reaches_the_guest() {
    let scratch = Scratch::new();
    let kernel = scratch.file("guest", guest(echo));
    let mut command = Command::new(env!("CARGO_BIN_EXE_mktme-emu"));
    command.args(["-quiet-bios", "-kernel", &kernel, "--until", "icount:1G"]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    let text = "x".repeat(200) + "q";
    child.stdin.take().expect("piped").write_all(text.as_bytes()).expect("taken");
    let output = child.wait_with_output().expect("ends");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("ready> {text}\n"));
}

#[test]
fn a_signal_ends_the_run_with_status_16_and_a_summary() {
    let scratch = Scratch::new();
    let kernel = scratch.file("guest", guest(echo));
    let script = format!(
        "'{}' -quiet-bios -kernel '{kernel}' </dev/null & sleep 1; kill -TERM $!; wait $!; echo status $?",
        env!("CARGO_BIN_EXE_mktme-emu")
    );
    let run = run(Command::new("sh").args(["-c", &script]));
    assert!(run.stdout.ends_with("status 16\n"), "{}{}", run.stdout, run.stderr);
    assert!(run.stderr.contains("ended by a signal"), "{}", run.stderr);
}

#[test]
fn what_the_model_does_not_have_is_reported_once() {
    let run = boot(
        |a| {
            for _ in 0..2 {
                a.mov(eax, 0x7000_0000)?;
                a.cpuid()?;
            }
            a.mov(ecx, 0xABCD)?;
            a.rdmsr()
        },
        &[],
    );
    assert_eq!(run.status, 4, "no IDT: #GP is a triple fault");
    for line in ["CPUID leaf 70000000H: unknown", "RDMSR ABCDH: unknown MSR, #GP(0)"] {
        assert_eq!(run.stderr.matches(line).count(), 1, "{line}: {}", run.stderr);
    }
}

#[test]
fn the_log_names_interrupts_exceptions_and_accesses_to_nothing() {
    let run = boot(
        |a| {
            a.mov(edx, 0x1234)?;
            a.in_(al, dx)?;
            a.mov(rax, cr3)?;
            a.mov(cr3, rax)?;
            end(a, 0x10)
        },
        &["-d", "mmu,guest_errors", "--no-summary"],
    );
    assert!(run.stderr.contains("read of 1 bytes from port 1234H, where nothing is"), "{}", run.stderr);
    assert!(run.stderr.contains("mmu: 3 "), "{}", run.stderr);
}
