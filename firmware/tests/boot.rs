//! Loading: what reaches memory, what state the processor starts in, and what is refused.

mod common;

use common::{GIB, MIB, MockCpu};
use common::{Ph, elf, machine, put};
use firmware::entry::layout;
use firmware::{BootInfo, ImageFormat, Images, LoadError, Mode, Module, boot};

const NO_ARGUMENTS: &str = "";

fn load(ram: u64, kernel: &[u8], initrd: Option<&[u8]>, cmdline: &str) -> (MockCpu, Result<BootInfo, LoadError>) {
    let (mut cpu, mut bios) = machine(ram);
    let info = boot(&mut cpu, &mut bios, &images(kernel, initrd, cmdline));
    (cpu, info)
}

fn images<'a>(kernel: &'a [u8], initrd: Option<&'a [u8]>, cmdline: &'a str) -> Images<'a> {
    let modules = initrd.map(|data| Module { name: "initrd", arguments: "", data }).into_iter().collect();
    Images { kernel, modules, cmdline, ..Images::default() }
}

/// One sector of setup code and 8 KiB of protected-mode code, header as Linux 6.1 has it.
fn bzimage() -> Vec<u8> {
    let mut file = vec![0; 1024];
    file.extend((0..8192u32).map(|n| n as u8));
    file[0x1F1] = 1;
    put(&mut file, 0x1F4, &512u32.to_le_bytes());
    put(&mut file, 0x1FE, &[0x55, 0xAA, 0xEB, 0x6A]);
    put(&mut file, 0x202, b"HdrS");
    put(&mut file, 0x206, &0x020Fu16.to_le_bytes());
    put(&mut file, 0x20E, &0x100u16.to_le_bytes());
    put(&mut file, 0x300, b"6.1.0-test (builder) #1\0");
    file[0x211] = 0x81;
    put(&mut file, 0x22C, &0x7FFF_FFFFu32.to_le_bytes());
    put(&mut file, 0x230, &0x20_0000u32.to_le_bytes());
    put(&mut file, 0x236, &0x3Fu16.to_le_bytes());
    put(&mut file, 0x238, &2047u32.to_le_bytes());
    put(&mut file, 0x258, &0x100_0000u64.to_le_bytes());
    put(&mut file, 0x260, &(40 * MIB as u32).to_le_bytes());
    file
}

#[test]
fn bzimage_is_loaded_at_its_preferred_address_and_entered_in_64_bit_mode() {
    let kernel = bzimage();
    let initrd = vec![0x5A; 10_000];
    let (cpu, info) = load(512 * MIB, &kernel, Some(&initrd), "console=ttyS0");
    let info = info.unwrap();
    assert_eq!(info.format, ImageFormat::BzImage);
    assert_eq!(info.version.as_deref(), Some("6.1.0-test"));
    assert_eq!(info.kernel, 0x100_0000..0x100_0000 + 40 * MIB);
    assert_eq!(cpu.bytes(0x100_0000, 8192), kernel[1024..]);

    let range = info.modules[0].clone();
    assert_eq!(range, 0x1FFE_D000..0x1FFE_D000 + 10_000);
    assert_eq!(cpu.bytes(range.start, 10_000), initrd);

    let state = cpu.entered.as_ref().unwrap();
    assert_eq!(state.rip, 0x100_0200);
    assert_eq!(state.gpr[6], layout::ZERO_PAGE);
    assert_eq!(state.rflags, 2);
    assert_eq!((state.cr0 & 0x8000_0001, state.cr4 & 0x20, state.efer), (0x8000_0001, 0x20, 0x500));
    assert_eq!((state.segments[1].selector, state.segments[1].ar), (0x10, 0xA09B));
    assert_eq!((state.segments[3].selector, state.segments[3].ar), (0x18, 0xC093));
    assert_eq!(cpu.u64_at(state.gdtr.base + 0x10), 0x00AF_9B00_0000_FFFF);
}

