//! Operands that the encoding names.

use super::Draft;
use crate::forms::Form;
use crate::layout::{CODE, CODE_FIRST, PAGE};
use iced_x86::{Code, Instruction, MemorySize, Mnemonic, OpCodeOperandKind as K, OpKind, Register};

fn nth(first: Register, n: u64) -> Register {
    // Registers of one kind are consecutive in iced's enumeration, in encoding order.
    first + n as u32
}

impl Draft<'_> {
    /// General registers, and XMM registers.
    pub fn registers_of_mode(&self) -> u64 {
        if self.bits == 64 { 16 } else { 8 }
    }

    fn gpr(&mut self, size: usize) -> Register {
        let n = self.rng.below(self.registers_of_mode());
        let full = nth(Register::RAX, n);
        match size {
            // AL..BL, AH..BH, SPL..DIL, R8L..R15L.
            1 => nth(Register::AL, self.rng.below(if self.bits == 64 { 20 } else { 8 })),
            2 => full.full_register32().to_16(),
            4 => full.full_register32(),
            _ => full,
        }
    }

    /// Makes the instruction of a form. False if what was drawn does not fit together.
    pub fn operands(&mut self, form: Form) -> bool {
        let op = form.code.op_code();
        let mut insn = Instruction::default();
        insn.set_code(form.code);
        if op.op_kinds().iter().any(|k| matches!(k, K::mem | K::mem_offs)) || form.memory {
            if self.program {
                self.pointer_operand(&mut insn);
            } else {
                self.memory_operand(&mut insn, form);
            }
        }
        let mut second_imm8 = false;
        for (n, kind) in op.op_kinds().iter().enumerate() {
            let n = n as u32;
            let register = |i: &mut Instruction, r: Register| {
                i.set_op_kind(n, OpKind::Register);
                i.set_op_register(n, r);
            };
            match kind {
                K::mem | K::mem_offs => insn.set_op_kind(n, OpKind::Memory),
                K::r8_or_mem | K::r16_or_mem | K::r32_or_mem | K::r64_or_mem | K::mm_or_mem | K::xmm_or_mem
                    if form.memory =>
                {
                    insn.set_op_kind(n, OpKind::Memory)
                }
                K::r8_or_mem | K::r8_reg | K::r8_opcode => {
                    let r = self.gpr(1);
                    register(&mut insn, r)
                }
                K::r16_or_mem | K::r16_reg | K::r16_rm | K::r16_opcode => {
                    let r = self.gpr(2);
                    register(&mut insn, r)
                }
                K::r32_or_mem | K::r32_reg | K::r32_rm | K::r32_opcode | K::r32_vvvv => {
                    let r = self.gpr(4);
                    register(&mut insn, r)
                }
                K::r64_or_mem | K::r64_reg | K::r64_rm | K::r64_opcode | K::r64_vvvv => {
                    let r = self.gpr(8);
                    register(&mut insn, r)
                }
                K::mm_or_mem | K::mm_reg | K::mm_rm => {
                    let r = nth(Register::MM0, self.rng.below(8));
                    register(&mut insn, r)
                }
                K::xmm_or_mem | K::xmm_reg | K::xmm_rm => {
                    let r = nth(Register::XMM0, self.rng.below(self.registers_of_mode()));
                    register(&mut insn, r)
                }
                K::seg_reg => {
                    let r = nth(Register::ES, self.rng.below(6));
                    register(&mut insn, r)
                }
                K::cr_reg => {
                    let r = self.rng.pick(&[Register::CR0, Register::CR2, Register::CR3, Register::CR4]);
                    register(&mut insn, r)
                }
                K::dr_reg => {
                    // DR4 and DR5: vendors differ on whether CPL or CR4.DE is checked first.
                    let r = nth(Register::DR0, self.rng.pick(&[0, 1, 2, 3, 6, 7]));
                    register(&mut insn, r)
                }
                K::es => register(&mut insn, Register::ES),
                K::cs => register(&mut insn, Register::CS),
                K::ss => register(&mut insn, Register::SS),
                K::ds => register(&mut insn, Register::DS),
                K::fs => register(&mut insn, Register::FS),
                K::gs => register(&mut insn, Register::GS),
                K::al => register(&mut insn, Register::AL),
                K::cl => register(&mut insn, Register::CL),
                K::ax => register(&mut insn, Register::AX),
                K::dx => register(&mut insn, Register::DX),
                K::eax => register(&mut insn, Register::EAX),
                K::rax => register(&mut insn, Register::RAX),
                K::st0 => register(&mut insn, Register::ST0),
                K::sti_opcode => {
                    let r = nth(Register::ST0, self.rng.below(8));
                    register(&mut insn, r)
                }
                K::imm8 if second_imm8 => {
                    insn.set_op_kind(n, OpKind::Immediate8_2nd);
                    insn.set_immediate8_2nd(self.immediate8(form.code));
                }
                K::imm8 => {
                    insn.set_op_kind(n, OpKind::Immediate8);
                    insn.set_immediate8(self.immediate8(form.code));
                    second_imm8 = true;
                }
                K::imm8_const_1 => {
                    insn.set_op_kind(n, OpKind::Immediate8);
                    insn.set_immediate8(1);
                }
                K::imm8sex16 => {
                    insn.set_op_kind(n, OpKind::Immediate8to16);
                    insn.set_immediate8to16(i16::from(self.rng.int() as i8));
                }
                K::imm8sex32 => {
                    insn.set_op_kind(n, OpKind::Immediate8to32);
                    insn.set_immediate8to32(i32::from(self.rng.int() as i8));
                }
                K::imm8sex64 => {
                    insn.set_op_kind(n, OpKind::Immediate8to64);
                    insn.set_immediate8to64(i64::from(self.rng.int() as i8));
                }
                K::imm16 => {
                    insn.set_op_kind(n, OpKind::Immediate16);
                    // A frame size or a number of bytes to release: mostly within the stack page.
                    let any = self.rng.one_in(6);
                    let v = self.rng.int() as u16;
                    insn.set_immediate16(if any { v } else { v & 0xFF });
                    second_imm8 = true;
                }
                K::imm32 => {
                    insn.set_op_kind(n, OpKind::Immediate32);
                    insn.set_immediate32(self.rng.int() as u32);
                }
                K::imm32sex64 => {
                    insn.set_op_kind(n, OpKind::Immediate32to64);
                    insn.set_immediate32to64(i64::from(self.rng.int() as i32));
                }
                K::imm64 => {
                    insn.set_op_kind(n, OpKind::Immediate64);
                    insn.set_immediate64(self.rng.int());
                }
                K::seg_rSI => {
                    let wide = self.address64(&mut insn);
                    insn.set_op_kind(n, if wide { OpKind::MemorySegRSI } else { OpKind::MemorySegESI });
                }
                K::es_rDI => {
                    let wide = self.address64(&mut insn);
                    insn.set_op_kind(n, if wide { OpKind::MemoryESRDI } else { OpKind::MemoryESEDI });
                }
                K::seg_rDI => {
                    let wide = self.address64(&mut insn);
                    insn.set_op_kind(n, if wide { OpKind::MemorySegRDI } else { OpKind::MemorySegEDI });
                }
                K::seg_rBX_al => {
                    let wide = self.address64(&mut insn);
                    insn.set_op_kind(n, OpKind::Memory);
                    insn.set_memory_base(if wide { Register::RBX } else { Register::EBX });
                    insn.set_memory_index(Register::AL);
                    insn.set_memory_index_scale(1);
                }
                K::br64_1 | K::br64_4 => {
                    insn.set_op_kind(n, OpKind::NearBranch64);
                    let target = self.near_target(*kind == K::br64_1);
                    insn.set_near_branch64(target);
                }
                K::br32_1 | K::br32_4 => {
                    insn.set_op_kind(n, OpKind::NearBranch32);
                    let target = self.near_target(*kind == K::br32_1);
                    insn.set_near_branch32(target as u32);
                }
                _ => return false,
            }
        }
        self.prefixes(&mut insn, form);
        self.insn = insn;
        true
    }

    /// The address size of implied memory operands, the same for all of an instruction.
    fn address64(&mut self, insn: &mut Instruction) -> bool {
        // CR3's low bit is not used by anybody here; the first operand's kind tells what was drawn.
        match insn.op0_kind() {
            _ if self.program => true,
            _ if self.bits == 32 => false,
            OpKind::MemoryESRDI | OpKind::MemorySegRSI | OpKind::MemorySegRDI => true,
            OpKind::MemoryESEDI | OpKind::MemorySegESI | OpKind::MemorySegEDI => false,
            _ => !self.rng.one_in(4),
        }
    }

    fn immediate8(&mut self, code: Code) -> u8 {
        match code.mnemonic() {
            // Vectors of the kernel's own services are left out; see `exclusion` for INT1.
            Mnemonic::Int => loop {
                let v = self.rng.bits() as u8;
                if !matches!(v, 3 | 4 | 0x80) {
                    return v;
                }
            },
            _ => self.rng.int() as u8,
        }
    }

    /// A target among the INT3s of the code pages, or the next instruction.
    fn near_target(&mut self, short: bool) -> u64 {
        let rip = self.pre.rip;
        for _ in 0..8 {
            let target = if short {
                (rip + 2).wrapping_add_signed(i64::from(self.rng.bits() as i8))
            } else {
                CODE_FIRST + self.rng.below(2 * PAGE as u64 - 0x48)
            };
            // Not into the case itself nor the jump behind it.
            if (CODE_FIRST..CODE + 2 * PAGE as u64 - 8).contains(&target) && target.abs_diff(rip) > 32 {
                return target;
            }
        }
        if rip > CODE + PAGE as u64 { rip - 40 } else { rip + 60 }
    }

    fn prefixes(&mut self, insn: &mut Instruction, form: Form) {
        let op = form.code.op_code();
        let writes_memory = form.memory && insn.op0_kind() == OpKind::Memory;
        if op.can_use_lock_prefix() && writes_memory && self.rng.one_in(4) {
            insn.set_has_lock_prefix(true);
        }
        if self.program {
            // No count and no segment base is known here.
            return;
        }
        if insn.is_string_instruction() {
            match self.rng.below(4) {
                0 | 1 => insn.set_has_rep_prefix(op.can_use_rep_prefix()),
                2 if op.can_use_repne_prefix() => insn.set_has_repne_prefix(true),
                _ => {}
            }
        }
        let uses_segment = insn.op_kinds().any(|k| {
            matches!(
                k,
                OpKind::Memory
                    | OpKind::MemorySegRSI
                    | OpKind::MemorySegESI
                    | OpKind::MemorySegRDI
                    | OpKind::MemorySegEDI
            )
        });
        if uses_segment && insn.segment_prefix() == Register::None && self.rng.one_in(24) {
            let r = nth(Register::ES, self.rng.below(6));
            insn.set_segment_prefix(r);
        }
    }

    /// Bytes of the explicit memory operand.
    pub fn operand_bytes(insn: &Instruction) -> u64 {
        let size = insn.memory_size();
        match size {
            MemorySize::Fxsave_512Byte | MemorySize::Fxsave64_512Byte => 512,
            MemorySize::Xsave | MemorySize::Xsave64 => 576,
            _ => (size.size() as u64).max(1),
        }
    }
}

trait To16 {
    fn to_16(self) -> Register;
}

impl To16 for Register {
    fn to_16(self) -> Register {
        nth(Register::AX, self.number() as u64)
    }
}
