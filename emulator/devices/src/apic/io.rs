//! I/O APIC with 24 pins (Intel 82093AA data sheet 290566; EOI register as in Intel's ICH, version 20H).

use super::{DeliveryMode, Destination, Message};
use crate::layout::IOAPIC_PINS;

/// Memory-mapped and indirect registers, in data sheet order.
pub mod spec {
    /// Offsets in the page.
    pub const IOREGSEL: u64 = 0x00;
    pub const IOWIN: u64 = 0x10;
    pub const EOI: u64 = 0x40;
    /// Indices.
    pub const IOAPICID: u8 = 0x00;
    pub const IOAPICVER: u8 = 0x01;
    pub const IOAPICARB: u8 = 0x02;
    pub const IOREDTBL: u8 = 0x10;

    pub const ID_SHIFT: u32 = 24;
    pub const VERSION: u32 = 0x20;

    pub const VECTOR: u64 = 0xFF;
    pub const DELIVERY_MODE_SHIFT: u32 = 8;
    pub const DESTINATION_LOGICAL: u64 = 1 << 11;
    pub const DELIVERY_STATUS: u64 = 1 << 12;
    pub const ACTIVE_LOW: u64 = 1 << 13;
    pub const REMOTE_IRR: u64 = 1 << 14;
    pub const LEVEL: u64 = 1 << 15;
    pub const MASK: u64 = 1 << 16;
    pub const DESTINATION_SHIFT: u32 = 56;
    pub const WRITABLE: u64 = 0xFF00_0000_0001_FFFF & !(DELIVERY_STATUS | REMOTE_IRR);
}
use spec::*;

/// PCI interrupt wires idle high; the ISA ones idle low.
const IDLE_WIRES: u32 = 0x00FF_0000;

/// The I/O APIC. Messages it wants to send wait until [`IoApic::next_message`] takes them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct IoApic {
    id: u8,
    select: u8,
    entries: [u64; IOAPIC_PINS],
    /// Electrical level of each pin.
    wires: u32,
    /// Pins with a message to send.
    to_send: u32,
    /// Level-triggered pins whose message nobody accepted; it is sent again.
    refused: u32,
}

impl Default for IoApic {
    fn default() -> Self {
        Self::new()
    }
}

impl IoApic {
    pub fn new() -> Self {
        IoApic { id: 0, select: 0, entries: [MASK; IOAPIC_PINS], wires: IDLE_WIRES, to_send: 0, refused: 0 }
    }

    /// Hardware reset: "all entries masked". The wires are driven from outside and stay.
    pub fn reset(&mut self) {
        *self = IoApic { wires: self.wires, ..IoApic::new() };
    }

    /// Drives pin `pin` (0 to 23) electrically high or low.
    pub fn set_pin(&mut self, pin: u8, high: bool) {
        let pin = usize::from(pin);
        let Some(&entry) = self.entries.get(pin) else { return };
        let bit = 1 << pin;
        if high == (self.wires & bit != 0) {
            return;
        }
        self.wires ^= bit;
        if entry & LEVEL != 0 {
            self.request_level(pin);
        } else if self.active(pin) && entry & MASK == 0 {
            // "Edge-sensitive interrupts signaled on a masked interrupt pin are ignored."
            self.to_send |= bit;
        }
    }

    /// True when an edge on `pin` would go unnoticed.
    pub fn masked(&self, pin: u8) -> bool {
        self.entries.get(usize::from(pin)).is_none_or(|entry| entry & MASK != 0)
    }

    /// Sends level interrupts that nobody accepted again, as long as they are active.
    pub fn retry(&mut self) {
        let mut refused = std::mem::take(&mut self.refused);
        while refused != 0 {
            let pin = refused.trailing_zeros() as usize;
            refused &= refused - 1;
            if self.entries[pin] & LEVEL != 0 {
                self.request_level(pin);
            }
        }
    }

    /// The next message to send, with its pin. Tell [`IoApic::answer`] whether somebody took it.
    pub fn next_message(&mut self) -> Option<(u8, Message)> {
        while self.to_send != 0 {
            let pin = self.to_send.trailing_zeros() as usize;
            self.to_send &= self.to_send - 1;
            let entry = self.entries[pin];
            // The reserved delivery mode sends nothing.
            let Some(mode) = DeliveryMode::from_bits((entry >> DELIVERY_MODE_SHIFT) as u32) else { continue };
            let address = (entry >> DESTINATION_SHIFT) as u32;
            let destination = match entry & DESTINATION_LOGICAL != 0 {
                true => Destination::Logical(address),
                false if address == 0xFF => Destination::Everyone,
                false => Destination::Physical(address),
            };
            let vector = (entry & VECTOR) as u8;
            return Some((pin as u8, Message { destination, mode, vector, level: entry & LEVEL != 0 }));
        }
        None
    }

