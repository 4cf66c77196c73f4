//! General-purpose instructions that are too rare for a hot handler (SDM Vol. 1, chapter 7), or for more than one of their
//! usual case.

pub mod bits;
pub mod bmi;
pub mod decimal;
pub mod direct_store;
pub mod divide;
pub mod exchange;
pub mod shift;
pub mod string;

use crate::lazy::Lazy;
use crate::mmu::Access;
use crate::{Cpu, ExecFn};
use iced_x86::{Code, Instruction, Mnemonic, OpKind};
use x86::Exception;

/// The semantics of `code`, if they are in this family.
pub fn lookup(code: Code) -> Option<ExecFn> {
    Some(match code {
        Code::Mov_AL_moffs8
        | Code::Mov_AX_moffs16
        | Code::Mov_EAX_moffs32
        | Code::Mov_RAX_moffs64
        | Code::Mov_moffs8_AL
        | Code::Mov_moffs16_AX
        | Code::Mov_moffs32_EAX
        | Code::Mov_moffs64_RAX => exchange::mov,
        // MOVSD and CMPSD are also SSE2 mnemonics.
        Code::Movsd_m32_m32 => string::movs,
        Code::Cmpsd_m32_m32 => string::cmps,
        _ => return by_mnemonic(code.mnemonic()),
    })
}

fn by_mnemonic(mnemonic: Mnemonic) -> Option<ExecFn> {
    Some(match mnemonic {
        Mnemonic::Div => divide::div,
        Mnemonic::Idiv => divide::idiv,

        Mnemonic::Rcl => shift::rcl,
        Mnemonic::Rcr => shift::rcr,
        Mnemonic::Shld => shift::shld,
        Mnemonic::Shrd => shift::shrd,

        Mnemonic::Bt => bits::bt,
        Mnemonic::Bts => bits::bts,
        Mnemonic::Btr => bits::btr,
        Mnemonic::Btc => bits::btc,

        Mnemonic::Xchg => exchange::xchg,
        Mnemonic::Xadd => exchange::xadd,
        Mnemonic::Cmpxchg => exchange::cmpxchg,
        Mnemonic::Cmpxchg8b => exchange::cmpxchg8b,
        Mnemonic::Cmpxchg16b => exchange::cmpxchg16b,
        Mnemonic::Movbe => exchange::movbe,
        Mnemonic::Movdiri => direct_store::movdiri,
        Mnemonic::Movdir64b => direct_store::movdir64b,
        Mnemonic::Xlatb => exchange::xlat,

        Mnemonic::Andn => bmi::andn,
        Mnemonic::Bextr => bmi::bextr,
        Mnemonic::Blsi => bmi::blsi,
        Mnemonic::Blsmsk => bmi::blsmsk,
        Mnemonic::Blsr => bmi::blsr,
        Mnemonic::Bzhi => bmi::bzhi,
        Mnemonic::Mulx => bmi::mulx,
        Mnemonic::Pdep => bmi::pdep,
        Mnemonic::Pext => bmi::pext,
        Mnemonic::Rorx => bmi::rorx,
        Mnemonic::Sarx => bmi::sarx,
        Mnemonic::Shlx => bmi::shlx,
        Mnemonic::Shrx => bmi::shrx,

        Mnemonic::Aaa => decimal::aaa,
        Mnemonic::Aas => decimal::aas,
        Mnemonic::Aam => decimal::aam,
        Mnemonic::Aad => decimal::aad,
        Mnemonic::Daa => decimal::daa,
        Mnemonic::Das => decimal::das,
        Mnemonic::Salc => decimal::salc,
        Mnemonic::Bound => decimal::bound,

        Mnemonic::Movsb | Mnemonic::Movsw | Mnemonic::Movsq => string::movs,
        Mnemonic::Stosb | Mnemonic::Stosw | Mnemonic::Stosd | Mnemonic::Stosq => string::stos,
        Mnemonic::Lodsb | Mnemonic::Lodsw | Mnemonic::Lodsd | Mnemonic::Lodsq => string::lods,
        Mnemonic::Cmpsb | Mnemonic::Cmpsw | Mnemonic::Cmpsq => string::cmps,
        Mnemonic::Scasb | Mnemonic::Scasw | Mnemonic::Scasd | Mnemonic::Scasq => string::scas,
        _ => return None,
    })
}

