//! Descriptors in GDT, LDT and IDT, and what a TSS says about stacks (SDM Vol. 3A, sections 3.4.5, 3.5, 5.8.3, 7.2).
//!
//! Everything here reads and checks; nothing but the accessed and busy bits in memory is changed, so that a caller can
//! give up at any point with the processor's state intact. Exceptions carry EXT = 0; event delivery sets it.

use crate::operand::canonical;
use crate::state::Cpu;
use x86::segment::{Segment, ar};
use x86::{Exception, cr};

/// Types of system descriptors (SDM Vol. 3A, table 3-2).
pub mod system_type {
    pub const TSS16_AVAILABLE: u32 = 1;
    pub const LDT: u32 = 2;
    pub const TSS16_BUSY: u32 = 3;
    pub const CALL_GATE16: u32 = 4;
    pub const TASK_GATE: u32 = 5;
    pub const INTERRUPT_GATE16: u32 = 6;
    pub const TRAP_GATE16: u32 = 7;
    /// 64-bit TSS in IA-32e mode.
    pub const TSS_AVAILABLE: u32 = 9;
    pub const TSS_BUSY: u32 = 11;
    /// 64-bit call gate in IA-32e mode.
    pub const CALL_GATE: u32 = 12;
    pub const INTERRUPT_GATE: u32 = 14;
    pub const TRAP_GATE: u32 = 15;
    /// The bit that makes an available TSS a busy one.
    pub const BUSY: u32 = 1 << 1;
}

/// Fields of a selector (SDM Vol. 3A, figure 3-6).
pub mod selector {
    pub const RPL: u16 = 3;
    /// Table indicator: LDT.
    pub const TI: u16 = 1 << 2;
    pub const INDEX_AND_TI: u16 = !RPL;

    pub fn rpl(selector: u16) -> u8 {
        (selector & RPL) as u8
    }

    /// Null: index 0 of the GDT, whatever RPL is.
    pub fn is_null(selector: u16) -> bool {
        selector & INDEX_AND_TI == 0
    }

    /// The error code that names a selector, with EXT = IDT = 0 (SDM Vol. 3A, figure 6-7).
    pub fn error_code(selector: u16) -> u16 {
        selector & INDEX_AND_TI
    }
}

/// Offset of the access-rights byte (type, S, DPL, P) in a descriptor.
const ACCESS_BYTE: u64 = 5;

/// Offsets in a TSS (SDM Vol. 3A, figures 7-2, 7-10, 7-11).
pub mod tss {
    /// SP0 of a 16-bit TSS; SS0 follows, 4 bytes a level.
    pub const SP0_16: u64 = 2;
    /// ESP0 of a 32-bit TSS; SS0 follows, 8 bytes a level. RSP0 of a 64-bit TSS.
    pub const SP0: u64 = 4;
    /// IST1 of a 64-bit TSS.
    pub const IST1: u64 = 36;
    /// I/O map base address.
    pub const IO_MAP_BASE: u64 = 102;
    /// Bytes of the interrupt redirection bitmap, which ends where the I/O map starts.
    pub const REDIRECTION_BYTES: u64 = 32;
}

/// A descriptor found in the GDT or LDT.
#[derive(Debug, Clone, Copy)]
pub struct Descriptor {
    /// Linear address of its first byte.
    pub linear: u64,
    /// Its first 8 bytes.
    pub raw: u64,
    /// Its next 8 bytes, when it was fetched as a 16-byte system descriptor; else 0.
    pub upper: u64,
    /// Decoded as a segment, with the selector it was found by.
    pub segment: Segment,
}

impl Descriptor {
    /// The 4-bit type field.
    pub fn kind(&self) -> u32 {
        self.segment.ar & ar::TYPE
    }

    /// Code or data (S = 1), not a system descriptor.
    pub fn is_code_or_data(&self) -> bool {
        self.segment.is(ar::S)
    }

    pub fn is_code(&self) -> bool {
        self.segment.is(ar::S | ar::CODE)
    }

    pub fn is_writable_data(&self) -> bool {
        self.segment.ar & (ar::S | ar::CODE | ar::RW) == ar::S | ar::RW
    }

