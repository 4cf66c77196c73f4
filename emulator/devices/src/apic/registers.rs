//! Local APIC register numbers and bits (SDM Vol. 3A chapter 11), in address order.
//!
//! A register's number is its xAPIC offset divided by 16, which is also its x2APIC MSR minus 800H.

/// First MSR of the x2APIC range.
pub const X2APIC_MSR: u32 = 0x800;

pub const ID: u16 = 0x02;
pub const VERSION: u16 = 0x03;
pub const TPR: u16 = 0x08;
pub const APR: u16 = 0x09;
pub const PPR: u16 = 0x0A;
pub const EOI: u16 = 0x0B;
pub const RRD: u16 = 0x0C;
pub const LDR: u16 = 0x0D;
pub const DFR: u16 = 0x0E;
pub const SVR: u16 = 0x0F;
/// Eight registers each.
pub const ISR: u16 = 0x10;
pub const TMR: u16 = 0x18;
pub const IRR: u16 = 0x20;
pub const ESR: u16 = 0x28;
pub const ICR_LOW: u16 = 0x30;
pub const ICR_HIGH: u16 = 0x31;
pub const LVT_TIMER: u16 = 0x32;
pub const LVT_THERMAL: u16 = 0x33;
pub const LVT_PERFORMANCE: u16 = 0x34;
pub const LVT_LINT0: u16 = 0x35;
pub const LVT_LINT1: u16 = 0x36;
pub const LVT_ERROR: u16 = 0x37;
pub const INITIAL_COUNT: u16 = 0x38;
pub const CURRENT_COUNT: u16 = 0x39;
pub const DIVIDE_CONFIGURATION: u16 = 0x3E;
/// x2APIC mode only.
pub const SELF_IPI: u16 = 0x3F;

/// Version 14H, six LVT entries, no EOI-broadcast suppression (11.4.8).
pub const VERSION_VALUE: u32 = 0x0005_0014;

pub const SVR_ENABLE: u32 = 1 << 8;
/// Vector, APIC enable, focus checking.
pub const SVR_WRITABLE: u32 = 0x3FF;
pub const SVR_RESET: u32 = 0xFF;

/// DFR bits 31:28: flat model is 1111b, cluster 0000b; the rest reads as ones.
pub const DFR_MODEL_SHIFT: u32 = 28;
pub const DFR_FLAT: u32 = 0xF;
pub const DFR_ONES: u32 = 0x0FFF_FFFF;

pub const ESR_SEND_ILLEGAL_VECTOR: u32 = 1 << 5;
pub const ESR_RECEIVE_ILLEGAL_VECTOR: u32 = 1 << 6;
pub const ESR_ILLEGAL_REGISTER: u32 = 1 << 7;

pub const ICR_VECTOR: u64 = 0xFF;
pub const ICR_DELIVERY_MODE_SHIFT: u32 = 8;
pub const ICR_LOGICAL: u64 = 1 << 11;
pub const ICR_ASSERT: u64 = 1 << 14;
pub const ICR_LEVEL: u64 = 1 << 15;
pub const ICR_SHORTHAND_SHIFT: u32 = 18;
/// Vector, delivery mode, destination mode, level, trigger mode, shorthand.
pub const ICR_LOW_WRITABLE: u64 = 0x000C_CFFF;

pub const LVT_VECTOR: u32 = 0xFF;
pub const LVT_DELIVERY_MODE_SHIFT: u32 = 8;
pub const LVT_DELIVERY_STATUS: u32 = 1 << 12;
pub const LVT_ACTIVE_LOW: u32 = 1 << 13;
pub const LVT_REMOTE_IRR: u32 = 1 << 14;
pub const LVT_LEVEL: u32 = 1 << 15;
pub const LVT_MASK: u32 = 1 << 16;
pub const LVT_TIMER_MODE_SHIFT: u32 = 17;
pub const LVT_TIMER_WRITABLE: u32 = 0x0007_00FF;
/// Thermal and performance monitoring.
pub const LVT_EVENT_WRITABLE: u32 = 0x0001_07FF;
pub const LVT_LINT_WRITABLE: u32 = 0x0001_A7FF;
pub const LVT_ERROR_WRITABLE: u32 = 0x0001_00FF;
/// Read-only bits that a write may carry.
pub const LVT_READ_ONLY: u32 = LVT_DELIVERY_STATUS;
pub const LVT_LINT_READ_ONLY: u32 = LVT_DELIVERY_STATUS | LVT_REMOTE_IRR;

pub const DIVIDE_WRITABLE: u32 = 0b1011;

/// IA32_APIC_BASE (11.4.4, 11.12.1).
pub const APIC_BASE_BSP: u64 = 1 << 8;
pub const APIC_BASE_EXTD: u64 = 1 << 10;
pub const APIC_BASE_EN: u64 = 1 << 11;
pub const APIC_BASE_ADDRESS_SHIFT: u32 = 12;

/// Vectors 0 to 15 are illegal in a fixed interrupt (11.5.2).
pub const FIRST_LEGAL_VECTOR: u8 = 16;
