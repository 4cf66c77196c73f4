//! Which handler an instruction gets.

use super::Translator;
use crate::exec::cold;
use crate::exec::general::exchange::cmpxchg16b_hot;
use crate::exec::general::string;
use crate::exec::int::alu::{self, Form, Handlers};
use crate::exec::int::{bits, branch, exchange, mov, mul, shift, stack};
use crate::exec::simd::hot;
use crate::exec::system::flagctl::{Cli, SetAc, Sti};
use crate::exec::system::syscall::Swapgs;
use crate::mmu::Access;
use crate::op::{Handler, Op};
use crate::state::slot;
use iced_x86::{ConditionCode, Instruction, Mnemonic, OpKind, Register};
use x86::segment::sreg;

/// The register field of an op: its number, for byte registers the offset in the register file.
fn reg(r: Register) -> u8 {
    if matches!(r, Register::AH | Register::CH | Register::DH | Register::BH) {
        return (r.number() as u8 - 4) * 8 + 1;
    }
    // iced numbers SPL..R15L after AH..BH.
    if r.is_gpr8() { r.full_register().number() as u8 * 8 } else { r.number() as u8 }
}

fn operand_size(insn: &Instruction, n: u32) -> usize {
    match insn.op_kind(n) {
        OpKind::Register => insn.op_register(n).size(),
        OpKind::Memory => insn.memory_size().size(),
        _ => 0,
    }
}

fn is_reg(insn: &Instruction, n: u32) -> bool {
    insn.op_kind(n) == OpKind::Register
}

fn is_mem(insn: &Instruction, n: u32) -> bool {
    insn.op_kind(n) == OpKind::Memory
}

fn is_gpr(insn: &Instruction, n: u32) -> bool {
    is_reg(insn, n) && insn.op_register(n).is_gpr()
}

/// The condition's number in SDM Vol. 1, table B-1.
fn condition(cc: ConditionCode) -> u8 {
    match cc {
        ConditionCode::None | ConditionCode::o => 0,
        ConditionCode::no => 1,
        ConditionCode::b => 2,
        ConditionCode::ae => 3,
        ConditionCode::e => 4,
        ConditionCode::ne => 5,
        ConditionCode::be => 6,
        ConditionCode::a => 7,
        ConditionCode::s => 8,
        ConditionCode::ns => 9,
        ConditionCode::p => 10,
        ConditionCode::np => 11,
        ConditionCode::l => 12,
        ConditionCode::ge => 13,
        ConditionCode::le => 14,
        ConditionCode::g => 15,
    }
}