#[test]
fn bzimage_without_a_64_bit_entry_is_entered_at_its_start_in_protected_mode() {
    let mut kernel = bzimage();
    put(&mut kernel, 0x236, &[0, 0]);
    let (cpu, info) = load(64 * MIB, &kernel, None, "");
    assert_eq!(info.unwrap().mode, Mode::Prot32);
    let state = cpu.entered.as_ref().unwrap();
    assert_eq!((state.rip, state.gpr[6]), (0x100_0000, layout::ZERO_PAGE));
    assert_eq!((state.cr0, state.efer), (0x11, 0));
    // __BOOT_CS and __BOOT_DS.
    assert_eq!((state.segments[1].selector, state.segments[1].ar), (0x10, 0xC09B));
    assert_eq!((state.segments[3].selector, state.segments[3].ar), (0x18, 0xC093));
}

#[test]
fn bzimage_may_end_within_its_last_paragraph_but_not_before_it() {
    let kernel = bzimage();
    let (cpu, info) = load(64 * MIB, &kernel[..kernel.len() - 15], None, "");
    info.unwrap();
    assert_eq!(cpu.bytes(0x100_0000, 8177), kernel[1024..kernel.len() - 15]);
    let error = load(64 * MIB, &kernel[..kernel.len() - 16], None, "").1.unwrap_err();
    assert!(matches!(error, LoadError::Truncated { .. }), "{error}");
}

#[test]
fn linux_takes_one_initrd_without_arguments() {
    let kernel = bzimage();
    let (mut cpu, mut bios) = machine(64 * MIB);
    let module = Module { name: "a", arguments: "", data: &[1] };
    let mut images = Images { kernel: &kernel, modules: vec![module; 2], ..Images::default() };
    let message = boot(&mut cpu, &mut bios, &images).unwrap_err().to_string();
    assert_eq!(message, "-initrd: 2 files; accepted: one for this kind of kernel");
    images.modules = vec![Module { arguments: "b c", ..module }];
    let message = boot(&mut cpu, &mut bios, &images).unwrap_err().to_string();
    assert!(message.starts_with("-initrd: \"b c\" after the file name; accepted:"), "{message}");
}

#[test]
fn zero_page_has_the_header_and_what_the_loader_fills_in() {
    let kernel = bzimage();
    let (cpu, info) = load(512 * MIB, &kernel, Some(&[1; 5000]), "quiet");
    let page = info.unwrap().info;
    assert_eq!(cpu.bytes(page + 0x202, 4), b"HdrS");
    assert_eq!(cpu.bytes(page + 0x210, 2), [0xFF, 0x01]);
    assert_eq!(cpu.u32_at(page + 0x214), 0x100_0000);
    assert_eq!(cpu.u32_at(page + 0x218), 0x1FFE_E000);
    assert_eq!(cpu.u32_at(page + 0x21C), 5000);
    assert_eq!(cpu.u32_at(page + 0x228), 0x2_0000);
    assert_eq!(cpu.bytes(0x2_0000, 6), b"quiet\0");
    assert_eq!(cpu.u64_at(page + 0x70), 0xE_0000);
    assert_eq!(cpu.bytes(0xE_0000, 8), b"RSD PTR ");
    // The sentinel: a loader that does not clear the page around the header is found out by it.
    assert_eq!(cpu.bytes(page + 0x1EF, 1), [0]);

    let entries = cpu.bytes(page + 0x1E8, 1)[0];
    assert_eq!(entries, 8);
    let entry = |n: u64| {
        let at = page + 0x2D0 + 20 * n;
        (cpu.u64_at(at), cpu.u64_at(at + 8), cpu.u32_at(at + 16))
    };
    assert_eq!(entry(0), (0, 0x9_FC00, 1));
    assert_eq!(entry(3), (MIB, 0x1FEF_0000, 1));
    assert_eq!(entry(4), (0x1FFF_0000, 0xF000, 3));
    assert_eq!(entry(5), (0x1FFF_F000, 0x1000, 4));
}

