//! Lazily evaluated arithmetic flags.
//!
//! Three words hold what every flag can be read from without knowing which instruction set them:
//!
//! * `res`: the result, sign-extended to 64 bits. ZF = (`res` == 0), SF = bit 63, PF = parity of bits 7:0.
//! * `x`: the vector of carries *into* each bit (`a ^ b ^ res` of an addition or subtraction), sign-extended. AF = bit 4,
//!   and OF = CF xor bit 63.
//! * `c`: bit 0 = CF. Bits 1 and 2 invert SF and PF, which lets POPF and SAHF store combinations that no result has
//!   (ZF and SF together, for example). Arithmetic stores 0 or 1.

use x86::flags;

/// See the module's description.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Lazy {
    pub res: u64,
    pub x: u64,
    pub c: u64,
}

const SF_INVERT: u64 = 1 << 1;
const PF_INVERT: u64 = 1 << 2;

impl Lazy {
    #[inline(always)]
    pub fn cf(&self) -> bool {
        self.c & 1 != 0
    }

    #[inline(always)]
    pub fn zf(&self) -> bool {
        self.res == 0
    }

    #[inline(always)]
    pub fn sf(&self) -> bool {
        (self.res >> 63) ^ (self.c >> 1 & 1) != 0
    }

    #[inline(always)]
    pub fn of(&self) -> bool {
        (self.c ^ (self.x >> 63)) & 1 != 0
    }

    #[inline(always)]
    pub fn pf(&self) -> bool {
        (self.res as u8).count_ones() & 1 == (self.c >> 2) as u32 & 1
    }

    #[inline(always)]
    pub fn af(&self) -> bool {
        self.x & 1 << 4 != 0
    }

    /// Stores the flags of a logic operation: CF = OF = 0, AF (undefined by the SDM) = 0.
    #[inline(always)]
    pub fn set_logic(&mut self, res_sign_extended: u64) {
        *self = Lazy { res: res_sign_extended, x: 0, c: 0 };
    }

    /// The six arithmetic flags in their RFLAGS positions.
    pub fn get(&self) -> u64 {
        let bit = |on: bool, flag: u64| if on { flag } else { 0 };
        bit(self.cf(), flags::CF)
            | bit(self.pf(), flags::PF)
            | bit(self.af(), flags::AF)
            | bit(self.zf(), flags::ZF)
            | bit(self.sf(), flags::SF)
            | bit(self.of(), flags::OF)
    }

    /// Loads all six arithmetic flags from an RFLAGS image; other bits are ignored.
    pub fn set(&mut self, rflags: u64) {
        let cf = (rflags & flags::CF != 0) as u64;
        let of = (rflags & flags::OF != 0) as u64;
        let sf = rflags & flags::SF != 0;
        let zf = rflags & flags::ZF != 0;
        // 0: parity even, sign clear. 1 << 62: the same, but not zero.
        let res = if zf {
            0u64
        } else if sf {
            1 << 63
        } else {
            1 << 62
        };
        let mut c = cf;
        if sf && zf {
            c |= SF_INVERT;
        }
        if rflags & flags::PF == 0 {
            c |= PF_INVERT;
        }
        let af = (rflags & flags::AF != 0) as u64;
        *self = Lazy { res, x: (cf ^ of) << 63 | af << 4, c };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_of_arithmetic_flags_survives_a_store_and_a_load() {
        for bits in 0..64u64 {
            let f = [flags::CF, flags::PF, flags::AF, flags::ZF, flags::SF, flags::OF]
                .iter()
                .enumerate()
                .filter(|(i, _)| bits >> i & 1 != 0)
                .fold(0, |a, (_, b)| a | b);
            let mut l = Lazy::default();
            l.set(f);
            assert_eq!(l.get(), f, "{f:#x}");
        }
    }
}
