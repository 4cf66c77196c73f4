//! The legacy chips as a PC BIOS leaves them for the operating system.

use crate::platform::BootCpu;

/// 8259A pair (Intel 8259A datasheet, initialisation command words; ELCR: PIIX4 datasheet).
pub(crate) mod pic {
    pub const MASTER: u16 = 0x20;
    pub const MASTER_DATA: u16 = 0x21;
    pub const SLAVE: u16 = 0xA0;
    pub const SLAVE_DATA: u16 = 0xA1;
    pub const ELCR2: u16 = 0x4D1;
    /// Edge-triggered, cascaded, ICW4 follows.
    pub const ICW1: u32 = 0x11;
    /// The vectors of the PC BIOS: IRQ 0-7 at 08H, IRQ 8-15 at 70H.
    pub const MASTER_ICW2: u32 = 0x08;
    pub const SLAVE_ICW2: u32 = 0x70;
    /// The slave sits on IR2.
    pub const MASTER_ICW3: u32 = 1 << 2;
    pub const SLAVE_ICW3: u32 = 2;
    /// 8086 mode, normal end of interrupt.
    pub const ICW4: u32 = 0x01;
    pub const MASK_ALL: u32 = 0xFF;
    /// OCW2: non-specific end of interrupt.
    pub const EOI: u32 = 0x20;
    /// IRQ 9, the ACPI interrupt, is level-triggered.
    pub const ELCR2_IRQ9: u32 = 1 << 1;
}

/// 8254 (Intel 8254 datasheet, control word).
mod pit {
    pub const CHANNEL0: u16 = 0x40;
    pub const CONTROL: u16 = 0x43;
    /// Channel 0, low byte then high byte, mode 3.
    pub const CHANNEL0_MODE3: u32 = 0x36;
}

/// MC146818A (datasheet, registers A and B).
pub mod rtc {
    pub const INDEX: u16 = 0x70;
    pub const DATA: u16 = 0x71;
    pub const REGISTER_A: u32 = 0x0A;
    pub const REGISTER_B: u32 = 0x0B;
    /// 32.768 kHz time base, 1024 Hz periodic rate.
    pub const DIVIDER_32768: u32 = 0x26;
    /// 24-hour, BCD, no interrupts.
    pub const HOURS_24: u32 = 0x02;
    /// Where PCs keep the century (FADT CENTURY).
    pub const CENTURY: u8 = 0x32;
}

/// 16550 (National PC16550D datasheet).
mod uart {
    pub const COM1: u16 = 0x3F8;
    pub const IER: u16 = COM1 + 1;
    pub const FCR: u16 = COM1 + 2;
    pub const LCR: u16 = COM1 + 3;
    pub const MCR: u16 = COM1 + 4;
    pub const DLAB: u32 = 0x80;
    pub const EIGHT_N_ONE: u32 = 0x03;
    /// 1.8432 MHz / 16 / 115200.
    pub const DIVISOR_115200: u32 = 1;
    pub const DTR_RTS: u32 = 0x03;
}

/// Power-management block of the PIIX4 kind; the FADT tells where it is.
pub mod pm {
    pub const PM1A_EVT: u16 = 0x600;
    pub const PM1A_CNT: u16 = 0x604;
    pub const PM_TMR: u16 = 0x608;
    /// End of the block.
    pub const END: u16 = 0x60C;
    /// PM1_CNT: power-management events raise SCI, that is, ACPI mode (ACPI 6.4, table 4.13).
    pub const SCI_EN: u32 = 1;
    pub const SCI_IRQ: u8 = 9;
    /// Reset control register, and the value that resets.
    pub const RESET: u16 = 0xCF9;
    pub const RESET_VALUE: u8 = 0x06;
}

/// Interrupt controllers masked, timer at 18.2 Hz, clock running, COM1 at 115200 8N1, ACPI mode entered.
pub fn initialise(cpu: &mut dyn BootCpu) {
    let writes = [
        (pic::MASTER, pic::ICW1),
        (pic::SLAVE, pic::ICW1),
        (pic::MASTER_DATA, pic::MASTER_ICW2),
        (pic::SLAVE_DATA, pic::SLAVE_ICW2),
        (pic::MASTER_DATA, pic::MASTER_ICW3),
        (pic::SLAVE_DATA, pic::SLAVE_ICW3),
        (pic::MASTER_DATA, pic::ICW4),
        (pic::SLAVE_DATA, pic::ICW4),
        (pic::MASTER_DATA, pic::MASK_ALL),
        (pic::SLAVE_DATA, pic::MASK_ALL),
        (pic::ELCR2, pic::ELCR2_IRQ9),
        (pit::CONTROL, pit::CHANNEL0_MODE3),
        // A count of 0 is 65536: 18.2 Hz.
        (pit::CHANNEL0, 0),
        (pit::CHANNEL0, 0),
        (rtc::INDEX, rtc::REGISTER_A),
        (rtc::DATA, rtc::DIVIDER_32768),
        (rtc::INDEX, rtc::REGISTER_B),
        (rtc::DATA, rtc::HOURS_24),
        (uart::IER, 0),
        (uart::LCR, uart::DLAB | uart::EIGHT_N_ONE),
        (uart::COM1, uart::DIVISOR_115200),
        (uart::IER, 0),
        (uart::LCR, uart::EIGHT_N_ONE),
        (uart::FCR, 0),
        (uart::MCR, uart::DTR_RTS),
    ];
    for (port, value) in writes {
        cpu.port_out(port, 1, value);
    }
    cpu.port_out(pm::PM1A_CNT, 2, pm::SCI_EN);
}
