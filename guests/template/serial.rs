//! COM1, a 16550 at port 3F8H, polled (PC16550D datasheet, section 8).

use crate::cpu::{inb, outb};
use core::fmt;

const COM1: u16 = 0x3f8;
// Register offsets.
const THR: u16 = 0;
const IER: u16 = 1;
const FCR: u16 = 2;
const LCR: u16 = 3;
const MCR: u16 = 4;
const LSR: u16 = 5;

const LCR_8N1: u8 = 0x03;
const LCR_DLAB: u8 = 0x80;
const FCR_ENABLE_AND_CLEAR: u8 = 0x07;
const MCR_DTR_RTS: u8 = 0x03;
const LSR_THRE: u8 = 0x20;

/// 115200 baud, 8 data bits, no parity, no interrupts.
pub fn init() {
    outb(COM1 + IER, 0);
    outb(COM1 + LCR, LCR_DLAB);
    // Divisor latch: 1.
    outb(COM1, 1);
    outb(COM1 + 1, 0);
    outb(COM1 + LCR, LCR_8N1);
    outb(COM1 + FCR, FCR_ENABLE_AND_CLEAR);
    outb(COM1 + MCR, MCR_DTR_RTS);
}

/// The port as a text sink. A terminal wants a carriage return before each line feed.
pub struct Serial;

impl fmt::Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                send(b'\r');
            }
            send(byte);
        }
        Ok(())
    }
}

fn send(byte: u8) {
    while inb(COM1 + LSR) & LSR_THRE == 0 {
        core::hint::spin_loop();
    }
    outb(COM1 + THR, byte);
}

/// Writes one line.
#[macro_export]
macro_rules! say {
    ($($arguments:tt)*) => {{
        use core::fmt::Write as _;
        // The serial port takes everything; its sink never fails.
        let _ = writeln!($crate::serial::Serial, $($arguments)*);
    }};
}
