//! Linux's loaded modules, from the kernel's list of them (`kernel/module`), with the structures' layout from BTF.

use crate::btf::Btf;
use crate::guest::Guest;
use crate::table::Table;
use std::ops::Range;

/// More modules, symbols of one or bytes of one are not believed.
const MODULES_MAX: usize = 4096;
const SYMBOLS_MAX: u64 = 1 << 17;
const AREA_MAX: u64 = 1 << 30;
/// Bytes that may be read of modules' symbols in the life of a kernel: one that makes up new modules all the time gets no more
/// names.
pub const EFFORT: u64 = 1 << 30;
/// Linux's KSYM_NAME_LEN.
const SYMBOL_NAME_MAX: usize = 512;
/// MODULE_NAME_LEN of Linux is 56.
const MODULE_NAME_MAX: usize = 63;
/// Kinds of memory of a module (`enum mod_mem_type` has seven).
const AREAS_MAX: u32 = 16;

/// Elf64_Sym (System V ABI, figure 4-15).
mod sym {
    pub const BYTES: usize = 24;
    pub const SHNDX: usize = 6;
    pub const VALUE: usize = 8;
    pub const SIZE: usize = 16;
    pub const SHN_UNDEF: u16 = 0;
}

/// Offsets of the members of `struct module` that matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    list: u64,
    name: u64,
    kallsyms: u64,
    /// `base` and `size` of each piece of memory: core_layout and init_layout up to Linux 6.3, mem[] since.
    areas: Vec<(u64, u64)>,
    symtab: u64,
    num_symtab: u64,
    strtab: u64,
}

impl Layout {
    /// Reads it from the kernel's BTF. `None`: these are not the structures of a kernel that this was written for.
    pub fn from_btf(btf: &Btf<'_>) -> Option<Layout> {
        let module = btf.structure("module")?;
        let member = |name| btf.member(module, name);
        let kallsyms = member("kallsyms")?;
        let tables = btf.target(kallsyms.ty)?;
        let mut areas = Vec::new();
        if let Some(mem) = member("mem") {
            let element = btf.target(mem.ty)?;
            let (base, size) = (btf.member(element, "base")?.offset, btf.member(element, "size")?.offset);
            for i in 0..btf.elements(mem.ty)?.min(AREAS_MAX) {
                let start = mem.offset + u64::from(i) * btf.size(element)?;
                areas.push((start + base, start + size));
            }
        } else {
            for name in ["core_layout", "init_layout"] {
                let area = member(name)?;
                let ty = btf.target(area.ty)?;
                areas
                    .push((area.offset + btf.member(ty, "base")?.offset, area.offset + btf.member(ty, "size")?.offset));
            }
        }
        Some(Layout {
            list: member("list")?.offset,
            name: member("name")?.offset,
            kallsyms: kallsyms.offset,
            areas,
            symtab: btf.member(tables, "symtab")?.offset,
            num_symtab: btf.member(tables, "num_symtab")?.offset,
            strtab: btf.member(tables, "strtab")?.offset,
        })
    }
}

/// A module as it was when it was last seen.
#[derive(Debug, Clone)]
pub struct Module {
    pub name: String,
    /// Address of its `struct module`, and of its symbol table's description.
    id: (u64, u64),
    areas: Vec<Range<u64>>,
    symbols: Table,
    /// Still on the list.
    pub loaded: bool,
}

impl Module {
    pub fn contains(&self, address: u64) -> bool {
        self.areas.iter().any(|area| area.contains(&address))
    }

    pub fn symbols(&self) -> &Table {
        &self.symbols
    }
}

/// Walks the list whose head is at `head`, and updates `known`: new modules are added with their symbols, modules that are
/// gone stay, marked so, until others take their place. `effort` starts at [`EFFORT`].
pub fn refresh(guest: &mut impl Guest, layout: &Layout, head: u64, known: &mut Vec<Module>, effort: &mut u64) {
    known.iter_mut().for_each(|m| m.loaded = false);
    let mut node = guest.u64(head);
    for _ in 0..MODULES_MAX {
        let Some(at) = node.filter(|at| *at != head && *at != 0) else { break };
        if let Some(found) = describe(guest, layout, at.wrapping_sub(layout.list)) {
            let same = |m: &Module| (&m.name, m.id, &m.areas) == (&found.name, found.id, &found.areas);
            match known.iter_mut().find(|m| same(m)) {
                Some(module) => module.loaded = true,
                None => {
                    // Others that were in the same memory, or this one before its initialisation ended.
                    known.retain(|m| m.loaded || !overlap(&m.areas, &found.areas));
                    let symbols = read_symbols(guest, layout, &found, effort);
                    known.push(Module { symbols, ..found });
                }
            }
        }
        node = guest.u64(at);
    }
    // A list without end does not fill the memory.
    known.truncate(MODULES_MAX);
}