    /// Whether a local APIC accepted the message of `pin`. If so, a level interrupt now waits for its EOI.
    pub fn answer(&mut self, pin: u8, accepted: bool) {
        match self.entries.get_mut(usize::from(pin)) {
            Some(entry) if *entry & LEVEL != 0 && accepted => *entry |= REMOTE_IRR,
            Some(entry) if *entry & LEVEL != 0 => self.refused |= 1 << pin,
            _ => {}
        }
    }

    /// EOI message or EOI register write for `vector`: pins still active interrupt again.
    pub fn end_of_interrupt(&mut self, vector: u8) {
        for pin in 0..IOAPIC_PINS {
            let entry = &mut self.entries[pin];
            if *entry & LEVEL != 0 && *entry & REMOTE_IRR != 0 && *entry & VECTOR == u64::from(vector) {
                *entry &= !REMOTE_IRR;
                self.request_level(pin);
            }
        }
    }

    /// 32-bit load at `offset` of the page.
    pub fn read(&self, offset: u64) -> u32 {
        match offset {
            IOREGSEL => self.select.into(),
            IOWIN => self.read_selected(),
            _ => 0,
        }
    }

    /// 32-bit store at `offset` of the page.
    pub fn write(&mut self, offset: u64, value: u32) {
        match offset {
            IOREGSEL => self.select = value as u8,
            IOWIN => self.write_selected(value),
            EOI => self.end_of_interrupt(value as u8),
            _ => {}
        }
    }

    fn active(&self, pin: usize) -> bool {
        (self.wires & 1 << pin != 0) != (self.entries[pin] & ACTIVE_LOW != 0)
    }

    fn request_level(&mut self, pin: usize) {
        let ready = self.entries[pin] & (LEVEL | MASK | REMOTE_IRR) == LEVEL;
        if ready && self.active(pin) {
            self.to_send |= 1 << pin;
        } else {
            self.to_send &= !(1 << pin);
        }
    }

    fn read_selected(&self) -> u32 {
        match self.select {
            IOAPICID | IOAPICARB => u32::from(self.id) << ID_SHIFT,
            IOAPICVER => VERSION | (IOAPIC_PINS as u32 - 1) << 16,
            _ => match self.selected_entry() {
                Some((pin, true)) => (self.entries[pin] >> 32) as u32,
                Some((pin, false)) => self.entries[pin] as u32,
                None => 0,
            },
        }
    }

    fn write_selected(&mut self, value: u32) {
        if self.select == IOAPICID {
            self.id = (value >> ID_SHIFT) as u8 & 0xF;
        }
        let Some((pin, high)) = self.selected_entry() else { return };
        let entry = self.entries[pin];
        let written = match high {
            true => entry & 0xFFFF_FFFF | u64::from(value) << 32,
            false => entry & !0xFFFF_FFFF | u64::from(value),
        };
        // Remote IRR means nothing for an edge entry; changing to edge and back is how drivers of I/O APICs without
        // an EOI register clear it.
        let remote_irr = if written & LEVEL != 0 { entry & REMOTE_IRR } else { 0 };
        self.entries[pin] = written & WRITABLE | remote_irr;
        if written & LEVEL != 0 {
            self.request_level(pin);
        }
    }

