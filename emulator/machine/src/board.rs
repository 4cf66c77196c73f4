//! The board as the processor sees it: shared with the machine, which feeds and drains it between runs.

use devices::Chipset;
use std::cell::RefCell;
use std::rc::Rc;
use x86::platform::{Platform, Signal, VirtualTime};

/// A handle to the chipset. Runs on one thread; borrows never overlap, because the chipset calls nothing back.
#[derive(Clone)]
pub struct Board(pub Rc<RefCell<Chipset>>);

impl Platform for Board {
    fn port_read(&mut self, now: VirtualTime, cpu: usize, port: u16, size: u8) -> u32 {
        self.0.borrow_mut().port_read(now, cpu, port, size)
    }
    fn port_write(&mut self, now: VirtualTime, cpu: usize, port: u16, size: u8, value: u32) {
        self.0.borrow_mut().port_write(now, cpu, port, size, value);
    }
    fn mmio_read(&mut self, now: VirtualTime, cpu: usize, address: u64, size: u8) -> u64 {
        self.0.borrow_mut().mmio_read(now, cpu, address, size)
    }
    fn mmio_write(&mut self, now: VirtualTime, cpu: usize, address: u64, size: u8, value: u64) {
        self.0.borrow_mut().mmio_write(now, cpu, address, size, value);
    }
    fn apic_msr_read(&mut self, now: VirtualTime, cpu: usize, msr: u32) -> Option<u64> {
        self.0.borrow_mut().apic_msr_read(now, cpu, msr)
    }
    fn apic_msr_write(&mut self, now: VirtualTime, cpu: usize, msr: u32, value: u64, tsc_offset: u64) -> Option<()> {
        self.0.borrow_mut().apic_msr_write(now, cpu, msr, value, tsc_offset)
    }
    fn cr8(&self, cpu: usize) -> u8 {
        self.0.borrow().cr8(cpu)
    }
    fn set_cr8(&mut self, now: VirtualTime, cpu: usize, value: u8) {
        self.0.borrow_mut().set_cr8(now, cpu, value);
    }
    fn next_event(&self) -> Option<VirtualTime> {
        self.0.borrow().next_event()
    }
    fn advance(&mut self, now: VirtualTime) {
        self.0.borrow_mut().advance(now);
    }
    fn interrupt_pending(&self, cpu: usize) -> bool {
        self.0.borrow().interrupt_pending(cpu)
    }
    fn acknowledge_interrupt(&mut self, now: VirtualTime, cpu: usize) -> Option<u8> {
        self.0.borrow_mut().acknowledge_interrupt(now, cpu)
    }
    fn nmi_pending(&self, cpu: usize) -> bool {
        self.0.borrow().nmi_pending(cpu)
    }
    fn take_nmi(&mut self, cpu: usize) -> bool {
        self.0.borrow_mut().take_nmi(cpu)
    }
    fn take_signal(&mut self) -> Option<Signal> {
        self.0.borrow_mut().take_signal()
    }
    fn signal_pending(&self) -> bool {
        self.0.borrow().signal_pending()
    }
}
