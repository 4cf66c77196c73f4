//! Memory operands: address forms whose registers are chosen so that they meet, what lies there, and what else an
//! instruction reaches through its implied operands.

use super::Draft;
use crate::forms::Form;
use crate::layout::{CODE, CODE_FIRST, DATA, DATA_BYTES, PAGE, READ_ONLY, STACK, arena_index, in_code};
use crate::state::State;
use iced_x86::{Code, Instruction, MemorySize, Mnemonic, OpCodeOperandKind as K, OpKind, Register};

fn gpr64(n: u64) -> Register {
    Register::RAX + n as u32
}

impl Draft<'_> {
    /// A linear address for an operand of `bytes`: in the data pages, at their ends, and where accesses fault.
    fn data_address(&mut self, bytes: u64, align: bool) -> u64 {
        let bytes = bytes.min(1024);
        let end = DATA + DATA_BYTES;
        let middle = DATA + PAGE as u64;
        match self.rng.below(40) {
            0 => middle - 1 - self.rng.below(bytes.max(2)),
            1 => end - 1 - self.rng.below(bytes.max(2) + 8),
            2 => READ_ONLY + (self.rng.below(PAGE as u64 - bytes) & !0x3F),
            3 => self.rng.pick(&[0, 8, DATA - 16, end, 0x7FFF_0000, READ_ONLY - 64, 0x7FFF_FFFF_FFF8]),
            4 => self.rng.pick(&[
                0x8000_0000_0000_0000,
                0x0000_8000_0000_0000,
                0xFFFF_7FFF_FFFF_FFF0,
                0x4000_0000_0000_0010,
                0xFFFF_8000_0000_0000,
                0xFFFF_FFFF_FFFF_FFF0,
            ]),
            5..=14 => DATA + self.rng.below(DATA_BYTES - bytes),
            _ if align => DATA + 0x100 + (self.rng.below(DATA_BYTES - bytes - 0x200) & !0x3F),
            _ => DATA + (self.rng.below(DATA_BYTES - bytes) & !0xF),
        }
    }

    /// Draws an address form for the memory operand and sets the registers that it adds up from.
    pub fn memory_operand(&mut self, insn: &mut Instruction, form: Form) {
        let moffs = form.code.op_code().op_kinds().contains(&K::mem_offs);
        let size = form.code.op_code().memory_size();
        let wide = matches!(
            size,
            MemorySize::Fxsave_512Byte | MemorySize::Fxsave64_512Byte | MemorySize::Xsave | MemorySize::Xsave64
        );
        let bytes = if wide { 576 } else { (size.size() as u64).max(1) };
        let align = wide && !self.rng.one_in(8);
        let mut linear = self.data_address(bytes, align);
        if self.bits == 32 {
            linear &= 0xFFFF_FFFF;
        }
        let mut target = linear;
        let mut segment_base = 0;
        if self.bits == 64 && self.rng.one_in(16) {
            let (register, base) =
                if self.rng.one_in(2) { (Register::FS, self.pre.fs_base) } else { (Register::GS, self.pre.gs_base) };
            insn.set_segment_prefix(register);
            segment_base = base;
            target = linear.wrapping_sub(base);
        }
        if moffs {
            insn.set_memory_displacement64(target);
            insn.set_memory_displ_size(self.bits / 8);
            return;
        }
        let fits32 = target >> 32 == 0 && segment_base >> 32 == 0;
        let narrow = self.bits == 32 || fits32 && self.rng.one_in(8);
        let low = (target as i64) == i64::from(target as i32);
        match self.rng.below(16) {
            0 if low || narrow => self.plain_displacement(insn, target, narrow),
            1 if self.bits == 64 && target.abs_diff(self.pre.rip) < 1 << 30 => {
                insn.set_memory_base(if narrow { Register::EIP } else { Register::RIP });
                insn.set_memory_displacement64(target);
                insn.set_memory_displ_size(if narrow { 4 } else { 8 });
            }
            2..=6 => self.base_index(insn, target, narrow, true),
            7 => self.base_index(insn, target, narrow, false),
            _ => {
                let base = self.rng.below(self.registers_of_mode());
                let disp = self.displacement();
                self.set_address_register(base, target.wrapping_sub(disp as u64), narrow);
                insn.set_memory_base(address_register(base, narrow));
                set_displacement(insn, disp, narrow, self.rng.one_in(4));
            }
        }
    }

    fn plain_displacement(&mut self, insn: &mut Instruction, target: u64, narrow: bool) {
        insn.set_memory_displacement64(target);
        insn.set_memory_displ_size(if narrow { 4 } else { 8 });
    }

    fn base_index(&mut self, insn: &mut Instruction, target: u64, narrow: bool, with_base: bool) {
        // RSP cannot be an index.
        let index = loop {
            let n = self.rng.below(self.registers_of_mode());
            if n != 4 {
                break n;
            }
        };
        let scale = 1u64 << self.rng.below(4);
        let disp = self.displacement();
        insn.set_memory_index(address_register(index, narrow));
        insn.set_memory_index_scale(scale as u32);
        let sum = target.wrapping_sub(disp as u64);
        if !with_base {
            // The remainder goes into the displacement.
            let disp = disp.wrapping_add((sum % scale) as i64);
            self.set_address_register(index, target.wrapping_sub(disp as u64) / scale, narrow);
            set_displacement(insn, disp, narrow, true);
            return;
        }
        let base = self.rng.below(self.registers_of_mode());
        insn.set_memory_base(address_register(base, narrow));
        if base == index {
            let factor = scale + 1;
            let disp = disp.wrapping_add((sum % factor) as i64);
            self.set_address_register(base, target.wrapping_sub(disp as u64) / factor, narrow);
            set_displacement(insn, disp, narrow, true);
            return;
        }
        let value = match self.rng.below(3) {
            0 => self.rng.int(),
            1 => self.rng.below(256),
            _ => self.rng.bits(),
        };
        self.set_address_register(index, value, narrow);
        let value = if narrow { value & 0xFFFF_FFFF } else { value };
        self.set_address_register(base, sum.wrapping_sub(value.wrapping_mul(scale)), narrow);
        set_displacement(insn, disp, narrow, self.rng.one_in(4));
    }

    fn displacement(&mut self) -> i64 {
        match self.rng.below(6) {
            0 | 1 => 0,
            2 | 3 => i64::from(self.rng.int() as i8),
            4 => i64::from(self.rng.int() as i16),
            _ => i64::from(self.rng.int() as i32),
        }
    }

    /// With a 32-bit address size the upper half of the register must not matter.
    fn set_address_register(&mut self, n: u64, value: u64, narrow: bool) {
        let upper = if narrow { self.rng.bits() & !0xFFFF_FFFF } else { 0 };
        self.pre.gpr[n as usize] = if narrow { value & 0xFFFF_FFFF | upper } else { value };
    }

    pub fn operand_address(&self) -> Option<u64> {
        operand_address(&self.insn, &self.pre)
    }

    /// Where the instruction loads MXCSR from.
    pub fn mxcsr_address(&self) -> Option<u64> {
        let at = self.operand_address()?;
        match self.insn.mnemonic() {
            Mnemonic::Ldmxcsr => Some(at),
            Mnemonic::Fxrstor | Mnemonic::Fxrstor64 | Mnemonic::Xrstor | Mnemonic::Xrstor64 => {
                Some(at.wrapping_add(24))
            }
            _ => None,
        }
    }

    pub fn segment_base(&self) -> u64 {
        segment_base(&self.insn, &self.pre)
    }

    /// Sets what the instruction reaches without naming it: string pointers and counts, the stack, branch targets.
    pub fn implied_operands(&mut self) {
        let insn = self.insn;
        let m = insn.mnemonic();
        let narrow =
            insn.op_kinds().any(|k| matches!(k, OpKind::MemorySegESI | OpKind::MemoryESEDI | OpKind::MemorySegEDI));
        if insn.is_string_instruction() || matches!(m, Mnemonic::Maskmovq | Mnemonic::Maskmovdqu) {
            for n in [6, 7] {
                let linear = self.data_address(16, false);
                let base = if n == 6 || !insn.is_string_instruction() { self.segment_base() } else { 0 };
                let value = linear.wrapping_sub(base);
                self.set_address_register(n, value, narrow && value >> 32 == 0);
            }
            let count = match self.rng.below(16) {
                0 => self.rng.int(),
                1 => self.rng.below(5000),
                2 => 0,
                _ => self.rng.below(40),
            };
            self.pre.gpr[1] = if narrow { count & 0xFFFF_FFFF | self.rng.bits() << 32 } else { count };
        }
        if m == Mnemonic::Xlatb {
            let linear = self.data_address(256, false);
            let value = linear.wrapping_sub(self.segment_base()).wrapping_sub(self.pre.gpr[0] & 0xFF);
            let narrow = insn.memory_base() == Register::EBX;
            self.set_address_register(3, value, narrow);
        }
        match m {
            // AMD processors have loaded registers when a later one's slot faults.
            Mnemonic::Popa | Mnemonic::Popad => self.pre.gpr[4] = self.pre.gpr[4].min(STACK + PAGE as u64 - 32),
            // And as for a far CALL below.
            Mnemonic::Pusha | Mnemonic::Pushad => self.pre.gpr[4] = self.pre.gpr[4].max(STACK + 0x20),
            Mnemonic::Enter | Mnemonic::Leave => {
                let frame = STACK + 0x200 + 8 * self.rng.below(0x180);
                self.pre.gpr[5] = if self.rng.one_in(16) { self.pre.gpr[5] } else { frame };
            }
            Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc => self.bit_offset(),
            Mnemonic::Div | Mnemonic::Idiv => self.dividend(),
            Mnemonic::Loop | Mnemonic::Loope | Mnemonic::Loopne | Mnemonic::Jecxz | Mnemonic::Jrcxz => {
                let edge = self.rng.pick(&[0, 1, 1 << 32, 1 << 32 | 1, 2]);
                self.pre.gpr[1] = if self.rng.one_in(2) { edge } else { self.pre.gpr[1] };
            }
            // AMD processors do not look for a pending exception; see the table on the transition.
            Mnemonic::Cvtpi2ps if insn.op1_kind() == OpKind::Memory => {
                let status = self.pre.get16(2) & !0x80FF;
                self.pre.set16(2, status);
            }
            _ if is_save(&insn) => {
                // Only the components that the model has.
                self.pre.gpr[2] = 0;
                self.pre.gpr[0] &= 3;
            }
            _ => {}
        }
    }

    /// Bit offsets that stay near their operand, which any 64-bit number would not.
    fn bit_offset(&mut self) {
        let insn = self.insn;
        if insn.op0_kind() == OpKind::Memory && insn.op1_kind() == OpKind::Register && !self.rng.one_in(8) {
            let n = insn.op1_register().number();
            if insn.memory_base().number() != n && insn.memory_index().number() != n {
                let offset = self.rng.below(4096) as i64 - 2048;
                let keep = if insn.op1_register().size() == 8 { 0 } else { self.rng.bits() & !0xFFFF_FFFF };
                self.pre.gpr[n] = if keep == 0 { offset as u64 } else { keep | offset as u32 as u64 };
            }
        }
    }

    /// Dividends whose quotient often fits.
    fn dividend(&mut self) {
        if self.rng.one_in(4) {
            return;
        }
        let signed = self.insn.mnemonic() == Mnemonic::Idiv;
        let named = |r: usize| {
            let i = &self.insn;
            (i.op0_kind() == OpKind::Memory
                && (i.memory_base().full_register().number() == r && i.memory_base() != Register::None
                    || i.memory_index().full_register().number() == r && i.memory_index() != Register::None))
                || i.op0_kind() == OpKind::Register && i.op0_register().full_register().number() == r
        };
        if !named(2) {
            self.pre.gpr[2] = if signed && self.pre.gpr[0] >> 63 != 0 { u64::MAX } else { self.rng.below(3) };
        }
        if !named(0) && self.rng.one_in(2) {
            let small = self.rng.below(256) << 4;
            self.pre.gpr[0] = self.pre.gpr[0] & !0xFF00 | small & 0x0F00;
        }
    }

    /// Puts operands and branch targets into memory.
    pub fn fill_memory(&mut self) {
        for (at, len) in self.accesses() {
            if self.rng.one_in(6) || arena_index(at).is_none() && arena_index(at.wrapping_add(len)).is_none() {
                continue;
            }
            let same = self.rng.one_in(4);
            let mut v = self.rng.vector();
            for offset in (0..len.clamp(1, 640)).step_by(16) {
                if !same {
                    v = self.rng.vector();
                }
                self.put(at.wrapping_add(offset), &v.to_le_bytes());
            }
        }
        self.interpret_memory();
        self.selectors();
        self.branch_target();
        let m = self.insn.mnemonic();
        if matches!(m, Mnemonic::Popf | Mnemonic::Popfd | Mnemonic::Popfq) {
            // TF would trap behind the case.
            let at = self.pre.gpr[4];
            let image = self.rng.bits() & !0x100;
            self.put_u64(at, image);
        }
    }

    /// A selector that user code may try: Linux's descriptors, empty ones and ones beyond the table's end. The last
    /// descriptor in the table is left out, since it holds the number of the processor.
    fn selector(&mut self) -> u16 {
        let index = match self.rng.below(8) {
            0 => self.rng.below(15) as u16,
            1 => 0,
            2 => 16 + self.rng.below(200) as u16,
            3 => 4,
            4 | 5 => 6,
            _ => 5,
        };
        let table = u16::from(self.rng.one_in(16)) << 2;
        let rpl = if self.rng.one_in(3) { self.rng.below(4) as u16 } else { 3 };
        index << 3 | table | rpl
    }

    /// Selectors, far pointers and frames of far returns.
    fn selectors(&mut self) {
        let insn = self.insn;
        let m = insn.mnemonic();
        let selector = self.selector();
        let target = CODE_FIRST + self.rng.below(2 * PAGE as u64 - 0x48);
        let target = if target.abs_diff(self.pre.rip) < 48 { CODE_FIRST } else { target };
        let target = if target.abs_diff(self.pre.rip) < 48 { CODE + 2 * PAGE as u64 - 1 } else { target };
        let far = matches!(insn.memory_size(), MemorySize::SegPtr16 | MemorySize::SegPtr32 | MemorySize::SegPtr64);
        let size = insn.memory_size().size() as u64;
        if far {
            if m == Mnemonic::Call {
                // Where a push faults, bytes of the one before it may stand in memory.
                self.pre.gpr[4] = self.pre.gpr[4].max(STACK + 0x20);
            }
            if let Some(at) = self.operand_address() {
                self.put(at, &target.to_le_bytes()[..size as usize - 2]);
                self.put(at.wrapping_add(size - 2), &selector.to_le_bytes());
            }
        } else if matches!(m, Mnemonic::Retf | Mnemonic::Iret | Mnemonic::Iretd | Mnemonic::Iretq) {
            let step = match insn.code() {
                Code::Retfw | Code::Retfw_imm16 | Code::Iretw => 2,
                Code::Retfq | Code::Retfq_imm16 | Code::Iretq => 8,
                _ => 4,
            };
            let stack = STACK + 0x400 + 8 * self.rng.below(0x100);
            // SS is mostly the one that goes with the code.
            let ss = if self.rng.one_in(3) { self.selector() } else { 0x2B };
            let mut flags = self.rng.bits() & 0x3F_FFFF & !0x1_4100;
            if !crate::rules::host_is_amd() {
                // On Intel a frame that is not aligned raises #AC where it sets RFLAGS.AC, with the flag still clear, and Linux
                // takes that for a split lock and tries again for ever.
                flags &= !0x4_0000;
            }
            let frame = [target, u64::from(selector), flags, stack, u64::from(ss)];
            let sp = self.pre.gpr[4];
            for (i, v) in frame.iter().enumerate() {
                self.put(sp.wrapping_add(step * i as u64), &v.to_le_bytes()[..step as usize]);
            }
        } else if matches!(m, Mnemonic::Pop) && insn.op0_register().is_segment_register() {
            let sp = self.pre.gpr[4];
            self.put(sp, &selector.to_le_bytes());
        } else if matches!(m, Mnemonic::Lar | Mnemonic::Lsl | Mnemonic::Verr | Mnemonic::Verw)
            || m == Mnemonic::Mov && insn.op0_register().is_segment_register()
        {
            let n = insn.op_count() - 1;
            if insn.op_kind(n) == OpKind::Register {
                let r = insn.op_register(n).full_register().number();
                self.pre.gpr[r] = self.pre.gpr[r] & !0xFFFF | u64::from(selector);
            } else if let Some(at) = self.operand_address() {
                self.put(at, &selector.to_le_bytes());
            }
        }
    }

    /// Operands of a format of their own.
    fn interpret_memory(&mut self) {
        let Some(at) = self.operand_address() else { return };
        match self.insn.memory_size() {
            MemorySize::Float80 => {
                let v = self.rng.f80();
                self.put(at, &v.to_le_bytes()[..10]);
            }
            MemorySize::Bcd if !self.rng.one_in(4) => {
                for i in 0..9 {
                    let digits = self.rng.below(10) | self.rng.below(10) << 4;
                    self.put(at + i, &[digits as u8]);
                }
                let sign = self.rng.bits() as u8 & 0x80;
                self.put(at + 9, &[sign]);
            }
            MemorySize::Float32 => {
                let v = self.rng.f32();
                self.put(at, &v.to_le_bytes());
            }
            MemorySize::Float64 => {
                let v = self.rng.f64();
                self.put_u64(at, v);
            }
            MemorySize::Fxsave_512Byte | MemorySize::Fxsave64_512Byte => self.save_image(at),
            MemorySize::Xsave | MemorySize::Xsave64 => {
                self.save_image(at);
                // Bit 40 is a component that nobody has.
                let header = if self.rng.one_in(8) { 1 << 40 } else { self.rng.below(4) };
                self.put(at + 512, &[0; 64]);
                self.put_u64(at + 512, header);
            }
            MemorySize::FpuEnv14 | MemorySize::FpuEnv28 | MemorySize::FpuState94 | MemorySize::FpuState108 => {
                let control = self.pre.get16(0);
                self.put(at, &control.to_le_bytes());
            }
            _ => {}
        }
        if matches!(self.insn.mnemonic(), Mnemonic::Ldmxcsr) {
            let mut v = self.rng.bits() as u32;
            v = if self.rng.one_in(4) { v & !(1 << 17) } else { v & 0xFFFF };
            self.put(at, &v.to_le_bytes());
        }
        if matches!(self.insn.mnemonic(), Mnemonic::Cmpxchg8b | Mnemonic::Cmpxchg16b) && self.rng.one_in(2) {
            let half = if self.insn.mnemonic() == Mnemonic::Cmpxchg8b { 4 } else { 8 };
            let (a, d) = (self.pre.gpr[0].to_le_bytes(), self.pre.gpr[2].to_le_bytes());
            self.put(at, &a[..half]);
            self.put(at + half as u64, &d[..half]);
        }
        if self.insn.mnemonic() == Mnemonic::Cmpxchg && self.rng.one_in(2) {
            self.put_u64(at, self.pre.gpr[0]);
        }
    }

    /// A state image that FXRSTOR accepts, most of the time.
    fn save_image(&mut self, at: u64) {
        let image = self.pre.fx;
        self.put(at, &image[..32]);
        for n in 0..8 {
            let v = self.rng.f80();
            self.put(at + 32 + 16 * n, &v.to_le_bytes()[..10]);
        }
        if self.rng.one_in(2) {
            let status = self.rng.bits() as u16;
            self.put(at + 2, &status.to_le_bytes());
            self.put(at + 4, &[status as u8 ^ 0x5A]);
        }
        let mut mxcsr = self.rng.bits() as u32 & 0xFFFF;
        if self.rng.one_in(16) {
            mxcsr |= 1 << (18 + self.rng.below(14));
        }
        self.put(at + 24, &mxcsr.to_le_bytes());
        // FIP and FDP: the processor may or may not load them (see the table of rules).
        self.put(at + 6, &[0; 18]);
    }

    /// Targets of RET and of indirect calls and jumps.
    fn branch_target(&mut self) {
        let insn = self.insn;
        let Some((size, ret)) = near_indirect(insn.code()) else { return };
        let target = loop {
            let t = match self.rng.below(16) {
                0 => self.rng.pick(&[0x0000_8000_0000_0000, 1 << 63, 0xFFFF_7FFF_FFFF_FFFF]),
                1 => DATA + self.rng.below(DATA_BYTES),
                2 => self.rng.pick(&[0, DATA - 1, STACK + 8, 0x7FFF_0000, 0xFFFF_8000_0000_0000]),
                _ => CODE_FIRST + self.rng.below(2 * PAGE as u64 - 0x48),
            };
            // Not into the case itself nor the jump behind it.
            if t.abs_diff(self.pre.rip) > 32 || t < CODE {
                break t;
            }
        };
        if self.bits == 32 && target >> 32 != 0 {
            return;
        }
        if ret {
            let at = self.pre.gpr[4];
            self.put(at, &target.to_le_bytes()[..size]);
        } else if insn.op0_kind() == OpKind::Register {
            self.pre.gpr[insn.op0_register().number()] = target;
        } else if let Some(at) = self.operand_address() {
            self.put(at, &target.to_le_bytes()[..size]);
        }
    }

    /// Address and offset bytes of a far pointer that the instruction jumps to.
    fn far_pointer(&self) -> Option<(u64, u64)> {
        match self.insn.code() {
            Code::Jmp_m1616 | Code::Call_m1616 => Some((self.operand_address()?, 2)),
            Code::Jmp_m1632 | Code::Call_m1632 => Some((self.operand_address()?, 4)),
            Code::Jmp_m1664 | Code::Call_m1664 => Some((self.operand_address()?, 8)),
            Code::Retfw | Code::Retfw_imm16 | Code::Iretw => Some((self.pre.gpr[4], 2)),
            Code::Retfd | Code::Retfd_imm16 | Code::Iretd => Some((self.pre.gpr[4], 4)),
            Code::Retfq | Code::Retfq_imm16 | Code::Iretq => Some((self.pre.gpr[4], 8)),
            _ => None,
        }
    }

    /// True if a branch through memory would go where nobody put a target.
    pub fn wild_branch(&self) -> bool {
        let insn = &self.insn;
        let takes_selector = matches!(insn.mnemonic(), Mnemonic::Lar | Mnemonic::Lsl | Mnemonic::Verr | Mnemonic::Verw)
            || insn.op0_register().is_segment_register();
        if takes_selector && let Some(i) = self.operand_address().and_then(arena_index) {
            // Nothing is known of the processor's own descriptor.
            return self.memory[i] >> 3 == 15 && self.memory.get(i + 1) == Some(&0);
        }
        if let Some((at, step)) = self.far_pointer() {
            // AMD processors push with ESP when a far CALL goes to compatibility mode.
            if insn.mnemonic() == Mnemonic::Call && self.pre.gpr[4] >> 32 != 0 {
                return true;
            }
            // Where the selector is, unless reading it faults.
            let word = |at: u64| arena_index(at).map_or(0, |i| u64::from(self.memory[i]));
            let value = |at: u64, n: u64| (0..n).fold(0, |v, i| v | word(at.wrapping_add(i)) << (8 * i));
            let (offset, selector) = (value(at, step), value(at.wrapping_add(step), 2));
            let bad = !crate::layout::harmless(offset) || in_code(offset) && offset.abs_diff(self.pre.rip) <= 32;
            // Near the processor's own descriptor nothing is known.
            return bad || selector >> 3 == 15 || !in_code(offset) && offset >= 0x1_0000;
        }
        let Some((size, ret)) = near_indirect(insn.code()) else { return false };
        let low = u64::MAX >> (64 - 8 * size);
        let wild =
            |t: u64| !crate::layout::harmless(t) || in_code(t) && (t < CODE_FIRST || t.abs_diff(self.pre.rip) <= 32);
        let at = if ret {
            self.pre.gpr[4]
        } else if insn.op0_kind() == OpKind::Register {
            return wild(self.pre.gpr[insn.op0_register().number()] & low);
        } else {
            match self.operand_address() {
                Some(at) => at,
                None => return false,
            }
        };
        let mut bytes = [0; 8];
        for (i, b) in bytes.iter_mut().enumerate().take(size) {
            match arena_index(at.wrapping_add(i as u64)) {
                Some(n) => *b = self.memory[n],
                // The load faults.
                None => return false,
            }
        }
        wild(u64::from_le_bytes(bytes) & low)
    }

    /// Linear addresses and lengths of what the instruction may access, but not how far a repeated one goes.
    pub fn accesses(&self) -> Vec<(u64, u64)> {
        let insn = &self.insn;
        let mut list = vec![];
        if let Some(at) = self.operand_address()
            && insn.mnemonic() != Mnemonic::Lea
        {
            list.push((at, Self::operand_bytes(insn)));
            if matches!(insn.mnemonic(), Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc)
                && insn.op1_kind() == OpKind::Register
            {
                let size = insn.op1_register().size() as u64;
                let v = self.pre.gpr[insn.op1_register().number()];
                let v = match size {
                    2 => i64::from(v as i16),
                    4 => i64::from(v as i32),
                    _ => v as i64,
                };
                list.clear();
                list.push((at.wrapping_add_signed((v >> (size * 8).trailing_zeros()).wrapping_mul(size as i64)), size));
            }
        }
        for kind in insn.op_kinds() {
            let (n, mask, segment) = match kind {
                OpKind::MemorySegRSI => (6, u64::MAX, true),
                OpKind::MemorySegESI => (6, 0xFFFF_FFFF, true),
                OpKind::MemorySegRDI => (7, u64::MAX, true),
                OpKind::MemorySegEDI => (7, 0xFFFF_FFFF, true),
                OpKind::MemoryESRDI => (7, u64::MAX, false),
                OpKind::MemoryESEDI => (7, 0xFFFF_FFFF, false),
                _ => continue,
            };
            let base = if segment { self.segment_base() } else { 0 };
            list.push(((self.pre.gpr[n] & mask).wrapping_add(base), 16));
        }
        if insn.is_stack_instruction() {
            let frame = if matches!(insn.mnemonic(), Mnemonic::Enter | Mnemonic::Leave) { 5 } else { 4 };
            list.push((self.pre.gpr[4].wrapping_sub(16), 32));
            list.push((self.pre.gpr[frame].wrapping_sub(16), 32));
        }
        list
    }
}

