//! What a BIOS leaves in real mode: interrupt vectors and the BIOS data area.
//!
//! The services say that they do not exist, as services do of functions that they do not know: AH = 86H, CF set. Software
//! that asks (boot loaders, hypervisors on their way to protected mode) then takes what the boot protocol told it. The one
//! exception is teletype output, INT 10H with AH = 0EH, which goes to COM1 as on a server without a display.

use crate::memory_map::{BIOS_AREA, EBDA, KIB};
use crate::platform::BootCpu;

/// Interrupt vectors: 256 pointers of offset and segment (SDM Vol. 3A, section 21.1.4).
mod ivt {
    pub const ADDRESS: u64 = 0;
    pub const VECTORS: u8 = 255;
    /// Vectors below are exceptions and, from 08H, the first 8259's interrupts.
    pub const FIRST_SERVICE: u8 = 0x10;
    pub const VIDEO: u8 = 0x10;
}

/// BIOS data area: base of COM1, segment of the EBDA, conventional memory in KiB.
mod bda {
    pub const ADDRESS: u64 = 0x400;
    pub const BYTES: usize = 0x100;
    pub const COM1: usize = 0x00;
    pub const EBDA: usize = 0x0E;
    pub const MEMORY: usize = 0x13;
    pub const COM1_BASE: u16 = 0x3F8;
}

/// Segment of the BIOS area's last 64 KiB, and the handlers in it.
const BIOS_SEGMENT: u16 = 0xF000;
/// CLI; HLT; JMP to the HLT. An exception that nobody handles ends the run where it can be seen.
const HALT: (u16, &[u8]) = (0xFF00, &[0xFA, 0xF4, 0xEB, 0xFD]);
/// PUSH BP; MOV BP,SP; OR byte [BP+6],1 (CF in the pushed FLAGS); POP BP; MOV AH,86H; IRET.
const UNSUPPORTED: (u16, &[u8]) = (0xFF10, &[0x55, 0x89, 0xE5, 0x80, 0x4E, 0x06, 0x01, 0x5D, 0xB4, 0x86, 0xCF]);
/// CMP AH,0EH; JNE to `UNSUPPORTED`; PUSH DX; MOV DX,3F8H; OUT DX,AL; POP DX; IRET.
const VIDEO: (u16, &[u8]) = (0xFF20, &[0x80, 0xFC, 0x0E, 0x75, 0xEB, 0x52, 0xBA, 0xF8, 0x03, 0xEE, 0x5A, 0xCF]);

/// Writes vectors, handlers and data area.
pub fn install(cpu: &mut dyn BootCpu) {
    for (offset, code) in [HALT, UNSUPPORTED, VIDEO] {
        let address = (u64::from(BIOS_SEGMENT) << 4) + u64::from(offset);
        debug_assert!(BIOS_AREA.contains(&address));
        cpu.write_phys(address, code);
    }
    let handler = |vector: u8| match vector {
        ..ivt::FIRST_SERVICE => HALT.0,
        ivt::VIDEO => VIDEO.0,
        _ => UNSUPPORTED.0,
    };
    let pointer = |vector: u8| u32::from(BIOS_SEGMENT) << 16 | u32::from(handler(vector));
    let vectors: Vec<u8> = (0..=ivt::VECTORS).flat_map(|vector| pointer(vector).to_le_bytes()).collect();
    cpu.write_phys(ivt::ADDRESS, &vectors);

    let mut data = [0u8; bda::BYTES];
    let mut put = |at: usize, value: u16| data[at..at + 2].copy_from_slice(&value.to_le_bytes());
    put(bda::COM1, bda::COM1_BASE);
    put(bda::EBDA, (EBDA.start >> 4) as u16);
    put(bda::MEMORY, (EBDA.start / KIB) as u16);
    cpu.write_phys(bda::ADDRESS, &data);
    // The first byte of the EBDA is its size in KiB; the rest is empty.
    let mut extended = vec![0u8; (EBDA.end - EBDA.start) as usize];
    extended[0] = ((EBDA.end - EBDA.start) / KIB) as u8;
    cpu.write_phys(EBDA.start, &extended);
}
