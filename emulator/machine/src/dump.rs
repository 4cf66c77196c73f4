//! The register dump: what somebody needs who asks why the guest died.

use crate::Machine;
use crate::trace::{self, describe};
use std::fmt::Write;
use x86::cr::{cr0, cr4, efer};
use x86::flags;
use x86::segment::{Segment, ar};

/// Bytes of code to show.
const CODE_BYTES: usize = 32;

const GPRS: [&str; 16] =
    ["RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI", "R8", "R9", "R10", "R11", "R12", "R13", "R14", "R15"];
/// Order of the rows: the usual reading order, not the encoding's.
const ROWS: [[usize; 4]; 4] = [[0, 3, 1, 2], [6, 7, 5, 4], [8, 9, 10, 11], [12, 13, 14, 15]];
const SEGMENTS: [&str; 6] = ["ES", "CS", "SS", "DS", "FS", "GS"];

const RFLAGS: [(u64, &str); 15] = [
    (flags::ID, "ID"),
    (flags::VIP, "VIP"),
    (flags::VIF, "VIF"),
    (flags::AC, "AC"),
    (flags::VM, "VM"),
    (flags::RF, "RF"),
    (flags::NT, "NT"),
    (flags::OF, "OF"),
    (flags::DF, "DF"),
    (flags::IF, "IF"),
    (flags::SF, "SF"),
    (flags::ZF, "ZF"),
    (flags::AF, "AF"),
    (flags::PF, "PF"),
    (flags::CF, "CF"),
];
const CR0: [(u64, &str); 8] = [
    (cr0::PG, "PG"),
    (cr0::CD, "CD"),
    (cr0::NW, "NW"),
    (cr0::WP, "WP"),
    (cr0::NE, "NE"),
    (cr0::TS, "TS"),
    (cr0::EM, "EM"),
    (cr0::PE, "PE"),
];
const CR4: [(u64, &str); 12] = [
    (cr4::SMAP, "SMAP"),
    (cr4::SMEP, "SMEP"),
    (cr4::OSXSAVE, "OSXSAVE"),
    (cr4::PCIDE, "PCIDE"),
    (cr4::FSGSBASE, "FSGSBASE"),
    (cr4::UMIP, "UMIP"),
    (cr4::OSXMMEXCPT, "OSXMMEXCPT"),
    (cr4::OSFXSR, "OSFXSR"),
    (cr4::PGE, "PGE"),
    (cr4::MCE, "MCE"),
    (cr4::PAE, "PAE"),
    (cr4::PSE, "PSE"),
];
const EFER: [(u64, &str); 4] = [(efer::NXE, "NXE"), (efer::LMA, "LMA"), (efer::LME, "LME"), (efer::SCE, "SCE")];

fn names(value: u64, bits: &[(u64, &str)]) -> String {
    let set: Vec<&str> = bits.iter().filter(|(bit, _)| value & bit != 0).map(|(_, name)| *name).collect();
    format!("[{}]", set.join(" "))
}

fn segment(name: &str, s: &Segment) -> String {
    let kind = if s.ar & ar::UNUSABLE != 0 {
        "unusable".to_owned()
    } else {
        let what = if s.ar & ar::S == 0 {
            "system"
        } else if s.ar & ar::CODE == 0 {
            "data"
        } else if s.ar & ar::L != 0 {
            "code64"
        } else if s.ar & ar::DB != 0 {
            "code32"
        } else {
            "code16"
        };
        format!("{what} DPL {}{}", s.dpl(), if s.ar & ar::P == 0 { " not present" } else { "" })
    };
    format!("{name:<4} {:04x} base {:016x} limit {:08x} ar {:05x} {kind}", s.selector, s.base, s.limit, s.ar)
}

impl Machine {
    /// Registers, the last exception and the code at RIP, as lines of text.
    pub fn register_dump(&mut self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = self.write_dump(&mut out);
        out
    }

    fn write_dump(&mut self, out: &mut String) -> std::fmt::Result {
        let cpu = &self.cpu;
        for row in ROWS {
            let cells = row.map(|i| format!("{:<3} {:016x}", GPRS[i], cpu.regs[i]));
            writeln!(out, "{}", cells.join("  "))?;
        }
        let rflags = cpu.rflags();
        writeln!(
            out,
            "RIP {:016x}  RFL {rflags:08x} {}  CPL {}, {}, {}",
            cpu.rip(),
            names(rflags, &RFLAGS),
            cpu.cpl,
            trace::mode_name(cpu.mode),
            match cpu.activity {
                cpu::state::Activity::Running => "running",
                cpu::state::Activity::Halted => "halted",
                cpu::state::Activity::Shutdown => "shut down",
            }
        )?;
        for (name, s) in SEGMENTS.iter().zip(&cpu.segments).chain([(&"LDTR", &cpu.ldtr), (&"TR", &cpu.tr)]) {
            writeln!(out, "{}", segment(name, s))?;
        }
        writeln!(out, "GDTR base {:016x} limit {:04x}", cpu.gdtr.base, cpu.gdtr.limit)?;
        writeln!(out, "IDTR base {:016x} limit {:04x}", cpu.idtr.base, cpu.idtr.limit)?;
        writeln!(out, "CR0 {:08x} {}", cpu.cr0, names(cpu.cr0, &CR0))?;
        writeln!(out, "CR2 {:016x}  CR3 {:016x}", cpu.cr2, cpu.cr3)?;
        writeln!(
            out,
            "CR4 {:08x} {}  EFER {:04x} {}",
            cpu.cr4,
            names(cpu.cr4, &CR4),
            cpu.msr.efer,
            names(cpu.msr.efer, &EFER)
        )?;
        match cpu.last_exception {
            Some((e, rip)) => writeln!(out, "last exception: {} at RIP {rip:016x}", describe(e))?,
            None => writeln!(out, "last exception: none")?,
        }
        self.write_code(out)
    }

    fn write_code(&mut self, out: &mut String) -> std::fmt::Result {
        let linear = self.code_address(self.cpu.rip());
        let mut code = [0; CODE_BYTES];
        let length = self.peek(linear, &mut code);
        if length == 0 {
            return writeln!(out, "code at {linear:016x}: not readable (not mapped, or not RAM)");
        }
        let bytes: Vec<String> = code[..length].iter().map(|b| format!("{b:02x}")).collect();
        writeln!(out, "code at {linear:016x}: {}", bytes.join(" "))?;
        writeln!(out, "next instruction: {}", trace::disassemble(&code[..length], self.cpu.rip(), self.cpu.mode))
    }
}
