//! Packed integer arithmetic, comparison and logic of MMX to SSE4.2 (SDM Vol. 2).
//!
//! Each function takes the first (destination) and the second source. MMX forms use the low 64 bits, see
//! [`super::lanes`]; `W` is the width of the vector in bytes where it matters.

use super::host::sse2::*;
use super::lanes::{Lane, map, map2};
use super::operands::exec;
use super::shuffle::deinterleave;
use crate::ExecFn;
use iced_x86::Code;

macro_rules! lane_wise {
    ($($name:ident: $t:ty, $f:expr;)*) => {$(
        #[inline(always)]
        pub fn $name(a: u128, b: u128) -> u128 {
            map2::<$t>(a, b, $f)
        }
    )*};
}

lane_wise! {
    pmulhrsw: i16, |x, y| ((((i32::from(x) * i32::from(y)) >> 14) + 1) >> 1) as i16;
    pmulld: u32, u32::wrapping_mul;
    pmuldq: i64, |x, y| i64::from(x as i32) * i64::from(y as i32);
    pminuw: u16, u16::min;
    pminud: u32, u32::min;
    pminsb: i8, i8::min;
    pminsd: i32, i32::min;
    pmaxuw: u16, u16::max;
    pmaxud: u32, u32::max;
    pmaxsb: i8, i8::max;
    pmaxsd: i32, i32::max;
    pcmpeqq: u64, |x, y| if x == y { u64::MAX } else { 0 };
    pcmpgtq: i64, |x, y| if x > y { -1 } else { 0 };
    psignb: i8, |x, y| if y < 0 { x.wrapping_neg() } else if y == 0 { 0 } else { x };
    psignw: i16, |x, y| if y < 0 { x.wrapping_neg() } else if y == 0 { 0 } else { x };
    psignd: i32, |x, y| if y < 0 { x.wrapping_neg() } else if y == 0 { 0 } else { x };
}

pub fn pand(a: u128, b: u128) -> u128 {
    a & b
}

pub fn pandn(a: u128, b: u128) -> u128 {
    !a & b
}

pub fn por(a: u128, b: u128) -> u128 {
    a | b
}

pub fn pxor(a: u128, b: u128) -> u128 {
    a ^ b
}

pub fn pabsb(_: u128, b: u128) -> u128 {
    map::<i8>(b, i8::wrapping_abs)
}

pub fn pabsw(_: u128, b: u128) -> u128 {
    map::<i16>(b, i16::wrapping_abs)
}

pub fn pabsd(_: u128, b: u128) -> u128 {
    map::<i32>(b, i32::wrapping_abs)
}

/// Unsigned bytes of the destination times signed bytes of the source.
pub fn pmaddubsw(a: u128, b: u128) -> u128 {
    let (a, b) = (u8::split(a), i8::split(b));
    let product = |i: usize| i16::from(a[i]) * i16::from(b[i]);
    i16::join(std::array::from_fn(|i| product(2 * i).saturating_add(product(2 * i + 1))))
}

/// Sums of absolute differences of four bytes of `b` with eight overlapping groups of `a`.
pub fn mpsadbw(a: u128, b: u128, imm: u8) -> u128 {
    let (a, b) = (u8::split(a), u8::split(b));
    let a_offset = usize::from(imm >> 2 & 1) * 4;
    let b_offset = usize::from(imm & 3) * 4;
    u16::join(std::array::from_fn(|i| (0..4).map(|k| u16::from(a[a_offset + i + k].abs_diff(b[b_offset + k]))).sum()))
}

/// The minimum in bits 15:0, the index of its first occurrence in bits 18:16.
pub fn phminposuw(_: u128, b: u128) -> u128 {
    let lanes = u16::split(b);
    let mut index = 0;
    for i in 1..lanes.len() {
        if lanes[i] < lanes[index] {
            index = i;
        }
    }
    u128::from(lanes[index]) | (index as u128) << 16
}

