//! Construction, power-on and running.

use crate::board::Board;
use crate::boot::FirmwareCpu;
use crate::config::{Config, ConfigError};
use crate::inject::Injections;
use cpu::Cpu;
use cpu::exec::system::cpuid::CpuModel;
use cpu::run::Stop;
use cpu::state::{Activity, Shortcuts};
use devices::Chipset;
use firmware::{Bios, BootInfo, Images, LoadError, MemoryMap, Setup, SetupError};
use mem::bus_trace::{Ciphertext, Header};
use mem::{Event, Memory};
use std::cell::RefMut;
use std::io::{self, Write};
use x86::platform::{ResetKind, Signal, VirtualTime};
use x86::tme::activate;

/// A machine.
pub struct Machine {
    pub cpu: Box<Cpu>,
    pub(crate) board: Board,
    pub(crate) config: Config,
    pub(crate) map: MemoryMap,
    /// What was typed and when, if somebody wants to repeat the run.
    pub(crate) typed: Option<Vec<(VirtualTime, Vec<u8>)>>,
    /// Platform resets.
    pub(crate) resets: u64,
    /// Faults that wait, last, or are over.
    pub(crate) injections: Option<Box<Injections>>,
    /// Somebody outside waits for markers.
    pub(crate) marker_stops: bool,
}

/// Why a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// The instruction count was reached.
    Icount,
    /// The virtual time was reached ([`Machine::run_until`]).
    Time,
    /// The RIP breakpoint was reached.
    Breakpoint,
    /// The guest has written a marker, and [`Machine::stop_at_markers`] asks to stop then.
    Marker(u32),
    /// ACPI S5.
    PowerOff,
    /// The guest asked for a reset.
    Reset(ResetKind),
    /// The debug-exit port was written.
    DebugExit(u32),
    /// A fault while delivering a double fault.
    TripleFault,
    /// The guest broke a rule of memory encryption, and [`Machine::stop_on_hazard`] asks to stop then.
    Hazard,
    /// HLT with nothing that could end it; `interrupts`: RFLAGS.IF was set.
    Halted { interrupts: bool },
}

impl Machine {
    /// Builds the hardware. Nothing has been executed yet.
    pub fn new(config: Config) -> Result<Machine, ConfigError> {
        cpu::exec::simd::host_supported().map_err(ConfigError::Host)?;
        let map = MemoryMap::new(config.ram_bytes)?;
        let mut memory = Memory::new(config.memory())?;
        memory.sanitize(config.sanitize);
        let features = *memory.tme().features();
        let board = Board::new(config.chipset()?);
        let mut model = CpuModel::new(&features, 1, config.cache_bytes as u32, config.cache_ways as u32);
        model.pconfig_legacy_codes = config.pconfig_legacy_codes;
        model.core_override = config.core_override;
        let mut cpu = Cpu::new(0, model, Box::new(memory), Box::new(board.clone()), config.ips);
        cpu.shortcuts = Shortcuts { links: config.links, bulk_strings: config.bulk_strings };
        Ok(Machine { cpu, board, config, map, typed: None, resets: 0, injections: None, marker_stops: false })
    }

    /// Runs the firmware stage up to the point where an image can be loaded.
    pub fn power_on(&mut self) -> Result<Bios, SetupError> {
        let setup = Setup { integrity: self.config.integrity, ..self.config.setup.clone() };
        let map = self.map;
        firmware::power_on(&mut FirmwareCpu(&mut self.cpu), &setup, &map)
    }

    /// Loads images through the encrypted datapath and puts the processor at their entry.
    pub fn boot(&mut self, bios: &mut Bios, images: &Images) -> Result<BootInfo, LoadError> {
        let info = firmware::boot(&mut FirmwareCpu(&mut self.cpu), bios, images)?;
        let tme = self.cpu.mem.tme();
        if tme.features().has_tme && tme.activate() & activate::LOCK == 0 {
            self.cpu.mem.events_mut().push(Event::UnlockedAtOsStart);
        }
        Ok(info)
    }

    /// The hazards that the sanitizer found since the last call, in the order in which the guest made them. To be taken
    /// from time to time during a run: the sanitizer keeps a limited number.
    pub fn take_hazards(&mut self) -> Vec<mem::Hazard> {
        self.cpu.mem.take_hazards()
    }

    /// Makes [`run`](Self::run) end after the block of instructions in which a hazard is made, with [`Exit::Hazard`]; after
    /// the instruction itself where it was a load or store. The hazards have to be taken before it can go on.
    pub fn stop_on_hazard(&mut self, on: bool) {
        self.cpu.stop_on_hazard = on;
    }

    /// Makes [`run`](Self::run) end after the instruction with which the guest writes a marker, with [`Exit::Marker`], or not.
    pub fn stop_at_markers(&mut self, on: bool) {
        self.marker_stops = on;
        self.watch_markers(false);
    }

    /// Watches for markers if anybody waits for one; `injections`: some fault does.
    pub(crate) fn watch_markers(&self, injections: bool) {
        self.board.watch_markers(injections || self.marker_stops);
    }

