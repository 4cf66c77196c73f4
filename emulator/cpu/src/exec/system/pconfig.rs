//! PCONFIG (MK specification section 4; SDM Vol. 2B, "PCONFIG").

use crate::Cpu;
use crate::mmu::Access;
use crate::state::slot;
use iced_x86::Instruction;
use mem::{Algorithm, EncryptionAlgorithm, ProgramError};
use x86::segment::sreg;
use x86::tme::{activate, pconfig as spec};
use x86::{Exception, flags, mutant};

/// Bits of IA32_TME_ACTIVATE that leaf 0 requires.
const ACTIVE: u64 = activate::LOCK | activate::ENABLE;

/// MKTME_KEY_PROGRAM_STRUCT, as far as the processor looks at it (section 4.2).
struct KeyProgram {
    keyid: u16,
    command: u8,
    algorithms: u16,
    reserved: u8,
    key_field_1: [u8; 64],
    key_field_2: [u8; 64],
}

impl KeyProgram {
    fn parse(bytes: &[u8; spec::STRUCT_BYTES]) -> KeyProgram {
        let field = |at: usize| {
            let mut key = [0; 64];
            key.copy_from_slice(&bytes[at..at + 64]);
            key
        };
        let ctrl = spec::KEYID_CTRL_OFFSET;
        KeyProgram {
            keyid: u16::from_le_bytes([bytes[spec::KEYID_OFFSET], bytes[spec::KEYID_OFFSET + 1]]),
            command: bytes[ctrl],
            algorithms: u16::from_le_bytes([bytes[ctrl + 1], bytes[ctrl + 2]]),
            reserved: bytes[ctrl + 3],
            key_field_1: field(spec::KEY_FIELD_1_OFFSET),
            key_field_2: field(spec::KEY_FIELD_2_OFFSET),
        }
    }
}

/// What checks 11 to 16 found: a status that only the legacy codes tell apart, else #GP(0).
type Refusal = Option<u64>;

/// PCONFIG. The step numbers are those of section 4.4; step 5 (VMX) does not exist here.
pub(super) fn pconfig(cpu: &mut Cpu, _: &Instruction) -> Result<(), Exception> {
    // 1 to 4. LOCK, 66H, F2H, F3H and VEX do not decode to this instruction.
    if cpu.rflags_system & flags::VM != 0 || !cpu.model.has_pconfig || cpu.cpl > 0 {
        return Err(if mutant!(PconfigAtCpl3) { Exception::GP0 } else { Exception::UD });
    }
    // 6 and 7: leaves 1 and 2 are TSE's, which CPUID.1BH does not list.
    let leaf = cpu.regs[slot::RAX as usize] as u32;
    if leaf != spec::MKTME_KEY_PROGRAM && !(mutant!(PconfigTseLeaf) && leaf == 1) {
        return Err(Exception::GP0);
    }
    // 8
    let active = cpu.mem.tme().activate();
    if active & ACTIVE != ACTIVE || keyid_bits(active) == 0 {
        return Err(Exception::GP0);
    }
    // 9: alignment of the linear address, before any memory access.
    let long = cpu.mode.is_long64();
    let rbx = cpu.regs[slot::RBX as usize];
    let offset = if long { rbx } else { rbx & 0xFFFF_FFFF };
    let base = cpu.regs[slot::SEG as usize + sreg::DS];
    if offset.wrapping_add(base) & (spec::STRUCT_ALIGN - 1) != 0 && !mutant!(PconfigMisaligned) {
        return Err(Exception::GP0);
    }
    // 10
    let linear = cpu.segment_address(sreg::DS, offset, spec::STRUCT_BYTES, Access::Read)?;
    let mut bytes = [0; spec::STRUCT_BYTES];
    cpu.read_linear(linear, &mut bytes)?;
    let program = KeyProgram::parse(&bytes);

    let max_keys = cpu.mem.tme().max_keys();
    let tdx_bits = u32::from(cpu.mem.tme().tdx_reserved_keyid_bits());
    let integrity = cpu.mem.has_integrity();
    // Keys with a MAC are not modelled without the option, whatever 981H enumerates.
    let modelled = |algorithm: EncryptionAlgorithm| {
        if algorithm.integrity && !integrity { Err(Some(spec::INVALID_CRYPTO_ALG)) } else { Ok(algorithm) }
    };
    let status = match check(&program, active, max_keys, tdx_bits).and_then(modelled) {
        Ok(algorithm) => key_program(cpu, &program, algorithm),
        Err(Some(code)) if cpu.model.pconfig_legacy_codes => code,
        Err(_) => return Err(Exception::GP0),
    };
    cpu.regs[slot::RAX as usize] = status;
    // 20 and 21
    if mutant!(PconfigKeepsFlags) {
        return Ok(());
    }
    cpu.lazy.set(if status == spec::PROG_SUCCESS { 0 } else { flags::ZF });
    Ok(())
}

fn keyid_bits(active: u64) -> u32 {
    (active >> activate::MK_TME_KEYID_BITS_SHIFT & 0xF) as u32
}

