//! 8259A interrupt controller pair with edge/level control registers.
//!
//! Intel 8259A data sheet (231468); the pair and ELCR as in Intel 82371 and ICH (82801) data sheets: ICW1.LTIM is
//! ignored, each input's sensing comes from ELCR.

use crate::layout::IRQ_CASCADE;

/// Command words, in data sheet order.
mod spec {
    pub const ICW1: u8 = 1 << 4;
    pub const ICW1_IC4: u8 = 1 << 0;
    pub const ICW1_SNGL: u8 = 1 << 1;
    pub const ICW2_VECTOR: u8 = 0xF8;
    pub const ICW4_AEOI: u8 = 1 << 1;
    pub const ICW4_SFNM: u8 = 1 << 4;
    /// OCW2 bits 7:5.
    pub const OCW2_COMMAND_SHIFT: u32 = 5;
    pub const OCW2_ROTATE_IN_AEOI_CLEAR: u8 = 0b000;
    pub const OCW2_NON_SPECIFIC_EOI: u8 = 0b001;
    pub const OCW2_SPECIFIC_EOI: u8 = 0b011;
    pub const OCW2_ROTATE_IN_AEOI_SET: u8 = 0b100;
    pub const OCW2_ROTATE_ON_NON_SPECIFIC_EOI: u8 = 0b101;
    pub const OCW2_SET_PRIORITY: u8 = 0b110;
    pub const OCW2_ROTATE_ON_SPECIFIC_EOI: u8 = 0b111;
    pub const OCW2_LEVEL: u8 = 7;
    pub const OCW3: u8 = 1 << 3;
    pub const OCW3_RIS: u8 = 1 << 0;
    pub const OCW3_RR: u8 = 1 << 1;
    pub const OCW3_P: u8 = 1 << 2;
    pub const OCW3_SMM: u8 = 1 << 5;
    pub const OCW3_ESMM: u8 = 1 << 6;
    /// Poll word: an input requests.
    pub const POLL_I: u8 = 1 << 7;
    /// The default input of an acknowledge that nothing requests.
    pub const SPURIOUS_INPUT: u8 = 7;
    /// Inputs whose sensing ELCR may change: not the timer, keyboard, cascade; not the RTC and FERR.
    pub const ELCR_MASTER: u8 = 0xF8;
    pub const ELCR_SLAVE: u8 = 0xDE;
}
use spec::*;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
enum Initialization {
    /// Never initialised: INT stays low.
    None,
    Icw2,
    Icw3,
    Icw4,
    Done,
}

/// One 8259A.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
struct Pic {
    inputs: u8,
    /// Rising edges not acknowledged yet. An input that falls takes its request back ("the IR inputs must remain
    /// high until after the falling edge of the first INTA").
    edges: u8,
    isr: u8,
    imr: u8,
    elcr: u8,
    initialization: Initialization,
    icw1: u8,
    icw2: u8,
    icw3: u8,
    icw4: u8,
    read_isr: bool,
    poll: bool,
    special_mask: bool,
    rotate_in_aeoi: bool,
    /// The input with the lowest priority; the next one (modulo 8) has the highest.
    lowest: u8,
}

impl Pic {
    fn new() -> Self {
        Pic {
            inputs: 0,
            edges: 0,
            isr: 0,
            imr: 0,
            elcr: 0,
            initialization: Initialization::None,
            icw1: 0,
            icw2: 0,
            icw3: 0,
            icw4: 0,
            read_isr: false,
            poll: false,
            special_mask: false,
            rotate_in_aeoi: false,
            lowest: 7,
        }
    }

    fn set_input(&mut self, input: u8, level: bool) {
        let bit = 1 << (input & 7);
        if level {
            self.edges |= bit & !self.inputs;
            self.inputs |= bit;
        } else {
            self.edges &= !bit;
            self.inputs &= !bit;
        }
    }

    fn listens(&self, bit: u8) -> bool {
        self.initialization == Initialization::Done && self.imr & bit == 0
    }

    fn irr(&self) -> u8 {
        self.edges & !self.elcr | self.inputs & self.elcr
    }

    /// The input that INT stands for, if any. `cascade` is the mask of inputs that carry another 8259A.
    fn requesting(&self, cascade: u8) -> Option<u8> {
        if self.initialization != Initialization::Done {
            return None;
        }
        let requests = self.irr() & !self.imr;
        for step in 1..=8 {
            let input = (self.lowest + step) & 7;
            let bit = 1u8 << input;
            // In special mask mode a masked input in service blocks nothing.
            let in_service = self.isr & bit != 0 && !(self.special_mask && self.imr & bit != 0);
            // In special fully nested mode the master lets a slave interrupt itself.
            let nested = self.icw4 & ICW4_SFNM != 0 && cascade & bit != 0;
            if in_service && !nested {
                return None;
            }
            if requests & bit != 0 {
                return Some(input);
            }
            if in_service {
                return None;
            }
        }
        None
    }