    /// Pin and half (true: bits 63:32) that IOREGSEL names.
    fn selected_entry(&self) -> Option<(usize, bool)> {
        let index = self.select.checked_sub(IOREDTBL)?;
        let pin = usize::from(index / 2);
        (pin < IOAPIC_PINS).then_some((pin, index & 1 != 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(io: &mut IoApic, pin: u8, entry: u64) {
        for half in 0..2u8 {
            io.write(IOREGSEL, u32::from(IOREDTBL + 2 * pin + 1 - half));
            io.write(IOWIN, (entry >> (32 * (1 - half))) as u32);
        }
    }

    fn low(io: &mut IoApic, pin: u8) -> u64 {
        io.write(IOREGSEL, u32::from(IOREDTBL + 2 * pin));
        io.read(IOWIN).into()
    }

    #[test]
    fn version_id_and_reset_state() {
        let mut io = IoApic::new();
        io.write(IOREGSEL, 1);
        assert_eq!(io.read(IOWIN), 0x0017_0020);
        io.write(IOREGSEL, 0);
        io.write(IOWIN, 0x0500_0000);
        assert_eq!(io.read(IOWIN), 0x0500_0000);
        assert!((0..24).all(|pin| low(&mut io, pin) == MASK));
        io.write(IOREGSEL, 0xFF);
        assert_eq!(io.read(IOWIN), 0);
    }

    #[test]
    fn edge_pin_sends_once_per_rising_edge_and_ignores_masked_edges() {
        let mut io = IoApic::new();
        io.set_pin(4, true);
        program(&mut io, 4, 0x41);
        assert_eq!(io.next_message(), None, "the edge came while masked");
        io.set_pin(4, false);
        io.set_pin(4, true);
        let (pin, message) = io.next_message().unwrap();
        assert_eq!((pin, message.vector, message.level), (4, 0x41, false));
        assert_eq!(message.destination, Destination::Physical(0));
        io.answer(pin, true);
        assert_eq!(low(&mut io, 4), 0x41);
        io.set_pin(4, true);
        assert_eq!(io.next_message(), None);
    }

    #[test]
    fn level_pin_sets_remote_irr_and_repeats_after_eoi_while_active() {
        let mut io = IoApic::new();
        program(&mut io, 9, 0x0100_0000_0000_0059 | LEVEL | DESTINATION_LOGICAL);
        io.set_pin(9, true);
        let (pin, message) = io.next_message().unwrap();
        assert!(message.level);
        assert_eq!(message.destination, Destination::Logical(1));
        io.answer(pin, true);
        assert_eq!(low(&mut io, 9) & REMOTE_IRR, REMOTE_IRR);
        io.set_pin(9, false);
        io.set_pin(9, true);
        assert_eq!(io.next_message(), None, "held back by remote IRR");
        io.end_of_interrupt(0x58);
        assert_eq!(io.next_message(), None);
        io.write(EOI, 0x59);
        assert!(io.next_message().is_some());
        io.answer(9, true);
        io.set_pin(9, false);
        io.end_of_interrupt(0x59);
        assert_eq!(io.next_message(), None);
        assert_eq!(low(&mut io, 9) & REMOTE_IRR, 0);
    }

    #[test]
    fn a_refused_level_interrupt_is_sent_again_while_active() {
        let mut io = IoApic::new();
        program(&mut io, 9, 0x59 | LEVEL);
        io.set_pin(9, true);
        for _ in 0..2 {
            let (pin, _) = io.next_message().unwrap();
            io.answer(pin, false);
            assert_eq!(io.next_message(), None);
            io.retry();
        }
        io.set_pin(9, false);
        io.retry();
        assert_eq!(io.next_message(), None);
    }

    #[test]
    fn unmasking_an_active_level_pin_sends() {
        let mut io = IoApic::new();
        io.set_pin(9, true);
        program(&mut io, 9, 0x59 | LEVEL | MASK);
        assert!(io.masked(9));
        assert_eq!(io.next_message(), None);
        program(&mut io, 9, 0x59 | LEVEL);
        assert!(io.next_message().is_some());
    }

    #[test]
    fn switching_to_edge_clears_remote_irr_and_guests_cannot_set_it() {
        let mut io = IoApic::new();
        program(&mut io, 9, 0x59 | LEVEL);
        io.set_pin(9, true);
        let (pin, _) = io.next_message().unwrap();
        io.answer(pin, true);
        program(&mut io, 9, 0x59 | MASK);
        program(&mut io, 9, 0x59 | LEVEL | REMOTE_IRR | DELIVERY_STATUS | MASK);
        assert_eq!(low(&mut io, 9), 0x59 | LEVEL | MASK);
    }

    #[test]
    fn active_low_pins_of_pci_idle_quietly() {
        let mut io = IoApic::new();
        program(&mut io, 16, 0x60 | LEVEL | ACTIVE_LOW);
        assert_eq!(io.next_message(), None);
        io.set_pin(16, false);
        assert!(io.next_message().is_some());
    }
}
