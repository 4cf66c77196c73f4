//! Machine checks (SDM Vol. 3B, chapter 16 "Machine-Check Architecture"): one bank, of a processor whose memory has the
//! integrity option (MC-32). The only error is the use of poison: uncorrected, recoverable, and software has to act (SRAR).

use crate::Cpu;
use crate::exec::system::delivery::TripleFault;
use x86::cr::cr4;
use x86::{Exception, msr};

/// IA32_MCG_CAP: one bank, and MCG_SER_P: errors that software can recover from.
const MCG_CAP: u64 = 1 | 1 << 24;
/// IA32_MC0_CTL: the one error cannot be disabled. Writes are ignored.
const MC0_CTL: u64 = 1;

/// IA32_MCG_STATUS
mod mcg_status {
    /// The instruction at the saved RIP can be executed again.
    pub const RIPV: u64 = 1 << 0;
    /// The error is that instruction's.
    pub const EIPV: u64 = 1 << 1;
    /// A machine check is in progress.
    pub const MCIP: u64 = 1 << 2;
}

/// IA32_MCi_STATUS
mod status {
    pub const VAL: u64 = 1 << 63;
    pub const OVER: u64 = 1 << 62;
    pub const UC: u64 = 1 << 61;
    pub const EN: u64 = 1 << 60;
    pub const MISCV: u64 = 1 << 59;
    pub const ADDRV: u64 = 1 << 58;
    /// Signalled by a machine check.
    pub const S: u64 = 1 << 56;
    /// Software has to act before it goes on.
    pub const AR: u64 = 1 << 55;
}

/// IA32_MCi_MISC: bits 8:6 = 010B, IA32_MCi_ADDR has a physical address; bits 5:0, its lowest valid bit.
const MISC_PHYSICAL_LINE: u64 = 0b010 << 6 | 6;

/// What has met poison, by its MCA error code (SDM Vol. 3B, table "MCA Compound Error Code Encoding for SRAR Errors").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// A load, or the page walker.
    Data = 0x134,
    Instruction = 0x150,
}

/// The bank's registers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Bank {
    pub status: u64,
    pub addr: u64,
    pub misc: u64,
}

impl Cpu {
    /// #MC if the access just made has met poison.
    #[inline(always)]
    pub(crate) fn check_poison(&mut self, by: Use) -> Result<(), Exception> {
        if self.mem.has_consumed() { Err(self.poison_used(by)) } else { Ok(()) }
    }

    /// Logs the use of poison. The address is without KeyID, which not every system reports.
    #[cold]
    #[inline(never)]
    fn poison_used(&mut self, by: Use) -> Exception {
        if let Some(bus) = self.mem.take_consumed() {
            let bank = &mut self.msr.mc0;
            if bank.status & status::VAL != 0 {
                // Of two uncorrected errors the first stays (SDM Vol. 3B, section 16.3.2.2.1, "Overwrite Rules").
                bank.status |= status::OVER;
            } else {
                use status::*;
                let line = self.mem.layout().mem(bus).line().start().0;
                let status = VAL | UC | EN | MISCV | ADDRV | S | AR | by as u64;
                *bank = Bank { status, addr: line, misc: MISC_PHYSICAL_LINE };
            }
        }
        Exception::MachineCheck
    }

    /// Before #MC is delivered.
    ///
    /// # Errors
    /// With CR4.MCE = 0, or while another one is in progress, the processor shuts down (SDM Vol. 3A, section 6.15,
    /// "Interrupt 18").
    pub(crate) fn enter_machine_check(&mut self) -> Result<(), TripleFault> {
        use mcg_status::{EIPV, MCIP, RIPV};
        if self.cr4 & cr4::MCE == 0 || self.msr.mcg_status & MCIP != 0 {
            self.machine_check_shutdown = true;
            return Err(TripleFault);
        }
        self.msr.mcg_status = RIPV | EIPV | MCIP;
        Ok(())
    }

    /// RDMSR of the bank and IA32_MCG_CAP; `None`: there is no such MSR.
    pub(crate) fn machine_check_msr(&self, number: u32) -> Option<u64> {
        let (present, bank) = (self.mem.has_integrity(), &self.msr.mc0);
        Some(match number {
            msr::IA32_MCG_CAP => {
                if present {
                    MCG_CAP
                } else {
                    0
                }
            }
            msr::IA32_MC0_CTL if present => MC0_CTL,
            msr::IA32_MC0_STATUS if present => bank.status,
            msr::IA32_MC0_ADDR if present => bank.addr,
            msr::IA32_MC0_MISC if present => bank.misc,
            _ => return None,
        })
    }

    /// WRMSR of the bank: its registers but IA32_MC0_CTL take only 0. `None`: #GP(0).
    pub(crate) fn write_machine_check_msr(&mut self, number: u32, value: u64) -> Option<()> {
        if !self.mem.has_integrity() || number != msr::IA32_MC0_CTL && value != 0 {
            return None;
        }
        let bank = &mut self.msr.mc0;
        match number {
            msr::IA32_MC0_CTL => {}
            msr::IA32_MC0_STATUS => bank.status = 0,
            msr::IA32_MC0_ADDR => bank.addr = 0,
            msr::IA32_MC0_MISC => bank.misc = 0,
            _ => return None,
        }
        Some(())
    }
}