    fn acknowledge(&mut self, cascade: u8) -> Option<u8> {
        let input = self.requesting(cascade)?;
        let bit = 1 << input;
        self.edges &= !bit;
        if self.icw4 & ICW4_AEOI == 0 {
            self.isr |= bit;
        } else if self.rotate_in_aeoi {
            self.lowest = input;
        }
        Some(input)
    }

    fn vector(&self, input: u8) -> u8 {
        self.icw2 & ICW2_VECTOR | input
    }

    /// The input in service with the highest priority, for the non-specific EOI.
    fn highest_in_service(&self) -> Option<u8> {
        let eligible = if self.special_mask { self.isr & !self.imr } else { self.isr };
        (1..=8).map(|step| (self.lowest + step) & 7).find(|input| eligible & 1 << input != 0)
    }

    fn read(&mut self, data_port: bool, cascade: u8) -> u8 {
        if self.poll {
            self.poll = false;
            return self.acknowledge(cascade).map_or(0, |input| POLL_I | input);
        }
        match (data_port, self.read_isr) {
            (true, _) => self.imr,
            (false, true) => self.isr,
            (false, false) => self.irr(),
        }
    }

    fn write_command(&mut self, value: u8) {
        if value & ICW1 != 0 {
            // "The edge sense circuit is reset, IMR is cleared, IR7 is assigned priority 7, special mask mode is
            // cleared and status read is set to IRR, all functions selected in ICW4 are set to zero if IC4 = 0."
            self.edges = 0;
            self.isr = 0;
            self.imr = 0;
            self.lowest = 7;
            self.special_mask = false;
            self.read_isr = false;
            self.poll = false;
            self.rotate_in_aeoi = false;
            self.icw1 = value;
            self.icw4 = 0;
            self.initialization = Initialization::Icw2;
        } else if value & OCW3 != 0 {
            if value & OCW3_P != 0 {
                self.poll = true;
            }
            if value & OCW3_RR != 0 {
                self.read_isr = value & OCW3_RIS != 0;
            }
            if value & OCW3_ESMM != 0 {
                self.special_mask = value & OCW3_SMM != 0;
            }
        } else {
            self.write_ocw2(value);
        }
    }

    fn write_ocw2(&mut self, value: u8) {
        let level = value & OCW2_LEVEL;
        match value >> OCW2_COMMAND_SHIFT {
            OCW2_ROTATE_IN_AEOI_CLEAR => self.rotate_in_aeoi = false,
            OCW2_ROTATE_IN_AEOI_SET => self.rotate_in_aeoi = true,
            command @ (OCW2_NON_SPECIFIC_EOI | OCW2_ROTATE_ON_NON_SPECIFIC_EOI) => {
                if let Some(input) = self.highest_in_service() {
                    self.isr &= !(1 << input);
                    if command == OCW2_ROTATE_ON_NON_SPECIFIC_EOI {
                        self.lowest = input;
                    }
                }
            }
            OCW2_SPECIFIC_EOI => self.isr &= !(1 << level),
            OCW2_ROTATE_ON_SPECIFIC_EOI => {
                self.isr &= !(1 << level);
                self.lowest = level;
            }
            OCW2_SET_PRIORITY => self.lowest = level,
            // 010b: no operation.
            _ => {}
        }
    }

    fn write_data(&mut self, value: u8) {
        let after_icw3 = if self.icw1 & ICW1_IC4 != 0 { Initialization::Icw4 } else { Initialization::Done };
        match self.initialization {
            Initialization::None | Initialization::Done => self.imr = value,
            Initialization::Icw2 => {
                self.icw2 = value;
                self.initialization = if self.icw1 & ICW1_SNGL == 0 { Initialization::Icw3 } else { after_icw3 };
            }
            Initialization::Icw3 => {
                self.icw3 = value;
                self.initialization = after_icw3;
            }
            Initialization::Icw4 => {
                self.icw4 = value;
                self.initialization = Initialization::Done;
            }
        }
    }
}

/// Which register of the pair a port access means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PicRegister {
    MasterCommand,
    MasterData,
    SlaveCommand,
    SlaveData,
    MasterElcr,
    SlaveElcr,
}

/// Master and slave, the slave's INT on the master's IR2.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct PicPair {
    master: Pic,
    slave: Pic,
}

impl Default for PicPair {
    fn default() -> Self {
        Self::new()
    }
}

impl PicPair {
    const CASCADE: u8 = 1 << IRQ_CASCADE;

    pub fn new() -> Self {
        PicPair { master: Pic::new(), slave: Pic::new() }
    }

