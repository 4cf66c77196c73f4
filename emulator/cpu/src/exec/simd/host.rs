//! Instructions on the host's SSE unit. The only `unsafe` code of this module.
//!
//! Each floating-point function takes a value for MXCSR whose exceptions are all masked, runs one instruction under it
//! and returns the result with the flags the instruction set. The host's own MXCSR is restored before any other code can
//! run: the compiler assumes that it has its default value. Everything here is SSE2, which every x86-64 host has; SSE3
//! and SSE4.1 instructions are composed from it.
#![allow(unsafe_code)]

use super::mxcsr;
use std::arch::asm;
use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_storeu_si128};

/// Can this host run the guest's floating point? `Err` names what it lacks: denormals-are-zeros, which FXSAVE reports in
/// MXCSR_MASK (SDM Vol. 1, section 11.6.6). Only the first processors with SSE2 were made without it.
pub fn host_supported() -> Result<(), &'static str> {
    #[repr(C, align(16))]
    struct FxsaveArea([u8; 512]);
    const MXCSR_MASK: std::ops::Range<usize> = 28..32;
    let mut area = FxsaveArea([0; 512]);
    // SAFETY: FXSAVE stores 512 bytes at an address aligned to 16; x86-64 processors have it.
    unsafe { asm!("fxsave64 [{}]", in(reg) &mut area, options(nostack, preserves_flags)) };
    let mask = area.0[MXCSR_MASK].iter().rev().fold(0, |m, &b| m << 8 | u32::from(b));
    if mask & mxcsr::DAZ != 0 { Ok(()) } else { Err("denormals-are-zeros (MXCSR.DAZ)") }
}

/// A vector in a host register.
#[inline(always)]
fn vector(v: u128) -> __m128i {
    // SAFETY: `v` is 16 readable bytes; SSE2 is part of x86-64.
    unsafe { _mm_loadu_si128((&raw const v).cast()) }
}

/// The contents of a host register.
#[inline(always)]
fn bits(v: __m128i) -> u128 {
    let mut r = 0u128;
    // SAFETY: `r` is 16 writable bytes; SSE2 is part of x86-64.
    unsafe { _mm_storeu_si128((&raw mut r).cast(), v) };
    r
}

/// Integer instructions of SSE2: `name(a, b)`. Lane-wise ones serve MMX with the low 64 bits.
pub mod sse2 {
    use super::{bits, vector};
    use std::arch::x86_64::*;

    macro_rules! integer_ops {
        ($($name:ident: $intrinsic:ident;)*) => {$(
            #[inline(always)]
            pub fn $name(a: u128, b: u128) -> u128 {
                // SAFETY: needs SSE2, which is part of x86-64.
                bits(unsafe { $intrinsic(vector(a), vector(b)) })
            }
        )*};
    }

    integer_ops! {
        paddb: _mm_add_epi8;
        psubb: _mm_sub_epi8;
        paddw: _mm_add_epi16;
        psubw: _mm_sub_epi16;
        paddd: _mm_add_epi32;
        psubd: _mm_sub_epi32;
        paddq: _mm_add_epi64;
        psubq: _mm_sub_epi64;
        paddsb: _mm_adds_epi8;
        paddusb: _mm_adds_epu8;
        psubsb: _mm_subs_epi8;
        psubusb: _mm_subs_epu8;
        pavgb: _mm_avg_epu8;
        paddsw: _mm_adds_epi16;
        paddusw: _mm_adds_epu16;
        psubsw: _mm_subs_epi16;
        psubusw: _mm_subs_epu16;
        pavgw: _mm_avg_epu16;
        pcmpeqb: _mm_cmpeq_epi8;
        pcmpgtb: _mm_cmpgt_epi8;
        pcmpeqw: _mm_cmpeq_epi16;
        pcmpgtw: _mm_cmpgt_epi16;
        pcmpeqd: _mm_cmpeq_epi32;
        pcmpgtd: _mm_cmpgt_epi32;
        pmullw: _mm_mullo_epi16;
        pmulhw: _mm_mulhi_epi16;
        pmulhuw: _mm_mulhi_epu16;
        pmuludq: _mm_mul_epu32;
        pminub: _mm_min_epu8;
        pmaxub: _mm_max_epu8;
        pminsw: _mm_min_epi16;
        pmaxsw: _mm_max_epi16;
        pmaddwd: _mm_madd_epi16;
        psadbw: _mm_sad_epu8;
        punpcklbw: _mm_unpacklo_epi8;
        punpcklwd: _mm_unpacklo_epi16;
        punpckldq: _mm_unpacklo_epi32;
        punpcklqdq: _mm_unpacklo_epi64;
        psllw: _mm_sll_epi16;
        pslld: _mm_sll_epi32;
        psllq: _mm_sll_epi64;
        psrlw: _mm_srl_epi16;
        psrld: _mm_srl_epi32;
        psrlq: _mm_srl_epi64;
        psraw: _mm_sra_epi16;
        psrad: _mm_sra_epi32;
        packsswb_128: _mm_packs_epi16;
        packssdw_128: _mm_packs_epi32;
        packuswb_128: _mm_packus_epi16;
    }