/// Horizontal operations: the even elements of destination and source with the odd ones.
macro_rules! horizontal {
    ($($name:ident: $t:ty, $vertical:ident;)*) => {$(
        #[inline(always)]
        pub fn $name<const W: usize>(a: u128, b: u128) -> u128 {
            let (even, odd) = deinterleave::<$t, W>(a, b);
            $vertical(even, odd)
        }
    )*};
}

horizontal! {
    phaddw: u16, paddw;
    phaddd: u32, paddd;
    phaddsw: u16, paddsw;
    phsubw: u16, psubw;
    phsubd: u32, psubd;
    phsubsw: u16, psubsw;
}

pub fn lookup(code: Code) -> Option<ExecFn> {
    use Code::*;
    let f: ExecFn = match code {
        Paddb_mm_mmm64 => exec!(mm_binary, paddb),
        Paddb_xmm_xmmm128 => exec!(xmm_binary, paddb),
        Paddw_mm_mmm64 => exec!(mm_binary, paddw),
        Paddw_xmm_xmmm128 => exec!(xmm_binary, paddw),
        Paddd_mm_mmm64 => exec!(mm_binary, paddd),
        Paddd_xmm_xmmm128 => exec!(xmm_binary, paddd),
        Paddq_mm_mmm64 => exec!(mm_binary, paddq),
        Paddq_xmm_xmmm128 => exec!(xmm_binary, paddq),
        Paddsb_mm_mmm64 => exec!(mm_binary, paddsb),
        Paddsb_xmm_xmmm128 => exec!(xmm_binary, paddsb),
        Paddsw_mm_mmm64 => exec!(mm_binary, paddsw),
        Paddsw_xmm_xmmm128 => exec!(xmm_binary, paddsw),
        Paddusb_mm_mmm64 => exec!(mm_binary, paddusb),
        Paddusb_xmm_xmmm128 => exec!(xmm_binary, paddusb),
        Paddusw_mm_mmm64 => exec!(mm_binary, paddusw),
        Paddusw_xmm_xmmm128 => exec!(xmm_binary, paddusw),
        Psubb_mm_mmm64 => exec!(mm_binary, psubb),
        Psubb_xmm_xmmm128 => exec!(xmm_binary, psubb),
        Psubw_mm_mmm64 => exec!(mm_binary, psubw),
        Psubw_xmm_xmmm128 => exec!(xmm_binary, psubw),
        Psubd_mm_mmm64 => exec!(mm_binary, psubd),
        Psubd_xmm_xmmm128 => exec!(xmm_binary, psubd),
        Psubq_mm_mmm64 => exec!(mm_binary, psubq),
        Psubq_xmm_xmmm128 => exec!(xmm_binary, psubq),
        Psubsb_mm_mmm64 => exec!(mm_binary, psubsb),
        Psubsb_xmm_xmmm128 => exec!(xmm_binary, psubsb),
        Psubsw_mm_mmm64 => exec!(mm_binary, psubsw),
        Psubsw_xmm_xmmm128 => exec!(xmm_binary, psubsw),
        Psubusb_mm_mmm64 => exec!(mm_binary, psubusb),
        Psubusb_xmm_xmmm128 => exec!(xmm_binary, psubusb),
        Psubusw_mm_mmm64 => exec!(mm_binary, psubusw),
        Psubusw_xmm_xmmm128 => exec!(xmm_binary, psubusw),
        Pmullw_mm_mmm64 => exec!(mm_binary, pmullw),
        Pmullw_xmm_xmmm128 => exec!(xmm_binary, pmullw),
        Pmulhw_mm_mmm64 => exec!(mm_binary, pmulhw),
        Pmulhw_xmm_xmmm128 => exec!(xmm_binary, pmulhw),
        Pmulhuw_mm_mmm64 => exec!(mm_binary, pmulhuw),
        Pmulhuw_xmm_xmmm128 => exec!(xmm_binary, pmulhuw),
        Pmulhrsw_mm_mmm64 => exec!(mm_binary, pmulhrsw),
        Pmulhrsw_xmm_xmmm128 => exec!(xmm_binary, pmulhrsw),
        Pmulld_xmm_xmmm128 => exec!(xmm_binary, pmulld),
        Pmuludq_mm_mmm64 => exec!(mm_binary, pmuludq),
        Pmuludq_xmm_xmmm128 => exec!(xmm_binary, pmuludq),
        Pmuldq_xmm_xmmm128 => exec!(xmm_binary, pmuldq),
        Pavgb_mm_mmm64 => exec!(mm_binary, pavgb),
        Pavgb_xmm_xmmm128 => exec!(xmm_binary, pavgb),
        Pavgw_mm_mmm64 => exec!(mm_binary, pavgw),
        Pavgw_xmm_xmmm128 => exec!(xmm_binary, pavgw),
        Pminub_mm_mmm64 => exec!(mm_binary, pminub),
        Pminub_xmm_xmmm128 => exec!(xmm_binary, pminub),
        Pminuw_xmm_xmmm128 => exec!(xmm_binary, pminuw),
        Pminud_xmm_xmmm128 => exec!(xmm_binary, pminud),
        Pminsb_xmm_xmmm128 => exec!(xmm_binary, pminsb),
        Pminsw_mm_mmm64 => exec!(mm_binary, pminsw),
        Pminsw_xmm_xmmm128 => exec!(xmm_binary, pminsw),
        Pminsd_xmm_xmmm128 => exec!(xmm_binary, pminsd),
        Pmaxub_mm_mmm64 => exec!(mm_binary, pmaxub),
        Pmaxub_xmm_xmmm128 => exec!(xmm_binary, pmaxub),
        Pmaxuw_xmm_xmmm128 => exec!(xmm_binary, pmaxuw),
        Pmaxud_xmm_xmmm128 => exec!(xmm_binary, pmaxud),
        Pmaxsb_xmm_xmmm128 => exec!(xmm_binary, pmaxsb),
        Pmaxsw_mm_mmm64 => exec!(mm_binary, pmaxsw),
        Pmaxsw_xmm_xmmm128 => exec!(xmm_binary, pmaxsw),
        Pmaxsd_xmm_xmmm128 => exec!(xmm_binary, pmaxsd),
        Psignb_mm_mmm64 => exec!(mm_binary, psignb),
        Psignb_xmm_xmmm128 => exec!(xmm_binary, psignb),
        Psignw_mm_mmm64 => exec!(mm_binary, psignw),
        Psignw_xmm_xmmm128 => exec!(xmm_binary, psignw),
        Psignd_mm_mmm64 => exec!(mm_binary, psignd),
        Psignd_xmm_xmmm128 => exec!(xmm_binary, psignd),
        Pcmpeqb_mm_mmm64 => exec!(mm_binary, pcmpeqb),
        Pcmpeqb_xmm_xmmm128 => exec!(xmm_binary, pcmpeqb),
        Pcmpeqw_mm_mmm64 => exec!(mm_binary, pcmpeqw),
        Pcmpeqw_xmm_xmmm128 => exec!(xmm_binary, pcmpeqw),
        Pcmpeqd_mm_mmm64 => exec!(mm_binary, pcmpeqd),
        Pcmpeqd_xmm_xmmm128 => exec!(xmm_binary, pcmpeqd),
        Pcmpeqq_xmm_xmmm128 => exec!(xmm_binary, pcmpeqq),
        Pcmpgtb_mm_mmm64 => exec!(mm_binary, pcmpgtb),
        Pcmpgtb_xmm_xmmm128 => exec!(xmm_binary, pcmpgtb),
        Pcmpgtw_mm_mmm64 => exec!(mm_binary, pcmpgtw),
        Pcmpgtw_xmm_xmmm128 => exec!(xmm_binary, pcmpgtw),
        Pcmpgtd_mm_mmm64 => exec!(mm_binary, pcmpgtd),
        Pcmpgtd_xmm_xmmm128 => exec!(xmm_binary, pcmpgtd),
        Pcmpgtq_xmm_xmmm128 => exec!(xmm_binary, pcmpgtq),
        Phaddw_mm_mmm64 => exec!(mm_binary, phaddw::<8>),
        Phaddw_xmm_xmmm128 => exec!(xmm_binary, phaddw::<16>),
        Phaddd_mm_mmm64 => exec!(mm_binary, phaddd::<8>),
        Phaddd_xmm_xmmm128 => exec!(xmm_binary, phaddd::<16>),
        Phaddsw_mm_mmm64 => exec!(mm_binary, phaddsw::<8>),
        Phaddsw_xmm_xmmm128 => exec!(xmm_binary, phaddsw::<16>),
        Phsubw_mm_mmm64 => exec!(mm_binary, phsubw::<8>),
        Phsubw_xmm_xmmm128 => exec!(xmm_binary, phsubw::<16>),
        Phsubd_mm_mmm64 => exec!(mm_binary, phsubd::<8>),
        Phsubd_xmm_xmmm128 => exec!(xmm_binary, phsubd::<16>),
        Phsubsw_mm_mmm64 => exec!(mm_binary, phsubsw::<8>),
        Phsubsw_xmm_xmmm128 => exec!(xmm_binary, phsubsw::<16>),
        Andps_xmm_xmmm128 => exec!(xmm_binary, pand),
        Andpd_xmm_xmmm128 => exec!(xmm_binary, pand),
        Pand_mm_mmm64 => exec!(mm_binary, pand),
        Pand_xmm_xmmm128 => exec!(xmm_binary, pand),
        Andnps_xmm_xmmm128 => exec!(xmm_binary, pandn),
        Andnpd_xmm_xmmm128 => exec!(xmm_binary, pandn),
        Pandn_mm_mmm64 => exec!(mm_binary, pandn),
        Pandn_xmm_xmmm128 => exec!(xmm_binary, pandn),
        Orps_xmm_xmmm128 => exec!(xmm_binary, por),
        Orpd_xmm_xmmm128 => exec!(xmm_binary, por),
        Por_mm_mmm64 => exec!(mm_binary, por),
        Por_xmm_xmmm128 => exec!(xmm_binary, por),
        Xorps_xmm_xmmm128 => exec!(xmm_binary, pxor),
        Xorpd_xmm_xmmm128 => exec!(xmm_binary, pxor),
        Pxor_mm_mmm64 => exec!(mm_binary, pxor),
        Pxor_xmm_xmmm128 => exec!(xmm_binary, pxor),
        Pabsb_mm_mmm64 => exec!(mm_binary, pabsb),
        Pabsb_xmm_xmmm128 => exec!(xmm_binary, pabsb),
        Pabsw_mm_mmm64 => exec!(mm_binary, pabsw),
        Pabsw_xmm_xmmm128 => exec!(xmm_binary, pabsw),
        Pabsd_mm_mmm64 => exec!(mm_binary, pabsd),
        Pabsd_xmm_xmmm128 => exec!(xmm_binary, pabsd),
        Pmaddwd_mm_mmm64 => exec!(mm_binary, pmaddwd),
        Pmaddwd_xmm_xmmm128 => exec!(xmm_binary, pmaddwd),
        Pmaddubsw_mm_mmm64 => exec!(mm_binary, pmaddubsw),
        Pmaddubsw_xmm_xmmm128 => exec!(xmm_binary, pmaddubsw),
        Psadbw_mm_mmm64 => exec!(mm_binary, psadbw),
        Psadbw_xmm_xmmm128 => exec!(xmm_binary, psadbw),
        Phminposuw_xmm_xmmm128 => exec!(xmm_binary, phminposuw),
        Mpsadbw_xmm_xmmm128_imm8 => exec!(xmm_binary_imm, mpsadbw),
        _ => return None,
    };
    Some(f)
}
