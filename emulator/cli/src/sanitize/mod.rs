//! `--sanitize`: what the alias sanitizer finds, told to people and programs. docs/sanitizer.md is the user's page.
//!
//! Reading order: this file (options, de-duplication, the end), [`report`] (text), [`json`] (JSON lines), [`suppress`]
//! (which reports nobody wants), [`origins`] (the last writers, from a second run).

pub mod json;
pub mod origins;
pub mod report;
pub mod suppress;

use crate::Result;
use crate::files;
use crate::help;
use crate::outcome::{Failure, Outcome};
use crate::plan::Plan;
use clap::{Args, ValueEnum};
use json::Json;
use machine::Machine;
use mem::{Agent, Hazard, HazardKind, Site};
use origins::Origin;
use report::Named;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use suppress::Suppressions;
use symbols::{SymbolFile, Symbols};

/// No symbol file is larger: a vmlinux with all its debug information has about 1 GiB.
const SYMBOL_BYTES_MAX: u64 = 4 << 30;
/// Images whose symbols are read even if nobody asks for names: the register dump may have a use for them.
const QUICK_BYTES: usize = 8 << 20;

/// What `--sanitize` does about a hazard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Tells it and goes on.
    Report,
    /// Tells it and ends the run.
    Stop,
}

/// The options.
#[derive(Debug, Args)]
pub struct SanitizeArgs {
    /// Report where the guest breaks the rules for KeyIDs: missing flushes, stale reads, ... (docs/sanitizer.md); stop: end the run at the first
    #[arg(long, value_name = "stop", value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "report", hide_possible_values = true, help_heading = help::SANITIZER)]
    pub sanitize: Option<Mode>,
    /// Write the reports as JSON lines, too
    #[arg(long, value_name = "FILE", requires = "sanitize", help_heading = help::SANITIZER)]
    pub sanitize_json: Option<PathBuf>,
    /// Reports that are not wanted, a KIND:FUNCTION on each line
    #[arg(long, value_name = "FILE", requires = "sanitize", help_heading = help::SANITIZER)]
    pub sanitize_suppressions: Option<PathBuf>,
    /// After the run, repeat it to find the last store to each reported line
    #[arg(long, requires = "sanitize", help_heading = help::SANITIZER)]
    pub sanitize_origins: bool,
    /// Names for addresses: System.map or ELF file [default: Linux's own table, or the symbols of -kernel]
    #[arg(long, value_name = "FILE", help_heading = help::SANITIZER)]
    pub symbols: Option<PathBuf>,
}

/// The options, checked, with their files open.
#[derive(Default)]
pub struct Sanitize {
    mode: Option<Mode>,
    json: Option<Json>,
    suppressions: Suppressions,
    origins: bool,
    pub symbols: Symbols,
    sites: BTreeMap<SiteKey, usize>,
    reported: Vec<Reported>,
    suppressed: u64,
}

/// Hazards with the same key are one bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct SiteKey {
    kind: HazardKind,
    access: (Agent, u64),
    other: Option<(Agent, u64)>,
}

impl SiteKey {
    fn of(hazard: &Hazard) -> SiteKey {
        let place = |site: &Site| (site.agent, site.rip);
        SiteKey { kind: hazard.kind, access: place(&hazard.access), other: hazard.other.as_ref().map(place) }
    }
}

/// A bug, as it was first seen.
#[derive(Debug)]
pub struct Reported {
    /// From 1, in the order of the reports.
    pub id: usize,
    pub hazard: Hazard,
    pub access: Named,
    pub other: Option<Named>,
    /// Hazards in all.
    pub count: u64,
    /// It is suppressed: not told.
    pub suppressed: bool,
    pub origin: Option<Origin>,
}

impl Sanitize {
    /// Reads and opens the files. `kernel`: the image that is booted.
    ///
    /// # Errors
    /// A file that cannot be read or written, or is not what it should be.
    pub fn open(args: &SanitizeArgs, kernel: &[u8]) -> Result<Sanitize> {
        let file = args.symbols.as_deref().map(symbol_file).transpose()?;
        let wanted = args.sanitize.is_some() || file.is_some();
        Ok(Sanitize {
            mode: args.sanitize,
            json: args.sanitize_json.as_deref().map(Json::create).transpose()?,
            suppressions: args
                .sanitize_suppressions
                .as_deref()
                .map_or_else(|| Ok(Suppressions::default()), Suppressions::read)?,
            origins: args.sanitize_origins,
            symbols: Symbols::new(file, if wanted || kernel.len() <= QUICK_BYTES { kernel } else { &[] }),
            sites: BTreeMap::new(),
            reported: Vec::new(),
            suppressed: 0,
        })
    }