    /// The signs of the bytes.
    #[inline(always)]
    pub fn pmovmskb(v: u128) -> u64 {
        // SAFETY: needs SSE2, which is part of x86-64.
        u64::from(unsafe { _mm_movemask_epi8(vector(v)) } as u32)
    }
}

/// `name(control, dst, src)`: an instruction `xmm, xmm`.
macro_rules! vector_ops {
    ($($name:ident)*) => {$(
        #[inline(always)]
        pub fn $name(control: u32, dst: u128, src: u128) -> (u128, u32) {
            let (mut saved, mut csr) = (0u32, control);
            let mut r = vector(dst);
            // SAFETY: the pointers are to live `u32`s. The instruction changes its destination and MXCSR, which is put
            // back as it was; no exception can occur, as the caller has masked all.
            unsafe {
                asm!(
                    "stmxcsr [{saved}]",
                    "ldmxcsr [{csr}]",
                    concat!(stringify!($name), " {r}, {src}"),
                    "stmxcsr [{csr}]",
                    "ldmxcsr [{saved}]",
                    saved = in(reg) &mut saved,
                    csr = in(reg) &mut csr,
                    r = inout(xmm_reg) r,
                    src = in(xmm_reg) vector(src),
                    options(nostack, preserves_flags),
                );
            }
            (bits(r), csr & mxcsr::FLAGS)
        }
    )*};
}
vector_ops! {
    addps addpd addss addsd
    subps subpd subss subsd
    mulps mulpd mulss mulsd
    divps divpd divss divsd
    minps minpd minss minsd
    maxps maxpd maxss maxsd
    sqrtps sqrtpd sqrtss sqrtsd
    cvtps2pd cvtpd2ps cvtss2sd cvtsd2ss
    cvtdq2ps cvtps2dq cvttps2dq
    cvtdq2pd cvtpd2dq cvttpd2dq
}

/// `name::<PREDICATE>(control, dst, src)`: an instruction `xmm, xmm, imm8`.
macro_rules! comparisons {
    ($($name:ident)*) => {$(
        #[inline(always)]
        pub fn $name<const PREDICATE: u8>(control: u32, dst: u128, src: u128) -> (u128, u32) {
            let (mut saved, mut csr) = (0u32, control);
            let mut r = vector(dst);
            // SAFETY: as for `vector_ops`.
            unsafe {
                asm!(
                    "stmxcsr [{saved}]",
                    "ldmxcsr [{csr}]",
                    concat!(stringify!($name), " {r}, {src}, {predicate}"),
                    "stmxcsr [{csr}]",
                    "ldmxcsr [{saved}]",
                    saved = in(reg) &mut saved,
                    csr = in(reg) &mut csr,
                    r = inout(xmm_reg) r,
                    src = in(xmm_reg) vector(src),
                    predicate = const PREDICATE,
                    options(nostack, preserves_flags),
                );
            }
            (bits(r), csr & mxcsr::FLAGS)
        }
    )*};
}
comparisons!(cmpps cmppd cmpss cmpsd);

