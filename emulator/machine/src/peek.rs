//! Memory as the guest would see it now, read without leaving a trace: no TLB entry, no cache line, no accessed bit.

use crate::Machine;
use cpu::Cpu;
use cpu::mmu::tlb::Side;
use mem::BusAddr;
use x86::cr::{cr0, cr4, efer};

/// Paging-structure entries (SDM Vol. 3A, section 4.5), as far as an address depends on them.
mod entry {
    pub const P: u64 = 1 << 0;
    pub const PS: u64 = 1 << 7;
    /// PCID in CR3 while CR4.PCIDE = 1.
    pub const CR3_PCID: u64 = 0xFFF;
}

const PAGE: u64 = 4096;

impl Machine {
    /// Bytes at a linear address, from where an instruction fetch would take them. Returns how many of `buf` could be read:
    /// it ends at the first page that is not mapped or is not RAM.
    pub fn peek(&mut self, linear: u64, buf: &mut [u8]) -> usize {
        read(&mut self.cpu, linear, buf, bus_address)
    }

    /// As [`peek`](Self::peek), through the 4-level page table at the full physical address `root` and no TLB: an address
    /// space other than the current one.
    pub fn peek_through(&mut self, root: u64, linear: u64, buf: &mut [u8]) -> usize {
        read(&mut self.cpu, linear, buf, |cpu, at| match walk(cpu, root, &LONG_SHIFTS, true, at) {
            Walked::Leaf { bus, .. } => Some(bus),
            Walked::Hole { .. } => None,
        })
    }

    /// What the 4-level page table at `root` has for a linear address.
    pub fn walk_through(&mut self, root: u64, linear: u64) -> Walked {
        walk(&mut self.cpu, root, &LONG_SHIFTS, true, linear)
    }

    /// Linear address of the instruction at `rip`.
    pub fn code_address(&self, rip: u64) -> u64 {
        let cpu = &self.cpu;
        if cpu.mode.is_long64() {
            return rip;
        }
        cpu.segments[x86::segment::sreg::CS].base.wrapping_add(rip) & 0xFFFF_FFFF
    }
}

/// What page tables say about a linear address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Walked {
    /// It is mapped, by an entry for `size` bytes.
    Leaf { bus: BusAddr, size: u64 },
    /// Nothing is mapped in the aligned `size` bytes around it.
    Hole { size: u64 },
}

/// Lowest address bit that each level translates, 4-level paging.
const LONG_SHIFTS: [u32; 4] = [39, 30, 21, 12];

/// Reads page by page until `translate` or RAM ends.
fn read(cpu: &mut Cpu, linear: u64, buf: &mut [u8], translate: impl Fn(&mut Cpu, u64) -> Option<BusAddr>) -> usize {
    let mut done = 0;
    while done < buf.len() {
        let at = linear.wrapping_add(done as u64);
        let piece = ((PAGE - at % PAGE) as usize).min(buf.len() - done);
        let Some(bus) = translate(cpu, at) else { break };
        if !cpu.mem.is_ram(cpu.mem.layout().mem(bus)) {
            break;
        }
        // What a device with the same full physical address would read: the cached copy if there is one.
        cpu.mem.probe(bus, &mut buf[done..done + piece]);
        done += piece;
    }
    done
}

/// The TLB first: a translation that page tables no longer have is what the processor goes by.
fn bus_address(cpu: &mut Cpu, linear: u64) -> Option<BusAddr> {
    if cpu.cr0 & cr0::PG == 0 {
        return Some(BusAddr(linear & 0xFFFF_FFFF));
    }
    let pcid = if cpu.cr4 & cr4::PCIDE != 0 { (cpu.cr3 & entry::CR3_PCID) as u16 } else { 0 };
    if let Some(t) = cpu.tlb.lookup(Side::Fetch, linear >> 12, pcid) {
        return Some(BusAddr(t.bus_page | (linear % PAGE)));
    }
    let pae = cpu.cr4 & cr4::PAE != 0;
    let walked = if cpu.msr.efer & efer::LMA != 0 {
        walk(cpu, cpu.cr3, &LONG_SHIFTS, true, linear)
    } else if pae {
        let e = cpu.pdpte[(linear >> 30 & 3) as usize];
        if e & entry::P == 0 {
            return None;
        }
        walk(cpu, e, &[21, 12], true, linear)
    } else {
        walk(cpu, cpu.cr3 & 0xFFFF_F000, &[22, 12], false, linear)
    };
    match walked {
        Walked::Leaf { bus, .. } => Some(bus),
        Walked::Hole { .. } => None,
    }
}

/// Walks tables of 8-byte entries (`wide`) or 4-byte entries from `root`, an entry or CR3: its low 12 bits are ignored.
fn walk(cpu: &mut Cpu, root: u64, shifts: &[u32], wide: bool, linear: u64) -> Walked {
    let physical = (1u64 << u32::from(cpu.mem.layout().maxphyaddr).min(63)) - 1;
    let mut table = root & physical & !(PAGE - 1);
    let (size, index_mask) = if wide { (8u64, 0x1FF) } else { (4, 0x3FF) };
    for &shift in shifts {
        let mut bytes = [0; 8];
        let at = BusAddr(table + (linear >> shift & index_mask) * size);
        cpu.mem.probe(at, &mut bytes[..size as usize]);
        let e = u64::from_le_bytes(bytes);
        if e & entry::P == 0 {
            return Walked::Hole { size: 1 << shift };
        }
        let offset = (1u64 << shift) - 1;
        if shift == 12 || e & entry::PS != 0 && shift != 39 {
            let base = match (wide, shift) {
                // PSE-36: address bits 39:32 are in bits 20:13 (SDM Vol. 3A, table 4-4).
                (false, 22) => e & 0xFFC0_0000 | (e >> 13 & 0xFF) << 32,
                _ => e & physical & !offset,
            };
            return Walked::Leaf { bus: BusAddr(base | linear & offset), size: offset + 1 };
        }
        table = e & physical & !(PAGE - 1);
    }
    Walked::Hole { size: PAGE }
}