/// Steps 11 to 16.
fn check(program: &KeyProgram, active: u64, max_keys: u16, tdx_bits: u32) -> Result<EncryptionAlgorithm, Refusal> {
    let k = keyid_bits(active);
    let keyid = u32::from(program.keyid);
    // 11, which never had a code of its own.
    if program.reserved != 0 && !mutant!(PconfigReservedControl) {
        return Err(None);
    }
    // 12
    if program.command > spec::KEYID_NO_ENCRYPT {
        return Err(Some(spec::INVALID_PROG_CMD));
    }
    // 13 to 15: a KeyID with one of the `p` topmost bits is a TDX private one.
    let tdx_bits = if mutant!(PconfigTdxKeyid) { 0 } else { tdx_bits };
    let private = keyid >> k.saturating_sub(tdx_bits) != 0;
    if (keyid == 0 || keyid > u32::from(max_keys) || keyid >> k != 0 || private) && !mutant!(PconfigKeyidRange) {
        return Err(Some(spec::INVALID_KEYID));
    }
    // 16, for all four commands.
    if mutant!(PconfigAlgorithmUnchecked) && program.command >= spec::KEYID_CLEAR_KEY {
        return Ok(Algorithm::AesXts128.into());
    }
    let allowed = (active >> activate::CRYPTO_ALGS_SHIFT) as u16;
    if program.algorithms.count_ones() != 1 || program.algorithms & allowed == 0 {
        return Err(Some(spec::INVALID_CRYPTO_ALG));
    }
    EncryptionAlgorithm::from_number(program.algorithms.trailing_zeros()).ok_or(Some(spec::INVALID_CRYPTO_ALG))
}

/// Steps 17 to 20: the key table is the package's.
fn key_program(cpu: &mut Cpu, program: &KeyProgram, algorithm: EncryptionAlgorithm) -> u64 {
    let (key1, key2) = (&program.key_field_1, &program.key_field_2);
    if mutant!(PconfigFlushes) {
        cpu.mem.wbinvd();
    }
    cpu.mem.note_pconfig(mem::KeyId(program.keyid));
    let now = cpu.icount();
    let package = cpu.mem.tme_mut().at(mem::Icount(now));
    let programmed = package.program_key(mem::KeyId(program.keyid), program.command, algorithm, key1, key2);
    cpu.settle();
    match programmed {
        Ok(()) => {
            cpu.observe_pconfig(mem::KeyId(program.keyid));
            spec::PROG_SUCCESS
        }
        Err(ProgramError::EntropyError) => spec::ENTROPY_ERROR,
        Err(ProgramError::DeviceBusy) => spec::DEVICE_BUSY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// k = 6, XTS-128 and XTS-256 allowed, locked and enabled.
    const ACTIVE_K6: u64 = 0x0005_0006_0000_0003;

    fn structure(keyid: u16, ctrl: u32) -> KeyProgram {
        let mut bytes = [0xFF; spec::STRUCT_BYTES];
        bytes[..2].copy_from_slice(&keyid.to_le_bytes());
        bytes[2..6].copy_from_slice(&ctrl.to_le_bytes());
        KeyProgram::parse(&bytes)
    }

    fn verdict(keyid: u16, ctrl: u32) -> Result<EncryptionAlgorithm, Refusal> {
        check(&structure(keyid, ctrl), ACTIVE_K6, 63, 0)
    }

    #[test]
    fn mk_081_reserved_control_bits_and_commands_above_3_are_refused() {
        for bit in 24..32 {
            assert!(verdict(1, 0x100 | 1 << bit).is_err());
        }
        for command in 4..=255 {
            assert!(verdict(1, 0x100 | command).is_err());
        }
    }

    #[test]
    fn mk_082_keyids_0_and_above_the_maximum_are_refused() {
        for keyid in [0, 64, 0xFFFF] {
            assert!(matches!(verdict(keyid, 0x100), Err(Some(spec::INVALID_KEYID))));
        }
        assert!(check(&structure(51, 0x100), ACTIVE_K6, 50, 0).is_err());
        assert!(verdict(63, 0x100).is_ok());
    }

    #[test]
    fn mk_083_tdx_private_keyids_are_refused() {
        assert!(check(&structure(15, 0x100), ACTIVE_K6, 63, 2).is_ok());
        assert!(check(&structure(16, 0x100), ACTIVE_K6, 63, 2).is_err());
    }

    #[test]
    fn mk_084_exactly_one_allowed_algorithm_is_needed_for_every_command() {
        for command in 0..4 {
            for algorithms in [0, 0b101, 0b10, 0b1000] {
                assert!(verdict(1, algorithms << 8 | command).is_err());
            }
            assert!(verdict(1, 0x100 | command).is_ok());
            assert!(verdict(1, 0x400 | command).is_ok());
        }
    }

    #[test]
    fn mk_085_bytes_6_to_63_are_ignored() {
        assert!(verdict(1, 0x100).is_ok(), "the structure of these tests is filled with ones");
    }
}
