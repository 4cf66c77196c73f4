//! Integer instructions.

use super::super::{arithmetic::*, crypto::*, host::sse2::*, shuffle::*, string};
use super::{Random, all_immediates, bits, silicon_mm, silicon_xmm, vector};
use std::arch::asm;
use std::arch::is_x86_feature_detected as has;

const ROUNDS: usize = 3000;

fn agree(name: &str, ours: impl Fn(u128, u128) -> u128, silicon: impl Fn(u128, u128) -> u128) {
    let mut random = Random::new(name.len() as u64);
    for _ in 0..ROUNDS {
        let (a, mut b) = (random.vector(), random.vector());
        if random.below(4) == 0 {
            b = u128::from(random.below(70));
        }
        let (got, want) = (ours(a, b), silicon(a, b));
        assert_eq!(got, want, "{name} {a:032x} {b:032x}: {got:032x}, silicon {want:032x}");
    }
}

macro_rules! xmm {
    ($($f:ident)*) => {$( agree(stringify!($f), $f, silicon_xmm!(stringify!($f))); )*};
}

macro_rules! mm {
    ($($f:ident)*) => {$(
        let low = |a: u128, b: u128| u128::from($f(u128::from(a as u64), u128::from(b as u64)) as u64);
        agree(concat!(stringify!($f), " mm"), low, silicon_mm!(stringify!($f)));
    )*};
}

/// Functions that are generic over the width.
macro_rules! both {
    ($($f:ident)*) => {$(
        agree(stringify!($f), $f::<16>, silicon_xmm!(stringify!($f)));
        let low = |a: u128, b: u128| u128::from($f::<8>(u128::from(a as u64), u128::from(b as u64)) as u64);
        agree(concat!(stringify!($f), " mm"), low, silicon_mm!(stringify!($f)));
    )*};
}

#[test]
fn sse2_instructions_agree_with_the_host() {
    xmm! {
        paddb paddw paddd paddq paddsb paddsw paddusb paddusw psubb psubw psubd psubq psubsb psubsw psubusb psubusw
        pmullw pmulhw pmulhuw pmuludq pmaddwd psadbw pavgb pavgw pminub pminsw pmaxub pmaxsw
        pcmpeqb pcmpeqw pcmpeqd pcmpgtb pcmpgtw pcmpgtd pand pandn por pxor
        psllw pslld psllq psrlw psrld psrlq psraw psrad movlhps movhlps punpcklbw punpcklwd punpckldq punpcklqdq
    }
    both!(packsswb packssdw packuswb punpckhbw punpckhwd punpckhdq);
    agree("punpckhqdq", punpckhqdq::<16>, silicon_xmm!("punpckhqdq"));
    agree("movss", merge_low::<4>, silicon_xmm!("movss"));
    agree("movsd", merge_low::<8>, silicon_xmm!("movsd"));
}

#[test]
fn mmx_instructions_agree_with_the_host() {
    mm! {
        paddb paddw paddd paddq paddsb paddsw paddusb paddusw psubb psubw psubd psubq psubsb psubsw psubusb psubusw
        pmullw pmulhw pmulhuw pmuludq pmaddwd psadbw pavgb pavgw pminub pminsw pmaxub pmaxsw
        pcmpeqb pcmpeqw pcmpeqd pcmpgtb pcmpgtw pcmpgtd pand pandn por pxor
        psllw pslld psllq psrlw psrld psrlq psraw psrad punpcklbw punpcklwd punpckldq
    }
}

#[test]
fn sse3_to_sse4_instructions_agree_with_the_host() {
    if !has!("sse4.2") {
        return;
    }
    xmm! {
        psignb psignw psignd pabsb pabsw pabsd pmulhrsw pmaddubsw
        pmulld pmuldq pminsb pminsd pminuw pminud pmaxsb pmaxsd pmaxuw pmaxud pcmpeqq pcmpgtq phminposuw
        movsldup movshdup
    }
    mm!(psignb psignw psignd pabsb pabsw pabsd pmulhrsw pmaddubsw);
    both!(phaddw phaddd phaddsw phsubw phsubd phsubsw pshufb);
    agree("packusdw", packusdw, silicon_xmm!("packusdw"));
    agree("movddup", |_, b| movddup(b), silicon_xmm!("movddup"));
    macro_rules! widen {
        ($($f:ident)*) => {$( agree(stringify!($f), |_, b| $f(b), silicon_xmm!(stringify!($f))); )*};
    }
    widen! {
        pmovsxbw pmovsxbd pmovsxbq pmovsxwd pmovsxwq pmovsxdq pmovzxbw pmovzxbd pmovzxbq pmovzxwd pmovzxwq pmovzxdq
    }
}

