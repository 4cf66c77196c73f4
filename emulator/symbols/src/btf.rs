//! Where a kernel's structures have their members, from its BPF Type Format (Linux Documentation/bpf/btf.rst).
//!
//! Only what is needed to follow members of structures by name. The data comes from a guest: every offset is checked.

mod spec {
    /// struct btf_header
    pub const MAGIC: u16 = 0xEB9F;
    pub const HEADER_BYTES: usize = 24;
    /// struct btf_type
    pub const TYPE_BYTES: usize = 12;
    pub const KIND_INT: u32 = 1;
    pub const KIND_ARRAY: u32 = 3;
    pub const KIND_STRUCT: u32 = 4;
    pub const KIND_UNION: u32 = 5;
    pub const KIND_ENUM: u32 = 6;
    pub const KIND_FUNC_PROTO: u32 = 13;
    pub const KIND_VAR: u32 = 14;
    pub const KIND_DATASEC: u32 = 15;
    pub const KIND_DECL_TAG: u32 = 17;
    pub const KIND_ENUM64: u32 = 19;
    /// Kinds that are another type with a property: pointer (2), typedef, volatile, const, restrict, type tag.
    pub const WRAPPERS: [u32; 6] = [2, 8, 9, 10, 11, 18];
    pub const KIND_MAX: u32 = KIND_ENUM64;
}

/// Types, structures within unnamed members: more of them are a loop.
const DEPTH_MAX: usize = 16;
/// Members to look at for one name: unnamed structures can be nested in ways that take for ever.
const MEMBERS_MAX: usize = 1 << 16;

/// A blob of BTF with its types found.
#[derive(Debug)]
pub struct Btf<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    /// Offsets of types 1, 2, ... in `types`.
    starts: Vec<u32>,
}

/// A member of a structure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Bytes from the start of the structure.
    pub offset: u64,
    /// Its type.
    pub ty: u32,
}

struct Type {
    at: usize,
    name: u32,
    info: u32,
    size_or_type: u32,
}

impl Type {
    fn kind(&self) -> u32 {
        self.info >> 24 & 0x1F
    }

    fn members(&self) -> usize {
        (self.info & 0xFFFF) as usize
    }
}

