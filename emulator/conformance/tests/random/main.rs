//! A guest that writes every MSR of the hardware specification's section 3 with random values, and executes PCONFIG with
//! random structures at random addresses. Each instruction is the guest's own; each result has to be the one that a naive
//! model of the specification's text gives, and nothing else.

mod naive;

use conformance::harness::{Failure, Outcome, Power, Scenario, layout};
use conformance::{check, equal};
use iced_x86::code_asm::CodeAssembler;
use mem::tme::KeyMode;
use mem::{BusAddr, Knobs, MemType, Rate, TmeProfile};
use naive::{MSRS, Mode, Naive, Pconfig};
use x86::flags;
use x86::platform::ResetKind;

/// Instructions of one machine, and between two resets.
const PER_MACHINE: u64 = 2_000;
const PER_RESET: u64 = 64;
/// CF, PF, AF, ZF, SF, OF.
const ARITHMETIC: u64 = flags::CF | flags::PF | flags::AF | flags::ZF | flags::SF | flags::OF;

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn flip(&mut self, value: u64) -> u64 {
        value ^ 1 << self.below(64)
    }
}

/// One configuration under test.
struct Machine {
    s: Scenario,
    naive: Naive,
    knobs: bool,
    /// Linear address of a mapping and the bus address behind it.
    windows: Vec<(u64, BusAddr)>,
    rdmsr: Vec<u8>,
    wrmsr: Vec<u8>,
    pconfig: Vec<u8>,
    /// Writes and PCONFIGs that were accepted: the test is about something.
    accepted: u64,
}

fn code(assemble: impl FnOnce(&mut CodeAssembler) -> Result<(), iced_x86::IcedError>) -> Result<Vec<u8>, Failure> {
    let mut a = CodeAssembler::new(64)?;
    assemble(&mut a)?;
    a.hlt()?;
    Ok(a.assemble(layout::CODE)?)
}

impl Machine {
    fn new(random: &mut Random) -> Result<Machine, Failure> {
        let profile = TmeProfile::ALL[random.below(TmeProfile::ALL.len() as u64) as usize];
        let mut power = Power::profile(profile);
        if random.one_in(4) {
            // MK_TME_MAX_KEYS that is not of the form 2^n - 1, or no bypass.
            power = power.features(|f| {
                if f.max_keys() > 3 {
                    f.capability -= 3 << x86::tme::capability::MK_TME_MAX_KEYS_SHIFT;
                }
                f.capability &= !x86::tme::capability::BYPASS;
                if f.has_tme && !f.has_pconfig {
                    // Algorithms with integrity, for W6; their keys are not modelled.
                    f.capability |= 0b1010;
                }
            });
        }
        let (tdx, ignore, legacy) = (random.one_in(3), random.one_in(4), random.one_in(4));
        power = if tdx { power.tdx() } else { power };
        power = if ignore { power.locked_writes_ignored() } else { power };
        power = if legacy { power.legacy_codes() } else { power };
        let mut s = power.reset_state()?;
        let knobs = random.one_in(3);
        if knobs {
            let rate = Rate::from_ppm(200_000).unwrap_or_default();
            s.mem().tme_mut().set_knobs(Knobs { busy_rate: rate, entropy_fail_rate: rate, pconfig_latency: 20 });
        }
        let naive = Naive::new(*s.mem().tme().features(), tdx, ignore, legacy);
        let (rdmsr, wrmsr, pconfig) = (code(|a| a.rdmsr())?, code(|a| a.wrmsr())?, code(|a| a.pconfig())?);
        Ok(Machine { s, naive, knobs, windows: Vec::new(), rdmsr, wrmsr, pconfig, accepted: 0 })
    }

    /// Maps frames under KeyIDs that the processor may use now.
    fn map_windows(&mut self, random: &mut Random) {
        self.windows.clear();
        let shared = 1u64 << (self.naive.k() - self.naive.p());
        for n in 0..4 {
            let (frame, keyid) = (layout::FRAME + 0x1000 * n, random.below(shared) as u16);
            self.windows.push((self.s.map(frame, keyid), self.s.bus(frame, keyid)));
        }
    }

    fn reset(&mut self, random: &mut Random) {
        let kind = [ResetKind::Init, ResetKind::Warm, ResetKind::Warm, ResetKind::Cold][random.below(4) as usize];
        self.s.reset(kind);
        if kind != ResetKind::Init {
            self.naive.reset(kind == ResetKind::Cold);
            self.map_windows(random);
        }
    }

    fn step(&mut self, random: &mut Random) -> Result<(), Failure> {
        match random.below(8) {
            0..4 => self.write(random),
            4 => self.read(random),
            _ => self.key_program(random),
        }
    }

