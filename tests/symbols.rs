//! Names of addresses in Debian's running kernel, which comes without a symbol file: Debian's System.map is a stub.

mod common;

use common::linux::kit;
use firmware::Images;
use machine::{Config, Exit, Machine};
use std::fs;
use symbols::{SymbolFile, Symbols};
use x86::platform::VirtualTime;

/// A kernel that has not set up its entry points by then never will.
const INSTRUCTIONS_MAX: u64 = 5_000_000_000;
/// Steps in which that is waited for; the same once more, for what the kernel does next to it.
const STEP: u64 = 20_000_000;

fn booted(kernel: &[u8], append: &str) -> Machine {
    let config = Config { seed: 7, ..Config::default() };
    let mut machine = Machine::new(config).expect("the machine is possible");
    let mut bios = machine.power_on().expect("the BIOS succeeds");
    let cmdline = format!("console=ttyS0 cryptomgr.notests {append}");
    let images = Images { kernel, kernel_name: "vmlinuz", modules: Vec::new(), cmdline: &cmdline, protocol: None };
    machine.boot(&mut bios, &images).expect("the kernel is one");
    let step = |machine: &mut Machine| {
        let until = machine.cpu.icount() + STEP;
        assert_eq!(machine.run_until(until, VirtualTime(u64::MAX)), Exit::Icount);
    };
    while machine.cpu.msr.lstar == 0 && machine.cpu.icount() < INSTRUCTIONS_MAX {
        step(&mut machine);
    }
    step(&mut machine);
    machine
}

/// The handler of an interrupt vector.
fn vector(machine: &mut Machine, vector: u64) -> u64 {
    let mut gate = [0; 16];
    let idt = machine.cpu.idtr.base;
    assert_eq!(machine.peek(idt + 16 * vector, &mut gate), 16);
    let gate = u128::from_le_bytes(gate);
    (gate & 0xFFFF | gate >> 32 & 0xFFFF_FFFF_FFFF_0000) as u64
}

#[test]
fn the_kernels_functions_have_names_without_a_symbol_file() {
    let Some(kit) = kit() else { return };
    let kernel = fs::read(kit.kernel()).expect("the kit has a kernel");
    for append in ["", "nokaslr"] {
        let mut machine = booted(&kernel, append);
        let before = machine.state_hash();
        let mut symbols = Symbols::new(None, &kernel);
        let mut name = |machine: &mut Machine, address| symbols.resolve(machine, address, 0).to_string();
        let entry = machine.cpu.msr.lstar;
        assert!(name(&mut machine, entry).starts_with("entry_SYSCALL_64+0x0/0x"), "{entry:x}");
        assert_eq!(entry & 0xFFFF_FFFF_FF00_0000 == 0xFFFF_FFFF_8100_0000, append == "nokaslr");
        for (number, handler) in [(0, "asm_exc_divide_error"), (6, "asm_exc_invalid_op"), (14, "asm_exc_page_fault")] {
            let address = vector(&mut machine, number);
            assert!(name(&mut machine, address + 1).starts_with(&format!("{handler}+0x1/0x")), "{number}");
        }
        // Neither in the kernel nor in a module, and a user's.
        assert_eq!(name(&mut machine, 0xFFFF_FFFF_F000_0000), "0xfffffffff0000000");
        assert_eq!(name(&mut machine, 0x40_0000), "0x0000000000400000");
        assert_eq!(machine.state_hash(), before);
        assert!(symbols.take_notes().is_empty());
    }
}

#[test]
fn a_symbol_file_of_another_kernel_is_told_and_not_used() {
    let Some(kit) = kit() else { return };
    let kernel = fs::read(kit.kernel()).expect("the kit has a kernel");
    let mut machine = booted(&kernel, "");
    let entry = machine.cpu.msr.lstar;
    let slid = |map: &str| Some(("--symbols map".to_owned(), SymbolFile::parse(map.as_bytes()).expect("a map")));

    for (map, why) in [
        ("ffffffff81000000 T _text\nffffffff81000123 T entry_SYSCALL_64\n".to_owned(), "IA32_LSTAR is not where"),
        (format!("{entry:x} T entry_SYSCALL_64\n1 T _text\n2 T asm_exc_page_fault\n"), "interrupt vector 14"),
        (format!("{entry:x} T entry_SYSCALL_64\n1 T _text\n{entry:x} T linux_banner\n"), "no banner"),
        (format!("{entry:x} T entry_SYSCALL_64\n1 T _text\n"), "no linux_banner in it"),
    ] {
        let mut symbols = Symbols::new(slid(&map), &kernel);
        assert!(symbols.resolve(&mut machine, entry, 0).to_string().starts_with("entry_SYSCALL_64+0x0/0x"), "{map}");
        let notes = symbols.take_notes();
        assert!(notes.len() == 1 && notes[0].starts_with("--symbols map: ") && notes[0].contains(why), "{notes:?}");
        symbols.resolve(&mut machine, entry, 0);
        assert!(symbols.take_notes().is_empty());
    }
}

#[test]
fn a_symbol_file_that_fits_is_moved_to_where_the_kernel_is() {
    let Some(kit) = kit() else { return };
    let kernel = fs::read(kit.kernel()).expect("the kit has a kernel");
    let mut machine = booted(&kernel, "");
    let entry = machine.cpu.msr.lstar;
    let page_fault = vector(&mut machine, 14);
    // What the file would say: the kernel's own addresses, 32 MiB lower.
    let mut own = Symbols::new(None, &kernel);
    own.resolve(&mut machine, entry, 0);
    let banner = own.address("linux_banner").expect("every kernel has one");
    let linked = |address: u64| address - (32 << 20);
    let map = format!(
        "{:x} T _text\n{:x} T entry_SYSCALL_64\n{:x} T asm_exc_page_fault\n{:x} D linux_banner\n{:x} t of_the_file\n",
        linked(entry) & !0xFFF_FFFF,
        linked(entry),
        linked(page_fault),
        linked(banner),
        linked(entry) + 0x10,
    );
    let file = SymbolFile::parse(map.as_bytes()).expect("a map");
    let mut symbols = Symbols::new(Some(("--symbols map".into(), file)), &kernel);
    assert!(symbols.resolve(&mut machine, entry + 0x15, 0).to_string().starts_with("of_the_file+0x5"));
    assert!(symbols.take_notes().is_empty());
}
