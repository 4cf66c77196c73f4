//! Runs single x87 instructions on the host with a given FPU state.

#![allow(unsafe_code)]

use crate::exec::x87::control::Format;
use crate::exec::x87::f80;
use crate::state::X87;
use std::arch::asm;

const PROTECTED_32: Format = Format { wide: true, protected: true };

/// An FNSAVE image of 108 bytes.
pub type Image = [u8; 108];

pub fn image_of(x87: &X87) -> Image {
    let mut image = [0; 108];
    image[..28].copy_from_slice(&x87.environment(PROTECTED_32));
    for (i, bytes) in image[28..].chunks_exact_mut(10).enumerate() {
        bytes.copy_from_slice(&x87.st(i).to_le_bytes()[..10]);
    }
    image
}

pub fn state_of(image: &Image) -> X87 {
    let mut x87 = X87::default();
    let top = usize::from(image[5] >> 3 & 7);
    for (i, bytes) in image[28..].chunks_exact(10).enumerate() {
        let mut raw = [0; 16];
        raw[..10].copy_from_slice(bytes);
        x87.regs[(top + i) & 7] = u128::from_le_bytes(raw) & f80::MASK;
    }
    x87.set_environment(PROTECTED_32, image);
    x87
}

/// What an instruction changes besides the FPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Around {
    pub memory: [u8; 16],
    pub rflags: u64,
}

/// An instruction on the host. `m` is the address of the memory operand.
macro_rules! native {
    ($($insn:expr),+) => {
        |image: &mut $crate::exec::x87::tests::native::Image, around: &mut $crate::exec::x87::tests::native::Around| {
            let mut flags = around.rflags;
            // SAFETY: `i` and `m` point to live arrays large enough for FNSAVE and any operand. FNSAVE does not wait, so
            // that an exception the instruction leaves pending does not trap; FNINIT restores the ABI's state. Only
            // arithmetic flags are loaded into RFLAGS.
            unsafe {
                std::arch::asm!(
                    "push {f}",
                    "popfq",
                    "frstor [{i}]",
                    $($insn,)+
                    "fnsave [{i}]",
                    "fninit",
                    "pushfq",
                    "pop {f}",
                    "/* {m} */",
                    i = in(reg) image.as_mut_ptr(),
                    m = in(reg) around.memory.as_mut_ptr(),
                    f = inout(reg) flags,
                    out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
                    out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
                );
            }
            around.rflags = flags;
        }
    };
}
pub(super) use native;

/// RFLAGS of this thread, to be loaded with other arithmetic flags.
pub fn rflags() -> u64 {
    let flags;
    // SAFETY: pushes and pops one word.
    unsafe { asm!("pushfq", "pop {}", out(reg) flags) };
    flags
}