fn overlap(a: &[Range<u64>], b: &[Range<u64>]) -> bool {
    a.iter().any(|a| b.iter().any(|b| a.start < b.end && b.start < a.end))
}

/// All but the symbols.
fn describe(guest: &mut impl Guest, layout: &Layout, module: u64) -> Option<Module> {
    let name = guest.string(module.wrapping_add(layout.name), MODULE_NAME_MAX)?;
    let kallsyms = guest.u64(module.wrapping_add(layout.kallsyms))?;
    let mut areas = Vec::new();
    for (base, size) in &layout.areas {
        let start = guest.u64(module.wrapping_add(*base))?;
        let size = u64::from(guest.u32(module.wrapping_add(*size))?);
        if start != 0 && (1..=AREA_MAX).contains(&size) {
            areas.push(start..start.saturating_add(size));
        }
    }
    Some(Module { name, id: (module, kallsyms), areas, symbols: Table::default(), loaded: true })
}

/// Symbols with an address in the module; none if its tables cannot be read.
fn read_symbols(guest: &mut impl Guest, layout: &Layout, module: &Module, effort: &mut u64) -> Table {
    let mut table = Table::default();
    let tables = module.id.1;
    let mut field = |offset: u64| guest.u64(tables.wrapping_add(offset));
    let (Some(symtab), Some(count), Some(strtab)) =
        (field(layout.symtab), field(layout.num_symtab), field(layout.strtab))
    else {
        return table;
    };
    // num_symtab is an unsigned int.
    let count = (count & 0xFFFF_FFFF).min(SYMBOLS_MAX);
    for i in 0..count {
        if *effort < (sym::BYTES + SYMBOL_NAME_MAX) as u64 {
            break;
        }
        *effort -= sym::BYTES as u64;
        let Some(symbol) = guest.array::<{ sym::BYTES }>(symtab.wrapping_add(i * sym::BYTES as u64)) else { break };
        let name = u32::from_le_bytes([symbol[0], symbol[1], symbol[2], symbol[3]]);
        let section = u16::from_le_bytes([symbol[sym::SHNDX], symbol[sym::SHNDX + 1]]);
        let [value, size] =
            [sym::VALUE, sym::SIZE].map(|at| symbol[at..].first_chunk().map_or(0, |field| u64::from_le_bytes(*field)));
        if name == 0 || section == sym::SHN_UNDEF || !module.contains(value) {
            continue;
        }
        if let Some(name) =
            guest.string(strtab.wrapping_add(u64::from(name)), SYMBOL_NAME_MAX).filter(|n| !n.is_empty())
        {
            *effort -= name.len() as u64;
            table.push(value, size, &name);
        }
    }
    table.sort();
    table
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::btf::tests::Writer;
    use crate::guest::fake::Pieces;

    const HEAD: u64 = 0xFFFF_FFFF_8200_0000;
    const MODULE: u64 = 0xFFFF_FFFF_C000_0000;
    const STRIDE: u64 = 0x10_0000;

    /// BTF of `struct module` as Linux 6.1 or (`mem`) 6.4 has it, much smaller.
    pub fn btf(mem: bool) -> Vec<u8> {
        let mut w = Writer::default();
        let int = w.int();
        let pointer = w.pointer(int);
        let tables =
            w.structure("mod_kallsyms", 24, &[("symtab", pointer, 0), ("num_symtab", int, 8), ("strtab", pointer, 16)]);
        let to_tables = w.pointer(tables);
        let list = w.structure("list_head", 16, &[("next", pointer, 0), ("prev", pointer, 8)]);
        let area = w.structure("module_layout", 16, &[("base", pointer, 0), ("size", int, 8)]);
        let areas = w.array(area, 3);
        let mut members = vec![("state", int, 0), ("list", list, 8), ("name", int, 24), ("kallsyms", to_tables, 88)];
        if mem {
            members.push(("mem", areas, 96));
        } else {
            members.extend([("core_layout", area, 96), ("init_layout", area, 112)]);
        }
        w.structure("module", 256, &members);
        w.finish()
    }

    pub fn layout(mem: bool) -> Layout {
        Layout::from_btf(&Btf::parse(&btf(mem)).unwrap()).unwrap()
    }

    /// Puts modules into memory with their list at `head`.
    pub fn put(guest: &mut Pieces, head: u64, names: &[&str]) {
        let at = |i: usize| MODULE + i as u64 * STRIDE;
        let node = |i: usize| if i < names.len() { at(i) + 8 } else { head };
        guest.put(head, node(0).to_le_bytes());
        for (i, name) in names.iter().enumerate() {
            let (base, tables) = (at(i) + 0x1000, at(i) + 0x200);
            let mut module = vec![0; 0x100];
            module[8..16].copy_from_slice(&node(i + 1).to_le_bytes());
            module[24..24 + name.len()].copy_from_slice(name.as_bytes());
            module[88..96].copy_from_slice(&tables.to_le_bytes());
            module[96..104].copy_from_slice(&base.to_le_bytes());
            module[104..108].copy_from_slice(&0x2000u32.to_le_bytes());
            guest.put(at(i), module);
            let (symtab, strtab) = (at(i) + 0x300, at(i) + 0x800);
            guest.put(tables, [symtab, 3, strtab].iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>());
            let mut symbols = vec![0; sym::BYTES];
            for (name, value) in [(1u32, base + 0x40), (6, base + 0x80)] {
                symbols.extend(name.to_le_bytes());
                symbols.extend([2, 0, 1, 0]);
                symbols.extend([value, 0].iter().flat_map(|v| v.to_le_bytes()));
            }
            guest.put(symtab, symbols);
            guest.put(strtab, *b"\0work\0exit\0");
        }
    }

    #[test]
    fn functions_of_modules_have_names_in_both_layouts() {
        for mem in [false, true] {
            let mut guest = Pieces::default();
            put(&mut guest, HEAD, &["first", "second"]);
            let mut known = Vec::new();
            refresh(&mut guest, &layout(mem), HEAD, &mut known, &mut { EFFORT });
            assert_eq!(known.iter().map(|m| m.name.as_str()).collect::<Vec<_>>(), ["first", "second"]);
            let address = MODULE + STRIDE + 0x1000 + 0x55;
            let module = known.iter().find(|m| m.contains(address)).unwrap();
            let found = module.symbols().find(address).unwrap();
            assert_eq!((module.name.as_str(), found.name, found.offset, found.size), ("second", "work", 0x15, 0x40));
        }
    }

    #[test]
    fn a_module_that_is_gone_keeps_its_names_until_its_memory_is_used_again() {
        let mut guest = Pieces::default();
        let mut known = Vec::new();
        put(&mut guest, HEAD, &["first", "second"]);
        refresh(&mut guest, &layout(true), HEAD, &mut known, &mut { EFFORT });
        put(&mut guest, HEAD, &["first"]);
        refresh(&mut guest, &layout(true), HEAD, &mut known, &mut { EFFORT });
        assert_eq!(
            known.iter().map(|m| (m.name.as_str(), m.loaded)).collect::<Vec<_>>(),
            [("first", true), ("second", false)]
        );
        put(&mut guest, HEAD, &["first", "third"]);
        refresh(&mut guest, &layout(true), HEAD, &mut known, &mut { EFFORT });
        assert_eq!(
            known.iter().map(|m| (m.name.as_str(), m.loaded)).collect::<Vec<_>>(),
            [("first", true), ("third", true)]
        );
    }

    #[test]
    fn lists_without_end_and_lists_that_lead_nowhere_end() {
        let mut guest = Pieces::default();
        put(&mut guest, HEAD, &["loop"]);
        let mut node = guest.0[&MODULE].clone();
        node[8..16].copy_from_slice(&(MODULE + 8).to_le_bytes());
        guest.put(MODULE, node.clone());
        let mut known = Vec::new();
        refresh(&mut guest, &layout(true), HEAD, &mut known, &mut { EFFORT });
        assert_eq!(known.len(), 1);
        node[8..16].copy_from_slice(&0x1234u64.to_le_bytes());
        guest.put(MODULE, node);
        refresh(&mut guest, &layout(true), HEAD, &mut known, &mut { EFFORT });
        assert!(known[0].loaded);
        refresh(&mut Pieces::default(), &layout(true), HEAD, &mut known, &mut { EFFORT });
        assert!(!known[0].loaded);
    }
}
