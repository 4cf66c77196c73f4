//! 16550A UART (PC16550D data sheet, National Semiconductor 1995).
//!
//! There is no baud rate delay: a character leaves when it is written, so THR and the shift register are always
//! empty, and the receiver's character timeout elapses at once. Input waits outside the chip until its FIFO has room,
//! as behind a modem with flow control, so the host never causes an overrun.

use std::collections::VecDeque;

/// Registers and bits, in the order of the data sheet's table II.
pub mod spec {
    /// Receiver buffer (read), transmitter holding (write); divisor latch low when DLAB.
    pub const RBR_THR: u8 = 0;
    /// Interrupt enable; divisor latch high when DLAB.
    pub const IER: u8 = 1;
    pub const IER_RDI: u8 = 1 << 0;
    pub const IER_THRI: u8 = 1 << 1;
    pub const IER_RLSI: u8 = 1 << 2;
    pub const IER_MSI: u8 = 1 << 3;
    pub const IER_WRITABLE: u8 = 0x0F;
    /// Interrupt identification (read).
    pub const IIR: u8 = 2;
    pub const IIR_NONE: u8 = 0x01;
    pub const IIR_RLSI: u8 = 0x06;
    pub const IIR_RDI: u8 = 0x04;
    pub const IIR_TIMEOUT: u8 = 0x0C;
    pub const IIR_THRI: u8 = 0x02;
    pub const IIR_MSI: u8 = 0x00;
    pub const IIR_FIFOS_ENABLED: u8 = 0xC0;
    /// FIFO control (write).
    pub const FCR: u8 = 2;
    pub const FCR_ENABLE: u8 = 1 << 0;
    pub const FCR_CLEAR_RECEIVER: u8 = 1 << 1;
    pub const FCR_TRIGGER_SHIFT: u32 = 6;
    /// Receiver trigger levels of FCR bits 7:6.
    pub const FCR_TRIGGER_BYTES: [usize; 4] = [1, 4, 8, 14];
    /// Line control.
    pub const LCR: u8 = 3;
    pub const LCR_DLAB: u8 = 1 << 7;
    /// Modem control.
    pub const MCR: u8 = 4;
    pub const MCR_DTR: u8 = 1 << 0;
    pub const MCR_RTS: u8 = 1 << 1;
    pub const MCR_OUT1: u8 = 1 << 2;
    pub const MCR_OUT2: u8 = 1 << 3;
    pub const MCR_LOOP: u8 = 1 << 4;
    pub const MCR_WRITABLE: u8 = 0x1F;
    /// Line status.
    pub const LSR: u8 = 5;
    pub const LSR_DR: u8 = 1 << 0;
    pub const LSR_OE: u8 = 1 << 1;
    pub const LSR_THRE: u8 = 1 << 5;
    pub const LSR_TEMT: u8 = 1 << 6;
    /// Modem status.
    pub const MSR: u8 = 6;
    pub const MSR_DCTS: u8 = 1 << 0;
    pub const MSR_DDSR: u8 = 1 << 1;
    pub const MSR_TERI: u8 = 1 << 2;
    pub const MSR_DDCD: u8 = 1 << 3;
    pub const MSR_CTS: u8 = 1 << 4;
    pub const MSR_DSR: u8 = 1 << 5;
    pub const MSR_RI: u8 = 1 << 6;
    pub const MSR_DCD: u8 = 1 << 7;
    /// Scratch.
    pub const SCR: u8 = 7;

    pub const FIFO_BYTES: usize = 16;
}
use spec::*;

/// The terminal on the line is always there: carrier, data set ready, clear to send.
const TERMINAL_LINES: u8 = MSR_CTS | MSR_DSR | MSR_DCD;

/// One 16550A.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Uart {
    receiver: VecDeque<u8>,
    /// Input that the FIFO has no room for yet.
    waiting: VecDeque<u8>,
    ier: u8,
    fcr: u8,
    lcr: u8,
    mcr: u8,
    /// The error bits of LSR; the others are functions of the state.
    line_errors: u8,
    modem_lines: u8,
    modem_deltas: u8,
    scr: u8,
    divisor: u16,
    /// THR ran empty and neither an IIR read nor a THR write has cleared that interrupt.
    thr_ran_empty: bool,
}

impl Default for Uart {
    fn default() -> Self {
        Self::new()
    }
}

impl Uart {
    /// State after master reset (data sheet table III).
    pub fn new() -> Self {
        Uart {
            receiver: VecDeque::new(),
            waiting: VecDeque::new(),
            ier: 0,
            fcr: 0,
            lcr: 0,
            mcr: 0,
            line_errors: 0,
            modem_lines: TERMINAL_LINES,
            modem_deltas: 0,
            scr: 0,
            // Undefined after reset; 12 is 9600 baud, what a BIOS leaves.
            divisor: 12,
            thr_ran_empty: false,
        }
    }