    pub fn is_conforming_code(&self) -> bool {
        self.segment.is(ar::S | ar::CODE | ar::EC)
    }

    /// Base of a 16-byte LDT or TSS descriptor.
    pub fn base64(&self) -> u64 {
        self.segment.base | self.upper << 32
    }

    /// Bits 12:8 of the last doubleword of a 16-byte descriptor must be zero, so that its upper half is never taken for
    /// a descriptor of its own (SDM Vol. 3A, section 5.8.3.1).
    pub fn upper_type_is_zero(&self) -> bool {
        self.upper >> 40 & 0x1F == 0
    }
}

/// A call, interrupt or trap gate (SDM Vol. 3A, figures 5-8, 5-9, 6-2, 6-8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gate {
    pub selector: u16,
    pub offset: u64,
    /// Type with S as bit 4: a gate has S = 0, so values over 15 are no gates.
    pub kind: u32,
    pub dpl: u8,
    pub present: bool,
    /// Parameter count of a 16/32-bit call gate; IST index (3 bits) of a 64-bit interrupt gate.
    pub low_bits: u8,
}

impl Gate {
    /// Decodes an 8-byte gate, or a 16-byte one with its upper half.
    pub fn decode(raw: u64, upper: u64) -> Gate {
        let offset = raw & 0xFFFF | raw >> 32 & 0xFFFF_0000 | upper << 32;
        let mut gate = Gate {
            selector: (raw >> 16) as u16,
            offset,
            kind: (raw >> 40) as u32 & 0x1F,
            dpl: (raw >> 45) as u8 & 3,
            present: raw >> 47 & 1 != 0,
            low_bits: (raw >> 32) as u8,
        };
        if gate.is_16bit() {
            gate.offset &= 0xFFFF;
        }
        gate
    }

    fn is_16bit(&self) -> bool {
        use system_type::{CALL_GATE16, INTERRUPT_GATE16, TRAP_GATE16};
        matches!(self.kind, CALL_GATE16 | INTERRUPT_GATE16 | TRAP_GATE16)
    }

    /// Bytes of each value that the gate pushes.
    pub fn operand_size(&self, ia32e: bool) -> usize {
        match (ia32e, self.is_16bit()) {
            (true, _) => 8,
            (false, true) => 2,
            (false, false) => 4,
        }
    }
}

/// What a null selector loads: unusable, base 0 (Intel clears the base; SDM Vol. 3A, section 5.4.1).
pub fn null_segment(selector: u16) -> Segment {
    Segment { selector, ar: ar::UNUSABLE, limit: 0, base: 0 }
}

/// Virtual-8086 mode's fixed hidden part (SDM Vol. 3B, section 21.2.1): 64 KiB, read/write, DPL 3.
pub fn v86_segment(selector: u16) -> Segment {
    const AR: u32 = ar::P | 3 << ar::DPL_SHIFT | ar::S | ar::RW | ar::ACCESSED;
    Segment { selector, ar: AR, limit: 0xFFFF, base: u64::from(selector) << 4 }
}

/// Real mode replaces selector and base only (SDM Vol. 3A, section 9.9.2). A register that protected mode left unusable
/// becomes an ordinary 64-KiB one: real mode has no unusable segments.
pub fn real_segment(old: Segment, selector: u16) -> Segment {
    let base = u64::from(selector) << 4;
    if old.is(ar::UNUSABLE) {
        return Segment { selector, base, ar: ar::P | ar::S | ar::RW | ar::ACCESSED, limit: 0xFFFF };
    }
    Segment { selector, base, ..old }
}

impl Cpu {
    /// IA-32e mode is active: compatibility or 64-bit mode.
    pub fn ia32e_active(&self) -> bool {
        self.msr.efer & cr::efer::LMA != 0
    }

    /// Linear address in a system table; without IA-32e mode linear addresses have 32 bits.
    fn table_address(&self, base: u64, offset: u64) -> u64 {
        let linear = base.wrapping_add(offset);
        if self.ia32e_active() { linear } else { linear & 0xFFFF_FFFF }
    }

