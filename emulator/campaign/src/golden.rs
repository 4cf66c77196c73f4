//! The run without a fault, and what injections need of it: where it starts, snapshots on the way, its line transfers, its results.

use crate::error::{CampaignError, Result, host, refuse};
use crate::guest::{GRID, Guest, Stopped, first_match};
use crate::judge::{Results, Seen, look};
use crate::plan::{Place, PlanFile};
use crate::transfers::Transfers;
use firmware::{Images, Module};
use machine::{Config, Machine, Snapshot};
use mem::CacheModel;
use std::borrow::Cow;
use std::path::Path;

/// Snapshots on the way, at most.
const RUNGS: u64 = 128;
/// No kernel, RAM disk or machine file is larger.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// Where injections start.
#[derive(Clone)]
pub struct Start {
    pub snapshot: Snapshot,
    /// What the guest had said before.
    pub console: Vec<u8>,
}

/// A snapshot on the way.
pub struct Rung {
    /// Instructions retired.
    pub icount: u64,
    pub snapshot: Snapshot,
    pub state_hash: u128,
    /// Bytes of console output by then.
    pub console: usize,
}

/// The golden run.
pub struct Golden {
    /// What the guest had said before it.
    pub before: Vec<u8>,
    /// From its start on, by instruction count. There is at least the first.
    pub rungs: Vec<Rung>,
    /// The state at the verdict.
    pub last: Snapshot,
    pub state_hash: u128,
    pub end: u64,
    /// Console output from the start to the verdict.
    pub console: Vec<u8>,
    pub markers: Vec<(u64, u32)>,
    pub results: Results,
    /// Line transfers; `None` where the cache model has none that mean anything.
    pub transfers: Option<Transfers>,
}

/// Told from time to time how far the guest is, in instructions.
pub type Tick<'a> = &'a mut dyn FnMut(u64);

impl Start {
    /// Boots the guest, or loads its snapshot, and runs it to where the golden run starts.
    ///
    /// # Errors
    /// Files that cannot be used, or a guest that does not come there.
    pub fn reach(file: &PlanFile, tick: Tick) -> Result<Start> {
        let machine = match &file.plan.guest.loadvm {
            Some(path) => load(file, &file.directory.join(path))?,
            None => boot(file)?,
        };
        let mut guest = Guest::new(machine);
        let golden = &file.plan.golden;
        let mut there = match golden.start {
            Place::Begin => true,
            Place::Icount(n) => guest.icount() == n,
            _ => false,
        };
        let limit = guest.icount().saturating_add(golden.limit);
        while !there {
            let until = if let Place::Icount(n) = golden.start { n } else { limit };
            let stopped = guest.step(until);
            there = match (&golden.start, &stopped) {
                (Place::Marker(wanted), Stopped::Marker(value)) => wanted == value,
                (Place::Icount(n), _) => guest.icount() == *n,
                (Place::Console(expression), _) => {
                    let lines = guest.fresh_lines(false);
                    first_match(lines, std::slice::from_ref(expression)).is_some()
                }
                _ => false,
            };
            let at = file.path.display();
            let icount = guest.icount();
            match stopped {
                Stopped::Ended(end) if !there => {
                    return refuse(
                        format_args!("{at}: golden.start = \"{}\": the guest ended before ({end:?})", golden.start),
                        "a place that the guest reaches",
                    );
                }
                _ if !there && (icount >= limit || matches!(golden.start, Place::Icount(n) if icount >= n)) => {
                    return refuse(
                        format_args!("{at}: golden.start = \"{}\": not reached by instruction {icount}", golden.start),
                        "a place that the guest reaches, or a higher golden.limit",
                    );
                }
                _ => tick(icount),
            }
        }
        Ok(Start { snapshot: guest.machine.snapshot(), console: guest.console })
    }
}

