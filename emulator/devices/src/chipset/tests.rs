use super::*;
use x86::platform::VirtualTime as T;

fn board() -> Chipset {
    let mut c = Chipset::new(ChipsetConfig::default());
    c.program_as_firmware(T(0));
    c
}

fn out(c: &mut Chipset, now: u64, port: u16, value: u8) {
    c.port_write(T(now), 0, port, 1, value.into());
}

fn lapic_write(c: &mut Chipset, now: u64, register: u16, value: u32) {
    c.mmio_write(T(now), 0, LAPIC_BASE + (u64::from(register) << 4), 4, value.into());
}

fn redirect(c: &mut Chipset, now: u64, pin: u8, entry: u64) {
    for half in [1u8, 0] {
        c.mmio_write(T(now), 0, IOAPIC_BASE, 4, u64::from(0x10 + 2 * pin + half));
        c.mmio_write(T(now), 0, IOAPIC_BASE + 0x10, 4, entry >> (32 * half) & 0xFFFF_FFFF);
    }
}

fn pit(c: &mut Chipset, now: u64, control: u8, count: u16) {
    out(c, now, PIT + 3, control);
    out(c, now, PIT, count as u8);
    out(c, now, PIT, (count >> 8) as u8);
}

#[test]
fn nothing_is_armed_on_an_idle_board() {
    let c = board();
    assert_eq!(c.next_event(), None, "the 18.2 Hz timer is masked everywhere");
    assert!(!c.interrupt_pending(0) && !c.signal_pending());
}

#[test]
fn pit_interrupts_through_the_8259_in_virtual_wire_mode() {
    let mut c = board();
    pit(&mut c, 0, 0x34, 11_932);
    out(&mut c, 0, PIC_MASTER + 1, 0xFE);
    for tick in 1..=100u64 {
        let event = c.next_event().unwrap();
        assert_eq!(event.0, crate::clock::time_of_tick(1 + tick * 11_932, PIT_HZ));
        c.advance(event);
        assert!(c.interrupt_pending(0));
        assert_eq!(c.acknowledge_interrupt(event, 0), Some(0x08));
        assert!(!c.interrupt_pending(0));
        out(&mut c, event.0, PIC_MASTER, 0x20);
    }
}

#[test]
fn without_virtual_wire_mode_the_8259_reaches_nobody_unless_the_apic_is_off() {
    let mut c = board();
    lapic_write(&mut c, 0, lapic::LVT_LINT0, 0x10000);
    out(&mut c, 0, PIC_MASTER + 1, 0xFE);
    let now = T(225_000_000);
    c.advance(now);
    assert!(!c.interrupt_pending(0));
    c.apic_msr_write(now, 0, IA32_APIC_BASE, LAPIC_BASE | 0x100, 0).unwrap();
    assert!(c.interrupt_pending(0));
    assert_eq!(c.mmio_read(now, 0, LAPIC_BASE + 0x30, 4), 0xFFFF_FFFF);
}

#[test]
fn pit_interrupts_through_ioapic_pin_2() {
    let mut c = board();
    lapic_write(&mut c, 0, lapic::SVR, 0x1FF);
    redirect(&mut c, 0, GSI_PIT, 0x30);
    pit(&mut c, 0, 0x34, 1000);
    let event = c.next_event().unwrap();
    c.advance(event);
    assert_eq!(c.acknowledge_interrupt(event, 0), Some(0x30));
    lapic_write(&mut c, event.0, lapic::EOI, 0);
    redirect(&mut c, event.0, GSI_PIT, 0x30 | 1 << 16);
    assert_eq!(c.next_event(), None);
}

/// Linux's `check_timer`, third attempt: LINT0 as a fixed interrupt, nobody acknowledges the 8259A.
#[test]
fn pit_ticks_through_lint0_as_a_fixed_interrupt() {
    let mut c = board();
    pit(&mut c, 0, 0x34, 1000);
    out(&mut c, 0, PIC_MASTER + 1, 0xFE);
    lapic_write(&mut c, 0, lapic::LVT_LINT0, 0x30);
    for _ in 0..5 {
        let event = c.next_event().unwrap();
        c.advance(event);
        assert_eq!(c.acknowledge_interrupt(event, 0), Some(0x30));
        lapic_write(&mut c, event.0, lapic::EOI, 0);
        assert!(!c.interrupt_pending(0));
    }
}

