//! AES-NI, PCLMULQDQ and CRC32.

use super::lanes::Lane;
use super::operands::exec;
use crate::ExecFn;
use crate::state::Cpu;
use iced_x86::{Code, Instruction};
use x86::Exception;

/// Multiplication in GF(2^8) modulo x^8 + x^4 + x^3 + x + 1 (FIPS 197, section 4.2).
const fn gf_mul(mut a: u8, mut b: u8) -> u8 {
    let mut product = 0;
    while b != 0 {
        if b & 1 != 0 {
            product ^= a;
        }
        a = a << 1 ^ if a & 0x80 != 0 { 0x1B } else { 0 };
        b >>= 1;
    }
    product
}

/// SubBytes: multiplicative inverse and affine map (FIPS 197, section 5.1.1).
const SBOX: [u8; 256] = {
    let mut table = [0; 256];
    let mut x = 0;
    while x < 256 {
        // x^254 is the inverse of x, and 0 for 0.
        let mut inverse = 1;
        let mut i = 0;
        while i < 254 {
            inverse = gf_mul(inverse, x as u8);
            i += 1;
        }
        let y = inverse;
        table[x] = y ^ y.rotate_left(1) ^ y.rotate_left(2) ^ y.rotate_left(3) ^ y.rotate_left(4) ^ 0x63;
        x += 1;
    }
    table
};

/// InvSubBytes (FIPS 197, section 5.3.2).
const INV_SBOX: [u8; 256] = {
    let mut table = [0; 256];
    let mut x = 0;
    while x < 256 {
        table[SBOX[x] as usize] = x as u8;
        x += 1;
    }
    table
};

/// What a byte in row 0 contributes to its column in a matrix multiplication; the other rows are rotations of it.
const fn column_table(coefficients: [u8; 4]) -> [u32; 256] {
    let mut table = [0; 256];
    let mut x = 0;
    while x < 256 {
        let b = x as u8;
        table[x] = u32::from_le_bytes([
            gf_mul(b, coefficients[0]),
            gf_mul(b, coefficients[1]),
            gf_mul(b, coefficients[2]),
            gf_mul(b, coefficients[3]),
        ]);
        x += 1;
    }
    table
}

/// MixColumns and InvMixColumns (FIPS 197, sections 5.1.3 and 5.3.3).
static MIX: [u32; 256] = column_table([2, 1, 1, 3]);
static INV_MIX: [u32; 256] = column_table([14, 9, 13, 11]);

fn mix_columns(state: [u8; 16], table: &[u32; 256]) -> u128 {
    u32::join(std::array::from_fn(|c| {
        (0..4).fold(0, |column, r| column ^ table[usize::from(state[4 * c + r])].rotate_left(8 * r as u32))
    }))
}

/// ShiftRows and SubBytes. Byte `4c + r` of the state is row `r` of column `c`.
fn shift_sub(state: u128) -> [u8; 16] {
    let s = state.to_le_bytes();
    std::array::from_fn(|i| SBOX[usize::from(s[(i + 4 * (i % 4)) % 16])])
}

/// InvShiftRows and InvSubBytes.
fn inv_shift_sub(state: u128) -> [u8; 16] {
    let s = state.to_le_bytes();
    std::array::from_fn(|i| INV_SBOX[usize::from(s[(i + 16 - 4 * (i % 4)) % 16])])
}

pub fn aesenc(state: u128, key: u128) -> u128 {
    mix_columns(shift_sub(state), &MIX) ^ key
}

pub fn aesenclast(state: u128, key: u128) -> u128 {
    u128::from_le_bytes(shift_sub(state)) ^ key
}

pub fn aesdec(state: u128, key: u128) -> u128 {
    mix_columns(inv_shift_sub(state), &INV_MIX) ^ key
}

pub fn aesdeclast(state: u128, key: u128) -> u128 {
    u128::from_le_bytes(inv_shift_sub(state)) ^ key
}

pub fn aesimc(_: u128, key: u128) -> u128 {
    mix_columns(key.to_le_bytes(), &INV_MIX)
}

pub fn aeskeygenassist(_: u128, key: u128, rcon: u8) -> u128 {
    let sub_word = |w: u32| u32::from_le_bytes(w.to_le_bytes().map(|b| SBOX[usize::from(b)]));
    let words = u32::split(key);
    let (x1, x3) = (sub_word(words[1]), sub_word(words[3]));
    let rotated = |w: u32| w.rotate_right(8) ^ u32::from(rcon);
    u32::join([x1, rotated(x1), x3, rotated(x3)])
}

/// Carry-less product of the quadwords that bits 0 (destination) and 4 (source) of the immediate select.
pub fn pclmulqdq(a: u128, b: u128, imm: u8) -> u128 {
    let x = u128::from(u64::split(a)[usize::from(imm & 1)]);
    let y = u64::split(b)[usize::from(imm >> 4 & 1)];
    (0..64).fold(0, |product, i| product ^ (x << i & u128::from(y >> i & 1).wrapping_neg()))
}

/// CRC-32C, polynomial 11EDC6F41H, bit-reflected.
static CRC32C: [u32; 256] = {
    let mut table = [0; 256];
    let mut x = 0;
    while x < 256 {
        let mut crc = x as u32;
        let mut i = 0;
        while i < 8 {
            crc = crc >> 1 ^ if crc & 1 != 0 { 0x82F6_3B78 } else { 0 };
            i += 1;
        }
        table[x] = crc;
        x += 1;
    }
    table
};

/// CRC32 of the low `bytes` bytes of `data`, without inversions.
pub fn crc32(crc: u32, data: u64, bytes: usize) -> u32 {
    data.to_le_bytes().iter().take(bytes).fold(crc, |crc, &b| CRC32C[usize::from(crc as u8 ^ b)] ^ crc >> 8)
}

/// CRC32 r32/r64, r/m of `BYTES` bytes. The destination's bits 63:32 become zero.
fn exec_crc32<const BYTES: usize>(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    let data = cpu.read_operand(insn, 1)?;
    let crc = cpu.reg(insn.op0_register()) as u32;
    cpu.set_reg(insn.op0_register(), u64::from(crc32(crc, data, BYTES)));
    Ok(())
}

pub fn lookup(code: Code) -> Option<ExecFn> {
    use Code::*;
    let f: ExecFn = match code {
        Aesenc_xmm_xmmm128 => exec!(xmm_binary, aesenc),
        Aesenclast_xmm_xmmm128 => exec!(xmm_binary, aesenclast),
        Aesdec_xmm_xmmm128 => exec!(xmm_binary, aesdec),
        Aesdeclast_xmm_xmmm128 => exec!(xmm_binary, aesdeclast),
        Aesimc_xmm_xmmm128 => exec!(xmm_binary, aesimc),
        Aeskeygenassist_xmm_xmmm128_imm8 => exec!(xmm_binary_imm, aeskeygenassist),
        Pclmulqdq_xmm_xmmm128_imm8 => exec!(xmm_binary_imm, pclmulqdq),
        Crc32_r32_rm8 | Crc32_r64_rm8 => exec_crc32::<1>,
        Crc32_r32_rm16 => exec_crc32::<2>,
        Crc32_r32_rm32 => exec_crc32::<4>,
        Crc32_r64_rm64 => exec_crc32::<8>,
        _ => return None,
    };
    Some(f)
}