/// Bytes of operand `n`, a register or memory.
pub(crate) fn operand_size(insn: &Instruction, n: u32) -> usize {
    if insn.op_kind(n) == OpKind::Register { insn.op_register(n).size() } else { insn.memory_size().size() }
}

/// The low `size` bytes set.
pub(crate) fn mask(size: usize) -> u64 {
    u64::MAX >> (64 - size * 8)
}

/// The low `size` bytes, sign-extended.
pub(crate) fn sign_extend(value: u64, size: usize) -> i64 {
    let unused = 64 - size * 8;
    (value as i64) << unused >> unused
}

/// The most significant bit of a value of `size` bytes.
pub(crate) fn msb(value: u64, size: usize) -> bool {
    value >> (size * 8 - 1) & 1 != 0
}

/// Flags of `a + b` (both `size` bytes, zero-extended).
pub(crate) fn add_flags(a: u64, b: u64, size: usize) -> Lazy {
    let sum = a.wrapping_add(b) & mask(size);
    lazy_of(a, b, sum, sum < a, size)
}

/// Flags of `a - b` (both `size` bytes, zero-extended).
pub(crate) fn sub_flags(a: u64, b: u64, size: usize) -> Lazy {
    lazy_of(a, b, a.wrapping_sub(b), a < b, size)
}

fn lazy_of(a: u64, b: u64, result: u64, carry: bool, size: usize) -> Lazy {
    let res = sign_extend(result, size) as u64;
    Lazy { res, x: sign_extend(a ^ b ^ result, size) as u64, c: u64::from(carry) }
}

impl Cpu {
    /// Replaces the arithmetic flags in `affected` by those of `values`.
    pub(crate) fn change_arithmetic_flags(&mut self, affected: u64, values: u64) {
        let old = self.lazy.get();
        self.lazy.set(old & !affected | values & affected);
    }

    /// Loads 1, 2, 4 or 8 bytes, zero-extended.
    pub(crate) fn load_sized(&mut self, linear: u64, size: usize) -> Result<u64, Exception> {
        Ok(match size {
            1 => u64::from(self.read_u8(linear)?),
            2 => u64::from(self.read_u16(linear)?),
            4 => u64::from(self.read_u32(linear)?),
            _ => self.read_u64(linear)?,
        })
    }

    /// Stores the low 1, 2, 4 or 8 bytes of a value.
    pub(crate) fn store_sized(&mut self, linear: u64, size: usize, value: u64) -> Result<(), Exception> {
        match size {
            1 => self.write_u8(linear, value as u8),
            2 => self.write_u16(linear, value as u16),
            4 => self.write_u32(linear, value as u32),
            _ => self.write_u64(linear, value),
        }
    }

    /// Replaces operand `n` by `f` of its value and returns the old one. The load of memory has write intent: it faults as
    /// the store would.
    pub(crate) fn modify_operand(
        &mut self,
        insn: &Instruction,
        n: u32,
        f: impl FnOnce(u64) -> u64,
    ) -> Result<u64, Exception> {
        if insn.op_kind(n) == OpKind::Register {
            let register = insn.op_register(n);
            let old = self.reg(register);
            self.set_reg(register, f(old));
            return Ok(old);
        }
        let size = insn.memory_size().size();
        let linear = self.linear_address(insn, size, Access::Write)?;
        self.modify_memory(linear, size, f)
    }

    /// Replaces memory at a linear address by `f` of its value and returns the old one.
    pub(crate) fn modify_memory(
        &mut self,
        linear: u64,
        size: usize,
        f: impl FnOnce(u64) -> u64,
    ) -> Result<u64, Exception> {
        self.probe_write(linear, size)?;
        let old = self.load_sized(linear, size)?;
        self.store_sized(linear, size, f(old))?;
        Ok(old)
    }
}
