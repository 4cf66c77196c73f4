//! Vectors as lanes: a register is a `u128` whose least significant lane is lane 0. An MMX register is the low 64 bits
//! of one; the lane-wise operations then need no width, because what they put into the upper lanes is dropped.

/// An element of a packed operand.
pub trait Lane: Copy {
    /// All lanes of 128 bits, lane 0 first.
    type Array: AsRef<[Self]> + AsMut<[Self]> + Copy;
    fn split(v: u128) -> Self::Array;
    fn join(lanes: Self::Array) -> u128;
}

macro_rules! lane {
    ($($t:ty, $unsigned:ty, $n:literal;)*) => {$(
        impl Lane for $t {
            type Array = [$t; $n];

            #[inline(always)]
            fn split(v: u128) -> [$t; $n] {
                std::array::from_fn(|i| (v >> (i as u32 * <$t>::BITS)) as $t)
            }

            #[inline(always)]
            fn join(lanes: [$t; $n]) -> u128 {
                lanes.iter().enumerate().fold(0, |v, (i, &x)| v | u128::from(x as $unsigned) << (i as u32 * <$t>::BITS))
            }
        }
    )*};
}
lane! {
    u8, u8, 16;
    i8, u8, 16;
    u16, u16, 8;
    i16, u16, 8;
    u32, u32, 4;
    i32, u32, 4;
    u64, u64, 2;
    i64, u64, 2;
}

/// `f` of each lane.
#[inline(always)]
pub fn map<L: Lane>(a: u128, f: impl Fn(L) -> L) -> u128 {
    let mut r = L::split(a);
    for x in r.as_mut() {
        *x = f(*x);
    }
    L::join(r)
}

/// `f` of each pair of lanes.
#[inline(always)]
pub fn map2<L: Lane>(a: u128, b: u128, f: impl Fn(L, L) -> L) -> u128 {
    let mut r = L::split(a);
    let b = L::split(b);
    for (x, y) in r.as_mut().iter_mut().zip(b.as_ref()) {
        *x = f(*x, *y);
    }
    L::join(r)
}

/// The low `W` bytes of a vector.
#[inline(always)]
pub fn low<const W: usize>(v: u128) -> u128 {
    if W == 16 { v } else { v & ((1 << (W * 8)) - 1) }
}
