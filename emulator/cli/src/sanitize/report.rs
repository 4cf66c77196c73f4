//! Reports as text, in the manner of the kernel's own sanitizers.

use super::Reported;
use machine::Machine;
use mem::{Agent, HazardKind, Site};
use std::fmt;
use symbols::{Location, Symbols};

const RULE: &str = "==================================================================";

/// A site with its name.
#[derive(Debug, Clone)]
pub struct Named {
    pub site: Site,
    pub location: Location,
}

impl Named {
    pub fn new(symbols: &mut Symbols, machine: &mut Machine, site: Site) -> Named {
        let location = match site.agent {
            // There is no program yet.
            Agent::Loader => Location { address: 0, symbol: None },
            _ => symbols.resolve(machine, site.rip, site.cpl),
        };
        Named { site, location }
    }

    /// What suppressions go by: a function, also with its module, or an address.
    pub fn names(&self) -> [Option<String>; 2] {
        match &self.location.symbol {
            None => [Some(self.to_string()), None],
            Some(s) => [Some(s.name.clone()), s.module.as_ref().map(|module| format!("{} [{module}]", s.name))],
        }
    }
}

/// The place: `function+0x1b/0x40 [module]`.
impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.site.agent {
            Agent::Loader => write!(f, "the boot loader"),
            Agent::Device => write!(f, "a device, while the CPU was at {}", self.location),
            Agent::Cpu(_) if self.location.symbol.is_none() && self.site.cpl == 3 => {
                write!(f, "{} (user)", self.location)
            }
            Agent::Cpu(_) => write!(f, "{}", self.location),
        }
    }
}

/// Two lines about a site.
fn site(f: &mut fmt::Formatter<'_>, label: &str, named: &Named) -> fmt::Result {
    let Site { agent, operation, rip, icount, keyid, cpl } = named.site;
    match agent {
        Agent::Loader => writeln!(f, "  {label:<8} written by the boot loader, before the guest ran"),
        Agent::Cpu(_) | Agent::Device => {
            let level = if agent == Agent::Device { String::new() } else { format!(", CPL {cpl}") };
            writeln!(f, "  {label:<8} {operation} through KeyID {}, {agent}{level}, instruction {icount}", keyid.0)?;
            writeln!(f, "  {:<8} at {rip:#018x} {}", "", NameOf(named))
        }
    }
}

/// The name after an address: nothing if there is none.
struct NameOf<'a>(&'a Named);

impl fmt::Display for NameOf<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.0.location.symbol, self.0.site.cpl) {
            (Some(_), _) => write!(f, "{}", self.0.location),
            (None, 3) => write!(f, "(user)"),
            (None, _) => write!(f, "(no name known)"),
        }
    }
}

/// One report.
pub struct Text<'a>(pub &'a Reported);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Reported { hazard, access, other, .. } = self.0;
        writeln!(f, "{RULE}\nBUG: mktme-emu: {} in {access}", hazard.kind)?;
        site(f, "access", access)?;
        match other {
            Some(other) => site(f, "other", other)?,
            None => writeln!(f, "  {:<8} unknown", "other")?,
        }
        write!(f, "  {:<8} {:#x}", "line", hazard.line.start().0)?;
        match (hazard.kind, hazard.lines) {
            (HazardKind::DirtyLineAtRekey, 1) => writeln!(f, ", dirty")?,
            (HazardKind::DirtyLineAtRekey, lines) => writeln!(f, ", the first of {lines} dirty lines")?,
            _ => writeln!(f, ", byte {}", hazard.offset)?,
        }
        writeln!(f, "  {:<8} {}\n{RULE}", "missing", hazard.action)
    }
}

/// Figures of the whole run.
#[derive(Debug)]
pub struct Totals {
    pub hazards: u64,
    pub suppressed: u64,
    /// Lost, because there were too many at once.
    pub dropped: u64,
    /// FILE:LINE of suppressions that matched nothing.
    pub unused: Vec<String>,
}

/// The end.
pub struct Summary<'a> {
    pub reported: &'a [&'a Reported],
    pub totals: &'a Totals,
}

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Totals { hazards, suppressed, dropped, .. } = self.totals;
        let plural = |n: u64, one: &str| format!("{n} {one}{}", if n == 1 { "" } else { "s" });
        write!(f, "mktme-emu: sanitizer: {}", plural(*hazards, "hazard"))?;
        if *hazards > 0 {
            write!(f, " at {}", plural(self.reported.len() as u64, "site"))?;
        }
        if *suppressed > 0 {
            write!(f, ", {suppressed} suppressed")?;
        }
        if *dropped > 0 {
            write!(f, ", {dropped} more that came too fast to be told")?;
        }
        writeln!(f)?;
        for reported in self.reported {
            let Reported { hazard, access, other, count, origin, .. } = reported;
            write!(f, "  {count:>6} × {} in {access}", hazard.kind)?;
            match other {
                Some(other) => writeln!(f, ", after {} in {other}", other.site.operation)?,
                None => writeln!(f)?,
            }
            let Some(origin) = origin else { continue };
            for (what, named) in [("store", &origin.last_store), ("flush", &origin.last_flush)] {
                match named {
                    Some(n) => {
                        let (keyid, icount) = (n.site.keyid.0, n.site.icount);
                        writeln!(f, "           last {what} before it: KeyID {keyid}, instruction {icount}, in {n}")?;
                    }
                    None => writeln!(f, "           last {what} before it: none")?,
                }
            }
        }
        Ok(())
    }
}
