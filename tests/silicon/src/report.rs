//! Counts, and a readable account of every mismatch.

use crate::compare::{Difference, GPR_NAMES};
use crate::forms::{Form, Skip};
use crate::generate::operand_address;
use crate::layout::arena_index;
use crate::rules::RULES;
use crate::state::{Case, fx};
use iced_x86::{Code, Decoder, DecoderOptions, Formatter, GasFormatter};
use std::collections::BTreeMap;
use std::fmt::{self, Write};

/// Mismatches of one [`Code`]: how many, and the one with the fewest differences.
pub struct Mismatch {
    pub count: u64,
    pub index: u64,
    pub case: Case,
    pub differences: Vec<Difference>,
}

/// What a run found.
#[derive(Default)]
pub struct Report {
    pub cases: u64,
    /// Drawn forms that could not be encoded.
    pub dropped: u64,
    pub faults: u64,
    /// Cases by code, register and memory forms apart.
    pub covered: BTreeMap<(Code, bool), u64>,
    /// Cases in which a row of [`RULES`] was needed.
    pub rows: BTreeMap<usize, u64>,
    pub mismatches: BTreeMap<Code, Mismatch>,
    /// Cases that the interpreter could not finish.
    pub failures: Vec<(u64, Case, String)>,
    pub programs: u64,
    /// Their instructions, and the programs that ended in an exception.
    pub program_parts: u64,
    pub program_faults: u64,
    /// Programs that did not agree, cut down to the parts that matter.
    pub program_mismatches: Vec<(u64, Case, Result<Vec<Difference>, String>)>,
    pub skipped: Vec<(Code, Skip)>,
    pub forms: Vec<Form>,
}

impl Report {
    /// True if everything agreed.
    pub fn agreed(&self) -> bool {
        self.mismatches.is_empty() && self.failures.is_empty() && self.program_mismatches.is_empty()
    }

    /// Adds a case that did not agree.
    pub fn mismatch(&mut self, index: u64, case: &Case, differences: Vec<Difference>) {
        let code = case.insn.code();
        let weight = |d: &[Difference], c: &Case| (d.len(), c.bytes.len());
        match self.mismatches.get_mut(&code) {
            None => {
                let m = Mismatch { count: 1, index, case: case.clone(), differences };
                self.mismatches.insert(code, m);
            }
            Some(m) => {
                m.count += 1;
                if weight(&differences, case) < weight(&m.differences, &m.case) {
                    *m = Mismatch { count: m.count, index, case: case.clone(), differences };
                }
            }
        }
    }
}

fn line(f: &mut fmt::Formatter<'_>, d: &Difference) -> fmt::Result {
    writeln!(f, "      {:<14} host {:<36} model {}", d.what, d.host, d.model)
}

fn disassembly(case: &Case) -> String {
    let mut text = String::new();
    GasFormatter::new().format(&case.insn, &mut text);
    text
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut s, b| {
        let _ = write!(s, "{b:02x} ");
        s
    })
}

/// The case's encoding and everything that it starts from and that matters.
fn describe(f: &mut fmt::Formatter<'_>, index: u64, case: &Case) -> fmt::Result {
    let p = &case.pre;
    writeln!(f, "    case {index}: {}  {}  at {:#x}", hex(&case.bytes).trim_end(), disassembly(case), p.rip)?;
    write!(f, "    pre: rflags={:#x}", p.rflags)?;
    for (name, v) in GPR_NAMES.iter().zip(p.gpr) {
        write!(f, " {name}={v:#x}")?;
    }
    writeln!(f)?;
    if case.insn.segment_prefix() != iced_x86::Register::None {
        writeln!(f, "    fs.base={:#x} gs.base={:#x}", p.fs_base, p.gs_base)?;
    }
    let features = case.insn.cpuid_features();
    if features.iter().any(|x| *x as u32 >= iced_x86::CpuidFeature::X64 as u32) {
        write!(f, "    fcw={:#x} fsw={:#x} ftw={:#x}", p.get16(fx::FCW), p.get16(fx::FSW), p.fx[fx::FTW])?;
        writeln!(f, " mxcsr={:#x}", p.mxcsr())?;
        for n in 0..8 {
            write!(f, "    st{n}={:020x}", p.st(n))?;
        }
        writeln!(f)?;
        for n in 0..16 {
            if case.insn.op_kinds().any(|k| k == iced_x86::OpKind::Register) {
                write!(f, "    xmm{n}={:032x}", p.xmm(n))?;
            }
        }
        writeln!(f)?;
    }
    if let Some(at) = operand_address(case) {
        write!(f, "    operand at {at:#x}:")?;
        if let Some(i) = arena_index(at) {
            write!(f, " {}", hex(&case.memory[i..(i + 32).min(case.memory.len())]).trim_end())?;
        }
        writeln!(f)?;
    }
    Ok(())
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (code, m) in &self.mismatches {
            writeln!(f, "{code:?}: {} mismatches", m.count)?;
            describe(f, m.index, &m.case)?;
            for d in &m.differences {
                line(f, d)?;
            }
        }
        for (index, case, why) in self.failures.iter().take(20) {
            writeln!(f, "{:?}: {why}", case.insn.code())?;
            describe(f, *index, case)?;
        }
        for (index, case, result) in self.program_mismatches.iter().take(20) {
            writeln!(f, "program {index}:")?;
            let decoder = Decoder::with_ip(64, &case.bytes, case.pre.rip, DecoderOptions::NONE);
            for insn in decoder {
                let mut text = String::new();
                GasFormatter::new().format(&insn, &mut text);
                writeln!(f, "    {:#x}: {text}", insn.ip())?;
            }
            describe(f, *index, case)?;
            match result {
                Ok(differences) => differences.iter().try_for_each(|d| line(f, d))?,
                Err(why) => writeln!(f, "      {why}")?,
            }
        }
        let mut skips: BTreeMap<Skip, Vec<Code>> = BTreeMap::new();
        for (code, skip) in &self.skipped {
            skips.entry(*skip).or_default().push(*code);
        }
        let codes: std::collections::BTreeSet<Code> = self.covered.keys().map(|(c, _)| *c).collect();
        writeln!(f, "{} instructions in {} forms, {} cases", codes.len(), self.covered.len(), self.cases)?;
        writeln!(f, "{} cases ended in an exception; {} drawn forms had no encoding", self.faults, self.dropped)?;
        // XLAT's operand is memory although its form names none.
        let has_case = |x: &Form| {
            self.covered.contains_key(&(x.code, x.memory)) || x.code == Code::Xlat_m8 && codes.contains(&x.code)
        };
        let without: Vec<Code> = self.forms.iter().filter(|x| !has_case(x)).map(|x| x.code).collect();
        if !without.is_empty() {
            writeln!(f, "forms without a case: {without:?}")?;
        }
        for (skip, codes) in skips {
            let why = match skip {
                Skip::Excluded(reason) => reason.to_string(),
                Skip::Host(feature) => format!("the host does not have {feature}"),
            };
            writeln!(f, "not executed, {why}: {}", codes.len())?;
        }
        for (row, n) in &self.rows {
            writeln!(f, "table: {}: {n} cases", RULES[*row].name)?;
        }
        let wrong: u64 = self.mismatches.values().map(|m| m.count).sum();
        let (parts, faults) = (self.program_parts, self.program_faults);
        writeln!(f, "{} programs of {parts} instructions, {faults} ended in an exception", self.programs)?;
        writeln!(f, "{} programs did not agree", self.program_mismatches.len())?;
        write!(f, "{wrong} mismatches in {} instructions, {} failures", self.mismatches.len(), self.failures.len())
    }
}
