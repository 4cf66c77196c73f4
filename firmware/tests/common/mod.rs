//! A boot processor made of a flat memory and the MSRs that firmware touches.
#![allow(dead_code)]

use firmware::{Bios, BootCpu, EntryState, GpFault, MemoryMap, Setup, power_on};
use std::collections::BTreeMap;
use x86::msr;

pub const MIB: u64 = 1 << 20;
pub const GIB: u64 = 1 << 30;

/// IA32_TME_CAPABILITY of the built-in profiles (MC-02).
pub const DEFAULT: u64 = 0x0000_03F6_8000_0005;
pub const CLIENT4: u64 = 0x0000_00F4_8000_0004;
pub const TME_ONLY: u64 = 0x0000_0000_8000_0005;

const VARIABLE_MTRRS: u32 = 10;
const PAGE: usize = 4096;
/// What a page reads as that nobody wrote. Not zero: such DRAM decrypts to noise.
const UNWRITTEN: u8 = 0xA5;

pub struct MockCpu {
    pub maxphyaddr: u8,
    pub capability: Option<u64>,
    /// Activations that find no entropy (W13, W16).
    pub rng_failures: u32,
    pub msrs: BTreeMap<u32, u64>,
    /// Everything that firmware did to MSRs, in order.
    pub writes: Vec<(u32, u64)>,
    pages: BTreeMap<u64, [u8; PAGE]>,
    low_ram: u64,
    /// IA32_TME_ACTIVATE at the time of the first store to memory.
    pub activate_at_first_store: Option<u64>,
    pub entered: Option<EntryState>,
    pub ports: Vec<(u16, u8, u32)>,
    pub cmos: BTreeMap<u8, u8>,
    cmos_index: u8,
    /// Selector and offset of the last far jump.
    pub jumped: Option<(u16, u16)>,
}

impl MockCpu {
    pub fn new(maxphyaddr: u8, capability: Option<u64>, low_ram: u64) -> MockCpu {
        MockCpu {
            maxphyaddr,
            capability,
            rng_failures: 0,
            msrs: BTreeMap::new(),
            writes: Vec::new(),
            pages: BTreeMap::new(),
            low_ram,
            activate_at_first_store: None,
            entered: None,
            ports: Vec::new(),
            cmos: BTreeMap::new(),
            cmos_index: 0,
            jumped: None,
        }
    }

    /// The `default` profile with this much RAM.
    pub fn default_profile(ram: u64) -> (MockCpu, MemoryMap) {
        let memory = MemoryMap::new(ram).unwrap();
        (MockCpu::new(46, Some(DEFAULT), memory.low_top()), memory)
    }

    pub fn msr(&self, number: u32) -> u64 {
        self.msrs.get(&number).copied().unwrap_or(0)
    }

    pub fn bytes(&self, address: u64, length: usize) -> Vec<u8> {
        let byte = |at: u64| {
            let page = self.pages.get(&(at / PAGE as u64));
            page.map_or(UNWRITTEN, |page| page[at as usize % PAGE])
        };
        (address..address + length as u64).map(byte).collect()
    }

    pub fn u64_at(&self, address: u64) -> u64 {
        u64::from_le_bytes(self.bytes(address, 8).as_slice().try_into().unwrap())
    }

    pub fn u32_at(&self, address: u64) -> u32 {
        self.u64_at(address) as u32
    }

    fn max_keyid_bits(&self) -> u64 {
        self.capability.unwrap_or(0) >> 32 & 0xF
    }

    /// The conditions of section 3.3 that firmware could run into.
    fn write_activate(&mut self, value: u64) -> Result<(), GpFault> {
        let capability = self.capability.ok_or(GpFault)?;
        let (enable, k, policy) = (value & 2 != 0, value >> 32 & 0xF, value >> 4 & 0xF);
        let reserved = (capability & 1 << 31 == 0 && value & 1 << 31 != 0)
            || (self.max_keyid_bits() == 0 && value >> 32 != 0)
            || value & 0x7FFF_FF00 != 0
            || value >> 48 & !(capability & 0xFFFF) != 0;
        let bad_policy = enable && (policy > 3 || policy & 1 != 0 || capability >> policy & 1 == 0);
        let locked = self.msr(msr::IA32_TME_ACTIVATE) & 1 != 0;
        if locked || reserved || bad_policy || k > self.max_keyid_bits() || (k > 0 && !enable) {
            return Err(GpFault);
        }
        if enable && self.rng_failures > 0 {
            self.rng_failures -= 1;
            if k == 0 {
                self.msrs.insert(msr::IA32_TME_ACTIVATE, value & !3);
            }
            return Ok(());
        }
        self.msrs.insert(msr::IA32_TME_ACTIVATE, value | 1);
        Ok(())
    }
}

impl BootCpu for MockCpu {
    fn cpuid(&mut self, leaf: u32, _: u32) -> [u32; 4] {
        let word = |text: &[u8; 4]| u32::from_le_bytes(*text);
        match leaf {
            0 => [0x1B, word(b"Genu"), word(b"ntel"), word(b"ineI")],
            1 => [0x0006_06A6, 0, 0, 0],
            7 => [0, 0, u32::from(self.capability.is_some()) << 13, 0],
            0x8000_0000 => [0x8000_0008, 0, 0, 0],
            0x8000_0008 => [0x3000 | u32::from(self.maxphyaddr), 0, 0, 0],
            _ => [0; 4],
        }
    }