    /// Drives ISA interrupt line `irq` (0 to 15; the cascade input 2 is not a line).
    pub fn set_irq(&mut self, irq: u8, level: bool) {
        match irq {
            IRQ_CASCADE => {}
            0..8 => self.master.set_input(irq, level),
            _ => self.slave.set_input(irq - 8, level),
        }
        self.cascade();
    }

    /// The pair's INT output.
    pub fn int(&self) -> bool {
        self.master.requesting(Self::CASCADE).is_some()
    }

    /// True when a request on `irq` can reach INT: neither it nor its cascade input is masked.
    pub fn unmasked(&self, irq: u8) -> bool {
        match irq {
            0..8 => self.master.listens(1 << irq),
            _ => self.slave.listens(1 << (irq & 7)) && self.master.listens(Self::CASCADE),
        }
    }

    /// The two INTA cycles: the vector. Without a request it is the spurious one, that of input 7.
    pub fn acknowledge(&mut self) -> u8 {
        let vector = match self.master.acknowledge(Self::CASCADE) {
            Some(IRQ_CASCADE) => {
                let input = self.slave.acknowledge(0).unwrap_or(SPURIOUS_INPUT);
                self.slave.vector(input)
            }
            Some(input) => self.master.vector(input),
            None => self.master.vector(SPURIOUS_INPUT),
        };
        self.cascade_after_acknowledge();
        vector
    }

    pub fn read(&mut self, register: PicRegister) -> u8 {
        let value = match register {
            PicRegister::MasterCommand => self.master.read(false, Self::CASCADE),
            PicRegister::MasterData => self.master.read(true, Self::CASCADE),
            PicRegister::SlaveCommand => self.slave.read(false, 0),
            PicRegister::SlaveData => self.slave.read(true, 0),
            PicRegister::MasterElcr => self.master.elcr,
            PicRegister::SlaveElcr => self.slave.elcr,
        };
        // A poll acknowledges.
        self.cascade();
        value
    }

    pub fn write(&mut self, register: PicRegister, value: u8) {
        match register {
            PicRegister::MasterCommand => self.master.write_command(value),
            PicRegister::MasterData => self.master.write_data(value),
            PicRegister::SlaveCommand => self.slave.write_command(value),
            PicRegister::SlaveData => self.slave.write_data(value),
            PicRegister::MasterElcr => self.master.elcr = value & ELCR_MASTER,
            PicRegister::SlaveElcr => self.slave.elcr = value & ELCR_SLAVE,
        }
        self.cascade();
    }

    fn cascade(&mut self) {
        let int = self.slave.requesting(0).is_some();
        self.master.set_input(IRQ_CASCADE, int);
    }

