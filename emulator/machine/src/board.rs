//! The board as the processor sees it: shared with the machine, which feeds and drains it between runs.

use crate::inject::Trigger;
use devices::Chipset;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use x86::platform::{BusMemory, Platform, Signal, VirtualTime};

/// A handle to the chipset. Runs on one thread; borrows never overlap, because the chipset calls nothing back.
#[derive(Clone)]
pub struct Board(pub Rc<RefCell<Chipset>>, Rc<Horizon>);

/// The virtual time at which the machine wants the processor back, whether it executes or is halted. To the processor it
/// looks like a timer event that raises a signal; to the guest it is nothing at all.
struct Horizon {
    /// Nanoseconds; `u64::MAX` when nobody waits.
    at: Cell<u64>,
    reached: Cell<bool>,
    /// Somebody waits for markers ([`Trigger::Marker`]).
    marks: Cell<bool>,
    /// The one that was written.
    marker: Cell<Option<u32>>,
}

impl Board {
    pub fn new(chipset: Chipset) -> Board {
        Board(
            Rc::new(RefCell::new(chipset)),
            Rc::new(Horizon {
                at: Cell::new(u64::MAX),
                reached: Cell::new(false),
                marks: Cell::new(false),
                marker: Cell::new(None),
            }),
        )
    }

    /// Makes the processor leave its run loop at `time`; `None` takes that back. While no timer is armed a halted
    /// processor still stops at once: time cannot pass for it.
    pub fn set_horizon(&self, time: Option<VirtualTime>) {
        self.1.at.set(time.map_or(u64::MAX, |t| t.0));
        self.1.reached.set(false);
    }

    /// Makes the processor leave its run loop after a write of a marker, or not.
    pub fn watch_markers(&self, on: bool) {
        self.1.marks.set(on);
        self.1.marker.set(None);
    }

    /// The marker that was written, if it was not taken yet.
    pub fn take_marker(&self) -> Option<u32> {
        self.1.marker.take()
    }
}

impl Platform for Board {
    fn port_read(&mut self, now: VirtualTime, cpu: usize, port: u16, size: u8) -> u32 {
        self.0.borrow_mut().port_read(now, cpu, port, size)
    }
    fn port_write(&mut self, now: VirtualTime, cpu: usize, port: u16, size: u8, value: u32) {
        if port == Trigger::MARKER_PORT && self.1.marks.get() {
            self.1.marker.set(Some(value));
        }
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
        let event = self.0.borrow().next_event()?;
        Some(event.min(VirtualTime(self.1.at.get())))
    }
    fn advance(&mut self, now: VirtualTime) {
        self.0.borrow_mut().advance(now);
        if now.0 >= self.1.at.get() {
            self.1.reached.set(true);
        }
    }
    fn dma_pending(&self, now: VirtualTime) -> bool {
        self.0.borrow().dma_pending(now)
    }
    fn run_dma(&mut self, now: VirtualTime, memory: &mut dyn BusMemory) {
        self.0.borrow_mut().run_dma(now, memory);
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
        self.1.reached.get() || self.1.marker.get().is_some() || self.0.borrow().signal_pending()
    }
}