    /// Master reset. Input that has not reached the chip is kept: it is on the terminal's side of the line.
    pub fn reset(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        *self = Uart { waiting, ..Uart::new() };
        self.refill();
    }

    /// Reads register `register & 7`.
    pub fn read(&mut self, register: u8) -> u8 {
        let dlab = self.lcr & LCR_DLAB != 0;
        match register & 7 {
            RBR_THR if dlab => self.divisor as u8,
            RBR_THR => {
                let byte = self.receiver.pop_front().unwrap_or(0);
                self.refill();
                byte
            }
            IER if dlab => (self.divisor >> 8) as u8,
            IER => self.ier,
            IIR => {
                let source = self.interrupt_source();
                if source == IIR_THRI {
                    self.thr_ran_empty = false;
                }
                source | if self.fifos_enabled() { IIR_FIFOS_ENABLED } else { 0 }
            }
            LCR => self.lcr,
            MCR => self.mcr,
            LSR => {
                let status = self.line_status();
                self.line_errors = 0;
                status
            }
            MSR => {
                let status = self.modem_lines | self.modem_deltas;
                self.modem_deltas = 0;
                status
            }
            _ => self.scr,
        }
    }

    /// Writes register `register & 7`. Returns the character that left the chip, if one did.
    pub fn write(&mut self, register: u8, value: u8) -> Option<u8> {
        let dlab = self.lcr & LCR_DLAB != 0;
        match register & 7 {
            RBR_THR if dlab => self.divisor = self.divisor & 0xFF00 | u16::from(value),
            RBR_THR => {
                self.thr_ran_empty = true;
                if self.mcr & MCR_LOOP == 0 {
                    return Some(value);
                }
                self.receive_looped(value);
            }
            IER if dlab => self.divisor = self.divisor & 0x00FF | u16::from(value) << 8,
            IER => {
                // Enabling the interrupt while THR is empty raises it, which drivers rely on to start sending.
                if value & !self.ier & IER_THRI != 0 {
                    self.thr_ran_empty = true;
                }
                self.ier = value & IER_WRITABLE;
            }
            FCR => self.write_fcr(value),
            LCR => self.lcr = value,
            MCR => {
                self.mcr = value & MCR_WRITABLE;
                self.set_modem_lines(self.modem_inputs());
                self.refill();
            }
            // Factory test (LSR) and read-only (MSR).
            LSR | MSR => {}
            _ => self.scr = value,
        }
        None
    }

    /// The INTR pin as a PC wires it: through a buffer that OUT2 enables. Loopback drives OUT2 inactive.
    pub fn interrupt(&self) -> bool {
        self.mcr & (MCR_OUT2 | MCR_LOOP) == MCR_OUT2 && self.interrupt_source() != IIR_NONE
    }

    /// Puts characters on the line.
    pub fn push_input(&mut self, bytes: &[u8]) {
        self.waiting.extend(bytes);
        self.refill();
    }

    /// True when everything pushed so far is in the chip and there is room for more.
    pub fn input_wanted(&self) -> bool {
        self.waiting.is_empty() && self.receiver.len() < self.receiver_capacity()
    }

    /// True when the guest asked for receive interrupts: its driver, not a probe, will take the input.
    pub fn receive_interrupt_enabled(&self) -> bool {
        self.ier & IER_RDI != 0
    }

    fn fifos_enabled(&self) -> bool {
        self.fcr & FCR_ENABLE != 0
    }

    fn receiver_capacity(&self) -> usize {
        if self.fifos_enabled() { FIFO_BYTES } else { 1 }
    }

    fn line_status(&self) -> u8 {
        let data_ready = if self.receiver.is_empty() { 0 } else { LSR_DR };
        LSR_THRE | LSR_TEMT | self.line_errors | data_ready
    }

    /// IIR bits 3:0 (data sheet table IV, highest priority first).
    fn interrupt_source(&self) -> u8 {
        if self.ier & IER_RLSI != 0 && self.line_errors != 0 {
            return IIR_RLSI;
        }
        if self.ier & IER_RDI != 0 && !self.receiver.is_empty() {
            let trigger = FCR_TRIGGER_BYTES[usize::from(self.fcr >> FCR_TRIGGER_SHIFT)];
            let reached = !self.fifos_enabled() || self.receiver.len() >= trigger;
            return if reached { IIR_RDI } else { IIR_TIMEOUT };
        }
        if self.ier & IER_THRI != 0 && self.thr_ran_empty {
            return IIR_THRI;
        }
        if self.ier & IER_MSI != 0 && self.modem_deltas != 0 {
            return IIR_MSI;
        }
        IIR_NONE
    }

