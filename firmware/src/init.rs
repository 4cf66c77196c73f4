//! What the BIOS does at the reset vector after INIT.
//!
//! INIT resets registers only: caches, DRAM and the state of memory encryption are as software left them (MK specification
//! section 7.3, MC-34). Software that resets its processor on purpose, to get from protected mode to real mode as on the
//! 80286, leaves word in CMOS RAM and a far pointer in the BIOS data area (IBM Personal Computer AT Technical Reference, "POST",
//! shutdown codes); so do the start-up sequences of the MultiProcessor Specification 1.4, section B.4. Without such word a
//! BIOS starts over, with a reset of the platform.

use crate::chipset::{pic, rtc};
use crate::platform::BootCpu;

/// CMOS RAM 0FH, the shutdown status byte.
const SHUTDOWN_STATUS: u32 = 0x0F;
/// Jump through the pointer, after an end of interrupt.
const JUMP_WITH_EOI: u32 = 0x05;
/// Jump through the pointer.
const JUMP: u32 = 0x0A;
/// 40:67, offset and segment.
const POINTER: u64 = 0x467;

/// Goes on where the guest left word, and says so with true. False: nowhere, and the platform wants a reset.
pub fn resume(cpu: &mut dyn BootCpu) -> bool {
    cpu.port_out(rtc::INDEX, 1, SHUTDOWN_STATUS);
    let status = cpu.port_in(rtc::DATA, 1);
    // It counts once.
    cpu.port_out(rtc::DATA, 1, 0);
    if status != JUMP && status != JUMP_WITH_EOI {
        return false;
    }
    if status == JUMP_WITH_EOI {
        for port in [pic::MASTER, pic::SLAVE] {
            cpu.port_out(port, 1, pic::EOI);
        }
    }
    let mut pointer = [0; 4];
    cpu.read_phys(POINTER, &mut pointer);
    let [a, b, c, d] = pointer;
    cpu.jump_real16(u16::from_le_bytes([c, d]), u16::from_le_bytes([a, b]));
    true
}