/// The last resort of Linux's `check_timer`: the 8259A pair as ExtINT on I/O APIC pin 0.
#[test]
fn extint_through_ioapic_pin_0_acknowledges_the_8259() {
    let mut c = board();
    lapic_write(&mut c, 0, lapic::LVT_LINT0, 0x10700);
    redirect(&mut c, 0, GSI_EXTINT, 0x700);
    pit(&mut c, 0, 0x34, 1000);
    out(&mut c, 0, PIC_MASTER + 1, 0xFE);
    for _ in 0..3 {
        let event = c.next_event().unwrap();
        c.advance(event);
        assert_eq!(c.acknowledge_interrupt(event, 0), Some(0x08));
        assert!(!c.interrupt_pending(0));
        out(&mut c, event.0, PIC_MASTER, 0x20);
    }
}

#[test]
fn rtc_interrupts_make_events_only_while_somebody_listens() {
    let mut c = board();
    for (index, value) in [(0x0B, 0x42), (0x0C, 0)] {
        out(&mut c, 0, RTC_INDEX, index);
        out(&mut c, 0, RTC_DATA, value);
    }
    assert_eq!(c.next_event(), None);
    redirect(&mut c, 0, IRQ_RTC, 0x38);
    let event = c.next_event().unwrap();
    assert_eq!(event.0, 1_000_000_000u64.div_ceil(1024));
    c.advance(event);
    assert_eq!(c.acknowledge_interrupt(event, 0), Some(0x38));
    assert_eq!(c.next_event(), None, "the line stays active until register C is read");
    out(&mut c, event.0, RTC_INDEX, 0x0C);
    assert_eq!(c.port_read(event, 0, RTC_DATA, 1) & 0xC0, 0xC0);
    assert!(c.next_event().is_some());
}

#[test]
fn a_level_interrupt_waits_for_the_local_apic_to_be_enabled() {
    let mut c = Chipset::new(ChipsetConfig::default());
    redirect(&mut c, 0, IRQ_SCI, 0x59 | 1 << 15);
    c.port_write(T(0), 0, PM1A_EVT_BLK + 2, 2, 0x0100);
    c.press_power_button(T(0));
    assert!(!c.interrupt_pending(0));
    lapic_write(&mut c, 0, lapic::SVR, 0x1FF);
    assert!(c.interrupt_pending(0));
}

#[test]
fn an_error_interrupt_from_a_register_read_is_seen_at_once() {
    let mut c = board();
    lapic_write(&mut c, 0, lapic::LVT_ERROR, 0xFE);
    c.mmio_read(T(0), 0, LAPIC_BASE, 4);
    assert!(c.interrupt_pending(0));
}

#[test]
fn sci_is_level_triggered_and_repeats_after_eoi_until_cleared() {
    let mut c = board();
    redirect(&mut c, 0, IRQ_SCI, 0x59 | 1 << 15);
    c.port_write(T(0), 0, PM1A_EVT_BLK + 2, 2, 0x0100);
    c.press_power_button(T(10));
    assert_eq!(c.acknowledge_interrupt(T(10), 0), Some(0x59));
    assert!(!c.interrupt_pending(0));
    lapic_write(&mut c, 20, lapic::EOI, 0);
    assert_eq!(c.acknowledge_interrupt(T(20), 0), Some(0x59), "still active");
    assert_eq!(c.port_read(T(20), 0, PM1A_EVT_BLK, 2), 0x0100);
    c.port_write(T(20), 0, PM1A_EVT_BLK, 2, 0x0100);
    lapic_write(&mut c, 20, lapic::EOI, 0);
    assert!(!c.interrupt_pending(0));
}

#[test]
fn serial_transmit_interrupt_arrives_as_an_edge_for_every_buffer() {
    let mut c = board();
    redirect(&mut c, 0, IRQ_COM1, 0x34);
    out(&mut c, 0, COM1 + 2, 1);
    out(&mut c, 0, COM1 + 4, 0x0B);
    out(&mut c, 0, COM1 + 1, 0x02);
    for round in 0..3 {
        assert_eq!(c.acknowledge_interrupt(T(round), 0), Some(0x34));
        assert_eq!(c.port_read(T(round), 0, COM1 + 2, 1), 0xC2);
        out(&mut c, round, COM1, b'a' + round as u8);
        lapic_write(&mut c, round, lapic::EOI, 0);
    }
    assert!(c.output_waiting());
    assert_eq!(c.take_serial_output(), b"abc");
}