    fn write_fcr(&mut self, value: u8) {
        // "Data is cleared automatically when changing from the FIFO mode to the 16450 mode and vice versa";
        // the other bits count only together with bit 0.
        let enable = value & FCR_ENABLE != 0;
        if enable != self.fifos_enabled() || enable && value & FCR_CLEAR_RECEIVER != 0 {
            self.receiver.clear();
        }
        self.fcr = if enable { FCR_ENABLE | value & 3 << FCR_TRIGGER_SHIFT } else { 0 };
        self.refill();
    }

    fn refill(&mut self) {
        // In loopback the receiver's input is the transmitter's output.
        if self.mcr & MCR_LOOP != 0 {
            return;
        }
        while self.receiver.len() < self.receiver_capacity() {
            let Some(byte) = self.waiting.pop_front() else { break };
            self.receiver.push_back(byte);
        }
    }

    fn receive_looped(&mut self, byte: u8) {
        if self.receiver.len() < self.receiver_capacity() {
            self.receiver.push_back(byte);
            return;
        }
        self.line_errors |= LSR_OE;
        // With FIFOs the new character is lost in the shift register; without, it replaces the old one.
        if !self.fifos_enabled()
            && let Some(held) = self.receiver.back_mut()
        {
            *held = byte;
        }
    }

    fn modem_inputs(&self) -> u8 {
        if self.mcr & MCR_LOOP == 0 {
            return TERMINAL_LINES;
        }
        let wires = [(MCR_RTS, MSR_CTS), (MCR_DTR, MSR_DSR), (MCR_OUT1, MSR_RI), (MCR_OUT2, MSR_DCD)];
        wires.iter().filter(|(out, _)| self.mcr & out != 0).fold(0, |lines, (_, input)| lines | input)
    }

