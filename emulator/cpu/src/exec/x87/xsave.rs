//! FXSAVE, FXRSTOR (SDM Vol. 1, section 10.5) and the XSAVE feature set (SDM Vol. 1, ch. 13) with the state components
//! x87 and SSE. Compaction (XSAVEC, XSAVES) is not enumerated: CPUID.(EAX=0DH,ECX=1):EAX is 1, XSAVEOPT alone.

use super::f80;
use super::spec::{FOP, tag};
use crate::mmu::Access;
use crate::state::{Cpu, X87};
use iced_x86::{Code, Instruction, Register};
use x86::Exception;
use x86::cr::{cr0, cr4};

/// Layout of the legacy region (SDM Vol. 1, tables 10-2 and 13-1).
mod legacy {
    /// FCW to FDP and FDS.
    pub const X87_HEADER: usize = 24;
    /// MXCSR, then MXCSR_MASK.
    pub const MXCSR: usize = 24;
    /// ST(0) to ST(7), 16 bytes each.
    pub const REGISTERS: usize = 32;
    pub const XMM: usize = 160;
    pub const SIZE: usize = 512;
    pub const FXSAVE_ALIGNMENT: u64 = 16;
}

/// The XSAVE header (SDM Vol. 1, section 13.4.2).
mod header {
    pub const XSTATE_BV: usize = 512;
    pub const XCOMP_BV: usize = 520;
    /// XSTATE_BV, XCOMP_BV and the eight bytes after them, which the standard form wants to be 0.
    pub const CHECKED: usize = 24;
    pub const SIZE: usize = 64;
    pub const ALIGNMENT: u64 = 64;
}

/// State components (SDM Vol. 1, section 13.1).
const X87_COMPONENT: u64 = 1 << 0;
const SSE_COMPONENT: u64 = 1 << 1;
/// What XCR0 may hold.
const SUPPORTED: u64 = X87_COMPONENT | SSE_COMPONENT;

/// The bits of MXCSR that may be set (DAZ included): MXCSR_MASK.
const MXCSR_WRITABLE: u32 = 0xFFFF;

const XSAVE_SIZE: usize = legacy::SIZE + header::SIZE;

/// XMM registers an image holds: XMM8 to XMM15 belong to 64-bit mode.
fn xmm_count(cpu: &Cpu) -> usize {
    if cpu.mode.is_long64() { 16 } else { 8 }
}

impl X87 {
    /// The first 24 bytes. With REX.W pointers have 64 bits, else 32 and a selector (always 0).
    fn legacy_header(&self, rex_w: bool) -> [u8; legacy::X87_HEADER] {
        let mut image = [0; legacy::X87_HEADER];
        image[0..2].copy_from_slice(&self.fcw.to_le_bytes());
        image[2..4].copy_from_slice(&self.fsw.to_le_bytes());
        // Abridged tags: 1 for a register that is not empty.
        image[4] = (0..8).fold(0, |byte, r| byte | u8::from(self.ftw >> (2 * r) & 3 != tag::EMPTY) << r);
        image[6..8].copy_from_slice(&(self.fop & FOP).to_le_bytes());
        if rex_w {
            image[8..16].copy_from_slice(&self.fip.to_le_bytes());
            image[16..24].copy_from_slice(&self.fdp.to_le_bytes());
        } else {
            image[8..12].copy_from_slice(&(self.fip as u32).to_le_bytes());
            image[12..14].copy_from_slice(&self.fcs.to_le_bytes());
            image[16..20].copy_from_slice(&(self.fdp as u32).to_le_bytes());
            image[20..22].copy_from_slice(&self.fds.to_le_bytes());
        }
        image
    }

    fn set_legacy(&mut self, image: &[u8; legacy::SIZE], rex_w: bool) {
        let word = |at: usize| u16::from_le_bytes([image[at], image[at + 1]]);
        let qword = |at: usize| {
            u64::from(word(at))
                | u64::from(word(at + 2)) << 16
                | u64::from(word(at + 4)) << 32
                | u64::from(word(at + 6)) << 48
        };
        self.fsw = word(2);
        let top = self.top();
        for (i, bytes) in image[legacy::REGISTERS..legacy::XMM].chunks_exact(16).enumerate() {
            let mut raw = [0; 16];
            raw.copy_from_slice(bytes);
            self.regs[(top + i) & 7] = u128::from_le_bytes(raw) & f80::MASK;
        }
        let abridged = image[4];
        self.set_tags((0..8).fold(0, |word, r| word | if abridged >> r & 1 != 0 { 0 } else { tag::EMPTY << (2 * r) }));
        self.fop = word(6) & FOP;
        let pointer = if rex_w { u64::MAX } else { 0xFFFF_FFFF };
        self.fip = qword(8) & pointer;
        self.fdp = qword(16) & pointer;
        self.set_control(word(0));
    }

