//! Register contents.

use super::Draft;
use crate::layout::STACK;
use crate::state::{USER_FLAGS, fx};
use x86::flags;

/// Cases with RFLAGS.AC set.
const ALIGNMENT_CHECKS: bool = false;

/// x87 status bits.
const FSW_EXCEPTIONS: u16 = 0x3F;
const FSW_ES_B: u16 = 0x8080;

impl Draft<'_> {
    /// Draws all registers.
    pub fn registers(&mut self) {
        for i in 0..16 {
            self.pre.gpr[i] = self.rng.int();
        }
        self.pre.gpr[4] = match self.rng.below(16) {
            0 => STACK + self.rng.below(4096),
            1 => STACK + 4096 - self.rng.below(32),
            2 => STACK + self.rng.below(32),
            _ => STACK + 0x400 + 8 * self.rng.below(0x100),
        };
        let mut f = self.rng.bits() & flags::ARITH | USER_FLAGS;
        if self.rng.one_in(4) {
            f |= flags::DF;
        }
        if ALIGNMENT_CHECKS && self.rng.one_in(32) {
            f |= flags::AC;
        }
        if self.rng.one_in(8) {
            f |= flags::ID;
        }
        self.pre.rflags = f;
        const BASES: [u64; 4] = [0, 0x1000, 0x0800_0000, 0x1234_5670];
        self.pre.fs_base = self.rng.pick(&BASES);
        self.pre.gs_base = self.rng.pick(&BASES);
        for n in 0..16 {
            let v = self.rng.vector();
            self.pre.set_xmm(n, v);
        }
        self.sse_control();
        self.x87();
    }

    fn sse_control(&mut self) {
        let mut mxcsr = 0x1F80;
        if self.rng.one_in(2) {
            // Rounding, and the sticky flags.
            mxcsr |= (self.rng.bits() as u32 & 3) << 13 | self.rng.bits() as u32 & 0x3F;
        }
        if self.rng.one_in(4) {
            // FTZ and DAZ.
            mxcsr |= self.rng.bits() as u32 & 0x8040;
        }
        if self.rng.one_in(6) {
            mxcsr &= !(self.rng.bits() as u32 & 0x1F80);
        }
        self.pre.set_mxcsr(mxcsr);
    }

    fn x87(&mut self) {
        let mut control = 0x37F;
        if self.rng.one_in(2) {
            control = 0x7F | (self.rng.pick(&[0u16, 2, 3]) << 8) | (self.rng.below(4) as u16) << 10;
        }
        if self.rng.one_in(6) {
            control &= !(self.rng.bits() as u16 & 0x3F);
        }
        let mut status = (self.rng.bits() as u16) & 0x4700;
        status |= (self.rng.below(8) as u16) << 11;
        if self.rng.one_in(4) {
            status |= self.rng.bits() as u16 & 0x7F;
        }
        // An exception that is pending already hides everything behind #MF: rarely.
        if self.rng.one_in(8) {
            if status & !control & FSW_EXCEPTIONS != 0 {
                status |= FSW_ES_B;
            }
        } else {
            status &= control | !FSW_EXCEPTIONS;
        }
        self.pre.set16(fx::FCW, control);
        self.pre.set16(fx::FSW, status);
        self.pre.fx[fx::FTW] = match self.rng.below(4) {
            0 => 0xFF,
            1 => 0,
            2 => self.rng.bits() as u8 | self.rng.bits() as u8,
            // ST0 and ST1 are there, and there is room above.
            _ => (0x03u8).rotate_left(u32::from(status >> 11 & 7)),
        };
        for n in 0..8 {
            let v = if self.rng.one_in(6) {
                0xFFFF << 64 | self.rng.vector() & u128::from(u64::MAX)
            } else {
                self.rng.f80()
            };
            self.pre.set_st(n, v);
        }
    }
}
