//! Packing, unpacking, shuffling, blending, widening and shifting (SDM Vol. 2). Conventions as in
//! [`super::arithmetic`].

use super::host::sse2::*;
use super::lanes::{Lane, low, map, map2};
use super::operands::exec;
use crate::ExecFn;
use iced_x86::Code;

/// Even and odd lanes of the concatenation `b:a` of two `W`-byte vectors.
#[inline(always)]
pub fn deinterleave<L: Lane, const W: usize>(a: u128, b: u128) -> (u128, u128) {
    let (a, b) = (L::split(a), L::split(b));
    let (a, b) = (a.as_ref(), b.as_ref());
    // `n` lanes of each operand count; the lanes above, of MMX registers, are dropped by the caller.
    let n = W / size_of::<L>();
    let pick = |i: usize| if i < n { a[i % a.len()] } else { b[(i - n) % b.len()] };
    let (mut even, mut odd) = (L::split(0), L::split(0));
    for i in 0..n {
        even.as_mut()[i] = pick(2 * i);
        odd.as_mut()[i] = pick(2 * i + 1);
    }
    (L::join(even), L::join(odd))
}

/// The high halves of `W`-byte vectors unpack as the low halves of shifted ones do.
macro_rules! unpack_high {
    ($($name:ident: $low:ident;)*) => {$(
        #[inline(always)]
        pub fn $name<const W: u32>(a: u128, b: u128) -> u128 {
            $low(a >> (W * 4), b >> (W * 4))
        }
    )*};
}

unpack_high! {
    punpckhbw: punpcklbw;
    punpckhwd: punpcklwd;
    punpckhdq: punpckldq;
    punpckhqdq: punpcklqdq;
}

/// Packing with saturation: lanes of `a`, then lanes of `b`. Two 64-bit operands are one vector for the host.
macro_rules! pack {
    ($($name:ident: $pack:ident;)*) => {$(
        #[inline(always)]
        pub fn $name<const W: usize>(a: u128, b: u128) -> u128 {
            if W == 8 { $pack(movlhps(a, b), 0) } else { $pack(a, b) }
        }
    )*};
}

pack! {
    packsswb: packsswb_128;
    packssdw: packssdw_128;
    packuswb: packuswb_128;
}

pub fn packusdw(a: u128, b: u128) -> u128 {
    let (a, b) = (i32::split(a), i32::split(b));
    u16::join(std::array::from_fn(|i| {
        let x = if i < 4 { a[i] } else { b[i - 4] };
        x.clamp(0, u16::MAX.into()) as u16
    }))
}

/// Lane `imm[2i+1:2i]` of `v` for each of four lanes.
#[inline(always)]
fn select4<L: Lane>(v: [L; 4], imm: u8) -> [L; 4] {
    std::array::from_fn(|i| v[usize::from(imm >> (2 * i) & 3)])
}

pub fn pshufd(_: u128, b: u128, imm: u8) -> u128 {
    u32::join(select4(u32::split(b), imm))
}

/// PSHUFW and PSHUFLW: the low four words; the high ones as they are in the source.
pub fn pshuflw(_: u128, b: u128, imm: u8) -> u128 {
    let w = u16::split(b);
    let [w0, w1, w2, w3] = select4([w[0], w[1], w[2], w[3]], imm);
    u16::join([w0, w1, w2, w3, w[4], w[5], w[6], w[7]])
}

pub fn pshufhw(_: u128, b: u128, imm: u8) -> u128 {
    let w = u16::split(b);
    let [w4, w5, w6, w7] = select4([w[4], w[5], w[6], w[7]], imm);
    u16::join([w[0], w[1], w[2], w[3], w4, w5, w6, w7])
}

pub fn shufps(a: u128, b: u128, imm: u8) -> u128 {
    let (a, b) = (select4(u32::split(a), imm), select4(u32::split(b), imm));
    u32::join([a[0], a[1], b[2], b[3]])
}

pub fn shufpd(a: u128, b: u128, imm: u8) -> u128 {
    u64::join([u64::split(a)[usize::from(imm & 1)], u64::split(b)[usize::from(imm >> 1 & 1)]])
}

pub fn pshufb<const W: usize>(a: u128, b: u128) -> u128 {
    let a = u8::split(a);
    map::<u8>(b, |x| if x & 0x80 != 0 { 0 } else { a[usize::from(x) & (W - 1)] })
}

