//! The line transfers of the golden run: what is read from DRAM and written to it, and when.
//!
//! They make some injections unnecessary. Between two transfers of a line nobody sees its cells, so that a change of them is the same
//! whenever it happens there: known to have no consequence if the next transfer is a write, and as if it happened right
//! before the next transfer if that is a read. (Def/use pruning, with cells for variables and line transfers for uses.)

use crate::error::{CampaignError, Result};
use machine::Machine;
use mem::LineAddr;
use mem::bus_trace::{Ciphertext, Direction, Reader, What};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::rc::Rc;

/// One transfer of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transfer {
    /// Instructions retired before the one that caused it.
    pub icount: u64,
    pub write: bool,
    pub keyid: u16,
}

/// All of them, by line.
#[derive(Debug, Default)]
pub struct Transfers {
    lines: BTreeMap<u64, Vec<Transfer>>,
    /// Power was lost in between: cells changed without a transfer.
    power_loss: bool,
}

/// A trace that is kept in memory.
#[derive(Clone, Default)]
struct Kept(Rc<RefCell<Vec<u8>>>);

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A recording under way.
pub struct Recording(Kept);

fn failed(e: impl std::fmt::Display) -> CampaignError {
    CampaignError::Host(format!("the transfers of the golden run: {e}"))
}

impl Recording {
    /// Ends it.
    ///
    /// # Errors
    /// Those of the trace.
    pub fn finish(self, machine: &mut Machine) -> Result<Transfers> {
        machine.cpu.mem.end_bus_trace().transpose().map_err(failed)?;
        let bytes = self.0.0.take();
        let mut transfers = Transfers::default();
        for record in Reader::new(&bytes[..]).map_err(failed)? {
            let record = record.map_err(failed)?;
            match record.what {
                What::Transfer(of) => transfers.lines.entry(of.line.start().0).or_default().push(Transfer {
                    icount: record.stamp.icount,
                    write: of.direction == Direction::Write,
                    keyid: of.keyid.0,
                }),
                What::Event(mem::bus_trace::Event::PowerLoss) => transfers.power_loss = true,
                What::Event(_) => {}
            }
        }
        Ok(transfers)
    }
}

impl Transfers {
    /// Records the transfers of a machine from now on.
    ///
    /// # Errors
    /// Those of the trace.
    pub fn record(machine: &mut Machine) -> Result<Recording> {
        let kept = Kept::default();
        machine.trace_bus(Box::new(kept.clone()), Ciphertext::Off).map_err(failed)?;
        Ok(Recording(kept))
    }

    /// The first transfer of a line that is caused after `icount` instructions have retired. `None`: what happens to its cells
    /// cannot be told; `Some(None)`: there is none.
    pub fn next(&self, line: LineAddr, icount: u64) -> Option<Option<Transfer>> {
        if self.power_loss {
            return None;
        }
        let Some(of) = self.lines.get(&line.start().0) else { return Some(None) };
        Some(of.get(of.partition_point(|transfer| transfer.icount < icount)).copied())
    }

    /// Lines that are read or written, by KeyID, ascending.
    pub fn lines(&self, write: bool) -> BTreeMap<u16, Vec<u64>> {
        let mut by_keyid: BTreeMap<u16, Vec<u64>> = BTreeMap::new();
        for (line, transfers) in &self.lines {
            let mut keyids: Vec<u16> = transfers.iter().filter(|of| of.write == write).map(|of| of.keyid).collect();
            keyids.sort_unstable();
            keyids.dedup();
            keyids.into_iter().for_each(|keyid| by_keyid.entry(keyid).or_default().push(*line));
        }
        by_keyid
    }
}
