//! A PCI function that moves memory, for tests of DMA with KeyIDs (docs/dma-device.md; MK-130, MK-131).
//!
//! Software writes bus addresses, a length and a command; after LATENCY nanoseconds of virtual time all data move at one
//! moment, between two instructions. Bus addresses are used as given, KeyID bits and all.

mod config;

use crate::apic::Message;
use config::ConfigSpace;
use x86::platform::{BusMemory, MasterAbort};

/// Registers in BAR 0, in offset order. All are 32 bits wide or pairs of that, low half first.
pub mod spec {
    /// Registers in the first half, the buffer in the second.
    pub const BAR_BYTES: u64 = 0x2000;
    pub const BUFFER: u64 = 0x1000;
    pub const BUFFER_BYTES: usize = 0x1000;

    /// Read-only: "MDMA".
    pub const ID: u64 = 0x00;
    pub const ID_VALUE: u32 = u32::from_le_bytes(*b"MDMA");
    /// Read-only.
    pub const VERSION: u64 = 0x04;
    pub const VERSION_VALUE: u32 = 1;
    /// Write-only: starts or aborts.
    pub const COMMAND: u64 = 0x08;
    /// Memory at SOURCE to the buffer at DESTINATION.
    pub const COMMAND_READ: u32 = 1;
    /// The buffer at SOURCE to memory at DESTINATION.
    pub const COMMAND_WRITE: u32 = 2;
    /// Memory at SOURCE to memory at DESTINATION.
    pub const COMMAND_COPY: u32 = 3;
    /// PATTERN to memory at DESTINATION.
    pub const COMMAND_FILL: u32 = 4;
    pub const COMMAND_ABORT: u32 = 0x80;
    pub const STATUS: u64 = 0x0C;
    pub const STATUS_BUSY: u32 = 1 << 0;
    /// Write one to clear.
    pub const STATUS_DONE: u32 = 1 << 1;
    /// Write one to clear; clears the reason too.
    pub const STATUS_ERROR: u32 = 1 << 2;
    pub const STATUS_REASON_SHIFT: u32 = 8;
    pub const SOURCE: u64 = 0x10;
    pub const SOURCE_HIGH: u64 = 0x14;
    pub const DESTINATION: u64 = 0x18;
    pub const DESTINATION_HIGH: u64 = 0x1C;
    pub const LENGTH: u64 = 0x20;
    /// Read-only: bytes moved by the last command.
    pub const COUNT: u64 = 0x24;
    pub const PATTERN: u64 = 0x28;
    /// Nanoseconds from a command to its effect.
    pub const LATENCY: u64 = 0x2C;
    pub const LATENCY_DEFAULT: u32 = 1_000;
    /// The positions of DONE and ERROR in STATUS.
    pub const INTERRUPT_ENABLE: u64 = 0x30;
    /// Read-only: where the last master abort was.
    pub const FAULT_ADDRESS: u64 = 0x38;
    pub const FAULT_ADDRESS_HIGH: u64 = 0x3C;

    /// One command moves this much at most, so that none keeps the host for long.
    pub const LENGTH_MAX: u32 = 1 << 20;
}
use spec::*;

/// Transfers go in bursts that cross no such boundary.
const BURST: u64 = 64;

/// STATUS\[15:8\] when ERROR is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Reason {
    /// No RAM at FAULT_ADDRESS, or the KeyID is private to TDX. COUNT bytes were moved before.
    MasterAbort = 1,
    /// LENGTH is 0 or above the maximum, or the buffer's end lies before that of the transfer.
    Length = 2,
    /// No such command.
    Command = 3,
    /// ABORT came first; nothing was moved.
    Aborted = 4,
    /// Bus mastering is off in the PCI command register.
    NotMaster = 5,
}

/// One end of a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
enum End {
    Bus(u64),
    /// Offset in the buffer; all of the transfer is inside.
    Buffer(usize),
    /// Source only.
    Pattern(u32),
}

impl End {
    /// How far a burst may go after `done` bytes.
    fn room(self, done: u64) -> u64 {
        match self {
            End::Bus(address) => BURST - address.wrapping_add(done) % BURST,
            End::Buffer(_) | End::Pattern(_) => BURST,
        }
    }
}

/// A command under way, with the registers as they were when it was written.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
struct Transfer {
    from: End,
    to: End,
    length: u32,
    /// Nanoseconds.
    due: u64,
}

/// The function: configuration space, registers, buffer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct DmaDevice {
    config: ConfigSpace,
    source: u64,
    destination: u64,
    length: u32,
    pattern: u32,
    latency: u32,
    interrupt_enable: u32,
    /// Without BUSY, which is `transfer.is_some()`.
    status: u32,
    count: u32,
    fault_address: u64,
    transfer: Option<Transfer>,
    buffer: Vec<u8>,
    /// An interrupt that has yet to go out as a message.
    message: bool,
}