    /// Writes every line transfer between the memory controller and DRAM to `out` from now on; from before
    /// [`power_on`](Self::power_on) on, that is everything DRAM ever holds. Changes nothing else.
    ///
    /// # Errors
    /// The header of the trace cannot be written. Later errors are [`Memory::bus_trace_error`]'s.
    pub fn trace_bus(&mut self, out: Box<dyn Write>, ciphertext: Ciphertext) -> io::Result<()> {
        let features = self.cpu.mem.tme().features();
        // What changes no result must not change the file either.
        let machine = Config { fast: true, links: true, bulk_strings: true, ..self.config.clone() };
        let header = Header {
            ram_bytes: self.config.ram_bytes,
            ips: self.cpu.clock.ips(),
            tsc_hz: cpu::clock::TSC_HZ,
            maxphyaddr: features.maxphyaddr,
            keyid_bits_max: features.max_keyid_bits(),
            ciphertext,
            machine: machine.to_file(),
        };
        self.cpu.mem.trace_bus(out, header)
    }

    /// What integrity has found since the machine was built or restored: how many wrong MACs and uses of poison, and the
    /// first of each. Nothing without the option.
    pub fn integrity_detections(&self) -> mem::Detections {
        self.cpu.mem.detections()
    }

    /// True when [`Exit::TripleFault`] was the shutdown of a machine check that could not be delivered: CR4.MCE was 0, or one
    /// was in progress.
    pub fn machine_check_shutdown(&self) -> bool {
        self.cpu.machine_check_shutdown
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The board's chips, for console input and output.
    pub fn chipset(&self) -> RefMut<'_, Chipset> {
        self.board.0.borrow_mut()
    }

    /// Input for the serial port, now.
    pub fn type_in(&mut self, bytes: &[u8]) {
        let now = self.cpu.now();
        if let Some(typed) = &mut self.typed {
            typed.push((now, bytes.to_vec()));
        }
        self.chipset().push_serial_input(now, bytes);
    }

    /// Keeps what is typed from now on for [`typed`](Self::typed).
    pub fn record_input(&mut self) {
        self.typed.get_or_insert_default();
    }

    /// What was typed and when: the same input at the same virtual times makes the same run.
    pub fn typed(&self) -> &[(VirtualTime, Vec<u8>)] {
        self.typed.as_deref().unwrap_or_default()
    }

    /// Runs until the instruction count `until` or until something else ends it.
    pub fn run(&mut self, until: u64) -> Exit {
        loop {
            let stop = if self.injections.is_some() {
                self.inject_due();
                self.cpu.run(until.min(self.next_injection()))
            } else {
                self.cpu.run(until)
            };
            match stop {
                Stop::Trap => self.inject_at_trap(false),
                Stop::PhysicalTrap => self.inject_at_trap(true),
                Stop::Fault => self.inject_reports(),
                Stop::Icount if self.cpu.icount() < until => {}
                stop => match (stop, self.board.take_marker()) {
                    (Stop::Signal, Some(value)) => {
                        self.inject_at_marker(value);
                        if self.marker_stops {
                            return Exit::Marker(value);
                        }
                    }
                    _ => return self.exit(stop),
                },
            }
        }
    }

    fn exit(&mut self, stop: Stop) -> Exit {
        match stop {
            Stop::Icount | Stop::Trap | Stop::PhysicalTrap | Stop::Fault => Exit::Icount,
            Stop::Breakpoint => Exit::Breakpoint,
            Stop::Hazard => Exit::Hazard,
            Stop::TripleFault => {
                // Shutdown leaves RIP at the instruction that started it all.
                self.cpu.activity = Activity::Shutdown;
                let ip = self.cpu.ip;
                self.cpu.move_to(ip);
                Exit::TripleFault
            }
            Stop::Halted => Exit::Halted { interrupts: true },
            Stop::HaltedDisabled => Exit::Halted { interrupts: false },
            Stop::Signal => match self.cpu.platform.take_signal() {
                Some(Signal::PowerOff) => Exit::PowerOff,
                Some(Signal::Reset(kind)) => Exit::Reset(kind),
                Some(Signal::DebugExit(v)) => Exit::DebugExit(v),
                None => Exit::Icount,
            },
        }
    }

    /// As [`Machine::run`], and until the virtual time `time` at the latest, which a halted processor reaches as well. Where
    /// runs are cut changes nothing that the guest or the state hash sees.
    pub fn run_until(&mut self, icount: u64, time: VirtualTime) -> Exit {
        let now = self.cpu.icount();
        let limit = icount.min(now.saturating_add(self.cpu.clock.insns_until(now, time)));
        self.board.set_horizon(Some(time));
        let exit = self.run(limit);
        self.board.set_horizon(None);
        if exit == Exit::Icount && self.cpu.icount() < icount { Exit::Time } else { exit }
    }

    /// INIT: registers and local APICs; the board, DRAM, caches and the state of memory encryption stay (spec 7.3, MC-34). The
    /// BIOS at the reset vector then goes on where the guest left word, in real mode. False: nowhere, and a BIOS resets the
    /// platform then.
    pub fn init(&mut self) -> bool {
        self.reset(ResetKind::Init);
        firmware::resume(&mut FirmwareCpu(&mut self.cpu))
    }

    /// Platform resets since the machine was built.
    pub fn resets(&self) -> u64 {
        self.resets
    }

    /// Performs a platform reset: registers, board, memory side (spec 7.3).
    pub fn reset(&mut self, kind: ResetKind) {
        self.resets += u64::from(kind != ResetKind::Init);
        let now = self.cpu.now();
        self.board.0.borrow_mut().reset(now, kind);
        self.cpu.tell_time();
        self.cpu.mem.reset(kind);
        self.cpu.reset(kind);
    }
}
