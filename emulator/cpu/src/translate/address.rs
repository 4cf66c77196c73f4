//! Memory operands.
//!
//! In 64-bit mode with 64-bit addresses a handler forms the address itself: base + displacement ([`Base`]), or the full
//! form. All other modes put an address op first, which does the truncation, limit and type checks of that mode and
//! leaves a linear address in [`slot::TMP`]; so no handler exists twice for them.
//!
//! [`Base`]: crate::exec::int::Base

use super::Translator;
use crate::exec::int::mov::{address_64, address_legacy};
use crate::mmu::Access;
use crate::op::{At, Op, next};
use crate::operand::{address_size, memory_segment};
use crate::state::{Cpu, slot};
use iced_x86::{Instruction, Register};
use x86::segment::sreg;

/// The address fields of an op.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Address {
    pub base: u8,
    pub index: u8,
    pub scale: u8,
    pub seg: u8,
    pub disp: i32,
    /// The handler must take the full form.
    pub full: bool,
}

impl Address {
    pub fn apply(self, op: Op) -> Op {
        Op { base: self.base, index: self.index, scale: self.scale, seg: self.seg, disp: self.disp, ..op }
    }
}

fn slot_of(r: Register) -> u8 {
    if r == Register::None { slot::ZERO } else { r.number() as u8 & 15 }
}

/// The linear address of a displacement of more than 32 bits: [`Op::imm`] + segment base.
fn address_absolute(cpu: &mut Cpu, op: At) {
    cpu.regs[slot::TMP as usize] = op.imm.wrapping_add(cpu.regs[op.seg as usize]);
    next(cpu, op)
}

impl Translator<'_> {
    /// The memory operand's address fields, after pushing an address op if the form needs one. `size` in bytes is that of
    /// the whole access.
    pub(crate) fn address(&mut self, insn: &Instruction, size: usize, access: Access) -> Address {
        let segment = memory_segment(insn, self.mode());
        let seg = slot::SEG + segment as u8;
        let asize = address_size(insn, self.mode().bitness());
        let (base, disp) = match insn.memory_base() {
            Register::RIP | Register::EIP => (slot::RIP, self.delta(insn.memory_displacement64())),
            r => (slot_of(r), insn.memory_displacement64()),
        };
        let index = slot_of(insn.memory_index());
        let scale = insn.memory_index_scale().trailing_zeros() as u8;
        if self.mode().is_long64() && asize == 8 {
            let has_base = segment == sreg::FS || segment == sreg::GS;
            let Ok(disp) = i32::try_from(disp as i64) else {
                let op = Op { imm: disp, seg, ..self.op(address_absolute) };
                self.push(op);
                return Address { base: slot::TMP, index: slot::ZERO, scale: 0, seg, disp: 0, full: false };
            };
            let full = index != slot::ZERO || has_base;
            return Address { base, index, scale, seg, disp, full };
        }
        let mask = if asize == 8 { u64::MAX } else { (1u64 << (asize * 8)) - 1 };
        // Sums are taken modulo the address size, so the low 32 bits of the displacement are enough.
        let op = Op {
            imm: mask,
            base,
            index,
            scale,
            seg,
            disp: disp as i32,
            s: size as u8,
            d: u8::from(access == Access::Write),
            ..self.op(if self.mode().is_long64() { address_64 } else { address_legacy })
        };
        self.push(op);
        Address { base: slot::TMP, index: slot::ZERO, scale: 0, seg: slot::SEG + sreg::DS as u8, disp: 0, full: false }
    }

    /// As [`Translator::address`], for handlers that only exist with the full form: the segment slot must be right even when
    /// only base and displacement are used.
    pub(crate) fn full_address(&mut self, insn: &Instruction, size: usize, access: Access) -> Address {
        let a = self.address(insn, size, access);
        if a.base == slot::TMP { Address { seg: slot::ZERO, ..a } } else { a }
    }
}