impl Default for DmaDevice {
    fn default() -> Self {
        Self::new()
    }
}

impl DmaDevice {
    /// True if the buffer is there and a transfer stays inside it.
    pub(crate) fn is_valid(&self) -> bool {
        let inside = |end: End, length: u32| match end {
            End::Buffer(offset) => offset.checked_add(length as usize).is_some_and(|end| end <= BUFFER_BYTES),
            End::Bus(_) | End::Pattern(_) => true,
        };
        let whole = |t: &Transfer| {
            inside(t.from, t.length) && inside(t.to, t.length) && self.count <= t.length && t.length <= LENGTH_MAX
        };
        self.buffer.len() == BUFFER_BYTES && self.transfer.as_ref().is_none_or(whole)
    }

    /// As reset leaves it: not decoded, no bus master, everything zero but LATENCY.
    pub fn new() -> Self {
        DmaDevice {
            config: ConfigSpace::default(),
            source: 0,
            destination: 0,
            length: 0,
            pattern: 0,
            latency: LATENCY_DEFAULT,
            interrupt_enable: 0,
            status: 0,
            count: 0,
            fault_address: 0,
            transfer: None,
            buffer: vec![0; BUFFER_BYTES],
            message: false,
        }
    }

    /// Reads a doubleword of configuration space.
    pub fn read_config(&self, register: u8) -> u32 {
        self.config.read(register, self.interrupting())
    }

    /// Writes the bytes of a doubleword of configuration space that `enables` masks.
    pub fn write_config(&mut self, register: u8, value: u32, enables: u32) {
        self.config.write(register, value, enables);
    }

    /// The offset in BAR 0, if it is decoded at `address`.
    pub fn decode(&self, address: u64) -> Option<u64> {
        let offset = address.wrapping_sub(self.config.window()?);
        (offset < BAR_BYTES).then_some(offset)
    }

    /// Loads `size` bytes (1, 2, 4, 8, naturally aligned) at an offset in BAR 0.
    pub fn read(&self, offset: u64, size: u8) -> u64 {
        if offset >= BUFFER {
            let at = (offset - BUFFER) as usize;
            let bytes = self.buffer.iter().skip(at).take(size.into());
            return bytes.rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
        }
        let low = u64::from(self.register(offset & !3)) >> (8 * (offset & 3));
        match size {
            8 => low | u64::from(self.register((offset & !3) + 4)) << 32,
            _ => low & ((1 << (8 * u32::from(size.min(4)))) - 1),
        }
    }

    /// Stores. Registers take 4 or 8 bytes and ignore narrower stores; the buffer takes any.
    pub fn write(&mut self, now: u64, offset: u64, size: u8, value: u64) {
        if offset >= BUFFER {
            let at = (offset - BUFFER) as usize;
            let bytes = value.to_le_bytes();
            self.buffer.iter_mut().skip(at).zip(&bytes[..usize::from(size.min(8))]).for_each(|(to, from)| *to = *from);
        } else if size >= 4 && offset & 3 == 0 {
            let before = self.interrupting();
            self.set_register(now, offset, value as u32);
            if size == 8 {
                self.set_register(now, offset + 4, (value >> 32) as u32);
            }
            self.message |= self.interrupting() && !before;
        }
    }

    /// Nanosecond at which the command under way takes effect.
    pub fn due(&self) -> Option<u64> {
        self.transfer.as_ref().map(|t| t.due)
    }

    /// Does what is due at `now`.
    pub fn run(&mut self, now: u64, memory: &mut dyn BusMemory) {
        let Some(transfer) = self.transfer.take_if(|t| t.due <= now) else { return };
        if !self.config.bus_master() {
            return self.end(Err(Reason::NotMaster));
        }
        let outcome = self.transfer(&transfer, memory);
        self.end(outcome);
    }

    /// True while INTA# is asserted.
    pub fn intx(&self) -> bool {
        self.config.intx_enabled() && self.interrupting()
    }

    /// The message of an interrupt since the last call.
    pub fn take_message(&mut self) -> Option<Message> {
        std::mem::take(&mut self.message).then(|| self.config.message()).flatten()
    }

    fn interrupting(&self) -> bool {
        self.status & self.interrupt_enable & (STATUS_DONE | STATUS_ERROR) != 0
    }

    fn register(&self, offset: u64) -> u32 {
        match offset {
            ID => ID_VALUE,
            VERSION => VERSION_VALUE,
            STATUS => self.status | if self.transfer.is_some() { STATUS_BUSY } else { 0 },
            SOURCE => self.source as u32,
            SOURCE_HIGH => (self.source >> 32) as u32,
            DESTINATION => self.destination as u32,
            DESTINATION_HIGH => (self.destination >> 32) as u32,
            LENGTH => self.length,
            COUNT => self.count,
            PATTERN => self.pattern,
            LATENCY => self.latency,
            INTERRUPT_ENABLE => self.interrupt_enable,
            FAULT_ADDRESS => self.fault_address as u32,
            FAULT_ADDRESS_HIGH => (self.fault_address >> 32) as u32,
            _ => 0,
        }
    }

