//! Operands of decoded instructions, for the functions in `exec` that work on [`Instruction`]s.

use crate::mmu::Access;
use crate::mode::Mode;
use crate::state::{Cpu, slot};
use iced_x86::{Instruction, OpKind, Register};
use x86::Exception;
use x86::segment::{ar, sreg};

/// True if bits 63:47 are all equal (48-bit linear addresses).
pub fn canonical(linear: u64) -> bool {
    (linear as i64) << 16 >> 16 == linear as i64
}

/// The `sreg` number of an iced segment register; DS for `None`.
pub fn sreg_of(register: Register) -> usize {
    match register {
        Register::ES => sreg::ES,
        Register::CS => sreg::CS,
        Register::SS => sreg::SS,
        Register::FS => sreg::FS,
        Register::GS => sreg::GS,
        _ => sreg::DS,
    }
}

/// The `sreg` number of the segment that the memory operand is in.
///
/// In 64-bit mode CS, DS, ES and SS overrides are ignored (SDM Vol. 1, section 3.3.7): the default remains, which the
/// base register decides, and with it whether a non-canonical address is #SS or #GP.
pub fn memory_segment(insn: &Instruction, mode: Mode) -> usize {
    let segment = sreg_of(insn.memory_segment());
    if !mode.is_long64() || matches!(segment, sreg::FS | sreg::GS) || insn.segment_prefix() == Register::None {
        return segment;
    }
    let stack = matches!(insn.memory_base(), Register::RSP | Register::ESP | Register::RBP | Register::EBP);
    if stack { sreg::SS } else { sreg::DS }
}

impl Cpu {
    /// A general register of any size (8 to 64 bits, AH..BH included), zero-extended.
    pub fn reg(&self, register: Register) -> u64 {
        if matches!(register, Register::AH | Register::CH | Register::DH | Register::BH) {
            return self.regs[register.number() - 4] >> 8 & 0xFF;
        }
        let full = self.regs[register.full_register().number() & 15];
        match register.size() {
            1 => full & 0xFF,
            2 => full & 0xFFFF,
            4 => full & 0xFFFF_FFFF,
            _ => full,
        }
    }

    /// Writes a general register of any size; a 32-bit write clears bits 63:32, smaller ones keep the rest.
    pub fn set_reg(&mut self, register: Register, value: u64) {
        if matches!(register, Register::AH | Register::CH | Register::DH | Register::BH) {
            let r = &mut self.regs[register.number() - 4];
            *r = *r & !0xFF00 | (value & 0xFF) << 8;
            return;
        }
        let r = &mut self.regs[register.full_register().number() & 15];
        match register.size() {
            1 => *r = *r & !0xFF | value & 0xFF,
            2 => *r = *r & !0xFFFF | value & 0xFFFF,
            4 => *r = value & 0xFFFF_FFFF,
            _ => *r = value,
        }
    }

    /// The effective address (offset in its segment) of the memory operand, truncated to the address size.
    pub fn effective_address(&self, insn: &Instruction) -> u64 {
        let (base, index) = (insn.memory_base(), insn.memory_index());
        let mut ea = insn.memory_displacement64();
        if base == Register::RIP || base == Register::EIP {
            // iced folds the RIP it decoded at into the displacement; blocks run at any linear address.
            ea = ea.wrapping_sub(insn.next_ip()).wrapping_add(self.next_ip);
        } else if base != Register::None {
            ea = ea.wrapping_add(self.reg(base));
        }
        if index != Register::None {
            ea = ea.wrapping_add(self.reg(index).wrapping_mul(u64::from(insn.memory_index_scale())));
        }
        match address_size(insn, self.mode.bitness()) {
            2 => ea & 0xFFFF,
            4 => ea & 0xFFFF_FFFF,
            _ => ea,
        }
    }

    /// The linear address of the memory operand (any explicit `[...]` operand), with canonical, limit and type checks for
    /// `size` bytes: #SS(0) through SS, else #GP(0).
    pub fn linear_address(&self, insn: &Instruction, size: usize, access: Access) -> Result<u64, Exception> {
        let seg = memory_segment(insn, self.mode);
        self.segment_address(seg, self.effective_address(insn), size, access)
    }

    /// Linear address of `offset` in a segment, with the same checks.
    pub fn segment_address(&self, seg: usize, offset: u64, size: usize, access: Access) -> Result<u64, Exception> {
        let fault = if seg == sreg::SS { Exception::SS0 } else { Exception::GP0 };
        let base = self.regs[slot::SEG as usize + seg];
        if self.mode.is_long64() {
            let linear = offset.wrapping_add(base);
            let last = linear.wrapping_add(size as u64 - 1);
            return if canonical(linear) && canonical(last) { Ok(linear) } else { Err(fault) };
        }
        let s = &self.segments[seg];
        if self.mode.is_protected() {
            if !s.present() {
                return Err(fault);
            }
            let bad_type = match access {
                Access::Write => s.is(ar::CODE) || !s.is(ar::RW),
                Access::Read => s.is(ar::CODE) && !s.is(ar::RW),
                Access::Fetch => false,
            };
            if bad_type {
                return Err(fault);
            }
        }
        let last = offset + size as u64 - 1;
        let expand_down = s.ar & (ar::CODE | ar::EC) == ar::EC && self.mode.is_protected();
        let ok = if expand_down {
            let top = if s.is(ar::DB) { 0xFFFF_FFFF } else { 0xFFFF };
            offset > u64::from(s.limit) && last <= top
        } else {
            last <= u64::from(s.limit)
        };
        if !ok {
            return Err(fault);
        }
        Ok(offset.wrapping_add(base) & 0xFFFF_FFFF)
    }

    /// Reads operand `n` (register, memory or immediate) of 1, 2, 4 or 8 bytes, zero-extended; immediates as iced
    /// sign-extends them.
    pub fn read_operand(&mut self, insn: &Instruction, n: u32) -> Result<u64, Exception> {
        match insn.op_kind(n) {
            OpKind::Register => Ok(self.reg(insn.op_register(n))),
            OpKind::Memory => {
                let size = insn.memory_size().size();
                let linear = self.linear_address(insn, size, Access::Read)?;
                Ok(match size {
                    1 => u64::from(self.read_u8(linear)?),
                    2 => u64::from(self.read_u16(linear)?),
                    4 => u64::from(self.read_u32(linear)?),
                    _ => self.read_u64(linear)?,
                })
            }
            _ => Ok(insn.immediate(n)),
        }
    }

    /// Writes operand `n` (register or memory) of 1, 2, 4 or 8 bytes.
    pub fn write_operand(&mut self, insn: &Instruction, n: u32, value: u64) -> Result<(), Exception> {
        if insn.op_kind(n) == OpKind::Register {
            self.set_reg(insn.op_register(n), value);
            return Ok(());
        }
        let size = insn.memory_size().size();
        let linear = self.linear_address(insn, size, Access::Write)?;
        match size {
            1 => self.write_u8(linear, value as u8),
            2 => self.write_u16(linear, value as u16),
            4 => self.write_u32(linear, value as u32),
            _ => self.write_u64(linear, value),
        }
    }
}

/// Bytes of the address size that the memory operand uses: 2, 4 or 8.
pub fn address_size(insn: &Instruction, bitness: u32) -> usize {
    let r = if insn.memory_base() != Register::None { insn.memory_base() } else { insn.memory_index() };
    match r {
        Register::None => match insn.memory_displ_size() {
            2 => 2,
            4 => 4,
            8 => 8,
            _ => bitness as usize / 8,
        },
        r => r.size(),
    }
}
