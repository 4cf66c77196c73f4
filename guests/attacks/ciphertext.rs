//! A constant-time exponentiation whose state is in encrypted memory: no branch and no address depends on the secret exponent,
//! and yet who sees the ciphertext reads it (Li et al., USENIX Security 2021 and IEEE S&P 2022; docs/attack-ciphertext-side-channel.md).
//!
//! The state goes to memory after each step. Here CLFLUSH takes it there; in a real attack it is a hypervisor that interrupts
//! the guest and empties the cache.

use crate::cpu::cpuid;
use crate::keys::{self, Command};
use crate::options::Nonce;
use crate::pages::{self, Line, Window};
use crate::{Marker, Verdict, marker, say};
use core::arch::asm;
use core::hint::black_box;

use crate::mktme::Machine;

/// Where the state is: block 0 has one accumulator, block 1 the other.
const STATE: u64 = 0x80_0000;
const KEYID: u16 = 1;
const BITS: u32 = 64;
/// The prime 2^61 - 1, and a number of large order.
const P: u64 = (1 << 61) - 1;
const BASE: u64 = 37;
/// CPUID.1:ECX.
const RDRAND: u32 = 1 << 30;

/// Product modulo 2^61 - 1.
fn multiply(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    // 2^61 is 1. Twice, since the first sum may be a bit too long.
    let sum = (product as u64 & P) + (product >> 61) as u64;
    let sum = (sum & P) + (sum >> 61);
    // P itself is 0.
    let is_p = (sum ^ P).wrapping_sub(1) >> 63;
    sum & is_p.wrapping_sub(1)
}

/// The two accumulators in memory.
struct State {
    window: Window,
    nonce: Nonce,
    stores: u64,
}

impl State {
    fn store(&mut self, [a, b]: [u64; 2]) {
        self.stores += 1;
        let [same, other] = match self.nonce {
            Nonce::None => [0, 0],
            Nonce::OtherBlock => [0, self.stores],
            Nonce::SameBlock => [self.stores, 0],
        };
        let mut line: Line = [0; 64];
        for (place, word) in line.chunks_exact_mut(8).zip([a, same, b, same, other]) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        self.window.store(0, &line);
    }

    fn load(&self) -> [u64; 2] {
        let line = self.window.read(0);
        [0, 16].map(|at| u64::from_le_bytes(core::array::from_fn(|n| line[at + n])))
    }

    /// Exchanges the accumulators if `bit` is 1, without a branch, and stores them in any case.
    fn swap_if(&mut self, bit: u64) {
        let [a, b] = self.load();
        // The compiler does not get to know that it is one of two values.
        let difference = (a ^ b) & black_box(bit).wrapping_neg();
        self.store([a ^ difference, b ^ difference]);
    }

    /// BASE to the power of `secret`: Montgomery's ladder. Three stores for each bit, the highest bit first.
    fn power(&mut self, secret: u64) -> u64 {
        self.store([1, BASE]);
        for n in (0..BITS).rev() {
            let bit = secret >> n & 1;
            self.swap_if(bit);
            let [a, b] = self.load();
            self.store([multiply(a, a), multiply(a, b)]);
            self.swap_if(bit);
        }
        self.load()[0]
    }
}

fn rdrand() -> u64 {
    loop {
        let (value, carry): (u64, u8);
        // SAFETY: writes two registers and flags. The caller has asked CPUID.
        unsafe { asm!("rdrand {}", "setc {}", out(reg) value, out(reg_byte) carry, options(nomem, nostack)) }
        if carry == 1 {
            return value;
        }
    }
}

pub fn run(machine: &Machine, nonce: Nonce) -> Verdict {
    if cpuid(1, 0).ecx & RDRAND == 0 {
        say!("attacks: the processor has no RDRAND");
        return Verdict::Unsuitable;
    }
    let secret = rdrand();
    keys::program(machine, KEYID, Command::SetKeyRandom);
    let mut state = State { window: pages::map(machine, KEYID, STATE), nonce, stores: 0 };
    say!("state: line {STATE:#x} keyid {KEYID}, three stores for each of {BITS} bits, nonce {}", nonce.name());
    marker(Marker::Start);
    let power = state.power(secret);
    say!("result: {power:016x}");
    marker(Marker::End);
    say!("secret: {secret:064b}");
    Verdict::Ended
}