/// `W` bytes of the concatenation `a:b`, shifted right by `imm` bytes.
pub fn palignr<const W: usize>(a: u128, b: u128, imm: u8) -> u128 {
    let (n, bits) = (usize::from(imm), W as u32 * 8);
    let shift = u32::from(imm) * 8;
    if n == 0 {
        b
    } else if n < W {
        low::<W>(b) >> shift | a << (bits - shift)
    } else if n < 2 * W {
        low::<W>(a) >> (shift - bits)
    } else {
        0
    }
}

pub fn movlhps(a: u128, b: u128) -> u128 {
    low::<8>(a) | b << 64
}

pub fn movhlps(a: u128, b: u128) -> u128 {
    a >> 64 << 64 | b >> 64
}

/// MOVSS, MOVLPS and others: the low `W` bytes of `b` in place of those of `a`.
#[inline(always)]
pub fn merge_low<const W: usize>(a: u128, b: u128) -> u128 {
    a ^ low::<W>(a ^ b)
}

pub fn movsldup(_: u128, b: u128) -> u128 {
    pshufd(0, b, 0b10_10_00_00)
}

pub fn movshdup(_: u128, b: u128) -> u128 {
    pshufd(0, b, 0b11_11_01_01)
}

pub fn movddup(b: u128) -> u128 {
    movlhps(b, b)
}

/// Lane `i` of `b` where bit `i` of the immediate is set.
#[inline(always)]
pub fn blend_imm<L: Lane>(a: u128, b: u128, imm: u8) -> u128 {
    let mut r = L::split(a);
    for (i, (x, y)) in r.as_mut().iter_mut().zip(L::split(b).as_ref()).enumerate() {
        if imm >> i & 1 != 0 {
            *x = *y;
        }
    }
    L::join(r)
}

/// Lanes of `b` where the mask's lane is negative. `L` is a signed integer type.
#[inline(always)]
pub fn blend_mask<L: Lane + PartialOrd + Default>(a: u128, b: u128, mask: u128) -> u128 {
    let zero = L::default();
    let negative = map2::<L>(mask, b, |m, y| if m < zero { y } else { zero });
    let others = map2::<L>(mask, a, |m, x| if m < zero { zero } else { x });
    negative | others
}

/// The low lanes of type `N`, widened by `f`.
#[inline(always)]
fn widen<N: Lane, L: Lane>(v: u128, f: impl Fn(N) -> L) -> u128 {
    let v = N::split(v);
    let mut r = L::split(0);
    for (x, y) in r.as_mut().iter_mut().zip(v.as_ref()) {
        *x = f(*y);
    }
    L::join(r)
}

macro_rules! widening {
    ($($name:ident: $n:ty, $l:ty;)*) => {$(
        pub fn $name(v: u128) -> u128 {
            widen::<$n, $l>(v, <$l>::from)
        }
    )*};
}

widening! {
    pmovsxbw: i8, i16;
    pmovsxbd: i8, i32;
    pmovsxbq: i8, i64;
    pmovsxwd: i16, i32;
    pmovsxwq: i16, i64;
    pmovsxdq: i32, i64;
    pmovzxbw: u8, u16;
    pmovzxbd: u8, u32;
    pmovzxbq: u8, u64;
    pmovzxwd: u16, u32;
    pmovzxwq: u16, u64;
    pmovzxdq: u32, u64;
}

pub fn pslldq(a: u128, count: u128) -> u128 {
    if count < 16 { a << (count as u32 * 8) } else { 0 }
}

pub fn psrldq(a: u128, count: u128) -> u128 {
    if count < 16 { a >> (count as u32 * 8) } else { 0 }
}

/// MOVMSKPS: the signs of the doublewords.
pub fn movmskps(v: u128) -> u64 {
    i32::split(v).iter().rev().fold(0, |m, &x| m << 1 | u64::from(x < 0))
}

/// MOVMSKPD: the signs of the quadwords.
pub fn movmskpd(v: u128) -> u64 {
    i64::split(v).iter().rev().fold(0, |m, &x| m << 1 | u64::from(x < 0))
}

/// INSERTPS with the source element already selected: imm[5:4] is its place, imm[3:0] the lanes to clear.
pub fn insertps(a: u128, element: u32, imm: u8) -> u128 {
    let mut r = u32::split(a);
    r[usize::from(imm >> 4 & 3)] = element;
    for (i, x) in r.iter_mut().enumerate() {
        if imm >> i & 1 != 0 {
            *x = 0;
        }
    }
    u32::join(r)
}

