//! The board: all chips, the wires between them, and what the processor sees of it.
//!
//! Interrupt wires: every ISA line goes to the 8259A pair and to the I/O APIC (IRQ 0 to GSI 2, the others one to
//! one). The pair's INT output goes to every LINT0 and to I/O APIC pin 0. Chips that make timer interrupts are run
//! lazily: `next_event` names only those somebody listens to, everything else catches up when it is looked at.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};

use x86::msr::{IA32_APIC_BASE, IA32_TSC_DEADLINE, IA32_X2APIC_FIRST, IA32_X2APIC_LAST};
use x86::platform::{BusMemory, Platform, ResetKind, Signal, VirtualTime};

use crate::access_log::{AccessLog, UnclaimedAccess};
use crate::acpi_pm::AcpiPm;
use crate::apic::io::IoApic;
use crate::apic::local::{Effect, LocalApic, Recipients};
use crate::apic::registers as lapic;
use crate::apic::{DeliveryMode, Message};
use crate::dma::DmaDevice;
use crate::layout::*;
use crate::pci::PciHost;
use crate::pic::{PicPair, PicRegister};
use crate::pit::Pit;
use crate::reset::ResetPorts;
use crate::rtc::Rtc;
use crate::uart::Uart;

/// 2024-01-01T00:00:00Z.
pub const DEFAULT_RTC_EPOCH: u64 = 1_704_067_200;

/// Signals that may wait; the processor leaves its loop at the first one.
const SIGNAL_CAPACITY: usize = 16;

/// What of the board can be chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChipsetConfig {
    /// Logical processors, 1 to 255; their number is their APIC ID.
    pub cpus: usize,
    /// Guest memory in bytes, for CMOS.
    pub ram_bytes: u64,
    /// What of it lies below 4 GiB.
    pub ram_below_4g: u64,
    /// The RTC's time at virtual time zero, in seconds since 1970-01-01T00:00:00Z.
    pub rtc_epoch: u64,
    /// Physical address width, for IA32_APIC_BASE.
    pub phys_bits: u8,
    /// The DMA test device is on the bus. Off by default: an operating system then finds nothing to look for drivers for.
    pub dma_device: bool,
}

impl Default for ChipsetConfig {
    fn default() -> Self {
        ChipsetConfig {
            cpus: 1,
            ram_bytes: 512 << 20,
            ram_below_4g: 512 << 20,
            rtc_epoch: DEFAULT_RTC_EPOCH,
            phys_bits: 46,
            dma_device: false,
        }
    }
}

/// The board's chips. A clone is a snapshot.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Chipset {
    pub(crate) pic: PicPair,
    pub(crate) pit: Pit,
    pub(crate) uart: Uart,
    pub(crate) rtc: Rtc,
    pub(crate) pm: AcpiPm,
    pub(crate) pci: PciHost,
    pub(crate) dma: Option<DmaDevice>,
    pub(crate) reset_ports: ResetPorts,
    pub(crate) ioapic: IoApic,
    pub(crate) lapics: Vec<LocalApic>,
    /// Levels of the ISA lines as last driven.
    isa_lines: u16,
    /// Per processor; recomputed whenever an interrupt controller changes.
    pending: Vec<bool>,
    /// Nanoseconds; `u64::MAX` when nothing is armed.
    next_event: u64,
    signals: VecDeque<Signal>,
    pub(crate) serial_output: Vec<u8>,
    pub(crate) debug_console_output: Vec<u8>,
    pub(crate) unclaimed: AccessLog,
}

impl Chipset {
    /// The board after power-up. At least one processor is made, at most 255.
    pub fn new(config: ChipsetConfig) -> Self {
        let cpus = config.cpus.clamp(1, 255);
        Chipset {
            pic: PicPair::new(),
            pit: Pit::new(),
            uart: Uart::new(),
            rtc: Rtc::new(config.rtc_epoch, config.ram_bytes, config.ram_below_4g),
            pm: AcpiPm::new(),
            pci: PciHost::default(),
            dma: config.dma_device.then(DmaDevice::new),
            reset_ports: ResetPorts::default(),
            ioapic: IoApic::new(),
            lapics: (0..cpus as u32).map(|id| LocalApic::new(id, config.phys_bits)).collect(),
            isa_lines: 0,
            pending: vec![false; cpus],
            next_event: u64::MAX,
            signals: VecDeque::new(),
            serial_output: Vec::new(),
            debug_console_output: Vec::new(),
            unclaimed: AccessLog::default(),
        }
    }

