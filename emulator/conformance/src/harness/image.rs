//! The bytes the harness runs on: page tables, descriptor tables, stubs.

use super::layout::{self, real, selector};

/// Bits of paging-structure entries.
pub mod pte {
    pub const P: u64 = 1 << 0;
    pub const RW: u64 = 1 << 1;
    pub const US: u64 = 1 << 2;
    pub const PWT: u64 = 1 << 3;
    pub const PCD: u64 = 1 << 4;
    pub const A: u64 = 1 << 5;
    pub const D: u64 = 1 << 6;
    pub const PS: u64 = 1 << 7;
    /// PAT bit of a 4-KiB page.
    pub const PAT: u64 = 1 << 7;
    /// What every mapping of the harness allows.
    pub const RWU: u64 = P | RW | US;
}

/// Descriptors (SDM Vol. 3A, figure 3-8): flat, present.
mod descriptor {
    pub const CODE64: u64 = 0x00AF_9B00_0000_FFFF;
    pub const DATA: u64 = 0x00CF_9300_0000_FFFF;
    pub const CODE32: u64 = 0x00CF_9B00_0000_FFFF;
    pub const USER_DATA: u64 = 0x00CF_F300_0000_FFFF;
    pub const USER_CODE64: u64 = 0x00AF_FB00_0000_FFFF;
    /// Byte-granular writable data with base 0.
    pub const fn data_with_limit(limit: u64) -> u64 {
        0x0040_9300_0000_0000 | limit & 0xFFFF | (limit >> 16 & 0xF) << 48
    }
    /// Available TSS, 64 or 32 bits wide.
    pub const fn tss(base: u64, limit: u64) -> u64 {
        limit | (base & 0xFF_FFFF) << 16 | 0x89 << 40 | (base >> 24 & 0xFF) << 56
    }
}

const HLT: u8 = 0xF4;
/// Interrupt gate, present; DPL 0 or 3.
const GATE: u64 = 0x8E;
const GATE_USER: u64 = 0xEE;
pub const TSS64_LIMIT: u64 = 0x67;
const TSS64_RSP0: u64 = 4;
const TSS64_IST1: u64 = 0x24;
const TSS32_ESP0: u64 = 4;
const TSS32_SS0: u64 = 8;

/// Memory from [`layout::PML4`] to [`layout::END`], and the real-mode part of the first MiB.
pub struct Image {
    pub body: Vec<u8>,
    pub vectors: Vec<u8>,
    pub real_stubs: Vec<u8>,
}

impl Image {
    pub fn new() -> Image {
        let mut image = Image {
            body: vec![0; (layout::END - layout::PML4) as usize],
            vectors: Vec::new(),
            real_stubs: vec![HLT; 256 * layout::STUB_BYTES as usize],
        };
        image.paging();
        image.segments();
        image.interrupts();
        image
    }

    fn bytes(&mut self, at: u64, bytes: &[u8]) {
        let at = (at - layout::PML4) as usize;
        self.body[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn qword(&mut self, at: u64, value: u64) {
        self.bytes(at, &value.to_le_bytes());
    }

    fn paging(&mut self) {
        self.qword(layout::PML4, layout::PDPT | pte::RWU);
        for (index, directory) in [layout::PD_IDENTITY, layout::PD_WINDOWS].into_iter().enumerate() {
            let index = index as u64;
            self.qword(layout::PDPT + 8 * index, directory | pte::RWU);
            self.qword(layout::PAE_PDPT + 8 * index, directory | pte::P);
        }
        for n in 0..layout::RAM_BYTES >> 21 {
            self.qword(layout::PD_IDENTITY + 8 * n, n << 21 | pte::PS | pte::RWU);
        }
        self.qword(layout::PD_WINDOWS, layout::PT_WINDOWS | pte::RWU);
    }

    fn segments(&mut self) {
        let table = [
            (selector::CODE64, descriptor::CODE64),
            (selector::DATA, descriptor::DATA),
            (selector::CODE32, descriptor::CODE32),
            (selector::USER_DATA, descriptor::USER_DATA),
            (selector::USER_CODE64, descriptor::USER_CODE64),
            (selector::TSS, descriptor::tss(layout::TSS, TSS64_LIMIT)),
            (selector::TSS32, descriptor::tss(layout::TSS32, TSS64_LIMIT)),
            (selector::SHORT_DATA, descriptor::data_with_limit(layout::PROGRAM + 190)),
        ];
        for (selector, descriptor) in table {
            self.qword(layout::GDT + u64::from(selector & !7), descriptor);
        }
        self.qword(layout::TSS + TSS64_RSP0, layout::STACK_TOP);
        self.qword(layout::TSS + TSS64_IST1, layout::IST_TOP);
        self.bytes(layout::TSS32 + TSS32_ESP0, &(layout::STACK_TOP as u32).to_le_bytes());
        self.bytes(layout::TSS32 + TSS32_SS0, &selector::DATA.to_le_bytes());
    }

    fn interrupts(&mut self) {
        for vector in 0..256u64 {
            let stub = layout::STUBS + layout::STUB_BYTES * vector;
            let kind = if vector == u64::from(layout::END_VECTOR) { GATE_USER } else { GATE };
            let offset = stub & 0xFFFF | (stub >> 16 & 0xFFFF) << 48 | kind << 40;
            // IST 1: whatever RSP holds, the frame has a place.
            self.qword(layout::IDT + 16 * vector, offset | u64::from(selector::CODE64) << 16 | 1 << 32);
            self.qword(layout::IDT + 16 * vector + 8, stub >> 32);
            self.qword(layout::IDT32 + 8 * vector, offset | u64::from(selector::CODE32) << 16);
            self.bytes(stub, &[HLT; layout::STUB_BYTES as usize]);
            let real = (real::STUBS + layout::STUB_BYTES * vector) as u32;
            self.vectors.extend((real & 0xF | (real >> 4) << 16).to_le_bytes());
        }
    }
}
