//! Bits of DRAM flip, in ciphertext and in plaintext (Kim et al., ISCA 2014; Buhren et al., CODASPY 2017;
//! docs/attack-rowhammer.md).
//!
//! Two records of one line each: one under a key, one under a KeyID without encryption. They are read three times: from DRAM,
//! from the cache, and from DRAM again. A flip is where it is; when it is seen depends on the cache.

use crate::keys::{self, Command};
use crate::mktme::Machine;
use crate::pages::{self, Line, Window};
use crate::{Marker, Verdict, marker, say};

const RECORD: Line = *b"user: Alice.....role: guest.....quota: 100 MiB..valid until 2030";
const BLOCK_BYTES: usize = 16;
const BLOCKS: usize = 4;

struct Victim {
    name: &'static str,
    keyid: u16,
    physical: u64,
    command: Command,
}

const VICTIMS: [Victim; 2] = [
    Victim { name: "encrypted", keyid: 1, physical: 0x80_0000, command: Command::SetKeyRandom },
    Victim { name: "in clear", keyid: 2, physical: 0x80_1000, command: Command::NoEncrypt },
];

/// How many bits of each block are not the record's.
fn wrong_bits(line: &Line) -> [u32; BLOCKS] {
    core::array::from_fn(|block| {
        let bytes = block * BLOCK_BYTES..(block + 1) * BLOCK_BYTES;
        line[bytes.clone()].iter().zip(&RECORD[bytes]).map(|(a, b)| (a ^ b).count_ones()).sum()
    })
}

fn show(when: &str, windows: &[Window; 2]) -> [[u32; BLOCKS]; 2] {
    let mut all = [[0; BLOCKS]; 2];
    for ((victim, window), bits) in VICTIMS.iter().zip(windows).zip(&mut all) {
        *bits = wrong_bits(&window.read(0));
        let [a, b, c, d] = *bits;
        say!("  {when:<28} {:<10} {a:>7} {b:>7} {c:>7} {d:>7}", victim.name);
    }
    all
}

pub fn run(machine: &Machine) -> Verdict {
    let windows = VICTIMS.each_ref().map(|victim| {
        keys::program(machine, victim.keyid, victim.command);
        say!("record: line {:#x} keyid {}, {}", victim.physical, victim.keyid, victim.name);
        pages::map(machine, victim.keyid, victim.physical)
    });
    let each = |act: fn(&Window)| windows.iter().for_each(act);
    each(|window| window.write(0, &RECORD));
    marker(Marker::Before);
    each(|window| window.flush(0));
    marker(Marker::Start);
    say!("  wrong bits in                record     block 0 block 1 block 2 block 3");
    show("the first read, from DRAM", &windows);
    marker(Marker::Second);
    show("the second, from the cache", &windows);
    each(|window| window.flush(0));
    let [encrypted, clear] = show("the third, from DRAM again", &windows);
    // Whoever writes the line anew repairs it.
    each(|window| window.store(0, &RECORD));
    show("what was written anew", &windows);
    let sum = |bits: [u32; BLOCKS]| bits.iter().sum::<u32>();
    say!("result: {} {}", sum(encrypted), sum(clear));
    marker(Marker::End);
    Verdict::Ended
}
