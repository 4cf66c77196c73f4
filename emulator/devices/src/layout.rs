//! Where everything on the board answers: ports, addresses, interrupt lines, clock rates.
//!
//! The firmware's ACPI tables (FADT, MADT) and the processor's CPUID leaves state the same numbers, so they are
//! written down once, here, in address order.

/// Master 8259A: command port, data port at +1.
pub const PIC_MASTER: u16 = 0x20;
/// 8254 counters 0 to 2 and the control word at +3.
pub const PIT: u16 = 0x40;
/// Keyboard controller data port. There is no controller: reads FFH (FADT IAPC_BOOT_ARCH says so).
pub const KBC_DATA: u16 = 0x60;
/// NMI status and control: counter 2's gate and output.
pub const PORT_B: u16 = 0x61;
/// Keyboard controller command port: reads FFH, honours only the pulse-reset command FEH.
pub const KBC_COMMAND: u16 = 0x64;
/// RTC index (bit 7 masks NMI).
pub const RTC_INDEX: u16 = 0x70;
/// RTC data.
pub const RTC_DATA: u16 = 0x71;
/// POST codes: writes are dropped.
pub const POST: u16 = 0x80;
/// Fast A20 (always on) and INIT.
pub const PORT_92: u16 = 0x92;
/// Slave 8259A: command port, data port at +1.
pub const PIC_SLAVE: u16 = 0xA0;
/// Debug console: writes are collected, reads give E9H.
pub const DEBUG_CONSOLE: u16 = 0xE9;
/// Debug exit: a write ends the run with the written value.
pub const DEBUG_EXIT: u16 = 0xF4;
/// First serial port, 8 registers.
pub const COM1: u16 = 0x3F8;
/// Edge/level control registers, master then slave.
pub const ELCR: u16 = 0x4D0;
/// ACPI PM1a event block: PM1_STS, PM1_EN.
pub const PM1A_EVT_BLK: u16 = 0x600;
pub const PM1A_EVT_LEN: u8 = 4;
/// ACPI PM1a control block: PM1_CNT.
pub const PM1A_CNT_BLK: u16 = 0x604;
pub const PM1A_CNT_LEN: u8 = 2;
/// ACPI PM timer, 32 bits wide (FADT TMR_VAL_EXT set).
pub const PM_TMR_BLK: u16 = 0x608;
pub const PM_TMR_LEN: u8 = 4;
/// PCI configuration mechanism #1, address.
pub const PCI_CONFIG_ADDRESS: u16 = 0xCF8;
/// Reset control register (FADT RESET_REG).
pub const RESET_CONTROL: u16 = 0xCF9;
/// What FADT RESET_VALUE says: hard reset without a power cycle.
pub const RESET_VALUE: u8 = 0x06;
/// PCI configuration mechanism #1, data.
pub const PCI_CONFIG_DATA: u16 = 0xCFC;

/// SLP_TYP of S5 in the DSDT's `\_S5` package.
pub const SLP_TYP_S5: u8 = 5;

/// I/O APIC registers, one page.
pub const IOAPIC_BASE: u64 = 0xFEC0_0000;
/// I/O APIC identifier after the firmware set it, as the MADT states it.
pub const IOAPIC_ID: u8 = 0;
/// Redirection entries, GSI 0 to 23.
pub const IOAPIC_PINS: usize = 24;
/// Local APIC registers after reset, one page.
pub const LAPIC_BASE: u64 = 0xFEE0_0000;

/// ISA interrupt of PIT counter 0.
pub const IRQ_PIT: u8 = 0;
/// GSI of ISA IRQ 0: MADT interrupt source override 0 -> 2, edge, active high.
pub const GSI_PIT: u8 = 2;
/// Master input of the slave 8259A; not a line of its own.
pub const IRQ_CASCADE: u8 = 2;
/// ISA interrupt of the first serial port.
pub const IRQ_COM1: u8 = 4;
/// ISA interrupt of the RTC.
pub const IRQ_RTC: u8 = 8;
/// ACPI SCI: MADT interrupt source override 9 -> 9, level, active high.
pub const IRQ_SCI: u8 = 9;
/// I/O APIC pin that carries the 8259A pair's INT (ExtINT), as on Intel's south bridges.
pub const GSI_EXTINT: u8 = 0;

/// INTA# of the DMA test device: the first of the I/O APIC's PCI pins, level, active low (DSDT `_PRT`).
pub const GSI_DMA_DEVICE: u8 = 16;
/// Device number of the DMA test device on bus 0.
pub const PCI_DMA_DEVICE: u8 = 1;

/// CMOS index of the century (FADT CENTURY).
pub const CMOS_CENTURY: u8 = 0x32;

/// TSC frequency (CPUID 15H: crystal times EBX/EAX). One tick is one nanosecond of virtual time.
pub const TSC_HZ: u64 = 1_000_000_000;
/// Core crystal clock, CPUID 15H ECX. It is also the local APIC timer's input clock, before the divider.
pub const CRYSTAL_HZ: u64 = 25_000_000;
/// Local APIC timer input clock.
pub const LAPIC_TIMER_HZ: u64 = CRYSTAL_HZ;
/// 8254 input clock.
pub const PIT_HZ: u64 = 1_193_182;
/// ACPI PM timer clock.
pub const PM_TIMER_HZ: u64 = 3_579_545;