#[test]
fn blends_by_xmm0_agree_with_the_host() {
    if !has!("sse4.1") {
        return;
    }
    macro_rules! blend {
        ($name:literal, $f:expr) => {
            let mask = 0x80FF_7F00_8000_0001_FFFF_0000_7FFF_8080_u128;
            let silicon = |a: u128, b: u128| {
                let mut r = vector(a);
                // SAFETY: changes only its destination.
                unsafe {
                    asm!(
                        concat!($name, " xmm1, xmm2, xmm0"),
                        inout("xmm1") r, in("xmm2") vector(b), in("xmm0") vector(mask),
                    )
                };
                bits(r)
            };
            agree($name, |a, b| $f(a, b, mask), silicon);
        };
    }
    blend!("pblendvb", blend_mask::<i8>);
    blend!("blendvps", blend_mask::<i32>);
    blend!("blendvpd", blend_mask::<i64>);
}

/// The host's instruction with all immediates.
macro_rules! immediates {
    ($name:literal, $ours:expr) => {{
        fn silicon<const I: u8>(a: u128, b: u128) -> u128 {
            let mut r = vector(a);
            // SAFETY: changes only its destination.
            unsafe {
                asm!(concat!($name, " {r}, {b}, {i}"), r = inout(xmm_reg) r, b = in(xmm_reg) vector(b), i = const I)
            };
            bits(r)
        }
        immediates(concat!($name, " xmm"), &all_immediates!(silicon), $ours)
    }};
}

/// The host's instruction `mm, mm, imm8` with all immediates.
macro_rules! immediates_mm {
    ($name:literal, $ours:expr) => {{
        fn silicon<const I: u8>(a: u128, b: u128) -> u128 {
            let mut r = a as u64;
            // SAFETY: EMMS gives the x87 registers back; all of them are declared as changed.
            unsafe {
                asm!(
                    "movq mm0, {r}",
                    "movq mm1, {b}",
                    concat!($name, " mm0, mm1, {i}"),
                    "movq {r}, mm0",
                    "emms",
                    r = inout(reg) r,
                    b = in(reg) b as u64,
                    i = const I,
                    out("mm0") _, out("mm1") _, out("mm2") _, out("mm3") _,
                    out("mm4") _, out("mm5") _, out("mm6") _, out("mm7") _,
                    out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
                    out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
                )
            };
            u128::from(r)
        }
        let low = |a: u128, b: u128, i| u128::from($ours(u128::from(a as u64), u128::from(b as u64), i) as u64);
        immediates(concat!($name, " mm"), &all_immediates!(silicon), low)
    }};
}

type WithImmediate = fn(u128, u128) -> u128;

fn immediates(name: &str, silicon: &[WithImmediate], ours: impl Fn(u128, u128, u8) -> u128) {
    let mut random = Random::new(7);
    for (imm, silicon) in silicon.iter().enumerate() {
        for _ in 0..40 {
            let (a, b) = (random.vector(), random.vector());
            let (got, want) = (ours(a, b, imm as u8), silicon(a, b));
            assert_eq!(got, want, "{name} {a:032x} {b:032x} {imm:#x}: {got:032x}, silicon {want:032x}");
        }
    }
}

#[test]
fn instructions_with_immediates_agree_with_the_host() {
    immediates!("pshufd", pshufd);
    immediates!("pshufhw", pshufhw);
    immediates!("pshuflw", pshuflw);
    immediates!("shufps", shufps);
    immediates!("shufpd", shufpd);
    immediates_mm!("pshufw", pshuflw);
    if has!("sse4.1") {
        immediates!("palignr", palignr::<16>);
        immediates_mm!("palignr", palignr::<8>);
        immediates!("pblendw", blend_imm::<u16>);
        immediates!("blendps", blend_imm::<u32>);
        immediates!("blendpd", blend_imm::<u64>);
        immediates!("mpsadbw", mpsadbw);
        immediates!("insertps", |a, b, imm: u8| insertps(a, extract(b, 32, u32::from(imm >> 6)) as u32, imm));
    }
    if has!("pclmulqdq") {
        immediates!("pclmulqdq", pclmulqdq);
    }
    if has!("aes") {
        immediates!("aeskeygenassist", aeskeygenassist);
    }
}

#[test]
fn aes_instructions_agree_with_the_host() {
    if has!("aes") {
        xmm!(aesenc aesenclast aesdec aesdeclast aesimc);
    }
}

#[test]
fn byte_shifts_agree_with_the_host() {
    macro_rules! shift {
        ($name:literal, $ours:ident) => {{
            fn silicon<const I: u8>(a: u128, _: u128) -> u128 {
                let mut r = vector(a);
                // SAFETY: changes only its destination.
                unsafe { asm!(concat!($name, " {r}, {i}"), r = inout(xmm_reg) r, i = const I) };
                bits(r)
            }
            immediates($name, &all_immediates!(silicon), |a, _, imm| $ours(a, imm.into()))
        }};
    }
    shift!("pslldq", pslldq);
    shift!("psrldq", psrldq);
}