impl Translator<'_> {
    /// Adds the ops of an instruction that has hot handlers; `None` if it has none. `Some(true)`: the block ends.
    pub(super) fn select(&mut self, insn: &Instruction) -> Option<bool> {
        use Mnemonic as M;
        match insn.mnemonic() {
            M::Mov => self.mov(insn)?,
            M::Add => self.two_operand(insn, Handlers::<alu::Add>::alu, Access::Write)?,
            M::Or => self.two_operand(insn, Handlers::<alu::Or>::alu, Access::Write)?,
            M::Adc => self.two_operand(insn, Handlers::<alu::Adc>::alu, Access::Write)?,
            M::Sbb => self.two_operand(insn, Handlers::<alu::Sbb>::alu, Access::Write)?,
            M::And => self.two_operand(insn, Handlers::<alu::And>::alu, Access::Write)?,
            M::Sub => self.two_operand(insn, Handlers::<alu::Sub>::alu, Access::Write)?,
            M::Xor => self.two_operand(insn, Handlers::<alu::Xor>::alu, Access::Write)?,
            M::Cmp => self.two_operand(insn, Handlers::<alu::Cmp>::alu, Access::Read)?,
            M::Test => self.two_operand(insn, Handlers::<alu::Test>::alu, Access::Read)?,
            M::Inc => self.one_operand(insn, alu::unary_handler::<alu::Inc>)?,
            M::Dec => self.one_operand(insn, alu::unary_handler::<alu::Dec>)?,
            M::Neg => self.one_operand(insn, alu::unary_handler::<alu::Neg>)?,
            M::Not => self.one_operand(insn, alu::unary_handler::<alu::Not>)?,
            M::Shl | M::Sal => self.shift(insn, shift::shift_handler::<shift::Shl>)?,
            M::Shr => self.shift(insn, shift::shift_handler::<shift::Shr>)?,
            M::Sar => self.shift(insn, shift::shift_handler::<shift::Sar>)?,
            M::Rol => self.shift(insn, shift::shift_handler::<shift::Rol>)?,
            M::Ror => self.shift(insn, shift::shift_handler::<shift::Ror>)?,
            M::Movzx => self.extend(insn, mov::extend_handler::<mov::Zero>)?,
            M::Movsx | M::Movsxd => self.extend(insn, mov::extend_handler::<mov::Sign>)?,
            M::Lea => self.lea(insn),
            M::Xchg if is_mem(insn, 0) => self.exchange(insn, exchange::xchg_handler),
            M::Xchg => self.xchg(insn)?,
            M::Cmpxchg if is_mem(insn, 0) => self.exchange(insn, exchange::cmpxchg_handler),
            M::Xadd if is_mem(insn, 0) => self.exchange(insn, exchange::xadd_handler),
            M::Imul if insn.op_count() > 1 => self.imul(insn)?,
            M::Imul => self.wide(insn, mul::wide_handler::<mul::Signed>)?,
            M::Mul => self.wide(insn, mul::wide_handler::<mul::Unsigned>)?,
            M::Bt => self.bit(insn, bits::bit_handler::<bits::Bt>, Access::Read)?,
            M::Bts => self.bit(insn, bits::bit_handler::<bits::Bts>, Access::Write)?,
            M::Btr => self.bit(insn, bits::bit_handler::<bits::Btr>, Access::Write)?,
            M::Btc => self.bit(insn, bits::bit_handler::<bits::Btc>, Access::Write)?,
            M::Bsf => self.two_operand(insn, bits::scan_handler::<bits::Bsf>, Access::Read)?,
            M::Bsr => self.two_operand(insn, bits::scan_handler::<bits::Bsr>, Access::Read)?,
            M::Tzcnt => self.two_operand(insn, bits::scan_handler::<bits::Tzcnt>, Access::Read)?,
            M::Lzcnt => self.two_operand(insn, bits::scan_handler::<bits::Lzcnt>, Access::Read)?,
            M::Popcnt => self.two_operand(insn, bits::scan_handler::<bits::Popcnt>, Access::Read)?,
            M::Bswap => {
                let size = insn.op0_register().size();
                let op = Op { d: reg(insn.op0_register()), ..self.op(mov::bswap_handler(size)) };
                self.push(op);
            }
            M::Cbw => self.plain(mov::convert_a_handler(2)),
            M::Cwde => self.plain(mov::convert_a_handler(4)),
            M::Cdqe => self.plain(mov::convert_a_handler(8)),
            M::Cwd => self.plain(mov::convert_d_handler(2)),
            M::Cdq => self.plain(mov::convert_d_handler(4)),
            M::Cqo => self.plain(mov::convert_d_handler(8)),
            // Nothing to execute: no op, the instruction only counts. Stores are ordered as they are executed.
            M::Nop | M::Endbr64 | M::Endbr32 | M::Lfence | M::Mfence | M::Sfence => {}
            M::Prefetcht0 | M::Prefetcht1 | M::Prefetcht2 | M::Prefetchnta | M::Prefetchw => {}
            M::Cmpxchg16b if self.mode().is_long64() => {
                let a = self.full_address(insn, 16, Access::Write);
                self.hot_case(insn, a.apply(self.op(cmpxchg16b_hot)))?
            }
            M::Clac => self.hot_case(insn, self.op(cold::direct::<SetAc<false>>))?,
            M::Stac => self.hot_case(insn, self.op(cold::direct::<SetAc<true>>))?,
            M::Cli => return self.hot_end(insn, cold::direct_end::<Cli>),
            M::Sti => return self.hot_end(insn, cold::direct_end::<Sti>),
            M::Swapgs => return self.hot_end(insn, cold::direct_end::<Swapgs>),
            _ if insn.is_string_instruction() && self.mode().is_long64() => {
                return self.hot_end(insn, string::rep_handler(insn)?);
            }
            M::Push => self.push_insn(insn)?,
            M::Pushfq if self.mode().is_long64() => {
                let seg = slot::SEG + sreg::SS as u8;
                let op = Op { seg, ..self.op(stack::PUSH_F) };
                self.push(op);
            }
            M::Pop if self.mode().is_long64() && is_gpr(insn, 0) && operand_size(insn, 0) == 8 => {
                let seg = slot::SEG + sreg::SS as u8;
                let op = Op { d: reg(insn.op0_register()), seg, ..self.op(stack::POP_R) };
                self.push(op);
            }
            M::Leave if self.mode().is_long64() && insn.code() == iced_x86::Code::Leaveq => {
                let seg = slot::SEG + sreg::SS as u8;
                let op = Op { base: slot::RBP, seg, ..self.op(stack::LEAVE) };
                self.push(op);
            }
            M::Jmp | M::Call | M::Ret if self.mode().is_long64() => {
                self.branch(insn)?;
                return Some(true);
            }
            _ if insn.is_jcc_short_or_near() && self.mode().is_long64() => {
                return Some(self.jcc(insn));
            }
            _ if insn.condition_code() == ConditionCode::None => self.vector(insn)?,
            // SETcc and CMOVcc: what else has a condition is a branch.
            _ if insn.op_count() == 1 && (is_reg(insn, 0) || is_mem(insn, 0)) => self.set_cc(insn),
            _ if insn.op_count() == 2 => self.cmov_cc(insn)?,
            _ => return None,
        }
        Some(false)
    }

    /// Adds an op whose handler leaves all but the usual case to the cold op of [`Op::imm`].
    fn hot_case(&mut self, insn: &Instruction, op: Op) -> Option<()> {
        let imm = self.note_cold(insn, cold::lookup(insn)?);
        self.push(Op { imm, ..op });
        Some(())
    }

    /// The same for instructions that end a block.
    fn hot_end(&mut self, insn: &Instruction, f: Handler) -> Option<bool> {
        let imm = self.note_cold(insn, cold::lookup(insn)?);
        let op = Op { imm, ..self.op(f) };
        self.push_terminal(op);
        Some(true)
    }

    fn vector(&mut self, insn: &Instruction) -> Option<()> {
        if !self.mode().is_long64() || insn.op_count() != 2 {
            return None;
        }
        let memory = (0..2).find(|n| is_mem(insn, *n));
        let f = hot::handler(insn.code(), memory)?;
        let register = |n: u32| if is_reg(insn, n) { insn.op_register(n).number() as u8 } else { 0 };
        let op = Op { d: register(0), s: register(1), ..self.op(f) };
        let op = match memory {
            Some(0) => self.full_address(insn, 16, Access::Write).apply(op),
            Some(_) => self.full_address(insn, 16, Access::Read).apply(op),
            None => op,
        };
        self.hot_case(insn, op)
    }

    fn plain(&mut self, f: Handler) {
        let op = self.op(f);
        self.push(op);
    }

    /// The form of a two-operand instruction, with registers and immediate filled into `op`.
    fn two_operand(
        &mut self,
        insn: &Instruction,
        pick: fn(Form, usize, bool) -> Handler,
        access: Access,
    ) -> Option<()> {
        let size = operand_size(insn, 0);
        let op = self.op(mov::nop);
        let op = match (is_reg(insn, 0), is_reg(insn, 1), is_mem(insn, 1)) {
            (true, true, _) => Op {
                f: pick(Form::RegReg, size, false),
                d: reg(insn.op0_register()),
                s: reg(insn.op1_register()),
                ..op
            },
            (true, false, true) => {
                let a = self.address(insn, size, Access::Read);
                a.apply(Op { f: pick(Form::RegMem, size, a.full), d: reg(insn.op0_register()), ..op })
            }
            (true, false, false) => {
                Op { f: pick(Form::RegImm, size, false), d: reg(insn.op0_register()), imm: insn.immediate(1), ..op }
            }
            (false, true, _) => {
                let a = self.address(insn, size, access);
                a.apply(Op { f: pick(Form::MemReg, size, a.full), s: reg(insn.op1_register()), ..op })
            }
            (false, false, _) => {
                let a = self.address(insn, size, access);
                a.apply(Op { f: pick(Form::MemImm, size, a.full), imm: insn.immediate(1), ..op })
            }
        };
        self.push(op);
        Some(())
    }

    fn mov(&mut self, insn: &Instruction) -> Option<()> {
        for n in 0..2 {
            if is_reg(insn, n) && !insn.op_register(n).is_gpr() {
                return None;
            }
        }
        self.two_operand(insn, mov::mov_handler, Access::Write)
    }

    fn one_operand(&mut self, insn: &Instruction, pick: fn(bool, usize, bool) -> Handler) -> Option<()> {
        let size = operand_size(insn, 0);
        let op = self.op(mov::nop);
        let op = if is_reg(insn, 0) {
            Op { f: pick(false, size, false), d: reg(insn.op0_register()), ..op }
        } else {
            let a = self.address(insn, size, Access::Write);
            a.apply(Op { f: pick(true, size, a.full), ..op })
        };
        self.push(op);
        Some(())
    }

    fn shift(&mut self, insn: &Instruction, pick: fn(bool, bool, usize, bool) -> Handler) -> Option<()> {
        let size = operand_size(insn, 0);
        let by_cl = is_reg(insn, 1);
        let imm = if by_cl { 0 } else { insn.immediate(1) };
        let op = Op { imm, ..self.op(mov::nop) };
        let op = if is_reg(insn, 0) {
            Op { f: pick(false, by_cl, size, false), d: reg(insn.op0_register()), ..op }
        } else {
            let a = self.address(insn, size, Access::Write);
            a.apply(Op { f: pick(true, by_cl, size, a.full), ..op })
        };
        self.push(op);
        Some(())
    }

    fn extend(&mut self, insn: &Instruction, pick: fn(bool, usize, usize, bool) -> Handler) -> Option<()> {
        let (to, from) = (operand_size(insn, 0), operand_size(insn, 1));
        let op = Op { d: reg(insn.op0_register()), ..self.op(mov::nop) };
        let op = if is_reg(insn, 1) {
            Op { f: pick(false, from, to, false), s: reg(insn.op1_register()), ..op }
        } else {
            let a = self.address(insn, from, Access::Read);
            a.apply(Op { f: pick(true, from, to, a.full), ..op })
        };
        self.push(op);
        Some(())
    }

    fn lea(&mut self, insn: &Instruction) {
        let size = operand_size(insn, 0);
        let asize = crate::operand::address_size(insn, self.mode().bitness());
        let (base, disp) = match insn.memory_base() {
            Register::RIP | Register::EIP => (slot::RIP, self.delta(insn.memory_displacement64())),
            Register::None => (slot::ZERO, insn.memory_displacement64()),
            r => (r.number() as u8, insn.memory_displacement64()),
        };
        let index = if insn.memory_index() == Register::None { slot::ZERO } else { insn.memory_index().number() as u8 };
        let mask = if asize == 8 { u64::MAX } else { (1u64 << (asize * 8)) - 1 };
        // LEA forms an effective address: no segment base. Displacements are at most 32 bits in every form it can take.
        let op = Op {
            f: mov::lea_handler(size, index != slot::ZERO, asize != 8),
            d: reg(insn.op0_register()),
            imm: mask,
            base,
            index,
            scale: insn.memory_index_scale().trailing_zeros() as u8,
            disp: disp as i32,
            ..self.op(mov::nop)
        };
        self.push(op);
    }

    /// A register and a memory operand, both read and written.
    fn exchange(&mut self, insn: &Instruction, pick: fn(usize, bool) -> Handler) {
        let size = operand_size(insn, 0);
        let op = Op { s: reg(insn.op1_register()), ..self.op(mov::nop) };
        let a = self.address(insn, size, Access::Write);
        let op = a.apply(Op { f: pick(size, a.full), ..op });
        self.push(op);
    }

    fn xchg(&mut self, insn: &Instruction) -> Option<()> {
        if !is_reg(insn, 0) || !is_reg(insn, 1) {
            return None;
        }
        let op = Op {
            d: reg(insn.op0_register()),
            s: reg(insn.op1_register()),
            ..self.op(mov::xchg_handler(operand_size(insn, 0)))
        };
        self.push(op);
        Some(())
    }

    fn imul(&mut self, insn: &Instruction) -> Option<()> {
        let size = operand_size(insn, 0);
        let imm = insn.op_count() == 3;
        let op = Op { d: reg(insn.op0_register()), imm: if imm { insn.immediate(2) } else { 0 }, ..self.op(mov::nop) };
        let op = if is_reg(insn, 1) {
            Op { f: mul::imul_handler(false, imm, size, false), s: reg(insn.op1_register()), ..op }
        } else {
            let a = self.address(insn, size, Access::Read);
            a.apply(Op { f: mul::imul_handler(true, imm, size, a.full), ..op })
        };
        self.push(op);
        Some(())
    }

    fn wide(&mut self, insn: &Instruction, pick: fn(bool, usize, bool) -> Handler) -> Option<()> {
        let size = operand_size(insn, 0);
        let op = self.op(mov::nop);
        let op = if is_reg(insn, 0) {
            Op { f: pick(false, size, false), s: reg(insn.op0_register()), ..op }
        } else {
            let a = self.address(insn, size, Access::Read);
            a.apply(Op { f: pick(true, size, a.full), ..op })
        };
        self.push(op);
        Some(())
    }

    /// BT and its kin, but for bit strings outside 64-bit addresses: the offset counts before the address is cut to its size.
    fn bit(&mut self, insn: &Instruction, pick: fn(Form, usize, bool) -> Handler, access: Access) -> Option<()> {
        let is_string = is_mem(insn, 0) && is_reg(insn, 1);
        let bitness = self.mode().bitness();
        if is_string && (!self.mode().is_long64() || crate::operand::address_size(insn, bitness) != 8) {
            return None;
        }
        self.two_operand(insn, pick, access)
    }

    fn push_insn(&mut self, insn: &Instruction) -> Option<()> {
        if !self.mode().is_long64() || insn.stack_pointer_increment() != -8 {
            return None;
        }
        let seg = slot::SEG + sreg::SS as u8;
        let op = if is_gpr(insn, 0) {
            Op { s: reg(insn.op0_register()), seg, ..self.op(stack::PUSH_R) }
        } else if is_mem(insn, 0) {
            let a = self.full_address(insn, 8, Access::Read);
            a.apply(self.op(stack::PUSH_M))
        } else if is_reg(insn, 0) {
            return None;
        } else {
            Op { imm: insn.immediate(0), seg, ..self.op(stack::PUSH_I) }
        };
        self.push(op);
        Some(())
    }

    fn set_cc(&mut self, insn: &Instruction) {
        let cc = condition(insn.condition_code());
        let op = if is_reg(insn, 0) {
            Op { d: reg(insn.op0_register()), ..self.op(mov::set_handler(cc, false)) }
        } else {
            let a = self.full_address(insn, 1, Access::Write);
            a.apply(self.op(mov::set_handler(cc, true)))
        };
        self.push(op);
    }

    fn cmov_cc(&mut self, insn: &Instruction) -> Option<()> {
        let cc = condition(insn.condition_code());
        let size = operand_size(insn, 0);
        if !is_gpr(insn, 0) {
            return None;
        }
        let op = Op { d: reg(insn.op0_register()), ..self.op(mov::nop) };
        let op = if is_reg(insn, 1) {
            Op { f: mov::cmov_handler(cc, false, size), s: reg(insn.op1_register()), ..op }
        } else {
            let a = self.full_address(insn, size, Access::Read);
            a.apply(Op { f: mov::cmov_handler(cc, true, size), ..op })
        };
        self.push(op);
        Some(())
    }

    /// True if the block ends with it: a successor is in another page.
    fn jcc(&mut self, insn: &Instruction) -> bool {
        let target = insn.near_branch_target();
        let cross = self.crosses(target) || self.crosses(insn.next_ip());
        let op =
            Op { imm: self.delta(target), ..self.op(branch::jcc_handler(condition(insn.condition_code()), cross)) };
        self.push_terminal(op);
        cross
    }

    fn branch(&mut self, insn: &Instruction) -> Option<()> {
        use iced_x86::Code as C;
        let stack = slot::SEG + sreg::SS as u8;
        match insn.code() {
            C::Jmp_rel8_64 | C::Jmp_rel32_64 | C::Call_rel32_64 => {
                let target = insn.near_branch_target();
                let cross = self.crosses(target);
                let f = if insn.mnemonic() == Mnemonic::Call {
                    branch::call_handler(cross)
                } else {
                    branch::jmp_handler(cross)
                };
                let op = Op { imm: self.delta(target), seg: stack, ..self.op(f) };
                self.push_terminal(op);
            }
            C::Jmp_rm64 | C::Call_rm64 => {
                let call = insn.mnemonic() == Mnemonic::Call;
                let op = if is_reg(insn, 0) {
                    let f = if call { branch::CALL_R } else { branch::JMP_R };
                    Op { s: reg(insn.op0_register()), seg: stack, ..self.op(f) }
                } else {
                    let a = self.full_address(insn, 8, Access::Read);
                    a.apply(self.op(if call { branch::CALL_M } else { branch::JMP_M }))
                };
                if call { self.push_terminal(op) } else { self.push(op) }
            }
            C::Retnq | C::Retnq_imm16 => {
                let imm = if insn.op_count() == 1 { insn.immediate(0) & 0xFFFF } else { 0 };
                let op = Op { imm, seg: stack, ..self.op(branch::RET) };
                self.push(op);
            }
            _ => return None,
        }
        Some(())
    }
}