/// `name(control, a, b)`: a comparison that sets RFLAGS. Returns (ZF, PF, CF) and the flags of MXCSR.
macro_rules! rflags_comparisons {
    ($($name:ident)*) => {$(
        #[inline(always)]
        pub fn $name(control: u32, a: u128, b: u128) -> ((bool, bool, bool), u32) {
            let (mut saved, mut csr) = (0u32, control);
            let (zf, pf, cf): (u8, u8, u8);
            // SAFETY: as for `vector_ops`; STMXCSR and LDMXCSR leave RFLAGS alone.
            unsafe {
                asm!(
                    "stmxcsr [{saved}]",
                    "ldmxcsr [{csr}]",
                    concat!(stringify!($name), " {a}, {b}"),
                    "stmxcsr [{csr}]",
                    "ldmxcsr [{saved}]",
                    "setz {zf}",
                    "setp {pf}",
                    "setc {cf}",
                    saved = in(reg) &mut saved,
                    csr = in(reg) &mut csr,
                    a = in(xmm_reg) vector(a),
                    b = in(xmm_reg) vector(b),
                    zf = lateout(reg_byte) zf,
                    pf = lateout(reg_byte) pf,
                    cf = lateout(reg_byte) cf,
                    options(nostack),
                );
            }
            ((zf != 0, pf != 0, cf != 0), csr & mxcsr::FLAGS)
        }
    )*};
}
rflags_comparisons!(comiss comisd ucomiss ucomisd);

/// `name(control, dst, integer)`: a conversion of an integer to the low element.
macro_rules! from_integer {
    ($($name:ident, $instruction:literal, $t:ty;)*) => {$(
        #[inline(always)]
        pub fn $name(control: u32, dst: u128, integer: $t) -> (u128, u32) {
            let (mut saved, mut csr) = (0u32, control);
            let mut r = vector(dst);
            // SAFETY: as for `vector_ops`.
            unsafe {
                asm!(
                    "stmxcsr [{saved}]",
                    "ldmxcsr [{csr}]",
                    $instruction,
                    "stmxcsr [{csr}]",
                    "ldmxcsr [{saved}]",
                    saved = in(reg) &mut saved,
                    csr = in(reg) &mut csr,
                    r = inout(xmm_reg) r,
                    integer = in(reg) integer,
                    options(nostack, preserves_flags),
                );
            }
            (bits(r), csr & mxcsr::FLAGS)
        }
    )*};
}
from_integer! {
    cvtsi2ss_r32, "cvtsi2ss {r}, {integer:e}", u32;
    cvtsi2ss_r64, "cvtsi2ss {r}, {integer:r}", u64;
    cvtsi2sd_r32, "cvtsi2sd {r}, {integer:e}", u32;
    cvtsi2sd_r64, "cvtsi2sd {r}, {integer:r}", u64;
}

/// `name(control, src)`: a conversion of the low element to an integer, zero-extended.
macro_rules! to_integer {
    ($($name:ident, $instruction:literal;)*) => {$(
        #[inline(always)]
        pub fn $name(control: u32, src: u128) -> (u64, u32) {
            let (mut saved, mut csr) = (0u32, control);
            let integer: u64;
            // SAFETY: as for `vector_ops`. `integer` is not `lateout`: the pointers are used after it is written.
            unsafe {
                asm!(
                    "stmxcsr [{saved}]",
                    "ldmxcsr [{csr}]",
                    $instruction,
                    "stmxcsr [{csr}]",
                    "ldmxcsr [{saved}]",
                    saved = in(reg) &mut saved,
                    csr = in(reg) &mut csr,
                    src = in(xmm_reg) vector(src),
                    integer = out(reg) integer,
                    options(nostack, preserves_flags),
                );
            }
            (integer, csr & mxcsr::FLAGS)
        }
    )*};
}
to_integer! {
    cvtss2si_r32, "cvtss2si {integer:e}, {src}";
    cvtss2si_r64, "cvtss2si {integer:r}, {src}";
    cvttss2si_r32, "cvttss2si {integer:e}, {src}";
    cvttss2si_r64, "cvttss2si {integer:r}, {src}";
    cvtsd2si_r32, "cvtsd2si {integer:e}, {src}";
    cvtsd2si_r64, "cvtsd2si {integer:r}, {src}";
    cvttsd2si_r32, "cvttsd2si {integer:e}, {src}";
    cvttsd2si_r64, "cvttsd2si {integer:r}, {src}";
}