#[test]
fn page_tables_map_the_first_four_gibibytes_to_themselves() {
    let (cpu, info) = load(64 * MIB, &bzimage(), None, NO_ARGUMENTS);
    info.unwrap();
    let root = cpu.entered.as_ref().unwrap().cr3;
    for address in [0, 0x100_0200, 0xBFFF_FFFF, 0xFEE0_0000, 4 * GIB - 1] {
        let pml4e = cpu.u64_at(root + (address >> 39 & 511) * 8);
        let pdpte = cpu.u64_at((pml4e & !0xFFF) + (address >> 30 & 511) * 8);
        let pde = cpu.u64_at((pdpte & !0xFFF) + (address >> 21 & 511) * 8);
        assert_eq!((pml4e & 0xFFF, pdpte & 0xFFF, pde & 0xFFF), (3, 3, 0x83));
        assert_eq!(pde & !0xFFF | address & 0x1F_FFFF, address);
    }
    assert_eq!(cpu.u64_at((cpu.u64_at(root) & !0xFFF) + 4 * 8), 0);
}

#[test]
fn elf_segments_go_to_physical_addresses_and_bss_is_zeroed() {
    let headers = [
        Ph { vaddr: 0xFFFF_FFFF_8100_0000, paddr: 0x100_0000, data: b"text", memsz: 4 },
        Ph { vaddr: 0xFFFF_FFFF_8100_2000, paddr: 0x100_2000, data: b"data", memsz: 0x1800 },
    ];
    let (cpu, info) = load(64 * MIB, &elf(0x100_0002, &headers), None, NO_ARGUMENTS);
    assert_eq!(info.unwrap().format, ImageFormat::Elf64);
    assert_eq!(cpu.bytes(0x100_0000, 5), b"text\xA5");
    assert_eq!(cpu.bytes(0x100_2000, 4), b"data");
    assert!(cpu.bytes(0x100_2004, 0x17FC).iter().all(|&b| b == 0));
    assert_eq!(cpu.bytes(0x100_3800, 1), b"\xA5");
    assert_eq!(cpu.entered.as_ref().unwrap().rip, 0x100_0002);
    assert_eq!(cpu.bytes(layout::ZERO_PAGE + 0x202, 4), b"HdrS");

    // A virtual entry point is translated by the segment that holds it.
    let (cpu, info) = load(64 * MIB, &elf(0xFFFF_FFFF_8100_0003, &headers), None, NO_ARGUMENTS);
    info.unwrap();
    assert_eq!(cpu.entered.as_ref().unwrap().rip, 0x100_0003);
}

#[test]
fn initrd_goes_below_the_kernel_when_there_is_no_room_above() {
    let mut kernel = bzimage();
    put(&mut kernel, 0x260, &(47 * MIB as u32).to_le_bytes());
    let initrd = vec![1; 10 * MIB as usize];
    let (_, info) = load(64 * MIB, &kernel, Some(&initrd), NO_ARGUMENTS);
    assert_eq!(info.unwrap().modules.first(), Some(&(6 * MIB..16 * MIB)));
}

#[test]
fn initrd_stays_below_initrd_addr_max() {
    let mut kernel = bzimage();
    put(&mut kernel, 0x22C, &0x0FFF_FFFFu32.to_le_bytes());
    let (_, info) = load(512 * MIB, &kernel, Some(&[1; 4096]), NO_ARGUMENTS);
    assert_eq!(info.unwrap().modules.first(), Some(&(0x0FFF_F000..0x1000_0000)));
}

#[test]
fn what_does_not_fit_is_refused_with_what_would() {
    let kernel = bzimage();
    let message = |ram, kernel: &[u8], initrd: Option<&[u8]>, cmdline: &str| {
        let (cpu, info) = load(ram, kernel, initrd, cmdline);
        assert!(cpu.entered.is_none());
        info.unwrap_err().to_string()
    };
    let mut large = kernel.clone();
    put(&mut large, 0x260, &(100 * MIB as u32).to_le_bytes());
    assert!(message(64 * MIB, &large, None, "").contains("at least 117 MiB"));
    put(&mut large, 0x260, &u32::MAX.to_le_bytes());
    assert!(message(64 * MIB, &large, None, "").contains("outside the memory for images"));
    let mut low = kernel.clone();
    put(&mut low, 0x258, &0u64.to_le_bytes());
    assert!(message(64 * MIB, &low, None, "").contains("100000H"));
    put(&mut low, 0x258, &u64::MAX.to_le_bytes());
    assert!(message(64 * MIB, &low, None, "").contains("init_size"));

    let initrd = vec![1; 20 * MIB as usize];
    assert!(message(64 * MIB, &kernel, Some(&initrd), "").contains("at most 15728640 bytes, or -m of at least 77 MiB"));
    assert!(message(64 * MIB, &kernel, Some(&[]), "").contains("-initrd: the file is empty"));
    assert!(message(64 * MIB, &kernel, None, &"x".repeat(2048)).contains("at most 2047"));
    assert!(message(64 * MIB, &kernel, None, "a\0b").contains("NUL"));
    assert!(load(64 * MIB, &kernel, None, &"x".repeat(2047)).1.is_ok());
}

