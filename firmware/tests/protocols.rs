//! Multiboot 1 and 2, PVH and flat images: what is found, what reaches memory, what state the processor starts in.

mod common;

use common::{MIB, MockCpu, Ph, elf, machine, put};
use firmware::entry::layout;
use firmware::{BootInfo, EntryState, Flat, ImageFormat, Images, LoadError, Mode, Module, Protocol, boot};

const BASE: u64 = 0x10_0000;
const MODULES: [Module; 2] = [
    Module { name: "a.img", arguments: "first one", data: &[1; 5000] },
    Module { name: "b.img", arguments: "", data: &[2; 3] },
];

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|w| w.to_le_bytes()).collect()
}

/// A Multiboot 1 header with `rest` behind its checksum.
fn mb1(flags: u32, rest: &[u32]) -> Vec<u8> {
    let magic = 0x1BAD_B002u32;
    words(&[&[magic, flags, 0u32.wrapping_sub(magic).wrapping_sub(flags)], rest].concat())
}

/// A Multiboot 2 header with these tags; the end tag is added.
fn mb2(tags: &[(u16, u16, &[u32])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (kind, flags, contents) in tags.iter().chain(&[(0, 0, &[] as &[u32])]) {
        body.extend(kind.to_le_bytes());
        body.extend(flags.to_le_bytes());
        body.extend((8 + 4 * contents.len() as u32).to_le_bytes());
        body.extend(words(contents));
        body.resize(body.len().next_multiple_of(8), 0);
    }
    let (magic, length) = (0xE852_50D6u32, 16 + body.len() as u32);
    [words(&[magic, 0, length, 0u32.wrapping_sub(magic).wrapping_sub(length)]), body].concat()
}

/// An ELF64 file whose only segment is `data` at 1 MiB with 4 KiB of `.bss`; the header is thus in the file at 120.
fn elf64(data: Vec<u8>) -> Vec<u8> {
    let memsz = data.len() as u64 + 0x1000;
    elf(BASE, &[Ph { vaddr: BASE, paddr: BASE, data: data.leak(), memsz }])
}

/// The same as ELF32 for the 80386, linked to a virtual address.
fn elf32(data: &[u8]) -> Vec<u8> {
    let mut file = vec![0; 52];
    put(&mut file, 0, &[0x7F, b'E', b'L', b'F', 1, 1, 1]);
    put(&mut file, 16, &words(&[0x0003_0002, 1, 0xC010_0000, 52, 0, 0, 0x0020_0034, 1]));
    let size = data.len() as u32;
    file.extend(words(&[1, 84, 0xC010_0000, BASE as u32, size, size + 0x1000, 7, 0x1000]));
    file.extend(data);
    file
}

/// An ELF64 file with a PVH note.
fn pvh(desc: &[u8]) -> Vec<u8> {
    let mut file = elf(
        BASE,
        &[Ph { vaddr: BASE, paddr: BASE, data: b"code", memsz: 64 }, Ph { vaddr: 0, paddr: 0, data: b"", memsz: 0 }],
    );
    let note = [words(&[4, desc.len() as u32, 18]), b"Xen\0".to_vec(), desc.to_vec()].concat();
    let at = 64 + 56;
    put(&mut file, at, &4u32.to_le_bytes());
    let offset = file.len() as u64;
    put(&mut file, at + 8, &offset.to_le_bytes());
    put(&mut file, at + 32, &(note.len() as u64).to_le_bytes());
    put(&mut file, at + 48, &4u64.to_le_bytes());
    file.extend(note);
    file
}

fn load(images: &Images) -> (MockCpu, Result<BootInfo, LoadError>) {
    let (mut cpu, mut bios) = machine(64 * MIB);
    let info = boot(&mut cpu, &mut bios, images);
    assert_eq!(info.is_ok(), cpu.entered.is_some());
    (cpu, info)
}

fn load_with_modules(kernel: &[u8]) -> (MockCpu, BootInfo) {
    let images =
        Images { kernel, kernel_name: "dir/kernel", modules: MODULES.to_vec(), cmdline: "x=1 y", protocol: None };
    let (cpu, info) = load(&images);
    (cpu, info.unwrap())
}

fn refusal(kernel: &[u8]) -> String {
    load(&Images { kernel, ..Images::default() }).1.unwrap_err().to_string()
}

fn text(cpu: &MockCpu, address: u64) -> String {
    let bytes = cpu.bytes(address, 100);
    String::from_utf8(bytes.split(|&b| b == 0).next().unwrap().to_vec()).unwrap()
}

/// What Multiboot 1 section 3.2, Multiboot 2 section 3.3 and PVH demand of the machine state.
fn assert_protected_mode(state: &EntryState) {
    assert_eq!((state.cr0, state.cr3, state.cr4, state.efer), (0x11, 0, 0, 0));
    assert_eq!(state.rflags & 0x2_0200, 0, "VM and IF");
    for (n, segment) in state.segments.iter().enumerate() {
        let ar = if n == 1 { 0xC09B } else { 0xC093 };
        assert_eq!((segment.ar, segment.base, segment.limit), (ar, 0, u32::MAX));
    }
}

fn assert_modules_follow_the_kernel(cpu: &MockCpu, info: &BootInfo) {
    let first = info.kernel.end.next_multiple_of(4096);
    assert_eq!(info.modules, [first..first + 5000, first + 0x2000..first + 0x2003]);
    assert_eq!(cpu.bytes(first, 5000), [1; 5000]);
    assert_eq!(cpu.bytes(first + 0x2000, 3), [2; 3]);
}

fn check_multiboot1(file: &[u8], entry: u64) {
    let (cpu, info) = load_with_modules(file);
    assert_eq!((info.format, info.entry, info.mode), (ImageFormat::Multiboot1, entry, Mode::Prot32));
    assert_modules_follow_the_kernel(&cpu, &info);
    let state = cpu.entered.as_ref().unwrap();
    assert_protected_mode(state);
    assert_eq!((state.rip, state.gpr[0], state.gpr[3]), (entry, 0x2BAD_B002, info.info));

    let word = |at: u64| cpu.u32_at(info.info + at);
    assert_eq!(word(0), 0x24D, "memory, command line, modules, memory map, loader name");
    assert_eq!((word(4), word(8)), (639, (64 << 10) - 1024 - 64));
    assert_eq!(text(&cpu, word(16).into()), "dir/kernel x=1 y");
    assert!(text(&cpu, word(64).into()).starts_with("mktme-emu "));

    assert_eq!(word(20), 2);
    let mods: Vec<u32> = (0..8).map(|n| cpu.u32_at(u64::from(word(24)) + 4 * n)).collect();
    assert_eq!(mods[..2], [info.modules[0].start as u32, info.modules[0].end as u32]);
    assert_eq!(mods[4..6], [info.modules[1].start as u32, info.modules[1].end as u32]);
    assert_eq!(text(&cpu, mods[2].into()), "a.img first one");
    assert_eq!(text(&cpu, mods[6].into()), "b.img");

    let (length, map) = (u64::from(word(44)), u64::from(word(48)));
    assert_eq!(length, 8 * 24);
    assert_eq!(
        (cpu.u32_at(map), cpu.u64_at(map + 4), cpu.u64_at(map + 12), cpu.u32_at(map + 20)),
        (20, 0, 0x9_FC00, 1)
    );
    let fourth = map + 3 * 24;
    assert_eq!(
        (cpu.u64_at(fourth + 4), cpu.u64_at(fourth + 12), cpu.u32_at(fourth + 20)),
        (MIB, 63 * MIB - 0x1_0000, 1)
    );
}

#[test]
fn multiboot1_loads_elf64_elf32_and_address_fields_alike() {
    let data = [mb1(3, &[]), b"code".to_vec()].concat();
    check_multiboot1(&elf64(data.clone()), BASE);
    check_multiboot1(&elf32(&data), BASE);
    // header_addr, load_addr, load_end_addr, bss_end_addr, entry_addr; the header is 8 bytes into the file.
    let base = BASE as u32;
    let fields = [base + 8, base, base + 48, base + 0x2000, base + 44];
    let file =
        [vec![0; 8], mb1(0x1_0003, &fields), b"main".to_vec(), b"call".to_vec(), b"not loaded".to_vec()].concat();
    check_multiboot1(&file, BASE + 44);
    let (cpu, info) = load_with_modules(&file);
    assert_eq!(info.kernel, BASE..BASE + 0x2000);
    assert_eq!(cpu.bytes(BASE + 40, 9), b"maincall\0");
    assert!(cpu.bytes(BASE + 48, 0x2000 - 48).iter().all(|&b| b == 0));
}

#[test]
fn multiboot1_without_modules_or_bss_loads_to_the_end_of_the_file() {
    let base = BASE as u32;
    let file = [mb1(0x1_0000, &[base, base, 0, 0, base + 32]), b"main".to_vec()].concat();
    let (cpu, info) = load(&Images { kernel: &file, ..Images::default() });
    let info = info.unwrap();
    assert_eq!(info.kernel, BASE..BASE + 36);
    assert_eq!(cpu.bytes(BASE + 32, 5), b"main\xA5");
    let word = |at: u64| cpu.u32_at(info.info + at);
    assert_eq!((word(0), word(20), word(24)), (0x245, 0, 0));
    assert_eq!(text(&cpu, word(16).into()), "");
}

#[test]
fn multiboot1_headers_are_found_in_the_first_8_kib_at_multiples_of_4_only() {
    let at = |offset: usize| elf64([vec![0; offset], mb1(3, &[]), vec![0; 16]].concat());
    for offset in [0, 4, 8192 - 120 - 12] {
        let (_, info) = load(&Images { kernel: &at(offset), ..Images::default() });
        assert_eq!(info.unwrap().format, ImageFormat::Multiboot1, "{offset}");
    }
    for offset in [1, 2, 8192 - 120 - 8, 8192] {
        let (_, info) = load(&Images { kernel: &at(offset), ..Images::default() });
        assert_eq!(info.unwrap().format, ImageFormat::Elf64, "{offset}");
    }
    let mut file = at(0);
    file[120 + 8] ^= 1;
    assert_eq!(Protocol::detect(&file), Ok(Protocol::Linux), "wrong checksum");
}

#[test]
fn multiboot1_headers_that_lie_are_refused() {
    let base = BASE as u32;
    let fields = |fields: [u32; 5]| refusal(&[mb1(0x1_0003, &fields), b"main".to_vec()].concat());
    for (given, expected) in [
        ([base, base + 4, 0, 0, base], "load_addr 100004H above header_addr 100000H"),
        ([base + 4, base, 0, 0, base], "the header is at offset 0"),
        ([base, base, base - 1, 0, base], "load_end_addr FFFFFH below load_addr 100000H"),
        ([base, base, base + 37, 0, base], "36 bytes, but its headers describe 37"),
        ([base, base, u32::MAX, 0, base], "its headers describe"),
        ([base, base, 0, base + 35, base], "bss_end_addr 100023H below the end of the data 100024H"),
        ([base, base, 0, 0, base + 36], "entry address 100024H outside the image"),
        ([0x7C00, 0x7C00, 0, 0, 0x7C00], "outside the memory for images"),
        ([base, base, 0, u32::MAX, base], "outside the memory for images"),
        ([base, base, 0, 80 << 20, base], "-m: the kernel occupies"),
    ] {
        let message = fields(given);
        assert!(message.contains(expected) && message.contains("accepted:"), "{given:X?}: {message}");
    }
    assert!(refusal(&elf64(mb1(4, &[]))).contains("video mode"));
    assert!(refusal(&elf64(mb1(0x48, &[]))).contains("flags 48H ask for what this loader does not know"));
    assert!(refusal(&mb1(0, &[])).contains("no address fields, and the file is no ELF"));
    assert!(refusal(&mb1(0x1_0000, &[base, base])).contains("truncated Multiboot 1 header"));
}

/// (type, address of contents, length of contents) of the tags of Multiboot 2 information.
fn tags(cpu: &MockCpu, info: u64) -> Vec<(u32, u64, u64)> {
    let (end, mut at) = (info + u64::from(cpu.u32_at(info)), info + 8);
    assert_eq!(cpu.u32_at(info + 4), 0);
    let mut tags = Vec::new();
    while at < end {
        assert_eq!(at % 8, 0);
        let (kind, size) = (cpu.u32_at(at), u64::from(cpu.u32_at(at + 4)));
        tags.push((kind, at + 8, size - 8));
        at += size.next_multiple_of(8);
    }
    assert_eq!(tags.last().map(|t| (t.0, t.2)), Some((0, 0)));
    tags
}

fn check_multiboot2(file: &[u8], entry: u64, load_base: Option<u32>) {
    let (cpu, info) = load_with_modules(file);
    assert_eq!((info.format, info.entry, info.mode), (ImageFormat::Multiboot2, entry, Mode::Prot32));
    assert_modules_follow_the_kernel(&cpu, &info);
    let state = cpu.entered.as_ref().unwrap();
    assert_protected_mode(state);
    assert_eq!((state.rip, state.gpr[0], state.gpr[3]), (entry, 0x36D7_6289, info.info));

    let tags = tags(&cpu, info.info);
    let all = |kind: u32| tags.iter().filter(move |t| t.0 == kind).map(|t| (t.1, t.2)).collect::<Vec<_>>();
    assert_eq!(text(&cpu, all(1)[0].0), "dir/kernel x=1 y");
    assert!(text(&cpu, all(2)[0].0).starts_with("mktme-emu "));
    let modules = all(3);
    assert_eq!(modules.len(), 2);
    for ((at, _), (range, arguments)) in modules.iter().zip(info.modules.iter().zip(["a.img first one", "b.img"])) {
        assert_eq!((cpu.u32_at(*at), cpu.u32_at(at + 4)), (range.start as u32, range.end as u32));
        assert_eq!(text(&cpu, at + 8), arguments);
    }
    let meminfo = all(4)[0].0;
    assert_eq!((cpu.u32_at(meminfo), cpu.u32_at(meminfo + 4)), (639, (64 << 10) - 1024 - 64));
    let (map, length) = all(6)[0];
    assert_eq!((cpu.u32_at(map), cpu.u32_at(map + 4), length), (24, 0, 8 + 8 * 24));
    assert_eq!((cpu.u64_at(map + 8 + 72), cpu.u32_at(map + 8 + 72 + 16)), (MIB, 1));
    let (rsdp, length) = all(15)[0];
    assert_eq!(cpu.bytes(rsdp, length as usize), cpu.bytes(0xE_0000, 36));
    assert_eq!(all(21).first().map(|t| cpu.u32_at(t.0)), load_base);
}

#[test]
fn multiboot2_loads_elf64_elf32_and_address_tags_alike() {
    let base = BASE as u32;
    // Optional requests that cannot be honoured, required ones of known types, module alignment, EFI tags, relocatable.
    let header = mb2(&[
        (1, 0, &[1, 2, 3, 4, 6, 8, 15]),
        (1, 1, &[99]),
        (4, 0, &[2]),
        (5, 1, &[640, 480, 32]),
        (6, 0, &[]),
        (7, 0, &[]),
        (9, 0, &[1]),
        (10, 0, &[base, u32::MAX, 4096, 0]),
        (77, 1, &[1, 2, 3]),
    ]);
    check_multiboot2(&elf64(header.clone()), BASE, Some(base));
    // ELF32 headers end at 84, which is not a multiple of 8.
    check_multiboot2(&elf32(&[vec![0; 4], header].concat()), BASE, Some(base));
    // The entry address tag comes before the ELF's.
    check_multiboot2(&elf64(mb2(&[(3, 0, &[base + 16])])), BASE + 16, None);

    let tags = |load: u32| mb2(&[(2, 0, &[base + 8, load, 0, base + 0x1000]), (3, 0, &[base + 60])]);
    for load in [base, u32::MAX] {
        let file = [vec![0; 8], tags(load), vec![0x90; 8]].concat();
        check_multiboot2(&file, BASE + 60, None);
    }
}

#[test]
fn multiboot2_comes_before_multiboot1_and_multiboot1_before_pvh() {
    let both = elf64([mb2(&[]), mb1(3, &[])].concat());
    assert_eq!(Protocol::detect(&both), Ok(Protocol::Multiboot2));
    let (cpu, info) = load(&Images { kernel: &both, protocol: Some(Protocol::Multiboot1), ..Images::default() });
    assert_eq!(info.unwrap().format, ImageFormat::Multiboot1);
    assert_eq!(cpu.entered.unwrap().gpr[0], 0x2BAD_B002);

    let mut file = pvh(&(BASE as u32).to_le_bytes());
    assert_eq!(Protocol::detect(&file), Ok(Protocol::Pvh));
    file.resize(file.len().next_multiple_of(4), 0);
    file.extend(mb1(3, &[]));
    assert_eq!(Protocol::detect(&file), Ok(Protocol::Multiboot1));
}

#[test]
fn multiboot2_headers_that_lie_are_refused() {
    let base = BASE as u32;
    for (tags, expected) in [
        (&[(1, 0, &[22][..])][..], "requires information of type 22"),
        (&[(2, 0, &[base, base, 0])], "tag 2 of 20 bytes"),
        (&[(2, 0, &[base, base, 0, 0])], "no entry address tag"),
        (&[(3, 0, &[])], "tag 3 of 8 bytes"),
        (&[(3, 0, &[base - 1])], "entry address FFFFFH outside the image"),
        (&[(4, 0, &[3])], "requires a console"),
        (&[(5, 0, &[0, 0, 0])], "requires a frame buffer"),
        (&[(11, 0, &[])], "requires what tag 11 means"),
        (&[(2, 0, &[base, base + 1, 0, 0]), (3, 0, &[base])], "load_addr 100001H above header_addr 100000H"),
    ] {
        let message = refusal(&elf64(mb2(tags)));
        assert!(message.contains(expected) && message.contains("accepted:"), "{expected}: {message}");
    }
    let patched = |at: usize, value: u32| {
        let mut header = mb2(&[(6, 0, &[])]);
        put(&mut header, at, &value.to_le_bytes());
        let sum: u32 = [0, 4, 8]
            .iter()
            .map(|&n| u32::from_le_bytes(header[n..n + 4].try_into().unwrap()))
            .fold(0, u32::wrapping_add);
        put(&mut header, 12, &0u32.wrapping_sub(sum).to_le_bytes());
        refusal(&elf64(header))
    };
    assert!(patched(4, 4).contains("architecture 4"));
    assert!(patched(8, 8).contains("header_length 8"));
    assert!(patched(8, 0x10_0000).contains("truncated Multiboot 2 header"));
    assert!(patched(8, 24).contains("no end tag"));
    assert!(patched(20, 7).contains("tag 6 of 7 bytes"));
    assert!(patched(20, u32::MAX).contains("tag 6 of 4294967295 bytes"));
}

#[test]
fn pvh_gets_its_start_info_and_a_task_register() {
    for desc in [&(BASE as u32 + 2).to_le_bytes()[..], &(BASE + 2).to_le_bytes()] {
        let (cpu, info) = load_with_modules(&pvh(desc));
        assert_eq!((info.format, info.entry), (ImageFormat::Pvh, BASE + 2));
        assert_modules_follow_the_kernel(&cpu, &info);
        let state = cpu.entered.as_ref().unwrap();
        assert_protected_mode(state);
        assert_eq!((state.rip, state.gpr[3]), (BASE + 2, info.info));
        let tr = state.tr.unwrap();
        assert_eq!((tr.base, tr.limit, tr.ar), (0, 0x67, 0x8B));

        let at = info.info;
        assert_eq!(
            (cpu.u32_at(at), cpu.u32_at(at + 4), cpu.u32_at(at + 8), cpu.u32_at(at + 12)),
            (0x336E_C578, 1, 0, 2)
        );
        assert_eq!(text(&cpu, cpu.u64_at(at + 24)), "x=1 y");
        assert_eq!(cpu.u64_at(at + 32), 0xE_0000);
        let (list, map) = (cpu.u64_at(at + 16), cpu.u64_at(at + 40));
        assert_eq!((cpu.u64_at(list), cpu.u64_at(list + 8)), (info.modules[0].start, 5000));
        assert_eq!(text(&cpu, cpu.u64_at(list + 16)), "first one");
        assert_eq!(
            (cpu.u64_at(list + 32), cpu.u64_at(list + 40), cpu.u64_at(list + 48)),
            (info.modules[1].start, 3, 0)
        );
        assert_eq!(cpu.u32_at(at + 48), 8);
        assert_eq!((cpu.u64_at(map + 72), cpu.u64_at(map + 80), cpu.u32_at(map + 88)), (MIB, 63 * MIB - 0x1_0000, 1));
    }
}

#[test]
fn pvh_notes_that_lie_are_refused() {
    assert!(refusal(&pvh(&(1u64 << 32 | BASE).to_le_bytes())).contains("entry point beyond 4 GiB"));
    assert!(refusal(&pvh(&[0; 3])).contains("neither 4 nor 8 bytes long"));
    assert!(refusal(&pvh(&64u32.to_le_bytes())).contains("entry point outside every segment"));
    let mut file = pvh(&(BASE as u32).to_le_bytes());
    let note = file.len() - 20;
    put(&mut file, note, &0x1000u32.to_le_bytes());
    assert!(refusal(&file).contains("bad ELF note"));
}

fn flat(address: u64, mode: Mode) -> Option<Protocol> {
    Some(Protocol::Flat(Flat { address, mode }))
}

#[test]
fn a_boot_sector_starts_at_0_7c00_in_real_mode() {
    let (cpu, info) = load(&Images { kernel: b"\xEB\xFE", protocol: flat(0x7C00, Mode::Real16), ..Images::default() });
    let info = info.unwrap();
    assert_eq!((info.format, info.mode, info.kernel, info.info), (ImageFormat::Flat, Mode::Real16, 0x7C00..0x7C02, 0));
    assert_eq!(cpu.bytes(0x7C00, 2), b"\xEB\xFE");
    let state = cpu.entered.as_ref().unwrap();
    assert_eq!((state.rip, state.rflags, state.cr0, state.efer), (0x7C00, 2, 0x10, 0));
    for (n, segment) in state.segments.iter().enumerate() {
        let ar = if n == 1 { 0x9B } else { 0x93 };
        assert_eq!((segment.selector, segment.ar, segment.base, segment.limit), (0, ar, 0, 0xFFFF));
    }
    assert_eq!((state.gpr[2], state.gpr[4]), (0x80, 0x7C00), "DL, SP");
    assert_eq!((state.idtr.base, state.idtr.limit), (0, 0x3FF));
    // Exceptions lead to CLI; HLT, services to what sets CF.
    let handler = |vector: u64| {
        let pointer = u64::from(cpu.u32_at(4 * vector));
        cpu.bytes((pointer >> 16 << 4) + (pointer & 0xFFFF), 2)
    };
    assert_eq!(
        [handler(0), handler(0x0D), handler(0x13), handler(0xFF)],
        [[0xFA, 0xF4], [0xFA, 0xF4], [0x55, 0x89], [0x55, 0x89]]
    );
    assert_eq!((cpu.bytes(0x413, 2), cpu.bytes(0x400, 2)), (vec![0x7F, 2], vec![0xF8, 3]));

    let (cpu, info) = load(&Images { kernel: b"\xF4", protocol: flat(0x2_3456, Mode::Real16), ..Images::default() });
    info.unwrap();
    let state = cpu.entered.as_ref().unwrap();
    assert_eq!((state.segments[1].selector, state.segments[1].base, state.rip), (0x2345, 0x2_3450, 6));
}

#[test]
fn flat_images_for_the_other_modes_get_a_zero_page() {
    for (mode, cr0) in [(Mode::Prot32, 0x11), (Mode::Long64, 0x8001_0033)] {
        for address in [0x1000, 0x4_0000, MIB, 32 * MIB] {
            let modules = vec![Module { name: "initrd", arguments: "", data: &[7; 10] }];
            let images = Images {
                kernel: b"code",
                modules,
                cmdline: "quiet",
                protocol: flat(address, mode),
                ..Images::default()
            };
            let (cpu, info) = load(&images);
            assert_eq!(info.unwrap().modules.len(), 1);
            let state = cpu.entered.as_ref().unwrap();
            assert_eq!((state.rip, state.gpr[6], state.cr0), (address, layout::ZERO_PAGE, cr0));
            assert_eq!(cpu.bytes(address, 4), b"code");
            assert_eq!(text(&cpu, cpu.u32_at(layout::ZERO_PAGE + 0x228).into()), "quiet");
        }
    }
}

#[test]
fn flat_images_that_do_not_fit_are_refused() {
    let message = |address, mode, images: Images| {
        let kernel = b"code";
        load(&Images { kernel, protocol: flat(address, mode), ..images }).1.unwrap_err().to_string()
    };
    for (address, mode) in [
        (0x4FE, Mode::Real16),
        (0x9_FBFE, Mode::Real16),
        (MIB, Mode::Real16),
        (0x5FFE, Mode::Long64),
        (0x9000, Mode::Prot32),
        (64 * MIB, Mode::Long64),
        (u64::MAX, Mode::Long64),
    ] {
        let message = message(address, mode, Images::default());
        assert!(message.contains("--load-addr: the image would occupy") && message.contains("accepted:"), "{message}");
    }
    let images = Images { cmdline: "x", ..Images::default() };
    assert!(message(0x7C00, Mode::Real16, images).contains("takes no command line"));
    let images = Images { modules: MODULES.to_vec(), ..Images::default() };
    assert!(message(0x7C00, Mode::Real16, images).contains("-initrd: 2 files; accepted: none"));
}

#[test]
fn modules_and_texts_that_do_not_fit_are_refused() {
    let kernel = elf64(mb1(3, &[]));
    let message = |images: Images| load(&Images { kernel: &kernel, ..images }).1.unwrap_err().to_string();
    let big = vec![1; 33 << 20];
    let module = Module { name: "big", arguments: "", data: &big };
    let modules = |modules: Vec<Module<'static>>| Images { modules, ..Images::default() };
    let too_big = message(Images { modules: vec![module; 2], ..Images::default() });
    assert!(too_big.contains("accepted: at most") && too_big.contains("-m of at least 68 MiB"), "{too_big}");
    let empty = Module { name: "e", arguments: "", data: &[] };
    assert_eq!(message(modules(vec![empty])), "-initrd e: the file is empty; accepted: a module with contents");
    let nul = Module { name: "n", arguments: "a\0b", data: &[1] };
    assert!(message(modules(vec![nul])).contains("NUL"));
    let long = "x".repeat(600_000);
    assert!(message(Images { cmdline: &long, ..Images::default() }).contains("boot information of"));
    assert!(message(Images { cmdline: "a\0", ..Images::default() }).contains("NUL"));
}

#[test]
fn a_protocol_that_the_file_does_not_speak_is_refused() {
    let plain = elf64(b"code".to_vec());
    for (protocol, asked) in
        [(Protocol::Multiboot1, "multiboot"), (Protocol::Multiboot2, "multiboot2"), (Protocol::Pvh, "pvh")]
    {
        let (_, info) = load(&Images { kernel: &plain, protocol: Some(protocol), ..Images::default() });
        let message = info.unwrap_err().to_string();
        assert!(message.starts_with(&format!("--protocol {asked}: the file is none of its kind")), "{message}");
    }
    let (_, info) = load(&Images { kernel: b"text", protocol: Some(Protocol::Linux), ..Images::default() });
    assert!(info.unwrap_err().to_string().starts_with("--protocol linux:"));
    assert!(refusal(&elf32(b"code")).contains("32-bit ELF without a Multiboot header or a PVH note"));
    assert_eq!(Protocol::from_name("auto"), Ok(None));
    assert_eq!(Protocol::from_name("pvh"), Ok(Some(Protocol::Pvh)));
    assert!(Protocol::from_name("grub").unwrap_err().to_string().contains("accepted: auto, linux"));
    assert_eq!("real16".parse(), Ok(Mode::Real16));
    assert!("real".parse::<Mode>().unwrap_err().to_string().contains("accepted: real16"));
}

#[test]
fn damaged_and_truncated_files_never_panic() {
    let base = BASE as u32;
    let files = [
        elf64(mb1(3, &[])),
        elf32(&mb1(3, &[])),
        [mb1(0x1_0003, &[base, base, base + 40, base + 64, base + 32]), vec![0x90; 8]].concat(),
        elf64(mb2(&[(2, 0, &[base + 120, base, 0, 0]), (3, 0, &[base + 130]), (10, 0, &[0, 0, 0, 0])])),
        pvh(&base.to_le_bytes()),
    ];
    let (mut cpu, mut bios) = machine(64 * MIB);
    let mut try_to_boot = |kernel: &[u8], protocol| {
        let images = Images { kernel, modules: MODULES.to_vec(), cmdline: "a", protocol, ..Images::default() };
        // Either outcome is fine; the mock's memory panics on a store outside RAM.
        let _ = boot(&mut cpu, &mut bios, &images);
    };
    let protocols =
        [None, Some(Protocol::Multiboot1), Some(Protocol::Multiboot2), Some(Protocol::Pvh), Some(Protocol::Linux)];
    for file in &files {
        for length in 0..=file.len() {
            protocols.iter().for_each(|protocol| try_to_boot(&file[..length], *protocol));
        }
        for at in 0..file.len() {
            for value in [0x00, 0x01, 0x7F, 0x80, 0xFF] {
                let mut file = file.clone();
                file[at] = value;
                // A checksum that fits lets the damage through.
                if file.len() > 16
                    && let Some(start) = [0, 84, 120]
                        .into_iter()
                        .find(|&n| file[n.min(file.len())..].starts_with(&[2, 0xB0, 0xAD, 0x1B]))
                {
                    let flags = u32::from_le_bytes(file[start + 4..start + 8].try_into().unwrap());
                    put(&mut file, start + 8, &0u32.wrapping_sub(0x1BAD_B002).wrapping_sub(flags).to_le_bytes());
                }
                try_to_boot(&file, None);
            }
        }
    }
}
