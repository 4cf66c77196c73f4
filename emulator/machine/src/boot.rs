//! The processor as firmware drives it: the architectural interface of [`BootCpu`] on the real core.

use cpu::Cpu;
use cpu::state::TableRegister;
use firmware::{BootCpu, EntryState, GpFault};
use mem::PhysAddr;
use x86::msr;
use x86::segment::{Segment, sreg};

/// Adapter, for the length of the firmware stage.
pub struct FirmwareCpu<'a>(pub &'a mut Cpu);

impl FirmwareCpu<'_> {
    /// Firmware gives every package the same settings, by a processor of each (MK specification section 7.1, steps 3 and 7). The
    /// other packages of this machine have none, so that their write comes with the first one's.
    fn write_in_other_packages(&mut self, number: u32, value: u64) {
        let mem = &mut self.0.mem;
        let here = mem.executing_package();
        for package in (0..mem.packages()).filter(|package| *package != here) {
            mem.execute_on(package);
            // The retry that follows a random generator's failure in one package faults in those that have a key.
            let _ = mem.tme_mut().wrmsr(number, value);
        }
        mem.execute_on(here);
    }
}

impl BootCpu for FirmwareCpu<'_> {
    fn cpuid(&mut self, leaf: u32, subleaf: u32) -> [u32; 4] {
        self.0.cpuid(leaf, subleaf)
    }

    fn rdmsr(&mut self, msr: u32) -> Result<u64, GpFault> {
        self.0.rdmsr(msr).map_err(|_| GpFault)
    }

    fn wrmsr(&mut self, number: u32, value: u64) -> Result<(), GpFault> {
        self.0.wrmsr(number, value).map_err(|_| GpFault)?;
        if matches!(number, msr::IA32_TME_ACTIVATE..=msr::IA32_TME_EXCLUDE_BASE) {
            self.write_in_other_packages(number, value);
        }
        Ok(())
    }

    fn write_phys(&mut self, address: u64, bytes: &[u8]) {
        self.0.tell_time();
        self.0.mem.load_image(PhysAddr(address), bytes);
    }

    fn read_phys(&mut self, address: u64, bytes: &mut [u8]) {
        self.0.tell_time();
        self.0.mem.read_image(PhysAddr(address), bytes);
    }

    fn enter(&mut self, state: EntryState) {
        let cpu = &mut *self.0;
        cpu.regs[..16].copy_from_slice(&state.gpr);
        cpu.cr0 = state.cr0;
        cpu.cr3 = state.cr3;
        cpu.cr4 = state.cr4;
        cpu.msr.efer = state.efer;
        cpu.set_rflags(state.rflags);
        for (i, segment) in state.segments.iter().enumerate() {
            cpu.set_segment(i, *segment);
        }
        cpu.tr = state.tr.unwrap_or(cpu.tr);
        cpu.gdtr = TableRegister { base: state.gdtr.base, limit: state.gdtr.limit };
        cpu.idtr = TableRegister { base: state.idtr.base, limit: state.idtr.limit };
        cpu.set_cpl(0);
        cpu.update_mode();
        cpu.flush_tlb(true);
        cpu.drop_shortcuts();
        cpu.move_to(state.rip);
    }

    fn port_out(&mut self, port: u16, size: u8, value: u32) {
        let (now, id) = (self.0.now(), self.0.id);
        self.0.platform.port_write(now, id, port, size, value);
    }

    fn port_in(&mut self, port: u16, size: u8) -> u32 {
        let (now, id) = (self.0.now(), self.0.id);
        self.0.platform.port_read(now, id, port, size)
    }

    fn jump_real16(&mut self, selector: u16, offset: u16) {
        let cs = self.0.segments[sreg::CS];
        self.0.set_segment(sreg::CS, Segment { selector, base: u64::from(selector) << 4, ..cs });
        self.0.move_to(offset.into());
    }
}
