//! The differential harness: every user-mode instruction form of the processor model is executed on the host's
//! processor and in the interpreter, from the same random state, and everything that user code can see is compared.
//!
//! Reading order: [`forms`] (what is executed), [`layout`] and [`state`] (what a case is), [`generate`] (how cases are
//! drawn), [`native`] and [`interp`] (the two executions), [`compare`] and [`rules`] (what must agree), [`report`].
//!
//! On other hosts than x86-64 Linux the crate is empty. `docs/silicon.md` describes the method and the table.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

pub mod compare;
pub mod forms;
pub mod generate;
pub mod interp;
pub mod layout;
pub mod native;
pub mod report;
pub mod rng;
pub mod rules;
pub mod state;

use compare::Difference;
use forms::Form;
use generate::Generator;
use generate::program::Program;
use interp::Interpreter;
use native::Native;
use report::Report;
use state::{Case, Outcome};

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    pub cases: u64,
    pub seed: u64,
    /// Only codes whose name contains this (`Add`, `Pshufb`, `Fsin`), any case.
    pub only: Option<String>,
    /// Only this case.
    pub index: Option<u64>,
    /// 64, 32 (compatibility mode) or both.
    pub bits: Option<u32>,
}

/// Programs for each single-instruction case.
const CASES_PER_PROGRAM: u64 = 4;

/// Runs a program on the host, and twice in the interpreter: newly decoded, and from the block cache.
fn run_program(program: &Program, bench: &mut Bench) -> Result<Vec<Difference>, String> {
    let case = program.case();
    bench.native.run(&case, &mut bench.host);
    for again in [false, true] {
        bench.interpreter.run_program(&case, again, &mut bench.model)?;
        let differences = compare::compare_program(&case, &bench.host, &bench.model);
        if !differences.is_empty() {
            return Ok(differences);
        }
    }
    Ok(vec![])
}

/// Both executions, and where their outcomes go.
struct Bench {
    native: Native,
    interpreter: Interpreter,
    host: Outcome,
    model: Outcome,
}

/// Runs cases over all forms in turn, and programs of them. Call it once in a process: it owns signal handlers and fixed
/// addresses.
///
/// # Errors
/// Why cases cannot run on this host, as a sentence.
pub fn run(options: &Options) -> Result<Report, String> {
    let image = Generator::new(options.seed, 64, &[]).image;
    let mut bench = Bench {
        native: Native::new(&image)?,
        interpreter: Interpreter::new(&image)?,
        host: Outcome::default(),
        model: Outcome::default(),
    };
    let mut report = Report::default();
    for bits in [64, 32] {
        if options.bits.unwrap_or(bits) == bits && (options.index.is_none() || options.bits.unwrap_or(64) == bits) {
            run_mode(options, bits, &mut bench, &mut report);
        }
    }
    if report.cases == 0 { Err("no form has that name".into()) } else { Ok(report) }
}

/// 64-bit cases for each one of 32-bit code.
const CASES_PER_COMPATIBILITY_CASE: u64 = 4;

fn run_mode(options: &Options, bits: u32, bench: &mut Bench, report: &mut Report) {
    let (mut forms, skipped) = forms::forms(bits);
    let mut generator = Generator::new(options.seed, bits, &forms);
    if let Some(only) = &options.only {
        let only = only.to_lowercase();
        forms.retain(|f| {
            let (name, family) = (format!("{:?}", f.code), format!("{:?}", f.code.mnemonic()));
            family.to_lowercase() == only || only.contains('_') && name.to_lowercase().contains(&only)
        });
    }
    if forms.is_empty() {
        return;
    }
    report.skipped.extend(skipped);
    report.forms.extend(&forms);
    let cases = if bits == 64 { options.cases } else { options.cases / CASES_PER_COMPATIBILITY_CASE };
    let range = match options.index {
        Some(i) => i..i + 1,
        None => 0..cases,
    };
    for index in range {
        let form: Form = forms[(index % forms.len() as u64) as usize];
        match generator.case(index, form) {
            Some(case) => run_case(index, case, bench, report),
            None => report.dropped += 1,
        }
    }
    if bits == 64 && options.index.is_none() {
        run_programs(options.cases / CASES_PER_PROGRAM, &forms, &mut generator, bench, report);
    }
}

fn run_case(index: u64, case: Case, bench: &mut Bench, report: &mut Report) {
    bench.native.run(&case, &mut bench.host);
    let result = bench.interpreter.run(&case, &mut bench.model);
    report.cases += 1;
    report.faults += u64::from(bench.host.fault.is_some());
    let memory = case.insn.op_kinds().any(|k| k == iced_x86::OpKind::Memory);
    *report.covered.entry((case.insn.code(), memory)).or_default() += 1;
    if let Err(why) = result {
        report.failures.push((index, case, why));
        return;
    }
    let rows = &mut report.rows;
    let used = &mut |row| *rows.entry(row).or_default() += 1;
    let differences = compare::compare(&case, &bench.host, &bench.model, used);
    if !differences.is_empty() {
        report.mismatch(index, &case, differences);
    }
}

fn run_programs(count: u64, forms: &[Form], generator: &mut Generator, bench: &mut Bench, report: &mut Report) {
    let parts: Vec<Form> = forms.iter().copied().filter(|f| generate::program::belongs(*f)).collect();
    if parts.is_empty() {
        return;
    }
    for index in 0..count {
        let mut program = generator.program(index, &parts);
        let mut result = run_program(&program, bench);
        report.programs += 1;
        report.program_parts += program.parts.len() as u64;
        report.program_faults += u64::from(bench.host.fault.is_some());
        if matches!(&result, Ok(d) if d.is_empty()) {
            continue;
        }
        // Drop every part that the mismatch does not need.
        let mut n = 0;
        while n < program.parts.len() {
            let shorter = program.without(n);
            match run_program(&shorter, bench) {
                Ok(d) if d.is_empty() => n += 1,
                other => (program, result) = (shorter, other),
            }
        }
        report.program_mismatches.push((index, program.case(), result));
    }
}
