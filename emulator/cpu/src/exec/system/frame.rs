//! Stack frames that control transfers push as a whole, on the current stack or on one that is not loaded yet.

use crate::mode::Mode;
use crate::operand::canonical;
use crate::state::{Cpu, slot};
use x86::Exception;
use x86::segment::{Segment, ar, sreg};

/// Most values one transfer pushes: 31 parameters of a call gate with SS, ESP, CS and EIP.
pub(super) const MAX_VALUES: usize = 35;

/// A stack to push on.
#[derive(Debug, Clone, Copy)]
pub struct Stack {
    segment: Segment,
    /// The mode whose rules stack addresses follow: [`Mode::Long64`] is a flat 64-bit stack.
    mode: Mode,
    /// What an address outside the segment raises.
    fault: Exception,
}

impl Stack {
    /// A flat stack of IA-32e mode.
    pub fn long(fault: Exception) -> Stack {
        Stack { segment: Segment::default(), mode: Mode::Long64, fault }
    }

    /// A stack of legacy protected mode that is about to be loaded.
    pub fn protected(segment: Segment, fault: Exception) -> Stack {
        Stack { segment, mode: Mode::Protected32, fault }
    }

    /// The bits of RSP that address the stack (SDM Vol. 1, section 6.2.3).
    pub fn mask(&self) -> u64 {
        match (self.mode, self.segment.is(ar::DB)) {
            (Mode::Long64, _) => u64::MAX,
            (_, true) => 0xFFFF_FFFF,
            (_, false) => 0xFFFF,
        }
    }

    /// Linear address to store `size` bytes at, after the checks of [`Cpu::segment_address`].
    fn linear(&self, offset: u64, size: usize) -> Result<u64, Exception> {
        let s = &self.segment;
        let last = offset.wrapping_add(size as u64 - 1);
        let limit = u64::from(s.limit);
        if self.mode.is_long64() {
            return if canonical(offset) && canonical(last) { Ok(offset) } else { Err(self.fault) };
        }
        let ok = if !self.mode.is_protected() {
            last <= limit
        } else if !s.present() || s.ar & (ar::CODE | ar::RW) != ar::RW {
            false
        } else if s.is(ar::EC) {
            offset > limit && last <= self.mask()
        } else {
            last <= limit
        };
        if ok { Ok(s.base.wrapping_add(offset) & 0xFFFF_FFFF) } else { Err(self.fault) }
    }
}

/// RSP after `sp` was loaded through a stack of this mask: 16-bit stacks keep the upper bits, 32-bit ones clear bits
/// 63:32.
pub fn merge_sp(rsp: u64, sp: u64, mask: u64) -> u64 {
    if mask == 0xFFFF { rsp & !mask | sp & mask } else { sp & mask }
}

impl Cpu {
    /// The stack that is loaded. Addresses outside it raise #SS(0).
    pub fn current_stack(&self) -> Stack {
        Stack { segment: self.segments[sreg::SS], mode: self.mode, fault: Exception::SS0 }
    }

    /// The bits of RSP that address the current stack.
    pub fn stack_mask(&self) -> u64 {
        match (self.mode, self.segments[sreg::SS].is(ar::DB)) {
            (Mode::Long64, _) => u64::MAX,
            (_, true) => 0xFFFF_FFFF,
            (_, false) => 0xFFFF,
        }
    }

    /// Loads the stack pointer with the current stack's size.
    pub fn set_sp(&mut self, sp: u64) {
        let mask = self.stack_mask();
        let rsp = &mut self.regs[slot::RSP as usize];
        *rsp = merge_sp(*rsp, sp, mask);
    }

    /// Stores values of `size` bytes below `rsp`, the first one highest, with the current privilege. All of the frame is
    /// checked before any of it is stored. Returns the stack pointer that the caller must load.
    pub(crate) fn push_frame(
        &mut self,
        stack: &Stack,
        rsp: u64,
        size: usize,
        values: &[u64],
    ) -> Result<u64, Exception> {
        let mask = stack.mask();
        let step = size as u64;
        let total = size * values.len();
        let low = rsp.wrapping_sub(total as u64) & mask;
        let contiguous = low <= rsp & mask && values.len() <= MAX_VALUES;
        if contiguous {
            let linear = stack.linear(low, total)?;
            if stack.mode.is_long64() || linear + total as u64 <= 1 << 32 {
                let mut bytes = [0u8; MAX_VALUES * 8];
                for (at, value) in bytes[..total].chunks_exact_mut(size).zip(values.iter().rev()) {
                    at.copy_from_slice(&value.to_le_bytes()[..size]);
                }
                self.write_linear(linear, &bytes[..total])?;
                return Ok(merge_sp(rsp, low, mask));
            }
        }
        // The frame wraps around the end of the stack segment or of the linear address space: value by value.
        let address = |i: usize| stack.linear(rsp.wrapping_sub(step * (i as u64 + 1)) & mask, size);
        for i in 0..values.len() {
            self.probe_write(address(i)?, size)?;
        }
        for (i, value) in values.iter().enumerate() {
            self.write_linear(address(i)?, &value.to_le_bytes()[..size])?;
        }
        Ok(merge_sp(rsp, low, mask))
    }

    /// Runs `f`, which pushes a frame, with the privilege of the level that the frame is for. The new CPL stays if it
    /// succeeds.
    pub(crate) fn at_cpl<T>(
        &mut self,
        cpl: u8,
        f: impl FnOnce(&mut Cpu) -> Result<T, Exception>,
    ) -> Result<T, Exception> {
        let old = self.cpl;
        if cpl != old {
            self.set_cpl(cpl);
        }
        let result = f(self);
        if result.is_err() && cpl != old {
            self.set_cpl(old);
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATA: u32 = ar::P | ar::S | ar::RW;

    fn stack(extra: u32, limit: u32) -> Stack {
        Stack::protected(Segment { selector: 0x10, ar: DATA | extra, limit, base: 0x1000 }, Exception::SS0)
    }

    #[test]
    fn a_16_bit_stack_keeps_the_upper_half_of_esp() {
        assert_eq!(merge_sp(0x1234_0002, 0xFFFE, 0xFFFF), 0x1234_FFFE);
        assert_eq!(merge_sp(0xFFFF_FFFF_0000_0000, 0xFFFF_FFFC, 0xFFFF_FFFF), 0xFFFF_FFFC);
    }

    #[test]
    fn stack_addresses_obey_the_limit_of_expand_up_and_expand_down_segments() {
        let up = stack(0, 0xFFF);
        assert_eq!(up.linear(0xFFC, 4), Ok(0x1FFC));
        assert_eq!(up.linear(0xFFD, 4), Err(Exception::SS0));
        let down = stack(ar::EC, 0xFFF);
        assert_eq!(down.linear(0xFFC, 4), Err(Exception::SS0));
        assert_eq!(down.linear(0x1000, 4), Ok(0x2000));
        assert_eq!(down.linear(0xFFFD, 4), Err(Exception::SS0));
        assert_eq!(stack(ar::EC | ar::DB, 0xFFF).linear(0xFFFD, 4), Ok(0x10FFD));
    }

    #[test]
    fn long_stacks_must_be_canonical() {
        let s = Stack::long(Exception::SS0);
        assert!(s.linear(0x0000_7FFF_FFFF_FFF0, 16).is_ok());
        assert!(s.linear(0x0000_7FFF_FFFF_FFF8, 16).is_err());
    }
}
