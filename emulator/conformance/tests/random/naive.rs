//! The MSRs of section 3 and PCONFIG as the hardware specification words them, without keys and without memory.

use mem::TmeFeatures;

pub const KEYID_PARTITIONING: u32 = 0x87;
pub const CAPABILITY: u32 = 0x981;
pub const ACTIVATE: u32 = 0x982;
pub const EXCLUDE_MASK: u32 = 0x983;
pub const EXCLUDE_BASE: u32 = 0x984;
pub const CLEAR_SAVED_KEY: u32 = 0x9FB;
pub const CORE_ACTIVATE: u32 = 0x9FF;
/// Every MSR of section 3.
pub const MSRS: [u32; 7] =
    [KEYID_PARTITIONING, CAPABILITY, ACTIVATE, EXCLUDE_MASK, EXCLUDE_BASE, CLEAR_SAVED_KEY, CORE_ACTIVATE];

/// What an entry of the key table does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Tme,
    Encrypt,
    Plaintext,
}

/// How a PCONFIG has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pconfig {
    Ud,
    Gp,
    /// With error code 0 in this page.
    PageFault(u64),
    /// The key table was reached: success unless a knob intervenes.
    Done {
        keyid: u16,
        mode: Mode,
        draws: bool,
    },
    /// A code of `pconfig_legacy_codes`.
    Code(u64),
}

fn field(value: u64, high: u32, low: u32) -> u64 {
    value >> low & ((1 << (high - low + 1)) - 1)
}

pub struct Naive {
    features: TmeFeatures,
    tdx: bool,
    ignore_locked: bool,
    legacy: bool,
    activate: u64,
    mask: u64,
    base: u64,
    /// The policy of the retained key.
    saved: Option<u64>,
    core_bits: u64,
    pub table: Vec<Mode>,
}

impl Naive {
    pub fn new(features: TmeFeatures, tdx: bool, ignore_locked: bool, legacy: bool) -> Naive {
        let table = vec![Mode::Tme; usize::from(features.max_keys()) + 1];
        let (activate, mask, base) = (0, 0, 0);
        Naive { features, tdx, ignore_locked, legacy, activate, mask, base, saved: None, core_bits: 0, table }
    }

    fn m(&self) -> u32 {
        self.features.maxphyaddr.into()
    }

    fn max_bits(&self) -> u64 {
        field(self.features.capability, 35, 32)
    }

    fn max_keys(&self) -> u64 {
        field(self.features.capability, 50, 36)
    }

    fn locked(&self) -> bool {
        self.activate & 1 != 0
    }

    fn active(&self) -> bool {
        self.activate & 3 == 3
    }

    /// `k` in force.
    pub fn k(&self) -> u64 {
        if self.active() { field(self.activate, 35, 32) } else { 0 }
    }

    /// `p` in force.
    pub fn p(&self) -> u64 {
        if self.active() { field(self.activate, 39, 36) } else { 0 }
    }

    fn exists(&self, msr: u32) -> bool {
        match msr {
            KEYID_PARTITIONING | CORE_ACTIVATE => self.max_bits() > 0,
            CLEAR_SAVED_KEY => self.features.has_tme && field(self.features.capability, 30, 30) == 1,
            _ => self.features.has_tme,
        }
    }

    /// RDMSR; `None` is #GP(0).
    pub fn read(&self, msr: u32) -> Option<u64> {
        if !self.exists(msr) {
            return None;
        }
        Some(match msr {
            KEYID_PARTITIONING => {
                let all = ((1 << self.k()) - 1).min(self.max_keys());
                let shared = ((1 << (self.k() - self.p())) - 1).min(self.max_keys());
                if self.k() == 0 { 0 } else { shared | (all - shared) << 32 }
            }
            CAPABILITY => self.features.capability,
            ACTIVATE => self.activate,
            EXCLUDE_MASK => self.mask,
            EXCLUDE_BASE => self.base,
            CLEAR_SAVED_KEY => 0,
            _ => self.core_bits << 32,
        })
    }

