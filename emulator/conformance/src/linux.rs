//! MK-134, MK-136 and MK-137: Linux 6.1 says about TME what section 8.1 lists, and nothing else.
//!
//! The kernel runs with an initial RAM disk of one program, which prints /proc/cpuinfo.

use crate::harness::{Failure, Verdict};
use crate::statement::Env;
use crate::{check, equal};
use firmware::{Images, Module, Setup, TmeSetting};
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use machine::{Config, Exit, Machine};
use mem::TmeProfile;

/// Several times what a boot takes.
const LIMIT: u64 = 12_000_000_000;
/// Between looks at the console.
const SLICE: u64 = 20_000_000;
const CMDLINE: &str = "console=ttyS0 cryptomgr.notests panic=-1";
/// What the program prints at its end.
const MARK: &[u8] = b"<end of cpuinfo>\n";

pub fn mk_134(env: &Env) -> Verdict {
    let log = boot(env, TmeProfile::Default, TmeSetting::On)?;
    let lines = ["x86/tme: enabled by BIOS", "x86/mktme: enabled by BIOS", "x86/mktme: 63 KeyIDs available"];
    says(&log, &lines, "40 bits physical")
}

pub fn mk_136(env: &Env) -> Verdict {
    let log = boot(env, TmeProfile::Client4, TmeSetting::On)?;
    let lines = [
        "x86/tme: enabled by BIOS",
        "x86/tme: Unknown policy is active: 0x2",
        "x86/mktme: No known encryption algorithm is supported: 0x4",
        "x86/mktme: enabled by BIOS",
        "x86/mktme: 15 KeyIDs available",
    ];
    says(&log, &lines, "42 bits physical")
}

pub fn mk_137(env: &Env) -> Verdict {
    let log = boot(env, TmeProfile::Default, TmeSetting::Off)?;
    says(&log, &["x86/tme: not enabled by BIOS"], "46 bits physical")
}

/// The lines about TME are these, in this order; the physical width is that; no MSR access faulted.
fn says(log: &str, lines: &[&str], width: &str) -> Verdict {
    let seen: Vec<&str> = log
        .lines()
        .filter_map(|l| ["x86/tme:", "x86/mktme:"].iter().find_map(|p| l.find(p)).map(|at| &l[at..]))
        .collect();
    equal!(seen[..], lines[..], "the kernel's lines about TME");
    let sizes = log.lines().find(|l| l.starts_with("address sizes")).unwrap_or("no line `address sizes`");
    check!(sizes.contains(width), "/proc/cpuinfo: {sizes}, expected {width}");
    let trouble = log.lines().find(|l| l.contains("unchecked MSR access") || l.contains("Oops"));
    check!(trouble.is_none(), "the kernel says: {}", trouble.unwrap_or_default());
    Ok(())
}

/// Boots until the program has run. Returns the console's output.
fn boot(env: &Env, profile: TmeProfile, tme: TmeSetting) -> Result<String, Failure> {
    let path = env.kernel.clone().unwrap_or_default();
    let kernel = std::fs::read(&path).map_err(|error| Failure::File { path: path.display().to_string(), error })?;
    let initrd = initrd()?;
    let setup = Setup { tme: Some(tme), ..Setup::default() };
    let mut machine = Machine::new(Config { ram_bytes: 256 << 20, profile, setup, ..Config::default() })?;
    let mut bios = machine.power_on()?;
    machine.boot(
        &mut bios,
        &Images {
            kernel: &kernel,
            modules: vec![Module { name: "initrd", arguments: "", data: &initrd }],
            cmdline: CMDLINE,
            ..Images::default()
        },
    )?;
    let mut output = Vec::new();
    let mut icount = 0;
    while icount < LIMIT {
        icount += SLICE;
        let exit = machine.run(icount);
        output.extend(machine.chipset().take_serial_output());
        let text = String::from_utf8_lossy(&output).replace('\r', "");
        if text.as_bytes().windows(MARK.len()).any(|w| w == MARK) {
            return Ok(text);
        }
        let last = text.lines().last().unwrap_or_default().to_owned();
        check!(exit == Exit::Icount, "the kernel ended with {exit:?}; its last line: {last}");
    }
    Err(Failure::Wrong(format!("no sign of /init after {LIMIT} instructions")))
}

/// System calls of x86-64 Linux.
mod syscall {
    pub const READ: u32 = 0;
    pub const WRITE: u32 = 1;
    pub const OPEN: u32 = 2;
    pub const PAUSE: u32 = 34;
    pub const MKDIR: u32 = 83;
    pub const MOUNT: u32 = 165;
}

