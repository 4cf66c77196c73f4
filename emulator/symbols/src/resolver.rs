//! From an address of the running guest to a name.

use crate::btf::Btf;
use crate::file::SymbolFile;
use crate::guest::{AddressSpace, Guest};
use crate::kallsyms;
use crate::modules::{self, Layout, Module};
use crate::table::{Found, Table};
use machine::Machine;
use machine::peek::Walked;
use std::fmt;
use std::ops::Range;

/// Linux's kernel image is mapped here (Documentation/x86/x86_64/mm.rst), anywhere with KASLR.
const KERNEL_IMAGE: Range<u64> = 0xFFFF_FFFF_8000_0000..0xFFFF_FFFF_C000_0000;
/// Addresses that no user program has.
const KERNEL_HALF: u64 = 1 << 63;
/// KASLR moves by multiples of CONFIG_PHYSICAL_ALIGN, 2 MiB at least.
const KASLR_STEP: u64 = 2 << 20;
/// Kernel image that is searched.
const IMAGE_MAX: u64 = 192 << 20;
const BTF_MAX: u64 = 64 << 20;
/// Attempts to find a kernel in a guest: at first it may not be ready for it.
const ATTEMPTS_MAX: u32 = 8;
/// In all: a guest can change what it looks like as often as it wants.
const SEARCHES_MAX: u32 = 64;

/// With page table isolation the kernel's top-level table is the page before the user's (`kernel_to_user_pgdp()`).
const PTI_USER_BIT: u64 = 1 << 12;
/// The address of the top-level table in CR3; KeyID bits are part of it.
const CR3_TABLE: u64 = !0xFFF & ((1 << 52) - 1);

const SYSCALL_ENTRY: &str = "entry_SYSCALL_64";
/// Vectors whose handlers have had these names since Linux 5.8.
const HANDLERS: [(u64, &str); 4] = [
    (0, "asm_exc_divide_error"),
    (6, "asm_exc_invalid_op"),
    (13, "asm_exc_general_protection"),
    (14, "asm_exc_page_fault"),
];
const GATE_BYTES: u64 = 16;
const BANNER: &[u8] = b"Linux version ";
/// Longest banner that is read.
const BANNER_MAX: usize = 512;

/// An address with its name, if it has one. Prints as Linux prints it: `name+0xoffset/0xsize [module]`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Location {
    pub address: u64,
    pub symbol: Option<Symbol>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Symbol {
    pub name: String,
    /// Of the address from the symbol, bytes.
    pub offset: u64,
    /// Up to the next symbol; 0 if unknown.
    pub size: u64,
    pub module: Option<String>,
    /// The module was no longer loaded when the name was asked for.
    pub unloaded: bool,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(symbol) = &self.symbol else { return write!(f, "{:#018x}", self.address) };
        write!(f, "{}+{:#x}", symbol.name, symbol.offset)?;
        if symbol.size != 0 {
            write!(f, "/{:#x}", symbol.size)?;
        }
        match &symbol.module {
            Some(module) if symbol.unloaded => write!(f, " [{module}, unloaded]"),
            Some(module) => write!(f, " [{module}]"),
            None => Ok(()),
        }
    }
}

/// Everything known about the names of a guest.
#[derive(Debug, Default)]
pub struct Symbols {
    /// The file that the user named, with its name.
    file: Option<(String, SymbolFile)>,
    /// Symbols of the image that was booted, if it is no Linux.
    image: Option<SymbolFile>,
    kernel: Option<Kernel>,
    /// IA32_LSTAR at the last attempt, and attempts with it.
    tried: (u64, u32),
    /// Attempts in all.
    searches: u32,
    notes: Vec<String>,
    told: bool,
}

/// A running Linux.
#[derive(Debug)]
struct Kernel {
    lstar: u64,
    /// Full physical address of a table that maps the kernel and its modules.
    root: u64,
    image: Range<u64>,
    table: Table,
    /// Address of the list of modules, and the layout of what is in it.
    list: Option<(u64, Layout)>,
    modules: Vec<Module>,
    /// What may still be read of modules.
    effort: u64,
    /// Instruction count when the list was last walked.
    walked: Option<u64>,
}

impl Symbols {
    /// `file`: `--symbols`, with its name. `image`: the kernel that was booted, which may be an ELF file with symbols.
    pub fn new(file: Option<(String, SymbolFile)>, image: &[u8]) -> Symbols {
        // Whatever is wrong with its symbols: it has booted, and nobody asked for them.
        Symbols { file, image: SymbolFile::parse(image).ok(), ..Symbols::default() }
    }

