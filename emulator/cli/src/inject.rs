//! `--inject`: faults, armed before the guest starts, and what became of them. docs/faults.md is the user's page.

use crate::Result;
use crate::help;
use crate::outcome::Failure;
use clap::{ArgAction, Args};
use machine::Machine;
use machine::inject::{CodeAddress, FaultSpec, Injection, Limits, Outcome, Target, Trigger};
use mem::Moment;
use std::fmt;
use symbols::{SymbolFile, Symbols};

/// The option.
#[derive(Debug, Args)]
pub struct InjectArgs {
    /// Inject a fault: TARGET key=value... at=TRIGGER [for=DURATION]; may be repeated (docs/faults.md)
    #[arg(long, value_name = "FAULT", action = ArgAction::Append, help_heading = help::REPORTS)]
    pub inject: Vec<FaultSpec>,
}

/// The faults of a run.
#[derive(Debug, Default)]
pub struct Inject {
    specs: Vec<FaultSpec>,
}

impl Inject {
    pub fn new(args: InjectArgs) -> Inject {
        Inject { specs: args.inject }
    }

    /// Arms everything on a machine that is about to run `kernel`. `until`: the instruction count at which the run ends.
    ///
    /// # Errors
    /// A fault that cannot fire.
    pub fn arm(
        &mut self,
        machine: &mut Machine,
        symbols: &Symbols,
        kernel: &[u8],
        cmdline: &str,
        until: u64,
    ) -> Result<()> {
        if self.specs.is_empty() {
            return Ok(());
        }
        if self.specs.iter().any(has_symbol) {
            let image = SymbolFile::parse(kernel).ok();
            let slides = !cmdline.split_ascii_whitespace().any(|word| word == "nokaslr");
            let mut moved = false;
            for spec in &mut self.specs {
                let resolved = spec.resolve(|name| {
                    let (address, linux) = symbols
                        .linked_address(name)
                        .or_else(|| image.as_ref().and_then(|file| Some((file.table.address(name)?, file.linux))))?;
                    moved |= linux && slides;
                    Some(address)
                });
                resolved.map_err(|name| {
                    Failure::Usage(format!(
                        "--inject {spec}: nothing is known of the symbol `{name}`; accepted: a symbol of --symbols or \
                         -kernel, or an address"
                    ))
                })?;
                if moved {
                    return Err(Failure::Usage(format!(
                        "--inject {spec}: Linux moves itself to a random address; accepted: a symbol of Linux together \
                         with -append nokaslr"
                    )));
                }
            }
        }
        machine
            .arm(&self.specs, Limits { until })
            .map_err(|(at, cannot)| Failure::Usage(format!("--inject {}: {cannot}", self.specs[at])))
    }

    /// Arms on a machine like the first what was armed there.
    pub fn arm_again(&self, machine: &mut Machine) {
        // What was accepted once is accepted again.
        let _ = machine.arm(&self.specs, Limits::default());
    }

    /// Lines for the end of the run.
    pub fn summary(machine: &Machine) -> String {
        machine.injections().iter().map(|injection| Line(injection).to_string()).collect()
    }
}

fn has_symbol(spec: &FaultSpec) -> bool {
    let symbol = |trigger: &Trigger| matches!(trigger, Trigger::Pc { place: CodeAddress::Symbol(_), .. });
    symbol(&spec.at) || matches!(&spec.target, Target::Replay { since, .. } if symbol(since))
}

/// One fault and what became of it.
struct Line<'a>(&'a Injection);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "  fault          {}: ", self.0.spec)?;
        match self.0.outcome() {
            Outcome::NotActivated => writeln!(f, "not activated"),
            Outcome::NoEffect { triggered } => {
                writeln!(f, "triggered at {}, without effect", At(triggered))
            }
            Outcome::Fired { triggered, at } if triggered.icount == at.icount => writeln!(f, "fired at {}", At(at)),
            Outcome::Fired { triggered, at } => {
                writeln!(f, "fired at {}, triggered at instruction {}", At(at), triggered.icount)
            }
        }
    }
}

struct At(Moment);

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Moment { icount, rip, keyid } = self.0;
        write!(f, "instruction {icount} (RIP {rip:#x}")?;
        match keyid {
            Some(keyid) => write!(f, ", KeyID {})", keyid.0),
            None => write!(f, ")"),
        }
    }
}
