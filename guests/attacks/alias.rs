//! Two addresses for one cell of DRAM: BadRAM, which is there when the machine starts, and Battering RAM, which comes later
//! (docs/attack-badram-battering-ram.md).
//!
//! The victim keeps an account under a KeyID of its own. Its neighbour has KeyID 0, and memory whose addresses differ from the
//! victim's in one bit. If the memory modules do not see that bit, the neighbour's reads and writes move the victim's
//! ciphertext, without any key: what it reads is noise, but writing the noise back is writing the ciphertext back.

use crate::keys::{self, Command};
use crate::mktme::Machine;
use crate::pages::{self, Line, Window};
use crate::{Marker, Verdict, detected, marker, say};

const KEYID: u16 = 1;
const VICTIM: u64 = 0x80_0000;
/// What the interposer, or the memory module, ignores.
const BIT: u64 = 1 << 24;
/// Address bits that the firmware's check looks at: those of 64 MiB.
const CHECKED: core::ops::Range<u32> = 6..26;
/// A line with all these bits is above everything else that there is.
const HIGH: u64 = 0x300_0000;

/// The firmware's check: a pattern at an address must survive another pattern at an address that differs in one bit. Returns
/// the bits that make no difference.
fn aliases(machine: &Machine) -> u64 {
    let differs = |bit: u32| {
        let high = HIGH | 1 << bit;
        let low = high & !(1 << bit);
        let line = |address: u64| (address % pages::PAGE_BYTES / 64) as usize;
        let store = |address: u64, pattern: u8| {
            let window = pages::map(machine, 0, address);
            window.store(line(address), &[pattern; 64]);
            window
        };
        let first = store(low, 0xa5);
        store(high, 0x5a);
        first.load(line(low)) != [0xa5; 64]
    };
    CHECKED.filter(|bit| differs(*bit)).fold(0, |bits, bit| bits | 1 << bit)
}

/// Prints address bits, one or more.
struct Bits(u64);

impl core::fmt::Display for Bits {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        if self.0 == 0 {
            return f.write_str("none");
        }
        let mut bits = (0..64).filter(|bit| self.0 >> bit & 1 == 1);
        bits.next().map_or(Ok(()), |first| write!(f, "{first}"))?;
        bits.try_for_each(|bit| write!(f, ", {bit}"))
    }
}

/// The victim's record, with a checksum of its own.
#[derive(Clone, Copy, PartialEq)]
struct Account {
    balance: u64,
    serial: u64,
}

const OWNER: [u8; 16] = *b"account of Alice";

impl Account {
    fn line(self) -> Line {
        let mut line = [0; 64];
        line[..16].copy_from_slice(&OWNER);
        line[16..24].copy_from_slice(&self.balance.to_le_bytes());
        line[24..32].copy_from_slice(&self.serial.to_le_bytes());
        let sum = checksum(&line[..56]);
        line[56..].copy_from_slice(&sum.to_le_bytes());
        line
    }

    /// `None`: not a record.
    fn from_line(line: &Line) -> Option<Account> {
        let word = |at: usize| u64::from_le_bytes(core::array::from_fn(|n| line[at + n]));
        let account = Account { balance: word(16), serial: word(24) };
        (account.line() == *line).then_some(account)
    }
}

/// FNV-1a with 64 bits.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

/// What the victim finds, from memory.
fn show(when: &str, victim: &Window) -> Account {
    let Some(account) = Account::from_line(&victim.load(0)) else {
        say!("  {when:<28}   noise");
        detected(format_args!("checksum of the account"));
    };
    say!("  {when:<28} {:>7} {:>7}   right", account.balance, account.serial);
    account
}

pub fn run(machine: &Machine, check: bool) -> Verdict {
    if check {
        let found = aliases(machine);
        say!("firmware: address bits that make no difference: {}", Bits(found));
        if found != 0 {
            detected(format_args!("aliases in memory; the firmware does not go on"));
        }
    } else {
        say!("firmware: does not look for aliases");
    }
    keys::program(machine, KEYID, Command::SetKeyRandom);
    let victim = pages::map(machine, KEYID, VICTIM);
    let neighbour = pages::map(machine, 0, VICTIM | BIT);
    say!("victim: line {VICTIM:#x} keyid {KEYID}; neighbour: line {:#x} keyid 0", VICTIM | BIT);
    say!("  the victim reads             balance  serial   checksum");
    victim.store(0, &Account { balance: 1000, serial: 1 }.line());
    show("before it pays", &victim);
    marker(Marker::Start);
    let captured = neighbour.load(0);
    victim.store(0, &Account { balance: 10, serial: 2 }.line());
    show("after it has paid 990", &victim);
    marker(Marker::Second);
    neighbour.store(0, &captured);
    marker(Marker::Third);
    let account = show("after its neighbour's store", &victim);
    say!("address bits that make no difference now: {}", Bits(aliases(machine)));
    say!("result: {} {}", account.balance, account.serial);
    marker(Marker::End);
    Verdict::Ended
}