    pub(crate) fn read_system_u16(&mut self, linear: u64) -> Result<u16, Exception> {
        let mut b = [0; 2];
        self.read_system(linear, &mut b)?;
        Ok(u16::from_le_bytes(b))
    }

    pub(crate) fn read_system_u32(&mut self, linear: u64) -> Result<u32, Exception> {
        let mut b = [0; 4];
        self.read_system(linear, &mut b)?;
        Ok(u32::from_le_bytes(b))
    }

    pub(crate) fn read_system_u64(&mut self, linear: u64) -> Result<u64, Exception> {
        let mut b = [0; 8];
        self.read_system(linear, &mut b)?;
        Ok(u64::from_le_bytes(b))
    }

    /// Linear address of the descriptor a non-null selector names, if all its `bytes` are within its table's limit.
    fn descriptor_address(&self, selector: u16, bytes: u64) -> Option<u64> {
        let offset = u64::from(selector & !(selector::RPL | selector::TI));
        let (base, limit) = if selector & selector::TI == 0 {
            (self.gdtr.base, u64::from(self.gdtr.limit))
        } else if self.ldtr.is(ar::UNUSABLE) || selector::is_null(self.ldtr.selector) {
            return None;
        } else {
            (self.ldtr.base, u64::from(self.ldtr.limit))
        };
        (offset + bytes - 1 <= limit).then(|| self.table_address(base, offset))
    }

    /// Reads the descriptor of a non-null selector; `None` if it lies beyond its table. `bytes` is 8, or 16 for a
    /// system descriptor of IA-32e mode.
    pub(crate) fn find_descriptor(&mut self, selector: u16, bytes: u64) -> Result<Option<Descriptor>, Exception> {
        let Some(linear) = self.descriptor_address(selector, bytes) else { return Ok(None) };
        let raw = self.read_system_u64(linear)?;
        let upper = if bytes == 16 { self.read_system_u64(linear.wrapping_add(8))? } else { 0 };
        Ok(Some(Descriptor { linear, raw, upper, segment: Segment::from_descriptor(selector, raw) }))
    }

    /// The descriptor of a non-null selector, or `fault(selector)` if it lies beyond its table.
    pub(crate) fn fetch_descriptor(
        &mut self,
        selector: u16,
        fault: fn(u16) -> Exception,
    ) -> Result<Descriptor, Exception> {
        self.find_descriptor(selector, 8)?.ok_or(fault(selector::error_code(selector)))
    }

    /// The same for a 16-byte system descriptor.
    pub(crate) fn fetch_descriptor16(
        &mut self,
        selector: u16,
        fault: fn(u16) -> Exception,
    ) -> Result<Descriptor, Exception> {
        self.find_descriptor(selector, 16)?.ok_or(fault(selector::error_code(selector)))
    }

    /// Sets bits of the type field in memory and in `d`. A descriptor that has them is not written, so that tables may
    /// be mapped read-only.
    pub(crate) fn set_type_bits(&mut self, d: &mut Descriptor, bits: u32) -> Result<(), Exception> {
        if d.segment.is(bits) {
            return Ok(());
        }
        d.segment.ar |= bits;
        self.write_system(d.linear.wrapping_add(ACCESS_BYTE), &[d.segment.ar as u8])
    }

    /// Sets the accessed bit, which loading a segment register does (SDM Vol. 3A, section 3.4.5.1).
    pub(crate) fn set_accessed(&mut self, d: &mut Descriptor) -> Result<(), Exception> {
        self.set_type_bits(d, ar::ACCESSED)
    }

    /// #TS with the selector of the current TSS: a stack pointer lies beyond its limit.
    fn tss_fault(&self) -> Exception {
        Exception::InvalidTss(selector::error_code(self.tr.selector))
    }

