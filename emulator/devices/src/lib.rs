//! The machine's chips and the board that connects them (design D10).
//!
//! Each chip is a plain structure without a machine around it: reads and writes of its registers, output wires as
//! functions, virtual time (nanoseconds) as an argument. [`Chipset`] decodes addresses, routes interrupts and
//! implements [`x86::platform::Platform`].
//!
//! Reading order: [`layout`] (addresses, lines, clocks), the chips [`uart`], [`pic`], [`pit`], [`rtc`], [`acpi_pm`],
//! [`pci`], [`dma`], [`reset`], [`apic`], then [`chipset`] and the address decoder beside it.

pub mod access_log;
pub mod acpi_pm;
pub mod apic;
mod bus;
pub mod chipset;
mod clock;
pub mod dma;
pub mod layout;
pub mod pci;
pub mod pic;
pub mod pit;
pub mod reset;
pub mod rtc;
mod snapshot;
pub mod uart;

pub use access_log::{AccessKind, UnclaimedAccess};
pub use chipset::{Chipset, ChipsetConfig, DEFAULT_RTC_EPOCH};
