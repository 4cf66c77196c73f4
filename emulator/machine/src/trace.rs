//! One instruction at a time, with its text.

use crate::{Exit, Machine};
use cpu::mode::Mode;
use iced_x86::{Decoder, DecoderOptions, Formatter, GasFormatter};
use x86::Exception;
use x86::exception::pf;
use x86::platform::VirtualTime;

/// Longest instruction (SDM Vol. 2A, section 2.3.11).
const MAX_INSN: usize = 15;

/// An instruction about to be executed, or interrupted at its boundary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TracedInsn {
    pub icount: u64,
    pub rip: u64,
    pub cpl: u8,
    pub mode: Mode,
    /// AT&T syntax, as objdump and GDB print it.
    pub text: String,
}

impl Machine {
    /// The instruction at `rip` in the current mode and code segment.
    pub fn insn_at(&mut self, rip: u64) -> TracedInsn {
        let linear = self.code_address(rip);
        let mut code = [0; MAX_INSN];
        let length = self.peek(linear, &mut code);
        let mode = self.cpu.mode;
        let text = if length == 0 { "(not readable)".into() } else { disassemble(&code[..length], rip, mode) };
        TracedInsn { icount: self.cpu.icount(), rip, cpl: self.cpu.cpl, mode, text }
    }

    /// Executes until one more instruction has retired (REP: one iteration), up to the virtual time `time`. Slow: each step
    /// enters and leaves the run loop.
    pub fn step(&mut self, time: VirtualTime) -> Exit {
        self.run_until(self.cpu.icount().saturating_add(1), time)
    }
}

/// AT&T text of the first instruction in `code`, which is at `rip`.
pub fn disassemble(code: &[u8], rip: u64, mode: Mode) -> String {
    let mut decoder = Decoder::with_ip(mode.bitness(), code, rip, DecoderOptions::NONE);
    let insn = decoder.decode();
    if insn.is_invalid() {
        return "(bad)".into();
    }
    let mut text = String::new();
    GasFormatter::new().format(&insn, &mut text);
    text
}

/// The mode in words.
pub fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Real => "real mode",
        Mode::Virtual8086 => "virtual-8086 mode",
        Mode::Protected16 => "16-bit protected mode",
        Mode::Protected32 => "32-bit protected mode",
        Mode::Long64 => "64-bit mode",
    }
}

/// The SDM's mnemonic, with error code and address: `#PF(0002: write, not present) of 0000000000001000`.
pub fn describe(e: Exception) -> String {
    let name = match e {
        Exception::DivideError => "#DE",
        Exception::Debug(bits) => return format!("#DB (DR6 {bits:04x})"),
        Exception::Nmi => "NMI",
        Exception::Breakpoint => "#BP",
        Exception::Overflow => "#OF",
        Exception::BoundRange => "#BR",
        Exception::InvalidOpcode => "#UD",
        Exception::DeviceNotAvailable => "#NM",
        Exception::DoubleFault => "#DF",
        Exception::InvalidTss(_) => "#TS",
        Exception::SegmentNotPresent(_) => "#NP",
        Exception::StackFault(_) => "#SS",
        Exception::GeneralProtection(_) => "#GP",
        Exception::PageFault { address, code } => return page_fault(address, code),
        Exception::X87FloatingPoint => "#MF",
        Exception::AlignmentCheck => "#AC",
        Exception::MachineCheck => "#MC",
        Exception::SimdFloatingPoint => "#XM",
    };
    match e.error_code() {
        Some(code) => format!("{name}({code:04x})"),
        None => name.into(),
    }
}

fn page_fault(address: u64, code: u32) -> String {
    let access = match (code & pf::ID != 0, code & pf::WR != 0) {
        (true, _) => "fetch",
        (_, true) => "write",
        _ => "read",
    };
    let who = if code & pf::US != 0 { "user " } else { "" };
    let why = match (code & pf::RSVD != 0, code & pf::P != 0) {
        (true, _) => "reserved bit set",
        (_, true) => "not allowed",
        _ => "not present",
    };
    format!("#PF({code:04x}: {who}{access}, {why}) of {address:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exceptions_read_like_the_manual() {
        assert_eq!(describe(Exception::GP0), "#GP(0000)");
        assert_eq!(describe(Exception::UD), "#UD");
        let e = Exception::PageFault { address: 0x1000, code: pf::WR | pf::US };
        assert_eq!(describe(e), "#PF(0006: user write, not present) of 0000000000001000");
    }

    #[test]
    fn code_is_shown_in_at_and_t_syntax() {
        assert_eq!(disassemble(&[0x0F, 0x0B], 0, Mode::Long64), "ud2");
        assert_eq!(disassemble(&[0x48, 0x89, 0xD8], 0, Mode::Long64), "mov %rbx,%rax");
        assert_eq!(disassemble(&[0x0F], 0, Mode::Long64), "(bad)");
    }
}
