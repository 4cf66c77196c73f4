//! Random numbers and the boundary values that operands are drawn from.

/// SplitMix64: cases must be reproducible from a seed for ever, whatever version a generator crate has.
#[derive(Debug, Clone)]
pub struct Rng(u64);

/// Integers at which carries, signs and sizes change.
const EDGES: [u64; 18] = [
    0,
    1,
    2,
    0x7F,
    0x80,
    0xFF,
    0x100,
    0x7FFF,
    0x8000,
    0xFFFF,
    0x1_0000,
    0x7FFF_FFFF,
    0x8000_0000,
    0xFFFF_FFFF,
    0x1_0000_0000,
    0x7FFF_FFFF_FFFF_FFFF,
    0x8000_0000_0000_0000,
    u64::MAX,
];

impl Rng {
    /// The generator of case `index` under `seed`.
    pub fn new(seed: u64, index: u64) -> Rng {
        let mut r = Rng(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ index.wrapping_mul(0xD1B5_4A32_D192_ED03));
        r.bits();
        r
    }

    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    /// Below `n`, which is not 0.
    pub fn below(&mut self, n: u64) -> u64 {
        self.bits() % n
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    /// An integer: an edge, its neighbour, a small or any value.
    pub fn int(&mut self) -> u64 {
        match self.below(8) {
            0 | 1 => self.pick(&EDGES),
            2 => self.pick(&EDGES).wrapping_add(self.below(5)).wrapping_sub(2),
            3 => self.below(256),
            4 => (self.below(512) as i64 - 256) as u64,
            5 => self.bits() >> self.below(64),
            _ => self.bits(),
        }
    }

    /// A binary32.
    pub fn f32(&mut self) -> u32 {
        const EDGES: [u32; 20] = [
            0,
            1,
            0x0040_0000,
            0x007F_FFFF,
            0x0080_0000,
            0x3380_0000,
            0x3F00_0000,
            0x3F80_0000,
            0x3F80_0001,
            0x3FC0_0000,
            0x4000_0000,
            0x4B00_0000,
            0x4EFF_FFFF,
            0x4F00_0000,
            0x5F00_0000,
            0x7F7F_FFFF,
            0x7F80_0000,
            0x7F80_0001,
            0x7FC0_0000,
            0x7FFF_FFFF,
        ];
        match self.below(8) {
            0..=3 => self.pick(&EDGES) | (self.bits() as u32 & 1) << 31,
            // Near 1, where rounding is visible.
            4 | 5 => (self.bits() as u32 & 0x807F_FFFF) | (0x7F - 12 + self.below(24) as u32) << 23,
            6 => ((self.below(4000) as i32 - 2000) as f32 / 4.0).to_bits(),
            _ => self.bits() as u32,
        }
    }

    /// A binary64.
    pub fn f64(&mut self) -> u64 {
        const EDGES: [u64; 20] = [
            0,
            1,
            0x0008_0000_0000_0000,
            0x000F_FFFF_FFFF_FFFF,
            0x0010_0000_0000_0000,
            0x36A0_0000_0000_0000,
            0x3810_0000_0000_0000,
            0x3FE0_0000_0000_0000,
            0x3FF0_0000_0000_0000,
            0x3FF0_0000_0000_0001,
            0x4000_0000_0000_0000,
            0x41DF_FFFF_FFC0_0000,
            0x41E0_0000_0000_0000,
            0x43E0_0000_0000_0000,
            0x47EF_FFFF_F000_0000,
            0x7FEF_FFFF_FFFF_FFFF,
            0x7FF0_0000_0000_0000,
            0x7FF0_0000_0000_0001,
            0x7FF8_0000_0000_0000,
            0x7FFF_FFFF_FFFF_FFFF,
        ];
        match self.below(8) {
            0..=3 => self.pick(&EDGES) | self.bits() << 63,
            4 | 5 => (self.bits() & 0x800F_FFFF_FFFF_FFFF) | (0x3FF - 30 + self.below(60)) << 52,
            6 => ((self.below(4000) as i64 - 2000) as f64 / 4.0).to_bits(),
            _ => self.bits(),
        }
    }

    /// A double extended value, unsupported encodings among them.
    pub fn f80(&mut self) -> u128 {
        const EXPONENTS: [u64; 12] =
            [0, 1, 0x3FBE, 0x3FFE, 0x3FFF, 0x4000, 0x401D, 0x401E, 0x403D, 0x403E, 0x7FFE, 0x7FFF];
        const SIGNIFICANDS: [u64; 8] = [
            0x8000_0000_0000_0000,
            0xC000_0000_0000_0000,
            0xFFFF_FFFF_FFFF_FFFF,
            0x8000_0000_0000_0001,
            0xC90F_DAA2_2168_C235,
            0xA000_0000_0000_0000,
            0x8000_0080_0000_0000,
            0x8000_0000_0000_0400,
        ];
        let sign = self.bits() & 0x8000;
        let (exponent, significand) = match self.below(12) {
            0 => (0, 0),
            1 => (0x3FFF, 1 << 63),
            2 => (0, self.bits() >> 1),
            3 => (0x7FFF, self.pick(&[1 << 63, 3 << 62, 1 << 63 | 1, u64::MAX])),
            4 => (self.pick(&EXPONENTS), self.pick(&SIGNIFICANDS)),
            5 => (0x3FFF - 16 + self.below(32), self.pick(&SIGNIFICANDS)),
            // Unnormals, pseudo-infinities, pseudo-NaNs, pseudo-denormals.
            6 => (self.pick(&EXPONENTS), self.bits()),
            7 => {
                let n = self.int() >> self.below(32);
                if n == 0 { (0, 0) } else { (0x403E - u64::from(n.leading_zeros()), n << n.leading_zeros()) }
            }
            8 | 9 => (0x3FFF - 40 + self.below(80), self.bits() | 1 << 63),
            10 => (0x3FFF - 2 + self.below(4), self.bits() | 1 << 63),
            _ => (self.bits() & 0x7FFF, self.bits() | 1 << 63),
        };
        u128::from(sign | exponent) << 64 | u128::from(significand)
    }

    /// Sixteen bytes for a vector register or a memory operand: integers, singles, doubles or text.
    pub fn vector(&mut self) -> u128 {
        match self.below(8) {
            0 | 1 => (0..4).fold(0, |v, i| v | u128::from(self.f32()) << (32 * i)),
            2 | 3 => u128::from(self.f64()) | u128::from(self.f64()) << 64,
            4 => u128::from(self.int()) | u128::from(self.int()) << 64,
            5 => (0..8).fold(0, |v, i| v | u128::from(self.int() as u16) << (16 * i)),
            // Few different bytes, for comparisons of strings.
            6 => (0..16).fold(0, |v, i| v | u128::from(self.pick(&[0u8, b'a', b'b', b'c', 0x80, 0xFF])) << (8 * i)),
            _ => u128::from(self.bits()) | u128::from(self.bits()) << 64,
        }
    }
}
