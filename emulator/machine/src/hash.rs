//! The state hash (design D6): architectural processor state, TLBs, memory side, board, time. Counters and host-side
//! shortcuts are not part of it.

use crate::Machine;
use cpu::mmu::tlb::Side;
use mem::StateHasher;
use std::hash::Hasher;

/// [`StateHasher`] as the standard library's trait, for the board.
struct Adapter(StateHasher);

impl Hasher for Adapter {
    fn finish(&self) -> u64 {
        self.0.finish() as u64
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0.bytes(bytes);
    }
}

impl Machine {
    /// 128-bit hash of everything that later behaviour depends on.
    pub fn state_hash(&self) -> u128 {
        let mut h = Adapter(StateHasher::new());
        let cpu = &self.cpu;
        for r in &cpu.regs[..16] {
            h.0.u64(*r);
        }
        for v in [
            cpu.rip(),
            cpu.rflags(),
            cpu.cr0,
            cpu.cr2,
            cpu.cr3,
            cpu.cr4,
            cpu.dr6,
            cpu.dr7,
            cpu.xcr0,
            u64::from(cpu.cpl),
            u64::from(cpu.mxcsr),
            u64::from(cpu.interrupt_shadow) | u64::from(cpu.nmi_blocked) << 1 | (cpu.activity as u64) << 2,
            u64::from(cpu.sequential) | u64::from(cpu.repeating) << 1,
            cpu.icount(),
            cpu.now().0,
        ] {
            h.0.u64(v);
        }
        for v in cpu.dr.iter().chain(&cpu.pdpte) {
            h.0.u64(*v);
        }
        for s in cpu.segments.iter().chain([&cpu.ldtr, &cpu.tr]) {
            h.0.u64(u64::from(s.selector) | u64::from(s.ar) << 16);
            h.0.u64(u64::from(s.limit));
            h.0.u64(s.base);
        }
        for t in [cpu.gdtr, cpu.idtr] {
            h.0.u64(t.base);
            h.0.u64(u64::from(t.limit));
        }
        self.hash_msrs(&mut h.0);
        let x = &cpu.x87;
        for v in [x.fcw, x.fsw, x.ftw, x.fop, x.fcs, x.fds] {
            h.0.u64(u64::from(v));
        }
        h.0.u64(x.fip);
        h.0.u64(x.fdp);
        for r in x.regs.iter().chain(&cpu.xmm) {
            h.0.u128(*r);
        }
        for side in [Side::Data, Side::Fetch] {
            for t in cpu.tlb.live(side) {
                h.0.u64(t.vpage);
                h.0.u64(t.bus_page);
                h.0.u64(u64::from(t.props) | u64::from(t.pcid) << 16 | (t.ty as u64) << 32);
            }
        }
        for side in [Side::Data, Side::Fetch] {
            cpu.tlb.replacement(side).for_each(|word| h.0.u64(word));
        }
        cpu.mem.state_hash(&mut h.0);
        self.chipset().state_hash(cpu.now(), &mut h);
        h.0.finish()
    }

    fn hash_msrs(&self, h: &mut StateHasher) {
        let m = &self.cpu.msr;
        for v in [
            m.efer,
            m.star,
            m.lstar,
            m.cstar,
            m.fmask,
            m.kernel_gs_base,
            m.tsc_aux,
            m.sysenter_cs,
            m.sysenter_esp,
            m.sysenter_eip,
            m.pat,
            m.misc_enable,
            m.tsc_adjust,
            m.spec_ctrl,
            m.bios_sign_id,
            m.feature_control,
            m.mcg_status,
            m.xss,
            u64::from(m.k_core),
            m.mtrr.def_type,
        ] {
            h.u64(v);
        }
        if self.cpu.mem.has_integrity() {
            for v in [m.mc0.status, m.mc0.addr, m.mc0.misc] {
                h.u64(v);
            }
        }
        for v in m.mtrr.phys_base.iter().chain(&m.mtrr.phys_mask).chain(&m.mtrr.fixed) {
            h.u64(*v);
        }
    }
}