#[test]
fn serial_input_interrupts_and_is_read() {
    let mut c = board();
    redirect(&mut c, 0, IRQ_COM1, 0x34);
    out(&mut c, 0, COM1 + 2, 0xC1);
    out(&mut c, 0, COM1 + 4, 0x0B);
    assert!(!c.serial_receive_interrupt_enabled());
    out(&mut c, 0, COM1 + 1, 0x01);
    assert!(c.input_wanted() && c.serial_receive_interrupt_enabled());
    c.push_serial_input(T(5), b"ls\n");
    assert_eq!(c.acknowledge_interrupt(T(5), 0), Some(0x34));
    assert_eq!(c.port_read(T(5), 0, COM1 + 2, 1), 0xCC);
    let got: Vec<u8> = (0..3).map(|_| c.port_read(T(5), 0, COM1, 1) as u8).collect();
    assert_eq!(got, b"ls\n");
    assert_eq!(c.port_read(T(5), 0, COM1 + 2, 1), 0xC1);
}

#[test]
fn tsc_deadline_fires_on_time_and_in_the_past_at_once() {
    let mut c = board();
    lapic_write(&mut c, 0, lapic::LVT_TIMER, 2 << 17 | 0xEC);
    c.apic_msr_write(T(100), 0, IA32_TSC_DEADLINE, 5000, 1000).unwrap();
    assert_eq!(c.next_event(), Some(T(4000)));
    c.advance(T(3999));
    assert!(!c.interrupt_pending(0));
    c.advance(T(4000));
    assert_eq!(c.acknowledge_interrupt(T(4000), 0), Some(0xEC));
    lapic_write(&mut c, 4000, lapic::EOI, 0);
    c.apic_msr_write(T(5000), 0, IA32_TSC_DEADLINE, 1, 0).unwrap();
    assert!(c.interrupt_pending(0));
    assert_eq!(c.next_event(), None);
}

#[test]
fn raising_the_task_priority_withdraws_the_interrupt() {
    let mut c = board();
    lapic_write(&mut c, 0, lapic::ICR_LOW, 0x4_0050);
    assert!(c.interrupt_pending(0));
    c.set_cr8(T(0), 0, 5);
    assert!(!c.interrupt_pending(0));
    assert_eq!(c.acknowledge_interrupt(T(0), 0), None);
    c.set_cr8(T(0), 0, 4);
    assert_eq!((c.cr8(0), c.acknowledge_interrupt(T(0), 0)), (4, Some(0x50)));
}

#[test]
fn interprocessor_interrupts_reach_their_processors() {
    let mut c = Chipset::new(ChipsetConfig { cpus: 3, ..ChipsetConfig::default() });
    c.program_as_firmware(T(0));
    lapic_write(&mut c, 0, lapic::ICR_HIGH, 2 << 24);
    lapic_write(&mut c, 0, lapic::ICR_LOW, 0x4500);
    assert!(c.wakeup_pending(2) && c.take_init(2) && !c.wakeup_pending(1));
    lapic_write(&mut c, 0, lapic::ICR_LOW, 0x8500);
    assert!(!c.wakeup_pending(2), "INIT level de-assert");
    lapic_write(&mut c, 0, lapic::ICR_LOW, 0x4699);
    assert_eq!(c.take_start_up(2), Some(0x99));
    lapic_write(&mut c, 0, lapic::ICR_LOW, 0xC_4400);
    assert!(!c.nmi_pending(0) && c.take_nmi(1) && c.take_nmi(2));
}

#[test]
fn nmi_button_reaches_the_processor_whose_lint1_is_programmed() {
    let mut c = board();
    c.pulse_nmi();
    assert!(c.take_nmi(0) && !c.take_nmi(0));
}

#[test]
fn s5_resets_and_debug_exit_are_signalled() {
    let mut c = board();
    c.port_write(T(0), 0, PM1A_CNT_BLK, 2, 1 << 13 | u32::from(SLP_TYP_S5) << 10);
    assert!(c.signal_pending());
    assert_eq!(c.take_signal(), Some(Signal::PowerOff));
    out(&mut c, 0, RESET_CONTROL, RESET_VALUE);
    assert_eq!(c.take_signal(), Some(Signal::Reset(ResetKind::Warm)));
    out(&mut c, 0, KBC_COMMAND, 0xFE);
    assert_eq!(c.take_signal(), Some(Signal::Reset(ResetKind::Init)));
    out(&mut c, 0, PORT_92, 1);
    assert_eq!(c.take_signal(), Some(Signal::Reset(ResetKind::Init)));
    c.port_write(T(0), 0, DEBUG_EXIT, 4, 0xDEAD_BEEF);
    assert_eq!(c.take_signal(), Some(Signal::DebugExit(0xDEAD_BEEF)));
    c.port_write(T(0), 0, DEBUG_EXIT, 1, 0xFFFF_FF11);
    assert_eq!(c.take_signal(), Some(Signal::DebugExit(0x11)));
    assert_eq!(c.take_signal(), None);
}