#[test]
fn sign_masks_agree_with_the_host() {
    macro_rules! mask {
        ($name:literal, $ours:ident) => {
            let silicon = |_: u128, b: u128| {
                let r: u64;
                // SAFETY: changes only its destination.
                unsafe { asm!(concat!($name, " {r:e}, {b}"), r = out(reg) r, b = in(xmm_reg) vector(b)) };
                u128::from(r)
            };
            agree($name, |_, b| $ours(b).into(), silicon);
        };
    }
    mask!("pmovmskb", pmovmskb);
    mask!("movmskps", movmskps);
    mask!("movmskpd", movmskpd);
}

#[test]
fn crc32_agrees_with_the_host() {
    if !has!("sse4.2") {
        return;
    }
    let mut random = Random::new(1);
    for _ in 0..ROUNDS {
        let (crc, data) = (random.u64(), random.u64());
        macro_rules! size {
            ($instruction:literal, $bytes:literal) => {
                let mut r = crc;
                // SAFETY: changes only its destination.
                unsafe { asm!($instruction, r = inout(reg) r, d = in(reg) data) };
                assert_eq!(u64::from(crc32(crc as u32, data, $bytes)), r);
            };
        }
        size!("crc32 {r:e}, {d:l}", 1);
        size!("crc32 {r:e}, {d:x}", 2);
        size!("crc32 {r:e}, {d:e}", 4);
        size!("crc32 {r}, {d}", 8);
    }
}

/// ECX, XMM0 and the flags CF, ZF, SF, OF of the explicit and the implicit forms.
type StringOutcome = (u32, u128, u64);

#[test]
fn string_comparisons_agree_with_the_host() {
    if !has!("sse4.2") {
        return;
    }
    const STRING_FLAGS: u64 = x86::flags::ARITH;
    fn explicit<const I: u8>(a: u128, b: u128, la: i64, lb: i64) -> StringOutcome {
        let (index, mask, flags): (u64, _, u64);
        // SAFETY: pushes and pops one word; the other registers are declared.
        unsafe {
            asm!(
                "pcmpestrm xmm1, xmm2, {i}",
                "pcmpestri xmm1, xmm2, {i}",
                "pushfq",
                "pop {flags}",
                in("rax") la, in("rdx") lb, in("xmm1") vector(a), in("xmm2") vector(b),
                out("xmm0") mask, out("rcx") index, flags = out(reg) flags, i = const I,
            )
        };
        (index as u32, bits(mask), flags & STRING_FLAGS)
    }
    fn implicit<const I: u8>(a: u128, b: u128, _: i64, _: i64) -> StringOutcome {
        let (index, mask, flags): (u64, _, u64);
        // SAFETY: pushes and pops one word; the other registers are declared.
        unsafe {
            asm!(
                "pcmpistrm xmm1, xmm2, {i}",
                "pcmpistri xmm1, xmm2, {i}",
                "pushfq",
                "pop {flags}",
                in("xmm1") vector(a), in("xmm2") vector(b),
                out("xmm0") mask, out("rcx") index, flags = out(reg) flags, i = const I,
            )
        };
        (index as u32, bits(mask), flags & STRING_FLAGS)
    }
    let ours = |a, b, la, lb, imm| {
        let (result, flags) = string::compare(a, b, la, lb, imm);
        (string::index(result, imm), string::mask(result, imm), flags)
    };
    let mut random = Random::new(3);
    let tables = (all_immediates!(explicit), all_immediates!(implicit));
    for (imm, (explicit, implicit)) in tables.0.iter().zip(&tables.1).enumerate() {
        let imm = imm as u8;
        for _ in 0..200 {
            let (a, b) = (random.vector(), random.vector());
            let mut length = || match random.below(4) {
                0 => i64::from(i32::MIN) - 1 + random.below(3) as i64,
                _ => random.below(40) as i64 - 20,
            };
            let (la, lb) = (length(), length());
            let lengths = |l: i64| string::explicit_length(i64::from(l as i32), imm);
            assert_eq!(
                ours(a, b, lengths(la), lengths(lb), imm),
                explicit(a, b, la, lb),
                "pcmpestr {a:032x} {b:032x} {la} {lb} {imm:#x}"
            );
            let (na, nb) = (string::implicit_length(a, imm), string::implicit_length(b, imm));
            assert_eq!(ours(a, b, na, nb, imm), implicit(a, b, 0, 0), "pcmpistr {a:032x} {b:032x} {imm:#x}");
        }
    }
}
