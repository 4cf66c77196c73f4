//! The BIOS after INIT.

mod common;

use common::{MIB, machine};
use firmware::{BootCpu, resume};

#[test]
fn a_guest_that_left_word_in_cmos_ram_goes_on_at_its_pointer_once() {
    let (mut cpu, _) = machine(64 * MIB);
    cpu.write_phys(0x467, &0x5000_1234u32.to_le_bytes());
    for (status, eois) in [(0x05, 2), (0x0A, 0)] {
        cpu.cmos.insert(0x0F, status);
        (cpu.ports, cpu.jumped) = (Vec::new(), None);
        assert!(resume(&mut cpu));
        assert_eq!(cpu.jumped.take(), Some((0x5000, 0x1234)));
        assert_eq!(
            cpu.ports.iter().filter(|(port, _, value)| matches!(port, 0x20 | 0xA0) && *value == 0x20).count(),
            eois
        );
        assert!(!resume(&mut cpu), "the word counts once");
        assert_eq!(cpu.jumped, None);
    }
    for status in [0, 4, 9, 0xFF] {
        cpu.cmos.insert(0x0F, status);
        assert!(!resume(&mut cpu), "{status:#x}");
    }
}