    /// True in the initial configuration (SDM Vol. 1, section 13.6).
    fn is_initial(&self) -> bool {
        let init = X87::default();
        self.fcw == init.fcw
            && self.fsw == init.fsw
            && self.ftw == tag::ALL_EMPTY
            && (self.fop, self.fip, self.fdp) == (0, 0, 0)
            && self.regs.iter().all(|r| r & f80::MASK == 0)
    }
}

fn rex_w(code: Code) -> bool {
    use Code::*;
    matches!(code, Fxsave64_m512byte | Fxrstor64_m512byte | Xsave64_mem | Xsaveopt64_mem | Xrstor64_mem)
}

fn mxcsr_image(cpu: &Cpu) -> [u8; 8] {
    (u64::from(MXCSR_WRITABLE) << 32 | u64::from(cpu.mxcsr)).to_le_bytes()
}

/// The register parts as they follow each other in memory.
fn register_image(registers: &[u128]) -> Vec<u8> {
    registers.iter().flat_map(|r| r.to_le_bytes()).collect()
}

fn x87_registers(cpu: &Cpu) -> Vec<u8> {
    register_image(&std::array::from_fn::<u128, 8, _>(|i| cpu.x87.st(i)))
}

fn aligned(linear: u64, alignment: u64) -> Result<u64, Exception> {
    if linear.is_multiple_of(alignment) { Ok(linear) } else { Err(Exception::GP0) }
}

/// FXSAVE, FXSAVE64. Neither #MF nor a change of the FPU. Reserved bytes and those for software are not written; XMM
/// registers and MXCSR only with CR4.OSFXSR.
pub(super) fn fxsave(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    if cpu.cr0 & (cr0::EM | cr0::TS) != 0 {
        return Err(Exception::DeviceNotAvailable);
    }
    let linear = cpu.linear_address(insn, legacy::SIZE, Access::Write)?;
    let linear = aligned(linear, legacy::FXSAVE_ALIGNMENT)?;
    // Bytes that are not written belong to the operand all the same.
    cpu.probe_write(linear, legacy::SIZE)?;
    let sse = cpu.cr4 & cr4::OSFXSR != 0;
    let mut image = cpu.x87.legacy_header(rex_w(insn.code())).to_vec();
    if sse {
        image.extend(mxcsr_image(cpu));
        image.extend(x87_registers(cpu));
        image.extend(register_image(&cpu.xmm[..xmm_count(cpu)]));
        return cpu.write_linear(linear, &image);
    }
    cpu.write_linear(linear, &image)?;
    let registers = x87_registers(cpu);
    cpu.write_linear(linear.wrapping_add(legacy::REGISTERS as u64), &registers)
}

fn read_mxcsr(image: &[u8; legacy::SIZE]) -> Result<u32, Exception> {
    let m = legacy::MXCSR;
    let value = u32::from_le_bytes([image[m], image[m + 1], image[m + 2], image[m + 3]]);
    if value & !MXCSR_WRITABLE != 0 { Err(Exception::GP0) } else { Ok(value) }
}

fn load_xmm(cpu: &mut Cpu, image: &[u8; legacy::SIZE]) {
    let count = xmm_count(cpu);
    for (register, bytes) in cpu.xmm[..count].iter_mut().zip(image[legacy::XMM..].chunks_exact(16)) {
        let mut raw = [0; 16];
        raw.copy_from_slice(bytes);
        *register = u128::from_le_bytes(raw);
    }
}

/// FXRSTOR, FXRSTOR64.
pub(super) fn fxrstor(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    if cpu.cr0 & (cr0::EM | cr0::TS) != 0 {
        return Err(Exception::DeviceNotAvailable);
    }
    let linear = cpu.linear_address(insn, legacy::SIZE, Access::Read)?;
    let linear = aligned(linear, legacy::FXSAVE_ALIGNMENT)?;
    let mut image = [0; legacy::SIZE];
    cpu.read_linear(linear, &mut image)?;
    if cpu.cr4 & cr4::OSFXSR != 0 {
        cpu.mxcsr = read_mxcsr(&image)?;
        load_xmm(cpu, &image);
    }
    cpu.x87.set_legacy(&image, rex_w(insn.code()));
    Ok(())
}

/// #UD, #NM; the requested-feature bitmap and the aligned address of the XSAVE area.
fn begin_xsave(cpu: &Cpu, insn: &Instruction, access: Access) -> Result<(u64, u64), Exception> {
    if cpu.cr4 & cr4::OSXSAVE == 0 {
        return Err(Exception::UD);
    }
    if cpu.cr0 & cr0::TS != 0 {
        return Err(Exception::DeviceNotAvailable);
    }
    let requested = cpu.reg(Register::EDX) << 32 | cpu.reg(Register::EAX);
    let linear = cpu.linear_address(insn, XSAVE_SIZE, access)?;
    Ok((requested & cpu.xcr0 & SUPPORTED, aligned(linear, header::ALIGNMENT)?))
}

