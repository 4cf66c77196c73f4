//! Control instructions and the environment and state images (SDM Vol. 1, sections 8.1.10 and 8.3.11).

use super::f80;
use super::spec::{FOP, cw, sw};
use super::stack::{begin, begin_control, pending};
use crate::mmu::Access;
use crate::state::{Cpu, X87};
use iced_x86::{Code, Instruction};
use x86::Exception;
use x86::cr::cr0;

/// The four environment formats (SDM Vol. 1, figures 8-9 to 8-12). 64-bit mode uses the protected ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Format {
    /// 28 bytes rather than 14.
    pub wide: bool,
    pub protected: bool,
}

/// Bytes of one register in an FNSAVE image.
const REGISTER: usize = 10;
const MAX_ENVIRONMENT: usize = 28;
const MAX_STATE: usize = MAX_ENVIRONMENT + 8 * REGISTER;

impl Format {
    fn of(cpu: &Cpu, insn: &Instruction) -> Format {
        use Code::*;
        let narrow = matches!(
            insn.code(),
            Fldenv_m14byte | Fnstenv_m14byte | Fstenv_m14byte | Frstor_m94byte | Fnsave_m94byte | Fsave_m94byte
        );
        Format { wide: !narrow, protected: cpu.mode.is_protected() }
    }

    /// Bytes of one of the seven fields.
    fn field(self) -> usize {
        if self.wide { 4 } else { 2 }
    }

    pub(super) fn environment(self) -> usize {
        7 * self.field()
    }
}

/// Upper halves of 32-bit fields that hold 16 bits are stored as ones.
const RESERVED: u32 = 0xFFFF_0000;

impl X87 {
    /// The environment image, [`Format::environment`] bytes of it.
    pub(super) fn environment(&self, format: Format) -> [u8; MAX_ENVIRONMENT] {
        let (fip, fdp, fop) = (self.fip as u32, self.fdp as u32, u32::from(self.fop & FOP));
        let pad = |v: u16| u32::from(v) | RESERVED;
        let (ip, code, dp, data) = match format {
            Format { protected: true, .. } => (fip, u32::from(self.fcs) | fop << 16, fdp, pad(self.fds)),
            // Linear addresses (offsets, as FCS and FDS are 0), of which the upper bits follow at bit 12.
            Format { protected: false, wide: true } => {
                (fip | RESERVED, fip >> 16 << 12 | fop, fdp | RESERVED, fdp >> 16 << 12)
            }
            Format { protected: false, wide: false } => (fip, fip >> 4 & 0xF000 | fop, fdp, fdp >> 4 & 0xF000),
        };
        let fields = [pad(self.fcw), pad(self.fsw), pad(self.full_tags()), ip, code, dp, data];
        let mut image = [0; MAX_ENVIRONMENT];
        let n = format.field();
        for (bytes, field) in image.chunks_exact_mut(n).zip(fields) {
            bytes.copy_from_slice(&field.to_le_bytes()[..n]);
        }
        image
    }

    /// Loads an environment image; the registers must be loaded already. Selectors are ignored: FCS and FDS are always 0
    /// (CPUID.(EAX=07H,ECX=0):EBX[13]).
    pub(super) fn set_environment(&mut self, format: Format, image: &[u8]) {
        let n = format.field();
        let mut fields = [0u32; 7];
        for (field, bytes) in fields.iter_mut().zip(image.chunks_exact(n)) {
            let mut raw = [0; 4];
            raw[..n].copy_from_slice(bytes);
            *field = u32::from_le_bytes(raw);
        }
        let [control, status, tags, ip, code, dp, data] = fields;
        let (ip, dp, fop) = match format {
            Format { protected: true, wide: true } => (ip, dp, code >> 16),
            // The 16-bit protected format has no opcode.
            Format { protected: true, wide: false } => (ip, dp, 0),
            Format { protected: false, wide } => {
                let upper = |v: u32| if wide { v >> 12 << 16 } else { v >> 12 << 16 & 0xF_0000 };
                (ip & 0xFFFF | upper(code), dp & 0xFFFF | upper(data), code)
            }
        };
        self.fip = u64::from(ip);
        self.fdp = u64::from(dp);
        self.fop = fop as u16 & FOP;
        self.fsw = status as u16;
        self.set_tags(tags as u16);
        self.set_control(control as u16);
    }

    /// FNCLEX.
    pub(super) fn clear_exceptions(&mut self) {
        self.fsw &= !(sw::EXCEPTIONS | sw::SF | sw::ES | sw::B);
    }
}

/// FLDCW.
pub(super) fn load_control(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    begin(cpu)?;
    let linear = cpu.linear_address(insn, 2, Access::Read)?;
    let value = cpu.read_u16(linear)?;
    cpu.x87.set_control(value);
    Ok(())
}