    fn rdmsr(&mut self, number: u32) -> Result<u64, GpFault> {
        match number {
            msr::IA32_MTRRCAP => Ok(0x500 | u64::from(VARIABLE_MTRRS)),
            msr::IA32_TME_CAPABILITY => self.capability.ok_or(GpFault),
            msr::IA32_TME_ACTIVATE if self.capability.is_some() => Ok(self.msr(number)),
            _ => self.msrs.get(&number).copied().ok_or(GpFault),
        }
    }

    fn wrmsr(&mut self, number: u32, value: u64) -> Result<(), GpFault> {
        self.writes.push((number, value));
        let locked = self.msr(msr::IA32_TME_ACTIVATE) & 1 != 0;
        match number {
            msr::IA32_TME_ACTIVATE => return self.write_activate(value),
            msr::IA32_TME_EXCLUDE_BASE | msr::IA32_TME_EXCLUDE_MASK => {
                if self.capability.is_none() || locked || value >> self.maxphyaddr != 0 {
                    return Err(GpFault);
                }
            }
            msr::MK_TME_CORE_ACTIVATE => {
                if self.max_keyid_bits() == 0 || value != 0 {
                    return Err(GpFault);
                }
                let k = self.msr(msr::IA32_TME_ACTIVATE) & 0xF_0000_0000;
                self.msrs.insert(number, k);
                return Ok(());
            }
            0x200..0x214 => {
                // Range registers accept M - k bits only, with k as the core knows it.
                let k = self.msr(msr::MK_TME_CORE_ACTIVATE) >> 32;
                if value >> (u64::from(self.maxphyaddr) - k) != 0 {
                    return Err(GpFault);
                }
            }
            0x250 | 0x258 | 0x259 | 0x268..=0x26F | msr::IA32_MTRR_DEF_TYPE => {}
            _ => return Err(GpFault),
        }
        self.msrs.insert(number, value);
        Ok(())
    }

    fn write_phys(&mut self, address: u64, bytes: &[u8]) {
        self.activate_at_first_store.get_or_insert(self.msrs.get(&msr::IA32_TME_ACTIVATE).copied().unwrap_or(0));
        assert!(address + bytes.len() as u64 <= self.low_ram, "store outside RAM");
        let (mut address, mut bytes) = (address, bytes);
        while !bytes.is_empty() {
            let offset = address as usize % PAGE;
            let (now, rest) = bytes.split_at(bytes.len().min(PAGE - offset));
            let page = self.pages.entry(address / PAGE as u64).or_insert([UNWRITTEN; PAGE]);
            page[offset..offset + now.len()].copy_from_slice(now);
            address += now.len() as u64;
            bytes = rest;
        }
    }

    fn read_phys(&mut self, address: u64, bytes: &mut [u8]) {
        bytes.copy_from_slice(&self.bytes(address, bytes.len()));
    }

    fn enter(&mut self, state: EntryState) {
        self.entered = Some(state);
    }

    fn port_out(&mut self, port: u16, size: u8, value: u32) {
        self.ports.push((port, size, value));
        if port == 0x70 {
            self.cmos_index = value as u8;
        } else if port == 0x71 {
            self.cmos.insert(self.cmos_index, value as u8);
        }
    }

    fn port_in(&mut self, port: u16, _: u8) -> u32 {
        assert_eq!(port, 0x71, "only CMOS RAM is read");
        self.cmos.get(&self.cmos_index).copied().unwrap_or(0).into()
    }

    fn jump_real16(&mut self, selector: u16, offset: u16) {
        self.jumped = Some((selector, offset));
    }
}

/// A machine of the `default` profile, powered on.
pub fn machine(ram: u64) -> (MockCpu, Bios) {
    let (mut cpu, memory) = MockCpu::default_profile(ram);
    let bios = power_on(&mut cpu, &Setup::default(), &memory).unwrap();
    (cpu, bios)
}

pub fn put(file: &mut [u8], at: usize, bytes: &[u8]) {
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

/// A program header.
pub struct Ph {
    pub vaddr: u64,
    pub paddr: u64,
    pub data: &'static [u8],
    pub memsz: u64,
}

/// An ELF64 executable for x86-64.
pub fn elf(entry: u64, headers: &[Ph]) -> Vec<u8> {
    let mut file = vec![0; 64];
    put(&mut file, 0, &[0x7F, b'E', b'L', b'F', 2, 1, 1]);
    put(&mut file, 16, &2u16.to_le_bytes());
    put(&mut file, 18, &62u16.to_le_bytes());
    put(&mut file, 20, &1u32.to_le_bytes());
    put(&mut file, 24, &entry.to_le_bytes());
    put(&mut file, 32, &64u64.to_le_bytes());
    put(&mut file, 52, &64u16.to_le_bytes());
    put(&mut file, 54, &56u16.to_le_bytes());
    put(&mut file, 56, &(headers.len() as u16).to_le_bytes());
    let mut offset = 64 + 56 * headers.len() as u64;
    for ph in headers {
        file.extend(1u32.to_le_bytes());
        file.extend(7u32.to_le_bytes());
        for field in [offset, ph.vaddr, ph.paddr, ph.data.len() as u64, ph.memsz, 0x1000] {
            file.extend(field.to_le_bytes());
        }
        offset += ph.data.len() as u64;
    }
    headers.iter().for_each(|ph| file.extend(ph.data));
    file
}
