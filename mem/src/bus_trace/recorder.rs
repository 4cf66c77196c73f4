//! How the transfers of a machine get into a trace.

use super::{Cause, Counts, Direction, Event, Header, Record, Stamp, Transfer, What, Writer};
use crate::CipherLine;
use crate::addr::{AddressLayout, BusAddr};
use crate::memory::Memory;
use std::io::{self, Write};

/// A trace that is being written. The controller has one or none, and tests for it where a line is transferred.
pub(crate) struct Recorder {
    writer: Writer<Box<dyn Write>>,
    now: Stamp,
    /// For whom transfers past the cache are.
    pub(crate) agent: Cause,
    keyid_bits: u8,
    /// Nothing more is written after an error.
    error: Option<io::Error>,
}

impl Recorder {
    /// Records the transfer of a line at a full physical address.
    #[cold]
    pub(crate) fn transfer(
        &mut self,
        layout: AddressLayout,
        address: BusAddr,
        direction: Direction,
        cached: bool,
        encrypted: bool,
        cells: CipherLine,
    ) {
        if layout.keyid_bits != self.keyid_bits {
            self.keyid_bits = layout.keyid_bits;
            self.push(What::Event(Event::KeyidBits(layout.keyid_bits)));
        }
        self.push(What::Transfer(Transfer {
            line: layout.mem(address).line(),
            keyid: layout.keyid(address),
            direction,
            cause: if cached { Cause::Cache } else { self.agent },
            encrypted,
            ciphertext: Some(cells),
        }));
    }

    pub(crate) fn power_loss(&mut self) {
        self.push(What::Event(Event::PowerLoss));
    }

    fn push(&mut self, what: What) {
        if self.error.is_none() {
            self.error = self.writer.push(&Record { stamp: self.now, what }).err();
        }
    }
}

impl Memory {
    /// Records every transfer between the controller and DRAM from now on. [`CacheModel::Off`](crate::CacheModel::Off) has no
    /// transfers that mean anything: a trace of it has those of the model's inside.
    ///
    /// # Errors
    /// The header cannot be written.
    pub fn trace_bus(&mut self, out: Box<dyn Write>, header: Header) -> io::Result<()> {
        let writer = Writer::new(out, header)?;
        let recorder = Recorder { writer, now: Stamp::default(), agent: Cause::Processor, keyid_bits: 0, error: None };
        self.controller.bus = Some(Box::new(recorder));
        self.note_observed();
        Ok(())
    }

    /// Says when the transfers that follow take place.
    #[cold]
    pub fn set_bus_time(&mut self, now: Stamp) {
        if let Some(recorder) = &mut self.controller.bus {
            recorder.now = now;
        }
        if let Some(injector) = &mut self.controller.injector {
            injector.now = now.icount;
        }
    }

    /// Why the trace cannot be written any more, if so.
    pub fn bus_trace_error(&self) -> Option<&io::Error> {
        self.controller.bus.as_ref()?.error.as_ref()
    }

    /// Completes the trace. `None`: there was none.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn end_bus_trace(&mut self) -> Option<io::Result<Counts>> {
        let recorder = self.controller.bus.take()?;
        self.note_observed();
        Some(match recorder.error {
            Some(e) => Err(e),
            None => recorder.writer.finish(),
        })
    }

    /// Accesses that `access` makes past the cache are on behalf of `agent`.
    pub(crate) fn on_behalf_of<T>(&mut self, agent: Cause, access: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.controller.bus.as_mut().map(|bus| std::mem::replace(&mut bus.agent, agent));
        let result = access(self);
        if let (Some(bus), Some(before)) = (&mut self.controller.bus, before) {
            bus.agent = before;
        }
        result
    }

    /// The host looks at memory as a device would ([`dma_read`](Self::dma_read)): not a transfer of the machine.
    pub fn probe(&mut self, address: BusAddr, buf: &mut [u8]) {
        let bus = self.controller.bus.take();
        self.quietly(|mem| mem.dma_read(address, buf));
        self.controller.bus = bus;
    }
}
