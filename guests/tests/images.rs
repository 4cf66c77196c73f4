//! The tour is what a loader of the Linux 64-bit boot protocol expects of a vmlinux (System V ABI, ELF-64); the template has
//! headers of three boot protocols.

use guests::{ATTACKS, HELLO_MKTME, TEMPLATE};

const EM_X86_64: u16 = 62;
const ET_EXEC: u16 = 2;
const PT_LOAD: u32 = 1;
const PF_X: u32 = 1;
const PF_W: u32 = 2;
const MIB: u64 = 1 << 20;

struct Segment {
    kind: u32,
    flags: u32,
    offset: u64,
    virtual_address: u64,
    physical_address: u64,
    file_size: u64,
    memory_size: u64,
}

fn field<const N: usize>(image: &[u8], offset: usize) -> [u8; N] {
    image[offset..][..N].try_into().unwrap()
}

fn half(image: &[u8], offset: usize) -> u16 {
    u16::from_le_bytes(field(image, offset))
}

fn word(image: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(field(image, offset))
}

fn xword(image: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(field(image, offset))
}

fn segments(image: &[u8]) -> Vec<Segment> {
    let (table, size, count) = (xword(image, 32) as usize, half(image, 54) as usize, half(image, 56) as usize);
    let headers = (0..count).map(|index| &image[table + index * size..][..size]);
    headers
        .map(|header| Segment {
            kind: word(header, 0),
            flags: word(header, 4),
            offset: xword(header, 8),
            virtual_address: xword(header, 16),
            physical_address: xword(header, 24),
            file_size: xword(header, 32),
            memory_size: xword(header, 40),
        })
        .collect()
}

fn entry(image: &[u8]) -> u64 {
    xword(image, 24)
}

#[test]
fn the_image_is_a_64_bit_little_endian_x86_64_executable() {
    assert_eq!(HELLO_MKTME[..6], *b"\x7fELF\x02\x01");
    assert_eq!(half(HELLO_MKTME, 16), ET_EXEC);
    assert_eq!(half(HELLO_MKTME, 18), EM_X86_64);
}

#[test]
fn nothing_but_loadable_segments_so_no_interpreter_and_no_relocation() {
    assert!(segments(HELLO_MKTME).iter().all(|segment| segment.kind == PT_LOAD));
}

#[test]
fn physical_and_virtual_addresses_are_equal_and_leave_the_first_mebibyte_to_firmware() {
    for segment in segments(HELLO_MKTME) {
        assert_eq!(segment.physical_address, segment.virtual_address);
        assert!(segment.physical_address >= MIB);
        assert!(segment.physical_address + segment.memory_size <= 4 * MIB);
    }
}

#[test]
fn the_entry_point_lies_in_the_executable_segment_which_is_not_writable() {
    let segments = segments(HELLO_MKTME);
    let code: Vec<_> = segments.iter().filter(|segment| segment.flags & PF_X != 0).collect();
    assert_eq!(code.len(), 1);
    assert_eq!(code[0].flags & PF_W, 0);
    assert!((code[0].virtual_address..code[0].virtual_address + code[0].file_size).contains(&entry(HELLO_MKTME)));
}

#[test]
fn segments_lie_within_the_file() {
    for segment in segments(HELLO_MKTME) {
        assert!(segment.offset + segment.file_size <= HELLO_MKTME.len() as u64);
        assert!(segment.file_size <= segment.memory_size);
    }
}

#[test]
fn the_image_is_small() {
    assert!(HELLO_MKTME.len() < 128 << 10, "{} bytes", HELLO_MKTME.len());
}

/// Panic messages carry source paths; those of the machine that built the image must not be among them.
#[test]
fn the_images_do_not_say_where_they_were_built() {
    let here = env!("CARGO_MANIFEST_DIR").as_bytes();
    for image in [HELLO_MKTME, TEMPLATE, ATTACKS] {
        assert!(!image.windows(here.len()).any(|window| window == here));
    }
}

const MULTIBOOT1: u32 = 0x1bad_b002;
const MULTIBOOT2: u32 = 0xe852_50d6;

/// Multiboot 1 loaders that take no ELF64 file go by the address fields (Multiboot Specification 0.6.96, section 3.1.3).
#[test]
fn the_template_s_address_fields_describe_what_its_elf_headers_describe() {
    let header = (0..8192).step_by(4).find(|&at| word(TEMPLATE, at) == MULTIBOOT1).expect("a header");
    let sum = word(TEMPLATE, header).wrapping_add(word(TEMPLATE, header + 4)).wrapping_add(word(TEMPLATE, header + 8));
    assert_eq!(sum, 0);
    let [header_addr, load_addr, load_end, bss_end, start] =
        [12, 16, 20, 24, 28].map(|at| u64::from(word(TEMPLATE, header + at)));
    assert_eq!(start, entry(TEMPLATE));
    let loadable = || segments(TEMPLATE).into_iter().filter(|segment| segment.kind == PT_LOAD);
    assert_eq!(loadable().map(|s| s.physical_address).min(), Some(load_addr));
    assert_eq!(loadable().map(|s| s.physical_address + s.file_size).max(), Some(load_end));
    assert_eq!(loadable().map(|s| s.physical_address + s.memory_size).max(), Some(bss_end));
    // One stretch of the file: what lies where in memory lies there in the file as well.
    let start_of_file = header as u64 - (header_addr - load_addr);
    for segment in loadable() {
        assert_eq!(segment.offset - start_of_file, segment.physical_address - load_addr);
    }
}

#[test]
fn the_template_has_a_multiboot2_header_and_a_note() {
    let header = (0..32768).step_by(8).find(|&at| word(TEMPLATE, at) == MULTIBOOT2).expect("a header");
    let sum = (0..4).fold(0u32, |sum, n| sum.wrapping_add(word(TEMPLATE, header + 4 * n)));
    assert_eq!(sum, 0);
    const PT_NOTE: u32 = 4;
    let segments = segments(TEMPLATE);
    let note = segments.iter().find(|segment| segment.kind == PT_NOTE).expect("a note");
    let note = &TEMPLATE[note.offset as usize..][..note.file_size as usize];
    assert_eq!((word(note, 0), word(note, 4), word(note, 8), &note[12..16]), (4, 4, 18, &b"Xen\0"[..]));
}