    /// True if both boards have the same number of processors, and no more signals wait than may.
    pub(crate) fn same_size(&self, other: &Self) -> bool {
        let sizes = |board: &Self| (board.lapics.len(), board.pending.len());
        sizes(self) == sizes(other) && self.signals.len() <= SIGNAL_CAPACITY
    }

    /// Platform reset or INIT. The RTC, CMOS RAM, the PM timer and input that waits on the serial line go on. Signals that
    /// wait are dropped: the machine calls this because of one.
    pub fn reset(&mut self, now: VirtualTime, kind: ResetKind) {
        self.catch_up(now.0);
        self.signals.clear();
        match kind {
            ResetKind::Init => self.lapics.iter_mut().for_each(LocalApic::init),
            ResetKind::Cold | ResetKind::Warm => {
                self.pic = PicPair::new();
                self.pit = Pit::new();
                self.isa_lines = 0;
                self.uart.reset();
                self.rtc.reset();
                self.pm.reset();
                self.pci = PciHost::default();
                if let Some(dma) = &mut self.dma {
                    *dma = DmaDevice::new();
                }
                self.reset_ports = ResetPorts::default();
                self.ioapic.reset();
                self.lapics.iter_mut().for_each(LocalApic::reset);
            }
        }
        self.catch_up(now.0);
        self.drive(IRQ_COM1, self.uart.interrupt());
        self.update_dma_line();
    }

    /// Leaves the interrupt hardware as a BIOS does before it starts an operating system: 8259A pair at vectors 08H
    /// and 70H with everything masked, SCI level-triggered, 18.2 Hz timer, virtual wire mode through the
    /// bootstrap processor's LINT0, NMI on LINT1 (MultiProcessor Specification 1.4 section 3.6.2.2).
    pub fn program_as_firmware(&mut self, now: VirtualTime) {
        use PicRegister::*;
        for (register, value) in [
            (MasterCommand, 0x11),
            (MasterData, 0x08),
            (MasterData, 1 << IRQ_CASCADE),
            (MasterData, 0x01),
            (SlaveCommand, 0x11),
            (SlaveData, 0x70),
            (SlaveData, IRQ_CASCADE),
            (SlaveData, 0x01),
            (MasterData, 0xFF),
            (SlaveData, 0xFF),
            (SlaveElcr, 1 << (IRQ_SCI - 8)),
        ] {
            self.pic.write(register, value);
        }
        self.pit.sync(now.0);
        // Counter 0, low then high byte, mode 3; count 65,536.
        for (register, value) in [(3, 0x36), (0, 0), (0, 0)] {
            self.pit.write(now.0, register, value);
        }
        let bootstrap = &mut self.lapics[0];
        for (register, value) in [
            (lapic::SVR, lapic::SVR_ENABLE | 0x0F),
            (lapic::LVT_LINT0, 7 << lapic::LVT_DELIVERY_MODE_SHIFT),
            (lapic::LVT_LINT1, 4 << lapic::LVT_DELIVERY_MODE_SHIFT),
        ] {
            bootstrap.write_mmio(now.0, u64::from(register) << 4, 4, value.into());
        }
        self.catch_up(now.0);
        self.settle();
    }