pub(crate) fn read(path: &Path, what: &str) -> Result<Vec<u8>> {
    let size = std::fs::metadata(path).map_or(0, |of| of.len());
    if size > FILE_BYTES_MAX {
        return refuse(format_args!("{what} {}: {} MiB", path.display(), size >> 20), "at most 1 GiB");
    }
    std::fs::read(path).map_err(|e| CampaignError::Input(format!("{what} {}", host(path, &e))))
}

/// The machine of a plan.
///
/// # Errors
/// Machine files that are none.
pub fn config(file: &PlanFile) -> Result<Config> {
    let mut config = Config::default();
    let plan = &file.plan;
    let input = |what: &str, e: &dyn std::fmt::Display| CampaignError::Input(format!("{what}: {e}"));
    if let Some(path) = &plan.guest.machine {
        let path = file.directory.join(path);
        let text = String::from_utf8_lossy(&read(&path, "guest.machine")?).into_owned();
        config.apply_file(&text).map_err(|e| input(&format!("guest.machine {}", path.display()), &e))?;
    }
    config
        .apply_file(&plan.machine.to_string())
        .map_err(|e| input(&format!("{}: [machine]", file.path.display()), &e))?;
    Ok(config)
}

/// The file of a kernel, or an embedded guest (`embedded:NAME`).
///
/// # Errors
/// There is none.
pub(crate) fn kernel(directory: &Path, path: &Path) -> Result<Cow<'static, [u8]>> {
    match path.to_str().and_then(guests::embedded) {
        None => read(&directory.join(path), "guest.kernel").map(Cow::Owned),
        Some(guest) => guest.map(Cow::Borrowed).map_err(|e| CampaignError::Input(format!("guest.kernel {e}"))),
    }
}

fn boot(file: &PlanFile) -> Result<Machine> {
    let guest = &file.plan.guest;
    let image = |path: &Option<_>, what| path.as_ref().map(|path| read(&file.directory.join(path), what)).transpose();
    let kernel = guest.kernel.as_deref().map(|path| kernel(&file.directory, path)).transpose()?;
    let initrd = image(&guest.initrd, "guest.initrd")?;
    let initrd_name = guest.initrd.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
    let input = |e: &dyn std::fmt::Display| CampaignError::Input(format!("{}: {e}", file.path.display()));
    let mut machine = Machine::new(config(file)?).map_err(|e| input(&e))?;
    let mut bios = machine.power_on().map_err(|e| input(&e))?;
    let name = guest.kernel.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
    let images = Images {
        kernel: kernel.as_deref().unwrap_or(guests::HELLO_MKTME),
        kernel_name: &name,
        modules: initrd.iter().map(|data| Module { name: &initrd_name, arguments: "", data }).collect(),
        cmdline: &guest.append,
        protocol: None,
    };
    machine.boot(&mut bios, &images).map_err(|e| input(&e))?;
    Ok(machine)
}

fn load(file: &PlanFile, path: &Path) -> Result<Machine> {
    let wrong = |e: &dyn std::fmt::Display| {
        CampaignError::Input(format!("guest.loadvm {}: {e}; accepted: a file that run --savevm wrote", path.display()))
    };
    let snapshot = Snapshot::load(path, &mut |_, _| {}).map_err(|e| wrong(&e))?;
    if !file.plan.machine.is_empty() || file.plan.guest.machine.is_some() {
        return refuse(
            format_args!("{}: a machine together with guest.loadvm, which has its own", file.path.display()),
            "one of the two",
        );
    }
    Machine::from_snapshot(&snapshot).map_err(|e| wrong(&e))
}