/// Bytes of the target of RET, CALL r/m and JMP r/m, and whether it is on the stack.
fn near_indirect(code: Code) -> Option<(usize, bool)> {
    Some(match code {
        Code::Jmp_rm16 | Code::Call_rm16 => (2, false),
        Code::Jmp_rm32 | Code::Call_rm32 => (4, false),
        Code::Jmp_rm64 | Code::Call_rm64 => (8, false),
        Code::Retnw | Code::Retnw_imm16 => (2, true),
        Code::Retnd | Code::Retnd_imm16 => (4, true),
        Code::Retnq | Code::Retnq_imm16 => (8, true),
        _ => return None,
    })
}

fn address_register(n: u64, narrow: bool) -> Register {
    if narrow { gpr64(n).full_register32() } else { gpr64(n) }
}

fn set_displacement(insn: &mut Instruction, disp: i64, narrow: bool, long: bool) {
    // iced picks 8 bits for size 1 when they suffice.
    let full = if narrow { 4 } else { 8 };
    let size = match disp {
        0 if !long => 0,
        _ if long => full,
        _ => 1,
    };
    insn.set_memory_displacement64(disp as u64);
    insn.set_memory_displ_size(size);
}

/// XSAVE, XRSTOR and their relatives, which take a component mask in EDX:EAX.
fn is_save(insn: &Instruction) -> bool {
    matches!(insn.memory_size(), MemorySize::Xsave | MemorySize::Xsave64)
}

