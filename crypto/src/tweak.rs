//! The XTS tweak: E_K2(data-unit number), then multiplication by alpha from block to block (IEEE 1619-2007, 5.2).

use aes::Block;

/// AES blocks in a 64-byte line.
pub(crate) const BLOCKS_PER_LINE: usize = 4;

/// Bytes in an AES block.
pub(crate) const BLOCK_BYTES: usize = 16;

/// x^128 + x^7 + x^2 + x + 1: what a bit that leaves position 127 comes back as.
pub(crate) const REDUCTION: u128 = 0x87;

/// What the three bits of an index come back as when they leave the top: their carry-less product with [`REDUCTION`].
pub(crate) const REDUCED: [u16; 8] = {
    let mut table = [0; 8];
    let mut bits = 0;
    while bits < 8 {
        let mut power = 0;
        while power < 3 {
            if bits >> power & 1 != 0 {
                table[bits] ^= (REDUCTION as u16) << power;
            }
            power += 1;
        }
        bits += 1;
    }
    table
};

/// The data-unit number as the input block of the tweak cipher: 128 bits, little-endian (MC-33).
#[inline]
pub(crate) fn unit_block(dun: u64) -> Block {
    u128::from(dun).to_le_bytes().into()
}

/// T_(j+1) = T_j * alpha in GF(2^128).
#[inline]
pub(crate) fn times_alpha(tweak: u128) -> u128 {
    // An arithmetic shift spreads bit 127 over a mask, which keeps the carry free of branches.
    let carry = ((tweak as i128) >> 127) as u128;
    (tweak << 1) ^ (carry & REDUCTION)
}

/// The tweaks T_0..T_3 of a line from its encrypted unit block T_0.
#[inline]
pub(crate) fn line_tweaks(first: &Block) -> [u128; BLOCKS_PER_LINE] {
    let t0 = u128::from_le_bytes((*first).into());
    let t1 = times_alpha(t0);
    let t2 = times_alpha(t1);
    [t0, t1, t2, times_alpha(t2)]
}

/// First tweaks of which bits leave the low quadword, the high one, both, in every number.
#[cfg(test)]
pub(crate) const CARRYING: [u128; 7] =
    [1, 7 << 61, 7 << 125, 5 << 125, 3 << 126, u128::MAX, 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c834];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bit_shifted_out_of_the_top_comes_back_as_0x87() {
        assert_eq!(times_alpha(1), 2);
        assert_eq!(times_alpha(1 << 127), 0x87);
        assert_eq!(times_alpha(u128::MAX), !1 ^ 0x87);
    }

    #[test]
    fn alpha_crosses_byte_boundaries_in_little_endian_order() {
        let mut bytes = [0; BLOCK_BYTES];
        bytes[0] = 0x80;
        assert_eq!(line_tweaks(&bytes.into())[1].to_le_bytes()[..2], [0x00, 0x01]);
    }

    #[test]
    fn the_data_unit_number_is_little_endian() {
        let block = unit_block(0x0102_0304_0506_0708);
        assert_eq!(block[..8], [8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(block[8..], [0; 8]);
    }
}