    /// What the user should know, once each.
    pub fn take_notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }

    /// The machine was reset: another kernel may come.
    pub fn forget(&mut self) {
        (self.kernel, self.tried) = (None, (0, 0));
    }

    /// Names an address of code that ran at privilege level `cpl`. The machine is read and not changed.
    pub fn resolve(&mut self, machine: &mut Machine, rip: u64, cpl: u8) -> Location {
        let symbol = if rip >= KERNEL_HALF {
            self.in_linux(machine, rip)
        } else if cpl < 3 || self.kernel.is_none() {
            let files = [self.file.as_ref().map(|(_, file)| file), self.image.as_ref()];
            let found = files.into_iter().flatten().filter(|file| !file.linux).find_map(|file| file.table.find(rip));
            found.map(|found| named(found, None))
        } else {
            None
        };
        Location { address: rip, symbol }
    }

    /// Run-time address of a symbol of the running kernel, once an address of it has been resolved.
    pub fn address(&self, name: &str) -> Option<u64> {
        self.kernel.as_ref()?.table.address(name)
    }

    /// Address of a symbol in the files that are known, as linked, and whether the file is a Linux kernel's, which may run
    /// elsewhere. Nothing need have run.
    pub fn linked_address(&self, name: &str) -> Option<(u64, bool)> {
        let files = [self.file.as_ref().map(|(_, file)| file), self.image.as_ref()];
        files.into_iter().flatten().find_map(|file| Some((file.table.address(name)?, file.linux)))
    }

    fn in_linux(&mut self, machine: &mut Machine, rip: u64) -> Option<Symbol> {
        let lstar = machine.cpu.msr.lstar;
        if self.kernel.as_ref().is_some_and(|kernel| kernel.lstar != lstar) {
            self.kernel = None;
        }
        if self.kernel.is_none() {
            if !KERNEL_IMAGE.contains(&lstar) {
                return None;
            }
            if self.tried.0 != lstar {
                self.tried = (lstar, 0);
            }
            if self.tried.1 >= ATTEMPTS_MAX || self.searches >= SEARCHES_MAX {
                return None;
            }
            self.tried.1 += 1;
            self.searches += 1;
            self.kernel = self.find_kernel(machine, lstar);
        }
        self.kernel.as_mut()?.resolve(machine, rip)
    }

    fn find_kernel(&mut self, machine: &mut Machine, lstar: u64) -> Option<Kernel> {
        let table = machine.cpu.cr3 & CR3_TABLE;
        let roots = [table, table & !PTI_USER_BIT];
        let roots = if roots[0] == roots[1] { &roots[..1] } else { &roots[..] };
        let image = self.image.iter().map(|image| ("-kernel", image));
        let files = self.file.iter().map(|(name, file)| (name.as_str(), file)).chain(image);
        for (name, file) in files.filter(|(_, file)| file.linux) {
            let mut why = String::new();
            for root in roots {
                match from_file(machine, *root, lstar, file) {
                    Ok(kernel) => return Some(kernel),
                    Err(reason) => why = reason,
                }
            }
            if !std::mem::replace(&mut self.told, true) {
                self.notes.push(format!("{name}: {why}; the kernel's own symbols are used if it has any"));
            }
        }
        roots.iter().find_map(|root| from_memory(machine, *root, lstar))
    }
}

fn named(found: Found<'_>, module: Option<&Module>) -> Symbol {
    Symbol {
        name: found.name.to_owned(),
        offset: found.offset,
        size: found.size,
        module: module.map(|m| m.name.clone()),
        unloaded: module.is_some_and(|m| !m.loaded),
    }
}

/// From the kernel's own table in the guest's memory.
fn from_memory(machine: &mut Machine, root: u64, lstar: u64) -> Option<Kernel> {
    let mut space = AddressSpace { machine, root };
    // User page tables have the entry code and little else.
    space.u64(lstar)?;
    let table = kallsyms::find(&mut space, KERNEL_IMAGE, IMAGE_MAX)?;
    // Another kernel's table could lie about as data.
    (table.address(SYSCALL_ENTRY) == Some(lstar)).then(|| Kernel::new(&mut space, lstar, table))
}

/// From a file, moved to where the kernel runs.
fn from_file(machine: &mut Machine, root: u64, lstar: u64, file: &SymbolFile) -> Result<Kernel, String> {
    let idt = machine.cpu.idtr.base;
    let mut space = AddressSpace { machine, root };
    let linked = file.table.address(SYSCALL_ENTRY).ok_or("no entry_SYSCALL_64 in it")?;
    let slide = lstar.wrapping_sub(linked);
    let mismatch = |what: &str| format!("does not match the running kernel ({what})");
    if slide % KASLR_STEP != 0 {
        return Err(mismatch("IA32_LSTAR is not where entry_SYSCALL_64 can be"));
    }
    for (vector, name) in HANDLERS {
        let Some(linked) = file.table.address(name) else { continue };
        let Some(gate) = space.array::<16>(idt.wrapping_add(vector * GATE_BYTES)) else { continue };
        if handler(&gate) != linked.wrapping_add(slide) {
            return Err(mismatch(&format!("interrupt vector {vector} does not lead to {name}")));
        }
    }
    let Some(banner) = file.table.address("linux_banner") else { return Err("no linux_banner in it".into()) };
    let mut running = vec![0; BANNER_MAX];
    let length = space.read(banner.wrapping_add(slide), &mut running);
    running.truncate(length);
    running.truncate(running.iter().position(|b| *b == 0).unwrap_or(0));
    if !running.starts_with(BANNER) {
        return Err(mismatch("no banner at linux_banner"));
    }
    if file.banner.as_ref().is_some_and(|banner| *banner != running) {
        let (theirs, ours) = (file.banner.as_deref().unwrap_or_default(), &running);
        return Err(mismatch(&format!("it is {}, running is {}", version(theirs), version(ours))));
    }
    Ok(Kernel::new(&mut space, lstar, file.table.moved(slide)))
}