    /// SS and ESP of a privilege level from a 16- or 32-bit TSS.
    pub(crate) fn tss_stack(&mut self, level: u8) -> Result<(u16, u64), Exception> {
        use system_type::{TSS16_AVAILABLE, TSS16_BUSY};
        let level = u64::from(level);
        let limit = u64::from(self.tr.limit);
        if matches!(self.tr.ar & ar::TYPE, TSS16_AVAILABLE | TSS16_BUSY) {
            let at = level * 4 + tss::SP0_16;
            if at + 3 > limit {
                return Err(self.tss_fault());
            }
            let linear = self.table_address(self.tr.base, at);
            let pair = self.read_system_u32(linear)?;
            return Ok(((pair >> 16) as u16, u64::from(pair & 0xFFFF)));
        }
        let at = level * 8 + tss::SP0;
        if at + 5 > limit {
            return Err(self.tss_fault());
        }
        let esp_at = self.table_address(self.tr.base, at);
        let ss_at = self.table_address(self.tr.base, at + 4);
        let esp = self.read_system_u32(esp_at)?;
        let ss = self.read_system_u16(ss_at)?;
        Ok((ss, u64::from(esp)))
    }

    /// A stack pointer (RSP0-2 or IST1-7) at an offset of the 64-bit TSS; #SS(0) if it is not canonical.
    pub(crate) fn tss64_stack(&mut self, offset: u64) -> Result<u64, Exception> {
        if offset + 7 > u64::from(self.tr.limit) {
            return Err(self.tss_fault());
        }
        let rsp = self.read_system_u64(self.tr.base.wrapping_add(offset))?;
        if canonical(rsp) { Ok(rsp) } else { Err(Exception::SS0) }
    }

    /// Stack segment for a more privileged level, named by a legacy TSS (SDM Vol. 2A, "CALL", MORE-PRIVILEGE): #TS with
    /// its selector for what is wrong with it, #SS if it is not present.
    pub(crate) fn inner_stack_segment(&mut self, ss: u16, level: u8) -> Result<Descriptor, Exception> {
        let bad = Exception::InvalidTss(selector::error_code(ss));
        if selector::is_null(ss) {
            return Err(bad);
        }
        let d = self.fetch_descriptor(ss, Exception::InvalidTss)?;
        if selector::rpl(ss) != level || d.segment.dpl() != level || !d.is_writable_data() {
            return Err(bad);
        }
        if !d.segment.present() {
            return Err(Exception::StackFault(selector::error_code(ss)));
        }
        Ok(d)
    }

    /// Checks the instruction pointer of a code segment that is about to be loaded: #GP(0) if not canonical (64-bit
    /// code) or beyond the limit.
    pub(crate) fn check_code_offset(&self, code: &Segment, offset: u64) -> Result<(), Exception> {
        let ok =
            if self.ia32e_active() && code.is(ar::L) { canonical(offset) } else { offset <= u64::from(code.limit) };
        if ok { Ok(()) } else { Err(Exception::GP0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_64_bit_interrupt_gate_decodes_to_its_fields() {
        let raw = 0x1234_8E05_0010_5678;
        let gate = Gate::decode(raw, 0xFFFF_8000);
        assert_eq!(gate.offset, 0xFFFF_8000_1234_5678);
        assert_eq!(gate.selector, 0x10);
        assert_eq!(gate.kind, system_type::INTERRUPT_GATE);
        assert_eq!((gate.dpl, gate.present, gate.low_bits & 7), (0, true, 5));
    }

    #[test]
    fn a_16_bit_gate_has_a_16_bit_offset() {
        let gate = Gate::decode(0xFFFF_E603_0008_1234, 0);
        assert_eq!((gate.offset, gate.dpl, gate.operand_size(false)), (0x1234, 3, 2));
    }

    #[test]
    fn null_selectors_are_null_with_any_rpl_but_not_in_the_ldt() {
        assert!((0..4).all(selector::is_null));
        assert!(!selector::is_null(4));
    }

    #[test]
    fn real_mode_loads_keep_limit_and_access_rights() {
        let big = Segment { selector: 8, ar: 0xC093, limit: u32::MAX, base: 0 };
        let s = real_segment(big, 0x1234);
        assert_eq!((s.base, s.limit, s.ar), (0x12340, u32::MAX, 0xC093));
        assert!(real_segment(null_segment(0), 0).present());
    }
}
