//! Faults of the processor, between two instructions.

use crate::Machine;
use cpu::Cpu;
use mem::BusAddr;
use x86::cr::cr4;
use x86::flags;
use x86::msr::{
    IA32_CSTAR, IA32_EFER, IA32_FMASK, IA32_FS_BASE, IA32_GS_BASE, IA32_KERNEL_GS_BASE, IA32_LSTAR, IA32_PAT,
    IA32_STAR, IA32_SYSENTER_EIP, IA32_SYSENTER_ESP, IA32_TSC_AUX,
};
use x86::segment::sreg;

/// Flags that may change: not the reserved ones, VM and RF, which no instruction leaves set.
const FLAGS: u64 = flags::ARITH
    | flags::TF
    | flags::IF
    | flags::DF
    | flags::IOPL
    | flags::NT
    | flags::AC
    | flags::VIF
    | flags::VIP
    | flags::ID;
pub(super) const FLAGS_ACCEPTED: &str = "0, 2, 4, 6 to 14, 18 to 21 (SDM Vol. 1, section 3.4.3)";

/// MSRs that the core keeps as they were written.
const MSRS: [u32; 12] = [
    IA32_SYSENTER_ESP,
    IA32_SYSENTER_EIP,
    IA32_PAT,
    IA32_EFER,
    IA32_STAR,
    IA32_LSTAR,
    IA32_CSTAR,
    IA32_FMASK,
    IA32_FS_BASE,
    IA32_GS_BASE,
    IA32_KERNEL_GS_BASE,
    IA32_TSC_AUX,
];
pub(super) const MSRS_ACCEPTED: &str =
    "0x175, 0x176, 0x277, 0xc0000080 to 0xc0000084, 0xc0000100 to 0xc0000103; for 983H and 984H exclude-flip";

/// Presence bit of a paging-structure entry (SDM Vol. 3A, section 4.5).
const P: u64 = 1;
/// Bit 7 of an entry above the page table: it maps a page.
const PS: u64 = 1 << 7;
/// Address bits of an entry.
const FRAME: u64 = ((1 << 52) - 1) & !0xFFF;
const CR3_PCID: u64 = 0xFFF;

pub(super) fn is_flag(bit: u8) -> bool {
    FLAGS >> (bit & 63) & 1 != 0 && bit < 64
}

pub(super) fn is_msr(msr: u32) -> bool {
    MSRS.contains(&msr)
}

impl Machine {
    /// Flips a bit of RIP: the next instruction is elsewhere.
    pub(super) fn flip_rip(&mut self, bit: u8) {
        let rip = self.cpu.rip() ^ 1 << (bit & 63);
        self.cpu.set_rip(rip);
        self.cpu.refetch();
    }

    pub(super) fn flip_flag(&mut self, bit: u8) {
        let value = self.cpu.rflags() ^ 1 << (bit & 63);
        self.cpu.set_rflags(value);
    }

    pub(super) fn flip_msr(&mut self, msr: u32, bit: u8) -> bool {
        let mask = 1 << (bit & 63);
        let cpu = &mut self.cpu;
        let field = match msr {
            IA32_SYSENTER_ESP => &mut cpu.msr.sysenter_esp,
            IA32_SYSENTER_EIP => &mut cpu.msr.sysenter_eip,
            IA32_PAT => &mut cpu.msr.pat,
            IA32_EFER => &mut cpu.msr.efer,
            IA32_STAR => &mut cpu.msr.star,
            IA32_LSTAR => &mut cpu.msr.lstar,
            IA32_CSTAR => &mut cpu.msr.cstar,
            IA32_FMASK => &mut cpu.msr.fmask,
            IA32_KERNEL_GS_BASE => &mut cpu.msr.kernel_gs_base,
            IA32_TSC_AUX => &mut cpu.msr.tsc_aux,
            IA32_FS_BASE | IA32_GS_BASE => {
                let segment = if msr == IA32_FS_BASE { sreg::FS } else { sreg::GS };
                let base = cpu.segments[segment].base ^ mask;
                cpu.set_segment_base(segment, base);
                return true;
            }
            _ => return false,
        };
        *field ^= mask;
        // EFER and PAT are what modes and memory types follow from.
        if matches!(msr, IA32_EFER | IA32_PAT) {
            cpu.update_mode();
            cpu.refetch();
        }
        true
    }

    /// False: the TLB has no translation of the page.
    pub(super) fn flip_tlb(&mut self, address: u64, bit: u8) -> bool {
        let cpu = &mut self.cpu;
        let pcid = if cpu.cr4 & cr4::PCIDE != 0 { (cpu.cr3 & CR3_PCID) as u16 } else { 0 };
        let layout = cpu.mem.layout();
        if bit >= layout.keyid_bits {
            return false;
        }
        let found = cpu.tlb.flip(address >> 12, pcid, 1 << (layout.memory_bits() + u32::from(bit)));
        if found {
            cpu.refetch();
        }
        found
    }

    /// Flips a bit of a paging-structure entry, at the address at which the walker finds it. False: there is none, or paging is
    /// not 4-level.
    pub(super) fn flip_pte(&mut self, address: u64, level: u8, bit: u8) -> bool {
        let Some(at) = entry_address(&mut self.cpu, address, level) else { return false };
        let mut entry = [0; 8];
        self.cpu.mem.probe(at, &mut entry);
        let changed = u64::from_le_bytes(entry) ^ 1 << (bit & 63);
        self.cpu.tell_time();
        // As a device with the walker's full physical address would: the walker's next read finds it.
        self.cpu.mem.dma_write(at, &changed.to_le_bytes());
        true
    }
}

/// Where the entry of a level is: 4 is the PML4's.
fn entry_address(cpu: &mut Cpu, address: u64, level: u8) -> Option<BusAddr> {
    use x86::cr::{cr0, efer};
    if cpu.cr0 & cr0::PG == 0 || cpu.msr.efer & efer::LMA == 0 {
        return None;
    }
    let physical = (1u64 << u32::from(cpu.mem.layout().maxphyaddr).min(52)) - 1;
    let mut table = cpu.cr3 & physical & FRAME;
    for at in (1..=4).rev() {
        let index = address >> (12 + 9 * (u32::from(at) - 1)) & 0x1FF;
        let bus = BusAddr(table + index * 8);
        if !cpu.mem.is_ram(cpu.mem.layout().mem(bus)) {
            return None;
        }
        if at == level {
            return Some(bus);
        }
        let mut entry = [0; 8];
        cpu.mem.probe(bus, &mut entry);
        let entry = u64::from_le_bytes(entry);
        if entry & P == 0 || entry & PS != 0 {
            return None;
        }
        table = entry & physical & FRAME;
    }
    None
}
