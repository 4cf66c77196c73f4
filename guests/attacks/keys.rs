//! PCONFIG commands beyond the template's, and algorithms with integrity.

use crate::cpu::rdmsr;
use crate::mktme::{DEVICE_BUSY, KeyProgramStruct, Machine, PROG_SUCCESS, pconfig};

const IA32_TME_ACTIVATE: u32 = 0x982;
/// MK_TME_CRYPTO_ALGS: AES-XTS-128 and AES-XTS-256, each with integrity (MK specification section 3.2).
const WITH_INTEGRITY: u16 = 0b1010;

/// KEYID_CTRL.COMMAND.
#[derive(Clone, Copy)]
#[repr(u8)]
pub enum Command {
    SetKeyRandom = 1,
    NoEncrypt = 3,
}

/// Makes the machine's keys those of an algorithm with integrity, if there is one. Only those that the firmware allows count,
/// which are among those that IA32_TME_CAPABILITY (981H) enumerates.
pub fn use_integrity(machine: &mut Machine) -> bool {
    let algorithms = (rdmsr(IA32_TME_ACTIVATE) >> 48) as u16 & WITH_INTEGRITY;
    if algorithms != 0 {
        machine.algorithm = algorithms & algorithms.wrapping_neg();
    }
    algorithms != 0
}

/// Programs a KeyID without a key of ours.
pub fn program(machine: &Machine, keyid: u16, command: Command) {
    let [enc_alg_low, enc_alg_high] = machine.algorithm.to_le_bytes();
    let structure = KeyProgramStruct {
        keyid: keyid.to_le_bytes(),
        keyid_ctrl: [command as u8, enc_alg_low, enc_alg_high, 0],
        reserved: [0; 58],
        key_field_1: [0; 64],
        key_field_2: [0; 64],
    };
    loop {
        match pconfig(&structure) {
            PROG_SUCCESS => return,
            DEVICE_BUSY => {}
            status => panic!("PCONFIG for KeyID {keyid}: RAX {status}"),
        }
    }
}