    /// The slave drops INT for the acknowledge; a further request of the slave is a new edge at the master.
    fn cascade_after_acknowledge(&mut self) {
        self.master.set_input(IRQ_CASCADE, false);
        self.cascade();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use PicRegister::*;

    fn initialise(p: &mut PicPair, icw4: u8) {
        for (command, data, vector, icw3) in [(MasterCommand, MasterData, 0x30, 4), (SlaveCommand, SlaveData, 0x38, 2)]
        {
            p.write(command, 0x11);
            p.write(data, vector);
            p.write(data, icw3);
            p.write(data, icw4);
        }
    }

    fn initialised() -> PicPair {
        let mut p = PicPair::new();
        initialise(&mut p, 0x01);
        p
    }

    fn pulse(p: &mut PicPair, irq: u8) {
        p.set_irq(irq, false);
        p.set_irq(irq, true);
    }

    #[test]
    fn an_uninitialised_pair_never_interrupts() {
        let mut p = PicPair::new();
        p.set_irq(0, true);
        assert!(!p.int() && !p.unmasked(0));
    }

    #[test]
    fn lower_inputs_win_and_block_until_eoi() {
        let mut p = initialised();
        pulse(&mut p, 4);
        pulse(&mut p, 1);
        assert_eq!(p.acknowledge(), 0x31);
        assert!(!p.int(), "IRQ 4 has lower priority than IRQ 1 in service");
        pulse(&mut p, 0);
        assert_eq!(p.acknowledge(), 0x30);
        p.write(MasterCommand, 0x20);
        assert!(!p.int());
        p.write(MasterCommand, 0x61);
        assert_eq!(p.acknowledge(), 0x34);
    }

    #[test]
    fn slave_requests_come_through_the_cascade() {
        let mut p = initialised();
        p.set_irq(8, true);
        assert_eq!(p.acknowledge(), 0x38);
        p.write(MasterCommand, 0x0B);
        assert_eq!(p.read(MasterCommand), 0x04);
        p.write(SlaveCommand, 0x0B);
        assert_eq!(p.read(SlaveCommand), 0x01);
        p.write(SlaveCommand, 0x20);
        p.write(MasterCommand, 0x20);
        assert!(!p.int(), "no new edge");
    }

    #[test]
    fn a_second_slave_request_is_not_lost() {
        let mut p = initialised();
        p.set_irq(12, true);
        p.set_irq(9, true);
        assert_eq!(p.acknowledge(), 0x39);
        p.write(SlaveCommand, 0x20);
        p.write(MasterCommand, 0x20);
        assert!(p.int());
        assert_eq!(p.acknowledge(), 0x3C);
    }

    #[test]
    fn a_withdrawn_request_is_spurious_irq7_without_in_service_bit() {
        let mut p = initialised();
        p.set_irq(4, true);
        p.set_irq(4, false);
        assert!(!p.int());
        assert_eq!(p.acknowledge(), 0x37);
        p.write(MasterCommand, 0x0B);
        assert_eq!(p.read(MasterCommand), 0);
    }

    #[test]
    fn level_input_requests_until_it_falls() {
        let mut p = initialised();
        p.write(SlaveElcr, 0xFF);
        assert_eq!(p.read(SlaveElcr), ELCR_SLAVE);
        p.set_irq(9, true);
        for _ in 0..3 {
            assert_eq!(p.acknowledge(), 0x39);
            p.write(SlaveCommand, 0x20);
            p.write(MasterCommand, 0x20);
            assert!(p.int());
        }
        p.set_irq(9, false);
        assert!(!p.int());
    }

    #[test]
    fn masking_hides_and_unmasking_shows_a_latched_edge() {
        let mut p = initialised();
        p.write(MasterData, 0xFF);
        pulse(&mut p, 0);
        assert!(!p.int());
        assert!(!p.unmasked(0));
        assert_eq!(p.read(MasterCommand), 0x01);
        p.write(MasterData, 0xFE);
        assert!(p.unmasked(0) && !p.unmasked(8));
        assert_eq!(p.acknowledge(), 0x30);
    }

    #[test]
    fn rotation_gives_the_served_input_the_lowest_priority() {
        let mut p = initialised();
        pulse(&mut p, 3);
        assert_eq!(p.acknowledge(), 0x33);
        p.write(MasterCommand, 0xA0);
        pulse(&mut p, 3);
        pulse(&mut p, 4);
        assert_eq!(p.acknowledge(), 0x34);
        p.write(MasterCommand, 0x20);
        assert_eq!(p.acknowledge(), 0x33);
        p.write(MasterCommand, 0xC0 | 5);
        p.write(MasterCommand, 0x20);
        pulse(&mut p, 0);
        pulse(&mut p, 6);
        assert_eq!(p.acknowledge(), 0x36, "after lowest = 5, input 6 is highest");
    }

    #[test]
    fn automatic_eoi_leaves_nothing_in_service_and_may_rotate() {
        let mut p = initialised();
        initialise(&mut p, 0x03);
        p.write(MasterCommand, 0x80);
        pulse(&mut p, 0);
        assert_eq!(p.acknowledge(), 0x30);
        p.write(MasterCommand, 0x0B);
        assert_eq!(p.read(MasterCommand), 0);
        pulse(&mut p, 0);
        pulse(&mut p, 1);
        assert_eq!(p.acknowledge(), 0x31);
    }

    #[test]
    fn special_mask_mode_lets_lower_inputs_through() {
        let mut p = initialised();
        pulse(&mut p, 1);
        assert_eq!(p.acknowledge(), 0x31);
        pulse(&mut p, 5);
        assert!(!p.int());
        p.write(MasterData, 0x02);
        p.write(MasterCommand, 0x68);
        assert_eq!(p.acknowledge(), 0x35);
        p.write(MasterCommand, 0x20);
        p.write(MasterCommand, 0x0B);
        assert_eq!(p.read(MasterCommand), 0x02, "non-specific EOI leaves the masked input in service");
    }

    #[test]
    fn poll_acknowledges_and_reports_the_input() {
        let mut p = initialised();
        pulse(&mut p, 6);
        p.write(MasterCommand, 0x0C);
        assert_eq!(p.read(MasterCommand), 0x86);
        p.write(MasterCommand, 0x0C);
        assert_eq!(p.read(MasterCommand), 0x00);
        p.write(MasterCommand, 0x0B);
        assert_eq!(p.read(MasterCommand), 0x40);
    }

    #[test]
    fn special_fully_nested_master_lets_the_slave_interrupt_itself() {
        let mut p = initialised();
        initialise(&mut p, 0x11);
        p.set_irq(12, true);
        assert_eq!(p.acknowledge(), 0x3C);
        p.set_irq(9, true);
        assert_eq!(p.acknowledge(), 0x39);
    }
}