    fn set_modem_lines(&mut self, lines: u8) {
        let changed = lines ^ self.modem_lines;
        for (line, delta) in [(MSR_CTS, MSR_DCTS), (MSR_DSR, MSR_DDSR), (MSR_DCD, MSR_DDCD)] {
            if changed & line != 0 {
                self.modem_deltas |= delta;
            }
        }
        // Only the trailing edge of RI counts.
        if self.modem_lines & !lines & MSR_RI != 0 {
            self.modem_deltas |= MSR_TERI;
        }
        self.modem_lines = lines;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The probe of Linux's 8250 driver (`autoconfig`), which must end at "16550A".
    #[test]
    fn linux_autoconfig_finds_a_16550a() {
        let mut u = Uart::new();
        u.write(IER, 0);
        assert_eq!(u.read(IER), 0);
        u.write(IER, 0x0F);
        assert_eq!(u.read(IER), 0x0F);
        u.write(IER, 0);
        u.write(MCR, MCR_LOOP | 0x0A);
        assert_eq!(u.read(MSR) & 0xF0, 0x90);
        u.write(MCR, 0);
        // The enhanced feature register of a 16650 must not answer.
        u.write(LCR, 0xBF);
        u.write(FCR, 0);
        u.write(LCR, 0);
        u.write(FCR, FCR_ENABLE);
        assert_eq!(u.read(IIR) >> 6, 3);
        u.write(LCR, LCR_DLAB);
        assert_ne!(u.read(IIR), 0);
        u.write(LCR, 0xE0);
        assert_eq!((u.read(2) ^ u.read(MCR)) & MCR_LOOP, 0);
        u.write(LCR, 0);
        // No 64-byte FIFO.
        u.write(FCR, FCR_ENABLE | 0x20);
        assert_eq!(u.read(IIR) >> 5, 6);
        // No UART-unit-enable bit of an XScale.
        u.write(IER, 0x40);
        assert_eq!(u.read(IER), 0);
    }

    /// `serial8250_do_startup`: re-enabling THRI with an empty THR must interrupt again (else UART_BUG_THRE).
    #[test]
    fn enabling_the_thr_interrupt_raises_it_each_time() {
        let mut u = Uart::new();
        for _ in 0..2 {
            u.write(IER, IER_THRI);
            assert_eq!(u.read(IIR), IIR_THRI);
            assert_eq!(u.read(IIR), IIR_NONE, "reading IIR clears it");
            u.write(IER, 0);
            assert_eq!(u.read(IIR), IIR_NONE);
        }
        assert_eq!(u.read(LSR), LSR_THRE | LSR_TEMT);
    }

    #[test]
    fn writing_the_thr_sends_and_interrupts_again() {
        let mut u = Uart::new();
        u.write(MCR, MCR_OUT2);
        u.write(IER, IER_THRI);
        assert!(u.interrupt());
        u.read(IIR);
        assert!(!u.interrupt());
        assert_eq!(u.write(RBR_THR, b'x'), Some(b'x'));
        assert!(u.interrupt());
        u.write(MCR, 0);
        assert!(!u.interrupt(), "OUT2 gates the pin");
        assert_eq!(u.read(IIR), IIR_THRI);
    }

    #[test]
    fn scratch_and_divisor_keep_what_is_written() {
        let mut u = Uart::new();
        u.write(SCR, 0xA5);
        u.write(LCR, LCR_DLAB | 3);
        u.write(RBR_THR, 0x01);
        u.write(IER, 0x02);
        assert_eq!((u.read(RBR_THR), u.read(IER)), (1, 2));
        u.write(LCR, 3);
        assert_eq!((u.read(IER), u.read(SCR), u.read(LCR)), (0, 0xA5, 3));
    }

    #[test]
    fn receiver_reports_trigger_level_then_timeout() {
        let mut u = Uart::new();
        u.write(FCR, FCR_ENABLE | 1 << FCR_TRIGGER_SHIFT);
        u.write(IER, IER_RDI | IER_THRI);
        u.push_input(b"abcde");
        assert_eq!(u.read(IIR) & 0x0F, IIR_RDI);
        assert_eq!((u.read(RBR_THR), u.read(RBR_THR)), (b'a', b'b'));
        assert_eq!(u.read(IIR) & 0x0F, IIR_TIMEOUT);
        assert_eq!(u.read(LSR) & LSR_DR, LSR_DR);
        assert_eq!((u.read(RBR_THR), u.read(RBR_THR), u.read(RBR_THR)), (b'c', b'd', b'e'));
        assert_eq!(u.read(IIR) & 0x0F, IIR_THRI, "the lower priority source was kept");
        assert_eq!(u.read(LSR) & LSR_DR, 0);
    }

    #[test]
    fn input_beyond_the_fifo_waits_and_is_never_lost() {
        let mut u = Uart::new();
        u.write(FCR, FCR_ENABLE);
        let text: Vec<u8> = (0..100).collect();
        u.push_input(&text);
        assert!(!u.input_wanted());
        let got: Vec<u8> = text.iter().map(|_| u.read(RBR_THR)).collect();
        assert_eq!(got, text);
        assert_eq!(u.read(LSR), LSR_THRE | LSR_TEMT);
        assert!(u.input_wanted());
    }

    #[test]
    fn clearing_the_receiver_fifo_drops_only_what_is_in_the_chip() {
        let mut u = Uart::new();
        u.write(FCR, FCR_ENABLE);
        u.push_input(&[1; FIFO_BYTES]);
        u.push_input(&[2]);
        u.write(FCR, FCR_ENABLE | FCR_CLEAR_RECEIVER);
        assert_eq!(u.read(RBR_THR), 2);
    }

    #[test]
    fn loopback_receives_its_own_output_and_overruns() {
        let mut u = Uart::new();
        u.write(FCR, FCR_ENABLE);
        u.write(MCR, MCR_LOOP);
        u.write(IER, IER_RLSI);
        for byte in 0..=FIFO_BYTES as u8 {
            assert_eq!(u.write(RBR_THR, byte), None);
        }
        assert_eq!(u.read(IIR) & 0x0F, IIR_RLSI);
        assert_eq!(u.read(LSR) & LSR_OE, LSR_OE);
        assert_eq!(u.read(LSR) & LSR_OE, 0, "reading LSR clears the error");
        let got: Vec<u8> = (0..FIFO_BYTES).map(|_| u.read(RBR_THR)).collect();
        assert_eq!(got, (0..FIFO_BYTES as u8).collect::<Vec<_>>());
    }

    #[test]
    fn modem_status_interrupt_is_cleared_by_reading_msr() {
        let mut u = Uart::new();
        u.write(IER, IER_MSI);
        u.write(MCR, MCR_LOOP | MCR_OUT1);
        assert_eq!(u.read(MSR), MSR_RI | MSR_DCTS | MSR_DDSR | MSR_DDCD);
        assert_eq!(u.read(IIR), IIR_NONE);
        u.write(MCR, MCR_LOOP);
        assert_eq!(u.read(IIR), IIR_MSI);
        assert_eq!(u.read(MSR), MSR_TERI);
    }
}
