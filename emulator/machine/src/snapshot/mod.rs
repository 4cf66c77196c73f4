//! Snapshots: the complete state of a machine as a value (design D8).
//!
//! In memory a snapshot shares its pages with the machine and with other snapshots, so that taking one costs what was written
//! since the last one, and a restore what was written since then ([`mem::MemorySnapshot`]). [`container`] is the layout of
//! files, [`file`] what is in them.
//!
//! What the host derives is not in a snapshot: decoded code, the fast path. Nor are observers: the event log, the sanitizer,
//! a breakpoint and recorded input are the machine's own and start anew or go on. Nor are injected faults: a restore disarms
//! them, and a fault that lasts is to be armed again.

pub mod container;
pub mod file;

use crate::config::Config;
use crate::file::Difference;
use crate::{ConfigError, Machine};
use cpu::CpuSnapshot;
use cpu::clock::Clock;
use devices::Chipset;
use mem::MemorySnapshot;
use std::io;
use std::sync::Arc;
use thiserror::Error;
use x86::platform::VirtualTime;

pub use container::{Damage, FORMAT};
pub use mem::snapshot::{Differences, Restored};

/// The state of a machine between two runs. Clones share everything, among threads as well.
#[derive(Clone)]
pub struct Snapshot(Arc<State>);

struct State {
    config: Config,
    cpu: CpuSnapshot,
    board: Chipset,
    memory: MemorySnapshot,
    resets: u64,
}

/// Why a snapshot cannot be written, read or restored.
#[derive(Debug, Error)]
pub enum SnapshotError {
    /// The host cannot read or write the file.
    #[error(transparent)]
    Io(io::Error),
    /// The first bytes are others.
    #[error("not a snapshot")]
    NotASnapshot,
    /// Written by another version of the program.
    #[error("a snapshot of format {found}; this program reads format {FORMAT}")]
    Format { found: u32 },
    /// The file is not what was written.
    #[error("damaged at byte {at}: {what}")]
    Damaged {
        /// Of the part that is.
        at: u64,
        what: Damage,
    },
    /// The parts of the file are whole, and make no machine.
    #[error("not a state of this machine: {0}")]
    Invalid(String),
    /// The machine is another one.
    #[error("a snapshot of another machine: {0}")]
    Config(Difference),
    /// The machine of the snapshot cannot be built here.
    #[error(transparent)]
    Machine(#[from] ConfigError),
}

impl Snapshot {
    /// The machine that it is a state of.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// Instructions retired.
    pub fn icount(&self) -> u64 {
        self.0.cpu.icount()
    }

    /// RIP of the next instruction.
    pub fn rip(&self) -> u64 {
        self.0.cpu.rip()
    }

    /// Virtual time.
    pub fn time(&self) -> VirtualTime {
        let mut clock = Clock::new(self.0.config.ips);
        clock.skipped = self.0.cpu.skipped();
        clock.at(self.icount())
    }

    /// What memory holds here and not there; both are of one machine. Cheap where they share pages.
    pub fn memory_differences(&self, other: &Snapshot) -> Differences {
        self.0.memory.differences(&other.0.memory)
    }

    /// Pages of DRAM that have ever been written.
    pub fn dram_pages(&self) -> usize {
        self.0.memory.dram_pages()
    }
}

impl Machine {
    /// The state now, between two runs. Costs what was written since the last snapshot or restore; the first one copies all
    /// pages that were ever written.
    pub fn snapshot(&mut self) -> Snapshot {
        // Every part of the machine is here: in the snapshot, or among those that it leaves out.
        let Machine { cpu, board, config, map: _, typed: _, resets, injections: _, marker_stops: _ } = self;
        Snapshot(Arc::new(State {
            config: config.clone(),
            cpu: cpu.snapshot(),
            memory: cpu.mem.snapshot(),
            board: board.0.borrow().clone(),
            resets: *resets,
        }))
    }

    /// Takes over the state of a snapshot of the same machine. Costs what was written since the last snapshot or restore,
    /// and what differs between that one and this.
    ///
    /// # Errors
    /// [`SnapshotError::Config`]; nothing has changed then. The switches for the host's shortcuts, which change no result, may
    /// differ.
    pub fn restore(&mut self, snapshot: &Snapshot) -> Result<Restored, SnapshotError> {
        let State { config, cpu, board, memory, resets } = &*snapshot.0;
        if let Some(difference) = self.config().difference(config) {
            return Err(SnapshotError::Config(difference));
        }
        self.disarm();
        let restored = self.cpu.mem.restore(memory).map_err(|e| SnapshotError::Invalid(e.to_string()))?;
        self.cpu.restore(cpu);
        self.board.0.borrow_mut().clone_from(board);
        self.board.set_horizon(None);
        self.resets = *resets;
        Ok(restored)
    }

    /// A machine in the state of a snapshot. Its pages are shared with the snapshot until they are written to.
    ///
    /// # Errors
    /// [`SnapshotError::Machine`].
    pub fn from_snapshot(snapshot: &Snapshot) -> Result<Machine, SnapshotError> {
        let mut machine = Machine::new(snapshot.config().clone())?;
        machine.restore(snapshot)?;
        Ok(machine)
    }
}

const _: () = {
    const fn shared_between_threads<T: Send + Sync>() {}
    shared_between_threads::<Snapshot>();
};