/// `value` in the lane of `bits` bits with index `lane`, which is in range.
pub fn insert(v: u128, value: u64, bits: u32, lane: u32) -> u128 {
    let mask = ((1u128 << bits) - 1) << (bits * lane);
    v & !mask | (u128::from(value) << (bits * lane)) & mask
}

/// The lane of `bits` bits with index `lane`, which is in range.
pub fn extract(v: u128, bits: u32, lane: u32) -> u64 {
    (v >> (bits * lane) & ((1u128 << bits) - 1)) as u64
}

pub fn lookup(code: Code) -> Option<ExecFn> {
    use Code::*;
    let f: ExecFn = match code {
        Punpcklbw_mm_mmm32 => exec!(mm_binary, punpcklbw),
        Punpcklbw_xmm_xmmm128 => exec!(xmm_binary, punpcklbw),
        Punpcklwd_mm_mmm32 => exec!(mm_binary, punpcklwd),
        Punpcklwd_xmm_xmmm128 => exec!(xmm_binary, punpcklwd),
        Punpckldq_mm_mmm32 => exec!(mm_binary, punpckldq),
        Punpckldq_xmm_xmmm128 | Unpcklps_xmm_xmmm128 => exec!(xmm_binary, punpckldq),
        Punpcklqdq_xmm_xmmm128 | Unpcklpd_xmm_xmmm128 => exec!(xmm_binary, punpcklqdq),
        Punpckhbw_mm_mmm64 => exec!(mm_binary, punpckhbw::<8>),
        Punpckhbw_xmm_xmmm128 => exec!(xmm_binary, punpckhbw::<16>),
        Punpckhwd_mm_mmm64 => exec!(mm_binary, punpckhwd::<8>),
        Punpckhwd_xmm_xmmm128 => exec!(xmm_binary, punpckhwd::<16>),
        Punpckhdq_mm_mmm64 => exec!(mm_binary, punpckhdq::<8>),
        Punpckhdq_xmm_xmmm128 | Unpckhps_xmm_xmmm128 => exec!(xmm_binary, punpckhdq::<16>),
        Punpckhqdq_xmm_xmmm128 | Unpckhpd_xmm_xmmm128 => exec!(xmm_binary, punpckhqdq::<16>),

        Packsswb_mm_mmm64 => exec!(mm_binary, packsswb::<8>),
        Packsswb_xmm_xmmm128 => exec!(xmm_binary, packsswb::<16>),
        Packssdw_mm_mmm64 => exec!(mm_binary, packssdw::<8>),
        Packssdw_xmm_xmmm128 => exec!(xmm_binary, packssdw::<16>),
        Packuswb_mm_mmm64 => exec!(mm_binary, packuswb::<8>),
        Packuswb_xmm_xmmm128 => exec!(xmm_binary, packuswb::<16>),
        Packusdw_xmm_xmmm128 => exec!(xmm_binary, packusdw),

        Pshufw_mm_mmm64_imm8 => exec!(mm_binary_imm, pshuflw),
        Pshufd_xmm_xmmm128_imm8 => exec!(xmm_binary_imm, pshufd),
        Pshufhw_xmm_xmmm128_imm8 => exec!(xmm_binary_imm, pshufhw),
        Pshuflw_xmm_xmmm128_imm8 => exec!(xmm_binary_imm, pshuflw),
        Shufps_xmm_xmmm128_imm8 => exec!(xmm_binary_imm, shufps),
        Shufpd_xmm_xmmm128_imm8 => exec!(xmm_binary_imm, shufpd),
        Pshufb_mm_mmm64 => exec!(mm_binary, pshufb::<8>),
        Pshufb_xmm_xmmm128 => exec!(xmm_binary, pshufb::<16>),
        Palignr_mm_mmm64_imm8 => exec!(mm_binary_imm, palignr::<8>),
        Palignr_xmm_xmmm128_imm8 => exec!(xmm_binary_imm, palignr::<16>),
        Movhlps_xmm_xmm => exec!(xmm_binary, movhlps),
        Movlhps_xmm_xmm => exec!(xmm_binary, movlhps),
        Movsldup_xmm_xmmm128 => exec!(xmm_binary, movsldup),
        Movshdup_xmm_xmmm128 => exec!(xmm_binary, movshdup),
        Movddup_xmm_xmmm64 => exec!(xmm_from_scalar, movddup),

        Pblendw_xmm_xmmm128_imm8 => exec!(xmm_binary_imm, blend_imm::<u16>),
        Blendps_xmm_xmmm128_imm8 => exec!(xmm_binary_imm, blend_imm::<u32>),
        Blendpd_xmm_xmmm128_imm8 => exec!(xmm_binary_imm, blend_imm::<u64>),
        Pblendvb_xmm_xmmm128 => exec!(xmm_binary_mask, blend_mask::<i8>),
        Blendvps_xmm_xmmm128 => exec!(xmm_binary_mask, blend_mask::<i32>),
        Blendvpd_xmm_xmmm128 => exec!(xmm_binary_mask, blend_mask::<i64>),

        Pmovsxbw_xmm_xmmm64 => exec!(xmm_from_scalar, pmovsxbw),
        Pmovsxbd_xmm_xmmm32 => exec!(xmm_from_scalar, pmovsxbd),
        Pmovsxbq_xmm_xmmm16 => exec!(xmm_from_scalar, pmovsxbq),
        Pmovsxwd_xmm_xmmm64 => exec!(xmm_from_scalar, pmovsxwd),
        Pmovsxwq_xmm_xmmm32 => exec!(xmm_from_scalar, pmovsxwq),
        Pmovsxdq_xmm_xmmm64 => exec!(xmm_from_scalar, pmovsxdq),
        Pmovzxbw_xmm_xmmm64 => exec!(xmm_from_scalar, pmovzxbw),
        Pmovzxbd_xmm_xmmm32 => exec!(xmm_from_scalar, pmovzxbd),
        Pmovzxbq_xmm_xmmm16 => exec!(xmm_from_scalar, pmovzxbq),
        Pmovzxwd_xmm_xmmm64 => exec!(xmm_from_scalar, pmovzxwd),
        Pmovzxwq_xmm_xmmm32 => exec!(xmm_from_scalar, pmovzxwq),
        Pmovzxdq_xmm_xmmm64 => exec!(xmm_from_scalar, pmovzxdq),

        Psllw_mm_mmm64 => exec!(mm_binary, psllw),
        Psllw_xmm_xmmm128 => exec!(xmm_binary, psllw),
        Psllw_mm_imm8 => exec!(mm_imm, psllw),
        Psllw_xmm_imm8 => exec!(xmm_imm, psllw),
        Pslld_mm_mmm64 => exec!(mm_binary, pslld),
        Pslld_xmm_xmmm128 => exec!(xmm_binary, pslld),
        Pslld_mm_imm8 => exec!(mm_imm, pslld),
        Pslld_xmm_imm8 => exec!(xmm_imm, pslld),
        Psllq_mm_mmm64 => exec!(mm_binary, psllq),
        Psllq_xmm_xmmm128 => exec!(xmm_binary, psllq),
        Psllq_mm_imm8 => exec!(mm_imm, psllq),
        Psllq_xmm_imm8 => exec!(xmm_imm, psllq),
        Psrlw_mm_mmm64 => exec!(mm_binary, psrlw),
        Psrlw_xmm_xmmm128 => exec!(xmm_binary, psrlw),
        Psrlw_mm_imm8 => exec!(mm_imm, psrlw),
        Psrlw_xmm_imm8 => exec!(xmm_imm, psrlw),
        Psrld_mm_mmm64 => exec!(mm_binary, psrld),
        Psrld_xmm_xmmm128 => exec!(xmm_binary, psrld),
        Psrld_mm_imm8 => exec!(mm_imm, psrld),
        Psrld_xmm_imm8 => exec!(xmm_imm, psrld),
        Psrlq_mm_mmm64 => exec!(mm_binary, psrlq),
        Psrlq_xmm_xmmm128 => exec!(xmm_binary, psrlq),
        Psrlq_mm_imm8 => exec!(mm_imm, psrlq),
        Psrlq_xmm_imm8 => exec!(xmm_imm, psrlq),
        Psraw_mm_mmm64 => exec!(mm_binary, psraw),
        Psraw_xmm_xmmm128 => exec!(xmm_binary, psraw),
        Psraw_mm_imm8 => exec!(mm_imm, psraw),
        Psraw_xmm_imm8 => exec!(xmm_imm, psraw),
        Psrad_mm_mmm64 => exec!(mm_binary, psrad),
        Psrad_xmm_xmmm128 => exec!(xmm_binary, psrad),
        Psrad_mm_imm8 => exec!(mm_imm, psrad),
        Psrad_xmm_imm8 => exec!(xmm_imm, psrad),
        Pslldq_xmm_imm8 => exec!(xmm_imm, pslldq),
        Psrldq_xmm_imm8 => exec!(xmm_imm, psrldq),
        _ => return None,
    };
    Some(f)
}