#[test]
fn legacy_parts_that_are_absent_read_all_ones() {
    let mut c = board();
    for port in [KBC_DATA, KBC_COMMAND, POST, 0x3F0, 0x1F7, 0x2F8, 0x3C0, 0x388] {
        assert_eq!(c.port_read(T(0), 0, port, 1), 0xFF, "{port:#x}");
    }
    assert_eq!(c.port_read(T(0), 0, 0x1F0, 4), u32::MAX);
    assert_eq!(c.port_read(T(0), 0, 0xFFFF, 4), u32::MAX);
    assert_eq!(c.port_read(T(0), 0, PORT_92, 1), 0x02);
}

#[test]
fn pci_and_reset_control_share_their_ports_by_access_size() {
    let mut c = board();
    out(&mut c, 0, 0xCFB, 1);
    c.port_write(T(0), 0, PCI_CONFIG_ADDRESS, 4, 0x8000_0000);
    assert_eq!(c.port_read(T(0), 0, PCI_CONFIG_ADDRESS, 4), 0x8000_0000);
    assert_eq!(c.port_read(T(0), 0, PCI_CONFIG_DATA, 4), 0x2020_8086);
    assert_eq!(c.port_read(T(0), 0, PCI_CONFIG_DATA + 2, 2), 0x2020);
    assert_eq!(c.port_read(T(0), 0, RESET_CONTROL, 1), 0);
    assert!(!c.signal_pending());
}

#[test]
fn wide_access_to_byte_registers_is_split() {
    let mut c = board();
    c.port_write(T(0), 0, DEBUG_CONSOLE, 1, b'd'.into());
    c.port_write(T(0), 0, COM1 + 7, 2, 0x1234);
    assert_eq!(c.port_read(T(0), 0, COM1 + 7, 1), 0x34);
    assert_eq!(c.port_read(T(0), 0, DEBUG_CONSOLE, 1), 0xE9);
    assert_eq!(c.take_debug_console_output(), b"d");
    assert_eq!(c.port_read(T(1_000_000_000), 0, PM_TMR_BLK, 4), 3_579_545);
}

#[test]
fn unclaimed_accesses_are_recorded_once_each_and_bounded() {
    let mut c = board();
    for _ in 0..3 {
        c.port_read(T(0), 0, 0x300, 1);
        c.mmio_write(T(0), 0, 0xE000_0000, 8, 7);
    }
    let log = c.take_unclaimed_accesses();
    assert_eq!(log.len(), 2);
    assert_eq!(log[1], UnclaimedAccess { kind: crate::AccessKind::MmioWrite, address: 0xE000_0000, size: 8, value: 7 });
    for address in 0..10_000 {
        assert_eq!(c.mmio_read(T(0), 0, 0xD000_0000 + address, 1), 0xFF);
    }
    assert!(c.take_unclaimed_accesses().len() < 256);
}

#[test]
fn state_hash_does_not_depend_on_when_lazy_chips_were_looked_at() {
    let hash = |c: &Chipset, now| {
        let mut hasher = std::hash::DefaultHasher::new();
        c.state_hash(T(now), &mut hasher);
        hasher.finish()
    };
    let mut a = board();
    let mut b = board();
    a.port_read(T(5_000_000_000), 0, PIT, 1);
    a.port_read(T(5_000_000_000), 0, PIT, 1);
    a.port_read(T(6_000_000_000), 0, RTC_INDEX, 1);
    b.port_read(T(5_500_000_000), 0, PIT, 1);
    b.port_read(T(5_500_000_000), 0, PIT, 1);
    assert_eq!(hash(&a, 7_000_000_000), hash(&b, 7_000_000_000));
    b.port_write(T(7_000_000_000), 0, COM1 + 7, 1, 1);
    assert_ne!(hash(&a, 7_000_000_000), hash(&b, 7_000_000_000));
}