    fn read(&mut self, random: &mut Random) -> Result<(), Failure> {
        let msr = MSRS[random.below(MSRS.len() as u64) as usize];
        let upper = random.next() << 32;
        let end = self.s.run_bytes(conformance::harness::Mode::Long, &self.rdmsr, |cpu| {
            cpu.regs[1] = upper | u64::from(msr);
        })?;
        match self.naive.read(msr) {
            None => end.gp(&format!("RDMSR {msr:X}H")),
            Some(value) => {
                let end = end.halted()?;
                equal!((end.rdx(), end.rax()), (value >> 32, value & 0xFFFF_FFFF), "RDMSR {msr:X}H");
                Ok(())
            }
        }
    }

    fn write(&mut self, random: &mut Random) -> Result<(), Failure> {
        let msr = MSRS[random.below(MSRS.len() as u64) as usize];
        let value = self.value(msr, random);
        let upper = random.next() << 32;
        let end = self.s.run_bytes(conformance::harness::Mode::Long, &self.wrmsr, |cpu| {
            cpu.regs[1] = upper | u64::from(msr);
            cpu.regs[0] = upper | value & 0xFFFF_FFFF;
            cpu.regs[2] = upper | value >> 32;
        })?;
        let k = self.naive.k();
        if self.naive.write(msr, value) {
            end.halted().map_err(|f| Failure::Wrong(format!("WRMSR {msr:X}H of {value:#018x}: {f}")))?;
            self.accepted += 1;
        } else {
            end.gp(&format!("WRMSR {msr:X}H of {value:#018x}"))?;
        }
        if self.naive.k() != k {
            self.map_windows(random);
        }
        Ok(())
    }

    /// Half of the values are plausible, with one wrong bit now and then.
    fn value(&self, msr: u32, random: &mut Random) -> u64 {
        let r = random.next();
        let m = u64::from(self.s.machine.cpu.mem.tme().features().maxphyaddr);
        let address_bits = ((1u64 << m) - 1) & !0xFFF;
        let plausible = match msr {
            naive::ACTIVATE => {
                let (policy, bits) = ([0, 0, 2, 1][(r & 3) as usize], r >> 8 & 7);
                let partition = if r >> 16 & 7 == 0 { (r >> 20 & 3) << 36 } else { 0 };
                let algorithms = [5, 4, 1, 0][(r >> 24 & 3) as usize] << 48;
                let enable = r >> 44 & 15 != 0;
                let flags = (r >> 28 & 0b1100) | u64::from(enable) << 1 | policy << 4 | (r >> 48 & 1) << 31;
                flags | if enable { bits << 32 | partition | algorithms } else { 0 }
            }
            naive::EXCLUDE_MASK => address_bits & (u64::MAX << (12 + r % (m - 11))) | (r >> 40 & 1) << 11,
            naive::EXCLUDE_BASE => r & address_bits,
            naive::CLEAR_SAVED_KEY => r >> 60 & 1,
            _ => 0,
        };
        match random.below(4) {
            0 => random.next(),
            1 => random.flip(plausible),
            _ => plausible,
        }
    }

    fn key_program(&mut self, random: &mut Random) -> Result<(), Failure> {
        if self.windows.is_empty() {
            self.map_windows(random);
        }
        let (mut rbx, place) = self.address(random);
        if place.is_some() && !random.one_in(3) {
            self.write_structure(place, random);
        }
        if random.one_in(8) {
            rbx ^= 1 << random.below(8);
        }
        let rax = match random.below(8) {
            0 => random.next(),
            1 => [1, 2, 3, 0x8000_0000][random.below(4) as usize],
            _ => random.next() << 32,
        };
        let mut bytes = [0; 192];
        let bytes = place.map(|at| {
            // What the processor's load returns: the line under this address, cached or decrypted.
            self.s.mem().dma_read(at, &mut bytes);
            &bytes
        });
        let want = self.naive.pconfig(rax as u32, rbx, bytes);
        let (rcx, rdx, before) = (random.next(), random.next(), random.next() & ARITHMETIC);
        let end = self.s.run_bytes(conformance::harness::Mode::Long, &self.pconfig, |cpu| {
            (cpu.regs[0], cpu.regs[1], cpu.regs[2], cpu.regs[3]) = (rax, rcx, rdx, rbx);
            cpu.set_rflags(flags::FIXED | before);
        })?;
        equal!((end.rbx(), end.rcx(), end.rdx()), (rbx, rcx, rdx), "RBX, RCX, RDX after PCONFIG");
        let what = format!("PCONFIG, RAX {rax:#x}, RBX {rbx:#x}, {bytes:02x?}");
        match want {
            Pconfig::Ud => end.ud(&what)?,
            Pconfig::Gp => end.gp(&what)?,
            Pconfig::PageFault(page) => {
                let cr2 = end.fault.map_or(0, |fault| fault.cr2);
                end.page_fault(0, cr2, &what)?;
                equal!(cr2 & !0xFFF, page, "CR2's page, {what}");
            }
            Pconfig::Code(code) => self.returned(&end, code, &what)?,
            Pconfig::Done { keyid, mode, draws } => {
                let failed = self.knobs && (end.rax() == 5 || draws && end.rax() == 2);
                self.returned(&end, if failed { end.rax() } else { 0 }, &what)?;
                if !failed {
                    self.naive.table[usize::from(keyid)] = mode;
                    self.accepted += 1;
                }
            }
        }
        if end.fault.is_some() {
            equal!((end.rax(), end.rflags & ARITHMETIC), (rax, before), "RAX and flags after a fault, {what}");
        }
        Ok(())
    }