const INIT_BASE: u64 = 0x40_0000;
const BUFFER: u32 = 4096;

/// Mounts /proc, copies /proc/cpuinfo to the console, prints [`MARK`], waits.
fn init(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let (mut proc, mut path, mut file, mut mark) =
        (a.create_label(), a.create_label(), a.create_label(), a.create_label());
    let (mut copy, mut done, mut wait) = (a.create_label(), a.create_label(), a.create_label());
    a.lea(rdi, ptr(path))?;
    a.mov(esi, 0o755)?;
    a.mov(eax, syscall::MKDIR)?;
    a.syscall()?;
    a.lea(rdi, ptr(proc))?;
    a.lea(rsi, ptr(path))?;
    a.lea(rdx, ptr(proc))?;
    a.xor(r10d, r10d)?;
    a.xor(r8d, r8d)?;
    a.mov(eax, syscall::MOUNT)?;
    a.syscall()?;
    a.lea(rdi, ptr(file))?;
    a.xor(esi, esi)?;
    a.mov(eax, syscall::OPEN)?;
    a.syscall()?;
    a.mov(r12d, eax)?;
    a.sub(rsp, BUFFER as i32)?;
    a.set_label(&mut copy)?;
    a.mov(edi, r12d)?;
    a.mov(rsi, rsp)?;
    a.mov(edx, BUFFER)?;
    a.mov(eax, syscall::READ)?;
    a.syscall()?;
    a.test(eax, eax)?;
    a.jle(done)?;
    a.mov(edx, eax)?;
    a.mov(edi, 1)?;
    a.mov(rsi, rsp)?;
    a.mov(eax, syscall::WRITE)?;
    a.syscall()?;
    a.jmp(copy)?;
    a.set_label(&mut done)?;
    a.mov(edi, 1)?;
    a.lea(rsi, ptr(mark))?;
    a.mov(edx, MARK.len() as u32)?;
    a.mov(eax, syscall::WRITE)?;
    a.syscall()?;
    a.set_label(&mut wait)?;
    a.mov(eax, syscall::PAUSE)?;
    a.syscall()?;
    a.jmp(wait)?;
    a.set_label(&mut proc)?;
    a.db(b"proc\0")?;
    a.set_label(&mut path)?;
    a.db(b"/proc\0")?;
    a.set_label(&mut file)?;
    a.db(b"/proc/cpuinfo\0")?;
    a.set_label(&mut mark)?;
    a.db(MARK)
}

/// A static ELF64 executable of one segment that is headers and code (System V ABI, ELF-64).
fn elf() -> Result<Vec<u8>, Failure> {
    const HEADERS: u64 = 64 + 56;
    let mut a = CodeAssembler::new(64)?;
    init(&mut a)?;
    let code = a.assemble(INIT_BASE + HEADERS)?;
    let size = HEADERS + code.len() as u64;
    let mut image = Vec::new();
    image.extend(*b"\x7FELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    // ET_EXEC, EM_X86_64, EV_CURRENT; entry, program headers, no section headers.
    image.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    for field in [INIT_BASE + HEADERS, 64, 0] {
        image.extend(field.to_le_bytes());
    }
    // Flags, sizes of the headers, one program header.
    image.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    // PT_LOAD, readable and executable.
    image.extend([1, 0, 0, 0, 5, 0, 0, 0]);
    for field in [0, INIT_BASE, INIT_BASE, size, size, 0x1000] {
        image.extend(field.to_le_bytes());
    }
    image.extend(code);
    Ok(image)
}

/// A cpio archive in the "newc" format (Linux, Documentation/driver-api/early-userspace/buffer-format.rst).
fn initrd() -> Result<Vec<u8>, Failure> {
    let mut archive = Vec::new();
    let mut entry = |name: &str, mode: u32, data: &[u8]| {
        let name_size = name.len() as u32 + 1;
        // Inode, mode, uid, gid, links, mtime, size, device numbers, name size, checksum.
        let fields = [1, mode, 0, 0, 1, 0, data.len() as u32, 0, 0, 0, 0, name_size, 0];
        archive.extend(*b"070701");
        for field in fields {
            archive.extend(format!("{field:08X}").bytes());
        }
        archive.extend(name.bytes().chain([0]));
        archive.resize(archive.len().next_multiple_of(4), 0);
        archive.extend(data);
        archive.resize(archive.len().next_multiple_of(4), 0);
    };
    entry("init", 0o100_755, &elf()?);
    entry("TRAILER!!!", 0, &[]);
    Ok(archive)
}
