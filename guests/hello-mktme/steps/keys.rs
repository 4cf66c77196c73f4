//! Chapter 4: PCONFIG.

use super::{Machine, keyid};
use crate::mktme::{self, Command, KeyFields};
use crate::report::{Hex, Report};
use crate::say;

/// Programs one KeyID, prints what PCONFIG returned, and checks that it succeeded.
pub fn program(report: &mut Report, machine: &Machine, keyid: u16, command: Command, keys: &KeyFields) -> bool {
    let status = mktme::program(keyid, command, machine.algorithm, keys);
    report.check(
        status.succeeded(),
        format_args!(
            "KeyID {keyid}: {} -> RAX = {} ({}), ZF = {}.",
            command.name(),
            status.rax,
            status.name(),
            u8::from(status.zf)
        ),
    )
}

/// Returns whether all three KeyIDs could be programmed.
#[inline(never)]
pub fn run(report: &mut Report, machine: &Machine) -> bool {
    report.chapter("Giving KeyIDs their keys (PCONFIG)");
    let length = machine.algorithm.key_bytes();
    say!("   KeyID {} gets a key that this program chose, for {}:", keyid::DIRECT, machine.algorithm.name());
    for (name, key) in [("data", &machine.direct_key.data), ("tweak", &machine.direct_key.tweak)] {
        for (row, bytes) in key[..length].chunks(16).enumerate() {
            say!("     {:<9} {}", if row == 0 { name } else { "" }, Hex(bytes));
        }
    }
    let direct = program(report, machine, keyid::DIRECT, Command::SetKeyDirect, &machine.direct_key);
    say!("   KeyID {} gets a random key that no software ever sees.", keyid::RANDOM);
    let random = program(report, machine, keyid::RANDOM, Command::SetKeyRandom, &KeyFields::ZERO);
    say!("   KeyID {} is told not to encrypt at all.", keyid::PLAIN);
    let plain = program(report, machine, keyid::PLAIN, Command::NoEncrypt, &KeyFields::ZERO);
    direct && random && plain
}