    fn set_register(&mut self, now: u64, offset: u64, value: u32) {
        let low = |register: u64| register & !0xFFFF_FFFF | u64::from(value);
        let high = |register: u64| register & 0xFFFF_FFFF | u64::from(value) << 32;
        match offset {
            COMMAND => self.command(now, value),
            STATUS => {
                self.status &= !(value & (STATUS_DONE | STATUS_ERROR));
                if self.status & STATUS_ERROR == 0 {
                    self.status &= STATUS_DONE;
                }
            }
            SOURCE => self.source = low(self.source),
            SOURCE_HIGH => self.source = high(self.source),
            DESTINATION => self.destination = low(self.destination),
            DESTINATION_HIGH => self.destination = high(self.destination),
            LENGTH => self.length = value,
            PATTERN => self.pattern = value,
            LATENCY => self.latency = value,
            INTERRUPT_ENABLE => self.interrupt_enable = value & (STATUS_DONE | STATUS_ERROR),
            _ => {}
        }
    }

    fn command(&mut self, now: u64, command: u32) {
        if self.transfer.is_some() {
            if command == COMMAND_ABORT {
                self.transfer = None;
                self.end(Err(Reason::Aborted));
            }
            // One command at a time: others are lost.
            return;
        }
        if command == COMMAND_ABORT {
            return;
        }
        self.status = 0;
        self.count = 0;
        match self.prepare(command) {
            Ok((from, to)) => {
                let due = now.saturating_add(self.latency.into());
                self.transfer = Some(Transfer { from, to, length: self.length, due });
            }
            Err(reason) => self.end(Err(reason)),
        }
    }

    /// The two ends of a command's transfer.
    fn prepare(&self, command: u32) -> Result<(End, End), Reason> {
        let (from, to) = match command {
            COMMAND_READ => (End::Bus(self.source), self.buffer_end(self.destination)?),
            COMMAND_WRITE => (self.buffer_end(self.source)?, End::Bus(self.destination)),
            COMMAND_COPY => (End::Bus(self.source), End::Bus(self.destination)),
            COMMAND_FILL => (End::Pattern(self.pattern), End::Bus(self.destination)),
            _ => return Err(Reason::Command),
        };
        if (1..=LENGTH_MAX).contains(&self.length) { Ok((from, to)) } else { Err(Reason::Length) }
    }

    fn buffer_end(&self, offset: u64) -> Result<End, Reason> {
        match usize::try_from(offset) {
            Ok(at) if at <= BUFFER_BYTES && self.length as usize <= BUFFER_BYTES - at => Ok(End::Buffer(at)),
            _ => Err(Reason::Length),
        }
    }

    /// Moves the data in bursts of ascending addresses.
    fn transfer(&mut self, transfer: &Transfer, memory: &mut dyn BusMemory) -> Result<(), Reason> {
        let &Transfer { from, to, length, .. } = transfer;
        let length = u64::from(length);
        let mut burst = [0; BURST as usize];
        let mut done = 0;
        while done < length {
            let n = from.room(done).min(to.room(done)).min(length - done) as usize;
            let bytes = &mut burst[..n];
            match from {
                End::Bus(address) => {
                    let address = address.wrapping_add(done);
                    memory.read(address, bytes).map_err(|MasterAbort| self.abort_at(address))?;
                }
                End::Buffer(at) => bytes.copy_from_slice(&self.buffer[at + done as usize..][..n]),
                End::Pattern(pattern) => {
                    let pattern = pattern.to_le_bytes();
                    bytes.iter_mut().zip(done..).for_each(|(byte, i)| *byte = pattern[(i & 3) as usize]);
                }
            }
            match to {
                End::Bus(address) => {
                    let address = address.wrapping_add(done);
                    memory.write(address, bytes).map_err(|MasterAbort| self.abort_at(address))?;
                }
                End::Buffer(at) => self.buffer[at + done as usize..][..n].copy_from_slice(bytes),
                End::Pattern(_) => {}
            }
            done += n as u64;
            self.count = done as u32;
        }
        Ok(())
    }

    fn abort_at(&mut self, address: u64) -> Reason {
        self.fault_address = address;
        Reason::MasterAbort
    }

    fn end(&mut self, outcome: Result<(), Reason>) {
        let interrupted = self.interrupting();
        self.status = match outcome {
            Ok(()) => STATUS_DONE,
            Err(reason) => STATUS_ERROR | (reason as u32) << STATUS_REASON_SHIFT,
        };
        self.message |= self.interrupting() && !interrupted;
    }
}

#[cfg(test)]
mod tests;