    fn returned(&self, end: &Outcome, code: u64, what: &str) -> Result<(), Failure> {
        check!(end.fault.is_none(), "{what}: {:?}, expected RAX = {code}", end.fault);
        let zf = if code == 0 { 0 } else { flags::ZF };
        equal!((end.rax(), end.rflags & ARITHMETIC), (code, zf), "RAX and flags, {what}");
        Ok(())
    }

    /// A linear address for the structure, and where it is if a page is present there.
    fn address(&self, random: &mut Random) -> (u64, Option<BusAddr>) {
        match random.below(12) {
            0..4 => (layout::PROGRAM, Some(BusAddr(layout::PROGRAM))),
            4..8 => {
                let (linear, bus) = self.windows[random.below(self.windows.len() as u64) as usize];
                let offset = random.below(16) * 256;
                (linear + offset, Some(bus.offset(offset)))
            }
            8 => {
                // RAM that is nothing in particular.
                let at = layout::FRAME + random.below((layout::RAM_BYTES - layout::FRAME) / 256) * 256;
                (at, Some(BusAddr(at)))
            }
            9 => ((layout::RAM_BYTES + random.below((1 << 30) - layout::RAM_BYTES)) & !0xFF, None),
            10 => (random.next() & 0x7FFF_FFFF_FF00 | 1 << 46, None),
            _ => (random.next() | 1 << 63, None),
        }
    }

    fn write_structure(&mut self, place: Option<BusAddr>, random: &mut Random) {
        let Some(at) = place else { return };
        let mut bytes = [0; 192];
        bytes.iter_mut().for_each(|byte| *byte = random.next() as u8);
        if !random.one_in(4) {
            let keyid = random.below(1 << (self.naive.k() + 1)) as u16;
            bytes[..2].copy_from_slice(&keyid.to_le_bytes());
            bytes[2] = random.below(5) as u8;
            bytes[3..5].copy_from_slice(&[1u16, 4, 1, 4, 5, 2, 0][random.below(7) as usize].to_le_bytes());
            bytes[5] = u8::from(random.one_in(16));
        }
        self.s.mem().write(at, MemType::Wb, false, &bytes);
        self.s.machine.cpu.drop_shortcuts();
    }

    /// The modes of all keys, which only the host sees.
    fn compare_tables(&mut self) -> Result<(), Failure> {
        let keys = self.s.mem().tme().keys();
        for (keyid, want) in self.naive.table.iter().enumerate().skip(1) {
            let mode = match keys.mode(mem::KeyId(keyid as u16)) {
                KeyMode::Tme => Mode::Tme,
                KeyMode::Encrypt(_) => Mode::Encrypt,
                _ => Mode::Plaintext,
            };
            equal!(mode, *want, "mode of KeyID {keyid}");
        }
        Ok(())
    }
}

/// Runs about this many instructions. Returns how many of them were accepted.
fn run(instructions: u64, seed: u64) -> u64 {
    let mut random = Random(seed);
    let mut accepted = 0;
    for machine in 0..instructions.div_ceil(PER_MACHINE) {
        let mut run = || -> Result<u64, Failure> {
            let mut m = Machine::new(&mut random)?;
            for n in 1..=PER_MACHINE {
                m.step(&mut random)?;
                if n % PER_RESET == 0 {
                    m.compare_tables()?;
                    m.reset(&mut random);
                }
            }
            Ok(m.accepted)
        };
        accepted += run().unwrap_or_else(|failure| panic!("machine {machine} of seed {seed}: {failure}"));
    }
    accepted
}

#[test]
fn random_msr_values_and_pconfig_structures_give_the_specified_results_only() {
    let accepted = run(100_000, 1);
    assert!(accepted > 10_000, "{accepted} of 100,000 were accepted");
}

/// `MKTME_RANDOM_OPS` instructions, 10 million by default.
#[test]
#[ignore = "takes minutes"]
fn ten_million_random_msr_values_and_pconfig_structures_give_the_specified_results_only() {
    let instructions = std::env::var("MKTME_RANDOM_OPS").ok().map_or(10_000_000, |text| text.parse().unwrap());
    run(instructions, 2);
}