    /// The run will be repeated: its images are needed to the end.
    pub fn repeats(&self) -> bool {
        self.origins
    }

    /// Prepares the machine.
    pub fn attach(&self, machine: &mut Machine) {
        // Each is told at once: in its place among the guest's own output, and while a module that did it is still there.
        machine.stop_on_hazard(self.mode.is_some());
        if self.origins {
            machine.record_input();
        }
    }

    /// Tells the hazards since the last call. An outcome: the run ends here.
    ///
    /// # Errors
    /// The JSON file cannot be written.
    pub fn drain(&mut self, machine: &mut Machine) -> Result<Option<Outcome>> {
        if self.mode.is_none() || !machine.cpu.mem.has_hazards() {
            return Ok(None);
        }
        for hazard in machine.take_hazards() {
            let index = match self.sites.get(&SiteKey::of(&hazard)) {
                Some(index) => *index,
                None => self.report(machine, hazard)?,
            };
            let reported = &mut self.reported[index];
            reported.count += 1;
            if reported.suppressed {
                self.suppressed += 1;
            } else if self.mode == Some(Mode::Stop) {
                let place = reported.access.to_string();
                return Ok(Some(Outcome::Hazard { kind: hazard.kind, place }));
            }
        }
        Ok(None)
    }

    fn report(&mut self, machine: &mut Machine, hazard: Hazard) -> Result<usize> {
        let access = Named::new(&mut self.symbols, machine, hazard.access);
        let other = hazard.other.map(|site| Named::new(&mut self.symbols, machine, site));
        let suppressed = self.suppressions.matches(hazard.kind, [Some(&access), other.as_ref()]);
        let id = self.reported.iter().filter(|r| !r.suppressed).count() + 1;
        let reported = Reported { id, hazard, access, other, count: 0, suppressed, origin: None };
        for note in self.symbols.take_notes() {
            sayln!("mktme-emu: {note}");
        }
        if !suppressed {
            say!("{}", report::Text(&reported));
            if let Some(json) = &mut self.json {
                json.hazard(&reported)?;
            }
        }
        self.sites.insert(SiteKey::of(&hazard), self.reported.len());
        self.reported.push(reported);
        Ok(self.reported.len() - 1)
    }

    /// The run is over: origins, counts, suppressions that were of no use.
    ///
    /// # Errors
    /// The JSON file cannot be written, or the run cannot be repeated.
    pub fn finish(&mut self, machine: &mut Machine, plan: &Plan) -> Result<()> {
        if self.mode.is_none() {
            return Ok(());
        }
        let mut told: Vec<&mut Reported> = self.reported.iter_mut().filter(|r| !r.suppressed).collect();
        if self.origins && !told.is_empty() {
            let found = origins::find(plan, machine.typed(), &told)?;
            for (reported, sites) in told.iter_mut().zip(found) {
                let origin = sites.map(|site| site.map(|site| Named::new(&mut self.symbols, machine, site)));
                let [last_store, last_flush] = origin;
                let origin = Origin { last_store, last_flush };
                if let Some(json) = &mut self.json {
                    json.origin(reported.id, &origin)?;
                }
                reported.origin = Some(origin);
            }
        }
        let dropped = machine.cpu.mem.sanitizer().map_or(0, mem::Sanitizer::dropped);
        let totals = report::Totals {
            hazards: told.iter().map(|r| r.count).sum(),
            suppressed: self.suppressed,
            dropped,
            unused: self.suppressions.unused(),
        };
        let told: Vec<&Reported> = told.into_iter().map(|r| &*r).collect();
        if let Some(json) = &mut self.json {
            json.end(&told, &totals)?;
        }
        for unused in &totals.unused {
            sayln!("mktme-emu: --sanitize-suppressions {unused}: suppressed nothing");
        }
        if plan.summary || !told.is_empty() {
            say!("{}", report::Summary { reported: &told, totals: &totals });
        }
        Ok(())
    }
}

/// `--symbols`
fn symbol_file(path: &Path) -> Result<(String, SymbolFile)> {
    let accepted = symbols::file::ACCEPTED;
    let bytes = files::read_image("--symbols", path, (SYMBOL_BYTES_MAX, "any symbol file"), accepted)?;
    let name = format!("--symbols {}", path.display());
    match SymbolFile::parse(&bytes) {
        Ok(file) => Ok((name, file)),
        Err(e) => Err(Failure::Usage(format!("{name}: {e}; accepted: {accepted}"))),
    }
}