#[test]
fn platform_reset_restores_power_up_state_but_the_clock_goes_on() {
    let mut c = board();
    redirect(&mut c, 0, IRQ_COM1, 0x34);
    lapic_write(&mut c, 0, lapic::LVT_TIMER, 0x2_0040);
    lapic_write(&mut c, 0, lapic::INITIAL_COUNT, 1000);
    out(&mut c, 0, PIC_MASTER + 1, 0);
    assert!(c.next_event().is_some());
    c.reset(T(9_500_000_000), ResetKind::Warm);
    assert_eq!(c.next_event(), None);
    assert!(!c.interrupt_pending(0));
    out(&mut c, 9_500_000_000, RTC_INDEX, 0);
    assert_eq!(c.port_read(T(9_500_000_000), 0, RTC_DATA, 1), 9);
    assert_eq!(c.apic_msr_read(T(9_500_000_000), 0, IA32_APIC_BASE), Some(0xFEE0_0900));
}

#[test]
fn random_register_traffic_never_panics() {
    let mut c = Chipset::new(ChipsetConfig { cpus: 2, ..ChipsetConfig::default() });
    let mut state = 0x1234_5678_9ABC_DEF1u64;
    let mut next = || {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let ports: Vec<u16> =
        [0x20, 0x21, 0xA0, 0xA1, 0x40, 0x41, 0x42, 0x43, 0x61, 0x70, 0x71, 0x4D0, 0x4D1, 0xCF8, 0xCFC]
            .into_iter()
            .chain(0x3F8..0x400)
            .chain(0x600..0x60C)
            .collect();
    let mut now = 0u64;
    for round in 0..300_000u64 {
        let r = next();
        now = now.saturating_add(next() >> (next() % 40 + 24));
        if round % 50_000 == 49_999 {
            now = now.max(u64::MAX / 7 * (round / 50_000 + 1));
        }
        let (t, cpu, value) = (T(now), (r >> 8 & 1) as usize, next() >> (next() % 64));
        let size = 1 << (r >> 9 & 3);
        match r % 8 {
            0..3 => c.port_write(t, cpu, ports[(r >> 16) as usize % ports.len()], size.min(4), value as u32),
            3 => drop(c.port_read(t, cpu, ports[(r >> 16) as usize % ports.len()], size.min(4))),
            4 => c.mmio_write(t, cpu, LAPIC_BASE + (r >> 16 & 0x3F0), 4, value),
            5 => {
                c.mmio_write(t, cpu, IOAPIC_BASE, 4, r >> 16 & 0x3F);
                c.mmio_write(t, cpu, IOAPIC_BASE + 0x10, 4, value);
                c.mmio_read(t, cpu, IOAPIC_BASE + 0x10, size);
            }
            6 => {
                let msr =
                    if r & 0x1000 == 0 { 0x800 + (r >> 16 & 0xFF) as u32 } else { [0x1B, 0x6E0][r as usize >> 20 & 1] };
                let value = if msr == 0x1B { LAPIC_BASE | value & 0xD00 } else { value };
                c.apic_msr_write(t, cpu, msr, value, next());
                c.apic_msr_read(t, cpu, msr);
            }
            _ => {
                c.advance(t);
                if c.interrupt_pending(cpu) {
                    c.acknowledge_interrupt(t, cpu);
                }
                c.set_cr8(t, cpu, value as u8 & 0xF);
                c.take_signal();
            }
        }
        if let Some(event) = c.next_event() {
            // What is due was run.
            assert!(event.0 > now, "{event:?} {now}");
        }
    }
}

#[test]
fn an_rtc_alarm_raises_the_sci_through_pm1_with_irq_8_masked() {
    let mut c = board();
    // 24-hour BCD, alarm every second, alarm interrupt on.
    for (register, value) in [(1, 0xFF), (3, 0xFF), (5, 0xFF), (0x0B, 0x22)] {
        out(&mut c, 0, RTC_INDEX, register);
        out(&mut c, 0, RTC_DATA, value);
    }
    assert_eq!(c.next_event(), None);
    c.port_write(T(0), 0, PM1A_EVT_BLK + 2, 2, 1 << 10);
    assert_eq!(c.port_read(T(0), 0, PM1A_EVT_BLK + 2, 2), 1 << 10);
    let event = c.next_event().unwrap();
    assert_eq!(event.0, 1_984_000, "the end of the update cycle at second 0");
    c.advance(event);
    assert_eq!(c.isa_lines & 1 << IRQ_SCI, 1 << IRQ_SCI);
    assert_eq!(c.port_read(event, 0, PM1A_EVT_BLK, 2), 1 << 10);
    c.port_write(event, 0, PM1A_EVT_BLK, 2, 1 << 10);
    assert_eq!(c.isa_lines & 1 << IRQ_SCI, 0);
    assert_eq!(c.next_event(), None, "the alarm flag in register C was not read");
    out(&mut c, event.0, RTC_INDEX, 0x0C);
    assert_eq!(c.port_read(event, 0, RTC_DATA, 1), 0xF0, "IRQF, PF, AF, UF");
    assert_eq!(c.next_event().map(|t| t.0), Some(1_001_984_000));
}

/// RAM that is all zeros.
struct Zeros;

impl BusMemory for Zeros {
    fn read(&mut self, _: u64, buf: &mut [u8]) -> Result<(), x86::platform::MasterAbort> {
        buf.fill(0);
        Ok(())
    }
    fn write(&mut self, _: u64, _: &[u8]) -> Result<(), x86::platform::MasterAbort> {
        Ok(())
    }
}

fn config_write(c: &mut Chipset, register: u32, value: u32) {
    c.port_write(T(0), 0, PCI_CONFIG_ADDRESS, 4, 0x8000_0800 | register);
    c.port_write(T(0), 0, PCI_CONFIG_DATA, 4, value);
}

fn config_read(c: &mut Chipset, register: u32) -> u32 {
    c.port_write(T(0), 0, PCI_CONFIG_ADDRESS, 4, 0x8000_0800 | register);
    c.port_read(T(0), 0, PCI_CONFIG_DATA, 4)
}

#[test]
fn the_dma_device_is_on_the_bus_only_if_asked_for() {
    let mut c = board();
    config_write(&mut c, 0x10, 0xE000_0000);
    assert_eq!(config_read(&mut c, 0), u32::MAX);
    assert!(!c.dma_pending(T(u64::MAX)));
    let mut c = Chipset::new(ChipsetConfig { dma_device: true, ..ChipsetConfig::default() });
    assert_eq!(config_read(&mut c, 0), 0x10F0_1AF4);
    c.port_write(T(0), 0, PCI_CONFIG_ADDRESS, 4, 0x8000_0808);
    assert_eq!(c.port_read(T(0), 0, PCI_CONFIG_DATA + 3, 1), 0xFF, "class code");
}

#[test]
fn a_completed_transfer_interrupts_through_ioapic_pin_16() {
    const BAR: u64 = 0xE000_0000;
    let mut c = Chipset::new(ChipsetConfig { dma_device: true, ..ChipsetConfig::default() });
    lapic_write(&mut c, 0, lapic::SVR, 0x1FF);
    // Level, active low, vector 51H.
    redirect(&mut c, 0, 16, 0xA051);
    config_write(&mut c, 0x10, BAR as u32);
    config_write(&mut c, 0x04, 0b110);
    for (offset, value) in [(0x20, 64), (0x2C, 700), (0x30, 2), (0x08, 1)] {
        c.mmio_write(T(50), 0, BAR + offset, 4, value);
    }
    assert_eq!(c.next_event(), Some(T(750)));
    assert!(!c.dma_pending(T(749)));
    c.advance(T(750));
    assert!(c.dma_pending(T(750)) && !c.interrupt_pending(0));
    c.run_dma(T(750), &mut Zeros);
    assert_eq!(c.next_event(), None);
    assert!(!c.dma_pending(T(750)) && c.interrupt_pending(0));
    assert_eq!(c.acknowledge_interrupt(T(760), 0), Some(0x51));
    c.mmio_write(T(770), 0, BAR + 0x0C, 4, 2);
    lapic_write(&mut c, 780, lapic::EOI, 0);
    assert!(!c.interrupt_pending(0), "the level is gone");
    // The window moves with the BAR, and a reset closes it.
    config_write(&mut c, 0x10, 0xD000_0000);
    assert_eq!(c.mmio_read(T(790), 0, 0xD000_0000, 4), u64::from(u32::from_le_bytes(*b"MDMA")));
    c.reset(T(800), ResetKind::Warm);
    assert_eq!(c.mmio_read(T(800), 0, 0xD000_0000, 4), 0xFFFF_FFFF);
}
