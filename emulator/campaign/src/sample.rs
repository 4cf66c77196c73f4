//! Which fault an injection has: a pure function of the seed, the stratum and the number in the stratum.
//!
//! The faults of a space are taken in the order of a pseudo-random permutation, so that no fault comes twice, any number of them is
//! a simple random sample, and all of them are the space. The permutation is a Feistel network on numbers of an even number
//! of bits; results outside the space are permuted again ("cycle walking": Black and Rogaway, "Ciphers with Arbitrary
//! Finite Domains", CT-RSA 2002).

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Rounds of the network. Four are a pseudo-random permutation if the round function is one (Luby and Rackoff, 1988).
const ROUNDS: u64 = 6;

/// A permutation of the numbers below `len`.
#[derive(Debug, Clone, Copy)]
pub struct Permutation {
    len: u64,
    /// Bits of each half.
    half: u32,
    key: u64,
}

impl Permutation {
    /// The permutation of a stratum. `len` is from 1 to 2^62.
    pub fn new(seed: u64, stratum: &str, len: u64) -> Permutation {
        let bits = u64::BITS - len.saturating_sub(1).leading_zeros();
        Permutation { len: len.max(1), half: bits.div_ceil(2).max(1), key: xxh3_64_with_seed(stratum.as_bytes(), seed) }
    }

    /// Where number `n`, below `len`, goes.
    pub fn at(&self, n: u64) -> u64 {
        let mut at = n % self.len;
        loop {
            at = self.once(at);
            if at < self.len {
                return at;
            }
        }
    }

    fn once(&self, n: u64) -> u64 {
        let mask = (1 << self.half) - 1;
        let (mut left, mut right) = (n >> self.half, n & mask);
        for round in 0..ROUNDS {
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&right.to_le_bytes());
            bytes[8..].copy_from_slice(&round.to_le_bytes());
            (left, right) = (right, left ^ xxh3_64_with_seed(&bytes, self.key) & mask);
        }
        left << self.half | right
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_number_comes_once() {
        for len in [1, 2, 3, 5, 64, 100, 1000, 4097] {
            let permutation = Permutation::new(7, "s", len);
            let all: BTreeSet<u64> = (0..len).map(|n| permutation.at(n)).collect();
            assert_eq!(all.len() as u64, len);
            assert_eq!(all.last().copied(), Some(len - 1));
        }
    }

    #[test]
    fn seeds_and_strata_give_orders_of_their_own() {
        let first = |seed, stratum| (0..8).map(|n| Permutation::new(seed, stratum, 1 << 40).at(n)).collect::<Vec<_>>();
        assert_ne!(first(1, "a"), first(2, "a"));
        assert_ne!(first(1, "a"), first(1, "b"));
        assert_eq!(first(1, "a"), first(1, "a"));
    }

    #[test]
    fn a_sample_is_spread_over_the_space() {
        const PARTS: u64 = 16;
        const DRAWS: u64 = 16_000;
        let permutation = Permutation::new(3, "spread", PARTS << 32);
        let mut counts = [0u64; PARTS as usize];
        (0..DRAWS).for_each(|n| counts[(permutation.at(n) >> 32) as usize] += 1);
        // 1,000 expected in each; the standard deviation is 31.
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
    }

    #[test]
    fn the_order_is_what_it_always_was() {
        // Rows of earlier campaigns are replayed by number.
        let permutation = Permutation::new(1, "dram", 1_000_000);
        assert_eq!((0..4).map(|n| permutation.at(n)).collect::<Vec<_>>(), [621_088, 467_614, 470_385, 990_844]);
    }
}