pub fn segment_base(insn: &Instruction, pre: &State) -> u64 {
    match insn.memory_segment() {
        Register::FS => pre.fs_base,
        Register::GS => pre.gs_base,
        _ => 0,
    }
}

/// The linear address of the explicit memory operand.
pub fn operand_address(insn: &Instruction, pre: &State) -> Option<u64> {
    if !insn.op_kinds().any(|k| k == OpKind::Memory) {
        return None;
    }
    let value = |r: Register| -> u64 {
        if r == Register::None {
            return 0;
        }
        let full = pre.gpr[r.full_register().number()];
        match r.size() {
            1 => full & 0xFF,
            4 => full & 0xFFFF_FFFF,
            _ => full,
        }
    };
    let relative = insn.is_ip_rel_memory_operand();
    let base = if relative { 0 } else { value(insn.memory_base()) };
    let index = value(insn.memory_index()).wrapping_mul(u64::from(insn.memory_index_scale()));
    let displacement = if relative { insn.ip_rel_memory_address() } else { insn.memory_displacement64() };
    let mut ea = base.wrapping_add(index).wrapping_add(displacement);
    let narrow = [insn.memory_base(), insn.memory_index()].iter().any(|r| *r != Register::None && r.size() == 4)
        || insn.memory_base() == Register::None
            && insn.memory_index() == Register::None
            && insn.memory_displ_size() == 4;
    if narrow {
        ea &= 0xFFFF_FFFF;
    }
    Some(ea.wrapping_add(segment_base(insn, pre)))
}