/// True for the forms with a WAIT prefix, which iced only encodes: FSTCW and the like.
fn waits(code: Code) -> bool {
    use Code::*;
    matches!(
        code,
        Fstcw_m2byte
            | Fstsw_m2byte
            | Fstsw_AX
            | Fstenv_m14byte
            | Fstenv_m28byte
            | Fsave_m94byte
            | Fsave_m108byte
            | Fclex
            | Finit
            | Feni
            | Fdisi
            | Fsetpm
    )
}

fn begin_no_wait(cpu: &Cpu, insn: &Instruction) -> Result<(), Exception> {
    begin_control(cpu)?;
    if waits(insn.code()) { pending(cpu) } else { Ok(()) }
}

/// FNSTCW and FNSTSW to memory.
pub(super) fn store_word(cpu: &mut Cpu, insn: &Instruction, word: fn(&X87) -> u16) -> Result<(), Exception> {
    begin_no_wait(cpu, insn)?;
    let linear = cpu.linear_address(insn, 2, Access::Write)?;
    let value = word(&cpu.x87);
    cpu.write_u16(linear, value)
}

/// FNSTSW AX.
pub(super) fn status_to_ax(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    begin_no_wait(cpu, insn)?;
    cpu.set_reg(iced_x86::Register::AX, u64::from(cpu.x87.fsw));
    Ok(())
}

/// FNINIT, FNCLEX and the no-operations FNENI, FNDISI and FNSETPM of the 8087 and 80287.
pub(super) fn no_wait(cpu: &mut Cpu, insn: &Instruction, f: fn(&mut X87)) -> Result<(), Exception> {
    begin_no_wait(cpu, insn)?;
    f(&mut cpu.x87);
    Ok(())
}

/// FINCSTP, FDECSTP: TOP moves, tags do not.
pub(super) fn rotate(x87: &mut X87, by: usize) {
    x87.set_top(x87.top().wrapping_add(by));
    x87.set_codes(sw::C1, 0);
}

/// FNSTENV: masks all exceptions after the store.
pub(super) fn store_environment(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    begin_no_wait(cpu, insn)?;
    let format = Format::of(cpu, insn);
    let linear = cpu.linear_address(insn, format.environment(), Access::Write)?;
    let image = cpu.x87.environment(format);
    cpu.write_linear(linear, &image[..format.environment()])?;
    cpu.x87.set_control(cpu.x87.fcw | cw::MASKS);
    Ok(())
}

/// FLDENV. An exception that the image leaves unmasked is raised by the next waiting instruction.
pub(super) fn load_environment(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    begin(cpu)?;
    let format = Format::of(cpu, insn);
    let linear = cpu.linear_address(insn, format.environment(), Access::Read)?;
    let mut image = [0; MAX_ENVIRONMENT];
    cpu.read_linear(linear, &mut image[..format.environment()])?;
    cpu.x87.set_environment(format, &image);
    Ok(())
}

/// FNSAVE: the environment and the registers in stack order, then FNINIT.
pub(super) fn save(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    begin_no_wait(cpu, insn)?;
    let format = Format::of(cpu, insn);
    let size = format.environment() + 8 * REGISTER;
    let linear = cpu.linear_address(insn, size, Access::Write)?;
    let mut image = [0; MAX_STATE];
    image[..format.environment()].copy_from_slice(&cpu.x87.environment(format)[..format.environment()]);
    for (i, bytes) in image[format.environment()..size].chunks_exact_mut(REGISTER).enumerate() {
        bytes.copy_from_slice(&cpu.x87.st(i).to_le_bytes()[..REGISTER]);
    }
    cpu.write_linear(linear, &image[..size])?;
    cpu.x87.init();
    Ok(())
}

/// FRSTOR.
pub(super) fn restore(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    begin(cpu)?;
    let format = Format::of(cpu, insn);
    let size = format.environment() + 8 * REGISTER;
    let linear = cpu.linear_address(insn, size, Access::Read)?;
    let mut image = [0; MAX_STATE];
    cpu.read_linear(linear, &mut image[..size])?;
    let top = usize::from(image[format.field() + 1] >> 3 & 7);
    for (i, bytes) in image[format.environment()..size].chunks_exact(REGISTER).enumerate() {
        let mut raw = [0; 16];
        raw[..REGISTER].copy_from_slice(bytes);
        cpu.x87.regs[(top + i) & 7] = u128::from_le_bytes(raw) & f80::MASK;
    }
    cpu.x87.set_environment(format, &image);
    Ok(())
}

/// WAIT: #NM only if CR0.MP and CR0.TS are both set; CR0.EM does not matter.
pub(super) fn wait(cpu: &mut Cpu, _insn: &Instruction) -> Result<(), Exception> {
    if cpu.cr0 & (cr0::MP | cr0::TS) == cr0::MP | cr0::TS {
        return Err(Exception::DeviceNotAvailable);
    }
    pending(cpu)
}