/// XSAVE and, if `optimized`, XSAVEOPT: which does not write components in their initial configuration. The modified
/// optimization is not used, so that memory does not depend on what was restored before.
pub(super) fn xsave(cpu: &mut Cpu, insn: &Instruction, optimized: bool) -> Result<(), Exception> {
    let (requested, linear) = begin_xsave(cpu, insn, Access::Write)?;
    cpu.probe_write(linear, XSAVE_SIZE)?;
    let at = |offset: usize| linear.wrapping_add(offset as u64);
    let old = cpu.read_u64(at(header::XSTATE_BV))?;
    let mut in_use = 0;
    if !cpu.x87.is_initial() {
        in_use |= X87_COMPONENT;
    }
    if cpu.xmm[..xmm_count(cpu)].iter().any(|r| *r != 0) {
        in_use |= SSE_COMPONENT;
    }
    let write = if optimized { requested & in_use } else { requested };
    if write & X87_COMPONENT != 0 {
        let start = cpu.x87.legacy_header(rex_w(insn.code()));
        cpu.write_linear(linear, &start)?;
        let registers = x87_registers(cpu);
        cpu.write_linear(at(legacy::REGISTERS), &registers)?;
    }
    // MXCSR belongs to no component's initial configuration: it is written if SSE is requested at all.
    if requested & SSE_COMPONENT != 0 {
        let mxcsr = mxcsr_image(cpu);
        cpu.write_linear(at(legacy::MXCSR), &mxcsr)?;
    }
    if write & SSE_COMPONENT != 0 {
        let registers = register_image(&cpu.xmm[..xmm_count(cpu)]);
        cpu.write_linear(at(legacy::XMM), &registers)?;
    }
    cpu.write_u64(at(header::XSTATE_BV), old & !requested | in_use & requested)
}

/// XRSTOR, standard form.
pub(super) fn xrstor(cpu: &mut Cpu, insn: &Instruction) -> Result<(), Exception> {
    let (requested, linear) = begin_xsave(cpu, insn, Access::Read)?;
    let mut image = [0; legacy::SIZE];
    let mut head = [0; header::CHECKED];
    cpu.read_linear(linear.wrapping_add(header::XSTATE_BV as u64), &mut head)?;
    let (bv, rest) = head.split_at(header::XCOMP_BV - header::XSTATE_BV);
    let present = bv.iter().rev().fold(0, |v, b| v << 8 | u64::from(*b));
    if present & !cpu.xcr0 != 0 || rest.iter().any(|b| *b != 0) {
        return Err(Exception::GP0);
    }
    cpu.read_linear(linear, &mut image)?;
    let mxcsr = if requested & SSE_COMPONENT != 0 { Some(read_mxcsr(&image)?) } else { None };
    if requested & X87_COMPONENT != 0 {
        if present & X87_COMPONENT != 0 {
            cpu.x87.set_legacy(&image, rex_w(insn.code()));
        } else {
            cpu.x87 = X87::default();
        }
    }
    if let Some(mxcsr) = mxcsr {
        cpu.mxcsr = mxcsr;
        if present & SSE_COMPONENT == 0 {
            image[legacy::XMM..].fill(0);
        }
        load_xmm(cpu, &image);
    }
    Ok(())
}

/// XGETBV. ECX = 1 needs CPUID.(EAX=0DH,ECX=1):EAX[2], which is not enumerated.
pub(super) fn xgetbv(cpu: &mut Cpu, _insn: &Instruction) -> Result<(), Exception> {
    if cpu.cr4 & cr4::OSXSAVE == 0 {
        return Err(Exception::UD);
    }
    if cpu.reg(Register::ECX) != 0 {
        return Err(Exception::GP0);
    }
    cpu.set_reg(Register::RAX, cpu.xcr0 & 0xFFFF_FFFF);
    cpu.set_reg(Register::RDX, cpu.xcr0 >> 32);
    Ok(())
}

/// XSETBV.
pub(super) fn xsetbv(cpu: &mut Cpu, _insn: &Instruction) -> Result<(), Exception> {
    if cpu.cr4 & cr4::OSXSAVE == 0 {
        return Err(Exception::UD);
    }
    let value = cpu.reg(Register::EDX) << 32 | cpu.reg(Register::EAX);
    if cpu.cpl != 0 || cpu.reg(Register::ECX) != 0 || value & !SUPPORTED != 0 || value & X87_COMPONENT == 0 {
        return Err(Exception::GP0);
    }
    cpu.xcr0 = value;
    Ok(())
}
