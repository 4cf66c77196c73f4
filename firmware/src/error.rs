//! Why an image cannot be booted.

use crate::log::{Size, Span};
use crate::memory_map::MIB;
use std::ops::Range;
use thiserror::Error;

/// What `-kernel` takes; the end of several messages.
pub const KERNELS: &str =
    "a bzImage (vmlinuz), a Multiboot 1 or 2 kernel, a PVH kernel, or a static ELF64 executable for x86-64";

/// An image that cannot be booted. Messages name the option and what would be accepted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LoadError {
    #[error("-kernel: the file is empty; accepted: {KERNELS}")]
    EmptyKernel,
    #[error(
        "-kernel: not a kernel (no setup header of a bzImage, no Multiboot header, no ELF header); accepted: {KERNELS}"
    )]
    UnknownFormat,
    #[error("--protocol {asked}: the file is none of its kind ({missing}); accepted: {accepted}, or no --protocol")]
    NotThisProtocol { asked: &'static str, missing: &'static str, accepted: &'static str },
    #[error("--protocol {0}: unknown protocol; accepted: auto, linux, multiboot, multiboot2, pvh")]
    UnknownProtocol(String),
    #[error("--entry {0}: unknown mode; accepted: real16, prot32, long64")]
    UnknownMode(String),
    #[error(
        "-kernel: truncated {format}: {length} bytes, but its headers describe {expected}; accepted: the whole file"
    )]
    Truncated { format: &'static str, expected: usize, length: usize },
    #[error("-kernel: bzImage of boot protocol {major}.{minor:02}; accepted: 2.12 (Linux 3.8) or later")]
    OldProtocol { major: u16, minor: u16 },
    #[error("-kernel: bzImage with a nonsensical setup header ({field}); accepted: an undamaged bzImage")]
    BadSetupHeader { field: &'static str },
    #[error(
        "-kernel: 32-bit ELF without a Multiboot header or a PVH note, so nothing says how to enter it; accepted: {KERNELS}"
    )]
    Elf32,
    #[error("-kernel: ELF for machine {machine}; accepted: {accepted}")]
    ElfMachine { machine: u16, accepted: &'static str },
    #[error("-kernel: ELF of type {kind}; accepted: an executable linked to fixed addresses (type 2, ET_EXEC)")]
    ElfType { kind: u16 },
    #[error("-kernel: bad ELF {what}; accepted: an undamaged static ELF executable")]
    BadElf { what: &'static str },
    #[error("-kernel: bad Multiboot {version} header ({what}); accepted: {accepted}")]
    BadMultiboot { version: u8, what: String, accepted: &'static str },
    #[error("-kernel: bad PVH note ({what}); accepted: a note \"Xen\" of type 18 with an entry point below 4 GiB")]
    BadPvh { what: &'static str },
    #[error(
        "-kernel: the image occupies {}, outside the memory for images; accepted: addresses from 100000H up to the end of RAM below 3 GiB",
        Span::new(.0)
    )]
    OutsideMemory(Range<u64>),
    #[error("--load-addr: the image would occupy {}; accepted: all of it within {accepted}", Span::new(.range))]
    OutsideFlatMemory { range: Range<u64>, accepted: String },
    #[error(
        "-m: the kernel occupies {} and does not fit into {} of RAM; accepted: at least {} MiB",
        Span::new(.kernel), Size(*.ram), .needed.div_ceil(MIB)
    )]
    RamTooSmall { kernel: Range<u64>, ram: u64, needed: u64 },
    #[error("-initrd: the file is empty; accepted: a cpio archive, or no -initrd")]
    EmptyInitrd,
    #[error("-initrd {name}: the file is empty; accepted: a module with contents")]
    EmptyModule { name: String },
    #[error(
        "-initrd: {size} bytes do not fit beside the kernel; accepted: at most {available} bytes{}",
        match .needed { Some(bytes) => format!(", or -m of at least {} MiB", bytes.div_ceil(MIB)), None => String::new() }
    )]
    InitrdTooBig { size: u64, available: u64, needed: Option<u64> },
    #[error("-initrd: {given} files; accepted: {accepted} for this kind of kernel")]
    TooManyModules { given: usize, accepted: &'static str },
    #[error(
        "-initrd: \"{arguments}\" after the file name; accepted: arguments only for the modules of a Multiboot or PVH kernel"
    )]
    InitrdArguments { arguments: String },
    #[error("-append: command line of {length} bytes; this kernel accepts at most {limit}")]
    CommandLineTooLong { length: usize, limit: usize },
    #[error("-append: a boot sector takes no command line; accepted: no -append, or --entry prot32 or long64")]
    CommandLineForBootSector,
    #[error("-append: the command line has a NUL byte; accepted: text without NUL")]
    CommandLineNul,
    #[error("-initrd: the arguments of a module have a NUL byte; accepted: text without NUL")]
    ModuleNul,
    #[error(
        "-append, -initrd: boot information of {needed} bytes (command line, module list and arguments); accepted: at most {limit}"
    )]
    InfoTooBig { needed: u64, limit: u64 },
}