    /// Characters the guest sent through COM1 since the last call.
    pub fn take_serial_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.serial_output)
    }

    /// Characters the guest wrote to port E9H since the last call.
    pub fn take_debug_console_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.debug_console_output)
    }

    /// True when one of the two has something.
    pub fn output_waiting(&self) -> bool {
        !self.serial_output.is_empty() || !self.debug_console_output.is_empty()
    }

    /// Types `bytes` on COM1's terminal.
    pub fn push_serial_input(&mut self, now: VirtualTime, bytes: &[u8]) {
        self.advance(now);
        self.uart.push_input(bytes);
        self.update_serial_line();
    }

    /// True when COM1 has taken all input so far and has room for more.
    pub fn input_wanted(&self) -> bool {
        self.uart.input_wanted()
    }

    /// True when the guest's driver waits for COM1 input by interrupt. Earlier input may be lost to the driver's
    /// probing, as on a real line.
    pub fn serial_receive_interrupt_enabled(&self) -> bool {
        self.uart.receive_interrupt_enabled()
    }

    /// Presses the power button.
    pub fn press_power_button(&mut self, now: VirtualTime) {
        self.catch_up(now.0);
        self.pm.press_power_button();
        self.drive(IRQ_SCI, self.pm.sci());
        self.settle();
    }

    /// Pulses LINT1 of every local APIC, as an NMI button does.
    pub fn pulse_nmi(&mut self) {
        for apic in &mut self.lapics {
            apic.set_lint(1, true);
            apic.set_lint(1, false);
        }
        self.settle();
    }

    /// True while an NMI waits; it ends HLT as `interrupt_pending` does.
    pub fn nmi_pending(&self, cpu: usize) -> bool {
        self.lapics[cpu].nmi_pending()
    }

    /// The TSC of `cpu` was written (IA32_TIME_STAMP_COUNTER, IA32_TSC_ADJUST).
    pub fn tsc_changed(&mut self, now: VirtualTime, cpu: usize, tsc_offset: u64) {
        self.advance(now);
        self.lapics[cpu].tsc_changed(now.0, tsc_offset);
        self.lapics[cpu].run_timer(now.0);
        self.settle();
    }

    /// Takes an INIT that another processor (or this one) sent to `cpu`.
    pub fn take_init(&mut self, cpu: usize) -> bool {
        self.lapics[cpu].take_init()
    }

    /// Takes a start-up interrupt sent to `cpu`: the processor starts at real-mode address vector * 1000H.
    pub fn take_start_up(&mut self, cpu: usize) -> Option<u8> {
        self.lapics[cpu].take_start_up()
    }

    /// True while an INIT or start-up interrupt for `cpu` waits.
    pub fn wakeup_pending(&self, cpu: usize) -> bool {
        self.lapics[cpu].wakeup_pending()
    }

    /// Page address of the local APIC's registers while they are memory-mapped.
    pub fn lapic_window(&self, cpu: usize) -> Option<u64> {
        self.lapics[cpu].window()
    }

    /// Accesses that nothing answered, each kind once, since the last call.
    pub fn take_unclaimed_accesses(&mut self) -> Vec<UnclaimedAccess> {
        self.unclaimed.take()
    }

    /// Hashes all state a guest can see, as of `now`. Output already sent, logs and cached values are no part of it.
    pub fn state_hash(&self, now: VirtualTime, hasher: &mut impl Hasher) {
        // Lazily run chips are brought to the same time first, whenever they were last looked at.
        let mut board = self.clone();
        board.catch_up(now.0);
        board.settle();
        let Chipset { pic, pit, uart, rtc, pm, pci, dma, reset_ports, ioapic, lapics, .. } = board;
        (pic, pit, uart, rtc, pm, pci, reset_ports, ioapic, lapics).hash(hasher);
        if let Some(dma) = dma {
            dma.hash(hasher);
        }
    }

    pub(crate) fn signal(&mut self, signal: Signal) {
        if self.signals.len() < SIGNAL_CAPACITY {
            self.signals.push_back(signal);
        }
    }

    /// Runs the lazy chips to `now` and drives their lines. The caller settles.
    pub(crate) fn catch_up(&mut self, now: u64) {
        let rose = self.pit.sync(now);
        let level = self.pit.irq(now);
        if rose {
            // Whatever happened in between, the last rising edge is what a latch remembers. INT falls with the line,
            // which is what makes the timer tick through a LINT0 that is programmed as a fixed interrupt.
            self.drive(IRQ_PIT, false);
            self.propagate_int();
            self.drive(IRQ_PIT, true);
        }
        self.drive(IRQ_PIT, level);
        self.rtc.sync(now);
        self.drive(IRQ_RTC, self.rtc.irq());
        self.pm.set_rtc_alarm(self.rtc.alarm());
        self.pm.sync(now);
        self.drive(IRQ_SCI, self.pm.sci());
        for apic in &mut self.lapics {
            apic.run_timer(now);
        }
    }

    /// Re-reads the lines of the lazy chips after a register access.
    pub(crate) fn update_lines(&mut self, now: u64) {
        self.drive(IRQ_PIT, self.pit.irq(now));
        self.drive(IRQ_RTC, self.rtc.irq());
        self.pm.set_rtc_alarm(self.rtc.alarm());
        self.drive(IRQ_SCI, self.pm.sci());
        self.settle();
    }

    /// As `update_lines`, for COM1, whose registers are the most used of all.
    pub(crate) fn update_serial_line(&mut self) {
        let level = self.uart.interrupt();
        if level != (self.isa_lines & 1 << IRQ_COM1 != 0) {
            self.drive(IRQ_COM1, level);
            self.settle();
        }
    }

    /// Sends what the DMA test device has to report, by wire (INTA#, low when asserted) or by message.
    pub(crate) fn update_dma_line(&mut self) {
        if let Some(dma) = &mut self.dma {
            self.ioapic.set_pin(GSI_DMA_DEVICE, !dma.intx());
            if let Some(message) = dma.take_message() {
                self.deliver(&message, Recipients::Addressed, 0);
            }
        }
        self.settle();
    }

    fn drive(&mut self, irq: u8, level: bool) {
        let bit = 1 << irq;
        self.isa_lines = if level { self.isa_lines | bit } else { self.isa_lines & !bit };
        self.pic.set_irq(irq, level);
        let pin = if irq == IRQ_PIT { GSI_PIT } else { irq };
        self.ioapic.set_pin(pin, level);
    }

    /// Lets every signal between the interrupt controllers arrive, then renews the cached answers.
    pub(crate) fn settle(&mut self) {
        let int = self.propagate_int();
        self.ioapic.retry();
        while let Some((pin, message)) = self.ioapic.next_message() {
            let accepted = self.deliver(&message, Recipients::Addressed, 0);
            self.ioapic.answer(pin, accepted);
        }
        for (pending, apic) in self.pending.iter_mut().zip(&self.lapics) {
            *pending = apic.takes_extint(int) || apic.deliverable().is_some();
        }
        self.next_event = self.earliest_event();
    }

    /// Drives the wires that the 8259A pair's INT is connected to.
    fn propagate_int(&mut self) -> bool {
        let int = self.pic.int();
        self.ioapic.set_pin(GSI_EXTINT, int);
        for apic in &mut self.lapics {
            apic.set_lint(0, int);
        }
        int
    }

    fn earliest_event(&self) -> u64 {
        let listened = |irq: u8, pin: u8| self.pic.unmasked(irq) || !self.ioapic.masked(pin);
        let pit = if listened(IRQ_PIT, GSI_PIT) { self.pit.next_event() } else { None };
        let rtc = if listened(IRQ_RTC, IRQ_RTC) { self.rtc.next_event() } else { None };
        let alarm = if self.pm.wants_rtc_alarm() { self.rtc.next_alarm() } else { None };
        let timers = self.lapics.iter().filter_map(LocalApic::next_event);
        let dma = self.dma.as_ref().and_then(DmaDevice::due);
        timers.chain(pit).chain(rtc).chain(alarm).chain(self.pm.next_event()).chain(dma).min().unwrap_or(u64::MAX)
    }

    /// Sends a message of processor `source` (or, addressed, of the I/O APIC). True if anybody accepted it.
    fn deliver(&mut self, message: &Message, recipients: Recipients, source: usize) -> bool {
        let selected = |(cpu, apic): (usize, &LocalApic)| match recipients {
            Recipients::Addressed => apic.matches(message.destination),
            Recipients::SelfOnly => cpu == source,
            Recipients::All => apic.enabled(),
            Recipients::Others => cpu != source && apic.enabled(),
        };
        if message.mode == DeliveryMode::LowestPriority {
            let candidates = (0..self.lapics.len()).filter(|cpu| selected((*cpu, &self.lapics[*cpu])));
            let lowest = candidates.min_by_key(|cpu| self.lapics[*cpu].ppr());
            return lowest.is_some_and(|cpu| self.lapics[cpu].accept(message));
        }
        let mut accepted = false;
        for cpu in 0..self.lapics.len() {
            if selected((cpu, &self.lapics[cpu])) {
                accepted |= self.lapics[cpu].accept(message);
            }
        }
        accepted
    }

    pub(crate) fn apply(&mut self, cpu: usize, effect: Effect) {
        match effect {
            Effect::None => {}
            Effect::BroadcastEoi(vector) => self.ioapic.end_of_interrupt(vector),
            Effect::Send(message, recipients) => {
                self.deliver(&message, recipients, cpu);
            }
        }
    }

    fn is_apic_msr(msr: u32) -> bool {
        matches!(msr, IA32_APIC_BASE | IA32_TSC_DEADLINE | IA32_X2APIC_FIRST..=IA32_X2APIC_LAST)
    }
}