/// `6.1.0-18-amd64` of `Linux version 6.1.0-18-amd64 (...`
fn version(banner: &[u8]) -> String {
    let text = crate::guest::printable(banner);
    text.split(' ').nth(2).unwrap_or("unknown").to_owned()
}

/// The offset in a 64-bit gate (SDM Vol. 3A, figure 6-8).
fn handler(gate: &[u8; GATE_BYTES as usize]) -> u64 {
    let gate = u128::from_le_bytes(*gate);
    (gate & 0xFFFF | gate >> 32 & 0xFFFF_FFFF_FFFF_0000) as u64
}

impl Kernel {
    fn new(space: &mut AddressSpace<'_>, lstar: u64, table: Table) -> Kernel {
        let start = table.address("_text").or_else(|| table.address("_stext")).unwrap_or(KERNEL_IMAGE.start);
        let end = table.address("_end").unwrap_or(KERNEL_IMAGE.end);
        // The kernel's own table outlives every process's.
        let own = table.address("init_top_pgt").map(|at| space.machine.walk_through(space.root, at));
        let root = match own {
            Some(Walked::Leaf { bus, .. }) if space.machine.peek_through(bus.0, lstar, &mut [0]) == 1 => bus.0,
            _ => space.root,
        };
        let list = layout(space, &table).and_then(|layout| Some((table.address("modules")?, layout)));
        Kernel {
            lstar,
            root,
            image: start..end,
            table,
            list,
            modules: Vec::new(),
            effort: modules::EFFORT,
            walked: None,
        }
    }

    fn resolve(&mut self, machine: &mut Machine, rip: u64) -> Option<Symbol> {
        if self.image.contains(&rip) {
            return self.table.find(rip).map(|found| named(found, None));
        }
        let (head, layout) = self.list.as_ref()?;
        let now = machine.cpu.icount();
        if self.walked.replace(now) != Some(now) {
            let mut space = AddressSpace { machine, root: self.root };
            modules::refresh(&mut space, layout, *head, &mut self.modules, &mut self.effort);
        }
        let mut inside = self.modules.iter().filter(|m| m.contains(rip));
        let module = inside.clone().find(|m| m.loaded).or_else(|| inside.next())?;
        Some(match module.symbols().find(rip) {
            Some(found) => named(found, Some(module)),
            // Code without a symbol: the module alone is worth something.
            None => named(Found { name: "?", offset: 0, size: 0 }, Some(module)),
        })
    }
}

fn layout(space: &mut AddressSpace<'_>, table: &Table) -> Option<Layout> {
    let (start, stop) = (table.address("__start_BTF")?, table.address("__stop_BTF")?);
    let length = stop.checked_sub(start).filter(|length| *length <= BTF_MAX)?;
    let blob = space.bytes(start, length as usize)?;
    Layout::from_btf(&Btf::parse(&blob)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_read_like_the_kernels() {
        let symbol = Symbol { name: "f".into(), offset: 0x1B, size: 0x40, module: None, unloaded: false };
        let show = |symbol| Location { address: 0x1000, symbol }.to_string();
        assert_eq!(show(Some(symbol.clone())), "f+0x1b/0x40");
        assert_eq!(show(Some(Symbol { size: 0, ..symbol.clone() })), "f+0x1b");
        let module = Symbol { module: Some("m".into()), ..symbol };
        assert_eq!(show(Some(module.clone())), "f+0x1b/0x40 [m]");
        assert_eq!(show(Some(Symbol { unloaded: true, ..module })), "f+0x1b/0x40 [m, unloaded]");
        assert_eq!(show(None), "0x0000000000001000");
    }

    #[test]
    fn a_gate_says_where_its_handler_is() {
        let mut gate = [0; 16];
        gate[..2].copy_from_slice(&[0x78, 0x56]);
        gate[6..8].copy_from_slice(&[0x34, 0x12]);
        gate[8..12].copy_from_slice(&[0xFF; 4]);
        assert_eq!(handler(&gate), 0xFFFF_FFFF_1234_5678);
    }

    #[test]
    fn versions_are_named_by_their_third_word() {
        assert_eq!(version(b"Linux version 6.1.0-18-amd64 (debian)"), "6.1.0-18-amd64");
        assert_eq!(version(b"Linux"), "unknown");
    }
}