#[test]
fn files_that_are_no_kernels_are_told_apart() {
    let error = |file: &[u8]| load(64 * MIB, file, None, NO_ARGUMENTS).1.unwrap_err();
    assert_eq!(error(&[]), LoadError::EmptyKernel);
    assert_eq!(error(b"#!/bin/sh\n"), LoadError::UnknownFormat);
    assert_eq!(error(&[0; 4096]), LoadError::UnknownFormat);

    let patched = |at: usize, bytes: &[u8]| {
        let mut file = bzimage();
        put(&mut file, at, bytes);
        file
    };
    assert_eq!(error(&patched(0x206, &[0x0B, 2])), LoadError::OldProtocol { major: 2, minor: 0x0B });
    assert_eq!(error(&patched(0x201, &[0x10])), LoadError::BadSetupHeader { field: "header length" });
    assert_eq!(error(&patched(0x1F4, &[1, 0])), LoadError::BadSetupHeader { field: "syssize" });

    let program = [Ph { vaddr: MIB, paddr: MIB, data: b"code", memsz: 4 }];
    let patched = |at: usize, bytes: &[u8]| {
        let mut file = elf(MIB, &program);
        put(&mut file, at, bytes);
        file
    };
    assert_eq!(error(&patched(4, &[1])), LoadError::Elf32);
    assert_eq!(error(&patched(5, &[2])), LoadError::BadElf { what: "data encoding" });
    assert_eq!(error(&patched(18, &[183])), LoadError::ElfMachine { machine: 183, accepted: "x86-64 (machine 62)" });
    assert_eq!(error(&patched(16, &[3])), LoadError::ElfType { kind: 3 });
    assert!(matches!(error(&patched(24, &[0; 8])), LoadError::BadElf { .. }));
    assert!(matches!(error(&elf(MIB, &[])), LoadError::BadElf { .. }));
    let segment = |paddr| Ph { vaddr: paddr, paddr, data: b"", memsz: 0x2000 };
    assert!(matches!(error(&elf(MIB, &[segment(MIB), segment(MIB + 0x1000)])), LoadError::BadElf { .. }));
}

#[test]
fn every_truncation_is_an_error_and_never_a_panic() {
    let program = [Ph { vaddr: MIB, paddr: MIB, data: b"code", memsz: 64 }];
    for file in [bzimage(), elf(MIB, &program)] {
        let (mut cpu, mut bios) = machine(64 * MIB);
        let step = if file.len() > 4096 { 37 } else { 1 };
        // The last paragraph of a bzImage may be incomplete.
        let end = if file.len() > 4096 { file.len() - 15 } else { file.len() };
        for length in (0..end).step_by(step) {
            let images = images(&file[..length], None, "");
            boot(&mut cpu, &mut bios, &images).unwrap_err();
        }
        boot(&mut cpu, &mut bios, &images(&file, None, "")).unwrap();
    }
}

#[test]
fn damaged_headers_never_panic() {
    let program = [Ph { vaddr: MIB, paddr: MIB, data: b"code", memsz: 64 }];
    let (mut cpu, mut bios) = machine(64 * MIB);
    for (file, range) in [(bzimage(), 0x1F1..0x268), (elf(MIB, &program), 0..120)] {
        for at in range {
            for value in [0x00, 0x01, 0x7F, 0x80, 0xFF] {
                let mut file = file.clone();
                file[at] = value;
                let images = images(&file, Some(&[7; 100]), "a");
                // Either outcome is fine; the mock's memory panics on a store outside RAM.
                let _ = boot(&mut cpu, &mut bios, &images);
            }
        }
    }
}
