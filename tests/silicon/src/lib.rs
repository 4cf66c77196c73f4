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
use state::Outcome;

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    pub cases: u64,
    pub seed: u64,
    /// Only codes whose name contains this (`Add`, `Pshufb`, `Fsin`), any case.
    pub only: Option<String>,
    /// Only this case.
    pub index: Option<u64>,
}

/// Programs for each single-instruction case.
const CASES_PER_PROGRAM: u64 = 4;

/// Runs a program on the host, and twice in the interpreter: newly decoded, and from the block cache.
fn run_program(
    program: &Program,
    native: &mut Native,
    interpreter: &mut Interpreter,
    (host, model): (&mut Outcome, &mut Outcome),
) -> Result<Vec<Difference>, String> {
    let case = program.case();
    native.run(&case, host);
    for again in [false, true] {
        interpreter.run_program(&case, again, model)?;
        let differences = compare::compare_program(&case, host, model);
        if !differences.is_empty() {
            return Ok(differences);
        }
    }
    Ok(vec![])
}

/// Runs cases over all forms in turn. Call it once in a process: it owns signal handlers and fixed addresses.
///
/// # Errors
/// Why cases cannot run on this host, as a sentence.
pub fn run(options: &Options) -> Result<Report, String> {
    let (mut forms, skipped) = forms::forms();
    let mut generator = Generator::new(options.seed, &forms);
    if let Some(only) = &options.only {
        let only = only.to_lowercase();
        forms.retain(|f| {
            let (name, family) =
                (format!("{:?}", f.code).to_lowercase(), format!("{:?}", f.code.mnemonic()).to_lowercase());
            family == only || name.contains(&only) && only.contains('_')
        });
    }
    if forms.is_empty() {
        return Err("no form has that name".into());
    }
    let mut native = Native::new(&generator.image)?;
    let mut interpreter = Interpreter::new(&generator.image)?;
    let mut report = Report { skipped, forms: forms.clone(), ..Report::default() };
    let (mut host, mut model) = (Outcome::default(), Outcome::default());
    let range = match options.index {
        Some(i) => i..i + 1,
        None => 0..options.cases,
    };
    for index in range {
        let form: Form = forms[(index % forms.len() as u64) as usize];
        let Some(case) = generator.case(index, form) else {
            report.dropped += 1;
            continue;
        };
        native.run(&case, &mut host);
        let result = interpreter.run(&case, &mut model);
        report.cases += 1;
        report.faults += u64::from(host.fault.is_some());
        let memory = case.insn.op_kinds().any(|k| k == iced_x86::OpKind::Memory);
        *report.covered.entry((case.insn.code(), memory)).or_default() += 1;
        if let Err(why) = result {
            report.failures.push((index, case, why));
            continue;
        }
        let rows = &mut report.rows;
        let differences = compare::compare(&case, &host, &model, &mut |row| *rows.entry(row).or_default() += 1);
        if !differences.is_empty() {
            report.mismatch(index, &case, differences);
        }
    }
    let parts: Vec<Form> = forms.iter().copied().filter(|f| generate::program::belongs(*f)).collect();
    let programs = if options.index.is_some() || parts.is_empty() { 0 } else { options.cases / CASES_PER_PROGRAM };
    for index in 0..programs {
        let mut program = generator.program(index, &parts);
        let pair = (&mut host, &mut model);
        let mut result = run_program(&program, &mut native, &mut interpreter, pair);
        report.programs += 1;
        report.program_parts += program.parts.len() as u64;
        report.program_faults += u64::from(host.fault.is_some());
        if matches!(&result, Ok(d) if d.is_empty()) {
            continue;
        }
        // Drop every part that the mismatch does not need.
        let mut n = 0;
        while n < program.parts.len() {
            let shorter = program.without(n);
            match run_program(&shorter, &mut native, &mut interpreter, (&mut host, &mut model)) {
                Ok(d) if d.is_empty() => n += 1,
                other => (program, result) = (shorter, other),
            }
        }
        report.program_mismatches.push((index, program.case(), result));
    }
    Ok(report)
}