impl<'a> Btf<'a> {
    /// Checks the header and finds the types. `None` if this is no BTF, or damaged.
    pub fn parse(blob: &'a [u8]) -> Option<Btf<'a>> {
        if blob.get(..2)? != spec::MAGIC.to_le_bytes() {
            return None;
        }
        let field = |at: usize| read_u32(blob, at).map(|v| v as usize);
        let header = field(4)?;
        if header < spec::HEADER_BYTES {
            return None;
        }
        let section = |offset: usize, length: usize| {
            let start = header.checked_add(offset)?;
            blob.get(start..start.checked_add(length)?)
        };
        let types = section(field(8)?, field(12)?)?;
        let strings = section(field(16)?, field(20)?)?;
        let mut btf = Btf { types, strings, starts: Vec::new() };
        let mut at = 0;
        while at < types.len() {
            let ty = btf.type_at(at)?;
            btf.starts.push(at as u32);
            at += spec::TYPE_BYTES + Self::extra_bytes(&ty)?;
        }
        Some(btf)
    }

    /// What follows a type's common part.
    fn extra_bytes(ty: &Type) -> Option<usize> {
        let n = ty.members();
        Some(match ty.kind() {
            spec::KIND_INT | spec::KIND_VAR | spec::KIND_DECL_TAG => 4,
            spec::KIND_ARRAY => 12,
            spec::KIND_STRUCT | spec::KIND_UNION | spec::KIND_DATASEC | spec::KIND_ENUM64 => 12 * n,
            spec::KIND_ENUM | spec::KIND_FUNC_PROTO => 8 * n,
            0 => return None,
            kind if kind <= spec::KIND_MAX => 0,
            _ => return None,
        })
    }

    fn type_at(&self, at: usize) -> Option<Type> {
        let field = |n: usize| read_u32(self.types, at + 4 * n);
        Some(Type { at, name: field(0)?, info: field(1)?, size_or_type: field(2)? })
    }

    fn by_id(&self, id: u32) -> Option<Type> {
        // Type 0 is void.
        self.type_at(*self.starts.get((id as usize).checked_sub(1)?)? as usize)
    }

    fn name(&self, offset: u32) -> &[u8] {
        let rest = self.strings.get(offset as usize..).unwrap_or_default();
        rest.split(|b| *b == 0).next().unwrap_or_default()
    }

    /// The structure with this name.
    pub fn structure(&self, name: &str) -> Option<u32> {
        let is = |ty: Type| ty.kind() == spec::KIND_STRUCT && self.name(ty.name) == name.as_bytes();
        (1..=self.starts.len() as u32).find(|id| self.by_id(*id).is_some_and(is))
    }

    /// A member of a structure or union, or of an unnamed one in it.
    pub fn member(&self, structure: u32, name: &str) -> Option<Member> {
        let mut budget = MEMBERS_MAX;
        self.member_within(structure, name, DEPTH_MAX, &mut budget)
    }

    fn member_within(&self, structure: u32, name: &str, depth: usize, budget: &mut usize) -> Option<Member> {
        let ty = self.by_id(structure)?;
        if ![spec::KIND_STRUCT, spec::KIND_UNION].contains(&ty.kind()) {
            return None;
        }
        // With the flag an offset has the size of a bit field in its top byte.
        let mask = if ty.info >> 31 != 0 { 0xFF_FFFF } else { u32::MAX };
        for i in 0..ty.members() {
            *budget = budget.checked_sub(1)?;
            let at = ty.at + spec::TYPE_BYTES + 12 * i;
            let (its_name, id) = (read_u32(self.types, at)?, read_u32(self.types, at + 4)?);
            let offset = u64::from(read_u32(self.types, at + 8)? & mask) / 8;
            if self.name(its_name) == name.as_bytes() {
                return Some(Member { offset, ty: id });
            }
            if self.name(its_name).is_empty()
                && let Some(depth) = depth.checked_sub(1)
                && let Some(inner) = self.member_within(id, name, depth, budget)
            {
                return Some(Member { offset: offset + inner.offset, ty: inner.ty });
            }
        }
        None
    }

    /// The structure that a type is, points to, or has as its elements.
    pub fn target(&self, mut id: u32) -> Option<u32> {
        for _ in 0..DEPTH_MAX {
            let ty = self.by_id(id)?;
            id = match ty.kind() {
                spec::KIND_STRUCT | spec::KIND_UNION => return Some(id),
                spec::KIND_ARRAY => read_u32(self.types, ty.at + spec::TYPE_BYTES)?,
                kind if spec::WRAPPERS.contains(&kind) => ty.size_or_type,
                _ => return None,
            };
        }
        None
    }

    /// Elements of an array type.
    pub fn elements(&self, id: u32) -> Option<u32> {
        let ty = self.by_id(id)?;
        (ty.kind() == spec::KIND_ARRAY).then(|| read_u32(self.types, ty.at + spec::TYPE_BYTES + 8))?
    }

    /// Bytes of a structure.
    pub fn size(&self, structure: u32) -> Option<u64> {
        let ty = self.by_id(structure)?;
        [spec::KIND_STRUCT, spec::KIND_UNION].contains(&ty.kind()).then_some(u64::from(ty.size_or_type))
    }
}

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_le_bytes)
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Writes BTF.
    #[derive(Debug, Default)]
    pub struct Writer {
        types: Vec<u8>,
        strings: Vec<u8>,
        count: u32,
    }

    impl Writer {
        fn string(&mut self, text: &str) -> u32 {
            if self.strings.is_empty() {
                self.strings.push(0);
            }
            if text.is_empty() {
                return 0;
            }
            let at = self.strings.len() as u32;
            self.strings.extend(text.bytes().chain([0]));
            at
        }

        fn add(&mut self, fields: &[u32]) -> u32 {
            self.types.extend(fields.iter().flat_map(|f| f.to_le_bytes()));
            self.count += 1;
            self.count
        }

        pub fn int(&mut self) -> u32 {
            let name = self.string("unsigned int");
            self.add(&[name, spec::KIND_INT << 24, 4, 32])
        }

        pub fn pointer(&mut self, to: u32) -> u32 {
            self.add(&[0, 2 << 24, to])
        }

        pub fn array(&mut self, of: u32, count: u32) -> u32 {
            self.add(&[0, spec::KIND_ARRAY << 24, 0, of, of, count])
        }

        /// Members: name, type, offset in bytes.
        pub fn structure(&mut self, name: &str, size: u32, members: &[(&str, u32, u32)]) -> u32 {
            let mut fields = vec![self.string(name), spec::KIND_STRUCT << 24 | members.len() as u32, size];
            for (name, ty, offset) in members {
                fields.extend([self.string(name), *ty, offset * 8]);
            }
            self.add(&fields)
        }

        pub fn finish(&self) -> Vec<u8> {
            let mut out = vec![0x9F, 0xEB, 1, 0];
            let (types, strings) = (self.types.len() as u32, self.strings.len() as u32);
            out.extend([24, 0, types, types, strings].iter().flat_map(|v| v.to_le_bytes()));
            out.extend(self.types.iter().chain(&self.strings));
            out
        }
    }

    fn sample() -> Vec<u8> {
        let mut w = Writer::default();
        let int = w.int();
        let inner = w.structure("", 8, &[("size", int, 4)]);
        let element = w.structure("element", 16, &[("a", int, 0), ("", inner, 8)]);
        let array = w.array(element, 7);
        let pointer = w.pointer(element);
        w.structure("outer", 256, &[("x", int, 0), ("mem", array, 64), ("p", pointer, 8)]);
        w.finish()
    }

    #[test]
    fn members_are_found_through_arrays_pointers_and_unnamed_structures() {
        let blob = sample();
        let btf = Btf::parse(&blob).unwrap();
        let outer = btf.structure("outer").unwrap();
        assert_eq!(btf.structure("missing"), None);
        assert_eq!(btf.size(outer), Some(256));
        let mem = btf.member(outer, "mem").unwrap();
        assert_eq!((mem.offset, btf.elements(mem.ty)), (64, Some(7)));
        let element = btf.target(mem.ty).unwrap();
        assert_eq!(btf.target(btf.member(outer, "p").unwrap().ty), Some(element));
        assert_eq!(btf.member(element, "size").unwrap().offset, 12);
        assert_eq!(btf.member(element, "nothing"), None);
    }

    #[test]
    fn damaged_btf_is_refused_or_read_but_never_worse() {
        let whole = sample();
        for at in 0..whole.len() {
            for change in [1, 0x80, 0xFF] {
                let mut blob = whole.clone();
                blob[at] ^= change;
                let Some(btf) = Btf::parse(&blob) else { continue };
                if let Some(outer) = btf.structure("outer") {
                    let member = btf.member(outer, "mem").or_else(|| btf.member(outer, "none"));
                    let _ = member.and_then(|m| btf.target(m.ty)).and_then(|t| btf.member(t, "size"));
                }
            }
            let _ = Btf::parse(&whole[..at]);
        }
    }

    #[test]
    fn a_structure_in_itself_ends() {
        let mut w = Writer::default();
        w.structure("loop", 8, &[("", 1, 0)]);
        w.pointer(2);
        let blob = w.finish();
        let btf = Btf::parse(&blob).unwrap();
        assert_eq!(btf.member(1, "x"), None);
        assert_eq!(btf.target(2), None);
    }

    #[test]
    fn structures_that_branch_into_themselves_end() {
        let mut w = Writer::default();
        w.structure("tree", 8, &[("", 1, 0); 1000]);
        let blob = w.finish();
        assert_eq!(Btf::parse(&blob).unwrap().member(1, "x"), None);
    }
}