impl Golden {
    /// Runs without a fault, twice: once to see the transfers and the end, once for snapshots on the way.
    ///
    /// # Errors
    /// A guest that does not come to its verdict, or that runs otherwise the second time.
    pub fn run(file: &PlanFile, start: &Start, tick: Tick) -> Result<Golden> {
        let wrong = |e: machine::SnapshotError| CampaignError::Input(format!("{}: {e}", file.path.display()));
        let from = start.snapshot.icount();
        let mut machine = Machine::from_snapshot(&start.snapshot).map_err(wrong)?;
        let traced = (machine.config().cache != CacheModel::Off).then(|| Transfers::record(&mut machine));
        let mut guest = Guest::new(machine);
        let exit = run_to_verdict(file, &mut guest, &mut |guest| tick(guest.icount()))?;
        let transfers = traced.transpose()?.map(|traced| traced.finish(&mut guest.machine)).transpose()?;
        let results = Results::of(&file.plan.oracle, &mut guest, exit);
        let (end, state_hash) = (guest.icount(), guest.machine.state_hash());

        let spacing = ((end - from) / RUNGS / GRID + 1) * GRID;
        let mut guest = Guest::new(Machine::from_snapshot(&start.snapshot).map_err(wrong)?);
        let rung = |guest: &mut Guest| Rung {
            icount: guest.icount(),
            snapshot: guest.machine.snapshot(),
            state_hash: guest.machine.state_hash(),
            console: guest.console.len(),
        };
        let mut rungs = vec![rung(&mut guest)];
        run_to_verdict(file, &mut guest, &mut |guest| {
            let icount = guest.icount();
            if icount.is_multiple_of(spacing) && icount > from && icount < end {
                rungs.push(rung(guest));
            }
            tick(icount);
        })?;
        if (guest.icount(), guest.machine.state_hash()) != (end, state_hash) {
            return Err(CampaignError::Host("two golden runs differ: this is a bug of the emulator".into()));
        }
        Ok(Golden {
            before: start.console.clone(),
            rungs,
            last: guest.machine.snapshot(),
            state_hash,
            end,
            console: guest.console,
            markers: guest.markers,
            results,
            transfers,
        })
    }

    /// Instructions retired at its start.
    pub fn start(&self) -> u64 {
        self.rungs.first().map_or(0, |rung| rung.icount)
    }

    /// The last snapshot at or before an instruction count.
    pub fn rung_at(&self, icount: u64) -> usize {
        self.rungs.partition_point(|rung| rung.icount <= icount).saturating_sub(1)
    }
}

/// Runs to the verdict. Returns how the guest ended, if it did.
fn run_to_verdict(file: &PlanFile, guest: &mut Guest, each: &mut dyn FnMut(&mut Guest)) -> Result<Option<String>> {
    let golden = &file.plan.golden;
    let limit = guest.icount().saturating_add(golden.limit);
    let until = match golden.end {
        Place::Icount(n) if n <= guest.icount() => {
            return refuse(
                format_args!("{}: golden.end = \"{}\" is not behind its start", file.path.display(), golden.end),
                format_args!("a count above {}", guest.icount()),
            );
        }
        Place::Icount(n) => n.min(limit),
        _ => limit,
    };
    loop {
        let stopped = guest.step(until);
        let seen = look(&file.plan, guest, &stopped);
        let at = format!("{}: the golden run", file.path.display());
        match seen {
            Seen::Verdict(exit) => return Ok(exit),
            Seen::Detected(what) => {
                return refuse(format_args!("{at} has what counts as detected: {what}"), "another [detected]");
            }
            Seen::Crash(what) => {
                return refuse(format_args!("{at} crashes: {what}"), "a guest that does not, another [crash]");
            }
            Seen::Hang(what) => return refuse(format_args!("{at} hangs: {what}"), "a guest that reaches golden.end"),
            Seen::Nothing if guest.icount() >= until => {
                if matches!(golden.end, Place::Icount(n) if n == until) {
                    return Ok(None);
                }
                return refuse(
                    format_args!(
                        "{at} has not reached golden.end = \"{}\" by instruction {}",
                        golden.end,
                        guest.icount()
                    ),
                    "a place that the guest reaches, or a higher golden.limit",
                );
            }
            Seen::Nothing => each(guest),
        }
    }
}