    /// WRMSR; false is #GP(0), and nothing changes.
    pub fn write(&mut self, msr: u32, value: u64) -> bool {
        if !self.exists(msr) {
            return false;
        }
        match msr {
            ACTIVATE => self.write_activate(value),
            EXCLUDE_MASK => {
                let ones = (12..self.m()).map(|bit| field(value, bit, bit)).collect::<Vec<_>>();
                // From the first one up there is no zero.
                let contiguous = ones.iter().skip_while(|bit| **bit == 0).all(|bit| *bit == 1);
                if self.locked() || value >> self.m() != 0 || field(value, 10, 0) != 0 || !contiguous {
                    return false;
                }
                self.mask = value;
                true
            }
            EXCLUDE_BASE => {
                if self.locked() || value >> self.m() != 0 || field(value, 11, 0) != 0 {
                    return false;
                }
                self.base = value;
                true
            }
            CLEAR_SAVED_KEY if value <= 1 => {
                if value == 1 {
                    self.saved = None;
                }
                true
            }
            CORE_ACTIVATE if value == 0 => {
                self.core_bits = self.k();
                true
            }
            _ => false,
        }
    }

    /// Section 3.3, for a random generator that never fails.
    fn write_activate(&mut self, value: u64) -> bool {
        // W3
        if self.locked() {
            return self.ignore_locked;
        }
        let capability = self.features.capability;
        let supports = |algorithm: u64| capability >> algorithm & 1 == 1;
        let (enable, restore) = (field(value, 1, 1) == 1, field(value, 2, 2) == 1);
        let (policy, k, p) = (field(value, 7, 4), field(value, 35, 32), field(value, 39, 36));
        let refused = [
            // W4
            field(value, 30, 8) != 0,
            field(value, 31, 31) == 1 && field(capability, 31, 31) == 0,
            field(value, 47, 40) != 0 || field(value, 63, 52) != 0,
            p != 0 && !self.tdx,
            value >> 32 != 0 && self.max_bits() == 0,
            // W5 and W6
            enable && (policy > 3 || !supports(policy) || policy == 1 || policy == 3),
            // W7 to W10
            k > self.max_bits(),
            k > 0 && !enable,
            p > k,
            (0..16).any(|n| field(value, 48 + n, 48 + n) == 1 && !supports(n.into())),
        ];
        if refused.contains(&true) {
            return false;
        }
        if !enable {
            self.activate = value | 1;
        } else if restore && self.saved != Some(policy) {
            if k == 0 {
                self.activate = value & !3;
            }
        } else {
            self.activate = value | 1;
            self.table.fill(Mode::Tme);
            if field(value, 3, 3) == 1 {
                self.saved = Some(policy);
            }
        }
        true
    }

    /// Section 4.4. `page_fault`: the structure lies in a page that is not present; `bytes`: what a load of it returns.
    pub fn pconfig(&self, eax: u32, rbx: u64, bytes: Option<&[u8; 192]>) -> Pconfig {
        if !self.features.has_pconfig {
            return Pconfig::Ud;
        }
        let canonical = rbx as i64 == (rbx as i64) << 16 >> 16;
        if eax != 0 || !self.active() || self.k() == 0 || rbx & 0xFF != 0 || !canonical {
            return Pconfig::Gp;
        }
        let Some(bytes) = bytes else { return Pconfig::PageFault(rbx & !0xFFF) };
        let keyid = u16::from_le_bytes([bytes[0], bytes[1]]);
        let (command, algorithms) = (bytes[2], u16::from_le_bytes([bytes[3], bytes[4]]));
        let code = |code| if self.legacy { Pconfig::Code(code) } else { Pconfig::Gp };
        if bytes[5] != 0 {
            return Pconfig::Gp;
        }
        if command > 3 {
            return code(1);
        }
        let shared = 1 << (self.k() - self.p());
        if keyid == 0 || u64::from(keyid) > self.max_keys() || u64::from(keyid) >= shared {
            return code(3);
        }
        if algorithms.count_ones() != 1 || u64::from(algorithms) & self.activate >> 48 == 0 {
            return code(4);
        }
        let mode = [Mode::Encrypt, Mode::Encrypt, Mode::Tme, Mode::Plaintext][usize::from(command)];
        Pconfig::Done { keyid, mode, draws: command == 1 }
    }

    /// Section 7.3. `cold`: the retained key is lost as well.
    pub fn reset(&mut self, cold: bool) {
        (self.activate, self.mask, self.base, self.core_bits) = (0, 0, 0, 0);
        self.table.fill(Mode::Tme);
        if cold {
            self.saved = None;
        }
    }
}
