//! Boot protocols on the real machine: the template kernel by each protocol that it speaks, boot sectors, flat programs.

mod common;

use common::{Scratch, emu};
use firmware::{Flat, ImageFormat, Images, Mode, Module, Protocol, Setup, TmeSetting};
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use machine::{Config, Exit, Machine};
use mem::TmeProfile;

const SUCCESS: Exit = Exit::DebugExit(0x10);
const COM1: u32 = 0x3F8;
const DEBUG_EXIT: u32 = 0xF4;
/// More than any of these guests executes.
const INSTRUCTIONS: u64 = 50_000_000;

struct Run {
    format: ImageFormat,
    /// Without carriage returns.
    serial: String,
    exit: Exit,
}

fn run(config: Config, images: &Images) -> Run {
    let mut machine = Machine::new(Config { ram_bytes: 64 << 20, ..config }).expect("a possible machine");
    let mut bios = machine.power_on().expect("possible settings");
    let info = machine.boot(&mut bios, images).expect("a bootable image");
    let exit = machine.run(INSTRUCTIONS);
    let serial = String::from_utf8_lossy(&machine.chipset().take_serial_output()).replace('\r', "");
    Run { format: info.format, serial, exit }
}

fn template(protocol: Option<Protocol>) -> Images<'static> {
    Images { kernel: guests::TEMPLATE, kernel_name: "template", cmdline: "a=1 b", protocol, ..Images::default() }
}

const PROTOCOLS: [(Protocol, &str, &str); 3] = [
    (Protocol::Multiboot1, "Multiboot 1", "template a=1 b"),
    (Protocol::Multiboot2, "Multiboot 2", "template a=1 b"),
    (Protocol::Pvh, "PVH", "a=1 b"),
];

#[test]
fn the_template_tests_two_keyids_however_it_is_loaded() {
    for (protocol, name, cmdline) in PROTOCOLS {
        let run = run(Config::default(), &template(Some(protocol)));
        assert_eq!(run.exit, SUCCESS, "{name}: {}", run.serial);
        let first = format!("template: loaded by {name}, command line \"{cmdline}\"\n");
        assert!(run.serial.starts_with(&first), "{}", run.serial);
        assert_eq!(run.serial.matches("[PASS]").count(), 5, "{}", run.serial);
        assert!(run.serial.ends_with("template: all checks passed\n"), "{}", run.serial);
    }
}

#[test]
fn the_template_passes_on_every_processor_with_mktme_and_has_nothing_to_test_on_the_others() {
    for profile in [TmeProfile::Client4, TmeProfile::Server6, TmeProfile::Server7] {
        let run = run(Config { profile, ..Config::default() }, &template(None));
        assert_eq!((run.exit, run.format), (SUCCESS, ImageFormat::Multiboot2), "{}", run.serial);
    }
    let off = Setup { tme: Some(TmeSetting::Off), ..Setup::default() };
    for (profile, setup, why) in [
        (TmeProfile::None, Setup::default(), "the processor has no TME"),
        (TmeProfile::TmeOnly, Setup::default(), "the processor has no PCONFIG"),
        (TmeProfile::Default, off, "firmware did not enable TME"),
    ] {
        let run = run(Config { profile, setup, ..Config::default() }, &template(None));
        assert_eq!(run.exit, Exit::DebugExit(2), "{}", run.serial);
        assert!(run.serial.contains(why), "{}", run.serial);
    }
}

/// The text of docs/test-kernel.md between the line `marker` and the end of its block.
fn documented(marker: &str) -> String {
    let page = include_str!("../docs/test-kernel.md");
    let start = page.find(marker).expect("the page has the marker") + marker.len();
    let block = page[start..].split("```\n").nth(1).expect("a block follows");
    block.to_owned()
}

#[test]
fn the_page_on_test_kernels_shows_what_the_template_prints() {
    let images = Images { cmdline: "", ..template(Some(Protocol::Multiboot2)) };
    assert_eq!(documented("<!-- what the template prints -->\n"), run(Config::default(), &images).serial);
}

