//! Advanced programmable interrupt controllers: the messages between them, the local APIC and the I/O APIC.
//!
//! Reading order: this file (messages), [`io`], [`local`] with its [`registers`] and [`timer`].

pub mod io;
pub mod local;
pub mod registers;
pub mod timer;

/// Delivery mode of a redirection entry, an LVT entry or an ICR write (SDM Vol. 3A 11.5.1, 11.6.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum DeliveryMode {
    Fixed,
    LowestPriority,
    Smi,
    Nmi,
    Init,
    StartUp,
    ExtInt,
}

impl DeliveryMode {
    /// From the three-bit field; `None` is the reserved encoding 011b.
    pub fn from_bits(bits: u32) -> Option<Self> {
        Some(match bits & 7 {
            0 => DeliveryMode::Fixed,
            1 => DeliveryMode::LowestPriority,
            2 => DeliveryMode::Smi,
            3 => return None,
            4 => DeliveryMode::Nmi,
            5 => DeliveryMode::Init,
            6 => DeliveryMode::StartUp,
            _ => DeliveryMode::ExtInt,
        })
    }
}

/// Whom a message is for (SDM Vol. 3A 11.6.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Destination {
    /// The local APIC with this ID.
    Physical(u32),
    /// Those whose logical ID this message destination address selects.
    Logical(u32),
    Everyone,
}

/// An interrupt message on its way to local APICs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Message {
    pub destination: Destination,
    pub mode: DeliveryMode,
    pub vector: u8,
    /// Level-triggered: the receiver's EOI is broadcast to the I/O APIC.
    pub level: bool,
}