impl Platform for Chipset {
    fn port_read(&mut self, now: VirtualTime, _cpu: usize, port: u16, size: u8) -> u32 {
        self.advance(now);
        self.read_port(now.0, port, size)
    }

    fn port_write(&mut self, now: VirtualTime, _cpu: usize, port: u16, size: u8, value: u32) {
        self.advance(now);
        self.write_port(now.0, port, size, value);
    }

    fn mmio_read(&mut self, now: VirtualTime, cpu: usize, address: u64, size: u8) -> u64 {
        self.advance(now);
        self.read_memory(now.0, cpu, address, size)
    }

    fn mmio_write(&mut self, now: VirtualTime, cpu: usize, address: u64, size: u8, value: u64) {
        self.advance(now);
        self.write_memory(now.0, cpu, address, size, value);
    }

    fn apic_msr_read(&mut self, now: VirtualTime, cpu: usize, msr: u32) -> Option<u64> {
        self.advance(now);
        if !Self::is_apic_msr(msr) {
            return None;
        }
        self.lapics[cpu].read_msr(now.0, msr)
    }

    fn apic_msr_write(&mut self, now: VirtualTime, cpu: usize, msr: u32, value: u64, tsc_offset: u64) -> Option<()> {
        self.advance(now);
        if !Self::is_apic_msr(msr) {
            return None;
        }
        let effect = self.lapics[cpu].write_msr(now.0, msr, value, tsc_offset)?;
        self.apply(cpu, effect);
        // A deadline in the past fires at once.
        self.lapics[cpu].run_timer(now.0);
        self.settle();
        Some(())
    }