fn assemble(bits: u32, address: u64, code: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> Vec<u8> {
    let mut a = CodeAssembler::new(bits).expect("a bitness");
    code(&mut a).expect("the instructions exist");
    a.assemble(address).expect("the code assembles")
}

/// Prints the string that DS:(E)SI points to, then ends with 10H.
fn print_and_end(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let (mut next, mut end) = (a.create_label(), a.create_label());
    a.set_label(&mut next)?;
    a.lodsb()?;
    a.test(al, al)?;
    a.jz(end)?;
    a.mov(dx, COM1)?;
    a.out(dx, al)?;
    a.jmp(next)?;
    a.set_label(&mut end)?;
    a.mov(dx, DEBUG_EXIT)?;
    a.mov(eax, 0x10)?;
    a.out(dx, eax)
}

#[test]
fn a_boot_sector_runs_in_real_mode_at_7c00() {
    const TEXT: i32 = 0x7C00 + 510 - 16;
    let mut sector = assemble(16, 0x7C00, |a| {
        a.cld()?;
        a.mov(si, TEXT)?;
        print_and_end(a)
    });
    sector.resize(510 - 16, 0);
    sector.extend(b"a boot sector\n\0\0\x55\xAA");
    let protocol = Some(Protocol::Flat(Flat { address: 0x7C00, mode: Mode::Real16 }));
    let run = run(Config::default(), &Images { kernel: &sector, protocol, ..Images::default() });
    assert_eq!((run.serial.as_str(), run.exit), ("a boot sector\n", SUCCESS));
}

fn real_mode(code: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> Run {
    let sector = assemble(16, 0x7C00, code);
    let protocol = Some(Protocol::Flat(Flat { address: 0x7C00, mode: Mode::Real16 }));
    run(Config::default(), &Images { kernel: &sector, protocol, ..Images::default() })
}

#[test]
fn bios_services_say_that_they_do_not_exist_and_teletype_output_goes_to_com1() {
    let run = real_mode(|a| {
        let mut wrong = a.create_label();
        // Teletype output; then the memory map, with CF clear before.
        a.mov(ax, 0x0E00 + i32::from(b'A'))?;
        a.int(0x10)?;
        a.mov(eax, 0xE820)?;
        a.clc()?;
        a.int(0x15)?;
        a.jnc(wrong)?;
        a.cmp(ah, 0x86)?;
        a.jne(wrong)?;
        a.mov(dx, DEBUG_EXIT)?;
        a.mov(eax, 0x10)?;
        a.out(dx, eax)?;
        a.set_label(&mut wrong)?;
        a.hlt()
    });
    assert_eq!((run.serial.as_str(), run.exit), ("A", SUCCESS));
}

#[test]
fn an_exception_in_real_mode_that_nobody_handles_halts_the_machine() {
    assert_eq!(real_mode(|a| a.ud2()).exit, Exit::Halted { interrupts: false });
}

#[test]
fn flat_programs_find_their_command_line_in_the_zero_page() {
    /// Of the zero page.
    const CMD_LINE_PTR: i32 = 0x228;
    for (mode, bits) in [(Mode::Prot32, 32), (Mode::Long64, 64)] {
        for address in [0x4_0000, 0x30_0000] {
            let code = assemble(bits, address, |a| {
                match mode {
                    Mode::Long64 => a.mov(esi, dword_ptr(rsi + CMD_LINE_PTR))?,
                    _ => a.mov(esi, dword_ptr(esi + CMD_LINE_PTR))?,
                }
                print_and_end(a)
            });
            let protocol = Some(Protocol::Flat(Flat { address, mode }));
            let run = run(Config::default(), &Images { kernel: &code, cmdline: "flat", protocol, ..Images::default() });
            assert_eq!((run.serial.as_str(), run.exit), ("flat", SUCCESS), "{mode:?} at {address:X}");
        }
    }
}

/// Prints the second module's string, then the module itself (which ends with a NUL). Entered at 1 MiB + 32.
fn module_reader() -> Vec<u8> {
    const BASE: u32 = 0x10_0000;
    const ENTRY: u32 = BASE + 32;
    let code = assemble(32, ENTRY.into(), |a| {
        let (mut text, mut end) = (a.create_label(), a.create_label());
        a.mov(ebx, dword_ptr(ebx + 24))?;
        a.mov(esi, dword_ptr(ebx + 16 + 8))?;
        a.mov(edx, COM1)?;
        a.set_label(&mut text)?;
        a.lodsb()?;
        a.test(al, al)?;
        a.jz(end)?;
        a.out(dx, al)?;
        a.jmp(text)?;
        a.set_label(&mut end)?;
        a.mov(al, i32::from(b':'))?;
        a.out(dx, al)?;
        a.mov(esi, dword_ptr(ebx + 16))?;
        print_and_end(a)
    });
    let (magic, flags) = (0x1BAD_B002u32, 0x1_0003u32);
    let header = [magic, flags, 0u32.wrapping_sub(magic + flags), BASE, BASE, 0, 0, ENTRY];
    let mut kernel: Vec<u8> = header.iter().flat_map(|word| word.to_le_bytes()).collect();
    kernel.extend(code);
    kernel
}

#[test]
fn a_multiboot_kernel_reads_its_modules() {
    let kernel = module_reader();
    let modules = vec![
        Module { name: "one", arguments: "", data: &[0xFF; 9000] },
        Module { name: "two", arguments: "x y", data: b"contents\0" },
    ];
    let run = run(Config::default(), &Images { kernel: &kernel, modules, ..Images::default() });
    assert_eq!((run.serial.as_str(), run.exit), ("two x y:contents", SUCCESS));
}

#[test]
fn modules_and_protocols_are_chosen_on_the_command_line() {
    let scratch = Scratch::new();
    let kernel = scratch.file("kernel", module_reader());
    let one = scratch.file("one", [0xFF; 9000]);
    let two = scratch.file("two", b"contents\0");
    let run = emu(["-quiet-bios", "--no-summary", "-kernel", &kernel, "-initrd", &format!("{one},{two} x,,y z")]);
    assert_eq!((run.status, run.stdout.as_str()), (0, format!("{two} x,y z:contents\n").as_str()), "{}", run.stderr);

    let template = scratch.file("template", guests::TEMPLATE);
    for (protocol, name) in
        [("auto", "Multiboot 2"), ("multiboot", "Multiboot 1"), ("multiboot2", "Multiboot 2"), ("pvh", "PVH")]
    {
        let run = emu(["-quiet-bios", "--no-summary", "-kernel", &template, "--protocol", protocol]);
        assert!(run.stdout.starts_with(&format!("template: loaded by {name}")), "{}", run.stdout);
        assert_eq!((run.status, run.stderr.as_str()), (0, ""));
    }
}