    fn cr8(&self, cpu: usize) -> u8 {
        self.lapics[cpu].cr8()
    }

    fn set_cr8(&mut self, now: VirtualTime, cpu: usize, value: u8) {
        self.advance(now);
        self.lapics[cpu].set_cr8(value);
        self.settle();
    }

    fn next_event(&self) -> Option<VirtualTime> {
        (self.next_event != u64::MAX).then_some(VirtualTime(self.next_event))
    }

    fn advance(&mut self, now: VirtualTime) {
        if now.0 >= self.next_event {
            self.catch_up(now.0);
            self.settle();
        }
    }

    fn dma_pending(&self, now: VirtualTime) -> bool {
        self.dma.as_ref().and_then(DmaDevice::due).is_some_and(|due| due <= now.0)
    }

    fn run_dma(&mut self, now: VirtualTime, memory: &mut dyn BusMemory) {
        if let Some(dma) = &mut self.dma {
            dma.run(now.0, memory);
            self.update_dma_line();
        }
    }

    fn interrupt_pending(&self, cpu: usize) -> bool {
        self.pending[cpu]
    }

    fn acknowledge_interrupt(&mut self, now: VirtualTime, cpu: usize) -> Option<u8> {
        self.advance(now);
        let vector = if self.lapics[cpu].takes_extint(self.pic.int()) {
            // Masked requests of lazy chips would not be served anyway: no catching up here.
            self.lapics[cpu].acknowledge_extint();
            Some(self.pic.acknowledge())
        } else {
            self.lapics[cpu].acknowledge()
        };
        self.settle();
        vector
    }

    fn nmi_pending(&self, cpu: usize) -> bool {
        self.lapics[cpu].nmi_pending()
    }

    fn take_nmi(&mut self, cpu: usize) -> bool {
        self.lapics[cpu].take_nmi()
    }

    fn take_signal(&mut self) -> Option<Signal> {
        self.signals.pop_front()
    }

    fn signal_pending(&self) -> bool {
        !self.signals.is_empty()
    }
}

#[cfg(test)]
mod tests;
